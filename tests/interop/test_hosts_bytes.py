"""The relay sends the same bytes on every ASGI server: ours, to whose connections it pushes, and others, which a pump serves.

Each fixture is asked for in each dialect: read at once, by a slow reader, and by one that comes back in the middle.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.background import PATIENCE

from .conftest import Start
from .stack import FIXTURES, recorded
from .test_hosts import ALONE, COMMANDS, hosting

pytestmark = pytest.mark.real

COMMANDS_ON_UVLOOP = {
    "uvicorn": [*COMMANDS["uvicorn"], "--loop", "uvloop"],
    "hypercorn": [*COMMANDS["hypercorn"], "--worker-class", "uvloop"],
}

# One that fails before it has content is asked for again.
NAMES = [name for name in FIXTURES if name != "error-before-content"]

CHAT = {"message": "Hello"}
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "messages": ("/v1/messages", {"messages": [{"role": "user", "content": "Hello"}], "stream": True}),
    "events": ("/api/chat", CHAT),
    "text": ("/chat/stream", CHAT),
    "ui": ("/api/chat", {"id": "c", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hello"}]}]}),
}


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    fields = {"content-type": "application/json", "connection": "close", **headers}
    connection.request(method, path, None if body is None else json.dumps(body), fields)
    return connection.getresponse()


def slowly(response: http.client.HTTPResponse) -> bytes:
    """The body, a few bytes at a time."""
    return b"".join(iter(lambda: response.read(7), b""))


def same(body: bytes) -> bytes:
    """Without what is of one run or of one moment: the tag in the ids, the id of a UI message, and heartbeats."""
    body = re.sub(rb'"messageId":"[^"]+"', b'"messageId":"-"', body.replace(b": keep-alive\n\n", b""))
    return re.sub(rb"(?m)^id: [0-9a-f]{8}-", b"id: ", body)


def resumed(port: int, path: str, body: Any) -> bytes:
    """The body, in two parts: the client leaves after the second frame, and comes back for the rest."""
    response = ask(port, "POST", path, body)
    first = b""
    while same(first).count(b"\n\n") < 2 and (line := response.readline()):
        first += line
    last = re.findall(rb"(?m)^id: (\S+)$", first)[-1].decode()
    run = response.headers["x-run-id"]
    response.close()
    return first + ask(port, "GET", f"/runs/{run}", **{"last-event-id": last}).read()


@pytest.fixture(params=["uvicorn", "uvicorn on uvloop", "hypercorn", "hypercorn on uvloop"])
def ports(request: pytest.FixtureRequest, start: Start, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The ports of our server, and of another one; both ask the same upstream, which plays each fixture as often as needed."""
    server, _, loop = request.param.partition(" on ")
    pytest.importorskip(server, reason=f"{server} hosts the relay: the extra `interop`")  # before anything is started
    if loop:
        pytest.importorskip(loop, reason="another event loop: the extra `speed`")
    plays = [recorded(name) for name in NAMES for kind in ASKED for _ in range(4 if kind == "messages" else 5)]
    stack = start(*plays)
    command = COMMANDS_ON_UVLOOP[server] if loop else COMMANDS[server]
    with hosting(server, ALONE, stack.upstream_url, tmp_path, command) as host:
        yield int(stack.base_url.rpartition(":")[2]), host.port


def test_every_server_sends_the_same_bytes(ports: tuple[int, int]) -> None:
    ours, theirs = ports
    for name in NAMES:
        for kind, (path, body) in ASKED.items():
            expected = same(ask(ours, "POST", path, body).read())
            assert expected.endswith(b"data: [DONE]\n\n" if kind != "messages" else b"}\n\n"), (name, kind)
            assert same(slowly(ask(ours, "POST", path, body))) == expected, (name, kind)
            assert same(ask(theirs, "POST", path, body).read()) == expected, (name, kind)
            assert same(slowly(ask(theirs, "POST", path, body))) == expected, (name, kind)
            if kind != "messages":
                assert same(resumed(theirs, path, body)) == expected, (name, kind)
