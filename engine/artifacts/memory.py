"""The artifacts as a specification: two dictionaries, and each verb as short as its meaning allows.

In and out: as `engine/artifacts/port.py` says. An object's generation counts its changes. It forgets everything
when it goes, keeps no content type, and is never shared between threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import anyio.lowlevel

from engine.artifacts.port import ABSENT, Stored, check_name, check_sha256
from engine.errors import ArtifactConflictError, ArtifactError


class MemoryArtifacts:
    """`Artifacts` in memory; see the module."""

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket
        self._objects: dict[str, tuple[Stored, bytes]] = {}
        self._blobs: dict[str, bytes] = {}
        self._generation = 0

    @property
    def objects(self) -> Mapping[str, bytes]:
        """What lies under each name."""
        return {name: content for name, (_, content) in self._objects.items()}

    def uri(self, name: str) -> str:
        check_name(name)
        return f"gs://{self._bucket}/{name}"

    async def stat(self, name: str) -> Stored | None:
        check_name(name)
        await anyio.lowlevel.checkpoint()
        found = self._objects.get(name)
        return None if found is None else found[0]

    async def read(self, name: str) -> bytes:
        check_name(name)
        await anyio.lowlevel.checkpoint()
        if name not in self._objects:
            raise ArtifactError(f"there is no object {name!r}.", remedy="Write it first.")
        return self._objects[name][1]

    async def write(self, name: str, content: bytes, *, content_type: str, expected: str) -> Stored:
        check_name(name)
        await anyio.lowlevel.checkpoint()
        found = self._objects.get(name)
        if found is not None and found[1] == content:
            return found[0]
        generation = ABSENT if found is None else found[0].generation
        if generation != expected:
            raise ArtifactConflictError(
                f"{name!r} stands at generation {generation}, and {expected} was expected.",
                remedy="Read it again; somebody else has written it.",
            )
        self._generation += 1
        stored = Stored(str(self._generation), hashlib.sha256(content).hexdigest(), len(content))
        self._objects[name] = (stored, content)
        return stored

    async def put_blob(self, content: bytes, *, content_type: str) -> str:
        await anyio.lowlevel.checkpoint()
        sha256 = hashlib.sha256(content).hexdigest()
        self._blobs[sha256] = content
        return sha256

    async def get_blob(self, sha256: str) -> bytes:
        check_sha256(sha256)
        await anyio.lowlevel.checkpoint()
        if sha256 not in self._blobs:
            raise ArtifactError(f"there is no blob {sha256}.", remedy="Put it first.")
        return self._blobs[sha256]

    async def publish(self, sha256: str, name: str, *, content_type: str) -> Stored:
        check_name(name)
        content = await self.get_blob(sha256)
        return await self.write(name, content, content_type=content_type, expected=ABSENT)

    async def close(self) -> None:
        """Nothing to let go of."""
