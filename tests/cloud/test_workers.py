"""Several processes, one Firestore: the real command line against the official emulator, and one worker killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.testing.chart_img import ULTRA, running_simulator

ROOT = Path(__file__).parent.parent.parent
RUN_ID = "20260105-080000_BTCUSDT_k3f7a"
STEP_ID = "charts:1d:short_set_v1"
CAP = 8

WORK = """
import os, time
from pathlib import Path
import engine

PLACE = Path(os.environ["WORK_DIR"])

@engine.action("work.do", kind="repeatable")
def do(request: engine.ActionRequest) -> engine.Outcome:
    mine = PLACE / "open" / f"{os.getpid()}.{request.params['n']}"
    mine.touch()
    under_way = len(list((PLACE / "open").iterdir()))
    time.sleep(0.02)
    with (PLACE / "done").open("a") as log:
        log.write(f"{os.getpid()} {request.params['n']} {under_way}\\n")
    mine.unlink()
    return engine.Outcome("done", {})
"""
CHILD = """
machine: child
version: 1
input: {type: object, required: [n], properties: {n: {type: integer}}}
initial: WORKING
states:
  WORKING: {invoke: {action: work.do, with: {n: "${input.n}"}, timeout: 10s}, on: {done: DONE}, catch: [{target: FAILED}]}
  DONE: {type: final}
  FAILED: {type: final, status: FAILED}
"""
PARENT = f"""
machine: parent
version: 1
input: {{type: object, required: [items], properties: {{items: {{type: array}}}}}}
initial: MAPPING
states:
  MAPPING:
    map: {{machine: child, items: "${{input.items}}", key: "${{string(item.n)}}", concurrency: {CAP}}}
    on: {{done: DONE}}
    catch: [{{target: FAILED}}]
  DONE: {{type: final, output: {{ok: true}}}}
  FAILED: {{type: final, status: FAILED}}
"""


@pytest.fixture
def detent(tmp_path: Path, firestore: str) -> Callable[..., Any]:
    """Starts the command line in a folder of its own on the test's store."""
    environment = {
        **{name: os.environ[name] for name in ("PATH", "FIRESTORE_EMULATOR_HOST")},
        "PYTHONPATH": f"{ROOT}:{tmp_path}", "DETENT_STORE": firestore, "DETENT_LEASE_S": "2", "LOG_LEVEL": "ERROR",
        "WORK_DIR": str(tmp_path), "DETENT_ARTIFACTS": f"folder:{tmp_path}/artifacts",
        "CHART_IMG_FIXTURES_DIR": str(ROOT / "fixtures/chart_img"),
        "CHART_IMG_CASSETTE": str(ROOT / "cassettes/chart_img.yaml"),
    }  # fmt: skip

    def start(*arguments: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "engine.entry.cli", *arguments], cwd=tmp_path, env={**environment, **more},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return start


def ended(process: subprocess.Popen[str], status: int = 0) -> str:
    out, error = process.communicate(timeout=120)
    assert process.returncode == status, error
    return out


def test_a_chart_export_runs_on_the_command_line_and_a_second_start_changes_nothing(detent) -> None:
    asked = json.dumps({"run_id": RUN_ID, "step_id": STEP_ID})
    command = [
        "run",
        str(ROOT / "machines/chart_export.yaml"),
        "--load",
        str(ROOT / "fixtures/documents"),
        "--mode",
        "mock",
    ]
    summary = json.loads(ended(detent(*command, "--input", asked, "--summary", "json")))

    assert summary["output"]["status"] == "SUCCEEDED"
    assert summary["output"]["itemsCount"] == 3
    again = json.loads(ended(detent(*command, "--input", asked, "--summary", "json")))
    assert again["output"]["outputsManifestGcsUri"] == summary["output"]["outputsManifestGcsUri"]
    flow_run = json.loads(ended(detent("documents", "get", f"flow_runs/{RUN_ID}")))
    assert flow_run["steps"][STEP_ID]["status"] == "SUCCEEDED"
    assert "succeeded" in ended(detent("runs", "list")).lower()


