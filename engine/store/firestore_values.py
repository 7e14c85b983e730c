"""JSON values as Firestore's, and back: what Firestore can hold stands there as it is, the rest as text.

In: a document of `engine/store/port.py`, or the fields of a stored one. Out: the other form. Pure.

Firestore holds no list in a list, no more than 20 levels, no field without a name or named `__x__`, and little more
than half of some documents of a mebibyte of text. What it cannot hold is stored in place as the map `{"$json": …}`:
a value as canonical JSON text, a whole field as that text deflated. A map that looks so is stored this way itself.

What others have stored natively is read as protobuf's JSON mapping spells it: a timestamp is RFC 3339 text, bytes
are base64, a reference is its name. https://protobuf.dev/programming-guides/json/
"""

from __future__ import annotations

import base64
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from google.cloud.firestore_v1.types import document as documents

from engine.core import canonical
from engine.core.bounds import DOCUMENT_BYTES_MAX
from engine.core.canonical import Json
from engine.core.write import Document

# The messages of protobuf itself: the wrappers of the client library take ten times as long to fill.
Value: Any = documents.Value.pb()
Fields: TypeAlias = "Mapping[str, Any]"
"""Field names to `Value` messages: a stored document, or a map in one."""

MARK: Final = "$json"
"""The one field of a map that stands for a value in text."""

LEVELS_MAX: Final = 20
"""Maps and lists inside each other. https://firebase.google.com/docs/firestore/quotas#limits"""

NAME_BYTES_MAX: Final = 1500
"""Of a field's name, and of a field path."""

LEAVES_MAX: Final = 10_000
"""Values that stand natively in one document: Firestore makes up to three index entries of each, and takes 40,000."""

NATIVE_BYTES_MAX: Final = 1_048_576 - 4_096
"""Of a stored document, as Firestore counts. Left open is room for the longest name, and for a count a little off."""

SURELY_NATIVE_CHARACTERS: Final = 16 * 1024
"""A canonical text of this length is within every bound, whatever it holds."""

WORTH_DEFLATING_BYTES: Final = 512
"""Of a field; a document of nothing but smaller ones is deflated as a whole."""

_RESERVED: Final = re.compile(r"__.*__", re.DOTALL)


def encode_document(document: Document, text: str) -> dict[str, Any]:
    """The stored fields of a document whose canonical text is `text`."""
    if not _is_storable_map(document):
        return {MARK: _value(bytes_value=_deflated(document))}
    fields = {name: encode(value) for name, value in document.items()}
    if len(text) > SURELY_NATIVE_CHARACTERS and not _shrink(document, fields):
        return {MARK: _value(bytes_value=_deflated(document))}
    return fields


def decode_document(fields: Fields) -> dict[str, Any]:
    """The document that stored fields are, in new containers."""
    decoded: dict[str, Any] = _decode_map(fields)
    return decoded


def encode(value: Json, level: int = 1) -> Any:
    """A `Value` of a JSON value that stands inside `level - 1` maps and lists of its document."""
    target = Value()
    _fill(target, value, level, in_list=False)
    return target


def is_text(value: Any) -> bool:
    """Whether a `Value` is one that stands as text, of which no part can be changed by its path."""
    return value.WhichOneof("value_type") == "map_value" and _marked(value.map_value.fields) is not None


