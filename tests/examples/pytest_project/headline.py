"""A program under test: it asks Claude for a headline. It uses the official SDK's names, and would run on the SDK, too."""

from __future__ import annotations

from rawsse import Anthropic, APIError


class NoHeadlineError(Exception):
    """The API gave no whole answer."""


def headline(article: str) -> str:
    """One line. Raises `NoHeadlineError`."""
    messages = [{"role": "user", "content": f"A headline for this, please:\n\n{article}"}]
    try:
        with Anthropic() as client:  # reads ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY
            message = client.messages.create(model="claude-sonnet-5", max_tokens=100, messages=messages)
    except APIError as error:
        raise NoHeadlineError(str(error)) from error
    if message.stop_reason != "end_turn":
        raise NoHeadlineError(f"the answer ended early: {message.stop_reason}")
    return message.text.strip()
