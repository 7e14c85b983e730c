"""detent as it grows (workload W5): with runs that are stored, with items of a map, with runs in memory.

Each function measures little and much in one process, in turns, so that their ratio does not depend on the minute.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio

from benchmarks.peers.detent import MACHINES, Held, opened
from benchmarks.peers.protocol import Figures, Job, Watch

RUNS_OF_A_TURN = 100

IN_FLIGHT = 64
"""Runs at once where runs are only made, not measured."""


async def _run_all(app: Any, machine: Any, name: str, runs: int, in_flight: int, patience_s: float = 60) -> None:
    numbers = iter(range(runs))

    async def keep_running() -> None:
        for number in numbers:
            await app.run(machine, {}, run_id=f"{name}-{number}", patience_s=patience_s)

    async with anyio.create_task_group() as tasks:
        for _ in range(in_flight):
            tasks.start_soon(keep_running)


def stored(job: Job, watch: Watch) -> Figures:
    """Runs a second, one at a time, in a store that holds few runs and in one that holds many."""

    async def main() -> Figures:
        async with AsyncExitStack() as stack:
            apps = {}
            for name in ("few", "many"):
                folder = Path(job["folder"]) / name
                folder.mkdir()
                app = apps[name] = await stack.enter_async_context(opened({"folder": str(folder)}))
                machine = app.load(MACHINES / "five_steps.yaml")
                await _run_all(app, machine, "stored", job[name], IN_FLIGHT)
            watch.begin()
            rates: dict[str, list[float]] = {name: [] for name in apps}
            for turn in range(job["turns"]):
                for name in ("few", "many") if turn % 2 else ("many", "few"):
                    began = time.perf_counter()
                    await _run_all(apps[name], machine, f"turn-{turn}", RUNS_OF_A_TURN, 1)
                    rates[name].append(RUNS_OF_A_TURN / (time.perf_counter() - began))
            return watch.end(**_compared(rates))

    return anyio.run(main)


def items(job: Job, watch: Watch) -> Figures:
    """Time of one item that does nothing but be recorded, in maps of few items and in one of many."""

    async def main() -> Figures:
        async with opened(job) as app:
            machine = app.load(MACHINES / "nothings.yaml")

            async def item_us(name: str, count: int) -> float:
                began = time.perf_counter()
                result = await app.run(machine, {"items": list(range(count))}, run_id=name)
                assert result.output == {"items": count}, result
                return 1e6 * (time.perf_counter() - began) / count

            await item_us("warm", job["few"])
            watch.begin()
            costs: dict[str, list[float]] = {"few": [], "many": []}
            for turn in range(job["turns"]):
                # As many items in small maps as in the large one, half of them before it and half after.
                half = job["many"] // job["few"] // 2
                before = [await item_us(f"before-{turn}-{number}", job["few"]) for number in range(half)]
                costs["many"].append(await item_us(f"many-{turn}", job["many"]))
                after = [await item_us(f"after-{turn}-{number}", job["few"]) for number in range(half)]
                costs["few"].append(statistics.median([*before, *after]))
            return watch.end(**_compared(costs))

    return anyio.run(main)


def memory(job: Job, watch: Watch) -> Figures:
    """KiB of resident memory for each run whose action is under way, and for each that waits for its timer."""
    held = Held()

    async def main() -> Figures:
        async with opened({**job, "in_flight": job["in_flight"] + job["in_flight"] // 10}, held) as app:
            rests = app.load(MACHINES / "rests.yaml")
            await _run_all(app, rests, "warm", job["resting"], IN_FLIGHT, patience_s=0)
            watch.begin()
            before = _resident_kib()
            await _run_all(app, rests, "rests", job["resting"], IN_FLIGHT, patience_s=0)
            resting_kib = (_resident_kib() - before) / job["resting"]
            assert len(await app.runs.claimable(2**53, 2 * job["resting"])) == 2 * job["resting"]
            return watch.end(resting_kib=resting_kib, in_flight_kib=await in_flight(app))

    async def in_flight(app: Any) -> float:
        machine = app.load(MACHINES / "holds.yaml")
        async with anyio.create_task_group() as tasks:
            few, many = job["in_flight"] // 10, job["in_flight"]
            for number in range(few):
                tasks.start_soon(lambda name: app.run(machine, {}, run_id=name), f"few-{number}")
            await held.until(few)
            before = _resident_kib()
            for number in range(many):
                tasks.start_soon(lambda name: app.run(machine, {}, run_id=name), f"many-{number}")
            await held.until(few + many)
            kib: float = (_resident_kib() - before) / many
            held.let_go.set()
        return kib

    return anyio.run(main)


def _compared(values: dict[str, list[float]]) -> Figures:
    return {
        "few": statistics.median(values["few"]),
        "many": statistics.median(values["many"]),
        "many_to_few": statistics.median(
            many / few for many, few in zip(values["many"], values["few"], strict=True)
        ),
    }  # fmt: skip


def _resident_kib() -> float:
    """Resident memory of this process now. Linux; where /proc is missing, what it was at most so far."""
    gc.collect()
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
