"""Arguments that several commands have, and exit codes."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rawsse.cli.ask import DEFAULT_MAX_TOKENS, DEFAULT_MODEL
from rawsse.cli.terminal import show
from rawsse.errors import quote

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

Command = Callable[[argparse.Namespace], int]


def add_command(commands: Any, run: Command, name: str, summary: str, more: str = "") -> argparse.ArgumentParser:
    """A parser for one command."""
    description = f"{summary[0].upper()}{summary[1:]}{'' if summary.endswith('?') else '.'} {more}"
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=description)
    parser.set_defaults(command=run, parser=parser)
    return parser


def add_paths(parser: argparse.ArgumentParser) -> None:
    """Recordings."""
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a recording (*.sse.jsonl), a bare *.sse, or a folder"
    )


def add_scrub(parser: argparse.ArgumentParser, verb: str) -> None:
    """More patterns of secrets."""
    more = f"{verb} what it finds, too, as a secret: its group, or all of it; may be given several times"
    parser.add_argument("--scrub", action="append", default=[], metavar="REGEX", help=more)


def add_address(parser: argparse.ArgumentParser, port: int) -> None:
    """Where to listen."""
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=port, help=f"the port (default {port}; 0: any free one)")


def add_speed(parser: argparse.ArgumentParser) -> None:
    """How fast recordings are played."""
    parser.add_argument(
        "--speed", type=float, default=1.0, help="1: the recorded pace (default), 2: twice as fast, 0: no waiting"
    )


def add_system(parser: argparse.ArgumentParser) -> None:
    """The system prompt."""
    parser.add_argument("-s", "--system", help="the system prompt")


def add_base_url(parser: argparse.ArgumentParser) -> None:
    """Where the API is."""
    parser.add_argument(
        "--base-url", metavar="URL", help="where the API is (default: ANTHROPIC_BASE_URL, or Anthropic's)"
    )


def add_upstream(parser: argparse.ArgumentParser, before_default: str = "") -> None:
    """Where the API is, and what a request asks of it."""
    add_base_url(parser)
    parser.add_argument("-m", "--model", default=DEFAULT_MODEL, help=f"default: {before_default}{DEFAULT_MODEL}")
    parser.add_argument(
        "--max-tokens",
        type=at_least_one,
        default=DEFAULT_MAX_TOKENS,
        metavar="N",
        help=f"how long an answer may be (default: {before_default}{DEFAULT_MAX_TOKENS})",
    )
    parser.add_argument("--env-file", type=Path, metavar="FILE", help="read this instead of .env")


def at_least_one(text: str) -> int:
    """A type of arguments: a whole number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {quote(text)}")
    return int(text)


def seconds(text: str) -> float:
    """A type of arguments: a number of seconds, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:  # NaN is not
        raise argparse.ArgumentTypeError(f"must be a number of seconds, 0 or more, not {quote(text)}")
    return value


class ListTable(argparse.Action):
    """Lists the table that `const` names, and leaves. Loaded only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        module, _dot, name = str(self.const).rpartition(".")
        for entry, what in getattr(importlib.import_module(module), name).items():
            show(f"{entry}\n    {what}")
        parser.exit()
