"""rawsse.replay.recording: the message in a recording."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rawsse.replay import Read, Recording, shipped_fixtures

FIXTURES = shipped_fixtures()
EXPECTED = {
    name: json.loads((Path(__file__).parents[2] / f"fixtures/{name}.json").read_text("utf-8")) for name in FIXTURES
}
WHOLE = sorted(name for name in FIXTURES if EXPECTED[name]["ending"] == "complete")
JSON = {"content-type": "application/json"}


def of(*pieces: bytes, **headers: str) -> Recording:
    reads = tuple(Read(float(t), piece) for t, piece in enumerate(pieces))
    return Recording(headers={name.replace("_", "-"): value for name, value in headers.items()} or JSON, reads=reads)


@pytest.mark.parametrize("name", WHOLE)
def test_the_reply_is_what_was_written_down_for_the_recording(name: str) -> None:
    assert FIXTURES[name].message() == EXPECTED[name]["message"]


@pytest.mark.parametrize("name", sorted(set(FIXTURES) - set(WHOLE)))
def test_what_is_cut_or_ends_in_an_error_is_no_reply(name: str) -> None:
    assert FIXTURES[name].message() is None


def test_a_message_as_json_is_a_reply() -> None:
    assert of(b'{"type": "message", ', b'"content": []}').message() == {"type": "message", "content": []}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"{}", b"\xff", b"[" * 100_000),
        *(b'{"type": "error"}', b'{"type": "message"}', b'{"type": "message", "content": [5]}'),
    ],
)
def test_other_json_is_none(body: bytes) -> None:
    assert of(body).message() is None


def test_an_error_status_has_no_reply() -> None:
    assert Recording(status=529, headers=JSON, reads=(Read(0.0, b'{"type": "message"}'),)).message() is None


def test_a_broken_stream_has_none() -> None:
    assert of(b"event: message_start\ndata: {\n\n", content_type="text/event-stream").message() is None
