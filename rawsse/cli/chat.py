"""Several questions and their answers in a terminal or a pipe: `rawsse chat`.

This file knows the chat's lines: which is a question, which a command, and what each does. It refuses to know how an answer
comes, and what becomes of the history when one breaks off (`client/conversation.py`).

    run_chat(client, {"system": "Be brief."})      # until the end of standard input, /quit, or Ctrl-C with nothing typed

Lines are read while no event loop runs, so that Ctrl-C there is Python's own; during an answer it is asyncio's, and cancels
that answer alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rawsse.cli.advice import Asked
from rawsse.cli.ask import DEFAULT_MAX_TOKENS, DEFAULT_MODEL, print_text, usage_line
from rawsse.cli.terminal import begin_editing, complain, has_typed, is_typed, read_line, say
from rawsse.errors import APIError, ConfigurationError, RawsseError, quote

if TYPE_CHECKING:
    from rawsse.client.client import AsyncClient
    from rawsse.client.tools import Conversation, Reply
    from rawsse.messages import Message

WELCOME = "chat with {model}{after}: Ctrl-C stops an answer, Ctrl-D leaves, /help has the rest"


# --- Lines ---------------------------------------------------------------------------------------------------------


class Command(NamedTuple):
    """A line that is no question."""

    name: str
    argument: str


class _Use(NamedTuple):
    argument: str  # "" none; in brackets: it may be left out
    does: str


COMMANDS: Mapping[str, _Use] = {
    "help": _Use("", "this list"),
    "multi": _Use("", "a question of several lines, up to a line that is a single ."),
    "retry": _Use("", "ask the last question again, in place of what came of it"),
    "reset": _Use("", "begin anew: what was said is forgotten, model and system prompt stay"),
    "model": _Use("[NAME]", "the model for the questions to come; alone: which it is"),
    "system": _Use("[TEXT]", "the system prompt; alone: what it is; - for none"),
    "usage": _Use("", "what the chat has cost so far"),
    "save": _Use("[FILE]", "keep the conversation in a file; alone: in that of --save"),
    "load": _Use("FILE", "go on with a conversation that was saved"),
    "quit": _Use("", "leave, as Ctrl-D does"),
}


def parse_line(line: str) -> Command | str:
    """The command in a line, or the question. `//` begins a question that begins with `/`.

    Raises `ConfigurationError` for a command that there is not, or that is not used in this way.
    """
    text = line.strip()
    if not text.startswith("/") or text.startswith("//"):
        return text[1:] if text.startswith("//") else line.strip()
    name, _, argument = text[1:].partition(" ")
    use = COMMANDS.get(name)
    if use is None:
        known = "/help lists the commands; a question that begins with / is written with //"
        raise ConfigurationError(f"there is no {quote('/' + name)}: {known}")
    if argument and not use.argument:
        raise ConfigurationError(f"/{name} takes nothing after it")
    if not argument and use.argument and not use.argument.startswith("["):
        raise ConfigurationError(f"say /{name} {use.argument}")
    return Command(name, argument.strip())


def _help() -> str:
    left = {name: f"/{name} {use.argument}".strip() for name, use in COMMANDS.items()}
    return "\n".join(f"  {left[name]:<14} {use.does}" for name, use in COMMANDS.items())


# --- Files ---------------------------------------------------------------------------------------------------------


def load(client: AsyncClient, path: Path, **fields: Any) -> Conversation:
    """The conversation in a file; `fields` replace its own. Raises `ConfigurationError` if it is none, and `OSError`."""
    from rawsse.client.tools import Conversation

    text = path.read_bytes()
    try:
        return Conversation.from_json(client, text, **fields)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{path}: {exc}") from None


def save(conversation: Conversation, path: Path) -> None:
    """Write the conversation into a file that only its owner can read: whole, or not at all. Raises `OSError`."""
    real = os.path.realpath(path)  # what a link leads to, not the link
    data = conversation.to_json(indent=1).encode()
    try:
        number, beside = tempfile.mkstemp(dir=os.path.dirname(real), prefix=f".{path.name}.")
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, str(path)) from None  # and not of a file that nobody has named
    try:
        with open(number, "wb") as file:
            file.write(data + b"\n")
        os.replace(beside, real)
    except BaseException:
        os.unlink(beside)
        raise


# --- The chat ------------------------------------------------------------------------------------------------------


def run_chat(
    client: AsyncClient,
    fields: Mapping[str, Any],
    *,
    load_from: Path | None = None,
    save_to: Path | None = None,
    asked: Asked | None = None,
) -> bool:
    """Chat until there are no more lines, and close the client. False if something failed on the way.

    `fields` (`model`, `max_tokens`, `system`) that are None are those of the conversation in `load_from`, or the usual ones.
    For `save_to` see `Chat`. Raises what is wrong with the files, and `KeyboardInterrupt`.
    """
    from rawsse.client.tools import Conversation

    given = {name: value for name, value in fields.items() if value is not None}
    if load_from is not None:
        conversation = load(client, load_from, **given)
    else:
        conversation = Conversation(client, **{"model": DEFAULT_MODEL, "max_tokens": DEFAULT_MAX_TOKENS, **given})
    with asyncio.Runner() as runner:
        chat = Chat(runner, client, conversation, loaded=load_from, save_to=save_to, asked=asked)
        try:
            chat.run()
        finally:
            runner.run(client.aclose())
    return not chat.has_failed


class Chat:
    """Reads lines and does what they say. `has_failed`: an answer did not come whole, or a command could not be done."""

    def __init__(
        self,
        runner: asyncio.Runner,
        client: AsyncClient,
        conversation: Conversation,
        *,
        loaded: Path | None = None,
        save_to: Path | None = None,
        asked: Asked | None = None,
    ) -> None:
        """`loaded` is the file that the conversation is from, `save_to` the one that it is saved in after each answer.

        Raises `ConfigurationError` if that is another one, and there already.
        """
        self.has_failed = False
        self._runner = runner
        self._client = client
        self._files = {os.path.realpath(loaded)} if loaded is not None else set()  # that may be written over
        self._save_to = self._own(save_to) if save_to is not None else None
        self._asked = asked or Asked()
        self._is_typed = is_typed()
        self._has_just_stopped = False  # an answer: whoever pressed Ctrl-C twice for that does not want to leave
        self._questions = self._tokens_in = self._tokens_out = 0
        self._is_exact = True
        self._adopt(conversation)

    def run(self) -> None:
        """Until the lines end. Raises `KeyboardInterrupt` at a second Ctrl-C while an answer is being stopped, and, if the
        lines are not typed by a person, at the first."""
        if self._is_typed:
            begin_editing()
            asked = len(self._conversation.turns)
            say(WELCOME.format(model=self._model, after=f", after {_count(asked, 'question')}" if asked else ""))
        try:
            while (line := self._next_line()) is not None and self._take(line):
                pass
        finally:
            if self._questions:
                say(self._total())

    # Lines ---------------------------------------------------------------------------------------------------------

    def _next_line(self) -> str | None:
        """The next line; None when there is none, or whoever types wants to leave."""
        while True:
            try:
                return self._read("you> ")
            except EOFError:
                return None
            except KeyboardInterrupt:
                if not self._is_typed:
                    raise
                if not self._is_forgiven():
                    return None

    def _read(self, prompt: str) -> str:
        try:
            line = read_line(prompt)
        except (EOFError, KeyboardInterrupt):
            self._end_line()
            raise
        self._has_just_stopped = False
        return line

    def _is_forgiven(self) -> bool:
        """Ctrl-C here does not leave, but drops what was typed."""
        if has_typed():
            return True
        if self._has_just_stopped:
            self._has_just_stopped = False
            say("(Ctrl-C once more leaves)")
            return True
        return False

    def _end_line(self) -> None:
        if self._is_typed:
            say("")

    def _take(self, line: str) -> bool:
        """Do what a line says. False: leave."""
        try:
            wish = parse_line(line)
            if isinstance(wish, Command):
                return self._obey(wish)
            if wish:
                self._answer(self._conversation.stream(wish))
        except BrokenPipeError:
            raise
        except (RawsseError, OSError) as exc:
            self._complain(exc)
        return True

    def _complain(self, problem: Exception | str) -> None:
        self.has_failed = True
        complain(problem, self._asked._replace(model=self._model, model_option="/model", environ=os.environ))
        if self._is_typed and isinstance(problem, APIError) and problem.may_heal:
            say("[/retry asks again]")
        self._end_line()

    # Answers -------------------------------------------------------------------------------------------------------

    def _answer(self, reply: Reply) -> None:
        """Show the answer as it comes, and what it cost. Raises `APIError`."""
        before = self._conversation.usage
        message: Message | None = None
        try:
            message = self._runner.run(_show(reply))
        finally:
            self._count(before)
            self._keep()
        if message is None and not self._is_typed:
            raise KeyboardInterrupt
        self._has_just_stopped = message is None
        say("[stopped]" if message is None else usage_line(message), over=message is None)
        if message is not None and self._conversation.turns[-1].state == "refused":
            say("[the model refuses to answer: the question is not kept]")
        self._end_line()

    def _count(self, before: Any) -> None:
        after = self._conversation.usage
        self._questions += 1
        self._tokens_in += after.total_input_tokens - before.total_input_tokens
        self._tokens_out += after.output_tokens - before.output_tokens
        self._is_exact = self._is_exact and after.exact

    def _total(self) -> str:
        at_least = "" if self._is_exact else "at least "
        return f"[{_count(self._questions, 'question')}, {at_least}{self._tokens_in} tokens in, {self._tokens_out} out]"

    def _keep(self) -> None:
        if self._save_to is None:
            return
        try:
            save(self._conversation, self._save_to)
        except (RawsseError, OSError) as exc:
            self._complain(exc)

    # Commands ------------------------------------------------------------------------------------------------------

    def _obey(self, command: Command) -> bool:
        """Do what a command says. False: leave."""
        argument = command.argument
        match command.name:
            case "quit":
                return False
            case "help":
                say(_help() + "\n")
            case "usage":
                say(self._total())
            case "retry":
                self._retry()
            case "multi":
                self._take_several()
            case "reset":
                self._reset()
            case "save":
                self._save(argument)
            case "load":
                self._load(Path(argument).expanduser())
            case _:
                self._set(command.name, argument)
        return True

    def _retry(self) -> None:
        if not self._conversation.turns:
            raise ConfigurationError("nothing has been asked that could be asked again")
        self._answer(self._conversation.retry())

    def _take_several(self) -> None:
        lines: list[str] = []
        try:
            while (line := self._read("...> ")) != ".":
                lines.append(line)
        except EOFError:
            pass
        except KeyboardInterrupt:
            if self._is_typed:
                return  # without a question
            raise
        self._answer(self._conversation.stream("\n".join(lines)))

    def _reset(self) -> None:
        saved = json.loads(self._conversation.to_json())
        self._adopt_saved({**saved, "messages": [], "turns": [], "replaced": []})
        say("[begun anew]")

    def _load(self, path: Path) -> None:
        self._adopt(load(self._client, path))
        self._files.add(os.path.realpath(path))
        say(f"[{path}: {_count(len(self._conversation.turns), 'question')}; the model is {self._model}]")

    def _save(self, argument: str) -> None:
        path = Path(argument).expanduser() if argument else self._save_to
        if path is None:
            raise ConfigurationError("say /save FILE")
        save(self._conversation, self._own(path))
        say(f"[saved in {path}]")

    def _own(self, path: Path) -> Path:
        """The file, which is the chat's own from now on. Raises `ConfigurationError` if it is there, and is not."""
        real = os.path.realpath(path)
        if os.path.lexists(real) and real not in self._files:
            raise ConfigurationError(f"{path} is there already: load it to go on with it, or take another name")
        self._files.add(real)
        return path

    def _set(self, field: str, value: str) -> None:
        """Set the model or the system prompt, or show it."""
        if value:
            saved = json.loads(self._conversation.to_json())
            self._adopt_saved(saved, **{field: None if field == "system" and value == "-" else value})
        now = self._fields.get(field)
        say(f"[{field}: {now if isinstance(now, str) else json.dumps(now) if now else 'none'}]")

    def _adopt_saved(self, saved: Mapping[str, Any], **fields: Any) -> None:
        from rawsse.client.tools import Conversation

        self._adopt(Conversation.from_json(self._client, json.dumps(saved), **fields))

    def _adopt(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._fields: Mapping[str, Any] = json.loads(conversation.to_json())["fields"]
        self._model = str(self._fields["model"])


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
