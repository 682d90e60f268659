"""rawsse.replay.wire: what goes over the wire, written by hand after RFC 9112, and what happens between it."""

from __future__ import annotations

import gzip
import re
import zlib
from typing import Any

import pytest

from rawsse.errors import ConfigurationError
from rawsse.replay import Fault, Read, Recording
from rawsse.replay.faults import End
from rawsse.replay.variants import recut, split_by
from rawsse.replay.wire import Script, Step, script

TYPE = {"content-type": "text/event-stream"}
A, B = b"data: a\n\n", b"data: bb\n\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE_HEAD = HEAD.replace(b"Transfer-", b"connection: close\r\nTransfer-")  # only what comes whole tells of its end
CHUNK_A, CHUNK_B, LAST = b"9\r\ndata: a\n\n\r\n", b"a\r\ndata: bb\n\n\r\n", b"0\r\n\r\n"
ANSWER = Recording(None, 200, TYPE, (Read(0.5, A), Read(2.0, B)))
TOLD = Recording(None, 200, {**TYPE, "content-length": "19"}, ANSWER.reads)
TOLD_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %b\r\n\r\n"
WHOLE_TOLD_HEAD = TOLD_HEAD[:-2] + b"connection: close\r\n\r\n"


def script_of(*faults: Fault, answer: Recording = ANSWER, **options: Any) -> Script:
    return script(answer, faults, **options)


# --- Without a fault ---


def test_each_read_is_a_chunk_and_a_write_and_the_head_goes_out_with_the_first() -> None:
    assert script_of() == (WHOLE_HEAD + CHUNK_A, CHUNK_B, LAST)


def test_the_pace_is_that_of_the_recording_divided_by_the_speed() -> None:
    assert script_of(speed=1) == (0.5, WHOLE_HEAD + CHUNK_A, 1.5, CHUNK_B, LAST)
    assert script_of(speed=2) == (0.25, WHOLE_HEAD + CHUNK_A, 0.75, CHUNK_B, LAST)


def test_what_was_cut_has_no_last_chunk() -> None:
    assert script_of(answer=Recording(None, 200, TYPE, ANSWER.reads, end="cut")) == (HEAD + CHUNK_A, CHUNK_B)


def test_what_was_cut_in_its_head_is_only_a_head() -> None:
    assert script_of(answer=Recording(None, 200, TYPE, end="cut")) == (HEAD,)


def test_an_empty_body_is_the_last_chunk() -> None:
    assert script_of(answer=Recording(None, 200, TYPE)) == (WHOLE_HEAD + LAST,)


def test_a_body_whose_length_is_told_has_no_chunks() -> None:
    assert script_of(answer=TOLD) == (WHOLE_TOLD_HEAD % b"19" + A, B)


def test_a_client_of_http_1_0_gets_no_chunks() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    assert script_of(http_version="1.0") == (head + A, B)


def test_the_answer_to_head_is_a_head() -> None:
    assert script_of(answer=TOLD, method="HEAD") == (WHOLE_TOLD_HEAD % b"19",)


def test_segments_cut_the_wire_and_go_out_with_their_last_byte() -> None:
    steps = script_of(segments=split_by(len(WHOLE_HEAD) + 5), speed=1)
    assert steps == (0.5, WHOLE_HEAD + CHUNK_A[:5], 1.5, CHUNK_A[5:] + CHUNK_B + LAST)


# --- The network ---


@pytest.mark.parametrize(("kind", "end"), [("reset", [End.RESET]), ("close", []), ("half-close", [End.HALF_CLOSE])])
@pytest.mark.parametrize(
    ("place", "before"),
    [
        ("head", []),
        ("head=12", [HEAD[:12]]),
        ("head=-1", [HEAD[:-1]]),
        ("byte=0", [HEAD]),
        ("event=0", [HEAD]),
        ("byte=4", [HEAD + b"4\r\ndata\r\n"]),
        ("event=1", [HEAD + CHUNK_A]),
        ("byte=10", [HEAD + CHUNK_A, b"1\r\nd\r\n"]),
        ("event=2", [HEAD + CHUNK_A, CHUNK_B]),
    ],
    ids=str,
)
def test_a_connection_ends_in_its_place(kind: str, end: list[Step], place: str, before: list[bytes]) -> None:
    assert script_of(Fault.parse(f"{kind}@{place}")) == (*before, *end)


def test_an_end_does_not_wait_for_what_would_have_come() -> None:
    assert script_of(Fault.parse("reset@head"), speed=1) == (End.RESET,)
    assert script_of(Fault.parse("reset@event=1"), speed=1) == (0.5, HEAD + CHUNK_A, End.RESET)


def test_a_stall_is_a_silence_at_any_speed() -> None:
    assert script_of(Fault.parse("stall=3@event=1")) == (WHOLE_HEAD + CHUNK_A, 3.0, CHUNK_B, LAST)
    assert script_of(Fault.parse("stall=3@event=1"), speed=1) == (0.5, WHOLE_HEAD + CHUNK_A, 3.0, 1.5, CHUNK_B, LAST)


