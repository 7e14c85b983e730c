"""Burr with its SQLite persister: an application of five actions, its state saved after each.

Burr's persister sets no journal mode; the write-ahead log is set by us on its file. `synchronous` is SQLite's
default, FULL. A persister has one connection, so runs in flight are those of sixteen threads with a persister each.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from burr.core import ApplicationBuilder, State, action
from burr.core.persistence import SQLitePersister

from benchmarks.peers.protocol import STEPS, Figures, Job, Watch, serve

THREADS = 16


@action(reads=["n"], writes=["n"])
def count(state: State) -> State:
    """A step that does nothing but count."""
    return state.update(n=state["n"] + 1)


def opened(job: Job) -> SQLitePersister:
    """The persister on the job's file."""
    file = str(Path(job["folder"]) / "burr.db")
    connection = sqlite3.connect(file, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    saver = SQLitePersister(file, connect_kwargs={"timeout": 30, "check_same_thread": False})
    saver.initialize()
    return saver


def run(saver: SQLitePersister, run_id: str, steps: int) -> int:
    """One application, from its first action to its last."""
    names = [f"s{number}" for number in range(steps)]
    app = (
        ApplicationBuilder()
        .with_actions(**dict.fromkeys(names, count))
        .with_transitions(*itertools.pairwise(names))
        .with_state(n=0)
        .with_entrypoint(names[0])
        .with_identifiers(app_id=run_id)
        .with_state_persister(saver)
        .build()
    )
    _, _, state = app.run(halt_after=[names[-1]])
    done: int = state["n"]
    return done


def runs(job: Job, watch: Watch) -> Figures:
    """Applications of five actions: one at a time, or from so many threads with a persister each."""
    prefix = f"p{job['process']}"
    mine = threading.local()

    def saver() -> SQLitePersister:
        if not hasattr(mine, "saver"):
            mine.saver = opened(job)
        found: SQLitePersister = mine.saver
        return found

    def one(name: str) -> None:
        asked = time.perf_counter()
        try:
            assert run(saver(), name, STEPS) == STEPS
        except Exception as error:
            watch.failed(error)
        watch.took(time.perf_counter() - asked)

    opened(job)
    with ThreadPoolExecutor(1 if job["in_flight"] == 1 else THREADS) as pool:
        list(pool.map(lambda number: run(saver(), f"{prefix}-warm-{number}", STEPS), range(job["warm_up"])))
        watch.begin()
        list(pool.map(one, [f"{prefix}-{number}" for number in range(job["runs"])]))
        return watch.end()


def mapped(job: Job, watch: Watch) -> Figures:
    """`MapStates` over threads, each with a connection that it keeps; each item is an application that is saved."""
    import http.client  # here: a start must not pay for it
    from urllib.parse import urlsplit

    from burr.core.parallelism import MapStates

    place = urlsplit(job["url"])
    mine = threading.local()

    @action(reads=["item"], writes=["length"])
    def call(state: State) -> State:
        if not hasattr(mine, "connection"):
            mine.connection = http.client.HTTPConnection(str(place.hostname), place.port)
        mine.connection.request("GET", place.path)
        answer = mine.connection.getresponse()
        assert answer.status == 200, answer.status
        return state.update(length=len(answer.read()))

    class Calls(MapStates):
        """The call over each item."""

        def states(self, state: State, context: Any, inputs: Any) -> Iterator[State]:
            for item in range(state["items"]):
                yield state.update(item=item)

        def action(self, state: State, inputs: Any) -> Any:
            return call

        def reduce(self, state: State, results: Iterable[State]) -> State:
            return state.update(lengths=[one["length"] for one in results])

        reads: ClassVar = ["items"]
        writes: ClassVar = ["lengths"]

    def work(name: str, items: int) -> None:
        app = (
            ApplicationBuilder()
            .with_actions(calls=Calls())
            .with_transitions()
            .with_state(items=items)
            .with_entrypoint("calls")
            .with_identifiers(app_id=name)
            .with_state_persister(opened(job))
            .with_parallel_executor(lambda: ThreadPoolExecutor(job["in_flight"]))
            .build()
        )
        _, _, state = app.run(halt_after=["calls"])
        assert len(state["lengths"]) == items

    work("warm", job["warm_up"])
    watch.begin()
    work("run", job["items"])
    return watch.end()


def start(job: Job, watch: Watch) -> Figures:
    """One action in a fresh process, its state saved."""
    done = run(opened(job), "first", 1)
    figures = watch.since_spawned(job)
    assert done == 1
    return figures


if __name__ == "__main__":
    serve({"runs": runs, "map": mapped, "start": start})
