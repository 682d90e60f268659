"""Choose the recording that answers a request: in turns, in sequence, by the request, or by name.

    find = finder(recordings, "request")
    found = find(RecordedRequest("POST", "/v1/messages", {}, body))
    if isinstance(found, Miss):
        print(found.message)    # no recording matches this request. Nearest of 2: tools.sse.jsonl. It differs at
                                # messages[0].content[0].text: recorded "…", asked "…"

    turns       they take turns, for ever, whatever the request
    sequence    each once, in their order, whatever the request; then a miss
    request     the one that was recorded for an equal request; else a miss
    name        the one that the base URL names at its end (`http://HOST/plain`): a file's name without its suffix; else a miss
    a function  of the body: the one for whose request it returns the same; else a miss

Where several recordings fit, they are played in their order, and the last of them from then on: a recorded refusal, for
example, and then the answer. Streams go to requests that ask for a stream, the others to the others.

Two requests are equal if their canonical forms are. Made equal:

    content, system     a string is one `text` block
    turns               consecutive turns of the same role are one, as the API merges them
    ids of tool calls   made up by the model, and by some clients: they are numbered as they appear
    null, defaults      nulls are left out; so are `is_error: false`, a tool's `type: "custom"`, `caller: direct` and `[]` of
                        citations
    numbers             1.0 is 1
    secrets             hidden in the request as `scrub` hides them in a recording

Left out: `stream`, and everything about who asks, who pays, where it is computed and what is cached (`IGNORED_FIELDS`,
`cache_control` at every level, the id of a container). Left unchanged: the order of `tools`, `messages` and blocks, the model,
and everything inside a tool's `input` and `input_schema`, whose nulls and names are the caller's.
"""

from __future__ import annotations

import difflib
import json
import os.path
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
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
"""Fields of a request's body that do not change what is asked."""

MAX_SHOWN_DIFFERENCES = 5
"""How many differences the message of a `Miss` has. With more, it is another request altogether."""

MAX_SHOWN_CHARS = 80
"""How much of each of two values a `Difference` shows: a line of a terminal."""

MAX_PATH_CHARS = 120
"""How much of a path, or of a list of names, is shown: names in a schema may have any length."""

MatchMode: TypeAlias = Literal["turns", "sequence", "request", "name"]
Match: TypeAlias = MatchMode | Callable[[Any], Any]
"""How to choose. A function takes a request's body, and returns JSON, or a value whose `repr` tells it from others."""

# At every level.
_NEVER_ASKED = frozenset({"authorization_token", "cache_control"})
# Their values are JSON of the caller, not of the API.
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
        """The miss in one or two sentences, bounded, and without credentials."""
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


def _by_name(recordings: Sequence[Recording]) -> Find:
    names = [re.sub(r"(\.sse|\.jsonl)+$", "", os.path.basename(recording.name)) for recording in recordings]

    def name_of(request: RecordedRequest) -> str:
        return request.path.partition("?")[0].rpartition("/v1/")[0].rpartition("/")[2]

    def miss(request: RecordedRequest) -> Miss:
        asked, known = name_of(request), _cut(", ".join(dict.fromkeys(names)), 0, MAX_PATH_CHARS)
        wrong = f"no recording has the name {quote(asked)}" if asked else "the base URL names no recording at its end"
        return Miss(request, f"{wrong}. There are: {known}")

    return _by_key(recordings, names, name_of, miss)


def _by_request(recordings: Sequence[Recording], key_of: Callable[[Any], Any]) -> Find:
    keys: list[str] = []
    for recording in recordings:
        if recording.request is None:
            raise ConfigurationError(f"{recording.name} has no request, and cannot be matched by one")
        keys.append(_key(key_of(recording.request.body)))

    def miss(request: RecordedRequest) -> Miss:
        if not recordings:
            return Miss(request, _NO_RECORDING)
        asked = json.loads(_key(key_of(request.body)))
        index, different = nearest([json.loads(key) for key in keys], asked)
        which = f"Nearest of {len(keys)}: {recordings[index].name}"
        return Miss(request, f"no recording matches this request. {which}", recordings[index], different)

    return _by_key(recordings, keys, lambda request: _key(key_of(request.body)), miss)


