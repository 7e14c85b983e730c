"""The floor with Python's own `sqlite3`: the same commits as an engine's, and nothing else.

A run is one commit that inserts its row and a journal row, then five that each update the row and insert a journal
row. No guard, recovery, lease or schema stands in the way.
"""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

from benchmarks.peers.protocol import STEPS, Figures, Job, Watch, serve

BODY = json.dumps({"context": "x" * 200})
"""About what the snapshot of a small run takes."""

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS run (id TEXT PRIMARY KEY, state TEXT, body TEXT)",
    "CREATE TABLE IF NOT EXISTS journal (id TEXT, seq INTEGER, body TEXT, PRIMARY KEY (id, seq))",
)
CREATE = "INSERT INTO run VALUES (?, ?, ?)"
MOVE = "UPDATE run SET state = ?, body = ? WHERE id = ?"
NOTE = "INSERT INTO journal VALUES (?, ?, ?)"


def opened(job: Job) -> sqlite3.Connection:
    """The file of the job, write-ahead log, every commit on the disk."""
    connection = sqlite3.connect(Path(job["folder"]) / "bare.db", isolation_level=None, timeout=30)
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", *SCHEMA):
        connection.execute(statement)
    return connection


def record(connection: sqlite3.Connection, run_id: str) -> None:
    """One run, a commit for each of its six rows of the journal."""
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    execute(CREATE, (run_id, "S1", BODY))
    execute(NOTE, (run_id, 1, BODY))
    execute("COMMIT")
    for number in range(STEPS):
        execute("BEGIN IMMEDIATE")
        execute(MOVE, (f"S{number}", BODY, run_id))
        execute(NOTE, (run_id, number + 2, BODY))
        execute("COMMIT")


def runs(job: Job, watch: Watch) -> Figures:
    """Runs of five recorded steps, one at a time."""
    connection = opened(job)
    prefix = f"p{job['process']}"
    for number in range(job["warm_up"]):
        record(connection, f"{prefix}-warm-{number}")
    watch.begin()
    for number in range(job["runs"]):
        asked = time.perf_counter()
        try:
            record(connection, f"{prefix}-{number}")
        except sqlite3.OperationalError as error:
            watch.failed(error)
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        watch.took(time.perf_counter() - asked)
    return watch.end(commits=job["runs"] * (STEPS + 1))


if __name__ == "__main__":
    serve({"runs": runs})
