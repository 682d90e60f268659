"""Which recording answers a request: by what is asked, by name, in sequence, or first come, first served.

This file knows the ways to choose, and what is said when there is nothing to be chosen (`Miss`). It refuses to know how a
recording becomes an answer.

    found = matcher(recordings, "request").find(RecordedRequest("POST", "/v1/messages", {}, body))
    if isinstance(found, Miss):
        print(found.message)    # no recording matches this request. Nearest of 2: tools.sse.jsonl (3 of 5 parts are equal). It
                                # differs at messages[0].content[0].text: recorded "…", asked "…"

    turns       first come, first served: they take turns, for ever, whatever is asked
    sequence    each once, in their order, whatever is asked; then a miss
    request     the one whose request asks the same (`canonical.py`); else a miss
    name        the one that the client names: `x-rawsse-recording: NAME`, `?recording=NAME`, or a base URL that ends in /NAME;
                else a miss. A name is a file's, with or without its ending, as much of the path as it takes
    a function  of the body: the one for whose request it gives the same; else a miss

Where several recordings are equal, they are played in their order, and the last of them from then on: a recorded refusal, for
example, and then the answer. Those that are streams go to who asks for a stream, the others to the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol, TypeAlias, get_args
from urllib.parse import parse_qs

from rawsse.errors import ConfigurationError, quote
from rawsse.replay.matching.canonical import canonical, without_secrets
from rawsse.replay.matching.difference import Difference, differences, equal_parts, nearest
from rawsse.replay.matching.reply import is_event_stream
from rawsse.replay.matching.threads import whole_requests
from rawsse.replay.recording import RecordedRequest, Recording

MAX_SHOWN_DIFFERENCES = 5
"""How many differences a `Miss` words. More than that, and it is another request altogether."""

MAX_SHOWN_NAMES = 10
"""How many recordings a `Miss` lists when none has the name that is asked for."""

RECORDING_HEADER = "x-rawsse-recording"
RECORDING_PARAMETER = "recording"

MatchMode: TypeAlias = Literal["turns", "sequence", "request", "name"]
Match: TypeAlias = MatchMode | Callable[[Any], Any]
"""How to choose. A function takes a request's body; what it gives must be JSON, or at least have a telling `repr`."""

_ENDINGS = (".sse.jsonl", ".sse", ".jsonl")


@dataclass(frozen=True, slots=True)
class Miss:
    """A request that no recording answers. `str` of each of the `differences` says where the nearest one differs."""

    request: RecordedRequest
    reason: str
    nearest: Recording | None = None
    differences: tuple[Difference, ...] = ()

    @property
    def message(self) -> str:
        """All of it in one sentence or two, within bounds, and without credentials."""
        if not self.differences:
            return self.reason
        shown = "; ".join(map(str, self.differences[:MAX_SHOWN_DIFFERENCES]))
        rest = len(self.differences) - MAX_SHOWN_DIFFERENCES
        return f"{self.reason}. It differs at {shown}{f'; and {rest} more' if rest > 0 else ''}"


class Matcher(Protocol):
    """One way to choose."""

    def find(self, request: RecordedRequest) -> Recording | Miss:
        """The recording that answers `request`. Raises `RecursionError` for JSON nested too deeply."""
        ...


def matcher(recordings: Sequence[Recording], match: Match = "turns") -> Matcher:
    """The way of that name. Raises `ConfigurationError`."""
    if callable(match):
        return _ByRequest(recordings, match)
    if match == "request":
        return _ByRequest(recordings, _asked)
    makers: Mapping[str, Callable[[Sequence[Recording]], Matcher]] = {
        "turns": _Turns,
        "sequence": _Sequence,
        "name": _ByName,
    }
    if match not in makers:
        raise ConfigurationError(f"match must be a function, or one of {', '.join(get_args(MatchMode))}")
    return makers[match](recordings)


class _Turns:
    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._recordings = recordings
        self._count = 0

    def find(self, request: RecordedRequest) -> Recording | Miss:
        if not self._recordings:
            return Miss(request, "there is no recording of an answer to this kind of request")
        self._count += 1
        return self._recordings[(self._count - 1) % len(self._recordings)]


class _Sequence:
    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._recordings = recordings
        self._count = 0

    def find(self, request: RecordedRequest) -> Recording | Miss:
        self._count += 1
        if self._count <= len(self._recordings):
            return self._recordings[self._count - 1]
        played = _count(len(self._recordings), "recording")
        return Miss(request, f"this is request {self._count} of a sequence of {played}: all have been played")


