"""What each event does to a run that stands somewhere, and that one which does not fit changes nothing."""

from __future__ import annotations

import pytest

from engine.core.action import Failure
from engine.core.effect import Finish, Perform, Rest
from engine.core.event import CancelRequested, MapFinished, RunStarted, SignalReceived, StepRefused, TimerFired
from engine.core.snapshot import Status
from engine.errors import IllegalEventError
from tests.core.building import AT, BROKEN, CHILD, DONE, after, checked, failed, machine, returned, started

RETRY = {"attempts": 3, "errors": ["BAD"], "backoff": 2, "factor": 3, "backoff_max": 100}
LEFT = {"invoke": {"action": "choose", "assign": {"n": "${result.n}"}}}


def signal(name: str = "go", value: object = None) -> SignalReceived:
    return SignalReceived(AT, name, value, "s1")


# Outcomes


def test_an_outcome_assigns_then_guards_then_assigns_then_delays() -> None:
    """Each sees what came before it: the invoke's assign, the guard, the branch's assign, its delay."""
    left = {
        "guard": "context.n == 5 && result.n == 5",
        "target": "END",
        "assign": {"m": "${context.n + 1}"},
        "after": "${context.m}",
    }
    program = machine(
        {"A": {**LEFT, "on": {"left": [left, {"target": "BAD"}], "right": "BAD"}}, "END": DONE, "BAD": BROKEN}
    )
    taken = after(program, returned("left", {"n": 5}))
    assert (taken.snapshot.state, taken.snapshot.context) == ("END", {"n": 5, "m": 6})
    assert (taken.snapshot.status, taken.snapshot.timers, taken.effects) == (
        Status.WAITING,
        {"delay": AT + 6000},
        (Rest(AT + 6000),),
    )
    assert checked(program, taken.snapshot, TimerFired(AT + 6000, "delay")).snapshot.status is Status.SUCCEEDED


def test_values_of_one_assign_do_not_see_each_other() -> None:
    swap = {"target": "END", "assign": {"a": "${context.b}", "b": "${context.a}"}}
    states = {"A": {"always": {"target": "B", "assign": {"a": 1, "b": 2}}}, "B": {"always": swap}, "END": DONE}
    assert started(machine(states)).snapshot.context == {"a": 2, "b": 1}


def test_an_assign_that_fails_takes_the_catch_and_changes_nothing_else() -> None:
    states = {"A": {**LEFT, "on": {"left": "END", "right": "END"}, "catch": "BAD"}, "END": DONE, "BAD": BROKEN}
    taken = after(machine(states), returned("left", {}))
    assert (taken.snapshot.state, taken.snapshot.context) == ("BAD", {})


def test_an_interrupted_action_assigns_nothing() -> None:
    pay = {"invoke": {"action": "pay", "assign": {"n": "${result.n}"}}, "on": {"paid": "END", "interrupted": "BAD"}}
    taken = after(machine({"A": pay, "END": DONE, "BAD": BROKEN}), returned("interrupted"))
    assert (taken.snapshot.state, taken.snapshot.context) == ("BAD", {})


def test_an_outcome_that_the_state_does_not_handle_is_a_failure() -> None:
    taken = after(machine({"A": {"invoke": {"action": "do"}, "on": {"done": "END"}}, "END": DONE}), returned("other"))
    assert (taken.snapshot.status, taken.snapshot.error["code"]) == (Status.FAILED, "TRANSITION_MISSING")


def test_an_outcome_without_a_guard_that_holds_is_a_failure() -> None:
    on = {"done": {"guard": "result.ok", "target": "END"}}
    program = machine({"A": {"invoke": {"action": "do"}, "on": on}, "END": DONE})
    assert after(program, returned(value={"ok": False})).snapshot.error["code"] == "TRANSITION_MISSING"
    assert after(program, returned(value={"ok": 1})).snapshot.error["code"] == "EXPRESSION_FAILED"
    assert after(program, returned(value={"ok": True})).snapshot.status is Status.SUCCEEDED


@pytest.mark.parametrize("delay", [-1, True, "soon", 366 * 24 * 3600 + 1])
def test_a_delay_that_is_no_time_fails_before_the_transition(delay: object) -> None:
    on = {"done": {"target": "END", "assign": {"x": 1}, "after": "${result.d}"}}
    taken = after(machine({"A": {"invoke": {"action": "do"}, "on": on}, "END": DONE}), returned(value={"d": delay}))
    assert (taken.snapshot.state, taken.snapshot.context, taken.taken) == ("A", {}, ())
    assert taken.snapshot.error["code"] == "EXPRESSION_FAILED"


# Failures, retry, catch


