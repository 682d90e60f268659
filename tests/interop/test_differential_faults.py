"""The official SDK and rawsse, side by side, where something fails: and what a program is told.

Time is virtual. Each row of `FAULTS` is a script of the server and what both make of it. "same": the caller sees the same
events, the same message or an error of that class (ours may be below it) with the same facts, after the same time and as many
requests. Anything else says why not; the numbers are those of the SDK's known faults:

    1   EOF before message_stop is silent, or a bare AssertionError
    2   failures while the body is read are raw httpx2 errors, not APIConnectionError; no stream is tried again
    3   an `error` event is an APIStatusError with status 200, never the class of its type
    4   missing `usage` or `delta` is an AttributeError
    5   a gap in the block indices is an IndexError
    10  message_stop is not the end: the SDK waits for the body's
    SSE what the standard of server-sent events allows, or says how to read, is lost, or raises what is no error of the SDK's
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import NamedTuple

import pytest
from support.answers import SSE_HEAD, chunked, head, plain
from support.fault_server import CLOSE, HOLD, RESET, Pause, Script
from support.streams import (
    ANSWER,
    PING,
    STOP,
    Raw,
    block,
    block_start,
    delta,
    end,
    input_delta,
    start,
    text_delta,
    tool_block,
)

from rawsse.errors import APIConnectionError, APIError

from .differential import (
    ERROR,
    HALF,
    SAID,
    WHOLE,
    Outcome,
    broken_off,
    create,
    differ,
    differences,
    events,
    said,
    sse,
)

anthropic = pytest.importorskip("anthropic", reason="the official SDK: the extra `interop`")

pytestmark = pytest.mark.real

TEXT: Raw = {"type": "text", "text": ""}


def without(raw: Raw, *path: str) -> Raw:
    *outer, last = path
    changed: Raw = json.loads(json.dumps(raw))
    inner = changed
    for name in outer:
        inner = inner[name]
    del inner[last]
    return changed


def packed(body: bytes, coding: str) -> Script:
    fields = {"content_type": "text/event-stream", "content_encoding": coding, "transfer_encoding": "chunked"}
    return [head(**fields) + chunked(body)]


# --- What fails ------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """`sdk` and `ours` are `Outcome.summary`; `ours` is left out if it is the same."""

    script: Script
    sdk: str
    ours: str = ""
    verdict: str = "same"


FAULTS: Mapping[str, Row] = {
    # Refusals that are not the API's
    "an HTML page as 502": Row(
        [plain(b"<html>Bad</html>", "502 No", content_type="text/html")], "InternalServerError 502"
    ),
    "text as 429": Row([plain(b"slow down", "429 No")], "RateLimitError 429"),
    "nothing as 500": Row([plain(b"", "500 No")], "InternalServerError 500"),
    "no JSON object as 400": Row([plain(b'["no"]', "400 No")], "BadRequestError 400"),
    "304": Row([head("304 No")], "APIStatusError 304"),
    "a refusal whose body is cut": Row(
        [head("500 No", content_length="100") + b'{"type"', CLOSE],
        "RemoteProtocolError",
        "InternalServerError 500",
        "2: the status is hidden",
    ),
    # The connection
    "closed before the head": Row([CLOSE], "APIConnectionError"),
    "reset before the head": Row([RESET], "APIConnectionError"),
    "closed in the head": Row([b"HTTP/1.1 200 OK\r\ncontent-", CLOSE], "APIConnectionError"),
    "silence before the head": Row([HOLD], "APITimeoutError", "HeadTimeoutError"),
    "closed in the body": Row(broken_off(HALF, CLOSE), "RemoteProtocolError", "StreamTruncatedError", "2"),
    "reset in the body": Row(broken_off(HALF, RESET), "ReadError", "StreamTruncatedError", "2"),
    "silence in the body": Row(broken_off(HALF, HOLD), "ReadTimeout", "SilenceTimeoutError", "2"),
    "a chunk without a size": Row([SSE_HEAD + b"zz\r\n"], "RemoteProtocolError", "HTTPProtocolError", "2"),
    "no HTTP": Row([b"nonsense\r\n\r\n"], "APIConnectionError", "HTTPProtocolError", "typed: the peer broke HTTP"),
    # The end of the stream
    "EOF in the text": Row(sse(HALF), "message, None", "StreamTruncatedError", "1"),
    "EOF before anything": Row(sse(b": hello\n\n"), "AssertionError", "StreamTruncatedError", "1"),
    "an empty body": Row(sse(), "AssertionError", "StreamTruncatedError", "1"),
    "204": Row([head("204 No Content")], "AssertionError", "StreamTruncatedError", "1"),
    "EOF after the stop reason": Row(said(*ANSWER[:-1]), SAID),
    "EOF in message_stop": Row(sse(WHOLE[:-1]), SAID),
    "a slow terminator": Row([*broken_off(WHOLE, Pause(2.0)), b"0\r\n\r\n"], SAID, SAID, "10"),
    "no terminator": Row(broken_off(WHOLE, HOLD), "ReadTimeout", SAID, "10"),
    "closed after message_stop": Row(broken_off(WHOLE, CLOSE), "RemoteProtocolError", SAID, "10"),
    "more after message_stop": Row(said(*ANSWER, text_delta(0, "!")), SAID, SAID, "10: the SDK goes on writing"),
    "an error after message_stop": Row(said(*ANSWER, ERROR), "APIStatusError 200", SAID, "10"),
    # Errors in the stream
    "error first": Row(said(ERROR), "APIStatusError 200", "OverloadedError 529", "3"),
    "error in the text": Row(said(*ANSWER[:4], ERROR), "APIStatusError 200", "OverloadedError 529", "3"),
    "an error of a new type": Row(
        said({"type": "error", "error": {"type": "new_error", "message": "New"}}),
        "APIStatusError 200",
        "InternalServerError 500",
        "3",
    ),
    "an error that is no JSON": Row(
        sse(b"event: error\ndata: gone\n\n"), "APIStatusError 200", "InternalServerError 500", "3"
    ),
    "an event stream that is called JSON": Row([plain(WHOLE, content_type="application/json")], SAID),
    # What is no event stream
    "JSON instead of a stream": Row(
        [plain(b'{"type": "message"}', content_type="application/json")], "AssertionError", "HTTPProtocolError", "1"
    ),
    "a page instead of a stream": Row(
        [plain(b"<html>Log in</html>", content_type="text/html")], "AssertionError", "HTTPProtocolError", "1"
    ),
    "no content type": Row([plain(WHOLE)], SAID),
    "another content type": Row([plain(WHOLE, content_type="text/plain")], SAID),
    "206": Row([plain(WHOLE, "206 Partial Content")], SAID),
    "HTTP/1.0": Row([b"HTTP/1.0 200 OK\r\n\r\n" + WHOLE, CLOSE], SAID),
    "100 before 200": Row([b"HTTP/1.1 100 Continue\r\n\r\n" + plain(WHOLE)], SAID),
    "gzip": Row(packed(gzip.compress(WHOLE), "gzip"), SAID),
    "gzip that is none": Row(packed(WHOLE, "gzip"), "DecodingError", "HTTPProtocolError", "2"),
    "a coding nobody asked for": Row(packed(b"\x0b\x02", "br"), "AssertionError", "HTTPProtocolError", "1"),
    # Server-sent events
    "CRLF": Row(sse(WHOLE.replace(b"\n", b"\r\n")), SAID),
    "CR": Row(sse(WHOLE.replace(b"\n", b"\r")), SAID),
    "byte by byte": Row(sse(*(WHOLE[at : at + 1] for at in range(len(WHOLE)))), SAID),
    "comments, id and retry": Row(sse(b": hi\n\nid: 7\nretry: 10\n\n", WHOLE.replace(b"\n\n", b"\n: x\n\n")), SAID),
    "two lines of data": Row(sse(WHOLE.replace(b'"type": "message_stop"', b'"type":\ndata: "message_stop"')), SAID),
    "an end mark": Row(sse(WHOLE, b"data: [DONE]\n\n"), SAID),
    "pings everywhere": Row(said(PING, *(raw for event in ANSWER[:-1] for raw in (event, PING)), STOP), SAID),
    "a BOM": Row(sse(b"\xef\xbb\xbf", WHOLE), "AssertionError", SAID, "SSE"),
    "no names": Row(
        sse(*(b"data: %b\n\n" % json.dumps(raw).encode() for raw in ANSWER)), "AssertionError", SAID, "SSE"
    ),
    "no type": Row(sse(WHOLE.replace(b'"type": "message_stop"', b'"a": 1')), "KeyError", SAID, "SSE"),
    "bad UTF-8": Row(sse(WHOLE.replace("☺".encode(), b"\xe2\x98")), "UnicodeDecodeError", SAID, "SSE: U+FFFD"),
    "bad JSON": Row(
        sse(HALF, b"event: content_block_delta\ndata: {oops\n\n"), "JSONDecodeError", "EventDataError", "SSE: typed"
    ),
    # Events
    "no usage at the start": Row(
        said(without(ANSWER[0], "message", "usage"), *ANSWER[1:]), "AttributeError", SAID, "4"
    ),
    "no usage at the end": Row(said(*ANSWER[:-2], without(end(), "usage"), STOP), "AttributeError", SAID, "4"),
    "no delta": Row(said(*ANSWER[:-2], without(end(), "delta"), STOP), "AttributeError", "message, None", "4"),
    "a gap": Row(said(start(), *block(1, TEXT, text_delta(1, "x")), end(), STOP), "IndexError", "EventOrderError", "5"),
    "no message_start": Row(said(*ANSWER[1:]), "AssertionError", "EventOrderError", "1"),
    "message_start again": Row(
        said(*ANSWER[:6], start(), *ANSWER[1:]), SAID, "EventOrderError", "the SDK mixes two answers into one message"
    ),
    "an unknown event": Row(said(start(), {"type": "news", "a": 1}, *ANSWER[1:]), SAID),
    "an unknown delta": Row(
        said(start(), *block(0, TEXT, delta(0, "glow", x=1), text_delta(0, "x")), end(), STOP), SAID
    ),
    "an unknown block": Row(said(start(), *block(0, {"type": "glow", "x": 1}), end(), STOP), SAID),
    "an unknown stop reason": Row(said(*ANSWER[:-2], end("bored"), STOP), "message, bored"),
    "a delta for another block": Row(
        said(start(), *block(0, tool_block(), text_delta(0, "x")), end(), STOP),
        SAID,
        "EventOrderError",
        "the SDK loses the text; `strict=False` notes it",
    ),
    "a second message_delta that says nothing": Row(
        said(*ANSWER[:-1], {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}}, STOP),
        "message, None",
        SAID,
        "the SDK forgets why the model stopped",
    ),
    "an input that was cut": Row(
        said(start(), *block(0, tool_block(), input_delta(0, '{"a": "x", "b": [1, 2')), end("max_tokens"), STOP),
        "message, max_tokens",
    ),
    "an input that is no JSON": Row(
        said(start(), *block(0, tool_block(), input_delta(0, '{"a": oops}')), end("tool_use"), STOP),
        "ValueError",
        "message, tool_use",
        "the answer is there; the block says that it is not complete",
    ),
    "a block that is never closed": Row(said(start(), block_start(0, TEXT), text_delta(0, "x"), end(), STOP), SAID),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_as_the_sdk_tells_it_or_better(fault: str) -> None:
    row = FAULTS[fault]
    sdk, ours = differ(row.script)
    assert (sdk.summary, ours.summary) == (row.sdk, row.ours or row.sdk)
    if row.verdict == "same":
        assert differences(sdk, ours) == {}
        assert ours.seconds == sdk.seconds
    else:
        assert all(mine == theirs for mine, theirs in zip(ours.texts, sdk.texts, strict=False))
    check_own(ours)


def check_own(ours: Outcome) -> None:
    """Whatever the fault: an error of ours, which knows the message so far and the request."""
    if ours.error is None:
        return
    assert isinstance(ours.error, APIError)
    assert ours.error.request_id == ours.request_id
    assert (ours.error.partial.text if ours.error.partial else "") == "".join(ours.texts)
    assert ours.error.ending is not None


@pytest.mark.parametrize("fault", ["a slow terminator", "no terminator"])
def test_a_whole_answer_is_there_while_the_server_still_holds_the_connection(fault: str) -> None:
    sdk, ours = differ(FAULTS[fault].script)
    assert (ours.was_held, ours.seconds) == (True, 0.0)
    assert sdk.seconds >= 2.0


@pytest.mark.parametrize("fault", ["closed in the body", "EOF in the text", "reset in the body", "silence in the body"])
def test_a_cut_stream_is_an_error_of_the_connection(fault: str) -> None:
    sdk, ours = differ(FAULTS[fault].script)
    assert not isinstance(sdk.error, anthropic.APIConnectionError)
    assert isinstance(ours.error, APIConnectionError)


@pytest.mark.parametrize(
    "fault", ["closed in the body", "error in the text", "EOF in the text", "closed before the head"]
)
def test_the_other_ways_to_read_raise_the_same(fault: str) -> None:
    row = FAULTS[fault]
    _, whole = differ(row.script, action=create)
    _, wire = differ(row.script, action=events)
    assert whole.summary == wire.summary == (row.ours or row.sdk)
