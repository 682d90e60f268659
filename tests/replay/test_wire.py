"""rawsse.replay.wire: what a client sees of bytes and of ends that HTTP does not allow, over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from server.peer import GET, Peer, ask, body, http_only, start, talk

from rawsse.replay.wire import Wire
from rawsse.server import ASGIApp, ClientDisconnectedError, Receive, Scope, Send

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="no other system says what it has not sent yet")


def on_wire(play: Callable[[Wire], Awaitable[None]]) -> ASGIApp:
    """An app that answers with what `play` writes."""

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        wire = Wire(scope["extensions"]["rawsse.wire"])
        await play(wire)
        wire.end()

    return app


def test_bytes_go_out_as_they_are() -> None:
    async def play(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\n")
        await wire.send(b"\r\nzz\r\nno chunk")

    assert ask(on_wire(play), GET) == b"HTTP/1.1 200 OK\r\n\r\nzz\r\nno chunk"


def test_each_send_is_one_write() -> None:
    async def play(wire: Wire) -> None:
        for piece in (b"a", b"b", b"c"):
            await wire.send(piece)
            await asyncio.sleep(1)

    async def story(peer: Peer) -> list[bytes]:
        await peer.send(GET)
        return [await peer.reader.read(10) for _ in range(3)]

    assert talk(on_wire(play), story) == [b"a", b"b", b"c"]


def test_a_half_close_ends_what_the_client_reads_and_not_what_it_sends() -> None:
    heard: list[str] = []

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        wire = Wire(scope["extensions"]["rawsse.wire"])
        await wire.send(b"HTTP/1.1 200")
        wire.half_close()
        heard.append((await receive())["type"])

    async def story(peer: Peer) -> bytes:
        await peer.send(GET)
        data = await peer.rest()
        assert heard == []
        return data

    assert talk(app, story) == b"HTTP/1.1 200"
    assert heard == ["http.disconnect"]


async def until_reset(peer: Peer) -> bytes:
    await peer.send(GET)
    received = b""
    try:
        while data := await peer.reader.read(100):
            received += data
    except ConnectionResetError:
        return received
    raise AssertionError("the connection ended with FIN")


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_a_reset_is_a_reset_after_all_that_was_sent(data: bytes) -> None:
    async def play(wire: Wire) -> None:
        await wire.send(data)
        await asyncio.sleep(1)  # what was sent arrives first
        await wire.reset()

    assert talk(on_wire(play), until_reset) == data


def test_a_reset_can_end_a_proper_response() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"hello", more=True))
        await asyncio.sleep(1)
        await Wire(scope["extensions"]["rawsse.wire"]).reset()
        with pytest.raises(ClientDisconnectedError, match="the client has disconnected"):
            await send(body(b"x"))

    assert talk(app, until_reset).endswith(b"5\r\nhello\r\n")


def test_bytes_are_sent_when_the_system_has_taken_all_of_them() -> None:
    has_sent: list[bool] = []

    async def play(wire: Wire) -> None:
        await wire.send(b"x" * 9_999_999)
        has_sent.append(True)

    async def story(peer: Peer) -> int:
        await peer.send(GET)
        await peer.reader.readexactly(1_000_000)
        assert has_sent == []
        return len(await peer.rest())

    assert talk(on_wire(play), story) == 8_999_999
    assert has_sent == [True]


def test_nothing_that_was_sent_is_left_in_a_buffer_of_ours() -> None:
    left: list[int] = []

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope["extensions"]["rawsse.wire"]
        wire = Wire(connection)
        with contextlib.suppress(ClientDisconnectedError):
            while True:
                await wire.send(b"x" * 10_000)
                left.append(connection.transport.get_write_buffer_size())

    async def story(peer: Peer) -> None:
        await peer.send(GET)
        await peer.reader.readexactly(1_000_000)  # and then no more: the system's buffers are full
        await asyncio.sleep(1)

    talk(app, story)
    assert len(left) >= 100
    assert set(left) == {0}


def test_a_client_that_leaves_before_it_took_all_is_told_of() -> None:
    async def play(wire: Wire) -> None:
        with pytest.raises(ClientDisconnectedError):
            await wire.send(b"x" * 9_999_999)
        left.append(True)

    async def story(peer: Peer) -> None:
        await peer.send(GET)
        await peer.reader.readexactly(1_000_000)
        peer.leave("RST")
        await asyncio.sleep(1)

    left: list[bool] = []
    talk(on_wire(play), story)
    assert left == [True]


@ON_LINUX
def test_a_reset_waits_for_what_the_client_has_no_room_for() -> None:
    async def play(wire: Wire) -> None:
        await wire.send(b"x" * 150_000)
        await wire.reset()

    async def story(peer: Peer) -> int:
        transport: Any = peer.writer.transport
        transport.pause_reading()
        await peer.send(GET)
        await asyncio.sleep(0.1)
        transport.resume_reading()
        size = 0
        with contextlib.suppress(ConnectionResetError):
            while data := await peer.reader.read(10_000):
                size += len(data)
        return size

    assert talk(on_wire(play), story) == 150_000


@ON_LINUX
def test_a_reset_waits_no_longer_than_the_linger_time() -> None:
    async def play(wire: Wire) -> None:
        await wire.send(b"x" * 150_000)
        before = asyncio.get_running_loop().time()
        await wire.reset()
        waited.append(asyncio.get_running_loop().time() - before)

    async def story(peer: Peer) -> None:
        transport: Any = peer.writer.transport
        transport.pause_reading()
        await peer.send(GET)
        await asyncio.sleep(30)

    waited: list[float] = []
    talk(on_wire(play), story, linger_seconds=0.1)
    assert waited == [pytest.approx(0.1, abs=0.01)]
