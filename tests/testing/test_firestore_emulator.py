"""The emulator's launcher: where it looks, and that nothing of it stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing.firestore_emulator import (
    EMULATOR_HOST,
    JAR,
    EmulatorMissingError,
    find_jar,
    fresh_project,
    shared_firestore,
)

ROOT = Path(__file__).parent.parent.parent


def test_a_jar_that_is_named_is_taken(tmp_path: Path) -> None:
    jar = tmp_path / "emulator.jar"
    jar.touch()

    assert find_jar({JAR: str(jar)}) == jar


def test_a_jar_that_is_named_and_not_there_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(EmulatorMissingError, match=JAR) as caught:
        find_jar({JAR: str(tmp_path / "none.jar")})

    assert "\n" not in str(caught.value)


def test_an_emulator_that_runs_already_is_used_and_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(EMULATOR_HOST, "127.0.0.1:9")
    with shared_firestore(tmp_path) as emulator:
        assert (emulator.host, emulator.pid) == ("127.0.0.1:9", None)
        emulator.stop()


def test_who_shares_a_folder_shares_an_emulator_and_the_last_one_out_stops_it(
    firestore_emulator: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(EMULATOR_HOST, raising=False)
    with shared_firestore(tmp_path) as first:
        with shared_firestore(tmp_path) as second:
            assert second.host == first.host
        pid = int((tmp_path / "firestore-emulator.json").read_text().split('"pid": ')[1].split(",")[0].rstrip("}"))
        os.kill(pid, 0)

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_projects_are_never_the_same() -> None:
    assert len({fresh_project() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("named", "has_sdk", "status"), [("DETENT_CI", True, 1), ("CI", True, 1), ("CI", False, 0), ("", True, 0)]
)
def test_tests_without_an_emulator_are_skipped_in_one_line_and_fail_in_ci_where_it_should_be(
    named: str, has_sdk: bool, status: int, tmp_path: Path
) -> None:
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG")}
    if has_sdk:
        (tmp_path / "gcloud").touch(mode=0o755)
    environ = {**kept, "PATH": str(tmp_path), JAR: str(tmp_path / "none.jar"), **({named: "1"} if named else {})}
    files = ["tests/cloud/test_firestore_events.py", "tests/cloud/test_costs.py"]
    command = [sys.executable, "-m", "pytest", *files, "-k", "long_map or events"]
    found = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert found.returncode == status, found.stdout
    if status == 0:
        (told,) = [line for line in found.stdout.splitlines() if "names no file" in line]
        assert told.startswith("SKIPPED [")
