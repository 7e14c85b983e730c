"""The floor with `apsw`, the SQLite that detent brings: as `bare_sqlite`, and with many runs to each commit.

With runs in flight, each step of all of them is one commit: a group commit by somebody who knows all that comes.
"""

from __future__ import annotations

import time
from pathlib import Path

import apsw

from benchmarks.peers.bare_sqlite import BODY, CREATE, MOVE, NOTE, SCHEMA
from benchmarks.peers.protocol import STEPS, Figures, Job, Watch, serve


def opened(job: Job) -> apsw.Connection:
    """The file of the job, write-ahead log, every commit on the disk."""
    connection = apsw.Connection(str(Path(job["folder"]) / "bare.db"))
    connection.set_busy_timeout(30_000)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    for statement in SCHEMA:
        connection.execute(statement)
    return connection


def record(connection: apsw.Connection, group: list[str]) -> None:
    """A group of runs, a commit for each of their six common rows of the journal."""
    execute = connection.execute
    for seq in range(1, STEPS + 2):
        execute("BEGIN IMMEDIATE")
        for run_id in group:
            if seq == 1:
                execute(CREATE, (run_id, "S1", BODY))
            else:
                execute(MOVE, (f"S{seq}", BODY, run_id))
            execute(NOTE, (run_id, seq, BODY))
        execute("COMMIT")


def runs(job: Job, watch: Watch) -> Figures:
    """Runs of five recorded steps, as many to a commit as are in flight."""
    connection = opened(job)
    prefix, in_flight = f"p{job['process']}", job["in_flight"]
    for number in range(job["warm_up"]):
        record(connection, [f"{prefix}-warm-{number}"])
    watch.begin()
    commits = 0
    for first in range(0, job["runs"], in_flight):
        group = [f"{prefix}-{number}" for number in range(first, min(first + in_flight, job["runs"]))]
        asked = time.perf_counter()
        record(connection, group)
        commits += STEPS + 1
        for _ in group:
            watch.took(time.perf_counter() - asked)
    return watch.end(commits=commits)


if __name__ == "__main__":
    serve({"runs": runs})
