"""The ports of one process image: store, artifacts, clock and actions, with a crash point at each effect.

Behind them lies the one world that all processes share. A dead process reaches it no more: whatever its tasks still
ask for while they unwind raises `Crash`. One that stands still waits at its next port until it may go on.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from engine.artifacts.port import Stored
from engine.core.action import ActionKind
from engine.core.handler import ActionRequest, Handler
from engine.core.write import Document, Key
from engine.errors import ContentionError, StoreUnavailableError
from engine.store.port import ATTEMPTS_MAX, Decide, Found, Order, Where
from engine.testing.verification import trace
from engine.testing.verification.schedule import AFTER, BEFORE

if TYPE_CHECKING:
    from engine.testing.verification.process import Process

Result = TypeVar("Result")

PERFORMING: ContextVar[ActionRequest | None] = ContextVar("performing", default=None)
"""The action that the present task performs: an effect inside of it belongs to its run."""


class Crash(BaseException):  # no handler's `except Exception` may survive the death of its process
    """The process is dead."""


class ProcessClock:
    """The clock of one process: simulated time, and what this process's clock is off by."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def now_ms(self) -> int:
        """See `Clock`."""
        return self._process.universe.now_ms() + self._process.offset_ms

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await self._process.go()
        await anyio.sleep(max(seconds, 0))
        await self._process.go()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> ProcessTimer:
        """See `Clock`."""
        return ProcessTimer(self._process, seconds, callback)


class ProcessTimer:
    """A callback of one process: it waits while the process stands still, and a dead process has none."""

    def __init__(self, process: Process, seconds: float, callback: Callable[[], object]) -> None:
        self._process = process
        self._callback = callback
        self._handle = asyncio.get_running_loop().call_later(max(seconds, 0), self._due)
        self._is_cancelled = False

    def cancel(self) -> None:
        """See `Timer`."""
        self._is_cancelled = True
        self._handle.cancel()

    def _due(self) -> None:
        if self._process.is_frozen:
            self._process.when_thawed.append(self._due)
        elif self._process.is_alive and not self._is_cancelled:
            self._callback()


class ProcessStore:
    """The store as one process reaches it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._universe = process.universe

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Document | None]:
        """See `Store`."""
        await self._enter()
        found = await self._universe.store.get_many(keys)
        await self._process.go()
        return found

    async def query(
        self, collection: str, where: Sequence[Where] = (), order_by: Sequence[Order] = (), limit: int | None = None
    ) -> list[Found]:
        """See `Store`."""
        await self._enter()
        found = await self._universe.store.query(collection, where, order_by, limit)
        await self._process.go()
        return found

    async def close(self) -> None:
        """The world's store outlives the process."""

    async def transact(self, keys: Sequence[Key], decide: Decide[Result]) -> Result:
        """See `Store`. Between the decide and its commit others may commit, as the semantics allow it."""
        process, universe = self._process, self._universe
        effect: trace.Effect | None = None
        for attempt in range(ATTEMPTS_MAX):
            await self._enter()
            documents = await universe.store.get_many(keys)
            seen = universe.store.texts()
            await process.go()
            writes, result = decide(documents, process.clock.now_ms())
            if effect is None and trace.is_effect(writes):
                effect = universe.began_commit(process, documents, writes)
                met = await universe.meet(process, effect, BEFORE)
                await self._enter()
                if met and universe.is_locking:
                    continue  # a store that locks decides while nobody else commits: so once more, now
            guarded = keys if universe.is_locking else [write.key for write in writes]
            if not await universe.commit(seen, keys, writes, guarded, process, disturb=attempt == 0):
                continue
            if effect is None or not trace.is_effect(writes):
                return result
            universe.committed(process, effect, documents, writes)
            await universe.meet(process, effect, AFTER)
            await process.go()
            return result
        raise ContentionError(f"a decide met a conflict in each of {ATTEMPTS_MAX} attempts; nothing was written.")

    async def _enter(self) -> None:
        await self._process.go()
        if self._universe.is_away:
            raise StoreUnavailableError("the store is away: the schedule says so.", remedy="Try again later.")


class ProcessArtifacts:
    """The artifacts as one process reaches them."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._artifacts = process.universe.artifacts

    def uri(self, name: str) -> str:
        """See `Artifacts`."""
        return self._artifacts.uri(name)

    async def stat(self, name: str) -> Stored | None:
        """See `Artifacts`."""
        await self._process.go()
        return await self._artifacts.stat(name)

    async def read(self, name: str) -> bytes:
        """See `Artifacts`."""
        await self._process.go()
        return await self._artifacts.read(name)

    async def write(self, name: str, content: bytes, *, content_type: str, expected: str) -> Stored:
        """See `Artifacts`."""

        async def write() -> Stored:
            return await self._artifacts.write(name, content, content_type=content_type, expected=expected)

        return await self._process.effect(trace.ARTIFACT, f"write {name}", write)

    async def put_blob(self, content: bytes, *, content_type: str) -> str:
        """See `Artifacts`."""

        async def put() -> str:
            return await self._artifacts.put_blob(content, content_type=content_type)

        return await self._process.effect(trace.ARTIFACT, f"keep a blob of {len(content)} bytes{item()}", put)

    async def get_blob(self, sha256: str) -> bytes:
        """See `Artifacts`."""
        await self._process.go()
        return await self._artifacts.get_blob(sha256)

    async def publish(self, sha256: str, name: str, *, content_type: str) -> Stored:
        """See `Artifacts`."""

        async def publish() -> Stored:
            return await self._artifacts.publish(sha256, name, content_type=content_type)

        return await self._process.effect(trace.ARTIFACT, f"publish {name}", publish)

    async def close(self) -> None:
        """The world's artifacts outlive the process."""


class ProcessActions(Mapping[str, Handler]):
    """The handlers as one process performs them: each performing is an effect, and none needs a thread."""

    def __init__(self, process: Process, handlers: Mapping[str, Handler]) -> None:
        self._process = process
        self._handlers = handlers

    def __getitem__(self, name: str) -> Handler:
        handler = self._handlers[name]
        if handler.declaration.kind is ActionKind.TRANSACTIONAL:
            return handler

        async def performed(request: ActionRequest) -> Any:
            PERFORMING.set(request)
            return await self._process.perform(handler, request, lambda: _called(handler.function, request))

        return handler._replace(function=performed)

    def __iter__(self) -> Iterator[str]:
        return iter(self._handlers)

    def __len__(self) -> int:
        return len(self._handlers)


async def _called(function: Callable[[ActionRequest], Any | Awaitable[Any]], request: ActionRequest) -> Any:
    answer = function(request)
    return await answer if inspect.isawaitable(answer) else answer


def item() -> str:
    """For which item the present task acts, as the end of an effect's name."""
    request = PERFORMING.get()
    return f" (item {request.item_key})" if request is not None and request.item_key else ""
