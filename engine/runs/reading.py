"""Stored documents as values, or one error that names the document that cannot be read and says why.

In: a key, the document under it, and those that hold the rest of it. Out: what `records.py` says that they stand for.
What is well is not looked at twice: only where reading failed, or where a door is about to show what was read, is a
document held against its shape, which is that of the value it stands for. What somebody has written over one may be
anything, so that no message tells what it holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import UnionType
from typing import Any, Final, TypeAlias, Union, get_args, get_origin

from engine.core import canonical
from engine.core.action import Failure
from engine.core.effect import StopMap
from engine.core.event import Event
from engine.core.snapshot import Snapshot, Status
from engine.core.write import Document, Key
from engine.errors import NAME_CHARS_MAX, DocumentUnreadableError, InvalidKeyError
from engine.runs.records import (
    DEFINITIONS,
    JOURNAL,
    MAP_ITEMS,
    MAPS,
    PARTS_MAX,
    RUN_KEYS,
    RUNS,
    SIGNALS,
    Cancel,
    Entry,
    Head,
    Place,
    Signal,
    Tally,
    head_key,
    rest_of,
)

MALFORMED: Final = (ValueError, LookupError, TypeError, AttributeError, RecursionError, InvalidKeyError)
"""What comes out of work on a document that is not as detent wrote it."""

Rest: TypeAlias = "Sequence[Document | None]"

_Kinds: TypeAlias = "tuple[type, ...]"
_NONE: Final = type(None)
_ANY: Final[_Kinds] = ()
_WORDS: Final[Mapping[type, str]] = {
    str: "a text", int: "an integer", bool: "true or false", float: "a number with a point", dict: "a map",
    list: "a list", _NONE: "null",
}  # fmt: skip

_HEAD: Final[Mapping[str, _Kinds]] = {
    "run_id": (str,), "digest": (str,), "state": (str,), "status": (str,), "seq": (int,), "fence": (int,),
    "worker": (str, _NONE), "claimable_at_ms": (int, _NONE), "begun": (bool,), "created_at_ms": (int,),
    "updated_at_ms": (int,), "root": (str,), "is_root": (bool,), "place": (dict, _NONE), "snapshot": (str,),
}  # fmt: skip
_FIELDS: Final[Mapping[str, Mapping[str, _Kinds]]] = {
    RUNS: _HEAD,
    JOURNAL: {"run_id": (str,), "seq": (int,), "fence": (int,), "token": (str,), "entry": (str,)},
    MAP_ITEMS: {"items": (str,)},
    RUN_KEYS: {"run_id": (str,), "generation": (int,)},
    SIGNALS: {"name": (str,), "value": (str,), "token": (str,)},
    DEFINITIONS: {"file": (str,), "source": (str,), "children": (dict,)},
}
"""The fields that are read of each document; `maps` holds a `Tally` and nothing else."""

_STATUSES: Final = tuple(status.value for status in Status)
_EVENTS: Final = {re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower(): cls for cls in get_args(Event)}


# Reading


def read_head(key: Key, document: Document, rest: Rest = ()) -> Head:
    """The head under a key. Raises `DocumentUnreadableError`, also for one that was copied from another run's key."""
    try:
        head = Head.read(document, rest)
        if head.snapshot.run_id == key.id:
            return head
    except MALFORMED as error:
        raise unreadable(key, document, rest, error) from error
    raise unreadable(key, document, rest)


def read_rest(key: Key, document: Document | None) -> list[Key]:
    """As `rest_of`, of a document that must be there. Raises `DocumentUnreadableError`."""
    try:
        return rest_of(key, document)  # type: ignore[arg-type]  # none at all fails there as well
    except MALFORMED as error:
        raise unreadable(key, document, (), error) from error


def read_entry(key: Key, document: Document | None, rest: Rest = ()) -> Entry:
    """The journal entry under a key, which must be there. Raises `DocumentUnreadableError`."""
    sound(key, document, rest)
    assert document is not None
    return Entry.read(document, rest)


def read_tally(key: Key, document: Mapping[str, Any]) -> Tally:
    """How far a map has come. Raises `DocumentUnreadableError`."""
    try:
        return Tally(**document)
    except MALFORMED as error:
        raise unreadable(key, document, (), error) from error


