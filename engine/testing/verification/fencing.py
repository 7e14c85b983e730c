"""Who may write what of a run: the rule `stale-write`, judged for each commit from the documents that it saw and wrote.

A run's head and journal are written by the worker that holds it under the fence that it writes, or by one that claims
it by this very commit: fence plus one, and only when its lease is over or it rests and is due. A wake and a message
from outside change neither fence, worker nor snapshot, and are anybody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from engine.core.write import Create, Document, Key, Set, Write
from engine.runs.records import RUNS
from engine.testing.verification import trace
from engine.testing.verification.world import Problem

STALE: Final = "stale-write"
TAKEN: Final = "lease-ignored"


def judge(
    worker: str,
    now_ms: int,
    effect: trace.Effect,
    documents: Mapping[Key, Document | None],
    writes: Sequence[Write],
) -> Iterable[Problem]:
    """The problems of one commit by `worker`, whose clock shows `now_ms`."""
    fences: dict[str, int] = {}
    for write in writes:
        if write.key.collection == RUNS and isinstance(write, (Create, Set)):
            head: Any = write.document
            before: Any = documents.get(write.key)
            fences[write.key.id] = head["fence"]
            if before is not None:
                yield from _of_head(worker, now_ms, effect, before, head)
    for step in effect.steps:
        if fences.get(step.run_id) != step.fence:
            yield Problem(STALE, f"{effect}: {worker} wrote entry {step.seq} of {step.run_id} under fence {step.fence}")


def _of_head(
    worker: str, now_ms: int, effect: trace.Effect, before: Mapping[str, Any], head: Mapping[str, Any]
) -> Iterable[Problem]:
    # `seq` for itself: a large snapshot is in parts, and what has changed of it may not lie in the first.
    changed = [name for name in ("fence", "worker", "begun", "seq", "snapshot") if head[name] != before[name]]
    if head["fence"] == before["fence"] + 1:
        at_ms = before["claimable_at_ms"]
        if before["worker"] not in (None, worker) and at_ms is not None and at_ms > now_ms:
            left_s = (at_ms - now_ms) / 1000
            yield Problem(
                TAKEN, f"{effect}: {worker} took it from {before['worker']}, whose lease had {left_s:g} s left"
            )
    elif changed and (head["fence"] != before["fence"] or before["worker"] != worker):
        yield Problem(
            STALE,
            f"{effect}: {worker} wrote it under fence {head['fence']}, "
            f"and it was held by {before['worker'] or 'nobody'} under fence {before['fence']}",
        )