def test_a_stall_may_be_before_the_head_or_in_it() -> None:
    assert script_of(Fault.parse("stall=3@head")) == (3.0, WHOLE_HEAD + CHUNK_A, CHUNK_B, LAST)
    assert script_of(Fault.parse("stall=3@head=4")) == (WHOLE_HEAD[:4], 3.0, WHOLE_HEAD[4:] + CHUNK_A, CHUNK_B, LAST)


@pytest.mark.parametrize(
    "fault", [Fault.parse("reset@event=1"), Fault.parse("no-last-chunk"), Fault.parse("wrong-content-length=+1")]
)
def test_nothing_announces_that_an_answer_will_break_off(fault: Fault) -> None:
    assert b"connection: close" not in script_of(fault)[0]  # type: ignore[operator]  # the first step is bytes


def test_a_stall_without_an_end_is_the_end() -> None:
    assert script_of(Fault.parse("stall@event=1")) == (HEAD + CHUNK_A, End.HOLD)


def test_a_drip_is_byte_by_byte_from_its_place_on_framing_and_all() -> None:
    steps = script_of(Fault.parse("drip=4@event=1"))
    assert steps[0] == WHOLE_HEAD + CHUNK_A
    assert steps[1::2] == (0.25,) * len(CHUNK_B + LAST)
    assert steps[2::2] == tuple(bytes([byte]) for byte in CHUNK_B + LAST)


def test_a_drip_begins_with_the_body() -> None:
    assert script_of(Fault.parse("drip=2@byte=0"))[:3] == (WHOLE_HEAD, 0.5, b"9")


def test_a_slow_head_is_byte_by_byte_and_the_body_is_not() -> None:
    steps = script_of(Fault.parse("slow-head=10"))
    size = len(WHOLE_HEAD)
    assert steps[: 2 * size : 2] == (0.1,) * size
    assert steps[1 : 2 * size : 2] == tuple(bytes([byte]) for byte in WHOLE_HEAD)
    assert steps[2 * size :] == (CHUNK_A, CHUNK_B, LAST)


# --- Framing ---


@pytest.mark.parametrize(
    ("fault", "steps"),
    [
        (Fault.parse("bad-chunk-size=zz@byte=0"), (HEAD + b"zz\r\n" + CHUNK_A[3:], CHUNK_B, LAST)),
        (Fault.parse("bad-chunk-size=-1@event=1"), (HEAD + CHUNK_A, b"-1\r\n" + CHUNK_B[3:], LAST)),
        (Fault.parse('bad-chunk-size=""@byte=17'), (HEAD + CHUNK_A, b"8\r\ndata: bb\r\n", b"\r\n\n\n\r\n", LAST)),
        (Fault.parse("bad-chunk-size=fffffffffffffffff@event=2"), (HEAD + CHUNK_A, CHUNK_B, b"f" * 17 + b"\r\n\r\n")),
        (Fault.parse("no-last-chunk"), (HEAD + CHUNK_A, CHUNK_B)),
        (Fault.parse("wrong-content-length=+3"), (TOLD_HEAD % b"22" + A, B)),
        (Fault.parse("wrong-content-length=-3"), (TOLD_HEAD % b"16" + A, B)),
        (Fault.parse("wrong-content-length=-19"), (TOLD_HEAD % b"0" + A, B)),
    ],
    ids=str,
)
def test_framing_is_broken_in_one_place_and_right_in_all_others(fault: Fault, steps: Script) -> None:
    assert script_of(fault) == steps


@pytest.mark.parametrize("fault", [Fault.parse("bad-chunk-size=zz@byte=0"), Fault.parse("no-last-chunk")], ids=str)
def test_a_body_whose_length_is_told_gets_chunks_so_that_they_can_be_wrong(fault: Fault) -> None:
    assert script_of(fault, answer=TOLD) == script_of(fault)


@pytest.mark.parametrize(
    ("fault", "options", "words"),
    [
        (
            Fault.parse("no-last-chunk"),
            {"http_version": "1.0"},
            "a chunk cannot be wrong in this answer, which has none",
        ),
        (
            Fault.parse("bad-chunk-size=zz@byte=0"),
            {"method": "HEAD", "http_version": "1.0"},
            "a chunk cannot be wrong in this answer",
        ),
        (
            Fault.parse("wrong-content-length=-20"),
            {},
            "wrong-content-length=-20 has no place in this answer, whose body has 19 bytes",
        ),
        (Fault.parse("reset@event=3"), {}, "reset@event=3 has no place in this answer, which has 2 events"),
    ],
    ids=str,
)
def test_what_has_no_place_is_named(fault: Fault, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match="^" + re.escape(words)):
        script_of(fault, **options)


# --- Compression ---


