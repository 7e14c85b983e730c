"""`python -m benchmarks`: measures detent beside its peers, judges, and writes `results.json` and `table.md`.

In: which workloads, peers and disks, how many rounds, and a folder on the disk that is to be measured. Out: tables on
stdout, progress on stderr. It ends with 1 when a target is missed. `--small` is what CI runs, `--profile` what helps
to find out why.
"""

from __future__ import annotations

import pstats
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from benchmarks import report, results, small, syncs
from benchmarks.durability import Survived, killed_half_way
from benchmarks.environments import PEERS
from benchmarks.judge import Verdict, judged
from benchmarks.measure import CACHE, Bench, measure
from benchmarks.rounds import Rounds, job_of, measure_rounds
from benchmarks.targets import TARGETS, Target
from benchmarks.workloads import WORKLOADS

SLOW_US: Final = 1000
"""What the slow disk adds to each fsync, in microseconds: about a network disk's round trip."""

SEEDS: Final = (1, 2, 3)
"""Of the kills; each chooses another instant."""

LINES: Final = 45
"""Of a profile."""


@click.command()
@click.option("--only", default=",".join(WORKLOADS), help="Workloads, separated by commas; a prefix names several.")
@click.option("--peers", default=",".join(PEERS), help="Who takes part, separated by commas.")
@click.option("--disks", default="bare,slow", help="bare, slow, or both.")
@click.option(
    "--rounds",
    default=5,
    type=click.IntRange(min=1),
    help="Rounds on the bare disk; the slow one gets two fewer, at least one.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=CACHE,
    help="For the stores; lies on the disk to measure.",
)
@click.option("--write/--no-write", default=True, help="Write results.json, table.md and the README's figures.")
@click.option("--small", "is_small", is_flag=True, help="The minute that CI runs: counts and ratios alone.")
@click.option("--profile", "is_profile", is_flag=True, help="Profile detent in the workloads of --only instead.")
def main(
    only: str, peers: str, disks: str, rounds: int, folder: Path, write: bool, is_small: bool, is_profile: bool
) -> None:
    """Measure detent side by side with its peers."""
    for option, given, known in (
        ("--only", only, WORKLOADS), ("--peers", peers, PEERS), ("--disks", disks, report.DISKS)
    ):  # fmt: skip
        unknown = [part for part in given.split(",") if not any(name.startswith(part) for name in known)]
        if unknown:
            raise click.UsageError(f"{option} does not know {', '.join(unknown)}; known are {', '.join(known)}.")
    folder = folder.absolute()
    library = syncs.compiled(folder)
    if library is None:
        print("no C compiler: fsyncs are not counted, and the slow disk is left out", file=sys.stderr)
    bench = Bench(folder, library)
    names = [name for name in WORKLOADS if any(name.startswith(prefix) for prefix in only.split(","))]
    if is_profile:
        profiled(bench, names)
    elif is_small:
        gated(bench)
    else:
        wanted = [disk for disk in disks.split(",") if disk == "bare" or library is not None]
        compared(bench, names, peers.split(","), wanted, rounds, write)


def compared(
    bench: Bench, names: Sequence[str], peers: Sequence[str], disks: Sequence[str], rounds: int, write: bool
) -> None:
    """The whole benchmark. Ends the process with 1 when a target is missed or a commit lost."""
    bench.folder.mkdir(parents=True, exist_ok=True)
    machine = results.described(bench.folder, rounds)
    print(report.machine_line(machine), file=sys.stderr)
    found: results.Found = {}
    if "bare" in disks:
        found["bare"] = measured(bench, names, peers, rounds)
    if "slow" in disks:
        slow = [name for name in names if WORKLOADS[name].is_on_slow_disk]
        found["slow"] = measured(bench._replace(delay_us=SLOW_US), slow, peers, max(1, rounds - 2))
    survived = killed(SEEDS)
    verdicts = [verdict for disk, workloads in found.items() for verdict in judged(TARGETS, disk, workloads)]
    print(report.on_terminal([*report.workload_sheets(found), report.targets_sheet(verdicts)]))
    print(report.machine_line(machine))
    if write:
        results.write(found, verdicts, survived, machine, bench.environments)
    ended(verdicts, survived)


def gated(bench: Bench) -> None:
    """The small benchmark. Ends the process with 1 when a target is missed or a commit lost."""
    found, verdicts = small.gate(bench)
    survived = killed(SEEDS[:1])
    print(report.on_terminal([*report.workload_sheets({"bare": found}), report.targets_sheet(verdicts)]))
    ended(verdicts, survived, small.blind_spots(bench, verdicts))


def profiled(bench: Bench, names: Sequence[str]) -> None:
    """A profile of detent in each workload: the file, and its first lines by own time."""
    for name in names:
        workload = WORKLOADS[name]
        path = bench.folder / f"{name}.prof"
        path.parent.mkdir(parents=True, exist_ok=True)
        job = job_of(workload, "detent", 0, small=False)
        measure(bench, workload._replace(processes=1), "detent", job, profile=path)
        print(f"{workload.title}: {path}")
        pstats.Stats(str(path)).strip_dirs().sort_stats("tottime").print_stats(LINES)


def measured(bench: Bench, names: Sequence[str], peers: Sequence[str], rounds: int) -> dict[str, Rounds]:
    """Every wanted workload on one disk."""
    found = {}
    for name in names:
        taking_part = [peer for peer in WORKLOADS[name].peers if peer in peers]
        if taking_part:
            print(f"{WORKLOADS[name].title}: {', '.join(taking_part)}", file=sys.stderr)
            found[name] = measure_rounds(bench, WORKLOADS[name], taking_part, rounds)
    return found


def killed(seeds: Sequence[int]) -> list[Survived]:
    """What is left of a benchmark that was killed half-way, for each seed."""
    survived = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            survived.append(killed_half_way(Path(folder), seed))
    return survived


def ended(verdicts: Sequence[Verdict], survived: Sequence[Survived], blind: Sequence[Target] = ()) -> None:
    """Say what the whole comes to, and end the process. A gate that could not look at a target does not hold."""
    told, lost = sum(one.told for one in survived), sum(len(one.lost) for one in survived)
    stuck = sum(len(one.unfinished) for one in survived)
    print(
        f"Killed half-way by SIGKILL, {len(survived)} times: {told:,} acknowledged commits, {lost} lost, "
        f"{stuck} runs not brought to their end by who came next."
    )
    missed = sum(verdict.is_miss for verdict in verdicts)
    promised = sum(verdict.must_hold for verdict in verdicts)
    print(f"{promised - missed} of {promised} targets reached.")
    for target in blind:
        print(f"not measured: {report.claim(target)} ({target.workload})", file=sys.stderr)
    sys.exit(1 if missed or blind or not all(one.is_whole for one in survived) else 0)


if __name__ == "__main__":
    main()
