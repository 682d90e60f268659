"""From arguments to a request: URL, query, header fields, JSON, keys. Pure, except that a file in a body is read.

    endpoint = Endpoint("https://api.anthropic.com", credential("sk-…", None), headers={})
    request = endpoint.request("POST", "/v1/messages", route=route, body={"model": …})

The key is in one header field of a request and nowhere else: no log, no repr, no error. A server may quote it; `Secrets`
removes it from the server's texts.
"""

from __future__ import annotations

import base64
import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, TypeVar

from rawsse.client.network.route import PORTS, Origin, Route
from rawsse.errors import ConfigurationError, Hidden, quote
from rawsse.messages.lens import Lens, sendable_json, well_formed

T = TypeVar("T")

ANTHROPIC_VERSION = "2023-06-01"
"""The default of `anthropic-version`: every gateway accepts it."""

Query: TypeAlias = Mapping[str, Any]
"""Query parameters. A list is sent as repeated parameters `name[]`; None is omitted."""

Credential = tuple[str, str]
"""The header field that holds the key or the token."""

# Patterns are compiled on first use: most programs need few of them, and start sooner.

# RFC 3986, 2: the characters of a URL, except delimiters that a base URL does not need.
_URL_CHARS = r"[A-Za-z0-9._~:@/\[\]!$&'()*+,;=%-]*"

# RFC 9110, 5.6.2: token.
_NAME = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"

# The fields for a request's target and framing (RFC 9112, 3.2 and 6): duplicates allow request smuggling.
_OURS = ("host", "content-length", "transfer-encoding")


class RequestData(NamedTuple):
    """A request, ready to send. `host_field` is the value of `Host`."""

    method: str
    target: str
    host_field: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    secrets: Secrets | None = None
    """The secrets in `headers`, if they are known."""

    def __repr__(self) -> str:  # without the header fields: they hold the key
        return f"RequestData({self.method} {self.target} to {self.host_field})"


# --- Secrets that a server may quote -------------------------------------------------------------------------------

MIN_SECRET_CHARS = 8
"""Shorter values, and all-letter values below twice this length, are ordinary words, which also occur in harmless texts."""

MIN_CUT_CHARS = 4
"""How much of a secret may remain where `quote` cut a text: too little to reveal it."""

MIN_BEGINNING_CHARS = 20
"""A prefix of a secret is removed if it is this long: a server or a lost connection may truncate a secret. The first 13
characters are the same in all keys of the API."""

MAX_ESCAPE_LAYERS = 5
"""How many kinds of escapes may be nested: HTML in a JSON string in a URL's query are three."""

# Fields that contain no secret: an error must keep the name of a beta, and a response may repeat its request's id.
_PUBLIC = (
    r"accept(?:-(?:charset|encoding|language))?|content-(?:encoding|language|length|type)"
    r"|anthropic-(?:beta|dangerous-direct-browser-access|user-profile-id|version|workspace-id)"
    r"|x-stainless-.*|sec-(?:ch|fetch)-.*|x-forwarded-(?:for|host|port|proto)"
    r"|user-agent|connection|origin|(?:http-)?referer|cache-control|pragma|te|via"
    r"|(?:x-)?(?:request|correlation|trace)-id|traceparent|tracestate|idempotency-key"
)
_MEMBER = r'(?<!\\)"\s*:\s*\Z'  # a value of a JSON object comes next

# The escapes of JSON (in the strings of JSON too), of URLs and of HTML (which browsers read without their `;` too), and ends of
# lines, since base64 is often broken into lines. It takes linear time: no repeated part can begin in the middle of itself.
_ESCAPE = (
    r"(?i)(?:\\+(?:u00|x)|%(?:25)*)([0-9a-f]{2})|[\r\n]|\\+([^\\%&]?)"
    r"|&(?:amp;?)*(?:#x0*([0-9a-f]{1,2});?|#0*([0-9]{1,3});?|([a-z][0-9a-z]{1,30};|(?-i:amp|gt|lt|quot|AMP|GT|LT|QUOT)))"
)
# The place where `quote` cut a text, and a partial escape before it.
_CUT = r"(?i)(?:\\+[ux]?[0-9a-f]{0,3}|%(?:25)*[0-9a-f]?|&[#a-z0-9;]{0,20})?(?=['\"]… \([0-9]+ in all\))"


