"""What somebody asks of a run from outside: cancels, signals and redrives, explored and judged."""

from __future__ import annotations

import json

import pytest

from engine.definition import Catalogue
from engine.errors import InvalidRequestError
from engine.handlers.registry import ACTIONS
from engine.testing.verification import Exploration, Given, judge, play, setting_of
from engine.testing.verification.schedule import Schedule
from tests.verification.settings import ROOT, chart_export, known
from tests.verification.shop import ShopWorld

SIGNALS = (Given("approved", {"by": "ann"}), Given("approved"))


def approval(signals=SIGNALS, folder=ROOT / "tests/verification", **more):
    catalogue = Catalogue(ACTIONS.declarations())
    machine = catalogue.load(folder / "approval.yaml")
    return setting_of(machine, catalogue, [{"order": "o-1"}], world=ShopWorld(), signals=signals, **more)


def status(ending):
    return next(head["status"] for head in ending.heads.values() if head["is_root"])


# Cancels


def test_a_cancel_is_taken_where_it_comes_and_ends_the_run_by_the_definitions_way():
    crash_free, setting = known(chart_export(2))
    ending = play(setting, Schedule.read("cancel@10- switch@10- by=worker"))
    children = [head["status"] for head in ending.heads.values() if not head["is_root"]]

    assert [] == judge(crash_free, ending)
    assert "failed" == status(ending)
    assert "cancelled" in children
    assert any("chart_export RUNNING.CAPTURING is sent a cancel" in effect.name for effect in ending.effects)
    assert len(ending.calls) < len(crash_free.calls)


def test_a_cancel_that_nobody_takes_changes_nothing():
    crash_free, setting = known(chart_export(1))
    last = len(crash_free.effects)
    ending = play(setting, Schedule.read(f"cancel@{last}+"))

    assert [] == judge(crash_free, ending)
    assert crash_free.comparable() == ending.comparable()


def test_a_late_outcome_of_a_cancelled_run_is_kept_and_a_redrive_pays_for_no_second_one():
    """The cancel comes while the slow call is under way: its picture is recorded, and stands when it is redriven."""
    crash_free, setting = known(chart_export(1))
    cancelled = play(setting, Schedule.read("cancel@8- switch@8- by=worker"))
    count = len(cancelled.effects)
    redriven = play(setting, Schedule.read(f"cancel@8- switch@8- redrive@{count}+ by=worker"))

    assert ["failed", "succeeded"] == sorted(head["status"] for head in cancelled.heads.values())
    assert "succeeded" == status(redriven)
    assert (1, 1) == (len(cancelled.calls), len(redriven.calls))
    assert [] == judge(crash_free, cancelled) + judge(crash_free, redriven)


def test_an_item_that_begins_since_another_was_cancelled_is_none_too_many(tmp_path):
    """Without a crash the map is left before its second item begins."""
    (tmp_path / "slow.yaml").write_text(
        "machine: slow\nversion: 1\ninitial: W\nstates:\n  W: {after: {30s: E}}\n  E: {type: final}\n", encoding="utf-8"
    )
    path = tmp_path / "left.yaml"
    path.write_text(
        "machine: left\nversion: 1\ninitial: M\nstates:\n"
        "  M: {map: {machine: slow, items: [a, b], key: '${item}', concurrency: 1}, on: {done: E}, timeout: 20s,"
        " catch: [{target: E}]}\n  E: {type: final}\n",
        encoding="utf-8",
    )
    catalogue = Catalogue(ACTIONS.declarations())
    crash_free, setting = known(setting_of(catalogue.load(path), catalogue, [{}]))
    ending = play(setting, Schedule.read("cancel@3+:2"))

    assert 1 == len(ending.heads.keys() - crash_free.heads.keys())
    assert [] == judge(crash_free, ending)


# Redrives


def test_what_was_cancelled_is_redriven_to_the_end_that_it_has_without_a_crash():
    crash_free, setting = known(approval())
    cancelled = play(setting, Schedule.read("cancel@5+"))
    again = play(setting, Schedule.read(f"cancel@5+ redrive@{len(cancelled.effects)}+"))

    assert ("cancelled", "succeeded") == (status(cancelled), status(again))
    assert [] == judge(crash_free, cancelled) + judge(crash_free, again)
    assert crash_free.documents.keys() == again.documents.keys()


def test_a_redrive_of_what_goes_on_is_refused_and_changes_nothing():
    crash_free, setting = known(chart_export(1))
    ending = play(setting, Schedule.read("redrive@9+"))

    (refused,) = ending.redrives
    assert not refused.is_ready
    assert "has not ended" in refused.message
    assert crash_free.comparable() == ending.comparable()


def test_a_signal_that_no_state_had_taken_is_taken_when_the_ended_run_is_redriven():
    crash_free, setting = known(approval())
    cancelled = play(setting, Schedule.read("cancel@2+"))
    again = play(setting, Schedule.read(f"cancel@2+ redrive@{len(cancelled.effects)}+"))
    taken = [event["id"] for event in again.events("approval~o-1~1") if event["event"] == "signal_received"]

    assert ["signal-1", "signal-2"] == taken
    assert [] == judge(crash_free, again)


# Signals


