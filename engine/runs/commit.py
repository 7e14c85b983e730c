"""What one step writes: the head, the journal entry, and what its effects ask to be recorded.

Pure. `advance` takes the step within its bounds; `Commit` gathers the writes of one transaction and says
which keys they touch, so that a transaction can ask for them.
"""

import json
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Final, NamedTuple

from engine.core import canonical, event
from engine.core.action import EngineCode, Failure, Remark
from engine.core.bounds import (
    ACTION_S_ASSUMED,
    CONTEXT_BYTES_MAX,
    DOCUMENT_BYTES_MAX,
    EVENT_BYTES_MAX,
    JOURNAL_ENTRIES_MAX,
    MAP_INPUTS_BYTES_MAX,
)
from engine.core.effect import Effect, Finish, Perform, Rest, StartMap
from engine.core.event import Event, StepRefused
from engine.core.machine import Machine
from engine.core.secret import Secrets
from engine.core.snapshot import Snapshot
from engine.core.step import Step, step
from engine.core.write import Create, Delete, Key, Set, Update, Write
from engine.runs.inbox import at_end
from engine.runs.records import (
    ITEMS_PER_CHUNK,
    Head,
    Kept,
    Place,
    chunk_texts,
    entry_writes,
    head_key,
    parts_count,
    parts_of,
)

MAP_LOOK_MS: Final = 60_000
"""How often a parent looks after its map by itself, should the wake of its last child have been lost."""


TEXT_BYTES_MAX: Final = DOCUMENT_BYTES_MAX - 64 * 1024
"""A canonical text inside a document, as stored (its quotes escaped): the rest is for the fields beside it."""

LAST_STEPS: Final = 100
"""Steps that a run whose journal is too long still has, to clean up by its catches."""


def _timeout_s(effect: Perform) -> float:
    return ACTION_S_ASSUMED if effect.timeout_s is None else effect.timeout_s


class Tenure(NamedTuple):
    """Under what a worker commits: who it is, how long its lease is, and what it would begin at once.

    `budget_ms` is the instant by which an action must be over (a function's time limit); `None` is no limit.
    `longest_s` tells how long an action may take. A worker that is stopping has `goes_on=False` and commits
    everything at rest.
    """

    worker: str
    lease_ms: int
    goes_on: bool = True
    budget_ms: int | None = None
    longest_s: Callable[[Perform], float] = _timeout_s

    def lease_end_ms(self, now_ms: int, held_until_ms: int | None) -> int:
        """Until when a run is held that goes on: a lease with two thirds of it left is left as it is.

        Each quick step would otherwise change what the store keeps sorted, for a lease that nobody waits for.
        """
        if held_until_ms is not None and held_until_ms - now_ms >= self.lease_ms * 2 // 3:
            return held_until_ms
        return now_ms + self.lease_ms

    def begins(self, effect: Effect, now_ms: int) -> bool:
        """Whether the worker performs this effect straight after the commit."""
        if not self.goes_on or not isinstance(effect, Perform):
            return False
        return self.budget_ms is None or now_ms + self.longest_s(effect) * 1000 <= self.budget_ms


class Advanced(NamedTuple):
    """One step with the event that it took: the given one, or the refusal that stands in its place.

    `snapshot_text` and `event_text` are both as canonical JSON, as they are stored.
    """

    event: Event
    step: Step
    snapshot_text: str
    event_text: str

    @property
    def effect(self) -> Effect:
        """What the run asks for now: the last effect of the step."""
        return self.step.effects[-1]


