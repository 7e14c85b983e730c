"""The preloaded library: each fsync counted over all processes, and slower if asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from benchmarks import syncs

CODE = """
import os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for _ in range(3):
    os.write(file, b"x"); os.fsync(file); os.fdatasync(file)
"""


def synced(tmp_path, delay_us, processes=1):
    library = syncs.compiled(tmp_path)
    if library is None:
        pytest.skip("no C compiler")
    count = tmp_path / "count"
    environment = {**os.environ, **syncs.environment(library, count, delay_us)}
    began = time.monotonic()
    started = [
        subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path / f"file-{number}")], env=environment)
        for number in range(processes)
    ]
    assert [process.wait() for process in started] == [0] * processes
    return int.from_bytes(count.read_bytes(), sys.byteorder), time.monotonic() - began


def test_every_call_of_every_process_is_counted(tmp_path):
    found, _ = synced(tmp_path, delay_us=0, processes=3)

    assert found == 18


def test_a_delay_is_added_to_each_call(tmp_path):
    found, took_s = synced(tmp_path, delay_us=100_000)

    assert found == 6
    assert took_s >= 0.6


def test_a_library_is_compiled_once(tmp_path):
    first = syncs.compiled(tmp_path)
    if first is None:
        pytest.skip("no C compiler")
    made = first.stat().st_mtime_ns

    assert syncs.compiled(tmp_path) == first
    assert first.stat().st_mtime_ns == made


def test_without_a_compiler_nothing_is_preloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(syncs.shutil, "which", lambda name: None)

    assert syncs.compiled(tmp_path) is None
    assert syncs.environment(None, tmp_path / "count", 1000) == {}
