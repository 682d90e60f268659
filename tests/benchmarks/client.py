"""CPU time per event of the async and the blocking client, beside their peers in one run: compare the ratios.

    python -m tests.benchmarks.client [--row ROW] [--uvloop] [--rounds 3] [--against OTHER_CHECKOUT]

Each kind runs in a fresh process, whose user and system time, threads included, is taken after a warm-up. "Event" means a
text delta. The upstream sends each event as an HTTP chunk of its own, either all at once (burst) or one at a time (paced).

    rawsse, sdk         `messages.stream(...).text_stream`
    aiohttp, socket     by hand: lines, `json.loads`, the text. "socket" does not even decode the chunks
    StreamReader, BufferedProtocol      only read, with asyncio: the limits of what a client can reach

"waits" is how often per event the process waited. A paced row with far fewer waits than its peers is not to be trusted: the
process did not get the CPU in time, or needed all of it, and read several events at once, which costs less.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import resource
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from . import measure
from .measure import Sample
from .upstream import END, ask, new_loop_factory, request

READ_BYTES = 64 * 1024
RAMP_SECONDS = 1.0
WORKER_SECONDS = 120


class Row(NamedTuple):
    """What rawsse is measured beside, and a load: streams at a time, calls of each in turn, events of each call."""

    peers: tuple[str, ...]
    streams: int
    calls: int
    events: int
    interval_ms: int


ROWS = {
    "async-burst": Row(("aiohttp", "sdk"), 1, 20, 1000, 0),
    "async-paced": Row(("BufferedProtocol", "StreamReader", "aiohttp", "sdk"), 100, 1, 200, 20),
    "blocking-burst": Row(("socket", "sdk"), 1, 20, 1000, 0),
    "blocking-paced": Row(("socket", "sdk"), 1, 1, 1000, 2),
}
PACKAGES = {"aiohttp": "aiohttp", "sdk": "anthropic"}

# --- The kinds: what each does for one call ---------------------------------------------------------------------------

AsyncCall = Callable[[Mapping[str, Any]], Awaitable[int | None]]
Call = Callable[[Mapping[str, Any]], int | None]
"""Makes one call with these parameters. Returns how many texts it got; None if it only reads."""


def options(port: int) -> dict[str, Any]:
    """Of both clients: the SDK connects too late for its own timeout if the machine is busy."""
    url = f"http://127.0.0.1:{port}"
    return {"api_key": "any", "base_url": url, "max_retries": 0, "timeout": WORKER_SECONDS}


@asynccontextmanager
async def async_client(module: str, port: int) -> AsyncIterator[AsyncCall]:
    new = importlib.import_module(module).AsyncAnthropic
    async with new(**options(port)) as client:

        async def call(params: Mapping[str, Any]) -> int:
            count = 0
            async with client.messages.stream(**params) as stream:
                async for _ in stream.text_stream:
                    count += 1
            return count

        yield call


@contextmanager
def blocking_client(module: str, port: int) -> Iterator[Call]:
    new = importlib.import_module(module).Anthropic
    with new(**options(port)) as client:

        def call(params: Mapping[str, Any]) -> int:
            with client.messages.stream(**params) as stream:
                return sum(1 for _ in stream.text_stream)

        yield call


def count_texts(lines: Iterable[bytes]) -> int:
    count = 0
    for line in lines:
        if line.startswith(b"data: "):
            event = json.loads(line[6:])
            if event["type"] == "content_block_delta":
                count += event["delta"]["text"] is not None
    return count


@asynccontextmanager
async def aiohttp_by_hand(port: int) -> AsyncIterator[AsyncCall]:
    aiohttp = importlib.import_module("aiohttp")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call(params: Mapping[str, Any]) -> int:
            count, rest = 0, b""
            url = f"http://127.0.0.1:{port}/v1/messages"
            async with session.post(url, json={**params, "stream": True}) as response:
                async for data in response.content.iter_any():
                    *lines, rest = (rest + data).split(b"\n")
                    count += count_texts(lines)
            return count

        yield call


@contextmanager
def socket_by_hand(port: int) -> Iterator[Call]:
    with socket.create_connection(("127.0.0.1", port)) as connection:

        def call(params: Mapping[str, Any]) -> int:
            connection.sendall(request("/v1/messages", {**params, "stream": True}))
            count, rest, tail = 0, b"", b""
            while tail != END:
                data = connection.recv(READ_BYTES)
                tail = (tail + data)[-len(END) :]
                *lines, rest = (rest + data).split(b"\n")
                count += count_texts(lines)
            return count

        yield call


@asynccontextmanager
async def stream_reader(port: int) -> AsyncIterator[AsyncCall]:
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(params: Mapping[str, Any]) -> None:
        reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/v1/messages", {**params, "stream": True}))
        tail = b""
        while tail != END:
            tail = (tail + await reader.read(READ_BYTES))[-len(END) :]
        idle.append((reader, writer))

    yield call
    for _, writer in idle:
        writer.close()


class Reading(asyncio.BufferedProtocol):
    buffer = memoryview(bytearray(READ_BYTES))  # of all connections
    tail: bytes
    ended: asyncio.Future[None]

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.tail = (self.tail + bytes(self.buffer[:nbytes]))[-len(END) :]
        if self.tail == END:
            self.ended.set_result(None)


@asynccontextmanager
async def buffered_protocol(port: int) -> AsyncIterator[AsyncCall]:
    loop = asyncio.get_running_loop()
    idle: list[tuple[asyncio.Transport, Reading]] = []

    async def call(params: Mapping[str, Any]) -> None:
        transport, reading = idle.pop() if idle else await loop.create_connection(Reading, "127.0.0.1", port)
        reading.tail, reading.ended = b"", loop.create_future()
        transport.write(request("/v1/messages", {**params, "stream": True}))
        await reading.ended
        idle.append((transport, reading))

    yield call
    for transport, _ in idle:
        transport.close()


ASYNC: Mapping[str, Callable[[int], AbstractAsyncContextManager[AsyncCall]]] = {
    "rawsse": partial(async_client, "rawsse"),
    "sdk": partial(async_client, "anthropic"),
    "aiohttp": aiohttp_by_hand,
    "StreamReader": stream_reader,
    "BufferedProtocol": buffered_protocol,
}
BLOCKING: Mapping[str, Callable[[int], AbstractContextManager[Call]]] = {
    "rawsse": partial(blocking_client, "rawsse"),
    "sdk": partial(blocking_client, "anthropic"),
    "socket": socket_by_hand,
}

# --- The worker: one kind, in a process of its own --------------------------------------------------------------------


def used() -> tuple[float, float, float]:
    """By this process and all its threads: CPU seconds, those in the kernel, and how often it waited."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_stime, usage.ru_nvcsw


