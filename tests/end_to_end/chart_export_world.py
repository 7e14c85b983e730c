"""A whole chart export in one process: documents in memory, a scripted API behind a real client, a moving clock.

`export(Scenario(…))` runs `machines/chart_export.yaml` (or a machine given in its place) and answers what a person
could look at afterwards: the result, the documents, the objects, the calls, the log, the transitions taken.
"""

from __future__ import annotations

import copy
import json
import struct
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx

from engine.artifacts.folder import FolderArtifacts
from engine.core.secret import Secrets
from engine.core.write import Key, Set
from engine.definition import Catalogue
from engine.entry.application import Engine, RunResult
from engine.handlers.accounts import Account, AccountPools
from engine.handlers.chart_img import ChartImg, ChartImgSettings
from engine.handlers.ledger import Ledger
from engine.handlers.registry import ACTIONS
from engine.handlers.templates import ChartDefaults
from engine.runner.observer import Silent
from engine.store import open_store
from engine.store.memory import MemoryStore
from engine.store.port import Store
from engine.testing.clock import SimulatedClock

ROOT = Path(__file__).parent.parent.parent
RUN_ID = "20260105-080000_BTCUSDT_k3f7a"
STEP_ID = "charts:1d:main_v1"
STARTED = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
ACCOUNTS = (Account("acc1", "first-secret-key"), Account("acc2", "second-secret-key"))

CATALOGUE = Catalogue(ACTIONS.declarations())
MACHINE = CATALOGUE.load(ROOT / "machines/chart_export.yaml")


