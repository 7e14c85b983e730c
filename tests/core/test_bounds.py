"""Every bound of `engine/core/bounds.py` at n - 1, n and n + 1, where the core or the runs enforce it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.core import bounds, canonical
from engine.core.action import ActionDeclaration, ActionKind, Failure
from engine.core.event import ActionReturned, RunStarted, StepRefused
from engine.core.retry import RetryPolicy, backoff
from engine.core.secret import Secrets
from engine.core.snapshot import Snapshot, Status
from engine.definition.compiler import compile_text
from engine.definition.yaml_text import parse
from engine.errors import InvalidRequestError
from engine.runs import commit
from engine.runs.records import ITEMS_PER_CHUNK
from engine.store.port import Key, document_text
from tests.core.building import AT, BROKEN, CHILD, DONE, after, checked, definition, fresh, machine, returned, started

NEAR = (-1, 0, 1)
NONE = Secrets()


def valid(source: dict[str, Any]) -> bool:
    actions = {"do": ActionDeclaration("do", ActionKind.REPEATABLE)}
    found = compile_text(canonical.encode(source), "small.yaml", actions, {"child": CHILD}.get)
    return not found.diagnostics


@pytest.mark.parametrize("more", NEAR)
def test_microsteps(more: int) -> None:
    """Ninety-nine choices and the final state are a hundred states."""
    choices = bounds.MICROSTEPS_MAX - 1 + more
    states: dict[str, Any] = {f"C{n}": {"always": f"C{n + 1}"} for n in range(choices)}
    taken = started(machine({**states, f"C{choices}": DONE}))
    assert taken.snapshot.status is (Status.FAILED if more > 0 else Status.SUCCEEDED)
    assert more <= 0 or taken.snapshot.error["code"] == "MICROSTEPS_EXCEEDED"


@pytest.mark.parametrize("more", NEAR)
def test_visits_without_a_bound_of_their_own(more: int) -> None:
    program = machine(
        {
            "A": {"max_visits": bounds.VISITS_MAX, "invoke": {"action": "choose"}, "on": {"left": "A", "right": "END"}},
            "END": DONE,
        }
    )
    here = started(program).snapshot._replace(visits={"A": bounds.VISITS_MAX - 1 + more})
    taken = checked(program, here, returned("left"))
    assert taken.snapshot.status is (Status.FAILED if more > 0 else Status.RUNNING)


def test_visits_beyond_the_bound_are_caught_once_and_then_end_the_run() -> None:
    again = {"invoke": {"action": "choose"}, "on": {"left": "A", "right": "END"}}
    states = {
        "A": {**again, "max_visits": 2, "catch": {"errors": ["VISITS_EXCEEDED"], "target": "B"}},
        "B": {**again, "max_visits": 9},
        "END": BROKEN,
    }
    program = machine(states)
    there = after(program, returned("left"), returned("left"))
    assert (there.snapshot.state, there.snapshot.visits) == ("B", {"A": 3, "B": 1}), "the third entry is caught"
    end = checked(program, there.snapshot, returned("left")).snapshot
    assert (end.state, end.status, end.error["code"]) == ("A", Status.FAILED, "VISITS_EXCEEDED")


@pytest.mark.parametrize("more", NEAR)
def test_items_of_a_map(more: int) -> None:
    call = {"map": {"machine": "child", "items": "${input.i}", "key": "${item}"}, "on": {"done": "END"}}
    taken = started(
        machine({"M": call, "END": DONE}, CHILD), {"i": [str(n) for n in range(bounds.MAP_ITEMS_MAX + more)]}
    )
    assert taken.snapshot.status is (Status.FAILED if more > 0 else Status.RUNNING)
    assert more <= 0 or taken.snapshot.error["code"] == "MAP_INVALID"


@pytest.mark.parametrize("more", NEAR)
def test_characters_of_an_items_key(more: int) -> None:
    call = {"map": {"machine": "child", "items": "${input.i}", "key": "${item}"}, "on": {"done": "END"}}
    taken = started(machine({"M": call, "END": DONE}, CHILD), {"i": ["k" * (bounds.KEY_CHARS_MAX + more)]})
    assert taken.snapshot.status is (Status.FAILED if more > 0 else Status.RUNNING)


@pytest.mark.parametrize("more", NEAR)
def test_seconds_of_a_delay(more: int) -> None:
    states = {"A": {"always": {"target": "END", "after": "${input.s}"}}, "END": DONE}
    taken = started(machine(states), {"s": bounds.DELAY_S_MAX + more})
    assert taken.snapshot.status is (Status.FAILED if more > 0 else Status.WAITING)
    assert backoff(2, bounds.DELAY_S_MAX + more, 1, None) == bounds.DELAY_S_MAX + min(more, 0)
    assert RetryPolicy(3).delay_s(1, bounds.DELAY_S_MAX + more, "s") == bounds.DELAY_S_MAX + min(more, 0)
    assert valid(definition({"W": {"after": {f"{bounds.DELAY_S_MAX + more}s": "END"}}, "END": DONE})) is (more <= 0)


@pytest.mark.parametrize("more", NEAR)
@pytest.mark.parametrize("letter", ["a", "ü"], ids=["one byte", "two bytes"])
def test_bytes_of_a_snapshot(more: int, letter: str) -> None:
    program = machine(
        {
            "A": {"invoke": {"action": "do", "assign": {"v": "${result}"}}, "on": {"done": "W"}},
            "W": {"on": {"go": "END"}},
            "END": DONE,
        }
    )
    here = started(program).snapshot
    size = len(after(program, returned(value="")).snapshot.encode())
    room = bounds.CONTEXT_BYTES_MAX - size + more
    value = letter * (room // len(letter.encode()))
    value += "x" * (room - len(value.encode()))
    taken = commit.advance(program, here, returned(value=value), NONE)
    assert isinstance(taken.event, StepRefused) is (more > 0)
    assert more <= 0 or taken.step.snapshot.error["code"] == "CONTEXT_TOO_LARGE"


@pytest.mark.parametrize("more", NEAR)
def test_bytes_of_an_event_though_nothing_keeps_what_it_brought(more: int) -> None:
    program = machine({"A": {"invoke": {"action": "do"}, "on": {"done": "W"}}, "W": {"on": {"go": "END"}}, "END": DONE})
    here = started(program).snapshot
    empty = canonical.encode({"at_ms": AT, "event": "action_returned", "name": "done", "value": ""})
    value = "x" * (bounds.EVENT_BYTES_MAX - len(empty) + more)
    taken = commit.advance(program, here, ActionReturned(AT, "done", value), NONE)
    assert isinstance(taken.event, StepRefused) is (more > 0)


@pytest.mark.parametrize("more", NEAR)
def test_bytes_of_the_inputs_of_a_map(more: int) -> None:
    call = {
        "map": {"machine": "child", "items": "${input.i}", "key": "${string(item)}", "input": {"b": "${input.b}"}},
        "on": {"done": "END"},
    }
    program = machine({"M": call, "END": DONE}, CHILD)
    count = 6 * ITEMS_PER_CHUNK  # six documents' worth of items, each of which would fit one
    names = list(range(100, 100 + count))
    chunks = [
        canonical.encode([[str(n), {"b": ""}] for n in names[at : at + ITEMS_PER_CHUNK]])
        for at in range(0, count, ITEMS_PER_CHUNK)
    ]
    room = bounds.MAP_INPUTS_BYTES_MAX - sum(map(len, chunks))
    value = {"i": names, "b": "x" * (room // count + more)}
    taken = commit.advance(program, fresh(program), RunStarted(AT, value), NONE)
    assert isinstance(taken.event, StepRefused) is (more > 0)


def test_inputs_of_items_too_large_for_a_document_are_refused() -> None:
    call = {
        "map": {"machine": "child", "items": "${input.i}", "key": "${item}", "input": {"b": "${input.b}"}},
        "on": {"done": "END"},
    }
    program = machine({"M": call, "END": DONE}, CHILD)
    value = {"i": [str(n) for n in range(20)], "b": "x" * 100_000}
    taken = commit.advance(program, fresh(program), RunStarted(AT, value), NONE)
    assert taken.step.snapshot.error["code"] == "MAP_INVALID"


def test_a_refusal_that_cannot_be_written_either_ends_the_run() -> None:
    """The catch of a step that was too large makes it too large again."""
    big = "x" * (bounds.CONTEXT_BYTES_MAX // 2)
    grow = {"target": "W", "assign": {"v": "${input.b + input.b}"}}
    state = {"invoke": {"action": "do", "assign": {"v": "${result}"}}, "on": {"done": "W"}, "catch": grow}
    program = machine({"A": state, "W": {"on": {"go": "END"}}, "END": DONE})
    taken = commit.advance(program, started(program, {"b": big}).snapshot, returned(value=big), NONE)
    assert taken.event == StepRefused(AT, Failure("CONTEXT_TOO_LARGE", taken.event.failure.message), is_last=True)
    assert (taken.step.snapshot.state, taken.step.snapshot.status) == ("A", Status.FAILED)


def long_run(seq: int) -> tuple[Any, Snapshot]:
    state = {"max_visits": 9000, "invoke": {"action": "choose"}, "on": {"left": "A", "right": "END"}, "catch": "B"}
    tidy = {"max_visits": 9000, "invoke": {"action": "choose"}, "on": {"left": "B", "right": "END"}}
    program = machine({"A": state, "B": tidy, "END": DONE})
    return program, started(program).snapshot._replace(seq=seq)


@pytest.mark.parametrize("more", NEAR)
def test_steps_of_a_run(more: int) -> None:
    program, here = long_run(bounds.JOURNAL_ENTRIES_MAX - 1 + more)
    taken = commit.advance(program, here, returned("left"), NONE)
    assert isinstance(taken.event, StepRefused) is (more == 0), "the first step too many is refused, once"
    assert taken.step.snapshot.state == ("B" if more == 0 else "A")
    ending = commit.advance(program, here, returned("right"), NONE)
    assert ending.step.snapshot.status is Status.SUCCEEDED, "a step that ends the run is never too many"


def test_a_run_that_is_too_long_has_steps_left_to_clean_up_and_then_ends() -> None:
    program, here = long_run(bounds.JOURNAL_ENTRIES_MAX - 1)
    taken = commit.advance(program, here, returned("left"), NONE)
    for _ in range(commit.LAST_STEPS - 1):
        taken = commit.advance(program, taken.step.snapshot, returned("left"), NONE)
        assert (taken.step.snapshot.state, taken.step.snapshot.status) == ("B", Status.RUNNING)
    last = commit.advance(program, taken.step.snapshot, returned("left"), NONE)
    assert last.step.snapshot.status is Status.FAILED
    assert last.step.snapshot.error["code"] == "JOURNAL_TOO_LONG"


@pytest.mark.parametrize("more", NEAR)
def test_the_last_step_of_a_run_that_is_too_long_is_for_no_catch(more: int) -> None:
    program, here = long_run(bounds.JOURNAL_ENTRIES_MAX + commit.LAST_STEPS - 1 + more)
    taken = commit.advance(program, here, returned("left"), NONE)
    assert isinstance(taken.event, StepRefused) is (more >= 0)
    assert (taken.step.snapshot.state, taken.step.snapshot.status) == (
        "A",
        Status.FAILED if more >= 0 else Status.RUNNING,
    )


@pytest.mark.parametrize("more", NEAR)
def test_values_that_are_too_deep_or_too_long_are_not_json(more: int) -> None:
    deep: Any = 1
    for _ in range(bounds.JSON_DEPTH_MAX + more):
        deep = [deep]
    wide = 2 ** (bounds.INTEGER_BITS_MAX + more) - 1
    for value in (deep, wide):
        if more > 0:
            with pytest.raises(ValueError, match="more than"):
                canonical.plain(value)
        else:
            assert canonical.decode(canonical.encode(canonical.plain(value))) == value


@pytest.mark.parametrize("more", NEAR)
def test_numbers_that_a_definition_may_ask_for(more: int) -> None:
    act = {"invoke": {"action": "do"}, "on": {"done": "END"}}
    retry = {"invoke": {"action": "do", "retry": {"attempts": bounds.ATTEMPTS_MAX + more}}, "on": {"done": "END"}}
    lanes = {
        "map": {"machine": "child", "items": [], "key": "k", "concurrency": bounds.MAP_CONCURRENCY_MAX + more},
        "on": {"done": "END"},
    }
    visits = {**act, "max_visits": bounds.VISITS_MAX + more}
    for state in (retry, lanes, visits):
        assert valid(definition({"S": state, "END": DONE})) is (more <= 0)


@pytest.mark.parametrize("more", NEAR)
def test_bytes_and_nodes_of_a_definition(more: int) -> None:
    text = "a: " + "x" * (bounds.DEFINITION_BYTES_MAX - 3 + more)
    assert bool(parse(text, "f").diagnostics) is (more > 0)
    nodes = "[" + ",".join(["1"] * (bounds.DEFINITION_NODES_MAX - 1 + more)) + "]"
    assert bool(parse(nodes, "f").diagnostics) is (more > 0)


@pytest.mark.parametrize("more", NEAR)
def test_bytes_of_a_document(more: int) -> None:
    document = {"v": "x" * (bounds.DOCUMENT_BYTES_MAX - len('{"v":""}') + more)}
    if more > 0:
        with pytest.raises(InvalidRequestError):
            document_text(Key("c", "d"), document)
    else:
        assert len(document_text(Key("c", "d"), document)) == bounds.DOCUMENT_BYTES_MAX + more


def test_every_bound_is_tested() -> None:
    """Here, or where they are met. What holds where nobody says otherwise is no bound, though it stands with them."""
    tests = Path(__file__).parent.parent
    names = (
        "core/test_bounds", "runner/test_perform", "runner/test_inbox", "runner/test_serving", "runner/test_budget",
        "runner/test_takeover", "definition/test_catalogue", "definition/test_yaml_text",
    )  # fmt: skip
    text = "".join((tests / f"{name}.py").read_text(encoding="utf-8") for name in names)
    known = [name for name in vars(bounds) if name.isupper() and not name.startswith("DEFAULT_")]
    assert [name for name in known if f"bounds.{name}" not in text] == []