@pytest.mark.parametrize("items", [200, pytest.param(1_000, marks=pytest.mark.skipif(not os.environ.get("DETENT_SLOW_TESTS"), reason="a minute and more: make test-cloud"))])  # fmt: skip
def test_a_map_over_two_processes_of_which_one_is_killed_does_every_item_and_keeps_its_cap(
    items: int, detent, tmp_path: Path
) -> None:
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "child.yaml").write_text(CHILD)
    (tmp_path / "parent.yaml").write_text(PARENT)
    (tmp_path / "open").mkdir()
    (tmp_path / "done").touch()
    asked = json.dumps({"items": [{"n": number} for number in range(items)]})
    first = detent("run", "parent.yaml", "--actions", "work", "--input", asked)
    _wait(lambda: _done(tmp_path) >= 20)
    second = detent("worker", "--once", "--actions", "work")
    _wait(lambda: _done(tmp_path) >= 40)
    first.kill()
    first.communicate()
    left = [path for path in (tmp_path / "open").iterdir() if path.name.startswith(f"{first.pid}.")]
    for path in left:
        path.unlink()
    workers = [second, detent("worker", "--once", "--actions", "work")]
    listed = ""
    for _ in range(100):  # whatever was claimed by the killed one is free when its lease is over
        if "succeeded" in (listed := ended(detent("runs", "list")).lower()):
            break
        if all(worker.poll() is not None for worker in workers):
            workers.append(detent("worker", "--once", "--actions", "work"))
    for worker in workers:
        worker.terminate()
        worker.communicate(timeout=30)

    assert "succeeded" in listed
    rows = [line.split() for line in (tmp_path / "done").read_text().splitlines()]
    times_done = Counter(int(number) for _, number, _ in rows)
    assert sorted(times_done) == list(range(items))
    # Only what the killed worker had in hand was done again, and what it had marked as open is not under way.
    assert sum(times_done.values()) - items <= CAP
    assert max(int(under_way) for _, _, under_way in rows) <= CAP + len(left)
    assert len({pid for pid, _, _ in rows}) >= 2


def test_the_ledger_s_limits_hold_over_all_processes(detent, tmp_path: Path) -> None:
    keys = {"first-secret-key": "acc1", "second-secret-key": "acc2"}
    accounts = [{"id": name, "apiKey": key, "dailyLimit": 3, "perSecond": 10, "burst": 3} for key, name in keys.items()]
    flow_run = json.loads((ROOT / f"fixtures/documents/flow_runs/{RUN_ID}.json").read_text())
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/flow_runs").mkdir()
    names = [f"20260105-080000_BTCUSDT_run{number}" for number in range(3)]
    for name in names:
        (tmp_path / f"flows/flow_runs/{name}.json").write_text(json.dumps({**flow_run, "runId": name}))
    with running_simulator(dict.fromkeys(keys, ULTRA)) as simulator:
        settings = {"CHART_IMG_BASE_URL": simulator.url, "CHART_IMG_ACCOUNTS_JSON": json.dumps(accounts)}
        ended(detent("run", str(ROOT / "machines/chart_export.yaml"), "--load", str(ROOT / "fixtures/documents"), "--mode", "mock", "--input", json.dumps({"run_id": RUN_ID, "step_id": STEP_ID})))  # fmt: skip
        runs = [
            detent("run", str(ROOT / "machines/chart_export.yaml"), "--load", str(tmp_path / "flows"), "--mode", "real",
                   "--input", json.dumps({"run_id": name, "step_id": STEP_ID}), **settings)
            for name in names
        ]  # fmt: skip
        for run in runs:
            run.communicate(timeout=120)
        calls = Counter(call.status for call in simulator.simulator.calls)
        used = [
            json.loads(ended(detent("documents", "get", f"chart_img_accounts_usage/{name}")))["usageToday"]
            for name in keys.values()
        ]

    # Nine charts were asked for, by three processes at once, of two accounts with three units each.
    assert used == [3, 3]
    assert calls == {200: 6}
    assert sorted({run.returncode for run in runs}) in ([0, 1], [1])


def _done(folder: Path) -> int:
    return (folder / "done").read_text().count("\n")


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)
