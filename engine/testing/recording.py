"""`make fixtures`: record the committed fixtures and cassette again, by real runs against the simulator.

The step of the weekly charts is left to the cassette, the daily one to picture files, and a symbol that the API
does not know gives an error twin: so each way in which `mock` answers has something to answer from.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from engine.testing.chart_img import PRO, Answer, Match, running_simulator

RUN_ID = "20260105-080000_BTCUSDT_k3f7a"
UNKNOWN_RUN_ID = "20260105-080000_NOSUCH_e4r0r"
FIXTURES = Path("fixtures/chart_img")
CASSETTE = Path("cassettes/chart_img.yaml")
KEY = "recording-account-key"


def main() -> int:
    """Record; answers the first exit status that was not as expected, else 0."""
    shutil.rmtree(FIXTURES, ignore_errors=True)
    CASSETTE.unlink(missing_ok=True)
    with running_simulator({KEY: PRO}) as running, tempfile.TemporaryDirectory() as scratch:
        running.simulator.script(Match(symbol="BINANCE:NOSUCH"), [Answer.error(422, "Invalid Symbol")], repeat=True)
        for run_id, step_id, expected in (
            (RUN_ID, "charts:1w:default_set_v1", 0),
            (RUN_ID, "charts:1d:short_set_v1", 0),
            (UNKNOWN_RUN_ID, "charts:1d:unknown_symbol_v1", 1),
        ):
            status = _record(running.url, scratch, run_id, step_id)
            if status != expected:
                return status or 1
    for picture in FIXTURES.glob("*__1w__*.png"):
        picture.unlink()
    return 0


def _record(url: str, scratch: str, run_id: str, step_id: str) -> int:
    environment = {
        **os.environ,
        "DETENT_STORE": f"sqlite:///{scratch}/detent.db",
        "DETENT_ARTIFACTS": f"folder:{scratch}/artifacts",
        "CHART_IMG_ACCOUNTS_JSON": json.dumps([{"id": "recording", "apiKey": KEY, "plan": "PRO"}]),
        "CHART_IMG_BASE_URL": url,
        "LOG_LEVEL": "WARNING",
    }
    command = ["run", "machines/chart_export.yaml", "--load", "fixtures/documents", "--mode", "record"]
    command += ["--input", json.dumps({"run_id": run_id, "step_id": step_id})]
    return subprocess.run([sys.executable, "-m", "engine.entry.cli", *command], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
