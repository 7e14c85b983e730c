"""Every transition of both machines is taken by a scenario, and retargeting any one makes a scenario fail."""

from __future__ import annotations

from functools import cache

import pytest

from engine.core.action import Failure
from engine.core.event import ActionFailed, CancelRequested
from engine.core.snapshot import Status, empty
from engine.core.step import step
from engine.runs import commit
from tests.end_to_end.chart_export_world import MACHINE, RUN_ID, STEP_ID, export
from tests.end_to_end.crash import CRASH, export_with_a_crash_during_the_call
from tests.end_to_end.scenarios import TABLE, Expected, check

# The scenario that needs more than one process, beside the table.
CRASH_EXPECTED = Expected("SUCCEEDED", "SUCCEEDED", items=["a"], used={"acc1": 2}, calls=2)


def written(machine):
    """The transitions as they stand in the text: what a leaf inherits counts where it is written."""
    return {branch.position: branch for branch in machine.branches()}


def run(name, machine=None):
    if name == CRASH:
        return export_with_a_crash_during_the_call(machine)
    scenario = TABLE[name][0]()
    scenario.machine = machine
    return export(scenario)


def expected_of(name):
    return CRASH_EXPECTED if name == CRASH else TABLE[name][1]


@cache
def takers():
    """Scenario names by the transition, (machine, line), that they take."""
    found = {}
    lines = {
        (machine.name, branch.source, branch.event, branch.number): (machine.name, branch.position)
        for machine in (MACHINE, MACHINE.children["chart_request"])
        for branch in machine.branches()
    }
    for name in [*TABLE, CRASH]:
        for taken in run(name).taken:
            found.setdefault(lines[taken], []).append(name)
    return found


def all_written():
    machines = (MACHINE, MACHINE.children["chart_request"])
    return [(machine.name, position) for machine in machines for position in sorted(written(machine))]


def line(case):
    machine, position = case
    return f"{machine}:{position.line}"


def is_cancel(case):
    """A transition that only a cancelled run takes: tests/end_to_end/test_steering.py takes those."""
    machine, position = case
    branch = written(MACHINE if machine == "chart_export" else MACHINE.children[machine])[position]
    return branch.event == "cancel" or branch.source == "RELEASING"


def test_a_crash_during_the_call_costs_one_unit():
    check(run(CRASH), CRASH_EXPECTED, CRASH)


def standing_in(state):
    """A snapshot of a claimed step that stands in `state`."""
    context = {"step": {"run_id": RUN_ID, "step_id": STEP_ID, "claimed_at": "2026-01-05T09:30:00Z"}, "error": None}
    found = empty("run", MACHINE.name, MACHINE.version, MACHINE.digest, "key")
    return found._replace(seq=2, state=state, status=Status.RUNNING, context=context, visits={state: 1})


@pytest.mark.parametrize(
    "state", [name for name in MACHINE.states if name.startswith("RUNNING.") and name != "RUNNING.FAILING"]
)
def test_a_cancelled_run_fails_its_step(state):
    after = step(MACHINE, standing_in(state), CancelRequested(1, "enough")).snapshot

    assert (after.state, after.context["error"]["code"]) == ("RUNNING.FAILING", "CHART_API_FAILED")


@pytest.mark.parametrize(
    "state", [name for name in MACHINE.states if name.startswith("RUNNING.") and name != "RUNNING.FAILING"]
)
def test_no_failure_leaves_a_claimed_step_running(state):
    after = step(MACHINE, standing_in(state), ActionFailed(1, Failure("SOMETHING_NEW", "unheard of"))).snapshot

    assert after.state == "RUNNING.FAILING"


@pytest.mark.parametrize("case", all_written(), ids=line)
def test_every_transition_is_taken(case):
    assert takers().get(case) or is_cancel(case)


def retargeted(machine, position, target):
    """The compiled machine with one written transition leading elsewhere."""

    def changed(branch):
        return branch._replace(target=target) if branch.position == position else branch

    states = {
        name: state._replace(branches={event: tuple(map(changed, group)) for event, group in state.branches.items()})
        for name, state in machine.states.items()
    }
    return machine._replace(states=states, digest=f"{machine.digest}-{position.line}-{target}")


def mutants(case):
    name, position = case
    child = MACHINE.children["chart_request"]
    machine = MACHINE if name == MACHINE.name else child
    original = written(machine)[position].target
    for target in machine.states:
        if target == original:
            continue
        mutant = retargeted(machine, position, target)
        if machine is MACHINE:
            yield target, mutant
        else:
            parent = MACHINE._replace(children={name: mutant}, digest=f"{MACHINE.digest}-{mutant.digest}")
            yield target, parent


def is_caught(names, machine):
    for name in names:
        try:
            check(run(name, machine), expected_of(name), name)
        except Exception:
            return True
    return False


@pytest.mark.parametrize("case", [case for case in all_written() if not is_cancel(case)], ids=line)
def test_retargeting_it_makes_a_scenario_fail(case, monkeypatch):
    # A mutant may loop; a run that takes this many steps has gone astray.
    monkeypatch.setattr(commit, "JOURNAL_ENTRIES_MAX", 40)
    monkeypatch.setattr(commit, "LAST_STEPS", 5)
    survivors = [target for target, machine in mutants(case) if not is_caught(takers()[case], machine)]

    assert [] == survivors
