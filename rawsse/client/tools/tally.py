"""What several answers cost together.

This file knows how token counts add up. It refuses to know where they come from.

    usage = add_up([first.usage, second.usage])
    usage.output_tokens, usage.total_input_tokens, usage.turns[0].input_tokens
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rawsse.messages.content import Message, Usage
from rawsse.messages.lens import copied

__all__ = ["TotalUsage", "add_up", "usage_of"]


class TotalUsage(Usage):
    """Token counts of one or several answers. `turns` are the counts that were added up.

    `exact` is False where an answer was cut: the counts are then those that had come, and the real ones are no lower.
    """

    __slots__ = ("exact", "turns")
    exact: bool
    turns: tuple[TotalUsage, ...]

    def __init__(self, raw: dict[str, Any], *, exact: bool = True, turns: Sequence[TotalUsage] = ()) -> None:
        super().__init__(raw)
        self.exact = exact
        self.turns = tuple(turns)


def usage_of(message: Message | None, *, exact: bool) -> TotalUsage:
    """What one answer cost. Of one that never began nothing is known but that it may have cost something."""
    usage = message.get("usage") if message is not None else None
    return TotalUsage(copied(usage) if isinstance(usage, dict) else {**_NOTHING}, exact=exact)


def add_up(turns: Sequence[TotalUsage]) -> TotalUsage:
    """The sum: every count, whatever its name, also those in objects (`server_tool_use`); what is no number is left out."""
    total: dict[str, Any] = {**_NOTHING}
    for turn in turns:
        for name, value in turn.raw.items():
            if not isinstance(value, dict):
                _count(total, name, value)
            elif isinstance(inner := total.setdefault(name, {}), dict):
                for inner_name, inner_value in value.items():
                    _count(inner, inner_name, inner_value)
    return TotalUsage(total, exact=all(turn.exact for turn in turns), turns=turns)


_NOTHING: Mapping[str, int] = {"input_tokens": 0, "output_tokens": 0}


def _count(total: dict[str, Any], name: str, value: Any) -> None:
    so_far = total.get(name, 0)
    if isinstance(value, int) and not isinstance(value, bool) and isinstance(so_far, int):
        total[name] = so_far + value
