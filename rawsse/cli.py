"""The command line: `rawsse COMMAND`, also `python -m rawsse COMMAND`.

This file knows arguments, what is printed where, and exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted.
It refuses to know how anything is done: each command is a few calls of the rooms above.

Answers go to standard output, everything else to standard error. Rooms are imported by the command that needs them, so that
`rawsse ask` does not pay for a server.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rawsse.advice import Asked
from rawsse.ask import DEFAULT_MAX_TOKENS, DEFAULT_MODEL, ask, new_client, read_prompt
from rawsse.envfile import load_env_file
from rawsse.errors import ConfigurationError, RawsseError, quote
from rawsse.terminal import (
    complain,
    drop_output,
    fill_closed_descriptors,
    is_typed,
    let_every_character_be_printed,
    say,
    show,
    write,
)

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Errors are said in one line."""
    fill_closed_descriptors()
    let_every_character_be_printed()
    parser = _parser()
    arguments = argparse.Namespace()
    try:
        _, unknown = parser.parse_known_args(argv, arguments)
        if unknown:
            arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        command: Command | None = arguments.command
        if command is None:
            parser.print_help(sys.stderr)
            return WRONG_USAGE
        if hasattr(arguments, "env_file"):
            load_env_file(arguments.env_file)
        if not hasattr(arguments, "port"):
            write("")  # fails now, and not when an answer has been paid for that cannot be shown
        return command(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        drop_output()  # the reader has gone (`rawsse ask … | head`)
        return FAILED
    except ConfigurationError as exc:
        # What the system refuses (a port that is taken) was no wrong usage.
        return _complain(exc, FAILED if isinstance(exc.__cause__, OSError) else WRONG_USAGE)
    except (RawsseError, OSError) as exc:
        drop_output()
        return _complain(exc, FAILED, _asked(arguments))
    except Exception as exc:
        if sys.flags.dev_mode:
            raise
        text = f"{type(exc).__name__}: {exc}. This is a bug in rawsse; `python -X dev -m rawsse …` shows where"
        return _complain(text, FAILED)


def _complain(problem: Exception | str, code: int, asked: Asked | None = None) -> int:
    complain(problem, asked)
    return code


def _asked(arguments: argparse.Namespace) -> Asked:
    base_url = getattr(arguments, "base_url", None) or os.environ.get("ANTHROPIC_BASE_URL", "")
    return Asked(getattr(arguments, "model", None) or "", base_url, environ=os.environ)


# --- Arguments -----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rawsse",
        description="Stream Claude's answers over raw HTTP and server-sent events.",
        epilog="To begin: `rawsse demo`, and open the address that it prints; it needs no key. "
        "`rawsse COMMAND --help` has the options. Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted.",
    )
    parser.set_defaults(command=None, parser=parser)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, and leave")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_demo(commands)
    _add_serve(commands)
    _add_ask(commands)
    _add_chat(commands)
    _add_record(commands)
    _add_replay(commands)
    _add_check(commands)
    _add_explain(commands)
    return parser


def _add(commands: Any, run: Command, name: str, summary: str, more: str = "") -> argparse.ArgumentParser:
    description = f"{summary[0].upper()}{summary[1:]}{'' if summary.endswith('?') else '.'} {more}"
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=description)
    parser.set_defaults(command=run, parser=parser)
    return parser


def _add_demo(commands: Any) -> None:
    parser = _add(commands, _demo, "demo", "the page and the relay with recorded answers: needs no key")
    _add_address(parser, 8000)
    _add_speed(parser)


