"""Replay: fold a journal over the empty snapshot again and compare it with what is stored. Pure.

In: a machine, the empty snapshot, the entries and the stored text. Out: the path, and the first difference if there is
one. Nothing is performed and nothing written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from engine.core import canonical
from engine.core.event import Event, tag
from engine.core.machine import Machine
from engine.core.snapshot import Snapshot
from engine.core.step import step
from engine.errors import DetentError
from engine.runs.records import Entry


class Replayed(NamedTuple):
    """`path` holds `(seq, event, state after it, status after it)`; `difference` is `None` when all is equal."""

    path: tuple[tuple[int, Event, str, str], ...]
    difference: str | None


def replayed(machine: Machine, begun: Snapshot, entries: Sequence[Entry], stored: str) -> Replayed:
    """Fold `entries` over `begun` and compare the outcome with the text `stored`, byte for byte."""
    snapshot = begun
    path: list[tuple[int, Event, str, str]] = []
    for number, entry in enumerate(entries, 1):
        if entry.seq != number:
            return Replayed(tuple(path), f"entry {number} is missing; the next one is {entry.seq}")
        try:
            # Through its text, as a worker that reads it from the store would have it.
            snapshot = Snapshot.decode(step(machine, snapshot, entry.event).snapshot.encode())
        except DetentError as error:
            return Replayed(tuple(path), f"entry {number} ({tag(entry.event)}) is not taken: {error.message}")
        path.append((number, entry.event, snapshot.state, snapshot.status.value))
    text = snapshot.encode()
    if text == stored:
        return Replayed(tuple(path), None)
    return Replayed(tuple(path), _difference(canonical.decode(text), _decoded(stored)))


def _decoded(text: str) -> Any:
    try:
        return canonical.decode(text)
    except ValueError:
        return text


def _difference(folded: Any, stored: Any, place: str = "snapshot") -> str:
    """The first place where two values differ, with both."""
    if isinstance(folded, dict) and isinstance(stored, dict):
        for name in sorted({*folded, *stored}):
            if name not in stored:
                return f"{place}.{name} is not in the stored snapshot"
            if name not in folded:
                return f"{place}.{name} is in the stored snapshot alone"
            if folded[name] != stored[name]:
                return _difference(folded[name], stored[name], f"{place}.{name}")
    if isinstance(folded, list) and isinstance(stored, list) and len(folded) == len(stored):
        for index, (one, other) in enumerate(zip(folded, stored, strict=True)):
            if one != other:
                return _difference(one, other, f"{place}[{index}]")
    if folded == stored:
        return f"{place} is written in another form, with the same value"
    return f"{place} is {_short(stored)} in the store and {_short(folded)} by the journal"


def _short(value: Any) -> str:
    text = canonical.encode(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
