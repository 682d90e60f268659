"""rawsse.client.schema: types and functions to JSON Schema (2020-12), JSON to values. Expected schemas are written by hand."""

from __future__ import annotations

import enum
import functools
import sys
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, Union

import pytest

from rawsse.client.schema import MAX_REASONS, MismatchError, Signature, form_of, read_docstring
from rawsse.errors import ConfigurationError

if TYPE_CHECKING:
    from decimal import Decimal

STRING = {"type": "string"}
INTEGER = {"type": "integer"}


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class Size(enum.IntEnum):
    SMALL = 1


def convert(value: Any, hint: Any) -> Any:
    return form_of(hint, "the type").read(value, "value")


# --- Plain types ---------------------------------------------------------------------------------------------------

SCHEMAS: list[tuple[Any, dict[str, Any]]] = [
    (str, STRING),
    (int, INTEGER),
    (float, {"type": "number"}),
    (bool, {"type": "boolean"}),
    (None, {"type": "null"}),
    (Any, {}),
    (object, {}),
    (list, {"type": "array"}),
    (list[int], {"type": "array", "items": INTEGER}),
    (list[list[int]], {"type": "array", "items": {"type": "array", "items": INTEGER}}),
    (typing.List, {"type": "array"}),  # noqa: UP006
    (typing.List[int], {"type": "array", "items": INTEGER}),  # noqa: UP006
    (dict, {"type": "object"}),
    (dict[str, int], {"type": "object", "additionalProperties": INTEGER}),
    (dict[str, Any], {"type": "object", "additionalProperties": {}}),
    (Literal["a", "b"], {"enum": ["a", "b"], "type": "string"}),
    (Literal["a", 1, None], {"enum": ["a", 1, None]}),
    (Literal[Unit.CELSIUS], {"enum": ["c"], "type": "string"}),
    (Unit, {"enum": ["c", "f"], "type": "string"}),
    (Mixed, {"enum": [1, "two"]}),
    (Size, {"enum": [1], "type": "integer"}),
    (Optional[int], {"anyOf": [INTEGER, {"type": "null"}]}),  # noqa: UP045
    (Union[int, str], {"anyOf": [INTEGER, STRING]}),  # noqa: UP007
    (int | str, {"anyOf": [INTEGER, STRING]}),
    (Annotated[int, "How many."], {"type": "integer", "description": "How many."}),
    (Annotated[int, {"minimum": 1}, "How many."], {"type": "integer", "minimum": 1, "description": "How many."}),
    (list[Annotated[int, "One."]], {"type": "array", "items": {"type": "integer", "description": "One."}}),
]


@pytest.fixture
def without_pydantic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)


@pytest.mark.usefixtures("without_pydantic")
@pytest.mark.parametrize(("hint", "schema"), SCHEMAS, ids=[str(hint) for hint, _ in SCHEMAS])
def test_a_plain_type_has_its_schema_without_pydantic(hint: Any, schema: dict[str, Any]) -> None:
    assert form_of(hint, "the type").schema == schema


VALUES: list[tuple[Any, Any, Any]] = [
    ("x", str, "x"),
    (1, int, 1),
    (1.0, int, 1),
    (1, float, 1.0),
    (True, bool, True),
    (None, None, None),
    ({"x": [1]}, Any, {"x": [1]}),
    ([1, "a"], list, [1, "a"]),
    (["c"], list[Unit], [Unit.CELSIUS]),
    ({"a": "c"}, dict[str, Unit], {"a": Unit.CELSIUS}),
    ({"a": 1}, dict, {"a": 1}),
    ("c", Unit, Unit.CELSIUS),
    (1, Size, Size.SMALL),
    ("c", Literal[Unit.CELSIUS], Unit.CELSIUS),
    (1, Literal[1, "a"], 1),
    (1, float | int, 1),
    ("f", int | Unit, Unit.FAHRENHEIT),
    (None, Unit | None, None),
    ("f", Annotated[Unit, "which"], Unit.FAHRENHEIT),
]


