"""The fast path of `rawsse.sse.Decoder` against the plain way: the same events and the same state after each chunk."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any

import pytest
from support.sampling import one_in

from rawsse.errors import EventTooLargeError
from rawsse.replay import shipped_fixtures
from rawsse.sse import MAX_EVENT_BYTES, Decoder, Event

FRAME = b"event: a\ndata: x\n\n"
MANY = FRAME * 20  # enough for the search for frames inside of a chunk

BLOCKS = [
    FRAME,
    b"event: a\ndata: \n\n",
    b"event: a\ndata:\n\n",
    b"event: a\ndata\n\n",
    b"event: a\ndata:y\n\n",
    b"event: a\ndata:  two spaces\n\n",
    b"event: a\ndata: 1\ndata: 2\n\n",
    b"event: a\ndata: 1\ndata:\n\n",
    b"event: a\ndata: 1\nevent: b\n\n",
    b"event: a\ndata: event: a\ndata: 1\n\n",
    b"event: a\ndata: \nevent: a\ndata: 1\n\n",
    b'event: a\ndata: {"text": "\\n\\nevent: a\\ndata: 1"}\n\n',
    b"event: a\n\ndata: 1\n\n",
    b"event: a\nevent: a\ndata: 1\n\n",
    b"event: a\nevent: b\ndata: 1\n\n",
    b"event: a\nid: 1\ndata: 1\n\n",
    b"event: a\ndata: 1\nid: 2\n\n",
    b"event: a\n",
    b"event: a\ndata: 1\n",
    b"event: b\ndata: 1\n\n",
    b"event:a\ndata: 1\n\n",
    b"event:\ndata: 1\n\n",
    b"event\ndata: 1\n\n",
    b"event: \xff\ndata: \xe2\x82\n\n",
    b"event: a\ndata: \xe2\x82\ndata: \xac\n\n",
    "event: a\ndata: é€🦦\ufeff\u2028\n\n".encode(),
    b"event: a\ndata: \0\n\n",
    b"event: \0\ndata: 1\n\n",
    b"data: 1\n\n",
    b"data: 1\n",
    b"id: 3\n",
    b"id: 3\n\n",
    b"id: \0\n\n",
    b"id\n\n",
    b"retry: 5\n",
    b"retry: 5\n\n",
    b": ping\n\n",
    b":\n",
    b"\n",
    b"\n\n\n",
    b"\xef\xbb\xbf" + FRAME,
    b"event: a\r\ndata: 1\r\n\r\n",
    b"event: a\rdata: 1\r\r",
    b"event: a\ndata: 1\n\r",
    b"event: a\ndata: 1\r\n\n",
    b"\r",
]


class PlainDecoder(Decoder):
    """A decoder that never learns how a frame starts, so that it reads all line by line."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, b"" if name == "_frame_start" else value)


class CountingDecoder(Decoder):
    """A decoder that counts the lines which the plain way reads."""

    lines_read = 0

    def _read(self, lines: list[bytes]) -> list[Event]:
        self.lines_read += len(lines)
        return super()._read(lines)


def state_of(decoder: Decoder) -> dict[str, str]:
    """All that the stream has set. The last type read is a cache: each way may hold another."""
    caches = ("_known_line", "_known_event", "_frame_start")
    return {name: repr(value) for name, value in vars(decoder).items() if name not in caches}


def history_of(decoder: Decoder, chunks: Iterable[bytes]) -> list[Any]:
    """Each chunk's events and the decoder's whole state after it; up to the error, if an event is too large."""
    history: list[Any] = []
    try:
        for chunk in chunks:
            history += decoder.feed(chunk), state_of(decoder)
    except EventTooLargeError as error:
        return [*history, str(error), error.limit, error.events, state_of(decoder)]
    return [*history, decoder.close(), decoder.last_event_id, decoder.retry]


def assert_fast_is_plain(chunks: list[bytes], limit: int = MAX_EVENT_BYTES) -> None:
    fast, plain = Decoder(max_event_bytes=limit), PlainDecoder(max_event_bytes=limit)
    assert history_of(fast, chunks) == history_of(plain, chunks), (limit, chunks)


def python_calls(decoder: Decoder, chunk: bytes) -> int:
    names: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            names.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        decoder.feed(chunk)
    finally:
        sys.setprofile(before)
    return len(names)


def taught() -> Decoder:
    decoder = Decoder()
    decoder.feed(FRAME)
    return decoder


# --- The same as the plain way -------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS)
def test_around_a_known_frame_every_cut_is_read_the_same(block: bytes) -> None:
    stream = block + FRAME + block
    for at in range(len(stream) + 1):
        assert_fast_is_plain([FRAME, stream[:at], stream[at:], FRAME])


