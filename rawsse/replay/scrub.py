"""No secret in a recording reaches the disk, wherever it stands, and over however many deltas it is spread.

    recording = checked(scrub(recording, ScrubPolicy(secrets=(api_key,))))
    recording.save("answer.sse.jsonl")

    for secret in find_secrets(recording):
        print(secret)           # Anthropic key in the response body, event 9, text of block 0 (across 3 deltas)

Headers are kept only if they are on a list. Everywhere else (the URL, the headers that are left, both bodies) secrets are
searched as their readers see them: with escapes read, and in the texts that deltas add up to. Every byte of one turns into `*`
where it stands, so nothing else changes: not the JSON around it, the cuts between deltas, the boundaries of the reads, the
times. The prefix that tells the kind of a key stays (`sk-ant-api03-****`), and so do the signs that JSON and line ends are
made of. Scrubbing twice is scrubbing once.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any, Literal, NamedTuple, TypeAlias

from rawsse.errors import ConfigurationError, Hidden, SecretRemainsError, quote
from rawsse.replay.recording import Read, RecordedRequest, Recording
from rawsse.replay.secrets import CREDENTIAL_HEADERS, SHAPES, Shape, named_values, secret_span, written_forms
from rawsse.replay.strands import (
    JSON_ESCAPES,
    PERCENT_ESCAPES,
    Characters,
    Escapes,
    Text,
    event_starts,
    joined_texts,
    layers,
    literals,
)

ALLOWED_REQUEST_HEADERS = ("accept", "anthropic-beta", "anthropic-version", "content-type")
"""The headers of a request that its answer may depend on."""

ALLOWED_RESPONSE_HEADERS = (
    "anthropic-ratelimit-*",
    "cache-control",
    "content-type",
    "date",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "server",
    "x-accel-buffering",
    "x-should-retry",
)
"""The headers that clients read, and those that help to find out who answered. No ids of organization and workspace, no
cookies."""

MIN_SECRET_CHARS = 4
"""A shorter secret would be found in half of all words."""

MAX_PASSES = 5
"""Hiding one secret may show another one's shape. More than two passes have not been seen."""

_MARK = "*"  # written over each byte that is hidden
# The signs that JSON, its escapes and lines are made of stay, so that what was JSON remains JSON.
_KEPT = '"\\/{}[]:,'
# The word in which `quote` cut a text: half a secret has no shape.
_CUT_WORD = re.compile(r"(?<![^\s'\"])[^\s'\"]{4,}(?=['\"]… \(\d+ in all\))")
_NOTHING_TO_HIDE = re.compile(rf"[{re.escape(_KEPT)}\s\x00-\x1f]*")


@dataclass(frozen=True, slots=True)
class ScrubPolicy:
    """The headers that are kept, and the secrets that are hidden beside the known shapes.

    `allowed_request_headers`, `allowed_response_headers`: names, in any case, with `*` at the end for any ending.
    `patterns`: further regular expressions, as `rawsse record --scrub REGEX` gives them. The group `secret` is hidden, or
    the first group, or the whole match. A secret with neither a known shape nor a telling name (a bare password in a
    sentence) needs one. They are matched against JSON as it is written, too: one that matches a number or a member's name
    breaks the JSON.
    `secrets`: hidden wherever they stand, also %-encoded and in base64: the key that the client itself uses, for example.
    """

    allowed_request_headers: tuple[str, ...] = ALLOWED_REQUEST_HEADERS
    allowed_response_headers: tuple[str, ...] = ALLOWED_RESPONSE_HEADERS
    patterns: tuple[str | re.Pattern[str], ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "secrets", tuple(map(Hidden, self.secrets)))
        if (shortest := min(map(len, self.secrets), default=MIN_SECRET_CHARS)) < MIN_SECRET_CHARS:
            raise ConfigurationError(f"a secret must have at least {MIN_SECRET_CHARS} characters, not {shortest}")
        self.shapes()

    def shapes(self) -> tuple[Shape, ...]:
        """All shapes, the particular before the general. Raises `ConfigurationError` for an invalid pattern."""
        exact = [Shape("secret of yours", pattern) for secret in self.secrets for pattern in written_forms(secret)]
        own = [Shape(f"match of your pattern {number}", _compiled(p)) for number, p in enumerate(self.patterns, 1)]
        return (*exact, *own, *SHAPES)


@dataclass(frozen=True, slots=True)
class Secret:
    """Something that looks like a secret: the name of its shape and its place, never the secret itself.

    In the response body, `byte` is where it begins, from 0, and `event` the number of its event, from 1.
    """

    shape: str
    place: str
    byte: int = 0
    event: int = 0

    def __str__(self) -> str:
        return f"{self.shape} in the {self.place}"


