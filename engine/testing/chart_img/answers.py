"""Answers as they go over the wire, the good one and the broken ones.

In: a scripted `Answer`, and the ordinary picture where the fault is made of one. Out: Starlette responses.
`Dropped` ends the connection through the server's own `drop` extension; without a server that offers it
(an in-process ASGI transport) it raises `ConnectionResetError`, which is what the client then sees.
It never decides which call gets which answer.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from engine.testing.chart_img.faults import Answer

DROP_EXTENSION = "detent.drop"
"""The name under which the server offers a function that ends the connection at once."""

PAGE = "<!doctype html><title>Maintenance</title><h1>We will be back soon</h1>"


class Dropped(Response):
    """Ends the connection: before any answer, or after the head and `sent` bytes of a picture."""

    def __init__(self, picture: bytes | None = None) -> None:
        super().__init__(picture or b"", media_type="image/png")
        self._sent = picture[: len(picture) // 2] if picture else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        drop = scope.get("extensions", {}).get(DROP_EXTENSION)
        if self._sent is not None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._sent, "more_body": True})
        if drop is None:
            raise ConnectionResetError("the simulator dropped the connection, as scripted")
        await drop(receive, gently=self._sent is not None)


def faulty(answer: Answer, key: str, picture: bytes) -> Response:
    """The response of a scripted answer; `picture` is empty for the kinds that need none."""
    headers = {"retry-after": answer.retry_after} if answer.retry_after else {}
    match answer.kind:
        case "html":
            return HTMLResponse(PAGE, answer.status or 200, headers)
        case "empty":
            return Response(b"", answer.status or 200, headers, "image/png")
        case "truncated":
            return Response(picture[: len(picture) // 2], 200, headers, "image/png")
        case "interrupted":
            return Dropped(picture)
        case "oversized":
            return Response(_oversized(picture, answer.size_bytes), 200, headers, "image/png")
        case "dropped":
            return Dropped()
        case "echo_key":
            message = f"{answer.message or 'Invalid Request'}: x-api-key {key}"
            return _json(answer.status or 500, {"message": message}, headers)
        case _:
            return _json(answer.error_status, answer.error_body, headers)


def _json(status: int, body: Any, headers: Mapping[str, str]) -> Response:
    return JSONResponse(body, status, dict(headers))


def _oversized(picture: bytes, size: int) -> bytes:
    """A picture that still opens, filled up before its last chunk with one that readers must skip."""
    end = len(picture) - 12
    padding = max(0, size - len(picture) - 12)
    name = b"siMm"
    content = bytes(padding)
    chunk = struct.pack(">I", padding) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return picture[:end] + chunk + picture[end:]
