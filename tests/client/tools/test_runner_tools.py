"""rawsse.client.tools.runner: the tools of one answer, at the same time, each call once, and none that outlives its
turn; on a client that runs coroutines, and on a blocking one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.asking import Script, calling, check_history, saying
from support.clock import run
from support.command import Command

from rawsse.client.tools.runner import ToolRunner
from rawsse.client.tools.tool import ToolError, tool
from rawsse.errors import ConfigurationError, StreamCancelledError
from rawsse.messages import Message

QUESTION = {"role": "user", "content": "?"}
ASK: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [QUESTION]}
ONE = calling(("meet", '{"who": 0}'))
THREE = calling(("meet", '{"who": 0}'), ("meet", '{"who": 1}'), ("meet", '{"who": 2}'))
PATIENCE = 30


class BlockingScript(Script):
    """`client.messages` of a blocking client, as far as tools go: calls run in the caller's thread."""

    _runs_coroutines = False

    async def _run(self, calls: Sequence[Callable[[], Any]], *options: Any) -> list[Any]:
        return [call() for call in calls]


def runner_of(answer: Any, *tools: Any, kind: type[Script] = Script) -> ToolRunner[Message]:
    return ToolRunner(kind(answer, saying("Done.")), **ASK, tools=tools)


def results_of(answer: Any, *tools: Any, kind: type[Script] = Script) -> list[Any]:
    """The results as they are sent: for each its content, and whether it is an error."""
    runner = runner_of(answer, *tools, kind=kind)
    run(runner.until_done())
    check_history(runner.messages)
    content: list[Any] = runner.messages[2]["content"]
    return [(block["content"], block.get("is_error", False)) for block in content]


# --- At the same time ----------------------------------------------------------------------------------------------


def test_async_functions_run_at_the_same_time_and_their_results_keep_the_order_of_the_calls() -> None:
    present: list[int] = []

    async def story() -> list[Any]:
        is_full = asyncio.Event()

        @tool
        async def meet(who: int) -> str:
            present.append(who)
            if len(present) == 3:
                is_full.set()
            await is_full.wait()
            await asyncio.sleep(3 - who)
            return f"{who} met"

        runner = runner_of(THREE, meet)
        await runner.until_done()
        return [(block["tool_use_id"], block["content"]) for block in runner.messages[2]["content"]]

    assert run(story()) == [("call_0", "0 met"), ("call_1", "1 met"), ("call_2", "2 met")]


def test_plain_functions_run_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=PATIENCE)

    @tool
    def meet(who: int) -> str:
        barrier.wait()
        return f"{who} met"

    assert results_of(THREE, meet) == [("0 met", False), ("1 met", False), ("2 met", False)]


def test_a_plain_function_runs_beside_async_ones_and_beside_an_awaitable_that_another_returned() -> None:
    has_looked, has_later = threading.Event(), threading.Event()

    @tool
    async def look() -> None:
        has_looked.set()

    @tool
    def later() -> Any:
        async def finish() -> str:
            has_later.set()
            return "later"

        return finish()

    @tool
    def wait() -> bool:
        return has_looked.wait(PATIENCE) and has_later.wait(PATIENCE)

    answer = calling(("wait", "{}"), ("look", "{}"), ("later", "{}"))
    assert results_of(answer, look, later, wait) == [("true", False), ("", False), ("later", False)]


def test_the_failure_of_one_tool_leaves_the_others_alone() -> None:
    @tool
    async def meet(who: int) -> str:
        if who == 1:
            raise ValueError("not me")
        await asyncio.sleep(10)
        return "met"

    assert results_of(THREE, meet) == [("met", False), ("ValueError: not me", True), ("met", False)]


def test_errors_of_plain_functions_and_of_what_they_return_reach_the_model() -> None:
    @tool
    def meet(who: int) -> Any:
        if who == 0:
            return next(iter(()))

        async def fail() -> None:
            raise KeyError(who)

        return fail()

    found = results_of(calling(("meet", '{"who": 0}'), ("meet", '{"who": 1}')), meet)
    assert found == [("StopIteration: ", True), ("KeyError: 1", True)]


