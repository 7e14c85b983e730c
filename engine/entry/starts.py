"""Starts that nobody has made: finds what waits for a machine in the store, and runs it.

An event can be lost on its way: an Eventarc trigger without retries drops it, a deployment gap swallows it. For a
machine that works on documents of the store, the documents themselves say what there is to begin. `SOURCES` names for
each such machine who can tell; the runner knows nothing of them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import anyio

from engine.core.machine import Machine
from engine.entry.application import PATIENCE_S, Engine
from engine.errors import DetentError, DocumentUnreadableError, InvalidRequestError, StoreError
from engine.handlers.flow_backlog import Backlog, backlog
from engine.store.port import Store

logger: Final = logging.getLogger("detent")

SOURCES: Final[Mapping[str, Callable[[Store], Awaitable[Backlog]]]] = {"chart_export": backlog}
"""By the name of a machine: what answers the inputs of its runs that should have begun."""

STARTS_AT_ONCE: Final = 4
"""Starts under way together: each drives its run and the items of its maps."""


class Begun(NamedTuple):
    """How many runs were started (or joined), how many were left for want of time, and how many were refused."""

    started: int = 0
    left: int = 0
    refused: int = 0


def expect_source(machine: Machine) -> None:
    """Refuse a machine of which nobody can tell what waits for it. Raises `InvalidRequestError`."""
    if machine.name not in SOURCES:
        raise InvalidRequestError(
            f"nothing in the store says what waits for {machine.name}.",
            remedy=f"Machines that are started from documents: {', '.join(SOURCES)}.",
        )


async def start_waiting(
    app: Engine, machine: Machine, *, longest_s: float = 0, patience_s: float = PATIENCE_S
) -> Begun:
    """Run what waits for a machine, a few at once; no more is begun when less than `longest_s` of the time is left.

    Raises `StoreError` when the store is away or damaged.
    """
    expect_source(machine)
    found = await SOURCES[machine.name](app.store)
    if found.is_cut:
        logger.warning("backlog_cut", extra={"fields": {"machine": machine.name, "lookedAt": found.looked_at}})
    ends: list[str] = []
    trouble: list[StoreError] = []
    waiting = list(reversed(found.inputs))

    def refuse(value: Mapping[str, Any], error: DetentError) -> None:
        ends.append("refused")
        logger.warning("start_refused", extra={"fields": {**_named(value), "error": error.message}})

    async def begin_one_after_another() -> None:
        while waiting and app.time_left_s >= longest_s and not trouble:
            value = waiting.pop()
            try:
                await app.run(machine, value, patience_s=patience_s)
                ends.append("started")
            except DocumentUnreadableError as error:  # of this one alone
                refuse(value, error)
            except StoreError as error:
                trouble.append(error)
                waiting.append(value)
            except DetentError as error:  # of this one alone
                refuse(value, error)

    async with anyio.create_task_group() as tasks:
        for _ in range(min(STARTS_AT_ONCE, len(waiting))):
            tasks.start_soon(begin_one_after_another)
    if trouble:
        raise trouble[0]
    return Begun(ends.count("started"), len(waiting), ends.count("refused"))


def _named(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"runId": value.get("run_id"), "stepId": value.get("step_id")}
