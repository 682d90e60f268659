"""Text at a terminal: answers, one-line errors with advice, and the lines that the user types.

    show("The answer is ", end="")          # to standard output, at once
    say("[28 tokens in, 217 out]")          # to standard error
    complain(error, Asked("claude-x"))      # "rawsse: there is no model 'claude-x': name another with --model […]"
    line = read_line("you> ")               # prompts only at a terminal; raises EOFError at the end
    message = run(ask(line))                # an event loop that Ctrl-C interrupts at any moment

Answers go to standard output, everything else to standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, NamedTuple, TextIO, TypeVar

from rawsse.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AuthenticationError,
    CertificateError,
    ConfigurationError,
    NotFoundError,
    ProxyError,
    quote,
)

T = TypeVar("T")

# Terminals interpret control characters, and answers are not trusted.
_CONTROLS: Mapping[int, str] = {
    code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
}
# Direction marks and zero-width characters reorder or hide the text around them, which can disguise an error. Answers keep
# them, since some scripts need them.
_MARKS = (0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF)
_MORE_MARKS = (*range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080))  # annotations, tags
_UNWANTED: Mapping[int, str] = {**_CONTROLS, **dict.fromkeys((*_MARKS, *_MORE_MARKS), "\N{REPLACEMENT CHARACTER}")}


# --- Showing -------------------------------------------------------------------------------------------------------


def prepare_streams() -> None:
    """Make the standard streams safe to use. A character that the terminal's encoding lacks is printed as `?`."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed by the shell (`>&-`): uvloop aborts if a socket gets its number
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def show(text: str, end: str = "\n") -> None:
    """Write text to standard output at once. On a terminal, control characters are replaced. Raises `OSError`."""
    write((text.translate(_CONTROLS) if sys.stdout is not None and sys.stdout.isatty() else text) + end)


def write(text: str) -> None:
    """Write text to standard output at once, control characters included. Raises `OSError`."""
    if sys.stdout is None:  # closed by the shell: `>&-`
        raise OSError(errno.EBADF, "standard output is closed")
    _write(sys.stdout, text)


def say(text: str, *, over: bool = False) -> None:
    """Write a line to standard error; with `over`, overwrite the terminal's echo of Ctrl-C."""
    if sys.stderr is not None:
        _write(sys.stderr, ("\r" if over else "") + text.translate(_UNWANTED) + "\n")


def progress(text: str) -> None:
    """Show the reason for a long wait on a terminal, replacing the previous one; an empty text clears it."""
    if sys.stderr is not None and sys.stderr.isatty():
        _write(sys.stderr, f"\r\x1b[K{text.translate(_UNWANTED)}")


def drop_output() -> None:
    """Discard unwritable output: Python would fail at exit when it tries to write it again."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


# --- Errors --------------------------------------------------------------------------------------------------------

MAX_ADVICE_CHARS = 600
"""The longest error line: a gateway's error may be a whole page."""

MIN_SECRET_CHARS = 8
"""A shorter key is a word such as "any" or "demo", which also occurs in ordinary text."""

_SECRETS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "RAWSSE_TOKEN")


class Asked(NamedTuple):
    """The model and address of the request, and the option that changes the model."""

    model: str = ""
    base_url: str = ""
    """The address of the API; empty if it is the default."""
    model_option: str = "--model"
    environ: Mapping[str, str] = os.environ


def complain(problem: Exception | str, asked: Asked | None = None) -> None:
    """Write the problem to standard error, in one line."""
    say(f"rawsse: {problem if isinstance(problem, str) else advise(problem, asked)}")


def advise(error: Exception, asked: Asked | None = None) -> str:
    """The error in one line, with the option or variable that may fix it. Keys are removed, even if the server quoted one."""
    asked = asked or Asked()
    return one_line(_words(error, asked), asked.environ)


def one_line(text: str, environ: Mapping[str, str]) -> str:
    """`text` without line ends or the environment's keys, and bounded."""
    for name in _SECRETS:
        secret = environ.get(name, "").strip()
        text = text.replace(secret, f"[{name}]") if len(secret) >= MIN_SECRET_CHARS else text
    line = " ".join(text.split())
    return line if len(line) <= MAX_ADVICE_CHARS else f"{line[:MAX_ADVICE_CHARS]}…"


