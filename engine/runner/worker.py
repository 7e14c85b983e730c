"""Drives many runs: those it is given, those that their commits wake, and (for `detent worker`) those of the store.

A worker keeps a schedule of what becomes claimable when. Being on it is a hint and not a right: only the
claim decides, so a run that another worker took first is simply no longer there.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple, TypeVar

import anyio
from anyio.abc import TaskGroup

from engine.runner.clock import Clock
from engine.runner.driver import AWAY, Driven, Driver, facts
from engine.runner.observer import Observer
from engine.runs import Committed, Head, Runs

Result = TypeVar("Result")

POLL_S: Final = 1.0
"""How often a worker that waits for others looks at the store."""

LOOK_MS: Final = 2_000
"""How often a worker that drives one run looks whether anybody has sent it a cancel or a signal."""

HELD_MS: Final = 10
"""How long a worker leaves a run alone that it asked for and did not get."""

CLAIMABLE_BATCH: Final = 64
"""Runs taken from one query of the store."""


class Schedule:
    """What becomes claimable when; each run once, at its earliest known instant."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._at: dict[str, int] = {}

    def clear(self) -> None:
        """Forget every run."""
        self._heap.clear()
        self._at.clear()

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
    """See the module. One for each process; `concurrency` bounds the runs that it claims at once."""

    def __init__(self, runs: Runs, driver: Driver, clock: Clock, observer: Observer, concurrency: int) -> None:
        self._runs = runs
        self._driver = driver
        self._clock = clock
        self._observer = observer
        self._limit = anyio.CapacityLimiter(concurrency)
        self._driving: set[str] = set()
        self._concurrency = concurrency

    # For one who serves (`serving.py`)

    @property
    def driving(self) -> frozenset[str]:
        """The runs that are under way here."""
        return frozenset(self._driving)

    @property
    def free_places(self) -> int:
        """How many more runs may be begun."""
        return max(self._concurrency - len(self._driving), 0)

    async def due_now(self, limit: int) -> list[tuple[str, int]]:
        """What is due or abandoned in the store, longest first. Raises `StoreError`."""
        return await self._runs.claimable(self._clock.now_ms(), limit)

    def begin_due(self, circle: Circle) -> None:
        """Begin what the schedule says is due, as far as there are free places; the rest stays on it."""
        while self.free_places > 0 and self._begin_next(circle):
            pass

    async def finish(self, root: str, first: Committed | None, patience_s: float) -> Waited:
        """Drive one run and everything that it starts until it ends.

        Gives up when nothing of it has moved for `patience_s` and nothing will within that time: it waits for a
        later timer or a signal, or another worker holds it. Raises `StoreError` when the store stays away for as
        long or is damaged, and what keeps the run itself from being taken or gone on with.
        """
        circle = self._circle(patience_s)
        if first is None:
            circle.schedule.add(root, self._clock.now_ms())
        else:
            # Whoever starts a run drives it himself: most are over before anything else of them is due.
            self._driving.add(root)
            circle.active += 1
            driven = await self._in_turn(root, circle, first)
            if driven is not None and driven.last is not None and driven.last.has_ended:
                return Waited(driven.last, is_final=True)
        async with anyio.create_task_group() as circle.tasks:
            found = await _caught(lambda: self._until_final(root, circle))
        head = _value(found)
        return Waited(head, head.is_final)

    async def _until_final(self, root: str, circle: Circle) -> Head:
        looks_at_ms = self._clock.now_ms() + LOOK_MS
        while True:
            if circle.active and self._clock.now_ms() >= looks_at_ms:
                await self._notice(root, circle)
                looks_at_ms = self._clock.now_ms() + LOOK_MS
            self._start_due(circle)
            if circle.active == 0:
                if (error := circle.refused.get(root)) is not None:
                    raise error
                head = await self._patiently(circle, lambda: self._runs.get(root))
                assert head is not None, "a run that was started is never removed"
                if head.has_ended or (head.worker is not None and not circle.has_driven):
                    return head  # ended, or another worker holds it and nothing of it was ever ours
                await self._look_at_family(head, circle)
                next_ms = circle.schedule.next_at_ms()
                if next_ms is None or next_ms > circle.gives_up_at_ms:
                    return head
            await self._pause(circle)

    async def _notice(self, root: str, circle: Circle) -> None:
        """Put on the schedule what somebody else has made claimable while this worker is busy: a cancelled parent."""
        try:
            circle.note(await self._runs.claimable_of(root, self._clock.now_ms(), CLAIMABLE_BATCH))
        except AWAY as error:
            self._observer.trouble("store_away", "WARNING", facts(error))

    async def _look_at_family(self, head: Head, circle: Circle) -> None:
        """Put on the schedule what is due or abandoned of a run: also what another process has started of it."""
        if head.root != head.run_id:  # an item that somebody resumes by itself
            found = [] if head.claimable_at_ms is None else [(head.run_id, head.claimable_at_ms)]
        else:
            until_ms, limit = circle.gives_up_at_ms, CLAIMABLE_BATCH + len(circle.refused)
            found = await self._patiently(circle, lambda: self._runs.claimable_of(head.root, until_ms, limit))
        circle.note(found)

    async def drain(self, patience_s: float) -> int:
        """Take everything of the store that is due or abandoned, short waits included; answers how many were driven."""
        circle = self._circle(patience_s)
        async with anyio.create_task_group() as circle.tasks:
            found = await _caught(lambda: self._until_drained(circle))
        return _value(found)

    def _circle(self, patience_s: float) -> Circle:
        return Circle(self._clock.now_ms(), patience_s, until_ms=self._runs.tenure().budget_ms)

    async def _until_drained(self, circle: Circle) -> int:
        while True:
            found = await self._patiently(circle, lambda: self._claimable(circle))
            if circle.active == 0:
                circle.schedule = Schedule()  # another worker may have done what was noted for later
            circle.note([(run_id, at_ms) for run_id, at_ms in found if run_id not in self._driving])
            self._start_due(circle)
            if circle.active == 0:
                next_ms = circle.schedule.next_at_ms()
                if next_ms is None or next_ms > circle.gives_up_at_ms:
                    return circle.driven
            await self._pause(circle)

    async def _claimable(self, circle: Circle) -> list[tuple[str, int]]:
        limit = CLAIMABLE_BATCH + len(circle.refused) + len(self._driving)
        return await self._runs.claimable(circle.gives_up_at_ms, limit)

    async def _patiently(self, circle: Circle, ask: Callable[[], Awaitable[Result]]) -> Result:
        """Ask the store, waiting while it is away: what is under way must not be given up for that."""
        began_ms = self._clock.now_ms()
        while True:
            try:
                return await ask()
            except AWAY as error:
                if self._clock.now_ms() - began_ms >= circle.patience_ms:
                    raise
                self._observer.trouble("store_away", "WARNING", facts(error))
            await self._clock.sleep(POLL_S)

    def _start_due(self, circle: Circle) -> None:
        if circle.is_over(self._clock.now_ms()):
            circle.schedule.clear()  # it is in the store as well, for whoever comes next
        while self._begin_next(circle):
            pass

    def _begin_next(self, circle: Circle) -> bool:
        run_id = circle.schedule.due(self._clock.now_ms())
        if run_id is None:
            return False
        if run_id in self._driving:
            circle.missed.add(run_id)  # it was woken before its last drive was over: looked at again then
        elif run_id not in circle.refused:
            self._driving.add(run_id)
            circle.active += 1
            circle.tasks.start_soon(self._in_turn, run_id, circle, None)
        return True

    async def _in_turn(self, run_id: str, circle: Circle, first: Committed | None) -> Driven | None:
        """Take a run, unless it was begun by the commit `first`, and drive it, in its turn among the others."""
        try:
            if first is not None:
                # Its lease runs already, so it does not wait for its turn: whoever starts runs bounds how many.
                return await self._driven(first, circle)
            async with self._limit:
                committed = await self._taken(run_id, circle)
                return None if committed is None else await self._driven(committed, circle)
        finally:
            self._driving.discard(run_id)
            if run_id in circle.missed:
                circle.missed.discard(run_id)
                circle.schedule.add(run_id, self._clock.now_ms())
            circle.active -= 1
            circle.tell()

    async def _driven(self, committed: Committed, circle: Circle) -> Driven:
        circle.driven += 1
        circle.has_driven = True
        driven = await self._driver.drive(committed, circle.wake)
        if driven.refused is not None:
            run_id, error = driven.refused
            circle.refused[run_id] = error
        if driven.events:
            circle.moved(self._clock.now_ms())
        return driven

    async def _taken(self, run_id: str, circle: Circle) -> Committed | None:
        now_ms = self._clock.now_ms()
        try:
            taken = await self._driver.take(run_id)
        except AWAY as error:
            self._observer.trouble("run_not_taken", "WARNING", {"run_id": run_id, **facts(error)})
            circle.not_before[run_id] = now_ms + round(POLL_S * 1000)
            circle.schedule.add(run_id, circle.not_before[run_id])
            return None
        except Exception as error:
            # It, or its definition, cannot be read or is not there, say. Trying again would not help; the others go on.
            self._observer.trouble("run_not_taken", "ERROR", {"run_id": run_id, **facts(error)})
            circle.refused[run_id] = error
            return None
        if isinstance(taken, Committed):
            return taken
        if taken.declined:
            circle.refused[run_id] = None
        elif taken.head.claimable_at_ms is not None:
            # The store's clock decides; where it is behind, asking at once again would be asking without end.
            circle.not_before[run_id] = now_ms + HELD_MS
            circle.add(run_id, max(taken.head.claimable_at_ms, circle.not_before[run_id]))
        return None

    async def _pause(self, circle: Circle) -> None:
        """Wait until something ends, the next run is due, or it is time to look at the store again."""
        next_ms = circle.schedule.next_at_ms()
        wait_s = POLL_S if next_ms is None else min((next_ms - self._clock.now_ms()) / 1000, POLL_S)
        if wait_s <= 0 and circle.active == 0:
            return
        changed = circle.listening()
        async with anyio.create_task_group() as either:

            async def ending(wait: Callable[[], object]) -> None:
                await wait()  # type: ignore[misc]  # both waits are coroutines of different types
                either.cancel_scope.cancel()

            either.start_soon(ending, changed.wait)
            if wait_s > 0 or next_ms is None:
                either.start_soon(ending, lambda: self._clock.sleep(max(wait_s, 0.001)))