def test_signals_are_sent_in_their_order_when_the_run_waits_for_them():
    crash_free, setting = known(approval())
    taken = [event["id"] for event in crash_free.events("approval~o-1~1") if event["event"] == "signal_received"]

    assert ["signal-1", "signal-2"] == taken
    assert {1: ("o-1",), 2: ("o-1",)} == dict(setting.addresses)
    assert "ann" == crash_free.heads["approval~o-1~1"]["snapshot"]["output"]["by"]


@pytest.mark.parametrize("text", ["signal@2+:1", "signal@3+:1", "signal@4-:1", "signal@9-:2", "signal@18+:1"])
def test_a_signal_too_early_once_more_or_too_late_is_taken_once(text):
    crash_free, setting = known(approval())
    ending = play(setting, Schedule.read(text))

    assert [] == judge(crash_free, ending)
    assert crash_free.comparable() == ending.comparable()
    assert any("sends signal number" in note for effect in ending.effects for note in effect.notes)


def test_signals_of_the_items_of_a_map_go_to_the_same_items_in_every_schedule(tmp_path):
    (tmp_path / "asking.yaml").write_text(
        "machine: asking\nversion: 1\ninitial: W\nstates:\n"
        '  W: {"on": {go: {target: E, assign: {said: "${result}"}}}}\n'
        '  E: {type: final, output: "${context.said}"}\n',
        encoding="utf-8",
    )
    path = tmp_path / "all.yaml"
    path.write_text(
        "machine: all\nversion: 1\ninitial: M\nstates:\n"
        "  M: {map: {machine: asking, items: [a, b], key: '${item}', concurrency: 2, assign: {all: '${result.items}'}},"
        " on: {done: E}}\n  E: {type: final, output: '${context.all}'}\n",
        encoding="utf-8",
    )
    catalogue = Catalogue(ACTIONS.declarations())
    setting = setting_of(catalogue.load(path), catalogue, [{}], signals=(Given("go", 1), Given("go", 2)))
    report = Exploration(setting, samples=10, jobs=1, only=("crash", "interleaved", "signal", "cancel")).run()
    (_, *addresses) = sorted([(), *report.crash_free.sent.values()])

    assert [("verify-1", "M", "a"), ("verify-1", "M", "b")] == addresses
    assert [] == [violation.to_json() for violation in report.violations]


@pytest.mark.parametrize(
    ("signals", "told"),
    [
        ((), "--signal approved=JSON"),
        (SIGNALS[:1], "stays waiting in CONFIRMING"),
        ((*SIGNALS, Given("approved")), "number 3 of those given"),
        ((Given("approved", {"by": "nobody"}),), "stays waiting in ASKING"),
    ],
    ids=["none", "too few", "too many", "none that fits"],
)
def test_a_machine_that_waits_is_verified_with_just_the_signals_it_takes(signals, told):
    with pytest.raises(InvalidRequestError) as refused:
        Exploration(approval(signals)).run()

    assert told in f"{refused.value.message} {refused.value.remedy}"


def test_a_signal_that_no_state_waits_for_is_refused_at_once():
    with pytest.raises(InvalidRequestError, match="waits for a signal 'aproved'"):
        approval((Given("aproved"),))


# All of it


@pytest.mark.parametrize("semantics", ["locking", "preconditions"])
def test_a_machine_that_waits_holds(semantics):
    wanted = ("signal", "cancel-mixed", "cancel-crash", "redrive-crash")
    report = Exploration(approval(semantics=semantics), samples=6, pairs=12, jobs=1, only=wanted).run()

    assert [] == [violation.to_json() for violation in report.violations]
    assert {*wanted, "cancel", "redrive"} <= set(report.schedules)


def test_redrives_of_a_chart_export_are_taken():
    """What is explored is not a row of refusals: nearly every cancelled export is redriven, and none is refused."""
    crash_free, setting = known(chart_export(1))
    schedules = [f"cancel@{number}- switch@{number}-" for number in range(5, 20, 3)]
    endings = [play(setting, Schedule.read(f"{text} by=worker")) for text in schedules]
    again = [
        play(setting, Schedule.read(f"{text} redrive@{len(ending.effects)}+ by=worker"))
        for text, ending in zip(schedules, endings, strict=True)
    ]

    assert {"failed"} == {status(ending) for ending in endings}
    assert {"succeeded"} == {status(ending) for ending in again}
    assert [] == [problem for ending in (*endings, *again) for problem in judge(crash_free, ending)]
    assert "SUCCEEDED" in json.dumps([list(ending.documents.values()) for ending in again])


def test_a_run_that_is_cancelled_again_after_its_redrive_need_not_end_as_without():
    crash_free, setting = known(chart_export(1))
    text = "cancel@8- switch@8-"
    text += f" redrive@{len(play(setting, Schedule.read(f'{text} by=worker')).effects)}+"
    again = play(setting, Schedule.read(f"{text} by=worker"))
    ending = play(setting, Schedule.read(f"{text} cancel@{len(again.effects) - 6}- by=worker"))

    assert ("succeeded", "failed") == (status(again), status(ending))
    assert [] == judge(crash_free, ending)


def test_of_two_redrives_at_once_one_is_taken():
    crash_free, setting = known(chart_export(1))
    count = len(play(setting, Schedule.read("cancel@8-")).effects)
    ending = play(setting, Schedule.read(f"cancel@8- redrive@{count}+ redrive@{count + 1}-"))

    assert 1 == len(ending.redrives)
    assert [] == judge(crash_free, ending)