def test_tools_get_the_context_variables_of_the_caller_and_cannot_change_them() -> None:
    user = contextvars.ContextVar("user", default="none")

    @tool
    def in_thread() -> str:
        assert threading.current_thread() is not threading.main_thread()
        seen = user.get()
        user.set("thread")
        return seen

    @tool
    async def in_task() -> str:
        seen = user.get()
        user.set("task")
        return seen

    async def story() -> list[Any]:
        user.set("me")
        runner = runner_of(calling(("in_thread", "{}"), ("in_task", "{}")), in_thread, in_task)
        await runner.until_done()
        return [*(block["content"] for block in runner.messages[2]["content"]), user.get()]

    assert run(story()) == ["me", "me", "me"]


def test_a_tool_that_changes_its_input_does_not_change_the_message() -> None:
    @tool
    async def meet(people: list[Any]) -> None:
        people.clear()

    runner = runner_of(calling(("meet", '{"people": [1]}')), tool(meet.function, input_schema={"type": "object"}))
    run(runner.until_done())
    assert runner.messages[1]["content"][0]["input"] == {"people": [1]}


def test_a_tool_gets_text_that_can_be_written_where_the_model_wrote_half_a_character() -> None:
    read = results_of(
        calling(("look", r'{"a": "\ud83d\ude00 \ud83d"}')), tool(lambda a: a.encode().decode(), name="look")
    )
    assert read == [("\U0001f600 \ufffd", False)]


# --- Each call once ------------------------------------------------------------------------------------------------


