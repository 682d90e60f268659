"""What an open stream costs a relay in memory, beside nginx and Express with the official SDK: KiB per stream.

    python -m tests.benchmarks.memory [--row ROW] [--uvloop] [--streams 100] [--rounds 3] [--against OTHER_CHECKOUT]

The growth of the resident memory of all processes of the relay, each row in a fresh one, from before the streams to when they
are open, have brought their texts, and the relay rests. The upstream then says nothing more, and ends no stream.

    idle               one text
    100 frames         100 texts, one every 50 ms
    10,000 frames      10,000 texts at once
    100 frames, TLS    100 texts, one every 50 ms, from an upstream over TLS
    unread             100,000 texts at once, and readers that read nothing: all buffers are full. A tenth of the streams
    unread, kernel     what the kernel holds then for the relay's sockets, to both sides (`ss -m`: r, f and w). The sockets of
                       the readers and of the upstream are not counted: those are other machines
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

from . import measure
from .measure import Sample
from .relay import Running, Start, Usage, read, relays
from .upstream import STAMP, ask, new_loop_factory, prompt, request

READ_SECONDS = 120
REST_SECONDS = 1.5
TEXT = re.compile(rb" word |\d{%d}" % len(STAMP))  # not its event: a relay may send several texts in one
SOCKET_MEMORY = re.compile(r"skmem:\(r(\d+),.*?,f(\d+),w(\d+),")


class Row(NamedTuple):
    events: int
    interval_ms: int
    scheme: str = "http"
    reads: bool = True


ROWS: Mapping[str, Row] = {
    "idle": Row(1, 50),
    "100 frames": Row(100, 50),
    "10,000 frames": Row(10_000, 0),
    "100 frames, TLS": Row(100, 50, scheme="https"),
    "unread": Row(100_000, 0, reads=False),
}

# --- The readers, in a process of their own ---------------------------------------------------------------------------


class Reader(asyncio.Protocol):
    """One request, and its answer, which does not end."""

    def __init__(self, request: bytes, texts: int) -> None:
        self.request, self.texts, self.rest = request, texts, b""  # texts that are still to come
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self.request)

    def data_received(self, data: bytes) -> None:
        data, at = self.rest + data, 0
        for found in TEXT.finditer(data):
            self.texts, at = self.texts - 1, found.end()
        self.rest = data[at:][-len(STAMP) :]
        if self.texts <= 0 and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        raise SystemExit(f"a stream ended: {exc}")


async def hold(url: str, dialect: str, streams: int, events: int, interval_ms: int, reads: bool) -> None:
    """Open so many streams; say when all texts have come; keep them open."""
    loop, asked = asyncio.get_running_loop(), prompt(events, interval_ms, ends=False)
    if dialect == "text":
        wire = request("/chat/stream", {"message": asked})
    else:
        messages = [{"role": "user", "content": asked}]
        wire = request("/v1/messages", {**ask(events, interval_ms), "messages": messages, "stream": True})
    host, port = url.removeprefix("http://").split(":")
    if reads:
        # A proxy's chunks cut a few texts, which are not seen then. Those that come later come while the relay comes to rest.
        seen = events - events // 50
        async with asyncio.timeout(READ_SECONDS):
            made = [await loop.create_connection(lambda: Reader(wire, seen), host, int(port)) for _ in range(streams)]
            await asyncio.gather(*(reader.done for _, reader in made))
    else:
        unread = [socket.create_connection((host, int(port))) for _ in range(streams)]
        for each in unread:
            each.sendall(wire)
        for each in unread:  # the answer has begun
            each.settimeout(READ_SECONDS)
            each.recv(4096, socket.MSG_PEEK | socket.MSG_WAITALL)
    print(flush=True)
    await loop.create_future()


# --- All of them ------------------------------------------------------------------------------------------------------


def rest(pid: int) -> None:
    """Wait until the relay has nothing more to do."""
    used, until = -1.0, time.monotonic() + READ_SECONDS
    while time.monotonic() < until:
        usage = Usage.of(pid)
        if usage.user + usage.system - used <= 0.02:
            return
        used = usage.user + usage.system
        time.sleep(REST_SECONDS)
    raise SystemExit("the relay does not come to rest")


def socket_kib(port: str, upstream_port: int) -> float:
    """What the kernel holds for the sockets of the relay at `port`."""
    sockets = f"( sport = :{port} or dport = :{upstream_port} )"
    listed = subprocess.check_output(["ss", "-tmnH", sockets], text=True)
    return sum(sum(map(int, found)) for found in SOCKET_MEMORY.findall(listed)) / 1024


def grown(start: Start, port: int, row: Row, streams: int) -> tuple[float, float | None]:
    """By how many KiB per stream the relay grows; what the kernel holds for its sockets."""
    with start(port, row.scheme) as running:
        assert running.pid
        read(running, Namespace(rate=100, ramp=0), 4, 5)  # what is imported and made at the first use is not a stream's
        rest(running.pid)
        before = Usage.of(running.pid).rss_kib
        command = (*measure.PYTHON, "-m", "benchmarks.memory", "--hold", *shape(running, row, streams))
        with measure.process(*command, env=measure.environment(measure.ROOT)) as reader:
            assert reader.stdout
            if not reader.stdout.readline():
                raise SystemExit(f"{running.url}: not all texts came")
            rest(running.pid)
            kernel = socket_kib(running.url.rpartition(":")[2], port) / streams if shutil.which("ss") else None
            return (Usage.of(running.pid).rss_kib - before) / streams, kernel


def shape(running: Running, row: Row, streams: int) -> tuple[str, ...]:
    return running.url, running.dialect, *map(str, (streams, row.events, row.interval_ms, int(row.reads)))


def run(start: Start, ports: Mapping[str, int], streams: int, rows: Sequence[str]) -> Sample:
    sample: dict[str, float] = {}
    for name in rows:
        row = ROWS[name]
        sample[name], kernel = grown(start, ports[row.scheme], row, streams if row.reads else max(streams // 10, 1))
        if not row.reads and kernel is not None:
            sample[f"{name}, kernel"] = kernel
    return sample


def main() -> None:
    parser = measure.parser_of(__doc__, rounds=3)
    measure.add_rows(parser, ROWS)
    measure.add_uvloop(parser)
    parser.add_argument("--streams", type=int, default=100, help="open at a time (default 100)")
    arguments = parser.parse_args()
    measure.print_machine()
    with measure.running_upstream() as port, measure.running_upstream("--tls") as tls_port:
        ports, rows = {"http": port, "https": tls_port}, arguments.rows or list(ROWS)
        starts = relays(measure.checkouts(arguments.against), arguments.loops)
        kinds = {kind: partial(run, start, ports, arguments.streams, rows) for kind, start in starts.items()}
        measure.compare(
            f"KiB per open stream, {arguments.streams} streams", kinds, arguments.rounds, ("nginx", "express")
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--hold"]:
        url, dialect, *numbers = sys.argv[2:]
        streams, events, interval_ms, reads = map(int, numbers)
        with asyncio.Runner(loop_factory=new_loop_factory()) as runner:
            runner.run(hold(url, dialect, streams, events, interval_ms, bool(reads)))
    else:
        main()
