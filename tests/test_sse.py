"""`rawsse.sse` against section 9.2 of the WHATWG HTML standard: each case whole, in every cut into two, and byte by byte.

Expected values are read off the standard's text, never off our output.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pytest

from rawsse.errors import EventTooLargeError, InvalidFieldError
from rawsse.sse import MAX_EVENT_BYTES, Decoder, Event, encode, encode_comment


class Outcome(NamedTuple):
    """All that a stream can do to a reader."""

    events: list[Event]
    last_event_id: str
    retry: int | None
    pending: bytes


def outcome_of(chunks: Iterable[bytes]) -> Outcome:
    decoder = Decoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    state = decoder.last_event_id, decoder.retry
    return Outcome(events, *state, decoder.close())


def every_cut(stream: bytes) -> Iterator[list[bytes]]:
    """Every cut into two, and byte by byte with empty reads between."""
    for at in range(1, len(stream)):
        yield [stream[:at], stream[at:]]
    yield [piece for at in range(len(stream)) for piece in (stream[at : at + 1], b"")]


def read(stream: str | bytes) -> Outcome:
    """What the stream gives, having made sure that it gives the same however it is cut."""
    stream = stream.encode() if isinstance(stream, str) else stream
    whole = outcome_of([stream])
    for chunks in every_cut(stream):
        assert outcome_of(chunks) == whole, chunks
    return whole


def decode(stream: str | bytes) -> list[Event]:
    return read(stream).events


def fires_at(stream: bytes) -> list[int]:
    """For each event, after how many bytes it came out."""
    decoder = Decoder()
    return [at + 1 for at in range(len(stream)) for _ in decoder.feed(stream[at : at + 1])]


def data(*values: str) -> list[Event]:
    return [Event(data=value) for value in values]


# --- Lines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_each_of_the_three_line_ends_ends_a_line(end: str) -> None:
    assert decode(f"data: a{end}data: b{end}{end}data: c{end}{end}") == data("a\nb", "c")


@pytest.mark.parametrize("ends", ["\n\r\n", "\r\n\n", "\r\r\n", "\r\n\r", "\n\r"])
def test_line_ends_may_be_mixed_within_an_event(ends: str) -> None:
    assert decode(f"data: a{ends}data: b\n\n") == data("a", "b")


def test_crlf_is_one_line_end_and_lf_cr_is_two() -> None:
    assert decode("data: a\r\ndata: b\n\rdata: c\n\n") == data("a\nb", "c")


@pytest.mark.parametrize("separator", ["\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_what_only_unicode_calls_a_line_end_is_content(separator: str) -> None:
    assert decode(f"data: a{separator}b\n\n") == data(f"a{separator}b")


@pytest.mark.parametrize("separator", ["\v", "\f", "\x1c", "\x85", "\u2028"])
def test_what_only_unicode_calls_a_line_end_stays_at_the_end_of_a_line(separator: str) -> None:
    assert decode(f"data: a{separator}\n\n") == data(f"a{separator}")


def test_many_blank_lines_fire_nothing() -> None:
    assert decode("\n\r\r\n\n\ndata: a\n\n\n\r\n") == data("a")


# --- The byte order mark and UTF-8 ---------------------------------------------------------------------------------


def test_one_leading_byte_order_mark_is_dropped() -> None:
    assert decode("\ufeffdata: a\n\n") == data("a")


def test_a_second_byte_order_mark_is_content_and_spoils_the_first_field_name() -> None:
    assert decode("\ufeff\ufeffdata: a\n\ndata: b\n\n") == data("b")


def test_a_byte_order_mark_later_in_the_stream_is_content() -> None:
    assert decode("data: \ufeffa\n\n\ufeffdata: b\n\n") == data("\ufeffa")


@pytest.mark.parametrize("head", [b"\xef", b"\xef\xbb", b"\xef\xbb\xbe", b"\xbb\xbf"])
def test_what_only_begins_like_a_byte_order_mark_is_content(head: bytes) -> None:
    assert decode(head + b"data: a\n\ndata: b\n\n") == data("b")


def test_a_stream_that_is_nothing_but_a_byte_order_mark_leaves_nothing() -> None:
    assert read("\ufeff") == Outcome([], "", None, b"")


def test_characters_of_two_three_and_four_bytes_survive_every_cut() -> None:
    assert decode("event: ü\nid: €\ndata: é€🦦\n\n") == [Event("ü", "é€🦦", "€")]


@pytest.mark.parametrize(
    ("ill_formed", "replaced"),
    [
        (b"\xff", "\ufffd"),
        (b"\xc3", "\ufffd"),  # a lead byte that nothing follows
        (b"\xe2\x82", "\ufffd"),  # one for the whole truncated sequence
        (b"\xc0\xaf", "\ufffd\ufffd"),  # overlong
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),  # an encoded surrogate
        (b"\xf0\x9f\xa6\xffz", "\ufffd\ufffdz"),
    ],
)
def test_invalid_utf_8_is_replaced_and_never_swallows_the_line_end(ill_formed: bytes, replaced: str) -> None:
    assert decode(b"data: " + ill_formed + b"\ndata: b\n\n") == data(f"{replaced}\nb")


def test_invalid_utf_8_is_replaced_in_event_and_id_too() -> None:
    assert decode(b"event: \xff\nid: \xfe\ndata: a\n\n") == [Event("\ufffd", "a", "\ufffd")]


# --- Fields --------------------------------------------------------------------------------------------------------


def test_only_one_space_after_the_colon_is_removed() -> None:
    assert decode("data:a\n\ndata: a\n\ndata:  a\n\ndata:\ta\n\n") == data("a", "a", " a", "\ta")


def test_a_value_keeps_its_other_colons_and_its_trailing_spaces() -> None:
    assert decode("data: a: b:c \n\n") == data("a: b:c ")


def test_a_line_without_a_colon_is_a_name_with_an_empty_value() -> None:
    assert decode("data\n\ndata\ndata\n\ndata:\n\n") == data("", "\n", "")


@pytest.mark.parametrize("name", ["Data", "DATA", " data", "data ", "datum", "dat", "\0data", "data\0"])
def test_names_are_compared_literally(name: str) -> None:
    assert decode(f"{name}: a\n\n") == []


@pytest.mark.parametrize("line", [":", ": ping", ":data: a", "::", ":\0"])
def test_a_comment_is_nothing(line: str) -> None:
    assert decode(f"{line}\ndata: a\n{line}\ndata: b\n{line}\n\n") == data("a\nb")


def test_unknown_fields_are_ignored() -> None:
    assert read("foo: 5\nfoo\ndata: a\nretry2: 5\n\n") == Outcome(data("a"), "", None, b"")


def test_nul_is_content_in_data_and_in_the_event_type() -> None:
    assert decode("event: a\0b\ndata: c\0d\n\n") == [Event("a\0b", "c\0d", "")]


# --- Events --------------------------------------------------------------------------------------------------------


def test_the_type_is_message_unless_named() -> None:
    assert decode("data: a\n\nevent: ping\ndata: b\n\ndata: c\n\n") == [
        Event("message", "a"),
        Event("ping", "b"),
        Event("message", "c"),
    ]


def test_the_last_event_line_counts_and_an_empty_one_means_message() -> None:
    stream = "event: a\nevent: b\ndata: 1\n\nevent: a\nevent:\ndata: 2\n\nevent\ndata: 3\n\n"
    assert decode(stream) == [Event("b", "1"), Event("message", "2"), Event("message", "3")]


def test_a_type_that_comes_again_is_read_again_as_the_same() -> None:
    stream = "event: a\ndata: 1\n\nevent: b\ndata: 2\n\nevent: a\ndata: 3\n\nevent: a\ndata: 4\n\ndata: 5\n\n"
    assert [event.event for event in decode(stream)] == ["a", "b", "a", "a", "message"]


def test_the_type_may_come_after_the_data() -> None:
    assert decode("data: a\nevent: late\n\n") == [Event("late", "a")]


@pytest.mark.parametrize("block", ["event: a", "id: 1", "retry: 5", ": ping", "foo: bar", "event: a\nid: 1"])
def test_a_block_without_data_fires_nothing_and_leaves_no_type_behind(block: str) -> None:
    assert [(event.event, event.data) for event in decode(f"{block}\n\ndata: b\n\n")] == [("message", "b")]


def test_an_empty_data_line_is_data() -> None:
    assert decode("data:\n\n") == data("")


def test_the_data_lines_are_joined_by_line_feeds() -> None:
    assert decode("data: a\ndata:\ndata: b\ndata:\n\n") == data("a\n\nb\n")


# --- id ------------------------------------------------------------------------------------------------------------


def test_an_id_stays_until_another_comes() -> None:
    assert [event.id for event in decode("data: a\n\nid: 1\ndata: b\n\ndata: c\n\nid: 2\ndata: d\n\n")] == [
        "",
        "1",
        "1",
        "2",
    ]


@pytest.mark.parametrize("line", ["id", "id:", "id: "])
def test_an_empty_id_resets_it(line: str) -> None:
    assert read(f"id: 1\ndata: a\n\n{line}\ndata: b\n\n") == Outcome(
        [Event(data="a", id="1"), Event(data="b")], "", None, b""
    )


@pytest.mark.parametrize("value", ["\0", "2\0", "\0002", "2\0003"])
def test_an_id_with_nul_is_ignored(value: str) -> None:
    assert [event.id for event in decode(f"id: 1\nid: {value}\ndata: a\n\n")] == ["1"]


def test_an_id_without_data_counts_from_the_blank_line_on() -> None:
    decoder = Decoder()
    decoder.feed(b"id: 7\n")
    assert decoder.last_event_id == ""
    decoder.feed(b"\n")
    assert decoder.last_event_id == "7"


def test_the_id_of_a_block_that_the_end_cut_off_does_not_count() -> None:
    decoder = Decoder()
    decoder.feed(b"id: 1\n\nid: 2\ndata: a\n")
    decoder.close()
    assert decoder.last_event_id == "1"


def test_events_carry_the_id_of_their_own_moment_however_many_come_at_once() -> None:
    assert Decoder().feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n") == [Event(data="a", id="1"), Event(data="b", id="2")]


# --- retry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        ("0", 0),
        ("10000", 10000),
        ("007", 7),
        pytest.param("0" * 5000 + "5", 5, id="5001 digits"),
        ("9" * 19, 10**19 - 1),
    ],
)
def test_a_retry_of_ascii_digits_sets_the_reconnection_time(value: str, milliseconds: int) -> None:
    assert outcome_of([f"retry: {value}\n".encode()]).retry == milliseconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "-5",
        "+5",
        "1_000",
        "1.5",
        "1e3",
        "0x10",
        "5 ",
        " 5",
        "5s",
        "٣",
        "5\0",
        "1" + "0" * 19,
        pytest.param("9" * 5000, id="5000 digits"),
    ],
)
def test_a_retry_of_anything_else_is_ignored(value: str) -> None:
    assert outcome_of([f"retry: 42\nretry: {value}\n".encode()]).retry == 42


def test_a_retry_takes_effect_when_its_line_ends() -> None:
    decoder = Decoder()
    decoder.feed(b"retry: 10")
    assert decoder.retry is None
    decoder.feed(b"\n")
    assert decoder.retry == 10


# --- When ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blank_line", "at"), [(b"\n\n", 9), (b"\r\r", 9), (b"\r\n\r\n", 10), (b"\n\r\n", 9), (b"\r\n\n", 10)]
)
def test_an_event_comes_out_at_the_first_byte_that_ends_its_blank_line(blank_line: bytes, at: int) -> None:
    assert fires_at(b"data: a" + blank_line + b"data: c\n\n")[0] == at


def test_each_event_of_a_stream_of_carriage_returns_comes_out_at_once() -> None:
    assert fires_at(b"data: a\r\rdata: b\r\r") == [9, 18]


def test_a_line_feed_after_the_carriage_return_that_fired_ends_no_second_line() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\r\n\r") == data("a")
    assert decoder.feed(b"\ndata: b") == []
    assert decoder.feed(b"\r\n\r") == data("b")


# --- The end of the stream -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [b"", b"data: a\n\n", b"data: a\r\r", b": ping\n", b"retry: 5\n", b"foo\n", b"\n\n"])
def test_a_stream_that_ends_between_events_leaves_nothing(stream: bytes) -> None:
    assert read(stream).pending == b""


@pytest.mark.parametrize(
    ("cut_off", "pending"),
    [
        (b"data: b", b"data: b"),
        (b"data: b\n", b"data: b\n"),
        (b"data:b\r\ndata: c", b"data: b\ndata: c"),
        (b"event: x\n", b"event: x\n"),
        (b"id: 9\n", b"id: 9\n"),
        (b"data: b\nid: 9\nevent: x\nda", b"event: x\nid: 9\ndata: b\nda"),
        (b"\xff", b"\xff"),
    ],
)
def test_an_unfinished_event_is_not_fired_and_its_bytes_come_back(cut_off: bytes, pending: bytes) -> None:
    assert read(b"data: a\n\n" + cut_off) == Outcome(data("a"), "", None, pending)


def test_half_a_byte_order_mark_comes_back_as_it_came() -> None:
    assert read(b"\xef\xbb") == Outcome([], "", None, b"\xef\xbb")


def test_closing_twice_gives_the_bytes_once() -> None:
    decoder = Decoder()
    decoder.feed(b"data: a\nid: 1\nevent: b\ndata")
    assert decoder.close() != b""
    assert decoder.close() == b""


# --- The limit -----------------------------------------------------------------------------------------------------


def feed_until_too_large(chunks: Iterable[bytes], limit: int) -> tuple[list[Event], EventTooLargeError]:
    """The events that came before the error, those of the error's own chunk among them, and the error."""
    decoder, events = Decoder(max_event_bytes=limit), []
    try:
        for chunk in chunks:
            events += decoder.feed(chunk)
    except EventTooLargeError as error:
        return events + list(error.events), error
    pytest.fail(f"no EventTooLargeError for {chunks}")


