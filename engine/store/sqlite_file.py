"""The database file: opening it as we need it, its one table and its indexes, and what its errors mean.

In: a path. Out: connections that are ready for use. Documents are rows of (collection, id, canonical JSON, facets);
the table keeps its rowid, because bodies of a kilobyte and more are slower inside a key's own tree.

`facets` holds once more the fields that an index serves, and the indexes are on it: a commit that changes other fields
leaves the column alone, and so every index. Indexes on the body itself made each commit write twice as many pages.

Write-ahead log, `synchronous=FULL`: a commit that was acknowledged survives a power cut. SQLite never checkpoints
by itself here; the writer does, see `sqlite_writer.py`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import apsw

from engine.core import canonical
from engine.core.canonical import Json
from engine.errors import (
    CommitUncertainError,
    ConfigurationError,
    StoreDamagedError,
    StoreError,
    StoreUnavailableError,
)
from engine.store.port import Index, document_of
from engine.store.sqlite_turn import Turn

SCHEMA_VERSION: Final = 2
"""`PRAGMA user_version` of the files that this release writes."""

BUSY_MS: Final = 5_000
"""How long SQLite itself waits for a lock: only for programs that do not take the writers' turn."""

_TABLE: Final = """CREATE TABLE document (
    collection TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, facets TEXT, PRIMARY KEY (collection, id)
) STRICT"""

_FACETS: Final = "CREATE TABLE facet (collection TEXT NOT NULL, field TEXT NOT NULL, UNIQUE (collection, field)) STRICT"
"""Which fields of which collection are facets: every process that writes must keep them, also for others' indexes."""

_SIZE: Final = "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('document', ?, ?)"
"""Sizes that we tell SQLite's planner instead of letting it measure: it then takes an index of `indexes` for every
query that one serves, on the first document as on the hundred thousandth."""

_KEY_INDEX: Final = "sqlite_autoindex_document_1"
_SIZE_OF_COLLECTIONS: Final = "1000000 100000 1"
"""Documents; documents of one collection; documents of one id."""

_REMEDY: Final = "Name a file in a folder that this user may write: sqlite:///PATH."
_OTHER_OR_COPY: Final = "Name another file: sqlite:///PATH. If it was a store, restore a copy of it."

_DAMAGE: Final = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError)
_DAMAGE_CODES: Final = (apsw.SQLITE_IOERR_CORRUPTFS, apsw.SQLITE_IOERR_DATA)
"""Errors of reading that are no outage; they look like a disk's own."""


class OpenFile(NamedTuple):
    """A file that is ready for use; `path` is absolute."""

    path: str
    connection: apsw.Connection
    turn: Turn


def prepare(path: str | os.PathLike[str], indexes: Sequence[Index]) -> OpenFile:
    """Make what is missing (folder, file, table, indexes) and open.

    Raises `ConfigurationError`, `StoreDamagedError`.
    """
    absolute = Path(path).absolute()
    name = str(absolute)
    try:
        absolute.parent.mkdir(parents=True, exist_ok=True)
        turn = Turn(name)
    except OSError as error:
        raise _unusable(name, f"its folder cannot be written ({error.strerror})") from error
    try:
        turn.take()  # two processes that turn a fresh file into a write-ahead log at once would collide
        connection = connect(name)
        try:
            _bring_up(connection, name, indexes)
        except BaseException:
            let_go(connection)
            raise
        turn.give()
    except BaseException as error:
        turn.close()
        if isinstance(error, apsw.NotADBError):
            raise _unusable(name, "it is no SQLite database, or its beginning is damaged", _OTHER_OR_COPY) from error
        if _is_damage(error):
            raise damaged(error, name) from error
        if isinstance(error, (apsw.Error, OSError)):
            raise _unusable(name, said(error)) from error
        raise
    return OpenFile(name, connection, turn)


