"""The relay under ASGI servers that are not ours, and mounted in a framework: what is promised holds there, too.

The hosts run as processes, on a socket that the test has opened for them.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.background import PATIENCE, Background, Gate
from support.command import environment

from rawsse.relay.ledger import usage

from .conftest import Start
from .stack import recorded, text

pytestmark = pytest.mark.real

COMMANDS = {
    "uvicorn": ["uvicorn", "hosted:app", "--timeout-graceful-shutdown", "1", "--fd", "{fd}"],
    "hypercorn": ["hypercorn", "hosted:app", "--workers", "0", "--graceful-timeout", "1", "--bind", "fd://{fd}"],
}

ALONE = """
from rawsse import AsyncClient
from rawsse.relay import Relay, RunLimits
app = Relay(AsyncClient(), limits=RunLimits(grace_seconds=0.2))
"""

MOUNTED = """
from {framework} import {Framework}
from rawsse import AsyncClient
from rawsse.relay import Ledger, Relay, RunLimits
relay = Relay(AsyncClient(), limits=RunLimits(grace_seconds=0.2), ledger=Ledger("ledger.db"))
app = {Framework}(lifespan=relay.lifespan)
app.mount("/claude", relay)
"""

PATIENT = ["uvicorn", "hosted:app", "--timeout-graceful-shutdown", "60", "--fd", "{fd}"]


class Host:
    """A server process. `connect()` gives a new connection to it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(self, path: str, body: Any = None, method: str | None = None) -> http.client.HTTPResponse:
        """The response, its body still to be read; closing it closes the connection."""
        connection = self.connect()
        payload = None if body is None else json.dumps(body)
        fields = {"content-type": "application/json", "connection": "close"}
        connection.request(method or ("GET" if body is None else "POST"), path, payload, fields)
        return connection.getresponse()

    def stop(self) -> str:
        """SIGTERM; what it logged. It must end by itself."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=PATIENCE)[1].decode()


@contextmanager
def hosting(server: str, app: str, upstream_url: str, folder: Path, command: Sequence[str] = ()) -> Iterator[Host]:
    pytest.importorskip(server, reason=f"{server} hosts the relay: the extra `interop`")
    (folder / "hosted.py").write_text(app)
    env = environment({"ANTHROPIC_API_KEY": "any", "ANTHROPIC_BASE_URL": upstream_url})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [part.format(fd=listener.fileno()) for part in command or COMMANDS[server]]
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=env,
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            yield Host(process, listener.getsockname()[1])
        finally:
            process.kill()
            process.communicate(timeout=PATIENCE)


@pytest.fixture
def gate(background: Background) -> Gate:
    return background.gate(free=1)


@pytest.fixture(params=list(COMMANDS))
def host(request: pytest.FixtureRequest, start: Start, gate: Gate, tmp_path: Path) -> Iterator[Host]:
    """The relay alone; its upstream holds the answer after the first text."""
    upstream = start(recorded("plain"), speed=1, sleep=gate.sleep).upstream_url
    with hosting(request.param, ALONE, upstream, tmp_path) as host:
        yield host


def read_text(response: http.client.HTTPResponse) -> Iterator[str]:
    """The texts of the text dialect, each as soon as it is here."""
    while line := response.readline():
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])["text"]


# --- Alone -----------------------------------------------------------------------------------------------------------


def test_frames_come_one_by_one(host: Host, gate: Gate) -> None:
    with host.ask("/chat/stream", {"message": "Hello"}) as response:
        pieces = read_text(response)
        seen = next(pieces)
        gate.let(1)  # only now does the next read come, so what was seen had not waited for it
        seen += next(pieces)
        gate.let(len(recorded("plain").reads))
        assert (seen, seen + "".join(pieces)) == ("A server-sent event is", text("plain"))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/stream", {"message": "Hello"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Hello"}], "stream": True}),
    ],
)
def test_a_client_that_leaves_cancels_the_call_upstream(path: str, body: Any, host: Host, gate: Gate) -> None:
    with host.ask(path, body) as response:
        assert b"A server-sent event" in b"".join(response.readline() for _ in range(12 if "v1" in path else 2))
    assert gate.left.wait(PATIENCE)


def test_at_shutdown_an_open_stream_ends_and_is_not_taken_for_whole(host: Host, gate: Gate) -> None:
    with host.ask("/chat/stream", {"message": "Hello"}) as response:
        assert next(read_text(response)) == "A server-sent event"
        log = host.stop()
        assert gate.left.wait(PATIENCE)
        try:
            is_told = b'"error"' in response.read()
        except http.client.IncompleteRead:  # these servers cut what their grace time leaves open
            is_told = True
    assert is_told
    assert "Task was destroyed" not in log


def test_at_shutdown_with_nothing_open_it_leaves_without_a_word_of_trouble(host: Host) -> None:
    with host.ask("/healthz") as response:
        assert response.read() == b"ok\n"
    log = host.stop()
    assert "Traceback" not in log
    assert "support" not in log  # as in: the app does not support the lifespan


# --- Mounted ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[("starlette.applications", "Starlette"), ("fastapi", "FastAPI")], ids=["starlette", "fastapi"])
def mounted(request: pytest.FixtureRequest, start: Start, gate: Gate, tmp_path: Path) -> Iterator[Host]:
    """The relay below /claude in an application."""
    module, name = request.param
    pytest.importorskip(module, reason=f"{name} mounts the relay: the extra `interop`")
    upstream = start(recorded("plain"), speed=1, sleep=gate.sleep).upstream_url
    with hosting("uvicorn", MOUNTED.format(framework=module, Framework=name), upstream, tmp_path) as host:
        yield host


@pytest.mark.parametrize(("path", "start_of_body"), [("/claude/", b"<!doctype html>"), ("/claude/healthz", b"ok")])
def test_pages_are_found_below_the_prefix(path: str, start_of_body: bytes, mounted: Host) -> None:
    with mounted.ask(path) as response:
        assert (response.status, response.read().startswith(start_of_body)) == (200, True)


def test_a_run_is_stopped_below_the_prefix(mounted: Host, gate: Gate) -> None:
    with mounted.ask("/claude/api/chat/stream", {"message": "Hello"}) as response:
        assert next(read_text(response)) == "A server-sent event"
        with mounted.ask(f"/claude/runs/{response.headers['x-run-id']}", method="DELETE") as answer:
            assert answer.status == 204
        assert b'"type":"cancelled"' in response.read()
    assert gate.left.wait(PATIENCE)


def test_a_run_is_read_again_below_the_prefix(mounted: Host, gate: Gate) -> None:
    gate.let(len(recorded("plain").reads))
    with mounted.ask("/claude/chat/stream", {"message": "Hello"}) as response:
        run, whole = response.headers["x-run-id"], response.read()
    with mounted.ask(f"/claude/runs/{run}") as response:
        assert response.read() == whole


def test_at_sigterm_each_open_stream_gets_its_last_frame_and_the_ledger_its_row(
    start: Start, gate: Gate, tmp_path: Path
) -> None:
    pytest.importorskip("fastapi", reason="FastAPI mounts the relay: the extra `interop`")
    upstream = start(recorded("plain"), speed=1, sleep=gate.sleep).upstream_url
    app = MOUNTED.format(framework="fastapi", Framework="FastAPI")
    with hosting("uvicorn", app, upstream, tmp_path, PATIENT) as host:
        with host.ask("/claude/chat/stream", {"message": "Hello"}) as response:
            assert next(read_text(response)) == "A server-sent event"
            host.process.send_signal(signal.SIGTERM)
            rest = response.read()
            assert b"the server is shutting down" in rest
            assert rest.endswith(b"data: [DONE]\n\n")
        host.process.wait(PATIENCE)
    assert gate.left.wait(PATIENCE)
    (row,) = usage([tmp_path / "ledger.db"], by=("user",))
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        assert db.execute("SELECT ending, error FROM runs").fetchall() == [("cancelled", None)]
    assert row["runs"] == 1


def test_what_is_not_there_is_an_error_in_the_apis_form(mounted: Host) -> None:
    with mounted.ask("/claude/nothing") as response:
        assert (response.status, json.loads(response.read())["error"]["type"]) == (404, "not_found_error")
