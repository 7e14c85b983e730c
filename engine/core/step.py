"""One step: `step(machine, snapshot, event) -> Step(snapshot, effects, taken)`. Pure.

A step takes one event, follows at most one transition of the present state, and then as many
microsteps (`always`, an expression that fails on the way) as it needs to come to rest in a state that
waits for something: an action, a map, a timer, a signal, or nothing any more.

The order within one transition is fixed: the invoke's `assign`, then the guards from first to last,
then the branch's `assign`, then its delay, then the entry (`visits` grows by one), then the new
state's parameters. Each sees what came before it. Every target comes from the table that the compiler
read out of `transitions`; what this file adds is the order above, the bounds, and where failures go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from engine.core.action import INTERRUPTED, EngineCode, Failure
from engine.core.bounds import DELAY_S_MAX, KEY_CHARS_MAX, MAP_ITEMS_MAX, MICROSTEPS_MAX, VISITS_MAX
from engine.core.effect import Effect, Finish, Perform, Rest, StartMap, StopMap
from engine.core.event import (
    ActionFailed,
    ActionReturned,
    CancelRequested,
    Event,
    MapFinished,
    RunStarted,
    SignalReceived,
    StepRefused,
    TimerFired,
    tag,
)
from engine.core.expression import Template
from engine.core.machine import Branch, Invoke, Machine, MapCall, State, StateKind
from engine.core.scope import MomentScope
from engine.core.snapshot import Snapshot, Status
from engine.errors import ExpressionError, IllegalEventError

DELAY: Final = "delay"
RETRY: Final = "retry"
TIMEOUT: Final = "timeout"
_PAUSES: Final = (DELAY, RETRY)


class Step(NamedTuple):
    """The snapshot after the event, what the runner is to do next, and the transitions that were taken."""

    snapshot: Snapshot
    effects: tuple[Effect, ...]
    taken: tuple[Branch, ...]


def step(machine: Machine, snapshot: Snapshot, event: Event) -> Step:
    """Take one event. Raises `IllegalEventError`, and changes nothing, when the state does not take it."""
    draft = _Draft(machine, snapshot, event)
    _TAKE[type(event)](draft, event)
    return draft.finished()


def pending(machine: Machine, snapshot: Snapshot) -> Effect:
    """What a run at rest waits for: the effect that its last step asked for, computed again.

    Raises `ExpressionError` never for a snapshot that `step` made: the same expressions gave a value then.
    """
    if snapshot.status.is_final:
        return Finish()
    state = machine.states[snapshot.state]
    if any(pause in snapshot.timers for pause in _PAUSES) or state.kind is StateKind.WAIT:
        return Rest(min(snapshot.timers.values(), default=None))
    draft = _Draft(machine, snapshot, TimerFired(0, ""))
    if state.invoke is not None:
        return draft.perform(state.invoke)
    if state.map is not None:
        return draft.start_map(state.map)
    raise AssertionError(f"{snapshot.state} is no state in which a run can rest")


class _Draft:
    """The step under way: the fields of the snapshot to come, each as far as it is known."""

    __slots__ = (
        "at_ms", "attempt", "before", "context", "effects", "error", "event", "input", "key", "machine",
        "microsteps", "output", "program", "run_id", "started_at_ms", "state", "status", "taken", "timers",
        "version", "visits",
    )  # fmt: skip

    def __init__(self, machine: Machine, snapshot: Snapshot, event: Event) -> None:
        self.program = machine
        self.before = snapshot
        self.event = event
        self.at_ms: int = event.at_ms
        self.run_id, self.machine, self.version, self.key = (
            snapshot.run_id, snapshot.machine, snapshot.version, snapshot.key,
        )  # fmt: skip
        self.state = snapshot.state
        self.status = snapshot.status
        self.input = snapshot.input
        self.context = snapshot.context
        self.visits = snapshot.visits
        self.attempt = snapshot.attempt
        self.timers = snapshot.timers
        self.started_at_ms = snapshot.started_at_ms
        self.output = snapshot.output
        self.error = snapshot.error
        self.effects: tuple[Effect, ...] = ()
        self.taken: tuple[Branch, ...] = ()
        self.microsteps = 0

    def machine_of(self) -> Machine:
        """The program, for expressions that ask for visits."""
        return self.program

    def here(self) -> State:
        """The leaf in which the run stands."""
        return self.program.states[self.state]

    def illegal(self, why: str) -> IllegalEventError:
        """The error for an event that does not fit; the step is given up and nothing has changed."""
        where = f"in {self.state}" if self.state else "before its start"
        return IllegalEventError(
            f"run {self.run_id} of {self.machine} stands {where} ({self.status}) and does not take "
            f"{tag(self.event)}: {why}.",
            remedy="Nothing was changed. See `detent runs show` for what the run waits for.",
        )

    def finished(self) -> Step:
        before = self.before
        snapshot = Snapshot(
            before.run_id, before.machine, before.version, before.digest, before.key, before.seq + 1, self.state,
            self.status, self.input, self.context, self.visits, self.attempt, self.timers, self.started_at_ms,
            self.output, self.error,
        )  # fmt: skip
        return Step(snapshot, self.effects, self.taken)

    # Transitions

    def follow(self, branches: tuple[Branch, ...], scope: MomentScope) -> None:
        """Take the first branch whose guard holds; raises `ExpressionError`; without any, the state fails."""
        for branch in branches:
            if branch.guard is None or branch.guard.holds(scope):
                self.take(branch, scope)
                return
        self.fail(Failure(EngineCode.TRANSITION_MISSING, f"no transition of {self.state} has a guard that holds"))

    def take(self, branch: Branch, scope: MomentScope) -> None:
        """Follow one branch to its target. Raises `ExpressionError` before anything has changed."""
        context = _assigned(branch.assign, self.context, scope)
        delay_s = 0.0 if branch.delay is None else _seconds(branch.delay, scope.with_context(context))
        self.context = context
        self.taken += (branch,)
        self.enter(branch.target, delay_s)

    def enter(self, name: str, delay_s: float = 0.0) -> None:
        """Enter a leaf: count the visit, then wait out the delay or begin what the state does."""
        self._leave()
        self.state = name
        self.attempt = 1
        self.timers = {}
        visits = self.visits.get(name, 0) + 1
        self.visits = {**self.visits, name: visits}
        self.microsteps += 1
        state = self.here()
        visits_max = state.max_visits or VISITS_MAX
        if self.microsteps > MICROSTEPS_MAX:
            self.end(Failure(EngineCode.MICROSTEPS_EXCEEDED, f"more than {MICROSTEPS_MAX} states without coming to rest"))
        elif visits > visits_max:
            failure = Failure(EngineCode.VISITS_EXCEEDED, f"{name} was entered more than {visits_max} times")
            # Caught once; a catch that leads back here a second time would loop, so it ends the run.
            self.fail(failure) if visits == visits_max + 1 else self.end(failure)
        elif delay_s > 0:
            self.pause(DELAY, delay_s)
        else:
            self.begin()

    def _leave(self) -> None:
        """Stop the map in which the run stood before this step; one that this step passed has not been started."""
        stood_here = self.microsteps == 0 and self.before.status is Status.RUNNING
        if stood_here and self.here().kind is StateKind.MAP:
            self.effects += (StopMap(self.state, self.visits[self.state]),)

    def pause(self, timer: str, delay_s: float) -> None:
        """Rest until a timer of the engine's own fires."""
        due_at_ms = self.at_ms + round(delay_s * 1000)
        self.timers = {timer: due_at_ms}
        self.status = Status.WAITING
        self.effects += (Rest(due_at_ms),)

    def begin(self) -> None:
        """Begin what the present state does; an expression that fails is the state's failure."""
        state = self.here()
        try:
            _BEGIN[state.kind](self, state)
        except _MapError as error:
            self.fail(Failure(EngineCode.MAP_INVALID, error.message))
        except ExpressionError as error:
            self.fail(Failure(EngineCode.EXPRESSION_FAILED, error.message))

    # Failures

    def fail(self, failure: Failure) -> None:
        """Go where the present state's catches send the failure; without one the run ends FAILED."""
        for branch in self.here().branches.get("catch", ()):
            if branch.errors is not None and failure.code not in branch.errors:
                continue
            scope = MomentScope(self, self.context, error=failure.to_json())
            try:
                if branch.guard is None or branch.guard.holds(scope):
                    self.take(branch, scope)
                    return
            except ExpressionError:
                continue  # a catch that cannot be evaluated does not hold: the next, wider one must get its turn
        self.end(failure)

    def end(self, failure: Failure) -> None:
        """End the run where it stands."""
        self._leave()
        self.status = Status.FAILED
        self.timers = {}
        self.error = failure.to_json()
        self.effects += (Finish(),)

    # What states ask for

    def perform(self, invoke: Invoke) -> Perform:
        """The effect of an action state. Raises `ExpressionError`."""
        scope = MomentScope(self, self.context)
        params = {name: template.render(scope) for name, template in invoke.params.items()}
        key = f"{self.run_id}:{self.state}:{self.visits[self.state]}"
        return Perform(invoke.action, params, invoke.timeout_s, self.attempt, key)

    def start_map(self, call: MapCall) -> StartMap:
        """The effect of a map state. Raises `ExpressionError`, also for items that cannot be mapped."""
        scope = MomentScope(self, self.context)
        items = call.items.render(scope)
        if not isinstance(items, (list, tuple)):
            raise _map_error(call, f"items is no list but a {type(items).__name__}")
        if len(items) > MAP_ITEMS_MAX:
            raise _map_error(call, f"{len(items)} items are more than {MAP_ITEMS_MAX}")
        scopes = [scope.with_item(item) for item in items]
        keys = tuple(call.key.render(one) for one in scopes)
        seen: set[str] = set()
        for key in keys:
            if not isinstance(key, str) or not key:
                raise _map_error(call, f"the key {key!r} is no non-empty string")
            if len(key) > KEY_CHARS_MAX:
                raise _map_error(call, f"a key of {len(key)} characters is longer than {KEY_CHARS_MAX}")
            if key in seen:
                raise _map_error(call, f"two items have the key {key!r}")
            seen.add(key)
        inputs = tuple(items) if call.input is None else tuple(call.input.render(one) for one in scopes)
        return StartMap(call.machine, tuple(items), keys, inputs, call.concurrency, _quorum(call, scope))


