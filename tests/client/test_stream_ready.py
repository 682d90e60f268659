"""rawsse.client.stream: what can be had of a stream without waiting is what would have come by waiting."""

from __future__ import annotations

from typing import Any

import pytest
from support.answers import ASK, SSE_HEAD, chunked, client_of
from support.clock import run
from support.streams import ANSWER, PING, STOP, Raw, block, block_start, block_stop, end, start, text_delta, to_bytes

from rawsse.client.events import EventStream
from rawsse.client.stream import MessageStream
from rawsse.errors import EventOrderError
from rawsse.messages.events import MessageStreamEvent, StreamEvent

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


def in_one_piece(raws: list[Raw]) -> bytes:
    return SSE_HEAD + chunked(to_bytes(raws))


def message_stream(raws: list[Raw]) -> MessageStream:
    return client_of(in_one_piece(raws)).messages.stream(**ASK)


async def event_stream(raws: list[Raw]) -> EventStream:
    stream: EventStream = await client_of(in_one_piece(raws)).messages.create(stream=True, **ASK)
    return stream


async def read_up_to(kind: str, stream: MessageStream) -> None:
    async for event in stream:
        if event.type == kind:
            return


@both_answers
def test_the_events_are_the_same_in_the_same_order(raws: list[Raw]) -> None:
    async def story() -> None:
        async with message_stream(raws) as stream:
            waited = [event.type async for event in stream]
            text = stream.current_message_snapshot.text
        async with message_stream(raws) as stream:
            got: list[str] = []
            while (event := stream._take_ready() or await anext(stream, None)) is not None:
                got.append(event.type)
            assert (got, stream.current_message_snapshot.text) == (waited, text)
            assert stream.ending is not None
            assert stream.ending.kind == "complete"

    run(story())


@both_answers
def test_the_events_of_the_wire_are_the_same_in_the_same_order(raws: list[Raw]) -> None:
    async def story() -> list[Any]:
        stream = await event_stream(raws)
        got: list[StreamEvent] = []
        while (event := stream._next_ready() or await anext(stream, None)) is not None:
            got.append(event)
        return [event.raw for event in got]

    assert run(story()) == raws


def test_what_begins_and_ends_an_answer_and_pings_must_be_waited_for() -> None:
    async def story() -> tuple[list[str], list[str]]:
        stream = await event_stream(TWO)
        ready: list[str] = []
        waited: list[str] = []
        while True:
            if (event := stream._next_ready()) is not None:
                ready.append(event.type)
            elif (event := await anext(stream, None)) is not None:
                waited.append(event.type)
            else:
                return ready, waited

    delta, stop = "content_block_delta", "content_block_stop"
    ready = [delta, delta, stop, "content_block_start", delta, stop, "message_delta"]
    assert run(story()) == (ready, ["message_start", "content_block_start", "ping", "new_event", "message_stop"])


def test_the_text_is_the_same() -> None:
    async def story() -> list[str]:
        async with message_stream(TWO) as stream:
            await read_up_to("content_block_start", stream)
            return [str(stream._take_ready_text()) for _ in range(3)]

    assert run(story()) == ["Hel", "lo", "None"]


def test_a_text_whose_event_was_taken_by_half_is_left_to_who_takes_the_other_half() -> None:
    async def story() -> tuple[Any, ...]:
        async with message_stream(TWO) as stream:
            await read_up_to("content_block_delta", stream)
            return stream._take_ready_text(), getattr(stream._take_ready(), "text", None), stream._take_ready_text()

    assert run(story()) == (None, "Hel", "lo")


def test_what_is_wrong_is_found_by_who_waits() -> None:
    raws = [start(), block_start(0, {"type": "text", "text": ""}), block_stop(0), text_delta(0, "late")]

    async def story() -> str:
        async with message_stream(raws) as stream:
            await read_up_to("content_block_stop", stream)
            assert (stream._take_ready(), stream.ending) == (None, None)
            with pytest.raises(EventOrderError, match="content_block_delta may not come between content blocks"):
                await anext(stream)
            return stream.current_message_snapshot.text

    assert run(story()) == ""


def test_nothing_is_ready_of_a_stream_that_is_closed() -> None:
    async def story() -> object:
        async with message_stream(TWO) as stream:
            await read_up_to("content_block_start", stream)
            assert stream._pending
        return stream._take_ready()

    assert run(story()) is None


@pytest.mark.parametrize(("text", "waited"), [("", 5.0), ("x", 0.0)], ids=["empty", "text"])
def test_the_content_clock_starts_afresh_as_it_does_for_who_waits(text: str, waited: float) -> None:
    async def story() -> float:
        async with message_stream([start(), *block(0, {"type": "text", "text": ""}, text_delta(0, text))]) as stream:
            await read_up_to("content_block_start", stream)
            exchange: Any = stream._call.exchange
            exchange._waited_for_content = 5.0
            assert stream._take_ready() is not None
            return float(exchange._waited_for_content)

    assert run(story()) == waited


class Idle:
    """A watcher that does nothing."""

    def asked(self) -> None: ...

    def note(self, event: MessageStreamEvent) -> None: ...

    async def stop(self) -> None: ...


def test_of_a_stream_that_is_watched_nothing_is_ready() -> None:
    async def story() -> object:
        async with message_stream(TWO) as stream:
            stream._watch(Idle())
            await read_up_to("content_block_start", stream)
            return stream._take_ready()

    assert run(story()) is None
