"""The page for everyone, in a real Chromium: keyboard, screen reader, narrow, dark, still; and who writes in kana."""

from __future__ import annotations

from typing import Any

import pytest
from support.contrast import WORST_CONTRAST

from .chat_page import Chat
from .scripted_server import answer, close_block, done, error, finish, frame, open_block, script, start

pytestmark = pytest.mark.real


def test_everything_can_be_done_by_keyboard(chat: Chat) -> None:
    keys = chat.page.keyboard
    assert chat.focus == "prompt"
    keys.type("a")
    keys.press("Shift+Enter")
    keys.type("b")
    keys.press("Tab")
    assert chat.focus == "send"
    keys.press("Enter")
    post = chat.server.begin()
    assert (post.body["messages"][0]["content"], chat.focus) == ("a\nb", "prompt")
    assert chat.page.locator("#prompt").input_value() == ""
    keys.press("Tab")
    assert chat.focus == "stop"
    post.end(b"".join(answer("Done.")))
    chat.wait_for_end()
    assert chat.focus == "prompt"
    reached = []
    for _ in range(8):
        keys.press("Shift+Tab")
        reached.append(
            chat.focus
            or chat.page.evaluate("(({ className, tagName }) => className || tagName)(document.activeElement)")
        )
    assert reached == ["SUMMARY", "again", "copy", "edit", "conversation", "toggle", "fresh", "skip"]


def test_an_enter_that_ends_a_composed_word_sends_nothing(chat: Chat) -> None:
    chat.page.locator("#prompt").fill("にほん")
    chat.page.locator("#prompt").dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    assert chat.page.locator("article").count() == 0


def test_an_empty_prompt_and_a_second_one_meanwhile_send_nothing(chat: Chat) -> None:
    chat.type_and_send("  \n ")
    assert chat.page.locator("article").count() == 0
    chat.ask()
    chat.type_and_send("impatient")
    assert chat.status == "An answer is still running. Escape stops it."
    assert chat.page.locator("#prompt").input_value() == "impatient"
    assert len(chat.server.exchanges) == 1


def test_a_screen_reader_hears_the_status_and_no_tokens(chat: Chat) -> None:
    chat.page.evaluate(
        "said = []; line = document.getElementById('status');"
        "new MutationObserver(() => said.push(line.textContent)).observe(line, { childList: true })"
    )
    chat.ask().end(b"".join(answer(*["x"] * 50)))
    chat.wait_for_end()
    assert chat.page.evaluate("said") == [
        "Waiting for the answer…",
        "Claude is answering…",
        "Answer complete.",
    ]
    assert chat.page.locator("#conversation").get_attribute("aria-live") == "off"
    assert chat.page.locator("#status").get_attribute("role") == "status"


def test_everything_that_can_be_operated_has_a_name(chat: Chat) -> None:
    chat.page.get_by_role("button", name="Wire").click()
    assert chat.page.get_by_role("textbox", name="Message to Claude").is_visible()
    assert chat.page.get_by_role("log", name="Conversation").is_visible()
    chat.page.get_by_role("complementary", name="Wire").wait_for()
    assert chat.page.get_by_role("button", name="Wire").get_attribute("aria-expanded") == "true"


SHOW_ALL: list[dict[str, Any]] = [
    start(),
    open_block(type="thinking", thinking="Thought " * 30, signature=""),
    close_block(),
    open_block(1, type="text", text="Word" * 200),
    close_block(1),
    open_block(2, type="tool_use", id="t", name="tool_with_a_long_name", input={"key": "value" * 60}),
    close_block(2),
]


def show_everything(chat: Chat) -> None:
    """A conversation with every kind of thing in it: a whole answer, a failed one, a stopped one, the wire."""
    chat.ask("Question" * 30).end(b"".join(script(*SHOW_ALL, *finish())))
    chat.wait_for_end()
    chat.ask().end(frame(1, start()) + frame(2, error("overloaded_error", "Over" * 50)) + done(3))
    chat.see(".failed")
    chat.ask().send(frame(1, start()))
    chat.see(".answer:nth-child(7) .model")
    chat.page.keyboard.press("Escape")
    chat.see(".stopped")
    chat.page.get_by_role("button", name="Wire").click()
    for summary in chat.page.locator("summary").all():
        summary.click()


@pytest.mark.parametrize("settings", [{"viewport": {"width": 320, "height": 568}}])
def test_at_320_pixels_nothing_sticks_out_sideways(chat: Chat, settings: dict[str, Any]) -> None:
    show_everything(chat)
    wide = "[...document.querySelectorAll('body, body *')].filter(e => e.getBoundingClientRect().right > 320).length"
    assert chat.page.evaluate("document.documentElement.scrollWidth") == 320
    assert chat.page.evaluate(wide) == 0


@pytest.mark.parametrize("settings", [{"color_scheme": "light"}, {"color_scheme": "dark"}])
def test_every_text_has_a_contrast_of_at_least_4_5(chat: Chat, settings: dict[str, Any]) -> None:
    show_everything(chat)
    ratio, whose = chat.page.evaluate(WORST_CONTRAST)
    assert ratio >= 4.5, whose


@pytest.mark.parametrize("settings", [{"reduced_motion": "reduce"}, {"reduced_motion": "no-preference"}])
def test_nothing_moves_for_those_who_asked_for_that(chat: Chat, settings: dict[str, Any]) -> None:
    chat.ask()
    chat.see(".answer")
    moving = chat.page.evaluate("document.getAnimations().length")
    assert moving == (0 if settings["reduced_motion"] == "reduce" else 1)
