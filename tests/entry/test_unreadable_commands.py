"""Runs that cannot be read and a store that is damaged, at the command line and at the doors of the cloud."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

import engine
from engine.core.write import Key, Set
from engine.entry.cli import main
from engine.entry.event_work import EventWork
from engine.entry.starts import Begun, start_waiting
from engine.errors import DocumentUnreadableError
from engine.store import open_store
from tests.end_to_end.chart_export_world import MACHINE
from tests.entry.door_world import RUN_ID, door_world, steps, told

Console = Callable[..., tuple[int, str, str]]

WAITS = """
machine: waits
initial: W
states:
  W: {on: {go: END}, after: {1h: END}}
  END: {type: final}
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file with three runs that wait, the second of which a test writes over."""
    url = f"sqlite:///{tmp_path}/detent.db"
    monkeypatch.setenv("DETENT_STORE", url)
    monkeypatch.setenv("DETENT_ARTIFACTS", f"folder:{tmp_path}/artifacts")
    definition = tmp_path / "waits.yaml"
    definition.write_text(WAITS)

    async def begin() -> None:
        async with engine.Engine(store=url, artifacts=f"folder:{tmp_path}/artifacts") as app:
            for run_id in ("one", "bad", "two"):
                await app.start(app.load(definition), {}, run_id=run_id)

    anyio.run(begin)
    return url


@pytest.fixture
def detent(capsys: pytest.CaptureFixture[str]) -> Console:
    def run(*arguments: str) -> tuple[int, str, str]:
        handlers = logging.getLogger().handlers[:]
        try:
            with pytest.raises(SystemExit) as end:
                main(list(arguments))
                raise SystemExit(0)
        finally:
            logging.getLogger().handlers[:] = handlers
        found = capsys.readouterr()
        return int(end.value.code or 0), found.out, found.err

    return run


def write_over(url: str, change: Callable[[dict[str, Any]], object]) -> None:
    async def change_it() -> None:
        opened = await open_store(url)
        key = Key("runs", "bad")
        document: Any = (await opened.get_many([key]))[key]
        change(document)
        await opened.transact([key], lambda found, now_ms: ([Set(key, document)], None))
        await opened.close()

    anyio.run(change_it)


def by_sql(url: str, body: str) -> None:
    with apsw.Connection(url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE document SET body = ? WHERE collection = 'runs' AND id = 'bad'", (body,))


EDITS: dict[str, Callable[[str], None]] = {
    "emptied": lambda url: write_over(url, dict.clear),
    "without a snapshot": lambda url: write_over(url, lambda one: one.update(snapshot="half of")),
    "with a fence of words": lambda url: write_over(url, lambda one: one.update(fence="x")),
    "no JSON": lambda url: by_sql(url, "{half of"),
    "a list": lambda url: by_sql(url, "[]"),
}

COMMANDS = {
    "show": ("runs", "show", "bad"),
    "show as json": ("runs", "show", "bad", "--format", "json"),
    "resume": ("runs", "resume", "bad"),
    "cancel": ("runs", "cancel", "bad"),
    "signal": ("runs", "signal", "bad", "go"),
    "redrive": ("runs", "redrive", "bad"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_the_list_shows_the_others_and_names_the_one_in_a_line(store: str, detent: Console, edit: str) -> None:
    EDITS[edit](store)
    status, out, err = detent("runs", "list")
    assert ["one", "two"] == sorted(line.split()[0] for line in out.splitlines()[1:])
    assert err.startswith("DOCUMENT_UNREADABLE: the document runs/bad cannot be read: ")
    assert err.count("\n") == 1
    assert status == 1
    status, out, err = detent("runs", "list", "--format", "json")
    assert sorted(one["run_id"] for one in json.loads(out)) == ["one", "two"]
    assert (status, err.count("\n")) == (1, 1)


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_on_it_says_what_is_wrong_and_what_to_do(
    store: str, detent: Console, edit: str, command: str
) -> None:
    EDITS[edit](store)
    status, out, err = detent(*COMMANDS[command])
    assert err.startswith("DOCUMENT_UNREADABLE: the document runs/bad cannot be read: ")
    assert "estore" in err
    assert (status, out, err.count("\n")) == (1, "", 1)


def test_a_list_of_readable_runs_ends_well(store: str, detent: Console) -> None:
    status, _, err = detent("runs", "list")
    assert (status, err) == (0, "")


def test_replay_folds_the_journal_of_a_run_whose_snapshot_cannot_be_read(store: str, detent: Console) -> None:
    EDITS["without a snapshot"](store)
    status, out, _ = detent("replay", "bad")
    first, last = out.splitlines()
    assert "run_started" in first
    assert "W (waiting)" in first
    assert "runs/bad cannot be read: its field snapshot is not JSON" in last
    assert status == 1


def test_replay_says_when_the_head_does_not_name_the_definition(store: str, detent: Console) -> None:
    EDITS["emptied"](store)
    status, out, err = detent("replay", "bad")
    assert (status, out) == (1, "")
    assert "does not name the definition" in err


def test_a_document_that_is_none_is_left_out_of_the_list_and_named(store: str, detent: Console) -> None:
    EDITS["no JSON"](store)
    status, out, err = detent("documents", "list", "runs")
    assert sorted(json.loads(line)["id"] for line in out.splitlines()) == ["one", "two"]
    assert (status, err) == (1, "The document runs/bad cannot be read: it is no JSON object.\n")


@pytest.mark.parametrize("edit", EDITS)
def test_the_doctor_names_a_run_that_cannot_be_read(store: str, detent: Console, edit: str) -> None:
    EDITS[edit](store)
    _, out, _ = detent("doctor", "--format", "json")
    runs = json.loads(out)["sections"]["runs"]
    assert (runs["status"], runs["meta"]["unreadable"]) == ("DEGRADED", ["bad"])


def test_a_stored_definition_that_cannot_be_read_keeps_no_command_from_other_runs(store: str, detent: Console) -> None:
    """Every command that drives runs reads the definitions of the unfinished ones first."""
    with apsw.Connection(store.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE document SET body = '{\"source\": 7}' WHERE collection = 'definitions'")
    status, _, err = detent("worker", "--once")
    assert (status, "Traceback" in err) == (0, False)
    status, _, err = detent("runs", "resume", "one")
    assert status == 1
    assert "DOCUMENT_UNREADABLE: the document definitions/" in err


def test_a_damaged_file_is_told_by_every_command(store: str, detent: Console) -> None:
    path = Path(store.removeprefix("sqlite:///"))
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    for arguments in (("runs", "list"), ("runs", "show", "one"), ("worker", "--once"), ("worker",)):
        status, _, err = detent(*arguments)
        assert f"STORE_DAMAGED: the SQLite file {path} is damaged" in err
        assert ".recover" in err
        assert status == 1


# The doors of the cloud


@pytest.mark.anyio
async def test_a_start_that_meets_such_a_run_is_refused_and_the_others_begin(caplog: Any) -> None:
    document = steps(a="READY", b="READY")
    async with door_world(**{RUN_ID: document}) as world, world.opened() as opened:
        broken = Key("run_keys", f"chart_export~{RUN_ID}%2Fa")
        await world.store.inner.transact([broken], lambda found, now_ms: ([Set(broken, {"run_id": 7})], None))
        app = opened.app.within(480)
        assert await start_waiting(app, MACHINE, patience_s=10) == Begun(1, 0, 1)
        assert {"a": "READY", "b": "SUCCEEDED"} == await world.statuses()
        (refused,) = told(caplog, "start_refused")
        assert "run_keys/" in refused[1]["error"]


@pytest.mark.anyio
async def test_an_event_goes_on_with_the_steps_that_can_be_read(caplog: Any) -> None:
    async with door_world(**{RUN_ID: steps(a="READY", b="READY")}) as world, world.opened() as opened:
        broken = Key("run_keys", f"chart_export~{RUN_ID}%2Fa")
        await world.store.inner.transact([broken], lambda found, now_ms: ([Set(broken, {"run_id": 7})], None))
        await EventWork(opened, opened.app.within(480), RUN_ID).do()
        assert {"a": "READY", "b": "SUCCEEDED"} == await world.statuses()
        assert ["a"] == [fields["stepId"] for _, fields in told(caplog, "start_refused")]


def test_the_error_keeps_its_facts_through_a_pickle() -> None:
    import pickle

    error = DocumentUnreadableError("runs/bad", "it is not", remedy="Mend it.")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (again.document, str(again)) == ("runs/bad", str(error))
