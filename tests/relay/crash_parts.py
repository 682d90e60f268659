"""The parts of the crash suite: processes to be killed and stopped, a proxy that cuts and holds, and an upstream.

Every process dies with this one, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import json
import shutil
import signal
import socket
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from interop.peers import NGINX, NGINX_CONFIGURATION
from support.command import ROOT, environment
from support.streams import STOP, block_start, block_stop, end, start, text_delta, to_bytes

from rawsse.server import Receive, Scope, Send

from .crash_client import Plan

HEARTBEAT = 0.3
READ_TIMEOUT = 1
"""Seconds after which nginx gives up a node that says nothing. It has no fractions in what users write."""

PATIENCE = 20.0
"""For what a process does soon, if the machine has time for it."""

SITE = """
    upstream relay {{
        {servers}
        keepalive 64;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://relay;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_buffering off;
            proxy_connect_timeout 1s;
            proxy_read_timeout {read_timeout}s;
            proxy_next_upstream error timeout http_503 non_idempotent;
            proxy_next_upstream_tries 3;
            gzip off;
        }}
    }}
"""

_PR_SET_PDEATHSIG = 1


def missing() -> str | None:
    """Why the suite cannot run here."""
    if not sys.platform.startswith("linux"):
        return "the crash suite needs Linux"
    if shutil.which("redis-server") is None:
        return "redis-server is not installed"
    if not Path(NGINX).exists():
        return "no nginx on this machine"
    if importlib.util.find_spec("redis") is None:
        return "the store in Redis needs the extra redis"
    return None


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A process that is started, killed, and started again. Its output is added to a file."""

    def __init__(self, log: Path, *command: str | Path, ready: Callable[[], Awaitable[bool]], **options: Any) -> None:
        self.log = log
        self._command, self._ready, self._options = command, ready, options
        self._process: asyncio.subprocess.Process | None = None
        self.is_up = False
        """It has been ready, and has not been ended since."""
        self.is_frozen = False
        self._seen = 0

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *map(str, self._command), stdout=log, stderr=log, preexec_fn=_die_with_parent, **self._options
            )
        async with asyncio.timeout(PATIENCE):
            while not await self._ready():
                assert self._process.returncode is None, f"{self._command[0]} ended: {self.log.read_text()[-2000:]}"
                await asyncio.sleep(0.02)
        self.is_up = True

    async def end(self, number: int = signal.SIGKILL) -> int:
        """Send the signal, and wait for the end."""
        self.is_up = False
        if (process := self._process) is None:
            return 0
        if self.is_frozen and number != signal.SIGKILL:
            self.thaw()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            async with asyncio.timeout(PATIENCE):
                status = await process.wait()
        except TimeoutError:
            process.kill()
            status = await process.wait()
        self.is_frozen = False
        self._process = None
        return status

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def new_output(self) -> str:
        """Its output since the call before."""
        with self.log.open() as log:
            log.seek(self._seen)
            found = log.read()
            self._seen = log.tell()
        return found

    def freeze(self) -> None:
        if self._process is not None and not self.is_frozen:
            self._process.send_signal(signal.SIGSTOP)
            self.is_frozen = True

    def thaw(self) -> None:
        if self._process is not None and self.is_frozen:
            self._process.send_signal(signal.SIGCONT)
            self.is_frozen = False


def free_port(stack: contextlib.ExitStack | contextlib.AsyncExitStack) -> int:
    """A port that stays free for a process that is started again and again: bound here, and no process listens."""
    place = stack.enter_context(socket.socket())
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("127.0.0.1", 0))
    return int(place.getsockname()[1])


async def _accepts(address: int | Path) -> bool:
    try:
        if isinstance(address, Path):
            _, writer = await asyncio.open_unix_connection(address)
        else:
            _, writer = await asyncio.open_connection("127.0.0.1", address)
    except OSError:
        return False
    writer.close()
    return True


