"""The whole thing for one test: recordings, played by a Messages API of ours, and a relay in front of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.background import Background
from support.command import ROOT

from rawsse import AsyncClient
from rawsse.relay import Relay, RunLimits
from rawsse.replay import PlayedRequest, Player, Read, Recording, shipped_fixtures
from rawsse.server import Server

__all__ = ["COMPLETE", "FIXTURES", "Stack", "expected", "message", "recorded", "refusal", "text"]

FIXTURES = sorted(shipped_fixtures())


def recorded(name: str) -> Recording:
    """A shipped recording."""
    return shipped_fixtures()[name]


def expected(name: str) -> Any:
    """What that recording must become: see `fixtures/README.md`."""
    return json.loads((ROOT / f"fixtures/{name}.json").read_text(encoding="utf-8"))


def message(name: str) -> Any:
    """The message that the recording must become."""
    return expected(name)["message"]


def text(name: str) -> str:
    """The text of its text blocks."""
    return "".join(block["text"] for block in message(name)["content"] if block["type"] == "text")


COMPLETE = [name for name in FIXTURES if expected(name)["ending"] == "complete"]


def refusal(status: int, kind: str, words: str, **headers: str) -> Recording:
    """The API says no."""
    body = json.dumps({"type": "error", "error": {"type": kind, "message": words}}).encode()
    fields = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Recording(status=status, headers=fields, reads=(Read(0.0, body),))


class Stack:
    """`base_url` is the relay's, `upstream_url` that of the Messages API behind it, `requests` what came there.

    `options` are those of `Player`, with no waiting by default. Ends with `background`.
    """

    def __init__(
        self,
        background: Background,
        recordings: Sequence[Recording],
        *,
        static: Path | None = None,
        limits: RunLimits | None = None,
        heartbeat_seconds: float = 15.0,
        **options: Any,
    ) -> None:
        self.player = Player(recordings, **{"speed": 0.0, **options})
        self.upstream_url = background.enter(Server(self.player, port=0)).base_url
        client = background.enter(AsyncClient(api_key="sk-of-the-relay", base_url=self.upstream_url))
        relay = Relay(client, static=static, limits=limits, heartbeat_seconds=heartbeat_seconds)
        self.base_url = background.enter(Server(relay, port=0, on_shutdown=relay.aclose)).base_url

    @property
    def requests(self) -> list[PlayedRequest]:
        return self.player.requests