def read_items(key: Key, document: Document | None) -> list[Any]:
    """The entries of a chunk, which must be there: lists that begin with the item's key."""
    try:
        fields: Any = document
        entries: Any = canonical.decode(fields["items"])
        if type(entries) is list and all(type(entry) is list and len(entry) >= 2 for entry in entries):
            return entries
    except MALFORMED as error:
        raise unreadable(key, document, (), error) from error
    raise unreadable(key, document)


def read_status(key: Key, document: Document) -> Status:
    """The status of a run, of its head's own document alone. Raises `DocumentUnreadableError`."""
    try:
        return Status(document["status"])  # type: ignore[arg-type]  # what is no text is no status either
    except MALFORMED as error:
        raise unreadable(key, document, (), error) from error


def sound(key: Key, document: Document | None, rest: Rest | None = None) -> Document:
    """The document, when it is there and all of it is as it should be. Raises `DocumentUnreadableError`.

    Without `rest` what other documents hold of it is not looked at.
    """
    problem = flaw(key, document, rest)
    if problem or document is None:
        raise _error(key, problem)
    return document


def expect_readable(documents: Mapping[Key, Document | None], error: Exception) -> None:
    """See whether an error that a decide met comes of a document that cannot be read: then that is what is told."""
    for key, document in documents.items():
        if document is None:
            continue
        problem = flaw(key, document, None)
        if problem:
            raise _error(key, problem) from error


def unreadable(
    key: Key, document: Document | None, rest: Rest | None = None, error: Exception | None = None
) -> DocumentUnreadableError:
    """The error for a document that could not be read: what is wrong with it, or failing that, what reading it met."""
    met = "it is not as this release writes it" if error is None else f"reading it met a {type(error).__name__}"
    return _error(key, flaw(key, document, rest) or met)


def unreadable_head(run_id: str, problem: str) -> DocumentUnreadableError:
    """The error for a head that reads well and cannot be so, for a reason that its shape does not tell."""
    return _error(head_key(run_id), problem)


def _error(key: Key, problem: str) -> DocumentUnreadableError:
    remedy = "Restore it from a copy; what does not need it goes on."
    if key.collection == RUNS:
        remedy = f"Restore it from a copy. `detent replay {key.id}` says where its journal leads; other runs go on."
    return DocumentUnreadableError(f"{key.collection}/{key.id}", problem, remedy=remedy)


# What is wrong with a document


def flaw(key: Key, document: Document | None, rest: Rest | None = None) -> str:
    """The first thing that keeps a document of a run from being read, as a sentence; empty when there is none.

    `rest` are the documents that hold the rest of its text; without them that text is judged only when it is whole.
    """
    if document is None:
        return "it is missing, and others need it"
    fields: Any = document
    if not isinstance(fields, Mapping):
        return f"it should be a map, and is {_word(fields)}"
    if key.collection == MAPS:
        return _flaw_of(Tally, fields, "its field ")
    known = _FIELDS.get(key.collection, {})
    problem = next(filter(None, (_flaw_in(fields, name, kinds) for name, kinds in known.items())), "")
    if not problem and key.collection == RUNS:
        problem = _flaw_of_head(key, fields)
    return problem or _flaw_of_text(key, fields, rest)


def _flaw_of_head(key: Key, fields: Mapping[str, Any]) -> str:
    if fields["run_id"] != key.id:
        return "its field run_id names another run"
    if fields["place"] is not None and (problem := _flaw_of(Place, fields["place"], "its field place.")):
        return problem
    for name, cls in (("leaving", StopMap), ("inbox", None)):
        entries = fields.get(name) or []
        if type(entries) is not list:
            return f"its field {name} should be a list, and is {_word(entries)}"
        for number, entry in enumerate(entries):
            if problem := _flaw_of_message(entry, cls, f"its field {name}[{number}]"):
                return problem
    return ""


def _flaw_of_message(entry: Any, cls: type[StopMap] | None, place: str) -> str:
    if type(entry) is not dict:
        return f"{place} should be a map, and is {_word(entry)}"
    if cls is not None:
        return _flaw_of(cls, entry, f"{place}.")
    kind = {"cancel": Cancel, "signal": Signal}.get(str(entry.get("kind")))
    if kind is None:
        return f"{place}.kind is neither cancel nor signal"
    return _flaw_of(kind, {name: value for name, value in entry.items() if name != "kind"}, f"{place}.")


