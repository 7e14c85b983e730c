"""What a decide writes, as Firestore's writes, each with the precondition under which its document was read.

In: a port's write, the document as it was read, and what the commit is to leave. Out: `Write` messages. Pure.

Never a transaction, never a transform. A document that was there must still have the update time that was read, one
that was not must still be missing. A check is an update with an empty mask, or a deletion of what is not there:
both change nothing and are judged like any write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from google.cloud.firestore_v1.field_path import FieldPath as ApiPath
from google.cloud.firestore_v1.types import common, document, write

from engine.core.write import Check, Create, Delete, FieldPath, Set, Update, Write
from engine.store.firestore_values import MARK, NAME_BYTES_MAX, Fields, encode_document, is_text
from engine.store.port import document_of

_Write: Any = write.Write.pb()
_Document: Any = document.Document.pb()
_Precondition: Any = common.Precondition.pb()
_Mask: Any = common.DocumentMask.pb()


class Read(NamedTuple):
    """A document as it was read: its stored fields and update time (a protobuf timestamp); both `None` if missing."""

    fields: Fields | None
    update_time: Any


MISSING: Final = Read(None, None)


def guarded(name: str, asked: Write, read: Read, after: str | None) -> Any:
    """The `Write` message of one write on the document named `name`; `after` is the canonical text that it leaves."""
    if read.fields is None:
        condition = _Precondition(exists=False)
    else:
        condition = _Precondition(update_time=read.update_time)
    match asked:
        case Create() | Set():
            assert after is not None
            stored = encode_document(document_of(after), after)
            return _Write(update=_Document(name=name, fields=stored), current_document=condition)
        case Update(_, fields):
            assert after is not None
            assert read.fields is not None
            return _patch(name, tuple(fields), read.fields, after, condition)
        case Delete():
            return _Write(delete=name, current_document=condition)
        case Check():
            if read.fields is None:
                return _Write(delete=name, current_document=condition)
            return _Write(update=_Document(name=name), update_mask=_Mask(), current_document=condition)


def _patch(name: str, asked: Sequence[FieldPath], before: Fields, text: str, condition: Any) -> Any:
    """An update of the fields asked for alone: what others have stored beside them stays as it is, also natively."""
    after = encode_document(document_of(text), text)
    if _is_whole_text(before) or _is_whole_text(after):
        return _Write(update=_Document(name=name, fields=after), current_document=condition)
    paths = {_writable(path, before, after) for path in asked}
    # A field that grew too large to stand natively is stored anew as text, whichever part of it was asked for.
    paths |= {(field,) for field, value in after.items() if is_text(value) and not _is_text_at(before, (field,))}
    patch = _Write(update=_Document(name=name), update_mask=_Mask(), current_document=condition)
    for path in _outermost(paths):
        value = _at(after, path)
        if value is not None:
            _put(patch.update.fields, path, value)
        elif _at(before, path) is None:
            continue  # removing what is not there would make the maps on the way to it
        patch.update_mask.field_paths.append(_api_path(path))
    return patch


def _writable(path: FieldPath, before: Fields, after: Fields) -> FieldPath:
    """The path itself, or the start of it that can be written: text has no parts, and a path's length is bounded."""
    for length in range(1, len(path)):
        start = path[:length]
        if _is_text_at(before, start) or _is_text_at(after, start):
            return start
        if len(_api_path(path[: length + 1]).encode()) > NAME_BYTES_MAX:
            return start
    return path


def _outermost(paths: set[FieldPath]) -> Iterator[FieldPath]:
    """The paths that lie in no other one, in a fixed order."""
    for path in sorted(paths):
        if not any(path[:length] in paths for length in range(1, len(path))):
            yield path


def _at(fields: Fields, path: FieldPath) -> Any:
    """The `Value` under a path; `None` where there is none."""
    value = None
    for segment in path:
        if segment not in fields:
            return None
        value = fields[segment]
        fields = value.map_value.fields if value.WhichOneof("value_type") == "map_value" else {}
    return value


def _is_text_at(fields: Fields, path: FieldPath) -> bool:
    value = _at(fields, path)
    return value is not None and is_text(value)


def _is_whole_text(fields: Fields) -> bool:
    return len(fields) == 1 and MARK in fields


def _put(fields: Any, path: FieldPath, value: Any) -> None:
    for segment in path[:-1]:
        fields = fields[segment].map_value.fields
    fields[path[-1]].CopyFrom(value)


def _api_path(path: FieldPath) -> str:
    text: str = ApiPath(*path).to_api_repr()
    return text