def png(marker: str) -> bytes:
    """The smallest picture that is whole; `marker` makes it differ from others."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    text = b"Comment\0" + marker.encode("latin-1", "replace")
    rows = zlib.compress(b"\0\0")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"tEXt", text)
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


def template(name: str, index: int) -> dict[str, Any]:
    """A chart template; its width tells the scripted API which one it is."""
    return {
        "id": name,
        "description": f"kind of {name}",
        "chartImgSymbolTemplate": "BINANCE:{symbol}",
        "request": {"width": 500 + index, "height": 400, "format": "png", "timezone": "America/New_York"},
    }


def flow_run(*names: str, **step: Any) -> dict[str, Any]:
    """A flow run whose one CHART_EXPORT step asks for the named templates; `step` overrides fields of it."""
    chart = {
        "stepType": "CHART_EXPORT",
        "status": "READY",
        "timeframe": "1d",
        "createdAt": "2026-01-05T08:00:01Z",
        "dependsOn": ["ohlcv:1d"],
        "inputs": {"minImages": 1, "requests": [{"chartTemplateId": name} for name in names]},
        "outputs": {"kept": "as it was"},
    }
    ohlcv = {"stepType": "OHLCV_EXPORT", "status": "SUCCEEDED", "dependsOn": [], "inputs": {}, "outputs": {}}
    return {
        "schemaVersion": 1,
        "runId": RUN_ID,
        "flowKey": "scheduled_month_week_report_v1",
        "status": "RUNNING",
        "createdAt": "2026-01-05T08:00:00Z",
        "trigger": {"type": "SCHEDULER", "source": "flow1"},
        "scope": {"symbol": "BTCUSDT"},
        "steps": {STEP_ID: {**chart, **step}, "ohlcv:1d": ohlcv},
    }


def limit_exceeded() -> httpx.Response:
    return httpx.Response(429, json={"message": "Limit Exceeded"})


def answer(status: int, message: str = "", **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"message": message}, headers=headers)


@dataclass
class Scenario:
    """What there is before, and how the API answers: `api[template]` is a list of responses, exceptions or bytes,
    the last of which is repeated; a template without a script gets its picture."""

    documents: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {f"flow_runs/{RUN_ID}": flow_run("a", "b", "c")}
    )
    api: dict[str, list[Any]] = field(default_factory=dict)
    accounts: tuple[Account, ...] = ACCOUNTS
    input: dict[str, Any] = field(default_factory=lambda: {"run_id": RUN_ID, "step_id": STEP_ID})
    started: datetime = STARTED
    mode: str = "real"
    machine: Any = None
    prepare: Any = None
    templates: tuple[str, ...] = ("a", "b", "c", "d")


@dataclass
class Seen:
    """What can be looked at afterwards."""

    result: RunResult
    documents: dict[str, dict[str, Any]]
    objects: dict[str, bytes]
    calls: list[tuple[str, str]]
    bodies: list[dict[str, Any]]
    logs: list[tuple[str, dict[str, Any]]]
    taken: set[tuple[str, str, str, int]]
    clock: SimulatedClock
    declined_visits: dict[str, int]

    @property
    def way(self) -> dict[str, dict[str, int]]:
        """How often each state was entered, by machine, over all runs."""
        found: dict[str, dict[str, int]] = {}
        if self.declined_visits:
            found["declined"] = dict(self.declined_visits)
        for name, run in self.documents.items():
            if name.startswith("runs/"):
                visits = found.setdefault(run["machine"], {})
                for state, count in json.loads(run["snapshot"])["visits"].items():
                    visits[state] = visits.get(state, 0) + count
        return found

    @property
    def step(self) -> dict[str, Any]:
        return self.documents[f"flow_runs/{RUN_ID}"]["steps"][STEP_ID]

    @property
    def manifest(self) -> dict[str, Any] | None:
        found = [body for name, body in self.objects.items() if name.endswith("manifest.json")]
        return json.loads(found[0]) if found else None

    def used(self, account: str) -> int:
        document = self.documents.get(f"chart_img_accounts_usage/{account}")
        return 0 if document is None else document["usageToday"]


class Recorder(Silent):
    """Keeps the transitions that were taken and what handlers said."""

    def __init__(self) -> None:
        self.taken: set[tuple[str, str, str, int]] = set()
        self.logs: list[tuple[str, dict[str, Any]]] = []
        self.declined_visits: dict[str, int] = {}

    def committed(self, machine, committed):
        self.taken |= {(machine.name, branch.source, branch.event, branch.number) for branch in committed.taken}

    def declined(self, machine, snapshot, taken):
        self.taken |= {(machine.name, branch.source, branch.event, branch.number) for branch in taken}
        self.declined_visits = dict(snapshot.visits)

    def remarked(self, snapshot, item_key, remark):
        self.logs.append((remark.event, {**remark.fields, "severity": remark.severity}))

    def log_for(self, snapshot, item_key):
        return lambda event, /, severity="INFO", **fields: self.logs.append((event, {**fields, "severity": severity}))

    def trouble(self, event, severity, fields):
        self.logs.append((event, {**fields, "severity": severity}))


class ScriptedApi:
    """The API behind `httpx.MockTransport`: the real client, the real classification, no socket."""

    def __init__(self, scenario: Scenario) -> None:
        self.script = {name: list(answers) for name, answers in scenario.api.items()}
        self.names = {500 + index: name for index, name in enumerate(scenario.templates)}
        self.accounts = {account.api_key: account.id for account in scenario.accounts}
        self.calls: list[tuple[str, str]] = []
        self.bodies: list[dict[str, Any]] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        name = self.names[body["width"]]
        account = self.accounts[request.headers["x-api-key"]]
        self.calls.append((name, account))
        self.bodies.append(body)
        answers = self.script.get(name) or [png(name)]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(found):
            found = found(account)
        if isinstance(found, BaseException):
            raise found
        if isinstance(found, bytes):
            return httpx.Response(200, content=found, headers={"content-type": "image/png"})
        return httpx.Response(found.status_code, content=found.content, headers=found.headers)


OpenStore = Callable[[Callable[[], int]], Awaitable[Store]]
STORE: ContextVar[str] = ContextVar("store", default="memory:")
"""Where exports are kept that name no store: the URL of an empty one, for one export."""


def export(scenario: Scenario, store: str | OpenStore | None = None) -> Seen:
    """Run a scenario from its start to where it comes to rest, in an empty store: a URL, or who opens one."""
    return anyio.run(_export, scenario, STORE.get() if store is None else store)


class Awaited:
    """A store whose every verb keeps an automatic clock from moving: it takes a worker thread's token meanwhile.

    One verb at a time, in the order in which they are called: so it is the same item each time that finds no unit left.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self._turn = anyio.Lock()

    async def get_many(self, *arguments: Any) -> Any:
        async with self._work():
            return await self.inner.get_many(*arguments)

    async def transact(self, *arguments: Any) -> Any:
        async with self._work():
            return await self.inner.transact(*arguments)

    async def query(self, *arguments: Any) -> Any:
        async with self._work():
            return await self.inner.query(*arguments)

    async def close(self) -> None:
        await self.inner.close()

    @asynccontextmanager
    async def _work(self) -> Any:
        limiter, holder = anyio.to_thread.current_default_thread_limiter(), object()
        await limiter.acquire_on_behalf_of(holder)
        try:
            async with self._turn:
                yield
        finally:
            limiter.release_on_behalf_of(holder)


