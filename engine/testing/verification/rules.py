"""The rules by which an ending is judged, by name; `stale-write` and `lease-ignored` are judged at each commit.

In: the crash-free ending and the ending of a schedule. Out: every rule that does not hold, with what was found. The
rules ask nothing of a particular machine; a world adds its own (`World.watch`, `World.judge`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from engine.core.action import ActionKind
from engine.core.write import Key
from engine.testing.verification import asked
from engine.testing.verification.ending import Ending
from engine.testing.verification.process import Call
from engine.testing.verification.trace import ENDED, has_ended
from engine.testing.verification.world import Problem

RELEASE: Final = "ledger.release"

Units: TypeAlias = dict[str, list[tuple[int, str]]]

RULES: Final = {
    "run-unfinished": "every run that was begun ends",
    "runs-differ": "the same runs exist as without a crash: none is missing, none was begun twice",
    "outcome-differs": "each run ends as it does without a crash",
    "document-differs": "each document ends as it does without a crash",
    "artifact-differs": "each artifact ends as it does without a crash",
    "call-without-unit": "each paid call is covered by a unit that was reserved before it",
    "unit-unexplained": "each unit was followed by its call, or given back, or a crash came between",
    "ledger-disagrees": "an account's usage is the units that runs have reserved of it and not given back",
    "unrepeatable-repeated": "an unrepeatable action is performed once for each unit of work, whatever dies",
    "calls-exceed-crashes": "a crash costs at most one paid call for each call in flight",
    "journal-differs": "the journal, replayed, gives the stored snapshot byte for byte",
    "stale-write": "a worker that has lost a run writes nothing of it",
    "lease-ignored": "no worker takes a run while another's lease lives",
    "engine-raised": "no verb of the engine raises what it does not announce",
    "run-endless": "runs come to an end",
    **asked.RULES,
}
"""The engine's own rules; each a sentence that must hold."""


def judge(crash_free: Ending, found: Ending) -> list[Problem]:
    """Every problem of an ending, those found on the way first, each once."""
    problems = [*found.problems, *_unfinished(found)]
    is_finished = len(problems) == len(found.problems)
    if is_finished:  # what has not ended differs for that reason alone
        problems += _differing(found.setting.world.expected(crash_free, found), found)
    problems += asked.judge(crash_free, found)
    problems += _units(crash_free, found)
    problems += _repeated(found)
    problems += _exceeding(crash_free, found)
    problems += _replayed(found)
    problems += found.setting.world.judge(found)
    return list(dict.fromkeys(problems))


def _unfinished(found: Ending) -> Iterable[Problem]:
    for run_id, head in found.heads.items():
        if head["status"] not in ENDED:
            holder = f"held by {head['worker']}" if head["worker"] else "held by nobody"
            yield Problem("run-unfinished", f"{run_id} stays {head['status']} in {head['state']}, {holder}")
        elif not has_ended(head):
            yield Problem("run-unfinished", f"{run_id} has ended, and nobody tells the items of its map")


def _differing(expected: Ending, found: Ending) -> Iterable[Problem]:
    """What is otherwise than without a crash. A cancel or a redrive that was taken makes runs end in other ways."""
    missing, more = expected.heads.keys() - found.heads.keys(), found.heads.keys() - expected.heads.keys()
    is_redriven = asked.is_redriven(found)
    is_asked = is_redriven or asked.is_cancelled(found)
    for run_id in sorted(more):
        if not is_asked or found.heads[run_id]["root"] not in expected.heads:  # its maps may begin other items
            yield Problem("runs-differ", f"the run {run_id} is one too many")
    if is_asked:
        if not asked.is_completed(found):
            return
    else:
        for run_id in sorted(missing):
            yield Problem("runs-differ", f"the run {run_id} is missing")
    left, right = expected.comparable(), found.comparable()
    for name in sorted(left.keys() | right.keys()):
        if name in left and name in right and left[name] == right[name]:
            continue
        kind, _, rest = name.partition("/")
        if kind == "outputs" and (rest in missing | more or (is_redriven and not found.heads[rest]["is_root"])):
            continue
        rule = {"documents": "document-differs", "artifacts": "artifact-differs"}.get(kind, "outcome-differs")
        yield Problem(rule, f"{rest}: {_first_difference(left.get(name), right.get(name))}")


def _first_difference(expected: Any, found: Any, path: str = "") -> str:
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                return _first_difference(expected.get(name), found.get(name), f"{path}.{name}".removeprefix("."))
    where = f"{path} is " if path else "it is "
    return f"{where}{_short(found)}, and without a crash {_short(expected)}"


def _short(value: Any) -> str:
    if value is None:
        return "not there"
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 160 else f"{text[:157]}…"


# Paid calls


def _reservations(found: Ending) -> Units:
    """By run, the units that it reserved: each with the place of its commit, and the account."""
    units: Units = {}
    for effect in found.effects:
        for taken in effect.steps if effect.is_done else ():
            value = taken.event.get("value")
            if taken.event.get("name") == "reserved" and isinstance(value, dict) and value.get("account_id"):
                units.setdefault(taken.run_id, []).append((effect.happened, value["account_id"]))
    return units


def _returned(found: Ending) -> Units:
    """By run, the units that it gave back, as `_reservations` has them."""
    units: Units = {}
    for run_id, path in found.passages.items():
        for passage in path:
            value = getattr(passage.event, "value", None)
            if asked.performed(found, passage) == RELEASE and isinstance(value, dict) and value.get("account_id"):
                units.setdefault(run_id, []).append((passage.after.seq, value["account_id"]))
    return units


