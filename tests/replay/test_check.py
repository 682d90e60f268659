"""rawsse.replay.check: each rule broken once, by hand."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from support.sampling import one_in

from rawsse.replay import (
    Place,
    Read,
    RecordedRequest,
    Recording,
    by_event,
    check,
    every_split,
    find_recordings,
    shipped_fixtures,
)
from rawsse.replay.check import RULES, Checker, Severity
from rawsse.sse import Decoder

REAL = Path(os.environ.get("RAWSSE_RECORDINGS", Path(__file__).parents[3] / "shared" / "recordings"))

START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",'
    b'"model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
)
BLOCK = (
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
)
DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"Hi"}}\n\n'
)
STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
END = (
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    b'"usage":{"output_tokens":2}}\n\n'
)
LAST = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
GOOD = START + BLOCK + PING + DELTA + STOP + END + LAST
TOOL = BLOCK.replace(b'{"type":"text","text":""}', b'{"type":"tool_use","id":"toolu_1","name":"f","input":{}}')
THINKING = BLOCK.replace(b'{"type":"text","text":""}', b'{"type":"thinking","thinking":"","signature":""}')
SEARCH = BLOCK.replace(
    b'{"type":"text","text":""}', b'{"type":"web_search_tool_result","tool_use_id":"s1","content":[]}'
)


def tool_input(fragment: str) -> bytes:
    return DELTA.replace(b'{"type":"text_delta","text":"Hi"}', b'{"type":"input_json_delta","partial_json":"%b"}') % (
        fragment.encode()
    )


def found(stream: bytes | Recording) -> list[tuple[Severity, str, str]]:
    return [(finding.severity, finding.rule, finding.text) for finding in check(stream)]


def test_a_good_stream_has_no_findings() -> None:
    assert check(GOOD) == []


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_other_line_ends_are_good_too(end: bytes) -> None:
    assert check(GOOD.replace(b"\n", end)) == []


def test_a_comment_is_no_finding_and_no_event() -> None:
    assert check(b": hello\n\n" + GOOD) == []
    assert check(b": hello\n\n" + DELTA)[0].where == Place(9, 1)


@pytest.mark.parametrize(
    ("stream", "severity", "rule", "text"),
    [
        (b"\xef\xbb\xbf" + GOOD, "warning", "sse-mark", "the stream begins with a byte order mark"),
        (GOOD.replace(b"Hi", b"H\xc3"), "error", "sse-utf8", "'\\xc3' is not UTF-8"),
        (GOOD.replace(b"event: ping", b"event: ping\nevnt: x"), "warning", "sse-field", "there is no field 'evnt'"),
        (GOOD.replace(b"event: ping", b"event: ping\nid: 7"), "note", "sse-field", "the field id means nothing here"),
        (b"retry: 5\n\n" + GOOD, "note", "sse-field", "the field retry means nothing here"),
        (GOOD.replace(b'\ndata: {"type": "ping"}', b""), "error", "sse-empty", "an event without data"),
        (GOOD.replace(b"event: ping\n", b""), "error", "event-name", "'ping' has no event line"),
        (
            GOOD.replace(b"event: ping", b"event: pong"),
            "error",
            "event-name",
            "the event is called 'pong', its type is 'ping'",
        ),
        (
            GOOD.replace(b'{"type":"message_stop"}', b"[1]"),
            "error",
            "event-data",
            "the data of event 'message_stop' are not a JSON object: '[1]'",
        ),
        (GOOD + b"data: [DONE]\n\n", "note", "event-done", "the end mark [DONE] is not the Messages API's"),
        (
            b"data:\n\n" + GOOD,
            "note",
            "event-data",
            "an event without name and data: it only keeps the connection alive",
        ),
        (GOOD.replace(b"ping", b"pong"), "note", "event-unknown", "an event of type 'pong'"),
        (GOOD.replace(b'"text_delta"', b'"smell_delta"'), "note", "event-unknown", "a delta of type 'smell_delta'"),
        (GOOD.replace(b'{"type":"text"', b'{"type":"smell"'), "note", "event-unknown", "a block of type 'smell'"),
        (GOOD.replace(b"end_turn", b"bored"), "note", "event-unknown", "the stop reason 'bored'"),
        (
            START + START + GOOD[len(START) :],
            "error",
            "event-order",
            "message_start may not come between content blocks",
        ),
        (GOOD + STOP, "error", "event-order", "content_block_stop may not come after message_stop"),
        (
            GOOD.replace(b'"index":0', b'"index":1'),
            "error",
            "event-order",
            "block indices count from 0 without gaps: 1 came for 0",
        ),
        (
            GOOD.replace(b'"model":"m",', b""),
            "error",
            "message-fields",
            "message_start has a message without 'model'",
        ),
        (
            GOOD.replace(b',"output_tokens":1', b""),
            "error",
            "message-usage",
            "message_start has no usage with output_tokens",
        ),
        (
            GOOD.replace(b',"usage":{"output_tokens":2}', b""),
            "error",
            "message-usage",
            "message_delta has no usage with output_tokens",
        ),
        (
            GOOD.replace(b'"delta":{"stop_reason":"end_turn","stop_sequence":null},', b""),
            "error",
            "event-data",
            "message_delta has no 'delta' that is an object",
        ),
        (
            START + TOOL + tool_input('{\\"a\\":') + STOP + END + LAST,
            "error",
            "block-input",
            "the input of block 0 is not a JSON object: '{\"a\":'",
        ),
        (
            START + TOOL + tool_input("[1]") + STOP + END + LAST,
            "error",
            "block-input",
            "the input of block 0 is not a JSON object: '[1]'",
        ),
        (START + BLOCK + DELTA + END + LAST, "note", "block-open", "block 0 is still open"),
        (
            START + THINKING + STOP + END + LAST,
            "warning",
            "block-signature",
            "the thinking of block 0 has no signature",
        ),
        (START + SEARCH + STOP + END + LAST, "warning", "block-result", "a result for 's1', which was not called"),
        (
            START + BLOCK + STOP,
            "error",
            "stream-end",
            "the stream ends between content blocks: message_stop is missing",
        ),
        (START + BLOCK + STOP + END, "warning", "stream-end", "message_stop is missing; the stop reason has arrived"),
        (b"", "error", "stream-end", "the stream ends before message_start: message_stop is missing"),
    ],
)
def test_a_broken_rule_is_named(stream: bytes, severity: str, rule: str, text: str) -> None:
    assert (severity, rule, text) in found(stream)


def test_every_event_of_a_block_whose_start_was_lost_says_so() -> None:
    order = "may not come between content blocks"
    assert found(START + DELTA + DELTA + STOP + END + LAST) == [
        ("error", "event-order", f"block 0 was never started: content_block_{kind} {order}")
        for kind in ("delta", "delta", "stop")
    ]
    # One that has ended was started, also by a message that begins with it.
    late = ("error", "event-order", f"content_block_delta {order}")
    assert found(START + BLOCK + STOP + DELTA + END + LAST) == [late]
    begun = START.replace(b'"content":[]', b'"content":[{"type":"text","text":""}]')
    assert found(begun + DELTA + END + LAST) == [late]


@pytest.mark.parametrize("data", [b'{"text":"Hi"}', b'{"text": "Hi"}'])
def test_the_frames_of_a_relay_are_told_from_events_of_the_api_once(data: bytes) -> None:
    frame = b"data: " + data + b"\n\n"
    names = [text for _, rule, text in found(b": hello\n\n" + frame * 2 + b"data: [DONE]\n\n") if rule == "event-name"]
    assert names == [
        "this looks like a relay's /stream (text dialect), not the Messages API",
        "'message' has no event line",
    ]


def test_an_error_event_is_a_note_and_an_end() -> None:
    error = b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"Oops"}}\n\n'
    assert found(START + error) == [("note", "event-error", "an error event, 'api_error': 'Oops'")]


def test_an_error_event_needs_type_and_message() -> None:
    error = b'event: error\ndata: {"type":"error","error":{"type":"api_error"}}\n\n'
    assert ("error", "event-data", "an error without type or message") in found(error)


def test_a_tool_without_arguments_is_good() -> None:
    assert check(START + TOOL + tool_input("") + STOP + END + LAST) == []


def test_a_result_of_a_call_is_good() -> None:
    call = TOOL.replace(b'"tool_use","id":"toolu_1"', b'"server_tool_use","id":"s1"')
    second = [part.replace(b'"index":0', b'"index":1') for part in (SEARCH, STOP)]
    assert check(START + call + STOP + b"".join(second) + END + LAST) == []


def test_a_finding_has_the_byte_and_the_number_of_its_event() -> None:
    (finding,) = check(GOOD.replace(b"event: ping", b"event: pong"))
    assert finding.where == Place(len(START + BLOCK), 3)
    assert str(finding) == (
        f"error at byte {len(START + BLOCK)}, event 3: event-name: the event is called 'pong', its type is 'ping'"
    )


def test_a_finding_in_a_line_has_the_byte_of_the_line() -> None:
    stream = GOOD.replace(b'data: {"type": "ping"}', b'data: {"type": "ping"}\nid: 1')
    assert check(stream)[0].where == Place(stream.index(b"id: 1"), 3)
    stream = GOOD.replace(b"Hi", b"Hi\xff")
    assert check(stream)[0].where == Place(stream.index(b"\xff"), 4)


def test_bytes_are_quoted_as_the_text_that_they_are() -> None:
    stream = 'data: {"a": "it\'s \\n é☺"}\r\ndata: \x1b[2J\u202e'.encode()
    texts = [finding.text for finding in check(stream) if finding.rule == "sse-cut"]
    # As it was written, but for what a terminal would interpret.
    expected = r"""'data: {"a": "it's \n é☺"}\ndata: \x1b[2J\u202e'"""
    assert texts == [f"the stream ends inside an event: {expected}"]


