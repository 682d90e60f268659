"""rawsse.replay.explain: one event, followed from the read to the message; and `rawsse explain --event`."""

from __future__ import annotations

import io
import json
import re
import sys
from itertools import product
from pathlib import Path

import pytest
from support.command import ROOT
from support.sampling import one_in

from rawsse.cli import main
from rawsse.errors import ConfigurationError
from rawsse.replay import Read, Recording, check, shipped_fixtures
from rawsse.replay.explain import MAX_LAYER_LINES, MAX_LAYER_READS, WIDTH, Timeline, explain_event, layers
from rawsse.replay.explain_page import explain_html
from rawsse.replay.scrub import to_show
from rawsse.replay.variants import rewrite_by

START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant",'
    b'"model":"c","content":[],"stop_reason":null,"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
)
BLOCK = (
    b"event: content_block_start\n"
    b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
)
DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}\n\n'
)
PLAIN = ROOT / "fixtures/plain.sse.jsonl"


def test_an_event_is_followed_from_its_reads_to_the_message() -> None:
    recording = Recording(reads=(Read(0.5, START + BLOCK + DELTA[:20]), Read(0.75, DELTA[20:] + b": more\n")))
    first, second, start = len(START + BLOCK) + 20, len(DELTA) - 20 + 7, len(START + BLOCK)
    lines = [re.sub("  +", "  ", line) for line in explain_event(recording, 3).splitlines()]
    assert lines[0] == 'event 3: content_block_delta [0] text_delta "Hi"'
    assert lines[1] == f"read  1 at 0.500 s, {first} bytes; the event's: 20, from byte {start} of the body"
    # RFC 9112, 7.1: a chunk is its size in hexadecimal, CR LF, the data, CR LF.
    assert lines[2] == f"chunk, rebuilt  {first:x}␍␊"
    assert re.fullmatch(rf'  event: message_start␊data: .*… \({start} bytes\) ….*"text":""\}}\}}␊␊', lines[3])
    assert lines[4:6] == ["  event: content_block", "  ␍␊"]
    own = f"the event's: {len(DELTA) - 20}, from byte {start + 20} of the body"
    assert lines[6] == f"read  2 at 0.750 s, {second} bytes; {own}"
    assert lines[7] == f"chunk, rebuilt  {second:x}␍␊"
    assert lines[8].strip() + lines[9].strip() == DELTA[20:].decode().replace("\n", "␊")
    assert lines[10:14] == ["  : more␊", "  ␍␊", "lines  event: content_block ⋯", "  _delta␊"]
    assert lines[14].strip() + lines[15].strip() == DELTA.decode().split("\n")[1] + "␊"
    assert lines[16:18] == ["  ␊", "JSON  {"]
    assert json.loads("\n".join(["{", *lines[18:-4]])) == json.loads(DELTA.partition(b"data: ")[2])
    assert lines[-4] == "message  m, c, stop reason none"
    assert lines[-3] == '  [0] text (not complete): {"text": "Hi"}'
    # As it is then, not at the end.
    assert '\n  [0] text (not complete): {"text": ""}\n' in re.sub("  +", "  ", explain_event(recording, 2))


FORMS = ["as it was", "crlf", "cr", "byte by byte"]
FIXTURES = sorted(shipped_fixtures())


# At least one form of each fixture, or all forms of all.
@pytest.mark.parametrize(("name", "form"), list(product(FIXTURES, FORMS))[:: one_in(3)])
def test_every_event_of_a_shipped_recording_can_be_followed_however_it_was_cut(name: str, form: str) -> None:
    recording = shipped_fixtures()[name]
    if form == "byte by byte":
        reads = tuple(Read(0.0, bytes([byte])) for byte in recording.body[:2000])
        recording = Recording(status=recording.status, headers=recording.headers, reads=reads)
    elif form != "as it was":
        recording = rewrite_by(form)(recording)
    timeline = Timeline.of(recording)
    for event in timeline.events[:5] + timeline.events[-5:]:
        shown = [(layer.name, "\n".join(layer.lines)) for layer in layers(timeline, event)]
        assert [name for name, _ in shown if name not in ("read", "chunk, rebuilt")] == [
            "lines",
            "JSON",
            "problem",
            "message",
            "note",
        ]
        assert f'"type": "{event.kind}"' in dict(shown)["JSON"]
        assert dict(shown)["lines"].replace(" ⋯\n", "").startswith(event.pieces[0].data.decode())
        assert shown[0][1].startswith(f"{event.pieces[0].read} at ")
    for number in {1, len(timeline.events)}:
        text = explain_event(recording, number)
        assert max(map(len, text.split("\n"))) <= WIDTH
        assert f'"type": "{timeline.event(number).kind}"' in text
        assert "\nread  " in text


