"""The official Python SDK against the relay, and against the player alone: whoever uses it changes its base URL only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from support.background import PATIENCE, Background

from rawsse.replay import Recording
from rawsse.sse import Decoder

from .conftest import Start
from .stack import COMPLETE, Stack, message, recorded, refusal, text

anthropic = pytest.importorskip("anthropic", reason="the official SDK: the extra `interop`")

pytestmark = pytest.mark.real

REQUEST: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 1024,
    "messages": [{"role": "user", "content": "Hello"}],
}
WEATHER = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}}}


@pytest.fixture(params=["relay", "player"])
def sdk(request: pytest.FixtureRequest, start: Start) -> Iterator[Any]:
    """Make a client of the SDK for a relay, or a player, with these recordings; `client.stack` is what it talks to."""
    clients: list[Any] = []

    def make(*recordings: Recording, **options: Any) -> Any:
        stack = start(*recordings, **options)
        url = stack.base_url if request.param == "relay" else stack.upstream_url
        clients.append(anthropic.Anthropic(base_url=url, api_key="sk-of-the-client", max_retries=0))
        clients[-1].stack = stack
        return clients[-1]

    yield make
    for client in clients:
        client.close()


# --- Answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPLETE)
def test_a_stream_becomes_the_message(name: str, sdk: Any) -> None:
    with sdk(recorded(name)).messages.stream(**REQUEST) as stream:
        assert stream.get_final_message().to_dict(mode="json") == message(name)


@pytest.mark.parametrize("name", COMPLETE)
def test_a_beta_stream_becomes_the_message(name: str, sdk: Any) -> None:
    with sdk(recorded(name)).beta.messages.stream(**REQUEST, betas=["some-beta-2026-01-01"]) as stream:
        final = stream.get_final_message().to_dict(mode="json")
    assert {key: final[key] for key in message(name)} == message(name)


@pytest.mark.parametrize("name", COMPLETE)
def test_a_call_without_stream_gives_the_message(name: str, sdk: Any) -> None:
    assert sdk(recorded(name)).messages.create(**REQUEST).to_dict(mode="json") == message(name)


@pytest.mark.parametrize("name", COMPLETE)
def test_the_events_come_as_they_were_sent(name: str, sdk: Any) -> None:
    sent = [event.event for event in Decoder().feed(recorded(name).body)]
    events = sdk(recorded(name)).messages.create(**REQUEST, stream=True)
    assert [event.type for event in events] == [
        kind for kind in sent if kind != "ping"
    ]  # which the SDK keeps to itself


def test_the_text_comes_piece_by_piece_and_whole_characters(sdk: Any) -> None:
    with sdk(recorded("unicode"), split=7).messages.stream(**REQUEST) as stream:
        assert "".join(stream.text_stream) == text("unicode")


def test_tokens_are_counted(sdk: Any) -> None:
    count = sdk(recorded("plain")).messages.count_tokens(model="m", messages=REQUEST["messages"], system="Be brief.")
    assert count.input_tokens > 0


def test_the_request_goes_on_as_it_is(sdk: Any) -> None:
    client = sdk(recorded("plain"))
    given = {**REQUEST, "tools": [WEATHER], "metadata": {"user_id": "u"}, "system": "Be brief."}
    headers = {"anthropic-beta": "b-1", "anthropic-version": "2024-01-01"}
    with client.messages.stream(**given, extra_headers=headers, extra_body={"new": {"a": 1}}) as stream:
        stream.until_done()
    (request,) = client.stack.requests
    assert request.body == {**given, "stream": True, "new": {"a": 1}}
    assert {name: request.headers[name] for name in headers} == headers


def test_the_request_id_is_that_of_the_api(sdk: Any) -> None:
    with sdk(recorded("plain")).messages.stream(**REQUEST) as stream:
        assert stream.request_id == recorded("plain").headers["request-id"]


def test_one_client_makes_many_calls(sdk: Any) -> None:
    client = sdk(recorded("plain"), recorded("unicode"))
    answers = [client.messages.create(**REQUEST).content[0].text for _ in range(4)]
    assert answers == [text("plain"), text("unicode")] * 2


# --- Tools -----------------------------------------------------------------------------------------------------------


def test_the_tool_runner_runs_its_loop(sdk: Any) -> None:
    client = sdk(recorded("tools"), recorded("plain"))
    calls = []

    @anthropic.beta_tool  # type: ignore[untyped-decorator]
    def get_weather(place: str, unit: str) -> str:
        """The weather at a place."""
        calls.append((place, unit))
        return "rain"

    last = client.beta.messages.tool_runner(**REQUEST, tools=[get_weather]).until_done()
    assert calls == [("Bergen, Norway", "celsius")]
    assert last.content[0].text == text("plain")
    tool_use = message("tools")["content"][1]["id"]
    result = client.stack.requests[-1].body["messages"][-1]["content"][0]
    assert (result["type"], result["tool_use_id"], result["content"]) == ("tool_result", tool_use, "rain")


# --- Failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (401, "authentication_error", "AuthenticationError"),
        (404, "not_found_error", "NotFoundError"),
        (429, "rate_limit_error", "RateLimitError"),
        (529, "overloaded_error", "OverloadedError"),
    ],
)
@pytest.mark.parametrize("is_stream", [True, False])
def test_a_refusal_has_its_own_class_and_words(status: int, kind: str, error: str, is_stream: bool, sdk: Any) -> None:
    client = sdk(refusal(status, kind, "Not today.", retry_after="7", request_id="req_1"))
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(**REQUEST, stream=is_stream)
    assert (type(caught.value).__name__, caught.value.status_code, caught.value.request_id) == (error, status, "req_1")
    assert caught.value.body["error"] == {"type": kind, "message": "Not today."}
    assert caught.value.response.headers["retry-after"] == "7"


def test_a_refused_count_of_tokens_too(sdk: Any) -> None:
    client = sdk(recorded("plain"))
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        client.messages.count_tokens(model="m", messages="none")


def test_an_error_in_the_stream_raises_with_the_apis_words(sdk: Any) -> None:
    pieces = []
    with (
        pytest.raises(anthropic.APIStatusError, match="Internal server error") as caught,
        sdk(recorded("error-after-content")).messages.stream(**REQUEST) as stream,
    ):
        pieces.extend(stream.text_stream)
    assert "".join(pieces) == text("error-after-content")
    assert caught.value.body["error"]["type"] == "api_error"


def test_an_error_before_any_content_raises(sdk: Any) -> None:
    with (
        pytest.raises(anthropic.APIStatusError, match="Overloaded"),
        sdk(recorded("error-before-content")).messages.stream(**REQUEST) as stream,
    ):
        stream.until_done()


def test_behind_the_relay_an_error_before_any_content_has_its_status(start: Start) -> None:
    relay = start(recorded("error-before-content"))
    with (
        anthropic.Anthropic(base_url=relay.base_url, api_key="any", max_retries=0) as client,
        pytest.raises(anthropic.InternalServerError) as caught,
        client.messages.stream(**REQUEST),
    ):
        pass
    assert caught.value.status_code == 529


def test_behind_the_relay_a_cut_stream_is_an_error_and_no_short_answer(start: Start) -> None:
    relay = start(recorded("cut"))
    with (
        anthropic.Anthropic(base_url=relay.base_url, api_key="any", max_retries=0) as client,
        pytest.raises(anthropic.APIStatusError, match="the connection was closed in the middle of the answer"),
        client.messages.stream(**REQUEST) as stream,
    ):
        stream.until_done()


# --- Leaving ---------------------------------------------------------------------------------------------------------


def held(start: Start, background: Background) -> tuple[Stack, Any]:
    """A relay whose upstream holds its answer after the first text."""
    gate = background.gate(free=1)
    return start(recorded("plain"), speed=1, sleep=gate.sleep), gate


def test_leaving_the_stream_cancels_the_call_upstream(start: Start, background: Background) -> None:
    relay, gate = held(start, background)
    with anthropic.Anthropic(base_url=relay.base_url, api_key="any") as client:
        with client.messages.stream(**REQUEST) as stream:
            assert next(stream.text_stream) == "A server-sent event"
        assert gate.left.wait(PATIENCE)


def test_cancelling_the_task_cancels_the_call_upstream(start: Start, background: Background) -> None:
    relay, gate = held(start, background)

    async def ask() -> None:
        client = anthropic.AsyncAnthropic(base_url=relay.base_url, api_key="any")
        async with client, client.messages.stream(**REQUEST) as stream:
            async for _ in stream.text_stream:
                asyncio.current_task().cancel()  # type: ignore[union-attr]

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(ask())
    assert gate.left.wait(PATIENCE)


@pytest.mark.parametrize("name", COMPLETE)
def test_the_client_without_blocking_sees_the_same(name: str, start: Start) -> None:
    relay = start(recorded(name))

    async def ask() -> Any:
        client = anthropic.AsyncAnthropic(base_url=relay.base_url, api_key="any")
        async with client, client.messages.stream(**REQUEST) as stream:
            return (await stream.get_final_message()).to_dict(mode="json")

    assert asyncio.run(ask()) == message(name)
