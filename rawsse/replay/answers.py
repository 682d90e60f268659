"""What a Messages API made of recordings answers: one request in, one `Answer` out, decided without any I/O.

This file knows the paths of the Messages API, what a request must have, and which recording's turn it is. It refuses to know
how an answer is sent and at what pace; `player.py` does that.

    repertoire = Repertoire([Recording.load("fixtures/plain.sse.jsonl")])
    answer = repertoire.answer(RecordedRequest("POST", "/v1/messages", {}, {"model": …, "max_tokens": …, "messages": […]}))
    answer.status, answer.headers, answer.reads

With `stream` the recording itself is the answer; without it, the message that its events add up to. Several recordings take
turns. Every error has `x-should-retry: false`: a client's own repeats would shift the turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rawsse.errors import APIError, quote, stream_error
from rawsse.messages import MessageBuilder, MessageStart, read_event
from rawsse.replay.recording import Read, RecordedRequest, Recording
from rawsse.sse import Decoder

__all__ = ["Answer", "Repertoire", "error_answer"]

BYTES_PER_TOKEN = 4
"""For `count_tokens`: a rule of thumb for English text and JSON. Nobody but the API knows the count."""

# Headers that belong to the connection that was recorded, not to the answer.
_NOT_PLAYED = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "date",
        "keep-alive",
        "proxy-authenticate",
        "set-cookie",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NOT_FOUND = "there is nothing here: the paths are …/v1/messages, …/v1/messages/count_tokens and …/v1/models"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be sent. `reads` say which bytes of the body go out when; after them the connection breaks if `is_cut`."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    reads: tuple[Read, ...] = ()
    is_cut: bool = False


class Repertoire:
    """Recordings, and whose turn it is."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self.recordings = tuple(recordings)
        self._played = 0

    def answer(self, request: RecordedRequest) -> Answer:
        """The answer to one request. Paths may have any prefix, as base URLs do."""
        path = request.path.partition("?")[0].rstrip("/")
        if request.method == "OPTIONS":
            return _preflight(request.headers)
        if path.endswith("/v1/messages"):
            return self._messages(request)
        if path.endswith("/v1/messages/count_tokens"):
            return _count_tokens(request)
        _, is_model, model = path.rpartition("/v1/models")
        if is_model and (not model or model.startswith("/")):
            return self._models(request, model[1:])
        return error_answer(404, "not_found_error", _NOT_FOUND)

    def _messages(self, request: RecordedRequest) -> Answer:
        wrong = _what_is_wrong(request, {"model": str, "messages": list, "max_tokens": int})
        if wrong is not None:
            return wrong
        if request.body.get("thread") is not None:
            # The SDK's tool runner then goes on without a thread and sends the whole history itself.
            details = {"error_code": "thread_unsupported_request", "unsupported": []}
            return error_answer(400, "invalid_request_error", "message threads are not supported here", details)
        recording = self.choose(request)
        return _recorded(recording) if request.body.get("stream") is True else _folded(recording)

    def choose(self, request: RecordedRequest) -> Recording:
        """The recording that answers `request`: they take turns, whatever it says. To choose by the request, override this."""
        self._played += 1
        return self.recordings[(self._played - 1) % len(self.recordings)]

    def _models(self, request: RecordedRequest, model: str) -> Answer:
        if request.method != "GET":
            return _wrong_method(request, "GET")
        models = _models_in(self.recordings)
        if not model:
            first, last = (models[0], models[-1]) if models else (None, None)
            listed = [_model_info(model) for model in models]
            return _json_answer(200, {"data": listed, "first_id": first, "last_id": last, "has_more": False})
        if model not in models:
            return error_answer(404, "not_found_error", f"no recording has the model {quote(model)}")
        return _json_answer(200, _model_info(model))


def error_answer(status: int, kind: str, message: str, details: Mapping[str, Any] | None = None) -> Answer:
    """An error in the API's form."""
    error = {"type": kind, "message": message} | ({"details": details} if details else {})
    return _json_answer(status, {"type": "error", "error": error}, {"x-should-retry": "false"})


# --- What is wrong with a request ------------------------------------------------------------------------------------


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


# --- Recordings as answers ---------------------------------------------------------------------------------------------


def _recorded(recording: Recording) -> Answer:
    """The recording as it is. Who left before the end did not see it, so for `client_closed` there is none to be played."""
    headers = _played_headers(recording)
    if recording.status >= 400:
        headers["x-should-retry"] = "false"
    return Answer(recording.status, headers, recording.reads, is_cut=recording.end != "clean")


def _folded(recording: Recording) -> Answer:
    """What the API would have answered without `stream`: the message that the events add up to, or their error."""
    headers = _played_headers(recording)
    if recording.status != 200 or not headers.get("content-type", "").startswith("text/event-stream"):
        return _recorded(recording)
    builder = MessageBuilder(strict=False)
    try:
        for event in Decoder().feed(recording.body):
            builder.feed(event)
    except APIError as exc:
        return error_answer(500, "api_error", f"{recording.name} is no stream of the Messages API: {exc.message}")
    if builder.error is not None:
        status = stream_error(builder.error.raw, headers).status_code
        return _json_answer(status, builder.error.raw, headers | {"x-should-retry": "false"}, recording.duration)
    if builder.message is None or not builder.is_complete:
        return Answer(200, headers, is_cut=True)
    return _json_answer(200, builder.message.raw, headers, recording.duration)


def _played_headers(recording: Recording) -> dict[str, str]:
    headers = {name.lower(): value for name, value in recording.headers.items()}
    return {name: value for name, value in headers.items() if name not in _NOT_PLAYED}


# --- The answers around them -------------------------------------------------------------------------------------------


def _count_tokens(request: RecordedRequest) -> Answer:
    wrong = _what_is_wrong(request, {"model": str, "messages": list})
    if wrong is not None:
        return wrong
    counted = [request.body.get(name) for name in ("system", "tools", "messages")]
    size = len(json.dumps(counted, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
    return _json_answer(200, {"input_tokens": max(1, size // BYTES_PER_TOKEN)})


def _models_in(recordings: Iterable[Recording]) -> list[str]:
    """The ids of the models that answered, each once, in order of appearance."""
    found = (_model_in(recording) for recording in recordings)
    return list(dict.fromkeys(model for model in found if model))


def _model_in(recording: Recording) -> str | None:
    try:
        for sse in Decoder().feed(recording.body):
            event = read_event(sse)
            if isinstance(event, MessageStart) and isinstance(model := event.raw["message"].get("model"), str):
                return model
    except APIError:
        pass  # no stream of the Messages API, at least not from here on
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
