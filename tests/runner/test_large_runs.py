"""What outgrows a document: maps of ten thousand items, contexts and events in parts, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

import engine
from engine.core import canonical
from engine.core.action import Outcome
from engine.core.bounds import DOCUMENT_BYTES_MAX, MAP_ITEMS_MAX
from engine.core.snapshot import Snapshot
from engine.core.write import Key
from engine.runs.records import PART_CHARACTERS
from tests.runner.world import World

pytestmark = pytest.mark.anyio

CHILD = "{A: {invoke: {action: act, with: {v: '${input}'}, assign: {v: '${result}'}}, on: {done: END}}, END: {type: final, output: '${context.v}'}}"
PARENT = """
{M: {map: {machine: child, items: '${input.items}', key: '${context_free + string(item)}', concurrency: 20,
           assign: {all: '${result.items}'}}, on: {done: END}},
 END: {type: final, output: {count: '${size(context.all)}', last: '${context.all[size(context.all) - 1]}'}}}
""".replace("context_free", "input.prefix")
GROWING = """
{A: {invoke: {action: grow, with: {n: '${input.n}'}, assign: {v: '${result}'}}, on: {done: B}},
 B: {invoke: {action: small}, on: {done: C}},
 C: {invoke: {action: grow, with: {n: 1}, assign: {v: '${result}'}}, on: {done: END}}, END: {type: final}}
"""


class Counted:
    """A world that counts the documents that transactions ask for."""

    def __init__(self) -> None:
        self.world = World()
        self.keys = 0

        @self.world.action("act")
        async def act(request: engine.ActionRequest) -> Outcome:
            return Outcome("done", {"value": request.params["v"]})

        self.world.states(CHILD, "child")
        self.program = self.world.states(PARENT, "parent")
        self.world.store.before = self.count

    async def count(self, keys: Sequence[Key]) -> None:
        self.keys += len(keys)

    async def run(self, items: int) -> Any:
        async with self.world.engine() as app:
            return await app.run(self.program, {"items": list(range(items)), "prefix": "item-"}, run_id=f"r{items}")


async def test_a_map_of_ten_thousand_items_costs_the_same_for_each_as_one_of_a_hundred() -> None:
    few, many = Counted(), Counted()
    await few.run(100)
    result = await many.run(MAP_ITEMS_MAX)
    assert (result.status, result.output["count"]) == ("succeeded", MAP_ITEMS_MAX)
    assert result.output["last"] == {
        "key": "item-9999", "status": "succeeded", "output": {"value": 9999}, "error": None,
    }  # fmt: skip
    assert many.keys / MAP_ITEMS_MAX <= 1.05 * few.keys / 100
    longest = max(len(text.encode()) for text in many.world.memory._texts.values())
    assert longest <= DOCUMENT_BYTES_MAX
    async with many.world.engine() as app:
        entries = await app.runs.journal(f"r{MAP_ITEMS_MAX}")
    assert [type(entry.event).__name__ for entry in entries] == ["RunStarted", "MapFinished"]


def growing(world: World) -> Any:
    @world.action("grow")
    async def grow(request: engine.ActionRequest) -> Outcome:
        return Outcome("done", "x" * request.params["n"])

    @world.action("small")
    async def small(request: engine.ActionRequest) -> Outcome:
        return Outcome("done")

    return world.states(GROWING)


@pytest.mark.parametrize("size", [100, PART_CHARACTERS - 1_000, PART_CHARACTERS + 10, 4 * PART_CHARACTERS])
async def test_a_context_of_any_size_survives_from_worker_to_worker(size: int) -> None:
    world = World()
    program = growing(world)
    async with world.engine("w1") as app:
        app._serve_under(goes_on=False)
        await app.run(program, {"n": size}, run_id="r")
    for _ in range(3):  # each step by another process, which knows nothing but what is stored
        async with world.engine("other") as app:
            committed = await app._driver.take("r")
            effect = committed.claim.effect
            event = await app.performer.perform(program, effect, committed.head.snapshot, None)
            app._serve_under(goes_on=False)
            await app.runs.commit(committed.claim, event)
            head = await app.runs.get("r")
            entries = await app.runs.journal("r")
        assert [entry.seq for entry in entries] == list(range(1, head.snapshot.seq + 1))
        assert Snapshot.decode(head.snapshot.encode()) == head.snapshot
    assert head.snapshot.status.value == "succeeded"
    assert head.snapshot.context == {"v": "x"}
    assert world.documents("snapshot_parts") == {}, "the parts of a snapshot are gone with the next one"
    assert all(len(canonical.encode(document)) < DOCUMENT_BYTES_MAX for document in world.documents("journal").values())


async def test_a_lost_handler_that_will_not_end_is_told_again() -> None:
    """A handler that swallows its cancellation once is cancelled once more, and its answer then counts for nothing."""
    world = World()
    told: list[str] = []

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Outcome:
        try:
            await anyio.sleep_forever()
        except BaseException:
            told.append("once")
            try:
                await anyio.sleep_forever()
            except BaseException:
                told.append("twice")
                raise
        return Outcome("done")

    program = world.states("{A: {invoke: {action: act}, on: {done: END}}, END: {type: final}}")

    async def taken_over() -> None:
        await world.clock.sleep(5)
        world.memory._texts[Key("runs", "r")] = world.memory._texts[Key("runs", "r")].replace('"fence":1', '"fence":7')

    async with world.engine() as app, anyio.create_task_group() as tasks:
        tasks.start_soon(taken_over)
        result = await app.run(program, {}, run_id="r", patience_s=1)
        assert result.status == "running"
        tasks.cancel_scope.cancel()
    assert told == ["once", "twice"]
    assert [trouble for trouble, _ in world.observer.troubles] == ["lease_lost"]
