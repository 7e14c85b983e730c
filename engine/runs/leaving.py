"""A map that was left: its children under way are told to end. Durable work of the parent.

The commit that leaves a map notes it in the parent's head (`leaving`) and makes the parent claimable, so that whoever
claims the parent next, after a crash too, sees to it before anything else. A child at rest takes its cancel at once,
one in a call when the call's outcome is recorded. No new child begins: the map's document says that it was left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from engine.core.effect import StopMap
from engine.core.write import Key, Set, Write
from engine.runs.claim import Claim, Committed
from engine.runs.deliver import CANCELLED_WITH_MAP, cancel_unfinished
from engine.runs.reading import read_items, read_status, read_tally, sound
from engine.runs.records import (
    ITEMS_PER_CHUNK,
    Head,
    Place,
    Tally,
    child_run_id,
    chunk_key,
    head_key,
    map_key,
)
from engine.runs.runs import Runs
from engine.runs.transaction import Documents

READ_BATCH: Final = 200
"""Children looked at in one read."""

TOLD_BATCH: Final = 20
"""Children told in one transaction: a conflict with one of their owners costs the others little."""


async def leave_map(runs: Runs, claim: Claim, left: StopMap) -> Committed:
    """Tell the unfinished children of a left map to end, then strike the map off the parent's head."""
    of = map_key(claim.head.run_id, left.state, left.visit)
    found = (await runs.store.get_many([of]))[of]
    woken: list[tuple[str, int]] = []
    if found is not None:
        unfinished = await _unfinished(runs, claim.head, left, of, read_tally(of, sound(of, found)))
        for start in range(0, len(unfinished), TOLD_BATCH):
            batch = unfinished[start : start + TOLD_BATCH]
            woken += await cancel_unfinished(runs, batch, CANCELLED_WITH_MAP)
    key = head_key(claim.head.run_id)

    def decide(documents: Documents, now_ms: int, token: str) -> tuple[list[Write], Committed]:
        head = runs.own(claim, documents)
        told = head._replace(
            worker=None, begun=False, updated_at_ms=now_ms,
            leaving=tuple(one for one in head.leaving if one != left),
        )  # fmt: skip
        until = runs.let_go_until(claim.machine, told, now_ms)
        also = () if until is None else ((head.run_id, until),)
        return [Set(key, told._replace(claimable_at_ms=until).to_document())], Committed(
            told._replace(claimable_at_ms=until), None, (*woken, *also)
        )

    committed: Committed = await runs.transact([key], decide)
    return committed


async def _unfinished(runs: Runs, parent: Head, left: StopMap, of: Key, tally: Tally) -> list[str]:
    """The children that have begun and not ended.

    Of each lane the children that exist are its first ones, so the search is over when every lane has met an item
    without one.
    """
    found: list[str] = []
    open_lanes = set(range(tally.lanes))
    for start in range(0, tally.items, READ_BATCH):
        entries = await item_entries(runs, of, start, min(start + READ_BATCH, tally.items))
        places = {
            start + offset: Place(parent.run_id, left.state, left.visit, start + offset, entry[0])
            for offset, entry in enumerate(entries)
            if (start + offset) % tally.lanes in open_lanes
        }
        heads = {number: head_key(child_run_id(place)) for number, place in places.items()}
        documents: Any = await runs.store.get_many(list(heads.values()))
        for number, key in heads.items():
            document = documents[key]
            if document is None:
                open_lanes.discard(number % tally.lanes)
            elif not read_status(key, document).is_final:
                found.append(key.id)
        if not open_lanes:
            break
    return found


async def item_entries(runs: Runs, of: Key, start: int, end: int) -> Sequence[Any]:
    """Key and input of the items of a map from `start` to before `end`."""
    firsts = range(start - start % ITEMS_PER_CHUNK, end, ITEMS_PER_CHUNK)
    chunks = [chunk_key(of, first) for first in firsts]
    documents = await runs.store.get_many(chunks)
    entries: list[Any] = []
    for chunk in chunks:
        entries += read_items(chunk, documents[chunk])
    return entries[start - firsts.start : end - firsts.start]
