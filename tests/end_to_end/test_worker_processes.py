"""Real worker processes on one SQLite file: timers that outlive them, and how they are told to stop."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

ACTIONS = r"""
import time
import engine

@engine.action("slow", kind="repeatable", parameters=("file", "seconds"))
def slow(request: engine.ActionRequest) -> engine.Outcome:
    with open(request.params["file"], "a") as file:
        file.write("begun\n")
    time.sleep(request.params["seconds"])
    return engine.Outcome("done")

@engine.action("quick", kind="repeatable")
async def quick(request: engine.ActionRequest) -> engine.Outcome:
    return engine.Outcome("done")
"""

MACHINES = {
    "timed": "{machine: timed, version: 1, initial: W, states: {W: {'on': {go: NO}, after: {2s: V}}, V: {'on': {go: END}}, END: {type: final, output: '${input.n}'}, NO: {type: final, status: FAILED}}}",
    "asking": "{machine: asking, version: 1, initial: W, states: {W: {'on': {go: {target: END, assign: {v: '${result}'}}}, cancel: OUT}, END: {type: final, output: '${context.v}'}, OUT: {type: final, status: CANCELLED}}}",
    "busy": "{machine: busy, version: 1, initial: A, states: {A: {invoke: {action: slow, with: {file: '${input.file}', seconds: '${input.seconds}'}}, on: {done: B}}, B: {invoke: {action: slow, with: {file: '${input.file}', seconds: 0}}, on: {done: END}}, END: {type: final}}}",
    "one": "{machine: one, version: 1, initial: A, states: {A: {invoke: {action: quick}, on: {done: END}}, END: {type: final}}}",
    "many": "{machine: many, version: 1, initial: M, states: {M: {map: {machine: one, items: '${input.items}', key: '${string(item)}', concurrency: 20}, on: {done: END}}, END: {type: final}}}",
}


class Shell:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "slow_actions.py").write_text(ACTIONS)
        for name, text in MACHINES.items():
            (folder / f"{name}.yaml").write_text(text)
        self.env = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "VIRTUAL_ENV", "LANG")},
            "PYTHONPATH": f"{ROOT}:{folder}",
            "DETENT_STORE": f"sqlite:///{folder}/detent.db",
            "DETENT_ARTIFACTS": f"folder:{folder}/artifacts",
            "DETENT_LEASE_S": "2",
        }
        self.workers: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "engine.entry.cli", *arguments]
        return subprocess.run(command, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=60)

    def worker(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "engine.entry.cli", "worker", "--actions", "slow_actions", *arguments]
        made = subprocess.Popen(
            command, env=self.env, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.workers.append(made)
        return made

    def heads(self) -> list[dict]:
        """Every head, read beside whoever writes."""
        file = self.folder / "detent.db"
        if not file.exists():
            return []
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as store:
            try:
                rows = store.execute("SELECT body FROM document WHERE collection = 'runs'").fetchall()
            except sqlite3.OperationalError:  # it is being made, or somebody writes
                return []
        return [json.loads(body) for (body,) in rows]

    def shown(self, run_id: str) -> dict:
        return json.loads(self("runs", "show", run_id, "--format", "json").stdout)


def until_said(worker: subprocess.Popen[str], *events: str) -> list[dict]:
    """Read the worker's log lines up to one of these events."""
    lines: list[dict] = []
    giving_up = threading.Timer(30, worker.kill)
    giving_up.start()
    try:
        for line in worker.stderr:
            lines.append(json.loads(line))
            if lines[-1]["event"] in events:
                return lines
    finally:
        giving_up.cancel()
    raise AssertionError(f"the worker ended without saying {events}: {lines}")


@pytest.fixture
def shell(tmp_path):
    made = Shell(tmp_path)
    yield made
    for worker in made.workers:
        if worker.poll() is None:
            worker.kill()
        worker.communicate()


def test_a_wait_outlives_every_worker_and_its_timer_fires_in_another_process(shell):
    shell("run", "timed.yaml", "--run-id", "r", "--input", '{"n": 7}', "--detach")
    for _ in range(2):
        passing = shell.worker()
        until_said(passing, "worker_started")
        passing.kill()
        passing.wait()
    worker = shell.worker()
    (taken,) = [line for line in until_said(worker, "step_committed") if line["event"] == "step_committed"]
    assert (taken["took"], taken["state"]) == ("timer_fired", "V")
    assert shell("runs", "signal", "r", "go").returncode == 0
    until_said(worker, "step_committed")
    assert shell.shown("r")["output"] == 7
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=30) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_finishes_what_it_does_and_begins_nothing(shell, number):
    given = json.dumps({"file": str(shell.folder / "calls"), "seconds": 1.0})
    shell("run", "busy.yaml", "--run-id", "r", "--input", given, "--detach", "--actions", "slow_actions")
    worker = shell.worker("--grace", "20")
    while not (shell.folder / "calls").exists():
        assert worker.poll() is None
    worker.send_signal(number)
    out, err = worker.communicate(timeout=30)
    assert (worker.returncode, out) == (0, "Stopped; runs were taken 1 time.\n")
    assert "Traceback" not in err
    shown = shell.shown("r")
    assert (shown["state"], shown["worker"], shown["status"]) == ("B", None, "running")
    assert (shell.folder / "calls").read_text() == "begun\n"
    assert shell("worker", "--once", "--actions", "slow_actions").returncode == 0
    assert shell.shown("r")["status"] == "succeeded"


