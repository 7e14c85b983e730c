"""How a schedule ended: everything that can be looked at, and the form in which two endings are compared.

Instants of the schedule's own time are replaced by `<instant>` wherever they stand, in names too: they are the one
difference that every world has. What else may differ is the world's to declare (`World.differences`).
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from engine.core import canonical, event
from engine.core.event import Event
from engine.core.machine import Machine
from engine.core.snapshot import Snapshot, empty
from engine.core.step import step
from engine.core.write import Key
from engine.errors import IllegalEventError
from engine.runs.records import (
    DEFINITIONS,
    JOURNAL,
    JOURNAL_PARTS,
    MAP_ITEMS,
    MAPS,
    RUN_KEYS,
    RUNS,
    SIGNALS,
    SNAPSHOT_PARTS,
    rest_of,
)  # fmt: skip

if TYPE_CHECKING:
    from engine.testing.verification.outside import Accepted, Refused
    from engine.testing.verification.process import Call, Performance
    from engine.testing.verification.schedule import Schedule
    from engine.testing.verification.setting import Address, Setting
    from engine.testing.verification.trace import Effect
    from engine.testing.verification.world import Problem

INSTANT: Final = "<instant>"

_INSTANT: Final = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)[T-](\d\d):?(\d\d):?(\d\d)(?:\.\d+)?(?:Z|\+00:00)?")

BEGINS_MS: Final = 1_767_605_400_000
"""The instant at which every schedule begins, 2026-01-05T09:30:00Z: no day ends within one."""

TOUCHED: Final = "touchedByAnotherClient"
"""The field in which another client's change shows, with the semantics of preconditions."""

_SLACK_MS: Final = 15 * 60 * 1000
"""Clocks of a schedule may be wrong by this much."""

OWN: Final = (
    RUNS, JOURNAL, JOURNAL_PARTS, SNAPSHOT_PARTS, RUN_KEYS, MAPS, MAP_ITEMS, SIGNALS, DEFINITIONS,
)  # fmt: skip
"""The engine's own collections."""


class Passage(NamedTuple):
    """One step of a run's past: how it stood, what it took, how it stood then."""

    before: Snapshot
    event: Event
    after: Snapshot