def _begin_action(draft: _Draft, state: State) -> None:
    assert state.invoke is not None
    effect = draft.perform(state.invoke)
    draft.status = Status.RUNNING
    draft.effects += (effect,)


def _begin_map(draft: _Draft, state: State) -> None:
    assert state.map is not None
    effect = draft.start_map(state.map)
    draft.status = Status.RUNNING
    if not effect.items:
        _map_done(draft, [])
        return
    if state.timeout_s is not None:
        draft.timers = {TIMEOUT: draft.at_ms + round(state.timeout_s * 1000)}
    draft.effects += (effect,)


def _begin_choice(draft: _Draft, state: State) -> None:
    draft.follow(state.branches["always"], MomentScope(draft, draft.context))


def _begin_wait(draft: _Draft, state: State) -> None:
    scope = MomentScope(draft, draft.context)
    timers = {after.event: draft.at_ms + round(_seconds(after.delay, scope) * 1000) for after in state.after}
    if state.timeout_s is not None:
        timers[TIMEOUT] = draft.at_ms + round(state.timeout_s * 1000)
    draft.timers = timers
    draft.status = Status.WAITING
    draft.effects += (Rest(min(timers.values(), default=None)),)


def _begin_final(draft: _Draft, state: State) -> None:
    scope = MomentScope(draft, draft.context)
    try:
        output = None if state.output is None else state.output.render(scope)
        error = None if state.error is None else state.error.render(scope)
    except ExpressionError as problem:
        draft.end(Failure(EngineCode.EXPRESSION_FAILED, problem.message))
        return
    draft.status = state.status
    draft.output = output
    draft.error = error
    draft.effects += (Finish(),)


