"""DBOS on SQLite: workflows of five steps, each step's result recorded before the next.

DBOS sets no journal mode, so as it is shipped it commits through the rollback journal; the write-ahead log is set by
us on its file, which makes it faster. `synchronous` is SQLite's default, FULL.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSConfig

from benchmarks.peers.protocol import STEPS, Figures, Job, Watch, serve

THREADS = 16
"""That run workflows; SQLite admits one writer at a time, whatever their number."""


def launch(job: Job) -> None:
    """Make or open the system database of the job, and start DBOS on it."""
    file = Path(job["folder"]) / "dbos.db"
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": f"sqlite:///{file}",
        "run_admin_server": False,
        "log_level": "ERROR",
        "executor_id": f"process-{job.get('process', 0)}",
        "application_version": "1",
    }
    connection = sqlite3.connect(file, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    DBOS(config=config)
    DBOS.launch()


@DBOS.step()
def count(number: int) -> int:
    """A recorded step that does nothing."""
    return number + 1


@DBOS.workflow()
def five_steps(number: int) -> int:
    """A run of the benchmark."""
    for _ in range(STEPS):
        number = count(number)
    return number


def runs(job: Job, watch: Watch) -> Figures:
    """Workflows of five steps: one at a time, or from so many threads."""
    launch(job)
    for _ in range(job["warm_up"]):
        five_steps(0)

    def one(_: int) -> None:
        asked = time.perf_counter()
        try:
            assert five_steps(0) == STEPS
        except Exception as error:
            watch.failed(error)
        watch.took(time.perf_counter() - asked)

    if job["in_flight"] == 1:
        watch.begin()
        for number in range(job["runs"]):
            one(number)
        return watch.end()
    with ThreadPoolExecutor(THREADS) as pool:
        watch.begin()
        list(pool.map(one, range(job["runs"])))
        return watch.end()


def mapped(job: Job, watch: Watch) -> Figures:
    """One workflow that gathers an asynchronous step for each item, so many at a time."""
    import aiohttp

    client: list[Any] = []
    lanes = asyncio.Semaphore(job["in_flight"])

    @DBOS.step()
    async def call(url: str) -> int:
        async with lanes, client[0].get(url) as answer:
            answer.raise_for_status()
            return len(await answer.read())

    @DBOS.workflow()
    async def calls(items: int) -> int:
        return len(await asyncio.gather(*(call(job["url"]) for _ in range(items))))

    async def main() -> Figures:
        async with aiohttp.ClientSession() as session:
            client.append(session)
            await calls(job["warm_up"])
            watch.begin()
            assert await calls(job["items"]) == job["items"]
            return watch.end()

    launch(job)
    return asyncio.run(main())


def start(job: Job, watch: Watch) -> Figures:
    """One workflow of one step in a fresh process."""

    @DBOS.workflow()
    def one_step() -> int:
        return count(0)

    launch(job)
    done = one_step()
    figures = watch.since_spawned(job)
    assert done == 1
    return figures


if __name__ == "__main__":
    serve({"runs": runs, "map": mapped, "start": start})
