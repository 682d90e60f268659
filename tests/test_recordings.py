"""Recorded streams of the real API, and of gateways that imitate it, against what the official SDK makes of the same bytes.

The recordings are not part of the project: `../shared/recordings`, or the folder that RAWSSE_RECORDINGS names.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.answers import ASK
from support.sampling import one_in

import rawsse
from rawsse.client.client import AsyncClient
from rawsse.errors import APIError, APIStatusError, OverloadedError
from rawsse.messages import Message, MessageBuilder
from rawsse.relay import Relay
from rawsse.replay import ReplayServer
from rawsse.server import Server
from rawsse.sse import Decoder, Event

FOLDER = Path(os.environ.get("RAWSSE_RECORDINGS") or Path(rawsse.__file__).parents[2] / "shared" / "recordings")
FILES = sorted(FOLDER.glob("*.sse"))
NAMES = [path.name for path in FILES]

pytestmark = pytest.mark.skipif(not FILES, reason=f"there are no recordings in {FOLDER}")

TWO_MESSAGES = {
    # Two answers in one file, the second after a tool's result. A stream is over with its message_stop; the SDK reads on,
    # and puts the blocks of both into the first message.
    "vercel-ai--anthropic-programmatic-tool-calling.1.sse",
    "vercel-ai--anthropic-tool-search-bm25.1.sse",
}

OUT_OF_ORDER = {
    # Two deltas and an end of block 3 come before block 2 has begun; pieced together by hand, it seems.
    "vercel-ai--anthropic-code-execution-pdf-skill.1-d0e785f.sse",
}

ERRORS = {
    "ruby-llm--chat-function-calling-claude-3-5-haiku-20241022-can-use-tool-multi-turn-streaming-conversations-r1-42233db.sse",
    "ruby-llm--chat-streaming-responses-claude-3-5-haiku-20241022-supports-streaming-error-chunks-b9adf25.sse",
    "ruby-llm--chat-streaming-responses-claude-3-5-haiku-20241022-supports-streaming-error-events-b9adf25.sse",
}

WITHOUT_TAIL = {
    # Their last event is not ended by a blank line: by the standard it is none.
    "sdk-python--lib-streaming-incomplete-partial-json-response.sse",
    "synthetic--sdk-python--lib-streaming-fallback-response.sse",
}

SPECIAL = TWO_MESSAGES | OUT_OF_ORDER | ERRORS | WITHOUT_TAIL
SENT = [path for number, path in enumerate(FILES) if number % one_in(8) == 0 or path.name in SPECIAL]
"""Those that go over sockets. The fold alone reads all."""


def fold(data: bytes, *, strict: bool = True) -> MessageBuilder:
    """The first message in the bytes."""
    builder = MessageBuilder(strict=strict)
    for event in Decoder().feed(data):
        builder.feed(event)
        if builder.is_done:
            break
    return builder


def without_nulls(value: Any) -> Any:
    """The SDK writes fields that the API left out as null."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def json_of(message: Message | None) -> Any:
    assert message is not None
    return without_nulls(message.to_dict())


# --- Folded --------------------------------------------------------------------------------------------------------


def test_every_recording_is_here() -> None:
    manifest = json.loads((FOLDER / "MANIFEST.json").read_text())
    assert sorted(entry["file"] for entry in manifest) == NAMES
    assert set(NAMES) >= TWO_MESSAGES | OUT_OF_ORDER | ERRORS | WITHOUT_TAIL


def test_a_recording_keeps_the_order_and_is_whole() -> None:
    for path in FILES:
        builder = fold(path.read_bytes(), strict=path.name not in OUT_OF_ORDER)
        assert bool(builder.deviations) is (path.name in OUT_OF_ORDER), path.name
        assert builder.is_complete is (path.name not in ERRORS), path.name
        assert builder.is_done is (path.name not in ERRORS | WITHOUT_TAIL), path.name


def test_the_manifest_s_stop_reasons_are_what_we_read() -> None:
    for entry in json.loads((FOLDER / "MANIFEST.json").read_text()):
        if entry["file"] not in TWO_MESSAGES:
            builder = fold((FOLDER / entry["file"]).read_bytes(), strict=False)
            assert builder.stop_reason == entry["stop_reason"], entry["file"]


