"""The wire pane in a real Chromium: the raw frames, their times, their bounds; and boxes that follow their end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from interop.stack import Stack, recorded, text
from support.background import Background
from support.contrast import WORST_CONTRAST

from rawsse import AsyncClient
from rawsse.cli import main
from rawsse.replay import Recording, ReplayServer, check

from .chat_page import Chat
from .scripted_server import answer, close_block, delta, finish, frame, open_block, script, start

if TYPE_CHECKING:
    from playwright.sync_api import Browser

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


# --- The tools of the pane ---------------------------------------------------------------------------------------------


def press(chat: Chat, name: str) -> None:
    chat.page.locator("#wire").get_by_role("button", name=name).click()


def count_frames(chat: Chat, count: int) -> None:
    chat.wait_until("(n) => $('#frames .frame').length === n", count)


def facts(chat: Chat) -> str:
    return chat.page.locator(".wire-facts").text_content() or ""


def test_a_paused_pane_stays_as_it_is_and_shows_what_came_when_it_goes_on(chat: Chat) -> None:
    show(chat)
    post = chat.ask()
    frames = answer("Ott", "er")
    post.send(b"".join(frames[:3]))
    count_frames(chat, 3)
    press(chat, "Pause")
    post.end(b"".join(frames[3:]))
    chat.wait_for_end()
    assert (chat.page.locator("#frames .frame").count(), chat.text) == (3, "Otter")
    assert facts(chat) == f"paused, {len(frames) - 3} waiting"
    press(chat, "Pause")
    count_frames(chat, len(frames))
    assert facts(chat) == ""


def test_a_pane_that_is_paused_for_long_counts_what_waits_and_then_shows_the_last_frames(chat: Chat) -> None:
    show(chat)
    press(chat, "Pause")
    chat.ask().end(b"".join(script(start(), open_block(), *[delta("x")] * 1000, close_block(), *finish())))
    chat.wait_for_end()
    assert facts(chat) == "paused, 1\u202f007 waiting"
    press(chat, "Pause")
    chat.wait_until("() => $('#frames li').length === 400")
    assert facts(chat) == "607 older not shown"


def test_a_paused_pane_can_be_filtered(chat: Chat) -> None:
    show(chat)
    post = chat.ask()
    frames = answer("Ott", "er")
    post.send(b"".join(frames[:3]))
    count_frames(chat, 3)
    press(chat, "Pause")
    post.end(b"".join(frames[3:]))
    chat.wait_for_end()
    chat.page.locator("#wire input").fill("block_delta")
    count_frames(chat, 1)
    press(chat, "Pause")
    count_frames(chat, 2)


def test_the_filter_finds_what_was_not_shown_for_its_age(chat: Chat) -> None:
    show(chat)
    chat.ask().end(b"".join(script(start(), open_block(), *[delta("x")] * 1000, close_block(), *finish())))
    chat.wait_for_end()
    chat.page.locator("#wire input").fill("message_start")
    count_frames(chat, 1)


def test_a_cleared_pane_is_empty_and_goes_on(chat: Chat) -> None:
    show(chat)
    post = chat.ask()
    frames = answer("Ott", "er")
    post.send(b"".join(frames[:3]))
    count_frames(chat, 3)
    press(chat, "Clear")
    assert chat.page.locator("#frames li").count() == 0
    post.end(b"".join(frames[3:]))
    count_frames(chat, len(frames) - 3)


def test_the_filter_takes_the_name_of_an_event_or_a_text(chat: Chat) -> None:
    show(chat)
    post = chat.ask()
    frames = answer("Ott", "er")
    post.send(b"".join(frames[:3]))
    count_frames(chat, 3)
    chat.page.locator("#wire input").fill("BLOCK_delta")
    count_frames(chat, 1)
    post.end(b"".join(frames[3:]))
    count_frames(chat, 2)
    chat.page.locator("#wire input").fill('"er"')
    count_frames(chat, 1)
    chat.page.locator("#wire input").fill("")
    count_frames(chat, len(frames))


def test_hostile_frames_are_text(chat: Chat) -> None:
    show(chat)
    chat.ask().end(b"".join(answer("<img src=x onerror=document.title='x'></pre><script>1</script>")))
    chat.wait_for_end()
    assert chat.page.locator("#frames :is(img, script)").count() == 0


def test_the_time_since_the_last_frame_is_told_while_the_answer_runs(chat: Chat) -> None:
    chat.page.clock.install()
    show(chat)
    post = chat.ask()
    post.send(answer("a")[0])
    chat.page.clock.run_for(500)
    chat.wait_until("() => $('#frames .frame').length === 1")
    before = chat.page.evaluate("performance.now()")
    chat.page.clock.fast_forward(7000)
    chat.page.clock.run_for(500)
    assert chat.page.evaluate("performance.now()") - before >= 7000
    told = re.fullmatch(r"last frame (\d+\.\d\d) s ago", facts(chat))
    assert told
    assert float(told[1]) >= 7


# --- Frames and text -----------------------------------------------------------------------------------------------------

LIT = "[...(CSS.highlights.get('wire') ?? [])].map(String).join()"


def test_a_frame_that_is_clicked_shows_the_text_that_it_made(chat: Chat) -> None:
    show(chat)
    frames = answer("Ott", "er and ", "otter")
    chat.ask().end(b"".join(frames))
    chat.wait_for_end()
    count_frames(chat, len(frames))
    for number, piece in ((2, "Ott"), (3, "er and "), (4, "otter"), (0, "")):
        chat.page.locator("#frames .frame").nth(number).click()
        assert chat.page.evaluate(LIT) == piece
        assert chat.page.locator("#frames [aria-selected=true]").count() == 1


def test_a_text_that_is_clicked_shows_the_frame_that_made_it(chat: Chat) -> None:
    show(chat)
    frames = answer("One otter. ", "Two otters.\n\n", "Three otters.")
    chat.ask().end(b"".join(frames))
    chat.wait_for_end()
    count_frames(chat, len(frames))
    box = chat.page.evaluate(
        """() => {
          const walker = document.createTreeWalker(document.querySelector(".answer .body"), NodeFilter.SHOW_TEXT);
          let node;
          while ((node = walker.nextNode())) {
            const at = node.data.indexOf("Two");
            if (at < 0) continue;
            const range = new Range();
            range.setStart(node, at + 1);
            range.setEnd(node, at + 2);
            const { x, y, width, height } = range.getBoundingClientRect();
            return [x + width / 2, y + height / 2];
          }
        }"""
    )
    chat.page.mouse.click(*box)
    selected = chat.page.locator("#frames [aria-selected=true]")
    assert "Two otters" in (selected.text_content() or "")
    assert "Two otters." in chat.page.evaluate(LIT)


def test_frames_are_chosen_by_keyboard_too(chat: Chat) -> None:
    show(chat)
    frames = answer("Ott", "er")
    chat.ask().end(b"".join(frames))
    chat.wait_for_end()
    count_frames(chat, len(frames))
    chat.page.locator("#frames .frame").nth(2).click()
    chat.page.locator("#frames").focus()
    chat.page.keyboard.press("ArrowDown")
    assert chat.page.evaluate(LIT) == "er"
    active = chat.page.locator("#frames").get_attribute("aria-activedescendant")
    assert active == chat.page.locator("#frames [aria-selected=true]").get_attribute("id")
    chat.page.locator("#wire input").fill("data:")  # all of them are drawn again
    count_frames(chat, len(frames))
    assert chat.page.locator("#frames [aria-selected=true]").count() == 1
    chat.page.locator("#frames").focus()
    for _ in frames:
        chat.page.keyboard.press("ArrowDown")
    assert chat.page.locator("#frames [aria-selected=true]").text_content() == (
        chat.page.locator("#frames li").last.text_content()
    )


WIRE = """async (maxKeptChars) => {
  const { Wire } = await import("/wire.js");
  const pane = document.createElement("section");
  const conversation = document.createElement("div");
  const list = document.createElement("ol");
  [pane.id, list.id] = ["wire", "frames"];
  pane.append(list);
  const page = document.createElement("main");
  page.append(conversation, pane);
  document.body.replaceChildren(page);
  window.shown = document.createElement("div");
  conversation.append(shown);
  window.wire = new Wire(list, { conversation, maxKeptChars });
  wire.begin((index) => (index === 0 ? shown : null));
  window.piece = (text) => wire.frame(`event: content_block_delta\\ndata: ${JSON.stringify({
    type: "content_block_delta", index: 0, delta: { type: "text_delta", text } })}\\n\\n`);
  window.make = (tag, ...children) => {
    const element = document.createElement(tag);
    element.append(...children);
    return element;
  };
}"""


def test_pieces_are_found_in_text_that_was_rendered_from_markdown(chat: Chat) -> None:
    chat.page.evaluate(WIRE, 10_000)
    chat.page.evaluate(
        """() => {
          for (const text of ["Two **bo", "ld** [words](https://example.com/two), `a", "", "`\\nand\\n", "* one"]) piece(text);
          const code = make("code", "a");
          shown.append(make("p", "Two ", make("strong", "bold"), " ", make("a", "words"), ", ", code, " and"));
          shown.append(make("button", "Two"), make("ul", make("li", "one")));
          wire.redraw();
        }"""
    )
    lit = []
    for number in range(5):
        chat.page.locator("li.frame").nth(number).click()
        lit.append(chat.page.evaluate(LIT))
    assert lit == ["Two bo", "ld words, a", "", " and", "one"]


def test_of_an_answer_that_is_too_long_to_be_kept_nothing_is_lit_or_saved(chat: Chat) -> None:
    chat.page.evaluate(WIRE, 10_000)
    chat.page.evaluate(
        "() => { for (const _ of Array(200)) piece('x'.repeat(10)); shown.append('x'.repeat(2000)); wire.redraw() }"
    )
    chat.page.locator("li.frame").last.click()
    assert chat.page.evaluate(LIT) == ""
    chat.page.get_by_role("button", name="Save").click()
    # It stays, although the pane is drawn again several times a second.
    chat.wait_until("(began) => performance.now() > began + 600", chat.page.evaluate("performance.now()"))
    assert facts(chat).startswith("Nothing to save")


def test_twenty_thousand_frames_leave_the_page_its_turns(chat: Chat) -> None:
    chat.page.evaluate(WIRE, 100_000_000)
    flood = """async () => {
      for (let i = 0; i < 20_000; i += 1) {
        piece(`word ${i} `);
        if (i % 50 === 0) await new Promise((resolve) => setTimeout(resolve));
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }"""
    with chat.longest_task() as longest:
        chat.page.evaluate(flood)
    assert longest[0] <= 100
    count_frames(chat, 400)


def test_a_frame_of_thinking_unfolds_it(chat: Chat) -> None:
    show(chat)
    thought = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "thinking_delta", "thinking": "Hm, otters."},
    }
    frames = script(start(), open_block(type="thinking", thinking=""), thought, close_block(), *finish())
    chat.ask().end(b"".join(frames))
    chat.wait_for_end()
    count_frames(chat, len(frames))
    chat.page.locator("#frames .frame").nth(2).click()
    assert chat.page.evaluate(LIT) == "Hm, otters."
    assert chat.page.get_by_text("Hm, otters.", exact=True).is_visible()


# --- The recording, and the picture ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["thinking", "unicode", "server-tools"])
def test_a_saved_answer_is_a_recording_that_explains_and_plays_the_same(
    chromium: Browser, tmp_path: Path, name: str
) -> None:
    async def play(saved: Recording) -> str:
        async with ReplayServer(saved) as api, AsyncClient(api_key="none", base_url=api.base_url) as client:
            question = {"role": "user", "content": "Hello"}
            message = await client.messages.create(model="claude-test-1", max_tokens=1024, messages=[question])
            return "".join(block.text for block in message.content if block.type == "text")

    with Background() as background, chromium.new_context() as context:
        page = context.new_page()
        page.goto(Stack(background, [recorded(name)]).base_url)
        show_wire = page.get_by_role("button", name="Wire", exact=True)
        show_wire.click()
        page.locator("#prompt").fill("Hello")
        page.keyboard.press("Enter")
        page.locator("#send").wait_for()
        with page.expect_download() as download:
            page.get_by_role("button", name="Save").click()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        saved = Recording.load(file)
        assert saved.body == recorded(name).body
        assert background.run(play(saved)) == text(name)
    assert file.name == "answer.sse.jsonl"
    assert [finding.rule for finding in check(saved)] == [finding.rule for finding in check(recorded(name))]
    assert main(["explain", str(file)]) == 0


def test_without_an_answer_there_is_nothing_to_save_and_the_pane_says_so(chat: Chat) -> None:
    show(chat)
    press(chat, "Save")
    assert facts(chat).startswith("Nothing to save")


def test_the_picture_shows_a_reconnect_and_the_end(chat: Chat) -> None:
    show(chat)
    post = chat.ask()
    frames = answer("Ott", "er")
    post.send(b"".join(frames[:3]))
    count_frames(chat, 3)
    chat.wait_until("() => $('#wire svg .piece').length === 1")
    post.drop()
    again = chat.server.next("GET", "/runs/r1")
    again.head(200, {"content-type": "text/event-stream"})
    again.end(b"".join(frames[3:]))
    chat.wait_for_end()
    words = chat.page.locator("#wire figcaption").text_content() or ""
    assert f"{len(frames)} frames" in words
    assert "1 reconnect · end" in words
    assert chat.page.locator("#wire svg").get_attribute("aria-hidden") == "true"  # its words are beside it
    assert [chat.page.locator(f"#wire svg .{kind}").count() for kind in ("first", "lost", "end")] == [1, 1, 1]


@pytest.mark.parametrize("settings", [{"color_scheme": "light"}, {"color_scheme": "dark"}])
def test_every_colour_of_the_pane_has_a_contrast_of_at_least_4_5(chat: Chat, settings: dict[str, Any]) -> None:
    show(chat)
    frames = [b": beat\n\n", b"retry: 5\n\n", *answer("Otter")]
    chat.ask().end(b"".join(frames))
    chat.wait_for_end()
    count_frames(chat, len(frames))
    press(chat, "Pause")
    chat.page.locator("#frames .frame").nth(4).click()
    ratio, whose = chat.page.evaluate(WORST_CONTRAST)
    assert ratio >= 4.5, whose


def test_a_text_whose_frame_is_filtered_out_says_so(chat: Chat) -> None:
    show(chat)
    frames = answer("Otter")
    chat.ask().end(b"".join(frames))
    chat.wait_for_end()
    count_frames(chat, len(frames))
    chat.page.locator("#wire input").fill("message_start")
    count_frames(chat, 1)
    chat.page.get_by_text("Otter", exact=True).click()
    assert facts(chat).startswith("The frame of this text is not shown")
    assert chat.page.locator("#frames [aria-selected=true]").count() == 0
