"""Whose turn a fault is: which faults the next request has, and which have had none so far.

This file knows how requests are counted. It refuses to know what a fault does.

    schedule = Schedule(["status=529 x1", "reset@event=3 x1"], recordings)
    schedule.next()                      # (status=529,type=overloaded_error x1,)
    schedule.next()                      # (reset@event=3 x1,)
    schedule.applied(faults)             # they had a place; else schedule.misplace(words)
    schedule.unused                      # those that were never applied

`after=N` counts requests, `xN` those that have the fault. Only one answer can come instead of the recorded one, and where one
does, there is none of the events and bytes that other faults are about: such a fault waits for the next request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TypeAlias

from rawsse.errors import ConfigurationError
from rawsse.replay.breaking.edits import edited, is_replacement, replacement
from rawsse.replay.breaking.faults import Fault
from rawsse.replay.breaking.script import script
from rawsse.replay.matching.answers import Answer, Repertoire
from rawsse.replay.recording import RecordedRequest, Recording

MAX_KEPT_MISPLACED = 100
"""How many of the last faults without a place a `Schedule` remembers: the first one tells most."""

Faults: TypeAlias = Fault | str | Iterable[Fault | str]
"""Faults, or how they are written; or one of them."""


def read_faults(faults: Faults) -> tuple[Fault, ...]:
    """All of them as values. Raises `ConfigurationError`."""
    given = [faults] if isinstance(faults, Fault | str) else faults
    return tuple(Fault.parse(fault) if isinstance(fault, str) else fault for fault in given)


class Schedule:
    """The faults of a server, request by request.

    Raises `ConfigurationError` for one that cannot be read, or has no place in the answer of any of the recordings.
    """

    def __init__(
        self,
        faults: Faults = (),
        recordings: Sequence[Recording] = (),
        *,
        max_kept_misplaced: int = MAX_KEPT_MISPLACED,
    ) -> None:
        self._faults = read_faults(faults)
        if self._faults:
            _require_places(self._faults, recordings)
        self._requests = 0
        self._had = [0] * len(self._faults)  # how many requests had each
        self._applied: set[Fault] = set()
        self._misplaced: list[str] = []
        self._max_kept_misplaced = max_kept_misplaced

    def next(self) -> tuple[Fault, ...]:
        """The faults of the next request."""
        due = [index for index, fault in enumerate(self._faults) if self._is_due(index, fault)]
        chosen = next((index for index in due if is_replacement(self._faults[index])), None)
        if chosen is not None:
            due = [index for index in due if index == chosen or _is_for_any_answer(self._faults[index])]
        self._requests += 1
        for index in due:
            self._had[index] += 1
        return tuple(self._faults[index] for index in due)

    def _is_due(self, index: int, fault: Fault) -> bool:
        is_left = fault.requests is None or self._had[index] < fault.requests
        return is_left and fault.skipped <= self._requests

    # --- What became of them

    def applied(self, faults: Iterable[Fault]) -> None:
        """These were done to an answer."""
        self._applied.update(faults)

    def misplace(self, words: str) -> None:
        """One had no place in an answer, and `words` say so."""
        self._misplaced.append(words)
        del self._misplaced[: -self._max_kept_misplaced]

    @property
    def unused(self) -> list[Fault]:
        """Those that have not been done to any answer so far."""
        return [fault for fault in self._faults if fault not in self._applied]

    @property
    def misplaced(self) -> list[str]:
        """What was said of the last ones that had no place in an answer."""
        return list(self._misplaced)


def _require_places(faults: Sequence[Fault], recordings: Sequence[Recording]) -> None:
    streams, others = ([_answer(recording, is_stream=each) for recording in recordings] for each in (True, False))
    others += filter(None, [replacement(faults)])  # a fault of the head has a place there, too
    for fault in faults:
        of_events = fault.place is not None and fault.place.unit == "event"
        # Alone, or behind the others: those may bring the event that it is about.
        tried = product(streams if of_events else [*streams, *others], ([fault], faults))
        found = [_misplaced(given, answer) for answer, given in tried]
        if recordings and all(found):
            raise ConfigurationError(f"{found[0]}: it can never happen")


def _answer(recording: Recording, *, is_stream: bool) -> Answer:
    body = {"model": "any", "max_tokens": 1, "messages": [], "stream": is_stream}
    return Repertoire([recording]).answer(RecordedRequest("POST", "/v1/messages", {}, body))


def _misplaced(faults: Sequence[Fault], answer: Answer) -> str:
    """The error of these faults in that answer; "" if they have a place."""
    try:
        script(edited(answer, faults), faults)
    except ConfigurationError as exc:
        return str(exc)
    return ""


def _is_for_any_answer(fault: Fault) -> bool:
    """It is not about the events, bytes or chunks of what was recorded."""
    if is_replacement(fault) or fault.kind == "no-last-chunk":
        return False
    return fault.place is None or fault.place.unit == "head"
