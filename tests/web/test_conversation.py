"""The conversation in a real Chromium: kept over a reload, changed, copied; models, quota and token of the relay."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .chat_page import Chat
from .scripted_server import answer, close_block, delta, error, finish, open_block, script, start

pytestmark = pytest.mark.real


def asked(chat: Chat, question: str, said: str) -> None:
    chat.ask(question).end(b"".join(answer(said)))
    chat.wait_for_end()


def said(body: Any) -> list[str]:
    return [message["content"] for message in body["messages"]]


# --- Over a reload -----------------------------------------------------------------------------------------------------


def test_a_reload_keeps_the_conversation(chat: Chat) -> None:
    asked(chat, "First", "**1st**")
    asked(chat, "Second", "2nd")
    facts = chat.page.locator("details.facts summary").all_text_contents()
    chat.page.reload()
    chat.see(".answer:last-child .footer")
    assert chat.page.locator(".answer .body").all_text_contents() == ["1st", "2nd"]
    assert chat.page.locator(".answer strong").text_content() == "1st"
    assert chat.page.locator("details.facts summary").all_text_contents() == facts
    assert chat.page.locator(".again").count() == 1  # of the last
    assert said(chat.ask("Third").body) == ["First", "**1st**", "Second", "2nd", "Third"]


def test_every_kind_of_block_is_there_again_after_a_reload(chat: Chat) -> None:
    citation = {
        "type": "web_search_result_location",
        "url": "https://a.example/",
        "title": "A",
        "encrypted_index": "SECRET",
    }
    search = {"type": "web_search_result", "url": "https://b.example/", "title": "B", "encrypted_content": "SECRET"}
    events = [
        open_block(0, type="thinking", thinking="Hm", signature="SECRET"),
        close_block(0),
        open_block(1, type="redacted_thinking", data="SECRET"),
        close_block(1),
        open_block(2, type="server_tool_use", id="t", name="web_search", input={}),
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": '{"q": "b"}'},
        },
        close_block(2),
        open_block(3, type="web_search_tool_result", tool_use_id="t", content=[search]),
        close_block(3),
        open_block(4, type="text", text="So"),
        {"type": "content_block_delta", "index": 4, "delta": {"type": "citations_delta", "citation": citation}},
        close_block(4),
        open_block(5, type="text", text="."),
        close_block(5),
    ]
    chat.ask().end(b"".join(script(start(), *events, *finish())))
    chat.wait_for_end()
    before = chat.page.locator(".answer").inner_html()
    assert [
        word in before for word in ("Hm", "web_search", '{"q": "b"}', "https://b.example/", "https://a.example/")
    ] == [True] * 5
    kept = chat.page.evaluate("sessionStorage.getItem('rawsse.conversation')")
    chat.page.reload()
    chat.see(".footer")
    assert chat.page.locator(".answer").inner_html() == before
    assert "SECRET" not in before + kept


@pytest.mark.parametrize("ending", ["stopped", "failed"])
def test_an_ending_is_there_again_after_a_reload(chat: Chat, ending: str) -> None:
    post = chat.ask("First")
    post.send(b"".join(answer("Half")[:3]))
    chat.see(".answer .body", "Half")
    if ending == "stopped":
        chat.page.keyboard.press("Escape")
        chat.server.expect_stop()
    else:
        post.end(b"".join(script(error("api_error", "no"), first=4)))
    chat.see(f".ending.{ending}")
    before = chat.page.locator(".ending").text_content()
    chat.page.reload()
    assert chat.see(f".ending.{ending}").text_content() == before
    chat.page.locator(".again").click()
    assert said(chat.server.begin("r2").body) == ["First"]


def test_a_reload_in_the_middle_of_an_answer_goes_on_with_it_by_its_id(chat: Chat) -> None:
    asked(chat, "First", "1st")
    frames = answer("One", ", two")
    chat.ask("Second").send(b"".join(frames[:3]))
    chat.see(".answer:last-child .body", "One")
    chat.page.reload()
    get = chat.server.next("GET", "/runs/r1")
    assert "last-event-id" not in get.headers
    get.head(200, {"content-type": "text/event-stream"})
    get.send(b"".join(frames[:4]))
    chat.see(".answer:last-child .body", "One, two")
    assert chat.page.locator("#stop").is_visible()
    get.end(b"".join(frames[4:]))
    chat.wait_for_end()
    assert said(chat.ask("Third").body) == ["First", "1st", "Second", "One, two", "Third"]
    assert [each.method for each in chat.server.exchanges] == ["POST", "POST", "GET", "POST"]


def test_an_answer_that_is_read_again_after_a_reload_claims_no_times(chat: Chat) -> None:
    thought = [open_block(type="thinking", thinking="Hm", signature=""), close_block()]
    frames = script(start(), *thought, open_block(1), delta("Nine", 1), delta(".", 1), close_block(1), *finish())
    chat.ask().send(b"".join(frames[:2]))
    chat.see(".thinking")
    chat.page.reload()
    get = chat.server.next("GET", "/runs/r1")
    get.head(200, {"content-type": "text/event-stream"})
    get.send(b"".join(frames[:5]))
    chat.see(".body .text", "Nine")
    chat.wait_until("(began) => performance.now() > began + 60", chat.page.evaluate("performance.now()"))
    get.end(b"".join(frames[5:]))
    chat.see("details.facts summary", "claude-test-1 · 12 tokens in · 7 out")
    chat.see(".thinking summary", "Thought for a while")


def test_a_run_that_is_gone_after_a_reload_is_told_and_can_be_asked_again(chat: Chat) -> None:
    chat.ask("First").send(b"".join(answer("One")[:3]))
    chat.see(".answer .body", "One")
    chat.page.reload()
    get = chat.server.next("GET", "/runs/r1")
    get.head(404, {"content-type": "application/json"})
    get.end(json.dumps(error("not_found_error", "there is no such run")).encode())
    assert "The server no longer has this answer" in (chat.see(".ending").text_content() or "")
    chat.page.get_by_role("button", name="Try again").click()
    assert said(chat.server.begin("r2").body) == ["First"]


def test_a_new_chat_is_new_after_a_reload_too(chat: Chat) -> None:
    asked(chat, "First", "1st")
    chat.page.get_by_role("button", name="New chat").click()
    chat.page.reload()
    chat.see("#welcome")
    assert chat.page.locator("article").count() == 0


def test_of_a_conversation_that_is_too_long_the_newest_part_is_kept(chat: Chat) -> None:
    asked(chat, "First", "x" * 1_500_000)
    asked(chat, "Second", "y" * 1_000_000)
    chat.page.reload()
    chat.see(".footer")
    assert chat.page.locator(".question .text").all_text_contents() == ["Second"]
    assert chat.complaints == []


def test_what_another_program_left_in_the_storage_does_not_stop_the_page(chat: Chat) -> None:
    for left in ("{", "5", "null", '{"exchanges":[{"answer":5}]}'):
        chat.page.evaluate("(left) => sessionStorage.setItem('rawsse.conversation', left)", left)
        chat.page.reload()
        chat.see("#welcome")
        assert chat.complaints == []
    asked(chat, "First", "1st")


# --- Changing and copying ----------------------------------------------------------------------------------------------


def test_a_question_is_changed_and_what_came_after_it_is_left_out(chat: Chat) -> None:
    asked(chat, "First", "1st")
    asked(chat, "Secnd", "2nd")
    asked(chat, "Third", "3rd")
    chat.page.get_by_role("button", name="Edit this message").nth(1).click()
    assert (chat.page.locator("#prompt").input_value(), chat.focus) == ("Secnd", "prompt")
    assert chat.status == "Sending this again removes everything after it. Escape cancels."
    chat.page.locator("#prompt").fill("Second")
    chat.page.keyboard.press("Enter")
    assert said(chat.server.begin().body) == ["First", "1st", "Second"]
    assert chat.page.locator(".question .text").all_text_contents() == ["First", "Second"]


def test_escape_leaves_a_question_as_it_was(chat: Chat) -> None:
    asked(chat, "First", "1st")
    chat.page.get_by_role("button", name="Edit this message").click()
    chat.page.keyboard.press("Escape")
    assert (chat.page.locator("#prompt").input_value(), chat.status) == ("", "")
    assert said(chat.ask("Second").body) == ["First", "1st", "Second"]


def test_retry_asks_for_another_answer_in_place_of_the_last(chat: Chat) -> None:
    asked(chat, "First", "1st")
    chat.page.get_by_role("button", name="Retry").click()
    post = chat.server.begin("r2")
    assert said(post.body) == ["First"]
    post.end(b"".join(answer("Better")))
    chat.wait_for_end()
    assert chat.page.locator(".answer .body").all_text_contents() == ["Better"]


@pytest.mark.parametrize("settings", [{"permissions": ["clipboard-read", "clipboard-write"]}])
def test_an_answer_is_copied_as_markdown_and_code_as_it_is(chat: Chat, settings: dict[str, Any]) -> None:
    source = "**A**\n\n```sh\necho  1\n\techo 2\n```\n"
    asked(chat, "First", source)
    for name, text in (("Copy the answer", source), ("Copy the code", "echo  1\n\techo 2")):
        chat.page.get_by_role("button", name=name).click()
        chat.see("#status", "Copied.")
        assert chat.page.evaluate("navigator.clipboard.readText()") == text


# --- Models, quota, token ------------------------------------------------------------------------------------------------

MODELS = {"data": [{"id": "a", "display_name": "A"}, {"id": "b", "display_name": "B"}]}


def test_a_model_is_chosen_where_there_are_several_and_the_choice_is_kept(chat: Chat) -> None:
    assert chat.page.locator("#model").is_hidden()
    assert "model" not in chat.ask().body
    chat.page.keyboard.press("Escape")
    chat.server.facts["/v1/models"] = (200, MODELS)
    chat.page.reload()
    chat.page.get_by_role("combobox", name="Model").select_option("B")
    chat.page.reload()
    chat.see("#model")
    assert chat.page.locator("#model").input_value() == "b"
    chat.page.get_by_role("button", name="New chat").click()
    assert set(chat.ask().body) == {"messages", "model"}  # nothing that a browser may not send


def quota(requests: int) -> tuple[int, Any]:
    limits = {"requests_per_minute": 60, "tokens_per_day": 200_000}
    return 200, {
        "user": "ada",
        "limits": limits,
        "left": {"requests_per_minute": requests, "tokens_per_day": 120_000},
        "resets": {},
    }


def test_what_is_left_of_a_quota_is_shown_and_renewed_after_an_answer(chat: Chat) -> None:
    assert chat.page.locator("#quota").is_hidden()
    chat.server.facts["/me"] = quota(41)
    chat.page.reload()
    words = "{} of 60 requests left this minute · 120\u202f000 of 200\u202f000 tokens left today"
    chat.see("#quota", words.format(41))
    chat.server.facts["/me"] = quota(40)
    asked(chat, "First", "1st")
    chat.see("#quota", words.format(40))


def refuse(chat: Chat) -> None:
    post = chat.server.next("POST", "/api/chat")
    post.head(401, {"content-type": "application/json"})
    post.end(json.dumps(error("authentication_error", "no token")).encode())


def test_a_token_is_asked_for_when_it_is_wanted_and_the_question_is_asked_again(chat: Chat) -> None:
    chat.type_and_send("First")
    refuse(chat)
    chat.page.get_by_label("This server requires a token.").fill("secret")
    chat.page.keyboard.press("Enter")
    post = chat.server.begin()
    assert (post.headers["authorization"], said(post.body)) == ("Bearer secret", ["First"])
    assert chat.page.locator("#access").is_hidden()
    assert "secret" not in chat.page.content()


def test_a_token_that_is_refused_is_said_to_be(chat: Chat) -> None:
    chat.server.facts["/v1/models"] = chat.server.facts["/me"] = (401, error("authentication_error", "no token"))
    chat.page.reload()
    chat.see("#access")
    assert chat.status == ""
    chat.page.keyboard.type("wrong")
    chat.page.keyboard.press("Enter")
    chat.see("#status:not(.unseen)", "Invalid token.")
    assert chat.focus == "token"


def test_a_token_is_kept_for_the_tab(chat: Chat) -> None:
    chat.type_and_send("First")
    refuse(chat)
    chat.page.get_by_label("This server requires a token.").fill("secret")
    chat.page.keyboard.press("Enter")
    chat.server.begin().end(b"".join(script(start(), open_block(), delta("1st"), close_block(), *finish())))
    chat.wait_for_end()
    chat.page.reload()
    assert chat.ask("Second").headers["authorization"] == "Bearer secret"


def test_a_relay_that_wants_a_token_says_so_before_the_first_question(chat: Chat) -> None:
    chat.server.facts["/v1/models"] = chat.server.facts["/me"] = (401, error("authentication_error", "no token"))
    chat.page.reload()
    chat.see("#access")
    assert chat.focus == "token"
    chat.server.facts["/v1/models"] = (200, MODELS)
    chat.server.facts["/me"] = quota(41)
    chat.page.keyboard.type("secret")
    chat.page.keyboard.press("Enter")
    chat.see("#quota")
    assert chat.page.locator("#model").is_visible()
