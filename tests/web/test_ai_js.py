"""ai.js in Chromium: the README's page with the AI SDK's `useChat`, in front of the relay, behind a network that breaks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from interop.stack import Stack, recorded, refusal, text
from support.background import PATIENCE, Background, Gate

from rawsse.relay import RunLimits

from .node_harness import NODE_MODULES, WEB
from .proxy import Proxy
from .test_package import examples

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.real

INDEX = """<!doctype html><meta charset="utf-8"><title>Test</title><link rel="icon" href="data:,">
<div id="root"></div><script type="module" src="/page.mjs"></script>"""

MAIN = """
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
createRoot(document.getElementById("root")).render(<StrictMode><Talk /></StrictMode>);
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The component of the README as a page, bundled with the AI SDK."""
    missing = [name for name in ("@ai-sdk/react", "ai", "react-dom", "esbuild") if not (NODE_MODULES / name).is_dir()]
    if missing:
        pytest.skip(f"no {missing} in {NODE_MODULES} (RAWSSE_NODE_MODULES names another folder)")
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text(INDEX)
    command: list[str | Path] = [NODE_MODULES / ".bin/esbuild", "--bundle", "--format=esm", "--loader=jsx"]
    command += ["--jsx=automatic", '--define:process.env.NODE_ENV="development"', f"--alias:rawsse/ai={WEB / 'ai.js'}"]
    env = {**os.environ, "NODE_PATH": str(NODE_MODULES)}
    subprocess.run(
        [*command, f"--outfile={folder / 'page.mjs'}"],
        input=examples()[-1] + MAIN,
        text=True,
        cwd=folder,
        env=env,
        check=True,
        timeout=60,
    )
    return folder


Visit = Callable[..., "tuple[Page, Proxy, Stack]"]


@pytest.fixture
def visit(chromium: Browser, background: Background, site: Path) -> Iterator[Visit]:
    """The page behind a proxy, in front of a relay that plays these recordings."""
    with chromium.new_context() as context:
        context.set_default_timeout(PATIENCE * 1000)

        def visit(*recordings: Any, **options: Any) -> tuple[Page, Proxy, Stack]:
            limits = RunLimits(grace_seconds=600)
            relay = Stack(background, recordings or [recorded("plain")], static=site, limits=limits, **options)
            proxy = background.enter(Proxy(int(relay.base_url.rpartition(":")[2])))
            page = context.new_page()
            page.goto(proxy.url)
            return page, proxy, relay

        yield visit


def ask(page: Page) -> None:
    page.get_by_text("Send").click()
    page.get_by_text("Stop").wait_for()


def in_the_middle(visit: Visit, background: Background) -> tuple[Page, Proxy, Stack, Gate]:
    """The page with the first words of an answer, which goes on as the gate says."""
    gate = background.gate(free=6)
    page, proxy, relay = visit(speed=1, sleep=gate.sleep)
    ask(page)
    wait_for_text(page)
    return page, proxy, relay, gate


def wait_for_text(page: Page) -> None:
    page.wait_for_function("document.querySelector('.assistant')?.textContent.length > 0")


def shown(page: Page) -> list[str]:
    """What the page shows at the end of the answer."""
    page.get_by_text("Send").wait_for()
    return page.locator("p").all_text_contents()


WHOLE = ["Hello", text("plain")]


def test_cut_again_and_again_an_answer_comes_whole_and_once(visit: Visit) -> None:
    page, proxy, relay = visit()
    proxy.cut_after = 20
    ask(page)
    assert shown(page) == WHOLE
    posts = [request for request in proxy.requests if request.startswith("POST")]
    assert (len(posts), len(relay.requests)) == (1, 1)
    assert len(proxy.requests) > 2  # it was cut


def test_a_reload_in_the_middle_goes_on_with_the_answer(visit: Visit, background: Background) -> None:
    page, _, relay, gate = in_the_middle(visit, background)
    page.reload()
    wait_for_text(page)
    gate.let(99)
    assert (shown(page), len(relay.requests)) == (WHOLE, 1)


@pytest.mark.parametrize("has_seen_a_cut", [False, True])
def test_a_reload_finds_the_answer_that_ended_while_the_page_was_away(
    visit: Visit, background: Background, has_seen_a_cut: bool
) -> None:
    page, proxy, relay, gate = in_the_middle(visit, background)
    # The relay sees either that its reader is gone, or a reader that takes everything: the proxy does.
    proxy.target = None
    proxy.cut() if has_seen_a_cut else proxy.freeze()
    gate.let(99)
    wait_for_no_runs(page, relay)
    proxy.target = int(relay.base_url.rpartition(":")[2])
    page.reload()
    wait_for_text(page)
    assert (shown(page), len(relay.requests)) == (WHOLE, 1)
    page.reload()
    page.locator(".assistant").wait_for()
    assert shown(page) == WHOLE  # once


def wait_for_no_runs(page: Page, relay: Stack) -> None:
    """Return when the relay has no open run."""
    while page.request.get(f"{relay.base_url}/runs").json():
        pass


def test_stop_stops_the_model_and_a_reload_does_not_bring_the_answer_back(visit: Visit, background: Background) -> None:
    page, proxy, _, gate = in_the_middle(visit, background)
    page.get_by_text("Stop").click()
    assert gate.left.wait(PATIENCE)
    before = shown(page)
    proxy.requests.clear()
    page.reload()
    proxy.wait_for(1)
    assert shown(page) == before


def test_an_answer_that_was_read_again_can_be_stopped(visit: Visit, background: Background) -> None:
    page, _, _, gate = in_the_middle(visit, background)
    page.reload()
    wait_for_text(page)
    page.get_by_text("Stop").click()
    assert gate.left.wait(PATIENCE)


@pytest.mark.parametrize(
    ("recording", "words"),
    [
        (refusal(400, "invalid_request_error", "Too much."), "Too much."),
        (recorded("error-after-content"), "Internal server error"),
    ],
)
def test_a_failure_is_told_in_the_words_of_the_relay(visit: Visit, recording: Any, words: str) -> None:
    page, _, _ = visit(recording)
    page.get_by_text("Send").click()
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").text_content() == words
