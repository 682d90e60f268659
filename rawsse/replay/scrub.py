"""Hide the secrets in a recording before it is written, even if they are spread over several deltas.

    recording = checked(scrub(recording, ScrubPolicy(secrets=(api_key,))))
    recording.save("answer.sse.jsonl")

    for secret in find_secrets(recording):
        print(secret)           # Anthropic key in the response body, event 9, text of block 0 (across 3 deltas)

Only headers on a list are kept. Everything else (the URL, the kept headers, and both bodies) is searched as its reader sees
it: with escapes decoded, and in the text joined from the deltas. Each byte of a secret is replaced by `*` in place, so
nothing else changes: the JSON around it, the boundaries of deltas and reads, and the times are kept. The prefix that names
the kind of key is kept (`sk-ant-api03-****`), and so are JSON syntax and line ends. Scrubbing is idempotent.

A secret has a known shape (`SHAPES`), or a name that identifies it as one (`named_values`). Shapes err on the side of hiding: a
made-up key in an example looks like a real one. But ids (`req_…`, `msg_…`, `toolu_…`), signatures of thinking, images and other
long base64 must never match: every stream of the Messages API is full of them, and its recording could not be played.

Every pattern takes linear time: repetitions are bounded, or cannot begin in the middle of themselves. Most secrets do not
follow a letter or digit (`task-…` is not an `sk-…`); a pattern checks that after the prefix, since a search for plain
characters is many times faster.
"""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any, Literal, NamedTuple, TypeAlias

from rawsse.errors import ConfigurationError, Hidden, SecretRemainsError, quote
from rawsse.replay.recording import Read, RecordedRequest, Recording
from rawsse.replay.texts import (
    JSON_ESCAPES,
    PERCENT_ESCAPES,
    Characters,
    Escapes,
    Joined,
    Part,
    Text,
    event_starts,
    joined_texts,
    layers,
    literals,
    unescaped,
)

# --- Known shapes ----------------------------------------------------------------------------------------------------

MIN_BASE64_CHARS = 8
"""The shortest base64 to search for: fewer characters would match by chance."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of secret. `pattern` matches one with its context, and `secret_span` returns the secret in a match."""

    name: str
    pattern: re.Pattern[str] = field(repr=False)  # it may contain a secret of the caller


def secret_span(found: re.Match[str]) -> tuple[int, int]:
    """The span of the secret in a match: the group `secret`, else the first group, else the whole match."""
    if "secret" in found.re.groupindex:
        return found.span("secret")
    return found.span(1 if found.re.groups else 0)


