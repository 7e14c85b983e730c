"""Drives many runs: those it is given, those that their commits wake, and (for `detent worker`) those of the store.

A worker keeps a schedule of what becomes claimable when. Being on it is a hint and not a right: only the
claim decides, so a run that another worker took first is simply no longer there.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final, NamedTuple

import anyio
from anyio.abc import TaskGroup

from engine.errors import DetentError, StoreError
from engine.runner.clock import Clock
from engine.runner.driver import Driver
from engine.runner.observer import Observer
from engine.runs import Committed, Head, Held, Runs

POLL_S: Final = 1.0
"""How often a worker that waits for others looks at the store."""

CLAIMABLE_BATCH: Final = 64
"""Runs taken from one query of the store."""


class Schedule:
    """What becomes claimable when; each run once, at its earliest known instant."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._at: dict[str, int] = {}

    def add(self, run_id: str, at_ms: int) -> None:
        """Note a run, unless it is noted for an earlier instant already."""
        known = self._at.get(run_id)
        if known is None or at_ms < known:
            self._at[run_id] = at_ms
            heapq.heappush(self._heap, (at_ms, run_id))

    def due(self, now_ms: int) -> str | None:
        """Take the run that is due longest; `None` when none is."""
        self._drop_stale()
        if self._heap and self._heap[0][0] <= now_ms:
            _, run_id = heapq.heappop(self._heap)
            del self._at[run_id]
            return run_id
        return None

    def next_at_ms(self) -> int | None:
        """When the next run becomes claimable."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def _drop_stale(self) -> None:
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)


class Waited(NamedTuple):
    """How waiting for one run ended: its head, and whether it has ended."""

    head: Head
    is_final: bool


class Worker:
    """See the module. One for each process; `concurrency` bounds the runs that it drives at once."""

    def __init__(self, runs: Runs, driver: Driver, clock: Clock, observer: Observer, concurrency: int) -> None:
        self._runs = runs
        self._driver = driver
        self._clock = clock
        self._observer = observer
        self._limit = anyio.CapacityLimiter(concurrency)
        self._driving: set[str] = set()

    async def finish(self, root: str, first: Committed | None, patience_s: float) -> Waited:
        """Drive one run and everything that it starts until it ends.

        Gives up when nothing of it can happen within `patience_s`: it waits for a later timer or a signal,
        or another worker holds it.
        """
        schedule = Schedule()
        schedule.add(root, self._clock.now_ms())
        async with anyio.create_task_group() as tasks:
            circle = _Circle(schedule, tasks)
            if first is not None:
                schedule.due(self._clock.now_ms())
                circle.active += 1
                tasks.start_soon(self._drive, first, circle)
            head = await self._until_final(root, circle, patience_s)
            tasks.cancel_scope.cancel()
        return Waited(head, head.is_final)

    async def _until_final(self, root: str, circle: _Circle, patience_s: float) -> Head:
        while True:
            self._start_due(circle)
            if circle.active == 0:
                head = await self._runs.get(root)
                assert head is not None, "a run that was started is never removed"
                if head.is_final or (head.worker is not None and not circle.has_driven):
                    return head  # ended, or another worker holds it and nothing of it was ever ours
                if head.claimable_at_ms is not None:
                    circle.schedule.add(root, head.claimable_at_ms)
                next_ms = circle.schedule.next_at_ms()
                if next_ms is None or next_ms - self._clock.now_ms() > patience_s * 1000:
                    return head
            await self._pause(circle)

    async def drain(self, patience_s: float) -> int:
        """Take everything of the store that is due or abandoned, short waits included; answers how many were driven."""
        async with anyio.create_task_group() as tasks:
            circle = _Circle(Schedule(), tasks)
            while True:
                for run_id, at_ms in await self._runs.claimable(self._clock.now_ms(), CLAIMABLE_BATCH):
                    if run_id not in self._driving:
                        circle.schedule.add(run_id, at_ms)
                self._start_due(circle)
                if circle.active == 0:
                    next_ms = await self._runs.next_claimable()
                    if next_ms is None or next_ms - self._clock.now_ms() > patience_s * 1000:
                        return circle.driven
                    circle.schedule.add("", next_ms)
                    await self._pause(circle)
                    circle.schedule.due(self._clock.now_ms())
                else:
                    await self._pause(circle)

    def _start_due(self, circle: _Circle) -> None:
        while (run_id := circle.schedule.due(self._clock.now_ms())) is not None:
            if run_id and run_id not in self._driving:
                self._driving.add(run_id)
                circle.active += 1
                circle.tasks.start_soon(self._take, run_id, circle)

    async def _take(self, run_id: str, circle: _Circle) -> None:
        async with self._limit:
            try:
                taken = await self._driver.take(run_id)
            except DetentError as error:
                fields = {"run_id": run_id, "code": error.code, "message": error.message}
                self._observer.trouble("run_not_taken", "WARNING", fields)
                if isinstance(error, StoreError):
                    circle.schedule.add(run_id, self._clock.now_ms() + round(POLL_S * 1000))
                taken = None
            if isinstance(taken, Committed):
                circle.driven += 1
                circle.has_driven = True
                await self._driver.drive(taken, circle.wake)
            elif isinstance(taken, Held) and taken.head.claimable_at_ms is not None:
                circle.schedule.add(run_id, taken.head.claimable_at_ms)
        self._driving.discard(run_id)
        self._done(circle)

    async def _drive(self, first: Committed, circle: _Circle) -> None:
        async with self._limit:
            circle.has_driven = True
            await self._driver.drive(first, circle.wake)
        self._done(circle)

    def _done(self, circle: _Circle) -> None:
        circle.active -= 1
        circle.changed.set()

    async def _pause(self, circle: _Circle) -> None:
        """Wait until something ends, the next run is due, or it is time to look at the store again."""
        next_ms = circle.schedule.next_at_ms()
        wait_s = POLL_S if next_ms is None else min((next_ms - self._clock.now_ms()) / 1000, POLL_S)
        if wait_s <= 0 and circle.active == 0:
            return
        changed = circle.changed = anyio.Event()
        async with anyio.create_task_group() as either:

            async def ending(wait: Callable[[], object]) -> None:
                await wait()  # type: ignore[misc]  # both waits are coroutines of different types
                either.cancel_scope.cancel()

            either.start_soon(ending, changed.wait)
            if wait_s > 0 or next_ms is None:
                either.start_soon(ending, lambda: self._clock.sleep(max(wait_s, 0.001)))


class _Circle:
    """What one call of the worker is about: its schedule, its tasks, and how many of them are under way."""

    def __init__(self, schedule: Schedule, tasks: TaskGroup) -> None:
        self.schedule = schedule
        self.tasks = tasks
        self.active = 0
        self.driven = 0
        self.has_driven = False
        self.changed = anyio.Event()

    def wake(self, run_id: str, at_ms: int) -> None:
        """Put a run on the schedule and have the worker look at it."""
        self.schedule.add(run_id, at_ms)
        self.changed.set()


__all__ = ["Schedule", "Waited", "Worker"]
