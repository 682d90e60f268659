"""The chat page in a real Chromium: an answer streams, is stopped, fails, is resumed; what the model writes is text."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from .chat_page import Chat
from .scripted_server import Exchange, answer, close_block, delta, done, error, finish, frame, open_block, script, start

pytestmark = pytest.mark.real

TYPES = ("text", "tool_use")
COUNTED = (1, 2)


# --- Streaming -------------------------------------------------------------------------------------------------------


def test_the_answer_is_seen_growing_before_its_end(chat: Chat) -> None:
    post = chat.ask()
    frames = answer("One", ", two", ", three")
    post.send(b"".join(frames[:2]))
    for piece, seen in zip(frames[2:5], ["One", "One, two", "One, two, three"], strict=True):
        post.send(piece)
        chat.see(".answer .body", seen)  # and only then is the next piece sent
    assert chat.page.locator("#stop").is_visible()
    post.end(b"".join(frames[5:]))
    chat.wait_for_end()
    assert (chat.text, chat.status) == ("One, two, three", "Answer complete.")


def test_the_whole_conversation_goes_along_with_each_prompt(chat: Chat) -> None:
    chat.ask("First").end(b"".join(answer("1st")))
    chat.wait_for_end()
    post = chat.ask("Second\nline")
    assert post.body["messages"] == [
        {"role": "user", "content": "First"},
        {"role": "assistant", "content": "1st"},
        {"role": "user", "content": "Second\nline"},
    ]


def test_a_new_chat_forgets_the_old_one(chat: Chat) -> None:
    chat.ask("First").end(b"".join(answer("1st")))
    chat.wait_for_end()
    chat.page.get_by_role("button", name="New chat").click()
    assert chat.page.locator("article").count() == 0
    assert chat.ask("Second").body["messages"] == [{"role": "user", "content": "Second"}]


def test_thinking_is_folded_away_and_can_be_opened(chat: Chat) -> None:
    thought = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hmm."}}
    post = chat.ask()
    post.send(frame(1, start()) + frame(2, open_block(type="thinking", thinking="", signature="")) + frame(3, thought))
    chat.see(".thinking summary", "Thinking…").click()
    assert chat.see(".thought", "Hmm.").is_visible()
    post.end(b"".join(script(close_block(), *finish(), first=4)))
    chat.wait_for_end()
    assert (chat.page.locator(".thinking summary").text_content() or "").startswith("Thought for ")


def test_a_tool_call_is_shown_by_name_and_input_as_it_streams(chat: Chat) -> None:
    pieces = ['{"city"', ': "Ulm"}']
    deltas: list[dict[str, Any]] = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    first, second = [{"type": "content_block_delta", "index": 0, "delta": each} for each in deltas]
    post = chat.ask()
    tool = open_block(type="tool_use", id="toolu_1", name="get_weather", input={})
    post.send(frame(1, start()) + frame(2, tool) + frame(3, first))
    chat.see(".tool-input", '{"city"')
    assert chat.page.locator(".tool code").text_content() == "get_weather"
    post.end(b"".join(script(second, close_block(), *finish("tool_use"), first=4)))
    chat.see(".tool-input", '{"city": "Ulm"}')


def test_a_tool_call_without_arguments_shows_its_empty_input(chat: Chat) -> None:
    tool = open_block(type="tool_use", id="toolu_1", name="now", input={})
    chat.ask().end(b"".join(script(start(), tool, close_block(), *finish("tool_use"))))
    chat.see(".tool-input", "{}")


NULLS: dict[str, tuple[dict[str, Any], ...]] = {
    "no message": ({"type": "message_start"},),
    "a message that is null": ({"type": "message_start", "message": None},),
    "content that is null": ({"type": "message_start", "message": {"model": None, "content": None, "usage": None}},),
    "content that is a text": ({"type": "message_start", "message": {"content": "x"}},),
    "a block that is null in the content": ({"type": "message_start", "message": {"content": [None]}},),
    "no block": ({"type": "content_block_start", "index": 1}, close_block(1)),
    "a block that is null": ({"type": "content_block_start", "index": 1, "content_block": None}, close_block(1)),
    "a block without fields": (
        *(open_block(i, type=type) for i, type in enumerate(TYPES, 1)),
        *map(close_block, COUNTED),
    ),
    "a block whose fields are null": (
        *(open_block(i, type=type, text=None, thinking=None, name=None, input=None) for i, type in enumerate(TYPES, 1)),
        *map(close_block, COUNTED),
    ),
    "no delta": ({"type": "content_block_delta", "index": 0},),
    "a delta that is null": ({"type": "content_block_delta", "index": 0, "delta": None},),
    "deltas without fields": tuple(
        {"type": "content_block_delta", "index": 0, "delta": {"type": f"{kind}_delta"}}
        for kind in ("text", "thinking", "input_json", "citations")
    ),
    "a citation that is null": (
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": None}},
    ),
    "a message_delta without delta": ({"type": "message_delta", "usage": None},),
    "a message_delta whose delta is null": ({"type": "message_delta", "delta": None},),
}


@pytest.mark.parametrize("events", NULLS.values(), ids=NULLS)
def test_what_is_missing_or_null_does_not_end_an_answer(chat: Chat, events: tuple[dict[str, Any], ...]) -> None:
    first = [] if events[0]["type"] == "message_start" else [start()]
    before = [*first, open_block(), *events] if first else [*events, open_block()]
    chat.ask().end(b"".join(script(*before, delta("Fine"), delta("."), close_block(), *finish())))
    chat.wait_for_end()
    assert (chat.text.replace("Tool call ", "").replace("{}", ""), chat.status) == (
        "Fine.",
        "Answer complete.",
    )
    assert chat.page.locator(".ending").count() == 0
    assert "null" not in chat.page.locator(".answer").inner_text()
    assert "undefined" not in chat.page.locator(".answer").inner_text()
    assert chat.complaints == []


def test_text_that_comes_after_the_next_block_has_begun_is_not_lost(chat: Chat) -> None:
    post = chat.ask()
    tool = open_block(1, type="tool_use", id="toolu_1", name="f", input={})
    post.send(b"".join(script(start(), open_block(), tool, close_block(1), delta("Fine"))[:-1]))
    chat.wait_until("() => $('.answer .text')[0]?.textContent === 'Fine'")
    post.end(b"".join(script(delta("."), close_block(), *finish(), first=6)))
    chat.wait_for_end()
    assert chat.page.locator(".answer .text").text_content() == "Fine."


NO_OBJECTS = [None, [], ["x"], "x", 5, True, {}, {"type": None}, {"type": ["message_start"]}, {"type": 5}]
PARTS = [None, [], [None, "x"], "x", 5, True, {"a": 1}]
"""What may stand where an object, a list, a text or a number should."""
ODD: dict[str, list[Any]] = {
    "events": NO_OBJECTS,
    "messages": [{"type": "message_start", "message": part} for part in PARTS],
    "parts of a message": [
        {"type": "message_start", "message": {"model": part, "content": part, "usage": part}} for part in PARTS
    ],
    "blocks": [
        {"type": "content_block_start", "index": 9, "content_block": part} for part in PARTS if part != {"a": 1}
    ],
    "indices": [{"type": "content_block_stop", "index": part} for part in PARTS],
    "deltas": [{"type": "content_block_delta", "index": 0, "delta": part} for part in PARTS],
    "citations": [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": each}}
        for part in PARTS
        for each in (part, {"title": part, "url": part})
        if each not in ({"title": "x", "url": "x"},)
    ],
    "texts": [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}}
        for part in PARTS
        if part != "x"
    ],
    "ends": [{"type": "message_delta", "delta": part, "usage": {"output_tokens": part}} for part in PARTS if part != 5],
    "stop reasons": [
        {"type": "message_delta", "delta": {"stop_reason": part}, "usage": part} for part in PARTS[1:] if part != "x"
    ],
}


@pytest.mark.parametrize("events", ODD.values(), ids=ODD)
def test_an_event_of_another_type_than_it_should_have_is_passed_over(chat: Chat, events: list[Any]) -> None:
    before, after = [start(), open_block(), delta("Fine")], [delta("."), close_block(), *finish()]
    shown = chat.page.evaluate(
        """async (events) => {
            const { Answer, FollowingBox } = await import("./answer.js");
            const scroller = document.querySelector("main") ?? document.body;
            const answer = new Answer(new FollowingBox(scroller));
            scroller.append(answer.element);
            for (const event of events) answer.take(event);
            await answer.finish({ kind: "complete" });
            const { text, summary } = answer;
            return { text, summary, said: answer.element.innerText };
        }""",
        [*before, *events, *after],
    )
    assert (shown["text"], shown["summary"]) == ("Fine.", "Answer complete.")
    assert "Sources" not in shown["said"]
    assert not {"null", "undefined", "NaN", "[object Object]"} & set(shown["said"].split())
    assert chat.complaints == []


def test_content_that_the_message_begins_with_is_shown(chat: Chat) -> None:
    begin = start()
    begin["message"]["content"] = [{"type": "text", "text": "Already here"}]
    chat.ask().end(b"".join(script(begin, *finish())))
    chat.see(".answer .body", "Already here")


def test_an_answer_that_lacks_nothing_but_its_last_event_is_complete(chat: Chat) -> None:
    chat.ask().end(b"".join(script(start(), open_block(), delta("All."), close_block(), finish()[0])))
    chat.wait_for_end()
    assert (chat.status, chat.page.locator("[aria-busy]").count()) == ("Answer complete.", 0)


def test_a_count_that_is_null_takes_nothing_back(chat: Chat) -> None:
    end, stop = finish()
    end["usage"]["input_tokens"] = None
    chat.ask().end(b"".join(script(start(input_tokens=55), open_block(), delta("A"), close_block(), end, stop)))
    chat.see("details.facts summary").click()
    assert "55" in chat.page.locator("details.facts dl").inner_text()


def test_an_answer_without_text_is_left_out_of_the_next_prompt(chat: Chat) -> None:
    chat.ask("First").end(b"".join(script(start(), *finish("refusal"))))
    chat.wait_for_end()
    said = [message["content"] for message in chat.ask("Second").body["messages"]]
    assert said == ["First", "Second"]


@pytest.mark.parametrize("kind", ["hologram", "constructor"])
def test_a_block_of_a_kind_not_known_yet_is_shown_as_what_it_is(chat: Chat, kind: str) -> None:
    block = open_block(type=kind, beams=3)
    chat.ask().end(b"".join(script(start(), block, close_block(), *finish())))
    chat.wait_for_end()
    assert chat.page.locator(".other summary").text_content() == kind
    assert json.loads(chat.page.locator(".other pre").text_content() or "")["beams"] == 3


def test_cited_sources_are_listed_once(chat: Chat) -> None:
    citation = {"type": "web_search_result_location", "url": "https://example.org/a", "title": "A", "cited_text": "a"}
    cite = {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": citation}}
    chat.ask().end(b"".join(script(start(), open_block(), delta("So."), cite, cite, close_block(), *finish())))
    chat.wait_for_end()
    assert chat.page.locator(".sources a").evaluate_all("(links) => links.map((a) => [a.textContent, a.href])") == [
        ["A", "https://example.org/a"]
    ]


def test_stop_reason_usage_and_speed_stand_under_the_answer_with_their_meaning(chat: Chat) -> None:
    post = chat.ask()
    post.send(b"".join(script(start(input_tokens=1412), open_block(), delta("A"))[:3]))
    chat.see(".answer .body", "A")
    chat.wait_until("(began) => performance.now() > began + 60", chat.page.evaluate("performance.now()"))
    post.end(b"".join(script(delta("B"), close_block(), *finish("max_tokens", output_tokens=3180), first=4)))
    summary = chat.see("details.facts summary")
    said = r"claude-test-1 · 1\u202f412 tokens in · 3\u202f180 out · \d\.\d\d s · "
    assert re.match(said, summary.text_content() or "")
    summary.click()
    facts = chat.page.locator("details.facts dl").inner_text()
    assert chat.page.locator(".limited").text_content() == "Cut off: the limit of output tokens was reached."
    assert chat.status == "Cut off: the limit of output tokens was reached."
    assert "tokens/s: output_tokens over the time from first to last content" in facts
    assert "1\u202f412" in facts


@pytest.mark.parametrize(
    ("events", "has_content"),
    [
        ([open_block(), delta("Hi")], True),
        ([open_block(text="Hi")], True),
        ([open_block(type="web_search_tool_result", content=[{"type": "web_search_result"}])], True),
        ([open_block(type="tool_use", id="t", name="f", input={"a": 1})], True),
        ([open_block(), delta("")], False),
        ([open_block(type="tool_use", id="t", name="f", input={})], False),
    ],
)
def test_the_first_token_is_the_first_event_that_brings_content(
    chat: Chat, events: list[dict[str, Any]], has_content: bool
) -> None:
    chat.page.get_by_role("button", name="Wire").click()
    chat.ask().end(b"".join(script(start(), *events, close_block(), *finish())))
    chat.see("details.facts summary").click()
    assert ("First content" in chat.page.locator("details.facts dl").inner_text()) is has_content
    chat.wait_for_end()
    words = chat.page.locator("#wire figcaption").text_content() or ""
    assert ("first content" in words) is has_content
    assert ("no content yet" in words) is not has_content


# --- Stopping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_stop_ends_the_answer_and_tells_the_server(chat: Chat, way: str) -> None:
    post = chat.ask()
    post.send(b"".join(answer("Half")[:3]))
    chat.see(".answer .body", "Half")
    chat.page.locator("#stop").click() if way == "button" else chat.page.keyboard.press(way)
    chat.server.expect_stop()
    post.wait_for_hang_up()
    chat.wait_for_end()
    assert (chat.text, chat.status) == ("Half", "Stopped.")
    assert "The answer above is incomplete." in (chat.see(".ending").text_content() or "")


def test_stop_works_before_the_first_byte(chat: Chat) -> None:
    chat.type_and_send()
    post = chat.server.next("POST", "/api/chat")
    chat.page.keyboard.press("Escape")
    chat.server.expect_stop(post.headers["x-run-id"], 404)  # the server may have heard of the run, or not yet
    post.wait_for_hang_up()
    chat.wait_for_end()
    assert chat.status == "Stopped."


def test_a_new_chat_stops_the_running_answer(chat: Chat) -> None:
    post = chat.ask("First")
    post.send(frame(1, start()))
    chat.see(".model")
    # Within one turn of the page's event loop: the old answer hears of its end only after the new one has begun.
    chat.page.evaluate("fresh.click(); prompt = form[0]; prompt.value = 'Second'; form.requestSubmit()")
    chat.server.expect_stop()
    post.wait_for_hang_up()
    chat.server.begin("r2").send(frame(1, start()))
    chat.see(".model")
    assert chat.page.locator("#stop").is_visible()  # the second answer's


def test_after_a_stop_the_conversation_goes_on_with_what_was_said(chat: Chat) -> None:
    post = chat.ask("First")
    post.send(b"".join(answer("Half")[:3]))
    chat.see(".answer .body", "Half")
    chat.page.keyboard.press("Escape")
    chat.server.expect_stop()
    chat.wait_for_end()
    said = [message["content"] for message in chat.ask("Second").body["messages"]]
    assert said == ["First", "Half", "Second"]


def test_a_stop_that_the_server_did_not_take_is_told(chat: Chat) -> None:
    chat.ask().send(frame(1, start()))
    chat.see(".model")
    chat.page.keyboard.press("Escape")
    for _ in range(3):
        chat.server.expect_stop(status=500)
    chat.see("#status", "Stopped here, but the server could not be reached. It stops in a few seconds.")


# --- Failures --------------------------------------------------------------------------------------------------------


def test_a_failure_before_the_stream_is_said_in_words(chat: Chat) -> None:
    chat.type_and_send()
    post = chat.server.next("POST", "/api/chat")
    post.head(529, {"content-type": "text/event-stream; charset=utf-8"})
    post.end(frame(1, error("overloaded_error", "Overloaded")) + done(2))
    words = chat.see(".ending").text_content() or ""
    assert words.startswith(
        "The API is overloaded. Wait a moment, then try again.Overloaded (status 529, overloaded_error)"
    )
    assert "incomplete" not in words
    assert chat.status == "The API is overloaded. Wait a moment, then try again."


def test_a_refused_field_is_named(chat: Chat) -> None:
    chat.type_and_send()
    post = chat.server.next("POST", "/api/chat")
    post.head(400, {"content-type": "application/json"})
    fields = {"type": "invalid_request_error", "message": "messages: too many", "field": "messages"}
    post.end(json.dumps({"type": "error", "error": fields}).encode())
    words = chat.see(".ending p").text_content()
    assert words == "messages: too many (status 400, invalid_request_error, field messages)"


def refuse(post: Exchange, status: int = 413) -> None:
    post.head(status, {"content-type": "application/json"})
    post.end(json.dumps(error("request_too_large", "messages: too long")).encode())


@pytest.mark.parametrize("status", [400, 413])
def test_a_refused_question_does_not_go_along_with_the_next_one(chat: Chat, status: int) -> None:
    chat.ask("First").end(b"".join(answer("Fine.")))
    chat.wait_for_end()
    chat.type_and_send("x" * 1000)
    refuse(chat.server.next("POST", "/api/chat"), status)
    chat.see(".again")
    said = [message["content"] for message in chat.ask("hello").body["messages"]]
    assert said == ["First", "Fine.", "hello"]


def test_a_refused_first_question_leaves_the_conversation_empty(chat: Chat) -> None:
    chat.type_and_send("x" * 400_001)
    refuse(chat.server.next("POST", "/api/chat"))
    chat.see(".again")
    assert chat.ask("hello").body["messages"] == [{"role": "user", "content": "hello"}]


def test_a_question_refused_within_the_stream_is_taken_back_too(chat: Chat) -> None:
    chat.ask("Bad").end(frame(1, error("invalid_request_error", "no")) + done(2))
    chat.see(".again")
    assert chat.ask("hello").body["messages"] == [{"role": "user", "content": "hello"}]


def test_a_refused_question_is_back_in_the_prompt_to_be_mended(chat: Chat) -> None:
    chat.type_and_send("Too long")
    refuse(chat.server.next("POST", "/api/chat"))
    chat.see(".again")
    assert (chat.page.locator("#prompt").input_value(), chat.focus) == ("Too long", "prompt")
    assert chat.page.locator(".question .text").all_text_contents() == ["Too long"]


def test_a_refused_question_does_not_replace_what_is_being_written(chat: Chat) -> None:
    chat.type_and_send("Too long")
    post = chat.server.next("POST", "/api/chat")
    chat.page.locator("#prompt").fill("The next")
    refuse(post)
    chat.see(".again")
    assert chat.page.locator("#prompt").input_value() == "The next"


def test_try_again_asks_a_refused_question_once_more(chat: Chat) -> None:
    chat.type_and_send("Why?")
    refuse(chat.server.next("POST", "/api/chat"))
    chat.page.get_by_role("button", name="Try again").click()
    assert chat.server.begin().body["messages"] == [{"role": "user", "content": "Why?"}]
    assert chat.page.locator("#prompt").input_value() == ""


def test_an_error_after_content_keeps_the_text_and_marks_it_incomplete(chat: Chat) -> None:
    post = chat.ask()
    post.end(b"".join(answer("Half")[:3]) + frame(4, error("api_error", "Internal server error")) + done(5))
    words = chat.see(".ending").text_content() or ""
    assert words.startswith("The API or the server failed. The answer above is incomplete.Internal server error")
    assert chat.text == "Half"


def test_an_api_that_is_not_reached_is_not_said_to_have_answered(chat: Chat) -> None:
    ending = {"kind": "truncated", "phase": "connect"}
    failed = {**error("api_error", "the API could not be reached"), "ending": ending}
    chat.ask().end(frame(1, failed) + done(2))
    words = chat.see(".ending").text_content() or ""
    assert words.startswith("The API or the server failed.the API could not be reached")


def test_a_stream_that_ends_before_the_answer_is_no_finished_answer(chat: Chat) -> None:
    chat.ask().end(b"".join(answer("Half")[:3]) + done(4))
    words = chat.see(".ending").text_content() or ""
    assert words.startswith("The connection was lost before the answer was complete. The answer above is incomplete.")
    assert chat.text == "Half"


def test_thinking_that_was_cut_is_marked(chat: Chat) -> None:
    chat.ask().end(b"".join(script(start(), open_block(type="thinking", thinking="Hm", signature=""))))
    chat.see(".failed")
    assert (chat.page.locator(".thinking summary").text_content() or "").endswith(", not to the end")


def test_an_incomplete_answer_claims_no_count_of_tokens(chat: Chat) -> None:
    chat.ask().end(b"".join(script(start(), open_block(), delta("A"))))
    summary = chat.see("details.facts summary").text_content() or ""
    assert summary.startswith("claude-test-1 · 0.")


def test_only_the_last_answer_can_be_tried_again(chat: Chat) -> None:
    chat.ask("First").end(frame(1, error("api_error", "no")) + done(2))
    chat.see(".again")
    chat.ask("Second")
    assert chat.page.locator(".again").count() == 0


def test_a_tool_call_that_was_cut_is_marked(chat: Chat) -> None:
    cut = {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a'}}
    tool = open_block(type="tool_use", id="toolu_1", name="f", input={})
    chat.ask().end(b"".join(script(start(), tool, cut)))
    chat.see(".tool-note", " (input incomplete)")


def test_try_again_asks_the_same_once_more_in_place_of_the_failed_answer(chat: Chat) -> None:
    chat.ask("Why?").end(b"".join(answer("Half")[:3]) + frame(4, error("api_error", "no")) + done(5))
    chat.page.get_by_role("button", name="Try again").click()
    post = chat.server.begin("r2")
    assert post.body["messages"] == [{"role": "user", "content": "Why?"}]
    post.end(b"".join(answer("Because.")))
    chat.wait_for_end()
    assert chat.page.locator(".answer .body").all_text_contents() == ["Because."]
    assert chat.focus == "prompt"


def test_a_lost_connection_is_resumed_and_the_text_is_there_once(chat: Chat) -> None:
    post = chat.ask()
    frames = answer("One", " two", " three")
    post.send(b"".join(frames[:4]) + frames[4][:20])
    chat.see(".answer .body", "One two")
    post.drop()
    chat.see("#status", "Connection lost. Reconnecting…")
    get = chat.server.next("GET", "/runs/r1")
    assert get.headers["last-event-id"] == "e-4"
    get.head(200, {"content-type": "text/event-stream"})
    get.send(frames[4])
    chat.see("#status", "Claude is answering…")
    get.end(b"".join(frames[5:]))
    chat.wait_for_end()
    assert (chat.text, chat.status) == ("One two three", "Answer complete.")
    assert [exchange.method for exchange in chat.server.exchanges] == ["POST", "GET"]


def test_a_run_that_cannot_be_resumed_keeps_its_text_as_incomplete(chat: Chat) -> None:
    post = chat.ask()
    post.send(b"".join(answer("Half")[:3]))
    chat.see(".answer .body", "Half")
    post.drop()
    get = chat.server.next("GET", "/runs/r1")
    get.head(404, {"content-type": "application/json"})
    get.end(b"{}")
    assert "(status 404, forgotten)" in (chat.see(".ending").text_content() or "")
    assert chat.text == "Half"


# --- What the model writes is text -----------------------------------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script><b>bold</b> &amp; \u202e"


def test_markup_from_the_model_stays_text_wherever_it_stands(chat: Chat) -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "text", "text": HOSTILE},
        {"type": "thinking", "thinking": HOSTILE, "signature": ""},
        {"type": "tool_use", "id": "t", "name": HOSTILE, "input": {"x": HOSTILE}},
        {"type": HOSTILE, "html": HOSTILE},
    ]
    events = [each for i, block in enumerate(blocks) for each in (open_block(i, **block), close_block(i))]
    begin = start()
    begin["message"]["model"] = HOSTILE
    chat.ask(HOSTILE).end(b"".join(script(begin, *events, *finish(HOSTILE))))
    chat.wait_for_end()
    assert chat.page.locator("article :is(img, script, b)").count() == 0
    assert chat.page.locator("#wire :is(img, script, b)").count() == 0
    assert chat.page.locator(".answer .text").text_content() == HOSTILE.replace("&amp;", "&")
    for selector in (".question .text", ".thought", ".tool code", ".other summary"):
        assert chat.page.locator(selector).text_content() == HOSTILE
    assert chat.complaints == []


def test_markup_in_an_error_stays_text(chat: Chat) -> None:
    chat.ask().end(frame(1, error("x", HOSTILE)) + done(2))
    assert chat.see(".ending p").text_content() == f"{HOSTILE} (x)"
    assert chat.complaints == []


def test_the_policy_is_kept_and_nothing_complains(chat: Chat) -> None:
    chat.page.get_by_role("button", name="Wire").click()
    chat.ask().end(b"".join(answer("Fine.")))
    chat.wait_for_end()
    assert chat.complaints == []
    assert chat.page.locator("[style], [onclick], style, script:not([src])").count() == 0


def test_a_token_in_the_pages_address_goes_with_each_request(chat: Chat) -> None:
    chat.page.goto("about:blank")
    chat.page.goto(f"{chat.server.url}#token=secret")
    post = chat.ask()
    post.send(frame(1, start()))
    chat.see(".model")
    chat.page.keyboard.press("Escape")
    delete = chat.server.expect_stop()
    assert [each.headers["authorization"] for each in (post, delete)] == ["Bearer secret"] * 2
