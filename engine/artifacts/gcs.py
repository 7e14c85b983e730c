"""Artifacts in a bucket of Cloud Storage: published objects by their names, blobs under a private prefix beside them.

In: names and bytes. Out: `gs://<bucket>/<name>` for each object and `gs://<bucket>/.blobs/<2 hex>/<sha256>` for each
blob. An object's generation is Cloud Storage's own; its SHA-256 lies in its metadata under `sha256`.

Every change names the generation that it may replace, so that each may be sent again: an object is created only where
none is, replaced only as it was read, and a blob gets a visible name by a copy that the server makes. Where such a
request is refused, what lies there decides: the very same bytes are success, since they are its own, whose answer was
lost. Nothing is deleted. The library is synchronous; calls run in threads, each bounded by `DEADLINE_S`.
The environment's `STORAGE_EMULATOR_HOST` (`HOST:PORT` or a URL) names an emulator, which is called without credentials.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

import anyio
import anyio.to_thread
import google_crc32c
from google.api_core.exceptions import NotFound, PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage  # type: ignore[attr-defined]  # a namespace of which others are typed
from google.cloud.storage.retry import DEFAULT_RETRY

from engine.artifacts.gcs_errors import (
    ANSWERS,
    PERMISSIONS,
    is_missing_bucket,
    missing_bucket,
    missing_permissions,
    translated,
)
from engine.artifacts.port import ABSENT, Stored, check_name, check_sha256
from engine.core.secret import Secrets
from engine.errors import (
    ArtifactConflictError,
    ArtifactError,
    ArtifactUnavailableError,
    ConfigurationError,
    SecretLeakError,
)

BLOBS: Final = ".blobs"
"""The prefix of the blobs. No object may be published under it."""

SHA256: Final = "sha256"
"""The metadata field that holds an object's SHA-256 in hex; Cloud Storage itself knows CRC32C and MD5 alone."""

DEADLINE_S: Final = 20.0
"""How long one verb goes on trying. The library's own 120 s are longer than a lease and than most functions live."""

CONNECT_S: Final = 5.0
READ_S: Final = 10.0
"""How long one request waits for a connection, and for the next bytes: a stalled one leaves time for another."""

RESUMABLE_BYTES_MIN: Final = 8 * 1024 * 1024 + 1
"""From here on an upload is resumable, as the library has it: one request more, but a break costs one chunk and not
all. A chart is some 60 KB, so that it goes in one request."""

CHUNK_BYTES: Final = 8 * 1024 * 1024
"""What a resumable upload sends at once; Cloud Storage wants a multiple of 256 KiB."""

CALLS_MAX: Final = 10
"""Calls at a time: the library's session keeps ten connections, and one more would be opened and thrown away."""

SETTLING_MAX: Final = 3
"""How often a blob that is being repaired by others, too, is looked at again."""

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_RESERVED: Final = (f"{BLOBS}/", ".well-known/acme-challenge/")
_REVALIDATE: Final = "no-cache"
"""Of objects that may be replaced. A public object is otherwise served from caches for an hour after it changed."""

_RETRY: Final = DEFAULT_RETRY.with_delay(initial=0.2, maximum=4.0, multiplier=2.0)

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")


class _Content(NamedTuple):
    """Bytes with their checksums: `sha256` in hex, `crc32c` in base64 as Cloud Storage writes it."""

    content: bytes
    sha256: str
    crc32c: str

    @classmethod
    def of(cls, content: bytes) -> _Content:
        crc32c = base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
        return cls(content, hashlib.sha256(content).hexdigest(), crc32c)


