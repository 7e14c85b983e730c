"""Redrive: a run that FAILED or was CANCELLED starts again from the state that failed. See LEASES.md.

Which state that is, is read from the journal (`failed_state`, pure). The commit that redrives is a step like any other,
`RunRedriven`, under a new fence. A keyed run must still be the newest of its key and is given its work anew: the first
action, when it is transactional, is performed again in that commit and must answer what it answered at the start. Items
of a map that succeeded are kept: their child runs stand for them, and only the others begin again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from engine.core import canonical
from engine.core.action import ActionKind
from engine.core.effect import Perform
from engine.core.event import ActionReturned, MapFinished, RunRedriven, RunStarted
from engine.core.machine import Branch, Machine, StateKind
from engine.core.scope import MomentScope
from engine.core.snapshot import Snapshot, Status, empty
from engine.core.step import step
from engine.core.write import Check, Document, Key, Write
from engine.errors import IllegalEventError, InvalidRequestError
from engine.runs import inbox, maps
from engine.runs.claim import Claim, Committed
from engine.runs.commit import Commit, advance
from engine.runs.deliver import unknown
from engine.runs.leaving import READ_BATCH, item_entries
from engine.runs.reading import read_items, read_status, read_tally, sound
from engine.runs.records import (
    ITEMS_PER_CHUNK,
    RUNS,
    Entry,
    Head,
    Kept,
    Place,
    child_run_id,
    entry_key,
    head_key,
    kept_key,
    map_key,
    run_key_key,
)
from engine.runs.replay import Replayed, replayed
from engine.runs.runs import Runs
from engine.runs.start import FirstAction
from engine.runs.transaction import MoreKeys
from engine.store.port import Where

Documents: TypeAlias = Mapping[Key, "Document | None"]

END_OF_TIME_MS: Final = 2**62
"""Later than any instant at which a run may be claimed."""

FirstOf: TypeAlias = Callable[[Machine], FirstAction]


async def redrive(runs: Runs, run_id: str, first_of: FirstOf, from_state: str | None = None) -> Committed:
    """Start an ended run again. `from_state` names a state of its path in place of the one that failed.

    Raises `InvalidRequestError` for an unknown run or state; `IllegalEventError`, with nothing changed, for a run that
    has not failed, an item of a map, an older generation of a key, a run whose items are still under way, and work
    that its first action does not give to it again.
    """
    head = await runs.get(run_id)
    if head is None:
        raise unknown(run_id)
    _expect_redrivable(head)
    machine = await runs.definitions.of(head.snapshot)
    if await runs.claimable_of(head.root, END_OF_TIME_MS, 1):
        raise IllegalEventError(
            f"items of the maps of run {run_id} are still under way.",
            remedy="They end by themselves: `detent worker --once` drives them. Then redrive it.",
        )
    # A run that waits for a signal alone is never due, so that it is not among the claimable.
    waits = [Where("root", "==", head.root), Where("status", "==", Status.WAITING.value)]
    if await runs.store.query(RUNS, waits, limit=1):
        raise IllegalEventError(
            f"items of the maps of run {run_id} still wait for a signal, and would do their work beside the new ones.",
            remedy="Signal or cancel them (`detent runs list`); when they have ended, redrive it.",
        )
    path = _path(machine, head, await runs.journal(run_id))
    state = from_state or failed_state(machine, path)
    state = _stand(machine, path, state, runs, is_given=from_state is not None)
    kept = await _kept(runs, head, machine, state)
    was = next((passage.event.name for passage in path if isinstance(passage.event, ActionReturned)), "")
    redriving = _Redriving(runs, machine, head, state, kept, first_of(machine), was)
    keys = [head_key(run_id), entry_key(run_id, head.snapshot.seq + 1)]
    operation = ("redrive", run_id, head.fence, head.snapshot.seq)
    committed: Committed = await runs.begin(keys, redriving.decide, operation)
    return committed


class Passage(NamedTuple):
    """One step of a run's past: where it stood, what it took, where that led."""

    before: Snapshot
    event: Any
    taken: tuple[Branch, ...]
    after: Snapshot


def failed_state(machine: Machine, path: Sequence[Passage]) -> str:
    """The state whose failure led to the end, by the last of these that happened since the start or a redrive:

    a failure that a catch took or that ended the run; a cancel; a map some of whose items did not succeed. Without any
    of them the end was reached by ordinary outcomes, and the state is the last one in which the run stood.
    """
    failed, stood = "", ""
    for passage in path:
        if isinstance(passage.event, (RunStarted, RunRedriven)):
            failed = ""
        if isinstance(passage.event, MapFinished) and not _all_succeeded(passage.event.items):
            failed = passage.before.state
        for branch in passage.taken:
            if branch.event in ("catch", "cancel"):
                failed = branch.source
        state = passage.after.state
        if passage.after.status.is_final and state and machine.states[state].kind is not StateKind.FINAL:
            failed = state  # nothing caught it: the run ended where it stood
        for name in (passage.before.state, *(branch.source for branch in passage.taken)):
            if name and machine.states[name].kind not in (StateKind.CHOICE, StateKind.FINAL):
                stood = name
    if failed and machine.states[failed].kind is StateKind.CHOICE:
        return stood
    return failed or stood


