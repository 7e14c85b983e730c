"""deploy/firestore.indexes.json has the index of every query that is made, and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.core.secret import Secrets
from engine.handlers.flow_backlog import INDEXES, backlog
from engine.handlers.flow_steps import FLOW_RUNS
from engine.runs import records
from engine.runs.definitions import Definitions
from engine.runs.runs import Runs
from engine.store.memory import MemoryStore

DEPLOYED: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent.parent / "deploy/firestore.indexes.json").read_text()
)

pytestmark = pytest.mark.anyio


class Asking(MemoryStore):
    """A store that remembers the composite index that each query needs in Firestore."""

    def __init__(self) -> None:
        super().__init__()
        self.needed: set[tuple[str, tuple[tuple[str, str], ...]]] = set()

    async def query(self, collection, where=(), order_by=(), limit=None):
        fields = [(one.field, "ASCENDING") for one in where if one.operator == "=="]
        fields += [(one.field, "DESCENDING" if one.descending else "ASCENDING") for one in order_by]
        ranges = {one.field for one in where if one.operator != "=="}
        assert ranges <= {field for field, _ in fields}, "a range that no order covers would be sorted by the client"
        if len(fields) > 1 or any(direction == "DESCENDING" for _, direction in fields):
            self.needed.add((collection, (*fields, ("__name__", "ASCENDING"))))
        return await super().query(collection, where, order_by, limit)


def deployed(collection: str) -> set[Any]:
    return {
        (index["collectionGroup"], tuple((field["fieldPath"], field["order"]) for field in index["fields"]))
        for index in DEPLOYED["indexes"]
        if index["collectionGroup"] == collection and index["queryScope"] == "COLLECTION"
    }


async def test_every_query_of_runs_has_its_index_and_no_index_is_without_a_query() -> None:
    store = Asking()
    runs = Runs(store, Definitions(store, lambda *_: None), lambda action: None, lambda: None, Secrets())
    await runs.newest(1)
    await runs.claimable(0, 1)
    await runs.claimable_of("root", 0, 1)
    await runs.holder_of("root", 0)

    assert store.needed == deployed(records.RUNS)


async def test_the_query_of_a_sweep_has_its_index() -> None:
    store = Asking()
    await backlog(store)

    assert store.needed == deployed(FLOW_RUNS)
    assert {index.fields for index in INDEXES} == {tuple(field for field, _ in one[1][:-1]) for one in store.needed}


async def test_the_indexes_that_a_file_gets_are_those_that_firestore_gets_or_makes_by_itself() -> None:
    composite = {tuple(field for field, _ in fields[:-1]) for _, fields in deployed(records.RUNS)}

    assert {index.fields for index in records.INDEXES if len(index.fields) > 1} == composite


def test_long_texts_are_not_indexed() -> None:
    spared = {(one["collectionGroup"], one["fieldPath"]) for one in DEPLOYED["fieldOverrides"]}

    assert all(one["indexes"] == [] for one in DEPLOYED["fieldOverrides"])
    assert spared == {
        (records.RUNS, "snapshot"), (records.JOURNAL, "entry"), (records.SNAPSHOT_PARTS, "text"),
        (records.JOURNAL_PARTS, "text"), (records.MAP_ITEMS, "items"), (records.SIGNALS, "value"),
    }  # fmt: skip
