"""Shared by the benchmarks: child processes that import `rawsse` from a given checkout, and the table of results.

On a machine that others use, Linux shares the CPUs between sessions first (autogroups), so `nice` is not enough:

    setsid -w bash -c 'echo -10 > /proc/self/autogroup; python -m tests.benchmarks.relay'      # as root
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PYTHON = (sys.executable, "-P")  # -P: `rawsse` is never imported from the working directory
PEERS = ("aiohttp", "anthropic", "uvloop")
STOP_SECONDS = 15

Sample = Mapping[str, float]
"""One run of one kind: each metric's value."""

Kinds = Mapping[str, Callable[[], Sample]]


def parser_of(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"runs of each kind (default {rounds})")
    parser.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="another checkout whose `rawsse` is measured beside this one's; may be given several times",
    )
    return parser


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
def upstream(*options: str) -> Iterator[int]:
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


def measure(title: str, kinds: Kinds, rounds: int, peers: Sequence[str]) -> None:
    """Run all kinds round by round, so that a disturbance of the machine meets them all, and print the table."""
    runs: dict[str, list[Sample]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, run in kinds.items():
            runs[kind].append(run())
    print("\n".join(table(title, runs, [peer for peer in peers if peer in kinds])), flush=True)


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
    """Where this was measured; missing peers are named, since their rows are left out."""
    versions = []
    for name in PEERS:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} is not installed: its rows are skipped")
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {load}; {', '.join(versions)}")
