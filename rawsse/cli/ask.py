"""`rawsse ask`: one question, one answer, in a terminal or a pipe.

await print_text(stream.text_stream)     # to standard output, as it arrives
say(usage_line(message))                 # "[claude-sonnet-4-5, 28 tokens in, 217 out, end_turn]"
"""

from __future__ import annotations

import argparse
import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from rawsse.cli.options import add_command, add_upstream, new_client
from rawsse.cli.terminal import is_typed, must_be_text, read_all, say, show
from rawsse.errors import ConfigurationError

if TYPE_CHECKING:
    from rawsse.messages import Message


def add_ask(commands: Any) -> None:
    """The arguments of `rawsse ask`."""
    more = "The answer goes to standard output; model, tokens and stop reason to standard error. Ctrl-C stops it."
    parser = add_command(commands, _ask, "ask", "stream one answer to the terminal", more)
    prompt = "the prompt; standard input replaces -, or else follows it, unless it is a terminal"
    parser.add_argument("prompt", nargs="*", metavar="PROMPT", help=prompt)
    parser.add_argument("-s", "--system", help="the system prompt")
    parser.add_argument("--json", action="store_true", help="print the whole message as JSON instead of its text")
    add_upstream(parser)


def _ask(arguments: argparse.Namespace) -> bool:
    client = new_client(arguments.base_url)
    # Before asyncio runs: it would take the first Ctrl-C for itself, and reading would go on.
    messages = [{"role": "user", "content": read_prompt(arguments.prompt)}]
    options: dict[str, Any] = {name: getattr(arguments, name) for name in ("model", "max_tokens", "system")}

    async def run() -> Message:
        async with client, client.messages.stream(messages=messages, **options) as stream:
            if not arguments.json:
                await print_text(stream.text_stream)
            return await stream.get_final_message()

    message = asyncio.run(run())
    if arguments.json:
        show(message.to_json(indent=None))
    say(usage_line(message))
    return True


def read_prompt(words: Sequence[str]) -> str:
    """The words as one prompt, with standard input in place of `-`, or else behind them unless it is a terminal.

    Raises `ConfigurationError` for an empty prompt, and one that is not text.
    """
    prompt = " ".join(read_all("the prompt") if word == "-" else word for word in words or ["-"])
    if words and "-" not in words and not is_typed():
        try:
            prompt = "\n\n".join(filter(str.strip, (prompt, read_all("the prompt"))))
        except OSError as exc:
            if exc.errno not in (None, errno.EBADF):
                raise  # else it cannot be read at all, as under `nohup`: nothing was sent
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
    """The cost of the answer, and why it stopped."""
    usage = message.usage
    counts = f"{usage.total_input_tokens} tokens in, {usage.get('output_tokens', 0)} out"
    more = ": more room by --max-tokens" if message.stop_reason == "max_tokens" else ""
    return f"[{message.model}, {counts}, {message.stop_reason}{more}]"
