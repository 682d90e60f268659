"""rawsse.replay.texts: which bytes each character of a text is written in."""

from __future__ import annotations

import json

import pytest
from support.streams import PING, block_start, delta, input_delta, start, text_delta, to_bytes

from rawsse.replay.texts import (
    JSON_ESCAPES,
    MAX_LAYERS,
    MAX_PATH,
    PERCENT_ESCAPES,
    Characters,
    Escapes,
    Joined,
    Literal,
    Part,
    Text,
    event_starts,
    joined_texts,
    layers,
    literals,
    unescaped,
)


def byte(text: Text, at: int) -> int:
    return next(iter(text.bytes_of(at)))


def written(text: Text, at: int, data: bytes) -> bytes:
    buffer = bytearray(data)
    for place in text.bytes_of(at):
        buffer[place] = ord("*")
    return bytes(buffer)


def read(text: Text, escapes: Escapes = JSON_ESCAPES) -> Joined:
    return Joined(unescaped(text, escapes))


# --- Bytes as characters ---


@pytest.mark.parametrize(
    ("data", "starts"),
    [
        (b"abc", [0, 1, 2, 3]),
        ("aéb☺c😀d".encode(), [0, 1, 3, 4, 7, 8, 12, 13]),
        (b"\xffa\xc3", [0, 1, 2, 3]),
        (b"", [0]),
    ],
)
def test_a_character_stands_where_its_bytes_begin(data: bytes, starts: list[int]) -> None:
    text = Characters(data)
    assert [text.byte(at) for at in range(len(text.text) + 1)] == starts


def test_each_byte_of_a_character_is_written_over() -> None:
    data = "aé☺😀".encode() + b"\xff"
    text = Characters(data)
    assert [written(text, at, data) for at in range(5)] == [
        "*é☺😀".encode() + b"\xff",
        "a**☺😀".encode() + b"\xff",
        "aé***😀".encode() + b"\xff",
        "aé☺****".encode() + b"\xff",
        "aé☺😀*".encode(),
    ]


# --- Parts joined ---


def test_joined_parts_are_one_text_and_know_where_they_come_from() -> None:
    data = b"<ab><><cd>"
    text = Joined([Part(Characters(data), 1, 3), Part(Characters(data), 5, 5), Part(Characters(data), 7, 9)])
    assert text.text == "abcd"
    assert [byte(text, at) for at in range(4)] == [1, 2, 7, 8]
    assert written(text, 2, data) == b"<ab><><*d>"


# --- Escapes ---


@pytest.mark.parametrize(
    ("data", "text", "starts"),
    [
        (rb"a\u0062c", "abc", [0, 1, 7]),
        (rb"\"\\\/\b\f\n\r\t", '"\\/\b\f\n\r\t', [0, 2, 4, 6, 8, 10, 12, 14]),
        (rb"\ud83d\ude00.", "\U0001f600.", [0, 12]),
        (rb"\ud83dx\ude00", "\ud83dx\ude00", [0, 6, 7]),
        (rb"\u00e9\u", "\u00e9\\u", [0, 6, 7]),
        (rb"\x\u12\\u0061", "\\x\\u12\\u0061", [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]),
    ],
)
def test_escapes_are_read_as_json_has_them(data: bytes, text: str, starts: list[int]) -> None:
    view = read(Characters(data))
    assert view.text == text
    assert [byte(view, at) for at in range(len(text))] == starts


@pytest.mark.parametrize(
    ("data", "at", "after"),
    [
        (rb"ab", 1, rb"a*"),
        (rb"\u0041b", 0, rb"******b"),
        (rb"\u0041b", 1, rb"\u0041*"),
        (rb"\uD83D\uDE00b", 0, rb"************b"),
        (rb"\nb", 1, rb"\n*"),
    ],
)
def test_all_the_bytes_of_an_escape_are_those_of_its_character(data: bytes, at: int, after: bytes) -> None:
    assert written(read(Characters(data)), at, data) == after


def test_an_escape_in_escapes_is_written_over_with_all_of_them() -> None:
    # The inner text is \u0041b; on the wire its backslash is escaped, and so are two of its digits.
    data = rb"\\u0\u003041b"
    view = read(read(Characters(data)))
    assert view.text == "Ab"
    assert written(view, 0, data) == b"*" * 12 + b"b"
    assert written(view, 1, data) == rb"\\u0\u003041*"


def test_an_escape_may_be_cut() -> None:
    data = rb'"\u00" "41b"'
    view = read(Joined([Part(Characters(data), 1, 5), Part(Characters(data), 8, 11)]))
    assert view.text == "Ab"
    assert written(view, 0, data) == rb'"****" "**b"'


def test_percent_signs_are_escapes_in_urls() -> None:
    view = read(Characters(b"/a%2Db%zz%4"), PERCENT_ESCAPES)
    assert view.text == "/a-b%zz%4"
    assert written(view, 2, b"/a%2Db") == b"/a***b"


