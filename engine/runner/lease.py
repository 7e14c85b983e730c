"""The lease of a run while its actions are performed: renewed every third of it, or given up.

In: a claim, and what is to be done under it. Out: what came of that, and the claim as it was renewed last. A renewal
and a commit of one run never overlap: a renewal is begun only while an action is under way, and whoever goes on waits
for its end. Actions that are over before a third of the lease cost no renewal and no task; one timer serves them all.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from engine.runner.clock import Clock, Timer
from engine.runs import Claim

Result = TypeVar("Result")

SETTLING_S_MAX: Final = 2.0
"""How long a worker that is stopped waits for its last renewal to be answered."""

INSISTING_S: Final = 1.0
"""How often an action is told again that it is given up, should its handler have swallowed the first."""


class GivenUpError(Exception):
    """The action let a cancellation of its own making escape, and so has no answer."""


class Lease:
    """See the module; one for each drive of a run. `renew` answers the claim, or raises what ends the action."""

    __slots__ = (
        "_cancels", "_clock", "_held", "_is_acting", "_is_late", "_lease_s", "_renew", "_renewal", "_task", "_timer",
        "_trouble",
    )  # fmt: skip

    def __init__(self, clock: Clock, lease_s: float, renew: Callable[[Claim], Awaitable[Claim]]) -> None:
        self._clock = clock
        self._lease_s = lease_s
        self._renew = renew
        self._held: Claim | None = None
        self._is_acting = False
        self._is_late = False  # the timer fired while no action was under way
        self._task: asyncio.Task[object] | None = None
        self._timer: Timer | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._trouble: Exception | None = None
        self._cancels = 0  # how often this lease has cancelled its task

    async def hold(self, claim: Claim, perform: Callable[[], Awaitable[Result]]) -> tuple[Claim, Result]:
        """Do `perform` under the lease; answers what came of it, and the claim as renewed last.

        Raises what it raises, what the renewal met when that ended it, and `GivenUpError`.
        """
        self._held = claim
        self._is_acting = True
        if self._timer is None:
            self._task = asyncio.current_task()
            self._arm(self._until_renewal_s(claim))
        elif self._is_late:
            self._look()
        try:
            answer = await perform()
        except asyncio.CancelledError:
            await self._explained()
            raise
        finally:
            self._is_acting = False
        if self._renewal is not None:
            await self._settled()
        return self._held, answer

    def close(self) -> None:
        """The drive is over. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, seconds: float) -> None:
        self._is_late = False
        self._timer = self._clock.call_later(seconds, self._look)

    def _until_renewal_s(self, claim: Claim) -> float:
        """A third of the lease may pass; one that was kept from the step before has less than all of it left."""
        ends_ms = claim.head.claimable_at_ms
        assert ends_ms is not None, "a claimed run has a lease"
        return max((ends_ms - self._clock.now_ms()) / 1000 - self._lease_s * 2 / 3, 0)

    def _look(self) -> None:
        """Renew if it is time; a commit may have moved the lease's end, and it is no time while one is under way."""
        if not self._is_acting:
            self._is_late = True
            return
        assert self._held is not None
        if self._trouble is not None:
            self._give_up()
        elif (early_s := self._until_renewal_s(self._held)) > 0:
            self._arm(early_s)
        else:
            self._renewal = asyncio.ensure_future(self._renewed(self._held))

    async def _renewed(self, claim: Claim) -> None:
        try:
            self._held = await self._renew(claim)
        except Exception as error:
            self._trouble = error
            if self._is_acting:
                self._give_up()
            return
        self._arm(self._lease_s / 3)

    def _give_up(self) -> None:
        """Have the action end; a handler that swallows that is told again."""
        assert self._task is not None
        self._task.cancel()
        self._cancels += 1
        self._timer = self._clock.call_later(INSISTING_S, self._look)

    async def _explained(self) -> None:
        """Raise what a cancellation was about, unless it was about the whole task."""
        await self._settled(within_s=SETTLING_S_MAX)
        trouble, self._trouble = self._trouble, None
        self._take_back()
        if not is_being_cancelled():
            raise trouble or GivenUpError

    async def _settled(self, within_s: float | None = None) -> None:
        """Wait for a renewal that is under way; with `within_s`, also while this task is being cancelled."""
        renewal, self._renewal = self._renewal, None
        if renewal is not None and not renewal.done():
            try:
                with anyio.CancelScope(shield=within_s is not None), anyio.move_on_after(within_s):
                    await asyncio.wait([renewal])
            finally:
                renewal.cancel()  # only one that was not waited for to its end is still there
        if within_s is None and self._trouble is not None:
            await self._absorbed()

    async def _absorbed(self) -> None:
        """The action has answered all the same: its cancellation, should it be on its way, must meet nobody else."""
        self._trouble = None
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._take_back()
            if is_being_cancelled():
                raise
        self._take_back()

    def _take_back(self) -> None:
        """Have the task forget what this lease has asked of it."""
        while self._cancels:
            assert self._task is not None
            self._task.uncancel()
            self._cancels -= 1


def is_being_cancelled() -> bool:
    """Whether this task is to end, by a scope around it or by whoever cancelled the task itself."""
    task = asyncio.current_task()
    return anyio.current_effective_deadline() == -math.inf or (task is not None and task.cancelling() > 0)
