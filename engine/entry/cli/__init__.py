"""The command line, `detent`: `commands.py` has the commands, and each has a module of its own.

Exit status: 0 it succeeded, had ended before, or the check holds · 1 the run failed or was refused, or the check
does not hold, or what was asked for could not be printed · 2 usage or configuration · 3 an invalid definition · 4 the
run goes on elsewhere or waits.
Summary and data go to stdout; logs, progress and errors to stderr.
"""

from __future__ import annotations

import sys
from typing import Final, NoReturn

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_DEFINITION: Final = 3
EXIT_ELSEWHERE: Final = 4


def main(arguments: list[str] | None = None) -> NoReturn:
    """The entry point: runs a command and ends with its exit status.

    Without arguments the whole process is the command's, its signals and streams too.
    """
    from engine.entry.cli import interruption  # here, as below: nothing that takes time comes before the guard

    if arguments is None:
        interruption.guard(sys.argv[1:])
    from engine.entry.cli import streams

    if arguments is None:
        streams.hold()
    from engine.entry.cli.commands import perform

    try:
        status = perform(arguments)
    except KeyboardInterrupt:  # one more, while the first was seen to
        status = interruption.EXIT_INTERRUPTED
    interruption.end(status)
    sys.exit(status)
