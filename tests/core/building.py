"""Small machines for tests of the core: fake actions, a compiler of dicts, and runs folded event by event."""

from __future__ import annotations

import copy
from typing import Any

from engine.core.action import ActionDeclaration, ActionKind, Failure
from engine.core.event import ActionFailed, ActionReturned, Event, RunStarted
from engine.core.machine import Machine
from engine.core.snapshot import Snapshot, empty
from engine.core.step import Step, step
from engine.definition.compiler import compile_source

AT = 1_700_000_000_000

ACTIONS = {
    name: ActionDeclaration(name, kind, outcomes)
    for name, kind, outcomes in (
        ("do", ActionKind.REPEATABLE, ("done",)),
        ("choose", ActionKind.REPEATABLE, ("left", "right")),
        ("pay", ActionKind.UNREPEATABLE, ("paid",)),
        ("decide", ActionKind.TRANSACTIONAL, ("done", "nothing")),
    )
}

DONE = {"type": "final"}
BROKEN = {"type": "final", "status": "FAILED"}


def definition(states: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"machine": "small", "initial": next(iter(states)), "states": states, **more}


def compiled(source: dict[str, Any], *children: Machine) -> Machine:
    """The machine of a definition that is expected to have no diagnostics."""
    found = compile_source(source, "small.yaml", ACTIONS, {child.name: child for child in children}.get)
    assert [str(diagnostic) for diagnostic in found.diagnostics] == []
    assert found.machine is not None
    return found.machine


def machine(states: dict[str, Any], *children: Machine, **more: Any) -> Machine:
    return compiled(definition(states, **more), *children)


CHILD = machine({"WORKING": {"invoke": {"action": "do"}, "on": {"done": "END"}}, "END": DONE}, machine="child")


def fresh(program: Machine) -> Snapshot:
    return empty("r1", program.name, program.version, program.digest)


def checked(program: Machine, snapshot: Snapshot, event: Event) -> Step:
    """`step`, with proof that it changed none of its arguments."""
    before, given = snapshot.encode(), copy.deepcopy(event)
    try:
        return step(program, snapshot, event)
    finally:
        assert snapshot.encode() == before
        assert event == given


def started(program: Machine, value: Any = None, at_ms: int = AT) -> Step:
    return checked(program, fresh(program), RunStarted(at_ms, {} if value is None else value))


def after(program: Machine, *events: Event, value: Any = None) -> Step:
    """The last step of a run that took these events after its start."""
    taken = started(program, value)
    for event in events:
        taken = checked(program, taken.snapshot, event)
    return taken


def returned(name: str = "done", value: Any = None, at_ms: int = AT) -> ActionReturned:
    return ActionReturned(at_ms, name, {} if value is None else value)


def failed(code: str = "BAD", at_ms: int = AT, **more: Any) -> ActionFailed:
    return ActionFailed(at_ms, Failure(code, f"it was {code}", **more))
