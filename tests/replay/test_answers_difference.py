"""rawsse.replay.answers: where two JSON values differ, said shortly; and which value is the nearest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rawsse.replay.answers import MAX_PATH_CHARS, MAX_SHOWN_CHARS, differences, nearest


def words(recorded: Any, asked: Any) -> list[str]:
    return [str(difference) for difference in differences(recorded, asked)]


@pytest.mark.parametrize(
    ("recorded", "asked", "said"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a: recorded 1, asked 2"]),
        ({"a": 1}, {}, ["a: recorded 1, not asked"]),
        ({}, {"a": "x"}, ['a: not recorded, asked "x"']),
        ({"a": None}, {}, ["a: recorded null, not asked"]),
        ({"a": [{"b": 1}, 2]}, {"a": [{"b": 3}]}, ["a[0].b: recorded 1, asked 3", "a[1]: recorded 2, not asked"]),
        ({"a": {"b": {}}}, {"a": {"b": []}}, ["a.b: recorded {}, asked []"]),
        ({"a": True}, {"a": 1}, ["a: recorded true, asked 1"]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1}}, []),
        (
            {"a": 1, "b": 1},
            {"b": 2, "c": 3},
            ["a: recorded 1, not asked", "b: recorded 1, asked 2", "c: not recorded, asked 3"],
        ),
        (5, "5", ['the whole: recorded 5, asked "5"']),
    ],
)
def test_each_place_is_said_in_the_order_of_the_recording(recorded: Any, asked: Any, said: list[str]) -> None:
    assert words(recorded, asked) == said


def test_long_texts_are_shown_around_the_first_character_that_differs() -> None:
    (found,) = differences({"a": "x" * 500 + "left" + "y" * 500}, {"a": "x" * 500 + "right" + "y" * 500})
    assert found.recorded == "…" + "x" * 20 + "left" + "y" * 56 + "…"
    assert found.asked == "…" + "x" * 20 + "right" + "y" * 55 + "…"


def test_a_text_that_goes_on_is_shown_where_it_does() -> None:
    (found,) = differences("x" * 200, "x" * 200 + "!")
    # The closing quotation mark is the first character that differs.
    assert (found.recorded, found.asked) == ("…" + "x" * 20 + '"', "…" + "x" * 20 + '!"')


def test_a_difference_is_short_whatever_differs() -> None:
    (found,) = differences({"p" * 999: "a" * 10_000}, {"p" * 999: ["b"] * 10_000})
    assert len(str(found)) < MAX_PATH_CHARS + 2 * MAX_SHOWN_CHARS + 40


def test_the_nearest_has_the_fewest_differences() -> None:
    first = {"model": "m", "messages": ["Hi"]}
    second = {"model": "m", "messages": ["Hi", "call", "rain"]}
    assert nearest([first, second], {"model": "m", "messages": ["Hi", "call", "sun"]})[0] == 1
    assert nearest([second, first], {"model": "n", "messages": ["Hi"]})[0] == 1


def test_of_several_the_one_with_the_most_text_in_common_is_the_nearest() -> None:
    candidates = [{"a": text} for text in ("Tell me about bridges.", "What is a server-sent event?", "Hi")]
    assert nearest(candidates, {"a": "What was a server-sent event?"})[0] == 1


def test_the_first_of_equals_is_the_nearest() -> None:
    assert nearest([{"a": 1}, {"a": 1}], {"a": 2})[0] == 0


def test_it_is_json_that_is_shown() -> None:
    (found,) = differences({"a": {"b": "ü\n"}}, {})
    assert json.loads(found.recorded or "") == {"b": "ü\n"}
