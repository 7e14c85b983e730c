"""Commits on the event loop itself, where that is quicker than asking a thread.

On a local disk a commit takes some 200 us, most of it the sync; to hand it to another thread and to hear back takes
100 us more. So as long as commits are quick, as the writer measures them, whoever asks makes them: the first to ask
lets every other task that is ready run, and then commits for all who have asked by then. Many runs in flight so share
a sync without a thread between them.

It gives way to the writer's lane when commits are slow (a cloud disk), when the log is to be moved, when another
process has the writers' turn, and while the lane's thread works: the loop never waits for any of these.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Sequence
from types import coroutine
from typing import Any, Final

from engine.store.sqlite_lane import BATCH_MAX, Asked, Lane
from engine.store.sqlite_writer import Transact, Writer


class Inline:
    """See the module. `lock` is held by whoever uses the writer."""

    def __init__(self, writer: Writer, lane: Lane[Transact], lock: threading.Lock) -> None:
        self._writer = writer
        self._lane = lane
        self._lock: Final = lock
        self._gathered: list[Asked[Transact]] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # whose tasks have gathered

    async def ask(self, question: Transact) -> Any:
        """As `Lane.ask`."""
        loop = asyncio.get_running_loop()
        asked = Asked(question, loop)
        if self._gathered:
            if self._loop is not loop:
                return await self._lane.ask(question)
            self._gathered.append(asked)
            await asked.future
            return asked.answered()
        self._gathered.append(asked)
        self._loop = loop
        try:
            await _let_others_run()
        except BaseException:
            self._gathered.remove(asked)
            if self._gathered:
                loop.call_soon(self._flush, None)
            raise
        if not self._flush(asked):
            await asked.future
        return asked.answered()

    async def finish(self) -> None:
        """Wait until those who have gathered on this loop are committed, or are the lane's."""
        while self._gathered and self._loop is asyncio.get_running_loop():
            await _let_others_run()

    def _flush(self, leader: Asked[Transact] | None) -> bool:
        """Commit for all who have gathered; answers whether it was done here, and not given to the lane."""
        batch, self._gathered = [one for one in self._gathered if not one.is_withdrawn], []
        try:
            if not self._committed(batch):
                self._lane.put(batch)
                return False
        except BaseException as error:  # whatever it is, tasks must not wait for ever; the leader raises it as well
            for asked in batch:
                asked.error = error
        for asked in batch:
            if asked is not leader and not asked.future.done():
                asked.future.set_result(None)
        return True

    def _committed(self, batch: Sequence[Asked[Transact]]) -> bool:
        if len(batch) > BATCH_MAX or not self._lock.acquire(blocking=False):
            return False
        try:
            return self._writer.work(batch, waits=False)
        finally:
            self._lock.release()


@coroutine
def _let_others_run() -> Generator[None, None, None]:
    yield


def locked(lock: threading.Lock, work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, done by one at a time."""

    def work_alone(*arguments: Any) -> Any:
        with lock:
            return work(*arguments)

    return work_alone
