"""A Messages API made of recordings: one request in, one recording out, no network.

    api = RecordedAPI([Recording.load("fixtures/plain.sse.jsonl")], match="request")
    answer = api.answer(RecordedRequest("POST", "/v1/messages", {}, {"model": …, "max_tokens": …, "messages": […]}))
    answer.status, answer.headers, answer.reads
    print(api.misses[0].message)    # no recording matches this request. Nearest of 2: tools. It differs at
                                    # messages[0].content[0].text: recorded "…", asked "…"

With `stream` the recording itself is the answer; without it, the message folded from its events. A message that was recorded
without `stream` becomes a stream for a client that requests one. An error has `x-should-retry: false`, unless it was recorded
with another value: a client's retries would shift the turns. An error of a fault (`faults=["status=429,retry-after=1"]`) has
no such field, and a client tries again.

`…/count_tokens` and `…/models` are answered by a recording of the same request if there is one. Otherwise the token count is
that of a recorded answer to the same request, or is estimated from the request's length; the models are those of the
recorded messages. Message threads are rejected; the official SDK then sends the whole history each time.

`match` chooses among several recordings. A request that no recording answers is a miss: a 404 whose error names the
nearest recording and where it differs.

    turns       in turn, over and over, whatever the request
    sequence    each once, in order, whatever the request; then a miss
    request     the one that was recorded for an equal request; else a miss
    name        the one that the base URL names at its end (`http://HOST/plain`): a file's name without its suffix; else a miss
    a function  of the body: the one for whose request it returns the same; else a miss

Where several recordings match, they are played in order, and the last one is repeated: a recorded refusal, for example,
and then the answer. Streams are played only for requests with `stream`, other answers only for requests without it.

Two requests are equal if their canonical forms are. Treated as equal:

    content, system     a string is one `text` block
    turns               consecutive turns of the same role are one, as the API merges them
    ids of tool calls   made up by the model, and by some clients: they are numbered as they appear
    null, defaults      nulls are left out; so are `is_error: false`, a tool's `type: "custom"`, `caller: direct` and `[]` of
                        citations
    numbers             1.0 is 1
    secrets             hidden in the request as `scrub` hides them in a recording

Ignored: `stream`, and every field about identity, billing, location and caching (`IGNORED_FIELDS`, `cache_control` at every
level, the id of a container). Compared exactly: the order of `tools`, `messages` and blocks, the model, and everything inside
a tool's `input` and `input_schema`, whose nulls and names are the caller's.
"""

from __future__ import annotations

import difflib
import json
import logging
import os.path
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import count, zip_longest
from typing import Any, Literal, NamedTuple, TypeAlias, get_args
from urllib.parse import parse_qsl

from rawsse.errors import ConfigurationError, quote, stream_error
from rawsse.messages import Message
from rawsse.messages.content import Usage
from rawsse.replay.compose import error_body, recording_of
from rawsse.replay.recording import Read, RecordedRequest, Recording
from rawsse.replay.scrub import scrub, scrub_line
from rawsse.replay.variants import BYTES_PER_TOKEN, cut_text

MAX_KEPT_MISSES = 100
"""How many of the last misses a `RecordedAPI` keeps: the first is the most telling, and a test usually ends there."""

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
    | {"proxy-authenticate", "proxy-authorization", "proxy-connection"}
)
"""Header fields that concern one connection (RFC 9110, 7.6.1)."""

_NOT_PLAYED = HOP_BY_HOP | {"content-encoding", "content-length", "date", "set-cookie"}
_COUNT = "messages/count_tokens"
# The fields that count as input; `max_tokens` does not.
_COUNTED = ("model", "system", "tools", "tool_choice", "thinking", "messages")
_NOT_FOUND = "there is nothing here: the paths are …/v1/messages, …/v1/messages/count_tokens and …/v1/models"
# Some clients, such as the AI SDK, expect a base URL that ends in /v1; others add the /v1 themselves.
_NO_VERSION = f"{_NOT_FOUND}. This client needs a base URL that ends in /v1"

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
"""Fields of a request's body that do not affect the answer."""

