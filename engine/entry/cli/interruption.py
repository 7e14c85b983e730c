"""What SIGTERM and Ctrl-C do to `detent`, from the first moment of its process to the last.

Until a command begins nothing is under way, and the process ends at once. Then a signal is a `KeyboardInterrupt`, but
for a worker that serves, which listens for it. When all is said the exit status stands, and a signal only hurries the
end. A program that calls `main` with arguments of its own keeps its own handlers.

Nothing is imported here that takes time: the first moment is over when this module is.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

EXIT_INTERRUPTED: Final = 130
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_Handler = Callable[[int, FrameType | None], object]


class RunsInterrupted(KeyboardInterrupt):
    """The interruption of a command that drives runs."""


class _Process:
    """What this module knows of the process that it lives in."""

    is_ours = False
    serves = False


def guard(arguments: Sequence[str]) -> None:
    """Take this process's signals: until a command begins, one ends it at once, and with what its command answers."""
    _Process.is_ours = True
    _Process.serves = arguments[:1] == ["worker"] and "--once" not in arguments

    def leave(number: int, frame: FrameType | None) -> None:
        # Neither an exception, which an import may swallow, nor a look at anything that is half imported.
        if not _Process.serves:
            with suppress(OSError):
                os.write(2, b"Interrupted; nothing was begun.\n")
        os._exit(0 if _Process.serves else EXIT_INTERRUPTED)

    _install(leave)
    # The interpreter puts a process's first handlers back before it has ended; what is ignored it leaves alone. What
    # was registered first is called last.
    atexit.register(_ignore)


def begin() -> None:
    """A command begins, so that from now on there is something to put in order. A service goes on to `heard`."""
    if _Process.is_ours and not _Process.serves:
        # The very handler with which asyncio ends what is under way before anything is raised.
        _install(signal.default_int_handler)
        signal.signal(signal.SIGTERM, _as_ctrl_c)


@contextmanager
def heard(by: _Handler) -> Iterator[None]:
    """Have `by` called at every signal: inside, and where the process is ours until `end`."""
    before = {number: signal.signal(number, by) for number in SIGNALS}
    try:
        yield
    finally:
        if not _Process.is_ours:
            for number, handler in before.items():
                signal.signal(number, handler)


def end(status: int) -> None:
    """All is said: nothing changes the exit status any more, and a signal cuts short what is still waited for."""
    if _Process.is_ours:
        _install(lambda number, frame: os._exit(status))


def owns_process() -> bool:
    """Whether the process is the command's alone, to end as it likes."""
    return _Process.is_ours


def _install(handler: _Handler) -> None:
    for number in SIGNALS:
        # A shell has what it starts in the background ignore Ctrl-C, which is meant for others; only a service has
        # always ended at it.
        if number == signal.SIGTERM or _Process.serves or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    """A service manager's stop is a person's Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.default_int_handler(number, frame)
    signal.raise_signal(signal.SIGINT)


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
