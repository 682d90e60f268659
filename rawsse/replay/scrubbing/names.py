"""Names that say that their value is a secret: of header fields, of members of JSON objects, of variables and options.

This file knows such names, how a value stands behind its name in a text, and what is written there instead of a secret. It
refuses to know what known keys look like (`shapes.py`), and what becomes of what is found.

    if name.lower() in CREDENTIAL_HEADERS: ...
    for value in named_values(text):        # {"db_password": "…"}, API_KEY=…, x-api-key: …, secret = '…'
        value.text

A value has `MIN_VALUE_CHARS` at least. One that is an object is none: the schema of a tool may have a property called
`password`. Nor is a placeholder, or a sentence about the secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rawsse.replay.scrubbing.deltas import JSON_ESCAPES, Joined, Text, Unescaped

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

SECRET_NAMES: tuple[str, ...] = (
    *("password", "passwd", "passphrase", "secret", "credential"),
    *("apikey", "secretkey", "privatekey", "accesskey", "subscriptionkey", "signingkey", "encryptionkey", "accountkey"),
    *(
        "accesstoken",
        "refreshtoken",
        "authtoken",
        "apitoken",
        "bearertoken",
        "bottoken",
        "sessiontoken",
        "securitytoken",
    ),
    *("authorization", "authorizationtoken"),
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
_PLACEHOLDER = re.compile(
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
    if len(value) < MIN_VALUE_CHARS or _PLACEHOLDER.fullmatch(value):
        return True
    if _NAME.fullmatch(value) and is_secret_name(value):
        return True
    is_sentence = len(value.split()) > 1 and _SENTENCE.search(value) is not None
    return is_sentence or value.lower() in SECRET_NAMES