def _by_key(
    recordings: Sequence[Recording],
    keys: Sequence[Hashable],
    key_of: Callable[[RecordedRequest], Hashable],
    miss: Callable[[RecordedRequest], Miss],
) -> Find:
    """Each recording has a key. Those with the key of a request are played in order, and the last one from then on."""
    members: dict[Hashable, list[Recording]] = {}
    for key, recording in zip(keys, recordings, strict=True):
        members.setdefault(key, []).append(recording)
    taken = Counter[tuple[Hashable, bool]]()

    def find(request: RecordedRequest) -> Recording | Miss:
        key = key_of(request)
        if key not in members:
            return miss(request)
        is_stream = isinstance(request.body, dict) and request.body.get("stream") is True
        # An error fits every request.
        fitting = [one for one in members[key] if one.status != 200 or one.is_stream == is_stream] or members[key]
        taken[key, is_stream] += 1
        return fitting[min(taken[key, is_stream], len(fitting)) - 1]

    return find


# --- The canonical form of a request ---------------------------------------------------------------------------------


def asked_key(body: Any) -> str:
    """A text that is the same for all equal requests. Raises `RecursionError` for JSON nested too deeply."""
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
    # The id of a container comes with an answer, as those of calls do; a string is such an id.
    container = asked.get("container")
    if container is not None:
        asked["container"] = container | {"id": None} if isinstance(container, dict) else None
    written: dict[str, Any] = _canonical(asked, {})
    if isinstance(messages := written.get("messages"), list):
        written["messages"] = _merged(messages)
    return written


def _canonical(value: Any, calls: dict[str, str]) -> Any:
    """`calls` numbers the calls seen so far."""
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
    """Consecutive turns of the same role as one. Turns with further fields stay apart: those are about that turn."""
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
    """The same JSON, with 1 for 1.0: clients write either, and JSON has one kind of number."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# --- How two requests differ -----------------------------------------------------------------------------------------


def nearest(candidates: Sequence[Any], asked: Any) -> tuple[int, tuple[Difference, ...]]:
    """The index of the candidate with the fewest differences, and those; of several, the one whose values are most alike."""
    found = [tuple(differences(candidate, asked)) for candidate in candidates]
    best = min(range(len(found)), key=lambda index: (len(found[index]), -_likeness(found[index])))
    return best, found[best]


def _likeness(different: Sequence[Difference]) -> float:
    shown = different[:MAX_SHOWN_DIFFERENCES]
    one, other = "".join(each.recorded or "" for each in shown), "".join(each.asked or "" for each in shown)
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


def differences(recorded: Any, asked: Any, path: str = "") -> Iterator[Difference]:
    """Every place at which two JSON values differ, the outermost where one side has nothing. In the order of `recorded`."""
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for name in {**recorded, **asked}:
            inner = f"{path}.{name}" if path else name
            yield from differences(recorded.get(name, _NOTHING), asked.get(name, _NOTHING), inner)
        return
    if isinstance(recorded, list) and isinstance(asked, list):
        for index, (left, right) in enumerate(zip_longest(recorded, asked, fillvalue=_NOTHING)):
            yield from differences(left, right, f"{path}[{index}]")
        return
    one, other = (None if value is _NOTHING else _to_json(value) for value in (recorded, asked))
    if one != other:  # as JSON: to Python, `True == 1`
        pairs = enumerate(zip_longest(one or "", other or ""))
        start = max(0, next(at for at, (left, right) in pairs if left != right) - _BEFORE)
        yield Difference(_cut(path, 0, MAX_PATH_CHARS), _shown(one, start), _shown(other, start))


def _shown(text: str | None, start: int) -> str | None:
    return None if text is None else _cut(text, start if len(text) > MAX_SHOWN_CHARS else 0, MAX_SHOWN_CHARS)


def _cut(text: str, start: int, limit: int) -> str:
    end = start + limit
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
