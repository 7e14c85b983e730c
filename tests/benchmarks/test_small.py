"""The gate of CI: what it misses it measures again, with everybody that it is compared with."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import small
from benchmarks.measure import Bench

BENCH = Bench(Path("nowhere"), Path("library"))

FIGURES = {
    "runs_per_s": 100.0, "commits_per_run": 6.0, "syncs_per_run": 6.0, "syncs_per_step": 0.02, "errors": 0, "wall_ms": 1.0,
    "most_in_flight": 20, "step_us": 1.0, "in_flight_kib": 1.0, "resting_kib": 0.0,
}  # fmt: skip


@pytest.fixture
def measurements(monkeypatch):
    """Every measurement as (workload, peers, rounds), with invented figures that `slow` decides."""
    made = []
    slow = {"until": 0}

    def rounds(bench, workload, peers, rounds, small):
        made.append((workload.name, tuple(peers), rounds))
        is_slow = len(made) <= slow["until"]

        def figures(peer):
            is_fast = peer == "detent" and not is_slow
            rate = {"w1-one": 1000, "w1-many": 5000, "w1-processes": 1000}.get(workload.name, 1)
            slow_rate = 5 if peer == "detent" else 10
            return FIGURES | {"runs_per_s": rate if is_fast else slow_rate, "step_us": 0.1 if is_fast else 1.0}

        return {peer: [figures(peer)] * rounds for peer in peers}

    monkeypatch.setattr(small, "measure_rounds", rounds)
    return made, slow


def test_a_gate_that_holds_measures_once(measurements):
    made, _ = measurements
    _, verdicts = small.gate(BENCH)

    assert [verdict for verdict in verdicts if verdict.is_miss] == []
    assert {rounds for _, _, rounds in made} == {small.ROUNDS}
    assert small.blind_spots(BENCH, verdicts) == []


def test_what_is_missed_is_measured_again_with_all_that_it_is_compared_with(measurements):
    made, slow = measurements
    slow["until"] = 1  # the first workload, W1 one at a time
    _, verdicts = small.gate(BENCH)

    first, *again = [(name, peers) for name, peers, rounds in made if rounds == small.ROUNDS_AGAIN]
    assert first == ("w1-one", ("detent", "sqlite3", "huey"))
    assert [verdict for verdict in verdicts if verdict.is_miss] == []
    assert small.blind_spots(BENCH, verdicts) == []


def test_what_stays_slow_is_a_miss(measurements):
    _, slow = measurements
    slow["until"] = 1000
    _, verdicts = small.gate(BENCH)

    missed = {verdict.target.against.peer for verdict in verdicts if verdict.is_miss and verdict.target.against}
    assert {"huey", "sqlite3"} & missed == {"huey"}  # half of bare SQLite's rate would do; half of Huey's does not


def test_fsyncs_that_nobody_could_count_are_no_blind_spot_without_a_compiler():
    uncounted = [target for target in small.GATED if target.figure.startswith("syncs")]
    others = [target for target in small.GATED if target not in uncounted]

    assert small.blind_spots(BENCH._replace(preload=None), []) == others
    assert small.blind_spots(BENCH, []) == list(small.GATED)
