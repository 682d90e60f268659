"""The events of HTTP messages: heads, pieces of bodies, and their ends (RFC 9110, 5 and 6).

headers = Headers([("Content-Type", "text/event-stream"), ("Vary", "Origin"), ("Vary", "Accept")])
headers["content-type"], headers["vary"], headers.get_all("vary")      # "text/event-stream", "Origin, Accept", [...]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, overload

T = TypeVar("T")


class Headers(Mapping[str, str]):
    """The header fields of one message: a case-insensitive mapping, in the order received.

    A name that came more than once reads as one value joined with `, ` (RFC 9110, 5.2); `get_all` keeps the values apart,
    and `raw` is the list of (lower-case name, value) pairs, not to be changed.
    """

    __slots__ = ("_values", "raw")

    def __init__(self, raw: Iterable[tuple[str, str]] = ()) -> None:
        self.raw = [(name.lower(), value) for name, value in raw]
        self._values = dict(self.raw)
        if len(self._values) < len(self.raw):  # a name came more than once
            values: dict[str, list[str]] = {}
            for name, value in self.raw:
                values.setdefault(name, []).append(value)
            self._values = {name: ", ".join(found) for name, found in values.items()}

    def get_all(self, name: str) -> list[str]:
        """Every value that came under `name`, in order."""
        wanted = name.lower()
        return [value for key, value in self.raw if key == wanted]

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    @overload
    def get(self, name: str, /) -> str | None: ...

    @overload
    def get(self, name: str, /, default: str | T) -> str | T: ...

    def get(self, name: str, /, default: Any = None) -> Any:
        """The value, or `default`. Not the mixin's `get`, which raises and catches a `KeyError`."""
        return self._values.get(name.lower(), default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        # Names only: values hold keys and cookies, and a repr ends up in logs.
        return f"Headers({', '.join(self)})"


class Request(NamedTuple):
    """A request's head. `target` is in origin-form, or `*`; `http_version` is "1.0" or "1.1"."""

    method: str
    target: str
    headers: Headers
    http_version: str


class Response(NamedTuple):
    """A response's head. Interim responses (1xx) are skipped before it."""

    status: int
    reason: str
    headers: Headers
    http_version: str

    @property
    def status_code(self) -> int:
        """The same as `status`: the official SDK's name."""
        return self.status


class Data(NamedTuple):
    """A piece of the body: all that was received of it since the last one. Its ends mean nothing."""

    data: bytes


# Not empty tuples: two different ones would be equal.
@dataclass(frozen=True)
class EndOfMessage:
    """The body is complete."""


@dataclass(frozen=True)
class ConnectionClosed:
    """The peer closed the connection between two messages."""
