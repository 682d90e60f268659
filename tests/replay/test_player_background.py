"""rawsse.replay.player: a server in a thread, from its first request to the end of the thread."""

from __future__ import annotations

import socket
import threading
import urllib.request

import pytest

from rawsse.replay import Player, shipped_fixtures
from rawsse.replay.player import BackgroundServer
from rawsse.server import Receive, Scope, Send


def player() -> Player:
    return Player(shipped_fixtures()["plain"], speed=0)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "rawsse replay"]


def test_a_blocking_client_is_served_and_the_thread_ends() -> None:
    with BackgroundServer(player()) as server:
        with urllib.request.urlopen(server.base_url + "/v1/models", timeout=10) as answer:
            assert b'"claude-sonnet-5"' in answer.read()
        assert threads() == ["rawsse replay"]
    assert threads() == []


def test_an_open_connection_does_not_keep_it() -> None:
    with BackgroundServer(player()) as server:
        host, port = server.base_url.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)), timeout=10)
        connection.sendall(b"POST /v1/messages HTTP/1.1\r\n")
    assert threads() == []
    connection.close()


def test_what_is_to_be_done_at_the_end_is_done_after_the_last_connection() -> None:
    done: list[str] = []

    async def on_stop() -> None:
        done.append(threading.current_thread().name)

    with BackgroundServer(player(), on_stop=on_stop):
        assert done == []
    assert done == ["rawsse replay"]


def test_what_goes_wrong_at_the_end_comes_out_of_the_block() -> None:
    async def on_stop() -> None:
        raise ValueError("not written")

    with pytest.raises(ValueError, match="not written"), BackgroundServer(player(), on_stop=on_stop):
        pass
    assert threads() == []


def test_an_app_that_cannot_start_says_so_at_once() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no disk"})

    with pytest.raises(Exception, match="no disk"), BackgroundServer(app):
        pass
    assert threads() == []
