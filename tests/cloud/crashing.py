"""`main.py`, whose process kills itself before or after one named effect: `DETENT_TEST_CRASH=after:reserve`.

The names: `claim`, `map` (the items of a map are recorded), `reserve` (a unit of the ledger), `call` (the paid one),
`blob` (what it answered is kept), `item_end`, `publish` (a picture gets its name), `manifest`, `finish`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from httpx_aiohttp import AiohttpTransport

from engine.core.write import Create, Set, Update, Write
from engine.entry import assembly
from engine.entry.cloud_function import chart_export_event, sweep

__all__ = ["chart_export_event", "sweep"]

WHEN, _, NAME = os.environ["DETENT_TEST_CRASH"].partition(":")


def reach(when: str, *names: str) -> None:
    """Die here, the server with all its processes, if this is the place."""
    if when == WHEN and NAME in names:
        os.killpg(os.getpgid(0), signal.SIGKILL)


def names_of(writes: Sequence[Write]) -> list[str]:
    return [name for write in writes if (name := _name_of(write))]


def _name_of(write: Write) -> str:
    collection = write.key.collection
    if collection == "flow_runs" and isinstance(write, Update):
        return "claim" if "RUNNING" in write.fields.values() else "finish"
    if collection == "chart_img_accounts_usage":
        return "reserve"
    if collection == "maps" and isinstance(write, Create):
        return "map"
    if collection == "runs" and isinstance(write, Set):
        document: Any = write.document
        if document["place"] is not None and document["status"] in ("succeeded", "failed"):
            return "item_end"
    return ""


class CrashingStore:
    """Another store, with the effects that its commits are."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def transact(self, keys: Any, decide: Any) -> Any:
        names: list[str] = []

        def seen(documents: Any, now_ms: int) -> Any:
            writes, result = decide(documents, now_ms)
            names[:] = names_of(writes)
            reach("before", *names)
            return writes, result

        result = await self._store.transact(keys, seen)
        reach("after", *names)
        return result


def crashing(verb: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A verb of artifacts, with the effect that it is."""

    async def reaching(*given: Any, **named: Any) -> Any:
        reach("before", name)
        result = await verb(*given, **named)
        reach("after", name)
        return result

    return reaching


open_store, open_artifacts = assembly.open_store, assembly.open_artifacts
request = AiohttpTransport.handle_async_request


async def crashing_store(*given: Any, **named: Any) -> Any:
    return CrashingStore(await open_store(*given, **named))


def crashing_artifacts(*given: Any, **named: Any) -> Any:
    """As they are, so that whoever asks of which kind they are is told the truth."""
    artifacts = open_artifacts(*given, **named)
    for verb, name in (("put_blob", "blob"), ("publish", "publish"), ("write", "manifest")):
        setattr(artifacts, verb, crashing(getattr(artifacts, verb), name))
    return artifacts


async def crashing_request(self: Any, *given: Any, **named: Any) -> Any:
    reach("before", "call")
    answer = await request(self, *given, **named)
    reach("after", "call")
    return answer


assembly.open_store = crashing_store
assembly.open_artifacts = crashing_artifacts
AiohttpTransport.handle_async_request = crashing_request
