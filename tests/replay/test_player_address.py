"""rawsse.replay.player: an address that is kept for a server which starts later."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from rawsse.replay.player import KeptAddress


def place(address: KeptAddress) -> tuple[str, int]:
    parts = urlsplit(address.base_url)
    return str(parts.hostname), int(parts.port or 0)


def test_nobody_is_let_in_before_there_is_a_server() -> None:
    with KeptAddress() as address, pytest.raises(ConnectionRefusedError):
        socket.create_connection(place(address), timeout=10)


def test_the_port_is_lent_and_comes_back_as_the_same() -> None:
    with KeptAddress() as address:
        before = address.base_url
        with socket.create_server(("127.0.0.1", address.lend())) as server:
            socket.create_connection(place(address), timeout=10).close()
            server.accept()[0].close()
        address.take_back()
        assert address.base_url == before
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(place(address), timeout=10)


def test_a_port_that_another_one_took_is_an_error() -> None:
    with KeptAddress() as address, socket.create_server(("127.0.0.1", address.lend())):  # noqa: SIM117 - two matters
        with pytest.raises(OSError, match="Address already in use"):
            address.take_back()
