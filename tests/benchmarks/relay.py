"""What `rawsse serve` costs per event, and how late it delivers, beside nginx `proxy_pass` and Express with the official SDK.

    python -m tests.benchmarks.relay [--uvloop] [--tls] [--rounds 3] [--against OTHER_CHECKOUT]
    python -m tests.benchmarks.relay --events 20 120         # two lengths: the set-up of a stream and the slope apart
    python -m tests.benchmarks.relay --streams 5000 --ramp 0 --rate 0.5 --events 4      # all readers come at once

All are run side by side: compare the ratios. The upstream paces each stream; rawsse and Express answer `/chat/stream`, nginx
passes on `/v1/messages`. Express runs if RAWSSE_NODE_MODULES names a folder with `express` and `@anthropic-ai/sdk`.

CPU time and memory are of all processes of the relay. Latency is from the upstream's write to the reader's read: "direct" is
what it is without a relay. Memory is the growth from before the run to its peak, so it includes the frames that a relay keeps.
"read" is how many events the readers got per read. A row with more than one is not to be trusted: the relay did not get the CPU
in time, or needed all of it, and handled several events at once, which costs less.

First byte and first text are counted from when the reader begins to connect; the first text without the interval that the
upstream waits before it. Express sends its head before it asks the upstream: compare its first text.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from . import measure
from .measure import ROOT, Sample, environment, process
from .upstream import CERTIFICATE

NGINX_CONFIGURATION = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 19000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream api {{ server 127.0.0.1:{upstream_port}; keepalive 8192; }}
    server {{
        listen 127.0.0.1:{port} backlog=8192;
        location / {{
            proxy_pass {scheme}://api;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_ssl_verify on;
            proxy_ssl_name localhost;
            proxy_ssl_trusted_certificate {certificate};
        }}
    }}
}}
"""

# The loop is the benchmark's choice, whatever `serve` itself would take.
SERVE = {
    "asyncio": "import sys; sys.modules['uvloop'] = None",
    "uvloop": "import asyncio, uvloop; asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())",
}
RUN_COMMAND = "; from rawsse.cli import main; raise SystemExit(main())"
TICKS = os.sysconf("SC_CLK_TCK")


class Running(NamedTuple):
    """A relay that listens: its address, what readers ask it for, and its process (None: there is no relay)."""

    url: str
    dialect: str
    pid: int | None


Start = Callable[[int, str], AbstractContextManager[Running]]
"""Start a relay in front of the upstream at this port; "http" or "https"."""


@contextmanager
def nginx(upstream_port: int, scheme: str = "http") -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0), backlog=8192) as listener:
        port, file = listener.getsockname()[1], Path(folder, "nginx.conf")
        values = {"folder": folder, "port": port, "upstream_port": upstream_port, "scheme": scheme}
        file.write_text(NGINX_CONFIGURATION.format(**values, certificate=CERTIFICATE))
        # NGINX names inherited sockets, as at an upgrade: so the port is free, and listens before nginx runs.
        inherit: dict[str, Any] = {"env": {"NGINX": f"{listener.fileno()};"}, "pass_fds": [listener.fileno()]}
        with process(measure.NGINX, "-p", folder, "-c", file, "-e", f"{folder}/error.log", **inherit) as child:
            yield Running(f"http://127.0.0.1:{port}", "messages", child.pid)


@contextmanager
def express(upstream_port: int, scheme: str = "http") -> Iterator[Running]:
    command = (str(measure.NODE), Path(__file__).with_name("express.cjs"), f"{scheme}://127.0.0.1:{upstream_port}")
    env = {"NODE_PATH": str(measure.NODE_MODULES), "NODE_ENV": "production", "NODE_EXTRA_CA_CERTS": str(CERTIFICATE)}
    with process(*command, env=environment(ROOT) | env) as child:
        assert child.stdout
        yield Running(child.stdout.readline().strip(), "text", child.pid)


@contextmanager
def rawsse(
    checkout: Path, loop: str, upstream_port: int, scheme: str = "http", more: Sequence[str | Path] = ()
) -> Iterator[Running]:
    """`rawsse serve`, with `more` arguments."""
    base_url = f"{scheme}://127.0.0.1:{upstream_port}"
    yield from listening(checkout, SERVE[loop] + RUN_COMMAND, "serve", "--port", "0", "--base-url", base_url, *more)


