"""Environment variables from a file, usually `.env`.

load_env_file(None)                 # .env in this folder, if there is one
load_env_file(Path("prod.env"))     # a file that the user named
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from rawsse.errors import ConfigurationError

CREDENTIALS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
ADDRESS = "ANTHROPIC_BASE_URL"

TAKEN_UNASKED = (*CREDENTIALS, ADDRESS, "RAWSSE_TOKEN")
"""The variables that are read from a `.env` that the user did not name: the folder may be another person's, and its PATH and
proxies are not trusted."""

_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def load_env_file(named: Path | None) -> None:
    """Put a file's variables into the environment; those that are set already stay. None: `.env` in this folder, if there is.

    Raises `ConfigurationError` if the file cannot be used, and if a `.env` that the user did not name would send the key of
    the environment to another address.
    """
    path = named or Path(".env")
    if named is None and not path.is_file():
        return
    variables = read_env_file(_read_text(path), str(path))
    if named is None:
        variables = {name: value for name, value in variables.items() if name in TAKEN_UNASKED}
        _check_address(variables)
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def _check_address(variables: Mapping[str, str]) -> None:
    has_own_key = any(os.environ.get(name) for name in CREDENTIALS)
    if has_own_key and ADDRESS in variables and ADDRESS not in os.environ:
        raise ConfigurationError(
            f"the key is from the environment, and .env in this folder would send it elsewhere ({ADDRESS}). "
            "If that is what you want, say --env-file .env"
        )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors leave a byte order mark
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"cannot read {path}: it is not UTF-8 text") from None


def read_env_file(text: str, name: str = ".env") -> Mapping[str, str]:
    """The variables in an env file: lines `NAME=value`, `export` before it, quotes around the value, `#` comments.

    Raises `ConfigurationError` naming the line, and never quoting it: it may hold a key.
    """
    variables: dict[str, str] = {}
    for number, raw_line in enumerate(text.split("\n"), 1):
        line = raw_line.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = re.sub(r"^export\s+", "", line).partition("=")
        key, value = key.strip(), _unquoted(value.strip())
        if not equals or not _NAME.fullmatch(key) or "\0" in value:
            raise ConfigurationError(f"{name}, line {number}: not NAME=value")
        variables[key] = value
    return variables


def _unquoted(text: str) -> str:
    """The value without its quotes; without quotes, a comment begins at a `#` after a space."""
    quote = text[:1]
    if quote in ("'", '"') and quote in text[1:]:
        return text[1:].partition(quote)[0]
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].rstrip()
