"""rawsse.client.tools.runner: cuts and failures. A turn is whole, or it did not happen; a call that was cut is never run."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import suppress
from functools import cache
from inspect import isawaitable
from pathlib import Path
from typing import Any, cast

import pytest
from support.answers import SSE_HEAD, answer, chunked, client_of
from support.asking import Script, calling, check_history, saying
from support.clock import run, ticks
from support.sampling import one_in
from support.streams import Raw

from rawsse.client.blocking import Client
from rawsse.client.client import AsyncClient
from rawsse.client.retry import Timeouts
from rawsse.client.stream import MessageStream
from rawsse.client.tools.runner import ToolRunner
from rawsse.client.tools.tool import Tool, tool
from rawsse.errors import APIError, ConfigurationError, OverloadedError, RateLimitError, TotalTimeoutError
from rawsse.messages import Message
from rawsse.replay import FakeNetwork, ReplayServer, recording_of, shipped_fixtures, tool_use
from rawsse.replay import answer as composed
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


# --- max_seconds ---------------------------------------------------------------------------------------------------

SLOW: list[list[Any]] = [[3, answer(turn)] for turn in TWO_TURNS]
HALF = answer(TWO_TURNS[1][:3]).removesuffix(b"0\r\n\r\n")
TOO_LONG = r"^the tool loop took longer than max_seconds \(5 s\)$"
WHILE_TOOLS_RAN = r"^the tool loop took longer than max_seconds \(5 s\) while its tools ran: weather$"


def refused(status: str, *fields: str) -> list[Any]:
    body = json.dumps(FAILURE).encode()
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", *fields, "", ""]
    return ["\r\n".join(lines).encode() + body]


def messages_of(*peers: list[Any], **options: Any) -> Any:
    return client_of(*map(FakeStream, peers), **options).messages


async def until_it_is_over(
    runner: ToolRunner[Any], expected: type[BaseException] = TotalTimeoutError, match: str = TOO_LONG
) -> float:
    """How many seconds it took until the error came."""
    begun = asyncio.get_running_loop().time()
    with pytest.raises(expected, match=match) as caught:
        await runner.until_done()
    if isinstance(caught.value, APIError) and caught.value.ending is not None:
        assert caught.value.phase == caught.value.ending.phase
    return asyncio.get_running_loop().time() - begun


def waiting(seconds: float) -> Tool[..., Any]:
    @tool
    async def weather(city: str) -> str:
        """The weather in a city."""
        await asyncio.sleep(seconds)
        return f"rain in {city}"

    return weather


@pytest.mark.parametrize(
    ("peers", "tool_seconds", "turns"),
    [
        ([[9, answer(TWO_TURNS[0])]], 0, 1),
        (SLOW, 0, 3),
        ([[answer(TWO_TURNS[0])], [3, HALF, 9]], 0, 3),
        (SLOW, 1.5, 3),
        (SLOW, 9, 1),
    ],
    ids=["first answer", "second answer", "in the answer", "after tools", "tools"],
)
@pytest.mark.parametrize("total", [None, 9])
def test_max_seconds_bounds_the_loop_wherever_it_is(
    peers: list[list[Any]], tool_seconds: float, turns: int, total: float | None
) -> None:
    async def story() -> None:
        messages = messages_of(*peers, timeouts=Timeouts(total=total))
        runner = messages.tool_runner(**ASK, tools=[waiting(tool_seconds)], max_seconds=5)
        words = TOO_LONG if tool_seconds < 5 else WHILE_TOOLS_RAN
        assert await until_it_is_over(runner, match=words) == pytest.approx(5, abs=0.01)
        assert len(runner.messages) == turns
        check_history(runner.messages)
        assert await until_it_is_over(runner) == 0  # and nothing is sent

    run(story())


def test_an_error_of_max_seconds_names_the_tools_that_ran_each_once() -> None:
    async def story() -> None:
        calls = composed(*(tool_use(name, {"city": "Oslo"}) for name in ("weather", "look_up", "weather")))
        look_up = tool(waiting(9).function, name="look_up")
        network = FakeNetwork(recording_of(calls))
        async with AsyncClient(api_key="k", connect=network) as client:
            runner = client.messages.tool_runner(**ASK, tools=[waiting(9), look_up], max_seconds=5)
            await until_it_is_over(runner, match=r"\(5 s\) while its tools ran: weather, look_up$")

    run(story())


def test_the_total_clock_of_an_answer_may_end_before_max_seconds() -> None:
    async def story() -> None:
        runner = messages_of(*SLOW, timeouts=Timeouts(total=2)).tool_runner(**ASK, max_seconds=5)
        assert await until_it_is_over(runner, match="^the whole call took longer than 2 s$") == 2

    run(story())


def test_what_the_loop_s_body_does_counts_but_no_tool_starts_after_that() -> None:
    async def story() -> None:
        log = Log()
        runner = messages_of(*SLOW).tool_runner(**ASK, tools=log.tools, max_seconds=5)
        await anext(runner)
        await asyncio.sleep(3)
        with pytest.raises(TotalTimeoutError, match=TOO_LONG) as caught:
            await anext(runner)
        assert caught.value.seconds == 5
        assert caught.value.ending is not None
        assert caught.value.ending[:4] == ("timeout", str(caught.value), "done", "tool_use")
        assert (log.inputs, runner.messages) == ([], [QUESTION])

    run(story())


def test_a_retry_that_would_come_after_max_seconds_is_not_waited_for() -> None:
    async def story() -> None:
        messages = messages_of(SLOW[0], refused("429 Too Many Requests", "retry-after: 30"), max_retries=1)
        runner = messages.tool_runner(**ASK, tools=Log().tools, max_seconds=5)
        words = r"the server asks to wait 30 s; the max_seconds of 5 s ends before that"
        assert await until_it_is_over(runner, RateLimitError, words) == 3
        assert len(runner.messages) == 3

    run(story())


def test_retries_do_not_get_more_time() -> None:
    async def story() -> None:
        messages = messages_of(refused("529 Overloaded", "retry-after: 4"), [9, answer(TWO_TURNS[1])], max_retries=1)
        assert await until_it_is_over(messages.tool_runner(**ASK, max_seconds=5)) == pytest.approx(5)

    run(story())


def test_messages_that_are_appended_begin_a_new_loop() -> None:
    async def story() -> Any:
        runner = messages_of(*SLOW, SLOW[1]).tool_runner(**ASK, tools=Log().tools, max_seconds=5)
        await until_it_is_over(runner)
        runner.append_messages({"role": "user", "content": "!"})
        await runner.until_done()
        return runner.stopped_by

    assert run(story()) == "end_turn"


@pytest.mark.parametrize("seconds", [0, -1, "5", True, float("nan")])
def test_max_seconds_is_a_number_above_zero(seconds: Any) -> None:
    with pytest.raises(
        ConfigurationError, match="the tool loop: max_seconds must be a number of seconds above 0, or None"
    ):
        client_of().messages.tool_runner(**ASK, max_seconds=seconds)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_function_that_blocks_is_not_waited_for_after_max_seconds(kind: Any, count: int) -> None:
    never = threading.Event()

    @tool
    def weather(number: int) -> None:
        """The weather."""
        never.wait(30)

    async def story() -> ToolRunner[Message]:
        calls = recording_of(composed(*(tool_use("weather", {"number": number}) for number in range(count))))
        runner = kind(api_key="k", connect=FakeNetwork(calls)).messages.tool_runner(
            **ASK, tools=[weather], max_seconds=0.1
        )
        with pytest.raises(TotalTimeoutError, match=r"max_seconds \(0.1 s\)"):
            await done if isawaitable(done := runner.until_done()) else None
        return cast(ToolRunner[Message], runner)

    try:
        assert asyncio.run(story()).messages == [QUESTION]
    finally:
        never.set()


def test_a_blocking_loop_ends_in_the_middle_of_an_answer_that_is_too_slow() -> None:
    with (
        ReplayServer(
            [shipped_fixtures()["tools"], shipped_fixtures()["plain"]], speed=0, faults=["stall=30@event=3 after=1"]
        ) as server,
        Client(base_url=server.base_url, api_key="any") as client,
    ):
        get_weather = tool(lambda **given: "rain", name="get_weather", input_schema={"type": "object"})
        runner = client.messages.tool_runner(**ASK, tools=[get_weather], max_seconds=0.5)
        with pytest.raises(TotalTimeoutError, match=r"max_seconds \(0.5 s\)"):
            runner.until_done()
        assert len(runner.messages) == 3


# --- What it cost --------------------------------------------------------------------------------------------------

REFUSED = refused("429 Too Many Requests", "retry-after: 30")


async def never_connects(route: Any, tls: Any) -> FakeStream:
    await asyncio.sleep(60)
    raise AssertionError


@pytest.mark.parametrize(
    ("options", "peers", "is_exact"),
    [
        ({}, [REFUSED], True),
        ({"connect": never_connects}, [], True),
        ({}, [[60]], False),
        ({}, [[b"HTTP/1.1 200 OK\r\n\r\n", 60]], False),
        ({"timeouts": Timeouts(head=4)}, [[60], REFUSED], False),
    ],
    ids=["refused", "not connected", "sent", "begun", "sent, then refused"],
)
@pytest.mark.parametrize("way", ["cancel", "close"])
def test_what_is_stopped_before_an_answer_began_has_cost_nothing_if_it_was_refused_or_never_sent(
    options: dict[str, Any], peers: list[list[Any]], is_exact: bool, way: str
) -> None:
    async def story() -> None:
        runner = messages_of(*peers, max_retries=2, **options).tool_runner(**ASK)
        task = asyncio.create_task(runner.until_done())
        await asyncio.sleep(20)
        await runner.close() if way == "close" else task.cancel()
        with pytest.raises((APIError, asyncio.CancelledError)):
            await task
        assert (runner.usage.exact, runner.usage.turns) == (is_exact, ())

    run(story())


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