class Secrets:
    """The values of header fields that must not appear in errors: the key, and those that the caller added.

    They are found in plain text, in base64, and escaped for JSON, URLs and HTML; `[name]` replaces the value of a field.
    """

    def __init__(self, headers: Iterable[tuple[str, str]]) -> None:
        self.values: dict[str, str] = {}
        """Each value, and the name of its field."""
        for name, value in headers:
            if not re.fullmatch(_PUBLIC, name.lower()):
                self.values |= {Hidden(part): name for part in _parts(value) if _is_secret(part)}
        marks = {form: f"[{name}]" for value, name in self.values.items() for form in _forms(value)}
        self._marks = sorted(marks.items(), key=lambda item: -len(item[0]))  # longest first: one may be part of another

    def removed(self, text: str) -> str:
        """The text without the secrets. JSON stays valid, and the number of lines stays the same. Takes linear time."""
        plain = _Plain(text)
        for form, mark in self._marks:
            beginning = form[:MIN_BEGINNING_CHARS]
            if beginning in plain.text:
                pieces, end = list[str](), 0
                while (at := plain.text.find(beginning, end)) >= 0:
                    pieces.append(text[plain.below(end) : plain.below(at)])
                    pieces.append(f'"{mark}"' if form.isdigit() and re.search(_MEMBER, pieces[-1][-40:]) else mark)
                    end = at + len(beginning)
                    while end < at + len(form) and plain.text[end : end + 1] == form[end - at]:
                        end += 1
                    pieces += re.findall(r"\\+[rn]|[\r\n]", text[plain.below(at) : plain.below(end)])
                text = "".join([*pieces, text[plain.below(end) :]])
                plain = _Plain(text)
        return text

    def removed_from_message(self, message: str) -> str:
        """The same for a message of rawsse, in which `quote` may have truncated a secret."""
        *pieces, last = re.split(_CUT, self.removed(message))
        return "".join([*map(self._without_beginning, pieces), last])

    def _without_beginning(self, text: str) -> str:
        """`text` without a partial secret at its end, which is shorter than those that `removed` finds."""
        plain = _Plain(text)
        for size in range(MIN_BEGINNING_CHARS - 1, MIN_CUT_CHARS - 1, -1):
            for form, mark in self._marks:
                if plain.text.endswith(beginning := form[:size]):
                    return text[: plain.below(len(plain.text) - len(beginning))] + mark
        return text


class _Plain:
    """A text with its escapes decoded, including nested ones, in lower case.

    `below` returns the offset of a character in the escaped text.
    """

    def __init__(self, escaped: str, layers: int = MAX_ESCAPE_LAYERS) -> None:
        self._escaped = escaped
        has_escapes = any(sign in escaped for sign in "\\%&")  # checked first: nearly all texts have none
        text = re.sub(_ESCAPE, _char, escaped) if has_escapes else escaped.replace("\n", "").replace("\r", "")
        self._deeper = _Plain(text, layers - 1) if layers > 1 and text != escaped else None
        # In lower case, that letter becomes two.
        self.text: str = self._deeper.text if self._deeper else text.replace("\u0130", "I").lower()

    def below(self, at: int) -> int:
        """The offset of the character `at`, or of its escape."""
        if self._deeper is not None:
            at = self._deeper.below(at)
        begins, ahead = self._shifts
        return at + ahead[bisect_right(begins, at) - 1]

    @cached_property
    def _shifts(self) -> tuple[list[int], list[int]]:
        """The characters at which the offset to the escaped text changes, and the offsets."""
        begins, ahead = [0], [0]
        for found in re.finditer(_ESCAPE, self._escaped):
            ahead.append(ahead[-1] + len(found[0]) - len(_char(found)))
            begins.append(found.end() - ahead[-1])
        return begins, ahead


def _char(found: re.Match[str]) -> str:
    """The character of an escape; empty for a line end, and for backslashes that escape an escape."""
    code, sign, hexadecimal, decimal, name = found.groups()
    if number := code or hexadecimal or decimal:
        return chr(int(number, 10 if decimal else 16))
    if name is None:
        return "" if sign in ("n", "r") else sign or ""
    from html import unescape  # loads 2,000 names, which few texts need

    char = unescape(f"&{name}")
    return char if len(char) == 1 else found[0]  # no character has that name


