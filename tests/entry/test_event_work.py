"""What one event has done: every step that may be worked on, once; what was abandoned; and nothing else."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from engine.errors import StoreUnavailableError
from tests.end_to_end.chart_export_world import RUN_ID, flow_run
from tests.entry.door_world import DoorWorld, door_world, steps, told

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _every_log(caplog):
    caplog.set_level(logging.INFO)


async def test_every_ready_step_of_the_run_is_worked_on(caplog):
    async with door_world(**{RUN_ID: steps(b="READY", a="READY", c="SUCCEEDED")}) as world, world.opened() as opened:
        await world.event(opened)

        assert {"a": "SUCCEEDED", "b": "SUCCEEDED", "c": "SUCCEEDED"} == await world.statuses()
        finished = told(caplog, "cloud_event_finished")
        assert [("a", "SUCCEEDED"), ("b", "SUCCEEDED")] == [(f["stepId"], f["status"]) for _, f in finished]
        assert {"outputsManifestGcsUri", "itemsCount", "failuresCount", "errorCode"} <= set(finished[0][1])
        assert 2 == len(world.api.calls)


@pytest.mark.parametrize("status", ["READY", "RUNNING"])
@pytest.mark.parametrize("bad", ["\0", "a" * 1024], ids=["nul", "too-long-for-a-key"])
async def test_a_step_whose_id_no_run_can_have_keeps_no_other_from_its_work(bad, status, caplog):
    async with door_world(**{RUN_ID: steps(**{bad: status, "b": "READY"})}) as world, world.opened() as opened:
        await world.event(opened)
        await world.event(opened)

        assert {bad: status, "b": "SUCCEEDED"} == await world.statuses()
        assert status == "RUNNING" or bad in [fields["stepId"] for _, fields in told(caplog, "start_refused")]


async def test_a_step_that_becomes_ready_meanwhile_is_worked_on_too():
    async with door_world(**{RUN_ID: steps(a="READY", b="PENDING")}) as world:
        answer = world.api

        async def advancing(request: Any) -> Any:
            await world.set_status("b", "READY")
            world.transport = answer
            return await answer(request)

        world.transport = advancing
        async with world.opened() as opened:
            await world.event(opened)

        assert {"a": "SUCCEEDED", "b": "SUCCEEDED"} == await world.statuses()


async def test_the_event_of_our_own_last_write_costs_one_read(caplog):
    async with door_world(**{RUN_ID: steps(a="READY")}) as world, world.opened() as opened:
        await world.event(opened)
        world.store.forget()
        caplog.clear()

        await world.event(opened)

        assert (1, 0, 0, 0) == (world.store.reads, world.store.queries, world.store.writes, world.store.starts)
        assert ["cloud_event_parsed", "cloud_event_noop"] == [name for name, _ in told(caplog)]
        assert "no_ready_step" == told(caplog)[-1][1]["reason"]


async def test_the_event_of_our_own_claim_writes_nothing_and_starts_nothing():
    """In the process that holds the step it costs one read, in another two more: who holds it is in the run's head."""
    async with door_world(**{RUN_ID: steps(a="READY")}) as world:
        counts = []

        async def interrupting(request: Any) -> Any:
            for door in (opened, other):
                world.store.forget()
                await world.event(door)
                counts.append((world.store.reads, world.store.writes, world.store.starts))
            return await world.api(request)

        world.transport = interrupting
        async with world.opened() as opened, world.opened() as other:
            await world.event(opened)

        assert [(1, 0, 0), (3, 0, 0)] == counts
        assert {"a": "SUCCEEDED"} == await world.statuses()


async def test_twenty_deliveries_at_once_do_the_work_once():
    async with door_world(**{RUN_ID: steps(a="READY", b="READY")}) as world, world.opened() as one:
        async with world.opened() as other, anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(world.event, (one, other)[number % 2])

        assert {"a": "SUCCEEDED", "b": "SUCCEEDED"} == await world.statuses()
        assert 2 == len(world.api.calls)


async def died_in_the_call(world: DoorWorld) -> None:
    """A first process is gone once its paid call has begun; nothing more of it arrives."""
    begun = anyio.Event()

    async def dying(request: Any) -> Any:
        await world.api(request)
        begun.set()
        await anyio.sleep_forever()

    world.transport = dying
    async with world.opened() as opened, anyio.create_task_group() as tasks:
        tasks.start_soon(world.event, opened)
        await begun.wait()
        world.store.is_cut = True
        tasks.cancel_scope.cancel()
    world.store.is_cut = False
    world.transport = world.api


async def test_a_redelivery_goes_on_with_what_a_dead_worker_left(caplog):
    async with door_world(**{RUN_ID: steps(a="READY")}) as world:
        await died_in_the_call(world)
        world.clock.advance(61)
        async with world.opened() as opened:
            await world.event(opened)

        assert {"a": "SUCCEEDED"} == await world.statuses()
        assert 2 == len(world.api.calls)  # the one whose answer was lost, and one more
        assert ["a"] == [fields["stepId"] for _, fields in told(caplog, "cloud_event_finished")]


async def test_a_redelivery_while_the_lease_lives_does_nothing(caplog):
    async with door_world(**{RUN_ID: steps(a="READY")}) as world:
        await died_in_the_call(world)
        async with world.opened() as opened:
            world.store.forget()
            await world.event(opened)

        assert (0, 0) == (world.store.writes, world.store.starts)
        assert [{"reason": "no_ready_step", "runningSteps": ["a"]}] == [
            fields for _, fields in told(caplog, "cloud_event_noop")
        ]


