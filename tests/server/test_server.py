"""rawsse.server.server: starting, signals, and a shutdown that takes no longer than it may."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from support.clock import run, ticks
from support.loops import Loop, each_loop

from rawsse.errors import ConfigurationError
from rawsse.server import ASGIApp, Receive, Scope, Send, Server, serve
from rawsse.server.server import signals_call
from server.peer import GET, LAST_GET, Peer, answering, body, echo, http_only, read_answers, start, talk

ROOT = Path(__file__).parents[2]


def now() -> float:
    return asyncio.get_running_loop().time()


def fetch(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/x")
    data = connection.getresponse().read()
    connection.close()
    return data


# --- Starting


def test_port_0_is_any_free_port() -> None:
    async def story() -> None:
        async with Server(echo, port=0) as server:
            assert server.port != 0
            assert server.base_url == f"http://127.0.0.1:{server.port}"
            assert await asyncio.to_thread(fetch, server.port) == b"/x "

    asyncio.run(story())


def test_the_url_of_an_ipv6_address_has_brackets() -> None:
    assert Server(echo, "::1", 80).base_url == "http://[::1]:80"


def test_a_port_in_use_is_named() -> None:
    async def story() -> None:
        async with Server(echo, port=0) as first:
            message = rf"^cannot listen on host 127\.0\.0\.1, port {first.port}: address already in use$"
            with pytest.raises(ConfigurationError, match=message):
                await Server(echo, port=first.port).start()

    run(story())


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"port 70000: .*0-65535"):
        run(Server(echo, port=70000).start())


def test_a_host_that_is_not_ours_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^cannot listen on host 192\.0\.2\.1, port 0: c(annot assign|ould not bind)"
    ):
        run(Server(echo, "192.0.2.1", 0).start())


def test_a_server_starts_once() -> None:
    async def story() -> None:
        async with Server(echo, port=0) as server:
            with pytest.raises(ConfigurationError, match=r"^this server has already been started$"):
                await server.start()

    run(story())


def test_a_server_that_was_not_started_has_nothing_to_shut_down() -> None:
    run(Server(echo).shutdown())


def test_several_servers_live_in_one_loop() -> None:
    async def story() -> list[bytes]:
        async with Server(echo, port=0) as one, Server(answering(start(), body(b"two")), port=0) as two:
            return [await asyncio.to_thread(fetch, server.port) for server in (one, two)]

    assert asyncio.run(story()) == [b"/x ", b"two"]


def test_several_servers_live_in_several_threads() -> None:
    answers: list[bytes] = []

    async def story() -> None:
        async with Server(echo, port=0) as server:
            answers.append(await asyncio.to_thread(fetch, server.port))

    threads = [threading.Thread(target=asyncio.run, args=(story(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [b"/x "] * 3


# --- The lifespan, around the listening


class Living:
    """An app with a lifespan; `log` is what happened to it."""

    def __init__(self, *, failure: str | None = None) -> None:
        self.log: list[str] = []
        self._failure = failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.log.append(f"request with {scope['state']}")
            await echo(scope, receive, send)
            return
        await receive()
        self.log.append("startup")
        scope["state"]["name"] = "shared"
        if self._failure is not None:
            await send({"type": "lifespan.startup.failed", "message": self._failure})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.log.append("shutdown")
        await send({"type": "lifespan.shutdown.complete"})


def test_the_app_starts_before_the_first_request_and_ends_after_the_last() -> None:
    app = Living()

    async def story(peer: Peer) -> None:
        await peer.send(GET)
        await peer.until(b"/ ")

    talk(app, story)
    assert app.log == ["startup", "request with {'name': 'shared'}", "shutdown"]


def test_an_app_that_fails_to_start_is_not_served() -> None:
    with pytest.raises(ConfigurationError, match=r"^the app failed to start: no database$"):
        run(Server(Living(failure="no database"), port=0).start())


def test_an_app_that_started_in_vain_is_told_to_end() -> None:
    app = Living()

    async def story() -> None:
        async with Server(echo, port=0) as first:
            with pytest.raises(ConfigurationError):
                await Server(app, port=first.port).start()

    run(story())
    assert app.log == ["startup", "shutdown"]


def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async def story() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Server(app, port=0).start(), 5)

    run(story())


# --- Shutdown


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Never ends by itself: `/busy` sends all the time, `/idle` never, `/flood` as fast as it can."""
    await send(start())
    await send(body(b"begun", more=True))
    while True:
        if scope["path"] != "/flood":
            await asyncio.sleep(0.5 if scope["path"] == "/busy" else 1000)
        await send(body(b"x" * (65536 if scope["path"] == "/flood" else 10), more=True))