def _add_serve(commands: Any) -> None:
    more = "The key stays here: it comes from ANTHROPIC_API_KEY in the environment or in a file named .env."
    parser = _add(commands, _serve, "serve", "the page and the relay in front of the API", more)
    _add_address(parser, 8000)
    _add_upstream(parser)
    parser.add_argument(
        "--token",
        action="append",
        default=[],
        help="what callers must bring (Authorization: Bearer …, or x-api-key); may be given several times; "
        "default: RAWSSE_TOKEN in the environment. Needed on other addresses than this machine's own",
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
    parser.add_argument("--static", type=Path, metavar="DIR", help="your own page instead of the built-in one")
    parser.add_argument(
        "--grace",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="after SIGTERM: how long open connections have to take their last frames (default 10)",
    )
    parser.add_argument(
        "--flight-recorder", type=Path, metavar="DIR", help="keep recordings of the upstream's answers that failed"
    )


def _add_ask(commands: Any) -> None:
    more = "The answer goes to standard output; model, tokens and stop reason to standard error. Ctrl-C stops it."
    parser = _add(commands, _ask, "ask", "stream one answer to the terminal", more)
    parser.add_argument(
        "prompt",
        nargs="*",
        metavar="PROMPT",
        help="the prompt; standard input stands in place of -, or else behind it, unless it is a terminal",
    )
    _add_system(parser)
    parser.add_argument("--json", action="store_true", help="print the whole message as JSON instead of its text")
    _add_upstream(parser)


def _add_chat(commands: Any) -> None:
    more = "From a pipe, each line is a question. Nothing is kept but by --save and /save."
    parser = _add(commands, _chat, "chat", "ask, and ask again, in the terminal", more)
    _add_system(parser)
    parser.add_argument("--load", type=Path, metavar="FILE", help="go on with a conversation that was saved")
    parser.add_argument("--save", type=Path, metavar="FILE", help="save the conversation there after each answer")
    _add_upstream(parser, "as it was saved, or else ")
    parser.set_defaults(model=None, max_tokens=None)


def _add_record(commands: Any) -> None:
    more = "Give any client its address as base URL, and the key as ever: `rawsse replay DIR` then answers in the API's place."
    parser = _add(commands, _record, "record", "a proxy that keeps a recording of every answer", more)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the recordings go")
    parser.add_argument("--only-failed", action="store_true", help="keep only what failed: the newest 100")
    _add_scrub(parser, "hide")
    _add_address(parser, 8002)
    _add_base_url(parser)


def _add_replay(commands: Any) -> None:
    more = "Point any client at it. Several recordings take turns, unless --match says otherwise. It asks for no key."
    parser = _add(commands, _replay, "replay", "a Messages API made of recordings", more)
    _add_paths(parser)
    _add_address(parser, 8001)
    _add_speed(parser)
    parser.add_argument(
        "--match",
        default="turns",
        metavar="HOW",
        help="which recording answers: turns (default: first come, first served), sequence (each once), request (the one whose "
        "request asks the same), or name (the client names it: x-rawsse-recording: NAME, ?recording=NAME, or a base URL that "
        "ends in /NAME). A request that none answers is told the nearest one, and where it differs",
    )
    parser.add_argument("--threads", action="store_true", help="keep message threads instead of refusing them")
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
    table = "rawsse.replay.breaking.specs.FAULTS"
    parser.add_argument("--list-faults", action=_List, nargs=0, const=table, help="list what --fault takes, and leave")


class _Version(argparse.Action):
    """Shows the version, and leaves. Loads `importlib.metadata` only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            show(f"rawsse {version('rawsse')}")
        except PackageNotFoundError:
            show("rawsse, not installed: a checkout")
        parser.exit()


class _List(argparse.Action):
    """Lists the table that `const` names, and leaves. Loaded only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        module, _dot, name = str(self.const).rpartition(".")
        for entry, what in getattr(importlib.import_module(module), name).items():
            show(f"{entry}\n    {what}")
        parser.exit()


def _add_check(commands: Any) -> None:
    more = "Names each broken rule with its place, in a stream that is still coming as soon as it is seen."
    parser = _add(commands, _check, "check", "is this a correct stream?", f"{more} Exit code 1 if a rule is broken.")
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="PATH",
        help="a recording (*.sse.jsonl), a bare *.sse, a folder, - for standard input (curl -N … | rawsse check -), or the "
        "base URL of a Messages API, which is asked a question",
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each finding and each stream")
    _add_scrub(parser, "report")
    table = "rawsse.replay.looking.check.RULES"
    parser.add_argument("--rules", action=_List, nargs=0, const=table, help="list the rules, and leave")
    parser.add_argument("-m", "--model", default=DEFAULT_MODEL, help=f"of the question (default: {DEFAULT_MODEL})")
    parser.add_argument("--prompt", default="Count from one to five.", help="the question (default: %(default)s)")


def _add_explain(commands: Any) -> None:
    parser = _add(commands, _explain, "explain", "the anatomy of a recording: bytes, lines, events, message")
    _add_paths(parser)
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="default: auto, unless NO_COLOR is set"
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="OUT",
        help="write a page with the timeline as a picture instead; of several recordings, one each, into the folder OUT",
    )


