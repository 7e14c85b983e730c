"""What an expression sees: the variables of one moment of a run, each made only when it is named.

During a step the `Draft` itself is what they see; `MomentScope` is for a run that rests.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from engine.core.machine import Machine
from engine.core.snapshot import Snapshot

ABSENT: Final = object()
"""The value of a variable that is not defined at a moment."""


class MomentScope:
    """`input`, `context` and `run` of a snapshot, and `result` where there is one."""

    __slots__ = ("_context", "_result", "_snapshot")

    def __init__(self, snapshot: Snapshot, context: Mapping[str, Any], *, result: Any = ABSENT) -> None:
        self._snapshot = snapshot
        self._context = context
        self._result = result

    def variable(self, name: str) -> Any:
        """See `engine.core.expression.Scope`."""
        if name == "context":
            return self._context
        if name == "input":
            return self._snapshot.input
        if name == "run":
            return run_seen(self._snapshot)
        if name == "result":
            return defined(name, self._result)
        raise KeyError(name)


def defined(name: str, value: Any) -> Any:
    """A variable's value. Raises `KeyError` where there is none."""
    if value is ABSENT:
        raise KeyError(name)
    return value


def visits_seen(machine: Machine, visits: Mapping[str, int], before: Mapping[str, int]) -> dict[str, Any]:
    """Visits of every state since the start or the last redrive, nested: `visits.RUNNING.CAPTURING`."""
    nested: dict[str, Any] = {}
    for name in machine.states:
        *parents, leaf = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = visits.get(name, 0) - before.get(name, 0)
    return nested


def run_seen(run: Any) -> dict[str, Any]:
    """The variable `run`, of a snapshot or of the step under way: both have the fields that are read here."""
    started = datetime.fromtimestamp(run.started_at_ms / 1000, UTC)
    return {
        "id": run.run_id,
        "key": run.key,
        "machine": run.machine,
        "version": run.version,
        "started_at": started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "started_at_ms": run.started_at_ms,
    }
