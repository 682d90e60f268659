"""What may be sent back to the API: for each rule an answer (or two) in, and the next request out. The rules are those of
Anthropic's pages on tool use, server tools, thinking, programmatic tool calling, fallback and compaction. Every history that
is sent is checked as the API checks it (`support.asking`)."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from support.answers import answer
from support.asking import Script, calling, check_history, saying
from support.clock import run
from support.streams import STOP, Raw, block, block_start, delta, end, fold, input_delta, start

from rawsse.client.network.route import Route
from rawsse.client.request import Endpoint, credential
from rawsse.client.tools.conversation import Conversation
from rawsse.client.tools.runner import ToolRunner, add_up, usage_of
from rawsse.client.tools.tool import Tool, Toolbox, content_of, tool
from rawsse.errors import APIError, ConfigurationError
from rawsse.messages import Message
from rawsse.replay.fakes import FakeStream

USER = {"role": "user", "content": "one"}
ASK: dict[str, Any] = {"model": "m", "max_tokens": 9}
DONE = saying("Done.")

TEXT = {"type": "text", "text": "Hm."}
MORE = {"type": "text", "text": "So."}
BLANK = {"type": "text", "text": " \n"}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
UNSIGNED = {"type": "thinking", "thinking": "hm", "signature": ""}
REDACTED = {"type": "redacted_thinking", "data": "ZA=="}
CONNECTOR = {"type": "connector_text", "connector_text": "Now"}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
MCP = {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "f", "server_name": "s", "input": {}}
CODE = {"type": "server_tool_use", "id": "srvtoolu_2", "name": "code_execution", "input": {"code": "f()"}}
CODE_RAN = {"type": "code_execution_tool_result", "tool_use_id": "srvtoolu_2", "content": {}}
BY_CODE = {"caller": {"type": "code_execution_20260120", "tool_id": "srvtoolu_2"}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "x"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "seen x"}
FALLBACK = {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}}
SUMMARY = {"type": "compaction", "content": "So far.", "encrypted_content": "ZA=="}
FAILED_SUMMARY = {"type": "compaction", "content": None}


def events_of(*blocks: Raw, reason: str | None = "end_turn", **fields: Any) -> list[Raw]:
    """The events of an answer with these blocks; without a reason it ends after them."""
    whole = [event for index, raw in enumerate(blocks) for event in block(index, raw)]
    return [start(**fields), *whole, *([end(reason), STOP] if reason else [])]


def folded(events: list[Raw]) -> Message:
    message = fold(events).message
    assert message is not None
    return message


def played(events: list[Raw]) -> FakeStream:
    """An answer of these events; the connection breaks after them if the last is missing."""
    text = answer(events)
    return FakeStream([text if events[-1] is STOP else text.removesuffix(b"0\r\n\r\n")])


def assistant(*blocks: Raw) -> Raw:
    return {"role": "assistant", "content": list(blocks)}


@tool
async def look(at: str) -> str:
    return f"seen {at}"


# --- Rules 1, 3, 4, 6, 8, 10: what stays of an answer -----------------------------------------------------------------

CUT = None

ANSWERS: dict[str, tuple[str | None, list[Raw], Any]] = {
    # name: (stop reason, the blocks of the answer, what of them is sent back)
    "1 thinking alone, cut": (CUT, [SIGNED], []),
    "1 thinking alone": ("max_tokens", [SIGNED], []),
    "1 thinking at the end": ("max_tokens", [TEXT, SIGNED], [TEXT]),
    "1 several at the end": ("max_tokens", [SIGNED, TEXT, SIGNED, REDACTED], [SIGNED, TEXT]),
    "1 redacted thinking at the end": ("end_turn", [REDACTED], []),
    "1 before a text that is blank": ("max_tokens", [TEXT, SIGNED, BLANK], [TEXT]),
    "1 before a server's call that goes": (CUT, [TEXT, SIGNED, SEARCH], [TEXT]),
    "2 unsigned thinking": ("end_turn", [UNSIGNED, TEXT], [TEXT]),
    "2 signed thinking": ("end_turn", [SIGNED, TEXT], [SIGNED, TEXT]),
    "3 a server's call without result": ("end_turn", [TEXT, SEARCH], [TEXT]),
    "3 an MCP server's call without result": ("end_turn", [TEXT, MCP], [TEXT]),
    "3 with its result": ("end_turn", [SEARCH, FOUND, TEXT], [SEARCH, FOUND, TEXT]),
    "4 a call of code that goes, with its result": (
        CUT,
        [TEXT, CODE, {**SEARCH, **BY_CODE}, {**FOUND, **BY_CODE}],
        [TEXT],
    ),
    "4 a call of code that stays": ("end_turn", [CODE, {**SEARCH, **BY_CODE}, {**FOUND, **BY_CODE}, CODE_RAN], "all"),
    "6 before a fallback": (
        "end_turn",
        [SIGNED, REDACTED, CONNECTOR, TEXT, CALL, FALLBACK, SIGNED, MORE],
        [TEXT, FALLBACK, SIGNED, MORE],
    ),
    "6 before the last of two fallbacks": (
        "end_turn",
        [SIGNED, FALLBACK, SIGNED, TEXT, FALLBACK, MORE],
        [FALLBACK, TEXT, FALLBACK, MORE],
    ),
    "6 a server's call before a fallback": (
        "end_turn",
        [SEARCH, FOUND, CODE, FALLBACK, MORE],
        [SEARCH, FOUND, FALLBACK, MORE],
    ),
    "6 a fallback alone": (CUT, [SIGNED, FALLBACK, SIGNED], []),
    "8 blank texts": ("end_turn", [BLANK, TEXT, {"type": "text", "text": ""}], [TEXT]),
    "8 nothing else": ("end_turn", [BLANK], []),
    "10 a compaction": ("end_turn", [SUMMARY, TEXT], [SUMMARY, TEXT]),
    "10 a compaction that failed": ("end_turn", [FAILED_SUMMARY, TEXT], [FAILED_SUMMARY, TEXT]),
    "10 a compaction of nothing": ("end_turn", [{"type": "compaction", "content": ""}, TEXT], [TEXT]),
}
rows = pytest.mark.parametrize(("reason", "blocks", "kept"), ANSWERS.values(), ids=list(ANSWERS))


@rows
def test_what_stays_of_an_answer(reason: str | None, blocks: list[Raw], kept: Any) -> None:
    kept = blocks if kept == "all" else kept
    assert folded(events_of(*blocks, reason=reason)).replayable() == (assistant(*kept) if kept else None)


@rows
def test_what_a_conversation_sends_back(reason: str | None, blocks: list[Raw], kept: Any) -> None:
    kept = blocks if kept == "all" else kept
    script = Script(played(events_of(*blocks, reason=reason)), DONE)
    conversation = Conversation(script, **ASK, tools=[look], cut_note="")
    if reason:
        run(conversation.ask("one"))
    else:
        with pytest.raises(APIError):
            run(conversation.ask("one"))
    check_history([*conversation.messages, {"role": "user", "content": "?"}])
    run(conversation.ask("two"))
    sent = script.requests[1]["messages"]
    if kept:
        assert sent == [USER, assistant(*kept), {"role": "user", "content": "two"}]
    else:  # the roles alternate
        assert sent == [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]


@pytest.mark.parametrize(
    "blocks", [[TEXT, SIGNED, CALL], [TEXT, SIGNED, CODE, {**CALL, **BY_CODE}]], ids=["", "of code"]
)
def test_1_thinking_before_a_call_that_goes(blocks: list[Raw]) -> None:
    script = Script(events_of(*blocks, reason="max_tokens"), DONE)
    conversation = Conversation(script, **ASK, tools=[look])
    run(conversation.ask("one"))
    run(conversation.ask("two"))
    assert script.requests[1]["messages"][1] == assistant(TEXT)


def test_4_a_cut_answer_keeps_the_code_whose_call_it_keeps() -> None:
    call = {**CALL, **BY_CODE}
    assert folded(events_of(SEARCH, CODE, call, reason=CUT)).replayable() == assistant(CODE, call)


# --- Rules 2, 3, 4, 6: what the tool loop sends back ------------------------------------------------------------------

LOOPS: dict[str, tuple[str, list[Raw], Any, list[Raw]]] = {
    # name: (stop reason, the blocks of the answer, what of them is sent back, the results)
    "2 signed thinking before a call": ("tool_use", [SIGNED, CALL], [SIGNED, CALL], [RESULT]),
    "2 unsigned thinking before a call": ("tool_use", [UNSIGNED, CALL], [CALL], [RESULT]),
    "3a a server's call, paused": ("pause_turn", [TEXT, SEARCH], [TEXT, SEARCH], []),
    "3b a server's call beside a client's": ("tool_use", [SEARCH, CALL], [SEARCH, CALL], [RESULT]),
    "3b thinking between them": ("tool_use", [SIGNED, SEARCH, SIGNED, CALL], "all", [RESULT]),
    "4 a call of code": ("tool_use", [TEXT, CODE, {**CALL, **BY_CODE}], "all", [RESULT]),
    "6 a call before a fallback": (
        "tool_use",
        [TEXT, {**CALL, "id": "old"}, FALLBACK, CALL],
        [TEXT, FALLBACK, CALL],
        [RESULT],
    ),
    "6 a server's call before a fallback, paused": ("pause_turn", [CODE, FALLBACK, SEARCH], [FALLBACK, SEARCH], []),
    "6 a server's call before a fallback": ("tool_use", [SEARCH, FALLBACK, CALL], [FALLBACK, CALL], [RESULT]),
    "10 a compaction that pauses": ("compaction", [SUMMARY], [SUMMARY], []),
}


@pytest.mark.parametrize(("reason", "blocks", "kept", "results"), LOOPS.values(), ids=list(LOOPS))
def test_what_the_tool_loop_sends_back(reason: str, blocks: list[Raw], kept: Any, results: list[Raw]) -> None:
    script = Script(events_of(*blocks, reason=reason), DONE)
    runner: ToolRunner[Message] = ToolRunner(script, **ASK, messages=[USER], tools=[look])
    run(runner.until_done())
    turn = assistant(*(blocks if kept == "all" else kept))
    sent = [USER, turn, *([{"role": "user", "content": results}] if results else [])]
    assert script.requests[1]["messages"] == sent
    assert runner.messages == [*sent, assistant({"type": "text", "text": "Done."})]


def test_3_a_call_that_stays_and_its_result_in_the_next_answer_are_sent_unchanged_ever_after() -> None:
    script = Script(events_of(SEARCH, CALL, reason="tool_use"), events_of(FOUND, TEXT), DONE)
    conversation = Conversation(script, **ASK, tools=[look])
    run(conversation.ask("one"))
    run(conversation.ask("two"))
    results = {"role": "user", "content": [RESULT]}
    assert script.requests[2]["messages"][:4] == [USER, assistant(SEARCH, CALL), results, assistant(FOUND, TEXT)]


@pytest.mark.parametrize(
    ("blocks", "kept"),
    [
        ([SEARCH, CALL], [assistant(CALL), {"role": "user", "content": [RESULT, {"type": "text", "text": "two"}]}]),
        ([TEXT, CODE, {**CALL, **BY_CODE}], [assistant(TEXT), {"role": "user", "content": "two"}]),
        ([SIGNED, CODE, {**CALL, **BY_CODE}], []),
    ],
    ids=["a search", "code that called it", "nothing else"],
)
@pytest.mark.parametrize("way", ["max_turns", "failure"])
def test_3_a_server_s_call_goes_when_a_question_follows_the_results(
    blocks: list[Raw], kept: list[Raw], way: str
) -> None:
    """The API runs it only if nothing but the results follows."""
    broken = [FakeStream([answer([start()]).removesuffix(b"0\r\n\r\n")])] if way == "failure" else []
    script = Script(events_of(*blocks, reason="tool_use"), *broken, DONE)
    conversation = Conversation(script, **ASK, tools=[look], max_turns=5 if broken else 1, cut_note="")

    async def story() -> None:
        if broken:
            with pytest.raises(APIError):
                await conversation.ask("one")
        else:
            await conversation.ask("one")
        await conversation.ask("two")

    run(story())
    both = {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}
    assert script.requests[-1]["messages"] == ([USER, *kept] if kept else [both])


def test_3_a_runner_that_is_asked_on_after_a_pause_sends_no_call_without_result() -> None:
    script = Script(events_of(TEXT, SEARCH, reason="pause_turn"), DONE)
    runner: ToolRunner[Message] = ToolRunner(script, **ASK, messages=[USER], max_turns=1)
    run(runner.until_done())
    runner.append_messages({"role": "user", "content": "two"})
    run(runner.until_done())
    assert script.requests[1]["messages"] == [USER, assistant(TEXT), {"role": "user", "content": "two"}]


@pytest.mark.parametrize("blocks", [[], [BLANK], [SIGNED]], ids=["empty", "blank", "thinking"])
def test_8_a_turn_of_nothing_in_a_runner_s_messages_goes(blocks: list[Raw]) -> None:
    script = Script(DONE)
    two = {"role": "user", "content": "two"}
    messages: list[Any] = [USER, Message(assistant(*blocks)), two]
    run(ToolRunner[Message](script, **ASK, messages=messages).until_done())
    run(ToolRunner[Message](given := Script(DONE), **ASK, messages=[USER, assistant(*blocks), two]).until_done())
    joined = [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]
    assert script.requests[0]["messages"] == given.requests[0]["messages"] == joined


@pytest.mark.parametrize(
    ("content", "kept"),
    [([BLANK, TEXT, BLANK], [TEXT]), ([BLANK], []), ([TEXT], [TEXT]), ("x", "x"), ([{"type": "text", "text": ""}], [])],
)
@pytest.mark.parametrize("asker", [ToolRunner, Conversation])
def test_8_a_blank_text_in_a_tool_s_result_that_the_caller_gives_goes(asker: Any, content: Any, kept: Any) -> None:
    results = [{"role": "user", "content": [{**RESULT, "content": content}]}]
    given = [USER, assistant(CALL), *results]
    if asker is ToolRunner:
        run(ToolRunner[Message](script := Script(DONE), **ASK, messages=given).until_done())
    else:
        run(Conversation(script := Script(DONE), **ASK, messages=given).ask("one"))
    (result, *_) = script.requests[0]["messages"][2]["content"]
    assert result == {**RESULT, "content": kept}
    assert results[0]["content"] == [{**RESULT, "content": content}], "the caller's own has not changed"


def test_6_a_call_of_a_model_that_was_replaced_is_neither_run_nor_answered() -> None:
    ran: list[str] = []

    @tool(name="look")
    async def note(at: str) -> str:
        ran.append(at)
        return "seen x"

    script = Script(events_of({**CALL, "id": "old", "input": {"at": "old"}}, FALLBACK, CALL, reason="tool_use"), DONE)
    run(ToolRunner[Message](script, **ASK, messages=[USER], tools=[note]).until_done())
    assert ran == ["x"]


# --- Rule 5: the container --------------------------------------------------------------------------------------------

BOX = {"id": "container_1", "expires_at": "2026-01-01T00:00:00Z"}
IN_DELTA = {"type": "message_delta", "delta": {"stop_reason": "tool_use", "container": BOX}, "usage": {}}


def containers(first: list[Raw], *others: Any, **fields: Any) -> list[Any]:
    """The container of each request of a runner that runs on these answers."""
    script = Script(first, *others, DONE)
    run(ToolRunner[Message](script, **ASK, messages=[USER], tools=[look], **fields).until_done())
    return [request.get("container") for request in script.requests]


def test_5_the_container_of_an_answer_goes_into_the_next_request() -> None:
    in_start = events_of(CODE, {**CALL, **BY_CODE}, reason="tool_use", container=BOX)
    in_delta = [*events_of(CODE, {**CALL, **BY_CODE}, reason=None), IN_DELTA, STOP]
    assert containers(in_start) == [None, "container_1"]
    assert containers(in_delta) == [None, "container_1"]
    paused = events_of(CODE, reason="pause_turn", container=BOX)
    assert containers(paused, events_of(CODE_RAN, SEARCH, reason="pause_turn")) == [None, "container_1", "container_1"]


def test_5_the_user_s_container_is_sent_until_an_answer_names_another() -> None:
    call = events_of(CALL, reason="tool_use")
    named = events_of(CALL, reason="tool_use", container=BOX)
    skills = {"skills": [{"type": "anthropic", "skill_id": "pdf"}]}
    assert containers(call, container="mine") == ["mine", "mine"]
    assert containers(named, container="mine") == ["mine", "container_1"]
    assert containers(named, container=skills) == [skills, {**skills, "id": "container_1"}]


def test_5_parameters_that_name_no_container_keep_it() -> None:
    async def story() -> Any:
        script = Script(events_of(CALL, reason="tool_use", container=BOX), DONE)
        runner: ToolRunner[Message] = ToolRunner(script, **ASK, messages=[USER], tools=[look])
        await anext(runner)
        runner.set_messages_params({"model": "m2", "max_tokens": 9})
        await runner.until_done()
        return script.requests[1]

    asked = run(story())
    assert (asked["model"], asked["container"]) == ("m2", "container_1")


@pytest.mark.parametrize("reason", ["end_turn", CUT])
def test_5_a_conversation_goes_on_in_the_container_of_its_last_answer_also_when_another_continues_it(
    reason: str | None,
) -> None:
    script = Script(played(events_of(CODE, CODE_RAN, TEXT, reason=reason, container=BOX)), DONE, DONE)
    conversation = Conversation(script, **ASK)

    async def story() -> None:
        if reason:
            await conversation.ask("one")
        else:
            with pytest.raises(APIError):
                await conversation.ask("one")
        again = Conversation(script, **conversation.fields, messages=conversation.messages)
        await conversation.ask("two")
        await again.ask("two")

    run(story())
    assert [request.get("container") for request in script.requests] == [None, "container_1", "container_1"]


# --- Rule 7: halves of surrogate pairs ---------------------------------------------------------------------------------

HALF, OTHER, NO_CHAR = "\ud83d", "\ude00", "\ufffd"


def sent_text(body: dict[str, Any]) -> Any:
    """The JSON of a request as the API reads it."""
    endpoint = Endpoint("http://127.0.0.1:9", credential("k", None), {})
    return json.loads(endpoint.request("POST", "/v1/messages", route=Route(endpoint.origin), body=body).body)


def test_7_a_lone_half_is_a_replacement_character_wherever_text_is_sent() -> None:
    body = {"system": HALF, "messages": [{"role": "user", "content": [{"text": f"a{OTHER}", "input": {HALF: [HALF]}}]}]}
    assert sent_text(body) == {
        "system": NO_CHAR,
        "messages": [{"role": "user", "content": [{"text": f"a{NO_CHAR}", "input": {NO_CHAR: [NO_CHAR]}}]}],
    }


def test_7_two_halves_become_the_character() -> None:
    assert sent_text({"x": HALF + OTHER, "y": "\\ud83d"}) == {"x": "\U0001f600", "y": "\\ud83d"}


def test_7_an_answer_is_sent_back_as_unicode_text() -> None:
    text = {"type": "text", "text": f"{HALF}{OTHER} {HALF}"}
    call = {**CALL, "input": {HALF: OTHER}}
    kept: Raw = {**CALL, "input": {NO_CHAR: NO_CHAR}}
    expected = assistant({"type": "text", "text": f"\U0001f600 {NO_CHAR}"}, kept)
    assert Message({"content": [text, call]}).replayable() == expected


def test_7_a_tool_s_result_is_unicode_text() -> None:
    assert content_of(HALF) == NO_CHAR
    assert content_of([{"type": "text", "text": HALF + OTHER}]) == [{"type": "text", "text": "\U0001f600"}]


def test_7_the_history_of_a_conversation_with_halves_can_be_saved_and_begins_another() -> None:
    escaped = answer(saying("half  ")).replace(b"half  ", b"\\ud83d")
    script = Script(FakeStream([escaped]), DONE)
    conversation = Conversation(script, **ASK)
    assert run(conversation.ask(HALF)).raw["content"][0]["text"] == NO_CHAR
    again = Conversation(script, **ASK, messages=json.loads(json.dumps(conversation.messages)))
    run(again.ask("two"))
    question, given = sent_text(script.requests[-1])["messages"][:2]
    assert (question, given) == ({"role": "user", "content": NO_CHAR}, assistant({"type": "text", "text": NO_CHAR}))


# --- Rule 8: nothing -----------------------------------------------------------------------------------------------------


def test_8_blank_texts_of_the_user_go() -> None:
    script = Script(DONE)
    messages: list[Raw] = [{"role": "user", "content": [BLANK, TEXT]}, {"role": "assistant", "content": " "}, USER]
    run(ToolRunner[Message](script, **ASK, messages=messages).until_done())
    assert script.requests[0]["messages"] == [{"role": "user", "content": [TEXT, {"type": "text", "text": "one"}]}]


def test_8_blank_texts_of_a_tool_s_result_go() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "http://x"}}
    assert content_of([BLANK, image]) == [image]
    assert content_of([BLANK]) == []


# --- Rule 9: tools that are withdrawn ------------------------------------------------------------------------------------


def change(kind: str, name: str = "look") -> Raw:
    return {"type": f"tool_{kind}", "tool": {"type": "tool_reference", "name": name}}


def system(*blocks: Raw) -> Raw:
    return {"role": "system", "content": list(blocks)}


DEFINED = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": look.to_dict()}}
MCP_CHANGE = {"type": "tool_removal", "tool": {"type": "mcp_tool_reference", "name": "look", "server_name": "s"}}


@pytest.mark.parametrize(
    ("messages", "runs"),
    [
        ([USER, system(change("removal"))], False),
        ([USER, system(change("removal"), change("addition"))], True),
        ([USER, system(change("removal")), assistant(TEXT), {"role": "user", "content": "?"}, system(DEFINED)], True),
        ([USER, system(change("removal", "other"))], True),
        ([USER, system(MCP_CHANGE)], True),
        ([USER, system({"type": "tool_removal"}, {"type": "tool_removal", "tool": {}}, TEXT)], True),
        ([USER, {"role": "system", "content": "Be brief."}], True),
        ([USER, assistant({**SUMMARY, "tool_changes": [change("removal")]}), USER], False),
        ([{"role": "user", "content": [change("removal")]}], True),  # a user cannot withdraw one
    ],
    ids=["removed", "brought back", "defined again", "another", "of an MCP server", "odd", "text", "compacted", "user"],
)
def test_9_a_tool_that_was_withdrawn_is_not_run(messages: list[Raw], runs: bool) -> None:
    script = Script(events_of(CALL, reason="tool_use"), DONE)
    runner: ToolRunner[Message] = ToolRunner(script, **ASK, messages=messages, tools=[look])
    run(runner.until_done())
    [result] = script.requests[1]["messages"][-1]["content"]
    assert result.get("is_error", False) is not runs
    assert ("not found" in result["content"]) is not runs


def test_9_a_tool_that_is_withdrawn_before_its_call_runs_does_not_run() -> None:
    async def story() -> Any:
        script = Script(events_of(CALL, reason="tool_use"), DONE)
        runner: ToolRunner[Message] = ToolRunner(script, **ASK, messages=[USER], tools=[look])
        await anext(runner)
        runner.append_messages(system(change("removal")))
        await runner.until_done()
        return script.requests[1]["messages"]

    _, _, results, withdrawn = run(story())
    assert results["content"][0]["is_error"] is True
    assert withdrawn == system(change("removal"))


# --- Rule 10: compaction -------------------------------------------------------------------------------------------------


def test_10_the_content_of_a_compaction_comes_in_one_delta_and_is_set() -> None:
    events = [
        start(),
        block_start(0, {"type": "compaction", "content": "old", "signature": "c2ln"}),
        delta(0, "compaction_delta", content="So far.", encrypted_content="ZA=="),
        {"type": "content_block_stop", "index": 0},
        end("compaction"),
        STOP,
    ]
    assert folded(events).replayable() == assistant({**SUMMARY, "signature": "c2ln"})


def test_10_a_compaction_that_was_cut_goes() -> None:
    assert folded([start(), block_start(0, {"type": "compaction", "content": None})]).replayable() is None


# --- Rule 11: names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.b", "a b", "né", "x" * 129, "a/b", "a\n"])
def test_11_a_name_that_the_api_refuses_is_refused_when_the_tool_is_made(name: str) -> None:
    def f() -> None: ...

    f.__name__ = name
    for make in (lambda: Tool(f), lambda: tool(look.function, name=name), lambda: Toolbox([{"name": name}])):
        with pytest.raises(ConfigurationError, match=r"^the API takes no tool with the name "):
            make()


@pytest.mark.parametrize("name", ["a", "get-weather_2", "X" * 128])
def test_11_other_names_are_not(name: str) -> None:
    assert Tool(len, name=name, input_schema={}).name == name


@pytest.mark.parametrize("name", ["a.b", "functions.look:0", "x" * 200, None, ""])
def test_11_a_name_that_the_model_made_up_is_not_sent_back_as_it_is(name: Any) -> None:
    script = Script(events_of({**CALL, "name": name}, reason="tool_use"), DONE)
    run(ToolRunner[Message](script, **ASK, messages=[USER], tools=[look]).until_done())
    _, turn, results = script.requests[1]["messages"]
    Tool(len, name=turn["content"][0]["name"], input_schema={})
    assert "not found" in results["content"][0]["content"]


# --- Rules 12 and 14: what no JSON can carry -----------------------------------------------------------------------------

INFINITE = ['{"at": 1e999}', '{"at": -1e999}', '{"at": [{"x": 1E+400}]}', '{"at": Infinity}', '{"at": NaN}']


@pytest.mark.parametrize("text", ['{"at": "x', "[1]", "null", "1", "{} {}", *INFINITE])
def test_12_a_call_whose_input_is_no_json_object_never_runs_and_its_text_is_what_is_sent_back(text: str) -> None:
    ran: list[Any] = []
    script = Script(calling(("look", text)), DONE)
    note = tool(lambda **given: ran.append(given), name="look", input_schema={"type": "object"})
    run(ToolRunner[Message](script, **ASK, messages=[USER], tools=[note]).until_done())
    _, turn, results = script.requests[1]["messages"]
    assert ran == []
    assert turn["content"][0]["input"] == {"INVALID_JSON": text}
    assert results["content"][0]["is_error"] is True


@pytest.mark.parametrize("text", ['{"at": "x', *INFINITE])
def test_12_such_a_call_is_no_part_of_what_may_be_sent_back(text: str) -> None:
    assert folded([start(), *block(0, {**CALL, "input": {}}, input_delta(0, text))]).replayable() is None


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_14_a_number_that_json_cannot_carry_is_never_sent(number: float) -> None:
    at_once = {**CALL, "input": {"at": number}}
    results = {**FOUND, "content": [{"score": number}]}
    cited = {**TEXT, "citations": [{"start": number}]}
    script = Script(events_of(SEARCH, results, cited, at_once, reason="tool_use"), DONE, DONE)
    conversation = Conversation(script, **ASK, tools=[look])
    run(conversation.ask("one"))
    run(conversation.ask("two"))
    for request in script.requests:
        json.dumps(request["messages"], allow_nan=False)
    _, turn, answered, *_ = conversation.messages
    assert turn["content"][:3] == [
        SEARCH,
        {**FOUND, "content": [{"score": None}]},
        {**TEXT, "citations": [{"start": None}]},
    ]
    assert answered["content"][0]["is_error"] is True
    json.dumps(conversation.messages, allow_nan=False)


WAYS = {
    "content": lambda message: message.content,
    "raw": lambda message: message.raw["content"],
    "dump": lambda message: message.model_dump()["content"],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("asker", [ToolRunner, Conversation])
def test_14_an_answer_that_the_caller_gives_back_is_sent_without_such_numbers(asker: Any, way: Any) -> None:
    message = folded(
        events_of({**TEXT, "score": float("nan"), "in": [float("inf"), 1.5]}, {"type": "new", "n": -math.inf})
    )
    given = [USER, {"role": "assistant", "content": way(message)}, USER]
    asked = asker(script := Script(DONE), **ASK, messages=given[: 3 if asker is ToolRunner else 2])
    run(asked.until_done() if asker is ToolRunner else asked.ask("one"))
    sent = json.loads(json.dumps(script.requests[0]["messages"], allow_nan=False))
    text, new = sent[1]["content"]
    assert (text["text"], text["score"], text["in"], new) == ("Hm.", None, [None, 1.5], {"type": "new", "n": None})


def test_14_a_conversation_that_begins_with_such_an_answer_can_be_saved() -> None:
    given = [USER, assistant({**TEXT, "score": float("inf")}, {**CALL, "input": {"at": float("nan")}})]
    conversation = Conversation(Script(), **ASK, messages=given)
    again = Conversation(Script(), **ASK, messages=json.loads(json.dumps(conversation.messages, allow_nan=False)))
    assert again.messages == conversation.messages == [USER, assistant({**TEXT, "score": None})]


def test_14_such_a_number_in_a_caller_s_own_turn_is_an_error() -> None:
    own = {"role": "user", "content": [{**TEXT, "score": float("inf")}]}
    with pytest.raises(ConfigurationError, match="cannot be written as JSON"):
        run(ToolRunner[Message](Script(DONE), **ASK, messages=[own]).until_done())


def test_14_a_tool_s_result_is_sent_whatever_numbers_are_in_it() -> None:
    blocks = content_of([{"type": "text", "text": "x", "score": float("inf")}])
    assert blocks == [{"type": "text", "text": "x", "score": None}]
    assert content_of([float("inf")]) == "[Infinity]"


def test_14_usage_with_such_a_number_can_be_saved() -> None:
    events = [*events_of(TEXT, reason=None), end("end_turn", output_tokens=float("inf")), STOP]
    conversation = Conversation(Script(events), **ASK)
    run(conversation.ask("one"))
    json.dumps(conversation.usage.raw, allow_nan=False)


# --- Rule 13: the cost ---------------------------------------------------------------------------------------------------

TOP = {"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 5}
OWN = {**TOP, "cache_creation_input_tokens": 0, "cache_creation": None}
COMPACTION = {"type": "compaction", "input_tokens": 5000, "output_tokens": 300}
ADVISOR = {"type": "advisor_message", "model": "b", "input_tokens": 7, "output_tokens": 3}
REPLACED = {"type": "message", "model": "a", "input_tokens": 90, "output_tokens": 4}


def cost(iterations: Any, **fields: Any) -> tuple[int, int, bool]:
    total = add_up([usage_of(Message({"usage": {**TOP, "iterations": iterations, **fields}}), exact=True)])
    return total.input_tokens, total.output_tokens, total.exact


@pytest.mark.parametrize(
    ("iterations", "expected"),
    [
        (None, (100, 10, True)),
        ([], (100, 10, True)),
        ([{"type": "message", **OWN}], (100, 10, True)),
        ([COMPACTION, {"type": "message", **OWN}], (5100, 310, True)),
        ([COMPACTION], (5100, 310, True)),
        ([{"type": "message", **OWN}, ADVISOR], (107, 13, True)),
        ([REPLACED, {"type": "fallback_message", "model": "b", **OWN}], (190, 14, True)),
        ([COMPACTION, {"type": "new", **OWN}], (100, 10, False)),
        ([COMPACTION, "x"], (100, 10, False)),
        ([{"type": "compaction"}], (100, 10, False)),
        ([{**COMPACTION, "input_tokens": "5"}], (100, 10, False)),
        ([{**COMPACTION, "output_tokens": True}], (100, 10, False)),
        ({"type": "compaction"}, (100, 10, False)),
    ],
    ids=str,
)
def test_13_sums_have_what_is_billed(iterations: Any, expected: tuple[int, int, bool]) -> None:
    assert cost(iterations) == expected


def test_13_other_counts_are_those_of_the_whole_answer() -> None:
    given = Message(
        {"usage": {**TOP, "iterations": [COMPACTION, OWN | {"type": "message"}], "server_tool_use": {"x": 2}}}
    )
    total = add_up([usage_of(given, exact=True)])
    assert (total.raw["cache_read_input_tokens"], total.raw["server_tool_use"]) == (5, {"x": 2})
    assert total.total_input_tokens == 5105
