"""rawsse.js and react.js in Chromium, in front of the relay itself, behind a network that breaks."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from interop.stack import Stack, message, recorded, refusal, text
from support.background import PATIENCE, Background

from rawsse.relay import RunLimits
from rawsse.server import Receive, Scope, Send, Server

from .node_harness import NODE_MODULES
from .proxy import Proxy
from .test_rawsse_js import conformance_cases

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.real

HERE = Path(__file__).parent

PAGE = """<!doctype html><meta charset="utf-8"><title>Test</title><link rel="icon" href="data:,">
<script type="importmap">{"imports": {"react": "/react.bundle.mjs", "react-dom/client": "/react.bundle.mjs"}}</script>
<script type="module">
import { streamChat } from "/rawsse.js";
window.told = { texts: [], lost: 0 };
window.begin = (url, options = {}) => {
  window.chat = streamChat(url, { message: "Hello" }, {
    waits: [1], ...options, onText: (text) => told.texts.push(text), onLost: () => (told.lost += 1), onError: () => {} });
  chat.done.catch((error) => ({ ...error, message: error.message })).then((result) => (told.result = result));
};
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a web developer. The relay serves the modules beside it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text(PAGE)
    shutil.copy(HERE / "conformance.mjs", folder)
    return folder


Visit = Callable[..., "tuple[Page, Proxy, Stack]"]


@pytest.fixture
def visit(chromium: Browser, background: Background, site: Path) -> Iterator[Visit]:
    """A page behind a proxy, in front of a relay that plays these recordings."""
    with chromium.new_context() as context:
        context.set_default_timeout(PATIENCE * 1000)

        def visit(*recordings: Any, **options: Any) -> tuple[Page, Proxy, Stack]:
            relay = Stack(background, recordings or [recorded("plain")], static=site, **options)
            proxy = background.enter(Proxy(port(relay)))
            page = context.new_page()
            page.goto(proxy.url)
            page.wait_for_function("'begin' in window")
            return page, proxy, relay

        yield visit


def port(relay: Stack) -> int:
    return int(relay.base_url.rpartition(":")[2])


def begin(page: Page, url: str = "/api/chat/stream", **options: Any) -> None:
    page.evaluate("([url, options]) => begin(url, options)", [url, options])


def result(page: Page) -> Any:
    # It has a timeout; `evaluate` has none. By default it looks when the page paints, and some tests forbid that.
    page.wait_for_function("'result' in told", polling=50)
    return page.evaluate("told.result")


def wait_for_text(page: Page) -> None:
    page.wait_for_function("chat.text !== ''")


# --- The parser ------------------------------------------------------------------------------------------------------


def test_a_stream_means_the_same_in_chromium_however_it_is_cut(visit: Visit) -> None:
    page, _, _ = visit()
    small = [case for case in conformance_cases() if len(base64.b64decode(case["input_b64"])) < 6000]
    found = page.evaluate(
        """async (inputs) => {
          const { EventStreamParser } = await import("/rawsse.js");
          const { results } = await import("/conformance.mjs");
          return inputs.map((input) => results(EventStreamParser, Uint8Array.from(atob(input), (c) => c.charCodeAt(0))));
        }""",
        [case["input_b64"] for case in small],
    )
    assert len(small) > 200
    for case, (result, *others) in zip(small, found, strict=True):
        assert (result["events"], others) == (case["expect"]["events"], []), case["id"]
        assert result["final_last_event_id"] == case["expect"]["final_last_event_id"], case["id"]


# --- A network that breaks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["/api/chat", "/api/chat/stream"])
@pytest.mark.parametrize(("name", "every"), [("plain", 10), ("unicode", 10), ("pings", 3)])
def test_cut_at_every_few_frames_an_answer_comes_whole_and_once(visit: Visit, name: str, every: int, url: str) -> None:
    page, proxy, relay = visit(recorded(name))
    proxy.cut_after = every
    begin(page, url)
    told = result(page)
    assert (told["text"], told["ending"]) == (text(name), "complete")
    posts = [request for request in proxy.requests if request.startswith("POST")]
    assert (len(posts), len(relay.requests)) == (1, 1)
    assert page.evaluate("told.lost") >= 1
    assert "".join(page.evaluate("told.texts")) == text(name)


