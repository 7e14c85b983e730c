"""What LEASES.md says aloud about bad cases: effects near the end of a lease, stale answers, commits of unknown fate."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

import engine
from engine.core import bounds
from engine.core.action import Decision, Outcome
from engine.core.event import ActionReturned
from engine.core.write import Key, Set
from engine.errors import CommitUncertainError, LeaseLostError, StoreUnavailableError
from engine.runs import Committed, Held
from tests.runner.world import LEASE_S, Stalling, World, dies_in

pytestmark = pytest.mark.anyio

ONE = "{A: {invoke: {action: act}, on: {done: END}}, END: {type: final}}"
PAID = "{A: {invoke: {action: act}, on: {done: END, interrupted: LOST}}, END: {type: final}, LOST: {type: final, status: FAILED}}"
TWICE = """
{A: {invoke: {action: act}, on: {done: B, interrupted: B}}, B: {invoke: {action: act}, on: {done: END, interrupted: END}},
 END: {type: final}}
"""


def stalling(world: World, kind: str = "repeatable") -> Stalling:
    found = Stalling()

    @world.action("act", kind)
    async def act(request: engine.ActionRequest) -> Outcome:
        await found.reach(request)
        return Outcome("done")

    return found


async def abandoned(world: World, kind: str = "repeatable") -> Stalling:
    """A run `r` whose worker w1 has died in its action."""
    found = stalling(world, kind)
    program = world.states(PAID if kind == "unrepeatable" else ONE)
    async with world.engine("w1") as app:
        await dies_in(world, found, lambda: app.run(program, {}, run_id="r"))
    return found


async def test_renewals_and_commits_of_a_run_never_overlap() -> None:
    world = World()
    inside = 0

    async def enter(keys: Any) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        await anyio.lowlevel.checkpoint()

    async def leave(keys: Any) -> None:
        nonlocal inside
        inside -= 1

    @world.action("act")
    async def act(request: engine.ActionRequest) -> Outcome:
        await world.clock.sleep(4 * LEASE_S - 1)
        return Outcome("done")

    program = world.states(ONE)
    async with world.engine() as app:
        world.store.before, world.store.after = enter, leave
        assert (await app.run(program, {}, run_id="r")).status == "succeeded"
    assert world.head("r")["fence"] == 1


@pytest.mark.parametrize(("more_ms", "renewals"), [(-1, 0), (0, 1), (1, 1)])
async def test_within_the_margin_of_a_lease_no_effect_starts_before_it_is_renewed(more_ms: int, renewals: int) -> None:
    world = World()
    stalling(world).is_stalling = False
    program = world.states(ONE)
    margin_s = min(LEASE_S / 6, bounds.SKEW_MARGIN_S_MAX)
    commits: list[Any] = []

    async def slowly(keys: Any) -> None:
        commits.append(keys)
        if len(commits) == 2:  # the first keeps the definition, the second starts the run
            world.clock.advance(LEASE_S - margin_s + more_ms / 1000)

    async with world.engine() as app:
        world.store.after = slowly
        assert (await app.run(program, {}, run_id="r")).status == "succeeded"
    assert len(commits) == 3 + renewals


@pytest.mark.parametrize("is_taken", [False, True])
async def test_a_commit_that_took_its_time_is_confirmed_before_an_effect_starts(*, is_taken: bool) -> None:
    """Found by itself: the answer to the beginning commit came after the lease, and the paid call was made all the same."""
    world = World()
    calls: list[str] = []

    @world.action("act", "unrepeatable")
    async def act(request: engine.ActionRequest) -> Outcome:
        calls.append(request.state)
        return Outcome("done")

    program = world.states(PAID)
    async with world.engine("w1") as app, world.engine("w2") as other:

        async def slowly(keys: Any) -> None:
            if keys[0].collection == "runs":  # the commit that starts the run
                world.store.after = None
                world.clock.advance(LEASE_S + 1)
                if is_taken:
                    await other.runs.claim("r")

        world.store.after = slowly
        await app.run(program, {}, run_id="r", patience_s=0)
    assert calls == ([] if is_taken else ["A"])
    world.expect_sound()


@pytest.mark.parametrize("kind", ["repeatable", "unrepeatable"])
async def test_an_action_that_nobody_has_begun_is_performed(kind: str) -> None:
    """A worker that is stopping commits at rest; whoever takes the run performs its action, also a paid one."""
    world = World()
    found = stalling(world, kind)
    found.is_stalling = False
    async with world.engine("w1") as app:
        app._serve_under(goes_on=False)
        assert (
            await app.run(world.states(PAID if kind == "unrepeatable" else ONE), {}, run_id="r")
        ).status == "running"
    assert (world.head("r")["worker"], world.head("r")["begun"], found.keys) == (None, False, [])
    async with world.engine("w2") as app:
        assert (await app.resume("r")).status == "succeeded"
    assert len(found.keys) == 1


async def test_a_decide_that_stands_still_is_made_again_by_the_next_worker_and_counts_once() -> None:
    world = World()
    key = Key("flow", "count")
    stalled = anyio.Event()

    @world.action("first")
    async def first(request: Any) -> Outcome:
        return Outcome("done")

    @world.action("act", "transactional", documents=lambda request: [key])
    def act(request: Any, found: Any, now: Any) -> Decision:
        return Decision(Outcome("done"), (Set(key, {"n": (found[key] or {"n": 0})["n"] + 1}),))

    async def stall(keys: Any) -> None:
        if key in keys:
            stalled.set()
            await anyio.Event().wait()

    states = (
        "{B: {invoke: {action: first}, on: {done: A}}, A: {invoke: {action: act}, on: {done: END}}, END: {type: final}}"
    )
    program = world.states(states)
    world.store.before = stall
    async with world.engine("w1") as app, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: app.run(program, {}, run_id="r"))
        await stalled.wait()
        world.store.is_cut = True
        tasks.cancel_scope.cancel()
    world.store.before, world.store.is_cut = None, False
    assert (world.head("r")["state"], world.head("r")["begun"]) == ("A", True)
    world.clock.advance(LEASE_S)
    async with world.engine("w2") as app:
        assert (await app.resume("r")).status == "succeeded"
    assert world.documents("flow") == {"count": {"n": 1}}
    world.expect_sound()


async def test_a_stale_worker_decides_nothing() -> None:
    world = World()
    await abandoned(world)
    world.clock.advance(LEASE_S)
    key = Key("flow", "f")
    async with world.engine("w2") as slow, world.engine("w3") as fast:
        old = await slow.runs.claim("r")
        world.clock.advance(LEASE_S)
        new = await fast.runs.claim("r")
        assert isinstance(old, Committed)
        assert isinstance(new, Committed)
        before = dict(world.memory._texts)
        with pytest.raises(LeaseLostError, match="w3"):
            await slow.runs.decide(
                old.claim, [key], lambda found, now: Decision(Outcome("done"), (Set(key, {"x": 1}),))
            )
        assert world.memory._texts == before
        assert (await fast.runs.commit(new.claim, ActionReturned(world.clock.now_ms(), "done", {}))).head.is_final
        assert isinstance(await slow.runs.claim("r"), Held)
    world.expect_sound()


async def test_renewal_never_moves_an_expiry_back() -> None:
    """A clock that jumps back makes a lease look longer, never shorter."""
    world = World()
    await abandoned(world)
    world.clock.advance(LEASE_S)
    async with world.engine("w2") as app:
        taken = await app.runs.claim("r")
        assert isinstance(taken, Committed)
        until = world.head("r")["claimable_at_ms"]
        world.clock.jump_back(30)
        await app.runs.renew(taken.claim)
    assert world.head("r")["claimable_at_ms"] == until


# Commits of unknown fate


@pytest.mark.parametrize("is_applied", [True, False])
@pytest.mark.parametrize("fails_at", range(1, 4))
@pytest.mark.parametrize("then_away", [0, 3])
async def test_a_commit_of_unknown_fate_is_settled_also_when_the_store_is_away_afterwards(
    *, is_applied: bool, fails_at: int, then_away: int
) -> None:
    """Found by itself: a token was forgotten when the store was away, and the worker's own commit looked like another's."""
    world = World()
    calls: list[str] = []
    count = away = 0

    @world.action("act", "unrepeatable")
    async def act(request: engine.ActionRequest) -> Outcome:
        calls.append(request.state)
        return Outcome("done")

    def trouble(keys: Any) -> None:
        nonlocal count, away
        if "runs" in {key.collection for key in keys}:
            count += 1
            if count == fails_at:
                away = then_away
                raise CommitUncertainError("who knows")

    async def before(keys: Any) -> None:
        nonlocal away
        if away:
            away -= 1
            raise StoreUnavailableError("away")
        if not is_applied:
            trouble(keys)

    async def after(keys: Any) -> None:
        if is_applied:
            trouble(keys)

    program = world.states(TWICE)
    async with world.engine() as app:
        world.store.before, world.store.after = before, after
        while True:
            try:
                result = await app.run(program, {}, run_id="r")
            except StoreUnavailableError:
                continue  # as a caller does it who is told that the store is away
            break
    assert (result.status, calls) == ("succeeded", ["A", "B"])
    assert [row["seq"] for row in world.journal("r")] == [1, 2, 3]
    world.expect_sound()


@pytest.mark.parametrize("is_applied", [True, False])
async def test_a_claim_of_unknown_fate_is_settled_by_the_token_in_the_head(*, is_applied: bool) -> None:
    """Found by itself: the claim was waited out like another worker's, and its paid call then given up as interrupted."""
    world = World()
    found = stalling(world, "unrepeatable")
    found.is_stalling = False
    program = world.states(PAID)
    async with world.engine("w1") as app:
        app._serve_under(goes_on=False)
        await app.run(program, {}, run_id="r")
    began = world.clock.now_ms()

    async def once(keys: Any) -> None:
        world.store.before = world.store.after = None
        raise CommitUncertainError("who knows")

    async with world.engine("w2") as app:
        await app.runs.definitions.machine(program.digest)
        setattr(world.store, "after" if is_applied else "before", once)
        assert (await app.resume("r")).status == "succeeded"
    assert (len(found.keys), world.head("r")["fence"], world.clock.now_ms()) == (1, 2, began)


