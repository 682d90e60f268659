"""rawsse.replay.variants: a parser of each famous broken kind is caught, with the smallest cut that breaks it.

Each parser stands here as it is written again and again, without anything that has nothing to do with its fault. Where it
breaks, and what it then gives, is worked out by hand.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from rawsse.replay.variants import Chunks, every_split, smallest_failing_cut, whole
from rawsse.sse import Decoder

Parser = Callable[[Chunks], list[Any]]


def field(line: str, name: str) -> str:
    return line.removeprefix(f"{name}: ")


def data_in(frame: str) -> str:
    return "".join(field(line, "data") for line in frame.split("\n") if line.startswith("data"))


# --- The parsers ---


def splits_frames_per_chunk(chunks: Chunks) -> list[str]:
    """Takes it that a chunk holds whole events: `chunk.split("\\n\\n")`."""
    frames = [frame for chunk in chunks for frame in chunk.decode().split("\n\n")]
    return [data for frame in frames if (data := data_in(frame))]


def takes_a_chunk_for_an_event(chunks: Chunks) -> list[str]:
    """One read, one event: `JSON.parse(chunk.slice(6))`."""
    return [json.loads(data_in(chunk.decode())) for chunk in chunks if chunk]


def uses_splitlines(chunks: Chunks) -> list[tuple[str, ...]]:
    """Keeps an unfinished line, but asks `splitlines` for the lines: a CR at the edge is a line, and its LF one more."""
    rest, lines, events = "", [], []
    for chunk in chunks:
        *whole_lines, rest = (rest + chunk.decode()).splitlines(keepends=True) or [""]
        if rest.endswith(("\r", "\n")):
            whole_lines, rest = [*whole_lines, rest], ""
        for line in whole_lines:
            lines.append(line.rstrip("\r\n"))
            if not lines[-1]:
                events.append(tuple(lines[:-1]))
                lines = []
    return events


def decodes_per_chunk(chunks: Chunks) -> list[str]:
    """`chunk.decode()`: a character may be in two chunks."""
    return [data_in(frame) for frame in "".join(chunk.decode() for chunk in chunks).split("\n\n")[:-1]]


def decodes_per_chunk_and_replaces(chunks: Chunks) -> list[str]:
    """`new TextDecoder().decode(chunk)` without `stream: true`: no error, but wrong text."""
    text = "".join(chunk.decode("utf-8", "replace") for chunk in chunks)
    return [data_in(frame) for frame in text.split("\n\n")[:-1]]


def normalises_line_ends_per_chunk(chunks: Chunks) -> list[str]:
    """`chunk.replace("\\r\\n", "\\n").replace("\\r", "\\n")`: of a CR LF that is cut apart it makes two line ends."""
    text = "".join(chunk.decode().replace("\r\n", "\n").replace("\r", "\n") for chunk in chunks)
    return [frame for frame in text.split("\n\n") if frame]


def looks_for_crlf_per_chunk(chunks: Chunks) -> list[str]:
    """`chunk.replace("\\r\\n", "\\n")` alone: a CR LF that is cut apart stays one, and the blank line is not seen."""
    text = "".join(chunk.decode().replace("\r\n", "\n") for chunk in chunks)
    return [data_in(frame) for frame in text.split("\n\n")[:-1]]


def loses_the_popped_line(chunks: Chunks) -> list[str]:
    """`lines = chunk.split("\\n"); lines.pop()`: the unfinished line is taken off, and kept nowhere."""
    lines: list[str] = []
    for chunk in chunks:
        found = chunk.decode().split("\n")
        found.pop()
        lines += found
    return [field(line, "data") for line in lines if line.startswith("data")]


def loses_what_was_popped_last(chunks: Chunks) -> list[str]:
    """`rest = lines.pop()`, kept only if the chunk brought a line end."""
    rest, data = "", []
    for chunk in chunks:
        lines = (rest + chunk.decode()).split("\n")
        rest = lines.pop() if lines[1:] else ""
        data += [field(line, "data") for line in lines if line.startswith("data")]
    return data


def clears_its_buffer_after_an_event(chunks: Chunks) -> list[str]:
    """`buffer = ""` once an event is out: the beginning of the next one is gone."""
    buffer, data = "", []
    for chunk in chunks:
        buffer += chunk.decode()
        if "\n\n" in buffer:
            data += [data_in(frame) for frame in buffer.split("\n\n")]
            buffer = ""
    return [found for found in data if found]


def strips_chunks(chunks: Chunks) -> list[str]:
    """`chunk.trim()`: a space at the edge is content."""
    return [data_in(frame) for frame in "".join(chunk.decode().strip(" ") for chunk in chunks).split("\n\n")[:-1]]


def forgets_the_event_name(chunks: Chunks) -> list[tuple[str, str]]:
    """`let event = "message"` inside the loop over chunks: `event:` and `data:` may come apart."""
    rest, events = "", []
    for chunk in chunks:
        name = "message"
        *lines, rest = (rest + chunk.decode()).split("\n")
        for line in lines:
            if line.startswith("event: "):
                name = field(line, "event")
            elif line.startswith("data: "):
                events.append((name, field(line, "data")))
    return events


def swallows_json_errors(chunks: Chunks) -> list[Any]:
    """`try { JSON.parse(…) } catch {}`: meant for half events, and it drops them."""
    events = []
    for chunk in chunks:
        for found in re.findall(rb"(?m)^data: (.*)$", chunk):
            try:
                events.append(json.loads(found))
            except ValueError:
                continue
    return events


def looks_for_the_mark_in_the_first_chunk(chunks: Chunks) -> list[str]:
    """`if first_chunk.startswith(BOM)`: three bytes may be in two chunks."""
    first, *others = chunks or (b"",)
    text = b"".join((first.removeprefix(codecs.BOM_UTF8), *others)).decode()
    return [data for frame in text.split("\n\n") if (data := data_in(frame))]


def takes_one_event_out_of_a_chunk(chunks: Chunks) -> list[str]:
    """`if "\n\n" in buffer` where `while` is meant: what comes with an event waits for the next chunk, or for ever."""
    buffer, data = "", []
    for chunk in chunks:
        buffer += chunk.decode()
        if "\n\n" in buffer:
            frame, buffer = buffer.split("\n\n", 1)
            data.append(data_in(frame))
    return data


def tells_an_event_when_the_next_begins(chunks: Chunks) -> list[str]:
    """Does not wait for the blank line but for the next event: the last one is lost at the end."""
    rest, pending = "", None
    data: list[str] = []
    for chunk in chunks:
        *lines, rest = (rest + chunk.decode()).split("\n")
        for line in lines:
            if line.startswith("data: "):
                data += [] if pending is None else [pending]
                pending = field(line, "data")
    return data


# --- Each is caught ---


class Break(NamedTuple):
    """The stream, the first cut from the left that breaks the parser (None: it needs none), what is due, and what the
    parser gives or raises."""

    stream: bytes
    at: int | None
    expected: list[Any]
    got: list[Any] | type[Exception]


TWO_LINES = b"data: a\ndata: b\n\n"
CRLF = b"data: a\r\ndata: b\r\n\r\n"
ACCENT = "data: né\n\n".encode()

BROKEN: Mapping[Parser, Break] = {
    # "d" and "ata: a": neither begins with "data".
    splits_frames_per_chunk: Break(b"data: a\n\ndata: b\n\n", 1, ["a", "b"], ["b"]),
    # In "d" there are no data, and nothing is no JSON.
    takes_a_chunk_for_an_event: Break(b"data: 17\n\n", 1, [17], json.JSONDecodeError),
    # "data: a" and its CR are eight bytes. The LF in the next chunk is a line by itself: a blank one, too early.
    uses_splitlines: Break(CRLF, 8, [("data: a", "data: b")], [("data: a",), ("data: b",)]),
    normalises_line_ends_per_chunk: Break(CRLF, 8, ["data: a\ndata: b"], ["data: a", "data: b"]),
    # The CR stays where it was, at the end of the data.
    looks_for_crlf_per_chunk: Break(b"data: a\r\n\r\n", 8, ["a"], ["a\r"]),
    # é is C3 A9; "data: n" and C3 are eight bytes.
    decodes_per_chunk: Break(ACCENT, 8, ["né"], UnicodeDecodeError),
    decodes_per_chunk_and_replaces: Break(ACCENT, 8, ["né"], ["n\ufffd\ufffd"]),
    # "d" is popped and gone; "ata: a" is no data.
    loses_the_popped_line: Break(TWO_LINES, 1, ["a", "b"], ["b"]),
    loses_what_was_popped_last: Break(TWO_LINES, 1, ["a", "b"], ["b"]),
    # Until byte 9 no event is whole; there it is, and nothing has begun. One byte on, the "d" of the next one is lost.
    clears_its_buffer_after_an_event: Break(b"data: a\n\ndata: b\n\n", 10, ["a", "b"], ["a"]),
    # "data:" are five bytes. The space after them is lost, and then the line does not begin with "data: ".
    strips_chunks: Break(b"data: a b\n\n", 5, ["a b"], ["data:a b"]),
    # "event: a" and its LF are nine bytes. Cut before that, the line comes whole with the second chunk.
    forgets_the_event_name: Break(b"event: a\ndata: 1\n\n", 9, [("a", "1")], [("message", "1")]),
    # No line of either chunk begins with "data: ".
    swallows_json_errors: Break(b"data: 17\n\n", 1, [17], []),
    # U+FEFF are the bytes EF BB BF. The first chunk has one of them; then the character stands before "data".
    looks_for_the_mark_in_the_first_chunk: Break(codecs.BOM_UTF8 + b"data: a\n\n", 1, ["a"], []),
    # These two need no cut. The first is right where each event comes by itself, as in many tests.
    takes_one_event_out_of_a_chunk: Break(b"data: a\n\ndata: b\n\n", None, ["a", "b"], ["a"]),
    tells_an_event_when_the_next_begins: Break(b"data: a\n\ndata: b\n\n", None, ["a", "b"], ["a"]),
}


@pytest.mark.parametrize("parse", BROKEN)
def test_a_broken_parser_is_caught_at_the_first_cut_that_breaks_it(parse: Parser) -> None:
    known = BROKEN[parse]
    failing = smallest_failing_cut(known.stream, parse, known.expected)
    assert failing is not None
    got = type(failing.got) if isinstance(failing.got, Exception) else failing.got
    assert (failing.cuts, got) == (() if known.at is None else (known.at,), known.got)


def test_a_first_chunk_that_is_empty_breaks_it_only_where_there_may_be_one() -> None:
    parse, stream = looks_for_the_mark_in_the_first_chunk, codecs.BOM_UTF8 + b"data: a\n\n"
    failing = smallest_failing_cut(stream, parse, empty=True)
    assert failing is not None
    assert failing.chunks == (b"", stream)


@pytest.mark.parametrize("parse", BROKEN)
def test_a_broken_parser_fails_a_test_with_every_split(parse: Parser) -> None:
    known = BROKEN[parse]
    assert any(is_broken_by(parse, chunks, known.expected) for chunks in every_split(known.stream))


@pytest.mark.parametrize("parse", BROKEN)
def test_most_pass_a_test_with_the_whole_stream(parse: Parser) -> None:
    known = BROKEN[parse]
    assert is_broken_by(parse, whole(known.stream), known.expected) is (known.at is None)


def is_broken_by(parse: Parser, chunks: Chunks, expected: list[Any]) -> bool:
    try:
        return parse(chunks) != expected
    except ValueError:
        return True


@pytest.mark.parametrize("stream", sorted({known.stream for known in BROKEN.values()}))
def test_none_of_their_streams_breaks_our_decoder(stream: bytes) -> None:
    def parse(chunks: Chunks) -> list[Any]:
        decoder = Decoder()
        return [event for chunk in chunks for event in decoder.feed(chunk)]

    assert parse(whole(stream)) != []
    assert smallest_failing_cut(stream, parse) is None


# --- And shown ---


def test_a_cut_in_a_line_is_shown_with_what_was_lost() -> None:
    shown = r'''cut at byte 1: b'd' | b'ata: a\ndata: b\n\n'; expected "['a', 'b']", got "['b']"'''
    assert repr(smallest_failing_cut(TWO_LINES, loses_the_popped_line)) == shown


def test_a_cut_between_cr_and_lf_is_shown_with_the_bytes_on_both_sides() -> None:
    failing = smallest_failing_cut(CRLF, normalises_line_ends_per_chunk)
    assert repr(failing).startswith(r"cut at byte 8: b'data: a\r' | b'\ndata: b\r\n\r\n'; expected ")
    assert repr(failing).endswith(""", got "['data: a', 'data: b']\"""")


def test_a_cut_in_a_character_is_shown_with_the_error() -> None:
    failing = smallest_failing_cut(ACCENT, decodes_per_chunk)
    assert repr(failing).startswith(r"cut at byte 8: b'data: n\xc3' | b'\xa9\n\n'; ")
    assert "got \"UnicodeDecodeError('utf-8'" in repr(failing)
