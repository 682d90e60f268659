"""rawsse.server: the response as an `Outlet`, written without waiting, over real connections."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.clock import run, ticks
from support.loops import Loop, each_loop

from rawsse.server import ASGIApp, Message, Outlet, Receive, Scope, Send, Server
from server.peer import GET, LAST_GET, Peer, answering, ask, body, http_only, read_answers, read_body, start, talk

LEAVING = ["FIN", "half-close", "RST"]
PIECE = b"x" * 10_000


def now() -> float:
    return asyncio.get_running_loop().time()


class Stream:
    """One response over an outlet: what an app has, and what it was told."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.told: list[str] = []
        self.go_on: Callable[[], object] = int
        self.returned = 0.0
        outlet.sink = self

    def start(self, *headers: tuple[bytes, bytes]) -> None:
        self.outlet.start(200, list(headers))

    def fill(self) -> int:
        """Write pieces until the client takes no more; how many."""
        count = 1
        while self.outlet.write(PIECE):
            count += 1
        return count

    def on_drain(self) -> None:
        self.told.append("drain")
        self.go_on()

    def on_closed(self) -> None:
        self.told.append("closed")


def streaming(*play: Callable[[Stream], object]) -> tuple[ASGIApp, list[Stream]]:
    """An app that plays this for each request (the last one over and over) and then waits for the end; its streams."""
    streams: list[Stream] = []

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        outlet = scope["extensions"]["rawsse.push"]
        assert outlet.send == send
        streams.append(Stream(outlet))
        stream = streams[-1]
        played = play[min(len(streams), len(play)) - 1](stream)
        if isinstance(played, Awaitable):
            await played
        await outlet.closed()
        stream.returned = now()

    return app, streams


def at_once(stream: Stream) -> None:
    stream.start((b"content-length", b"2"))
    stream.outlet.write(b"ok")
    stream.outlet.end()


def take(peer: Peer, *, is_on: bool) -> None:
    """Let the client read, or not even into its own buffer."""
    transport: Any = peer.writer.transport
    if is_on:
        transport.resume_reading()
    else:
        transport.pause_reading()


# --- What is sent --------------------------------------------------------------------------------------------------


def test_the_head_is_sent_with_the_first_write() -> None:
    async def late(stream: Stream) -> None:
        stream.start()
        await asyncio.sleep(10)
        stream.outlet.write(b"a")
        await asyncio.sleep(10)
        stream.outlet.end()

    async def story(peer: Peer) -> tuple[float, float, bytes]:
        before = now()
        await peer.send(GET)
        first = await peer.reader.read(1000)
        arrived = now() - before
        assert first.startswith(b"HTTP/1.1 200 ")
        assert first.endswith(b"\r\n\r\n1\r\na\r\n")
        return arrived, now() - before, await peer.until(b"0\r\n\r\n")

    assert talk(streaming(late)[0], story)[0] == pytest.approx(10)


def test_what_is_written_is_the_body() -> None:
    def play(stream: Stream) -> None:
        stream.start((b"x-a", b"b"))
        assert stream.outlet.write(b"one ")
        assert stream.outlet.write(b"two")
        stream.outlet.end()

    (answer,) = read_answers(ask(streaming(play)[0], LAST_GET))
    assert (answer.status, answer.body, answer.headers["x-a"]) == (200, b"one two", "b")
    assert "date" in answer.headers


def test_a_body_may_be_empty() -> None:
    def play(stream: Stream) -> None:
        stream.start()
        stream.outlet.end()

    (answer,) = read_answers(ask(streaming(play)[0], LAST_GET))
    assert (answer.status, answer.body) == (200, b"")


def test_an_outlet_knows_the_send_of_its_own_request_alone() -> None:
    sends: list[Send] = []

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        outlet = scope["extensions"]["rawsse.push"]
        assert [outlet.send == each for each in (*sends, send)] == [False] * len(sends) + [True]
        sends.append(send)
        await answering(start(), body())(scope, receive, send)

    assert len(read_answers(ask(app, GET + LAST_GET), ["GET"] * 2)) == 2


