"""Rounds: every peer of a workload once, in turn, again and again, so that what disturbs the machine disturbs all.

In: workloads. Out: for each workload and peer the figures of every round; medians; and ratios between peers, taken
within each round first, so that a slow minute of the machine cancels out.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.measure import Bench, Figures, PeerFailedError, measure
from benchmarks.workloads import SHARE, SLOW_DISK_SHARE, Workload

Rounds = dict[str, list[Figures]]
"""A workload's figures by peer, one for each round."""

HEADLINE: Final = {
    "runs": "runs_per_s",
    "map": "wall_ms",
    "start": "wall_ms",
    "step": "step_us",
    "stored": "many",
    "items": "many",
    "memory": "in_flight_kib",
}
"""The figure of each kind that the table shows first, and that peers are compared by."""


def job_of(workload: Workload, peer: str, delay_us: int, small: bool) -> dict[str, Any]:
    """What a peer is told: its share of the workload, rounded to what its processes and flights divide."""
    job = {**workload.job, **(workload.few if small else {})}
    if workload.kind == "runs":
        share = SHARE.get(peer, 1.0) * (SLOW_DISK_SHARE if delay_us else 1.0)
        group = workload.processes * job["in_flight"]
        job["runs_of_all"] = max(group, round(job["runs"] * share / group) * group)
        job["runs"] = job["runs_of_all"] // workload.processes
    return job


def measure_rounds(bench: Bench, workload: Workload, peers: Sequence[str], rounds: int, small: bool = False) -> Rounds:
    """So many rounds of a workload. A peer that fails is left out from then on, and the error is said."""
    found: Rounds = {peer: [] for peer in peers}
    modules: list[str] | None = None
    for number in range(1 if workload.is_once else rounds):
        turned = [*peers[number % len(peers) :], *peers[: number % len(peers)]]
        for peer in turned:
            if peer not in found:
                continue
            job = job_of(workload, peer, bench.delay_us, small)
            if peer == "script":
                modules = modules or _modules_of_detent(bench, workload)
                job["modules"] = modules
            try:
                if workload.kind == "start" and number == 0:
                    measure(bench, workload, peer, job)  # compiles modules and fills the page cache
                found[peer].append(measure(bench, workload, peer, job))
            except PeerFailedError as error:
                print(f"left out: {error}", file=sys.stderr)
                del found[peer]
    return found


def _modules_of_detent(bench: Bench, workload: Workload) -> list[str]:
    modules: list[str] = measure(bench, workload, "detent", {"tell_modules": True})["modules"]
    return modules


def medians(figures: Sequence[Figures]) -> Figures:
    """The median of each figure; of texts, the first there is."""
    found: Figures = {}
    for name in figures[0]:
        values = [one[name] for one in figures if one.get(name) is not None]
        numbers = [value for value in values if isinstance(value, (int, float))]
        found[name] = statistics.median(numbers) if numbers else next(iter(values), None)
    if "errors" in found:
        found["errors"] = sum(one["errors"] for one in figures)
    return found


def ratio(ours: Sequence[Figures], theirs: Sequence[Figures], figure: str) -> tuple[float, float, float]:
    """Ours divided by theirs, round by round: median, least and largest."""
    ratios = [mine[figure] / other[figure] for mine, other in zip(ours, theirs, strict=False)]
    return statistics.median(ratios), min(ratios), max(ratios)
