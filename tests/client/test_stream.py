"""rawsse.client.stream: events, text and the message so far, over fake streams in virtual time. How streams end is tried in
`test_stream_endings.py`, closing them in `test_stream_closing.py`."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest
from support.answers import ASK, answer, client_of, head
from support.clock import run
from support.reading import Raw, fail, read, types
from support.streams import (
    ANSWER,
    PING,
    STOP,
    TOOL_CALL,
    block,
    block_start,
    end,
    start,
    text_delta,
    to_bytes,
    tool_block,
)

from rawsse import errors
from rawsse.client.retry import Timeouts
from rawsse.client.stream import EventStream
from rawsse.messages import ContentBlockDelta, ContentBlockStop, MessageStop, TextEvent
from rawsse.replay.fakes import FakeStream

# --- A whole answer ------------------------------------------------------------------------------------------------


def test_the_events_are_those_of_the_wire_each_followed_by_what_derives_from_it() -> None:
    events, _ = run(read(answer(ANSWER)))
    assert types(events) == [
        "message_start",
        "content_block_start",
        *("content_block_delta", "text") * 2,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [event.text for event in events if isinstance(event, TextEvent)] == ["Hel", "lo ☺"]


def test_a_stop_brings_what_it_finished() -> None:
    events, stream = run(read(answer(TOOL_CALL)))
    blocks = [event.content_block for event in events if isinstance(event, ContentBlockStop)]
    assert [raw and raw.type for raw in blocks] == ["text", "tool_use"]
    assert isinstance(events[-1], MessageStop)
    assert events[-1].message == stream.current_message_snapshot
    assert events[-1].message is not None
    assert events[-1].message.request_id == "req_1"


def test_an_event_stream_gives_the_wire_s_events_only() -> None:
    async def story() -> list[Any]:
        async with client_of(answer(ANSWER)).messages.events(ASK) as events:
            assert type(events) is EventStream
            return [event async for event in events]

    assert types(run(story())) == [raw["type"] for raw in ANSWER]


def test_each_delta_can_be_printed_where_a_character_came_in_two_halves() -> None:
    deltas = [text_delta(0, "a first_"), text_delta(0, "second"), text_delta(0, "b first_")]
    wire = answer([start(), *block(0, {"type": "text", "text": ""}, *deltas), end(), STOP])
    wire = wire.replace(b" first_", rb" \ud83d").replace(b"second", rb"\ude00")  # as long as before

    async def story() -> list[list[str]]:
        async with client_of(wire).messages.stream(**ASK) as stream:
            heard: list[Any] = [event async for event in stream]
        events: list[Any] = [event async for event in await client_of(wire).messages.create(**ASK, stream=True)]
        both: list[list[Any]] = [
            [each for each in given if type(each) is ContentBlockDelta] for given in (heard, events)
        ]
        of_wire = [[event.delta.text for event in given] for given in both]
        return [*of_wire, [event.text for event in heard if event.type == "text"]]

    whole = ["a ", "\U0001f600", "b "]
    assert run(story()) == [whole, whole, [*whole, "\ufffd"]]


def test_pings_are_events_of_the_wire_alone_and_the_timing_has_the_last_one() -> None:
    async def story() -> tuple[list[str], list[str], float | None]:
        wire = answer([PING, ANSWER[0], PING, *ANSWER[1:], PING])
        async with client_of(wire).messages.stream(**ASK) as stream:
            heard: list[str] = [event.type async for event in stream]
        events: list[str] = [event.type async for event in await client_of(wire).messages.create(**ASK, stream=True)]
        return heard, events, stream.timing.last_ping

    heard, events, last_ping = run(story())
    assert "ping" not in heard
    assert events.count("ping") == 3
    assert [kind for kind in heard if kind != "text"] == [kind for kind in events if kind != "ping"]
    assert last_ping == 0


def test_the_text_comes_piece_by_piece() -> None:
    async def story() -> list[str]:
        async with client_of(answer(TOOL_CALL)).messages.stream(**ASK) as stream:
            return [text async for text in stream.text_stream]

    assert run(story()) == ["Let me see."]


def test_the_text_and_the_events_share_one_iterator() -> None:
    async def story() -> list[str]:
        heard: list[str] = []
        async with client_of(answer(ANSWER)).messages.stream(**ASK) as stream:
            async for event in stream:
                heard += [event.type]
                if event.type == "content_block_start":
                    break
            async for text in stream.text_stream:
                assert text == "Hel"
                break
            heard += [event.type async for event in stream]
            heard += [text async for text in stream.text_stream]
        return heard

    assert run(story()) == [
        *("message_start", "content_block_start"),
        *("content_block_delta", "text", "content_block_stop", "message_delta", "message_stop"),
    ]


def test_the_final_message_is_the_whole_one_with_its_request_id() -> None:
    async def story() -> tuple[Any, Any]:
        async with client_of(answer(ANSWER)).messages.stream(**ASK) as stream:
            message = await stream.get_final_message()
            assert message == await stream.get_final_message() == stream.current_message_snapshot
            return message, stream

    message, stream = run(story())
    assert (message.text, message.stop_reason, message.usage.output_tokens) == ("Hello ☺", "end_turn", 7)
    assert (message.request_id, stream.request_id) == ("req_1", "req_1")


def test_the_final_message_may_be_asked_for_in_the_middle() -> None:
    async def story() -> str:
        async with client_of(answer(ANSWER)).messages.stream(**ASK) as stream:
            async for event in stream:
                if event.type == "content_block_delta":
                    break
            return (await stream.get_final_message()).text

    assert run(story()) == "Hello ☺"


def test_what_was_derived_and_not_read_yet_is_passed_over_with_the_rest() -> None:
    async def story() -> list[Any]:
        async with client_of(answer(ANSWER)).messages.stream(**ASK) as stream:
            async for event in stream:
                if event.type == "content_block_delta":
                    break
            await stream.until_done()
            return [event async for event in stream]

    assert run(story()) == []


def test_the_final_text_is_that_of_all_text_blocks() -> None:
    two = [start(), *block(0, {"type": "text", "text": "a"}), *block(1, {"type": "text", "text": "b"}), end(), STOP]

    async def story() -> str:
        async with client_of(answer(two)).messages.stream(**ASK) as stream:
            return await stream.get_final_text()

    assert run(story()) == "ab"


@pytest.mark.parametrize(("blocks", "kinds"), [([], "nothing"), (block(0, tool_block()), "tool_use")])
def test_an_answer_without_text_has_no_final_text(blocks: list[Raw], kinds: str) -> None:
    async def story() -> None:
        async with client_of(answer([start(), *blocks, end(), STOP])).messages.stream(**ASK) as stream:
            await stream.get_final_text()

    with pytest.raises(RuntimeError, match=f"the answer has no text; it has: {kinds}"):
        run(story())


def test_the_message_so_far_never_runs_ahead_of_the_events() -> None:
    async def story() -> list[str]:
        async with client_of(answer(ANSWER)).messages.stream(**ASK) as stream:
            with pytest.raises(RuntimeError, match="message_start has not come yet"):
                _ = stream.current_message_snapshot
            looks = (stream.current_message_snapshot.text async for event in stream if event.type != "ping")
            return [text async for text in looks]

    assert run(story()) == ["", "", "Hel", "Hel", *["Hello ☺"] * 5]


def test_the_head_of_the_response_is_at_hand() -> None:
    _, stream = run(read(answer(ANSWER)))
    assert (stream.response.status, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


def test_a_stream_must_be_opened_first() -> None:
    stream = client_of(answer(ANSWER)).messages.stream(**ASK)
    with pytest.raises(RuntimeError, match="the stream is not open: enter its `with` block"):
        _ = stream.response
    with pytest.raises(RuntimeError, match="the stream is not open: enter its `with` block"):
        run(stream.get_final_message())


def test_an_unused_stream_leaves_nothing() -> None:
    async def story() -> None:
        client_of(answer(ANSWER)).messages.stream(**ASK).text_stream.__aiter__()

    run(story())


def test_entering_again_changes_nothing() -> None:
    async def story() -> str:
        stream = client_of(answer(ANSWER)).messages.stream(**ASK)
        async with stream, stream:
            return await stream.get_final_text()

    assert run(story()) == "Hello ☺"


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_a_compressed_stream_is_read_too(encoding: str) -> None:
    data = to_bytes(ANSWER)
    encoded = gzip.compress(data) if encoding == "gzip" else data
    events, stream = run(read(head(content_type="text/event-stream", content_encoding=encoding) + encoded))
    assert types(events)[-1] == "message_stop"
    assert stream.ending is not None
    assert stream.ending.bytes_received == len(encoded)


def test_the_timing_says_when_the_first_event_and_the_first_content_came() -> None:
    raws = (start(), PING, block_start(0, {"type": "text", "text": ""}), text_delta(0, "Hi"), end(), STOP)
    parts = [to_bytes([raw]) for raw in raws]
    chunks = [part for raw in parts for part in (1.0, raw)]
    _, stream = run(read(FakeStream([head(content_type="text/event-stream"), *chunks], end=None)))
    timing = stream.timing
    assert (timing.connected, timing.head, timing.first_event, timing.first_content, timing.ended) == (0, 0, 1, 4, 6)


# --- Clocks --------------------------------------------------------------------------------------------------------


def paced(*chunks: bytes | float) -> FakeStream:
    return FakeStream([head(content_type="text/event-stream"), *chunks], end=None)


PINGS: list[bytes | float] = [30.0, to_bytes([PING])]


def test_pings_keep_the_connection_alive_but_are_no_content() -> None:
    error, stream = run(fail(paced(to_bytes(ANSWER[:2]), *PINGS * 50)))
    assert type(error) is errors.ContentTimeoutError
    assert error.message == "the connection lives, but no content came for 600 s"
    assert stream.timing.ended == 600
    assert (error.safe_to_retry, stream.ending and stream.ending.kind) == (False, "timeout")


@pytest.mark.parametrize("data", [b'data: {"type": "mood"}\n\n', b"data: [DONE]\n\n", b": a comment\n\n", b"x"])
def test_nothing_but_events_of_the_answer_is_content(data: bytes) -> None:
    nothing: list[bytes | float] = [30.0, data]
    error, stream = run(fail(paced(to_bytes(ANSWER[:2]), *nothing * 50)))
    assert type(error) is errors.ContentTimeoutError
    assert stream.timing.ended == 600


def test_long_thinking_with_pings_survives() -> None:
    events, _ = run(read(paced(to_bytes(ANSWER[:2]), *PINGS * 19, to_bytes(ANSWER[2:]))))
    assert types(events)[-1] == "message_stop"


def test_each_piece_of_content_gives_the_next_its_full_time() -> None:
    pieces: list[bytes | float] = [*PINGS * 19, to_bytes([text_delta(0, "x")])]
    _, stream = run(read(paced(to_bytes(ANSWER[:2]), *pieces * 5, to_bytes(ANSWER[5:]))))
    assert stream.current_message_snapshot.text == "x" * 5


def test_without_pings_the_silence_is_told() -> None:
    error, _ = run(fail(paced(to_bytes(ANSWER[:2]), 91.0)))
    assert type(error) is errors.SilenceTimeoutError
    assert error.partial is not None


def test_clocks_may_be_set_for_one_call() -> None:
    async def story() -> None:
        stream = client_of(paced(), timeouts=Timeouts(silence=5)).messages.stream(**ASK, timeouts=Timeouts(silence=7))
        with pytest.raises(errors.SilenceTimeoutError, match="for 7 s"):
            async with stream:
                await stream.until_done()

    run(story())


def test_a_slow_consumer_is_not_punished() -> None:
    async def story() -> str:
        deltas: list[bytes | float] = [1.0, to_bytes([text_delta(0, "x")])]
        client = client_of(paced(to_bytes(ANSWER[:2]), *deltas * 3, to_bytes(ANSWER[5:])))
        async with client.messages.stream(**ASK) as stream:
            async for _ in stream:
                await asyncio.sleep(1000)
            return stream.current_message_snapshot.text

    assert run(story()) == "xxx"
