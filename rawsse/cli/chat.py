"""`rawsse chat`: questions and answers in turn, in a terminal or a pipe.

A line is a question, or a command that begins with `/`. The chat goes on to the end of standard input, `/quit`, or Ctrl-C on
an empty line. Lines are read while no event loop runs, so that Ctrl-C there is Python's own; during an answer it is
asyncio's, and cancels only that answer.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawsse.cli.ask import print_text, usage_line
from rawsse.cli.options import (
    DEFAULT_MAX_TOKENS,
    DEFAULT_MODEL,
    FILE,
    add_command,
    add_upstream,
    asked_of,
    new_client,
)
from rawsse.cli.terminal import Asked, begin_editing, complain, has_typed, is_typed, read_line, say
from rawsse.errors import APIError, ConfigurationError, RawsseError, quote

if TYPE_CHECKING:
    from rawsse.client.client import AsyncClient
    from rawsse.client.tools import Conversation, Reply
    from rawsse.messages import Message

WELCOME = "Ctrl-C stops an answer, Ctrl-D leaves, /help has the rest"

COMMANDS: Mapping[str, tuple[str, str]] = {
    "help": ("", "this list"),
    "retry": ("", "ask the last question again, in place of its answer"),
    "reset": ("", "forget the questions and answers; model and system prompt stay"),
    "model": ("[NAME]", "the model for the next questions; alone: show it"),
    "system": ("[TEXT]", "the system prompt; alone: show it; - removes it"),
    "usage": ("", "the cost of the conversation so far"),
    "save": ("FILE", "save the conversation in a file"),
    "load": ("FILE", "continue a saved conversation"),
    "quit": ("", "leave, as Ctrl-D does"),
}
"""The argument of each (in brackets: it may be left out), and its help."""


def parse_line(line: str) -> tuple[str, str]:
    """The command in a line and its argument; of a question "ask" and the question. `//` begins a question that begins with
    `/`.

    Raises `ConfigurationError` for an unknown command, and for a wrong argument.
    """
    text = line.strip()
    if not text.startswith("/") or text.startswith("//"):
        return "ask", text[1:] if text.startswith("//") else text
    name, _, argument = text[1:].partition(" ")
    if name not in COMMANDS:
        known = "/help lists the commands; a question that begins with / is written with //"
        raise ConfigurationError(f"there is no {quote('/' + name)}: {known}")
    wanted, _ = COMMANDS[name]
    if argument and not wanted:
        raise ConfigurationError(f"/{name} takes nothing after it")
    if not argument and wanted and not wanted.startswith("["):
        raise ConfigurationError(f"say /{name} {wanted}")
    return name, argument.strip()


def add_chat(commands: Any) -> None:
    """The arguments of `rawsse chat`."""
    more = "From a pipe, each line is a question. Nothing is saved without --save or /save."
    parser = add_command(commands, _chat, "chat", "ask, and ask again, in the terminal", more)
    parser.add_argument("-s", "--system", help="the system prompt")
    parser.add_argument("--load", **FILE, help="continue a saved conversation")
    parser.add_argument("--save", **FILE, help="save the conversation there after each answer")
    add_upstream(parser, "as it was saved, or else ")
    parser.set_defaults(model=None, max_tokens=None)


def _chat(arguments: argparse.Namespace) -> bool:
    client = new_client(arguments.base_url)
    given = {name: getattr(arguments, name) for name in ("model", "max_tokens", "system")}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.load is not None:
        conversation, files = load(client, arguments.load, **given), {os.path.realpath(arguments.load)}
    else:
        usual = {"model": DEFAULT_MODEL, "max_tokens": DEFAULT_MAX_TOKENS}
        conversation, files = client.conversation(**{**usual, **given}), set()
    with asyncio.Runner() as runner:
        chat = Chat(runner, client, conversation, arguments.save, asked_of(arguments), files)
        try:
            if arguments.save is not None:
                chat.own(arguments.save)
            chat.run()
        finally:
            runner.run(client.aclose())
    # A person has seen what failed, and has asked again or not. A script has not.
    return not chat.has_failed or is_typed()


def load(client: AsyncClient, path: Path, **fields: Any) -> Conversation:
    """The conversation in a file; `fields` replace its own. Raises `ConfigurationError` and `OSError`."""
    from rawsse.client.tools import Conversation

    text = path.read_bytes()
    try:
        return Conversation.from_json(client, text, **fields)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{path}: {exc}") from None


def save(conversation: Conversation, path: Path) -> None:
    """Write the conversation into a file that only its owner can read: whole, or not at all. Raises `OSError`."""
    import tempfile

    real = os.path.realpath(path)  # the file that a link leads to, not the link
    if not os.path.isdir(os.path.dirname(real)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    with tempfile.TemporaryDirectory(prefix=".", dir=os.path.dirname(real)) as folder:
        written = Path(folder, "conversation")
        written.touch(0o600)
        written.write_bytes(conversation.to_json(indent=1).encode() + b"\n")
        os.replace(written, real)


@dataclass
class Chat:
    """Reads lines and does what they ask for."""

    runner: asyncio.Runner
    client: AsyncClient
    conversation: Conversation
    save_to: Path | None
    asked: Asked
    files: set[str]
    """The files that may be overwritten: the conversation was loaded from them, or saved in them."""
    has_failed: bool = False
    """An answer did not arrive whole, or a command failed."""
    has_just_stopped: bool = False
    """An answer was stopped by Ctrl-C: a second one does not mean to leave."""

    def run(self) -> None:
        """Read lines to their end. Raises `KeyboardInterrupt` at a second Ctrl-C while an answer is being stopped, and, if the
        lines are not typed by a person, at the first."""
        if is_typed():
            begin_editing()
            say(f"chat with {self.conversation.fields['model']}: {WELCOME}")
        try:
            while (line := self._next_line()) is not None and self._take(line):
                pass
        finally:
            if self.conversation.usage.turns:
                say(self._total())

    def _next_line(self) -> str | None:
        """The next line; None if there is none, or the user wants to leave."""
        while True:
            try:
                return read_line("you> ")
            except EOFError:
                self._end_line()
                return None
            except KeyboardInterrupt:
                self._end_line()
                if not is_typed():
                    raise
                if not has_typed():  # else it drops the line
                    if not self.has_just_stopped:
                        return None
                    say("(Ctrl-C once more leaves)")
            finally:
                self.has_just_stopped = False

    def _end_line(self) -> None:
        if is_typed():
            say("")

    def _take(self, line: str) -> bool:
        """Do what a line asks for. False: leave."""
        try:
            command, argument = parse_line(line)
            if command == "quit":
                return False
            self._do(command, argument)
        except BrokenPipeError:
            raise
        except (RawsseError, OSError) as exc:
            self._complain(exc)
        return True

    def _complain(self, problem: Exception) -> None:
        self.has_failed = True
        model = str(self.conversation.fields["model"])
        complain(problem, self.asked._replace(model=model, model_option="/model"))
        if is_typed() and isinstance(problem, APIError) and problem.may_heal:
            say("[/retry asks again]")
        self._end_line()

    def _do(self, command: str, argument: str) -> None:
        path = Path(argument).expanduser()
        match command:
            case "ask" if argument:
                self._answer(self.conversation.stream(argument))
            case "help":
                for name, (wanted, does) in COMMANDS.items():
                    say(f"  {f'/{name} {wanted}':<14} {does}")
            case "usage":
                say(self._total())
            case "retry":
                if not self.conversation.turns:
                    raise ConfigurationError("nothing has been asked that could be asked again")
                self._answer(self.conversation.retry())
            case "reset":
                self.conversation.reset()
                say("[forgotten]")
            case "save":
                save(self.conversation, self.own(path))
                say(f"[saved in {argument}]")
            case "load":
                self.conversation = load(self.client, path)
                self.files.add(os.path.realpath(path))
                asked = _count(len(self.conversation.turns), "question")
                say(f"[{argument}: {asked}; the model is {self.conversation.fields['model']}]")
            case "model" | "system":
                if argument:
                    self.conversation.fields[command] = None if (command, argument) == ("system", "-") else argument
                now = self.conversation.fields.get(command)
                say(f"[{command}: {now if isinstance(now, str) else json.dumps(now) if now else 'none'}]")

    def _answer(self, reply: Reply) -> None:
        """Show the answer as it comes, and its cost. Raises `APIError`."""
        message: Message | None = None
        try:
            message = self.runner.run(_show(reply))
        finally:
            if self.save_to is not None:
                try:
                    save(self.conversation, self.save_to)
                except (RawsseError, OSError) as exc:
                    self._complain(exc)
        if message is None and not is_typed():
            raise KeyboardInterrupt
        self.has_just_stopped = message is None
        say("[stopped]" if message is None else usage_line(message), over=message is None)
        if message is not None and self.conversation.turns[-1].state == "refused":
            say("[the model refuses to answer: the question is not kept]")
        self._end_line()

    def _total(self) -> str:
        usage = self.conversation.usage
        tokens = f"{usage.total_input_tokens} tokens in, {usage.output_tokens} out"
        return f"[{_count(len(usage.turns), 'question')}, {'' if usage.exact else 'at least '}{tokens}]"

    def own(self, path: Path) -> Path:
        """The file, which may be overwritten from now on. Raises `ConfigurationError` if it exists and is not the chat's."""
        real = os.path.realpath(path)
        if os.path.lexists(real) and real not in self.files:
            raise ConfigurationError(f"{path} is there already: load it to go on with it, or take another name")
        self.files.add(real)
        return path


async def _show(reply: Reply) -> Message | None:
    """The answer, shown as it comes; None if Ctrl-C has stopped it."""
    try:
        async with reply:
            await print_text(reply.text_stream)
            return await reply.get_final_message()
    except asyncio.CancelledError:
        return None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
