"""Until when a worker holds what it goes on with."""

from __future__ import annotations

import pytest

from engine.runs import Tenure

NOW_MS, LEASE_MS = 1_700_000_000_000, 60_000


@pytest.mark.parametrize(("left_ms", "is_kept"), [(39_999, False), (40_000, True), (40_001, True), (-5, False)])
def test_a_commit_that_goes_on_moves_a_lease_with_less_than_two_thirds_left(left_ms: int, *, is_kept: bool) -> None:
    until_ms = Tenure("w", LEASE_MS).lease_end_ms(NOW_MS, NOW_MS + left_ms)
    assert until_ms == NOW_MS + (left_ms if is_kept else LEASE_MS)


def test_a_run_that_was_not_held_before_has_the_whole_lease() -> None:
    assert Tenure("w", LEASE_MS).lease_end_ms(NOW_MS, None) == NOW_MS + LEASE_MS
