"""`detent runs show --follow`: journal entries as they are committed, until the run ends."""

from __future__ import annotations

import json
from typing import Final

import anyio
import click

from engine.core import event
from engine.core.event import Event
from engine.entry.application import Engine
from engine.entry.cli.wording import at, said
from engine.runs import Entry, Head

LOOK_S: Final = 0.5
"""How often the run is looked at."""


async def follow(app: Engine, run_id: str, first: Head, seen: int, *, as_json: bool) -> Head:
    """Print the entries after `seen` as they come; answers the head with which the run ended."""
    head = first
    while True:
        if head.snapshot.seq > seen:
            for entry in await app.runs.journal(run_id, after=seen):
                click.echo(line_of(entry, as_json=as_json))
                seen = entry.seq
        if head.has_ended:
            return head
        await anyio.sleep(LOOK_S)
        found = await app.runs.get(run_id)
        assert found is not None, "a run that was started is never removed"
        head = found


def line_of(entry: Entry, *, as_json: bool) -> str:
    """One entry as one line."""
    if as_json:
        return json.dumps(to_json(entry), ensure_ascii=False)
    return f"{entry.seq:<3}  {at(entry.event.at_ms)}  {tag_of(entry.event):<16}  {said(entry.event)}".rstrip()


def to_json(entry: Entry) -> dict[str, object]:
    """One entry as `--format json` shows it."""
    return {"seq": entry.seq, "fence": entry.fence, **event.to_json(entry.event)}


def tag_of(given: Event) -> str:
    """The event's name as the journal writes it."""
    return event.tag(given)
