"""One answer, cut in every place: by the network into segments, and by HTTP into chunks, which need not agree.

A boundary may fall inside a chunk's size, a header field, a UTF-8 character, an event's name, or between CR and LF; the
reader must not notice. Fake streams try every place; real sockets try a handful, each segment sent after the last was read.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

import pytest
from support.answers import ASK, SSE_HEAD, acquiring, chunked, client_of, head
from support.clock import run
from support.sockets import serving

from rawsse.client.client import AsyncClient
from rawsse.client.exchange import Exchange
from rawsse.client.moments import RequestData
from rawsse.client.network.clocks import Timeouts
from rawsse.client.network.net import FakeStream, Stream, TLSContext, connect
from rawsse.client.network.route import Route

# As short as an answer can be, since it is read a thousand times, and with CRLF: one more place to cut.
BODY = """event: message_start
data: {"type":"message_start","message":{}}

data: {"type":"content_block_start","index":0,"content_block":{"type":"text"}}

data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"é☺"}}

: ping

data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\u2028😀"}}

data: {"type":"content_block_stop","index":0}

data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}

event: message_stop
data: {}

""".replace("\n", "\r\n").encode()
READING = (["é☺", "\u2028😀"], "complete", False)
NO_CLOCKS = Timeouts(connect=None, head=None, silence=None, content=None)  # timers would be half of the time
SHORT_HEAD = head(transfer_encoding="chunked")


Reading = tuple[list[str], str, bool]


async def read(segments: Iterable[bytes]) -> Reading:
    """What a client makes of an answer in these segments."""
    async with client_of(FakeStream(segments, end=None), timeouts=NO_CLOCKS).messages.stream(**ASK) as stream:
        pieces = [text async for text in stream.text_stream]
        assert stream.ending is not None
        return pieces, stream.ending.kind, stream.ending.tail_missing


def readings(ways: Iterable[Iterable[bytes]]) -> list[Reading]:
    """What clients make of an answer in these ways of cutting it, each reading once: one, if boundaries do not matter."""

    async def story() -> list[Reading]:
        found: list[Reading] = []
        for segments in ways:
            if (reading := await read(segments)) not in found:
                found.append(reading)
        return found

    return run(story())


def in_segments(wire: bytes, size: int) -> list[bytes]:
    return [wire[at : at + size] for at in range(0, len(wire), size)]


def in_chunks(size: int) -> bytes:
    return SHORT_HEAD + chunked(*in_segments(BODY, size))


def test_every_cut_of_the_wire_into_two_segments() -> None:
    wire = in_chunks(100)
    assert readings([wire[:at], wire[at:]] for at in range(1, len(wire))) == [READING]


def test_every_cut_of_the_body_into_two_chunks() -> None:
    assert readings([SHORT_HEAD + chunked(BODY[:at], BODY[at:])] for at in range(1, len(BODY))) == [READING]


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, len(BODY)])
def test_segments_and_chunks_of_different_sizes(chunk: int) -> None:
    wire = in_chunks(chunk)
    assert readings(in_segments(wire, size) for size in (1, 3, 11, 101, len(wire))) == [READING]


def test_every_pair_of_cuts_of_a_short_answer() -> None:
    body = b"d: \xe2\x98\xba\r\n\r\n"
    wire = SHORT_HEAD + chunked(body[:4], body[4:])

    async def read_through(segments: list[bytes]) -> bytes:
        async def made() -> Stream:
            return FakeStream(segments)

        exchange = Exchange(acquiring(made), RequestData("GET", "/", "h", ()), NO_CLOCKS)
        await exchange.open()
        pieces = bytearray()
        while piece := await exchange.read():
            pieces += piece
        return bytes(pieces)

    async def story() -> set[bytes]:
        cuts = itertools.combinations(range(1, len(wire)), 2)
        return {await read_through([wire[:a], wire[a:b], wire[b:]]) for a, b in cuts}

    assert run(story()) == {body}


# --- Over real sockets ---------------------------------------------------------------------------------------------


class Watched:
    """A stream that tells after how many bytes each read of it ended."""

    def __init__(self, stream: Stream, reading: asyncio.Condition) -> None:
        self._stream = stream
        self._reading = reading
        self.ends: list[int] = []
        self.write, self.abort, self.read_nowait = stream.write, stream.abort, stream.read_nowait

    async def read(self, max_bytes: int) -> bytes:
        data = await self._stream.read(max_bytes)
        async with self._reading:
            self.ends.append(len(data) + (self.ends[-1] if self.ends else 0))
            self._reading.notify_all()
        return data


async def over_a_socket(segments: list[bytes]) -> tuple[str, list[int]]:
    """The text that a client reads, and after how many bytes its reads ended, if each segment is sent when the one before
    was read."""
    reading = asyncio.Condition()
    watched: list[Watched] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for sent in itertools.accumulate(segments):
            writer.write(segments[len(ends)])
            await writer.drain()
            ends.append(len(sent))
            async with reading:
                await reading.wait_for(lambda: watched[0].ends[-1:] == ends[-1:])
        await reader.read()

    async def watch(route: Route, tls: TLSContext) -> Stream:
        watched.append(Watched(await connect(route, tls), reading))
        return watched[0]

    ends: list[int] = []
    async with serving(serve) as origin:
        client = AsyncClient(api_key="x", base_url=str(origin), connect=watch)
        message = await client.messages.create(**ASK)
    return message.text, watched[0].ends


SMILE = BODY.index("☺".encode())

CUTS = {
    "inside the head": 20,
    "between CR and LF of the head's end": len(SSE_HEAD) - 1,
    "inside a chunk's size": len(SSE_HEAD) + 1,
    "between CR and LF of a chunk's size": len(SSE_HEAD) + 4,
    "inside a character": len(SSE_HEAD) + 5 + SMILE + 1,
    "between CR and LF of an event's end": len(SSE_HEAD) + 5 + BODY.index(b"\r\n\r\n") + 3,
    "inside the last chunk": len(SSE_HEAD) + 5 + len(BODY) + 4,
}


@pytest.mark.parametrize("place", CUTS)
def test_segments_of_a_real_socket(place: str) -> None:
    wire = SSE_HEAD + chunked(BODY)
    assert len(f"{len(BODY):x}") == 3  # so that the places above are what they say
    text, ends = run(over_a_socket([wire[: CUTS[place]], wire[CUTS[place] :]]))
    assert (text, ends[0]) == ("é☺\u2028😀", CUTS[place])


def test_many_small_segments_of_a_real_socket() -> None:
    segments = in_segments(SSE_HEAD + chunked(*in_segments(BODY, 30)), 50)
    text, ends = run(over_a_socket(segments))
    assert text == "é☺\u2028😀"
    assert ends == [len(sent) for sent in itertools.accumulate(segments)][: len(ends)]
    assert len(ends) >= len(segments) - 1  # at the last one the answer is whole before it is