MAX_SHOWN_DIFFERENCES = 5
"""How many differences the message of a `Miss` shows. With more, it is simply another request."""

MAX_SHOWN_CHARS = 80
"""How much of each of two values a `Difference` shows: a line of a terminal."""

MAX_PATH_CHARS = 120
"""How much of a path, or of a list of names, is shown: names in a schema may have any length."""

Answer: TypeAlias = Recording | Message | Mapping[str, Any]
"""A recording, or a message (made by `answer`, or as JSON)."""

MatchMode: TypeAlias = Literal["turns", "sequence", "request", "name"]
Match: TypeAlias = MatchMode | Callable[[Any], Any]
"""How to choose. A function takes a request's body and returns JSON, or a value with a distinctive `repr`."""

# At every level.
_NEVER_ASKED = frozenset({"authorization_token", "cache_control"})
# Their values are JSON of the caller, not of the API.
_OPAQUE = frozenset({"input", "input_schema", "input_examples", "schema"})
# Ids of calls, which the model makes up. `tool_id` is a field of `caller`.
_CALL_IDS = frozenset({"tool_use_id", "tool_id"})
_DEFAULTS: Mapping[str, Any] = {"caller": {"type": "direct"}, "citations": [], "is_error": False}
_BEFORE = 20  # how many characters are shown before the first that differs
_NOTHING = object()
_NO_RECORDING = "there is no recording of an answer to this kind of request"

log = logging.getLogger("rawsse.replay")


class Difference(NamedTuple):
    """One difference. `recorded` and `asked` are JSON, cut around the first character that differs; None where a side has
    no value."""

    path: str
    recorded: str | None
    asked: str | None

    def __str__(self) -> str:
        recorded = "not recorded" if self.recorded is None else f"recorded {self.recorded}"
        asked = "not asked" if self.asked is None else f"asked {self.asked}"
        return f"{self.path or 'the whole'}: {recorded}, {asked}"


class Miss(NamedTuple):
    """A request that no recording answers. `differences` are those from the nearest recording; `str` of one describes
    it."""

    request: RecordedRequest
    reason: str
    nearest: Recording | None = None
    differences: tuple[Difference, ...] = ()

    @property
    def message(self) -> str:
        """The miss in one or two sentences, bounded and without credentials."""
        if not self.differences:
            return self.reason
        shown = "; ".join(map(str, self.differences[:MAX_SHOWN_DIFFERENCES]))
        rest = len(self.differences) - MAX_SHOWN_DIFFERENCES
        return f"{self.reason}. It differs at {shown}{f'; and {rest} more' if rest > 0 else ''}"


