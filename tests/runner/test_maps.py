"""Maps through whole engines: lanes, results, quorums, nesting, many workers, and workers that are lost."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine
from engine.core.action import Decision, Failure, Outcome
from engine.core.write import Key, Set
from tests.runner.world import LEASE_S, Stalling, World, dies_in

pytestmark = pytest.mark.anyio

CHILD = "{A: {invoke: {action: act, with: {v: '${input}'}, assign: {v: '${result}'}}, on: {done: END}}, END: {type: final, output: '${context.v}'}}"
PARENT = """
{M: {map: {machine: child, items: '${input.items}', key: '${string(item)}', concurrency: %d,
           assign: {all: '${result.items}'}%s}, on: {done: END}%s},
 END: {type: final, output: '${context.all}'}}
"""


class Mapped:
    """A world with a map of `act` over numbers: it succeeds, fails or takes its time as `plan` says."""

    def __init__(
        self, lanes: int = 2, quorum: str = "", around: str = "", child: str = CHILD, world: World | None = None
    ) -> None:
        self.world = world or World()
        self.inside: set[Any] = set()
        self.most = 0
        self.done: list[Any] = []
        self.plan: dict[Any, Any] = {}

        @self.world.action("act")
        async def act(request: engine.ActionRequest) -> Outcome | Failure:
            number = request.params["v"]
            self.inside.add(number)
            self.most = max(self.most, len(self.inside))
            try:
                await self.world.clock.sleep(1 + number % 3)
            finally:
                self.inside.discard(number)
            self.done.append(number)
            return self.plan.get(number, Outcome("done", number * 10))

        self.world.states(child, "child")
        more = f", min_success: {quorum}" if quorum else ""
        self.program = self.world.states(PARENT % (lanes, more, around), "parent")

    async def run(self, items: list[Any], **more: Any) -> Any:
        async with self.world.engine(**more) as app:
            return await app.run(self.program, {"items": items}, run_id="r")


@given(count=st.integers(0, 9), lanes=st.integers(1, 5), failing=st.sets(st.integers(0, 8)), workers=st.integers(1, 3))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_no_more_items_than_lanes_are_ever_under_way(count: int, lanes: int, failing: set[int], workers: int) -> None:
    """Over all workers together; every item is performed once and reported in the order of the list."""
    mapped = Mapped(lanes)
    mapped.plan = {number: Failure("BAD", "bad") for number in failing}

    async def work(name: str) -> None:
        async with mapped.world.engine(name) as app:
            await app.work_once(patience_s=100)

    async def all_of_it() -> Any:
        async with mapped.world.engine("w0") as app, anyio.create_task_group() as tasks:
            for number in range(1, workers):
                tasks.start_soon(work, f"w{number}")
            await app.run(mapped.program, {"items": list(range(count))}, run_id="r", patience_s=100)
        async with mapped.world.engine("last") as app:
            return await app.resume("r")

    result = anyio.run(all_of_it)
    assert mapped.most <= lanes
    assert sorted(mapped.done) == list(range(count))
    expected = [
        (str(n), "failed" if n in failing else "succeeded", None if n in failing else n * 10) for n in range(count)
    ]
    assert [(item["key"], item["status"], item["output"]) for item in result.output] == expected
    mapped.world.expect_sound()


async def test_a_map_over_many_items_crosses_its_chunks() -> None:
    mapped = Mapped(lanes=50)
    result = await mapped.run(list(range(230)))
    assert [item["output"] for item in result.output] == [n * 10 for n in range(230)]
    assert len(mapped.world.documents("map_items")) == 3
    mapped.world.expect_sound()


async def test_children_that_end_where_they_begin_wake_their_parent() -> None:
    """Found by itself: the lane's last items ended in the commit of the one before, which had not loaded the parent."""
    mapped = Mapped(lanes=1, child="{C: {always: [{guard: 'input > 1', target: END}, {target: A}]}, " + CHILD[1:])
    began = mapped.world.clock.now_ms()
    result = await mapped.run([1, 2, 3])
    assert [item["status"] for item in result.output] == ["succeeded", "failed", "failed"]
    assert mapped.world.clock.now_ms() - began < 5_000, "woken, not found by the parent's own look"
    mapped.world.expect_sound()


