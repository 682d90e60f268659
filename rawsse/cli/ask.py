"""One question, one answer, in a terminal or a pipe: `rawsse ask`.

message = ask(new_client(None), read_prompt(["Sum", "up:", "-"]), model=…, max_tokens=…)
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from rawsse.cli.terminal import check_text, is_typed, read_all, say, show
from rawsse.errors import ConfigurationError

if TYPE_CHECKING:
    from rawsse.client.client import AsyncClient
    from rawsse.messages import Message

DEFAULT_MODEL = "claude-sonnet-4-5"
DEFAULT_MAX_TOKENS = 4096

NO_KEY = (
    "no key: set ANTHROPIC_API_KEY in the environment, or in a file named .env in this folder "
    "(`rawsse demo` needs no key)"
)


def new_client(base_url: str | None, **options: Any) -> AsyncClient:
    """The client for the API; `options` are those of `AsyncClient`. Raises `ConfigurationError` if there is no key."""
    from rawsse.client.client import AsyncClient

    client = AsyncClient(base_url=base_url, **options)
    if not client.has_credential:
        raise ConfigurationError(NO_KEY)
    return client


def read_prompt(words: Sequence[str]) -> str:
    """The words as one prompt, with standard input in place of `-`, or else behind them unless it is a terminal.

    Raises `ConfigurationError` if there is nothing in it.
    """
    prompt = " ".join(read_all("the prompt") if word == "-" else word for word in words or ["-"])
    if words and "-" not in words and not is_typed():
        prompt = "\n\n".join(filter(str.strip, (prompt, _piped())))
    if not prompt.strip():
        raise ConfigurationError("the prompt is empty")
    return check_text(prompt, "the prompt")


def _piped() -> str:
    try:
        return read_all("the prompt")
    except OSError as exc:
        if exc.errno not in (None, errno.EBADF):
            raise
        return ""  # one that cannot be read, as `nohup` gives it: nothing was sent


def ask(
    client: AsyncClient, prompt: str, *, model: str, max_tokens: int, system: str | None = None, as_json: bool = False
) -> Message:
    """Ask, show the answer as it comes (as JSON: when it is whole), and what it cost. Closes the client."""

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
    return message


async def print_text(texts: AsyncIterator[str]) -> None:
    """Show the pieces as they come, and end the last line, whatever happens."""
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
