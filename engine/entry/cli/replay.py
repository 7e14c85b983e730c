"""`detent replay RUN | FILE.json`: fold a journal with the definition its run began with, and compare.

Nothing is performed and nothing written. Exit 0 when the journal gives the stored snapshot byte for byte, 1 with the
first difference when it does not. What ends in `.json` is a file where there is one, and else a run. Of a run whose
snapshot cannot be read the journal is folded all the same, as far as the head names its definition: the difference is
then why it cannot be read.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import anyio
import click

from engine.core.snapshot import empty
from engine.definition import Catalogue
from engine.entry.application import Engine
from engine.entry.assembly import Assembly, expect_store
from engine.entry.cli import EXIT_FAILED
from engine.entry.cli.following import tag_of
from engine.entry.cli.options import configuration, store_option
from engine.entry.cli.wording import said
from engine.entry.journals import exported, replay_file
from engine.errors import DocumentUnreadableError, InvalidRequestError
from engine.handlers.registry import ACTIONS
from engine.runs.deliver import unknown
from engine.runs.records import head_key
from engine.runs.replay import Replayed, replayed
from engine.runs.transaction import stored_snapshot


@click.command("replay")
@click.argument("what", metavar="RUN|FILE.json")
@click.option("--export", "to", metavar="FILE", help="Write the run's journal with its definition to a file.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@store_option
def command(what: str, to: str | None, format_: str, store: str | None) -> None:
    """Fold a run's journal again and compare the outcome with the stored snapshot, byte for byte."""
    if _is_file(what):
        if to is not None:
            raise InvalidRequestError("--export goes with a run, and not with a file.")
        run_id, found = replay_file(_read(what), what, Catalogue(ACTIONS.declarations()))
    else:
        run_id = what
        found = anyio.run(_replayed, what, to, store)
    if format_ == "json":
        path = [{"seq": seq, "event": tag_of(given), "state": state} for seq, given, state, _ in found.path]
        click.echo(json.dumps({"run_id": run_id, "path": path, "difference": found.difference}, ensure_ascii=False))
    else:
        _print(run_id, found)
    sys.exit(0 if found.difference is None else EXIT_FAILED)


def _is_file(what: str) -> bool:
    """Whether a file is meant: a run's id may end so too, but holds no slash."""
    return what.endswith(".json") and ("/" in what or os.path.isfile(what))  # noqa: PTH113  # it bears a name that is too long for a file


async def _replayed(run_id: str, to: str | None, store: str | None) -> Replayed:
    config = configuration(store=store)
    try:
        expect_store(config.store)
    except InvalidRequestError as error:
        raise _no_file_either(run_id, error) from None
    async with Assembly.for_reading(config).engine() as app:
        try:
            found = await stored_snapshot(app.store, run_id)
        except DocumentUnreadableError as error:
            if to is not None:
                raise
            return await _by_journal(app, run_id, error)
        if found is None:
            raise _no_file_either(run_id, unknown(run_id))
        head, stored = found
        machine = await app.runs.definitions.machine(head.snapshot.digest)
        entries = (await app.runs.journal(run_id))[: head.snapshot.seq]
        if to is not None:
            _write(to, json.dumps(exported(machine, head, entries, stored), ensure_ascii=False, indent=1))
        begun = empty(run_id, machine.name, machine.version, machine.digest, head.snapshot.key)
        return replayed(machine, begun, entries, stored)


def _no_file_either(what: str, error: InvalidRequestError) -> InvalidRequestError:
    if what.endswith(".json"):
        error.message = f"there is no file {what!r}, and {error.message}"
    return error


async def _by_journal(app: Engine, run_id: str, error: DocumentUnreadableError) -> Replayed:
    """What the journal says of a run whose head cannot be read. Raises `error` where that says too little for it."""
    key = head_key(run_id)
    document: Any = (await app.store.get_many([key]))[key]
    digest, run_key = document.get("digest"), document.get("key")
    if not isinstance(digest, str) or not isinstance(run_key, str | None):
        error.remedy = "Restore it from a copy; as it is, it does not name the definition that its journal follows."
        raise error
    machine = await app.runs.definitions.machine(digest)
    begun = empty(run_id, machine.name, machine.version, machine.digest, run_key)
    return replayed(machine, begun, await app.runs.journal(run_id), "")._replace(difference=error.message.rstrip("."))


def _print(run_id: str, found: Replayed) -> None:
    for seq, given, state, status in found.path:
        told = f"{tag_of(given)} {said(given)}".rstrip()
        click.echo(f"{seq:>4}  {told:<40}  {state or 'no state'} ({status})")
    entries = f"{len(found.path)} entr{'y' if len(found.path) == 1 else 'ies'}"
    if found.difference is None:
        click.echo(f"Run {run_id}: {entries} give the stored snapshot, byte for byte.")
    else:
        click.echo(f"Run {run_id}: after {entries} there is a difference: {found.difference}.")


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"--export {path}: the file cannot be written: {error}.") from None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path}: the file cannot be read: {error}.") from None
