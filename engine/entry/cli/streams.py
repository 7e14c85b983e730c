"""The standard streams of the process, which whoever started it may have closed, filled up or left.

What cannot be said on stderr is lost, and nothing fails for it. What cannot be written on stdout ends a command that
only reads: there is nobody to read for. One that drives runs goes on, and tells of the loss when all is done.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, Final, TextIO

_NAMES: Final = ("stdin", "stdout", "stderr")


class _Stream(io.FileIO):
    """A standard stream that remembers why it could not be written; from then on it takes whatever comes."""

    def __init__(self, descriptor: int, *, raises: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.raises = raises
        self.trouble: OSError | None = None

    def write(self, data: Any) -> int:
        """See io; an error is raised once: what is still in a buffer would raise it again when the process ends."""
        if self.trouble is None:
            try:
                return super().write(data) or 0
            except OSError as error:
                self.trouble = error
                if self.raises:
                    raise
        return len(data)


def hold() -> None:
    """Make the streams of this process such as never end it by themselves. For the process's owner alone."""
    for number, name in enumerate(_NAMES):
        if getattr(sys, name) is None:  # its descriptor would go to the next file that is opened
            given = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(given, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
    if os.name == "posix":  # a console of Windows is written otherwise
        sys.stdout = _held(sys.stdout, raises=True)
        sys.stderr = _held(sys.stderr, raises=False)


def _held(stream: TextIO, *, raises: bool) -> TextIO:
    buffer = io.BufferedWriter(_Stream(stream.fileno(), raises=raises))
    by_line = raises is False or stream.isatty()
    return io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=by_line)


def _stdout() -> _Stream | None:
    """The process's standard output; `None` where it is another program's."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Stream) else None


def go_on_without() -> None:
    """Let nothing fail for what cannot be written on stdout: runs are driven, and an action may print something."""
    if (stdout := _stdout()) is not None:
        stdout.raises = False


def is_loss(error: BaseException) -> bool:
    """Whether an error is that of standard output, which nobody else has to answer for."""
    stdout = _stdout()
    return stdout is not None and stdout.trouble is error


def tell_loss() -> bool:
    """Whether something was lost on stdout, and a line on stderr that says so; a reader who has left knows it."""
    stdout = _stdout()
    if stdout is None:
        return False
    sys.stdout.flush()
    trouble, stdout.raises, stdout.trouble = stdout.trouble, False, None
    if trouble is None:
        return False
    if trouble.errno != errno.EPIPE:
        sys.stderr.write(f"Standard output cannot be written: {trouble.strerror}.\n")
    return True
