"""nginx in front of the relay, as most people run it: with its default settings, which gather whole answers."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from support.background import PATIENCE, Background, Gate

from rawsse.relay import RunLimits

from .conftest import Start
from .peers import nginx
from .stack import recorded, text

pytestmark = pytest.mark.real

Connect = Callable[..., http.client.HTTPConnection]


@pytest.fixture
def gate(background: Background) -> Gate:
    return background.gate(free=1)


@pytest.fixture
def connect(start: Start, gate: Gate, tmp_path: Path) -> Iterator[Connect]:
    """A connection to nginx with these settings, in front of a relay whose upstream waits for the gate."""
    relay = start(recorded("plain"), speed=1, sleep=gate.sleep, limits=RunLimits(grace_seconds=0.2))
    with ExitStack() as stack:

        def connect(settings: str = "") -> http.client.HTTPConnection:
            port = stack.enter_context(nginx(tmp_path, relay.base_url, settings))
            return stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)))

        yield connect


def ask(connection: http.client.HTTPConnection, **headers: str) -> http.client.HTTPResponse:
    fields = {"content-type": "application/json", **headers}
    connection.request("POST", "/chat/stream", json.dumps({"message": "Hello"}), fields)
    return connection.getresponse()


def next_text(response: http.client.HTTPResponse) -> str:
    while not (line := response.readline()).startswith(b"data: {"):
        assert line, "the stream ended before a text came"
    return str(json.loads(line[6:])["text"])


@pytest.mark.parametrize("settings", ["", "proxy_http_version 1.1;"], ids=["default", "1.1"])
def test_frames_come_one_by_one_through_the_default_buffering(settings: str, connect: Connect, gate: Gate) -> None:
    with ask(connect(settings)) as response:
        seen = next_text(response)
        gate.let(1)  # only now does the next read come, so what was seen had not waited for it
        seen += next_text(response)
        assert seen == "A server-sent event is"


def test_without_the_header_it_would_gather_them(connect: Connect) -> None:
    connection = connect("proxy_ignore_headers X-Accel-Buffering;")
    connection.timeout = 0.5
    with pytest.raises(TimeoutError):
        ask(connection)


def test_the_whole_answer_comes_through(connect: Connect, gate: Gate) -> None:
    gate.let(len(recorded("plain").reads))
    with ask(connect()) as response:
        lines = response.read().decode().splitlines()
    pieces = [json.loads(line[6:])["text"] for line in lines if line.startswith("data: {")]
    assert "".join(pieces) == text("plain")
    assert lines[-2] == "data: [DONE]"


def test_a_client_that_leaves_cancels_the_call_upstream(connect: Connect, gate: Gate) -> None:
    connection = connect()
    with ask(connection) as response:
        next_text(response)
    connection.close()
    assert gate.left.wait(PATIENCE)


def test_a_page_behind_it_is_welcome_when_it_passes_the_host_on(connect: Connect) -> None:
    connection = connect("proxy_set_header Host $http_host;")
    with ask(connection, origin=f"http://127.0.0.1:{connection.port}") as response:
        assert (response.status, next_text(response)) == (200, "A server-sent event")
    connection.close()
