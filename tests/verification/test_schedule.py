"""A schedule and its text."""

from __future__ import annotations

import pytest

from engine.errors import InvalidRequestError
from engine.testing.verification import kinds
from engine.testing.verification.schedule import Move, Schedule
from engine.testing.verification.trace import Effect

EFFECTS = [Effect(number, "commit", "a", "w1", 0) for number in range(1, 8)]


def test_every_schedule_is_read_back_from_its_text():
    found = [schedule for _, schedule in kinds.singles(EFFECTS, 30, 2, seed=3)]
    found += kinds.pairs({Move("crash", 2, "-"): 7}, None, 3)

    assert found == [Schedule.read(str(schedule)) for schedule in found]


def test_a_seed_draws_the_same_again_and_another_seed_another():
    first, again, other = (list(kinds.singles(EFFECTS, 30, 2, seed)) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_pairs_are_every_second_crash_after_the_first():
    found = kinds.pairs({Move("crash", 2, "-"): 4, Move("crash", 3, "+"): 5}, None, 0)

    assert ["3-", "3+", "4-", "4+", "4-", "4+", "5-", "5+"] == [f"{p.moves[1].effect}{p.moves[1].point}" for p in found]


@pytest.mark.parametrize("text", ["crash", "crash@0-", "crash@3", "sleep@3-", "by=hope", "first=0", "crash@3-:x"])
def test_a_text_that_is_no_schedule_is_refused(text):
    with pytest.raises(InvalidRequestError):
        Schedule.read(text)
