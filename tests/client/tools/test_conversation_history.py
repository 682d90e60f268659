"""rawsse.client.tools.conversation: turns as the messages of a request."""

from __future__ import annotations

from typing import Any

from rawsse.client.tools.conversation import CUT_NOTE, ConversationTurn, TurnState, history_of
from rawsse.client.tools.runner import add_up

NOTHING = add_up([])


def user(*texts: str) -> dict[str, Any]:
    content: Any = texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]
    return {"role": "user", "content": content}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def turn(question: str, *answers: str, state: TurnState = "answered") -> ConversationTurn:
    return ConversationTurn(question, [assistant(text) for text in answers], state, "", NOTHING)


def test_questions_and_answers_take_turns() -> None:
    assert history_of([turn("one", "x"), turn("two", "y")]) == [
        user("one"),
        assistant("x"),
        user("two"),
        assistant("y"),
    ]


def test_the_question_after_a_cut_answer_begins_with_a_note() -> None:
    assert history_of([turn("one", "x", state="cut"), turn("two")])[2:] == [user(CUT_NOTE, "two")]


def test_what_was_refused_is_left_out_and_a_question_without_answer_is_joined() -> None:
    turns = [
        turn("one", "x", state="cut"),
        turn("no", state="refused"),
        turn("two", state="cut"),
        turn("three", "y"),
    ]
    assert history_of(turns, before=[user("zero")], cut_note="!") == [
        user("zero", "one"),
        assistant("x"),
        user("!", "two", "three"),
        assistant("y"),
    ]


def test_the_turns_are_not_changed_by_what_is_made_of_them() -> None:
    turns = [turn("one", state="cut"), turn("two")]
    history_of(turns)
    assert turns == [turn("one", state="cut"), turn("two")]
