"""A map is many runs: how its children begin, and how the end of one begins the next.

The items of a map are dealt to `lanes` lanes, item `i` to lane `i % lanes`. The entering commit starts the
first item of each lane. A child's final commit starts the next item of its own lane, so the number of
children under way never passes the number of lanes, over all workers together, and nobody counts them.
Pure: everything here adds writes to a `Commit` from documents that the caller has loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from engine.core import canonical
from engine.core.action import EngineCode, Failure
from engine.core.effect import Effect, StartMap, StopMap
from engine.core.event import RunStarted, StepRefused
from engine.core.machine import Machine
from engine.core.snapshot import Status, empty
from engine.core.write import Check, Create, Document, Key, Set, Update
from engine.runs.commit import Advanced, Commit, advance
from engine.runs.inputs import input_problem
from engine.runs.known_maps import KnownMaps
from engine.runs.reading import read_tally
from engine.runs.records import (
    ITEMS_PER_CHUNK,
    Head,
    Kept,
    Place,
    Tally,
    child_run_id,
    chunk_key,
    chunk_texts,
    head_key,
    kept_key,
    map_key,
    tally_document,
)
from engine.runs.transaction import MoreKeys

Documents = Mapping[Key, "Document | None"]


def begin(commit: Commit, parent: Head, machine: Machine, effect: StartMap) -> None:
    """Record a map that a run has just entered, and start the first item of each lane, at rest."""
    child = machine.children[effect.machine]
    state = parent.snapshot.state
    visit = parent.snapshot.visits[state]
    of = map_key(parent.run_id, state, visit)
    kept: list[tuple[str, Kept]] = []
    if commit.kept:
        effect, kept = _without_kept(effect, commit.kept)
        for start in range(0, len(kept), ITEMS_PER_CHUNK):
            text = canonical.encode([[key, *one] for key, one in kept[start : start + ITEMS_PER_CHUNK]])
            commit.writes.append(Create(kept_key(of, start), {"items": text}))
    items = list(zip(effect.keys, effect.inputs, strict=True)).__getitem__
    lanes = min(effect.concurrency, len(effect.keys))
    tally = Tally(child.digest, parent.root, len(effect.keys), lanes, 0, effect.min_success, kept=len(kept))
    tally = tally._replace(is_stopped=tally.is_decided)  # a quorum of none, or of more than there are
    for number, text in enumerate(chunk_texts(effect)):
        commit.writes.append(Create(chunk_key(of, number * ITEMS_PER_CHUNK), {"items": text}))
    for lane in range(lanes):
        place = Place(parent.run_id, state, visit, lane, "")
        tally, _ = _start_from(commit, child, place, tally, items, own=False)
    if tally.lanes_open == 0:  # every child ended where it began: the parent has nothing to wait for
        commit.wake(parent.run_id)
    commit.writes.append(Create(of, tally_document(tally)))


def _without_kept(effect: StartMap, known: Mapping[str, Kept]) -> tuple[StartMap, list[tuple[str, Kept]]]:
    """The map without the items that need not run again, and those; an item with another input is another item."""
    kept, rest = [], []
    for index, key in enumerate(effect.keys):
        one = known.get(key)
        if one is not None and one.digest == canonical.digest(canonical.encode(effect.inputs[index])):
            kept.append((key, one))
        else:
            rest.append(index)
    quorum = None if effect.min_success is None else max(effect.min_success - len(kept), 0)
    remaining = effect._replace(
        items=tuple(effect.items[index] for index in rest),
        keys=tuple(effect.keys[index] for index in rest),
        inputs=tuple(effect.inputs[index] for index in rest),
        min_success=quorum,
    )
    return remaining, kept


def still_open(run_id: str, taken: Advanced, documents: Documents) -> tuple[StopMap, ...]:
    """The maps that a step leaves while children of theirs are under way."""
    effects = taken.step.effects
    if len(effects) == 1:  # a map that is left stands before what the run asks for next
        return ()
    left = [effect for effect in effects if isinstance(effect, StopMap)]
    if not left:
        return ()
    keys = {effect: map_key(run_id, effect.state, effect.visit) for effect in left}
    missing = [key for key in keys.values() if key not in documents]
    if missing:
        raise MoreKeys(missing)
    found = {effect: documents[key] for effect, key in keys.items()}
    return tuple(
        effect for effect, document in found.items() if document and read_tally(keys[effect], document).lanes_open
    )


def leave(commit: Commit, run_id: str, effect: StopMap, documents: Documents) -> None:
    """The parent has left its map: no further item begins."""
    of = map_key(run_id, effect.state, effect.visit)
    if of not in documents:
        raise MoreKeys([of])
    if documents[of] is not None:
        commit.writes.append(Update(of, {("is_stopped",): True, ("is_left",): True}))


def after_child(
    commit: Commit, ended: Head, child: Machine, known: KnownMaps, documents: Documents, *, own: bool
) -> tuple[Head, Effect] | None:
    """What the end of one child writes; answers the lane's next child, with what it asks for, when this worker goes on
    with it."""
    place = ended.place
    assert place is not None
    document = documents[place.map_key]
    if document is None:
        return None
    tally = read_tally(place.map_key, document)
    known.learn(place.map_key, tally)
    before = tally
    if tally.min_success is not None:
        tally = _counted(tally, ended)
    following = place.number + tally.lanes
    tally = tally._replace(lanes_open=tally.lanes_open - 1)
    next_child = None
    if following < tally.items and not tally.is_stopped:
        of = place.map_key
        items = partial(known.item, of, documents=documents)
        tally, next_child = _start_from(commit, child, place._replace(number=following), tally, items, own=own)
    if tally.lanes_open == 0 and not tally.is_left:
        _wake_parent(commit, place, documents)
    # Also when nothing changed: that the next item may begin rests on the map not having been left.
    commit.writes.append(Set(place.map_key, tally_document(tally)) if tally != before else Check(place.map_key))
    return next_child


def _wake_parent(commit: Commit, place: Place, documents: Documents) -> None:
    key = head_key(place.parent)
    if key not in documents:
        raise MoreKeys([key])
    parent = documents[key]
    if parent is None or parent["state"] != place.state:
        return
    if parent["worker"] is None:
        commit.wake(place.parent)
    else:
        # Whoever holds it will count for itself, unless it rests it in this very moment: hence the check.
        commit.writes.append(Check(key))


def _counted(tally: Tally, ended: Head) -> Tally:
    succeeded = ended.snapshot.status is Status.SUCCEEDED
    counted = tally._replace(succeeded=tally.succeeded + succeeded, failed=tally.failed + (not succeeded))
    return counted._replace(is_stopped=counted.is_stopped or counted.is_decided)


def _start_from(
    commit: Commit, child: Machine, place: Place, tally: Tally, items: Callable[[int], Any], *, own: bool
) -> tuple[Tally, tuple[Head, Effect] | None]:
    """Start the lane's item at `place.number`, and the ones after it while they end where they begin."""
    index = place.number
    while index < tally.items and not tally.is_stopped:
        key, value = items(index)
        head, effect = start_child(commit, child, place._replace(number=index, key=key), tally.root, value, own=own)
        if not head.is_final:
            return tally._replace(lanes_open=tally.lanes_open + 1), (head, effect) if own and head.begun else None
        if tally.min_success is not None:
            tally = _counted(tally, head)
        index += tally.lanes
    return tally, None


def start_child(
    commit: Commit, child: Machine, place: Place, root: str, value: Any, *, own: bool
) -> tuple[Head, Effect]:
    """Record one child run with its first step; answers what it asks for as well."""
    run_id = child_run_id(place)
    snapshot = empty(run_id, child.name, child.version, child.digest)
    problem = input_problem(child, value)
    if problem is None:
        first = advance(child, snapshot, RunStarted(commit.now_ms, value), commit.secrets)
    else:
        failure = Failure(EngineCode.INPUT_INVALID, f"the item {place.key!r} cannot be taken: {problem}")
        first = advance(child, snapshot, StepRefused(commit.now_ms, failure), commit.secrets)
    head = commit.create([first], place, root, own=own)
    record_effects(commit, head, child, [first], {})
    return head, first.effect


def record_effects(
    commit: Commit, head: Head, machine: Machine, taken: Sequence[Advanced], documents: Documents
) -> None:
    """Write what the steps' effects ask to be recorded: maps entered and maps left."""
    for advanced in taken:
        for effect in advanced.step.effects:
            if isinstance(effect, StartMap):
                begin(commit, head, machine, effect)
            elif isinstance(effect, StopMap):
                leave(commit, head.run_id, effect, documents)