def test_an_event_past_the_limit_raises_and_names_the_limit() -> None:
    _, error = feed_until_too_large([b"data: too much\n\n"], limit=10)
    assert str(error) == "a server-sent event is larger than max_event_bytes (10)"
    assert error.limit == 10


def test_the_limit_does_not_wait_for_the_line_to_end() -> None:
    feed_until_too_large([b"data: abcde"], limit=10)


@pytest.mark.parametrize(
    ("stream", "limit"),
    [
        (b"data: abcd\n\n", 10),  # a line as long as the limit
        (b"data: abc\ndata:d\n\n", 10),  # "abc" and a line feed leave six bytes
        (b"data: abcd\n\ndata: efgh\n\n", 10),  # the next event has the whole limit again
        (b"event: abc\n\nevent: abc\n\ndata: a\n\n", 10),
        ("data: é\n\n".encode(), 8),  # bytes count, not characters
        (b": hi\n" * 5 + b"data: a\n" + b": ho\n" * 5 + b"\n", 9),  # comments are not kept
    ],
)
def test_up_to_the_limit_every_cut_is_read(stream: bytes, limit: int) -> None:
    for chunks in [[stream], *every_cut(stream)]:
        decoder = Decoder(max_event_bytes=limit)
        assert [event for chunk in chunks for event in decoder.feed(chunk)] == decode(stream)


