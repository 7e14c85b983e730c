"""A failed or cancelled run starts again from the state that failed; what succeeded is kept. LEASES.md, Redrive."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import engine
from engine.core.action import Decision, Failure, Outcome
from engine.core.write import Key, Set, Update
from engine.errors import IllegalEventError, InvalidRequestError
from engine.runs.deliver import cancel, signal
from tests.runner.world import LEASE_S, World

pytestmark = pytest.mark.anyio

CHAIN = """
{A: {invoke: {action: act, with: {at: A}, assign: {a: '${result}'}}, on: {done: B}},
 B: {invoke: {action: act, with: {at: B, visits: '${visits.B}'}}, on: {done: C}, max_visits: 1, catch: {target: TIDY, assign: {error: '${error}'}}},
 C: {invoke: {action: judge, with: {at: C}}, on: {done: END, refused: NO}},
 TIDY: {invoke: {action: act, with: {at: TIDY}}, on: {done: NO}},
 END: {type: final, output: '${context.a}'}, NO: {type: final, status: FAILED, error: {code: X, message: 'no'}}}
"""


class Acting:
    """An action whose answers a test sets: by the name of the state, or by the item."""

    def __init__(self, world: World, kind: str = "repeatable") -> None:
        self.calls: list[str] = []
        self.params: list[Any] = []
        self.keys: list[str] = []
        self.answers: dict[str, Outcome | Failure] = {}

        @world.action("judge", outcomes=("done", "refused"))
        @world.action("act", kind)
        async def act(request: engine.ActionRequest) -> Outcome | Failure:
            name = request.item_key or request.params["at"]
            self.calls.append(name)
            self.keys.append(request.idempotency_key)
            self.params.append(dict(request.params))
            return self.answers.get(name, Outcome("done", f"by {name}"))


async def test_a_run_starts_again_from_the_state_whose_failure_a_catch_took() -> None:
    world = World()
    acting = Acting(world)
    acting.answers["B"] = Failure("BROKEN", "it broke")
    async with world.engine() as app:
        assert (await app.run(world.states(CHAIN), {}, run_id="r")).status == "failed"
        assert acting.calls == ["A", "B", "TIDY"]
        acting.answers.clear()
        result = await app.redrive("r")
    assert (result.status, result.output, result.error) == ("succeeded", "by A", None)
    assert acting.calls == ["A", "B", "TIDY", "B", "C"]
    assert acting.params[3]["visits"] == 1, "visits begin anew, so max_visits does not forbid it"
    assert len(set(acting.keys)) == len(acting.keys), "a redriven action is no repetition to the outside"
    world.expect_sound()


async def test_a_run_whose_failure_nothing_caught_starts_again_where_it_stood() -> None:
    world = World()
    acting = Acting(world)
    acting.answers["C"] = Failure("BROKEN", "it broke")
    async with world.engine() as app:
        await app.run(world.states(CHAIN), {}, run_id="r")
        acting.answers.clear()
        assert (await app.redrive("r")).status == "succeeded"
    assert acting.calls == ["A", "B", "C", "C"]
    world.expect_sound()


async def test_a_run_that_an_ordinary_outcome_ended_starts_again_from_the_state_that_gave_it() -> None:
    world = World()
    acting = Acting(world)
    acting.answers["C"] = Outcome("refused")
    async with world.engine() as app:
        await app.run(world.states(CHAIN), {}, run_id="r")
        assert (await app.redrive("r")).status == "failed"
        acting.answers.clear()
        assert (await app.redrive("r")).status == "succeeded"
    assert acting.calls == ["A", "B", "C", "C", "C"]
    world.expect_sound()


async def test_a_cancelled_run_starts_again_where_it_was_cancelled() -> None:
    world = World()
    Acting(world)
    program = world.states(
        "{W: {'on': {go: END}, after: {5s: B}, cancel: TIDY}, B: {invoke: {action: act, with: {at: B}}, on: {done: END}},"
        " TIDY: {invoke: {action: act, with: {at: TIDY}}, on: {done: OUT}, cancel: TIDY}, END: {type: final}, OUT: {type: final, status: CANCELLED}}"
    )
    async with world.engine() as app:
        await app.run(program, {}, run_id="r", patience_s=1)
        await cancel(app.runs, "r")
        assert (await app.resume("r")).status == "cancelled"
        assert (await app.redrive("r", patience_s=10)).status == "succeeded"
    assert [row["entry"].get("state") for row in world.journal("r") if row["entry"]["event"] == "run_redriven"] == ["W"]
    world.expect_sound()


async def test_a_state_of_the_path_may_be_named() -> None:
    world = World()
    acting = Acting(world)
    acting.answers["C"] = Failure("BROKEN", "it broke")
    async with world.engine() as app:
        await app.run(world.states(CHAIN), {}, run_id="r")
        with pytest.raises(InvalidRequestError, match="has not been in 'TIDY'"):
            await app.redrive("r", from_state="TIDY")
        with pytest.raises(InvalidRequestError, match="nothing happens there"):
            acting.answers["C"] = Outcome("refused")
            await app.redrive("r")
            await app.redrive("r", from_state="NO")
        acting.answers.clear()
        assert (await app.redrive("r", from_state="A")).status == "succeeded"
    assert acting.calls[-3:] == ["A", "B", "C"]


async def test_an_unrepeatable_action_is_reached_again_by_its_way() -> None:
    """Its unit is spent: the state that led to it takes another one."""
    world = World()
    paid = Acting(world, "unrepeatable")
    reserved: list[str] = []

    @world.action("reserve")
    async def reserve(request: engine.ActionRequest) -> Outcome:
        reserved.append(request.run_id)
        return Outcome("done")

    paid.answers["CALL"] = Failure("REFUSED", "no")
    program = world.states(
        "{RESERVE: {invoke: {action: reserve}, on: {done: CALL}},"
        " CALL: {invoke: {action: act, with: {at: CALL}}, on: {done: END, interrupted: NO}, catch: NO},"
        " END: {type: final}, NO: {type: final, status: FAILED}}"
    )
    async with world.engine() as app:
        await app.run(program, {}, run_id="r")
        with pytest.raises(IllegalEventError, match="RESERVE, which leads to it|costs something"):
            await app.redrive("r", from_state="CALL")
        paid.answers.clear()
        assert (await app.redrive("r")).status == "succeeded"
    assert (len(reserved), paid.calls) == (2, ["CALL", "CALL"])
    world.expect_sound()


@pytest.mark.parametrize("status", ["succeeded", "waiting"])
async def test_only_a_run_that_failed_or_was_cancelled_is_redriven(status: str) -> None:
    world = World()
    Acting(world)
    program = world.states("{W: {'on': {go: END}, after: {5s: END}}, END: {type: final}}")
    async with world.engine() as app:
        assert (await app.run(program, {}, run_id="r", patience_s=1 if status == "waiting" else 60)).status == status
        before = world.head("r")
        with pytest.raises(IllegalEventError):
            await app.redrive("r")
        with pytest.raises(InvalidRequestError, match="no run"):
            await app.redrive("q")
    assert world.head("r") == before


async def test_a_redrive_whose_worker_dies_is_gone_on_with() -> None:
    world = World()
    acting = Acting(world)
    acting.answers["C"] = Failure("BROKEN", "it broke")
    async with world.engine("w1") as app:
        await app.run(world.states(CHAIN), {}, run_id="r")
        acting.answers.clear()
        fence = world.head("r")["fence"]
        assert (await app.redrive("r", patience_s=None)).state == "C"
        assert (world.head("r")["fence"], world.head("r")["worker"]) == (fence + 1, None)
    world.clock.advance(LEASE_S + 1)
    async with world.engine("w2") as app:
        assert await app.work_once() == 1
    assert world.head("r")["status"] == "succeeded"
    world.expect_sound()


async def test_two_redrives_at_once_start_the_run_again_once() -> None:
    world = World()
    acting = Acting(world)
    acting.answers["C"] = Failure("BROKEN", "it broke")
    refused: list[str] = []
    async with world.engine() as app:
        await app.run(world.states(CHAIN), {}, run_id="r")
        acting.answers.clear()

        async def again() -> None:
            try:
                await app.redrive("r")
            except IllegalEventError as error:
                refused.append(error.message)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(again)
            tasks.start_soon(again)
    assert len(refused) == 1
    assert acting.calls.count("C") == 2
    world.expect_sound()


# Keys


def claiming(world: World) -> None:
    """A keyed machine's first action: it takes work that is ready."""

    def claim(request: Any, documents: Any, now: Any) -> Decision:
        key = Key.of("work", request.params["id"])
        document = documents[key] or {}
        if document.get("status") != "ready":
            return Decision(Outcome("not_ready", {"at": 0}))
        return Decision(Outcome("claimed", {"at": document["round"]}), (Update(key, {("status",): "taken"}),))

    world.action(
        "claim", "transactional", outcomes=("claimed", "not_ready"), parameters=("id",),
        documents=lambda request: [Key.of("work", request.params["id"])],
    )(claim)  # fmt: skip


