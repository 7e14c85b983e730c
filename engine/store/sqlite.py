"""The store in one SQLite file: durable, shared by processes, nothing to install or run.

In: keys, writes and queries of `engine/store/port.py`. Out: what was committed; a commit is acknowledged when it
is on the disk. Beside the file lie SQLite's own `-wal` and `-shm`, and two small files for the writers' turn.

Two lanes (`sqlite_lane.py`): one thread writes, many transacts to a commit (`sqlite_writer.py`); one reads on a
connection of its own, which in a write-ahead log never waits for a writer. Commits that take less time than a thread
costs are made on the event loop (`sqlite_inline.py`), and so are reads of a few documents; nothing longer is.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import anyio
import anyio.lowlevel
import anyio.to_thread
import apsw

from engine.core.write import Document, Key
from engine.store.port import Decide, Found, Index, Order, Result, Where, document_of, unreadable
from engine.store.sqlite_file import OpenFile, facets_of, let_go, outage, prepare, reconnect
from engine.store.sqlite_inline import Inline, locked
from engine.store.sqlite_lane import Asked, Lane
from engine.store.sqlite_query import run_query
from engine.store.sqlite_writer import Transact, Writer

GLANCE_MAX: Final = 8
"""Documents that are read on the event loop itself: some 10 us each, a tenth of what a thread costs."""

Question: TypeAlias = Callable[[apsw.Connection], Any]

_READ: Final = "SELECT body FROM document WHERE collection = ? AND id = ?"


class SqliteStore:
    """A `Store` in a file; see the module. Made by `open`."""

    def __init__(self, file: OpenFile, now_ms: Callable[[], int]) -> None:
        self._turn = file.turn
        self._writer = Writer(file, now_ms)
        self._reader = _Reader(file.path)
        self._glance = _Reader(file.path)
        writing = threading.Lock()
        self._writes: Lane[Transact] = Lane(
            "detent-sqlite-writer", locked(writing, self._writer.work), locked(writing, self._writer.rest)
        )
        self._inline = Inline(self._writer, self._writes, writing)
        self._reads: Lane[Question] = Lane("detent-sqlite-reader", self._reader.work)
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        indexes: Sequence[Index] = (),
        now_ms: Callable[[], int] | None = None,
    ) -> SqliteStore:
        """Open the file at `path`, making it, its folder and `indexes` where they are missing.

        `now_ms` answers milliseconds since 1970 (default: the system's clock). Raises `ConfigurationError`
        for a place that cannot be written, a file that is no database of ours, or one of a newer release;
        `StoreDamagedError`.
        """
        file = await anyio.to_thread.run_sync(prepare, path, indexes)
        return cls(file, now_ms or _system_now_ms)

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Document | None]:
        found: dict[Key, Document | None]
        if len(keys) <= GLANCE_MAX and not self._closed and self._writer.is_quick:
            await anyio.lowlevel.checkpoint()
            asked: Asked[Question] = Asked(lambda connection: _get_many(connection, keys), asyncio.get_running_loop())
            self._glance.work([asked])
            found = asked.answered()
        else:
            found = await self._reads.ask(lambda connection: _get_many(connection, keys))
        return found

    async def transact(self, keys: Sequence[Key], decide: Decide[Result]) -> Result:
        question = Transact(keys, decide)
        if self._writer.is_quick and not self._closed:
            result: Result = await self._inline.ask(question)
        else:
            result = await self._writes.ask(question)
        return result

    async def query(
        self, collection: str, where: Sequence[Where] = (), order_by: Sequence[Order] = (), limit: int | None = None
    ) -> list[Found]:
        found: list[Found] = await self._reads.ask(
            lambda connection: run_query(connection, collection, where, order_by, limit, facets_of(connection))
        )
        return found

    async def close(self) -> None:
        closed, self._closed = self._closed, True
        await self._inline.finish()
        await self._reads.close()
        await self._writes.close()
        if not closed:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._let_go)

    def _let_go(self) -> None:
        self._reader.close()
        self._glance.close()
        self._writer.close()  # the last connection moves the log into the database
        self._turn.close()


class _Reader:
    """A connection for reading, used by one thread at a time: each question is a function of it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: apsw.Connection | None = None

    def work(self, batch: Sequence[Asked[Question]]) -> None:
        for asked in batch:
            try:
                if self._connection is None:
                    self._connection = reconnect(self._path)
                asked.answer = asked.question(self._connection)
            except apsw.Error as error:
                self.close()
                asked.error = outage(error, self._path)
            except BaseException as error:  # goes to who asked
                asked.error = error

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            let_go(connection)


def _get_many(connection: apsw.Connection, keys: Sequence[Key]) -> dict[Key, Document | None]:
    found: dict[Key, Document | None] = {}
    for key in keys:
        try:
            row = connection.execute(_READ, key).fetchone()
            found[key] = None if row is None else document_of(row[0])
        except UnicodeEncodeError:
            raise  # the key's
        except ValueError as error:
            raise unreadable(key, error) from None
    return found


def _system_now_ms() -> int:
    return time.time_ns() // 1_000_000
