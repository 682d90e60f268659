"""`aiter_events` and `iter_events`: the events of a stream whose bytes come from an iterator of another library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from support.clock import run
from support.loops import Loop, each_loop

from rawsse.errors import EventTooLargeError
from rawsse.sse import Decoder, Event, aiter_events, iter_events

STREAM = "\ufeffid: 7\r\nevent: é\r\ndata: a\r\ndata: ☺\r\n\r\n: c\n\nretry: 9\ndata\n\nid: 8\n\ndata: last".encode()
# By section 9.2.6 of the standard. The id 8 comes with no data: it sets the last event ID without an event.
EVENTS = [Event("é", "a\n☺", "7"), Event("message", "", "7")]
PENDING = b"data: last"

Read = Callable[[Iterable[Any], Decoder | None], list[Event]]


class Source:
    """An async iterator of chunks, and whether it was closed."""

    def __init__(self, chunks: Iterable[Any]) -> None:
        self._chunks = iter(chunks)
        self.is_closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            return chunk  # type: ignore[no-any-return]
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.is_closed = True


def read_async(chunks: Iterable[bytes], decoder: Decoder | None = None) -> list[Event]:
    async def story() -> list[Event]:
        return [event async for event in aiter_events(Source(chunks), decoder)]

    return run(story())


def read_sync(chunks: Iterable[bytes], decoder: Decoder | None = None) -> list[Event]:
    return list(iter_events(chunks, decoder))


each_way = pytest.mark.parametrize("read", [read_async, read_sync])


def every_cut_into_two(stream: bytes) -> Iterator[list[bytes]]:
    return ([stream[:at], stream[at:]] for at in range(len(stream) + 1))


@each_way
def test_a_stream_may_be_cut_anywhere(read: Read) -> None:
    for chunks in every_cut_into_two(STREAM):
        assert read(chunks, None) == EVENTS, chunks


def test_an_event_comes_at_the_byte_that_completes_it() -> None:
    came: list[bytes] = []

    def chunks() -> Iterator[bytes]:
        for byte in b"data: 1\n\ndata: 2\n\n":
            came.append(bytes([byte]))
            yield came[-1]

    assert [(len(came), event.data) for event in iter_events(chunks())] == [(9, "1"), (18, "2")]


@each_way
def test_a_decoder_of_the_callers_tells_what_was_pending_and_how_to_come_back(read: Read) -> None:
    for chunks in every_cut_into_two(STREAM):
        decoder = Decoder()
        read(chunks, decoder)
        assert (decoder.last_event_id, decoder.retry, decoder.close()) == ("8", 9, PENDING), chunks


def test_the_events_before_one_that_is_too_large_come_first() -> None:
    events = iter_events([b"data: 1\n\ndata: 2\n\ndata: " + b"x" * 20], Decoder(max_event_bytes=16))
    assert [next(events).data, next(events).data] == ["1", "2"]
    with pytest.raises(EventTooLargeError):
        next(events)


@each_way
def test_chunks_may_be_any_kind_of_bytes(read: Read) -> None:
    assert read([bytearray(b"data: a\n"), memoryview(b"\n")], None) == [Event("message", "a")]


@each_way
@pytest.mark.parametrize("chunk", ["data: a\n\n", (b"data: a\n\n", True), 7], ids=["text", "iter_chunks", "bytes"])
def test_what_is_not_bytes_is_named(read: Read, chunk: Any) -> None:
    with pytest.raises(TypeError, match=f"must be bytes, not {type(chunk).__name__}"):
        read([chunk], None)


# --- The source ------------------------------------------------------------------------------------------------------


def test_leaving_early_closes_the_source() -> None:
    async def story() -> bool:
        source = Source([b"data: 1\n\ndata: 2\n\n", b"data: 3\n\n"])
        async with aclosing(aiter_events(source)) as events:
            assert (await anext(events)).data == "1"
            assert not source.is_closed
        return source.is_closed

    assert run(story())


@each_loop
def test_a_cancelled_reader_closes_the_source(on: Loop) -> None:
    has_begun = asyncio.Event()
    closed = []

    async def chunks() -> AsyncGenerator[bytes, None]:
        try:
            yield b"data: 1\n\n"
            has_begun.set()
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def read() -> None:
        async for _ in aiter_events(chunks()):
            pass

    async def story() -> None:
        task = asyncio.create_task(read())
        await has_begun.wait()
        task.cancel()
        await asyncio.wait({task})
        assert (task.cancelled(), closed) == (True, [True])

    on(story())


@pytest.mark.parametrize("end", [[], [OSError("cut")], [b"data: " + b"x" * 99]], ids=["end", "cut", "too large"])
def test_the_source_is_closed_however_the_stream_ends(end: list[Any]) -> None:
    async def story() -> tuple[list[str], bool]:
        source, seen = Source([b"data: 1\n\n", *end]), []
        try:
            async for event in aiter_events(source, Decoder(max_event_bytes=50)):
                seen.append(event.data)  # noqa: PERF401 - what came before the error
        except (OSError, EventTooLargeError):
            assert end
        return seen, source.is_closed

    assert run(story()) == (["1"], True)


def test_a_source_that_cannot_be_closed_is_left_alone() -> None:
    class Bare:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return aiter(Source([b"data: 1\n\n"]))

    async def story() -> list[Event]:
        return [event async for event in aiter_events(Bare())]

    assert run(story()) == [Event("message", "1")]
