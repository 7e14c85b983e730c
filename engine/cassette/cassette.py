"""One vcrpy file: looked up by key, merged and replaced as a whole.

In: `Asked` and `Reply`. Out: the reply that was recorded for the same request, any number of times.
One interaction is kept for each request: a success replaces whatever is there, a permanent error replaces
errors, and a transient error is written only where nothing is. Entries are sorted by key, so that a
recording in any order gives the same text. Before writing, the file is read again under a lock that other
processes respect. A file that cannot be read is an error with a place, and is never overwritten.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from engine.cassette.disk import locked, write_whole
from engine.cassette.interaction import (
    VARIABLE,
    Asked,
    Key,
    Recorded,
    Reply,
    interactions_in,
    key_of,
    recorded,
    text_of,
)
from engine.errors import ConfigurationError


class Rank(IntEnum):
    """What a reply is worth keeping. A new one replaces an old one of the same rank or below."""

    TRANSIENT = 0
    PERMANENT = 1
    SUCCESS = 2


_Stamp: TypeAlias = tuple[int, int, int] | None


class _Content(NamedTuple):
    """A file as it was read: `stamp` tells whether it still is the same one; None is an absent file."""

    stamp: _Stamp
    entries: Mapping[Key, Recorded]
    metadata: Mapping[str, Any] | None


class Cassette:
    """The recording in the file `path`. Blocking; safe to use from any number of threads and processes.

    `rank` judges a reply, also those that others have recorded.
    """

    def __init__(self, path: Path, rank: Callable[[Reply], Rank]) -> None:
        self._path = path
        self._rank = rank
        self._content: _Content | None = None
        self._reading = threading.Lock()
        self._pending: list[tuple[Recorded, Future[bool]]] = []
        self._queueing = threading.Lock()

    def check(self) -> None:
        """Read the file if it has changed. Raises `ConfigurationError` when it cannot be used."""
        self._read()

    def find(self, asked: Asked) -> Reply | None:
        """The reply that is recorded for `asked`. Raises `ConfigurationError` when the file cannot be used."""
        entry = self._read().entries.get(key_of(*asked))
        return None if entry is None else entry.reply()

    def record(self, asked: Asked, reply: Reply) -> bool:
        """Keep `reply`, which holds no secret, for `asked`; whether it was worth it (see the module).

        What several threads record at once is written together. Raises `ConfigurationError` when the file
        cannot be read, and `OSError` when it cannot be written.
        """
        done: Future[bool] = Future()
        with self._queueing:
            self._pending.append((recorded(asked, reply), done))
        try:
            with locked(self._path.parent):
                self._write_pending()
        except OSError as error:
            self._fail_pending(error)
        return done.result()

    def _write_pending(self) -> None:
        """Write what this thread and those waiting behind it have recorded; nothing if another thread has."""
        with self._queueing:
            batch, self._pending = self._pending, []
        if not batch:
            return
        try:
            results = self._merge([entry for entry, _ in batch])
        except Exception as error:  # every thread of the batch must hear of it, and none may wait for ever
            for _, done in batch:
                done.set_exception(error)
            return
        for (_, done), is_kept in zip(batch, results, strict=True):
            done.set_result(is_kept)

    def _fail_pending(self, error: OSError) -> None:
        with self._queueing:
            batch, self._pending = self._pending, []
        for _, done in batch:
            done.set_exception(error)

    def _merge(self, new: list[Recorded]) -> list[bool]:
        content = self._read()
        entries = dict(content.entries)
        results = [self._put(entries, entry) for entry in new]
        if any(results):
            ordered = {key: entries[key] for key in sorted(entries)}
            write_whole(self._path, text_of(list(ordered.values()), content.metadata).encode())
            with self._reading:
                self._content = _Content(self._stamp(), ordered, content.metadata)
        return results

    def _put(self, entries: dict[Key, Recorded], entry: Recorded) -> bool:
        known = entries.get(entry.key)
        if known is not None:
            rank = self._rank(entry.reply())
            if rank is Rank.TRANSIENT or rank < self._rank(known.reply()):
                return False
        entries[entry.key] = entry
        return True

    def _read(self) -> _Content:
        with self._reading:
            stamp = self._stamp()
            if self._content is None or self._content.stamp != stamp:
                entries, metadata = interactions_in(self._text()) if stamp else ([], None)
                self._content = _Content(stamp, self._best_of(entries), metadata)
            return self._content

    def _best_of(self, entries: list[Recorded]) -> Mapping[Key, Recorded]:
        """One interaction for each request. Others' cassettes may hold several: the first of the best is kept."""
        best: dict[Key, Recorded] = {}
        for entry in entries:
            known = best.get(entry.key)
            if known is None or self._rank(entry.reply()) > self._rank(known.reply()):
                best[entry.key] = entry
        return best

    def _text(self) -> str:
        try:
            return self._path.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise ConfigurationError(VARIABLE, f"the file is no text: byte {error.start + 1} is not UTF-8.") from None
        except OSError as error:
            raise ConfigurationError(VARIABLE, f"the file cannot be read ({type(error).__name__}).") from None

    def _stamp(self) -> _Stamp:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(VARIABLE, f"the file cannot be reached ({type(error).__name__}).") from None
        return (found.st_mtime_ns, found.st_size, found.st_ino)
