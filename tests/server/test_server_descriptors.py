"""rawsse.server.server, when the system has no descriptor for one more connection."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import socket
from contextlib import AsyncExitStack, ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from support.background import PATIENCE, Background
from support.clock import run
from support.command import MODULE, ROOT, WITHOUT_UVLOOP, Command

from rawsse.cli.servers import raise_descriptor_limit
from rawsse.errors import ConfigurationError
from rawsse.replay import Recording, ReplayServer
from rawsse.server import Server, room_for_connections
from rawsse.server.connection import MAX_REFUSED, WARN_SECONDS
from rawsse.server.server import ACCEPT_PAUSE_SECONDS
from server.peer import LAST_GET, Peer, echo, read_answers
from server.test_server import now

ENDLESS = resource.RLIM_INFINITY
RECORDING = ROOT / "fixtures" / "plain.sse.jsonl"


# --- How many there may be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "room"), [(128, 32), (1024, 480), (10_240, 5000), (resource.RLIM_INFINITY, 5000), (68, 2), (66, 1)]
)
def test_half_of_what_a_process_may_open_is_for_upstream(
    limit: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert room_for_connections(5000) == room


@pytest.mark.parametrize("limit", [65, 64, 63, 8, 0])
def test_where_upstream_would_have_none_no_server_starts(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    said = rf"^a server needs 66 or more open files and connections; ulimit -n allows {limit}$"
    with pytest.raises(ConfigurationError, match=said):
        run(Server(echo, port=0).start())


@pytest.mark.parametrize(("command", "limit"), [("serve", 12), ("replay", 40), ("record", 12), ("demo", 65)])
def test_a_command_says_so_in_one_line(command: str, limit: int, tmp_path: Path) -> None:
    given = {"replay": (RECORDING,), "record": ("--out", tmp_path)}.get(command, ())
    options: dict[str, Any] = {"env": {"ANTHROPIC_API_KEY": "k"}, "open_files": (limit, limit)}
    with Command(command, *given, "--port", "0", **options) as process:
        assert process.wait() == 2
        (line,) = process.complaint().splitlines()
    assert line.startswith(f"rawsse: a server needs 66 or more open files and connections; ulimit -n allows {limit}")


@pytest.mark.parametrize(
    ("hard", "most", "limit"),
    [(4096, 4096, 4096), (ENDLESS, ENDLESS, ENDLESS), (ENDLESS, 10_240, 10_240), (4096, 0, 256)],
    ids=["Linux", "no limit", "macOS", "nothing allowed"],
)
def test_the_limit_is_raised_as_far_as_the_system_allows(
    hard: int, most: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = (256, hard)

    def setrlimit(_: int, wanted: tuple[int, int]) -> None:
        nonlocal limits
        if most != ENDLESS and not 0 <= wanted[0] <= most:
            raise ValueError("not allowed to raise maximum limit")
        limits = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    raise_descriptor_limit()
    assert limits == (limit, hard)


@pytest.mark.parametrize("command", ["serve", "replay", "record", "demo"])
def test_every_command_that_listens_raises_its_limit(command: str, tmp_path: Path) -> None:
    given = {"replay": (RECORDING,), "record": ("--out", tmp_path)}.get(command, ())
    options: dict[str, Any] = {"env": {"ANTHROPIC_API_KEY": "k"}, "open_files": (64, 200)}
    with Command(command, *given, "--port", "0", **options) as process:
        assert process.base_url
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (200, 200)
        assert process.stop() == 0


# --- More than that ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [MODULE, WITHOUT_UVLOOP], ids=["uvloop", "asyncio"])
def test_300_idle_connections_against_a_limit_of_128_are_served_or_answered_503(program: tuple[str, ...]) -> None:
    options: dict[str, Any] = {"program": program, "open_files": (128, 128)}
    with (
        Command("replay", RECORDING, "--port", "0", "--speed", "0", **options) as process,
        ExitStack() as stack,
    ):
        address = ("127.0.0.1", int(process.base_url.rpartition(":")[2]))
        peers = [stack.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(300)]
        refused = [peer for peer in peers[32:] if read_answers(rest_of(peer))[0].status == 503]
        assert len(refused) == 268
        peers[0].sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        assert rest_of(peers[0]).startswith(b"HTTP/1.1 ")
        used = cpu_seconds(process.pid)
        process.stop()
        lines = process.complaint().splitlines()
    assert [line.partition(" ")[2].partition(" ")[2] for line in lines] == ["more than 32 connections: answering 503"]
    assert used < 3, "it takes 0.4 s to begin"


def test_with_the_least_that_a_server_starts_with_its_connection_has_one_to_upstream() -> None:
    with Background() as background, ExitStack() as stack:
        upstream = background.enter(ReplayServer([Recording.load(RECORDING)]))
        options: dict[str, Any] = {
            "env": {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": upstream.base_url},
            "open_files": (66, 66),
        }
        process = stack.enter_context(Command("serve", "--port", "0", **options))
        address = process.base_url.removeprefix("http://")
        client = stack.enter_context(closing(HTTPConnection(address, timeout=PATIENCE)))
        client.connect()
        host, _, port = address.rpartition(":")
        for _ in range(40):  # these are refused, and some linger
            stack.enter_context(socket.create_connection((host, int(port)), PATIENCE))
        body = {
            "model": "claude-test-1",
            "max_tokens": 9,
            "stream": True,
            "messages": [{"role": "user", "content": "Hi"}],
        }
        client.request("POST", "/v1/messages", json.dumps(body), {"content-type": "application/json"})
        response = client.getresponse()
        assert (response.status, b"message_stop" in response.read()) == (200, True)


def rest_of(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_only_some_of_those_that_are_refused_are_waited_for() -> None:
    async def story() -> int:
        async with Server(echo, port=0, max_connections=0, linger_seconds=50) as server, AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(Peer(server)) for _ in range(MAX_REFUSED + 8)]
            before = now()
            for peer in peers:
                assert read_answers(await peer.rest())[0].status == 503
            assert now() == before
            return len(server._state.connections)

    assert run(story()) == MAX_REFUSED


def test_too_many_connections_make_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with Server(echo, port=0, max_connections=0) as server:
            for seconds in (0, WARN_SECONDS / 2, WARN_SECONDS / 2, 1):
                await asyncio.sleep(seconds)
                async with Peer(server) as peer:
                    await peer.rest()

    run(story())
    assert caplog.messages == ["more than 0 connections: answering 503"] * 2


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_where_none_can_be_accepted_the_server_tries_again_after_a_pause(
    code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[float] = []
    accept = socket.socket.accept

    def fail(sock: socket.socket) -> Any:
        attempts.append(now())
        if len(attempts) <= 10:
            raise OSError(code, os.strerror(code))
        return accept(sock)

    async def story() -> tuple[bytes, float]:
        async with Server(echo, port=0) as server, Peer(server) as peer:
            before = now()
            await peer.send(LAST_GET)
            return await peer.rest(), now() - before

    monkeypatch.setattr(socket.socket, "accept", fail)
    answer, seconds = run(story())
    assert read_answers(answer)[0].status == 200
    assert seconds == pytest.approx(10 * ACCEPT_PAUSE_SECONDS)
    assert len(attempts) == 12  # and one more, which found no other waiting
    assert caplog.messages == [f"cannot accept connections: {os.strerror(code)}"]


def test_a_server_may_stop_while_it_accepts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: socket.socket) -> Any:
        raise OSError(errno.EMFILE, "too many open files")

    async def story() -> None:
        async with Server(echo, port=0) as server:
            with socket.create_connection((server.host, server.port)):
                await asyncio.sleep(3 * ACCEPT_PAUSE_SECONDS)
        await asyncio.sleep(3 * ACCEPT_PAUSE_SECONDS)

    monkeypatch.setattr(socket.socket, "accept", fail)
    run(story())