def _all_succeeded(items: Any) -> bool:
    return all(item["status"] == Status.SUCCEEDED.value for item in items) if isinstance(items, list) else True


def _path(machine: Machine, head: Head, entries: Sequence[Entry]) -> list[Passage]:
    """The run's past, folded from its journal; it must lead to where the run stands."""
    snapshot = head.snapshot
    begun = empty(snapshot.run_id, machine.name, machine.version, machine.digest, snapshot.key)
    found: Replayed = replayed(machine, begun, entries, snapshot.encode())
    if found.difference is not None:
        raise IllegalEventError(
            f"the journal of run {snapshot.run_id} does not lead to where it stands: {found.difference}.",
            remedy="`detent replay` says more. Nothing was changed.",
        )
    path: list[Passage] = []
    before = begun
    for entry in entries:
        taken = step(machine, before, entry.event)
        after = Snapshot.decode(taken.snapshot.encode())
        path.append(Passage(before, entry.event, taken.taken, after))
        before = after
    return path


def _expect_redrivable(head: Head) -> None:
    run_id = head.run_id
    if head.place is not None:
        raise IllegalEventError(
            f"run {run_id} is an item of a map of run {head.place.parent} and is not redriven by itself.",
            remedy=f"Redrive the run {head.root}: items that succeeded are kept.",
        )
    if not head.is_final:
        raise IllegalEventError(
            f"run {run_id} has not ended; it stands in {head.snapshot.state}.",
            remedy="`detent runs resume` goes on with it.",
        )
    if head.snapshot.status is Status.SUCCEEDED:
        raise IllegalEventError(f"run {run_id} has succeeded.", remedy="Only a failed or cancelled run is redriven.")


def _stand(machine: Machine, path: Sequence[Passage], state: str, runs: Runs, *, is_given: bool) -> str:
    """Where the run starts again. A call that costs something is not made again by itself: what led to it is."""
    seen = [passage.after.state for passage in path] + [b.source for passage in path for b in passage.taken]
    if state not in machine.states or state not in seen:
        known = ", ".join(name for name in machine.states if name in seen and _can_stand(machine, name))
        raise InvalidRequestError(f"the run has not been in {state!r}.", remedy=f"It has been in {known}.")
    if not _can_stand(machine, state):
        raise InvalidRequestError(
            f"a run cannot start again in {state}: nothing happens there.", remedy="Name a state that does something."
        )
    invoke = machine.states[state].invoke
    if invoke is None:
        return state
    kind = runs.kind_of(invoke.action)
    if kind is None:
        raise InvalidRequestError(
            f"this process does not know the action {invoke.action!r} of {state}.", remedy="Name its module: --actions."
        )
    if kind is not ActionKind.UNREPEATABLE:
        return state
    before: str | None = _led_to(machine, path, state, runs)
    if before is None or is_given:
        raise IllegalEventError(
            f"{state} performs {invoke.action}, which costs something each time and is not repeated by itself.",
            remedy=f"Start from {before}, which leads to it." if before else "Start a new run.",
        )
    return before


def _can_stand(machine: Machine, state: str) -> bool:
    return machine.states[state].kind not in (StateKind.CHOICE, StateKind.FINAL)


def _led_to(machine: Machine, path: Sequence[Passage], state: str, runs: Runs) -> str | None:
    """The state that last led to an unrepeatable action, itself of another kind."""
    for passage in reversed(path):
        if any(branch.target == state for branch in passage.taken):
            source: str = passage.before.state
            invoke = machine.states[source].invoke if source else None
            paid = invoke is not None and runs.kind_of(invoke.action) in (ActionKind.UNREPEATABLE, None)
            if source and not paid and _can_stand(machine, source):
                return source
    return None


async def _kept(runs: Runs, head: Head, machine: Machine, state: str) -> Mapping[str, Kept]:
    """The items of a map that succeeded when it was last tried, by key. They have ended, so nothing changes them."""
    if machine.states[state].kind is not StateKind.MAP:
        return {}
    visit = head.snapshot.visits.get(state, 0)
    of = map_key(head.run_id, state, visit)
    document = (await runs.store.get_many([of]))[of]
    if document is None:
        return {}
    tally = read_tally(of, sound(of, document))
    kept: dict[str, Kept] = {}
    for start in range(0, tally.kept, ITEMS_PER_CHUNK):
        key = kept_key(of, start)
        stood = read_items(key, (await runs.store.get_many([key]))[key])
        kept |= {name: Kept(run_id, digest) for name, run_id, digest in stood}
    for start in range(0, tally.items, READ_BATCH):
        entries = await item_entries(runs, of, start, min(start + READ_BATCH, tally.items))
        places = [Place(head.run_id, state, visit, start + number, entry[0]) for number, entry in enumerate(entries)]
        run_ids = [child_run_id(place) for place in places]
        found = await runs.store.get_many([head_key(run_id) for run_id in run_ids])
        for place, entry, run_id in zip(places, entries, run_ids, strict=True):
            child = found[head_key(run_id)]
            if child is not None and read_status(head_key(run_id), child) is Status.SUCCEEDED:
                kept[place.key] = Kept(run_id, canonical.digest(canonical.encode(entry[1])))
    return kept