@pytest.mark.parametrize(
    ("stream", "limit"),
    [
        (b"data: abcde\n\n", 10),
        (b"data: abc\ndata:de\n\n", 10),
        (b"data\n" * 8 + b"\n", 10),  # each empty line still counts one
        ("data: é\n\n".encode(), 7),
        (b": a long comment\n", 10),
        (b"event: abcd\n", 10),
        (b"unknown: abc\r\n", 10),
    ],
)
def test_past_the_limit_every_cut_raises_with_the_events_before(stream: bytes, limit: int) -> None:
    stream = b"data: a\n\ndata: b\n\n" + stream
    for chunks in [[stream], *every_cut(stream)]:
        assert feed_until_too_large(chunks, limit)[0] == data("a", "b")


def test_a_flood_of_comments_is_neither_kept_nor_counted() -> None:
    decoder = Decoder(max_event_bytes=100)
    for _ in range(1000):
        assert decoder.feed(b": the server is still here, and so are you\n\n: ") == []
    assert decoder.close() == b": "


def test_the_default_limit_takes_a_tool_result_of_a_megabyte_in_one_line() -> None:
    assert MAX_EVENT_BYTES == 16 * 1024 * 1024
    assert outcome_of([b"data: ", b"x" * 1_000_000, b"\n\n"]).events == data("x" * 1_000_000)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_event_bytes must be at least 1, not 0"):
        Decoder(max_event_bytes=0)
    assert Decoder(max_event_bytes=1).feed(b"\n:\n") == []


