"""rawsse.client.stream: every way in which a stream ends, and what the error then carries."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support.answers import ASK, SSE_HEAD, answer, chunked, client_of, plain
from support.clock import run
from support.pools import counts
from support.reading import Raw, body, fail, read, types
from support.streams import (
    ANSWER,
    PING,
    STOP,
    TOOL_CALL,
    block,
    block_start,
    delta,
    input_delta,
    start,
    text_delta,
    to_bytes,
)

from rawsse import errors
from rawsse.client import answer as answer_module
from rawsse.client.retry import Timeouts
from rawsse.errors import (
    APIError,
    APIStatusError,
    BodyTooLargeError,
    ContentTimeoutError,
    EventDataError,
    EventOrderError,
    EventTooLargeError,
    HTTPProtocolError,
    MessageTooLargeError,
    StreamTruncatedError,
    TotalTimeoutError,
)
from rawsse.messages import UnknownEvent
from rawsse.replay.fakes import FakeStream
from rawsse.sse import MAX_EVENT_BYTES

# --- Complete endings ----------------------------------------------------------------------------------------------


def test_a_whole_answer_ends_complete() -> None:
    _, stream = run(read(answer(ANSWER)))
    ending = stream.ending
    assert ending is not None
    assert ending.to_dict() == {
        "kind": "complete",
        "text": "the answer is whole",
        "phase": "done",
        "stop_reason": "end_turn",
        "error_type": None,
        "request_id": "req_1",
        "bytes_received": len(to_bytes(ANSWER)),
        "tail_missing": False,
    }


def test_while_it_runs_a_stream_has_no_ending() -> None:
    async def story() -> None:
        async with client_of(answer(ANSWER)).messages.stream(**ASK) as stream:
            await anext(stream)
            assert stream.ending is None

    run(story())


def test_a_server_that_holds_the_connection_does_not_delay_a_whole_answer() -> None:
    held = FakeStream([SSE_HEAD + b"".join(b"%x\r\n%b\r\n" % (len(d), d) for d in [to_bytes(ANSWER)])], end=None)
    _, stream = run(read(held))
    assert stream.ending is not None
    assert (stream.ending.kind, stream.timing.ended) == ("complete", 0)


@pytest.mark.parametrize(("raws", "aborted", "idle"), [(ANSWER, False, 1), ([start(), STOP], True, 0)])
def test_the_connection_is_kept_or_dropped_with_the_ending_not_with_the_block(
    raws: list[Raw], aborted: bool, idle: int
) -> None:
    async def story() -> tuple[bool, int]:
        connection = FakeStream([SSE_HEAD + chunked(to_bytes(raws))], end=None)
        client = client_of(connection)
        async with client.messages.stream(**ASK) as stream:
            with contextlib.suppress(EventOrderError):
                await stream.until_done()
            return connection.is_aborted, counts(client._pools)[1]

    assert run(story()) == (aborted, idle)


def test_what_comes_after_message_stop_is_not_read() -> None:
    events, stream = run(read(answer([*ANSWER, start(), {"type": "error", "error": {}}])))
    assert types(events)[-1] == "message_stop"
    assert stream.error_event is None


TAILS: list[tuple[FakeStream, str]] = [
    (body(*ANSWER[:-1]), "message_stop never came: the body ended"),
    (FakeStream([answer(ANSWER[:-1])[:-5]]), "message_stop never came: the connection was closed in the middle of"),
    (
        FakeStream([answer(ANSWER[:-1])[:-5]], end=ConnectionResetError(104, "reset by peer")),
        "message_stop never came: the connection was lost in the middle of the answer: reset by peer",
    ),
    (FakeStream([answer(ANSWER[:-1])[:-5]], end=None), "message_stop never came: not a single byte came for 90 s"),
]


@pytest.mark.parametrize(("stream", "text"), TAILS)
def test_where_only_the_tail_is_missing_the_answer_is_complete_and_says_so(stream: FakeStream, text: str) -> None:
    events, read_stream = run(read(stream))
    ending = read_stream.ending
    assert ending is not None
    assert types(events)[-1] == "message_delta"
    assert (ending.kind, ending.tail_missing, ending.phase, ending.stop_reason) == (
        "complete",
        True,
        "tail",
        "end_turn",
    )
    assert ending.text.startswith(text)


# --- Other endings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(len(TOOL_CALL) - 1))
def test_a_body_that_ends_before_the_stop_reason_is_truncated_with_what_came(count: int) -> None:
    error, stream = run(fail(body(*TOOL_CALL[:count])))
    assert type(error) is StreamTruncatedError
    assert error.message == "the body ended before message_stop"
    assert (error.phase, error.safe_to_retry) == (("content", False) if count > 1 else ("open", True))
    assert error.request_id == "req_1"
    assert error.bytes_received == len(to_bytes(TOOL_CALL[:count]))
    assert (error.partial is None) == (count == 0)
    assert error.ending is stream.ending
    assert error.ending is not None
    assert (error.ending.kind, error.ending.phase) == ("truncated", error.phase)


def test_the_partial_message_may_be_sent_back_without_the_open_call() -> None:
    error, _ = run(fail(body(*TOOL_CALL[:7])))
    assert error.partial is not None
    assert error.partial.request_id == "req_1"
    assert not error.partial.content[1].complete
    assert error.partial.replayable() == {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}]}


def test_a_body_that_ends_inside_an_event_says_so() -> None:
    stream = SSE_HEAD + chunked(to_bytes(ANSWER[:2]) + b'event: ping\ndata: {"ty')
    error, _ = run(fail(stream))
    assert error.message == """the body ended before message_stop, inside an event (b'event: ping\\ndata: {"ty')"""


def test_a_body_that_is_empty_is_truncated() -> None:
    error, _ = run(fail(plain(b"", content_type="text/event-stream")))
    assert (type(error), error.phase, error.partial) == (StreamTruncatedError, "open", None)


ERROR_TYPES = [
    ("invalid_request_error", errors.BadRequestError, 400),
    ("authentication_error", errors.AuthenticationError, 401),
    ("billing_error", errors.PaymentRequiredError, 402),
    ("permission_error", errors.PermissionDeniedError, 403),
    ("not_found_error", errors.NotFoundError, 404),
    ("request_too_large", errors.ContentTooLargeError, 413),
    ("rate_limit_error", errors.RateLimitError, 429),
    ("api_error", errors.InternalServerError, 500),
    ("timeout_error", errors.GatewayTimeoutError, 504),
    ("overloaded_error", errors.OverloadedError, 529),
    ("brand_new_error", errors.InternalServerError, 500),
]


@pytest.mark.parametrize("before", [[], [PING], [start()], ANSWER[:4]], ids=["first", "ping", "start", "content"])
@pytest.mark.parametrize(("kind", "cls", "status"), ERROR_TYPES)
def test_an_error_event_raises_the_class_of_its_type(
    kind: str, cls: type[APIStatusError], status: int, before: list[Raw]
) -> None:
    raw = {"type": "error", "error": {"type": kind, "message": "No."}, "request_id": "req_body"}
    error, stream = run(fail(body(*before, raw)))
    assert type(error) is cls
    assert isinstance(error, APIStatusError)
    assert error.message == f"error event, {kind}: No."
    assert (error.status_code, error.type, error.in_stream, error.body) == (status, kind, True, raw)
    assert error.safe_to_retry is ((status == 429 or status >= 500) and before != ANSWER[:4])
    assert stream.error_event is not None
    assert stream.error_event.raw == raw
    assert stream.ending is not None
    assert (stream.ending.kind, stream.ending.error_type) == ("error", kind)


@pytest.mark.parametrize(
    ("data", "cls", "message"),
    [
        (b"event: message_start\ndata: {\n\n", EventDataError, "the data of event 'message_start' are not JSON"),
        (to_bytes([STOP]), EventOrderError, "message_stop may not come before message_start (allowed"),
        (to_bytes([start(), text_delta(0, "x")]), EventOrderError, "content_block_delta may not come between content"),
    ],
)
def test_what_breaks_the_protocol_is_named(data: bytes, cls: type[APIError], message: str) -> None:
    error, stream = run(fail(SSE_HEAD + chunked(data)))
    assert type(error) is cls
    assert error.message.startswith(message)
    assert not error.safe_to_retry
    assert stream.ending is not None
    assert stream.ending.kind == "error"


def test_a_lenient_client_reads_what_a_strict_one_refuses() -> None:
    disordered = [start(), block_start(0, {"type": "text", "text": ""}), text_delta(0, "hi"), STOP]
    assert type(run(fail(body(*disordered)))[0]) is EventOrderError
    _, stream = run(read(body(*disordered), strict=False))
    assert stream.current_message_snapshot.text == "hi"
    assert stream.ending is not None
    assert (stream.ending.kind, stream.ending.tail_missing) == ("complete", False)


def test_events_that_were_whole_before_one_too_large_are_handed_out() -> None:
    async def story() -> list[str]:
        data = to_bytes(ANSWER[:2]) + b"data: " + b"x" * 400
        async with client_of(SSE_HEAD + chunked(data), max_event_bytes=350).messages.stream(**ASK) as stream:
            heard: list[str] = [(await anext(stream)).type for _ in range(2)]
            with pytest.raises(EventTooLargeError, match=r"larger than max_event_bytes \(350\)"):
                await anext(stream)
            assert stream.ending is not None
            assert stream.ending.kind == "limit"
        return heard

    assert run(story()) == ["message_start", "content_block_start"]


def test_a_message_that_is_too_large_ends_the_stream_with_what_fitted() -> None:
    error, stream = run(fail(body(start(), *block(0, {"type": "text", "text": "x" * 1000})), max_message_bytes=400))
    assert type(error) is MessageTooLargeError
    assert error.partial is not None
    assert stream.ending is not None
    assert stream.ending.kind == "limit"


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "text/html", "TEXT/HTML"])
def test_an_answer_that_is_no_event_stream_is_named(kind: str) -> None:
    error, stream = run(fail(plain(b'{"id": "msg_1"}', content_type=kind, request_id="req_1")))
    assert type(error) is HTTPProtocolError
    wanted = kind.lower().partition(";")[0]
    assert error.message == f"""asked for an event stream, got {wanted}: b'{{"id": "msg_1"}}'"""
    assert (error.phase, error.request_id, error.bytes_received) == ("open", "req_1", 15)
    assert stream.ending is not None
    assert stream.ending.kind == "error"


@pytest.mark.parametrize("fields", [{}, {"content_type": "text/plain"}, {"content_type": "application/octet-stream"}])
def test_an_event_stream_may_be_called_something_else(fields: dict[str, str]) -> None:
    events, _ = run(read(plain(to_bytes(ANSWER), **fields)))
    assert types(events)[-1] == "message_stop"


@pytest.mark.parametrize("status", ["500 Internal Server Error", "429 Too Many Requests", "400 Bad Request"])
def test_a_refusal_is_raised_by_opening(status: str) -> None:
    refusal = plain(b'{"type": "error", "error": {"type": "x", "message": "No."}}', status, request_id="req_2")
    error, stream = run(fail(refusal))
    assert isinstance(error, APIStatusError)
    assert (error.request_id, error.phase, error.partial) == ("req_2", "open", None)
    assert error.safe_to_retry is error.may_heal
    assert stream.ending is error.ending
    assert stream.ending is not None
    assert (stream.ending.kind, stream.ending.error_type) == ("error", "x")


def test_a_failure_to_connect_is_an_ending_too() -> None:
    async def refuse(*_: object) -> FakeStream:
        raise errors.APIConnectionError("cannot connect") from OSError("refused")

    error, stream = run(fail(b"", connect=refuse))
    assert (error.phase, error.safe_to_retry, str(error.__cause__)) == ("connect", True, "refused")
    assert stream.ending is not None
    assert (stream.ending.kind, stream.ending.phase) == ("truncated", "connect")


def test_whoever_reads_on_after_a_failure_gets_it_again() -> None:
    async def story() -> None:
        async with client_of(body(*ANSWER[:4])).messages.stream(**ASK) as stream:
            for again in (stream.until_done, stream.get_final_message, stream.text_stream.__anext__, stream.__anext__):
                with pytest.raises(StreamTruncatedError, match="the body ended before message_stop"):
                    await again()
            assert stream.ending is not None
            assert stream.ending.kind == "truncated"

    run(story())


def test_what_does_not_end_a_stream_is_passed_over() -> None:
    data = to_bytes(ANSWER[:4]) + b": a comment\n\ndata: [DONE]\n\nevent: mood\ndata: sunny\n\n" + to_bytes(ANSWER[4:])
    events, _ = run(read(SSE_HEAD + chunked(data)))
    assert [type(event) for event in events if event.type == "mood"] == [UnknownEvent]
    assert types(events)[-1] == "message_stop"


def test_events_without_an_event_line_are_read_by_their_type() -> None:
    data = to_bytes(ANSWER).decode()
    bare = "".join(line for line in data.splitlines(keepends=True) if not line.startswith("event:")).encode()
    events, _ = run(read(SSE_HEAD + chunked(bare)))
    assert types(events) == types(run(read(answer(ANSWER)))[0])


def test_a_thinking_block_cut_before_its_signature_is_not_sent_back() -> None:
    thought = block_start(0, {"type": "thinking", "thinking": "", "signature": ""})
    error, _ = run(fail(body(start(), thought, delta(0, "thinking_delta", thinking="hm"), input_delta(1, "{"))))
    assert error.partial is not None
    assert error.partial.content[0].thinking == "hm"
    assert error.partial.replayable() is None


# --- A server that never stops ---------------------------------------------------------------------------------------


def one_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Flood(FakeStream):
    """A server that has always sent more before it is asked. Each read takes a quarter of a second of the reader's own time."""

    async def read(self, deadline: float) -> bytes:
        await asyncio.sleep(0.25)
        return await super().read(deadline)


