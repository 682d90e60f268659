"""rawsse.client.schema.output: what is asked for with a type, and what the text of an answer is read as."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, assert_type

import pytest
from support.answers import ASK, Sent, client_of, plain
from support.answers import answer as response
from support.clock import run
from support.streams import Raw, block, block_start, end, fold, start, text_delta, to_sse, tool_block

from rawsse.client.schema.output import MAX_REASONS, OutputFormat, Outputs, strict_schema, with_output_format
from rawsse.errors import ConfigurationError, OutputFormatError, PartialJSONError
from rawsse.messages import (
    ContentBlockStop,
    Message,
    MessageBuilder,
    MessageStop,
    ParsedMessage,
    ParsedTextBlock,
    TextBlock,
    TextEvent,
)
from rawsse.replay.fakes import FakeStream

ORDER_SCHEMA: Raw = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["name", "count"],
    "additionalProperties": False,
}


@dataclass
class Order:
    name: str
    count: int


class OrderDict(TypedDict):
    name: str
    count: int


class RefusedError(ValueError):
    """As pydantic's `ValidationError`: its reasons are in `errors()`."""

    def __init__(self, reasons: int) -> None:
        super().__init__(f"{reasons} validation errors\n  of several lines")
        self.reasons = reasons

    def errors(self) -> list[dict[str, Any]]:
        return [{"loc": ("items", number), "msg": "Field required"} for number in range(self.reasons)]


class Model:
    """What pydantic's models have, and nothing of pydantic."""

    @staticmethod
    def model_json_schema() -> Raw:
        return {"type": "object", "title": "Model", "properties": {}, "required": []}

    @staticmethod
    def model_validate_json(text: str) -> Any:
        raise RefusedError(len(text))


# --- What is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", [Order, OrderDict])
def test_a_class_with_fields_is_asked_for_as_an_object(type: Any) -> None:
    assert OutputFormat(type).param() == {"type": "json_schema", "schema": ORDER_SCHEMA}


def test_a_list_is_asked_for_as_an_array() -> None:
    assert OutputFormat(list[int]).param()["schema"] == {"type": "array", "items": {"type": "integer"}}


def test_a_model_says_itself_what_it_is() -> None:
    schema = {"type": "object", "title": "Model", "properties": {}, "required": [], "additionalProperties": False}
    assert OutputFormat(Model).param()["schema"] == schema


def test_a_schema_is_no_type() -> None:
    schema: Any = ORDER_SCHEMA
    with pytest.raises(ConfigurationError, match=r"must be a type; a schema goes into output_config=\{'format'"):
        OutputFormat(schema)


def test_a_type_that_json_has_not_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(ConfigurationError, match="output_format: there is no JSON Schema for 'complex'"):
        OutputFormat(complex)


class Pydantic:
    """The package, as far as it is asked for types that are no models."""

    class TypeAdapter:
        def __init__(self, type: Any) -> None:
            if type is bytes:
                raise RuntimeError("no schema for bytes")

        def json_schema(self) -> Raw:
            return {"type": "string", "format": "complex"}

        def validate_json(self, text: str) -> complex:
            return complex(json.loads(text))


def test_pydantic_is_asked_for_a_type_that_we_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", Pydantic)
    wanted = OutputFormat(complex)
    assert wanted.param()["schema"] == {"type": "string", "description": "{format: complex}"}
    assert wanted.read('"1+2j"') == 1 + 2j


def test_what_pydantic_does_not_know_either_is_refused_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", Pydantic)
    with pytest.raises(ConfigurationError, match="there is no JSON Schema for 'bytes'"):
        OutputFormat(bytes)


def test_the_format_goes_into_the_output_config_beside_what_is_there() -> None:
    wanted = OutputFormat(Order)
    given = {"max_tokens": 1, "output_config": {"effort": "low"}}
    assert with_output_format(given, wanted) == {
        "max_tokens": 1,
        "output_config": {"effort": "low", "format": wanted.param()},
    }
    assert with_output_format({}, wanted) == {"output_config": {"format": wanted.param()}}
    assert given == {"max_tokens": 1, "output_config": {"effort": "low"}}


