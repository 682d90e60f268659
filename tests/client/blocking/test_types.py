"""rawsse.client.blocking as type checkers see it: programs in which exactly the marked lines are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.type_checkers import find_wrong, marked

PROGRAM = """
from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_type

from rawsse import Anthropic, AsyncClient, Client, Message
from rawsse.client.retry import RetryPolicy
from rawsse.client.retry import Timeouts
from rawsse.client.blocking import (
    BlockingConversation,
    BlockingEventStream,
    BlockingMessageStream,
    BlockingReply,
    BlockingToolRunner,
    Page,
)
from rawsse.client.resources import ModelInfo, TokenCount
from rawsse.client.tools.runner import TotalUsage
from rawsse.errors import Ending
from rawsse.messages import ParsedMessage, StreamEvent

QUESTION = {"role": "user", "content": "hi"}


@dataclass
class Tea:
    cups: int


def calls(client: Client) -> None:
    assert_type(client.messages.create(model="m", max_tokens=1, messages=[QUESTION]), Message)
    assert_type(client.messages.create(model="m", max_tokens=1, messages=[QUESTION], stream=False), Message)
    assert_type(client.messages.create(model="m", max_tokens=1, messages=[QUESTION], stream=True), BlockingEventStream)
    assert_type(client.messages.count_tokens(model="m", messages=[QUESTION]), TokenCount)
    parsed = client.messages.parse(model="m", max_tokens=1, messages=[QUESTION], output_format=Tea)
    assert_type(parsed, ParsedMessage[Tea])
    assert_type(client.beta.messages.create(model="m", max_tokens=1, messages=[QUESTION], betas=["b"]), Message)
    client.messages.create(model="m", max_tokens=1, messages=[QUESTION], temperature=0.5, timeouts=Timeouts())
    client.messages.create(model="m", max_tokens=1, messages=[QUESTION], tempreature=1)  # wrong
    client.messages.create(model="m", messages=[QUESTION])  # wrong
    client.messages.create(model="m", max_tokens="1", messages=[QUESTION])  # wrong
    client.messages.stream(model="m", max_tokens=1, messages=[QUESTION], tempreature=1)  # wrong
    client.messages.count_tokens(model="m", messages=[QUESTION], top_k=1)  # wrong
    client.messages.tool_runner(model="m", messages=[QUESTION])  # wrong
    client.mesages  # wrong
    client.aclose()  # wrong


def streams(client: Client) -> None:
    with client.messages.stream(model="m", max_tokens=1, messages=[QUESTION]) as stream:
        assert_type(stream, BlockingMessageStream)
        assert_type(stream.text_stream, Iterator[str])
        for text in stream.text_stream:
            assert_type(text, str)
        for event in stream:
            print(event.type)
        assert_type(stream.ending, Ending | None)
        stream.get_final_message().text.upper()
        stream.get_final_text().upper()
        async_only = stream.__aenter__()  # wrong
    with client.messages.create(model="m", max_tokens=1, messages=[QUESTION], stream=True) as events:
        for raw in events:
            assert_type(raw, StreamEvent)


async def waits(client: Client, other: AsyncClient) -> None:
    await client.messages.create(model="m", max_tokens=1, messages=[QUESTION])  # wrong
    await other.messages.create(model="m", max_tokens=1, messages=[QUESTION])
    async with client.messages.stream(model="m", max_tokens=1, messages=[QUESTION]):  # wrong
        pass


def pages(client: Client) -> None:
    page = client.models.list(limit=10)
    assert_type(page, Page)
    assert_type(page.get_next_page(), Page)
    for model in page:
        assert_type(model, ModelInfo)
    assert_type(client.models.retrieve("m"), ModelInfo)
    client.models.list(limt=10)  # wrong


def tools(client: Client) -> None:
    runner = client.messages.tool_runner(model="m", max_tokens=1, messages=[QUESTION], tools=[])
    assert_type(runner, BlockingToolRunner[Message])
    for message in runner:
        assert_type(message, Message)
    streaming = client.messages.tool_runner(stream=True, model="m", max_tokens=1, messages=[QUESTION], tools=[])
    for stream in streaming:
        assert_type(stream, BlockingMessageStream)
    assert_type(runner.current_stream, BlockingMessageStream | None)
    assert_type(runner.stopped_by, str | None)
    assert_type(runner.usage, TotalUsage)


def conversations(client: Client) -> None:
    conversation = client.conversation(model="m", max_tokens=1)
    assert_type(conversation, BlockingConversation)
    assert_type(conversation.ask("hi"), Message)
    with conversation.stream("hi") as reply:
        assert_type(reply, BlockingReply)
        assert_type(reply.stream, BlockingMessageStream)


class Mine(Client):
    def ask(self) -> str:
        return self.messages.create(model="m", max_tokens=1, messages=[QUESTION]).text


def clients() -> None:
    assert_type(Client(api_key="k", retry_policy=RetryPolicy()).with_options(max_retries=1), Client)
    assert_type(Client(api_key="k").copy(max_retries=1), Client)
    assert_type(Client(api_key="k").is_closed(), bool)
    assert_type(Mine().with_options(timeout=3).ask(), str)
    with Mine() as mine:
        assert_type(mine, Mine)
    Anthropic(max_retries=1).messages.create(model="m", max_tokens=1, messages=[QUESTION])
    Client(retries=1)  # wrong
    Client().with_options(max_retry=1)  # wrong
""".lstrip()


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_type_checker_finds_what_is_wrong_and_nothing_else(checker: str, tmp_path: Path) -> None:
    assert find_wrong(checker, PROGRAM, tmp_path) == marked(PROGRAM)