def _add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a recording (*.sse.jsonl), a bare *.sse, or a folder"
    )


def _add_scrub(parser: argparse.ArgumentParser, verb: str) -> None:
    more = f"{verb} what it finds, too, as a secret: its group, or all of it; may be given several times"
    parser.add_argument("--scrub", action="append", default=[], metavar="REGEX", help=more)


def _add_address(parser: argparse.ArgumentParser, port: int) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=port, help=f"the port (default {port}; 0: any free one)")


def _add_speed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--speed", type=float, default=1.0, help="1: the recorded pace (default), 2: twice as fast, 0: no waiting"
    )


def _add_system(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-s", "--system", help="the system prompt")


def _add_base_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--base-url", metavar="URL", help="where the API is (default: ANTHROPIC_BASE_URL, or Anthropic's)"
    )


def _add_upstream(parser: argparse.ArgumentParser, before_default: str = "") -> None:
    _add_base_url(parser)
    parser.add_argument("-m", "--model", default=DEFAULT_MODEL, help=f"default: {before_default}{DEFAULT_MODEL}")
    parser.add_argument(
        "--max-tokens",
        type=_at_least_one,
        default=DEFAULT_MAX_TOKENS,
        metavar="N",
        help=f"how long an answer may be (default: {before_default}{DEFAULT_MAX_TOKENS})",
    )
    parser.add_argument("--env-file", type=Path, metavar="FILE", help="read this instead of .env")


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {quote(text)}")
    return int(text)


# --- Servers -------------------------------------------------------------------------------------------------------


# Of a body, for the server: the relay and the player have a limit of their own, and refuse in the API's words.
_NO_LIMIT = sys.maxsize

GC_THRESHOLDS = (10_000, 20, 50)
"""Of Python's garbage collector, in a server: it looks at the objects of all open streams again and again, and nearly all of
them are freed without it. With 5,000 streams it took a third of the CPU time."""


MAX_MACOS_DESCRIPTORS = 10_240
"""OPEN_MAX: macOS allows no more, although its hard limit is infinite."""


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


def _prepare() -> None:
    """Log to standard error, and let there be as many connections as the system allows."""
    import logging

    raise_descriptor_limit()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S", stream=sys.stderr
    )


def _demo(arguments: argparse.Namespace) -> int:
    from rawsse.client.client import AsyncClient
    from rawsse.relay import Guard, Relay
    from rawsse.replay.playing.demo import DEMO_WORDS, DemoPlayer
    from rawsse.server import Server, serve

    async def run() -> None:
        async with (
            Server(DemoPlayer(speed=arguments.speed), port=0) as upstream,
            AsyncClient(api_key="demo", base_url=upstream.base_url) as client,
        ):
            # There is no key here that a stranger could spend, so any address will do.
            relay = Relay(client, guard=Guard(bind_host=arguments.host), notice=notice)
            options = {"on_shutdown": relay.aclose, "max_body_bytes": _NO_LIMIT}
            await serve(relay, arguments.host, arguments.port, ready=_say_where, **options)

    _prepare()
    notice = f"Recorded answers, no model. Words in your message that pick one: {', '.join(DEMO_WORDS)}"
    say(notice)
    _run(run())
    return DONE


