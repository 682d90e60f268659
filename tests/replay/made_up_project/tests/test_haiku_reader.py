"""The reader of streams, against every way in which a network may deliver one."""

from __future__ import annotations

from pathlib import Path

from haiku_bot.reader import events, words

from rawsse.replay import Recording, assert_every_split, shipped_fixtures

AUTUMN = Recording.load(Path(__file__).parent / "recordings/autumn.sse.jsonl").body


def poem(chunks: tuple[bytes, ...]) -> str:
    return "".join(words(chunks))


def test_no_cut_changes_the_poem() -> None:
    expected = "Café chairs stacked up.\nOne leaf lets go of its branch\n\u2013 and nothing else falls."
    assert_every_split(AUTUMN, poem, expected)


def test_no_cut_changes_an_event() -> None:
    assert_every_split(shipped_fixtures()["empty-tool-input"].body, lambda chunks: list(events(chunks)))
