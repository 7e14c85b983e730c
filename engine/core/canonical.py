"""JSON values, and the one text form in which detent writes them.

Canonical JSON has sorted keys, no spaces, UTF-8 as it is, and no NaN or Infinity. Two equal values
have one text, so texts can be compared byte for byte and hashed. orjson writes and reads it: every commit
encodes three texts, and at that the standard library takes ten times as long.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import orjson

from engine.core.bounds import INTEGER_BITS_MAX, JSON_DEPTH_MAX

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

_INTEGER_END: Final = 2**INTEGER_BITS_MAX
_INFINITY: Final = float("inf")


def encode(value: object) -> str:
    """The canonical text of a JSON value. Raises `TypeError` or `ValueError` when it is none."""
    text = encode_plain(value)
    # orjson writes a NaN or an Infinity as null: where there is a null, see that it was one.
    if "null" in text and not _is_finite(value):
        raise ValueError("NaN and Infinity are not JSON")
    return text


def encode_plain(value: object) -> str:
    """As `encode`, for a value that came out of `plain`, `decode` or an expression: it holds no NaN or Infinity."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def decode(text: str | bytes) -> Json:
    """The value of a JSON text. Raises `ValueError` (NaN and Infinity are refused)."""
    try:
        value: Json = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    return value


def digest(value: object) -> str:
    """Hex SHA-256 of the canonical text of a JSON value."""
    return hashlib.sha256(encode(value).encode()).hexdigest()


def plain(value: object, path: str = "$") -> Json:
    """`value` as new, plain JSON containers; raises `ValueError` naming the path of what is not JSON.

    What no store could write is refused too: text that UTF-8 cannot hold, and what passes the bounds.
    """
    try:
        return _copied(value, 0)
    except _NotPlainError as refusal:
        place = "".join((path, *reversed(refusal.segments)))
        raise ValueError(f"{place[:200]} {refusal.problem}") from None


class _NotPlainError(Exception):
    """Why a value is not JSON; its path gathers on the way out, so that a value that is costs no path."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.segments: list[str] = []


def _copied(value: Any, depth: int) -> Json:
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _text(value)
    if value is None or kind is bool:
        return value  # type: ignore[no-any-return]
    if kind is int or isinstance(value, int):
        if not -_INTEGER_END <= value < _INTEGER_END:
            raise _NotPlainError(f"is an integer of more than {INTEGER_BITS_MAX} bits, which no expression can hold")
        return value  # type: ignore[no-any-return]
    if kind is dict:
        return _copied_map(value, depth)
    if isinstance(value, float):
        if value != value or value in (_INFINITY, -_INFINITY):
            raise _NotPlainError(f"is {value}, which JSON cannot hold")
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return _copied_map(value, depth)
    if isinstance(value, (list, tuple)):
        return _copied_list(value, depth)
    raise _NotPlainError(f"is a {kind.__name__}, which JSON cannot hold")


def _copied_map(value: Mapping[Any, Any], depth: int) -> Json:
    _expect_depth(depth)
    copied: dict[str, Json] = {}
    for key, entry in value.items():
        if not isinstance(key, str):
            raise _NotPlainError(f"has the key {key!r}, which is no string")
        _text(key)
        try:
            copied[key] = _copied(entry, depth + 1)
        except _NotPlainError as refusal:
            refusal.segments.append(f".{key}")
            raise
    return copied


def _copied_list(value: Sequence[Any], depth: int) -> Json:
    _expect_depth(depth)
    copied: list[Json] = []
    for index, entry in enumerate(value):
        try:
            copied.append(_copied(entry, depth + 1))
        except _NotPlainError as refusal:
            refusal.segments.append(f"[{index}]")
            raise
    return copied


def _expect_depth(depth: int) -> None:
    if depth >= JSON_DEPTH_MAX:
        raise _NotPlainError(f"is nested more than {JSON_DEPTH_MAX} levels deep")


def _text(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _NotPlainError("holds half of a surrogate pair, which UTF-8 cannot hold") from None
    return value


def _is_finite(value: Any) -> bool:
    """Whether no NaN and no Infinity is anywhere in a value that could be written as JSON."""
    if isinstance(value, float):
        return value == value and value not in (_INFINITY, -_INFINITY)
    if isinstance(value, Mapping):
        return all(_is_finite(entry) for entry in value.values())
    if isinstance(value, (list, tuple)):
        return all(_is_finite(entry) for entry in value)
    return True
