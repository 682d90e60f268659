"""rawsse.client.resources: which arguments a call takes, and what it sends and gives."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest
from support.answers import ASK, Connections, Sent, answer, client_of, plain
from support.clock import run
from support.pools import counts
from support.streams import ANSWER, STOP, block, end, start

from rawsse.client.client import AsyncClient
from rawsse.client.resources import AsyncMessages, ModelInfo
from rawsse.client.retry import Timeouts
from rawsse.client.stream import EventStream, MessageStream
from rawsse.errors import (
    APIError,
    ConfigurationError,
    HeadTimeoutError,
    NotFoundError,
    OverloadedError,
    SilenceTimeoutError,
)
from rawsse.messages import Message
from rawsse.replay.fakes import FakeStream

MODEL = {"type": "model", "id": "claude-sonnet-5", "display_name": "Sonnet 5", "created_at": "2026-02-01T00:00:00Z"}
QUESTION: dict[str, Any] = {"model": "m", "messages": ASK["messages"]}
LATER = plain(b"{}", "529 Later", connection="close")

Use = Callable[..., Any]


def page(*ids: str, more: bool = False) -> bytes:
    data = [{**MODEL, "id": id} for id in ids]
    return plain(json.dumps({"data": data, "has_more": more, "first_id": ids[0], "last_id": ids[-1]}).encode())


async def create(client: AsyncClient, **options: Any) -> Any:
    return await client.messages.create(**ASK, **options)


async def create_events(client: AsyncClient, **options: Any) -> Any:
    events = await client.messages.create(**ASK, stream=True, **options)
    return [event async for event in events]


async def stream(client: AsyncClient, **options: Any) -> Any:
    async with client.messages.stream(**ASK, **options) as opened:
        return await opened.get_final_message()


async def count(client: AsyncClient, **options: Any) -> Any:
    return await client.messages.count_tokens(**QUESTION, **options)


async def models(client: AsyncClient, **options: Any) -> Any:
    return await client.models.list(**options)


async def model(client: AsyncClient, **options: Any) -> Any:
    return await client.models.retrieve("a/b", **options)


# Each call, what answers it, and the first line of its request.
CALLS: list[tuple[Use, bytes, str]] = [
    (create, answer(ANSWER), "POST /v1/messages HTTP/1.1"),
    (create_events, answer(ANSWER), "POST /v1/messages HTTP/1.1"),
    (stream, answer(ANSWER), "POST /v1/messages HTTP/1.1"),
    (count, plain(b'{"input_tokens": 7}'), "POST /v1/messages/count_tokens HTTP/1.1"),
    (models, page("a"), "GET /v1/models HTTP/1.1"),
    (model, plain(json.dumps(MODEL).encode()), "GET /v1/models/a%2Fb HTTP/1.1"),
]
each_call = pytest.mark.parametrize(("use", "wire", "line"), CALLS, ids=[use.__name__ for use, _, _ in CALLS])


# --- What every call takes -----------------------------------------------------------------------------------------


@each_call
def test_a_call_goes_to_its_path(use: Use, wire: bytes, line: str) -> None:
    connection = FakeStream([wire])
    run(use(client_of(connection)))
    assert Sent(connection.written).line == line


@each_call
def test_a_call_takes_fields_of_the_header_and_betas(use: Use, wire: bytes, line: str) -> None:
    del line
    connection = FakeStream([wire])
    run(use(client_of(connection), extra_headers={"X-Team": "a"}, betas=["b-1", "b-2"]))
    request = Sent(connection.written)
    assert (request["x-team"], request["anthropic-beta"]) == ("a", "b-1,b-2")


@each_call
def test_a_call_takes_parameters_of_the_query(use: Use, wire: bytes, line: str) -> None:
    connection = FakeStream([wire])
    run(use(client_of(connection), extra_query={"beta": True}))
    assert Sent(connection.written).line == line.replace(" HTTP", "?beta=true HTTP")


@each_call
@pytest.mark.parametrize("options", [{"timeouts": Timeouts(head=2)}, {"timeout": 2}, {"timeout": Timeouts(head=2)}])
def test_a_call_takes_clocks_of_its_own(use: Use, wire: bytes, line: str, options: dict[str, Any]) -> None:
    del wire, line
    with pytest.raises(HeadTimeoutError, match="no response head within 2 s of the request"):
        run(use(client_of(FakeStream(end=None)), **options))


@each_call
def test_a_call_takes_a_number_of_retries_of_its_own(use: Use, wire: bytes, line: str) -> None:
    del line
    run(use(client_of(LATER, wire, max_retries=0), max_retries=1))
    with pytest.raises(OverloadedError) as caught:
        run(use(client_of(LATER, wire, max_retries=5), max_retries=0))
    assert caught.value.retries_taken == 0


@each_call
def test_a_call_is_tried_again_as_often_as_the_client_says(use: Use, wire: bytes, line: str) -> None:
    del line
    run(use(client_of(LATER, LATER, wire, max_retries=2)))


@each_call
def test_a_refusal_is_raised_and_says_how_often_it_was_tried(use: Use, wire: bytes, line: str) -> None:
    del wire, line
    with pytest.raises(APIError) as caught:
        run(use(client_of(LATER, LATER, max_retries=1)))
    assert caught.value.retries_taken == 1


@each_call
def test_a_call_leaves_its_connection_at_rest(use: Use, wire: bytes, line: str) -> None:
    async def story() -> tuple[int, int, int]:
        network = Connections(FakeStream([None, wire, None, wire], end=None))
        client = client_of(connect=network)
        await use(client)
        await use(client)
        return *counts(client._pools)[:2], len(network.origins)

    del line
    assert run(story()) == (1, 1, 1)


@each_call
def test_clocks_and_a_number_of_retries_that_cannot_work_are_refused_at_once(use: Use, wire: bytes, line: str) -> None:
    del line
    for options, text in (
        ({"timeout": 1, "timeouts": Timeouts()}, "give timeouts or timeout, not both"),
        ({"timeout": "soon"}, "timeout must be a number of seconds above 0, not 'soon'"),
        ({"max_retries": -1}, "max_retries must be a whole number of 0 or more, not -1"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            run(use(client_of(wire), **options))


@each_call
def test_options_of_the_wrong_shape_are_refused_without_being_shown(use: Use, wire: bytes, line: str) -> None:
    del line
    for name in ("extra_headers", "extra_query", "extra_body"):
        for wrong in ("x-api-key: sk-secret", ["sk-secret"], 5):
            with pytest.raises(ConfigurationError, match=f"^{name} must be a Mapping, not (str|list|int)$"):
                run(use(client_of(wire), **{name: wrong}))
    for betas in ("a-beta", 5, {"a": "b"}):
        with pytest.raises(ConfigurationError, match=r"^betas must be a list, not "):
            run(use(client_of(wire), betas=betas))


# --- Messages ------------------------------------------------------------------------------------------------------


def test_a_stream_is_made_without_waiting_and_sends_nothing_before_it_is_entered() -> None:
    connection = FakeStream([answer(ANSWER)])
    opened = client_of(connection).messages.stream(**ASK)
    assert type(opened) is MessageStream
    assert connection.written == b""


def test_a_message_is_asked_for_as_a_stream_and_comes_whole() -> None:
    connection = FakeStream([answer(ANSWER)])
    message = run(create(client_of(connection)))
    assert type(message) is Message
    assert (message.text, message.usage.output_tokens) == ("Hello ☺", 7)
    assert Sent(connection.written).json["stream"] is True


WHOLE: dict[str, Any] = {
    "type": "message",
    "content": [{"type": "text", "text": '{"a": 1}'}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"output_tokens": 1},
}
"""What a server gives that does not stream: a mock, a gateway."""


async def parse(client: AsyncClient, **options: Any) -> Any:
    return await client.messages.parse(**ASK, output_format=dict[str, int], **options)


async def run_tools(client: AsyncClient, **options: Any) -> Any:
    return await client.messages.tool_runner(**ASK, tools=[], **options).until_done()


async def run_tools_one_by_one(client: AsyncClient, **options: Any) -> Any:
    (message,) = [message async for message in client.messages.tool_runner(**ASK, tools=[], **options)]
    return message


async def run_tools_as_streams(client: AsyncClient, **options: Any) -> Any:
    runner = client.messages.tool_runner(**ASK, tools=[], stream=True, **options)
    texts = ["".join([text async for text in stream.text_stream]) async for stream in runner]
    assert texts == ['{"a": 1}']
    return runner.last_message


async def converse(client: AsyncClient, **options: Any) -> Any:
    return await client.conversation(model="m", max_tokens=9, **options).ask("?")


GIVE_MESSAGES = [create, parse, stream, run_tools, run_tools_one_by_one, run_tools_as_streams, converse]


@pytest.mark.parametrize("use", GIVE_MESSAGES)
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("first", [(), (LATER,)], ids=["at once", "after a retry"])
def test_a_whole_message_is_an_answer_to_every_call(use: Use, first: tuple[bytes, ...], kind: str) -> None:
    wire = plain(json.dumps(WHOLE).encode(), content_type=kind)
    message = run(use(client_of(*first, wire, max_retries=1)))
    assert message.raw == WHOLE
    assert message.text == '{"a": 1}'


@pytest.mark.parametrize("use", GIVE_MESSAGES)
def test_a_whole_message_that_is_cut_is_asked_for_again(use: Use) -> None:
    wire = plain(json.dumps(WHOLE).encode(), content_type="application/json")
    assert run(use(client_of(wire[:-9], wire, max_retries=1))).raw == WHOLE


def test_events_of_a_whole_message_are_those_that_a_stream_would_have_brought() -> None:
    wire = plain(json.dumps(WHOLE).encode(), content_type="application/json")

    async def story() -> list[str]:
        return [event.type async for event in await client_of(wire).messages.create(**ASK, stream=True)]

    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert run(story()) == ["message_start", *block, "message_delta", "message_stop"]


@pytest.mark.parametrize("use", [create, parse, run_tools, stream, create_events, count, models, model])
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_an_error_with_status_200_is_of_its_class_for_every_call(use: Use, kind: str) -> None:
    wire = plain(b'{"type":"error","error":{"type":"overloaded_error","message":"No."}}', content_type=kind)
    with pytest.raises(OverloadedError, match=r"No\."):
        run(use(client_of(wire)))


def test_events_can_be_left_at_any_time() -> None:
    async def story() -> None:
        connection = FakeStream([answer(ANSWER)], end=None)
        events = await client_of(connection).messages.create(**ASK, stream=True)
        assert type(events) is EventStream
        await anext(events)
        await events.close()
        assert connection.is_aborted

    run(story())


def test_a_field_named_like_an_argument_goes_into_the_extra_body() -> None:
    connection = FakeStream([plain(b'{"input_tokens": 7}')])
    run(count(client_of(connection), extra_body={"timeout": 5, "model": "other"}))
    assert Sent(connection.written).json == {**QUESTION, "timeout": 5, "model": "other"}


def test_the_clock_of_silence_is_set_by_one_number_too() -> None:
    with pytest.raises(SilenceTimeoutError, match="not a single byte came for 4 s"):
        run(create(client_of(FakeStream([answer(ANSWER)[:-100]], end=None)), timeout=4))


def test_a_body_that_is_given_whole_is_sent_as_it_is_but_streamed() -> None:
    async def story() -> list[str]:
        async with client_of(connection).messages.events({"a": None, "stream": False}, headers={"X-A": "b"}) as events:
            return [event.type async for event in events]

    connection = FakeStream([answer(ANSWER)])
    assert run(story())[-1] == "message_stop"
    request = Sent(connection.written)
    assert (request.json, request["x-a"]) == ({"a": None, "stream": True}, "b")


def test_an_answer_may_be_a_value_of_a_type() -> None:
    connection = FakeStream([answer([start(), *block(0, {"type": "text", "text": "[1]"}), end(), STOP])])
    message = run(client_of(connection).messages.parse(**ASK, output_format=list[int]))
    assert message.parsed_output == [1]
    wanted = Sent(connection.written).json["output_config"]["format"]
    assert wanted == {"type": "json_schema", "schema": {"type": "array", "items": {"type": "integer"}}}


def test_a_tool_runner_asks_through_the_client() -> None:
    connection = FakeStream([answer(ANSWER)])
    runner = client_of(connection).messages.tool_runner(**ASK, tools=[])
    assert run(runner.until_done()).text == "Hello ☺"
    assert Sent(connection.written).line == "POST /v1/messages HTTP/1.1"


def test_raw_responses_are_those_of_the_same_calls() -> None:
    client = client_of(answer(ANSWER), plain(b'{"input_tokens": 7}'))
    assert run(client.messages.with_raw_response.create(**ASK)).parsed.text == "Hello ☺"
    assert run(client.messages.with_raw_response.count_tokens(**QUESTION)).parsed.input_tokens == 7


def test_raw_events_are_still_to_be_read() -> None:
    async def story() -> str | None:
        raw = await client_of(answer(ANSWER)).messages.with_raw_response.create(**ASK, stream=True)
        await raw.parsed.close()
        return raw.parsed.ending.kind if raw.parsed.ending else None

    assert run(story()) == "cancelled"


@pytest.mark.parametrize("missing", ["model", "max_tokens", "messages"])
def test_what_every_request_needs_is_asked_for(missing: str) -> None:
    arguments = {name: value for name, value in ASK.items() if name != missing}
    with pytest.raises(TypeError, match=f"missing 1 required keyword-only argument: '{missing}'"):
        client_of().messages.stream(**arguments)


def test_the_calls_take_the_same_three_arguments_by_name() -> None:
    for method in (AsyncMessages.stream, AsyncMessages.create, AsyncMessages.parse):
        names = list(inspect.signature(method).parameters)
        assert names[1:4] == ["model", "max_tokens", "messages"]


# --- Models --------------------------------------------------------------------------------------------------------


def test_all_models_are_those_of_all_pages_over_one_connection() -> None:
    async def story() -> list[str]:
        client = client_of(connect=network)
        return [found.id async for found in client.models.list(limit=2, betas=["b"], extra_query={"x": 1})]

    connection = FakeStream([None, page("a", "b", more=True), None, page("c")], end=None)
    network = Connections(connection)
    assert run(story()) == ["a", "b", "c"]
    requests = [Sent(b"GET " + each) for each in bytes(connection.written).split(b"GET ")[1:]]
    assert [request.line for request in requests] == [
        "GET /v1/models?x=1&limit=2 HTTP/1.1",
        "GET /v1/models?x=1&limit=2&after_id=b HTTP/1.1",
    ]
    assert [request["anthropic-beta"] for request in requests] == ["b", "b"]


def test_a_single_stage_may_be_given_without_a_list() -> None:
    connection = FakeStream([page("a")])
    run(models(client_of(connection), lifecycle="active"))
    assert Sent(connection.written).line == "GET /v1/models?lifecycle%5B%5D=active HTTP/1.1"


def test_models_are_chosen_by_id_and_stage() -> None:
    connection = FakeStream([page("a")])
    run(models(client_of(connection), before_id="b", lifecycle=["active", "deprecated"]))
    line = "GET /v1/models?before_id=b&lifecycle%5B%5D=active&lifecycle%5B%5D=deprecated HTTP/1.1"
    assert Sent(connection.written).line == line


def test_a_page_that_fails_is_tried_again() -> None:
    async def story() -> list[str]:
        client = client_of(page("a", more=True), LATER, page("b"), max_retries=1)
        return [found.id async for found in client.models.list()]

    assert run(story()) == ["a", "b"]


def test_one_model_is_retrieved() -> None:
    found = run(model(client_of(plain(json.dumps(MODEL).encode()))))
    assert type(found) is ModelInfo
    assert (found.id, found.display_name) == ("claude-sonnet-5", "Sonnet 5")


def test_a_model_that_there_is_not_is_not_found() -> None:
    body = b'{"error": {"type": "not_found_error", "message": "model: x"}}'
    with pytest.raises(NotFoundError, match="404 not_found_error: model: x"):
        run(model(client_of(plain(body, "404 Not Found"))))


@pytest.mark.parametrize("call", ["stream", "tool_runner"])
def test_awaiting_a_call_that_is_not_to_be_awaited_is_an_error_that_names_it(call: str) -> None:
    async def story() -> None:
        async with client_of() as client:
            await getattr(client.messages, call)(**ASK)

    with pytest.raises(TypeError, match=r"\b(MessageStream|ToolRunner)\b.* 'await' expression"):
        run(story())


# --- Beta ----------------------------------------------------------------------------------------------------------


def test_beta_has_the_same_calls() -> None:
    client = client_of(answer(ANSWER))
    assert client.beta.messages is client.messages
    assert client.beta.models is client.models
    assert run(client.beta.messages.create(**ASK, betas=["b"])).text == "Hello ☺"


def test_models_have_raw_responses_too() -> None:
    async def story() -> None:
        first = plain(json.dumps({"data": [MODEL], "has_more": True, "last_id": "a"}).encode(), request_id="req_1")
        second = plain(json.dumps({"data": [{**MODEL, "id": "b"}], "has_more": False, "last_id": "b"}).encode())
        one = plain(json.dumps(MODEL).encode(), request_id="req_3")
        client = client_of(first, second, one)
        listed = await client.models.with_raw_response.list(limit=1)
        page = await listed.parse()
        assert (listed.status_code, listed.request_id) == (200, "req_1")
        assert [model.id async for model in page] == [MODEL["id"], "b"]
        found = await client.models.with_raw_response.retrieve("x")
        assert (found.request_id, (await found.parse()).id) == ("req_3", MODEL["id"])

    run(story())
