"""Starts that nobody has made: steps whose event was lost are found, and run once."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from engine.entry.starts import Begun, expect_source, start_waiting
from engine.errors import InvalidRequestError, StoreUnavailableError
from engine.handlers import flow_backlog
from engine.handlers.flow_backlog import backlog
from tests.end_to_end.chart_export_world import CATALOGUE, MACHINE, ROOT
from tests.entry.door_world import DoorWorld, door_world, steps, told

pytestmark = pytest.mark.anyio


def run_id(number: int) -> str:
    return f"20260105-{80000 + number:06d}_BTCUSDT_k3f7a"


def runs(*documents: dict[str, Any]) -> dict[str, Any]:
    return {run_id(number): {**document, "runId": run_id(number)} for number, document in enumerate(documents)}


async def started(world: DoorWorld, budget_s: float = 480, longest_s: float = 300) -> Begun:
    async with world.opened() as opened:
        return await start_waiting(opened.app.within(budget_s), MACHINE, longest_s=longest_s, patience_s=10)


async def test_a_step_whose_event_was_lost_is_run():
    async with door_world(**runs(steps(a="READY", b="READY"), steps(a="READY"))) as world:
        assert Begun(3, 0, 0) == await started(world)

        assert {"a": "SUCCEEDED", "b": "SUCCEEDED"} == await world.statuses(run_id(0))
        assert {"a": "SUCCEEDED"} == await world.statuses(run_id(1))
        assert Begun(0, 0, 0) == await started(world)


NOT_WAITING = {
    "running": steps(a="RUNNING"),
    "pending": steps(a="PENDING"),
    "ended": steps(a="SUCCEEDED"),
    "of a run that has ended": {**steps(a="READY"), "status": "SUCCEEDED"},
    "of a cancelled run": {**steps(a="READY"), "status": "CANCELLED"},
    "of a run without an id": {**steps(a="READY"), "runId": None},
    "in a list": {**steps(a="READY"), "steps": [1]},
}


@pytest.mark.parametrize("name", NOT_WAITING)
async def test_what_does_not_wait_is_left_alone(name):
    documents = {run_id(0): {"runId": run_id(0), **NOT_WAITING[name]}}
    async with door_world(**documents) as world:
        world.store.forget()

        assert Begun() == await started(world)
        assert 0 == world.store.writes


async def test_a_step_of_a_run_that_has_not_begun_is_found_too():
    async with door_world(**runs({**steps(a="READY"), "status": "PENDING"})) as world:
        assert 1 == (await started(world)).started


async def test_two_sweeps_and_an_event_at_once_do_the_work_once():
    async with door_world(**runs(steps(a="READY"), steps(a="READY"))) as world, world.opened() as one:
        async with world.opened() as other, anyio.create_task_group() as tasks:
            for opened in (one, other):
                tasks.start_soon(lambda opened=opened: start_waiting(opened.app, MACHINE, longest_s=0, patience_s=10))
            tasks.start_soon(world.event, one, run_id(0))

        assert 2 == len(world.api.calls)
        assert {"a": "SUCCEEDED"} == await world.statuses(run_id(0))


async def test_what_does_not_fit_the_budget_is_left_and_counted():
    async with door_world(**runs(*(steps(a="READY") for _ in range(3)))) as world:
        assert Begun(0, 3, 0) == await started(world, budget_s=299)
        assert Begun(3, 0, 0) == await started(world, budget_s=300)


@pytest.mark.parametrize("count", [3, 4, 5])
async def test_flow_runs_are_read_in_pages_newest_first(count, monkeypatch):
    monkeypatch.setattr(flow_backlog, "PAGE", 2)
    async with door_world(**runs(*(steps(a="READY") for _ in range(count)))) as world:
        found = await backlog(world.store, read_max=4)

        newest = [run_id(number) for number in reversed(range(count))]
        assert newest[:4] == [value["run_id"] for value in found.inputs]
        assert (min(count, 4), count >= 4) == (found.looked_at, found.is_cut)


async def test_more_than_is_looked_at_is_told(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(flow_backlog.backlog, "__defaults__", (2,))
    async with door_world(**runs(*(steps(a="READY") for _ in range(3)))) as world:
        await started(world)

    assert [{"machine": "chart_export", "lookedAt": 2}] == [fields for _, fields in told(caplog, "backlog_cut")]


async def test_a_store_that_is_away_ends_it():
    async with door_world(**runs(steps(a="READY"))) as world, world.opened() as opened:
        world.store.trouble = StoreUnavailableError("away")

        with pytest.raises(StoreUnavailableError):
            await start_waiting(opened.app, MACHINE, longest_s=0, patience_s=10)


async def test_one_that_is_refused_does_not_stop_the_others(caplog, monkeypatch):
    async with door_world(**runs(steps(a="READY"), steps(a="READY"))) as world, world.opened() as opened:
        app = opened.app.within(480)
        run = app.run

        async def refusing(machine: Any, value: Any, **more: Any) -> Any:
            if value["run_id"] == run_id(1):
                raise InvalidRequestError("not this one.")
            return await run(machine, value, **more)

        monkeypatch.setattr(app, "run", refusing)

        assert Begun(1, 0, 1) == await start_waiting(app, MACHINE, longest_s=0, patience_s=10)
        assert [run_id(1)] == [fields["runId"] for _, fields in told(caplog, "start_refused")]


async def test_a_machine_of_which_nobody_can_tell_what_waits_is_refused():
    request = CATALOGUE.load(ROOT / "machines/chart_request.yaml")

    with pytest.raises(InvalidRequestError, match="nothing in the store says what waits for chart_request"):
        expect_source(request)
