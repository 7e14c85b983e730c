"""The store as a specification: a dictionary, and each verb as short as its meaning allows.

In: keys, writes and queries of `engine/store/port.py`. Out: documents as new containers, so that nobody can
change the store through an alias. It forgets everything when it goes.

With `disturb` it is the test of the port's rule "whatever an answer rests on, its decide writes or checks":
between a decide and its commit another client, whose writes `disturb` names, commits first. A change of a
guarded document makes the store call decide afresh; a change of any other goes unnoticed, as on Firestore.

Never shared between threads. A verb lets other tasks run before its work, never in the middle of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import anyio.lowlevel

from engine.core.write import Document, Key, Write
from engine.errors import ContentionError, StoreUnavailableError
from engine.store.port import (
    ATTEMPTS_MAX,
    UNREADABLE,
    Decide,
    Documents,
    Found,
    Order,
    Result,
    Where,
    created_unasked,
    document_of,
    reading_failure,
    select,
    settle,
)

Disturb: TypeAlias = Callable[[Documents, Sequence[Write]], Sequence[Write]]
"""What another client commits after a decide saw these documents and answered with these writes."""


class MemoryStore:
    """A `Store` in memory; see the module. `now_ms` answers milliseconds since 1970.

    `texts` is what it holds at first: canonical JSON by key, as `texts()` answers it.
    """

    def __init__(
        self,
        now_ms: Callable[[], int] | None = None,
        disturb: Disturb | None = None,
        texts: Mapping[Key, str] | None = None,
    ) -> None:
        self._now_ms = now_ms or _system_now_ms
        self._disturb = disturb
        self._texts: dict[Key, str] = dict(texts or {})
        self._closed = False

    def texts(self) -> dict[Key, str]:
        """Every document as canonical JSON, by key."""
        return dict(self._texts)

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Document | None]:
        await self._enter()
        return self._read(keys)

    async def transact(self, keys: Sequence[Key], decide: Decide[Result]) -> Result:
        await self._enter()
        keys = list(keys)
        for _ in range(ATTEMPTS_MAX):
            seen = {key: self._texts.get(key) for key in keys}
            writes, result = decide(self._read(keys), self._now_ms())
            after = settle(seen, writes)
            if self._disturb is not None:
                self._let_another_commit(keys, writes)
            if all(self._texts.get(key) == seen.get(key) for key in after):
                self._keep(after)
                return result
            keys += created_unasked(seen, writes)
        raise ContentionError(
            f"a decide met a conflict in each of {ATTEMPTS_MAX} attempts; nothing was written.",
            remedy="Try again later, or let fewer writers share a document.",
        )

    async def query(
        self, collection: str, where: Sequence[Where] = (), order_by: Sequence[Order] = (), limit: int | None = None
    ) -> list[Found]:
        await self._enter()
        found = (Found(key, _found(text)) for key, text in self._texts.items() if key.collection == collection)
        return select(found, where, order_by, limit)

    async def close(self) -> None:
        self._closed = True

    async def _enter(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self._closed:
            raise StoreUnavailableError("the store is closed.", remedy="Open it again.")

    def _read(self, keys: Sequence[Key]) -> dict[Key, Document | None]:
        texts = {key: self._texts.get(key) for key in keys}
        try:
            return {key: None if text is None else document_of(text) for key, text in texts.items()}
        except ValueError as error:
            raise reading_failure(keys, texts, error) from None

    def _let_another_commit(self, keys: Sequence[Key], writes: Sequence[Write]) -> None:
        assert self._disturb is not None
        disturbances = self._disturb(self._read(keys), writes)
        seen = {write.key: self._texts.get(write.key) for write in disturbances}
        self._keep(settle(seen, disturbances))

    def _keep(self, after: dict[Key, str | None]) -> None:
        for key, text in after.items():
            if text is None:
                self._texts.pop(key, None)
            else:
                self._texts[key] = text


def _found(text: str) -> Document:
    try:
        return document_of(text)
    except ValueError:
        return UNREADABLE


def _system_now_ms() -> int:
    return time.time_ns() // 1_000_000
