"""The cost of an answer: the token counts of the Messages API's `usage`, and which of them are billed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INPUT_TOKENS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
"""Fields of the usage. "Total input tokens in a request is the summation of" the three."""

NOTHING: Mapping[str, int] = {"input_tokens": 0, "output_tokens": 0}
"""The usage of an answer that never began."""

MAX_TOKENS_COUNTED = 2**53 - 1
"""The largest count that is believed: one that every JSON reader and every database can hold."""

_BILLED = (*INPUT_TOKENS, "output_tokens", "cache_creation")


def billed(usage: dict[str, Any]) -> dict[str, Any] | None:
    """The counts of all iterations together. Those at the top leave out compaction, advisors, and models that were replaced
    (https://docs.anthropic.com/en/docs/build-with-claude/compaction). None if the iterations are not understood."""
    if not (iterations := usage.get("iterations")):
        return usage
    if not isinstance(iterations, list) or not all(_is_iteration(each) for each in iterations):
        return None
    if all(each["type"] in ("compaction", "advisor_message") for each in iterations):
        iterations = [usage, *iterations]
    total: dict[str, Any] = {}
    for each in iterations:
        add_counts({name: each[name] for name in _BILLED if name in each}, total)
    return {**usage, **total}


def token_counts(usage: dict[str, Any]) -> tuple[dict[str, int], bool]:
    """The billed counts of `INPUT_TOKENS` and `output_tokens`; and whether all of the usage is understood."""
    counts = billed(usage)
    found = usage if counts is None else counts
    given = {name: found.get(name) for name in (*INPUT_TOKENS, "output_tokens")}
    tokens = {name: value for name, value in given.items() if type(value) is int and 0 <= value <= MAX_TOKENS_COUNTED}
    is_whole = "input_tokens" in tokens and "output_tokens" in tokens and counts is not None
    return {name: tokens.get(name, 0) for name in given}, is_whole


def add_counts(counts: Mapping[str, Any], total: dict[str, Any]) -> None:
    """Add every count to `total`, known or not, including those in objects (`server_tool_use`). Other values are left out."""
    for name, value in counts.items():
        if isinstance(value, dict):
            if isinstance(inner := total.setdefault(name, {}), dict):
                add_counts(value, inner)
        elif isinstance(value, int) and not isinstance(value, bool) and isinstance(total.get(name, 0), int):
            total[name] = total.get(name, 0) + value


def _is_iteration(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("type") in ("message", "compaction", "advisor_message", "fallback_message")
        and all(type(value.get(name)) is int for name in NOTHING)
    )
