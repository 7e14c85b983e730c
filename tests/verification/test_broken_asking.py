"""Engines, machines and worlds that deal wrongly with what is asked of a run: each is caught, by the rule's name."""

from __future__ import annotations

import importlib

import pytest

from engine.core.action import Decision, Outcome
from engine.core.event import CancelRequested
from engine.core.write import Create, Set
from engine.handlers.registry import ACTIONS
from engine.runs import deliver, inbox, leaving
from engine.runs.records import Cancel
from engine.runs.runs import Runs
from engine.testing.verification import judge, play
from engine.testing.verification.chart_export import ChartExportWorld
from engine.testing.verification.schedule import Schedule
from tests.verification.settings import ROOT, broken_rules, chart_export, known, variant
from tests.verification.test_asked import approval

redrive = importlib.import_module("engine.runs.redrive")  # the package has a function of that name

RELEASING = """
  RELEASING:
    description: Cancelled before the call; its unit is given back.
    invoke:
      action: ledger.release
      with: {pool: chart_img, account: "${context.account}", window_start: "${context.window}"}
    on: {done: CANCELLED}
    cancel: RELEASING
"""


def broken_by(setting, *texts):
    """The rules that do not hold in some schedules."""
    crash_free, setting = known(setting)
    return {problem.rule for text in texts for problem in judge(crash_free, play(setting, Schedule.read(text)))}


def redriven(setting, text):
    """A schedule after whose end the run is redriven."""
    ending = play(known(setting)[1], Schedule.read(text))
    return f"{text} redrive@{len(ending.effects)}+"


# Units


def test_a_cancel_that_forgets_the_unit_of_a_call_that_never_began_is_seen(tmp_path):
    path = variant(tmp_path, chart_request=[("target: RELEASING", "target: CANCELLED"), (RELEASING, "")])

    assert {"unit-unexplained"} == set(broken_rules(chart_export(1, path), "cancel"))


def test_a_unit_that_is_given_back_in_words_alone_leaves_the_ledger_disagreeing():
    def forget(request, documents, now):
        return Decision(Outcome("done", {"account_id": request.params["account"]}))

    handlers = {name: ACTIONS[name] for name in ACTIONS}
    handlers["ledger.release"] = handlers["ledger.release"]._replace(function=forget)

    assert {"ledger-disagrees"} == set(broken_rules(chart_export(1, handlers=handlers), "cancel"))


def test_a_unit_that_is_given_back_after_its_call_is_seen(tmp_path):
    path = variant(
        tmp_path, chart_request=[("cancel: EXHAUSTING  # what the API said is recorded first", "cancel: RELEASING")]
    )
    found = broken_rules(chart_export(2, path), "cancel")

    assert "call-without-unit" in found


# Cancels


def test_an_owner_that_writes_over_the_inbox_passes_a_cancel_over(monkeypatch):
    own = Runs.own

    def blind(self, claim, documents):
        own(self, claim, documents)
        return claim.head

    monkeypatch.setattr(Runs, "own", blind)
    found = broken_rules(chart_export(1), "cancel")

    assert "cancel-passed-over" in found
    assert "cancel" == found["cancel-passed-over"].moves[0].verb


def test_a_cancel_that_stays_in_the_inbox_is_taken_twice(monkeypatch, tmp_path):
    """The way of the cancel has a second state, which does not name itself: there it is taken once more."""
    monkeypatch.setattr(inbox, "_without", lambda head, message: head)
    path = variant(
        tmp_path,
        chart_request=[
            ("on: {done: CANCELLED}", "on: {done: WAITING}"),
            ("  SUCCEEDED:\n", "  WAITING: {after: {1s: CANCELLED}}\n\n  SUCCEEDED:\n"),
        ],
    )

    assert "message-repeated" in broken_rules(chart_export(1, path), "cancel")


