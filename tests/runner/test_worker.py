"""A worker among troubles: outages, runs that it cannot take, observers that raise, new processes, timers."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import engine
from engine.core.action import Decision, Failure, Outcome
from engine.errors import InvalidRequestError, StoreUnavailableError
from engine.runner.worker import Schedule
from tests.runner.world import LEASE_S, Stalling, World, dies_in

pytestmark = pytest.mark.anyio

TWO = "{A: {invoke: {action: act}, on: {done: B}}, B: {invoke: {action: act}, on: {done: END}}, END: {type: final}}"


def recording(world: World, seconds: float = 0) -> list[str]:
    calls: list[str] = []

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Outcome:
        calls.append(request.idempotency_key)
        await world.clock.sleep(seconds)
        return Outcome("done")

    return calls


def away_for(world: World, seconds: float) -> None:
    """The store is away from now on, for reading and writing, for so long."""
    until = world.clock.now_ms() + seconds * 1000

    def trouble() -> Exception | None:
        return StoreUnavailableError("away") if world.clock.now_ms() < until else None

    async def before(keys: Any) -> None:
        if (error := trouble()) is not None:
            raise error

    world.store.before, world.store.read_trouble = before, trouble


# Outages


@pytest.mark.parametrize("seconds", [0.05, 3, 20, 49])
async def test_a_store_that_is_away_for_a_while_is_waited_out(seconds: float) -> None:
    """The answer of the action that was under way is kept; nothing is performed a second time."""
    world = World()
    calls: list[str] = []

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Outcome:
        calls.append(request.idempotency_key)
        if len(calls) == 1:
            away_for(world, seconds)
        return Outcome("done")

    async with world.engine() as app:
        result = await app.run(world.states(TWO), {}, run_id="r")
    assert (result.status, calls, world.head("r")["fence"]) == ("succeeded", ["r:A:1", "r:B:1"], 1)
    assert not world.observer.named("run_let_go")
    world.expect_sound()


async def test_a_run_is_let_go_when_the_store_stays_away_and_taken_over_later() -> None:
    world = World()
    calls: list[str] = []

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Outcome:
        calls.append(request.idempotency_key)
        if len(calls) == 1:
            away_for(world, 300)
        return Outcome("done")

    async with world.engine("w1") as app:
        with pytest.raises(StoreUnavailableError):
            await app.run(world.states(TWO), {}, run_id="r", patience_s=30)
    assert len(world.observer.named("run_let_go")) == 1
    world.clock.advance(300)
    async with world.engine("w2") as app:
        assert (await app.resume("r")).status == "succeeded"
    assert calls == ["r:A:1", "r:A:1", "r:B:1"]
    world.expect_sound()


async def test_an_outage_while_others_work_ends_none_of_them() -> None:
    """The worker's own look at the store fails; the actions that are under way go on."""
    world = World()
    cancelled: list[str] = []

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Outcome:
        try:
            await world.clock.sleep(15)
        except BaseException:
            cancelled.append(request.run_id)
            raise
        return Outcome("done")

    program = world.states(TWO)
    async with world.engine("w1") as app:
        app._serve_under(goes_on=False)
        for number in range(3):
            await app.run(program, {}, run_id=f"r{number}")
    async with world.engine("w2") as app, anyio.create_task_group() as tasks:
        tasks.start_soon(app.work_once)
        await world.clock.sleep(1)
        away_for(world, 8)
    assert cancelled == []
    assert {head["status"] for head in world.documents("runs").values()} == {"succeeded"}


@pytest.mark.parametrize("verb", ["run", "resume", "work_once"])
async def test_a_store_that_stays_away_is_told_as_such_and_not_wrapped(verb: str) -> None:
    """No ExceptionGroup comes out of a verb."""
    world = World()
    recording(world)
    program = world.states(TWO)
    async with world.engine() as app:
        app._serve_under(goes_on=False)
        await app.run(program, {}, run_id="r")
        app._serve_under(goes_on=True)
        away_for(world, 10_000)
        with pytest.raises(StoreUnavailableError):
            await {
                "run": lambda: app.run(program, {}, run_id="r"),
                "resume": lambda: app.resume("r"),
                "work_once": app.work_once,
            }[verb]()


async def test_a_handlers_own_outage_lets_the_run_go_and_it_is_performed_again() -> None:
    world = World()
    calls: list[int] = []

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Outcome:
        calls.append(world.clock.now_ms())
        if len(calls) == 1:
            raise StoreUnavailableError("the handler could not read")
        return Outcome("done")

    async with world.engine() as app:
        result = await app.run(world.states(TWO), {}, run_id="r", patience_s=2 * LEASE_S)
    assert (result.status, len(calls)) == ("succeeded", 3)


