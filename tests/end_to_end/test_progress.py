"""The live view of a worker that serves for ever does not grow with what has ended."""

from __future__ import annotations

import io

from rich.console import Console

from engine.core.secret import Secrets
from engine.core.snapshot import Status, empty
from engine.entry.cli.progress import ITEMS_KEPT, RUNS_KEPT, LiveView
from engine.runs import Committed, Head, Place


def committed(run_id: str, status: Status, place: Place | None = None) -> Committed:
    snapshot = empty(run_id, "small", 1, "d")._replace(state="A", status=status)
    return Committed(Head(snapshot, 1, None, None, False, 0, 0, run_id, place), None)


def test_what_has_ended_makes_room_and_what_is_under_way_stays() -> None:
    view = LiveView(Console(file=io.StringIO()), Secrets())
    view.committed(None, committed("under-way", Status.RUNNING))
    for number in range(ITEMS_KEPT * 3):
        view.committed(None, committed(f"r{number}", Status.SUCCEEDED))
        view.committed(None, committed(f"i{number}", Status.FAILED, Place("p", "M", 1, number, f"k{number}")))
    assert len(view._runs) <= RUNS_KEPT
    assert len(view._path) == len(view._runs)
    assert len(view._items) <= ITEMS_KEPT
    assert "under-way" in view._runs
    view.__rich__()
