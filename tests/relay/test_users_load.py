"""Users under load, over real sockets: limits that hold exactly, clients that stall or leave, and a relay that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.background import PATIENCE, Background
from support.command import Command
from support.sampling import one_in
from support.streams import ANSWER, STOP, Raw, block, block_start, end, start, text_delta, to_bytes

from rawsse import AsyncClient, PoolLimits
from rawsse.relay import Relay, RunLimits, User, UserLimits
from rawsse.relay.ledger import KILLED, usage
from rawsse.server import Receive, Scope, Send, Server

from . import test_app_hosts
from .outlets import TEXT_BLOCK
from .stage import CHAT, KEY, frames
from .test_app_hosts import Host, connected
from .test_ledger import rows as rows_in
from .test_record import Rows

MANY = 1000 // one_in(20)
CLIENTS = 50
OTHERS = 10
MESSAGES = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
LONG: list[Raw] = [start(), *block(0, TEXT_BLOCK, *(text_delta(0, f"{n:02}" * 6000) for n in range(20))), end(), STOP]
"""More than the sockets on its way take from a client that reads nothing."""
STREAM = [(b"content-type", b"text/event-stream")]


class Upstream:
    """A Messages API that counts what it is asked, and answers when `gate` is open. "hold" in a request: it only begins."""

    def __init__(self, events: list[Raw] = ANSWER) -> None:
        self.asked = 0
        self.gate = asyncio.Event()
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(scope["type"])
        self.asked += 1
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": STREAM})
        if b"hold" in body:
            begin = to_bytes([start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hi")])
            await send({"type": "http.response.body", "body": begin, "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await self.gate.wait()
        for raw in self._events:
            await send({"type": "http.response.body", "body": to_bytes([raw]), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def by_name(scope: Scope) -> User | None:
    return USERS.get(dict(scope["headers"]).get(b"x-user", b"").decode())


USERS = {
    "ada": User("ada", UserLimits(requests_per_minute=20)),
    "bob": User("bob", UserLimits(open_runs=7)),
    "eve": User("eve"),
}


@asynccontextmanager
async def served(upstream: Upstream, **options: Any) -> AsyncIterator[tuple[Relay, Host]]:
    """A relay on a real socket in front of that API."""
    limits = PoolLimits(max_connections=2 * MANY)
    async with (
        Server(upstream, port=0) as api,
        AsyncClient(api_key=KEY, base_url=api.base_url, max_retries=0, limits=limits) as client,
    ):
        relay = Relay(client, authenticate=by_name, **options)
        small: dict[str, Any] = {"max_buffered_bytes": 8 * 1024, "send_buffer_bytes": 8 * 1024}
        async with Server(relay, port=0, on_shutdown=relay.aclose, **small) as server:
            yield relay, Host(("127.0.0.1", server.port))


async def whole(host: Host, user: str, path: str = "/v1/messages", body: Any = MESSAGES) -> tuple[int, bytes]:
    """(status, body) of an answer, read to its end."""
    async with connected(host) as client:
        head = await client.ask("POST", path, body, x_user=user)
        return head.status, await client.rest()


async def until(condition: Callable[[], bool]) -> None:
    """Both servers are in this loop: it goes round until it is so."""
    async with asyncio.timeout(test_app_hosts.PATIENCE):
        while True:
            await asyncio.sleep(0)
            if condition():
                return


# --- Limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [MESSAGES, {**MESSAGES, "stream": False}], ids=["stream", "whole"])
def test_of_fifty_requests_at_once_so_many_are_answered_as_the_limit_says(body: Any) -> None:
    async def story() -> None:
        upstream, rows = Upstream(), Rows()
        upstream.gate.set()
        async with served(upstream, observers=[rows], clock=lambda: 1_000_000.0) as (_, host):
            every = CLIENTS // OTHERS
            users = ["eve" if number % (every + 1) == every else "ada" for number in range(CLIENTS + OTHERS)]
            answers = await asyncio.gather(*(whole(host, user, body=body) for user in users))
        mine = [answer for answer, user in zip(answers, users, strict=True) if user == "ada"]
        others = [answer for answer, user in zip(answers, users, strict=True) if user == "eve"]
        assert Counter(status for status, _ in mine) == {200: 20, 429: 30}
        assert Counter(status for status, _ in others) == {200: OTHERS}
        assert upstream.asked == 20 + OTHERS  # what was refused did not get there
        assert Counter(each.user for each in rows.records) == {"ada": 20, "eve": OTHERS}
        texts = {body for status, body in answers if status == 200}
        if body is MESSAGES:
            assert texts == {to_bytes(ANSWER)}
        else:
            assert [json.loads(text)["content"][0]["text"] for text in texts] == ["Hello \u263a"]

    asyncio.run(story())


def test_of_fifty_runs_so_many_are_open_at_a_time_as_the_limit_says_and_each_that_ends_makes_room() -> None:
    async def story() -> None:
        upstream, rows = Upstream(), Rows()
        async with served(upstream, observers=[rows]) as (relay, host):
            for turn in range(1, 3):
                await one_turn(upstream, relay, host, 12 * turn)
        assert upstream.asked == len(rows.records) == 2 * 12

    asyncio.run(story())


async def one_turn(upstream: Upstream, relay: Relay, host: Host, calls: int) -> None:
    """Fifty requests of bob, who may have 7 runs, beside five of eve; then the API answers those that got to it."""
    asked = [asyncio.ensure_future(whole(host, "bob", "/stream", CHAT)) for _ in range(CLIENTS)]
    others = [asyncio.ensure_future(whole(host, "eve")) for _ in range(5)]
    await until(lambda: sum(each.done() for each in asked) == CLIENTS - 7 and upstream.asked == calls)
    assert (len(relay.open_runs("bob")), len(relay.open_runs())) == (7, 12)
    upstream.gate.set()
    answers = await asyncio.gather(*asked)
    assert Counter(status for status, _ in answers) == {200: 7, 429: CLIENTS - 7}
    assert all(status == 429 or frames(body)[-1].data == "[DONE]" for status, body in answers)
    assert await asyncio.gather(*others) == [(200, to_bytes(ANSWER))] * 5
    await until(lambda: not relay.open_runs())
    upstream.gate.clear()


# --- Clients that stall or leave ------------------------------------------------------------------------------------------


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Four sockets for each stream."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 5 * MANY)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
def test_clients_that_stall_or_leave_cost_the_others_not_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_app_hosts, "PATIENCE", 60.0)  # a thousand take their time

    async def story() -> None:
        upstream, rows, calm_is_over = Upstream(LONG), Rows(), asyncio.Event()

        async def read(number: int) -> bytes:
            async with connected(host) as client:
                await client.ask("POST", "/v1/messages", MESSAGES, x_user="eve")
                if number % 10 == 0:
                    await calm_is_over.wait()
                if number % 10 == 1:
                    return await client.read()
                return await client.rest()

        limits = RunLimits(max_unread_bytes=8 * 1024)
        async with served(upstream, observers=[rows], limits=limits) as (relay, host):
            readers = [asyncio.ensure_future(read(number)) for number in range(MANY)]
            await until(lambda: upstream.asked == MANY)
            upstream.gate.set()
            calm = [each for number, each in enumerate(readers) if number % 10]
            answers = await asyncio.gather(*calm)
            held = len(relay.open_runs())
            calm_is_over.set()
            answers += await asyncio.gather(*readers[::10])
            await until(lambda: not relay.open_runs())
        assert held == MANY // 10  # the relay waits for them, and the API for the relay
        assert Counter(len(each) for each in answers if each == to_bytes(LONG)) == {len(to_bytes(LONG)): MANY * 9 // 10}
        assert upstream.asked == len(rows.records) == MANY
        endings = Counter(each.ending for each in rows.records)
        assert endings["complete"] >= MANY * 9 // 10
        assert set(endings) <= {"complete", "cancelled"}

    asyncio.run(story())


# --- kill -9 ---------------------------------------------------------------------------------------------------------------


def post(port: int, text: str) -> socket.socket:
    """Ask in the text dialect; what came of the answer stays in the socket."""
    body = json.dumps({"message": text}).encode()
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    head = "POST /stream HTTP/1.1\r\nhost: localhost\r\nx-api-key: token-of-ada\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    sock.sendall(head.encode() + body)
    return sock


def test_a_relay_that_is_killed_in_the_middle_of_its_work_loses_no_run_that_was_written(tmp_path: Path) -> None:
    ledger, users = tmp_path / "ledger.db", tmp_path / "users.toml"
    users.write_text('[[user]]\nid = "ada"\ntoken = "token-of-ada"\n')
    users.chmod(0o600)
    arguments = ("serve", "--port", "0", "--users", users, "--ledger", ledger)

    def written() -> tuple[set[str], int]:
        """(runs that have ended, how many have not), as the ledger says."""
        found = rows_in(ledger, "run, ending")
        return {row["run"] for row in found if row["ending"]}, sum(row["ending"] is None for row in found)

    def work(port: int) -> None:
        with post(port, "quick") as quick:
            while quick.recv(65536):
                pass

    with Background() as background, ExitStack() as held:
        upstream = background.run(made())
        api = background.enter(Server(upstream, port=0))
        env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": api.base_url}
        with Command(*arguments, env=env) as command:
            port = int(command.base_url.rpartition(":")[2])
            for _ in range(20):
                assert b"200 OK" in held.enter_context(post(port, "hold")).recv(65536)
            for _ in range(20):
                work(port)
            deadline = time.monotonic() + PATIENCE
            while True:
                ended, open_runs = written()
                if (open_runs >= 20 and len(ended) >= 20) or time.monotonic() > deadline:
                    break
                threading.Event().wait(0.02)  # a batch is written once a second
            for _ in range(10):  # of these the last batch may be lost
                work(port)
            os.kill(command.pid, signal.SIGKILL)
            assert command.wait() == -signal.SIGKILL
        assert len(ended) >= 20
        after, open_runs = written()
        assert ended <= after
        assert open_runs >= 20
        with Command(*arguments, env=env) as again:
            assert again.base_url
        rows = rows_in(ledger, "run, ending, error")
        assert {row["run"] for row in rows if row["error"] != KILLED} == after
        assert [row["ending"] for row in rows if row["error"] == KILLED] == ["truncated"] * open_runs
        (told,) = usage([ledger], by=("user",))
        assert (told["user"], told["runs"], told["exact"]) == ("ada", len(rows), False)


async def made() -> Upstream:
    upstream = Upstream()
    upstream.gate.set()
    return upstream
