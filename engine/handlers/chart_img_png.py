"""Whether bytes are a whole PNG picture, and what they are when not.

In: the bytes of a body or a fixture. Out: None for a whole picture, else a `Flaw` with a sentence for
people. The chunks are walked and their checksums verified, so a picture that was cut anywhere is never
taken for a whole one. It never decodes pixels: that costs more than the call's own bookkeeping and would
say nothing about the transfer.
https://www.w3.org/TR/png-3/#5DataRep
"""

from __future__ import annotations

import zlib
from typing import Final, NamedTuple

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

CHUNKS_MAX: Final = 100_000
"""Chunks of one picture; real ones have tens. Stops a body of empty chunks from holding the event loop."""

_LENGTH_MAX: Final = 2**31 - 1
_HEADER_BYTES: Final = 13

_OTHER_FORMATS: Final = (
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"RIFF", "a WebP picture"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "compressed data"),
)


class Flaw(NamedTuple):
    """Why bytes are no whole picture; `truncated` when what is there could be the beginning of one."""

    problem: str
    truncated: bool = False


def flaw_of(content: bytes) -> Flaw | None:
    """What is wrong with `content` as a PNG picture; None when it is whole."""
    if not content:
        return Flaw("is empty")
    if not content.startswith(SIGNATURE):
        if SIGNATURE.startswith(content):
            return Flaw("is a PNG picture that was cut off", truncated=True)
        return Flaw(f"is {_kind_of(content)}, not a PNG picture")
    return _flaw_of_chunks(memoryview(content))


def _flaw_of_chunks(content: memoryview) -> Flaw | None:
    position = len(SIGNATURE)
    has_data = False
    for index in range(CHUNKS_MAX):
        if position + 12 > len(content):
            return Flaw("is a PNG picture that was cut off", truncated=True)
        length = int.from_bytes(content[position : position + 4], "big")
        name = bytes(content[position + 4 : position + 8])
        end = position + 12 + length
        if length > _LENGTH_MAX or not name.isalpha():
            return Flaw("is a damaged PNG picture")
        if end > len(content):
            return Flaw("is a PNG picture that was cut off", truncated=True)
        if zlib.crc32(content[position + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            return Flaw("is a damaged PNG picture: a checksum is wrong")
        if (name == b"IHDR") != (index == 0):
            return Flaw("is a damaged PNG picture: its header is missing or repeated")
        if index == 0 and not _has_size(content[position + 8 : end - 4]):
            return Flaw("is a PNG picture without width or height")
        has_data = has_data or name == b"IDAT"
        if name == b"IEND":
            return _flaw_of_end(has_data, trailing=len(content) - end)
        position = end
    return Flaw("is a damaged PNG picture: it has too many parts")


def _flaw_of_end(has_data: bool, trailing: int) -> Flaw | None:
    if not has_data:
        return Flaw("is a PNG picture without image data")
    return Flaw("is a PNG picture followed by other data") if trailing else None


def _has_size(header: memoryview) -> bool:
    if len(header) != _HEADER_BYTES:
        return False
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    return 0 < width <= _LENGTH_MAX and 0 < height <= _LENGTH_MAX


def _kind_of(content: bytes) -> str:
    for beginning, kind in _OTHER_FORMATS:
        if content.startswith(beginning):
            return kind
    text = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        return "a web page"
    if text.startswith((b"{", b"[")):
        return "JSON"
    return "of an unknown kind"
