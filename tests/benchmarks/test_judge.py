"""Verdicts: what is a promise kept, what one broken, and what does not count."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks import small
from benchmarks.environments import PEERS
from benchmarks.judge import judged, unmeasured
from benchmarks.report import BEGIN, END, on_terminal, placed, summary_sheet, targets_sheet, workload_sheets
from benchmarks.rounds import job_of, medians, ratio
from benchmarks.targets import TARGETS, Against, Target
from benchmarks.workloads import WORKLOADS

TWICE = Target("w1-one", "runs_per_s", ">=", 2, "why", Against("huey"))
SIX = Target("w1-one", "commits_per_run", "==", 6, "why", disks=("bare", "slow"))


def rates(*values):
    return [{"runs_per_s": value, "commits_per_run": 6.0, "errors": 0} for value in values]


def test_a_slow_round_of_the_machine_cancels_out():
    assert ratio(rates(100, 10, 100), rates(50, 5, 50), "runs_per_s") == (2, 2, 2)


def test_a_ratio_is_the_median_of_the_rounds_with_its_spread():
    assert ratio(rates(100, 200, 300), rates(100, 100, 100), "runs_per_s") == (2, 1, 3)


@pytest.mark.parametrize(("ours", "is_miss"), [(199, True), (200, False), (201, False)])
def test_a_target_is_missed_below_its_bound(ours, is_miss):
    [verdict] = judged([TWICE], "bare", {"w1-one": {"detent": rates(ours), "huey": rates(100)}})

    assert verdict.is_miss is is_miss


def test_what_is_not_promised_on_a_disk_is_shown_and_not_missed():
    [verdict] = judged([TWICE], "slow", {"w1-one": {"detent": rates(100), "huey": rates(100)}})

    assert (verdict.holds, verdict.is_miss) == (False, False)
    assert "not promised here" in targets_sheet([verdict]).rows[0]


@pytest.mark.parametrize(("commits", "holds"), [(5.99, False), (6.0, True), (6.01, False)])
def test_an_exact_count_admits_no_other(commits, holds):
    [verdict] = judged([SIX], "slow", {"w1-one": {"detent": [{"commits_per_run": commits}]}})

    assert verdict.holds is holds


def test_one_refusal_in_any_round_counts():
    target = Target("w1-processes", "errors", "<=", 0, "why")
    rounds = [{"errors": 0}, {"errors": 1}, {"errors": 0}]

    [verdict] = judged([target], "bare", {"w1-processes": {"detent": rounds}})

    assert verdict.is_miss
    assert medians(rounds)["errors"] == 1


@pytest.mark.parametrize(
    "rounds", [{}, {"detent": rates(1)}, {"detent": [], "huey": []}], ids=["none", "ours", "empty"]
)
def test_a_target_whose_peers_were_not_measured_is_told_of(rounds):
    verdicts = judged([TWICE], "bare", {"w1-one": rounds})

    assert verdicts == []
    assert unmeasured([TWICE], verdicts) == [TWICE]


def test_every_target_speaks_of_what_is_measured():
    for target in TARGETS:
        assert target.peer in WORKLOADS[target.workload].peers, target
        if target.against is not None:
            assert target.against.peer in WORKLOADS[target.against.workload or target.workload].peers, target


def test_every_peer_is_a_program_and_takes_part():
    for peer in PEERS.values():
        assert importlib.util.find_spec(f"benchmarks.peers.{peer.module}") is not None
    assert {name for workload in WORKLOADS.values() for name in workload.peers} == set(PEERS)


def test_ci_gates_no_time():
    times = {"wall_ms", "step_us", "max_ms", "p50_ms"}

    assert [target for target in small.GATED if target.figure in times and target.against is None] == []
    assert len(small.GATED) > 10


def test_a_bound_of_ci_is_never_stricter_than_the_target():
    for target in TARGETS:
        if target.in_ci is not None:
            assert target.holds(target.in_ci) or target._replace(value=target.in_ci).holds(target.value), target


@pytest.mark.parametrize("delay_us", [0, 1000])
@pytest.mark.parametrize("name", [name for name, workload in WORKLOADS.items() if workload.kind == "runs"])
def test_every_process_makes_the_same_number_of_runs(name, delay_us):
    workload = WORKLOADS[name]
    for peer in workload.peers:
        job = job_of(workload, peer, delay_us, small=False)

        assert job["runs"] * workload.processes == job["runs_of_all"] >= job["in_flight"] * workload.processes


def test_the_tables_show_every_peer_and_target():
    figures = {"p50_ms": 1.0, "max_ms": 2.0, "syncs_per_run": None, "cpu_ms_per_run": 1.0}
    rounds = {name: [{**one, **figures} for one in rates(value)] for name, value in (("detent", 100), ("huey", 50))}
    found = {"bare": {"w1-one": rounds}}
    text = on_terminal([*workload_sheets(found), targets_sheet(judged([TWICE, SIX], "bare", found["bare"]))])

    assert all(part in text for part in ("Huey", "2.00 (2.00 to 2.00)", "runs/s >= 2 × Huey", "commits/run == 6", "–"))
    assert [row[0] for row in summary_sheet(found, []).rows] == ["detent", "Huey"]


def test_figures_are_put_between_the_marks_and_nowhere_else():
    assert placed(f"a\n{BEGIN}\nold\n{END}\nb\n", "new") == f"a\n{BEGIN}\nnew\n{END}\nb\n"
    with pytest.raises(ValueError, match="benchmarks: begin"):
        placed("no marks", "new")
