"""The step under way: entering states, following branches, sending failures where they are caught. Pure.

A `Draft` holds the fields of the snapshot to come, each as far as it is known; `step` feeds it one event and
takes the result. It is also what expressions see, at each moment as the run then stands.

The order within one transition is fixed: the invoke's `assign`, then the guards from first to last, then the branch's
`assign`, then its delay, then the entry (`visits` grows by one), then the new state's parameters. Each sees what came
before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from engine.core.action import EngineCode, Failure
from engine.core.bounds import DELAY_S_MAX, KEY_CHARS_MAX, MAP_ITEMS_MAX, MICROSTEPS_MAX, VISITS_MAX
from engine.core.effect import Effect, Finish, Perform, Rest, StartMap, StopMap
from engine.core.event import Event, tag
from engine.core.expression import Scope, Template
from engine.core.machine import Branch, Invoke, Machine, MapCall, State, StateKind
from engine.core.scope import ABSENT, defined, run_seen, visits_seen
from engine.core.snapshot import Snapshot, Status
from engine.errors import ExpressionError, IllegalEventError

DELAY: Final = "delay"
RETRY: Final = "retry"
TIMEOUT: Final = "timeout"
PAUSES: Final = (DELAY, RETRY)

MAP: Final = StateKind.MAP
RUNNING: Final = Status.RUNNING
WAITING: Final = Status.WAITING
"""At hand: each look into an enumeration costs as much as a call."""

_REST: Final = Rest(None)

NO_TIMERS: Final[Mapping[str, int]] = {}
"""Shared by every snapshot without timers: no value is ever changed in place."""


class Step(NamedTuple):
    """The snapshot after the event, what the runner is to do next, and the transitions that were taken."""

    snapshot: Snapshot
    effects: tuple[Effect, ...]
    taken: tuple[Branch, ...]


class Draft:
    """The step under way: the fields of the snapshot to come, each as far as it is known."""

    __slots__ = (
        "at_ms", "attempt", "before", "caught", "context", "effects", "error", "event", "input", "microsteps", "output",
        "program", "result", "started_at_ms", "state", "status", "taken", "timers", "visits", "visits_before",
    )  # fmt: skip

    def __init__(self, machine: Machine, snapshot: Snapshot, event: Event) -> None:
        self.program = machine
        self.before = snapshot
        self.event = event
        self.at_ms: int = event.at_ms
        (
            _, _, _, _, _, _, self.state, self.status, self.input, self.context, self.visits, self.attempt,
            self.timers, self.started_at_ms, self.output, self.error, self.visits_before,
        ) = snapshot  # fmt: skip
        self.effects: tuple[Effect, ...] = ()
        self.taken: tuple[Branch, ...] = ()
        self.microsteps = 0
        self.result: Any = ABSENT
        self.caught: Any = ABSENT

    @property
    def run_id(self) -> str:
        return self.before.run_id

    @property
    def machine(self) -> str:
        return self.before.machine

    @property
    def version(self) -> int:
        return self.before.version

    @property
    def key(self) -> str | None:
        return self.before.key

    def variable(self, name: str) -> Any:
        """What an expression sees now; see `engine.core.expression.Scope`."""
        if name == "context":
            return self.context
        if name == "result":
            return defined(name, self.result)
        if name == "input":
            return self.input
        if name == "error":
            return defined(name, self.caught)
        if name == "visits":
            return visits_seen(self.program, self.visits, self.visits_before)
        if name == "run":
            return run_seen(self)
        raise KeyError(name)

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
        run_id, machine, version, digest, key, seq = self.before[:6]
        snapshot = Snapshot(
            run_id, machine, version, digest, key, seq + 1, self.state, self.status, self.input, self.context,
            self.visits, self.attempt, self.timers, self.started_at_ms, self.output, self.error, self.visits_before,
        )  # fmt: skip
        return Step(snapshot, self.effects, self.taken)

    # Transitions

    def follow(self, branches: tuple[Branch, ...]) -> None:
        """Take the first branch whose guard holds; raises `ExpressionError`; without any, the state fails."""
        for branch in branches:
            guard = branch.guard
            if guard is None or guard.holds(self):
                self.take(branch)
                return
        self.fail(Failure(EngineCode.TRANSITION_MISSING, f"no transition of {self.state} has a guard that holds"))

    def take(self, branch: Branch) -> None:
        """Follow one branch to its target. Raises `ExpressionError` before anything has changed."""
        _, _, _, target, _, assign, delay, _, _ = branch
        delay_s = 0.0
        if assign or delay is not None:
            before = self.context
            self.context = assigned(assign, before, self)
            if delay is not None:
                try:
                    delay_s = _seconds(delay, self)
                except ExpressionError:
                    self.context = before
                    raise
        self.taken = (*self.taken, branch)
        self.enter(target, delay_s)

    def enter(self, name: str, delay_s: float = 0.0) -> None:
        """Enter a leaf: count the visit, then wait out the delay or begin what the state does."""
        if self.microsteps == 0 and self.before.status is RUNNING and self.program.states[self.state].kind is MAP:
            self.leave()
        self.result = self.caught = ABSENT  # what led here is not seen from here
        self.state = name
        self.attempt = 1
        self.timers = NO_TIMERS
        entered = self.visits.get(name, 0) + 1
        self.visits = {**self.visits, name: entered}
        visits = entered - self.visits_before.get(name, 0) if self.visits_before else entered
        self.microsteps += 1
        state = self.program.states[name]
        visits_max = state.max_visits or VISITS_MAX
        if self.microsteps > MICROSTEPS_MAX:
            self.end(
                Failure(EngineCode.MICROSTEPS_EXCEEDED, f"more than {MICROSTEPS_MAX} states without coming to rest")
            )
        elif visits > visits_max:
            failure = Failure(EngineCode.VISITS_EXCEEDED, f"{name} was entered more than {visits_max} times")
            # Caught once; a catch that leads back here a second time would loop, so it ends the run.
            self.fail(failure) if visits == visits_max + 1 else self.end(failure)
        elif delay_s > 0:
            self.pause(DELAY, delay_s)
        else:
            self.begin(state)

    def leave(self) -> None:
        """Stop the map in which the run stood before this step; one that this step passed has not been started."""
        stood_here = self.microsteps == 0 and self.before.status is RUNNING
        if stood_here and self.here().kind is MAP:
            self.effects += (StopMap(self.state, self.visits[self.state]),)

    def pause(self, timer: str, delay_s: float) -> None:
        """Rest until a timer of the engine's own fires."""
        due_at_ms = self.at_ms + round(delay_s * 1000)
        self.timers = {timer: due_at_ms}
        self.status = Status.WAITING
        self.effects += (Rest(due_at_ms),)

    def begin(self, state: State) -> None:
        """Begin what the present state does; an expression that fails is the state's failure."""
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
            self.result, self.caught = ABSENT, failure.to_json()
            try:
                if branch.guard is None or branch.guard.holds(self):
                    self.take(branch)
                    return
            except ExpressionError:
                continue  # a catch that cannot be evaluated does not hold: the next, wider one must get its turn
        self.end(failure)

    def end(self, failure: Failure) -> None:
        """End the run where it stands."""
        self.leave()
        self.status = Status.FAILED
        self.timers = NO_TIMERS
        self.error = failure.to_json()
        self.effects += (Finish(),)

    # What states ask for

    def perform(self, invoke: Invoke) -> Perform:
        """The effect of an action state. Raises `ExpressionError`."""
        templates = invoke.params
        params = {name: template.render(self) for name, template in templates.items()} if templates else {}
        state = self.state
        return Perform(
            invoke.action, params, invoke.timeout_s, self.attempt, f"{self.before.run_id}:{state}:{self.visits[state]}"
        )

    def start_map(self, call: MapCall) -> StartMap:
        """The effect of a map state. Raises `ExpressionError`, also for items that cannot be mapped."""
        items = call.items.render(self)
        if not isinstance(items, (list, tuple)):
            raise _map_error(call, f"items is no list but a {type(items).__name__}")
        if len(items) > MAP_ITEMS_MAX:
            raise _map_error(call, f"{len(items)} items are more than {MAP_ITEMS_MAX}")
        keys = tuple(call.key.render_each(self, items))
        seen: set[str] = set()
        for key in keys:
            if not isinstance(key, str) or not key:
                raise _map_error(call, f"the key {key!r} is no non-empty string")
            if len(key) > KEY_CHARS_MAX:
                raise _map_error(call, f"a key of {len(key)} characters is longer than {KEY_CHARS_MAX}")
            if key in seen:
                raise _map_error(call, f"two items have the key {key!r}")
            seen.add(key)
        inputs = tuple(items) if call.input is None else tuple(call.input.render_each(self, items))
        return StartMap(call.machine, tuple(items), keys, inputs, call.concurrency, _quorum(call, self))


