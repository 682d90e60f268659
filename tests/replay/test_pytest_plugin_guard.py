"""rawsse.replay.pytest_plugin: no connection leaves this machine."""

from __future__ import annotations

import asyncio
import http.client
import socket

import pytest

from rawsse.replay.pytest_plugin import guard, is_this_machine

ELSEWHERE = "192.0.2.1"  # RFC 5737: for documentation; nobody has it


@pytest.mark.parametrize(
    "host",
    ["", "localhost", "LOCALHOST.", "api.localhost", "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "0.0.0.0"],
)
def test_these_are_this_machine(host: str) -> None:
    assert is_this_machine(host)


@pytest.mark.parametrize(
    "host",
    ["api.anthropic.com", "localhost.example", "notlocalhost", "10.0.0.1", ELSEWHERE, "2001:db8::1", "fe80::1%eth0"],
)
def test_these_are_not(host: str) -> None:
    assert not is_this_machine(host)


def test_a_connection_to_a_name_is_refused_before_it_is_looked_up() -> None:
    with guard(hint=". Oh") as refused, pytest.raises(PermissionError) as caught:
        http.client.HTTPSConnection("api.anthropic.com", timeout=10).connect()
    assert str(caught.value) == (
        "a connection to api.anthropic.com port 443 was refused: this test may not reach other machines. Oh"
    )
    assert refused == ["api.anthropic.com port 443"]


def test_a_connection_to_a_number_is_refused_and_told_once() -> None:
    with guard() as refused, socket.socket() as sock:
        with pytest.raises(PermissionError, match=r"192\.0\.2\.1 port 9 was refused"):
            sock.connect((ELSEWHERE, 9))
        with pytest.raises(PermissionError, match=r"192\.0\.2\.1 port 9 was refused"):
            sock.connect_ex((ELSEWHERE, 9))
    assert refused == ["192.0.2.1 port 9"]


@pytest.mark.parametrize("host", ["api.anthropic.com", ELSEWHERE])
def test_asyncio_is_refused_too(host: str) -> None:
    async def story() -> None:
        await asyncio.open_connection(host, 443)

    with guard(), pytest.raises(PermissionError, match=f"a connection to {host} port 443 was refused"):
        asyncio.run(story())


def test_this_machine_is_open_and_afterwards_all_is_as_it_was() -> None:
    before = (socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo)
    with socket.create_server(("127.0.0.1", 0)) as server, guard() as refused:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=10).close()
        with socket.socket() as sock:
            assert sock.connect_ex(server.getsockname()) == 0
    assert refused == []
    assert (socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo) == before
    assert "connect" not in vars(socket.socket)


def test_it_may_be_off_for_a_while() -> None:
    with guard(is_off=lambda: True) as refused:
        assert socket.getaddrinfo(ELSEWHERE, 9)[0][4][:2] == (ELSEWHERE, 9)
    assert refused == []
