"""rawsse.client.blocking: the calls of the client without async, over fake streams. Streams are in `test_stream.py`, reflection
in `test_facade.py`, what threads, signals and processes do in `test_threads.py`, `test_interrupts.py` and
`tests/interop/test_blocking.py`."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.answers import ASK, KEY, Connections, Sent, answer, plain
from support.streams import ANSWER, STOP, block, end, start, text_delta

from rawsse import errors
from rawsse.client.blocking import Client
from rawsse.client.network.link import drive
from rawsse.replay.fakes import FakeStream, fake_links

Make = Callable[..., Client]

MODEL = {"type": "model", "id": "claude-sonnet-5", "display_name": "Sonnet 5", "created_at": "2026-02-01T00:00:00Z"}
QUESTION: dict[str, Any] = {"model": ASK["model"], "messages": ASK["messages"]}


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


def page(*ids: str, more: bool = False) -> bytes:
    models = [{**MODEL, "id": id} for id in ids]
    body = {"data": models, "has_more": more, "first_id": ids[0], "last_id": ids[-1]}
    return plain(json.dumps(body).encode(), content_type="application/json", request_id="req_1")


# --- Calls ---------------------------------------------------------------------------------------------------------


def test_a_call_gives_the_whole_message(make: Make) -> None:
    message = make(answer(ANSWER)).messages.create(**ASK)
    assert message.text == "Hello ☺"
    assert message.request_id == "req_1"


def test_with_stream_a_call_gives_the_events(make: Make) -> None:
    events = make(answer(ANSWER)).messages.create(**ASK, stream=True)
    assert events.request_id == "req_1"
    assert [event.type for event in events] == [raw["type"] for raw in ANSWER]


def test_a_body_may_be_passed_on_as_it_is(make: Make) -> None:
    connection = FakeStream([answer(ANSWER)])
    with make(connection).messages.events({**ASK, "made_up": 1}) as events:
        assert [event.type for event in events] == [raw["type"] for raw in ANSWER]
    assert Sent(connection.written).json["made_up"] == 1


def test_tokens_are_counted(make: Make) -> None:
    count = make(plain(b'{"input_tokens": 11}')).messages.count_tokens(**QUESTION)
    assert count.input_tokens == 11


def test_the_request_is_the_one_that_async_code_sends(make: Make) -> None:
    connection = FakeStream([answer(ANSWER)])
    make(connection).messages.create(**ASK, temperature=0.5, betas=["b-1"], extra_headers={"x-a": "1"})
    sent = Sent(connection.written)
    assert sent.json == {**ASK, "temperature": 0.5, "stream": True}
    assert (sent["x-api-key"], sent["anthropic-beta"], sent["x-a"]) == (KEY, "b-1", "1")


def test_beta_calls_are_the_same_calls(make: Make) -> None:
    assert make(answer(ANSWER)).beta.messages.create(**ASK).text == "Hello ☺"


def test_a_raw_response_has_the_header_beside_the_message(make: Make) -> None:
    raw = make(answer(ANSWER)).messages.with_raw_response.create(**ASK)
    assert (raw.status_code, raw.request_id, raw.retries_taken) == (200, "req_1", 0)
    assert raw.headers["content-type"] == raw.response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert raw.rate_limits.requests is None
    assert raw.timing.head is not None
    assert raw.parse().text == "Hello ☺"


def test_a_raw_response_may_bring_a_stream(make: Make) -> None:
    raw = make(answer(ANSWER)).messages.with_raw_response.create(**ASK, stream=True)
    assert [event.type for event in raw.parse()] == [raw["type"] for raw in ANSWER]


def test_a_raw_response_may_bring_a_count(make: Make) -> None:
    raw = make(plain(b'{"input_tokens": 11}')).messages.with_raw_response.count_tokens(**QUESTION)
    assert raw.parse().input_tokens == 11


def says(text: str) -> bytes:
    return answer([start(), *block(0, {"type": "text", "text": ""}, text_delta(0, text)), end(), STOP])


def test_an_answer_is_parsed_in_the_caller_s_thread(make: Make) -> None:
    pytest.importorskip("pydantic", reason="makes the schemas of classes: the extra `schema`")
    where: list[str] = []

    @dataclass
    class Watched:
        name: str
        cups: int

        def __post_init__(self) -> None:
            where.append(threading.current_thread().name)

    message = make(says('{"name": "mint", "cups": 2}')).messages.parse(**ASK, output_format=Watched)
    assert message.parsed_output == Watched("mint", 2)
    assert set(where) == {threading.current_thread().name}


def test_a_text_that_does_not_fit_is_told(make: Make) -> None:
    with pytest.raises(errors.OutputFormatError, match="does not fit list"):
        make(says("none")).messages.parse(**ASK, output_format=list[int])


def test_models_come_page_after_page(make: Make) -> None:
    client = make(page("a", "b", more=True), page("c"))
    models = client.models.list(limit=2)
    assert [model.id for model in models.data] == ["a", "b"]
    assert (models.first_id, models.last_id, models.has_more, models.has_next_page()) == ("a", "b", True, True)
    assert [model.id for model in models] == ["a", "b", "c"]


def test_one_model_is_told(make: Make) -> None:
    assert make(plain(json.dumps(MODEL).encode())).models.retrieve("claude-sonnet-5").display_name == "Sonnet 5"


# --- Errors --------------------------------------------------------------------------------------------------------


def test_a_refusal_is_raised_with_the_caller_s_frames(make: Make) -> None:
    body = b'{"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}'
    client = make(plain(body, "429 Too Many Requests", request_id="req_9"))
    with pytest.raises(errors.RateLimitError, match="slow down") as caught:
        client.messages.create(**ASK)
    assert caught.value.request_id == "req_9"
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[:2] == ["test_a_refusal_is_raised_with_the_caller_s_frames", "create"]
    assert "_read_whole" in frames or "_open" in frames  # and those of the async code that it runs


def test_what_went_wrong_in_the_network_is_the_cause(make: Make) -> None:
    with pytest.raises(errors.APIConnectionError) as caught:
        make(FakeStream([], end=ConnectionResetError(104, "reset"))).messages.create(**ASK)
    assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_wrong_arguments_are_told_where_the_client_is_made() -> None:
    with pytest.raises(errors.ConfigurationError, match="must begin with http"):
        Client(api_key=KEY, base_url="ftp://api.example")


def test_what_cannot_be_written_is_told_before_anything_is_sent(make: Make) -> None:
    client = make()
    with pytest.raises(errors.ConfigurationError, match="cannot be written as JSON"):
        client.messages.stream(**ASK, metadata=object())  # type: ignore[arg-type]


# --- The client ----------------------------------------------------------------------------------------------------


def test_a_call_needs_neither_a_thread_nor_an_event_loop(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an event loop")

    for name in ("new_event_loop", "get_running_loop", "get_event_loop"):
        monkeypatch.setattr(asyncio, name, refuse)
    before = threading.enumerate()
    seen: list[list[threading.Thread]] = []

    class Watched(FakeStream):
        async def read(self, deadline: float) -> bytes:
            seen.append(threading.enumerate())
            return await super().read(deadline)

    client = make(Watched([answer(ANSWER)]))
    assert client.messages.create(**ASK).text == "Hello ☺"
    assert seen
    assert all(threads == before for threads in [*seen, threading.enumerate()])


def test_a_call_sees_the_context_of_its_caller() -> None:
    color = contextvars.ContextVar("color", default="none")
    seen: list[str] = []

    async def connect(*_: object) -> FakeStream:
        seen.append(color.get())
        return FakeStream([answer(ANSWER)])

    color.set("red")
    Client(api_key=KEY, base_url="http://api.example", connect=fake_links(connect)).messages.create(**ASK)
    assert seen == ["red"]


def test_a_network_that_suspends_is_refused_in_plain_words() -> None:
    async def connect(*_: object) -> FakeStream:
        await asyncio.sleep(0)
        return FakeStream()

    client = Client(api_key=KEY, base_url="http://api.example", connect=fake_links(connect))
    with pytest.raises(RuntimeError, match="a blocking client has no event loop; use AsyncClient"):
        client.messages.create(**ASK)


def test_async_code_that_suspends_is_closed_when_it_is_refused() -> None:
    told: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            told.append("closed")

    with pytest.raises(RuntimeError, match="async code cannot wait here"):
        drive(work())
    assert told == ["closed"]


def test_a_closed_client_takes_no_call(make: Make) -> None:
    client = make(answer(ANSWER))
    client.messages.create(**ASK)
    client.close()
    client.close()
    assert client.is_closed()
    for call in (client.messages.create, client.messages.stream):
        with pytest.raises(RuntimeError, match="the client is closed"):
            call(**ASK)


def test_a_client_that_was_never_used_is_closed() -> None:
    client = Client(api_key=KEY)
    client.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.models.list()


def test_options_can_be_changed_and_connections_are_shared(make: Make) -> None:
    connection = FakeStream([answer(ANSWER), None, answer(ANSWER)], end=None)
    client = make(connection)
    client.messages.create(**ASK)
    first = bytes(connection.written)
    other = client.with_options(default_headers={"x-a": "1"}).with_options(api_key="sk-other")
    other.messages.create(**ASK)
    second = Sent(connection.written.removeprefix(first))
    assert "x-a" not in Sent(first)
    assert (second["x-a"], second["x-api-key"]) == ("1", "sk-other")
    other.close()
    assert client.is_closed()


def test_a_client_says_what_it_is_and_not_its_key() -> None:
    client = Client(api_key=KEY, base_url="http://api.example/x")
    assert repr(client) == "<Client for http://api.example/x, with a key>"
    assert (client.base_url, client.has_credential) == ("http://api.example/x", True)


def test_it_works_while_a_loop_runs(make: Make) -> None:
    async def notebook() -> None:
        assert make(answer(ANSWER)).messages.create(**ASK).text == "Hello ☺"

    asyncio.run(notebook())


def test_a_response_is_a_block_that_closes_what_was_not_read(make: Make) -> None:
    connection = FakeStream([answer(ANSWER)[:-200]], end=None)
    with make(connection).messages.with_streaming_response.create(**ASK, stream=True) as raw:
        assert raw.status_code == 200
        assert next(raw.parse()).type == "message_start"
    assert connection.is_aborted


def test_copy_is_with_options_and_a_closed_client_says_so(make: Make) -> None:
    client = make(answer(ANSWER))
    other = client.copy(base_url="http://other.example")
    assert (type(other), other.base_url, client.is_closed()) == (Client, "http://other.example", False)
    client.close()
    assert (client.is_closed(), other.is_closed()) == (True, True)