def bound_of(value: str | float | bool) -> Any:
    """A `Value` to compare with. An integer beyond 64 bits becomes the nearest number that is no integer."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        try:
            return _value(double_value=float(value))
        except OverflowError:
            return _value(double_value=math.copysign(math.inf, value))
    return encode(value)


def size_of(value: Any) -> tuple[int, int]:
    """Bytes of a `Value` as Firestore counts them, and leaves in it.

    https://firebase.google.com/docs/firestore/storage-size
    """
    match value.WhichOneof("value_type"):
        case "map_value":
            return _size_of_map(value.map_value.fields)
        case "array_value":
            sizes = [size_of(entry) for entry in value.array_value.values]
            return sum(size for size, _ in sizes), 1 + sum(leaves for _, leaves in sizes)
        case "string_value":
            return len(value.string_value.encode()) + 1, 1
        case "bytes_value":
            return len(value.bytes_value), 1
        case "null_value" | "boolean_value":
            return 1, 1
        case _:
            return 8, 1


def _size_of_map(fields: Fields) -> tuple[int, int]:
    size, leaves = 32, 1
    for name, entry in fields.items():
        inner, more = size_of(entry)
        size += len(name.encode()) + 1 + inner
        leaves += more
    return size, leaves


def _value(**kind: object) -> Any:
    return Value(**kind)


def _fill(target: Any, value: Any, level: int, *, in_list: bool) -> None:
    if isinstance(value, str):
        target.string_value = value
    elif value is None:
        target.null_value = 0
    elif isinstance(value, bool):
        target.boolean_value = value
    elif isinstance(value, int):
        target.integer_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, Mapping):
        if level >= LEVELS_MAX or not _is_storable_map(value):
            target.map_value.fields[MARK].string_value = canonical.encode_plain(value)
            return
        fields = target.map_value.fields
        target.map_value.SetInParent()  # else an empty map would be no value at all
        for name, entry in value.items():
            _fill(fields[name], entry, level + 1, in_list=False)
    elif in_list or level >= LEVELS_MAX:
        target.map_value.fields[MARK].string_value = canonical.encode_plain(value)
    else:
        target.array_value.SetInParent()
        values = target.array_value.values
        for entry in value:
            _fill(values.add(), entry, level + 1, in_list=True)


def _is_storable_map(value: Mapping[str, Any]) -> bool:
    if len(value) == 1 and MARK in value:
        return False
    return all(_is_name(name) for name in value)


def _is_name(name: str) -> bool:
    return bool(name) and len(name.encode()) <= NAME_BYTES_MAX and not _RESERVED.fullmatch(name)


def _shrink(document: Document, fields: dict[str, Any]) -> bool:
    """Deflate the largest fields of a document until Firestore can hold it; false when all its fields are small."""
    sizes = {name: size_of(value) for name, value in fields.items()}
    size = 32 + sum(len(name.encode()) + 1 + sizes[name][0] for name in fields)
    leaves = sum(inner for _, inner in sizes.values())
    # Leaves count in bytes as well, so that "largest" means both.
    for name in sorted(sizes, key=lambda name: max(sizes[name][0], sizes[name][1] * 100), reverse=True):
        if size <= NATIVE_BYTES_MAX and leaves <= LEAVES_MAX:
            return True
        if sizes[name][0] < WORTH_DEFLATING_BYTES:
            return False
        fields[name] = Value()
        fields[name].map_value.fields[MARK].bytes_value = _deflated(document[name])
        after = size_of(fields[name])
        size += after[0] - sizes[name][0]
        leaves += after[1] - sizes[name][1]
    return size <= NATIVE_BYTES_MAX and leaves <= LEAVES_MAX


def _deflated(value: object) -> bytes:
    return zlib.compress(canonical.encode_plain(value).encode())


def _decode(value: Any) -> Any:
    kind = value.WhichOneof("value_type")
    match kind:
        case "string_value" | "integer_value" | "boolean_value":
            return getattr(value, kind)
        case "null_value" | None:
            return None
        case "double_value":
            return _number(value.double_value)
        case "map_value":
            return _decode_map(value.map_value.fields)
        case "array_value":
            return [_decode(entry) for entry in value.array_value.values]
        case "timestamp_value":
            return value.timestamp_value.ToJsonString()
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "geo_point_value":
            return {"latitude": value.geo_point_value.latitude, "longitude": value.geo_point_value.longitude}
        case _:
            return getattr(value, kind)  # a reference: the name of a document


def _decode_map(fields: Fields) -> Any:
    marked = _marked(fields)
    if marked is not None:
        return marked
    return {name: _decode(entry) for name, entry in fields.items()}


def _marked(fields: Fields) -> Any:
    """The list or map that a map of one marked field stands for; `None` where it is an ordinary map."""
    if len(fields) != 1 or MARK not in fields:
        return None
    inner = fields[MARK]
    try:
        match inner.WhichOneof("value_type"):
            case "string_value":
                value = canonical.decode(inner.string_value)
                return value if isinstance(value, (dict, list)) else None
            case "bytes_value":
                return canonical.decode(zlib.decompressobj().decompress(inner.bytes_value, DOCUMENT_BYTES_MAX))
    except (ValueError, zlib.error):  # written by somebody else, who meant it as it stands
        pass
    return None


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
