"""rawsse.replay.explain: which bytes belong to which event, what each adds, when, and the sums."""

from __future__ import annotations

import json

import pytest
from support.answers import head
from support.reading import Attempt
from support.streams import PING, STOP, block, block_start, delta, end, input_delta, start, text_delta, tool_block

from rawsse.client.answer import Answer
from rawsse.relay.push import UnfoldedAnswer
from rawsse.replay import Read, Recording, every_split, shipped_fixtures
from rawsse.replay.explain import Gap, Group, Timeline, kinds_of
from rawsse.sse import encode


def wire(*events: dict[str, object]) -> bytes:
    return b"".join(encode(json.dumps(event), event=str(event["type"])) for event in events)


def of(*reads: tuple[float, bytes], duration: float = 0.0) -> Timeline:
    return Timeline.of(Recording(reads=tuple(Read(*read) for read in reads), duration=duration))


def only(body: bytes) -> Group:
    (group,) = Timeline.of(Recording.from_sse(body)).groups
    return group


# --- Groups ---


@pytest.mark.parametrize("name", sorted(shipped_fixtures()))
def test_the_groups_hold_every_byte_once_in_order(name: str) -> None:
    recording = shipped_fixtures()[name]
    pieces = [piece for group in Timeline.of(recording).groups for piece in group.pieces]
    assert b"".join(piece.data for piece in pieces) == recording.body
    assert [piece.start for piece in pieces] == [sum(len(p.data) for p in pieces[:at]) for at in range(len(pieces))]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_the_events_are_the_same_however_the_body_is_cut(line_end: bytes) -> None:
    body = (b": hello\n\n" + wire(PING, STOP) + b"data: cut").replace(b"\n", line_end)
    expected = [(group.event, group.kind) for group in Timeline.of(Recording.from_sse(body)).groups]
    assert expected == [(0, ""), (1, "ping"), (2, "message_stop"), (0, "")]
    for chunks in every_split(body):
        timeline = of(*((float(t), chunk) for t, chunk in enumerate(chunks)))
        assert [(group.event, group.kind) for group in timeline.groups] == expected


def test_an_event_is_as_late_as_the_read_that_completes_it() -> None:
    body = wire(PING)
    (group,) = of((1.0, body[:-1]), (2.0, body[-1:])).groups
    assert (group.t, group.pieces[-1].read, group.pieces[0].start, group.pieces[-1].last) == (2.0, 2, 0, len(body) - 1)


def test_the_rest_of_a_line_end_belongs_to_the_event_that_its_beginning_completed() -> None:
    timeline = of((1.0, b"data: {}\r\n\r"), (2.0, b"\n: x\r\n"))
    assert [[piece.data for piece in group.pieces] for group in timeline.groups] == [
        [b"data: {}\r\n", b"\r", b"\n"],
        [b": x\r\n"],
    ]


@pytest.mark.parametrize(
    ("event", "lane", "detail", "adds", "says"),
    [
        (start(), "message", "", "", "claude-sonnet-5"),
        (block_start(0, tool_block()), "tool", "tool_use", "", "weather, toolu_1"),
        (block_start(0, {"type": "redacted_thinking", "data": "x"}), "thinking", "redacted_thinking", "", ""),
        (block_start(0, {"type": "smell"}), "other", "smell", "", ""),
        (text_delta(0, "Hi"), "text", "text_delta", "Hi", ""),
        (delta(0, "thinking_delta", thinking="Hm"), "thinking", "thinking_delta", "Hm", ""),
        (input_delta(0, '{"'), "tool", "input_json_delta", '{"', ""),
        (delta(0, "text_delta", text=7), "text", "text_delta", "", ""),
        (delta(0, "smell_delta", smell="rose"), "other", "smell_delta", "", '{"smell": "rose"}'),
        (end(), "message", "", "", "stop reason end_turn"),
        (STOP, "message", "", "", ""),
        (PING, "ping", "", "", ""),
        ({"type": "error", "error": {"type": "api_error", "message": "Oops"}}, "error", "", "", "api_error: Oops"),
        ({"type": "news"}, "other", "", "", ""),
    ],
)
def test_what_an_event_is_about_and_what_it_adds(
    event: dict[str, object], lane: str, detail: str, adds: str, says: str
) -> None:
    group = only(wire(event))
    assert (group.lane, group.detail, group.adds, group.says) == (lane, detail, adds, says)


def test_the_end_of_a_block_is_about_what_the_block_is() -> None:
    timeline = of((0.0, wire(start(), *block(0, tool_block()))))
    assert [event.lane for event in timeline.events] == ["message", "tool", "tool"]


