"""The writers' turn: one process at a time, and none waits long while others write in a tight loop.

SQLite lets a process that has just committed begin again before those who sleep on its lock have woken: with
four writers the unlucky one waited for a second. Here a writer first takes its place in the turnstile, then the
pen; whoever puts the pen down has to go through the turnstile again, and the next in line is standing in it.

Both are `flock`s on empty files beside the database, so the kernel takes them back from a process that dies; one
that is stopped in the middle of a commit stops the others until it goes on, as SQLite's own lock would.
They make the order fair, not safe: safety is SQLite's lock, which every commit takes as well.
"""

from __future__ import annotations

import fcntl
import os


class Turn:
    """Take with `take`, put down with `give`; one thread at a time. Each may raise `OSError`."""

    def __init__(self, path: str) -> None:
        self._turnstile = _open(f"{path}-turn")
        try:
            self._pen = _open(f"{path}-pen")
        except OSError:
            os.close(self._turnstile)
            raise

    def take(self, *, waits: bool = True) -> bool:
        """Wait for the turn; without `waits` take it only if it can be had at once. Answers whether it was taken."""
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
        fcntl.flock(self._pen, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the files. They stay: another process may be waiting on them."""
        os.close(self._pen)
        os.close(self._turnstile)


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
