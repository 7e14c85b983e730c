"""What a server said, made fit to be kept: its message found, bounded, and free of secrets.

In: the bytes of an error body and a `Redact`. Out: a short sentence, and a bounded JSON value for
`details.response`. Chart-IMG says what is wrong in six shapes (an object with `message`, `error`, `msg` or
`errors`, a bare array of such objects, or a gateway's page); all are understood.
Nothing here raises on any bytes, and nothing leaves here that was not redacted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from engine.core.canonical import Json, decode, encode
from engine.core.secret import REDACTED, Secrets

BODY_BYTES_MAX: Final = 64 * 1024
"""Of a body that is no picture this much is read; the API's own errors have a few hundred bytes."""

MESSAGE_CHARACTERS_MAX: Final = 500
"""A message is read by people and stored in documents, in the manifest and in log lines."""

EXCERPT_CHARACTERS_MAX: Final = 300
"""Of a body that is no JSON (a gateway's page) this much is kept."""

STRING_CHARACTERS_MAX: Final = 500
DEPTH_MAX: Final = 6
ENTRIES_MAX: Final = 20
"""Bounds of `details.response`: strings, nesting, and entries of each object and array."""

RESPONSE_CHARACTERS_MAX: Final = 4096
"""Canonical text of `details.response`; what is larger is kept as an excerpt."""

INTEGER_MAX: Final = 2**53
"""Larger integers are kept as text: documents and browsers hold no more."""

_KEYS: Final = ("message", "error", "msg", "detail", "title")
_UNPRINTABLE: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")

Redact: TypeAlias = Callable[[str], str]


def redactor(secrets: Secrets, key: str = "") -> Redact:
    """A function that removes every registered secret, and `key` whatever its length."""
    forms = {key, encode(key)[1:-1], quote(key, safe="")} - {""}
    if not forms:
        return secrets.redact
    pattern = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))
    return lambda text: secrets.redact(pattern.sub(REDACTED, text))


def parsed(content: bytes, redact: Redact) -> Any:
    """The JSON value of a body, or its text where it is no JSON; None for an empty one."""
    text = redact(content[:BODY_BYTES_MAX].decode("utf-8", "replace").removeprefix("\ufeff"))
    try:
        return decode(text)
    except (ValueError, RecursionError):
        return text.strip() or None


def message_in(body: Any, redact: Redact) -> str:
    """What a parsed body says, on one bounded line; empty when it says nothing (a web page says nothing)."""
    text = "" if isinstance(body, str) and body.startswith("<") else _said(body, DEPTH_MAX)
    return one_line(redact(text), MESSAGE_CHARACTERS_MAX)


def bounded(body: Any, redact: Redact) -> Json:
    """A parsed body, small enough to be kept in a document and redacted once more.

    Once more, because an escape in the JSON text may have hidden a secret from the first pass.
    """
    if isinstance(body, str):
        return one_line(redact(body), EXCERPT_CHARACTERS_MAX)
    value = _bounded(body, redact, DEPTH_MAX)
    text = encode(value)
    return value if len(text) <= RESPONSE_CHARACTERS_MAX else one_line(text, EXCERPT_CHARACTERS_MAX)


def one_line(text: str, characters_max: int) -> str:
    """`text` without line breaks and control characters, cut with an ellipsis, and valid Unicode."""
    # Far more than is kept need not be looked at: blanks are squeezed, so twice as much is plenty.
    line = _UNPRINTABLE.sub(" ", text[: 4 * characters_max]).strip().encode("utf-8", "replace").decode()
    return line if len(line) <= characters_max else line[: characters_max - 1].rstrip() + "…"


def _said(body: Any, depth: int) -> str:
    if depth == 0:
        return ""
    if isinstance(body, str):
        return body
    if isinstance(body, (int, float)) and not isinstance(body, bool):
        return str(body) if abs(body) < INTEGER_MAX else ""
    if isinstance(body, list):
        said = (_said_of_entry(entry, depth - 1) for entry in body[:ENTRIES_MAX])
        return "; ".join(text for text in said if text)
    if isinstance(body, Mapping):
        for name in _KEYS:
            text = _said(body.get(name), depth - 1)
            if text.strip():
                return text
        return _said(body.get("errors"), depth - 1)
    return ""


def _said_of_entry(entry: Any, depth: int) -> str:
    """An entry of `errors`, or of the bare array of a 422: with the parameter that it is about."""
    text = _said(entry, depth)
    param = entry.get("param") if isinstance(entry, Mapping) else None
    return f"{param}: {text}" if text and isinstance(param, str) and param else text


def _bounded(value: Any, redact: Redact, depth: int) -> Json:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return one_line(redact(value), STRING_CHARACTERS_MAX)
    if isinstance(value, (int, float)):
        return _number(value, redact)
    if depth == 0:
        return "…"
    if isinstance(value, Mapping):
        pairs = list(value.items())[:ENTRIES_MAX]
        return {one_line(redact(str(name)), 100): _bounded(entry, redact, depth - 1) for name, entry in pairs}
    return [_bounded(entry, redact, depth - 1) for entry in value[:ENTRIES_MAX]]


def _number(value: float, redact: Redact) -> Json:
    if isinstance(value, int) and value.bit_length() > 64:
        return "…"
    text = str(value)
    if redact(text) != text:
        return REDACTED
    if value != value or value in (float("inf"), float("-inf")):
        return text
    return value if isinstance(value, float) or abs(value) <= INTEGER_MAX else text