def test_an_event_whose_data_are_not_json_is_shown_with_what_is_wrong() -> None:
    text = explain_event(Recording.from_sse(b"data: oops\n\ndata: [DONE]\n\n"), 1)
    assert "\nlines              data: oops␊\n" in text
    assert "\nJSON               none\n" in text
    assert "\nproblem            the data of event 'message' are not JSON" in text
    assert "\nmessage            none: message_start never came\n" in text


def test_of_an_event_that_came_in_many_reads_the_first_are_shown_and_the_others_are_counted() -> None:
    reads = tuple(Read(0.0, bytes([byte])) for byte in START)
    text = explain_event(Recording(reads=reads), 1)
    assert text.count("\nchunk, rebuilt") == MAX_LAYER_READS
    assert f"\nread               … and {len(START) - MAX_LAYER_READS} more reads\n" in text


def test_json_of_many_lines_is_cut() -> None:
    text = explain_event(Recording.from_sse(b'data: {"type":"x","many":[%b1]}\n\n' % (b"1," * 999)), 1)
    assert f"… and {1005 - MAX_LAYER_LINES} more lines\n" in text  # {, type, many, 1000 numbers, ] and }


def test_a_character_that_a_read_cuts_is_seen_in_every_row_of_the_wire() -> None:
    shown = explain_event(shipped_fixtures()["unicode"], 5).replace("\n" + " " * 19, "")
    # U+00DF is C3 9F in UTF-8: the first read ends between them.
    assert '"delta":{"type":"text_delta","text":"\\xc3␍␊\nread ' in shown
    assert '\nchunk, rebuilt     c␍␊\\x9fe"}     }␊␊␍␊\nlines ' in shown
    assert '"delta":{"type":"text_delta","text":"\\xc3 ⋯\\x9fe"}     }␊␊\nJSON ' in shown


def test_of_a_very_large_event_both_ends_are_shown_and_its_size_in_bytes_in_a_few_lines() -> None:
    data = b'data: {"type":"x","text":"%s"}\n' % ("é".encode() * 50_000 + b"\xc3" * 50_000)
    for cut in (len(data), 1000):
        reads = (Read(0.0, data[at : at + cut]) for at in range(0, len(data), cut))
        shown = explain_event(Recording(reads=(*reads, Read(1.0, b"\n"))), 1).replace("\n" + " " * 19, "")
        assert f"… ({min(len(data), cut):,} bytes) …" in shown
        assert shown.count("\n") < 200
    shown = explain_event(Recording.from_sse(data + b"\n"), 1).replace("\n" + " " * 19, "")
    # The invalid bytes are written in four characters, and are bytes all the same. In JSON they are U+FFFD.
    assert re.search(rf'data: {{"type":"x","text":"é+… \({len(data):,} bytes\) …[cx3\\]+"}}␊', shown)
    assert re.search(r'"text": "é+… \(100,012 characters\) …\ufffd+"', shown)


@pytest.mark.parametrize("number", [0, -1, 3])
def test_an_event_that_is_not_there_is_said(number: int) -> None:
    with pytest.raises(ConfigurationError, match=f"there is no event {number}: .* has 2"):
        explain_event(Recording.from_sse(START + BLOCK), number)


