"""rawsse.client.stream: closing and cancelling, at every phase and at every step."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.answers import ASK, SSE_HEAD, answer, client_of
from support.clock import run, ticks
from support.faults import Network, Peer, client_without_loop
from support.loops import HAS_EAGER_TASKS, Loop, with_eager_tasks
from support.pools import counts
from support.reading import body
from support.sockets import LOCALHOST, serving
from support.streams import (
    ANSWER,
)

from rawsse.client.client import AsyncClient
from rawsse.client.network.link import drive
from rawsse.client.network.route import Origin
from rawsse.client.stream import MessageStream
from rawsse.errors import (
    StreamCancelledError,
)
from rawsse.replay.fakes import FakeStream

# --- Closing -------------------------------------------------------------------------------------------------------


def test_leaving_early_ends_the_stream_and_drops_the_connection() -> None:
    async def story() -> MessageStream:
        connection = body(*ANSWER)
        async with client_of(connection).messages.stream(**ASK) as stream:
            await anext(stream)
        assert connection.is_aborted
        return stream

    ending = run(story()).ending
    assert ending is not None
    assert (ending.kind, ending.text, ending.phase) == ("cancelled", "the stream was closed before its end", "open")


def test_a_stream_that_is_dropped_is_closed_even_if_the_warning_about_it_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        connection = body(*ANSWER)
        events = await client_of(connection).messages.create(**ASK, stream=True)
        del events
        assert connection.is_aborted

    raised: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", raised.append)
    run(story())
    assert [each.exc_type for each in raised] == [ResourceWarning]


def test_aclose_is_close_for_contextlib() -> None:
    async def story() -> str | None:
        connection = body(*ANSWER)
        events = await client_of(connection).messages.create(**ASK, stream=True)
        async with contextlib.aclosing(events):
            await anext(events)
        assert connection.is_aborted
        return events.ending.kind if events.ending else None

    assert run(story()) == "cancelled"


def test_events_without_a_block_have_an_ending_when_their_reader_is_cancelled() -> None:
    async def story() -> None:
        connection = FakeStream([SSE_HEAD], end=None)
        events = await client_of(connection).messages.create(**ASK, stream=True)
        task = asyncio.ensure_future(anext(events))
        await ticks(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert connection.is_aborted
        with pytest.raises(StreamCancelledError, match="the stream was closed before its end"):
            await anext(events)

    run(story())


def test_what_the_block_raises_passes_and_closes_the_stream() -> None:
    async def story() -> None:
        connection = body(*ANSWER)
        with pytest.raises(KeyError, match="mine"):
            async with client_of(connection).messages.stream(**ASK):
                raise KeyError("mine")
        assert connection.is_aborted

    run(story())


def test_closing_after_the_end_changes_nothing() -> None:
    async def story() -> None:
        async with client_of(answer(ANSWER)).messages.stream(**ASK) as stream:
            await stream.until_done()
            before, ended = stream.ending, stream.timing.ended
            await asyncio.sleep(5)
            await stream.close()
            await stream.aclose()
            assert (stream.ending, stream.timing.ended) == (before, ended)
            assert (await stream.get_final_message()).text == "Hello ☺"

    run(story())


def test_a_stream_that_was_closed_while_nobody_waited_never_looks_whole() -> None:
    async def story() -> None:
        async with client_of(body(*ANSWER)).messages.stream(**ASK) as stream:
            await anext(stream)
            await stream.close()
            with pytest.raises(StreamCancelledError, match="the stream was closed before its end"):
                async for _ in stream.text_stream:
                    pass
            with pytest.raises(StreamCancelledError):
                await stream.get_final_message()

    run(story())


def test_a_stream_that_was_closed_before_it_was_opened_does_not_connect() -> None:
    async def connect(*_: object) -> FakeStream:
        raise AssertionError("it connected")

    async def story() -> None:
        stream = client_of(b"", connect=connect).messages.stream(**ASK)
        await stream.close()
        with pytest.raises(StreamCancelledError):
            await stream.__aenter__()
        assert stream.timing.connected is None

    run(story())


# --- By another thread -----------------------------------------------------------------------------------------------


def opened_without_loop() -> tuple[MessageStream, AsyncClient, Network]:
    network = Network(Peer(answer(ANSWER)[:-200], end=None))
    client = client_without_loop(network)
    return drive(client.messages.stream(**ASK).__aenter__()), client, network


def close_in_a_thread(stream: MessageStream) -> None:
    thread = threading.Thread(target=lambda: drive(stream.close()))
    thread.start()
    thread.join()


def test_a_stream_that_another_thread_closes_between_two_reads_is_ended_at_once() -> None:
    stream, _, network = opened_without_loop()
    close_in_a_thread(stream)
    assert stream.ending is not None
    assert (network.streams[0].is_aborted, stream.ending.kind) == (True, "cancelled")
    with pytest.raises(StreamCancelledError, match="the stream was closed before its end"):
        drive(stream.until_done())
    del stream  # warnings are errors


def test_one_that_another_thread_closes_while_its_reader_looks_for_an_event_does_not_look_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, _, _ = opened_without_loop()
    answer = stream._call.exchange
    look = answer.next_event

    def next_event() -> Any:
        if (event := look()) is None:
            close_in_a_thread(stream)
        return event

    monkeypatch.setattr(answer, "next_event", next_event)
    with pytest.raises(StreamCancelledError, match="the stream was closed before its end"):
        drive(stream.get_final_message())


def test_one_that_is_being_read_is_ended_by_its_reader() -> None:
    stream, client, network = opened_without_loop()
    seen: list[object] = []

    def close() -> None:
        close_in_a_thread(stream)
        seen.append(stream.ending)

    there: Any = client._pools.here().network
    there.call_at(there.now() + 3, close)
    with pytest.raises(StreamCancelledError, match="the stream was closed before its end"):
        drive(stream.until_done())
    assert stream.ending is not None
    assert (seen, stream.ending.kind, network.streams[0].is_aborted) == ([None], "cancelled", True)


# --- At every step -------------------------------------------------------------------------------------------------


class Stepping(FakeStream):
    """A stream each of whose operations takes a step of the loop, as those of real ones do."""

    async def read(self, deadline: float) -> bytes:
        await ticks()
        return await super().read(deadline)

    async def write(self, data: bytes, deadline: float) -> None:
        await ticks()
        await super().write(data, deadline)

    def reset(self) -> None:
        """The peer resets the connection."""
        self._chunks.clear()
        self._last = ConnectionResetError("reset by peer")
        self._change()


class Story:
    """A whole exchange in many steps: connecting, sending, a head in two reads, and events cut in the middle."""

    def __init__(self) -> None:
        data = answer(ANSWER)
        self.connection = Stepping([data[at : at + 70] for at in range(0, len(data), 70)], end=None)
        self.client = client_of(b"", connect=self.connect)
        self.stream = self.client.messages.stream(**ASK)
        self.is_connected = False

    async def connect(self, *_: object) -> FakeStream:
        await ticks()
        self.is_connected = True
        return self.connection

    async def read(self) -> str:
        async with self.stream:
            async for _ in self.stream:
                await ticks()
        return self.stream.current_message_snapshot.text

    @property
    def kind(self) -> str | None:
        return self.stream.ending.kind if self.stream.ending else None


Disturbance = Callable[[Story, asyncio.Task[str]], Awaitable[None]]


async def disturb(steps: int, disturbance: Disturbance) -> tuple[str, str | None]:
    """What became of a story that was disturbed after so many steps: the task's fate, and the stream's ending."""
    story = Story()
    task = asyncio.create_task(story.read())
    await ticks(steps)
    before = asyncio.get_running_loop().time()
    await disturbance(story, task)
    outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    assert asyncio.get_running_loop().time() == before
    opened, idle, _ = counts(story.client._pools)
    assert opened == idle
    assert story.connection.is_aborted or not story.is_connected or story.kind == "complete"
    return outcome if isinstance(outcome, str) else type(outcome).__name__, story.kind


async def cancel(_: Story, task: asyncio.Task[str]) -> None:
    task.cancel()


async def close(story: Story, _: asyncio.Task[str]) -> None:
    await story.stream.close()


async def close_and_cancel(story: Story, task: asyncio.Task[str]) -> None:
    await story.stream.close()
    task.cancel()


async def reset(story: Story, _: asyncio.Task[str]) -> None:
    story.connection.reset()


async def _fates(disturbance: Disturbance) -> list[tuple[str, str | None]]:
    found = [await disturb(1, disturbance)]
    while found[-1][0] != "Hello ☺":
        found.append(await disturb(len(found) + 1, disturbance))
    return found


def fates(disturbance: Disturbance, on: Loop) -> list[tuple[str, str | None]]:
    """The fate at every step, up to the first at which the story was over."""
    return on(_fates(disturbance))


each_loop = pytest.mark.parametrize("on", [run, *([with_eager_tasks] if HAS_EAGER_TASKS else [])])


@each_loop
def test_a_task_that_is_cancelled_at_any_step_leaves_nothing_and_an_ending(on: Loop) -> None:
    *disturbed, whole = fates(cancel, on)
    assert len(disturbed) > 20
    assert {fate for fate, _ in disturbed} == {"CancelledError"}
    assert {kind for _, kind in disturbed} == {
        "cancelled",
        "complete",
    }  # complete: the loop's body was cancelled after it
    assert whole == ("Hello ☺", "complete")


@each_loop
@pytest.mark.parametrize("disturbance", [close, close_and_cancel])
def test_a_stream_that_is_closed_at_any_step_wakes_its_reader_and_leaves_nothing(disturbance: Any, on: Loop) -> None:
    *disturbed, whole = fates(disturbance, on)
    assert len(disturbed) > 20
    assert {fate for fate, _ in disturbed} <= {"StreamCancelledError", "CancelledError"}
    assert whole == ("Hello ☺", "complete")


@each_loop
def test_a_connection_that_is_lost_at_any_step_is_told(on: Loop) -> None:
    *disturbed, whole = fates(reset, on)
    assert {fate for fate, _ in disturbed} == {"APIConnectionError", "StreamTruncatedError"}
    assert {kind for _, kind in disturbed} == {"truncated"}
    assert whole == ("Hello ☺", "complete")


@each_loop
def test_a_stream_over_tls_that_is_closed_at_any_step_leaves_nothing(on: Loop) -> None:
    left: list[int] = []  # connections that the server has not seen the end of

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left.append(1)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(ANSWER))
            await reader.read()
            await reader.read()
        left.pop()

    async def fate(origin: Origin, steps: int) -> str:
        context = ssl.create_default_context(cafile=LOCALHOST)
        client = AsyncClient(api_key="x", base_url=str(origin), ssl_context=context, max_retries=0)
        stream = client.messages.stream(**ASK)

        async def read_it() -> str:
            async with client, stream:
                return await stream.get_final_text()

        task = asyncio.create_task(read_it())
        await ticks(steps)
        await stream.close()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        return outcome if isinstance(outcome, str) else type(outcome).__name__

    async def story() -> list[str]:
        fates: list[str] = []
        async with serving(serve, tls=True) as origin:
            while "Hello ☺" not in fates:
                fates.append(await fate(origin, len(fates) + 1))
            await asyncio.sleep(1)
            assert left == []
        return fates

    *closed, _ = on(story())
    assert set(closed) == {"StreamCancelledError"}
    assert len(closed) > 5  # steps; with eager tasks there are the fewest


@pytest.mark.parametrize("awaited", [True, False])
@pytest.mark.parametrize("kind", ["stream", "events"])
def test_the_response_of_a_stream_closes_it(kind: str, *, awaited: bool) -> None:
    async def story() -> tuple[str | None, int]:
        connection = body(*ANSWER)
        messages = client_of(connection).messages
        async with messages.stream(**ASK) if kind == "stream" else messages.events(ASK) as stream:
            await anext(stream)
            if awaited:
                await stream.response.aclose()
            else:
                stream.response.close()
            assert connection.is_aborted
            with pytest.raises(StreamCancelledError):
                await anext(stream)
            return stream.ending and stream.ending.kind, stream.response.status_code

    assert run(story()) == ("cancelled", 200)
