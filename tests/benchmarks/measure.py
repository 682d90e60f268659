"""Shared by the benchmarks: their options, the peers, child processes that import `rawsse` from a given checkout, and the table
of results.

On a machine that others use, Linux shares the CPUs between sessions first (autogroups), so `nice` is not enough:

    setsid -w bash -c 'echo -10 > /proc/self/autogroup; python -m tests.benchmarks.relay'      # as root
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PYTHON = (sys.executable, "-P")  # -P: `rawsse` is never imported from the working directory
PACKAGES = ("aiohttp", "anthropic", "httpx_sse", "uvloop")
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
NODE = shutil.which("node")
NODE_MODULES = Path(os.environ.get("RAWSSE_NODE_MODULES", ROOT / "tests/interop/node/node_modules"))
NODE_PACKAGES = ("express", "@anthropic-ai/sdk")
STOP_SECONDS = 15

Sample = Mapping[str, float]
"""One run of one kind: each metric's value."""

Kinds = Mapping[str, Callable[[], Sample]]


def parser_of(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"runs of each kind (default {rounds})")
    another = "another checkout whose `rawsse` is measured beside this one's; may be given several times"
    parser.add_argument("--against", type=Path, action="append", default=[], metavar="PATH", help=another)
    return parser


def add_rows(parser: argparse.ArgumentParser, rows: Iterable[str]) -> None:
    choices = tuple(rows)
    known = f"of {', '.join(choices)} (default: all)"
    parser.add_argument("--row", action="append", dest="rows", choices=choices, metavar="ROW", help=known)


def add_uvloop(parser: argparse.ArgumentParser) -> None:
    words = "on uvloop too, if it is installed"
    parser.add_argument("--uvloop", action="store_const", dest="loops", const=LOOPS, default=("asyncio",), help=words)


def add_load(parser: argparse.ArgumentParser, streams: int) -> None:
    """The load on a relay, and the event loops."""
    option = parser.add_argument
    option("--streams", type=int, default=streams, help="open at a time (default %(default)s)")
    option("--rate", type=float, default=20, help="events per second of each stream (default 20)")
    option("--events", type=int, nargs="+", default=[200], help="of each stream (default 200)")
    option("--ramp", type=float, default=1.0, help="seconds in which the streams start (default 1)")
    option("--warm-up", type=int, default=40, help="streams before the measured ones (default 40)")
    add_uvloop(parser)


def load_of(arguments: argparse.Namespace) -> str:
    """The load in words, for a title."""
    events = " and ".join(map(str, arguments.events))
    return f"{arguments.streams} streams x {arguments.rate:g}/s x {events} events"


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


LOOPS = ("asyncio", "uvloop") if is_installed("uvloop") else ("asyncio",)


def absent() -> Iterator[tuple[str, str]]:
    """The peers that are not installed, and how they are."""
    for package in PACKAGES:
        if not is_installed(package):
            yield package, f"pip install {package.replace('_', '-')}"
    if not Path(NGINX).exists():
        yield "nginx", "apt install nginx"
    if NODE is None or not all((NODE_MODULES / package).is_dir() for package in NODE_PACKAGES):
        install = f"npm install --prefix DIR {' '.join(NODE_PACKAGES)}"
        yield "express", f"Node, {install}, and RAWSSE_NODE_MODULES=DIR/node_modules"


def checkouts(against: Sequence[Path]) -> dict[str, Path]:
    """The label of each checkout's `rawsse`. Raises `SystemExit` if Python would import another one."""
    found = {"rawsse": ROOT} | {f"rawsse @{path.resolve().name}": path.resolve() for path in against}
    for path in found.values():
        code = "import rawsse; print(rawsse.__file__)"
        file = subprocess.check_output([*PYTHON, "-c", code], env=environment(path), text=True)
        if not Path(file).is_relative_to(path):
            raise SystemExit(f"{path} has no package rawsse: Python imports {file}")
    return found


def environment(checkout: Path) -> dict[str, str]:
    """For a child that imports `rawsse` from `checkout`: no proxies, a key, and bytecode is kept."""
    unwanted = {name for name in os.environ if name.lower().endswith("_proxy")} | {"PYTHONDONTWRITEBYTECODE"}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "PYTHONPATH": f"{checkout}{os.pathsep}{ROOT / 'tests'}", "ANTHROPIC_API_KEY": "any"}


