"""Recites a haiku as it is written, and hums while the poet thinks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from rawsse import AsyncClient

HUM_AFTER = 2.0


async def recital(season: str) -> AsyncIterator[str]:
    """The haiku, piece by piece; `hm…` for every two seconds in which nothing came."""
    question = {"role": "user", "content": f"Write a haiku about {season}."}
    async with (
        AsyncClient() as client,
        client.messages.stream(model="claude-sonnet-5", max_tokens=200, messages=[question]) as stream,
    ):
        texts = aiter(stream.text_stream)
        following = asyncio.ensure_future(anext(texts, None))
        while True:
            done, _ = await asyncio.wait([following], timeout=HUM_AFTER)
            if not done:
                yield "hm…"
            elif (text := following.result()) is None:
                return
            else:
                yield text
                following = asyncio.ensure_future(anext(texts, None))
