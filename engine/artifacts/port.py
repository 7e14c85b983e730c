"""PORT: objects published for others, and blobs kept by their content.

An object is either absent or whole. Each has a `generation`: an opaque text that changes with its
content; `ABSENT` is the generation of no object. `write` and `publish` replace an object only if it
stands at the generation that the caller expects, so a stale worker cannot overwrite a newer one.

Blobs are bytes under their SHA-256; storing one twice is storing it once. They are private to the
engine: `publish` gives a blob a visible name without sending its bytes again.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Protocol

from engine.errors import ArtifactError

NAME_BYTES_MAX: Final = 1024
"""An object's name, as in Cloud Storage."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SHA256: Final = re.compile("[0-9a-f]{64}")

ABSENT: Final = "0"
"""The generation of an object that does not exist."""


class Stored(NamedTuple):
    """What an artifact store knows of one object: `sha256` is hex, `size` in bytes."""

    generation: str
    sha256: str
    size: int


class Artifacts(Protocol):
    """See the module. Every verb may raise `ArtifactUnavailableError`."""

    def uri(self, name: str) -> str:
        """The object's address, `gs://<bucket>/<name>`. Raises `ArtifactError` for a name no store may hold."""

    async def stat(self, name: str) -> Stored | None:
        """What lies under `name`; `None` when nothing does."""

    async def read(self, name: str) -> bytes:
        """The object's bytes. Raises `ArtifactError` when there is none."""

    async def write(self, name: str, content: bytes, *, content_type: str, expected: str) -> Stored:
        """Put `content` under `name` if it stands at the generation `expected`.

        An object that holds the very same bytes already is success, whatever its generation: that is how a
        repeated write, or one whose answer was lost, is settled. Raises `ArtifactConflictError` otherwise.
        """

    async def put_blob(self, content: bytes, *, content_type: str) -> str:
        """Store bytes; answers their SHA-256 in hex."""

    async def get_blob(self, sha256: str) -> bytes:
        """The bytes of a blob, checked against their SHA-256. Raises `ArtifactError` when missing or damaged."""

    async def publish(self, sha256: str, name: str, *, content_type: str) -> Stored:
        """Give a blob a visible name, create-only; the same bytes there already are success.

        Raises `ArtifactConflictError` when other bytes lie under the name, `ArtifactError` when the blob is missing.
        """

    async def close(self) -> None:
        """Let go. Idempotent."""


def check_name(name: str) -> None:
    """Raises `ArtifactError` for a name that no artifact store may hold, a folder and a bucket alike."""
    problem = _name_problem(name)
    if problem:
        raise ArtifactError(
            f"the object name {name!r} cannot be used: it {problem}.",
            remedy="Use segments joined by single '/', none of them '.' or '..', of at most 1024 bytes in all.",
        )


def check_sha256(sha256: str) -> None:
    """Raises `ArtifactError` for a text that is no SHA-256 in lower-case hex, and so names no blob."""
    if not _SHA256.fullmatch(sha256):
        raise ArtifactError(f"{sha256!r} is no SHA-256 in hex.", remedy="Use what put_blob answered.")


def _name_problem(name: str) -> str:
    if not name:
        return "is empty"
    if _CONTROL.search(name):
        return "holds a control character"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if size > NAME_BYTES_MAX:
        return f"is {size} bytes long, and {NAME_BYTES_MAX} are the most"
    if name.startswith("/"):
        return "begins with '/'"
    segments = name.split("/")
    if "" in segments:
        return "has an empty segment"
    return "has the segment '.' or '..'" if "." in segments or ".." in segments else ""
