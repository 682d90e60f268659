"""How long `/healthz` takes while `rawsse serve` is busy: does one run with many readers, or a storm of resumes, starve others?

    python -m tests.benchmarks.crowd [--readers 1000] [--rounds 3] [--against OTHER_CHECKOUT]

Each kind is a load; `/healthz` is asked every 10 ms on a connection that is kept, from a process of its own. "whole" is how
many readers got their answer to its end.

    idle      nothing else
    readers   all read one run as it comes, 20 events a second
    burst     all read one run that comes at once: 256 KiB of events
    resumes   all ask at once for a finished run of 2,000 events, from its beginning
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from . import measure
from .measure import Sample
from .relay import rawsse
from .upstream import prompt, request

LOADS: Mapping[str, tuple[int, int, bool]] = {
    "idle": (0, 0, False),
    "readers": (60, 50, False),
    "burst": (3000, 0, False),
    "resumes": (2000, 0, True),
}
"""Events of the run, milliseconds between two of them, and whether it is finished before the readers come."""

CHILD_SECONDS = 120


async def probe(url: str, seconds: float) -> dict[str, float]:
    """Ask `/healthz` for so long: how many milliseconds it took."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    taken: list[float] = []
    end = time.monotonic() + seconds
    while (before := time.monotonic()) < end:
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        await reader.readuntil(b"ok\n")
        taken.append((time.monotonic() - before) * 1000)
        await asyncio.sleep(0.01)
    writer.close()
    taken.sort()
    return {
        "healthz p50 ms": taken[len(taken) // 2],
        "healthz p99 ms": taken[len(taken) * 99 // 100],
        "healthz worst ms": taken[-1],
    }


async def whole(url: str, asked: bytes) -> bool:
    """Ask, and read to the end: did it come?"""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024 * 1024)
    writer.write(asked)
    last = b""
    while data := await reader.read(65536):
        last = (last + data)[-200:]
        if last.endswith(b"0\r\n\r\n"):
            break
    writer.close()
    return b"[DONE]" in last


async def read_all(url: str, run: str, readers: int) -> dict[str, float]:
    """Read one run with so many readers at once."""
    asked = f"GET /runs/{run} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
    results = await asyncio.gather(*(whole(url, asked) for _ in range(readers)), return_exceptions=True)
    return {"whole": float(results.count(True))}


async def begin(url: str, events: int, interval_ms: int, *, waits: bool) -> tuple[str, asyncio.Task[bool] | None]:
    """Begin a run; its name, and what reads it."""
    name = secrets.token_hex(16)
    asked = request("/chat/stream", {"message": prompt(events, interval_ms)})
    reading = asyncio.ensure_future(whole(url, asked.replace(b"\r\n", f"\r\nx-run-id: {name}\r\n".encode(), 1)))
    if waits:
        await reading
    else:
        await asyncio.sleep(0.05)
    return name, reading


async def child(*arguments: object) -> dict[str, float]:
    """What this program prints in a process of its own."""
    command = ("-m", "benchmarks.crowd", *map(str, arguments))
    result: dict[str, float] = await asyncio.to_thread(measure.result_of, *command, seconds=CHILD_SECONDS)
    return result


async def load(url: str, kind: str, readers: int) -> dict[str, float]:
    """The times of `/healthz` under one load."""
    events, interval_ms, waits = LOADS[kind]
    probing = asyncio.ensure_future(child("probe", url, 4))
    await asyncio.sleep(1)
    sample: dict[str, float] = {}
    if events:
        name, reading = await begin(url, events, interval_ms, waits=waits)
        sample = await child("read", url, name, readers)
        if reading is not None:
            await reading
    return await probing | sample


def run(checkout: Path, port: int, kind: str, readers: int) -> Sample:
    with rawsse(checkout, "asyncio", port) as running:
        return asyncio.run(load(running.url, kind, readers))


def main() -> None:
    if sys.argv[1:2] == ["probe"]:
        print(json.dumps(asyncio.run(probe(sys.argv[2], float(sys.argv[3])))))
        return
    if sys.argv[1:2] == ["read"]:
        print(json.dumps(asyncio.run(read_all(sys.argv[2], sys.argv[3], int(sys.argv[4])))))
        return
    parser = measure.parser_of(__doc__, rounds=3)
    parser.add_argument("--readers", type=int, default=1000, help="at a time (default 1000)")
    arguments = parser.parse_args()
    measure.print_machine()
    with measure.running_upstream() as port:
        for label, checkout in measure.checkouts(arguments.against).items():
            kinds: dict[str, Callable[[], Sample]] = {
                kind: partial(run, checkout, port, kind, arguments.readers) for kind in LOADS
            }
            measure.compare(f"{label}: {arguments.readers} readers", kinds, arguments.rounds, ("idle",))


if __name__ == "__main__":
    main()
