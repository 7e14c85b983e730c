"""What entering a state of each kind does: the snapshot, and the effects it asks for."""

from __future__ import annotations

import pytest

from engine.core import bounds
from engine.core.effect import Finish, Perform, Rest, StartMap, StopMap
from engine.core.event import MapFinished, TimerFired
from engine.core.snapshot import Status
from engine.core.step import pending
from tests.core.building import AT, BROKEN, CHILD, DONE, after, checked, failed, machine, returned, started

ACT = {
    "invoke": {"action": "do", "with": {"n": "${input.n + 1}", "of": "${run.id}"}, "timeout": 5},
    "on": {"done": "END"},
}
MAP = {
    "map": {"machine": "child", "items": "${input.items}", "key": "${item.k}", "assign": {"all": "${result.items}"}},
    "on": {"done": "END"},
}


def test_entering_an_action_asks_for_it_once() -> None:
    taken = started(machine({"A": ACT, "END": DONE}), {"n": 1})
    assert taken.effects == (Perform("do", {"n": 2, "of": "r1"}, 5.0, 1, "r1:A:1"),)
    assert (taken.snapshot.state, taken.snapshot.status, taken.snapshot.seq) == ("A", Status.RUNNING, 1)
    assert (taken.snapshot.visits, taken.snapshot.timers, taken.snapshot.started_at_ms) == ({"A": 1}, {}, AT)
    assert taken.taken == ()


def test_entering_a_compound_state_enters_its_initial_leaf() -> None:
    inner = {"initial": "IN", "timeout": 9, "states": {"IN": {"invoke": {"action": "do"}, "on": {"done": "END"}}}}
    taken = started(machine({"OUT": inner, "END": DONE}))
    assert taken.snapshot.state == "OUT.IN"
    assert taken.effects == (Perform("do", {}, 9.0, 1, "r1:OUT.IN:1"),)


def test_entering_a_map_asks_for_its_children() -> None:
    items = [{"k": "a"}, {"k": "b"}]
    program = machine({"M": {**MAP, "timeout": 60}, "END": DONE}, CHILD)
    taken = started(program, {"items": items})
    assert taken.effects == (StartMap("child", tuple(items), ("a", "b"), tuple(items), 4, None),)
    assert taken.snapshot.timers == {"timeout": AT + 60_000}
    assert pending(program, taken.snapshot) == taken.effects[0]


def test_input_and_quorum_of_a_map_are_rendered() -> None:
    call = {**MAP["map"], "input": {"v": "${item.k + '!'}"}, "min_success": "${size(input.items)}", "concurrency": 1}
    taken = started(machine({"M": {**MAP, "map": call}, "END": DONE}, CHILD), {"items": [{"k": "a"}]})
    assert taken.effects == (StartMap("child", ({"k": "a"},), ("a",), ({"v": "a!"},), 1, 1),)


def test_a_map_with_no_items_is_done_at_once_and_starts_nothing() -> None:
    taken = started(machine({"M": MAP, "END": {"type": "final", "output": "${context.all}"}}, CHILD), {"items": []})
    assert taken.effects == (Finish(),)
    assert (taken.snapshot.status, taken.snapshot.output, taken.snapshot.visits) == (
        Status.SUCCEEDED,
        [],
        {"M": 1, "END": 1},
    )


def test_a_map_that_is_entered_after_a_delay_and_has_no_items_was_never_started() -> None:
    """Only a map that an earlier step has recorded can be stopped."""
    go = {"on": {"go": {"target": "M", "after": 1}}}
    program = machine({"W": {"invoke": {"action": "do"}, "on": {"done": go["on"]["go"]}}, "M": MAP, "END": DONE}, CHILD)
    waiting = after(program, returned(), value={"items": []})
    taken = checked(program, waiting.snapshot, TimerFired(AT + 1000, "delay"))
    assert taken.effects == (Finish(),)


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ("no list", "no list"),
        ([{"k": "a"}, {"k": "a"}], "two items"),
        ([{"k": ""}], "non-empty"),
        ([{"k": 3}], "non-empty"),
        ([{"k": "x" * (bounds.KEY_CHARS_MAX + 1)}], "longer"),
    ],
    ids=["no list", "one key twice", "empty key", "key of another kind", "long key"],
)
def test_items_that_cannot_be_mapped_fail_the_state_as_map_invalid(items: object, why: str) -> None:
    caught = {**MAP, "catch": [{"errors": ["MAP_INVALID"], "target": "BAD", "assign": {"why": "${error.message}"}}]}
    program = machine({"M": caught, "END": DONE, "BAD": {"type": "final", "output": "${context.why}"}}, CHILD)
    taken = started(program, {"items": items})
    assert (taken.snapshot.state, taken.effects) == ("BAD", (Finish(),))
    assert why in taken.snapshot.output


