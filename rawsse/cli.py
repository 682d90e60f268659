"""The command line: `rawsse COMMAND`, also `python -m rawsse COMMAND`.

This file knows arguments, `.env` files, what is printed where, and exit codes: 0 done, 1 the work failed, 2 wrong usage, 130
interrupted. It refuses to know how anything is done: each command is a few calls of the rooms above.

Answers go to standard output, everything else to standard error. Rooms are imported by the command that needs them, so that
`rawsse ask` does not pay for a server.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawsse.errors import ConfigurationError, RawsseError, UsageError

if TYPE_CHECKING:
    from rawsse.client import MessageStream
    from rawsse.messages import Message

__all__ = ["main", "read_env_file"]

DEFAULT_MODEL = "claude-sonnet-4-5"
DEFAULT_MAX_TOKENS = 4096

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

Command = Callable[[argparse.Namespace], Coroutine[Any, Any, int]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Errors are said in one line."""
    arguments = _parser().parse_args(argv)
    command: Command = arguments.command
    try:
        if (env_file := getattr(arguments, "env_file", None)) is not None:
            _load_env(env_file)
        return asyncio.run(command(arguments))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`rawsse ask … | head`). What is still buffered must not be tried again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except UsageError as exc:
        return _complain(exc, WRONG_USAGE)
    except (RawsseError, OSError) as exc:
        return _complain(exc, FAILED)


def _complain(exc: Exception, code: int) -> int:
    print(f"rawsse: {exc}", file=sys.stderr)
    return code


# --- Arguments -----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rawsse",
        description="Stream Claude's answers over raw HTTP and server-sent events.",
        epilog="Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_serve(commands)
    _add_ask(commands)
    _add_replay(commands)
    _add_check(commands)
    _add_explain(commands)
    return parser


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        "demo", help="the page, the relay and a built-in upstream that plays recordings: no key"
    )
    _add_address(parser, 8000)
    parser.add_argument("--speed", type=float, default=1.0, help="1: the recorded pace (default), 2: twice as fast")
    parser.set_defaults(command=_demo)


def _add_serve(commands: Any) -> None:
    parser = commands.add_parser(
        "serve", help="the page and the relay in front of the API; the key from the environment"
    )
    _add_address(parser, 8000)
    _add_upstream(parser)
    parser.add_argument(
        "--token", action="append", default=[], help="what callers must bring; may be given several times"
    )
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a name the relay goes by")
    parser.add_argument("--allow-origin", action="append", default=[], metavar="ORIGIN", help="pages that may use it")
    parser.add_argument("--static", type=Path, metavar="DIR", help="your own page instead of the built-in one")
    parser.add_argument("--grace", type=float, default=10.0, metavar="SECONDS", help="for open streams, when leaving")
    parser.set_defaults(command=_serve)


def _add_ask(commands: Any) -> None:
    parser = commands.add_parser("ask", help="stream one answer to the terminal")
    parser.add_argument("prompt", nargs="?", help="the prompt; from standard input if left out, or -")
    parser.add_argument("--system", help="the system prompt")
    parser.add_argument("--json", action="store_true", help="print the whole message as JSON instead of its text")
    _add_upstream(parser)
    parser.set_defaults(command=_ask)


def _add_replay(commands: Any) -> None:
    parser = commands.add_parser("replay", help="a Messages API made of recordings")
    _add_paths(parser)
    _add_address(parser, 8001)
    parser.add_argument("--speed", type=float, default=1.0, help="1: the recorded pace (default), 0: no waiting")
    parser.add_argument("--split", metavar="HOW", help="cut the answer's body: whole, event, bytes, or a size in bytes")
    parser.set_defaults(command=_replay)


def _add_check(commands: Any) -> None:
    parser = commands.add_parser("check", help="is this a correct stream? Names each broken rule")
    _add_paths(parser)
    parser.set_defaults(command=_check)


def _add_explain(commands: Any) -> None:
    parser = commands.add_parser("explain", help="the anatomy of a recording: bytes, lines, events, message")
    _add_paths(parser)
    parser.set_defaults(command=_explain)


def _add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="*.sse.jsonl or *.sse files, or folders of them"
    )


def _add_address(parser: argparse.ArgumentParser, port: int) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=port, help=f"the port (default {port}; 0: any free one)")


def _add_upstream(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base-url", help="where the API is (default: ANTHROPIC_BASE_URL, or Anthropic's)")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"default {DEFAULT_MODEL}")
    parser.add_argument("--max-tokens", type=int, default=DEFAULT_MAX_TOKENS, help=f"default {DEFAULT_MAX_TOKENS}")
    parser.add_argument("--env-file", type=Path, default=Path(), metavar="FILE", help="read this instead of .env")


# --- .env ----------------------------------------------------------------------------------------------------------


def _load_env(path: Path) -> None:
    """Take variables from an env file; those that are set already stay. No path: `.env` in this folder, if there is one."""
    is_named = path != Path()
    path = path if is_named else Path(".env")
    if not is_named and not path.is_file():
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"cannot read {path}: {exc}") from None
    for name, value in read_env_file(text, str(path)).items():
        os.environ.setdefault(name, value)


def read_env_file(text: str, name: str = ".env") -> Mapping[str, str]:
    """The variables in an env file: lines `NAME=value`, `export` before it, quotes around the value, `#` comments.

    Raises `ConfigurationError` naming the line, and never quoting it: it may hold a key.
    """
    variables: dict[str, str] = {}
    for number, raw_line in enumerate(text.split("\n"), 1):
        line = raw_line.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not key.replace("_", "a").isalnum():
            raise ConfigurationError(f"{name}, line {number}: is no NAME=value")
        is_quoted = value[:1] in ("'", '"')
        variables[key] = value[1:].partition(value[0])[0] if is_quoted else value.partition(" #")[0].rstrip()
    return variables


# --- Servers -------------------------------------------------------------------------------------------------------


def _say_where(base_url: str) -> None:
    print(f"listening on {base_url}", flush=True)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)


