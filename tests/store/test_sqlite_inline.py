"""Quick commits on the event loop itself: who commits for whom, and when the thread does it after all."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import MappingProxyType

import anyio
import apsw
import pytest

from engine.core.write import Create, Key, Set, Write
from engine.errors import StoreUnavailableError
from engine.store import sqlite_writer
from engine.store.port import Documents, Index, Where
from engine.store.sqlite import SqliteStore
from engine.store.sqlite_turn import Turn
from engine.testing.store_check import commit, fetch
from tests.store.test_sqlite_commits import Disk, disk

pytestmark = pytest.mark.anyio
__all__ = ["disk"]

A = Key("things", "a")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_writer, "QUICK_AFTER", 0)
    monkeypatch.setattr(sqlite_writer, "QUICK_S", 60.0)


def committing_thread(seen: list[threading.Thread]):
    def decide(documents: Documents, now_ms: int) -> tuple[list[Write], None]:
        seen.append(threading.current_thread())
        return [Set(A, {"n": len(seen)})], None

    return decide


async def test_all_who_ask_in_one_turn_of_the_loop_share_one_sync(tmp_path: Path, disk: Disk) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    await commit(store, Set(A, {}))
    disk.log_syncs = 0
    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(commit, store, Create(Key("journal", str(number)), {}))
    assert disk.log_syncs == 1
    assert len(await store.query("journal")) == 100
    await store.close()


async def test_a_quick_commit_is_made_on_the_loop_and_a_slow_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    seen: list[threading.Thread] = []
    await store.transact([A], committing_thread(seen))
    monkeypatch.setattr(sqlite_writer, "QUICK_S", 0.0)
    await store.transact([A], committing_thread(seen))
    assert [thread is threading.main_thread() for thread in seen] == [True, False]
    await store.close()


async def test_the_loop_does_not_wait_for_another_process_that_has_the_turn(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    seen: list[threading.Thread] = []
    other = Turn(str(tmp_path / "store.db"))
    other.take()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.transact, [A], committing_thread(seen))
        await anyio.wait_all_tasks_blocked()
        assert seen == []
        other.give()
    assert seen != [threading.main_thread()]
    assert await fetch(store, A) == {"n": 1}
    other.close()
    await store.close()


async def test_one_who_leads_and_is_cancelled_leaves_the_others_their_commit(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as leading:

            async def follow() -> None:
                await commit(store, Create(Key("journal", "follower"), {}))

            async def call_off() -> None:
                leading.cancel()

            tasks.start_soon(call_off)
            tasks.start_soon(follow)
            await commit(store, Create(Key("journal", "leader"), {}))
    assert [found.key.id for found in await store.query("journal")] == ["follower"]
    await store.close()


async def test_what_another_connection_has_written_is_seen_by_the_next_decide(tmp_path: Path) -> None:
    """The picture that is kept from commit to commit is given up as soon as somebody else has written."""
    store = await SqliteStore.open(tmp_path / "store.db")
    other = await SqliteStore.open(tmp_path / "store.db")
    for number in range(5):
        await commit(store, Set(A, {"n": number}))
        await commit(other, Set(A, {"n": number, "by": "other"}))
        assert await store.transact([A], lambda documents, _: ((), documents[A])) == {"n": number, "by": "other"}
    await other.close()
    await store.close()


async def test_an_index_that_another_process_brings_is_kept_by_those_that_were_there(tmp_path: Path) -> None:
    old = await SqliteStore.open(tmp_path / "store.db")
    await commit(old, Set(A, {"n": 1}))
    new = await SqliteStore.open(tmp_path / "store.db", indexes=[Index("things", ("n",))])
    await commit(old, Set(A, {"n": 2}), Create(Key("things", "b"), {"n": 3}))
    assert [found.key.id for found in await new.query("things", [Where("n", ">=", 2)])] == ["a", "b"]
    await new.close()
    await old.close()


async def test_a_file_of_the_first_schema_is_brought_up(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.execute(
        "CREATE TABLE document (collection TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (collection, id)) STRICT"
    )
    connection.execute("ANALYZE")
    connection.execute(
        "CREATE INDEX \"runs(n)\" ON document (json_extract(body, '$.\"n\"'), id) WHERE collection = 'runs'"
    )
    for number in range(3):
        connection.execute("INSERT INTO document VALUES ('runs', ?, ?)", (str(number), f'{{"n":{number}}}'))
    connection.pragma("user_version", 1)
    connection.close()
    store = await SqliteStore.open(path, indexes=[Index("runs", ("n",))])
    await commit(store, Set(Key("runs", "0"), {"n": 9}))
    assert [found.key.id for found in await store.query("runs", [Where("n", ">=", 2)])] == ["0", "2"]
    await store.close()


async def test_a_commit_on_the_loop_that_fails_says_so_and_the_next_one_is_made(tmp_path: Path, disk: Disk) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    await commit(store, Set(A, {"n": 1}))
    disk.write_error = apsw.FullError("no space")
    with pytest.raises(StoreUnavailableError):
        await commit(store, Set(A, {"n": 2}))
    disk.write_error = None
    assert await store.transact([A], lambda documents, _: ((), documents[A])) == {"n": 1}
    await commit(store, Set(A, {"n": 3}))
    assert await fetch(store, A) == {"n": 3}
    await store.close()


async def test_a_map_of_another_type_in_a_facet_is_json_and_fails_nobody(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db", indexes=[Index("things", ("kind",))])
    await commit(store, Set(A, {}))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commit, store, Set(A, {"kind": MappingProxyType({"n": 1})}))
            tasks.start_soon(commit, store, Set(Key("things", "b"), {"kind": "b"}))
    assert await fetch(store, A) == {"kind": {"n": 1}}
    assert await fetch(store, Key("things", "b")) == {"kind": "b"}
    await store.close()


async def test_what_was_asked_before_the_close_is_committed_also_when_the_lane_has_to_do_it(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    other = Turn(str(tmp_path / "store.db"))
    tasks = [asyncio.ensure_future(commit(store, Create(Key("things", str(n)), {}))) for n in range(3)]
    closing = asyncio.ensure_future(store.close())  # begins when they have gathered, and none has committed
    assert other.take(waits=False)
    tasks[0].get_loop().call_later(0.1, other.give)
    done, waiting = await asyncio.wait([*tasks, closing], timeout=5)
    assert not waiting
    assert [task.exception() for task in done] == [None] * 4
    other.close()


async def test_an_error_that_nobody_foresaw_reaches_everybody_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")

    def broken(changed: object) -> None:
        raise MemoryError

    monkeypatch.setattr(store._writer, "_write", broken)
    tasks = [asyncio.ensure_future(commit(store, Create(Key("things", str(n)), {}))) for n in range(3)]
    done, waiting = await asyncio.wait(tasks, timeout=5)
    assert not waiting
    assert [type(task.exception()) for task in done] == [MemoryError] * 3
    monkeypatch.undo()
    await store.close()