BEGINNING = SSE_HEAD + one_chunk(to_bytes([start(), block_start(0, {"type": "text", "text": ""})]))


@pytest.mark.parametrize("data", [b": c\n\n", b"\n\n", b"id: 7\n\n", b"data: [DONE]\n\n", to_bytes([PING])])
def test_a_server_that_always_has_something_to_say_does_not_stop_the_clock_of_content(data: bytes) -> None:
    error, stream = run(fail(Flood([BEGINNING, *[one_chunk(data)] * 1000]), timeout=Timeouts(content=20)))
    assert type(error) is ContentTimeoutError
    assert stream.timing.ended == pytest.approx(20, abs=1)


def test_a_server_that_always_has_more_content_does_not_stop_the_clock_of_the_whole_call() -> None:
    more = [one_chunk(to_bytes([text_delta(0, "x")]))] * 1000
    error, stream = run(fail(Flood([BEGINNING, *more]), timeout=Timeouts(content=5, total=20)))
    assert type(error) is TotalTimeoutError
    assert stream.timing.ended == pytest.approx(20, abs=1)


@pytest.mark.parametrize("filler", [b": c\n", b"\n", b"id: 7\n\n", b"event: x\n\n", b"retry: 1\n", b"x\n"])
def test_what_comes_without_an_event_is_bounded(filler: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_module, "MAX_FILLER_BYTES", 1000)
    ping, flood = one_chunk(to_bytes([PING])), [one_chunk(filler * (990 // len(filler)))]
    wire = [BEGINNING, *flood, ping, *flood, ping, *flood * 2, ping]
    error, stream = run(fail(FakeStream(wire), max_event_bytes=500))
    assert type(error) is BodyTooLargeError
    assert error.message == "more than 1500 bytes came without an event"
    assert stream.ending is not None
    assert (stream.ending.kind, stream.timing.last_ping) == ("limit", 0)


def test_a_large_event_may_come_in_many_reads() -> None:
    text = "x" * (MAX_EVENT_BYTES - 1000)
    data = to_bytes([text_delta(0, text)])
    pieces = [one_chunk(data[at : at + 1024 * 1024]) for at in range(0, len(data), 1024 * 1024)]
    _, stream = run(read(FakeStream([BEGINNING, *pieces, one_chunk(to_bytes(ANSWER[-3:]))])))
    assert stream.current_message_snapshot.text == text
