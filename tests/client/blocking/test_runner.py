"""rawsse.client.blocking: the tool loop without async, over fake streams; what the loop itself does is tried in
`tools/test_runner.py`."""

from __future__ import annotations

import contextvars
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.answers import ASK, KEY, Connections, Sent, answer
from support.asking import calling
from support.background import PATIENCE
from support.streams import (
    ANSWER,
    STOP,
    block,
    block_start,
    block_stop,
    end,
    input_delta,
    start,
    text_delta,
    tool_block,
)
from support.upstream import interrupt_when_waiting, is_waiting, needs_signals, until

from rawsse.client.blocking import BlockingMessageStream, Client
from rawsse.client.tools.tool import tool
from rawsse.errors import ConfigurationError, StreamCancelledError, StreamTruncatedError
from rawsse.replay.fakes import FakeStream

CALL = [
    start(),
    *block(0, {"type": "text", "text": ""}, text_delta(0, "Let me see.")),
    block_start(1, tool_block()),
    input_delta(1, '{"city": "Oslo"}'),
    block_stop(1),
    end("tool_use"),
    STOP,
]


@pytest.fixture
def connections() -> list[FakeStream]:
    return [FakeStream([answer(CALL)]), FakeStream([answer(ANSWER)])]


@pytest.fixture
def client(connections: list[FakeStream]) -> Iterator[Client]:
    with Client(api_key=KEY, base_url="http://api.example", connect=Connections(*connections), max_retries=0) as client:
        yield client


@tool
def weather(city: str) -> str:
    """How the weather is."""
    return f"{city}: rain"


def result_of(connection: FakeStream) -> Any:
    """The result of the only tool, as it was sent."""
    return Sent(connection.written).json["messages"][-1]["content"][0]


def test_a_failed_answer_has_counted_where_its_error_is_caught() -> None:
    peer = FakeStream([answer(ANSWER[:3]).removesuffix(b"0\r\n\r\n")])
    with (
        Client(api_key=KEY, base_url="http://api.example", connect=Connections(peer), max_retries=0) as client,
        client.messages.tool_runner(**ASK, tools=[weather], stream=True) as runner,
    ):
        with pytest.raises(StreamTruncatedError):
            [text for each in runner for text in each.text_stream]
        assert runner.partial is not None
        assert (len(runner.usage.turns), runner.usage.exact) == (1, False)
    assert len(runner.usage.turns) == 1


def test_answers_come_one_after_the_other_and_tools_run_between_them(
    client: Client, connections: list[FakeStream]
) -> None:
    runner = client.messages.tool_runner(**ASK, tools=[weather])
    assert [message.text for message in runner] == ["Let me see.", "Hello ☺"]
    assert result_of(connections[1])["content"] == "Oslo: rain"
    assert runner.stopped_by == "end_turn"
    assert runner.current_stream is not None
    assert runner.current_stream.get_final_text() == "Hello ☺"
    assert runner.usage.output_tokens == 14
    assert [message["role"] for message in runner.messages] == ["user", "assistant", "user", "assistant"]
    assert (runner.unanswered, runner.partial) == ([], None)


def test_the_text_of_all_answers_is_one_stream(client: Client) -> None:
    runner = client.beta.messages.tool_runner(**ASK, tools=[weather])
    assert list(runner.text_stream) == ["Let me see.", "Hel", "lo ☺"]


def test_the_last_answer_can_be_waited_for(client: Client) -> None:
    runner = client.messages.tool_runner(**ASK, tools=[weather])
    assert runner.until_done().text == "Hello ☺"
    assert runner.last_message is not None
    assert runner.last_message.text == "Hello ☺"


def test_each_answer_may_be_read_as_it_comes(client: Client, connections: list[FakeStream]) -> None:
    texts: list[str] = []
    with client.messages.tool_runner(**ASK, tools=[weather], stream=True) as runner:
        for stream in runner:
            assert runner.current_stream is stream
            texts += stream.text_stream
            assert stream.get_final_message().stop_reason in ("tool_use", "end_turn")
    assert texts == ["Let me see.", "Hel", "lo ☺"]
    assert result_of(connections[1])["content"] == "Oslo: rain"