async def test_a_map_whose_children_all_end_where_they_begin() -> None:
    mapped = Mapped(lanes=2, child="{C: {always: END}, END: {type: final, output: '${input}'}}")
    result = await mapped.run([1, 2, 3, 4, 5])
    assert [item["output"] for item in result.output] == [1, 2, 3, 4, 5]
    mapped.world.expect_sound()


async def test_items_against_the_childs_schema_fail_by_themselves() -> None:
    world = World()
    mapped = Mapped(world=world)
    child = world.states(CHILD, "child", input={"type": "integer", "maximum": 2})
    mapped.program = world.states(PARENT % (2, "", ""), "parent")
    assert child.input_schema
    result = await mapped.run([1, 7, 2])
    assert [(item["status"], (item["error"] or {}).get("code")) for item in result.output] == [
        ("succeeded", None), ("failed", "INPUT_INVALID"), ("succeeded", None),
    ]  # fmt: skip
    assert sorted(mapped.done) == [1, 2]


async def test_two_items_with_one_key_fail_the_map_before_anything_begins() -> None:
    mapped = Mapped()
    result = await mapped.run([1, 1])
    assert (result.status, result.error["code"], mapped.done) == ("failed", "MAP_INVALID", [])
    assert list(mapped.world.documents("runs")) == ["r"]


async def test_keys_that_look_like_other_runs_do_not_collide() -> None:
    """A key may hold the sign that parts ids; the ids of nested children would have been the same."""
    world = World()

    @world.action("act")
    async def act(request: Any) -> Outcome:
        return Outcome("done", 1)

    world.states(CHILD, "child")
    inner = "{T: {map: {machine: child, items: ['x'], key: '${item}'}, on: {done: END}}, END: {type: final}}"
    world.states(inner, "inner")
    states = "{S: {map: {machine: inner, items: ['k', 'k~T~1~x', 'k/x'], key: '${item}'}, on: {done: END}}, END: {type: final}}"
    async with world.engine() as app:
        result = await app.run(world.states(states, "parent"), {}, run_id="r")
    assert result.status == "succeeded"
    assert len(world.documents("runs")) == 7
    world.expect_sound()


# Quorums


@pytest.mark.parametrize(
    ("quorum", "failing", "statuses"),
    [
        (2, set(), ["succeeded", "succeeded", "skipped", "skipped"]), (1, {0}, ["failed", "succeeded", "skipped", "skipped"]),
        (4, {0}, ["failed", "skipped", "skipped", "skipped"]), (4, set(), ["succeeded"] * 4),
        (0, set(), ["skipped"] * 4), (5, set(), ["skipped"] * 4),
    ],
    ids=["reached", "reached after a failure", "cannot be reached any more", "reached by all", "of none", "never to be reached"],
)  # fmt: skip
async def test_a_quorum_that_is_decided_lets_no_new_item_begin(
    quorum: int, failing: set[int], statuses: list[str]
) -> None:
    mapped = Mapped(lanes=1, quorum=str(quorum))
    mapped.plan = {number: Failure("BAD", "bad") for number in failing}
    result = await mapped.run([0, 1, 2, 3])
    assert [item["status"] for item in result.output] == statuses
    assert len(mapped.done) == 4 - statuses.count("skipped")
    mapped.world.expect_sound()


async def test_items_that_have_begun_finish_though_the_quorum_is_reached() -> None:
    mapped = Mapped(lanes=3, quorum="1")
    result = await mapped.run([0, 1, 2, 3, 4])
    assert [item["status"] for item in result.output] == ["succeeded"] * 3 + ["skipped"] * 2


# Leaving a map


