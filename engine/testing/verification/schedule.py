"""A schedule: what happens to which effect of a run, as a value and as the short text that replays it.

    crash@12- crash@31+ by=resume

reads: the process dies before effect 12, and the one that recovers it dies after effect 31; recovery is by `resume`.
Effects are numbered from 1 over all processes, in the order in which they begin; `-` is before the effect (nothing of
it has happened), `+` after it (it has happened, and its process was not told yet).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from engine.errors import InvalidRequestError

BEFORE: Final = "-"
AFTER: Final = "+"

VERBS: Final = {
    "crash": "the process dies",
    "stop": "the process is told to stop (SIGTERM)",
    "stall": "the process stands still until its leases are over and another has taken its runs",
    "switch": "the process stands still, and another goes on",
    "start": "the start event number N arrives again, at another process",
    "ahead": "the process's clock jumps ahead by one and a half leases",
    "back": "the process's clock jumps back by one and a half leases",
    "lost": "the store does not say whether the commit was applied",
    "away": "the store is away for N seconds",
    "cancel": "somebody cancels run number N of those that have begun",
    "signal": "somebody sends signal number N of those given, by its id",
    "redrive": "somebody redrives the first run",
}
"""What can happen at an effect."""

OUTSIDE: Final = ("cancel", "signal", "redrive")
"""What somebody asks of a run from outside: it costs no call in flight."""

RECOVERIES: Final = ("start", "resume", "worker")
"""How a dead process's work is taken up: the same start once more, `detent runs resume`, or `detent worker`."""

_MOVE: Final = re.compile(r"([a-z]+)@([1-9][0-9]*)([-+])(?::([0-9]+))?")


class Move(NamedTuple):
    """Something that happens before or after one effect; `number` is the `N` of its verb, where it has one."""

    verb: str
    effect: int
    point: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.verb}@{self.effect}{self.point}" + (f":{self.number}" if self.number else "")

    def told(self) -> str:
        """As a sentence."""
        where = "before" if self.point == BEFORE else "after"
        what = VERBS[self.verb].replace(" N ", f" {self.number or 1} ")
        if self.verb == "lost":
            what += " (it was)" if self.point == AFTER else " (it was not)"
        return f"{where} effect {self.effect}: {what}"


class Schedule(NamedTuple):
    """Moves in the order of their effects, how a lost process is recovered, and which start event comes first."""

    moves: tuple[Move, ...] = ()
    by: str = "start"
    first: int = 1

    def __str__(self) -> str:
        parts = [str(move) for move in self.moves]
        if self.by != "start" or not parts:
            parts.append(f"by={self.by}")
        if self.first != 1:
            parts.append(f"first={self.first}")
        return " ".join(parts)

    @property
    def disruptions(self) -> int:
        """Moves that may cost a call in flight: after each of them somebody else may go on with the run."""
        return sum(move.verb not in OUTSIDE for move in self.moves)

    @classmethod
    def read(cls, text: str) -> Schedule:
        """The inverse of `str`. Raises `InvalidRequestError`."""
        moves: list[Move] = []
        by, first = "start", 1
        for part in text.split():
            found = _MOVE.fullmatch(part)
            if found is not None and found[1] in VERBS:
                moves.append(Move(found[1], int(found[2]), found[3], int(found[4] or 0)))
            elif part.startswith("by=") and part[3:] in RECOVERIES:
                by = part[3:]
            elif part.startswith("first=") and part[6:].isdecimal() and int(part[6:]) > 0:
                first = int(part[6:])
            else:
                verbs = ", ".join(VERBS)
                raise InvalidRequestError(
                    f"{part!r} is no part of a schedule.",
                    remedy=f"Parts are VERB@EFFECT- or VERB@EFFECT+ (verbs: {verbs}), by=RECOVERY and first=N.",
                )
        return cls(tuple(sorted(moves, key=_place)), by, first)


def _place(move: Move) -> tuple[int, bool]:
    return move.effect, move.point == AFTER
