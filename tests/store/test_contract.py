"""The contract suite, on every store that needs no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.core.write import Key, Set, Update
from engine.errors import ContentionError
from engine.store import sqlite_writer
from engine.store.memory import MemoryStore
from engine.store.port import ATTEMPTS_MAX, Index, Store
from engine.store.sqlite import SqliteStore
from engine.testing import store_contract
from engine.testing.store_contract import DisturbedCheck, OpenStore, StoreCheck

pytestmark = pytest.mark.anyio

INDEXES = [
    Index("mixed", ("f",)),
    Index("numbers", ("parity", "n")),
    Index("numbers", ("n",)),
    Index("texts", ("t",)),
    Index("things", ("n",)),
    Index("runs", ("status",)),
]
"""Indexes for the fields of the contract's own queries: answers must be the same with them and without."""


@pytest.fixture(params=["memory", "disturbed", "sqlite", "sqlite-indexed", "sqlite-quick"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenStore:
    if request.param == "sqlite-quick":  # from the first commit on, whatever this disk takes for one
        monkeypatch.setattr(sqlite_writer, "QUICK_AFTER", 0)
        monkeypatch.setattr(sqlite_writer, "QUICK_S", 60.0)

    async def open_one() -> Store:
        match request.param:
            case "memory":
                return MemoryStore()
            case "disturbed":
                return MemoryStore(disturb=lambda *_: [])
            case "sqlite":
                return await SqliteStore.open(tmp_path / "store.db")
            case _:
                return await SqliteStore.open(tmp_path / "store.db", indexes=INDEXES)

    return open_one


@pytest.mark.parametrize("check", store_contract.CHECKS, ids=store_contract.name)
async def test_the_store_keeps_its_contract(check: StoreCheck, open_store: OpenStore) -> None:
    await check(open_store)


@pytest.mark.parametrize("check", store_contract.DISTURBED_CHECKS, ids=store_contract.name)
async def test_the_memory_store_disturbs_what_is_not_guarded(check: DisturbedCheck) -> None:
    async def open_disturbed(disturb: store_contract.Disturb) -> Store:
        return MemoryStore(disturb=disturb)

    await check(open_disturbed)


async def test_a_conflict_without_end_is_contention_and_writes_nothing() -> None:
    counter, mine = Key("things", "counter"), Key("things", "mine")
    calls = 0

    def decide(documents: object, now_ms: int) -> tuple[list[Set], None]:
        nonlocal calls
        calls += 1
        return [Set(counter, {"mine": calls}), Set(mine, {})], None

    store = MemoryStore(disturb=lambda *_: [Set(counter, {"theirs": calls})])
    with pytest.raises(ContentionError):
        await store.transact([counter, mine], decide)
    assert calls == ATTEMPTS_MAX
    assert await store.get_many([counter, mine]) == {counter: {"theirs": ATTEMPTS_MAX}, mine: None}


async def test_touch_unguarded_changes_only_what_a_decide_read_and_did_not_guard() -> None:
    read, written = Key("things", "read"), Key("things", "written")
    store = MemoryStore(disturb=store_contract.touch_unguarded)
    await store.transact([read, written], lambda *_: ([Set(read, {}), Set(written, {})], None))
    await store.transact([read, written], lambda *_: ([Update(written, {("n",): 1})], None))
    assert await store.get_many([read, written]) == {read: {"touched": 1}, written: {"n": 1}}


async def test_the_memory_store_reads_the_clock_it_is_given() -> None:
    store = MemoryStore(now_ms=lambda: 1234)
    assert await store.transact([], lambda _, now_ms: ((), now_ms)) == 1234