async def test_a_handlers_document_with_a_token_of_its_own_is_no_journal_entry() -> None:
    """Found by itself: any document's field `token` was looked up among the engine's own."""
    world = World()
    key = Key("flow", "f")
    await world.memory.transact([key], lambda found, now: ([Set(key, {"token": ["of", "theirs"]})], None))

    @world.action("act", "transactional", documents=lambda request: [key])
    def act(request: Any, found: Any, now: Any) -> Decision:
        return Decision(Outcome("done"))

    async def uncertain(keys: Any) -> None:
        if key in keys:
            world.store.after = None
            raise CommitUncertainError("who knows")

    world.store.after = uncertain
    async with world.engine() as app:
        assert (await app.run(world.states(ONE), {}, run_id="r")).status == "succeeded"


@pytest.mark.parametrize("kind", ["repeatable", "unrepeatable"])
async def test_a_worker_that_is_stopped_before_it_heard_of_its_commit_lets_go_of_the_run(kind: str) -> None:
    """Found by verification: it presented the claim of the step before, and the run waited out its lease."""
    world = World()
    calls: list[str] = []
    unheard = anyio.Event()

    @world.action("act", kind)
    async def act(request: engine.ActionRequest) -> Outcome:
        calls.append(request.state)
        return Outcome("done")

    async def hold_back(keys: Any) -> None:
        if world.documents("runs") and world.head("r")["seq"] == 2:  # the commit after the one that starts the run
            world.store.after = None
            unheard.set()
            await anyio.sleep_forever()

    program = world.states(
        TWICE if kind == "unrepeatable" else TWICE.replace(", interrupted: B", "").replace(", interrupted: END", "")
    )
    world.store.after = hold_back
    began = world.clock.now_ms()
    async with world.engine("w1") as app, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: app.run(program, {}, run_id="r"))
        await unheard.wait()
        tasks.cancel_scope.cancel()
    head = world.head("r")
    assert (head["worker"], head["begun"], head["claimable_at_ms"]) == (None, False, began)
    assert world.observer.troubles == []
    async with world.engine("w2") as app:
        assert (await app.resume("r")).status == "succeeded"
    assert (calls, world.clock.now_ms()) == (["A", "B"], began)
    world.expect_sound()
