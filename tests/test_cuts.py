"""Every fixture, cut off after every byte: a cut answer is never taken for a whole one, and what came is never lost.

Decoder and fold are tried at every byte; so is `Answer` with the small fixtures, and with the others around and inside each
event, but only of some. Both clients read a sample, from fake streams and from real sockets. With
RAWSSE_EVERY_CUT=1 every fixture is cut off, and cut in two, after each of its bytes (58,000), and both clients read every cut
from fake streams: two minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.answers import ASK, client_of, head
from support.background import Background
from support.clock import run
from support.reading import Attempt
from support.sampling import one_in
from support.sockets import serving

from rawsse.client.answer import Answer
from rawsse.client.blocking import Client
from rawsse.client.client import AsyncClient
from rawsse.client.retry import Timeouts
from rawsse.errors import APIError, APIStatusError, Ending, StreamTruncatedError
from rawsse.messages import MessageBuilder
from rawsse.replay import byte_by_byte, shipped_fixtures
from rawsse.replay.fakes import FakeStream, fake_links
from rawsse.sse import Decoder, Event

FIXTURES = {name: recording.body for name, recording in shipped_fixtures().items()}
EVERY_CUT = bool(os.environ.get("RAWSSE_EVERY_CUT"))
MAX_BYTES_FOR_EVERY_CUT = 1000
SMALLEST = min(FIXTURES, key=lambda name: len(FIXTURES[name]) if b"message_stop" in FIXTURES[name] else 99_999)

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


def cuts(name: str, *, is_small: int = MAX_BYTES_FOR_EVERY_CUT, deltas: int = 1) -> Iterator[int]:
    """Where to cut: everywhere, or at, before, after and between the ends of events; of the deltas, of one in so many."""
    size = len(FIXTURES[name])
    if EVERY_CUT or size < is_small:
        yield from range(size + 1)
        return
    end = 0
    for number, frame in enumerate(frames(name)):
        if number % deltas == 0 or b"event: content_block_delta" not in frame:
            yield from (end + 1, end + len(frame) // 2, end + len(frame) - 1, end + len(frame))
        end += len(frame)


def outcome(error: APIError | None, ending: Ending | None, message: Any) -> Outcome:
    """What a caller is told, having made sure that message, error and ending say the same."""
    assert ending is not None
    if error is not None:
        assert error.ending == ending
        assert isinstance(error, APIStatusError if ending.kind == "error" else StreamTruncatedError)
        assert (error.request_id, error.bytes_received) == ("req_1", ending.bytes_received)
        message = error.partial
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


# --- The answer, without a client ------------------------------------------------------------------------------------


def answered(*pieces: bytes) -> Attempt[Answer]:
    return Attempt(Answer).send().play(*filter(None, pieces), b"")


def outcome_of_answer(answer: Answer) -> Outcome:
    assert answer.is_over
    if answer.error is not None:
        answer.fail(answer.error)
    return outcome(answer.error, answer.ending(), answer.builder.message)


@pytest.mark.parametrize("name", FIXTURES)
def test_a_cut_answer_has_its_ending_and_what_came(name: str) -> None:
    wrong = [
        cut
        for cut in cuts(name, deltas=6)
        if outcome_of_answer(answered(HEAD, FIXTURES[name][:cut]).exchange) != expected(name, cut)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", FIXTURES)
def test_an_answer_is_the_same_however_it_is_cut_in_two(name: str) -> None:
    wire = HEAD + FIXTURES[name]
    whole = answered(wire)
    told = outcome_of_answer(whole.exchange)
    names = [frame.split(b"\n")[0] for frame in frames(name)]
    until_stop = names[: names.index(b"event: message_stop") + 1] if told.kind == "complete" else names
    assert [f"event: {event.type}".encode() for event in whole.events] == [*filter(b"event: error".__ne__, until_stop)]
    wrong = []
    in_head = range(1, len(HEAD)) if name == SMALLEST else ()  # it is the same for all
    step = one_in(2) if name == SMALLEST else one_in(7)
    in_body = list(cuts(name, is_small=len(FIXTURES[SMALLEST]) + 1, deltas=3))[::step]
    for cut in (*in_head, *(len(HEAD) + cut for cut in in_body)):
        attempt = answered(wire[:cut], wire[cut:])
        if attempt.events != whole.events or outcome_of_answer(attempt.exchange) != told:
            wrong.append(cut)
    assert wrong == []


@pytest.mark.parametrize("name", FIXTURES)
def test_an_answer_is_the_same_byte_by_byte(name: str) -> None:
    whole, slow = answered(HEAD + FIXTURES[name]), answered(*byte_by_byte(HEAD + FIXTURES[name]))
    assert slow.events == whole.events
    assert outcome_of_answer(slow.exchange) == outcome_of_answer(whole.exchange) == expected(name, len(FIXTURES[name]))


# --- The clients -----------------------------------------------------------------------------------------------------


async def outcome_of_stream(client: AsyncClient) -> Outcome:
    error: APIError | None = None
    try:
        async with client.messages.stream(**ASK) as stream:
            await stream.until_done()
    except APIError as exc:
        error = exc
    return outcome(error, stream.ending, None if error else stream.current_message_snapshot)


def outcome_of_blocking_stream(client: Client) -> Outcome:
    error: APIError | None = None
    try:
        with client.messages.stream(**ASK) as stream:
            stream.until_done()
    except APIError as exc:
        error = exc
    return outcome(error, stream.ending, None if error else stream.current_message_snapshot)


def sample(step: int) -> list[tuple[str, int]]:
    names = ("tools", "error-after-content", "cut")
    return [(name, cut) for name in names for cut in range(0, len(FIXTURES[name]) + 1, step)]


SAMPLE = [(name, cut) for name in FIXTURES for cut in cuts(name)] if EVERY_CUT else sample(60)


def streams() -> Callable[..., Any]:
    """What a client of fake streams connects to: one after the other."""
    made = (FakeStream([HEAD, FIXTURES[name][:cut]]) for name, cut in SAMPLE)

    async def connect(*_: object) -> FakeStream:
        return next(made)

    return fake_links(connect)


def test_a_client_is_told_the_same() -> None:
    async def story() -> list[tuple[str, int]]:
        client = client_of(connect=streams(), timeouts=NO_CLOCKS)
        return [each for each in SAMPLE if await outcome_of_stream(client) != expected(*each)]

    assert run(story()) == []


def test_a_client_without_an_event_loop_is_told_the_same() -> None:
    client = Client(api_key="x", base_url="http://api.example", connect=streams(), timeouts=NO_CLOCKS, max_retries=0)
    assert [each for each in SAMPLE if outcome_of_blocking_stream(client) != expected(*each)] == []


@pytest.mark.parametrize("name", FIXTURES)
def test_the_whole_of_a_fixture_is_the_message_that_was_written_beside_it(name: str) -> None:
    beside = json.loads((Path(__file__).parents[1] / "fixtures" / f"{name}.json").read_text())
    whole = expected(name, len(FIXTURES[name]))
    assert (whole.kind, whole.tail_missing, whole.message) == (beside["ending"], False, beside["message"])


# --- Real sockets --------------------------------------------------------------------------------------------------

REAL_SAMPLE = sample(180)


class Cutter:
    """A server that sends as much of a fixture as the path of the request says, and breaks the connection off there."""

    def __init__(self, *, is_reset: bool = False) -> None:
        self._is_reset = is_reset

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        name, cut = REAL_SAMPLE[int(request.split(b"/")[1])]
        # A length that the body does not keep: so the cut is the network's, not HTTP's.
        writer.write(HEAD[:-2] + b"content-length: 99999\r\n\r\n" + FIXTURES[name][:cut])
        await writer.drain()
        if self._is_reset:  # when the client has read it: a reset throws away what was not
            await asyncio.sleep(1)
        else:
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
def test_a_connection_that_is_cut_is_told_with_what_came(is_reset: bool) -> None:
    async def story() -> None:
        async with serving(Cutter(is_reset=is_reset)) as origin:
            # A reset needs real time.
            for number, each in list(enumerate(REAL_SAMPLE))[:: one_in(3) if is_reset else 1]:
                client = AsyncClient(api_key="x", base_url=f"{origin}/{number}", max_retries=0)
                assert await outcome_of_stream(client) == expected(*each), each

    run(story())


def test_without_an_event_loop_it_is_told_the_same() -> None:
    with Background() as background:
        origin = background.enter(serving(Cutter()))
        for number, each in enumerate(REAL_SAMPLE):
            with Client(api_key="x", base_url=f"{origin}/{number}", max_retries=0) as client:
                assert outcome_of_blocking_stream(client) == expected(*each), each


# --- The decoder alone, fed in two pieces and byte by byte -----------------------------------------------------------


def decode(chunks: Iterable[bytes]) -> list[Event]:
    decoder = Decoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize("name", FIXTURES)
def test_the_events_of_a_fixture_are_the_same_however_it_is_cut_in_two(name: str) -> None:
    body = FIXTURES[name]
    whole = decode([body])
    assert len(whole) == body.count(b"\n\n")
    assert all(decode([body[:cut], body[cut:]]) == whole for cut in cuts(name))
    assert decode(byte_by_byte(body)) == whole


@pytest.mark.parametrize("name", FIXTURES)
def test_an_event_between_its_neighbours_is_the_same_at_every_cut(name: str) -> None:
    """Every byte of every fixture (the plain suite: every second one, and in the next event the others): between two events
    nothing is pending, so those farther away make no difference."""
    step = one_in(2)
    whole = decode([FIXTURES[name]])
    for number, frame in enumerate(frames(name)):
        first = max(number - 1, 0)
        stream = b"".join(frames(name)[first : number + 2])
        start = sum(map(len, frames(name)[first:number]))
        for cut in range(start + number % step, start + len(frame), step):
            assert decode([stream[:cut], stream[cut:]]) == whole[first : number + 2], (number, cut - start)