_TEXTS: Final = {RUNS: "snapshot", JOURNAL: "entry", MAP_ITEMS: "items", SIGNALS: "value", DEFINITIONS: "source"}
"""The field of each document that holds JSON as text."""


def _flaw_of_text(key: Key, fields: Mapping[str, Any], rest: Rest | None) -> str:
    name = _TEXTS.get(key.collection)
    if name is None:
        return ""
    parts = fields.get("parts", 1)
    if type(parts) is not int or not 1 <= parts <= PARTS_MAX:
        return f"its field parts should be an integer from 1 to {PARTS_MAX}, and is {_word(parts)}"
    if parts > 1 and rest is None:
        return ""
    text = fields[name]
    for number, part in enumerate(rest or (), 1):
        if part is None or type(part.get("text")) is not str:
            return f"part {number} of its {name} is missing or holds no text"
        text += part["text"]
    try:
        value: Any = canonical.decode(text)
    except ValueError as error:
        return f"its field {name} is {error}"
    return _flaw_of_value(key, name, value)


def _flaw_of_value(key: Key, name: str, value: Any) -> str:
    wanted = {MAP_ITEMS: list, SIGNALS: None}.get(key.collection, dict)
    if wanted is not None and type(value) is not wanted:
        return f"its {name} should be {_WORDS[wanted]}, and is {_word(value)}"
    if key.collection == MAP_ITEMS and not all(type(entry) is list and len(entry) >= 2 for entry in value):
        return "its items should be lists of a key and a value"
    if key.collection == RUNS:
        problem = _flaw_of(Snapshot, value, "snapshot.")
        if not problem and value["status"] not in _STATUSES:
            return f"snapshot.status is none of {', '.join(_STATUSES)}"
        for counts in ("visits", "visits_before", "timers"):
            if not problem and any(type(entry) is not int for entry in value.get(counts, {}).values()):
                return f"snapshot.{counts} should hold nothing but integers"
        return problem or ("" if value["run_id"] == key.id else "its snapshot is that of another run")
    if key.collection == JOURNAL:
        cls = _EVENTS.get(str(value.get("event")))
        if cls is None:
            return "entry.event is no event that this release knows"
        return _flaw_of(cls, {name: entry for name, entry in value.items() if name != "event"}, "entry.")
    return ""


def _flaw_of(cls: Any, fields: Any, place: str) -> str:
    """The first field in which a map is not what a named tuple of `cls` would be as JSON."""
    if not isinstance(fields, Mapping):
        return f"{place.removesuffix('.')} should be a map, and is {_word(fields)}"
    shape = _shape(cls)
    for name, kinds in shape.items():
        if name in fields or name not in cls._field_defaults:
            problem = _flaw_in(fields, name, kinds, place)
            if problem:
                return problem
    unknown = next((str(name) for name in fields if name not in shape), None)
    return "" if unknown is None else f"{place}{unknown[:NAME_CHARS_MAX]} is nothing that this release knows"


def _flaw_in(fields: Mapping[str, Any], name: str, kinds: _Kinds, place: str = "its field ") -> str:
    if name not in fields:
        return f"{place}{name} is missing"
    if kinds and type(fields[name]) not in kinds:
        wanted = " or ".join(_WORDS[kind] for kind in kinds)
        return f"{place}{name} should be {wanted}, and is {_word(fields[name])}"
    return ""


def _word(value: object) -> str:
    return _WORDS.get(type(value), "something else")


@lru_cache
def _shape(cls: type[Any]) -> Mapping[str, _Kinds]:
    """The fields of a named tuple, each with the types that it may have as JSON; none is any."""
    return {name: _kinds(cls.__annotations__[name]) for name in cls._fields}


def _kinds(hint: Any) -> _Kinds:
    if get_origin(hint) in (Union, UnionType):
        each = [_kinds(one) for one in get_args(hint)]
        return _ANY if _ANY in each else tuple(kind for kinds in each for kind in kinds)
    kind = get_origin(hint) or hint
    if kind is Failure or (isinstance(kind, type) and issubclass(kind, Mapping)):
        return (dict,)
    if isinstance(kind, type) and issubclass(kind, str):
        return (str,)
    return (kind,) if kind in _WORDS else _ANY
