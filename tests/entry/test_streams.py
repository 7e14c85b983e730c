"""Standard streams that are full, closed, or whose reader has left: one line where it can be said, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.entry.door_process import Door
from tests.entry.test_interruption import until

LOST = "Standard output cannot be written: No space left on device.\n"

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full is Linux's")


@pytest.fixture
def door(tmp_path):
    made = Door(tmp_path)
    made("run", "waits.yaml", "--run-id", "r", "--detach")
    return made


@pytest.mark.parametrize("command", ["replay r", "runs list", "runs show r", "runs show r --follow", "--help"])
def test_what_cannot_be_printed_ends_a_command_that_reads_with_1_and_a_line(door, command):
    with open("/dev/full", "w") as full:
        found = door(*command.split(), stdout=full)
    assert (found.returncode, found.stderr) == (1, LOST)


@pytest.mark.parametrize("command", ["replay r", "runs list", "runs show r --follow"])
def test_a_reader_who_has_left_is_told_nothing(door, command):
    reads, writes = os.pipe()
    os.close(reads)
    found = door(*command.split(), stdout=writes)
    os.close(writes)
    assert (found.returncode, found.stderr) == (1, "")


def test_a_run_is_driven_to_its_end_though_its_summary_cannot_be_printed(door):
    with open("/dev/full", "w") as full:
        found = door("run", "done.yaml", "--run-id", "d", stdout=full)
    assert (found.returncode, found.stderr.splitlines(keepends=True)[-1]) == (1, LOST)
    assert json.loads(door("runs", "show", "d", "--format", "json").stdout)["status"] == "succeeded"


@pytest.mark.parametrize("is_full", [True, False], ids=["full", "reader-left"])
def test_a_worker_without_standard_output_works_on_and_ends_with_0(door, is_full):
    (door.folder / "loud.py").write_text(
        "import engine\n"
        "@engine.action('loud', kind='repeatable')\n"
        "def loud(request: engine.ActionRequest) -> engine.Outcome:\n"
        "    print('something', flush=True)\n"
        "    return engine.Outcome('done')\n"
    )
    (door.folder / "loud.yaml").write_text(
        "{machine: loud, version: 1, initial: A, states: {A: {invoke: {action: loud}, on: {done: END}}, END: {type: final}}}"
    )
    door("run", "loud.yaml", "--run-id", "l", "--actions", "loud", "--detach")
    reads, writes = (-1, os.open("/dev/full", os.O_WRONLY)) if is_full else os.pipe()
    if not is_full:
        os.close(reads)
    worker = door.started("worker", "--actions", "loud", stdout=writes)
    os.close(writes)
    until(worker.stderr, '"succeeded"', worker)
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=30)
    assert worker.returncode == 0
    assert ("Traceback" not in err, err.endswith(LOST)) == (True, is_full)


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_a_command_without_standard_error_does_its_work(door, closed):
    assert door.in_shell(f"run done.yaml --run-id d {closed}").stdout == "done SUCCEEDED in END (d)\n"
    assert door.in_shell(f"worker --once {closed}").stdout == "0 runs driven; nothing is due.\n"
    worker = subprocess.Popen(
        ["sh", "-c", f"exec {' '.join(door.command)} worker {closed}"], env=door.env, cwd=door.folder,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(timeout=1)
    worker.send_signal(signal.SIGTERM)
    assert worker.communicate(timeout=30)[0] == "Stopped; runs were taken 0 times.\n"
    assert worker.returncode == 0


def test_a_closed_stream_leaves_its_descriptor_to_no_file(door):
    """What is printed to standard error by a library in C must not go into the store."""
    code = "import os, sys; from engine.entry.cli import streams; streams.hold(); print(os.readlink('/proc/self/fd/2'))"
    found = subprocess.run(
        ["sh", "-c", f'exec {sys.executable} -c "{code}" 2>&-'], env=door.env, stdout=subprocess.PIPE, text=True
    )
    assert found.stdout == "/dev/null\n"
