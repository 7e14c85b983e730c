"""What a chart export costs in Firestore: documents read and written, each exactly; the table is in docs/firestore.md.

One transact at a time, so that no conflict is among them: what conflicts add depends on who meets whom.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.handlers.accounts import Account
from engine.store.firestore import FirestoreStore
from tests.end_to_end.chart_export_world import RUN_ID, Scenario, Seen, export, flow_run
from tests.store.firestore_wire import Wire

ROOT = Path(__file__).parent.parent.parent


class OneAtATime:
    """A Firestore whose transacts never meet; what was written before the run begins is not counted."""

    def __init__(self, inner: FirestoreStore, wire: Wire) -> None:
        self._inner, self._wire, self._lock = inner, wire, anyio.Lock()

    async def get_many(self, *arguments: Any) -> Any:
        return await self._inner.get_many(*arguments)

    async def query(self, *arguments: Any) -> Any:
        return await self._inner.query(*arguments)

    async def transact(self, *arguments: Any) -> Any:
        async with self._lock:
            return await self._inner.transact(*arguments)

    async def close(self) -> None:
        await self._inner.close()


def exported(items: int, firestore: str, accounts: int = 2) -> tuple[Wire, Seen]:
    names = tuple(f"t{number:03}" for number in range(items))
    wire = Wire()

    async def opened(now_ms):
        wire.now_ms = now_ms
        project = firestore.removeprefix("firestore://").partition("/")[0]
        store = await FirestoreStore.open(project, now_ms=now_ms, interceptors=wire.interceptors)
        return OneAtATime(store, wire)

    async def prepare(app, folder):
        wire.calls.clear()
        wire.reads.clear()
        wire.writes.clear()
        wire.written.clear()

    seen = export(
        Scenario(
            documents={f"flow_runs/{RUN_ID}": flow_run(*names)}, templates=names, prepare=prepare,
            accounts=tuple(Account(f"acc{number}", f"secret-key-of-{number}") for number in range(1, accounts + 1)),
        ),
        opened,
    )  # fmt: skip
    assert seen.result.status == "succeeded", seen.result
    return wire, seen


WRITES = {
    1: {"definitions": 2, "runs": 12, "journal": 10, "flow_runs": 2, "run_keys": 1, "map_items": 1, "maps": 3,
        "chart_img_accounts_usage": 1, "chart_img_accounts_rate": 1},
    3: {"definitions": 2, "runs": 20, "journal": 16, "flow_runs": 2, "run_keys": 1, "map_items": 1, "maps": 5,
        "chart_img_accounts_usage": 3, "chart_img_accounts_rate": 3},
    8: {"definitions": 2, "runs": 38, "journal": 33, "flow_runs": 2, "run_keys": 1, "map_items": 1, "maps": 6,
        "maps (check)": 4, "chart_img_accounts_usage": 8, "chart_img_accounts_rate": 8},
}  # fmt: skip
COMMITS = {1: 12, 3: 18, 8: 31}
READS_MOST = {1: 55, 3: 90, 8: 195}
"""Reads are not the same each time: who looks for work, and finds it taken already, reads once more."""


@pytest.mark.parametrize("items", WRITES)
def test_what_a_run_writes_and_reads(items: int, firestore: str) -> None:
    wire, _ = exported(items, firestore)

    assert dict(wire.writes) == WRITES[items]
    assert wire.calls["Commit"] == COMMITS[items]
    assert sum(wire.reads.values()) <= READS_MOST[items]


def test_the_table_in_the_documents_is_what_was_measured() -> None:
    text = (ROOT / "docs/firestore.md").read_text()
    rows = [[int(cell) for cell in re.findall(r"\d+", row)] for row in re.findall(r"^\| \d.*$", text, re.MULTILINE)]

    assert [row[:4] for row in rows] == [
        [items, COMMITS[items], sum(WRITES[items].values()), READS_MOST[items]] for items in WRITES
    ]


def test_in_a_long_map_only_the_accounts_documents_are_written_again_and_again(firestore: str) -> None:
    wire, _ = exported(40, firestore)
    times: dict[str, list[int]] = {}
    for at_ms, name in wire.written:
        times.setdefault(name, []).append(at_ms)
    busy = {name: len(found) for name, found in times.items() if len(found) > 10}

    # Forty items over two accounts of one call a second: each account's two documents are written with each call.
    assert sorted(busy) == [f"chart_img_accounts_{kind}/acc{number}" for kind in ("rate", "usage") for number in (1, 2)]
    for name in busy:
        assert len(times[name]) == 20
        assert times[name][-1] - times[name][0] >= 15_000
    # The parent and the map are written where the map begins and ends, however many items there are.
    parent = [name for name in times if name.startswith(("maps/", "runs/")) and not re.search(r"~t\d{3}$", name)]
    assert Counter(len(times[name]) for name in parent) == {8: 1, 6: 1}