class Counting:
    """A tool that notes its calls, and takes a second."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    async def meet(self, who: int) -> str:
        self.calls.append(who)
        await asyncio.sleep(1)
        return f"{who} met"


def test_no_tool_runs_before_the_body_is_done_with_the_answer() -> None:
    counting = Counting()

    async def story() -> None:
        async for message in runner_of(THREE, counting.meet):
            await asyncio.sleep(5)
            assert counting.calls == ([] if message.stop_reason == "tool_use" else [0, 1, 2])

    run(story())


def test_the_results_can_be_had_in_the_body_and_no_tool_runs_twice() -> None:
    counting = Counting()

    async def story() -> list[Any]:
        runner = runner_of(ONE, counting.meet)
        assert await runner.generate_tool_call_response() is None
        given = [await runner.generate_tool_call_response() async for _ in runner]
        assert runner.messages[2] == given[0]
        return given

    result = {"type": "tool_result", "tool_use_id": "call_0", "content": "0 met"}
    assert run(story()) == [{"role": "user", "content": [result]}, None]
    assert counting.calls == [0]


@pytest.mark.parametrize("reason", ["max_tokens", "refusal", "end_turn"])
def test_the_results_cannot_be_had_of_an_answer_that_did_not_stop_for_its_tools(reason: str) -> None:
    counting = Counting()

    async def story() -> list[Any]:
        runner = runner_of(calling(("meet", '{"who": 0}'), reason=reason), counting.meet)
        return [await runner.generate_tool_call_response() async for _ in runner]

    assert run(story()) == [None]
    assert counting.calls == []


def test_while_the_tools_run_they_cannot_be_started_again() -> None:
    counting = Counting()

    async def story() -> None:
        runner = runner_of(ONE, counting.meet)
        await anext(runner)
        first = asyncio.create_task(runner.generate_tool_call_response())
        await asyncio.sleep(0.5)
        with pytest.raises(RuntimeError, match=r"^the tools of this answer are running already, or were cancelled$"):
            await anext(runner)
        await first
        assert runner.messages == [QUESTION]

    run(story())
    assert counting.calls == [0]


# --- Their end -----------------------------------------------------------------------------------------------------


class Slow:
    """A tool that waits until it is cancelled, and then takes a second to clean up."""

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


@pytest.mark.parametrize("way", ["until_done", "generate_tool_call_response"])
def test_cancelling_the_runner_cancels_its_tools_and_waits_for_their_end(way: str) -> None:
    async def story() -> tuple[list[str], ToolRunner[Message]]:
        slow = Slow()
        runner = runner_of(THREE, slow.meet)
        await anext(runner)
        task = asyncio.create_task(getattr(runner, way)())
        await slow.has_begun.wait()
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return slow.log, runner

    log, runner = run(story())
    assert sorted(log) == ["0 began", "0 ended", "1 began", "1 ended", "2 began", "2 ended"]
    assert runner.messages == [QUESTION]
    assert (runner.usage.output_tokens, runner.usage.exact) == (7, True)  # the answer itself had arrived whole


@pytest.mark.parametrize("way", ["until_done", "generate_tool_call_response"])
def test_closing_the_runner_cancels_its_tools_and_waits_for_their_end(way: str) -> None:
    async def story() -> tuple[list[str], ToolRunner[Message]]:
        slow = Slow()
        runner = runner_of(THREE, slow.meet)
        await anext(runner)
        task = asyncio.create_task(getattr(runner, way)())
        await slow.has_begun.wait()
        await runner.close()
        log = list(slow.log)
        with pytest.raises(StreamCancelledError, match=r"^the runner was closed while its tools ran$") as caught:
            await task
        assert caught.value.ending is not None
        assert caught.value.ending.kind == "cancelled"
        return log, runner

    log, runner = run(story())
    assert sorted(log) == ["0 began", "0 ended", "1 began", "1 ended", "2 began", "2 ended"]
    assert (runner.messages, runner.stopped_by, runner.usage.output_tokens) == ([QUESTION], "closed", 7)


def test_a_tool_may_close_its_runner_which_cancels_the_others() -> None:
    async def story() -> list[int]:
        done: list[int] = []

        @tool
        async def meet(who: int) -> None:
            if who == 1:
                await runner.close()
            await asyncio.sleep(1)
            done.append(who)

        runner = runner_of(THREE, meet)
        with pytest.raises(StreamCancelledError, match=r"^the runner was closed while its tools ran$"):
            await runner.until_done()
        return done

    assert run(story()) == [1]


def test_closing_the_runner_does_not_wait_for_a_plain_function() -> None:
    never = threading.Event()

    async def story() -> None:
        begun, loop = asyncio.Event(), asyncio.get_running_loop()

        def meet(who: int) -> None:
            loop.call_soon_threadsafe(begun.set)
            never.wait(PATIENCE)

        runner = runner_of(ONE, meet)
        task = asyncio.create_task(runner.until_done())
        await begun.wait()
        await runner.close()
        with pytest.raises(StreamCancelledError, match=r"^the runner was closed while its tools ran$"):
            await task
        never.set()

    asyncio.run(story())


async def raise_it() -> None:
    raise asyncio.CancelledError


async def await_a_task_that_something_else_cancels() -> None:
    task = asyncio.create_task(asyncio.sleep(10))
    asyncio.get_running_loop().call_later(1, task.cancel)
    await task


async def await_a_future_that_something_else_cancels() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(1, future.cancel)
    await future


async def cancel_its_own_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


async def gather_what_is_cancelled() -> None:
    await asyncio.gather(raise_it(), asyncio.sleep(1))


@pytest.mark.parametrize(
    "cancel",
    [
        raise_it,
        await_a_task_that_something_else_cancels,
        await_a_future_that_something_else_cancels,
        cancel_its_own_task,
        gather_what_is_cancelled,
    ],
)
def test_a_tool_that_is_cancelled_though_its_caller_is_not_has_failed(cancel: Any) -> None:
    @tool
    async def meet(who: int) -> str:
        if who == 1:
            await cancel()
        await asyncio.sleep(2)
        return "met"

    cancelled = ("CancelledError: something else cancelled it", True)
    assert results_of(THREE, meet) == [("met", False), cancelled, ("met", False)]


def test_an_awaitable_of_a_plain_function_that_something_else_cancels_has_failed() -> None:
    @tool
    def meet(who: int) -> Any:
        return raise_it()

    assert results_of(ONE, meet) == [("CancelledError: something else cancelled it", True)]


@pytest.mark.parametrize("kind", [Script, BlockingScript])
@pytest.mark.parametrize("answer", [ONE, THREE], ids=["one", "three"])
def test_a_plain_function_that_raises_cancelled_error_has_failed(kind: type[Script], answer: Any) -> None:
    @tool
    def meet(who: int) -> None:
        raise asyncio.CancelledError

    assert set(results_of(answer, meet, kind=kind)) == {("CancelledError: ", True)}


class Stopped(asyncio.CancelledError): ...


FAILURES = [
    (Stopped("x"), "Stopped: x"),
    (GeneratorExit("x"), "GeneratorExit: x"),
    (BaseExceptionGroup("x", [Stopped(), ValueError()]), "BaseExceptionGroup: x (2 sub-exceptions)"),
    (BaseExceptionGroup("x", [BaseExceptionGroup("y", [GeneratorExit()])]), "BaseExceptionGroup: x (1 sub-exception)"),
    (concurrent.futures.CancelledError("x"), "CancelledError: x"),
    (StopIteration("x"), "StopIteration: x"),
]


@pytest.mark.parametrize(("error", "text"), FAILURES, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("kind", [Script, BlockingScript])
@pytest.mark.parametrize("answer", [ONE, THREE], ids=["one", "three"])
def test_whatever_a_plain_function_raises_of_its_own_is_its_failure(
    kind: type[Script], answer: Any, error: BaseException, text: str
) -> None:
    @tool
    def meet(who: int) -> None:
        raise error

    assert set(results_of(answer, meet, kind=kind)) == {(text, True)}


@pytest.mark.parametrize(("error", "text"), FAILURES, ids=lambda each: type(each).__name__)
def test_and_whatever_an_async_one_raises(error: BaseException, text: str) -> None:
    @tool
    async def meet(who: int) -> str:
        if who == 1:
            raise error
        await asyncio.sleep(1)
        return "met"

    if isinstance(error, Stopped):
        text = "CancelledError: something else cancelled it"  # asyncio keeps no other class
    elif isinstance(error, StopIteration):
        text = "RuntimeError: coroutine raised StopIteration"
    assert results_of(THREE, meet) == [("met", False), (text, True), ("met", False)]


SECRET = "jane@example.org"


async def raise_later(who: str) -> None:
    await asyncio.sleep(1)
    raise LookupError(who)


def raise_now(who: str) -> None:
    raise LookupError(who)


async def be_cancelled(who: str) -> None:
    await await_a_task_that_something_else_cancels()


@pytest.mark.parametrize(
    ("function", "kind", "name"),
    [
        (raise_later, Script, "LookupError"),
        (raise_now, Script, "LookupError"),
        (raise_now, BlockingScript, "LookupError"),
        (be_cancelled, Script, "CancelledError"),
    ],
)
def test_the_log_says_which_tool_raised_what_and_where_but_not_the_input(
    function: Callable[..., Any], kind: type[Script], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "rawsse.client")
    results_of(calling(("meet", f'{{"who": "{SECRET}"}}')), tool(function, name="meet"), kind=kind)
    warning, trace = caplog.records
    assert (warning.levelname, warning.message) == ("WARNING", f"the tool meet raised {name}")
    assert trace.levelname == "DEBUG"
    assert function is be_cancelled or f"in {function.__name__}\n" in trace.message
    assert SECRET not in caplog.text


@pytest.mark.parametrize("given", ['{"who": 0}', '{"who": "x"}'])
def test_what_is_meant_for_the_model_is_not_logged(given: str, caplog: pytest.LogCaptureFixture) -> None:
    @tool
    def meet(who: int) -> None:
        raise ToolError("nobody is there")

    [(_, is_error)] = results_of(calling(("meet", given)), meet)
    assert is_error
    assert caplog.messages == []


class End(BaseException): ...


@pytest.mark.parametrize("error", [SystemExit(3), End(), BaseExceptionGroup("x", [ValueError(), KeyboardInterrupt()])])
@pytest.mark.parametrize("is_async", [True, False])
def test_what_concerns_the_program_passes_through(error: BaseException, *, is_async: bool) -> None:
    def meet(who: int) -> None:
        raise error

    async def meet_later(who: int) -> None:
        raise error

    runner = runner_of(ONE, tool(meet_later if is_async else meet, name="meet"))
    with pytest.raises(type(error)) as caught:
        asyncio.run(runner.until_done())
    assert caught.value is error
    assert runner.messages == [QUESTION]
    blocking = runner_of(ONE, tool(meet, name="meet"), kind=BlockingScript)
    with pytest.raises(type(error)):
        run(blocking.until_done())


def test_a_caller_that_is_cancelled_is_though_its_tools_make_a_group_of_it() -> None:
    async def story() -> None:
        @tool
        async def meet(who: int) -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError as exc:
                raise BaseExceptionGroup("x", [exc]) from None

        caller = asyncio.create_task(runner_of(THREE, meet).until_done())
        asyncio.get_running_loop().call_later(1, caller.cancel)
        with pytest.raises(asyncio.CancelledError):
            await caller

    run(story())


def test_a_caller_that_is_cancelled_while_a_tool_is_cancelled_too_is_cancelled() -> None:
    async def story() -> None:
        @tool
        async def meet(who: int) -> None:
            asyncio.get_running_loop().call_later(1, caller.cancel)
            await await_a_task_that_something_else_cancels()

        caller = asyncio.create_task(runner_of(ONE, meet).until_done())
        with pytest.raises(asyncio.CancelledError):
            await caller

    run(story())


def interrupt(who: int) -> None:
    raise KeyboardInterrupt


async def interrupt_async(who: int) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("function", [interrupt, interrupt_async])
def test_an_interrupt_in_a_tool_is_not_an_answer_for_the_model(function: Any) -> None:
    runner = runner_of(ONE, tool(function, name="meet"))
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(runner.until_done())
    assert runner.messages == [QUESTION]


def test_a_runner_that_is_closed_while_its_tools_run_fails_and_the_turn_did_not_happen() -> None:
    async def story() -> ToolRunner[Message]:
        runner = runner_of(ONE, Counting().meet)
        task = asyncio.create_task(runner.until_done())
        await asyncio.sleep(0.5)
        await runner.close()
        with pytest.raises(StreamCancelledError, match=r"^the runner was closed while its tools ran$"):
            await task
        return runner

    runner = run(story())
    assert (runner.messages, runner.stopped_by, len(runner.usage.turns)) == ([QUESTION], "closed", 1)


def test_a_plain_function_that_hangs_does_not_keep_the_program_from_ending() -> None:
    program = """
