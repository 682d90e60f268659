"""Clients that are not ours, against the player alone: in a thread of this process, and as the command `rawsse replay`.

One Messages API for all: a base URL that ends in a name picks the recording. What is expected is what `fixtures/*.json` say.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.background import Background
from support.command import ROOT, Command

from rawsse.replay import Recording, ReplayServer, ToolResults, turns

from .replay_clients import ASYNC_CLIENTS, NODE_CLIENTS, QUESTION, Call, Heard, curl, hear, run_node
from .stack import COMPLETE, message, recorded, text
from .test_replay_runner import ASK, TOOLS, WEATHER, threads

anthropic = pytest.importorskip("anthropic", reason="the official SDK: the extra `interop`")
httpx = pytest.importorskip("httpx", reason="the extra `interop`")

pytestmark = pytest.mark.real

NAMES = ("plain", "unicode", "thinking", "tools", "parallel-tools", "server-tools")

# What the AI SDK calls a stop reason.
FINISH_REASONS = {"end_turn": "stop", "tool_use": "tool-calls"}

HOSTS = ("server", "command")


@pytest.fixture
def serve(background: Background) -> Iterator[Callable[..., str]]:
    """Play recordings in a thread, or files in a process: the base URL. `options` as on the command line, without dashes."""
    with ExitStack() as commands:

        def serve(host: str, *sources: Recording | Path, **options: Any) -> str:
            if host == "server":
                return background.enter(ReplayServer(sources, **options)).base_url
            flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
            command = Command("replay", *map(str, sources), "--port", "0", "--speed", "0", *flags)
            return commands.enter_context(command).base_url

        yield serve


@pytest.fixture(params=HOSTS)
def url(request: pytest.FixtureRequest, serve: Callable[..., str]) -> str:
    """Where all shipped recordings are played, each under its name."""
    return serve(request.param, ROOT / "fixtures", match="name")


def expected(name: str, reasons: Mapping[str, str] | None = None) -> Heard:
    """What every client must hear."""
    heard = Heard()
    heard.take(message(name))
    heard.stop = heard.stop if reasons is None or heard.stop is None else reasons[heard.stop]
    return heard


WANTED = {name: expected(name) for name in NAMES}


def heard_by(ask: Callable[[str], Heard]) -> dict[str, Heard]:
    """What was heard of each recording; how long it took is nobody's business."""
    found = {name: ask(name) for name in NAMES}
    for heard in found.values():
        heard.seconds = 0.0
    return found


# --- Answers ---------------------------------------------------------------------------------------------------------

STREAM = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


@STREAM
@pytest.mark.parametrize("client", ASYNC_CLIENTS)
def test_a_client_in_python_hears_what_was_recorded(client: str, stream: bool, url: str) -> None:
    ask = ASYNC_CLIENTS[client]
    assert heard_by(lambda name: asyncio.run(hear(ask, Call(f"{url}/{name}", stream)))) == WANTED


@STREAM
def test_curl_hears_what_was_recorded(stream: bool, url: str) -> None:
    assert heard_by(lambda name: curl(Call(f"{url}/{name}", stream))) == WANTED


@pytest.mark.parametrize("host", HOSTS)
def test_the_clients_in_node_hear_what_was_recorded(host: str, serve: Callable[..., str], tmp_path: Path) -> None:
    url = serve(host, ROOT / "fixtures", match="name")
    cases = {
        (client, stream, name): f"{url}/{name}" for client in NODE_CLIENTS for stream in (True, False) for name in NAMES
    }
    asked = [{"client": client, "stream": stream, "url": at, "retries": 0} for (client, stream, _), at in cases.items()]
    found = dict(zip(cases, run_node(tmp_path, asked), strict=True))
    assert found == {case: expected(case[2], FINISH_REASONS if case[0] == "ai-sdk" else None) for case in cases}


@pytest.mark.parametrize("name", COMPLETE)
def test_the_sdk_without_asyncio_gets_the_message(name: str, url: str) -> None:
    with anthropic.Anthropic(base_url=f"{url}/{name}", api_key="any", max_retries=0) as client:
        with client.messages.stream(**QUESTION) as stream:
            assert stream.get_final_message().to_dict(mode="json") == message(name)
        assert client.messages.create(**QUESTION).to_dict(mode="json") == message(name)


def test_httpx_gets_the_bytes_of_the_recording(url: str) -> None:
    with httpx.stream(
        "POST", f"{url}/plain/v1/messages", json={**QUESTION, "stream": True}, trust_env=False
    ) as response:
        came = b"".join(response.iter_bytes())
    assert came == recorded("plain").body
    assert response.headers["content-type"] == recorded("plain").headers["content-type"]


# --- Counting, models ------------------------------------------------------------------------------------------------

ASKED = recorded("plain").request


def test_the_python_sdk_counts_tokens_and_lists_models(url: str) -> None:
    assert ASKED is not None
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        counted = client.messages.count_tokens(model=ASKED.body["model"], messages=ASKED.body["messages"])
        models = [model.id for model in client.models.list()]
        model = client.models.retrieve("claude-opus-4-8")
    assert counted.input_tokens == message("plain")["usage"]["input_tokens"] == 28
    assert {message(name)["model"] for name in COMPLETE} <= set(models)
    assert model.id == "claude-opus-4-8"