@pytest.mark.parametrize(
    ("number", "command"),
    [(signal.SIGTERM, ("worker", "--grace", "0")), (signal.SIGINT, ("run", "many.yaml", "--run-id", "r"))],
    ids=["a worker", "detent run"],
)
def test_a_process_that_is_stopped_in_the_middle_of_a_map_holds_nothing_of_it(shell, number, command):
    """Its commits are made beside the event loop, and what they begin is let go of, heard of or not."""
    given = ("--input", json.dumps({"items": list(range(5000))}))
    if command[0] == "worker":
        begun = shell("run", "many.yaml", "--run-id", "r", *given, "--detach", "--actions", "slow_actions")
        assert begun.returncode == 0, begun.stderr
    arguments = (*command, *(given if command[0] == "run" else ()), "--actions", "slow_actions")
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.entry.cli", *arguments],
        env={**shell.env, "DETENT_LEASE_S": "60"}, cwd=shell.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while len(shell.heads()) < 300:
            assert process.poll() is None
        process.send_signal(number)
        process.wait(timeout=30)
    finally:
        process.kill()
    heads = shell.heads()
    assert len(heads) < 5001, "it was stopped before it was done"
    assert [head["run_id"] for head in heads if head["worker"] is not None] == []


@pytest.mark.parametrize("grace", ["0.2", "3600"])
def test_a_handler_that_does_not_come_back_holds_nobody_up(shell, grace):
    """After a short grace time, or a second signal within a long one: the thread in its call is left behind."""
    given = json.dumps({"file": str(shell.folder / "calls"), "seconds": 300})
    shell("run", "busy.yaml", "--run-id", "r", "--input", given, "--detach", "--actions", "slow_actions")
    worker = shell.worker("--grace", grace)
    while not (shell.folder / "calls").exists():
        assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    if grace == "3600":
        until_said(worker, "worker_stops")
        worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=30)
    assert worker.returncode == 0
    assert "Traceback" not in err
    shown = shell.shown("r")
    assert (shown["state"], shown["worker"]) == ("A", None)


def test_what_a_person_types_to_steer_a_run(shell):
    assert "is recorded" in shell("run", "asking.yaml", "--run-id", "r", "--detach").stdout
    assert "waits    for a signal: go\n" in re.sub(" +\n", "\n", shell("runs", "show", "r").stdout)
    following = subprocess.Popen(
        [sys.executable, "-m", "engine.entry.cli", "runs", "show", "r", "--follow", "--format", "json"],
        env=shell.env, cwd=shell.folder, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert json.loads(following.stdout.readline())["event"] == "run_started"
    first = shell("runs", "signal", "r", "go", "--value", "[1, 2]", "--id", "s1")
    again = shell("runs", "signal", "r", "go", "--value", "[1, 2]", "--id", "s1", "--wait")
    assert (first.returncode, "waits for it in W" in first.stdout) == (0, True)
    assert (again.returncode, "had the signal s1 before" in again.stderr, "[1, 2]" in again.stdout) == (0, True, True)
    assert json.loads(following.communicate(timeout=30)[0])["event"] == "signal_received"
    assert shell("runs", "cancel", "r").returncode == 1
    assert shell("runs", "signal", "r", "stop").returncode == 2
    assert shell("runs", "cancel", "nobody").returncode == 2
    replayed = shell("replay", "r", "--export", "r.json")
    assert (replayed.returncode, "byte for byte" in replayed.stdout) == (0, True)
    assert shell("replay", "r.json").returncode == 0
    (shell.folder / "r.json").write_text((shell.folder / "r.json").read_text().replace(":[1,2]", ":[1,3]"))
    changed = shell("replay", "r.json")
    assert (changed.returncode, "snapshot.context.v[1] is 3 in the store and 2 by the journal" in changed.stdout) == (
        1,
        True,
    )


def test_a_run_is_cancelled_and_redriven_by_hand(shell):
    shell("run", "asking.yaml", "--run-id", "r", "--detach")
    cancelled = shell("runs", "cancel", "r", "--reason", "enough", "--wait")
    assert (cancelled.returncode, "CANCELLED in OUT" in cancelled.stdout) == (0, True)
    assert shell("runs", "redrive", "r", "--from", "NOWHERE").returncode == 2
    again = shell("runs", "redrive", "r", "--no-wait")
    assert (again.returncode, "starts again" in again.stdout) == (0, True)
    assert shell.shown("r")["state"] == "W"
    assert shell("runs", "signal", "r", "go", "--value", "3", "--wait").returncode == 0
    assert shell.shown("r")["output"] == 3
    assert shell("runs", "redrive", "r").returncode == 1


def test_a_worker_says_what_it_left_because_it_does_not_know_the_action(shell):
    given = json.dumps({"file": str(shell.folder / "calls"), "seconds": 0})
    shell("run", "busy.yaml", "--run-id", "r", "--input", given, "--detach", "--actions", "slow_actions")
    without, knowing = shell("worker", "--once"), shell("worker", "--once", "--actions", "slow_actions")
    assert "0 runs driven; 1 left that is due: their actions are not known here" in without.stdout
    assert "1 run driven; nothing is due.\n" == knowing.stdout


def test_a_key_does_not_go_out_with_a_signal_or_a_reason(shell):
    shell("run", "asking.yaml", "--run-id", "r", "--detach")
    shell.env["CHART_IMG_ACCOUNTS_JSON"] = json.dumps([{"id": "main", "apiKey": "a-very-secret-key"}])
    for refused in (
        shell("runs", "signal", "r", "go", "--value", '{"k": "a-very-secret-key"}'),
        shell("runs", "cancel", "r", "--reason", "a-very-secret-key"),
    ):
        assert (refused.returncode, "SECRET_LEAKED" in refused.stderr) == (1, True)
        assert "a-very-secret-key" not in refused.stdout + refused.stderr
    assert shell.shown("r")["inbox"] == []
