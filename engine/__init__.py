"""detent: durable state machines written in YAML, run by a generic engine.

A user's program needs the names below and nothing else:

    import engine

    @engine.action("demo.double", kind="repeatable")
    async def double(request: engine.ActionRequest) -> engine.Outcome:
        return engine.Outcome("done", {"value": request.params["n"] * 2})

    async with engine.Engine(store="sqlite:///detent.db", artifacts="folder:out") as app:
        result = await app.run(app.load("machines/demo.yaml"), {"n": 21}, run_id="demo-1")

Importing this package imports no Google client, no `vcr` and no web framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.core.action import Blob, Decision, Failure, Outcome, Remark
from engine.core.handler import ActionRequest
from engine.core.write import DELETE, Check, Create, Delete, Key, Set, Update
from engine.handlers.registry import action

if TYPE_CHECKING:
    from engine.entry.application import Engine, RunResult

__all__ = [
    "DELETE", "ActionRequest", "Blob", "Check", "Create", "Decision", "Delete", "Engine", "Failure", "Key", "Outcome",
    "Remark", "RunResult", "Set", "Update", "action",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # The engine itself is loaded when it is first named: a module of handlers needs only the words above.
    if name in ("Engine", "RunResult"):
        from engine.entry import application

        return getattr(application, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
