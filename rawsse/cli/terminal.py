"""Showing text to a person, and reading what the person types.

    show("The answer is ", end="")          # to standard output, at once
    say("[28 tokens in, 217 out]")          # to standard error
    line = read_line("you> ")               # with a prompt if a person types it; raises EOFError at the end

Answers go to standard output, everything else to standard error.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TextIO

from rawsse.cli.advice import Asked, advise
from rawsse.errors import ConfigurationError

# A terminal obeys some characters instead of showing them, and an answer is not trusted.
_CONTROLS: Mapping[int, str] = {
    code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
}
# Marks of direction, and characters without a width, reorder or hide what stands around them: an error is then read as another.
# Answers keep them, since some scripts need them.
_MARKS = (0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF)
_MORE_MARKS = (*range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080))  # annotations, tags
_CONTROLS_AND_MARKS: Mapping[int, str] = {
    **_CONTROLS,
    **dict.fromkeys((*_MARKS, *_MORE_MARKS), "\N{REPLACEMENT CHARACTER}"),
}


# --- Showing -------------------------------------------------------------------------------------------------------


def fill_closed_descriptors() -> None:
    """No socket or file may get the number of a stream that the shell has closed (`>&-`): uvloop aborts where one does."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one


def let_every_character_be_printed() -> None:
    """An answer may hold what the terminal's encoding does not: then `?` is better than no answer."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def show(text: str, end: str = "\n") -> None:
    """To standard output at once; as it is, unless that is a terminal."""
    write((text.translate(_CONTROLS) if sys.stdout is not None and sys.stdout.isatty() else text) + end)


def write(text: str) -> None:
    """To standard output at once, whatever a terminal would obey. Raises `OSError`."""
    if sys.stdout is None:  # as Python has it where the shell closed it: `>&-`
        raise OSError(errno.EBADF, "standard output is closed")
    _write(sys.stdout, text)


def say(text: str, *, over: bool = False) -> None:
    """A line to standard error; with `over` in place of what the terminal shows of Ctrl-C."""
    if sys.stderr is not None:
        _write(sys.stderr, ("\r" if over else "") + text.translate(_CONTROLS_AND_MARKS) + "\n")


def complain(problem: Exception | str, asked: Asked | None = None) -> None:
    """The problem, in one line to standard error."""
    asked = asked or Asked(environ=os.environ)
    say(f"rawsse: {problem if isinstance(problem, str) else advise(problem, asked)}")


def drop_output() -> None:
    """Python must not try again at its end to write to a reader that has gone, or to a disk that is full."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


# --- Reading -------------------------------------------------------------------------------------------------------


def is_typed() -> bool:
    """Standard input is a terminal: a person types it."""
    return sys.stdin is not None and sys.stdin.isatty()


def begin_editing() -> None:
    """From now on a line that is typed can be edited, and Up brings the one before it. They are kept nowhere."""
    with contextlib.suppress(ImportError):  # Windows edits lines by itself
        import readline

        if "libedit" not in (readline.__doc__ or ""):
            # A text of several lines that is pasted is one question then, and not one for each line.
            readline.parse_and_bind("set enable-bracketed-paste on")


def has_typed() -> bool:
    """Something stands in the line that Ctrl-C has just ended."""
    readline = sys.modules.get("readline")
    return bool(readline and readline.get_line_buffer())


def read_line(prompt: str) -> str:
    """The next line of standard input, without its end; the prompt is for a person only.

    Raises `EOFError` at the end, `KeyboardInterrupt` at Ctrl-C, and `ConfigurationError` for bytes that are not text.
    """
    with _must_be_text("the line"):
        if not is_typed():
            line = sys.stdin.readline() if sys.stdin is not None else ""
            if not line:
                raise EOFError
            return check_text(line.rstrip("\r\n"), "the line")
        if sys.stdout.isatty():
            return check_text(input(prompt), "the line")
        _write(sys.stderr, prompt)
        return check_text(input(), "the line")


def read_all(what: str) -> str:
    """All of standard input. Raises `ConfigurationError` for bytes that are not text."""
    if sys.stdin is None:
        return ""
    if is_typed():
        say(f"rawsse: type {what}, then Ctrl-D on a line of its own")
    with _must_be_text(what):
        return sys.stdin.read()


def check_text(text: str, what: str) -> str:
    """`text`. Raises `ConfigurationError` if it is not text: Python keeps bytes that are not characters as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{what} is not UTF-8 text") from None
    return text


@contextlib.contextmanager
def _must_be_text(what: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{what} is not {exc.encoding.upper()} text") from None
