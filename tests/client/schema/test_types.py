"""rawsse.client.schema.types: types to JSON Schema (2020-12), JSON to values. Expected schemas are written by hand."""

from __future__ import annotations

import datetime
import enum
import pathlib
import typing
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional, Required, TypedDict, TypeVar, Union

import pytest

from rawsse.client.schema.hints import Field
from rawsse.client.schema.types import MismatchError, convert, convert_fields, schema_of, schema_of_fields
from rawsse.errors import ConfigurationError

STRING = {"type": "string"}
INTEGER = {"type": "integer"}


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


@dataclass
class Point:
    """A place on the map.

    Args:
        x: To the east.
    """

    x: int
    y: int = field(default=0, metadata={"description": "To the north."})
    tags: list[str] = field(default_factory=list)
    made_up: str = field(init=False, default="")


@dataclass
class Bare:
    unit: Unit = Unit.CELSIUS
    when: datetime.date | None = None
    pair: tuple[int, ...] = (1, 2)
    color: Any = object()  # noqa: RUF009 - a default that JSON has not


@dataclass
class Tree:
    """A tree."""

    name: str
    children: list[Tree] = field(default_factory=list)


class Address(TypedDict, total=False):
    """Where somebody lives.

    Attributes:
        street: With its number.
    """

    city: Required[str]
    street: str


class Person(Address):
    name: str
    age: NotRequired[int]


@dataclass
class Even:
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError(f"{self.number} is odd")


class TypeAliasType:
    """What `type Name = list[int]` makes, from Python 3.12 on, as far as we look at it."""

    __value__ = list[int]