def listening(checkout: Path, code: str, *arguments: str | Path) -> Iterator[Running]:
    """Python code that serves, and prints its address."""
    env = environment(checkout) | {"SSL_CERT_FILE": str(CERTIFICATE)}
    with (
        tempfile.TemporaryDirectory() as folder,
        Path(folder, "log").open("w+") as log,
        process(*measure.PYTHON, "-c", code, *arguments, env=env, cwd=folder, stderr=log) as child,
    ):
        assert child.stdout
        found = re.search(r"http://\S+:\d+", child.stdout.readline())
        if found is None:
            raise SystemExit(f"the relay does not listen: {Path(log.name).read_text()}")
        yield Running(found[0], "text", child.pid)


def relays(found: Mapping[str, Path], loops: Sequence[str]) -> dict[str, Start]:
    """What can be run here."""
    starts: dict[str, Start] = {
        f"{label}, {loop}": partial(rawsse, checkout, loop) for label, checkout in found.items() for loop in loops
    }
    peers: dict[str, Start] = {"nginx": nginx, "express": express}
    return starts | {peer: start for peer, start in peers.items() if peer not in dict(measure.absent())}


@contextmanager
def direct(upstream_port: int, scheme: str) -> Iterator[Running]:
    yield Running(f"{scheme}://127.0.0.1:{upstream_port}", "messages", None)


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in tree(int(child)))]


class Usage(NamedTuple):
    user: float
    system: float
    rss_kib: int
    peak_kib: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        user = system = rss = peak = 0
        for each in tree(pid):
            stat = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            status = dict(re.findall(r"^(Vm\w+):\s+(\d+) kB", Path(f"/proc/{each}/status").read_text(), re.MULTILINE))
            user, system = user + int(stat[11]), system + int(stat[12])
            rss, peak = rss + int(status["VmRSS"]), peak + int(status["VmHWM"])
        return cls(user / TICKS, system / TICKS, rss, peak)


def run(start: Start, port: int, scheme: str, arguments: argparse.Namespace) -> Sample:
    """Start a relay, warm it up, put the load on it."""
    samples = []
    for events in arguments.events:
        with start(port, scheme) as running:
            read(running, arguments, arguments.warm_up, 5)
            before = Usage.of(running.pid) if running.pid else None
            sample = dict(read(running, arguments, arguments.streams, events))
            if running.pid and before:
                sample = costs(before, Usage.of(running.pid), arguments.streams, events) | sample
            samples.append(sample)
    if len(samples) > 1 and "CPU us/event" in samples[0]:
        (short, long), (low, high) = arguments.events[:2], (sample["CPU us/event"] for sample in samples)
        slope = (high * long - low * short) / (long - short)
        samples[-1] |= {"slope us/event": slope, "set-up us/stream": (low - slope) * short}
    return samples[-1]


def read(running: Running, arguments: argparse.Namespace, streams: int, events: int) -> Sample:
    interval_ms = round(1000 / arguments.rate)
    numbers = map(str, (streams, events, interval_ms, arguments.ramp))
    seconds = arguments.ramp + events / arguments.rate + 60
    asked = (running.url, running.dialect, *numbers)
    sample: Sample = measure.result_of("-m", "benchmarks.readers", *asked, seconds=seconds)
    return sample


def costs(before: Usage, after: Usage, streams: int, events: int) -> dict[str, float]:
    user, system = after.user - before.user, after.system - before.system
    return {
        "CPU us/event": (user + system) / (streams * events) * 1e6,
        "(sys)": system / (streams * events) * 1e6,
        "KiB/stream": (after.peak_kib - before.rss_kib) / streams,
    }


def main() -> None:
    parser = measure.parser_of(__doc__, rounds=3)
    measure.add_load(parser, streams=400)
    parser.add_argument("--tls", action="store_true", help="to the upstream over TLS")
    arguments = parser.parse_args()
    measure.print_machine()
    with measure.running_upstream(*(["--tls"] if arguments.tls else [])) as port:
        scheme = "https" if arguments.tls else "http"
        starts = relays(measure.checkouts(arguments.against), arguments.loops)
        if not arguments.tls:
            starts["direct"] = direct
        kinds = {kind: partial(run, start, port, scheme, arguments) for kind, start in starts.items()}
        title = f"relay: {measure.load_of(arguments)}, {scheme} upstream"
        measure.compare(title, kinds, arguments.rounds, ("nginx", "express"))


if __name__ == "__main__":
    main()
