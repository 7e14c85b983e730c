"""Signals and cancels: delivered once, taken where they fit, never in the owner's way. LEASES.md, The inbox."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import engine
from engine.core import bounds
from engine.core.action import Outcome
from engine.errors import CommitUncertainError, IllegalEventError, InvalidRequestError
from engine.runs import Committed
from engine.runs.deliver import cancel, signal
from tests.runner.world import LEASE_S, Stalling, World, dies_in

pytestmark = pytest.mark.anyio

WAITS = """
{ASKING: {'on': {approve: {target: ACTING, guard: 'result.by != "nobody"', assign: {by: '${result.by}'}}, reject: OUT},
          after: {1h: LATE}},
 ACTING: {invoke: {action: act}, on: {done: AGAIN}},
 AGAIN: {'on': {approve: END}},
 END: {type: final, output: '${context.by}'}, OUT: {type: final, status: FAILED}, LATE: {type: final, status: FAILED}}
"""
CALLS = """
{A: {invoke: {action: act}, on: {done: B, interrupted: B}, cancel: TIDY}, B: {invoke: {action: act}, on: {done: END, interrupted: END}, cancel: TIDY},
 TIDY: {invoke: {action: tidy, with: {why: '${context}'}}, on: {done: OUT}, cancel: TIDY},
 END: {type: final}, OUT: {type: final, status: CANCELLED}}
