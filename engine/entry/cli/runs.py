"""`detent runs list | show | resume`: what the store knows of runs; `steering.py` holds what else is done to them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import anyio
import click
from rich.table import Table
from rich.text import Text

from engine.core import event
from engine.core.machine import Machine
from engine.entry.application import Engine, RunResult
from engine.entry.assembly import Assembly
from engine.entry.cli import EXIT_FAILED
from engine.entry.cli.following import follow, to_json
from engine.entry.cli.options import (
    actions_option,
    artifacts_options,
    chart_options,
    configuration,
    import_actions,
    store_option,
)
from engine.entry.cli.progress import observer_for_terminal
from engine.entry.cli.reporting import report as report_error
from engine.entry.cli.run import report
from engine.entry.cli.screen import screen
from engine.entry.cli.steering import cancel, redrive, signal
from engine.entry.cli.wording import action_unknown, at, said
from engine.errors import DetentError
from engine.runs import Entry, Head
from engine.runs.deliver import signals_of, unknown
from engine.runs.listing import Listed
from engine.runs.records import Message, Signal, inbox_document

COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "waiting": "cyan"}


@click.group("runs")
def command() -> None:
    """List runs, look into one, resume, cancel, signal or redrive one."""


command.add_command(cancel)
command.add_command(signal)
command.add_command(redrive)


@command.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@store_option
def list_(limit: int, format_: str, store: str | None) -> None:
    """The newest runs first, without the children of their maps. Those that cannot be read are named on stderr."""
    config = configuration(store=store)

    async def read() -> list[Listed]:
        async with Assembly.for_reading(config).engine() as app:
            return await app.runs.newest(limit)

    listed = anyio.run(read)
    heads = [one for one in listed if isinstance(one, Head)]
    if format_ == "json":
        click.echo(json.dumps([_summary(head) for head in heads], ensure_ascii=False, indent=2))
    elif not listed:
        click.echo("There are no runs in this store.")
    elif heads:
        _print_list(heads)
    for one in listed:
        if not isinstance(one, Head):
            report_error(one)
    if len(heads) < len(listed):
        sys.exit(EXIT_FAILED)


def _print_list(heads: Sequence[Head]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("run", "status", "state", "steps", "created"):
        table.add_column(name, overflow="fold", no_wrap=name != "run")
    for head in heads:
        snapshot = head.snapshot
        status = Text(snapshot.status.value, COLOURS.get(snapshot.status.value, ""))
        table.add_row(snapshot.run_id, status, snapshot.state, str(snapshot.seq), at(head.created_at_ms))
    screen().print(table)


@command.command("show")
@click.argument("run_id", metavar="RUN")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--follow", "follows", is_flag=True, help="Print entries as they are committed, until the run ends.")
@store_option
def show(run_id: str, format_: str, follows: bool, store: str | None) -> None:
    """One run: where it stands, what it waits for, and its journal. With --follow and json: one entry a line."""
    config = configuration(store=store)
    is_json = format_ == "json"

    async def read() -> None:
        async with Assembly.for_reading(config).engine() as app:
            head, entries = await app.runs.get(run_id), await app.runs.journal(run_id)
            if head is None:
                raise unknown(run_id)
            if follows and is_json:
                await follow(app, run_id, head, 0, as_json=True)
                return
            _print_whole(head, entries) if is_json else _show(head, entries, await _awaited(app, head))
            if follows and not head.has_ended:
                ended = await follow(app, run_id, head, entries[-1].seq if entries else 0, as_json=False)
                screen().print(_facts(ended, ("status", "output", "error")))

    anyio.run(read)


def _print_whole(head: Head, entries: list[Entry]) -> None:
    journal = [to_json(entry) for entry in entries]
    whole = {**_summary(head), "snapshot": head.snapshot.to_json(), "journal": journal}
    click.echo(json.dumps(whole, ensure_ascii=False, indent=2))


class _Awaited(NamedTuple):
    """What a run waits for where it stands: signals, or a worker that knows an action which is not known here."""

    signals: Sequence[str] = ()
    action: str | None = None


_NOTHING: Final = _Awaited()


async def _awaited(app: Engine, head: Head) -> _Awaited:
    """As far as the run's definition can be read here."""
    state = head.snapshot.state
    if head.has_ended or state is None:
        return _NOTHING
    try:
        machine = await app.runs.definitions.machine(head.snapshot.digest)
    except DetentError:
        return _NOTHING
    return _Awaited(signals_of(machine, state), action_unknown(machine, state))


