"""support.fault_matrix: the place of the table in a document."""

from __future__ import annotations

import pytest

from .fault_matrix import BEGIN, END, difference, put, taken

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