"""

REPEATED = CALLS.replace(", interrupted: B", "").replace(", interrupted: END", "")


def acting(world: World, kind: str = "repeatable") -> Stalling:
    found = Stalling()

    @world.action("act", kind)
    async def act(request: engine.ActionRequest) -> Outcome:
        await found.reach(request)
        return Outcome("done")

    @world.action("tidy")
    async def tidy(request: engine.ActionRequest) -> Outcome:
        return Outcome("done")

    return found


async def waiting(world: World, app: Any) -> None:
    """A run `r` that waits in ASKING."""
    acting(world).is_stalling = False
    result = await app.run(world.states(WAITS), {}, run_id="r", patience_s=1)
    assert (result.state, result.status) == ("ASKING", "waiting")


# Signals


async def test_a_signal_moves_a_waiting_run_and_the_same_id_again_changes_nothing() -> None:
    world = World()
    async with world.engine() as app:
        await waiting(world, app)
        sent = await signal(app.runs, "r", "approve", {"by": "ann"}, "s1")
        again = await signal(app.runs, "r", "approve", {"by": "ann"}, "s1")
        assert (sent.is_new, sent.is_due, again.is_new) == (True, True, False)
        assert (await app.resume("r", patience_s=1)).state == "AGAIN"
        after = await signal(app.runs, "r", "approve", {"by": "ann"}, "s1")
        assert (after.is_new, (await app.resume("r", patience_s=1)).state) == (False, "AGAIN")
        await signal(app.runs, "r", "approve", {"by": "ben"}, "s2")
        assert (await app.resume("r")).output == "ann"
        late = await signal(app.runs, "r", "approve", {"by": "ann"}, "s1")
        assert late.is_new is False
    assert "inbox" not in world.head("r")
    world.expect_sound()


async def test_a_signal_that_comes_early_waits_until_a_state_waits_for_it() -> None:
    world = World()
    stalling = acting(world)
    program = world.states("{A: {invoke: {action: act}, on: {done: W}}, W: {'on': {go: END}}, END: {type: final}}")
    async with world.engine() as app:

        async def send_meanwhile() -> None:
            await stalling.begun.wait()
            sent = await signal(app.runs, "r", "go", None, "early")
            assert (sent.is_new, sent.is_due, sent.head.worker) == (True, False, "w1")
            stalling.go_on.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_meanwhile)
            assert (await app.run(program, {}, run_id="r")).status == "succeeded"
    assert [row["entry"]["event"] for row in world.journal("r")] == [
        "run_started",
        "action_returned",
        "signal_received",
    ]
    world.expect_sound()


async def test_signals_are_taken_in_the_order_in_which_they_came() -> None:
    world = World()
    program = world.states(
        "{A: {'on': {go: {target: B, assign: {a: '${result}'}}}}, B: {'on': {go: {target: END, assign: {b: '${result}'}}}},"
        " END: {type: final, output: '${context}'}}"
    )
    async with world.engine() as app:
        await app.run(program, {}, run_id="r", patience_s=1)
        for number in (1, 2):
            await signal(app.runs, "r", "go", number, f"s{number}")
        assert (await app.resume("r")).output == {"a": 1, "b": 2}


async def test_a_signal_that_came_before_a_timer_was_due_goes_before_it() -> None:
    world = World()
    async with world.engine() as app:
        await waiting(world, app)
        await signal(app.runs, "r", "reject", None, "s1")
        world.clock.advance(2 * 3600)  # no worker was there when the timer fell due
        assert (await app.resume("r")).state == "OUT"


async def test_a_timer_that_was_due_before_a_signal_came_goes_before_it() -> None:
    world = World()
    async with world.engine() as app:
        await waiting(world, app)
        world.clock.advance(2 * 3600)
        await signal(app.runs, "r", "reject", None, "s1")
        assert (await app.resume("r")).state == "LATE"


async def test_a_signal_that_no_guard_lets_through_is_refused_and_its_id_stays_free() -> None:
    world = World()
    async with world.engine() as app:
        await waiting(world, app)
        with pytest.raises(IllegalEventError, match="guard that holds"):
            await signal(app.runs, "r", "approve", {"by": "nobody"}, "s1")
        assert (await signal(app.runs, "r", "approve", {"by": "ann"}, "s1")).is_new
        assert (await app.resume("r", patience_s=1)).state == "AGAIN"


async def test_a_signal_that_no_guard_lets_through_when_its_state_comes_is_dropped_and_said() -> None:
    """It was sent early, so nobody could tell; the run waits on, for ever if need be."""
    world = World()
    stalling = acting(world)
    program = world.states(
        "{A: {invoke: {action: act}, on: {done: W}}, W: {'on': {go: {target: END, guard: result > 1}}}, END: {type: final}}"
    )
    async with world.engine() as app:

        async def send_meanwhile() -> None:
            await stalling.begun.wait()
            await signal(app.runs, "r", "go", 1, "s1")
            stalling.go_on.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_meanwhile)
            result = await app.run(program, {}, run_id="r", patience_s=1)
        assert (result.state, result.status) == ("W", "waiting")
        assert world.observer.remarks == ["signal_dropped"]
        assert (world.head("r").get("inbox"), world.head("r")["claimable_at_ms"]) == (None, None)
        await signal(app.runs, "r", "go", 2, "s2")
        assert (await app.resume("r")).status == "succeeded"
    world.expect_sound()


@pytest.mark.parametrize(
    ("name", "value", "signal_id", "said"),
    [
        ("aprove", None, "s", "no state of small waits for a signal 'aprove'"),
        ("approve", None, "", "printable"),
        ("approve", None, "a\nb", "printable"),
        ("approve", None, "x" * (bounds.KEY_CHARS_MAX + 1), "printable"),
        ("approve", "\ud800", "s", "surrogate"),
        ("approve", "a\0b", "s", "NUL"),
        ("approve", float("nan"), "s", "JSON"),
        ("approve", "x" * (bounds.SIGNAL_BYTES_MAX - 1), "s", "bytes"),
    ],
)
async def test_a_signal_that_cannot_be_kept_is_refused(name: str, value: Any, signal_id: str, said: str) -> None:
    world = World()
    async with world.engine() as app:
        await waiting(world, app)
        before = world.head("r")
        with pytest.raises(InvalidRequestError, match=said):
            await signal(app.runs, "r", name, value, signal_id)
        assert (world.head("r"), world.documents("signals")) == (before, {})


async def test_the_largest_signal_with_the_longest_id_arrives() -> None:
    world = World()
    program = world.states("{W: {'on': {go: {target: END, assign: {it: '${result}'}}}}, END: {type: final}}")
    largest = "x" * (bounds.SIGNAL_BYTES_MAX - 2)
    async with world.engine() as app:
        await app.run(program, {}, run_id="r", patience_s=1)
        await signal(app.runs, "r", "go", largest, "/" * bounds.KEY_CHARS_MAX)
        assert (await app.resume("r")).status == "succeeded"
        assert (await app.runs.get("r")).snapshot.context["it"] == largest


async def test_an_id_is_for_one_signal() -> None:
    world = World()
    async with world.engine() as app:
        await waiting(world, app)
        await signal(app.runs, "r", "approve", {"by": "ann"}, "s1")
        with pytest.raises(InvalidRequestError, match="another signal"):
            await signal(app.runs, "r", "approve", {"by": "ben"}, "s1")
        with pytest.raises(InvalidRequestError, match="no run"):
            await signal(app.runs, "q", "approve", None, "s1")


async def test_an_inbox_holds_its_bound_and_a_cancel_besides() -> None:
    world = World()
    stalling = acting(world)
    program = world.states("{A: {invoke: {action: act}, on: {done: W}}, W: {'on': {go: END}}, END: {type: final}}")
    async with world.engine() as app:
        await dies_in(world, stalling, lambda: app.run(program, {}, run_id="r"))
        for number in range(bounds.INBOX_MAX - 1):
            await signal(app.runs, "r", "go", None, f"s{number}")
        assert (await signal(app.runs, "r", "go", None, "last")).is_new
        with pytest.raises(IllegalEventError, match=f"{bounds.INBOX_MAX} signals"):
            await signal(app.runs, "r", "go", None, "one too many")
        assert (await cancel(app.runs, "r")).is_new


async def test_a_full_inbox_lets_the_signal_in_for_which_the_run_waits() -> None:
    """Or those that came too early would keep it waiting for ever."""
    world = World()
    program = world.states("{FIRST: {'on': {free: W}}, W: {'on': {go: END}}, END: {type: final}}")
    async with world.engine() as app:
        await app.run(program, {}, run_id="r", patience_s=1)
        for number in range(bounds.INBOX_MAX):
            await signal(app.runs, "r", "go", None, f"s{number}")
        assert (await signal(app.runs, "r", "free", None, "free")).is_due
        with pytest.raises(IllegalEventError, match=f"{bounds.INBOX_MAX} signals"):
            await signal(app.runs, "r", "free", None, "twice")
        assert (await app.resume("r", patience_s=1)).status == "succeeded"


async def test_a_signal_to_a_run_that_has_ended_is_refused() -> None:
    world = World()
    async with world.engine() as app:
        await app.run(world.states("{W: {'on': {go: END}, timeout: 1s}, END: {type: final}}"), {}, run_id="r")
        with pytest.raises(IllegalEventError, match="ended FAILED"):
            await signal(app.runs, "r", "go", None, "s1")
        with pytest.raises(IllegalEventError, match="ended FAILED"):
            await cancel(app.runs, "r")


async def test_a_signal_whose_commit_was_not_answered_is_delivered_once() -> None:
    world = World()
    async with world.engine() as app:
        await waiting(world, app)
        doubts = [CommitUncertainError("the answer got lost")]

        async def lose_the_answer(keys: Any) -> None:
            if doubts and any(key.collection == "signals" for key in keys):
                raise doubts.pop()

        world.store.after = lose_the_answer
        assert (await signal(app.runs, "r", "approve", {"by": "ann"}, "s1")).is_new
        assert len(world.head("r")["inbox"]) == 1


# Cancels


async def test_a_cancel_of_a_run_at_rest_takes_its_way_at_once() -> None:
    world = World()
    async with world.engine() as app:
        await waiting(world, app)
        sent = await cancel(app.runs, "r", "enough")
        assert (sent.is_new, sent.is_due) == (True, True)
        assert (await cancel(app.runs, "r", "more")).is_new is False
        result = await app.resume("r")
        assert (result.status, result.state, result.error["message"]) == ("cancelled", "ASKING", "enough")
    world.expect_sound()


@pytest.mark.parametrize("kind", ["repeatable", "unrepeatable"])
async def test_a_call_in_flight_is_awaited_and_recorded_before_the_cancel_is_taken(kind: str) -> None:
    world = World()
    stalling = acting(world, kind)
    async with world.engine() as app:

        async def cancel_meanwhile() -> None:
            await stalling.begun.wait()
            assert (await cancel(app.runs, "r", "enough")).is_due is False
            stalling.go_on.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_meanwhile)
            result = await app.run(world.states(CALLS if kind == "unrepeatable" else REPEATED), {}, run_id="r")
    assert (result.status, result.state, len(stalling.keys)) == ("cancelled", "OUT", 1)
    tags = [row["entry"]["event"] for row in world.journal("r")]
    assert tags == ["run_started", "action_returned", "cancel_requested", "action_returned"]
    world.expect_sound()


async def test_a_cancel_survives_renewals_of_the_owner() -> None:
    world = World()
    sent = anyio.Event()

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Outcome:
        await cancel(app.runs, "r")
        sent.set()
        await world.clock.sleep(4 * LEASE_S)
        return Outcome("done")

    @world.action("tidy")
    async def tidy(request: engine.ActionRequest) -> Outcome:
        return Outcome("done")

    async with world.engine() as app:
        assert (await app.run(world.states(REPEATED), {}, run_id="r")).state == "OUT"


async def test_the_lost_outcome_of_a_begun_call_goes_before_the_cancel() -> None:
    """Whether the call was made is not known, so nothing that the cancel's way would give back may be given back."""
    world = World()
    stalling = acting(world, "unrepeatable")
    program = world.states(CALLS)
    async with world.engine("w1") as app:
        await dies_in(world, stalling, lambda: app.run(program, {}, run_id="r"))
    async with world.engine("w2") as app:
        await cancel(app.runs, "r")
        world.clock.advance(LEASE_S + 1)
        assert (await app.resume("r")).state == "OUT"
    said = [row["entry"].get("name") for row in world.journal("r")]
    assert said == [None, "interrupted", None, "done"]
    assert len(stalling.keys) == 1
    world.expect_sound()