@pytest.mark.parametrize("block", BLOCKS)
def test_the_same_again_and_again_is_read_the_same(block: bytes) -> None:
    for chunk in (block, block * 2, block * 40, b"x\n\n" + block * 40 + block[:-1]):
        assert_fast_is_plain([block, chunk, chunk])


@pytest.mark.parametrize("block", BLOCKS)
def test_among_many_frames_every_cut_into_two_is_read_the_same(block: bytes) -> None:
    stream, step = MANY + block + MANY, one_in(4)
    for at in range(len(MANY) - len(FRAME) + BLOCKS.index(block) % step, len(MANY + block + FRAME), step):
        assert_fast_is_plain([FRAME, stream[:at], stream[at:], FRAME])


@pytest.mark.parametrize("before", [b"event: a", b"id: 7\n", b"data: 0\n", b"event: b\n", b"\n", b"retry: 1\r", b": "])
def test_what_is_pending_before_a_chunk_of_frames_is_read_the_same(before: bytes) -> None:
    for block in BLOCKS:
        for chunk in (FRAME, FRAME + block, MANY + block, block + MANY):
            assert_fast_is_plain([FRAME, before, chunk, block, FRAME, MANY])


@pytest.mark.parametrize("block", BLOCKS)
def test_near_the_limit_it_raises_at_the_same_byte_with_the_same_events(block: bytes) -> None:
    step = one_in(2)
    for limit in range(1 + BLOCKS.index(block) % step, len(block) + 30, step):
        assert_fast_is_plain([b"event: a\n\n", block, FRAME, b"data: 0\n", block + FRAME], limit)
    for limit in range(len(MANY) + BLOCKS.index(block) % step, len(MANY + block) + 10, step):
        assert_fast_is_plain([b"event: a\n\n", b"data: 0\n", MANY + block], limit)


def test_a_frame_past_the_limit_raises_though_its_type_is_known() -> None:
    decoder = Decoder(max_event_bytes=10)
    decoder.feed(b"event: a\ndata: 1234\n\n")
    assert decoder.feed(b"event: a\ndata: 1234\n\n") == [Event("a", "1234")]
    with pytest.raises(EventTooLargeError) as caught:
        decoder.feed(b"event: a\ndata: 1\n\nevent: a\ndata: 12345\n\n")
    assert caught.value.events == [Event("a", "1")]


@pytest.mark.parametrize("recording", shipped_fixtures().values(), ids=shipped_fixtures())
def test_a_fixture_is_read_the_same_an_event_at_a_time_and_in_large_chunks(recording: Any) -> None:
    body = recording.body
    assert_fast_is_plain([frame + b"\n\n" for frame in body.split(b"\n\n")[:-1]])
    for size in (100, 999, 5000, 65536):
        stream = body * 3
        assert_fast_is_plain([stream[at : at + size] for at in range(0, len(stream), size)])


# --- What it is for ------------------------------------------------------------------------------------------------


def test_a_frame_of_the_type_before_is_one_call() -> None:
    assert python_calls(taught(), FRAME) == 1


def test_of_many_frames_only_those_at_the_edges_are_read_line_by_line() -> None:
    decoder = CountingDecoder()
    decoder.feed(FRAME + b"event: a\nda")
    decoder.lines_read = 0
    assert decoder.feed(b"ta: x\n\n" + FRAME * 1000 + b"event: a\nda") == [Event("a", "x")] * 1001
    assert decoder.lines_read == 3  # the data and the blank line in front, and the event line at the end


def test_of_many_frames_in_one_chunk_only_another_type_is_read_line_by_line() -> None:
    decoder, other = CountingDecoder(), b"event: b\ndata: y\n\n"
    decoder.feed(FRAME)
    decoder.lines_read = 0
    assert decoder.feed(MANY + other + FRAME) == [*[Event("a", "x")] * 20, Event("b", "y"), Event("a", "x")]
    assert (
        decoder.lines_read == 9
    )  # those of the first frame, and of the one before it: no frame of type `a` follows it


def test_after_another_type_among_many_frames_the_next_chunk_is_still_read_fast() -> None:
    decoder = taught()
    decoder.feed(MANY + b"event: b\ndata: y\n\n" + MANY)
    assert python_calls(decoder, FRAME) == 1


def seconds_after_a_type_of(size: int) -> float:
    decoder = Decoder()
    decoder.feed(b"event: " + b"a" * size + b"\n\n")
    started = time.process_time()
    for _ in range(5_000):
        decoder.feed(b":\n")
    return time.process_time() - started


def test_a_long_type_does_not_make_the_chunks_after_it_slow() -> None:
    short = min(seconds_after_a_type_of(10) for _ in range(3))
    assert any(seconds_after_a_type_of(1_000_000) < 5 * short for _ in range(3))