class GcsArtifacts:
    """`Artifacts` in a bucket; see the module.

    `secrets` are refused in names and contents (`SecretLeakError`). `endpoint` is the URL of an emulator; without one
    `STORAGE_EMULATOR_HOST` is looked at. `deadline_s` and `read_s` are for tests. Raises `ConfigurationError` for what
    cannot be a bucket's name; the first call connects.
    """

    def __init__(
        self,
        bucket: str,
        secrets: Secrets | None = None,
        *,
        endpoint: str | None = None,
        deadline_s: float = DEADLINE_S,
        read_s: float = READ_S,
    ) -> None:
        if not _BUCKET.fullmatch(bucket) or ".." in bucket:
            raise ConfigurationError(
                "ARTIFACTS_BUCKET",
                "is no name that a bucket of Cloud Storage may have.",
                remedy="Use 3 or more lower-case letters, digits, '-', '_' and '.', beginning and ending with one of"
                " the first two.",
            )
        self._name = bucket
        self._secrets = secrets or Secrets()
        self._endpoint = endpoint if endpoint is not None else emulator_of(os.environ.get("STORAGE_EMULATOR_HOST"))
        self._deadline_s = deadline_s
        self._timeout = (CONNECT_S, read_s)
        self._opening = threading.Lock()
        self._opened: Any = None
        self._limiter: anyio.CapacityLimiter | None = None

    def uri(self, name: str) -> str:
        self._check(name)
        return f"gs://{self._name}/{name}"

    async def check(self) -> None:
        """See that the bucket is there and may be used. Raises `ArtifactUnavailableError` that says what is missing."""
        await self._in_thread("", self._check_bucket)

    async def stat(self, name: str) -> Stored | None:
        self._check(name)
        return await self._in_thread(name, self._stat, name)

    async def read(self, name: str) -> bytes:
        self._check(name)
        return await self._in_thread(name, self._read, name)

    async def write(self, name: str, content: bytes, *, content_type: str, expected: str) -> Stored:
        self._check(name)
        self._refuse_secret(content, self.uri(name))
        return await self._in_thread(name, self._write, name, content, content_type, expected)

    async def put_blob(self, content: bytes, *, content_type: str) -> str:
        self._refuse_secret(content, "a blob")
        return await self._in_thread(BLOBS, self._put_blob, content, content_type)

    async def get_blob(self, sha256: str) -> bytes:
        check_sha256(sha256)
        return await self._in_thread(_blob_name(sha256), self._get_blob, sha256)

    async def publish(self, sha256: str, name: str, *, content_type: str) -> Stored:
        check_sha256(sha256)
        self._check(name)
        return await self._in_thread(name, self._publish, sha256, name, content_type)

    async def close(self) -> None:
        client, self._opened = self._opened, None
        if client is not None:
            client.close()

    # What follows runs in threads. -------------------------------------------------------------------------------

    async def _in_thread(
        self, name: str, work: Callable[Parameters, Answer], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Answer:
        """Run `work` in a thread that is abandoned when its caller is cancelled: whatever it still does is bounded in
        time, conditional, and settled by whoever asks next."""
        self._limiter = self._limiter or anyio.CapacityLimiter(CALLS_MAX)
        try:
            return await anyio.to_thread.run_sync(
                partial(work, *args, **kwargs), abandon_on_cancel=True, limiter=self._limiter
            )
        except ANSWERS as error:
            uri = f"gs://{self._name}/{name}".removesuffix("/")
            raise translated(error, uri, self._secrets.redact) from error

    def _bucket(self) -> Any:
        with self._opening:
            if self._opened is None:
                self._opened = _client(self._endpoint)
            return self._opened.bucket(self._name)

    def _bounds(self) -> _Bounds:
        return _Bounds(self._deadline_s, self._timeout)

    def _check_bucket(self) -> None:
        try:
            granted = self._bucket().test_iam_permissions(list(PERMISSIONS), **self._bounds()())
        except NotFound:
            raise _configuration(missing_bucket(self._name)) from None
        lacking = [permission for permission in PERMISSIONS if permission not in granted]
        if lacking:
            raise _configuration(missing_permissions(self._name, lacking))

    def _stat(self, name: str) -> Stored | None:
        bounds = self._bounds()
        return self._stored(self._found(name, bounds), bounds)

    def _stored(self, found: Any | None, bounds: _Bounds) -> Stored | None:
        """What is known of an object; one that others wrote without its SHA-256 is read for it."""
        if found is None:
            return None
        sha256 = (found.metadata or {}).get(SHA256)
        if sha256 is None:
            sha256 = hashlib.sha256(self._content(found, bounds)).hexdigest()
        return Stored(str(found.generation), sha256, found.size)

    def _found(self, name: str, bounds: _Bounds) -> Any | None:
        """The library's object as it lies there now; `None` when none does."""
        blob = self._bucket().blob(name)
        try:
            blob.reload(**bounds())
        except NotFound as error:
            if is_missing_bucket(error):
                raise
            return None
        return blob

    def _read(self, name: str) -> bytes:
        return self._content(self._bucket().blob(name), self._bounds())

    def _content(self, blob: Any, bounds: _Bounds) -> bytes:
        """The bytes, checked against Cloud Storage's CRC32C: the library does not check what it fetched in parts."""
        content: bytes = blob.download_as_bytes(checksum="crc32c", **bounds())
        if blob.crc32c is not None and blob.crc32c != _Content.of(content).crc32c:
            raise ArtifactUnavailableError(
                f"the bytes of gs://{self._name}/{blob.name} were damaged on their way.", remedy="Try again."
            )
        return content

    def _write(self, name: str, content: bytes, content_type: str, expected: str) -> Stored:
        goal, bounds = _Content.of(content), self._bounds()
        if expected == ABSENT or expected.isdecimal():  # else it is another kind of artifacts' generation
            try:
                return self._upload(name, goal, content_type, int(expected), bounds, cache_control=_REVALIDATE)
            except PreconditionFailed:
                pass  # others wrote, or we did and the answer was lost
            except NotFound as error:  # of the object that was to be replaced
                if is_missing_bucket(error):
                    raise
        return self._settled(name, goal.sha256, expected, bounds)

    def _upload(
        self, name: str, goal: _Content, content_type: str, generation: int, bounds: _Bounds, **properties: str
    ) -> Stored:
        """Send the bytes; Cloud Storage compares them with the CRC32C before the object appears."""
        is_large = len(goal.content) >= RESUMABLE_BYTES_MIN
        blob = self._bucket().blob(name, chunk_size=CHUNK_BYTES if is_large else None)
        blob.metadata = {SHA256: goal.sha256}
        for field, value in properties.items():
            setattr(blob, field, value)
        # The library's own check of a resumable upload comes after the fact, and deletes what lies under the name.
        checked = {"crc32c_checksum_value": goal.crc32c, "checksum": None} if is_large else {"checksum": "crc32c"}
        blob.upload_from_string(
            goal.content, content_type=content_type, if_generation_match=generation, **checked, **bounds()
        )
        return Stored(str(blob.generation), goal.sha256, len(goal.content))

    def _settled(self, name: str, sha256: str, expected: str, bounds: _Bounds) -> Stored:
        """What lies under the name if it is the very same bytes. Raises `ArtifactConflictError` otherwise."""
        found = self._stored(self._found(name, bounds), bounds)
        if found is not None and found.sha256 == sha256:
            return found
        raise ArtifactConflictError(
            f"{self.uri(name)} is not at the generation {expected} that was expected; nothing was written.",
            remedy="Read it again and decide anew.",
        )

    def _put_blob(self, content: bytes, content_type: str) -> str:
        goal, bounds = _Content.of(content), self._bounds()
        name, generation = _blob_name(goal.sha256), 0
        for _ in range(SETTLING_MAX):
            try:
                self._upload(name, goal, content_type, generation, bounds)
            except PreconditionFailed:
                found = self._found(name, bounds)
                if found is not None and not _is_damaged(found, goal):
                    return goal.sha256
                generation = 0 if found is None else found.generation
            else:
                return goal.sha256
        raise ArtifactUnavailableError(f"the blob {goal.sha256} is being changed by others.", remedy="Try again.")

    def _get_blob(self, sha256: str) -> bytes:
        try:
            content = self._content(self._bucket().blob(_blob_name(sha256)), self._bounds())
        except NotFound as error:
            if is_missing_bucket(error):
                raise
            raise _no_blob(sha256) from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise self._damaged(sha256)
        return content

    def _publish(self, sha256: str, name: str, content_type: str) -> Stored:
        """Have the server copy the blob as it was looked at; no byte is sent."""
        bounds = self._bounds()
        source = self._found(_blob_name(sha256), bounds)
        if source is None:
            raise _no_blob(sha256)
        if (source.metadata or {}).get(SHA256) != sha256:
            raise self._damaged(sha256)
        target = self._bucket().blob(name)
        target.metadata, target.content_type = {SHA256: sha256}, content_type
        try:
            token, _, size = target.rewrite(source, if_generation_match=0, **bounds())
            while token is not None:
                token, _, size = target.rewrite(source, token=token, if_generation_match=0, **bounds())
        except PreconditionFailed:
            return self._settled(name, sha256, ABSENT, bounds)
        except NotFound as error:
            if is_missing_bucket(error):
                raise
            raise _no_blob(sha256) from None
        return Stored(str(target.generation), sha256, size)

    def _check(self, name: str) -> None:
        self._secrets.refuse(name, sink="the name of an artifact")
        check_name(name)
        if name.startswith(_RESERVED):
            raise ArtifactError(
                f"the object name {name!r} cannot be used: its prefix is reserved.",
                remedy=f"Begin it with neither of {' and '.join(_RESERVED)}.",
            )

    def _refuse_secret(self, content: bytes, sink: str) -> None:
        if self._secrets.found_in_bytes(content):
            raise SecretLeakError(
                f"a secret value was about to be written to {sink}; nothing was written.",
                remedy="See which server or handler put its key into what it returned.",
            )

    def _damaged(self, sha256: str) -> ArtifactError:
        return ArtifactError(
            f"the blob {sha256} is damaged: its bytes have another SHA-256.",
            remedy=f"Remove gs://{self._name}/{_blob_name(sha256)}; whatever made it will store it again.",
        )


class _Bounds:
    """The bounds of one verb's calls: each takes what is left of the verb's time."""

    def __init__(self, deadline_s: float, timeout: tuple[float, float]) -> None:
        self._until = monotonic() + deadline_s
        self._timeout = timeout

    def __call__(self) -> dict[str, Any]:
        left_s = max(self._until - monotonic(), 0.0)
        return {"timeout": self._timeout, "retry": _RETRY.with_timeout(left_s)}


def emulator_of(host: str | None) -> str | None:
    """The URL of `STORAGE_EMULATOR_HOST`, whose value is a URL for some libraries and HOST:PORT for others."""
    if not host:
        return None
    return host.rstrip("/") if "://" in host else f"http://{host.rstrip('/')}"


def _client(endpoint: str | None) -> Any:
    """A client of the library; none of what is asked of it needs a project."""
    if endpoint is None:
        client = storage.Client(project=None)
    else:
        anonymous: Any = AnonymousCredentials  # which has no types
        options = {"api_endpoint": endpoint}
        client = storage.Client(project="emulated", credentials=anonymous(), client_options=options)
    # For the attributes of its spans the library would fetch the bucket in a thread of its own, with a right to that.
    client._bucket_metadata_cache = None
    return client


def _configuration(error: ArtifactError) -> ConfigurationError:
    return ConfigurationError("ARTIFACTS_BUCKET", error.message, remedy=error.remedy)


def _blob_name(sha256: str) -> str:
    return f"{BLOBS}/{sha256[:2]}/{sha256}"


def _no_blob(sha256: str) -> ArtifactError:
    return ArtifactError(f"there is no blob {sha256}.")


def _is_damaged(found: Any, goal: _Content) -> bool:
    return bool(found.crc32c != goal.crc32c or (found.metadata or {}).get(SHA256) != goal.sha256)
