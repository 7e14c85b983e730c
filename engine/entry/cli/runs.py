"""`detent runs list | show | resume`: what the store knows of runs."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import anyio
import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.core import event
from engine.core.machine import Machine
from engine.entry.application import RunResult
from engine.entry.assembly import Assembly
from engine.entry.cli.options import (
    actions_option,
    artifacts_options,
    chart_options,
    configuration,
    import_actions,
    store_option,
)
from engine.entry.cli.progress import observer_for_terminal
from engine.entry.cli.run import report
from engine.errors import InvalidRequestError
from engine.runs import Entry, Head

COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "waiting": "cyan"}


@click.group("runs")
def command() -> None:
    """List runs, look into one, resume one."""


def _console() -> Console:
    # A pipe gets plain, unwrapped lines; a terminal its own width.
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=240, color_system=None)


@command.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@store_option
def list_(limit: int, format_: str, store: str | None) -> None:
    """The newest runs first, without the children of their maps."""
    config = configuration(store=store)

    async def read() -> list[Head]:
        async with Assembly.for_reading(config).engine() as app:
            return await app.runs.newest(limit)

    heads = anyio.run(read)
    if format_ == "json":
        click.echo(json.dumps([_summary(head) for head in heads], ensure_ascii=False, indent=2))
        return
    if not heads:
        click.echo("There are no runs in this store.")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("run", "status", "state", "steps", "created"):
        table.add_column(name, overflow="fold", no_wrap=name != "run")
    for head in heads:
        snapshot = head.snapshot
        status = Text(snapshot.status.value, COLOURS.get(snapshot.status.value, ""))
        table.add_row(snapshot.run_id, status, snapshot.state, str(snapshot.seq), _at(head.created_at_ms))
    _console().print(table)


@command.command("show")
@click.argument("run_id", metavar="RUN")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@store_option
def show(run_id: str, format_: str, store: str | None) -> None:
    """One run: where it stands, what it waits for, and its journal."""
    config = configuration(store=store)

    async def read() -> tuple[Head | None, list[Entry]]:
        async with Assembly.for_reading(config).engine() as app:
            return await app.runs.get(run_id), await app.runs.journal(run_id)

    head, entries = anyio.run(read)
    if head is None:
        raise InvalidRequestError(f"there is no run {run_id!r}.", remedy="See `detent runs list`.")
    if format_ == "json":
        journal = [{"seq": e.seq, "fence": e.fence, **event.to_json(e.event)} for e in entries]
        whole = {**_summary(head), "snapshot": head.snapshot.to_json(), "journal": journal}
        click.echo(json.dumps(whole, ensure_ascii=False, indent=2))
        return
    _show(head, entries)


def _show(head: Head, entries: list[Entry]) -> None:
    snapshot = head.snapshot
    console = _console()
    facts = Table.grid(padding=(0, 2))
    rows = [
        ("run", snapshot.run_id),
        ("machine", f"{snapshot.machine} version {snapshot.version}, {snapshot.digest[:12]}"),
        ("status", f"{snapshot.status.value} in {snapshot.state or 'no state'}"),
        ("waits", _waits(head)),
        ("input", json.dumps(snapshot.input, ensure_ascii=False)),
        ("output", json.dumps(snapshot.output, ensure_ascii=False)),
        ("error", json.dumps(snapshot.error, ensure_ascii=False) if snapshot.error else ""),
    ]
    for name, value in rows:
        if value and value != "null":
            facts.add_row(Text(name, "dim"), value)
    console.print(facts)
    table = Table(box=None, pad_edge=False)
    for name in ("seq", "at", "event", ""):
        table.add_column(name, overflow="fold")
    for entry in entries:
        table.add_row(str(entry.seq), _at(entry.event.at_ms), event.tag(entry.event), _said(entry))
    console.print(table)


def _waits(head: Head) -> str:
    if head.is_final:
        return ""
    if head.worker is not None and head.claimable_at_ms is not None:
        return f"held by {head.worker} until {_at(head.claimable_at_ms)} (fence {head.fence})"
    return "for an event from outside" if head.claimable_at_ms is None else f"until {_at(head.claimable_at_ms)}"


def _said(entry: Entry) -> str:
    match entry.event:
        case event.ActionReturned(_, name, _):
            return name
        case event.ActionFailed(_, failure) | event.StepRefused(_, failure):
            return f"{failure.code}: {failure.message}"
        case event.TimerFired(_, name):
            return name
        case event.MapFinished(_, items) if isinstance(items, list):
            return f"{len(items)} items"
        case _:
            return ""


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
        "created_at": _at(head.created_at_ms),
        "output": snapshot.output,
        "error": snapshot.error,
    }


def _at(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


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
