"""The store in Cloud Firestore: shared by every worker anywhere, nothing to run.

In: keys, writes and queries of `engine/store/port.py`. Out: what was committed.

A `transact` reads its documents in one request, calls the decide, and commits one batch in which every document
written or checked carries the precondition under which it was read (`firestore_writes.py`). It never opens a
transaction: those lock what they read, and twenty that meet wait for each other for seconds. A conflict is decided
again after a short, random pause. No commit is ever sent twice: one whose answer is lost is `CommitUncertainError`.

With `FIRESTORE_EMULATOR_HOST` set it talks to that emulator, without credentials.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

import anyio
import anyio.to_thread
import google.auth
import grpc.aio
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError
from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport
from google.cloud.firestore_v1.types import firestore as requests

from engine.core import canonical
from engine.core.write import Check, Document, Key, Write
from engine.errors import ContentionError, StoreUnavailableError
from engine.store.firestore_errors import (
    CONFLICTS,
    MOMENTARY,
    Place,
    RefusedError,
    away,
    misconfigured,
    no_credentials,
    refused_commit,
    refused_reading,
)
from engine.store.firestore_query import finished, structured
from engine.store.firestore_values import decode_document
from engine.store.firestore_writes import MISSING, Read, guarded
from engine.store.port import ATTEMPTS_MAX, Decide, Found, Order, Result, Where, created_unasked, settle

EMULATOR_HOST: Final = "FIRESTORE_EMULATOR_HOST"
"""The variable by which every client of Google's finds an emulator: HOST:PORT."""

DEFAULT_DATABASE: Final = "(default)"

READ_TIMEOUT_S: Final = 10.0
COMMIT_TIMEOUT_S: Final = 20.0
QUERY_TIMEOUT_S: Final = 60.0
"""Of one request. The library's own retries would keep a worker waiting for five minutes when nobody answers."""

READ_ATTEMPTS_MAX: Final = 3
"""Tries of one read that met a moment's trouble; a longer one is for the runner to wait out."""

KEYS_PER_REQUEST: Final = 1_000

PAUSE_S_LEAST: Final = 0.02
PAUSE_S_MOST: Final = 1.0
"""Bounds of the random pause before a decide is called again; its mean doubles with each conflict."""

GRACE_S: Final = 5.0
"""Given to requests under way when the store is closed."""

_OPTIONS: Final = (
    ("grpc.enable_retries", 0),  # a commit that is sent twice would meet itself
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),  # an outage is over when it is over, not two minutes later
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


