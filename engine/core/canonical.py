"""JSON values, and the one text form in which detent writes them.

Canonical JSON has sorted keys, no spaces, UTF-8 as it is, and no NaN or Infinity. Two equal values
have one text, so texts can be compared byte for byte and hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "None | bool | int | float | str | Sequence[Json] | Mapping[str, Json]"

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


def plain(value: object, path: str = "$") -> Json:
    """`value` as new, plain JSON containers; raises `ValueError` naming the path of what is not JSON."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"{path} is {value}, which JSON cannot hold")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{path} has the key {key!r}, which is no string")
        return {key: plain(entry, f"{path}.{key}") for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry, f"{path}[{index}]") for index, entry in enumerate(value)]
    raise ValueError(f"{path} is a {type(value).__name__}, which JSON cannot hold")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
