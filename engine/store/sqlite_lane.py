"""A lane: one thread that answers an event loop's questions, in order, as many at a time as have arrived.

In: questions from tasks, through `ask`. Out: answers, or the error that each question met. While the thread
works on one batch the next gathers, which is what makes a group commit.

A task that is cancelled while its question waits withdraws it; one cancelled later loses only the answer. The
thread starts with the first question and ends in `close`. It never raises: what goes wrong goes to who asked.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, TypeVar

import anyio
import anyio.to_thread

from engine.errors import StoreUnavailableError

Question = TypeVar("Question")

BATCH_MAX: Final = 256
"""Questions of one batch: bounds how long a batch may hold the writer's turn."""


CLOSE_S_MAX: Final = 10.0
"""Longest wait for the thread to end. Only one that another, stopped process keeps from writing takes so long."""


class Asked(Generic[Question]):
    """A question on its way; whoever works on it fills in `answer` or `error`."""

    __slots__ = ("_future", "answer", "error", "loop", "question")

    def __init__(self, question: Question, loop: asyncio.AbstractEventLoop) -> None:
        self.question = question
        self.loop = loop
        self.answer: Any = None
        self.error: BaseException | None = None
        self._future: asyncio.Future[None] | None = None

    @property
    def future(self) -> asyncio.Future[None]:
        """Tells when the question is answered; made when somebody waits for it."""
        if self._future is None:
            self._future = self.loop.create_future()
        return self._future

    @property
    def is_withdrawn(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._future is not None and self._future.cancelled()

    def answered(self) -> Any:
        """The answer. Raises the error, once: it is forgotten with the question."""
        error = self.error
        if error is None:
            return self.answer
        try:
            raise error
        finally:
            # The error's traceback holds this frame: without these the two would keep each other alive.
            self.error = None
            del error


class Lane(Generic[Question]):
    """`work` answers a batch, `rest` (if given) runs after its answers are out; both on the lane's thread."""

    def __init__(
        self,
        name: str,
        work: Callable[[list[Asked[Question]]], None],
        rest: Callable[[], None] | None = None,
    ) -> None:
        self._name = name
        self._work = work
        self._rest = rest
        self._queue: queue.SimpleQueue[Asked[Question] | None] = queue.SimpleQueue()
        self._door = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    async def ask(self, question: Question) -> Any:
        """The answer to `question`. Raises what the work met, `StoreUnavailableError` after `close`."""
        asked = Asked(question, asyncio.get_running_loop())
        self.put([asked])
        await asked.future
        return asked.answered()

    def put(self, batch: Iterable[Asked[Question]]) -> None:
        """Queue questions, whose futures tell when they are answered. Raises `StoreUnavailableError` after `close`.

        Called on the questions' own loop.
        """
        with self._door:  # a question is either before the end of the queue or refused, never behind it
            if self._closed:
                raise StoreUnavailableError("the store is closed.", remedy="Open it again.")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            for asked in batch:
                asked.future  # noqa: B018 - made before the thread sees it: two threads could each make one
                self._queue.put(asked)

    async def close(self) -> None:
        """Answer what has been asked, then end the thread. Idempotent.

        Raises `StoreUnavailableError` when that takes longer than `CLOSE_S_MAX`; the thread is then left behind.
        """
        with self._door:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        if self._thread is None:
            return
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._thread.join, CLOSE_S_MAX)
        if self._thread.is_alive():
            raise StoreUnavailableError(
                f"the store could not finish its last commits in {CLOSE_S_MAX} s.",
                remedy="See whether another process on the same file was stopped in the middle of a commit.",
            )

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._next_batch()
            if batch:
                self._answer(batch)
            del batch  # or its answers would live on until the next question
            if self._rest is not None and self._queue.empty():
                self._rest()

    def _next_batch(self) -> tuple[list[Asked[Question]], bool]:
        """What waits, after at least one question came; and whether the lane is still open."""
        batch: list[Asked[Question]] = []
        asked = self._queue.get()
        while asked is not None:
            if not asked.is_withdrawn:
                batch.append(asked)
            if len(batch) >= BATCH_MAX:
                return batch, True
            try:
                asked = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _answer(self, batch: list[Asked[Question]]) -> None:
        try:
            self._work(batch)
        except BaseException as error:  # whatever it is, tasks must not wait for ever
            for asked in batch:
                asked.error = error
        for loop in {asked.loop for asked in batch}:
            try:
                loop.call_soon_threadsafe(_wake, [asked.future for asked in batch if asked.loop is loop])
            except RuntimeError:  # that loop is closed: nobody waits there any more
                continue


def _wake(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
