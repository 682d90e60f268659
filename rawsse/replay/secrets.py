"""What secrets look like: the shapes of known keys, tokens and passwords, and the names whose value is a secret.

    for shape in SHAPES:
        for found in shape.pattern.finditer(text):
            start, end = secret_span(found)     # what to hide: the secret without its well-known prefix
    for value in named_values(text):            # {"db_password": "…"}, API_KEY=…, x-api-key: …, secret = '…'
        value.text
    if name.lower() in CREDENTIAL_HEADERS: ...

A shape errs on the side of hiding: a made-up key in an example looks like a true one. But what every stream of the Messages
API is full of must never match, or no recording could be played: ids (`req_…`, `msg_…`, `toolu_…`), signatures of thinking
and other long base64, images.

No pattern takes more than linear time: what may repeat is bounded, or cannot begin in the middle of itself. Most secrets begin
where no letter or digit stands before them (`task-…` is not an `sk-…`); a pattern looks back for that after the beginning,
since a search for plain characters is many times faster.

A named value has `MIN_VALUE_CHARS` at least. An object is not one: the schema of a tool may have a property called `password`.
Nor is a placeholder, or a sentence about the secret.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from rawsse.replay.strands import JSON_ESCAPES, Joined, Text, Unescaped

MIN_BASE64_CHARS = 8
"""What a secret has in base64, at least: fewer characters would be found in many texts."""


@dataclass(frozen=True, slots=True)
class Shape:
    """`pattern` finds it, with what tells it apart; see `secret_span` for the secret in that. `name` is for people."""

    name: str
    pattern: re.Pattern[str] = field(repr=False)  # of a secret of the caller's it is that secret


def secret_span(found: re.Match[str]) -> tuple[int, int]:
    """Where the secret itself stands: the group `secret` if there is one, or else the first group, or else all."""
    if "secret" in found.re.groupindex:
        return found.span("secret")
    return found.span(1 if found.re.groups else 0)


def written_forms(secret: str) -> Iterator[re.Pattern[str]]:
    """Patterns for one secret as it stands, with any of its characters escaped in a URL or in HTML, and as a part of a text
    in base64."""
    yield re.compile(re.escape(secret))
    # RFC 3986, 2.1: hexadecimal digits in either case, for every byte of UTF-8. HTML: `html.escape`, and by number.
    yield re.compile(
        "".join(f"(?:{re.escape(char)}|(?i:{_percent_encoded(char)}|{_of_html(char)}))" for char in secret)
    )
    for before in range(3):
        # Each 3 bytes are 4 characters: how they are written depends on how many bytes stand before.
        data = bytes(before) + secret.encode("utf-8", "surrogatepass")
        # Of what shares a character with what stands around, nothing can be known.
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


# What code and manuals write where a secret would stand.
_PLACEHOLDER = r"(?![{$<]|%7B|(?i:your[_-]))"

SHAPES: tuple[Shape, ...] = (
    # sk-ant-api03-… (API), sk-ant-admin01-… (administration), sk-ant-oat01-… and -ort01-… (OAuth), sk-ant-sid01-… (session)
    _shape("Anthropic key", r"sk-ant-[a-z]{1,12}\d{1,3}-(?P<secret>[\w-]{8,})"),
    # The form without a kind, as the first keys had it.
    _shape("Anthropic key", r"sk-ant-(?![a-z]{1,12}\d{1,3}-)(?=[\w-]{0,64}\d)(?P<secret>[\w-]{20,})"),
    # sk-… followed by 48 letters and digits; later ones name their kind, and so do those of OpenRouter (sk-or-v1-…).
    _shape("OpenAI key", r"sk-(?<![A-Za-z0-9]sk-)(?:proj|svcacct|admin|None|or-v\d)-(?P<secret>[\w-]{20,})"),
    _shape("OpenAI key", r"sk-(?<![A-Za-z0-9]sk-)(?P<secret>[A-Za-z0-9]{20,})"),
    # AKIA…: long-lived, ASIA…: temporary. With a star where it has been hidden, since the next shape leans on it.
    _shape("AWS access key id", r"A[KS]IA(?<![A-Za-z0-9]A[KS]IA)(?P<secret>[A-Z0-9]{16})(?![A-Za-z0-9])"),
    # The secret key has no form but 40 characters of base64. So it is one next to a key id, or to its usual names.
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
    _shape("GitHub token", r"gh[pousr]_(?<![A-Za-z0-9]gh[pousr]_)(?P<secret>[A-Za-z0-9]{20,})"),
    _shape("GitHub token", r"github_pat_(?<![A-Za-z0-9]github_pat_)(?P<secret>\w{20,})"),
    # xoxb- (bot), xoxp- (user), xoxa-, xoxe-, xoxr-, xoxs-; xapp- (app)
    _shape("Slack token", r"x(?:ox[abeoprs]|app)-(?<![A-Za-z0-9]x...-)(?P<secret>[A-Za-z0-9-]{10,})"),
    _shape("Slack webhook", r"hooks\.slack\.com/services/(?P<secret>T\w{6,}/B\w{6,}/\w{16,})"),
    # AIza…: API keys, 39 characters in all; ya29.…: OAuth access tokens
    _shape("Google key", r"AIza(?<![A-Za-z0-9]AIza)(?P<secret>[\w-]{30,})"),
    _shape("Google token", r"ya29\.(?<![A-Za-z0-9]ya29\.)(?P<secret>[\w-]{20,})"),
    # sk_ (secret), rk_ (restricted); whsec_ signs webhooks. Publishable keys (pk_) are public.
    _shape("Stripe key", r"k_(?:live|test)_(?<=[sr]k_...._)(?<![A-Za-z0-9][sr]k_...._)(?P<secret>[A-Za-z0-9]{16,})"),
    _shape("Stripe key", r"whsec_(?<![A-Za-z0-9]whsec_)(?P<secret>[A-Za-z0-9]{16,})"),
    # GOCSPX-: the secret of an OAuth client. A service account's key is a private key, below.
    _shape("Google token", r"GOCSPX-(?<![A-Za-z0-9]GOCSPX-)(?P<secret>[\w-]{20,})"),
    # Hosts of models
    _shape("Hugging Face token", r"hf_(?<![A-Za-z0-9]hf_)(?P<secret>[A-Za-z0-9]{30,})"),
    _shape("Groq key", r"gsk_(?<![A-Za-z0-9]gsk_)(?P<secret>[A-Za-z0-9]{40,})"),
    _shape("xAI key", r"xai-(?<![A-Za-z0-9]xai-)(?P<secret>[A-Za-z0-9]{40,})"),
    _shape("Perplexity key", r"pplx-(?<![A-Za-z0-9]pplx-)(?P<secret>[A-Za-z0-9]{40,})"),
    _shape("Replicate token", r"r8_(?<![A-Za-z0-9]r8_)(?P<secret>[A-Za-z0-9]{32,})"),
    # lsv2_pt_ (personal), lsv2_sk_ (service): 32 hexadecimal digits, a line, 10 more
    _shape("LangSmith key", r"lsv2_(?<![A-Za-z0-9]lsv2_)(?:pt|sk)_(?P<secret>[0-9a-f]{32}\w{0,16})"),
    # Packages and code: glpat- (personal), gldt- (deploy), glrt- (runner) …; a token of PyPI begins with its version, 2: Ag
    _shape("GitLab token", r"gl(?<![A-Za-z0-9]gl)(?:pat|dt|rt|ptt|cbt|soat|ft|imt|agent)-(?P<secret>[\w-]{20,})"),
    _shape("npm token", r"npm_(?<![A-Za-z0-9]npm_)(?P<secret>[A-Za-z0-9]{36,})"),
    _shape("PyPI token", r"pypi-Ag(?<![A-Za-z0-9]pypi-Ag)(?P<secret>[\w-]{32,})"),
    # Clouds: dop_ (personal), doo_ (OAuth), dor_ (refresh); dapi with 32 hexadecimal digits; 3 parts, the last of 43
    _shape("DigitalOcean token", r"do[opr]_v1_(?<![A-Za-z0-9]do\w_v1_)(?P<secret>[0-9a-f]{64})"),
    _shape("Databricks token", r"dapi(?<![A-Za-z0-9]dapi)(?P<secret>[0-9a-f]{32})(?![A-Za-z0-9])"),
    # Azure: a connection string; the secret of an application (…8Q~…); a key of 84 characters with a mark in its middle
    _shape("Azure key", r"AccountKey=(?P<secret>[A-Za-z0-9+/]{86}==)"),
    _shape("Azure key", r"SharedAccess(?:Key|Signature)=(?P<secret>[A-Za-z0-9+/%]{40,}=?)"),
    _shape("Azure key", r"Q~(?<=[\w.~-]{3}\dQ~)(?P<secret>[\w.~-]{31,34})(?![\w.~-])"),
    _shape("Azure key", r"(?<![A-Za-z0-9])[A-Za-z0-9]{52}JQQJ9[A-Za-z0-9]{20,30}(?![A-Za-z0-9])"),
    # Messages: SG. with parts of 22 and 43; the number of a bot, a colon and 35 more; SK (key) and AC (account) with 32
    # hexadecimal digits; three parts, the first of which is a bot's number in base64
    _shape("SendGrid key", r"SG\.(?<![A-Za-z0-9]SG\.)(?P<secret>[\w-]{16,32}\.[\w-]{32,64})"),
    _shape("Telegram token", r":AA(?<=\d{8}:AA)(?P<secret>[\w-]{33})(?![\w-])"),
    _shape("Twilio key", r"SK(?<![A-Za-z0-9]SK)(?P<secret>[0-9a-f]{32})(?![A-Za-z0-9])"),
    _shape("Twilio key", r"AC(?<![A-Za-z0-9]AC)(?P<secret>[0-9a-f]{32})(?![A-Za-z0-9])"),
    _shape("Discord token", r"[MNO](?<![\w.-][MNO])[\w-]{23,27}\.(?P<secret>[\w-]{6}\.[\w-]{27,38})(?![\w-])"),
    # RFC 7468, with the header lines of RFC 1421; PGP calls it a block. The end may have been cut off. Where JSON begins or
    # ends, it is over: what follows in the body of a response are the fields of the next event, which look like those lines.
    _shape(
        "private key",
        r"-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"(?P<secret>(?:\s{0,4}[A-Za-z-]{2,32}:[^\n\"{}]{0,200}\n){0,8}\s{0,4}[A-Za-z0-9+/=]{16,}[A-Za-z0-9+/=\s]*)",
    ),
    # RFC 7515: base64url parts, the first of them the JSON of a header ('{"' is eyJ).
    _shape("JSON Web Token", r"eyJ(?<![\w-]eyJ)[\w-]{10,}(?:\.[\w-]{8,}){1,4}"),
    # RFC 6750. Prose has "bearer of bad news", which is short, or without a digit.
    _shape("bearer token", r"(?i:bearer)[ \t]{1,4}(?=[\w.~+/-]{0,256}\d)(?P<secret>[\w.~+/-]{16,}=*)"),
    # RFC 7617, where it is said to be one: "basic" is a common word.
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
"""Every shape that is looked for, the particular ones before the general."""


CREDENTIAL_HEADERS: frozenset[str] = frozenset(
    {
        "api-key",
        "authorization",
        "cookie",
        "proxy-authorization",
        "set-cookie",
        "x-amz-security-token",
        "x-api-key",
        "x-auth-token",
        "x-goog-api-key",
    }
)
"""Header fields, in lower case. Whatever their value is, these are there to carry a secret."""

_KEYS = ("api", "secret", "private", "access", "subscription", "signing", "encryption", "account")
_TOKENS = ("access", "refresh", "auth", "api", "bearer", "bot", "session", "security", "authorization")
SECRET_NAMES: tuple[str, ...] = (
    *("password", "passwd", "passphrase", "secret", "credential", "authorization"),
    *(f"{kind}key" for kind in _KEYS),
    *(f"{kind}token" for kind in _TOKENS),
)
"""How such names end, in lower case and without signs: `DB_PASSWORD`, `client_secret`, `x-api-key`, `accessToken2`."""

MIN_VALUE_CHARS = 8
"""A shorter value is as often a type, a placeholder or nothing as it is a password."""

# A member of a JSON object whose value is a string. What stands behind the value's quote is read by the next one.
_MEMBER = re.compile(r'"(?P<name>[A-Za-z_$][\w.$ -]{4,63})"\s{0,4}:\s{0,4}"', re.ASCII)
_REST_OF_STRING = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)

# A variable, an option, a header field, an element of XML in a text: quoted, or one word.
_ASSIGNED = re.compile(
    r"""(?<![\w-])(?:(?P<option>--)|-)?(?P<name>[A-Za-z_][\w.-]{4,63}+)"""
    r"""(?:'?[ \t]{0,4}(?P<sign>=>|:=|=|:)[ \t]{0,4}|(?(option)[ \t]{1,4}|>))"""
    r"""(?:(?P<quote>["'`])|(?i:bearer|basic|token)[ \t]{1,2})?"""
    r"""(?P<value>[^\s"'`\\,;&(){}\[\]<>]{8,})(?P<next>[("'`\[]?)""",
    re.ASCII,
)

