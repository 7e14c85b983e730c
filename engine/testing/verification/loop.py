"""An event loop whose time is simulated: when every task waits, it jumps to the instant of the next timer.

Time costs nothing, and the order in which tasks go on depends on nothing outside, so one schedule is always played
the same way. Threads are waited for in real time, should a handler start one; what such a thread takes is no time here.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any, Final

import anyio.to_thread

THREAD_LOOK_S: Final = 0.01
"""How long the loop waits for a busy thread before it looks again, in real seconds."""

IDLE_LOOKS_MAX: Final = 500
"""Looks at a loop in which nothing is due and nobody works, before that is called a deadlock."""

TURNS_MAX: Final = 300_000
"""Turns of the loop in one instant of simulated time; more is tasks that wake each other without end."""


class EndlessError(Exception):
    """The tasks of a loop go round and round, and time never passes."""


class _JumpingSelector(selectors.SelectSelector):
    """Waits by moving the loop's time on."""

    loop: SimulatedLoop
    idle_looks = 0
    turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See `selectors`; `None` means that nothing is due, ever."""
        self.turns += 1
        if self.turns > TURNS_MAX:
            self.turns = 0
            raise EndlessError(f"{TURNS_MAX} turns of the event loop passed in one instant")
        if timeout == 0:
            return []
        if _threads_are_busy():
            return super().select(THREAD_LOOK_S)
        if self.loop.on_idle():
            return []
        if timeout is None:
            # A thread that is not anyio's may be at work.
            self.idle_looks += 1
            if self.idle_looks > IDLE_LOOKS_MAX:
                raise RuntimeError("every task waits, and nothing will ever wake one: a deadlock")
            return super().select(THREAD_LOOK_S)
        self.idle_looks = self.turns = 0
        self.loop.jump(timeout)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """See the module. `on_idle` is asked before time jumps; when it answers true, somebody has work again."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self.on_idle: Callable[[], bool] = lambda: False
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Simulated seconds since the loop was made."""
        return self._now_s

    def jump(self, seconds: float) -> None:
        """Move time on."""
        self._now_s += seconds


def run(main: Callable[[], Any]) -> Any:
    """Run one coroutine function to its end on a loop of its own, and answer what it answers."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main())


def _threads_are_busy() -> bool:
    return anyio.to_thread.current_default_thread_limiter().borrowed_tokens > 0
