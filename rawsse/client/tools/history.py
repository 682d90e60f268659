"""Questions, what came of each, and the messages that they make together.

This file knows which histories a request may have, and how turns are saved. It refuses to know how an answer comes.

    turn = ConversationTurn("Is it cold?", [{"role": "assistant", "content": "Yes."}], "answered", "end_turn", usage)
    history_of([turn])              # [{"role": "user", "content": "Is it cold?"}, {"role": "assistant", "content": "Yes."}]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from rawsse.client.tools.tally import TotalUsage

__all__ = [
    "CUT_NOTE",
    "ConversationTurn",
    "TurnState",
    "history_of",
    "loaded_turn",
    "loaded_usage",
    "saved_turn",
    "saved_usage",
]

CUT_NOTE = "[Your answer above was cut off before its end.]"
"""What stands before the question that follows a cut answer, so that the model does not take the answer for a whole one."""

TurnState: TypeAlias = Literal["answered", "cut", "refused"]
"""What became of a question: see `conversation.py`."""


class ConversationTurn(NamedTuple):
    """A question, and what came of it: `messages` is the answer, and between calls of tools and answers also the results.

    `stopped_by` is the stop reason, "max_turns", or the error. `usage.exact` is False if the answer was cut.
    """

    question: str | list[dict[str, Any]]
    messages: list[dict[str, Any]]
    state: TurnState
    stopped_by: str
    usage: TotalUsage


def history_of(
    turns: Iterable[ConversationTurn], *, before: Iterable[Mapping[str, Any]] = (), cut_note: str = CUT_NOTE
) -> list[dict[str, Any]]:
    """The messages of these turns, as a request takes them: what was refused is left out, and no question is lost."""
    history: list[dict[str, Any]] = []
    for message in before:
        _append(history, dict(message))
    was_cut = False
    for turn in turns:
        if turn.state == "refused":
            continue
        _append(history, _question(history, turn.question, cut_note if was_cut else ""))
        for message in turn.messages:
            _append(history, message)
        was_cut = turn.state == "cut"
    return history


def _question(history: Sequence[Mapping[str, Any]], content: Any, note: str) -> dict[str, Any]:
    if note and history and history[-1]["role"] == "assistant":
        content = [{"type": "text", "text": note}, *_blocks(content)]
    return {"role": "user", "content": content}


def _append(history: list[dict[str, Any]], message: dict[str, Any]) -> None:
    """Add a message; a user's turn after a user's turn joins it. Results of tools then still come first."""
    last = history[-1] if history else None
    if last is not None and last["role"] == message["role"] == "user":
        history[-1] = {"role": "user", "content": [*_blocks(last["content"]), *_blocks(message["content"])]}
    else:
        history.append(message)


def _blocks(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


# --- Saving -----------------------------------------------------------------------------------------------------------


def saved_usage(usage: TotalUsage) -> dict[str, Any]:
    """The counts as JSON values."""
    turns = [saved_usage(turn) for turn in usage.turns]
    return {"counts": usage.raw, "exact": usage.exact, "turns": turns}


def loaded_usage(saved: Mapping[str, Any]) -> TotalUsage:
    """What `saved_usage` made of them. Raises `KeyError`, `TypeError` or `ValueError` for what is none."""
    turns = [loaded_usage(turn) for turn in saved["turns"]]
    return TotalUsage(dict(saved["counts"]), exact=bool(saved["exact"]), turns=turns)


def saved_turn(turn: ConversationTurn) -> dict[str, Any]:
    """The turn as JSON values."""
    names = ("question", "messages", "state", "stopped_by")
    return {**{name: getattr(turn, name) for name in names}, "usage": saved_usage(turn.usage)}


def loaded_turn(saved: Mapping[str, Any]) -> ConversationTurn:
    """What `saved_turn` made of it. Raises as `loaded_usage`."""
    if saved["state"] not in ("answered", "cut", "refused"):
        raise ValueError(f"a turn has the state {saved['state']!r}")
    usage = loaded_usage(saved["usage"])
    return ConversationTurn(saved["question"], saved["messages"], saved["state"], saved["stopped_by"], usage)
