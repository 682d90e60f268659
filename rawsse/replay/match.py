"""Requests in a canonical form: two bodies that ask the same of the model are equal in it.


    for difference in differences({"model": "a", "n": [1]}, {"model": "b"}):
        print(difference)       # model: recorded "a", asked "b"
                                # n: recorded [1], not asked
    nearest([first, second], asked)     # the index of the one with the fewest unequal parts


Which recording answers a request: by what is asked, by name, in sequence, or first come, first served.


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

import difflib
import json
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, Literal, Protocol, TypeAlias, get_args
from urllib.parse import parse_qs

from rawsse.errors import ConfigurationError, quote
from rawsse.replay.recording import RecordedRequest, Recording, is_event_stream
from rawsse.replay.scrub import scrub

# --- matching/canonical


IGNORED_FIELDS = (
    "betas",
    "billing_policy",
    "cache_control",
    "diagnostics",
    "fallback_credit_token",
    "inference_geo",
    "metadata",
    "service_tier",
    "stream",
    "thread",
)
"""Fields of a request's body that say how an answer comes, and not to what. What a thread holds is to be filled in before."""

# Wherever these stand.
_NEVER_ASKED = frozenset({"authorization_token", "cache_control"})
# Their values belong to the caller: JSON of the caller's own, not of the API.
_OPAQUE = frozenset({"input", "input_schema", "input_examples", "schema"})
# Names for a call that the model has made up. A `tool_id` is the one of a `caller`.
_CALL_IDS = frozenset({"tool_use_id", "tool_id"})
_DEFAULTS: Mapping[str, Any] = {"caller": {"type": "direct"}, "citations": [], "is_error": False}


def canonical(body: Any) -> Any:
    """The body's canonical form; what is no JSON object is taken as it is. Raises `RecursionError` for JSON nested too deeply.

    Secrets are not looked for here; see `without_secrets`.
    """
    if not isinstance(body, dict):
        return _plain(body)
    asked = {name: value for name, value in body.items() if name not in IGNORED_FIELDS}
    return _Writer().request(asked)


def without_secrets(body: Any) -> Any:
    """The body with everything hidden that `scrub` hides in recordings. Raises `RecursionError`."""
    request = scrub(Recording(RecordedRequest("POST", "/", {}, body))).request
    return request and request.body


class _Writer:
    """Writes one body. It remembers which calls it has seen."""

    def __init__(self) -> None:
        self._calls: dict[str, str] = {}

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        # The id of a container comes with an answer, as those of calls do; a text is nothing but that id.
        container = body.get("container")
        if isinstance(container, str):
            body = body | {"container": None}
        elif isinstance(container, dict):
            body = body | {"container": container | {"id": None}}
        written = self._object(body)
        if isinstance(messages := written.get("messages"), list):
            written["messages"] = _merged(messages)
        return written

    def _value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._object(value)
        return [self._value(item) for item in value] if isinstance(value, list) else _plain(value)

    def _object(self, value: dict[str, Any]) -> dict[str, Any]:
        is_call = str(value.get("type")).endswith("tool_use")
        written = {}
        for name, item in value.items():
            if item is None or name in _NEVER_ASKED or (name in _DEFAULTS and item == _DEFAULTS[name]):
                continue
            if name == "type" and item == "custom" and "input_schema" in value:
                continue
            written[name] = self._field(name, item, is_call)
        return written

    def _field(self, name: str, value: Any, is_call: bool) -> Any:
        if name in _OPAQUE:
            return _plain(value)
        if isinstance(value, str):
            if name in _CALL_IDS or (is_call and name == "id"):
                return self._calls.setdefault(value, f"call {len(self._calls) + 1}")
            if name in {"content", "system"}:
                # "content: a string is shorthand for one text block."
                return [{"type": "text", "text": value}]
        return self._value(value)


def _merged(messages: list[Any]) -> list[Any]:
    """Consecutive turns of the same role as one. Only whole turns of role and content: what else is said is about that turn."""
    merged: list[Any] = []
    for message in messages:
        if merged and _is_plain_turn(message) and _is_plain_turn(merged[-1]) and merged[-1]["role"] == message["role"]:
            merged[-1] = merged[-1] | {"content": merged[-1]["content"] + message["content"]}
        else:
            merged.append(message)
    return merged


def _is_plain_turn(message: Any) -> bool:
    return isinstance(message, dict) and message.keys() == {"role", "content"} and isinstance(message["content"], list)


