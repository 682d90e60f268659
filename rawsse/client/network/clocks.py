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

__all__ = ["Interrupted", "Timeouts", "Waiter"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The five clocks, in seconds; None turns one off.

    `connect`: DNS, TCP and TLS together. `head`: from the request sent to the response's head (and for each 256 KiB of the
    request to be sent). `silence`: no byte at all (a ping is a byte). `content`: no event but pings; generous, because
    thinking takes long. `total`: the whole call.

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

        `seconds` may also be what that SDK takes beside a number: an object with `connect` and `read`, as `httpx.Timeout`.
        """
        if hasattr(seconds, "connect") and hasattr(seconds, "read"):
            return cls(connect=seconds.connect, head=seconds.read, silence=seconds.read)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
            raise ConfigurationError(f"timeout must be a number of seconds above 0, not {seconds!r}")
        return cls(connect=min(seconds, cls().connect or seconds), head=seconds, silence=seconds)

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(
                    f"timeouts: {name} must be a number of seconds above 0, or None, not {value!r}"
                )


class Interrupted(Exception):  # noqa: N818 - a signal between this file and its caller, not a failure
    """`Waiter.interrupt` ended the wait."""


class Waiter:
    """Lets one task wait at a time, until a deadline or until somebody interrupts."""

    def __init__(self) -> None:
        self._scope: asyncio.Timeout | None = None
        self._is_interrupted = False

    async def wait(self, operation: Callable[[], Awaitable[T]], deadline: float) -> T:
        """The result of `operation()`.

        `deadline` is in the loop's time; `math.inf` for none. Raises `TimeoutError` at the deadline, `Interrupted` after
        `interrupt` (before or during the wait), and what `operation` raises.
        """
        if self._is_interrupted:
            raise Interrupted
        when = None if deadline == math.inf else deadline
        try:
            async with asyncio.timeout_at(when) as self._scope:
                result = await operation()
        except Exception as exc:
            if self._is_interrupted:  # what the operation says of an aborted stream is of no interest
                raise Interrupted from None
            if isinstance(exc, TimeoutError) and self._scope is not None and not self._scope.expired():
                # Not our deadline: the operating system gave up (ETIMEDOUT is a TimeoutError too).
                raise ConnectionError(str(exc) or "the connection timed out") from exc
            raise
        finally:
            self._scope = None
        if self._is_interrupted:
            raise Interrupted
        return result

    def interrupt(self) -> None:
        """End the wait that is under way, and every later one. From any task, any number of times."""
        self._is_interrupted = True
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(-math.inf)
