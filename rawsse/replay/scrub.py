"""No secret in a recording reaches the disk: wherever it stands, and however many deltas it is spread over.

    recording = checked(scrub(recording, ScrubPolicy(secrets=(api_key,))))
    recording.save("answer.sse.jsonl")

    for secret in find_secrets(recording):
        print(secret)           # Anthropic key in the response body, event 9, text of block 0 (across 3 deltas)

Headers are kept only if they are on a list. In all the rest (URL, the headers that are left, both bodies) secrets are looked
for as their readers see them: with escapes read, and in what the deltas add up to. Each of their characters
turns into `*` where it stands, so nothing else changes: not the JSON around it, the cuts between deltas, the boundaries of the
reads, the times. What tells the kind of a key is left (`sk-ant-api03-****`), and so are the signs that JSON and line ends are
made of. The same secret always turns into the same stars; scrubbing twice is scrubbing once.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

from rawsse.errors import ConfigurationError, Hidden, SecretRemainsError, quote
from rawsse.replay.recording import Read, RecordedRequest, Recording
from rawsse.replay.secrets import CREDENTIAL_HEADERS, SHAPES, Shape, named_values, secret_span, written_forms
from rawsse.replay.strands import (
    JSON_ESCAPES,
    PERCENT_ESCAPES,
    Characters,
    Escapes,
    JoinedText,
    Text,
    event_starts,
    joined_texts,
    layers,
    literals,
)

ALLOWED_REQUEST_HEADERS = ("accept", "anthropic-beta", "anthropic-version", "content-type")
"""What a request's answer may depend on."""

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
"""What clients look at, and what helps to find out who answered. Not the ids of organization and workspace, and no cookies."""

MIN_SECRET_CHARS = 4
"""A shorter secret would be found in half of all words."""

MAX_PASSES = 5
"""Hiding one secret may show another one's shape. More than two passes have not been seen."""

# The signs that JSON, its escapes and lines are made of stay, so that what was JSON remains JSON.
_KEPT = '"\\/{}[]:,'
# The word in which `quote` cut a text: half a secret has no shape.
_CUT_WORD = re.compile(r"(?<![^\s'\"])[^\s'\"]{4,}(?=['\"]… \(\d+ in all\))")
_NOTHING_TO_HIDE = re.compile(rf"[{re.escape(_KEPT)}\s\x00-\x1f]*")


