"""Documents that somebody has written over, or that a restore left behind: told by name, refused, and in nobody's way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

import engine
from engine.core import canonical
from engine.core.action import Outcome
from engine.core.write import Key
from engine.errors import DocumentUnreadableError, StoreDamagedError, WriteRefusedError
from engine.runs import Head
from engine.runs.reading import _shape, flaw
from engine.runs.records import PART_CHARACTERS, Tally, definition_key, entry_key, head_key
from tests.runner.world import World

pytestmark = pytest.mark.anyio

WAITS = "{W: {on: {go: A}, after: {1s: A}}, A: {invoke: {action: act}, on: {done: END}}, END: {type: final}}"

Edit = Callable[[dict[str, Any]], object]


def edit(world: World, key: Key, change: Edit) -> None:
    """Write over a document, as a hand does."""
    document: Any = canonical.decode(world.memory._texts[key])
    change(document)
    world.memory._texts[key] = canonical.encode(document)


def in_snapshot(change: Edit) -> Edit:
    def changed(head: dict[str, Any]) -> None:
        snapshot: Any = canonical.decode(head["snapshot"])
        change(snapshot)
        head["snapshot"] = canonical.encode(snapshot)

    return changed


def quick(world: World) -> list[str]:
    calls: list[str] = []

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Outcome:
        calls.append(request.run_id)
        return Outcome("done")

    return calls


async def begun(world: World, *run_ids: str) -> list[str]:
    """Runs that are due in a second; answers who will have called the action."""
    calls = quick(world)
    program = world.states(WAITS)
    async with world.engine("door") as door:
        for run_id in run_ids:
            await door.start(program, {"word": "hush-hush"}, run_id=run_id)
            world.clock.advance(0.001)
    return calls


def keep_when(head: dict[str, Any]) -> None:
    when = head["claimable_at_ms"]
    head.clear()
    head["claimable_at_ms"] = when


HEADS: dict[str, tuple[Edit, str]] = {
    "nothing but its instant": (keep_when, "its field run_id is missing"),
    "no snapshot": (lambda head: head.pop("snapshot"), "its field snapshot is missing"),
    "no JSON": (lambda head: head.update(snapshot="hush-hush"), "its field snapshot is not JSON: "),
    "no map": (lambda head: head.update(snapshot="[]"), "its snapshot should be a map, and is a list"),
    "a fence of words": (lambda head: head.update(fence="hush-hush"), "its field fence should be an integer"),
    "created some day": (lambda head: head.update(created_at_ms="x"), "created_at_ms should be an integer"),
    "a place of words": (lambda head: head.update(place="x"), "place should be a map or null, and is a text"),
    "half a place": (lambda head: head.update(place={"parent": "x"}), "its field place.state is missing"),
    "an inbox of words": (lambda head: head.update(inbox=["x"]), r"inbox\[0\] should be a map, and is a text"),
    "unknown mail": (lambda head: head.update(inbox=[{"kind": "x"}]), r"inbox\[0\].kind is neither"),
    "left maps of words": (lambda head: head.update(leaving={"x": 1}), "leaving should be a list, and is a map"),
    "parts without number": (lambda head: head.update(parts="x"), "parts should be an integer from 1"),
    "parts without end": (lambda head: head.update(parts=10**12), "parts should be an integer from 1"),
    "no visits": (in_snapshot(lambda one: one.pop("visits")), "snapshot.visits is missing"),
    "a newer field": (in_snapshot(lambda one: one.update(x=1)), "snapshot.x is nothing that this release knows"),
    "no status": (in_snapshot(lambda one: one.update(status="hush-hush")), "snapshot.status is none of pending,"),
    "timers of words": (in_snapshot(lambda one: one.update(timers={"a": "b"})), "snapshot.timers should hold"),
    "a digest of maps": (in_snapshot(lambda one: one.update(digest={})), "snapshot.digest should be a text"),
    "another's snapshot": (in_snapshot(lambda one: one.update(run_id="x")), "its snapshot is that of another run"),
}


NEEDED = [name for name in HEADS if name != "created some day"]
"""What keeps a worker from a run: it reads no more than it needs, and nothing twice."""


@pytest.mark.parametrize("name", HEADS)
async def test_a_run_that_cannot_be_read_does_not_hide_the_others(name: str) -> None:
    change, expected = HEADS[name]
    world = World()
    await begun(world, "one", "bad", "two")
    edit(world, head_key("bad"), change)
    async with world.engine() as app:
        listed = await app.runs.newest(50)
    assert [one.run_id for one in listed if isinstance(one, Head)] == ["two", "one"]
    (error,) = (one for one in listed if not isinstance(one, Head))
    assert error.message.startswith("the document runs/bad cannot be read: ")
    with pytest.raises(DocumentUnreadableError, match=expected):
        raise error
    assert "hush-hush" not in str(error)


@pytest.mark.parametrize("name", HEADS)
async def test_every_verb_on_such_a_run_says_what_is_wrong_with_it(name: str) -> None:
    change, expected = HEADS[name]
    world = World()
    calls = await begun(world, "bad")
    edit(world, head_key("bad"), change)
    async with world.engine() as app:
        verbs: list[Callable[[], Any]] = [
            lambda: app.runs.get("bad"), lambda: app.resume("bad"), lambda: app.cancel("bad"), lambda: app.signal("bad", "go"), lambda: app.redrive("bad"),
        ]  # fmt: skip
        for verb in verbs:
            with pytest.raises(DocumentUnreadableError, match=expected) as raised:
                await verb()
            assert "hush-hush" not in str(raised.value)
            assert "detent replay bad" in raised.value.remedy
    assert calls == []


@pytest.mark.parametrize("name", NEEDED)
async def test_a_worker_refuses_such_a_run_once_and_drives_the_others(name: str) -> None:
    """It was retried every second, as if the store were away, until the patience was over."""
    world = World()
    calls = await begun(world, "one", "bad", "two")
    edit(world, head_key("bad"), HEADS[name][0])
    world.clock.advance(1)
    began_ms = world.clock.now_ms()
    async with world.engine() as app:
        assert await app.work_once() == 2
    assert sorted(calls) == ["one", "two"]
    assert [(one["run_id"], one["code"]) for one in world.observer.named("run_not_taken")] == [
        ("bad", "DOCUMENT_UNREADABLE")
    ]
    assert not world.observer.named("store_away")
    assert world.clock.now_ms() - began_ms < 2_000


async def test_a_serving_worker_says_it_once_a_minute_and_goes_on() -> None:
    world = World()
    calls = await begun(world, "one", "bad")
    edit(world, head_key("bad"), HEADS["no JSON"][0])
    stop = anyio.Event()
    async with world.engine() as app, anyio.create_task_group() as tasks:
        tasks.start_soon(app.work, stop)
        await world.clock.sleep(50)
        stop.set()
    assert calls == ["one"]
    assert len(world.observer.named("run_not_taken")) == 1


async def test_a_text_that_is_no_document_is_refused_like_any_other() -> None:
    world = World()
    calls = await begun(world, "one", "bad")
    world.memory._texts[head_key("bad")] = "{half of it"
    world.clock.advance(1)
    async with world.engine() as app:
        assert await app.work_once() == 1
        with pytest.raises(DocumentUnreadableError, match="runs/bad"):
            await app.resume("bad")
        listed = await app.runs.newest(50)
    assert calls == ["one"]
    assert {type(one) for one in listed} == {Head, DocumentUnreadableError}


async def test_a_run_in_a_state_that_its_machine_does_not_have_is_refused() -> None:
    world = World()
    await begun(world, "bad")
    edit(world, head_key("bad"), in_snapshot(lambda one: one.update(state="NOWHERE")))
    world.clock.advance(1)
    async with world.engine() as app:
        for verb in (lambda: app.resume("bad"), lambda: app.cancel("bad"), lambda: app.signal("bad", "go")):
            with pytest.raises(DocumentUnreadableError, match="state is no state of small"):
                await verb()
        assert await app.work_once() == 0


async def test_a_run_that_was_mended_goes_on() -> None:
    world = World()
    calls = await begun(world, "bad")
    kept = world.memory._texts[head_key("bad")]
    edit(world, head_key("bad"), HEADS["no snapshot"][0])
    async with world.engine() as app:
        with pytest.raises(DocumentUnreadableError):
            await app.resume("bad")
        world.memory._texts[head_key("bad")] = kept
        assert (await app.resume("bad")).status == "succeeded"
    assert calls == ["bad"]
    world.expect_sound()


# What lies beside the head

ENTRIES: dict[str, tuple[Edit, str]] = {
    "no entry": (lambda one: one.pop("entry"), "its field entry is missing"),
    "no JSON": (lambda one: one.update(entry="x"), "its field entry is not JSON"),
    "no event": (lambda one: one.update(entry='{"event":"x"}'), "no event that this release knows"),
    "no instant": (lambda one: one.update(entry='{"event":"run_started","input":1}'), "entry.at_ms is missing"),
}


@pytest.mark.parametrize("name", [*ENTRIES, "lost"])
async def test_a_journal_entry_that_cannot_be_read_is_named(name: str) -> None:
    world = World()
    await begun(world, "bad")
    key = entry_key("bad", 1)
    change, expected = ENTRIES.get(name, (None, "it is missing, and others need it"))
    if change is None:
        del world.memory._texts[key]
    else:
        edit(world, key, change)
    async with world.engine() as app:
        with pytest.raises(DocumentUnreadableError, match=f"journal/bad~00000001 cannot be read: .*{expected}"):
            await app.runs.journal("bad")


async def test_the_lost_part_of_a_large_snapshot_is_told_and_not_looked_for_for_ever() -> None:
    """Whoever found it missing read again, since a step could have come between the two reads."""
    world = World()
    await begun(world)
    async with world.engine() as app:
        app._goes_on = False
        await app.run(world.states(WAITS), {"text": "x" * PART_CHARACTERS}, run_id="bad", patience_s=0)
        del world.memory._texts[next(key for key in world.memory._texts if key.collection == "snapshot_parts")]
        with anyio.fail_after(30):
            for verb in (lambda: app.runs.get("bad"), lambda: app.runs.claim("bad"), lambda: app.cancel("bad")):
                with pytest.raises(DocumentUnreadableError, match="part 1 of its snapshot is missing"):
                    await verb()


DEFINITIONS: dict[str, tuple[Edit, str]] = {
    "no source": (lambda one: one.pop("source"), "its field source is missing"),
    "no JSON": (lambda one: one.update(source="x"), "its field source is not JSON"),
    "children of words": (lambda one: one.update(children="x"), "children should be a map, and is a text"),
}


@pytest.mark.parametrize("name", DEFINITIONS)
async def test_a_definition_that_cannot_be_read_is_named_and_keeps_nobody_else(name: str) -> None:
    change, expected = DEFINITIONS[name]
    world = World()
    calls = await begun(world, "bad")
    program = world.states(WAITS, "other")
    async with world.engine("door") as door:
        await door.start(program, {}, run_id="good")
    digest = world.head("bad")["digest"]
    edit(world, definition_key(digest), change)
    async with world.engine() as app:
        with pytest.raises(DocumentUnreadableError, match=f"definitions/{digest} cannot be read: .*{expected}"):
            await app.resume("bad")
        await app.work_once()
    assert calls == ["good"]


ONE = "{A: {invoke: {action: act}, on: {done: END}}, END: {type: final}}"
MAP = """
{M: {map: {machine: child, items: '${input.items}', key: '${string(item)}', concurrency: 2}, on: {done: END}},
 END: {type: final}}