KEYED = """
{READY: {invoke: {action: claim, with: {id: '${input.id}'}, assign: {at: '${result.at}'}}, on: {claimed: DO, not_ready: NOTHING}},
 DO: {invoke: {action: act, with: {at: DO}}, on: {done: END}},
 END: {type: final, output: '${context.at}'}, NOTHING: {type: final}}
"""


async def put_work(world: World, number: int) -> None:
    key = Key.of("work", "w")
    await world.store.transact([key], lambda found, now_ms: ([Set(key, {"status": "ready", "round": number})], None))


async def test_a_keyed_run_is_given_its_work_anew_or_is_not_redriven() -> None:
    world = World()
    acting = Acting(world)
    claiming(world)
    program = world.states(KEYED, key="${input.id}")
    acting.answers["DO"] = Failure("BROKEN", "it broke")
    async with world.engine() as app:
        await put_work(world, 1)
        run_id = (await app.run(program, {"id": "w"})).run_id
        before = world.head(run_id)
        with pytest.raises(IllegalEventError, match="not given its work again: claim answered 'not_ready'"):
            await app.redrive(run_id)
        assert (world.head(run_id), acting.calls) == (before, ["DO"])
        await put_work(world, 2)
        acting.answers.clear()
        assert (await app.redrive(run_id)).output == 2
    assert world.documents("work")["w"]["status"] == "taken"
    world.expect_sound()


