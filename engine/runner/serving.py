"""A worker that serves until it is told to stop: it asks the store for what is due, and keeps its own schedule.

Several serve one store without knowing of each other. Each asks for no more than it can begin, in an order of its own,
and a run that another took is simply not there any more. Told to stop, it takes no work, has what is under way finish
within the grace time, and lets go of the rest (LEASES.md, Release). A store that is away is asked again, for ever; one
that is damaged ends the service as if it were told to stop, and then whoever started it is told of the damage.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio

from engine.errors import StoreError
from engine.runner.clock import Clock
from engine.runner.driver import AWAY, facts
from engine.runner.observer import Observer
from engine.runner.worker import POLL_S, Circle, Worker

JITTER: Final = 0.2
"""The part of the pause between two looks at the store that is left to chance, so that workers do not ask in step."""

AWAY_S_MAX: Final = 30.0
"""Longest pause between two looks at a store that is away."""

HORIZON_S: Final = 10.0
"""How far ahead a serving worker remembers its runs; what is due later is found in the store when it is."""

REFUSED_S: Final = 60.0
"""How long a run is left alone that this worker cannot take: its action is not known here, say."""


async def serve(
    worker: Worker,
    clock: Clock,
    observer: Observer,
    stop: anyio.Event,
    grace_s: float,
    hurry: anyio.Event,
    begin_nothing: Callable[[], None],
) -> int:
    """Work until `stop` is set; then call `begin_nothing`, and wait `grace_s` seconds, or until `hurry` is set, for
    what is under way.

    Answers how often a run was taken. Raises nothing that a run meets, and of what the store meets only
    `StoreDamagedError`.
    """
    serving = _Serving(worker, clock, observer)
    damage: StoreError | None = None
    async with anyio.create_task_group() as serving.circle.tasks:
        try:
            await serving.until_told(stop)
        except StoreError as error:
            damage = error
            observer.trouble("store_damaged", "ERROR", facts(error))
        begin_nothing()
        await serving.wind_up(grace_s, hurry)
        serving.circle.tasks.cancel_scope.cancel()  # what is still under way is let go of, by its driver
    if damage is not None:
        raise damage
    return serving.circle.driven


class _Serving:
    """One service of one worker: see `serve`."""

    def __init__(self, worker: Worker, clock: Clock, observer: Observer) -> None:
        self._worker = worker
        self._clock = clock
        self._observer = observer
        self._chance = random.Random()  # noqa: S311  # it spreads load and guards nothing
        self._times_away = 0
        self._forgives_at_ms = 0
        self.circle = Circle(clock.now_ms(), 0, lambda: clock.now_ms() + round(HORIZON_S * 1000))

    async def until_told(self, stop: anyio.Event) -> None:
        """Look at the store, begin what is due, and wait until something ends or falls due, or for the next look."""
        looks_at_ms = self._clock.now_ms()
        while not stop.is_set():
            has_places = self._worker.free_places > 0
            if has_places and self._clock.now_ms() >= looks_at_ms:
                looks_at_ms = await self._look()
            self._worker.begin_due(self.circle)
            if self._worker.free_places == 0:
                await self._pause(None, stop.wait)
                continue
            next_ms = self.circle.schedule.next_at_ms()
            await self._pause(looks_at_ms if next_ms is None else min(next_ms, looks_at_ms), stop.wait)

    async def _look(self) -> int:
        """Put what is due on the schedule; answers when to look again: at once while there is more than was begun."""
        now_ms = self._clock.now_ms()
        if now_ms >= self._forgives_at_ms:
            self.circle.refused.clear()
            self._forgives_at_ms = now_ms + round(REFUSED_S * 1000)
        driving = self._worker.driving
        limit = self._worker.free_places + len(driving) + len(self.circle.refused)
        try:
            found = await self._worker.due_now(limit)
        except AWAY as error:
            self._times_away += 1
            self._observer.trouble("store_away", "WARNING", facts(error))
            return self._pause_until_ms()
        self._times_away = 0
        left_alone = {*driving, *self.circle.refused}
        left_alone |= {run_id for run_id, at_ms in self.circle.not_before.items() if at_ms > now_ms}
        fresh = [one for one in found if one[0] not in left_alone]
        self._chance.shuffle(fresh)
        self.circle.note(fresh)
        return now_ms if fresh and len(found) == limit else self._pause_until_ms()

    def _pause_until_ms(self) -> int:
        pause_s: float = min(POLL_S * 2**self._times_away, AWAY_S_MAX) * (1 + JITTER * self._chance.random())
        return self._clock.now_ms() + round(pause_s * 1000)

    async def wind_up(self, grace_s: float, hurry: anyio.Event) -> None:
        """Wait for what is under way, as long as the grace time."""
        until_ms = self._clock.now_ms() + round(grace_s * 1000)
        while self.circle.active and self._clock.now_ms() < until_ms and not hurry.is_set():
            await self._pause(until_ms, hurry.wait)

    async def _pause(self, until_ms: int | None, *also: Callable[[], Awaitable[Any]]) -> None:
        """Wait for the instant, for something of the circle to change, or for any of `also`."""
        wait_s = None if until_ms is None else (until_ms - self._clock.now_ms()) / 1000
        if wait_s is not None and wait_s <= 0:
            await anyio.lowlevel.checkpoint()
            return
        changed = self.circle.listening()
        waits = [changed.wait, *also]
        if wait_s is not None:
            waits.append(lambda: self._clock.sleep(wait_s))
        async with anyio.create_task_group() as first:

            async def ending(wait: Callable[[], Awaitable[Any]]) -> None:
                await wait()
                first.cancel_scope.cancel()

            for wait in waits:
                first.start_soon(ending, wait)


__all__ = ["serve"]
