"""`rawsse.sse` with the HTTP libraries that people have: their bytes become the events of a recording.

httpx and aiohttp read what the player sends, Starlette what a client sends.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from support.background import Background

from rawsse.replay import ReplayServer
from rawsse.sse import Decoder, Event, aiter_events, encode, iter_events

from .stack import recorded

pytestmark = pytest.mark.real

RECORDING = recorded("unicode")
ASK = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}


def expected() -> list[Event]:
    return Decoder().feed(b"".join(read.data for read in RECORDING.reads))


@pytest.fixture(params=["bytes", "event"])
def url(request: pytest.FixtureRequest, background: Background) -> str:
    """Where the recording is played, in HTTP chunks of one byte, and in chunks of one event."""
    server = background.enter(ReplayServer([RECORDING], speed=0, split=request.param))
    return f"{server.base_url}/v1/messages"


@pytest.mark.parametrize("method", ["aiter_bytes", "aiter_raw"])
def test_httpx(url: str, method: str) -> None:
    httpx = pytest.importorskip("httpx", reason="the extra `interop`")

    async def story() -> list[Event]:
        async with httpx.AsyncClient(trust_env=False) as client, client.stream("POST", url, json=ASK) as response:
            return [event async for event in aiter_events(getattr(response, method)())]

    assert asyncio.run(story()) == expected()


def test_httpx_without_async(url: str) -> None:
    httpx = pytest.importorskip("httpx", reason="the extra `interop`")
    with httpx.Client(trust_env=False) as client, client.stream("POST", url, json=ASK) as response:
        assert list(iter_events(response.iter_bytes())) == expected()


def test_a_loop_over_httpx_that_is_left_early_leaves_nothing_behind(url: str) -> None:
    httpx = pytest.importorskip("httpx", reason="the extra `interop`")

    async def story() -> set[Any]:
        async with httpx.AsyncClient(trust_env=False) as client:
            async with (
                client.stream("POST", url, json=ASK) as response,
                aclosing(aiter_events(response.aiter_bytes())) as events,
            ):
                assert await anext(events) == expected()[0]
            assert response.is_closed
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(story()) == set()


def test_a_break_is_forgiven(url: str) -> None:
    """Without `aclosing` the event loop closes the generators when they are forgotten: nothing is reported, nothing is left."""
    httpx = pytest.importorskip("httpx", reason="the extra `interop`")
    reports: list[Any] = []

    async def story() -> set[Any]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        async with httpx.AsyncClient(trust_env=False) as client:
            async with client.stream("POST", url, json=ASK) as response:
                async for event in aiter_events(response.aiter_bytes()):
                    assert event == expected()[0]
                    break
            assert (await client.post(url, json=ASK)).status_code == 200
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert (asyncio.run(story()), reports) == (set(), [])


@pytest.mark.parametrize("how", ["iter_any", "iter_chunked", "content"])
def test_aiohttp(url: str, how: str) -> None:
    aiohttp = pytest.importorskip("aiohttp", reason="the extra `interop`")

    async def story() -> list[Event]:
        async with aiohttp.ClientSession() as session, session.post(url, json=ASK) as response:
            content = response.content
            chunks = {"iter_any": content.iter_any, "iter_chunked": lambda: content.iter_chunked(7)}.get(how)
            return [event async for event in aiter_events(chunks() if chunks else content)]

    assert asyncio.run(story()) == expected()


def test_a_body_that_starlette_takes() -> None:
    requests = pytest.importorskip("starlette.requests", reason="the extra `interop`")
    stream = encode("é\n☺", event="e", id="1")
    messages = [{"type": "http.request", "body": stream[:9], "more_body": True}]
    messages += [{"type": "http.request", "body": stream[9:], "more_body": False}]

    async def receive() -> Any:
        return messages.pop(0)

    async def story() -> list[Event]:
        request = requests.Request({"type": "http", "method": "POST", "headers": []}, receive)
        return [event async for event in aiter_events(request.stream())]

    assert asyncio.run(story()) == [Event("e", "é\n☺", "1")]
