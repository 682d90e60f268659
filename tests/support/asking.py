"""A Messages API that gives scripted answers, remembers what it was asked, and refuses histories that the real one refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rawsse.client.stream import MessageStream
from rawsse.replay.fakes import FakeStream
from support.answers import answer, client_of
from support.streams import STOP, Raw, block, end, input_delta, start, text_delta

__all__ = ["Script", "calling", "check_history", "saying"]


def saying(*texts: str, reason: str | None = "end_turn", **usage: Any) -> list[Raw]:
    """The events of an answer that is one text."""
    return [
        start(),
        *block(0, {"type": "text", "text": ""}, *(text_delta(0, text) for text in texts)),
        end(reason, **usage),
        STOP,
    ]


def calling(*calls: tuple[str, str], reason: str = "tool_use", text: str = "") -> list[Raw]:
    """The events of an answer that calls tools: names, and inputs as JSON texts. Their ids are call_0, call_1 …"""
    blocks = [block(0, {"type": "text", "text": ""}, text_delta(0, text))] if text else []
    for number, (name, input_text) in enumerate(calls):
        raw = {"type": "tool_use", "id": f"call_{number}", "name": name, "input": {}}
        blocks.append(block(len(blocks), raw, input_delta(len(blocks), input_text)))
    return [start(), *(event for events in blocks for event in events), end(reason), STOP]


class Script:
    """`client.messages`, whose answers are these: lists of events, or streams. `requests` are the arguments it was given."""

    def __init__(self, *answers: Iterable[Raw] | FakeStream) -> None:
        self._answers = iter(answers)
        self.requests: list[dict[str, Any]] = []

    def stream(
        self, *, model: str, max_tokens: int, messages: Iterable[Mapping[str, Any]], **arguments: Any
    ) -> MessageStream:
        asked = {"model": model, "max_tokens": max_tokens, "messages": list(messages), **arguments}
        check_history(asked["messages"])
        self.requests.append(asked)
        given = next(self._answers)
        stream = given if isinstance(given, FakeStream) else FakeStream([answer(given)])
        return client_of(stream).messages.stream(**asked)

    _runs_coroutines = True

    async def _run(self, calls: Sequence[Callable[[], Any]], *options: Any) -> list[Any]:
        results: list[Any] = await client_of().messages._run(calls, *options)
        return results

    @property
    def messages(self) -> Script:
        """So that a script can stand for a client as well."""
        return self


def check_history(messages: list[Any]) -> None:
    """What the API answers 400 to, as far as histories go."""
    assert messages, "messages: at least one message is required"
    assert messages[0]["role"] == "user", "messages: first message must use the user role"
    for number, message in enumerate(messages):
        assert set(message) == {"role", "content"}, message
        assert message["content"], "messages: all messages must have non-empty content"
        blocks = blocks_of(message)
        texts = [raw["text"] for raw in blocks if raw["type"] == "text"]
        assert all(text.strip() for text in texts), "messages: text content blocks must contain non-whitespace text"
        asked = [raw["id"] for raw in blocks if raw["type"] == "tool_use"]
        assert len(set(asked)) == len(asked), "messages: tool_use ids must be unique"
        assert all(isinstance(raw["input"], dict) for raw in blocks if raw["type"] == "tool_use")
        following = blocks_of(messages[number + 1]) if number + 1 < len(messages) else []
        given = [raw["tool_use_id"] for raw in following if raw["type"] == "tool_result"]
        assert given == asked, (
            "tool_use ids were found without tool_result blocks immediately after, or the other way round"
        )
        assert all(raw["type"] == "tool_result" for raw in following[: len(given)])
        if message["role"] == "assistant":
            last = blocks[-1]["type"]
            assert last not in ("thinking", "redacted_thinking"), (
                "the final block in an assistant message cannot be `thinking`"
            )
            later = [raw.get("tool_use_id") for turn in messages[number:] for raw in blocks_of(turn)]
            pending = [raw["id"] for raw in blocks if raw["type"] == "server_tool_use" and raw["id"] not in later]
            rest = [raw["type"] for turn in messages[number + 1 :] for raw in blocks_of(turn)]
            assert not pending or set(rest) <= {"tool_result"}, "server_tool_use was found without a result"


def blocks_of(message: Mapping[str, Any]) -> list[Any]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
