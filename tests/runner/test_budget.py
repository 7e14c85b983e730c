"""A worker whose time is limited: it begins nothing that could outlast it, waits for nothing beyond it, and lets go."""

from __future__ import annotations

import math
from typing import Any

import anyio
import pytest

from engine.core import bounds
from engine.core.action import Decision, Outcome
from tests.runner.world import World

pytestmark = pytest.mark.anyio


def acting(world: World, timeout: str | None = "30s", more: str = "") -> Any:
    """Two actions one after the other; each says how long it took, which moves the clock."""
    took: list[float] = []

    @world.action("w.act")
    async def act(request: Any) -> Outcome:
        world.clock.advance(took.pop(0) if took else 0)
        world.calls.append(request)
        return Outcome("done")

    bound = "" if timeout is None else f"timeout: {timeout},"
    machine = world.states(
        f"""
        FIRST: {{invoke: {{action: w.act, {bound}}}, on: {{done: {more or "SECOND"}}}}}
        SECOND: {{invoke: {{action: w.act, {bound}}}, on: {{done: END}}}}
        END: {{type: final}}
        """
    )
    return machine, took


async def test_an_action_that_could_outlast_the_budget_is_left_at_rest_and_another_worker_goes_on():
    world = World()
    machine, took = acting(world)
    took.append(15.0)
    async with world.engine("w1") as app:
        result = await app.within(40).run(machine, {}, run_id="r")

        assert ("SECOND", None) == (result.state, result.held_by)
        head = world.head("r")
        assert (None, False) == (head["worker"], head["begun"])
        assert head["claimable_at_ms"] <= world.clock.now_ms()
    async with world.engine("w2") as app:
        assert 1 == await app.work_once()

    assert "succeeded" == world.head("r")["status"]
    assert 2 == len(world.calls)
    world.expect_sound()


@pytest.mark.parametrize(("budget_s", "calls"), [(29.999, 0), (30, 2), (30.001, 2)])
async def test_an_action_is_begun_when_just_its_timeout_is_left(budget_s, calls):
    world = World()
    machine, _ = acting(world)
    async with world.engine() as app:
        await app.within(budget_s).run(machine, {}, run_id="r")

    assert calls == len(world.calls)


@pytest.mark.parametrize(
    ("budget_s", "calls"),
    [(bounds.ACTION_S_ASSUMED - 0.001, 0), (bounds.ACTION_S_ASSUMED, 2), (bounds.ACTION_S_ASSUMED + 0.001, 2)],
)
async def test_an_action_without_a_timeout_is_begun_when_a_minute_is_left(budget_s, calls):
    world = World()
    machine, _ = acting(world, timeout=None)
    async with world.engine() as app:
        await app.within(budget_s).run(machine, {}, run_id="r")

    assert calls == len(world.calls)


async def test_a_transactional_action_needs_no_more_time_than_its_commit():
    world = World()
    _, took = acting(world)
    world.action("w.write", kind="transactional", documents=lambda request: [])(
        lambda request, documents, now: Decision(Outcome("done"))
    )
    machine = world.states(
        """
        FIRST: {invoke: {action: w.act, timeout: 30s}, on: {done: WRITING}}
        WRITING: {invoke: {action: w.write}, on: {done: END}}
        END: {type: final}
        """,
        name="writing",
    )
    took.append(29.0)
    async with world.engine() as app:
        result = await app.within(30).run(machine, {}, run_id="r")

    assert "succeeded" == result.status


async def test_a_timer_beyond_the_budget_is_not_waited_for():
    world = World()
    machine, _ = acting(world, more='{target: SECOND, after: "${20}"}')
    async with world.engine() as app:
        began_ms = world.clock.now_ms()
        result = await app.within(19 + 30).run(machine, {}, run_id="r", patience_s=3600)
        # The timer fires within the budget; the action after it would not fit.
        assert ("SECOND", 1) == (result.state, len(world.calls))
        assert world.clock.now_ms() - began_ms <= 49_000

        result = await app.run(machine, {}, run_id="r")
        assert "succeeded" == result.status


async def test_a_timer_after_the_end_of_the_budget_leaves_the_run_at_rest_at_once():
    world = World()
    machine, _ = acting(world, more='{target: SECOND, after: "${50}"}')
    async with world.engine() as app:
        began_ms = world.clock.now_ms()
        result = await app.within(40).run(machine, {}, run_id="r", patience_s=3600)

        assert ("waiting", world.clock.now_ms() - began_ms) == (result.status, 0)
        assert result.waits_until_ms == began_ms + 50_000


async def test_a_drain_ends_with_its_budget_and_leaves_the_rest():
    world = World()
    machine, took = acting(world)
    async with world.engine("gone") as app:
        for number in range(5):
            await app.within(1).run(machine, {}, run_id=f"r{number}")
    assert [] == world.calls
    took.extend([10.0] * 10)
    async with world.engine("w2", concurrency=1) as app:
        bounded = app.within(60)
        driven = await bounded.work_once(patience_s=3600)

        assert 0 < driven < 5
        assert all(head["worker"] is None for head in world.documents("runs").values())
        assert 5 - sum(head["status"] == "succeeded" for head in world.documents("runs").values()) == len(
            await app.runs.claimable(world.clock.now_ms(), 100)
        )
        await app.work_once()
    assert {"succeeded"} == {head["status"] for head in world.documents("runs").values()}


async def test_workers_of_one_engine_have_budgets_and_names_of_their_own():
    world = World()
    async with world.engine() as app:
        one, other = app.within(10), app.within(20)
        world.clock.advance(5)

        assert (math.inf, 5, 15) == (app.time_left_s, one.time_left_s, other.time_left_s)
        world.clock.advance(6)
        assert (0, 9) == (one.time_left_s, other.time_left_s)
        assert 3 == len({app.worker_name, one.worker_name, other.worker_name})


async def test_a_run_that_is_given_up_is_let_go_of():
    """The end of the reserve: whoever is cancelled commits at rest, so that nobody waits for a lease."""
    world = World()
    begun = anyio.Event()

    @world.action("w.hang")
    async def hang(request: Any) -> Outcome:
        begun.set()
        await anyio.sleep_forever()
        raise AssertionError

    machine = world.states(
        "A: {invoke: {action: w.hang, timeout: 300s}, on: {done: END}}\nEND: {type: final}", name="hanging"
    )
    async with world.engine() as app:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def give_up() -> None:
                    await begun.wait()
                    scope.cancel()

                tasks.start_soon(give_up)
                await app.within(400).run(machine, {}, run_id="r")

        assert (None, False) == (world.head("r")["worker"], world.head("r")["begun"])
