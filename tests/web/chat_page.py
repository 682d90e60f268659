"""The chat page as a person meets it, in front of a relay that does just what each test tells it to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .scripted_server import Exchange, ScriptedServer

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


class Chat:
    """The page as a person meets it, and the server behind it."""

    def __init__(self, page: Page, server: ScriptedServer) -> None:
        self.page, self.server = page, server
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda fault: self.complaints.append(f"uncaught: {fault}"))
        page.goto(server.url)

    def type_and_send(self, text: str = "Hello") -> None:
        self.page.locator("#prompt").fill(text)
        self.page.keyboard.press("Enter")

    def ask(self, text: str = "Hello") -> Exchange:
        """Send a prompt; the server has begun the run and sent no frame yet."""
        self.type_and_send(text)
        return self.server.begin()

    def see(self, selector: str, text: str | None = None) -> Locator:
        """Wait until this is on the page, with just this text if one is named."""
        found = self.page.locator(selector).last
        found.wait_for()
        if text is not None:
            self.wait_until("([selector, text]) => [...$(selector)].at(-1)?.textContent === text", [selector, text])
        return found

    def wait_until(self, condition: str, *arguments: Any) -> None:
        """Wait until this JavaScript function, asked once per frame, says true. `$` is querySelectorAll."""
        # A function, since the page's policy forbids Playwright to evaluate a string over and over.
        body = condition.replace("$(", "document.querySelectorAll(")
        self.page.wait_for_function(body, arg=arguments[0] if arguments else None)

    def scroll_to(self, id: str, top: int) -> None:
        """Scroll a box as a reader does; return when the page has been told of it."""
        frame = "new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
        self.page.evaluate(
            f"([id, top]) => {{ document.getElementById(id).scrollTop = top; return {frame}; }}", [id, top]
        )

    def scroll_top(self, id: str) -> float:
        return float(self.page.evaluate("(id) => document.getElementById(id).scrollTop", id))

    def wait_for_end(self) -> None:
        self.page.locator("#send").wait_for()

    @contextlib.contextmanager
    def longest_task(self) -> Iterator[list[float]]:
        """Afterwards the list has the ms of the page's longest task: of the processor's time, which other programs do not
        lengthen as they do the clock's.
        """
        browser = self.page.context.browser
        assert browser is not None
        longest: list[float] = []
        browser.start_tracing(page=self.page, categories=["toplevel"])
        try:
            yield longest
        finally:
            events = json.loads(browser.stop_tracing())["traceEvents"]
        names = {(each["pid"], each["tid"]): each["args"]["name"] for each in events if each["name"] == "thread_name"}
        # Of any name: the microtasks after a task are an event of their own.
        main = [each for each in events if names.get((each["pid"], each["tid"])) == "CrRendererMain"]
        longest.append(max(each.get("tdur", 0) for each in main) / 1000)

    @property
    def text(self) -> str:
        return self.page.locator(".answer .body").last.text_content() or ""

    @property
    def status(self) -> str:
        return self.page.locator("#status").text_content() or ""

    @property
    def focus(self) -> str:
        return str(self.page.evaluate("document.activeElement.id"))
