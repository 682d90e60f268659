"""rawsse.client.blocking: streams without async, over fake streams; and what threads and signals may do in the middle of one.
Over real sockets: `test_threads.py`."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.answers import ASK, KEY, SSE_HEAD, Connections, answer, async_of, chunked, plain
from support.background import PATIENCE
from support.pools import counts
from support.streams import ANSWER, PING, TOOL_CALL, block, end, start, text_delta, to_bytes
from support.upstream import HELLO, interrupt_when_waiting, needs_signals, piece

from rawsse import errors
from rawsse.client.blocking import BlockingMessageStream, Client
from rawsse.client.blocking.network import SocketNetwork
from rawsse.client.client import AsyncClient
from rawsse.client.network.pool import PoolLimits
from rawsse.client.stream import EventStream, MessageStream
from rawsse.messages import ContentBlockDelta, ContentBlockStop, MessageDelta, TextDelta, TextEvent
from rawsse.replay.fakes import FakeLink, FakeStream

Make = Callable[..., Client]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make a client whose connections are these streams; bytes are one that sends them in one piece and closes."""
    clients: list[Client] = []

    def make(*streams: FakeStream | bytes, **options: Any) -> Client:
        made = [FakeStream([stream]) if isinstance(stream, bytes) else stream for stream in streams]
        given: dict[str, Any] = {"connect": Connections(*made), "max_retries": 0, **options}
        clients.append(Client(api_key=KEY, base_url="http://api.example", **given))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def ending(stream: BlockingMessageStream) -> str | None:
    return stream.ending.kind if stream.ending else None


# --- Reading -------------------------------------------------------------------------------------------------------


def test_the_events_are_those_of_the_wire_each_followed_by_what_derives_from_it(make: Make) -> None:
    with make(answer(ANSWER)).messages.stream(**ASK) as stream:
        events = list(stream)
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        *("content_block_delta", "text") * 2,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [event.text for event in events if isinstance(event, TextEvent)] == ["Hel", "lo ☺"]


def test_a_stop_brings_what_it_finished(make: Make) -> None:
    with make(answer(TOOL_CALL)).messages.stream(**ASK) as stream:
        blocks = [event.content_block for event in stream if isinstance(event, ContentBlockStop)]
    assert [raw and raw.type for raw in blocks] == ["text", "tool_use"]


def test_the_text_comes_piece_by_piece(make: Make) -> None:
    with make(answer(ANSWER)).messages.stream(**ASK) as stream:
        assert list(stream.text_stream) == ["Hel", "lo ☺"]


def test_the_text_and_the_events_share_one_iterator(make: Make) -> None:
    with make(answer(ANSWER)).messages.stream(**ASK) as stream:
        assert next(stream.text_stream) == "Hel"
        assert next(stream).type == "content_block_delta"
        assert list(stream.text_stream) == ["lo ☺"]


def test_the_final_message_needs_no_reading(make: Make) -> None:
    with make(answer(ANSWER)).messages.stream(**ASK) as stream:
        assert stream.get_final_message().text == "Hello ☺"
        assert stream.get_final_text() == "Hello ☺"


def test_a_stream_can_be_read_to_its_end_for_its_own_sake(make: Make) -> None:
    with make(answer(ANSWER)).messages.stream(**ASK) as stream:
        stream.until_done()
        assert list(stream) == []


def test_what_was_read_can_be_looked_at_when_all_is_closed(make: Make) -> None:
    with make(answer(ANSWER)) as client, client.messages.stream(**ASK) as stream:
        stream.until_done()
    assert stream.get_final_message().text == "Hello ☺"


def test_the_message_so_far_is_what_the_caller_has_seen_although_all_of_it_is_here(make: Make) -> None:
    with make(SSE_HEAD + chunked(to_bytes(ANSWER))).messages.stream(**ASK) as stream:
        text, reason = "", None
        for event in stream:
            if isinstance(event, ContentBlockDelta) and isinstance(event.delta, TextDelta):
                text += event.delta.text
            elif isinstance(event, MessageDelta):
                reason = event.delta.stop_reason
            so_far = stream.current_message_snapshot
            assert (so_far.text, so_far.stop_reason) == (text, reason)
    assert (text, reason) == ("Hello ☺", "end_turn")


