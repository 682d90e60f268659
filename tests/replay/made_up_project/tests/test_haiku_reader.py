"""The reader of streams, against every way in which a network may deliver one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from haiku_bot.reader import events, words


def poem(chunks: tuple[bytes, ...]) -> str:
    return "".join(words(chunks))


def test_no_cut_changes_the_poem(assert_every_split: Callable[..., Any]) -> None:
    assert_every_split(
        "autumn", poem, "Café chairs stacked up.\nOne leaf lets go of its branch\n\u2013 and nothing else falls."
    )


@pytest.mark.parametrize("name", ["autumn", "empty-tool-input"])
def test_no_cut_changes_an_event(name: str, assert_every_split: Callable[..., Any]) -> None:
    assert_every_split(name, lambda chunks: list(events(chunks)))
