"""The clients of five published tutorials, taken out of the published text and run against the relay.

What is changed is the address, and what publishing took away (see `tutorials.py`). Pages run in Chromium, from
`rawsse serve --static`; programs in Node and Python. Two of the readers take every read for whole lines: for these each frame
must come in one piece.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.command import Command, environment
from support.sampling import one_in

from .conftest import Node, Start
from .stack import Stack, message, recorded, text
from .tutorials import between, indented, up_to, without_types

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.real

Document = Callable[[str], str]
Serve = Callable[..., str]

API = "https://api.anthropic.com"
TEXT_ONLY = [("plain", None), ("plain", "event"), ("unicode", None), ("unicode", 7)][:: -one_in(2)]
FIXTURE_AND_SPLIT = [*TEXT_ONLY, ("pings", None)]  # with thinking, which the readers of tutorial 004 take for text

SYNC_DEPTHS = "00001110121111"


# --- Pages -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def serve(start: Start, tmp_path: Path) -> Iterator[Serve]:
    """`rawsse serve --static` with these files, in front of a recording; its address."""
    commands: list[Command] = []

    def serve(name: str, split: int | str | None = None, **files: str) -> str:
        upstream = start(recorded(name), split=split)
        for file, content in files.items():
            (tmp_path / file.replace("_", ".")).write_text(content, encoding="utf-8")
        env = {"ANTHROPIC_API_KEY": "any", "ANTHROPIC_BASE_URL": upstream.upstream_url}
        commands.append(Command("serve", "--port", "0", "--static", tmp_path, env=env))
        return commands[-1].base_url

    yield serve
    for command in commands:
        with command:
            assert command.stop() == 0


def wait_for_text(page: Page, id: str, wanted: str) -> None:
    page.wait_for_function(
        "([id, wanted]) => document.getElementById(id).textContent.length >= wanted",
        arg=[id, len(wanted.encode("utf-16-le")) // 2],
    )
    assert page.evaluate("(id) => document.getElementById(id).textContent", id) == wanted


@pytest.mark.parametrize(("name", "split"), FIXTURE_AND_SPLIT)
def test_000_the_page_and_its_script(
    name: str, split: int | str | None, document: Document, serve: Serve, page: Page
) -> None:
    published = document("000")
    html = up_to(published, "<!DOCTYPE html>", "</html>")
    script = between(published, "async function streamMessage", "The HTML")
    page.goto(serve(name, split, index_html=html, client_js=script))
    page.locator("#input").fill("Hello")
    page.locator("#send").click()
    wait_for_text(page, "response", text(name))


@pytest.mark.parametrize(("name", "split"), FIXTURE_AND_SPLIT)
def test_001_the_page(name: str, split: int | str | None, document: Document, serve: Serve, page: Page) -> None:
    page.goto(serve(name, split, index_html=up_to(document("001"), "<!DOCTYPE html>", "</html>")))
    page.locator("#prompt").fill("Hello")
    page.locator("#send").click()
    wait_for_text(page, "output", text(name))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("error-before-content", "\n[Error: Overloaded]"),
        ("error-after-content", f"{text('error-after-content')}\n[Error: Internal server error]"),
    ],
)
def test_001_the_page_tells_a_failure(name: str, shown: str, document: Document, serve: Serve, page: Page) -> None:
    page.goto(serve(name, index_html=up_to(document("001"), "<!DOCTYPE html>", "</html>")))
    page.locator("#prompt").fill("Hello")
    page.locator("#send").click()
    wait_for_text(page, "output", shown)


@pytest.mark.parametrize(("name", "split"), FIXTURE_AND_SPLIT)
def test_002_stream_chat(name: str, split: int | str | None, document: Document, serve: Serve, page: Page) -> None:
    script = without_types(between(document("002"), "async function streamChat", "React Hook"))
    page.goto(serve(name, split, index_html='<script src="client.js"></script>', client_js=script))
    pieces = page.evaluate("async () => { const all = []; await streamChat('Hello', (t) => all.push(t)); return all }")
    assert "".join(pieces) == text(name)
    assert len(pieces) > 1


# A renderer as small as can be: `render` calls the component until no state changes any more.
HOOKS = """
const slots = []; let next = 0, rerender;
const slot = (make) => slots[next] ??= make();
const useState = (first) => { const s = slot(() => ({ value: first })); next += 1;
  return [s.value, (v) => { s.value = typeof v === "function" ? v(s.value) : v; rerender(); }]; };
const useRef = (first) => { const s = slot(() => ({ current: first })); next += 1; return s; };
const useCallback = (f) => { const s = slot(() => ({ f })); next += 1; return s.f; };
let hook; const seen = [];
rerender = () => { next = 0; hook = useStreamingChat(); seen.push(hook.output); };
"""


def test_002_the_react_hook(document: Document, serve: Serve, page: Page) -> None:
    published = document("002")
    reader = between(published, "async function streamChat", "React Hook")
    hook = between(published, "function useStreamingChat", "SSE vs WebSockets")
    page.goto(
        serve("plain", index_html='<script src="client.js"></script>', client_js=without_types(reader + hook) + HOOKS)
    )
    last, states, is_streaming = page.evaluate(
        "async () => { rerender(); await hook.send('Hello'); return [hook.output, new Set(seen).size, hook.isStreaming] }"
    )
    assert (last, is_streaming) == (text("plain"), False)
    assert states > 3


# --- Programs in Node ------------------------------------------------------------------------------------------------


def test_003_what_a_browser_reads_from_api_chat(start: Start, node: Node) -> None:
    """The tutorial shows the server's side only: `data: {event}` for each event, then `data: [DONE]`."""
    relay = start(recorded("plain"))
    script = """
        const response = await fetch(`${process.env.RELAY}/api/chat`, {
          method: 'POST', headers: { 'Content-Type': 'application/json' },
          body: JSON.stringify({ messages: [{ role: 'user', content: 'Hello' }] }) });
        const lines = (await response.text()).split('\\n').filter((line) => line.startsWith('data: '));
        console.log(JSON.stringify(lines.map((line) => line.slice(6))));
    """
    *events, done = json.loads(node(script, RELAY=relay.base_url))
    types = [json.loads(event)["type"] for event in events]
    assert (types[0], types[-1], done) == ("message_start", "message_stop", "[DONE]")
    deltas = [json.loads(event) for event in events if '"text_delta"' in event]
    assert "".join(delta["delta"]["text"] for delta in deltas) == text("plain")


