"""One call is one request on the wire, read within its bounds, whatever the server does."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeAlias

import anyio
import httpx
import pytest

pytestmark = pytest.mark.anyio

KEY = "sk-live-0123456789abcdef"
Answering: TypeAlias = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A loopback server that keeps what it was sent and answers with the test's own bytes."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
                )
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(length))
                await self.answering(len(self.heads), writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def reply(content: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"content-length: {len(content) if length is None else length}", *headers, "", "")
    return "\r\n".join(lines).encode() + content


def always(content: bytes) -> Answering:
    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(content)

    return answer


async def test_the_request_is_what_the_api_documents(bench: Callable[..., Any], png: Callable[..., bytes]):
    async with Server(always(reply(png(), "200 OK", "set-cookie: who=main"))) as server:
        one = bench(base_url=server.url + "/")
        for _ in range(2):
            assert (await one.capture()).name == "captured"
        await one.service.aclose()

    head = server.heads[1].decode().lower()
    assert head.startswith("post /v2/tradingview/advanced-chart http/1.1\r\n")
    assert f"x-api-key: {KEY}" in head
    assert "content-type: application/json" in head
    assert "cookie" not in head
    assert server.bodies[0] == b'{"interval":"1h","symbol":"BINANCE:BTCUSDT","width":800}'
    assert server.connections == 1


async def test_a_dropped_connection_is_a_network_failure_and_is_not_sent_again(
    bench: Callable[..., Any], png: Callable[..., bytes]
):
    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 1:
            writer.write(reply(png()))
        else:
            writer.close()

    async with Server(answer) as server:
        one = bench(base_url=server.url)
        assert (await one.capture()).name == "captured"
        failure = await one.capture()
        await one.service.aclose()

    assert (failure.code, failure.retriable, failure.details["reason"]) == ("CHART_API_FAILED", True, "network")
    assert len(server.heads) == 2


async def test_a_picture_cut_in_transit_is_a_network_failure(bench: Callable[..., Any], png: Callable[..., bytes]):
    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(png()[:20], length=len(png())))
        writer.close()

    async with Server(answer) as server:
        one = bench(base_url=server.url)
        failure = await one.capture()
        await one.service.aclose()

    assert (failure.retriable, failure.details["reason"], failure.details["httpStatus"]) == (True, "network", 200)


async def test_a_refusal_cut_in_transit_keeps_its_status(bench: Callable[..., Any]):
    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(b'{"mess', "422 Unprocessable", length=100))
        writer.close()

    async with Server(answer) as server:
        one = bench(base_url=server.url)
        failure = await one.capture()
        await one.service.aclose()

    assert (failure.message, failure.retriable) == ("Chart-IMG answered with HTTP status 422", False)


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n\x89PNG"], ids=["silent", "stalling"]
)
async def test_the_timeout_covers_the_whole_call(bench: Callable[..., Any], sent: bytes):
    never = asyncio.Event()

    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        await never.wait()

    async with Server(answer) as server:
        one = bench(base_url=server.url)
        failure = await one.capture(timeout_s=0.1)
        await one.service.aclose()
        never.set()

    assert (failure.code, failure.retriable, failure.details["reason"]) == ("CHART_API_FAILED", True, "timeout")
    assert len(server.heads) == 1


async def test_a_refused_connection_is_a_network_failure(bench: Callable[..., Any]):
    async with Server(always(b"")) as server:
        url = server.url
    one = bench(base_url=url)
    failure = await one.capture()
    await one.service.aclose()

    assert (failure.retriable, failure.details["reason"]) == (True, "network")


@pytest.mark.parametrize("answer", [b"SSH-2.0-nonsense\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
async def test_an_answer_that_is_no_http_is_a_network_failure(bench: Callable[..., Any], answer: bytes):
    async with Server(always(answer)) as server:
        one = bench(base_url=server.url)
        failure = await one.capture(timeout_s=5)
        await one.service.aclose()

    assert (failure.code, failure.details["reason"]) == ("CHART_API_FAILED", "network")
    assert len(server.heads) == 1


async def test_a_redirect_is_not_followed(bench: Callable[..., Any]):
    async with Server(always(reply(b"", "307 Temporary Redirect", "location: /elsewhere"))) as server:
        one = bench(base_url=server.url)
        failure = await one.capture()
        await one.service.aclose()

    assert "redirect" in failure.message
    assert len(server.heads) == 1


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_picture_above_the_bound_is_not_read_to_its_end(bench: Callable[..., Any], is_declared: bool):
    bound = 100_000
    pieces = 0

    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        nonlocal pieces
        head = "content-length: 50000000" if is_declared else "connection: close"
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
        while pieces < 500:
            writer.write(bytes(100_000))
            await writer.drain()
            pieces += 1

    async with Server(answer) as server:
        one = bench(base_url=server.url)
        failure = await one.capture(picture_bytes_max=bound)
        await one.service.aclose()

    assert "larger than the bound" in failure.message
    assert not failure.retriable
    assert pieces < 500


async def test_a_picture_of_exactly_the_bound_is_taken(bench: Callable[..., Any], png: Callable[..., bytes]):
    async with Server(always(reply(png()))) as server:
        one = bench(base_url=server.url)
        assert (await one.capture(picture_bytes_max=len(png()))).name == "captured"
        assert "bound" in (await one.capture(picture_bytes_max=len(png()) - 1)).message
        await one.service.aclose()


async def test_a_compressed_picture_is_unpacked(bench: Callable[..., Any], png: Callable[..., bytes]):
    async with Server(always(reply(gzip.compress(png()), "200 OK", "content-encoding: gzip"))) as server:
        one = bench(base_url=server.url)
        result = await one.capture()
        await one.service.aclose()

    assert result.value["picture"].content == png()


async def test_a_broken_compression_is_a_clear_failure(bench: Callable[..., Any]):
    async with Server(always(reply(b"no gzip at all", "200 OK", "content-encoding: gzip"))) as server:
        one = bench(base_url=server.url)
        failure = await one.capture()
        await one.service.aclose()

    assert (failure.message, failure.retriable) == (
        "Chart-IMG's answer is compressed in a way that cannot be undone",
        False,
    )


async def test_many_calls_share_one_client_and_each_is_sent_once(bench: Callable[..., Any], png: Callable[..., bytes]):
    async with Server(always(reply(png()))) as server:
        one = bench(base_url=server.url)
        async with anyio.create_task_group() as group:
            for number in range(40):
                group.start_soon(lambda number=number: one.capture(payload={"number": number}))
        await one.service.aclose()

    assert sorted(server.bodies) == sorted(b'{"number":%d}' % number for number in range(40))


async def test_proxies_of_the_environment_are_ignored(
    bench: Callable[..., Any], png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Server(always(reply(png()))) as server:
        one = bench(base_url=server.url)
        assert (await one.capture()).name == "captured"
        await one.service.aclose()


async def test_certificates_are_verified():
    from engine.handlers.chart_img_call import new_client

    async with new_client("https://chart.test") as client:
        session = client._transport.get_client()
        context = session.connector._ssl
        await session.close()

    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_the_service_works_in_a_second_event_loop(bench: Callable[..., Any], png: Callable[..., bytes]):
    made: list[Any] = []

    async def once() -> str:
        async with Server(always(reply(png()))) as server:
            made.append(made[0] if made else bench(base_url=server.url))
            result = await made[0].capture()
            await made[0].service.aclose()
            return getattr(result, "name", "") or result.details["reason"]

    assert anyio.run(once) == "captured"
    assert anyio.run(once) == "network"  # the first server is gone; the client is a new one


async def test_without_aiohttp_the_call_is_the_same(
    bench: Callable[..., Any], png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
):
    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 3:
            writer.close()
        else:
            writer.write(reply(png()))

    monkeypatch.setitem(sys.modules, "httpx_aiohttp", None)
    async with Server(answer) as server:
        one = bench(base_url=server.url)
        results = [await one.capture() for _ in range(3)]
        await one.service.aclose()

    assert [type(result).__name__ for result in results] == ["Outcome", "Outcome", "Failure"]
    assert results[2].details["reason"] == "network"
    assert (len(server.heads), server.connections) == (3, 1)


@pytest.mark.parametrize(
    ("error", "reason", "retriable"),
    [
        (httpx.ReadTimeout("x"), "timeout", True),
        (httpx.ConnectError("x"), "network", True),
        (httpx.RemoteProtocolError("x"), "network", True),
        (ConnectionResetError(), "network", True),
        (httpx.UnsupportedProtocol("x"), "request", False),
        (httpx.InvalidURL("x"), "request", False),
    ],
    ids=repr,
)
async def test_each_transport_error_has_its_reason(
    bench: Callable[..., Any], error: Exception, reason: str, retriable: bool
):
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    failure = await bench(transport=httpx.MockTransport(fail)).capture()

    assert (failure.code, failure.details["reason"], failure.retriable) == ("CHART_API_FAILED", reason, retriable)
