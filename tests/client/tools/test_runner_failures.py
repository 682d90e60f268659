"""rawsse.client.tools.runner: cuts and failures. A turn is whole, or it did not happen; a call that was cut is never run."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.answers import SSE_HEAD, answer, chunked, client_of
from support.asking import Script, calling, check_history, saying
from support.clock import run, ticks
from support.sampling import one_in
from support.streams import Raw

from rawsse.client.client import AsyncClient
from rawsse.client.retry import Timeouts
from rawsse.client.stream import MessageStream
from rawsse.client.tools.runner import ToolRunner
from rawsse.client.tools.tool import Tool, tool
from rawsse.errors import APIError, OverloadedError, TotalTimeoutError
from rawsse.messages import Message
from rawsse.replay import ReplayServer, shipped_fixtures
from rawsse.replay.fakes import FakeStream
from rawsse.sse import Decoder

QUESTION = {"role": "user", "content": "?"}
ASK: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [QUESTION]}

TWO_TURNS = [calling(("weather", '{"city": "Oslo"}'), ("weather", '{"city": "Rome"}'), text="Hm."), saying("Cold.")]
# After the event with the stop reason (the last but one) only the tail is missing, and the answer is whole.
POINTS = [(turn, count) for turn in (0, 1) for count in range(len(TWO_TURNS[turn]) - 1)]
FAILURE = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


class Log:
    """The inputs that tools were run with."""

    def __init__(self) -> None:
        self.inputs: list[dict[str, Any]] = []

    @property
    def tools(self) -> list[Tool[..., Any]]:
        async def note(**given: Any) -> str:
            self.inputs.append(given)
            return "noted"

        names = ("weather", "get_weather", "get_time", "roll_dice", "save_note", "write_file")
        return [tool(note, name=name) for name in names]


def cut(events: list[Raw]) -> FakeStream:
    """The connection breaks after these events."""
    return FakeStream([answer(events).removesuffix(b"0\r\n\r\n")])


def failing(events: list[Raw]) -> FakeStream:
    """The API fails after these events."""
    return FakeStream([answer([*events, FAILURE])])


async def fail_and_go_on(script: Script, log: Log) -> ToolRunner[Message]:
    """Run until it fails, look at what is left, and go on."""
    runner: ToolRunner[Message] = ToolRunner(script, **ASK, tools=log.tools)
    with pytest.raises(APIError):
        await runner.until_done()
    await ticks(3)
    check_history(runner.messages)
    assert runner.stopped_by is None
    assert not runner.usage.exact
    await runner.until_done()
    return runner


@pytest.mark.parametrize("break_after", [cut, failing])
@pytest.mark.parametrize(("turn", "count"), POINTS, ids=str)
def test_after_a_failure_at_any_event_the_history_is_whole_and_the_turn_can_be_asked_again(
    turn: int, count: int, break_after: Any
) -> None:
    log = Log()
    broken = break_after(TWO_TURNS[turn][:count])
    script = Script(*TWO_TURNS[:turn], broken, *TWO_TURNS[turn:])
    runner = run(fail_and_go_on(script, log))
    assert runner.stopped_by == "end_turn"
    assert [message["role"] for message in runner.messages] == ["user", "assistant", "user", "assistant"]
    assert log.inputs == [{"city": "Oslo"}, {"city": "Rome"}]
    assert script.requests[-1]["messages"] == runner.messages[:3]


def test_an_answer_whose_tail_alone_is_missing_is_whole() -> None:
    log = Log()
    runner: ToolRunner[Message] = ToolRunner(
        Script(cut(TWO_TURNS[0][:-1]), cut(TWO_TURNS[1][:-1])), **ASK, tools=log.tools
    )
    run(runner.until_done())
    assert runner.stopped_by == "end_turn"
    assert len(log.inputs) == 2


def test_a_request_that_is_refused_costs_nothing_and_leaves_the_history_as_it_was() -> None:
    async def story() -> ToolRunner[Message]:
        body = json.dumps(FAILURE).encode()
        refused = b"HTTP/1.1 529 Overloaded\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        runner: ToolRunner[Message] = ToolRunner(Script(FakeStream([refused + body]), saying("Hello.")), **ASK)
        with pytest.raises(OverloadedError):
            await runner.until_done()
        assert runner.messages == [QUESTION]
        await runner.until_done()
        return runner

    runner = run(story())
    assert (runner.usage.exact, len(runner.usage.turns)) == (True, 1)


def test_what_came_of_a_failed_turn_is_known_until_the_next_begins() -> None:
    async def story() -> list[Any]:
        runner: ToolRunner[Message] = ToolRunner(Script(cut(TWO_TURNS[1][:3]), FakeStream([]), saying("Hello.")), **ASK)
        found: list[Any] = [runner.partial]
        for _ in range(2):
            with pytest.raises(APIError):
                await runner.until_done()
            found.append(runner.partial and runner.partial.text)
        await runner.until_done()
        return [*found, runner.partial]

    assert run(story()) == [None, "Cold.", None, None]


@pytest.mark.parametrize("text", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["nothing", "half a head"])
def test_a_request_whose_answer_never_came_may_have_cost_something(text: bytes) -> None:
    async def story() -> ToolRunner[Message]:
        runner: ToolRunner[Message] = ToolRunner(Script(FakeStream([text] if text else [])), **ASK)
        with pytest.raises(APIError):
            await runner.until_done()
        return runner

    usage = run(story()).usage
    assert (usage.exact, usage.turns) == (False, ())


def seen(runner: ToolRunner[Any]) -> Any:
    return [turn.output_tokens for turn in runner.usage.turns], runner.usage.exact, bool(runner.partial)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (FakeStream([answer(TWO_TURNS[1])]), ([7], True, False)),
        (failing(TWO_TURNS[1][:3]), ([1], False, True)),
        (cut(TWO_TURNS[1][:3]), ([1], False, True)),
        (cut([]), ([], False, False)),
    ],
    ids=["whole", "failed", "cut", "cut before it began"],
)
def test_a_stream_that_has_ended_counts_at_once_and_once(peer: FakeStream, expected: Any) -> None:
    async def story() -> list[Any]:
        async with ToolRunner[MessageStream](Script(peer), **ASK, stream=True) as runner:
            async for stream in runner:
                found = [seen(runner)]
                with suppress(APIError):
                    await stream.until_done()
                found.append(seen(runner))
                with suppress(APIError, StopAsyncIteration):
                    await anext(runner)
                return [*found, seen(runner)]
        raise AssertionError("no answer")

    assert run(story()) == [([], True, False), expected, expected]


def test_a_stream_that_the_caller_closes_counts_at_once() -> None:
    async def story() -> list[Any]:
        async with ToolRunner[MessageStream](Script(TWO_TURNS[1]), **ASK, stream=True) as runner:
            stream = await anext(runner)
            await anext(stream.text_stream)
            await stream.close()
            found = [seen(runner)]
        return [*found, seen(runner)]

    assert run(story()) == [([1], False, True)] * 2


@pytest.mark.parametrize(("seconds", "stopped_by"), [(5, "end_turn"), (2, None)])
def test_the_total_clock_runs_for_each_answer(seconds: float, stopped_by: str | None) -> None:
    async def story() -> ToolRunner[Message]:
        client = client_of(*(FakeStream([3, answer(turn)]) for turn in TWO_TURNS), timeouts=Timeouts(total=seconds))
        runner = client.messages.tool_runner(**ASK, tools=Log().tools)
        with suppress(TotalTimeoutError):
            await runner.until_done()
        return runner

    assert run(story()).stopped_by == stopped_by


def test_the_timeout_of_asyncio_bounds_the_whole_loop() -> None:
    async def story() -> ToolRunner[Message]:
        client = client_of(*(FakeStream([3, answer(turn)]) for turn in TWO_TURNS))
        runner = client.messages.tool_runner(**ASK, tools=Log().tools)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await runner.until_done()
        return runner

    assert len(run(story()).messages) == 3  # the first answer and its results


@pytest.mark.parametrize(("tool_seconds", "seconds"), [(0, 5), (1.5, 5)])
def test_the_next_answer_may_get_the_time_that_is_left(tool_seconds: float, seconds: float) -> None:
    @tool
    async def weather(city: str) -> str:
        """The weather in a city."""
        await asyncio.sleep(tool_seconds)
        return f"rain in {city}"

    async def story() -> float:
        client, now = client_of(*(FakeStream([3, answer(turn)]) for turn in TWO_TURNS)), asyncio.get_running_loop().time
        runner, begun = client.messages.tool_runner(**ASK, tools=[weather]), now()

        def with_what_is_left(params: dict[str, Any]) -> dict[str, Any]:
            return {**params, "timeouts": Timeouts(total=begun + 5 - now())}

        async def ask() -> None:
            async for _ in runner:  # as the docstring of `ToolRunner` has it
                await runner.generate_tool_call_response()
                runner.set_messages_params(with_what_is_left)

        with pytest.raises(TotalTimeoutError):
            await ask()
        return now() - begun

    assert run(story()) == pytest.approx(seconds, abs=0.01)


# --- Real recordings -----------------------------------------------------------------------------------------------


@cache
def whole_inputs(name: str) -> list[dict[str, Any]]:
    """The inputs of a fixture's calls, by the message that its author wrote beside it."""
    path = Path(__file__).parents[3] / "fixtures" / f"{name}.json"
    message = json.loads(path.read_text(encoding="utf-8"))["message"]
    return [block["input"] for block in message["content"] if block["type"] == "tool_use"]