def test_layers_are_read_as_long_as_there_are_escapes() -> None:
    texts = [layer.text for layer in layers(Characters(rb"\\\\u0041 \\n"), JSON_ESCAPES)]
    assert texts == [r"\\\\u0041 \\n", r"\\u0041 \n", "\\u0041 \n", "A \n"]
    assert [layer.text for layer in layers(Characters(b"a"), JSON_ESCAPES)] == ["a"]


def test_layers_have_an_end() -> None:
    assert len(list(layers(Characters(b"\\" * 1000), JSON_ESCAPES))) == MAX_LAYERS


# --- JSON ---


def test_literals_are_strings_and_numbers_with_their_paths() -> None:
    text = '{"a": "x", "b": [1, {"c": "\\"y"}, [], "z"], "\\u0064": -1.5e3, "e": true}'
    assert [(item.path, text[item.start : item.end]) for item in literals(text)] == [
        (("a",), "x"),
        (("b", 0), "1"),
        (("b", 1, "c"), '\\"y'),
        (("b", 3), "z"),
        (("d",), "-1.5e3"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": "x', [Literal(("a",), 7, 8)]),
        ('{"a": "x\\', [Literal(("a",), 7, 8)]),
        ('{"a', []),
        ("]]}, ,", []),
        ('"x" : "y"', [Literal((), 1, 2), Literal((), 7, 8)]),
        ("no JSON", []),
        ("", []),
    ],
)
def test_a_text_that_is_not_json_is_read_as_far_as_possible(text: str, expected: list[Literal]) -> None:
    assert list(literals(text)) == expected


def test_literals_that_lie_too_deep_are_left_out() -> None:
    depth = MAX_PATH + 1
    assert list(literals("[" * depth + '"x"' + "]" * depth)) == []
    assert [item.path for item in literals("[" * MAX_PATH + '"x"')] == [(0,) * MAX_PATH]


# --- Joined texts ---


def found(data: bytes) -> dict[str, str]:
    return {name: joined.text for name, joined in joined_texts(Characters(data))}


def test_deltas_are_joined_with_what_their_block_began_with() -> None:
    events = [block_start(0, {"type": "text", "text": "a"}), text_delta(0, "b"), PING, text_delta(0, "\n")]
    assert found(to_bytes(events)) == {"text of block 0": "ab\n"}


def test_each_block_and_each_field_has_its_own() -> None:
    events = [
        text_delta(0, "a"),
        input_delta(1, "b"),
        text_delta(0, "c"),
        input_delta(1, "d"),
        delta(2, "new", smell="e"),
    ]
    strings = found(to_bytes(events))
    assert (strings["text of block 0"], strings["input of block 1"], strings["smell of block 2"]) == ("ac", "bd", "e")


def test_the_text_of_a_message_is_that_of_all_its_blocks() -> None:
    assert found(to_bytes([text_delta(0, "a"), text_delta(1, "b"), text_delta(1, "c")]))["text of the message"] == "abc"
    assert "text of the message" not in found(to_bytes([text_delta(0, "a"), text_delta(0, "b")]))


def test_texts_are_joined_within_one_message() -> None:
    data = to_bytes([start(), text_delta(0, "a"), start(), text_delta(0, "b")])
    assert [joined.text for name, joined in joined_texts(Characters(data)) if name == "text of block 0"] == ["a", "b"]


def test_the_content_of_a_message_goes_on_from_a_thought_to_a_call() -> None:
    strings = found(to_bytes([start(), delta(0, "thinking_delta", thinking="a"), PING, input_delta(1, "b")]))
    assert strings["content of the message"] == "ab"


@pytest.mark.parametrize("cut", range(40))
def test_a_truncated_event_is_read_as_far_as_it_came(cut: int) -> None:
    data = b'data: {"delta": {"text": "ab\\u0063"}}\n\n'[:cut]
    # The text begins at 26; its escape is whole from 34 on, and nothing as long as there is only its backslash.
    expected = "abc" if cut >= 34 else data[26:cut].decode().removesuffix("\\")
    assert found(data).get("text of block ?", "") == expected


def test_data_on_several_lines_are_one() -> None:
    data = b'data: {"delta":\r\nid: 7\r\ndata:{"text":\r\ndata\r\ndata: "x"}}\r\n\r\ndata: {"delta": {"text": "y"}}'
    assert found(data)["text of block ?"] == "xy"


def test_events_begin_where_their_first_line_does() -> None:
    data = "\ufeff: é\nevent: x\ndata: {}\n\n\n: nothing\n\nid: 1\r\ndata: {}\r\n\r\ndata: {}".encode()
    first, second, third = event_starts(Characters(data))
    assert (first, data[second:].startswith(b"id: 1"), third) == (3, True, len(data) - len(b"data: {}"))


def test_a_text_is_found_in_the_bytes_of_its_deltas() -> None:
    data = to_bytes([text_delta(0, "é<"), PING, text_delta(0, ">☺")])
    (text,) = (joined for name, joined in joined_texts(Characters(data)) if name == "text of block 0")
    at = text.text.index("<>")
    once = written(text, at, data)
    twice = written(text, at + 1, once)
    events = [json.loads(line[6:]) for line in twice.decode().splitlines() if line.startswith("data: ")]
    assert [event["delta"]["text"] for event in events if "delta" in event] == ["é*", "*☺"]
