"""Which recording answers a request: in turns, in sequence, by what is asked, or by name.

    find = finder(recordings, "request")
    found = find(RecordedRequest("POST", "/v1/messages", {}, body))
    if isinstance(found, Miss):
        print(found.message)    # no recording matches this request. Nearest of 2: tools.sse.jsonl (3 of 5 parts are equal). It
                                # differs at messages[0].content[0].text: recorded "…", asked "…"

    turns       first come, first served: they take turns, for ever, whatever is asked
    sequence    each once, in their order, whatever is asked; then a miss
    request     the one whose request asks the same; else a miss
    name        the one that the base URL names at its end (`http://HOST/plain`): a file's name without its ending; else a miss
    a function  of the body: the one for whose request it gives the same; else a miss

Where several recordings are equal, they are played in their order, and the last of them from then on: a recorded refusal, for
example, and then the answer. Streams go to requests that ask for a stream, the others to the others.

Two requests ask the same if their canonical forms are equal. What is made equal:

    content, system     a text is one `text` block
    turns               consecutive ones of the same role are one, as the API merges them
    ids of tool calls   the model makes them up, and some clients make up their own: they are numbered as they appear
    null, defaults      what is null is left out; so is `is_error: false`, a tool's `type: "custom"`, `caller: direct`, `[]` of
                        citations
    numbers             1.0 is 1
    secrets             what `scrub` hides in a recording is hidden in what is asked, too

What is left out: `stream`, and all that says who asks, who pays, where it is computed and what is cached (`IGNORED_FIELDS`,
`cache_control` wherever it stands, the id of a container). Not touched are the order of `tools`, `messages` and blocks, the
model, and everything inside a tool's `input` and `input_schema`, whose nulls and names are the caller's own.
"""

from __future__ import annotations

import difflib
import json
import os.path
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, TypeAlias, get_args

from rawsse.errors import ConfigurationError, quote
from rawsse.replay.recording import RecordedRequest, Recording
from rawsse.replay.scrub import scrub

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
"""Fields of a request's body that say how an answer comes, and not to what."""

MAX_SHOWN_DIFFERENCES = 5
"""How many differences a `Miss` words. More than that, and it is another request altogether."""

MAX_SHOWN_NAMES = 10
"""How many recordings a `Miss` lists when none has the name that is asked for."""

MAX_SHOWN_CHARS = 80
"""How much of each of two values a `Difference` shows: a line of a terminal."""

MAX_PATH_CHARS = 120
"""How much of a path: names in a schema may be of any length."""

MAX_COMPARED_WORDS = 200
"""Of each part, when two candidates have equally many parts that differ. Comparing words takes quadratic time."""

MatchMode: TypeAlias = Literal["turns", "sequence", "request", "name"]
Match: TypeAlias = MatchMode | Callable[[Any], Any]
"""How to choose. A function takes a request's body; what it gives must be JSON, or at least have a telling `repr`."""

# Wherever these stand.
_NEVER_ASKED = frozenset({"authorization_token", "cache_control"})
# Their values belong to the caller: JSON of the caller's own, not of the API.
_OPAQUE = frozenset({"input", "input_schema", "input_examples", "schema"})
# Names for a call that the model has made up. A `tool_id` is the one of a `caller`.
_CALL_IDS = frozenset({"tool_use_id", "tool_id"})
_DEFAULTS: Mapping[str, Any] = {"caller": {"type": "direct"}, "citations": [], "is_error": False}
_BEFORE = 20  # how many characters are shown before the first that differs
_NOTHING = object()
_NO_RECORDING = "there is no recording of an answer to this kind of request"


@dataclass(frozen=True, slots=True)
class Difference:
    """One place. `recorded` and `asked` are JSON, cut around the first character that differs; None if nothing stands there."""

    path: str
    recorded: str | None
    asked: str | None

    def __str__(self) -> str:
        recorded = "not recorded" if self.recorded is None else f"recorded {self.recorded}"
        asked = "not asked" if self.asked is None else f"asked {self.asked}"
        return f"{self.path or 'the whole'}: {recorded}, {asked}"


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