async def test_a_sweep_finishes_what_a_dead_worker_left_and_no_event_tells_of():
    async with door_world(**{RUN_ID: steps(a="READY")}) as world:
        await died_in_the_call(world)
        world.clock.advance(61)
        async with world.opened() as opened:
            assert 0 < await opened.app.within(480).work_once(patience_s=10)

        assert {"a": "SUCCEEDED"} == await world.statuses()


# What is not for us

IGNORED = {
    "no document": (None, "flow_run_not_found"),
    "steps are a list": ({**flow_run("a"), "steps": [{"stepId": "x"}]}, "invalid_steps"),
    "no steps": ({key: value for key, value in flow_run("a").items() if key != "steps"}, "invalid_steps"),
    "no runId": ({key: value for key, value in steps(a="READY").items() if key != "runId"}, "flow_run_refused"),
    "another's runId": ({**steps(a="READY"), "runId": "20260105-080000_ETHUSDT_k3f7a"}, "flow_run_refused"),
    "cancelled": ({**steps(a="READY"), "status": "CANCELLED"}, "flow_run_refused"),
}


@pytest.mark.parametrize("name", IGNORED)
async def test_what_is_not_for_us_is_said_and_changes_nothing(name, caplog):
    document, reason = IGNORED[name]
    async with door_world(**({} if document is None else {RUN_ID: document})) as world, world.opened() as opened:
        world.store.forget()
        await world.event(opened)

        assert [reason] == [fields["reason"] for _, fields in told(caplog, "cloud_event_ignored")]
        assert (1, 0) == (world.store.reads, world.store.writes)


@pytest.mark.parametrize("run_id", ["x", "20260105-080000_BTCUSDT_tooolong", "__x__", "."])
async def test_an_id_that_no_flow_run_has_is_not_found_or_refused(run_id, caplog):
    document = {**steps(a="READY"), "runId": run_id}
    async with door_world(**({run_id: document} if run_id[0] in "x2" else {})) as world, world.opened() as opened:
        await world.event(opened, run_id)

        assert told(caplog, "cloud_event_ignored")
        assert [] == world.api.calls


async def test_a_step_that_waits_for_others_is_told_with_them(caplog):
    document = steps(a="READY", b="RUNNING")
    document["steps"]["a"]["dependsOn"] = ["b", "gone"]
    async with door_world(**{RUN_ID: document}) as world, world.opened() as opened:
        world.store.forget()
        await world.event(opened)

        blocked = [
            {"stepId": "a", "unmet": [{"stepId": "b", "status": "RUNNING"}, {"stepId": "gone", "status": "MISSING"}]}
        ]
        assert [{"blockedSteps": blocked}] == [fields for _, fields in told(caplog, "depends_on_blocked")]
        assert 0 == world.store.writes


async def test_a_step_that_fails_is_a_result_like_any_other(caplog):
    document = steps(a="READY")
    document["steps"]["a"]["inputs"] = {"requests": []}
    async with door_world(**{RUN_ID: document}) as world, world.opened() as opened:
        await world.event(opened)

        assert {"a": "FAILED"} == await world.statuses()
        assert ["VALIDATION_FAILED"] == [fields["errorCode"] for _, fields in told(caplog, "cloud_event_finished")]


async def test_no_payload_and_no_secret_is_ever_told(caplog):
    async with door_world(**{RUN_ID: steps(a="READY")}) as world, world.opened() as opened:
        await world.event(opened)

        assert "first-secret-key" not in str(told(caplog))
        assert "requests" not in str(told(caplog))


async def test_a_store_that_is_away_is_left_to_the_next_delivery():
    async with door_world(**{RUN_ID: steps(a="READY")}) as world, world.opened() as opened:
        world.store.trouble = StoreUnavailableError("away")

        with pytest.raises(StoreUnavailableError):
            await world.event(opened)


# The budget


async def test_no_further_step_is_begun_when_an_action_of_it_could_outlast_the_budget(caplog):
    async with door_world(**{RUN_ID: steps(a="READY", b="READY")}) as world:

        async def slow(request: Any) -> Any:
            world.clock.advance(15)
            return await world.api(request)

        world.transport = slow
        async with world.opened(budget_s=320.0) as opened:
            opened = opened._replace(longest_s=310.0)
            await world.event(opened)
            assert {"a": "SUCCEEDED", "b": "READY"} == await world.statuses()
            assert ["budget"] == [fields["reason"] for _, fields in told(caplog, "cloud_event_left")]

            await world.event(opened)  # the event of the last step's own end
            assert {"a": "SUCCEEDED", "b": "SUCCEEDED"} == await world.statuses()


async def test_a_run_that_does_not_fit_the_budget_rests_and_a_sweep_goes_on_with_it(caplog):
    async with door_world(**{RUN_ID: steps(a="READY")}) as world:
        async with world.opened(budget_s=70.0) as opened:  # building fits (60 s), the call fits (45 s), publishing not
            await world.event(opened)

            assert {"a": "RUNNING"} == await world.statuses()
            (_, fields) = told(caplog, "cloud_event_finished")[0]
            assert ("RUNNING", "RUNNING.PUBLISHING") == (fields["status"], fields["state"])
            heads = [dict(found) for _, found in await world.store.inner.query("runs") if found["is_root"]]
            assert [(None, False)] == [(head["worker"], head["begun"]) for head in heads]
            assert heads[0]["claimable_at_ms"] <= world.clock.now_ms()
        async with world.opened() as opened:
            await opened.app.within(480).work_once(patience_s=10)

        assert {"a": "SUCCEEDED"} == await world.statuses()
        assert 1 == len(world.api.calls)