@pytest.mark.parametrize(("value", "hint", "made"), VALUES, ids=[f"{v!r} as {h}" for v, h, _ in VALUES])
def test_a_value_becomes_the_python_value_of_its_type(value: Any, hint: Any, made: Any) -> None:
    found = convert(value, hint)
    assert found == made
    assert type(found) is type(made)


MISMATCHES: list[tuple[Any, Any, str]] = [
    (1, str, "value: expected a string, got 1"),
    ("three", int, "value: expected an integer, got 'three'"),
    (1.5, int, "value: expected an integer, got 1.5"),
    (True, int, "value: expected an integer, got True"),
    (1, bool, "value: expected a boolean, got 1"),
    ("1", float, "value: expected a number, got '1'"),
    (10**400, float, "value: int too large to convert to float"),
    ([], None, "value: expected null, got an array"),
    (None, str, "value: expected a string, got null"),
    ({}, list[int], "value: expected an array, got an object"),
    ([1, "x"], list[int], "value[1]: expected an integer, got 'x'"),
    ([], dict[str, int], "value: expected an object, got an array"),
    ({"a": "x"}, dict[str, int], "value.a: expected an integer, got 'x'"),
    ({"a": [0, "x"]}, dict[str, list[int]], "value.a[1]: expected an integer, got 'x'"),
    ("k", Unit, "value: expected one of 'c', 'f', got 'k'"),
    (True, Literal[1], "value: expected one of 1, got True"),
    ("x", int | None, "value: expected an integer, got 'x'; or value: expected null, got 'x'"),
]


@pytest.mark.parametrize(("value", "hint", "text"), MISMATCHES, ids=[text for _, _, text in MISMATCHES])
def test_a_value_that_does_not_fit_is_named(value: Any, hint: Any, text: str) -> None:
    with pytest.raises(MismatchError) as caught:
        convert(value, hint)
    assert str(caught.value) == text


# --- Other types: pydantic's ---------------------------------------------------------------------------------------


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class Tree:
    name: str
    children: list[Tree] = field(default_factory=list)


class BrokenError(Exception):
    """An error in a user's own class, with a method of the same name as pydantic's."""

    def errors(self) -> str:
        return "none"


@dataclass
class Broken:
    number: int

    def __post_init__(self) -> None:
        raise BrokenError(f"{self.number} is odd")


@dataclass
class Dangling:
    x: Nowhere  # type: ignore[name-defined]  # noqa: F821


OTHERS: list[Any] = [Point, list[Point], Point | None, dict[int, str], tuple[int, ...], set[int], bytes, complex]


@pytest.mark.usefixtures("without_pydantic")
@pytest.mark.parametrize("hint", OTHERS, ids=str)
def test_without_pydantic_another_type_is_refused_with_what_to_install(hint: Any) -> None:
    text = r"^the type: the type '.*' needs pydantic, which is not installed: pip install 'rawsse\[schema\]'$"
    with pytest.raises(ConfigurationError, match=text):
        form_of(hint, "the type")


@pytest.fixture
def pydantic() -> Any:
    return pytest.importorskip("pydantic", reason="makes the schemas of classes: the extra `schema`")


@pytest.mark.usefixtures("pydantic")
@pytest.mark.parametrize(
    ("hint", "value", "made"),
    [
        (Point, {"x": 1}, Point(1)),
        (list[Point], [{"x": 1}], [Point(1)]),
        (Point | None, None, None),
        (Tree, {"name": "r", "children": [{"name": "s"}]}, Tree("r", [Tree("s")])),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 1], {1}),
        (dict[int, str], {"1": "a"}, {1: "a"}),
    ],
    ids=str,
)
def test_pydantic_reads_other_types(hint: Any, value: Any, made: Any) -> None:
    assert convert(value, hint) == made


def test_a_typed_dict_is_pydantic_s(pydantic: Any) -> None:
    del pydantic
    typing_extensions = pytest.importorskip("typing_extensions")
    hint: Any = typing_extensions.TypedDict("Hint", {"city": str, "days": typing_extensions.NotRequired[int]})
    assert form_of(hint, "x").schema["required"] == ["city"]
    assert convert({"city": "Oslo"}, hint) == {"city": "Oslo"}


