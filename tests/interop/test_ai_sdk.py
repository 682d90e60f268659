"""The Vercel AI SDK: its provider against `/v1` of the relay, and the `Chat` behind its `useChat` against `/api/chat`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.background import PATIENCE, Background

import rawsse
from rawsse.relay import RunLimits
from rawsse.replay import Recording
from rawsse.server import Receive, Scope, Send, Server

from .conftest import Node, Start
from .stack import COMPLETE, message, recorded, refusal, text

pytestmark = pytest.mark.real

Script = Callable[..., Any]

FINISH_REASONS = {
    "end_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool-calls",
    "refusal": "content-filter",
}

PROVIDER = """
import { createAnthropic } from '@ai-sdk/anthropic';
import { generateText, streamText } from 'ai';
const model = createAnthropic({ baseURL: process.env.URL + '/v1', apiKey: 'any' })('claude-sonnet-5');
const options = { model, prompt: 'Hello', maxRetries: 0 };
const times = Number(process.env.TIMES);
const found = [];
"""

CHAT = """
import { Chat } from '@ai-sdk/react';
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls } from 'ai';
const transport = new DefaultChatTransport({ api: process.env.URL + '/api/chat' });
const times = Number(process.env.TIMES);
const found = [];
const errors = [];
const chatNamed = (id, more = {}) => new Chat({ id, transport, onError: (e) => errors.push(e.message), ...more });
const answer = (chat) => (chat.lastMessage?.role === 'assistant' ? chat.lastMessage.parts : []);
const texts = (chat) => answer(chat).filter((p) => p.type === 'text').map((p) => p.text).join('');
"""


WEB = Path(rawsse.__file__).parent / "web"
README = (WEB / "README.md").read_text(encoding="utf-8")
RECIPE = README.partition("## With the AI SDK's useChat")[2].partition("```jsx\n")[2].partition("export function")[0]
"""What the README of rawsse/web says about `useChat`; `tests/web/test_ai_js.py` has all of it, in a browser."""

BY_RECIPE = f"""
import {{ Chat }} from '@ai-sdk/react';
const stored = new Map();
globalThis.sessionStorage = {{
  getItem: (key) => stored.get(key) ?? null,
  setItem: (key, value) => stored.set(key, value),
  removeItem: (key) => stored.delete(key),
}};
globalThis.location = new URL(process.env.URL);
const plain = globalThis.fetch;
globalThis.fetch = (url, init) => plain(new URL(url, process.env.URL), init); // it takes a path, as a browser's does
{RECIPE.replace("rawsse/ai", (WEB / "ai.js").as_uri())}
const found = [];
const errors = [];
const chatNamed = (id) => new Chat({{ id, transport, onError: (e) => errors.push(e.message) }});
const until = async (is) => {{ while (!(await is())) await new Promise((wait) => setTimeout(wait, 5)); }};
"""


@pytest.fixture
def script(node: Node, packages: Callable[..., None]) -> Script:
    """Run a script against a relay; what it has `found`."""

    def script(opening: str, body: str, url: str, times: int = 1, **env: str) -> Any:
        packages("ai", "@ai-sdk/anthropic", "@ai-sdk/react")
        # The SDK's warnings about models that it does not know are no part of what is found.
        code = f"{opening}{body}\nconsole.log('\\n' + JSON.stringify(found))"
        return json.loads(node(code, URL=url, TIMES=str(times), **env).strip().rpartition("\n")[2])

    return script


ALL = [recorded(name) for name in COMPLETE]


def thoughts(name: str) -> str:
    return "".join(block["thinking"] for block in message(name)["content"] if block["type"] == "thinking")


def calls(name: str) -> list[Any]:
    """Every whole tool call as [name, input]: one that max_tokens cut is none."""
    blocks = [block for block in message(name)["content"] if block["type"] in ("tool_use", "server_tool_use")]
    return [[block["name"], block["input"]] for block in blocks if name != "max-tokens"]


# --- The provider ----------------------------------------------------------------------------------------------------


def test_stream_text_reads_every_answer(start: Start, script: Script) -> None:
    body = """for (let i = 0; i < times; i++) {
        const answer = streamText(options);
        found.push([await answer.text, await answer.reasoningText ?? '', await answer.finishReason,
                    (await answer.toolCalls).map((call) => [call.toolName, call.input])]);
    }"""
    found = script(PROVIDER, body, start(*ALL).base_url, len(ALL))
    reasons = [FINISH_REASONS[message(name)["stop_reason"]] for name in COMPLETE]
    wanted = [[text(name), thoughts(name), reason, calls(name)] for name, reason in zip(COMPLETE, reasons, strict=True)]
    assert dict(zip(COMPLETE, found, strict=True)) == dict(zip(COMPLETE, wanted, strict=True))


def test_generate_text_reads_every_answer(start: Start, script: Script) -> None:
    body = "for (let i = 0; i < times; i++) found.push((await generateText(options)).text);"
    assert script(PROVIDER, body, start(*ALL).base_url, len(ALL)) == [text(name) for name in COMPLETE]


def test_the_provider_is_told_of_a_failure_in_the_stream(start: Start, script: Script) -> None:
    body = """const answer = streamText({ ...options, onError: ({ error }) => found.push(error.message) });
        found.push(await answer.text, await answer.finishReason);"""
    found = script(PROVIDER, body, start(recorded("cut")).base_url)
    assert found == ["the connection was closed in the middle of the answer", text("cut"), "error"]


def test_the_provider_is_told_of_a_refusal(start: Start, script: Script) -> None:
    body = "await generateText(options).catch((e) => found.push(e.statusCode, e.message));"
    relay = start(refusal(401, "authentication_error", "invalid x-api-key"))
    assert script(PROVIDER, body, relay.base_url) == [401, "invalid x-api-key"]


# --- Chat: answers ---------------------------------------------------------------------------------------------------


def test_chat_reads_every_answer(start: Start, script: Script) -> None:
    body = """for (let i = 0; i < times; i++) {
        const chat = chatNamed('chat-' + i);
        await chat.sendMessage({ text: 'Hello' });
        const parts = chat.lastMessage.parts;
        found.push([chat.status, texts(chat), parts.filter((p) => p.type === 'reasoning').map((p) => p.text).join(''),
                    parts.filter((p) => p.toolCallId && p.input).map((p) => [p.type.slice(5), p.input])]);
    }
    found.push(errors);"""
    *found, errors = script(CHAT, body, start(*ALL).base_url, len(ALL))
    wanted = {name: ["ready", text(name), thoughts(name), calls(name)] for name in COMPLETE}
    assert (dict(zip(COMPLETE, found, strict=True)), errors) == (wanted, [])


def test_chat_has_the_usage_and_both_reasons_of_the_message(start: Start, script: Script) -> None:
    body = """const chat = chatNamed('c', { onFinish: ({ finishReason }) => found.push(finishReason) });
        await chat.sendMessage({ text: 'Hello' }); found.push(chat.lastMessage.metadata);"""
    reason, metadata = script(CHAT, body, start(recorded("tools")).base_url)
    assert reason == "tool-calls"
    assert metadata == {"usage": message("tools")["usage"], "stopReason": "tool_use"}


def test_an_answer_from_the_same_recording_is_another_message(start: Start, script: Script) -> None:
    body = """const chat = chatNamed('c');
        for (const text of ['First', 'Second']) await chat.sendMessage({ text });
        const said = (m) => m.parts.filter((p) => p.type === 'text').map((p) => p.text).join('');
        found.push(...chat.messages.map((m) => [m.role, said(m)]));"""
    found = script(CHAT, body, start(recorded("plain"), recorded("plain")).base_url)
    said = ["assistant", text("plain")]
    assert found == [["user", "First"], said, ["user", "Second"], said]


def test_chat_shows_what_a_tool_of_the_api_gave_and_its_sources(start: Start, script: Script) -> None:
    body = """const chat = chatNamed('c'); await chat.sendMessage({ text: 'Hello' });
        const parts = chat.lastMessage.parts;
        found.push(parts.find((p) => p.output).output, parts.filter((p) => p.type === 'source-url').map((p) => p.url));"""
    output, sources = script(CHAT, body, start(recorded("server-tools")).base_url)
    (result,) = (block for block in message("server-tools")["content"] if block["type"] == "web_search_tool_result")
    assert output == result["content"]
    assert {found["url"] for found in result["content"]} <= set(sources)


def test_chat_survives_a_block_of_a_type_that_it_cannot_know(start: Start, script: Script) -> None:
    hologram = b"""event: content_block_start
