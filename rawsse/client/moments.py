"""What is sent, and when things happened: the data of a call.

This file knows a request that is ready to go, and the moments of its answer. It refuses to know how either comes about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["RequestData", "Timing"]


@dataclass(frozen=True, slots=True)
class RequestData:
    """A request, ready to send. `host_field` is the value of `Host`."""

    method: str
    target: str
    host_field: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)  # they hold the key
    body: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class Timing:
    """When things happened, in seconds since the call began; None for what has not. After a retry: those of the last attempt.

    `longest_gap` is the longest wait for bytes of the answer. `is_reused`: the connection had carried an answer before.
    """

    connected: float | None = None
    head: float | None = None
    first_event: float | None = None
    first_content: float | None = None
    last_ping: float | None = None
    longest_gap: float = 0.0
    ended: float | None = None
    is_reused: bool = False
    _clock: Callable[[], float] | None = field(default=None, repr=False, compare=False)
    _started: float = field(default=0.0, repr=False, compare=False)

    def start(self) -> None:
        """The call begins now."""
        self._clock = asyncio.get_running_loop().time
        self._started = self._clock()

    def forget_attempt(self) -> None:
        """Another attempt begins: what happened in the last one says nothing of it."""
        self.connected = self.head = self.first_event = self.first_content = self.last_ping = self.ended = None
        self.longest_gap = 0.0
        self.is_reused = False

    @property
    def has_started(self) -> bool:
        """The call has begun."""
        return self._clock is not None

    def elapsed(self) -> float:
        """Seconds since the call began; 0 before."""
        return self._clock() - self._started if self._clock else 0.0

    @property
    def last_ping_age(self) -> float | None:
        """Seconds since the last ping, or from it to the end; None if there was none. Pings tell thinking from dead."""
        if self.last_ping is None:
            return None
        return (self.elapsed() if self.ended is None else self.ended) - self.last_ping
