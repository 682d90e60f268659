"""rawsse.client.tools.turn: one answer's tools, beside each other, each once, and none that outlives its turn."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from support.answers import answer
from support.asking import Script, calling, saying
from support.clock import run, ticks
from support.reading import body
from support.streams import STOP, block, end, input_delta, start, tool_block

from rawsse.client.network.net import FakeStream
from rawsse.client.stream import MessageStream
from rawsse.client.tools.tool import Tool, Toolbox, tool
from rawsse.client.tools.turn import Turn
from rawsse.errors import APIError, StreamCancelledError

ASK: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]}
THREE = calling(("meet", '{"who": 0}'), ("meet", '{"who": 1}'), ("meet", '{"who": 2}'))

CUT = len(answer(THREE)) - len(answer(THREE[:-3])) + 5
"""Bytes from the end that leave the third call's block open."""


async def turn_of(given: Any, *tools: Tool[..., Any], eagerly: bool = False) -> Turn:
    stream = await Script(given).stream(**ASK).__aenter__()
    return Turn(stream, Toolbox(tools), eagerly=eagerly)


async def read_slowly(stream: MessageStream) -> None:
    """Read all of it, and let the tools come in between."""
    async for _ in stream:
        await ticks(2)


class Meeting:
    """A tool that no call leaves before all have come: they do run beside each other, or the test hangs."""

    def __init__(self, size: int) -> None:
        self.present: list[int] = []
        self.size = size
        self.is_full = asyncio.Event()

    async def meet(self, who: int) -> str:
        self.present.append(who)
        if len(self.present) == self.size:
            self.is_full.set()
        await self.is_full.wait()
        return f"{who} met"


def test_the_calls_of_an_answer_run_beside_each_other_and_their_results_keep_its_order() -> None:
    async def story() -> list[Any]:
        turn = await turn_of(THREE, tool(Meeting(3).meet))
        await turn.message()
        return [(result["tool_use_id"], result["content"]) for result in await turn.results()]

    assert run(story()) == [("call_0", "0 met"), ("call_1", "1 met"), ("call_2", "2 met")]


def test_plain_functions_run_beside_each_other_too() -> None:
    barrier = threading.Barrier(3, timeout=30)

    @tool
    def meet(who: int) -> str:
        barrier.wait()
        return f"{who} met"

    async def story() -> list[Any]:
        turn = await turn_of(THREE, meet)
        await turn.message()
        return [result["content"] for result in await turn.results()]

    assert run(story()) == ["0 met", "1 met", "2 met"]


def test_one_tool_s_failure_is_its_own() -> None:
    @tool
    async def meet(who: int) -> str:
        if who == 1:
            raise ValueError("not me")
        await asyncio.sleep(10)
        return "met"

    async def story() -> list[Any]:
        turn = await turn_of(THREE, meet)
        await turn.message()
        return [(result["content"], result.get("is_error")) for result in await turn.results()]

    assert run(story()) == [("met", None), ("ValueError: not me", True), ("met", None)]


def test_no_call_runs_twice() -> None:
    times: list[int] = []

    @tool
    async def meet(who: int) -> None:
        times.append(who)

    async def story() -> bool:
        turn = await turn_of(THREE, meet, eagerly=True)
        await turn.message()
        return await turn.results() == await turn.results()

    assert run(story())
    assert times == [0, 1, 2]


# --- Leaving -------------------------------------------------------------------------------------------------------


