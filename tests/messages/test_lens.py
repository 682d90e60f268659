"""rawsse.messages.lens: attribute access to a JSON object, and nothing lost; and the reading of JSON text."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any, ClassVar

import pytest

from rawsse.messages.lens import Lens, OpenLens, parse_json, read_json, sendable_json

Raw = dict[str, Any]


class Tail(Lens):
    length: int


class Cat(OpenLens):
    name: str
    owner: str | None
    toys: Any
    tail: Tail
    OPAQUE: ClassVar[frozenset[str]] = frozenset({"toys"})
    FIELDS: ClassVar[Mapping[str, Any]] = {"tails": Tail}


class House(Lens):
    FIELDS: ClassVar[Mapping[str, Any]] = {"cats": Cat}


class Kitten(Cat):
    age: int | None
    mother: Cat


def test_a_field_reads_as_its_value() -> None:
    assert Cat({"name": "Tom"}).name == "Tom"


def test_a_field_that_the_class_does_not_know_can_be_read() -> None:
    assert Cat({"name": "Tom", "new": 1}).new == 1


def test_a_field_that_admits_none_is_none_where_the_wire_left_it_out() -> None:
    assert Cat({"name": "Tom"}).owner is None


def test_a_field_that_may_be_anything_is_none_too_but_no_dump_shows_it() -> None:
    cat = Cat({"name": "Tom"})
    assert cat.toys is None
    assert "toys" not in cat.model_dump()
    assert "toys" not in repr(cat)


def test_what_admits_none_is_inherited() -> None:
    assert (Kitten({}).owner, Kitten({}).age) == (None, None)


def test_a_field_that_must_be_there_names_itself_and_what_is_there() -> None:
    with pytest.raises(AttributeError, match="Cat has no field 'name'; the JSON has: owner, toys"):
        _ = Cat({"owner": None, "toys": []}).name


def test_an_object_inside_is_looked_at_through_the_class_that_its_annotation_or_fields_names() -> None:
    assert type(Cat({"tail": {"length": 3}}).tail) is Tail
    assert [type(tail) for tail in Cat({"tails": [{"length": 3}]}).tails] == [Tail]
    assert type(Kitten({"tail": {}, "mother": {}}).tail) is Tail
    assert type(Kitten({"mother": {}}).mother) is Cat


def test_an_object_inside_of_which_nothing_is_known_is_a_plain_lens() -> None:
    inner = Cat({"collar": {"bell": {"tone": "c"}}}).collar
    assert inner.bell.tone == "c"
    assert type(inner) is Lens


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
    assert Cat({"name": "Kätzchen", "x": [1, None]}).to_json(indent=None) == '{"name":"Kätzchen","x":[1,null]}'


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_a_number_that_json_does_not_have_is_written_as_null(number: str) -> None:
    cat = Cat(read_json(f'{{"name":"Tom","toys":[{number},"\\ud83d"]}}'))
    for text in (cat.to_json(indent=None), cat.model_dump_json(exclude_unset=True)):
        assert text == '{"name":"Tom","toys":[null,"\ufffd"]}'  # RFC 8259, 6


def test_to_json_is_indented_by_two_by_default() -> None:
    assert Cat({"name": "Tom"}).to_json() == '{\n  "name": "Tom"\n}'
    assert Cat({"name": "Tom"}).to_json(indent=1) == '{\n "name": "Tom"\n}'


def test_to_dict_has_the_order_of_the_wire_and_to_json_that_of_the_class() -> None:
    cat = Cat({"x": 1, "owner": None, "name": "Tom"})
    assert list(cat.to_dict()) == ["x", "owner", "name"]
    assert list(json.loads(cat.to_json())) == ["name", "owner", "x"]


def test_a_field_that_is_annotated_again_moves_to_its_new_place() -> None:
    class Sorted(Cat):
        name: str

    assert list(json.loads(Sorted({"name": "Tom", "toys": 1}).to_json())) == ["toys", "name"]


def test_a_dump_has_the_fields_that_admit_none_and_did_not_come() -> None:
    assert Cat({"a": 1}).model_dump() == {"owner": None, "a": 1}
    assert Cat({"a": 1}).model_dump_json() == '{"owner":null,"a":1}'
    assert Cat({"a": 1}).model_dump_json(indent=1, exclude_unset=True) == '{\n "a": 1\n}'


def test_a_dump_fills_what_is_inside_as_well() -> None:
    house = House({"cats": [{"name": "Tom"}, 5]})
    assert house.model_dump() == {"cats": [{"name": "Tom", "owner": None}, 5]}
    assert house.model_dump(exclude_unset=True) == {"cats": [{"name": "Tom"}, 5]}


def test_a_dump_for_json_is_the_same() -> None:
    expected = {"name": "Tom", "owner": None, "toys": {"ball": None}}
    assert Cat({"name": "Tom", "toys": {"ball": None}}).model_dump(mode="json") == expected


def test_a_dump_is_a_deep_copy() -> None:
    raw = {"toys": {"ball": 1}}
    Cat(raw).model_dump()["toys"]["ball"] = 2
    assert raw == {"toys": {"ball": 1}}


def test_equal_are_same_class_and_same_json() -> None:
    assert Cat({"a": 1}) == Cat({"a": 1})
    assert Cat({"a": 1}) != Cat({"a": 2})
    assert Cat({"a": 1}) != Kitten({"a": 1})
    assert Cat({"a": 1}) != {"a": 1}
    assert Lens({"a": 1}) == Lens({"a": 1}) != Cat({"a": 1})


def test_it_cannot_be_hashed_as_it_may_change() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Cat({}))


def test_the_repr_is_that_of_a_model() -> None:
    cat = Cat({"new": 1, "name": "Tom", "tail": {"length": 3}, "collar": {"bell": 1}})
    assert repr(cat) == "Cat(name='Tom', owner=None, tail=Tail(length=3), new=1, collar={'bell': 1})"


def test_the_package_rich_gets_the_same() -> None:
    assert list(Cat({"name": "Tom"}).__rich_repr__()) == [("name", "Tom"), ("owner", None)]


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


# Levels of nesting. Python's own limit differs: 3.11 reads 1,000 levels of JSON, 3.12 1,500 and 3.13 10,000, but none of them
# calls Python functions more than 1,000 deep. A lens within a lens takes two calls a level.
DEEP = 600
TOO_DEEP = 100_000


class Box(Lens):
    FIELDS: ClassVar[Mapping[str, Any]] = {"inner": lambda raw: Box(raw)}


def boxes(levels: int) -> Raw:
    raw: Raw = {}
    for _ in range(levels):
        raw = {"inner": raw}
    return raw


def lists(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def test_a_copy_may_be_nested_as_deep_as_json_is_read() -> None:
    assert Lens({"odd": lists(DEEP)}).to_dict() == {"odd": lists(DEEP)}


@pytest.mark.parametrize("lens", [Box(boxes(DEEP)), House({"cats": lists(DEEP)})], ids=["objects", "lists"])
def test_a_dump_of_what_is_nested_too_deep_is_the_json_as_it_came(lens: Lens) -> None:
    assert lens.model_dump() == lens.raw


def test_a_repr_of_what_is_nested_too_deep_is_cut() -> None:
    assert repr(House({"cats": lists(TOO_DEEP)})) == "House(…)"
    assert "Box(inner=Box(…))" in repr(Box(boxes(DEEP)))


# --- JSON text -----------------------------------------------------------------------------------------------------

SAMPLE = '{"type": "a\\u00e9\\ud83d\\ude00\\n", "n": [-1.5e+3, 0, true, false, null, {}], "NaN": Infinity, "": ""}'
VALUES = [
    *("0", "-0", "01", "1.", "1e5", "1e400", "-", "9" * 5000, "NaN", "-Infinity", "Nan", "tru", "true", "null"),
    *("[]", "[NaN]", "[1,]", "[", "}", '{"a" 1}', '{"a": 1, "a": 2}', "{1: 2}", "[DONE]", "", "\0", "é", SAMPLE),
    *('""', '"', "'a'", '"\t"', r'"\x"', r'"\ud800"', '"\ud800"'),
]
AROUND = ["", " ", "\t\r\n", "\xa0", "\x0c", "\ufeff", ",", "1", "{}", "x"]


def outcome(read: Callable[[str], Any], text: str) -> tuple[Any, ...]:
    """The value, or the error with all that it tells. As `repr`, since NaN does not equal itself."""
    try:
        return (repr(read(text)),)
    except (ValueError, RecursionError) as exc:
        return type(exc), str(exc), exc.__cause__, exc.__context__ and exc.__suppress_context__


def odd_texts() -> Iterator[str]:
    yield from (before + value + after for before, value, after in product(AROUND, VALUES, AROUND))
    yield from (SAMPLE[:end] for end in range(len(SAMPLE)))
    yield from (SAMPLE[:at] + odd + SAMPLE[at + 1 :] for at in range(len(SAMPLE)) for odd in ' "\\{}[],:0\0')


def test_a_text_reads_as_json_loads_reads_it_and_fails_as_it_fails() -> None:
    assert [text for text in odd_texts() if outcome(read_json, text) != outcome(json.loads, text)] == []


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_text_that_is_nested_too_deep_fails_as_json_loads_fails(opening: str) -> None:
    given = outcome(read_json, opening * 100_000)
    assert given == outcome(json.loads, opening * 100_000)
    assert given[0] is RecursionError


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", '{"a": 1e999}', "[-1e999]"])
def test_what_a_request_cannot_carry_is_not_parsed(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a JSON value|larger than any"):  # RFC 8259, 6
        parse_json(text)


def test_numbers_and_halves_of_characters_are_parsed_so_that_they_can_be_sent() -> None:
    assert parse_json(r'["\ud83d", "\ud83d\ude00", 1.5e3]') == ["\ufffd", "\U0001f600", 1500.0]
    assert parse_json(b"[1e-5]") == [0.00001]


def test_a_part_of_an_answer_can_be_sent_back_whatever_numbers_are_in_it() -> None:
    good = {"score": 1.5}
    assert sendable_json(good) is good
    assert sendable_json({"score": float("inf"), "text": "\ud83d"}) == {"score": None, "text": "\ufffd"}


@pytest.mark.parametrize("value", [{"set"}, lists(TOO_DEEP)], ids=["not JSON", "too deep"])
def test_what_only_the_caller_s_encoder_knows_is_left_to_it(value: Any) -> None:
    raw = {"value": value}
    assert sendable_json(raw) is raw


def test_dir_lists_the_fields_that_can_be_read() -> None:
    cat = Cat({"name": "Tom", "new": 1})
    assert {"name", "owner", "new", "model_dump", "raw"} <= {*dir(cat)}
    assert "tail" not in dir(cat)
    assert all(hasattr(cat, name) for name in dir(cat))