Find: TypeAlias = Callable[[RecordedRequest], Recording | Miss]
"""The recording that answers a request. Raises `RecursionError` for JSON nested too deeply."""


def finder(recordings: Sequence[Recording], match: Match = "turns") -> Find:
    """The function that chooses among `recordings`. Raises `ConfigurationError`."""
    if callable(match):
        return _by_request(recordings, match)
    if match == "request":
        return _by_request(recordings, _asked)
    if match == "name":
        return _by_name(recordings)
    if match not in get_args(MatchMode):
        raise ConfigurationError(f"match must be a function, or one of {', '.join(get_args(MatchMode))}")
    return _one_after_the_other(recordings, is_once=match == "sequence")


def _one_after_the_other(recordings: Sequence[Recording], *, is_once: bool) -> Find:
    taken = 0

    def find(request: RecordedRequest) -> Recording | Miss:
        nonlocal taken
        taken += 1
        if is_once and taken > len(recordings):
            played = f"{len(recordings)} recording{'' if len(recordings) == 1 else 's'}"
            return Miss(request, f"this is request {taken} of a sequence of {played}: all have been played")
        return recordings[(taken - 1) % len(recordings)] if recordings else Miss(request, _NO_RECORDING)

    return find


class _Groups:
    """Recordings that are equal in some respect. Each group is played in order, and the last one from then on."""

    def __init__(self, keys: Iterable[Hashable], recordings: Sequence[Recording]) -> None:
        self._members: dict[Hashable, list[Recording]] = {}
        self._taken: dict[Hashable, int] = {}
        for key, recording in zip(keys, recordings, strict=True):
            self._members.setdefault(key, []).append(recording)

    def take(self, key: Hashable, request: RecordedRequest) -> Recording | None:
        members = self._members.get(key)
        if members is None:
            return None
        is_stream = isinstance(request.body, dict) and request.body.get("stream") is True
        # An error is one for every request.
        fitting = [each for each in members if each.status != 200 or each.is_stream == is_stream] or members
        taken = self._taken.get((key, is_stream), 0)
        self._taken[key, is_stream] = taken + 1
        return fitting[min(taken, len(fitting) - 1)]


def _by_name(recordings: Sequence[Recording]) -> Find:
    names = [re.sub(r"(\.sse|\.jsonl)+$", "", os.path.basename(recording.name)) for recording in recordings]
    groups, listed = _Groups(names, recordings), list(dict.fromkeys(names))
    rest = len(listed) - MAX_SHOWN_NAMES
    known = ", ".join(listed[:MAX_SHOWN_NAMES]) + (f", and {rest} more" if rest > 0 else "")

    def find(request: RecordedRequest) -> Recording | Miss:
        asked = request.path.partition("?")[0].rpartition("/v1/")[0].rpartition("/")[2]
        if (found := groups.take(asked, request)) is not None:
            return found
        wrong = f"no recording has the name {quote(asked)}" if asked else "the base URL names no recording at its end"
        return Miss(request, f"{wrong}. There are: {known}")

    return find


def _by_request(recordings: Sequence[Recording], key_of: Callable[[Any], Any]) -> Find:
    keys: list[str] = []
    for recording in recordings:
        if recording.request is None:
            raise ConfigurationError(
                f"{recording.name} does not say what was asked, and cannot be matched by a request"
            )
        keys.append(_key(key_of(recording.request.body)))
    groups = _Groups(keys, recordings)

    def find(request: RecordedRequest) -> Recording | Miss:
        key = _key(key_of(request.body))
        if (found := groups.take(key, request)) is not None:
            return found
        if not recordings:
            return Miss(request, _NO_RECORDING)
        candidates, asked = [json.loads(each) for each in keys], json.loads(key)
        index = nearest(candidates, asked)
        equal, total = equal_parts(candidates[index], asked)
        which = f"Nearest of {len(keys)}: {recordings[index].name} ({equal} of {total} parts are equal)"
        different = tuple(differences(candidates[index], asked))
        return Miss(request, f"no recording matches this request. {which}", recordings[index], different)

    return find