def scrub(recording: Recording, policy: ScrubPolicy | None = None) -> Recording:
    """The recording without the headers that are not allowed, and with every secret hidden.

    Raises `SecretRemainsError` if the response's body cannot be searched, since it is still compressed.
    """
    policy = policy or ScrubPolicy()
    if secret := _unsearchable(recording):
        raise SecretRemainsError(f"{recording.name} may not be written: {secret}")
    return _Search(policy).scrubbed(recording)


def to_show(recording: Recording) -> Recording:
    """The recording for a person to read: with all its header fields, and without secrets. A compressed body stays as it is."""
    policy = ScrubPolicy(allowed_request_headers=("*",), allowed_response_headers=("*",))
    shown = _Search(policy).scrubbed(recording)
    return replace(shown, headers={scrub_line(name): value for name, value in shown.headers.items()})


def scrub_line(text: str, policy: ScrubPolicy | None = None) -> str:
    """A line of text, for a person to read, without secrets, and without a word that `quote` has cut."""
    return _Search(policy or ScrubPolicy()).hide_in_line(_CUT_WORD.sub("", text))


def find_secrets(exchange: Recording | bytes | str, policy: ScrubPolicy | None = None) -> list[Secret]:
    """Everything that looks like a secret in a recording, or in the body of a response."""
    search = _Search(policy or ScrubPolicy())
    if isinstance(exchange, Recording):
        return list(search.secrets(exchange))
    return list(search.secrets_in_response(exchange if isinstance(exchange, bytes) else _to_bytes(exchange)))


def checked(recording: Recording, policy: ScrubPolicy | None = None) -> Recording:
    """The recording, if it may be written. Raises `SecretRemainsError` if something in it looks like a secret."""
    if found := find_secrets(recording, policy):
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise SecretRemainsError(f"{recording.name} may not be written: {found[0]}{more}")
    return recording


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as exc:
        raise ConfigurationError(f"{quote(str(pattern))} is not a regular expression: {exc}") from None


# Halves of surrogate pairs can be in JSON, and so in a request's body.
def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _json_bytes(body: Any) -> bytes:
    return _to_bytes(json.dumps(body, ensure_ascii=False))


def _unsearchable(recording: Recording) -> Secret | None:
    """A body that is still compressed cannot be searched, and its readers can decompress it."""
    headers = {name.lower(): value for name, value in recording.headers.items()}
    coding = headers.get("content-encoding", "identity")
    try:
        recording.body.decode()
    except UnicodeDecodeError as exc:
        if coding.lower() != "identity" and exc.end < len(recording.body):
            return Secret(f"content that cannot be searched ({quote(coding)})", "response body")
    return None


# --- The search ------------------------------------------------------------------------------------------------------


class _Hit(NamedTuple):
    """Something that looks like a secret stands in these bytes. `joined` names the joined text that it was found in."""

    shape: str
    places: list[int]
    joined: str = ""


_Kind: TypeAlias = Literal["line", "json", "stream"]
"""A path or a header's value; a JSON text, or any other; the body of a response."""