def written_forms(secret: str) -> Iterator[re.Pattern[str]]:
    """Patterns for one secret: plain, with any characters escaped for a URL or HTML, and inside base64."""
    yield re.compile(re.escape(secret))
    # RFC 3986, 2.1: hexadecimal digits in either case, for every byte of UTF-8. HTML: `html.escape`, and by number.
    yield re.compile(
        "".join(f"(?:{re.escape(char)}|(?i:{_percent_encoded(char)}|{_of_html(char)}))" for char in secret)
    )
    for before in range(3):
        # 3 bytes are 4 characters, which depend on the number of preceding bytes.
        data = bytes(before) + secret.encode("utf-8", "surrogatepass")
        # The characters at both ends depend on the bytes around the secret, too.
        known = base64.b64encode(data)[-(-before * 8 // 6) : len(data) * 8 // 6].decode()
        if len(known) >= MIN_BASE64_CHARS:
            yield re.compile(re.escape(known).replace(r"\+", "+").replace("+", "[+-]").replace("/", "[/_]"))


def _percent_encoded(char: str) -> str:
    return "".join(f"%(?:25){{0,3}}{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))


def _of_html(char: str) -> str:
    name = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}.get(char)
    return f"&(?:amp;)?(?:#0{{0,4}}{ord(char)};|#x0{{0,4}}{ord(char):x};{f'|{name};' if name else ''})"


def _shape(name: str, pattern: str) -> Shape:
    return Shape(name, re.compile(pattern, re.ASCII))


def _token(name: str, prefix: str, secret: str) -> Shape:
    """A secret after a prefix that does not follow a letter or digit, except those of a %-encoded character."""
    before = f"(?:(?<![A-Za-z0-9]{prefix})|(?<=%[0-9A-Fa-f]{{2}}{prefix}))"
    return _shape(name, f"{prefix}{before}(?P<secret>{secret})")


# A placeholder for a secret, as in code and manuals.
_PLACEHOLDER = r"(?![{$<]|%7B|(?i:your[_-]))"

SHAPES: tuple[Shape, ...] = (
    # sk-ant-api03-… (API), sk-ant-admin01-… (administration), sk-ant-oat01-… and -ort01-… (OAuth), sk-ant-sid01-… (session)
    _shape("Anthropic key", r"sk-ant-[a-z]{1,12}\d{1,3}-(?P<secret>[\w-]{8,})"),
    # The form without a kind, of the first keys.
    _shape("Anthropic key", r"sk-ant-(?![a-z]{1,12}\d{1,3}-)(?=[\w-]{0,64}\d)(?P<secret>[\w-]{20,})"),
    # sk-… followed by 48 letters and digits; later ones name their kind, and so do those of OpenRouter (sk-or-v1-…).
    _shape("OpenAI key", r"sk-(?<![A-Za-z0-9]sk-)(?:proj|svcacct|admin|None|or-v\d)-(?P<secret>[\w-]{20,})"),
    _token("OpenAI key", r"sk-", r"[A-Za-z0-9]{20,}"),
    # AKIA…: long-lived, ASIA…: temporary. With a star where it has been hidden, since the next shape leans on it.
    _token("AWS access key id", r"A[KS]IA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    # The secret key is just 40 characters of base64: it is recognized by a key id before it, or by its usual names.
    _shape(
        "AWS secret key",
        r"A[KS]IA(?<![A-Za-z0-9]A[KS]IA)[^\w\s]*+[A-Z0-9]{0,16}(?![A-Za-z0-9])(?s:.){1,120}?"
        r"(?<![A-Za-z0-9/+=])(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
    ),
    _shape(
        "AWS secret key",
        r"""(?i:secret_?access_?key|aws_?secret_?key|session_?token)["'\s:=\\]{1,12}(?P<secret>[A-Za-z0-9/+=]{40,})""",
    ),
    # ghp_ (personal), gho_ (OAuth), ghu_ and ghs_ (apps), ghr_ (refresh); github_pat_ (fine-grained)
    _token("GitHub token", r"gh[pousr]_", r"[A-Za-z0-9]{20,}"),
    _token("GitHub token", r"github_pat_", r"\w{20,}"),
    # xoxb- (bot), xoxp- (user), xoxa-, xoxe-, xoxr-, xoxs-; xapp- (app)
    _token("Slack token", r"x(?:ox[abeoprs]|app)-", r"[A-Za-z0-9-]{10,}"),
    _shape("Slack webhook", r"hooks\.slack\.com/services/(?P<secret>T\w{6,}/B\w{6,}/\w{16,})"),
    # AIza…: API keys, 39 characters in all; ya29.…: OAuth access tokens
    _token("Google key", r"AIza", r"[\w-]{30,}"),
    _token("Google token", r"ya29\.", r"[\w-]{20,}"),
    # sk_ (secret), rk_ (restricted); whsec_ signs webhooks. Publishable keys (pk_) are public.
    _shape("Stripe key", r"k_(?:live|test)_(?<=[sr]k_...._)(?<![A-Za-z0-9][sr]k_...._)(?P<secret>[A-Za-z0-9]{16,})"),
    _token("Stripe key", r"whsec_", r"[A-Za-z0-9]{16,}"),
    # GOCSPX-: the secret of an OAuth client. A service account's key is a private key, below.
    _token("Google token", r"GOCSPX-", r"[\w-]{20,}"),
    # Hosts of models
    _token("Hugging Face token", r"hf_", r"[A-Za-z0-9]{30,}"),
    _token("Groq key", r"gsk_", r"[A-Za-z0-9]{40,}"),
    _token("xAI key", r"xai-", r"[A-Za-z0-9]{40,}"),
    _token("Perplexity key", r"pplx-", r"[A-Za-z0-9]{40,}"),
    _token("Replicate token", r"r8_", r"[A-Za-z0-9]{32,}"),
    # lsv2_pt_ (personal), lsv2_sk_ (service): 32 hexadecimal digits, an underscore, 10 more
    _token("LangSmith key", r"lsv2_(?:pt|sk)_", r"[0-9a-f]{32}\w{0,16}"),
    # Packages and code: glpat- (personal), gldt- (deploy), glrt- (runner) …; a token of PyPI begins with its version, 2: Ag
    _shape("GitLab token", r"gl(?<![A-Za-z0-9]gl)(?:pat|dt|rt|ptt|cbt|soat|ft|imt|agent)-(?P<secret>[\w-]{20,})"),
    _token("npm token", r"npm_", r"[A-Za-z0-9]{36,}"),
    _token("PyPI token", r"pypi-Ag", r"[\w-]{32,}"),
    # Clouds: dop_ (personal), doo_ (OAuth), dor_ (refresh); dapi with 32 hexadecimal digits; 3 parts, the last of 43
    _token("DigitalOcean token", r"do[opr]_v1_", r"[0-9a-f]{64}"),
    _token("Databricks token", r"dapi", r"[0-9a-f]{32}(?![A-Za-z0-9])"),
    # Azure: a connection string; the secret of an application (…8Q~…); a key of 84 characters with a mark in its middle
    _shape("Azure key", r"AccountKey=(?P<secret>[A-Za-z0-9+/]{86}==)"),
    _shape("Azure key", r"SharedAccess(?:Key|Signature)=(?P<secret>[A-Za-z0-9+/%]{40,}=?)"),
    _shape("Azure key", r"Q~(?<=[\w.~-]{3}\dQ~)(?P<secret>[\w.~-]{31,34})(?![\w.~-])"),
    _shape("Azure key", r"(?<![A-Za-z0-9])[A-Za-z0-9]{52}JQQJ9[A-Za-z0-9]{20,30}(?![A-Za-z0-9])"),
    # Messages: SG. with parts of 22 and 43; the number of a bot, a colon and 35 more; SK (key) and AC (account) with 32
    # hexadecimal digits; three parts, the first of which is a bot's number in base64
    _token("SendGrid key", r"SG\.", r"[\w-]{16,32}\.[\w-]{32,64}"),
    _shape("Telegram token", r":AA(?<=\d{8}:AA)(?P<secret>[\w-]{33})(?![\w-])"),
    _token("Twilio key", r"(?:SK|AC)", r"[0-9a-f]{32}(?![A-Za-z0-9])"),
    _shape("Discord token", r"[MNO](?<![\w.-][MNO])[\w-]{23,27}\.(?P<secret>[\w-]{6}\.[\w-]{27,38})(?![\w-])"),
    # RFC 7468, with the header lines of RFC 1421; PGP calls it a block. The end may have been cut off. It ends where JSON
    # begins or ends: in the body of a response, the fields of the next event would look like those lines.
    _shape(
        "private key",
        r"-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"(?P<secret>(?:\s{0,4}[A-Za-z-]{2,32}:[^\n\"{}]{0,200}\n){0,8}\s{0,4}[A-Za-z0-9+/=]{16,}[A-Za-z0-9+/=\s]*)",
    ),
    # RFC 7515: base64url parts, the first of them the JSON of a header ('{"' is eyJ).
    _shape("JSON Web Token", r"eyJ(?<![\w-]eyJ)[\w-]{10,}(?:\.[\w-]{8,}){1,4}"),
    # RFC 6750. In prose ("bearer of bad news"), the next word is short, or has no digit.
    _shape("bearer token", r"(?i:bearer)[ \t]{1,4}(?=[\w.~+/-]{0,256}\d)(?P<secret>[\w.~+/-]{16,}=*)"),
    # RFC 7617, only after the name of the header: "basic" is a common word.
    _shape(
        "Basic credentials",
        r"""(?i:authorization)["'\s:=\\]{1,12}(?i:basic)[ \t]{1,4}(?P<secret>[A-Za-z0-9+/]{8,}=*)""",
    ),
    # RFC 3986, 3.2.1: user:password@host
    _shape(
        "password in a URL",
        r"""://[^\s/?#:@"'<>\\]{0,256}:"""
        + _PLACEHOLDER
        + r"""(?!(?:pass(?:word|wd)?|pwd|secret)@)(?P<secret>[^\s/?#@"'<>\\]{1,256})@[A-Za-z0-9\[]""",
    ),
    # Parameters of a query or a form. Shorter values are not keys, and common in manuals.
    _shape(
        "key in a query",
        r"(?:[?&#;]|\A\"?)(?i:(?:api|access|auth|secret|private|subscription)?[_-]?key|(?:[a-z]{2,16}[_-])?token|auth"
        r"|(?:client[_-]?)?secret|passw(?:or)?d|pwd|sig|(?:x-(?:amz|goog)-)?signature)="
        + _PLACEHOLDER
        + r"(?P<secret>[\w.~+/=%:!@$*-]{8,})",
    ),
)
"""The known shapes, the particular ones before the general."""


# --- Names whose value is a secret -----------------------------------------------------------------------------------

_KEYS = ("api", "secret", "private", "access", "subscription", "signing", "encryption", "account")
_TOKENS = ("access", "refresh", "auth", "api", "bearer", "bot", "session", "security", "authorization")
SECRET_NAMES: tuple[str, ...] = (
    *("password", "passwd", "passphrase", "secret", "credential", "authorization"),
    *(f"{kind}key" for kind in _KEYS),
    *(f"{kind}token" for kind in _TOKENS),
)
"""The endings of names of secrets, in lower case and without digits and punctuation: `DB_PASSWORD`, `client_secret`,
`accessToken2`."""

MIN_VALUE_CHARS = 8
"""The shortest value that is hidden: shorter ones are types or placeholders as often as passwords."""

# A member of a JSON object with a string value, which may be incomplete. Objects do not count: a tool's schema may have a
# property called `password`.
_MEMBER = re.compile(
    r'"(?P<name>[A-Za-z_$][\w.$ -]{4,63})"\s{0,4}:\s{0,4}"(?=(?P<value>(?:[^"\\]++|\\.)*+))', re.ASCII | re.DOTALL
)

# A variable, an option, a header field, an element of XML in a text: quoted, or one word.
_ASSIGNED = re.compile(
    r"""(?<![\w-])(?:(?P<option>--)|-)?(?P<name>[A-Za-z_][\w.-]{4,63}+)"""
    r"""(?:'?[ \t]{0,4}(?P<sign>=>|:=|=|:)[ \t]{0,4}|(?(option)[ \t]{1,4}|>))"""
    r"""(?:(?P<quote>["'`])|(?i:bearer|basic|token)[ \t]{1,2})?"""
    r"""(?P<value>[^\s"'`\\,;&(){}\[\]<>]{8,})(?P<next>[("'`\[]?)""",
    re.ASCII,
)

_SIGNS = re.compile(r"[^a-z]")

# Not a secret: a variable, a template, one character repeated, the name of a variable, an expression, a file, a word like
# "redacted".
_NO_VALUE = re.compile(
    r"\$\{?[A-Za-z_]+\}?|\$[({].*|%\(?\w+\)?[s%]|\{.*\}|<.*>|\[.*\]|(.)\1*|[A-Z]+(?:_[A-Z]+)+"
    r"|[A-Za-z_]+\d?(?:\.[A-Za-z_]+\d?)+(?:[(\[].*)?|[A-Za-z_]+[(\[].*[)\]]|(?:~|\.{0,2})(?:/[a-z._-]+){2,}|https?://.*"
    r"|(?i:.*(?:your[_ -]|redacted|change_?me|placeholder|xxxx|\.\.\.|\u2026).*)"
    r"|(?i:required|optional|disabled|enabled|undefined|unknown|encrypted|inherited|provided|not[_ -]\w+)",
    re.DOTALL,
)
# A sentence about a secret contains one of these words; a pass phrase does not.
_SENTENCE = re.compile(
    r"\b(?:the|an|is|are|for|of|not|if|your|please|must|should|enter"
    r"|password|passphrase|secrets?|keys?|tokens?|credentials?|authorization)\b",
    re.IGNORECASE,
)
# RFC 9110, 11.6.2: the scheme before the secret.
_SCHEME = re.compile(r"\A(?:bearer|basic|token|key)\s+(?=\S+\Z)", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z]+(?:[_-][A-Za-z]+)+")


def is_secret_name(name: str) -> bool:
    """Whether a value with this name is a secret."""
    return _SIGNS.sub("", name.lower()).removesuffix("s").endswith(SECRET_NAMES)


def is_credential(header: str) -> bool:
    """Whether the whole value of this header field is a secret, whatever its shape."""
    return is_secret_name(header) or header.lower() in ("cookie", "set-cookie")


def named_values(text: Text) -> Iterator[Text]:
    """The values in a text whose names identify them as secrets. Escapes in JSON strings are decoded."""
    for found in _MEMBER.finditer(text.text):
        if is_secret_name(found["name"]):
            value = Joined(unescaped(text, JSON_ESCAPES, *found.span("value")))
            if not _is_no_secret(value.text):
                yield value
    for found in _ASSIGNED.finditer(text.text):
        if is_secret_name(found["name"]) and _is_assigned(found) and not _is_no_secret(found["value"]):
            yield Joined([Part(text, *found.span("value"))])


def _is_assigned(found: re.Match[str]) -> bool:
    """Whether it is a quoted string, the value of an environment variable, or a word with a digit, unlike prose."""
    if found["quote"]:
        return found["next"] in (found["quote"], "")
    is_variable = found["name"].isupper() and found["sign"] == "="
    return found["next"] not in ("(", "[") and (is_variable or any(map(str.isdigit, found["value"])))


def _is_no_secret(value: str) -> bool:
    value = _SCHEME.sub("", value)
    if len(value) < MIN_VALUE_CHARS or _NO_VALUE.fullmatch(value):
        return True
    if _NAME.fullmatch(value) and is_secret_name(value):
        return True
    is_sentence = len(value.split()) > 1 and _SENTENCE.search(value) is not None
    return is_sentence or value.lower() in SECRET_NAMES


# --- The policy ------------------------------------------------------------------------------------------------------

ALLOWED_REQUEST_HEADERS = ("accept", "anthropic-beta", "anthropic-version", "content-type")
"""The headers of a request that its answer may depend on."""

ALLOWED_RESPONSE_HEADERS = (
    "anthropic-ratelimit-*",
    "cache-control",
    "content-type",
    "date",
    "request-id",
    "retry-after*",
    "server",
    "x-accel-buffering",
    "x-should-retry",
)
"""The headers that clients read, and those that identify the server. Organization ids, workspace ids and cookies are
excluded."""

MIN_SECRET_CHARS = 4
"""The shortest secret that a caller may pass: a shorter one would match parts of ordinary words."""

MAX_PASSES = 5
"""Hiding one secret may reveal the shape of another. No recording has needed more than two passes."""

_MARK = "*"  # written over each byte that is hidden
# JSON syntax, escapes and line ends are kept, so that JSON remains valid.
_KEPT = '"\\/{}[]:,'
# The word at which `quote` cut a text: it may be part of a secret whose shape is no longer recognized.
_CUT_WORD = re.compile(r"(?<![^\s'\"])[^\s'\"]{4,}(?=['\"]… \(\d+ in all\))")
_NOTHING_TO_HIDE = re.compile(rf"[{re.escape(_KEPT)}\s\x00-\x1f]*")


@dataclass(frozen=True, slots=True)
class ScrubPolicy:
    """The headers that are kept, and the secrets that are hidden in addition to the known shapes.

    `allowed_request_headers`, `allowed_response_headers`: names, in any case, with `*` at the end for any ending. `patterns`:
    further regular expressions, as `rawsse record --scrub REGEX` gives them. The group `secret` is hidden, or the first
    group, or the whole match. They are needed for secrets with neither a known shape nor a telling name, such as a bare
    password in a sentence. They are also matched against raw JSON: one that matches a number or a member's name breaks the
    JSON. `secrets`: hidden everywhere, including %-encoded and in base64: the client's own key, for example.
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
        """All shapes, the specific before the general. Raises `ConfigurationError` for an invalid pattern."""
        exact = [Shape("secret of yours", pattern) for secret in self.secrets for pattern in written_forms(secret)]
        try:
            own = [Shape(f"match of your pattern {number}", re.compile(p)) for number, p in enumerate(self.patterns, 1)]
        except re.error as exc:
            raise ConfigurationError(f"{quote(str(exc.pattern))} is not a regular expression: {exc}") from None
        return (*exact, *own, *SHAPES)


class Secret(NamedTuple):
    """A probable secret: the name of its shape and its place, but never the secret itself.

    In the response body, `byte` is its offset, from 0, and `event` the number of its event, from 1.
    """

    shape: str
    place: str
    byte: int = 0
    event: int = 0

    def __str__(self) -> str:
        return f"{self.shape} in the {self.place}"


def scrub(recording: Recording, policy: ScrubPolicy | None = None) -> Recording:
    """The recording without the headers that are not allowed, and with every secret hidden.

    Raises `SecretRemainsError` if the response's body is still compressed and cannot be searched.
    """
    if secret := _unsearchable(recording):
        raise SecretRemainsError(f"{recording.name} may not be written: {secret}")
    return _Search(policy).scrubbed(recording)


def to_show(recording: Recording) -> Recording:
    """The recording for display: with all header fields, without secrets. A compressed body is unchanged."""
    policy = ScrubPolicy(allowed_request_headers=("*",), allowed_response_headers=("*",))
    shown = _Search(policy).scrubbed(recording)
    return replace(shown, headers={scrub_line(name): value for name, value in shown.headers.items()})


def scrub_line(text: str, policy: ScrubPolicy | None = None) -> str:
    """A line of text for display: without secrets, and without a word that `quote` has cut."""
    return _Search(policy).hidden(_CUT_WORD.sub("", text))


def find_secrets(exchange: Recording | bytes | str, policy: ScrubPolicy | None = None) -> list[Secret]:
    """Everything in a recording, or in the body of a response, that looks like a secret."""
    search = _Search(policy)
    if isinstance(exchange, Recording):
        return list(search.secrets(exchange))
    data = exchange if isinstance(exchange, bytes) else _to_bytes(exchange)
    return list(search.secrets_in(data, "stream", "response body"))


def checked(recording: Recording, policy: ScrubPolicy | None = None) -> Recording:
    """The recording. Raises `SecretRemainsError` if anything in it looks like a secret."""
    if found := find_secrets(recording, policy):
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise SecretRemainsError(f"{recording.name} may not be written: {found[0]}{more}")
    return recording


def count_hidden(before: Recording, after: Recording, policy: ScrubPolicy | None = None) -> Counter[str]:
    """How many secrets `scrub` has hidden in the `request body` and in the `response body`, which differ from the original."""
    search = _Search(policy)
    bodies = ([part for part in _parts(each) if part[0].endswith(" body")] for each in (before, after))
    changed = [old for old, new in zip(*bodies, strict=True) if old != new]  # most are unchanged: not searched again
    return Counter(place for place, kind, data in changed for _ in search.secrets_in(data, kind, place))


# JSON, and so the body of a request, may contain unpaired surrogates.
def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _json_bytes(body: Any) -> bytes:
    return _to_bytes("" if body is None else json.dumps(body, ensure_ascii=False))


def _unsearchable(recording: Recording) -> Secret | None:
    """A finding for a body that is still compressed: it cannot be searched, but its readers can decompress it."""
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
    """Bytes that look like a secret. `joined` names the joined text in which they were found."""

    shape: str
    places: list[int]
    joined: str = ""


_Kind: TypeAlias = Literal["credential", "line", "json", "stream"]
"""A text that is all secret; a path or a header's value; a JSON text, or any other; the body of a response."""


def _parts(recording: Recording) -> Iterator[tuple[str, _Kind, bytes]]:
    """Everything in a recording's file: the place, the kind and the bytes of each part."""
    request = recording.request or RecordedRequest("", "")
    yield "request method", "line", _to_bytes(request.method)
    yield "request path", "line", _to_bytes(request.path)
    for place, headers in (("request header", request.headers), ("response header", recording.headers)):
        for name, value in headers.items():
            yield f"{place} {name}", _kind_of(name), _to_bytes(value)
    yield "request body", "json", _json_bytes(request.body)
    yield "response body", "stream", recording.body


def _kind_of(header: str) -> _Kind:
    return "credential" if is_credential(header) else "line"


class _Search:
    """Finds the secrets of a policy, overwrites them, and reports their places."""

    def __init__(self, policy: ScrubPolicy | None) -> None:
        self._policy = policy or ScrubPolicy()
        self._shapes = self._policy.shapes()

    def _hits(self, data: bytes, kind: _Kind) -> Iterator[_Hit]:
        """The hits in `data`. In a stream, first those in the joined texts of its events, then those in the raw bytes."""
        body = Characters(data)
        if kind == "credential" and not self._is_hidden(body.text):
            yield _Hit("credential", _hidden_bytes(body, 0, len(body.text)))
        for name, joined in joined_texts(body) if kind == "stream" else ():
            for hit in self._in_text(joined, JSON_ESCAPES):
                yield hit._replace(joined=name)
        yield from self._in_text(body, JSON_ESCAPES if kind in ("json", "stream") else PERCENT_ESCAPES)

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
        """Whether nothing is left to hide."""
        return _NOTHING_TO_HIDE.fullmatch(value.replace(_MARK, "")) is not None

    def _is_known(self, value: str) -> bool:
        """Whether it has a known shape, whose prefix is kept, or had one before it was hidden."""
        found = (shape.pattern.search(value) for shape in self._shapes)
        return _MARK * 4 in value or any(match and secret_span(match)[1] == len(value) for match in found)

    # --- Hiding

    def scrubbed(self, recording: Recording) -> Recording:
        """The recording without the headers that are not allowed, and with every secret hidden."""
        request, policy = recording.request, self._policy
        if request is not None:
            headers = self._headers(request.headers, policy.allowed_request_headers)
            method, path = self.hidden(request.method), self.hidden(request.path)
            request = RecordedRequest(method, path, headers, self._request_body(request.body))
        body = self._hide(recording.body, "stream")
        ends = accumulate(len(read.data) for read in recording.reads)
        reads = [Read(read.t, body[at - len(read.data) : at]) for read, at in zip(recording.reads, ends, strict=True)]
        headers = self._headers(recording.headers, policy.allowed_response_headers)
        return replace(recording, request=request, headers=headers, reads=tuple(reads))

    def hidden(self, text: str, kind: _Kind = "line") -> str:
        """The same text without the secrets."""
        return _to_text(self._hide(_to_bytes(text), kind))

    def _hide(self, data: bytes, kind: _Kind) -> bytes:
        """The same number of bytes, without the secrets."""
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
        return {
            name: self.hidden(value, _kind_of(name))
            for name, value in headers.items()
            if any(fnmatchcase(name.lower(), entry.lower()) for entry in allowed)
        }

    def _request_body(self, body: Any) -> Any:
        before = _json_bytes(body)
        after = self._hide(before, "json")
        if after == before:
            return body
        try:
            return json.loads(_to_text(after))
        except ValueError:  # a caller's pattern matched more than strings
            return _to_text(after)

    # --- Finding

    def secrets(self, recording: Recording) -> Iterator[Secret]:
        """The secrets in a recording's file."""
        if secret := _unsearchable(recording):
            yield secret
        for place, kind, data in _parts(recording):
            yield from self.secrets_in(data, kind, place)

    def secrets_in(self, data: bytes, kind: _Kind, place: str) -> Iterator[Secret]:
        """The secrets in one part of it."""
        hits = list(self._new_hits(data, kind))
        starts = event_starts(Characters(data)) if hits and kind == "stream" else []
        for hit in hits:
            events = {bisect_right(starts, byte) for byte in hit.places}
            first, byte = min(events), hit.places[0]
            across = f" (across {len(events)} deltas)" if hit.joined and len(events) > 1 else ""
            path = _path_to(data, byte) if kind == "json" else hit.joined + across
            where = ", ".join(filter(None, (place, f"event {first}" if first else "", path)))
            yield Secret(hit.shape, where, byte if kind == "stream" else 0, first)

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
    """The bytes of these characters, except those that are kept."""
    return [place for at in range(start, end) if not _is_kept(text.text[at]) for place in text.bytes_of(at)]


def _path_to(data: bytes, byte: int) -> str:
    """The path to the string in a JSON text that contains the byte; empty for a key or the whole text."""
    body = Characters(data)
    for item in literals(body.text):
        if body.byte(item.start) <= byte < body.byte(item.end):
            return ".".join(map(str, item.path))
    return ""
