"""rawsse.server.connection: keep-alive, pipelining, limits, deadlines, back-pressure, and every way to lose a client."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.clock import run

from rawsse.errors import ConfigurationError
from rawsse.server import ASGIApp, ClientDisconnectedError, Limits, Message, Receive, Scope, Send, Server
from rawsse.server.connection import Connection, ServerState
from server.peer import (
    GET,
    LAST_GET,
    Answer,
    Peer,
    answering,
    ask,
    body,
    echo,
    http_only,
    read_answers,
    read_body,
    start,
    talk,
)

POST = b"POST /x HTTP/1.1\r\nhost: a\r\n"
LEAVING = ["FIN", "half-close", "RST"]


def now() -> float:
    return asyncio.get_running_loop().time()


def refusal(request: bytes, app: ASGIApp = echo, **limits: Any) -> Answer:
    """The answer to a request that is not served, and after which the connection is closed."""
    (answer,) = read_answers(ask(app, request, **limits))
    assert answer.headers["connection"] == "close"
    assert "date" in answer.headers
    return answer


# --- Several requests on one connection


def test_a_connection_carries_one_request_after_the_other() -> None:
    def client(port: int) -> list[tuple[int, bytes]]:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        answers = []
        for data in (b"one", b"", b"three"):
            connection.request("POST", "/x", data)
            response = connection.getresponse()
            answers.append((response.status, response.read()))
        connection.close()
        return answers

    async def story() -> list[tuple[int, bytes]]:
        async with Server(echo, port=0) as server:
            return await asyncio.to_thread(client, server.port)

    assert asyncio.run(story()) == [(200, b"/x one"), (200, b"/x "), (200, b"/x three")]


def test_pipelined_requests_are_answered_in_their_order() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(3 if scope["path"] == "/slow" else 0)
        await echo(scope, receive, send)

    requests = b"".join(
        b"POST /%b HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n." % path for path in (b"slow", b"b")
    )
    wire = ask(app, requests + LAST_GET)
    assert [answer.body for answer in read_answers(wire, ["POST", "POST", "GET"])] == [b"/slow .", b"/b .", b"/ "]


def test_a_pipelined_request_may_come_in_pieces() -> None:
    async def story(peer: Peer) -> bytes:
        await peer.send(GET + b"GET /second HTTP/1.1\r\n")
        await peer.until(b"0\r\n\r\n")
        await peer.send(b"connection: close\r\nhost: a\r\n\r\n")
        return await peer.rest()

    assert b"/second " in talk(echo, story)


def test_requests_ahead_of_their_turn_are_bounded() -> None:
    turn = asyncio.Event()

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await turn.wait()
        await echo(scope, receive, send)

    async def story(peer: Peer) -> bytes:
        many = (b"GET / HTTP/1.1\r\nhost: a\r\nfiller: %b\r\n\r\n" % (b"x" * 30_000)) * 200
        sending = asyncio.create_task(peer.send(many + LAST_GET))
        await asyncio.sleep(1)
        assert not sending.done()  # 6 MB are more than the kernel's buffers hold
        turn.set()
        wire = await peer.rest()
        await sending
        return wire

    assert talk(app, story).count(b"HTTP/1.1 200 OK") == 201


def test_answers_to_pipelined_requests_wait_for_a_client_that_takes_none() -> None:
    served = 0

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal served
        served += 1
        await send(start())
        await send(body(b"x" * 200_000))

    async def story(peer: Peer) -> bytes:
        await peer.send(GET * 11 + LAST_GET)
        await asyncio.sleep(1)
        assert served < 9
        return await peer.rest()

    talk(app, story)
    assert served == 12


def test_the_next_request_does_not_wait_for_what_the_app_does_after_its_response() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body())
        await asyncio.sleep(100)

    async def story(peer: Peer) -> float:
        before = now()
        for _ in range(3):
            await peer.send(GET)
            await peer.until(b"0\r\n\r\n")
        return now() - before

    assert talk(app, story, grace_seconds=200) == 0


def test_a_head_request_leaves_the_connection_in_step() -> None:
    wire = ask(echo, GET.replace(b"GET", b"HEAD") + LAST_GET)
    assert [answer.body for answer in read_answers(wire, ["HEAD", "GET"])] == [b"", b"/ "]


def test_an_unread_body_closes_the_connection_after_the_answer() -> None:
    wire = ask(answering(start(), body(b"no, thanks")), POST + b"content-length: 9\r\n\r\n")
    assert read_answers(wire)[0].body == b"no, thanks"


def test_http_1_0_gets_a_body_that_ends_with_the_connection() -> None:
    wire = ask(answering(start(), body(b"hel", more=True), body(b"lo")), b"GET / HTTP/1.0\r\n\r\n")
    assert wire.endswith(b"\r\n\r\nhello")
    assert b"chunked" not in wire


def test_connection_close_is_obeyed_and_said() -> None:
    (answer,) = read_answers(ask(echo, LAST_GET))
    assert answer.headers["connection"] == "close"


def test_bytes_after_a_last_request_do_not_spoil_its_answer() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"a", more=True))
        await asyncio.sleep(1)
        await send(body(b"b"))

    async def story(peer: Peer) -> bytes:
        await peer.send(LAST_GET)
        await peer.until(b"a\r\n")
        await peer.send(b"\r\nnonsense")
        await peer.send(b"more of it")
        return await peer.rest()

    assert talk(app, story) == b"1\r\nb\r\n0\r\n\r\n"


def test_an_empty_line_before_a_request_is_forgiven() -> None:
    # RFC 9112, 2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore at least one empty line"
    assert read_answers(ask(echo, b"\r\n" + LAST_GET))[0].status == 200


# --- Requests that are refused


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
    ],
)
def test_what_is_not_http_is_answered_400(request_bytes: bytes) -> None:
    answer = refusal(request_bytes)
    assert (answer.status, answer.body[:14]) == (400, b"not HTTP/1.1: ")


def test_http_2_is_answered_505() -> None:
    # RFC 9110, 15.6.6: 505 (HTTP Version Not Supported)
    assert refusal(b"GET / HTTP/2.0\r\nhost: a\r\n\r\n").status == 505


def test_a_refusal_does_not_echo_the_request() -> None:
    assert b"secret" not in ask(echo, b"GET / HTTP/1.1\r\nhost: a\r\nx-api-key secret\r\n\r\n")


def test_a_broken_chunk_is_answered_400() -> None:
    assert refusal(POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n").status == 400


def test_a_websocket_request_is_answered_400() -> None:
    answer = refusal(GET[:-2] + b"connection: Upgrade\r\nupgrade: WebSocket\r\nsec-websocket-version: 13\r\n\r\n")
    assert (answer.status, answer.body) == (400, b"this server does not support WebSocket\n")


def test_another_upgrade_is_ignored() -> None:
    # RFC 9110, 7.8: "A server MAY ignore a received Upgrade header field"
    request = LAST_GET[:-2] + b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n\r\n"
    assert read_answers(ask(echo, request))[0].status == 200


def test_a_head_that_is_too_large_is_answered_431() -> None:
    answer = refusal(LAST_GET[:-2] + b"x: " + b"y" * 1000 + b"\r\n\r\n", max_head_bytes=500)
    assert (answer.status, answer.body) == (431, b"the head is larger than max_head_bytes (500)\n")


def test_a_head_that_grows_too_large_is_answered_431() -> None:
    assert refusal(LAST_GET[:-2] + b"x: " + b"y" * 1000, max_head_bytes=500).status == 431


def test_a_body_that_announces_too_much_is_answered_413() -> None:
    answer = refusal(POST + b"content-length: 11\r\n\r\n", max_body_bytes=10)
    assert (answer.status, answer.body) == (413, b"the request's body is larger than max_body_bytes (10)\n")


def test_a_chunked_body_that_grows_too_large_is_answered_413() -> None:
    chunks = b"transfer-encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" * 3
    assert refusal(POST + chunks, max_body_bytes=10).status == 413


def test_an_upload_of_too_much_gets_its_413_and_no_reset() -> None:
    async def story(peer: Peer) -> bytes:
        await peer.send(POST + b"content-length: 20000000\r\n\r\n" + b"x" * 20_000_000)
        return await peer.rest()

    assert read_answers(talk(echo, story, max_body_bytes=10))[0].status == 413


def test_an_upload_that_the_app_does_not_want_gets_its_answer_and_no_reset() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1)  # meanwhile the server has stopped reading
        await send(start(403))
        await send(body())

    async def story(peer: Peer) -> bytes:
        await peer.send(POST + b"content-length: 20000000\r\n\r\n" + b"x" * 20_000_000)
        return await peer.rest()

    assert read_answers(talk(app, story))[0].status == 403


def test_a_body_that_grows_too_large_cuts_a_begun_response_off() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"begun", more=True))
        assert (await receive())["type"] == "http.disconnect"

    async def story(peer: Peer) -> bytes:
        await peer.send(POST + b"transfer-encoding: chunked\r\n\r\n")
        head = await peer.until(b"begun\r\n")
        await peer.send(b"b\r\nhello world\r\n")
        with contextlib.suppress(ConnectionResetError):
            head += await peer.rest()
        return head

    assert talk(app, story, max_body_bytes=10).endswith(b"begun\r\n")


def test_more_connections_than_allowed_are_answered_503() -> None:
    async def main() -> tuple[bytes, bytes]:
        async with Server(echo, port=0, max_connections=1) as server, Peer(server) as first, Peer(server) as second:
            refused = await second.rest()
            await first.send(LAST_GET)
            return refused, await first.rest()

    refused, served = run(main())
    assert read_answers(refused)[0][::2] == (503, b"too many connections\n")
    assert read_answers(served)[0].status == 200


# --- Deadlines


def closing_time(app: ASGIApp, request: bytes, **limits: Any) -> tuple[float, bytes]:
    """When the server closes, in virtual seconds, and what it sends, to a client that sends `request` and no more."""

    async def story(peer: Peer) -> tuple[float, bytes]:
        before = now()
        await peer.send(request)
        wire = await peer.rest()
        return round(now() - before, 3), wire

    return talk(app, story, **limits)


def test_a_head_that_does_not_end_is_answered_408() -> None:
    after, wire = closing_time(echo, b"GET / HT", head_seconds=3)
    answer = read_answers(wire)[0]
    assert (after, answer.status, answer.body) == (3, 408, b"the request's head did not arrive in time\n")


def test_a_head_byte_by_byte_gets_no_more_time() -> None:
    async def story(peer: Peer) -> float:
        before = now()
        for byte in GET[:4]:
            await peer.send(bytes([byte]))
            await asyncio.sleep(0.9)
        await peer.rest()
        return round(now() - before, 3)

    assert talk(echo, story, head_seconds=3) == 3.6


def test_the_head_of_a_later_request_has_its_deadline_too() -> None:
    after, wire = closing_time(echo, GET + b"GET", head_seconds=3)
    assert (after, [answer.status for answer in read_answers(wire, ["GET", "GET"])]) == (3, [200, 408])


@pytest.mark.parametrize("request_bytes", [b"", GET, b"\r\n"])
def test_an_idle_connection_is_closed_without_a_word(request_bytes: bytes) -> None:
    after, wire = closing_time(echo, request_bytes, keep_alive_seconds=7, head_seconds=3)
    assert (after, wire.count(b"HTTP/1.1")) == (7, len(request_bytes) // len(GET))


def test_a_body_that_stops_is_answered_408() -> None:
    after, wire = closing_time(echo, POST + b"content-length: 9\r\n\r\nhel", body_seconds=5)
    answer = read_answers(wire)[0]
    assert (after, answer.status, answer.body) == (5, 408, b"the request's body did not arrive in time\n")


def test_each_piece_of_a_body_gets_its_own_time() -> None:
    async def story(peer: Peer) -> bytes:
        await peer.send(POST + b"connection: close\r\ncontent-length: 5\r\n\r\n")
        for byte in b"hello":
            await asyncio.sleep(4)
            await peer.send(bytes([byte]))
        return await peer.rest()

    assert read_answers(talk(echo, story, body_seconds=5))[0].body == b"/x hello"


def test_a_body_has_no_deadline_while_the_app_does_not_want_it() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(100)
        await send(start())
        await send(body())

    after, wire = closing_time(app, POST + b"content-length: 9\r\n\r\n", body_seconds=5, linger_seconds=0)
    assert (after, read_answers(wire)[0].status) == (100, 200)


def test_a_client_that_never_closes_is_closed_after_lingering() -> None:
    async def story(peer: Peer) -> list[int]:
        await peer.send(b"nonsense\r\n\r\n")
        await peer.rest()
        counts = []
        for _ in range(2):
            await asyncio.sleep(2)
            counts.append(len(peer.server._state.connections))
        return counts

    assert talk(echo, story, linger_seconds=3) == [1, 0]


@http_only
async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    while True:
        await send(body(b"x" * 65536, more=True))


def watched(app: ASGIApp) -> tuple[ASGIApp, list[tuple[float, str]]]:
    """`app`, and a list of when and with which exception its calls ended."""
    endings: list[tuple[float, str]] = []

    @http_only
    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except BaseException as exc:
            endings.append((now(), type(exc).__name__))
            raise

    return called, endings


def test_a_client_that_takes_nothing_is_cut_off() -> None:
    app, endings = watched(flood)

    async def story(peer: Peer) -> float:
        before = now()
        await peer.send(GET)
        await asyncio.sleep(100)
        return before

    before = talk(app, story, write_seconds=5)
    ((after, name),) = endings
    # It is looked at every 5 seconds. The system takes the last bytes a moment after the first look.
    assert 5 <= after - before <= 10
    assert name == "ClientDisconnectedError"


def test_a_client_that_takes_slowly_is_not_cut_off() -> None:
    app, endings = watched(flood)

    async def story(peer: Peer) -> None:
        await peer.send(GET)
        for _ in range(4):
            await asyncio.sleep(4)
            await peer.reader.readexactly(400_000)
        assert endings == []

    talk(app, story, write_seconds=5)


class Buffer(asyncio.Transport):
    """A transport that sends nothing: `size` bytes wait in its buffer."""

    size = 0
    end = ""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def resume_reading(self) -> None: ...

    def write_eof(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return self.size

    def close(self) -> None:
        self.end = self.end or "closed"

    def abort(self) -> None:
        self.end = self.end or "aborted"


def test_a_client_that_caught_up_once_may_be_a_little_behind_again() -> None:
    async def main() -> None:
        buffer, connection = Buffer(), Connection(ServerState(echo, Limits(write_seconds=5)))
        connection.connection_made(buffer)
        buffer.size = 100_000
        connection.pause_writing()
        for buffer.size in (10_000, 20_000, 30_000):
            connection.resume_writing()
            await asyncio.sleep(6)
        assert buffer.end == ""
        connection.connection_lost(None)

    run(main())


def test_a_client_that_catches_up_while_the_connection_ends_does_not_keep_it_open() -> None:
    async def main() -> None:
        buffer, connection = Buffer(), Connection(ServerState(echo, Limits(linger_seconds=3)))
        connection.connection_made(buffer)
        connection.pause_writing()
        connection.end()
        connection.resume_writing()
        await asyncio.sleep(4)
        assert buffer.end == "closed"
        connection.connection_lost(None)

    run(main())


@pytest.mark.parametrize("max_buffered_bytes", [65536, 50_000_000])
def test_a_client_that_takes_no_end_is_cut_off(max_buffered_bytes: int) -> None:
    async def story(peer: Peer) -> None:
        await peer.send(LAST_GET)
        await asyncio.sleep(11)
        assert not peer.server._state.connections

    app = answering(start(), body(b"x" * 2_000_000))
    talk(app, story, write_seconds=5, max_buffered_bytes=max_buffered_bytes)


# --- Back-pressure


def test_an_app_that_gives_up_waiting_for_the_end_of_its_response_does_not_stop_the_next() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(send(body(b"x" * 2_000_000)), 1)

    async def story(peer: Peer) -> bytes:
        await peer.send(GET + LAST_GET)
        await asyncio.sleep(2)
        return await peer.rest()

    assert len(read_answers(talk(app, story), ["GET", "GET"])) == 2


def test_send_waits_for_a_client_that_takes_nothing() -> None:
    sent = 0

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(start())
        for number in range(64):
            await send(body(b"x" * 65536, more=number < 63))
            sent += 1

    async def story(peer: Peer) -> int:
        await peer.send(LAST_GET)
        await asyncio.sleep(1)
        stopped_at = sent
        await peer.rest()
        return stopped_at

    assert talk(app, story) < 32
    assert sent == 64


def test_receive_is_the_measure_of_what_is_read() -> None:
    sizes: list[int] = []
    turn = asyncio.Event()

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await turn.wait()
        while (message := await receive())["more_body"]:
            sizes.append(len(message["body"]))
        await send(start())
        await send(body())

    async def story(peer: Peer) -> None:
        head = POST + b"connection: close\r\ncontent-length: 20000000\r\n\r\n"
        sending = asyncio.create_task(peer.send(head + b"x" * 20_000_000))
        await asyncio.sleep(1)
        assert not sending.done()
        turn.set()
        await peer.rest()
        await sending

    talk(app, story, max_buffered_bytes=1000)
    assert max(sizes) <= 1000 + 256 * 1024  # one read of asyncio's more than what is allowed
    assert sum(sizes) > 19_000_000


# --- The client leaves


def heard_by(app: Callable[[Receive, Send], Awaitable[Any]], request: bytes, how: str, **options: Any) -> list[Any]:
    """What `app` returns or raises, when the client sends `request`, waits until all stands still, and leaves."""
    heard: list[Any] = []

    @http_only
    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        before = now()
        try:
            heard.append(await app(receive, send))
        except Exception as exc:
            heard.append((type(exc), str(exc)))
        assert now() - before == 1

    async def story(peer: Peer) -> None:
        await peer.send(request)
        await asyncio.sleep(1)
        peer.leave(how)
        await asyncio.sleep(1)
        assert len(heard) == 1

    talk(called, story, **options)
    return heard


DISCONNECT: Message = {"type": "http.disconnect"}
GONE = (ClientDisconnectedError, "the client has disconnected")
GONE_WHILE_WAITING = (ClientDisconnectedError, "the client disconnected, or was too slow to read")


@pytest.mark.parametrize("how", LEAVING)
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nho", GET])
def test_a_client_that_leaves_between_or_in_heads_leaves_nothing_behind(sent: bytes, how: str) -> None:
    async def story(peer: Peer) -> None:
        await peer.send(sent)
        await asyncio.sleep(1)
        peer.leave(how)
        await asyncio.sleep(1)
        assert not peer.server._state.connections

    talk(echo, story)


@pytest.mark.parametrize("how", LEAVING)
def test_a_client_that_leaves_in_its_body_is_noticed(how: str) -> None:
    async def app(receive: Receive, send: Send) -> list[Message]:
        return [await receive(), await receive()]

    (messages,) = heard_by(app, POST + b"content-length: 9\r\n\r\nhel", how)
    assert messages == [{"type": "http.request", "body": b"hel", "more_body": True}, DISCONNECT]


@pytest.mark.parametrize("how", LEAVING)
def test_a_client_that_leaves_before_its_answer_is_noticed(how: str) -> None:
    async def app(receive: Receive, send: Send) -> Message:
        await receive()
        return await receive()

    assert heard_by(app, GET, how) == [DISCONNECT]


@pytest.mark.parametrize("how", LEAVING)
def test_a_client_that_leaves_between_chunks_is_noticed(how: str) -> None:
    async def app(receive: Receive, send: Send) -> Message:
        await send(start())
        await send(body(b"a", more=True))
        await read_body(receive)
        return await receive()

    assert heard_by(app, GET, how) == [DISCONNECT]


@pytest.mark.parametrize("how", LEAVING)
def test_a_client_that_leaves_makes_the_next_send_fail(how: str) -> None:
    async def app(receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"a", more=True))
        await read_body(receive)
        await receive()
        await send(body(b"b", more=True))

    assert heard_by(app, GET, how) == [GONE]


@pytest.mark.parametrize("how", LEAVING)
def test_a_client_that_leaves_without_taking_what_was_sent_frees_the_sender(how: str) -> None:
    async def app(receive: Receive, send: Send) -> None:
        await send(start())
        while True:
            await send(body(b"x" * 65536, more=True))

    assert heard_by(app, GET, how, write_seconds=5) == [GONE_WHILE_WAITING]


def test_every_receiver_is_told() -> None:
    async def app(receive: Receive, send: Send) -> list[Message]:
        await receive()
        return list(await asyncio.gather(receive(), receive(), receive()))

    assert heard_by(app, GET, "FIN") == [[DISCONNECT] * 3]


def test_a_receiver_that_was_cancelled_does_not_disturb_the_others() -> None:
    async def app(receive: Receive, send: Send) -> Message:
        await receive()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(receive(), 0.5)
        return await receive()

    assert heard_by(app, GET, "FIN") == [DISCONNECT]


def test_a_deadline_that_passes_when_the_client_has_just_left_does_nothing() -> None:
    async def story(peer: Peer) -> None:
        await peer.send(GET[:5])
        await asyncio.sleep(1)
        (connection,) = peer.server._state.connections
        peer.leave()
        await asyncio.sleep(1)
        connection.refuse(408, "too late")

    talk(echo, story)


# --- The limits themselves


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^head_seconds must be 0 or more, not -1$"):
        Limits(head_seconds=-1)


def test_an_unknown_limit_is_refused() -> None:
    with pytest.raises(TypeError, match="head_second"):
        Server(echo, head_second=1)
