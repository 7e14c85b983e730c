"""An HTTP proxy on loopback that hurts on purpose: the real client, the real server, and a bad network between.

In: the address of the server behind it, and faults, each with the requests that it is meant for and how often it
strikes. Out: an address to call instead, and every request that came by with what became of it.

A request that no fault is meant for passes through unchanged. Each connection carries one request; bodies are held
in memory, at most `BODY_BYTES_MAX`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

LOOPBACK: Final = "127.0.0.1"
BODY_BYTES_MAX: Final = 256 * 1024 * 1024
_HEAD_BYTES_MAX: Final = 64 * 1024


class Fault(Enum):
    """What happens to one request."""

    REFUSE = "answered with an error; the server never sees it"
    RESET_BEFORE = "the connection is reset; the server never sees it"
    RESET_AFTER = "the server does it, and the connection is reset before a byte of its answer"
    STALL_BEFORE = "nothing more happens; the server never sees it"
    STALL_AFTER = "the server does it, and its answer never comes"
    TRUNCATE = "the server's answer breaks off in the middle of its body"
    DAMAGE_REQUEST = "one byte in the middle of the request's body arrives changed"
    DAMAGE_ANSWER = "one byte in the middle of the answer's body arrives changed"


class Seen(NamedTuple):
    """One request that came by, and the fault that struck it."""

    method: str
    target: str
    fault: Fault | None


@dataclass(slots=True)
class _Plan:
    fault: Fault
    when: Callable[[str, str], bool]
    left: int
    status: int = 503
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class FaultProxy:
    """A running proxy; see `running_proxy`. Its verbs may be called from any thread."""

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._upstream = parts.hostname or LOOPBACK, parts.port or 80
        self._plans: list[_Plan] = []
        self._lock = threading.Lock()
        self.url = ""
        self.seen: list[Seen] = []

    def plan(
        self,
        fault: Fault,
        *,
        when: Callable[[str, str], bool] = lambda method, target: True,
        times: int = 1,
        status: int = 503,
        message: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Let `fault` strike the next `times` requests for which `when(method, target)` holds.

        `status`, `message` and `headers` are the answer of `REFUSE`, whose body is JSON as Google's APIs write it.
        """
        with self._lock:
            self._plans.append(_Plan(fault, when, times, status, message, headers or {}))

    @property
    def faults_left(self) -> int:
        """Planned strikes that have not come yet."""
        with self._lock:
            return sum(plan.left for plan in self._plans)

    def calls(self, method: str, part: str = "") -> int:
        """How many requests of a method, with `part` in their target, came by."""
        return sum(1 for one in list(self.seen) if one.method == method and part in one.target)

    def _strike(self, method: str, target: str) -> _Plan | None:
        with self._lock:
            plan = next((plan for plan in self._plans if plan.left > 0 and plan.when(method, target)), None)
            if plan is not None:
                plan.left -= 1
            self.seen.append(Seen(method, target, None if plan is None else plan.fault))
            return plan

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            try:
                await self._one(reader, writer)
            finally:
                writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        body = await _body(reader, head)
        plan = self._strike(method, target)
        fault = None if plan is None else plan.fault
        if plan is not None and fault is Fault.REFUSE:
            writer.write(_refusal(plan))
            await writer.drain()
            return
        if fault is Fault.RESET_BEFORE:
            _reset(writer)
            return
        if fault is Fault.STALL_BEFORE:
            await _until_gone(reader)
            return
        answer = await self._forward(head, _damaged(body) if fault is Fault.DAMAGE_REQUEST else body)
        if fault is Fault.RESET_AFTER:
            _reset(writer)
        elif fault is Fault.STALL_AFTER:
            await _until_gone(reader)
        else:
            writer.write(_spoilt(answer, fault))
            await writer.drain()

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        """The server's whole answer, read until it closes the connection, as it is asked to."""
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            first, _, rest = head.partition(b"\r\n")
            lines = [line for line in rest.split(b"\r\n") if not line.lower().startswith(b"connection:")]
            writer.write(first + b"\r\nConnection: close\r\n" + b"\r\n".join(lines) + body)
            await writer.drain()
            return await reader.read(-1)
        finally:
            writer.close()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The bytes of a request's body as they came, chunks and all."""
    headers = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if headers.get(b"transfer-encoding", b"").strip() == b"chunked":
        found, size = b"", 1
        while size > 0:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            found += line + await reader.readexactly(size + 2)
        return found
    size = int(headers.get(b"content-length", b"0"))
    if size > BODY_BYTES_MAX:
        raise ConnectionError(f"a body of {size} bytes is more than the proxy holds")
    return await reader.readexactly(size)


def _refusal(plan: _Plan) -> bytes:
    status = HTTPStatus(plan.status)
    message = plan.message or status.phrase
    content = json.dumps({"error": {"code": plan.status, "message": message, "errors": []}}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"}
    lines = [f"HTTP/1.1 {plan.status} {status.phrase}", *(f"{k}: {v}" for k, v in (headers | plan.headers).items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content


def _spoilt(answer: bytes, fault: Fault | None) -> bytes:
    head, end, body = answer.partition(b"\r\n\r\n")
    if fault is Fault.TRUNCATE:
        return head + end + body[: len(body) // 2]
    return head + end + _damaged(body) if fault is Fault.DAMAGE_ANSWER else answer


def _damaged(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as a crashed peer or a lost route does."""
    connection: Any = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _until_gone(reader: asyncio.StreamReader) -> None:
    """Until the client gives up."""
    with suppress(OSError):
        while await reader.read(65536):
            pass


@contextmanager
def running_proxy(server: str) -> Iterator[FaultProxy]:
    """A proxy before `server` on a free port of loopback, in a thread of its own."""
    proxy = FaultProxy(server)
    loop = asyncio.new_event_loop()
    listener = loop.run_until_complete(
        asyncio.start_server(proxy._serve, LOOPBACK, 0, limit=_HEAD_BYTES_MAX, backlog=128)
    )
    proxy.url = f"http://{LOOPBACK}:{listener.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, name="fault proxy")
    thread.start()
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(_stop(listener), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _stop(listener: asyncio.Server) -> None:
    listener.close()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # transports close in the loop's next turn
    await asyncio.sleep(0)
