"""The oracle: a `transitions.Machine` built from the definition itself, whose triggers say where a run goes.

Nothing here reads a compiled branch. A definition's guards become conditions, its assigns `before` callbacks; what
`transitions` knows nothing of (failures, visits, delays, retries) is told in the few methods of `Oracle`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import transitions

from engine.core.event import (
    ActionFailed,
    CancelRequested,
    MapFinished,
    RunStarted,
    SignalReceived,
    StepRefused,
    TimerFired,
)
from tests.core.generating import MEANINGS

FINAL = {"SUCCEEDED", "FAILED", "CANCELLED"}


class Unanswerable(Exception):
    """An expression has no value for the data."""


def meaning(text: Any, moment: Any) -> Any:
    try:
        return MEANINGS[text](moment)
    except (KeyError, TypeError) as problem:
        raise Unanswerable(text) from problem


def leaves(
    states: dict[str, Any], above: tuple[dict[str, Any], ...] = (), prefix: str = ""
) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Each leaf's full name, itself, and the states around it from the inside out."""
    for name, state in states.items():
        if "states" in state:
            yield from leaves(state["states"], (state, *above), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", state, [state, *above]


def listed(written: Any) -> list[dict[str, Any]]:
    many = written if isinstance(written, list) else [written]
    return [{"target": one} if isinstance(one, str) else one for one in many]


class Oracle:
    """A model of the machine: `state` is moved by `transitions` alone."""

    state: str
    trigger: Any

    def __init__(self, definition: dict[str, Any], value: dict[str, Any]) -> None:
        found = list(leaves(definition["states"]))
        self.written = {name: leaf for name, leaf, _ in found}
        self.chains = {name: chain for name, _, chain in found}
        rows = [row for name, leaf, chain in found for row in self._rows(name, leaf, chain)]
        self.machine = transitions.Machine(
            model=self, states=list(self.written), initial=definition["initial"], transitions=rows,
            auto_transitions=False, send_event=True,
        )  # fmt: skip
        self.input, self.context, self.visits = value, {}, {}
        self.result: Any = None
        self.error: Any = None
        self.status, self.attempt, self.micro, self.pause, self.delay = "RUNNING", 1, 0, "", 0
        self._entered()

    def _rows(self, name: str, leaf: dict[str, Any], chain: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        events = {f"on:{key}": listed(branches) for key, branches in leaf.get("on", {}).items()}
        events |= {f"after:{key}": listed(branches) for key, branches in leaf.get("after", {}).items()}
        events["always"] = listed(leaf.get("always", []))
        if leaf.get("type") != "final":
            caught = [branch for state in chain for branch in listed(state.get("catch", []))]
            events["catch"] = [branch for branch in caught if branch["target"] != name]
            asked = next((state["cancel"] for state in chain if "cancel" in state), None)
            events["cancel"] = [] if asked in (None, name) else listed(asked)
        for event, branches in events.items():
            for branch in branches:
                condition = self._catches(branch) if event == "catch" else self._holds(branch)
                yield {
                    "trigger": event,
                    "source": name,
                    "dest": branch["target"],
                    "conditions": condition,
                    "before": self._assigns(branch),
                }

    def _holds(self, branch: dict[str, Any]) -> Any:
        return lambda _: "guard" not in branch or meaning(branch["guard"], self)

    def _catches(self, branch: dict[str, Any]) -> Any:
        def holds(_: Any) -> bool:
            try:
                for value in branch.get("assign", {}).values():
                    meaning(value, self)
                return self.error["code"] in branch.get("errors", [self.error["code"]]) and self._holds(branch)(None)
            except Unanswerable:
                return False

        return holds

    def _assigns(self, branch: dict[str, Any]) -> Any:
        def assign(_: Any) -> None:
            self.context = {
                **self.context,
                **{name: meaning(value, self) for name, value in branch.get("assign", {}).items()},
            }
            self.delay = branch.get("after", 0)

        return assign

    # What is around the table

    def _fire(self, event: str) -> bool:
        try:
            return bool(self.trigger(event))
        except transitions.MachineError:
            return False

    def _follow(self, event: str) -> None:
        try:
            moved = self._fire(event)
        except Unanswerable:
            self._fail("EXPRESSION_FAILED")
        else:
            self._entered() if moved else self._fail("TRANSITION_MISSING")

    def _fail(self, code: str, *, retriable: bool = False, details: Any = None) -> None:
        self.error = {"code": code, "retriable": retriable} | ({} if details is None else {"details": details})
        self._entered() if self._fire("catch") else self._end("FAILED")

    def _end(self, status: str) -> None:
        self.status, self.pause = status, ""

    def _entered(self) -> None:
        here = self.written[self.state]
        self.attempt, self.pause, delay, self.delay = 1, "", self.delay, 0
        self.visits = {**self.visits, self.state: self.visits.get(self.state, 0) + 1}
        self.micro += 1
        over = self.visits[self.state] - here.get("max_visits", 10_000)
        if self.micro > 100 or over > 1:
            self._end("FAILED")
        elif over == 1:
            self._fail("VISITS_EXCEEDED")
        elif delay:
            self.pause = "delay"
        else:
            self._begin()

    def _begin(self) -> None:
        here = self.written[self.state]
        if here.get("type") == "final":
            self._end(next((state["status"] for state in self.chains[self.state] if "status" in state), "SUCCEEDED"))
        elif "always" in here:
            self._follow("always")
        elif "map" in here and here["map"]["items"] == "${input.text}":
            self._fail("MAP_INVALID")
        elif "map" in here and not here["map"]["items"]:
            self._follow("on:done")

    # Events: False when the run does not take it

    def take(self, event: Any) -> bool:
        here = self.written[self.state]
        self.micro, self.result, self.error = 0, None, None
        acting = not self.pause and ("invoke" in here or "map" in here)
        if self.status in FINAL or isinstance(event, RunStarted):
            return False
        match event:
            case TimerFired():
                return self._timer(event.name, here)
            case CancelRequested():
                return self._cancel()
            case StepRefused():
                self._end("FAILED") if event.is_last else self._failure(event)
            case ActionFailed() if acting:
                self._failed(event, here)
            case MapFinished() if acting and "map" in here:
                self._follow("on:done")
            case SignalReceived() if not self.pause and ("on" in here and not acting) and event.name in here["on"]:
                self.result = event.value
                return self._signalled(f"on:{event.name}")
            case _ if type(event).__name__ == "ActionReturned" and acting and "invoke" in here:
                self._returned(event, here)
            case _:
                return False
        return True

    def _failure(self, event: Any) -> None:
        failure = event.failure
        self._fail(failure.code, retriable=failure.retriable, details=failure.details)

    def _signalled(self, event: str) -> bool:
        try:
            if not self._fire(event):
                return False  # a signal that no guard lets through changes nothing
        except Unanswerable:
            self._fail("EXPRESSION_FAILED")
        else:
            self._entered()
        return True

    def _failed(self, event: Any, here: dict[str, Any]) -> None:
        retry = here.get("invoke", {}).get("retry")
        if retry and event.failure.code in retry["errors"] and self.attempt < retry["attempts"]:
            self.attempt, self.pause = self.attempt + 1, "retry"
        else:
            self._failure(event)

    def _returned(self, event: Any, here: dict[str, Any]) -> None:
        self.result = event.value
        if event.name not in here["on"]:
            self._fail("TRANSITION_MISSING")
            return
        try:
            assign = here["invoke"].get("assign", {})
            self.context = {**self.context, **{name: meaning(value, self) for name, value in assign.items()}}
        except Unanswerable:
            self._fail("EXPRESSION_FAILED")
        else:
            self._follow(f"on:{event.name}")

    def _timer(self, name: str, here: dict[str, Any]) -> bool:
        if self.pause:
            if name != self.pause:
                return False
            self.pause = ""
            self._begin()
        elif name == "timeout" and "timeout" in here:
            self._fail("TIMEOUT", retriable=True)
        elif name.partition(":")[2] in here.get("after", {}):
            self._follow(name)
        else:
            return False
        return True

    def _cancel(self) -> bool:
        asked = next((state["cancel"] for state in self.chains[self.state] if "cancel" in state), None)
        if asked == self.state:
            return False
        self.error = {"code": "CANCELLED", "retriable": False}
        self._end("CANCELLED") if asked is None else self._follow("cancel")
        return True
