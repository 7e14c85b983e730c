"""Drives one claimed run: perform what it asks for, commit what came of it, until it rests or ends.

One task does a run's actions, renewals and commits in turn, so a worker never races itself. A store outage is
no failure of the run: the driver tries again until the trust window of its lease closes, and then lets go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, TypeVar

import anyio

from engine.core.action import ActionKind
from engine.core.effect import Finish, Perform, Rest, StartMap
from engine.core.event import Event, TimerFired
from engine.errors import DetentError, IllegalEventError, LeaseLostError, StoreError
from engine.runner.clock import Clock
from engine.runner.observer import Observer
from engine.runner.perform import Performer
from engine.runs import Claim, Committed, Held, Runs

Result = TypeVar("Result")

SKEW_MARGIN_S_MAX: Final = 5.0
"""The part of a lease in which no effect is started: covers clocks that differ (LEASES.md)."""

OUTAGE_DELAY_S_MAX: Final = 5.0
"""Longest pause between two tries on a store that is away."""


Wake: TypeAlias = Callable[[str, int], None]
"""Told of each run that a commit made claimable, with its instant in ms."""


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
            await self._tell(taken)
        return taken

    async def drive(self, first: Committed, wake: Wake) -> None:
        """Go on from a commit until this worker holds nothing of it any more."""
        committed = first
        while True:
            for run_id, at_ms in committed.woken:
                wake(run_id, at_ms)
            claim = committed.claim
            if claim is None:
                return
            try:
                committed = await self._advance(claim)
            except LeaseLostError as error:
                self._observer.trouble("lease_lost", "WARNING", {"run_id": claim.head.run_id, "message": error.message})
                return
            except StoreError as error:
                # Nothing can be committed, so the lease will end by itself and the run be taken over.
                fields = {"run_id": claim.head.run_id, "code": error.code, "message": error.message}
                self._observer.trouble("run_let_go", "ERROR", fields)
                wake(claim.head.run_id, claim.head.claimable_at_ms or self._clock.now_ms())
                return
            await self._tell(committed)

    async def begun(self, committed: Committed) -> None:
        """Report a run that this worker has just started."""
        await self._tell(committed)

    async def _tell(self, committed: Committed) -> None:
        machine = await self._runs.definitions.machine(committed.head.snapshot.digest)
        self._observer.committed(machine, committed)
        place = committed.head.place
        for remark in committed.remarks:
            self._observer.remarked(committed.head.snapshot, place.key if place else None, remark)

    async def _advance(self, claim: Claim) -> Committed:
        match claim.effect:
            case Perform() as effect:
                return await self._perform(claim, effect)
            case StartMap():
                return await self._persist(claim, lambda: self._runs.collect(claim, self._clock.now_ms()))
            case Rest(due_at_ms):
                now_ms = self._clock.now_ms()
                if due_at_ms is not None and due_at_ms <= now_ms:
                    timers = claim.head.snapshot.timers
                    name = min(timers, key=lambda timer: (timers[timer], timer))
                    return await self._persist(claim, lambda: self._runs.commit(claim, TimerFired(now_ms, name)))
                return await self._persist(claim, lambda: self._runs.rest(claim))
            case Finish():
                return Committed(claim.head, None)
            case _:
                raise AssertionError(f"{claim.effect} is nothing that a run waits for")

    async def _perform(self, claim: Claim, effect: Perform) -> Committed:
        head, machine = claim.head, claim.machine
        item_key = head.place.key if head.place else None
        if self._performer.kind_of(effect.action) is ActionKind.TRANSACTIONAL:
            keys = self._performer.keys(machine, effect, head.snapshot, item_key)
            return await self._persist(
                claim,
                lambda: self._runs.decide(
                    claim,
                    keys,
                    lambda documents, now_ms: self._performer.decide(
                        machine, effect, head.snapshot, item_key, documents, now_ms
                    ),
                ),
            )
        if not self._runs.tenure().begins(effect, self._clock.now_ms()):
            return await self._persist(claim, lambda: self._runs.rest(claim))
        claim, event = await self._while_renewing(
            claim, lambda: self._performer.perform(machine, effect, head.snapshot, item_key)
        )
        return await self._persist(claim, lambda: self._commit(claim, event))

    async def _commit(self, claim: Claim, event: Event) -> Committed:
        try:
            return await self._runs.commit(claim, event)
        except IllegalEventError as error:  # a bug of the engine's; the run must not stay where it is
            self._observer.trouble("event_illegal", "ERROR", {"run_id": claim.head.run_id, "message": error.message})
            raise

    async def _while_renewing(self, claim: Claim, perform: Callable[[], Awaitable[Event]]) -> tuple[Claim, Event]:
        """Perform an action, renewing the lease every third of it. Raises what either raises; the action is then given up."""
        held = [claim]
        answer: list[Event] = []
        trouble: list[DetentError] = []

        async def renew() -> None:
            while True:
                await self._clock.sleep(self._lease_s / 3)
                held[0] = await self._persist(held[0], lambda: self._runs.renew(held[0]))

        async def act() -> None:
            answer.append(await perform())

        async def ending_both(work: Callable[[], Awaitable[None]]) -> None:
            try:
                await work()
            except DetentError as error:
                trouble.append(error)
            both.cancel_scope.cancel()

        async with anyio.create_task_group() as both:
            both.start_soon(ending_both, renew)
            await ending_both(act)
        if trouble and not answer:
            raise trouble[0]
        return held[0], answer[0]

    async def _persist(self, claim: Claim, verb: Callable[[], Awaitable[Result]]) -> Result:
        """Do a verb of `Runs`, waiting out a store that is away until the lease's trust window closes."""
        delay_s = 0.1
        until_ms = (claim.head.claimable_at_ms or self._clock.now_ms()) - self._margin_ms
        while True:
            try:
                return await verb()
            except LeaseLostError:
                raise
            except StoreError as error:
                if self._clock.now_ms() + delay_s * 1000 >= until_ms:
                    raise
                fields = {"run_id": claim.head.run_id, "code": error.code, "message": error.message}
                self._observer.trouble("store_away", "WARNING", fields)
            await self._clock.sleep(delay_s)
            delay_s = min(delay_s * 2, OUTAGE_DELAY_S_MAX)


__all__ = ["Driver", "Wake"]
