"""The project's own machine holds: every single crash, and samples of everything else, as both kinds of store commit."""

from __future__ import annotations

import pytest

from engine.testing.verification import Exploration, judge, kinds, play
from engine.testing.verification.schedule import AFTER, Move, Schedule
from engine.testing.verification.trace import KINDS
from tests.verification.settings import chart_export, schedules


def test_the_effects_are_named_as_a_person_calls_them():
    effects = [str(effect) for effect in play(chart_export(3), Schedule()).effects]

    assert set(KINDS) == {effect.partition(" ")[0] for effect in effects}
    assert "commit 3: chart_export begins in RUNNING.PREPARING; chart_export claimed" in effects
    assert any("chart_request CAPTURING captured → SUCCEEDED (item ctpl_price_psar_adi_v1)" in one for one in effects)
    assert any(one.startswith("renewal") and "renew chart_request CAPTURING" in one for one in effects)


def test_a_schedule_is_played_the_same_way_each_time():
    schedule = Schedule.read("crash@12- stall@30+ by=worker")
    seen = [
        [(str(effect), effect.worker, effect.at_ms) for effect in play(chart_export(), schedule).effects] for _ in "12"
    ]

    assert seen[0] == seen[1]
    assert len({worker for _, worker, _ in seen[0]}) >= 2


def test_every_single_crash_holds():
    report = Exploration(chart_export(1), only=("crash",)).run()

    assert [] == [violation.to_json() for violation in report.violations]
    assert 6 * len(report.crash_free.effects) == report.schedules["crash"]


@pytest.mark.parametrize("semantics", ["locking", "preconditions"])
def test_samples_of_every_kind_hold(semantics):
    setting = chart_export(2, semantics=semantics)
    crash_free, wanted = schedules(setting, every=13)
    setting = setting.bounded(len(crash_free.effects))
    found = {str(schedule): judge(crash_free, play(setting, schedule)) for schedule in wanted}

    assert {} == {schedule: problems for schedule, problems in found.items() if problems}
    assert len(found) > 40


def test_pairs_of_crashes_hold_and_may_use_up_a_charts_attempts():
    """Two crashes in the calls of one chart that was refused once use up its three attempts: a failure by right."""
    setting = chart_export(2)
    crash_free = play(setting, Schedule())
    count = len(crash_free.effects)
    firsts = {(Move("crash", number, AFTER),): count for number in range(8, count - 2, 3)}
    pairs = kinds.crossings("crash-pair", {"crash": firsts}, None, 30, 0, seed=5)
    found = [(pair, play(setting, pair)) for pair in pairs]

    assert {} == {str(pair): problems for pair, ending in found if (problems := judge(crash_free, ending))}
    assert any(head["status"] == "failed" for _, ending in found for head in ending.heads.values())


def test_with_preconditions_another_client_changes_what_is_read():
    ending = play(chart_export(1, semantics="preconditions"), Schedule())

    assert any("touchedByAnotherClient" in document for document in ending.documents.values())
