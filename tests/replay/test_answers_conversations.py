"""rawsse.replay.answers and rawsse.replay.compose, played: tool loops and conversations of our own client go
through them."""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import Any

import pytest
from support.clock import run

from rawsse import AsyncClient, Conversation, tool
from rawsse.errors import NotFoundError
from rawsse.replay import Match, Recording, ReplayServer, ToolResults, shipped_fixtures, turns

FIXTURES = shipped_fixtures()
ASK: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "An umbrella?"}]}


@tool
def get_weather(place: str, unit: str) -> str:
    """The weather at a place."""
    return f"{place}: 9 degrees {unit}"


@tool
def roll_dice() -> str:
    """Roll a die."""
    return "6"


TOOLS: list[Any] = [get_weather, roll_dice]
LOOP = turns(
    {**ASK, "tools": [given.to_dict() for given in TOOLS]},
    FIXTURES["tools"],
    ToolResults("Bergen, Norway: 9 degrees celsius"),
    FIXTURES["empty-tool-input"],
    ToolResults("6"),
    FIXTURES["plain"],
)


async def loop(server: ReplayServer) -> str:
    """The last text of a tool loop."""
    async with AsyncClient(base_url=server.base_url, api_key="any") as client:
        message = await client.messages.tool_runner(**ASK, tools=TOOLS).until_done()
    return message.text


def test_a_tool_loop_finds_its_turns_by_what_was_said() -> None:
    async def story() -> tuple[str, list[Recording], int]:
        # In another order than they were recorded in: what counts is what is asked.
        async with ReplayServer(list(reversed(LOOP)), match="request") as server:
            text = await loop(server)
            return text, server.unplayed, len(server.requests)

    text, unplayed, count = run(story())
    assert text.startswith("A server-sent event is")
    assert (unplayed, count) == ([], 3)


def test_the_same_loop_can_be_run_again_and_side_by_side() -> None:
    async def story() -> list[str]:
        async with ReplayServer(LOOP, match="request") as server:
            return [await loop(server) for _ in range(3)]

    texts = run(story())
    assert texts[0].startswith("A server-sent event is")
    assert texts == [texts[0]] * 3


def test_a_sequence_plays_the_loop_once_and_the_next_call_is_a_miss() -> None:
    async def story() -> tuple[str, NotFoundError, int, int]:
        async with ReplayServer(LOOP, match="sequence") as server:
            text = await loop(server)
            with pytest.raises(NotFoundError) as caught:
                await loop(server)
            return text, caught.value, len(server.misses), len(server.requests)

    text, error, misses, count = run(story())
    assert text.startswith("A server-sent event is")
    assert "this is request 4 of a sequence of 3 recordings: all have been played" in str(error)
    assert (misses, count) == (1, 4)


def test_a_tool_that_answers_otherwise_is_told_where(caplog: pytest.LogCaptureFixture) -> None:
    changed = turns(
        ASK | {"tools": [given.to_dict() for given in TOOLS]}, FIXTURES["tools"], ToolResults("Sun"), FIXTURES["plain"]
    )

    async def story() -> tuple[NotFoundError, int]:
        async with ReplayServer(changed, match="request") as server:
            with pytest.raises(NotFoundError) as caught:
                await loop(server)
            return caught.value, len(server.requests)

    with caplog.at_level(logging.WARNING, "rawsse.replay"):
        error, count = run(story())
    words = (
        "no recording matches this request. Nearest of 2: plain. It differs at "
        'messages[2].content[0].content[0].text: recorded "Sun", asked "Bergen, Norway: 9 degrees celsius"'
    )
    assert words in str(error)
    assert (error.error_code, count) == ("no_recording_matches", 2)  # nothing was tried again
    assert caplog.messages == [words]


def test_a_conversation_finds_its_turns() -> None:
    recordings = turns(ASK, FIXTURES["plain"], "In other scripts?", FIXTURES["unicode"], "Thanks", FIXTURES["plain"])

    async def story() -> list[str]:
        async with (
            ReplayServer(recordings[::-1], match="request") as server,
            AsyncClient(base_url=server.base_url, api_key="any") as client,
        ):
            conversation = Conversation(client, model="m", max_tokens=9)
            return [(await conversation.ask(text)).id for text in ("An umbrella?", "In other scripts?", "Thanks")]

    first, second, third = run(story())
    assert first == third != second


@pytest.mark.parametrize("match", ["turns", "sequence", "request", "name"])
def test_a_replay_opens_no_connection_whatever_is_asked(match: Match, monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[Any] = []
    connect = socket.socket.connect

    def watched(sock: socket.socket, address: Any) -> None:
        connected.append(address)
        connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", watched)

    async def story() -> int:
        async with (
            ReplayServer([FIXTURES["plain"]], match=match) as server,
            AsyncClient(base_url=server.base_url, api_key="any", max_retries=0) as client,
        ):
            for _ in range(2):
                await _try(client)
            return int(server.base_url.rpartition(":")[2])

    port = run(story())
    assert connected
    assert set(connected) == {("127.0.0.1", port)}  # the client's own


async def _try(client: AsyncClient) -> None:
    with contextlib.suppress(NotFoundError):
        await client.messages.create(**ASK)
    await client.messages.count_tokens(model="m", messages=ASK["messages"])
    await client.models.list()
