"""What a function's process is made of, in this process: a store that counts, a scripted API, a clock that moves."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx

from engine.artifacts.folder import FolderArtifacts
from engine.core.secret import Secrets
from engine.core.write import Check, Key, Update
from engine.entry.application import Engine
from engine.entry.configuration import read_configuration
from engine.entry.event_work import EventWork
from engine.entry.resident import Opened
from engine.handlers.accounts import AccountPools
from engine.handlers.chart_img import ChartImg, ChartImgSettings
from engine.handlers.ledger import Ledger
from engine.handlers.templates import ChartDefaults
from engine.store.memory import MemoryStore
from engine.testing.clock import SimulatedClock
from tests.end_to_end.chart_export_world import (
    ACCOUNTS,
    CATALOGUE,
    MACHINE,
    RUN_ID,
    STARTED,
    Recorder,
    Scenario,
    ScriptedApi,
    flow_run,
    put,
    read_objects,
    template,
)

LONGEST_S = 300.0


def steps(**statuses: str) -> dict[str, Any]:
    """A flow run with one CHART_EXPORT step for each name, in the given status."""
    document = flow_run("a")
    chart = next(step for step in document["steps"].values() if step["stepType"] == "CHART_EXPORT")
    document["steps"] = {name: {**chart, "status": status, "dependsOn": []} for name, status in statuses.items()}
    return document


class Counting:
    """A store that counts what is asked of it; `trouble`, when set, is raised by every verb."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner = inner
        self.trouble: Exception | None = None
        self.is_cut = False
        self.forget()

    def forget(self) -> None:
        self.reads = self.queries = self.writes = self.starts = 0

    def _expect(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    async def get_many(self, keys: Sequence[Key]) -> Any:
        self._expect()
        self.reads += len(keys)
        return await self.inner.get_many(keys)

    async def query(self, *arguments: Any, **named: Any) -> Any:
        self._expect()
        self.queries += 1
        return await self.inner.query(*arguments, **named)

    async def transact(self, keys: Sequence[Key], decide: Any) -> Any:
        self._expect()
        if self.is_cut:
            await anyio.sleep_forever()  # nothing of a dead process arrives

        def counted(documents: Any, now_ms: int) -> Any:
            writes, result = decide(documents, now_ms)
            self.writes += sum(not isinstance(write, Check) for write in writes)
            return writes, result

        self.reads += len(keys)
        self.starts += 1
        return await self.inner.transact(keys, counted)

    async def close(self) -> None: ...


class DoorWorld:
    """See the module. `opened()` is a process; several share the store, the objects and the API."""

    def __init__(self, folder: Path, **documents: dict[str, Any]) -> None:
        self.clock = SimulatedClock(now_ms=round(STARTED.timestamp() * 1000), automatic=True)
        self.store = Counting(MemoryStore(self.clock.now_ms))
        self.scenario = Scenario(documents={f"flow_runs/{name}": found for name, found in documents.items()})
        self.api = ScriptedApi(self.scenario)
        self.transport: Any = self.api
        self.recorder = Recorder()
        self.folder = folder

    async def prepare(self) -> None:
        templates = {f"chart_templates/{name}": template(name, i) for i, name in enumerate(self.scenario.templates)}
        await put(self.store.inner, {**templates, **self.scenario.documents})

    @asynccontextmanager
    async def opened(self, budget_s: float = 480.0, **more: Any) -> AsyncIterator[Opened]:
        secrets = Secrets()
        pools = AccountPools({"chart_img": ACCOUNTS}, secrets)
        settings = ChartImgSettings("real", "https://api.example", self.folder / "f", self.folder / "c.yaml")
        chart_img = ChartImg(
            settings, pools, secrets, transport=httpx.MockTransport(lambda request: self.transport(request))
        )
        artifacts = FolderArtifacts(str(self.folder / "out"), "bucket", secrets=secrets)
        async with Engine(
            store=self.store, artifacts=artifacts, services=[Ledger(pools), chart_img, ChartDefaults("Etc/UTC")],
            secrets=secrets, clock=self.clock, observer=self.recorder, catalogue=CATALOGUE, **more,
        ) as app:  # fmt: skip
            config = read_configuration({"TDA_ENV": "test"}, default_mode="real")
            yield Opened(app, MACHINE, config, budget_s, LONGEST_S, set())
            await chart_img.aclose()

    async def event(self, opened: Opened, run_id: str = RUN_ID) -> None:
        """One delivery."""
        await EventWork(opened, opened.app.within(opened.budget_s), run_id).do()

    async def document(self, run_id: str = RUN_ID) -> Any:
        key = Key("flow_runs", run_id)
        return (await self.store.inner.get_many([key]))[key]

    async def statuses(self, run_id: str = RUN_ID) -> dict[str, str]:
        return {name: step["status"] for name, step in (await self.document(run_id))["steps"].items()}

    async def set_status(self, step_id: str, status: str, run_id: str = RUN_ID) -> None:
        """What the flow's own program does."""
        key = Key("flow_runs", run_id)
        write = Update(key, {("steps", step_id, "status"): status})
        await self.store.inner.transact([key], lambda found, now_ms: ([write], None))

    def objects(self) -> dict[str, bytes]:
        return read_objects(self.folder / "out" / "bucket")


@asynccontextmanager
async def door_world(**documents: dict[str, Any]) -> AsyncIterator[DoorWorld]:
    """A world with flow runs by id."""
    with tempfile.TemporaryDirectory() as folder:
        world = DoorWorld(Path(folder), **documents)
        await world.prepare()
        yield world


def told(caplog: Any, *names: str) -> list[tuple[str, dict[str, Any]]]:
    """The door's log events, of the given names or all, with their fields."""
    found = [(record.getMessage(), dict(getattr(record, "fields", {}))) for record in caplog.records]
    return [(name, fields) for name, fields in found if not names or name in names]