def test_a_strict_model_takes_a_text_as_a_date_since_json_has_none(pydantic: Any) -> None:
    import datetime

    strict = pydantic.ConfigDict(strict=True)
    model = pydantic.create_model("Day", __config__=strict, date=(datetime.date, ...))
    assert convert({"date": "2024-02-29"}, model).date == datetime.date(2024, 2, 29)


@pytest.mark.usefixtures("pydantic")
@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (Point, {"y": 1}, "value.x: Field required"),
        (list[Point], [{"x": "one"}], "value.0.x: Input should be a valid integer, unable to parse string as an"),
        (Broken, {"number": 1}, "value: 1 is odd"),
    ],
    ids=str,
)
def test_pydantic_s_reasons_are_in_one_line_with_the_path(hint: Any, value: Any, text: str) -> None:
    with pytest.raises(MismatchError) as caught:
        convert(value, hint)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("pydantic")
@pytest.mark.parametrize(("faults", "more"), [(MAX_REASONS, ""), (MAX_REASONS + 2, "; and 2 more")])
def test_an_error_names_so_many_reasons_and_counts_the_others(faults: int, more: str) -> None:
    with pytest.raises(MismatchError) as caught:
        convert([{}] * faults, list[Point])
    assert str(caught.value) == "; ".join(f"value.{n}.x: Field required" for n in range(MAX_REASONS)) + more


