"""`explain` lays a recording out so that a person sees reads, lines, events and the message."""

from __future__ import annotations

import pytest

from rawsse.replay import Read, Recording, shipped_fixtures
from rawsse.replay.explain import explain


def lines_of(body: bytes) -> list[str]:
    return explain(Recording.from_sse(body)).split("\n")


def test_a_read_shows_its_time_its_size_and_where_it_begins() -> None:
    recording = Recording(reads=(Read(0.25, b": one\n"), Read(1.5, b": two!\n")))
    lines = explain(recording).split("\n")
    assert "read 1  at 0.250 s (+0.250)  6 bytes from byte 0" in lines
    assert "read 2  at 1.500 s (+1.250)  7 bytes from byte 6" in lines


def test_line_ends_are_made_visible() -> None:
    lines = lines_of(b"event: ping\r\ndata: {}\r\r\n\n")
    assert lines[4:8] == ["  | event: ping␍␊", "  | data: {}␍", "  | ␍␊", "  | ␊"]


def test_an_event_is_summed_up_below_the_lines_that_complete_it() -> None:
    lines = lines_of(b'event: ping\ndata: {"type": "ping"}\n\n')
    assert lines[7] == "  > event 1: ping"


def test_what_the_order_does_not_allow_is_marked_where_it_stands() -> None:
    text = explain(Recording.from_sse(b'data: {"type":"message_stop"}\n\n'))
    assert "  ! message_stop may not come before message_start" in text


def test_data_that_are_no_json_are_shown_and_do_not_end_the_explanation() -> None:
    text = explain(Recording.from_sse(b"data: {oops\n\ndata: [DONE]\n\n"))
    assert "  ! event 1: the data of event 'message' are no JSON" in text
    assert "  > event 2: the end mark [DONE], which is not the API's" in text


def test_what_the_end_cut_off_is_shown() -> None:
    assert "cut off  b'data: half'" in lines_of(b"data: half")


def test_a_stream_without_a_message_says_so() -> None:
    assert "message  none: message_start never came" in lines_of(b": nothing\n\n")


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("plain", "clean: complete"),
        ("cut", "cut: truncated in a content block"),
        ("error-after-content", "error event, api_error: Internal server error"),
        ("max-tokens", "clean: complete"),
    ],
)
def test_the_end_is_said_in_words(name: str, verdict: str) -> None:
    assert verdict in explain(shipped_fixtures()[name])


def test_a_tool_call_that_was_cut_is_marked() -> None:
    assert "tool_use  (not complete)" in explain(shipped_fixtures()["max-tokens"])


def test_a_missing_tail_is_told_from_a_whole_stream() -> None:
    body = shipped_fixtures()["plain"].body
    without_stop = body[: body.index(b"event: message_stop")]
    assert "complete, but message_stop is missing" in explain(Recording.from_sse(without_stop))


@pytest.mark.parametrize("name", sorted(shipped_fixtures()))
def test_every_event_of_a_shipped_recording_is_in_its_explanation(name: str) -> None:
    recording = shipped_fixtures()[name]
    whole_events = recording.body.count(b"\n\n")
    assert explain(recording).count("  > event ") == whole_events


def test_a_message_and_a_block_without_their_fields_are_shown_all_the_same() -> None:
    text = explain(Recording.from_sse(b'data: {"type":"message_start","message":{"content":[{"a":1}]}}\n\n'))
    assert "\nmessage  None, None, stop reason None\n" in text
    assert '\n  [0] None: {"a": 1}\n' in text
