"""The commands that serve: `demo`, `serve`, `record` and `replay`.

Rooms are imported by the command that needs them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawsse.cli.arguments import (
    DONE,
    FAILED,
    ListTable,
    add_address,
    add_base_url,
    add_command,
    add_paths,
    add_scrub,
    add_speed,
    add_upstream,
    seconds,
)
from rawsse.cli.ask import new_client
from rawsse.cli.terminal import say
from rawsse.errors import ConfigurationError, quote

if TYPE_CHECKING:
    from rawsse.relay import Relay, UserFile

# Of a body, for the server: the relay and the player have a limit of their own, and refuse in the API's words.
_NO_LIMIT = sys.maxsize

GC_THRESHOLDS = (10_000, 20, 50)
"""Of Python's garbage collector, in a server: it looks at the objects of all open streams again and again, and nearly all of
them are freed without it. With 5,000 streams it took a third of the CPU time."""


MAX_MACOS_DESCRIPTORS = 10_240
"""OPEN_MAX: macOS allows no more, although its hard limit is infinite."""

DRAIN_SECONDS = 600.0
"""How long an answer that nobody reads may go on where it is drained."""

_HOST, _PORT = "127.0.0.1", 8000


def add_demo(commands: Any) -> None:
    """The arguments of `rawsse demo`."""
    parser = add_command(commands, _demo, "demo", "the page and the relay with recorded answers: needs no key")
    _add_service(parser)
    add_speed(parser)


def add_serve(commands: Any) -> None:
    """The arguments of `rawsse serve`."""
    more = "The key stays here: it comes from ANTHROPIC_API_KEY in the environment or in a file named .env."
    parser = add_command(commands, _serve, "serve", "the page and the relay in front of the API", more)
    _add_service(parser)
    add_upstream(parser)
    parser.add_argument(
        "--token",
        action="append",
        default=[],
        help="what callers must bring (Authorization: Bearer …, or x-api-key); may be given several times, each for one user; "
        "default, but not beside --users: RAWSSE_TOKEN in the environment. Needed on other addresses than this machine's own, "
        "or else --users",
    )
    parser.add_argument(
        "--users",
        type=Path,
        metavar="FILE",
        help="users, their tokens and limits: a TOML file, in the form that `python -m pydoc rawsse.relay.users` shows. "
        "SIGHUP reads it again",
    )
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a name the relay goes by")
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="an origin whose pages may use the relay, as https://example.org",
    )
    parser.add_argument(
        "--allow-model",
        action="append",
        default=[],
        dest="models",
        metavar="NAME",
        help="a model that callers may ask for, beside that of --model; may be given several times (default: any)",
    )
    parser.add_argument(
        "--system",
        metavar="TEXT",
        help="the system prompt of browsers' requests, or @FILE; they may set none themselves",
    )
    parser.add_argument("--static", type=Path, metavar="DIR", help="your own page instead of the built-in one")
    parser.set_defaults(max_tokens=None)  # what a browser may ask for then is not what a program may
    _add_operation(parser)


def _add_service(parser: argparse.ArgumentParser) -> None:
    host, port = f"RAWSSE_HOST in the environment, or {_HOST}", f"PORT in the environment, or {_PORT}"
    parser.add_argument("--host", help=f"the address to listen on (default: {host})")
    parser.add_argument("--port", type=int, help=f"the port (default: {port}; 0: any free one)")
    more = "lines of text (default), or a JSON object a line, which has the record of a run"
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help=f"how to log: {more}")


def _add_operation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grace",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="after SIGTERM: how long open connections have to take their last frames (default 10)",
    )
    parser.add_argument(
        "--resume-grace",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long an answer goes on without a reader, for one that lost its connection to come back (default 10)",
    )
    parser.add_argument(
        "--on-disconnect",
        type=_drain_seconds,
        default=0.0,
        metavar="cancel|drain",
        help="what becomes of an answer without a reader: it is cancelled (default), or goes on to its end, so that its tokens "
        "are known, for at most 600 seconds, or drain=SECONDS",
    )
    parser.add_argument(
        "--ledger",
        type=Path,
        metavar="FILE",
        help="keep a row for each run, for `rawsse usage` and the daily quotas (default: RAWSSE_LEDGER in the environment)",
    )
    parser.add_argument(
        "--proxy-headers",
        metavar="ADDRESSES",
        help="trust X-Forwarded-For and X-Forwarded-Proto from these reverse proxies: IP addresses and networks, "
        "with commas, as 127.0.0.1,10.0.0.0/8 (default: none)",
    )
    parser.add_argument(
        "--metrics-token",
        metavar="TOKEN",
        help="what callers of /metrics must bring if they bring no user's token (default: RAWSSE_METRICS_TOKEN in the "
        "environment, where other users of this machine do not see it)",
    )
    parser.add_argument(
        "--flight-recorder", type=Path, metavar="DIR", help="keep recordings of the upstream's answers that failed"
    )


def _drain_seconds(text: str) -> float:
    word, _, number = text.partition("=")
    if word == "cancel" and not number:
        return 0.0
    if word != "drain":
        raise argparse.ArgumentTypeError(f"must be cancel, drain or drain=SECONDS, not {quote(text)}")
    return seconds(number) if number else DRAIN_SECONDS


def add_record(commands: Any) -> None:
    """The arguments of `rawsse record`."""
    more = "Give any client its address as base URL, and the key as ever: `rawsse replay DIR` then answers in the API's place."
    parser = add_command(commands, _record, "record", "a proxy that keeps a recording of every answer", more)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the recordings go")
    parser.add_argument("--only-failed", action="store_true", help="keep only what failed: the newest 100")
    add_scrub(parser, "hide")
    add_address(parser, 8002)
    add_base_url(parser)


def add_replay(commands: Any) -> None:
    """The arguments of `rawsse replay`."""
    more = "Point any client at it. Several recordings take turns, unless --match says otherwise. It asks for no key."
    parser = add_command(commands, _replay, "replay", "a Messages API made of recordings", more)
    add_paths(parser)
    add_address(parser, 8001)
    add_speed(parser)
    parser.add_argument(
        "--match",
        default="turns",
        metavar="HOW",
        help="which recording answers: turns (default: first come, first served), sequence (each once), request (the one whose "
        "request asks the same), or name (the one that the client's base URL ends in: /NAME). A request that none answers is "
        "told the nearest one, and where it differs",
    )
    how = "whole, event, bytes, a size in bytes, sizes (3,5), or random:SEED"
    parser.add_argument("--split", metavar="HOW", help=f"cut the answer's body, each piece an HTTP chunk: {how}")
    more = "A client may still find several at once, but for --segment-pause"
    parser.add_argument(
        "--segments", metavar="HOW", help=f"cut all that is sent, each piece a TCP write; as --split. {more}"
    )
    pause = "so many milliseconds between two segments (5 will do), so that a client reads each by itself"
    parser.add_argument("--segment-pause", type=float, default=0.0, metavar="MS", help=pause)
    parser.add_argument(
        "--pace",
        metavar="HOW",
        help="other times than those recorded: none, slower=FACTOR, or any of ttft=SECONDS,tps=TOKENS,jitter=SHARE,seed=N",
    )
    parser.add_argument(
        "--rewrite",
        metavar="NAMES",
        help="give streams the form that gateways give them: crlf, cr, comments, bom, done …, with commas",
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="SPEC",
        help="what goes wrong: NAME[=VALUE][,NAME=VALUE …][@PLACE] [xN] [after=N], as in 'reset@event=3' (after three events), "
        "'status=529,retry-after=1 x2' (two requests, then all is well) or 'stall=5@byte=100 x1 after=1' (the second request "
        "only). A PLACE is head, head=N, byte=N or event=N, from the end if N is negative. May be given several times",
    )
    table = "rawsse.replay.faults.HELP"
    parser.add_argument(
        "--list-faults", action=ListTable, nargs=0, const=table, help="list what --fault takes, and leave"
    )


# --- Running them --------------------------------------------------------------------------------------------------


def _say_where(base_url: str) -> None:
    print(f"listening on {base_url}", flush=True)


def _run(server: Coroutine[Any, Any, None]) -> None:
    """Run a server to its end, in uvloop's event loop where that is installed (the extra `speed`)."""
    try:
        new_loop = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        new_loop = None
    before = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(server)
    finally:
        gc.set_threshold(*before)