def test_a_relay_that_was_restarted_has_forgotten_the_run_and_the_text_is_kept(
    visit: Visit, background: Background
) -> None:
    gate = background.gate(free=4)
    page, proxy, _ = visit(speed=1, sleep=gate.sleep)
    begin(page)
    wait_for_text(page)
    proxy.target = port(Stack(background, [recorded("plain")]))
    proxy.cut()
    error = result(page)
    assert (error["type"], error["status"]) == ("forgotten", 404)
    assert error["text"]
    assert text("plain").startswith(error["text"])
    assert "was restarted" in error["headline"]


def test_a_relay_that_is_away_when_the_prompt_is_sent_gets_it_once_when_it_is_back(visit: Visit) -> None:
    page, proxy, relay = visit()
    target, proxy.target = proxy.target, None
    proxy.cut()
    begin(page, waits=[20] * 500)
    page.wait_for_function("told.lost >= 2")
    proxy.target = target
    assert (result(page)["text"], len(relay.requests)) == (text("plain"), 1)


def test_a_prompt_whose_connection_breaks_before_the_first_byte_is_answered_once(
    visit: Visit, background: Background
) -> None:
    gate = background.gate()
    page, proxy, relay = visit(speed=1, sleep=gate.sleep)
    begin(page)
    assert gate.asked.wait(PATIENCE)
    proxy.cut()
    proxy.wait_for(2)  # Chromium itself may send a POST again, under the same id
    gate.let(1000)
    assert (result(page)["text"], len(relay.requests)) == (text("plain"), 1)


def test_offline_and_back_the_answer_goes_on_without_waiting(visit: Visit, background: Background) -> None:
    gate = background.gate(free=4)
    page, proxy, relay = visit(speed=1, sleep=gate.sleep)
    begin(page, waits=[600_000])  # only `online` can end this wait
    wait_for_text(page)
    page.context.set_offline(True)
    proxy.cut()
    page.wait_for_function("told.lost === 1")
    gate.let(1000)
    page.context.set_offline(False)
    assert (result(page)["text"], len(relay.requests)) == (text("plain"), 1)


@pytest.mark.parametrize("tabs", [False, True])
def test_a_resume_that_the_network_swallows_is_tried_again(visit: Visit, background: Background, *, tabs: bool) -> None:
    gate = background.gate(free=4)
    page, proxy, relay = visit(speed=1, sleep=gate.sleep, limits=RunLimits(grace_seconds=600))
    if tabs:
        page.evaluate("async () => { window.sharedFetch = (await import('/tabs.js')).sharedFetch; }")
    page.evaluate("() => begin('/api/chat/stream', { resumeMs: 200, fetch: window.sharedFetch })")
    wait_for_text(page)
    proxy.is_silent = True
    proxy.cut()
    page.wait_for_function("told.lost >= 3")
    proxy.is_silent = False
    gate.let(1000)
    assert (result(page)["text"], len(relay.requests)) == (text("plain"), 1)


SHOW = "document.dispatchEvent(new Event('visibilitychange'))"
AN_HOUR_LATER = "() => { const now = Date.now.bind(Date); Date.now = () => now() + 3_600_000; }"


def test_a_tab_that_wakes_up_beside_a_dead_connection_makes_a_new_one_at_once(
    visit: Visit, background: Background
) -> None:
    gate = background.gate(free=4)
    page, proxy, relay = visit(speed=1, sleep=gate.sleep)
    begin(page, waits=[600_000])
    wait_for_text(page)
    proxy.freeze()
    gate.let(1000)
    page.evaluate(SHOW)
    assert page.evaluate("told.lost") == 0  # it has been silent for a moment only
    page.evaluate(AN_HOUR_LATER)
    page.evaluate(SHOW)
    assert (result(page)["text"], len(relay.requests)) == (text("plain"), 1)


def test_a_tab_that_wakes_up_while_it_waits_waits_no_longer(visit: Visit, background: Background) -> None:
    gate = background.gate(free=4)
    page, proxy, _ = visit(speed=1, sleep=gate.sleep)
    begin(page, waits=[600_000])
    wait_for_text(page)
    proxy.cut()
    page.wait_for_function("told.lost === 1")
    gate.let(1000)
    page.evaluate(SHOW)
    assert result(page)["text"] == text("plain")


