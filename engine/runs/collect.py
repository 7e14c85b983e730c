"""What a map has come to: counted when its parent is claimed, collected when every lane of it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from engine.core.action import EngineCode, Failure
from engine.core.canonical import Json
from engine.core.effect import StartMap
from engine.core.event import ActionFailed, MapFinished
from engine.core.write import Check, Document, Key, Set, Write
from engine.runs.claim import Answer, Claim, Committed
from engine.runs.reading import read_items, read_tally, sound
from engine.runs.records import (
    ITEMS_PER_CHUNK,
    Head,
    Place,
    Tally,
    child_run_id,
    chunk_key,
    head_key,
    kept_key,
    map_key,
)
from engine.runs.runs import Runs
from engine.runs.transaction import heads_under

Documents: TypeAlias = Mapping[Key, "Document | None"]

COLLECT_BATCH: Final = 200
"""Children read at once when a map is collected: bounds memory and the size of one request."""


async def tally_of(runs: Runs, head: Head) -> Tally | None:
    """How far the map has come in which a run stands."""
    snapshot = head.snapshot
    key = map_key(head.run_id, snapshot.state, snapshot.visits[snapshot.state])
    document = (await runs.store.get_many([key]))[key]
    return None if document is None else read_tally(key, sound(key, document))


async def collect(runs: Runs, claim: Claim, now_ms: int) -> Committed:
    """Take what a map has come to: its items when every lane has ended, else rest until one does."""
    snapshot = claim.head.snapshot
    of = map_key(snapshot.run_id, snapshot.state, snapshot.visits[snapshot.state])
    tally = await tally_of(runs, claim.head)
    if tally is None:
        lost = ActionFailed(now_ms, Failure(EngineCode.MAP_INVALID, "the record of the map is not in the store"))
        return await runs.commit(claim, lost)
    if tally.lanes_open == 0:
        finished = MapFinished(now_ms, await _items(runs, claim, of, tally))
        return await runs.record(claim, (of,), lambda documents, now_ms: Answer(finished))
    key = head_key(snapshot.run_id)

    def decide(documents: Documents, now_ms: int, token: str) -> tuple[list[Write], Committed | None]:
        head = runs.own(claim, documents)
        found = documents[of]
        if found is None or read_tally(of, found).lanes_open == 0:
            return [Check(key)], None
        until = runs.rests_until(claim.machine, head, now_ms)
        rested = head._replace(worker=None, begun=False, claimable_at_ms=until, updated_at_ms=now_ms)
        woken = () if until is None else ((head.run_id, until),)
        # Checking the tally is what keeps the wake of the last child from falling between.
        return [Set(key, rested.to_document()), Check(of)], Committed(rested, None, woken)

    rested: Committed | None = await runs.transact([key, of], decide)
    return rested if rested is not None else await collect(runs, claim, now_ms)


async def _items(runs: Runs, claim: Claim, of: Key, tally: Tally) -> list[Json]:
    """What became of each item, in the order of the list."""
    snapshot = claim.head.snapshot
    chunks = [chunk_key(of, start) for start in range(0, tally.items, ITEMS_PER_CHUNK)]
    keys: list[str] = []
    for chunk, document in (await runs.store.get_many(chunks)).items():
        keys.extend(entry[0] for entry in read_items(chunk, document))
    items: list[Any] = []
    visit = snapshot.visits[snapshot.state]
    for start in range(0, len(keys), COLLECT_BATCH):
        batch = keys[start : start + COLLECT_BATCH]
        places = [Place(snapshot.run_id, snapshot.state, visit, start + i, key) for i, key in enumerate(batch)]
        heads = [head_key(child_run_id(place)) for place in places]
        found = await heads_under(runs.store, heads)
        items.extend(_item(place.key, head) for place, head in zip(places, found, strict=True))
    if tally.kept and isinstance(claim.effect, StartMap):
        kept = await _kept_items(runs, of, tally)
        by_key = {item["key"]: item for item in (*items, *kept)}
        return [by_key[key] for key in claim.effect.keys]
    return items


async def _kept_items(runs: Runs, of: Key, tally: Tally) -> list[Any]:
    """What became of the items that were kept when the map was redriven."""
    items: list[Any] = []
    for start in range(0, tally.kept, ITEMS_PER_CHUNK):
        key = kept_key(of, start)
        entries = read_items(key, (await runs.store.get_many([key]))[key])
        heads = await heads_under(runs.store, [head_key(run_id) for _, run_id, _ in entries])
        items += [_item(entry[0], head) for entry, head in zip(entries, heads, strict=True)]
    return items


def _item(key: str, head: Head | None) -> Json:
    """One element of `result.items`: an item that never began is `skipped`."""
    if head is None:
        return {"key": key, "status": "skipped", "output": None, "error": None}
    snapshot = head.snapshot
    return {"key": key, "status": snapshot.status.value, "output": snapshot.output, "error": snapshot.error}
