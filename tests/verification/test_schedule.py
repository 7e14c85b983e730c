"""A schedule and its text."""

from __future__ import annotations

import pytest

from engine.errors import InvalidRequestError
from engine.testing.verification import kinds
from engine.testing.verification.schedule import Move, Schedule
from engine.testing.verification.trace import Effect, StepTaken

EFFECTS = [Effect(number, "commit", "a", "w1", 0) for number in range(1, 8)]
EFFECTS[2].steps, EFFECTS[2].is_done = (StepTaken("r", 1, 1, {}), StepTaken("r~a", 1, 1, {})), True
EFFECTS[4].run_id = "r~a"


def crossed(kind, wanted=None, failed=None, **lengths):
    """The schedules of a crossing kind, from `{text: length}` of those it is made from."""
    found = {name: {Schedule.read(text).moves: count for text, count in of.items()} for name, of in lengths.items()}
    return [str(one).partition(" by=")[0] for one in kinds.crossings(kind, found, failed, wanted, 1, 3)]


def test_every_schedule_is_read_back_from_its_text():
    found = [schedule for _, schedule in kinds.singles(EFFECTS, 30, 2, 3, (4, 6))]
    found += kinds.crossings("crash-pair", {"crash": {(Move("crash", 2, "-"),): 7}}, None, None, 0, 3)

    assert found == [Schedule.read(str(schedule)) for schedule in found]


def test_a_seed_draws_the_same_again_and_another_seed_another():
    first, again, other = (list(kinds.singles(EFFECTS, 30, 2, seed)) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_pairs_are_every_second_crash_after_the_first():
    found = crossed("crash-pair", crash={"crash@2-": 4, "crash@3+": 5})

    assert ["3-", "3+", "4-", "4+", "4-", "4+", "5-", "5+"] == [text.split(" crash@")[1] for text in found]


def test_cancels_begin_with_the_run_and_name_the_item_whose_effect_it_is():
    found = [str(schedule) for kind, schedule in kinds.singles(EFFECTS, 0, 1, 0) if kind == "cancel"]

    assert ["cancel@3+", "cancel@3+ switch@3+ by=worker", "cancel@4- by=resume"] == found[:3]
    assert {"cancel@5-:2 by=worker", "cancel@5+:2 by=worker"} == {text for text in found if ":" in text}
    assert 2 * (2 * 5 - 1) + 2 == len(found)


def test_a_signal_comes_no_earlier_than_the_one_before_it():
    found = [str(schedule.moves[0]) for kind, schedule in kinds.singles(EFFECTS, 0, 1, 0, (5, 6)) if kind == "signal"]

    assert ["signal@3+:1", "signal@4-:1"] == found[:2]
    assert ["signal@5+:2", "signal@6-:2"] == [text for text in found if text.endswith(":2")][:2]


def test_a_crash_comes_before_a_cancel_and_after_it():
    found = crossed("cancel-crash", crash={"crash@2-": 3}, cancel={"cancel@3+": 4})

    assert ["cancel@3+ crash@4-", "cancel@3+ crash@4+", "crash@2- cancel@3-", "crash@2- cancel@3+"] == found


def test_a_redrive_comes_at_the_end_of_each_cancelled_run_and_of_one_that_fails_by_itself():
    cancels = {"cancel@3+": 4, "cancel@3-:2": 5}

    assert ["cancel@3+ redrive@4+"] == crossed("redrive", cancel=cancels)[:1]
    assert ["cancel@3+ redrive@4+", "redrive@7+"] == crossed("redrive", cancel=cancels, failed=7)[:2]
    redriven = {"cancel@3+ redrive@4+": 6, "cancel@3+ redrive@4-": 6}
    found = crossed("redrive-crash", cancel=cancels, redrive=redriven)

    assert [f"cancel@3+ redrive@4+ crash@{place}" for place in ("5+", "6-", "6+")] == found


@pytest.mark.parametrize("text", ["crash", "crash@0-", "crash@3", "sleep@3-", "by=hope", "first=0", "crash@3-:x"])
def test_a_text_that_is_no_schedule_is_refused(text):
    with pytest.raises(InvalidRequestError):
        Schedule.read(text)
