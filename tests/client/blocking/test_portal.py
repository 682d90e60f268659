"""rawsse.client.blocking.portal: an event loop in a thread, calls into it, and how they end. What takes a process of its own
(Ctrl-C, fork, the interpreter's end) is tried in `tests/interop/test_blocking.py`."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from support.background import PATIENCE
from support.clock import run, ticks

from rawsse.client.blocking.portal import Portal, PortalClosedError, _Job
from rawsse.errors import StreamCancelledError

needs_signals = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads on this system")


async def nothing() -> None:
    """What a portal has to finish."""


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal(nothing)
    yield portal
    portal.close()


async def answer() -> int:
    return 42


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


# --- Calls ---------------------------------------------------------------------------------------------------------


def test_a_call_runs_in_the_portal_s_thread_and_gives_its_result(portal: Portal) -> None:
    async def where() -> int:
        return threading.get_ident()

    assert portal.call(where) == portal._thread.ident != threading.get_ident()


def test_many_threads_may_call_at_once(portal: Portal) -> None:
    meeting = asyncio.Event()
    present: list[int] = []
    heard: list[int] = []

    async def meet(number: int) -> int:
        present.append(number)
        if len(present) == 5:
            meeting.set()
        await meeting.wait()
        return number

    def attend(number: int) -> None:
        heard.append(portal.call(lambda: meet(number)))

    threads = [threading.Thread(target=attend, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(heard) == [0, 1, 2, 3, 4]


def test_a_call_sees_the_context_of_its_caller(portal: Portal) -> None:
    color = contextvars.ContextVar("color", default="none")

    async def look() -> str:
        return color.get()

    color.set("red")
    assert portal.call(look) == "red"


def test_an_error_has_the_frames_of_both_sides_and_its_cause(portal: Portal) -> None:
    async def fails_in_the_loop() -> None:
        raise ValueError("no") from KeyError("why")

    def calls_from_outside() -> None:
        portal.call(fails_in_the_loop)

    with pytest.raises(ValueError, match="no") as caught:
        calls_from_outside()
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names.index("calls_from_outside") < names.index("fails_in_the_loop")
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_is_freed_with_its_last_reference(portal: Portal) -> None:
    class Heavy(Exception):  # noqa: N818
        freed = False

        def __del__(self) -> None:
            Heavy.freed = True

    async def fail() -> None:
        raise Heavy

    gc.disable()  # no cycle may be needed to find it
    try:
        with pytest.raises(Heavy) as caught:
            portal.call(fail)
        del caught
    finally:
        gc.enable()
    assert Heavy.freed


def test_what_fails_to_be_made_fails_the_call(portal: Portal) -> None:
    def make() -> Any:
        raise ValueError("cannot be made")

    with pytest.raises(ValueError, match="cannot be made"):
        portal.call(make)


def test_a_call_from_the_loop_itself_is_refused(portal: Portal) -> None:
    async def calls_itself() -> None:
        portal.call(nothing)

    with pytest.raises(RuntimeError, match="would wait for itself: use AsyncClient there"):
        portal.call(calls_itself)


def test_a_task_that_exits_does_not_end_the_thread(portal: Portal) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def start_and_wait() -> None:
        await asyncio.get_running_loop().create_task(leave())

    with pytest.raises(SystemExit):
        portal.call(start_and_wait)
    assert portal.call(answer) == 42


def test_a_loop_that_cannot_be_made_is_told_to_whoever_wanted_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptor_is_free() -> asyncio.AbstractEventLoop:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio, "new_event_loop", no_descriptor_is_free)
    with pytest.raises(OSError, match="Too many open files"):
        Portal(nothing)


# --- Ending --------------------------------------------------------------------------------------------------------


def test_a_closed_portal_has_no_thread_and_takes_no_call() -> None:
    portal = Portal(nothing)
    portal.close()
    portal.close()
    assert not portal._thread.is_alive()
    assert portal._loop.is_closed()
    with pytest.raises(PortalClosedError, match="the client is closed"):
        portal.call(nothing)


def test_closing_ends_the_call_that_another_thread_waits_for() -> None:
    portal = Portal(nothing)
    waits, errors = threading.Event(), []

    async def wait() -> None:
        waits.set()
        await forever()

    def call() -> None:
        try:
            portal.call(wait)
        except StreamCancelledError as exc:
            errors.append(exc)

    thread = threading.Thread(target=call)
    thread.start()
    assert waits.wait(PATIENCE)
    portal.close()
    thread.join(PATIENCE)
    assert [error.message for error in errors] == ["the client was closed while it was waited for"]


def test_at_the_end_what_is_to_be_finished_comes_before_what_is_cancelled() -> None:
    told: list[str] = []

    async def finish() -> None:
        told.append("finish")

    async def work() -> None:
        try:
            await forever()
        finally:
            told.append("cancelled")

    async def begin() -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work())
        await asyncio.sleep(0)
        return task

    portal = Portal(finish)
    task = portal.call(begin)
    portal.close()
    assert told == ["finish", "cancelled"]
    assert task.cancelled()


def test_a_portal_may_be_closed_in_its_own_loop() -> None:
    portal = Portal(nothing)

    async def close_and_wait() -> None:
        portal.close()
        await forever()

    with pytest.raises(StreamCancelledError):
        portal.call(close_and_wait)
    portal._thread.join(PATIENCE)
    assert not portal._thread.is_alive()


def test_a_portal_that_nobody_refers_to_ends_its_thread() -> None:
    portal = Portal(nothing)
    thread, loop = portal._thread, portal._loop
    del portal
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert loop.is_closed()


# --- Interrupts ----------------------------------------------------------------------------------------------------


class Rang(Exception):  # noqa: N818 - what a signal's handler raises
    """The signal came."""


@pytest.fixture
def bell() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Rang

    before = signal.signal(signal.SIGUSR1, ring)
    yield
    signal.signal(signal.SIGUSR1, before)


def ring() -> None:
    """Interrupt the main thread."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


