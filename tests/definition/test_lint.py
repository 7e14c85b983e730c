"""The rules over a whole definition: what they find, and what they leave in peace."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.definition.graph import components
from tests.definition.declared import check, compiled, rules


def machine(states, head=""):
    """A definition whose run begins in A and may end in DONE."""
    return f"machine: m\ninitial: A\n{head}states:\n{states}  DONE: {{type: final}}\n"


def messages(text):
    return [found.message for found in check(text).diagnostics]


# Reachability


def test_a_state_that_only_a_catch_leads_to_is_reached():
    text = machine("  A: {invoke: {action: shop.ship}, on: {done: DONE}, catch: B}\n  B: {always: DONE}\n")

    assert rules(text) == []


def test_a_state_that_only_a_cancel_or_a_timer_leads_to_is_reached():
    text = machine("  A: {after: {5s: B}, cancel: C}\n  B: {always: DONE}\n  C: {always: DONE}\n")

    assert rules(text) == []


def test_states_cut_off_together_are_one_diagnostic_at_the_first():
    text = machine("  A: {always: DONE}\n  B: {always: C}\n  C: {always: D}\n  D: {always: DONE}\n")

    assert messages(text) == ["no transition leads from the initial state to B (nor, but through it, to C, D)"]


def test_states_cut_off_apart_are_reported_apart():
    text = machine("  A: {always: DONE}\n  B: {always: C}\n  C: {always: DONE}\n  D: {always: C}\n")

    assert [(found.rule, found.position.line) for found in check(text).diagnostics] == [
        ("state-unreachable", 5), ("state-unreachable", 7),
    ]  # fmt: skip


def test_a_circle_that_is_cut_off_is_one_diagnostic():
    text = machine("  A: {always: DONE}\n  B: {max_visits: 2, always: C}\n  C: {on: {a: B, b: DONE}}\n")

    assert rules(text) == ["state-unreachable"]


def test_states_that_cannot_end_are_reported_where_they_are_led_to():
    text = machine(
        "  A: {on: {a: B, b: DONE}}\n  B: {always: C}\n  C: {always: D}\n  D: {max_visits: 9, on: {again: D}}\n"
    )

    assert messages(text) == ["from D no way leads to a final state"]


def test_a_machine_without_a_final_state_is_one_diagnostic():
    text = "machine: m\ninitial: A\nstates:\n  A: {max_visits: 9, on: {go: B}}\n  B: {on: {go: A}}\n"

    assert messages(text) == ["no state of the machine is final"]


def test_a_way_to_the_end_through_a_catch_is_a_way():
    text = machine("  A: {max_visits: 9, invoke: {action: shop.ship}, on: {done: A}, catch: DONE}\n")

    assert rules(text) == []


# Cycles


@pytest.mark.parametrize("bounded", ["A", "B", "C"])
def test_one_bounded_state_bounds_a_cycle(bounded):
    bounds = {name: "max_visits: 3, " if name == bounded else "" for name in "ABC"}
    text = machine(
        "  A: {{{A}always: B}}\n  B: {{{B}on: {{go: C, end: DONE}}}}\n  C: {{{C}always: A}}\n".format(**bounds)
    )

    assert rules(text) == []


def test_a_cycle_beside_a_bounded_one_is_found():
    text = machine("  A: {max_visits: 3, always: B}\n  B: {on: {a: A, c: C, end: DONE}}\n  C: {always: B}\n")

    assert messages(text) == ["the cycle through B, C has no bound"]


def test_a_cycle_through_a_catch_needs_a_bound_too():
    text = machine("  A: {invoke: {action: shop.ship}, on: {done: DONE}, catch: B}\n  B: {always: A}\n")

    assert rules(text) == ["cycle-unbounded"]


def test_an_inherited_catch_makes_no_cycle_at_its_own_target():
    text = machine(
        "  A:\n    initial: B\n    catch: C\n    states:\n"
        "      B: {invoke: {action: shop.ship}, on: {done: DONE}}\n      C: {invoke: {action: shop.ship}, on: {done: DONE}}\n"
    )

    assert rules(text) == []


@settings(derandomize=True)
@given(st.dictionaries(st.sampled_from("ABCDEFG"), st.sets(st.sampled_from("ABCDEFG"))))
def test_components_are_the_states_that_reach_each_other(drawn):
    ways = {name: drawn.get(name, set()) & drawn.keys() for name in drawn}

    def reached(start):
        seen, waiting = set(), list(ways[start])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting.extend(ways[name])
        return seen

    groups = components(ways)

    assert sorted(name for group in groups for name in group) == sorted(ways)
    for group in groups:
        for name in ways:
            together = name == group[0] or (name in reached(group[0]) and group[0] in reached(name))
            assert together == (name in group)


def test_a_machine_of_many_states_is_checked_in_reasonable_time():
    """A chain and a circle of five thousand: no rule takes the square of that."""
    count = 5000
    states = "".join(f"  S{at}: {{always: S{at + 1}}}\n" for at in range(count))
    circle = machine(f"  A: {{on: {{go: S0, end: DONE}}}}\n{states}  S{count}: {{always: S0}}\n")

    found = check(circle).diagnostics

    assert [one.rule for one in found] == ["cycle-unbounded", "final-unreachable"]
    assert "and 4996 more" in found[0].message


# Outcomes, errors, parameters


def test_every_outcome_must_be_handled_and_no_other():
    text = machine("  A: {invoke: {action: shop.reserve, with: {article: 1}}, on: {reserved: DONE, done: DONE}}\n")

    assert rules(text) == ["outcome-unhandled", "outcome-unknown"]


def test_interrupted_is_an_outcome_of_unrepeatable_actions_only():
    text = machine("  A: {invoke: {action: shop.ship}, on: {done: DONE, interrupted: DONE}}\n")

    assert rules(text) == ["outcome-unknown"]


def test_a_wait_state_may_name_any_signal():
    assert rules(machine("  A: {on: {anything: DONE, at_all: DONE}}\n")) == []


@pytest.mark.parametrize(
    ("catch", "missing"),
    [
        ("DONE", 0),
        ("[{errors: [STOCK_MISSING], target: DONE}, {errors: [SCALE_BROKEN], target: DONE}]", 0),
        ("[{guard: error.retriable, target: DONE}, {errors: [STOCK_MISSING, SCALE_BROKEN], target: DONE}]", 0),
        (
            "[{errors: [STOCK_MISSING], guard: error.retriable, target: DONE}, {errors: [SCALE_BROKEN], target: DONE}]",
            1,
        ),
        ("[{guard: error.retriable, target: DONE}]", 2),
        ("[{errors: [TIMEOUT], target: DONE}]", 2),
    ],
)
def test_every_declared_error_needs_a_catch_without_a_guard(catch, missing):
    text = machine(f"  A: {{invoke: {{action: shop.pack}}, on: {{packed: DONE}}, catch: {catch}}}\n")

    assert rules(text) == ["error-unhandled"] * missing


def test_a_catch_of_the_state_around_handles_an_error_but_not_at_its_own_target():
    text = machine(
        "  A:\n    initial: B\n    catch: C\n    states:\n"
        "      B: {invoke: {action: shop.pack}, on: {packed: DONE}}\n      C: {invoke: {action: shop.pack}, on: {packed: DONE}}\n"
    )

    assert messages(text) == [
        f"A.C does not catch {code}, an error of shop.pack" for code in ("SCALE_BROKEN", "STOCK_MISSING")
    ]


def test_every_engine_code_may_be_caught_by_name():
    text = machine(
        "  A: {invoke: {action: shop.pack}, on: {packed: DONE}, catch: [{errors: [TIMEOUT, INTERNAL], target: DONE}, DONE]}\n"
    )

    assert rules(text) == []


def test_an_unknown_code_is_left_in_peace_where_an_action_declares_none():
    text = machine(
        "  A:\n    initial: B\n    catch: [{errors: [ANYTHING], target: DONE}, DONE]\n    states:\n"
        "      B: {invoke: {action: shop.pack}, on: {packed: C}}\n      C: {invoke: {action: shop.ship}, on: {done: DONE}}\n"
    )

    assert rules(text) == []


def test_an_unknown_action_has_no_further_diagnostics():
    text = machine(
        "  A: {invoke: {action: no.such, with: {a: 1}, retry: {errors: [X]}}, on: {anything: DONE}, catch: [{errors: [Y], target: DONE}]}\n"
    )

    assert rules(text) == ["action-unknown"]


def test_a_parameter_that_does_not_compile_is_not_missing():
    text = machine(
        "  A: {invoke: {action: shop.reserve, with: {article: '${1 +}'}}, on: {reserved: DONE, sold_out: DONE}}\n"
    )

    assert rules(text) == ["expression-invalid"]


# Slips: one mistake, one diagnostic


@pytest.mark.parametrize(
    ("slip", "expected"),
    [
        (("on:", "onn:"), "key-unknown"), (("invoke:", "invok:"), "key-unknown"), (("target:", "tarket:"), "key-unknown"),
        (("action:", "Action:"), "key-unknown"), (("B: {always", "B: {allways"), "key-unknown"),
        (("initial: A", "initail: A"), "key-unknown"), (("states:", "state:"), "key-unknown"),
        (("target: MIDDLE", "target: MIDLE"), "target-unknown"), (("initial: A", "initial: a"), "target-unknown"),
        (("reserved:", "reservd:"), "outcome-unknown"), (("article: 1", "artikel: 1"), "parameter-unknown"),
        (("assign:", "asign:"), "key-unknown"), (("context.count > 1", "context.cuont > 1"), "context-unassigned"),
        (("context.count > 1", "context.count >"), "expression-invalid"), (("{type: final}", "{type: finall}"), "value-invalid"),
        (("guard: context.count > 1", 'guard: "${context.count > 1}"'), "guard-not-bare"), (("shop.reserve", "shop.resrve"), "action-unknown"), (("max_visits: 3", "max_visits: three"), "value-invalid"),
        (("max_visits: 3", "max-visits: 3"), "key-unknown"), (("max_visits: 3", "max_visits: !!int '3'"), "yaml-tag"),
    ],
)  # fmt: skip
def test_one_slip_is_one_diagnostic(slip, expected):
    text = machine(
        "  A:\n    max_visits: 3\n    invoke: {action: shop.reserve, with: {article: 1}, assign: {count: 2}}\n"
        "    on:\n      sold_out: A\n      reserved: [{guard: context.count > 1, target: DONE}, {target: MIDDLE}]\n"
        "  MIDDLE: {always: B}\n  B: {always: DONE}\n"
    )
    assert slip[0] in text
    slipped = text.replace(*slip, 1)

    assert rules(slipped) == [expected]


def test_a_state_that_is_no_map_says_nothing_of_where_it_leads():
    """It is no dead end; but what only it could lead to is reported, since that may be a mistake of its own."""
    text = machine("  A: {always: MIDDLE}\n  MIDDLE: null\n  B: {always: DONE}\n")

    assert rules(text) == ["value-invalid", "state-unreachable"]


def test_a_state_whose_name_is_wrong_is_a_target_all_the_same():
    assert rules(machine("  A: {always: B-C}\n  B-C: {always: DONE}\n")) == ["name-invalid"]


# Data flow


def test_what_any_assign_writes_may_be_read():
    text = machine(
        "  A:\n    invoke: {action: shop.ship, assign: {a: 1}}\n    on: {done: {target: B, assign: {b: 2}}}\n"
        "    catch: {target: B, assign: {c: 3}}\n    cancel: {target: B, assign: {d: 4}}\n"
        "  B: {always: {guard: context.a + context.b + context.c + context.d > 9, target: DONE}}\n"
    )

    assert rules(text) == []


@pytest.mark.parametrize(
    "guard",
    [
        "has(context.nothing)",
        "context.?nothing.hasValue()",
        "size(input.list) > context.nothing",
        "!(context.nothing.a == 1)",
    ],
)
def test_what_nothing_assigns_is_reported_wherever_it_is_read(guard):
    assert rules(machine(f"  A: {{always: [{{guard: '{guard}', target: DONE}}, DONE]}}\n")) == ["context-unassigned"]


@pytest.mark.parametrize(
    "guard",
    ['"context.nothing" == input.a', "input.context.nothing == 1", "context.exists(key, key == 1)", 'context["nothing"] == 1',
     "size(context) == 0", "input.a.all(context, context.nothing == 1)"],
)  # fmt: skip
def test_what_is_no_key_of_the_context_is_left_in_peace(guard):
    assert (
        rules(machine(f"  A:\n    always:\n      - guard: >-\n          {guard}\n        target: DONE\n      - DONE\n"))
        == []
    )


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ("{additionalProperties: false, properties: {b: {}}}", ["input-undeclared"]),
        ("{additionalProperties: false}", ["input-undeclared"]),
        ("{properties: {b: {}}}", []),
        ("{additionalProperties: false, patternProperties: {'^a': {}}}", []),
        ("{additionalProperties: false, properties: {a: true}}", []),
    ],
)
def test_an_input_is_judged_by_a_closed_schema_only(schema, expected):
    assert rules(machine("  A: {always: [{guard: input.a, target: DONE}, DONE]}\n", f"input: {schema}\n")) == expected


@pytest.mark.parametrize(
    ("guard", "expected"),
    [("visits.A < 3", []), ("visits.BOX.B < 3", []), ("visits.B < 3", ["visits-unknown"]), ("visits.BOX < 3", ["visits-unknown"]),
     ("visits.BOX.exists(name, name == 'B')", []), ("visits.A.B < 3", ["visits-unknown"])],
)  # fmt: skip
def test_visits_name_leaves(guard, expected):
    text = machine(
        f'  A: {{always: [{{guard: "{guard}", target: DONE}}, BOX]}}\n  BOX: {{initial: B, states: {{B: {{always: DONE}}}}}}\n'
    )

    assert rules(text) == expected


@pytest.mark.parametrize("variable", ["item", "result", "error"])
def test_a_macro_may_bind_the_name_of_a_variable(variable):
    guard = f"input.list.exists({variable}, {variable}.size > 1)"

    assert rules(machine(f'  A: {{always: [{{guard: "{guard}", target: DONE}}, DONE]}}\n')) == []


def test_an_assign_of_a_deep_value_keeps_its_expressions():
    text = machine("  A: {always: {target: DONE, assign: {a: {b: ['${input.c}', {d: 'x ${input.e} y'}]}}}}\n")

    (template,) = compiled(text).states["A"].branches["always"][0].assign.values()

    assert [expression.text for expression in template.expressions] == ["input.c", "input.e"]
