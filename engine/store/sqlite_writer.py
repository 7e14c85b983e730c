"""The writer: what arrives together is committed together, so that many runs share one sync of the disk.

In: a batch of transacts. Out: each one's result or error. A batch is one SQLite transaction over a small picture
of the documents that its decides asked for: each decide sees what the ones before it in the batch left, and its
writes join the picture only if all of them hold. One that raises therefore leaves nothing behind, and its
neighbours go on. When all have decided, what changed goes to the file, and COMMIT is the batch's only sync.

The picture is kept from batch to batch as long as nobody else has written to the file, which SQLite tells, so that
the next step of a run need not read again what its last one wrote.

If the commit fails, so does the whole batch: every answer in it may rest on another's writes. The connection is
then let go of, and the next batch opens it afresh.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import apsw

from engine.core import canonical
from engine.core.canonical import Json
from engine.core.write import Document, Key
from engine.errors import StoreError
from engine.store.port import Decide, document_of, reading_failure, settle
from engine.store.sqlite_file import OpenFile, commit_failure, facets_of, facets_text, let_go, outage, reconnect
from engine.store.sqlite_lane import Asked

CHECKPOINT_PAGES: Final = 4_000
"""Pages in the log (16 MB) before they move to the database. SQLite's 1,000 would add a sync for every hundred
commits; this adds one for every four hundred, and it keeps the others waiting for some 20 ms."""

PICTURE_MAX: Final = 2_000
"""Documents kept from batch to batch: some hundred runs in flight, a few megabytes."""

QUICK_S: Final = 0.002
"""A commit that takes less than this, as a moving average, is quick: see `sqlite_inline.py`."""

QUICK_AFTER: Final = 16
"""Commits that are measured before any is called quick."""

MEASURED: Final = 16
"""Commits of which the moving average is."""

_SCALARS: Final = frozenset((str, int, bool, type(None)))
"""Types whose values a facet is as they stand."""

_READ: Final = "SELECT body, facets FROM document WHERE collection = ? AND id = ?"
_DELETE: Final = "DELETE FROM document WHERE collection = ? AND id = ?"
_INSERT: Final = "INSERT INTO document (collection, id, body, facets) VALUES (?, ?, ?, ?)"
_UPDATE: Final = "UPDATE document SET body = ?, facets = ? WHERE collection = ? AND id = ?"
_UPDATE_BODY: Final = "UPDATE document SET body = ? WHERE collection = ? AND id = ?"


class Transact(NamedTuple):
    """One call of the port's verb."""

    keys: Sequence[Key]
    decide: Decide[Any]


class Row(NamedTuple):
    """A document as the file holds it; no body is no document, no facets are those of a collection without any."""

    body: str | None
    facets: Mapping[str, Json] | None


NO_ROW: Final = Row(None, None)