def places(name: str) -> list[int]:
    """Where to cut a fixture: around and inside events; with RAWSSE_EVERY_CUT=1 after every byte."""
    body = shipped_fixtures()[name].body
    if one_in(3) == 1:
        return list(range(len(body)))
    ends = [index + 2 for index in range(len(body)) if body.startswith(b"\n\n", index)]
    places = sorted({place for end in ends for place in (end - 20, end - 1, end, end + 30) if place < len(body)})
    return places[::3]


async def run_cut(body: bytes) -> tuple[list[Any], ToolRunner[Message], APIError | None]:
    """What the tools of an answer were run with whose connection broke after this much of its body."""
    log = Log()
    script = Script(FakeStream([SSE_HEAD + chunked(body).removesuffix(b"0\r\n\r\n")]))
    runner: ToolRunner[Message] = ToolRunner(script, **ASK, tools=log.tools, max_turns=1)
    try:
        await runner.until_done()
    except APIError as exc:
        return log.inputs, runner, exc
    return log.inputs, runner, None


@pytest.mark.parametrize("name", ["tools", "parallel-tools", "empty-tool-input", "max-tokens"])
def test_wherever_an_answer_is_cut_no_tool_runs_before_it_is_whole(name: str) -> None:
    body = shipped_fixtures()[name].body
    whole = whole_inputs(name) if name != "max-tokens" else []

    async def story() -> None:
        for place in places(name):
            has_reason = any(event.event == "message_delta" for event in Decoder().feed(body[:place]))
            inputs, runner, error = await run_cut(body[:place])
            check_history(runner.messages)
            assert (error is None) is has_reason, place
            assert inputs == (whole if has_reason else []), place

    run(story())


