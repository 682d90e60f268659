"""The official SDK and rawsse, side by side: the same bytes and the same faults, asked for by the same program.

What may differ in an answer, and is left out of every comparison (see `differential.py`):

    pings                       the SDK keeps them to itself; ours are events, so that a program can tell thinking from dead
    `index` of derived events   the SDK's `text` and `citation` do not say which block they are of
    nulls                       the SDK writes one for what the API left out
    message_stop, block_stop    the SDK's helper drops what else the event had; ours keeps it

Everything else that differs stands in a table below, with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.answers import KEY
from support.fault_server import CLOSE, Script
from test_recordings import ERRORS, FILES, FOLDER, NAMES, OUT_OF_ORDER, TWO_MESSAGES

from rawsse.errors import APIError

from .differential import WHOLE, Action, Outcome, Pair, create, differences, events, sse, stream, text
from .stack import COMPLETE, recorded

anthropic = pytest.importorskip("anthropic", reason="the official SDK: the extra `interop`")

pytestmark = pytest.mark.real

Both = Callable[..., tuple[Outcome, Outcome]]


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    """What comes of an action with the SDK and with rawsse. One server and two clients for all tests that wait for nothing."""
    with asyncio.Runner() as runner:
        pair = runner.run(Pair().__aenter__())
        yield lambda *args, **options: runner.run(pair.both(*args, **options))
        runner.run(pair.__aexit__())


def played(data: bytes) -> Script:
    """The body in pieces that end anywhere."""
    return sse(*(data[at : at + 997] for at in range(0, len(data), 997)))


# --- Recordings --------------------------------------------------------------------------------------------------------

BETA_ONLY = {
    # Blocks, deltas and usage that the SDK knows in `client.beta` only: there the same, and dropped or misread elsewhere.
    "pydantic-ai--test-anthropic-advisor-tool-stream.sse",  # usage.iterations
    "pydantic-ai--test-anthropic-compaction-usage-with-cache-streaming-0862ad9.sse",  # compaction_delta, context_management
    "pydantic-ai--test-anthropic-compaction-usage-with-cache-streaming.sse",
    "pydantic-ai--test-anthropic-mcp-servers-stream-d4a85e6.sse",  # the input of mcp_tool_use
    "pydantic-ai--test-anthropic-mcp-servers-stream.sse",
    "synthetic--sdk-python--lib-streaming-fallback-response.sse",  # usage.iterations, the model of a fallback
    "synthetic--vercel-ai--anthropic-fallback.sse",
    "vercel-ai--anthropic-advisor-20250301.1.sse",
    "vercel-ai--anthropic-mcp.1.sse",
}
"""The SDK reads these differently in its two helpers, and rawsse as the one that knows more."""

recordings = pytest.mark.skipif(not FILES, reason=f"there are no recordings in {FOLDER}")

SAME = [path for path in FILES if path.name not in ERRORS | OUT_OF_ORDER | TWO_MESSAGES]
SAME_IN_BOTH = [path for path in SAME if path.name not in BETA_ONLY]


def unlike(sdk: Outcome, ours: Outcome) -> object:
    """What the caller saw otherwise, or that it saw an error."""
    return differences(sdk, ours) or sdk.error or ours.error


def name(path: Path) -> str:
    return path.stem


@recordings
def test_the_tables_name_recordings_that_are_there() -> None:
    assert set(NAMES) >= BETA_ONLY


@recordings
@pytest.mark.parametrize("action", [stream, text, events])
@pytest.mark.parametrize("path", SAME, ids=name)
def test_a_recording_is_read_as_the_sdk_reads_it(path: Path, action: Action, both: Both) -> None:
    assert unlike(*both(action, played(path.read_bytes()), beta=True)) is None


@recordings
@pytest.mark.parametrize("action", [stream, text])
@pytest.mark.parametrize("path", SAME_IN_BOTH, ids=name)
def test_a_recording_without_beta_features_is_read_as_the_plain_helper_reads_it(
    path: Path, action: Action, both: Both
) -> None:
    assert unlike(*both(action, played(path.read_bytes()))) is None


@recordings
@pytest.mark.parametrize("file", sorted(BETA_ONLY if FILES else ()))
def test_what_the_plain_helper_of_the_sdk_drops_is_kept(file: str, both: Both) -> None:
    sdk, ours = both(stream, played(FILES[NAMES.index(file)].read_bytes()))
    assert sdk.error is None
    assert ours.error is None
    assert ours.message != sdk.message


@recordings
@pytest.mark.parametrize("path", SAME, ids=name)
def test_the_answer_to_create_is_the_message_that_the_sdk_streams(path: Path, both: Both) -> None:
    data = played(path.read_bytes())
    sdk, _ = both(text, data, beta=True)
    _, ours = both(create, data)
    assert ours.message == sdk.message


@recordings
@pytest.mark.parametrize("action", [stream, text, events])
@pytest.mark.parametrize("path", [path for path in FILES if path.name in ERRORS], ids=name)
def test_an_error_event_has_the_sdk_s_body_and_the_class_of_its_type(path: Path, action: Action, both: Both) -> None:
    sdk, ours = both(action, played(path.read_bytes()), beta=True)
    assert (sdk.summary, ours.summary) == ("APIStatusError 200", "OverloadedError 529")
    assert (ours.events, ours.texts) == (sdk.events, sdk.texts)
    for name in ("type", "body", "request_id"):
        assert getattr(ours.error, name) == getattr(sdk.error, name), name


@recordings
@pytest.mark.parametrize("path", [path for path in FILES if path.name in TWO_MESSAGES], ids=name)
def test_an_answer_ends_with_its_message_stop_where_the_sdk_reads_on(path: Path, both: Both) -> None:
    sdk, ours = both(stream, played(path.read_bytes()), beta=True)
    assert [event["type"] for event in sdk.events].count("message_stop") > 1
    assert ours.events == sdk.events[: len(ours.events)]
    assert ours.events[-1] == {"type": "message_stop", "message": ours.message}


@recordings
@pytest.mark.parametrize("action", [stream, text, events])
@pytest.mark.parametrize("path", [path for path in FILES if path.name in OUT_OF_ORDER], ids=name)
def test_an_order_that_is_not_allowed_is_read_as_the_sdk_does_only_if_asked_for(
    path: Path, action: Action, both: Both
) -> None:
    data = played(path.read_bytes())
    assert unlike(*both(action, data, beta=True, strict=False)) is None
    _, ours = both(action, data)
    assert "block indices count from 0 without gaps: 2 came for 3" in str(ours.error)


@pytest.mark.parametrize("action", [stream, text, events])
@pytest.mark.parametrize("fixture", COMPLETE)
def test_a_shipped_recording_is_read_as_the_sdk_reads_it(fixture: str, action: Action, both: Both) -> None:
    assert unlike(*both(action, played(recorded(fixture).body))) is None


ENDED: Mapping[str, tuple[str, str]] = {
    "cut": ("RemoteProtocolError", "StreamTruncatedError"),
    "error-after-content": ("APIStatusError 200", "InternalServerError 500"),
    "error-before-content": ("APIStatusError 200", "OverloadedError 529"),
}


@pytest.mark.parametrize("fixture", ENDED)
def test_a_shipped_recording_that_fails_gives_the_caller_as_much_as_the_sdk(fixture: str, both: Both) -> None:
    [whole] = played(recorded(fixture).body)
    assert isinstance(whole, bytes)
    sdk, ours = both(stream, [whole.removesuffix(b"0\r\n\r\n"), CLOSE])
    assert (sdk.summary, ours.summary) == ENDED[fixture]
    assert isinstance(ours.error, APIError)
    assert ours.events == sdk.events


# --- Requests --------------------------------------------------------------------------------------------------------

TOOL = {
    "name": "get_weather",
    "description": "The weather, in °C ☺",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string", "enum": ["Bø", "Å"]}}},
    "cache_control": {"type": "ephemeral", "ttl": "1h"},
}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "text", "text": "b"}]}]
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": True, "content": [PICTURE]}

REQUESTS: Mapping[str, Mapping[str, Any]] = {
    "no more than it must have": {},
    "a system prompt": {"system": "Be brief."},
    "a system prompt in blocks": {"system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
    "tools": {"tools": [TOOL, SEARCH], "tool_choice": {"type": "tool", "name": "w", "disable_parallel_tool_use": True}},
    "no tool choice": {"tools": [TOOL], "tool_choice": {"type": "none"}},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096},
    "metadata": {"metadata": {"user_id": "u"}, "service_tier": "auto", "container": "c", "inference_geo": "us"},
    "null inside": {"metadata": {"user_id": None}},
    "stop sequences": {"stop_sequences": ["\n\nHuman:", "\u2028", ""]},
    "a tuple": {"stop_sequences": ("a", "b")},
    "an effort": {"output_config": {"effort": "low"}},
    "cached at the end": {"cache_control": {"type": "ephemeral"}},
    "a picture": {"messages": [{"role": "user", "content": [PICTURE, {"type": "text", "text": "What is it?"}]}]},
    "a result of a tool": {"messages": [*TURNS, {"role": "user", "content": [RESULT]}]},
    "many scripts": {"messages": [{"role": "user", "content": 'é 漢字 👩\u200d👩\u200d👧 \u2028 \x7f \x00 " \\'}]},
    "extra fields": {"extra_body": {"new": {"a": [1, None]}, "temperature": 1.0, "top_k": 10**20, "max_tokens": 9}},
    "extra headers": {"extra_headers": {"X-Team": "a", "Anthropic-Beta": "own-1", "anthropic-version": "2024-01-01"}},
    "no extras": {"extra_headers": None, "extra_body": None},
}
"""Arguments of a call, of which both must make the same request."""

BETA_REQUESTS: Mapping[str, Mapping[str, Any]] = {
    "betas": {"betas": ["a-2026-01-01", "b-2026-01-01"]},
    "betas and a header of the caller's": {"betas": ["a"], "extra_headers": {"anthropic-beta": "own"}},
    "servers of tools": {"mcp_servers": [{"type": "url", "name": "n", "url": "https://a.example"}], "betas": ["mcp"]},
    "compaction": {"context_management": {"edits": [{"type": "compact_20260112"}]}},
}

OWN_HEADERS: Mapping[str, str] = {
    # The header fields that may differ, and why.
    "accept-encoding": "a compressed event stream comes late",
    "anthropic-version": "the older one is what every gateway takes",
    "authorization": "the key goes into x-api-key, which every gateway takes",
    "connection": "keep-alive is what HTTP/1.1 does anyway",
    "user-agent": "another program",
    "x-api-key": "see authorization",
    "x-stainless-": "telemetry",
}


def headers_of(outcome: Outcome) -> dict[str, str]:
    """What both must send."""
    [request] = outcome.requests
    return {name: value for name, value in request.headers.items() if not name.startswith(tuple(OWN_HEADERS))}


def request_of(outcome: Outcome) -> tuple[str, str, Any]:
    [request] = outcome.requests
    return request.method, request.target, request.json


@pytest.mark.parametrize("beta", [False, True], ids=["plain", "beta"])
@pytest.mark.parametrize("action", [stream, events])
@pytest.mark.parametrize("asked", REQUESTS)
def test_a_call_makes_the_request_that_the_sdk_makes(asked: str, action: Action, beta: bool, both: Both) -> None:
    sdk, ours = both(action, sse(WHOLE), beta=beta, **REQUESTS[asked])
    assert request_of(ours) == request_of(sdk)
    assert headers_of(ours) == headers_of(sdk)


@pytest.mark.parametrize("asked", BETA_REQUESTS)
def test_a_beta_call_makes_the_request_that_the_sdk_makes(asked: str, both: Both) -> None:
    sdk, ours = both(stream, sse(WHOLE), beta=True, **BETA_REQUESTS[asked])
    assert request_of(ours) == request_of(sdk)
    assert headers_of(ours) == headers_of(sdk)


def test_a_header_of_the_caller_s_wins_in_both(both: Both) -> None:
    sdk, ours = both(stream, sse(WHOLE), **REQUESTS["extra headers"])
    assert sdk.requests[0].headers["anthropic-version"] == "2024-01-01"
    assert ours.requests[0].headers["anthropic-version"] == "2024-01-01"


def test_both_have_the_key_in_one_field(both: Both) -> None:
    for outcome in both(stream, sse(WHOLE)):
        [request] = outcome.requests
        assert [name for name, value in request.headers.items() if KEY in value] in (["authorization"], ["x-api-key"])
        assert KEY.encode() not in request.body


def test_an_argument_that_is_none_is_left_out_where_the_sdk_writes_null(both: Both) -> None:
    # The API takes null for few of its fields: None from a program that has no value for one means "none given".
    sdk, ours = both(stream, sse(WHOLE), system=None, metadata=None, stop_sequences=None)
    (*_, theirs), (*_, mine) = request_of(sdk), request_of(ours)
    assert {name: value for name, value in theirs.items() if value is not None} == mine


def test_what_json_cannot_say_is_a_value_error_in_both_and_nothing_is_sent(both: Both) -> None:
    sdk, ours = both(stream, sse(WHOLE), extra_body={"new": float("nan")})
    assert isinstance(sdk.error, ValueError)
    assert isinstance(ours.error, ValueError)
    assert sdk.requests == ours.requests == []


def test_half_a_character_is_sent_as_a_replacement_character_where_the_sdk_refuses_it(
    both: Both,
) -> None:
    # Refused, it would spoil a whole conversation: the history is sent again with each question.
    sdk, ours = both(stream, sse(WHOLE), extra_body={"new": "\ud83d"})
    assert isinstance(sdk.error, ValueError)
    assert request_of(ours)[-1]["new"] == "\ufffd"
