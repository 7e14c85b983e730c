"""LEASES.md, sentence by sentence: each bracketed number there is a test of that number here."""

from __future__ import annotations

import anyio
import pytest

import engine
from engine.artifacts.folder import FolderArtifacts
from engine.core.event import ActionReturned
from engine.core.write import Create, Key, Update
from engine.definition.compiler import compile_text
from engine.errors import CommitUncertainError, LeaseLostError, StoreUnavailableError
from engine.handlers.registry import Registry
from engine.runs import Committed, Held
from engine.runs.records import entry_key, head_key
from engine.store.memory import MemoryStore
from engine.testing.clock import SimulatedClock

pytestmark = pytest.mark.anyio

LEASE_S = 60
MACHINE = """
machine: one_call
initial: CALLING
states:
  CALLING:
    invoke: {action: ACTION, assign: {value: "${result}"}}
    on: {done: DONE, MORE}
    catch: [{target: LOST}]
  LOST: {type: final, status: FAILED}
  DONE: {type: final, output: "${context.value}"}
"""


class World:
    """One store and one clock, over which several workers live; and an action of each kind that can be held up."""

    def __init__(self, tmp_path, store=None):
        self.clock = SimulatedClock()
        self.store = store or MemoryStore(self.clock.now_ms)
        if store is not None:
            store._now_ms = self.clock.now_ms
        self.artifacts = FolderArtifacts(str(tmp_path / "out"), "bucket")
        self.registry = Registry(own=())
        self.begun, self.go_on = anyio.Event(), anyio.Event()
        self.performed = []

        async def call(request):
            self.performed.append(request.idempotency_key)
            self.begun.set()
            self.is_performing = True
            try:
                await self.go_on.wait()
            finally:
                self.is_performing = False
            return engine.Outcome("done", len(self.performed))

        self.registry.action("call.repeatable", kind="repeatable")(call)
        self.registry.action("call.unrepeatable", kind="unrepeatable")(call)
        counter = Key("counters", "c")
        self.registry.action("call.transactional", kind="transactional", documents=lambda request: [counter])(
            self._count
        )

    def _count(self, request, documents, now):
        key = Key("counters", "c")
        found = documents[key]
        value = 1 if found is None else found["n"] + 1
        write = Create(key, {"n": 1}) if found is None else Update(key, {("n",): value})
        return engine.Decision(engine.Outcome("done", value), (write,))

    def machine(self, kind):
        more = "interrupted: LOST" if kind == "unrepeatable" else ""
        text = MACHINE.replace("ACTION", f"call.{kind}").replace(", MORE", f", {more}" if more else "")
        machine, diagnostics = compile_text(text, "one_call.yaml", self.registry.declarations(), lambda name: None)
        assert machine is not None, diagnostics
        return machine

    def worker(self, name):
        return engine.Engine(
            store=self.store,
            artifacts=self.artifacts,
            actions=self.registry,
            clock=self.clock,
            worker=name,
            lease_s=LEASE_S,
        )

    async def die_during_the_call(self, kind):
        """A worker begins the run `r` and is gone while its action is under way."""
        async with self.worker("first") as app, anyio.create_task_group() as life:

            async def run():
                await app.run(self.machine(kind), {}, run_id="r")

            life.start_soon(run)
            await self.begun.wait()
            life.cancel_scope.cancel()
        self.go_on.set()


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def claimed(app, machine, run_id="r"):
    """A run that a worker holds, its action begun and not performed."""
    from engine.runs import start

    started = await start(app.runs, machine, {}, run_id, app._first_action(machine), app.clock.now_ms())
    app.catalogue.add(machine)
    return started.committed.claim


@pytest.mark.parametrize(("after_s", "is_taken"), [(59.999, False), (60, True), (3600, True)])
async def test_a_run_is_claimed_when_its_lease_is_over_and_not_before(world, after_s, is_taken):
    """[1]"""
    async with world.worker("first") as first, world.worker("second") as second:
        machine = world.machine("repeatable")
        await claimed(first, machine)
        second.catalogue.add(machine)
        world.clock.advance(after_s)
        taken = await second.runs.claim("r")

    assert isinstance(taken, Committed) == is_taken
    if is_taken:
        assert (taken.head.fence, taken.head.worker) == (2, "second")
    else:
        assert isinstance(taken, Held)
        assert taken.head.worker == "first"


