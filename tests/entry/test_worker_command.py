"""`detent worker --once --start MACHINE`: what waits for a machine is begun, also when nobody has told of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def detent(tmp_path, *arguments):
    environ = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    environ |= {"PYTHONPATH": str(ROOT), "DETENT_STORE": f"sqlite:///{tmp_path}/d.db", "CHARTS_API_MODE": "mock"}
    environ |= {"DETENT_ARTIFACTS": f"folder:{tmp_path}/out", "TDA_ENV": "laptop"}
    command = [sys.executable, "-m", "engine.entry.cli", *arguments]
    return subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_what_lost_its_event_is_begun_once_and_only_when_asked_for(tmp_path):
    absent = json.dumps({"run_id": "20260105-080000_GONE_k3f7a"})
    detent(tmp_path, "run", "machines/chart_export.yaml", "--load", "fixtures/documents", "--input", absent)
    start = ("--start", "machines/chart_export.yaml")
    found = [detent(tmp_path, "worker", "--once", *more) for more in ((), start, start)]

    assert [0, 0, 0] == [one.returncode for one in found]
    assert "0 runs driven; nothing is due.\n" == found[0].stdout
    assert "0 runs driven, 3 started; nothing is due.\n" == found[1].stdout
    assert "0 runs driven, 0 started; nothing is due.\n" == found[2].stdout
    lines = [json.loads(line) for line in found[1].stderr.splitlines()]
    assert {("worker-chart-export", "laptop")} == {(line["service"], line["env"]) for line in lines}


def test_a_machine_that_no_document_starts_is_refused_before_anything_is_done(tmp_path):
    found = detent(tmp_path, "worker", "--once", "--start", "machines/chart_request.yaml")

    assert 2 == found.returncode
    assert "nothing in the store says what waits for chart_request" in found.stderr
    assert not (tmp_path / "d.db").exists()