async def _demo(arguments: argparse.Namespace) -> int:
    from rawsse.client import AsyncClient
    from rawsse.relay import Relay, check_bind
    from rawsse.replay.demo import DemoPlayer
    from rawsse.server import Server, serve

    check_bind(arguments.host, ())
    _log_to_stderr()
    async with (
        Server(DemoPlayer(speed=arguments.speed), port=0) as upstream,
        AsyncClient(api_key="demo", base_url=upstream.base_url) as client,
    ):
        relay = Relay(client)
        await serve(relay, arguments.host, arguments.port, ready=_say_where, on_shutdown=relay.aclose)
    return DONE


async def _serve(arguments: argparse.Namespace) -> int:
    from rawsse.client import AsyncClient
    from rawsse.relay import Guard, Relay, check_bind
    from rawsse.server import serve

    tokens = arguments.token or [token for token in [os.environ.get("RAWSSE_TOKEN")] if token]
    check_bind(arguments.host, tokens)
    if arguments.static is not None and not arguments.static.is_dir():
        raise ConfigurationError(f"--static: {arguments.static} is no folder")
    _log_to_stderr()
    async with AsyncClient(base_url=arguments.base_url) as client:
        if not client.has_credential:
            raise ConfigurationError("no key: set ANTHROPIC_API_KEY in the environment, or in a file named .env here")
        guard = Guard(
            bind_host=arguments.host, hosts=arguments.allow_host, origins=arguments.allow_origin, tokens=tokens
        )
        relay = Relay(
            client, model=arguments.model, max_tokens=arguments.max_tokens, guard=guard, static=arguments.static
        )
        await serve(
            relay,
            arguments.host,
            arguments.port,
            ready=_say_where,
            on_shutdown=relay.aclose,
            grace_seconds=arguments.grace,
        )
    return DONE


async def _replay(arguments: argparse.Namespace) -> int:
    from rawsse.replay import Player
    from rawsse.server import serve

    split: int | str | None = arguments.split
    if isinstance(split, str) and split.isascii() and split.isdigit():
        split = int(split)
    player = Player(arguments.paths, speed=arguments.speed, split=split)
    _log_to_stderr()
    await serve(player, arguments.host, arguments.port, ready=_say_where)
    return DONE


# --- Asking --------------------------------------------------------------------------------------------------------


async def _ask(arguments: argparse.Namespace) -> int:
    from rawsse.client import AsyncClient

    prompt = arguments.prompt
    if prompt in (None, "-"):
        if sys.stdin.isatty():
            print("rawsse: type the prompt, then Ctrl-D", file=sys.stderr)
        prompt = sys.stdin.read()
    if not prompt.strip():
        raise ConfigurationError("the prompt is empty")
    async with AsyncClient(base_url=arguments.base_url) as client:
        stream = client.messages.stream(
            model=arguments.model,
            max_tokens=arguments.max_tokens,
            messages=[{"role": "user", "content": prompt}],
            system=arguments.system,
        )
        async with stream:
            message = await _print_answer(stream, as_json=arguments.json)
    _print_usage(message)
    return DONE


async def _print_answer(stream: MessageStream, *, as_json: bool) -> Message:
    if as_json:
        message = await stream.get_final_message()
        print(message.to_json(), flush=True)
        return message
    text = ""
    try:
        async for text in stream.text_stream:
            print(text, end="", flush=True)
    finally:
        if text and not text.endswith("\n"):
            print(flush=True)
    return await stream.get_final_message()


def _print_usage(message: Message) -> None:
    usage = message.usage
    counts = f"{usage.total_input_tokens} tokens in, {usage.get('output_tokens', 0)} out"
    print(f"[{message.model}, {counts}, {message.stop_reason}]", file=sys.stderr)


# --- Looking at recordings -----------------------------------------------------------------------------------------


async def _check(arguments: argparse.Namespace) -> int:
    from rawsse.replay import Recording, check, find_recordings

    failed = False
    for path in [found for given in arguments.paths for found in find_recordings(given)]:
        findings = check(Recording.load(path))
        broken = [finding for finding in findings if finding.severity == "error"]
        failed = failed or bool(broken)
        print(f"{path}: {f'{len(broken)} broken rules' if broken else 'ok'}")
        for finding in findings:
            print(f"  {finding}")
    return FAILED if failed else DONE


async def _explain(arguments: argparse.Namespace) -> int:
    from rawsse.replay import Recording, find_recordings
    from rawsse.replay.explain import explain

    for path in [found for given in arguments.paths for found in find_recordings(given)]:
        print(f"== {path}")
        print(explain(Recording.load(path)))
    return DONE
