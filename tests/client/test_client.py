"""rawsse.client.client: from arguments to a request. What was written is read as HTTP by hand."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.answers import ASK, KEY, Connections, Sent, answer, client_of, plain
from support.clock import run, ticks
from support.pools import counts
from support.streams import ANSWER, TOOL_CALL, fold

from rawsse.client.blocking import Client
from rawsse.client.client import AsyncClient
from rawsse.client.exchange import ExchangeObserver
from rawsse.client.network.pool import PoolLimits
from rawsse.client.network.route import Origin
from rawsse.client.request import RequestData
from rawsse.client.retry import RetryPolicy, Timeouts
from rawsse.client.stream import EventStream
from rawsse.errors import (
    APIError,
    APIStatusError,
    BadRequestError,
    BodyTooLargeError,
    ConfigurationError,
    EventDataError,
    EventOrderError,
    HeadTooLargeError,
    RateLimitError,
    StreamCancelledError,
    StreamTruncatedError,
)
from rawsse.http1 import Response
from rawsse.messages import Message
from rawsse.replay.fakes import FakeStream

BASE = "http://api.example"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def sent(arguments: dict[str, Any] | None = None, **options: Any) -> Sent:
    """What `messages.create` writes with these arguments, by a client with these options."""
    connection = FakeStream([answer(ANSWER)])
    run(client_of(connection, **options).messages.create(**{**ASK, **(arguments or {})}))
    return Sent(connection.written)


# --- The request ---------------------------------------------------------------------------------------------------


def test_a_request_has_these_fields_and_no_others() -> None:
    request = sent()
    assert request.line == "POST /v1/messages HTTP/1.1"
    assert sorted(request.fields) == [
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("anthropic-version", "2023-06-01"),
        ("content-length", str(len(request.body))),
        ("content-type", "application/json"),
        ("host", "api.example"),
        ("user-agent", "rawsse"),
        ("x-api-key", KEY),
    ]


def test_the_body_is_compact_json_unescaped_with_what_was_given() -> None:
    request = sent({"messages": [{"role": "user", "content": "Grüße ☺"}], "system": None, "brand_new": {"a": [1]}})
    assert (
        request.body
        == (
            '{"model":"claude-sonnet-5","max_tokens":64,"messages":[{"role":"user","content":"Grüße ☺"}],'
            '"brand_new":{"a":[1]},"stream":true}'
        ).encode()
    )


def test_messages_may_be_any_iterable() -> None:
    turns: Iterator[dict[str, str]] = iter([{"role": "user", "content": "hi"}])
    assert sent({"messages": turns}).json["messages"] == [{"role": "user", "content": "hi"}]


def test_extra_body_wins_but_the_answer_is_streamed_all_the_same() -> None:
    body = sent({"extra_body": {"max_tokens": 5, "timeouts": 7, "stream": False}}).json
    assert (body["max_tokens"], body["timeouts"], body["stream"]) == (5, 7, True)


def test_the_content_of_an_answer_may_be_sent_back_as_it_is() -> None:
    message = fold(TOOL_CALL).message
    assert message is not None
    body = sent({"messages": [{"role": "assistant", "content": message.content}]}).json
    assert body["messages"] == [{"role": "assistant", "content": message.to_dict()["content"]}]


def test_a_path_stands_for_what_the_file_holds_in_base64(tmp_path: Path) -> None:
    image = tmp_path / "logo.png"
    image.write_bytes(b"\x89PNG")
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": image}}
    body = sent({"messages": [{"role": "user", "content": [block]}]}).json
    assert body["messages"][0]["content"][0]["source"]["data"] == "iVBORw=="


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Path("not/there.png"), "No such file or directory: 'not/there.png'"),
        (math.nan, "Out of range float values are not JSON compliant"),
        (object(), "is not a JSON value"),
        ({1, 2}, "'{1, 2}' is not a JSON value"),
        (b"x", "is not a JSON value"),
    ],
)
def test_what_cannot_be_json_is_refused_before_connecting(value: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match="the request cannot be written as JSON: .*" + text):
        client_of().messages.stream(**ASK, metadata=value)


def test_half_a_surrogate_pair_is_sent_as_a_replacement_character() -> None:
    body = json.loads(sent({"system": "a\ud800", "metadata": {"user_id": "\ud83d\ude00"}}).body)
    assert (body["system"], body["metadata"]) == ("a\ufffd", {"user_id": "\N{GRINNING FACE}"})


def test_a_request_within_itself_is_refused() -> None:
    turns: list[Any] = []
    turns.append(turns)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for endless in (turns, deep):
        with pytest.raises(ConfigurationError, match="the request cannot be written as JSON: "):
            client_of().messages.stream(**ASK, extra_body={"metadata": endless})


# --- Header fields -------------------------------------------------------------------------------------------------


def test_fields_of_the_client_go_with_every_request_and_fields_of_the_call_win() -> None:
    options = {"default_headers": {"X-Team": "a", "User-Agent": "mine", "anthropic-version": "2026-10-21"}}
    request = sent({"extra_headers": {"x-team": "b"}}, **options)
    assert (request["x-team"], request["user-agent"], request["anthropic-version"]) == ("b", "mine", "2026-10-21")


def test_betas_are_joined_into_their_field() -> None:
    assert sent({"betas": ["a-1", "b-2"]})["anthropic-beta"] == "a-1,b-2"
    assert "anthropic-beta" not in sent({"betas": []})


def test_a_field_of_the_caller_s_own_wins_over_betas() -> None:
    request = sent({"betas": ["a-1"], "extra_headers": {"Anthropic-Beta": "mine"}})
    assert request["anthropic-beta"] == "mine"


def test_betas_of_the_call_win_over_the_client_s_field() -> None:
    assert sent({"betas": ["a-1"]}, default_headers={"anthropic-beta": "z"})["anthropic-beta"] == "a-1"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("x-note", "a\nb", "the header field 'x-note' has a character that HTTP does not allow"),
        ("x-note", "grün", "the header field 'x-note' has a character that HTTP does not allow"),
        ("x-note", 7, "the header field 'x-note' must be a string, not int"),
        ("x-note", None, "the header field 'x-note' must be a string, not NoneType"),
    ],
)
def test_a_field_that_http_does_not_allow_is_named(name: str, value: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        client_of().messages.stream(**ASK, extra_headers={name: value})


def test_ids_of_workspace_and_profile_are_header_fields() -> None:
    request = sent({"workspace_id": "wrk_1", "user_profile_id": "up_1"})
    assert (request["anthropic-workspace-id"], request["anthropic-user-profile-id"]) == ("wrk_1", "up_1")
    assert request.json.keys() == {*ASK, "stream"}


def test_an_extra_query_goes_into_the_url() -> None:
    request = sent({"extra_query": {"beta": True, "a b": ["1", 2], "none": None}})
    assert request.line == "POST /v1/messages?beta=true&a%20b%5B%5D=1&a%20b%5B%5D=2 HTTP/1.1"


def test_an_extra_query_that_is_no_query_is_named() -> None:
    with pytest.raises(ConfigurationError, match="the query parameter 'a' may not be"):
        client_of().messages.stream(**ASK, extra_query={"a": {}})


def test_none_is_left_out_but_in_an_extra_body_it_is_null() -> None:
    assert sent({"system": None, "extra_body": {"metadata": None}}).json == {**ASK, "stream": True, "metadata": None}


def test_what_gives_its_items_only_once_is_a_list_and_a_date_is_its_text() -> None:
    tools = ({"name": name} for name in "ab")
    request = sent({"tools": tools, "metadata": {"day": datetime.date(2026, 1, 2)}})
    assert (request.json["tools"], request.json["metadata"]) == ([{"name": "a"}, {"name": "b"}], {"day": "2026-01-02"})


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding"])
def test_a_field_that_would_break_the_request_is_refused(name: str) -> None:
    text = f"the header field {name.lower()!r} is written by rawsse itself"
    with pytest.raises(ConfigurationError, match=text):
        client_of().messages.stream(**ASK, extra_headers={name: "99"})
    with pytest.raises(ConfigurationError, match=text):
        client_of(default_headers={name: "99"})


@pytest.mark.parametrize("name", ["bad name", "", "a:b", "grün"])
def test_a_name_that_http_does_not_allow_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"not the name of a header field: {name!r}"):
        client_of().messages.stream(**ASK, extra_headers={name: "99"})


# --- Keys ----------------------------------------------------------------------------------------------------------


def credential(request: Sent) -> dict[str, str]:
    return {name: request[name] for name in ("x-api-key", "authorization") if name in request}


@pytest.mark.parametrize(
    ("options", "environment", "fields"),
    [
        ({"api_key": "k"}, {}, {"x-api-key": "k"}),
        ({"api_key": " k\n"}, {}, {"x-api-key": "k"}),
        ({"auth_token": "t"}, {}, {"authorization": "Bearer t"}),
        ({"auth_token": "t"}, {"ANTHROPIC_API_KEY": "k"}, {"authorization": "Bearer t"}),
        ({}, {"ANTHROPIC_API_KEY": "k"}, {"x-api-key": "k"}),
        ({}, {"ANTHROPIC_AUTH_TOKEN": "t\n"}, {"authorization": "Bearer t"}),
        ({}, {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_AUTH_TOKEN": "t"}, {"x-api-key": "k"}),
        ({}, {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "t"}, {"authorization": "Bearer t"}),
        ({"api_key": "k"}, {"ANTHROPIC_API_KEY": "other"}, {"x-api-key": "k"}),
        ({"api_key": "k", "default_headers": {"X-Api-Key": "mine"}}, {}, {"x-api-key": "mine"}),
        ({"api_key": "k", "default_headers": {"Authorization": "Basic x"}}, {}, {"authorization": "Basic x"}),
        ({"default_headers": {"Authorization": "Basic x"}}, {}, {"authorization": "Basic x"}),
    ],
)
def test_exactly_one_credential_goes_with_a_request(
    options: dict[str, Any], environment: dict[str, str], fields: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert credential(sent(**{"api_key": None, **options})) == fields


@pytest.mark.parametrize("api_key", [None, "", "  \n"])
def test_without_a_key_the_request_is_refused_and_says_what_to_do(api_key: str | None) -> None:
    client = client_of(api_key=api_key)
    assert not client.has_credential
    with pytest.raises(
        ConfigurationError, match="no key: set the environment variable ANTHROPIC_API_KEY, or give api_key"
    ):
        client.messages.stream(**ASK)


def test_a_key_and_a_token_together_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="give api_key or auth_token, not both") as caught:
        AsyncClient(api_key="k", auth_token="t")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "key", ["sk-canary\nx", "sk-canary\r", "sk-canary é", "sk-canary\0", "sk-canary\u2028z", "sk-canary\x7f."]
)
def test_a_malformed_key_is_refused_without_being_told(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sent(api_key=key + ".")
    assert "x-api-key" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_key_is_written_once_and_is_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    connection = FakeStream([answer(ANSWER[:3])])
    client = client_of(connection)

    async def story() -> str:
        stream = client.messages.stream(**ASK)
        with pytest.raises(StreamTruncatedError) as caught:
            async with stream:
                await stream.until_done()
        error = caught.value
        found = [client, client.messages, stream, stream.response, stream.headers, stream.ending, stream.timing, error]
        seen = [repr(thing) + str(thing) for thing in found]
        return "".join([*seen, repr(vars(error)), repr(vars(stream._call))])

    assert KEY not in run(story()) + caplog.text
    assert bytes(connection.written).count(KEY.encode()) == 1


def test_the_client_s_repr_says_where_it_talks_to_and_whether_it_has_a_key() -> None:
    assert repr(client_of()) == "<AsyncClient for http://api.example, with a key>"
    assert repr(AsyncClient(base_url="https://h/x/")) == "<AsyncClient for https://h/x, without a key>"


# --- Where to ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "origin", "target", "host"),
    [
        ("https://api.example", Origin("https", "api.example", 443), "/v1/messages", "api.example"),
        ("https://api.example/", Origin("https", "api.example", 443), "/v1/messages", "api.example"),
        (
            "http://api.example:8000/pre/fix/",
            Origin("http", "api.example", 8000),
            "/pre/fix/v1/messages",
            "api.example:8000",
        ),
        ("http://127.0.0.1:1", Origin("http", "127.0.0.1", 1), "/v1/messages", "127.0.0.1:1"),
        ("http://[::1]:8000/x", Origin("http", "::1", 8000), "/x/v1/messages", "[::1]:8000"),
        ("HTTPS://API.Example", Origin("https", "api.example", 443), "/v1/messages", "api.example"),
        ("http://bücher.example", Origin("http", "xn--bcher-kva.example", 80), "/v1/messages", "xn--bcher-kva.example"),
        ("http://api.example:0", Origin("http", "api.example", 0), "/v1/messages", "api.example:0"),
        ("http://h/a%20b/@c", Origin("http", "h", 80), "/a%20b/@c/v1/messages", "h"),
    ],
)
def test_the_base_url_says_where_to(url: str, origin: Origin, target: str, host: str) -> None:
    connection = FakeStream([answer(ANSWER)])
    connect = Connections(connection)
    run(client_of(base_url=url, connect=connect).messages.create(**ASK))
    request = Sent(connection.written)
    assert (connect.origins, request.line, request["host"]) == ([origin], f"POST {target} HTTP/1.1", host)


def test_the_base_url_comes_from_the_environment_if_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert AsyncClient().base_url == "https://api.anthropic.com"
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://proxy.example")
    assert AsyncClient().base_url == "http://proxy.example"
    assert AsyncClient(base_url="http://mine.example").base_url == "http://mine.example"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("api.example", r"the base URL must begin with http:// or https:// and a host: 'api\.example'"),
        ("ftp://api.example", "the base URL must begin with http:// or https:// and a host"),
        ("http://", "the base URL must begin with http:// or https:// and a host"),
        ("http://h:99999", r"the base URL is not valid \(Port out of range 0-65535\): 'http://h:99999'"),
        ("http://h:x", "the base URL is not valid"),
        ("http://[::1", r"the base URL is not valid \(Invalid IPv6 URL\)"),
        ("http://ü" + "x" * 70, "the base URL is not valid"),
        ("http://h/a b", "the base URL has a character that must be %-encoded: 'http://h/a b'"),
        ("http://h/ü", "the base URL has a character that must be %-encoded"),
        ("http://a b", "the base URL has a character that must be %-encoded"),
        ("http://h?x=1", r"the base URL may not have a user name \(@\), a query \(\?\) or a fragment \(#\)"),
        ("http://h/#x", "the base URL may not have"),
        ("http://user:canary@h", "the base URL may not have"),
        ("http://user:canary@h:x", "the base URL may not have"),
    ],
)
def test_a_base_url_that_cannot_work_is_refused_at_once(url: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text) as caught:
        AsyncClient(base_url=url)
    assert "canary" not in str(caught.value)


async def create_events(client: AsyncClient) -> None:
    async for _ in await client.messages.create(**ASK, stream=True):
        pass


def failure_of(url: str, wire: bytes, call: Callable[[AsyncClient], Any]) -> APIError:
    client = client_of(wire, base_url=url, max_retries=0)
    with pytest.raises(APIError) as caught:
        run(call(client))
    assert str(caught.value) == caught.value.message
    return caught.value


CALLS: list[Callable[[AsyncClient], Any]] = [
    lambda client: client.messages.create(**ASK),
    create_events,
    lambda client: client.messages.count_tokens(model="m", messages=[]),
    lambda client: client.models.retrieve("m"),
]


@pytest.mark.parametrize("call", CALLS, ids=["create", "stream", "count_tokens", "models"])
@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "400 No", "403 No", "410 No", "501 No"])
def test_a_base_url_that_has_the_version_too_is_named_when_nothing_is_there(status: str, call: Any) -> None:
    error = failure_of(BASE + "/v1", plain(b"<h1>Not here</h1>", status), call)
    assert "base_url ends in /v1: leave that out" in str(error)


@pytest.mark.parametrize("path", ["/v1/", "/pre/fix/v1", "/v1/messages", "/V1", "/V1/Messages/", "/v1/models"])
@pytest.mark.parametrize("status", ["404 Not Found", "200 OK"])
def test_it_is_named_however_it_is_written(path: str, status: str) -> None:
    error = failure_of(BASE + path, plain(b"<h1>Not here</h1>", status, content_type="text/html"), CALLS[0])
    assert "base_url ends in /v1: leave that out" in str(error)


@pytest.mark.parametrize("call", CALLS[1:3], ids=["stream", "count_tokens"])
@pytest.mark.parametrize("kind", ["text/html", "application/json", "text/event-stream", "application/xhtml+xml"])
@pytest.mark.parametrize("body", [b"<html><title>Welcome</title>", b'{"error":"no such route"}', b""])
def test_it_is_named_when_another_page_is_there(kind: str, body: bytes, call: Any) -> None:
    error = failure_of(BASE + "/v1", plain(body, content_type=kind), call)
    assert str(error).count("base_url ends in /v1: leave that out") == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [("", "404 No"), ("/v1/account/anthropic", "404 No"), ("/v10", "404 No"), ("/v1", "401 No"), ("/v1", "500 No")],
)
def test_another_base_url_or_failure_is_not_blamed_on_the_version(path: str, status: str) -> None:
    assert "base_url" not in str(failure_of(BASE + path, plain(b"<h1>No</h1>", status), CALLS[0]))


def test_nor_is_a_stream_that_had_begun() -> None:
    failed = {"type": "error", "error": {"type": "api_error", "message": "No."}}
    for wire in (answer(ANSWER[:4]), answer([*ANSWER[:4], failed]), answer([failed])):
        assert "base_url" not in str(failure_of(BASE + "/v1", wire, CALLS[0]))


# --- The calls -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["create", "stream", "parse", "tool_runner"])
def test_an_argument_that_is_missing_is_told_with_the_method_that_was_called(name: str) -> None:
    options: dict[str, Any] = {"output_format": dict} if name == "parse" else {}
    messages = client_of().messages
    with Client(api_key=KEY) as client:
        blocking = client.messages
    for kind, calls in (("AsyncMessages", messages), ("Messages", blocking)):
        for each in (calls, calls.with_raw_response, calls.with_streaming_response):
            with pytest.raises(TypeError, match=rf"^{kind}\.{name}\(\) missing .*'max_tokens'"):
                getattr(each, name)(model="m", messages=[], **options)


def test_what_a_blocking_object_lacks_is_told_in_its_own_name() -> None:
    with Client(api_key=KEY) as client:
        stream = client.messages.stream(**ASK)
        given: Any
        for given in (client, client.messages, client.models, stream):
            with pytest.raises(AttributeError, match=rf"^'{type(given).__name__}' object has no attribute 'nothing'$"):
                _ = given.nothing
        with pytest.raises(AttributeError, match=r"'Messages' has no attribute 'nothing'"):
            client.messages.with_raw_response.nothing()


def test_without_asyncio_the_error_says_that_there_must_be_one() -> None:
    with pytest.raises(RuntimeError, match=r"AsyncClient needs asyncio \(it does not run on trio\)"):
        client_of(answer(ANSWER)).messages.create(**ASK).send(None)


def test_create_gives_the_whole_message() -> None:
    message = run(client_of(answer(TOOL_CALL)).messages.create(**ASK))
    assert type(message) is Message
    whole = fold(TOOL_CALL).message
    assert (message, message.request_id) == (whole, "req_1")


def test_create_raises_what_was_cut_with_what_came() -> None:
    with pytest.raises(StreamTruncatedError) as caught:
        run(client_of(answer(ANSWER[:4])).messages.create(**ASK))
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hel"


def test_create_may_give_the_events() -> None:
    async def story() -> list[str]:
        events = await client_of(answer(ANSWER)).messages.create(**ASK, stream=True)
        assert type(events) is EventStream
        assert events.response.status == 200
        return [event.type async for event in events]

    assert run(story()) == [raw["type"] for raw in ANSWER]


def test_create_with_stream_raises_a_refusal_at_once() -> None:
    with pytest.raises(BadRequestError, match="400 invalid_request_error: No"):
        run(client_of(REFUSAL).messages.create(**ASK, stream=True))


REFUSAL = plain(b'{"error": {"type": "invalid_request_error", "message": "No."}}', "400 Bad", request_id="req_7")


def test_events_of_a_body_that_is_given_whole() -> None:
    connection = FakeStream([answer(ANSWER)])
    client = client_of(connection)

    async def story() -> list[str]:
        async with client.messages.events({"anything": 1, "stream": False}, headers={"X-A": "b"}) as events:
            return [event.type async for event in events]

    assert run(story())[-1] == "message_stop"
    request = Sent(connection.written)
    assert (request.json, request["x-a"]) == ({"anything": 1, "stream": True}, "b")


@pytest.mark.parametrize(
    ("client", "call", "strict"),
    [(True, None, True), (False, None, False), (True, False, False), (False, True, True)],
)
def test_events_may_be_read_as_strictly_as_the_call_says(client: bool, call: bool | None, strict: bool) -> None:
    async def story() -> str:
        out_of_order = answer([ANSWER[0], *ANSWER])  # two beginnings
        async with client_of(out_of_order, strict=client).messages.events({}, strict=call) as events:
            return [event.type async for event in events][-1]

    if strict:
        with pytest.raises(EventOrderError):
            run(story())
    else:
        assert run(story()) == "message_stop"


def test_count_tokens_gives_the_object() -> None:
    connection = FakeStream([plain(b'{"input_tokens": 12, "new": 1}')])
    client = client_of(connection)
    arguments = {"model": "m", "messages": ASK["messages"], "betas": ["b"], "system": "s"}
    count = run(client.messages.count_tokens(**arguments, extra_body={"x": 1}, extra_headers={"X-A": "b"}))
    assert (count.input_tokens, count["new"]) == (12, 1)
    request = Sent(connection.written)
    assert request.line == "POST /v1/messages/count_tokens HTTP/1.1"
    assert request.json == {"model": "m", "messages": ASK["messages"], "system": "s", "x": 1}
    assert (request["anthropic-beta"], request["x-a"]) == ("b", "b")
    opened, idle, _ = counts(client._pools)
    assert opened == idle


@pytest.mark.parametrize(
    ("data", "cls", "text", "retry"),
    [
        (
            plain(b'{"error": {"type": "rate_limit_error", "message": "No."}}', "429 No"),
            RateLimitError,
            "429 rate",
            True,
        ),
        (plain(b"<html>", request_id="req_5"), EventDataError, "the answer is not a JSON object: b'<html>'", False),
    ],
)
def test_count_tokens_raises_as_streams_do(data: bytes, cls: type[Exception], text: str, retry: bool) -> None:
    client = client_of(data)
    with pytest.raises(cls, match=text) as caught:
        run(client.messages.count_tokens(model="m", messages=[]))
    error: Any = caught.value
    assert (error.safe_to_retry, error.phase) == (retry, "open")
    assert error.request_id == (None if retry else "req_5")
    opened, idle, _ = counts(client._pools)
    assert opened == idle


def test_a_refusal_tells_its_request_id() -> None:
    with pytest.raises(APIStatusError) as caught:
        run(client_of(REFUSAL).messages.create(**ASK))
    assert caught.value.request_id == "req_7"


# --- Settings ------------------------------------------------------------------------------------------------------


def test_limits_and_clocks_of_the_client_hold_for_its_calls() -> None:
    with pytest.raises(HeadTooLargeError, match=r"max_head_bytes \(20\)"):
        run(client_of(answer(ANSWER), max_head_bytes=20).messages.create(**ASK))
    with pytest.raises(Exception, match="no response head within 3 s"):
        run(client_of(FakeStream(end=None), timeouts=Timeouts(head=3)).messages.create(**ASK))
    with pytest.raises(BodyTooLargeError, match=r"max_json_bytes \(8388608\)"):
        run(client_of(plain(b"x" * 9_000_000)).messages.count_tokens(model="m", messages=[]))


def test_clocks_of_a_call_win() -> None:
    client = client_of(FakeStream(end=None), FakeStream(end=None), timeouts=Timeouts(head=3))
    with pytest.raises(Exception, match="no response head within 2 s"):
        run(client.messages.create(**ASK, timeouts=Timeouts(head=2)))
    with pytest.raises(Exception, match="no response head within 1 s"):
        run(client.messages.count_tokens(model="m", messages=[], timeouts=Timeouts(head=1)))


def test_closing_the_client_ends_open_streams_and_allows_no_further_calls() -> None:
    async def story() -> None:
        connection = FakeStream([answer(ANSWER)[:-40]], end=None)
        async with client_of(connection) as client:
            stream = client.messages.stream(**ASK)
            await stream.__aenter__()
            reading = asyncio.create_task(stream.get_final_text())
            await ticks(3)
        with pytest.raises(StreamCancelledError, match="the stream was closed before its end"):
            await reading
        assert connection.is_aborted
        with pytest.raises(RuntimeError, match="the client is closed"):
            client.messages.stream(**ASK)

    run(story())


# --- Observers -----------------------------------------------------------------------------------------------------


class Watch:
    """Writes down what it is told, less the bytes; of an error, its class."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, request: RequestData, clock: Callable[[], float]) -> ExchangeObserver:
        self.told.append((request.target, clock()))
        return self

    def sent(self) -> None:
        self.told.append("sent")

    def head(self, response: Response) -> None:
        self.told.append(response.status)

    def read(self, data: bytes) -> None: ...

    def end(self, error: APIError | None) -> None:
        self.told.append(type(error).__name__)

    def flush(self) -> None:
        self.told.append("flush")