async def test_only_the_newest_generation_of_a_key_is_redriven() -> None:
    world = World()
    acting = Acting(world)
    claiming(world)
    program = world.states(KEYED, key="${input.id}")
    acting.answers["DO"] = Failure("BROKEN", "it broke")
    async with world.engine() as app:
        runs = []
        for number in (1, 2):
            await put_work(world, number)
            runs.append((await app.run(program, {"id": "w"})).run_id)
        await put_work(world, 3)
        with pytest.raises(IllegalEventError, match=f"not the newest of its key; that is {runs[1]}"):
            await app.redrive(runs[0])
    assert world.documents("work")["w"]["status"] == "ready"


# Maps


def mapping(world: World, items: int, guard: str = "context.all.all(i, i.status == 'succeeded')") -> Any:
    world.states(
        "{C: {invoke: {action: act, with: {at: x}}, on: {done: OK}}, OK: {type: final, output: fine}}", "child"
    )
    states = (
        "{M: {map: {machine: child, items: '${input.items}', key: '${item}', concurrency: 3, assign: {all: '${result.items}'}},"
        ' on: {done: [{guard: "GUARD", target: END}, {target: NO}]}},'
        " END: {type: final, output: '${size(context.all)}'}, NO: {type: final, status: FAILED}}"
    ).replace("GUARD", guard)
    return world.states(states, "parent"), {"items": [f"i{number}" for number in range(items)]}


