"""What commands answer where the plain answer would mislead: names, places, flags, and what will happen to a run."""

from __future__ import annotations

import json
import time

import pytest

from tests.entry.door_process import Door

SLOW = """
import engine

@engine.action("slow", kind="repeatable")
def slow(request: engine.ActionRequest) -> engine.Outcome:
    return engine.Outcome("done")
"""
BUSY = "{machine: busy, version: 1, initial: A, states: {A: {invoke: {action: slow}, on: {done: END}}, END: {type: final}}}"
TWO = (
    "{machine: two, version: 1, initial: W, states: {W: {'on': {go: END, stay: V}, after: {0.1s: V}},"
    " V: {'on': {go: END}}, END: {type: final}}}"
)


@pytest.fixture
def door(tmp_path):
    return Door(tmp_path)


def test_a_run_whose_id_ends_in_json_is_replayed_where_no_such_file_is(door):
    door("run", "waits.yaml", "--run-id", "r.json", "--detach")
    exported = door("replay", "r.json", "--export", "journal.json")
    from_file = door("replay", "journal.json")
    assert (exported.returncode, from_file.returncode) == (0, 0)
    assert exported.stdout == from_file.stdout
    (door.folder / "r.json").write_text("{}")
    assert "is no exported journal" in door("replay", "r.json").stderr