def told_of(*streams: FakeStream | bytes, **options: Any) -> list[Any]:
    watch = Watch()

    async def story() -> None:
        async with client_of(*streams, recorder=watch, chance=lambda: 0.0, **options) as client:
            with contextlib.suppress(APIError):
                await client.messages.create(**ASK)

    run(story())
    return watch.told


PATH = "/v1/messages"


def test_an_observer_sees_every_attempt_and_that_the_client_is_closed() -> None:
    refused = plain(b"", "529 Overloaded", connection="close")
    assert told_of(refused, answer(ANSWER), max_retries=1) == [
        *((PATH, 1000.0), "sent", 529, "NoneType"),
        *((PATH, 1000.5), "sent", 200, "NoneType"),
        "flush",
    ]


def test_an_observer_sees_what_is_wrong_with_the_events() -> None:
    wrong = answer([*ANSWER[:2], ANSWER[-1], *ANSWER[2:]]).removesuffix(b"0\r\n\r\n")
    assert told_of(wrong)[-2:] == ["EventOrderError", "flush"]


def test_an_observer_sees_that_the_caller_has_left() -> None:
    watch = Watch()

    async def story() -> None:
        client = client_of(FakeStream([answer(ANSWER)[:-40]], end=None), recorder=watch)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await client.messages.create(**ASK)

    run(story())
    assert watch.told == [(PATH, 1000.0), "sent", 200, "StreamCancelledError"]


