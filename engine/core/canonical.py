"""JSON values, and the one text form in which detent writes them.

Canonical JSON has sorted keys, no spaces, UTF-8 as it is, and no NaN or Infinity. Two equal values
have one text, so texts can be compared byte for byte and hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from engine.core.bounds import INTEGER_BITS_MAX, JSON_DEPTH_MAX

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def encode(value: object) -> str:
    """The canonical text of a JSON value. Raises `TypeError` or `ValueError` when it is none."""
    return _ENCODER.encode(value)


def decode(text: str | bytes) -> Json:
    """The value of a JSON text. Raises `ValueError` (NaN and Infinity are refused)."""
    value: Json = json.loads(text, parse_constant=_refuse_constant)
    return value


def digest(value: object) -> str:
    """Hex SHA-256 of the canonical text of a JSON value."""
    return hashlib.sha256(encode(value).encode()).hexdigest()


def plain(value: object, path: str = "$", depth: int = 0) -> Json:
    """`value` as new, plain JSON containers; raises `ValueError` naming the path of what is not JSON.

    What no store could write is refused too: text that UTF-8 cannot hold, and what passes the bounds.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        if not -(2**INTEGER_BITS_MAX) <= value < 2**INTEGER_BITS_MAX:
            raise ValueError(f"{path} is an integer of more than {INTEGER_BITS_MAX} bits, which no expression can hold")
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"{path} is {value}, which JSON cannot hold")
        return value
    if depth >= JSON_DEPTH_MAX and isinstance(value, (Mapping, list, tuple)):
        raise ValueError(f"{path[:100]} is nested more than {JSON_DEPTH_MAX} levels deep")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{path} has the key {key!r}, which is no string")
            _text(key, path)
        return {key: plain(entry, f"{path}.{key}", depth + 1) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry, f"{path}[{index}]", depth + 1) for index, entry in enumerate(value)]
    raise ValueError(f"{path} is a {type(value).__name__}, which JSON cannot hold")


def _text(value: str, path: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{path} holds half of a surrogate pair, which UTF-8 cannot hold") from None
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
