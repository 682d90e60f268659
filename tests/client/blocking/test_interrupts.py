"""rawsse.client.blocking: `KeyboardInterrupt` before every line of rawsse that a call executes. Where a process waits when
Ctrl-C comes is tried in `tests/interop/test_blocking.py`.

The plain suite tries of each function the first line and every eighth after it; RAWSSE_EVERY_CUT=1, as in CI, tries each line.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from support.answers import ASK, KEY, answer, plain
from support.asking import calling
from support.sampling import one_in
from support.streams import ANSWER
from support.upstream import places

import rawsse
from rawsse.client.blocking import BlockingMessageStream, Client
from rawsse.client.network.pool import PoolLimits
from rawsse.client.retry import RetryPolicy
from rawsse.client.tools.tool import tool
from rawsse.errors import APIError
from rawsse.replay.fakes import FakeStream, fake_links

ROOT = str(Path(rawsse.__file__).parent)

# What Python calls when an object is freed: an exception in there is reported, and raised nowhere.
FINALIZERS = {"__del__", "_forget"}

pytestmark = [
    # Between the moment when a coroutine is made and the moment when it is begun, it can only be dropped.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    # Between the moment when a stream is open and the moment when the caller has it, it can only be dropped.
    pytest.mark.filterwarnings("ignore:.* was dropped, neither read:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

Line = tuple[CodeType, int]
"""A line of a function."""


class Interrupting:
    """Runs a story, and raises `KeyboardInterrupt` when it comes to the line `at` for the first time, or calls `act` there, as
    Python calls the handler of a signal; else `lines` are those that were executed. Neither counts lines that free an object.
    What comes after the stroke is not traced: it takes half the time.
    """

    def __init__(self, at: Line | None = None, act: Callable[[], object] | None = None) -> None:
        self.lines: list[Line] = []
        self.was_there = False
        self._at = at
        self._act = act

    def run(self, story: Callable[[], object]) -> None:
        before = sys.gettrace()
        gc.disable()  # else finalizers run, and are interrupted, at another line each time
        sys.settrace(self._enter)
        try:
            story()
        finally:
            sys.settrace(before)
            gc.enable()

    def _enter(self, frame: FrameType, event: str, _: object) -> Any:
        if self._at is None:
            return self._note if frame.f_code.co_filename.startswith(ROOT) else None
        return self._strike if frame.f_code is self._at[0] else None  # no other function is traced line by line

    def _note(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line" and not is_in_finalizer(frame):
            self.lines.append((frame.f_code, frame.f_lineno))
        return self._note

    def _strike(self, frame: FrameType, event: str, _: object) -> Any:
        is_there = event == "line" and (frame.f_code, frame.f_lineno) == self._at
        if is_there and not self.was_there and not is_in_finalizer(frame):
            self.was_there = True
            sys.settrace(None)
            if self._act is None:
                raise KeyboardInterrupt
            self._act()
        return self._strike


def is_in_finalizer(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in FINALIZERS:
            return True
        frame = frame.f_back
    return False


_TRIED: set[Line] = set()
"""By all stories: each line is tried when it is executed for the first time."""


def new_lines(lines: list[Line], tried: set[Line]) -> list[Line]:
    """Those that are to be tried."""
    by_function: dict[CodeType, list[Line]] = {}
    for line in dict.fromkeys(lines):
        if line not in tried:
            by_function.setdefault(line[0], []).append(line)
    tried.update(lines)
    return [line for new in by_function.values() for line in new[:: one_in(8)]]


# --- Stories -------------------------------------------------------------------------------------------------------

BUSY = plain(b'{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}', "529 Busy")
TOOLS = answer(calling(("meet", '{"who": 0}'), ("meet", '{"who": 1}')))


@tool
def meet(who: int) -> int:
    return who


def read(client: Client) -> None:
    with client.messages.stream(**ASK) as stream:
        assert "".join(stream.text_stream) == "Hello ☺"


def create(client: Client) -> None:
    assert client.messages.create(**ASK).text == "Hello ☺"


def events(client: Client) -> None:
    assert len(list(client.messages.create(**ASK, stream=True))) == len(ANSWER)


def loop(client: Client) -> None:
    with client.messages.tool_runner(**ASK, tools=[meet]) as runner:
        assert runner.until_done().text == "Hello ☺"


def converse(client: Client) -> None:
    conversation = client.conversation(model="m", max_tokens=9)
    assert conversation.ask("hi").text == "Hello ☺"


def count(client: Client) -> None:
    assert client.messages.count_tokens(model="m", messages=[]).input_tokens == 11


STORIES: list[tuple[Callable[[Client], None], list[bytes]]] = [
    (read, [answer(ANSWER)]),
    (create, [BUSY, answer(ANSWER)]),
    (events, [answer(ANSWER)]),
    (loop, [TOOLS, answer(ANSWER)]),
    (converse, [answer(ANSWER)]),
    (count, [plain(b'{"input_tokens": 11}')]),
]


class Net:
    """Connections whose peer gives these answers, one for each request, and after them a whole message."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = [*answers]

    async def __call__(self, *_: object) -> FakeStream:
        return Peer(self)