async def test_a_cancel_on_its_way_is_not_cancelled_again() -> None:
    world = World()
    stalling = Stalling()
    acting(world).is_stalling = False

    @world.action("stall")
    async def stall(request: engine.ActionRequest) -> Outcome:
        await stalling.reach(request)
        return Outcome("done")

    program = world.states(
        "{W: {'on': {go: END}, cancel: TIDY}, TIDY: {invoke: {action: stall}, on: {done: OUT}, cancel: TIDY},"
        " END: {type: final}, OUT: {type: final, status: CANCELLED}}"
    )
    async with world.engine() as app:
        await app.run(program, {}, run_id="r", patience_s=1)
        await cancel(app.runs, "r")
        await dies_in(world, stalling, lambda: app.resume("r"))
        with pytest.raises(IllegalEventError, match="earlier cancel"):
            await cancel(app.runs, "r")


@pytest.mark.parametrize("more", [0, 1])
async def test_a_reason_has_its_bound(more: int) -> None:
    world = World()
    async with world.engine() as app:
        await waiting(world, app)
        reason = "x" * (bounds.REASON_CHARS_MAX + more)
        if more:
            with pytest.raises(InvalidRequestError, match="reason"):
                await cancel(app.runs, "r", reason)
        else:
            assert (await cancel(app.runs, "r", reason)).is_new


