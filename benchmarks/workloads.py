"""What is measured: each workload as data, with those that take part and how much each does in a round.

`job` is what a peer is told; `few` replaces parts of it for the small benchmark. Where a peer is so slow that a round
of it would take minutes its `share` of the runs is made, which the results record: a rate is a rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple


class Workload(NamedTuple):
    """One row of the issue's table, or a part of one. `kind` names the function of a peer that does it.

    `is_once`: it takes turns within one process, so one round of it is enough.
    """

    name: str
    title: str
    kind: str
    peers: tuple[str, ...]
    job: Mapping[str, Any]
    few: Mapping[str, Any]
    processes: int = 1
    needs_server: bool = False
    is_on_slow_disk: bool = True
    is_once: bool = False


_RUNS: Final = {"runs": 1000, "in_flight": 1, "warm_up": 20}
_STEPS: Final = {"steps": 5000, "laps": 4}
_SLOWER: Final = ("huey", "burr", "langgraph", "dbos")

SHARE: Final = {"huey": 0.5, "burr": 0.5, "langgraph": 0.3, "dbos": 0.2}
"""The part of a workload's runs that a peer makes in a round, so that no peer takes most of the benchmark's time."""

SLOW_DISK_SHARE: Final = 0.2
"""The part of all runs made with 1 ms added to each fsync."""

WORKLOADS: Final[dict[str, Workload]] = {
    workload.name: workload
    for workload in (
        Workload(
            "w1-one",
            "W1: runs of 5 recorded steps, one at a time",
            "runs",
            ("detent", "sqlite3", "apsw", *_SLOWER),
            _RUNS,
            {"runs": 200},
        ),
        Workload(
            "w1-many",
            "W1: the same, 64 in flight",
            "runs",
            ("detent", "apsw", *_SLOWER),
            {**_RUNS, "runs": 2000, "in_flight": 64, "warm_up": 64},
            {"runs": 640},
        ),
        Workload(
            "w1-processes",
            "W1: the same, from 4 processes on one file, one at a time each",
            "runs",
            ("detent", "sqlite3", "huey", "burr", "langgraph", "dbos"),
            _RUNS,
            {"runs": 400},
            processes=4,
        ),
        Workload(
            "w2-map",
            "W2: a map of 1000 HTTP calls of 5 ms, 20 at a time, each recorded",
            "map",
            ("detent", "aiohttp", "detent-httpx", "httpx", *_SLOWER),
            {"items": 1000, "in_flight": 20, "warm_up": 40},
            {},
            needs_server=True,
        ),
        Workload(
            "w3-start",
            "W3: process start to the first recorded step",
            "start",
            ("detent", "script", *_SLOWER),
            {},
            {},
            is_on_slow_disk=False,
        ),
        Workload(
            "w4-signal",
            "W4: one pure step, a state that waits for a signal",
            "step",
            ("detent", "dict", "transitions", "sismic", "statemachine"),
            {**_STEPS, "ring": "signal"},
            {},
            is_on_slow_disk=False,
        ),
        Workload(
            "w4-guard",
            "W4: the same with a guard",
            "step",
            ("detent", "dict", "transitions", "sismic", "statemachine"),
            {**_STEPS, "ring": "signal_guarded"},
            {},
            is_on_slow_disk=False,
        ),
        Workload(
            "w4-action",
            "W4: one pure step, a state that asks for an action",
            "step",
            ("detent", "dict", "transitions"),
            {**_STEPS, "ring": "action"},
            {},
            is_on_slow_disk=False,
        ),
        Workload(
            "w5-stored",
            "W5: runs of 5 steps, one at a time, with 1,000 and with 100,000 runs stored",
            "stored",
            ("detent",),
            {"few": 1_000, "many": 100_000, "turns": 10},
            {"many": 5_000},
            is_on_slow_disk=False,
            is_once=True,
        ),
        Workload(
            "w5-items",
            "W5: an item of a map of 100 and of one of 10,000",
            "items",
            ("detent",),
            {"few": 100, "many": 10_000, "turns": 3},
            {"many": 2_000},
            is_on_slow_disk=False,
            is_once=True,
        ),
        Workload(
            "w5-memory",
            "W5: memory of a run",
            "memory",
            ("detent",),
            {"in_flight": 900, "resting": 5_000},  # and a tenth before them: an engine drives 1,000 at the most
            {"resting": 3_000},
            is_on_slow_disk=False,
            is_once=True,
        ),
    )
}
