"""One measurement: a peer's processes started on an empty folder, set off together, and what they found.

In: a workload and a peer. Out: figures, with those derived from them (`runs_per_s`, `syncs_per_step`, …). It never
repeats or averages; `rounds.py` does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self

from benchmarks import syncs
from benchmarks.environments import PEERS, python_of
from benchmarks.peers.protocol import STEPS
from benchmarks.workloads import Workload

ROOT: Final = Path(__file__).parent.parent
CACHE: Final = ROOT / "benchmarks" / ".cache"
"""What is made here and kept out of the repository: environments, the compiled library, profiles."""

Figures = dict[str, Any]

NEVER_INHERITED: Final = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH", "LD_PRELOAD")
"""Variables that would change what is measured: without its compiled modules a start measures the compiler."""


LIMIT_S: Final = 900.0
"""After which a measured process is given up."""


class PeerFailedError(Exception):
    """A measured program ended without figures; says what it wrote."""


class Bench(NamedTuple):
    """Where and how measurements are made. `folder` lies on the measured disk; `delay_us` is added to each fsync."""

    folder: Path
    preload: Path | None
    delay_us: int = 0

    @property
    def environments(self) -> Path:
        """The folder of the peers' virtual environments: always the same, whichever disk is measured."""
        return CACHE / "environments"


def measure(
    bench: Bench, workload: Workload, peer: str, job: Mapping[str, Any], profile: Path | None = None
) -> Figures:
    """The figures of one peer doing one workload once. Raises `PeerFailedError`.

    With `profile`, a cProfile of what was measured is written there; its figures are then not to be compared.
    """
    python = python_of(PEERS[peer], bench.environments)
    environment = {name: value for name, value in os.environ.items() if name not in NEVER_INHERITED}
    if profile is not None:
        environment["BENCH_PROFILE"] = str(profile)
    bench.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=bench.folder)))
        environment |= syncs.environment(bench.preload, place / "syncs", bench.delay_us)
        told = {**job, "workload": workload.kind, "peer": peer, "folder": str(place)}
        port = None
        if workload.needs_server:
            port = stack.enter_context(_server())
            told["url"] = f"http://127.0.0.1:{port}/item"
        processes = [
            stack.enter_context(_Process(python, PEERS[peer].module, {**told, "process": number}, environment))
            for number in range(workload.processes)
        ]
        if workload.kind != "start":
            for process in processes:
                process.ready()
            if port is not None:
                _most_in_flight(port)
            for process in processes:
                process.go()
        found = [process.figures() for process in processes]
        figures = _together(found)
        if port is not None:
            figures["most_in_flight"] = _most_in_flight(port)
    return _derived(workload.kind, told, figures)


class _Process:
    """One measured process and its side of the protocol."""

    def __init__(self, python: Path, module: str, job: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        told = json.dumps({**job, "runs": job.get("runs", 0), "spawned": time.monotonic()})
        self._name = f"{job['peer']} ({job['workload']})"
        self._process = subprocess.Popen(
            [python, "-m", f"benchmarks.peers.{module}", told],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip
        self._is_given_up = False
        self._limit = threading.Timer(LIMIT_S, self._give_up)

    def __enter__(self) -> Self:
        self._limit.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._limit.cancel()
        self._process.kill()
        self._process.communicate()

    def _give_up(self) -> None:
        self._is_given_up = True
        self._process.kill()

    def ready(self) -> None:
        self._expect("ready")

    def go(self) -> None:
        stdin: IO[str] | None = self._process.stdin
        assert stdin is not None
        stdin.write("go\n")
        stdin.flush()

    def figures(self) -> Figures:
        found: Figures = self._expect("figures")
        return found

    def _expect(self, name: str) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, said = self._process.communicate()
            why = f"was given up after {LIMIT_S:.0f} s" if self._is_given_up else "ended without figures"
            raise PeerFailedError(f"{self._name} {why}:\n{said[-4000:]}")
        return json.loads(line)[name]


def _together(found: list[Figures]) -> Figures:
    """The figures of processes that began at once, as of one."""
    if len(found) == 1:
        return found[0]
    figures: Figures = {
        name: None if found[0].get(name) is None else sum(one[name] for one in found)
        for name in ("cpu_s", "errors", "commits")
        if name in found[0]
    }
    figures |= {name: max(one[name] for one in found) for name in ("p99_ms", "max_ms", "syncs") if found[0].get(name)}
    figures["p50_ms"] = sorted(one["p50_ms"] for one in found)[len(found) // 2]
    figures["wall_s"] = max(one["ended"] for one in found) - min(one["began"] for one in found)
    figures["error"] = next((one["error"] for one in found if one["error"]), None)
    return figures


def _derived(kind: str, job: Mapping[str, Any], figures: Figures) -> Figures:
    """Figures for each run, item or step of what was found for all."""
    wall_s = figures["wall_s"]
    if kind == "runs":
        runs = job["runs_of_all"]
        figures |= {"runs": runs, "runs_per_s": runs / wall_s, "cpu_ms_per_run": 1000 * figures["cpu_s"] / runs}
        for name, one in (("syncs", "syncs_per_run"), ("commits", "commits_per_run")):
            if figures.get(name) is not None:
                figures[one] = figures[name] / runs
        if figures["syncs"] is not None:
            figures["syncs_per_step"] = figures["syncs"] / runs / STEPS
    elif kind == "map":
        figures |= {"wall_ms": 1000 * wall_s, "cpu_ms_per_item": 1000 * figures["cpu_s"] / job["items"]}
    elif kind == "start":
        figures["wall_ms"] = 1000 * wall_s
    elif kind == "step":
        # Nothing waits in a pure step, so its own CPU time is its cost, whoever else has the core meanwhile.
        figures["step_us"] = 1e6 * figures["cpu_s"] / (job["steps"] * job["laps"])
    figures.pop("began", None)
    figures.pop("ended", None)
    return figures


@contextmanager
def _server() -> Iterator[int]:
    """The port of a fresh server of workload W2."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.communicate()


def _most_in_flight(port: int) -> int:
    """The most calls in flight since this was last asked."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/most", timeout=5) as answer:
        most: int = json.load(answer)["most"]
    return most