async def test_a_stale_claim_of_a_cancelled_run_commits_nothing() -> None:
    world = World()
    stalling = acting(world)
    program = world.states(REPEATED)
    async with world.engine("w1") as app:
        await dies_in(world, stalling, lambda: app.run(program, {}, run_id="r"))
        await cancel(app.runs, "r")
        world.clock.advance(LEASE_S + 1)
        taken = await app.runs.claim("r")
        assert isinstance(taken, Committed)
        assert (taken.head.fence, taken.head.snapshot.state, taken.head.inbox) == (2, "TIDY", ())


# Maps


CHILD = """
{RESERVING: {invoke: {action: reserve}, on: {done: {target: CALLING, after: 50000}}, cancel: OUT},
 CALLING: {invoke: {action: call}, on: {done: END, interrupted: END}, cancel: BACK},
 BACK: {invoke: {action: give_back}, on: {done: OUT}, cancel: BACK},
 END: {type: final}, OUT: {type: final, status: CANCELLED}}
"""
PARENT = """
{M: {map: {machine: child, items: ['a', 'b', 'c', 'd'], key: '${item}', concurrency: 2}, on: {done: END}, timeout: %s, catch: LEFT, cancel: STOPPING},
 STOPPING: {invoke: {action: act}, on: {done: OUT}, cancel: STOPPING}, END: {type: final}, LEFT: {type: final, status: FAILED},
 OUT: {type: final, status: CANCELLED}}
"""


