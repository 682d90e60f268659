"""What a Messages API made of recordings answers: one request in, one `Answer` out, decided without any I/O.

    api = RecordedAPI([Recording.load("fixtures/plain.sse.jsonl")])
    answer = api.answer(RecordedRequest("POST", "/v1/messages", {}, {"model": …, "max_tokens": …, "messages": […]}))
    answer.status, answer.headers, answer.reads

With `stream` the recording itself is the answer; without it, the message that its events add up to. A message that was recorded
without is streamed to a client that asks for a stream. Several recordings take turns, unless `match` says otherwise; see
`match.py`. A request that no recording answers is a miss: 404, with an error that names the nearest recording and says where it
differs. An error has `x-should-retry: false`, unless it was recorded with another value: a client's repeats would shift the
turns.

`…/count_tokens` is answered by a recording of the same question; else by the usage of a recorded answer to it; else by the
length of what is sent. `…/models` is answered by a recording of that request, or else lists the models that answered. Message
threads are refused, and the official SDK then sends the whole history each time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from rawsse.errors import APIError, quote, stream_error
from rawsse.messages import MessageStart, read_event
from rawsse.messages.content import Usage
from rawsse.replay.compose import recording_of
from rawsse.replay.match import MAX_SHOWN_DIFFERENCES, Match, Miss, asked_key, finder
from rawsse.replay.recording import Read, RecordedRequest, Recording
from rawsse.sse import Decoder

BYTES_PER_TOKEN = 4
"""For `count_tokens`: a rule of thumb for English text and JSON. Only the API knows the count."""

MAX_KEPT_MISSES = 100
"""How many of the last misses a `RecordedAPI` remembers: the first one tells most, and a test ends there."""

MISS_CODE = "no_recording_matches"
"""The `error_code` in the details of the error that answers a miss."""

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Header fields that concern one connection (RFC 9110, 7.6.1)."""

_NOT_PLAYED = HOP_BY_HOP | {"content-encoding", "content-length", "date", "set-cookie"}
# What a prompt is made of. How long the answer may be is not part of it.
_COUNTED = ("model", "system", "tools", "tool_choice", "thinking", "messages")
_NOT_FOUND = "there is nothing here: the paths are …/v1/messages, …/v1/messages/count_tokens and …/v1/models"
# Some clients add the path to a base URL that ends in /v1, as the AI SDK does; others bring the /v1 themselves.
_NO_VERSION = f"{_NOT_FOUND}. This client needs a base URL that ends in /v1"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be sent. `reads` say which bytes of the body go out when; it ends `duration` seconds after the request, or
    with the last read if that is later. The connection breaks there if `is_cut`."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    reads: tuple[Read, ...] = ()
    is_cut: bool = False
    duration: float = 0.0