def test_a_failure_is_tried_again_with_growing_delays_and_then_caught() -> None:
    state = {
        "invoke": {"action": "do", "retry": RETRY},
        "on": {"done": "END"},
        "catch": {"target": "BAD", "assign": {"e": "${error}"}},
    }
    program = machine({"A": state, "END": DONE, "BAD": BROKEN})
    first = after(program, failed())
    assert (first.snapshot.attempt, first.snapshot.timers, first.effects) == (
        2,
        {"retry": AT + 2000},
        (Rest(AT + 2000),),
    )
    again = checked(program, first.snapshot, TimerFired(AT + 2000, "retry"))
    assert again.effects == (Perform("do", {}, None, 2, "r1:A:1"),), "the idempotency key stays"
    second = checked(program, again.snapshot, failed(at_ms=AT + 2000))
    assert (second.snapshot.attempt, second.snapshot.timers) == (3, {"retry": AT + 8000})
    third = checked(program, second.snapshot, TimerFired(AT + 8000, "retry"))
    last = checked(program, third.snapshot, failed(at_ms=AT + 8000))
    assert (last.snapshot.state, last.snapshot.attempt) == ("BAD", 1)
    assert last.snapshot.context == {"e": {"code": "BAD", "message": "it was BAD", "retriable": False}}


def test_a_failure_that_no_retry_covers_is_not_tried_again() -> None:
    program = machine({"A": {"invoke": {"action": "do", "retry": RETRY}, "on": {"done": "END"}}, "END": DONE})
    assert after(program, failed("OTHER", retriable=True)).snapshot.status is Status.FAILED


def test_the_first_retry_that_covers_a_failure_decides() -> None:
    policies = [{"attempts": 1, "errors": ["BAD"]}, {"attempts": 9}]
    program = machine({"A": {"invoke": {"action": "do", "retry": policies}, "on": {"done": "END"}}, "END": DONE})
    assert after(program, failed("BAD", retriable=True)).snapshot.status is Status.FAILED
    assert after(program, failed("OTHER", retriable=True)).snapshot.timers == {"retry": AT + 1000}


def test_catches_are_asked_from_the_inside_out() -> None:
    inner = {
        "invoke": {"action": "do"},
        "on": {"done": "END"},
        "catch": [{"errors": ["INNER"], "target": "A"}, {"guard": "error.retriable", "target": "B"}],
    }
    outer = {"initial": "IN", "catch": {"errors": ["OUTER"], "target": "C"}, "states": {"IN": inner}}
    program = machine({"OUT": outer, "A": DONE, "B": DONE, "C": DONE, "END": DONE})
    assert after(program, failed("INNER")).snapshot.state == "A"
    assert after(program, failed("OUTER", retriable=True)).snapshot.state == "B"
    assert after(program, failed("OUTER")).snapshot.state == "C"
    none = after(program, failed("NONE"))
    assert (none.snapshot.state, none.snapshot.status, none.effects) == ("OUT.IN", Status.FAILED, (Finish(),))


def test_a_catch_that_cannot_be_evaluated_leaves_its_turn_to_the_next() -> None:
    catch = [{"guard": "error.details.x > 1", "target": "A"}, {"target": "B"}]
    program = machine({"S": {"invoke": {"action": "do"}, "on": {"done": "A"}, "catch": catch}, "A": DONE, "B": DONE})
    assert after(program, failed()).snapshot.state == "B"


def test_a_catch_does_not_cover_the_state_that_it_leads_to() -> None:
    inner = {
        "A": {"invoke": {"action": "do"}, "on": {"done": "END"}},
        "CLEANING": {"invoke": {"action": "do"}, "on": {"done": "END"}},
    }
    program = machine({"OUT": {"initial": "A", "catch": "OUT.CLEANING", "states": inner}, "END": DONE})
    cleaning = after(program, failed())
    assert cleaning.snapshot.state == "OUT.CLEANING"
    assert checked(program, cleaning.snapshot, failed()).snapshot.status is Status.FAILED


# Timers


def test_a_timer_fires_when_it_is_due_and_not_before() -> None:
    program = machine({"W": {"on": {"go": "END"}, "after": {"5s": "END"}}, "END": DONE})
    waiting = started(program).snapshot
    name = next(iter(waiting.timers))
    with pytest.raises(IllegalEventError, match="1 ms later"):
        checked(program, waiting, TimerFired(AT + 4999, name))
    assert checked(program, waiting, TimerFired(AT + 5000, name)).snapshot.status is Status.SUCCEEDED


def test_a_timeout_of_a_wait_or_a_map_is_a_failure_that_may_be_caught() -> None:
    call = {"map": {"machine": "child", "items": "${input.i}", "key": "${item}"}, "on": {"done": "END"}}
    for state in ({"on": {"go": "END"}}, call):
        caught = {**state, "timeout": 3, "catch": {"errors": ["TIMEOUT"], "target": "LATE"}}
        program = machine({"S": caught, "END": DONE, "LATE": BROKEN}, CHILD)
        assert after(program, TimerFired(AT + 3000, "timeout"), value={"i": ["a"]}).snapshot.state == "LATE"


# Maps, signals, cancels


