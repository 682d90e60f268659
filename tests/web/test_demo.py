"""The page in front of the relay itself, with recorded answers: the two halves speak the same language."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [sys.executable, "-m", "rawsse", "demo", "--port", "0", "--speed", "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as demo:
        assert demo.stdout is not None
        yield next(line for line in demo.stdout if line.startswith("listening on ")).split()[-1]
        demo.terminate()


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Page]:
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(address)
        yield page


def ask(page: Page, text: str) -> None:
    page.locator("#prompt").fill(text)
    page.keyboard.press("Enter")


def test_the_page_streams_an_answer_under_the_relays_own_policy(page: Page) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.reload()
    ask(page, "Hello")
    page.locator("#send").wait_for()
    assert page.locator("#status").text_content() == "Answer complete."
    assert len(page.locator(".answer .text").text_content() or "") > 100
    assert complaints == []


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("overload", "The API is overloaded. Wait a moment, then try again."),
        ("error", "The API or the server failed."),
        ("cut", "The API's answer broke off before it was complete."),
        ("limit", "Cut off: the limit of output tokens was reached."),
        ("refuse", "The model declined to answer."),
    ],
)
def test_the_page_says_how_the_relays_answer_ended(page: Page, word: str, said: str) -> None:
    ask(page, word)
    page.locator("#send").wait_for()
    assert page.locator("#status").text_content() == said


def test_a_word_of_the_demo_is_a_button(page: Page) -> None:
    page.get_by_role("button", name="think", exact=True).click()
    page.locator("#send").wait_for()
    assert page.locator("details.thinking").count() == 1


def test_the_relay_takes_the_pages_stop_before_the_first_byte(page: Page) -> None:
    with page.expect_response(lambda response: response.request.method == "DELETE") as stopped:
        page.evaluate("form[0].value = 'Hello'; form.requestSubmit(); document.querySelector('#stop').click()")
    assert stopped.value.status in (204, 404)  # 404: the prompt had not even arrived
    page.locator("#send").wait_for()
    assert page.locator("#status").text_content() == "Stopped."
