"""rawsse.replay.variants: when the reads come; and nothing but that changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.clock import run
from support.streams import ANSWER, PING, STOP, block_start, block_stop, end, start, text_delta, to_bytes

from rawsse.client.client import AsyncClient
from rawsse.errors import ConfigurationError
from rawsse.replay import ReplayServer, shipped_fixtures, variants
from rawsse.replay.compose import Fragments, answer, recording_of, text, thinking
from rawsse.replay.explain import Timeline
from rawsse.replay.recording import Read, Recording
from rawsse.replay.variants import Pace, immediate, pace_by, profile, recorded, slower

README = Path(__file__).parents[2] / "README.md"
TEXT = {"type": "text", "text": ""}
EVENTS = [
    start(),
    block_start(0, TEXT),
    PING,
    text_delta(0, "aaaa"),
    text_delta(0, "bbbb"),
    text_delta(0, "cccc"),
    block_stop(0),
]
ONE_BY_ONE = Recording(
    reads=tuple(Read(number / 8, to_bytes([raw])) for number, raw in enumerate([*EVENTS, end(output_tokens=2), STOP])),
    duration=1.25,
)


def times(recording: Recording) -> list[float]:
    return [read.t for read in recording.reads]


# --- The paces ---


def test_recorded_changes_nothing() -> None:
    assert recorded(ONE_BY_ONE) is ONE_BY_ONE


def test_immediate_is_all_at_once() -> None:
    paced = immediate(ONE_BY_ONE)
    assert (set(times(paced)), paced.duration) == ({0.0}, 0.0)


def test_slower_multiplies_every_time() -> None:
    paced = slower(2)(ONE_BY_ONE)
    assert times(paced) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    assert paced.duration == 2.5


def test_in_a_profile_the_counted_tokens_come_after_the_first_delta_and_other_events_with_the_delta_before() -> None:
    paced = profile(time_to_first_token=0.5, tokens_per_second=10)(ONE_BY_ONE)
    # start, block start, ping, aaaa | bbbb | cccc, block stop, end, stop
    assert times(paced) == [0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.7, 0.7, 0.7]
    assert paced.duration == 0.7
    last = Read(1.0, to_bytes([end(output_tokens=4), STOP]))
    paced = profile(time_to_first_token=0.5, tokens_per_second=10)(replace(paced, reads=(*ONE_BY_ONE.reads[:-2], last)))
    assert times(paced) == [0.5, 0.5, 0.5, 0.5, 0.7, 0.9, 0.9, 0.9]


def test_in_a_profile_four_bytes_are_a_token_of_an_answer_without_a_count() -> None:
    cut = Recording(reads=ONE_BY_ONE.reads[:-2], end="cut")  # the count at the start is not the final one
    assert times(profile(time_to_first_token=0.5, tokens_per_second=10)(cut)) == [0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.7]


def test_an_answer_takes_as_long_as_the_tokens_of_its_usage() -> None:
    assert pace_by("ttft=0.5,tps=30")(shipped_fixtures()["thinking"]).duration == pytest.approx(0.5 + 139 / 30)


@pytest.mark.parametrize("name", ["plain", "unicode", "tools", "citations", "refusal"])
def test_explain_finds_the_speed_that_a_profile_has(name: str) -> None:
    paced = pace_by("ttft=0.5,tps=30")(shipped_fixtures()[name])
    assert Timeline.of(paced).tokens_per_second == pytest.approx(30, rel=1e-4)


@pytest.mark.parametrize("count", [0, -5, True, "9", 2.5])
def test_a_count_that_is_none_is_estimated(count: Any) -> None:
    odd = replace(ONE_BY_ONE, reads=(*ONE_BY_ONE.reads[:-2], Read(1.0, to_bytes([end(output_tokens=count), STOP]))))
    assert pace_by("ttft=0.5,tps=10")(odd).duration == 0.7


THOUGHT = [{"type": "thinking_delta", "thinking": "x" * 20}, {"type": "thinking_delta", "thinking": "y" * 20}]
CALL = [
    {"type": "input_json_delta", "partial_json": part}
    for part in ("", '{"a": [1,', ' 2, 3, 4], "b": "' + "z" * 13 + '"}')
]


@pytest.mark.parametrize("deltas", [THOUGHT, CALL, [{"type": "text_delta", "text": "é" * 10}] * 2])
def test_thinking_and_tool_inputs_are_paced_as_text_is_by_their_bytes(deltas: list[dict[str, str]]) -> None:
    size = [len("".join(value for name, value in delta.items() if name != "type").encode()) for delta in deltas]
    events = [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
    reads = tuple(Read(0, to_bytes([event])) for event in events)
    paced = profile(time_to_first_token=1, tokens_per_second=10)(Recording(reads=reads))
    assert paced.duration == pytest.approx(1 + size[-1] / 4 / 10)


@pytest.mark.parametrize("fragments", ["words", 1, 3])
def test_the_last_token_does_not_depend_on_how_a_text_is_cut(fragments: Fragments) -> None:
    def seconds(fragments: Fragments) -> float:
        message = answer(thinking("x" * 96), text("x" * 304), usage={})
        return profile(time_to_first_token=0, tokens_per_second=10)(recording_of(message, fragments=fragments)).duration

    assert seconds(fragments) == pytest.approx(100 / 10)  # from the first delta to the last


def test_a_signature_has_no_tokens() -> None:
    signed = {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s" * 4000}}
    paced = profile(time_to_first_token=1)(Recording(reads=(Read(0, to_bytes([text_delta(0, "a"), signed])),)))
    assert paced.duration == 1


@pytest.mark.parametrize(
    "data", [b"data: {\n\n", b"data: []\n\n", b'data: {"type": "content_block_delta", "delta": 3}\n\n']
)
def test_events_that_are_not_of_the_api_have_no_tokens(data: bytes) -> None:
    assert profile(time_to_first_token=1)(Recording(reads=(Read(0, data),))).duration == 1


def test_a_read_with_several_tokens_comes_with_its_last() -> None:
    together = Recording(reads=(Read(0, to_bytes(EVENTS[:5])), Read(0, to_bytes(EVENTS[5:]))))
    assert times(profile(time_to_first_token=1, tokens_per_second=2)(together)) == [1.5, 2.0]


def test_a_token_in_two_reads_comes_with_the_second() -> None:
    data = to_bytes(EVENTS)
    cut = Recording(
        reads=(Read(0, data[:-100]), Read(0, data[-100:]))
    )  # the block's end is shorter than that: c is cut
    assert times(profile(time_to_first_token=1, tokens_per_second=2)(cut)) == [1.5, 2.0]


def test_a_text_that_looks_like_a_token_is_none() -> None:
    odd = Recording(reads=tuple(Read(0, to_bytes([raw])) for raw in ANSWER[:2]))
    speaks = Read(0, to_bytes([{"type": "x", "text": '"type":"content_block_delta"'}]))
    paced = profile(time_to_first_token=1)(Recording(reads=(*odd.reads, speaks, speaks)))
    assert set(times(paced)) == {1.0}


@pytest.mark.parametrize("name", shipped_fixtures())
@pytest.mark.parametrize("pace", ["none", "slower=3", "ttft=0.2,tps=30"])
def test_bytes_and_boundaries_stay_and_time_never_runs_backwards(pace: str, name: str) -> None:
    recording = shipped_fixtures()[name]
    paced = pace_by(pace)(recording)
    assert [read.data for read in paced.reads] == [read.data for read in recording.reads]
    assert [*times(paced), paced.duration] == sorted([*times(paced), paced.duration])
    assert Recording.loads(paced.dump()) == paced


def test_an_answer_without_tokens_comes_when_the_first_would() -> None:
    refusal = Recording(status=529, headers={}, reads=(Read(3, b"{}"), Read(4, b"\n")), duration=5)
    paced = profile(time_to_first_token=0.25)(refusal)
    assert (times(paced), paced.duration) == ([0.25, 0.25], 0.25)


def test_a_profile_is_kept_on_a_virtual_clock() -> None:
    async def story() -> list[int]:
        paced = profile(time_to_first_token=60, tokens_per_second=0.1)(ONE_BY_ONE)
        clock = asyncio.get_running_loop().time
        began = clock()
        async with (
            ReplayServer([paced], speed=1) as server,
            AsyncClient(api_key="k", base_url=server.base_url) as client,
            client.messages.stream(model="m", max_tokens=1, messages=[]) as stream,
        ):
            return [round(clock() - began) async for _ in stream.text_stream]

    assert run(story()) == [60, 70, 80]


# --- By name ---


@pytest.mark.parametrize(
    ("pace", "same"),
    [
        ("recorded", recorded),
        ("none", immediate),
        ("slower=0.5", slower(0.5)),
        ("ttft=0.3", profile(time_to_first_token=0.3)),
        ("tps=7", profile(tokens_per_second=7)),
        ("ttft=0.5, tps=40", profile(time_to_first_token=0.5, tokens_per_second=40)),
        (immediate, immediate),
    ],
)
def test_a_pace_has_a_name(pace: Pace, same: Pace) -> None:
    assert not isinstance(same, str)
    assert pace_by(pace)(ONE_BY_ONE) == same(ONE_BY_ONE)


def test_the_documentation_gives_the_time_to_the_first_token_of_a_pace_without_one() -> None:
    assert pace_by("tps=20")(ONE_BY_ONE) == pace_by("ttft=0.5,tps=20")(ONE_BY_ONE)
    for page in (README.read_text("utf-8"), str(variants.__doc__)):
        assert "ttft is 0.5 if not given" in page


@pytest.mark.parametrize(
    ("pace", "message"),
    [
        (
            "fast",
            "pace must be a function or one of recorded, none, slower=…, ttft=…, tps=…, not 'fast'",
        ),
        ("ttft", "ttft must be a number, not ''"),
        ("tps=many", "tps must be a number, not 'many'"),
        ("slower=-1", "slower must be a number from 0 on, not -1.0"),
        ("slower=nan", "slower must be a number from 0 on, not nan"),
        ("slower=2,tps=1", "slower changes recorded times, and a profile makes new ones: 'slower=2,tps=1'"),
        ("ttft=inf", "time_to_first_token must be a number from 0 on, not inf"),
        ("tps=0", "tokens_per_second must be a number above 0, not 0.0"),
        ("tps=-1", "tokens_per_second must be a number above 0, not -1.0"),
    ],
)
def test_a_pace_that_cannot_be_is_refused(pace: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        pace_by(pace)
    assert str(caught.value) == message
