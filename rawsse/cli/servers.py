"""The commands that serve: `demo`, `serve`, `record` and `replay`. Each imports the rooms that it needs."""

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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawsse.cli.options import FILE, REPEATED, SECONDS, UPSTREAM, ListTable, add_command, add_options, new_client
from rawsse.cli.terminal import new_runner, say
from rawsse.errors import ConfigurationError, quote

if TYPE_CHECKING:
    from rawsse.relay import Relay, UserFile
    from rawsse.server import ASGIApp

GC_THRESHOLDS = (10_000, 20, 50)
"""The garbage collector's threshold in a server: it repeatedly searches the objects of all open streams, although nearly all
are freed without it. With 5,000 streams it took a third of the CPU time."""

MAX_MACOS_DESCRIPTORS = 10_240
"""OPEN_MAX: macOS allows no more, although its hard limit is infinite."""

DRAIN_SECONDS = 600.0
"""How long an answer without a reader may continue with `--on-disconnect drain`."""

_HOST, _PORT = "127.0.0.1", 8000


# --- Arguments -----------------------------------------------------------------------------------------------------


def add_demo(commands: Any) -> None:
    """The arguments of `rawsse demo`."""
    parser = add_command(commands, _demo, "demo", "the page and the relay with recorded answers: needs no key")
    _add_service(parser)
    add_options(parser, "--speed")


