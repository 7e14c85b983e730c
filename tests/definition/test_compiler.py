"""Declarations to a machine: flattening, inheritance, the resolution of names, the digest and the structure."""

from __future__ import annotations

import pytest

from engine.core.machine import StateKind
from engine.core.snapshot import Status
from tests.definition.declared import HERE, check, compiled

NESTED = """\
machine: nested
initial: OUTER
states:
  OUTER:
    initial: INNER
    timeout: 1m
    status: FAILED
    catch: [{errors: [TIMEOUT], target: LATE}, {target: HELP}]
    cancel: HELP
    states:
      INNER:
        initial: WORK
        timeout: 2m
        catch: {errors: [INTERNAL], target: OUTER.HELP}
        states:
          WORK: {invoke: {action: shop.ship}, on: {done: SHORT}, catch: {guard: error.retriable, target: LATE}}
          SHORT: {invoke: {action: shop.ship, timeout: 5s}, timeout: 9s, on: {done: LATE}, cancel: LATE}
      HELP: {invoke: {action: shop.ship}, on: {done: ENDED}}
      ENDED: {type: final}
  LATE: {type: final}
"""


def targets(machine, leaf, event):
    return [branch.target for branch in machine.states[leaf].branches.get(event, ())]


def test_nested_states_are_flattened_to_leaves_in_the_order_of_the_text():
    machine = compiled(NESTED)

    assert list(machine.states) == ["OUTER.INNER.WORK", "OUTER.INNER.SHORT", "OUTER.HELP", "OUTER.ENDED", "LATE"]
    assert machine.initial == "OUTER.INNER.WORK"


def test_catches_are_inherited_from_the_inside_out():
    machine = compiled(NESTED)

    assert targets(machine, "OUTER.INNER.WORK", "catch") == ["LATE", "OUTER.HELP", "LATE", "OUTER.HELP"]
    assert [branch.number for branch in machine.states["OUTER.INNER.WORK"].branches["catch"]] == [0, 1, 2, 3]
    assert targets(machine, "OUTER.INNER.SHORT", "catch") == ["OUTER.HELP", "LATE", "OUTER.HELP"]


def test_a_catch_never_covers_its_own_target():
    assert targets(compiled(NESTED), "OUTER.HELP", "catch") == ["LATE"]


def test_a_final_state_inherits_no_catch_and_no_cancel():
    assert compiled(NESTED).states["OUTER.ENDED"].branches == {}


def test_the_nearest_timeout_counts_and_an_invokes_own_wins():
    states = compiled(NESTED).states

    assert states["OUTER.INNER.WORK"].invoke.timeout_s == states["OUTER.INNER.WORK"].timeout_s == 120
    assert (states["OUTER.INNER.SHORT"].invoke.timeout_s, states["OUTER.INNER.SHORT"].timeout_s) == (5, 9)
    assert states["OUTER.HELP"].invoke.timeout_s == 60


def test_the_nearest_status_counts():
    states = compiled(NESTED).states

    assert (states["OUTER.ENDED"].status, states["LATE"].status) == (Status.FAILED, Status.SUCCEEDED)


def test_the_nearest_cancel_counts_and_is_empty_where_it_leads():
    machine = compiled(NESTED)

    assert targets(machine, "OUTER.INNER.WORK", "cancel") == ["OUTER.HELP"]
    assert targets(machine, "OUTER.INNER.SHORT", "cancel") == ["LATE"]
    assert machine.states["OUTER.HELP"].branches["cancel"] == ()
    assert "cancel" not in machine.states["LATE"].branches


NAMES = """\
machine: names
initial: A
states:
  A:
    initial: X
    states:
      X: {{on: {{go: {target}}}, catch: DONE}}
      Y: {{always: DONE}}
      A: {{always: DONE}}
  X: {{always: DONE}}
  Y: {{always: DONE}}
  Z: {{initial: IN, states: {{IN: {{always: DONE}}}}}}
  DONE: {{type: final}}
"""


@pytest.mark.parametrize(
    ("target", "expected"),
    [("Y", "A.Y"), ("A.Y", "A.Y"), ("A", "A.A"), ("Z", "Z.IN"), ("Z.IN", "Z.IN"), ("DONE", "DONE"), ("A.A", "A.A")],
)
def test_a_target_means_the_innermost_state_of_its_name(target, expected):
    diagnostics = check(NAMES.format(target=target)).diagnostics

    assert {found.rule for found in diagnostics} <= {"state-unreachable"}
    linked = NAMES.format(target=target).replace("initial: A\n", "initial: START\n", 1) + (
        "  START: {on: {a: A.X, b: A.Y, c: A.A, d: X, e: Y, f: Z}}\n"
    )
    assert targets(compiled(linked), "A.X", "on:go") == [expected]