def chunks_in(steps: Script) -> list[bytes]:
    """The data of the chunks in these writes, each of which is one chunk after the head."""
    wire = b"".join(step for step in steps if isinstance(step, bytes)).partition(b"\r\n\r\n")[2]
    chunks = []
    while wire:
        size, _, wire = wire.partition(b"\r\n")
        chunks.append(wire[: int(size, 16)])
        wire = wire[int(size, 16) + 2 :]
    return chunks


def test_a_compressed_body_is_said_to_be_and_each_read_can_be_read_as_it_comes() -> None:
    steps = script_of(Fault.parse("gzip"))
    assert b"\r\ncontent-encoding: gzip\r\n" in steps[0]  # type: ignore[operator]
    first, second, trailer, last = chunks_in(steps)
    reader = zlib.decompressobj(wbits=31)
    assert [reader.decompress(first), reader.decompress(second), last] == [A, B, b""]
    assert gzip.decompress(first + second + trailer) == A + B


def test_places_in_a_compressed_body_are_those_of_what_is_compressed() -> None:
    steps = script_of(Fault.parse("gzip"), Fault.parse("reset@byte=4"))
    assert steps[-1] is End.RESET
    assert zlib.decompressobj(wbits=31).decompress(b"".join(chunks_in(steps))) == b"data"


def test_the_length_of_a_compressed_body_is_that_of_what_is_sent() -> None:
    wire = b"".join(step for step in script_of(Fault.parse("gzip"), answer=TOLD) if isinstance(step, bytes))
    head, _, sent = wire.partition(b"\r\n\r\n")
    assert b"\r\ncontent-length: %d\r\n" % len(sent) in head
    assert gzip.decompress(sent) == A + B


def test_what_was_cut_is_cut_in_its_compressed_form_too() -> None:
    steps = script_of(Fault.parse("gzip"), answer=Recording(None, 200, TYPE, ANSWER.reads, end="cut"))
    with pytest.raises(EOFError):
        gzip.decompress(b"".join(chunks_in(steps)))


# --- Several faults ---


def test_faults_are_done_in_the_order_of_their_places() -> None:
    one, other = Fault.parse("stall=1@event=1"), Fault.parse("reset@byte=4")
    assert script_of(one, other) == script_of(other, one) == (HEAD + b"4\r\ndata\r\n", End.RESET)


def test_in_one_place_they_are_done_in_the_order_of_the_list() -> None:
    stall, reset = Fault.parse("stall=1@event=1"), Fault.parse("reset@event=1")
    assert script_of(stall, reset) == (HEAD + CHUNK_A, 1.0, End.RESET)
    assert script_of(reset, stall) == (HEAD + CHUNK_A, End.RESET)


def test_faults_of_head_framing_and_network_go_together() -> None:
    steps = script_of(
        Fault.parse("slow-head=1"),
        Fault.parse("wrong-content-length=+1"),
        Fault.parse("stall=2@event=1"),
        Fault.parse("drip=1@byte=18"),
    )
    head = TOLD_HEAD % b"20"
    assert steps[: 2 * len(head)] == tuple(step for byte in head for step in (1.0, bytes([byte])))
    assert steps[2 * len(head) :] == (A, 2.0, B[:-1], 1.0, B[-1:])


def test_segments_are_cut_between_two_faults() -> None:
    steps = script_of(Fault.parse("stall=1@event=1"), segments=split_by(len(WHOLE_HEAD) + 6))
    assert steps == (WHOLE_HEAD + CHUNK_A[:6], CHUNK_A[6:], 1.0, CHUNK_B + LAST)


# --- What faults need and do ---


@pytest.mark.parametrize(
    ("fault", "wants_wire", "cuts"),
    [
        (Fault.parse("reset@event=0"), True, True),
        (Fault.parse("close@event=0"), True, True),
        (Fault.parse("half-close@event=0"), True, True),
        (Fault.parse("stall@event=0"), True, True),
        (Fault.parse("stall=1@event=0"), True, False),
        (Fault.parse("drip=1@byte=0"), True, False),
        (Fault.parse("slow-head=1"), True, False),
        (Fault.parse("bad-chunk-size=zz@byte=0"), True, True),
        (Fault.parse("no-last-chunk"), True, True),
        (Fault.parse("wrong-content-length=+1"), True, True),
        (Fault.parse("error=overloaded_error@event=0"), False, True),
        (Fault.parse("gzip"), True, False),
        (Fault.parse("drop@event=0"), False, False),
        (Fault.parse("status=529"), False, False),
    ],
    ids=str,
)
def test_which_faults_need_the_wire_and_which_leave_no_whole_answer(fault: Fault, wants_wire: bool, cuts: bool) -> None:
    assert (fault.needs_wire, fault.cuts) == (wants_wire, cuts)


def test_reads_can_be_cut_anew() -> None:
    assert recut(ANSWER.reads, split_by("whole")) == (Read(2.0, A + B),)
    assert recut(ANSWER.reads, split_by(8)) == (Read(0.5, A[:8]), Read(2.0, A[8:] + B[:7]), Read(2.0, B[7:]))
