"""PORT: time. Everything that asks for the time or waits for it asks a `Clock`, so that tests move time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import anyio


class Timer(Protocol):
    """What is to happen later."""

    def cancel(self) -> None:
        """Have it not happen; too late is no error."""


class Clock(Protocol):
    """Wall time in milliseconds since 1970 UTC, and waiting."""

    def now_ms(self) -> int:
        """The instant."""

    async def sleep(self, seconds: float) -> None:
        """Wait; a negative duration is none."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Have the event loop call something, without a task that waits for it."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """See `Clock`."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await anyio.sleep(max(seconds, 0))

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """See `Clock`."""
        return asyncio.get_running_loop().call_later(max(seconds, 0), callback)