def test_003_the_node_sdk(document: Document, start: Start, node: Node, packages: Callable[..., None]) -> None:
    packages("@anthropic-ai/sdk")
    code = between(
        document("003"),
        "import Anthropic from '@anthropic-ai/sdk';\nconst client = new Anthropic();\nasync function streamResponse",
        "Raw HTTP with curl",
    )
    printed = node(code, **sdk_env(start(recorded("plain"))))
    assert printed.startswith(text("plain") + "\nTokens: {")
    assert "output_tokens: 217" in printed


def sdk_env(relay: Stack) -> dict[str, str]:
    return {"ANTHROPIC_BASE_URL": relay.base_url, "ANTHROPIC_API_KEY": "any"}


@pytest.mark.parametrize(("name", "split"), TEXT_ONLY)
def test_004_raw_fetch(name: str, split: int | str | None, document: Document, start: Start, node: Node) -> None:
    relay = start(recorded(name), split=split)
    code = between(document("004"), "async function streamClaudeResponse", "This implementation handles")
    call = "await streamClaudeResponse([{ role: 'user', content: 'Hello' }], 'any');"
    assert node(code.replace(API, relay.base_url) + call) == text(name)


@pytest.mark.parametrize(("name", "split"), TEXT_ONLY)
def test_004_the_chat_manager(name: str, split: int | str | None, document: Document, start: Start, node: Node) -> None:
    relay = start(recorded(name), split=split)
    code = between(document("004"), "class ClaudeChatManager", "This class maintains").replace(API, relay.base_url)
    call = """
        const manager = new ClaudeChatManager('any'), chunks = [];
        const answers = [];
        for (const prompt of ['First', 'Second']) answers.push(await manager.sendMessage(prompt, (c) => chunks.push(c)));
        console.log(JSON.stringify({ answers, chunks, history: manager.conversationHistory }));
    """
    told = json.loads(node(code + call))
    assert told["answers"] == [text(name)] * 2
    assert "".join(told["chunks"]) == text(name) * 2
    assert [turn["role"] for turn in relay.requests[1].body["messages"]] == ["user", "assistant", "user"]


# --- Programs in Python, and curl ------------------------------------------------------------------------------------


def run_python(code: str, tmp_path: Path, relay: Stack) -> str:
    (tmp_path / "program.py").write_text(code, encoding="utf-8")
    env = environment({**sdk_env(relay), "PYTHONIOENCODING": "utf-8"})
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"], env=env, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_003_the_python_sdk(document: Document, start: Start, tmp_path: Path) -> None:
    pytest.importorskip("anthropic", reason="the official SDK: the interop extra")
    published = between(document("003"), "import anthropic\nclient", "Async Python Streaming")
    code = indented(published, SYNC_DEPTHS)
    usage = message("plain")["usage"]
    tokens = f"Tokens used: {usage['input_tokens']} in, {usage['output_tokens']} out"
    assert run_python(code, tmp_path, start(recorded("plain"))) == f"{text('plain')}\n{tokens}\n"


def test_003_the_python_sdk_without_blocking(document: Document, start: Start, tmp_path: Path) -> None:
    pytest.importorskip("anthropic", reason="the official SDK: the interop extra")
    published = between(document("003"), "import anthropic\nimport asyncio", "Node.js / TypeScript")
    code = indented(published, "000112221230")
    assert run_python(code, tmp_path, start(recorded("unicode"))) == text("unicode")


def test_giving_back_the_indentation_changes_white_space_only(document: Document) -> None:
    published = between(document("003"), "import anthropic\nclient", "Async Python Streaming")
    given = indented(published, SYNC_DEPTHS)
    assert [line.strip() for line in given.splitlines()] == published.strip().splitlines()


def test_003_curl(document: Document, start: Start) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on PATH")
    relay = start(recorded("plain"))
    line = up_to(document("003"), "curl https://", "}'").replace("https://claude4u.com/antigravity", relay.base_url)
    env = environment(sdk_env(relay))
    done = subprocess.run(["/bin/sh", "-c", line], env=env, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr.decode()
    frames = done.stdout.decode().split("\n\n")
    assert frames[0].startswith("event: message_start\ndata: {")
    assert frames[-2].startswith("event: message_stop\ndata: {")


@pytest.mark.parametrize(("name", "split"), TEXT_ONLY)
def test_004_httpx(name: str, split: int | str | None, document: Document, start: Start, tmp_path: Path) -> None:
    pytest.importorskip("httpx", reason="the tutorial's HTTP client: the interop extra")
    relay = start(recorded(name), split=split)
    code = between(document("004"), "import httpx", "This generator function").replace(API, relay.base_url)
    call = "for piece in stream_claude_response([{'role': 'user', 'content': 'Hello'}], 'any'):\n    print(piece, end='')\n"
    assert run_python(code + call, tmp_path, relay) == text(name)
