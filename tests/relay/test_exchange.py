"""rawsse.relay.exchange: bodies that are taken and refused, errors in JSON, where a stream is written, and what pages of other
origins are told."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from support.clock import run, ticks

from rawsse.relay import Guard, exchange
from rawsse.relay.dialects import Answer, InvalidRequest
from rawsse.relay.exchange import MAX_NESTING, Exchange, Pump

JSON = {"content-type": "application/json"}
T = TypeVar("T")
Message = dict[str, Any]


class Told:
    """What a server would be told by an exchange, and the exchange."""

    def __init__(self, *incoming: bytes | None, limit: int = 100, guard: Guard | None = None, **scope: Any) -> None:
        self.sent: list[Message] = []
        self.limit = limit
        self._incoming = list(incoming)
        headers = {"host": "localhost", **scope.pop("headers", JSON)}
        scope["headers"] = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        scope["headers"] += scope.pop("more_headers", [])
        self.exchange = Exchange(
            {"type": "http", "method": "POST", "path": "/", **scope},
            self._receive,
            self._send,
            guard or Guard(),
        )

    async def _receive(self) -> Message:
        piece = self._incoming.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(self._incoming)}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode("latin-1") for name, value in self.sent[0]["headers"]}


def read(*pieces: bytes | None, **options: Any) -> Any:
    told = Told(*pieces, **options)
    return run(told.exchange.read_json(dict, told.limit))


def refused(*pieces: bytes | None, **options: Any) -> tuple[int, str]:
    with pytest.raises(InvalidRequest) as caught:
        read(*pieces, **options)
    return caught.value.status, str(caught.value)


def tell(work: Coroutine[Any, Any, T]) -> T:
    return run(work)


# --- Bodies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", " application/json ;"])
def test_a_json_object_is_taken(kind: str) -> None:
    assert read(b'{"a": "\xc3\xbc"}', headers={"content-type": kind}) == {"a": "ü"}


def test_a_body_may_come_in_pieces() -> None:
    assert read(b'{"a"', b"", b":", b" 1}") == {"a": 1}


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "text/json", "application/jsonp"]
)
def test_another_content_type_is_refused_unread(kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    assert refused(headers=headers) == (415, "content-type: must be application/json")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\xff"}',
        '{"a": 1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"a": 1} {"b": 2}',
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    status, words = refused(body)
    assert status == 400
    assert words.startswith("body: is not valid JSON: ")


def test_the_words_of_a_refusal_do_not_repeat_the_body() -> None:
    assert "secret" not in refused(b'{"secret": secret}')[1]


@pytest.mark.parametrize("body", [b'{"a": "\\ud83d\\ude80"}', b'{"a": "\\u00fc"}', b'{"a": "\\\\ud83d"}'])
def test_whole_escapes_are_taken(body: bytes) -> None:
    assert read(body) == json.loads(body)


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"7", b"null", b"true"])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    assert refused(body) == (400, "body: must be a JSON object")


@pytest.mark.parametrize("depth", [MAX_NESTING - 1, MAX_NESTING, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_json_that_is_nested_too_deeply_is_refused(depth: int, opening: bytes, closing: bytes) -> None:
    body = b'{"a": 1, "b": ' + opening * depth + b"1" + closing * depth + b"}"
    if depth < MAX_NESTING:
        assert read(body, limit=len(body))["a"] == 1
    else:
        assert refused(body, limit=len(body)) == (400, "body: is nested deeper than 200 levels")


LONE_HALVES = [
    r"\ud83d",
    r"\uDE80",
    r"\ude80\ud83d",
    r"\ud83d\ud83d\ude80",
    r"\ud83d\ude80\ude80",
    r"\ud83d \ude80",
    r"\\\ud83d",
]
LONE_HALVES += [r"\ud83d\\\ude80", r"\ud83dx\ude80", r"\ud83d\n\ude80", r"\uD83D\u0041"]


@pytest.mark.parametrize("escapes", LONE_HALVES)
@pytest.mark.parametrize("body", ['{"a": "x%sx"}', '{"a": ["", {"%s": 1}]}', '{"a": "%s"}'])
def test_half_of_a_surrogate_pair_is_replaced_as_browsers_do_it(body: str, escapes: str) -> None:
    """Infra, "convert a string into a scalar value string": "replace any surrogates with U+FFFD"."""
    wire = (body % escapes).encode()
    text = json.dumps(json.loads(wire), ensure_ascii=False)
    assert read(wire) == json.loads(re.sub("[\ud800-\udfff]", "\ufffd", text)) != json.loads(wire)


@pytest.mark.parametrize(
    "escapes",
    [r"\ud83d\ude80", r"\uD83D\uDE80\ud83d\ude80", r"\\ud83d", r"\\\\ude80", r"\\\ud83d\ude80", r"\u0064\ud7ff\ue000"],
)
def test_a_whole_pair_is_text(escapes: str) -> None:
    wire = b'{"a": "%b"}' % escapes.encode()
    assert read(wire) == json.loads(wire)


@pytest.mark.parametrize("value", [b"{}", b"[]", b'""', b"1", b'[[],{"a":1}]', b'"[{,"'])
def test_a_body_of_very_many_values_is_refused_before_all_of_it_has_come(
    value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MAX_VALUES", 1000)
    piece = (value + b",") * 600
    assert refused(b"{", piece, piece, None, limit=10**6) == (413, "body: has more than 1000 values")


def test_the_largest_conversation_of_the_api_has_fewer_values() -> None:
    # "There is a limit of 100,000 messages in a single request."
    message = b'{"role":"user","content":[{"type":"text","text":"Hi, there"}]},'
    assert 100_000 * sum(message.count(sign) for sign in (b"{", b"[", b",")) < exchange.MAX_VALUES


@pytest.mark.parametrize(("size", "is_far"), [(exchange.THREAD_BYTES, False), (exchange.THREAD_BYTES + 1, True)])
def test_a_large_body_is_read_in_a_thread(size: int, *, is_far: bool) -> None:
    told = Told(b'{"a": "' + b"x" * (size - 9) + b'"}')
    threads: list[int] = []

    def note(body: dict[str, Any]) -> str:
        threads.append(threading.get_ident())
        if len(body["a"]) != size - 9:
            raise AssertionError
        raise InvalidRequest("a", "is refused")

    with pytest.raises(InvalidRequest, match="a: is refused"):
        asyncio.run(told.exchange.read_json(note, size))
    assert (threads == [threading.get_ident()]) is not is_far


@pytest.mark.parametrize("value", [b"{}", b"[]", b'{"a":[]}', b'"x"', b"[1,2,3]", b'{"role":"user","content":"x"}'])
def test_what_is_checked_takes_less_memory_than_what_is_parsed(value: bytes) -> None:
    wire = b'{"a": [' + b",".join([value] * 4_000) + b"]}"
    exchange._read(b"{}", len)  # fills the caches of the parser
    parsed = peak(lambda: json.loads(wire))
    assert peak(lambda: exchange._read(wire, len)) < parsed + len(wire) + 4_000 * 24


def peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_body_of_just_the_limit_is_taken() -> None:
    assert read(b"{}" + b" " * 98) == {}


@pytest.mark.parametrize("pieces", [(b" " * 101,), (b" " * 60, b" " * 41), (b" " * 101, b" ")])
def test_a_larger_body_is_refused_as_soon_as_it_is(pieces: tuple[bytes, ...]) -> None:
    assert refused(*pieces) == (413, "body: is larger than 100 bytes")


def test_a_client_that_goes_in_the_middle_of_its_body_is_gone() -> None:
    with pytest.raises(ConnectionResetError, match=r"^the client disconnected while sending its request$"):
        read(b"{", None)


# --- Where the request leads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "path", "found"),
    [
        ("", "/runs/1", "/runs/1"),
        ("/claude", "/claude/runs/1", "/runs/1"),
        ("/claude/", "/claude/runs/1", "/runs/1"),
        ("/claude", "/runs/1", "/runs/1"),
        ("/claude", "/claudette", "/claudette"),
        ("/claude", "/claude", ""),
    ],
)
def test_in_a_mounted_application_the_path_is_what_follows_the_mount(root: str, path: str, found: str) -> None:
    assert Told(root_path=root, path=path).exchange.path == found


def test_a_field_that_came_twice_is_one_list() -> None:
    more = [(b"anthropic-beta", b"a"), (b"anthropic-beta", b"b")]
    assert Told(more_headers=more).exchange.headers["anthropic-beta"] == "a, b"


def test_the_query_is_read() -> None:
    assert Told(query_string=b"after=a%2D1&after=2&x").exchange.query == {"after": ["a-1", "2"], "x": [""]}


# --- Answers -------------------------------------------------------------------------------------------------------


def test_an_answer_says_what_was_wrong_and_with_which_field() -> None:
    told = Told()
    tell(told.exchange.send_answer(InvalidRequest("prompt", "is empty")))
    assert told.sent[0]["status"] == 400
    assert told.headers == {"content-type": "application/json", "content-length": str(len(told.sent[1]["body"]))}
    assert json.loads(told.sent[1]["body"]) == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "prompt: is empty", "field": "prompt"},
    }


def test_a_request_that_is_too_large_has_its_own_type() -> None:
    body = json.loads(InvalidRequest("prompt", "is longer", 413).body)
    assert body["error"]["type"] == "request_too_large"


def test_an_answer_need_not_name_a_field() -> None:
    answer = Answer(404, "not_found_error", "nothing here", headers={"allow": "GET"})
    assert json.loads(answer.body)["error"] == {"type": "not_found_error", "message": "nothing here"}
    assert answer.headers == (("allow", "GET"),)


def test_the_limits_of_the_relay_take_the_place_of_the_api_s_and_do_not_stand_beside_them() -> None:
    told = Told()
    told.exchange.more_fields.append(("anthropic-ratelimit-tokens-limit", "100"))
    of_the_api = [("anthropic-ratelimit-tokens-limit", "9000"), ("request-id", "req_1")]
    assert told.exchange.fields(of_the_api) == [
        (b"request-id", b"req_1"),
        (b"anthropic-ratelimit-tokens-limit", b"100"),
    ]


def test_an_answer_without_content_has_no_length() -> None:
    told = Told()
    tell(told.exchange.send_whole(204))
    assert [message.get("headers", message.get("body")) for message in told.sent] == [[], b""]


# --- Where a stream is written ---------------------------------------------------------------------------------------


class Push:
    """What a server has as `extensions["rawsse.push"]`, as far as it is looked at before it is used."""

    def __init__(self, told: Told) -> None:
        self.send = told._send


def test_a_stream_is_written_straight_to_the_connection_of_a_server_that_can_do_that() -> None:
    told = Told()
    push: Any = Push(told)
    told.exchange.scope["extensions"] = {"rawsse.push": push}
    assert told.exchange.outlet() is push


def test_it_is_not_where_middleware_looks_at_what_is_sent() -> None:
    told = Told(extensions={"rawsse.push": Push(Told())})
    assert isinstance(told.exchange.outlet(), Pump)


@pytest.mark.parametrize("extensions", [None, {}, {"rawsse.wire": {}}])
def test_other_servers_are_sent_messages(extensions: Any) -> None:
    assert isinstance(Told(extensions=extensions).exchange.outlet(), Pump)


class Host:
    """A server that is sent messages by a pump, and the sink of that. `happened` has what happened, in its order."""

    def __init__(self) -> None:
        self.happened: list[Any] = []
        self.error: Exception | None = None
        """What `send` raises."""
        self.answer: Callable[[], object] = int
        """What the app does when the client takes more."""
        self.takes = asyncio.Event()
        self.takes.set()
        self.gone = asyncio.Event()
        self.pump = Pump(self._send, self._receive)
        self.pump.sink = self

    async def _send(self, message: Any) -> None:
        try:
            await self.takes.wait()
        except asyncio.CancelledError:
            await ticks(3)  # as a server may have to
            self.happened.append("cut off")
            raise
        if self.error is not None:
            raise self.error
        self.happened.append(message.get("body", message.get("status")))
        if message.get("more_body") is False:
            self.happened.append("end")

    async def _receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    def on_drain(self) -> None:
        self.happened.append("drain")
        self.answer()

    def on_closed(self) -> None:
        self.happened.append("closed")

    @asynccontextmanager
    async def closing(self) -> AsyncIterator[asyncio.Future[None]]:
        """`closed()` waits; at the end it must be over."""
        closing = asyncio.ensure_future(self.pump.closed())
        await ticks(3)
        yield closing
        await ticks(10)
        assert closing.done()


def test_a_pump_sends_asgi_s_messages() -> None:
    async def story(told: Told) -> None:
        told._receive = asyncio.Event().wait  # type: ignore[assignment,method-assign]  # the client stays
        pump = Pump(told._send, told._receive)
        pump.sink = Host()
        pump.start(200, [(b"x", b"y")])
        assert not pump.write(b"a")
        pump.end()
        await pump.closed()

    told = Told()
    tell(story(told))
    assert told.sent == [
        {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]},
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "body": b"", "more_body": False},
    ]


def test_a_pump_sends_in_order_and_drains_when_all_is_sent() -> None:
    async def story() -> None:
        host = Host()
        async with host.closing():
            host.pump.start(200, [])
            host.pump.write(b"a")
            await ticks(3)
            host.takes.clear()
            host.pump.write(b"b")
            await asyncio.sleep(59)
            host.pump.write(b"c")
            assert host.happened == [200, b"a", "drain"]
            host.takes.set()
            await ticks(5)
            assert host.happened[3:] == [b"b", b"c", "drain"]
            host.pump.end()
        assert host.happened[6:] == [b"", "end", "closed"]

    tell(story())


def test_a_response_that_is_cut_is_over_when_all_that_was_written_is_sent_and_has_no_end() -> None:
    async def story() -> None:
        host = Host()
        host.takes.clear()
        closing = asyncio.ensure_future(host.pump.closed())
        host.pump.start(200, [])
        host.pump.write(b"a")
        host.pump.cut()
        await asyncio.sleep(10)
        assert not closing.done()
        host.takes.set()
        await closing
        assert host.happened == [200, b"a", "closed"]

    tell(story())


def test_a_client_that_takes_nothing_is_given_up() -> None:
    async def story() -> None:
        host = Host()
        closing = asyncio.ensure_future(host.pump.closed())
        host.pump.start(200, [])
        host.takes.clear()
        await asyncio.sleep(59)
        assert not closing.done()
        with pytest.raises(TimeoutError):
            await closing
        assert host.happened[-1] == "closed"

    tell(story())


def test_what_is_written_on_a_drain_is_sent_and_so_is_the_end() -> None:
    async def story() -> None:
        host, pieces = Host(), [b"b", b"c"]
        host.answer = lambda: host.pump.write(pieces.pop(0)) if pieces else host.pump.end()
        async with host.closing():
            host.pump.start(200, [])
        assert host.happened[:6] == [200, "drain", b"b", "drain", b"c", "drain"]
        assert host.happened[6:8] == [b"", "end"]

    tell(story())


@pytest.mark.parametrize("is_stalled", [False, True], ids=["while nothing is sent", "while a message waits"])
def test_a_client_that_goes_ends_the_pump(*, is_stalled: bool) -> None:
    async def story() -> None:
        host = Host()
        async with host.closing() as closing:
            host.pump.start(200, [])
            await ticks(3)
            if is_stalled:
                host.takes.clear()
                host.pump.write(b"a")
                await ticks(3)
            host.gone.set()
        assert closing.result() is None
        assert host.happened == [200, "drain", *(["cut off"] if is_stalled else []), "closed"]

    tell(story())


@pytest.mark.parametrize("pause", range(5))
def test_a_client_that_goes_in_the_moment_of_the_end_is_gone(pause: int) -> None:
    async def story() -> None:
        host = Host()
        async with host.closing() as closing:
            host.pump.start(200, [])
            host.pump.end()
            await ticks(pause)
            host.gone.set()
        assert closing.result() is None
        assert host.happened.count("closed") == 1

    tell(story())


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), TimeoutError("slow"), ZeroDivisionError("a bug")])
def test_what_send_raises_comes_out_of_closed(error: Exception) -> None:
    async def story() -> None:
        host = Host()
        host.error = error
        async with host.closing() as closing:
            host.pump.start(200, [])
        assert closing.exception() is error
        assert host.happened == ["closed"]

    tell(story())


@pytest.mark.parametrize("pause", range(4))
def test_send_may_raise_in_the_moment_in_which_the_client_goes(pause: int) -> None:
    async def story() -> None:
        host = Host()
        async with host.closing() as closing:
            host.takes.clear()
            host.pump.start(200, [])
            await ticks(3)
            host.error = ConnectionResetError("gone")
            host.takes.set()
            await ticks(pause)
            host.gone.set()
        assert closing.exception() in (host.error, None)
        assert host.happened == ["closed"]

    tell(story())


@pytest.mark.parametrize("error", [TimeoutError("a server's own"), ZeroDivisionError("a bug")])
def test_what_receive_raises_comes_out_of_closed_too(error: Exception) -> None:
    async def receive() -> Message:
        raise error

    async def story() -> None:
        host = Host()
        host.pump._receive = receive
        async with host.closing() as closing:
            pass
        assert closing.exception() is error
        assert host.happened == ["closed"]

    tell(story())


@pytest.mark.parametrize("pause", range(4))
def test_an_app_that_is_cancelled_leaves_no_task(pause: int) -> None:
    async def story() -> None:
        host = Host()
        async with host.closing() as closing:
            host.pump.start(200, [])
            host.pump.end() if pause else host.pump.write(b"a")
            await ticks(pause)
            was_done = closing.done()
            closing.cancel()
        assert closing.cancelled() is not was_done
        assert host.happened[-1] == "closed"

    tell(story())


def test_a_pump_whose_body_is_whole_does_not_wait_for_the_client_to_go() -> None:
    async def story() -> None:
        host = Host()
        host.pump.start(200, [])
        host.pump.end()
        async with asyncio.timeout(1):
            await host.pump.closed()
        assert not host.gone.is_set()

    tell(story())


# --- Pages of other origins ------------------------------------------------------------------------------------------

FRIEND = Guard(origins=["https://friend.example"])


def test_an_allowed_page_may_read_the_answer_and_its_head() -> None:
    told = Told(guard=FRIEND, headers={"origin": "https://friend.example"})
    tell(told.exchange.send_whole(200, (), b"{}"))
    assert told.headers["access-control-allow-origin"] == "https://friend.example"
    assert (
        told.headers["access-control-expose-headers"]
        == "x-run-id, request-id, retry-after, ratelimit, ratelimit-policy"
    )
    assert told.headers["vary"] == "origin"


@pytest.mark.parametrize("origin", ["http://localhost", "https://evil.example"])
def test_others_are_told_nothing(origin: str) -> None:
    told = Told(guard=FRIEND, headers={"origin": origin})
    tell(told.exchange.send_whole(200, (), b"{}"))
    assert not any(name.startswith("access-control") for name in told.headers)


def test_a_page_that_asks_first_is_told_what_it_may_send() -> None:
    asked = {"origin": "https://friend.example", "access-control-request-headers": "content-type,x-run-id"}
    told = Told(guard=FRIEND, headers=asked)
    tell(told.exchange.send_preflight("GET, DELETE"))
    assert told.sent[0]["status"] == 204
    assert told.headers["access-control-allow-methods"] == told.headers["allow"] == "GET, DELETE"
    assert told.headers["access-control-allow-headers"] == "content-type,x-run-id"
    assert told.headers["access-control-allow-origin"] == "https://friend.example"


def test_what_is_no_list_of_fields_is_not_repeated() -> None:
    told = Told(guard=FRIEND, headers={"access-control-request-headers": "a\x7fb"})
    tell(told.exchange.send_preflight("GET"))
    assert told.headers["access-control-allow-headers"] == ""
