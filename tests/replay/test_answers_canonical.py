"""rawsse.replay.answers: what means the same is equal, and what does not is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rawsse.replay.answers import IGNORED_FIELDS, asked_key, canonical

HI = {"role": "user", "content": "Hi"}
KEY = "sk-ant-api03-" + "abcDEF0123456789" * 5


def asking(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": list(messages or [HI]), **fields}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def call(id: str, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "dice", "input": {}, **fields}]}


def result(id: str, content: Any = "6", **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": content, **fields}]}


def tool(**fields: Any) -> dict[str, Any]:
    return {"name": "dice", "input_schema": {"type": "object"}, **fields}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (asking(), asking(stream=True)),
        (asking(), asking(stream=False, metadata={"user_id": "u"}, service_tier="auto")),
        (asking(), asking(cache_control={"type": "ephemeral"}, system=None, temperature=None)),
        (asking(), asking(container="container_1")),
        (asking(container={"id": "a", "skills": []}), asking(container={"skills": []})),
        (asking(temperature=1), asking(temperature=1.0)),
        (asking(system="Be brief."), asking(system=[text("Be brief.")])),
        (asking(), asking({"content": [text("Hi")], "role": "user"})),
        (asking(), asking({"role": "user", "content": [text("Hi") | {"cache_control": {"type": "ephemeral"}}]})),
        (asking(), asking({"role": "user", "content": [text("Hi") | {"citations": None}]})),
        (asking(), asking({"role": "user", "content": [text("Hi") | {"citations": []}]})),
        (
            asking({"role": "user", "content": [text("a"), text("b")]}),
            asking(*({"role": "user", "content": c} for c in "ab")),
        ),
        (asking(HI, call("a"), result("a")), asking(HI, call("b"), result("b"))),
        (asking(HI, call("a"), result("a")), asking(HI, call("a"), result("a", [text("6")], is_error=False))),
        (asking(HI, call("a")), asking(HI, call("a", caller={"type": "direct"}))),
        (asking(tools=[tool()]), asking(tools=[tool(type="custom", cache_control={"type": "ephemeral"})])),
        (asking(mcp_servers=[{"url": "u"}]), asking(mcp_servers=[{"url": "u", "authorization_token": "t"}])),
    ],
)
def test_bodies_that_ask_the_same_are_equal(one: Any, other: Any) -> None:
    assert canonical(one) == canonical(other)


TWO_CALLS = {"role": "assistant", "content": [*call("a")["content"], *call("b")["content"]]}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (asking(), asking(model="n")),
        (asking(), asking(max_tokens=10)),
        (asking(), asking({"role": "user", "content": "hi"})),
        (asking(), asking({"role": "assistant", "content": "Hi"})),
        (asking(system="Be brief."), asking()),
        (asking(tools=[tool(), tool(name="coin")]), asking(tools=[tool(name="coin"), tool()])),
        (asking(tools=[tool()]), asking(tools=[tool(input_schema={"type": "object", "default": None})])),
        (asking(call("a", input={"side": None})), asking(call("a"))),
        (asking(call("a", input={"cache_control": 1})), asking(call("a"))),
        (asking(call("a", input={"tool_use_id": "x"})), asking(call("a", input={"tool_use_id": "y"}))),
        (asking(call("a", input={"content": "x"})), asking(call("a", input={"content": [text("x")]}))),
        (asking(call("a"), result("a", is_error=True)), asking(call("a"), result("a"))),
        (asking(TWO_CALLS, result("a")), asking(TWO_CALLS, result("b"))),
        (asking({"role": "user", "content": "ab"}), asking(*({"role": "user", "content": c} for c in "ab"))),
        (asking(call("a", caller={"type": "code_execution_20260120", "tool_id": "s"})), asking(call("a"))),
    ],
)
def test_bodies_that_ask_something_else_are_not(one: Any, other: Any) -> None:
    assert canonical(one) != canonical(other)


def test_the_form_is_plain_json() -> None:
    body = asking(HI, call("toolu_01A"), result("toolu_01A"), stream=True)
    assert canonical(body) == {
        "model": "m",
        "max_tokens": 9,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "call 1", "name": "dice", "input": {}}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call 1", "content": [{"type": "text", "text": "6"}]}
                ],
            },
        ],
    }


def test_calls_of_the_servers_own_tools_are_numbered_too() -> None:
    used = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    found = {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_1",
        "caller": {"type": "x", "tool_id": "srvtoolu_1"},
    }
    content = canonical(asking({"role": "assistant", "content": [used, found]}))["messages"][0]["content"]
    assert (content[0]["id"], content[1]["tool_use_id"], content[1]["caller"]["tool_id"]) == ("call 1",) * 3


def test_turns_that_say_more_than_their_content_are_not_merged() -> None:
    noted = {"role": "system", "content": "a", "clear_at": "never"}
    assert len(canonical(asking(noted, noted))["messages"]) == 2


@pytest.mark.parametrize("field", IGNORED_FIELDS)
def test_an_ignored_field_is_ignored_at_the_top_only(field: str) -> None:
    assert canonical({field: "x"}) == {}
    assert field == "cache_control" or canonical({"thinking": {field: "x"}}) == {"thinking": {field: "x"}}


@pytest.mark.parametrize(
    "body",
    [
        None,
        "text",
        5,
        [],
        {},
        {"messages": 5},
        {"messages": [5, None, "x", [], {}]},
        {"messages": [{"role": "user"}, {"role": "user"}]},
        {"messages": [{"role": 5, "content": None}, {"role": ["x"], "content": [5]}]},
        {"messages": [{"role": "assistant", "content": [{"type": 5, "id": 7, "tool_use_id": None}]}]},
        {"container": 5, "system": 5, "tools": {"type": "custom"}},
    ],
)
def test_whatever_json_comes_has_a_form_which_is_its_own_form(body: Any) -> None:
    assert canonical(canonical(body)) == canonical(body)


def test_the_body_itself_stays_as_it_is() -> None:
    body = asking(HI, HI, call("a"), container={"id": "c"})
    canonical(body)
    assert body == asking(HI, HI, call("a"), container={"id": "c"})


def test_what_a_recording_does_not_show_is_hidden_in_what_is_asked() -> None:
    key = asked_key(asking({"role": "user", "content": f"My key is {KEY}."}))
    assert "abcDEF" not in key
    assert "My key is sk-ant-api03-***" in key


def test_a_body_without_secrets_stays_as_it_is() -> None:
    assert json.loads(asked_key(asking())) == canonical(asking())
    assert asked_key(None) == "null"
