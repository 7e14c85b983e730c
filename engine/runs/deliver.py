"""Signals and cancels: how they come into a run's inbox. One transaction, beside whoever holds the run.

The sender writes `inbox` and, where the run is at rest and takes the message now, the instant from which it may be
claimed; never the fence, the worker or the snapshot. So it fights no owner. A signal's id is a create-only document:
the same id again, also after the run has ended, changes nothing and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from engine.core import canonical
from engine.core.bounds import INBOX_MAX, KEY_CHARS_MAX, REASON_CHARS_MAX, SIGNAL_BYTES_MAX
from engine.core.event import CancelRequested, SignalReceived
from engine.core.machine import Machine, StateKind
from engine.core.snapshot import Status
from engine.core.write import Check, Create, Document, Key, Update, Write
from engine.errors import IllegalEventError, InvalidRequestError
from engine.runs.inbox import is_taken_by, refusal
from engine.runs.records import Cancel, Head, Message, Signal, head_key, inbox_document, signal_key
from engine.runs.runs import Runs
from engine.runs.transaction import head_in

Documents: TypeAlias = Mapping[Key, "Document | None"]


class Delivered(NamedTuple):
    """What became of a message: the run's head with it, and whether this delivery put it there.

    `is_due`: the run takes it at its next claim, which may be now. Otherwise whoever holds the run takes it with its
    next commit, or, a signal, it stays until a state waits for it.
    """

    head: Head
    is_new: bool
    is_due: bool


async def cancel(runs: Runs, run_id: str, reason: str = "") -> Delivered:
    """Ask that a run end. A second cancel while one waits changes nothing.

    Raises `InvalidRequestError` for an unknown run or a reason that cannot be kept, `IllegalEventError` for a run that
    has ended or is on the way of its `cancel` already.
    """
    if len(reason) > REASON_CHARS_MAX:
        raise InvalidRequestError(
            f"the reason has {len(reason)} characters; it may have {REASON_CHARS_MAX}.", remedy="Say it shorter."
        )
    _plain(reason, "the reason")
    runs.secrets.refuse(reason, sink="the reason of a cancel")
    machine = await _machine_of(runs, run_id)
    key = head_key(run_id)
    mine: list[Cancel] = []  # of this very delivery, should its commit have to be made again

    def decide(documents: Documents, now_ms: int, token: str) -> tuple[Sequence[Write], Delivered]:
        head = _head(documents, run_id)
        if mine and head.snapshot.status is Status.CANCELLED:
            return [Check(key)], Delivered(head, is_new=True, is_due=False)
        _expect_living(head, "cancelled")
        waiting = next((message for message in head.inbox if isinstance(message, Cancel)), None)
        message = Cancel(now_ms, reason)
        if waiting is not None:
            return [Check(key)], Delivered(head, is_new=waiting in mine, is_due=head.worker is None)
        if not is_taken_by(machine, head.snapshot, message):
            raise IllegalEventError(
                f"run {run_id} stands in {head.snapshot.state}, which the definition gives no way out of by a cancel.",
                remedy="It is on the way of an earlier cancel, or must not be cut short here; let it go on.",
            )
        mine.append(message)
        return _appended(head, machine, message, now_ms)

    delivered: Delivered = await runs.transact([key], decide)
    return delivered


async def cancel_unfinished(runs: Runs, run_ids: Sequence[str], reason: str) -> tuple[tuple[str, int], ...]:
    """Cancel those of some runs that have not ended; answers those that may be claimed now, each with its instant.

    One that stands where the definition takes no cancel takes it in the next state, unless it is there by a cancel.
    """
    machines = {run_id: await _machine_of(runs, run_id) for run_id in run_ids}
    uncancelled: dict[str, int] = {}  # by run, the step up to which it has taken no cancel
    woken: list[tuple[str, int]] = []
    wanted = list(run_ids)
    while wanted:

        def decide(documents: Documents, now_ms: int, token: str) -> tuple[Sequence[Write], Any]:
            writes: list[Write] = []
            due: list[tuple[str, int]] = []
            unsure: list[str] = []
            for run_id in wanted:  # noqa: B023 - the transaction is over before the next round
                head = _head(documents, run_id)
                message = Cancel(now_ms, reason)
                if head.is_final or any(isinstance(waiting, Cancel) for waiting in head.inbox):
                    continue
                is_taken = is_taken_by(machines[run_id], head.snapshot, message)
                if not is_taken and uncancelled.get(run_id) != head.snapshot.seq:
                    unsure.append(run_id)
                    continue
                made, delivered = _appended(head, machines[run_id], message, now_ms)
                writes += made
                if delivered.is_due:
                    due.append((run_id, now_ms))
            return writes, (due, unsure)

        due, unsure = await runs.transact([head_key(run_id) for run_id in wanted], decide)
        woken += due
        wanted = []
        for run_id in unsure:
            entries = await runs.journal(run_id)
            if not any(isinstance(entry.event, CancelRequested) for entry in entries):
                uncancelled[run_id] = len(entries)
                wanted.append(run_id)
    return tuple(woken)


async def signal(runs: Runs, run_id: str, name: str, value: Any, signal_id: str) -> Delivered:
    """Send a signal, exactly once for each `signal_id`; to a run that waits for it, or before it does.

    Raises `InvalidRequestError` for an unknown run, a name that no state of its machine waits for, a value or id that
    cannot be kept, or an id that was another signal's; `IllegalEventError` when the run has ended, its inbox is full,
    or it waits for the name and no guard lets this value through. Nothing is recorded then.
    """
    value = _plain(value, "the value")
    text = canonical.encode(value)
    if len(text.encode()) > SIGNAL_BYTES_MAX:
        raise InvalidRequestError(
            f"the value of the signal has more than {SIGNAL_BYTES_MAX} bytes.", remedy="Send where it can be found."
        )
    if not signal_id or len(signal_id) > KEY_CHARS_MAX or not signal_id.isprintable():
        raise InvalidRequestError(
            f"a signal's id must have 1 to {KEY_CHARS_MAX} printable characters.", remedy="Choose another."
        )
    _plain(signal_id, "the id")
    for sent in (text, signal_id):
        runs.secrets.refuse(sent, sink="a signal")
    machine = await _machine_of(runs, run_id)
    sending = _Sending(machine, run_id, name, text, signal_id)
    keys = [head_key(run_id), signal_key(run_id, signal_id)]
    delivered: Delivered = await runs.transact(keys, sending.decide)
    return delivered


class _Sending:
    """One signal: pure over the documents of its transaction."""

    def __init__(self, machine: Machine, run_id: str, name: str, text: str, signal_id: str) -> None:
        self._machine = machine
        self._run_id = run_id
        self._name = name
        self._text = text
        self._id = signal_id
        self._tokens: set[str] = set()  # of this very delivery, should its commit have to be made again

    def decide(self, documents: Documents, now_ms: int, token: str) -> tuple[Sequence[Write], Delivered]:
        """The delivery over the documents as they are."""
        key = signal_key(self._run_id, self._id)
        head, document = _head(documents, self._run_id), documents[key]
        if document is not None:
            if (document["name"], document["value"]) != (self._name, self._text):
                raise InvalidRequestError(
                    f"the id {self._id!r} was that of another signal to run {self._run_id}.",
                    remedy="Give each signal an id of its own.",
                )
            return [Check(key)], Delivered(head, is_new=document["token"] in self._tokens, is_due=False)
        message = Signal(now_ms, self._id, self._name)
        self._expect_taker(head, message)
        takes_it_next = head.worker is None and not head.inbox and is_taken_by(self._machine, head.snapshot, message)
        if takes_it_next:
            event = SignalReceived(now_ms, self._name, canonical.decode(self._text), self._id)
            problem = refusal(self._machine, head.snapshot, event)
            if problem is not None:
                raise problem
        self._tokens.add(token)
        writes, delivered = _appended(head, self._machine, message, now_ms)
        kept: dict[str, Any] = {"run_id": self._run_id, "name": self._name, "value": self._text, "token": token}
        return [*writes, Create(key, {**kept, "sent_at_ms": now_ms})], delivered

    def _expect_taker(self, head: Head, message: Signal) -> None:
        names = signals_of(self._machine)
        if self._name not in names:
            known = f"It waits for {', '.join(names)}." if names else "It waits for no signal at all."
            raise InvalidRequestError(
                f"no state of {self._machine.name} waits for a signal {self._name!r}.", remedy=known
            )
        _expect_living(head, "signalled")
        waiting = [other for other in head.inbox if isinstance(other, Signal)]
        if len(waiting) >= INBOX_MAX and not self._frees(head, message, waiting):
            raise IllegalEventError(
                f"{INBOX_MAX} signals wait in the inbox of run {self._run_id} already.",
                remedy="Send it again when the run has taken some.",
            )

    def _frees(self, head: Head, message: Signal, waiting: Sequence[Signal]) -> bool:
        """Whether the run stands still until a signal like this one comes: none that waits moves it."""
        is_taken = [is_taken_by(self._machine, head.snapshot, one) for one in (message, *waiting)]
        return is_taken[0] and not any(is_taken[1:])


def signals_of(machine: Machine, name: str | None = None) -> list[str]:
    """The signals that states of a machine, or the one with a name, wait for, in the order of the text."""
    waits = (state for state in machine.states.values() if state.kind is StateKind.WAIT and name in (None, state.name))
    names = (event.removeprefix("on:") for state in waits for event in state.branches if event.startswith("on:"))
    return list(dict.fromkeys(names))


def _appended(head: Head, machine: Machine, message: Message, now_ms: int) -> tuple[list[Write], Delivered]:
    """The write that puts a message into an inbox. A run at rest that takes it may be claimed now."""
    inbox = (*head.inbox, message)
    fields: dict[tuple[str, ...], Any] = {("inbox",): inbox_document(inbox), ("updated_at_ms",): now_ms}
    is_due = head.worker is None and is_taken_by(machine, head.snapshot, message)
    at_ms = head.claimable_at_ms
    if is_due:
        at_ms = now_ms if at_ms is None else min(at_ms, now_ms)
        fields["claimable_at_ms",] = at_ms
    after = head._replace(inbox=inbox, claimable_at_ms=at_ms, updated_at_ms=now_ms)
    return [Update(head_key(head.run_id), fields)], Delivered(after, is_new=True, is_due=is_due)


async def _machine_of(runs: Runs, run_id: str) -> Machine:
    head = await runs.get(run_id)
    if head is None:
        raise unknown(run_id)
    return await runs.definitions.of(head.snapshot)


def _head(documents: Documents, run_id: str) -> Head:
    head = head_in(documents, head_key(run_id))
    if head is None:
        raise unknown(run_id)
    return head


def unknown(run_id: str) -> InvalidRequestError:
    """The error for a run that the store does not hold."""
    return InvalidRequestError(f"there is no run {run_id!r}.", remedy="See `detent runs list`.")


def _expect_living(head: Head, verb: str) -> None:
    if head.is_final:
        raise IllegalEventError(
            f"run {head.run_id} has ended {head.snapshot.status.value.upper()} and cannot be {verb}.",
            remedy="Nothing was changed.",
        )


def _plain(value: Any, what: str) -> Any:
    """A value as JSON holds it, without what would be cut or lost on the way."""
    try:
        value = canonical.plain(value, what)
    except ValueError as error:
        raise InvalidRequestError(f"{error}.", remedy="Give JSON.") from None
    if "\\u0000" in canonical.encode(value):  # CEL cuts a text there
        raise InvalidRequestError(f"{what} holds a NUL character.")
    return value


CANCELLED_WITH_MAP: Final = "The map that it belongs to was left"
"""The reason that the items of a map are given."""
