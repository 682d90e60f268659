"""A tool's input that comes in deltas of one character costs linear time, whether or not its snapshots are looked at.

Parsing all that has come at each delta, the obvious way, takes seconds for an input of 100 kB. Work is counted where that is
possible: in calls of functions, which are the same in every run. Copying is not seen that way; so time is compared too, that
of the processor, of n, 2n and 4n characters: linear is 2 from each to the next, quadratic is 4, and 3 is between them.

A text's snapshot is another matter: it is a new string each time. Whoever looks at every one pays for the copies, which is a
tenth of the time at 64 kB, and a third at 256 kB.

With RAWSSE_MEGABYTE=1 the whole client reads 1 MB as well (a million events; half a minute). Without, only what grows with the
input does: the block.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from support.answers import ASK, client_of, head
from support.clock import run
from support.streams import STOP, block_start, block_stop, end, input_delta, start, to_bytes, tool_block

from rawsse.client import FakeStream, MessageStream
from rawsse.messages.block import BlockBuilder

EVENTS_PER_READ = 500

KB = 1024
MB = 1024 * KB

Look = Callable[[MessageStream, Any], object]


def answer_of(size: int) -> Iterator[bytes]:
    """An answer that calls a tool with an input of `size` characters, one in each delta."""
    opening, closing = '{"text": "', '"}'
    yield head(content_type="text/event-stream") + to_bytes([start(), block_start(0, tool_block())])
    yield to_bytes(input_delta(0, char) for char in opening)
    letters = size - len(opening + closing)
    some = to_bytes([input_delta(0, "x")] * EVENTS_PER_READ)
    for _ in range(letters // EVENTS_PER_READ):
        yield some
    yield to_bytes([input_delta(0, "x")] * (letters % EVENTS_PER_READ))
    yield to_bytes(input_delta(0, char) for char in closing)
    yield to_bytes([block_stop(0), end("tool_use"), STOP])


def nothing(_: MessageStream, __: Any) -> None:
    """Look at nothing but the end."""


def snapshot(_: MessageStream, event: Any) -> object:
    return event.snapshot if event.type == "input_json" else None


def message(stream: MessageStream, _: Any) -> object:
    return stream.current_message_snapshot.content


async def read(size: int, look: Look) -> None:
    asyncio.get_running_loop().set_debug(False)
    client = client_of(FakeStream(answer_of(size)))
    async with client.messages.stream(**ASK) as stream:
        async for event in stream:
            look(stream, event)
        whole = await stream.get_final_message()
    assert len(whole.content[0].input["text"]) == size - len('{"text": ""}')


def seconds(work: Callable[[int], object], size: int) -> float:
    """Of the processor: other processes do not count in them."""
    before = time.process_time()
    work(size)
    return time.process_time() - before


def growth(work: Callable[[int], object], size: int) -> list[float]:
    """How many times as long 2n takes as n, and 4n as 2n."""
    work(size // 16)  # what is done only once
    times = [seconds(work, size), seconds(work, 2 * size), seconds(work, 4 * size)]
    return [times[1] / times[0], times[2] / times[1]]


# --- Counted -------------------------------------------------------------------------------------------------------


def calls(size: int, look: Look) -> int:
    """How many functions are called, of Python's and of C's, while the stream is read."""
    count = 0

    def note(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run(read(size, look))
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("look", [nothing, snapshot, message])
def test_each_character_costs_the_same_number_of_calls(look: Look) -> None:
    run(read(1 * KB, look))  # what is done only once is not counted
    small, middle, large = (calls(size, look) for size in (1 * KB, 2 * KB, 4 * KB))
    assert large - middle == pytest.approx(2 * (middle - small), rel=0.001)


# --- Timed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", [nothing, snapshot, message])
def test_64_kb_in_deltas_of_one_character_cost_linear_time(look: Look) -> None:
    assert max(growth(lambda size: run(read(size, look)), 16 * KB)) < 3


def one_string(size: int) -> str:
    return '{"a": "' + "x" * (size - 9) + '"}'


def many_members(size: int) -> str:
    return "{" + ",".join(f'"{n:06}":1' for n in range(size // 11)) + "}"


@pytest.mark.parametrize("write", [one_string, many_members])
def test_1_mb_in_deltas_of_one_character_that_is_looked_at_after_each_costs_linear_time(
    write: Callable[[int], str],
) -> None:
    def grow(size: int) -> None:
        block = BlockBuilder(tool_block())
        for char in write(size):
            block.grow(char)
            block.best_input()
        block.close()
        assert block.complete

    assert max(growth(grow, MB // 4)) < 3


@pytest.mark.skipif(not os.environ.get("RAWSSE_MEGABYTE"), reason="half a minute; RAWSSE_MEGABYTE=1 asks for it")
@pytest.mark.parametrize("look", [nothing, snapshot])
def test_1_mb_in_deltas_of_one_character_costs_the_client_linear_time(look: Look) -> None:
    assert max(growth(lambda size: run(read(size, look)), MB // 4)) < 3