def _in_child() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: no child outlives a benchmark that was killed
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # 5,000 streams need 10,000 sockets


@contextmanager
def process(*command: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A child process, terminated at the end of the block."""
    options |= {"stdout": subprocess.PIPE, "text": True, "preexec_fn": _in_child}
    with subprocess.Popen(command, **options) as child:
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()


@contextmanager
def running_upstream(*options: str) -> Iterator[int]:
    """The port of an upstream in a process of its own."""
    with process(*PYTHON, "-m", "benchmarks.upstream", *options, env=environment(ROOT)) as child:
        assert child.stdout
        yield int(child.stdout.readline())


def result_of(*arguments: str, seconds: float, checkout: Path = ROOT) -> Any:
    """The JSON that Python prints, run with these arguments. Raises if it fails, or takes longer than `seconds`."""
    with process(*PYTHON, *arguments, env=environment(checkout)) as child:
        printed, _ = child.communicate(timeout=seconds)
        if child.returncode:
            raise SystemExit(f"failed: {' '.join(arguments)}")
        return json.loads(printed)


def compare(title: str, kinds: Kinds, rounds: int, peers: Sequence[str]) -> None:
    """Run all kinds round by round, so that a disturbance of the machine meets them all, and print the table.

    A kind that fails is not run again, and does not stop the others. Raises `SystemExit` then, after the table.
    """
    runs: dict[str, list[Sample]] = {kind: [] for kind in kinds}
    failed: dict[str, str] = {}
    for number in range(1, rounds + 1):
        for kind in [kind for kind in kinds if kind not in failed]:
            progress(f"{title}: {kind}, round {number} of {rounds}")
            try:
                runs[kind].append(kinds[kind]())
            except (Exception, SystemExit) as exc:
                failed[kind] = f"{kind} failed: {type(exc).__name__}: {exc}"
    progress("")
    whole = {kind: samples for kind, samples in runs.items() if kind not in failed}
    print("\n".join(table(title, whole, [peer for peer in peers if peer in whole])), flush=True)
    if failed:
        raise SystemExit("\n".join(failed.values()))


def progress(text: str) -> None:
    """Show on a terminal what is going on, in place of what was shown before; nothing if it is empty."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def table(title: str, runs: Mapping[str, Sequence[Sample]], peers: Sequence[str]) -> Iterator[str]:
    """For each metric and kind: the median, its ratio to each peer's median, and all values.

    A metric whose name is in parentheses is a column beside the first one.
    """
    yield f"\n{title}"
    metrics = dict.fromkeys(metric for samples in runs.values() for sample in samples for metric in sample)
    values = {(m, k): [s[m] for s in samples] for m in metrics for k, samples in runs.items() if m in samples[0]}
    medians = {key: statistics.median(found) for key, found in values.items()}
    parts = [metric for metric in metrics if metric.startswith("(")]
    for metric in [metric for metric in metrics if metric not in parts]:
        kinds = [kind for kind in runs if (metric, kind) in medians]
        shown = [peer for peer in peers if peer in kinds]
        beside, parts = parts, []  # the parts are those of the first metric
        titles = ["median", *beside, *(f"/ {peer}" for peer in shown)]
        yield f"  {metric:<26}" + "".join(f"{title:>19}" for title in titles) + "    runs"
        for kind in kinds:
            cells = [number(medians[name, kind]) for name in (metric, *beside)]
            cells += [ratio(medians[metric, kind], medians[metric, peer]) for peer in shown]
            single = " ".join(map(number, values[metric, kind]))
            yield f"    {kind:<24}" + "".join(f"{cell:>19}" for cell in cells) + f"    {single}"


def number(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(value: float, peer: float) -> str:
    if value <= 0 or peer <= 0:
        return "-"
    return f"{value / peer:.2f}x" if value >= peer else f"1/{peer / value:.2f}"


def print_machine() -> None:
    """Where this was measured, and which peers are left out."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    missing = ", ".join(peer for peer, _ in absent()) or "no peer"
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {load}; {missing} is absent", flush=True)