# --- As the official SDK reads them --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sdk() -> Callable[[bytes], Any]:
    """What the official SDK's helper makes of a stream: the message as JSON."""
    anthropic = pytest.importorskip("anthropic", reason="the official SDK is not installed")
    httpx = pytest.importorskip("httpx2", reason="the official SDK's HTTP library is not installed")

    def read(data: bytes) -> Any:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, content=data))
        with httpx.Client(transport=transport) as http:
            client = anthropic.Anthropic(api_key="x", base_url="http://api.example", max_retries=0, http_client=http)
            with client.beta.messages.stream(**ASK) as stream:  # it knows more types of blocks than the plain one
                return json.loads(stream.get_final_message().to_json(exclude_unset=False))

    return read


@pytest.mark.real
@pytest.mark.parametrize("path", [path for path in FILES if path.name not in TWO_MESSAGES | ERRORS], ids=str)
def test_the_official_sdk_makes_the_same_message_of_it(path: Path, sdk: Callable[[bytes], Any]) -> None:
    data = path.read_bytes()
    assert json_of(fold(data, strict=False).message) == without_nulls(sdk(data))


@pytest.mark.real
@pytest.mark.parametrize("name", sorted(ERRORS))
def test_the_official_sdk_raises_too(name: str, sdk: Callable[[bytes], Any]) -> None:
    anthropic = pytest.importorskip("anthropic", reason="the official SDK is not installed")
    with pytest.raises(anthropic.APIStatusError) as caught:
        sdk((FOLDER / name).read_bytes())
    error = fold((FOLDER / name).read_bytes()).error
    assert error is not None
    assert caught.value.body == error.raw


# --- From the player, through the client -----------------------------------------------------------------------------


async def outcomes() -> list[Message | APIError]:
    """What the client makes of each recording, played over a socket in pieces that end anywhere."""
    results: list[Message | APIError] = []
    async with ReplayServer(SENT, split=997) as api:
        client = AsyncClient(api_key="x", base_url=api.base_url, strict=False, max_retries=0)
        for _ in SENT:
            try:
                results.append(await client.messages.create(**ASK))
            except APIError as exc:
                results.append(exc)
    return results


def test_each_recording_comes_through_player_and_client_as_it_was() -> None:
    for path, outcome in zip(SENT, asyncio.run(outcomes()), strict=True):
        if path.name in ERRORS:
            assert type(outcome) is OverloadedError, path.name
        else:
            assert isinstance(outcome, Message), path.name
            assert outcome == fold(path.read_bytes(), strict=False).message, path.name


# --- From the player, through the relay ------------------------------------------------------------------------------


def events_of(data: bytes) -> list[Event]:
    """The events up to message_stop, without what comes after it."""
    events = Decoder().feed(data)
    names = [event.event for event in events]
    return events[: names.index("message_stop") + 1] if "message_stop" in names else events


async def relayed() -> list[list[Event]]:
    """The events that the relay sends for each recording, player, client, relay and server being real."""
    async with (
        ReplayServer(SENT, split=997) as api,
        AsyncClient(api_key="x", base_url=api.base_url, max_retries=0) as upstream,
        Server(Relay(upstream), port=0) as server,
    ):
        client = AsyncClient(api_key="x", base_url=server.base_url, max_retries=0)
        return [await sent_by(client) for _ in SENT]


async def sent_by(relay: AsyncClient) -> list[Event]:
    got: list[Event] = []
    stream = relay.messages.events(ASK, strict=False)
    try:
        async with stream:
            async for event in stream:
                got.append(event.sse)  # noqa: PERF401 - what came before an error counts
    except APIStatusError as exc:
        got.append(stream.error_event.sse if stream.error_event else Event("error", json.dumps(exc.body)))
    return got


def test_each_recording_comes_through_player_and_relay_as_it_was() -> None:
    for path, got in zip(SENT, asyncio.run(relayed()), strict=True):
        wanted = events_of(path.read_bytes())
        if path.name in WITHOUT_TAIL:
            wanted.append(Event("message_stop", '{"type":"message_stop"}'))
        if path.name in ERRORS and len(wanted) == 1:  # nothing but an error: it is answered as one, in JSON
            assert json.loads(got[0].data) == json.loads(wanted[0].data), path.name
        else:
            assert got == wanted, path.name
