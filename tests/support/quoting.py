"""A server that quotes a secret: in which forms, and where in its response.

form = FORMS["percent-encoded"]
wire = PLACES["a message"](form(KEY))
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Mapping
from urllib.parse import quote

from support.answers import SSE_HEAD, chunked, head, plain
from support.sampling import one_in

__all__ = ["FORMS", "IN_HEADERS", "PLACES", "some_forms"]

Form = Callable[[str], str]


def each(pattern: str) -> Form:
    """Every character by its number."""
    return lambda text: "".join(pattern.format(ord(char)) for char in text)


def in_base64(before: str = "", after: str = "") -> Form:
    return lambda text: base64.b64encode(f"{before}{text}{after}".encode()).decode()


FORMS: Mapping[str, Form] = {
    "as it is": str,
    "in JSON": lambda text: json.dumps(text)[1:-1],
    "in a string of JSON": lambda text: json.dumps(json.dumps(text))[1:-1],
    "each in JSON": each("\\u{:04x}"),
    "each in a string of JSON": each("\\\\u{:04X}"),
    "in JSON with escaped slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "percent-encoded": lambda text: quote(text, safe=""),
    "percent-encoded twice": lambda text: quote(quote(text, safe=""), safe=""),
    "each percent-encoded": each("%{:02x}"),
    "in HTML": html.escape,
    "in HTML twice": lambda text: html.escape(html.escape(text)),
    "each in HTML": each("&#{:d};"),
    "each in HTML by hexadecimal": each("&#x{:X};"),
    "in base64": in_base64(),
    "in base64 after one": in_base64("x", "y"),
    "in base64 after two": in_base64("me", "…"),
    "in base64 of URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "in base64 in a URL": lambda text: quote(in_base64("Bearer ")(text), safe=""),
}


def some_forms(place: str) -> Mapping[str, Form]:
    """A few of the forms, others for each place: where each costs a whole exchange, all together are all of them. The plain
    suite takes one for each place."""
    at, step = [*PLACES, *IN_HEADERS].index(place), 6 * one_in(3)
    return dict([*FORMS.items()][at % step :: step])


def _json(form: str, status: str = "401 No", **fields: str) -> bytes:
    return plain(form.encode(), status, content_type="application/json", **fields)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


ERROR = '{"type":"error","error":{"type":"authentication_error","message":"no"}}'


def _events(*data: str, name: str = "error") -> bytes:
    return SSE_HEAD + chunked(*(f"event: {name}\ndata: {each}\n\n".encode() for each in data))


PLACES: dict[str, Callable[[str], bytes]] = {
    "a message": lambda s: _json(f'{{"type":"error","error":{{"type":"x","message":{_string(f"bad key {s}")}}}}}'),
    "a key of an object": lambda s: _json(f'{{"error":{{"message":"no","details":{{{_string(s)}:[1]}}}}}}'),
    "a list": lambda s: _json(f'{{"detail":[{{"msg":"no","input":[{_string(s)}]}}]}}'),
    "the type": lambda s: _json(f'{{"type":"error","error":{{"type":{_string(s)},"message":"no"}}}}'),
    "the id in the body": lambda s: _json(f'{{"error":{{"message":"no"}},"request_id":{_string(s)}}}'),
    "a title": lambda s: plain(f"<html><title>{s} no</title></html>".encode(), "403 No", content_type="text/html"),
    "a page": lambda s: plain(f"<p>The key {s} is wrong".encode(), "502 No", content_type="text/html"),
    "a page, cut": lambda s: plain(f"<p>{'x' * 60}{s} is wrong".encode(), "502 No", content_type="text/html"),
    "a text": lambda s: plain(f"The key {s} is wrong".encode(), "429 No"),
    "another answer": lambda s: plain(f"<p>The key {s} is wrong".encode(), content_type="text/html"),
    "another answer, cut": lambda s: plain(f"<p>{'x' * 60}{s}".encode(), content_type="text/html"),
    "an error with 200": lambda s: _json(f'{{"error":{{"message":{_string(s)}}}}}', "200 OK"),
    "an error event": lambda s: _events(f'{{"type":"error","error":{{"type":"x","message":{_string(s)}}}}}'),
    "a key in an error event": lambda s: _events(f'{{"type":"error","error":{{"message":"no",{_string(s)}:1}}}}'),
    "a name that comes twice": lambda s: _events(
        f'{{"a":{_string(s)},"type":"error","error":{{"message":"no"}},"a":1}}'
    ),
    "an error event in words": lambda s: _events(f"the key {s} is wrong"),
    "an event that is no JSON": lambda s: _events(f"{{ {s}", name="message_start"),
    "an event that is no JSON, cut": lambda s: _events(f"{{ {'x' * 60}{s} is wrong", name="message_start"),
    "the name of an event": lambda s: _events("{", name=f"{s}\x7f"),
    "half an event": lambda s: SSE_HEAD + chunked(f"event: error\ndata: {s}".encode()),
    "what is no chunk": lambda s: SSE_HEAD + f"key {s}\r\n".encode(),
}
"""Where in a body, and in its events. A client that streams an answer fails with each."""

IN_HEADERS: dict[str, Callable[[str], bytes]] = {
    "the place of a redirect": lambda s: plain(b"", "307 No", location=f"https://elsewhere.example/{s}/v1?x={s}"),
    "a header field": lambda s: _json(ERROR, x_echo=f"key={s}"),
    "the request id": lambda s: _json(ERROR, request_id=s),
    "the time to wait": lambda s: _json(ERROR, "429 No", retry_after=s, anthropic_ratelimit_tokens_limit=s),
    "the reason": lambda s: _json(ERROR, f"401 {s}"),
    "the request id of a stream": lambda s: (
        head(content_type="text/event-stream", request_id=s, anthropic_ratelimit_x=s, transfer_encoding="chunked")
        + chunked(f"event: error\ndata: {ERROR}\n\n".encode())
    ),
}
