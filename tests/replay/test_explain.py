"""rawsse.replay.explain: columns and figures; nothing that a terminal obeys."""

from __future__ import annotations

import json
import re
import sys
from functools import partial

import pytest

from rawsse.replay import Read, Recording, shipped_fixtures
from rawsse.replay.explain import MAX_LABELLED_LINES, WIDTH, Timeline, explain, visible
from rawsse.sse import Decoder

PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def lines_of(body: bytes) -> list[str]:
    """The lines beneath the heading of the columns."""
    lines = explain(Recording.from_sse(body)).split("\n")
    return lines[lines.index("    time  read    byte  line") + 1 :]


# --- Columns ---


def test_a_read_shows_its_time_and_number_once_and_every_line_its_byte() -> None:
    recording = Recording(reads=(Read(0.25, b": one\n: too\n"), Read(1.5, b": two!\n")))
    lines = explain(recording).split("\n")
    assert "   0.250     1       0  : one␊" in lines
    assert "                     6  : too␊" in lines
    assert "   1.500     2      12  : two!␊" in lines


def test_line_ends_are_made_visible() -> None:
    assert [line[24:] for line in lines_of(b": ping\r\n: x\r: y\n")[:3]] == [": ping␍␊", ": x␍", ": y␊"]


def test_the_event_stands_beside_the_blank_line_that_completes_it() -> None:
    assert lines_of(PING)[2] == "                    35  ␊ ═▶ event 1: ping"


def test_a_line_that_goes_on_in_the_next_read_is_marked() -> None:
    recording = Recording(reads=(Read(0.0, PING[:9]), Read(0.1, PING[9:])))
    lines = explain(recording).split("\n")
    assert "   0.000     1       0  event: pi ⋯" in lines
    assert "   0.100     2       9  ng␊" in lines


def test_a_read_that_ends_inside_a_character_shows_its_bytes() -> None:
    recording = Recording(reads=(Read(0.0, b": \xc3"), Read(0.1, b"\xa9\n")))
    assert "  : \\xc3 ⋯\n" in explain(recording)
    assert "  \\xa9␊\n" in explain(recording)


def test_of_a_long_line_both_ends_are_shown_and_its_size_in_bytes() -> None:
    line = b'data: {"text": "' + "é".encode() * 200 + b'\xc3\xff"}\n'
    recording = Recording(reads=(Read(0.0, line + b"\n"),))
    assert re.search(
        rf'\n   0\.000     1       0  data: .*é… \({len(line)} bytes\) …é.*é\\xc3\\xff"}}␊\n', explain(recording)
    )


def test_a_gap_stands_before_the_read_that_ended_it() -> None:
    reads = tuple(Read(t, b": a\n") for t in (0.0, 0.01, 0.02, 0.03, 0.04, 2.0))
    lines = explain(Recording(reads=reads, duration=5.0)).split("\n")
    at = lines.index("   2.000     6      20  : a␊")
    assert lines[at - 1].strip() == "┄┄┄ nothing for 1.960 s ┄┄┄"
    assert lines[at + 1].strip() == "┄┄┄ nothing for 3.000 s ┄┄┄"


@pytest.mark.parametrize("name", sorted(shipped_fixtures()))
def test_no_line_is_wider_than_the_width(name: str) -> None:
    assert max(map(len, explain(shipped_fixtures()[name]).split("\n"))) <= WIDTH


@pytest.mark.parametrize("name", sorted(shipped_fixtures()))
def test_every_event_and_every_read_of_a_shipped_recording_is_in_its_explanation(name: str) -> None:
    recording = shipped_fixtures()[name]
    text = explain(recording)
    assert text.count("═▶ event ") == recording.body.count(b"\n\n")
    assert [int(read) for read in re.findall(r"^ +\d+\.\d{3} +(\d+) ", text, re.MULTILINE)] == list(
        range(1, len(recording.reads) + 1)
    )


# --- What is wrong ---


def test_what_the_order_does_not_allow_is_marked_where_it_stands() -> None:
    text = explain(Recording.from_sse(b'data: {"type":"message_stop"}\n\n'))
    assert " ! message_stop may not come before message_start\n" in text


def test_data_that_are_no_json_are_shown_and_do_not_end_the_explanation() -> None:
    text = explain(Recording.from_sse(b"data: {oops\n\ndata: [DONE]\n\n"))
    assert " ! the data of event 'message' are not JSON" in text
    assert "═▶ event 2: [DONE] the end mark [DONE], which is not the API's" in text