def test_problems_stand_with_the_event_that_has_them() -> None:
    assert only(wire(STOP)).problems[0] == "message_stop may not come before message_start"
    assert only(wire(STOP)).problems[1:] == ["the stream ends before message_start: message_stop is missing"]
    assert only(b"data: {\n\n").problems[0].startswith("the data of event 'message' are not JSON")
    assert only(b"data: [DONE]\n\n").says == "the end mark [DONE], which is not the API's"
    assert only(b"data:\n\n").kind == "keep-alive"


# --- Figures ---


def test_first_content_is_the_first_delta_that_is_not_empty() -> None:
    timeline = of(
        (1.0, wire(start(), block_start(0, tool_block()), input_delta(0, ""))), (2.0, wire(input_delta(0, "{}")))
    )
    assert timeline.events[0].t == 1.0
    assert timeline.first_content is not None
    assert (timeline.first_content.t, timeline.first_content.event) == (2.0, 4)


@pytest.mark.parametrize(
    "begun",
    [
        {"type": "text", "text": "Hi"},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"type": "web_search_result"}]},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
    ],
    ids=lambda begun: begun["type"],
)
def test_a_block_that_does_not_begin_empty_is_content(begun: dict[str, object]) -> None:
    timeline = of((1.0, wire(start())), (2.0, wire(block_start(0, begun))))
    assert timeline.first_content is not None
    assert timeline.first_content.t == 2.0


REAL = {name: recording for name, recording in shipped_fixtures().items() if recording.is_stream}


@pytest.mark.parametrize("kind", [Answer, UnfoldedAnswer])
@pytest.mark.parametrize("name", sorted(REAL))
def test_the_client_and_the_relay_time_the_first_content_as_it_is_explained(name: str, kind: type[Answer]) -> None:
    recording = REAL[name]
    explained = Timeline.of(recording).first_content
    attempt = Attempt(kind, now=0.0).send()
    attempt.exchange.receive(head(content_type="text/event-stream"), 0.0)
    for read in recording.reads:
        attempt.exchange.receive(read.data, read.t)
        attempt.take()
    assert attempt.timing.first_content == (None if explained is None else explained.t)


def test_tokens_per_second_are_counted_from_the_first_content_to_the_last() -> None:
    begin = wire(start(), block_start(0, {"type": "text", "text": ""}))
    deltas = [(t, wire(text_delta(0, "x"))) for t in (2.0, 3.0, 4.0)]
    assert of((1.0, begin), *deltas, (9.0, wire(end(output_tokens=50)))).tokens_per_second == 25.0
    assert of((1.0, begin), *deltas).tokens_per_second is None  # the last count never came
    assert of((1.0, begin + deltas[0][1]), (9.0, wire(end()))).tokens_per_second is None  # all in one moment


def test_a_gap_stands_out_from_the_waits_of_its_own_recording() -> None:
    quick = [(0.1 * number, b":\n") for number in range(10)]
    assert [gap.seconds for gap in of(*quick, (3.9, b":\n"), duration=3.9).gaps.values()] == [pytest.approx(3.0)]
    slow = [(float(number), b":\n") for number in range(10)]
    assert of(*slow, (12.0, b":\n"), duration=12.0).gaps == {}
    tiny = [(0.001 * number, b":\n") for number in range(10)]
    assert of(*tiny, (0.209, b":\n"), duration=0.209).gaps == {}


def test_the_end_may_come_late_too() -> None:
    assert of((1.0, b":\n"), (1.5, b":\n"), duration=9.0).waits == (Gap(1.0, 0.5), Gap(1.5, 7.5))


def test_deltas_are_counted_by_their_own_type() -> None:
    kinds = kinds_of(Timeline.of(shipped_fixtures()["tools"]).events)
    assert kinds == (
        "1 message_start, 2 content_block_start, 1 ping, 3 text_delta, 2 content_block_stop, 6 input_json_delta, "
        "1 message_delta, 1 message_stop"
    )


def test_an_empty_recording_has_a_timeline() -> None:
    timeline = of(duration=1.0)
    assert (timeline.groups, timeline.waits, timeline.first_content) == ((), (), None)
    assert dict(timeline.figures)["longest gap"] == "none"
    assert timeline.verdict == "truncated before message_start"


def test_a_problem_of_the_answer_as_a_whole_stands_with_its_first_lines() -> None:
    recording = Recording(headers={"content-type": "text/html"}, reads=(Read(0.0, wire(PING)),))
    assert [group.problems[0] for group in Timeline.of(recording).groups] == ["the content type is 'text/html'"]
    assert Timeline.of(Recording(headers={"content-type": "text/html"})).groups == ()


def test_an_answer_that_is_no_stream_has_lines_and_no_events() -> None:
    timeline = Timeline.of(Recording(status=404, reads=(Read(0.1, b'data: {"type":"ping"}\n\n'),)))
    assert (timeline.events, timeline.verdict) == ((), "no stream: HTTP status 404")
