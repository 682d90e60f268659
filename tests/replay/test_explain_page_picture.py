"""rawsse.replay.explain_page: what is drawn where comes from the recording; the size is bounded."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest
from support.long import long_recording
from support.streams import PING, block_start, start, text_delta

from rawsse.replay import Read, Recording, shipped_fixtures
from rawsse.replay.explain import Timeline
from rawsse.replay.explain_page import picture
from rawsse.sse import encode

LEFT, RIGHT = 92.0, 984.0
"""Where time 0 and the end stand."""


def wire(*events: dict[str, object]) -> bytes:
    return b"".join(encode(json.dumps(event), event=str(event["type"])) for event in events)


# Ten seconds: the head at 2 s, a text at 5 s, a ping at 6 s.
TEN = Recording(
    reads=(
        Read(2.0, wire(start(), block_start(0, {"type": "text", "text": ""}))),
        Read(5.0, wire(text_delta(0, "Hello"))),
        Read(6.0, wire(PING)),
    ),
    duration=10.0,
)


def drawn(recording: Recording) -> ET.Element:
    return ET.fromstring(picture(Timeline.of(recording)))


def words(svg: ET.Element, kind: str) -> list[str]:
    return [element.text or "" for element in svg.iter("text") if kind in element.get("class", "").split()]


def x_of(second: float) -> float:
    return LEFT + (RIGHT - LEFT) * second / 10


def test_each_kind_has_a_row_and_each_event_a_mark_at_its_time() -> None:
    svg = drawn(TEN)
    assert words(svg, "lane") == ["reads", "message", "text", "ping"]
    marks = {link.get("data-e"): link for link in svg.iter("a")}
    places = {event: float(link.find("rect").get("x", "")) + 1.5 for event, link in marks.items()}  # type: ignore[union-attr]
    expected = {"1": x_of(2), "2": x_of(2), "3": x_of(5), "4": x_of(6)}
    assert places == pytest.approx(expected, abs=1.3)
    assert [link.findtext("title") for link in svg.iter("a")] == [
        "event 1 at 2.000 s: message_start",
        "event 2 at 2.000 s: text",
        "event 3 at 5.000 s: text_delta",
        "event 4 at 6.000 s: ping",
    ]


def test_the_first_content_is_a_line_from_top_to_bottom_with_its_time() -> None:
    svg = drawn(TEN)
    (line,) = (element for element in svg.iter("line") if element.get("class") == "first")
    assert float(line.get("x1", "")) == pytest.approx(x_of(5), abs=0.1)
    assert words(svg, "first-label") == ["first content 5.000 s"]


def test_the_wait_for_the_first_read_and_the_gaps_are_shaded_and_labelled() -> None:
    svg = drawn(long_recording(400, pause_at=200))
    shades = {
        element.get("class"): element.findtext("title")
        for element in svg.iter("rect")
        if element.find("title") is not None
    }
    assert shades["waiting"] == "waiting for the first read for 0.500 s, from 0.000 s on"
    assert shades["gap"] == "nothing came for 6.000 s, from 4.500 s on"
    assert "nothing came 6.000 s" in words(svg, "label")


def test_the_axis_has_round_numbers() -> None:
    assert words(drawn(TEN), "axis") == ["0 s", "2 s", "4 s", "6 s", "8 s", "10 s"]
    short = Recording(reads=(Read(0.0, wire(PING)),), duration=0.03)
    assert words(drawn(short), "axis") == ["0.000 s", "0.005 s", "0.010 s", "0.015 s", "0.020 s", "0.025 s", "0.030 s"]


def test_reads_have_marks_with_their_sizes() -> None:
    titles = [rect.findtext("title") for rect in drawn(TEN).iter("rect") if rect.get("class") == "read"]
    assert titles == [f"1 read, {len(read.data)} bytes, at {read.t:.3f} s" for read in TEN.reads]
    crowd = Recording(reads=tuple(Read(1.0, b": x\n") for _ in range(9)), duration=2.0)
    (title,) = (rect.findtext("title") for rect in drawn(crowd).iter("rect") if rect.get("class") == "read")
    assert title == "9 reads, 36 bytes, at 1.000 s"


def test_an_empty_recording_can_be_drawn() -> None:
    assert words(drawn(Recording()), "lane") == ["reads"]


@pytest.mark.parametrize("name", sorted(shipped_fixtures()))
def test_every_fixture_can_be_drawn_and_says_what_is_to_be_seen(name: str) -> None:
    timeline = Timeline.of(shipped_fixtures()[name])
    svg = drawn(shipped_fixtures()[name])
    assert svg.get("role") == "img"
    assert (svg.findtext("title") or "").startswith(f"Timeline: {len(timeline.events)} events in ")


def test_the_size_is_bounded_and_crowded_events_share_a_mark() -> None:
    timeline = Timeline.of(long_recording(4000))
    text = picture(timeline)
    assert len(text) < 250_000
    titles = [link.findtext("title") or "" for link in ET.fromstring(text).iter("a")]
    # 4,045 events on 892 units: at most a mark at every 2.5 units in the rows of text and pings, and two for the message
    assert len(titles) <= 2 * (892 / 2.5 + 1) + 2
    counts = [int(title.split(" events, ")[0]) if " events, " in title else 1 for title in titles]
    assert sum(counts) == len(timeline.events)


def test_what_an_event_is_called_is_only_text() -> None:
    bad = wire({"type": "</title><script>"})
    (link,) = drawn(Recording(reads=(Read(0.0, bad),), duration=1.0)).iter("a")
    assert link.findtext("title") == "event 1 at 0.000 s: </title><script>"
