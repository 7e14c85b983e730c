"""`detent doctor` in a process of its own: what a person sees, and what a script reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing.storage_emulator import running_storage

ROOT = Path(__file__).parent.parent.parent
KEY = "a-very-secret-key"
SECTIONS = ["configuration", "store", "artifacts", "ledger", "clock", "machines", "runs", "secrets"]


@pytest.fixture
def doctor(tmp_path):
    def run(*arguments: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "VIRTUAL_ENV", "LANG")},
            "PYTHONPATH": str(ROOT),
            "DETENT_STORE": f"sqlite:///{tmp_path}/detent.db",
            "DETENT_ARTIFACTS": f"folder:{tmp_path}/artifacts",
            **environ,
        }
        command = [sys.executable, "-m", "engine.entry.cli", "doctor", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=cwd, timeout=60)

    return run


def test_a_person_sees_a_line_for_each_section_and_the_result(doctor):
    found = doctor()
    lines = found.stdout.splitlines()

    assert (0, "") == (found.returncode, found.stderr)
    assert SECTIONS == [line.split()[1] for line in lines if line[:1] in ("✔", "–")]  # a long one goes on below
    assert lines[-1].startswith("READY (")
    assert "What to do" not in found.stdout


def test_what_is_wrong_comes_with_what_to_do(doctor, tmp_path):
    (tmp_path / "file").touch()
    found = doctor("--store", f"sqlite:///{tmp_path}/file/x.db", "--mode", "real", DETENT_STOR="x")

    assert 1 == found.returncode
    to_do = found.stdout.partition("What to do:\n")[2].splitlines()
    assert ["  store:", "  secrets:", "  configuration:"] == [line[: line.index(":") + 1] for line in to_do[:3]]
    assert to_do[-1].startswith("FAILED (")


def test_a_script_reads_json_whatever_is_wrong(doctor):
    ready, degraded, failed, misconfigured = (
        doctor("--format", "json", *more, **environ)
        for more, environ in (((), {}), ((), {"DETENT_STOR": "x"}), (("none.yaml",), {}), (("--bucket", "a/b"), {}))
    )
    results = [json.loads(found.stdout)["result"] for found in (ready, degraded, failed, misconfigured)]

    assert ["READY", "DEGRADED", "FAILED", "FAILED"] == results
    assert [0, 0, 1, 1] == [found.returncode for found in (ready, degraded, failed, misconfigured)]
    assert all(SECTIONS == list(json.loads(found.stdout)["sections"]) for found in (ready, misconfigured))


@pytest.mark.parametrize(
    ("environ", "skipped"),
    [
        ({"LOG_LEVEL": "LOUD"}, []),
        ({"LOG_LEVEL": "LOUD", "DETENT_LEASE_S": "0"}, []),
        ({"ARTIFACTS_BUCKET": "a/b"}, ["artifacts"]),
        ({"DETENT_STORE": "postgres://x", "LOG_LEVEL": "LOUD"}, ["store", "ledger", "runs"]),
    ],
)
def test_a_mistake_in_the_configuration_hides_only_what_it_names(doctor, environ, skipped):
    found = doctor("--format", "json", **environ)
    sections = json.loads(found.stdout)["sections"]
    clean = json.loads(doctor("--format", "json").stdout)["sections"]

    assert (1, "FAILED") == (found.returncode, sections["configuration"]["status"])
    assert set(environ) == set(sections["configuration"]["meta"]["variables"])
    assert all(name in sections["configuration"]["details"] for name in environ)
    for name in SECTIONS[1:]:
        assert sections[name]["status"] == ("SKIPPED" if name in skipped else clean[name]["status"]), name


def test_a_wrong_flag_is_a_mistake_of_usage(doctor):
    assert [2, 2] == [doctor("--loud").returncode, doctor("--timeout", "0").returncode]


def test_without_machines_there_is_nothing_to_compile(doctor, tmp_path):
    found = doctor("--format", "json", cwd=tmp_path)

    assert 0 == found.returncode
    assert {"machines": "SKIPPED", "ledger": "SKIPPED"} == {
        name: section["status"]
        for name, section in json.loads(found.stdout)["sections"].items()
        if section["status"] != "OK"
    }


def test_a_bucket_is_looked_at_with_its_clock(doctor):
    with running_storage("pictures-of-charts") as emulator:
        arguments = ("--artifacts", "gs:", "--bucket", "pictures-of-charts", "--format", "json")
        found = doctor(*arguments, STORAGE_EMULATOR_HOST=emulator.url)
        missing = doctor(*arguments, "--bucket", "no-such-bucket", STORAGE_EMULATOR_HOST=emulator.url)
        objects = emulator.objects("pictures-of-charts")

    sections = json.loads(found.stdout)["sections"]
    assert (0, "OK", "OK") == (found.returncode, sections["artifacts"]["status"], sections["clock"]["status"])
    assert "Cloud Storage" in sections["clock"]["meta"]["ahead_ms"]
    assert sorted(name.partition("/")[0] for name in objects) == [".blobs", "detent-preflight"]
    section = json.loads(missing.stdout)["sections"]["artifacts"]
    assert (1, "FAILED") == (missing.returncode, section["status"])
    assert "no bucket gs://no-such-bucket" in section["details"]
    assert "gcloud storage buckets create" in section["remedy"]


def test_a_service_that_is_gone_does_not_hold_it_up(doctor):
    found = doctor(
        "--artifacts",
        "gs:",
        "--bucket",
        "abc",
        "--timeout",
        "2",
        STORAGE_EMULATOR_HOST="127.0.0.1:9",
        LOG_LEVEL="ERROR",
    )

    assert (1, "") == (found.returncode, found.stderr)
    assert "the connection failed" in found.stdout
    assert "unknown" not in found.stdout  # the store's disk still says the time


def test_no_key_is_printed(doctor, tmp_path):
    accounts = tmp_path / "accounts.json"
    accounts.write_text(json.dumps([{"id": "main", "apiKey": KEY}]))
    accounts.chmod(0o600)
    for form in ("text", "json"):
        found = doctor("--accounts", str(accounts), "--mode", "real", "--format", form, TDA_ENV=KEY)
        assert 0 == found.returncode, found.stdout
        assert KEY not in found.stdout + found.stderr