def test_each_answer_is_a_stream_whose_block_can_be_left(client: Client, connections: list[FakeStream]) -> None:
    runner = client.messages.tool_runner(**ASK, tools=[weather], stream=True)
    for answered in runner:
        assert isinstance(answered, BlockingMessageStream)
        with answered as stream:
            stream.until_done()
    assert result_of(connections[1])["content"] == "Oslo: rain"


def test_the_course_can_be_changed(client: Client, connections: list[FakeStream]) -> None:
    runner = client.messages.tool_runner(**ASK, tools=[weather])
    assert runner.current_stream is None
    next(runner)
    response = runner.generate_tool_call_response()
    assert response is not None
    assert response["content"][0]["content"] == "Oslo: rain"
    runner.set_messages_params(lambda params: {**params, "max_tokens": 7})
    runner.append_messages({"role": "user", "content": "in short"})
    runner.until_done()
    sent = Sent(connections[1].written).json
    assert (sent["max_tokens"], sent["messages"][-1]["content"][-1]["text"]) == (7, "in short")


# --- Tools ---------------------------------------------------------------------------------------------------------

TWICE = calling(("meet", '{"who": 0}'), ("meet", '{"who": 1}'))


def client_with(*answers: Any) -> Client:
    streams = [FakeStream([answer(events)]) for events in answers]
    return Client(api_key=KEY, base_url="http://api.example", connect=Connections(*streams), max_retries=0)


def test_a_single_tool_runs_in_the_caller_s_thread_and_may_use_the_client(connections: list[FakeStream]) -> None:
    where: list[threading.Thread] = []
    streams = [connections[0], FakeStream([answer(ANSWER)]), connections[1]]
    with Client(api_key=KEY, base_url="http://api.example", connect=Connections(*streams)) as client:

        @tool(name="weather")
        def ask(city: str) -> str:
            """Ask another."""
            where.append(threading.current_thread())
            return f"{city}: {client.messages.create(**ASK).text}"

        client.messages.tool_runner(**ASK, tools=[ask]).until_done()
    assert result_of(connections[1])["content"] == "Oslo: Hello ☺"
    assert where == [threading.current_thread()]


def test_the_tools_of_one_answer_run_at_the_same_time_each_in_a_daemon_thread() -> None:
    meeting = threading.Barrier(2, timeout=PATIENCE)
    where: dict[int, threading.Thread] = {}

    @tool
    def meet(who: int) -> int:
        where[who] = threading.current_thread()
        meeting.wait()
        return who

    with client_with(TWICE, ANSWER) as client:
        runner = client.messages.tool_runner(**ASK, tools=[meet])
        assert runner.until_done().text == "Hello ☺"
    assert [block["content"] for block in runner.messages[2]["content"]] == ["0", "1"]
    assert len(set(where.values()) - {threading.current_thread()}) == 2
    for thread in where.values():
        assert thread.daemon
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize("calls", [TWICE[:], calling(("meet", '{"who": 0}'))], ids=["two", "one"])
def test_a_tool_sees_the_context_of_its_caller_and_cannot_change_it(calls: Any) -> None:
    color = contextvars.ContextVar("color", default="none")
    seen: list[str] = []

    @tool
    def meet(who: int) -> None:
        seen.append(color.get())

    color.set("red")
    with client_with(calls, ANSWER) as client:
        client.messages.tool_runner(**ASK, tools=[meet]).until_done()
    assert set(seen) == {"red"}


def test_an_error_in_a_thread_is_a_result_for_the_model() -> None:
    @tool
    def meet(who: int) -> None:
        raise ValueError(f"{who} is not here")

    with client_with(TWICE, ANSWER) as client:
        runner = client.messages.tool_runner(**ASK, tools=[meet])
        runner.until_done()
    contents = [block["content"] for block in runner.messages[2]["content"]]
    assert contents == ["ValueError: 0 is not here", "ValueError: 1 is not here"]


