"""An exploration: every schedule of every kind is played and judged, and what does not hold is reported.

In: a `Setting` and bounds. Out: a `Report`; for each rule that does not hold it has the shortest schedule that shows
it. Schedules are independent of each other, so many of them are shared out to processes of the operating system.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from engine.errors import InvalidRequestError
from engine.runs.deliver import signals_of
from engine.testing.verification import kinds, loop
from engine.testing.verification.ending import Ending
from engine.testing.verification.rules import RULES, judge
from engine.testing.verification.schedule import Move, Schedule
from engine.testing.verification.setting import Setting
from engine.testing.verification.trace import ENDED
from engine.testing.verification.universe import Universe
from engine.testing.verification.world import Problem

ALONE_MAX: Final = 60
"""Schedules that are played without other processes: these would cost more to start."""

CHUNK: Final = 25
"""Schedules handed to another process at once."""

PAIRS: Final = 300
SAMPLES: Final = 60
"""Drawn pairs of crashes, and drawn schedules of each other kind that is drawn, when nothing else is asked for."""

CRASH_FREE: Final = "crash-free"


class Played(NamedTuple):
    """One schedule's result: how many effects it had, and what did not hold."""

    kind: str
    schedule: Schedule
    effects: int
    problems: tuple[Problem, ...]


@dataclass
class Violation:
    """A rule that does not hold, by the shortest schedule that shows it, and in how many schedules it does not."""

    rule: str
    message: str
    schedule: Schedule
    kind: str
    count: int
    trace: list[str]

    def to_json(self) -> dict[str, Any]:
        """The object of `violations`."""
        return {
            "rule": self.rule,
            "means": RULES.get(self.rule, "a rule of the world"),
            "message": self.message,
            "kind": self.kind,
            "count": self.count,
            "schedule": [move.told() for move in self.schedule.moves],
            "recovery": self.schedule.by,
            "replay": str(self.schedule),
            "trace": self.trace,
        }


