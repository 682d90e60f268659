"""Answer requests as a Messages API made of recordings would: one request in, one `Answer` out, without any I/O.

    api = RecordedAPI([Recording.load("fixtures/plain.sse.jsonl")])
    answer = api.answer(RecordedRequest("POST", "/v1/messages", {}, {"model": …, "max_tokens": …, "messages": […]}))
    answer.status, answer.headers, answer.reads

With `stream` the recording itself is the answer; without it, the message that its events add up to. A message that was recorded
without `stream` becomes a stream for a client that asks for one. Several recordings take turns, unless `match` says otherwise;
see `match.py`. A request that no recording answers is a miss: 404, with an error that names the nearest recording and where it
differs. An error has `x-should-retry: false`, unless it was recorded with another value: a client's retries would shift the
turns.

`…/count_tokens` is answered by a recording of the same request; else by the usage of a recorded answer to it; else by the
length of the request. `…/models` is answered by a recording of that request, or else lists the models that answered. Message
threads are refused, and the official SDK then sends the whole history each time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from rawsse.errors import quote, stream_error
from rawsse.messages.content import Usage
from rawsse.replay.compose import error_body, recording_of
from rawsse.replay.match import MAX_SHOWN_DIFFERENCES, Match, Miss, asked_key, finder
from rawsse.replay.recording import Read, RecordedRequest, Recording

BYTES_PER_TOKEN = 4
"""For `count_tokens`: a rule of thumb for English text and JSON. Only the API knows the count."""

MAX_KEPT_MISSES = 100
"""How many of the last misses a `RecordedAPI` remembers: the first one tells most, and a test ends there."""

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
_COUNT = "messages/count_tokens"
_NOT_FOUND = "there is nothing here: the paths are …/v1/messages, …/v1/messages/count_tokens and …/v1/models"
# Some clients add the path to a base URL that ends in /v1, as the AI SDK does; others bring the /v1 themselves.
_NO_VERSION = f"{_NOT_FOUND}. This client needs a base URL that ends in /v1"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response to be sent. `reads` are the pieces of the body and their times; the body ends `duration` seconds after the
    request, or with the last read if that is later. If `is_cut`, the connection breaks there."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    reads: tuple[Read, ...] = ()
    is_cut: bool = False
    duration: float = 0.0

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(read.data for read in self.reads)


class RecordedAPI:
    """Chooses among recordings (`match`: see `match.py`) and answers. `on_miss` is called with each request that none answers.

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
        counts, self._listings, self._answers = list[Recording](), list[Recording](), list[Recording]()
        for recording in recordings:
            # A recording without a request, or of an unknown path, answers a request for a message.
            resource = _resource(recording.request.path) if recording.request else ""
            kind = counts if resource == _COUNT else self._listings if _is_models(resource) else self._answers
            kind.append(recording)
        self.find = finder(self._answers, match)
        """Chooses the recording that answers a request. May be replaced by another function."""
        self._find_count = finder(counts, "request")
        self.unplayed = self._answers.copy()
        """The recordings of answers to `…/v1/messages` that have not been played yet, as often as they were given."""
        self.repeats: list[Recording] = []
        """The recordings of answers to `…/v1/messages` that have been played more often than they were given."""
        self._charged: dict[str, int] | None = None
        self._on_miss = on_miss
        self._max_kept_misses = max_kept_misses

    def answer(self, request: RecordedRequest) -> Answer:
        """The answer to one request. Paths may have any prefix, as base URLs do."""
        if request.method == "OPTIONS":
            return _preflight(request.headers)
        resource = _resource(request.path)
        try:
            if resource == "messages":
                return self._messages(request)
            if resource == _COUNT:
                return _what_is_wrong(request, {"model": str, "messages": list}) or self._count(request)
        except RecursionError:
            return error_answer(400, "invalid_request_error", "the request's body is nested too deeply")
        if _is_models(resource):
            return self._models(request)
        is_unversioned = resource.endswith(("/messages", "/messages/count_tokens", "/models"))
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
        self._note(found)
        return _streamed(found) if request.body.get("stream") is True else _folded(found)

    def _note(self, played: Recording) -> None:
        """Update `unplayed` and `repeats`. Two equal recordings are two."""
        for index, recording in enumerate(self.unplayed):
            if recording is played:
                del self.unplayed[index]
                return
        if all(recording is not played for recording in self.repeats):
            self.repeats.append(played)

    def _count(self, request: RecordedRequest) -> Answer:
        found = self._find_count(request)
        if isinstance(found, Recording):
            return _recorded(found)
        if self._charged is None:  # computed for the first client that counts: few do
            self._charged = {}
            for recording in self._answers:
                body, message = recording.request and recording.request.body, recording.message()
                if isinstance(body, dict) and message is not None and isinstance(message.get("usage"), dict):
                    self._charged[_count_key(body)] = Usage(message["usage"]).total_input_tokens
        tokens = self._charged.get(_count_key(request.body))
        return _json_answer(200, {"input_tokens": _estimated(request.body) if tokens is None else tokens})

    def _models(self, request: RecordedRequest) -> Answer:
        if request.method != "GET":
            return _wrong_method(request, "GET")
        for listing in self._listings:
            if listing.request and _asked_models(listing.request.path) == _asked_models(request.path):
                return _recorded(listing)
        answered = [message.raw.get("model") for one in self._answers if (message := one.fold()[0].message) is not None]
        models = list(dict.fromkeys(model for model in answered if isinstance(model, str)))  # in order of appearance
        model = _resource(request.path).removeprefix("models").strip("/")
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


