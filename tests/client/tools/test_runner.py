"""rawsse.client.tools.runner: the tool loop, over scripted answers in virtual time. Every request's history is checked as the
API checks it (`support.asking`). Cuts and failures are tried in `test_runner_failures.py`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.asking import Script, calling, check_history, saying
from support.clock import run
from support.streams import TOOL_CALL

from rawsse.client.stream import MessageStream
from rawsse.client.tools.runner import MAX_TURNS, ToolRunner
from rawsse.client.tools.tool import tool
from rawsse.errors import ConfigurationError, StreamCancelledError, TurnLimitError
from rawsse.messages import Message
from rawsse.replay.fakes import FakeStream

QUESTION = {"role": "user", "content": "What is the weather in Oslo?"}
ASK: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [QUESTION]}
ONE = calling(("weather", '{"city": "Oslo"}'), text="Let me see.")
MAP = {"name": "map", "input_schema": {"type": "object"}}


@tool
async def weather(city: str, days: int = 1) -> str:
    return f"{city}: 4 degrees"


def runner_of(*answers: Any, **options: Any) -> ToolRunner[Message]:
    return ToolRunner(Script(*answers), **{**ASK, "tools": [weather], **options})


def streaming(*answers: Any, **options: Any) -> ToolRunner[MessageStream]:
    return ToolRunner(Script(*answers), stream=True, **{**ASK, "tools": [weather], **options})


def result(content: str, call_id: str = "call_0") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content}


# --- The loop ------------------------------------------------------------------------------------------------------


def test_it_asks_runs_the_tools_and_asks_again_until_the_model_is_done() -> None:
    async def story() -> tuple[list[str], ToolRunner[Message]]:
        runner = runner_of(ONE, saying("It is cold."))
        return [message.text async for message in runner], runner

    texts, runner = run(story())
    assert texts == ["Let me see.", "It is cold."]
    assert runner.stopped_by == "end_turn"
    assert runner.messages == [
        QUESTION,
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "call_0", "name": "weather", "input": {"city": "Oslo"}},
            ],
        },
        {"role": "user", "content": [result("Oslo: 4 degrees")]},
        {"role": "assistant", "content": [{"type": "text", "text": "It is cold."}]},
    ]
    check_history(runner.messages)


def test_each_request_has_the_whole_history_the_tools_and_the_other_fields() -> None:
    script = Script(ONE, saying("Cold."))
    runner: ToolRunner[Message] = ToolRunner(script, **ASK, tools=[weather], system="Be brief.", thread=False)
    run(runner.until_done())
    first, second = script.requests
    fields = {"model": "m", "max_tokens": 9, "tools": [weather.to_dict()], "system": "Be brief."}
    assert first == {**fields, "messages": [QUESTION]}
    assert second == {**fields, "messages": runner.messages[:3]}


def test_without_tools_none_are_sent() -> None:
    script = Script(saying("Hello."))
    run(ToolRunner[Message](script, **ASK).until_done())
    assert script.requests == [ASK]


def test_until_done_gives_the_last_answer() -> None:
    assert run(runner_of(ONE, saying("It is cold.")).until_done()).text == "It is cold."


def test_the_text_of_all_turns_is_one_stream() -> None:
    async def story(runner: ToolRunner[Any]) -> list[str]:
        return [text async for text in runner.text_stream]

    assert run(story(runner_of(ONE, saying("It is ", "cold.")))) == ["Let me see.", "It is ", "cold."]
    assert run(story(streaming(ONE, saying("It is ", "cold.")))) == ["Let me see.", "It is ", "cold."]


def test_streams_are_handed_out_open_and_what_the_body_leaves_is_read() -> None:
    async def story() -> list[str]:
        heard: list[str] = []
        async for stream in streaming(ONE, ONE, saying("It is cold.")):
            assert type(stream) is MessageStream
            assert stream.ending is None
            if len(heard) != 1:
                heard += [text async for text in stream.text_stream]
            else:
                heard.append("nothing")
        return heard

    assert run(story()) == ["Let me see.", "nothing", "It is cold."]


def test_each_answer_is_a_stream_whose_block_can_be_left_when_it_is_whole() -> None:
    async def story() -> list[dict[str, Any]]:
        runner = streaming(ONE, saying("Cold."))
        async for answer in runner:
            async with answer as stream:
                await stream.until_done()
        return runner.messages

    assert run(story())[2] == {"role": "user", "content": [result("Oslo: 4 degrees")]}


def test_an_answer_whose_block_is_left_before_its_end_runs_no_tool_and_is_no_turn() -> None:
    ran: list[str] = []

    @tool
    async def weather(city: str) -> None:
        ran.append(city)

    async def story() -> ToolRunner[MessageStream]:
        runner = streaming(ONE, saying("Cold."), tools=[weather])
        async with await anext(runner) as stream:
            async for event in stream:
                if event.type == "content_block_stop" and event.index == 1:
                    break
        with pytest.raises(StreamCancelledError):
            await anext(runner)
        return runner

    runner = run(story())
    assert (ran, runner.messages, runner.stopped_by) == ([], [QUESTION], None)


def test_a_paused_turn_is_sent_back_as_it_is() -> None:
    script = Script(saying("Searching", reason="pause_turn"), saying("Found."))
    runner: ToolRunner[Message] = ToolRunner(script, **ASK)
    run(runner.until_done())
    assert script.requests[1]["messages"] == [
        QUESTION,
        {"role": "assistant", "content": [{"type": "text", "text": "Searching"}]},
    ]
    assert runner.stopped_by == "end_turn"


# --- Where it stops ------------------------------------------------------------------------------------------------


def test_max_turns_bounds_the_answers_and_the_last_one_s_tools_have_run() -> None:
    runner = runner_of(ONE, ONE, max_turns=2)
    run(runner.until_done())
    assert runner.stopped_by == "max_turns"
    assert len(runner.messages) == 5
    check_history(runner.messages)


@pytest.mark.parametrize("answer", [ONE, saying("Searching", reason="pause_turn")], ids=["calls", "pauses"])
def test_without_max_turns_twenty_answers_that_are_not_the_last_are_an_error_with_the_history(answer: Any) -> None:
    async def story() -> tuple[TurnLimitError, Script, ToolRunner[Message]]:
        script = Script(*[answer] * 20, saying("Cold."))
        runner: ToolRunner[Message] = ToolRunner(script, **ASK, tools=[weather])
        for _ in range(2):
            with pytest.raises(
                TurnLimitError, match=r"^the model is not done after 20 answers: max_turns allows more$"
            ) as caught:
                await runner.until_done()
        assert len(script.requests) == 20
        runner.append_messages({"role": "user", "content": "Go on."})
        assert (await runner.until_done()).text == "Cold."
        return caught.value, script, runner

    error, script, runner = run(story())
    assert error.limit == MAX_TURNS == 20
    assert error.ending is not None
    assert error.ending[:3] == ("limit", str(error), "done")
    assert error.messages == runner.messages[: len(error.messages)]
    assert len(error.messages) == (41 if answer is ONE else 21)
    check_history(script.requests[-1]["messages"])


@pytest.mark.parametrize("name", ["max_turns", "max_iterations"])
def test_max_turns_may_allow_more_than_twenty(name: str) -> None:
    runner = runner_of(*[ONE] * 30, saying("Cold."), **{name: 31})
    assert run(runner.until_done()).text == "Cold."


def test_twenty_answers_are_not_too_many() -> None:
    runner = runner_of(*[ONE] * 19, saying("Cold."))
    assert run(runner.until_done()).text == "Cold."
    assert runner.stopped_by == "end_turn"


def test_max_iterations_is_the_official_sdk_s_name_for_it() -> None:
    runner = runner_of(ONE, max_iterations=1)
    run(runner.until_done())
    assert runner.stopped_by == "max_turns"


@pytest.mark.parametrize("reason", ["max_tokens", "refusal", "stop_sequence", "model_context_window_exceeded", "new"])
def test_other_stop_reasons_run_nothing(reason: str) -> None:
    ran: list[str] = []

    @tool
    async def weather(city: str) -> None:
        ran.append(city)

    runner = runner_of(calling(("weather", '{"city": "Oslo"}'), reason=reason, text="Hm."), tools=[weather])
    run(runner.until_done())
    assert (ran, runner.stopped_by) == ([], reason)
    assert runner.messages[1:] == [{"role": "assistant", "content": [{"type": "text", "text": "Hm."}]}]


@pytest.mark.parametrize(
    ("reason", "stopped_by"), [("tool_use", "tool_use"), (None, "no stop reason")], ids=["no call", "no reason"]
)
def test_an_answer_without_a_call_or_a_reason_ends_it(reason: str | None, stopped_by: str) -> None:
    runner = runner_of(saying("Hm.", reason=reason))
    run(runner.until_done())
    assert runner.stopped_by == stopped_by
    assert len(runner.messages) == 2


def test_a_call_of_a_tool_without_function_is_left_to_the_caller() -> None:
    async def story() -> ToolRunner[Message]:
        runner = runner_of(
            calling(("weather", '{"city": "Oslo"}'), ("map", "{}")), saying("Here."), tools=[weather, MAP]
        )
        first = await runner.until_done()
        assert runner.stopped_by == "tool without function"
        assert runner.messages == [QUESTION]
        assert [call.name for call in runner.unanswered] == ["map"]
        given = await runner.generate_tool_call_response()
        assert given == {"role": "user", "content": [result("Oslo: 4 degrees")]}
        given["content"].append(result("a map", "call_1"))
        runner.append_messages(first, given)
        assert (await runner.until_done()).text == "Here."
        return runner

    runner = run(story())
    assert runner.stopped_by == "end_turn"
    check_history(runner.messages)


def test_no_function_runs_beside_a_call_that_has_no_function_here() -> None:
    ran: list[str] = []

    @tool
    async def weather(city: str) -> None:
        ran.append(city)

    runner = runner_of(calling(("weather", '{"city": "Oslo"}'), ("map", "{}")), tools=[weather, MAP])
    run(runner.until_done())
    assert ran == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_turns": 0}, "max_turns must be a whole number of 1 or more, not 0"),
        ({"run_tools_eagerly": True}, "run_tools_eagerly is not supported: tools run when their answer is complete"),
        ({"thread": True}, "threads that the server holds are not supported: each request has all messages"),
        ({"max_iterations": "2"}, "max_turns must be a whole number of 1 or more, not '2'"),
        ({"max_turns": 1.5}, "max_turns must be a whole number of 1 or more, not 1.5"),
        (
            {"messages": [{"content": "x"}]},
            "messages[0] needs the role user, assistant or system: \"{'content': 'x'}\"",
        ),
        ({"messages": 5}, "messages must be a list, not '5'"),
        ({"tools": 5}, "tools must be a list, not '5'"),
        ({"tools": MAP}, f"tools must be a list, not {str(MAP)!r}"),
        (
            {"messages": [{"role": "user", "content": ["x"]}]},
            "messages[0]: a content block must be an object with a type, not \"'x'\"",
        ),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "messages[0]: the content must be a text or a list of blocks, not '5'",
        ),
    ],
    ids=[
        "max_turns",
        "eager",
        "thread",
        "turns",
        "half turns",
        "role",
        "messages",
        "tools",
        "tool",
        "block",
        "content",
    ],
)
def test_what_cannot_work_is_refused_at_once(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        runner_of(**options)
    assert str(caught.value) == text


@pytest.mark.parametrize("wrong", [5, "x", [5]])
def test_params_and_messages_of_the_wrong_shape_change_nothing(wrong: Any) -> None:
    runner = runner_of(saying("Cold."))
    before = runner.messages
    with pytest.raises(ConfigurationError, match=r"^params must be a Mapping, not (int|str|list)$"):
        runner.set_messages_params(wrong)
    with pytest.raises(ConfigurationError, match=r"^messages\[1\] needs the role user, assistant or system: "):
        runner.append_messages({"role": "user", "content": "x"}, wrong)
    assert runner.messages == before


# --- Errors for the model ------------------------------------------------------------------------------------------


def results_of(runner: ToolRunner[Message]) -> list[Any]:
    run(runner.until_done())
    check_history(runner.messages)
    content: list[Any] = runner.messages[2]["content"]
    return content


def test_a_raised_exception_reaches_the_model() -> None:
    @tool
    async def weather(city: str) -> None:
        raise ValueError(f"no {city}")

    found = results_of(runner_of(ONE, saying("Sorry."), tools=[weather]))
    assert found == [{**result("ValueError: no Oslo"), "is_error": True}]


def test_an_unknown_tool_and_an_input_that_does_not_parse_reach_the_model() -> None:
    answer = calling(("whether", "{}"), ("weather", '{"city": '), ("weather", '{"city": "Oslo"}'))
    found = results_of(runner_of(answer, saying("Sorry.")))
    assert [block.get("is_error", False) for block in found] == [True, True, False]
    assert found[0]["content"].startswith(
        "This call was not run: the tool 'whether' was not found (the tools are: weather)."
    )
    assert found[1]["content"].startswith("This call was not run: its input is not a whole JSON object: '{\"city\": '")
    assert found[2] == result("Oslo: 4 degrees", "call_2")


# --- Changing its course -------------------------------------------------------------------------------------------


def test_messages_appended_in_the_body_follow_the_turn() -> None:
    async def story() -> ToolRunner[Message]:
        runner = runner_of(ONE, saying("Cold."))
        async for message in runner:
            if message.stop_reason == "tool_use":
                runner.append_messages({"role": "user", "content": "Hurry."})
        return runner

    runner = run(story())
    assert [message["role"] for message in runner.messages] == ["user", "assistant", "user", "user", "assistant"]
    assert runner.messages[3]["content"] == "Hurry."


def test_a_body_that_appends_the_answer_itself_owns_the_turn_and_no_tool_runs() -> None:
    ran: list[str] = []

    @tool
    async def weather(city: str) -> None:
        ran.append(city)

    async def story() -> ToolRunner[Message]:
        runner = runner_of(ONE, saying("Cold."), tools=[weather])
        async for message in runner:
            if message.stop_reason == "tool_use":
                runner.append_messages(message, {"role": "user", "content": [result("mine")]})
        return runner

    runner = run(story())
    assert ran == []
    assert runner.messages[2] == {"role": "user", "content": [result("mine")]}
    check_history(runner.messages)


def test_after_its_end_it_goes_on_with_what_is_appended() -> None:
    async def story() -> ToolRunner[Message]:
        runner = runner_of(saying("Hello."), saying("Bye."), max_turns=1)
        await runner.until_done()
        runner.append_messages({"role": "user", "content": [{"type": "text", "text": "Bye!"}]})
        assert (await runner.until_done()).text == "Bye."
        return runner

    assert len(run(story()).messages) == 4


def test_the_params_of_the_next_request_can_be_changed() -> None:
    async def story() -> list[Any]:
        script = Script(ONE, saying("Cold."), saying("Bye."))
        runner: ToolRunner[Message] = ToolRunner(script, **ASK, tools=[weather], system="x")
        async for message in runner:
            if message.stop_reason == "tool_use":
                runner.set_messages_params(lambda params: {**params, "model": "n", "tools": [*params["tools"], MAP]})
        runner.set_messages_params({"model": "o", "max_tokens": 1, "messages": [QUESTION], "tools": []})
        runner.append_messages({"role": "user", "content": "Bye!"})
        await runner.until_done()
        return script.requests

    _, second, third = run(story())
    assert (second["model"], second["system"], len(second["tools"]), len(second["messages"])) == ("n", "x", 2, 3)
    assert set(third) == {"model", "max_tokens", "messages"}


def test_params_need_a_model_and_max_tokens() -> None:
    with pytest.raises(ConfigurationError, match=r"^the params lack model and max_tokens$"):
        runner_of().set_messages_params({})


# --- Usage ---------------------------------------------------------------------------------------------------------


def test_usage_is_counted_per_turn_and_in_total() -> None:
    runner = runner_of(ONE, saying("Cold.", cache_read_input_tokens=5))
    run(runner.until_done())
    assert [turn.output_tokens for turn in runner.usage.turns] == [7, 7]
    assert (runner.usage.input_tokens, runner.usage.output_tokens, runner.usage.total_input_tokens) == (20, 14, 25)
    assert runner.usage.exact


# --- Leaving -------------------------------------------------------------------------------------------------------


def test_closing_ends_the_loop() -> None:
    async def story() -> ToolRunner[MessageStream]:
        async with streaming(ONE) as runner:
            async for _ in runner:
                break
        assert [stream async for stream in runner] == []
        return runner

    runner = run(story())
    assert (runner.stopped_by, runner.messages, runner.usage.exact) == ("closed", [QUESTION], False)


def test_closing_it_while_a_request_waits_for_its_answer_ends_that_too() -> None:
    async def story() -> ToolRunner[Message]:
        runner = runner_of(FakeStream([], end=None))
        task = asyncio.create_task(runner.until_done())
        await asyncio.sleep(1)
        await runner.close()
        with pytest.raises(StreamCancelledError, match="closed"):
            await task
        return runner

    runner = run(story())
    assert (runner.stopped_by, runner.messages) == ("closed", [QUESTION])
    assert (runner.usage.turns, runner.usage.exact) == ((), False)


def test_a_runner_that_was_closed_before_its_first_answer_has_none() -> None:
    async def story() -> None:
        async with runner_of() as runner:
            pass
        assert runner.last_message is None
        assert runner.unanswered == []
        await runner.until_done()

    with pytest.raises(RuntimeError, match=r"^the runner was closed before its first answer$"):
        run(story())


def test_the_canonical_tool_call_is_run_with_its_input() -> None:
    given: list[Any] = []

    @tool
    async def weather(city: str, days: int) -> None:
        given.append((city, days))

    run(runner_of(TOOL_CALL, saying("Cold."), tools=[weather]).until_done())
    assert given == [("Oslo", 3)]
