"""A long recording, for what must stay small or readable however long a stream is."""

from __future__ import annotations

import json
from typing import Any

from rawsse.replay import Read, Recording
from rawsse.sse import encode

from .streams import PING, STOP, block_start, block_stop, end, start, text_delta

__all__ = ["long_recording"]


def long_recording(deltas: int = 5000, *, pause_at: int = 2500, text: str = " word") -> Recording:
    """A text of so many deltas, one per read and 0.02 s; a ping every 100; and once, nothing for 6 s."""
    reads, t = [Read(0.5, wire(start()) + wire(block_start(0, {"type": "text", "text": ""})))], 0.5
    for number in range(deltas):
        t += 6.0 if number == pause_at else 0.02
        ping = wire(PING) if number % 100 == 50 else b""
        reads.append(Read(round(t, 3), ping + wire(text_delta(0, text))))
    reads.append(Read(round(t + 0.02, 3), wire(block_stop(0)) + wire(end()) + wire(STOP)))
    return Recording(reads=tuple(reads), duration=round(t + 0.03, 3), name="long.sse.jsonl")


def wire(event: dict[str, Any]) -> bytes:
    """An event as the API sends it."""
    return encode(json.dumps(event), event=event["type"])
