"""The fault proxy does to a request what it was told, to no other, and counts both."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from engine.testing.fault_proxy import Fault, FaultProxy, Seen, running_proxy


class Echo(BaseHTTPRequestHandler):
    """Answers what it was sent, and remembers it."""

    received: list[tuple[str, bytes]]

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.received.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Echo", "yes")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    running.received = []
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def proxy(server: ThreadingHTTPServer) -> Iterator[FaultProxy]:
    with running_proxy(f"http://127.0.0.1:{server.server_address[1]}") as running:
        yield running


def post(proxy: FaultProxy, path: str = "/a", content: bytes = b"0123456789") -> httpx.Response:
    return httpx.post(f"{proxy.url}{path}", content=content, timeout=5)


@pytest.mark.parametrize("content", [b"", b"0123456789", bytes(range(256)) * 5000])
def test_without_a_fault_nothing_is_changed(proxy: FaultProxy, server: ThreadingHTTPServer, content: bytes):
    answer = post(proxy, "/a?b=%2F", content)
    assert (200, content, "yes") == (answer.status_code, answer.content, answer.headers["x-echo"])
    assert [("/a?b=%2F", content)] == server.received
    assert [Seen("POST", "/a?b=%2F", None)] == proxy.seen


def test_a_refusal_never_reaches_the_server(proxy: FaultProxy, server: ThreadingHTTPServer):
    proxy.plan(Fault.REFUSE, status=429, message="slow down", headers={"Retry-After": "7"})
    answer = post(proxy)
    assert (429, "slow down", "7") == (
        answer.status_code,
        answer.json()["error"]["message"],
        answer.headers["retry-after"],
    )
    assert [] == server.received
    assert 200 == post(proxy).status_code


@pytest.mark.parametrize(("fault", "reaches"), [(Fault.RESET_BEFORE, 0), (Fault.RESET_AFTER, 1)])
def test_a_reset_comes_before_or_after_the_server(proxy: FaultProxy, server: ThreadingHTTPServer, fault, reaches):
    proxy.plan(fault)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        post(proxy)
    assert reaches == len(server.received)


@pytest.mark.parametrize(("fault", "reaches"), [(Fault.STALL_BEFORE, 0), (Fault.STALL_AFTER, 1)])
def test_a_stall_lasts_until_the_client_gives_up(proxy: FaultProxy, server: ThreadingHTTPServer, fault, reaches):
    proxy.plan(fault)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{proxy.url}/a", content=b"x", timeout=0.2)
    assert reaches == len(server.received)


def test_an_answer_breaks_off_in_the_middle(proxy: FaultProxy, server: ThreadingHTTPServer):
    proxy.plan(Fault.TRUNCATE)
    with pytest.raises(httpx.RemoteProtocolError, match="received 5 bytes, expected 10"):
        post(proxy)
    assert 1 == len(server.received)


def test_one_byte_is_damaged_on_the_way_there_or_back(proxy: FaultProxy, server: ThreadingHTTPServer):
    proxy.plan(Fault.DAMAGE_REQUEST)
    assert b"0123446789" == post(proxy).content
    proxy.plan(Fault.DAMAGE_ANSWER)
    assert b"0123446789" == post(proxy).content
    assert [b"0123446789", b"0123456789"] == [body for _, body in server.received]


def test_faults_strike_those_they_are_meant_for_in_their_order(proxy: FaultProxy, server: ThreadingHTTPServer):
    proxy.plan(Fault.REFUSE, when=lambda method, target: target == "/b", times=2, status=503)
    proxy.plan(Fault.REFUSE, when=lambda method, target: method == "POST", status=500)
    assert [503, 500, 503, 200, 200] == [post(proxy, path).status_code for path in ("/b", "/a", "/b", "/b", "/a")]
    assert 0 == proxy.faults_left
    assert [Fault.REFUSE] * 3 + [None] * 2 == [one.fault for one in proxy.seen]
    assert (5, 3, 0) == (proxy.calls("POST"), proxy.calls("POST", "/b"), proxy.calls("GET"))


def test_a_body_in_chunks_passes_whole(proxy: FaultProxy):
    def chunks() -> Iterator[bytes]:
        yield b"0\r\n\r\n"  # what the end of a chunked body looks like
        yield b"more"

    httpx.post(f"{proxy.url}/a", content=chunks(), timeout=5)
    assert [Seen("POST", "/a", None)] == proxy.seen


def test_it_can_be_left_while_a_request_stalls(server: ThreadingHTTPServer):
    with running_proxy(f"http://127.0.0.1:{server.server_address[1]}") as proxy:
        proxy.plan(Fault.STALL_BEFORE)
        stalled = threading.Thread(target=lambda: pytest.raises(httpx.HTTPError, post, proxy))
        stalled.start()
        while not proxy.seen:
            pass
    stalled.join(5)
    assert not stalled.is_alive()
