"""`rawsse ask`: one question, one answer. `rawsse chat`: a conversation. Both work in a terminal or a pipe.

In a chat a line is a question, or a command that begins with `/`. The chat ends at the end of standard input (Ctrl-D), or
with `/quit`. Lines are read while no event loop runs, so Python handles Ctrl-C there; during an answer asyncio does, and
cancels only that answer.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rawsse.cli.options import UPSTREAM, add_command, add_options, asked_of, new_client
from rawsse.cli.terminal import (
    Asked,
    begin_editing,
    complain,
    is_typed,
    must_be_text,
    new_runner,
    read_all,
    read_line,
    run,
    say,
    show,
)
from rawsse.errors import APIError, ConfigurationError, RawsseError, quote

if TYPE_CHECKING:
    from rawsse.client.tools.conversation import Conversation, Reply
    from rawsse.messages import Message

WELCOME = "Ctrl-C stops an answer, Ctrl-D leaves, /help has the rest"

HELP = """\
/help           this list
/retry          ask the last question again, in place of its answer
/model [NAME]   the model for the next questions; alone: show it
/system [TEXT]  the system prompt; alone: show it; - removes it
/usage          the cost of the conversation so far
/quit           leave, as Ctrl-D does"""
"""The commands of a chat."""


# --- ask -----------------------------------------------------------------------------------------------------------


def add_ask(commands: Any) -> None:
    """The arguments of `rawsse ask`."""
    more = "The answer goes to standard output; model, tokens and stop reason to standard error. Ctrl-C stops it."
    parser = add_command(commands, _ask, "ask", "stream one answer to the terminal", more)
    prompt = "the prompt; standard input replaces -, or else follows it, unless it is a terminal"
    parser.add_argument("prompt", nargs="*", metavar="PROMPT", help=prompt)
    parser.add_argument("--json", action="store_true", help="print the whole message as JSON instead of its text")
    add_options(parser, *UPSTREAM)


def _ask(arguments: argparse.Namespace) -> None:
    client = new_client(arguments.base_url)
    # Before asyncio runs: it would handle the first Ctrl-C, and reading would continue.
    messages = [{"role": "user", "content": read_prompt(arguments.prompt)}]

    async def ask() -> Message:
        async with client, client.messages.stream(messages=messages, **_fields(arguments)) as stream:
            if not arguments.json:
                await print_text(stream.text_stream)
            return await stream.get_final_message()

    message = run(ask())
    if arguments.json:
        show(message.to_json(indent=None))
    say(usage_line(message))


def _fields(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("model", "max_tokens", "system")}


def read_prompt(words: Sequence[str]) -> str:
    """The words as one prompt, with standard input in place of `-` or, unless it is a terminal, after them.

    Raises `ConfigurationError` for a prompt that is empty or not text.
    """
    prompt = " ".join(read_all("the prompt") if word == "-" else word for word in words or ["-"])
    if words and "-" not in words and not is_typed():
        try:
            prompt = "\n\n".join(filter(str.strip, (prompt, read_all("the prompt"))))
        except OSError as exc:
            if exc.errno not in (None, errno.EBADF):
                raise  # else it is unreadable, as under `nohup`: treat it as empty
    if not prompt.strip():
        raise ConfigurationError("the prompt is empty")
    with must_be_text("the prompt"):
        prompt.encode()
    return prompt


async def print_text(texts: AsyncIterator[str]) -> None:
    """Show the pieces as they arrive, and end the last line, even after an error."""
    last = ""
    try:
        async for text in texts:
            show(text, end="")
            last = text or last
    finally:
        if last and not last.endswith("\n"):
            show("")


def usage_line(message: Message) -> str:
    """The cost of the answer and its stop reason."""
    usage = message.usage
    counts = f"{usage.total_input_tokens} tokens in, {usage.get('output_tokens', 0)} out"
    more = ": more room by --max-tokens" if message.stop_reason == "max_tokens" else ""
    return f"[{message.model}, {counts}, {message.stop_reason}{more}]"


# --- chat ----------------------------------------------------------------------------------------------------------


def add_chat(commands: Any) -> None:
    """The arguments of `rawsse chat`."""
    more = "From a pipe, each line is a question. Nothing is saved."
    parser = add_command(commands, _chat, "chat", "ask, and ask again, in the terminal", more)
    add_options(parser, *UPSTREAM)


def _chat(arguments: argparse.Namespace) -> bool:
    client = new_client(arguments.base_url)
    with new_runner() as runner:
        chat = Chat(runner, client.conversation(**_fields(arguments)), asked_of(arguments))
        try:
            chat.run()
        finally:
            runner.run(client.aclose())
    # A user has seen the failures; a script needs the exit code.
    return not chat.has_failed or is_typed()


@dataclass
class Chat:
    """Reads lines and executes them."""

    runner: asyncio.Runner
    conversation: Conversation
    asked: Asked
    has_failed: bool = False
    """Whether an answer was incomplete, or a command failed."""

    def run(self) -> None:
        """Read lines to their end. Raises `KeyboardInterrupt` at a second Ctrl-C while an answer is being stopped or, if
        standard input is not a terminal, at the first."""
        if is_typed():
            begin_editing()
            say(f"chat with {self.conversation.fields['model']}: {WELCOME}")
        try:
            while (line := self._next_line()) is not None and line != "/quit":
                self._take(line)
        finally:
            if self.conversation.usage.turns:
                say(self._total())

    def _next_line(self) -> str | None:
        """The next line, without surrounding spaces; None at the end. Ctrl-C discards the typed text."""
        while True:
            try:
                return read_line("you> ").strip()
            except EOFError:
                self._end_line()
                return None
            except KeyboardInterrupt:
                if not is_typed():
                    raise
                say("\n(Ctrl-D leaves)")

    def _end_line(self) -> None:
        if is_typed():
            say("")

    def _take(self, line: str) -> None:
        """Execute a line. A question that begins with `/` is written with `//`."""
        try:
            if line.startswith("/") and not line.startswith("//"):
                self._do(line)
            elif line:
                self._answer(self.conversation.stream(line.removeprefix("/")))
        except BrokenPipeError:
            raise
        except (RawsseError, OSError) as exc:
            self._complain(exc)

    def _complain(self, problem: Exception) -> None:
        self.has_failed = True
        model = str(self.conversation.fields["model"])
        complain(problem, self.asked._replace(model=model, model_option="/model"))
        if is_typed() and isinstance(problem, APIError) and problem.may_heal:
            say("[/retry asks again]")
        self._end_line()

    def _do(self, command: str) -> None:
        name, _, argument = command.partition(" ")
        match name, argument.strip():
            case "/help", "":
                say(HELP)
            case "/usage", "":
                say(self._total())
            case "/retry", "":
                if not self.conversation.turns:
                    raise ConfigurationError("there is no question to ask again")
                self._answer(self.conversation.retry())
            case "/model" | "/system", value:
                fields, field = self.conversation.fields, name[1:]
                if value:
                    fields[field] = None if (field, value) == ("system", "-") else value
                say(f"[{field}: {fields.get(field) or 'none'}]")
            case _:
                known = "/help lists the commands; a question that begins with / is written with //"
                raise ConfigurationError(f"there is no command {quote(command)}: {known}")

    def _answer(self, reply: Reply) -> None:
        """Show the answer as it arrives, and its cost. Raises `APIError`."""
        message = self.runner.run(_show(reply))
        if message is None and not is_typed():
            raise KeyboardInterrupt
        say("[stopped]" if message is None else usage_line(message), over=message is None)
        if message is not None and self.conversation.turns[-1].state == "refused":
            say("[the model refuses to answer: the question is not kept]")
        self._end_line()

    def _total(self) -> str:
        usage = self.conversation.usage
        tokens = f"{usage.total_input_tokens} tokens in, {usage.output_tokens} out"
        count = len(usage.turns)
        return f"[{count} question{'' if count == 1 else 's'}, {'' if usage.exact else 'at least '}{tokens}]"


async def _show(reply: Reply) -> Message | None:
    """Show the answer as it arrives; None if Ctrl-C has stopped it."""
    try:
        async with reply:
            await print_text(reply.text_stream)
            return await reply.get_final_message()
    except asyncio.CancelledError:
        return None
