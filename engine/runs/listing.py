"""Looking at runs: the newest ones, and the journal of one. What doors show; nothing here is needed to move a run.

Everything that is read is held against its shape, since whoever shows a field must be able to count on it. A run that
cannot be read hides no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from engine.core.write import Key
from engine.errors import DocumentUnreadableError
from engine.runs.reading import read_entry, read_rest, unreadable
from engine.runs.records import RUNS, Entry, Head, entry_key, head_key
from engine.runs.transaction import read_heads
from engine.store.port import UNREADABLE, Order, Store, Where

JOURNAL_BATCH: Final = 200
"""Journal entries read at once: bounds the size of one request."""

STRAYS_MAX: Final = 1_000
"""Documents among which heads are looked for that no index holds."""

Listed: TypeAlias = Head | DocumentUnreadableError
"""A run, or why it cannot be read."""


async def newest(store: Store, limit: int) -> list[Listed]:
    """The runs that were created last, newest first; children of maps are not among them.

    Where there are fewer than `limit`, those come last that are not known to be runs: their heads lack what the query
    goes by.
    """
    where = [Where("is_root", "==", True)]
    found = await store.query(RUNS, where, [Order("created_at_ms", descending=True)], limit)
    keys = [key for key, _ in found]
    if len(keys) < limit:
        keys += await _strays(store, keys, limit - len(keys))
    return [one for one in await _each(store, keys) if one is not None]


async def _strays(store: Store, known: Sequence[Key], limit: int) -> list[Key]:
    found = await store.query(RUNS, limit=STRAYS_MAX)
    strays = (
        key
        for key, document in found
        if document is UNREADABLE or type(document.get("is_root")) is not bool or "created_at_ms" not in document
    )
    return [key for key in strays if key not in set(known)][:limit]


async def _each(store: Store, keys: Sequence[Key]) -> list[Listed | None]:
    """The heads under keys, in halves where one of them cannot be read, until that one is by itself."""
    try:
        return [*await read_heads(store, keys, is_strict=True)]
    except DocumentUnreadableError as error:
        if len(keys) == 1:
            return [error]
    middle = len(keys) // 2
    return [*await _each(store, keys[:middle]), *await _each(store, keys[middle:])]


async def journal(store: Store, run_id: str, after: int = 0) -> list[Entry]:
    """The entries of a run after the `after`-th, first to last; none for a run that does not exist.

    Raises `DocumentUnreadableError` for the first that is missing or cannot be read.
    """
    key = head_key(run_id)
    head: Any = (await store.get_many([key]))[key]
    if head is not None and type(head.get("seq")) is not int:
        raise unreadable(key, head)
    keys = [entry_key(run_id, seq) for seq in range(after + 1, 1 if head is None else head["seq"] + 1)]
    entries: list[Entry] = []
    for start in range(0, len(keys), JOURNAL_BATCH):
        batch = keys[start : start + JOURNAL_BATCH]
        found = await store.get_many(batch)
        rest = {entry: read_rest(entry, found[entry]) for entry in batch}
        parts = await store.get_many([part for one in rest.values() for part in one])
        entries += [read_entry(entry, found[entry], [parts[part] for part in rest[entry]]) for entry in batch]
    return entries