# --- A client that is slow -----------------------------------------------------------------------------------------


def test_a_write_says_false_when_the_client_takes_nothing_and_a_drain_follows_when_it_reads_on() -> None:
    rounds = [3]

    def play(stream: Stream) -> None:
        def go_on() -> None:
            rounds[0] -= 1
            if rounds[0]:
                stream.fill()
            else:
                stream.outlet.end()

        stream.start()
        stream.go_on = go_on
        assert 10 < stream.fill() < 1000

    app, streams = streaming(play)

    async def story(peer: Peer) -> bytes:
        take(peer, is_on=False)
        await peer.send(LAST_GET)
        await asyncio.sleep(10)
        assert streams[0].told == []
        take(peer, is_on=True)
        return await peer.rest()

    (answer,) = read_answers(talk(app, story))
    assert set(answer.body) == {ord("x")}
    assert streams[0].told[:3] == ["drain"] * 3
    assert "drain" not in streams[0].told[3:]


def test_a_response_that_ends_while_the_client_is_behind_is_whole_and_the_next_one_follows() -> None:
    counts: list[int] = []

    def play(stream: Stream) -> None:
        stream.start()
        counts.append(stream.fill())
        stream.outlet.end()

    app, streams = streaming(play, at_once)

    async def story(peer: Peer) -> bytes:
        take(peer, is_on=False)
        await peer.send(GET + LAST_GET)
        await asyncio.sleep(10)
        assert len(streams) == 1, "the next request is answered before its turn"
        assert streams[0].returned
        take(peer, is_on=True)
        return await peer.rest()

    first, second = read_answers(talk(app, story), ["GET"] * 2)
    assert (len(first.body), second.body) == (counts[0] * len(PIECE), b"ok")
    assert "drain" not in streams[0].told


# --- A client that leaves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", LEAVING)
@pytest.mark.parametrize("is_behind", [False, True], ids=["idle", "behind"])
def test_a_client_that_leaves_is_told_and_closed_returns(how: str, *, is_behind: bool) -> None:
    def play(stream: Stream) -> None:
        stream.start()
        stream.outlet.write(b"a")
        if is_behind:
            stream.fill()

    app, streams = streaming(play)

    async def story(peer: Peer) -> None:
        take(peer, is_on=not is_behind)
        await peer.send(GET)
        await asyncio.sleep(1)
        (stream,) = streams
        assert (stream.told, stream.returned) == ([], 0)
        before = now()
        peer.leave(how)
        await asyncio.sleep(1)
        assert "closed" in stream.told
        assert "drain" not in stream.told
        assert before <= stream.returned < before + 1
        assert not stream.outlet.write(b"b")  # in vain, and no error
        stream.outlet.end()

    talk(app, story)


def test_a_client_that_leaves_before_the_head_was_sent_is_told() -> None:
    app, streams = streaming(Stream.start)

    async def story(peer: Peer) -> None:
        await peer.send(GET)
        await asyncio.sleep(1)
        peer.leave()
        await asyncio.sleep(1)
        assert "closed" in streams[0].told
        assert streams[0].returned

    talk(app, story)


def test_a_client_that_leaves_after_the_end_is_the_concern_of_the_next_request() -> None:
    app, streams = streaming(at_once, lambda stream: stream.start())

    async def story(peer: Peer) -> None:
        await peer.send(GET)
        await peer.until(b"ok")
        await peer.send(GET)
        await asyncio.sleep(1)
        peer.leave()
        await asyncio.sleep(1)
        assert ["closed" in stream.told for stream in streams] == [False, True]

    talk(app, story)


def test_a_server_that_stops_closes_what_is_open_after_its_grace() -> None:
    def play(stream: Stream) -> None:
        stream.start()
        stream.outlet.write(b"a")

    app, streams = streaming(play)

    async def story() -> None:
        async with Server(app, port=0, grace_seconds=5) as server, Peer(server) as peer:
            await peer.send(GET)
            await peer.until(b"a\r\n")
            before = now()
            await server.shutdown()
            assert "closed" in streams[0].told
            assert now() - before == pytest.approx(5)

    run(story())


