"""An API that quotes the relay's key: no browser is told it, on no route, and no log has it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from support.quoting import IN_HEADERS, PLACES, some_forms
from support.sampling import one_in

from .stage import CHAT, KEY, ask

MESSAGES = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
UI = {"id": "chat-1", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}], "trigger": "x"}
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("/stream", CHAT),
    "events": ("/api/chat", CHAT),
    "ui": ("/api/chat", UI),
    "messages": ("/v1/messages", {**MESSAGES, "stream": True}),
    "a whole message": ("/v1/messages", MESSAGES),
    "a count": ("/v1/messages/count_tokens", MESSAGES),
}
EVERYWHERE = {**PLACES, **IN_HEADERS}


# Each place with half of the routes, the next place with the other half.
CASES = [
    (route, place)
    for number, route in enumerate(ROUTES)
    for at, place in enumerate(EVERYWHERE)
    if (number + at) % one_in(2) == 0
]


@pytest.mark.parametrize(("route", "place"), CASES)
def test_no_route_and_no_log_has_the_key(route: str, place: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    path, body = ROUTES[route]
    for name, form in some_forms(place).items():
        written = form(KEY)
        browser = ask("POST", path, body, api=EVERYWHERE[place](written))
        told = b"".join(data for _, data in browser.sent).decode() + repr(browser.headers) + caplog.text
        for secret in (KEY, written, KEY[:14], KEY[-9:]):
            assert secret not in told, name


@pytest.mark.parametrize(("path", "body"), ROUTES.values(), ids=ROUTES)
def test_the_rest_of_what_the_api_says_is_told(path: str, body: dict[str, Any]) -> None:
    browser = ask("POST", path, body, api=PLACES["a message"](KEY))
    assert b"bad key [x-api-key]" in b"".join(data for _, data in browser.sent)