def test_a_cut_event_is_found_at_its_end() -> None:
    finding = next(finding for finding in check(GOOD[:-1]) if finding.rule == "sse-cut")
    assert finding.where == Place(len(GOOD) - 1, 7)
    assert (
        finding.text == """the stream ends inside an event: 'event: message_stop\\ndata: {"type":"message_stop"}\\n'"""
    )


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event may have 1,000 bytes only: to look for secrets in 16 MB takes seconds."""
    monkeypatch.setattr(sys.modules["rawsse.replay.check"], "MAX_EVENT_BYTES", 1000)
    monkeypatch.setattr(sys.modules["rawsse.replay.check"], "Decoder", partial(Decoder, max_event_bytes=1000))


@pytest.mark.usefixtures("small_limit")
def test_an_event_that_is_too_large_ends_the_check() -> None:
    stream = START + b"data: " + b"x" * 1000 + b"\n\n" + STOP
    assert found(stream) == [("error", "limit", "a server-sent event is larger than max_event_bytes (1000)")]


# --- Recorded exchanges ---


def test_a_recording_that_was_cut_says_so() -> None:
    assert ("warning", "http-end", "the exchange ended with 'cut'") in found(
        Recording(reads=(Read(0.0, GOOD),), end="cut")
    )


def test_another_content_type_is_a_warning() -> None:
    recording = Recording(headers={"Content-Type": "text/html; a=b"}, reads=(Read(0.0, GOOD),))
    assert found(recording) == [("warning", "http-type", "the content type is 'text/html; a=b'")]


def test_an_http_error_in_the_form_of_the_api_is_a_note() -> None:
    recording = Recording(status=529, reads=(Read(0.0, b'{"type": "error", "error": {}}'),))
    assert found(recording) == [("note", "http-status", "the status is 529")]


def test_an_http_error_in_another_form_is_a_warning() -> None:
    recording = Recording(status=503, reads=(Read(0.0, b"upstream connect error"),))
    assert found(recording)[1] == (
        "warning",
        "http-status",
        "the body is not an error of the API: 'upstream connect error'",
    )


# --- Secrets ---

KEY = b"sk-ant-api03-" + b"Qm7xT2vLp9Rk4WzN8sBd"


def test_a_key_in_the_answer_is_an_error_at_its_place() -> None:
    body = GOOD.replace(b"Hi", KEY[:16])
    first, _, rest = body.partition(STOP)
    body = first + DELTA.replace(b"Hi", KEY[16:]) + STOP + rest
    (finding,) = check(body)
    assert (finding.severity, finding.rule) == ("error", "secret")
    assert finding.where == Place(body.index(KEY[13:16]), 4)
    assert finding.text == "Anthropic key in the response body, event 4, text of block 0 (across 2 deltas)"


def test_a_key_in_the_request_is_an_error_before_the_first_event() -> None:
    request = RecordedRequest("POST", "/v1/messages", {"X-Api-Key": "anything"}, {"system": KEY.decode()})
    assert [str(finding) for finding in check(Recording.from_sse(GOOD, request=request))] == [
        "error at byte 0, event 0: secret: credential in the request header X-Api-Key",
        "error at byte 0, event 0: secret: Anthropic key in the request body, system",
    ]


def test_a_key_in_an_http_error_is_one_too() -> None:
    recording = Recording(status=401, reads=(Read(0.0, b'{"type":"error","error":{"message":"%b"}}' % KEY),))
    assert [finding.rule for finding in check(recording)] == ["http-status", "secret"]


# --- Streams that are still coming ---


def test_a_finding_comes_with_the_line_that_shows_it() -> None:
    checker = Checker()
    assert checker.feed(START) == []
    assert [finding.rule for finding in checker.feed(b"evnt: x\n")] == ["sse-field"]
    assert checker.feed(DELTA[:-1]) == []
    assert [finding.rule for finding in checker.feed(DELTA[-1:])] == ["event-order"]
    assert [finding.rule for finding in checker.close()] == ["stream-end"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_findings_and_places_are_the_same_however_the_stream_is_cut(end: bytes) -> None:
    stream = b"\xef\xbb\xbf" + START + b"id: 1\n" + PING + DELTA.replace(b"Hi", b"\xc3") + b": cut"
    stream = stream.replace(b"\n", end)
    expected = check(stream)
    assert {finding.rule for finding in expected} == {
        "sse-mark", "sse-field", "sse-utf8", "event-order", "sse-cut", "stream-end"
    }  # fmt: skip
    for chunks in every_split(stream):
        checker = Checker(max_searched_bytes=0)
        found = [finding for chunk in (*chunks, b"") for finding in checker.feed(chunk)] + checker.close()
        assert sorted(found, key=lambda finding: finding.where.byte) == expected


def test_only_one_line_feed_belongs_to_the_return_before_it() -> None:
    stream = GOOD.replace(b"}\n\n", b"}\r\n\n")
    checker = Checker(max_searched_bytes=0)
    assert (
        [finding for byte in stream for finding in checker.feed(bytes([byte]))] + checker.close() == check(stream) == []
    )


def test_an_endless_line_is_given_up_at_the_limit_and_not_when_it_ends() -> None:
    checker = Checker(max_searched_bytes=0)
    assert checker.feed(b"data: " + b"x" * (16 * 1024 * 1024 - 6)) == []
    assert [finding.rule for finding in checker.feed(b"x")] == ["limit"]
    assert checker.feed(b"x" * 100) == []
    assert checker.close() == []


@pytest.mark.parametrize("end", ["", "\n", "\ndata: x\n", "\n\n"])
def test_no_line_that_is_no_field_is_quoted(end: str) -> None:
    found = check(f"ANTHROPIC_API_KEY={KEY.decode()}{end}".encode())
    assert not [finding for finding in found if KEY.decode()[:12] in finding.text]


def test_of_a_live_stream_no_more_is_kept_however_many_pieces_it_comes_in() -> None:
    checker, comment = Checker(max_searched_bytes=100), b": " + KEY + b"\n\n"
    findings = checker.feed(b":" + b" " * 98 + b"\n") + checker.feed(comment) + checker.close()
    assert "secret" not in {finding.rule for finding in findings}


def test_secrets_in_a_live_stream_are_found_at_its_end_as_far_as_it_was_kept() -> None:
    def rules_with(limit: int) -> list[str]:
        checker = Checker(max_searched_bytes=limit)
        return [finding.rule for finding in checker.feed(GOOD.replace(b"Hi", KEY)) + checker.close()]

    assert rules_with(10_000) == ["secret"]
    assert rules_with(100) == []


def test_a_refusal_is_judged_when_it_is_whole() -> None:
    checker = Checker(503, "text/plain")
    assert [finding.text for finding in checker.feed(b"upstream")] == ["the status is 503"]
    assert [finding.text for finding in checker.close("cut")] == ["the body is not an error of the API: 'upstream'"]


# --- One rule broken, and no other ---

ERROR = b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"Oops"}}\n\n'
JSON = {"content-type": "application/json"}
ONLY: list[tuple[str, bytes | Recording]] = [
    ("http-status", Recording(status=529, reads=(Read(0.0, b'{"type": "error"}'),))),
    ("http-type", Recording(headers={}, reads=(Read(0.0, GOOD),))),
    ("http-end", Recording(reads=(Read(0.0, GOOD),), end="client_closed")),
    ("sse-mark", b"\xef\xbb\xbf" + GOOD),
    ("sse-utf8", GOOD.replace(b"Hi", b"H\xc3")),
    ("sse-field", GOOD.replace(b"event: ping", b"event: ping\nevnt: x")),
    ("sse-empty", GOOD + b"event: ping\n\n"),
    ("sse-cut", GOOD + PING[:-1]),
    ("event-name", GOOD.replace(b"event: ping\n", b"")),
    ("event-data", GOOD + PING.replace(b"ping", b"message_stop").replace(b'{"type": "message_stop"}', b"{")),
    ("event-done", GOOD + b"event: x\ndata: [DONE]\n\n"),
    ("event-unknown", GOOD.replace(b"ping", b"pong")),
    ("event-order", GOOD + LAST),
    ("event-error", START + ERROR),
    ("message-fields", GOOD.replace(b'"model":"m",', b"")),
    ("message-usage", GOOD.replace(b',"output_tokens":1', b"")),
    ("block-input", START + TOOL + tool_input("[1]") + STOP + END + LAST),
    ("block-open", START + BLOCK + DELTA + END + LAST),
    ("block-signature", START + THINKING + STOP + END + LAST),
    ("block-result", START + SEARCH + STOP + END + LAST),
    ("stream-end", GOOD.removesuffix(LAST)),
    ("limit", START + b"data: " + b"x" * 1000),
    ("secret", GOOD.replace(b"Hi", KEY)),
]


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize(("rule", "stream"), ONLY, ids=[rule for rule, _ in ONLY])
def test_each_rule_can_be_broken_alone(rule: str, stream: bytes | Recording) -> None:
    assert {finding.rule for finding in check(stream)} == {rule}


def test_every_rule_has_a_stream_that_breaks_it_alone() -> None:
    assert [rule for rule, _ in ONLY] == list(RULES)


# --- Every event of every recording dropped, doubled, swapped ---

# Nothing in the protocol numbers the deltas within a block, or counts pings; and message_delta, whose counts are cumulative,
# may come again. Of a tool's input the checker sees what is no JSON any more.
UNSEEN = {
    *(
        f"{how} {kind}"
        for how in ("drop", "double")
        for kind in ("ping", "text", "thinking", "citations", "input_json")
    ),
    *(f"swap {kind} {kind}" for kind in ("text", "thinking", "input_json")),
    "swap citations text",
    "swap text citations",
    "double message_delta",
}


def kind_of(event: bytes) -> str:
    data = json.loads(event.partition(b"data: ")[2])
    kind: str = data["delta"]["type"].removesuffix("_delta") if "index" in data and "delta" in data else data["type"]
    return kind


def mutations(events: tuple[bytes, ...]) -> Iterator[tuple[str, bytes]]:
    """What is done to the events, and what they are then; without what no reader can see, of which most streams are full."""
    return ((how, b"".join(mutant)) for how, mutant in all_mutations(events) if how not in UNSEEN)


def all_mutations(events: tuple[bytes, ...]) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    for at, event in enumerate(events):
        yield f"drop {kind_of(event)}", events[:at] + events[at + 1 :]
        yield f"double {kind_of(event)}", events[: at + 1] + events[at:]
    for at, (first, second) in enumerate(pairwise(events)):
        kinds = f"swap {kind_of(first)} {kind_of(second)}"
        if "ping" not in kinds and first != second:
            yield kinds, (*events[:at], second, first, *events[at + 2 :])


@pytest.mark.parametrize("name", sorted(set(shipped_fixtures()) - {"cut"}))
def test_every_mutation_that_the_protocol_lets_a_reader_see_breaks_a_rule(name: str) -> None:
    body = shipped_fixtures()[name].body
    before = rules_broken_by(body)
    assert [how for how, mutant in mutations(by_event(body)) if not rules_broken_by(mutant) - before] == []


def rules_broken_by(body: bytes) -> set[str]:
    """Without the one about secrets: a search takes ten times as long as all the others."""
    checker = Checker(max_searched_bytes=0)
    return {finding.rule for finding in checker.feed(body) + checker.close()}


def test_a_tool_input_that_lost_a_part_of_its_json_breaks_a_rule() -> None:
    call = START + TOOL + tool_input('{\\"a\\":') + tool_input("1}") + STOP + END + LAST
    assert check(call) == []
    assert [finding.rule for finding in check(call.replace(tool_input("1}"), b""))] == ["block-input"]


SIGNATURE = DELTA.replace(b'{"type":"text_delta","text":"Hi"}', b'{"type":"signature_delta","signature":"s"}')
THOUGHT = DELTA.replace(b'{"type":"text_delta","text":"Hi"}', b'{"type":"thinking_delta","thinking":"s"}')


@pytest.mark.parametrize(("more", "kind"), [(SIGNATURE, "signature_delta"), (THOUGHT, "thinking_delta")])
def test_a_signature_comes_once_and_last(more: bytes, kind: str) -> None:
    assert check(START + THINKING + THOUGHT + SIGNATURE + STOP + END + LAST) == []
    assert found(START + THINKING + SIGNATURE + more + STOP + END + LAST) == [
        ("warning", "block-signature", f"{kind} came after the signature of block 0")
    ]


def test_an_answer_that_goes_on_from_a_tool_call_begins_with_blocks_that_are_closed() -> None:
    begun = START.replace(b'"content":[]', b'"content":[{"type":"tool_use","id":"t","name":"f","input":{}}]')
    assert check(begun + END + LAST) == []


@pytest.mark.parametrize("name", sorted(shipped_fixtures()))
def test_of_the_shipped_recordings_only_the_cut_one_is_broken(name: str) -> None:
    worse = [finding for finding in check(shipped_fixtures()[name]) if finding.severity != "note"]
    assert bool(worse) == (name == "cut")


KNOWN_BROKEN = {
    # The file's last newline is missing: the copy was trimmed.
    "sdk-python--lib-streaming-incomplete-partial-json-response.sse": {"sse-cut", "stream-end"},
    "synthetic--sdk-python--lib-streaming-fallback-response.sse": {"sse-cut", "stream-end"},
    # Its blocks are numbered 0 1 2 2 4 5 5 7 7.
    "vercel-ai--anthropic-code-execution-pdf-skill.1-d0e785f.sse": {"event-order"},
    # Several answers, one after the other, in one file.
    "vercel-ai--anthropic-programmatic-tool-calling.1.sse": {"event-order"},
    "vercel-ai--anthropic-tool-search-bm25.1.sse": {"event-order"},
    # The call was in the answer before.
    "vercel-ai--anthropic-issue-10819-web-fetch-error.2-93fc6a7.sse": {"block-result"},
}


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no recorded streams in {REAL} (RAWSSE_RECORDINGS)")
def test_real_streams_break_no_rule_but_for_those_that_are_known_to() -> None:
    broken = {}
    step = one_in(6)
    for number, path in enumerate(find_recordings(REAL)):
        if number % step and path.name not in KNOWN_BROKEN:
            continue
        if rules := {finding.rule for finding in check(Recording.load(path)) if finding.severity != "note"}:
            broken[path.name] = rules
    assert broken == KNOWN_BROKEN


def findings_of_odd(old: bytes, new: bytes) -> list[str]:
    body = GOOD.replace(BLOCK, SEARCH).replace(DELTA, b"")
    assert old in body
    return [f"{finding.severity}: {finding.rule}: {finding.text}" for finding in check(body.replace(old, new))]


def test_a_block_type_that_is_no_string_is_an_error() -> None:
    expected = 'error: event-data: a block of type ["x"], which is not a string'
    assert expected in findings_of_odd(b'"type":"web_search_tool_result"', b'"type":["x"]')


def test_a_delta_type_that_is_no_string_is_an_error() -> None:
    expected = 'error: event-data: a delta of type ["x"], which is not a string'
    found = [
        f"{finding.severity}: {finding.rule}: {finding.text}"
        for finding in check(GOOD.replace(b'"text_delta"', b'["x"]'))
    ]
    assert expected in found


def test_a_stop_reason_that_is_no_string_is_an_error() -> None:
    expected = "error: event-data: the stop reason {}, which is not a string"
    assert expected in findings_of_odd(b'"stop_reason":"end_turn"', b'"stop_reason":{}')


def test_a_result_for_a_call_whose_id_is_no_string_was_not_called() -> None:
    expected = "warning: block-result: a result for '[]', which was not called"
    assert expected in findings_of_odd(b'"tool_use_id":"s1"', b'"tool_use_id":[]')