# --- Stopping, painting, failing -------------------------------------------------------------------------------------


def test_stop_before_the_first_byte_ends_the_call_to_the_api(visit: Visit, background: Background) -> None:
    gate = background.gate()
    page, _, _ = visit(speed=1, sleep=gate.sleep, limits=RunLimits(grace_seconds=600))
    begin(page)
    assert gate.asked.wait(PATIENCE)
    assert page.evaluate("chat.stop()") is True
    assert gate.left.wait(PATIENCE)
    assert result(page)["ending"] == "stopped"


@pytest.mark.parametrize("url", ["/api/chat", "/api/chat/stream"])
def test_an_answer_that_another_tab_stops_is_stopped_in_both(visit: Visit, background: Background, url: str) -> None:
    gate = background.gate(free=4)
    page, proxy, _ = visit(speed=1, sleep=gate.sleep)
    begin(page, url)
    wait_for_text(page)
    other = page.context.new_page()
    other.goto(proxy.url)
    other.wait_for_function("'begin' in window")
    other.evaluate("async (id) => (await fetch(`/runs/${id}`, { method: 'DELETE' })).status", page.evaluate("chat.id"))
    assert (result(page)["ending"], result(page)["text"]) == ("stopped", page.evaluate("chat.text"))


def test_an_aborted_signal_ends_the_call_to_the_api(visit: Visit, background: Background) -> None:
    gate = background.gate(free=4)
    page, _, _ = visit(speed=1, sleep=gate.sleep, limits=RunLimits(grace_seconds=600))
    page.evaluate("() => { window.abort = new AbortController(); begin('/chat/stream', { signal: abort.signal }); }")
    wait_for_text(page)
    page.evaluate("abort.abort()")
    assert gate.left.wait(PATIENCE)
    assert "aborted" in result(page)["message"]


@pytest.mark.parametrize("frames", ["real", "none"])
def test_smooth_text_is_whole_and_in_order_in_a_shown_and_in_a_hidden_tab(visit: Visit, frames: str) -> None:
    page, _, _ = visit(recorded("unicode"))
    if frames == "none":
        page.evaluate("() => { window.requestAnimationFrame = () => 1; }")
    begin(page, smooth=True)
    assert result(page)["text"] == text("unicode")
    assert "".join(page.evaluate("told.texts")) == text("unicode")


def test_smooth_paints_once_per_frame(visit: Visit) -> None:
    page, _, _ = visit()
    painted = page.evaluate(
        """async () => {
          const { smooth } = await import("/rawsse.js");
          const frames = [], paints = [];
          window.requestAnimationFrame = (paint) => frames.push(paint);
          const { push, flush } = smooth((text) => paints.push(text));
          for (const piece of "abc") push(piece);
          frames.shift()();
          for (const piece of "def") push(piece);
          frames.shift()();
          flush();
          return [paints, frames.length];
        }"""
    )
    assert painted == [["abc", "def"], 0]


def test_a_refusal_of_the_api_is_told_with_its_type_and_the_time_to_wait(visit: Visit) -> None:
    page, _, _ = visit(*[refusal(429, "rate_limit_error", "Slow down", retry_after="600")] * 9)
    begin(page)
    error = result(page)
    assert (error["type"], error["status"], error["retryAfter"]) == ("rate_limit_error", 429, 600)
    assert (error["detail"], error["advice"]) == ("Slow down", "Try again in 10 minutes.")


def test_the_text_dialect_tells_the_usage_that_was_asked_for(visit: Visit) -> None:
    page, _, _ = visit()
    told = page.evaluate(
        "async () => (await import('/rawsse.js')).streamChat('/stream', { prompt: 'Hello', usage: true }).done"
    )
    assert told["usage"]["output_tokens"] == message("plain")["usage"]["output_tokens"]
    assert (told["text"], told["stopReason"]) == (text("plain"), "end_turn")


