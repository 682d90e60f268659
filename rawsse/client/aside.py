"""Functions that block, in threads that nobody waits for: lookups of names, and tools that are plain functions.

This file knows threads, and that nobody can stop one. It refuses to know what runs in them.

    result = await asyncio.get_running_loop().run_in_executor(Aside("lookup"), function)

asyncio's own threads are few (`min(32, CPUs + 4)`), all of the program's, and waited for when it ends: a function that hangs in
one of them holds up the others, `asyncio.run`, and the interpreter's exit. Here each call has a daemon thread of its own: who
stops waiting for it is free at once. There is no bound on their number but that of the calls; when the program ends, what still
runs is cut off, wherever it is.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, TypeVar

__all__ = ["Aside"]

T = TypeVar("T")


class Aside(Executor):
    """Runs each function in a daemon thread of its own, in a copy of the caller's context. `name` is that of the threads."""

    def __init__(self, name: str) -> None:
        self.name = name

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Begin. Raises `RuntimeError` where the system gives no thread: too many, or the interpreter ends."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # from here on nobody can cancel it, only stop waiting for it
        call = partial(contextvars.copy_context().run, fn, *args, **kwargs)
        threading.Thread(target=_settle, args=(future, call), name=self.name, daemon=True).start()
        return future


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    try:
        result = call()
    except BaseException as exc:
        future.set_exception(exc)
        del future  # which the error's traceback would hold, and it the error
    else:
        future.set_result(result)