def connect(path: str) -> apsw.Connection:
    """A connection with the pragmas that hold for it alone. Raises `apsw.Error`."""
    connection = apsw.Connection(path)
    try:
        connection.set_busy_timeout(BUSY_MS)
        if connection.pragma("journal_mode", "wal") != "wal":
            raise apsw.CantOpenError("its file system cannot share a write-ahead log")
        connection.pragma("synchronous", "full")
        connection.pragma("wal_autocheckpoint", 0)
    except apsw.Error:
        let_go(connection)
        raise
    return connection


def reconnect(path: str) -> apsw.Connection:
    """As `connect`, for a file that was there before: one that has gone is an outage, not a new store."""
    if not Path(path).exists():
        raise apsw.CantOpenError("the file has gone")
    return connect(path)


def let_go(connection: apsw.Connection) -> None:
    """Close a connection; an open transaction is rolled back.

    The last one on a file moves the log into the database. If it cannot, the log stays, and holds every commit.
    """
    with contextlib.suppress(apsw.Error):
        connection.close(True)


def outage(error: Exception, path: str) -> StoreError:
    """What an error means when nothing was written: damage stays, anything else is waited out."""
    if _is_damage(error):
        return damaged(error, path)
    return StoreUnavailableError(
        f"the SQLite store cannot be used now: {said(error)}.",
        remedy="Nothing was written. Free space, or let go of the file, and try again.",
    )


def damaged(error: BaseException, path: str) -> StoreDamagedError:
    """The error for a file whose pages do not fit together any more."""
    return StoreDamagedError(
        f"the SQLite file {path} is damaged: {said(error)}.",
        remedy="Nothing was written. Stop what uses the file and restore a copy of it, or save what can still be read: "
        f"sqlite3 {shlex.quote(path)} .recover | sqlite3 NEW_FILE (sqlite.org's shell; some systems' cannot).",
    )


def _is_damage(error: BaseException) -> bool:
    """Whether it would come again, whatever space or lock is made free."""
    return isinstance(error, _DAMAGE) or getattr(error, "extendedresult", 0) in _DAMAGE_CODES


def commit_failure(error: Exception, path: str) -> StoreError:
    """What an error of COMMIT itself means.

    A frame that could not be written leaves the commit without its end, so it never happened. A sync that failed
    leaves all frames in place and says nothing about the disk: the next reader may find the commit, or not.
    """
    code = getattr(error, "extendedresult", 0)
    if isinstance(error, apsw.IOError) and code != apsw.SQLITE_IOERR_WRITE:
        return CommitUncertainError(
            f"SQLite could not say whether a commit was applied: {said(error)}.",
            remedy="Read the document again to know.",
        )
    return outage(error, path)


Facets: TypeAlias = Mapping[str, tuple[str, ...]]
"""The fields of each collection that are kept beside the body."""


def facets_of(connection: apsw.Connection) -> Facets:
    """What the file says. Raises `apsw.Error`."""
    found: dict[str, tuple[str, ...]] = {}
    for collection, field in connection.execute("SELECT collection, field FROM facet ORDER BY collection, field"):
        found[collection] = (*found.get(collection, ()), field)
    return found


def facets_text(facets: Mapping[str, Json] | None) -> str | None:
    """What the column holds."""
    return None if facets is None else canonical.encode_plain(facets)


def field_expression(field: str, *, is_facet: bool = False) -> str:
    """The SQL of one top-level field; an index serves a query only if both say it in the same words."""
    return f"json_extract({'facets' if is_facet else 'body'}, {quoted(_json_path(field))})"


def has_field(field: str, *, is_facet: bool = False) -> str:
    """The SQL of "the document has this field", null included."""
    return f"json_type({'facets' if is_facet else 'body'}, {quoted(_json_path(field))}) IS NOT NULL"


