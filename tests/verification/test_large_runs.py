"""Runs whose context outgrows one document: their heads are looked at whole."""

from __future__ import annotations

from engine.core.action import ActionDeclaration, ActionKind, Outcome
from engine.core.bounds import DOCUMENT_BYTES_MAX
from engine.core.handler import Handler
from engine.core.write import Key, Set
from engine.definition import Catalogue
from engine.runs.records import PART_CHARACTERS, RUNS, SNAPSHOT_PARTS
from engine.testing.verification import fencing, judge, play, setting_of
from engine.testing.verification.schedule import Schedule
from engine.testing.verification.trace import Effect

GROWING = """
machine: growing
version: 1
initial: GROWING
states:
  GROWING: {invoke: {action: big.grow, assign: {text: "${result.text}"}}, on: {done: RESTING}}
  RESTING: {after: {20s: NAMING}}
  NAMING: {invoke: {action: big.grow, assign: {again: "${result.text}"}}, on: {done: END}}
  END: {type: final, output: {size: "${size(context.text)}"}}
"""


def growing(folder):
    async def grow(request):
        return Outcome("done", {"text": "x" * (DOCUMENT_BYTES_MAX + 10)})

    path = folder / "growing.yaml"
    path.write_text(GROWING, encoding="utf-8")
    declaration = ActionDeclaration("big.grow", ActionKind.REPEATABLE)
    catalogue = Catalogue({"big.grow": declaration})
    return setting_of(catalogue.load(path), catalogue, [{}], handlers={"big.grow": Handler(declaration, grow)})


def test_a_context_in_parts_is_joined_and_replayed(tmp_path):
    setting = growing(tmp_path)
    crash_free = play(setting, Schedule())
    head = crash_free.heads["verify-1"]

    assert head["parts"] > 2
    assert {"size": DOCUMENT_BYTES_MAX + 10} == head["snapshot"]["output"]
    assert head["parts"] - 1 == sum(key.collection == SNAPSHOT_PARTS for key in crash_free.texts)
    for text in ("", "crash@6+ by=worker", "stall@5+ by=resume"):
        assert [] == judge(crash_free, play(setting, Schedule.read(text))), text


def test_a_stale_write_that_changes_another_part_alone_is_seen():
    key = Key(RUNS, "r1")
    first = "x" * PART_CHARACTERS
    before = {"fence": 2, "worker": "w2", "claimable_at_ms": 60_000, "begun": True, "seq": 3, "snapshot": first}
    written = Set(key, {**before, "seq": 4})
    effect = Effect(1, "commit", "a step", "w1", 0)

    assert ["stale-write"] == [found.rule for found in fencing.judge("w1", 0, effect, {key: before}, [written])]
