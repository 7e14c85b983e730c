"""A run at rest: state, context, status and `seq`, as one immutable, serialisable value.

The snapshot holds what the events of the journal imply and nothing else: no fence, no lease, no worker.
Those belong to the run's head document (`engine/runs`).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from engine.core import canonical
from engine.core.canonical import Json


class Status(StrEnum):
    """The lifecycle of a run."""

    PENDING = "pending"  # recorded, its first event not yet taken
    RUNNING = "running"  # its state asks for an action or a map
    WAITING = "waiting"  # at rest until a timer or a signal
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether no event can change the run any more."""
        return self in _FINAL


_FINAL = frozenset((Status.SUCCEEDED, Status.FAILED, Status.CANCELLED))


class Snapshot(NamedTuple):
    """State + context + status + seq of one run.

    `visits` counts entries by state, `visits_before` those before the last redrive: a definition counts the
    difference, ids are made from the whole. `attempt` is the attempt of the present action, from 1; `timers`
    maps a timer's name to its due instant in ms; `error` is the failure that ended the run, if one did.
    """

    run_id: str
    machine: str
    version: int
    digest: str
    key: str | None
    seq: int
    state: str
    status: Status
    input: Any
    context: Mapping[str, Any]
    visits: Mapping[str, int]
    attempt: int
    timers: Mapping[str, int]
    started_at_ms: int
    output: Any
    error: Mapping[str, Json] | None
    visits_before: Mapping[str, int] = {}

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return self._asdict()

    def encode(self) -> str:
        """Canonical JSON: equal snapshots have equal texts."""
        return canonical.encode_plain(self._asdict())

    @classmethod
    def decode(cls, text: str) -> "Snapshot":
        """The inverse of `encode`."""
        fields: Any = canonical.decode(text)
        fields["status"] = Status(fields["status"])
        return cls(**fields)


def empty(run_id: str, machine: str, version: int, digest: str, key: str | None = None) -> Snapshot:
    """The snapshot of a run before its first event."""
    return Snapshot(run_id, machine, version, digest, key, 0, "", Status.PENDING, None, {}, {}, 1, {}, 0, None, None)
