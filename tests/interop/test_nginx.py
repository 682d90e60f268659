"""nginx in front of the relay: with its default settings, which gather whole answers, and with `rawsse/deploy/nginx.conf`."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from importlib.resources import files
from pathlib import Path

import pytest
from support.background import PATIENCE, Background, Gate
from support.sockets import LOCALHOST

import rawsse
from rawsse.relay import RunLimits
from rawsse.server import ASGIApp, Forwarded, Receive, Scope, Send, Server

from . import peers
from .conftest import Node, Start
from .peers import NGINX_SERVER
from .stack import recorded, text

pytestmark = pytest.mark.real

Connect = Callable[..., http.client.HTTPConnection]


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[[str, socket.socket], None]]:
    """Run nginx with one site, which listens on this socket."""
    with ExitStack() as stack:
        yield lambda site, listener: stack.enter_context(peers.nginx(tmp_path, site, listener))


@pytest.fixture
def gate(background: Background) -> Gate:
    return background.gate(free=1)


@pytest.fixture
def connect(start: Start, gate: Gate, nginx: Callable[[str, socket.socket], None]) -> Iterator[Connect]:
    """A connection to nginx with these settings, in front of a relay whose upstream waits for the gate."""
    relay = start(recorded("plain"), speed=1, sleep=gate.sleep, limits=RunLimits(grace_seconds=0.2))
    with ExitStack() as stack:

        def connect(settings: str = "") -> http.client.HTTPConnection:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = listener.getsockname()[1]
            nginx(NGINX_SERVER.format(port=port, upstream=relay.base_url, settings=settings), listener)
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
    connection.timeout = 0.2
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


# --- The configuration that is shipped


@pytest.fixture
def connect_to_site(nginx: Callable[[str, socket.socket], None], tmp_path: Path) -> Iterator[Connect]:
    """A connection, with TLS, to nginx with the shipped configuration: only addresses and the certificate are others."""
    with ExitStack() as stack:

        def connect(base_url: str, *others: str) -> http.client.HTTPSConnection:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = listener.getsockname()[1]
            site = (files("rawsse") / "deploy/nginx.conf").read_text(encoding="utf-8")
            folder = "/etc/letsencrypt/live/relay.example.org"
            for here, there in {
                "listen 80;": f"listen unix:{tmp_path}/80;",
                "listen 443 ": f"listen 127.0.0.1:{port} ",
                "server 127.0.0.1:8000 ": f"server {base_url.removeprefix('http://')} ",
                f"{folder}/fullchain.pem": str(LOCALHOST),
                f"{folder}/privkey.pem": str(LOCALHOST),
            }.items():
                assert site.count(here) == 1
                site = site.replace(here, there)
            if others:
                site = re.sub(r"^( *)#(?=\S)", r"\1", site, flags=re.MULTILINE)  # as its first lines say
            for place, other in zip(("8001", "8002"), others, strict=False):
                site = site.replace(f"127.0.0.1:{place} ", f"{other.removeprefix('http://')} ")
            nginx(site, listener)
            context = ssl.create_default_context(cafile=LOCALHOST)
            connection = http.client.HTTPSConnection("localhost", port, timeout=PATIENCE, context=context)
            return stack.enter_context(closing(connection))

        yield connect


def test_a_stream_comes_through_the_shipped_configuration_frame_by_frame(
    connect_to_site: Connect, start: Start, gate: Gate
) -> None:
    connection = connect_to_site(start(recorded("plain"), speed=1, sleep=gate.sleep).base_url)
    with ask(connection, origin=f"https://localhost:{connection.port}") as response:
        seen = next_text(response)
        gate.let(1)
        seen += next_text(response)
        assert seen == "A server-sent event is"
        gate.let(len(recorded("plain").reads))
        assert response.read().endswith(b"data: [DONE]\n\n")


def test_the_shipped_configuration_says_who_the_client_is_whatever_that_says_itself(
    connect_to_site: Connect, background: Background
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            seen = [scope["scheme"], scope["client"][0], str(dict(scope["headers"]).get(b"forwarded"))]
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": " ".join(seen).encode()})

    site: ASGIApp = Forwarded(app, ["127.0.0.0/8"])
    connection = connect_to_site(background.enter(Server(site, port=0)).base_url)
    forged = {"x-forwarded-for": "192.0.2.66", "forwarded": "for=192.0.2.66", "x-forwarded-proto": "http"}
    connection.request("GET", "/", headers=forged)
    assert connection.getresponse().read() == b"https 127.0.0.1 None"


def test_a_browser_speaks_http_2_with_the_shipped_configuration(connect_to_site: Connect, start: Start) -> None:
    connection = connect_to_site(start(recorded("plain")).base_url)
    context = ssl.create_default_context(cafile=LOCALHOST)
    context.set_alpn_protocols(["h2", "http/1.1"])
    plain = socket.create_connection(("127.0.0.1", connection.port))
    with context.wrap_socket(plain, server_hostname="localhost") as secure:
        assert secure.selected_alpn_protocol() == "h2"


def answers(status: int, asked: list[int]) -> Server:
    """A node that answers every request with this status."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            while (await receive()).get("more_body"):
                pass
            asked.append(status)
            await send({"type": "http.response.start", "status": status})
            await send({"type": "http.response.body", "body": b"?"})

    return Server(app, port=0)