_SIGNS = re.compile(r"[^a-z]")
_DIGIT = re.compile(r"\d")

# What stands where a secret would: a variable, a template, one and the same sign, the name of a variable, an expression,
# a file, a word that says so.
_NO_VALUE = re.compile(
    r"\$\{?[A-Za-z_]+\}?|\$[({].*|%\(?\w+\)?[s%]|\{.*\}|<.*>|\[.*\]|(.)\1*|[A-Z]+(?:_[A-Z]+)+"
    r"|[A-Za-z_]+\d?(?:\.[A-Za-z_]+\d?)+(?:[(\[].*)?|[A-Za-z_]+[(\[].*[)\]]|(?:~|\.{0,2})(?:/[a-z._-]+){2,}|https?://.*"
    r"|(?i:.*(?:your[_ -]|redacted|change_?me|placeholder|xxxx|\.\.\.|\u2026).*)"
    r"|(?i:required|optional|disabled|enabled|undefined|unknown|encrypted|inherited|provided|not[_ -]\w+)",
    re.DOTALL,
)
# A sentence about a secret, not credentials behind their scheme. A pass phrase has none of these words.
_SENTENCE = re.compile(
    r"\b(?:the|an|is|are|for|of|not|if|your|please|must|should|enter"
    r"|password|passphrase|secrets?|keys?|tokens?|credentials?|authorization)\b",
    re.IGNORECASE,
)
# RFC 9110, 11.6.2: a scheme, and what is the secret.
_SCHEME = re.compile(r"(?:bearer|basic|token|key)\s+(?=\S+\Z)", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z]+(?:[_-][A-Za-z]+)+")


