"""The wire pane in a real Chromium: the raw frames, their times, their bounds; and boxes that follow their end."""

from __future__ import annotations

import pytest

from .chat_page import Chat
from .scripted_server import answer, close_block, delta, finish, frame, open_block, script, start

pytestmark = pytest.mark.real

FROM_END = "((box) => Math.abs(box.scrollHeight - box.clientHeight - box.scrollTop))(document.getElementById('{id}'))"
"""JavaScript for the pixels that a scrolling box is away from its end."""


def show(chat: Chat) -> None:
    chat.page.get_by_role("button", name="Wire").click()


def test_the_wire_shows_each_frame_exactly_as_it_came(chat: Chat) -> None:
    show(chat)
    frames = [b": warm\n\n", b"retry:5\n\n", *answer("Otter 🦦", "  two spaces  ")]
    chat.ask().end(b"".join(frames))
    chat.wait_until("(n) => $('#frames .frame').length === n", len(frames))
    assert [text.encode() for text in chat.page.locator("#frames .frame pre").all_text_contents()] == frames
    assert chat.page.locator("#frames .note pre").all_text_contents() == ["POST /api/chat: 200"]


def test_each_frame_on_the_wire_has_its_time_since_the_request(chat: Chat) -> None:
    show(chat)
    post = chat.ask()
    post.send(frame(1, start()))
    chat.wait_until("() => $('#frames .frame').length === 1")
    chat.wait_until("(began) => performance.now() > began + 60", chat.page.evaluate("performance.now()"))
    post.send(frame(2, open_block()))
    chat.wait_until("() => $('#frames .frame').length === 2")
    first, second = chat.page.locator("#frames .frame .at").all_text_contents()
    assert float(first.strip("+ s")) < float(second.strip("+ s"))


def test_the_wire_is_bounded(chat: Chat) -> None:
    show(chat)
    chat.ask().end(b"".join(script(start(), open_block(), *[delta("x")] * 1000, close_block(), *finish())))
    chat.wait_until("() => $('#frames li:last-child')[0]?.textContent.includes('[DONE]')")
    assert chat.page.locator("#frames li").count() == 400


def test_the_wire_is_bounded_in_characters_too(chat: Chat) -> None:
    show(chat)
    chat.ask().end(b"".join(script(start(), open_block(), *[delta("x" * 300_000)] * 5, close_block(), *finish())))
    chat.wait_until("() => $('#frames li:last-child')[0]?.textContent.includes('[DONE]')")
    shown = chat.page.locator("#frames pre").all_text_contents()
    assert 600_000 < sum(map(len, shown)) <= 1_000_000


def test_the_wire_follows_its_end_unless_one_scrolled_up(chat: Chat) -> None:
    show(chat)
    post = chat.ask()
    frames = script(start(), open_block(), *[delta("x")] * 60)
    post.send(b"".join(frames[:30]))
    chat.wait_until(f"() => $('#frames li').length === 31 && {FROM_END.format(id='frames')} < 1")
    chat.scroll_to("frames", 5)
    post.send(b"".join(frames[30:60]))
    chat.wait_until("() => $('#frames li').length === 61")
    assert chat.scroll_top("frames") == 5


def test_the_conversation_follows_its_end_when_the_wire_takes_its_room(chat: Chat) -> None:
    chat.page.set_viewport_size({"width": 320, "height": 640})
    chat.ask().send(b"".join(answer("line\n" * 100)[:3]))
    chat.wait_until("() => conversation.scrollTop > 0")
    show(chat)
    chat.wait_until(f"() => !wire.hidden && {FROM_END.format(id='conversation')} < 1")


def test_who_scrolls_up_in_the_conversation_stays_there(chat: Chat) -> None:
    post = chat.ask()
    frames = answer("line\n" * 100, "more\n" * 100)
    post.send(b"".join(frames[:3]))
    chat.wait_until("() => conversation.scrollTop > 0")
    chat.scroll_to("conversation", 5)
    post.end(b"".join(frames[3:]))
    chat.wait_for_end()
    assert chat.scroll_top("conversation") == 5


def test_numbers_that_are_opened_at_the_end_of_the_conversation_are_seen(chat: Chat) -> None:
    chat.ask().end(b"".join(answer("line\n" * 100)))
    chat.see("details.facts summary").click()
    chat.wait_until(f"() => $('details.facts')[0].open && {FROM_END.format(id='conversation')} < 1")


def test_numbers_that_do_not_fit_are_shown_from_their_head_on(chat: Chat) -> None:
    chat.page.set_viewport_size({"width": 320, "height": 320})
    chat.ask().end(b"".join(answer("line\n" * 100)))
    chat.see("details.facts summary").click()
    top = "$('details.facts summary')[0].getBoundingClientRect().top - conversation.getBoundingClientRect().top"
    chat.wait_until(f"() => $('details.facts')[0].open && Math.abs({top}) < 1")


def test_a_refusal_is_seen_above_the_long_question_that_is_back_in_the_prompt(chat: Chat) -> None:
    chat.type_and_send("x" * 400_001)
    post = chat.server.next("POST", "/api/chat")
    post.head(413, {"content-type": "application/json"})
    post.end(b"{}")
    chat.see(".again")
    chat.wait_until(f"() => form[0].clientHeight > 100 && {FROM_END.format(id='conversation')} < 1")
