"""What was measured, written down: `results.json` with every round, and the tables in Markdown.

In: rounds by disk and workload, verdicts, what the kill left. Out: files beside this one, and the README's figures.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from benchmarks import report
from benchmarks.durability import Survived
from benchmarks.environments import PEERS, versions
from benchmarks.judge import Verdict
from benchmarks.rounds import Rounds, medians
from benchmarks.targets import Disk

HERE: Final = Path(__file__).parent
README: Final = HERE.parent / "README.md"
Found = dict[Disk, dict[str, Rounds]]


def described(folder: Path, rounds: int) -> dict[str, Any]:
    """The machine, as far as figures depend on it; `load` is what others had running when the benchmark began."""
    mounts = subprocess.run(["df", "--output=fstype", folder], capture_output=True, text=True, check=False)
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    return {
        "cores": os.cpu_count(),
        "processor": processor,
        "system": platform.platform(),
        "file_system": (mounts.stdout.split() or ["unknown file system"])[-1],
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "fdatasync_ms": _fdatasync_ms(folder),
        "load": round(os.getloadavg()[0], 1),
        "rounds": rounds,
    }


def _fdatasync_ms(folder: Path) -> float:
    """The median of appending 4 KiB and waiting for the disk."""
    took = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(101):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            getattr(os, "fdatasync", os.fsync)(file.fileno())
            took.append(time.perf_counter() - began)
    return round(1000 * statistics.median(took), 3)


def write(
    found: Found, verdicts: Sequence[Verdict], survived: Sequence[Survived], machine: dict[str, Any], environments: Path
) -> None:
    """`results.json`, `table.md`, and the figures of the README where it has a place for them."""
    results = {
        "machine": machine,
        "peers": _peers(found, environments),
        "disks": {
            disk: {name: _of_peers(rounds) for name, rounds in workloads.items()} for disk, workloads in found.items()
        },
        "killed_half_way": [one._asdict() for one in survived],
        "targets": [
            {**verdict.target._asdict(), **_reached(verdict)} for verdict in verdicts
        ],
    }  # fmt: skip
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sheets = [*report.workload_sheets(found), report.targets_sheet(verdicts)]
    line = report.machine_line(machine)
    (HERE / "table.md").write_text(f"{line}\n\n{report.in_markdown(sheets)}", encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    if report.BEGIN in readme:
        table = f"{report.in_markdown([report.summary_sheet(found, verdicts)])}\n{line}\n"
        README.write_text(report.placed(readme, table), encoding="utf-8")


def _peers(found: Found, environments: Path) -> dict[str, Any]:
    names = sorted({peer for workloads in found.values() for rounds in workloads.values() for peer in rounds})
    return {
        name: {
            "title": PEERS[name].title,
            "durability": PEERS[name].durability,
            "versions": versions(PEERS[name], environments),
        }
        for name in names
    }


def _of_peers(rounds: Rounds) -> dict[str, Any]:
    return {peer: {"median": medians(figures), "rounds": figures} for peer, figures in rounds.items() if figures}


def _reached(verdict: Verdict) -> dict[str, Any]:
    return {
        "disk": verdict.disk,
        "reached": verdict.reached,
        "least": verdict.least,
        "largest": verdict.largest,
        "holds": verdict.holds,
        "must_hold": verdict.must_hold,
    }
