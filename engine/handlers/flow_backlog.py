"""READY steps of flow runs that nobody has begun: what a lost event leaves behind.

In: a store. Out: the inputs of `chart_export` for each eligible step, newest flow runs first. It reads, and writes
nothing: whoever starts from it claims the step as an event's door would, so two at once do the work once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from engine.handlers.flow_steps import FLOW_RUNS, charts_of
from engine.store.port import Index, Order, Store, Where

UNFINISHED: Final = ("RUNNING", "PENDING")
"""Statuses of a flow run that may have steps to do; the flow's own program sets them."""

PAGE: Final = 100
"""Flow runs read at once."""

FLOW_RUNS_READ_MAX: Final = 10_000
"""Flow runs read for one look at each status, the newest first. A step of an older one is begun by its event alone: so
many unfinished flow runs are a trouble of their own, and each look's log says so."""

INDEXES: Final = (Index(FLOW_RUNS, ("status", "runId")),)
"""What the query needs of a store."""


class Backlog(NamedTuple):
    """What waits to be begun: one input of the machine for each, and how many documents were looked at.

    `is_cut`: there are more flow runs than were looked at.
    """

    inputs: tuple[Mapping[str, Any], ...] = ()
    looked_at: int = 0
    is_cut: bool = False


async def backlog(store: Store, read_max: int = FLOW_RUNS_READ_MAX) -> Backlog:
    """Find them. Raises `StoreUnavailableError`."""
    inputs: list[Mapping[str, Any]] = []
    looked_at, is_cut = 0, False
    for status in UNFINISHED:
        where, left = [Where("status", "==", status)], read_max
        while left > 0:
            size = min(PAGE, left)
            # A run's id begins with its date, and is unique: it orders, and it says where the next page begins.
            found = await store.query(FLOW_RUNS, where, [Order("runId", descending=True)], size)
            for key, document in found:
                step_ids = charts_of(key.id, document).eligible
                inputs.extend({"run_id": key.id, "step_id": step_id} for step_id in step_ids)
            looked_at, left = looked_at + len(found), left - len(found)
            if len(found) < size:
                break
            # The order leaves out documents without one; what cannot be read at all is found, and has none.
            last = next((one for _, document in reversed(found) if (one := document.get("runId")) is not None), None)
            if not isinstance(last, str | int | float | bool):
                break
            where = [Where("status", "==", status), Where("runId", "<", last)]
        else:
            is_cut = True
    return Backlog(tuple(inputs), looked_at, is_cut)