class RecordedAPI:
    """Chooses among recordings (`match`) and answers. A miss is logged, because clients may hide the error.

    Raises `ConfigurationError`.
    """

    def __init__(
        self, recordings: Sequence[Recording], *, match: Match = "turns", max_kept_misses: int = MAX_KEPT_MISSES
    ) -> None:
        self.recordings = tuple(recordings)
        self.misses: list[Miss] = []
        """The last requests that no recording answered."""
        self._answers: list[Recording] = []
        self._others: dict[Hashable, Recording] = {}
        for recording in recordings:
            if (request := recording.request) is not None and _is_other(_resource(request.path)):
                self._others[_other_key(request)] = recording
            else:  # also a recording without a request, or of an unknown path
                self._answers.append(recording)
        self.find = finder(self._answers, match)
        """Chooses the recording that answers a request. May be replaced by another function."""
        self.unplayed = self._answers.copy()
        """The recordings of answers to `…/v1/messages` that have not been played yet, as often as they were given."""
        self.repeats: list[Recording] = []
        """The recordings of answers to `…/v1/messages` that have been played more often than they were given."""
        self._max_kept_misses = max_kept_misses

    def answer(self, request: RecordedRequest) -> Recording:
        """The answer to one request. Its path may have any prefix, as base URLs do.

        Raises `ConfigurationError` if the `match` function raises an exception.
        """
        if request.method == "OPTIONS":
            return _preflight(request.headers)
        resource = _resource(request.path)
        try:
            if resource == "messages":
                return self._messages(request)
            if _is_other(resource):
                return self._other(request, resource)
        except RecursionError:
            return error_answer(400, "invalid_request_error", "the request's body is nested too deeply")
        is_unversioned = resource.endswith(("/messages", "/messages/count_tokens", "/models"))
        return error_answer(404, "not_found_error", _NO_VERSION if is_unversioned else _NOT_FOUND)

    def _messages(self, request: RecordedRequest) -> Recording:
        if (wrong := _what_is_wrong(request, {"model": str, "messages": list, "max_tokens": int})) is not None:
            return wrong
        if request.body.get("thread") is not None:
            # The official SDK's tool runner then continues without a thread and sends the whole history.
            details = {"error_code": "thread_unsupported_request", "unsupported": []}
            return error_answer(400, "invalid_request_error", "message threads are not supported here", details)
        found = self.find(request)
        if isinstance(found, Miss):
            log.warning("%s", found.message)
            self.misses.append(found)
            del self.misses[: -self._max_kept_misses]
            # Many clients retry after a 5xx, and not after this.
            return error_answer(404, "not_found_error", found.message, {"error_code": "no_recording_matches"})
        if found in self.unplayed:
            self.unplayed.remove(found)
        elif found not in self.repeats:
            self.repeats.append(found)
        return _played(found, is_stream=request.body.get("stream") is True)

    def _other(self, request: RecordedRequest, resource: str) -> Recording:
        if (recorded := self._others.get(_other_key(request))) is not None:
            return _played(recorded, is_stream=recorded.is_stream)
        if resource == _COUNT:
            if (wrong := _what_is_wrong(request, {"model": str, "messages": list})) is not None:
                return wrong
            tokens = self._charged.get(_count_key(request.body))
            return _json_answer(200, {"input_tokens": _estimated(request.body) if tokens is None else tokens})
        if request.method != "GET":
            return _wrong_method(request, "GET")
        named = [(recording.message() or {}).get("model") for recording in self._answers]
        models = {model: _model_info(model) for model in named if isinstance(model, str)}  # each once, in this order
        model = resource.removeprefix("models").strip("/")
        if not model:
            first, last = next(iter(models), None), next(reversed(models), None)
            listed = {"data": list(models.values()), "first_id": first, "last_id": last, "has_more": False}
            return _json_answer(200, listed)
        if model not in models:
            return error_answer(404, "not_found_error", f"no recording has the model {quote(model)}")
        return _json_answer(200, models[model])

    @cached_property
    def _charged(self) -> dict[str, int]:
        """Request key -> input tokens of the recorded answer. Computed for the first client that counts tokens: few
        do."""
        return {
            _count_key(request.body): Usage(message["usage"]).total_input_tokens
            for request, message in ((answer.request, answer.message()) for answer in self._answers)
            if request and isinstance(request.body, dict) and message and isinstance(message.get("usage"), dict)
        }


def as_recording(given: Answer) -> Recording:
    """A recording as it is; a message as a stream."""
    return given if isinstance(given, Recording) else recording_of(given)


def answer_of(recording: Recording, *, is_stream: bool = True) -> Recording:
    """The answer of a recording to a minimal request."""
    body = {"model": "any", "max_tokens": 1, "messages": [], "stream": is_stream}
    return RecordedAPI([recording]).answer(RecordedRequest("POST", "/v1/messages", {}, body))


def _resource(path: str) -> str:
    """The path after its last `/v1/`, or the whole path if it has none; without the query."""
    return path.partition("?")[0].rstrip("/").rpartition("/v1/")[2]


def _is_other(resource: str) -> bool:
    """Whether the request is for a token count or for models, not for a message."""
    return resource in (_COUNT, "models") or resource.startswith("models/")


def _other_key(request: RecordedRequest) -> Hashable:
    """Equal for equal requests. Query parameters may be in any order."""
    query = sorted(parse_qsl(request.path.partition("?")[2]))
    return request.method, _resource(request.path), tuple(query), asked_key(request.body)


# --- Errors ----------------------------------------------------------------------------------------------------------


def error_answer(
    status: int, kind: str, message: str | None, details: Mapping[str, Any] | None = None, *, may_retry: bool = False
) -> Recording:
    """An error in the API's form."""
    return _json_answer(status, error_body(kind, message, details), {} if may_retry else {"x-should-retry": "false"})


