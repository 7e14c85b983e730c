"""The fence law under any interleaving: of two workers over one run, one commit for each seq, under a fence that grows."""

from __future__ import annotations

from typing import Any

import anyio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.core.action import Decision, Outcome
from engine.core.effect import Perform
from engine.core.event import ActionReturned
from engine.core.write import Key, Set
from engine.errors import CommitUncertainError, IllegalEventError, LeaseLostError
from engine.runs import Claim, Committed, FirstAction, start
from tests.runner.world import LEASE_S, World

LOOP = """
{A: {max_visits: 500, invoke: {action: act}, on: {done: {target: B}, interrupted: A}},
 B: {max_visits: 500, invoke: {action: count}, on: {done: [{guard: "visits.B < 400", target: A}, {target: END}]}},
 END: {type: final}}
"""
COUNT = Key("flow", "count")
WORKERS = st.sampled_from(["w1", "w2"])


class TwoWorkers(RuleBasedStateMachine):
    """Each worker holds what it believes to hold, and does with it what it likes, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.clock._automatic = False
        self.claims: dict[str, Claim] = {}
        self.fences: list[int] = []
        self.counted = 0

    def with_engine(self, worker: str, work: Any) -> Any:
        async def inside() -> Any:
            async with self.world.engine(worker) as app:
                return await work(app)

        return anyio.run(inside)

    @initialize()
    def begin(self) -> None:
        self.world.action("act", "unrepeatable")(lambda request: Outcome("done"))
        self.world.action("count", "transactional", documents=lambda request: [COUNT])(lambda *given: None)
        program = self.world.states(LOOP)
        first = FirstAction(lambda *given: (), lambda *given: Decision(Outcome("done")))

        async def work(app: Any) -> Any:
            return await start(app.runs, program, {}, "r", first, self.world.clock.now_ms())

        self.claims["w1"] = self.with_engine("w1", work).committed.claim

    def do(self, worker: str, work: Any, fate: str) -> Any:
        """A verb of a worker's, whose commit may be applied or not without its being told."""

        async def uncertain(keys: Any) -> None:
            self.world.store.before = self.world.store.after = None
            raise CommitUncertainError("who knows")

        if fate != "told":
            setattr(self.world.store, "after" if fate == "applied" else "before", uncertain)
        try:
            return self.with_engine(worker, work)
        except LeaseLostError:
            self.claims.pop(worker, None)
            return None
        except IllegalEventError:
            return None  # its own claim, of a state that takes another event: nothing was written
        finally:
            self.world.store.before = self.world.store.after = None

    @rule(worker=WORKERS, fate=st.sampled_from(["told", "applied", "lost"]))
    def claim(self, worker: str, fate: str) -> None:
        taken = self.do(worker, lambda app: app.runs.claim("r"), fate)
        if isinstance(taken, Committed) and taken.claim is not None:
            self.claims[worker] = taken.claim

    @rule(worker=WORKERS, fate=st.sampled_from(["told", "applied", "lost"]), goes_on=st.booleans())
    def finish_what_it_holds(self, worker: str, fate: str, *, goes_on: bool) -> None:
        claim = self.claims.get(worker)
        if claim is None or not isinstance(claim.effect, Perform):
            return

        async def work(app: Any) -> Any:
            app._serve_under(goes_on=goes_on)
            if claim.effect.action == "act":
                return await app.runs.commit(claim, ActionReturned(self.world.clock.now_ms(), "done", {}))
            return await app.runs.decide(claim, [COUNT], self.one_more)

        committed = self.do(worker, work, fate)
        if committed is not None:
            self.counted += claim.effect.action == "count"
            # A worker that forgets what it did, and does it again, is a stale one too.
            self.claims[worker] = committed.claim or claim

    @staticmethod
    def one_more(found: Any, now_ms: int) -> Decision:
        return Decision(Outcome("done", {}), (Set(COUNT, {"n": (found[COUNT] or {"n": 0})["n"] + 1}),))

    @rule(worker=WORKERS, fate=st.sampled_from(["told", "applied"]))
    def renew(self, worker: str, fate: str) -> None:
        if (claim := self.claims.get(worker)) is not None:
            renewed = self.do(worker, lambda app: app.runs.renew(claim), fate)
            self.claims[worker] = renewed or claim

    @rule(worker=WORKERS)
    def rest(self, worker: str) -> None:
        if (claim := self.claims.get(worker)) is not None:
            self.do(worker, lambda app: app.runs.rest(claim), "told")

    @rule(seconds=st.sampled_from([1, LEASE_S / 2, LEASE_S, LEASE_S + 1]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @rule()
    def a_clock_is_wrong(self) -> None:
        self.world.clock.jump_back(5)

    @invariant()
    def each_step_was_committed_once(self) -> None:
        if "runs" not in {key.collection for key in self.world.memory._texts}:
            return
        self.world.expect_sound()
        head = self.world.head("r")
        self.fences.append(head["fence"])
        assert self.fences == sorted(self.fences)
        steps = [row["entry"] for row in self.world.journal("r")]
        done = self.world.documents("flow").get("count", {"n": 0})["n"]
        assert done == self.counted, "the document counts what the commits have told"
        assert sum(1 for step in steps if step["event"] == "action_returned") == head["seq"] - 1


TestTwoWorkers = TwoWorkers.TestCase
TestTwoWorkers.settings = settings(max_examples=40, stateful_step_count=25, deadline=None, derandomize=True)