def _serve(arguments: argparse.Namespace) -> int:
    from rawsse.client.network.pool import PoolLimits
    from rawsse.relay import Guard, Relay, check_bind
    from rawsse.relay.runs import MAX_RUNS
    from rawsse.server import room_for_connections, serve

    _prepare()
    tokens = arguments.token or list(filter(None, [os.environ.get("RAWSSE_TOKEN")]))
    check_bind(arguments.host, tokens)
    if arguments.static is not None and not arguments.static.is_dir():
        raise ConfigurationError(f"--static: {arguments.static} is no folder")
    recorder = None
    if arguments.flight_recorder is not None:
        from rawsse.replay import Recorder

        recorder = Recorder(arguments.flight_recorder, only_failed=True)
    # One for each run that there may be: a run that waits for another to end would be told as a slow API.
    limits = PoolLimits(max_connections=room_for_connections(MAX_RUNS))
    client = new_client(arguments.base_url, recorder=recorder, limits=limits)
    guard = Guard(bind_host=arguments.host, hosts=arguments.allow_host, origins=arguments.allow_origin, tokens=tokens)
    options = {name: getattr(arguments, name) for name in ("model", "models", "max_tokens", "static")}
    relay = Relay(client, guard=guard, **options)

    async def run() -> None:
        limits = {"grace_seconds": arguments.grace, "max_body_bytes": _NO_LIMIT}
        async with client:
            await serve(relay, arguments.host, arguments.port, ready=_say_where, on_shutdown=relay.aclose, **limits)

    _run(run())
    return DONE


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

    names = ("speed", "split", "segments", "pace", "rewrite", "match", "threads")
    options = {name: getattr(arguments, name) for name in names} | {"segment_seconds": arguments.segment_pause / 1000}
    player = Player(arguments.paths, faults=arguments.fault, **options)
    _prepare()
    _run(serve(player, arguments.host, arguments.port, ready=_say_where, max_body_bytes=_NO_LIMIT))
    return DONE


# --- Asking --------------------------------------------------------------------------------------------------------


def _ask(arguments: argparse.Namespace) -> int:
    client = new_client(arguments.base_url)
    # Before asyncio runs: it would take the first Ctrl-C for itself and leave the reading be.
    prompt = read_prompt(arguments.prompt)
    options = {"model": arguments.model, "max_tokens": arguments.max_tokens, "system": arguments.system}
    ask(client, prompt, as_json=arguments.json, **options)
    return DONE


def _chat(arguments: argparse.Namespace) -> int:
    from rawsse.chat import run_chat

    fields = {"model": arguments.model, "max_tokens": arguments.max_tokens, "system": arguments.system}
    files = {"load_from": arguments.load, "save_to": arguments.save}
    is_whole = run_chat(new_client(arguments.base_url), fields, asked=_asked(arguments), **files)
    # Whoever sits there has seen what failed, and has asked again or not. A script has not.
    return DONE if is_whole or is_typed() else FAILED


# --- Looking at recordings -----------------------------------------------------------------------------------------


def _check(arguments: argparse.Namespace) -> int:
    from rawsse.looking import check_all

    options = {"model": arguments.model, "prompt": arguments.prompt, "scrub": arguments.scrub}
    is_good = check_all(arguments.sources, as_json=arguments.json, **options)
    return DONE if is_good else FAILED


def _explain(arguments: argparse.Namespace) -> int:
    from rawsse.looking import explain_all, explain_to_page

    if arguments.html is not None:
        return DONE if explain_to_page(arguments.paths, arguments.html) else FAILED
    # NO_COLOR: https://no-color.org. What was asked for by an option counts for more.
    is_wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    color = is_wanted if arguments.color == "auto" else arguments.color == "always"
    return DONE if explain_all(arguments.paths, color=color) else FAILED