async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    """A server that says all at once, in 20,000 events."""
    if scope["type"] != "http":
        raise NotImplementedError("this app has no lifespan")
    frames = "".join(f'data: {{"text": "word {number} "}}\n\n' for number in range(20_000)) + "data: [DONE]\n\n"
    headers = [(b"content-type", b"text/event-stream"), (b"access-control-allow-origin", b"*")]
    await send(
        {"type": "http.response.start", "status": 200, "headers": [*headers, (b"access-control-allow-headers", b"*")]}
    )
    await send({"type": "http.response.body", "body": frames.encode()})


def test_twenty_thousand_events_at_once_leave_the_page_its_turns(visit: Visit, background: Background) -> None:
    page, _, _ = visit()
    url = background.enter(Server(flood, port=0)).base_url
    told = page.evaluate(
        """async (url) => {
          const { Chat } = await import("/chat.js");
          const tasks = [];
          new PerformanceObserver((list) => tasks.push(...list.getEntries())).observe({ type: "longtask" });
          const chat = new Chat({ url, resume: false });
          const output = document.createElement("pre");
          document.body.append(output);
          chat.subscribe(() => (output.textContent = chat.getState().output));
          await chat.send("Hello");
          const longest = Math.max(0, ...tasks.map((task) => task.duration));
          const { length } = tasks;
          setTimeout(() => { for (const end = performance.now() + 60; performance.now() < end; ); });
          while (tasks.length === length) await new Promise((resolve) => setTimeout(resolve));
          return [output.textContent.length, longest];
        }""",
        url,
    )
    assert told[0] == sum(len(f"word {number} ") for number in range(20_000))
    assert told[1] < 100, "ms in one task"  # and one of 60 ms was seen


# --- React -----------------------------------------------------------------------------------------------------------

BUNDLE = """
import React from "react";
export const { StrictMode, createElement, useEffect, useInsertionEffect, useRef, useState, useSyncExternalStore } = React;
export { createRoot, hydrateRoot } from "react-dom/client";
export { flushSync } from "react-dom";
"""

COMPONENT = """async (kind) => {
  const react = await import("react");
  const { StrictMode, createElement: h, createRoot, hydrateRoot, useEffect, useRef, useState } = react;
  const { Chat, streamingChatHook } = await import("/chat.js");
  const useStreamingChat = kind === "argument" ? streamingChatHook(react) : (await import("/react.js")).useStreamingChat;
  window.states = [];
  window.outer = new Chat("/api/chat/stream");
  const kept = { storage: sessionStorage };
  function Talk() {
    const options = { outer, kept, hydrated: kept, thoughts: { url: "/api/chat", ...kept } }[kind] ?? "/api/chat/stream";
    const chat = useStreamingChat(options);
    window.talk = chat;
    states.push(chat.output);
    const sent = useRef(false);
    useEffect(() => {
      if (kind === "effect") chat.send("Hello");
      if (kind === "guarded effect" && !sent.current) chat.send("Hello");
      sent.current = true;
    }, []);
    return h("pre", { id: "output", "data-turns": chat.messages.length }, chat.output);
  }
  function App() {
    const [isShown, show] = useState(true);
    window.show = show;
    return isShown ? h(Talk) : null;
  }
  const element = document.createElement("div");
  document.body.append(element);
  const app = h(StrictMode, null, h(App));
  if (kind !== "hydrated") return createRoot(element).render(app);
  element.innerHTML = '<pre id="output" data-turns="0"></pre>'; // as a server renders it, without the browser's storage
  hydrateRoot(element, app);
}"""


@pytest.fixture
def react(site: Path) -> None:
    """React as a module of the page: the packages are CommonJS."""
    bundle = site / "react.bundle.mjs"
    if bundle.exists():
        return
    if not (NODE_MODULES / "react-dom").is_dir() or not (NODE_MODULES / "esbuild").is_dir():
        pytest.skip(f"no react-dom or esbuild in {NODE_MODULES} (RAWSSE_NODE_MODULES names another folder)")
    command: list[str | Path] = [
        NODE_MODULES / ".bin/esbuild",
        "--bundle",
        "--format=esm",
        '--define:process.env.NODE_ENV="development"',
    ]
    env = {**os.environ, "NODE_PATH": str(NODE_MODULES)}
    done = subprocess.run(
        [*command, f"--outfile={bundle}"], input=BUNDLE, text=True, cwd=site, env=env, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def mount(page: Page, kind: str = "") -> list[str]:
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda fault: complaints.append(str(fault)))
    page.evaluate(COMPONENT, kind)
    page.locator("#output").wait_for(state="attached")
    return complaints


