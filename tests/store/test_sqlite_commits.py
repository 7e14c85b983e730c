"""The writer: group commit, cancellation, the turn between processes, and a disk that fails."""

from __future__ import annotations

import asyncio
import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import apsw
import pytest

from engine.core.write import Create, Key, Set, Write
from engine.errors import CommitUncertainError, StoreError, StoreUnavailableError, WriteRefusedError
from engine.store import sqlite_file, sqlite_lane, sqlite_writer
from engine.store.port import Decide, Documents, Index
from engine.store.sqlite import SqliteStore
from engine.store.sqlite_turn import Turn
from engine.testing.store_check import commit, fetch

pytestmark = pytest.mark.anyio

A, B = Key("things", "a"), Key("things", "b")


class Disk(apsw.VFS):
    """SQLite's own way to the disk, counting syncs and failing when told to."""

    def __init__(self) -> None:
        super().__init__("watched", "unix", makedefault=True)
        self.log_syncs = 0
        self.write_error: Exception | None = None
        self.sync_error: Exception | None = None

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._is_log = bool(flags[0] & apsw.SQLITE_OPEN_WAL)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        if self._is_log:
            self._disk.log_syncs += 1
        if self._disk.sync_error:
            raise self._disk.sync_error
        super().xSync(flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        if self._disk.write_error:
            raise self._disk.write_error
        super().xWrite(data, offset)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.unregister()


class Gate:
    """A decide that holds the writer's thread until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def decide(self, documents: Documents, now_ms: int) -> tuple[list[Write], str]:
        self.reached.set()
        assert self.opened.wait(30)
        return [Set(A, {"gate": True})], "through"


async def hold_writer(store: SqliteStore, tasks: anyio.abc.TaskGroup) -> Gate:
    gate = Gate()
    tasks.start_soon(store.transact, [A], gate.decide)
    await anyio.to_thread.run_sync(gate.reached.wait)
    return gate


async def test_a_commit_alone_costs_one_sync(tmp_path: Path, disk: Disk) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    await commit(store, Set(A, {"n": -1}))
    disk.log_syncs = 0
    for number in range(50):
        await commit(store, Set(A, {"n": number}), Create(Key("journal", str(number)), {}))
    assert disk.log_syncs == 50
    await store.close()


async def test_opening_a_file_that_is_there_costs_no_sync(tmp_path: Path, disk: Disk) -> None:
    index = Index("things", ("n",))
    store = await SqliteStore.open(tmp_path / "store.db", indexes=[index])
    await commit(store, Set(A, {"n": 1}))
    disk.log_syncs = 0
    other = await SqliteStore.open(tmp_path / "store.db", indexes=[index])
    assert disk.log_syncs == 0
    await other.close()
    await store.close()


async def test_what_arrives_together_shares_one_sync(tmp_path: Path, disk: Disk) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    await commit(store, Set(B, {}))
    disk.log_syncs = 0
    async with anyio.create_task_group() as tasks:
        gate = await hold_writer(store, tasks)
        for number in range(100):
            tasks.start_soon(commit, store, Create(Key("journal", str(number)), {}))
        await anyio.wait_all_tasks_blocked()
        gate.opened.set()
    assert disk.log_syncs == 2
    assert len(await store.query("journal")) == 100
    await store.close()


async def test_a_commit_that_changes_nothing_costs_no_sync(tmp_path: Path, disk: Disk) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    await commit(store, Set(A, {"n": 1}))
    disk.log_syncs = 0
    await commit(store, Set(A, {"n": 1}))
    await store.transact([A], lambda *_: ((), None))
    assert disk.log_syncs == 0
    await store.close()


async def test_one_that_raises_leaves_its_neighbours_in_the_batch_alone(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    outcomes: dict[int, str] = {}

    async def attempt(number: int) -> None:
        def decide(documents: Documents, now_ms: int) -> tuple[list[Write], str]:
            if number == 1:
                raise LookupError
            done = (documents[B] or {}).get("done", [])
            assert isinstance(done, list)
            refused = [Create(A, {})] if number == 3 else []
            return [Set(B, {"done": [*done, number]}), *refused], "done"

        try:
            outcomes[number] = await store.transact([A, B], decide)
        except (LookupError, WriteRefusedError) as error:
            outcomes[number] = type(error).__name__

    async with anyio.create_task_group() as tasks:
        gate = await hold_writer(store, tasks)
        for number in range(5):
            tasks.start_soon(attempt, number)
            await anyio.wait_all_tasks_blocked()
        gate.opened.set()
    assert outcomes == {0: "done", 1: "LookupError", 2: "done", 3: "WriteRefusedError", 4: "done"}
    assert await fetch(store, B) == {"done": [0, 2, 4]}
    await store.close()


async def test_a_task_cancelled_in_the_queue_withdraws_its_commit(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    async with anyio.create_task_group() as tasks:
        gate = await hold_writer(store, tasks)
        async with anyio.create_task_group() as queued:
            queued.start_soon(commit, store, Set(B, {"cancelled": True}))
            await anyio.wait_all_tasks_blocked()
            queued.cancel_scope.cancel()
        tasks.start_soon(commit, store, Set(Key("things", "c"), {}))
        await anyio.wait_all_tasks_blocked()
        gate.opened.set()
    assert [found.key.id for found in await store.query("things")] == ["a", "c"]
    await store.close()


async def test_a_task_cancelled_in_its_decide_loses_only_the_answer(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    async with anyio.create_task_group() as tasks:
        gate = await hold_writer(store, tasks)
        tasks.cancel_scope.cancel()
    gate.opened.set()
    await commit(store, Set(B, {}))
    assert await fetch(store, A) == {"gate": True}
    await store.close()


async def test_close_finishes_what_was_asked_before_it(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    async with anyio.create_task_group() as tasks:
        gate = await hold_writer(store, tasks)
        tasks.start_soon(commit, store, Set(B, {"queued": True}))
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(store.close)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(StoreUnavailableError):
            await commit(store, Set(B, {"late": True}))
        gate.opened.set()
    again = await SqliteStore.open(tmp_path / "store.db")
    assert await fetch(again, B) == {"queued": True}
    await again.close()


async def test_reads_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    await commit(store, Set(B, {"n": 1}))
    async with anyio.create_task_group() as tasks:
        gate = await hold_writer(store, tasks)
        assert await fetch(store, B) == {"n": 1}
        assert [found.key for found in await store.query("things")] == [B]
        gate.opened.set()
    await store.close()


def test_a_store_may_be_used_from_one_event_loop_after_another(tmp_path: Path) -> None:
    async def use(store: SqliteStore, number: int) -> None:
        await commit(store, Set(A, {"n": number}))
        assert await fetch(store, A) == {"n": number}

    store = asyncio.run(SqliteStore.open(tmp_path / "store.db"))
    asyncio.run(use(store, 1))
    asyncio.run(use(store, 2))
    asyncio.run(store.close())


FULL = apsw.FullError("database or disk is full")
SYNC = apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
WRITE = apsw.exception_for(apsw.SQLITE_IOERR_WRITE)


@pytest.mark.parametrize("error", [FULL, WRITE], ids=["full", "unwritable"])
async def test_a_disk_that_takes_no_more_writes_nothing_and_says_so(
    tmp_path: Path, disk: Disk, error: Exception
) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    await commit(store, Set(A, {"n": 1}))
    disk.write_error = error
    with pytest.raises(StoreUnavailableError) as raised:
        await commit(store, Set(A, {"n": 2}), Set(B, {}))
    assert raised.value.remedy
    disk.write_error = None
    assert await store.get_many([A, B]) == {A: {"n": 1}, B: None}
    await commit(store, Set(A, {"n": 3}))
    assert await fetch(store, A) == {"n": 3}
    await store.close()


async def test_a_sync_that_fails_leaves_the_commit_uncertain(tmp_path: Path, disk: Disk) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    await commit(store, Set(A, {"n": 1}))
    disk.sync_error = SYNC
    with pytest.raises(CommitUncertainError):
        await commit(store, Set(A, {"n": 2}))
    disk.sync_error = None
    await commit(store, Set(A, {"n": 3}))
    assert await fetch(store, A) == {"n": 3}
    await store.close()


async def test_when_a_commit_fails_so_does_every_answer_that_may_rest_on_it(tmp_path: Path, disk: Disk) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    errors: list[StoreError] = []

    def first(documents: Documents, now_ms: int) -> tuple[list[Write], None]:
        disk.write_error = FULL
        return [Create(B, {})], None

    async def attempt(decide: Decide[None]) -> None:
        try:
            await store.transact([B], decide)
        except StoreError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        gate = await hold_writer(store, tasks)
        for decide in (first, lambda *_: ([Create(B, {})], None), lambda *_: ([], None)):
            tasks.start_soon(attempt, decide)
            await anyio.wait_all_tasks_blocked()
        gate.opened.set()
    assert [type(error) for error in errors] == [StoreUnavailableError] * 3
    assert len({id(error) for error in errors}) == 3
    disk.write_error = None
    assert await store.get_many([A, B]) == {A: {"gate": True}, B: None}
    await store.close()


async def test_a_foreign_lock_on_the_file_is_an_outage_and_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_MS", 1)
    store = await SqliteStore.open(tmp_path / "store.db")
    foreign = apsw.Connection(str(tmp_path / "store.db"))
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError):
        await commit(store, Set(A, {}))
    assert await fetch(store, A) is None
    foreign.execute("ROLLBACK")
    foreign.close()
    await commit(store, Set(A, {}))
    assert await fetch(store, A) == {}
    await store.close()


async def test_a_file_that_has_gone_is_an_outage_and_not_a_new_store(tmp_path: Path, disk: Disk) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    await commit(store, Set(A, {}))
    disk.write_error = FULL
    with pytest.raises(StoreUnavailableError):
        await commit(store, Set(A, {"n": 1}))
    disk.write_error = None
    for path in tmp_path.iterdir():  # noqa: ASYNC240 - a test waits for nothing else
        path.unlink()
    with pytest.raises(StoreUnavailableError):
        await commit(store, Set(A, {"n": 1}))
    assert not (tmp_path / "store.db").exists()
    await store.close()


async def test_the_log_is_moved_into_the_database_and_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "CHECKPOINT_PAGES", 20)
    store = await SqliteStore.open(tmp_path / "store.db")
    for number in range(300):
        await commit(store, Set(A, {"n": number}))
    pages = (tmp_path / "store.db-wal").stat().st_size // 4096
    await store.close()
    assert pages < 60


def wait_until_somebody_stands_in_the_turnstile(path: str) -> None:
    with Path(f"{path}-turn").open() as turnstile:
        while True:
            try:
                fcntl.flock(turnstile, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(turnstile, fcntl.LOCK_UN)


def test_who_puts_the_pen_down_lets_the_next_in_line_write_first(tmp_path: Path) -> None:
    path, order = str(tmp_path / "store.db"), []
    mine, theirs = Turn(path), Turn(path)
    mine.take()

    def wait_in_line() -> None:
        theirs.take()
        order.append("theirs")
        theirs.give()

    waiting = threading.Thread(target=wait_in_line)
    waiting.start()
    wait_until_somebody_stands_in_the_turnstile(path)
    mine.give()
    mine.take()
    order.append("mine")
    mine.give()
    waiting.join()
    assert order == ["theirs", "mine"]
    mine.close()
    theirs.close()


async def test_close_does_not_wait_for_ever_for_a_process_that_was_stopped_in_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_lane, "CLOSE_S_MAX", 0.01)
    store = await SqliteStore.open(tmp_path / "store.db")
    stopped = Turn(str(tmp_path / "store.db"))
    stopped.take()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(commit, store, Set(A, {}))
        await anyio.to_thread.run_sync(wait_until_somebody_stands_in_the_turnstile, str(tmp_path / "store.db"))
        tasks.cancel_scope.cancel()
    with pytest.raises(StoreUnavailableError, match="stopped"):
        await store.close()
    stopped.give()
    await store.close()
    stopped.close()
