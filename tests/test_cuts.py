"""Every fixture, cut off after every byte: a cut answer is never taken for a whole one, and what came is never lost.

The client reads them all from fake streams: every cut of the small fixtures, and of the others the cuts around and inside
each event; with RAWSSE_EVERY_CUT=1 every cut of every fixture (58,000; a minute). Below the client, decoder and fold are
tried at every byte in any case. Real sockets are cut at a sample of places.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.answers import ASK, client_of, head
from support.clock import run
from support.sockets import serving

from rawsse.client import AsyncClient, FakeStream, MessageStream, Stream, Timeouts
from rawsse.errors import APIError, APIStatusError, StreamTruncatedError
from rawsse.messages import MessageBuilder
from rawsse.replay import byte_by_byte, every_split, shipped_fixtures
from rawsse.sse import Decoder, Event

FIXTURES = {name: recording.body for name, recording in shipped_fixtures().items()}
EVERY_CUT = bool(os.environ.get("RAWSSE_EVERY_CUT"))
MAX_BYTES_FOR_EVERY_CUT = 1300

HEAD = head(content_type="text/event-stream", request_id="req_1")
NO_CLOCKS = Timeouts(connect=None, head=None, silence=None, content=None)


class Outcome(NamedTuple):
    """What a reader of a cut stream is told, and what it has."""

    kind: str
    tail_missing: bool
    message: Any


@cache
def frames(name: str) -> tuple[bytes, ...]:
    """The events of a fixture, as bytes. They are ended by two line feeds, as the API ends them."""
    body = FIXTURES[name]
    assert b"\r" not in body
    return tuple(frame + b"\n\n" for frame in body.split(b"\n\n")[:-1])


@cache
def outcome_of_events(name: str, count: int) -> Outcome:
    """What the first `count` events of the fixture come to, by the documentation: whole with `message_stop`, whole but for its
    tail with a stop reason, an error with an error event, and otherwise cut."""
    builder = MessageBuilder()
    whole = frames(name)[:count]
    for frame in whole:
        for event in Decoder().feed(frame):
            builder.feed(event)
    message = builder.message.to_dict() if builder.message else None
    if any(b"event: error\n" in frame for frame in whole):
        return Outcome("error", False, message)
    if message is None or message["stop_reason"] is None:
        return Outcome("truncated", False, message)
    return Outcome("complete", not any(b"event: message_stop\n" in frame for frame in whole), message)


def expected(name: str, cut: int) -> Outcome:
    """What a cut after so many bytes comes to: what the events come to that were whole by then."""
    return outcome_of_events(name, sum(end <= cut for end in accumulate(map(len, frames(name)))))


def cuts(name: str) -> Iterator[int]:
    """Where to cut: everywhere, or at, before, after and between the ends of events."""
    size = len(FIXTURES[name])
    if EVERY_CUT or size < MAX_BYTES_FOR_EVERY_CUT:
        yield from range(size + 1)
        return
    end = 0
    for frame in frames(name):
        yield from (end + 1, end + len(frame) // 2, end + len(frame) - 1, end + len(frame))
        end += len(frame)


async def outcome(stream: MessageStream) -> Outcome:
    """What a client is told by the stream, having made sure that stream, error and ending say the same."""
    error: APIError | None = None
    try:
        async with stream:
            await stream.until_done()
    except APIError as exc:
        error = exc
    ending = stream.ending
    assert ending is not None
    message = error.partial if error else stream.current_message_snapshot
    if error is not None:
        assert error.ending is ending
        assert isinstance(error, APIStatusError if ending.kind == "error" else StreamTruncatedError)
        assert (error.request_id, error.bytes_received) == ("req_1", ending.bytes_received)
    return Outcome(ending.kind, ending.tail_missing, message.to_dict() if message else None)


# --- Decoder and fold, after every byte ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIXTURES)
def test_decoder_and_fold_take_nothing_for_whole_before_its_last_byte(name: str) -> None:
    decoder, builder = Decoder(), MessageBuilder()
    ends = list(accumulate(map(len, frames(name))))
    count = 0
    for at, byte in enumerate(FIXTURES[name], start=1):
        for event in decoder.feed(bytes([byte])):
            builder.feed(event)
            count += 1
            assert at == ends[count - 1]
        if at in ends:
            wanted = outcome_of_events(name, count)
            assert (builder.is_complete, builder.is_done) == (
                wanted.kind == "complete",
                wanted[:2] == ("complete", False),
            )
            assert (builder.message.to_dict() if builder.message else None) == wanted.message
    assert count == len(ends)


# --- The client ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIXTURES)
def test_a_cut_answer_is_told_with_what_came(name: str) -> None:
    async def story() -> list[int]:
        wrong: list[int] = []
        streams: list[Stream] = []

        async def connect(*_: object) -> Stream:
            return streams.pop()

        client = client_of(connect=connect, timeouts=NO_CLOCKS)
        for cut in cuts(name):
            streams.append(FakeStream([HEAD, FIXTURES[name][:cut]]))
            if await outcome(client.messages.stream(**ASK)) != expected(name, cut):
                wrong.append(cut)
        return wrong

    assert run(story()) == []


@pytest.mark.parametrize("name", FIXTURES)
def test_the_whole_of_a_fixture_is_the_message_that_was_written_beside_it(name: str) -> None:
    beside = json.loads((Path(__file__).parents[1] / "fixtures" / f"{name}.json").read_text())
    whole = expected(name, len(FIXTURES[name]))
    assert (whole.kind, whole.tail_missing, whole.message) == (beside["ending"], False, beside["message"])


# --- Real sockets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_connection_that_is_cut_is_told_with_what_came(reset: bool) -> None:
    sample = [
        (name, cut) for name in ("tools", "error-after-content") for cut in range(0, len(FIXTURES[name]) + 1, 150)
    ]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        name, cut = sample[int(request.split(b"/")[1])]
        # A length that the body does not keep: so the cut is the network's, not HTTP's.
        writer.write(HEAD[:-2] + b"content-length: 99999\r\n\r\n" + FIXTURES[name][:cut])
        await writer.drain()
        if reset:
            await asyncio.sleep(1)  # until the client has read it: a reset throws away what was not
        else:
            writer.close()
            await writer.wait_closed()

    async def story() -> None:
        async with serving(serve) as origin:
            for number, (name, cut) in enumerate(sample):
                client = AsyncClient(api_key="x", base_url=f"{origin}/{number}", max_retries=0)
                assert await outcome(client.messages.stream(**ASK)) == expected(name, cut), (name, cut)

    run(story())


# --- The decoder alone, fed in two pieces and byte by byte -----------------------------------------------------------


@pytest.mark.parametrize("name", FIXTURES)
def test_the_events_of_a_fixture_are_the_same_however_it_is_cut_in_two(name: str) -> None:
    def decode(chunks: Iterable[bytes]) -> list[Event]:
        decoder = Decoder()
        return [event for chunk in chunks for event in decoder.feed(chunk)]

    body = FIXTURES[name]
    whole = decode([body])
    assert len(whole) == body.count(b"\n\n")
    assert all(decode(cut) == whole for cut in every_split(body))
    assert decode(byte_by_byte(body)) == whole