def test_a_name_that_is_neither_a_file_nor_a_run_is_told_to_be_neither(door):
    without_store = door("replay", "x.json")
    door("run", "waits.yaml", "--detach")
    found = door("replay", "x.json")
    long = door("replay", f"{'x' * 380}.json")
    assert (without_store.returncode, found.returncode, long.returncode) == (2, 2, 2)
    assert "there is no file 'x.json', and there is no store at " in without_store.stderr
    assert "there is no file 'x.json', and there is no run 'x.json'." in found.stderr
    assert "there is no run 'xxx" in long.stderr
    assert "./x.json: the file cannot be read" in door("replay", "./x.json").stderr


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (("worker", "--grace", "-1"), "--grace"),
        (("worker", "--store", "nope"), "--store"),
        (("runs", "list", "--store", "firestore://B@D"), "--store"),
        (("run", "done.yaml", "--artifacts", "nope"), "--artifacts"),
        (("run", "done.yaml", "--artifacts", "folder:/proc/none"), "--artifacts"),
        (("run", "done.yaml", "--bucket", ".."), "--bucket"),
        (("run", "done.yaml", "--mode", "record"), "--mode"),
        (("ledger", "show", "--machine", "pool.yaml", "--accounts", "a.json"), "--accounts"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_flag_is_blamed_by_its_own_name(door, arguments, flag):
    (door.folder / "a.json").write_text("[1]")
    (door.folder / "pool.yaml").write_text(
        "{machine: pool, version: 1, initial: E, pools: {p: {accounts: CHART_IMG_ACCOUNTS_JSON}}, states: {E: {type: final}}}"
    )
    door("run", "done.yaml")
    door.env["TDA_ENV"] = "prod"
    found = door(*arguments)
    assert (found.returncode, found.stderr.startswith(f"CONFIG_ERROR: {flag}: ")) == (2, True), found.stderr


def test_a_wrong_variable_is_blamed_by_its_own_name(door):
    door.env["DETENT_GRACE_S"] = "-1"
    assert door("worker").stderr.startswith("CONFIG_ERROR: DETENT_GRACE_S: ")
    assert "configuration  FAILED" in door("doctor").stdout
    assert "--store: names no store" in door("doctor", "--store", "nope").stdout


def test_a_worker_makes_no_store_in_a_folder_that_is_not_there(door):
    found = door("worker", "--store", "sqlite:///nowhere/d.db")
    assert found.returncode == 2
    assert "there is no folder nowhere for a store" in found.stderr
    assert not (door.folder / "nowhere").exists()


@pytest.mark.parametrize("named", [True, False], ids=["named", "default"])
def test_a_worker_may_be_started_before_the_first_run(door, named):
    if not named:
        del door.env["DETENT_STORE"]
    worker = door.started("worker")
    assert '"worker_started"' in worker.stderr.readline()
    worker.terminate()
    worker.communicate(timeout=30)
    assert worker.returncode == 0
    assert (door.folder / ("d.db" if named else ".detent/detent.db")).exists()


def test_a_worker_that_looks_once_expects_a_store_to_look_into(door):
    found = door("worker", "--once")
    assert (found.returncode, found.stdout) == (2, "")
    assert "there is no store at " in found.stderr
    assert not (door.folder / "d.db").exists()


def test_a_run_whose_action_is_not_known_here_names_it_and_what_to_give(door):
    (door.folder / "busy.yaml").write_text(BUSY)
    (door.folder / "slow_actions.py").write_text(SLOW)
    door("run", "busy.yaml", "--run-id", "r", "--detach", "--actions", "slow_actions")
    resumed, shown = door("runs", "resume", "r"), door("runs", "show", "r")
    assert resumed.returncode == 4
    assert resumed.stderr.endswith(
        "The run r waits in A for the action slow, which is not known here; name its module with --actions.\n"
    )
    assert "for a worker that knows the action slow (--actions MODULE), since " in shown.stdout
    assert door("runs", "resume", "r", "--actions", "slow_actions").returncode == 0


@pytest.mark.parametrize("run_id", ["a\x01b", "a\nb", "a\tb", "a\x7f", "a\u2028b"], ids=ascii)
def test_a_run_id_that_cannot_be_printed_is_refused(door, run_id):
    found = door("run", "done.yaml", "--run-id", run_id)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == (
        f"REQUEST_INVALID: the run id {run_id!r} cannot be used: it must have printable characters only, "
        "for people read it and type it. Choose another.\n"
    )


def test_a_cancel_of_a_run_in_its_last_call_promises_nothing(door):
    (door.folder / "busy.yaml").write_text(BUSY)
    (door.folder / "slow_actions.py").write_text(
        SLOW.replace("import engine\n", "import engine, os, time\n").replace(
            "    return", "    open('called', 'w')\n    while not os.path.exists('end'): time.sleep(0.01)\n    return"
        )
    )
    running = door.started("run", "busy.yaml", "--run-id", "r", "--actions", "slow_actions")
    while not (door.folder / "called").exists():
        assert running.poll() is None
        time.sleep(0.01)
    asked = door("runs", "cancel", "r")
    (door.folder / "end").touch()
    running.communicate(timeout=30)
    assert running.returncode == 0
    assert asked.stdout.startswith("Run r is asked to end; ")
    assert asked.stdout.endswith(", which holds it in A, takes it with its next commit, unless that ends the run.\n")


def test_a_signal_behind_others_says_what_comes_first(door):
    (door.folder / "two.yaml").write_text(TWO)
    door("run", "two.yaml", "--run-id", "r", "--detach")
    shown = json.loads(door("runs", "show", "r", "--format", "json").stdout)
    while time.time() * 1000 <= shown["claimable_at_ms"]:
        time.sleep(0.01)
    first, second = door("runs", "signal", "r", "stay", "--id", "a"), door("runs", "signal", "r", "go", "--id", "b")
    waits = "it waits for it in W, and the next worker takes it, unless "
    assert first.stdout == f"Run r has the signal stay (a); {waits}its timer, which is due, moves it on first.\n"
    assert second.stdout == (
        f"Run r has the signal go (b); {waits}the signal stay (a) or its timer, which is due, moves it on first.\n"
    )
    door("run", "waits.yaml", "--run-id", "w", "--detach")
    assert door("runs", "signal", "w", "go", "--id", "c").stdout == (
        "Run w has the signal go (c); it waits for it in W, and the next worker takes it.\n"
    )
