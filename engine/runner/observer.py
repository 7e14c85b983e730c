"""PORT: what a person or a program may see of runs as they happen. The runner reports facts; doors show them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from engine.core.action import Remark
from engine.core.handler import Log
from engine.core.machine import Branch, Machine
from engine.core.snapshot import Snapshot
from engine.runs import Committed

logger: Final = logging.getLogger("detent.runner")


class Observer(Protocol):
    """Told of each commit, after it; never asked for anything, and never able to fail a run."""

    def committed(self, machine: Machine, committed: Committed) -> None:
        """A step was committed (or a run begun)."""

    def declined(self, machine: Machine, snapshot: Snapshot, taken: tuple[Branch, ...]) -> None:
        """A start found nothing to do: it would have ended as `snapshot`, and nothing was recorded."""

    def remarked(self, snapshot: Snapshot, item_key: str | None, remark: Remark) -> None:
        """A transactional action's decide asked for a log event, and its commit stands."""

    def log_for(self, snapshot: Snapshot, item_key: str | None) -> Log:
        """The log that an action's handler writes to."""

    def trouble(self, event: str, severity: str, fields: Mapping[str, Any]) -> None:
        """The runner itself met something worth telling: a lost lease, a store that is away."""


class Silent:
    """Observes nothing."""

    def committed(self, machine: Machine, committed: Committed) -> None:
        """See `Observer`."""

    def declined(self, machine: Machine, snapshot: Snapshot, taken: tuple[Branch, ...]) -> None:
        """See `Observer`."""

    def remarked(self, snapshot: Snapshot, item_key: str | None, remark: Remark) -> None:
        """See `Observer`."""

    def log_for(self, snapshot: Snapshot, item_key: str | None) -> Log:
        """See `Observer`."""
        return lambda event, /, severity="INFO", **fields: None

    def trouble(self, event: str, severity: str, fields: Mapping[str, Any]) -> None:
        """See `Observer`."""


class Shielded:
    """Another observer, whose exceptions go to the log and nowhere else."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def committed(self, machine: Machine, committed: Committed) -> None:
        """See `Observer`."""
        self._told(lambda: self._observer.committed(machine, committed))

    def declined(self, machine: Machine, snapshot: Snapshot, taken: tuple[Branch, ...]) -> None:
        """See `Observer`."""
        self._told(lambda: self._observer.declined(machine, snapshot, taken))

    def remarked(self, snapshot: Snapshot, item_key: str | None, remark: Remark) -> None:
        """See `Observer`."""
        self._told(lambda: self._observer.remarked(snapshot, item_key, remark))

    def log_for(self, snapshot: Snapshot, item_key: str | None) -> Log:
        """See `Observer`."""

        def log(event: str, /, severity: str = "INFO", **fields: Any) -> None:
            self._told(lambda: self._observer.log_for(snapshot, item_key)(event, severity=severity, **fields))

        return log

    def trouble(self, event: str, severity: str, fields: Mapping[str, Any]) -> None:
        """See `Observer`."""
        self._told(lambda: self._observer.trouble(event, severity, fields))

    def _told(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception:
            logger.exception("observer_raised")
