"""A chart export that is cancelled and redriven: what was paid for is kept, what was not called for is given back."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from engine.artifacts.folder import FolderArtifacts
from engine.core.event import CancelRequested
from engine.core.secret import Secrets
from engine.core.snapshot import Status, empty
from engine.core.step import step
from engine.core.write import Key, Update
from engine.entry.application import Engine
from engine.errors import IllegalEventError
from engine.handlers.accounts import Account, AccountPools
from engine.handlers.chart_img import ChartImg, ChartImgSettings
from engine.handlers.ledger import Ledger
from engine.handlers.templates import ChartDefaults
from engine.store.memory import MemoryStore
from engine.testing.clock import SimulatedClock
from engine.testing.journals import keep_all
from tests.end_to_end.chart_export_world import (
    CATALOGUE,
    MACHINE,
    RUN_ID,
    STEP_ID,
    Recorder,
    Scenario,
    ScriptedApi,
    answer,
    everything,
    flow_run,
    limit_exceeded,
    put,
    read_objects,
    template,
)

pytestmark = pytest.mark.anyio

SLOW = (Account("acc1", "first-secret-key", per_second=0.01, burst=1),)
RUN = f"chart_export~{RUN_ID.replace('/', '%2F')}%2F{STEP_ID}~1"
REQUEST = MACHINE.children["chart_request"]


class Export:
    """One process over a store with one step that asks for the charts a, b and c."""

    def __init__(self, app, store, api, clock, out):
        self.app, self.store, self.api, self.clock, self.out = app, store, api, clock, out

    async def documents(self):
        return await everything(self.store)

    async def step(self):
        return (await self.documents())[f"flow_runs/{RUN_ID}"]["steps"][STEP_ID]

    async def used(self):
        found = await self.documents()
        return sum(document["usageToday"] for name, document in found.items() if "accounts_usage" in name)

    async def ready(self):
        key = Key.of("flow_runs", RUN_ID)
        change = Update(key, {("steps", STEP_ID, "status"): "READY"})
        await self.store.transact([key], lambda found, now_ms: ([change], None))

    def run(self, patience_s=3600):
        return self.app.run(MACHINE, {"run_id": RUN_ID, "step_id": STEP_ID}, patience_s=patience_s)

    async def statuses(self):
        found = await self.documents()
        return sorted(run["status"] for run in found.values() if run.get("machine") == "chart_request")


@asynccontextmanager
async def export(scenario, on_call=None):
    clock = SimulatedClock(now_ms=round(scenario.started.timestamp() * 1000), automatic=True)
    store = MemoryStore(clock.now_ms)
    await put(store, {f"chart_templates/{name}": template(name, index) for index, name in enumerate("abcd")})
    await put(store, scenario.documents)
    secrets, api = Secrets(), ScriptedApi(scenario)
    pools = AccountPools({"chart_img": scenario.accounts}, secrets)

    async def call(request: httpx.Request) -> httpx.Response:
        if on_call is not None:
            await on_call(json.loads(request.content)["width"])
        return await api(request)

    with tempfile.TemporaryDirectory() as folder:
        settings = ChartImgSettings("real", "https://api.example", Path(folder, "f"), Path(folder, "c.yaml"))
        chart_img = ChartImg(settings, pools, secrets, transport=httpx.MockTransport(call))
        artifacts = FolderArtifacts(str(Path(folder, "out")), "bucket", secrets=secrets)
        async with Engine(
            store=store, artifacts=artifacts, services=[Ledger(pools), chart_img, ChartDefaults()], secrets=secrets,
            clock=clock, observer=Recorder(), catalogue=CATALOGUE,
        ) as app:  # fmt: skip
            yield Export(app, store, api, clock, Path(folder, "out", "bucket"))
            await chart_img.aclose()


async def run_id_of(world):
    (run,) = [
        run for run in (await world.documents()).values() if run.get("machine") == "chart_export" and "fence" in run
    ]
    return run["run_id"]


async def cancelled_while_two_wait(world):
    """One chart captured; two have their unit and wait for their turn when the cancel comes."""
    assert (await world.run(patience_s=20)).status == "running"
    assert await world.used() == 3
    run_id = await run_id_of(world)
    await world.app.cancel(run_id)
    result = await world.app.resume(run_id)
    assert (result.status, result.error["code"], result.error["message"]) == (
        "failed", "CHART_API_FAILED", "The run was cancelled",
    )  # fmt: skip
    return run_id


async def test_units_whose_calls_never_began_are_given_back():
    async with export(Scenario(accounts=SLOW)) as world:
        await cancelled_while_two_wait(world)
        assert (await world.used(), len(world.api.calls)) == (1, 1)
        assert await world.statuses() == ["cancelled", "cancelled", "succeeded"]
        assert ((await world.step())["status"], (await world.step())["error"]["code"]) == ("FAILED", "CHART_API_FAILED")
        assert [name for name in read_objects(world.out) if name.startswith("runs/")] == []


async def test_a_call_under_way_is_recorded_though_its_run_has_ended():
    begun, go_on = anyio.Event(), anyio.Event()

    async def stall(width):
        begun.set()
        await go_on.wait()

    async with export(Scenario(documents={f"flow_runs/{RUN_ID}": flow_run("a")}), stall) as world:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.run)
            await begun.wait()
            await world.app.cancel(await run_id_of(world))
            while (await world.step())["status"] == "RUNNING":
                await world.clock.sleep(0.5)
            go_on.set()
        assert (await world.used(), len(world.api.calls), await world.statuses()) == (1, 1, ["succeeded"])
        assert (await world.step())["status"] == "FAILED"


async def test_a_redriven_export_pays_only_for_what_is_missing():
    async with export(Scenario(accounts=SLOW)) as world:
        run_id = await cancelled_while_two_wait(world)
        before = await world.documents()
        with pytest.raises(IllegalEventError, match="already_final") as refused:
            await world.app.redrive(run_id)
        assert "READY" in refused.value.remedy
        assert await world.documents() == before
        await world.ready()
        result = await world.app.redrive(run_id, patience_s=3600)
        assert (result.status, result.output["itemsCount"], result.run_id) == ("succeeded", 3, run_id)
        assert sorted(name for name, _ in world.api.calls) == ["a", "b", "c"]
        assert await world.used() == 3
        assert (await world.step())["status"] == "SUCCEEDED"
        manifest = json.loads(next(body for name, body in read_objects(world.out).items() if "manifest" in name))
        for item in manifest["items"]:
            assert item["png_gcs_uri"].removeprefix("gs://bucket/") in read_objects(world.out)
            stamp = item["generatedAt"].replace("-", "").replace(":", "").replace("T", "-").removesuffix("Z")
            assert stamp in item["png_gcs_uri"]


async def test_too_few_charts_are_redriven_from_the_map():
    scenario = Scenario(api={"b": [answer(422, "no")] * 1 + [answer(422, "no")], "c": [answer(422, "no")]})
    scenario.documents[f"flow_runs/{RUN_ID}"]["steps"][STEP_ID]["inputs"]["minImages"] = 3
    async with export(scenario) as world:
        first = await world.run()
        assert (first.status, len(world.api.calls)) == ("failed", 3)
        await world.ready()
        world.api.script.clear()
        result = await world.app.redrive(first.run_id)
        assert (result.status, sorted(name for name, _ in world.api.calls[3:])) == ("succeeded", ["b", "c"])


# The cancel ways of one chart


def standing_in(state):
    context = {"account": "acc1", "window": "2026-01-05T00:00:00Z"}
    found = empty("r", REQUEST.name, REQUEST.version, REQUEST.digest)
    value = {"template_id": "a", "kind": "k", "symbol": "s", "timeframe": "1d", "payload": {}, "object": "o"}
    return found._replace(seq=2, state=state, status=Status.RUNNING, context=context, visits={state: 1}, input=value)


@pytest.mark.parametrize(("state", "target"), [("RESERVING", "CANCELLED"), ("CAPTURING", "RELEASING")])
def test_a_cancelled_chart_gives_back_what_it_holds(state, target):
    after = step(REQUEST, standing_in(state), CancelRequested(1, "enough")).snapshot
    assert (after.state, after.context["error"]) == (target, {"code": "CHART_API_FAILED", "message": "enough"})


@pytest.mark.parametrize("state", ["EXHAUSTING", "RELEASING"])
def test_a_chart_that_settles_its_account_is_not_cut_short(state):
    with pytest.raises(IllegalEventError):
        step(REQUEST, standing_in(state), CancelRequested(1, "enough"))


async def exported(folder):
    """The runs of an export that met everything: a refusal, a limit, an error that passes, a cancel and a redrive."""
    api = {"b": [answer(500, "broke"), answer(422, "no")], "c": [limit_exceeded(), answer(200)]}
    async with export(Scenario(api=api)) as world:
        await world.run()
        await keep_all(world.app, folder, "met_errors~")
    async with export(Scenario(accounts=SLOW)) as world:
        run_id = await cancelled_while_two_wait(world)
        await world.ready()
        await world.app.redrive(run_id, patience_s=3600)
        await keep_all(world.app, folder, "redriven~")


async def test_an_export_can_be_replayed_from_a_file(tmp_path):
    from engine.entry.journals import replay_file

    await exported(tmp_path)
    files = sorted(tmp_path.glob("*.json"))
    assert len(files) == 10
    for file in files:
        _, found = replay_file(file.read_text(), file.name, CATALOGUE)
        assert (file.name, found.difference) == (file.name, None)


if __name__ == "__main__":  # `make journals`
    anyio.run(exported, Path(sys.argv[1]))
