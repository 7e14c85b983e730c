"""Random definitions that compile, and random events for them.

A definition is a chain of states `S0 … Sn` of random kinds, each with its way to the next and random ways besides,
so that every state is reachable and every cycle bounded; a run of neighbours may lie inside a state `G`. Each guard
and each value comes from a small pool in which the CEL text stands beside its meaning in Python (`oracle.py`).
"""

from __future__ import annotations

from random import Random
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
    """One definition under way: the names that targets may choose from.

    It draws from a seed and not from hypothesis piece by piece: that takes so many draws for one definition that
    most examples would be given up as too large. What hypothesis shrinks is the row of events.
    """

    def __init__(self, chance: Random, names: list[str]) -> None:
        self.random = chance
        self.names = names

    def of(self, options: Any) -> Any:
        return self.random.choice(list(options))

    def chance(self, one_in: int = 3) -> bool:
        return self.random.randrange(one_in) == 0

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
        for code in self.random.sample(CODES, self.random.randrange(3)):
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
        if self.chance(2):
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


SEEDS = st.integers(0, 2**32 - 1)


def drawn(block: int, seed: int) -> dict[str, Any]:
    """A definition that compiles. `block` makes others of the same seeds: hypothesis tries few and close ones."""
    chance = Random(f"{block}:{seed}")
    count = chance.randint(2, 6)
    first = chance.randint(1, count - 1)
    last = chance.randint(first, count)  # the states from `first` to before `last` lie inside G
    names = [f"G.S{n}" if first <= n < last else f"S{n}" for n in range(count)]
    drawing = Drawing(chance, [*names, *names, *names, "END", "BAD"])
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
RESULTS = ({"n": 3, "b": True}, {"n": 0, "b": False}, {"n": 1}, {})
ODD = (
    None, True, 1.5, "text", [], {"n": "text"}, {"n": None}, 2**70, -(2**63), "x" * 10_000, [[[]]], {"n": 2**64},
)  # fmt: skip


class Wish(NamedTuple):
    """An event to come, told before it is known where the run will stand."""

    is_any: bool
    event: Any
    name: str
    value: Any
    failure: Failure
    choice: int


def rows(low: int, high: int, values: tuple[Any, ...] = RESULTS, any_in: int = 4) -> Any:
    """From `low` to `high` wishes: mostly events that the run waits for, and one in `any_in` any other."""

    def row(seeds: list[int]) -> list[Wish]:
        return [_wish(Random(f"{seed}:{place}"), values, any_in) for place, seed in enumerate(seeds)]

    return st.lists(st.integers(0, 2**32 - 1), min_size=low, max_size=high).map(row)


def _wish(chance: Random, values: tuple[Any, ...], any_in: int) -> Wish:
    value = chance.choice(values)
    details = chance.choice([None, {"n": 2}, {}])
    failure = Failure(chance.choice(["X", "YY", "Z"]), "broke", details, chance.random() < 0.5)
    timer = chance.choice(["delay", "retry", "timeout", "after:1s", "after:4s"])
    found = chance.choice(
        [
            ActionReturned(AT, chance.choice(["left", "right", "interrupted"]), value),
            ActionFailed(AT, failure),
            TimerFired(AT, timer),
            MapFinished(AT, []),
            SignalReceived(AT, chance.choice(["go", "stop"]), value, "id"),
            CancelRequested(AT, chance.choice(["", "enough"])),
            CancelRequested(AT, ""),
            StepRefused(AT, failure, chance.random() < 0.2),
            RunStarted(AT, {"n": 0, "b": True, "text": ""}),
        ]
    )
    is_any = chance.randrange(any_in) == 0
    return Wish(is_any, found, chance.choice(["left", "right"]), value, failure, chance.randrange(4))


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
