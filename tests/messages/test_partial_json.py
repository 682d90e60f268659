"""rawsse.messages.partial_json against RFC 8259, `json.loads`, and jiter (what the official SDK reads with)."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rawsse.errors import PartialJSONError
from rawsse.messages import partial_json
from rawsse.messages.partial_json import MAX_DEPTH, MAX_NUMBER_CHARS, PartialJSON, read_partial

DOCUMENTS = [
    '{"city": "Oslo", "days": 14}',
    ' { "a" : [ 1 , -2.50 , 3e5, 4E-2, 5.5e+1 ] , "b" : { } }\r\n\t',
    '[true, false, null, [], {}, [[]], "", 0, -0, -0.0, 0.5, 1e0]',
    r'{"esc\"aped": "\\ \/ \b \f \n \r \t A é \u0000 \ud83d\ude00 \uD834\uDD1E"}',
    '{"raw": "é 😀 \u2028 \u2029 \x7f", "👨‍👩‍👧": "e\u0301"}',
    '{"a": 1, "b": 2, "a": {"c": 3}, "b": "x", "a": 7}',
    "[NaN, Infinity, -Infinity, 1e400, 123456789012345678901234567890]",
    '"a string alone"',
    "-12.5e-7",
    "true",
    '{"query": "SELECT *\\nFROM t", "rows": [{"id": 1, "tags": ["x", "y"]}, {"id": 2, "tags": []}]}',
]


def prefixes(document: str) -> Iterator[str]:
    return (document[:end] for end in range(len(document) + 1))


def fed_by_character(text: str, **options: Any) -> PartialJSON:
    reading = PartialJSON(**options)
    for char in text:
        reading.feed(char)
    return reading


def error_of(text: str, **options: Any) -> PartialJSONError:
    with pytest.raises(PartialJSONError) as caught:
        read_partial(text, **options)
    return caught.value


# --- What counts ---


def test_before_anything_the_value_is_none() -> None:
    assert PartialJSON().value is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" ", None),
        ("{", {}),
        ('{"a', {}),
        ('{"a"', {}),
        ('{"a": ', {}),
        ('{"a": [', {"a": []}),
        ('{"a": [{"b": {', {"a": [{"b": {}}]}),
        ('{"a": 1,', {"a": 1}),
        ('{"a": 1, "b', {"a": 1}),
    ],
)
def test_a_container_counts_from_its_first_character_and_a_member_once_it_has_a_value(text: str, value: Any) -> None:
    assert read_partial(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1", [1]),
        ("[-", []),
        ("[-0", [0]),
        ("[1.", []),
        ("[1.5", [1.5]),
        ("[1.5e", []),
        ("[1.5e+", []),
        ("[1.5e+2", [150.0]),
        ("7", 7),
        ("7.", None),
    ],
)
def test_a_number_counts_if_it_is_one_as_it_stands(text: str, value: Any) -> None:
    assert read_partial(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("[t", []), ("[tru", []), ("[true", [True]), ("nul", None), ("[null", [None])]
)
def test_a_literal_counts_once_it_is_whole(text: str, value: Any) -> None:
    assert read_partial(text) == value


@pytest.mark.parametrize(("text", "value"), [('{"a":"hel', {}), ('["x","y', ["x"]), ('"alone', None), ('["\\', [])])
def test_a_cut_string_is_dropped(text: str, value: Any) -> None:
    assert read_partial(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":"', {"a": ""}),
        ('{"a":"hel', {"a": "hel"}),
        ('["x","y', ["x", "y"]),
        ('"alone', "alone"),
        ('["a\\', ["a"]),
        ('["a\\u00e', ["a"]),
        ('["a\\ud83d\\ude0', ["a"]),
        ('{"a":"x","ke', {"a": "x"}),
    ],
)
def test_keep_strings_keeps_a_cut_string_without_its_cut_escape_but_no_cut_key(text: str, value: Any) -> None:
    assert read_partial(text, keep_strings=True) == value


def test_a_cut_value_gives_way_to_the_member_of_the_same_name_that_it_hid() -> None:
    reading = PartialJSON()
    reading.feed('{"a": true, "a": 1')
    assert reading.value == {"a": 1}
    reading.feed(".")
    assert reading.value == {"a": True}


def test_a_number_is_taken_back_when_it_stops_being_one() -> None:
    reading = PartialJSON()
    seen = []
    for fragment in ('{"a": [1', ".", "5", "e", "1", "]}"):
        reading.feed(fragment)
        seen.append(json.dumps(reading.value))
    assert seen == ['{"a": [1]}', '{"a": []}', '{"a": [1.5]}', '{"a": []}', '{"a": [15.0]}', '{"a": [15.0]}']


def test_a_number_alone_is_taken_back_too() -> None:
    reading = PartialJSON()
    reading.feed("3")
    assert reading.value == 3
    reading.feed(".")
    assert reading.value is None


def test_the_value_is_live() -> None:
    reading = PartialJSON()
    reading.feed('{"a": [')
    value = reading.value
    reading.feed("1, 2]")
    assert value == {"a": [1, 2]}


def test_looking_twice_changes_nothing() -> None:
    reading = PartialJSON(keep_strings=True)
    reading.feed('["ab')
    assert [reading.value == ["ab"], reading.value == ["ab"]] == [True, True]


# --- The end ---


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("keep_strings", [False, True])
def test_the_whole_text_reads_as_json_loads_reads_it(document: str, keep_strings: bool) -> None:
    assert repr(fed_by_character(document, keep_strings=keep_strings).value) == repr(json.loads(document))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_looking_after_every_character_changes_no_reading(document: str) -> None:
    reading = PartialJSON(keep_strings=True)
    for end, char in enumerate(document, 1):
        reading.feed(char)
        assert repr(reading.value) == repr(read_partial(document[:end], keep_strings=True))


# --- What no JSON text begins with ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "no JSON at character 0: expected a value, found 'x'"),
        ("[1,]", "no JSON at character 3: expected a value, found ']'"),
        ("]", "no JSON at character 0: expected a value, found ']'"),
        ('{"a": }', "no JSON at character 6: expected a value, found '}'"),
        ('{"a": ]', "no JSON at character 6: expected a value, found ']'"),
        ("{1", "no JSON at character 1: expected a key in quotation marks, found '1'"),
        ('{"a":1,}', "no JSON at character 7: expected a key in quotation marks, found '}'"),
        ('{"a" 1', "no JSON at character 5: expected a colon, found '1'"),
        ("[1 2", "no JSON at character 3: expected a comma or the end of the array or object, found '2'"),
        ("[1}", "no JSON at character 2: expected a comma or the end of the array or object, found '}'"),
        ('{"a":1]', "no JSON at character 6: expected a comma or the end of the array or object, found ']'"),
        ('{"a":1} x', "no JSON at character 8: expected nothing after the value, found 'x'"),
        ("01", "no JSON at character 0: expected a value, found '01'"),
        ("[-a", "no JSON at character 1: expected a value, found '-a'"),
        ("[1.]", "no JSON at character 1: expected a value, found '1.]'"),
        ("[trux", "no JSON at character 1: expected a value, found 'trux'"),
        ("[-Inx", "no JSON at character 1: expected a value, found '-Inx'"),
        ("[nullnull", "no JSON at character 1: expected a value, found 'nullnull'"),
        ('["a\nb', "no JSON at character 3: expected control characters in a string to be escaped, found '\\nb'"),
        ('["\\x', "no JSON at character 2: expected an escape, found '\\\\x'"),
        ('["\\u12G', "no JSON at character 2: expected an escape, found '\\\\u12G'"),
        ('["\\ud83dx', "no JSON at character 2: expected an escape, found '\\\\ud83dx'"),
        ('["\\ud83d\\n', "no JSON at character 2: expected an escape, found '\\\\ud83d\\\\n'"),
        ('["\\ude00', "no JSON at character 2: expected an escape, found '\\\\ude00'"),
        ('["\\ud83d\\u0000', "no JSON at character 2: expected an escape, found '\\\\ud83d\\\\u0000'"),
        ("\ufeff[", "no JSON at character 0: expected a value, found '\\ufeff['"),
        ("[\xa01", "no JSON at character 1: expected a value, found '\\xa01'"),
        ("[1\x0c", "no JSON at character 2: expected a comma or the end of the array or object, found '\\x0c'"),
        ("[\u0661", "no JSON at character 1: expected a value, found '\u0661'"),
    ],
)
def test_what_no_json_text_begins_with_is_refused_where_its_token_begins(text: str, message: str) -> None:
    assert message in str(error_of(text))


def test_the_position_counts_over_all_fragments() -> None:
    reading = PartialJSON()
    for fragment in ("[1,", " ", "2"):
        reading.feed(fragment)
    with pytest.raises(PartialJSONError, match="at character 7: "):
        reading.feed(", ,")


def test_after_an_error_every_call_raises_it_again_and_the_reading_stays() -> None:
    reading = PartialJSON()
    with pytest.raises(PartialJSONError) as first:
        reading.feed("[1, 2 3")
    for _ in range(2):
        with pytest.raises(PartialJSONError) as again:
            reading.feed("]")
        assert again.value is first.value
    assert reading.value == [1, 2]


@pytest.mark.parametrize("text", ["[1, 2.5x", "[1, " + "9" * 31, '[1, "ab\n', '[1, "ab\n5', '[1, "ab\\x'])
@pytest.mark.parametrize("size", [1, 3, len("[1, 2.5x"), 38])
def test_a_token_that_is_wrong_does_not_count_wherever_the_text_was_cut(
    text: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_json, "MAX_NUMBER_CHARS", 30)  # a number is read again with each piece of it
    reading = PartialJSON(keep_strings=True)

    def feed() -> None:
        for at in range(0, len(text), size):
            reading.feed(text[at : at + size])
            _ = reading.value

    with pytest.raises(PartialJSONError):
        feed()
    assert reading.value == [1]


# --- Limits and cost ---


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_is_bounded(opening: str) -> None:
    read_partial(opening * MAX_DEPTH)
    message = str(error_of(opening * (MAX_DEPTH + 1)))
    assert f"expected no more than max_depth ({MAX_DEPTH}) levels, found" in message


def test_the_bound_on_nesting_is_an_argument() -> None:
    assert read_partial("[[]]", max_depth=2) == [[]]
    assert "at character 2: " in str(error_of("[[[", max_depth=2))


def test_the_length_of_a_number_is_bounded() -> None:
    assert read_partial("9" * MAX_NUMBER_CHARS) == 10**MAX_NUMBER_CHARS - 1
    assert "expected no number longer than 4300 characters" in str(error_of("9" * (MAX_NUMBER_CHARS + 1)))


def test_numbers_beyond_a_float_are_infinite_as_in_json_loads() -> None:
    assert read_partial("[1e400") == [math.inf]


def cpu_seconds_for(work: Callable[[], None]) -> float:
    def once() -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    return min(once() for _ in range(3))


@pytest.mark.parametrize(
    "document",
    [lambda n: '{"a": "' + "x" * n, lambda n: '{"a": "' + "\\n" * (n // 2), lambda n: "[" + "1, " * (n // 3)],
    ids=["one string", "escapes", "numbers"],
)
def test_four_times_the_text_character_by_character_takes_no_more_than_eight_times_as_long(
    document: Callable[[int], str],
) -> None:
    def read(n: int) -> None:
        reading = PartialJSON()
        for char in document(n):
            reading.feed(char)
            _ = reading.value

    small, large = (cpu_seconds_for(lambda n=n: read(n)) for n in (3_000, 12_000))  # type: ignore[misc]
    assert large / small < 8, f"{large / small:.1f} times as long: quadratic would be 16"


# --- Beside jiter ---


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize(("keep_strings", "mode"), [(False, True), (True, "trailing-strings")])
def test_every_beginning_of_a_document_reads_as_jiter_reads_it(document: str, keep_strings: bool, mode: Any) -> None:
    jiter = pytest.importorskip("jiter", reason="jiter, the SDK's parser, is not installed")
    for text in prefixes(document):
        try:
            theirs = jiter.from_json(text.encode(), partial_mode=mode)
        except ValueError as exc:
            assert str(exc).startswith("EOF while parsing"), text  # noqa: PT017  # no value yet: for us None
            theirs = None
        assert repr(read_partial(text, keep_strings=keep_strings)) == repr(theirs), text


def test_what_jiter_refuses_is_refused() -> None:
    jiter = pytest.importorskip("jiter", reason="jiter, the SDK's parser, is not installed")
    for text in _damaged(DOCUMENTS):
        try:
            ours = repr(read_partial(text))
        except PartialJSONError:
            continue  # jiter reads on after the end of a value, and looks at no cut escape: we refuse more
        try:
            theirs = repr(jiter.from_json(text.encode(), partial_mode=True))
        except ValueError as exc:
            theirs = "None" if str(exc).startswith("EOF while parsing") else f"refused: {exc}"
        assert ours == theirs, text


def _damaged(documents: list[str]) -> Iterator[str]:
    """Every document with each of its characters replaced by each of these."""
    for document in documents:
        for at in range(len(document)):
            for char in '[]{}",:\\-+.eE0t\x01':
                yield document[:at] + char + document[at + 1 :]
