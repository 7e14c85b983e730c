"""What the benchmark acknowledges it keeps: killed half-way, every commit that it told of is there."""

from __future__ import annotations

import apsw
import pytest

from benchmarks.durability import killed_half_way


@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_benchmark_has_lost_no_commit_it_was_told_of(tmp_path, seed):
    found = killed_half_way(tmp_path, seed, runs=120)

    assert (found.lost, found.unfinished) == ((), ())
    assert found.told >= 120 * 6 // 4
    assert found.runs <= 120


def test_a_lost_commit_is_found_out(tmp_path, monkeypatch):
    from benchmarks import durability

    told = durability._told_until_killed

    def told_and_lost(*arguments):
        answer = told(*arguments)
        connection = apsw.Connection(str(tmp_path / "detent.db"))
        run_id, _ = answer[0]
        connection.execute("DELETE FROM document WHERE collection = 'journal' AND id LIKE ?", (f"{run_id}~%",))
        connection.close()
        return answer

    monkeypatch.setattr(durability, "_told_until_killed", told_and_lost)

    assert len(killed_half_way(tmp_path, 1, runs=60).lost) == 1