def seconds_for_one_line_bytewise(size: int) -> float:
    decoder, started = Decoder(), time.process_time()
    for _ in range(size):
        decoder.feed(b"x")
    return time.process_time() - started


def test_four_times_the_line_byte_by_byte_is_about_four_times_the_work() -> None:
    small = min(seconds_for_one_line_bytewise(30_000) for _ in range(3))
    # Sixteen, if each byte copied the line again.
    assert any(seconds_for_one_line_bytewise(120_000) < 12 * small for _ in range(3))


# --- Faults that well-known readers had ----------------------------------------------------------------------------


def test_a_crlf_cut_between_its_bytes_does_not_end_the_event() -> None:
    assert outcome_of([b"data: a\r", b"\ndata: b\r\n\r\n"]).events == data("a\nb")


def test_two_carriage_returns_at_the_end_of_a_read_are_not_held_back() -> None:
    assert Decoder().feed(b"data: a\r\r") == data("a")


def test_a_keep_alive_after_an_id_is_no_phantom_event() -> None:
    assert [event.data for event in decode("id: 1\ndata: a\n\n: ping\n\n: ping\n\n")] == ["a"]


def test_a_retry_alone_is_no_phantom_event() -> None:
    assert read("retry: 10000\n\n") == Outcome([], "", 10000, b"")