def test_an_event_that_is_too_large_is_said_and_the_rest_is_shown_as_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = sys.modules["rawsse.replay.check"]
    monkeypatch.setattr(checks, "Decoder", partial(Decoder, max_event_bytes=1000))
    text = explain(Recording.from_sse(b"data: " + b"x" * 1001 + b"\n\n" + PING))
    assert " ! a server-sent event is larger than max_event_bytes (1000)\n" in text
    assert "event: ping␊" in text
    assert "events             0\n" in text


def test_what_the_end_cut_off_is_said() -> None:
    lines = lines_of(b"data: half")
    assert lines[0].endswith("data: half ⋯")
    assert lines[1].strip() == "! cut off: not an event"


def test_a_stream_without_a_message_says_so() -> None:
    assert "message            none: message_start never came" in lines_of(b": nothing\n\n")


def test_an_answer_that_is_no_stream_says_so() -> None:
    recording = Recording(status=529, reads=(Read(0.5, b'{"type":"error"}\n'),), duration=0.5)
    assert "\nending             clean: no stream: HTTP status 529\n" in explain(recording)


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
    assert "tool_use (not complete)" in explain(shipped_fixtures()["max-tokens"])


def test_a_missing_tail_is_told_from_a_whole_stream() -> None:
    body = shipped_fixtures()["plain"].body
    without_stop = body[: body.index(b"event: message_stop")]
    assert "complete, but message_stop is missing" in explain(Recording.from_sse(without_stop))


def test_a_message_and_a_block_without_their_fields_are_shown_all_the_same() -> None:
    text = explain(Recording.from_sse(b'data: {"type":"message_start","message":{"content":[{"a":1}]}}\n\n'))
    assert "\nmessage            None, None, stop reason none\n" in text
    assert '\n                   [0] None: {"a": 1}\n' in text


# --- Figures ---


def test_the_figures_are_those_of_the_recording() -> None:
    said = dict(Timeline.of(shipped_fixtures()["pings"]).figures)
    assert said["first event"] == "0.900 s"
    assert said["first content"] == "4.650 s, event 17"
    assert said["longest gap"] == "0.393 s after 6.019 s"
    assert said["reads"] == "29, 2,883 bytes"
    assert said["pings"] == "15"
    assert said["events"].startswith("29: 15 ping, 1 message_start, ")
    assert said["usage"] == 'input_tokens 11, output_tokens 62, service_tier "standard"'
    assert said["end"] == "8.264 s"


def test_a_long_figure_takes_several_lines_and_not_too_many() -> None:
    words = {"type": "error", "error": {"type": "api_error", "message": "Oops " * 10_000}}
    recording = Recording(status=529, reads=(Read(0.0, json.dumps(words).encode()),))
    text = explain(recording)
    shown = text[text.index("\nending ") + 1 : text.index("\nmessage ")].split("\n")
    assert 2 < len(shown) <= MAX_LABELLED_LINES + 1
    assert max(map(len, shown)) <= WIDTH
    assert f"… ({len('clean: HTTP status 529, api_error: ') + 50_000:,} characters) …" in " ".join(
        map(str.strip, shown)
    )
    assert shown[-1].endswith("Oops")


# --- Colours, and characters that would be obeyed ---


def test_without_colour_there_is_no_escape_and_with_it_the_same_text() -> None:
    for recording in shipped_fixtures().values():
        plain, coloured = explain(recording), explain(recording, color=True)
        assert "\x1b" not in plain
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_an_event_has_the_colour_of_its_kind() -> None:
    assert "\x1b[2mevent 1: ping\x1b[0m" in explain(Recording.from_sse(PING), color=True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "␛[2J"),
        ("a\x00b\x7f\r\n\t", "a␀b␡␍␊␉"),
        ("\x9b5n", "\\u009b5n"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("\u200b\ufeff\ud800", "\\u200b\\ufeff\\ud800"),
        ("Grüße 👨\u200d👩 日本", "Grüße 👨\u200d👩 日本"),
    ],
)
def test_what_would_be_obeyed_or_not_be_seen_is_made_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_no_part_of_a_recording_reaches_the_terminal_as_a_control() -> None:
    bad = "\x1b[31m\x9b\u202e"
    body = f'event: x{bad}\ndata: {{"type":"error","error":{{"type":"{bad[1:]}","message":"{bad[1:]}"}}}}\n\n: {bad}\n{bad}'
    recording = Recording(headers={"x": bad}, reads=(Read(0.1, body.encode()),), duration=0.1)
    assert re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", explain(recording)) == []
