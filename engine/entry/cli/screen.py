"""Where tables and lines for a person are printed: standard output, or standard error.

What is printed was written by others (ids, inputs, messages of servers), so no `[…]` or `:…:` in it is ever markup.
"""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console

WIDTH_ELSEWHERE: Final = 240
"""Columns where the stream is no terminal: a pipe gets plain lines that are hardly ever wrapped."""


def screen(*, stderr: bool = False, width: int = WIDTH_ELSEWHERE) -> Console:
    """A console for text that is shown as it is; a terminal has its own width and colours."""
    stream = sys.stderr if stderr else sys.stdout
    more = {} if stream.isatty() else {"width": width, "color_system": None}
    return Console(file=stream, highlight=False, markup=False, emoji=False, **more)  # type: ignore[arg-type]  # of rich's