# Runs that cannot be taken


async def test_a_run_whose_definition_is_lost_does_not_keep_a_worker_busy() -> None:
    """Found by itself: the worker asked for it without end, and for nothing else."""
    world = World()
    calls = recording(world)
    async with world.engine("w1") as app:
        app._serve_under(goes_on=False)
        for run_id, name in (("lost", "other"), ("good", "small")):
            await app.run(world.states(TWO, name), {}, run_id=run_id)
    gone = next(
        key for key in world.memory._texts if key.collection == "definitions" and '"other"' in world.memory._texts[key]
    )
    del world.memory._texts[gone]
    async with world.engine("w2") as app:
        assert await app.work_once() == 1
        assert (world.head("good")["status"], len(calls)) == ("succeeded", 2)
        with pytest.raises(InvalidRequestError, match="definition"):
            await app.resume("lost")
    assert [fields["run_id"] for fields in world.observer.named("run_not_taken")] == ["lost", "lost"]


@pytest.mark.parametrize("kind", ["repeatable", "unrepeatable", "transactional"])
@pytest.mark.parametrize("state", ["A", "B"])
async def test_a_run_whose_action_this_process_does_not_have_is_left_to_those_that_do(kind: str, state: str) -> None:
    """It is neither performed nor failed here: not when it is claimed, and not when its timer leads there."""
    world, other = World(), World()
    calls = recording(world)
    more = {"documents": lambda request: []} if kind == "transactional" else {}
    world.action("known", kind, **more)(lambda *given: Decision(Outcome("done")) if more else Outcome("done"))
    on = "{done: END, interrupted: END}" if kind == "unrepeatable" else "{done: END}"
    before = "B: {after: {5s: A}}, " if state == "B" else ""
    states = f"{{{before}A: {{invoke: {{action: known}}, on: {on}}}, END: {{type: final}}}}"
    other.store, other.memory, other.clock = world.store, world.memory, world.clock
    async with world.engine("w1") as app:
        app._serve_under(goes_on=False)
        await app.run(world.states(states), {}, run_id="r", patience_s=0)
    async with other.engine("w2") as app:
        result = await app.resume("r")
        assert (result.state, result.status, result.held_by) == ("A", "running", None)
        await app.work_once()
    assert (world.head("r")["worker"], world.head("r")["begun"], calls) == (None, False, [])
    async with world.engine("w3") as app:
        assert (await app.resume("r")).status == "succeeded"


async def test_a_worker_that_is_stopping_begins_nothing_and_ends() -> None:
    world = World()
    calls = recording(world)
    program = world.states(TWO)
    async with world.engine() as app:
        app._serve_under(goes_on=False)
        assert (await app.run(program, {}, run_id="r")).status == "running"
        assert (await app.resume("r")).status == "running"
        assert await app.work_once() == 0
    assert (calls, world.head("r")["worker"], world.head("r")["begun"]) == ([], None, False)


async def test_an_unknown_run_is_told_so() -> None:
    async with World().engine() as app:
        with pytest.raises(InvalidRequestError, match="no run"):
            await app.resume("nobody")


async def test_a_step_that_the_engine_cannot_take_fails_the_run_and_no_other() -> None:
    """A bug of the engine's own, here put into `commit`: the run ends, and the worker goes on."""
    world = World()
    recording(world)
    program = world.states(TWO)
    async with world.engine() as app:
        honest = app.runs.commit

        async def broken(claim: Any, event: Any) -> Any:
            if claim.head.run_id == "bad" and type(event).__name__ == "ActionReturned":
                raise RuntimeError("a bug")
            return await honest(claim, event)

        app.runs.commit = broken  # type: ignore[method-assign]
        bad, good = await app.run(program, {}, run_id="bad"), await app.run(program, {}, run_id="good")
    assert (bad.status, bad.error["code"], good.status) == ("failed", "INTERNAL", "succeeded")


async def test_an_observer_that_raises_fails_no_run() -> None:
    world = World()
    recording(world)

    def raising(*given: Any) -> None:
        raise RuntimeError("no")

    world.observer.committed = world.observer.trouble = raising  # type: ignore[method-assign]
    async with world.engine() as app:
        assert (await app.run(world.states(TWO), {}, run_id="r")).status == "succeeded"


# Time