def test_a_proxy_of_another_type_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"^proxy must be a Proxy, not int$"):
        AsyncClient(api_key="x", proxy=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"timeouts": Timeouts(silence=0)}, "timeouts: silence must be a number of seconds above 0, or None, not 0"),
        ({"max_retries": -1}, "retries: max_retries must be a whole number of 0 or more, not -1"),
        ({"retry_policy": RetryPolicy(max_delay=-1)}, "retries: max_delay must be a number of seconds of 0 or more"),
        ({"limits": PoolLimits(max_idle=-1)}, "pool limits: max_idle must be a whole number, 0 or more, not -1"),
    ],
)
def test_clocks_retries_and_limits_are_checked_when_a_client_gets_them(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        AsyncClient(api_key=KEY, **options)
    if "limits" not in options:
        with pytest.raises(ConfigurationError, match=text):
            AsyncClient(api_key=KEY).with_options(**options)
    if options.keys() & {"timeouts", "max_retries"}:
        with pytest.raises(ConfigurationError, match=text):
            AsyncClient(api_key=KEY).messages.stream(**ASK, **options)


@pytest.mark.parametrize("name", ["default_headers", "timeouts", "retry_policy"])
@pytest.mark.parametrize("wrong", [f"x-api-key: {KEY}", [KEY], 5])
def test_an_option_of_the_wrong_type_is_refused_without_being_shown(name: str, wrong: object) -> None:
    given: dict[str, Any] = {name: wrong}
    for make in (AsyncClient, AsyncClient(api_key=KEY).with_options):
        with pytest.raises(ConfigurationError, match=rf"^{name} must be a \w+, not (str|list|int)$"):
            make(**given)


def test_a_client_is_imported_without_what_only_some_programs_need() -> None:
    needed = "import asyncio, ssl, sys; before = set(sys.modules)"
    code = f"{needed}; from rawsse import AsyncClient; print(*(sys.modules.keys() - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"dataclasses", "datetime", "email", "ipaddress", "random", "urllib.parse", "pydantic"} & {*loaded} == set()
    assert "h11" not in loaded