def open_streams(
    count: int, leave: Callable[[Server], Awaitable[None]], app: ASGIApp = stream, **options: Any
) -> float:
    """How long `leave` takes for a server with so many streams of each kind."""

    async def story() -> float:
        async with AsyncExitStack() as stack:
            server = Server(http_only(app), port=0, **options)
            await server.start()
            for path in (b"/busy", b"/idle", b"/flood"):
                for _ in range(count):
                    peer = await stack.enter_async_context(Peer(server))
                    await peer.send(b"GET " + path + b" HTTP/1.1\r\nhost: a\r\n\r\n")
                    await peer.until(b"begun")
            before = now()
            await leave(server)
            assert len(asyncio.all_tasks()) == 1
            return round(now() - before, 3)

    return run(story())


def test_fifty_open_streams_are_cut_off_when_the_grace_is_over(caplog: pytest.LogCaptureFixture) -> None:
    assert open_streams(17, Server.shutdown, grace_seconds=5) == 5
    assert caplog.messages == ["51 connection(s) did not end within 5 s"]


def test_a_shutdown_without_a_grace_does_not_warn_of_the_streams_that_it_cuts_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def leave(server: Server) -> None:
        await server.shutdown(0)

    assert open_streams(1, leave) == 0
    assert caplog.messages == []


def test_the_grace_may_be_chosen_at_the_shutdown() -> None:
    assert open_streams(1, lambda server: server.shutdown(2), grace_seconds=5) == 2


def test_a_shutdown_after_the_shutdown_does_nothing() -> None:
    async def leave(server: Server) -> None:
        await server.shutdown()
        await server.shutdown()

    assert open_streams(1, leave, grace_seconds=2) == 2


def test_cancelling_a_shutdown_ends_the_grace() -> None:
    async def leave(server: Server) -> None:
        task = asyncio.create_task(server.shutdown())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert open_streams(1, leave, grace_seconds=50) == 1


def test_the_app_is_told_first_and_can_end_its_streams() -> None:
    stop = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"begun", more=True))
        await stop.wait()
        await send(body(b"good bye"))

    async def tell() -> None:
        stop.set()

    assert open_streams(3, Server.shutdown, app, on_shutdown=tell) == 0


def test_telling_the_app_takes_no_longer_than_the_grace() -> None:
    async def tell() -> None:
        await asyncio.sleep(1000)

    assert open_streams(1, Server.shutdown, on_shutdown=tell, grace_seconds=3) == 3


def test_that_telling_the_app_fails_does_not_stop_the_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    async def tell() -> None:
        raise RuntimeError("boom")

    open_streams(1, Server.shutdown, on_shutdown=tell, grace_seconds=1)
    assert "on_shutdown failed" in caplog.messages


def test_an_app_that_will_not_be_cancelled_does_not_stop_the_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"begun", more=True))
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await release.wait()

    async def leave(server: Server) -> None:
        await server.shutdown()
        release.set()
        await asyncio.sleep(1)

    assert open_streams(1, leave, app, grace_seconds=5, cleanup_seconds=2) == 5 + 2 + 1
    assert "3 call(s) of the app ignored their cancellation" in caplog.messages


