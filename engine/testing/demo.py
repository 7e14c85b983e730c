"""`make demo`: a whole chart export on this machine, against the simulator, through the real command line.

Starts the Chart-IMG simulator on loopback with two accounts, runs `detent run` in `real` mode on the fixtures'
flow run in a fresh store, and says where the pictures and the manifest lie.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from engine.testing.chart_img import BASIC, running_simulator

FOLDER = Path(".detent/demo")
RUN_ID = "20260105-080000_BTCUSDT_k3f7a"
STEP_ID = "charts:1w:default_set_v1"
KEYS = {"demo-account-one-key": "one", "demo-account-two-key": "two"}


def main() -> int:
    """Run the demonstration; answers the exit status of `detent run`."""
    shutil.rmtree(FOLDER, ignore_errors=True)  # a step that was exported is not exported again: begin anew
    with running_simulator(dict.fromkeys(KEYS, BASIC)) as simulator:
        say(f"Chart-IMG simulator on {simulator.url}: two accounts on BASIC, one call a second each, three at once")
        accounts = [{"id": name, "apiKey": key} for key, name in KEYS.items()]
        environment = {
            **os.environ,
            "DETENT_STORE": f"sqlite:///{FOLDER}/detent.db",
            "DETENT_ARTIFACTS": f"folder:{FOLDER}/artifacts",
            "CHART_IMG_ACCOUNTS_JSON": json.dumps(accounts),
            "CHART_IMG_BASE_URL": simulator.url,
            "LOG_LEVEL": os.environ.get("LOG_LEVEL", "WARNING"),
        }
        command = ["run", "machines/chart_export.yaml", "--load", "fixtures/documents", "--mode", "real"]
        command += ["--input", json.dumps({"run_id": RUN_ID, "step_id": STEP_ID})]
        say(f"$ detent {' '.join(command[:-1])} '{command[-1]}'\n")
        status = subprocess.run(
            [sys.executable, "-m", "engine.entry.cli", *command], env=environment, check=False
        ).returncode
    if status == 0:
        _show()
    return status


def _show() -> None:
    bucket = FOLDER / "artifacts" / "local"
    say("\nThe pictures:")
    for picture in sorted(bucket.rglob("*.png")):
        say(f"  {picture}")
    say("The manifest:")
    for manifest in sorted(bucket.rglob("manifest.json")):
        say(f"  {manifest}")
    say(f"\nLook into the run with: {_detent()} runs list --store sqlite:///{FOLDER}/detent.db")


def _detent() -> str:
    """The command as it can be typed in this folder."""
    script = Path(sys.executable).with_name("detent")
    return os.path.relpath(script) if script.exists() else "detent"


def say(line: str) -> None:
    """Print at once, so that lines of this process and of the command keep their order."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
