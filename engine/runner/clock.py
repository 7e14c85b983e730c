"""PORT: time. Everything that asks for the time or waits for it asks a `Clock`, so that tests move time."""

from __future__ import annotations

import time
from typing import Protocol

import anyio


class Clock(Protocol):
    """Wall time in milliseconds since 1970 UTC, and waiting."""

    def now_ms(self) -> int:
        """The instant."""

    async def sleep(self, seconds: float) -> None:
        """Wait; a negative duration is none."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """See `Clock`."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await anyio.sleep(max(seconds, 0))
