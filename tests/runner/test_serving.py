"""A worker that serves: it finds work, shares it, leaves its places to runs that move, and stops as it is told."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import engine
from engine.core import bounds
from engine.core.action import Outcome
from engine.entry.application import Engine
from engine.entry.configuration import read_configuration
from engine.errors import ConfigurationError, InvalidRequestError, StoreUnavailableError
from engine.runs.deliver import signal
from tests.runner.world import LEASE_S, Stalling, World

pytestmark = pytest.mark.anyio

ONE = "{A: {invoke: {action: act}, on: {done: END}}, END: {type: final}}"
TWO = "{A: {invoke: {action: act}, on: {done: B}}, B: {invoke: {action: act}, on: {done: END}}, END: {type: final}}"
PAID = "{A: {invoke: {action: act}, on: {done: B, interrupted: END}}, B: {invoke: {action: act}, on: {done: END, interrupted: END}}, END: {type: final}}"


def quick(world: World) -> list[str]:
    """An action that answers at once; records whose it was."""
    calls: list[str] = []

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Outcome:
        calls.append(request.run_id)
        return Outcome("done")

    return calls


async def until(world: World, holds: Any) -> None:
    while not holds():
        await world.clock.sleep(0.05)


def ended(world: World) -> list[str]:
    return sorted(run_id for run_id, head in world.documents("runs").items() if head["status"] == "succeeded")


async def test_a_worker_takes_runs_that_are_started_while_it_serves() -> None:
    world = World()
    calls = quick(world)
    program = world.states(ONE)
    stop = anyio.Event()
    async with world.engine("w1") as app, world.engine("door") as door, anyio.create_task_group() as tasks:
        tasks.start_soon(app.work, stop)
        for number in range(5):
            result = await door.start(program, {}, run_id=f"r{number}")
            assert (result.status, result.held_by) == ("running", None)
            await world.clock.sleep(3)
        await until(world, lambda: len(ended(world)) == 5)
        stop.set()
    assert sorted(calls) == [f"r{number}" for number in range(5)]
    world.expect_sound()


async def test_several_workers_share_a_backlog_and_perform_nothing_twice() -> None:
    world = World()
    calls = quick(world)
    program = world.states(TWO)
    stop = anyio.Event()
    async with world.engine("door") as door:
        for number in range(60):
            await door.start(program, {}, run_id=f"r{number}")
    async with world.engine("w1", concurrency=3) as one, world.engine("w2", concurrency=3) as two:
        async with anyio.create_task_group() as tasks:
            for app in (one, two):
                tasks.start_soon(app.work, stop)
            await until(world, lambda: len(ended(world)) == 60)
            stop.set()
    assert len(calls) == 120
    assert {head["fence"] for head in world.documents("runs").values()} == {2}, "each was claimed once"
    world.expect_sound()


async def test_a_run_that_waits_occupies_no_place() -> None:
    world = World()
    quick(world)
    waits = world.states("{W: {'on': {go: END}, after: {1h: END}}, END: {type: final}}", "waits")
    acts = world.states(ONE, "acts")
    stop = anyio.Event()
    async with world.engine("w1", concurrency=1) as app, world.engine("door") as door:
        for number in range(3):
            await door.start(waits, {}, run_id=f"w{number}")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.work, stop)
            await door.start(acts, {}, run_id="a")
            await until(world, lambda: ended(world) == ["a"])
            await signal(door.runs, "w1", "go", None, "s")
            await until(world, lambda: ended(world) == ["a", "w1"])
            world.clock.advance(3600)
            await until(world, lambda: len(ended(world)) == 4)
            stop.set()
    world.expect_sound()


async def test_an_idle_worker_asks_the_store_once_a_second_at_most() -> None:
    world = World()
    stop = anyio.Event()
    asked: list[int] = []
    world.store.read_trouble = lambda: asked.append(world.clock.now_ms())
    async with world.engine("w1") as app, anyio.create_task_group() as tasks:
        asked.clear()
        tasks.start_soon(app.work, stop)
        await world.clock.sleep(100)
        stop.set()
    gaps = [later - earlier for earlier, later in zip(asked, asked[1:], strict=False)]
    assert 80 < len(asked) <= 100
    assert min(gaps) >= 1000
    assert len(set(gaps)) > 10, "workers would ask in step"


async def test_a_store_that_is_away_is_asked_again_ever_more_rarely() -> None:
    world = World()
    quick(world)
    program = world.states(ONE)
    stop = anyio.Event()
    away = True
    world.store.read_trouble = lambda: StoreUnavailableError("away") if away else None
    async with world.engine("w1") as app, anyio.create_task_group() as tasks:
        tasks.start_soon(app.work, stop)
        await world.clock.sleep(300)
        assert len(world.observer.named("store_away")) < 25
        away = False
        async with world.engine("door") as door:
            await door.start(program, {}, run_id="r")
        await until(world, lambda: ended(world) == ["r"])
        stop.set()


async def stopped(
    world: World, program: Any, stalling: Stalling, grace_s: float, hurry: anyio.Event | None = None
) -> None:
    """A worker that is told to stop while it is in an action, which goes on if the grace time lets it."""
    stop = anyio.Event()
    async with world.engine("w1") as app, world.engine("door") as door, anyio.create_task_group() as tasks:
        await door.start(program, {}, run_id="r")
        await door.start(program, {}, run_id="s")
        tasks.start_soon(app.work, stop, grace_s, hurry)
        await stalling.begun.wait()
        await until(world, lambda: len(stalling.keys) == 2)
        stop.set()
        await world.clock.sleep(5)
        stalling.go_on.set()


def stalling_action(world: World, kind: str) -> Stalling:
    stalling = Stalling()

    @world.action("act", kind)
    async def act(request: engine.ActionRequest) -> Outcome:
        await stalling.reach(request)
        return Outcome("done")

    return stalling


async def test_what_is_under_way_finishes_within_the_grace_time_and_nothing_new_begins() -> None:
    world = World()
    stalling = stalling_action(world, "repeatable")
    await stopped(world, world.states(TWO), stalling, grace_s=10)
    assert {(head["state"], head["worker"], head["begun"]) for head in world.documents("runs").values()} == {
        ("B", None, False)
    }
    assert len(stalling.keys) == 2
    async with world.engine("w2") as app:
        assert await app.work_once() == 2
    assert ended(world) == ["r", "s"]
    world.expect_sound()


@pytest.mark.parametrize("kind", ["repeatable", "unrepeatable"])
async def test_what_the_grace_time_does_not_see_finished_is_let_go_of_for_others(kind: str) -> None:
    world = World()
    stalling = stalling_action(world, kind)
    await stopped(world, world.states(PAID if kind == "unrepeatable" else TWO), stalling, grace_s=2)
    heads = world.documents("runs").values()
    assert {(head["state"], head["worker"], head["begun"]) for head in heads} == {("A", None, kind == "unrepeatable")}
    assert all(head["claimable_at_ms"] <= world.clock.now_ms() for head in heads)
    stalling.is_stalling = False
    async with world.engine("w2") as app:
        await app.work_once()
    assert ended(world) == ["r", "s"]
    world.expect_sound()


async def test_a_second_signal_ends_the_grace_time() -> None:
    world = World()
    stalling = stalling_action(world, "repeatable")
    hurry = anyio.Event()
    hurry.set()
    before = world.clock.now_ms()
    await stopped(world, world.states(TWO), stalling, grace_s=3600, hurry=hurry)
    assert world.clock.now_ms() - before < 60_000
    assert {head["worker"] for head in world.documents("runs").values()} == {None}


async def test_a_run_of_a_dead_worker_is_taken_over_when_its_lease_is_over() -> None:
    world = World()
    stalling = stalling_action(world, "repeatable")
    stop = anyio.Event()
    program = world.states(ONE)
    async with world.engine("dead") as app:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: app.run(program, {}, run_id="r"))
            await stalling.begun.wait()
            world.store.is_cut = True
            tasks.cancel_scope.cancel()
    world.store.is_cut = stalling.is_stalling = False
    began_ms = world.clock.now_ms()
    async with world.engine("w1") as app, anyio.create_task_group() as tasks:
        tasks.start_soon(app.work, stop)
        await until(world, lambda: ended(world) == ["r"])
        stop.set()
    assert LEASE_S * 0.6 < (world.clock.now_ms() - began_ms) / 1000 < LEASE_S + 3


async def test_a_run_that_this_worker_cannot_take_is_tried_again_later() -> None:
    world = World()
    quick(world)
    program = world.states(ONE)
    stop = anyio.Event()
    handler = world.registry._handlers.pop("act")  # a worker of an older release does not know the action yet
    async with world.engine("w1") as app, world.engine("door") as door, anyio.create_task_group() as tasks:
        await door.start(program, {}, run_id="r")
        tasks.start_soon(app.work, stop)
        await world.clock.sleep(30)
        assert ended(world) == []
        world.registry._handlers["act"] = handler
        await until(world, lambda: ended(world) == ["r"])
        stop.set()


# Bounds


@pytest.mark.parametrize(
    ("concurrency", "fits"),
    [
        (0, False),
        (1, True),
        (bounds.CONCURRENCY_MAX - 1, True),
        (bounds.CONCURRENCY_MAX, True),
        (bounds.CONCURRENCY_MAX + 1, False),
        (True, False),
    ],
)
def test_concurrency_has_its_bound(concurrency: Any, *, fits: bool) -> None:
    if fits:
        Engine(store="memory:", concurrency=concurrency)
    else:
        with pytest.raises(InvalidRequestError, match="concurrency"):
            Engine(store="memory:", concurrency=concurrency)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_the_lease_has_its_bound(more: int) -> None:
    lease_s = bounds.LEASE_S_MAX + more
    if more > 0:
        with pytest.raises(InvalidRequestError, match="lease_s"):
            Engine(store="memory:", lease_s=lease_s)
        with pytest.raises(ConfigurationError, match="DETENT_LEASE_S"):
            read_configuration({"DETENT_LEASE_S": str(lease_s)}, default_mode="mock")
    else:
        Engine(store="memory:", lease_s=lease_s)
        assert read_configuration({"DETENT_LEASE_S": str(lease_s)}, default_mode="mock").lease_s == lease_s


@pytest.mark.parametrize(
    ("grace_s", "fits"),
    [
        (-1, False),
        (0, True),
        (bounds.GRACE_S_MAX - 1, True),
        (bounds.GRACE_S_MAX, True),
        (bounds.GRACE_S_MAX + 1, False),
        (float("nan"), False),
    ],
)
async def test_the_grace_time_has_its_bound(grace_s: float, *, fits: bool) -> None:
    world = World()
    stop = anyio.Event()
    stop.set()
    async with world.engine() as app:
        if fits:
            assert await app.work(stop, grace_s) == 0
        else:
            with pytest.raises(InvalidRequestError, match="grace_s"):
                await app.work(stop, grace_s)