class Circle:
    """What one call of the worker is about: its schedule, its tasks, and how many of them are under way.

    `refused` are runs that this worker cannot or must not take, with what stands against it; `not_before` says when a
    run that the store did not let it take may be tried again. `until_ms` is when the time is over that there is for it
    all; `None` is no limit.
    """

    tasks: TaskGroup

    def __init__(
        self,
        now_ms: int,
        patience_s: float,
        horizon_ms: Callable[[], int] | None = None,
        until_ms: int | None = None,
    ) -> None:
        self.schedule = Schedule()
        self._horizon_ms = horizon_ms
        self.until_ms = until_ms
        self.patience_ms = round(patience_s * 1000)
        self.moved(now_ms)
        self.active = 0
        self.driven = 0
        self.has_driven = False
        self.refused: dict[str, Exception | None] = {}
        self.missed: set[str] = set()
        self.not_before: dict[str, int] = {}
        self._changed: anyio.Event | None = None  # while somebody waits for it

    def note(self, found: Iterable[tuple[str, int]]) -> None:
        """Put runs on the schedule, but those that were refused."""
        for run_id, at_ms in found:
            if run_id not in self.refused:
                self.add(run_id, max(at_ms, self.not_before.get(run_id, at_ms)))

    def add(self, run_id: str, at_ms: int) -> None:
        """Put a run on the schedule, unless it is due so late that it will be found in the store then."""
        if self._horizon_ms is None or at_ms <= self._horizon_ms():
            self.schedule.add(run_id, at_ms)

    def wake(self, run_id: str, at_ms: int) -> None:
        """Put a run on the schedule and have the worker look at it."""
        self.add(run_id, at_ms)
        self.tell()

    def listening(self) -> anyio.Event:
        """What `tell` sets from now on."""
        self._changed = anyio.Event()
        return self._changed

    def tell(self) -> None:
        """Have the worker look again: something has ended, or has become claimable."""
        if self._changed is not None:
            self._changed.set()

    def moved(self, now_ms: int) -> None:
        """An event was taken: patience begins anew. A parent that only looked after its map has not moved."""
        self.gives_up_at_ms = now_ms + self.patience_ms
        if self.until_ms is not None:
            self.gives_up_at_ms = min(self.gives_up_at_ms, self.until_ms)

    def is_over(self, now_ms: int) -> bool:
        """Whether the time that there is for it all is over."""
        return self.until_ms is not None and now_ms >= self.until_ms


async def _caught(work: Callable[[], Awaitable[Result]]) -> list[Result] | Exception:
    """What `work` answers, in a list, or raises: an exception that left a task group's body would come out wrapped."""
    try:
        return [await work()]
    except Exception as error:
        return error


def _value(found: list[Result] | Exception) -> Result:
    if isinstance(found, Exception):
        raise found
    return found[0]


__all__ = ["Circle", "Schedule", "Waited", "Worker"]