class _Groups:
    """Recordings that are equal in some respect. Each group is played in order, and the last one from then on."""

    def __init__(self) -> None:
        self._members: dict[Hashable, list[Recording]] = {}
        self._taken: dict[Hashable, int] = {}

    def add(self, key: Hashable, recording: Recording) -> None:
        self._members.setdefault(key, []).append(recording)

    def take(self, key: Hashable, request: RecordedRequest) -> Recording | None:
        if key not in self._members:
            return None
        as_stream = _asks_for_stream(request)
        members = self._members[key]
        fitting = [member for member in members if _fits(member, as_stream)] or members
        taken = self._taken.get((key, as_stream), 0)
        self._taken[key, as_stream] = taken + 1
        return fitting[min(taken, len(fitting) - 1)]


def _asks_for_stream(request: RecordedRequest) -> bool:
    return isinstance(request.body, dict) and request.body.get("stream") is True


def _fits(recording: Recording, as_stream: bool) -> bool:
    """An error is one for everybody. A message is JSON for who asks for that."""
    return recording.status != 200 or is_event_stream(recording) == as_stream


# --- By what is asked --------------------------------------------------------------------------------------------------


def _asked(body: Any) -> Any:
    return canonical(without_secrets(body))


def asked_key(body: Any) -> str:
    """A text that is the same for all bodies that ask the same. Raises `RecursionError` for JSON nested too deeply."""
    return _key(_asked(body))


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


class _ByRequest:
    def __init__(self, recordings: Sequence[Recording], key: Callable[[Any], Any]) -> None:
        self._recordings = recordings
        self._of = key
        self._groups = _Groups()
        self._keys: list[str] = []
        for recording, body in zip(recordings, whole_requests(recordings), strict=True):
            if recording.request is None:
                raise ConfigurationError(
                    f"{recording.name} does not say what was asked: it can be matched by no request"
                )
            self._keys.append(_key(key(body)))
            self._groups.add(self._keys[-1], recording)

    def find(self, request: RecordedRequest) -> Recording | Miss:
        key = _key(self._of(request.body))
        return self._groups.take(key, request) or self._miss(request, json.loads(key))

    def _miss(self, request: RecordedRequest, asked: Any) -> Miss:
        if not self._recordings:
            return Miss(request, "there is no recording of an answer to this kind of request")
        candidates = [json.loads(key) for key in self._keys]
        index = nearest(candidates, asked)
        equal, total = equal_parts(candidates[index], asked)
        name = self._recordings[index].name
        reason = f"no recording matches this request. Nearest of {len(candidates)}: {name} ({equal} of {total} parts are equal)"
        return Miss(request, reason, self._recordings[index], tuple(differences(candidates[index], asked)))


# --- By name -----------------------------------------------------------------------------------------------------------


class _ByName:
    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._groups = _Groups()
        self._names: dict[str, None] = {}
        for recording in recordings:
            *folders, name = _bare(recording.name).split("/")
            self._names[name] = None
            for start in range(len(folders) + 1):
                self._groups.add("/".join([*folders[start:], name]), recording)

    def find(self, request: RecordedRequest) -> Recording | Miss:
        asked = _asked_names(request)
        for name in asked:
            if (found := self._groups.take(name, request)) is not None:
                return found
        wrong = (
            f"no recording has the name {quote(asked[0])}"
            if asked
            else f"the request names no recording ({_HOW_TO_NAME})"
        )
        return Miss(request, f"{wrong}. There are: {_listed(self._names)}")


_HOW_TO_NAME = f"by the header {RECORDING_HEADER}, by ?{RECORDING_PARAMETER}=, or at the end of the base URL"


def _asked_names(request: RecordedRequest) -> list[str]:
    """What the request may mean, the likeliest first. A base URL may have more before the name."""
    path, _, query = request.path.partition("?")
    given = request.headers.get(RECORDING_HEADER) or parse_qs(query).get(RECORDING_PARAMETER, [""])[0]
    if given:
        return [_bare(given)]
    prefix = _bare(path.rpartition("/v1/")[0])
    segments = prefix.split("/") if prefix else []
    return [_bare("/".join(segments[start:])) for start in range(len(segments))]


def _bare(name: str) -> str:
    """A name as it is compared: without ending, with the slashes of URLs."""
    name = name.replace("\\", "/").strip("/")
    return next((name.removesuffix(ending) for ending in _ENDINGS if name.endswith(ending)), name)


def _listed(names: Mapping[str, None]) -> str:
    shown = ", ".join(islice(names, MAX_SHOWN_NAMES))
    rest = len(names) - MAX_SHOWN_NAMES
    return f"{shown}, and {rest} more" if rest > 0 else shown


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
