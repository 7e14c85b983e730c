"""What the store's contract is written with: the shapes of a check, and the few steps that most of them take.

In: a function that opens an empty store. Out: nothing, or an exception that says what the store did wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

from engine.core import canonical
from engine.core.write import Document, Key, Set, Write
from engine.store.port import Documents, Store

OpenStore: TypeAlias = Callable[[], Awaitable[Store]]
StoreCheck: TypeAlias = Callable[[OpenStore], Awaitable[None]]

Disturb: TypeAlias = Callable[[Documents, Sequence[Write]], Sequence[Write]]
OpenDisturbed: TypeAlias = Callable[[Disturb], Awaitable[Store]]
DisturbedCheck: TypeAlias = Callable[[OpenDisturbed], Awaitable[None]]

A: Final = Key("things", "a")
B: Final = Key("things", "b")
C: Final = Key("things", "c")


def name(check: Callable[..., Any]) -> str:
    """A check's name, for reports."""
    return getattr(check, "__name__", repr(check))


@asynccontextmanager
async def opened(open_store: OpenStore) -> AsyncIterator[Store]:
    """A store that is closed at the end, whatever happened."""
    store = await open_store()
    try:
        yield store
    finally:
        await store.close()


async def commit(store: Store, *writes: Write) -> None:
    """Commits writes that rest on nothing."""
    await store.transact([write.key for write in writes], lambda _documents, _now_ms: (writes, None))


async def fetch(store: Store, key: Key) -> Document | None:
    """The document under one key."""
    return (await store.get_many([key]))[key]


async def refused(error: type[BaseException], attempt: Awaitable[Any]) -> BaseException:
    """What `attempt` raises, which must be an `error`."""
    try:
        await attempt
    except error as raised:
        return raised
    raise AssertionError(f"{error.__name__} was expected, and nothing was raised")


def same(left: object, right: object) -> bool:
    """Whether two JSON values are equal to the last detail: 1, 1.0 and true all differ."""
    return canonical.encode(left) == canonical.encode(right)


def touch_unguarded(documents: Documents, writes: Sequence[Write]) -> list[Write]:
    """A `Disturb` that counts up `touched` in every document that a decide read, and neither wrote nor checked."""
    guarded = {write.key for write in writes}
    return [
        Set(key, {**document, "touched": number_in(document.get("touched", 0)) + 1})
        for key, document in documents.items()
        if document is not None and key not in guarded
    ]


def number_in(value: object) -> int:
    """A value that must be an integer."""
    assert isinstance(value, int)
    return value