def _words(error: Exception, asked: Asked) -> str:
    if isinstance(error, OSError):
        words = error.strerror or str(error) or type(error).__name__
        return f"{error.filename}: {words}" if error.filename and error.strerror else words
    if not isinstance(error, APIError):
        return str(error)
    tried = f" ({error.retries_taken + 1} attempts)" if error.retries_taken else ""
    words = _refusal(error, asked, tried) if isinstance(error, APIStatusError) else _failure(error, asked, tried)
    return f"the answer is incomplete: {words}" if error.phase == "content" else words


def _refusal(error: APIStatusError, asked: Asked, tried: str) -> str:
    message, advice = error.message, ""
    if isinstance(error, AuthenticationError):
        names = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")  # the first one that is set is used
        key = next((name for name in names if asked.environ.get(name, "").strip()), names[0])
        advice = f"the API does not accept the key: set {key} to one that it does"
    elif isinstance(error, NotFoundError):
        advice = _not_found(error, asked)
    elif error.may_heal:
        when = f"in {error.retry_after:.0f} s" if error.retry_after and error.retry_after >= 1 else "later"
        message += f"{tried}: try again {when}"
    request = [f"request {error.request_id}"] if error.request_id else []
    said = ", ".join([message, *request] if advice else request)
    return f"{advice or message} [{said}]" if said else message


def _not_found(error: NotFoundError, asked: Asked) -> str:
    said = error.api_message or ""
    if error.type == "not_found_error" and asked.model and (asked.model in said or "model" in said.lower()):
        return f"there is no model {quote(asked.model)}: name another with {asked.model_option}"
    where = asked.base_url or "that address"
    return f"there is no Messages API at {where}: is the base URL right (--base-url, ANTHROPIC_BASE_URL)?"


def _failure(error: APIError, asked: Asked, tried: str) -> str:
    words = f"{error.message}{tried}"
    if isinstance(error, ProxyError):  # it names the variable
        return words
    if isinstance(error, APIConnectionError) and error.phase == "connect" and not isinstance(error, CertificateError):
        if asked.base_url:
            return f"{words}; check that address (--base-url, ANTHROPIC_BASE_URL), and the network"
        return f"{words}; check the network, and HTTPS_PROXY if there is no way but through a proxy"
    return words


# --- Reading -------------------------------------------------------------------------------------------------------


def is_typed() -> bool:
    """Whether standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def begin_editing() -> None:
    """Enable line editing, with history (Up) that is not saved."""
    with contextlib.suppress(ImportError):  # not needed on Windows
        import readline

        if "libedit" not in (readline.__doc__ or ""):
            # A pasted text of several lines is then one question, not one per line.
            readline.parse_and_bind("set enable-bracketed-paste on")


def read_line(prompt: str) -> str:
    """The next line of standard input, without its line end. The prompt is shown only at a terminal.

    Raises `EOFError` at the end, `KeyboardInterrupt` at Ctrl-C, and `ConfigurationError` for bytes that are not text.
    """
    with must_be_text("the line"):
        if is_typed():
            if not sys.stdout.isatty():
                _write(sys.stderr, prompt)
                prompt = ""
            line = input(prompt)
        elif not (line := sys.stdin.readline() if sys.stdin is not None else ""):
            raise EOFError
        line.encode()
    return line.rstrip("\r\n")


def read_all(what: str) -> str:
    """All of standard input. Raises `ConfigurationError` for bytes that are not text."""
    if sys.stdin is None:
        return ""
    if is_typed():
        say(f"rawsse: type {what}, then Ctrl-D on an empty line")
    with must_be_text(what):
        return sys.stdin.read()


@contextlib.contextmanager
def must_be_text(what: str) -> Iterator[None]:
    """Raises `ConfigurationError` for bytes that are not text. Python decodes some of these to surrogates, which `encode`
    rejects."""
    try:
        yield
    except UnicodeError as exc:
        encoding = str(getattr(exc, "encoding", "utf-8"))
        raise ConfigurationError(f"{what} is not {encoding.upper()} text") from None


# --- Ctrl-C --------------------------------------------------------------------------------------------------------


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, in an event loop of `new_runner`. Raises `KeyboardInterrupt` at Ctrl-C, as `asyncio.run`."""
    with new_runner() as runner:
        return runner.run(work)


def new_runner(loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> asyncio.Runner:
    """A runner whose event loop is woken by each signal. The caller closes it.

    asyncio does that only for a loop that handles a signal. Another one does not see a Ctrl-C that comes just before it waits
    until something else wakes it, such as the API's next bytes (CPython 3.11 to 3.13).
    """
    runner = asyncio.Runner(loop_factory=loop_factory)
    if sys.platform != "win32":
        runner.get_loop().add_signal_handler(signal.SIGWINCH, int)
    return runner
