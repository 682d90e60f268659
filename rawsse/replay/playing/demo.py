"""The upstream of `rawsse demo`: a player that picks the recording by a word in the prompt.

This file knows which word asks for which of the shipped recordings. It refuses to know how they are played.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rawsse.replay.matching.answers import Repertoire
from rawsse.replay.playing.player import Player
from rawsse.replay.recording import RecordedRequest, Recording, shipped_fixtures

DEMO_WORDS: Mapping[str, str] = {
    "unicode": "unicode",
    "think": "thinking",
    "parallel": "parallel-tools",
    "tool": "tools",
    "search": "server-tools",
    "cite": "citations",
    "limit": "max-tokens",
    "refuse": "refusal",
    "overload": "error-before-content",
    "error": "error-after-content",
    "cut": "cut",
}
"""Word in the prompt -> name of the recording; the first that is found counts, and without any it is `plain`."""


class DemoPlayer(Player):
    """A `Player` of the shipped recordings."""

    def __init__(self, *, speed: float = 1.0) -> None:
        recordings = shipped_fixtures()
        super().__init__(list(recordings.values()), speed=speed)
        self.repertoire = _DemoRepertoire(recordings)


class _DemoRepertoire(Repertoire):
    def __init__(self, recordings: Mapping[str, Recording]) -> None:
        super().__init__(list(recordings.values()))
        self._by_name = recordings

    def choose(self, request: RecordedRequest) -> Recording:
        prompt = _last_text(request.body).lower()
        name = next((name for word, name in DEMO_WORDS.items() if word in prompt), "plain")
        return self._by_name[name]


def _last_text(body: Any) -> str:
    """The text of the last message of a request; empty if it has none."""
    last = body["messages"][-1] if body["messages"] else None
    content = last.get("content") if isinstance(last, dict) else None
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return " ".join(str(block.get("text", "")) for block in blocks if isinstance(block, dict))
