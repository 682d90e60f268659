"""rawsse.replay.recorder: what is kept of an exchange, and when it came."""

from __future__ import annotations

from pathlib import Path

import pytest

from rawsse.client.request import RequestData
from rawsse.errors import StreamTruncatedError
from rawsse.http1 import Headers, Response
from rawsse.replay.recorder import MAX_RECORDING_BYTES, ExchangeLog, Recorder
from rawsse.replay.recording import Read, Recording

REQUEST = RequestData("POST", "/v1/messages", "h", (("accept", "*/*"),), b'{"model":"m"}')


class Taken:
    """An exchange that is recorded; `now` is the clock."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.now = 100.0
        self.recorder = Recorder(folder, **limits)  # type: ignore[arg-type]
        log = self.recorder.begin(REQUEST, lambda: self.now)
        assert isinstance(log, ExchangeLog)
        self.log = log

    def head(self) -> Taken:
        self.log.head(Response(200, "OK", Headers([("content-type", "text/event-stream")]), "1.1"))
        return self

    def read(self, data: bytes, now: float) -> Taken:
        self.now = now
        self.log.read(data)
        return self

    @property
    def recording(self) -> Recording:
        recording = self.log.recording()
        assert recording is not None
        return recording


def test_times_count_from_when_the_request_was_sent(tmp_path: Path) -> None:
    taken = Taken(tmp_path).head()
    taken.now = 107.0
    taken.log.sent()
    taken.read(b"a", 107.5).read(b"b", 108.25)
    taken.now = 109.0
    taken.log.end(None)
    assert taken.recording.reads == (Read(0.5, b"a"), Read(1.25, b"b"))
    assert (taken.recording.end, taken.recording.duration) == ("clean", 2.0)
    taken.recorder.close()


def test_times_are_whole_microseconds(tmp_path: Path) -> None:
    assert [read.t for read in Taken(tmp_path).head().read(b"a", 100.1 + 0.2).recording.reads] == [0.3]


def test_a_time_before_the_request_was_sent_is_0(tmp_path: Path) -> None:
    taken = Taken(tmp_path).head()
    taken.now = 100.5
    taken.log.sent()
    assert taken.read(b"a", 100.25).recording.reads == (Read(0.0, b"a"),)


def test_two_reads_at_one_time_stay_two_and_a_read_of_nothing_is_left_out(tmp_path: Path) -> None:
    taken = Taken(tmp_path).head().read(b"a", 101.0).read(b"", 101.0).read(b"b", 101.0)
    assert taken.recording.reads == (Read(1.0, b"a"), Read(1.0, b"b"))


def test_without_a_head_there_is_no_recording(tmp_path: Path) -> None:
    taken = Taken(tmp_path)
    taken.log.end(StreamTruncatedError("gone"))
    assert taken.log.recording() is None
    taken.recorder.close()


def test_an_exchange_that_is_not_over_is_cut_and_has_its_request(tmp_path: Path) -> None:
    recording = Taken(tmp_path).head().recording
    assert recording.end == "cut"
    assert recording.request is not None
    assert (recording.request.path, recording.request.body) == ("/v1/messages", {"model": "m"})


def test_a_body_may_have_the_bytes_of_the_limit(tmp_path: Path) -> None:
    taken = Taken(tmp_path, max_bytes=4).head().read(b"ab", 101.0).read(b"cd", 102.0)
    assert (taken.recording.body, taken.log.is_full) == (b"abcd", False)


def test_a_body_with_one_byte_more_is_cut_where_the_limit_was_passed(tmp_path: Path) -> None:
    taken = Taken(tmp_path, max_bytes=4).head().read(b"ab", 101.0).read(b"cde", 102.0).read(b"f", 102.5)
    taken.now = 103.0
    taken.log.end(None)
    recording = taken.recording
    assert (recording.body, recording.end, recording.duration, taken.log.is_full) == (b"ab", "cut", 2.0, True)
    taken.recorder.close()


@pytest.mark.parametrize("room", [15, 17])
def test_a_body_is_cut_where_all_together_hold_too_much(room: int, tmp_path: Path) -> None:
    taken = Taken(tmp_path, max_held_bytes=room).head().read(b"ab", 101.0).read(b"cde", 102.0)
    assert (taken.recording.body, taken.log.is_full) == (b"ab", True)
    assert taken.log.held_bytes == len(REQUEST.body) + 2


def test_the_limit_is_far_above_the_longest_answers() -> None:
    assert MAX_RECORDING_BYTES == 16 * 1024 * 1024