data: {"type": "content_block_start", "index": 0, "content_block": {"type": "hologram", "beams": 3}}

event: content_block_stop
data: {"type": "content_block_stop", "index": 0}

"""
    head, start_of_text, rest = recorded("plain").body.partition(b"event: content_block_start")
    recording = Recording.from_sse(head + hologram + (start_of_text + rest).replace(b'"index":0', b'"index":1'))
    body = "const chat = chatNamed('c'); await chat.sendMessage({ text: 'Hello' }); found.push(errors, texts(chat));"
    assert script(CHAT, body, start(recording).base_url) == [[], text("plain")]


@pytest.mark.parametrize("name", ["plain", "thinking", "redacted-thinking"])
def test_the_next_turn_takes_the_answer_back_to_the_api_as_it_was(name: str, start: Start, script: Script) -> None:
    relay = start(recorded(name), recorded("plain"))
    body = "const chat = chatNamed('c'); for (const text of ['First', 'Second']) await chat.sendMessage({ text });"
    script(CHAT, body, relay.base_url)
    first, answer, second = relay.requests[1].body["messages"]
    assert (first["content"][0]["text"], answer["content"]) == ("First", message(name)["content"])
    assert second == {"role": "user", "content": [{"type": "text", "text": "Second"}]}


def test_a_tool_that_runs_in_the_browser_gives_its_output_to_the_api(start: Start, script: Script) -> None:
    relay = start(recorded("tools"), recorded("plain"))
    body = """
        const chat = chatNamed('c', {
          sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
          onToolCall: ({ toolCall }) => {
            chat.addToolOutput({ tool: toolCall.toolName, toolCallId: toolCall.toolCallId, output: { sky: 'rain' } });
          } });
        await chat.sendMessage({ text: 'Hello' });
        while (!texts(chat).endsWith('in the order they came.')) await new Promise((wait) => setTimeout(wait, 5));
        found.push(chat.messages.map((m) => m.role));
    """
    assert script(CHAT, body, relay.base_url) == [["user", "assistant"]]  # one message, which goes on
    call = message("tools")["content"][1]
    _, asked, given = relay.requests[1].body["messages"]
    assert {name: asked["content"][1][name] for name in ("type", "id", "name", "input")} == {
        name: call[name] for name in ("type", "id", "name", "input")
    }
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": '{"sky":"rain"}'}
    assert given == {"role": "user", "content": [result]}


# --- Chat: failures, stopping, coming back ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut", "the connection was closed in the middle of the answer"),
        ("error-after-content", "Internal server error"),
    ],
)
def test_chat_is_told_of_a_failure_and_keeps_what_came(name: str, words: str, start: Start, script: Script) -> None:
    body = """const chat = chatNamed('c'); await chat.sendMessage({ text: 'Hello' });
        found.push(chat.status, errors, texts(chat));"""
    assert script(CHAT, body, start(recorded(name)).base_url) == ["error", [words], text(name)]


def test_chat_is_told_of_a_refusal(start: Start, script: Script) -> None:
    body = "const chat = chatNamed('c'); await chat.sendMessage({ text: 'Hello' }); found.push(chat.status, errors);"
    status, errors = script(CHAT, body, start(refusal(429, "rate_limit_error", "Too many.")).base_url)
    assert (status, errors) == ("error", ["Too many."])


def test_stopping_ends_the_call_upstream_within_the_grace_time(
    start: Start, script: Script, background: Background
) -> None:
    gate = background.gate(free=1)
    relay = start(recorded("plain"), speed=1, sleep=gate.sleep, limits=RunLimits(grace_seconds=0.1))
    body = """const chat = chatNamed('c'); const sent = chat.sendMessage({ text: 'Hello' });
        while (!texts(chat)) await new Promise((wait) => setTimeout(wait, 5));
        await chat.stop(); await sent; found.push(chat.status, texts(chat));"""
    assert script(CHAT, body, relay.base_url) == ["ready", "A server-sent event"]
    assert gate.left.wait(PATIENCE)


STORIES = {
    "before the first word": """
        const chat = chatNamed('c');
        const sent = chat.sendMessage({ text: 'Hello' });
        await until(async () => (await (await fetch('/runs')).json()).length);""",
    "in the middle": """
        const chat = chatNamed('c');
        const sent = chat.sendMessage({ text: 'Hello' });
        await until(() => chat.status === 'streaming');""",
    "after it was read again": """
        const lost = chatNamed('c'), chat = chatNamed('c');
        void lost.sendMessage({ text: 'Hello' });
        await until(() => lost.status === 'streaming');
        const sent = chat.resumeStream();
        await until(() => chat.status === 'streaming');""",
    "in another tab": """
        const lost = chatNamed('c'), chat = chatNamed('c');
        void lost.sendMessage({ text: 'Hello' });
        await until(() => lost.status === 'streaming');
        stored.clear();
        const sent = chat.resumeStream();
        await until(() => chat.status === 'streaming');""",
}


@pytest.mark.parametrize("when", STORIES)
def test_by_the_recipe_stop_stops_the_model_and_no_reload_brings_its_answer_back(
    when: str, start: Start, script: Script, background: Background
) -> None:
    gate = background.gate(free=0 if when.startswith("before") else 1)
    relay = start(recorded("plain"), speed=1, sleep=gate.sleep, limits=RunLimits(grace_seconds=600))
    body = """
        await chat.stop();
        await sent;
        await until(async () => !(await (await fetch('/runs')).json()).length);
        const again = chatNamed('c');
        await again.resumeStream();
        found.push(chat.status, again.status, again.messages, errors, [...stored]);"""
    assert script(BY_RECIPE, STORIES[when] + body, relay.base_url) == ["ready", "ready", [], [], []]
    assert gate.left.wait(PATIENCE)


def test_by_the_recipe_a_stream_that_is_resumed_twice_in_one_go_is_not_stopped(
    start: Start, script: Script, background: Background
) -> None:
    gate = background.gate(free=1)
    relay = start(recorded("plain"), speed=1, sleep=gate.sleep, limits=RunLimits(grace_seconds=600))
    body = """
        const lost = chatNamed('c'), chat = chatNamed('c');
        void lost.sendMessage({ text: 'Hello' });
        await until(() => lost.status === 'streaming');
        const first = chat.resumeStream();
        await until(() => chat.status === 'streaming');
        const second = chat.resumeStream(); // it aborts the first, as it does where an effect runs twice
        await first;
        await until(() => chat.status === 'streaming');
        await fetch(process.env.GO_ON);
        await second;
        const said = chat.messages.map((m) => m.parts.filter((p) => p.type === 'text').map((p) => p.text).join(''));
        found.push(chat.status, said, errors, [...stored]);"""
    go_on = on_request(background, lambda: gate.let(len(recorded("plain").reads)))
    found = script(BY_RECIPE, body, relay.base_url, GO_ON=go_on)
    assert found == ["ready", [text("plain")], [], []]


def test_by_the_recipe_the_relay_s_refusal_is_told_in_its_words(start: Start, script: Script) -> None:
    body = """const chat = chatNamed('c');
        await chat.sendMessage({ text: 'Hi', files: [{ type: 'file', mediaType: 'text/plain', url: 'data:,' }] });
        found.push(chat.status, errors);"""
    status, errors = script(BY_RECIPE, body, start(recorded("plain")).base_url)
    assert (status, errors) == ("error", ["messages.0.parts.0.mediaType: must be image/… or application/pdf"])


def test_by_the_recipe_a_run_that_the_relay_no_longer_has_is_none_to_resume(start: Start, script: Script) -> None:
    body = """stored.set('rawsse.run.c', 'f'.repeat(32));
        const chat = chatNamed('c'); await chat.resumeStream();
        found.push(chat.status, chat.messages, errors, [...stored]);"""
    assert script(BY_RECIPE, body, start(recorded("plain")).base_url) == ["ready", [], [], []]


def test_by_the_recipe_each_request_has_the_login_of_the_transport(
    start: Start, script: Script, background: Background
) -> None:
    gate = background.gate(free=1)
    relay = start(recorded("plain"), speed=1, sleep=gate.sleep)
    body = """const seen = (url, init) => {
          found.push([init.method, new Headers(init.headers).get('authorization'), init.credentials]);
          return fetch(url, init);
        };
        const headers = { Authorization: 'Bearer token' };
        const login = { api: '/api/chat', headers, credentials: 'include', fetch: resumingFetch({ fetch: seen }) };
        const chats = [1, 2].map(() => new Chat({ id: 'c', transport: new DefaultChatTransport(login) }));
        void chats[0].sendMessage({ text: 'Hello' });
        await until(() => chats[0].status === 'streaming');
        const sent = chats[1].resumeStream();
        await until(() => chats[1].status === 'streaming');
        await chats[1].stop();
        await sent;
        await until(() => found.length > 2);"""
    login = ["Bearer token", "include"]
    assert script(BY_RECIPE, body, relay.base_url) == [[method, *login] for method in ("POST", "GET", "DELETE")]


@pytest.mark.parametrize(("name", "reason"), [("max-tokens", "max_tokens"), ("refusal", "refusal")])
def test_what_the_readme_says_of_an_answer_that_is_not_whole(
    name: str, reason: str, start: Start, script: Script
) -> None:
    body = """const chat = chatNamed('c'); chat.onFinish = ({ finishReason }) => found.push(finishReason);
        await chat.sendMessage({ text: 'Hello' });
        found.push(chat.lastMessage.metadata, errors);"""
    finish, metadata, errors = script(BY_RECIPE, body, start(recorded(name)).base_url)
    assert (finish, errors) == (FINISH_REASONS[reason], [])
    assert metadata == {"usage": message(name)["usage"], "stopReason": reason}
    assert len(RECIPE.splitlines()) <= 8


def on_request(background: Background, action: Callable[[], None]) -> str:
    """An address; whoever asks it has the action done."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError("this app has no lifespan")
        action()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return background.enter(Server(app, port=0)).base_url