def test_a_relative_target_may_name_a_state_inside():
    machine = compiled(
        "machine: m\ninitial: A\nstates:\n  A: {initial: B, cancel: C, states: {B: {on: {go: C}}, C: {type: final}}}\n"
    )

    assert targets(machine, "A.B", "cancel") == ["A.C"]


def test_what_a_parent_declares_is_looked_up_from_the_parent():
    machine = compiled(
        "machine: m\ninitial: A\nstates:\n"
        "  A:\n    initial: B\n    catch: T\n    states:\n"
        "      B: {initial: S, states: {S: {invoke: {action: shop.ship}, on: {done: T}}, T: {type: final}}}\n"
        "      T: {type: final}\n"
    )

    assert (targets(machine, "A.B.S", "catch"), targets(machine, "A.B.S", "on:done")) == (["A.T"], ["A.B.T"])


def test_every_kind_of_state_is_told_by_its_key():
    machine = compiled(
        "machine: m\ninitial: A\nstates:\n"
        "  A: {invoke: {action: shop.ship}, on: {done: M}}\n"
        "  M: {map: {machine: c, items: [1], key: '${string(item)}'}, on: {done: C}}\n"
        "  C: {always: W}\n  W: {after: {5s: T}}\n  T: {on: {go: F}}\n  F: {type: final}\n",
        children=lambda name: compiled("machine: c\ninitial: D\nstates: {D: {type: final}}\n"),
    )

    kinds = [StateKind.ACTION, StateKind.MAP, StateKind.CHOICE, StateKind.WAIT, StateKind.WAIT, StateKind.FINAL]
    assert [state.kind for state in machine.states.values()] == kinds


def test_the_structure_has_the_transitions_of_the_branches_and_no_others():
    machine = compiled((HERE / "valid" / "chart_request.yaml").read_text(encoding="utf-8"))

    rows = [
        (event, row.source, row.dest)
        for event, trigger in machine.structure.events.items()
        for transitions in trigger.transitions.values()
        for row in transitions
    ]
    assert sorted(rows) == sorted((branch.event, branch.source, branch.target) for branch in machine.branches())
    assert list(machine.structure.states) == list(machine.states)
    assert machine.structure.initial == machine.initial


# The digest

SMALL = "machine: m\ninitial: A\nstates:\n  A: {on: {go: B}}\n  B: {type: final}\n"


@pytest.mark.parametrize(
    "text",
    ["# a remark\n" + SMALL, SMALL.replace("{on: {go: B}}", "\n    on:\n      'go': \"B\""), SMALL.replace("\n", "\r\n"),
     "states:\n  B: {type: final}\n  A: {on: {go: B}}\nmachine: m\ninitial: A\n"],
    ids=["remark", "style", "line breaks", "order of keys"],
)  # fmt: skip
def test_the_digest_does_not_change_with_how_a_text_is_written(text):
    assert compiled(text).digest == compiled(SMALL).digest


@pytest.mark.parametrize(
    "text",
    [SMALL + "version: 2\n", SMALL + "description: x\n", SMALL.replace("go", "went"), SMALL.replace("machine: m", "machine: n"),
     SMALL.replace("{type: final}", "{type: final, output: 1}"), SMALL.replace("{type: final}", "{type: final, output: 1.0}")],
)  # fmt: skip
def test_the_digest_changes_with_any_value(text):
    assert compiled(text).digest != compiled(SMALL).digest


def test_the_digest_changes_with_a_child():
    parent = "machine: p\ninitial: A\nstates:\n  A: {map: {machine: m, items: [1], key: k}, on: {done: B}}\n  B: {type: final}\n"

    one = compiled(parent, children=lambda name: compiled(SMALL))
    other = compiled(parent, children=lambda name: compiled(SMALL.replace("go", "went")))

    assert one.source == other.source
    assert one.digest != other.digest


def test_timers_do_not_depend_on_the_order_of_the_text():
    """A stored definition has lost that order, and the timers of its runs must find their transitions again."""
    text = "machine: m\ninitial: A\nstates:\n  A: {{after: {{{}}}}}\n  B: {{type: final}}\n  C: {{type: final}}\n"
    one, other = compiled(text.format("5m: B, 10s: C")), compiled(text.format("10s: C, 5m: B"))

    assert one.digest == other.digest
    assert [timer.event for timer in one.states["A"].after] == [timer.event for timer in other.states["A"].after]
    for timer in one.states["A"].after:
        assert targets(one, "A", timer.event) == targets(other, "A", timer.event)
