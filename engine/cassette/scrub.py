"""What may stand in a recording: a few headers, and bodies without secrets.

In: headers and bodies as they came, and a function that removes secrets from a text. Out: what is kept.
Of the headers only those that decide the meaning of an answer are kept: a list of what to drop would be
one header behind every server. Bytes without a secret pass as they are, so a picture stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from engine.core.canonical import decode, encode

KEPT_HEADERS: Final = ("content-type", "retry-after")


def kept_headers(headers: Mapping[str, str], redact: Callable[[str], str]) -> dict[str, str]:
    """Those of lower-case `headers` that a recording keeps."""
    return {name: redact(headers[name]) for name in KEPT_HEADERS if name in headers}


def scrubbed(content: bytes, redact: Callable[[str], str]) -> bytes:
    """`content` without secrets; also those that escapes in a JSON text hide from a search."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        # Latin-1 shows every byte as one character, so a key in a page of any encoding is found.
        text = content.decode("latin-1")
        clear = redact(text)
        return content if clear == text else clear.encode("latin-1", "replace")
    try:
        clear = encode(decode(text))
    except (ValueError, RecursionError):
        clear = text
    # The text as it came, unless reading it as JSON brings a secret to light.
    shown = text if redact(clear) == clear else clear
    return redact(shown).encode("utf-8", "replace")