async def test_a_redriven_map_keeps_the_items_that_succeeded() -> None:
    world = World()
    acting = Acting(world)
    program, value = mapping(world, 7)
    broken = {f"i{number}": Failure("BROKEN", "it broke") for number in (1, 4, 5)}
    acting.answers |= broken
    async with world.engine() as app:
        assert (await app.run(program, value, run_id="p")).status == "failed"
        acting.calls.clear()
        del acting.answers["i4"]
        assert (await app.redrive("p")).status == "failed"
        assert sorted(acting.calls) == ["i1", "i4", "i5"]
        acting.calls.clear()
        acting.answers.clear()
        result = await app.redrive("p")
        assert (result.status, result.output, sorted(acting.calls)) == ("succeeded", 7, ["i1", "i5"])
        assert [item["key"] for item in (await app.runs.get("p")).snapshot.context["all"]] == value["items"]
    world.expect_sound()


async def test_an_item_is_not_redriven_by_itself() -> None:
    world = World()
    acting = Acting(world)
    program, value = mapping(world, 2)
    acting.answers["i1"] = Failure("BROKEN", "it broke")
    async with world.engine() as app:
        await app.run(program, value, run_id="p")
        with pytest.raises(IllegalEventError, match="is an item of a map of run p") as caught:
            await app.redrive("p~M~1~i1")
    assert "Redrive the run p" in caught.value.remedy


async def test_a_map_of_ten_thousand_items_is_redriven_for_the_few_that_failed() -> None:
    world = World()
    acting = Acting(world)
    program, value = mapping(
        world, 10_000, "context.all[17].status == 'succeeded' && context.all[9999].status == 'succeeded'"
    )  # fmt: skip
    acting.answers |= {f"i{number}": Failure("BROKEN", "it broke") for number in (17, 9_999)}
    async with world.engine() as app:
        assert (await app.run(program, value, run_id="p")).status == "failed"
        acting.calls.clear()
        acting.answers.clear()
        assert (await app.redrive("p")).output == 10_000
    assert acting.calls == ["i17", "i9999"]


async def test_a_run_whose_items_are_under_way_is_not_redriven_yet() -> None:
    world = World()
    acting = Acting(world)
    world.states(
        "{C: {invoke: {action: act, with: {at: x}}, on: {done: OK}, cancel: C}, OK: {type: final}}", "child"
    )  # fmt: skip
    program = world.states(
        "{M: {map: {machine: child, items: ['a'], key: '${item}', concurrency: 1}, on: {done: END}}, END: {type: final}}", "parent"
    )  # fmt: skip
    async with world.engine() as app:
        await app.start(program, {}, run_id="p")
        await cancel(app.runs, "p")
        taken = await app.runs.claim("p")
        assert taken.head.snapshot.status == "cancelled"
        with pytest.raises(IllegalEventError, match="still under way"):
            await app.redrive("p")
        await app.work_once()
        assert acting.calls == ["a"]
        assert (await app.redrive("p")).status == "succeeded"
    assert acting.calls == ["a"]
    world.expect_sound()


async def test_a_run_one_of_whose_items_waits_for_a_signal_is_not_redriven_beside_it() -> None:
    world = World()
    acting = Acting(world)
    world.states(
        "{W: {'on': {go: C}, cancel: W}, C: {invoke: {action: act, with: {at: x}}, on: {done: OK}}, OK: {type: final}}", "child"
    )  # fmt: skip
    program = world.states(
        "{M: {map: {machine: child, items: ['a'], key: '${item}', concurrency: 1}, on: {done: END}}, END: {type: final}}", "parent"
    )  # fmt: skip
    async with world.engine() as app:
        await app.run(program, {}, run_id="p", patience_s=1)
        await cancel(app.runs, "p")
        assert (await app.resume("p")).status == "cancelled"
        with pytest.raises(IllegalEventError, match="still wait for a signal"):
            await app.redrive("p")
        await signal(app.runs, "p~M~1~a", "go", None, "1")
        await app.work_once()  # the cancel, which it does not take where it waits, is taken in the next state
        assert (world.head("p~M~1~a")["status"], acting.calls) == ("cancelled", [])
        assert (await app.redrive("p", patience_s=1)).status == "running"
        await signal(app.runs, "p~M~2~a", "go", None, "2")
        assert (await app.resume("p")).status == "succeeded"
    assert acting.calls == ["a"]
    world.expect_sound()


