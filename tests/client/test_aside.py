"""rawsse.client.aside: functions in threads of their own, which nobody waits for."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref

import pytest
from support.background import PATIENCE
from support.clock import run, ticks

from rawsse.client.aside import Aside


def test_a_function_runs_in_a_daemon_thread_of_its_own_and_its_result_comes() -> None:
    def look() -> tuple[str, bool]:
        return threading.current_thread().name, threading.current_thread().daemon

    assert Aside("there").submit(look).result(PATIENCE) == ("there", True)


def test_it_gets_its_arguments_and_a_copy_of_the_caller_s_context() -> None:
    user = contextvars.ContextVar("user", default="nobody")

    def greet(word: str, *, mark: str) -> str:
        whom = user.get()
        user.set("changed")
        return f"{word} {whom}{mark}"

    user.set("me")
    assert Aside("there").submit(greet, "hello", mark="!").result(PATIENCE) == "hello me!"
    assert user.get() == "me"


def test_what_it_raises_is_raised_where_the_result_is_waited_for() -> None:
    with pytest.raises(KeyError, match=r"^'no such'$"):
        Aside("there").submit({}.__getitem__, "no such").result(PATIENCE)


def test_more_run_at_once_than_asyncio_has_threads() -> None:
    barrier = threading.Barrier(64, timeout=PATIENCE)

    async def story() -> int:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(Aside("there"), barrier.wait) for _ in range(64)))
        return barrier.n_waiting

    assert run(story()) == 0


def test_who_stops_waiting_is_free_at_once_and_what_comes_later_is_dropped() -> None:
    begun, may_end = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def hang() -> None:
        threads.append(threading.current_thread())
        begun.set()
        may_end.wait(PATIENCE)

    async def story() -> None:
        task = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(Aside("there"), hang))
        begun.wait(PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert threads[0].is_alive()
        may_end.set()
        threads[0].join(PATIENCE)
        await ticks(3)

    run(story())
    assert not threads[0].is_alive()


def test_an_error_is_not_kept_by_its_own_traceback() -> None:
    class FailedError(Exception):
        pass

    def fail() -> None:
        raise FailedError

    future = Aside("there").submit(fail)
    error = weakref.ref(future.exception(PATIENCE) or FailedError())
    for thread in threading.enumerate():
        if thread.name == "there":
            thread.join(PATIENCE)
    gc.disable()
    try:
        del future
        assert error() is None
    finally:
        gc.enable()


def test_where_the_system_gives_no_thread_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(RuntimeError, match=r"^can't start new thread$"):
        Aside("there").submit(int)