def test_without_a_format_the_fields_stay_as_they_are() -> None:
    assert with_output_format({"output_config": {"format": 5}}, None) == {"output_config": {"format": 5}}


def test_two_formats_are_one_too_many() -> None:
    with pytest.raises(ConfigurationError, match=r"output_format or output_config\['format'\], not both"):
        with_output_format({"output_config": {"format": {}}}, OutputFormat(Order))


# --- The part of JSON Schema that the API takes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"type": "string", "format": "password"}, {"type": "string", "description": "{format: password}"}),
        (
            {"type": "integer", "minimum": 1, "maximum": 9, "description": "How many"},
            {"type": "integer", "description": "How many\n\n{minimum: 1, maximum: 9}"},
        ),
        ({"type": "object"}, {"type": "object", "properties": {}, "additionalProperties": False}),
        (
            {"type": "object", "properties": {"a": {"type": "null", "x": 1}}, "additionalProperties": {"type": "null"}},
            {
                "type": "object",
                "properties": {"a": {"type": "null", "description": "{x: 1}"}},
                "additionalProperties": False,
            },
        ),
        ({"type": "array", "minItems": 1}, {"type": "array", "minItems": 1}),
        (
            {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
            {"type": "array", "items": {"type": "boolean"}, "description": "{minItems: 2}"},
        ),
        ({"enum": ["a", None], "type": "string"}, {"enum": ["a", None]}),
        ({"const": 1, "type": "integer", "title": "One"}, {"const": 1, "title": "One"}),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/A"}]}, {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/A"}]}),
        (
            {"oneOf": [{"type": "string"}], "discriminator": "kind"},
            {"anyOf": [{"type": "string"}], "description": "{discriminator: kind}"},
        ),
        ({"allOf": [{"type": "string"}], "description": "x"}, {"allOf": [{"type": "string"}], "description": "x"}),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}, "title": "dropped"},
            {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {}, "additionalProperties": False}}},
        ),
    ],
)
def test_what_the_api_takes_of_a_schema(schema: Raw, strict: Raw) -> None:
    before = json.dumps(schema)
    assert strict_schema(schema) == strict
    assert json.dumps(schema) == before


@pytest.mark.parametrize("schema", [{}, {"title": "T"}, {"enum": []}, {"enum": [[1]]}, {"const": {}}, {"anyOf": 1}])
def test_a_schema_that_leaves_the_type_open_is_refused(schema: Raw) -> None:
    with pytest.raises(ConfigurationError, match="takes no schema that leaves the type open: "):
        strict_schema(schema)


# --- What is read ----------------------------------------------------------------------------------------------------


def test_a_text_is_read_as_the_value_that_it_stands_for() -> None:
    assert OutputFormat(Order).read('{"name": "tea", "count": 2}') == Order("tea", 2)
    assert OutputFormat(OrderDict).read('{"name": "tea", "count": 2}') == {"name": "tea", "count": 2}
    assert OutputFormat(list[Literal["a", "b"]]).read(' ["a"] ') == ["a"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Sure!", "the text of the answer does not fit Order: Expecting value"),
        ('{"name": "te', "does not fit Order: Unterminated string"),
        ('{"name": "tea", "count": "two"}', "does not fit Order: output.count: expected an integer, got 'two'"),
        ('{"name": "tea"}', "does not fit Order: output: missing 'count'"),
        ("[" * 100_000, "does not fit Order: "),
    ],
)
def test_a_text_that_does_not_fit_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(OutputFormatError, match=reason) as caught:
        OutputFormat(Order).read(text)
    assert caught.value.text == text
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(("faults", "more"), [(1, ""), (MAX_REASONS, ""), (MAX_REASONS + 2, "; and 2 more")])
def test_the_reasons_of_a_model_are_told_in_one_line_up_to_a_number(faults: int, more: str) -> None:
    told = "; ".join(f"output.items.{number}: Field required" for number in range(min(faults, MAX_REASONS)))
    with pytest.raises(OutputFormatError) as caught:
        OutputFormat(Model).read("x" * faults)
    assert str(caught.value) == f"the text of the answer does not fit Model: {told}{more}"