def units(world: World) -> dict[str, list[str]]:
    """Records what each child did to its unit."""
    found: dict[str, list[str]] = {"reserve": [], "call": [], "give_back": []}

    def recording(name: str, kind: str) -> None:
        @world.action(name, kind)
        async def record(request: engine.ActionRequest) -> Outcome:
            found[name].append(request.item_key or "")
            return Outcome("done")

    for name in ("reserve", "give_back"):
        recording(name, "repeatable")
    recording("call", "unrepeatable")
    return found


@pytest.mark.parametrize("way", ["cancel", "timeout"])
async def test_a_left_map_leaves_no_unit_reserved_for_a_call_that_is_not_made(way: str) -> None:
    world = World()
    acting(world).is_stalling = False
    found = units(world)
    world.states(CHILD, "child")
    program = world.states(PARENT % ("50s" if way == "timeout" else "1h"), "parent")
    async with world.engine() as app:
        assert (await app.run(program, {}, run_id="p", patience_s=20)).state == "M"
        if way == "cancel":
            await cancel(app.runs, "p")
        result = await app.resume("p", patience_s=60)
    assert result.state == ("OUT" if way == "cancel" else "LEFT")
    assert (found["call"], sorted(found["reserve"]), sorted(found["give_back"])) == ([], ["a", "b"], ["a", "b"])
    assert {head["status"] for head in world.documents("runs").values() if not head["is_root"]} == {"cancelled"}
    assert all("leaving" not in head for head in world.documents("runs").values())
    world.expect_sound()


@pytest.mark.parametrize("dies_after", [1, 2, 3])
async def test_a_crash_while_children_are_told_is_made_good_by_whoever_comes_next(dies_after: int) -> None:
    """After the parent's commit, after the children were told, after the parent's note was struck off."""
    world = World()
    acting(world).is_stalling = False
    found = units(world)
    world.states(CHILD, "child")
    program = world.states(PARENT % "1h", "parent")
    async with world.engine("w1") as app:
        await app.run(program, {}, run_id="p", patience_s=20)
        await cancel(app.runs, "p")
        commits = 0

        async def cut(keys: Any) -> None:
            nonlocal commits
            commits += 1
            world.store.is_cut = commits > dies_after

        world.store.after = cut
        with anyio.move_on_after(0.2):
            await app.resume("p")
    world.store.after, world.store.is_cut = None, False
    world.clock.advance(LEASE_S + 1)
    async with world.engine("w2") as app:
        await app.work_once()
        assert (await app.resume("p")).state == "OUT"
    assert (found["call"], sorted(set(found["give_back"]))) == ([], ["a", "b"])
    assert all(head["status"] == "cancelled" for head in world.documents("runs").values())
    world.expect_sound()


async def test_a_child_in_its_call_records_it_before_it_takes_the_cancel() -> None:
    world = World()
    stalling = acting(world, "unrepeatable")
    world.states(
        "{A: {invoke: {action: act}, on: {done: B, interrupted: B}}, B: {'on': {go: END}}, END: {type: final}}", "child"
    )
    parent = world.states(
        "{M: {map: {machine: child, items: ['a'], key: '${item}', concurrency: 1}, on: {done: END}}, END: {type: final}}", "parent"
    )  # fmt: skip
    async with world.engine() as app:

        async def cancel_meanwhile() -> None:
            await stalling.begun.wait()
            await cancel(app.runs, "p")
            while not world.documents("runs")["p~M~1~a"].get("inbox"):
                await world.clock.sleep(0.1)
            stalling.go_on.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_meanwhile)
            result = await app.run(parent, {}, run_id="p")
    assert result.status == "cancelled"
    tags = [row["entry"]["event"] for row in world.journal("p~M~1~a")]
    assert tags == ["run_started", "action_returned", "cancel_requested"]
    world.expect_sound()


SETTLING = """
{SETTLING: {invoke: {action: act}, on: {done: CALLING}, cancel: SETTLING},
 CALLING: {invoke: {action: call}, on: {done: END, interrupted: END}, cancel: TIDYING},
 TIDYING: {invoke: {action: give_back}, on: {done: OUT}, cancel: TIDYING},
 END: {type: final}, OUT: {type: final, status: CANCELLED}}
"""


