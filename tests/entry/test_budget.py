"""A function's time: what of it is worked in, and actions that could never fit."""

from __future__ import annotations

import json

import pytest

from engine.core.bounds import ACTION_S_ASSUMED
from engine.entry.budget import expect_budget, longest_action_s, read_budget_s
from engine.errors import ConfigurationError
from engine.handlers.registry import ACTIONS
from tests.end_to_end.chart_export_world import MACHINE
from tests.runner.world import World

READ = {
    "neither": ({}, 480.0),
    "its own": ({"DETENT_BUDGET_S": "100"}, 100.0),
    "its own before the platform's": ({"DETENT_BUDGET_S": "100", "CLOUD_RUN_TIMEOUT_SECONDS": "3600"}, 100.0),
    "the platform's less the reserve": ({"CLOUD_RUN_TIMEOUT_SECONDS": "300"}, 240.0),
    "the least": ({"DETENT_BUDGET_S": "1"}, 1.0),
    "the most": ({"DETENT_BUDGET_S": "3540"}, 3540.0),
    "the platform's least": ({"CLOUD_RUN_TIMEOUT_SECONDS": "61"}, 1.0),
    "an hour": ({"CLOUD_RUN_TIMEOUT_SECONDS": "3600"}, 3540.0),
}


@pytest.mark.parametrize("name", READ)
def test_the_budget_is_the_functions_timeout_less_the_reserve(name):
    environ, expected = READ[name]

    assert expected == read_budget_s(environ)


WRONG = {
    "none": ("DETENT_BUDGET_S", "0.9"),
    "more than an hour leaves": ("DETENT_BUDGET_S", "3541"),
    "no number": ("DETENT_BUDGET_S", "ten"),
    "not a number": ("DETENT_BUDGET_S", "nan"),
    "the reserve alone": ("CLOUD_RUN_TIMEOUT_SECONDS", "60"),
    "not a number of the platform's": ("CLOUD_RUN_TIMEOUT_SECONDS", "nan"),
    "no timeout": ("CLOUD_RUN_TIMEOUT_SECONDS", "soon"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_budget_that_leaves_no_time_is_refused(name):
    variable, value = WRONG[name]
    with pytest.raises(ConfigurationError) as caught:
        read_budget_s({variable: value})

    assert variable == caught.value.variable
    assert "--timeout" in caught.value.remedy


def kinds(world: World):
    return lambda name: world.registry[name].declaration.kind


def test_the_longest_action_is_found_below_maps_and_transactional_ones_take_no_time():
    world = World()
    world.action("w.act")(lambda request: None)
    world.action("w.write", kind="transactional", documents=lambda request: [])(lambda request, found, now: None)
    act = {"invoke": {"action": "w.act", "timeout": "70s"}, "on": {"done": "END"}}
    write = {"invoke": {"action": "w.write"}, "on": {"done": "END"}}
    world.machine(
        f'{{"machine": "inner", "initial": "A", "states": {{"A": {_json(act)}, "END": {{"type": "final"}}}}}}'
    )
    mapped = {"map": {"machine": "inner", "items": "${[1]}", "key": "${string(item)}"}, "on": {"done": "B"}}
    outer = world.machine(
        f'{{"machine": "outer", "initial": "A", "states": {{"A": {_json(mapped)}, "B": {_json(write)}, '
        '"END": {"type": "final"}}}'
    )

    assert (70.0, "w.act") == longest_action_s(outer, kinds(world))


def test_an_action_without_a_timeout_is_taken_to_need_a_minute():
    world = World()
    world.action("w.act")(lambda request: None)
    machine = world.states('{"A": {"invoke": {"action": "w.act"}, "on": {"done": "END"}}, "END": {"type": "final"}}')

    assert (ACTION_S_ASSUMED, "w.act") == longest_action_s(machine, kinds(world))


def test_a_budget_in_which_an_action_could_never_begin_is_refused():
    def kind(name):
        return ACTIONS[name].declaration.kind

    assert 300 == expect_budget(MACHINE, 300, kind)
    with pytest.raises(ConfigurationError, match=r"publish\.pictures of chart_export may take 300 s"):
        expect_budget(MACHINE, 299.9, kind)


def _json(value):
    return json.dumps(value)
