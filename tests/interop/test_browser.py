"""Chromium against `rawsse demo` and the relay: what a person sees, and what happens upstream when they leave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.background import PATIENCE, Background
from support.command import Command

from rawsse.relay import RunLimits

from .conftest import Start
from .stack import message, recorded, text

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """The address of `rawsse demo`, at ten times the recorded pace."""
    with Command("demo", "--port", "0", "--speed", "10") as command:
        yield command.base_url
        assert command.stop() == 0


def ask(page: Page, prompt: str) -> None:
    page.get_by_role("textbox").fill(prompt)
    page.keyboard.press("Enter")


def plain(markdown: str) -> str:
    """A text without white space and Markdown's marks: what it has in common with the elements that are made of it."""
    return "".join(markdown.split()).replace("*", "").replace("`", "")


def wait_for(page: Page, condition: str, argument: Any = None) -> None:
    page.wait_for_function(condition, arg=argument)


SHOWS = "(wanted) => document.body.textContent.includes(wanted)"


# --- The demo --------------------------------------------------------------------------------------------------------

# Notes every state of the conversation, as it is painted.
WATCH = """() => {
    window.states = new Set();
    const note = () => states.add(document.querySelector('[role=log]').textContent);
    new MutationObserver(note).observe(document.body, { childList: true, subtree: true, characterData: true });
}"""


def test_an_answer_is_seen_in_several_states_before_its_end(demo: str, page: Page, tmp_path: Path) -> None:
    page.goto(demo)
    page.evaluate(WATCH)
    ask(page, "Hello")
    wait_for(page, SHOWS, text("plain")[:40])
    page.screenshot(path=tmp_path / "streaming.png")
    last = text("plain").rsplit("\n", 1)[-1]
    wait_for(page, SHOWS, last)
    page.screenshot(path=tmp_path / "whole.png")
    begun = [state for state in page.evaluate("[...states]") if text("plain")[:19] in state]
    assert len([state for state in begun if last not in state]) > 5


def test_stop_leaves_what_came_and_the_next_prompt_works(demo: str, page: Page, tmp_path: Path) -> None:
    page.goto(demo)
    ask(page, "Hello")
    wait_for(page, SHOWS, text("plain")[:40])
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Send").wait_for()
    page.screenshot(path=tmp_path / "stopped.png")
    assert text("plain")[-40:] not in page.locator("body").inner_text()
    ask(page, "Now show me unicode")
    wait_for(page, SHOWS, "Привет")


@pytest.mark.parametrize(
    ("prompt", "words"), [("overload", "overloaded"), ("error", "Internal server error"), ("cut", "incomplete")]
)
def test_a_failure_is_told_in_words(prompt: str, words: str, demo: str, page: Page, tmp_path: Path) -> None:
    page.goto(demo)
    ask(page, f"Please show me: {prompt}")
    wait_for(page, SHOWS, words)
    page.screenshot(path=tmp_path / f"{prompt}.png")
    page.get_by_role("button", name="Send").wait_for()


@pytest.mark.parametrize(
    ("prompt", "name"), [("unicode", "unicode"), ("think", "thinking"), ("tool", "tools"), ("search", "server-tools")]
)
def test_every_kind_of_answer_is_shown_to_its_end(prompt: str, name: str, demo: str, page: Page) -> None:
    page.goto(demo)
    ask(page, f"Please show me: {prompt}")
    page.get_by_role("button", name="Stop").wait_for()
    page.get_by_role("button", name="Send").wait_for()
    last = [block["text"] for block in message(name)["content"] if block["type"] == "text"][-1]
    shown = page.locator("[role=log]").text_content() or ""
    assert plain(last) in plain(shown)


# --- EventSource -----------------------------------------------------------------------------------------------------

LISTEN = """async () => {
    const response = await fetch('/chat/stream', { method: 'POST', headers: { 'content-type': 'application/json' },
                                                   body: JSON.stringify({ message: 'Hello' }) });
    const reader = response.body.getReader();
    await reader.read();
    const source = new EventSource(`/runs/${response.headers.get('x-run-id')}`);
    const data = [], ids = [];
    source.onmessage = (event) => { data.push(event.data); ids.push(event.lastEventId); };
    while (source.readyState !== EventSource.CLOSED) await new Promise((wait) => setTimeout(wait, 20));
    await reader.cancel();
    return { data, ids: new Set(ids).size };
}"""


def test_an_event_source_reads_a_run_and_is_told_to_stop_after_its_end(demo: str, page: Page) -> None:
    page.goto(demo)
    told = page.evaluate(LISTEN)
    assert told["data"][-1] == "[DONE]"
    pieces = [json.loads(data)["text"] for data in told["data"][:-1]]
    assert "".join(pieces) == text("plain")  # nothing twice, although it has come back once more after the end
    assert told["ids"] == len(told["data"])


# --- Leaving ---------------------------------------------------------------------------------------------------------


def test_closing_the_tab_cancels_the_call_upstream_after_the_grace_time(
    start: Start, background: Background, context: BrowserContext
) -> None:
    gate = background.gate(free=1)
    relay = start(recorded("plain"), speed=1, sleep=gate.sleep, limits=RunLimits(grace_seconds=0.3))
    page = context.new_page()
    page.goto(relay.base_url)
    ask(page, "Hello")
    wait_for(page, SHOWS, "A server-sent event")
    assert not gate.left.is_set()
    page.close()
    assert gate.left.wait(PATIENCE)


def test_stopping_cancels_the_call_upstream_at_once(
    start: Start, background: Background, context: BrowserContext
) -> None:
    gate = background.gate(free=1)
    relay = start(recorded("plain"), speed=1, sleep=gate.sleep, limits=RunLimits(grace_seconds=3600))
    page = context.new_page()
    page.goto(relay.base_url)
    ask(page, "Hello")
    wait_for(page, SHOWS, "A server-sent event")
    page.get_by_role("button", name="Stop").click()
    assert gate.left.wait(PATIENCE)


@pytest.mark.parametrize(
    ("mode", "content_type", "outcome"), [("no-cors", "text/plain", "sent"), ("cors", "application/json", "refused")]
)
def test_a_page_of_another_origin_cannot_spend_the_key(
    mode: str, content_type: str, outcome: str, start: Start, context: BrowserContext
) -> None:
    relay, elsewhere = start(recorded("plain")), start(recorded("plain"))
    page = context.new_page()
    page.goto(f"{elsewhere.base_url}/healthz".replace("127.0.0.1", "localhost"))
    script = """([url, mode, type]) => fetch(url, { method: 'POST', mode, headers: { 'content-type': type },
        body: JSON.stringify({ message: 'Hello' }) }).then(() => 'sent', () => 'refused')"""
    assert page.evaluate(script, [f"{relay.base_url}/chat/stream", mode, content_type]) == outcome
    assert relay.requests == []
