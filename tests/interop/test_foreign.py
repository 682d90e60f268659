"""Our client against servers that are not ours, and our server against clients that are not: plain HTTP, spoken by others."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from support.background import PATIENCE
from support.command import environment

from rawsse import AsyncClient, Message, StreamTruncatedError
from rawsse.relay.page import Page

from .conftest import Start
from .stack import COMPLETE, message, recorded, text
from .test_hosts import hosting

pytestmark = pytest.mark.real

REQUEST: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}


async def ask(base_url: str) -> Message:
    async with (
        AsyncClient(base_url=base_url, api_key="any") as client,
        client.messages.stream(**REQUEST) as stream,
    ):
        return await stream.get_final_message()


# --- Our client against http.server ----------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """Answers with the recording `plain`, its body framed in the way that the path names."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = recorded("plain").body
        way = self.path.split("/")[1]
        self.protocol_version = "HTTP/1.0" if way == "close" else "HTTP/1.1"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if way in ("length", "cut"):
            self.send_header("Content-Length", str(len(body)))
        elif way == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            body = (
                b"".join(b"%X;x=y\r\n%b\r\n" % (len(piece), piece) for piece in pieces_of(body)) + b"0\r\nX: y\r\n\r\n"
            )
        self.end_headers()
        self.wfile.write(body if way != "cut" else body[:1000])
        self.close_connection = True

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing."""


def pieces_of(body: bytes) -> list[bytes]:
    return [body[start : start + 100] for start in range(0, len(body), 100)]


@pytest.fixture
def http_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(PATIENCE)


@pytest.mark.parametrize("way", ["close", "length", "chunked"])
def test_every_framing_of_http_server_is_read(way: str, http_server: str) -> None:
    assert asyncio.run(ask(f"{http_server}/{way}")).text == text("plain")


def test_a_body_that_http_server_cuts_is_no_answer(http_server: str) -> None:
    with pytest.raises(StreamTruncatedError, match="the connection was closed in the middle of the answer"):
        asyncio.run(ask(f"{http_server}/cut"))


# --- Our client against ASGI servers ---------------------------------------------------------------------------------

PLAYER = f"""
from rawsse.replay import Player, shipped_fixtures
recordings = shipped_fixtures()
app = Player([recordings[name] for name in {COMPLETE!r}], speed=0, split=7)
"""


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_every_answer_is_read_from_a_player_that_others_host(server: str, tmp_path: Path) -> None:
    with hosting(server, PLAYER, "", tmp_path) as host:
        url = f"http://127.0.0.1:{host.port}"

        async def ask_all() -> list[Any]:
            return [(await ask(url)).to_dict() for _ in COMPLETE]

        assert asyncio.run(ask_all()) == [message(name) for name in COMPLETE]


# --- Our server against other clients --------------------------------------------------------------------------------

BODY = json.dumps({**REQUEST, "stream": True})
JSON = {"content-type": "application/json"}


def test_http_client_makes_many_requests_over_one_connection(start: Start) -> None:
    relay = start(recorded("plain"))
    connection = http.client.HTTPConnection(relay.base_url.removeprefix("http://"), timeout=PATIENCE)
    answers, sockets = [], set()
    for _ in range(3):
        connection.request("POST", "/v1/messages", BODY, JSON)
        answers.append(connection.getresponse().read())
        sockets.add(connection.sock)
    connection.close()
    assert (len(set(answers)), len(sockets), answers[0].count(b"event: message_stop")) == (1, 1, 1)


def test_http_client_sends_a_chunked_body(start: Start) -> None:
    relay = start(recorded("plain"))
    pieces = (piece for piece in [BODY[:10].encode(), BODY[10:].encode()])
    with urlopen(Request(f"{relay.base_url}/v1/messages", pieces, JSON)) as response:
        assert b"event: message_stop" in response.read()


CURL = shutil.which("curl") or "curl"


def curl(*arguments: str, data: str = "") -> str:
    if shutil.which("curl") is None:
        pytest.skip("no curl on PATH")
    command = [CURL, "--silent", "--show-error", "--max-time", "10", *arguments]
    done = subprocess.run(command, input=data.encode(), env=environment({}), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_curl_waits_for_a_hundred_continue_before_a_large_body(start: Start) -> None:
    relay = start(recorded("plain"))
    large = json.dumps({**REQUEST, "metadata": {"padding": "x" * 2_000_000}})
    fields = ["--header", "content-type: application/json", "--header", "expect: 100-continue"]
    printed = curl("--include", *fields, "--data-binary", "@-", f"{relay.base_url}/v1/messages", data=large)
    assert printed.startswith("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert len(relay.requests[0].body["metadata"]["padding"]) == 2_000_000


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_reads_a_stream_in_both_versions_of_http(version: str, start: Start) -> None:
    relay = start(recorded("plain"))
    printed = curl(version, "--json", json.dumps({"message": "Hello"}), f"{relay.base_url}/chat/stream")
    pieces = [json.loads(line[6:])["text"] for line in printed.splitlines() if line.startswith("data: {")]
    assert "".join(pieces) == text("plain")


def test_curl_gets_the_page_and_its_head(start: Start) -> None:
    relay = start(recorded("plain"))
    page = curl(relay.base_url)
    assert page.encode() == Page().find("/")[1]
    assert f"content-length: {len(page.encode())}\r\n" in curl("--head", relay.base_url)