def _what_is_wrong(request: RecordedRequest, required: Mapping[str, type]) -> Recording | None:
    if request.method != "POST":
        return _wrong_method(request, "POST")
    if not isinstance(request.body, dict):
        return error_answer(400, "invalid_request_error", "the request's body must be a JSON object")
    for name, wanted in required.items():
        if name not in request.body:
            return error_answer(400, "invalid_request_error", f"{name}: Field required")
        if type(request.body[name]) is not wanted:
            words = {str: "a string", list: "an array", int: "an integer"}[wanted]
            return error_answer(400, "invalid_request_error", f"{name}: must be {words}")
    return None


def _wrong_method(request: RecordedRequest, allowed: str) -> Recording:
    return error_answer(405, "invalid_request_error", f"{request.method} is not allowed here; {allowed} is")


# --- Recordings as answers -------------------------------------------------------------------------------------------


def _played(recording: Recording, *, is_stream: bool) -> Recording:
    """The recording; if it has the other form, the stream or the message that the API would have sent instead.

    `client_closed` is played as a cut: the end was never recorded.
    """
    headers = {name.lower(): value for name, value in recording.headers.items() if name.lower() not in _NOT_PLAYED}
    if recording.status >= 400:
        headers.setdefault("x-should-retry", "false")
    played = replace(recording, headers=headers)
    if recording.status != 200 or recording.is_stream == is_stream:
        return played
    if not is_stream:
        return _folded(played)
    if (message := recording.message()) is None:
        return played
    stream = recording_of(message)
    reads = tuple(Read(recording.duration, read.data) for read in stream.reads)
    return replace(played, headers=headers | {"content-type": stream.content_type}, reads=reads)


def _folded(stream: Recording) -> Recording:
    """The message folded from the events, or their error."""
    builder, error = stream.fold()
    if error is not None:
        return error_answer(500, "api_error", f"{stream.name} is not a stream of the Messages API: {error.message}")
    if builder.error is not None:
        status = stream_error(builder.error.raw, stream.headers).status_code
        return _json_answer(status, builder.error.raw, {**stream.headers, "x-should-retry": "false"}, stream.duration)
    if builder.message is None or not builder.is_complete:
        return Recording(headers=stream.headers, end="cut")
    return _json_answer(200, builder.message.raw, stream.headers, stream.duration)


# --- Other answers ---------------------------------------------------------------------------------------------------


def _count_key(body: dict[str, Any]) -> str:
    return asked_key({name: body[name] for name in _COUNTED if name in body})


