"""detent: durable state machines written in YAML, run by a generic engine.

A user's program needs the names below and nothing else:

    import engine

    @engine.action("demo.double", kind="repeatable")
    async def double(request: engine.ActionRequest) -> engine.Outcome:
        return engine.Outcome("done", {"value": request.params["n"] * 2})

    async with engine.Engine(store="sqlite:///detent.db", artifacts="folder:out") as app:
        result = await app.run(app.load("machines/demo.yaml"), {"n": 21}, run_id="demo-1")

Each name is loaded when it is first used: a module of handlers needs no engine, and `detent --help` none of them.
Importing this package imports no Google client, no `vcr` and no web framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from engine import errors as errors  # a part of the interface that a program may name without importing it

if TYPE_CHECKING:
    from engine.core.action import Blob, Decision, Failure, Outcome, Remark
    from engine.core.handler import ActionRequest
    from engine.core.write import DELETE, Check, Create, Delete, Key, Set, Update
    from engine.entry.application import Engine, RunResult
    from engine.handlers.registry import action

__all__ = [
    "DELETE", "ActionRequest", "Blob", "Check", "Create", "Decision", "Delete", "Engine", "Failure", "Key", "Outcome",
    "Remark", "RunResult", "Set", "Update", "action",
]  # fmt: skip

_HOMES: Final = {
    "engine.core.action": ("Blob", "Decision", "Failure", "Outcome", "Remark"),
    "engine.core.handler": ("ActionRequest",),
    "engine.core.write": ("DELETE", "Check", "Create", "Delete", "Key", "Set", "Update"),
    "engine.entry.application": ("Engine", "RunResult"),
    "engine.handlers.registry": ("action",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(home), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
