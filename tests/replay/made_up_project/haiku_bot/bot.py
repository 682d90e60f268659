"""Asks for a haiku with nothing but the standard library."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from haiku_bot.reader import events

SYLLABLES = {"name": "count_syllables", "input_schema": {"type": "object", "properties": {"line": {"type": "string"}}}}
ATTEMPTS = 3


class HaikuError(Exception):
    """There is no haiku. `begun` is what came of it."""

    def __init__(self, message: str, begun: str = "") -> None:
        super().__init__(message)
        self.begun = begun


def haiku(season: str, *, sleep: Callable[[float], None] = time.sleep) -> str:
    """A haiku about a season."""
    lines = ""
    try:
        for event in _answer(f"Write a haiku about {season}.", sleep):
            if event["type"] == "error":
                raise HaikuError(event["error"]["message"], lines)
            if event["type"] == "message_stop":
                return lines
            lines += event.get("delta", {}).get("text", "")
    except (http.client.HTTPException, OSError) as exc:
        raise HaikuError("the line went dead", lines) from exc
    raise HaikuError("the poet left in the middle", lines)


def line_to_count(poem: str) -> str:
    """The line whose syllables the model wants to have counted."""
    written = ""
    for event in _answer(f"Is this a haiku?\n{poem}", time.sleep):
        written += event.get("delta", {}).get("partial_json", "")
    line: str = json.loads(written)["line"]
    return line


def _answer(question: str, sleep: Callable[[float], None]) -> Iterator[dict[str, Any]]:
    with _ask(question, sleep) as response:
        yield from events(iter(lambda: response.read1(65536), b""))


def _ask(question: str, sleep: Callable[[float], None]) -> Any:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return urllib.request.urlopen(_request(question), timeout=10)
        except urllib.error.HTTPError as exc:
            with exc:
                if attempt == ATTEMPTS or exc.code not in (429, 529):
                    raise HaikuError(f"the poet does not answer ({exc.code})") from None
                sleep(float(exc.headers.get("retry-after", 1)))
    raise AssertionError("unreachable")


def _request(question: str) -> urllib.request.Request:
    body = {
        "model": "claude-sonnet-5",
        "max_tokens": 200,
        "stream": True,
        "tools": [SYLLABLES],
        "messages": [{"role": "user", "content": question}],
    }
    headers = {
        "content-type": "application/json",
        "x-api-key": os.environ["ANTHROPIC_API_KEY"],
        "anthropic-version": "2023-06-01",
    }
    url = os.environ.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com") + "/v1/messages"
    return urllib.request.Request(url, json.dumps(body).encode(), headers)
