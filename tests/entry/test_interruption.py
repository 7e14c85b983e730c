"""SIGTERM and Ctrl-C at every moment of a command's life."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time

import pytest

from engine.entry.cli import main
from tests.entry.door_process import Door

NUMBERS = ("SIGTERM", "SIGINT")
SLOW = """
import os, signal, threading, time
import engine

@engine.action("slow", kind="repeatable")
def slow(request: engine.ActionRequest) -> engine.Outcome:
    print("called", flush=True)
    time.sleep(300)
    return engine.Outcome("done")
"""
BUSY = "{machine: busy, version: 1, initial: A, states: {A: {invoke: {action: slow}, on: {done: END}}, END: {type: final}}}"


@pytest.fixture
def door(tmp_path):
    return Door(tmp_path)


def until(stream, text: str, process) -> None:
    """Read lines up to the one that holds a text."""
    giving_up = threading.Timer(30, process.kill)
    giving_up.start()
    try:
        assert any(text in line for line in stream), f"the process ended without {text!r}"
    finally:
        giving_up.cancel()


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["engine.entry.cli.streams", "click", "engine.entry.cli.worker", "anyio", "apsw"])
def test_a_worker_that_is_told_to_stop_before_it_serves_ends_quietly(door, name, number):
    found = door.signalled_at_import(name, number, "worker")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "") or (
        name == "apsw" and found.returncode == 0 and "Traceback" not in found.stderr  # it listens by then
    )


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("arguments", [("runs", "list"), ("run", "done.yaml"), ("worker", "--once")], ids=" ".join)
@pytest.mark.parametrize("name", ["click", "anyio"])
def test_a_command_that_is_interrupted_before_it_begins_says_so_in_a_line(door, arguments, name, number):
    found = door.signalled_at_import(name, number, *arguments)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "Interrupted; nothing was begun.\n")


def test_signals_without_end_leave_a_worker_its_exit_status(door):
    worker = door.started("worker")
    until(worker.stderr, "worker_started", worker)
    count = 0
    while worker.poll() is None:
        worker.send_signal(signal.SIGINT if count % 2 else signal.SIGTERM)
        count += 1
        time.sleep(0.0005)
    out, err = worker.communicate(timeout=30)
    assert (worker.returncode, out) == (0, "Stopped; runs were taken 0 times.\n")
    assert "Traceback" not in err
    told = [json.loads(line)["event"] for line in err.splitlines()]
    assert [name for name in told if name != "worker_started"] == ["worker_stops", "worker_hurries"]


@pytest.mark.parametrize("number", NUMBERS)
def test_an_interrupted_command_that_only_reads_speaks_of_no_run_under_way(door, number):
    door("run", "waits.yaml", "--run-id", "r", "--detach")
    following = door.started("runs", "show", "r", "--follow")
    until(following.stdout, "run_started", following)
    following.send_signal(signal.Signals[number])
    _, err = following.communicate(timeout=30)
    assert (following.returncode, err) == (130, "Interrupted.\n")


@pytest.mark.parametrize("number", NUMBERS)
def test_an_interrupted_run_goes_on_from_its_last_commit_and_says_so(door, number):
    (door.folder / "busy.yaml").write_text(BUSY.replace("slow", "wait.never"))
    (door.folder / "never.py").write_text(
        "import anyio, engine\n"
        "@engine.action('wait.never', kind='repeatable')\n"
        "async def never(request: engine.ActionRequest) -> engine.Outcome:\n"
        "    print('called', flush=True)\n"
        "    await anyio.sleep_forever()\n"
    )
    running = door.started("run", "busy.yaml", "--run-id", "r", "--actions", "never")
    until(running.stdout, "called", running)
    running.send_signal(signal.Signals[number])
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert err.endswith("\nInterrupted; a run that was under way goes on from its last commit.\n")
    assert "Traceback" not in err


def test_a_second_ctrl_c_ends_a_command_whose_handler_does_not_come_back(door):
    (door.folder / "busy.yaml").write_text(BUSY)
    (door.folder / "slow_actions.py").write_text(SLOW)
    running = door.started("run", "busy.yaml", "--run-id", "r", "--actions", "slow_actions")
    until(running.stdout, "called", running)
    giving_up = threading.Timer(30, running.kill)
    giving_up.start()
    while running.poll() is None:
        running.send_signal(signal.SIGINT)
        time.sleep(0.1)
    giving_up.cancel()
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "Traceback" not in err


def test_a_program_that_calls_main_lives_on_whatever_threads_it_has(door, monkeypatch, capsys):
    for name in ("DETENT_STORE", "DETENT_ARTIFACTS"):
        monkeypatch.setenv(name, door.env[name])
    door("run", "done.yaml")
    over, handlers = threading.Event(), logging.getLogger().handlers[:]
    other = threading.Thread(target=over.wait)
    other.start()
    try:
        with pytest.raises(SystemExit) as end:
            main(["worker", "--once"])
    finally:
        logging.getLogger().handlers[:] = handlers
        over.set()
        other.join()
    assert (end.value.code, capsys.readouterr().out) == (0, "0 runs driven; nothing is due.\n")


def test_a_program_that_calls_main_keeps_its_handlers(capsys):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