class _Search:
    """Finds the secrets of a policy, writes over them, and says where they stand."""

    def __init__(self, policy: ScrubPolicy) -> None:
        self._policy = policy
        self._shapes = policy.shapes()

    def _hits(self, data: bytes, kind: _Kind) -> Iterator[_Hit]:
        """Of a stream: first those in the texts that its events add up to, then those in the bytes as they stand."""
        body = Characters(data)
        for name, joined in joined_texts(body) if kind == "stream" else ():
            for hit in self._in_text(joined, JSON_ESCAPES):
                yield hit._replace(joined=name)
        yield from self._in_text(body, PERCENT_ESCAPES if kind == "line" else JSON_ESCAPES)

    def _in_text(self, text: Text, escapes: Escapes) -> Iterator[_Hit]:
        for layer in layers(text, escapes):
            for shape in self._shapes:
                for found in shape.pattern.finditer(layer.text):
                    start, end = secret_span(found)
                    if not self._is_hidden(layer.text[start:end]):
                        yield _Hit(shape.name, _hidden_bytes(layer, start, end))
            for value in named_values(layer):
                if not (self._is_hidden(value.text) or self._is_known(value.text)):
                    yield _Hit("value of a secret's name", _hidden_bytes(value, 0, len(value.text)))

    def _is_hidden(self, value: str) -> bool:
        """Nothing is left to be hidden."""
        return _NOTHING_TO_HIDE.fullmatch(value.replace(_MARK, "")) is not None

    def _is_known(self, value: str) -> bool:
        """It has a known shape, whose prefix may stay; or it had one before it was hidden."""
        found = (shape.pattern.search(value) for shape in self._shapes)
        return _MARK * 4 in value or any(match and secret_span(match)[1] == len(value) for match in found)

    # --- Hiding

    def scrubbed(self, recording: Recording) -> Recording:
        """The recording without the headers that are not allowed, and with every secret hidden."""
        request, policy = recording.request, self._policy
        if request is not None:
            headers = self._headers(request.headers, policy.allowed_request_headers)
            method, path = self.hide_in_line(request.method), self.hide_in_line(request.path)
            request = RecordedRequest(method, path, headers, self._request_body(request.body))
        body = self._hide(recording.body, "stream")
        ends = accumulate(len(read.data) for read in recording.reads)
        reads = [Read(read.t, body[at - len(read.data) : at]) for read, at in zip(recording.reads, ends, strict=True)]
        headers = self._headers(recording.headers, policy.allowed_response_headers)
        return replace(recording, request=request, headers=headers, reads=tuple(reads))

    def hide_in_line(self, text: str) -> str:
        """The same line without the secrets."""
        return _to_text(self._hide(_to_bytes(text), "line"))

    def _hide(self, data: bytes, kind: _Kind) -> bytes:
        """The same bytes without the secrets, as many of them."""
        for _ in range(MAX_PASSES):
            buffer = bytearray(data)
            for hit in self._hits(data, kind):
                for place in hit.places:
                    buffer[place] = ord(_MARK)
            if buffer == data:
                break
            data = bytes(buffer)
        return data

    def _headers(self, headers: Mapping[str, str], allowed: tuple[str, ...]) -> dict[str, str]:
        kept = {}
        for name, value in headers.items():
            if name.lower() in CREDENTIAL_HEADERS:
                value = "".join(char if _is_kept(char) else _MARK for char in value)  # noqa: PLW2901
            if any(fnmatchcase(name.lower(), entry.lower()) for entry in allowed):
                kept[name] = self.hide_in_line(value)
        return kept

    def _request_body(self, body: Any) -> Any:
        before = _json_bytes(body)
        after = self._hide(before, "json")
        if after == before:
            return body
        try:
            return json.loads(_to_text(after))
        except ValueError:  # a pattern of the caller's took more than strings for secret
            return _to_text(after)

    # --- Finding

    def secrets(self, recording: Recording) -> Iterator[Secret]:
        """In all that a recording's file holds."""
        if (request := recording.request) is not None:
            yield from self._secrets_in_line(request.method, "request method")
            yield from self._secrets_in_line(request.path, "request path")
            yield from self._secrets_in_headers(request.headers, "request header")
            data = _json_bytes(request.body)
            for hit in self._new_hits(data, "json"):
                path = _path_to(data, hit.places[0])
                yield Secret(hit.shape, f"request body, {path}" if path else "request body")
        yield from self._secrets_in_headers(recording.headers, "response header")
        if secret := _unsearchable(recording):
            yield secret
        yield from self.secrets_in_response(recording.body)

    def secrets_in_response(self, body: bytes) -> Iterator[Secret]:
        """In the body of a response."""
        starts: list[int] | None = None
        for hit in self._new_hits(body, "stream"):
            starts = event_starts(Characters(body)) if starts is None else starts
            events = {bisect_right(starts, place) for place in hit.places}
            first = min(events)
            place = f"response body, event {first}" if first else "response body"
            if hit.joined:
                place += f", {hit.joined}" + (f" (across {len(events)} deltas)" if len(events) > 1 else "")
            yield Secret(hit.shape, place, hit.places[0], first)

    def _secrets_in_line(self, line: str, place: str) -> Iterator[Secret]:
        return (Secret(hit.shape, place) for hit in self._new_hits(_to_bytes(line), "line"))

    def _secrets_in_headers(self, headers: Mapping[str, str], kind: str) -> Iterator[Secret]:
        for name, value in headers.items():
            if name.lower() in CREDENTIAL_HEADERS and not self._is_hidden(value):
                yield Secret("credential", f"{kind} {name}")
            else:
                yield from self._secrets_in_line(value, f"{kind} {name}")

    def _new_hits(self, data: bytes, kind: _Kind) -> Iterator[_Hit]:
        """The hits that do not overlap with earlier ones: the same secret matches several shapes, in several views."""
        seen = bytearray(len(data))
        for hit in self._hits(data, kind):
            if not any(seen[place] for place in hit.places):
                yield hit
            for place in hit.places:
                seen[place] = 1


def _is_kept(char: str) -> bool:
    return char in _KEPT or char.isspace() or char < " "


def _hidden_bytes(text: Text, start: int, end: int) -> list[int]:
    """The bytes of these characters, but for those that stay."""
    return [place for at in range(start, end) if not _is_kept(text.text[at]) for place in text.bytes_of(at)]


def _path_to(data: bytes, byte: int) -> str:
    """The path to the string in a JSON text that holds the byte; empty if that is a key, or the whole."""
    body = Characters(data)
    for item in literals(body.text):
        if body.byte(item.start) <= byte < body.byte(item.end):
            return ".".join(map(str, item.path))
    return ""