@pytest.mark.parametrize("quorum", [-1, True, 1.5, "2"])
def test_a_quorum_that_is_no_count_fails_the_state(quorum: object) -> None:
    call = {**MAP["map"], "min_success": "${input.q}"}
    taken = started(machine({"M": {**MAP, "map": call}, "END": DONE}, CHILD), {"items": [{"k": "a"}], "q": quorum})
    assert (taken.snapshot.status, taken.snapshot.error["code"]) == (Status.FAILED, "MAP_INVALID")


def test_a_choice_takes_the_first_branch_whose_guard_holds() -> None:
    branches = [{"guard": "input.n > 2", "target": "A"}, {"guard": "input.n > 1", "target": "B"}, {"target": "C"}]
    program = machine({"CHOICE": {"always": branches}, "A": DONE, "B": DONE, "C": DONE})
    assert [started(program, {"n": n}).snapshot.state for n in (3, 2, 1)] == ["A", "B", "C"]
    assert [branch.number for branch in started(program, {"n": 2}).taken] == [1]


def test_a_chain_of_choices_sees_what_the_choice_before_it_assigned() -> None:
    states = {
        "ONE": {"always": {"target": "TWO", "assign": {"n": "${input.n * 2}"}}},
        "TWO": {"always": [{"guard": "context.n == 4", "target": "END"}, {"target": "BAD"}]},
        "END": DONE, "BAD": BROKEN,
    }  # fmt: skip
    taken = started(machine(states), {"n": 2})
    assert (taken.snapshot.state, taken.snapshot.seq, len(taken.taken)) == ("END", 1, 2)


def test_entering_a_wait_sets_its_timers() -> None:
    wait = {"on": {"go": "END"}, "after": {"30s": "END", "${input.n}": "END"}, "timeout": 90}
    taken = started(machine({"W": wait, "END": DONE}), {"n": 7})
    assert sorted(taken.snapshot.timers.values()) == [AT + 7_000, AT + 30_000, AT + 90_000]
    assert (taken.snapshot.status, taken.effects) == (Status.WAITING, (Rest(AT + 7_000),))


def test_a_wait_without_timers_rests_until_a_signal() -> None:
    taken = started(machine({"W": {"on": {"go": "END"}}, "END": DONE}))
    assert (taken.snapshot.timers, taken.effects) == ({}, (Rest(None),))


def test_a_final_state_gives_its_output_and_error() -> None:
    end = {"type": "final", "status": "CANCELLED", "output": {"n": "${input.n}"}, "error": {"code": "X"}}
    taken = started(machine({"C": {"always": "END"}, "END": end}), {"n": 3})
    assert (taken.snapshot.status, taken.snapshot.output, taken.snapshot.error) == (
        Status.CANCELLED,
        {"n": 3},
        {"code": "X"},
    )


def test_an_output_that_fails_ends_the_run_as_failed() -> None:
    taken = started(machine({"C": {"always": "END"}, "END": {"type": "final", "output": "${input.none}"}}))
    assert (taken.snapshot.status, taken.snapshot.state, taken.snapshot.output) == (Status.FAILED, "END", None)
    assert (taken.snapshot.error["code"], taken.effects) == ("EXPRESSION_FAILED", (Finish(),))


def test_parameters_that_fail_take_the_catch_of_the_state() -> None:
    caught = {**ACT, "catch": {"target": "BAD", "assign": {"code": "${error.code}"}}}
    program = machine({"A": caught, "END": DONE, "BAD": {"type": "final", "output": "${context.code}"}})
    taken = started(program, {"n": "text"})
    assert (taken.snapshot.state, taken.snapshot.output) == ("BAD", "EXPRESSION_FAILED")


@pytest.mark.parametrize("kind", ["action", "map", "wait"])
def test_pending_gives_the_effect_of_the_last_step_again(kind: str) -> None:
    states = {"action": ACT, "map": MAP, "wait": {"on": {"go": "END"}, "after": {"5s": "END"}}}
    program = machine({"S": states[kind], "END": DONE}, CHILD)
    taken = started(program, {"n": 1, "items": [{"k": "a"}]})
    assert pending(program, taken.snapshot) == taken.effects[-1]
    assert pending(program, type(taken.snapshot).decode(taken.snapshot.encode())) == taken.effects[-1]


def test_leaving_a_map_stops_it_however_it_is_left() -> None:
    caught = {**MAP, "timeout": 9, "cancel": "GONE", "catch": {"errors": ["TIMEOUT"], "target": "GONE"}}
    program = machine({"M": caught, "END": DONE, "GONE": BROKEN}, CHILD)
    running = started(program, {"items": [{"k": "a"}]}).snapshot
    stop = StopMap("M", 1)
    assert checked(program, running, MapFinished(AT, [])).effects == (stop, Finish())
    assert checked(program, running, TimerFired(AT + 9_000, "timeout")).effects == (stop, Finish())
    assert checked(program, running, failed("OTHER")).effects == (stop, Finish()), (
        "also when the run ends where it stands"
    )