@pytest.mark.usefixtures("pydantic")
@pytest.mark.parametrize("hint", [typing.Callable[[int], int], Dangling, "Nowhere"], ids=str)
def test_a_type_that_pydantic_has_no_schema_for_is_refused_by_name(hint: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^the type: there is no JSON Schema for '.+': .+$"):
        form_of(hint, "the type")


def test_a_type_that_needs_another_package_says_which(pydantic: Any) -> None:
    """pydantic's `EmailStr` is such a type."""
    del pydantic

    class Address:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            raise ImportError("email-validator is not installed")

    with pytest.raises(ConfigurationError, match=r"'.*Address': email-validator is not installed$"):
        form_of(Address, "the type")


def test_constraints_are_pydantic_s_and_checked(pydantic: Any) -> None:
    hint: Any = Annotated[int, pydantic.Field(gt=0), "How many."]
    assert form_of(hint, "x").schema == {"type": "integer", "exclusiveMinimum": 0, "description": "How many."}
    with pytest.raises(MismatchError, match="value: Input should be greater than 0"):
        convert(0, hint)


@pytest.mark.usefixtures("pydantic")
def test_texts_and_keywords_in_an_annotation_describe_another_type_too() -> None:
    schema = form_of(Annotated[tuple[int, int], "A pair.", {"examples": [[1, 2]]}], "x").schema
    assert (schema["description"], schema["examples"]) == ("A pair.", [[1, 2]])


# --- Functions -----------------------------------------------------------------------------------------------------


def weather(city: str, unit: Unit = Unit.CELSIUS, *, days: Annotated[int, "How many days."] = 1) -> Decimal:
    """The weather at a place.

    Args:
        city: Where.
        days: not this, since the annotation says more
    """
    raise NotImplementedError


def anything(city, **rest: int):  # type: ignore[no-untyped-def]
    """Takes what it gets."""


class Station:
    def read(self, sensor: int) -> None:
        """Read a sensor."""

    def __call__(self, sensor: int) -> None:
        """Read it, too."""


def schema_of(function: Any) -> dict[str, Any]:
    return Signature(function).input_schema()


def test_a_function_has_name_description_and_schema() -> None:
    signature = Signature(weather)
    assert (signature.name, signature.description) == ("weather", "The weather at a place.")
    assert signature.input_schema() == {
        "type": "object",
        "properties": {
            "city": {"description": "Where.", "type": "string"},
            "unit": {"enum": ["c", "f"], "type": "string", "default": "c"},
            "days": {"description": "How many days.", "type": "integer", "default": 1},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


def test_a_parameter_without_an_annotation_takes_anything_and_keywords_take_the_rest() -> None:
    assert schema_of(anything) == {
        "type": "object",
        "properties": {"city": {}},
        "required": ["city"],
        "additionalProperties": {"type": "integer"},
    }


def test_keywords_without_a_type_allow_anything() -> None:
    def function(**rest: Any) -> None: ...

    assert schema_of(function) == {"type": "object", "properties": {}, "additionalProperties": True}


def test_a_function_without_parameters_takes_an_empty_object() -> None:
    def roll() -> int:
        return 4

    assert schema_of(roll) == {"type": "object", "properties": {}, "additionalProperties": False}


def test_a_default_that_json_cannot_hold_is_left_out() -> None:
    def function(one: float = float("inf"), other: Any = object()) -> None:  # noqa: B008
        """Nothing."""

    assert schema_of(function)["properties"] == {"one": {"type": "number"}, "other": {}}
    assert "required" not in schema_of(function)


@pytest.mark.usefixtures("pydantic")
def test_classes_that_several_parameters_need_are_defined_once_and_by_different_names() -> None:
    first, second = (type("Inner", (), {"__annotations__": {"a": kind}}) for kind in (int, str))

    def function(one: Any, two: Any, three: Any, **rest: Any) -> None: ...

    function.__annotations__ |= {"one": dataclass(first), "two": dataclass(second)}
    function.__annotations__ |= {"three": list.__class_getitem__(first), "rest": first}
    schema = schema_of(function)
    properties = schema["properties"]
    assert properties["three"]["items"] == properties["one"] == schema["additionalProperties"]
    assert properties["one"] != properties["two"]
    kinds = [
        schema["$defs"][properties[name]["$ref"].removeprefix("#/$defs/")]["properties"]["a"]["type"]
        for name in ("one", "two")
    ]
    assert kinds == ["integer", "string"]
    made = Signature(function).arguments({"one": {"a": 1}, "two": {"a": "x"}, "three": [], "more": {"a": 2}})
    assert (made["one"].a, made["two"].a, made["more"].a) == (1, "x", 2)


@pytest.mark.parametrize(
    ("function", "name"),
    [(Station().read, "read"), (Station(), "Station"), (functools.partial(Station.read, Station()), "read")],
    ids=["a bound method", "an object that can be called", "a partial"],
)
def test_whatever_can_be_called_has_a_schema(function: Any, name: str) -> None:
    assert Signature(function).name == name
    assert schema_of(function)["properties"] == {"sensor": {"type": "integer"}}


def test_a_class_is_called_as_its_init() -> None:
    class Reading:
        def __init__(self, value: int) -> None:
            self.value = value

    assert schema_of(Reading)["properties"] == {"value": {"type": "integer"}}


def test_a_wrapped_function_is_seen_through() -> None:
    @functools.wraps(weather)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return weather(*args, **kwargs)

    assert schema_of(wrapper) == schema_of(weather)


def many(*cities: str) -> None: ...


def by_place(city: str, /) -> None: ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (many, "many: \"*cities: 'str'\" cannot be given by name, as a tool's input is"),
        (by_place, "by_place: \"city: 'str'\" cannot be given by name, as a tool's input is"),
    ],
    ids=["*args", "positional-only"],
)
def test_a_parameter_without_a_name_is_refused(function: Any, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Signature(function)
    assert str(caught.value) == text


def pay_by_point(city: str, point: Point) -> None: ...


@pytest.mark.usefixtures("without_pydantic")
def test_a_type_without_a_schema_is_named_with_its_parameter_and_function() -> None:
    with pytest.raises(ConfigurationError, match=r"^pay_by_point, parameter 'point': the type 'Point' needs pydantic"):
        Signature(pay_by_point)


def test_an_open_signature_takes_any_object_and_needs_no_types() -> None:
    signature = Signature(pay_by_point, is_open=True)
    assert (signature.name, signature.arguments({"city": 1, "point": [1]})) == (
        "pay_by_point",
        {"city": 1, "point": [1]},
    )
    with pytest.raises(MismatchError, match=r"^input: expected an object, got an array$"):
        signature.arguments([])


def test_a_type_that_cannot_be_resolved_is_named() -> None:
    def pay(city: str, amount: Decimal) -> None: ...

    text = "^pay, parameter 'amount': the type 'Decimal' cannot be resolved: name 'Decimal'"
    with pytest.raises(ConfigurationError, match=text):
        Signature(pay)


def test_a_callable_without_a_signature_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^dict has no signature that can be read"):
        Signature(dict)


def test_an_input_becomes_the_arguments() -> None:
    arguments = Signature(weather).arguments({"city": "Oslo", "unit": "f"})
    assert arguments == {"city": "Oslo", "unit": Unit.FAHRENHEIT}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "input: missing 'city'"),
        ({"city": 5}, "input.city: expected a string, got 5"),
        ({"city": "Oslo", "when": 1}, "input: unknown 'when'; known: city, unit, days"),
        ([], "input: expected an object, got an array"),
    ],
    ids=str,
)
def test_an_input_that_does_not_fit_is_named(value: Any, text: str) -> None:
    with pytest.raises(MismatchError) as caught:
        Signature(weather).arguments(value)
    assert str(caught.value) == text


