"""rawsse.server.connection, `Call`: what an app is told and may send, over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rawsse.errors import HTTPUsageError
from rawsse.server import ASGIApp, ClientDisconnectedError, Message, Receive, Scope, Send
from server.peer import GET, LAST_GET, Answer, Peer, answering, ask, body, echo, http_only, read_answers, start, talk


def get(app: ASGIApp, method: str = "GET") -> Answer:
    (answer,) = read_answers(ask(app, LAST_GET.replace(b"GET", method.encode())), [method])
    return answer


def post(app: ASGIApp, *, head: bytes = b"", data: bytes = b"") -> Answer:
    (answer,) = read_answers(ask(app, b"POST /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n" + head + b"\r\n" + data))
    return answer


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


# --- The request's body


def test_a_sized_body_reaches_the_app() -> None:
    assert post(echo, head=b"content-length: 5\r\n", data=b"hello").body == b"/x hello"


def test_a_chunked_body_reaches_the_app() -> None:
    data = b"3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\ntrailer: 1\r\n\r\n"
    assert post(echo, head=b"transfer-encoding: chunked\r\n", data=data).body == b"/x hello"


def test_no_body_is_one_empty_message() -> None:
    messages: list[Message] = []

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        messages.append(await receive())
        await send(start())
        await send(body())

    get(app)
    assert messages == [{"type": "http.request", "body": b"", "more_body": False}]


def test_a_body_comes_as_it_comes() -> None:
    messages: list[Message] = []

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            messages.append(await receive())
            await send({"type": "rawsse.wire.send", "data": b"got it."})

    async def story(peer: Peer) -> None:
        await peer.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na")
        await peer.until(b"got it.")
        await peer.send(b"b")
        await peer.until(b"got it.")

    talk(app, story)
    assert [(message["body"], message["more_body"]) for message in messages] == [(b"a", True), (b"b", False)]


def test_the_body_is_asked_for_when_the_app_wants_it() -> None:
    async def story(peer: Peer) -> bytes:
        await peer.send(b"POST /x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        interim = await peer.until(b"\r\n\r\n")
        await peer.send(b"ok")
        await peer.until(b"/x ok")
        return interim

    assert talk(echo, story) == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_the_body_is_not_asked_for_when_the_app_does_not_want_it() -> None:
    answer = post(answering(start(403), body()), head=b"expect: 100-continue\r\ncontent-length: 2\r\n")
    assert answer.status == 403


def test_receive_after_a_complete_response_says_disconnect() -> None:
    messages: list[Message] = []

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body())
        messages.append(await receive())

    async def story(peer: Peer) -> None:
        await peer.send(GET)
        await peer.until(b"0\r\n\r\n")
        assert messages == [{"type": "http.disconnect"}]

    talk(app, story)


# --- The response


def test_a_response_of_unknown_length_is_chunked() -> None:
    app = answering(start(200, (b"content-type", b"text/plain")), body(b"hel", more=True), body(b"lo"))
    assert ask(app, LAST_GET).endswith(b"\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")


def test_a_response_of_known_length_is_not_chunked() -> None:
    app = answering(start(200, (b"content-length", b"5")), body(b"hel", more=True), body(b"lo"))
    assert ask(app, LAST_GET).endswith(b"\r\n\r\nhello")


def test_the_apps_head_arrives_as_it_is() -> None:
    answer = get(answering(start(429, (b"Retry-After", b"3"), (b"x-name", b"\xe9")), body(b"no")))
    assert (answer.status, answer.headers["retry-after"], answer.headers["x-name"]) == (429, "3", "\xe9")


def test_a_response_is_dated() -> None:
    # RFC 9110, 5.6.7: IMF-fixdate
    assert "GMT" in get(answering(start(), body())).headers["date"]


def test_the_apps_own_date_is_kept() -> None:
    assert get(answering(start(200, (b"Date", b"today")), body())).headers["date"] == "today"


def test_the_server_does_not_name_itself() -> None:
    assert "server" not in get(answering(start(), body())).headers


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_where_http_allows_no_body_none_is_sent(method: str, status: int) -> None:
    wire = ask(answering(start(status), body(b"hello")), LAST_GET.replace(b"GET", method.encode()))
    assert wire.endswith(b"\r\n\r\n")
    assert read_answers(wire, [method])[0].status == status


def test_the_head_waits_for_the_first_piece_of_body() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        raise RuntimeError("too early")

    assert get(app).status == 500


def test_an_empty_first_piece_sends_the_head() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(more=True))
        await receive()
        await receive()

    async def story(peer: Peer) -> bytes:
        await peer.send(GET)
        return await peer.until(b"\r\n\r\n")

    assert talk(app, story).startswith(b"HTTP/1.1 200 OK\r\n")


def refused(*messages: Message) -> str:
    """What `send` says to the last of the messages."""
    said: list[str] = []

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages[:-1]:
            await send(message)
        with pytest.raises(HTTPUsageError) as caught:
            await send(messages[-1])
        said.append(str(caught.value))

    ask(app, LAST_GET)
    return said[0]


def test_a_body_needs_a_start() -> None:
    assert refused(body(b"x")) == "http.response.body came before http.response.start"


def test_a_response_starts_once() -> None:
    assert refused(start(), start()) == "'http.response.start' may not be sent now"


def test_nothing_follows_a_complete_response() -> None:
    assert refused(start(), body(), body(b"x")) == "'http.response.body' came after the response was complete"


def test_an_unknown_message_is_named() -> None:
    assert refused({"type": "http.response.push"}) == "'http.response.push' may not be sent now"


def test_more_than_the_content_length_is_refused() -> None:
    assert refused(start(200, (b"content-length", b"1")), body(b"ab")) == "Too much data for declared Content-Length"


def test_less_than_the_content_length_is_refused() -> None:
    assert refused(start(200, (b"content-length", b"3")), body(b"ab")) == "Too little data for declared Content-Length"


def test_a_header_that_would_split_the_response_is_refused() -> None:
    said = refused(start(200, (b"name", b"x\r\nset-cookie: y")), body())
    assert said == "the value of name may not have '\\r' at position 1"


# --- Failures of the app


def failing(error: BaseException, *messages: Message) -> ASGIApp:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        raise error

    return app


def test_an_app_that_raises_is_answered_500(caplog: pytest.LogCaptureFixture) -> None:
    answer = get(failing(RuntimeError("boom")))
    assert (answer.status, answer.headers["connection"], answer.body) == (500, "close", b"the server failed\n")
    assert errors_in(caplog) == ["GET /: the app failed"]


def test_the_log_of_a_failure_has_its_traceback_and_no_query(caplog: pytest.LogCaptureFixture) -> None:
    ask(failing(RuntimeError("boom")), b"GET /a%0a?token=secret HTTP/1.1\r\nhost: a\r\nx-api-key: secret\r\n\r\n")
    (record,) = caplog.records
    assert record.message == "GET /a%0a: the app failed"
    assert record.exc_info is not None
    assert "secret" not in caplog.text


def test_an_app_that_raises_in_its_response_cuts_it_off(caplog: pytest.LogCaptureFixture) -> None:
    async def story(peer: Peer) -> bytes:
        await peer.send(GET)
        return await peer.until(b"5\r\nhello\r\n") + await peer.rest()

    # RFC 9112, 8: a client knows that a chunked message is incomplete when "the zero-sized chunk" has not come
    assert talk(failing(RuntimeError("boom"), start(), body(b"hello", more=True)), story).endswith(b"5\r\nhello\r\n")
    assert errors_in(caplog) == ["GET /: the app failed"]


def test_an_app_that_returns_without_an_answer_is_answered_500(caplog: pytest.LogCaptureFixture) -> None:
    assert get(answering()).status == 500
    assert errors_in(caplog) == ["GET /: the app returned without a complete response"]


def test_an_app_that_returns_in_its_response_cuts_it_off(caplog: pytest.LogCaptureFixture) -> None:
    assert not ask(answering(start(), body(b"hello", more=True)), LAST_GET).endswith(b"0\r\n\r\n")
    assert errors_in(caplog) == ["GET /: the app returned without a complete response"]


def test_an_app_that_cancels_itself_is_answered_500() -> None:
    assert get(failing(asyncio.CancelledError())).status == 500


def test_a_failure_after_the_response_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    assert get(failing(RuntimeError("late"), start(), body(b"fine"))).body == b"fine"
    assert errors_in(caplog) == ["GET /: the app failed"]


def after_the_client_left(react: Callable[[Send], Awaitable[None]]) -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        assert await receive() == {"type": "http.disconnect"}
        await react(send)

    async def story(peer: Peer) -> None:
        await peer.send(GET)
        peer.leave()
        await asyncio.sleep(1)

    talk(app, story)


def test_that_the_client_left_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def react(send: Send) -> None:
        await send(start())

    after_the_client_left(react)
    assert errors_in(caplog) == []


def test_that_the_client_left_is_no_failure_when_a_framework_wraps_it(caplog: pytest.LogCaptureFixture) -> None:
    async def react(send: Send) -> None:
        try:
            await send(start())
        except OSError:
            raise ValueError("of the framework") from None

    after_the_client_left(react)
    assert errors_in(caplog) == []


def test_a_failure_after_the_client_left_is_still_one(caplog: pytest.LogCaptureFixture) -> None:
    async def react(send: Send) -> None:
        raise RuntimeError("boom")

    after_the_client_left(react)
    assert errors_in(caplog) == ["GET /: the app failed"]


# --- The wire extension


def wire(data: bytes) -> Message:
    return {"type": "rawsse.wire.send", "data": data}


def test_wire_bytes_go_out_as_they_are() -> None:
    app = answering(wire(b"HTTP/1.1 200 OK\r\n"), wire(b"\r\nzz\r\nno chunk"))
    assert ask(app, GET) == b"HTTP/1.1 200 OK\r\n\r\nzz\r\nno chunk"


def test_each_wire_message_is_one_write() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for piece in (b"a", b"b", b"c"):
            await send(wire(piece))
            await asyncio.sleep(1)

    async def story(peer: Peer) -> list[bytes]:
        await peer.send(GET)
        return [await peer.reader.read(10) for _ in range(3)]

    assert talk(app, story) == [b"a", b"b", b"c"]


def test_a_half_close_ends_what_the_client_reads_and_not_what_it_sends() -> None:
    heard: list[str] = []

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(wire(b"HTTP/1.1 200"))
        await send({"type": "rawsse.wire.half_close"})
        heard.append((await receive())["type"])

    async def story(peer: Peer) -> bytes:
        await peer.send(GET)
        data = await peer.rest()
        assert heard == []
        return data

    assert talk(app, story) == b"HTTP/1.1 200"
    assert heard == ["http.disconnect"]


def reset_after(*messages: Message) -> bytes:
    async def story(peer: Peer) -> bytes:
        await peer.send(GET)
        received = b""
        try:
            while data := await peer.reader.read(100):
                received += data
        except ConnectionResetError:
            return received
        raise AssertionError("the connection ended with FIN")

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        await asyncio.sleep(1)  # what was sent arrives first
        await send({"type": "rawsse.wire.reset"})
        with pytest.raises(ClientDisconnectedError, match="the client is gone"):
            await send(wire(b"x"))

    return talk(app, story)


def test_a_reset_is_a_reset() -> None:
    assert reset_after() == b""


def test_a_reset_can_end_wire_bytes() -> None:
    assert reset_after(wire(b"HTTP/1.1 200 OK\r\n")) == b"HTTP/1.1 200 OK\r\n"


def test_a_reset_can_end_a_proper_response() -> None:
    assert reset_after(start(), body(b"hello", more=True)).endswith(b"5\r\nhello\r\n")


def test_wire_bytes_are_sent_when_the_system_has_taken_all_of_them() -> None:
    has_sent: list[bool] = []

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(wire(b"x" * 9_999_999))
        has_sent.append(True)

    async def story(peer: Peer) -> int:
        await peer.send(GET)
        await peer.reader.readexactly(1_000_000)
        assert has_sent == []
        return len(await peer.rest())

    assert talk(app, story) == 8_999_999
    assert has_sent == [True]


@pytest.mark.skipif(sys.platform != "linux", reason="no other system says what it has not sent yet")
def test_a_reset_waits_for_what_the_client_has_no_room_for() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(wire(b"x" * 150_000))
        await send({"type": "rawsse.wire.reset"})

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

    assert talk(app, story) == 150_000


@pytest.mark.skipif(sys.platform != "linux", reason="no other system says what it has not sent yet")
def test_a_reset_waits_no_longer_than_the_linger_time() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(wire(b"x" * 150_000))
        before = asyncio.get_running_loop().time()
        await send({"type": "rawsse.wire.reset"})
        waited.append(asyncio.get_running_loop().time() - before)

    async def story(peer: Peer) -> None:
        transport: Any = peer.writer.transport
        transport.pause_reading()
        await peer.send(GET)
        await asyncio.sleep(30)

    waited: list[float] = []
    talk(app, story, linger_seconds=0.1)
    assert waited == [pytest.approx(0.1, abs=0.01)]


def test_wire_bytes_do_not_mix_with_a_proper_response() -> None:
    assert refused(start(), wire(b"x")) == "'rawsse.wire.send' may not be sent now"
    assert refused(wire(b"x"), body(b"x")) == "http.response.body came before http.response.start"


def test_an_app_that_fails_on_the_wire_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    assert ask(failing(RuntimeError("boom"), wire(b"HTTP/1.1 200")), GET) == b"HTTP/1.1 200"
    assert errors_in(caplog) == ["GET /: the app failed"]


def test_no_100_continue_gets_between_wire_bytes() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(wire(b"a"))
        assert (await receive())["body"] == b"x"
        await send(wire(b"b"))

    async def story(peer: Peer) -> bytes:
        await peer.send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n")
        await asyncio.sleep(1)
        await peer.send(b"x")
        return await peer.rest()

    assert talk(app, story) == b"ab"


def test_the_socket_sends_small_pieces_at_once() -> None:
    options: list[int] = []

    async def story(peer: Peer) -> None:
        await peer.send(GET)
        await peer.until(b"\r\n\r\n")
        (connection,) = peer.server._state.connections
        sock = connection.transport.get_extra_info("socket")
        options.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    talk(answering(start(), body()), story)
    assert options[0] != 0