def test_a_stream_of_events_has_a_message_so_far_too(make: Make) -> None:
    events = make(SSE_HEAD + chunked(to_bytes(ANSWER))).messages.create(**ASK, stream=True)
    texts = [events.current_message_snapshot.text for event in events if event.type == "content_block_delta"]
    assert texts == ["Hel", "Hello ☺"]


def test_what_is_known_of_a_stream_is_known_here_too(make: Make) -> None:
    stream = make(answer(ANSWER)).messages.stream(**ASK)
    assert repr(stream) == "<BlockingMessageStream not open, request None>"
    assert ending(stream) is None
    with pytest.raises(RuntimeError, match="the stream is not open"):
        _ = stream.response
    with stream:
        stream.until_done()
    assert stream.response.status == 200
    assert stream.headers["request-id"] == stream.request_id == "req_1"
    assert ending(stream) == "complete"
    assert stream.timing.first_content is not None
    assert stream.rate_limits.requests is None
    assert stream.retries_taken == 0
    assert stream.error_event is None
    assert repr(stream) == "<BlockingMessageStream complete, request req_1>"


def test_a_stream_that_is_not_open_says_so(make: Make) -> None:
    stream = make(answer(ANSWER)).messages.stream(**ASK)
    for read in (stream.until_done, stream.__next__):
        with pytest.raises(RuntimeError, match="the stream is not open"):
            read()


def test_odd_events_come_in_their_order_and_pings_do_not(make: Make) -> None:
    odd = {"type": "made_up", "x": 1}
    raws = [start(), *block(0, {"type": "text", "text": ""}, text_delta(0, "a"), odd, PING, text_delta(0, "b")), end()]
    with make(SSE_HEAD + chunked(to_bytes([*raws, {"type": "message_stop"}]))).messages.stream(**ASK) as stream:
        kinds = [event.type for event in stream]
    assert kinds[4:7] == ["made_up", "content_block_delta", "text"]


# --- Failures ------------------------------------------------------------------------------------------------------


def test_a_cut_answer_is_raised_after_the_events_before_it(make: Make) -> None:
    seen: list[str] = []
    with make(SSE_HEAD + piece(*HELLO)).messages.stream(**ASK) as stream:
        with pytest.raises(errors.StreamTruncatedError, match="closed in the middle of the answer") as caught:
            seen.extend(stream.text_stream)
        assert seen == ["Hel", "lo"]
        assert caught.value.partial is not None
        assert caught.value.partial.text == "Hello"
        with pytest.raises(errors.StreamTruncatedError):  # it never looks whole
            next(stream)
    assert ending(stream) == "truncated"


def test_an_event_that_may_not_come_is_raised_in_its_turn(make: Make) -> None:
    seen: list[str] = []
    connection = FakeStream([SSE_HEAD + piece(*HELLO, text_delta(7, "?"), text_delta(0, "never"))])
    order = pytest.raises(errors.EventOrderError, match="names block 7, but block 0 is open")
    with order as caught, make(connection).messages.stream(**ASK) as stream:
        seen.extend(stream.text_stream)
    assert seen == ["Hel", "lo"]
    assert caught.value.phase == "content"
    assert connection.is_aborted


def test_data_that_cannot_be_read_are_raised_in_their_turn(make: Make) -> None:
    broken = b"event: content_block_delta\ndata: {\n\n"
    seen: list[str] = []
    client = make(SSE_HEAD + chunked(to_bytes(HELLO) + broken))
    with pytest.raises(errors.EventDataError, match="are not JSON"), client.messages.stream(**ASK) as stream:
        seen.extend(stream.text_stream)
    assert seen == ["Hel", "lo"]