def cost(before: tuple[float, float, float], events: int) -> Sample:
    total, system, waits = ((after - at) / events for after, at in zip(used(), before, strict=True))
    return {"CPU us/event": total * 1e6, "(sys)": system * 1e6, "(waits)": waits}


def check(count: int | None, events: int) -> None:
    if count not in (events, None):
        raise SystemExit(f"{count} texts came instead of {events}")


async def run_async(kind: str, row: Row, port: int) -> Sample:
    async with ASYNC[kind](port) as call:

        async def one_stream(number: int, calls: int, events: int) -> None:
            # Spread over the ramp, and over the interval too: the streams' events do not arrive together.
            await asyncio.sleep(number * 0.618034 % 1 * RAMP_SECONDS)
            for _ in range(calls):
                check(await call(ask(events, row.interval_ms)), events)

        async def all_streams(calls: int, events: int) -> None:
            await asyncio.gather(*(one_stream(number, calls, events) for number in range(row.streams)))

        await all_streams(max(1, row.calls // 10), row.events // 10)
        before = used()
        await all_streams(row.calls, row.events)
        return cost(before, row.streams * row.calls * row.events)


def run_blocking(kind: str, row: Row, port: int) -> Sample:
    with BLOCKING[kind](port) as call:

        def calls(count: int, events: int) -> None:
            for _ in range(count):
                check(call(ask(events, row.interval_ms)), events)

        calls(max(1, row.calls // 10), row.events // 10)
        before = used()
        calls(row.calls, row.events)
        return cost(before, row.calls * row.events)


def work(name: str, kind: str, port: str, loop: str) -> None:
    row = ROWS[name]
    if name.startswith("blocking"):
        sample = run_blocking(kind, row, int(port))
    else:
        with asyncio.Runner(loop_factory=new_loop_factory(loop == "uvloop")) as runner:
            sample = runner.run(run_async(kind, row, int(port)))
    print(json.dumps(sample))


# --- All of them ------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = measure.parser_of(__doc__, rounds=3)
    measure.add_rows(parser, ROWS)
    measure.add_uvloop(parser)
    arguments = parser.parse_args()
    measure.print_machine()
    found = measure.checkouts(arguments.against)
    with measure.running_upstream() as port:
        for name in arguments.rows or ROWS:
            for loop in arguments.loops[:1] if name.startswith("blocking") else arguments.loops:
                measure_row(name, port, loop, found, arguments.rounds)


def measure_row(name: str, port: int, loop: str, found: Mapping[str, Path], rounds: int) -> None:
    row = ROWS[name]

    def worker(kind: str, checkout: Path) -> Sample:
        arguments = ("--worker", name, kind, str(port), loop)
        sample: Sample = measure.result_of(
            "-m", "benchmarks.client", *arguments, seconds=WORKER_SECONDS, checkout=checkout
        )
        return sample

    kinds = {label: partial(worker, "rawsse", checkout) for label, checkout in found.items()}
    for peer in row.peers:
        if peer not in PACKAGES or measure.is_installed(PACKAGES[peer]):
            kinds[peer] = partial(worker, peer, found["rawsse"])
    pace = f"one every {row.interval_ms} ms" if row.interval_ms else "all at once"
    shape = f"{row.streams} x {row.calls} calls x {row.events} events, {pace}"
    measure.compare(f"{name}, {loop if name.startswith('async') else 'no loop'}: {shape}", kinds, rounds, row.peers)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
    else:
        main()
