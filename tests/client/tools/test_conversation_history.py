"""rawsse.client.tools.conversation: turns as the messages of a request."""

from __future__ import annotations

from typing import Any

import pytest
from support.asking import Script

from rawsse.client.tools.conversation import CUT_NOTE, Conversation, ConversationTurn, TurnState
from rawsse.client.tools.runner import add_up

NOTHING = add_up([])


def user(*texts: str) -> dict[str, Any]:
    content: Any = texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]
    return {"role": "user", "content": content}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def turn(question: str, *answers: str, state: TurnState = "answered") -> ConversationTurn:
    return ConversationTurn(question, [assistant(text) for text in answers], state, "", NOTHING)


def history_of(turns: list[ConversationTurn], before: list[Any] | None = None, **options: Any) -> list[dict[str, Any]]:
    return Conversation(Script(), model="m", max_tokens=1, messages=before, **options)._history(turns)


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


# --- Calls and results ---------------------------------------------------------------------------------------------------
#
# "tool_use ids were found without tool_result blocks immediately after", and "unexpected tool_use_id found in tool_result
# blocks", says the API; and tool results must come first in their turn.

TEXT: dict[str, Any] = {"type": "text", "text": "t"}
THOUGHT: dict[str, Any] = {"type": "thinking", "thinking": "h", "signature": "s"}


def call(name: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": name, "name": "n", "input": {}}


def result(name: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": name, "content": "x"}


def says(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": [*blocks]}


def asks(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [*blocks]}


SYSTEM = {"role": "system", "content": "s"}
Q = {"type": "text", "text": "q"}


@pytest.mark.parametrize(
    ("before", "sent"),
    [
        ([user("a"), says(TEXT, call("1"))], [user("a"), says(TEXT), user("q")]),
        ([user("a"), says(call("1"))], [user("a", "q")]),
        ([user("a"), says(THOUGHT, call("1"))], [user("a", "q")]),
        ([user("a"), says(call("1")), user("no")], [user("a", "no", "q")]),
        ([user("a"), says(call("1")), asks(TEXT)], [user("a", "t", "q")]),
        (
            [user("a"), says(call("1"), call("2")), asks(result("1"))],
            [user("a"), says(call("1")), asks(result("1"), Q)],
        ),
        (
            [user("a"), says(call("1")), SYSTEM, asks(result("1"))],
            [user("a"), says(call("1")), SYSTEM, asks(result("1"), Q)],
        ),
        (
            [user("a"), says(call("1")), asks(TEXT), asks(result("1"))],
            [user("a"), says(call("1")), asks(result("1"), TEXT, Q)],
        ),
        (
            [user("a"), says(call("1")), asks(TEXT), says(TEXT), asks(result("1"))],
            [user("a", "t"), says(TEXT), user("q")],
        ),
        ([asks(result("1"), TEXT), says(TEXT)], [asks(TEXT), says(TEXT), user("q")]),
        ([user("a"), says(call("1")), asks(result("2"))], [user("a", "q")]),
    ],
)
def test_of_a_given_history_only_calls_with_their_results_are_sent(before: list[Any], sent: list[Any]) -> None:
    assert history_of([turn("q")], before=before) == sent


def test_the_question_may_have_the_results() -> None:
    asked = ConversationTurn([Q, result("1")], [], "answered", "", NOTHING)
    before = [user("a"), says(call("1"))]
    assert history_of([asked], before=before) == [*before, asks(result("1"), Q)]
