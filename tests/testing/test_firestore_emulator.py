"""The emulator's launcher: where it looks, and that nothing of it stays behind."""

from __future__ import annotations

import os
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
