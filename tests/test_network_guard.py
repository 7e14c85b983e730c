"""The guard of `conftest.py` holds for every way to a socket."""

from __future__ import annotations

import socket

import pytest

from tests.conftest import NetworkForbiddenError

OUTSIDE = ("192.0.2.1", 9)  # TEST-NET-1, RFC 5737


@pytest.mark.parametrize("verb", ["connect", "connect_ex"])
def test_a_connection_to_the_outside_is_refused(verb):
    with socket.socket() as outside, pytest.raises(NetworkForbiddenError):
        getattr(outside, verb)(OUTSIDE)


def test_a_datagram_to_the_outside_is_refused():
    with socket.socket(type=socket.SOCK_DGRAM) as outside, pytest.raises(NetworkForbiddenError):
        outside.sendto(b"x", OUTSIDE)


def test_a_name_of_the_outside_is_not_looked_up():
    with pytest.raises(NetworkForbiddenError):
        socket.getaddrinfo("example.com", 443)


def test_loopback_is_open():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