def _add_service(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("--host", help=f"the address to listen on (default: RAWSSE_HOST in the environment, or {_HOST})")
    option("--port", type=int, help=f"the port, 0 for any free one (default: PORT in the environment, or {_PORT})")
    form = "json: one line of JSON per run, on standard error; its time is when the run began"
    option("--log-format", choices=("text", "json"), default="text", help=form)


def add_serve(commands: Any) -> None:
    """The arguments of `rawsse serve`."""
    more = "The key is ANTHROPIC_API_KEY in the environment or .env; defaults in capitals are environment variables."
    parser = add_command(commands, _serve, "serve", "the page and the relay in front of the API", more)
    _add_service(parser)
    add_options(parser, *UPSTREAM)
    parser.set_defaults(max_tokens=None)  # without --max-tokens, a browser's limit is lower than a program's
    option = parser.add_argument
    option("--token", **REPEATED, help="a user's token (repeatable; default: RAWSSE_TOKEN, but not with --users)")
    option("--users", **FILE, help="users and limits (see `python -m pydoc rawsse.relay.users`); SIGHUP reloads it")
    option("--allow-host", **REPEATED, metavar="NAME", help="a host name of the relay (repeatable)")
    option("--allow-origin", **REPEATED, metavar="ORIGIN", help="an allowed origin: https://example.org (repeatable)")
    option("--allow-model", **REPEATED, dest="models", metavar="NAME", help="a model to allow (repeatable)")
    option("--static", type=Path, metavar="DIR", help="your own page instead of the built-in one")
    shutdown = "how long running answers may continue after SIGTERM, or until a second one; none begins (default 0)"
    option("--drain", **SECONDS, default=0.0, help=shutdown)
    grace = "how long sending the last frames to all clients may then take (default 10)"
    option("--grace", **SECONDS, default=10.0, help=grace)
    option("--resume-grace", **SECONDS, default=10.0, help="how long an answer waits for a reader (default 10)")
    drain = f"an answer without a reader: cancel it (default), or let it continue for {DRAIN_SECONDS:.0f} s"
    option("--on-disconnect", choices=("cancel", "drain"), default="cancel", help=drain)
    option("--ledger", **FILE, help="a row for each run, for `rawsse usage` and quotas (default: RAWSSE_LEDGER)")
    option("--store", metavar="URL", help="a Redis that several relays share, redis://HOST (default: RAWSSE_STORE)")
    option("--proxy-headers", metavar="ADDRESSES", help="trusted reverse proxies, such as 127.0.0.1,10.0.0.0/8")
    option("--metrics-token", metavar="TOKEN", help="a token for /metrics (default: RAWSSE_METRICS_TOKEN)")
    option("--flight-recorder", type=Path, metavar="DIR", help="record the upstream answers that fail")


def _add_address(parser: argparse.ArgumentParser, port: int) -> None:
    parser.add_argument("--host", default=_HOST, help=f"the address to listen on (default {_HOST})")
    parser.add_argument("--port", type=int, default=port, help=f"the port (default {port}; 0: any free one)")


def add_record(commands: Any) -> None:
    """The arguments of `rawsse record`."""
    more = "Use its address as the base URL of any client, with the usual key. `rawsse replay DIR` plays the answers."
    parser = add_command(commands, _record, "record", "a proxy that records every answer", more)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for the recordings")
    parser.add_argument("--only-failed", action="store_true", help="keep only failed answers: the newest 100")
    _add_address(parser, 8002)
    add_options(parser, "--scrub", "--base-url")


def add_replay(commands: Any) -> None:
    """The arguments of `rawsse replay`."""
    more = "Point any client at it. Several recordings are played in turn (see --match). It needs no key."
    parser = add_command(commands, _replay, "replay", "a Messages API made of recordings", more)
    _add_address(parser, 8001)
    add_options(parser, "paths", "--speed")
    option = parser.add_argument
    match = "turns (default), sequence (each once), request (recorded for an equal one), name (base URL with /NAME)"
    option("--match", default="turns", metavar="HOW", help=match)
    option("--split", metavar="HOW", help="HTTP chunks: whole, event, bytes, a size, sizes (3,5), random:SEED")
    option("--segments", metavar="HOW", help="TCP writes, like --split")
    option("--segment-pause", type=float, default=0.0, metavar="MS", help="a pause between segments (5 is enough)")
    paces = "none, slower=FACTOR, or some of ttft=SECONDS,tps=TOKENS (a second, as usage counts them; ttft is 0.5 if not given)"
    option("--pace", metavar="HOW", help=paces)
    names = "crlf, cr, blank-lines, bom, comments, comments-inside, ids, retry, done, no-event-lines, no-spaces"
    rewrites = f"rewrite as gateways do (comma-separated): {names}, padding, lines-of-data"
    option("--rewrite", metavar="NAMES", help=rewrites)
    fault = "NAME[=VALUE][@PLACE] [xN] [after=N], as in 'reset@event=3', 'status=529 x2', 'stall=5@byte=100 after=1'; PLACE is"
    more = "head, head=N, byte=N or event=N, from 0, or from the end if negative (repeatable; see --list-faults)"
    option("--fault", **REPEATED, metavar="SPEC", help=f"{fault} {more}")
    faults = "rawsse.replay.faults.HELP"
    option("--list-faults", action=ListTable, nargs=0, const=faults, help="list the faults and exit")


# --- Running them --------------------------------------------------------------------------------------------------


async def _listen(app: ASGIApp, host: str, port: int, **options: Any) -> None:
    """Serve `app` until a signal. The relay and the player limit bodies themselves, with errors in the API's form."""
    from rawsse.server import serve

    ready = partial(print, "listening on", flush=True)
    await serve(app, host, port, ready=ready, max_body_bytes=sys.maxsize, **options)


def _run(server: Coroutine[Any, Any, None]) -> None:
    """Run a server to its end, on uvloop if it is installed (the extra `speed`)."""
    try:
        new_loop = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        new_loop = None
    gc.set_threshold(*GC_THRESHOLDS)
    with new_runner(new_loop) as runner:
        runner.run(server)


def raise_descriptor_limit() -> None:
    """Raise this process's descriptor limit to the hard limit (`ulimit -Hn`). Does nothing on Windows."""
    if sys.platform == "win32":
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for limit in (hard, MAX_MACOS_DESCRIPTORS):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            return


class JSONFormatter(logging.Formatter):
    """Writes the log as JSON objects in ASCII, one a line: the record of a run, or `time` (Unix seconds), `level`, `logger`,
    `message` and, if there is one, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        if (run := getattr(record, "run", None)) is not None:
            return json.dumps(run.to_dict())
        fields = {"level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line = {"time": record.created, **fields}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _prepare(log_format: str = "text") -> None:
    """Log to standard error, and raise the limit of connections."""
    from rawsse.server import room_for_connections

    raise_descriptor_limit()
    room_for_connections(1)  # fail now with a clear error; an event loop would fail without one
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
    handler.setFormatter(JSONFormatter() if log_format == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _address(arguments: argparse.Namespace) -> tuple[str, int]:
    """Where to listen, from the arguments or else the environment. Raises `ConfigurationError`."""
    host = arguments.host or os.environ.get("RAWSSE_HOST") or _HOST
    if arguments.port is not None:
        return host, arguments.port
    text = os.environ.get("PORT") or str(_PORT)
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise ConfigurationError(f"PORT in the environment must be a number from 0 to 65535, not {quote(text)}")
    return host, int(text)


def _demo(arguments: argparse.Namespace) -> None:
    from rawsse.client.client import AsyncClient
    from rawsse.relay import Guard, Relay
    from rawsse.replay.player import DEMO_WORDS, demo_player
    from rawsse.server import Server

    async def run() -> None:
        async with (
            Server(demo_player(speed=arguments.speed), port=0) as upstream,
            AsyncClient(api_key="demo", base_url=upstream.base_url) as client,
        ):
            # There is no key to protect, so any address is allowed.
            relay = Relay(client, guard=Guard(bind_host=host), notice=notice, examples=("hello", *DEMO_WORDS))
            await _listen(relay, host, port, on_shutdown=relay.aclose)

    host, port = _address(arguments)
    _prepare(arguments.log_format)
    notice = "Recorded answers, no model. A word in your message picks one:"
    (say if arguments.log_format == "text" else logging.getLogger("rawsse").info)(f"{notice} {', '.join(DEMO_WORDS)}")
    _run(run())


def _serve(arguments: argparse.Namespace) -> None:
    from rawsse.relay import Guard, Ledger, RedisStore, UserFile, check_bind
    from rawsse.relay.users import Tokens
    from rawsse.server import Forwarded

    host, port = _address(arguments)
    _prepare(arguments.log_format)
    given = arguments.token
    if not given and arguments.users is None:  # with a file it would add a user without limits
        given = list(filter(None, [os.environ.get("RAWSSE_TOKEN")]))
    users = Tokens(given) if arguments.users is None else UserFile(arguments.users, given)
    check_bind(host, users)
    if arguments.static is not None and not arguments.static.is_dir():
        raise ConfigurationError(f"--static: {arguments.static} is not a folder")
    ledger = Ledger(path) if (path := arguments.ledger or os.environ.get("RAWSSE_LEDGER")) else None
    store = RedisStore(url) if (url := arguments.store or os.environ.get("RAWSSE_STORE")) else None
    guard = Guard(bind_host=host, hosts=arguments.allow_host, origins=arguments.allow_origin, tokens=users)
    file = users if isinstance(users, UserFile) else None
    relay = _relay(arguments, guard=guard, ledger=ledger, store=store, all_limits=file and file.everyone)
    app = relay if (proxies := arguments.proxy_headers) is None else Forwarded(relay, proxies.split(","))

    async def run() -> None:
        hung_up = asyncio.Event()
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up.set)
        reading = asyncio.create_task(_read_users_again(file, relay, hung_up))
        try:
            async with relay.client:
                await relay.home.start()
                end: dict[str, Any] = {"drain": relay.drain, "on_shutdown": relay.aclose}
                await _listen(app, host, port, grace_seconds=arguments.grace, **end)
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            if store is not None:
                await store.aclose()
            if ledger is not None:
                await asyncio.to_thread(ledger.close)

    _run(run())


async def _read_users_again(users: UserFile | None, relay: Relay, hung_up: asyncio.Event) -> None:
    """Read the file after `hung_up` was set, one reading at a time, until cancelled.

    In a thread: a large file takes seconds, and must not block streams.
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
        except Exception as exc:  # any: this task must survive for the next signal
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
    # One per possible run: a run that waited for another to end would look like a slow API.
    limits = PoolLimits(max_connections=room_for_connections(MAX_RUNS))
    client = new_client(arguments.base_url, recorder=recorder, limits=limits)
    options = {name: getattr(arguments, name) for name in ("model", "models", "max_tokens", "system", "static")}
    options["shutdown_seconds"] = arguments.drain
    options["metrics_token"] = arguments.metrics_token or os.environ.get("RAWSSE_METRICS_TOKEN") or None
    drain_seconds = DRAIN_SECONDS if arguments.on_disconnect == "drain" else 0.0
    run_limits = RunLimits(grace_seconds=arguments.resume_grace, drain_seconds=drain_seconds)
    return Relay(client, limits=run_limits, **options, **parts)


def _record(arguments: argparse.Namespace) -> bool:
    from rawsse.replay import Recorder, RecordingProxy, ScrubPolicy

    async def run() -> None:
        async with recorder, RecordingProxy(recorder, arguments.base_url) as proxy:
            await _listen(proxy, arguments.host, arguments.port)

    policy = ScrubPolicy(patterns=tuple(arguments.scrub))
    recorder = Recorder(arguments.out, policy=policy, only_failed=arguments.only_failed)
    _prepare()
    _run(run())
    return not recorder.lost


def _replay(arguments: argparse.Namespace) -> None:
    from rawsse.replay import Player

    if arguments.pace and not arguments.speed:
        raise ConfigurationError("--pace has no effect with --speed 0: leave one of them out")
    names = ("speed", "split", "segments", "pace", "rewrite", "match")
    options = {name: getattr(arguments, name) for name in names} | {"segment_seconds": arguments.segment_pause / 1000}
    player = Player(arguments.paths, faults=arguments.fault, **options)
    _prepare()
    _run(_listen(player, arguments.host, arguments.port))
