"""Properties of `step` over generated machines: it agrees with `transitions`, replays, refuses cleanly, and ends."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine.core import canonical, event
from engine.core.effect import Finish, Perform, Rest, StartMap
from engine.core.event import RunStarted
from engine.core.machine import Machine
from engine.core.snapshot import Snapshot
from engine.core.step import Step, pending, step
from engine.errors import IllegalEventError
from tests.core.building import AT, CHILD, compiled, fresh
from tests.core.generating import INPUTS, ODD, SEEDS, Wish, drawn, granted, rows
from tests.core.oracle import FINAL, Oracle

KEPT = settings(
    max_examples=50, phases=[Phase.generate], deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
ROWS = rows(5, 20)


def tried(program: Machine, snapshot: Snapshot, given_event: Any) -> Step | None:
    """`step`, held to its laws: no argument changes, twice is the same, an illegal event is said to be so."""
    before, same = snapshot.encode(), copy.deepcopy((snapshot, given_event))
    try:
        taken = step(program, snapshot, given_event)
    except IllegalEventError:
        taken = None
    else:
        assert step(program, *same) == taken, "equal arguments give equal results"
        assert taken.snapshot.seq == snapshot.seq + 1
        assert isinstance(taken.effects[-1], Finish | Perform | Rest | StartMap)
        assert pending(program, taken.snapshot) == taken.effects[-1]
    assert (snapshot.encode(), given_event) == (before, same[1])
    return taken


WAYS = {"on", "always", "after", "catch", "cancel", "Perform", "StartMap", "StopMap", "Rest", "Finish", "nested"}
WAYS |= {f"{name} taken" for name in ("ActionReturned", "ActionFailed", "TimerFired", "MapFinished", "SignalReceived")}
WAYS |= {"CancelRequested taken", "StepRefused taken", "succeeded", "failed", "cancelled", "running", "waiting"}


def test_a_step_goes_where_transitions_goes() -> None:
    """By every kind of way: the property would hold of machines that do nothing, so what was seen is counted."""
    seen: Counter[str] = Counter()

    @given(block=st.sampled_from(range(20)), seed=SEEDS, value=INPUTS, row=ROWS)
    @settings(KEPT, max_examples=300, database=None)
    def compare(block: int, seed: int, value: dict[str, Any], row: list[Wish]) -> None:
        definition = drawn(block, seed)
        program, oracle = compiled(definition, CHILD), Oracle(definition, value)
        snapshot = step(program, fresh(program), RunStarted(AT, value)).snapshot
        expect_equal(snapshot, oracle)
        for wish in row:
            moment = granted(program, snapshot, wish)
            taken = tried(program, snapshot, moment)
            assert (taken is not None) == oracle.take(moment)
            if taken is not None:
                snapshot = taken.snapshot
                seen.update(ways_of(moment, taken))
            expect_equal(snapshot, oracle)

    compare()
    assert {way for way in WAYS if not seen[way]} == set()


def ways_of(moment: Any, taken: Step) -> list[str]:
    found = [f"{type(moment).__name__} taken", taken.snapshot.status.value]
    found += [branch.event.partition(":")[0] for branch in taken.taken]
    return found + [type(effect).__name__ for effect in taken.effects] + ["nested"] * ("." in taken.snapshot.state)


def expect_equal(snapshot: Snapshot, oracle: Oracle) -> None:
    ours = (snapshot.state, snapshot.context, snapshot.visits, snapshot.attempt)
    assert ours == (oracle.state, oracle.context, oracle.visits, oracle.attempt)
    assert snapshot.status.is_final == (oracle.status in FINAL)
    assert not snapshot.status.is_final or snapshot.status.value.upper() == oracle.status


@pytest.mark.parametrize("block", range(5))
@given(seed=SEEDS, value=INPUTS, row=ROWS)
@KEPT
def test_a_replayed_journal_gives_the_snapshot_byte_for_byte(
    block: int, seed: int, value: dict[str, Any], row: list[Wish]
) -> None:
    program = compiled(drawn(block, seed), CHILD)
    snapshot, journal = fresh(program), []
    for wish in [None, *row]:
        moment = RunStarted(AT, value) if wish is None else granted(program, snapshot, wish)
        taken = tried(program, snapshot, moment)
        if taken is not None:
            snapshot = taken.snapshot
            journal.append(canonical.encode(event.to_json(moment)))
    again = Snapshot.decode(fresh(program).encode())
    for text in journal:
        fields: Any = canonical.decode(text)
        again = Snapshot.decode(step(program, again, event.from_json(fields)).snapshot.encode())
    assert again.encode() == snapshot.encode()


@pytest.mark.parametrize("block", range(5))
@given(
    seed=SEEDS,
    value=INPUTS,
    row=rows(0, 8, ODD),
    every=rows(4, 12, ODD, any_in=1),
)
@KEPT
def test_no_event_in_any_reachable_state_escapes_or_changes_what_it_may_not(
    block: int, seed: int, value: dict[str, Any], row: list[Wish], every: list[Wish]
) -> None:
    """Odd and huge values too: only `IllegalEventError` ever comes out, and then the snapshot is as it was."""
    program = compiled(drawn(block, seed), CHILD)
    snapshot = step(program, fresh(program), RunStarted(AT, value)).snapshot
    for wish in row:
        for other in every:
            tried(program, snapshot, granted(program, snapshot, other))
        taken = tried(program, snapshot, granted(program, snapshot, wish))
        snapshot = snapshot if taken is None else taken.snapshot


@pytest.mark.parametrize("block", range(5))
@given(seed=SEEDS, value=st.sampled_from(ODD))
@KEPT
def test_no_input_escapes(block: int, seed: int, value: Any) -> None:
    program = compiled(drawn(block, seed), CHILD)
    assert tried(program, fresh(program), RunStarted(AT, value)) is not None
