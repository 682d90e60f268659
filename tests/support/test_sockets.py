"""support.sockets: what of a handler is a failure of the test, and what is only a client that leaves."""

from __future__ import annotations

import asyncio

import pytest

from .clock import run, ticks
from .sockets import Handler, serving


async def visited(handler: Handler) -> None:
    """A client connects, sends half of a head, and leaves."""
    async with serving(handler) as origin:
        _, writer = await asyncio.open_connection(origin.host, origin.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        writer.close()
        await writer.wait_closed()
        await ticks(20)


def test_a_client_that_leaves_before_its_request_is_whole_is_no_failure() -> None:
    done: list[Exception] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as exc:
            done.append(exc)
            raise

    run(visited(handler))
    assert len(done) == 1


def test_a_handler_that_fails_fails_the_test() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"POST / HTTP/1.1\r\n"

    with pytest.raises(AssertionError, match="GET"):
        run(visited(handler))
