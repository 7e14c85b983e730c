"""One step: `step(machine, snapshot, event) -> Step(snapshot, effects, taken)`. Pure.

A step takes one event, follows at most one transition of the present state, and then as many
microsteps (`always`, an expression that fails on the way) as it needs to come to rest in a state that
waits for something: an action, a map, a timer, a signal, or nothing any more.

Every target comes from the table that the compiler read out of `transitions`. This file says which events a state
takes; `draft.py` says what following a branch, entering a state and failing are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from engine.core.action import INTERRUPTED, EngineCode, Failure
from engine.core.draft import PAUSES, RETRY, RUNNING, TIMEOUT, WAITING, Draft, Step, assigned, map_done
from engine.core.effect import Effect, Finish, Rest
from engine.core.event import (
    ActionFailed,
    ActionReturned,
    CancelRequested,
    Event,
    MapFinished,
    RunRedriven,
    RunStarted,
    SignalReceived,
    StepRefused,
    TimerFired,
)
from engine.core.machine import Machine, StateKind
from engine.core.snapshot import Snapshot, Status
from engine.errors import ExpressionError

__all__ = ["Step", "pending", "step"]

_WAIT: Final = StateKind.WAIT


def step(machine: Machine, snapshot: Snapshot, event: Event) -> Step:
    """Take one event. Raises `IllegalEventError`, and changes nothing, when the state does not take it."""
    draft = Draft(machine, snapshot, event)
    _TAKE[type(event)](draft, event)
    return draft.finished()


def pending(machine: Machine, snapshot: Snapshot) -> Effect:
    """What a run at rest waits for: the effect that its last step asked for, computed again.

    Raises `ExpressionError` never for a snapshot that `step` made: the same expressions gave a value then.
    """
    if snapshot.status.is_final:
        return Finish()
    state = machine.states[snapshot.state]
    if any(pause in snapshot.timers for pause in PAUSES) or state.kind is StateKind.WAIT:
        return Rest(min(snapshot.timers.values(), default=None))
    draft = Draft(machine, snapshot, TimerFired(0, ""))
    if state.invoke is not None:
        return draft.perform(state.invoke)
    if state.map is not None:
        return draft.start_map(state.map)
    raise AssertionError(f"{snapshot.state} is no state in which a run can rest")


# Events


def _started(draft: Draft, event: RunStarted) -> None:
    if draft.status is not Status.PENDING:
        raise draft.illegal("it has started already")
    draft.input = event.input
    draft.started_at_ms = event.at_ms
    draft.enter(draft.program.initial)


def _returned(draft: Draft, event: ActionReturned) -> None:
    state = draft.program.states[draft.state] if draft.state else None
    invoke = None if state is None else state.invoke
    if state is None or invoke is None or draft.status is not RUNNING:
        raise draft.illegal("no action is being performed")
    branches = state.branches.get("on:" + event.name)
    if branches is None:
        message = f"{draft.state} has no transition for the outcome {event.name!r} of {invoke.action}"
        draft.fail(Failure(EngineCode.TRANSITION_MISSING, message))
        return
    draft.result = event.value
    try:
        # An interrupted action has no result, so there is nothing to assign from.
        if invoke.assign and event.name != INTERRUPTED:
            draft.context = assigned(invoke.assign, draft.context, draft)
        draft.follow(branches)
    except ExpressionError as error:
        draft.fail(Failure(EngineCode.EXPRESSION_FAILED, error.message))


def _failed(draft: Draft, event: ActionFailed) -> None:
    state = draft.here() if draft.state else None
    if state is None or draft.status is not Status.RUNNING:
        raise draft.illegal("no action is being performed")
    failure = event.failure
    for policy in state.invoke.retry if state.invoke else ():
        if policy.covers(failure.code, retriable=failure.retriable):
            if draft.attempt >= policy.attempts:
                break
            seed = f"{draft.run_id}:{draft.state}:{draft.visits[draft.state]}"
            draft.pause(RETRY, policy.delay_s(draft.attempt, failure.retry_after_s, seed))
            draft.attempt += 1
            return
    draft.fail(failure)


def _fired(draft: Draft, event: TimerFired) -> None:
    due_at_ms = draft.timers.get(event.name)
    if due_at_ms is None or draft.status.is_final:
        raise draft.illegal(f"it has no timer {event.name!r}")
    if event.at_ms < due_at_ms:
        raise draft.illegal(f"its timer {event.name!r} is due {due_at_ms - event.at_ms} ms later")
    if event.name in PAUSES:
        draft.timers = {}
        draft.begin(draft.here())
    elif event.name == TIMEOUT:
        draft.fail(Failure(EngineCode.TIMEOUT, f"{draft.state} took longer than its timeout", retriable=True))
    else:
        draft.timers = {name: due for name, due in draft.timers.items() if name != event.name}
        try:
            draft.follow(draft.here().branches[event.name])
        except ExpressionError as error:
            draft.fail(Failure(EngineCode.EXPRESSION_FAILED, error.message))


def _map_finished(draft: Draft, event: MapFinished) -> None:
    if not draft.state or draft.here().map is None or draft.status is not Status.RUNNING:
        raise draft.illegal("no map is under way")
    try:
        map_done(draft, event.items)
    except ExpressionError as error:
        draft.fail(Failure(EngineCode.EXPRESSION_FAILED, error.message))


def _signalled(draft: Draft, event: SignalReceived) -> None:
    state = draft.program.states[draft.state] if draft.state else None
    branches = None if state is None else state.branches.get("on:" + event.name)
    if state is None or branches is None or draft.status is not WAITING or state.kind is not _WAIT:
        raise draft.illegal(f"it does not wait for the signal {event.name!r}")
    if draft.timers and any(pause in draft.timers for pause in PAUSES):
        raise draft.illegal(f"it has not begun to wait for the signal {event.name!r}")
    draft.result = event.value
    try:
        for branch in branches:
            if branch.guard is None or branch.guard.holds(draft):
                draft.take(branch)
                return
    except ExpressionError as error:
        draft.fail(Failure(EngineCode.EXPRESSION_FAILED, error.message))
        return
    # Whoever sends signals must not be able to end a run with one that does not fit.
    raise draft.illegal(f"no transition for the signal {event.name!r} has a guard that holds")


def _cancelled(draft: Draft, event: CancelRequested) -> None:
    if draft.status.is_final:
        raise draft.illegal("it has ended")
    failure = Failure("CANCELLED", event.reason or "The run was cancelled")
    branches = draft.here().branches.get("cancel") if draft.state else None
    if branches:
        draft.caught = failure.to_json()
        try:
            draft.follow(branches)
        except ExpressionError as error:
            draft.fail(Failure(EngineCode.EXPRESSION_FAILED, error.message))
    elif branches is None:
        draft.end(failure)
        draft.status = Status.CANCELLED
    else:
        raise draft.illegal("it is on the way that its definition gives to a cancelled run")


def _redriven(draft: Draft, event: RunRedriven) -> None:
    if draft.status not in (Status.FAILED, Status.CANCELLED):
        raise draft.illegal("only a run that failed or was cancelled is redriven")
    state = draft.program.states.get(event.state)
    if state is None or state.kind in (StateKind.FINAL, StateKind.CHOICE):
        raise draft.illegal(f"{event.state!r} is no state of {draft.machine} in which a run can stand")
    draft.output = draft.error = None
    draft.visits_before = draft.visits
    first = draft.program.states[draft.program.initial].invoke
    if isinstance(event.claim, dict) and first is not None:
        draft.result = event.claim["value"]
        try:
            draft.context = assigned(first.assign, draft.context, draft)
        except ExpressionError as error:
            draft.end(Failure(EngineCode.EXPRESSION_FAILED, error.message))
            return
    draft.enter(event.state)


def _refused(draft: Draft, event: StepRefused) -> None:
    if draft.status.is_final:
        raise draft.illegal("it has ended")
    if draft.state and not event.is_last:
        draft.fail(event.failure)
    else:
        draft.end(event.failure)


_TAKE: Final[dict[type[Any], Callable[[Draft, Any], None]]] = {
    RunStarted: _started,
    ActionReturned: _returned,
    ActionFailed: _failed,
    TimerFired: _fired,
    MapFinished: _map_finished,
    SignalReceived: _signalled,
    CancelRequested: _cancelled,
    RunRedriven: _redriven,
    StepRefused: _refused,
}
