"""The official Python SDK on recordings: its tool runner, whose wish for a thread is refused, and what a miss looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.background import Background

from rawsse.replay import Recording, ReplayServer, ToolResults, turns

from .stack import message, recorded, text

anthropic = pytest.importorskip("anthropic", reason="the official SDK: the extra `interop`")

pytestmark = pytest.mark.real

ASK: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 1024,
    "messages": [{"role": "user", "content": "Do I need an umbrella in Bergen?"}],
}
WEATHER = "Bergen, Norway: 9 degrees celsius"


@anthropic.beta_tool  # type: ignore[untyped-decorator]
def get_weather(place: str, unit: str) -> str:
    """The weather at a place.

    Args:
        place: Where.
        unit: celsius or fahrenheit.
    """
    return f"{place}: 9 degrees {unit}"


@anthropic.beta_tool  # type: ignore[untyped-decorator]
def roll_dice() -> str:
    """Roll the dice."""
    return "6"


TOOLS = [get_weather, roll_dice]


def conversation() -> list[Recording]:
    """Two calls of tools and an answer, each with the whole history."""
    answers = (recorded("tools"), ToolResults(WEATHER), recorded("tools"), ToolResults(WEATHER), recorded("plain"))
    return turns({**ASK, "system": "Be brief.", "tools": [tool.to_dict() for tool in TOOLS]}, *answers)


@pytest.fixture
def play(background: Background) -> Iterator[Callable[..., tuple[ReplayServer, Any]]]:
    clients: list[Any] = []

    def play(*recordings: Recording, **options: Any) -> tuple[ReplayServer, Any]:
        server = background.enter(ReplayServer(recordings, **options))
        clients.append(anthropic.Anthropic(base_url=server.base_url, api_key="any", max_retries=2))
        return server, clients[-1]

    yield play
    for client in clients:
        client.close()


def until_done(client: Any, **options: Any) -> Any:
    return client.beta.messages.tool_runner(**ASK, system="Be brief.", tools=TOOLS, **options).until_done()


def threads(server: ReplayServer) -> list[Any]:
    """What each request said of its thread, and how many messages it had."""
    return [(request.body.get("thread", {}).get("type"), len(request.body["messages"])) for request in server.requests]


def test_without_threads_the_runner_sends_the_whole_history_and_finds_the_same_turns(play: Any) -> None:
    server, client = play(*conversation(), match="request")
    assert until_done(client).content[0].text == text("plain")
    assert threads(server) == [("create", 1), (None, 1), (None, 3), (None, 5)]
    assert (server.misses, server.unplayed) == ([], [])


def test_a_miss_is_shown_by_the_sdk_and_not_tried_again(play: Any) -> None:
    server, client = play(recorded("plain"), match="request")
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(**ASK)
    assert "no recording matches this request. Nearest of 1: plain. It differs at" in str(caught.value)
    assert len(server.requests) == len(server.misses) == 1


def test_a_base_url_names_the_recording(play: Any) -> None:
    server, _ = play(recorded("plain"), recorded("unicode"), match="name")
    with anthropic.Anthropic(base_url=f"{server.base_url}/unicode", api_key="any") as client:
        assert client.messages.create(**ASK).content[0].text == text("unicode")


def test_a_shipped_recording_is_found_by_the_sdks_way_of_asking(play: Any) -> None:
    _, client = play(*(recorded(name) for name in ("plain", "thinking", "tools")), match="request")
    request = recorded("tools").request
    assert request is not None
    with client.messages.stream(**{name: value for name, value in request.body.items() if name != "stream"}) as stream:
        assert stream.get_final_message().id == message("tools")["id"]
