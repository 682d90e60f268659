"""support.fault_matrix: the words of its cells, and its place in a document."""

from __future__ import annotations

from typing import Any

import pytest

from .fault_matrix import BEGIN, END, cell, difference, put, table, taken

WHOLE = "A server"


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        ({"text": WHOLE, "stop": "end_turn"}, "whole"),
        ({"text": WHOLE, "stop": "stop", "requests": 2}, "whole, 2 requests"),
        ({"text": WHOLE, "stop": None}, "⚠ no end, no error"),
        ({"text": WHOLE, "stop": "other"}, "⚠ no end, no error"),
        ({"text": "A ser", "stop": None}, "⚠ cut, no error"),
        ({"text": "A ser", "stop": "end_turn"}, "⚠ altered, no error"),
        ({"text": "A A server", "stop": "end_turn"}, "⚠ altered, no error"),
        ({"text": "", "stop": None}, "⚠ nothing, no error"),
        ({"text": "A ser", "stop": None, "error": "ReadError"}, "`ReadError`"),
        ({"text": WHOLE, "stop": "end_turn", "error": "ReadError"}, "`ReadError`"),
        ({"text": "", "stop": None, "error": "ReadTimeout", "seconds": 599.999999}, "`ReadTimeout` after 600 s"),
        ({"text": "", "stop": None, "error": "exit 18", "seconds": 4.9}, "exit 18"),
        ({"text": "", "stop": None, "status": 529}, "status 529"),
        ({"text": "A ser", "stop": None, "hangs": True}, "hangs"),
    ],
)
def test_a_cell_says_what_became_of_the_answer(heard: dict[str, Any], words: str) -> None:
    assert cell(whole=WHOLE, **heard) == words


def test_a_table_is_markdown() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


DOCUMENT = f"Before.\n{BEGIN}\nold\n{END}\nAfter.\n"


def test_what_stands_between_the_marks_is_replaced_and_nothing_else() -> None:
    assert put(DOCUMENT, "\nnew\n") == f"Before.\n{BEGIN}\nnew\n{END}\nAfter.\n"
    assert taken(DOCUMENT) == "\nold\n"


def test_a_document_without_marks_is_told() -> None:
    with pytest.raises(AssertionError, match="there is no mark"):
        taken("nothing")


def test_other_versions_that_do_the_same_are_no_difference() -> None:
    assert difference("| a |\nMade with x 1.\n", "| a |\nMade with x 2.\n") == ""


def test_a_difference_shows_both_and_the_versions() -> None:
    shown = difference("| a |\n| b |\nMade with x 1.\n", "| a |\n| c |\nMade with x 2.\n")
    assert shown.splitlines()[3:] == ["-| b |", "-Made with x 1.", "+| c |", "+Made with x 2."]
