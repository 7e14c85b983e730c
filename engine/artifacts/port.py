"""PORT: objects published for others, and blobs kept by their content.

An object is either absent or whole. Each has a `generation`: an opaque text that changes with its
content; `ABSENT` is the generation of no object. `write` and `publish` replace an object only if it
stands at the generation that the caller expects, so a stale worker cannot overwrite a newer one.

Blobs are bytes under their SHA-256; storing one twice is storing it once. They are private to the
engine: `publish` gives a blob a visible name without sending its bytes again.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

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
