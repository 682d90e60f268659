"""`rawsse ask`: one question, one answer, in a terminal or a pipe.

ask(new_client(None), read_prompt(["Sum", "up:", "-"]), model=…, max_tokens=…)
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
    from rawsse.client.client import AsyncClient
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
    prompt = read_prompt(arguments.prompt)
    options = {"model": arguments.model, "max_tokens": arguments.max_tokens, "system": arguments.system}
    ask(client, prompt, as_json=arguments.json, **options)
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


def ask(
    client: AsyncClient, prompt: str, *, model: str, max_tokens: int, system: str | None = None, as_json: bool = False
) -> None:
    """Ask, show the answer as it arrives (as JSON: when it is whole), and its cost. Closes the client."""

    async def run() -> Message:
        messages = [{"role": "user", "content": prompt}]
        call = client.messages.stream(model=model, max_tokens=max_tokens, messages=messages, system=system)
        async with client, call as stream:
            if not as_json:
                await print_text(stream.text_stream)
            return await stream.get_final_message()

    message = asyncio.run(run())
    if as_json:
        show(message.to_json(indent=None))
    say(usage_line(message))


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
