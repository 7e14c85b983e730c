"""The kinds of schedules, and every schedule of each: what is explored, in the order in which it is.

In: how many effects the crash-free run has, which of them are commits, a seed. Out: schedules. The same numbers give
the same schedules. Some kinds are made from what each schedule of another led to, so they come after it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

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
    "cancel": "a cancel of the run before and after each effect, taken late or at once; and one of its item",
    "cancel-mixed": "a cancel and one of all these at random",
    "cancel-crash": "a cancel, and a crash at each effect before it or after it",
    "redrive": "a cancelled or failed run starts again at its end; and somebody tries before that",
    "redrive-crash": "a crash at each effect of a run that was redriven",
    "signal": "each signal that is given, once more or too early, before and after each effect",
}
"""Every kind and what it is; `crash-free` is the run that the others are held against."""

OUTAGES_S: Final = (10, 100)
"""A store that is away for less than a lease, and for longer."""

POINTS: Final = (BEFORE, AFTER)

CROSSED: Final = {
    "crash-pair": ("crash",),
    "cancel-crash": ("cancel", "crash"),
    "redrive": ("cancel",),
    "redrive-crash": ("redrive",),
}
"""The kinds that are made from what schedules of other kinds led to, each with these; in the order of their making."""

Lengths: TypeAlias = Mapping[tuple[Move, ...], int]
"""How many effects the schedule of some moves had."""


def singles(
    effects: Sequence[Effect], samples: int, inputs: int, seed: int, signals: Sequence[int] = ()
) -> Iterator[tuple[str, Schedule]]:
    """Every schedule that needs no other's length, each with its kind; `samples` of each kind that is drawn.

    `signals` are the effects that brought each signal which was given: the next one comes after that.
    """
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
    yield from _asked(effects, commits, samples, signals, random.Random(seed))


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


def _asked(
    effects: Sequence[Effect], commits: Sequence[int], samples: int, signals: Sequence[int], draw: random.Random
) -> Iterator[tuple[str, Schedule]]:
    """What somebody asks of a run, from the effect on that begins it: before that there is nobody to ask."""
    begins = next((effect.number for effect in effects if effect.steps), len(effects) + 1)
    places = [(effect, point) for effect in effects[begins - 1 :] for point in POINTS][1:]
    numbers = _numbers(effects)
    for effect, point in places:
        by = RECOVERIES[effect.number % 3]
        cancel = Move("cancel", effect.number, point)
        yield "cancel", Schedule((cancel,), by)  # its owner looks for it every two seconds
        yield "cancel", Schedule((cancel, Move("switch", effect.number, point)), "worker")  # who takes it at once
        if (number := numbers.get(effect.run_id or "", 1)) > 1:
            yield "cancel", Schedule((Move("cancel", effect.number, point, number),), by)
        for number, after in enumerate((0, *signals[:-1]) if signals else (), start=1):
            if effect.number > after or (effect.number == after and point == AFTER):
                yield "signal", Schedule((Move("signal", effect.number, point, number),), by)
    verbs = ("stop", "start", "switch", "stall", "ahead", "back", "lost", "away", *(["signal"] if signals else []))
    for _ in range(samples if places else 0):
        effect, point = draw.choice(places)
        cancel = Move("cancel", effect.number, point, numbers.get(effect.run_id or "", 1) if draw.random() < 0.3 else 0)
        other = Move(draw.choice(verbs), draw.choice(effects).number, draw.choice(POINTS))
        if other.verb == "lost":
            other = other._replace(effect=draw.choice(commits))
        elif other.verb == "away":
            other = other._replace(number=draw.choice(OUTAGES_S))
        elif other.verb == "signal":
            other = other._replace(number=draw.randint(1, len(signals)))
        yield "cancel-mixed", _schedule((cancel, other), draw.choice(RECOVERIES))


def _numbers(effects: Sequence[Effect]) -> dict[str, int]:
    """The runs, in the order in which they began."""
    done = sorted((effect for effect in effects if effect.is_done), key=lambda effect: effect.happened)
    runs = dict.fromkeys(step.run_id for effect in done for step in effect.steps)
    return {run_id: number for number, run_id in enumerate(runs, start=1)}


def _schedule(moves: Sequence[Move], by: str, first: int = 1) -> Schedule:
    """A schedule of moves in any order, each place once."""
    placed = {(move.effect, move.point): move for move in moves}
    ordered = sorted(placed.values(), key=lambda move: (move.effect, move.point == AFTER))
    return Schedule(tuple(ordered), by, first)


def crossings(
    kind: str, lengths: Mapping[str, Lengths], failed: int | None, wanted: int | None, samples: int, seed: int
) -> list[Schedule]:
    """The schedules of one of the kinds `CROSSED`, from the lengths of those that it is made from, by their kind.

    `failed` is the length of the crash-free run, should that end FAILED or CANCELLED. `wanted` draws so many, `None`
    all; of redrives that come too early so many as `samples`.
    """
    cancels, crashes = lengths.get("cancel", {}), lengths.get("crash", {})
    ends = {moves: count for moves, count in cancels.items() if moves[0].number == 0}
    if failed is not None:
        ends[()] = failed
    match kind:
        case "crash-pair":
            return _scheduled(_drawn_of(_crossed(crashes, "crash"), wanted, seed))
        case "cancel-crash":
            found = [*_crossed(cancels, "crash"), *_crossed(crashes, "cancel")]
            return _scheduled(_drawn_of(found, wanted, seed))
        case "redrive":
            early = _drawn_of([*_crossed(ends, "redrive")], samples, seed)
            return _scheduled([*_redriven(ends), *early])
        case _:
            again = {moves: count for moves, count in lengths["redrive"].items() if moves in set(_redriven(ends))}
            # Before the first effect of the redrive nothing of it has happened.
            found = [moves for moves in _crossed(again, "crash") if moves[-1][1:3] != (moves[-2].effect + 1, BEFORE)]
            return _scheduled(_drawn_of(found, wanted, seed))


def _redriven(ends: Lengths) -> list[tuple[Move, ...]]:
    return [(*moves, Move("redrive", count, AFTER)) for moves, count in ends.items()]


def _crossed(lengths: Lengths, verb: str) -> Iterator[tuple[Move, ...]]:
    """Each schedule with one more move, at each place after its last one that it came to."""
    for moves, count in lengths.items():
        for number in range(moves[-1].effect + 1 if moves else 1, count + 1):
            for point in POINTS:
                yield (*moves, Move(verb, number, point))


def _drawn_of(found: Iterable[tuple[Move, ...]], wanted: int | None, seed: int) -> list[tuple[Move, ...]]:
    every = list(found)
    return every if wanted is None or wanted >= len(every) else sorted(random.Random(seed).sample(every, wanted))


def _scheduled(found: Sequence[tuple[Move, ...]]) -> list[Schedule]:
    """Recovered in turn in each way; where another is to go on at once it stays the worker that it was."""
    ways = ((moves, RECOVERIES[index % 3]) for index, moves in enumerate(found))
    return [Schedule(moves, "worker" if any(move.verb == "switch" for move in moves) else by) for moves, by in ways]
