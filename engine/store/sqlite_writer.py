"""The writer: what arrives together is committed together, so that many runs share one sync of the disk.

In: a batch of transacts. Out: each one's result or error. A batch is one SQLite transaction over a small picture
of the documents that its decides asked for: each decide sees what the ones before it in the batch left, and its
writes join the picture only if all of them hold. One that raises therefore leaves nothing behind, and its
neighbours go on. When all have decided, what changed goes to the file, and COMMIT is the batch's only sync.

If the commit fails, so does the whole batch: every answer in it may rest on another's writes. The connection is
then let go of, and the next batch opens it afresh.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import apsw

from engine.core.write import Key
from engine.errors import StoreError
from engine.store.port import Decide, document_of, settle
from engine.store.sqlite_file import OpenFile, commit_failure, let_go, outage, reconnect
from engine.store.sqlite_lane import Asked

CHECKPOINT_PAGES: Final = 4_000
"""Pages in the log (16 MB) before they move to the database. SQLite's 1,000 would add a sync for every hundred
commits; this adds one for every four hundred, and it keeps the others waiting for some 20 ms."""

_READ: Final = "SELECT body FROM document WHERE collection = ? AND id = ?"
_DELETE: Final = "DELETE FROM document WHERE collection = ? AND id = ?"
_WRITE: Final = """INSERT INTO document (collection, id, body) VALUES (?, ?, ?)
    ON CONFLICT (collection, id) DO UPDATE SET body = excluded.body"""


class Transact(NamedTuple):
    """One call of the port's verb."""

    keys: Sequence[Key]
    decide: Decide[Any]


class Writer:
    """Works on the writer lane's thread; see the module."""

    def __init__(self, file: OpenFile, now_ms: Callable[[], int]) -> None:
        self._path = file.path
        self._turn = file.turn
        self._now_ms = now_ms
        self._log_pages = 0
        self._log_pages_max = CHECKPOINT_PAGES
        self._connection: apsw.Connection | None = None
        self._hold(file.connection)

    def work(self, batch: list[Asked[Transact]]) -> None:
        """Decide and commit a batch."""
        meaning: Callable[[Exception], StoreError] = outage
        try:
            self._turn.take()
            try:
                if self._connection is None:
                    self._hold(reconnect(self._path))
                self._execute("BEGIN IMMEDIATE")
                changed = self._decide_all(batch)
                self._write(changed)
                meaning = commit_failure if changed else outage
                self._execute("COMMIT")
            finally:
                self._turn.give()
        except (apsw.Error, OSError) as error:
            self.close()
            for asked in batch:
                asked.error = meaning(error)
        except BaseException:
            self.close()
            raise

    def rest(self) -> None:
        """After the answers are out: keep the log short. In the writers' turn, or others would outrun it."""
        if self._log_pages < self._log_pages_max or self._connection is None:
            return
        try:
            self._turn.take()
            try:
                in_log, moved = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            finally:
                self._turn.give()
        except (apsw.Error, OSError):
            self.close()  # nothing is lost: the log holds every commit, and the next batch meets the cause
            return
        # A long read holds pages back; asking again after every commit would not free them.
        self._log_pages_max = CHECKPOINT_PAGES + (in_log if moved < in_log else 0)
        self._log_pages = 0

    def close(self) -> None:
        """Let go of the connection; an open transaction is rolled back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            let_go(connection)

    def _hold(self, connection: apsw.Connection) -> None:
        connection.set_wal_hook(self._note_log)
        self._connection = connection
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    def _note_log(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _decide_all(self, batch: list[Asked[Transact]]) -> dict[Key, str | None]:
        """The documents that the batch changes, as texts; answers and errors go to who asked."""
        picture: dict[Key, str | None] = {}
        changed: dict[Key, str | None] = {}
        for asked in batch:
            keys, decide = asked.question
            seen: dict[Key, str | None] = {}
            try:
                for key in keys:
                    if key not in picture:
                        row = self._execute(_READ, key).fetchone()
                        picture[key] = None if row is None else row[0]
                    seen[key] = picture[key]
                documents = {key: None if text is None else document_of(text) for key, text in seen.items()}
                writes, asked.answer = decide(documents, self._now_ms())
                after = settle(seen, writes)
            except apsw.Error:
                raise  # the file, and so the whole batch
            except BaseException as error:  # a decide may raise what it likes, a key may be none; it goes to who asked
                asked.error = error
                continue
            for key, text in after.items():
                if text != seen[key]:
                    picture[key] = changed[key] = text
        return changed

    def _write(self, changed: dict[Key, str | None]) -> None:
        for (collection, id_), text in changed.items():
            if text is None:
                self._execute(_DELETE, (collection, id_))
            else:
                self._execute(_WRITE, (collection, id_, text))
