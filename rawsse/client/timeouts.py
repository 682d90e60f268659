"""The five clocks of a call, as numbers of seconds. The clocks themselves run in `exchange.py`, which is pure.

Timeouts(connect=5.0, silence=30.0, total=None)
Timeouts.of(20)                     # one number, as the official SDK's `timeout`
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

from rawsse.errors import ConfigurationError

ABOVE_ZERO = math.ulp(0.0)
"""The smallest number above 0, as a bound for `check_number`."""


def check_number(value: Any, rule: str, *, least: float = 0, most: float = math.inf, kind: type[float] = float) -> None:
    """Raises `ConfigurationError` with the words of `rule`, unless `value` is a number of this kind within the bounds."""
    if not isinstance(value, int | kind) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigurationError(f"{rule}, not {value!r}")


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
        """The clocks for a caller with one number: the server may not be silent for longer. As with the official SDK's
        `timeout`, an answer that keeps coming may take as long as it likes; `content` and `total` stay as they are.

        `seconds` may also be what that SDK takes beside a number: an object with `connect` and `read`, as `httpx.Timeout`; or
        None, which turns all clocks off.
        """
        if seconds is None:
            return cls(connect=None, head=None, silence=None, content=None, total=None)
        if hasattr(seconds, "connect") and hasattr(seconds, "read"):
            return cls(connect=seconds.connect, head=seconds.read, silence=seconds.read)
        check_number(seconds, "timeout must be a number of seconds above 0", least=ABOVE_ZERO)
        return cls(connect=min(seconds, cls().connect or seconds), head=seconds, silence=seconds)

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if (value := getattr(self, name)) is not None:
                check_number(value, f"timeouts: {name} must be a number of seconds above 0, or None", least=ABOVE_ZERO)


class NotGiven:
    """The official SDK's word for an argument that is left out; there, and here for `timeout`, None says something else."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN = NotGiven()