@pytest.mark.parametrize("name", COMPLETE)
def test_a_chat_that_comes_back_gets_the_whole_answer(
    name: str, start: Start, script: Script, background: Background
) -> None:
    # The head of the answer comes with the first content: before that the relay may have to ask the API once more.
    content = next(n for n, read in enumerate(recorded(name).reads, 1) if b"content_block_start" in read.data)
    gate = background.gate(free=content)
    relay = start(recorded(name), speed=1, sleep=gate.sleep)
    body = """let heads = 0;
        const counting = new DefaultChatTransport({ api: process.env.URL + '/api/chat', fetch: async (...request) => {
          const response = await fetch(...request);
          heads += 1;
          return response;
        } });
        const until = async (count) => { while (heads < count) await new Promise(setImmediate); };
        const chat = chatNamed('a/c ä', { transport: counting }), again = chatNamed('a/c ä', { transport: counting });
        const sent = chat.sendMessage({ text: 'Hello' });
        await until(1);
        const resumed = again.resumeStream();
        await until(2);
        await fetch(process.env.GO_ON);
        await Promise.all([sent, resumed]);
        found.push(errors, chat.lastMessage, again.lastMessage);"""
    go_on = on_request(background, lambda: gate.let(len(recorded(name).reads)))
    errors, first, again = script(CHAT, body, relay.base_url, GO_ON=go_on)
    assert errors == []
    assert again == first
    assert len(relay.requests) == 1


def test_a_chat_that_comes_back_after_the_end_finds_nothing_to_resume(start: Start, script: Script) -> None:
    body = """const chat = chatNamed('c'); await chat.sendMessage({ text: 'Hello' });
        const again = chatNamed('c'); await again.resumeStream(); found.push(errors, again.status, again.messages);"""
    assert script(CHAT, body, start(recorded("plain")).base_url) == [[], "ready", []]
