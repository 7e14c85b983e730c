"""Random definitions that compile, and random events for them.

A definition is a chain of states `S0 … Sn` of random kinds, each with its way to the next and random ways besides,
so that every state is reachable and every cycle bounded; a run of neighbours may lie inside a state `G`. Each guard
and each value comes from a small pool in which the CEL text stands beside its meaning in Python (`oracle.py`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st

from engine.core.action import Failure
from engine.core.effect import Perform, StartMap
from engine.core.event import (
    ActionFailed,
    ActionReturned,
    CancelRequested,
    MapFinished,
    RunStarted,
    SignalReceived,
    StepRefused,
    TimerFired,
)
from engine.core.machine import Machine
from engine.core.snapshot import Snapshot
from engine.core.step import pending
from tests.core.building import AT, BROKEN, DONE

GUARDS: dict[str, Any] = {
    "context.n > 1": lambda moment: moment.context["n"] > 1,
    "input.b": lambda moment: moment.input["b"],
    "visits.S0 < 2": lambda moment: moment.visits.get("S0", 0) < 2,
    "true": lambda moment: True,
    "false": lambda moment: False,
    "context.n == context.n + 0 && run.id == 'r1'": lambda moment: True,
}
RESULT_GUARDS: dict[str, Any] = {
    "result.b": lambda moment: moment.result["b"],
    "result.n > context.n": lambda moment: moment.result["n"] > moment.context["n"],
}
ERROR_GUARDS: dict[str, Any] = {
    "error.retriable": lambda moment: moment.error["retriable"],
    "error.details.n > 1": lambda moment: moment.error["details"]["n"] > 1,
}
VALUES: dict[Any, Any] = {
    7: lambda moment: 7,
    "${input.n}": lambda moment: moment.input["n"],
    "${context.n + 1}": lambda moment: moment.context["n"] + 1,
    "${size(input.text)}": lambda moment: len(moment.input["text"]),
}
RESULT_VALUES: dict[Any, Any] = {"${result.n}": lambda moment: moment.result["n"]}
ERROR_VALUES: dict[Any, Any] = {"${size(error.code)}": lambda moment: len(moment.error["code"])}
CODES = ("X", "YY", "TIMEOUT", "VISITS_EXCEEDED", "EXPRESSION_FAILED", "TRANSITION_MISSING")
MEANINGS = {**GUARDS, **RESULT_GUARDS, **ERROR_GUARDS, **VALUES, **RESULT_VALUES, **ERROR_VALUES}


class Drawing:
    """One definition under way: the names that targets may choose from."""

    def __init__(self, draw: Any, names: list[str]) -> None:
        self.draw = draw
        self.names = names

    def of(self, options: Any) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def chance(self, one_in: int = 3) -> bool:
        return self.draw(st.integers(1, one_in)) == 1

    def branch(self, guards: Any, values: Any, target: str | None = None, *, guarded: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {"target": target or self.of(self.names)}
        if guarded:
            found["guard"] = self.of(guards)
        if self.chance():
            found["assign"] = {"n": self.of(values)}
        if self.chance(6):
            found["after"] = 2
        return found

    def branches(self, onward: str, guards: Any, values: Any) -> list[dict[str, Any]]:
        """Some guarded branches, and the way on, which has no guard most of the time."""
        found = [self.branch(guards, values, guarded=True) for _ in range(self.of((0, 0, 1, 2)))]
        return [*found, self.branch(guards, values, onward, guarded=self.chance(8))]

    def catches(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for code in self.draw(st.lists(st.sampled_from(CODES), max_size=2, unique=True)):
            catch = self.branch({**GUARDS, **ERROR_GUARDS}, {**VALUES, **ERROR_VALUES}, guarded=self.chance(2))
            found.append({**catch, "errors": [code]})
        if self.chance():
            found.append(self.branch(GUARDS, {**VALUES, **ERROR_VALUES}))
        return found

    def state(self, onward: str) -> dict[str, Any]:
        kind = self.of(("action", "action", "map", "choice", "choice", "wait"))
        state = getattr(self, kind)(onward)
        state["max_visits"] = self.of((1, 2, 3))
        catch = self.catches()
        if catch:
            state["catch"] = catch
        if self.chance(5):
            state["cancel"] = self.of(self.names)
        return state

    def action(self, onward: str) -> dict[str, Any]:
        guards, values = {**GUARDS, **RESULT_GUARDS}, {**VALUES, **RESULT_VALUES}
        invoke: dict[str, Any] = {"action": "choose"}
        if self.chance():
            invoke["assign"] = {"n": self.of(values)}
        if self.chance():
            invoke["retry"] = {"attempts": self.of((1, 2)), "errors": ["X"]}
        on = {
            "left": self.branches(onward, guards, values),
            "right": self.branches(self.of(self.names), guards, values),
        }
        return {"invoke": invoke, "on": on}

    def map(self, onward: str) -> dict[str, Any]:
        items = self.of((["a"], ["a", "b"], [], "${input.text}"))
        call = {"machine": "child", "items": items, "key": "${item}"}
        return {
            "map": call,
            "on": {"done": self.branches(onward, GUARDS, VALUES)},
            **({"timeout": 3} if self.chance() else {}),
        }

    def choice(self, onward: str) -> dict[str, Any]:
        return {"always": self.branches(onward, GUARDS, VALUES)}

    def wait(self, onward: str) -> dict[str, Any]:
        guards, values = {**GUARDS, **RESULT_GUARDS}, {**VALUES, **RESULT_VALUES}
        found = {"on": {"go": self.branches(onward, guards, values)}}
        if self.chance(2):
            found["after"] = {
                "1s": self.branches(self.of(self.names), GUARDS, VALUES),
                "4s": self.branches(onward, GUARDS, VALUES),
            }
        if self.chance():
            found["timeout"] = 2
        return found


@st.composite
def definitions(draw: Any) -> dict[str, Any]:
    """A definition that compiles."""
    count = draw(st.integers(2, 6))
    first = draw(st.integers(1, count - 1))
    last = draw(st.integers(first, count))  # the states from `first` to before `last` lie inside G
    names = [f"G.S{n}" if first <= n < last else f"S{n}" for n in range(count)]
    drawing = Drawing(draw, [*names, "END", "BAD"])
    ways = [*names[1:], "END"]
    made = {f"S{n}": drawing.state(way) for n, way in enumerate(ways)}
    inner = {name: made.pop(name) for name in [f"S{n}" for n in range(first, last)]}
    states: dict[str, Any] = {"START": {"always": {"target": "S0", "assign": {"n": "${input.n}"}}}, **made}
    if inner:
        states["G"] = {"initial": f"S{first}", "states": inner}
        if catch := drawing.catches():
            states["G"]["catch"] = catch
        if drawing.chance(2):
            states["G"]["cancel"] = drawing.of(drawing.names)
    states["START"]["catch"] = "BAD"
    return {"machine": "small", "initial": "START", "states": {**states, "END": DONE, "BAD": BROKEN}}


INPUTS = st.fixed_dictionaries(
    {"n": st.sampled_from([0, 2]), "b": st.booleans(), "text": st.sampled_from(["", "word"])}
)
RESULTS = st.sampled_from([{"n": 3, "b": True}, {"n": 0, "b": False}, {"n": 1}, {}])
FAILURES = st.builds(
    Failure, st.sampled_from(["X", "YY", "Z"]), st.just("broke"), st.sampled_from([None, {"n": 2}, {}]), st.booleans()
)
ODD = st.sampled_from(
    [None, True, 1.5, "text", [], {"n": "text"}, {"n": None}, 2**70, -(2**63), "x" * 10_000, [[[]]], {"n": 2**64}]
)


def events(values: Any = RESULTS) -> Any:
    """Any event, whether or not it fits."""
    return st.one_of(
        st.builds(ActionReturned, st.just(AT), st.sampled_from(["left", "left", "right", "interrupted"]), values),
        st.builds(ActionFailed, st.just(AT), FAILURES),
        st.builds(TimerFired, st.just(AT), st.sampled_from(["delay", "retry", "timeout", "after:1s", "after:4s"])),
        st.builds(MapFinished, st.just(AT), st.just([])),
        st.builds(SignalReceived, st.just(AT), st.sampled_from(["go", "stop"]), values, st.just("id")),
        *[st.builds(CancelRequested, st.just(AT), st.sampled_from(["", "enough"]))] * 3,
        st.builds(StepRefused, st.just(AT), FAILURES, st.booleans()),
        st.builds(RunStarted, st.just(AT), INPUTS),
    )


class Wish(NamedTuple):
    """An event to come, told before it is known where the run will stand."""

    is_any: bool
    event: Any
    name: str
    value: Any
    failure: Failure
    choice: int


def wishes(values: Any = RESULTS) -> Any:
    """Mostly events that the run waits for, and now and then any other."""
    is_any = st.sampled_from([False, False, False, True])
    return st.builds(
        Wish, is_any, events(values), st.sampled_from(["left", "right"]), values, FAILURES, st.integers(0, 3)
    )


def granted(program: Machine, snapshot: Snapshot, wish: Wish) -> Any:
    """The event of a wish, now that it is known where the run stands; a timer's at the instant it is due."""
    found = (
        wish.event if wish.is_any or snapshot.status.is_final else _fitting(pending(program, snapshot), snapshot, wish)
    )
    if isinstance(found, TimerFired):
        return found._replace(at_ms=snapshot.timers.get(found.name, found.at_ms))
    return found


def _fitting(effect: Any, snapshot: Snapshot, wish: Wish) -> Any:
    if isinstance(effect, Perform):
        return ActionFailed(AT, wish.failure) if wish.choice == 0 else ActionReturned(AT, wish.name, wish.value)
    if isinstance(effect, StartMap) and wish.choice > 0:
        return MapFinished(AT, [])
    timers = sorted(snapshot.timers)
    if timers and wish.choice != 1:
        return TimerFired(AT, timers[wish.choice % len(timers)])
    return SignalReceived(AT, "go", wish.value, "id")
