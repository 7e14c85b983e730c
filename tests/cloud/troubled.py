"""`main.py` over a Firestore that is in trouble, after it was opened: `DETENT_TEST_TROUBLE` names which.

`late`: each commit is sent after a while. `aborted`: every third commit is ABORTED. `lost`: every third commit is made,
and its answer lost.
"""

from __future__ import annotations

import os
from typing import Any

import anyio
import grpc

from engine.entry.cloud_function import chart_export_event, sweep
from engine.store.firestore import FirestoreStore
from tests.store.firestore_wire import Trouble, Wire, after, before

__all__ = ["chart_export_event", "sweep"]

LATE_S = 0.3
TROUBLES: dict[str, Trouble | None] = {
    "late": None,
    "aborted": before(grpc.StatusCode.ABORTED),
    "lost": after(grpc.StatusCode.UNAVAILABLE),
}
NAME = os.environ["DETENT_TEST_TROUBLE"]

open_store = FirestoreStore.open


async def troubled_store(*given: Any, **named: Any) -> FirestoreStore:
    wire = Wire()
    store = await open_store(*given, **named, interceptors=wire.interceptors)
    if NAME == "late":
        wire.before_commit = lambda: anyio.sleep(LATE_S)
    wire.trouble = lambda method, number: TROUBLES[NAME] if method == "Commit" and number % 3 == 0 else None
    return store


FirestoreStore.open = troubled_store  # type: ignore[method-assign]  # what this module is for
