"""rawsse.client.tools.conversation: the history after whole, cut, cancelled and refused answers; usage. Every history
that is sent is checked as the API checks it (`support.asking`)."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from typing import Any

import pytest
from support.answers import answer, plain
from support.asking import Script, calling, check_history, saying
from support.clock import run
from support.streams import STOP, block, end, start, text_delta

import rawsse.client.blocking
from rawsse.client.blocking import Client
from rawsse.client.client import AsyncClient
from rawsse.client.tools.conversation import CUT_NOTE, Conversation, ConversationTurn, Reply
from rawsse.client.tools.runner import ToolRunner, add_up
from rawsse.client.tools.tool import tool
from rawsse.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    OverloadedError,
    StreamCancelledError,
    StreamTruncatedError,
    TotalTimeoutError,
)
from rawsse.messages import Message
from rawsse.messages.lens import Lens
from rawsse.replay import ReplayServer, shipped_fixtures
from rawsse.replay.fakes import FakeStream

HELLO = saying("Hel", "lo.")
LOOK = calling(("weather", '{"city": "Oslo"}'), text="Let me see.")
NOTHING = add_up([])


@tool
async def weather(city: str) -> str:
    return f"{city}: 4 degrees"


@tool(name="weather")
async def waiting(city: str) -> None:
    await asyncio.Event().wait()


def talk(*answers: Any, **options: Any) -> tuple[Conversation, Script]:
    script = Script(*answers)
    return Conversation(script, model="m", max_tokens=9, **options), script


def cut(events: list[Any]) -> FakeStream:
    """The connection breaks after these events."""
    return FakeStream([answer(events).removesuffix(b"0\r\n\r\n")])


def refused(status: str, kind: str) -> FakeStream:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": "no"}}).encode()
    return FakeStream([plain(body, status, content_type="application/json")])


def user(*texts: str) -> dict[str, Any]:
    content: Any = texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]
    return {"role": "user", "content": content}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


NOTE = user(CUT_NOTE)


async def fail(conversation: Conversation, question: str = "one") -> APIError:
    with pytest.raises(APIError) as caught:
        await conversation.ask(question)
    check_history([*conversation.messages, user("next")] if not conversation.messages else conversation.messages)
    return caught.value


# --- What it begins with -------------------------------------------------------------------------------------------


def test_a_message_in_its_messages_is_a_turn_with_role_and_content_alone() -> None:
    answer = Message({"id": "msg_1", "type": "message", **assistant("x"), "model": "m", "usage": {"output_tokens": 1}})
    conversation, script = talk(HELLO, messages=[user("zero"), answer])
    run(conversation.ask("one"))
    assert script.requests[0]["messages"] == [user("zero"), assistant("x"), user("one")]
    assert talk(messages=json.loads(json.dumps(conversation.messages)))[0].messages == conversation.messages


def test_a_history_that_ends_in_a_call_can_be_asked_on_and_answered() -> None:
    call = {"type": "tool_use", "id": "1", "name": "n", "input": {}}
    before: list[Any] = [user("zero"), {"role": "assistant", "content": [{"type": "text", "text": "x"}, call]}]
    result = {"type": "tool_result", "tool_use_id": "1", "content": "y"}
    conversation, script = talk(HELLO, HELLO, messages=before)
    run(conversation.ask("one"))
    assert script.requests[0]["messages"] == [user("zero"), assistant("x"), user("one")]
    run(conversation.ask("two"))
    assert script.requests[1]["messages"][:2] == [user("zero"), assistant("x")]
    conversation, script = talk(HELLO, messages=before)
    run(conversation.ask([result]))
    assert script.requests[0]["messages"] == [*before, {"role": "user", "content": [result]}]


def test_results_of_other_calls_are_no_question() -> None:
    conversation, _ = talk(HELLO, messages=[user("zero"), assistant("x")])
    with pytest.raises(ConfigurationError, match="only results of calls that are not in the answer before it"):
        run(conversation.ask([{"type": "tool_result", "tool_use_id": "1", "content": "y"}]))
    assert conversation.turns == []
    run(conversation.ask("one"))


MESSAGE = r"messages\[1\] needs the role user, assistant or system: "
CONTENT = r"messages\[1\]: the content must be a text or a list of blocks, not "
BLOCK = r"messages\[1\]: a content block must be an object with a type, not "


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ({"role": "user", "content": "x"}, "messages must be a list, not \"{'role'"),
        ("x", "messages must be a list, not"),
        (5, "messages must be a list, not '5'"),
        *(([user("zero"), wrong], MESSAGE) for wrong in (1, None, "ab", ["role", "user"], {"content": "x"})),
        *(([user("zero"), {"role": role, "content": "x"}], MESSAGE) for role in ("robot", 1, None, ["user"])),
        *(
            ([user("zero"), {"role": "user", "content": content}], CONTENT)
            for content in (None, 5, b"x", {"type": "text"})
        ),
        ([user("zero"), {"role": "user"}], CONTENT),
        *(([user("zero"), {"role": "user", "content": [block]}], BLOCK) for block in (5, None, "x", {"text": "x"})),
    ],
)
def test_a_history_of_the_wrong_shape_is_refused_when_it_is_made(messages: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match="^" + problem):
        talk(messages=messages)


@pytest.mark.parametrize(
    "question", [5, None, b"x", {"role": "user", "content": "x"}, [{"role": "user", "content": "x"}]]
)
def test_a_question_of_the_wrong_shape_is_refused_and_leaves_the_history_as_it_was(question: Any) -> None:
    conversation, script = talk(HELLO)
    with pytest.raises(ConfigurationError, match=r"^the question: "):
        run(conversation.ask(question))
    assert (conversation.turns, script.requests) == ([], [])


def test_a_history_in_which_an_answer_was_cut_still_says_so_when_it_is_saved_and_continued() -> None:
    conversation, _ = talk(cut(HELLO[:3]))
    run(fail(conversation))
    again, script = talk(HELLO, messages=json.loads(json.dumps(conversation.messages)))
    run(again.ask("two"))
    assert script.requests[0]["messages"] == [user("one"), assistant("Hel"), user(CUT_NOTE, "two")]


@pytest.mark.parametrize("failed", [[], [refused("529 Overloaded", "overloaded_error")]], ids=["one", "two"])
def test_a_saved_question_without_an_answer_can_be_asked_again_and_stands_once(failed: list[Any]) -> None:
    conversation, _ = talk(HELLO, refused("529 Overloaded", "overloaded_error"), *failed)
    run(conversation.ask("one"))
    for question in ["two", "three"][: 1 + len(failed)]:
        run(fail(conversation, question))
    saved = json.loads(json.dumps(conversation.messages))
    again, script = talk(HELLO, messages=saved[:-1])
    run(again.ask(saved[-1]["content"]))
    assert script.requests[0]["messages"] == saved


@pytest.mark.parametrize(
    ("tools", "problem"),
    [
        ([{"name": "a.b", "input_schema": {}}], "no tool with the name 'a.b'"),
        ([{"name": "", "input_schema": {}}], "no tool with the name ''"),
        ([weather, weather], "two tools have the name 'weather'"),
        ([5], "a tool is made of a function"),
    ],
)
def test_a_tool_that_cannot_be_sent_is_refused_when_it_is_made(tools: list[Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        talk(tools=tools)


def test_a_blocking_conversation_refuses_an_async_tool_when_it_is_made() -> None:
    with Client(api_key="k") as client, pytest.raises(ConfigurationError, match="cannot run the async tool 'weather'"):
        client.conversation(model="m", max_tokens=9, tools=[weather])


# --- Whole answers -------------------------------------------------------------------------------------------------


def test_questions_and_answers_become_the_history() -> None:
    async def story() -> tuple[Conversation, Script]:
        conversation, script = talk(HELLO, saying("Bye."), system="Be brief.", temperature=0)
        assert (await conversation.ask("Hello?")).text == "Hello."
        assert (await conversation.ask([{"type": "text", "text": "Bye!"}])).text == "Bye."
        return conversation, script

    conversation, script = run(story())
    assert conversation.messages == [
        user("Hello?"),
        assistant("Hello."),
        {"role": "user", "content": [{"type": "text", "text": "Bye!"}]},
        assistant("Bye."),
    ]
    asked = {"model": "m", "max_tokens": 9, "system": "Be brief.", "temperature": 0}
    assert script.requests[1] == {**asked, "messages": conversation.messages[:3]}


def test_the_text_comes_piece_by_piece_and_the_conversation_keeps_it() -> None:
    async def story() -> tuple[list[str], Conversation]:
        conversation, _ = talk(HELLO)
        async with conversation.stream("Hello?") as reply:
            texts = [text async for text in reply.text_stream]
        return texts, conversation

    texts, conversation = run(story())
    assert texts == ["Hel", "lo."]
    assert conversation.messages[1:] == [assistant("Hello.")]
    assert (conversation.turns[0].state, conversation.turns[0].stopped_by) == ("answered", "end_turn")


def test_with_tools_a_reply_goes_on_over_all_answers() -> None:
    async def story() -> tuple[list[str], list[str], Conversation]:
        conversation, _ = talk(LOOK, saying("Cold."), LOOK, saying("Cold."), tools=[weather])
        async with conversation.stream("Oslo?") as reply:
            texts = [text async for text in reply.text_stream]
            assert reply.stream.current_message_snapshot.text == "Cold."
        async with conversation.stream("And now?") as reply:
            events: list[str] = [event.type async for event in reply]
        assert conversation.turns[-1].usage.output_tokens == 14
        return texts, events, conversation

    texts, events, conversation = run(story())
    assert texts == ["Let me see.", "Cold."]
    assert events.count("message_start") == events.count("message_stop") == 2
    assert [message["role"] for message in conversation.messages] == ["user", "assistant", "user", "assistant"] * 2
    check_history(conversation.messages)


def test_the_final_text_is_that_of_the_last_answer() -> None:
    async def story() -> str:
        conversation, _ = talk(LOOK, saying("Cold."), tools=[weather])
        async with conversation.stream("Oslo?") as reply:
            await reply.until_done()
            return await reply.get_final_text()

    assert run(story()) == "Cold."


def test_an_answer_that_is_read_to_its_last_event_is_whole() -> None:
    async def story() -> Conversation:
        conversation, _ = talk(HELLO)
        async with conversation.stream("Hello?") as reply:
            async for event in reply:
                if event.type == "message_stop":
                    break
        return conversation

    assert run(story()).turns[0].state == "answered"


def test_a_history_may_be_given_to_begin_with() -> None:
    conversation, script = talk(HELLO, messages=[user("Hi."), assistant("Yes?")])
    run(conversation.ask("Hello?"))
    assert script.requests[0]["messages"] == [user("Hi."), assistant("Yes?"), user("Hello?")]


def test_an_answer_of_nothing_is_no_message_and_the_next_question_joins() -> None:
    async def story() -> list[Any]:
        conversation, _ = talk([start(), end(), STOP], HELLO)
        await conversation.ask("one")
        await conversation.ask("two")
        return conversation.messages

    assert run(story()) == [user("one", "two"), assistant("Hello.")]


def test_a_conversation_goes_over_real_connections() -> None:
    @tool
    def get_weather(place: str, unit: str) -> dict[str, Any]:
        return {"place": place, "degrees": 9}

    async def story() -> tuple[Conversation, list[Any]]:
        played = [shipped_fixtures()[name] for name in ("tools", "plain", "unicode")]
        async with (
            ReplayServer(played, speed=0) as server,
            AsyncClient(base_url=server.base_url, api_key="any") as client,
        ):
            conversation = Conversation(client, model="m", max_tokens=9, tools=[get_weather])
            async with conversation.stream("An umbrella?") as reply:
                assert "".join([text async for text in reply.text_stream]).startswith("I'll look at the weather")
            await conversation.ask("☺?")
            return conversation, [request.body["messages"] for request in server.requests]

    conversation, asked = run(story())
    assert asked[1] == conversation.messages[:3]
    assert asked[1][2]["content"][0]["content"] == '{"place": "Bergen, Norway", "degrees": 9}'
    assert asked[2] == conversation.messages[:-1]
    check_history(conversation.messages)


# --- Cut answers ---------------------------------------------------------------------------------------------------


def test_what_came_of_a_cut_answer_stays_and_the_next_question_says_so() -> None:
    async def story() -> tuple[Conversation, Script]:
        conversation, script = talk(cut(HELLO[:3]), saying("Yes."))
        assert type(await fail(conversation)) is StreamTruncatedError
        assert conversation.messages == [user("one"), assistant("Hel"), NOTE]
        await conversation.ask("two")
        return conversation, script

    conversation, script = run(story())
    assert script.requests[1]["messages"] == [user("one"), assistant("Hel"), user(CUT_NOTE, "two")]
    assert conversation.messages == [*script.requests[1]["messages"], assistant("Yes.")]
    assert [turn.state for turn in conversation.turns] == ["cut", "answered"]
    assert conversation.turns[0].stopped_by.startswith("StreamTruncatedError: ")


def test_the_note_may_be_another_or_none() -> None:
    notes: list[Any] = [("[cut]", user("[cut]", "two")), (5, user("5", "two")), ("", user("two")), (None, user("two"))]
    for note, question in notes:
        conversation, script = talk(cut(HELLO[:3]), saying("Yes."), cut_note=note)
        run(fail(conversation))
        run(conversation.ask("two"))
        assert script.requests[1]["messages"][2] == question


def test_where_nothing_came_the_next_question_joins_the_one_before() -> None:
    async def story() -> Script:
        conversation, script = talk(cut(HELLO[:2]), FakeStream([]), HELLO)
        await fail(conversation)
        await fail(conversation, "two")
        assert conversation.messages == [user("one", "two")]
        await conversation.ask("three")
        return script

    assert run(story()).requests[2]["messages"] == [user("one", "two", "three")]


def test_an_overloaded_api_loses_no_question() -> None:
    async def story() -> list[Any]:
        conversation, _ = talk(refused("529 Overloaded", "overloaded_error"), HELLO)
        assert type(await fail(conversation)) is OverloadedError
        await conversation.ask("two")
        return conversation.messages

    assert run(story()) == [user("one", "two"), assistant("Hello.")]


def test_a_reply_that_is_left_early_is_cut() -> None:
    async def story() -> Conversation:
        conversation, _ = talk(HELLO)
        async with conversation.stream("one") as reply:
            async for _ in reply.text_stream:
                break
        return conversation

    conversation = run(story())
    assert conversation.messages == [user("one"), assistant("Hel"), NOTE]
    assert (conversation.turns[0].state, conversation.turns[0].stopped_by) == ("cut", "closed")


def test_a_reply_can_be_closed() -> None:
    async def story() -> Conversation:
        conversation, _ = talk(HELLO)
        async with conversation.stream("one") as reply:
            await anext(reply.text_stream)
            await reply.close()
        return conversation

    assert run(story()).messages == [user("one"), assistant("Hel"), NOTE]


def test_a_cancelled_question_keeps_what_came() -> None:
    async def story() -> Conversation:
        conversation, _ = talk(FakeStream([answer(HELLO[:3]).removesuffix(b"0\r\n\r\n")], end=None))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await conversation.ask("one")
        return conversation

    conversation = run(story())
    assert conversation.messages == [user("one"), assistant("Hel"), NOTE]
    assert not conversation.usage.exact


POINTS = [(turn, count) for turn in (0, 1) for count in range(len([LOOK, HELLO][turn]) - 1)]


@pytest.mark.parametrize(("turn", "count"), POINTS, ids=str)
def test_wherever_a_reply_with_tools_is_cut_the_next_question_can_be_asked(turn: int, count: int) -> None:
    async def story() -> list[Any]:
        broken = cut([LOOK, HELLO][turn][:count])
        conversation, _ = talk(*[LOOK][:turn], broken, HELLO, tools=[weather])
        await fail(conversation)
        await conversation.ask("two")
        check_history(conversation.messages)
        return conversation.messages

    messages = run(story())
    assert messages[-1] == assistant("Hello.")
    assert "two" in json.dumps(messages[-2]["content"])
    kept = [block["type"] for message in messages for block in message["content"] if isinstance(block, dict)]
    assert kept.count("tool_use") == kept.count("tool_result") == turn


async def stop_by_timeout(conversation: Conversation) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await conversation.ask("one")


async def stop_by_max_seconds(conversation: Conversation) -> None:
    assert type(await fail(conversation)) is TotalTimeoutError


async def stop_by_leaving(conversation: Conversation) -> None:
    async with conversation.stream("one") as reply:
        async for event in reply:
            if event.type == "message_stop":
                break


async def stop_by_an_interrupt(conversation: Conversation) -> None:
    with suppress(KeyboardInterrupt):
        async with conversation.stream("one") as reply:
            async for event in reply:
                if event.type == "message_stop":
                    raise KeyboardInterrupt


async def stop_by_closing(conversation: Conversation) -> None:
    async with conversation.stream("one") as reply:
        asyncio.get_running_loop().call_later(5, lambda: tasks.append(asyncio.create_task(reply.close())))
        tasks: list[Any] = []
        with pytest.raises(StreamCancelledError):
            await reply.until_done()
        await tasks[0]


@pytest.mark.parametrize(
    ("stop", "stopped_by"),
    [
        (stop_by_timeout, "cancelled"),
        (
            stop_by_max_seconds,
            "TotalTimeoutError: the tool loop took longer than max_seconds (8 s) while its tools ran: weather",
        ),
        (stop_by_leaving, "closed"),
        (stop_by_an_interrupt, "KeyboardInterrupt"),
        (stop_by_closing, "closed"),
    ],
)
def test_a_loop_that_is_stopped_after_a_whole_answer_has_cut_none_and_leaves_no_call_behind(
    stop: Any, stopped_by: str
) -> None:
    @tool
    async def weather(city: str) -> None:
        await asyncio.Event().wait()

    async def story() -> tuple[Conversation, Script]:
        conversation, script = talk(LOOK, HELLO, tools=[weather], max_seconds=8)
        await stop(conversation)
        assert conversation.messages == [user("one"), assistant("Let me see.")]
        await conversation.ask("two")
        return conversation, script

    conversation, script = run(story())
    assert (conversation.turns[0].state, conversation.turns[0].stopped_by) == ("stopped", stopped_by)
    assert conversation.usage.exact
    assert script.requests[1]["messages"] == [user("one"), assistant("Let me see."), user("two")]  # and no note


def test_a_loop_whose_later_request_fails_or_is_one_too_many_has_cut_no_answer() -> None:
    async def story(*answers: Any) -> Conversation:
        conversation, _ = talk(*answers, tools=[weather])
        await fail(conversation)
        return conversation

    for answers in ([LOOK, refused("529 Overloaded", "overloaded_error")], [LOOK] * 20):
        turn = run(story(*answers)).turns[0]
        assert (turn.state, turn.usage.exact) == ("stopped", True)


def test_a_call_of_a_tool_without_function_leaves_no_call_behind() -> None:
    conversation, _ = talk(LOOK, tools=[{"name": "weather", "input_schema": {"type": "object"}}])
    run(conversation.ask("one"))
    assert conversation.messages == [user("one"), assistant("Let me see.")]


SEARCH = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
PAUSED = [start(), *block(0, SEARCH), end("pause_turn"), STOP]


@pytest.mark.parametrize("has_result", [True, False])
def test_a_paused_search_stays_only_with_its_result(has_result: bool) -> None:
    text = block(int(has_result), {"type": "text", "text": ""}, text_delta(int(has_result), "So"))
    rest = [start(), *(block(0, FOUND) if has_result else []), *text]

    async def story() -> list[Any]:
        conversation, _ = talk(PAUSED, cut(rest))
        await fail(conversation)
        return conversation.messages

    kept = [*([SEARCH, FOUND] if has_result else []), {"type": "text", "text": "So"}]
    assert run(story()) == [user("one"), {"role": "assistant", "content": kept}, NOTE]


# --- Refused -------------------------------------------------------------------------------------------------------


def test_a_question_that_the_api_does_not_take_is_not_sent_again() -> None:
    async def story() -> Conversation:
        conversation, script = talk(refused("400 Bad Request", "invalid_request_error"), HELLO)
        assert type(await fail(conversation)) is BadRequestError
        assert conversation.messages == []
        await conversation.ask("two")
        assert script.requests[1]["messages"] == [user("two")]
        return conversation

    assert [turn.state for turn in run(story()).turns] == ["refused", "answered"]


@pytest.mark.parametrize(("kind", "state"), [("invalid_request_error", "refused"), ("overloaded_error", "cut")])
def test_an_error_event_before_any_content_says_whether_the_question_was_taken(kind: str, state: str) -> None:
    event = {"type": "error", "error": {"type": kind, "message": "no"}}
    conversation, _ = talk(FakeStream([answer([event])]))
    run(fail(conversation))
    assert conversation.turns[0].state == state


def test_what_the_model_refuses_to_answer_is_not_sent_again() -> None:
    async def story() -> Conversation:
        conversation, _ = talk(saying("I can", reason="refusal"), HELLO)
        assert (await conversation.ask("one")).stop_reason == "refusal"
        await conversation.ask("two")
        return conversation

    conversation = run(story())
    assert conversation.messages == [user("two"), assistant("Hello.")]
    assert [turn.state for turn in conversation.turns] == ["refused", "answered"]


@pytest.mark.parametrize("question", [" ", [], [{"type": "text", "text": " "}]], ids=repr)
def test_a_question_of_nothing_is_refused_at_once(question: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^the question is empty$"):
        talk()[0].stream(question)


def test_what_cannot_be_sent_was_not_asked() -> None:
    conversation, _ = talk(HELLO, HELLO, metadata={"x": object()})
    with pytest.raises(ConfigurationError, match="cannot be written as JSON"):
        run(conversation.ask("one"))
    assert conversation.turns == []


def test_a_tool_loop_that_cannot_begin_leaves_the_conversation_as_it_was() -> None:
    conversation, _ = talk(HELLO, max_turns=0)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="max_turns must be a whole number of 1 or more"):
            run(conversation.ask("one"))


# --- How it ended, and what the caller gets ------------------------------------------------------------------------

OVERLOADED, INVALID = ("529 Overloaded", "overloaded_error"), ("400 Bad Request", "invalid_request_error")
ENDS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "the model was done": ([saying("Hm", reason="max_tokens")], {}),
    "the model refused": ([saying("Hm", reason="refusal")], {}),
    "max_turns, if given": ([LOOK], {"tools": [weather], "max_turns": 1}),
    "a tool without function": ([LOOK], {"tools": [{"name": "weather", "input_schema": {}}]}),
    "20 answers without max_turns": ([LOOK] * 20, {"tools": [weather]}),
    "max_seconds, while tools ran": ([LOOK], {"tools": [waiting], "max_seconds": 8}),
    "a later request failed": ([LOOK, refused(*INVALID)], {"tools": [weather]}),
    "an answer failed": ([cut(HELLO[:3])], {}),
    "the first request failed": ([refused(*OVERLOADED)], {}),
    "… and a retry cannot help": ([refused(*INVALID)], {}),
    "the block was left early": ([HELLO], {}),
    "the task was cancelled": ([LOOK], {"tools": [waiting]}),
}


def documented_ends() -> dict[str, list[str]]:
    """The rows of the table in the docstring: what the reader gets, `stopped_by`, `state`."""
    lines = (Conversation.__doc__ or "").partition("`state`:")[2].partition("Each `APIError`")[0].splitlines()
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines if line.strip()]
    return {how: rest for how, *rest in rows}


@pytest.mark.parametrize("how", documented_ends())
def test_a_turn_ends_as_the_table_in_the_docstring_says(how: str) -> None:
    answers, options = ENDS[how]
    got: list[Any] = []

    async def story() -> ConversationTurn:
        conversation, _ = talk(*answers, **options)
        try:
            async with asyncio.timeout(5 if "cancelled" in how else None), conversation.stream("one") as reply:
                if "left early" in how:
                    await anext(reply)
                else:
                    got.append(await reply.get_final_message())
        except (APIError, TimeoutError) as exc:
            got.append(exc)
        return conversation.turns[-1]

    turn = run(story())
    gets, stopped_by, state = documented_ends()[how]
    match got:
        case [Message() as message]:
            assert (gets, turn.stopped_by) == (
                "the message",
                stopped_by.strip('"').replace("its stop reason", "max_tokens"),
            )
            assert message.stop_reason
        case [APIError() as error]:
            assert gets.removeprefix("an ") in [kind.__name__ for kind in type(error).__mro__]
            assert (stopped_by, turn.stopped_by) == ("the error", f"{type(error).__name__}: {error}")
            assert error.ending is not None
            assert error.ending.kind != "complete"
        case _:
            assert gets == ("CancelledError" if got else "nothing")  # which `asyncio.timeout` makes a TimeoutError
            assert turn.stopped_by == stopped_by.strip('"')
    assert turn.state in re.split(r",? (?:or )?", state)


@pytest.mark.parametrize(
    ("kind", "names"),
    [(Conversation, "fields messages turns"), (Reply, "stopped_by"), (ToolRunner, "stopped_by messages ending")],
)
def test_the_docstrings_of_a_class_and_of_its_blocking_form_name_what_pydoc_cannot_list(kind: type, names: str) -> None:
    blocking = getattr(rawsse.client.blocking, f"Blocking{kind.__name__}")
    for name in names.split():
        assert f"`{name}`" in (kind.__doc__ or "")
        assert f"`{name}`" in (blocking.__doc__ or "")


def test_the_table_in_the_docstring_has_all_ends() -> None:
    assert documented_ends().keys() == ENDS.keys()


# --- Once more -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failed",
    [cut(HELLO[:3]), cut(HELLO[:1]), refused("401 Unauthorized", "authentication_error")],
    ids=["cut", "nothing came", "refused"],
)
def test_retry_asks_again_in_place_of_a_failed_answer(failed: FakeStream) -> None:
    async def story() -> tuple[Conversation, Script]:
        conversation, script = talk(saying("Yes?"), failed, HELLO)
        await conversation.ask("Hi.")
        await fail(conversation)
        async with conversation.retry() as reply:
            assert await reply.get_final_text() == "Hello."
        return conversation, script

    conversation, script = run(story())
    assert script.requests[2]["messages"] == [user("Hi."), assistant("Yes?"), user("one")]
    assert conversation.messages == [*script.requests[2]["messages"], assistant("Hello.")]
    assert len(conversation.turns) == 2


def test_retry_takes_a_whole_answer_s_place_too_but_not_with_nothing() -> None:
    async def story() -> Conversation:
        conversation, _ = talk(HELLO, refused("401 Unauthorized", "authentication_error"), saying("Hi!"))
        await conversation.ask("one")
        with pytest.raises(AuthenticationError):
            await conversation.retry().__aenter__()
        assert conversation.messages == [user("one"), assistant("Hello.")]
        async with conversation.retry() as reply:
            await reply.until_done()
        return conversation

    conversation = run(story())
    assert conversation.messages == [user("one"), assistant("Hi!")]
    assert conversation.usage.output_tokens == 14  # the answer that was replaced has been paid for, too


def test_there_must_be_a_question_to_ask_again() -> None:
    with pytest.raises(RuntimeError, match=r"^there is no question to ask again$"):
        talk()[0].retry()


# --- Misuse --------------------------------------------------------------------------------------------------------


def test_one_question_at_a_time() -> None:
    async def story() -> None:
        conversation, _ = talk(HELLO)
        async with conversation.stream("one") as reply:
            with pytest.raises(RuntimeError, match=r"^the conversation is still waiting for an answer$"):
                await conversation.ask("two")
            await reply.until_done()

    run(story())


def test_a_reply_comes_once() -> None:
    async def story() -> None:
        conversation, _ = talk(HELLO)
        reply = conversation.stream("one")
        with pytest.raises(RuntimeError, match=r"^the reply is not open: enter its `with` block first$"):
            await anext(reply)
        async with reply:
            await reply.until_done()
        with pytest.raises(RuntimeError, match=r"^a reply can be read once: ask again, or retry\(\)$"):
            await reply.__aenter__()

    run(story())


def test_a_reply_that_is_left_twice_is_kept_once() -> None:
    async def story() -> Conversation:
        conversation, _ = talk(HELLO)
        async with conversation.stream("one") as reply:
            await reply.until_done()
        await reply.__aexit__(None, None, None)
        return conversation

    assert len(run(story()).turns) == 1


def test_a_reply_that_is_closed_before_its_answer_begins_ends_at_once() -> None:
    async def story() -> Conversation:
        conversation, _ = talk(FakeStream([], end=None))
        reply = conversation.stream("one")
        task = asyncio.create_task(reply.__aenter__())
        await asyncio.sleep(1)
        await reply.close()
        with pytest.raises(StreamCancelledError):
            await task
        return conversation

    conversation = run(story())
    assert (conversation.turns[0].state, conversation.messages) == ("cut", [user("one")])


def test_a_retry_belongs_to_the_last_question() -> None:
    async def story() -> Reply:
        conversation, _ = talk(HELLO, HELLO)
        await conversation.ask("one")
        reply = conversation.retry()
        await conversation.ask("two")
        return reply

    with pytest.raises(RuntimeError, match=r"^the conversation has continued: call retry\(\) again$"):
        run(run(story()).__aenter__())


@pytest.mark.parametrize(
    ("client", "kind"),
    [(Client(api_key="k"), "Client"), ("sk-ant-1", "str"), (None, "NoneType")],
    ids=["blocking", "str", "None"],
)
def test_a_client_of_the_wrong_kind_is_refused_at_once(client: Any, kind: str) -> None:
    text = f"a Conversation needs an AsyncClient, not a {kind}; for one without async use client.conversation(…)"
    with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}$"):
        Conversation(client, model="m", max_tokens=9)


# --- Usage ---------------------------------------------------------------------------------------------------------


def test_usage_is_counted_per_turn_and_in_total() -> None:
    async def story() -> Conversation:
        conversation, _ = talk(LOOK, saying("Cold.", cache_read_input_tokens=5), HELLO, tools=[weather])
        await conversation.ask("one")
        await conversation.ask("two")
        return conversation

    conversation = run(story())
    assert [turn.usage.output_tokens for turn in conversation.turns] == [14, 7]
    assert [one.total_input_tokens for one in conversation.turns[0].usage.turns] == [10, 15]
    assert (conversation.usage.output_tokens, conversation.usage.total_input_tokens) == (21, 35)
    assert conversation.usage.exact


def test_the_usage_of_a_cut_answer_is_a_lower_bound() -> None:
    conversation, _ = talk(cut(HELLO[:3]))
    run(fail(conversation))
    assert (conversation.turns[0].usage.output_tokens, conversation.usage.exact) == (1, False)


# --- Saving --------------------------------------------------------------------------------------------------------


def test_its_fields_are_the_arguments_of_the_next_request_and_may_be_changed() -> None:
    conversation, script = talk(HELLO, HELLO, system="x")
    run(conversation.ask("one"))
    conversation.fields |= {"model": "n", "system": "y"}
    run(conversation.ask("two"))
    assert [(request["model"], request["system"]) for request in script.requests] == [("m", "x"), ("n", "y")]


def test_a_lens_in_a_question_is_sent_as_its_json() -> None:
    conversation, _ = talk()
    assert conversation.stream([Lens({"type": "text", "text": "x"})])._question == [{"type": "text", "text": "x"}]  # type: ignore[list-item]
