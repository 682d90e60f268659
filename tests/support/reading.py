"""Reading a canned answer through a client: every event, or the error."""

from __future__ import annotations

from typing import Any

import pytest

from rawsse.client.network.net import FakeStream, Stream
from rawsse.client.stream import MessageStream
from rawsse.errors import APIError
from support.answers import ASK, answer, client_of
from support.streams import Raw

__all__ = ["Raw", "body", "fail", "read", "types"]


def body(*raws: Raw) -> FakeStream:
    """A stream whose body ends after these events, as HTTP ends it."""
    return FakeStream([answer(raws)], end=None)


async def read(stream: Stream | bytes, **options: Any) -> tuple[list[Any], MessageStream]:
    """Every event of the stream, and the stream, closed."""
    async with client_of(stream, **options).messages.stream(**ASK) as opened:
        return [event async for event in opened], opened


async def fail(stream: Stream | bytes, **options: Any) -> tuple[APIError, MessageStream]:
    """The error that reading the stream raises, and the stream."""
    opened = client_of(stream, **options).messages.stream(**ASK)
    with pytest.raises(APIError) as caught:
        async with opened:
            await opened.until_done()
    return caught.value, opened


def types(events: list[Any]) -> list[str]:
    return [event.type for event in events]
