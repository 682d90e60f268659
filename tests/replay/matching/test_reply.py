"""rawsse.replay.matching.reply: the message in a recording, and the same recording with another id for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rawsse.replay import Read, Recording, shipped_fixtures
from rawsse.replay.matching.reply import reply_in, with_reply_id

FIXTURES = shipped_fixtures()
EXPECTED = {
    name: json.loads((Path(__file__).parents[3] / f"fixtures/{name}.json").read_text("utf-8")) for name in FIXTURES
}
WHOLE = sorted(name for name in FIXTURES if EXPECTED[name]["ending"] == "complete")
JSON = {"content-type": "application/json"}


def of(*pieces: bytes, **headers: str) -> Recording:
    reads = tuple(Read(float(t), piece) for t, piece in enumerate(pieces))
    return Recording(headers={name.replace("_", "-"): value for name, value in headers.items()} or JSON, reads=reads)


@pytest.mark.parametrize("name", WHOLE)
def test_the_reply_is_what_was_written_down_for_the_recording(name: str) -> None:
    assert reply_in(FIXTURES[name]) == EXPECTED[name]["message"]


@pytest.mark.parametrize("name", sorted(set(FIXTURES) - set(WHOLE)))
def test_what_is_cut_or_ends_in_an_error_is_no_reply(name: str) -> None:
    assert reply_in(FIXTURES[name]) is None


def test_a_message_as_json_is_a_reply() -> None:
    assert reply_in(of(b'{"type": "message", ', b'"id": "a"}')) == {"type": "message", "id": "a"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"type": "error"}', b"\xff", b"[" * 100_000])
def test_other_json_is_none(body: bytes) -> None:
    assert reply_in(of(body)) is None


def test_an_error_status_has_no_reply() -> None:
    assert reply_in(Recording(status=529, headers=JSON, reads=(Read(0.0, b'{"type": "message"}'),))) is None


def test_a_broken_stream_has_none() -> None:
    assert reply_in(of(b"event: message_start\ndata: {\n\n", content_type="text/event-stream")) is None


@pytest.mark.parametrize("name", WHOLE)
def test_another_id_changes_the_id_and_nothing_else(name: str) -> None:
    recording = FIXTURES[name]
    again = with_reply_id(recording, "msg_2")
    old = EXPECTED[name]["message"]["id"].encode()
    assert again.body == recording.body.replace(old, b"msg_2", 1)
    assert reply_in(again) == EXPECTED[name]["message"] | {"id": "msg_2"}
    assert [read.t for read in again.reads] == [read.t for read in recording.reads]
    assert [read.data for read in again.reads] == [read.data.replace(old, b"msg_2") for read in recording.reads]


@pytest.mark.parametrize("new", ["x", "msg_1", "msg_much_longer"])
@pytest.mark.parametrize("cut", range(1, 41))
def test_boundaries_stay_where_they_were_in_what_has_not_changed(cut: int, new: str) -> None:
    body = b'{"id": "msg_1", "type": "message", "n":1}'
    first, second = with_reply_id(of(body[:cut], body[cut:]), new).reads
    assert first.data + second.data == body.replace(b"msg_1", new.encode())
    if cut <= 7:  # where the id's quotation mark stands
        assert first.data == body[:cut]
    elif cut >= 14:
        assert second.data == body[cut:]


@pytest.mark.parametrize(
    "body", [b"{}", b'{"type": "message"}', b'{"type": "message", "id": 5}', b'{"type":"message","id":"\\u0041"}']
)
def test_without_an_id_that_can_be_found_it_stays_as_it_is(body: bytes) -> None:
    assert with_reply_id(of(body), "new") == of(body)