@dataclass
class Ending:
    """See the module. `texts` are the store's documents as canonical JSON; `artifacts` the published bytes by name."""

    setting: Setting
    schedule: Schedule
    texts: Mapping[Key, str]
    artifacts: Mapping[str, bytes]
    effects: list[Effect] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    performances: list[Performance] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)
    redrives: list[Refused] = field(default_factory=list)
    sent: Mapping[int, Address] = field(default_factory=dict)

    @cached_property
    def documents(self) -> dict[Key, Any]:
        """Every document that is not the engine's own."""
        return {key: json.loads(text) for key, text in self.texts.items() if key.collection not in OWN}

    @cached_property
    def heads(self) -> dict[str, Any]:
        """The head of every run, its snapshot decoded; `stored` is that as text, joined where it lies in parts."""
        found: dict[str, Any] = {}
        for key, text in self.texts.items():
            if key.collection == RUNS:
                head = found[key.id] = json.loads(text)
                head["stored"] = "".join((head["snapshot"], *self._rest(key, head)))
                head["snapshot"] = json.loads(head["stored"])
        return found

    @cached_property
    def journals(self) -> dict[str, list[dict[str, Any]]]:
        """The entries of every run, first to last, each with its event decoded."""
        found: dict[str, list[dict[str, Any]]] = {}
        for key, text in self.texts.items():
            if key.collection == JOURNAL:
                entry = json.loads(text)
                entry["event"] = canonical.decode("".join((entry["entry"], *self._rest(key, entry))))
                found.setdefault(entry["run_id"], []).append(entry)
        for entries in found.values():
            entries.sort(key=lambda entry: int(entry["seq"]))
        return found

    def _rest(self, key: Key, document: Mapping[str, Any]) -> list[str]:
        return [json.loads(self.texts[part])["text"] for part in rest_of(key, document)]

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """The events that a run has taken."""
        return [entry["event"] for entry in self.journals.get(run_id, ())]

    @property
    def signals(self) -> list[int]:
        """The effects that brought the signals which were given, in their order."""
        return [accepted.effect for accepted in self.accepted if accepted.signal_id]

    @cached_property
    def machines(self) -> dict[str, Machine]:
        """The machine and those of its maps, by digest."""
        return {machine.digest: machine for machine in family(self.setting.machine)}

    @cached_property
    def passages(self) -> dict[str, list[Passage]]:
        """Every run's past, replayed from its journal: as far as the entries can be taken one after another."""
        found: dict[str, list[Passage]] = {}
        for run_id, head in self.heads.items():
            path = found[run_id] = []
            machine = self.machines.get(head["digest"])
            if machine is None:
                continue
            snapshot = empty(run_id, machine.name, machine.version, machine.digest, head["key"])
            for taken in map(event.from_json, self.events(run_id)):
                try:
                    after = step(machine, snapshot, taken).snapshot
                except IllegalEventError:
                    break
                path.append(Passage(snapshot, taken, after))
                snapshot = after
        return found

    def interruptions(self, run_id: str) -> int:
        """How often the outcome of a run's unrepeatable action was lost."""
        return sum(event.get("name") == "interrupted" for event in self.events(run_id))

    def with_parts(self, documents: dict[Key, Any], artifacts: Mapping[str, bytes], heads: dict[str, Any]) -> Ending:
        """This ending with other parts: for `World.expected`."""
        found = replace(self, artifacts=artifacts)
        found.__dict__.update(documents=documents, heads=heads)
        return found

    def comparable(self) -> dict[str, Any]:
        """By name, what must equal the same name of another ending."""
        found: dict[str, Any] = {}
        for key, document in self.documents.items():
            found[f"documents/{key.collection}/{key.id}"] = {
                name: value for name, value in document.items() if name != TOUCHED
            }
        for name, content in self.artifacts.items():
            found[f"artifacts/{name}"] = _content(content)
        for run_id, head in self.heads.items():
            snapshot = head["snapshot"]
            found[f"outputs/{run_id}"] = {name: snapshot[name] for name in ("status", "state", "output", "error")}
        world = self.setting.world
        compared: dict[str, Any] = {}
        for name, value in found.items():
            plain = _without_instants(value)
            for difference in world.differences:
                if fnmatch.fnmatchcase(name, difference.name):
                    plain = _without(plain, difference.path.split(".") if difference.path else [])
            if plain is not _LEFT_OUT:
                compared[_without_instants(name)] = world.comparable(name, plain)
        return compared


def family(machine: Machine) -> list[Machine]:
    """A machine and those of its maps, and of theirs."""
    return [machine, *(inner for child in machine.children.values() for inner in family(child))]


_LEFT_OUT: Final = object()


def _content(content: bytes) -> Any:
    """JSON as data; other bytes by their digest."""
    try:
        return json.loads(content)
    except ValueError:
        return f"{len(content)} bytes, SHA-256 {canonical.digest(content.hex())[:16]}"


def _without_instants(value: Any) -> Any:
    if isinstance(value, str):
        return _INSTANT.sub(_own_instant, value) if len(value) >= 15 else value
    if isinstance(value, Mapping):
        return {_without_instants(name): _without_instants(entry) for name, entry in value.items()}
    return [_without_instants(entry) for entry in value] if isinstance(value, list) else value


def _own_instant(found: re.Match[str]) -> str:
    """`<instant>` for one within the schedule's own time; any other stays as it is."""
    try:
        at = datetime(*(int(part) for part in found.groups()), tzinfo=UTC)  # type: ignore[arg-type, misc]  # six numbers
    except ValueError:
        return found[0]
    is_own = at.timestamp() * 1000 >= BEGINS_MS - _SLACK_MS
    return INSTANT if is_own else found[0]


def _without(value: Any, path: list[str]) -> Any:
    if not path:
        return _LEFT_OUT
    if isinstance(value, list):
        return [_without(entry, path[1:]) for entry in value] if path[0] == "*" else value
    if not isinstance(value, Mapping):
        return value
    kept = {}
    for name, entry in value.items():
        left = _without(entry, path[1:]) if fnmatch.fnmatchcase(name, path[0]) else entry
        if left is not _LEFT_OUT:
            kept[name] = left
    return kept
