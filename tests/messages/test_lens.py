"""rawsse.messages.lens: attribute access to a JSON object, and nothing lost."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from rawsse.messages.lens import Lens


class Tail(Lens):
    length: int


class Cat(Lens):
    name: str
    owner: str | None
    toys: Any
    tail: Tail
    OPAQUE: ClassVar[frozenset[str]] = frozenset({"toys"})
    FIELDS: ClassVar[Mapping[str, Any]] = {"tail": Tail, "tails": Tail}


class Kitten(Cat):
    age: int | None


def test_a_field_reads_as_its_value() -> None:
    assert Cat({"name": "Tom"}).name == "Tom"


def test_a_field_that_the_class_does_not_know_can_be_read() -> None:
    assert Cat({"name": "Tom", "new": 1}).new == 1


def test_a_field_that_admits_none_is_none_where_the_wire_left_it_out() -> None:
    assert Cat({"name": "Tom"}).owner is None


def test_what_admits_none_is_inherited() -> None:
    assert (Kitten({}).owner, Kitten({}).age) == (None, None)


def test_a_field_that_must_be_there_names_itself_and_what_is_there() -> None:
    with pytest.raises(AttributeError, match="Cat has no field 'name'; the JSON has: owner, toys"):
        _ = Cat({"owner": None, "toys": []}).name


def test_an_object_inside_is_looked_at_through_the_class_that_fields_names() -> None:
    assert type(Cat({"tail": {"length": 3}}).tail) is Tail


def test_an_object_inside_of_which_nothing_is_known_is_a_plain_lens() -> None:
    inner = Cat({"collar": {"bell": {"tone": "c"}}}).collar
    assert type(inner) is Lens
    assert inner.bell.tone == "c"


def test_objects_in_a_list_are_looked_at_one_by_one() -> None:
    first, second, plain = Cat({"tails": [{"length": 1}, [{"length": 2}], 3]}).tails
    assert (first, second, plain) == (Tail({"length": 1}), [Tail({"length": 2})], 3)


@pytest.mark.parametrize("toys", [{"ball": 1}, [{"ball": 1}]])
def test_an_opaque_field_is_given_out_as_it_is(toys: Any) -> None:
    assert Cat({"toys": toys}).toys is toys


def test_raw_is_the_dict_itself() -> None:
    raw = {"name": "Tom"}
    assert Cat(raw).raw is raw


def test_it_reads_as_a_mapping_of_the_json_itself() -> None:
    cat = Cat({"name": "Tom", "tail": {"length": 3}})
    assert dict(cat) == cat.raw
    assert (len(cat), list(cat), "tail" in cat, cat["tail"], cat.get("x", 7)) == (
        2,
        ["name", "tail"],
        True,
        {"length": 3},
        7,
    )


def test_a_key_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="name"):
        Cat({})["name"]


def test_to_dict_is_a_deep_copy() -> None:
    raw = {"tail": {"length": 3}}
    given = Cat(raw).to_dict()
    given["tail"]["length"] = 4
    assert raw == {"tail": {"length": 3}}


def test_to_json_adds_nothing_and_escapes_no_more_than_it_must() -> None:
    assert Cat({"name": "Kätzchen", "x": [1, None]}).to_json() == '{"name":"Kätzchen","x":[1,null]}'


def test_to_json_may_be_indented() -> None:
    assert Cat({"name": "Tom"}).to_json(indent=1) == '{\n "name": "Tom"\n}'


def test_the_sdk_s_names_for_both_are_there() -> None:
    assert Cat({"a": 1}).model_dump() == {"a": 1}
    assert json.loads(Cat({"a": 1}).model_dump_json()) == {"a": 1}


def test_equal_are_same_class_and_same_json() -> None:
    assert Cat({"a": 1}) == Cat({"a": 1})
    assert Cat({"a": 1}) != Cat({"a": 2})
    assert Cat({"a": 1}) != Kitten({"a": 1})
    assert Cat({"a": 1}) != {"a": 1}


def test_it_cannot_be_hashed_as_it_may_change() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Cat({}))


def test_the_repr_is_the_class_and_the_json() -> None:
    assert repr(Cat({"name": "Tom"})) == "Cat({'name': 'Tom'})"


def test_match_reads_fields_by_name() -> None:
    match Cat({"name": "Tom"}):
        case Cat(name=name, owner=None):
            assert name == "Tom"
        case _:
            pytest.fail("it did not match")


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda lens: pickle.loads(pickle.dumps(lens))])
def test_it_can_be_copied_and_pickled(again: Any) -> None:
    assert again(Cat({"tail": {"length": 3}})) == Cat({"tail": {"length": 3}})


def test_a_special_method_is_never_looked_for_in_the_json() -> None:
    assert not hasattr(Cat({"__len_hint__": 1}), "__len_hint__")


def test_a_copy_may_be_nested_as_deep_as_json_is_read() -> None:
    raw = json.loads('{"odd":' + "[" * 900 + "]" * 900 + "}")
    assert Lens(raw).to_dict() == raw