def _estimated(body: dict[str, Any]) -> int:
    counted = [body.get(name) for name in ("system", "tools", "messages")]
    size = len(json.dumps(counted, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
    return max(1, size // BYTES_PER_TOKEN)


def _model_info(model: str) -> dict[str, Any]:
    # Both official SDKs read these four fields; a recording lacks the others.
    return {"type": "model", "id": model, "display_name": model, "created_at": "2026-01-01T00:00:00Z"}


def _preflight(headers: Mapping[str, str]) -> Recording:
    """The answer to a browser's CORS preflight (https://fetch.spec.whatwg.org/#cors-preflight-fetch)."""
    wanted = headers.get("access-control-request-headers", "*")
    allowed = {"access-control-allow-methods": "GET, POST", "access-control-allow-headers": wanted}
    return Recording(status=204, headers=allowed | {"access-control-max-age": "600"})


def _json_answer(status: int, value: Any, headers: Mapping[str, str] | None = None, t: float = 0.0) -> Recording:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    framing = {"content-type": "application/json", "content-length": str(len(body))}
    return Recording(None, status, {**(headers or {}), **framing}, (Read(t, body),))


# --- Which recording answers a request -------------------------------------------------------------------------------

Find: TypeAlias = Callable[[RecordedRequest], Recording | Miss]
"""The recording that answers a request. Raises `RecursionError` for JSON nested too deeply."""


def finder(recordings: Sequence[Recording], match: Match = "turns") -> Find:
    """The function that chooses among `recordings`. Raises `ConfigurationError`."""
    if match in ("turns", "sequence"):
        return _one_after_the_other(recordings, is_once=match == "sequence")
    if match == "name":
        return _by_name(recordings)
    if not callable(match) and match != "request":
        raise ConfigurationError(f"match must be a function, or one of {', '.join(get_args(MatchMode))}")
    return _by_request(recordings, match if callable(match) else _asked)


def _one_after_the_other(recordings: Sequence[Recording], *, is_once: bool) -> Find:
    numbers, total = count(), len(recordings)

    def find(request: RecordedRequest) -> Recording | Miss:
        taken = next(numbers)
        if is_once and taken >= total:
            played = f"{total} recording{'' if total == 1 else 's'}"
            return Miss(request, f"this is request {taken + 1} of a sequence of {played}: all have been played")
        return recordings[taken % total] if recordings else Miss(request, _NO_RECORDING)

    return find


def _by_name(recordings: Sequence[Recording]) -> Find:
    names = [re.sub(r"(\.sse|\.jsonl)+$", "", os.path.basename(recording.name)) for recording in recordings]

    def name_of(request: RecordedRequest) -> str:
        return request.path.partition("?")[0].rpartition("/v1/")[0].rpartition("/")[2]

    def miss(request: RecordedRequest, name: str) -> Miss:
        wrong = f"no recording has the name {quote(name)}" if name else "the base URL names no recording at its end"
        return Miss(request, f"{wrong}. There are: {cut_text(', '.join(dict.fromkeys(names)), 0, MAX_PATH_CHARS)}")

    return _by_key(recordings, names, name_of, miss)


def _by_request(recordings: Sequence[Recording], key_of: Callable[[Any], Any]) -> Find:
    def key(request: RecordedRequest | None, name: str) -> str:
        if request is None:
            raise ConfigurationError(f"{name}: this answer has no request: give it one with turns(request, answer)")
        try:
            return _to_json(key_of(request.body))
        except Exception as exc:
            if key_of is _asked:
                raise  # the body is nested too deeply
            why = cut_text(scrub_line(repr(exc)), 0, MAX_PATH_CHARS)
            raised = exc.__traceback__.tb_next if exc.__traceback__ else None
            file, line = (raised.tb_frame.f_code.co_filename, raised.tb_lineno) if raised else (__file__, 0)
            place = "" if file == __file__ else f" (line {line} of {os.path.basename(file)})"
            # Not `from exc`: a traceback would show the key that its message may quote.
            raise ConfigurationError(f"the match function failed for the request of {name}: {why}{place}") from None

    keys = [key(recording.request, recording.name) for recording in recordings]

    def miss(request: RecordedRequest, asked: str) -> Miss:
        if not recordings:
            return Miss(request, _NO_RECORDING)
        index, different = nearest(list(map(json.loads, keys)), json.loads(asked))
        which = f"Nearest of {len(keys)}: {recordings[index].name}"
        return Miss(request, f"no recording matches this request. {which}", recordings[index], different)

    return _by_key(recordings, keys, lambda request: key(request, "the client"), miss)


def _by_key(
    recordings: Sequence[Recording],
    keys: Sequence[str],
    key_of: Callable[[RecordedRequest], str],
    miss: Callable[[RecordedRequest, str], Miss],
) -> Find:
    """Play the recordings with a request's key in order, then repeat the last one."""
    members: dict[str, list[Recording]] = {}
    for key, recording in zip(keys, recordings, strict=True):
        members.setdefault(key, []).append(recording)
    taken = Counter[tuple[str, bool]]()

    def find(request: RecordedRequest) -> Recording | Miss:
        key = key_of(request)
        if key not in members:
            return miss(request, key)
        is_stream = isinstance(request.body, dict) and request.body.get("stream") is True
        # An error matches every request.
        fitting = [one for one in members[key] if one.status != 200 or one.is_stream == is_stream] or members[key]
        taken[key, is_stream] += 1
        return fitting[min(taken[key, is_stream], len(fitting)) - 1]

    return find


# --- The canonical form of a request ---------------------------------------------------------------------------------


def asked_key(body: Any) -> str:
    """A string that is the same for all equal requests. Raises `RecursionError` for JSON nested too deeply."""
    return _to_json(_asked(body))


def _asked(body: Any) -> Any:
    """The canonical form, scrubbed as recordings are."""
    request = scrub(Recording(RecordedRequest("POST", "/", {}, body))).request
    return canonical(request and request.body)


def canonical(body: Any) -> Any:
    """The body's canonical form. Raises `RecursionError` for JSON nested too deeply."""
    if not isinstance(body, dict):
        return _canonical(body, None)
    asked = {name: value for name, value in body.items() if name not in IGNORED_FIELDS}
    # A container's id is made up by the API, as those of calls are. A string is such an id.
    container = asked.get("container")
    if container is not None:
        asked["container"] = container | {"id": None} if isinstance(container, dict) else None
    written: dict[str, Any] = _canonical(asked, {})
    if isinstance(messages := written.get("messages"), list):
        written["messages"] = _merged(messages)
    return written


def _canonical(value: Any, calls: dict[str, str] | None) -> Any:
    """`calls` numbers the calls seen so far; None for JSON of the caller, which changes only in its numbers."""
    if isinstance(value, list):
        return [_canonical(item, calls) for item in value]
    if not isinstance(value, dict):  # 1 for 1.0: clients send either, and JSON has only one number type
        return int(value) if isinstance(value, float) and value.is_integer() else value
    if calls is None:
        return {name: _canonical(item, None) for name, item in value.items()}
    written = {}
    for name, item in value.items():
        if item is None or name in _NEVER_ASKED or (name in _DEFAULTS and item == _DEFAULTS[name]):
            continue
        if name == "type" and item == "custom" and "input_schema" in value:
            continue
        is_call_id = name in _CALL_IDS or (name == "id" and str(value.get("type")).endswith("tool_use"))
        if name in _OPAQUE:
            written[name] = _canonical(item, None)
        elif isinstance(item, str) and is_call_id:
            written[name] = calls.setdefault(item, f"call {len(calls) + 1}")
        elif isinstance(item, str) and name in ("content", "system"):
            # "content: a string is shorthand for one text block."
            written[name] = [{"type": "text", "text": item}]
        else:
            written[name] = _canonical(item, calls)
    return written


def _merged(messages: list[Any]) -> list[Any]:
    """Merge consecutive turns of the same role. Turns with other fields are not merged: the fields belong to that
    turn."""
    merged: list[Any] = []
    for message in messages:
        if merged and _is_plain_turn(message) and _is_plain_turn(merged[-1]) and merged[-1]["role"] == message["role"]:
            merged[-1] = merged[-1] | {"content": merged[-1]["content"] + message["content"]}
        else:
            merged.append(message)
    return merged


def _is_plain_turn(message: Any) -> bool:
    return isinstance(message, dict) and message.keys() == {"role", "content"} and isinstance(message["content"], list)


# --- How two requests differ -----------------------------------------------------------------------------------------


def nearest(candidates: Sequence[Any], asked: Any) -> tuple[int, tuple[Difference, ...]]:
    """The index of the candidate with the fewest differences, and these; among equals, the one with the most similar
    values."""
    found = [tuple(differences(candidate, asked)) for candidate in candidates]

    def distance(index: int) -> tuple[int, float]:
        shown = found[index][:MAX_SHOWN_DIFFERENCES]
        texts = ("".join(each.recorded or "" for each in shown), "".join(each.asked or "" for each in shown))
        return len(found[index]), -difflib.SequenceMatcher(None, *texts, autojunk=False).ratio()

    best = min(range(len(found)), key=distance)
    return best, found[best]


def differences(recorded: Any, asked: Any, path: str = "") -> Iterator[Difference]:
    """Every difference between two JSON values, in the order of `recorded`. A value that one side lacks is one
    difference."""
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
        yield Difference(cut_text(path, 0, MAX_PATH_CHARS), _shown(one, start), _shown(other, start))


def _shown(text: str | None, start: int) -> str | None:
    return None if text is None else cut_text(text, start if len(text) > MAX_SHOWN_CHARS else 0, MAX_SHOWN_CHARS)


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=repr)
