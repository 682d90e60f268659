"""Waiting, and giving up: the five clocks of a call, and a wait that ends by a deadline or when somebody says so.

This file knows deadlines. It refuses to know what is waited for.

    waiter = Waiter()
    data = await waiter.wait(lambda: stream.read(65536), deadline)      # TimeoutError, Interrupted, or what `read` raises
    waiter.interrupt()                                                  # from any task, any number of times

Every wait for the network goes through one `Waiter`. So a stream that is closed while somebody waits for it wakes that
somebody up, at any phase, even while connecting.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from rawsse.errors import ConfigurationError

__all__ = ["NOT_GIVEN", "Interrupted", "NotGiven", "Timeouts", "Waiter"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The five clocks, in seconds; None turns one off.

    `connect`: DNS, TCP and TLS together. `head`: from the request sent to the response's head; for each 256 KiB of the request
    to be sent; and for a connection to be free, where the pool allows no more. `silence`: no byte at all (a ping is a byte).
    `content`: no event but pings; generous, because thinking takes long. `total`: the whole call.

    Two clocks watch the body because one cannot: a single idle timer either hangs on dead connections or kills answers
    that are thought over. The API pings about every 30 s, so 90 s of silence are three lost pings.
    """

    connect: float | None = 10.0
    head: float | None = 120.0
    silence: float | None = 90.0
    content: float | None = 600.0
    total: float | None = None

    @classmethod
    def of(cls, seconds: Any) -> Self:
        """The clocks for whoever has one number: nothing may be silent for longer. As with the official SDK's `timeout`, an
        answer that keeps coming may take as long as it likes; `content` and `total` stay as they are.

        `seconds` may also be what that SDK takes beside a number: an object with `connect` and `read`, as `httpx.Timeout`; or
        None, which turns all clocks off.
        """
        if seconds is None:
            return cls(connect=None, head=None, silence=None, content=None, total=None)
        if hasattr(seconds, "connect") and hasattr(seconds, "read"):
            return cls(connect=seconds.connect, head=seconds.read, silence=seconds.read)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
            raise ConfigurationError(f"timeout must be a number of seconds above 0, not {seconds!r}")
        return cls(connect=min(seconds, cls().connect or seconds), head=seconds, silence=seconds)

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and value > 0):
                raise ConfigurationError(
                    f"timeouts: {name} must be a number of seconds above 0, or None, not {value!r}"
                )


class NotGiven:
    """The official SDK's word for an argument that is left out; there, and here for `timeout`, None says something else."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN = NotGiven()


class Interrupted(Exception):  # noqa: N818 - a signal between this file and its caller, not a failure
    """`Waiter.interrupt` ended the wait."""


class Waiter:
    """Lets one task wait at a time, until a deadline or until somebody interrupts.

    One timer serves all waits: one that a wait leaves behind is moved on when it fires, if the next wait still goes on then.
    So a wait that ends in time, as nearly all do, costs no timer of its own, as one with `asyncio.timeout` does. `interrupt`
    ends the timer.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None  # that waits
        self._deadline = math.inf  # of the wait under way
        self._timer: asyncio.TimerHandle | None = None  # for `_deadline`, or earlier
        self._is_struck = False  # the wait under way has been ended from outside
        self._is_interrupted = False

    async def wait(self, operation: Callable[[], Awaitable[T]], deadline: float) -> T:
        """The result of `operation()`.

        `deadline` is in the loop's time; `math.inf` for none. Raises `TimeoutError` at the deadline, `Interrupted` after
        `interrupt` (before or during the wait), and what `operation` raises.
        """
        if self._is_interrupted:
            raise Interrupted
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        cancellations = task.cancelling()
        self._task, self._is_struck = task, False
        self._set_deadline(deadline)
        try:
            result = await operation()
        except asyncio.CancelledError:
            # Ours, or somebody else's? As in `asyncio.timeout`: if nobody else asked for it, it goes no further.
            if self._is_struck and task.uncancel() <= cancellations:
                raise (Interrupted if self._is_interrupted else TimeoutError) from None
            raise
        except Exception as exc:
            self._forgive(task)
            if self._is_interrupted:  # what the operation says of an aborted stream is of no interest
                raise Interrupted from None
            if isinstance(exc, TimeoutError) and not self._is_struck:
                # Not our deadline: the operating system gave up (ETIMEDOUT is a TimeoutError too).
                raise ConnectionError(str(exc) or "the connection timed out") from exc
            raise
        finally:
            self._task, self._deadline = None, math.inf
        self._forgive(task)
        if self._is_interrupted:
            raise Interrupted
        return result

    def _forgive(self, task: asyncio.Task[Any]) -> None:
        """The operation made something else of our cancelling."""
        if self._is_struck:
            task.uncancel()

    def move_deadline(self, deadline: float) -> None:
        """Another deadline for the wait that is under way. For whoever is waited for: a new stage begins."""
        if self._task is not None:
            self._set_deadline(deadline)

    def interrupt(self) -> None:
        """End the wait that is under way, and every later one. From any task, any number of times."""
        self._is_interrupted = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._strike()

    def _set_deadline(self, deadline: float) -> None:
        self._deadline = deadline
        if deadline < math.inf and (self._timer is None or self._timer.when() > deadline):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(deadline, self._fire)

    def _fire(self) -> None:
        assert self._timer is not None  # noqa: S101 - whoever cancels it forgets it
        is_over, self._timer = self._timer.when() >= self._deadline, None
        if is_over:
            self._strike()
        elif self._task is not None:
            self._set_deadline(self._deadline)

    def _strike(self) -> None:
        if self._task is None or self._is_struck:
            return
        if self._task is asyncio.current_task():
            # It runs, and may be about to end its wait: what is then cancelled would be whatever it waits for next.
            asyncio.get_running_loop().call_soon(self._strike)
            return
        self._is_struck = True
        self._task.cancel()
