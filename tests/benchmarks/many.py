"""Does the memory of one `rawsse serve` stay flat over many short runs?

    python -m tests.benchmarks.many [--uvloop] [--runs 50000] [--against OTHER_CHECKOUT]

50 readers at a time, each with a connection of its own for each run; a run is 5 texts at once. The relay keeps finished runs
for 300 seconds, but never more than 10,000 (`RunLimits`, whose defaults `serve` has): its memory grows until the 10,000th run,
and is to stay flat from there on.
"""

from __future__ import annotations

import asyncio
from functools import partial

from . import measure
from .crowd import whole
from .relay import Start, Usage, rawsse
from .upstream import prompt, request

AT_ONCE = 50
STEP = 5000
EVENTS = 5


async def read(url: str, runs: int) -> int:
    """Read so many runs; how many came to their end."""
    asked, left = request("/chat/stream", {"message": prompt(EVENTS, 0)}), iter(range(runs))

    async def in_turn() -> int:
        return sum([await whole(url, asked) for _ in left])

    return sum(await asyncio.gather(*(in_turn() for _ in range(AT_ONCE))))


def grow(kind: str, start: Start, port: int, runs: int) -> None:
    with start(port, "http") as running:
        assert running.pid
        print(f"\n{kind}: RSS {Usage.of(running.pid).rss_kib / 1024:.1f} MiB before the first run")
        for done in range(STEP, runs + 1, STEP):
            ended = asyncio.run(read(running.url, STEP))
            rss = Usage.of(running.pid).rss_kib / 1024
            print(f"    {done:>7,} runs  {rss:>7.1f} MiB    {ended} of the last {STEP} are whole", flush=True)


def main() -> None:
    parser = measure.parser_of(__doc__, rounds=1)
    parser.add_argument("--runs", type=int, default=50_000, help=f"a multiple of {STEP} (default 50000)")
    measure.add_uvloop(parser)
    arguments = parser.parse_args()
    measure.print_machine()
    with measure.running_upstream() as port:
        for label, checkout in measure.checkouts(arguments.against).items():
            for loop in arguments.loops:
                grow(f"{label}, {loop}", partial(rawsse, checkout, loop), port, arguments.runs)


if __name__ == "__main__":
    main()
