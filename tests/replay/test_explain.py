"""rawsse.replay.explain: columns and figures; nothing that a terminal obeys."""

from __future__ import annotations

import json
import re
import sys
from functools import partial

import pytest
from support.sampling import one_in
from support.streams import STOP, block, end, input_delta, start, to_bytes, tool_block

from rawsse.replay import Read, RecordedRequest, Recording, check, shipped_fixtures
from rawsse.replay.explain import MAX_LABELLED_LINES, WIDTH, Timeline, explain, explain_event, visible
from rawsse.replay.variants import by_event
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
    recording = Recording(reads=(Read(0.0, line + b"\n"),), duration=1.0)
    assert re.search(
        rf'\n   0\.000     1       0  data: .*é… \({len(line)} bytes\) …é.*é\\xc3\\xff"}}␊\n', explain(recording)
    )


def test_a_gap_stands_before_the_read_that_ended_it() -> None:
    reads = tuple(Read(t, b": a\n") for t in (0.0, 0.01, 0.02, 0.03, 0.04, 2.0))
    lines = explain(Recording(reads=reads, duration=5.0)).split("\n")
    at = lines.index("   2.000     6      20  : a␊")
    assert lines[at - 1].strip() == "┄┄┄ nothing for 1.960 s ┄┄┄"
    assert lines[at + 2].strip() == "┄┄┄ nothing for 3.000 s ┄┄┄"


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
    assert lines[1].strip() == "! the stream ends inside an event: 'data: half'"


def test_a_stream_without_a_message_says_so() -> None:
    assert "message            none: message_start never came" in lines_of(b": nothing\n\n")


def test_an_answer_that_is_no_stream_says_so() -> None:
    recording = Recording(status=529, reads=(Read(0.5, b'{"type":"error"}\n'),), duration=0.5)
    assert "\nending             answer: no stream: HTTP status 529; connection: clean\n" in explain(recording)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("plain", "answer: complete; connection: clean"),
        ("cut", "answer: truncated in a content block; connection: cut"),
        ("error-after-content", "answer: error event, api_error: Internal server error; connection: clean"),
        ("max-tokens", "answer: complete; connection: clean"),
    ],
)
def test_the_end_is_said_in_words(name: str, verdict: str) -> None:
    assert f"\nending {verdict}\n" in re.sub("\n {19}|  +", " ", explain(shipped_fixtures()[name]))


PLAIN = by_event(shipped_fixtures()["plain"].body)


def test_a_stream_that_breaks_rules_is_not_complete_and_the_summary_counts_them_and_has_the_first() -> None:
    text = re.sub("\n {19}|  +", " ", explain(Recording.from_sse(b"".join([PLAIN[0], *PLAIN[2:]]))))
    count, at = len(PLAIN) - 5, len(PLAIN[0] + PLAIN[2])  # all but five events are deltas, or the end of the block
    first = "block 0 was never started: content_block_delta may not come between content blocks"
    problems = f"problems {count} broken rules, the first at byte {at}, event 3: {first}"
    assert f"\nending answer: broken; connection: unknown\n{problems}\n" in text
    assert text.count(" ! block 0 was never started: ") == count


# Those at both ends, and of the deltas between them, which are alike, one in ten.
LOST = sorted({*range(5), *range(0, len(PLAIN), one_in(10)), *range(len(PLAIN) - 4, len(PLAIN))})


@pytest.mark.parametrize("lost", LOST)
def test_without_any_of_its_events_a_stream_is_called_complete_only_if_no_rule_is_broken(lost: int) -> None:
    recording = Recording.from_sse(b"".join([*PLAIN[:lost], *PLAIN[lost + 1 :]]))
    broken = [finding for finding in check(recording) if finding.severity == "error"]
    timeline = Timeline.of(recording)
    assert timeline.broken == tuple(broken)
    assert ("problems" in dict(timeline.figures)) is bool(broken)
    assert not (broken and timeline.verdict.startswith("complete"))