# Signals that waited when the run ended

EARLY = "{A: {invoke: {action: act, with: {at: A}}, on: {done: W}}, W: {'on': {go: END}}, END: {type: final}}"


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_signal_that_was_accepted_is_taken_after_the_run_ended_and_was_redriven(*, is_cancelled: bool) -> None:
    """It was dropped with the end, and its id had been used: the run waited for ever."""
    world = World()
    acting = Acting(world)
    acting.answers["A"] = Failure("BROKEN", "it broke")
    async with world.engine() as app:
        await app.start(world.states(EARLY), {}, run_id="r")
        await signal(app.runs, "r", "go", None, "g1")
        if is_cancelled:
            await cancel(app.runs, "r")
        assert (await app.resume("r")).status == ("cancelled" if is_cancelled else "failed")
        head = await app.runs.get("r")
        assert [message.id for message in head.inbox] == ["g1"], "the signal alone"
        assert (head.has_ended, head.claimable_at_ms, world.observer.remarks) == (True, None, [])
        assert await app.work_once(patience_s=0) == 0
        acting.answers.clear()
        result = await app.redrive("r")
    assert (result.status, "inbox" in world.head("r")) == ("succeeded", False)
    world.expect_sound()


async def test_a_redrive_into_the_state_that_takes_a_kept_signal_leaves_the_run_claimable_at_once() -> None:
    world = World()
    program = world.states(
        "{U: {'on': {go: V}}, V: {'on': {stop: NO, go: END}}, END: {type: final}, NO: {type: final, status: FAILED}}"
    )
    async with world.engine() as app:
        await app.run(program, {}, run_id="r", patience_s=0)
        for number, name in enumerate(("go", "stop", "go")):
            await signal(app.runs, "r", name, None, f"s{number}")
        assert (await app.resume("r")).state == "NO"
        redriven = await app.redrive("r", patience_s=None)
        assert (redriven.state, world.head("r")["claimable_at_ms"]) == ("V", world.clock.now_ms())
        assert (await app.resume("r")).status == "succeeded"
    world.expect_sound()


async def test_a_run_that_succeeded_drops_the_signals_that_no_state_took_and_says_so() -> None:
    world = World()
    Acting(world)
    program = world.states(
        "{A: {invoke: {action: judge, with: {at: A}}, on: {done: END, refused: W}}, W: {'on': {go: END}}, END: {type: final}}"
    )
    async with world.engine() as app:
        await app.start(program, {}, run_id="r")
        await signal(app.runs, "r", "go", None, "g1")
        assert (await app.resume("r")).status == "succeeded"
    assert (world.observer.remarks, "inbox" in world.head("r")) == (["signal_dropped"], False)
    world.expect_sound()


async def test_an_item_of_a_map_that_failed_drops_its_signals_since_it_is_not_redriven_by_itself() -> None:
    world = World()
    acting = Acting(world)
    acting.answers["a"] = Failure("BROKEN", "it broke")
    world.states(EARLY, "child")
    program = world.states(
        "{M: {map: {machine: child, items: ['a'], key: '${item}'}, on: {done: END}}, END: {type: final}}", "parent"
    )
    async with world.engine() as app:
        await app.start(program, {}, run_id="p")
        await signal(app.runs, "p~M~1~a", "go", None, "g1")
        await app.resume("p")
    child = world.head("p~M~1~a")
    assert (child["status"], "inbox" in child, world.observer.remarks) == ("failed", False, ["signal_dropped"])
