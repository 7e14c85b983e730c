"""Quick commits on the event loop itself: who commits for whom, and when the thread does it after all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import anyio
import apsw
import pytest

from engine.core.write import Create, Key, Set, Write
from engine.errors import StoreUnavailableError
from engine.store import sqlite_inline, sqlite_writer
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


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Turn]:
    """Another process, as far as the writers' turn goes."""
    turn = Turn(str(tmp_path / "store.db"))
    yield turn
    turn.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that never gets in line."""
    monkeypatch.setattr(sqlite_inline, "PAUSES_S", (0.001,) * 100_000)


async def test_the_loop_does_not_wait_for_another_process_that_keeps_the_turn(
    tmp_path: Path, other: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while it tries on the loop, nor when the thread has got in line."""
    waited: list[threading.Thread] = []
    in_line = threading.Event()
    take = Turn.take

    def watched(turn: Turn, *, waits: bool = True) -> bool:
        if waits:
            waited.append(threading.current_thread())
            in_line.set()
        return take(turn, waits=waits)

    store = await SqliteStore.open(tmp_path / "store.db")
    seen: list[threading.Thread] = []
    other.take()
    monkeypatch.setattr(Turn, "take", watched)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.transact, [A], committing_thread(seen))
        assert await anyio.to_thread.run_sync(in_line.wait, 5)
        assert seen == []
        other.give()
    assert seen == waited
    assert threading.main_thread() not in waited
    assert await fetch(store, A) == {"n": 1}
    await store.close()


@pytest.mark.usefixtures("patient")
async def test_a_short_turn_of_another_process_wakes_no_thread(tmp_path: Path, other: Turn, disk: Disk) -> None:
    """And who asks meanwhile joins those who are waiting."""
    store = await SqliteStore.open(tmp_path / "store.db")
    seen: list[threading.Thread] = []
    other.take()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.transact, [A], committing_thread(seen))
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(store.transact, [A], committing_thread(seen))
        await anyio.wait_all_tasks_blocked()
        disk.log_syncs = 0
        assert seen == []
        other.give()
    assert seen == [threading.main_thread()] * 2
    assert disk.log_syncs == 1
    await store.close()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("cancelled", ["first", "second"])
async def test_a_task_cancelled_while_another_process_has_the_turn_withdraws_its_commit(
    tmp_path: Path, other: Turn, cancelled: str
) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    other.take()
    tasks = {}
    for name in ("first", "second"):
        tasks[name] = asyncio.ensure_future(commit(store, Create(Key("things", name), {})))
        await anyio.wait_all_tasks_blocked()
    tasks.pop(cancelled).cancel()
    other.give()
    await asyncio.wait(tasks.values(), timeout=5)
    assert [found.key.id for found in await store.query("things")] == [*tasks]
    await store.close()


@pytest.mark.usefixtures("patient")
async def test_when_all_who_waited_are_cancelled_nobody_asks_for_the_turn_any_more(
    tmp_path: Path, other: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    other.take()
    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(commit, store, Set(A, {"n": number}))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    asked: list[object] = []
    monkeypatch.setattr(store._writer, "work", lambda *arguments, **how: asked.append(arguments))
    await anyio.sleep(0.01)
    assert asked == []
    monkeypatch.undo()
    other.give()
    await store.close()


@pytest.mark.usefixtures("patient")
def test_an_event_loop_that_ends_while_its_tasks_wait_leaves_the_next_one_free(tmp_path: Path, other: Turn) -> None:
    first = asyncio.new_event_loop()
    store = first.run_until_complete(SqliteStore.open(tmp_path / "store.db"))
    other.take()
    lost = first.create_task(commit(store, Set(A, {"n": -1})))
    first.run_until_complete(asyncio.sleep(0.01))
    first.close()
    other.give()
    seen: list[threading.Thread] = []
    asyncio.run(store.transact([A], committing_thread(seen)))
    assert seen == [threading.main_thread()]
    assert not lost.done()
    lost._log_destroy_pending = False  # type: ignore[attr-defined]
    asyncio.run(store.close())


@pytest.mark.usefixtures("patient")
async def test_close_gets_in_line_for_those_who_wait(tmp_path: Path, other: Turn) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    other.take()
    asked = asyncio.ensure_future(commit(store, Set(A, {})))
    await anyio.wait_all_tasks_blocked()
    closing = asyncio.ensure_future(store.close())
    await anyio.wait_all_tasks_blocked()
    assert not store._inline._gathered
    other.give()
    done, waiting = await asyncio.wait([asked, closing], timeout=5)
    assert not waiting
    assert [task.exception() for task in done] == [None, None]


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


async def test_what_was_asked_before_the_close_is_committed_also_when_the_lane_has_to_do_it(
    tmp_path: Path, other: Turn
) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    tasks = [asyncio.ensure_future(commit(store, Create(Key("things", str(n)), {}))) for n in range(3)]
    closing = asyncio.ensure_future(store.close())  # begins when they have gathered, and none has committed
    assert other.take()
    tasks[0].get_loop().call_later(0.1, other.give)
    done, waiting = await asyncio.wait([*tasks, closing], timeout=5)
    assert not waiting
    assert [task.exception() for task in done] == [None] * 4


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
