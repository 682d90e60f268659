"""rawsse.server.connection, `Call`: what an app is told and may send, over real connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from rawsse.errors import HTTPUsageError
from rawsse.server import ASGIApp, Message, Receive, Scope, Send
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
            scope["extensions"]["rawsse.wire"].take_over().write(b"got it.")
        scope["extensions"]["rawsse.wire"].end()

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
    assert refused(body(b"x")) == "'http.response.body' may not be sent now: expected 'http.response.start'"


def test_a_response_starts_once() -> None:
    assert refused(start(), start()) == "'http.response.start' may not be sent now: expected 'http.response.body'"


def test_nothing_follows_a_complete_response() -> None:
    assert refused(start(), body(), body(b"x")) == "'http.response.body' came after the response was complete"


def test_an_unknown_message_is_named() -> None:
    assert (
        refused({"type": "http.response.push"})
        == "'http.response.push' may not be sent now: expected 'http.response.start'"
    )


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


# --- The connection, taken over


def test_an_app_that_takes_over_writes_the_bytes_as_they_are_and_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope["extensions"]["rawsse.wire"]
        connection.take_over().write(b"HTTP/1.1 200 OK\r\n\r\nzz\r\nno chunk")
        connection.end()

    assert ask(app, GET) == b"HTTP/1.1 200 OK\r\n\r\nzz\r\nno chunk"
    assert errors_in(caplog) == []


def test_a_response_that_has_begun_can_be_taken_over() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"hello", more=True))
        scope["extensions"]["rawsse.wire"].take_over().write(b"no chunk")
        scope["extensions"]["rawsse.wire"].end()

    assert ask(app, GET).endswith(b"5\r\nhello\r\nno chunk")


def test_no_proper_response_begins_after_that() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"]["rawsse.wire"].take_over()
        with pytest.raises(
            HTTPUsageError, match=r"^'http\.response\.start' may not be sent now: expected 'http\.response\.body'$"
        ):
            await send(start())
        scope["extensions"]["rawsse.wire"].end()

    assert ask(app, GET) == b""


@pytest.mark.parametrize(
    ("error", "words"), [(RuntimeError("boom"), "failed"), (None, "returned without a complete response")]
)
def test_an_app_that_took_over_and_fails_or_forgets_the_end_ends_the_connection(
    error: Exception | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"]["rawsse.wire"].take_over().write(b"HTTP/1.1 200")
        if error is not None:
            raise error

    assert ask(app, GET) == b"HTTP/1.1 200"
    assert errors_in(caplog) == [f"GET /: the app {words}"]


def test_the_server_says_nothing_between_the_bytes_of_an_app_that_took_over() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        wire = scope["extensions"]["rawsse.wire"].take_over()
        wire.write(b"a")
        assert (await receive())["body"] == b"x"  # no 100 Continue asks for it
        wire.write(b"b")
        assert (await receive())["type"] == "http.disconnect"  # and no 408 says that the rest did not come in time

    async def story(peer: Peer) -> bytes:
        await peer.send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        await asyncio.sleep(1)
        await peer.send(b"x")
        return await peer.rest()

    assert talk(app, story, body_seconds=5) == b"ab"