class Commit:
    """The writes of one transaction, and the runs that it makes claimable.

    `kept` are items of the map that a redrive enters which succeeded before, by key. `dropped` says which signals of
    the run are lost with its end.
    """

    __slots__ = ("dropped", "kept", "now_ms", "secrets", "tenure", "token", "woken", "writes")

    def __init__(
        self, now_ms: int, token: str, tenure: Tenure, secrets: Secrets, kept: Mapping[str, Kept] | None = None
    ) -> None:
        self.now_ms = now_ms
        self.token = token
        self.tenure = tenure
        self.secrets = secrets
        self.kept: Mapping[str, Kept] = {} if kept is None else kept
        self.writes: list[Write] = []
        self.woken: list[tuple[str, int]] = []
        self.dropped: tuple[Remark, ...] = ()

    def unasked(self, documents: Container[Key]) -> list[Key]:
        """The keys that the writes touch and that are not among `documents`; to create one, nothing need be read."""
        return [write.key for write in self.writes if write.key not in documents and not isinstance(write, Create)]

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

    def create(self, taken: Sequence[Advanced], place: Place | None, root: str, *, own: bool) -> Head:
        """Record a new run with the steps it has taken so far; `own`: this worker goes on with it."""
        fence = 1 if own else 0
        head = self._head(taken[-1], fence, place, root, self.now_ms, None, own=own)
        self._record(head, taken, Create)
        return head

    def advance(
        self,
        head: Head,
        taken: Sequence[Advanced],
        *,
        fence: int | None = None,
        own: bool = True,
        is_urgent: bool = False,
    ) -> Head:
        """Record steps of a run that this worker holds, or (with a new `fence`) claims by this very commit.

        `is_urgent`: the run has something to see to before it goes on, so it is left at rest, claimable now.
        """
        number = head.fence if fence is None else fence
        held_until_ms = head.claimable_at_ms if fence is None else None
        after = self._head(
            taken[-1], number, head.place, head.root, head.created_at_ms, held_until_ms, own=own, is_urgent=is_urgent
        )
        if head.inbox or head.leaving:
            waiting = head.inbox
            if after.is_final:
                waiting, self.dropped = at_end(head, after.snapshot.status)
            after = after._replace(inbox=waiting, leaving=head.leaving)
        if head.parts > 1:
            self.writes.extend(Delete(key) for key in head.rest)
        self._record(after, taken, Set)
        return after

    def _record(self, head: Head, taken: Sequence[Advanced], write: type[Create | Set]) -> None:
        """The head, with the token by which this commit is known should its fate be unknown, and the entries."""
        text, run_id = taken[-1].snapshot_text, head.snapshot.run_id
        document = head.to_document(text)
        document["token"] = self.token
        self.writes.append(write(head_key(run_id), document))
        if head.parts > 1:
            for key, part in zip(head.rest, parts_of(text)[1:], strict=True):
                self.writes.append(Create(key, {"text": part}))
        for advanced in taken:
            seq = advanced.step.snapshot.seq
            self.writes += entry_writes(run_id, seq, head.fence, self.token, advanced.event_text)

    def _head(
        self,
        advanced: Advanced,
        fence: int,
        place: Place | None,
        root: str,
        created_at_ms: int,
        held_until_ms: int | None,
        *,
        own: bool,
        is_urgent: bool = False,
    ) -> Head:
        snapshot, effect = advanced.step.snapshot, advanced.effect
        begins = own and not is_urgent and self.tenure.begins(effect, self.now_ms)
        if begins:
            claimable_at_ms: int | None = self.tenure.lease_end_ms(self.now_ms, held_until_ms)
        else:
            claimable_at_ms = self.now_ms if is_urgent else resting_until(effect, snapshot, self.now_ms)
            if claimable_at_ms is not None:
                self.woken.append((snapshot.run_id, claimable_at_ms))
        worker = self.tenure.worker if begins else None
        parts = parts_count(advanced.snapshot_text)
        return Head(snapshot, fence, worker, claimable_at_ms, begins, created_at_ms, self.now_ms, root, place, parts)


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
    advanced = _encoded(event, step(machine, snapshot, event))
    failure = _unwritable(advanced, secrets) or _too_long(advanced.step.snapshot)
    if failure is None:
        return advanced
    is_last = advanced.step.snapshot.seq >= JOURNAL_ENTRIES_MAX + LAST_STEPS
    refusal = StepRefused(event.at_ms, failure, is_last)
    refused = _encoded(refusal, step(machine, snapshot, refusal))
    if not is_last and _unwritable(refused, secrets) is not None:
        refusal = StepRefused(event.at_ms, failure, is_last=True)
        refused = _encoded(refusal, step(machine, snapshot, refusal))
    return refused


def _encoded(taken: Event, step: Step) -> Advanced:
    return Advanced(taken, step, step.snapshot.encode(), canonical.encode_plain(event.to_json(taken)))


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


def _unwritable(advanced: Advanced, secrets: Secrets) -> Failure | None:
    """Why the step's documents cannot be written."""
    text, entry = advanced.snapshot_text, advanced.event_text
    # Most have so few characters that their bytes need not be counted.
    if len(text) * 4 > CONTEXT_BYTES_MAX and len(text.encode()) > CONTEXT_BYTES_MAX:
        return Failure(EngineCode.CONTEXT_TOO_LARGE, f"the snapshot would have more than {CONTEXT_BYTES_MAX} bytes")
    if len(entry) * 4 > EVENT_BYTES_MAX and len(entry.encode()) > EVENT_BYTES_MAX:
        message = f"the event {event.tag(advanced.event)} would have more than {EVENT_BYTES_MAX} bytes"
        return Failure(EngineCode.CONTEXT_TOO_LARGE, message)
    if secrets.found_in(text) or secrets.found_in(entry):
        return Failure(EngineCode.SECRET_LEAKED, "the step would have written a secret value; it was dropped")
    effect = advanced.effect
    return _unwritable_map(effect, secrets) if isinstance(effect, StartMap) else None


def _unwritable_map(effect: StartMap, secrets: Secrets) -> Failure | None:
    size = 0
    for chunk in chunk_texts(effect):
        size += len(chunk.encode())
        if not _fits(chunk):
            return Failure(
                EngineCode.MAP_INVALID, f"the inputs of {ITEMS_PER_CHUNK} items are over {TEXT_BYTES_MAX} bytes"
            )
        if secrets.found_in(chunk):
            return Failure(EngineCode.SECRET_LEAKED, "an item would have held a secret value; it was dropped")
    if size > MAP_INPUTS_BYTES_MAX:
        return Failure(EngineCode.MAP_INVALID, f"the inputs of a map's items are over {MAP_INPUTS_BYTES_MAX} bytes")
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
