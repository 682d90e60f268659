"""What the wire pane is made of, in Node: the parts of a frame, its oddities, recordings, and the timeline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from rawsse.replay import Recording, check, shipped_fixtures

from .node_harness import Node
from .scripted_server import answer, delta, error, frame, script, start

NODE = shutil.which("node")

pytestmark = [pytest.mark.real, pytest.mark.skipif(NODE is None, reason="Node runs JavaScript, and is not here")]

PADDED = 'id: e-3\nevent: content_block_stop\ndata: {"type":"content_block_stop","index":0      }\n\n'


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    assert NODE is not None
    with Node(NODE) as running:
        yield running


def frames(node: Node, name: str, *args: Any) -> Any:
    return node("call", name=name, args=args)


def timed(*raws: bytes, step: float = 100.0) -> list[Any]:
    """Frames as the pane keeps them; `at` is in ms since the request."""
    return [{"at": (number + 1) * step, "kind": "frame", "raw": raw.decode()} for number, raw in enumerate(raws)]


# --- Parts and oddities ----------------------------------------------------------------------------------------------


def test_each_part_of_a_frame_has_its_colour(node: Node) -> None:
    parts = frames(node, "partsOf", PADDED)
    assert [kind for kind, text in parts if text.strip() not in ("{", ",")] == [
        *["field", "id", "field", "event", "field"],
        *["key", "string", "key", "word", "pad", "", "comment"],
    ]


@pytest.mark.parametrize(
    "raw",
    [
        PADDED,
        ": beat\n\n",
        ":\n\n",
        "retry: 5\n\n",
        "data\n\n",
        "data: [DONE]\n\n",
        'data: no JSON \\" {\n\n',
        'data: {"a":\ndata: "b\\\\"}\n\n',
        'data: {"a": -1.5e+3, "b": [null, true]}\r\n\r\n',
        "data: " + "[" * 30_000 + "\n\n",
        "data: " + '"\\' * 10_000 + "\n\n",
        "\n",
    ],
)
def test_the_parts_of_a_frame_add_up_to_it(node: Node, raw: str) -> None:
    assert "".join(text for _, text in frames(node, "partsOf", raw)) == raw


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (PADDED, "6 blanks before the last bracket: the API pads"),
        ('event: ping\ndata: {"type": "ping"}\n\n', "The API is at work"),
        (": beat\n\n", "A comment"),
        ("id: e-9\ndata: [DONE]\n\n", "The relay's end mark"),
        ("retry: 2000\n\n", "The wait before the next connection"),
        ('event: error\ndata: {"type":"error"}\n\n', "The stream ends here"),
    ],
)
def test_what_is_odd_about_a_frame_is_said(node: Node, raw: str, said: str) -> None:
    assert said in frames(node, "oddity", raw)


def test_most_frames_have_nothing_odd(node: Node) -> None:
    assert frames(node, "oddity", frame(1, delta("a }")).decode()) == ""


def test_each_frame_is_linked_to_the_piece_of_text_that_it_made(node: Node) -> None:
    found = node("links", frames=timed(*answer("Ott", "", "er 🦦")))
    assert found == [[0, {"source": "Otter 🦦", "pieces": [[2, 0, 3], [4, 3, 8]]}]]


# --- Recordings --------------------------------------------------------------------------------------------------------


def recorded(node: Node, *raws: bytes, **more: Any) -> Recording:
    exchange = {"frames": timed(*raws), "end": 9_000, **more}
    return Recording.loads(frames(node, "recordingOf", exchange))


WHOLE = [
    name for name, fixture in sorted(shipped_fixtures().items()) if (fixture.status, fixture.end) == (200, "clean")
]


@pytest.mark.parametrize("name", WHOLE)
def test_what_the_relay_made_of_a_recording_becomes_that_recording_again(node: Node, name: str) -> None:
    fixture = shipped_fixtures()[name]
    raws = [raw + b"\n\n" for raw in fixture.body.split(b"\n\n") if raw.strip()]
    sent = [
        b": beat\n\n",
        *(b"id: e-%d\n%b" % (number, raw) for number, raw in enumerate(raws, 1)),
        b"data: [DONE]\n\n",
    ]
    made = recorded(node, *sent, ending="complete")
    assert made.body == b"".join(raws)
    assert (made.end, made.status, made.duration) == ("clean", 200, 9.0)
    assert [finding.rule for finding in check(made)] == [finding.rule for finding in check(fixture)]


def test_the_times_of_a_recording_are_those_since_the_request(node: Node) -> None:
    made = recorded(node, *answer("a")[:3], ending="stopped")
    assert ([read.t for read in made.reads], made.end) == ([0.1, 0.2, 0.3], "client_closed")


@pytest.mark.parametrize(("ending", "end"), [(None, "client_closed"), ("failed", "cut"), ("complete", "clean")])
def test_a_recording_ends_as_the_answer_did(node: Node, ending: str | None, end: str) -> None:
    assert recorded(node, frame(1, start()), **({"ending": ending} if ending else {})).end == end


@pytest.mark.parametrize(("kind", "end"), [("truncated", "cut"), ("timeout", "cut"), ("cancelled", "client_closed")])
def test_what_the_relay_says_about_a_cut_stream_is_no_part_of_its_recording(node: Node, kind: str, end: str) -> None:
    said = {**error("api_error", "broke off"), "request_id": None, "ending": {"kind": kind}}
    made = recorded(node, *script(start(), said), ending="failed")
    assert (len(made.reads), made.end) == (1, end)


def test_an_error_of_the_api_ends_its_stream_cleanly(node: Node) -> None:
    made = recorded(node, *script(start(), error("overloaded_error", "Overloaded")), ending="failed")
    assert (len(made.reads), made.end) == (2, "clean")


def test_a_refusal_is_recorded_as_the_api_sends_it(node: Node) -> None:
    said = {**error("rate_limit_error", "Slow down"), "ending": {"kind": "error"}}
    made = recorded(node, *script(said), ending="failed", status=429)
    assert (made.status, made.headers["content-type"]) == (429, "application/json")
    assert json.loads(made.body) == error("rate_limit_error", "Slow down")


@pytest.mark.parametrize("raws", [[b'data: {"text": "a"}\n\n', b"data: [DONE]\n\n"], [b"<html>"], []])
def test_other_dialects_are_no_recording(node: Node, raws: list[bytes]) -> None:
    assert frames(node, "recordingOf", {"frames": timed(*raws), "end": 1, "ending": "complete"}) is None


# --- The timeline ------------------------------------------------------------------------------------------------------


def timeline(node: Node, *frames: tuple[float, str], end: float | None = None) -> Any:
    ended = {} if end is None else {"end": end}
    return node("timeline", frames=[{"at": at, "kind": kind} for at, kind in frames], **ended)


def test_a_timeline_knows_the_first_token_the_gaps_and_the_end(node: Node) -> None:
    told = timeline(
        node,
        *[(100, "ping"), (900, "frame"), (1000, "piece"), (1010, "piece")],
        *[(1400, "lost"), (3000, "piece")],
        end=3050,
    )
    assert (told["first"], told["end"], told["count"]) == (1000, 3050, 5)
    assert (told["ping"], told["lost"]) == ([100], [1400])
    assert told["silences"] == [[1400, 3000], [100, 900]]
    assert told["words"] == "first content 1.00 s · 5 frames · 1 ping · longest gap 1.60 s · 1 reconnect · end 3.05 s"


def test_a_timeline_without_content_says_so(node: Node) -> None:
    assert timeline(node, (100, "ping"))["words"] == "no content yet · 1 frame · 1 ping · at 0.10 s"
    assert timeline(node)["words"] == "no content yet · at 0.00 s"


def test_a_picture_of_an_hour_is_as_small_as_one_of_a_second(node: Node) -> None:
    told = timeline(node, *[(number * 1000.0, "piece") for number in range(3600)])
    assert (sum(told["columns"]), len(told["columns"]), len(told["silences"])) == (3600, 120, 3)
