"""How the built-in page looks and behaves for everyone: axe-core, hostile and right-to-left text, many events, its size."""

from __future__ import annotations

import gzip
import subprocess
from typing import Any

import pytest
from support.contrast import WORST_CONTRAST

from rawsse.relay.page import Page

from .chat_page import Chat
from .node_harness import NODE_MODULES, WEB
from .scripted_server import answer, close_block, done, error, finish, frame, open_block, script, start

pytestmark = pytest.mark.real

MARKDOWN = """# Title

Text with **strong**, *emphasis*, ~~gone~~, `code`, [a link](https://x.org) and a citation.

- one
  1. deep

> quoted

| a | b |
|---|--:|
| 1 | 2 |

```python
print("a line that is longer than a narrow window is wide, so that it has to be scrolled sideways")
```

---
"""


def delta_of(index: int, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


CITATION = {"type": "web_search_result_location", "url": "https://a.example/", "title": "A", "encrypted_index": "x"}
EVERYTHING: list[dict[str, Any]] = [
    start(),
    open_block(0, type="thinking", thinking="Thought", signature=""),
    close_block(0),
    open_block(1, type="redacted_thinking", data="x"),
    close_block(1),
    open_block(2, type="text", text=MARKDOWN),
    delta_of(2, type="citations_delta", citation=CITATION),
    close_block(2),
    open_block(3, type="server_tool_use", id="t", name="web_search", input={"q": "x" * 200}),
    close_block(3),
    open_block(
        4,
        type="web_search_tool_result",
        content=[{"type": "web_search_result", "url": "https://b.example/", "title": "B"}],
    ),
    close_block(4),
    open_block(5, type="hologram", beams="y" * 300),
    close_block(5),
]


def show(chat: Chat) -> None:
    """Everything that the page can show at once."""
    limits = {"requests_per_minute": 60, "tokens_per_day": 200_000}
    chat.server.facts["/me"] = (200, {"limits": limits, "left": {"requests_per_minute": 1, "tokens_per_day": 2}})
    chat.server.facts["/v1/models"] = (
        200,
        {"data": [{"id": "a"}, {"id": "b", "display_name": "A model with a long name"}]},
    )
    chat.page.reload()
    chat.ask("Question").end(b"".join(script(*EVERYTHING, *finish("max_tokens"))))
    chat.wait_for_end()
    chat.ask("Again").end(frame(1, start()) + frame(2, error("overloaded_error", "Overloaded")) + done(3))
    chat.see(".failed")
    chat.page.evaluate("document.querySelector('#access').hidden = false")
    chat.ask("More").send(b"".join(script(start(), open_block(type="thinking", thinking="", signature=""))[:2]))
    chat.see("progress")
    chat.page.get_by_role("button", name="Wire").click()
    for summary in chat.page.locator(".answer:not([aria-busy]) summary").all():
        summary.click()


@pytest.mark.parametrize(
    "settings", [{"color_scheme": "light"}, {"color_scheme": "dark", "viewport": {"width": 320, "height": 600}}]
)
@pytest.mark.parametrize("begun", [False, True])
def test_axe_finds_nothing(chat: Chat, settings: dict[str, Any], begun: bool) -> None:
    axe = NODE_MODULES / "axe-core" / "axe.min.js"
    if not axe.exists():
        pytest.skip(f"no axe-core in {NODE_MODULES} (RAWSSE_NODE_MODULES names another folder)")
    if begun:
        show(chat)
    chat.page.evaluate(axe.read_text())
    found = chat.page.evaluate("axe.run(document)")
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []
    assert len(found["passes"]) > 15
    # axe computes it for what is on the screen only.
    ratio, whose = chat.page.evaluate(WORST_CONTRAST)
    assert ratio >= 4.5, whose


@pytest.mark.parametrize("settings", [{"viewport": {"width": 320, "height": 600}}])
def test_at_320_pixels_only_code_and_tables_scroll_sideways(chat: Chat, settings: dict[str, Any]) -> None:
    show(chat)
    wide = """[...document.querySelectorAll("body *")].filter((e) =>
      e.getBoundingClientRect().right > 320.5 && !e.closest(".code pre, .table")).map((e) => e.outerHTML.slice(0, 100))"""
    assert chat.page.evaluate(wide) == []
    assert chat.page.evaluate("document.documentElement.scrollWidth") == 320


def test_controls_of_direction_in_a_title_do_not_reach_what_stands_beside_it(chat: Chat) -> None:
    results = [{"type": "web_search_result", "url": "https://b.example/", "title": "\u202eevil"}]
    events = [start(), open_block(type="web_search_tool_result", content=results), close_block(), *finish()]
    chat.ask("\u202eevil").end(b"".join(script(*events)))
    chat.wait_for_end()
    chat.page.locator(".other summary").click()
    script_ = "(selector) => getComputedStyle(document.querySelector(selector)).unicodeBidi"
    assert chat.page.evaluate(script_, ".sources a") == "isolate"
    assert chat.page.locator(".question .text").get_attribute("dir") == "auto"
    title, host = (chat.page.locator(f".sources {each}").bounding_box() for each in ("a", ".host"))
    assert title is not None
    assert host is not None
    assert title["x"] + title["width"] <= host["x"]


def test_a_progress_bar_stands_where_thinking_comes_without_its_text(chat: Chat) -> None:
    post = chat.ask()
    post.send(b"".join(script(start(), open_block(type="thinking", thinking="", signature=""))[:2]))
    assert chat.see("progress").get_attribute("aria-label") == "Thinking"
    for seq, more in enumerate((1_200, 100, None), 3):
        post.send(frame(seq, delta_of(0, type="thinking_delta", thinking="", estimated_tokens=more)))
    chat.see(".thinking summary", "Thinking… about 1\u202f300 tokens")
    post.end(
        b"".join(script(delta_of(0, type="signature_delta", signature="SECRET"), close_block(), *finish(), first=6))
    )
    chat.wait_for_end()
    assert chat.page.locator("progress").count() == 0
    assert "SECRET" not in chat.page.locator(".answer").inner_html()
    assert chat.page.locator(".thought").text_content() == "The API did not send the text of this thinking."


def test_the_skip_link_leads_to_the_message(chat: Chat) -> None:
    chat.page.locator("#fresh").focus()
    chat.page.locator(".skip").focus()
    chat.page.keyboard.press("Enter")
    assert chat.focus == "prompt"


def test_an_example_of_the_operator_is_asked_by_a_button(chat: Chat) -> None:
    chat.page.evaluate(
        "welcome.append(Object.assign(document.createElement('button'), { className: 'example', textContent: 'otters' }))"
    )
    chat.page.get_by_role("button", name="otters").click()
    assert chat.server.begin().body["messages"] == [{"role": "user", "content": "otters"}]


# --- Many events ---------------------------------------------------------------------------------------------------------

TOKENS = 100_000
EVENTS = 20_000


def test_100_000_tokens_in_20_000_events_hold_the_page_up_for_no_more_than_100_ms(chat: Chat) -> None:
    text = ((MARKDOWN + "\n") * TOKENS)[: 4 * TOKENS]
    size = len(text) // EVENTS
    frames = answer(*(text[i : i + size] for i in range(0, len(text), size)))
    chat.page.context.set_default_timeout(60_000)
    post = chat.ask()
    with chat.longest_task() as longest:
        for i in range(0, len(frames), 200):  # up to 10,000 a second
            post.send(b"".join(frames[i : i + 200]))
            chat.page.evaluate("new Promise((done) => setTimeout(done, 20))")
        post.end()
        chat.wait_for_end()
    assert len(chat.text) > 200_000
    assert longest[0] <= 100


def test_a_line_of_a_megabyte_is_shown(chat: Chat) -> None:
    chat.ask().end(b"".join(answer("word " * 100_000, "x" * 500_000)))
    chat.wait_for_end()
    assert len(chat.text) == 1_000_000


# --- Its size ------------------------------------------------------------------------------------------------------------

SCRIPTS = ("answer.js", "markdown.js", "page.js", "rawsse.js", "tabs.js", "wire.js")
LOADED = ("index.html", "style.css", *SCRIPTS)


def test_what_the_page_loads_is_what_is_counted(chat: Chat) -> None:
    show(chat)
    assert chat.page.locator("#frames li").count() > 0  # nothing more is loaded with the pane
    names = "performance.getEntriesByType('resource').map((each) => new URL(each.name).pathname.slice(1))"
    loaded = {name for name in chat.page.evaluate(names) if name.endswith((".js", ".css"))}
    assert loaded == {name for name in LOADED if name != "index.html"}


def test_the_page_is_small() -> None:
    contents = [Page().find(f"/{name}")[1] for name in LOADED]
    assert sum(map(len, contents)) <= MAX_BYTES
    assert sum(len(gzip.compress(each)) for each in contents) <= MAX_GZIPPED


def test_the_scripts_are_short() -> None:
    scripts = [Page().find(f"/{file.name}")[1] for file in WEB.glob("*.js")]
    assert sum(script.count(b"\n") for script in scripts) <= MAX_CODE_LINES


@pytest.mark.skipif(not (NODE_MODULES / "esbuild").is_dir(), reason="no esbuild")
@pytest.mark.parametrize("name", sorted(file.name for file in WEB.iterdir() if file.suffix in {".js", ".css"}))
def test_what_is_served_is_the_file_without_its_comments(name: str) -> None:
    served = Page().find(f"/{name}")[1]
    assert len(served) < (WEB / name).stat().st_size
    command = [str(NODE_MODULES / ".bin/esbuild"), "--minify-whitespace", f"--loader={name.rpartition('.')[2]}"]
    of_each = (
        subprocess.run(command, input=text, capture_output=True, check=True, timeout=60).stdout
        for text in (served, (WEB / name).read_bytes())
    )
    assert len(set(of_each)) == 1


MAX_BYTES = 120_000
MAX_GZIPPED = 35_000
MAX_CODE_LINES = 2_600
"""Of all that the page loads, and of all scripts in rawsse/web; as they are served, without blank lines and comments."""