@pytest.mark.parametrize("calls", [TWICE[:], calling(("meet", '{"who": 0}'))], ids=["two", "one"])
def test_an_exit_in_a_tool_is_not_a_result(calls: Any) -> None:
    @tool
    def meet(who: int) -> None:
        raise SystemExit(3)

    with client_with(calls, ANSWER) as client:
        runner = client.messages.tool_runner(**ASK, tools=[meet])
        with pytest.raises(SystemExit):
            runner.until_done()
    assert [message["role"] for message in runner.messages] == ["user"]


def test_an_async_tool_is_refused_where_the_runner_is_made(client: Client) -> None:
    @tool
    async def weather(city: str) -> str:
        return city

    with pytest.raises(ConfigurationError, match="a blocking client cannot run the async tool 'weather': "):
        client.messages.tool_runner(**ASK, tools=[weather])
    runner = client.messages.tool_runner(**ASK)
    with pytest.raises(ConfigurationError, match="cannot run the async tool"):
        runner.set_messages_params(lambda params: {**params, "tools": [weather]})


@needs_signals
@pytest.mark.parametrize("calls", ["one", "two"])
def test_an_interrupt_while_a_tool_runs_ends_the_turn(calls: str) -> None:
    never = threading.Event()

    @tool
    def meet(who: int) -> None:
        if calls == "one":
            signal.raise_signal(signal.SIGINT)
        never.wait(PATIENCE)

    if calls == "two":
        interrupt_when_waiting()
    with client_with(TWICE if calls == "two" else calling(("meet", '{"who": 0}')), ANSWER) as client:
        runner = client.messages.tool_runner(**ASK, tools=[meet])
        with pytest.raises(KeyboardInterrupt):
            runner.until_done()
    never.set()
    assert [message["role"] for message in runner.messages] == ["user"]
    assert runner.usage.output_tokens == 7


# --- Closing -------------------------------------------------------------------------------------------------------


def test_another_thread_may_close_a_runner_whose_tools_run() -> None:
    never = threading.Event()
    told: list[str] = []

    @tool
    def meet(who: int) -> None:
        never.wait(PATIENCE)

    def go() -> None:
        with pytest.raises(StreamCancelledError) as caught:
            runner.until_done()
        told.append(str(caught.value))

    with client_with(TWICE, ANSWER) as client:
        runner = client.messages.tool_runner(**ASK, tools=[meet])
        thread = threading.Thread(target=go)
        thread.start()
        until(lambda: is_waiting(thread))
        runner.close()
        thread.join(PATIENCE)
    never.set()
    assert told == ["the runner was closed while its tools ran"]
    assert (runner.stopped_by, len(runner.messages)) == ("closed", 1)


def test_a_second_thread_does_not_disturb_a_runner(connections: list[FakeStream], client: Client) -> None:
    begun, never = threading.Event(), threading.Event()

    @tool(name="weather")
    def wait(city: str) -> str:
        begun.set()
        never.wait(PATIENCE)
        return city

    runner = client.messages.tool_runner(**ASK, tools=[wait])
    thread = threading.Thread(target=runner.until_done)
    thread.start()
    assert begun.wait(PATIENCE)
    assert runner.current_stream is not None
    for reading in (runner.__next__, runner.text_stream.__next__, runner.until_done, runner.current_stream.until_done):
        with pytest.raises(RuntimeError, match="another thread is reading the stream"):
            reading()
    never.set()
    thread.join(PATIENCE)
    assert result_of(connections[1])["content"] == "Oslo"
    assert runner.stopped_by == "end_turn"


def test_a_runner_that_is_closed_is_over(client: Client) -> None:
    with client.messages.tool_runner(**ASK, tools=[weather]) as runner:
        next(runner)
    assert runner.stopped_by == "closed"
    assert list(runner) == []
    client.close()
    runner.close()