def test_closed_returns_in_the_moment_in_which_something_else_ends_the_body() -> None:
    ended: list[float] = []

    def play(stream: Stream) -> None:
        def end() -> None:
            ended.append(now())
            stream.outlet.end()

        stream.start()
        asyncio.get_running_loop().call_later(10, end)

    app, streams = streaming(play)

    async def story(peer: Peer) -> None:
        await peer.send(GET)
        await peer.until(b"0\r\n\r\n")
        await ticks(5)
        assert [stream.returned for stream in streams] == ended

    talk(app, story)


# --- A response that is cut ----------------------------------------------------------------------------------------


def cut(stream: Stream) -> None:
    stream.start()
    stream.outlet.write(b"a")
    stream.outlet.cut()


def test_a_response_that_is_cut_has_no_last_chunk_and_the_connection_ends() -> None:
    app, streams = streaming(cut, at_once)
    wire = ask(app, GET + GET)
    assert wire.endswith(b"\r\n\r\n1\r\na\r\n")
    assert (len(streams), "closed" in streams[0].told) == (1, True)
    assert streams[0].returned


def test_a_response_that_is_cut_before_its_first_write_is_no_response() -> None:
    def play(stream: Stream) -> None:
        stream.start()
        stream.outlet.cut()

    assert ask(streaming(play)[0], GET) == b""


def test_for_http_1_0_a_cut_is_the_end_of_the_connection() -> None:
    wire = ask(streaming(cut)[0], b"GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n")
    assert wire.endswith(b"\r\n\r\na")


def test_what_was_written_before_a_cut_is_sent_even_if_the_client_is_behind() -> None:
    counts: list[int] = []

    def play(stream: Stream) -> None:
        stream.start((b"x-a", b"b"))
        counts.append(stream.fill())
        stream.outlet.cut()
        assert not stream.outlet.write(b"b")

    app, streams = streaming(play)

    async def story(peer: Peer) -> bytes:
        take(peer, is_on=False)
        await peer.send(GET)
        await asyncio.sleep(10)
        assert "closed" in streams[0].told
        take(peer, is_on=True)
        return await peer.rest()

    wire = talk(app, story)
    assert wire.count(b"\r\n" + PIECE + b"\r\n") == counts[0]
    assert wire.endswith(PIECE + b"\r\n")


def test_a_client_that_reads_nothing_does_not_hold_a_connection_that_was_cut() -> None:
    def play(stream: Stream) -> None:
        stream.start()
        stream.fill()
        stream.outlet.cut()

    async def story(peer: Peer) -> None:
        take(peer, is_on=False)
        await peer.send(GET)
        await asyncio.sleep(61)
        assert not peer.server._state.connections

    talk(streaming(play)[0], story, write_seconds=30)


def test_a_cut_reaches_a_client_that_is_still_sending() -> None:
    async def story(peer: Peer) -> bytes:
        await peer.send(POST + b"12")
        wire = await peer.until(b"a\r\n")
        await peer.send(b"345")
        return wire + await peer.rest()

    assert talk(streaming(cut)[0], story).endswith(b"1\r\na\r\n")


@pytest.mark.parametrize("is_raising", [True, False], ids=["raises", "returns"])
def test_what_an_app_wrote_before_it_failed_is_sent_without_the_end(*, is_raising: bool) -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        stream = Stream(scope["extensions"]["rawsse.push"])
        stream.start()
        stream.fill()
        if is_raising:
            raise ValueError("a bug")

    async def story(peer: Peer) -> bytes:
        take(peer, is_on=False)
        await peer.send(GET)
        await asyncio.sleep(10)
        take(peer, is_on=True)
        return await peer.rest()

    wire = talk(app, story)
    assert wire.count(PIECE) > 10
    assert wire.endswith(PIECE + b"\r\n")