async def test_of_many_claims_of_one_run_exactly_one_wins(world):
    """[2]"""
    machine = world.machine("repeatable")
    async with world.worker("first") as first:
        await claimed(first, machine)
    world.clock.advance(LEASE_S)
    wins = []

    async def rival(name):
        async with world.worker(name) as app:
            app.catalogue.add(machine)
            taken = await app.runs.claim("r")
            if isinstance(taken, Committed):
                wins.append(taken.head.worker)

    async with anyio.create_task_group() as rivals:
        for number in range(20):
            rivals.start_soon(rival, f"rival-{number}")

    assert len(wins) == 1


async def test_a_commit_under_a_stale_fence_writes_nothing(world):
    """[3]"""
    machine = world.machine("repeatable")
    async with world.worker("first") as first, world.worker("second") as second:
        stale = await claimed(first, machine)
        second.catalogue.add(machine)
        world.clock.advance(LEASE_S)
        await second.runs.claim("r")
        before = await world.store.get_many([head_key("r"), entry_key("r", 2)])
        for verb in (
            lambda: first.runs.commit(stale, ActionReturned(world.clock.now_ms(), "done", 1)),
            lambda: first.runs.renew(stale),
            lambda: first.runs.rest(stale),
        ):
            with pytest.raises(LeaseLostError, match="second"):
                await verb()
        after = await world.store.get_many([head_key("r"), entry_key("r", 2)])

    assert before == after


async def test_a_lease_is_renewed_while_its_action_goes_on(world):
    """[4]"""
    async with world.worker("first") as app, anyio.create_task_group() as life:
        results = []

        async def run():
            results.append(await app.run(world.machine("unrepeatable"), {}, run_id="r"))

        life.start_soon(run)
        await world.begun.wait()
        for _ in range(10):  # far longer than one lease
            await anyio.wait_all_tasks_blocked()
            world.clock.advance(LEASE_S / 3)
        await anyio.wait_all_tasks_blocked()
        head = await app.runs.get("r")
        world.go_on.set()

    assert head.claimable_at_ms - world.clock.now_ms() > LEASE_S * 1000 / 2
    assert (results[0].status, len(world.performed)) == ("succeeded", 1)


class Away(MemoryStore):
    """A store that can be away."""

    is_away = False

    async def transact(self, keys, decide):
        if self.is_away:
            raise StoreUnavailableError("the store is away.")
        return await super().transact(keys, decide)


async def test_a_worker_that_cannot_renew_gives_its_action_up_before_the_lease_ends(tmp_path):
    """[5]"""
    world = World(tmp_path, Away())
    async with world.worker("first") as app, anyio.create_task_group() as life:

        async def run():
            await app.run(world.machine("unrepeatable"), {}, run_id="r", patience_s=0)

        life.start_soon(run)
        await world.begun.wait()
        world.store.is_away = True
        gave_up_at = None
        for second in range(1, 90):
            await anyio.wait_all_tasks_blocked()
            world.clock.advance(1)
            await anyio.wait_all_tasks_blocked()
            if not world.is_performing:
                gave_up_at = second
                break
        world.store.is_away = False
        life.cancel_scope.cancel()

    assert gave_up_at is not None
    assert gave_up_at <= LEASE_S - 5


async def test_a_transactional_action_is_decided_again_and_happens_once(world):
    """[6]"""
    machine = world.machine("transactional")
    async with world.worker("first") as first:
        await claimed(first, machine)
    world.clock.advance(LEASE_S)
    async with world.worker("second") as second:
        second.catalogue.add(machine)
        result = await second.resume("r")

    assert (result.status, result.output) == ("succeeded", 1)
    assert (await world.store.get_many([Key("counters", "c")]))[Key("counters", "c")] == {"n": 1}


