"""The decoder against a language-neutral conformance suite for `text/event-stream`, where its `cases.json` is at hand.

Each case holds the bytes of a stream, the events, id and reconnection time that the WHATWG standard makes of them, and the
byte at which each event may fire. The result may not depend on how the bytes are cut.
"""

from __future__ import annotations

import base64
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.sampling import one_in

from rawsse.sse import Decoder, Event

Case = dict[str, Any]


def load_cases() -> list[Case]:
    named = os.environ.get("RAWSSE_CONFORMANCE")
    path = Path(named or Path(__file__).parents[2] / "shared" / "conformance" / "cases.json")
    if not named and not path.exists():
        return []
    cases: list[Case] = json.loads(path.read_text())
    return cases


CASES = load_cases()

pytestmark = pytest.mark.skipif(not CASES, reason="no conformance suite here: RAWSSE_CONFORMANCE names its cases.json")


def bytes_of(case: Case) -> bytes:
    return base64.b64decode(case["input_b64"])


def in_pieces(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def in_random_pieces(stream: bytes, chance: random.Random) -> list[bytes]:
    cuts = sorted(chance.choices(range(len(stream) + 1), k=min(len(stream), 12)))  # a cut drawn twice: an empty chunk
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def ways_to_cut(case: Case) -> Iterator[list[bytes]]:
    stream, chance = bytes_of(case), random.Random(case["id"])
    is_large = "large" in case.get("tags", ())
    yield [stream]
    for size in (65536, 4096, 1000) if is_large else (1, 2, 3, 5, 7, 13)[:: one_in(2)]:
        yield in_pieces(stream, size)
    for at in range(len(stream) if len(stream) <= 200 else 0):
        yield [stream[:at], stream[at:]]
    for _ in range(2 if is_large else 8 // one_in(4)):
        yield in_random_pieces(stream, chance)


def expected_events(case: Case) -> list[Event]:
    return [Event(event["event"], event["data"], event["last_event_id"]) for event in case["expect"]["events"]]


def test_each_conformance_case_holds_however_it_is_cut() -> None:
    for case in CASES:
        expect, events = case["expect"], expected_events(case)
        accepted = expect.get("retry_accept", [expect["retry_ms"]])
        for chunks in ways_to_cut(case):
            decoder = Decoder()
            assert [event for chunk in chunks for event in decoder.feed(chunk)] == events, (case["id"], chunks[:50])
            decoder.close()
            assert decoder.last_event_id == expect["final_last_event_id"], (case["id"], chunks[:50])
            assert accepted == "any" or decoder.retry in accepted, (case["id"], chunks[:50])


def test_each_conformance_case_fires_each_event_at_its_byte() -> None:
    for case in CASES:
        decoder, stream, start = Decoder(), bytes_of(case), 0
        for end, event in zip(case["expect"]["dispatch_at"], expected_events(case), strict=True):
            assert decoder.feed(stream[start : end - 1]) == [], (case["id"], end)  # so not before its last byte
            assert decoder.feed(stream[end - 1 : end]) == [event], (case["id"], end)
            start = end
        assert decoder.feed(stream[start:]) == [], case["id"]
