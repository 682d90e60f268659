"""rawsse.relay.exchange: bodies that are taken and refused, errors in JSON, and what pages of other origins are told."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from support.clock import run

from rawsse.relay import Guard
from rawsse.relay.dialects import InvalidRequest
from rawsse.relay.exchange import MAX_NESTING, Answer, Exchange

JSON = {"content-type": "application/json"}
T = TypeVar("T")
Message = dict[str, Any]


class Told:
    """What a server would be told by an exchange, and the exchange."""

    def __init__(self, *incoming: bytes | None, limit: int = 100, guard: Guard | None = None, **scope: Any) -> None:
        self.sent: list[Message] = []
        self._incoming = list(incoming)
        headers = {"host": "localhost", **scope.pop("headers", JSON)}
        scope["headers"] = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        scope["headers"] += scope.pop("more_headers", [])
        self.exchange = Exchange(
            {"type": "http", "method": "POST", "path": "/", **scope},
            self._receive,
            self._send,
            guard or Guard(),
            max_body_bytes=limit,
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
    return run(Told(*pieces, **options).exchange.read_json())


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
        b'{"a": "\\ud83d"}',
        b'{"\\udc00": 1}',
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    status, words = refused(body)
    assert status == 400
    assert words.startswith("body: is no JSON: ")


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


def test_a_body_of_just_the_limit_is_taken() -> None:
    assert read(b"{}" + b" " * 98) == {}


@pytest.mark.parametrize("pieces", [(b" " * 101,), (b" " * 60, b" " * 41), (b" " * 101, b" ")])
def test_a_larger_body_is_refused_as_soon_as_it_is(pieces: tuple[bytes, ...]) -> None:
    assert refused(*pieces) == (413, "body: is larger than 100 bytes")


def test_a_client_that_goes_in_the_middle_of_its_body_is_gone() -> None:
    with pytest.raises(ConnectionResetError, match=r"^the client went in the middle of its request$"):
        read(b"{", None)


def test_waiting_for_the_client_to_go_takes_whatever_it_still_sends() -> None:
    told = Told(b"x", b"y", None)
    tell(told.exchange.until_gone())
    assert told._incoming == []


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
    assert Told(query_string=b"after=a%2D1&after=2&x").exchange.query == {"after": ["a-1", "2"]}


# --- Answers -------------------------------------------------------------------------------------------------------


def test_an_answer_says_what_was_wrong_and_with_which_field() -> None:
    told = Told()
    tell(told.exchange.send_answer(Answer.of(InvalidRequest("prompt", "is empty"))))
    assert told.sent[0]["status"] == 400
    assert told.headers == {"content-type": "application/json", "content-length": str(len(told.sent[1]["body"]))}
    assert json.loads(told.sent[1]["body"]) == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "prompt: is empty", "field": "prompt"},
    }


def test_a_request_that_is_too_large_has_its_own_type() -> None:
    body = json.loads(Answer.of(InvalidRequest("prompt", "is longer", 413)).body)
    assert body["error"]["type"] == "request_too_large"


def test_an_answer_need_not_name_a_field() -> None:
    answer = Answer(404, "not_found_error", "nothing here", headers={"allow": "GET"})
    assert json.loads(answer.body)["error"] == {"type": "not_found_error", "message": "nothing here"}
    assert answer.headers == (("allow", "GET"),)


def test_an_answer_without_content_has_no_length() -> None:
    told = Told()
    tell(told.exchange.send_whole(204))
    assert [message.get("headers", message.get("body")) for message in told.sent] == [[], b""]


def test_the_pieces_of_a_body_follow_its_head() -> None:
    async def story(told: Told) -> None:
        await told.exchange.start(200, [("x", "y")])
        await told.exchange.send_piece(b"a")
        await told.exchange.end()

    told = Told()
    tell(story(told))
    assert told.sent == [
        {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]},
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "body": b"", "more_body": False},
    ]


# --- Pages of other origins ------------------------------------------------------------------------------------------

FRIEND = Guard(origins=["https://friend.example"])


def test_an_allowed_page_may_read_the_answer_and_its_head() -> None:
    told = Told(guard=FRIEND, headers={"origin": "https://friend.example"})
    tell(told.exchange.send_json(b"{}"))
    assert told.headers["access-control-allow-origin"] == "https://friend.example"
    assert told.headers["access-control-expose-headers"] == "x-run-id, request-id, retry-after"
    assert told.headers["vary"] == "origin"


@pytest.mark.parametrize("origin", ["http://localhost", "https://evil.example"])
def test_others_are_told_nothing(origin: str) -> None:
    told = Told(guard=FRIEND, headers={"origin": origin})
    tell(told.exchange.send_json(b"{}"))
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
