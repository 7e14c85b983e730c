"""The kinds of schedules, and every schedule of each: what is explored, in the order in which it is.

In: how many effects the crash-free run has, which of them are commits, a seed. Out: schedules. The same numbers give
the same schedules. Pairs of crashes are made from what each single crash led to, so they come second.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from engine.testing.verification.schedule import AFTER, BEFORE, RECOVERIES, Move, Schedule
from engine.testing.verification.trace import COMMITS, Effect

KINDS: Final = {
    "crash": "a crash before and after each effect, each recovered in three ways",
    "crash-pair": "a second crash at each effect of the recovery",
    "stop": "SIGTERM before and after each effect",
    "delivered-again": "the start event once more, at another process, before and after each effect",
    "out-of-order": "several start events, shuffled and repeated, at random effects",
    "interleaved": "two workers that take turns at each effect, with up to two more switches",
    "stalled-owner": "an owner that stands still beyond its lease at each effect, and wakes again",
    "clock-jump": "a clock that jumps ahead and back at each effect",
    "lost-answer": "commits whose answer is lost, applied or not, and a store that is away",
    "mixed": "two of all these at random",
}
"""Every kind and what it is; `crash-free` is the run that the others are held against."""

OUTAGES_S: Final = (10, 100)
"""A store that is away for less than a lease, and for longer."""

POINTS: Final = (BEFORE, AFTER)


def singles(effects: Sequence[Effect], samples: int, inputs: int, seed: int) -> Iterator[tuple[str, Schedule]]:
    """Every schedule but the pairs of crashes, each with its kind; `samples` of each kind that is drawn at random."""
    numbers = range(1, len(effects) + 1)
    commits = [effect.number for effect in effects if effect.kind in COMMITS]
    everywhere = [(number, point) for number in numbers for point in POINTS]
    for number, point in everywhere:
        for by in RECOVERIES:
            yield "crash", Schedule((Move("crash", number, point),), by)
    for number, point in everywhere:
        yield "stop", Schedule((Move("stop", number, point),), RECOVERIES[number % 3])
        yield "delivered-again", Schedule((Move("start", number, point),))
        yield "interleaved", Schedule((Move("switch", number, point),))
        yield "interleaved", Schedule((Move("switch", number, point),), "worker")
        yield "stalled-owner", Schedule((Move("stall", number, point),), RECOVERIES[number % 3])
        yield "stalled-owner", Schedule((Move("stall", number, point, 2),), "worker")
    for number in numbers:
        yield "clock-jump", Schedule((Move("ahead", number, BEFORE),))
        yield "clock-jump", Schedule((Move("back", number, BEFORE),))
    for number in commits:
        for point in POINTS:
            yield "lost-answer", Schedule((Move("lost", number, point),))
        for seconds in OUTAGES_S:
            yield "lost-answer", Schedule((Move("away", number, BEFORE, seconds),), RECOVERIES[number % 3])
    yield from _drawn(len(effects), commits, samples, inputs, random.Random(seed))


def _drawn(
    count: int, commits: Sequence[int], samples: int, inputs: int, draw: random.Random
) -> Iterator[tuple[str, Schedule]]:
    def point() -> tuple[int, str]:
        return draw.randint(1, count), draw.choice(POINTS)

    for _ in range(samples):
        moves = [Move("start", *point(), draw.randint(1, inputs)) for _ in range(draw.randint(1, 3))]
        yield "out-of-order", _schedule(moves, "start", draw.randint(1, inputs))
    for _ in range(samples):
        moves = [Move("switch", *point()) for _ in range(draw.randint(2, 3))]
        yield "interleaved", _schedule(moves, draw.choice(RECOVERIES))
    for _ in range(samples):
        moves = []
        for verb in draw.choices(("crash", "stop", "start", "switch", "stall", "ahead", "back", "lost", "away"), k=2):
            if verb == "lost":
                moves.append(Move(verb, draw.choice(commits), draw.choice(POINTS)))
            else:
                moves.append(Move(verb, *point(), draw.choice(OUTAGES_S) if verb == "away" else 0))
        yield "mixed", _schedule(moves, draw.choice(RECOVERIES))


def _schedule(moves: Sequence[Move], by: str, first: int = 1) -> Schedule:
    """A schedule of moves in any order, each place once."""
    placed = {(move.effect, move.point): move for move in moves}
    ordered = sorted(placed.values(), key=lambda move: (move.effect, move.point == AFTER))
    return Schedule(tuple(ordered), by, first)


def pairs(effects_after: Mapping[Move, int], wanted: int | None, seed: int) -> list[Schedule]:
    """Two crashes: each first one with each place after it that the recovered run came to.

    `effects_after` is how many effects the schedule of each single crash had; `wanted` draws so many, `None` all.
    """
    found = [
        (first, Move("crash", number, point))
        for first, count in effects_after.items()
        for number in range(first.effect + 1, count + 1)
        for point in POINTS
    ]
    if wanted is not None and wanted < len(found):
        found = sorted(random.Random(seed).sample(found, wanted))
    return [Schedule(pair, RECOVERIES[index % 3]) for index, pair in enumerate(found)]
