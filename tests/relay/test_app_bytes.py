"""rawsse.relay.app: the API's events pass through it byte for byte: every fixture, and every recording of a real stream.

Of the 193 recordings that there are, all do. In these the relay has something to add or to leave out:

    two files with two messages      everything after the first message_stop is left out
    two files whose last event has   the reader drops an event without it, so that its tail is missing: it is replaced
    no blank line after it
    three files with nothing but     `/v1/messages` answers them as the error that they are, with its status
    an error event
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import pytest
from support.clock import run
from support.streams import Raw

from rawsse.sse import Decoder

from .recordings import bodies
from .stage import CHAT, HEAD, Browser, relay

MESSAGES: Raw = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
DONE = b"data: [DONE]\n\n"
ADDED_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


@functools.cache
def relayed(body: bytes) -> tuple[Browser, bytes]:
    """What the relay makes of this body: for a client of the API, and in the events dialect."""

    async def story() -> tuple[Browser, bytes]:
        async with relay(HEAD + body, HEAD + body) as stage:
            messages = await stage.ask("POST", "/v1/messages", MESSAGES).done()
            return messages, (await stage.ask("POST", "/api/chat", CHAT).done()).body

    return run(story())


def kind_of(block: bytes) -> Any:
    """The type of the one event in these bytes; None for a comment."""
    return next((json.loads(event.data)["type"] for event in Decoder().feed(block)), None)


def whole_events(body: bytes) -> tuple[bytes, list[Any]]:
    """The bytes of the events up to the first that ends the stream, and the types of those events."""
    end, kinds = 0, list[Any]()
    for block in re.finditer(rb"(?s).+?\n\n", body):
        kinds.append(kind_of(block.group()))
        end = block.end()
        if kinds[-1] in ("message_stop", "error"):
            break
    return body[:end], kinds


def check_end(rest: bytes, kinds: list[Any]) -> None:
    """What follows the API's events: nothing if they are whole, else the one that they lack."""
    if kinds[-1] in ("message_stop", "error"):
        assert rest == b""
    elif "message_delta" in kinds:
        assert rest == ADDED_STOP
    else:
        assert re.fullmatch(rb'event: error\ndata: \{"type":"error",.*"ending":\{"kind":"truncated",.*\n\n', rest)


@pytest.mark.parametrize("body", bodies())
def test_clients_of_the_api_get_its_own_bytes(body: bytes) -> None:
    (got, _), (sent, kinds) = relayed(body), whole_events(body)
    if kinds == ["error"]:
        (event,) = Decoder().feed(sent)
        assert (got.status, got.json) == (529, json.loads(event.data))
    else:
        assert got.body.startswith(sent)
        check_end(got.body.removeprefix(sent), kinds)


@pytest.mark.parametrize("body", bodies())
def test_in_the_events_dialect_they_have_ids_and_an_end_mark(body: bytes) -> None:
    (_, got), (sent, kinds) = relayed(body), whole_events(body)
    ids = re.findall(rb"(?m)^id: [0-9a-f]{8}-(\d+)\n", got)
    assert [int(id) for id in ids] == list(range(1, got.count(b"\n\n") + 1))
    without = re.sub(rb"(?m)^id: .*\n", b"", got)
    assert without.startswith(sent)
    assert without.endswith(DONE)
    check_end(without.removeprefix(sent).removesuffix(DONE), kinds)
