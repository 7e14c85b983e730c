"""The parent of a map: what it sees to first, when it looks again, and what its items are told. LEASES.md."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import engine
from engine.core.action import Outcome
from engine.core.effect import StartMap, StopMap
from engine.core.write import Key, Set
from engine.runs import Committed
from engine.runs.collect import collect
from engine.runs.commit import MAP_LOOK_MS
from engine.runs.deliver import cancel, cancel_unfinished, signal
from tests.runner.world import LEASE_S, World

pytestmark = pytest.mark.anyio

CHILD = "{A: {invoke: {action: act}, on: {done: END}}, END: {type: final}}"
PARENT = """
{M: {map: {machine: child, items: ['a', 'b'], key: '${item}', concurrency: 2}, on: {done: END}, cancel: W},
 W: {'on': {go: END}}, END: {type: final}}
"""


@asynccontextmanager
async def mapping(world: World) -> AsyncIterator[Any]:
    """An engine, and a run `p` at rest in its map, whose items have begun nothing."""

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Outcome:
        return Outcome("done")

    world.states(CHILD, "child")
    program = world.states(PARENT, "parent")
    async with world.engine() as app:
        await app.start(program, {}, run_id="p")
        yield app


async def test_maps_to_be_left_come_before_a_message_that_waits() -> None:
    world = World()
    async with mapping(world) as app:
        await cancel(app.runs, "p")
        left = await app.runs.claim("p")
        assert (left.head.snapshot.state, left.claim, len(left.head.leaving)) == ("W", None, 1)
        await signal(app.runs, "p", "go", None, "g1")
        taken = await app.runs.claim("p")
        assert isinstance(taken, Committed)
        assert taken.event is None
        assert isinstance(taken.claim.effect, StopMap)
        world.clock.advance(LEASE_S)
        assert (await app.resume("p")).status == "succeeded"
        await app.work_once(patience_s=1)
    assert {head["status"] for head in world.documents("runs").values() if not head["is_root"]} == {"cancelled"}
    world.expect_sound()


async def test_a_child_that_is_told_twice_has_one_cancel() -> None:
    world = World()
    async with mapping(world) as app:
        now_ms = world.clock.now_ms()
        assert await cancel_unfinished(app.runs, ["p~M~1~a"], "left") == (("p~M~1~a", now_ms),)
        assert await cancel_unfinished(app.runs, ["p~M~1~a"], "left") == ()
    assert [message["kind"] for message in world.head("p~M~1~a")["inbox"]] == ["cancel"]


async def test_a_parent_that_was_cancelled_while_it_was_counted_for_rests_claimable_at_once() -> None:
    world = World()
    async with mapping(world) as app:
        world.clock.advance(MAP_LOOK_MS / 1000)
        counting = await app.runs.claim("p")
        assert isinstance(counting.claim.effect, StartMap)
        assert (await cancel(app.runs, "p")).is_due is False
        rested = await collect(app.runs, counting.claim, world.clock.now_ms())
    now_ms = world.clock.now_ms()
    assert (rested.head.claimable_at_ms, rested.woken) == (now_ms, (("p", now_ms),))
    assert world.head("p")["claimable_at_ms"] == now_ms


async def test_a_parent_whose_wake_was_lost_looks_after_its_map_by_itself() -> None:
    world = World()
    async with mapping(world) as app:
        looks_at_ms = world.clock.now_ms() + MAP_LOOK_MS
        assert (MAP_LOOK_MS, world.head("p")["claimable_at_ms"]) == (60_000, looks_at_ms)
        for child in ("p~M~1~a", "p~M~1~b"):
            await app.resume(child, patience_s=0)
        parent = Key("runs", "p")
        lost = lambda found, now: ([Set(parent, {**found[parent], "claimable_at_ms": looks_at_ms})], None)  # noqa: E731
        await world.memory.transact([parent], lost)
        assert await app.work_once(patience_s=MAP_LOOK_MS / 1000 - 1) == 0
        await app.work_once(patience_s=MAP_LOOK_MS / 1000)
    assert (world.head("p")["status"], world.clock.now_ms()) == ("succeeded", looks_at_ms)
    world.expect_sound()
