"""How a stream ended: one object, the same in the client, in the relay's log, and in the browser.

This file knows the six endings. It refuses to know how any of them is noticed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from rawsse.errors import (
    APIError,
    APIStatusError,
    APITimeoutError,
    LimitExceededError,
    Phase,
    ProtocolError,
    StreamCancelledError,
)

__all__ = ["Ending", "EndingKind", "ending_kind"]

EndingKind: TypeAlias = Literal["complete", "truncated", "error", "timeout", "cancelled", "limit"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a stream ended: the same object in the client, in the relay's log, and (as `to_dict`) in the browser.

    `tail_missing`: the ending is `complete`, but `message_stop` never came; the stop reason had.
    """

    kind: EndingKind
    text: str
    phase: Phase
    stop_reason: str | None = None
    error_type: str | None = None
    request_id: str | None = None
    bytes_received: int = 0
    tail_missing: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def ending_kind(error: APIError) -> EndingKind:
    """Which ending a stream has that ended with this error."""
    match error:
        case LimitExceededError():
            return "limit"
        case APITimeoutError():
            return "timeout"
        case StreamCancelledError():
            return "cancelled"
        case APIStatusError() | ProtocolError():
            return "error"
    return "truncated"
