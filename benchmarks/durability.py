"""SIGKILL in the middle of workload W1: every commit that anybody was told of must be there afterwards.

`python -m benchmarks.durability` starts a process that keeps 16 runs in flight and says each commit as it is
acknowledged, on a pipe. After a number of them that the seed chooses the process is killed, wherever it is. Then the
store is opened again: each told commit must have its journal entry, each entry before it too, and its run must stand
there or further. At last a worker that comes after the dead one's lease brings every run to its end.

Ends with 1 when a commit was lost. What SIGKILL cannot show, the loss of what the operating system still held, is
counted instead: as many fsyncs as commits (`targets.py`).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import click

from benchmarks.measure import NEVER_INHERITED, ROOT
from benchmarks.peers.detent import MACHINES, opened
from benchmarks.peers.protocol import STEPS
from engine.runner.clock import SystemClock
from engine.runner.observer import Silent
from engine.runs.records import JOURNAL
from engine.store.port import Order, Where

RUNS: Final = 300
IN_FLIGHT: Final = 16
LATER_MS: Final = 3_600_000
"""How far the clock of the second worker goes ahead: past any lease of the first."""


class Survived(NamedTuple):
    """What was found after the kill: commits told of, those of them that are missing, and runs that did not end."""

    told: int
    lost: tuple[str, ...]
    runs: int
    unfinished: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost and nothing is stuck."""
        return not self.lost and not self.unfinished


def killed_half_way(folder: Path, seed: int, runs: int = RUNS) -> Survived:
    """Run, kill at the instant that the seed chooses, and look. Raises `RuntimeError` if it ended by itself."""
    commits = runs * (STEPS + 1)
    enough = random.Random(seed).randrange(commits // 4, commits * 3 // 4)
    told = _told_until_killed(folder, runs, enough)
    return anyio.run(_looked_at, folder, told)


def _told_until_killed(folder: Path, runs: int, enough: int) -> list[tuple[str, int]]:
    job = json.dumps({"folder": str(folder), "runs": runs, "in_flight": IN_FLIGHT})
    environment = {name: value for name, value in os.environ.items() if name not in NEVER_INHERITED}
    command = [sys.executable, "-m", "benchmarks.durability", "--child", job]
    told: list[tuple[str, int]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:  # goes on to the end: what was said before the kill was said
            run_id, seq = line.split()
            told.append((run_id, int(seq)))
            if len(told) == enough:
                process.send_signal(signal.SIGKILL)
    if process.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the process ended with {process.returncode} before it was killed")
    return told


async def _looked_at(folder: Path, told: list[tuple[str, int]]) -> Survived:
    async with opened({"folder": str(folder)}, clock=_Later()) as app:
        lost = []
        for run_id in sorted({run_id for run_id, _ in told}):
            last = max(seq for name, seq in told if name == run_id)
            head = await app.runs.get(run_id)
            entries = await app.store.query(JOURNAL, [Where("run_id", "==", run_id)], [Order("seq")])
            kept = [entry["seq"] for _, entry in entries]
            if head is None or head.snapshot.seq < last or kept != list(range(1, head.snapshot.seq + 1)):
                lost.append(f"{run_id}: told of {last}, head {head and head.snapshot.seq}, journal {kept}")
        await app.work_once(patience_s=0)
        heads = await app.store.query("runs")
        unfinished = tuple(key.id for key, head in heads if head["status"] != "succeeded")
        return Survived(len(told), tuple(lost), len(heads), unfinished)


class _Later(SystemClock):
    """The clock of one who comes after the lease."""

    def now_ms(self) -> int:
        return super().now_ms() + LATER_MS


class _Teller(Silent):
    """Says each commit on standard output, at once and in one write."""

    def committed(self, machine: Any, committed: Any) -> None:
        snapshot = committed.head.snapshot
        os.write(1, f"{snapshot.run_id} {snapshot.seq}\n".encode())


async def _child(job: dict[str, Any]) -> None:
    async with opened(job, observer=_Teller()) as app:
        machine = app.load(MACHINES / "five_steps.yaml")
        numbers = iter(range(job["runs"]))

        async def keep_running() -> None:
            for number in numbers:
                await app.run(machine, {}, run_id=f"run-{number}")

        async with anyio.create_task_group() as tasks:
            for _ in range(job["in_flight"]):
                tasks.start_soon(keep_running)


@click.command()
@click.option("--seed", default=None, type=int, help="Chooses the instant of the kill; default: three of them.")
@click.option("--child", hidden=True)
def main(seed: int | None, child: str | None) -> None:
    """Kill a benchmark half-way and look for what it had acknowledged."""
    if child is not None:
        anyio.run(_child, json.loads(child))
        return
    is_whole = True
    for chosen in (1, 2, 3) if seed is None else (seed,):
        with tempfile.TemporaryDirectory() as folder:
            found = killed_half_way(Path(folder), chosen)
        is_whole = is_whole and found.is_whole
        print(
            f"seed {chosen}: killed after {found.told} acknowledged commits of {found.runs} runs; "
            f"{len(found.lost)} commits lost, {len(found.unfinished)} runs not brought to their end"
        )
        for what in (*found.lost, *found.unfinished):
            print(f"  {what}")
    sys.exit(0 if is_whole else 1)


if __name__ == "__main__":
    main()