class Slow:
    """A tool that waits for ever, and puts something away when it is cancelled."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.has_begun = asyncio.Event()

    async def meet(self, who: int) -> None:
        self.log.append(f"{who} began")
        self.has_begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            self.log.append(f"{who} ended")


def test_a_cancelled_turn_cancels_its_tools_and_waits_until_they_are_over() -> None:
    async def story() -> list[str]:
        slow = Slow()
        turn = await turn_of(THREE, tool(slow.meet))
        await turn.message()
        task = asyncio.create_task(turn.results())
        await slow.has_begun.wait()
        await ticks(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return slow.log

    assert sorted(run(story())) == ["0 began", "0 ended", "1 began", "1 ended", "2 began", "2 ended"]


def test_a_tool_that_is_cancelled_by_itself_cancels_the_turn_when_the_others_are_done() -> None:
    done: list[int] = []

    @tool
    async def meet(who: int) -> None:
        if who == 0:
            raise asyncio.CancelledError
        await asyncio.sleep(1)
        done.append(who)

    async def story() -> None:
        turn = await turn_of(THREE, meet)
        await turn.message()
        with pytest.raises(asyncio.CancelledError):
            await turn.results()

    run(story())
    assert done == [1, 2]


def test_closing_ends_the_stream_and_the_tools() -> None:
    async def story() -> tuple[list[str], bool]:
        slow = Slow()
        turn = await turn_of(body(*THREE[:-2]), tool(slow.meet), eagerly=True)
        async for _ in turn.stream:
            if slow.has_begun.is_set():
                break
            await ticks(2)
        await turn.close()
        with pytest.raises(StreamCancelledError):
            await turn.message()
        return slow.log, turn.is_whole

    assert run(story()) == (["0 began", "0 ended"], False)


# --- Eagerly -------------------------------------------------------------------------------------------------------


def test_eagerly_a_tool_starts_when_the_model_has_moved_on_from_its_call() -> None:
    seen: list[str] = []

    @tool
    async def meet(who: int) -> None:
        seen.append(f"tool {who}")

    async def story() -> None:
        turn = await turn_of(THREE, meet, eagerly=True)
        async for event in turn.stream:
            await ticks(2)
            if event.type in ("content_block_start", "content_block_stop", "message_delta", "message_stop"):
                seen.append(event.type.removeprefix("content_"))
        await ticks(2)

    run(story())
    block = ["block_start", "block_stop"]
    assert seen == [*block, "block_start", "tool 0", "block_stop", "block_start", "tool 1", "block_stop", "message_delta",
                    "tool 2", "message_stop"]  # fmt: skip


def test_without_it_no_tool_starts_before_the_results_are_asked_for() -> None:
    seen: list[int] = []

    @tool
    async def meet(who: int) -> None:
        seen.append(who)

    async def story() -> None:
        turn = await turn_of(THREE, meet)
        assert type(turn.stream) is MessageStream
        await turn.message()
        await ticks(3)
        assert seen == []
        await turn.results()

    run(story())
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("reason", ["max_tokens", "refusal"])
def test_the_last_call_of_an_answer_that_stops_for_another_reason_is_not_started(reason: str) -> None:
    seen: list[int] = []

    @tool
    async def meet(who: int) -> None:
        seen.append(who)

    async def story() -> None:
        turn = await turn_of(calling(("meet", '{"who": 0}'), reason=reason), meet, eagerly=True)
        await turn.message()
        await turn.close()

    run(story())
    assert seen == []


def test_after_a_fallback_calls_wait_for_the_end() -> None:
    seen: list[int] = []

    @tool
    async def meet(who: int) -> None:
        seen.append(who)

    async def story() -> None:
        fallback = {"type": "fallback", "to": {"model": "other"}}
        raw = tool_block(name="meet")
        events = [
            start(),
            *block(0, raw, input_delta(0, '{"who": 0}')),
            *block(1, fallback),
            *block(2, {**raw, "id": "b"}, input_delta(2, '{"who": 1}')),
            end("tool_use"),
        ]
        turn = await turn_of(body(*events), meet, eagerly=True)
        await turn.message()
        await ticks(3)
        assert seen == []
        assert len(await turn.results()) == 2

    run(story())
    assert seen == [0, 1]


def test_a_held_call_waits_for_the_results() -> None:
    seen: list[int] = []

    @tool
    async def meet(who: int) -> None:
        seen.append(who)

    async def story() -> list[str]:
        turn = await turn_of(THREE, meet, eagerly=True)
        turn.hold("call_1")
        assert turn.held == []
        await turn.message()
        await ticks(3)
        held = [call.id for call in turn.held]
        assert seen == [0, 2]
        await turn.results()
        turn.hold("call_0")  # it has run
        assert turn.held == []
        return held

    assert run(story()) == ["call_1"]
    assert seen == [0, 2, 1]


def test_a_stream_that_breaks_cancels_what_has_started() -> None:
    async def story() -> list[str]:
        slow = Slow()
        cut = FakeStream([answer(THREE)[:-CUT]])
        turn = await turn_of(cut, tool(slow.meet), eagerly=True)
        with pytest.raises(APIError):
            await read_slowly(turn.stream)
        return slow.log

    assert sorted(run(story())) == ["0 began", "0 ended", "1 began", "1 ended"]


@pytest.mark.parametrize("call_id", [None, 5, ["x"], {"x": 1}], ids=repr)
def test_ids_and_reasons_that_are_no_strings_hurt_nobody(call_id: Any) -> None:
    async def story() -> list[Any]:
        raw = tool_block(name="meet", id=call_id)
        last = {"type": "message_delta", "delta": {"stop_reason": ["tool_use"]}, "usage": {}}
        turn = await turn_of([start(), *block(0, raw), *block(1, raw), last, STOP], eagerly=True)
        turn.hold("x")
        await turn.message()
        assert turn.held == []
        return [result["is_error"] for result in await turn.results()]

    assert run(story()) == [True, True]


def test_without_calls_there_are_no_results() -> None:
    async def story() -> list[Any]:
        turn = await turn_of(saying("Hello."))
        await turn.message()
        return await turn.results()

    assert run(story()) == []


def test_before_its_answer_begins_a_turn_has_no_calls() -> None:
    async def story() -> tuple[Any, ...]:
        turn = await turn_of(calling(("meet", "{}")), eagerly=True)
        found = (turn.snapshot, turn.calls(), turn.is_whole)
        await turn.stream.aclose()
        return found

    assert run(story()) == (None, [], False)


def test_a_stream_that_is_watched_is_read_like_any_other() -> None:
    async def story() -> tuple[Any, ...]:
        turn = await turn_of(calling(("meet", "{}"), text="Let me see."), eagerly=True)
        assert type(turn.stream) is MessageStream
        async with turn.stream as stream:
            texts = [text async for text in stream.text_stream]
        text = await turn.stream.get_final_text()
        return texts, text, turn.stream.request_id, turn.stream.ending is not None

    assert run(story()) == (["Let me see."], "Let me see.", "req_1", True)


@pytest.mark.parametrize("way", ["events", "text", "until_done"])
def test_eager_tools_start_whichever_way_the_answer_is_read(way: str) -> None:
    async def story() -> list[str]:
        slow = Slow()
        turn = await turn_of(THREE, tool(slow.meet), eagerly=True)
        if way == "events":
            assert [event.type async for event in turn.stream][-1] == "message_stop"
        elif way == "text":
            assert [text async for text in turn.stream.text_stream] == []
        else:
            await turn.stream.until_done()
        await slow.has_begun.wait()
        begun = list(slow.log)
        await turn.close()
        return begun

    assert run(story()) == ["0 began", "1 began", "2 began"]


def test_to_leave_the_block_of_a_whole_answer_ends_no_tool() -> None:
    async def story() -> list[Any]:
        meeting = Meeting(3)
        turn = await turn_of(THREE, tool(meeting.meet), eagerly=True)
        async with turn.stream as stream:
            await stream.get_final_message()
        return [result["content"] for result in await turn.results()]

    assert run(story()) == ["0 met", "1 met", "2 met"]


def test_to_close_the_stream_before_its_end_ends_its_tools() -> None:
    async def story() -> list[str]:
        slow = Slow()
        turn = await turn_of(body(*THREE[:-2]), tool(slow.meet), eagerly=True)
        async with turn.stream as stream:
            async for _ in stream:
                if slow.has_begun.is_set():
                    break
                await ticks(2)
        return slow.log

    assert run(story()) == ["0 began", "0 ended"]