class RecordedAPI:
    """Recordings, and which of them answers (`match`: see `match.py`). `on_miss` is called with each request that none does.

    Raises `ConfigurationError`.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        *,
        match: Match = "turns",
        on_miss: Callable[[Miss], object] = lambda _: None,
        max_kept_misses: int = MAX_KEPT_MISSES,
    ) -> None:
        self.recordings = tuple(recordings)
        self.misses: list[Miss] = []
        """The last requests that no recording answered."""
        # One that does not say what was asked, or a path that we do not know, is an answer to a message.
        kinds = [recording.request and _kind(recording.request.path) for recording in recordings]
        of_kind = {
            name: [one for one, kind in zip(recordings, kinds, strict=True) if (kind or "messages") == name]
            for name in ("messages", "count_tokens", "models")
        }
        self._answers, self._listings = of_kind["messages"], of_kind["models"]
        self.find = finder(self._answers, match)
        """Chooses the recording that answers a request. Another function may be put in its place."""
        self._find_count = finder(of_kind["count_tokens"], "request")
        self._charged: dict[str, int] | None = None
        self._played: Counter[int] = Counter()  # by identity: two equal recordings are two
        self._on_miss = on_miss
        self._max_kept_misses = max_kept_misses

    @property
    def unplayed(self) -> list[Recording]:
        """The recordings of answers to `…/v1/messages` that have not been played yet, as often as they were given."""
        left = self._played.copy()
        unplayed = []
        for recording in self._answers:
            left[id(recording)] -= 1
            if left[id(recording)] < 0:
                unplayed.append(recording)
        return unplayed

    @property
    def repeats(self) -> list[Recording]:
        """The recordings of answers to `…/v1/messages` that have been played more often than they were given."""
        given = Counter(map(id, self._answers))
        once = {id(recording): recording for recording in self._answers}
        return [recording for key, recording in once.items() if self._played[key] > given[key]]

    def answer(self, request: RecordedRequest) -> Answer:
        """The answer to one request. Paths may have any prefix, as base URLs do."""
        if request.method == "OPTIONS":
            return _preflight(request.headers)
        kind = _kind(request.path)
        try:
            if kind == "messages":
                return self._messages(request)
            if kind == "count_tokens":
                return _what_is_wrong(request, {"model": str, "messages": list}) or self._count(request)
        except RecursionError:
            return error_answer(400, "invalid_request_error", "the request's body is nested too deeply")
        if kind == "models":
            return self._models(request)
        is_unversioned = request.path.partition("?")[0].endswith(("/messages", "/messages/count_tokens", "/models"))
        return error_answer(404, "not_found_error", _NO_VERSION if is_unversioned else _NOT_FOUND)

    def _messages(self, request: RecordedRequest) -> Answer:
        wrong = _what_is_wrong(request, {"model": str, "messages": list, "max_tokens": int})
        if wrong is not None:
            return wrong
        if request.body.get("thread") is not None:
            # The tool runner of the official SDK then goes on without a thread and sends the whole history.
            details = {"error_code": "thread_unsupported_request", "unsupported": []}
            return error_answer(400, "invalid_request_error", "message threads are not supported here", details)
        found = self.find(request)
        if isinstance(found, Miss):
            self._on_miss(found)
            self.misses.append(found)
            del self.misses[: -self._max_kept_misses]
            return _missed(found)
        self._played[id(found)] += 1
        return _streamed(found) if request.body.get("stream") is True else _folded(found)

    def _count(self, request: RecordedRequest) -> Answer:
        found = self._find_count(request)
        if isinstance(found, Recording):
            return _recorded(found)
        if self._charged is None:  # few clients ever ask, so the answers are not read before one does
            self._charged = {}
            for recording in self._answers:
                body, message = recording.request and recording.request.body, recording.message()
                if isinstance(body, dict) and message is not None and isinstance(message.get("usage"), dict):
                    self._charged[asked_key(_counted(body))] = Usage(message["usage"]).total_input_tokens
        tokens = self._charged.get(asked_key(_counted(request.body)))
        return _json_answer(200, {"input_tokens": _estimated(request.body) if tokens is None else tokens})

    def _models(self, request: RecordedRequest) -> Answer:
        if request.method != "GET":
            return _wrong_method(request, "GET")
        asked = _within_models(request.path)
        for listing in self._listings:
            if listing.request and _within_models(listing.request.path) == asked:
                return _recorded(listing)
        models = list(dict.fromkeys(filter(None, map(_model_in, self._answers))))  # each once, in order of appearance
        model, _ = asked
        if not model:
            first, last = (models[0], models[-1]) if models else (None, None)
            listed = [_model_info(model) for model in models]
            return _json_answer(200, {"data": listed, "first_id": first, "last_id": last, "has_more": False})
        if model not in models:
            return error_answer(404, "not_found_error", f"no recording has the model {quote(model)}")
        return _json_answer(200, _model_info(model))


def answer_of(recording: Recording, *, is_stream: bool = True) -> Answer:
    """What a recording answers to the plainest request."""
    body = {"model": "any", "max_tokens": 1, "messages": [], "stream": is_stream}
    return RecordedAPI([recording]).answer(RecordedRequest("POST", "/v1/messages", {}, body))


def _kind(path: str) -> str | None:
    """Which of the API's requests this is, by the end of its path."""
    path = path.partition("?")[0].rstrip("/")
    if path.endswith("/v1/messages"):
        return "messages"
    if path.endswith("/v1/messages/count_tokens"):
        return "count_tokens"
    _, is_model, model = path.rpartition("/v1/models")
    return "models" if is_model and (not model or model.startswith("/")) else None


def _within_models(path: str) -> tuple[str, list[tuple[str, str]]]:
    """The model that is asked for, if any, and what the query says."""
    path, _, query = path.partition("?")
    return path.rstrip("/").rpartition("/v1/models")[2].strip("/"), sorted(parse_qsl(query))


# --- Errors ----------------------------------------------------------------------------------------------------------


