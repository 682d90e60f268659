"""The page of `rawsse explain --html` in a real Chromium: it asks for nothing, runs nothing but its own, can be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.contrast import WORST_CONTRAST, WORST_FILL
from support.long import long_recording, wire
from support.streams import block, end, input_delta, start, text_delta, tool_block

from rawsse.replay import Read, RecordedRequest, Recording, shipped_fixtures
from rawsse.replay.explain_page import explain_html

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

pytestmark = pytest.mark.real

Open = Callable[..., "Page"]

HOSTILE = (
    "</style></script></title><script>alert(1)</script><img src=https://example.com/x onerror=alert(2)>"
    '"><svg onload=alert(3)></svg><a href="javascript:alert(4)">x</a><style>@import "https://example.com/"</style>'
)


@pytest.fixture
def settings() -> dict[str, Any]:
    """What kind of browser the test wants; tests override it by parametrization."""
    return {}


@pytest.fixture
def show(chromium: Browser, settings: dict[str, Any], tmp_path: Path) -> Iterator[Open]:
    """Open the page of a recording. A dialog, a fault, a request or a breach of the policy fails the test."""
    with chromium.new_context(**settings) as context:
        context.set_default_timeout(10_000)
        page = context.new_page()
        wrong: list[str] = []

        def dismiss(dialog: Dialog) -> None:
            wrong.append(f"dialog {dialog.message}")
            dialog.dismiss()

        page.on("dialog", dismiss)
        page.on("pageerror", lambda fault: wrong.append(f"fault {fault}"))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith("file:") else None)

        def show(recording: Recording, event: int | None = None) -> Page:
            file = tmp_path / "page.html"
            file.write_text(explain_html(recording, event=event), encoding="utf-8")
            page.goto(file.as_uri())
            return page

        yield show
        assert wrong == []


def everything() -> Recording:
    """A recording with every kind of row: text, thinking, a tool, pings, gaps, an error, comments, a cut line."""
    text: dict[str, Any] = {"type": "text", "text": ""}
    thinking: dict[str, Any] = {"type": "thinking", "thinking": "Hm.", "signature": "s" * 300}
    body = [
        wire(start()),
        b": a comment\n\n" + wire({"type": "ping"}) + wire({"type": "news"}),
        b"".join(map(wire, block(0, thinking))),
        b"".join(map(wire, block(1, text, text_delta(1, "Word" * 100)))),
        b"".join(map(wire, block(2, tool_block(), input_delta(2, '{"a": "' + "b" * 200)))),
        b"data: {\n\n" + wire(end()),
        wire({"type": "error", "error": {"type": "api_error", "message": "Oops " * 40}}) + b"data: cut",
    ]
    times = [0.5, 0.6, 0.7, 4.0, 4.1, 4.2, 4.3]
    reads = tuple(Read(t, data) for t, data in zip(times, body, strict=True))
    request = RecordedRequest("POST", "/v1/messages", {}, {"model": "m" * 200})
    return Recording(request, reads=reads, end="cut", duration=5.0, name="everything" * 10)


def test_hostile_text_is_shown_and_does_nothing(show: Open) -> None:
    events = [
        start(id=HOSTILE, model=HOSTILE),
        *block(0, {"type": "text", "text": ""}, text_delta(0, HOSTILE)),
        *block(1, tool_block(name=HOSTILE), input_delta(1, json.dumps({HOSTILE: HOSTILE}))),
        {"type": "error", "error": {"type": HOSTILE, "message": HOSTILE}},
    ]
    body = b"".join(map(wire, events)) + f": {HOSTILE}\n".encode()
    request = RecordedRequest("POST", HOSTILE, {}, {HOSTILE: HOSTILE})
    page = show(Recording(request, 200, {HOSTILE: HOSTILE}, (Read(0.1, body),), "clean", 1.0, HOSTILE))
    for summary in page.locator("summary").all():
        summary.click()
    page.hover("#e3")
    assert page.title() == f"{HOSTILE} explained"
    assert page.locator(".prose").first.inner_text() == HOSTILE
    assert page.locator("img, iframe, object, link, script[src]").count() == 0
    assert page.locator("a:not([href^='#'])").count() == 0


def test_the_policy_stops_what_would_be_smuggled_in_all_the_same(chromium: Browser, tmp_path: Path) -> None:
    smuggled = "<script>document.title = 'smuggled'</script><img src='https://example.com/x.png'></main>"
    file = tmp_path / "page.html"
    file.write_text(explain_html(shipped_fixtures()["plain"]).replace("</main>", smuggled), encoding="utf-8")
    with chromium.new_context() as context:
        page = context.new_page()
        refused: list[tuple[str, str | None]] = []
        page.on("requestfailed", lambda request: refused.append((request.url, request.failure)))
        page.goto(file.as_uri())
        assert page.title() == "plain explained"
        assert refused == [("https://example.com/x.png", "csp")]


def test_pointing_at_a_row_lights_up_its_mark_and_its_part_of_the_message(show: Open) -> None:
    page = show(shipped_fixtures()["plain"])
    page.hover("#e6")
    lit = page.locator(".lit")
    assert lit.evaluate_all("found => found.map(e => [e.localName, e.dataset.e])") == [["li", "6"], ["span", "6"]]
    page.hover("h1")
    assert lit.count() == 0
    page.hover("#m7")
    assert page.locator("#e7.lit").count() == 1


def test_the_part_of_a_long_message_comes_into_view(show: Open) -> None:
    page = show(long_recording(400))
    page.locator("#e240").hover()
    assert page.locator("#m240").evaluate(
        """piece => {
          const [inner, outer] = [piece, document.querySelector(".message")].map((e) => e.getBoundingClientRect());
          return inner.top >= outer.top && inner.bottom <= outer.bottom;
        }"""
    )


@pytest.mark.parametrize("settings", [{"java_script_enabled": False}])
def test_without_javascript_everything_can_be_read_and_links_lead(show: Open, settings: dict[str, Any]) -> None:
    page = show(shipped_fixtures()["plain"])
    page.locator("#e6 .adds a").click()
    assert page.url.endswith("#m6")
    assert page.locator("#m6").is_visible()
    page.locator(".mark").nth(1).click()
    assert page.locator("li:target").count() == 1


def test_by_keyboard_the_details_the_picture_the_links_and_the_message_are_reached(show: Open) -> None:
    page = show(shipped_fixtures()["cut"])
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.className || document.activeElement.localName"))
    assert reached == ["summary", "picture", "a", "a", "a", "a", "message", "body"]


def test_headings_go_down_step_by_step_and_landmarks_have_names(show: Open) -> None:
    page = show(shipped_fixtures()["thinking"])
    levels = page.locator("h1, h2, h3").evaluate_all("found => found.map(e => e.localName)")
    assert levels == ["h1", "h2", "h2", "h2", "h3", "h3"]
    for name in ("Timeline", "Bytes, lines, events", "Message"):
        assert page.get_by_role("region", name=name, exact=True).count() >= 1
    assert page.get_by_role("img").get_attribute("aria-labelledby") == "picture-title"


@pytest.mark.parametrize("settings", [{"color_scheme": "light"}, {"color_scheme": "dark"}])
def test_every_text_has_a_contrast_of_at_least_4_5(show: Open, settings: dict[str, Any]) -> None:
    page = show(everything())
    page.locator("summary").click()
    page.hover("#e7")
    ratio, whose = page.evaluate(WORST_CONTRAST)
    assert ratio >= 4.5, whose


@pytest.mark.parametrize(("what", "least"), [("svg text", 4.5), ("svg .mark rect", 3), ("svg .read", 3)])
@pytest.mark.parametrize("settings", [{"color_scheme": "light"}, {"color_scheme": "dark"}])
def test_what_is_drawn_stands_out_from_what_is_behind_it(
    show: Open, settings: dict[str, Any], what: str, least: float
) -> None:
    ratio, whose = show(everything()).evaluate(WORST_FILL, what)
    assert ratio >= least, whose


@pytest.mark.parametrize("settings", [{"viewport": {"width": width, "height": 700}} for width in (320, 400, 900, 1600)])
def test_nothing_sticks_out_sideways(show: Open, settings: dict[str, Any]) -> None:
    page = show(everything())
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == settings["viewport"]["width"]


@pytest.mark.parametrize(
    "settings",
    [
        {"viewport": {"width": width, "height": 700}, "color_scheme": scheme}
        for width, scheme in ((320, "dark"), (1600, "light"))
    ],
)
def test_the_page_of_one_event_can_be_read_from_the_read_to_the_message(show: Open, settings: dict[str, Any]) -> None:
    page = show(shipped_fixtures()["plain"], event=4)
    assert page.locator("section dt").all_inner_texts() == [
        "read",
        "chunk, rebuilt",
        "lines",
        "JSON",
        "message",
        "note",
    ]
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "A server-sent event"}}
    assert json.loads(page.locator("section dd").nth(3).inner_text()) == event
    assert page.evaluate("document.documentElement.scrollWidth") == settings["viewport"]["width"]
    page.hover("section dd mark >> text=A server-sent event")
    ratio, whose = page.evaluate(WORST_CONTRAST)
    assert ratio >= 4.5, whose


def test_a_long_recording_is_laid_out_at_once(show: Open) -> None:
    page = show(long_recording())
    assert page.locator("li.row").count() == 500
    page.locator("#m441").hover()
    assert page.locator("li.fold.lit").count() == 1
