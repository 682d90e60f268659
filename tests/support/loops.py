"""The event loops on which the client must work: the standard one in virtual time, plain and with eager tasks; and uvloop.

@each_loop
def test_something(on: Loop) -> None:
    assert on(story()) == ...
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

import pytest

from support.clock import run, ticks

__all__ = ["HAS_EAGER_TASKS", "Loop", "each_loop", "with_eager_tasks"]

HAS_EAGER_TASKS = sys.version_info >= (3, 12)

T = TypeVar("T")


class Loop(Protocol):
    """Runs a coroutine, and fails if it leaves a task behind."""

    def __call__(self, main: Coroutine[Any, Any, T]) -> T: ...


def with_eager_tasks(main: Coroutine[Any, Any, T]) -> T:
    """As `run`, where tasks begin as they are created."""

    async def story() -> T:
        asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - 3.12
        return await main

    return run(story())


def _uvloop(main: Coroutine[Any, Any, T]) -> T:
    try:
        uvloop = pytest.importorskip("uvloop", reason="another event loop: the extra `speed`")
    except BaseException:
        main.close()  # it will not be awaited
        raise

    async def story() -> T:
        result = await main
        await ticks(10)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(story())


def _run(main: Coroutine[Any, Any, T]) -> T:
    return run(main)


each_loop = pytest.mark.parametrize(
    "on",
    [
        pytest.param(_run, id="asyncio"),
        *([pytest.param(with_eager_tasks, id="eager tasks")] if HAS_EAGER_TASKS else []),
        pytest.param(_uvloop, id="uvloop", marks=pytest.mark.real),
    ],
)