# --- A stream --------------------------------------------------------------------------------------------------------

TEXT = {"type": "text", "text": ""}
JSON = '{"name": "tea", "count": 2}'


def answer(*texts: str, stop_reason: str = "end_turn") -> list[Raw]:
    blocks = [raw for index, text in enumerate(texts) for raw in block(index, TEXT, *in_pieces(index, text))]
    return [start(), *blocks, end(stop_reason), {"type": "message_stop"}]


def in_pieces(index: int, text: str) -> list[Raw]:
    return [text_delta(index, character) for character in text]


def heard(raws: list[Raw], outputs: Outputs[Any]) -> list[Any]:
    """The events as a `MessageStream` gives them, in the moment in which it does."""
    builder = MessageBuilder()
    events: list[Any] = []
    for raw in raws:
        event = builder.feed(to_sse(raw))
        assert event is not None
        events += [outputs.event(each, lambda: builder.message) for each in builder.expand(event)]
    return events


def stops(events: list[Any]) -> list[Any]:
    return [event.content_block for event in events if isinstance(event, ContentBlockStop)]


def test_without_a_format_text_is_parsed_to_none() -> None:
    events = heard(answer(JSON), Outputs())
    (stop,) = stops(events)
    assert (type(stop), stop.text, stop.parsed_output) == (ParsedTextBlock, JSON, None)
    assert isinstance(events[-1], MessageStop)
    assert type(events[-1].message) is ParsedMessage
    assert events[-1].message.parsed_output is None


def test_a_block_is_parsed_when_it_ends() -> None:
    events = heard(answer(JSON), Outputs(OutputFormat(Order)))
    assert stops(events)[0].parsed_output == Order("tea", 2)


def test_the_message_has_the_very_value_that_the_block_had() -> None:
    events = heard(answer(JSON), Outputs(OutputFormat(Order)))
    message = events[-1].message
    assert message.parsed_output is message.content[0].parsed_output is stops(events)[0].parsed_output


def test_text_that_does_not_fit_leaves_the_rest_of_the_stream_as_it_is() -> None:
    events = heard(answer("I have it:", JSON), Outputs(OutputFormat(Order)))
    prose, value = stops(events)
    with pytest.raises(OutputFormatError, match="does not fit Order: Expecting value"):
        _ = prose.parsed_output
    assert value.parsed_output == events[-1].message.parsed_output == Order("tea", 2)


def test_an_error_has_the_message_and_says_why_it_stopped() -> None:
    events = heard(answer('{"name"', stop_reason="max_tokens"), Outputs(OutputFormat(Order)))
    for _ in range(2):
        with pytest.raises(OutputFormatError, match=r"does not fit Order: .* \(stop_reason: max_tokens\)$") as caught:
            _ = events[-1].message.parsed_output
        assert caught.value.partial is not None
        assert caught.value.partial.text == caught.value.text == '{"name"'
        assert str(caught.value) == caught.value.message
        assert str(caught.value).count("stop_reason") == 1


def test_only_text_is_parsed() -> None:
    raws = [
        start(),
        *block(0, tool_block()),
        *block(1, TEXT, text_delta(1, JSON)),
        end("tool_use"),
        {"type": "message_stop"},
    ]
    tool, text = stops(heard(raws, Outputs(OutputFormat(Order))))
    assert (tool.type, text.parsed_output) == ("tool_use", Order("tea", 2))


def test_a_block_that_is_still_open_is_not_parsed() -> None:
    builder = fold([start(), block_start(0, TEXT), text_delta(0, JSON)])
    assert builder.message is not None
    message = Outputs(OutputFormat(Order)).message(builder.message)
    (block,) = message.content
    assert isinstance(block, ParsedTextBlock)
    assert (message.text, message.parsed_output, block.parsed_output) == (JSON, None, None)