class Writer:
    """Works for one caller at a time, on whichever thread; see the module."""

    def __init__(self, file: OpenFile, now_ms: Callable[[], int]) -> None:
        self._path = file.path
        self._turn = file.turn
        self._now_ms = now_ms
        self._log_pages = 0
        self._log_pages_max = CHECKPOINT_PAGES
        self._connection: apsw.Connection | None = None
        self._picture: dict[Key, Row] = {}
        self._commits = 0
        self._commit_s = 0.0
        self._file_version: int | None = None  # as our own last commit left it
        self._hold(file.connection)

    @property
    def is_quick(self) -> bool:
        """Whether the next commit takes so little time that handing it to another thread would cost more."""
        return self._commits >= QUICK_AFTER and self._commit_s < QUICK_S and self._log_pages < self._log_pages_max

    def work(self, batch: Sequence[Asked[Transact]], *, waits: bool = True) -> bool:
        """Decide and commit a batch, in the writers' turn; answers whether it had it: with `waits` it always has."""
        meaning: Callable[[Exception, str], StoreError] = outage
        try:
            if not self._turn.take(waits=waits):
                return False
            try:
                connection = self._connection or self._hold(reconnect(self._path))
                self._execute("BEGIN IMMEDIATE")
                self._look_for_others()
                changed = self._written(batch)
                meaning = commit_failure if changed else outage
                began = time.perf_counter()
                self._execute("COMMIT")
                self._measure(time.perf_counter() - began)
                self._file_version = connection.data_version()  # of memory alone: it cannot fail
            finally:
                self._turn.give()
        except (apsw.Error, OSError) as error:
            self.close()
            for asked in batch:
                asked.error = meaning(error, self._path)
        except BaseException:
            self.close()
            raise
        return True

    def _measure(self, commit_s: float) -> None:
        self._commits += 1
        self._commit_s += (commit_s - self._commit_s) / min(self._commits, MEASURED)

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
        self._picture.clear()
        if connection is not None:
            let_go(connection)

    def _hold(self, connection: apsw.Connection) -> apsw.Connection:
        connection.set_wal_hook(self._note_log)
        self._connection = connection
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute
        self._file_version = None
        self._schema_version: Any = None
        return connection

    def _look_for_others(self) -> None:
        """Forget the picture when another connection has committed since: SQLite counts commits, ours too."""
        assert self._connection is not None
        if self._connection.data_version() != self._file_version:
            self._picture.clear()
            (schema,) = self._execute("PRAGMA schema_version").fetchone() or (None,)
            if schema != self._schema_version:  # another process may have brought an index of its own
                self._facets = facets_of(self._connection)
                self._schema_version = schema
        elif len(self._picture) > PICTURE_MAX:
            self._picture.clear()

    def _note_log(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _written(self, batch: Sequence[Asked[Transact]]) -> dict[Key, Row]:
        """Decide and write a batch: each document that it changes, as it stood before.

        A document that is created need not have been read. Where there is one all the same, which is a refused write
        of one decide, SQLite's own key says so, and the whole batch decides again with every such document read.
        """
        changed = self._decide_all(batch)
        try:
            self._write(changed)
        except apsw.ConstraintError:
            self._execute("ROLLBACK")
            self._picture.clear()
            self._execute("BEGIN IMMEDIATE")
            for asked in batch:
                asked.error = None
            changed = self._decide_all(batch, reads_created=True)
            self._write(changed)
        return changed

    def _decide_all(self, batch: Sequence[Asked[Transact]], *, reads_created: bool = False) -> dict[Key, Row]:
        """Each document that the batch changes, as it stood before; answers and errors go to who asked."""
        picture = self._picture
        changed: dict[Key, Row] = {}
        for asked in batch:
            keys, decide = asked.question
            seen: dict[Key, str | None] = {}
            written: dict[Key, Document] = {}
            try:
                for key in keys:
                    seen[key] = (picture.get(key) or self._row(key)).body
                documents = {key: None if text is None else document_of(text) for key, text in seen.items()}
                writes, asked.answer = decide(documents, self._now_ms())
                for write in writes:
                    key = write.key
                    if key not in seen and (reads_created or key in picture):
                        seen[key] = (picture.get(key) or self._row(key)).body
                after = settle(seen, writes, written)
            except apsw.Error:
                raise  # the file, and so the whole batch
            except ValueError as error:
                asked.error = reading_failure(keys, seen, error)
                continue
            except BaseException as error:  # a decide may raise what it likes, a key may be none; it goes to who asked
                asked.error = error
                continue
            for key, text in after.items():
                if text != seen.get(key):
                    changed.setdefault(key, picture.get(key, NO_ROW))
                    picture[key] = Row(text, None if text is None else self._facets_in(key, written[key]))
        return changed

    def _row(self, key: Key) -> Row:
        """The document as the file holds it, from now on in the picture as well."""
        found = self._execute(_READ, key).fetchone()
        row = NO_ROW if found is None else Row(found[0], None if found[1] is None else document_of(found[1]))
        self._picture[key] = row
        return row

    def _facets_in(self, key: Key, document: Document) -> Mapping[str, Json] | None:
        fields = self._facets.get(key.collection)
        if fields is None:
            return None
        facets: dict[str, Json] = {}
        for field in fields:
            if field in document:
                value = document[field]
                # As `settle` did with the whole document: a map of another type than JSON's own would fail the batch.
                facets[field] = value if type(value) in _SCALARS else canonical.plain(value)
        return facets

    def _write(self, changed: dict[Key, Row]) -> None:
        for key, before in changed.items():
            row = self._picture[key]
            if row.body is None:
                self._execute(_DELETE, key)
            elif before.body is None:
                self._execute(_INSERT, (*key, row.body, facets_text(row.facets)))
                if row.facets is None:  # such as a journal entry: nobody asks for it soon
                    del self._picture[key]
            elif row.facets == before.facets:
                self._execute(_UPDATE_BODY, (row.body, *key))
            else:
                self._execute(_UPDATE, (row.body, facets_text(row.facets), *key))
