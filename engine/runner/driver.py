"""Drives one claimed run: perform what it asks for, commit what came of it, until it rests or ends.

One task does a run's actions, renewals and commits in turn, so a worker never races itself. A store outage is
no failure of the run: the driver tries again until the trust window of its lease closes, and then lets go.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import anyio

from engine.core.action import ActionKind, Decision, EngineCode, Failure
from engine.core.bounds import SKEW_MARGIN_S_MAX
from engine.core.effect import Finish, Perform, Rest, StartMap, StopMap
from engine.core.event import ActionFailed, Event, StepRefused, TimerFired
from engine.core.machine import Machine
from engine.core.write import Document, Key
from engine.errors import (
    CommitUncertainError,
    ContentionError,
    DetentError,
    LeaseLostError,
    StoreError,
    StoreUnavailableError,
    WriteRefusedError,
)
from engine.runner.clock import Clock
from engine.runner.lease import GivenUpError, Lease
from engine.runner.observer import Observer
from engine.runner.perform import Performer
from engine.runs import RELEASE_S_MAX, Claim, Committed, Head, Held, Runs

Result = TypeVar("Result")

OUTAGE_DELAY_S_MAX: Final = 5.0
"""Longest pause between two tries on a store that is away."""


logger: Final = logging.getLogger("detent.runner")

AWAY: Final = (StoreUnavailableError, CommitUncertainError, ContentionError)
"""What passes with time; any other error of a store would come again."""

Wake: TypeAlias = Callable[[str, int], None]
"""Told of each run that a commit made claimable, with its instant in ms."""


class Driven(NamedTuple):
    """How many events were taken, and the head that was committed last; none when the run was lost or let go of.

    `refused`: a run that was let go of for what would come again, and that error.
    """

    events: int
    last: Head | None
    refused: tuple[str, StoreError] | None = None


class Driver:
    """See the module. Shared by every run of one worker."""

    def __init__(self, runs: Runs, performer: Performer, clock: Clock, observer: Observer, lease_s: float) -> None:
        self._runs = runs
        self._performer = performer
        self._clock = clock
        self._observer = observer
        self._lease_s = lease_s
        self._margin_ms = round(min(lease_s / 6, SKEW_MARGIN_S_MAX) * 1000)

    async def take(self, run_id: str) -> Committed | Held:
        """Claim a run. Raises what the store raises."""
        taken = await self._runs.claim(run_id)
        if isinstance(taken, Committed):
            await self.begun(taken)
        return taken

    async def drive(self, first: Committed, wake: Wake) -> Driven:
        """Go on from a commit until this worker holds nothing of it any more.

        Never raises: what one run meets must not end the others.
        """
        lease = Lease(self._clock, self._lease_s, self._renewed)
        try:
            return await self._driven(first, wake, lease)
        finally:
            lease.close()

    async def _driven(self, committed: Committed, wake: Wake, lease: Lease) -> Driven:
        events = int(committed.event is not None)
        while True:
            for run_id, at_ms in committed.woken:
                wake(run_id, at_ms)
            claim = committed.claim
            if claim is None:
                return Driven(events, committed.head)
            try:
                committed = await self._advance(claim, lease)
                self._tell(claim.machine, committed)
            except anyio.get_cancelled_exc_class():
                await self._release(claim)
                raise
            except LeaseLostError as error:
                self._observer.trouble("lease_lost", "WARNING", {"run_id": claim.head.run_id, "reason": error.message})
                return Driven(events, None)
            except Exception as error:
                # Nothing can be committed, so the lease will end by itself and the run be taken over.
                self._let_go(claim, error)
                if isinstance(error, StoreError) and not isinstance(error, AWAY):
                    return Driven(events, None, (claim.head.run_id, error))
                wake(claim.head.run_id, claim.head.claimable_at_ms or self._clock.now_ms())
                return Driven(events, None)
            events += committed.event is not None

    async def _release(self, claim: Claim) -> None:
        """This worker is being stopped: let others have the run now, and not when its lease ends.

        An unrepeatable action stays begun: whether its call was made is not known, so it is `interrupted`.
        """
        with anyio.CancelScope(shield=True), anyio.move_on_after(RELEASE_S_MAX):
            try:
                effect = claim.effect
                kind = self._performer.kind_of(effect.action) if isinstance(effect, Perform) else None
                await self._runs.release(claim, begun=kind is ActionKind.UNREPEATABLE)
            except LeaseLostError:
                pass  # somebody else has it, and nothing is ours to let go of
            except Exception as error:
                self._let_go(claim, error)

    def _let_go(self, claim: Claim, error: Exception) -> None:
        if not isinstance(error, StoreError):  # a bug of the engine's own
            logger.error("run_let_go", exc_info=error, extra={"fields": {"run_id": claim.head.run_id}})
        self._observer.trouble("run_let_go", "ERROR", {"run_id": claim.head.run_id, **facts(error)})

    async def begun(self, committed: Committed) -> None:
        """Report a run that this worker has just started, or taken."""
        digest = committed.head.snapshot.digest
        self._tell(await self._runs.definitions.machine(digest), committed)

    def _tell(self, machine: Machine, committed: Committed) -> None:
        self._observer.committed(machine, committed)
        if committed.remarks:
            place = committed.head.place
            for remark in committed.remarks:
                self._observer.remarked(committed.head.snapshot, place.key if place else None, remark)

    async def _advance(self, claim: Claim, lease: Lease) -> Committed:
        match claim.effect:
            case Perform() as effect:
                kind = self._performer.kind_of(effect.action)
                if kind is ActionKind.TRANSACTIONAL:
                    return await self._decide(claim, effect)
                return await self._perform(claim, effect, kind, lease)
            case StartMap():
                from engine.runs.collect import collect  # here, as below: most runs have no map

                return await self._persist(claim, lambda: collect(self._runs, claim, self._clock.now_ms()))
            case Rest(due_at_ms):
                now_ms = self._clock.now_ms()
                if due_at_ms is not None and due_at_ms <= now_ms:
                    timers = claim.head.snapshot.timers
                    name = min(timers, key=lambda timer: (timers[timer], timer))
                    return await self._persist(claim, lambda: self._runs.commit(claim, TimerFired(now_ms, name)))
                return await self._persist(claim, lambda: self._runs.rest(claim))
            case StopMap() as left:
                from engine.runs.leaving import leave_map

                return await self._persist(claim, lambda: leave_map(self._runs, claim, left))
            case Finish():
                return Committed(claim.head, None)
            case _:
                raise AssertionError(f"{claim.effect} is nothing that a run waits for")

    async def _decide(self, claim: Claim, effect: Perform) -> Committed:
        head, machine = claim.head, claim.machine
        item_key = head.place.key if head.place else None
        keys = self._performer.keys(machine, effect, head.snapshot, item_key)

        def decide(documents: Mapping[Key, Document | None], now_ms: int) -> Decision:
            return self._performer.decide(machine, effect, head.snapshot, item_key, documents, now_ms)

        return await self._persist(claim, lambda: self._runs.decide(claim, keys, decide))

    async def _perform(self, claim: Claim, effect: Perform, kind: ActionKind | None, lease: Lease) -> Committed:
        head = claim.head
        now_ms = self._clock.now_ms()
        if kind is None:
            self._observer.trouble("action_unknown", "ERROR", {"run_id": head.run_id, "action": effect.action})
        if kind is None or not self._runs.tenure().begins(effect, now_ms):
            return await self._persist(claim, lambda: self._runs.rest(claim))
        if self._trust_ends_ms(claim) <= now_ms:
            # The commit that began this took its time; whether the run is still ours is for the store to say.
            claim = await self._renewed(claim)
        item_key = head.place.key if head.place else None

        def once() -> Awaitable[Event]:
            return self._performer.perform(claim.machine, effect, head.snapshot, item_key)

        async def perform() -> Event:
            try:
                return await once()
            except AWAY as error:  # a repeatable action is performed again when the store is back
                return await self._outlasted(claim, once, error)

        try:
            held, event = await lease.hold(claim, perform)
        except GivenUpError:
            failure = Failure(EngineCode.INTERNAL, "the handler was cancelled from within and gave no answer")
            held, event = claim, ActionFailed(self._clock.now_ms(), failure)
        try:
            return await self._runs.commit(held, event)
        except Exception as error:
            return await self._committed(held, event, error)

    async def _renewed(self, claim: Claim) -> Claim:
        return await self._persist(claim, lambda: self._runs.renew(claim))

    async def _committed(self, claim: Claim, event: Event, error: Exception) -> Committed:
        """Commit what came of an action, after the first try met an error.

        What cannot be committed fails the state, so that the run does not stay.
        """
        if isinstance(error, AWAY):
            try:
                return await self._outlasted(claim, lambda: self._runs.commit(claim, event), error)
            except Exception as later:
                error = later
        if isinstance(error, LeaseLostError) or (
            isinstance(error, StoreError) and not isinstance(error, WriteRefusedError)
        ):
            raise error
        if not isinstance(error, WriteRefusedError):
            logger.error("event_not_taken", exc_info=error, extra={"fields": {"run_id": claim.head.run_id}})
        self._observer.trouble("event_not_taken", "ERROR", {"run_id": claim.head.run_id, **facts(error)})
        message = f"the engine could not record what the action answered ({type(error).__name__})"
        refusal = StepRefused(self._clock.now_ms(), Failure(EngineCode.INTERNAL, message))
        return await self._persist(claim, lambda: self._runs.commit(claim, refusal))

    def _trust_ends_ms(self, claim: Claim) -> int:
        """Until when this worker may take it for granted that the run is its own."""
        return (claim.head.claimable_at_ms or self._clock.now_ms()) - self._margin_ms

    async def _persist(self, claim: Claim, verb: Callable[[], Awaitable[Result]]) -> Result:
        """Do a verb of `Runs`, waiting out a store that is away until the lease's trust window closes."""
        try:
            return await verb()
        except AWAY as error:
            return await self._outlasted(claim, verb, error)

    async def _outlasted(self, claim: Claim, verb: Callable[[], Awaitable[Result]], error: Exception) -> Result:
        delay_s = 0.1
        until_ms = self._trust_ends_ms(claim)
        while True:
            if self._clock.now_ms() + delay_s * 1000 >= until_ms:
                raise error
            self._observer.trouble("store_away", "WARNING", {"run_id": claim.head.run_id, **facts(error)})
            await self._clock.sleep(delay_s)
            delay_s = min(delay_s * 2, OUTAGE_DELAY_S_MAX)
            try:
                return await verb()
            except AWAY as again:
                error = again


def facts(error: Exception) -> dict[str, Any]:
    """What may be told of an exception: detent's own errors hold no secret, any other only its class is known of."""
    if isinstance(error, DetentError):
        return {"code": error.code, "reason": error.message}
    return {"code": EngineCode.INTERNAL, "reason": type(error).__name__}


__all__ = ["Driven", "Driver", "Wake", "facts"]