@dataclass(frozen=True, slots=True)
class ScrubPolicy:
    """What is kept, and what is hidden beside the known shapes.

    `allowed_request_headers`, `allowed_response_headers`: names, in any case, with `*` at the end for any ending.
    `patterns`: regular expressions of your own; the group `secret` is hidden, or the first group, or all that was found.
    They see JSON as it is written, too: one that takes a number or a name for secret makes the JSON useless. Shapes of
    secrets that only you have belong here, or `rawsse record --scrub REGEX`: what has neither a known shape nor a name that
    says so (a bare password in a sentence) is not found without.
    `secrets`: hidden wherever they stand, also %-encoded and in base64: the key that the client itself uses, for example.
    `replacement`: the character that stands for each one that is hidden; no letter or digit.
    """

    allowed_request_headers: tuple[str, ...] = ALLOWED_REQUEST_HEADERS
    allowed_response_headers: tuple[str, ...] = ALLOWED_RESPONSE_HEADERS
    patterns: tuple[str | re.Pattern[str], ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    replacement: str = "*"

    def __post_init__(self) -> None:
        object.__setattr__(self, "secrets", tuple(map(Hidden, self.secrets)))
        if (shortest := min(map(len, self.secrets), default=MIN_SECRET_CHARS)) < MIN_SECRET_CHARS:
            raise ConfigurationError(f"a secret must have at least {MIN_SECRET_CHARS} characters, not {shortest}")
        if not re.fullmatch(r"[!#$%&()*+.;<=>?@^_`|~-]", self.replacement):
            raise ConfigurationError(
                f"replacement must be one ASCII sign that JSON does not use, not {quote(self.replacement)}"
            )
        self.shapes()

    def shapes(self) -> tuple[Shape, ...]:
        """All that is looked for, the particular before the general. Raises `ConfigurationError` for an invalid pattern."""
        exact = [Shape("secret of yours", pattern) for secret in self.secrets for pattern in written_forms(secret)]
        own = [Shape(f"match of your pattern {number}", _compiled(p)) for number, p in enumerate(self.patterns, 1)]
        return (*exact, *own, *SHAPES)


@dataclass(frozen=True, slots=True)
class Secret:
    """Something that looks like a secret: what it looks like and where it is, never what it is.

    For one in the response body `byte` says where it begins, from 0, and `event` the number of its event, from 1.
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
    """A body that is still as it was compressed hides its secrets from us only."""
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
    """From `start` to `end` of `text` stands something that looks like a secret."""

    shape: str
    text: Text
    start: int
    end: int
    joined: JoinedText | None = None  # None: found in the bytes as they stand


_Look: TypeAlias = Callable[[bytes], Iterator[_Hit]]


class _Search:
    """Looks for what a policy takes for a secret, writes over it, and says where it stands."""

    def __init__(self, policy: ScrubPolicy) -> None:
        self._policy = policy
        self._shapes = policy.shapes()
        self._mark = policy.replacement

    # --- Where it looks

    def _in_line(self, data: bytes) -> Iterator[_Hit]:
        """In a path or a header's value."""
        return self._in_text(Characters(data), PERCENT_ESCAPES)

    def _in_json(self, data: bytes) -> Iterator[_Hit]:
        """In a JSON text, or any other."""
        return self._in_text(Characters(data), JSON_ESCAPES)

    def _in_stream(self, data: bytes) -> Iterator[_Hit]:
        """In the body of a response: first in what its events add up to, then in the bytes as they stand."""
        body = Characters(data)
        for joined in joined_texts(body):
            for hit in self._in_text(joined.text, JSON_ESCAPES):
                yield hit._replace(joined=joined)
        yield from self._in_text(body, JSON_ESCAPES)

    def _in_text(self, text: Text, escapes: Escapes) -> Iterator[_Hit]:
        for layer in layers(text, escapes):
            for shape in self._shapes:
                for found in shape.pattern.finditer(layer.text):
                    start, end = secret_span(found)
                    if not self._is_hidden(layer.text[start:end]):
                        yield _Hit(shape.name, layer, start, end)
            for value in named_values(layer):
                if not (self._is_hidden(value.text) or self._is_known(value.text)):
                    yield _Hit("value of a secret's name", value, 0, len(value.text))

    def _is_hidden(self, value: str) -> bool:
        """Nothing is left to be hidden: what was there has been."""
        return _NOTHING_TO_HIDE.fullmatch(value.replace(self._mark, "")) is not None

    def _is_known(self, value: str) -> bool:
        """It has a shape, whose beginning may stay; or it had."""
        found = (shape.pattern.search(value) for shape in self._shapes)
        return self._mark * 4 in value or any(match and secret_span(match)[1] == len(value) for match in found)

    # --- Hiding

    def scrubbed(self, recording: Recording) -> Recording:
        """The recording without the headers that are not allowed, and with every secret hidden."""
        request, policy = recording.request, self._policy
        if request is not None:
            headers = self._headers(request.headers, policy.allowed_request_headers)
            method, path = self.hide_in_line(request.method), self.hide_in_line(request.path)
            request = RecordedRequest(method, path, headers, self._request_body(request.body))
        body = self._hide(recording.body, self._in_stream)
        ends = accumulate(len(read.data) for read in recording.reads)
        reads = [Read(read.t, body[at - len(read.data) : at]) for read, at in zip(recording.reads, ends, strict=True)]
        headers = self._headers(recording.headers, policy.allowed_response_headers)
        return replace(recording, request=request, headers=headers, reads=tuple(reads))

    def hide_in_line(self, text: str) -> str:
        """The same line without the secrets."""
        return _to_text(self._hide(_to_bytes(text), self._in_line))

    def _hide(self, data: bytes, look: _Look) -> bytes:
        """The same bytes without the secrets, as many of them."""
        for _ in range(MAX_PASSES):
            buffer = bytearray(data)
            for hit in look(data):
                for at in range(hit.start, hit.end):
                    if not _is_kept(hit.text.text[at]):
                        hit.text.write(at, self._mark, buffer)
            if buffer == data:
                break
            data = bytes(buffer)
        return data

    def _headers(self, headers: Mapping[str, str], allowed: tuple[str, ...]) -> dict[str, str]:
        known = [entry.lower() for entry in allowed]
        beginnings = tuple(entry[:-1] for entry in known if entry.endswith("*"))
        kept = {}
        for name, value in headers.items():
            if name.lower() in CREDENTIAL_HEADERS:
                value = "".join(char if _is_kept(char) else self._mark for char in value)  # noqa: PLW2901
            if name.lower() in known or name.lower().startswith(beginnings):
                kept[name] = self.hide_in_line(value)
        return kept

    def _request_body(self, body: Any) -> Any:
        before = _json_bytes(body)
        after = self._hide(before, self._in_json)
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
            for hit in _new(self._in_json(data), len(data)):
                path = _path_to(data, hit.text.byte(hit.start))
                yield Secret(hit.shape, f"request body, {path}" if path else "request body")
        yield from self._secrets_in_headers(recording.headers, "response header")
        if secret := _unsearchable(recording):
            yield secret
        yield from self.secrets_in_response(recording.body)

    def secrets_in_response(self, body: bytes) -> Iterator[Secret]:
        """In the body of a response."""
        starts: list[int] | None = None
        for hit in _new(self._in_stream(body), len(body)):
            byte, last = hit.text.byte(hit.start), hit.text.byte(hit.end - 1)
            starts = event_starts(Characters(body)) if starts is None else starts
            number = bisect_right(starts, byte)
            place = f"response body, event {number}" if number else "response body"
            if hit.joined is not None:
                place += f", {hit.joined.name}{_spread(hit.joined, number, bisect_right(starts, last))}"
            yield Secret(hit.shape, place, byte, number)

    def _secrets_in_line(self, line: str, place: str) -> Iterator[Secret]:
        data = _to_bytes(line)
        return (Secret(hit.shape, place) for hit in _new(self._in_line(data), len(data)))

    def _secrets_in_headers(self, headers: Mapping[str, str], kind: str) -> Iterator[Secret]:
        for name, value in headers.items():
            if name.lower() in CREDENTIAL_HEADERS and not self._is_hidden(value):
                yield Secret("credential", f"{kind} {name}")
            else:
                yield from self._secrets_in_line(value, f"{kind} {name}")


def _is_kept(char: str) -> bool:
    return char in _KEPT or char.isspace() or char < " "


def _new(hits: Iterator[_Hit], size: int) -> Iterator[_Hit]:
    """The hits that do not overlap with earlier ones: the same secret is seen by several shapes, and in several ways."""
    seen = bytearray(size)
    for hit in hits:
        places = [hit.text.byte(at) for at in range(hit.start, hit.end)]
        if not any(seen[place] for place in places):
            yield hit
        for place in places:
            seen[place] = 1


def _spread(joined: JoinedText, first: int, last: int) -> str:
    pieces = zip(joined.parts, joined.events, strict=True)
    count = sum(end > start and first <= event <= last for (_, start, end), event in pieces)
    return f" (across {count} deltas)" if count > 1 else ""


def _path_to(data: bytes, byte: int) -> str:
    """The path to the string in a JSON text that holds the byte; empty if that is a key, or the whole."""
    body = Characters(data)
    for item in literals(body.text):
        if body.byte(item.start) <= byte < body.byte(item.end):
            return ".".join(map(str, item.path))
    return ""
