"""How a measured program is told what to do and tells what it found. Standard library only: it runs everywhere.

In: one JSON object as the first argument, its `workload` naming a function of the program. Out: JSON lines on
stdout: `{"ready": true}` when everything is set up, then, after a line on stdin has let all processes of the
measurement begin at once, `{"figures": {...}}`. What libraries print goes to stderr.

Clocks are monotonic and the same for all processes of a machine, so the harness can compare them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TextIO

Job = dict[str, Any]
Figures = dict[str, Any]


class Watch:
    """Measures one workload: `begin` when set up, `took` for each run or item, `end` with what else is known."""

    def __init__(self, channel: TextIO, job: Job) -> None:
        self._channel = channel
        self._profiles: Any = None
        if "BENCH_PROFILE" in os.environ:
            from benchmarks.peers.profiling import Profiles

            self._profiles = Profiles(os.environ["BENCH_PROFILE"])
            if job["workload"] == "start":
                self._profiles.begin()
        self._took: list[float] = []
        self._failures: list[str] = []

    def begin(self) -> None:
        """Say that everything is set up, wait for the others, and start the clocks."""
        _say(self._channel, {"ready": True})
        sys.stdin.readline()
        if self._profiles is not None:
            self._profiles.begin()
        self._syncs = syncs()
        self._cpu = time.process_time()
        self._began = time.monotonic()

    def took(self, seconds: float) -> None:
        """Note how long one run took, from asking for it to its answer."""
        self._took.append(seconds)

    def failed(self, error: Exception) -> None:
        """Note a run that was refused: a lock that was not had, say."""
        self._failures.append(f"{type(error).__name__}: {error}")

    def since_spawned(self, job: Job) -> Figures:
        """The figures of a start, from just before the process was made until now. For those, `begin` is not called."""
        wall_s = time.monotonic() - float(job["spawned"])
        if self._profiles is not None:
            self._profiles.end()
        return {"wall_s": wall_s, "errors": 0, "error": None}

    def end(self, **more: Any) -> Figures:
        """Stop the clocks. Times in seconds; those of single runs in milliseconds."""
        ended, cpu = time.monotonic(), time.process_time()
        if self._profiles is not None:
            self._profiles.end()
        slowest = sorted(self._took)
        figures = {
            "began": self._began,
            "ended": ended,
            "wall_s": ended - self._began,
            "cpu_s": cpu - self._cpu,
            "syncs": None if self._syncs is None else (syncs() or 0) - self._syncs,
            "errors": len(self._failures),
            "error": self._failures[0] if self._failures else None,
            **more,
        }
        if slowest:
            figures["p50_ms"] = 1000 * slowest[len(slowest) // 2]
            figures["p99_ms"] = 1000 * slowest[min(len(slowest) - 1, len(slowest) * 99 // 100)]
            figures["max_ms"] = 1000 * slowest[-1]
        return figures


Workload = Callable[[Job, Watch], Figures]


def serve(workloads: dict[str, Workload]) -> None:
    """Do what the first argument asks for. Ends the process without running exit handlers of libraries."""
    job: Job = json.loads(sys.argv[1])
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    figures = workloads[job["workload"]](job, Watch(channel, job))
    _say(channel, {"figures": figures})
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of a peer's pool must not keep the harness waiting


def syncs() -> int | None:
    """Calls of fsync and fdatasync so far by all processes of this measurement; `None` when nobody counts them."""
    path = os.environ.get("BENCH_SYNCS")
    if path is None:
        return None
    return int.from_bytes(Path(path).read_bytes(), sys.byteorder)


def _say(channel: TextIO, message: dict[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


STEPS: Final = 5
"""Recorded steps of one run, in every workload that counts runs."""
