"""`python -m benchmarks`: measures, judges, and writes `results.json` and `table.md` beside this file.

In: which workloads, peers and disks, how many rounds, and a folder on the disk that is to be measured. Out: tables on
stdout, progress on stderr. It ends with 1 when a target is missed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import click

from benchmarks import report, syncs
from benchmarks.environments import PEERS, versions
from benchmarks.judge import Verdict, judged
from benchmarks.measure import Bench
from benchmarks.rounds import Rounds, measure_rounds, medians
from benchmarks.targets import TARGETS, Disk
from benchmarks.workloads import WORKLOADS

HERE: Final = Path(__file__).parent
SLOW_US: Final = 1000
"""What the slow disk adds to each fsync, in microseconds: about a network disk's round trip."""


@click.command()
@click.option("--only", default=",".join(WORKLOADS), help="Workloads, separated by commas; a prefix names several.")
@click.option("--peers", default=",".join(PEERS), help="Who takes part, separated by commas.")
@click.option("--disks", default="bare,slow", help="bare, slow, or both.")
@click.option("--rounds", default=5, help="Rounds on the bare disk; the slow one gets two fewer, at least one.")
@click.option("--folder", type=click.Path(path_type=Path), default=HERE / ".cache", help="Lies on the disk to measure.")
@click.option("--write/--no-write", default=True, help="Write results.json, table.md and the README's figures.")
def main(only: str, peers: str, disks: str, rounds: int, folder: Path, write: bool) -> None:
    """Measure detent side by side with its peers."""
    library = syncs.compiled(folder)
    names = [name for name in WORKLOADS if any(name.startswith(prefix) for prefix in only.split(","))]
    wanted = [disk for disk in ("bare", "slow") if disk in disks.split(",")]
    if library is None:
        print("no C compiler: fsyncs are not counted, and the slow disk is left out", file=sys.stderr)
        wanted = [disk for disk in wanted if disk != "slow"]
    found: dict[Disk, dict[str, Rounds]] = {}
    for disk in wanted:
        bench = Bench(folder.absolute(), library, SLOW_US if disk == "slow" else 0)
        times = rounds if disk == "bare" else max(1, rounds - 2)
        found[disk] = measured(bench, names, peers.split(","), times)
    verdicts = [verdict for disk, workloads in found.items() for verdict in judged(TARGETS, disk, workloads)]
    machine = described(folder, rounds)
    sheets = [
        report.workload_sheet(name, disk, of_peers)
        for disk, workloads in found.items()
        for name, of_peers in workloads.items()
        if of_peers
    ]
    sheets.append(report.targets_sheet(verdicts))
    print(report.on_terminal(sheets), report.machine_line(machine), sep="\n")
    if write:
        written(found, verdicts, machine, folder, sheets)
    missed = sum(verdict.is_miss for verdict in verdicts)
    if missed:
        print(f"{missed} of {len(verdicts)} targets missed", file=sys.stderr)
    sys.exit(1 if missed else 0)


def measured(bench: Bench, names: Sequence[str], peers: Sequence[str], rounds: int) -> dict[str, Rounds]:
    """Every wanted workload on one disk."""
    found = {}
    for name in names:
        workload = WORKLOADS[name]
        if bench.delay_us and not workload.is_on_slow_disk:
            continue
        taking_part = [peer for peer in workload.peers if peer in peers]
        print(f"{workload.title}: {', '.join(taking_part)}", file=sys.stderr)
        found[name] = measure_rounds(bench, workload, taking_part, rounds)
    return found


def described(folder: Path, rounds: int) -> dict[str, Any]:
    """The machine, as far as figures depend on it."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=False)
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    return {
        "cores": os.cpu_count(),
        "processor": processor,
        "system": platform.platform(),
        "file_system": kind.stdout.strip() or "unknown file system",
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "rounds": rounds,
    }


def written(
    found: dict[Disk, dict[str, Rounds]],
    verdicts: Sequence[Verdict],
    machine: dict[str, Any],
    folder: Path,
    sheets: Sequence[report.Sheet],
) -> None:
    """Everything that was measured as JSON, and the tables as Markdown."""
    taking_part = sorted({peer for workloads in found.values() for rounds in workloads.values() for peer in rounds})
    results = {
        "machine": machine,
        "peers": {
            name: {
                "title": PEERS[name].title,
                "durability": PEERS[name].durability,
                "versions": versions(PEERS[name], folder / "environments"),
            }
            for name in taking_part
        },
        "disks": {
            disk: {
                name: {
                    peer: {"median": medians(figures), "rounds": figures} for peer, figures in rounds.items() if figures
                }
                for name, rounds in workloads.items()
            }
            for disk, workloads in found.items()
        },
        "targets": [
            {**verdict.target._asdict(), "disk": verdict.disk, "reached": verdict.reached, "holds": verdict.holds}
            for verdict in verdicts
        ],
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = f"{report.machine_line(machine)}\n\n{report.in_markdown(sheets)}"
    (HERE / "table.md").write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