def redis_server(folder: Path) -> tuple[Process, Path]:
    """A Redis that loses nothing it has acknowledged, and its socket."""
    place = folder / "redis.sock"
    options: list[str | Path] = [
        "--port",
        "0",
        "--unixsocket",
        place,
        "--dir",
        folder,
        "--save",
        "",
        "--appendonly",
        "yes",
    ]
    options += ["--appendfsync", "always"]

    async def ready() -> bool:  # it also listens while it loads its file
        try:
            reader, writer = await asyncio.open_unix_connection(place)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return (await reader.readline()).startswith(b"+PONG")
        except OSError:
            return False
        finally:
            writer.close()

    return Process(folder / "redis.log", "redis-server", *options, ready=ready), place


def nginx(folder: Path, port: int, nodes: Iterable[int]) -> Process:
    servers = " ".join(f"server 127.0.0.1:{each} max_fails=1 fail_timeout=1s;" for each in nodes)
    file = folder / "nginx.conf"
    site = SITE.format(servers=servers, port=port, read_timeout=READ_TIMEOUT)
    file.write_text(NGINX_CONFIGURATION.format(folder=folder, site=site))
    command = (NGINX, "-p", folder, "-c", file, "-e", "stderr", "-g", "worker_processes 1; master_process off;")
    return Process(folder / "nginx.log", *command, ready=lambda: _accepts(port))


def node(folder: Path, name: str, **options: Any) -> Process:
    """A relay. `options` are those of `crash_node`."""
    options["ledger"] = str(folder / f"{name}.db")
    env = environment({}) | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = (sys.executable, "-W", "error", "-m", "relay.crash_node", json.dumps(options))
    port = options["port"]
    return Process(folder / f"{name}.log", *command, ready=lambda: _accepts(port), env=env, cwd=folder)


class Proxy:
    """Between one node and Redis. It cuts connections, and holds what comes from either side."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._may_ask, self._may_answer = asyncio.Event(), asyncio.Event()
        self.release()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            self.release()
            self.cut()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    def hold(self, *, answers_only: bool) -> None:
        self._may_answer.clear()
        if not answers_only:
            self._may_ask.clear()

    def release(self) -> None:
        self._may_ask.set()
        self._may_answer.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        try:
            there, back = await asyncio.open_unix_connection(self._place)
            self._open.add(back)
            try:
                asks, answers = self._pump(reader, back, self._may_ask), self._pump(there, writer, self._may_answer)
                await asyncio.gather(asks, answers)
            finally:
                self._open.discard(back)
                back.transport.abort()
        except OSError:
            pass
        finally:
            self._open.discard(writer)
            writer.transport.abort()
            self._tasks.discard(task)

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, may: asyncio.Event) -> None:
        try:
            while piece := await reader.read(65536):
                await may.wait()
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()  # bytes that were held arrive, though their sender has gone


class Upstream:
    """The Messages API, slow and predictable. One server for each node, so that it is known which node has called."""

    def __init__(self) -> None:
        self.calls: defaultdict[str, list[int]] = defaultdict(list)
        """By run: the numbers of the nodes that have called for it."""
        self.open: set[tuple[int, str]] = set()
        """Calls that are not over: the node, and the run."""

    def app(self, number: int) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            body = b""
            while True:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            plan = Plan(*json.loads(json.loads(body)["messages"][-1]["content"]))
            self.calls[plan.id].append(number)
            self.open.add((number, plan.id))
            try:
                with contextlib.suppress(OSError):
                    await self._speak(plan, send)
            finally:
                self.open.discard((number, plan.id))

        return answer

    async def _speak(self, plan: Plan, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"request-id", b"req_crash")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def say(*events: Any, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": to_bytes(events), "more_body": more})

        await say(start(), block_start(0, {"type": "text", "text": ""}))
        for number in range(1, plan.pieces + 1):
            await asyncio.sleep(plan.seconds)
            await say(text_delta(0, plan.piece(number)))
        await say(block_stop(0), end(), STOP, more=False)


class Clock:
    """Seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() - self._began