def wait_for_end(page: Page) -> None:
    page.wait_for_function("talk.output !== '' && !talk.isStreaming")


@pytest.mark.usefixtures("react")
@pytest.mark.parametrize("kind", ["import", "argument", "outer"])
def test_the_hook_streams_into_a_react_page_in_strict_mode(visit: Visit, kind: str) -> None:
    page, _, relay = visit()
    complaints = mount(page, kind)
    page.evaluate("() => { window.sent = talk.send('Hello'); }")
    wait_for_end(page)
    page.evaluate("sent")
    assert page.locator("#output").text_content() == text("plain")
    assert page.evaluate("talk.messages.map((turn) => turn.role)") == ["user", "assistant"]
    assert (page.evaluate("talk.error"), len(relay.requests), complaints) == (None, 1, [])


@pytest.mark.usefixtures("react")
@pytest.mark.parametrize("kind", ["effect", "guarded effect"])
def test_an_effect_that_sends_sends_once_in_strict_mode(visit: Visit, kind: str) -> None:
    page, proxy, _ = visit(recorded("plain"), recorded("plain"))
    complaints = mount(page, kind)
    wait_for_end(page)
    assert page.locator("#output").text_content() == text("plain")
    assert ([request.split()[0] for request in proxy.requests], complaints) == (["POST"], [])


@pytest.mark.usefixtures("react")
def test_the_hook_paints_growing_text_and_stops_on_the_server(visit: Visit, background: Background) -> None:
    gate = background.gate(free=4)
    page, _, _ = visit(speed=1, sleep=gate.sleep, limits=RunLimits(grace_seconds=600))
    mount(page)
    page.evaluate("() => void talk.send('Hello')")
    page.wait_for_function("talk.output !== ''")
    assert page.evaluate("talk.isStreaming") is True
    assert page.evaluate("talk.stop()") is True
    assert gate.left.wait(PATIENCE)
    assert page.evaluate("[talk.isStreaming, talk.error]") == [False, None]


@pytest.mark.usefixtures("react")
def test_a_component_that_is_removed_stops_its_answer(visit: Visit, background: Background) -> None:
    gate = background.gate(free=4)
    page, _, _ = visit(speed=1, sleep=gate.sleep, limits=RunLimits(grace_seconds=600))
    complaints = mount(page)
    page.evaluate("() => void talk.send('Hello')")
    page.wait_for_function("talk.output !== ''")
    page.evaluate("show(false)")
    assert gate.left.wait(PATIENCE)
    assert complaints == []


@pytest.mark.usefixtures("react")
def test_a_chat_of_the_caller_outlives_its_component(visit: Visit, background: Background) -> None:
    gate = background.gate(free=4)
    page, _, _ = visit(speed=1, sleep=gate.sleep)
    mount(page, "outer")
    page.evaluate("() => void talk.send('Hello')")
    page.wait_for_function("talk.output !== ''")
    page.evaluate("show(false)")
    page.locator("#output").wait_for(state="detached")
    gate.let(1000)
    page.wait_for_function("!outer.getState().isStreaming")
    page.evaluate("show(true)")
    page.locator("#output").wait_for(state="attached")
    assert page.locator("#output").text_content() == text("plain")


@pytest.mark.usefixtures("react")
def test_a_question_during_an_answer_stops_it_and_the_conversation_goes_on(
    visit: Visit, background: Background
) -> None:
    gate = background.gate(free=4)
    page, proxy, relay = visit(recorded("plain"), recorded("plain"), speed=1, sleep=gate.sleep)
    mount(page)
    page.evaluate("() => void talk.send('First')")
    page.wait_for_function("talk.output !== ''")
    said = page.evaluate("talk.output")
    page.evaluate("() => void talk.send('Second')")
    gate.let(1000)
    wait_for_end(page)
    assert sorted(request.split()[0] for request in proxy.requests) == ["DELETE", "POST", "POST"]
    first, answer, second = relay.requests[-1].body["messages"]
    assert (first, second) == ({"role": "user", "content": "First"}, {"role": "user", "content": "Second"})
    assert answer["role"] == "assistant"
    assert answer["content"].startswith(said)  # more may have come since it was painted
    assert page.locator("#output").text_content() == text("plain")


