"""The small benchmark, about a minute: gates what holds on any machine, counts and ratios, never a time.

In: nothing. Out: verdicts on the targets that are marked `in_ci`. The machine may be shared and noisy, so a target
that is missed is measured again, with more rounds, before it counts.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from typing import Final

from benchmarks.judge import Verdict, judged, unmeasured
from benchmarks.measure import Bench
from benchmarks.rounds import Rounds, measure_rounds
from benchmarks.targets import TARGETS, Target
from benchmarks.workloads import WORKLOADS

ROUNDS: Final = 3
ROUNDS_AGAIN: Final = 5

GATED: Final = tuple(target._replace(value=target.in_ci) for target in TARGETS if target.in_ci is not None)
"""The targets of the small benchmark, with its own bounds."""


def gate(bench: Bench) -> tuple[dict[str, Rounds], list[Verdict]]:
    """Measure on the bare disk what the gated targets need, and judge; what is missed is measured once more."""
    found = _measured(bench, GATED, ROUNDS)
    verdicts = judged(GATED, "bare", found)
    missed = [verdict.target for verdict in verdicts if verdict.is_miss]
    if missed:
        print(f"{len(missed)} missed; measured again with {ROUNDS_AGAIN} rounds", file=sys.stderr)
        again = {name for target in missed for name in _workloads(target)}
        found |= _measured(bench, GATED, ROUNDS_AGAIN, again)
        verdicts = judged(GATED, "bare", found)
    return found, verdicts


def blind_spots(bench: Bench, verdicts: Iterable[Verdict]) -> list[Target]:
    """Gated targets that were not measured. Without a C compiler fsyncs cannot be, and that is said at the start."""
    missing = unmeasured(GATED, verdicts)
    return [target for target in missing if bench.preload is not None or not target.figure.startswith("syncs")]


def _workloads(target: Target) -> set[str]:
    """Where a target's two figures come from."""
    return {target.workload, (target.against and target.against.workload) or target.workload}


def _measured(
    bench: Bench, targets: Iterable[Target], rounds: int, only: Collection[str] = tuple(WORKLOADS)
) -> dict[str, Rounds]:
    """The workloads of `only` with every peer that the targets speak of: a ratio needs both in the same rounds."""
    needed: dict[str, set[str]] = {}
    for target in targets:
        needed.setdefault(target.workload, set()).add(target.peer)
        if target.against is not None:
            needed.setdefault(target.against.workload or target.workload, set()).add(target.against.peer)
    found = {}
    for name, workload in WORKLOADS.items():
        if name in needed and name in only:
            peers = [peer for peer in workload.peers if peer in needed[name]]
            found[name] = measure_rounds(bench, workload, peers, rounds, small=True)
    return found
