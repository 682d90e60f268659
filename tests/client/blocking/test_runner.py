"""rawsse.client.blocking.runner: the tool loop for code without async, over fake streams; what the loop itself does is tried in
`test_runner.py`."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.answers import ASK, KEY, Connections, Sent, answer
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

from rawsse.client.blocking.client import Client
from rawsse.client.blocking.stream import BlockingMessageStream
from rawsse.client.network.net import FakeStream
from rawsse.client.tools.tool import tool

Make = Callable[..., Client]

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
    assert (runner.unanswered, runner.partial, runner.is_turn_whole) == ([], None, False)


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
    assert (sent["max_tokens"], sent["messages"][-1]["content"]) == (7, "in short")


def test_a_tool_runs_in_a_thread_of_its_own_and_may_use_the_client(connections: list[FakeStream]) -> None:
    where: list[str] = []
    streams = [connections[0], FakeStream([answer(ANSWER)]), connections[1]]
    with Client(api_key=KEY, base_url="http://api.example", connect=Connections(*streams)) as client:

        @tool
        def ask(city: str) -> str:
            """Ask another."""
            where.append(threading.current_thread().name)
            return f"{city}: {client.messages.create(**ASK).text}"

        runner = client.messages.tool_runner(
            **ASK, tools=[tool(ask.function, name="weather", description="How the weather is.")]
        )
        runner.until_done()
    assert result_of(connections[1])["content"] == "Oslo: Hello ☺"
    assert where
    assert where != ["rawsse client"]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads on this system")
def test_an_interrupt_while_a_tool_runs_ends_the_turn(client: Client) -> None:
    told: list[str] = []

    @tool(name="weather")
    async def never(city: str) -> str:
        """Take for ever."""
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            told.append("cancelled")
        return city

    runner = client.messages.tool_runner(**ASK, tools=[never])
    with pytest.raises(KeyboardInterrupt):
        runner.until_done()
    assert told == ["cancelled"]
    assert [message["role"] for message in runner.messages] == ["user"]


def test_a_runner_that_is_closed_is_over(client: Client) -> None:
    with client.messages.tool_runner(**ASK, tools=[weather]) as runner:
        next(runner)
    assert runner.stopped_by == "closed"
    assert list(runner) == []
    client.close()
    runner.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_leaves_the_parent_s_turn_alone() -> None:
    waiting = FakeStream([answer(CALL[:3]).removesuffix(b"0\r\n\r\n")], end=None)
    with Client(api_key=KEY, base_url="http://api.example", connect=Connections(waiting), max_retries=0) as client:
        runner = client.messages.tool_runner(**ASK, tools=[weather])
        assert next(runner.text_stream) == "Let me see."
        if not (child := os.fork()):
            code = 1
            try:
                runner.close()
                code = 2 if waiting.is_aborted else 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        runner.close()
    assert waiting.is_aborted
