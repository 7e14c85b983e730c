"""How runs begin: by id, by key, by a key that only the first action knows; joined, begun anew, or not at all."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from engine.core import bounds
from engine.core.action import Decision, Outcome, Remark
from engine.core.write import Check, Create, Key, Set
from engine.errors import InvalidRequestError
from tests.runner.world import LEASE_S, Stalling, World, dies_in

pytestmark = pytest.mark.anyio

PLAIN = "{A: {invoke: {action: act}, on: {done: END}}, END: {type: final, output: '${input}'}}"
CLAIM = """
{A: {invoke: {action: claim, with: {id: '${input.id}'}, assign: {step: '${result.step}'}}, on: {done: B, nothing: NONE}},
 B: {invoke: {action: act}, on: {done: END}}, END: {type: final}, NONE: {type: final}}
"""


def performing(world: World) -> list[str]:
    calls: list[str] = []

    @world.action("act")
    async def act(request: Any) -> Outcome:
        calls.append(request.run_id)
        return Outcome("done")

    return calls


def claiming(world: World) -> None:
    """A first action that claims `flow/<id>` while it is READY, and finds out the key of the work."""

    @world.action(
        "claim",
        "transactional",
        outcomes=("done", "nothing"),
        documents=lambda request: [Key("flow", request.params["id"])],
    )
    def claim(request: Any, found: Any, now: Any) -> Decision:
        (key,) = [key for key in found if key.collection == "flow"]
        if found[key] is None or found[key]["status"] != "READY":
            return Decision(Outcome("nothing", {"step": None}), (Check(key),), (Remark("nothing_to_do"),))
        return Decision(Outcome("done", {"step": found[key]["step"]}), (Set(key, {**found[key], "status": "RUNNING"}),))


async def put(world: World, name: str, **fields: Any) -> None:
    key = Key("flow", name)
    await world.memory.transact([key], lambda found, now: ([Set(key, fields)], None))


# By id


async def test_a_start_under_an_id_joins_the_run_that_has_it() -> None:
    world = World()
    calls = performing(world)
    program = world.states(PLAIN)
    async with world.engine() as app:
        first = await app.run(program, {"n": 1}, run_id="r")
        again = await app.run(program, {"n": 1}, run_id="r")
    assert (first.status, first.is_unchanged, again.status, again.is_unchanged) == (
        "succeeded",
        False,
        "succeeded",
        True,
    )
    assert calls == ["r"]


async def test_an_id_belongs_to_one_machine_and_one_input() -> None:
    world = World()
    performing(world)
    program, other = world.states(PLAIN), world.states(PLAIN, "other")
    async with world.engine() as app:
        await app.run(program, {"n": 1}, run_id="r")
        for machine, value in ((program, {"n": 1.0}), (other, {"n": 1})):
            with pytest.raises(InvalidRequestError, match="another machine or another input"):
                await app.run(machine, value, run_id="r")
    assert len(world.documents("runs")) == 1


@pytest.mark.parametrize(
    "value", [{"n": "text"}, {"n": float("nan")}, {"n": object()}, {"n": 1, "m": "\ud800"}, {1: 2}, [[]] * 3]
)
async def test_an_input_that_the_machine_does_not_take_leaves_no_record(value: Any) -> None:
    world = World()
    performing(world)
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    async with world.engine() as app:
        with pytest.raises(InvalidRequestError, match="cannot take this input"):
            await app.run(world.states(PLAIN, input=schema), value, run_id="r")
    assert world.memory._texts == {}


@pytest.mark.parametrize("run_id", ["", "a/b", ".", "__x__", "x" * 1501])
async def test_an_id_that_no_store_can_hold_is_refused(run_id: str) -> None:
    world = World()
    performing(world)
    async with world.engine() as app:
        with pytest.raises(InvalidRequestError, match="cannot be used"):
            await app.run(world.states(PLAIN), {}, run_id=run_id)
    assert world.documents("runs") == {}


async def test_twenty_starts_at_once_do_the_work_once() -> None:
    world = World()
    calls = performing(world)
    program = world.states(PLAIN)

    async def begin(name: str) -> None:
        async with world.engine(name) as app:
            await app.run(program, {}, run_id="r", patience_s=0)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(begin, f"w{number}")
    assert (calls, world.head("r")["status"], world.head("r")["fence"]) == (["r"], "succeeded", 1)


# By key


async def test_a_key_admits_one_unfinished_run_and_then_opens_a_generation() -> None:
    world = World()
    stalling = Stalling()

    @world.action("act")
    async def act(request: Any) -> Outcome:
        await stalling.reach(request)
        return Outcome("done")

    program = world.states(PLAIN, key="${input.k}")
    async with world.engine("w1") as app:
        await dies_in(world, stalling, lambda: app.run(program, {"k": "a/b~c"}))
    async with world.engine("w2") as app:
        assert (await app.run(program, {"k": "a/b~c"})).held_by == "w1"
        world.clock.advance(LEASE_S)
        joined = await app.run(program, {"k": "a/b~c"})
        anew = await app.run(program, {"k": "a/b~c"})
        other = await app.run(program, {"k": "other"})
    ids = [result.run_id for result in (joined, anew, other)]
    assert ids == ["small~a%2Fb%7Ec~1", "small~a%2Fb%7Ec~2", "small~other~1"]
    assert {result.status for result in (joined, anew, other)} == {"succeeded"}
    assert sorted(world.documents("runs")) == sorted(ids)
    world.expect_sound()


async def test_a_machine_with_a_key_names_its_runs_itself() -> None:
    world = World()
    performing(world)
    async with world.engine() as app:
        with pytest.raises(InvalidRequestError, match="named by it"):
            await app.run(world.states(PLAIN, key="${input.k}"), {"k": "a"}, run_id="r")
        with pytest.raises(InvalidRequestError, match="no value"):
            await app.run(world.states(PLAIN, key="${input.k}"), {})


@pytest.mark.parametrize("more", [-1, 0, 1])
async def test_characters_of_a_runs_key(more: int) -> None:
    world = World()
    performing(world)
    program = world.states(PLAIN, key="${input.k}")
    value = {"k": "k" * (bounds.KEY_CHARS_MAX + more)}
    async with world.engine() as app:
        if more > 0:
            with pytest.raises(InvalidRequestError, match="may have 1024"):
                await app.run(program, value)
        else:
            assert (await app.run(program, value)).status == "succeeded"


async def test_the_claim_of_the_work_and_the_record_of_the_run_are_one_commit() -> None:
    """The key is one that only the first action knows."""
    world = World()
    claiming(world)
    calls = performing(world)
    await put(world, "f", status="READY", step="s1")
    program = world.states(CLAIM, key="${context.step}")
    async with world.engine() as app:
        result = await app.run(program, {"id": "f"})
    assert (result.run_id, result.status, calls) == ("small~s1~1", "succeeded", ["small~s1~1"])
    assert world.documents("flow")["f"]["status"] == "RUNNING"
    first, second = world.journal(result.run_id)[:2]
    assert first["token"] == second["token"]
    world.expect_sound()


@pytest.mark.parametrize("key", ["${input.id}", "${context.step}"])
async def test_a_start_that_finds_nothing_to_do_leaves_no_record(key: str) -> None:
    world = World()
    claiming(world)
    performing(world)
    program = world.states(CLAIM, key=key)
    async with world.engine() as app:
        result = await app.run(program, {"id": "f"})
        assert (result.state, result.was_recorded, result.is_unchanged) == ("NONE", False, True)
        assert world.observer.remarks == ["nothing_to_do"]
        assert {collection for collection, _ in world.memory._texts} == {"definitions"}
        await put(world, "f", status="READY", step="s1")
        assert (await app.run(program, {"id": "f"})).status == "succeeded", "nothing stands in the way of a later start"


async def test_many_keyed_starts_claim_the_work_once() -> None:
    """In the disturbing mode: another client changes what the starts have read and not guarded."""
    world = World()
    claiming(world)
    calls = performing(world)
    await put(world, "f", status="READY", step="s1")
    program = world.states(CLAIM, key="${input.id}")
    results: list[Any] = []

    async def begin(name: str) -> None:
        async with world.engine(name) as app:
            results.append(await app.run(program, {"id": "f"}, patience_s=0))

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(begin, f"w{number}")
    assert len(calls) == 1
    assert sorted(world.documents("runs")) == ["small~f~1"]
    world.expect_sound()


async def test_nothing_to_do_is_answered_of_what_was_guarded() -> None:
    """The work becomes ready between the decide and its commit: the start sees it, for it checked what it rests on."""
    world = World()
    claiming(world)
    performing(world)
    await put(world, "f", status="WAITING", step="s1")
    seen: list[int] = []

    def disturb(documents: Any, writes: Any) -> list[Any]:
        if Key("flow", "f") not in documents or seen:
            return []
        seen.append(1)
        return [Set(Key("flow", "f"), {"status": "READY", "step": "s1"})]

    world.memory._disturb = disturb
    async with world.engine() as app:
        assert (await app.run(world.states(CLAIM, key="${input.id}"), {"id": "f"})).status == "succeeded"
    assert seen


async def test_a_first_action_whose_write_cannot_be_made_is_recorded_as_its_failure() -> None:
    world = World()
    performing(world)
    await put(world, "f", status="READY")

    @world.action("claim", "transactional", outcomes=("done", "nothing"), documents=lambda request: [Key("flow", "f")])
    def claim(request: Any, found: Any, now: Any) -> Decision:
        return Decision(Outcome("done", {"step": 1}), (Create(Key("flow", "f"), {}),))

    async with world.engine() as app:
        result = await app.run(world.states(CLAIM, key="${input.id}"), {"id": "f"})
    assert (result.status, result.error["code"], world.documents("flow")["f"]) == (
        "failed",
        "INTERNAL",
        {"status": "READY"},
    )


async def test_a_first_action_that_was_refused_writes_nothing() -> None:
    world = World()
    performing(world)
    await put(world, "f", status="READY")

    @world.action("claim", "transactional", outcomes=("done", "nothing"), documents=lambda request: [Key("flow", "f")])
    def claim(request: Any, found: Any, now: Any) -> Decision:
        return Decision(Outcome("done", {"step": "x" * 5_000_000}), (Set(Key("flow", "f"), {"status": "RUNNING"}),))

    async with world.engine() as app:
        result = await app.run(world.states(CLAIM, key="${input.id}"), {"id": "f"})
    assert result.error["code"] == "CONTEXT_TOO_LARGE"
    assert world.documents("flow")["f"]["status"] == "READY"


# Definitions


async def test_a_run_goes_on_with_the_definition_that_it_began_with() -> None:
    world = World()
    stalling = Stalling()

    @world.action("act")
    async def act(request: Any) -> Outcome:
        await stalling.reach(request)
        return Outcome("done")

    old = world.states(PLAIN.replace("'${input}'", "old"))
    async with world.engine("w1") as app:
        await dies_in(world, stalling, lambda: app.run(old, {}, run_id="r"))
    world.clock.advance(LEASE_S)
    changed = world.states(PLAIN.replace("'${input}'", "new"))
    async with world.engine("w2") as app:
        assert (await app.run(changed, {}, run_id="r")).output == "old"
        assert (await app.run(changed, {}, run_id="r2")).output == "new"
    assert len(world.documents("definitions")) == 2
