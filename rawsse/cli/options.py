"""Options that several commands have, the `.env` file, and the client with its key.

parser = add_command(commands, run, "ask", "stream one answer to the terminal")
add_options(parser, *UPSTREAM)      # --base-url, --model, --max-tokens, --system, --env-file
load_env_file(None)                 # .env in this folder, if there is one
load_env_file(Path("prod.env"))     # a file that the user named
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawsse.cli.terminal import Asked, show
from rawsse.errors import ConfigurationError, quote

if TYPE_CHECKING:
    from rawsse.client.client import AsyncClient

DEFAULT_MODEL = "claude-sonnet-5"
DEFAULT_MAX_TOKENS = 4096

NO_KEY = (
    "no key: set ANTHROPIC_API_KEY in the environment, or in a file named .env in this folder "
    "(`rawsse demo` needs no key)"
)

Command = Callable[[argparse.Namespace], bool | None]
"""Runs a command. False: its work failed."""


# --- Arguments -----------------------------------------------------------------------------------------------------


def at_least_one(text: str) -> int:
    """An argument type: a whole number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {quote(text)}")
    return int(text)


def seconds(text: str) -> float:
    """An argument type: a number of seconds, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:  # NaN is not
        raise argparse.ArgumentTypeError(f"must be a number of seconds, 0 or more, not {quote(text)}")
    return value


def system_prompt(text: str) -> str:
    """An argument type: a text, or @FILE to read it from a file. Raises `OSError`."""
    return Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text


FILE: Mapping[str, Any] = {"type": Path, "metavar": "FILE"}
SECONDS: Mapping[str, Any] = {"type": seconds, "metavar": "SECONDS"}
REPEATED: Mapping[str, Any] = {"action": "append", "default": []}


_PATHS = "a recording (*.sse.jsonl), a bare *.sse, a folder, or the name of a recording that comes with rawsse (plain)"
_SCRUB = "a pattern of more secrets: what its group matches, or the whole of it, is hidden, and `check` reports it (repeatable)"
_MOST = f"the longest answer (default: {DEFAULT_MAX_TOKENS})"

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "paths": {"nargs": "+", "type": Path, "metavar": "PATH", "help": _PATHS},
    "--scrub": {**REPEATED, "metavar": "REGEX", "help": _SCRUB},
    "--speed": {
        "type": float,
        "default": 1.0,
        "help": "1: the recorded pace (default), 2: twice as fast, 0: no waiting",
    },
    "--base-url": {"metavar": "URL", "help": "the API (default: ANTHROPIC_BASE_URL, or Anthropic's)"},
    "--model": {"default": DEFAULT_MODEL, "help": f"the model (default: {DEFAULT_MODEL})"},
    "--max-tokens": {"type": at_least_one, "default": DEFAULT_MAX_TOKENS, "metavar": "N", "help": _MOST},
    "--system": {"type": system_prompt, "metavar": "TEXT", "help": "the system prompt, or @FILE"},
    "--env-file": {**FILE, "help": "read this instead of .env"},
}
"""The arguments that several commands have."""

UPSTREAM = ("--base-url", "--model", "--max-tokens", "--system", "--env-file")
"""The address of the API, and the parameters of a request."""


def add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add arguments of `OPTIONS`."""
    for name in names:
        short = [name[1:3]] if name in ("--model", "--system") else []
        parser.add_argument(*short, name, **OPTIONS[name])


def add_command(commands: Any, run: Command, name: str, summary: str, more: str = "") -> argparse.ArgumentParser:
    """A parser for one command."""
    description = f"{summary[0].upper()}{summary[1:]}{'' if summary.endswith('?') else '.'} {more}"
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=description)
    parser.set_defaults(command=run, parser=parser)
    return parser


def asked_of(arguments: argparse.Namespace) -> Asked:
    """The model and the address, for the advice on an error."""
    base_url = getattr(arguments, "base_url", None) or os.environ.get("ANTHROPIC_BASE_URL", "")
    return Asked(getattr(arguments, "model", None) or "", base_url)


class ListTable(argparse.Action):
    """Prints the table that `const` names, and exits. The table is loaded only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        module, _dot, name = str(self.const).rpartition(".")
        for entry, what in getattr(importlib.import_module(module), name).items():
            show(f"{entry}\n    {what}")
        parser.exit()


# --- The key -------------------------------------------------------------------------------------------------------


def new_client(base_url: str | None, **options: Any) -> AsyncClient:
    """The client for the API; `options` are those of `AsyncClient`. Raises `ConfigurationError` if there is no key."""
    from rawsse.client.client import AsyncClient

    client = AsyncClient(base_url=base_url, **options)
    if not client.has_credential:
        raise ConfigurationError(NO_KEY)
    return client


CREDENTIALS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
ADDRESS = "ANTHROPIC_BASE_URL"

TAKEN_UNASKED = (*CREDENTIALS, ADDRESS, "RAWSSE_TOKEN")
"""The variables that are read from a `.env` that the user did not name. The folder may not be the user's own, so its PATH
and proxies are not trusted."""

_LINE = re.compile(
    r"""(?:export\s+)? ([A-Za-z_][A-Za-z0-9_]*) \s*=\s* (?: (['"])(.*?)\2.* | \#.* | (.*?)(?:\s\#.*)? )""", re.VERBOSE
)
"""NAME=value. Anything after a quoted value is dropped; without quotes, a comment begins at a `#` after a space."""


def load_env_file(named: Path | None) -> None:
    """Put a file's variables into the environment; those that are already set are kept. None: `.env` in this folder, if it
    exists.

    Raises `OSError` if the file cannot be read. Raises `ConfigurationError` if it is invalid, or if a `.env` that the user did
    not name would send the environment's key to another address.
    """
    path = named or Path(".env")
    if named is None and not path.is_file():
        return
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors leave a byte order mark
    except UnicodeDecodeError:
        raise ConfigurationError(f"cannot read {path}: it is not UTF-8 text") from None
    variables = read_env_file(text, str(path))
    if named is None:
        variables = {name: value for name, value in variables.items() if name in TAKEN_UNASKED}
        has_own_key = any(os.environ.get(name) for name in CREDENTIALS)
        if has_own_key and ADDRESS in variables and ADDRESS not in os.environ:
            raise ConfigurationError(
                f"the key is from the environment, and .env in this folder would send it elsewhere ({ADDRESS}). "
                "If that is what you want, use --env-file .env"
            )
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def read_env_file(text: str, name: str = ".env") -> Mapping[str, str]:
    """The variables in an env file: lines `NAME=value`, `export` before it, quotes around the value, `#` comments.

    Raises `ConfigurationError` with the number of the line, but not its text, which may hold a key.
    """
    variables: dict[str, str] = {}
    for number, raw_line in enumerate(text.split("\n"), 1):
        line = raw_line.strip()
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None or "\0" in line:
            raise ConfigurationError(f"{name}, line {number}: not NAME=value")
        variables[found[1]] = found[3] or found[4] or ""
    return variables