def _begin_action(draft: Draft, state: State) -> None:
    assert state.invoke is not None
    effect = draft.perform(state.invoke)
    draft.status = RUNNING
    draft.effects = (*draft.effects, effect)


def _begin_map(draft: Draft, state: State) -> None:
    assert state.map is not None
    effect = draft.start_map(state.map)
    draft.status = Status.RUNNING
    if not effect.items:
        map_done(draft, [])
        return
    if state.timeout_s is not None:
        draft.timers = {TIMEOUT: draft.at_ms + round(state.timeout_s * 1000)}
    draft.effects += (effect,)


def _begin_choice(draft: Draft, state: State) -> None:
    draft.follow(state.branches["always"])


def _begin_wait(draft: Draft, state: State) -> None:
    draft.status = WAITING
    if not state.after and state.timeout_s is None:
        draft.effects = (*draft.effects, _REST)
        return
    timers = {after.event: draft.at_ms + round(_seconds(after.delay, draft) * 1000) for after in state.after}
    if state.timeout_s is not None:
        timers[TIMEOUT] = draft.at_ms + round(state.timeout_s * 1000)
    draft.timers = timers
    draft.effects = (*draft.effects, Rest(min(timers.values())))


def _begin_final(draft: Draft, state: State) -> None:
    try:
        output = None if state.output is None else state.output.render(draft)
        error = None if state.error is None else state.error.render(draft)
    except ExpressionError as problem:
        draft.end(Failure(EngineCode.EXPRESSION_FAILED, problem.message))
        return
    draft.status = state.status
    draft.output = output
    draft.error = error
    draft.effects += (Finish(),)


def map_done(draft: Draft, items: Any) -> None:
    state = draft.here()
    assert state.map is not None
    draft.result = {"items": items}
    draft.context = assigned(state.map.assign, draft.context, draft)
    draft.follow(state.branches["on:done"])


_BEGIN: Final[dict[StateKind, Callable[[Draft, State], None]]] = {
    StateKind.ACTION: _begin_action,
    StateKind.MAP: _begin_map,
    StateKind.CHOICE: _begin_choice,
    StateKind.WAIT: _begin_wait,
    StateKind.FINAL: _begin_final,
}


def assigned(assign: Mapping[str, Template] | None, context: Mapping[str, Any], scope: Scope) -> Mapping[str, Any]:
    """The context after an `assign`: every value is rendered before any is set."""
    if not assign:
        return context
    return {**context, **{name: template.render(scope) for name, template in assign.items()}}


def _seconds(delay: Template, scope: Scope) -> float:
    value = delay.render(scope)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= DELAY_S_MAX:
        raise ExpressionError(
            f"a delay must be a number of seconds from 0 to {DELAY_S_MAX}, not {value!r}.", expression=str(delay.value)
        )
    return float(value)


def _quorum(call: MapCall, scope: Scope) -> int | None:
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