def is_secret_name(name: str) -> bool:
    """Whether what has this name is a secret."""
    return _SIGNS.sub("", name.lower()).removesuffix("s").endswith(SECRET_NAMES)


def named_values(text: Text) -> Iterator[Text]:
    """The values in a text whose names say that they are secrets, with the escapes of their own string read."""
    for found in _MEMBER.finditer(text.text):
        if is_secret_name(found["name"]):
            string = _REST_OF_STRING.match(text.text, found.end())
            assert string is not None  # noqa: S101 - it matches the empty text, too
            value = Unescaped(Joined([(text, string.start(), string.end())]), JSON_ESCAPES)
            if not _is_no_secret(value.text):
                yield value
    for found in _ASSIGNED.finditer(text.text):
        if is_secret_name(found["name"]) and _is_assigned(found) and not _is_no_secret(found["value"]):
            yield Joined([(text, *found.span("value"))])


def _is_assigned(found: re.Match[str]) -> bool:
    """A string in quotes; the value of a variable of the environment; or a word that has a digit, as no word of prose has."""
    if found["quote"]:
        return found["next"] in (found["quote"], "")
    is_variable = found["name"].isupper() and found["sign"] == "="
    return found["next"] not in ("(", "[") and (is_variable or _DIGIT.search(found["value"]) is not None)


def _is_no_secret(value: str) -> bool:
    value = _SCHEME.sub("", value, count=1) if _SCHEME.match(value) else value
    if len(value) < MIN_VALUE_CHARS or _NO_VALUE.fullmatch(value):
        return True
    if _NAME.fullmatch(value) and is_secret_name(value):
        return True
    is_sentence = len(value.split()) > 1 and _SENTENCE.search(value) is not None
    return is_sentence or value.lower() in SECRET_NAMES
