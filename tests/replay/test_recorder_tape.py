"""rawsse.replay.recorder: what is kept of an exchange, and when it came."""

from __future__ import annotations

from rawsse.replay.recorder import MAX_RECORDING_BYTES, Tape
from rawsse.replay.recording import Read, RecordedRequest, Recording

SSE = {"content-type": "text/event-stream"}


def begun(now: float = 100.0, **options: int) -> Tape:
    tape = Tape(now, **options)
    tape.head(200, SSE)
    return tape


def of(tape: Tape) -> Recording:
    recording = tape.recording()
    assert recording is not None
    return recording


def test_times_count_from_when_the_request_was_sent() -> None:
    tape = begun(100.0)
    tape.sent(107.0)
    tape.read(b"a", 107.5)
    tape.read(b"b", 108.25)
    tape.end("clean", 109.0)
    assert of(tape) == Recording(None, 200, SSE, (Read(0.5, b"a"), Read(1.25, b"b")), "clean", 2.0)


def test_times_are_whole_microseconds() -> None:
    tape = begun(1000.0)
    tape.read(b"a", 1000.1 + 0.2)
    assert [read.t for read in of(tape).reads] == [0.3]


def test_a_time_before_the_request_was_sent_is_0() -> None:
    tape = begun(100.0)
    tape.sent(100.5)
    tape.read(b"a", 100.25)
    assert of(tape).reads == (Read(0.0, b"a"),)


def test_two_reads_at_one_time_stay_two() -> None:
    tape = begun()
    tape.read(b"a", 101.0)
    tape.read(b"b", 101.0)
    assert of(tape).reads == (Read(1.0, b"a"), Read(1.0, b"b"))


def test_a_read_of_nothing_is_none() -> None:
    tape = begun()
    tape.read(b"", 101.0)
    assert of(tape).reads == ()


def test_without_a_head_there_is_no_recording() -> None:
    tape = Tape(100.0)
    tape.end("cut", 101.0)
    assert tape.recording() is None


def test_what_comes_after_the_end_is_not_heard() -> None:
    tape = begun()
    tape.end("cut", 101.0)
    tape.read(b"a", 102.0)
    tape.end("clean", 103.0)
    assert (of(tape).reads, of(tape).end, of(tape).duration) == ((), "cut", 1.0)


def test_an_exchange_that_is_not_over_is_cut() -> None:
    assert of(begun()).end == "cut"


def test_a_body_may_have_the_bytes_of_the_limit() -> None:
    tape = begun(max_bytes=4)
    tape.read(b"ab", 101.0)
    tape.read(b"cd", 102.0)
    tape.end("clean", 103.0)
    assert (of(tape).body, of(tape).end, tape.size, tape.is_full) == (b"abcd", "clean", 4, False)


def test_a_body_with_one_byte_more_is_cut_where_the_limit_was_passed() -> None:
    tape = begun(max_bytes=4)
    tape.read(b"ab", 101.0)
    tape.read(b"cde", 102.0)
    tape.read(b"f", 102.5)
    tape.end("clean", 103.0)
    assert (of(tape).body, of(tape).end, of(tape).duration) == (b"ab", "cut", 2.0)
    assert (tape.size, tape.is_full) == (2, True)


def test_the_limit_is_far_above_the_longest_answers() -> None:
    assert MAX_RECORDING_BYTES == 16 * 1024 * 1024


def test_request_and_name_are_added_when_it_is_over() -> None:
    request = RecordedRequest("POST", "/v1/messages", {}, {"model": "m"})
    recording = begun().recording(request, name="this")
    assert recording is not None
    assert (recording.request, recording.name) == (request, "this")