async def test_a_timeout_of_a_map_lets_no_new_item_begin() -> None:
    """Found by itself: the stop was only recorded when the map's document happened to be loaded."""
    around = ", timeout: 1.5, catch: {errors: [TIMEOUT], target: LATE}}, LATE: {type: final, output: late"
    mapped = Mapped(lanes=1, around=around)
    result = await mapped.run([0, 1, 2, 3])
    assert result.output == "late"
    async with mapped.world.engine("w2") as app:
        await app.work_once(patience_s=100)
    assert mapped.done == [0, 1], "the item under way finishes"
    mapped.world.expect_sound()


async def test_a_run_that_ends_in_its_map_lets_no_new_item_begin() -> None:
    mapped = Mapped(lanes=1, around=", timeout: 1.5")
    result = await mapped.run([0, 1, 2, 3])
    assert (result.status, result.error["code"]) == ("failed", "TIMEOUT")
    async with mapped.world.engine("w2") as app:
        await app.work_once(patience_s=100)
    assert mapped.done == [0, 1]


async def test_nested_maps() -> None:
    mapped = Mapped(lanes=2)
    outer = "{M: {map: {machine: parent, items: '${input.lists}', key: '${string(size(item.items))}', assign: {all: '${result.items}'}}, on: {done: END}}, END: {type: final, output: '${context.all}'}}"
    program = mapped.world.states(outer, "outer")
    async with mapped.world.engine() as app:
        result = await app.run(program, {"lists": [{"items": []}, {"items": [1]}, {"items": [2, 3]}]}, run_id="o")
    assert [[inner["output"] for inner in item["output"]] for item in result.output] == [[], [10], [20, 30]]
    assert {head["root"] for head in mapped.world.documents("runs").values()} == {"o"}
    mapped.world.expect_sound()


# Workers that come and go


async def lost_in_a_lane(world: World) -> tuple[Stalling, Any]:
    """A parent of four items on two lanes whose only worker dies in the first two."""
    stalling = Stalling()

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Outcome:
        await stalling.reach(request)
        return Outcome("done", request.params["v"])

    world.states(CHILD, "child")
    program = world.states(PARENT % (2, "", ""), "parent")
    async with world.engine("w1") as app:
        await dies_in(world, stalling, lambda: app.run(program, {"items": [1, 2, 3, 4]}, run_id="r"))
    return stalling, program


@pytest.mark.parametrize("way", ["resume", "worker", "the same start again"])
async def test_a_map_whose_worker_was_lost_is_finished_by_whoever_comes_next(way: str) -> None:
    """Found by itself: a resumed parent waited for ever for children that nobody drove."""
    world = World()
    stalling, program = await lost_in_a_lane(world)
    async with world.engine("w2") as app:
        if way == "worker":  # it waits for the lease to end; the other two are for runs that nobody holds
            assert await app.work_once(patience_s=LEASE_S) > 0
        world.clock.advance(LEASE_S)
        if way == "resume":
            await app.resume("r", patience_s=LEASE_S)
        elif way == "the same start again":
            await app.run(program, {"items": [1, 2, 3, 4]}, run_id="r", patience_s=LEASE_S)
        result = await app.resume("r")
    assert [item["output"] for item in result.output] == [1, 2, 3, 4]
    assert len(set(stalling.keys)) == 4
    world.expect_sound()


async def test_a_parent_that_nobody_wakes_is_not_waited_for_without_end() -> None:
    """Its children wait for a signal; the parent's own looks after its map are no progress."""
    mapped = Mapped(child="{W: {on: {go: END}}, END: {type: final}}")
    began = mapped.world.clock.now_ms()
    result = await mapped.run([1, 2])
    assert (result.status, result.state) == ("running", "M")
    assert mapped.world.clock.now_ms() - began <= 3 * 60_000


