"""The demo's upstream picks the recording by a word in the prompt."""

from __future__ import annotations

from typing import Any

import pytest

from rawsse.replay import RecordedRequest, shipped_fixtures
from rawsse.replay.player import DEMO_WORDS, demo_player


def chosen(content: Any) -> str:
    body = {"messages": [{"role": "user", "content": "cut"}, {"role": "user", "content": content}]}
    request = RecordedRequest("POST", "/v1/messages", {}, body)
    recording = demo_player().api.find(request)
    return next(name for name, shipped in shipped_fixtures().items() if shipped == recording)


@pytest.mark.parametrize(("word", "name"), DEMO_WORDS.items())
def test_a_word_in_the_prompt_picks_the_recording(word: str, name: str) -> None:
    assert chosen(f"Please {word.upper()} about it") == name


def test_an_answer_cut_by_its_limit_is_one_that_people_read() -> None:
    assert chosen("What happens at the limit?") == "max-tokens-text"


def test_without_any_of_the_words_the_answer_is_plain() -> None:
    assert chosen("Hello!") == "plain"


def test_the_text_of_content_blocks_counts_and_earlier_messages_do_not() -> None:
    assert chosen([{"type": "text", "text": "Show me a tool"}]) == "tools"


def test_a_request_without_messages_gets_the_plain_answer() -> None:
    request = RecordedRequest("POST", "/v1/messages", {}, {"messages": []})
    assert demo_player().api.find(request) == shipped_fixtures()["plain"]


@pytest.mark.parametrize("content", [5, None, [], [5], {}, [{"text": 7}]])
def test_content_without_text_gets_the_plain_answer(content: Any) -> None:
    assert chosen(content) == "plain"