def test_keywords_take_the_rest_of_the_input_and_check_it() -> None:
    assert Signature(anything).arguments({"city": None, "x": 2}) == {"city": None, "x": 2}
    with pytest.raises(MismatchError, match=r"^input\.x: expected an integer, got 'y'$"):
        Signature(anything).arguments({"city": None, "x": "y"})


# --- Docstrings ----------------------------------------------------------------------------------------------------

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
    assert read_docstring(GOOGLE) == (
        "The weather at a place.\n\nIt is looked up each time.",
        {"city": "The city, with its country.", "unit": "Celsius or Fahrenheit.", "rest": "What else."},
    )


def test_numpy_s_sections_are_read() -> None:
    assert read_docstring(NUMPY) == (
        "The weather at a place.",
        {"city": "The city, with its country.", "first": "Days from today.", "last": "Days from today."},
    )


def test_sphinx_s_fields_are_read() -> None:
    assert read_docstring(SPHINX) == (
        "The weather at a place.",
        {"city": "The city, with its country.", "unit": "Celsius or Fahrenheit."},
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
    assert read_docstring(text) == ("The weather.\n\nWhat else is to say.", expected)


@pytest.mark.parametrize("line", [":class:`Weather` knows.", "@someone said so.", ":) Nice.", "mail me@here: now"])
def test_a_line_that_only_looks_like_a_field_belongs_to_the_description(line: str) -> None:
    assert read_docstring(f"{line}\n\n:param city: The city.") == (line, {"city": "The city."})


def test_without_a_docstring_there_is_no_description() -> None:
    assert read_docstring(None) == ("", {})


def test_a_colon_in_prose_begins_no_section() -> None:
    text = "Note: this is one line.\n\nSee here:\n    city: not a parameter"
    assert read_docstring(text) == (text, {})


def test_a_blank_line_between_parameters_does_not_end_the_section() -> None:
    assert read_docstring("X.\n\nArgs:\n    a: one\n\n    b: two")[1] == {"a": "one", "b": "two"}


def test_a_paragraph_at_the_margin_ends_the_section() -> None:
    assert read_docstring("X.\n\nArgs:\n    a: one\n\nBut b: no")[1] == {"a": "one"}


def test_lines_before_the_first_parameter_belong_to_none() -> None:
    assert read_docstring("X.\n\nArgs:\n    as follows\n    a: one")[1] == {"a": "one"}


def test_a_line_at_the_margin_of_the_entries_that_is_not_an_entry_belongs_to_the_one_before() -> None:
    assert read_docstring("X.\n\nArgs:\n    a: one\n    and more\n    b: two")[1] == {"a": "one and more", "b": "two"}
