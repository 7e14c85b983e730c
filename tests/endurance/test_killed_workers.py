"""For real: worker processes on one SQLite file are killed with SIGKILL while runs come in; in the end all is accounted for.

`DETENT_ENDURANCE_S` says for how many seconds workers are killed (10 by default, 60 by `make endurance`), and
`DETENT_ENDURANCE_SEED` which ones and when.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from engine.core import event
from engine.core.snapshot import Status, empty
from engine.core.write import Key, Set
from engine.entry.application import Engine
from engine.handlers.chart_img_png import flaw_of
from engine.runs.replay import replayed
from engine.runs.transaction import stored_snapshot
from engine.testing.chart_img import ULTRA, Answer, Match, running_simulator
from tests.end_to_end.chart_export_world import MACHINE, flow_run

ROOT = Path(__file__).parent.parent.parent
KEYS = {"first": "a-first-secret-key", "second": "a-second-secret-key"}
TEMPLATES = ("ctpl_price_ma1226_vol_v1", "ctpl_price_rsi14_stochrsi_v1")
WORKERS = 3
DURATION_S = float(os.environ.get("DETENT_ENDURANCE_S", "10"))
SEED = int(os.environ.get("DETENT_ENDURANCE_SEED", "1"))
END_S = 60


class Fleet:
    """Worker processes over one store, replaced as they are killed."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        accounts = [
            {"id": name, "apiKey": key, "perSecond": 30, "burst": 30, "dailyLimit": 10_000}
            for name, key in KEYS.items()
        ]
        self.env = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "VIRTUAL_ENV", "LANG")},
            "PYTHONPATH": str(ROOT),
            "DETENT_STORE": f"sqlite:///{folder}/detent.db",
            "DETENT_ARTIFACTS": f"folder:{folder}/artifacts",
            "DETENT_LEASE_S": "2",
            "CHARTS_API_MODE": "real",
            "CHART_IMG_BASE_URL": url,
            "CHART_IMG_ACCOUNTS_JSON": json.dumps(accounts),
        }
        self.living: list[tuple[subprocess.Popen[bytes], Path]] = []
        self.killed = 0
        self.logs: list[Path] = []

    def start(self) -> None:
        log = self.folder / f"worker-{len(self.logs)}.log"
        self.logs.append(log)
        command = [sys.executable, "-m", "engine.entry.cli", "worker", "--concurrency", "8"]
        with log.open("wb") as out:
            made = subprocess.Popen(command, env=self.env, cwd=ROOT, stdout=out, stderr=out)
        self.living.append((made, log))

    def kill_one(self, chance: random.Random) -> None:
        victim, _ = self.living.pop(chance.randrange(len(self.living)))
        victim.kill()
        victim.wait()
        self.killed += 1

    def stop(self) -> list[int]:
        """SIGTERM to all, once each has begun; answers their exit statuses."""
        for _, log in self.living:
            while b"worker_started" not in log.read_bytes():
                time.sleep(0.05)
        for one, _ in self.living:
            one.send_signal(signal.SIGTERM)
        return [one.wait(timeout=30) for one, _ in self.living]

    def end(self) -> None:
        for one, _ in self.living:
            if one.poll() is None:
                one.kill()
                one.wait()


@pytest.fixture
def simulator():
    with running_simulator(dict.fromkeys(KEYS.values(), ULTRA)) as running:
        # Each call takes a while, so that workers die in the middle of some.
        running.simulator.script(Match(), [Answer("picture", stall_s=0.15)], repeat=True)
        yield running


def flow(number: int) -> dict:
    document = flow_run(*TEMPLATES)
    document["runId"] = f"20260105-{number:06d}_BTCUSDT_k3f7a"
    return document


async def put(app: Engine, key: Key, document: dict) -> None:
    await app.store.transact([key], lambda found, now_ms: ([Set(key, document)], None))


async def feed(app: Engine, fleet: Fleet) -> list[str]:
    """Start runs and kill workers until the time is over; answers the ids of the runs."""
    chance = random.Random(SEED)
    started: list[str] = []
    until = time.monotonic() + DURATION_S
    kills_at = time.monotonic() + 2.0
    while time.monotonic() < until:
        document = flow(len(started))
        await put(app, Key.of("flow_runs", document["runId"]), document)
        started.append((await app.start(MACHINE, {"run_id": document["runId"]})).run_id)
        await anyio.sleep(chance.uniform(0.1, 0.5))
        if time.monotonic() >= kills_at:
            fleet.kill_one(chance)
            fleet.start()
            kills_at = time.monotonic() + chance.uniform(0.3, 1.8)
    return started


