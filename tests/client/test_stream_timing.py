"""rawsse.client.stream: when things happened, in seconds since the call began."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.answers import ASK, SSE_HEAD, client_of, plain
from support.clock import run
from support.faults import BEGIN, BLOCK, BLOCK_STOP, END, HEL, LO, WHOLE, Network, Peer, chunk
from support.streams import PING, STOP

from rawsse.client.exchange import Timing
from rawsse.errors import SilenceTimeoutError

SLOW = Peer(
    *(1.0, SSE_HEAD),
    *(2.0, chunk(PING)),
    *(4.0, chunk(BEGIN)),
    *(8.0, chunk(BLOCK, HEL)),
    *(16.0, chunk(PING)),
    *(32.0, chunk(LO, BLOCK_STOP, END, STOP)),
)


async def timed(*peers: Peer, **options: Any) -> Timing:
    """The timing of a stream that was read to its end."""
    network = Network(*peers)
    client = client_of(connect=network, chance=lambda: 0.0, **options)
    async with client.messages.stream(**ASK) as stream:
        await stream.until_done()
    return stream.timing


def test_each_thing_that_happens_has_its_time() -> None:
    timing = run(timed(SLOW))
    assert (timing.connected, timing.head, timing.first_event, timing.first_content) == (0, 1, 3, 15)
    assert (timing.last_ping, timing.ended) == (31, 63)


def test_the_longest_gap_is_between_two_reads_of_the_body() -> None:
    assert run(timed(SLOW)).longest_gap == 32


def test_a_stream_without_pings_has_no_last_one() -> None:
    timing = run(timed(Peer(WHOLE)))
    assert (timing.last_ping, timing.last_ping_age) == (None, None)


def test_the_age_of_the_last_ping_stops_at_the_end() -> None:
    async def story() -> float | None:
        timing = await timed(SLOW)
        await asyncio.sleep(100)
        return timing.last_ping_age

    assert run(story()) == 32


def test_the_age_of_the_last_ping_tells_a_long_thought_from_a_dead_connection() -> None:
    async def story() -> list[float | None]:
        client = client_of(connect=Network(SLOW))
        ages: list[float | None] = []
        async with client.messages.events(ASK) as stream:
            async for event in stream:
                if event.type in ("ping", "content_block_delta"):
                    ages.append(stream.timing.last_ping_age)
                    await asyncio.sleep(5)
                    ages.append(stream.timing.last_ping_age)
        return ages

    # Pings at 3 s and 31 s, texts at 15 s and 63 s: the peer does not wait for its reader.
    assert run(story()) == [0, 5, 12, 17, 0, 5, 32, 37]


def test_a_silence_that_is_too_long_is_a_gap_too() -> None:
    async def story() -> float:
        client = client_of(connect=Network(Peer(SSE_HEAD, chunk(BEGIN, BLOCK), end=None)))
        async with client.messages.stream(**ASK) as stream:
            with pytest.raises(SilenceTimeoutError):
                await stream.until_done()
        return stream.timing.longest_gap

    assert run(story()) == 90


def test_after_a_retry_the_times_are_those_of_the_last_attempt() -> None:
    later = Peer(3.0, plain(b"{}", "529 Later", connection="close"))
    timing = run(timed(later, SLOW, max_retries=1))
    assert (timing.connected, timing.head, timing.first_event, timing.first_content) == (3.5, 4.5, 6.5, 18.5)


def test_a_ping_of_an_attempt_that_failed_is_none_of_the_answer_s() -> None:
    failed = Peer(SSE_HEAD, chunk(PING), 50.0)
    timing = run(timed(failed, Peer(WHOLE), max_retries=1))
    assert (timing.last_ping, timing.longest_gap, timing.connected) == (None, 0, 50.5)


def test_whether_the_connection_had_been_used_before_is_told() -> None:
    async def story() -> list[bool]:
        client = client_of(connect=Network(Peer(None, WHOLE, None, WHOLE), Peer(WHOLE)))
        found: list[bool] = []
        for _ in range(3):
            async with client.messages.stream(**ASK) as stream:
                await stream.until_done()
            found.append(stream.timing.is_reused)
        return found

    assert run(story()) == [False, True, False]


def test_a_connection_that_is_made_slowly_is_connected_late() -> None:
    class Slow(Network):
        async def __call__(self, *where: Any) -> Any:
            await asyncio.sleep(2.5)
            return await super().__call__(*where)

    async def story() -> float | None:
        async with client_of(connect=Slow(Peer(WHOLE))).messages.stream(**ASK) as stream:
            await stream.until_done()
        return stream.timing.connected

    assert run(story()) == 2.5


def test_before_the_call_there_is_no_time() -> None:
    timing = client_of().messages.stream(**ASK).timing
    assert (timing.started, timing.elapsed(), timing.ended) == (0, 0, None)
