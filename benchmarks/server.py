"""The API of workload W2: answers each GET after 5 ms, and counts how many it had in flight at most.

Run as a process of its own: `python -m benchmarks.server` prints its port and serves until its input ends. `GET /most`
answers the largest number of calls in flight since it was last asked. Written straight on asyncio's protocols, so
that it takes as little as can be of a machine's cores from those it is called by.
"""

from __future__ import annotations

import asyncio
import sys

ANSWER_AFTER_S = 0.005
_BODY = b'{"value": 1}'


class Calls(asyncio.Protocol):
    """One kept-alive connection; `in_flight` and `most` are of the whole server."""

    in_flight = 0
    most = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            request, _, self._received = self._received.partition(b"\r\n\r\n")
            if request.startswith(b"GET /most "):
                self._answer(b'{"most": %d}' % Calls.most)
                Calls.most = 0
            else:
                Calls.in_flight += 1
                Calls.most = max(Calls.most, Calls.in_flight)
                asyncio.get_running_loop().call_later(ANSWER_AFTER_S, self._called)

    def _called(self) -> None:
        Calls.in_flight -= 1
        self._answer(_BODY)

    def _answer(self, body: bytes) -> None:
        if not self._transport.is_closing():
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            self._transport.write(head + body)


async def serve() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Calls, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())
