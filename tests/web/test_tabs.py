"""Many tabs over one connection: `tabs.js` in Chromium, in front of the relay itself."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from interop.stack import Stack, recorded, text
from support.background import PATIENCE, Background, Gate

from rawsse.relay import RunLimits

from .proxy import Proxy

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.real

PAGE = """<!doctype html><meta charset="utf-8"><title>Tab</title>
<script type="module">
import { streamChat } from "/rawsse.js";
import { sharedFetch } from "/tabs.js";
window.told = { frames: [], opened: [], lost: 0 };
window.begin = (message = "Hello", body = { message }, options = {}) => {
  window.chat = streamChat("/api/chat", body, {
    waits: [1], fetch: sharedFetch, ...options, onText: () => {}, onError: () => {}, onLost: () => (told.lost += 1),
    onFrame: (raw) => told.frames.push(raw), onOpen: ({ method, status }) => told.opened.push(`${method} ${status}`) });
  chat.done.catch((error) => ({ ...error, message: error.message })).then((result) => (told.result = result));
};
</script>"""

PLAIN = recorded("plain")
TABS = 10


class Tabs:
    """Tabs of one browser, and the network between them and a relay whose upstream goes on as the test says."""

    def __init__(self, background: Background, context: BrowserContext, site: Path, **options: Any) -> None:
        self._background, self._context, self._site = background, context, site
        self.gate: Gate = background.gate()
        self.relay = self.start_relay(**options)
        self.proxy = background.enter(Proxy(port(self.relay)))

    def start_relay(self, **options: Any) -> Stack:
        played = [PLAIN] * (TABS + 1)
        return Stack(self._background, played, static=self._site, speed=1, sleep=self.gate.sleep, **options)

    def open(self, count: int = 1) -> list[Page]:
        pages = [self._context.new_page() for _ in range(count)]
        for page in pages:
            page.goto(self.proxy.url)
            page.wait_for_function("'begin' in window")
        return pages

    def begin(self, count: int) -> list[Page]:
        """Tabs with a run each; the leader has one connection for all of them. The first one leads."""
        pages = self.open(count)
        for page in pages:
            page.evaluate("begin()")
            wait(page, "told.opened.some((opened) => opened.endsWith(' 200'))")
        return pages

    def reads(self) -> list[str]:
        return [request for request in self.proxy.requests if request.startswith("GET")]


def port(relay: Stack) -> int:
    return int(relay.base_url.rpartition(":")[2])


def wait(page: Page, condition: str) -> None:
    page.wait_for_function(f"() => {condition}")


def result(page: Page) -> Any:
    wait(page, "'result' in told")
    return page.evaluate("told.result")


def seen(page: Page) -> list[str]:
    """The frames of the answer, without comments."""
    return [raw for raw in page.evaluate("told.frames") if raw.startswith("id:")]


@pytest.fixture
def tabs(chromium: Browser, background: Background, tmp_path: Path) -> Iterator[Callable[..., Tabs]]:
    (tmp_path / "index.html").write_text(PAGE)
    with chromium.new_context() as context:
        context.set_default_timeout(PATIENCE * 1000)
        yield lambda **options: Tabs(background, context, tmp_path, **options)


def assert_whole(page: Page) -> None:
    """The answer is whole, and each of its frames came once."""
    told = result(page)
    assert (told["text"], told["ending"]) == (text("plain"), "complete")
    numbers = [int(raw.partition("\n")[0].rpartition("-")[2]) for raw in seen(page)]
    assert len(numbers) == len(set(numbers))
    assert numbers == sorted(numbers)


def test_ten_tabs_go_on_at_the_same_time_over_one_connection(tabs: Callable[..., Tabs]) -> None:
    browser = tabs()
    pages = browser.begin(TABS)
    browser.gate.let(4 * TABS)
    for page in pages:
        wait(page, "chat.text !== ''")
        assert page.evaluate("chat.ending") is None
    assert all("&" in path for path in browser.reads()[1:])
    browser.gate.let(1000)
    for page in pages:
        assert_whole(page)
        assert (page.evaluate("told.lost"), page.evaluate("told.opened")) == (0, ["POST 202", "GET 200"])
    assert len(browser.relay.requests) == TABS


def test_when_the_leader_closes_another_tab_goes_on_without_a_lost_or_doubled_frame(tabs: Callable[..., Tabs]) -> None:
    browser = tabs()
    leader, *pages = browser.begin(4)
    browser.gate.let(4 * 4)
    for page in pages:
        wait(page, "chat.text !== ''")
    leader.close()
    browser.gate.let(1000)
    for page in pages:
        assert_whole(page)
        assert page.evaluate("told.lost") == 0
    assert len(browser.relay.requests) == 4


def test_when_the_leaders_own_answer_ends_another_tab_leads(tabs: Callable[..., Tabs]) -> None:
    browser = tabs()
    leader, *pages = browser.begin(3)
    assert leader.evaluate("chat.stop()")
    browser.gate.let(1000)
    for page in pages:
        assert_whole(page)
        assert page.evaluate("told.lost") == 0


def test_to_stop_in_one_tab_ends_only_its_run_and_ends_it_on_the_server(tabs: Callable[..., Tabs]) -> None:
    browser = tabs()
    first, second, third = browser.begin(3)
    assert second.evaluate("chat.stop()")
    assert result(second)["ending"] == "stopped"
    assert browser.gate.left.wait(PATIENCE), "the upstream"
    browser.gate.let(1000)
    assert_whole(first)
    assert_whole(third)
    assert [request.split()[0] for request in browser.proxy.requests].count("DELETE") == 1


def test_a_tab_that_crashes_no_longer_keeps_its_run_alive(tabs: Callable[..., Tabs]) -> None:
    from playwright.sync_api import Error

    browser = tabs(limits=RunLimits(grace_seconds=0.5))
    first, second = browser.begin(2)
    with contextlib.suppress(Error):  # it does not answer any more
        second.goto("chrome://crash")
    assert browser.gate.left.wait(PATIENCE), "the upstream"
    browser.gate.let(1000)
    assert_whole(first)


def test_cut_at_every_tenth_frame_each_answer_comes_whole_and_once(tabs: Callable[..., Tabs]) -> None:
    browser = tabs()
    browser.proxy.cut_after = 10
    pages = browser.begin(4)
    browser.gate.let(1000)
    for page in pages:
        assert_whole(page)
    assert sum(page.evaluate("told.lost") for page in pages) >= 1
    assert len(browser.relay.requests) == 4


def test_after_a_restart_each_tab_is_told_that_its_answer_is_forgotten_and_keeps_its_text(
    tabs: Callable[..., Tabs],
) -> None:
    browser = tabs()
    pages = browser.begin(3)
    browser.gate.let(4 * 3)
    for page in pages:
        wait(page, "chat.text !== ''")
    browser.proxy.target = port(browser.start_relay())
    browser.proxy.cut()
    for page in pages:
        told = result(page)
        assert (told["type"], told["status"]) == ("forgotten", 404)
        assert told["text"]


def test_a_relay_that_is_away_for_a_while_is_found_again_by_all_tabs(tabs: Callable[..., Tabs]) -> None:
    browser = tabs()
    pages = browser.begin(3)
    target, browser.proxy.target = browser.proxy.target, None
    browser.proxy.cut()
    for page in pages:
        wait(page, "told.lost >= 2")
    browser.proxy.target = target
    browser.gate.let(1000)
    for page in pages:
        assert_whole(page)


def test_two_tabs_can_read_one_run_from_different_places(tabs: Callable[..., Tabs]) -> None:
    browser = tabs()
    (first,) = browser.begin(1)
    browser.gate.let(4)
    wait(first, "chat.text !== ''")
    (second,) = browser.open()
    second.evaluate("(id) => begin('', null, { id })", first.evaluate("chat.id"))
    wait(second, "chat.text !== ''")
    browser.gate.let(1000)
    assert_whole(first)
    assert_whole(second)


@pytest.mark.parametrize("missing", ["navigator.locks", "window.BroadcastChannel"])
def test_without_locks_or_channels_each_tab_has_its_own_connection(tabs: Callable[..., Tabs], missing: str) -> None:
    browser = tabs()
    (page,) = browser.open()
    owner, _, name = missing.partition(".")
    page.evaluate(f"Object.defineProperty({owner}, '{name}', {{ value: undefined }})")
    page.evaluate("begin()")
    browser.gate.let(1000)
    assert_whole(page)
    assert page.evaluate("told.opened") == ["POST 200"]


def test_a_leader_that_is_frozen_costs_the_others_a_while_and_not_their_answer(tabs: Callable[..., Tabs]) -> None:
    browser = tabs()
    leader, page = browser.open(2)
    # It gets the locks, and does nothing with them.
    leader.evaluate(
        """() => {
          const { request } = navigator.locks;
          const never = () => new Promise(() => {});
          navigator.locks.request = (name, options) => request.call(navigator.locks, name, options, never);
          begin();
        }"""
    )
    wait(leader, "told.opened.includes('POST 202')")
    page.clock.install()
    page.evaluate("begin()")
    wait(page, "told.opened.includes('POST 202')")
    wait(page, "navigator.locks.query().then(({ pending }) => pending.length > 0)")
    page.clock.fast_forward(5000)
    wait(page, "told.opened.includes('GET 200')")
    browser.gate.let(1000)
    assert_whole(page)


def test_tabs_with_other_tokens_do_not_share(tabs: Callable[..., Tabs]) -> None:
    browser = tabs()
    first, second = browser.open(2)
    first.evaluate("begin('a', undefined, { token: 'token-of-ada' })")
    second.evaluate("begin('b', undefined, { token: 'token-of-bob' })")
    for page in (first, second):
        wait(page, "told.opened.includes('GET 200')")
    rooms = first.evaluate("navigator.locks.query().then(({ held }) => held.map(({ name }) => name))")
    assert len({room.split()[1] for room in rooms}) == 2
    assert "token" not in "".join(rooms)
    browser.gate.let(1000)
    assert_whole(first)
    assert_whole(second)


def test_nothing_is_held_when_the_answers_have_ended(tabs: Callable[..., Tabs]) -> None:
    browser = tabs()
    pages = browser.begin(2)
    browser.gate.let(1000)
    for page in pages:
        assert_whole(page)
    wait(pages[0], "navigator.locks.query().then(({ held, pending }) => held.length + pending.length === 0)")


LEAD = """async (run, act) => {
  const { sharedFetch } = await import("/tabs.js");
  const joins = [];
  let told;
  const joined = new Promise((resolve) => (told = resolve));
  const { request } = navigator.locks;
  navigator.locks.request = (name, options, hold) => {
    if (name.split(" ").length > 2) return request.call(navigator.locks, name, options, hold);
    const room = new BroadcastChannel(name); // it is the test that leads
    room.onmessage = ({ data }) => data.join && (joins.push(data.after), told([room, data.join]));
    return Promise.resolve();
  };
  const waiting = sharedFetch(`${location.origin}/runs/${run}`, { method: "GET" });
  const [room, name] = await joined;
  const say = (leader, message) => room.postMessage({ leader, ...message });
  say("x", { opened: [name], runs: [run] });
  return act({ say, name, run, joins, response: await waiting });
}"""


def test_a_tab_that_does_not_read_keeps_no_more_than_its_bound(tabs: Callable[..., Tabs]) -> None:
    (page,) = tabs().open()
    told = page.evaluate(
        """([lead, run]) => eval(lead)(run, async ({ say, response }) => {
          const frames = [["", "", "x".repeat(1024 * 1024)]];
          for (let mib = 0; mib < 32; mib += 1) say("x", { frames });
          for (let i = 0; i < 500 && (await navigator.locks.query()).held.length; i += 1) ;
          return response.body.getReader().read().then(() => "all was kept", (error) => error.message);
        })""",
        [LEAD, "a" * 32],
    )
    assert told == "what came was not read"


def test_what_a_former_leader_still_says_is_left_to_the_next_one(tabs: Callable[..., Tabs]) -> None:
    (page,) = tabs().open()
    told = page.evaluate(
        """([lead, run]) => eval(lead)(run, async ({ say, name, joins, response }) => {
          const frame = (n) => [run, `t-${n}`, `id: t-${n}\\n\\n`];
          say("x", { frames: [frame(1)] });
          say("y", { leads: true });
          say("x", { frames: [frame(2)] });
          for (let i = 0; i < 500 && joins.length < 2; i += 1) await navigator.locks.query();
          say("y", { opened: [name], runs: [run] });
          say("y", { frames: [frame(2), frame(3), ["", "", ": beat\\n\\n"], ["other", "u-9", "id: u-9\\n\\n"]] });
          say("y", { lost: [name] });
          const pieces = [];
          for await (const piece of response.body.pipeThrough(new TextDecoderStream())) pieces.push(piece);
          return [pieces.join(""), joins];
        })""",
        [LEAD, "a" * 32],
    )
    assert told == ["id: t-1\n\nid: t-2\n\nid: t-3\n\n: beat\n\n", ["", "t-1"]]


def test_the_built_in_page_shares_its_connection_and_its_wire_shows_it(
    chromium: Browser, background: Background
) -> None:
    gate = background.gate()
    proxy = background.enter(Proxy(port(Stack(background, [PLAIN] * 2, speed=1, sleep=gate.sleep))))
    with chromium.new_context() as context:
        pages = [context.new_page() for _ in range(2)]
        for number, page in enumerate(pages, 1):
            page.goto(proxy.url)
            page.get_by_role("button", name="Wire").click()
            page.locator("#prompt").fill("Hello")
            page.keyboard.press("Enter")
            page.locator("#frames .note").nth(1).wait_for()
            proxy.wait_for(2 * number)
        gate.let(1000)
        for page in pages:
            page.locator("#send").wait_for()
            # Not what is drawn, which is Markdown's and has no line ends: what the next question would send back.
            kept = json.loads(page.evaluate("sessionStorage.getItem('rawsse.conversation')"))["exchanges"]
            assert [block["text"] for block in kept[0]["answer"]["message"]["content"]] == [text("plain")]
            notes = page.locator("#frames .note pre").all_text_contents()
            assert (notes[0], notes[1][:10], notes[1][-5:]) == ("POST /api/chat: 202", "GET /runs/", ": 200")
    reads = [request for request in proxy.requests if request.startswith("GET")]
    assert reads[0].startswith("GET /runs?id=")
    assert any(read.count("id=") == 2 for read in reads)