class Peer(FakeStream):
    def __init__(self, net: Net) -> None:
        super().__init__(end=None)
        self._net = net

    async def write(self, data: bytes, deadline: float) -> None:
        await super().write(data, deadline)
        self._chunks.append(self._net.answers.pop(0) if self._net.answers else answer(ANSWER))


def client_of(net: Net) -> Client:
    policy = RetryPolicy(max_retries=1, first_delay=0)
    limits = PoolLimits(max_connections=1)
    return Client(
        api_key=KEY, base_url="http://api.example", connect=fake_links(net), retry_policy=policy, limits=limits
    )


@pytest.mark.parametrize(("story", "answers"), STORIES, ids=lambda value: getattr(value, "__name__", ""))
def test_an_interrupt_before_any_line_is_raised_and_loses_no_place(
    story: Callable[[Client], None], answers: list[bytes]
) -> None:
    story(client_of(Net(answers)))  # what is loaded at the first time
    client = client_of(Net(answers))
    probe = Interrupting()
    probe.run(lambda: story(client))
    lines = new_lines(probe.lines, _TRIED)
    assert lines
    for line in lines:
        client = client_of(net := Net(answers))
        assert is_interrupted(story, client, line), line
        if places(client) != (0, 0):
            gc.collect()
        assert places(client) == (0, 0), line
        net.answers.clear()
        assert client.messages.create(**ASK).text == "Hello ☺", line


def is_interrupted(story: Callable[[Client], None], client: Client, line: Line) -> bool:
    try:
        Interrupting(line).run(lambda: story(client))
    except KeyboardInterrupt:
        return True
    return False


def read_into(seen: list[Any], stream: BlockingMessageStream) -> None:
    for event in stream:
        seen.append(event)  # noqa: PERF402 - what came before an interrupt is kept


def test_an_interrupt_before_any_line_of_a_read_ends_the_stream_or_loses_no_event() -> None:
    answers, whole = [answer(ANSWER)], list[Any]()
    with client_of(Net(answers)).messages.stream(**ASK) as undisturbed:
        (probe := Interrupting()).run(lambda: read_into(whole, undisturbed))
    fates = Counter[str]()
    for line in new_lines(probe.lines, set()):
        client, seen = client_of(Net(answers)), list[Any]()
        with client.messages.stream(**ASK) as stream:
            with pytest.raises(KeyboardInterrupt):
                Interrupting(line).run(lambda: read_into(seen, stream))  # noqa: B023 - called here
            # The block has not been left: nothing but the read itself can have ended the stream.
            if stream.ending is None:
                read_into(seen, stream)
                assert [event.type for event in seen] == [event.type for event in whole], line
            assert stream.ending is not None, line
            fates[stream.ending.kind] += 1
            assert places(client) == (0, 0) or stream.ending.kind == "complete", line
    assert {"complete", "cancelled"} <= set(fates)


def read_all(stream: BlockingMessageStream) -> str:
    with stream:
        return stream.get_final_text()


def test_a_signal_handler_may_close_the_stream_before_any_line() -> None:
    answers = [BUSY, answer(ANSWER)]
    undisturbed = client_of(Net(answers)).messages.stream(**ASK)
    (probe := Interrupting()).run(lambda: read_all(undisturbed))
    fates = Counter[str]()
    for line in new_lines(probe.lines, set()):
        client = client_of(Net(answers))
        stream = client.messages.stream(**ASK)
        texts: list[str] = []
        with contextlib.suppress(APIError):  # its own, if an attempt had failed already
            (at := Interrupting(line, stream.close)).run(lambda: texts.append(read_all(stream)))  # noqa: B023 - called here
        assert at.was_there, line
        assert stream.ending is not None, line
        assert texts == (["Hello ☺"] if stream.ending.kind == "complete" else []), line
        assert places(client) == (0, 0), line
        fates[stream.ending.kind] += 1
    assert {"complete", "cancelled"} <= set(fates)