async def test_a_repeatable_action_is_performed_again_with_the_same_key(world):
    """[7]"""
    await world.die_during_the_call("repeatable")
    world.clock.advance(LEASE_S)
    async with world.worker("second") as second:
        second.catalogue.add(world.machine("repeatable"))
        result = await second.resume("r")

    assert (result.status, world.performed) == ("succeeded", ["r:CALLING:1", "r:CALLING:1"])


async def test_an_unrepeatable_action_that_was_begun_is_interrupted(world):
    """[8]"""
    await world.die_during_the_call("unrepeatable")
    world.clock.advance(LEASE_S)
    async with world.worker("second") as second:
        second.catalogue.add(world.machine("unrepeatable"))
        result = await second.resume("r")

    assert (result.state, len(world.performed)) == ("LOST", 1)


async def test_an_unrepeatable_action_that_was_not_begun_is_performed(world):
    """[8], the other side: a run at rest has begun nothing."""
    machine = world.machine("unrepeatable")
    async with world.worker("first") as first:
        await first.runs.rest(await claimed(first, machine))
    world.go_on.set()
    async with world.worker("second") as second:
        second.catalogue.add(machine)
        result = await second.resume("r")

    assert (result.state, len(world.performed)) == ("DONE", 1)


async def test_a_stale_worker_cannot_write_over_a_newer_manifest(world):
    """[9]"""
    from engine.artifacts.port import ABSENT
    from engine.errors import ArtifactConflictError

    first = await world.artifacts.write("m.json", b"1", content_type="application/json", expected=ABSENT)
    await world.artifacts.write("m.json", b"2", content_type="application/json", expected=first.generation)
    with pytest.raises(ArtifactConflictError):
        await world.artifacts.write("m.json", b"late", content_type="application/json", expected=first.generation)

    assert await world.artifacts.read("m.json") == b"2"


class Uncertain(MemoryStore):
    """A store that does not say whether the commits numbered in `silent` were applied; it applies those in `applied`."""

    silent: dict = {}
    commits = 0

    async def transact(self, keys, decide):
        self.commits += 1
        fate = self.silent.get(self.commits)
        if fate == "lost":
            raise CommitUncertainError("the connection broke.")
        result = await super().transact(keys, decide)
        if fate == "applied":
            raise CommitUncertainError("the connection broke.")
        return result


@pytest.mark.parametrize("fate", ["applied", "lost"])
@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("kind", ["repeatable", "transactional"])
async def test_a_commit_whose_fate_is_unknown_happens_once(tmp_path, fate, number, kind):
    """[10]"""
    store = Uncertain()
    store.silent = {number: fate}
    world = World(tmp_path, store)
    world.go_on.set()
    async with world.worker("first") as app:
        result = await app.run(world.machine(kind), {}, run_id="r", patience_s=0)
        entries = await app.runs.journal("r")

    assert (result.status, result.output, [entry.seq for entry in entries]) == ("succeeded", 1, [1, 2])


@pytest.mark.parametrize(("kind", "state", "calls"), [("repeatable", "DONE", 2), ("unrepeatable", "LOST", 1)])
async def test_a_worker_that_is_stopped_lets_go_at_once(world, kind, state, calls):
    """[11]"""
    await world.die_during_the_call(kind)  # cancelled with its store at hand: a stop, and no crash
    async with world.worker("second") as second:
        second.catalogue.add(world.machine(kind))
        result = await second.resume("r", patience_s=0)

    assert (result.state, len(world.performed)) == (state, calls)


GIVES_BACK = """
machine: gives_back
initial: PAYING
states:
  PAYING:
    invoke: {action: call.unrepeatable}
    on: {done: PAID, interrupted: LOST}
    cancel: {target: GIVING_BACK}
  GIVING_BACK:
    invoke: {action: call.transactional}
    on: {done: GIVEN_BACK}
    cancel: {target: GIVING_BACK}
  PAID: {type: final}
  LOST: {type: final, status: FAILED}
  GIVEN_BACK: {type: final, status: CANCELLED}
"""