def test_a_block_whose_end_was_never_told_is_parsed_when_the_answer_is_over() -> None:
    builder = fold([start(), block_start(0, TEXT), text_delta(0, JSON), end()])
    assert builder.message is not None
    assert Outputs(OutputFormat(Order)).message(builder.message).parsed_output == Order("tea", 2)


def test_a_message_that_was_taken_early_shows_what_is_known_later() -> None:
    outputs: Outputs[Order] = Outputs(OutputFormat(Order))
    builder = fold([start(), block_start(0, TEXT), text_delta(0, JSON)])
    assert builder.message is not None
    early = outputs.message(builder.message)
    builder.feed(to_sse({"type": "content_block_stop", "index": 0}))
    outputs.message(builder.message)
    assert early.parsed_output == Order("tea", 2)


def test_a_stop_without_a_message_is_given_all_the_same() -> None:
    stop = ContentBlockStop({"type": "content_block_stop", "index": 0}, content_block=TextBlock({**TEXT, "text": JSON}))
    given = Outputs(OutputFormat(Order)).event(stop, lambda: None)
    assert isinstance(given, ContentBlockStop)
    assert isinstance(given.content_block, ParsedTextBlock)
    assert given.content_block.parsed_output is None


# --- While it comes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [Outputs(), Outputs(OutputFormat(Order))], ids=["without a format", "with one"])
def test_the_text_can_be_read_as_json_after_every_character(outputs: Outputs[Any]) -> None:
    texts = [event for event in heard(answer('{"name":"té","count":12}'), outputs) if isinstance(event, TextEvent)]
    shown = [event.parsed_snapshot() for event in texts]
    assert shown[:8] == [{}] * 8
    assert shown[8:15] == [{"name": ""}, {"name": "t"}, *[{"name": "té"}] * 5]
    assert shown[-3:] == [{"name": "té", "count": 1}, *[{"name": "té", "count": 12}] * 2]


def test_snapshots_are_values_of_their_own_and_may_be_asked_for_in_any_order() -> None:
    outputs: Outputs[Order] = Outputs(OutputFormat(Order))
    texts = [event for event in heard(answer('{"name":"t"}'), outputs) if isinstance(event, TextEvent)]
    whole, early = texts[-1].parsed_snapshot(), texts[-4].parsed_snapshot()
    whole["name"] = "changed"
    assert early == {"name": ""}
    assert texts[-1].parsed_snapshot() == {"name": "t"}


def test_text_that_is_no_json_says_so_each_time() -> None:
    outputs: Outputs[Order] = Outputs(OutputFormat(Order))
    for event in heard(answer("Sure"), outputs):
        if isinstance(event, TextEvent):
            with pytest.raises(PartialJSONError, match="no JSON at character 0"):
                event.parsed_snapshot()


# --- Calls -----------------------------------------------------------------------------------------------------------


async def in_stream(raws: list[Raw], **options: Any) -> list[Any]:
    async with client_of(response(raws)).messages.stream(**ASK, **options) as stream:
        events = [event async for event in stream]
        return [stops(events), events[-1], await stream.get_final_message(), stream]


def test_a_stream_parses_what_it_was_asked_for() -> None:
    (stop,), last, message, stream = run(in_stream(answer(JSON), output_format=Order))
    assert stop.parsed_output == message.parsed_output == last.message.parsed_output == Order("tea", 2)
    assert stream.current_message_snapshot.parsed_output is message.parsed_output
    assert last.message.request_id == message.request_id == "req_1"


def test_a_stream_without_a_format_parses_to_none() -> None:
    (stop,), last, message, _ = run(in_stream(answer(JSON)))
    assert (stop.parsed_output, last.message.parsed_output, message.parsed_output) == (None, None, None)


def test_a_stream_whose_events_nobody_read_is_parsed_too() -> None:
    async def story() -> Order | None:
        async with client_of(response(answer(JSON))).messages.stream(**ASK, output_format=Order) as stream:
            message = await stream.get_final_message()
            value: Order | None = message.parsed_output
            return value

    assert run(story()) == Order("tea", 2)