def _show(head: Head, entries: list[Entry], awaited: _Awaited) -> None:
    console = screen()
    console.print(_facts(head, awaited=awaited))
    table = Table(box=None, pad_edge=False)
    for name in ("seq", "at", "event", ""):
        table.add_column(name, overflow="fold")
    for entry in entries:
        table.add_row(str(entry.seq), at(entry.event.at_ms), event.tag(entry.event), said(entry.event))
    console.print(table)


def _facts(head: Head, names: tuple[str, ...] = (), awaited: _Awaited = _NOTHING) -> Table:
    """What there is to say of a run, or of it what is named."""
    snapshot = head.snapshot
    facts = Table.grid(padding=(0, 2))
    rows = [
        ("run", snapshot.run_id),
        ("machine", f"{snapshot.machine} version {snapshot.version}, {snapshot.digest[:12]}"),
        ("status", f"{snapshot.status.value} in {snapshot.state or 'no state'}"),
        ("waits", _waits(head, awaited)),
        ("inbox", ", ".join(_message(message) for message in head.inbox)),
        ("input", json.dumps(snapshot.input, ensure_ascii=False)),
        ("output", json.dumps(snapshot.output, ensure_ascii=False)),
        ("error", json.dumps(snapshot.error, ensure_ascii=False) if snapshot.error else ""),
    ]
    for name, value in rows:
        if value and value != "null" and (not names or name in names):
            facts.add_row(Text(name, "dim"), value)
    return facts


def _message(message: Message) -> str:
    return f"signal {message.name} ({message.id})" if isinstance(message, Signal) else "cancel"


def _waits(head: Head, awaited: _Awaited) -> str:
    if head.is_final:
        return ""
    if head.worker is not None and head.claimable_at_ms is not None:
        return f"held by {head.worker} until {at(head.claimable_at_ms)} (fence {head.fence})"
    if head.claimable_at_ms is not None and head.claimable_at_ms <= time.time() * 1000:
        knowing = f" that knows the action {awaited.action} (--actions MODULE)" if awaited.action else ""
        return f"for a worker{knowing}, since {at(head.claimable_at_ms)}"
    told = f"for a signal: {' or '.join(awaited.signals)}" if awaited.signals else ""
    if head.claimable_at_ms is None:
        return told or "for an event from outside"
    return f"{told}{'; ' if told else ''}until {at(head.claimable_at_ms)}"


def _summary(head: Head) -> dict[str, Any]:
    snapshot = head.snapshot
    return {
        "run_id": snapshot.run_id,
        "machine": snapshot.machine,
        "version": snapshot.version,
        "key": snapshot.key,
        "status": snapshot.status.value,
        "state": snapshot.state,
        "steps": snapshot.seq,
        "fence": head.fence,
        "worker": head.worker,
        "claimable_at_ms": head.claimable_at_ms,
        "created_at": at(head.created_at_ms),
        "output": snapshot.output,
        "error": snapshot.error,
        "inbox": inbox_document(head.inbox),
    }


@command.command("resume")
@click.argument("run_id", metavar="RUN")
@actions_option
@chart_options
@store_option
@artifacts_options
@click.option("--summary", type=click.Choice(["text", "json", "none"]), default="text", show_default=True)
def resume(
    run_id: str, actions: tuple[str, ...], mode: str | None, accounts: str | None, store: str | None,
    artifacts: str | None, bucket: str | None, summary: str,
) -> None:  # fmt: skip
    """Take a run that is due or abandoned, and drive it to its end."""
    config = configuration(store=store, artifacts=artifacts, mode=mode, accounts=accounts, bucket=bucket)
    import_actions(actions)
    with observer_for_terminal(config) as (observer, secrets):
        assembly = Assembly(config, secrets, observer)

        async def go() -> tuple[Machine, RunResult]:
            async with assembly.engine() as app:
                result = await app.resume(run_id)
                head = await app.runs.get(run_id)
                assert head is not None
                return await app.runs.definitions.machine(head.snapshot.digest), result

        machine, result = anyio.run(go)
    sys.exit(report(machine, result, summary))
