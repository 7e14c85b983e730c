"""`SimulatedClock`: time that stands still until a test moves it.

An implementation of `engine.runner.clock.Clock`. With `automatic=True` it moves by itself: whenever every task of
the event loop waits and no worker thread is busy, it jumps to the instant of the next sleeper, so that backoff,
timers and leases pass in no time, in the order in which they would. Only anyio's own worker threads count as
busy: with a store that has threads of its own (SQLite), move the clock by hand.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import anyio.to_thread

_BUSY_LOOK_S = 0.001
"""How often an automatic clock looks whether the threads that it waits for have come back."""


class _Due(NamedTuple):
    """What happens at an instant; a `Timer`."""

    clock: SimulatedClock
    at_ms: int
    number: int
    callback: Callable[[], object]

    def cancel(self) -> None:
        """See `engine.runner.clock.Timer`."""
        self.clock.forget(self)

    def __lt__(self, other: tuple[object, ...]) -> bool:
        assert isinstance(other, _Due)
        return (self.at_ms, self.number) < (other.at_ms, other.number)


class SimulatedClock:
    """See the module. `now_ms` is the instant it begins at."""

    def __init__(self, now_ms: int = 1_700_000_000_000, *, automatic: bool = False) -> None:
        self._now_ms = now_ms
        self._automatic = automatic
        self._numbers = itertools.count()
        self._due: list[_Due] = []
        self._sleepers = 0
        self._looking_in: Any = None  # the loop whose idleness is being watched

    def now_ms(self) -> int:
        """The instant."""
        return self._now_ms

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been moved that far; a duration of 0 or less only lets others run."""
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        woken = anyio.Event()
        timer = self.call_later(seconds, woken.set)
        self._sleepers += 1
        try:
            await woken.wait()
        finally:
            self._sleepers -= 1
            timer.cancel()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> _Due:
        """Have `callback` called once the clock has been moved that far."""
        due = _Due(self, self._now_ms + max(round(seconds * 1000), 1), next(self._numbers), callback)
        heapq.heappush(self._due, due)
        if self._automatic:
            self._look_when_idle()
        return due

    def forget(self, due: _Due) -> None:
        """Take something off the clock; see `_Due.cancel`."""
        if due in self._due:
            self._due.remove(due)
            heapq.heapify(self._due)

    @property
    def sleepers(self) -> int:
        """How many tasks wait for the clock."""
        return self._sleepers

    def advance(self, seconds: float) -> None:
        """Move time on and wake whoever is due. Raises `ValueError` for a step back."""
        self.set(self._now_ms + round(seconds * 1000))

    def set(self, now_ms: int) -> None:
        """Move time to an instant. Raises `ValueError` for one that has passed."""
        if now_ms < self._now_ms:
            raise ValueError("a clock does not go back; `jump_back` is for tests of clocks that are wrong")
        self._now_ms = now_ms
        while self._due and self._due[0].at_ms <= now_ms:
            heapq.heappop(self._due).callback()

    def jump_back(self, seconds: float) -> None:
        """Set the clock back, as a machine's clock may be; sleepers keep the instants they wait for."""
        self._now_ms -= round(seconds * 1000)

    def _look_when_idle(self) -> None:
        loop = asyncio.get_running_loop()
        if self._looking_in is not loop:  # also when an earlier loop ended with somebody asleep
            self._looking_in = loop
            loop.call_soon(self._look, 0)

    def _look(self, quiet: int) -> None:
        """Jump once nothing else was ready for a few turns of the loop."""
        loop: Any = asyncio.get_running_loop()
        if loop is not self._looking_in:
            return
        if not self._due:
            self._looking_in = None
        elif anyio.to_thread.current_default_thread_limiter().borrowed_tokens:
            loop.call_later(_BUSY_LOOK_S, self._look, 0)
        elif loop._ready:  # asyncio has no public word for "nothing else is ready"
            loop.call_soon(self._look, 0)
        elif quiet < 3:
            loop.call_soon(self._look, quiet + 1)
        else:
            self.set(self._due[0].at_ms)
            loop.call_soon(self._look, 0)