# --- What is asked ---------------------------------------------------------------------------------------------------


def asked_key(body: Any) -> str:
    """A text that is the same for all bodies that ask the same. Raises `RecursionError` for JSON nested too deeply."""
    return _key(_asked(body))


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def _asked(body: Any) -> Any:
    """The canonical form, with everything hidden that `scrub` hides in recordings."""
    request = scrub(Recording(RecordedRequest("POST", "/", {}, body))).request
    return canonical(request and request.body)


def canonical(body: Any) -> Any:
    """The body's canonical form. Raises `RecursionError` for JSON nested too deeply."""
    if not isinstance(body, dict):
        return _plain(body)
    asked = {name: value for name, value in body.items() if name not in IGNORED_FIELDS}
    # The id of a container comes with an answer, as those of calls do; a text is nothing but that id.
    container = asked.get("container")
    if container is not None:
        asked["container"] = container | {"id": None} if isinstance(container, dict) else None
    written: dict[str, Any] = _canonical(asked, {})
    if isinstance(messages := written.get("messages"), list):
        written["messages"] = _merged(messages)
    return written


def _canonical(value: Any, calls: dict[str, str]) -> Any:
    """`calls` has the calls that have been seen, each with its number."""
    if isinstance(value, list):
        return [_canonical(item, calls) for item in value]
    if not isinstance(value, dict):
        return _plain(value)
    written = {}
    for name, item in value.items():
        if item is None or name in _NEVER_ASKED or (name in _DEFAULTS and item == _DEFAULTS[name]):
            continue
        if name == "type" and item == "custom" and "input_schema" in value:
            continue
        is_call_id = name in _CALL_IDS or (name == "id" and str(value.get("type")).endswith("tool_use"))
        if name in _OPAQUE:
            written[name] = _plain(item)
        elif isinstance(item, str) and is_call_id:
            written[name] = calls.setdefault(item, f"call {len(calls) + 1}")
        elif isinstance(item, str) and name in ("content", "system"):
            # "content: a string is shorthand for one text block."
            written[name] = [{"type": "text", "text": item}]
        else:
            written[name] = _canonical(item, calls)
    return written


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


# --- How two requests differ -----------------------------------------------------------------------------------------


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
        one, other = (None if value is _NOTHING else _to_json(value) for value in (recorded, asked))
        pairs = enumerate(zip_longest(one or "", other or ""))
        start = max(0, next((at for at, (left, right) in pairs if left != right), 0) - _BEFORE)
        yield Difference(_cut(path, 0, MAX_PATH_CHARS), _shown(one, start), _shown(other, start))


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal. To Python `True == 1`; to JSON it is not. Beside `_NOTHING` nothing is."""
    if left is _NOTHING or right is _NOTHING:
        return left is right
    return left == right and _to_json(left) == _to_json(right)


def nearest(candidates: Sequence[Any], asked: Any) -> int:
    """The index of the candidate with the fewest unequal parts; of several, the one whose words are most like those asked."""
    unequal = [total - equal for equal, total in (equal_parts(candidate, asked) for candidate in candidates)]
    best = [index for index, count in enumerate(unequal) if count == min(unequal)]
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
        is_list = name in ("messages", "tools") and isinstance(item, list)
        parts |= {f"{name}[{index}]": entry for index, entry in enumerate(item)} if is_list else {name: item}
    return parts


def _likeness(candidate: Any, asked: Any) -> float:
    left, right = _parts(candidate), _parts(asked)
    unequal = [name for name in left if name in right and not same(left[name], right[name])]
    words = [re.findall(r"\w+", _to_json([parts[name] for name in unequal])) for parts in (left, right)]
    one, other = (found[:MAX_COMPARED_WORDS] for found in words)
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


def _shown(text: str | None, start: int) -> str | None:
    return None if text is None else _cut(text, start if len(text) > MAX_SHOWN_CHARS else 0, MAX_SHOWN_CHARS)


def _cut(text: str, start: int, limit: int) -> str:
    end = start + limit
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