def _units(crash_free: Ending, found: Ending) -> Iterable[Problem]:
    units, returned = _reservations(found), _returned(found)
    calls: dict[str, list[Call]] = {}
    for call in found.calls:
        if call.pool is not None and call.run_id is not None:
            calls.setdefault(call.run_id, []).append(call)
    for run_id, made in calls.items():
        for position, call in enumerate(made):
            had = sum(at < call.happened and of == call.account for at, of in units.get(run_id, ()))
            used = sum(earlier.account == call.account for earlier in made[:position])
            if had <= used:
                told = f"{call.name}: it had reserved {had} units of it and used {used}"
                yield Problem("call-without-unit", f"call {call.effect} of {run_id}, {told}")
    pools = {call.pool for call in (*crash_free.calls, *found.calls) if call.pool}
    if not pools:
        return
    for run_id, reserved in units.items():
        count, lost = len(calls.get(run_id, ())), found.interruptions(run_id)
        back = len(returned.get(run_id, ()))
        told = f"{run_id} reserved {len(reserved)} units for {count} calls, gave {back} back"
        if len(reserved) - back - count > lost:
            yield Problem("unit-unexplained", f"{told}, and was interrupted {lost} times")
        if len(reserved) - back < count:
            yield Problem("call-without-unit", f"{told}: of a call that was made")
    yield from _ledger(found, pools, units, returned)


def _ledger(found: Ending, pools: set[str], units: Units, returned: Units) -> Iterable[Problem]:
    """The usage documents of the pools that calls are made of, against the journals."""
    reserved = Counter(account for of_run in units.values() for _, account in of_run)
    reserved.subtract(account for of_run in returned.values() for _, account in of_run)
    called = {(call.pool, str(call.account)) for call in found.calls if call.pool}
    kept = {(pool, key.id) for key in found.documents for pool in pools if key.collection == f"{pool}_accounts_usage"}
    for pool, account in sorted(called | kept):
        key = Key(f"{pool}_accounts_usage", account)
        if key not in found.documents:
            yield Problem("ledger-disagrees", f"{account} was called, and has no usage of {pool}")
            continue
        usage = found.documents[key]
        before = json.loads(found.setting.texts[key]) if key in found.setting.texts else {}
        is_same_day = before.get("windowStart") == usage.get("windowStart")
        used = usage["usageToday"] - (before.get("usageToday", 0) if is_same_day else 0)
        told = f"{account}: {used} units stand in its usage, {reserved[account]} reserved and not given back"
        if used < reserved[account]:
            yield Problem("ledger-disagrees", told)
        # The API's word that there are none left makes the usage the limit; and accounts of two pools may share ids.
        is_exhausted = "exhaustedOn" in found.documents.get(Key(f"{pool}_accounts_rate", account), {})
        if used > reserved[account] and len(pools) == 1 and not is_exhausted:
            yield Problem("ledger-disagrees", told)


def _repeated(found: Ending) -> Iterable[Problem]:
    counted = Counter(
        (one.run_id, one.action, one.idempotency_key, one.attempt)
        for one in found.performances
        if one.kind == ActionKind.UNREPEATABLE
    )
    for (run_id, action, _, attempt), count in counted.items():
        if count > 1:
            yield Problem("unrepeatable-repeated", f"{run_id} performed attempt {attempt} of {action} {count} times")


def _exceeding(crash_free: Ending, found: Ending) -> Iterable[Problem]:
    """Calls of a run beyond those without a crash need an interruption each, and these a disruption each."""
    usual = Counter(call.run_id for call in crash_free.calls)
    allowed = found.schedule.disruptions
    for run_id, count in Counter(call.run_id for call in found.calls).items():
        lost = found.interruptions(str(run_id))
        if run_id in usual and count > usual[run_id] + min(lost, allowed):
            yield Problem(
                "calls-exceed-crashes",
                f"{run_id} made {count} paid calls, {usual[run_id]} without a crash; {lost} outcomes were lost",
            )
    for run_id in found.heads:
        if (lost := found.interruptions(run_id)) > allowed:
            yield Problem("calls-exceed-crashes", f"{run_id} lost {lost} outcomes to {allowed} disruptions")


# The journal


def _replayed(found: Ending) -> Iterable[Problem]:
    for run_id, head in found.heads.items():
        if head["digest"] not in found.machines:
            yield Problem("runs-differ", f"{run_id} runs a definition that nobody gave")
            continue
        entries, path = found.journals.get(run_id, []), found.passages[run_id]
        if [entry["seq"] for entry in entries] != list(range(1, len(entries) + 1)):
            yield Problem("journal-differs", f"{run_id}: its journal has gaps: {[entry['seq'] for entry in entries]}")
            continue
        fences = [entry["fence"] for entry in entries]
        if fences != sorted(fences):
            yield Problem("journal-differs", f"{run_id}: the fences of its journal fall: {fences}")
        if len(path) < len(entries):
            tag = entries[len(path)]["event"]["event"]
            yield Problem("journal-differs", f"{run_id}: entry {len(path) + 1}, {tag}, cannot be taken where it stands")
            continue
        replayed = path[-1].after.encode() if path else ""
        if replayed != head["stored"]:
            told = _first_difference(json.loads(replayed or "{}"), head["snapshot"])
            yield Problem("journal-differs", f"{run_id}: replayed, {told.replace('without a crash', 'replayed')}")


__all__ = ["RULES", "judge"]
