"""A worker that dies in the middle of the paid call, and another that comes after its lease."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import anyio
import httpx

from engine.artifacts.folder import FolderArtifacts
from engine.core.secret import Secrets
from engine.entry.application import Engine
from engine.handlers.accounts import AccountPools
from engine.handlers.chart_img import ChartImg, ChartImgSettings
from engine.handlers.ledger import Ledger
from engine.handlers.templates import ChartDefaults
from engine.store.memory import MemoryStore
from engine.testing.clock import SimulatedClock
from tests.end_to_end.chart_export_world import (
    CATALOGUE,
    MACHINE,
    RUN_ID,
    Recorder,
    Scenario,
    ScriptedApi,
    Seen,
    everything,
    flow_run,
    put,
    read_objects,
    template,
)

CRASH = "a_crash_during_the_call_costs_one_unit"


def export_with_a_crash_during_the_call(machine: Any = None) -> Seen:
    """The first worker is gone once its first call has begun; the second finishes the step."""
    return anyio.run(_export, machine or MACHINE)


async def _export(machine: Any) -> Seen:
    scenario = Scenario({f"flow_runs/{RUN_ID}": flow_run("a")})
    clock = SimulatedClock(now_ms=round(scenario.started.timestamp() * 1000), automatic=True)
    store = MemoryStore(clock.now_ms)
    await put(store, {"chart_templates/a": template("a", 0), **scenario.documents})
    secrets, recorder, api = Secrets(), Recorder(), ScriptedApi(scenario)
    pools = AccountPools({"chart_img": scenario.accounts}, secrets)
    begun = anyio.Event()

    async def dying(request: httpx.Request) -> httpx.Response:
        await api(request)
        begun.set()
        await anyio.sleep_forever()
        raise AssertionError("the worker is gone")

    with tempfile.TemporaryDirectory() as folder:

        async def work(transport: Any) -> Any:
            settings = ChartImgSettings("real", "https://api.example", Path(folder, "f"), Path(folder, "c.yaml"))
            chart_img = ChartImg(settings, pools, secrets, transport=httpx.MockTransport(transport))
            artifacts = FolderArtifacts(str(Path(folder, "out")), "bucket", secrets=secrets)
            async with Engine(
                store=store, artifacts=artifacts, services=[Ledger(pools), chart_img, ChartDefaults()],
                secrets=secrets, clock=clock, observer=recorder, catalogue=CATALOGUE,
            ) as app:  # fmt: skip
                return await app.run(machine, scenario.input, patience_s=3600)

        async with anyio.create_task_group() as first:

            async def run_until_killed() -> None:
                await work(dying)

            first.start_soon(run_until_killed)
            await begun.wait()
            first.cancel_scope.cancel()
        clock.advance(61)
        result = await work(api)
        objects = read_objects(Path(folder, "out", "bucket"))
    documents = await everything(store)
    return Seen(result, documents, objects, api.calls, api.bodies, recorder.logs, recorder.taken, clock, {})
