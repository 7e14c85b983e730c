"""What the speed of runs rests on, counted: commits and fsyncs do not depend on the machine."""

from __future__ import annotations

import pstats

import pytest

from benchmarks import measure as measurement
from benchmarks import syncs
from benchmarks.measure import Bench, PeerFailedError, measure
from benchmarks.workloads import WORKLOADS


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    return Bench(folder, syncs.compiled(folder))


def measured(bench, name, runs, in_flight):
    workload = WORKLOADS[name]
    job = {**workload.job, "runs": runs, "runs_of_all": runs, "in_flight": in_flight}
    return measure(bench, workload, "detent", job)


def test_a_run_of_five_steps_is_six_commits_and_hardly_more_fsyncs(bench):
    if bench.preload is None:
        pytest.skip("no C compiler: fsyncs cannot be counted")
    found = measured(bench, "w1-one", runs=100, in_flight=1)

    assert found["errors"] == 0
    assert found["commits_per_run"] == 6
    assert 6 <= found["syncs_per_run"] <= 6.6


def test_runs_in_flight_share_their_fsyncs(bench):
    if bench.preload is None:
        pytest.skip("no C compiler: fsyncs cannot be counted")
    found = measured(bench, "w1-many", runs=320, in_flight=64)

    assert found["errors"] == 0
    assert found["syncs_per_step"] <= 0.1


def test_a_map_keeps_its_cap_as_the_server_sees_it(bench):
    workload = WORKLOADS["w2-map"]
    found = measure(bench, workload, "detent", {**workload.job, "items": 200, "warm_up": 20})

    assert found["most_in_flight"] == 20


def test_a_program_that_ends_without_figures_is_told_with_what_it_said(bench):
    workload = WORKLOADS["w1-one"]._replace(kind="unknown")

    with pytest.raises(PeerFailedError, match="KeyError: 'unknown'"):
        measure(bench, workload, "detent", dict(workload.job))


def test_a_profile_names_what_was_run(bench, tmp_path):
    workload = WORKLOADS["w1-one"]
    job = {**workload.job, "runs": 10, "runs_of_all": 10}
    measure(bench, workload, "detent", job, profile=tmp_path / "one.prof")

    functions = {name for _, _, name in pstats.Stats(str(tmp_path / "one.prof")).stats}
    assert {"nothing", "step"} <= functions


def test_a_program_that_hangs_is_given_up(bench, monkeypatch):
    monkeypatch.setattr(measurement, "LIMIT_S", 0.0)
    workload = WORKLOADS["w1-one"]

    with pytest.raises(PeerFailedError, match="given up after 0 s"):
        measure(bench, workload, "detent", dict(workload.job))
