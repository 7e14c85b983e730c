"""Whose turn it is to write: bursts of one process, and the line behind it. On a clock of the test's own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.store.sqlite_turn import BURST_NS, LULL_NS, Turn


class Clock:
    def __init__(self) -> None:
        self.now_ns = 10**15

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def turns(tmp_path: Path, clock: Clock) -> Iterator[tuple[Turn, Turn]]:
    turns = Turn(str(tmp_path / "store.db"), clock), Turn(str(tmp_path / "store.db"), clock)
    yield turns
    for turn in turns:
        turn.close()


def commit(turn: Turn, *, waits: bool = False) -> bool:
    if not turn.take(waits=waits):
        return False
    turn.give()
    return True


def test_a_burst_that_has_a_lull_is_over(turns: tuple[Turn, Turn], clock: Clock) -> None:
    mine, theirs = turns
    assert commit(mine)
    clock.now_ns += LULL_NS - 1
    assert not commit(theirs)
    clock.now_ns += 1
    assert commit(theirs)


def test_a_burst_without_a_lull_is_over_all_the_same(turns: tuple[Turn, Turn], clock: Clock) -> None:
    mine, theirs = turns
    began = clock.now_ns
    while clock.now_ns - began < BURST_NS:
        assert commit(mine)
        assert not commit(theirs)
        clock.now_ns += LULL_NS // 2
    assert commit(mine)  # going on begins no new burst
    assert commit(theirs)
    assert not commit(mine)


def test_who_waits_in_line_heeds_no_burst(turns: tuple[Turn, Turn]) -> None:
    mine, theirs = turns
    assert commit(mine)
    assert commit(theirs, waits=True)


def test_the_turn_is_not_had_at_once_while_another_has_it(turns: tuple[Turn, Turn], clock: Clock) -> None:
    mine, theirs = turns
    assert mine.take()
    clock.now_ns += 10 * BURST_NS
    assert not theirs.take(waits=False)
    mine.give()


def test_a_burst_from_before_the_machine_was_started_again_is_over(turns: tuple[Turn, Turn], clock: Clock) -> None:
    mine, theirs = turns
    assert commit(mine)
    clock.now_ns = 1
    assert commit(theirs)


def test_the_turn_of_a_process_that_is_killed_goes_to_the_next(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    holds = f"from engine.store.sqlite_turn import Turn; t = Turn({path!r}); t.take(); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        turn = Turn(path)
        assert not turn.take(waits=False)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert turn.take(waits=False)
    turn.close()