_BEGIN: Final[dict[StateKind, Callable[[_Draft, State], None]]] = {
    StateKind.ACTION: _begin_action,
    StateKind.MAP: _begin_map,
    StateKind.CHOICE: _begin_choice,
    StateKind.WAIT: _begin_wait,
    StateKind.FINAL: _begin_final,
}


# Events


def _started(draft: _Draft, event: RunStarted) -> None:
    if draft.status is not Status.PENDING:
        raise draft.illegal("it has started already")
    draft.input = event.input
    draft.started_at_ms = event.at_ms
    draft.enter(draft.program.initial)


def _returned(draft: _Draft, event: ActionReturned) -> None:
    invoke = _in_action(draft)
    scope = MomentScope(draft, draft.context, result=event.value)
    branches = draft.here().branches.get(f"on:{event.name}")
    if branches is None:
        message = f"{draft.state} has no transition for the outcome {event.name!r} of {invoke.action}"
        draft.fail(Failure(EngineCode.TRANSITION_MISSING, message))
        return
    try:
        # An interrupted action has no result, so there is nothing to assign from.
        if event.name != INTERRUPTED:
            draft.context = _assigned(invoke.assign, draft.context, scope)
        draft.follow(branches, scope.with_context(draft.context))
    except ExpressionError as error:
        draft.fail(Failure(EngineCode.EXPRESSION_FAILED, error.message))


def _failed(draft: _Draft, event: ActionFailed) -> None:
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


