"""rawsse.client.stream: `_take` gives what has come, without waiting, and `_more` waits: together they are the iterator."""

from __future__ import annotations

from typing import Any

import pytest
from support.answers import ASK, SSE_HEAD, chunked
from support.faults import Network, Peer, client_without_loop
from support.streams import ANSWER, PING, STOP, Raw, block, block_start, block_stop, end, start, text_delta, to_bytes

from rawsse.client.network.link import drive
from rawsse.client.stream import EventStream, MessageStream
from rawsse.errors import EventOrderError, StreamCancelledError, StreamTruncatedError

TWO = [
    start(),
    *block(0, {"type": "text", "text": ""}, text_delta(0, "Hel"), text_delta(0, "lo")),
    PING,
    *block(1, {"type": "thinking", "thinking": ""}, {**text_delta(1, ""), "delta": {"type": "new_delta"}}),
    {"type": "new_event"},
    end("end_turn"),
    STOP,
]

both_answers = pytest.mark.parametrize("raws", [ANSWER, TWO], ids=["answer", "two"])
each_size = pytest.mark.parametrize("size", [1, 100, 100_000])


def opened(raws: list[Raw], size: int = 100_000) -> MessageStream:
    """A stream whose answer comes in pieces of so many bytes. Nothing of it suspends."""
    wire = SSE_HEAD + chunked(to_bytes(raws))
    peer = Peer(*(wire[at : at + size] for at in range(0, len(wire), size)))
    stream = client_without_loop(Network(peer), max_retries=0).messages.stream(**ASK)
    return drive(stream.__aenter__())


def wire_events(raws: list[Raw], size: int = 100_000) -> EventStream:
    wire = SSE_HEAD + chunked(to_bytes(raws))
    peer = Peer(*(wire[at : at + size] for at in range(0, len(wire), size)))
    events: EventStream = drive(client_without_loop(Network(peer)).messages.create(stream=True, **ASK))
    return events


def taken(source: Any) -> tuple[list[Any], int]:
    """All that it gives, and how often it had to be waited for."""
    items: list[Any] = []
    waits = 0
    while True:
        try:
            item = source._take()
        except StopAsyncIteration:
            return items, waits
        if item is not None:
            items.append(item)
        else:
            waits += 1
            drive(source._more())


def iterated(source: Any) -> list[Any]:
    async def story() -> list[Any]:
        return [item async for item in source]

    return drive(story())


def take_up_to(kind: str, stream: MessageStream) -> None:
    while (event := stream._take()) is not None:
        if event.type == kind:
            return


@each_size
@both_answers
def test_the_events_are_the_same_in_the_same_order(raws: list[Raw], size: int) -> None:
    stream = opened(raws, size)
    assert [event.type for event in taken(stream)[0]] == [event.type for event in iterated(opened(raws))]
    assert stream.ending is not None
    assert (stream.ending.kind, stream.current_message_snapshot.text) == (
        "complete",
        "Hello ☺" if raws is ANSWER else "Hello",
    )


@each_size
@both_answers
def test_the_events_of_the_wire_are_the_same_in_the_same_order(raws: list[Raw], size: int) -> None:
    assert [event.raw for event in taken(wire_events(raws, size))[0]] == raws
    assert [event.raw for event in iterated(wire_events(raws, size))] == raws


@each_size
@both_answers
def test_the_text_is_the_same(raws: list[Raw], size: int) -> None:
    texts = ["Hel", "lo ☺" if raws is ANSWER else "lo"]
    assert taken(opened(raws, size).text_stream)[0] == iterated(opened(raws, size).text_stream) == texts


def test_what_has_come_is_not_waited_for() -> None:
    for source in (opened(TWO), wire_events(TWO), opened(TWO).text_stream):
        assert taken(source)[1] == 0


def test_nothing_is_read_ahead_of_what_is_taken() -> None:
    stream = opened(TWO)
    take_up_to("content_block_delta", stream)
    assert stream.current_message_snapshot.text == "Hel"
    assert stream.ending is None
    drive(stream.close())


def test_a_text_whose_event_of_the_wire_was_taken_is_given_to_whoever_takes_next() -> None:
    stream = opened(TWO)
    take_up_to("content_block_delta", stream)
    assert stream.text_stream._take() == "Hel"
    take_up_to("content_block_delta", stream)
    assert getattr(stream._take(), "text", None) == "lo"
    drive(stream.close())


def test_what_is_wrong_is_raised_behind_what_came_before_it_and_again() -> None:
    raws = [start(), block_start(0, {"type": "text", "text": ""}), block_stop(0), text_delta(0, "late")]
    stream = opened(raws)
    take_up_to("content_block_stop", stream)
    assert (stream._take(), stream.ending) == (None, None)
    for _ in range(2):
        with pytest.raises(EventOrderError, match="content_block_delta may not come between content blocks"):
            drive(stream.__anext__())
    with pytest.raises(EventOrderError):
        stream._take()
    assert stream.current_message_snapshot.text == ""


def test_of_a_stream_that_is_closed_nothing_is_given_any_more() -> None:
    stream = opened(TWO)
    take_up_to("content_block_start", stream)
    drive(stream.close())
    for source in (stream, stream.text_stream):
        with pytest.raises(StreamCancelledError):
            source._take()


def test_a_cut_stream_does_not_end_as_a_whole_one() -> None:
    stream = opened(TWO[:4])
    with pytest.raises(StreamTruncatedError):
        taken(stream)
    with pytest.raises(StreamTruncatedError):
        stream._take()


def test_of_a_stream_that_is_not_open_nothing_can_be_taken() -> None:
    stream = client_without_loop(Network(Peer())).messages.stream(**ASK)
    with pytest.raises(RuntimeError, match="the stream is not open"):
        stream._take()