COUNT_AND_LIST = """
import Anthropic from '@anthropic-ai/sdk';
const client = new Anthropic({ baseURL: process.env.URL, apiKey: 'any', maxRetries: 0 });
const counted = await client.messages.countTokens(JSON.parse(process.env.ASKED));
const models = [];
for await (const model of client.models.list()) models.push(model.id);
const model = await client.models.retrieve('claude-opus-4-8');
console.log(JSON.stringify([counted.input_tokens, models, model.id]));
"""


def test_the_node_sdk_counts_tokens_and_lists_models(
    url: str, node: Callable[..., str], packages: Callable[..., None]
) -> None:
    packages("@anthropic-ai/sdk")
    assert ASKED is not None
    asked = json.dumps({name: ASKED.body[name] for name in ("model", "messages")})
    counted, models, model = json.loads(node(COUNT_AND_LIST, URL=url, ASKED=asked))
    assert counted == message("plain")["usage"]["input_tokens"]
    assert {message(name)["model"] for name in COMPLETE} <= set(models)
    assert model == "claude-opus-4-8"


# --- Loops with tools ------------------------------------------------------------------------------------------------


def conversation(folder: Path) -> list[Path]:
    """A call of a tool, what it gave, and the answer, as files; each has the request that it answers."""
    asked = {**ASK, "tools": [tool.to_dict() for tool in TOOLS]}
    recordings = turns(asked, recorded("tools"), ToolResults(WEATHER), recorded("plain"))
    files = [folder / f"{number}.sse.jsonl" for number in range(len(recordings))]
    for recording, file in zip(recordings, files, strict=True):
        recording.save(file)
    return files


@pytest.mark.parametrize("thread", [{}, {"thread": False}], ids=["thread", "no thread"])
@pytest.mark.parametrize("host", HOSTS)
def test_the_tool_runner_finds_its_turns(
    host: str, thread: dict[str, Any], serve: Callable[..., str], tmp_path: Path
) -> None:
    url = serve(host, *conversation(tmp_path), match="request")
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        last = client.beta.messages.tool_runner(**ASK, tools=TOOLS, **thread).until_done()
    assert last.content[0].text == text("plain")


def test_without_a_thread_the_tool_runner_sends_the_whole_history_at_once(
    background: Background, tmp_path: Path
) -> None:
    server = background.enter(ReplayServer(conversation(tmp_path), match="request"))

    async def ask() -> Any:
        async with anthropic.AsyncAnthropic(base_url=server.base_url, api_key="any", max_retries=0) as client:
            runner = client.beta.messages.tool_runner(**ASK, tools=ASYNC_TOOLS, thread=False, stream=True)
            return [await turn.get_final_message() async for turn in runner]

    assert [turn.stop_reason for turn in asyncio.run(ask())] == ["tool_use", "end_turn"]
    assert threads(server) == [(None, 1), (None, 3)]
    assert (server.misses, server.unplayed) == ([], [])


@anthropic.beta_async_tool  # type: ignore[untyped-decorator]
async def get_weather(place: str, unit: str) -> str:
    """The weather at a place.

    Args:
        place: Where.
        unit: celsius or fahrenheit.
    """
    return f"{place}: 9 degrees {unit}"


@anthropic.beta_async_tool  # type: ignore[untyped-decorator]
async def roll_dice() -> str:
    """Roll the dice."""
    return "6"


ASYNC_TOOLS = [get_weather, roll_dice]

LOOP = """
import { createAnthropic } from '@ai-sdk/anthropic';
import { jsonSchema, stepCountIs, streamText, tool } from 'ai';
globalThis.AI_SDK_LOG_WARNINGS = false;
const calls = [];
const get_weather = tool({
  description: 'The weather',
  inputSchema: jsonSchema({ type: 'object', properties: { place: { type: 'string' }, unit: { type: 'string' } } }),
  execute(input) { calls.push(input); return 'rain'; },
});
const model = createAnthropic({ baseURL: process.env.URL + '/v1', apiKey: 'any' })('claude-sonnet-5');
const tools = { get_weather };
const answer = streamText({ model, prompt: 'Umbrella?', tools, stopWhen: stepCountIs(5), maxRetries: 0 });
let text = '';
for await (const piece of answer.textStream) text += piece;
const steps = (await answer.steps).map((step) => step.finishReason);
console.log('\\n' + JSON.stringify([text, calls, steps]));
"""


@pytest.mark.parametrize("host", HOSTS)
def test_the_ai_sdk_calls_a_tool_and_goes_on(
    host: str, serve: Callable[..., str], node: Callable[..., str], packages: Callable[..., None]
) -> None:
    packages("ai", "@ai-sdk/anthropic")
    url = serve(host, ROOT / "fixtures/tools.sse.jsonl", ROOT / "fixtures/plain.sse.jsonl")
    said, calls, steps = json.loads(node(LOOP, URL=url).strip().rpartition("\n")[2])
    assert said == text("tools") + text("plain")
    assert calls == [{"place": "Bergen, Norway", "unit": "celsius"}]
    assert steps == ["tool-calls", "stop"]
