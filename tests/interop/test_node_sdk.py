"""The official Node SDK, against the relay and against the player alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.background import PATIENCE, Background

from rawsse.replay import Recording
from rawsse.sse import Decoder

from .conftest import Node, Start
from .stack import COMPLETE, message, recorded, refusal, text

pytestmark = pytest.mark.real

Ask = Callable[..., Any]

CLIENT = """
import Anthropic from '@anthropic-ai/sdk';
const client = new Anthropic({ baseURL: process.env.URL, apiKey: 'sk-of-the-client', maxRetries: 0 });
const request = { model: 'claude-sonnet-5', max_tokens: 1024, messages: [{ role: 'user', content: 'Hello' }] };
const times = Number(process.env.TIMES);
const found = [];
"""


@pytest.fixture(params=["relay", "player"])
def ask(
    request: pytest.FixtureRequest, start: Start, node: Node, packages: Callable[..., None], background: Background
) -> Ask:
    """Run a script once, with a client of the SDK and recordings that take turns; what it has `found`."""
    packages("@anthropic-ai/sdk")

    def ask(script: str, *recordings: Recording, **options: Any) -> Any:
        stack = start(*recordings, **options)
        url = stack.base_url if request.param == "relay" else stack.upstream_url
        printed = node(f"{CLIENT}{script}\nconsole.log(JSON.stringify(found))", URL=url, TIMES=str(len(recordings)))
        return json.loads(printed)

    return ask


ALL = [recorded(name) for name in COMPLETE]


def test_streams_become_the_messages(ask: Ask) -> None:
    script = """for (let i = 0; i < times; i++) {
        const { parsed_output, ...message } = await client.messages.stream(request).finalMessage();
        found.push(message);  // what is left out is the SDK's own
    }"""
    assert dict(zip(COMPLETE, ask(script, *ALL), strict=True)) == {name: message(name) for name in COMPLETE}


def test_calls_without_stream_give_the_messages(ask: Ask) -> None:
    script = "for (let i = 0; i < times; i++) found.push(await client.messages.create(request));"
    assert dict(zip(COMPLETE, ask(script, *ALL), strict=True)) == {name: message(name) for name in COMPLETE}


def test_the_events_come_as_they_were_sent(ask: Ask) -> None:
    script = """for (let i = 0; i < times; i++) {
        const types = []; found.push(types);
        for await (const event of await client.messages.create({ ...request, stream: true })) types.push(event.type);
    }"""
    sent = [[event.event for event in Decoder().feed(recording.body)] for recording in ALL]
    assert ask(script, *ALL) == [[kind for kind in kinds if kind != "ping"] for kinds in sent]


def test_the_text_comes_piece_by_piece(ask: Ask) -> None:
    script = "await client.messages.stream(request).on('text', (piece) => found.push(piece)).done();"
    pieces = ask(script, recorded("unicode"), split=7)
    assert "".join(pieces) == text("unicode")
    assert len(pieces) > 1


def test_tokens_are_counted(ask: Ask) -> None:
    script = (
        "const { max_tokens, ...rest } = request; found.push((await client.messages.countTokens(rest)).input_tokens);"
    )
    assert ask(script, recorded("plain"))[0] > 0


def test_refusals_have_their_own_class_and_words(ask: Ask) -> None:
    script = """for (let i = 0; i < times; i++) for (const stream of [false, true]) try {
        await client.messages.create({ ...request, stream });
    } catch (e) { found.push([e.constructor.name, e.status, e.type, e.error.error.message, e.requestID]); }"""
    refusals = [
        ("AuthenticationError", 401, "authentication_error"),
        ("NotFoundError", 404, "not_found_error"),
        ("RateLimitError", 429, "rate_limit_error"),
        ("OverloadedError", 529, "overloaded_error"),
    ]
    recordings = [refusal(status, kind, "Not today.", request_id="r") for _, status, kind in refusals for _ in (0, 1)]
    found = ask(script.replace("times", "times / 2"), *recordings)
    assert found == [[*each, "Not today.", "r"] for each in refusals for _ in (0, 1)]


def test_an_error_in_the_stream_is_raised(ask: Ask) -> None:
    script = (
        """try { await client.messages.stream(request).finalMessage(); } catch (e) { found.push(e.type, e.message); }"""
    )
    kind, words = ask(script, recorded("error-after-content"))
    assert (kind, "Internal server error" in words) == ("api_error", True)


def test_the_tool_runner_runs_its_loop(ask: Ask) -> None:
    script = """
        import { betaTool } from '@anthropic-ai/sdk/helpers/beta/json-schema';
        const inputSchema = { type: 'object', properties: { place: { type: 'string' }, unit: { type: 'string' } } };
        const run = (input) => { found.push(input); return 'rain'; };
        const tools = [betaTool({ name: 'get_weather', description: 'The weather', inputSchema, run })];
        const last = await client.beta.messages.toolRunner({ ...request, tools, stream: true }).runUntilDone();
        found.push(last.content[0].text);
    """
    assert ask(script, recorded("tools"), recorded("plain")) == [
        {"place": "Bergen, Norway", "unit": "celsius"},
        text("plain"),
    ]


def test_aborting_cancels_the_call_upstream(ask: Ask, background: Background) -> None:
    gate = background.gate(free=1)
    script = """
        const stream = client.messages.stream(request);
        stream.on('text', (piece) => { found.push(piece); stream.abort(); });
        await stream.done().catch((e) => found.push(e.constructor.name));
    """
    found = ask(script, recorded("plain"), speed=1, sleep=gate.sleep)
    assert found == ["A server-sent event", "APIUserAbortError"]
    assert gate.left.wait(PATIENCE)


def test_a_cut_stream_is_never_a_message(ask: Ask) -> None:
    script = """try { found.push(await client.messages.stream(request).finalMessage()); } catch (e) { found.push('raised'); }"""
    assert ask(script, recorded("cut")) == ["raised"]