async def _export(scenario: Scenario, url: str | OpenStore) -> Seen:
    clock = SimulatedClock(now_ms=round(scenario.started.timestamp() * 1000), automatic=True)
    opened = await (open_store(url, now_ms=clock.now_ms) if isinstance(url, str) else url(clock.now_ms))
    store = opened if isinstance(opened, MemoryStore) else Awaited(opened)
    documents = {f"chart_templates/{name}": template(name, index) for index, name in enumerate(scenario.templates)}
    await put(store, {**documents, **copy.deepcopy(scenario.documents)})
    secrets, recorder, api = Secrets(), Recorder(), ScriptedApi(scenario)
    pools = AccountPools({"chart_img": scenario.accounts}, secrets)
    with tempfile.TemporaryDirectory() as folder:
        settings = ChartImgSettings(
            scenario.mode, "https://api.example", Path(folder, "fixtures"), Path(folder, "c.yaml")
        )
        chart_img = ChartImg(settings, pools, secrets, transport=httpx.MockTransport(api))
        artifacts = FolderArtifacts(str(Path(folder, "out")), "bucket", secrets=secrets)
        services = [Ledger(pools, is_live=scenario.mode != "mock"), chart_img, ChartDefaults("Etc/UTC")]
        async with Engine(
            store=store, artifacts=artifacts, services=services, secrets=secrets, clock=clock, observer=recorder,
            catalogue=CATALOGUE,
        ) as app:  # fmt: skip
            if scenario.prepare is not None:
                await scenario.prepare(app, Path(folder, "out"))
            result = await app.run(scenario.machine or MACHINE, scenario.input, patience_s=3600)
            objects = read_objects(Path(folder, "out", "bucket"))
            documents = await everything(store)
            await chart_img.aclose()
            return Seen(
                result,
                documents,
                objects,
                api.calls,
                api.bodies,
                recorder.logs,
                recorder.taken,
                clock,
                recorder.declined_visits,
            )


async def put(store: Any, documents: dict[str, dict[str, Any]]) -> None:
    for name, document in documents.items():
        collection, _, document_id = name.partition("/")
        key = Key(collection, document_id)
        await store.transact([key], lambda found, now_ms, key=key, document=document: ([Set(key, document)], None))


async def everything(store: Any) -> dict[str, dict[str, Any]]:
    """Every document of the collections that a chart export touches."""
    found = {}
    for collection in (
        "flow_runs",
        "chart_img_accounts_usage",
        "chart_img_accounts_rate",
        "runs",
        "journal",
        "run_keys",
    ):
        for key, document in await store.query(collection):
            found[f"{key.collection}/{key.id}"] = dict(document)
    return found


def read_objects(bucket: Path) -> dict[str, bytes]:
    return {str(path.relative_to(bucket)): path.read_bytes() for path in sorted(bucket.rglob("*")) if path.is_file()}


def transitions_of(machine: Any) -> set[tuple[str, str, str, int]]:
    """Every transition of a machine and its children."""
    own = {(machine.name, branch.source, branch.event, branch.number) for branch in machine.branches()}
    return own.union(*(transitions_of(child) for child in machine.children.values()))


def counted(logs: list[tuple[str, dict[str, Any]]]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for event, _ in logs:
        found[event] += 1
    return dict(found)
