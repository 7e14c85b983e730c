"""Every journal that a release has written is replayed by this one, byte for byte, for ever. fixtures/journals."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from engine.core import canonical, event
from engine.definition import Catalogue
from engine.entry.application import Engine
from engine.entry.journals import replay_file
from engine.errors import InvalidRequestError
from engine.handlers.registry import ACTIONS
from engine.testing.journals import keep_all, scenes

FOLDER = Path(__file__).parent.parent.parent / "fixtures/journals"
FILES = sorted(FOLDER.glob("*.json"))
EVENTS = set(event._TAGS)


def replay(text: str):
    return replay_file(text, "journal.json", Catalogue(ACTIONS.declarations()))[1]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_journal_of_an_earlier_release_gives_its_snapshot(file: Path) -> None:
    assert replay(file.read_text(encoding="utf-8")).difference is None


def test_the_journals_hold_every_event_and_both_machines_of_the_project() -> None:
    wholes = [json.loads(file.read_text(encoding="utf-8")) for file in FILES]
    assert {row["event"] for whole in wholes for row in whole["journal"]} >= EVENTS
    assert {whole["machine"] for whole in wholes} >= {"chart_export", "chart_request", "asking", "retrying", "quorum"}


def test_this_release_writes_the_journals_that_lie_there(tmp_path: Path) -> None:
    """If it writes others, the format has changed: replay must still take the old ones, so add new files beside them."""

    async def keep(app: Engine) -> None:
        await keep_all(app, tmp_path)

    anyio.run(scenes, keep)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()}.items() <= {
        file.name: file.read_text() for file in FILES
    }.items()


def changed(file: Path, change) -> str:
    whole = json.loads(file.read_text(encoding="utf-8"))
    change(whole)
    return json.dumps(whole)


def other_snapshot(whole: dict) -> None:
    snapshot = canonical.decode(whole["snapshot"])
    snapshot["context"]["by"] = "eve"
    whole["snapshot"] = canonical.encode(snapshot)


def entry_less(whole: dict) -> None:
    del whole["journal"][1]


def other_event(whole: dict) -> None:
    whole["journal"][1]["name"] = "unheard"


def other_bytes(whole: dict) -> None:
    whole["snapshot"] = " " + whole["snapshot"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_snapshot, 'snapshot.context.by is "eve" in the store and "ann" by the journal'),
        (entry_less, "entry 2 is missing; the next one is 3"),
        (other_event, "entry 2 (signal_received) is not taken"),
        (other_bytes, "written in another form"),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_a_journal_that_was_tampered_with_shows_its_first_difference(change, said: str) -> None:
    difference = replay(changed(FOLDER / "asking~approved.json", change)).difference
    assert difference is not None
    assert said in difference


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "digest": "x", "definitions": {}}']
)
def test_what_is_no_exported_journal_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="journal"):
        replay(text)


def test_a_journal_that_is_nested_without_end_is_refused() -> None:
    whole = json.loads(FILES[0].read_text(encoding="utf-8"))
    whole["definitions"][whole["digest"]]["children"] = {"itself": whole["digest"]}
    for text in ("[" * 200_000, json.dumps(whole)):
        with pytest.raises(InvalidRequestError, match="nested too deep"):
            replay(text)


def test_a_journal_beside_another_definition_is_refused() -> None:
    def other(whole: dict) -> None:
        (kept,) = whole["definitions"].values()
        kept["source"] = kept["source"].replace("LATE", "TOO_LATE")

    with pytest.raises(InvalidRequestError, match="not the one that its run began with"):
        replay(changed(FOLDER / "asking~approved.json", other))
