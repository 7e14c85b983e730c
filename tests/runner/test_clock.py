"""The simulated clock: it stands, is moved, and with `automatic` moves by itself when everybody waits."""

from __future__ import annotations

import threading
import time

import anyio
import anyio.to_thread
import pytest

from engine.testing.clock import SimulatedClock

pytestmark = pytest.mark.anyio


async def test_a_sleeper_waits_until_somebody_moves_the_clock() -> None:
    clock = SimulatedClock(1000)
    woken: list[tuple[str, int]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.now_ms()))

    async with anyio.create_task_group() as tasks:
        for name, seconds in (("late", 3.0), ("soon", 1.0), ("never", -5.0)):
            tasks.start_soon(sleeper, name, seconds)
        await anyio.wait_all_tasks_blocked()
        assert (woken, clock.sleepers) == ([("never", 1000)], 2)
        clock.advance(1)
        await anyio.wait_all_tasks_blocked()
        assert woken[1:] == [("soon", 2000)]
        clock.set(9000)
    assert woken[2:] == [("late", 9000)]


async def test_the_clock_does_not_go_back_unless_it_is_told_to() -> None:
    clock = SimulatedClock(1000)
    with pytest.raises(ValueError, match="back"):
        clock.set(999)
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)
    clock.set(1000)
    clock.jump_back(0.5)
    assert clock.now_ms() == 500


async def test_an_automatic_clock_wakes_sleepers_in_their_order_and_takes_no_time() -> None:
    clock = SimulatedClock(0, automatic=True)
    woken: list[tuple[int, int]] = []

    async def sleeper(hours: int) -> None:
        for _ in range(2):
            await clock.sleep(3600 * hours)
            woken.append((hours, clock.now_ms() // 3_600_000))

    began = time.monotonic()
    async with anyio.create_task_group() as tasks:
        for hours in (5, 2, 3):
            tasks.start_soon(sleeper, hours)
    assert woken == [(2, 2), (3, 3), (2, 4), (5, 5), (3, 6), (5, 10)]
    assert time.monotonic() - began < 2


async def test_an_automatic_clock_stands_while_anybody_works() -> None:
    clock = SimulatedClock(0, automatic=True)
    release = threading.Event()

    async def asleep() -> None:
        await clock.sleep(10)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(asleep)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
            assert clock.now_ms() == 0
        tasks.start_soon(anyio.to_thread.run_sync, release.wait)
        await anyio.wait_all_tasks_blocked()
        assert clock.now_ms() == 0
        release.set()
    assert clock.now_ms() == 10_000


async def test_a_sleeper_that_is_cancelled_is_not_jumped_to() -> None:
    clock = SimulatedClock(0, automatic=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, 100)
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    await clock.sleep(1)
    assert (clock.now_ms(), clock.sleepers) == (1000, 0)


def test_an_automatic_clock_goes_on_in_another_event_loop() -> None:
    clock = SimulatedClock(0, automatic=True)

    async def left_asleep() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await clock.sleep(5)

    anyio.run(left_asleep)
    anyio.run(clock.sleep, 5)
    assert clock.now_ms() == 5000