def test_a_finished_map_assigns_its_items() -> None:
    call = {
        "map": {"machine": "child", "items": "${input.i}", "key": "${item}", "assign": {"n": "${size(result.items)}"}}
    }
    program = machine(
        {
            "M": {**call, "on": {"done": [{"guard": "context.n == 1", "target": "END"}, {"target": "BAD"}]}},
            "END": DONE,
            "BAD": BROKEN,
        },
        CHILD,
    )
    assert after(program, MapFinished(AT, [{"key": "a"}]), value={"i": ["a"]}).snapshot.state == "END"


def test_a_signal_is_taken_by_name_with_its_value() -> None:
    on = {"go": {"target": "END", "assign": {"v": "${result.v}"}}, "stop": "BAD"}
    program = machine({"W": {"on": on, "after": {"5s": "BAD"}}, "END": DONE, "BAD": BROKEN})
    taken = after(program, signal("go", {"v": 7}))
    assert (taken.snapshot.state, taken.snapshot.context, taken.snapshot.timers) == ("END", {"v": 7}, {})
    with pytest.raises(IllegalEventError, match="'other'"):
        after(program, signal("other"))


def test_a_signal_does_not_reach_a_wait_that_has_not_begun() -> None:
    states = {
        "A": {"invoke": {"action": "do"}, "on": {"done": {"target": "W", "after": 9}}},
        "W": {"on": {"go": "END"}},
        "END": DONE,
    }
    with pytest.raises(IllegalEventError, match="not begun"):
        after(machine(states), returned(), signal())


def test_a_cancel_goes_its_way_or_ends_the_run() -> None:
    ask = CancelRequested(AT, "enough")
    plain = {"A": {"invoke": {"action": "do"}, "on": {"done": "END"}}, "END": DONE}
    ended = after(machine(plain), ask)
    assert (ended.snapshot.status, ended.snapshot.error["message"]) == (Status.CANCELLED, "enough")
    inner = {**plain["A"], "on": {"done": "END"}}
    way = {
        "initial": "A",
        "cancel": {"target": "OUT.TIDY", "assign": {"why": "${error.message}"}},
        "states": {"A": inner, "TIDY": inner},
    }
    program = machine({"OUT": way, "END": DONE})
    tidying = after(program, ask)
    assert (tidying.snapshot.state, tidying.snapshot.context) == ("OUT.TIDY", {"why": "enough"})
    with pytest.raises(IllegalEventError, match="on the way"):
        checked(program, tidying.snapshot, ask)


def test_a_refused_step_takes_the_catch_unless_it_is_the_last() -> None:
    state = {"invoke": {"action": "do"}, "on": {"done": "END"}, "catch": "BAD"}
    program = machine({"A": state, "END": DONE, "BAD": {**BROKEN, "output": "caught"}})
    refusal = StepRefused(AT, Failure("CONTEXT_TOO_LARGE", "too large"))
    assert after(program, refusal).snapshot.output == "caught"
    last = after(program, refusal._replace(is_last=True))
    assert (last.snapshot.state, last.snapshot.status, last.snapshot.error["code"]) == (
        "A",
        Status.FAILED,
        "CONTEXT_TOO_LARGE",
    )


# What does not fit


EVERY = {
    "started": RunStarted(AT, {}), "returned": returned(), "failed": failed(), "fired": TimerFired(AT, "delay"),
    "map": MapFinished(AT, []), "signal": signal(), "cancel": CancelRequested(AT, ""),
    "refused": StepRefused(AT, Failure("X", "x")),
}  # fmt: skip
CALL = {"map": {"machine": "child", "items": ["a"], "key": "${item}"}, "on": {"done": "END"}}
STANDING = {
    "before its start": (None, {"started", "cancel", "refused"}),
    "action": ({"invoke": {"action": "do"}, "on": {"done": "END"}}, {"returned", "failed", "cancel", "refused"}),
    "map": (CALL, {"map", "failed", "cancel", "refused"}),
    "wait": ({"on": {"go": "END"}}, {"signal", "cancel", "refused"}),
    "delayed action": ({"always": {"target": "LATER", "after": 0.001}}, {"cancel", "refused"}),
    "final": ({"always": "END"}, set()),
}


@pytest.mark.parametrize("event", EVERY)
@pytest.mark.parametrize("where", STANDING)
def test_what_does_not_fit_is_illegal_and_changes_nothing(where: str, event: str) -> None:
    state, fitting = STANDING[where]
    later = {"LATER": {"invoke": {"action": "do"}, "on": {"done": "END"}}} if where == "delayed action" else {}
    program = machine({"S": state or {"always": "END"}, **later, "END": DONE}, CHILD)
    from tests.core.building import fresh

    snapshot = fresh(program) if state is None else started(program).snapshot
    if event in fitting:
        assert checked(program, snapshot, EVERY[event]).snapshot.seq == snapshot.seq + 1
    else:
        with pytest.raises(IllegalEventError) as caught:
            checked(program, snapshot, EVERY[event])
        assert "r1" in caught.value.message
        assert caught.value.remedy