@pytest.mark.parametrize("is_stopped", [False, True], ids=["killed", "stopped"])
async def test_a_begun_call_that_this_worker_does_not_know_keeps_the_cancel_waiting(world, is_stopped):
    """[12]: it was taken, and what the call had cost was given back."""
    found = compile_text(GIVES_BACK, "gives_back.yaml", world.registry.declarations(), lambda name: None)
    assert found.machine is not None, found.diagnostics
    async with world.worker("first") as first:
        claim = await claimed(first, found.machine)
        if is_stopped:
            await first.runs.release(claim, begun=True)
    world.clock.advance(0 if is_stopped else LEASE_S)
    known = world.registry._handlers.pop("call.unrepeatable")
    async with world.worker("second") as second:
        second.catalogue.add(found.machine)
        assert (await second.cancel("r")).is_new
        before = (await world.store.get_many([head_key("r")]))[head_key("r")]
        taken = await second.runs.claim("r")
        assert isinstance(taken, Held)
        assert taken.declined
        assert (await second.resume("r", patience_s=0)).state == "PAYING"
        assert (await world.store.get_many([head_key("r")]))[head_key("r")] == before
        world.registry._handlers["call.unrepeatable"] = known
        result = await second.resume("r")

    assert (result.state, world.performed) == ("LOST", [])
    assert (await world.store.get_many([Key("counters", "c")]))[Key("counters", "c")] is None


async def test_a_run_s_first_action_does_not_wait_under_its_lease_for_a_turn(world):
    world.go_on.set()
    async with engine.Engine(
        store=world.store, artifacts=world.artifacts, actions=world.registry, clock=world.clock, concurrency=1
    ) as app, anyio.create_task_group() as tasks:  # fmt: skip
        world.go_on = anyio.Event()
        results = []

        async def run(run_id):
            results.append(await app.run(world.machine("unrepeatable"), {}, run_id=run_id))

        tasks.start_soon(run, "a")
        tasks.start_soon(run, "b")
        await anyio.wait_all_tasks_blocked()
        assert len(world.performed) == 2
        world.go_on.set()

    assert [result.state for result in results] == ["DONE", "DONE"]


async def test_a_store_that_takes_no_writes_is_given_up_with_patience(tmp_path):
    world = World(tmp_path, Away())
    async with world.worker("first") as app:
        claim = await claimed(app, world.machine("repeatable"))
        await app.runs.rest(claim)
        world.store.is_away = True
        waiting = []

        async def resume():
            waiting.append(await app.resume("r", patience_s=3))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(resume)
            for _ in range(10):
                await anyio.wait_all_tasks_blocked()
                world.clock.advance(1)
                await anyio.wait_all_tasks_blocked()

    assert [result.is_final for result in waiting] == [False]


async def test_a_decision_that_changes_nothing_checks_what_it_read(world):
    key, checked = Key("counters", "c"), []
    world.registry.action("look", kind="transactional", documents=lambda request: [key])(
        lambda request, documents, now: engine.Decision(engine.Outcome("done", 0))
    )
    text = MACHINE.replace("ACTION", "look").replace(", MORE", "")
    machine, found = compile_text(text, "look.yaml", world.registry.declarations(), lambda name: None)
    transact = world.store.transact

    async def watched(keys, decide):
        def watching(documents, now_ms):
            writes, result = decide(documents, now_ms)
            checked.extend(write.key for write in writes)
            return writes, result

        return await transact(keys, watching)

    world.store.transact = watched
    async with world.worker("first") as app:
        assert (await app.run(machine, {}, run_id="r")).state == "DONE"

    assert key in checked


def test_each_bracketed_number_of_the_prose_is_a_test():
    import re
    from pathlib import Path

    prose = Path(__file__).parents[2] / "engine/runner/LEASES.md"
    promised = set(re.findall(r"\[(\d+)\]", prose.read_text()))
    tested = set(re.findall(r'"""\[(\d+)\]', Path(__file__).read_text()))

    assert promised == tested