@needs_signals
@pytest.mark.usefixtures("bell")
def test_an_interrupt_ends_the_wait_once_the_call_is_cancelled(portal: Portal) -> None:
    told: list[str] = []

    async def ring_and_wait() -> None:
        ring()
        try:
            await forever()
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    with pytest.raises(Rang):
        portal.call(ring_and_wait)
    assert told == ["cancelled"]
    assert portal.call(answer) == 42


@needs_signals
@pytest.mark.usefixtures("bell")
def test_a_second_interrupt_does_not_wait_for_a_call_that_resists(portal: Portal) -> None:
    let_go = asyncio.Event()

    async def resist() -> None:
        ring()
        try:
            await forever()
        except asyncio.CancelledError:
            ring()
            await let_go.wait()

    async def release() -> None:
        let_go.set()

    with pytest.raises(Rang):
        portal.call(resist)
    portal.call(release)
    portal.close()
    assert not portal._thread.is_alive()


@needs_signals
@pytest.mark.usefixtures("bell")
def test_an_interrupt_that_comes_with_the_result_still_comes_through(portal: Portal) -> None:
    async def ring_and_return() -> int:
        ring()
        return 1

    with pytest.raises(Rang):
        portal.call(ring_and_return)


def test_a_job_that_was_never_begun_is_over_when_it_is_cancelled() -> None:
    async def story() -> None:
        job = _Job(asyncio.get_running_loop(), nothing)
        job.cancel()
        await ticks(2)
        job.wait()

    run(story())


def test_a_job_that_is_cancelled_in_the_tick_of_its_beginning_is_over_too() -> None:
    async def story() -> None:
        job = _Job(asyncio.get_running_loop(), forever)
        job.start()
        job.cancel()
        await ticks(3)
        job.wait()
        with pytest.raises(StreamCancelledError):
            job.result()

    run(story())
