"""rawsse.client.schema.docstring: the four ways to document parameters, and what is none of them."""

from __future__ import annotations

import pytest

from rawsse.client.schema.docstring import Docstring, read_docstring

GOOGLE = """The weather at a place.

    It is looked up each time.

    Args:
        city: The city,
            with its country.
        unit (str, optional): Celsius
            or Fahrenheit.
        **rest: What else.

    Returns:
        nothing: of interest.
    """

NUMPY = """The weather at a place.

    Parameters
    ----------
    city : str
        The city,
        with its country.
    first, last : int, optional
        Days from today.
    bare

    Returns
    -------
    str
        What it is like.
    """

SPHINX = """The weather at a place.

    :param city: The city,
        with its country.
    :param str unit: Celsius or Fahrenheit.
    :type city: str
    :returns: What it is like.
        At some length.
    :raises ValueError: never
    """


def test_google_s_sections_are_read() -> None:
    assert read_docstring(GOOGLE) == Docstring(
        "The weather at a place.\n\nIt is looked up each time.",
        {"city": "The city, with its country.", "unit": "Celsius or Fahrenheit.", "rest": "What else."},
    )


def test_numpy_s_sections_are_read() -> None:
    assert read_docstring(NUMPY) == Docstring(
        "The weather at a place.",
        {"city": "The city, with its country.", "first": "Days from today.", "last": "Days from today."},
    )


def test_sphinx_s_fields_are_read() -> None:
    assert read_docstring(SPHINX) == Docstring(
        "The weather at a place.", {"city": "The city, with its country.", "unit": "Celsius or Fahrenheit."}
    )


def test_epydoc_s_fields_are_read() -> None:
    epydoc = SPHINX.replace("    :", "    @")
    assert "@param city" in epydoc
    assert read_docstring(epydoc) == read_docstring(SPHINX)


@pytest.mark.parametrize("mark", [":", "@"])
def test_a_blank_line_inside_a_field_does_not_end_it(mark: str) -> None:
    text = f"""The weather.

    {mark}param city: The city,

        with its country.

        And its state.
    {mark}returns: What it is like.

        At some length.

    What else is to say.

    {mark}param unit: Celsius."""
    expected = {"city": "The city, with its country. And its state.", "unit": "Celsius."}
    assert read_docstring(text) == Docstring("The weather.\n\nWhat else is to say.", expected)


@pytest.mark.parametrize("line", [":class:`Weather` knows.", "@someone said so.", ":) Nice.", "mail me@here: now"])
def test_a_line_that_is_no_field_belongs_to_the_description(line: str) -> None:
    assert read_docstring(f"{line}\n\n:param city: The city.") == Docstring(line, {"city": "The city."})


def test_without_a_docstring_nothing_is_known() -> None:
    assert read_docstring(None) == Docstring("", {})


def test_a_colon_in_prose_begins_no_section() -> None:
    text = "Note: this is one line.\n\nSee here:\n    city: not a parameter"
    assert read_docstring(text) == Docstring(text, {})


def test_a_blank_line_between_parameters_is_no_end() -> None:
    assert read_docstring("X.\n\nArgs:\n    a: one\n\n    b: two").parameters == {"a": "one", "b": "two"}


def test_a_paragraph_at_the_margin_ends_the_section() -> None:
    assert read_docstring("X.\n\nArgs:\n    a: one\n\nBut b: no").parameters == {"a": "one"}


def test_lines_before_the_first_parameter_belong_to_none() -> None:
    assert read_docstring("X.\n\nArgs:\n    as follows\n    a: one").parameters == {"a": "one"}
