"""rawsse.relay.app: the routes. What streams do in time is in `test_app_streams.py`, their bytes in `test_app_bytes.py`, and
real servers in `test_app_hosts.py`."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from support.clock import run
from support.sampling import one_in
from support.streams import ANSWER, STOP, Raw, block, block_start, end, start, text_delta, to_bytes

from rawsse.errors import ConfigurationError
from rawsse.relay import Guard, Relay, RunLimits, User
from rawsse.relay.dialects import Answer
from rawsse.relay.follow import SSE_HEADERS

from .stage import CHAT, HEAD, KEY, WHOLE, Browser, Stage, ask, error_json, error_of, frames, relay

USER = {"role": "user", "content": "Hi"}
MESSAGES: Raw = {"model": "claude-x", "max_tokens": 9, "messages": [USER]}
UI: Raw = {"id": "chat-1", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}], "trigger": "x"}
TEXT_PATHS = ("/chat/stream", "/api/chat/stream", "/stream")
CHAT_PATHS = (*TEXT_PATHS, "/api/chat")
EVENTS = {"accept": "text/event-stream"}
"""Of clients of `/api/chat` other than `useChat`."""
RUN_ID = "a-run-that-the-client-named"


def refusal(status: int, body: bytes, *fields: str) -> bytes:
    """The API says no."""
    head = "\r\n".join([f"HTTP/1.1 {status} No", f"content-length: {len(body)}", *fields])
    return head.encode() + b"\r\n\r\n" + body


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded", "details": {"x": 1}}}
SAYS_NO = refusal(529, json.dumps(OVERLOADED).encode(), "retry-after: 3", "request-id: req_9", "set-cookie: a=b")

# --- Streams -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TEXT_PATHS)
@pytest.mark.parametrize("body", [CHAT, {"prompt": "Why?"}, {"messages": [USER]}])
def test_text_for_whoever_wants_nothing_else(path: str, body: Raw) -> None:
    assert ask("POST", path, body).data == ['{"text":"Hel"}', '{"text":"lo \\u263a"}', "[DONE]"]


@pytest.mark.parametrize("body", [CHAT, {"messages": [USER]}])
def test_the_events_of_the_api_and_an_end_mark(body: Raw) -> None:
    browser = ask("POST", "/api/chat", body)
    assert [frame.event for frame in browser.frames] == [raw["type"] for raw in ANSWER] + ["message"]
    assert [json.loads(data) for data in browser.data[:-1]] == ANSWER
    assert browser.data[-1] == "[DONE]"


@pytest.mark.parametrize("body", [UI, {"id": "c", "message": UI["messages"][0]}])
def test_the_stream_of_use_chat(body: Raw) -> None:
    browser = ask("POST", "/api/chat", body)
    kinds = [json.loads(data)["type"] for data in browser.data[:-1]]
    assert (kinds[0], kinds[-1], browser.data[-1]) == ("start", "finish", "[DONE]")
    assert browser.headers["x-vercel-ai-ui-message-stream"] == "v1"


def test_the_messages_api_itself() -> None:
    browser = ask("POST", "/v1/messages", {**MESSAGES, "stream": True})
    assert browser.body == to_bytes(ANSWER)
    assert "x-run-id" not in browser.headers


def test_the_path_of_older_sdks_with_its_query_is_the_same() -> None:
    assert ask("POST", "/v1/messages", {**MESSAGES, "stream": True}, query="beta=true").body == to_bytes(ANSWER)


@pytest.mark.parametrize("stream", [{}, {"stream": False}])
def test_the_messages_api_without_stream(stream: Raw) -> None:
    browser = ask("POST", "/v1/messages", {**MESSAGES, **stream})
    assert (browser.status, browser.json["content"]) == (200, [{"type": "text", "text": "Hello ☺"}])
    assert (browser.headers["content-type"], browser.headers["request-id"]) == ("application/json", "req_1")
    assert browser.calls[0].json["stream"] is True


@pytest.mark.parametrize("path", CHAT_PATHS)
def test_a_stream_is_for_now_and_for_this_reader_alone(path: str) -> None:
    browser = ask("POST", path, CHAT)
    assert browser.status == 200
    assert browser.headers.items() >= dict(SSE_HEADERS).items()
    assert browser.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert browser.headers["cache-control"] == "no-store, no-transform"
    assert len(browser.headers["x-run-id"]) >= 16


def test_of_the_apis_head_only_what_concerns_a_client_is_passed_on() -> None:
    passed = b"request-id: req_1\r\nretry-after: 1\r\nanthropic-ratelimit-tokens-remaining: 5\r\nanthropic-workspace-id: w\r\n"
    kept = b"set-cookie: a=b\r\nserver: x\r\nanthropic-organization-id: secret\r\n"
    api = WHOLE.replace(b"request-id: req_1\r\n", passed + kept)
    browser = ask("POST", "/stream", CHAT, api=api)
    ours = {name for name, _ in SSE_HEADERS} | {"x-run-id"}
    assert browser.headers.keys() - ours == {
        *("request-id", "retry-after", "anthropic-ratelimit-tokens-remaining", "anthropic-workspace-id")
    }


# --- What goes to the API ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CHAT_PATHS)
def test_a_prompt_becomes_a_request_with_the_relays_model_and_length(path: str) -> None:
    (api,) = ask("POST", path, CHAT, model="claude-y", max_tokens=77).calls
    assert api.json == {
        "model": "claude-y",
        "max_tokens": 77,
        "messages": [{"role": "user", "content": "Why is the sky blue?"}],
        "stream": True,
    }


def test_a_client_of_the_api_chooses_for_itself() -> None:
    (api,) = ask("POST", "/v1/messages", {**MESSAGES, "stream": True, "temperature": 0.5, "new": [1]}).calls
    assert api.json == {**MESSAGES, "stream": True, "temperature": 0.5, "new": [1]}


@pytest.mark.parametrize(("path", "body"), [("/stream", CHAT), ("/v1/messages", MESSAGES)])
def test_the_clients_own_credentials_never_reach_the_api(path: str, body: Raw) -> None:
    headers = {"authorization": "Bearer mine", "x-api-key": "mine", "cookie": "a=b", "anthropic-beta": "b-1,b-2"}
    guard = Guard(tokens=["mine"])
    (api,) = ask("POST", path, body, headers={**headers, "anthropic-version": "2099-01-01"}, guard=guard).calls
    assert b"mine" not in api.sent
    assert api.headers["x-api-key"] == KEY
    assert api.headers.keys().isdisjoint({"authorization", "cookie", "origin"})
    assert (api.headers["anthropic-version"], api.headers["anthropic-beta"]) == ("2099-01-01", "b-1,b-2")


@pytest.mark.parametrize("name", ["workspace", "user-profile"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        *(("/stream", CHAT), ("/api/chat", UI), ("/v1/messages", MESSAGES), ("/v1/messages/count_tokens", MESSAGES)),
        ("/v1/messages", {**MESSAGES, "stream": True}),
    ],
)
def test_whom_a_request_is_for_reaches_the_api(path: str, body: Raw, name: str) -> None:
    (api,) = ask("POST", path, body, headers={f"anthropic-{name}-id": "id_1"}).calls
    assert api.headers[f"anthropic-{name}-id"] == "id_1"


@pytest.mark.parametrize("path", ["/stream", "/v1/messages", "/v1/messages/count_tokens"])
def test_a_field_that_cannot_be_passed_on_is_refused(path: str) -> None:
    body = CHAT if path == "/stream" else MESSAGES
    browser = ask("POST", path, body, headers={"anthropic-beta": "b\u00e9ta"})
    assert error_of(browser) == (400, "invalid_request_error", "anthropic-beta")
    assert browser.calls == []


def test_tokens_are_counted() -> None:
    answer = refusal(200, b'{"input_tokens": 14}')
    browser = ask("POST", "/v1/messages/count_tokens", {"messages": [USER], "system": "s"}, api=answer, model="m")
    assert browser.json == {"input_tokens": 14}
    assert browser.calls[0].json == {"model": "m", "messages": [USER], "system": "s"}
    assert browser.calls[0].sent.startswith(b"POST /v1/messages/count_tokens ")


# RFC 8259, 6: JSON has no infinite numbers. `parse_constant` sees the words that Python writes for them.
@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/messages", HEAD + to_bytes([start(new=float("inf")), *ANSWER[1:]])),
        ("/v1/messages", refusal(529, json.dumps({**OVERLOADED, "new": float("inf")}).encode())),
        ("/v1/messages/count_tokens", refusal(200, b'{"input_tokens": 14, "new": 1e999}')),
    ],
    ids=["answer", "error", "count"],
)
def test_a_number_that_json_does_not_have_becomes_null(path: str, api: bytes) -> None:
    body = ask("POST", path, MESSAGES, api=api).body
    assert json.loads(body, parse_constant=lambda word: pytest.fail(word)).get("new", "absent") is None


# --- Requests that are refused ---------------------------------------------------------------------------------------

ALL_POSTS = (*CHAT_PATHS, "/v1/messages", "/v1/messages/count_tokens")


@pytest.mark.parametrize("path", ALL_POSTS)
@pytest.mark.parametrize(
    ("body", "status", "kind", "field"),
    [
        (b"{", 400, "invalid_request_error", "body"),
        (b"[1]", 400, "invalid_request_error", "body"),
        (b'{"messages": ' + b"[" * 300 + b"]" * 300 + b"}", 400, "invalid_request_error", "body"),
        ({"messages": []}, 400, "invalid_request_error", "messages"),
        ({"messages": 7}, 400, "invalid_request_error", "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "invalid_request_error", "messages.0.role"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "invalid_request_error", "messages.0.content"),
        ({"messages": [{"role": "user"}]}, 400, "invalid_request_error", "messages.0.content"),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "invalid_request_error", "messages.0.content"),
        ({"messages": [USER], "max_tokens": "many"}, 400, "invalid_request_error", "max_tokens"),
        (b'{"prompt": "' + b"x" * 1000 + b'"}', 413, "request_too_large", "body"),
    ],
    ids=[
        *("broken", "no object", "nested", "no messages", "no list", "role"),
        *("empty", "missing", "no text", "max_tokens", "large"),
    ],
)
def test_a_wrong_request_is_refused_and_costs_nothing(path: str, body: Any, status: int, kind: str, field: str) -> None:
    browser = ask("POST", path, body, headers=EVENTS, max_prompt_chars=50, max_chat_bytes=1000, max_body_bytes=1000)
    assert error_of(browser) == (status, kind, field)
    assert browser.calls == []


@pytest.mark.parametrize(
    ("path", "name", "given", "megabytes"),
    [
        ("/stream", "max_chat_bytes", {"prompt": "x" * 100}, 8),
        # https://docs.anthropic.com/en/api/overview: "Messages API: 32 MB"
        ("/v1/messages", "max_body_bytes", MESSAGES, 32),
    ],
)
def test_a_browsers_request_may_have_8_mb_and_one_of_the_api_32(
    path: str, name: str, given: Raw, megabytes: int
) -> None:
    limit = inspect.signature(Relay).parameters[name].default
    assert limit == megabytes * 1024 * 1024
    limit //= one_in(64)  # the plain suite tries a smaller one
    options: Any = {name: limit} if one_in(64) > 1 else {}
    wire = json.dumps({**given, "filler": "y" * (limit - 200)}).encode()
    wire += b" " * (limit - len(wire))
    assert ask("POST", path, wire, api=WHOLE, **options).status == 200
    assert error_of(ask("POST", path, wire + b" ", **options)) == (413, "request_too_large", "body")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        *((path, "max_chat_bytes") for path in CHAT_PATHS),
        ("/v1/messages", "max_body_bytes"),
        ("/v1/messages/count_tokens", "max_body_bytes"),
    ],
)
def test_the_limit_of_a_body_is_an_argument(path: str, name: str) -> None:
    options: Any = {name: 1000}
    wire = json.dumps({**MESSAGES, "filler": "y" * 500}).encode()
    assert ask("POST", path, wire, **options).status != 413
    wire = json.dumps({**MESSAGES, "filler": "y" * 1000}).encode()
    assert error_of(ask("POST", path, wire, headers=EVENTS, **options)) == (413, "request_too_large", "body")


LONG = {"messages": [{"role": "user", "content": "x" * 51}]}


@pytest.mark.parametrize("path", CHAT_PATHS)
def test_a_prompt_that_is_too_long_is_refused(path: str) -> None:
    browser = ask("POST", path, LONG, max_prompt_chars=50)
    assert error_of(browser) == (413, "request_too_large", "messages.0.content")
    assert browser.calls == []


def test_how_long_a_text_for_the_api_may_be_is_the_api_s_business() -> None:
    answer = refusal(200, b'{"input_tokens": 14}')
    assert ask("POST", "/v1/messages/count_tokens", LONG, api=answer, max_prompt_chars=50).status == 200


@pytest.mark.parametrize("path", ALL_POSTS)
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_a_foreign_form_could_send_is_refused(path: str, kind: str) -> None:
    browser = ask("POST", path, b'{"prompt": "Hi"}', headers={"content-type": kind, **EVENTS})
    assert error_of(browser) == (415, "invalid_request_error", "content-type")


@pytest.mark.parametrize("prompt", [None, "", " \n", 7, ["x"]])
@pytest.mark.parametrize("path", CHAT_PATHS)
def test_a_prompt_that_is_none_is_refused(path: str, prompt: object) -> None:
    browser = ask("POST", path, {"message": prompt})
    assert error_of(browser) == (400, "invalid_request_error", "message")


def test_a_request_of_use_chat_without_anything_to_answer_is_refused() -> None:
    browser = ask("POST", "/api/chat", {"id": "c", "messages": [], "trigger": "submit-message"})
    assert error_of(browser) == (400, "", "messages")


# --- Other paths and methods -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/messages", "POST"),
        ("PUT", "/v1/messages/count_tokens", "POST"),
        ("GET", "/api/chat", "POST"),
        ("GET", "/stream", "POST"),
        ("DELETE", "/chat/stream", "POST"),
        ("POST", "/runs/some-run", "GET, DELETE"),
        ("HEAD", "/runs/some-run", "GET, DELETE"),
        ("POST", "/api/chat/c/stream", "GET"),
        ("POST", "/", "GET, HEAD"),
        ("PUT", "/rawsse.js", "GET, HEAD"),
    ],
)
def test_another_method_is_refused_and_told_which_are_taken(method: str, path: str, allowed: str) -> None:
    browser = ask(method, path, headers=EVENTS)
    assert browser.status == 405
    assert f"{path} does not take {method}" in browser.body.decode()
    assert browser.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("POST", "/nothing"),
        ("GET", "/api/chat/"),
        ("GET", "/api/chat//stream"),
        ("GET", "/../relay/app.py"),
        ("GET", "/%2e%2e/relay/app.py"),
        ("GET", "/.env"),
    ],
)
def test_what_is_not_there_is_not_there(method: str, path: str) -> None:
    browser = ask(method, path)
    assert error_json(browser) == (404, "not_found_error", None)
    assert browser.json["error"]["message"] == f"there is no {path}"


@pytest.mark.parametrize("path", ["/", "/rawsse.js", "/style.css"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_page_is_there(path: str, method: str) -> None:
    browser = ask(method, path)
    assert browser.status == 200
    assert "content-security-policy" in browser.headers


def test_a_page_of_ones_own_is_served_instead(tmp_path: Path) -> None:
    (tmp_path / "50%.txt").write_text("half")
    browser = ask("GET", "/50%.txt", static=tmp_path)
    assert (browser.body, browser.headers["content-type"]) == (b"half", "text/plain; charset=utf-8")
    assert ask("GET", "/page.js", static=tmp_path).status == 404
    assert ask("GET", "/rawsse.js", static=tmp_path).body == (files("rawsse") / "web" / "rawsse.js").read_bytes()


def test_an_empty_folder_switches_the_page_off(tmp_path: Path) -> None:
    assert [ask("GET", path, static=tmp_path).status for path in ("/", "/style.css", "/rawsse.js")] == [404, 404, 200]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_probe_is_read_and_nothing_else(method: str, path: str) -> None:
    browser = ask(method, path)
    assert error_json(browser) == (405, "invalid_request_error", None)
    assert browser.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("host", ["localhost", "10.1.2.3:8000", "anything"])
def test_whoever_asks_is_told_that_it_lives(method: str, host: str) -> None:
    browser = ask(method, "/healthz", headers={"host": host}, guard=Guard(tokens=["t"]))
    assert (browser.status, browser.body) == (200, b"ok\n")


def test_a_mounted_relay_is_found_below_its_mount() -> None:
    assert ask("POST", "/claude/stream", CHAT, root_path="/claude").data[-1] == "[DONE]"
    assert ask("GET", "/claude", root_path="/claude").status == 200


def test_a_websocket_is_none_of_its_business() -> None:
    with pytest.raises(ValueError, match=r"^the relay does not support the ASGI scope 'websocket'$"):
        run(Relay(Stage().client)({"type": "websocket"}, None, None))  # type: ignore[arg-type]


def test_heartbeats_need_time() -> None:
    with pytest.raises(ConfigurationError, match=r"^heartbeat_seconds must be above 0, not 0$"):
        Relay(Stage().client, heartbeat_seconds=0)


# --- Who may come in -------------------------------------------------------------------------------------------------

EVERY = [("POST", path) for path in ALL_POSTS] + [
    ("GET", "/runs/x"),
    ("DELETE", "/runs/x"),
    ("GET", "/api/chat/c/stream"),
]


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_without_a_token_nothing_but_the_page_is_there(method: str, path: str) -> None:
    browser = ask(method, path, CHAT, guard=Guard(tokens=["t0ken"]))
    assert browser.status == 401
    assert (browser.headers["www-authenticate"], browser.calls) == ("Bearer", [])
    assert ask("GET", "/", guard=Guard(tokens=["t0ken"])).status == 200


@pytest.mark.parametrize("headers", [{"authorization": "Bearer t0ken"}, {"x-api-key": "t0ken"}])
def test_with_a_token_it_is(headers: dict[str, str]) -> None:
    assert ask("POST", "/stream", CHAT, headers=headers, guard=Guard(tokens=["t0ken"])).status == 200


@pytest.mark.parametrize(("method", "path"), [*EVERY, ("GET", "/"), ("OPTIONS", "/stream")])
def test_by_another_name_it_does_not_answer(method: str, path: str) -> None:
    browser = ask(method, path, CHAT, headers={"host": "evil.example"})
    assert (browser.status, browser.calls) == (421, [])


@pytest.mark.parametrize(("method", "path"), [*EVERY, ("GET", "/"), ("OPTIONS", "/stream")])
def test_a_page_elsewhere_is_turned_away(method: str, path: str) -> None:
    browser = ask(method, path, CHAT, headers={"origin": "https://evil.example"})
    assert (browser.status, browser.calls) == (403, [])
    assert "access-control-allow-origin" not in browser.headers


REFUSED: list[tuple[int, str, dict[str, Any]]] = [
    (401, "authentication_error", {"guard": Guard(tokens=["t0ken"])}),
    (403, "permission_error", {"headers": {"origin": "https://evil.example"}}),
    (421, "invalid_request_error", {"headers": {"host": "evil.example"}}),
]


async def to_another_plan(request: Raw, user: User | None) -> None:
    raise Answer(402, "billing_error", "the relay is for those who pay")


async def to_nothing(request: Raw, user: User | None) -> Any:
    return 5


WRONG: list[tuple[int, str, dict[str, Any]]] = [
    (400, "invalid_request_error", {"body": b"{"}),
    (400, "invalid_request_error", {"headers": {"x-run-id": "short"}}),
    (402, "billing_error", {"on_request": to_another_plan}),
    (405, "invalid_request_error", {"method": "PUT"}),
    (413, "request_too_large", {"max_chat_bytes": 9}),
    (415, "invalid_request_error", {"headers": {"content-type": "text/plain"}}),
    (500, "api_error", {"on_request": to_nothing}),
    (503, "overloaded_error", {"limits": RunLimits(max_runs=0)}),
]


def ask_wrongly(path: str, request: Raw, **options: Any) -> Browser:
    return ask(options.pop("method", "POST"), path, options.pop("body", request), **options)


@pytest.mark.parametrize(("status", "kind", "options"), [*REFUSED, *WRONG])
@pytest.mark.parametrize("path", ["/chat/stream", "/api/chat/stream", "/stream"])
def test_a_client_of_text_is_refused_in_frames(path: str, status: int, kind: str, options: dict[str, Any]) -> None:
    browser = ask_wrongly(path, CHAT, **options)
    assert (browser.status, browser.headers["content-type"]) == (status, "text/event-stream; charset=utf-8")
    error, done = browser.data
    assert (json.loads(error)["type"], done) == (kind, "[DONE]")


@pytest.mark.parametrize(("status", "kind", "options"), [*REFUSED, *WRONG])
def test_a_client_of_events_is_refused_in_frames(status: int, kind: str, options: dict[str, Any]) -> None:
    # As `fetchEventSource` and rawsse.js do; the body, which would tell the dialect, is that of a stranger.
    headers = {"accept": "text/event-stream"} | options.get("headers", {})
    browser = ask_wrongly("/api/chat", CHAT, **{**options, "headers": headers})
    assert (browser.status, browser.headers["content-type"]) == (status, "text/event-stream; charset=utf-8")
    error, done = browser.frames
    assert (error.event, json.loads(error.data)["error"]["type"], done.data) == ("error", kind, "[DONE]")


@pytest.mark.parametrize(("status", "kind", "options"), [*REFUSED, *WRONG])
@pytest.mark.parametrize("accept", [{}, {"accept": "*/*"}])
def test_use_chat_shows_why_it_is_refused(
    accept: dict[str, str], status: int, kind: str, options: dict[str, Any]
) -> None:
    del kind
    browser = ask_wrongly("/api/chat", UI, **{**options, "headers": accept | options.get("headers", {})})
    assert (browser.status, browser.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert re.fullmatch("[^{}]+", browser.body.decode())


@pytest.mark.parametrize(("status", "kind", "options"), [*REFUSED, (405, "", {"method": "POST"})])
def test_use_chat_shows_why_it_may_not_resume(status: int, kind: str, options: dict[str, Any]) -> None:
    del kind
    browser = ask_wrongly("/api/chat/c/stream", {}, **{"method": "GET", **options})
    assert (browser.status, browser.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert re.fullmatch("[^{}]+", browser.body.decode())


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_once_the_body_is_read_it_tells_the_form_of_a_refusal(accept: str) -> None:
    fields: dict[str, Any] = {"headers": {"accept": accept}}
    assert error_of(ask("POST", "/api/chat", {"messages": [USER], "system": "Be bad."}, **fields))[1:] == (
        "invalid_request_error",
        "system",
    )
    assert error_of(ask("POST", "/api/chat", {**UI, "system": "Be bad."}, **fields)) == (400, "", "system")


@pytest.mark.parametrize(("status", "kind", "options"), REFUSED)
@pytest.mark.parametrize(
    ("method", "path"),
    [*EVERY[-3:-1], *(("POST", path) for path in ALL_POSTS if path.startswith("/v1")), ("GET", "/me")],
)
def test_other_clients_are_refused_as_the_api_does(
    method: str, path: str, status: int, kind: str, options: dict[str, Any]
) -> None:
    assert error_json(ask(method, path, MESSAGES, **options)) == (status, kind, None)


def test_an_allowed_page_asks_first_and_then_reads() -> None:
    friend, guard = {"origin": "https://friend.example"}, Guard(origins=["https://friend.example"], tokens=["t"])
    first = ask(
        "OPTIONS", "/runs/x", headers={**friend, "access-control-request-headers": "authorization"}, guard=guard
    )
    assert (first.status, first.headers["access-control-allow-methods"]) == (204, "GET, DELETE")
    then = ask("POST", "/stream", CHAT, headers={**friend, "authorization": "Bearer t"}, guard=guard)
    assert then.headers["access-control-allow-origin"] == "https://friend.example"
    refused = ask("POST", "/stream", CHAT, headers=friend, guard=guard)  # and may read why
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://friend.example")


# --- Refusals of the API ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "wanted"),
    [
        ("/stream", CHAT, 529, ['{"error":"Overloaded","type":"overloaded_error"}', "[DONE]"]),
        # `useChat` shows the body of any other status as it is, frames and all.
        ("/api/chat", UI, 200, ['{"type":"error","errorText":"Overloaded"}', "[DONE]"]),
    ],
    ids=["text", "ui"],
)
@pytest.mark.parametrize("api", [SAYS_NO, HEAD + to_bytes([OVERLOADED])], ids=["status", "event"])
def test_a_refusal_keeps_its_status_and_is_already_a_frame(
    path: str, body: Raw, status: int, wanted: list[str], api: bytes
) -> None:
    browser = ask("POST", path, body, api=api)
    assert (browser.status, browser.data) == (status, wanted)
    assert browser.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_in_the_events_dialect_it_is_an_error_event_with_its_ending() -> None:
    browser = ask("POST", "/api/chat", CHAT, api=SAYS_NO)
    assert [frame.event for frame in browser.frames] == ["error", "message"]
    assert browser.status == 529
    said = json.loads(browser.data[0])
    assert (said["error"]["message"], said["ending"]["kind"], said["request_id"]) == ("Overloaded", "error", "req_9")
    assert (browser.headers["retry-after"], browser.headers["request-id"]) == ("3", "req_9")


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_of_the_api_gets_the_apis_own_words(path: str, *, stream: bool) -> None:
    browser = ask("POST", path, {**MESSAGES, "stream": stream}, api=SAYS_NO)
    assert (browser.status, browser.json) == (529, OVERLOADED)
    assert browser.headers.keys() == {"content-type", "content-length", "retry-after", "request-id"}


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_event_before_all_others_is_a_refusal_too(*, stream: bool) -> None:
    api = HEAD + to_bytes([OVERLOADED])
    browser = ask("POST", "/v1/messages", {**MESSAGES, "stream": stream}, api=api)
    assert (browser.status, browser.json) == (529, OVERLOADED)


@pytest.mark.parametrize("stream", [True, False])
def test_a_refusal_that_is_no_json_is_put_into_words(*, stream: bool) -> None:
    browser = ask("POST", "/v1/messages", {**MESSAGES, "stream": stream}, api=refusal(502, b"<html>"))
    assert error_json(browser) == (502, "api_error", None)
    assert browser.json["error"]["message"] == "status 502: the body is not JSON: '<html>'"


@pytest.mark.parametrize(
    "body",
    [b'{"detail":"No key"}', b'{"message":"No key"}', b'{"error":"No key"}', b'["No key"]', b"<title>No key</title>"],
)
@pytest.mark.parametrize(("path", "asked"), [("/stream", CHAT), ("/api/chat", CHAT), ("/api/chat", UI)])
def test_the_words_of_a_gateway_are_told_whatever_their_form(path: str, asked: Raw, body: bytes) -> None:
    browser = ask("POST", path, asked, api=refusal(401, body))
    assert "No key" in browser.data[0]


@pytest.mark.parametrize("stream", [True, False])
def test_half_a_surrogate_pair_is_no_obstacle(*, stream: bool) -> None:
    api = HEAD + to_bytes([start(), *block(0, {"type": "text", "text": ""}, text_delta(0, "<>")), end(), STOP])
    browser = ask("POST", "/v1/messages", {**MESSAGES, "stream": stream}, api=api.replace(b"<>", b"\\ud83d"))
    assert browser.status == 200
    if not stream:
        assert browser.json["content"] == [{"type": "text", "text": "\ufffd"}]


def test_a_whole_message_of_the_api_is_an_answer_to_a_client_that_wants_no_stream() -> None:
    message: Raw = {"type": "message", "content": [], "stop_reason": "end_turn", "stop_sequence": None, "usage": {}}
    api = refusal(200, json.dumps(message).encode(), "content-type: application/json")
    browser = ask("POST", "/v1/messages", MESSAGES, api=api)
    assert (browser.status, browser.json) == (200, message)


def test_a_whole_answer_that_breaks_off_is_an_error() -> None:
    api = WHOLE[: WHOLE.index(b"event: message_delta")]
    assert error_json(ask("POST", "/v1/messages", MESSAGES, api=api)) == (502, "api_error", None)


@pytest.mark.parametrize(("path", "body"), [("/stream", CHAT), ("/v1/messages", {**MESSAGES, "stream": True})])
def test_a_redirect_of_the_api_is_an_error_to_the_browser(path: str, body: Raw) -> None:
    assert ask("POST", path, body, api=refusal(302, b"", "location: http://10.0.0.7/")).status == 502


# --- Runs: named by their client --------------------------------------------------------------------------------------


def in_one_relay(story: Callable[[Stage], Any], *script: bytes, **options: Any) -> None:
    async def play() -> None:
        async with relay(*script, **options) as stage:
            await story(stage)

    run(play())


@pytest.mark.parametrize(("path", "body"), [("/stream", CHAT), ("/api/chat", CHAT), ("/api/chat", UI)])
def test_a_request_that_is_repeated_joins_its_run(path: str, body: Raw) -> None:
    async def story(stage: Stage) -> None:
        headers = {"x-run-id": RUN_ID}
        first = stage.ask("POST", path, body, headers=headers)
        second = stage.ask("POST", path, body, headers=headers)
        await first.done()
        await second.done()
        third = await stage.ask("POST", path, body, headers=headers).done()
        assert first.body == second.body == third.body
        assert first.headers["x-run-id"] == RUN_ID
        assert len(stage.calls) == 1

    in_one_relay(story, WHOLE)


def test_a_refused_request_that_is_repeated_is_refused_alike() -> None:
    async def story(stage: Stage) -> None:
        for _ in range(2):
            browser = await stage.ask("POST", "/stream", CHAT, headers={"x-run-id": RUN_ID}).done()
            assert browser.status == 529
        assert len(stage.calls) == 1

    in_one_relay(story, SAYS_NO)


@pytest.mark.parametrize("wrong", ["", "short", "x" * 65, "sixteen or more!", "a" * 15 + "/", "a" * 15 + "\u00e9"])
def test_a_name_that_could_be_guessed_or_read_wrong_is_refused(wrong: str) -> None:
    browser = ask("POST", "/stream", CHAT, headers={"x-run-id": wrong})
    assert error_of(browser) == (400, "invalid_request_error", "x-run-id")
    assert browser.calls == []


def test_a_name_cannot_be_shared_by_two_dialects() -> None:
    async def story(stage: Stage) -> None:
        headers = {"x-run-id": RUN_ID}
        await stage.ask("POST", "/stream", CHAT, headers=headers).done()
        other = await stage.ask("POST", "/api/chat", CHAT, headers=headers).done()
        assert error_of(other) == (409, "conflict_error", "x-run-id")
        assert "x-run-id: belongs to another request" in other.data[0]

    in_one_relay(story, WHOLE)


def test_a_name_cannot_be_shared_by_two_requests() -> None:
    async def story(stage: Stage) -> None:
        headers = {"x-run-id": RUN_ID}
        await stage.ask("POST", "/stream", {"message": "one"}, headers=headers).done()
        other = await stage.ask("POST", "/stream", {"message": "two"}, headers=headers).done()
        assert error_of(other) == (409, "conflict_error", "x-run-id")
        assert len(stage.calls) == 1

    in_one_relay(story, WHOLE)


def test_a_client_of_the_api_cannot_join_anything() -> None:
    async def story(stage: Stage) -> None:
        headers, body = {"x-run-id": RUN_ID}, {**MESSAGES, "stream": True}
        browsers = [stage.ask("POST", "/v1/messages", body, headers=headers) for _ in range(2)]
        assert [(await browser.done()).body for browser in browsers] == [to_bytes(ANSWER)] * 2
        assert len(stage.calls) == 2

    in_one_relay(story, WHOLE, WHOLE)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_nobody_else_can_read_or_stop_the_stream_of_a_client_of_the_api(method: str) -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", "/v1/messages", {**MESSAGES, "stream": True})
        await stage.call()
        (id,) = stage.relay._runs._runs
        assert (await stage.ask(method, f"/runs/{id}").done()).status == 404
        browser.leave()

    in_one_relay(story)


def test_above_max_runs_a_browser_is_asked_to_come_later() -> None:
    async def story(stage: Stage) -> None:
        first = stage.ask("POST", "/stream", CHAT)
        await stage.call()
        second = await stage.ask("POST", "/stream", CHAT).done()
        assert (second.status, second.headers["retry-after"]) == (503, "5")
        assert second.data == ['{"error":"1 runs are not finished","type":"overloaded_error"}', "[DONE]"]
        first.leave()

    in_one_relay(story, limits=RunLimits(max_runs=1, grace_seconds=0))


def test_after_the_end_a_browser_is_asked_to_come_later() -> None:
    async def story(stage: Stage) -> None:
        await stage.relay.aclose()
        browser = await stage.ask("POST", "/stream", CHAT).done()
        assert browser.status == 503
        assert browser.data == ['{"error":"the server is shutting down","type":"overloaded_error"}', "[DONE]"]

    in_one_relay(story)


# --- Runs: read again -------------------------------------------------------------------------------------------------


async def finished(stage: Stage, path: str = "/api/chat", body: Raw = CHAT) -> tuple[Browser, str]:
    browser = await stage.ask("POST", path, body).done()
    return browser, f"/runs/{browser.headers['x-run-id']}"


@pytest.mark.parametrize(("path", "body"), [("/stream", CHAT), ("/api/chat", CHAT), ("/api/chat", UI)])
def test_a_run_is_read_on_from_every_frame(path: str, body: Raw) -> None:
    async def story(stage: Stage) -> None:
        first, run_path = await finished(stage, path, body)
        pieces = [piece + b"\n\n" for piece in first.body.split(b"\n\n")[:-1]]
        for after, frame in enumerate(first.frames[:-1], 1):
            by_header = await stage.ask("GET", run_path, headers={"last-event-id": frame.id}).done()
            by_query = await stage.ask("GET", run_path, query=f"after={after}").done()
            assert by_header.body == by_query.body == b"".join(pieces[after:])
            assert (by_header.status, by_header.headers.keys()) == (200, first.headers.keys())

    in_one_relay(story, WHOLE)


def test_an_event_source_reads_a_run_from_its_beginning_and_is_then_told_to_stop() -> None:
    async def story(stage: Stage) -> None:
        first, run_path = await finished(stage)
        whole = await stage.ask("GET", run_path, headers={"accept": "text/event-stream"}).done()
        assert whole.body == first.body
        again = await stage.ask("GET", run_path, headers={"last-event-id": first.frames[-1].id}).done()
        assert (again.status, again.body) == (204, b"")

    in_one_relay(story, WHOLE)


def test_the_newer_word_of_an_event_source_counts() -> None:
    async def story(stage: Stage) -> None:
        first, run_path = await finished(stage)
        last = first.frames[-2].id
        browser = await stage.ask("GET", run_path, query="after=1", headers={"last-event-id": last}).done()
        assert browser.data == ["[DONE]"]

    in_one_relay(story, WHOLE)


def test_a_refusal_is_a_frame_that_an_event_source_can_read() -> None:
    async def story(stage: Stage) -> None:
        first, run_path = await finished(stage, "/stream")
        again = await stage.ask("GET", run_path).done()
        assert (first.status, again.status) == (529, 200)
        assert again.body == first.body

    in_one_relay(story, SAYS_NO)


@pytest.mark.parametrize("wanted", ["other-1", "x", "-1", "1e3", "\u00b2"])
def test_the_id_of_another_run_is_refused(wanted: str) -> None:
    async def story(stage: Stage) -> None:
        _, run_path = await finished(stage)
        browser = await stage.ask("GET", run_path, headers={"last-event-id": wanted}).done()
        assert error_json(browser) == (400, "invalid_request_error", "Last-Event-ID")

    in_one_relay(story, WHOLE)


def test_frames_that_are_no_longer_kept_are_gone() -> None:
    async def story(stage: Stage) -> None:
        _, run_path = await finished(stage)
        browser = await stage.ask("GET", run_path).done()
        assert error_json(browser) == (410, "not_found_error", None)
        assert browser.json["error"]["message"].startswith("frames before ")

    in_one_relay(story, WHOLE, limits=RunLimits(max_log_bytes=100))


def test_a_request_that_is_repeated_when_the_beginning_of_its_run_is_forgotten_is_refused() -> None:
    async def story() -> None:
        async with relay(limits=RunLimits(max_log_bytes=100)) as stage:
            named = {"x-run-id": "a-name-of-the-clients"}
            first = stage.ask("POST", "/stream", CHAT, headers=named)
            (await stage.call()).send(
                start(), block_start(0, {"type": "text", "text": ""}), *[text_delta(0, "x" * 50)] * 9
            )
            await asyncio.sleep(1)
            again = await stage.ask("POST", "/stream", CHAT, headers=named).done()
            assert error_of(again) == (410, "not_found_error", None)
            first.leave()

    run(story())


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("id", ["", "unknown-run-of-nobody", "a/b"])
def test_a_run_that_nobody_knows_is_not_there(method: str, id: str) -> None:
    browser = ask(method, f"/runs/{id}")
    assert error_json(browser) == (404, "not_found_error", None)
    assert browser.json["error"]["message"] == "there is no such run; it may have been forgotten"


def test_the_function_that_an_embedder_writes_is_shown_as_it_is_written() -> None:
    """`pydoc` cuts the alias that the signature names."""
    assert "`async def on_request(request, user)`" in (inspect.getdoc(Relay) or "")


# --- Runs: stopped ----------------------------------------------------------------------------------------------------

STOPPED = ['{"error":"stopped","type":"cancelled"}', "[DONE]"]


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_run_is_stopped_before_its_first_byte_and_between_events(*, has_begun: bool) -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", "/stream", CHAT, headers={"x-run-id": RUN_ID})
        api = await stage.call()
        if has_begun:
            api.send(start(), block_start(0, {"type": "text", "text": ""}), text_delta(0, "Hi"))
            assert await browser.read()
        stop = await stage.ask("DELETE", f"/runs/{RUN_ID}").done()
        await browser.done()
        assert (stop.status, browser.status, api.is_closed) == (204, 200, True)
        assert browser.data == (['{"text":"Hi"}', *STOPPED] if has_begun else STOPPED)

    in_one_relay(story)


def test_a_run_is_stopped_while_its_reader_is_slow() -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", "/stream", CHAT, headers={"x-run-id": RUN_ID})
        api = await stage.call()
        browser.stall()
        api.send(start(), block_start(0, {"type": "text", "text": ""}), text_delta(0, "Hi"))
        await browser.head()
        await stage.ask("DELETE", f"/runs/{RUN_ID}").done()
        assert api.is_closed
        browser.go_on()
        await browser.done()
        assert browser.data == ['{"text":"Hi"}', *STOPPED]

    in_one_relay(story)


def test_stopping_twice_or_after_the_end_is_as_good_as_once() -> None:
    async def story(stage: Stage) -> None:
        first, run_path = await finished(stage)
        for _ in range(2):
            assert (await stage.ask("DELETE", run_path).done()).status == 204
        assert (await stage.ask("GET", run_path).done()).body == first.body

    in_one_relay(story, WHOLE)


# --- Chats of the UI dialect -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chat", ["chat-1", "a/b", "\u00e4 \u00f6", "50%25", "%41", "x/stream"])
def test_a_chat_that_goes_on_is_replayed_from_its_start(chat: str) -> None:
    async def story(stage: Stage) -> None:
        first = stage.ask("POST", "/api/chat", {**UI, "id": chat})
        api = await stage.call()
        api.send(*ANSWER[:4])
        await first.read()
        # An ASGI server has decoded the path; so an id with a percent sign looks like this.
        again = stage.ask("GET", f"/api/chat/{chat}/stream")
        assert json.loads(frames(await again.read())[0].data)["type"] == "start"
        api.send(*ANSWER[4:])
        await first.done()
        await again.done()
        assert first.body == again.body
        assert again.headers["x-vercel-ai-ui-message-stream"] == "v1"
        over = await stage.ask("GET", f"/api/chat/{chat}/stream").done()
        assert (over.status, over.body) == (204, b"")

    in_one_relay(story)


def test_a_chat_that_nobody_knows_has_nothing_to_resume() -> None:
    assert ask("GET", "/api/chat/unknown/stream").status == 204


def test_a_chat_whose_beginning_is_no_longer_kept_has_nothing_to_resume() -> None:
    async def story(stage: Stage) -> None:
        first = stage.ask("POST", "/api/chat", UI)
        api = await stage.call()
        api.send(*ANSWER[:5])
        await first.read()
        assert (await stage.ask("GET", "/api/chat/chat-1/stream").done()).status == 204
        first.leave()

    in_one_relay(story, limits=RunLimits(max_log_bytes=100, grace_seconds=0))


# --- Models -----------------------------------------------------------------------------------------------------------

MODELS = ("claude-a", "claude-b", "claude-c")


def listed(query: str = "", **options: Any) -> Raw:
    browser = ask("GET", "/v1/models", query=query, model="claude-a", models=MODELS[1:], **options)
    assert (browser.status, browser.calls) == (200, [])
    return {**browser.json, "data": [model["id"] for model in browser.json["data"]]}


def test_the_models_are_listed_as_the_api_lists_them() -> None:
    pytest.importorskip("anthropic")
    from anthropic.types import ModelInfo

    browser = ask("GET", "/v1/models", model="claude-a", models=MODELS)
    for model in browser.json["data"]:
        assert ModelInfo.model_validate(model).to_dict().items() >= {"id": model["id"], "type": "model"}.items()
    assert listed() == {"data": [*MODELS], "has_more": False, "first_id": "claude-a", "last_id": "claude-c"}
    one = ask("GET", "/v1/models/claude-b", model="claude-a", models=MODELS)
    assert one.json == browser.json["data"][1]


def test_without_a_list_the_relays_own_model_is_listed() -> None:
    assert [model["id"] for model in ask("GET", "/v1/models", model="claude-y").json["data"]] == ["claude-y"]


def test_all_models_are_on_one_page() -> None:
    """So nobody asks for another: a client follows `has_more`."""
    assert listed("limit=1&after_id=claude-b") == listed()


def test_a_model_that_is_not_allowed_is_not_there() -> None:
    assert error_json(ask("GET", "/v1/models/claude-z", models=MODELS)) == (404, "not_found_error", None)


def test_the_models_are_for_those_who_may_use_them() -> None:
    assert ask("GET", "/v1/models", guard=Guard(tokens=["t0ken"])).status == 401
    assert ask("POST", "/v1/models", MESSAGES).status == 405


@pytest.mark.parametrize("path", ALL_POSTS)
def test_another_model_than_those_allowed_is_refused(path: str) -> None:
    body = {**MESSAGES, "model": "claude-z"}
    browser = ask("POST", path, body, model="claude-a", models=["claude-b"])
    assert error_of(browser) == (400, "invalid_request_error", "model")
    assert browser.calls == []
    api = refusal(200, b'{"input_tokens": 14}') if path.endswith("count_tokens") else WHOLE
    for model in ("claude-a", "claude-b"):
        assert ask("POST", path, {**body, "model": model}, api=api, model="claude-a", models=["claude-b"]).status == 200


# --- The log ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", [WHOLE, SAYS_NO, WHOLE[:-40]])
@pytest.mark.parametrize(("path", "body"), [("/stream", CHAT), ("/v1/messages", {**MESSAGES, "stream": True})])
def test_the_log_has_one_line_and_no_secret(path: str, body: Raw, api: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "rawsse")
    body = {**body, "messages": [{"role": "user", "content": "the-secret-prompt"}]}
    body.pop("message", None)
    ask("POST", path, body, api=api, headers={"x-api-key": "t0ken"}, guard=Guard(tokens=["t0ken"]))
    (line,) = [record.getMessage() for record in caplog.records]
    assert " ended: " in line
    for secret in ("the-secret-prompt", KEY, "t0ken"):
        assert secret not in line


NOTHING = "model claude-x, 0 tokens in, 0 out, 0.0 s, request"
ASKED = "model claude-x, about 24 tokens in, 0 out"  # a request of 93 to 96 bytes


@pytest.mark.parametrize(
    ("api", "line"),
    [
        (WHOLE, "complete, the answer is whole, model claude-sonnet-5, 10 tokens in, 7 out, 0.0 s, request req_1"),
        (SAYS_NO, f"error, 529 overloaded_error: Overloaded, {NOTHING} req_9"),
        (b"", f"truncated, api.test closed the connection without an answer, {ASKED}, 0.0 s, request None"),
        (
            HEAD + to_bytes(ANSWER[:-2]),
            (
                "truncated, the body ended before message_stop, model claude-sonnet-5, 10 tokens in, about 3 out, 0.0 s, "
                "request req_1"
            ),
        ),
    ],
    ids=["whole", "refused", "no answer", "cut"],
)
def test_a_call_without_stream_makes_a_line(api: bytes, line: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rawsse.relay")
    ask("POST", "/v1/messages", MESSAGES, api=api)
    (record,) = caplog.records
    assert re.fullmatch(rf"run \S+ \(messages\) ended: {re.escape(line)}", record.getMessage())
    assert (record.levelno == logging.INFO) is (api is WHOLE)


@pytest.mark.parametrize("body", [{**MESSAGES, "stream": True}, MESSAGES])
def test_the_tokens_in_the_log_are_those_of_the_cache_too(body: Raw, caplog: pytest.LogCaptureFixture) -> None:
    # https://docs.anthropic.com/en/api/messages: "Total input tokens in a request is the summation of `input_tokens`,
    # `cache_creation_input_tokens`, and `cache_read_input_tokens`."
    beginning = start()
    beginning["message"]["usage"] = {
        "input_tokens": 1,
        "cache_read_input_tokens": 20,
        "output_tokens": 1,
        "service_tier": "x",
    }
    usage = {"cache_creation_input_tokens": 300, "cache_read_input_tokens": None, "output_tokens": 7, "more": {"a": 1}}
    wire = to_bytes([beginning, *ANSWER[1:-2], {**ANSWER[-2], "usage": usage}, ANSWER[-1]])
    caplog.set_level(logging.INFO, "rawsse.relay")
    ask("POST", "/v1/messages", body, api=HEAD + wire)
    assert ", 321 tokens in, 7 out, " in caplog.messages[0]


def test_a_call_without_stream_whose_client_goes_makes_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with relay() as stage:
            browser = stage.ask("POST", "/v1/messages", MESSAGES)
            await stage.call()
            await asyncio.sleep(7)
            browser.leave()
            await browser.done()

    caplog.set_level(logging.INFO, "rawsse.relay")
    run(story())
    words = f"cancelled, the client closed the connection, {ASKED}, 7.0 s, request None"
    assert [line.partition(" (messages) ended: ")[2] for line in caplog.messages] == [words]


def test_a_count_of_tokens_that_fails_makes_a_line(caplog: pytest.LogCaptureFixture) -> None:
    ask("POST", "/v1/messages/count_tokens", MESSAGES, api=SAYS_NO)
    assert caplog.messages == ["/v1/messages/count_tokens failed: 529 overloaded_error: Overloaded"]


@pytest.mark.parametrize(
    ("path", "body"), [("/stream", CHAT), ("/v1/messages", MESSAGES), ("/v1/messages/count_tokens", MESSAGES)]
)
def test_a_relay_without_a_key_says_so_in_its_log_alone(
    path: str, body: Raw, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    browser = ask("POST", path, body, key=None)
    assert browser.status == 500
    assert b"the relay is not set up: see its log" in browser.body
    assert "no key: set the environment variable ANTHROPIC_API_KEY" in caplog.text