async def test_the_last_child_does_not_miss_a_parent_that_rests_in_that_moment() -> None:
    """What the child's commit rests on (the parent is held, so it will count for itself) is checked by it."""
    mapped = Mapped(lanes=1)
    world = mapped.world
    resting: list[bool] = []

    def disturb(documents: Any, writes: Any) -> list[Any]:
        closes = [
            write
            for write in writes
            if write.key.collection == "maps" and getattr(write, "document", {}).get("lanes_open") == 0
        ]
        parent = world.documents("runs").get("r")
        if not closes or not parent or parent["worker"] is None or resting:
            return []
        resting.append(True)
        return [Set(Key("runs", "r"), {**parent, "worker": None, "claimable_at_ms": world.clock.now_ms() + 60_000})]

    world.memory._disturb = disturb
    async with world.engine("w1") as app:
        app._serve_under(goes_on=False)
        await app.run(mapped.program, {"items": [1]}, run_id="r")
        parent = Key("runs", "r")
        await world.memory.transact(
            [parent],
            lambda found, now: (
                [Set(parent, {**found[parent], "worker": "other", "claimable_at_ms": now + 9_000_000})],
                None,
            ),
        )
        app._serve_under(goes_on=True)
        await app.work_once(patience_s=10)
    assert resting
    assert world.head("r")["status"] == "succeeded", "woken at once, not at its next look"


async def test_an_item_does_not_begin_when_its_map_is_left_in_that_moment() -> None:
    """A lane's next item rests on the map not being stopped; the tally that says so is guarded by that commit."""
    mapped = Mapped(lanes=1)
    world = mapped.world
    stopped: list[bool] = []

    def disturb(documents: Any, writes: Any) -> list[Any]:
        begins = [write for write in writes if write.key.id.startswith("r~M~1~2")]
        if not begins or stopped:
            return []
        stopped.append(True)
        of = Key("maps", "r~M~1")
        return [Set(of, {**world.documents("maps")[of.id], "is_stopped": True})]

    world.memory._disturb = disturb
    result = await mapped.run([1, 2, 3])
    assert stopped
    assert [item["status"] for item in result.output] == ["succeeded", "skipped", "skipped"]


async def test_a_decide_in_a_child_and_its_lane_are_one_commit() -> None:
    """The child's own write, its end and the start of the next item stand or fall together."""
    world = World()

    @world.action("act", "transactional", documents=lambda request: [Key("flow", str(request.params["v"]))])
    def act(request: Any, found: Any, now: Any) -> Decision:
        (key,) = found.keys() & {Key("flow", str(request.params["v"]))}
        return Decision(Outcome("done", 1), (Set(key, {"key": request.item_key}),))

    world.states(CHILD, "child")
    program = world.states(PARENT % (1, "", ""), "parent")
    async with world.engine() as app:
        result = await app.run(program, {"items": [1, 2]}, run_id="r")
    assert result.status == "succeeded"
    assert world.documents("flow") == {"1": {"key": "1"}, "2": {"key": "2"}}
    tokens = [row["token"] for row in world.documents("journal").values()]
    assert len(set(tokens)) < len(tokens), "the end of one item and the start of the next share a commit"
    world.expect_sound()


async def test_the_last_child_is_not_missed_when_the_parents_worker_is_stopped_before_it_has_counted() -> None:
    mapped = Mapped(lanes=1)
    world = mapped.world
    async with world.engine() as app:
        await app.start(mapped.program, {"items": [1]}, run_id="r")
        parent = Key("runs", "r")
        woken = lambda found, now: ([Set(parent, {**found[parent], "claimable_at_ms": now})], None)  # noqa: E731
        await world.memory.transact([parent], woken)
        held = await app.runs.claim("r")
        (child,) = [run_id for run_id in world.documents("runs") if run_id != "r"]
        await app.resume(child)
        await app.runs.release(held.claim, begun=False)
        assert world.head("r")["claimable_at_ms"] <= world.clock.now_ms()
        await app.work_once(patience_s=10)
    assert world.head("r")["status"] == "succeeded", "looked at at once, not a minute later"
