"""What an expression sees: the variables of one moment of a run, each made only when it is named."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from engine.core.machine import Machine

_ABSENT = object()


class MomentScope:
    """`input`, `context`, `visits` and `run` always; `result`, `error`, `item` where there is one."""

    __slots__ = ("_context", "_draft", "_error", "_item", "_result")

    def __init__(
        self,
        draft: Any,
        context: Mapping[str, Any],
        *,
        result: Any = _ABSENT,
        error: Any = _ABSENT,
        item: Any = _ABSENT,
    ) -> None:
        # `draft` is the step under way or a snapshot: both have the fields that are read below.
        self._draft = draft
        self._context = context
        self._result = result
        self._error = error
        self._item = item

    def with_context(self, context: Mapping[str, Any]) -> MomentScope:
        """The same moment over a newer context."""
        return MomentScope(self._draft, context, result=self._result, error=self._error, item=self._item)

    def with_item(self, item: Any) -> MomentScope:
        """The same moment with `item` set."""
        return MomentScope(self._draft, self._context, result=self._result, error=self._error, item=item)

    def variable(self, name: str) -> Any:
        """See `engine.core.expression.Scope`."""
        if name == "context":
            return self._context
        if name == "input":
            return self._draft.input
        if name == "visits":
            return _visits(self._draft.machine_of(), self._draft.visits, self._draft.visits_before)
        if name == "run":
            return _run(self._draft)
        value = {"result": self._result, "error": self._error, "item": self._item}[name]
        if value is _ABSENT:
            raise KeyError(name)
        return value


def _visits(machine: Machine, visits: Mapping[str, int], before: Mapping[str, int]) -> dict[str, Any]:
    """Visits of every state since the start or the last redrive, nested: `visits.RUNNING.CAPTURING`."""
    nested: dict[str, Any] = {}
    for name in machine.states:
        *parents, leaf = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = visits.get(name, 0) - before.get(name, 0)
    return nested


def _run(draft: Any) -> dict[str, Any]:
    started = datetime.fromtimestamp(draft.started_at_ms / 1000, UTC)
    return {
        "id": draft.run_id,
        "key": draft.key,
        "machine": draft.machine,
        "version": draft.version,
        "started_at": started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "started_at_ms": draft.started_at_ms,
    }