class Model:
    """What pydantic's models look like to us."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        inner = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Inner"}}}
        return {
            "$defs": {"Inner": inner},
            "type": "object",
            "properties": {"all": {"items": {"$ref": "#/$defs/Inner"}}},
        }

    @classmethod
    def model_validate(cls, value: Any) -> Model:
        if "bad" in value:
            raise ValueError("bad is not allowed")
        return cls(value)


class Other(Model):
    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {"$defs": {"Inner": {"type": "string"}}, "$ref": "#/$defs/Inner"}


UserId = NewType("UserId", int)
T = TypeVar("T")
B = TypeVar("B", bound=str)

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
    (typing.List[int], {"type": "array", "items": INTEGER}),  # noqa: UP006
    (Sequence[str], {"type": "array", "items": STRING}),
    (Iterable[str], {"type": "array", "items": STRING}),
    (set[int], {"type": "array", "items": INTEGER, "uniqueItems": True}),
    (frozenset[int], {"type": "array", "items": INTEGER, "uniqueItems": True}),
    (tuple, {"type": "array"}),
    (tuple[int, ...], {"type": "array", "items": INTEGER}),
    (tuple[int, str], {"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2}),
    (dict, {"type": "object"}),
    (dict[str, int], {"type": "object", "additionalProperties": INTEGER}),
    (Mapping[str, Any], {"type": "object", "additionalProperties": {}}),
    (Literal["a", "b"], {"enum": ["a", "b"], "type": "string"}),
    (Literal["a", 1, None], {"enum": ["a", 1, None]}),
    (Literal[Unit.CELSIUS], {"enum": ["c"], "type": "string"}),
    (Unit, {"enum": ["c", "f"], "type": "string"}),
    (Mixed, {"enum": [1, "two"]}),
    (Optional[int], {"anyOf": [INTEGER, {"type": "null"}]}),  # noqa: UP045
    (Union[int, str], {"anyOf": [INTEGER, STRING]}),  # noqa: UP007
    (int | str, {"anyOf": [INTEGER, STRING]}),
    (UserId | int, INTEGER),
    (Annotated[int, "How many."], {"type": "integer", "description": "How many."}),
    (Annotated[int, {"minimum": 1}, "How many."], {"type": "integer", "minimum": 1, "description": "How many."}),
    (Annotated[int, 5], INTEGER),
    (UserId, INTEGER),
    (T, {}),
    (B, STRING),
    (TypeAliasType(), {"type": "array", "items": INTEGER}),
    (datetime.datetime, {"type": "string", "format": "date-time"}),
    (datetime.date, {"type": "string", "format": "date"}),
    (datetime.time, {"type": "string", "format": "time"}),
    (uuid.UUID, {"type": "string", "format": "uuid"}),
    (pathlib.Path, {"type": "string", "format": "path"}),
]


@pytest.mark.parametrize(("hint", "schema"), SCHEMAS, ids=[str(hint).partition(" at 0x")[0] for hint, _ in SCHEMAS])
def test_a_type_has_its_schema(hint: Any, schema: dict[str, Any]) -> None:
    assert schema_of(hint) == schema


def test_a_dataclass_is_an_object() -> None:
    assert schema_of(Point) == {
        "description": "A place on the map.",
        "type": "object",
        "properties": {
            "x": {"description": "To the east.", "type": "integer"},
            "y": {"description": "To the north.", "type": "integer", "default": 0},
            "tags": {"type": "array", "items": STRING},
        },
        "required": ["x"],
        "additionalProperties": False,
    }


def test_a_default_is_told_as_json_and_left_out_where_json_has_none() -> None:
    assert schema_of(Bare) == {
        "type": "object",
        "properties": {
            "unit": {"enum": ["c", "f"], "type": "string", "default": "c"},
            "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "default": None},
            "pair": {"type": "array", "items": INTEGER, "default": [1, 2]},
            "color": {},
        },
        "additionalProperties": False,
    }


def test_a_typed_dict_is_an_object() -> None:
    assert schema_of(Person) == {
        "type": "object",
        "properties": {"city": STRING, "street": STRING, "name": STRING, "age": INTEGER},
        "required": ["city", "name"],
        "additionalProperties": False,
    }


def test_a_typed_dict_s_docstring_describes_it() -> None:
    schema = schema_of(Address)
    assert schema["description"] == "Where somebody lives."
    assert schema["properties"]["street"] == {"description": "With its number.", "type": "string"}


def test_a_class_that_contains_itself_is_defined_once() -> None:
    assert schema_of(list[Tree]) == {
        "type": "array",
        "items": {"$ref": "#/$defs/Tree"},
        "$defs": {
            "Tree": {
                "description": "A tree.",
                "type": "object",
                "properties": {"name": STRING, "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
                "required": ["name"],
                "additionalProperties": False,
            }
        },
    }


def test_a_class_that_only_comes_twice_is_written_twice() -> None:
    even = schema_of(Even)
    assert schema_of(tuple[Even, Even])["prefixItems"] == [even, even]


def test_what_a_model_defines_is_moved_to_the_top() -> None:
    assert schema_of(list[Model]) == {
        "type": "array",
        "items": {"type": "object", "properties": {"all": {"items": {"$ref": "#/$defs/Inner"}}}},
        "$defs": {"Inner": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Inner"}}}},
    }


def test_two_definitions_of_one_name_are_told_apart() -> None:
    schema = schema_of(tuple[Model, Other])
    assert schema["prefixItems"][1] == {"$ref": "#/$defs/Inner2"}
    assert schema["$defs"]["Inner"]["properties"] == {"next": {"$ref": "#/$defs/Inner"}}
    assert schema["$defs"]["Inner2"] == STRING


def test_pydantic_s_own_models_are_understood() -> None:
    pydantic = pytest.importorskip("pydantic", reason="what a model of the real one is like: the interop extra")
    inner = pydantic.create_model("Inner", name=(str, ...))
    outer = pydantic.create_model("Outer", inner=(inner, ...), count=(int, 1))
    schema = schema_of(list[outer])  # type: ignore[valid-type]
    assert schema["items"]["properties"]["inner"] == {"$ref": "#/$defs/Inner"}
    assert list(schema["$defs"]) == ["Inner"]
    hint: Any = outer
    made = convert({"inner": {"name": "x"}}, hint)
    assert (made.inner.name, made.count) == ("x", 1)
    with pytest.raises(MismatchError, match=r"^value: 1 validation error for Outer\ninner\n"):
        convert({}, hint)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (bytes, "the type: there is no JSON Schema for 'bytes': JSON has no such type"),
        (complex, "the type: there is no JSON Schema for 'complex': JSON has no such type"),
        (list[complex], "the type: there is no JSON Schema for 'complex': JSON has no such type"),
        ("later", "the type: there is no JSON Schema for 'later': JSON has no such type"),
        (dict[int, str], "for 'dict[int, str]': the keys of an object are strings"),
        (Literal[b"x"], "its values must be strings, numbers, booleans or None"),
    ],
    ids=str,
)
def test_what_json_has_not_is_refused_by_name(hint: Any, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        schema_of(hint)
    assert text in str(caught.value)


@dataclass
class Broken:
    good: int
    bad: complex


@dataclass
class Dangling:
    x: Nowhere  # type: ignore[name-defined]  # noqa: F821


def test_an_error_names_the_field_of_a_class() -> None:
    with pytest.raises(ConfigurationError, match=r"^the type, Broken\.bad: there is no JSON Schema for 'complex'"):
        schema_of(list[Broken])


def test_an_annotation_that_is_nowhere_defined_is_named() -> None:
    text = "Dangling has an annotation that cannot be resolved: name 'Nowhere' is not defined"
    with pytest.raises(ConfigurationError, match=text):
        schema_of(Dangling)


def test_fields_make_an_object_that_refuses_or_takes_others() -> None:
    fields = [Field("a", int, True)]
    assert schema_of_fields(fields)["additionalProperties"] is False
    assert schema_of_fields(fields, extra=Any)["additionalProperties"] is True
    assert schema_of_fields(fields, extra=int)["additionalProperties"] == INTEGER


# --- The way back --------------------------------------------------------------------------------------------------

VALUES: list[tuple[Any, Any, Any]] = [
    ("x", str, "x"),
    (1, int, 1),
    (1.0, int, 1),
    (1, float, 1.0),
    (True, bool, True),
    (None, None, None),
    ({"x": [1]}, Any, {"x": [1]}),
    ([1, 1], set[int], {1}),
    ([1, 1], frozenset[int], frozenset({1})),
    (["a"], Sequence[str], ["a"]),
    ([1], list, [1]),
    ([1, 2], tuple[int, ...], (1, 2)),
    ([1, "a"], tuple[int, str], (1, "a")),
    ([1], tuple, (1,)),
    ({"a": "c"}, dict[str, Unit], {"a": Unit.CELSIUS}),
    ({"a": 1}, dict, {"a": 1}),
    ("c", Unit, Unit.CELSIUS),
    ("c", Literal[Unit.CELSIUS], Unit.CELSIUS),
    (1, Literal[1, "a"], 1),
    (1, float | int, 1),
    ("f", int | Unit, Unit.FAHRENHEIT),
    (None, Unit | None, None),
    ("f", Annotated[Unit, "which"], Unit.FAHRENHEIT),
    (7, UserId, 7),
    ("2024-02-29", datetime.date, datetime.date(2024, 2, 29)),
    ("00000000-0000-0000-0000-000000000001", uuid.UUID, uuid.UUID(int=1)),
    ("a/b", pathlib.Path, pathlib.Path("a", "b")),
    ({"x": 1, "tags": ["t"]}, Point, Point(1, 0, ["t"])),
    ({"name": "r", "children": [{"name": "s"}]}, Tree, Tree("r", [Tree("s")])),
    ({"city": "Oslo", "name": "A"}, Person, {"city": "Oslo", "name": "A"}),
    ("anything", bytes, "anything"),
]


@pytest.mark.parametrize(("value", "hint", "made"), VALUES, ids=[f"{v!r} as {h}" for v, h, _ in VALUES])
def test_a_value_becomes_what_its_type_means(value: Any, hint: Any, made: Any) -> None:
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
    ([], None, "value: expected null, got an array"),
    (None, str, "value: expected a string, got null"),
    ({}, list[int], "value: expected an array, got an object"),
    ([1, "x"], list[int], "value[1]: expected an integer, got 'x'"),
    ([1], tuple[int, int], "value: expected 2 items, got 1"),
    ([1, "x"], tuple[int, int], "value[1]: expected an integer, got 'x'"),
    ([], dict[str, int], "value: expected an object, got an array"),
    ({"a": "x"}, dict[str, int], "value.a: expected an integer, got 'x'"),
    ("k", Unit, "value: expected one of 'c', 'f', got 'k'"),
    (True, Literal[1], "value: expected one of 1, got True"),
    ("x", int | None, "value: expected an integer, got 'x'; or value: expected null, got 'x'"),
    ({"y": 1}, Point, "value: missing 'x'"),
    ({"x": 1, "z": 1}, Point, "value: unknown 'z'; known: x, y, tags"),
    ({"x": 1, "tags": [1]}, Point, "value.tags[0]: expected a string, got 1"),
    ({"name": "r", "children": [{}]}, Tree, "value.children[0]: missing 'name'"),
    ({"number": 1}, Even, "value: 1 is odd"),
    ({"bad": 1}, Model, "value: bad is not allowed"),
    ("tomorrow", datetime.date, "value: Invalid isoformat string: 'tomorrow'"),
    ([{}], set[Any], "value: unhashable type: 'dict'"),
]


@pytest.mark.parametrize(("value", "hint", "text"), MISMATCHES, ids=[text for _, _, text in MISMATCHES])
def test_a_value_that_does_not_fit_is_named(value: Any, hint: Any, text: str) -> None:
    with pytest.raises(MismatchError) as caught:
        convert(value, hint)
    assert str(caught.value) == text


def test_other_properties_are_converted_to_the_type_of_the_rest() -> None:
    assert convert_fields({"a": 1, "b": "c"}, [Field("a", int, True)], "input", extra=Unit) == {
        "a": 1,
        "b": Unit.CELSIUS,
    }


def test_a_model_is_made_by_its_own_validation() -> None:
    assert convert({"x": 1}, Model).value == {"x": 1}
