"""The writers' turn: one process at a time, and none waits long while others write in a tight loop.

SQLite lets a process that has just committed begin again before those who sleep on its lock have woken: with
four writers the unlucky one waited for a second. Here a writer first takes its place in the turnstile, then the
pen; whoever puts the pen down has to go through the turnstile again, and the next in line is standing in it.

Both are `flock`s on files beside the database, so the kernel takes them back from a process that dies; one
that is stopped in the middle of a commit stops the others until it goes on, as SQLite's own lock would.
They make the order fair, not safe: safety is SQLite's lock, which every commit takes as well.

Changing the writer with every commit is fair and slow: each time a process wakes to a cold cache. So one commits in
bursts: the turnstile's file says who wrote last, since when, and until when. Who will not wait for the turn leaves it
to a burst that goes on, for `BURST_NS` from its beginning and as long as there is no lull; who waits in line heeds no
burst. Nobody has to end one, so nothing is held by a process that thinks, dies or is stopped between two commits.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable
from typing import Final

BURST_NS: Final = 6_000_000
"""How long one process may go on before the others: some twenty quick commits, three short runs."""

LULL_NS: Final = 500_000
"""A writer that has not committed for so long has ended its burst: some three times what a run takes between two."""

_BURST: Final = struct.Struct("=QQQ")
"""Who, since when, until when. It is courtesy, not safety: whatever stands there, a burst is soon over."""


class Turn:
    """Take with `take`, put down with `give`; one thread at a time. Each may raise `OSError`.

    `now_ns` is one clock for all processes of the machine.
    """

    def __init__(self, path: str, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._now_ns = now_ns
        self._me = int.from_bytes(os.urandom(8), "little")
        self._turnstile = _open(f"{path}-turn")
        try:
            self._burst = _shared(self._turnstile)
            self._pen = _open(f"{path}-pen")
        except OSError:
            os.close(self._turnstile)
            raise

    def take(self, *, waits: bool = True) -> bool:
        """Wait for the turn; without `waits` take it only if it can be had at once and no other's burst goes on.

        Answers whether it was taken.
        """
        if not waits and self._is_anothers_burst():
            return False
        mode = fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB
        try:
            fcntl.flock(self._turnstile, mode)
            try:
                fcntl.flock(self._pen, mode)
            finally:
                fcntl.flock(self._turnstile, fcntl.LOCK_UN)
        except BlockingIOError:
            return False
        return True

    def give(self) -> None:
        """Let the next one write."""
        now = self._now_ns()
        who, since, until = _BURST.unpack_from(self._burst)
        if who != self._me or now - until > LULL_NS:
            since = now
        _BURST.pack_into(self._burst, 0, self._me, since, now)
        fcntl.flock(self._pen, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the files. They stay: another process may be waiting on them."""
        self._burst.close()
        os.close(self._pen)
        os.close(self._turnstile)

    def _is_anothers_burst(self) -> bool:
        who, since, until = _BURST.unpack_from(self._burst)
        if who == self._me:
            return False
        now = self._now_ns()  # a time that lies ahead is of another boot
        goes_on: bool = 0 <= now - until < LULL_NS and 0 <= now - since < BURST_NS
        return goes_on


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _shared(file: int) -> mmap.mmap:
    if os.fstat(file).st_size < _BURST.size:
        os.pwrite(file, bytes(_BURST.size), 0)  # not a hole: on a full disk that would end the process when written
    return mmap.mmap(file, _BURST.size)
