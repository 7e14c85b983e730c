"""Holds what was measured against the targets.

In: the rounds of a disk's workloads. Out: for each target what was reached, with its spread, and whether it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from benchmarks.rounds import Rounds, medians, ratio
from benchmarks.targets import Disk, Target


class Verdict(NamedTuple):
    """What became of a target on a disk; `reached` is a median, with the least and largest of the rounds."""

    target: Target
    disk: Disk
    reached: float
    least: float
    largest: float
    must_hold: bool

    @property
    def holds(self) -> bool:
        """Whether the median is within the target's bound."""
        return self.target.holds(self.reached)

    @property
    def is_miss(self) -> bool:
        """Whether a promise is broken."""
        return self.must_hold and not self.holds


def judged(targets: Iterable[Target], disk: Disk, found: Mapping[str, Rounds]) -> list[Verdict]:
    """A verdict on each target whose workload and peers were measured."""
    verdicts = []
    for target in targets:
        reached = _reached(target, found)
        if reached is not None:
            verdicts.append(Verdict(target, disk, *reached, must_hold=disk in target.disks))
    return verdicts


def unmeasured(targets: Iterable[Target], verdicts: Iterable[Verdict]) -> list[Target]:
    """The targets that nobody could judge: a peer that failed, or fsyncs that were not counted."""
    known = [verdict.target for verdict in verdicts]
    return [target for target in targets if target not in known]


def _reached(target: Target, found: Mapping[str, Rounds]) -> tuple[float, float, float] | None:
    ours = found.get(target.workload, {}).get(target.peer)
    if not ours or ours[0].get(target.figure) is None:
        return None
    if target.against is None:
        values = [one[target.figure] for one in ours]
        # A refusal in any round is a refusal; every other figure is the rounds' median.
        middle = max(values) if target.figure == "errors" else medians(ours)[target.figure]
        return middle, min(values), max(values)
    theirs = found.get(target.against.workload or target.workload, {}).get(target.against.peer)
    return ratio(ours, theirs, target.figure) if theirs else None