def _fired(draft: _Draft, event: TimerFired) -> None:
    due_at_ms = draft.timers.get(event.name)
    if due_at_ms is None or draft.status.is_final:
        raise draft.illegal(f"it has no timer {event.name!r}")
    if event.at_ms < due_at_ms:
        raise draft.illegal(f"its timer {event.name!r} is due {due_at_ms - event.at_ms} ms later")
    if event.name in _PAUSES:
        draft.timers = {}
        draft.begin()
    elif event.name == TIMEOUT:
        draft.fail(Failure(EngineCode.TIMEOUT, f"{draft.state} took longer than its timeout", retriable=True))
    else:
        draft.timers = {name: due for name, due in draft.timers.items() if name != event.name}
        try:
            draft.follow(draft.here().branches[event.name], MomentScope(draft, draft.context))
        except ExpressionError as error:
            draft.fail(Failure(EngineCode.EXPRESSION_FAILED, error.message))


def _map_finished(draft: _Draft, event: MapFinished) -> None:
    if not draft.state or draft.here().map is None or draft.status is not Status.RUNNING:
        raise draft.illegal("no map is under way")
    try:
        _map_done(draft, event.items)
    except ExpressionError as error:
        draft.fail(Failure(EngineCode.EXPRESSION_FAILED, error.message))


def _map_done(draft: _Draft, items: Any) -> None:
    state = draft.here()
    assert state.map is not None
    scope = MomentScope(draft, draft.context, result={"items": items})
    draft.context = _assigned(state.map.assign, draft.context, scope)
    draft.follow(state.branches["on:done"], scope.with_context(draft.context))


def _signalled(draft: _Draft, event: SignalReceived) -> None:
    branches = draft.here().branches.get(f"on:{event.name}") if draft.state else None
    if branches is None or draft.status is not Status.WAITING or draft.here().kind is not StateKind.WAIT:
        raise draft.illegal(f"it does not wait for the signal {event.name!r}")
    if any(pause in draft.timers for pause in _PAUSES):
        raise draft.illegal(f"it has not begun to wait for the signal {event.name!r}")
    try:
        draft.follow(branches, MomentScope(draft, draft.context, result=event.value))
    except ExpressionError as error:
        draft.fail(Failure(EngineCode.EXPRESSION_FAILED, error.message))


def _cancelled(draft: _Draft, event: CancelRequested) -> None:
    if draft.status.is_final:
        raise draft.illegal("it has ended")
    failure = Failure("CANCELLED", event.reason or "The run was cancelled")
    branches = draft.here().branches.get("cancel") if draft.state else None
    if branches:
        try:
            draft.follow(branches, MomentScope(draft, draft.context, error=failure.to_json()))
        except ExpressionError as error:
            draft.fail(Failure(EngineCode.EXPRESSION_FAILED, error.message))
    elif branches is None:
        draft.end(failure)
        draft.status = Status.CANCELLED
    else:
        raise draft.illegal("it is on the way that its definition gives to a cancelled run")


def _refused(draft: _Draft, event: StepRefused) -> None:
    if draft.status.is_final:
        raise draft.illegal("it has ended")
    if draft.state and not event.is_last:
        draft.fail(event.failure)
    else:
        draft.end(event.failure)


_TAKE: Final[dict[type[Any], Callable[[_Draft, Any], None]]] = {
    RunStarted: _started,
    ActionReturned: _returned,
    ActionFailed: _failed,
    TimerFired: _fired,
    MapFinished: _map_finished,
    SignalReceived: _signalled,
    CancelRequested: _cancelled,
    StepRefused: _refused,
}


def _in_action(draft: _Draft) -> Invoke:
    invoke = draft.here().invoke if draft.state else None
    if invoke is None or draft.status is not Status.RUNNING:
        raise draft.illegal("no action is being performed")
    return invoke


def _assigned(
    assign: Mapping[str, Template] | None, context: Mapping[str, Any], scope: MomentScope
) -> Mapping[str, Any]:
    """The context after an `assign`: every value is rendered before any is set."""
    if not assign:
        return context
    return {**context, **{name: template.render(scope) for name, template in assign.items()}}


def _seconds(delay: Template, scope: MomentScope) -> float:
    value = delay.render(scope)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= DELAY_S_MAX:
        raise ExpressionError(
            f"a delay must be a number of seconds from 0 to {DELAY_S_MAX}, not {value!r}.", expression=str(delay.value)
        )
    return float(value)


def _quorum(call: MapCall, scope: MomentScope) -> int | None:
    if call.min_success is None:
        return None
    value = call.min_success.render(scope)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _map_error(call, f"min_success must be an integer from 0, not {value!r}")
    return value


class _MapError(ExpressionError):
    """The expressions of a map gave values, but none that can be mapped."""


def _map_error(call: MapCall, problem: str) -> _MapError:
    return _MapError(f"the map of {call.machine} cannot start: {problem}.", expression=str(call.items.value))