@pytest.mark.parametrize("count", range(5))
def test_a_client_that_comes_just_when_the_server_stops_is_not_forgotten(count: int) -> None:
    async def story() -> None:
        server = Server(echo, port=0)
        await server.start()
        with socket.create_connection((server.host, server.port)):
            await ticks(count)  # accepting one takes some rounds of the loop
            before = now()
            await server.shutdown()
            assert now() == before

    run(story())


def test_a_client_that_does_not_take_the_end_of_its_answer_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async def story(peer: Peer) -> float:
        await peer.send(GET)
        await peer.until(b"\r\n\r\n")
        before = now()
        await peer.server.shutdown()
        return now() - before

    assert talk(answering(start(), body(b"x" * 2_000_000)), story, grace_seconds=5) == 5
    assert caplog.messages == ["1 connection(s) did not end within 5 s"]


def test_cancelling_a_shutdown_also_ends_the_grace_of_the_lifespan() -> None:
    async def story(peer: Peer) -> float:
        await peer.send(GET)
        await peer.until(b"begun")
        before = now()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.server.shutdown(), 1)
        return now() - before

    assert talk(endless, story, grace_seconds=50, cleanup_seconds=2) == 1 + 2


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that does not end when it is told to."""
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.complete"})
        await asyncio.Event().wait()
    await stream(scope, receive, send)


def test_a_lifespan_gets_what_is_left_of_the_grace() -> None:
    async def story() -> float:
        server = Server(endless, port=0, grace_seconds=5, cleanup_seconds=1)
        await server.start()
        before = now()
        await server.shutdown()
        return now() - before

    assert run(story()) == 5


def test_a_lifespan_gets_its_time_also_when_the_grace_is_over() -> None:
    async def story(peer: Peer) -> float:
        await peer.send(GET)
        await peer.until(b"begun")
        before = now()
        await peer.server.shutdown()
        return now() - before

    assert talk(endless, story, grace_seconds=5, cleanup_seconds=2) == 5 + 2


def test_idle_connections_close_at_once() -> None:
    async def story(peer: Peer) -> float:
        await peer.send(GET)
        await peer.until(b"0\r\n\r\n")
        before = now()
        await peer.server.shutdown()
        assert await peer.rest() == b""
        return now() - before

    assert talk(echo, story) == 0


def test_connections_with_half_a_head_close_at_once() -> None:
    async def story(peer: Peer) -> float:
        await peer.send(b"GET /")
        await asyncio.sleep(1)
        before = now()
        await peer.server.shutdown()
        return now() - before

    assert talk(echo, story) == 0


@http_only
async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(2)
    await send(start())
    await send(body(b"slow"))


def test_a_request_under_way_is_answered_and_told_that_it_was_the_last() -> None:
    async def story(peer: Peer) -> tuple[float, bytes]:
        await peer.send(GET)
        await asyncio.sleep(1)
        before = now()
        await peer.server.shutdown()
        return now() - before, await peer.rest()

    after, wire = talk(slow, story)
    (answer,) = read_answers(wire)
    assert (after, answer.body, answer.headers["connection"]) == (1, b"slow", "close")


def test_a_response_that_began_before_the_shutdown_is_the_last_too() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"begun", more=True))
        await slow(scope, receive, lambda message: send(body()) if "body" in message else asyncio.sleep(0))

    async def story(peer: Peer) -> float:
        await peer.send(GET + GET)
        await peer.until(b"begun\r\n")
        before = now()
        await peer.server.shutdown()
        assert await peer.rest() == b"0\r\n\r\n"
        return now() - before

    assert talk(app, story) == 2


def test_nobody_can_connect_during_the_shutdown() -> None:
    async def story(peer: Peer) -> None:
        await peer.send(GET)
        await asyncio.sleep(1)
        shutdown = asyncio.create_task(peer.server.shutdown())
        await asyncio.sleep(0.5)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", peer.server.port)
        await shutdown

    talk(slow, story)


def test_what_the_app_does_after_a_response_is_waited_for() -> None:
    done: list[str] = []

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body())
        await asyncio.sleep(2)
        done.append("cleaned up")

    async def story(peer: Peer) -> None:
        await peer.send(LAST_GET)
        await peer.rest()

    talk(app, story)
    assert done == ["cleaned up"]


def test_the_listening_socket_is_closed() -> None:
    async def story() -> int:
        async with Server(echo, port=0) as server:
            return server.port

    port = run(story())
    assert not accepts(port)


# --- serve


PROGRAM = """
import asyncio, signal
from rawsse.server import serve

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await asyncio.sleep(60)