@pytest.mark.parametrize("rest", ["event: ping\n", "event: ping\ndata: {}\n", "ev", "event: ping\r\ndata: {"])
def test_an_event_that_the_stream_ends_inside_is_said_to_be_incomplete(rest: str) -> None:
    recording = Recording.from_sse(START + BLOCK + rest.encode())
    assert {finding.where.event for finding in check(recording)} == {3}
    with pytest.raises(ConfigurationError, match=r"event 3: .* has 2; the stream ends inside event 3, which was never"):
        explain_event(recording, 3)
    with pytest.raises(ConfigurationError, match=r"there is no event 4: .* has 2$"):
        explain_event(recording, 4)


def test_without_colour_there_is_no_escape_and_with_it_the_same_text() -> None:
    recording = shipped_fixtures()["tools"]
    plain, colored = explain_event(recording, 5), explain_event(recording, 5, color=True)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[\d;]*m", "", colored) == plain
    assert colored.startswith("\x1b[32m")  # green: a text


def test_the_bytes_of_the_event_are_highlighted_in_a_chunk_with_those_of_others() -> None:
    events = [b'data: {"type":"ping","n":"%s"}\n\n' % (digit * 100) for digit in (b"1", b"2", b"3")]
    recording = Recording.from_sse(b"".join(events))
    for number in (1, 2, 3):
        marked = re.findall(r"\x1b\[7m(.*?)\x1b\[0m", explain_event(recording, number, color=True))
        assert len(marked) == 2  # it is wrapped
        assert "".join(marked) == events[number - 1].decode().replace("\n", "␊")
    assert "\x1b[7m" not in explain_event(Recording.from_sse(events[0]), 1, color=True)


def test_a_note_says_that_the_framing_of_chunks_is_not_kept_and_how_other_chunks_are_sent() -> None:
    lines = explain_event(shipped_fixtures()["plain"], 4).splitlines()
    assert lines[-2:] == [
        "note               A read's size is without the framing of HTTP chunks, which a recording lacks.",
        "                   Here each read is one chunk; `rawsse replay --split` or --segments sends others.",
    ]


def test_no_part_of_an_event_reaches_the_terminal_as_a_control() -> None:
    body = b'data: {"type":"\\u001b[31m","\\u202e":"\x9b"}\n: \x1b]0;x\x07\n\n'
    assert re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", explain_event(Recording.from_sse(body), 1)) == []


# --- The command ---


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "is_colored"), [("", True), ("1", False)])
@pytest.mark.parametrize("options", [[], ["--event", "4"]])
def test_a_terminal_gets_colour_unless_no_color_is_set(
    options: list[str], no_color: str, is_colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # https://no-color.org: "when present and not an empty string"
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert main(["explain", *options, str(PLAIN)]) == 0
    assert isinstance(sys.stdout, Terminal)
    assert ("\x1b[" in sys.stdout.getvalue()) is is_colored


def test_the_command_follows_one_event(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--event", "4", str(PLAIN)]) == 0
    out = capsys.readouterr().out
    assert 'event 4: content_block_delta [0] text_delta "A server-sent event"\n' in out
    assert '  [0] text (not complete): {"text": "A server-sent event"}\n' in out


@pytest.mark.parametrize("options", [[], ["--html", "pages"]])
def test_a_recording_without_the_event_is_named_and_the_others_are_explained(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, body in (("a", START), ("b", START + BLOCK), ("c", START), ("d", START + BLOCK + DELTA)):
        (tmp_path / f"{name}.sse").write_bytes(body)
    assert main(["explain", "--event", "2", *options, "."]) == 1
    out, err = capsys.readouterr()
    assert err == "".join(f"rawsse: there is no event 2: {name}.sse has 1\n" for name in "ac")
    assert re.findall(r"pages/.*|(?<=== ).*", out) == (
        ["pages/b.html", "pages/d.html"] if options else ["b.sse", "d.sse"]
    )


def test_the_command_writes_the_page_of_one_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "4.html"
    assert main(["explain", "--event", "4", "--html", str(page), str(PLAIN)]) == 0
    assert page.read_text("utf-8") == explain_html(to_show(Recording.load(PLAIN)), event=4)
    assert main(["explain", "--event", "99", "--html", str(tmp_path / "99.html"), str(PLAIN)]) == 1
    assert "there is no event 99" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [page]