def test_an_error_event_is_raised_in_its_turn(make: Make) -> None:
    fault = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    with make(answer([*HELLO, fault])).messages.stream(**ASK) as stream:
        with pytest.raises(errors.OverloadedError, match="busy"):
            stream.until_done()
        assert stream.error_event is not None
        assert stream.error_event.raw == fault


def test_a_refusal_is_raised_where_the_stream_is_entered(make: Make) -> None:
    with pytest.raises(errors.APIConnectionError), make(FakeStream([])).messages.stream(**ASK):
        pytest.fail("there is no stream")


def test_a_connection_that_is_lost_between_two_pieces_of_a_request_fails_the_call(make: Make) -> None:
    class Lost(FakeStream):
        def read_ready(self) -> bytes | None:
            if self.written:
                raise ConnectionResetError(104, "reset")
            return None

    large = {**ASK, "messages": [{"role": "user", "content": "x" * 600_000}]}
    with pytest.raises(errors.APIConnectionError, match="was lost before an answer: reset"):
        make(Lost()).messages.create(**large)


# --- Closing -------------------------------------------------------------------------------------------------------


def test_leaving_the_block_drops_the_connection(make: Make) -> None:
    connection = FakeStream([SSE_HEAD + piece(*HELLO)], end=None)
    with make(connection).messages.stream(**ASK) as stream:
        assert next(stream.text_stream) == "Hel"
        assert ending(stream) is None
    assert connection.is_aborted
    assert ending(stream) == "cancelled"
    with pytest.raises(errors.StreamCancelledError):
        next(stream)


def test_a_stream_that_was_never_opened_can_be_closed(make: Make) -> None:
    stream = make().messages.stream(**ASK)
    stream.close()
    assert ending(stream) == "cancelled"


class Silent(FakeStream):
    """A connection that says when it is waited for in vain."""

    def __init__(self, *chunks: bytes) -> None:
        super().__init__(chunks, end=None)
        self.is_silent = threading.Event()

    async def read(self, deadline: float) -> bytes:
        if not self._chunks:
            self.is_silent.set()
        return await super().read(deadline)


@pytest.mark.parametrize("what", ["stream", "client"])
def test_another_thread_may_close_a_stream_that_is_waited_for(make: Make, what: str) -> None:
    connection = Silent(SSE_HEAD + piece(*HELLO))
    client = make(connection)
    told: list[errors.StreamCancelledError] = []

    def read() -> None:
        try:
            stream.until_done()
        except errors.StreamCancelledError as exc:
            told.append(exc)

    with client.messages.stream(**ASK) as stream:
        reader = threading.Thread(target=read)
        reader.start()
        assert connection.is_silent.wait(PATIENCE)
        stream.close() if what == "stream" else client.close()
        reader.join(PATIENCE)
    assert connection.is_aborted
    assert [error.partial and error.partial.text for error in told] == ["Hello"]


def test_a_stream_whose_client_was_closed_does_not_look_whole(make: Make) -> None:
    client = make(FakeStream([SSE_HEAD + piece(*HELLO)], end=None))
    with client.messages.stream(**ASK) as stream:
        seen = [next(stream.text_stream)]
        client.close()
        with pytest.raises(errors.StreamCancelledError):
            seen.extend(stream.text_stream)
    assert ending(stream) == "cancelled"


def test_two_threads_cannot_read_one_stream_but_both_can_look_at_it(make: Make) -> None:
    connection = Silent(SSE_HEAD + piece(*HELLO))
    with make(connection).messages.stream(**ASK) as stream:

        def read() -> None:
            with pytest.raises(errors.StreamCancelledError):
                stream.until_done()

        reader = threading.Thread(target=read)
        reader.start()
        assert connection.is_silent.wait(PATIENCE)
        for reading in (stream.until_done, stream.__next__):
            with pytest.raises(RuntimeError, match="another thread is reading the stream"):
                reading()
        assert stream.current_message_snapshot.text == "Hello"
        stream.close()
        reader.join(PATIENCE)
    assert not reader.is_alive()


