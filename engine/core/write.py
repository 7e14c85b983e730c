"""Documents, keys and writes: the vocabulary of the store port. Pure values and pure functions.

A document is one JSON object under a key. Its writes are

- `Create`: the document must not exist;
- `Set`: whatever is there, this replaces it;
- `Update`: the document must exist; each field path is a tuple of segments, so that a segment may
  hold any character; `DELETE` as a value removes the field;
- `Delete`: the document is gone afterwards, whether or not it was there;
- `Check`: changes nothing, and guards the document as a write would.

A decide rests on a document only if it writes or checks it (see `engine/store/port.py`).
Ids follow Firestore's rules on every store, so that what runs on a laptop runs there:
https://firebase.google.com/docs/firestore/quotas#limits
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from engine.core.canonical import Json
from engine.errors import InvalidKeyError, WriteRefusedError

ID_BYTES_MAX: Final = 1500


class Key(NamedTuple):
    """The name of a document. Raises `InvalidKeyError` through `Key.of` when a store could not hold it."""

    collection: str
    id: str

    @classmethod
    def of(cls, collection: str, id: str) -> "Key":
        """A checked key."""
        problem = id_problem(collection) or id_problem(id)
        if problem:
            raise InvalidKeyError(
                f"the document name {collection!r}/{id!r} cannot be used: an id {problem}.",
                remedy="Choose an id without '/', other than '.' and '..', and of at most 1500 bytes.",
            )
        return cls(collection, id)


def id_problem(id: object) -> str:
    """Why `id` cannot name a document, as the end of a sentence; empty when it can."""
    if not isinstance(id, str):
        return f"must be a string, not {type(id).__name__}"
    if not id:
        return "must not be empty"
    if "/" in id:
        return "must not contain '/'"
    if id in (".", ".."):
        return "must not be '.' or '..'"
    if "\0" in id:
        return "must not contain a NUL character"
    if id.startswith("__") and id.endswith("__"):
        return "must not be of the form __name__"
    try:
        size = len(id.encode())
    except UnicodeEncodeError:
        return "must be valid Unicode"
    if size > ID_BYTES_MAX:
        return f"must be at most {ID_BYTES_MAX} bytes long"
    return ""


class _Delete:
    """The value that removes a field in an `Update`."""

    def __repr__(self) -> str:
        return "DELETE"


DELETE: Final = _Delete()

FieldPath: TypeAlias = tuple[str, ...]
Document: TypeAlias = Mapping[str, Json]
FieldValue: TypeAlias = "Json | _Delete"


class Create(NamedTuple):
    key: Key
    document: Document


class Set(NamedTuple):
    key: Key
    document: Document


class Update(NamedTuple):
    key: Key
    fields: Mapping[FieldPath, FieldValue]


class Delete(NamedTuple):
    key: Key


class Check(NamedTuple):
    key: Key


Write: TypeAlias = Create | Set | Update | Delete | Check


def apply(write: Write, document: Document | None) -> Document | None:
    """The document after `write`; `None` is absence. Raises `WriteRefusedError` when its condition fails."""
    # In the order of how often: a chain of patterns would take each apart before it asks what it is.
    if isinstance(write, Set):
        return write.document
    key = write.key
    if isinstance(write, Create):
        if document is not None:
            raise WriteRefusedError(f"{key.collection}/{key.id} exists already.")
        return write.document
    if isinstance(write, Update):
        if document is None:
            raise WriteRefusedError(f"{key.collection}/{key.id} does not exist, so it cannot be updated.")
        return _updated(document, write.fields)
    return None if isinstance(write, Delete) else document


def _updated(document: Document, fields: Mapping[FieldPath, FieldValue]) -> Document:
    changed = dict(document)
    for path, value in fields.items():
        if not path:
            raise ValueError("a field path needs at least one segment")
        if any(path[:length] in fields for length in range(1, len(path))):
            raise ValueError(f"the field path {path!r} lies inside another one of the same update")
        if not isinstance(value, _Delete):
            _parent(changed, path)[path[-1]] = value
        elif _is_there(document, path):
            del _parent(changed, path)[path[-1]]
    return changed


def _parent(changed: dict[str, Json], path: FieldPath) -> dict[str, Json]:
    """The map that holds the path's last segment, copied on the way down so that the old document stays."""
    parent = changed
    for segment in path[:-1]:
        inner = parent.get(segment)
        # As in Firestore, a path through something that is no map replaces it with one.
        copied = dict(inner) if isinstance(inner, Mapping) else {}
        parent[segment] = copied
        parent = copied
    return parent


def _is_there(document: Document, path: FieldPath) -> bool:
    value: Json = document
    for segment in path:
        if not isinstance(value, Mapping) or segment not in value:
            return False
        value = value[segment]
    return True
