"""Where a character of a YAML scalar's value stands in the text, so that an error inside a long guard is found.

A scalar's value is not its source: block scalars lose their indentation, folding joins lines, quotes have
escapes. What is never lost or invented is a character that is no white space; the two are walked together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from engine.core.diagnostic import Position

_BREAK: Final = r"\r\n|[\n\r\x85\u2028\u2029]"
_DOUBLE: Final = r"(?s:\\(?:x..|u.{4}|U.{8}|\r\n|.)|.)"
_ESCAPED_SPACE: Final = frozenset("\\" + after for after in "tnr\tNLPvf_ \n\r") | {"\\\r\n"}


class Span(NamedTuple):
    """A scalar in the text: the offsets of its source, and how it is written (`'`, `"`, `|`, `>` or nothing)."""

    start: int
    end: int
    style: str


def offset_of(text: str, span: Span, value: str, offset: int) -> int:
    """The offset in `text` of the character of `value` at `offset`; the nearest one where the two differ."""
    wanted = sum(1 for character in value[:offset] if not character.isspace())
    # An offset on white space, or at the end, stands behind the character before it.
    behind = offset >= len(value) or value[offset].isspace()
    found = span.start
    for place, length in _visible(text, span):
        if wanted == 0 and not behind:
            return place
        if wanted == 1 and behind:
            return place + length
        wanted -= 1
        found = place
    return found


def position_of(text: str, offset: int) -> Position:
    """Line and column of an offset, with the line breaks that YAML knows."""
    line, start = 1, 0
    for found in re.compile(_BREAK).finditer(text, 0, offset):
        line, start = line + 1, found.end()
    return Position(line, offset - start + 1)


def _visible(text: str, span: Span) -> Iterator[tuple[int, int]]:
    """Offset and length in the source of each character of a scalar that is no white space."""
    source = text[span.start : span.end]
    if span.style == '"':
        for found in re.compile(_DOUBLE).finditer(source, 1, len(source) - 1):
            if found.group() not in _ESCAPED_SPACE and not found.group().isspace():
                yield span.start + found.start(), len(found.group())
        return
    begin, end = 0, len(source)
    if span.style == "'":
        begin, end = 1, end - 1
    elif span.style in ("|", ">"):
        header = re.search(_BREAK, source)
        begin = header.end() if header else end
    at = begin
    while at < end:
        length = 2 if span.style == "'" and source.startswith("''", at) else 1
        if not source[at].isspace():
            yield span.start + at, length
        at += length