import asyncio, threading
from rawsse import AsyncClient
begun, never = threading.Event(), threading.Event()
def hang():
    begun.set()
    never.wait()
async def main():
    task = asyncio.create_task(AsyncClient(api_key="k").messages._run([hang]))
    while not begun.is_set():
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    print(task.cancelled())
asyncio.run(main())
"""
    with Command(program=("-c", program)) as command:
        assert (command.output(), command.complaint(), command.wait()) == ("True\n", "", 0)


# --- On a blocking client ------------------------------------------------------------------------------------------


@tool
def meet(who: int) -> str:
    return f"{who} met"


@tool(name="meet")
async def meet_async(who: int) -> str:
    return f"{who} met"


def test_plain_functions_run_on_a_blocking_client_without_any_wait() -> None:
    async def story() -> Any:
        runner = runner_of(ONE, meet, kind=BlockingScript)
        await anext(runner)
        with pytest.raises(StopIteration) as done:
            runner.generate_tool_call_response().send(None)
        return done.value.value

    result = {"type": "tool_result", "tool_use_id": "call_0", "content": "0 met"}
    assert run(story()) == {"role": "user", "content": [result]}


ADVICE = "^a blocking client cannot run the async tool 'meet': use a function that is not async, or AsyncClient$"


def test_a_blocking_client_refuses_async_functions_at_once() -> None:
    with pytest.raises(ConfigurationError, match=ADVICE):
        runner_of(ONE, meet_async, kind=BlockingScript)
    runner = runner_of(ONE, meet, kind=BlockingScript)
    with pytest.raises(ConfigurationError, match=ADVICE):
        runner.set_messages_params(lambda params: {**params, "tools": [meet_async]})


class Later:
    def __await__(self) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("make", [meet_async.function, lambda who: Later()], ids=["coroutine", "awaitable"])
def test_an_awaitable_that_a_plain_function_returns_is_an_error_on_a_blocking_client(make: Any) -> None:
    hidden = tool(lambda who: make(who), name="meet")
    text = "TypeError: the tool returned an awaitable, which a blocking client cannot await"
    assert results_of(ONE, hidden, kind=BlockingScript) == [(text, True)]