def test_parse_gives_a_message_of_that_type() -> None:
    connection = FakeStream([response(answer(JSON))])
    message = run(client_of(connection).messages.parse(**ASK, output_format=Order, output_config={"effort": "low"}))
    assert_type(message, ParsedMessage[Order])
    assert message.parsed_output == Order("tea", 2)
    request = Sent(connection.written).json
    assert request["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": ORDER_SCHEMA}}
    assert "output_format" not in request


def test_parse_loses_nothing_of_an_answer_that_does_not_fit() -> None:
    with pytest.raises(OutputFormatError, match=r"does not fit Order: .*\(stop_reason: refusal\)") as caught:
        run(client_of(response(answer("No.", stop_reason="refusal"))).messages.parse(**ASK, output_format=Order))
    error = caught.value
    assert error.partial is not None
    assert (error.text, error.partial.text, error.partial.usage.output_tokens) == ("No.", "No.", 7)
    assert (error.request_id, error.phase) == ("req_1", "done")


def test_create_gives_a_plain_message() -> None:
    assert type(run(client_of(response(answer(JSON))).messages.create(**ASK))) is Message


def test_tokens_are_counted_with_the_format() -> None:
    connection = FakeStream([plain(b'{"input_tokens": 12}')])
    run(client_of(connection).messages.count_tokens(model="m", messages=[], output_format=Order))
    assert Sent(connection.written).json["output_config"]["format"]["schema"] == ORDER_SCHEMA


def test_a_type_that_cannot_be_asked_for_is_refused_before_anything_is_sent() -> None:
    connection = FakeStream([])
    with pytest.raises(ConfigurationError, match="output_format must be a type"):
        client_of(connection).messages.stream(**ASK, output_format={"type": "json_schema"})  # type: ignore[arg-type]
    assert connection.written == b""


# --- Whatever goes wrong while a text is read ---------------------------------------------------------------------------


@dataclass
class Price:
    amount: float


class Broken(Exception):  # noqa: N818 - of a user's own code
    pass


@dataclass
class Checked:
    amount: int

    def __post_init__(self) -> None:
        reasons = [
            Broken("broken"),
            AssertionError("odd"),
            OverflowError("large"),
            KeyError("key"),
            ValueError("value"),
        ]
        raise reasons[self.amount]


DIGITS = "9" * 401


@pytest.mark.parametrize(
    ("type", "text"),
    [
        (float, DIGITS),
        (float, f"-{DIGITS}"),
        (list[float], f"[1, {DIGITS}]"),
        (dict[str, float], f'{{"a": {DIGITS}}}'),
        (Price, f'{{"amount": {DIGITS}}}'),
        (float | None, DIGITS),
        (float, "9" * 5000),
        (int, "9" * 5000),
        (float, "1e999"),
        *((Checked, f'{{"amount": {number}}}') for number in range(5)),
    ],
    ids=str,
)
def test_a_text_that_no_value_can_be_made_of_does_not_fit(type: Any, text: str) -> None:
    with pytest.raises(OutputFormatError, match="the text of the answer does not fit") as caught:
        OutputFormat(type).read(text)
    assert caught.value.text == text


def test_a_number_that_is_too_large_says_where_it_is() -> None:
    with pytest.raises(OutputFormatError, match=r"output\.amount: int too large to convert to float"):
        OutputFormat(Price).read(f'{{"amount": {DIGITS}}}')


def test_a_whole_number_may_have_as_many_digits_as_it_likes() -> None:
    assert OutputFormat(int).read(DIGITS) == int(DIGITS)


def test_parse_raises_it_with_the_message() -> None:
    wire = response([start(), *block(0, {"type": "text", "text": DIGITS}), end(), {"type": "message_stop"}])
    with pytest.raises(OutputFormatError) as caught:
        run(client_of(wire).messages.parse(**ASK, output_format=float))
    assert caught.value.partial is not None
    assert caught.value.partial.text == DIGITS
