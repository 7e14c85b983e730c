"""A worker that is stopped lets go of all that it holds, heard of or not. LEASES.md, Release."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import engine
from engine.core.action import Outcome
from engine.entry.application import Engine
from tests.runner.world import World

pytestmark = pytest.mark.anyio

QUICK = "{A: {invoke: {action: act}, on: {done: END}}, END: {type: final}}"
TAKEN = "{A: {always: {target: B, after: 1}}, B: {invoke: {action: act}, on: {done: END}}, END: {type: final}}"
MAP = """
{M: {map: {machine: child, items: '${input}', key: '${string(item)}', concurrency: 5}, on: {done: END}},
 END: {type: final}}
"""


class Stopped:
    """A world in which the task of a worker is cancelled while its `at`-th commit is under way: applied, and unheard."""

    def __init__(self, child: str) -> None:
        self.world = World()
        self.calls: list[str | None] = []

        @self.world.action("act")
        async def act(request: engine.ActionRequest) -> Outcome:
            self.calls.append(request.item_key)
            return Outcome("done")

        self.world.states(child, "child")
        self.program = self.world.states(MAP, "parent")

    async def run_until(self, at: int, work: Callable[[Engine], Awaitable[Any]]) -> bool:
        """Do `work` until its commit number `at`; answers whether it has come as far."""
        commits = 0
        async with self.world.engine("w1") as app, anyio.create_task_group() as tasks:

            async def count(keys: Any) -> None:
                nonlocal commits
                commits += 1
                if commits == at:
                    tasks.cancel_scope.cancel()
                    await anyio.lowlevel.checkpoint()

            self.world.store.after = count
            await work(app)
        self.world.store.after = None
        return commits >= at

    def expect_nothing_held(self) -> None:
        now_ms = self.world.clock.now_ms()
        for run_id, head in self.world.documents("runs").items():
            assert head["worker"] is None, f"{run_id} is held until {head['claimable_at_ms'] - now_ms} ms from now"

    async def expect_the_rest_is_done_at_once(self) -> None:
        began_ms = self.world.clock.now_ms()
        async with self.world.engine("w2") as app:
            await app.work_once(patience_s=5)
        assert {head["status"] for head in self.world.documents("runs").values()} <= {"succeeded"}
        assert self.world.clock.now_ms() - began_ms < 20_000, "nobody waited for a lease"
        self.world.expect_sound()


@pytest.mark.parametrize("child", [QUICK, TAKEN], ids=["next of the lane", "claimed"])
@pytest.mark.parametrize("at", range(1, 61))
async def test_a_map_that_is_stopped_in_any_commit_leaves_no_run_held(at: int, child: str) -> None:
    """Found by stopping it: the commit that ended an item had begun the next one of its lane, which nobody let go of."""
    stopped = Stopped(child)
    items = list(range(30))
    await stopped.run_until(at, lambda app: app.run(stopped.program, items, run_id="r"))
    stopped.expect_nothing_held()
    if stopped.world.documents("runs"):
        await stopped.expect_the_rest_is_done_at_once()
        assert sorted(set(stopped.calls)) == sorted(str(item) for item in items)


@pytest.mark.parametrize("at", range(1, 20))
async def test_a_worker_of_others_runs_that_is_stopped_in_any_commit_leaves_no_run_held(at: int) -> None:
    """Its claims are commits as well, of which it may not have heard either."""
    stopped = Stopped(QUICK)
    async with stopped.world.engine("door") as door:
        await door.start(stopped.program, list(range(12)), run_id="r")
    assert await stopped.run_until(at, lambda app: app.work_once(patience_s=5))
    stopped.expect_nothing_held()
    await stopped.expect_the_rest_is_done_at_once()


async def test_a_redrive_that_is_stopped_in_its_commit_leaves_the_run_at_rest() -> None:
    stopped = Stopped(QUICK)
    world = stopped.world
    broken = [Exception("a bug")]

    @world.action("breaks")
    async def breaks(request: engine.ActionRequest) -> Outcome:
        if broken:
            raise broken.pop()
        return Outcome("done")

    program = world.states("{A: {invoke: {action: breaks}, on: {done: END}}, END: {type: final}}", "single")
    async with world.engine("w0") as app:
        assert (await app.run(program, {}, run_id="r")).status == "failed"
    assert await stopped.run_until(1, lambda app: app.redrive("r"))
    assert (world.head("r")["status"], world.head("r")["worker"], world.head("r")["begun"]) == ("running", None, False)
    await stopped.expect_the_rest_is_done_at_once()