def _is_secret(value: str) -> bool:
    return len(value) >= MIN_SECRET_CHARS * (2 if value.isalpha() else 1)


def _parts(value: str) -> Iterator[str]:
    """A field's value, and its parts that may be quoted alone, including the password of `Basic` credentials (RFC 7617)."""
    yield from (value, *re.split(r"[\s;,=]+", value))
    scheme, _, token = value.partition(" ")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            both = base64.b64decode(token, validate=True).decode()
            yield from (both, both.partition(":")[2])


def _forms(value: str) -> Iterator[str]:
    """The value without escapes, and its forms inside base64 (RFC 4648, 4 and 5), in lower case."""
    yield _Plain(value).text
    for before in range(3):
        # 3 bytes are 4 characters: their form depends on the number of preceding bytes.
        data = bytes(before) + value.encode()
        known = base64.b64encode(data)[-(-before * 8 // 6) : len(data) * 8 // 6].decode().lower()
        yield from {known, known.replace("+", "-").replace("/", "_")}


class Endpoint:
    """The base URL, the header fields and the credential of every request. Immutable."""

    def __init__(self, base_url: str, credential: Credential | None, headers: Mapping[str, str]) -> None:
        """Raises `ConfigurationError` for an invalid URL, or a header field that is not allowed."""
        from urllib.parse import urlsplit  # takes two milliseconds to load, and not every program makes a client

        if "@" in base_url.partition("//")[2].partition("/")[0] or "?" in base_url or "#" in base_url:
            # Checked first, and not quoted: it may be a password.
            raise ConfigurationError("the base URL may not have a user name (@), a query (?) or a fragment (#)")
        try:
            parts = urlsplit(base_url)
            port = parts.port
            host = parts.hostname or ""
            host = host if host.isascii() else host.encode("idna").decode()
        except ValueError as exc:
            raise ConfigurationError(f"the base URL is not valid ({exc}): {quote(base_url)}") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ConfigurationError(f"the base URL must begin with http:// or https:// and a host: {quote(base_url)}")
        if not re.fullmatch(_URL_CHARS, host + parts.path):
            raise ConfigurationError(f"the base URL has a character that must be %-encoded: {quote(base_url)}")
        self.base_url = base_url
        self.origin = Origin(parts.scheme, host, PORTS[parts.scheme] if port is None else port)
        self.prefix = parts.path.rstrip("/")
        """The path of the base URL, which prefixes every path."""
        self.headers = header_fields(headers)
        self.credential = credential
        self.secrets = Secrets((*self.headers.items(), *([credential] if credential else ())))
        """The secrets in the fields and the credential, collected once: for each request it would double the cost."""

    def request(
        self,
        method: str,
        path: str,
        *,
        route: Route,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Query | None = None,
    ) -> RequestData:
        """The request; `path` begins with `/v1/`.

        Raises `ConfigurationError` if the request cannot be written, or has no key.
        """
        queried = query_string(query or {})
        target = f"{self.prefix}{path}?{queried}" if queried else self.prefix + path
        fields = {
            **({} if body is None else {"content-type": "application/json"}),
            "accept": "application/json",  # as the official SDKs send it, even for streams
            "accept-encoding": "identity",  # compression delays events
            "user-agent": "rawsse",
            "anthropic-version": ANTHROPIC_VERSION,
            **self.headers,
            **header_fields(headers or {}),
        }
        content = b"" if body is None else _encode(body)
        if "x-api-key" not in fields and "authorization" not in fields:
            if self.credential is None:
                words = "set the environment variable ANTHROPIC_API_KEY, or give api_key (or auth_token)"
                raise ConfigurationError(f"no key: {words}")
            fields |= header_fields(dict([self.credential]))
        return RequestData(
            method=method,
            target=route.target(target),
            host_field=self.origin.host_field,
            headers=(*fields.items(), *route.proxy_fields()),
            body=content,
            secrets=None if headers or route.proxy else self.secrets,
        )


def credential(api_key: str | None, auth_token: str | None) -> Credential | None:
    """The header field for a key or a token; None without either. Raises `ConfigurationError` for both."""
    if api_key is not None and auth_token is not None:
        raise ConfigurationError("give api_key or auth_token, not both")
    # A key read from a file often ends with a newline. A blank key counts as absent.
    key, token = (api_key or "").strip(), (auth_token or "").strip()
    if key:
        return ("x-api-key", Hidden(key))
    return ("authorization", Hidden(f"Bearer {token}")) if token else None


def header_fields(headers: Mapping[str, str]) -> dict[str, str]:
    """The fields with their names in lower case: names are case-insensitive (RFC 9110, 5.1). The last of several values is
    used.

    Raises `ConfigurationError` for an invalid header field. Errors never quote a value: it may be the key.
    """
    fields = {name.lower(): Hidden.of(value) for name, value in headers.items()}
    for name, value in fields.items():
        if not re.fullmatch(_NAME, name):
            raise ConfigurationError(f"not the name of a header field: {quote(name)}")
        if name in _OURS:
            raise ConfigurationError(f"the header field {quote(name)} is written by rawsse itself")
        if not isinstance(value, str):
            raise ConfigurationError(f"the header field {quote(name)} must be a string, not {type(value).__name__}")
        if not value.isascii() or not value.isprintable():
            raise ConfigurationError(f"the header field {quote(name)} has a character that HTTP does not allow")
    return fields


def listed(name: str, value: Any, form: str = "a list") -> list[Any]:
    """The items of an argument that must be a list, or another iterable of objects. Raises `ConfigurationError`."""
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise ConfigurationError(f"{name} must be {form}, not {quote(repr(value))}")
    return list(value)


def typed(name: str, value: T, wanted: type[Any]) -> T:
    """An argument that must have this type, or be None. Raises `ConfigurationError`, which does not quote the value: it may
    hold a key."""
    if value is not None and not isinstance(value, wanted):
        raise ConfigurationError(f"{name} must be a {wanted.__name__}, not {type(value).__name__}")
    return value


def read_custom_headers(text: str) -> dict[str, str]:
    """The fields in `ANTHROPIC_CUSTOM_HEADERS`: `Name: value`, one a line. Raises `ConfigurationError`."""
    text, fields = Hidden(text), dict[str, str]()
    for line in map(Hidden, filter(str.strip, text.split("\n"))):
        name, colon, value = map(Hidden, line.partition(":"))
        if not colon or not name.strip():
            # The line is not quoted: it may be a key.
            raise ConfigurationError("ANTHROPIC_CUSTOM_HEADERS must have lines of the form `Name: value`")
        fields[name.strip().lower()] = Hidden(value.strip())
    return fields


def query_string(params: Query) -> str:
    """The query of a URL, without its question mark: `limit=5&lifecycle%5B%5D=active&lifecycle%5B%5D=retired`."""
    pairs: list[tuple[str, object]] = []
    for name, value in params.items():
        if isinstance(value, list | tuple):
            pairs += [(f"{name}[]", item) for item in value]
        elif value is not None:
            pairs.append((name, value))
    return "&".join(f"{encoded(name, name)}={encoded(name, value)}" for name, value in pairs)


def encoded(name: str, value: object) -> str:
    """A value encoded for a URL. Raises `ConfigurationError` for other types, and for lone surrogates."""
    from urllib.parse import quote as percent_encoded  # as above

    if not isinstance(value, str | int | float):
        raise ConfigurationError(f"the query parameter {quote(name)} may not be {quote(repr(value))}")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    # RFC 3986, 2.3: unreserved characters are unchanged, all others are %-encoded UTF-8.
    try:
        return percent_encoded(text, safe="")
    except UnicodeEncodeError:
        raise ConfigurationError(f"{name} is not Unicode text: {quote(text)}") from None


def _encode(body: Mapping[str, Any]) -> bytes:
    try:
        return well_formed(_JSON.encode(dict(body))).encode()
    except (TypeError, ValueError, RecursionError, OSError) as exc:
        raise ConfigurationError(f"the request cannot be written as JSON: {exc}") from None


def _plain(value: object) -> object:
    from datetime import date  # takes a millisecond to load, and most requests are plain JSON

    if isinstance(value, Lens):  # an answer's content may be sent back unchanged
        return sendable_json(value.raw)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Iterator | ValuesView | KeysView):
        return list(value)
    if isinstance(value, os.PathLike):  # the `data` of an image or a document, as with the official SDK
        with open(value, "rb") as file:
            return base64.b64encode(file.read()).decode()
    raise TypeError(f"{quote(repr(value))} is not a JSON value")


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain)
"""Writes the JSON of a request as the official SDK does: compact, UTF-8, without NaN."""
