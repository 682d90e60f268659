"""rawsse.replay.variants: other bytes, the same events."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import pytest

from rawsse.errors import ConfigurationError
from rawsse.messages import Message, MessageBuilder
from rawsse.replay import shipped_fixtures, smallest_failing_cut
from rawsse.replay.recording import Read, Recording
from rawsse.replay.variants import REWRITES, by_event, rewrite_by
from rawsse.sse import Decoder, Event

TWO = b'event: a\ndata: {"x":1,"y":2}\n\nevent: b\ndata: {}\n\n'
CUT = b"event: a\ndata: {}\n\nevent: b\ndata: {"

FIXTURES = shipped_fixtures()
CRLF = REWRITES["crlf"]


def decoded(data: bytes) -> list[Event]:
    return Decoder().feed(data)


def meaning(event: Event) -> Any:
    return json.loads(event.data)


def folded(data: bytes) -> Message | None:
    builder = MessageBuilder()
    for event in decoded(data):
        builder.feed(event)
    return builder.message


# --- Each, by hand ---


def of(name: str, body: bytes) -> bytes:
    return rewrite_by(name)(Recording.from_sse(body)).body


@pytest.mark.parametrize(
    ("name", "rewritten"),
    [
        ("crlf", b'event: a\r\ndata: {"x":1,"y":2}\r\n\r\nevent: b\r\ndata: {}\r\n\r\n'),
        ("cr", b'event: a\rdata: {"x":1,"y":2}\r\revent: b\rdata: {}\r\r'),
        ("blank-lines", b'event: a\ndata: {"x":1,"y":2}\n\n\nevent: b\ndata: {}\n\n\n'),
        ("bom", b"\xef\xbb\xbf" + TWO),
        ("comments", b': keep-alive\n\nevent: a\ndata: {"x":1,"y":2}\n\n: keep-alive\n\nevent: b\ndata: {}\n\n'),
        (
            "comments-inside",
            b'event: a\n: keep-alive\ndata: {"x":1,"y":2}\n\nevent: b\n: keep-alive\ndata: {}\n\n',
        ),
        ("ids", b'id: 0\nevent: a\ndata: {"x":1,"y":2}\n\nid: 1\nevent: b\ndata: {}\n\n'),
        ("retry", b'retry: 3000\nevent: a\ndata: {"x":1,"y":2}\n\nretry: 3000\nevent: b\ndata: {}\n\n'),
        ("done", TWO + b"data: [DONE]\n\n"),
        ("no-event-lines", b'data: {"x":1,"y":2}\n\ndata: {}\n\n'),
        ("no-spaces", b'event:a\ndata:{"x":1,"y":2}\n\nevent:b\ndata:{}\n\n'),
        ("lines-of-data", b'event: a\ndata: {"x":1,\ndata: "y":2}\n\nevent: b\ndata: {}\n\n'),
    ],
)
def test_a_stream_is_rewritten(name: str, rewritten: bytes) -> None:
    assert of(name, TWO) == rewritten


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_padding_stands_before_the_last_brace_and_is_always_the_same(end: bytes) -> None:
    body = (TWO * 20).replace(b"\n", end)
    first, again = (of("padding", body) for _ in range(2))
    assert first == again
    padded = [len(found) for found in re.findall(rb"( *)}[\r\n]", first)]
    assert len(padded) == 40
    assert 0 <= min(padded) < 8 < max(padded) <= 15
    assert re.sub(rb" *}([\r\n])", rb"}\1", first) == body


def test_a_second_space_is_content_and_stays() -> None:
    assert of("no-spaces", b"data:  a\ndata: b\n\n") == b"data:  a\ndata:b\n\n"


def test_a_comma_in_a_string_is_no_place_to_cut_json() -> None:
    body = b'data: {"a":"x,\\",","b":1}\n\n'
    assert of("lines-of-data", body) == b'data: {"a":"x,\\",",\ndata: "b":1}\n\n'


@pytest.mark.parametrize("body", [b'data: {"a":"x,y"}\n\n', b"data: a, b\n\n", b'data: {"a":1,\ndata: "b":2}\n\n'])
def test_data_that_cannot_be_cut_or_are_cut_already_stay_as_they_are(body: bytes) -> None:
    assert of("lines-of-data", body) == body


def test_comments_by_themselves_have_no_number_but_the_same_line_ends() -> None:
    body = b": hi\n\ndata: {}\n\n"
    assert of("ids", body) == b": hi\n\nid: 0\ndata: {}\n\n"
    assert of("crlf", body) == b": hi\r\n\r\ndata: {}\r\n\r\n"


def test_new_lines_end_as_the_others_do() -> None:
    assert of("crlf,ids", b"data: {}\n\n") == b"id: 0\r\ndata: {}\r\n\r\n"
    assert of("cr,done", b"data: {}\n\n") == b"data: {}\r\rdata: [DONE]\r\r"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_event_lines_go_whatever_their_end_and_not_in_data(end: bytes) -> None:
    body = b'event: a\ndata: {"x":"event: y"}\n\n'.replace(b"\n", end)
    assert of("no-event-lines", body) == b'data: {"x":"event: y"}\n\n'.replace(b"\n", end)


def test_there_is_one_byte_order_mark_and_it_stays_first() -> None:
    assert of("bom,bom", TWO) == of("bom", TWO)
    assert of("bom,ids", b"data: {}\n\n") == b"\xef\xbb\xbfid: 0\ndata: {}\n\n"
    assert of("bom,no-event-lines", TWO) == of("no-event-lines,bom", TWO)


@pytest.mark.parametrize("name", sorted(REWRITES.keys() - {"bom"}))
def test_an_event_that_was_cut_off_stays_as_it_is(name: str) -> None:
    recording = REWRITES[name](Recording.from_sse(CUT))
    assert recording.body.endswith(b"event: b\ndata: {")
    assert [meaning(event) for event in decoded(recording.body)] == [{}]


@pytest.mark.parametrize("name", REWRITES)
def test_of_nothing_comes_nothing(name: str) -> None:
    assert REWRITES[name](Recording()) == Recording()


# --- All of them, over every fixture ---


@functools.cache
def rewritten_fixture(name: str, fixture: str) -> Recording:
    return REWRITES[name](FIXTURES[fixture])


@pytest.mark.parametrize("name", REWRITES)
def test_the_events_say_the_same(name: str) -> None:
    for fixture, recording in FIXTURES.items():
        before, after = decoded(recording.body), decoded(rewritten_fixture(name, fixture).body)
        if name == "done" and fixture != "cut":
            assert after.pop().data == "[DONE]", fixture
        assert [meaning(event) for event in after] == [meaning(event) for event in before], fixture
        names = ["message"] * len(before) if name == "no-event-lines" else [event.event for event in before]
        assert [event.event for event in after] == names, fixture
        ids = [str(number) if name == "ids" else "" for number in range(len(before))]
        assert [event.id for event in after] == ids, fixture


@pytest.mark.parametrize("name", REWRITES)
def test_the_message_is_the_same(name: str) -> None:
    for fixture, recording in FIXTURES.items():
        assert folded(rewritten_fixture(name, fixture).body) == folded(recording.body), fixture


def test_the_message_is_the_same_after_all_of_them_at_once() -> None:
    everything = rewrite_by(",".join(name for name in REWRITES if name != "cr"))
    for recording in FIXTURES.values():
        assert folded(everything(recording).body) == folded(recording.body)


@pytest.mark.parametrize("name", REWRITES)
def test_our_decoder_is_broken_by_no_cut_of_what_was_rewritten(name: str) -> None:
    def parse(chunks: tuple[bytes, ...]) -> list[Event]:
        decoder = Decoder()
        return [event for chunk in chunks for event in decoder.feed(chunk)]

    events = by_event(FIXTURES["empty-tool-input"].body)
    body = REWRITES[name](Recording.from_sse(b"".join((events[0], *events[-3:])))).body
    assert smallest_failing_cut(body, parse) is None


# --- Recordings ---


@pytest.mark.parametrize("name", REWRITES)
def test_of_a_recording_each_event_is_one_read_at_the_time_of_its_last_byte(name: str) -> None:
    for fixture, recording in FIXTURES.items():
        rewritten = rewritten_fixture(name, fixture)
        assert (rewritten.duration, rewritten.end) == (recording.duration, recording.end), fixture
        assert rewritten.headers == recording.headers, fixture
        assert rewritten.body == REWRITES[name](Recording.from_sse(recording.body)).body, fixture
        times = [t for t, _ in events_of(recording)]
        times += times[-1:] if name == "done" and fixture != "cut" else []
        assert [t for t, _ in events_of(rewritten)] == times, fixture
        assert all(number <= 1 for number in map(len, map(decoded, (read.data for read in rewritten.reads)))), fixture


def events_of(recording: Recording) -> list[tuple[float, Event]]:
    """The events, and when each was complete."""
    decoder = Decoder()
    return [(read.t, event) for read in recording.reads for event in decoder.feed(read.data)]


def test_events_that_came_in_pieces_or_together_are_one_read_each() -> None:
    recording = Recording(reads=(Read(1, b"data: {"), Read(2, b"}\n\ndata: {}\n\n"), Read(3, b"data: {}")))
    whole = b"data: {}\r\n\r\n"
    assert CRLF(recording).reads == (Read(2, whole), Read(2, whole), Read(3, b"data: {}"))


@pytest.mark.parametrize(
    "recording",
    [
        Recording(status=529, reads=(Read(0, b'{\n"a":1}\n\n'),)),
        Recording(headers={"Content-Type": "application/json"}, reads=(Read(0, b'{\n"a":1}\n\n'),)),
    ],
)
def test_an_answer_that_is_no_event_stream_stays_as_it_is(recording: Recording) -> None:
    assert CRLF(recording) is recording


# --- By name ---


def test_rewrites_have_names_and_are_applied_in_their_order() -> None:
    recording = Recording.from_sse(TWO)
    assert rewrite_by("ids, crlf")(recording) == CRLF(REWRITES["ids"](recording))
    assert rewrite_by(CRLF)(recording) == CRLF(recording)


@pytest.mark.parametrize("name", ["", "openrouter", "crlf,", "crlf;cr"])
def test_an_unknown_name_is_refused(name: str) -> None:
    unknown = name.removeprefix("crlf,") if "," in name else name
    with pytest.raises(ConfigurationError) as caught:
        rewrite_by(name)
    assert str(caught.value) == f"rewrite must be a function or some of {', '.join(REWRITES)}, not '{unknown}'"
