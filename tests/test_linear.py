"""A tool's input that comes in many small deltas costs linear time, whether or not its snapshots are read.

Parsing all that has come at each delta, the obvious way, takes seconds for an input of 100 kB. Two laws exclude it, and neither
needs a long input that comes in small pieces:

* Each delta costs the same number of function calls, which are the same in every run.
* A delta costs the same time after 1 MB of input as after 1 kB. That finds what calls do not show: a C function that copies,
  joins or parses again what has come. A copy of 1 MB alone takes longer than all that the client does for one delta.

A text's snapshot is another matter: it is a new string each time, so reading every one costs its copies.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from support.answers import ASK, client_of, head
from support.clock import run
from support.streams import STOP, block_start, block_stop, end, input_delta, start, to_bytes, tool_block

from rawsse.client.stream import MessageStream
from rawsse.messages.content import BlockBuilder
from rawsse.replay.fakes import FakeStream

KB = 1024
MB = 1024 * KB
DELTAS = 200
"""How many deltas of one character are timed."""
FEW = 16
"""Characters of each delta that comes before those."""

Look = Callable[[MessageStream, Any], object]


def nothing(_: MessageStream, __: Any) -> None:
    """Look at nothing but the end."""


def snapshot(_: MessageStream, event: Any) -> object:
    return event.snapshot if event.type == "input_json" else None


def message(stream: MessageStream, _: Any) -> object:
    return stream.current_message_snapshot.content


LOOKS = pytest.mark.parametrize("look", [nothing, snapshot, message])


def answer_of(*deltas: str) -> Iterator[bytes]:
    """An answer that calls a tool. The text in the tool's input comes in these deltas, one in each read."""
    yield head(content_type="text/event-stream") + to_bytes([start(), block_start(0, tool_block())])
    for delta in ('{"text": "', *deltas, '"}'):
        yield to_bytes([input_delta(0, delta)])
    yield to_bytes([block_stop(0), end("tool_use"), STOP])


async def read(deltas: list[str], look: Look) -> None:
    asyncio.get_running_loop().set_debug(False)
    client = client_of(FakeStream(answer_of(*deltas)))
    async with client.messages.stream(**ASK) as stream:
        async for event in stream:
            look(stream, event)
        whole = await stream.get_final_message()
    assert whole.raw["content"][0]["input"]["text"] == "".join(deltas)


# --- Calls ---------------------------------------------------------------------------------------------------------


def calls(size: int, look: Look) -> int:
    """How many functions are called, of Python's and of C's, to read an input of `size` deltas."""
    count = 0

    def note(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run(read(["x"] * size, look))
    finally:
        sys.setprofile(before)
    return count


@LOOKS
def test_each_delta_costs_the_same_number_of_calls(look: Look) -> None:
    calls(1, look)  # what is done only once in a process
    small, middle, large = (calls(size, look) for size in (50, 100, 200))
    assert large - middle == pytest.approx(2 * (middle - small), rel=0.01)


# --- Time ----------------------------------------------------------------------------------------------------------


ATTEMPTS = 3
"""Other processes disturb the cache, if not the clock: of a few measurements, the shortest counts."""


def fastest(seconds: Callable[[], float]) -> float:
    return min(seconds() for _ in range(ATTEMPTS))


def is_below(limit: float, seconds: Callable[[], float]) -> bool:
    """The shortest measurement is below: those after the first that is make no difference."""
    return any(seconds() < limit for _ in range(ATTEMPTS))


def seconds_after(size: int, look: Look) -> float:
    """How long the client takes for `DELTAS` deltas of one character when `size` characters have come."""
    moments: list[float] = []

    def note(stream: MessageStream, event: Any) -> None:
        look(stream, event)
        if event.type == "input_json":
            moments.append(time.process_time())

    run(read(["x" * KB] * (size // KB) + ["x"] * DELTAS, note))
    return moments[-2] - moments[-2 - DELTAS]


@LOOKS
def test_a_delta_costs_the_client_no_more_time_after_1_mb_than_after_1_kb(look: Look) -> None:
    assert is_below(2 * fastest(lambda: seconds_after(KB, look)), lambda: seconds_after(MB, look))


def one_string(size: int) -> str:
    return '{"a": "' + "x" * (size - 7)


def many_members(size: int) -> str:
    return "{" + ",".join(f'"{n:06}":1' for n in range(size // 11))


@pytest.mark.parametrize("write", [one_string, many_members])
def test_a_delta_costs_the_block_no_more_time_after_many_that_were_looked_at(write: Callable[[int], str]) -> None:
    def seconds(size: int) -> float:
        block = BlockBuilder(tool_block())
        text = write(size + DELTAS)
        for at in range(0, size, FEW):
            block.grow(text[at : at + FEW])
            block.settle()
        before = time.process_time()
        for char in text[size : size + DELTAS]:
            block.grow(char)
            block.settle()
        return time.process_time() - before

    assert is_below(2 * fastest(lambda: seconds(KB)), lambda: seconds(32 * KB))