async def test_an_item_that_takes_no_cancel_where_its_map_is_left_takes_it_in_the_next_state() -> None:
    """An item that noted down what an API had said went on and made its next paid call, for a run that had ended."""
    world = World()
    stalling = acting(world)
    found = units(world)
    world.states(SETTLING, "child")
    parent = world.states(
        "{M: {map: {machine: child, items: ['a'], key: '${item}', concurrency: 1}, on: {done: END}}, END: {type: final}}", "parent"
    )  # fmt: skip
    async with world.engine() as app:

        async def cancel_meanwhile() -> None:
            await stalling.begun.wait()
            await cancel(app.runs, "p")
            while world.head("p")["status"] != "cancelled" or world.head("p").get("leaving"):
                await world.clock.sleep(0.1)
            stalling.go_on.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_meanwhile)
            await app.run(parent, {}, run_id="p")
    tags = [row["entry"]["event"] for row in world.journal("p~M~1~a")]
    assert tags == ["run_started", "action_returned", "cancel_requested", "action_returned"]
    assert (found["call"], found["give_back"]) == ([], ["a"])
    world.expect_sound()


async def test_an_item_on_the_way_of_a_cancel_is_not_told_again_when_its_map_is_left() -> None:
    """The next state of that way would have been cut short."""
    world = World()
    stalling = acting(world)
    world.states(
        "{W: {'on': {go: END}, cancel: TIDYING}, TIDYING: {invoke: {action: act}, on: {done: NOTING}, cancel: TIDYING},"
        " NOTING: {invoke: {action: tidy}, on: {done: OUT}}, END: {type: final}, OUT: {type: final, status: FAILED}}",
        "child",
    )
    parent = world.states(
        "{M: {map: {machine: child, items: ['a'], key: '${item}', concurrency: 1}, on: {done: END}}, END: {type: final}}", "parent"
    )  # fmt: skip
    async with world.engine() as app:
        await app.run(parent, {}, run_id="p", patience_s=1)
        await cancel(app.runs, "p~M~1~a")

        async def cancel_meanwhile() -> None:
            await stalling.begun.wait()
            await cancel(app.runs, "p")
            while world.head("p")["status"] != "cancelled" or world.head("p").get("leaving"):
                await world.clock.sleep(0.1)
            stalling.go_on.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_meanwhile)
            await app.resume("p")
        await app.work_once()
    tags = [row["entry"]["event"] for row in world.journal("p~M~1~a")]
    assert tags == ["run_started", "cancel_requested", "action_returned", "action_returned"]
    world.expect_sound()


async def test_a_map_that_ended_by_itself_tells_nobody() -> None:
    world = World()
    acting(world).is_stalling = False
    world.states("{A: {invoke: {action: act}, on: {done: END}}, END: {type: final}}", "child")
    parent = world.states(
        "{M: {map: {machine: child, items: ['a', 'b'], key: '${item}', concurrency: 1}, on: {done: END}}, END: {type: final}}", "parent"
    )  # fmt: skip
    async with world.engine() as app:
        assert (await app.run(parent, {}, run_id="p")).status == "succeeded"
    assert "leaving" not in world.head("p")
    assert world.head("p")["claimable_at_ms"] is None


@pytest.mark.parametrize("is_taken_meanwhile", [False, True])
async def test_a_cancel_whose_answer_got_lost_is_told_as_new(is_taken_meanwhile: bool) -> None:
    world = World()
    waiting = world.states(
        "{W: {'on': {go: END}, cancel: OUT}, END: {type: final}, OUT: {type: final, status: CANCELLED}}"
    )
    async with world.engine("w1") as app, world.engine("w2") as other:
        await app.run(waiting, {}, run_id="r", patience_s=1)

        async def loses(keys: Any) -> None:
            world.store.after = None
            if is_taken_meanwhile:
                await other.work_once()
            raise CommitUncertainError("the answer got lost")

        world.store.after = loses
        delivered = await cancel(app.runs, "r")
        assert (delivered.is_new, delivered.head.is_final) == (True, is_taken_meanwhile)
        if is_taken_meanwhile:
            with pytest.raises(IllegalEventError, match="ended CANCELLED"):
                await cancel(app.runs, "r")
        else:
            assert not (await cancel(app.runs, "r")).is_new
    world.expect_sound()
