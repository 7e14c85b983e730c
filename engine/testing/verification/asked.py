"""The rules of what somebody asks of a run from outside: cancels, signals and redrives.

In: the crash-free ending and the ending of a schedule. Out: every rule that does not hold. Whether a cancel was taken
also decides which of the other rules can hold: see `rules.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from engine.core.action import INTERRUPTED, ActionKind
from engine.core.event import ActionFailed, ActionReturned, CancelRequested, RunRedriven, SignalReceived, StepRefused
from engine.core.snapshot import Status
from engine.runs.inbox import is_taken_by
from engine.runs.records import Cancel
from engine.testing.verification.ending import Ending, Passage
from engine.testing.verification.outside import Accepted
from engine.testing.verification.world import Problem

RULES: Final = {
    "cancel-passed-over": "a run that was sent a cancel takes it before anything else that is not under way yet",
    "message-repeated": "a cancel is taken once, and a signal once for each id, however often they are sent",
    "signal-lost": "a signal that a run was given is taken, unless a cancel came before it",
    "outcome-lost": "each performing of an unrepeatable action has its outcome in the journal, however late",
    "paid-again": "a redrive performs no unrepeatable action again whose outcome led on",
    "redrive-refused": "a run that failed or was cancelled, with nothing of it under way, is redriven",
}


def is_cancelled(found: Ending) -> bool:
    """Whether a run has taken a cancel that somebody asked for."""
    asked = {accepted.run_id for accepted in found.accepted if accepted.is_asked and not accepted.signal_id}
    return any(isinstance(passage.event, CancelRequested) for run_id in asked for passage in found.passages[run_id])


def is_redriven(found: Ending) -> bool:
    """Whether a run was redriven."""
    return any(isinstance(passage.event, RunRedriven) for path in found.passages.values() for passage in path)


def is_completed(found: Ending) -> bool:
    """Whether the last thing that was asked and taken was a redrive, of a machine that ends then as without a crash."""
    asked = {accepted.run_id for accepted in found.accepted if accepted.is_asked}
    taken = [
        (effect.happened, step.event["event"])
        for effect in found.effects
        for step in effect.steps
        if effect.is_done and (step.event["event"] == "run_redriven" or step.run_id in asked)
    ]
    last = max((one for one in taken if one[1] in ("run_redriven", "cancel_requested")), default=(0, ""))
    return found.setting.world.redrive_completes and last[1] == "run_redriven"


def performed(found: Ending, passage: Passage) -> str:
    """The name of the action whose answer a step took; empty for any other step."""
    if not isinstance(passage.event, (ActionReturned, ActionFailed, StepRefused)) or not passage.before.state:
        return ""
    invoke = found.machines[passage.before.digest].states[passage.before.state].invoke
    return "" if invoke is None else invoke.action


def judge(crash_free: Ending, found: Ending) -> Iterable[Problem]:
    """Every problem of an ending."""
    for accepted in found.accepted:
        if not accepted.signal_id:
            yield from _passed_over(found, accepted)
    yield from _repeated(found)
    yield from _signals(crash_free, found)
    yield from _outcomes(found)
    if is_redriven(found):
        yield from _paid(crash_free, found)
    for redrive in found.redrives:
        # Another may have been faster: with a redrive, or with a start, which finds the work ready too.
        is_alone = not is_redriven(found) and found.heads.keys() <= crash_free.heads.keys()
        if redrive.is_ready and is_alone and found.setting.world.redrive_completes:
            yield Problem("redrive-refused", f"{redrive.run_id}: {redrive.message}")


def _passed_over(found: Ending, accepted: Accepted) -> Iterable[Problem]:
    machine = found.machines[found.heads[accepted.run_id]["digest"]]
    # What a worker had begun ends first; that step leaves the run at rest, for whoever takes the cancel.
    is_due = not accepted.is_held
    for passage in found.passages[accepted.run_id][accepted.seq :]:
        if isinstance(passage.event, CancelRequested):
            return
        if is_due and is_taken_by(machine, passage.before, Cancel(0, "")):
            where = f"{accepted.run_id} was sent a cancel after step {accepted.seq}"
            told = f"and took {type(passage.event).__name__} in {passage.before.state} first"
            yield Problem("cancel-passed-over", f"{where}, {told}")
            return
        if passage.after.status.is_final:
            return
        is_due = True


def _repeated(found: Ending) -> Iterable[Problem]:
    sent = Counter(accepted.run_id for accepted in found.accepted if not accepted.signal_id)
    for run_id, path in found.passages.items():
        cancels = sum(isinstance(passage.event, CancelRequested) for passage in path)
        if cancels > sent[run_id]:
            yield Problem("message-repeated", f"{run_id} took {cancels} cancels, and was sent {sent[run_id]}")
    for run_id in found.heads:
        taken = Counter(event["id"] for event in found.events(run_id) if event["event"] == "signal_received")
        for signal_id, count in taken.items():
            if count > 1:
                yield Problem("message-repeated", f"{run_id} took the signal {signal_id} {count} times")


def _signals(crash_free: Ending, found: Ending) -> Iterable[Problem]:
    def taken(ending: Ending, run_id: str) -> set[str]:
        path = ending.passages.get(run_id, ())
        return {passage.event.id for passage in path if isinstance(passage.event, SignalReceived)}

    for accepted in found.accepted:
        run_id = accepted.run_id
        is_missing = accepted.signal_id in taken(crash_free, run_id) - taken(found, run_id)
        is_there = any(message.get("id") == accepted.signal_id for message in found.heads[run_id].get("inbox", ()))
        if (
            is_missing
            and not is_there
            and not any(isinstance(passage.event, CancelRequested) for passage in found.passages[run_id])
        ):
            yield Problem("signal-lost", f"{run_id} was given the signal {accepted.signal_id}, and never took it")


def _outcomes(found: Ending) -> Iterable[Problem]:
    begun = Counter((one.run_id, one.action) for one in found.performances if one.kind == ActionKind.UNREPEATABLE)
    told = Counter((run_id, performed(found, passage)) for run_id, path in found.passages.items() for passage in path)
    for (run_id, action), count in begun.items():
        if count > told[run_id, action] and Status(found.heads[run_id]["status"]).is_final:
            had = f"{run_id} performed {action} {count} times"
            yield Problem("outcome-lost", f"{had}, and its journal has {told[run_id, action]} outcomes of it")


# After a redrive


def _paid(crash_free: Ending, found: Ending) -> Iterable[Problem]:
    usual, counted = _led_on(crash_free), _led_on(found)
    for (place, action, outcome), count in counted.items():
        if 0 < usual[place, action, outcome] < count:
            told = f"{action} answered {outcome!r} {count} times, and without a redrive {usual[place, action, outcome]}"
            yield Problem("paid-again", f"{' '.join(place)}: {told}")


def _led_on(found: Ending) -> Counter[tuple[tuple[str, ...], str, str]]:
    """Outcomes of unrepeatable actions by place, in the runs whose work counts: the first, and items that succeeded.

    An item that did not succeed begins anew when its map is redriven, whatever it had paid for.
    """
    paid = {one.action for one in found.performances if one.kind == ActionKind.UNREPEATABLE}
    counted: Counter[tuple[tuple[str, ...], str, str]] = Counter()
    for run_id, path in found.passages.items():
        head = found.heads[run_id]
        if head["place"] and head["status"] != Status.SUCCEEDED.value:
            continue
        place = (head["root"], *_place(found, run_id))
        for passage in path:
            action, event = performed(found, passage), passage.event
            if action in paid and isinstance(event, ActionReturned) and event.name != INTERRUPTED:
                counted[place, action, event.name] += 1
    return counted


def _place(found: Ending, run_id: str) -> tuple[str, ...]:
    """Where an item stands, its map's visits apart."""
    place = found.heads[run_id]["place"]
    return () if place is None else (*_place(found, place["parent"]), place["state"], place["key"])


__all__ = ["RULES", "is_cancelled", "is_completed", "is_redriven", "judge", "performed"]
