"""What waits in a run's inbox, and what of it the run takes. Pure.

A sender appends to the inbox (`deliver.py`); only the run's own commits take from it. A **cancel** is taken as soon as
no call is under way; in the state to which a cancel leads it is not taken again. A **signal** is taken where a waiting
state names it: one that comes early stays, one that no guard lets through is dropped, and says so in the log. A run
that ends keeps its signals where it can be redriven.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from engine.core import canonical
from engine.core.action import INTERRUPTED, ActionKind, Remark
from engine.core.draft import PAUSES
from engine.core.event import ActionReturned, CancelRequested, Event, SignalReceived, TimerFired
from engine.core.machine import Machine, StateKind
from engine.core.snapshot import Snapshot, Status
from engine.core.step import step
from engine.core.write import Document, Key
from engine.errors import IllegalEventError
from engine.runs.records import Cancel, Head, Message, Signal, signal_key
from engine.runs.transaction import MoreKeys

Documents: TypeAlias = Mapping[Key, "Document | None"]


class Found(NamedTuple):
    """What has happened to a run that a worker picks up: the event, if any, and the head without what that used up."""

    event: Event | None
    head: Head
    remarks: tuple[Remark, ...] = ()


def is_taken_by(machine: Machine, snapshot: Snapshot, message: Message) -> bool:
    """Whether a run that stands so takes a message now, its guards apart."""
    if snapshot.status.is_final:
        return False
    state = machine.states[snapshot.state] if snapshot.state else None
    if isinstance(message, Cancel):
        return state is None or state.branches.get("cancel") != ()
    if state is None or snapshot.status is not Status.WAITING or state.kind is not StateKind.WAIT:
        return False
    return f"on:{message.name}" in state.branches and not any(pause in snapshot.timers for pause in PAUSES)


def is_urgent(machine: Machine, head: Head) -> bool:
    """Whether a run has something to see to before it goes on: it is then committed at rest, claimable now."""
    if head.leaving:
        return True
    return any(is_taken_by(machine, head.snapshot, message) for message in head.inbox)


def found_at_claim(machine: Machine, head: Head, begun: ActionKind | None, documents: Documents, now_ms: int) -> Found:
    """What has happened, the lost outcome of a begun call first, then a cancel, then timers and signals as they came.

    `begun` is the kind of the action that an earlier owner began and did not answer. Raises `MoreKeys` for the values
    of signals.
    """
    if begun is ActionKind.UNREPEATABLE:
        return Found(ActionReturned(now_ms, INTERRUPTED, None), head)
    snapshot = head.snapshot
    for message in head.inbox:
        if isinstance(message, Cancel) and is_taken_by(machine, snapshot, message):
            return Found(CancelRequested(now_ms, message.reason), _without(head, message))
    due = min(((at_ms, name) for name, at_ms in snapshot.timers.items() if at_ms <= now_ms), default=None)
    dropped: tuple[Remark, ...] = ()
    for message in head.inbox:
        if not isinstance(message, Signal) or not is_taken_by(machine, snapshot, message):
            continue
        if due is not None and due[0] < message.at_ms:
            break
        head = _without(head, message)
        event = SignalReceived(now_ms, message.name, _value(head, message, documents), message.id)
        problem = refusal(machine, snapshot, event)
        if problem is None:
            return Found(event, head, dropped)
        fields = {"signal": message.name, "signal_id": message.id, "reason": problem.message}
        dropped += (Remark("signal_dropped", fields, "WARNING"),)
    return Found(None if due is None else TimerFired(now_ms, due[1]), head, dropped)


def at_end(head: Head, status: Status) -> tuple[tuple[Message, ...], tuple[Remark, ...]]:
    """What stays of the inbox of a run that ends so, and what is said of the signals that do not.

    A redrive goes on with the signals that no state had taken; of what cannot be redriven they are dropped.
    """
    signals = tuple(message for message in head.inbox if isinstance(message, Signal))
    if status is not Status.SUCCEEDED and head.place is None:
        return signals, ()
    reason = f"the run has ended {status.value.upper()} and no state had taken it"
    fields = [{"signal": signal.name, "signal_id": signal.id, "reason": reason} for signal in signals]
    return (), tuple(Remark("signal_dropped", one, "WARNING") for one in fields)


def refusal(machine: Machine, snapshot: Snapshot, event: Event) -> IllegalEventError | None:
    """Why a run that stands so does not take an event."""
    try:
        step(machine, snapshot, event)
    except IllegalEventError as error:
        return error
    return None


def _without(head: Head, taken: Message) -> Head:
    return head._replace(inbox=tuple(message for message in head.inbox if message is not taken))


def _value(head: Head, signal: Signal, documents: Documents) -> Any:
    key = signal_key(head.run_id, signal.id)
    if key not in documents:
        raise MoreKeys([key])
    document = documents[key]
    return None if document is None else canonical.decode(str(document["value"]))