# --- One response after the other ----------------------------------------------------------------------------------


def test_a_connection_goes_on_to_the_next_request_when_the_body_is_whole() -> None:
    async def slowly(stream: Stream) -> None:
        stream.start()
        stream.outlet.write(b"slow")
        await asyncio.sleep(1)
        stream.outlet.end()

    app, streams = streaming(at_once, slowly, at_once)

    async def story(peer: Peer) -> bytes:
        await peer.send(GET)
        wire = await peer.until(b"ok")
        await peer.send(GET)
        wire += await peer.until(b"0\r\n\r\n")
        await peer.send(LAST_GET)
        return wire + await peer.rest()

    answers = read_answers(talk(app, story), ["GET"] * 3)
    assert [answer.body for answer in answers] == [b"ok", b"slow", b"ok"]
    assert all(stream.returned for stream in streams)
    assert [answer.headers.get("connection") for answer in answers] == [None, None, "close"]


POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n"


def test_an_answer_before_the_body_of_the_request_closes_the_connection() -> None:
    (answer,) = read_answers(ask(streaming(at_once)[0], POST + b"12"))
    assert (answer.body, answer.headers["connection"]) == (b"ok", "close")


def test_an_answer_after_it_does_not() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        stream = Stream(scope["extensions"]["rawsse.push"])
        at_once(stream)
        await stream.outlet.closed()

    answers = read_answers(ask(app, POST + b"12345" + LAST_GET), ["POST", "GET"])
    assert [answer.headers.get("connection") for answer in answers] == [None, "close"]


# --- Apps that answer at once, and tasks that begin at once ----------------------------------------------------------


@http_only
async def sending(scope: Scope, receive: Receive, send: Send) -> None:
    message: Message = start(200, (b"content-length", b"2"))
    await send(message)
    await send(body(b"ok"))


ways = pytest.mark.parametrize("app", [sending, streaming(at_once)[0]], ids=["send", "outlet"])


async def _talk(app: ASGIApp, wire: bytes) -> bytes:
    async with Server(app, port=0) as server, Peer(server) as peer:
        peer.writer.write(wire)
        return await peer.rest()


@each_loop
@ways
def test_an_app_that_answers_at_once_keeps_the_connection_alive(on: Loop, app: Any) -> None:
    answers = read_answers(on(_talk(app, GET + GET + LAST_GET)), ["GET"] * 3)
    assert [(answer.body, answer.headers.get("connection")) for answer in answers] == [
        (b"ok", None),
        (b"ok", None),
        (b"ok", "close"),
    ]


@each_loop
@ways
def test_a_body_that_came_with_its_head_has_come_before_the_app_answers(on: Loop, app: Any) -> None:
    answers = read_answers(on(_talk(app, POST + b"12345" + LAST_GET)), ["POST", "GET"])
    assert [answer.headers.get("connection") for answer in answers] == [None, "close"]


@each_loop
def test_a_thousand_pipelined_requests_are_answered_one_after_the_other(on: Loop) -> None:
    pushing, turn = streaming(at_once)[0], itertools.cycle([True, False])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (pushing if next(turn) else sending)(scope, receive, send)

    wire = on(_talk(http_only(app), GET * 999 + LAST_GET))
    assert wire.count(b"\r\n\r\nok") == 1000


@each_loop
def test_a_thousand_answers_to_a_slow_client_are_all_sent(on: Loop) -> None:
    def play(stream: Stream) -> None:
        stream.start((b"content-length", b"10000"))
        stream.outlet.write(PIECE)
        stream.outlet.end()

    async def story() -> bytes:
        async with Server(streaming(play)[0], port=0) as server, Peer(server) as peer:
            peer.writer.write(GET * 99 + LAST_GET)
            await asyncio.sleep(0.01)
            await ticks(100)
            return await peer.rest()

    assert on(story()).count(b"\r\n\r\nxxx") == 100