def reload(page: Page, kind: str = "kept") -> list[str]:
    page.reload()
    page.wait_for_function("'begin' in window")
    return mount(page, kind)


@pytest.mark.usefixtures("react")
@pytest.mark.parametrize("kind", ["kept", "hydrated"])
def test_after_a_reload_the_hook_goes_on_with_the_answer_that_was_running(
    visit: Visit, background: Background, kind: str
) -> None:
    gate = background.gate(free=4)
    page, proxy, relay = visit(
        recorded("plain"), recorded("plain"), speed=1, sleep=gate.sleep, limits=RunLimits(grace_seconds=600)
    )
    mount(page, "kept")
    page.evaluate("() => void talk.send('First')")
    page.wait_for_function("talk.output !== ''")
    run = page.evaluate("talk.id")
    complaints = reload(page, kind)
    page.wait_for_function("talk.output !== ''")
    assert page.evaluate("[talk.id, talk.isStreaming]") == [run, True]
    gate.let(1000)
    wait_for_end(page)
    assert page.locator("#output").text_content() == text("plain")
    assert [request.split()[:2] for request in proxy.requests] == [
        ["POST", "/api/chat/stream"],
        ["GET", f"/runs/{run}"],
    ]
    assert (page.evaluate("talk.stopReason"), complaints, len(relay.requests)) == ("end_turn", [], 1)
    page.evaluate("talk.send('Second')")
    assert [turn["content"] for turn in relay.requests[-1].body["messages"]] == ["First", text("plain"), "Second"]


@pytest.mark.usefixtures("react")
def test_each_answer_has_its_thinking_while_it_comes_and_after_a_reload(visit: Visit, background: Background) -> None:
    (thought,) = (block["thinking"] for block in message("thinking")["content"] if block["type"] == "thinking")
    reads = recorded("thinking").reads
    gate = background.gate(free=next(n for n, read in enumerate(reads) if b"text_delta" in read.data))
    page, _, relay = visit(recorded("thinking"), recorded("thinking"), speed=1, sleep=gate.sleep)
    mount(page, "thoughts")
    page.evaluate("() => void talk.send('First')")
    page.wait_for_function("talk.messages.at(-1).thinking?.length > 0")
    assert page.evaluate("[talk.output, talk.isStreaming]") == ["", True]
    gate.let(1000)
    wait_for_end(page)
    page.evaluate("talk.send('Second')")
    before = page.evaluate("talk.messages")
    assert [turn.get("thinking") for turn in before] == [None, thought, None, thought]
    page.reload()
    mount(page, "thoughts")
    page.wait_for_function("talk.messages.length === 4")
    assert page.evaluate("talk.messages") == before
    assert [turn["content"] for turn in relay.requests[-1].body["messages"]] == ["First", text("thinking"), "Second"]


@pytest.mark.usefixtures("react")
def test_after_a_reload_stop_ends_the_call_to_the_api(visit: Visit, background: Background) -> None:
    gate = background.gate(free=4)
    page, proxy, _ = visit(speed=1, sleep=gate.sleep, limits=RunLimits(grace_seconds=600))
    mount(page, "kept")
    page.evaluate("() => void talk.send('Hello')")
    page.wait_for_function("talk.output !== ''")
    reload(page)
    page.wait_for_function("talk.output !== ''")
    assert page.evaluate("talk.stop()") is True
    assert gate.left.wait(PATIENCE)
    reload(page)
    page.wait_for_function("talk.messages.length === 2")
    assert page.evaluate("[talk.isStreaming, talk.messages[1].ending]") == [False, "stopped"]
    assert [request.split()[0] for request in proxy.requests] == ["POST", "GET", "DELETE"]
