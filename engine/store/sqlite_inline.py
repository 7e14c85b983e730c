"""Commits on the event loop itself, where that is quicker than asking a thread.

On a local disk a commit takes some 200 us, most of it the sync; to hand it to another thread and to hear back takes
100 us more. So as long as commits are quick, as the writer measures them, whoever asks makes them: the first to ask
lets every other task that is ready run, and then commits for all who have asked by then. Many runs in flight so share
a sync without a thread between them.

While another process has the writers' turn, those who have asked are patient: a timer tries again after each of
`PAUSES_S`, and who asks meanwhile joins them. Then they get in line for it, in the writer's lane. That keeps a process
that is writing on its processor, with its caches, for a burst of commits; to wake a thread in line for every single
commit took twice the processor time.

It gives way to the lane at once when commits are slow (a cloud disk), when the log is to be moved, and while the
lane's thread works. The loop never waits for any of these, nor for another process: it asks, or is called later.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator, Sequence
from types import coroutine
from typing import Any, Final

from engine.store.sqlite_lane import BATCH_MAX, Asked, Lane
from engine.store.sqlite_writer import Transact, Writer

PAUSES_S: Final = (0.001, 0.002, 0.003, *[0.004] * 7)
"""Between the tries to have the turn, before getting in line: some 34 ms, in which the bursts of four other processes
end. The first are short, for another that has but one commit or two to make; each later one costs the burst less."""


class Inline:
    """See the module. `lock` is held by whoever uses the writer."""

    def __init__(self, writer: Writer, lane: Lane[Transact], lock: threading.Lock) -> None:
        self._writer = writer
        self._lane = lane
        self._lock: Final = lock
        self._gathered: list[Asked[Transact]] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # whose tasks have gathered
        self._tries = 0
        self._timer: asyncio.TimerHandle | None = None  # of the next try

    async def ask(self, question: Transact) -> Any:
        """As `Lane.ask`."""
        loop = asyncio.get_running_loop()
        asked = Asked(question, loop)
        if not self._gathered or self._is_left_behind():
            self._gathered, self._loop, self._tries, self._timer = [asked], loop, 0, None
            if await self._led(asked, loop):
                return asked.answered()
        elif self._loop is loop:
            self._gathered.append(asked)
        else:
            return await self._lane.ask(question)
        await asked.future  # one that is cancelled here is withdrawn: the next try leaves it out
        return asked.answered()

    async def finish(self) -> None:
        """Wait until those who have gathered on this loop are committed, or are the lane's."""
        while self._gathered and self._loop is asyncio.get_running_loop():
            self._tries = len(PAUSES_S)
            if self._timer is None:
                await _let_others_run()
            else:
                self._flush(None)

    async def _led(self, asked: Asked[Transact], loop: asyncio.AbstractEventLoop) -> bool:
        """Let the others gather, then commit for all; answers whether it was done here and now."""
        try:
            await _let_others_run()
        except BaseException:
            with contextlib.suppress(ValueError):  # somebody else's try had it
                self._gathered.remove(asked)
            if self._gathered:
                loop.call_soon(self._flush, None)
            raise
        return self._flush(asked)

    def _is_left_behind(self) -> bool:
        """Whether the loop of those who have gathered ended without telling them."""
        return self._loop is not None and self._loop.is_closed()

    def _call_off(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _flush(self, leader: Asked[Transact] | None) -> bool:
        """Commit for all who have gathered, now, later or in the lane; answers whether it was now."""
        self._call_off()
        batch = self._gathered = [one for one in self._gathered if not one.is_withdrawn]
        try:
            if not batch or not self._committed(batch):
                return False
        except BaseException as error:  # whatever it is, tasks must not wait for ever; the leader raises it as well
            for asked in batch:
                asked.error = error
        self._gathered = []
        for asked in batch:
            if asked is not leader and not asked.future.done():
                asked.future.set_result(None)
        return True

    def _committed(self, batch: Sequence[Asked[Transact]]) -> bool:
        """Whether the batch is committed; if not, the timer or the lane has it."""
        if len(batch) <= BATCH_MAX and self._lock.acquire(blocking=False):
            try:
                if self._writer.work(batch, waits=False):
                    return True
            finally:
                self._lock.release()
            if self._tries < len(PAUSES_S):
                self._timer = asyncio.get_running_loop().call_later(PAUSES_S[self._tries], self._flush, None)
                self._tries += 1
                return False
        self._lane.put(batch)
        self._gathered = []
        return False


@coroutine
def _let_others_run() -> Generator[None, None, None]:
    yield


def locked(lock: threading.Lock, work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, done by one at a time."""

    def work_alone(*arguments: Any) -> Any:
        with lock:
            return work(*arguments)

    return work_alone
