"""Huey on SQLite: a run is a pipeline of five tasks; each is enqueued, taken and its result stored, on the disk.

The queue is worked in this process, without the consumer's polling, which would only add to its times: one at a time
on the caller's thread, or by sixteen threads; SQLite admits one writer at a time, whatever their number. A start is
that of Huey's own consumer, which finds the task in its queue and so polls for nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huey import SqliteHuey

from benchmarks.peers.protocol import STEPS, Figures, Job, Watch, serve

THREADS = 16


def opened(job: Job) -> SqliteHuey:
    """A queue for each process, all in the job's file; with `fsync=True` every commit is on the disk."""
    file = Path(job["folder"]) / "huey.db"
    return SqliteHuey(f"q{job['process']}", filename=str(file), fsync=True, journal_mode="wal", timeout=30)


def work(queue: SqliteHuey, threads: int, is_done: Callable[[], bool]) -> None:
    """Take and execute tasks by so many threads until all is done."""

    def keep_working() -> None:
        while not is_done():
            task = queue.dequeue()
            if task is None:
                time.sleep(0.0005)
            else:
                queue.execute(task)

    workers = [threading.Thread(target=keep_working) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def runs(job: Job, watch: Watch) -> Figures:
    """Pipelines of five tasks, as many in flight as the job says."""
    queue = opened(job)
    asked: dict[str, float] = {}

    @queue.task()
    def step(run_id: str, number: int) -> tuple[str, int]:
        return run_id, number + 1

    def begin(run_id: str) -> Any:
        asked[run_id] = time.perf_counter()
        pipeline = step.s(run_id, 0)
        for _ in range(STEPS - 1):
            pipeline = pipeline.then(step)
        return queue.enqueue(pipeline)

    def one(run_id: str) -> None:
        *_, result = begin(run_id)
        while (task := queue.dequeue()) is not None:
            queue.execute(task)
        assert tuple(result.get()) == (run_id, STEPS)

    for number in range(job["warm_up"]):
        one(f"warm-{number}")
    if job["in_flight"] == 1:
        watch.begin()
        for number in range(job["runs"]):
            began = time.perf_counter()
            one(f"p{job['process']}-{number}")
            watch.took(time.perf_counter() - began)
        return watch.end()
    return _in_flight(job, watch, queue, begin, asked)


def _in_flight(
    job: Job, watch: Watch, queue: SqliteHuey, begin: Callable[[str], Any], asked: dict[str, float]
) -> Figures:
    left = iter(range(job["runs"]))
    lock = threading.Lock()
    ended = 0

    @queue.post_execute()
    def after(task: Any, value: Any, exception: BaseException | None) -> None:
        nonlocal ended
        if exception is None and value[1] < STEPS:
            return
        with lock:
            ended += 1
            number = next(left, None)
        if exception is None:
            watch.took(time.perf_counter() - asked[value[0]])
        elif isinstance(exception, Exception):
            watch.failed(exception)
        if number is not None:
            begin(f"run-{number}")

    watch.begin()
    for _ in range(job["in_flight"]):
        begin(f"run-{next(left)}")
    work(queue, THREADS, lambda: ended >= job["runs"])
    return watch.end()


def mapped(job: Job, watch: Watch) -> Figures:
    """A task for each item, by as many threads as may be in flight, each with a connection that it keeps."""
    import http.client  # here: a start must not pay for it
    from urllib.parse import urlsplit

    queue = opened(job)
    place = urlsplit(job["url"])
    mine = threading.local()
    ended = 0
    lock = threading.Lock()

    @queue.task()
    def call(item: int) -> int:
        if not hasattr(mine, "connection"):
            mine.connection = http.client.HTTPConnection(str(place.hostname), place.port)
        mine.connection.request("GET", place.path)
        answer = mine.connection.getresponse()
        assert answer.status == 200, answer.status
        return len(answer.read())

    @queue.post_execute()
    def after(task: Any, value: Any, exception: BaseException | None) -> None:
        nonlocal ended
        assert exception is None, exception
        with lock:
            ended += 1

    def run(items: int) -> None:
        target = ended + items
        results = [call(item) for item in range(items)]
        work(queue, job["in_flight"], lambda: ended >= target)
        assert all(result.get() is not None for result in results)

    run(job["warm_up"])
    watch.begin()
    run(job["items"])
    return watch.end()


def start(job: Job, watch: Watch) -> Figures:
    """One task in a fresh process, taken by the consumer's worker, its result stored.

    A call of a task only enqueues it; Huey's guide has a consumer take it. This one is as `huey_consumer` makes it by
    default, a worker and a scheduler on a thread each, without what that command reads and logs.
    """
    queue = opened(job)
    figures: Figures = {}
    stored = threading.Event()

    @queue.task()
    def step(number: int) -> int:
        return number + 1

    @queue.post_execute()
    def after(task: Any, value: Any, exception: BaseException | None) -> None:
        figures.update(watch.since_spawned(job))
        stored.set()

    result = step(0)
    queue.create_consumer().start()
    assert stored.wait(timeout=30)
    assert result.get() == 1
    return figures


if __name__ == "__main__":
    serve({"runs": runs, "map": mapped, "start": start})
