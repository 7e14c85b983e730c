"""A lease while an action is performed under it: renewed every third of it, and the action given up when it is lost.

In: a claim, and what is to be done under it. Out: what came of that, and the claim as it was renewed last. A renewal
and a commit of one run never overlap: whoever goes on awaits the renewal that is under way. An action that is over
before a third of the lease costs no renewal, and no task.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from engine.runner.clock import Clock
from engine.runs import Claim

Result = TypeVar("Result")

SETTLING_S_MAX: Final = 2.0
"""How long a worker that is stopped waits for its last renewal to be answered."""


class GivenUpError(Exception):
    """The action let a cancellation of its own making escape, and so has no answer."""


class Lease:
    """See the module. `renew` answers the claim as renewed, or raises what ends the action."""

    def __init__(self, claim: Claim, clock: Clock, lease_s: float, renew: Callable[[Claim], Awaitable[Claim]]) -> None:
        self.claim = claim
        self._clock = clock
        self._lease_s = lease_s
        self._renew = renew
        self._scope = anyio.CancelScope()
        self._renewal: asyncio.Task[None] | None = None
        self._trouble: Exception | None = None
        self._is_over = False

    async def hold(self, perform: Callable[[], Awaitable[Result]]) -> Result:
        """Do `perform` under the lease.

        Raises what it raises, what the renewal met when that ended it, and `GivenUpError`.
        """
        self._arm(self._until_renewal_s())
        answer: list[Result] = []
        try:
            with self._scope:
                answer.append(await perform())
        except asyncio.CancelledError:
            if is_being_cancelled():
                await self._settled(within_s=SETTLING_S_MAX)
                raise
        finally:
            self._timer.cancel()
            self._is_over = True
        await self._settled()
        if answer:
            return answer[0]
        raise self._trouble or GivenUpError

    def _arm(self, seconds: float) -> None:
        self._timer = self._clock.call_later(seconds, self._renew_soon)

    def _until_renewal_s(self) -> float:
        """A third of the lease may pass; one that was kept from the step before has less than all of it left."""
        ends_ms = self.claim.head.claimable_at_ms
        assert ends_ms is not None, "a claimed run has a lease"
        return max((ends_ms - self._clock.now_ms()) / 1000 - self._lease_s * 2 / 3, 0)

    def _renew_soon(self) -> None:
        self._renewal = asyncio.ensure_future(self._renewed())

    async def _renewed(self) -> None:
        try:
            self.claim = await self._renew(self.claim)
        except Exception as error:
            self._trouble = error
            self._scope.cancel()
        if not self._is_over:
            self._arm(self._lease_s / 3)

    async def _settled(self, within_s: float | None = None) -> None:
        """Wait for a renewal that is under way; with `within_s`, also while this task is being cancelled."""
        renewal = self._renewal
        if renewal is None or renewal.done():
            return
        try:
            with anyio.CancelScope(shield=within_s is not None), anyio.move_on_after(within_s):
                await asyncio.wait([renewal])
        finally:
            renewal.cancel()  # only one that was not waited for to its end is still there


def is_being_cancelled() -> bool:
    """Whether this task is to end, by a scope around it or by whoever cancelled the task itself."""
    task = asyncio.current_task()
    return anyio.current_effective_deadline() == -math.inf or (task is not None and task.cancelling() > 0)