def _resource(path: str) -> str:
    """The path after its last `/v1/`, or the whole path if it has none; without the query."""
    return path.partition("?")[0].rstrip("/").rpartition("/v1/")[2]


def _is_models(resource: str) -> bool:
    return resource == "models" or resource.startswith("models/")


def _asked_models(path: str) -> tuple[str, list[tuple[str, str]]]:
    """The list of models or the model that is asked for, and the parameters of the query in any order."""
    return _resource(path), sorted(parse_qsl(path.partition("?")[2]))


# --- Errors ----------------------------------------------------------------------------------------------------------


def error_answer(
    status: int, kind: str, message: str, details: Mapping[str, Any] | None = None, *, may_retry: bool = False
) -> Answer:
    """An error in the API's form."""
    return _json_answer(status, error_body(kind, message, details), {} if may_retry else {"x-should-retry": "false"})


def _missed(miss: Miss) -> Answer:
    """A 404: many clients retry after a 5xx, and not after this."""
    details: dict[str, Any] = {"error_code": "no_recording_matches"}
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
    """The recording as it is; a message that was recorded without `stream` as the stream that the API would have sent."""
    message = None if recording.is_stream else recording.message()
    if message is None:
        return _recorded(recording)
    stream = recording_of(message)
    reads = tuple(Read(recording.duration, read.data) for read in stream.reads)
    return Answer(200, _played_headers(recording) | {"content-type": stream.content_type}, reads)


def _recorded(recording: Recording) -> Answer:
    """The recording as it is. A client that left did not see the end: `client_closed` is played as a cut."""
    headers = _played_headers(recording)
    if recording.status >= 400:
        headers.setdefault("x-should-retry", "false")
    return Answer(recording.status, headers, recording.reads, recording.end != "clean", recording.duration)


def _folded(recording: Recording) -> Answer:
    """The answer of the API without `stream`: the message that the events add up to, or their error."""
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


# --- Other answers ---------------------------------------------------------------------------------------------------


def _count_key(body: dict[str, Any]) -> str:
    return asked_key({name: body[name] for name in _COUNTED if name in body})


def _estimated(body: dict[str, Any]) -> int:
    counted = [body.get(name) for name in ("system", "tools", "messages")]
    size = len(json.dumps(counted, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
    return max(1, size // BYTES_PER_TOKEN)


def _model_info(model: str) -> dict[str, Any]:
    # Both official SDKs read these four fields; a recording does not have the others.
    return {"type": "model", "id": model, "display_name": model, "created_at": "2026-01-01T00:00:00Z"}


def _preflight(headers: Mapping[str, str]) -> Answer:
    """The answer to a browser's CORS preflight (https://fetch.spec.whatwg.org/#cors-preflight-fetch)."""
    wanted = headers.get("access-control-request-headers", "*")
    allowed = {"access-control-allow-methods": "GET, POST", "access-control-allow-headers": wanted}
    return Answer(204, allowed | {"access-control-max-age": "600"})


def _json_answer(status: int, value: Any, headers: Mapping[str, str] | None = None, t: float = 0.0) -> Answer:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    framing = {"content-type": "application/json", "content-length": str(len(body))}
    return Answer(status, {**(headers or {}), **framing}, (Read(t, body),))
