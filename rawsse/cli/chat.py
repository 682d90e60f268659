"""`rawsse chat`: questions and answers in turn, in a terminal or a pipe.

A line is a question, or a command that begins with `/`. The chat goes on to the end of standard input, `/quit`, or Ctrl-C on
an empty line. Lines are read while no event loop runs, so that Ctrl-C there is Python's own; during an answer it is
asyncio's, and cancels only that answer.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rawsse.cli.ask import print_text, usage_line
from rawsse.cli.options import add_command, add_upstream, asked_of, new_client
from rawsse.cli.terminal import Asked, begin_editing, complain, has_typed, is_typed, read_line, say
from rawsse.errors import APIError, ConfigurationError, RawsseError, quote

if TYPE_CHECKING:
    from rawsse.client.tools.conversation import Conversation, Reply
    from rawsse.messages import Message

WELCOME = "Ctrl-C stops an answer, Ctrl-D leaves, /help has the rest"

COMMANDS: Mapping[str, tuple[str, str]] = {
    "help": ("", "this list"),
    "retry": ("", "ask the last question again, in place of its answer"),
    "model": ("[NAME]", "the model for the next questions; alone: show it"),
    "system": ("[TEXT]", "the system prompt; alone: show it; - removes it"),
    "usage": ("", "the cost of the conversation so far"),
    "quit": ("", "leave, as Ctrl-D does"),
}
"""The argument of each, which may be left out, and its help."""


def parse_line(line: str) -> tuple[str, str]:
    """The command in a line and its argument; for a question, "ask" and the question. A question that begins with `/` is
    written with `//`. Raises `ConfigurationError` for an unknown command, and for an argument that it does not take."""
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
    return name, argument.strip()


def add_chat(commands: Any) -> None:
    """The arguments of `rawsse chat`."""
    more = "From a pipe, each line is a question. Nothing is saved."
    parser = add_command(commands, _chat, "chat", "ask, and ask again, in the terminal", more)
    parser.add_argument("-s", "--system", help="the system prompt")
    add_upstream(parser)


def _chat(arguments: argparse.Namespace) -> bool:
    client = new_client(arguments.base_url)
    fields = {name: getattr(arguments, name) for name in ("model", "max_tokens", "system")}
    with asyncio.Runner() as runner:
        chat = Chat(runner, client.conversation(**fields), asked_of(arguments))
        try:
            chat.run()
        finally:
            runner.run(client.aclose())
    # A person has seen what failed, and has asked again or not. A script has not.
    return not chat.has_failed or is_typed()


@dataclass
class Chat:
    """Reads lines and does what they ask for."""

    runner: asyncio.Runner
    conversation: Conversation
    asked: Asked
    has_failed: bool = False
    """An answer did not arrive whole, or a command failed."""
    has_just_stopped: bool = False
    """Ctrl-C has stopped an answer: the next one does not leave."""

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
                    raise ConfigurationError("there is no question to ask again")
                self._answer(self.conversation.retry())
            case "model" | "system":
                if argument:
                    self.conversation.fields[command] = None if (command, argument) == ("system", "-") else argument
                say(f"[{command}: {self.conversation.fields.get(command) or 'none'}]")

    def _answer(self, reply: Reply) -> None:
        """Show the answer as it arrives, and its cost. Raises `APIError`."""
        message = self.runner.run(_show(reply))
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


async def _show(reply: Reply) -> Message | None:
    """Show the answer as it arrives; None if Ctrl-C has stopped it."""
    try:
        async with reply:
            await print_text(reply.text_stream)
            return await reply.get_final_message()
    except asyncio.CancelledError:
        return None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
