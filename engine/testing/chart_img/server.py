"""Runs the simulator on a real socket: in the event loop, in a thread, or until interrupted.

In: the accounts and options of a `Simulator`, a host and a port (0 takes a free one).
Out: its address and the `Simulator` itself. It is ready when the block is entered and gone when it is left;
calls still being answered then are cut off, so that a stalled answer cannot hold up a test.
It listens on loopback unless told otherwise, writes no access log and installs no signal handler in tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Unpack

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.testing.chart_img.answers import DROP_EXTENSION
from engine.testing.chart_img.application import PATH, application_of
from engine.testing.chart_img.plans import Plan
from engine.testing.chart_img.simulator import Options, Simulator

LOOPBACK = "127.0.0.1"
SHUTDOWN_S_MAX = 2
START_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class RunningSimulator:
    """Where the simulator listens, and its state."""

    url: str
    simulator: Simulator


class _Server(uvicorn.Server):
    """A server that says when it is ready and leaves no connection behind."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], object], *, signals: bool = False) -> None:
        super().__init__(config)
        self._on_ready, self._signals = on_ready, signals

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # Inside of a test or of another program Ctrl+C is not the simulator's business.
        with super().capture_signals() if self._signals else contextlib.nullcontext():
            yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        await super().shutdown(sockets)


def _with_drop(app: ASGIApp) -> ASGIApp:
    """Offers the application a way to end its connection, which ASGI itself does not have."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        # uvicorn's `send` is a method of the request cycle, which knows its transport.
        transport: asyncio.Transport | None = getattr(getattr(send, "__self__", None), "transport", None)
        if transport is None:
            await app(scope, receive, send)
            return
        end, abort = transport.close, transport.abort

        async def drop(receive: Receive, *, gently: bool) -> None:
            end() if gently else abort()
            while (await receive())["type"] != "http.disconnect":
                pass

        scope.setdefault("extensions", {})[DROP_EXTENSION] = drop
        await app(scope, receive, send)

    return wrapped


def _listener(host: str, port: int) -> tuple[socket.socket, str]:
    """A bound socket and its address: calls may come from now on and wait for the server."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    name = f"[{host}]" if ":" in host else host
    return listener, f"http://{name}:{listener.getsockname()[1]}"


def _server(simulator: Simulator, on_ready: Callable[[], object], *, signals: bool = False) -> _Server:
    config = uvicorn.Config(
        _with_drop(application_of(simulator)),
        http="h11", ws="none", lifespan="off", proxy_headers=False, access_log=False, log_config=None,
        timeout_graceful_shutdown=SHUTDOWN_S_MAX, server_header=False,
    )  # fmt: skip
    return _Server(config, on_ready, signals=signals)


@contextlib.asynccontextmanager
async def serve(
    accounts: Mapping[str, Plan] | None = None, *, host: str = LOOPBACK, port: int = 0, **options: Unpack[Options]
) -> AsyncIterator[RunningSimulator]:
    """Run the simulator in the current event loop."""
    simulator = Simulator(accounts, **options)
    ready = asyncio.Event()
    server = _server(simulator, ready.set)
    listener, url = _listener(host, port)
    running = asyncio.create_task(server.serve([listener]))
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({running, waiting}, timeout=START_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        if not server.started:
            raise RuntimeError(f"the simulator did not start on {url}")
        yield RunningSimulator(url, simulator)
    finally:
        waiting.cancel()
        server.should_exit = True
        await running
        listener.close()


@contextlib.contextmanager
def running_simulator(
    accounts: Mapping[str, Plan] | None = None, *, host: str = LOOPBACK, port: int = 0, **options: Unpack[Options]
) -> Iterator[RunningSimulator]:
    """Run the simulator in a thread of its own, for tests that are not asynchronous."""
    simulator = Simulator(accounts, **options)
    ready = threading.Event()
    server = _server(simulator, ready.set)
    listener, url = _listener(host, port)
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve([listener])), name="chart-img simulator", daemon=True
    )  # fmt: skip
    thread.start()
    try:
        if not ready.wait(START_S_MAX):
            raise RuntimeError(f"the simulator did not start on {url}")
        yield RunningSimulator(url, simulator)
    finally:
        server.should_exit = True
        thread.join(START_S_MAX)
        listener.close()


def simulate(
    accounts: Mapping[str, Plan] | None = None,
    *,
    host: str = LOOPBACK,
    port: int = 0,
    announce: Callable[[str], object] = print,
    **options: Unpack[Options],
) -> None:
    """Run the simulator until it is interrupted; for the command line. Without accounts any key is let in."""
    if not accounts:
        options = {"any_key": True, **options}
    simulator = Simulator(accounts, **options)
    listener, url = _listener(host, port)
    names = ", ".join(sorted({plan.name for plan in (accounts or {}).values()})) or "any key"
    server = _server(simulator, lambda: announce(f"Chart-IMG simulator ({names}) on {url}{PATH}"), signals=True)
    try:
        server.run([listener])
    except KeyboardInterrupt:
        # uvicorn raises the signal again once everything is closed: the interrupt was the wished-for end.
        pass
    finally:
        listener.close()