def in_thread(work: Callable[[], object]) -> None:
    """Do it in another thread, and wait until it is over."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_a_text_stream_and_its_stream_are_for_one_thread_together(make: Make) -> None:
    connection = Silent(SSE_HEAD + piece(*HELLO))
    with make(connection).messages.stream(**ASK) as stream:

        def read() -> None:
            with pytest.raises(errors.StreamCancelledError):
                list(stream.text_stream)

        reader = threading.Thread(target=read)
        reader.start()
        assert connection.is_silent.wait(PATIENCE)
        for reading in (stream.__next__, stream.text_stream.__next__, stream.get_final_text):
            with pytest.raises(RuntimeError, match=r"^another thread is reading the stream$"):
                reading()
        stream.close()
        reader.join(PATIENCE)
    assert not reader.is_alive()


def test_a_stream_that_two_threads_get_at_the_same_moment_is_for_one_of_them(make: Make) -> None:
    connection = Silent(SSE_HEAD + piece(*HELLO))
    raw = make(connection).messages.with_raw_response.create(**ASK, stream=True)
    first = raw.parse()
    del async_of(first, EventStream)._facade  # type: ignore[attr-defined]  # as if the other thread had not seen it yet
    second = raw.parse()
    assert second is not first

    def read() -> None:
        with pytest.raises(errors.StreamCancelledError):
            list(first)

    reader = threading.Thread(target=read)
    reader.start()
    assert connection.is_silent.wait(PATIENCE)
    with pytest.raises(RuntimeError, match="another thread is reading the stream"):
        next(second)
    second.close()
    reader.join(PATIENCE)
    assert not reader.is_alive()


def test_two_threads_cannot_fold_one_event(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = threading.Event(), threading.Event()

    def apply(_: object) -> None:
        inside.set()
        assert outside.wait(PATIENCE)

    with make(SSE_HEAD + piece(*HELLO)).messages.stream(**ASK) as stream:
        assert next(stream).type == "message_start"
        monkeypatch.setattr(async_of(stream, MessageStream)._call.exchange.builder, "apply", apply)
        reader = threading.Thread(target=next, args=(stream,))
        reader.start()
        assert inside.wait(PATIENCE)
        with pytest.raises(RuntimeError, match="another thread is reading the stream"):
            next(stream)
        outside.set()
        reader.join(PATIENCE)


def test_any_thread_may_close_a_stream_that_no_thread_reads(make: Make) -> None:
    connection = FakeStream([SSE_HEAD + piece(*HELLO)], end=None)
    stream = make(connection).messages.stream(**ASK).__enter__()
    assert next(stream.text_stream) == "Hel"
    in_thread(stream.close)
    assert (ending(stream), connection.is_aborted) == ("cancelled", True)
    with pytest.raises(errors.StreamCancelledError) as caught:
        next(stream)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hel"


def test_a_stream_may_be_opened_in_one_thread_and_read_in_another(make: Make) -> None:
    stream = make(FakeStream([SSE_HEAD + piece(*HELLO)], end=None)).messages.stream(**ASK)
    in_thread(stream.__enter__)
    assert next(stream.text_stream) == "Hel"
    stream.close()
    assert ending(stream) == "cancelled"


def test_a_stream_that_is_dropped_half_read_closes_its_connection_and_warns(make: Make) -> None:
    connection = FakeStream([SSE_HEAD + piece(*HELLO)], end=None)
    stream = make(connection).messages.stream(**ASK).__enter__()
    assert next(stream.text_stream) == "Hel"
    gc.disable()
    try:
        with pytest.warns(ResourceWarning, match="was dropped, neither read to its end nor closed"):
            del stream
    finally:
        gc.enable()
    assert connection.is_aborted


@pytest.mark.parametrize("closer", ["stream", "client"])
def test_a_stream_that_another_thread_closed_is_not_reported_as_dropped(make: Make, closer: str) -> None:
    client = make(FakeStream([SSE_HEAD + piece(*HELLO)], end=None))
    stream = client.messages.stream(**ASK).__enter__()
    in_thread(stream.close if closer == "stream" else client.close)
    with warnings.catch_warnings(record=True) as told:
        del stream
    assert told == []


BUSY = plain(
    b'{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}', "529 Busy", retry_after="50"
)


@pytest.mark.parametrize(
    ("owner", "name", "first"),
    [(SocketNetwork, "signal", BUSY), (SocketNetwork, "signal", None), (FakeLink, "__init__", answer(ANSWER))],
    ids=["retry", "queue", "connect"],
)
def test_a_close_just_before_a_wait_begins_is_not_lost(
    make: Make, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, first: bytes | None
) -> None:
    held = FakeStream([SSE_HEAD + piece(*HELLO)], end=None) if first is None else first
    client = make(held, answer(ANSWER), limits=PoolLimits(max_connections=1), max_retries=1)
    holder = client.messages.stream(**ASK) if first is None else contextlib.nullcontext()
    original = getattr(owner, name)

    def close_first(*arguments: Any) -> Any:
        monkeypatch.undo()
        in_thread(stream.close)
        return original(*arguments)

    with holder:
        stream = client.messages.stream(**ASK)
        monkeypatch.setattr(owner, name, close_first)
        with pytest.raises(errors.StreamCancelledError), stream:
            pytest.fail("it is open")
    assert ending(stream) == "cancelled"
    opened, idle, waiting = counts(async_of(client, AsyncClient)._pools)
    assert (opened, waiting) == (idle, 0)


# --- Interrupts ----------------------------------------------------------------------------------------------------


class Ringing(FakeStream):
    """A connection that interrupts the main thread when it is waited for in vain."""

    async def read(self, deadline: float) -> bytes:
        if not self._chunks:
            interrupt_when_waiting()
        return await super().read(deadline)


@needs_signals
@pytest.mark.parametrize("how", ["head", "next", "until_done", "create", "count_tokens"])
def test_an_interrupt_frees_the_connection_before_it_goes_on_and_the_client_is_still_good(make: Make, how: str) -> None:
    connection = Ringing([] if how in ("head", "count_tokens") else [SSE_HEAD + piece(*HELLO)], end=None)
    client = make(connection, answer(ANSWER))

    def ask() -> None:
        if how == "create":
            client.messages.create(**ASK)
        elif how == "count_tokens":
            client.messages.count_tokens(model="m", messages=[])
        with client.messages.stream(**ASK) as stream:
            stream.until_done() if how == "until_done" else list(stream)

    with pytest.raises(KeyboardInterrupt):
        ask()
    assert connection.is_aborted
    assert client.messages.create(**ASK).text == "Hello ☺"


@needs_signals
def test_a_stream_that_was_interrupted_has_ended(make: Make) -> None:
    with make(Ringing([SSE_HEAD + piece(*HELLO)], end=None)).messages.stream(**ASK) as stream:
        with pytest.raises(KeyboardInterrupt):
            stream.until_done()
        assert ending(stream) == "cancelled"
        assert stream.current_message_snapshot.text == "Hello"
        with pytest.raises(errors.StreamCancelledError):
            next(stream)


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("read", [next, BlockingMessageStream.until_done], ids=["next", "until_done"])
def test_an_interrupt_in_the_middle_of_an_event_ends_the_stream(
    make: Make, read: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with make(FakeStream([SSE_HEAD + piece(*HELLO)], end=None)).messages.stream(**ASK) as stream:
        assert next(stream.text_stream) == "Hel"
        monkeypatch.setattr(async_of(stream, MessageStream)._call.exchange.builder, "apply", interrupt)
        with pytest.raises(KeyboardInterrupt):
            read(stream)
        assert ending(stream) == "cancelled"


@needs_signals
def test_a_signal_s_handler_may_close_the_stream_that_it_interrupts(make: Make) -> None:
    with make(Ringing([SSE_HEAD + piece(*HELLO)], end=None)).messages.stream(**ASK) as stream:
        before = signal.signal(signal.SIGINT, lambda *_: stream.close())
        try:
            with pytest.raises(errors.StreamCancelledError):
                stream.until_done()
        finally:
            signal.signal(signal.SIGINT, before)
