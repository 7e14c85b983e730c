"""What one schedule did to its world: every effect in order, with a name that a person understands.

An effect is a store commit, an action's performing, a call of an outside service, or a write of an artifact. A commit
is named by what it means for runs, read from the documents that it writes: a start, a step, a claim, a renewal, a rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from engine.core import canonical
from engine.core.write import Check, Create, Document, Key, Set, Update, Write
from engine.runs.records import DEFINITIONS, JOURNAL, JOURNAL_PARTS, RUNS

COMMIT: Final = "commit"
TIMER: Final = "timer"
RENEWAL: Final = "renewal"
ACTION: Final = "action"
CALL: Final = "call"
ARTIFACT: Final = "artifact"
KINDS: Final = (COMMIT, TIMER, RENEWAL, ACTION, CALL, ARTIFACT)
"""A timer is a commit whose event is `TimerFired`; a renewal one that only moves a lease's end."""

COMMITS: Final = (COMMIT, TIMER, RENEWAL)
"""The kinds of effects that are commits of the store."""

ENDED: Final = ("succeeded", "failed", "cancelled")


def has_ended(head: Mapping[str, Any]) -> bool:
    """Whether nothing is left to do for a run: it is final, and the items of the maps that it left were told."""
    return head["status"] in ENDED and not head.get("leaving")


@dataclass
class Effect:
    """One effect: `number` from 1 in its schedule, when it began and by whose worker; `is_done` once it has happened.

    `happened` is the place of a commit among all commits and calls, in the order in which they came to stand.
    """

    number: int
    kind: str
    name: str
    worker: str
    at_ms: int
    run_id: str | None = None
    is_done: bool = False
    happened: int = 0
    steps: tuple[StepTaken, ...] = ()
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.kind} {self.number}: {self.name}"


@dataclass(frozen=True)
class StepTaken:
    """A journal entry that a commit wrote."""

    run_id: str
    seq: int
    fence: int
    event: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The event as a person says it: an outcome by its own name."""
        if self.event["event"] == "action_returned":
            return str(self.event["name"])
        if self.event["event"] in ("action_failed", "step_refused"):
            return f"{self.event['failure']['code']}"
        return str(self.event["event"]).replace("_", " ")


def is_effect(writes: Sequence[Write]) -> bool:
    """Whether a commit of these writes changes anything."""
    return any(not isinstance(write, Check) for write in writes)


def described(documents: Mapping[Key, Document | None], writes: Sequence[Write]) -> tuple[str, str, list[StepTaken]]:
    """The kind, the name and the steps of a commit."""
    heads: dict[str, Mapping[str, Any]] = {}
    steps: list[StepTaken] = []
    others: list[str] = []
    messages: list[str] = []
    for write in writes:
        collection = write.key.collection
        if brought := brought_by(write, documents):
            messages += [_message_name(message, documents[write.key]) for message in brought]
            continue
        if isinstance(write, (Create, Set)) and collection == RUNS:
            heads[write.key.id] = write.document
        elif isinstance(write, Create) and collection == JOURNAL:
            entry: Any = write.document
            rest = (other for other in writes if isinstance(other, Create) and other.key.collection == JOURNAL_PARTS)
            more = [str(other.document["text"]) for other in rest if other.key.id.startswith(f"{write.key.id}~")]
            event: Any = canonical.decode("".join((entry["entry"], *more)))
            steps.append(StepTaken(entry["run_id"], entry["seq"], entry["fence"], event))
        elif isinstance(write, Create) and collection == DEFINITIONS:
            others.append(f"keep the definition {write.document['name']}")
        elif not isinstance(write, Check):
            others.append(f"{write.key.collection}/{write.key.id}")
    if steps:
        parts = [_step_name(step, heads, documents) for step in steps]
        fired = any(step.event["event"] == "timer_fired" for step in steps)
        return (TIMER if fired else COMMIT), "; ".join(_numbered(parts)), steps
    if messages:
        return COMMIT, "; ".join(_numbered(messages)), []
    for run_id, head in heads.items():
        return *_lease_name(head, documents.get(Key(RUNS, run_id))), []
    if others and all(isinstance(write, (Update, Check)) and write.key.collection == RUNS for write in writes):
        return COMMIT, f"wake {', '.join(others)}", []
    return COMMIT, ", ".join(others) or "a change of documents", []


def brought_by(write: Write, documents: Mapping[Key, Document | None]) -> list[Mapping[str, Any]]:
    """The messages that a write adds to a run's inbox, which is what a sender does."""
    if not isinstance(write, Update) or ("inbox",) not in write.fields:
        return []
    after: Any = write.fields["inbox",]
    before: Any = documents.get(write.key) or {}
    return list(after[len(before.get("inbox") or ()) :])


def _message_name(message: Mapping[str, Any], head: Any) -> str:
    what = "cancel" if message["kind"] == "cancel" else f"signal {message['name']} ({message['id']})"
    return f"{whose(head)} {head['state']} is sent a {what}"


def _numbered(parts: list[str]) -> list[str]:
    """The first steps of a commit; a map's entering commit starts many runs at once."""
    return parts if len(parts) <= 3 else [*parts[:2], f"and {len(parts) - 2} more"]


def _step_name(step: StepTaken, heads: Mapping[str, Any], documents: Mapping[Key, Any]) -> str:
    head = heads.get(step.run_id)
    before = documents.get(Key(RUNS, step.run_id))
    name = step.run_id if head is None else whose(head)
    if before is None:
        return f"{name} begins in {head['state']}" if head is not None and step.seq == 1 else f"{name} {step.name}"
    goes = "" if head is None or head["state"] == before["state"] else f" → {head['state']}"
    return f"{_machine(head or before)} {before['state']} {step.name}{goes}{_item(head or before)}"


def _lease_name(head: Mapping[str, Any], before: Mapping[str, Any] | None) -> tuple[str, str]:
    if before is None:
        return COMMIT, f"create {whose(head)}"
    place = f"{_machine(head)} {head['state']}"
    if head["fence"] != before["fence"]:
        return COMMIT, f"claim {place}{_item(head)}"
    if head["worker"] is None:
        return COMMIT, f"rest {place}{_item(head)}"
    return RENEWAL, f"renew {place}{_item(head)}"


def whose(head: Mapping[str, Any]) -> str:
    """A run as a person calls it: its machine, and the item that it is for."""
    return f"{_machine(head)}{_item(head)}"


def _machine(head: Mapping[str, Any]) -> str:
    return str(head["machine"])


def _item(head: Mapping[str, Any]) -> str:
    place = head.get("place")
    return "" if not place else f" (item {place['key']})"