async def stopping():
    print("stopping", flush=True)

asyncio.run(serve(app, port=0, ready=lambda url: print(url, flush=True), on_shutdown=stopping, grace_seconds=%s))
print("over, and Ctrl-C is as before:", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def leave_by(*signals: signal.Signals, grace_seconds: float) -> str:
    """What a program that serves one endless stream prints when it is sent these signals."""
    arguments = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM % grace_seconds]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    out = subprocess.PIPE
    # Without a buffer: `communicate` would not find there what `readline` has read ahead.
    with subprocess.Popen(arguments, bufsize=0, stdout=out, stderr=subprocess.STDOUT, env=environment) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(GET)
            received = output = b""
            while b"begun" not in received:
                received += sock.recv(1000)
            for number in signals:
                process.send_signal(number)
                output += process.stdout.readline() if not output else b""  # two signals that come at once are one
            output += process.communicate(timeout=20)[0]
        assert process.returncode == 0, output
        return output.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_leaves_on_a_signal_within_its_grace(number: signal.Signals) -> None:
    said = leave_by(number, grace_seconds=0.1)
    assert said == "stopping\n1 connection(s) did not end within 0.1 s\nover, and Ctrl-C is as before: True\n"


def test_serve_leaves_at_once_on_a_second_signal() -> None:
    said = leave_by(signal.SIGTERM, signal.SIGINT, grace_seconds=1000)
    assert said == "stopping\nover, and Ctrl-C is as before: True\n"


def test_serve_ends_gracefully_when_it_is_cancelled() -> None:
    app = Living()

    async def story() -> None:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve(app, port=0, ready=ready.set_result))
        assert (await ready).startswith("http://127.0.0.1:")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(story())
    assert app.log == ["startup", "shutdown"]


def test_serve_gives_signal_handlers_back() -> None:
    async def story() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(serve(echo, port=0), 1)

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        run(story())
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_handler_that_was_set_meanwhile_stays() -> None:
    async def story() -> None:
        with signals_call(lambda: None):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    before = signal.getsignal(signal.SIGTERM)
    try:
        run(story())
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_serve_works_in_a_thread_that_may_have_no_signal_handlers() -> None:
    urls: list[str] = []

    async def story() -> None:
        await asyncio.wait_for(serve(echo, port=0, ready=urls.append), 0.05)

    def work() -> None:
        with pytest.raises(TimeoutError):
            asyncio.run(story())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(urls) == 1


def test_serve_prints_nothing_by_itself(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rawsse")

    async def story() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(serve(echo, port=0), 1)

    run(story())
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.name.startswith("rawsse")] == []


def test_serve_says_when_it_cannot_start() -> None:
    with pytest.raises(ConfigurationError, match="cannot listen on host"):
        run(serve(echo, "192.0.2.1", 0))


@each_loop
@pytest.mark.parametrize("grace", [5.0, 0.0])
@pytest.mark.parametrize("pause", range(6))
def test_a_connection_that_is_being_accepted_when_the_server_stops_is_closed(
    on: Loop, pause: int, grace: float
) -> None:
    async def story() -> float:
        loop = asyncio.get_running_loop()
        server = Server(http_only(echo), port=0)
        await server.start()
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, (server.host, server.port))
            await ticks(pause)
            began = loop.time()
            await server.shutdown(grace)
            took = loop.time() - began
            with contextlib.suppress(ConnectionResetError):  # it was not accepted any more
                assert await loop.sock_recv(client, 1) == b""
        assert (server._state.connections, server._state.tasks) == (set(), set())
        return took

    assert on(story()) < 1
