"""What a store in Redis costs a relay per event and in latency, beside the relay's own memory and one `XADD` per event.

    python -m tests.benchmarks.nodes [--streams 400] [--rate 20] [--events 200] [--rounds 3] [--uvloop] [--against CHECKOUT]

All are run side by side, round by round: compare the ratios. "memory" is the relay without a store, "redis" the same relay with
`RedisStore`. "naive" is what is written by hand most often: for each event one awaited `XADD`, then the event is sent; with
the same client and server as the relay. They use a redis-server of their own, at a free port, which writes nothing to the disk.

CPU time, "read" and latency are those of `relay.py`: of the relay's process alone. "redis us/event" is the CPU time of
redis-server, and "redis KiB/run" the growth of its memory per run, which it keeps after the run's end.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from . import measure
from .measure import Sample
from .relay import SERVE, Running, Usage, costs, direct, listening, read

KEEP_SECONDS = 300
SERVE_COMMAND = "; from benchmarks.nodes import main_of_child; main_of_child()"
MAX_BODY_BYTES = 1024 * 1024


class Store(NamedTuple):
    """A redis-server that runs."""

    url: str
    pid: int
    client: Any

    @property
    def used_kib(self) -> float:
        """Its memory."""
        return float(self.client.info("memory")["used_memory"]) / 1024


@contextmanager
def redis_server() -> Iterator[Store]:
    from redis import Redis

    for _ in range(5):  # another program may take the port in the meantime
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with tempfile.TemporaryDirectory() as folder:
            options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
            with measure.process("redis-server", *options) as child:
                assert child.stdout
                if any("ready to accept connections" in line.lower() for line in child.stdout):
                    with Redis(port=port) as client:
                        yield Store(f"redis://127.0.0.1:{port}/0", child.pid, client)
                    return
    raise SystemExit("redis-server does not start")


# The relays, in processes of their own ------------------------------------------------------------------------------


def main_of_child() -> None:
    """Serve with "memory", or the kind "redis" or "naive" at a URL: `python -c … BASE_URL KIND [URL]`."""
    from rawsse.cli.servers import GC_THRESHOLDS

    gc.set_threshold(*GC_THRESHOLDS)
    asyncio.run(serve_kind(*sys.argv[1:]))


async def serve_kind(base_url: str, kind: str, url: str = "") -> None:
    from rawsse.client.client import AsyncClient
    from rawsse.relay import Relay
    from rawsse.server import serve

    def say(base_url: str) -> None:
        print(base_url, flush=True)

    async with AsyncClient(api_key="any", base_url=base_url) as client:
        if kind == "naive":
            await serve(Naive(client, url), "127.0.0.1", 0, ready=say)
            return
        more: dict[str, Any] = {}
        if kind == "redis":
            from rawsse.relay.redis_store import RedisStore

            more["store"] = RedisStore(url)
        relay = Relay(client, **more)
        await serve(relay, "127.0.0.1", 0, ready=say, on_shutdown=relay.aclose, max_body_bytes=MAX_BODY_BYTES)
        if more:
            await more["store"].aclose()


class Naive:
    """An ASGI application: each event is one awaited `XADD`, then it is sent."""

    def __init__(self, client: Any, url: str) -> None:
        from redis.asyncio import Redis

        self._client = client
        self._redis = Redis.from_url(url, max_connections=10_000)
        self._runs = 0

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, is_more = b"", True
        while is_more:
            message = await receive()
            body, is_more = body + message.get("body", b""), message.get("more_body", False)
        self._runs += 1
        log, asked = f"naive:{self._runs}", {"role": "user", "content": json.loads(body)["message"]}
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        async with self._client.messages.stream(model="any", max_tokens=1024, messages=[asked]) as stream:
            async for text in stream.text_stream:
                data = f"data: {json.dumps({'text': text})}\n\n"
                id: Any = await self._redis.xadd(log, {"d": data})
                frame = f"id: {id.decode()}\n{data}".encode()
                await send({"type": "http.response.body", "body": frame, "more_body": True})
        await self._redis.expire(log, KEEP_SECONDS)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


@contextmanager
def relay(checkout: Path, loop: str, kind: str, store: Store, upstream_port: int) -> Iterator[Running]:
    base_url = f"http://127.0.0.1:{upstream_port}"
    yield from listening(checkout, SERVE[loop] + SERVE_COMMAND, base_url, kind, store.url)


# Measuring ----------------------------------------------------------------------------------------------------------


def run(start: Any, store: Store, arguments: argparse.Namespace) -> Sample:
    """Start a relay, warm it up, put the load on it."""
    streams, (events, *_) = arguments.streams, arguments.events
    store.client.flushall()
    with start() as running:
        read(running, arguments, arguments.warm_up, 5)
        if running.pid is None:
            return read(running, arguments, streams, events)
        before, stored, used = Usage.of(running.pid), Usage.of(store.pid), store.used_kib
        sample = dict(read(running, arguments, streams, events))
        redis = costs(stored, Usage.of(store.pid), streams, events)["CPU us/event"]
        spent = costs(before, Usage.of(running.pid), streams, events)
        return spent | sample | {"redis us/event": redis, "redis KiB/run": (store.used_kib - used) / streams}


def main() -> None:
    parser = measure.parser_of(__doc__, rounds=3)
    measure.add_load(parser, streams=400)
    parser.add_argument("--kinds", nargs="+", default=["direct", "memory", "redis", "naive"], help="(default all)")
    arguments = parser.parse_args()
    if shutil.which("redis-server") is None or not measure.is_installed("redis"):
        raise SystemExit("this needs redis-server and the extra `redis`")
    measure.print_machine()
    with measure.running_upstream() as port, redis_server() as store:
        for loop in arguments.loops:
            starts: dict[str, Any] = {}
            for label, checkout in measure.checkouts(arguments.against).items():
                for kind in arguments.kinds:
                    name = kind if label == "rawsse" else f"{kind} {label.removeprefix('rawsse ')}"
                    starts[name] = partial(relay, checkout, loop, kind, store, port)
            if "direct" in arguments.kinds:
                starts = {name: start for name, start in starts.items() if not name.startswith("direct")}
                starts["direct"] = partial(direct, port, "http")
            kinds = {kind: partial(run, start, store, arguments) for kind, start in starts.items()}
            measure.compare(f"{loop}: {measure.load_of(arguments)}", kinds, arguments.rounds, ("memory", "naive"))


if __name__ == "__main__":
    main()