@pytest.mark.parametrize("path", ["/chat/stream", "/v1/messages", "/runs"])
def test_with_several_nodes_what_one_refuses_that_is_about_to_leave_is_asked_of_another(
    path: str, connect_to_site: Connect, background: Background
) -> None:
    asked: list[int] = []
    connection = connect_to_site(*(background.enter(answers(status, asked)).base_url for status in (503, 200, 503)))
    for _ in range(4):
        connection.request("GET" if path == "/runs" else "POST", path, b"" if path == "/runs" else b"{}")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"?")
    assert (asked.count(200), asked.count(503) > 0) == (4, True)


def test_with_several_nodes_refusals_of_the_api_make_nginx_give_up_on_no_node(
    connect_to_site: Connect, background: Background
) -> None:
    asked: list[int] = []
    connection = connect_to_site(*(background.enter(answers(503, asked)).base_url for _ in range(3)))
    for _ in range(4):
        connection.request("POST", "/chat/stream", b"{}")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (503, b"?")  # a 502 is nginx's, which knows no node any more
    assert len(asked) == 12


def test_the_metrics_of_one_node_are_not_shown_as_those_of_all(connect_to_site: Connect, start: Start) -> None:
    connection = connect_to_site(start(recorded("plain")).base_url)
    connection.request("GET", "/metrics")
    assert connection.getresponse().status == 404


# --- A response that is cut

CLIENT = (Path(rawsse.__file__).parent / "web/rawsse.js").as_uri()
SCRIPT = """
import { streamChat } from '%s';
const told = await streamChat(process.env.URL, { message: 'Hello' }, { waits: [1] }).done;
console.log(told.text);
"""


def cutting() -> Server:
    """It begins a response and cuts it; the client that reconnects gets the rest."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            while (await receive()).get("more_body"):
                pass
            outlet, headers = scope["extensions"]["rawsse.push"], dict(scope["headers"])
            fields = [(b"content-type", b"text/event-stream"), (b"x-run-id", headers.get(b"x-run-id", b"a"))]
            outlet.start(200, [*fields, (b"x-accel-buffering", b"no")])
            if b"last-event-id" in headers:
                assert (scope["method"], headers[b"last-event-id"]) == ("GET", b"e-1")
                outlet.write(b'id: e-2\ndata: {"text": "lo"}\n\n')
                outlet.end(b"id: e-3\ndata: [DONE]\n\n")
            else:
                outlet.write(b'id: e-1\ndata: {"text": "Hel"}\n\n')
                outlet.cut()
            await outlet.closed()

    return Server(app, port=0)


def check_cut(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/runs/a")
    with connection.getresponse() as response:
        assert response.readline() == b"id: e-1\n"
        with pytest.raises(http.client.IncompleteRead):
            response.read()


def test_a_response_that_is_cut_is_incomplete_and_rawsse_js_resumes(background: Background, node: Node) -> None:
    url = background.enter(cutting()).base_url
    assert node(SCRIPT % CLIENT, URL=f"{url}/chat/stream") == "Hello\n"


def test_it_is_incomplete_behind_nginx_too_and_rawsse_js_resumes(
    nginx: Callable[[str, socket.socket], None], background: Background, node: Node
) -> None:
    url = background.enter(cutting()).base_url
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        nginx(NGINX_SERVER.format(port=port, upstream=url, settings="proxy_http_version 1.1;"), listener)
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
            check_cut(connection)
        assert node(SCRIPT % CLIENT, URL=f"http://127.0.0.1:{port}/chat/stream") == "Hello\n"


def test_it_is_incomplete_with_the_shipped_configuration_too(connect_to_site: Connect, background: Background) -> None:
    check_cut(connect_to_site(background.enter(cutting()).base_url))
