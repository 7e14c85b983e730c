"""Between the real client and the real emulator: what is asked is counted, and answers are kept back or lost.

`Wire.trouble(method, number)` is asked at each call; what it answers is done to that call: `None` lets it pass,
`before(status)` fails it before it is sent, `after(status)` when it has been done and its answer is on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.cloud.firestore_v1.types import firestore as requests


class Trouble(NamedTuple):
    status: grpc.StatusCode
    said: str
    is_after: bool


def before(status: grpc.StatusCode, said: str = "as the test wants it") -> Trouble:
    return Trouble(status, said, is_after=False)


def after(status: grpc.StatusCode, said: str = "as the test wants it") -> Trouble:
    return Trouble(status, said, is_after=True)


class Wire:
    """See the module. `reads` and `writes` count documents by collection, `written` by name and instant; `calls` the requests."""

    def __init__(self) -> None:
        self.trouble: Callable[[str, int], Trouble | None] = lambda method, number: None
        self.before_commit: Callable[[], Any] | None = None
        self.calls: Counter[str] = Counter()
        self.troubled = 0
        self.reads: Counter[str] = Counter()
        self.writes: Counter[str] = Counter()
        self.written: list[tuple[int, str]] = []
        self.now_ms: Callable[[], int] = lambda: 0

    @property
    def interceptors(self) -> list[grpc.aio.ClientInterceptor]:
        return [_Unary(self), _Stream(self)]

    def met(self, details: Any) -> tuple[str, Trouble | None]:
        method = details.method if isinstance(details.method, str) else details.method.decode()
        name = method.rpartition("/")[2]
        self.calls[name] += 1
        trouble = self.trouble(name, self.calls[name])
        self.troubled += trouble is not None
        return name, trouble

    def committed(self, request: Any) -> None:
        for write in requests.CommitRequest.pb(request).writes:
            name = write.delete or write.update.name
            is_check = write.HasField("update_mask") and not write.update_mask.field_paths
            collection = name.rsplit("/", 2)[1]
            self.writes[
                f"{collection} (check)"
                if is_check or (write.delete and not write.current_document.HasField("update_time"))
                else collection
            ] += 1
            if not is_check:
                self.written.append((self.now_ms(), "/".join(name.rsplit("/", 2)[1:])))


def _fail(trouble: Trouble) -> None:
    nothing = grpc.aio.Metadata()
    raise grpc.aio.AioRpcError(trouble.status, nothing, nothing, trouble.said)


class _Unary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def intercept_unary_unary(self, continuation, details, request):
        if self._wire.before_commit is not None:
            await self._wire.before_commit()
        _, trouble = self._wire.met(details)
        if trouble is not None and not trouble.is_after:
            _fail(trouble)
        call = await continuation(details, request)
        answer = await call
        self._wire.committed(request)
        if trouble is not None:
            _fail(trouble)
        return answer


class _Stream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def intercept_unary_stream(self, continuation, details, request):
        name, trouble = self._wire.met(details)
        if trouble is not None:
            _fail(trouble)
        call = await continuation(details, request)
        return self._counted(call) if name == "BatchGetDocuments" else self._counted_query(call)

    async def _counted(self, call):
        async for answer in call:
            found = requests.BatchGetDocumentsResponse.pb(answer)
            self._wire.reads[(found.found.name or found.missing).rsplit("/", 2)[1]] += 1
            yield answer

    async def _counted_query(self, call):
        async for answer in call:
            found = requests.RunQueryResponse.pb(answer)
            if found.HasField("document"):
                self._wire.reads[found.document.name.rsplit("/", 2)[1]] += 1
            yield answer
