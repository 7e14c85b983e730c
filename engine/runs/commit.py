"""What one step writes: the head, the journal entry, and what its effects ask to be recorded.

Pure. `advance` takes the step within its bounds; `Commit` gathers the writes of one transaction and says
which keys they touch, so that a transaction can ask for them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from engine.core import canonical, event
from engine.core.action import EngineCode, Failure
from engine.core.bounds import CONTEXT_BYTES_MAX, DOCUMENT_BYTES_MAX, JOURNAL_ENTRIES_MAX
from engine.core.effect import Effect, Finish, Perform, Rest, StartMap
from engine.core.event import Event, StepRefused
from engine.core.machine import Machine
from engine.core.secret import Secrets
from engine.core.snapshot import Snapshot
from engine.core.step import Step, step
from engine.core.write import Create, Key, Set, Update, Write
from engine.runs.records import Entry, Head, Place, chunk_texts, entry_key, head_key

MAP_LOOK_MS: Final = 60_000
"""How often a parent looks after its map by itself, should the wake of its last child have been lost."""


TEXT_BYTES_MAX: Final = DOCUMENT_BYTES_MAX - 64 * 1024
"""A canonical text inside a document, as stored (its quotes escaped): the rest is for the fields beside it."""

LAST_STEPS: Final = 100
"""Steps that a run whose journal is too long still has, to clean up by its catches."""


class Tenure(NamedTuple):
    """Under what a worker commits: who it is, how long its lease is, and what it would begin at once.

    `budget_ms` is the instant by which an action must be over (a function's time limit); `None` is no limit.
    A worker that is stopping has `goes_on=False` and commits everything at rest.
    """

    worker: str
    lease_ms: int
    goes_on: bool = True
    budget_ms: int | None = None

    def begins(self, effect: Effect, now_ms: int) -> bool:
        """Whether the worker performs this effect straight after the commit."""
        if not self.goes_on or not isinstance(effect, Perform):
            return False
        return self.budget_ms is None or now_ms + (effect.timeout_s or 0) * 1000 <= self.budget_ms


@dataclass
class Commit:
    """The writes of one transaction, and the runs that it makes claimable."""

    now_ms: int
    token: str
    tenure: Tenure
    secrets: Secrets
    writes: list[Write] = field(default_factory=list)
    woken: list[tuple[str, int]] = field(default_factory=list)

    def touched(self) -> list[Key]:
        """Every key that the writes touch."""
        return [write.key for write in self.writes]

    def wake(self, run_id: str) -> None:
        """Make a run at rest claimable at once, also when this very commit writes its head."""
        key = head_key(run_id)
        for index, write in enumerate(self.writes):
            if write.key == key and isinstance(write, (Create, Set)):
                self.writes[index] = write._replace(document={**write.document, "claimable_at_ms": self.now_ms})
                break
        else:
            self.writes.append(Update(key, {("claimable_at_ms",): self.now_ms}))
        self.woken.append((run_id, self.now_ms))

    def create(
        self, snapshot: Snapshot, taken: Sequence[Advanced], place: Place | None, root: str, *, own: bool
    ) -> Head:
        """Record a new run with the steps it has taken so far; `own`: this worker goes on with it."""
        head = self._head(snapshot, taken[-1].effect, 1 if own else 0, place, root, self.now_ms, own=own)
        self.writes.append(Create(head_key(head.run_id), self._document(head)))
        for advanced in taken:
            self._entry(advanced, head.fence)
        return head

    def advance(self, head: Head, taken: Sequence[Advanced], *, fence: int | None = None, own: bool = True) -> Head:
        """Record steps of a run that this worker holds, or (with a new `fence`) claims by this very commit."""
        snapshot = taken[-1].step.snapshot
        number = head.fence if fence is None else fence
        after = self._head(snapshot, taken[-1].effect, number, head.place, head.root, head.created_at_ms, own=own)
        self.writes.append(Set(head_key(head.run_id), self._document(after)))
        for advanced in taken:
            self._entry(advanced, number)
        return after

    def _document(self, head: Head) -> dict[str, Any]:
        """A head with the token by which this commit is known, should its fate be."""
        return {**head.to_document(), "token": self.token}

    def _entry(self, advanced: Advanced, fence: int) -> None:
        snapshot = advanced.step.snapshot
        entry = Entry(snapshot.run_id, snapshot.seq, fence, self.token, advanced.event)
        self.writes.append(Create(entry_key(entry.run_id, entry.seq), entry.to_document()))

    def _head(
        self,
        snapshot: Snapshot,
        effect: Effect,
        fence: int,
        place: Place | None,
        root: str,
        created_at_ms: int,
        *,
        own: bool,
    ) -> Head:
        begins = own and self.tenure.begins(effect, self.now_ms)
        claimable_at_ms = self.now_ms + self.tenure.lease_ms if begins else resting_until(effect, snapshot, self.now_ms)
        if not begins and claimable_at_ms is not None:
            self.woken.append((snapshot.run_id, claimable_at_ms))
        worker = self.tenure.worker if begins else None
        return Head(snapshot, fence, worker, claimable_at_ms, begins, created_at_ms, self.now_ms, root, place)


class Advanced(NamedTuple):
    """One step with the event that it took: the given one, or the refusal that stands in its place."""

    event: Event
    step: Step

    @property
    def effect(self) -> Effect:
        """What the run asks for now: the last effect of the step."""
        return self.step.effects[-1]


def resting_until(effect: Effect, snapshot: Snapshot, now_ms: int) -> int | None:
    """When a run at rest may be claimed; `None` when only an event from outside moves it."""
    match effect:
        case Rest(due_at_ms):
            return due_at_ms
        case StartMap():
            return min([now_ms + MAP_LOOK_MS, *snapshot.timers.values()])
        case Finish():
            return None
        case _:
            return now_ms


def advance(machine: Machine, snapshot: Snapshot, event: Event, secrets: Secrets) -> Advanced:
    """Take an event within the bounds. Raises `IllegalEventError`.

    What passes a bound, or would write a secret, becomes `StepRefused`: a failure of the present state. When
    what its catches make of that cannot be written either, the run ends where it stands.
    """
    taken = step(machine, snapshot, event)
    failure = _unwritable(taken, event, secrets) or _too_long(taken.snapshot)
    if failure is None:
        return Advanced(event, taken)
    is_last = taken.snapshot.seq >= JOURNAL_ENTRIES_MAX + LAST_STEPS
    refusal = StepRefused(event.at_ms, failure, is_last)
    refused = step(machine, snapshot, refusal)
    if not is_last and _unwritable(refused, refusal, secrets) is not None:
        refusal = StepRefused(event.at_ms, failure, is_last=True)
        refused = step(machine, snapshot, refusal)
    return Advanced(refusal, refused)


def holds_secret(secrets: Secrets, write: Write) -> bool:
    """Whether a write of a handler names or holds a secret, in the form in which a store would keep it."""
    match write:
        case Create(key, document) | Set(key, document):
            values: list[Any] = [document]
        case Update(key, fields):
            values = [[list(path), value] for path, value in fields.items()]
        case _:
            key, values = write.key, []
    text = "\n".join((key.id, *(json.dumps(value, ensure_ascii=False, default=repr) for value in values)))
    return secrets.found_in(text)


def _unwritable(taken: Step, given: Event, secrets: Secrets) -> Failure | None:
    """Why the step's documents cannot be written."""
    text = taken.snapshot.encode()
    entry = canonical.encode(event.to_json(given))
    if len(text) > CONTEXT_BYTES_MAX // 4 and (len(text.encode()) > CONTEXT_BYTES_MAX or not _fits(text)):
        return Failure(EngineCode.CONTEXT_TOO_LARGE, f"the snapshot would have more than {CONTEXT_BYTES_MAX} bytes")
    if not _fits(entry):
        message = f"the journal entry of {event.tag(given)} would have more than {TEXT_BYTES_MAX} bytes"
        return Failure(EngineCode.CONTEXT_TOO_LARGE, message)
    if secrets.found_in(text) or secrets.found_in(entry):
        return Failure(EngineCode.SECRET_LEAKED, "the step would have written a secret value; it was dropped")
    effect = taken.effects[-1]
    if isinstance(effect, StartMap):
        for chunk in chunk_texts(effect):
            if not _fits(chunk):
                return Failure(EngineCode.MAP_INVALID, f"the inputs of a map's items are over {TEXT_BYTES_MAX} bytes")
            if secrets.found_in(chunk):
                return Failure(EngineCode.SECRET_LEAKED, "an item would have held a secret value; it was dropped")
    return None


def _fits(text: str) -> bool:
    """Whether a document holds a canonical text: as a JSON string its quotes and backslashes count twice."""
    return len(text) <= TEXT_BYTES_MAX // 4 or len(canonical.encode(text).encode()) <= TEXT_BYTES_MAX


def _too_long(after: Snapshot) -> Failure | None:
    """The first step too many is refused once; the ones after it are for the catches, to clean up, until the last."""
    if after.status.is_final:
        return None
    if after.seq == JOURNAL_ENTRIES_MAX or after.seq >= JOURNAL_ENTRIES_MAX + LAST_STEPS:
        return Failure(EngineCode.JOURNAL_TOO_LONG, f"the run has taken {JOURNAL_ENTRIES_MAX} steps")
    return None