def error_answer(
    status: int, kind: str, message: str, details: Mapping[str, Any] | None = None, *, may_retry: bool = False
) -> Answer:
    """An error in the API's form."""
    error = {"type": kind, "message": message} | ({"details": details} if details else {})
    headers = {} if may_retry else {"x-should-retry": "false"}
    return _json_answer(status, {"type": "error", "error": error}, headers)


def _missed(miss: Miss) -> Answer:
    """A 404, since clients do not try that again; 5xx many do."""
    details: dict[str, Any] = {"error_code": MISS_CODE}
    if miss.nearest is not None:
        shown = [asdict(difference) for difference in miss.differences[:MAX_SHOWN_DIFFERENCES]]
        details |= {"nearest": miss.nearest.name, "differences": shown}
    return error_answer(404, "not_found_error", miss.message, details)


def _what_is_wrong(request: RecordedRequest, required: Mapping[str, type]) -> Answer | None:
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


def _wrong_method(request: RecordedRequest, allowed: str) -> Answer:
    return error_answer(405, "invalid_request_error", f"{request.method} is not allowed here; {allowed} is")


# --- Recordings as answers -------------------------------------------------------------------------------------------


def _streamed(recording: Recording) -> Answer:
    """The recording as it is, but a message that was recorded without `stream` as the events that would have made it."""
    message = None if recording.is_stream else recording.message()
    if message is None:
        return _recorded(recording)
    stream = recording_of(message)
    reads = tuple(Read(recording.duration, read.data) for read in stream.reads)
    return Answer(200, _played_headers(recording) | {"content-type": stream.content_type}, reads)


def _recorded(recording: Recording) -> Answer:
    """The recording as it is. A client that left did not see the end, so for `client_closed` there is none to be played."""
    headers = _played_headers(recording)
    if recording.status >= 400:
        headers.setdefault("x-should-retry", "false")
    return Answer(recording.status, headers, recording.reads, recording.end != "clean", recording.duration)


def _folded(recording: Recording) -> Answer:
    """What the API would have answered without `stream`: the message that the events add up to, or their error."""
    headers = _played_headers(recording)
    if recording.status != 200 or not recording.is_stream:
        return _recorded(recording)
    builder, error = recording.fold()
    if error is not None:
        return error_answer(500, "api_error", f"{recording.name} is not a stream of the Messages API: {error.message}")
    if builder.error is not None:
        status = stream_error(builder.error.raw, headers).status_code
        return _json_answer(status, builder.error.raw, headers | {"x-should-retry": "false"}, recording.duration)
    if builder.message is None or not builder.is_complete:
        return Answer(200, headers, is_cut=True)
    return _json_answer(200, builder.message.raw, headers, recording.duration)


def _played_headers(recording: Recording) -> dict[str, str]:
    headers = {name.lower(): value for name, value in recording.headers.items()}
    return {name: value for name, value in headers.items() if name not in _NOT_PLAYED}


# --- The answers around them -----------------------------------------------------------------------------------------


def _counted(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in _COUNTED if name in body}


def _estimated(body: dict[str, Any]) -> int:
    counted = [body.get(name) for name in ("system", "tools", "messages")]
    size = len(json.dumps(counted, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
    return max(1, size // BYTES_PER_TOKEN)


def _model_in(recording: Recording) -> str | None:
    try:
        for sse in Decoder().feed(recording.body):
            event = read_event(sse)
            if isinstance(event, MessageStart) and isinstance(model := event.raw["message"].get("model"), str):
                return model
    except APIError:
        pass  # not a stream of the Messages API, at least from here on
    return None


def _model_info(model: str) -> dict[str, Any]:
    # Both official SDKs read these four; a recording knows nothing of the others.
    return {"type": "model", "id": model, "display_name": model, "created_at": "2026-01-01T00:00:00Z"}


def _preflight(headers: Mapping[str, str]) -> Answer:
    """The answer to a browser that asks whether a page may ask (https://fetch.spec.whatwg.org/#cors-preflight-fetch)."""
    wanted = headers.get("access-control-request-headers", "*")
    allowed = {"access-control-allow-methods": "GET, POST", "access-control-allow-headers": wanted}
    return Answer(204, allowed | {"access-control-max-age": "600"})


def _json_answer(status: int, value: Any, headers: Mapping[str, str] | None = None, t: float = 0.0) -> Answer:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    framing = {"content-type": "application/json", "content-length": str(len(body))}
    return Answer(status, {**(headers or {}), **framing}, (Read(t, body),))