async def until_all_ended(app: Engine, roots: list[str]) -> None:
    deadline = time.monotonic() + END_S
    while True:
        heads = [await app.runs.get(run_id) for run_id in roots]
        left = [head.run_id for head in heads if not head.has_ended]
        if not left and not await app.runs.claimable(2**62, 1):
            return
        assert time.monotonic() < deadline, f"not ended after {END_S} s: {left[:3]}"
        await anyio.sleep(0.3)


async def judge(app: Engine, roots: list[str], folder: Path, calls: int) -> dict[str, int]:
    """Every run final and its journal sound, every unit explained, every picture whole, every manifest true."""
    runs = [document for _, document in await app.store.query("runs")]
    assert {run["run_id"] for run in runs if run["is_root"]} == set(roots)
    assert len(runs) == len(roots) * (1 + len(TEMPLATES))
    interrupted = 0
    for run in runs:
        assert Status(run["status"]).is_final
        _, text = await stored_snapshot(app.store, run["run_id"])
        entries = await app.runs.journal(run["run_id"])
        assert [entry.seq for entry in entries] == list(range(1, run["seq"] + 1))
        machine = await app.runs.definitions.machine(run["digest"])
        begun = empty(run["run_id"], machine.name, machine.version, machine.digest, run["key"])
        assert replayed(machine, begun, entries, text).difference is None
        interrupted += sum(
            isinstance(entry.event, event.ActionReturned) and entry.event.name == "interrupted" for entry in entries
        )
    usage = [document for _, document in await app.store.query("chart_img_accounts_usage")]
    units = sum(document["usageToday"] for document in usage)
    succeeded = sum(run["machine"] == "chart_request" and run["status"] == "succeeded" for run in runs)
    assert calls <= units, "a paid call without a unit"
    assert units - interrupted <= calls, "a unit that neither a call nor an interrupted outcome explains"
    assert succeeded == len(roots) * len(TEMPLATES) <= calls, "a chart was given up though its quota was not"
    for key, document in await app.store.query("flow_runs"):
        (step,) = [one for one in document["steps"].values() if one["stepType"] == "CHART_EXPORT"]
        assert step["status"] in ("SUCCEEDED", "FAILED"), key.id
        uri = step["outputs"].get("outputsManifestGcsUri")
        assert uri is not None or step["status"] == "FAILED"
        if uri is not None:
            manifest = json.loads(Path(folder, "artifacts", uri.removeprefix("gs://")).read_text())
            for item in manifest["items"]:
                content = Path(folder, "artifacts", item["png_gcs_uri"].removeprefix("gs://")).read_bytes()
                assert flaw_of(content) is None
    return {"runs": len(roots), "calls": calls, "units": units, "interrupted": interrupted, "charts": succeeded}


def test_workers_that_are_killed_lose_nothing(tmp_path, simulator, capsys):
    fleet = Fleet(tmp_path, simulator.url)

    async def live() -> dict[str, int]:
        url = fleet.env["DETENT_STORE"]
        async with Engine(store=url, artifacts=f"folder:{tmp_path}/artifacts", lease_s=2) as app:
            for file in (ROOT / "fixtures/documents/chart_templates").glob("*.json"):
                await put(app, Key.of("chart_templates", file.stem), json.loads(file.read_text()))
            for _ in range(WORKERS):
                fleet.start()
            roots = await feed(app, fleet)
            await until_all_ended(app, roots)
            assert fleet.stop() == [0] * WORKERS
            calls = len(simulator.simulator.calls)
            return await judge(app, roots, tmp_path, calls)

    try:
        seen = anyio.run(live)
    finally:
        fleet.end()
    assert fleet.killed >= DURATION_S / 4
    assert not [log.name for log in fleet.logs if b"Traceback" in log.read_bytes()]
    with capsys.disabled():
        sys.stdout.write(f"\n{fleet.killed} workers killed: {seen}\n")
