"""rawsse.replay.player: a server in a thread, from its first request to the end of the thread."""

from __future__ import annotations

import socket
import threading
import urllib.request

import pytest

from rawsse.errors import ConfigurationError
from rawsse.replay import ReplayServer, shipped_fixtures
from rawsse.replay.player import LocalServer
from rawsse.server import Receive, Scope, Send

PLAIN = shipped_fixtures()["plain"]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "rawsse replay"]


def test_a_blocking_client_is_served_and_the_thread_ends() -> None:
    with ReplayServer(PLAIN) as server:
        with urllib.request.urlopen(server.base_url + "/v1/models", timeout=10) as answer:
            assert b'"claude-sonnet-5"' in answer.read()
        assert threads() == ["rawsse replay"]
    assert threads() == []
    assert [request.path for request in server.requests] == ["/v1/models"]


def test_it_may_be_served_once_more() -> None:
    server = ReplayServer(PLAIN)
    for _ in range(2):
        with server:
            urllib.request.urlopen(server.base_url + "/v1/models", timeout=10).close()
    assert len(server.requests) == 2


def test_there_is_no_address_before_and_after() -> None:
    server = ReplayServer(PLAIN)
    with pytest.raises(ConfigurationError, match="the API is not served"):
        _ = server.base_url
    with server:
        assert server.base_url.startswith("http://127.0.0.1:")
    with pytest.raises(ConfigurationError, match="the API is not served"):
        _ = server.base_url


def test_an_open_connection_does_not_keep_it() -> None:
    with ReplayServer(PLAIN) as server:
        host, port = server.base_url.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)), timeout=10)
        connection.sendall(b"POST /v1/messages HTTP/1.1\r\n")
    assert threads() == []
    connection.close()


class Ending(ReplayServer):
    """Does something at its end."""

    error: Exception | None = None
    ended: str = ""

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        self.ended = threading.current_thread().name
        if self.error is not None:
            raise self.error


def test_what_is_to_be_done_at_the_end_is_done_in_the_thread() -> None:
    with Ending(PLAIN) as server:
        assert server.ended == ""
    assert server.ended == "rawsse replay"


def test_what_goes_wrong_at_the_end_comes_out_of_the_block() -> None:
    server = Ending(PLAIN)
    server.error = ValueError("not written")
    with pytest.raises(ValueError, match="not written"), server:
        pass
    assert threads() == []


class Broken(LocalServer):
    """Cannot start."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no disk"})


def test_an_app_that_cannot_start_says_so_at_once() -> None:
    with pytest.raises(Exception, match="no disk"), Broken():
        pass
    assert threads() == []
