"""All benchmarks, beside the peers that are installed, in one command, from the repository's top:

    python -m tests.benchmarks                          # the short form: a few minutes, one round
    python -m tests.benchmarks --full                   # the loads that README.md has figures of, three rounds
    python -m tests.benchmarks --only relay --rounds 5  # one row; --only may be given several times

All of a row run side by side, round by round: compare the ratios. A peer that is absent is named first, with the command that
installs it. Each row is a module of this folder, which has more options: `python -m tests.benchmarks.relay --help`.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from .measure import ROOT, absent, print_machine

SHORT_SECONDS, FULL_SECONDS = 180, 3600
"""How long a row may take: it is ended then, and counts as failed."""


class Row(NamedTuple):
    """What is measured, the goal, the command, and what makes it short."""

    what: str
    goal: str
    command: str
    short: str = ""
    has_rounds: bool = True


ROWS: Mapping[str, Row] = {
    "relay": Row(
        "the relay's CPU time per event, and how late it delivers: 400 streams x 20/s",
        "at most 3.2x nginx, with uvloop 2.6x; latency p99 at most 3x nginx",
        "tests.benchmarks.relay --uvloop",
        "--streams 100 --events 40 --warm-up 10",
    ),
    "relay-tls": Row(
        "the same, from an upstream over TLS",
        "at most 3.2x nginx",
        "tests.benchmarks.relay --uvloop --tls",
        "--streams 100 --events 40 --warm-up 10",
    ),
    "set-up": Row(
        "the set-up of a relayed stream, apart from the slope over its events",
        "set-up at most 400 us; slope with uvloop at most 2.3x nginx",
        "tests.benchmarks.relay --uvloop --events 20 120",
        "--streams 50 --warm-up 10",
    ),
    "1000-streams": Row(
        "1,000 streams x 20/s through the relay: the latency, and whether it is saturated",
        "one event per read; latency p99 at most 2.5x nginx",
        "tests.benchmarks.relay --streams 1000",
        "--events 20",
    ),
    "5000-streams": Row(
        "5,000 readers that all come at once: the first byte, and whether all streams are whole",
        "first byte at most 0.6 s after nginx's; all whole",
        "tests.benchmarks.relay --ramp 0 --rate 0.5 --events 4 --streams 5000",
        "--streams 500 --rate 1",
    ),
    "memory": Row(
        "the relay's memory for each open stream",
        "100 frames: at most 25 KiB, over TLS 60",
        "tests.benchmarks.memory --row '100 frames' --row '100 frames, TLS'",
        "--streams 20",
    ),
    "client-burst": Row(
        "the async client, an event per chunk, all at once",
        "at most 1.5x aiohttp by hand; at most 1/12 of the SDK",
        "tests.benchmarks.client --row async-burst",
    ),
    "client-paced": Row(
        "the async client, 100 streams x 50/s",
        "at most 3.3x a bare BufferedProtocol",
        "tests.benchmarks.client --row async-paced",
    ),
    "blocking": Row(
        "the blocking client, burst and paced",
        "burst at most 1/10 of the SDK, paced 1/2",
        "tests.benchmarks.client --row blocking-burst --row blocking-paced",
    ),
    "decoder": Row(
        "the decoder of server-sent events",
        "at least 2.3x httpx-sse for an event per chunk, 3x in chunks of 64 KiB",
        "tests.benchmarks.decoder",
        has_rounds=False,
    ),
    "start": Row(
        "importing rawsse, and from the start of a process to the first text",
        "import at most 1.5x `import asyncio, ssl`; first text at most 1/12 of the SDK, 30 MiB",
        "tests.benchmarks.start",
    ),
    "tests": Row("the plain test suite", "at most 60 s", "pytest -q", has_rounds=False),
}
SHORT_LEAVES_OUT = ("tests",)  # it takes as long as all others


def measured(name: str, *, full: bool, rounds: int | None) -> bool:
    """Run the row; its table goes to standard output."""
    row = ROWS[name]
    command = shlex.split(f"{row.command} {'' if full else row.short}")
    if row.has_rounds and (rounds is not None or not full):
        command += ["--rounds", str(rounds or 1)]
    print(f"\n=== {name}: {row.what}\n    goal: {row.goal}\n    python -m {shlex.join(command)}", flush=True)
    started, limit = time.monotonic(), FULL_SECONDS if full else SHORT_SECONDS
    try:
        code = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False, timeout=limit).returncode
        outcome = f"failed with exit code {code}" if code else "done"
    except subprocess.TimeoutExpired:  # its child processes end with it
        outcome = "failed: not done"
    print(f"    ({outcome} after {time.monotonic() - started:.0f} s)", flush=True)
    return outcome == "done"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=ROWS, metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, help="runs of each kind (default: 1; with --full each row's own)")
    parser.add_argument("--full", action="store_true", help="the whole loads: half an hour on a machine that is idle")
    arguments = parser.parse_args()
    names = arguments.only or [name for name in ROWS if arguments.full or name not in SHORT_LEAVES_OUT]
    print_machine()
    for peer, install in absent():
        print(f"absent: {peer}; to have it measured: {install}")
    if not arguments.only and not arguments.full:
        print(f"left out of the short form: {', '.join(SHORT_LEAVES_OUT)}")
    failed = [name for name in names if not measured(name, full=arguments.full, rounds=arguments.rounds)]
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