class FirestoreStore:
    """A `Store` in a database of Firestore; see the module. Made by `open`, used on the loop that opened it."""

    def __init__(self, place: Place, channel: grpc.aio.Channel, now_ms: Callable[[], int]) -> None:
        self.place = place
        self._channel = channel
        self._client = FirestoreAsyncClient(transport=FirestoreGrpcAsyncIOTransport(channel=channel))
        self._now_ms = now_ms
        self._database = f"projects/{place.project}/databases/{place.database}"
        self._documents = f"{self._database}/documents"
        self._metadata = [("google-cloud-resource-prefix", self._database)]
        if place.emulator:
            self._metadata.append(("authorization", "Bearer owner"))  # as every client: past an emulator's rules
        self._closed = False

    @classmethod
    async def open(
        cls,
        project: str,
        database: str = DEFAULT_DATABASE,
        *,
        now_ms: Callable[[], int] | None = None,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    ) -> FirestoreStore:
        """Connect to a database, and see that it is there and may be read.

        `now_ms` answers milliseconds since 1970 (default: the system's clock); `interceptors` see every call.
        Raises `ConfigurationError` without credentials, rights or a database; `StoreUnavailableError`.
        """
        place = Place(project, database, os.environ.get(EMULATOR_HOST, ""))
        channel = await _connect(place, interceptors)
        store = cls(place, channel, now_ms or _system_now_ms)
        try:
            await store._read([Key("detent", "is-it-there")])
        except RefusedError as error:
            await store.close()
            raise misconfigured(place, error) from error.__cause__
        except BaseException:
            await store.close()
            raise
        return store

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Document | None]:
        self._expect_open()
        reads = await self._read(keys)
        return {key: _document_of(read) for key, read in reads.items()}

    async def transact(self, keys: Sequence[Key], decide: Decide[Result]) -> Result:
        keys = list(keys)
        for attempt in range(ATTEMPTS_MAX):
            if attempt:
                await anyio.sleep(_pause_s(attempt))
            self._expect_open()
            reads = await self._read(keys)
            documents = {key: _document_of(read) for key, read in reads.items()}
            texts = {
                key: None if document is None else canonical.encode_plain(document)
                for key, document in documents.items()
            }
            writes, result = decide(documents, self._now_ms())
            after = settle(texts, writes)
            if _is_answered_by_reading(reads, writes) or await self._commit(reads, writes, after):
                return result
            keys += created_unasked(reads, writes)
        raise ContentionError(
            f"a decide met a conflict in each of {ATTEMPTS_MAX} attempts in {self.place}; nothing was written.",
            remedy="Try again later, or let fewer writers share a document.",
        )

    async def query(
        self, collection: str, where: Sequence[Where] = (), order_by: Sequence[Order] = (), limit: int | None = None
    ) -> list[Found]:
        self._expect_open()
        if limit is not None and limit <= 0:
            return []
        request = requests.RunQueryRequest.pb()(
            parent=self._documents, structured_query=structured(collection, where, order_by, limit)
        )

        async def ask() -> list[Found]:
            stream = await self._client.run_query(
                requests.RunQueryRequest.wrap(request), retry=None, timeout=QUERY_TIMEOUT_S, metadata=self._metadata
            )
            return [
                Found(_key_of(answer.document.name), decode_document(answer.document.fields))
                async for answer in _messages(stream, requests.RunQueryResponse)
                if answer.HasField("document")
            ]

        return finished(await self._persist(ask), where, order_by, limit)

    async def close(self) -> None:
        self._closed = True
        with anyio.CancelScope(shield=True):
            await self._channel.close(GRACE_S)

    def _expect_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("the store is closed.", remedy="Open it again.")

    async def _read(self, keys: Sequence[Key]) -> dict[Key, Read]:
        """Every document as it is stored; those of one request as of one instant."""
        names = {self._name(key): key for key in keys}
        asked = list(names)
        batches = [asked[start : start + KEYS_PER_REQUEST] for start in range(0, len(asked), KEYS_PER_REQUEST)]
        found: dict[str, Read] = {}

        async def fetch(batch: Sequence[str]) -> None:
            found.update(await self._persist(lambda: self._batch_get(batch)))

        if len(batches) == 1:
            await fetch(batches[0])
        elif batches:
            async with anyio.create_task_group() as tasks:
                for batch in batches:
                    tasks.start_soon(fetch, batch)
        return {key: found[name] for name, key in names.items()}

    async def _batch_get(self, names: Sequence[str]) -> dict[str, Read]:
        request = requests.BatchGetDocumentsRequest.pb()(database=self._database, documents=names)
        stream = await self._client.batch_get_documents(
            requests.BatchGetDocumentsRequest.wrap(request),
            retry=None,
            timeout=READ_TIMEOUT_S,
            metadata=self._metadata,
        )
        found: dict[str, Read] = {}
        async for answer in _messages(stream, requests.BatchGetDocumentsResponse):
            if answer.HasField("found"):
                found[answer.found.name] = Read(answer.found.fields, answer.found.update_time)
            elif answer.missing:
                found[answer.missing] = MISSING
        if len(found) != len(names):  # the stream ended early, and said nothing of it
            raise StoreUnavailableError(f"{self.place} answered a part of a read.", remedy="Trying again is right.")
        return found

    async def _persist(self, ask: Callable[[], Any]) -> Any:
        """The answer to a read, asked again a few times over a moment's trouble."""
        for attempt in itertools.count(1):
            try:
                return await ask()
            except MOMENTARY as error:
                if attempt == READ_ATTEMPTS_MAX:
                    raise away(self.place, error) from error
            except (GoogleAPICallError, GoogleAuthError) as error:
                raise refused_reading(self.place, error) from error
            except grpc.aio.UsageError as error:  # the channel was closed meanwhile
                raise away(self.place, error) from error
            await anyio.sleep(_pause_s(attempt))
        raise AssertionError

    async def _commit(
        self, reads: Mapping[Key, Read], writes: Sequence[Write], after: Mapping[Key, str | None]
    ) -> bool:
        """Apply all writes at once; false when a document has changed since it was read: nothing was written."""
        messages = [guarded(self._name(one.key), one, reads.get(one.key, MISSING), after[one.key]) for one in writes]
        request = requests.CommitRequest.pb()(database=self._database, writes=messages)
        try:
            await self._client.commit(
                requests.CommitRequest.wrap(request), retry=None, timeout=COMMIT_TIMEOUT_S, metadata=self._metadata
            )
        except CONFLICTS:
            return False
        except (GoogleAPICallError, GoogleAuthError, grpc.aio.UsageError) as error:
            raise refused_commit(self.place, error) from error
        return True

    def _name(self, key: Key) -> str:
        return f"{self._documents}/{key.collection}/{key.id}"


async def _connect(place: Place, interceptors: Sequence[grpc.aio.ClientInterceptor]) -> grpc.aio.Channel:
    if place.emulator:
        return grpc.aio.insecure_channel(place.emulator, options=_OPTIONS, interceptors=list(interceptors))
    try:
        credentials, _ = await anyio.to_thread.run_sync(
            lambda: google.auth.default(scopes=FirestoreGrpcAsyncIOTransport.AUTH_SCOPES)
        )
    except GoogleAuthError as error:
        raise no_credentials(place, error) from error
    return FirestoreGrpcAsyncIOTransport.create_channel(
        FirestoreAsyncClient.DEFAULT_ENDPOINT,
        credentials=credentials,
        options=_OPTIONS,
        interceptors=list(interceptors),
    )


async def _messages(stream: Any, kind: Any) -> AsyncIterator[Any]:
    """A stream's answers as protobuf's own messages."""
    async for answer in stream:
        yield kind.pb(answer)


def _document_of(read: Read) -> dict[str, Any] | None:
    return None if read.fields is None else decode_document(read.fields)


def _key_of(name: str) -> Key:
    collection, id_ = name.rsplit("/", 2)[1:]
    return Key(collection, id_)


def _is_answered_by_reading(reads: Mapping[Key, Read], writes: Sequence[Write]) -> bool:
    """Whether nothing is left to commit: what one request read was true at one instant, so its checks held then."""
    return not writes or (len(reads) <= KEYS_PER_REQUEST and all(isinstance(write, Check) for write in writes))


def _pause_s(attempt: int) -> float:
    """Seconds before the next attempt: random, so that those who met once do not meet again."""
    most = min(PAUSE_S_MOST, PAUSE_S_LEAST * 2**attempt)
    return random.uniform(PAUSE_S_LEAST / 4, most)  # noqa: S311 - chance, not secrecy


def _system_now_ms() -> int:
    return time.time_ns() // 1_000_000
