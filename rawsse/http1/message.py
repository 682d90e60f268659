"""What HTTP messages are made of: heads, pieces of bodies, and their ends.

This file knows what a reader of HTTP hands on (RFC 9110, sections 5 and 6). It refuses to know how that looks on the wire.

    headers = Headers([("Content-Type", "text/event-stream"), ("Vary", "Origin"), ("Vary", "Accept")])
    headers["content-type"], headers["vary"], headers.get_all("vary")      # "text/event-stream", "Origin, Accept", [...]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

__all__ = ["ConnectionClosed", "Data", "EndOfMessage", "Headers", "Request", "Response"]


class Headers(Mapping[str, str]):
    """The header fields of one message: a mapping without regard to case, in the order received.

    A name that came more than once reads as one value joined with `, ` (RFC 9110, 5.2); `get_all` keeps them apart, and
    `raw` is the list of (lower-case name, value) pairs.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: Iterable[tuple[str, str]] = ()) -> None:
        self.raw = [(name.lower(), value) for name, value in raw]

    def get_all(self, name: str) -> list[str]:
        """Every value that came under `name`, in order."""
        wanted = name.lower()
        return [value for key, value in self.raw if key == wanted]

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self.raw))

    def __len__(self) -> int:
        return len({name for name, _ in self.raw})

    def __repr__(self) -> str:
        # Names only: values hold keys and cookies, and a repr ends up in logs.
        return f"Headers({', '.join(self)})"


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head. `target` is as it came, `http_version` is "1.0" or "1.1"."""

    method: str
    target: str
    headers: Headers
    http_version: str


@dataclass(frozen=True, slots=True)
class Response:
    """A response's head. Interim responses (1xx) are skipped before it."""

    status: int
    reason: str
    headers: Headers
    http_version: str

    @property
    def status_code(self) -> int:
        """The same as `status`: the official SDK's name."""
        return self.status


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of the body, cut wherever the network cut it."""

    data: bytes


@dataclass(frozen=True, slots=True)
class EndOfMessage:
    """The body is whole."""


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The peer closed the connection between two messages."""
