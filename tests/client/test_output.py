"""rawsse.client.output: a type as the format of an answer, and the text of an answer as its value."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any, Literal, assert_type

import pytest
from support.answers import ASK, Sent, client_of, plain
from support.answers import answer as response
from support.clock import run
from support.streams import Raw, block, block_start, end, fold, start, text_delta, to_sse, tool_block

from rawsse.client.output import OutputFormat, Outputs, strict_schema, with_output_format
from rawsse.client.tools.runner import ToolRunner
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

ORDER: Any = list[str | int]  # a plain type: classes need pydantic, which may not be installed
ORDER_SCHEMA: Raw = {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}


# --- What is asked for -----------------------------------------------------------------------------------------------


def test_a_list_is_asked_for_as_an_array() -> None:
    assert OutputFormat(ORDER).param() == {"type": "json_schema", "schema": ORDER_SCHEMA}


def test_a_class_is_asked_for_as_an_object_of_its_fields_alone() -> None:
    pytest.importorskip("pydantic", reason="makes the schemas of classes: the extra `schema`")

    @dataclass
    class Order:
        name: str
        count: int

    wanted = OutputFormat(Order)
    schema = wanted.param()["schema"]
    assert {name: schema[name] for name in ("type", "required", "additionalProperties")} == {
        "type": "object",
        "required": ["name", "count"],
        "additionalProperties": False,
    }
    assert wanted.read('{"name": "tea", "count": 2}') == Order("tea", 2)
    with pytest.raises(
        OutputFormatError, match=r"^the text of the answer does not fit Order: output\.count: Field req"
    ):
        wanted.read('{"name": "tea"}')


def test_a_schema_is_no_type() -> None:
    schema: Any = ORDER_SCHEMA
    with pytest.raises(ConfigurationError, match=r"must be a type; a schema goes into output_config=\{'format'"):
        OutputFormat(schema)


def test_without_pydantic_a_class_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(
        ConfigurationError, match=r"^output_format: the type 'Message' needs pydantic.*'rawsse\[schema\]'"
    ):
        OutputFormat(Message)


def test_the_format_goes_into_the_output_config_beside_what_is_there() -> None:
    wanted = OutputFormat(ORDER)
    given = {"max_tokens": 1, "output_config": {"effort": "low"}}
    assert with_output_format(given, wanted) == {
        "max_tokens": 1,
        "output_config": {"effort": "low", "format": wanted.param()},
    }
    assert with_output_format({}, wanted) == {"output_config": {"format": wanted.param()}}
    assert given == {"max_tokens": 1, "output_config": {"effort": "low"}}


def test_two_formats_are_one_too_many() -> None:
    with pytest.raises(ConfigurationError, match=r"output_format or output_config\['format'\], not both"):
        with_output_format({"output_config": {"format": {}}}, OutputFormat(ORDER))


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
    with pytest.raises(ConfigurationError, match="accepts no schema that leaves the type open: "):
        strict_schema(schema)


# --- What is read ----------------------------------------------------------------------------------------------------


def test_a_text_is_read_as_the_value_that_it_stands_for() -> None:
    assert OutputFormat(ORDER).read('["tea", 2]') == ["tea", 2]
    assert OutputFormat(list[Literal["a", "b"]]).read(' ["a"] ') == ["a"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Sure!", "the text of the answer does not fit list: Expecting value"),
        ('["te', "does not fit list: Unterminated string"),
        ("[2.5]", r"does not fit list: output\[0\]: expected a string, got 2.5; or output\[0\]: expected an integer"),
        ("[" * 100_000, "does not fit list: "),
    ],
)
def test_a_text_that_does_not_fit_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(OutputFormatError, match=reason) as caught:
        OutputFormat(ORDER).read(text)
    assert caught.value.text == text
    assert caught.value.__cause__ is not None


# --- A stream --------------------------------------------------------------------------------------------------------

TEXT = {"type": "text", "text": ""}
JSON = '["tea", 2]'


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
    events = heard(answer(JSON), Outputs(OutputFormat(ORDER)))
    assert stops(events)[0].parsed_output == ["tea", 2]


def test_the_message_has_the_very_value_that_the_block_had() -> None:
    events = heard(answer(JSON), Outputs(OutputFormat(ORDER)))
    message = events[-1].message
    assert message.parsed_output is message.content[0].parsed_output is stops(events)[0].parsed_output


def test_text_that_does_not_fit_leaves_the_rest_of_the_stream_as_it_is() -> None:
    events = heard(answer("I have it:", JSON), Outputs(OutputFormat(ORDER)))
    prose, value = stops(events)
    with pytest.raises(OutputFormatError, match="does not fit list: Expecting value"):
        _ = prose.parsed_output
    assert value.parsed_output == events[-1].message.parsed_output == ["tea", 2]


def test_an_error_has_the_message_and_says_why_it_stopped() -> None:
    events = heard(answer('["tea"', stop_reason="max_tokens"), Outputs(OutputFormat(ORDER)))
    for _ in range(2):
        with pytest.raises(OutputFormatError, match=r"does not fit list: .* \(stop_reason: max_tokens\)$") as caught:
            _ = events[-1].message.parsed_output
        assert caught.value.partial is not None
        assert caught.value.partial.text == caught.value.text == '["tea"'
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
    tool, text = stops(heard(raws, Outputs(OutputFormat(ORDER))))
    assert (tool.type, text.parsed_output) == ("tool_use", ["tea", 2])


def test_a_block_that_is_still_open_is_not_parsed() -> None:
    builder = fold([start(), block_start(0, TEXT), text_delta(0, JSON)])
    assert builder.message is not None
    message = Outputs(OutputFormat(ORDER)).message(builder.message)
    (block,) = message.content
    assert isinstance(block, ParsedTextBlock)
    assert (message.text, message.parsed_output, block.parsed_output) == (JSON, None, None)


def test_a_block_whose_end_was_never_told_is_parsed_when_the_answer_is_over() -> None:
    builder = fold([start(), block_start(0, TEXT), text_delta(0, JSON), end()])
    assert builder.message is not None
    assert Outputs(OutputFormat(ORDER)).message(builder.message).parsed_output == ["tea", 2]


def test_a_message_that_was_taken_early_shows_what_is_known_later() -> None:
    outputs: Outputs[Any] = Outputs(OutputFormat(ORDER))
    builder = fold([start(), block_start(0, TEXT), text_delta(0, JSON)])
    assert builder.message is not None
    early = outputs.message(builder.message)
    builder.feed(to_sse({"type": "content_block_stop", "index": 0}))
    outputs.message(builder.message)
    assert early.parsed_output == ["tea", 2]


def test_a_stop_without_a_message_is_given_all_the_same() -> None:
    stop = ContentBlockStop({"type": "content_block_stop", "index": 0})
    stop.content_block = TextBlock({**TEXT, "text": JSON})
    given = Outputs(OutputFormat(ORDER)).event(stop, lambda: None)
    assert isinstance(given, ContentBlockStop)
    assert isinstance(given.content_block, ParsedTextBlock)
    assert given.content_block.parsed_output is None


# --- While it comes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [Outputs(), Outputs(OutputFormat(ORDER))], ids=["without a format", "with one"])
def test_the_text_can_be_read_as_json_after_every_character(outputs: Outputs[Any]) -> None:
    texts = [event for event in heard(answer('{"name":"té","count":12}'), outputs) if isinstance(event, TextEvent)]
    shown = [event.parsed_snapshot() for event in texts]
    assert shown[:8] == [{}] * 8
    assert shown[8:15] == [{"name": ""}, {"name": "t"}, *[{"name": "té"}] * 5]
    assert shown[-3:] == [{"name": "té", "count": 1}, *[{"name": "té", "count": 12}] * 2]


def test_snapshots_are_values_of_their_own_and_may_be_asked_for_in_any_order() -> None:
    outputs: Outputs[Any] = Outputs(OutputFormat(ORDER))
    texts = [event for event in heard(answer('{"name":"t"}'), outputs) if isinstance(event, TextEvent)]
    whole, early = texts[-1].parsed_snapshot(), texts[-4].parsed_snapshot()
    whole["name"] = "changed"
    assert early == {"name": ""}
    assert texts[-1].parsed_snapshot() == {"name": "t"}


def test_text_that_is_no_json_says_so_each_time() -> None:
    outputs: Outputs[Any] = Outputs(OutputFormat(ORDER))
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
    (stop,), last, message, stream = run(in_stream(answer(JSON), output_format=ORDER))
    assert stop.parsed_output == message.parsed_output == last.message.parsed_output == ["tea", 2]
    assert stream.current_message_snapshot.parsed_output is message.parsed_output
    assert last.message.request_id == message.request_id == "req_1"


def test_a_stream_without_a_format_parses_to_none() -> None:
    (stop,), last, message, _ = run(in_stream(answer(JSON)))
    assert (stop.parsed_output, last.message.parsed_output, message.parsed_output) == (None, None, None)


def test_a_stream_whose_events_nobody_read_is_parsed_too() -> None:
    async def story() -> Any:
        async with client_of(response(answer(JSON))).messages.stream(**ASK, output_format=ORDER) as stream:
            message = await stream.get_final_message()
            value: Any = message.parsed_output
            return value

    assert run(story()) == ["tea", 2]


def test_parse_gives_a_message_of_that_type() -> None:
    connection = FakeStream([response(answer(JSON))])
    message = run(client_of(connection).messages.parse(**ASK, output_format=ORDER, output_config={"effort": "low"}))
    assert message.parsed_output == ["tea", 2]
    request = Sent(connection.written).json
    assert request["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": ORDER_SCHEMA}}
    assert "output_format" not in request


def test_parse_loses_nothing_of_an_answer_that_does_not_fit() -> None:
    with pytest.raises(OutputFormatError, match=r"does not fit list: .*\(stop_reason: refusal\)") as caught:
        run(client_of(response(answer("No.", stop_reason="refusal"))).messages.parse(**ASK, output_format=ORDER))
    error = caught.value
    assert error.partial is not None
    assert (error.text, error.partial.text, error.partial.usage.output_tokens) == ("No.", "No.", 7)
    assert (error.request_id, error.phase) == ("req_1", "done")


@pytest.mark.parametrize("reason", ["max_tokens", "refusal", "end_turn"])
def test_the_error_of_a_text_that_does_not_fit_says_how_the_answer_ended(reason: str) -> None:
    def asked() -> Any:
        return client_of(response(answer('["tea"', stop_reason=reason))).messages

    async def streamed() -> None:
        async with asked().stream(**ASK, output_format=ORDER) as stream:
            _ = (await stream.get_final_message()).parsed_output

    async def looped() -> None:
        runner: ToolRunner[Any] = asked().tool_runner(**ASK, output_format=ORDER)
        _ = (await runner.until_done()).parsed_output

    for work in (asked().parse(**ASK, output_format=ORDER), streamed(), looped()):
        with pytest.raises(OutputFormatError) as caught:
            run(work)
        assert caught.value.ending is not None
        assert (caught.value.ending.kind, caught.value.ending.stop_reason) == ("complete", reason)


def test_the_last_answer_of_a_tool_loop_has_the_type_of_its_format() -> None:
    async def asked() -> None:
        messages = client_of(response(answer('["tea"]'))).messages
        runner = messages.tool_runner(model="m", max_tokens=9, messages=ASK["messages"], output_format=list[str])
        message = await runner.until_done()
        assert_type(message.parsed_output, list[str] | None)
        assert message.parsed_output == ["tea"]

    run(asked())


def test_create_gives_a_plain_message() -> None:
    assert type(run(client_of(response(answer(JSON))).messages.create(**ASK))) is Message


def test_tokens_are_counted_with_the_format() -> None:
    connection = FakeStream([plain(b'{"input_tokens": 12}')])
    run(client_of(connection).messages.count_tokens(model="m", messages=[], output_format=ORDER))
    assert Sent(connection.written).json["output_config"]["format"]["schema"] == ORDER_SCHEMA


def test_a_type_that_cannot_be_asked_for_is_refused_before_anything_is_sent() -> None:
    connection = FakeStream([])
    with pytest.raises(ConfigurationError, match="output_format must be a type"):
        client_of(connection).messages.stream(**ASK, output_format={"type": "json_schema"})  # type: ignore[arg-type]
    assert connection.written == b""


# --- Whatever goes wrong while a text is read ---------------------------------------------------------------------------


DIGITS = "9" * 401


@pytest.mark.parametrize(
    ("type", "text"),
    [
        (float, DIGITS),
        (float, f"-{DIGITS}"),
        (list[float], f"[1, {DIGITS}]"),
        (dict[str, float], f'{{"a": {DIGITS}}}'),
        (float | None, DIGITS),
        (float, "9" * 5000),
        (int, "9" * 5000),
        (float, "1e999"),
    ],
    ids=str,
)
def test_a_text_that_no_value_can_be_made_of_does_not_fit(type: Any, text: str) -> None:
    with pytest.raises(OutputFormatError, match="the text of the answer does not fit") as caught:
        OutputFormat(type).read(text)
    assert caught.value.text == text


def test_a_number_that_is_too_large_says_where_it_is() -> None:
    with pytest.raises(OutputFormatError, match=r"output\[0\]: int too large to convert to float"):
        OutputFormat(list[float]).read(f"[{DIGITS}]")


def test_a_whole_number_may_have_as_many_digits_as_it_likes() -> None:
    assert OutputFormat(int).read(DIGITS) == int(DIGITS)


def test_parse_raises_it_with_the_message() -> None:
    wire = response([start(), *block(0, {"type": "text", "text": DIGITS}), end(), {"type": "message_stop"}])
    with pytest.raises(OutputFormatError) as caught:
        run(client_of(wire).messages.parse(**ASK, output_format=float))
    assert caught.value.partial is not None
    assert caught.value.partial.text == DIGITS