class _Redriving:
    """One redrive: pure over the documents of its transaction."""

    def __init__(
        self,
        runs: Runs,
        machine: Machine,
        seen: Head,
        state: str,
        kept: Mapping[str, Kept],
        first: FirstAction,
        was: str,
    ) -> None:
        self._runs = runs
        self._machine = machine
        self._seen = seen
        self._state = state
        self._kept = kept
        self._first = first
        self._was = was  # how the first action answered at the start

    def decide(self, documents: Documents, now_ms: int, token: str) -> tuple[Sequence[Write], Committed]:
        """The commit that starts the run again."""
        runs, machine, run_id = self._runs, self._machine, self._seen.run_id
        document: Any = documents[head_key(run_id)]
        if document is None or (document["fence"], document["seq"]) != (self._seen.fence, self._seen.snapshot.seq):
            raise IllegalEventError(f"run {run_id} was redriven by somebody else.", remedy="Nothing was changed.")
        guards = self._newest(documents)
        claim, writes, remarks = self._claimed(documents, now_ms)
        event = RunRedriven(now_ms, self._state, claim)
        commit = Commit(now_ms, token, runs.tenure(), runs.secrets, kept=self._kept)
        advanced = advance(machine, self._seen.snapshot, event, runs.secrets)
        if advanced.event is not event:
            failure = advanced.event.failure  # type: ignore[union-attr]  # what `advance` puts in its place
            raise IllegalEventError(
                f"run {run_id} cannot start again: {failure.message}.", remedy="Nothing was changed."
            )
        is_urgent = inbox.is_urgent(machine, self._seen._replace(snapshot=advanced.step.snapshot))
        after = commit.advance(self._seen, [advanced], fence=self._seen.fence + 1, is_urgent=is_urgent)
        maps.record_effects(commit, after, machine, [advanced], documents)
        commit.writes.extend((*writes, *guards))
        missing = commit.unasked(documents)
        if missing:
            raise MoreKeys(missing)
        goes_on = Claim(after, machine, advanced.effect) if after.begun else None
        woken = tuple(commit.woken)
        return commit.writes, Committed(after, goes_on, woken, advanced.step.taken, event, (*remarks, *commit.dropped))

    def _newest(self, documents: Documents) -> list[Write]:
        """A keyed run must be the newest of its key: the next start would not know of an older one."""
        key = self._seen.snapshot.key
        if key is None:
            return []
        key_of = run_key_key(self._machine.name, key)
        if key_of not in documents:
            raise MoreKeys([key_of])
        newest: Any = documents[key_of]
        if newest is None or newest["run_id"] != self._seen.run_id:
            other = "unknown" if newest is None else newest["run_id"]
            raise IllegalEventError(
                f"run {self._seen.run_id} is not the newest of its key; that is {other}.",
                remedy="Redrive that one, or start anew.",
            )
        return [Check(key_of)]

    def _claimed(self, documents: Documents, now_ms: int) -> tuple[Any, Sequence[Write], tuple[Any, ...]]:
        """What the first action answers now, for a keyed run that it gave its work at the start."""
        runs, machine, snapshot = self._runs, self._machine, self._seen.snapshot
        if snapshot.key is None or self._state == machine.initial:
            return None, (), ()
        begun = empty(snapshot.run_id, machine.name, machine.version, machine.digest, snapshot.key)
        started = advance(machine, begun, RunStarted(now_ms, snapshot.input), runs.secrets)
        effect, after = started.effect, started.step.snapshot
        if not isinstance(effect, Perform) or runs.kind_of(effect.action) is not ActionKind.TRANSACTIONAL:
            return None, (), ()
        keys = list(self._first.keys(effect, after))
        if missing := [key for key in keys if key not in documents]:
            raise MoreKeys(missing)
        answer = runs.decided(self._first.decide(effect, after, documents, now_ms), now_ms)
        given = answer.event
        if not isinstance(given, ActionReturned) or given.name != self._was:
            said = f"answered {given.name!r}" if isinstance(given, ActionReturned) else "failed"
            raise IllegalEventError(
                f"run {snapshot.run_id} is not given its work again: {effect.action} {said}.",
                remedy="Make what it works on ready again (a flow step: READY), then redrive it, or start anew.",
            )
        context = advance(machine, after, given, runs.secrets).step.snapshot.context
        assert machine.key is not None, "a run has a key where its machine has one"
        if machine.key.render(MomentScope(after, context)) != snapshot.key:
            raise IllegalEventError(
                f"run {snapshot.run_id} is not given its own work again: {effect.action} answered with other work.",
                remedy="Make what it works on ready again (a flow step: READY), then redrive it, or start anew.",
            )
        checks = [Check(key) for key in dict.fromkeys(keys) if key not in {write.key for write in answer.writes}]
        return {"name": given.name, "value": given.value}, [*answer.writes, *checks], answer.remarks


__all__ = ["Passage", "failed_state", "redrive"]