def _plain(value: Any) -> Any:
    """The same JSON. Some clients write 1.0 where others write 1; JSON knows one kind of number."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# --- matching/difference


MAX_SHOWN_CHARS = 80
"""How much of each of two values a `Difference` shows: a line of a terminal."""

MAX_PATH_CHARS = 120
"""How much of a path: names in somebody's schema may be of any length."""

MAX_COMPARED_WORDS = 200
"""Of each part, when two candidates have equally many parts that differ. Comparing words takes quadratic time."""

_BEFORE = 20  # how many characters are shown before the first that differs
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """One place. `recorded` and `asked` are JSON, cut around the first character that differs; None if nothing stands there."""

    path: str
    recorded: str | None
    asked: str | None

    def __str__(self) -> str:
        place = self.path or "the whole"
        if self.asked is None:
            return f"{place}: recorded {self.recorded}, not asked"
        return (
            f"{place}: {'not recorded' if self.recorded is None else f'recorded {self.recorded}'}, asked {self.asked}"
        )


def differences(recorded: Any, asked: Any, path: str = "") -> Iterator[Difference]:
    """Every place at which two JSON values differ, the outermost where one side has nothing. In the order of `recorded`."""
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for name in {**recorded, **asked}:
            inner = f"{path}.{name}" if path else name
            yield from differences(recorded.get(name, _NOTHING), asked.get(name, _NOTHING), inner)
    elif isinstance(recorded, list) and isinstance(asked, list):
        for index, (left, right) in enumerate(zip_longest(recorded, asked, fillvalue=_NOTHING)):
            yield from differences(left, right, f"{path}[{index}]")
    elif not same(recorded, asked):
        yield _difference(path, recorded, asked)


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal. To Python `True == 1`; to JSON it is not. Beside `_NOTHING` nothing is."""
    if left is _NOTHING or right is _NOTHING:
        return left is right
    return left == right and _to_json(left) == _to_json(right)


def nearest(candidates: Sequence[Any], asked: Any) -> int:
    """The index of the candidate with the fewest unequal parts; of several, the one whose words are most like those asked."""
    unequal = [-(total - equal) for equal, total in (equal_parts(candidate, asked) for candidate in candidates)]
    best = [index for index, score in enumerate(unequal) if score == max(unequal)]
    return best[0] if len(best) == 1 else max(best, key=lambda index: _likeness(candidates[index], asked))


def equal_parts(recorded: Any, asked: Any) -> tuple[int, int]:
    """How many parts are equal, and how many there are. A part is a field; of `messages` and `tools`, each item is one."""
    left, right = _parts(recorded), _parts(asked)
    names = {**left, **right}
    return sum(same(left.get(name, _NOTHING), right.get(name, _NOTHING)) for name in names), len(names)


def _parts(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        return {"": value}
    parts: dict[str, Any] = {}
    for name, item in value.items():
        if name in {"messages", "tools"} and isinstance(item, list):
            parts |= {f"{name}[{index}]": entry for index, entry in enumerate(item)}
        else:
            parts[name] = item
    return parts


def _likeness(candidate: Any, asked: Any) -> float:
    left, right = _parts(candidate), _parts(asked)
    unequal = [name for name in left if name in right and not same(left[name], right[name])]
    words = [re.findall(r"\w+", _to_json([parts[name] for name in unequal])) for parts in (left, right)]
    one, other = (found[:MAX_COMPARED_WORDS] for found in words)
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


# --- Wording -----------------------------------------------------------------------------------------------------------


def _difference(path: str, recorded: Any, asked: Any) -> Difference:
    left = None if recorded is _NOTHING else _to_json(recorded)
    right = None if asked is _NOTHING else _to_json(asked)
    start = max(0, _common(left or "", right or "") - _BEFORE)
    return Difference(_cut(path, 0, MAX_PATH_CHARS), _shown(left, start), _shown(right, start))


def _common(left: str, right: str) -> int:
    """How many characters both begin with."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))


def _shown(text: str | None, start: int) -> str | None:
    return None if text is None else _cut(text, start if len(text) > MAX_SHOWN_CHARS else 0, MAX_SHOWN_CHARS)


def _cut(text: str, start: int, limit: int) -> str:
    end = start + limit
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


# --- matching/match


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
        for recording in recordings:
            if recording.request is None:
                raise ConfigurationError(
                    f"{recording.name} does not say what was asked: it can be matched by no request"
                )
            self._keys.append(_key(key(recording.request.body)))
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