def test_an_answer_in_json_to_a_request_for_a_stream_is_a_problem_as_for_check() -> None:
    request = RecordedRequest("POST", "/v1/messages", {}, {"stream": True})
    recording = Recording(request, headers={"content-type": "application/json"}, reads=(Read(0.5, b"{}"),))
    said = dict(Timeline.of(recording).figures)["problems"]
    assert said.startswith("1 broken rule at byte 0, event 0: the content type is 'application/json': ")


def test_a_tool_call_that_was_cut_is_marked() -> None:
    assert "tool_use (not complete)" in explain(shipped_fixtures()["max-tokens"])


def test_a_missing_tail_is_told_from_a_whole_stream() -> None:
    body = shipped_fixtures()["plain"].body
    without_stop = body[: body.index(b"event: message_stop")]
    assert "answer: complete, without message_stop;" in explain(Recording.from_sse(without_stop))


def test_a_message_and_a_block_without_their_fields_are_shown_all_the_same() -> None:
    text = explain(Recording.from_sse(b'data: {"type":"message_start","message":{"content":[{"a":1}]}}\n\n'))
    assert "\nmessage            None, None, stop reason none\n" in text
    assert '\n                   [0] None: {"a": 1}\n' in text


# --- Figures ---


def test_the_figures_are_those_of_the_recording() -> None:
    said = dict(Timeline.of(shipped_fixtures()["pings"]).figures)
    assert said["first event"] == "0.900 s, event 1"
    assert said["first content"] == "4.650 s, event 17"
    assert "first text" not in said  # the same
    assert said["longest gap"] == "0.393 s after 6.019 s"
    assert said["reads"] == "29, 2,883 bytes"
    assert said["pings"] == "15"
    assert said["events"].startswith("29: 15 ping, 1 message_start, ")
    assert said["usage"] == 'input_tokens 11, output_tokens 62, service_tier "standard"'
    assert said["end"] == "8.264 s"


def test_the_first_text_is_a_figure_where_other_content_comes_before_it() -> None:
    thinking = shipped_fixtures()["thinking"]
    number = next(number for number, event in enumerate(by_event(thinking.body), 1) if b'"text_delta"' in event)
    said = dict(Timeline.of(thinking).figures)
    assert said["first content"] == "0.980 s, event 4"
    assert said["first text"] == f"1.594 s, event {number}"
    call = Recording.from_sse(to_bytes([start(), *block(0, tool_block(), input_delta(0, "{}")), end(), STOP]))
    assert dict(Timeline.of(call).figures)["first text"] == "none"


def test_the_times_of_a_bare_event_stream_are_unknown_not_zero() -> None:
    recording = Recording.from_sse(b"".join(PLAIN))
    said = dict(Timeline.of(recording).figures)
    assert said["first event"] == "unknown time, event 1"
    assert said["first content"] == "unknown time, event 4"
    assert (said["longest gap"], said["end"]) == ("unknown", "unknown")
    assert said["ending"] == "answer: complete; connection: unknown"
    assert "\n unknown     1       0  event: message_start␊\n" in explain(recording)
    assert "0.000" not in explain(recording) + explain_event(recording, 1)


def test_a_long_figure_takes_several_lines_and_not_too_many() -> None:
    words = {"type": "error", "error": {"type": "api_error", "message": "Oops " * 10_000}}
    recording = Recording(status=529, reads=(Read(0.0, json.dumps(words).encode()),))
    text = explain(recording)
    shown = text[text.index("\nending ") + 1 : text.index("\nmessage ")].split("\n")
    assert 2 < len(shown) <= MAX_LABELLED_LINES + 1
    assert max(map(len, shown)) <= WIDTH
    size = len("answer: HTTP status 529, api_error: ; connection: unknown") + 50_000
    assert f"… ({size:,} characters) …" in " ".join(map(str.strip, shown))
    assert " ".join(map(str.strip, shown)).endswith("Oops ; connection: unknown")


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