"""


def mapping(world: World) -> Any:
    quick(world)
    world.states(ONE, "child")
    return world.states(MAP, "parent")


MAPS: dict[str, tuple[str, Edit, str]] = {
    "a tally without lanes": ("maps", lambda one: one.pop("lanes_open"), "its field lanes_open is missing"),
    "a tally of words": ("maps", lambda one: one.update(lanes_open="x"), "lanes_open should be an integer"),
    "items without keys": ("map_items", lambda one: one.update(items="[1]"), "its items should be lists"),
    "items that are no JSON": ("map_items", lambda one: one.update(items="x"), "its field items is not JSON"),
}


@pytest.mark.parametrize("name", MAPS)
async def test_a_map_whose_record_cannot_be_read_lets_its_parent_go_and_drives_the_others(name: str) -> None:
    """The lease was waited for, and the map counted again, for as long as anybody drove the store."""
    collection, change, expected = MAPS[name]
    world = World()
    program = mapping(world)
    other = world.states(ONE, "other")
    async with world.engine("door") as door:
        await door.start(program, {"items": [1, 2, 3]}, run_id="p")
        await door.start(other, {}, run_id="good")
    edit(world, next(key for key in world.memory._texts if key.collection == collection), change)
    async with world.engine() as app:
        await app.work_once()
    assert world.head("good")["status"] == "succeeded"
    troubles = [one for name, one in world.observer.troubles if name in ("run_let_go", "run_not_taken")]
    assert troubles
    assert {one["code"] for one in troubles} == {"DOCUMENT_UNREADABLE"}
    assert len(troubles) == len({one["run_id"] for one in troubles})
    with pytest.raises(DocumentUnreadableError, match=expected):
        key = next(key for key in world.memory._texts if key.collection == collection)
        raise DocumentUnreadableError("x", flaw(key, canonical.decode(world.memory._texts[key])))  # type: ignore[arg-type]


async def test_a_head_that_is_older_than_its_journal_is_refused() -> None:
    """Half a restore: the entry of the next step is there already. It was asked for each second, as an outage."""
    world = World()
    calls = await begun(world, "bad")
    old = world.memory._texts[head_key("bad")]
    async with world.engine("w1") as app:
        assert (await app.resume("bad")).status == "succeeded"
    world.memory._texts[head_key("bad")] = old
    calls.clear()
    world.clock.advance(1)
    async with world.engine("w2") as app:
        with pytest.raises(WriteRefusedError):
            await app.resume("bad", patience_s=600)
    assert calls == []


# The store's own damage


async def test_a_damaged_store_is_not_waited_for() -> None:
    world = World()
    await begun(world, "one")
    world.store.read_trouble = lambda: StoreDamagedError("the file is damaged.")
    began_ms = world.clock.now_ms()
    async with world.engine() as app:
        for verb in (lambda: app.work_once(), lambda: app.resume("one"), lambda: app.work(anyio.Event())):
            with pytest.raises(StoreDamagedError):
                await verb()
    assert world.clock.now_ms() - began_ms < 1_000
    assert not world.observer.named("store_away")
    assert len(world.observer.named("store_damaged")) == 1


async def test_a_run_whose_commit_meets_damage_is_let_go_once() -> None:
    world = World()
    calls = await begun(world, "one")
    world.clock.advance(1)

    async def before(keys: Any) -> None:
        if calls:
            raise StoreDamagedError("the file is damaged.")

    world.store.before = before
    async with world.engine() as app:
        with pytest.raises(StoreDamagedError):
            await app.resume("one", patience_s=600)
    assert calls == ["one"]
    assert len(world.observer.named("run_let_go")) == 1


# The error itself


async def test_a_mistake_of_a_decide_is_not_laid_to_the_documents() -> None:
    world = World()
    await begun(world, "one")

    def decide(documents: Any, now_ms: int, token: str) -> Any:
        raise TypeError("mine")

    async with world.engine() as app:
        with pytest.raises(TypeError, match="mine"):
            await app.runs.transact([head_key("one")], decide)


async def test_everything_that_is_written_is_of_the_shape_that_reading_expects() -> None:
    """Of a parent with a map and its children, from start to end."""
    world = World()
    program = mapping(world)
    async with world.engine() as app:
        assert (await app.run(program, {"items": [1, 2, 3]}, run_id="p")).status == "succeeded"
        await app.start(world.states(WAITS, "waits"), {}, run_id="w")
        await app.signal("w", "go", {"n": 1}, signal_id="s-1")
        await app.cancel("w", "why not")
    found = {key: flaw(key, canonical.decode(text)) for key, text in world.memory._texts.items()}  # type: ignore[arg-type]
    assert {key.collection for key in found} >= {"runs", "journal", "maps", "map_items", "signals", "definitions"}
    assert {key: problem for key, problem in found.items() if problem} == {}


def test_the_shape_of_a_document_is_that_of_its_value() -> None:
    """Derived from annotations: as texts they would all be taken for anything."""
    assert _shape(Tally)["items"] == (int,)
    assert _shape(Tally)["min_success"] == (int, type(None))