def raise_descriptor_limit() -> None:
    """Let this process open as many descriptors as the system allows it (`ulimit -Hn`). Nothing happens on Windows."""
    if sys.platform == "win32":
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for limit in (hard, MAX_MACOS_DESCRIPTORS):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            return


class JSONFormatter(logging.Formatter):
    """Makes each line of the log a JSON object in ASCII. That of a run is its record; others have `time` (Unix seconds),
    `level`, `logger`, `message` and, if there is one, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        if (run := getattr(record, "run", None)) is not None:
            return json.dumps(run.to_dict())
        line = {
            "time": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _prepare(log_format: str = "text") -> None:
    """Log to standard error, and let there be as many connections as the system allows."""
    from rawsse.server import room_for_connections

    raise_descriptor_limit()
    room_for_connections(1)  # fails now if there is room for none: an event loop might fail before, and not say why
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
    handler.setFormatter(JSONFormatter() if log_format == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _address(arguments: argparse.Namespace) -> tuple[str, int]:
    """Where to listen: as the arguments say, or else the environment. Raises `ConfigurationError`."""
    host, port = arguments.host, arguments.port
    if host is None:
        host = os.environ.get("RAWSSE_HOST") or _HOST
    if port is None:
        text = os.environ.get("PORT") or str(_PORT)
        if not (text.isascii() and text.isdigit() and len(text) <= 5):
            raise ConfigurationError(f"PORT in the environment must be a number from 0 to 65535, not {quote(text)}")
        port = int(text)
    return host, port


def _demo(arguments: argparse.Namespace) -> int:
    from rawsse.client.client import AsyncClient
    from rawsse.relay import Guard, Relay
    from rawsse.replay.player import DEMO_WORDS, demo_player
    from rawsse.server import Server, serve

    async def run() -> None:
        async with (
            Server(demo_player(speed=arguments.speed), port=0) as upstream,
            AsyncClient(api_key="demo", base_url=upstream.base_url) as client,
        ):
            # There is no key here that a stranger could spend, so any address will do.
            relay = Relay(client, guard=Guard(bind_host=host), notice=notice, examples=("hello", *DEMO_WORDS))
            options = {"on_shutdown": relay.aclose, "max_body_bytes": _NO_LIMIT}
            await serve(relay, host, port, ready=_say_where, **options)

    host, port = _address(arguments)
    _prepare(arguments.log_format)
    notice = "Recorded answers, no model. A word in your message picks one:"
    (say if arguments.log_format == "text" else logging.getLogger("rawsse").info)(f"{notice} {', '.join(DEMO_WORDS)}")
    _run(run())
    return DONE


def _serve(arguments: argparse.Namespace) -> int:
    from rawsse.relay import Guard, Ledger, UserFile, check_bind
    from rawsse.relay.users import Tokens
    from rawsse.server import Forwarded, serve

    host, port = _address(arguments)
    _prepare(arguments.log_format)
    given = arguments.token
    if (
        not given and arguments.users is None
    ):  # beside a file it would be a user without limits, whom the file does not name
        given = list(filter(None, [os.environ.get("RAWSSE_TOKEN")]))
    if arguments.metrics_token is None:
        arguments.metrics_token = os.environ.get("RAWSSE_METRICS_TOKEN") or None
    users = UserFile(arguments.users, given) if arguments.users is not None else None
    check_bind(host, given if users is None else users)
    tokens = Tokens(given) if users is None else users
    if arguments.static is not None and not arguments.static.is_dir():
        raise ConfigurationError(f"--static: {arguments.static} is no folder")
    path = arguments.ledger or os.environ.get("RAWSSE_LEDGER")
    ledger = Ledger(path) if path else None
    guard = Guard(bind_host=host, hosts=arguments.allow_host, origins=arguments.allow_origin, tokens=tokens)
    relay = _relay(arguments, guard=guard, ledger=ledger, all_limits=users.everyone if users is not None else None)
    proxies = arguments.proxy_headers
    app = relay if proxies is None else Forwarded(relay, proxies.split(","))

    async def run() -> None:
        hung_up = asyncio.Event()
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up.set)
        reading = asyncio.create_task(_read_users_again(users, relay, hung_up))
        limits = {"grace_seconds": arguments.grace, "max_body_bytes": _NO_LIMIT}
        try:
            async with relay.client:
                await serve(app, host, port, ready=_say_where, on_shutdown=relay.aclose, **limits)
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            if ledger is not None:
                await asyncio.to_thread(ledger.close)

    _run(run())
    return DONE


async def _read_users_again(users: UserFile | None, relay: Relay, hung_up: asyncio.Event) -> None:
    """Read the file each time that `hung_up` is set, once for all times while it is being read. Goes on until cancelled.

    In a thread: a large file takes seconds, and no stream may wait for it.
    """
    log = logging.getLogger("rawsse")
    while await hung_up.wait():
        hung_up.clear()
        if users is None:
            continue
        try:
            await asyncio.to_thread(users.reload)
            relay.quotas.everyone = users.everyone
            log.info("read %s again: %d users", users.path, len(list(users)))
        except Exception as exc:  # any: the next signal must find this task
            log.error("the users stay as they were: %s", exc, exc_info=not isinstance(exc, ConfigurationError))


def _relay(arguments: argparse.Namespace, **parts: Any) -> Relay:
    from rawsse.client.network.pool import PoolLimits
    from rawsse.relay import Relay, RunLimits
    from rawsse.relay.runs import MAX_RUNS
    from rawsse.server import room_for_connections

    recorder = None
    if arguments.flight_recorder is not None:
        from rawsse.replay import Recorder

        recorder = Recorder(arguments.flight_recorder, only_failed=True)
    # One for each run that there may be: a run that waits for another to end would be told as a slow API.
    limits = PoolLimits(max_connections=room_for_connections(MAX_RUNS))
    client = new_client(arguments.base_url, recorder=recorder, limits=limits)
    system = arguments.system
    if system is not None and system.startswith("@"):
        system = Path(system[1:]).read_text(encoding="utf-8")
    options = {name: getattr(arguments, name) for name in ("model", "models", "max_tokens", "static", "metrics_token")}
    run_limits = RunLimits(grace_seconds=arguments.resume_grace, drain_seconds=arguments.on_disconnect)
    return Relay(client, system=system, limits=run_limits, **options, **parts)


def _record(arguments: argparse.Namespace) -> int:
    from rawsse.replay import Recorder, RecordingProxy, ScrubPolicy
    from rawsse.server import serve

    async def run() -> None:
        async with recorder, RecordingProxy(recorder, arguments.base_url) as proxy:
            await serve(proxy, arguments.host, arguments.port, ready=_say_where, max_body_bytes=_NO_LIMIT)

    policy = ScrubPolicy(patterns=tuple(arguments.scrub))
    recorder = Recorder(arguments.out, policy=policy, only_failed=arguments.only_failed)
    _prepare()
    _run(run())
    return FAILED if recorder.lost else DONE


def _replay(arguments: argparse.Namespace) -> int:
    from rawsse.replay import Player
    from rawsse.server import serve

    names = ("speed", "split", "segments", "pace", "rewrite", "match")
    options = {name: getattr(arguments, name) for name in names} | {"segment_seconds": arguments.segment_pause / 1000}
    player = Player(arguments.paths, faults=arguments.fault, **options)
    _prepare()
    _run(serve(player, arguments.host, arguments.port, ready=_say_where, max_body_bytes=_NO_LIMIT))
    return DONE