async def test_timers_survive_a_new_process() -> None:
    world = World()
    recording(world)
    program = world.states(
        "{A: {invoke: {action: act}, on: {done: {target: W, after: 600}}}, W: {after: {10m: END}}, END: {type: final}}"
    )
    async with world.engine("w1") as app:
        result = await app.run(program, {}, run_id="r")
    assert (result.status, result.waits_until_ms) == ("waiting", world.clock.now_ms() + 600_000)
    world.clock.advance(599)
    async with world.engine("w2") as app:
        assert (await app.resume("r", patience_s=2)).waits_until_ms == world.clock.now_ms() + 600_000
    async with world.engine("w3") as app:
        assert await app.work_once(patience_s=601) == 1
    assert world.head("r")["status"] == "succeeded"
    world.expect_sound()


async def test_a_failed_action_is_tried_again_after_its_backoff() -> None:
    world = World()
    at: list[int] = []

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Any:
        at.append(world.clock.now_ms())
        return (
            Outcome("done")
            if len(at) == 4
            else Failure("BUSY", "busy", retriable=True, retry_after_s=7 if len(at) == 1 else None)
        )

    retry = "{attempts: 4, backoff: 2, factor: 2}"
    states = "{A: {invoke: {action: act, retry: RETRY}, on: {done: END}}, END: {type: final}}".replace("RETRY", retry)
    async with world.engine() as app:
        assert (await app.run(world.states(states), {}, run_id="r")).status == "succeeded"
    assert [later - before for before, later in zip(at, at[1:], strict=False)] == [7_000, 4_000, 8_000]


async def test_a_wait_for_a_signal_is_not_waited_for() -> None:
    world = World()
    async with world.engine() as app:
        result = await app.run(world.states("{W: {on: {go: END}}, END: {type: final}}"), {}, run_id="r")
        assert (result.status, result.waits_until_ms) == ("waiting", None)
        assert await app.work_once() == 0


async def test_a_run_that_another_worker_holds_is_told_with_its_holder() -> None:
    world = World()
    stalling = Stalling()

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Outcome:
        await stalling.reach(request)
        return Outcome("done")

    program = world.states(TWO)
    async with world.engine("w1") as app:
        await dies_in(world, stalling, lambda: app.run(program, {}, run_id="r"))
    async with world.engine("w2") as app:
        result = await app.run(program, {}, run_id="r")
        assert (result.held_by, result.is_final) == ("w1", False)
        assert await app.work_once(patience_s=LEASE_S) == 1, "short waits included: the lease is over within them"
    assert world.head("r")["status"] == "succeeded"


async def test_many_runs_share_a_worker_and_no_more_than_it_drives_at_once() -> None:
    world = World()
    inside = most = 0

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Outcome:
        nonlocal inside, most
        inside, most = inside + 1, max(most, inside + 1)
        await world.clock.sleep(5)
        inside -= 1
        return Outcome("done")

    program = world.states(TWO)
    async with world.engine() as app:
        app._serve_under(goes_on=False)
        for number in range(100):
            await app.run(program, {}, run_id=f"r{number}")
    async with world.engine("w2", concurrency=7) as app:
        assert await app.work_once() == 100
    assert most == 7


def test_a_schedule_keeps_each_run_at_its_earliest_instant() -> None:
    schedule = Schedule()
    for run_id, at_ms in (("a", 30), ("b", 20), ("a", 10), ("a", 40)):
        schedule.add(run_id, at_ms)
    assert (schedule.next_at_ms(), schedule.due(9)) == (10, None)
    assert [schedule.due(100) for _ in range(3)] == ["a", "b", None]
    assert schedule.next_at_ms() is None
    schedule.add("a", 40)
    assert schedule.due(40) == "a"


async def test_a_worker_that_drains_does_not_wait_for_what_another_has_done_meanwhile() -> None:
    """Found on Firestore: it stayed for the minute at which a map that another worker had finished was to be looked at."""
    world = World()
    program = world.states("{A: {after: {50s: END}, cancel: END}, END: {type: final}}")
    async with world.engine("w1") as app:
        await app.run(program, {}, run_id="r", patience_s=0)
    began = world.clock.now_ms()

    async def cancel() -> None:
        async with world.engine("w2") as other:
            await world.clock.sleep(5.5)  # between two looks at the store
            await other.cancel("r")
            await other.resume("r")

    async with world.engine("w3") as app, anyio.create_task_group() as tasks:
        tasks.start_soon(cancel)
        await app.work_once(patience_s=60)
    assert world.head("r")["status"] == "succeeded"
    assert world.clock.now_ms() - began <= 7_000