def is_plain(field: str) -> bool:
    """Whether a JSON path can name the field without escapes, about which SQLite's releases differ."""
    return bool(field) and not any(character in '"\\' or character < " " for character in field)


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _json_path(field: str) -> str:
    return f'$."{field}"'


def _bring_up(connection: apsw.Connection, path: str, indexes: Sequence[Index]) -> None:
    connection.execute("BEGIN IMMEDIATE")  # a file that cannot be written shows here
    try:
        version = connection.pragma("user_version")
        known = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}
        if version > SCHEMA_VERSION:
            raise ConfigurationError(
                "DETENT_STORE",
                f"{path} was written by a newer release (schema {version}; this one knows {SCHEMA_VERSION}).",
                remedy="Update detent, or name another file.",
            )
        if version == 0 and known:
            raise ConfigurationError("DETENT_STORE", f"{path} is another program's database.", remedy=_REMEDY)
        if version == 0:
            connection.execute(_TABLE)
            connection.execute(_FACETS)
            connection.execute("ANALYZE")  # makes the table of sizes
            connection.execute(_SIZE, (_KEY_INDEX, _SIZE_OF_COLLECTIONS))
        elif version == 1:
            _add_facets(connection)
            known = set()
        if version != SCHEMA_VERSION:  # also the same number again would be a commit, and a sync at each start
            connection.pragma("user_version", SCHEMA_VERSION)
        _keep_facets(connection, indexes)
        for index in indexes:
            if _index_sql(index) not in known:
                connection.execute(_index_sql(index))
                connection.execute(_SIZE, (_index_name(index), _index_size(index)))
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _add_facets(connection: apsw.Connection) -> None:
    """A file of schema 1 had its indexes on the body."""
    names = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    for (name,) in connection.execute(names).fetchall():
        assert isinstance(name, str)
        connection.execute(f"DROP INDEX {_quoted_name(name)}")
        connection.execute("DELETE FROM sqlite_stat1 WHERE idx = ?", (name,))
    connection.execute("ALTER TABLE document ADD COLUMN facets TEXT")
    connection.execute(_FACETS)


def _keep_facets(connection: apsw.Connection, indexes: Sequence[Index]) -> None:
    """Make every field of `indexes` a facet, also of the documents that are there."""
    before = facets_of(connection)
    for collection, field in {(index.collection, field) for index in indexes for field in index.fields}:
        connection.execute("INSERT OR IGNORE INTO facet VALUES (?, ?)", (collection, field))
    for collection, fields in facets_of(connection).items():
        if fields == before.get(collection):
            continue
        rows = connection.execute("SELECT rowid, body FROM document WHERE collection = ?", (collection,)).fetchall()
        for rowid, body in rows:
            document = document_of(str(body))
            text = facets_text({field: document[field] for field in fields if field in document})
            connection.execute("UPDATE document SET facets = ? WHERE rowid = ?", (text, rowid))


def _index_name(index: Index) -> str:
    return f"{index.collection}({','.join(index.fields)})"


def _index_sql(index: Index) -> str:
    terms = ", ".join([*(field_expression(field, is_facet=True) for field in index.fields), "id"])
    name = _quoted_name(_index_name(index))
    return f"CREATE INDEX {name} ON document ({terms}) WHERE collection = {quoted(index.collection)}"


def _index_size(index: Index) -> str:
    """Documents; those equal in the first field, in the first two, and so on."""
    return " ".join(["100000", "1000", *["10"] * (len(index.fields) - 1), "1"])


def _quoted_name(text: str) -> str:
    """A text as an SQL name."""
    return '"' + text.replace('"', '""') + '"'


def _unusable(path: str, problem: str, remedy: str = _REMEDY) -> ConfigurationError:
    return ConfigurationError("DETENT_STORE", f"{path} cannot be used as a store: {problem}.", remedy=remedy)


def said(error: BaseException) -> str:
    """The error's own words, fit for the middle of a sentence."""
    return str(error).rstrip(".") or type(error).__name__
