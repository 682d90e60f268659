"""rawsse.relay.app: a response that is cut, under real servers. Its client can tell that it is incomplete, and reconnects."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rawsse.relay.store import MemoryStore

from .nodes import Gate
from .stage import CHAT, Stage
from .test_app_hosts import HOSTS, PATIENCE, App, Open
from .test_app_nodes import ID, NAMED, end_of, say


def plain(app: App) -> App:
    return app


def wrapped(app: App) -> App:
    """Middleware: our server, too, is sent messages."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        async def wrapped_send(message: Any) -> None:
            await send(message)

        await app(scope, receive, wrapped_send)

    return outer


async def read_until_cut(open_host: Open, wrap: Any, request: bytes) -> tuple[bytes, list[str]]:
    """All bytes that a client of one node gets whose store goes; and then what it gets from another node."""
    clock = asyncio.get_running_loop().time
    store = MemoryStore(clock, lease_seconds=0.1, block_seconds=0.02)
    gate, gate_of_owner = Gate(store), Gate(store)
    gate_of_owner.lease_seconds = 60  # a server that is slow to start does not cost it the run
    owner, other = Stage(store=gate_of_owner, clock=clock), Stage(store=gate, clock=clock)
    try:
        first = owner.ask("POST", "/stream", CHAT, headers=NAMED)
        api = await owner.call()
        say(api)
        await first.read()
        async with open_host(wrap(other.relay)) as host, asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(*host.address)
            writer.write(request)
            wire = await reader.readuntil(b'{"text":"Hel"}\n\n')
            gate.is_down = True
            wire += await reader.read()
            writer.close()
            await writer.wait_closed()
        last_id = wire.rpartition(b"id: ")[2].partition(b"\n")[0].decode()
        again = owner.ask("GET", f"/runs/{ID}", headers={"last-event-id": last_id})
        await again.head()
        end_of(api)
        return wire, (await again.done()).data
    finally:
        gate.is_down = False
        await other.relay.aclose()
        await owner.relay.aclose()


@pytest.mark.parametrize("wrap", [plain, wrapped])
@pytest.mark.parametrize("open_host", HOSTS)
@pytest.mark.parametrize("target", [f"/runs/{ID}", f"/runs?id={ID}"], ids=["a run", "several"])
def test_a_response_that_is_cut_has_no_last_chunk_and_its_client_resumes(
    target: str, open_host: Open, wrap: Any
) -> None:
    request = f"GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
    wire, rest = asyncio.run(read_until_cut(open_host, wrap, request))
    assert b"transfer-encoding: chunked" in wire.lower()
    assert wire.endswith(b'data: {"text":"Hel"}\n\n\r\n')  # the last chunk that was sent, and whole
    assert rest == ['{"text":"lo"}', "[DONE]"]


@pytest.mark.parametrize("open_host", HOSTS)
def test_for_a_client_of_http_1_0_the_connection_ends_after_what_was_sent(open_host: Open) -> None:
    request = f"GET /runs/{ID} HTTP/1.0\r\nhost: localhost\r\n\r\n".encode()
    wire, rest = asyncio.run(read_until_cut(open_host, plain, request))
    assert b"transfer-encoding" not in wire.lower()
    assert wire.endswith(b'data: {"text":"Hel"}\n\n')
    assert rest == ['{"text":"lo"}', "[DONE]"]
