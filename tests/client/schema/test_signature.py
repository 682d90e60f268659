"""rawsse.client.schema.signature: what a function's signature and docstring tell a model, and how an input calls it."""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from rawsse.client.schema.signature import Signature, schema_of_function
from rawsse.client.schema.types import MismatchError
from rawsse.errors import ConfigurationError

if TYPE_CHECKING:
    from decimal import Decimal


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


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


def test_a_function_has_name_description_and_schema() -> None:
    name, description, schema = schema_of_function(weather)
    assert (name, description) == ("weather", "The weather at a place.")
    assert schema == {
        "type": "object",
        "properties": {
            "city": {"description": "Where.", "type": "string"},
            "unit": {"enum": ["c", "f"], "type": "string", "default": "c"},
            "days": {"description": "How many days.", "type": "integer", "default": 1},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


def test_what_has_no_annotation_takes_anything_and_keywords_take_the_rest() -> None:
    assert schema_of_function(anything).input_schema == {
        "type": "object",
        "properties": {"city": {}},
        "required": ["city"],
        "additionalProperties": {"type": "integer"},
    }


def test_a_function_without_parameters_takes_an_empty_object() -> None:
    def roll() -> int:
        return 4

    assert schema_of_function(roll) == (
        "roll",
        "",
        {"type": "object", "properties": {}, "additionalProperties": False},
    )


@pytest.mark.parametrize(
    ("function", "name"),
    [(Station().read, "read"), (Station(), "Station"), (functools.partial(Station.read, Station()), "read")],
    ids=["a bound method", "an object that can be called", "a partial"],
)
def test_whatever_can_be_called_has_a_schema(function: Any, name: str) -> None:
    found = schema_of_function(function)
    assert found.name == name
    assert found.input_schema["properties"] == {"sensor": {"type": "integer"}}


def test_a_class_is_called_as_its_init() -> None:
    class Reading:
        def __init__(self, value: int) -> None:
            self.value = value

    assert schema_of_function(Reading).input_schema["properties"] == {"value": {"type": "integer"}}


def test_a_wrapped_function_is_seen_through() -> None:
    @functools.wraps(weather)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return weather(*args, **kwargs)

    assert schema_of_function(wrapper) == schema_of_function(weather)


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
def test_what_has_no_name_is_refused(function: Any, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Signature(function)
    assert str(caught.value) == text


def test_an_unknown_type_is_named_with_its_parameter_and_function() -> None:
    def sum_up(city: str, amount: complex) -> None: ...

    with pytest.raises(ConfigurationError) as caught:
        schema_of_function(sum_up)
    assert str(caught.value).startswith("sum_up, parameter 'amount': there is no JSON Schema for 'complex'")


def test_a_type_that_cannot_be_resolved_is_named() -> None:
    def pay(city: str, amount: Decimal) -> None: ...

    with pytest.raises(ConfigurationError) as caught:
        Signature(pay)
    assert str(caught.value).startswith(
        "pay, parameter 'amount': the type 'Decimal' cannot be resolved: name 'Decimal'"
    )


def test_what_has_no_signature_is_refused() -> None:
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


def test_keywords_take_the_rest() -> None:
    assert Signature(anything).arguments({"city": None, "x": 2}) == {"city": None, "x": 2}