@dataclass
class Report:
    """What an exploration found."""

    setting: Setting
    crash_free: Ending
    seed: int
    schedules: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every rule held in every schedule."""
        return not self.violations

    def ends(self) -> dict[str, str]:
        """How each run that no map started ends without a crash, by its id: what every other ending is held against."""
        heads = self.crash_free.heads
        return {run_id: head["status"] for run_id, head in heads.items() if head["is_root"]}

    def to_json(self) -> dict[str, Any]:
        """The object that `--format json` prints."""
        began_ms = self.crash_free.effects[0].at_ms
        return {
            "machine": self.setting.machine.name,
            "semantics": self.setting.semantics,
            "seed": self.seed,
            "ends": self.ends(),
            "holds": self.holds,
            "effects": [
                {
                    "number": effect.number,
                    "kind": effect.kind,
                    "name": effect.name,
                    "run": effect.run_id,
                    "at_s": (effect.at_ms - began_ms) / 1000,
                }
                for effect in self.crash_free.effects
            ],
            "schedules": dict(self.schedules),
            "differences": [difference._asdict() for difference in self.setting.world.differences],
            "violations": [violation.to_json() for violation in self.violations],
        }


def play(setting: Setting, schedule: Schedule) -> Ending:
    """Play one schedule to its end."""
    universe = Universe(setting, schedule)
    try:
        ending: Ending = loop.run(universe.play)
    except loop.EndlessError as error:
        return universe.given_up(str(error))
    return ending


class Exploration:
    """See the module.

    `pairs` bounds each kind that crosses one thing with another (`None`: all), `samples` each other that is drawn;
    `only` names kinds (see `KINDS`), and none means all; `progress` is told of a kind how many of how many schedules
    are played.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        pairs: int | None = PAIRS,
        samples: int = SAMPLES,
        seed: int = 0,
        jobs: int | None = None,
        only: Collection[str] = (),
        progress: Callable[[str, int, int], None] = lambda kind, done, of: None,
    ) -> None:
        self.setting = setting
        self._pairs = pairs
        self._samples = samples
        self._seed = seed
        self._jobs = jobs or os.cpu_count() or 1
        self._asked = only
        self._only = only or kinds.KINDS
        self._progress = progress
        self._shown: dict[str, list[Played]] = {}

    def run(self) -> Report:
        """Explore. Raises `InvalidRequestError` when there is nothing to explore: it would prove nothing."""
        with _quiet():
            return self._explored()

    def _explored(self) -> Report:
        self._crash_free = crash_free = self._usual()
        report = Report(self.setting, crash_free, self._seed)
        first = Played(CRASH_FREE, Schedule(), len(crash_free.effects), tuple(judge(crash_free, crash_free)))
        self._count(report, [first])
        if not first.problems:  # what does not hold without a crash would only be told once more for each schedule
            self._play_all(report)
            self._expect_played(report)
        report.violations = [self._shortest(rule, played) for rule, played in self._shown.items()]
        return report

    def _expect_played(self, report: Report) -> None:
        """Refuse what proves nothing: no schedule at all, or none of a kind that was asked for."""
        if sum(report.schedules.values()) <= 1:
            raise InvalidRequestError("no schedule was played, so nothing was verified.")
        if never := [kind for kind in self._asked if not report.schedules[kind]]:
            raise InvalidRequestError(
                f"no schedule of the kind {never[0]!r} was played, so it was not verified.",
                remedy="Draw some, with --pairs and --samples.",
            )

    def replay(self, schedule: Schedule) -> tuple[Report, Ending]:
        """Play one schedule, and judge it."""
        with _quiet():
            return self._replayed(schedule)

    def _replayed(self, schedule: Schedule) -> tuple[Report, Ending]:
        self._crash_free = self._usual()
        report = Report(self.setting, self._crash_free, self._seed)
        ending = play(self.setting, schedule)
        self._count(report, [Played("replay", schedule, len(ending.effects), tuple(judge(self._crash_free, ending)))])
        report.violations = [self._violation(rule, played[0]) for rule, played in self._shown.items()]
        return report, ending

    def _usual(self) -> Ending:
        ending = play(self.setting, Schedule())
        if not ending.heads:  # the definitions may have been kept, and that is no work
            raise InvalidRequestError(
                f"{self.setting.machine.name} begins no run for this input, so there is nothing to verify.",
                remedy="Give documents with --load, and an input for which there is something to do.",
            )
        for run_id, head in ending.heads.items():
            if head["status"] not in ENDED and not ending.problems:
                waits_for = signals_of(ending.machines[head["digest"]], head["state"])
                names = f" It waits for {' or '.join(waits_for)}: --signal {waits_for[0]}=JSON." if waits_for else ""
                raise InvalidRequestError(
                    f"without any crash {run_id} does not end: it stays {head['status']} in {head['state']}.",
                    remedy=f"Verify a machine, with an input and the signals it waits for, that ends.{names}",
                )
        for number, given in enumerate(self.setting.signals, start=1):
            if number not in ending.sent and not judge(ending, ending):
                raise InvalidRequestError(
                    f"without any crash no run waits for the signal {given.name!r}, number {number} of those given.",
                    remedy="Leave it out, or give an input for which the machine waits for it.",
                )
        self.setting = self.setting.knowing(ending)
        return ending

    def _play_all(self, report: Report) -> None:
        effects, setting = self._crash_free.effects, self.setting
        drawn = kinds.singles(effects, self._samples, len(setting.inputs), self._seed, self._crash_free.signals)
        # Some are made from what others led to, so these are played for them too.
        wanted = set(self._only)
        for kind in reversed(kinds.CROSSED):
            wanted.update(kinds.CROSSED[kind] if kind in wanted else ())
        lengths: dict[str, dict[tuple[Move, ...], int]] = {}
        self._play(report, [(kind, schedule) for kind, schedule in drawn if kind in wanted], lengths)
        has_failed = any(head["is_root"] and head["status"] != "succeeded" for head in self._crash_free.heads.values())
        failed = len(effects) if has_failed else None
        for kind in kinds.CROSSED:
            if kind in wanted:
                found = kinds.crossings(kind, lengths, failed, self._pairs, self._samples, self._seed)
                self._play(report, [(kind, schedule) for schedule in found], lengths)

    def _play(
        self, report: Report, found: Sequence[tuple[str, Schedule]], lengths: dict[str, dict[tuple[Move, ...], int]]
    ) -> None:
        for done, played in enumerate(self._in_parallel(found), start=1):
            self._count(report, [played])
            self._progress(played.kind, done, len(found))
            lengths.setdefault(played.kind, {}).setdefault(played.schedule.moves, played.effects)

    def _count(self, report: Report, played: Iterable[Played]) -> None:
        for one in played:
            report.schedules[one.kind] += 1
            for rule in dict.fromkeys(problem.rule for problem in one.problems):
                self._shown.setdefault(rule, []).append(one)

    def _in_parallel(self, found: Sequence[tuple[str, Schedule]]) -> Iterator[Played]:
        if self._jobs == 1 or len(found) <= ALONE_MAX or "fork" not in multiprocessing.get_all_start_methods():
            for one in found:
                yield self.judged(*one)
            return
        # Forked, so that a user's actions and world are there as they were loaded.
        global _exploration  # noqa: PLW0603 - what a forked process finds there
        _exploration = self
        context = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(self._jobs, mp_context=context)
        chunks = [pool.submit(_judged, found[start : start + CHUNK]) for start in range(0, len(found), CHUNK)]
        try:
            for chunk in chunks:
                yield from chunk.result()
        except BrokenProcessPool as error:
            raise InvalidRequestError(
                "a process that played schedules was ended from outside, so not all were played.",
                remedy="It may have been memory: share the work among fewer with --jobs.",
            ) from error
        except BaseException:  # they have nothing to finish, and an action may keep each of them for long
            for process in multiprocessing.active_children():
                process.kill()
            raise
        finally:
            pool.shutdown()  # which waits for nothing that was killed

    def judged(self, kind: str, schedule: Schedule) -> Played:
        """Play one schedule and judge it."""
        ending = play(self.setting, schedule)
        return Played(kind, schedule, len(ending.effects), tuple(judge(self._crash_free, ending)))

    # The shortest

    def _shortest(self, rule: str, played: Sequence[Played]) -> Violation:
        shortest = min(played, key=lambda one: len(one.schedule.moves))  # of equals the first
        while True:
            moves = shortest.schedule.moves
            shorter = (
                self.judged(shortest.kind, shortest.schedule._replace(moves=(*moves[:index], *moves[index + 1 :])))
                for index in range(len(moves) if len(moves) > 1 else 0)
            )
            found = next((one for one in shorter if any(problem.rule == rule for problem in one.problems)), None)
            if found is None:
                return self._violation(rule, shortest, len(played))
            shortest = found

    def _violation(self, rule: str, played: Played, count: int = 1) -> Violation:
        ending = play(self.setting, played.schedule)
        message = next(problem.message for problem in played.problems if problem.rule == rule)
        return Violation(rule, message, played.schedule, played.kind, count, told(ending))


def told(ending: Ending) -> list[str]:
    """Every effect of an ending as a line, with what befell it."""
    began_ms = ending.effects[0].at_ms if ending.effects else 0
    lines = []
    for effect in ending.effects:
        at_s = (effect.at_ms - began_ms) / 1000
        undone = "" if effect.is_done else " (it did not come about)"
        lines.append(f"{at_s:7.1f} s  {effect.worker:<3}{effect.number:>4} {effect.kind:<9}{effect.name}{undone}")
        lines.extend(f"{'':10} ▲ {note}" for note in effect.notes)
    return lines


@contextmanager
def _quiet() -> Iterator[None]:
    """Workers that die and stores that are away would fill the log with what is asked for here."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


_exploration: Exploration | None = None


def _judged(schedules: Sequence[tuple[str, Schedule]]) -> list[Played]:
    assert _exploration is not None, "set before the processes were forked"
    return [_exploration.judged(*one) for one in schedules]