def test_mixed_line_ends_do_not_hold_an_event_until_the_next() -> None:
    assert fires_at(b"data: a\n\r\ndata: b\r\n\n") == [9, 20]


def test_a_line_separator_inside_json_does_not_tear_it() -> None:
    text = '{"text": "one\u2028two\u2029three\x85four"}'
    assert json.loads(decode(f"data: {text}\n\n")[0].data)["text"] == "one\u2028two\u2029three\x85four"


# --- Encoding ------------------------------------------------------------------------------------------------------


def test_fields_are_written_in_a_fixed_order_and_end_with_a_blank_line() -> None:
    assert encode("a", event="b", id="c", retry=5) == b"event: b\nid: c\nretry: 5\ndata: a\n\n"


def test_only_the_fields_given_are_written() -> None:
    assert encode("a") == b"data: a\n\n"
    assert encode(retry=0) == b"retry: 0\n\n"
    assert encode() == b"\n"


def test_empty_values_are_written_since_they_mean_something() -> None:
    assert encode("", event="", id="") == b"event: \nid: \ndata: \n\n"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_data_is_split_on_every_line_end(end: str) -> None:
    assert encode(f"a{end}b{end}") == b"data: a\ndata: b\ndata: \n\n"


def test_data_is_not_split_where_only_unicode_sees_a_line_end() -> None:
    assert encode("a\u2028b\x85c\vd") == "data: a\u2028b\x85c\vd\n\n".encode()


@pytest.mark.parametrize("field", ["event", "id"])
@pytest.mark.parametrize(("character", "shown"), [("\r", r"'\\r'"), ("\n", r"'\\n'"), ("\0", r"'\\x00'")])
def test_a_single_line_field_that_would_break_out_is_refused(field: str, character: str, shown: str) -> None:
    fields: dict[str, Any] = {field: f"x{character}data: injected"}
    with pytest.raises(InvalidFieldError, match=rf"^{field} may not contain {shown}: 'x.*data: injected'$"):
        encode("a", **fields)


def test_a_refused_value_is_quoted_only_in_part() -> None:
    with pytest.raises(InvalidFieldError) as caught:
        encode("a", id="\n" + "x" * 1000)
    assert str(caught.value) == f"id may not contain '\\n': '\\n{'x' * 79}'… (1001 in all)"


@pytest.mark.parametrize("retry", [True, 1.5, "5", None.__class__])
def test_a_retry_that_is_no_whole_number_is_refused(retry: Any) -> None:
    with pytest.raises(InvalidFieldError, match=r"^retry must be a whole number of milliseconds, not "):
        encode(retry=retry)


@pytest.mark.parametrize("retry", [-1, 10**19, pytest.param(10**5000, id="5001 digits")])
def test_a_retry_that_no_reader_would_take_is_refused(retry: int) -> None:
    with pytest.raises(InvalidFieldError, match=r"^retry must not be negative, nor have more than 19 digits$"):
        encode(retry=retry)


@pytest.mark.parametrize("write", [encode, encode_comment, lambda text: encode("a", event=text)])
def test_a_lone_surrogate_is_refused_and_shown_in_its_place(write: Callable[[str], bytes]) -> None:
    with pytest.raises(InvalidFieldError, match=r"^cannot encode a lone surrogate: '.*before\\ud800'$"):
        write("before\ud800after")


def test_a_comment_is_written_on_as_many_lines_as_it_has() -> None:
    assert encode_comment() == b": \n\n"
    assert encode_comment("a\rdata: b\r\nc") == b": a\n: data: b\n: c\n\n"


def test_a_reader_sees_no_comment() -> None:
    assert read(encode_comment("data: a\n\rid: 5")) == Outcome([], "", None, b"")


@pytest.mark.parametrize("text", ["", " ", "\n", "a\n", "\na", " a", ": a", "\ufeff", "data: a", "\0", "🦦\u2028"])
def test_what_is_encoded_decodes_to_the_same(text: str) -> None:
    assert decode(encode(text, event="e", id="i")) == [Event("e", text, "i")]
