"""What a person sees on a terminal while a run goes on: the run's state, and a line for each item of its map.

Where stderr is no terminal the same facts are JSON log lines. Nothing here decides anything.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from engine.core.action import Remark
from engine.core.handler import Log
from engine.core.machine import Branch, Machine
from engine.core.secret import Secrets
from engine.core.snapshot import Snapshot, Status
from engine.entry.cli.interruption import RunsInterrupted
from engine.entry.cli.screen import screen
from engine.entry.cli.streams import go_on_without
from engine.entry.configuration import Configuration
from engine.entry.logs import LogObserver, configure
from engine.runner.observer import Observer
from engine.runs import Committed

RUNS_KEPT: Final = 12
ITEMS_KEPT: Final = 1_000
"""Runs and items that the view remembers beside those under way: a worker serves for ever, and what has ended goes."""

ITEMS_SHOWN: Final = 20
"""Lines for items: the ones under way first, then the latest to end."""

_MARKS: Final = {
    Status.SUCCEEDED: ("✔", "green"),
    Status.FAILED: ("✘", "red"),
    Status.CANCELLED: ("–", "yellow"),
    Status.WAITING: ("…", "cyan"),
}


@contextmanager
def observer_for_terminal(config: Configuration) -> Iterator[tuple[Observer, Secrets]]:
    """A live view when stderr is a terminal, JSON log lines otherwise; with the registry that redacts both.

    Whoever asks for it drives runs: they go on without standard output, and when they are interrupted.
    """
    go_on_without()
    try:
        with _observer(config) as found:
            yield found
    except KeyboardInterrupt:
        raise RunsInterrupted from None


@contextmanager
def _observer(config: Configuration) -> Iterator[tuple[Observer, Secrets]]:
    secrets = Secrets()
    if not sys.stderr.isatty():
        configure(config.log_level, secrets, service=config.service, environment=config.environment)
        yield LogObserver(config.service), secrets
        return
    console = screen(stderr=True)
    view = LiveView(console, secrets)
    handler = _Notes(view)
    logging.getLogger().handlers[:] = [handler]
    with Live(view, console=console, refresh_per_second=12, transient=False):
        yield view, secrets


class LiveView:
    """The view: an `Observer` that rich draws."""

    def __init__(self, console: Console, secrets: Secrets) -> None:
        self._console = console
        self._secrets = secrets
        self._began = time.monotonic()
        self._runs: dict[str, Snapshot] = {}
        self._items: dict[str, tuple[str, Snapshot]] = {}
        self._spinner = Spinner("dots", style="cyan")
        self._path: dict[str, list[str]] = {}

    def __rich__(self) -> RenderableType:
        """Draw the present moment."""
        elapsed = time.monotonic() - self._began
        lines: list[RenderableType] = []
        for run_id, snapshot in self._runs.items():
            path = self._path[run_id]
            text = Text.assemble(
                (snapshot.machine, "bold"), ("  " + " → ".join(path[-6:]), ""), (f"  {elapsed:5.1f} s", "dim")
            )
            lines.append(_row(self._mark(snapshot), text))
        if self._items:
            lines.append(self._table())
        return Group(*lines)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(width=1)
        table.add_column(width=1)
        items = sorted(self._items.values(), key=lambda item: item[1].status.is_final)
        for key, snapshot in items[:ITEMS_SHOWN]:
            table.add_row(
                "", self._mark(snapshot), key, Text(snapshot.state.lower(), "dim"), Text(_trouble(snapshot), "red")
            )
        if len(items) > ITEMS_SHOWN:
            table.add_row("", "", Text(f"and {len(items) - ITEMS_SHOWN} more", "dim"))
        return table

    def _mark(self, snapshot: Snapshot) -> RenderableType:
        mark = _MARKS.get(snapshot.status)
        return self._spinner if mark is None else Text(*mark)

    # Observer

    def committed(self, machine: Machine, committed: Committed) -> None:
        """See `Observer`."""
        snapshot = committed.head.snapshot
        if committed.head.place is not None:
            self._items[snapshot.run_id] = (committed.head.place.key, snapshot)
            if len(self._items) > ITEMS_KEPT:
                ended = [one for one, (_, last) in self._items.items() if last.status.is_final]
                _forget(self._items, ended, ITEMS_KEPT // 2)
            return
        self._runs[snapshot.run_id] = snapshot
        if len(self._runs) > RUNS_KEPT:
            resting = [one for one, last in self._runs.items() if last.status is not Status.RUNNING]
            for run_id in _forget(self._runs, resting, RUNS_KEPT):
                self._path.pop(run_id, None)
        path = self._path.setdefault(snapshot.run_id, [])
        for name in [branch.target for branch in committed.taken] or [snapshot.state]:
            leaf = name.rpartition(".")[2]
            if leaf and path[-1:] != [leaf]:
                path.append(leaf)

    def declined(self, machine: Machine, snapshot: Snapshot, taken: tuple[Branch, ...]) -> None:
        """See `Observer`: the summary says it."""

    def remarked(self, snapshot: Snapshot, item_key: str | None, remark: Remark) -> None:
        """See `Observer`."""
        self.log_for(snapshot, item_key)(remark.event, severity=remark.severity, **remark.fields)

    def log_for(self, snapshot: Snapshot, item_key: str | None) -> Log:
        """See `Observer`: only what is wrong is said beside the view."""

        def log(event: str, /, severity: str = "INFO", **fields: Any) -> None:
            if severity in ("WARNING", "ERROR", "CRITICAL"):
                self.trouble(event, severity, fields)

        return log

    def trouble(self, event: str, severity: str, fields: Mapping[str, Any]) -> None:
        """See `Observer`."""
        said = ", ".join(f"{name}={value}" for name, value in fields.items())
        colour = {"ERROR": "red", "CRITICAL": "red", "INFO": "cyan"}.get(severity, "yellow")
        self._console.print(Text.assemble((event, colour), "  ", (self._secrets.redact(said)[:500], "dim")))


class _Notes(logging.Handler):
    """Log records of warnings and errors, said above the view."""

    def __init__(self, view: LiveView) -> None:
        super().__init__(logging.WARNING)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        """See logging."""
        fields = dict(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = repr(record.exc_info[1])
        self._view.trouble(record.getMessage(), record.levelname, fields)


def _forget(shown: dict[str, Any], may_go: list[str], most: int) -> list[str]:
    """Take the oldest of those that may go, until at most `most` are left; answers which went."""
    gone = may_go[: max(len(shown) - most, 0)]
    for one in gone:
        del shown[one]
    return gone


def _row(mark: RenderableType, text: Text) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_row(mark, text)
    return row


def _trouble(snapshot: Snapshot) -> str:
    error = snapshot.error if snapshot.error is not None else snapshot.context.get("error")
    if snapshot.status is Status.SUCCEEDED or not isinstance(error, Mapping):
        return ""
    return f"{error.get('code')}: {str(error.get('message'))[:80]}"
