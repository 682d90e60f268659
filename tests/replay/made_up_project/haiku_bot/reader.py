"""Server-sent events, read by hand: chunks of bytes in, events out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any


def events(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON of each event, as soon as its blank line has come."""
    pending = b""
    data: list[bytes] = []
    for chunk in chunks:
        pending += chunk
        *lines, pending = pending.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line.removeprefix(b"data:").strip())
            elif not line.removesuffix(b"\r") and data:
                yield json.loads(b"\n".join(data))
                data = []


def words(chunks: Iterable[bytes]) -> Iterator[str]:
    """The text of an answer, piece by piece."""
    for event in events(chunks):
        if event["type"] == "content_block_delta" and event["delta"]["type"] == "text_delta":
            yield event["delta"]["text"]