def test_a_recorded_exchange_with_parallel_tools_goes_through_a_real_connection() -> None:
    async def story() -> tuple[Log, Any, ToolRunner[Message]]:
        log = Log()
        played = [shipped_fixtures()[name] for name in ("parallel-tools", "plain")]
        async with (
            ReplayServer(played, speed=0) as server,
            AsyncClient(base_url=server.base_url, api_key="any") as client,
        ):
            runner: ToolRunner[Message] = ToolRunner(client.messages, **ASK, tools=log.tools)
            await runner.until_done()
            return log, server.requests[1].body, runner

    log, body, runner = run(story())
    assert log.inputs == whole_inputs("parallel-tools")
    assert body["messages"] == runner.messages[:3]
    assert [block["tool_use_id"] for block in body["messages"][2]["content"]] == [
        "toolu_01wyQ6wfNjRZGCGXJ6uxcvL1",
        "toolu_01KdnyLwqZDTUfKUVBFLHut3",
        "toolu_0163WhJabiXmNAkD5TDhhVJC",
        "toolu_01PUpeMhcDzM7v4nFJqegxG8",
    ]


def test_the_shipped_pair_is_a_whole_tool_loop_whose_second_request_is_as_recorded() -> None:
    recorded = shipped_fixtures()
    result = "rain in Bergen, Norway, 11 degrees celsius"
    get_weather = tool(lambda **given: result, name="get_weather", input_schema={"type": "object"})

    async def story() -> Any:
        async with (
            ReplayServer([recorded["tools"], recorded["tools-answer"]], speed=0) as server,
            AsyncClient(base_url=server.base_url, api_key="any") as client,
        ):
            question = {"role": "user", "content": "Do I need an umbrella in Bergen?"}
            fields: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [question]}
            message = await client.messages.tool_runner(tools=[get_weather], **fields).until_done()
            return message.text, server.requests[1].body["messages"]

    text, messages = run(story())
    assert text == "Yes, take one: it rains in Bergen, at 11 degrees."
    request = recorded["tools-answer"].request
    assert request is not None
    assert messages == request.body["messages"]