@pytest.mark.parametrize("is_none_told", [True, False], ids=["none", "those that take it now"])
def test_items_of_a_left_map_that_are_not_told_are_seen(monkeypatch, is_none_told):
    """The second is how items were told once: one that noted down an answer went on and made its next call."""
    tell = leaving.cancel_unfinished

    async def some(runs, run_ids, reason):
        told = []
        for run_id in () if is_none_told else run_ids:
            head = await runs.get(run_id)
            machine = await runs.definitions.machine(head.snapshot.digest)
            if inbox.is_taken_by(machine, head.snapshot, Cancel(0, "")):
                told.append(run_id)
        return await tell(runs, told, reason)

    monkeypatch.setattr(leaving, "cancel_unfinished", some)

    assert {"cancel-passed-over"} == set(broken_rules(chart_export(3), "cancel"))


def test_a_cancel_that_is_taken_before_a_lost_outcome_loses_it(monkeypatch):
    found_at_claim = inbox.found_at_claim

    def hasty(machine, head, begun, documents, now_ms):
        found = found_at_claim(machine, head, None, documents, now_ms)
        return (
            found
            if isinstance(found.event, CancelRequested)
            else found_at_claim(machine, head, begun, documents, now_ms)
        )

    monkeypatch.setattr(inbox, "found_at_claim", hasty)

    assert "outcome-lost" in broken_by(
        chart_export(1), "cancel@8- crash@8+", "cancel@9- crash@9+", "cancel@9- crash@11+"
    )


# Signals


def test_a_signal_that_stays_in_the_inbox_is_taken_twice(monkeypatch):
    monkeypatch.setattr(inbox, "_without", lambda head, message: head)

    assert "message-repeated" in broken_rules(approval(), "signal")


def test_a_signal_whose_id_is_not_looked_at_is_taken_twice(monkeypatch):
    decide = deliver._Sending.decide

    def forgetful(self, documents, now_ms, token):
        known = {key: None if key.collection == "signals" else found for key, found in documents.items()}
        writes, delivered = decide(self, known, now_ms, token)
        return [Set(*write) if isinstance(write, Create) else write for write in writes], delivered

    monkeypatch.setattr(deliver._Sending, "decide", forgetful)
    found = broken_rules(approval(), "signal")

    assert "message-repeated" in found
    assert ["signal"] == [move.verb for move in found["message-repeated"].moves]


def test_an_owner_that_writes_over_the_inbox_loses_a_signal_that_came_early(monkeypatch):
    own = Runs.own

    def blind(self, claim, documents):
        own(self, claim, documents)
        return claim.head

    monkeypatch.setattr(Runs, "own", blind)

    assert {"signal-lost", "run-unfinished"} <= set(broken_rules(approval(), "signal", enough=2))


# Redrives


def test_a_redrive_that_forgets_what_succeeded_pays_for_it_again(monkeypatch):
    async def nothing(runs, head, machine, state):
        return {}

    monkeypatch.setattr(redrive, "_kept", nothing)
    setting = chart_export(2)
    text = redriven(setting, f"cancel@{len(play(setting, Schedule()).effects) - 11}+")  # one item has its picture

    assert "paid-again" in broken_by(setting, text)


def test_a_redrive_from_before_a_paid_state_pays_again(monkeypatch, tmp_path):
    """Of a machine without a map: its order was charged, and it starts again where the unit is reserved."""
    text = (ROOT / "tests/verification/approval.yaml").read_text(encoding="utf-8")
    text = text.replace("cancel: RECEIPT", "cancel: DROPPING").replace("cancel: CLOSING", "cancel: DROPPING")
    (tmp_path / "approval.yaml").write_text(text, encoding="utf-8")
    setting = approval(folder=tmp_path)
    text = redriven(setting, "cancel@15-")

    assert set() == broken_by(setting, text)
    monkeypatch.setattr(redrive, "_stand", lambda machine, path, state, runs, is_given: "RESERVING")
    assert "paid-again" in broken_by(setting, text)


def test_a_world_that_puts_nothing_right_has_its_redrives_refused():
    class Forgetful(ChartExportWorld):
        def before_redrive(self, documents, run_id):
            return ()

    setting = chart_export(1, world=Forgetful())

    assert {"redrive-refused"} == broken_by(setting, redriven(setting, "cancel@4+"))
