"""rawsse.replay.scrub: one secret of every shape, made up by hand, and what looks like one and is none."""

from __future__ import annotations

import base64
import random

import pytest
from support.secrets import ALNUM, B64, SECRETS

from rawsse.replay.scrub import SHAPES, secret_span

ONE_RANDOM = random.Random(20)
BASE64 = base64.b64encode(ONE_RANDOM.randbytes(300_000)).decode()
BASE64URL = base64.urlsafe_b64encode(ONE_RANDOM.randbytes(300_000)).decode()

LOOK_ALIKES = [
    "req_011CUfqr1mVJotFe7zM222ib",
    "msg_019dwtq5H8YqVXiRsE7Y2zvR",
    "toolu_01T1x1fJ34qAmk2tNTrN7Up6",
    "srvtoolu_014hJH82Qum7Td6UV8gDXThB",
    "container_011CPR5CNjB747bTd36fQLFk",
    "chatcmpl-9fGq2xT2vLp9Rk4WzN8sBdYh3Jc",
    "EqQBCgYIARgCIkAhaNlFDcMrb5D8nRyhS52QmbnW" + BASE64[:1000] + "==",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA" + BASE64[:1000],
    BASE64,
    BASE64URL,
    "4f3b2a1c-9d8e-4f3b-8a1c-9d8e4f3b2a1c",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "task-4f3b2a1c9d8e4f3b2a1c9d8e4f3b",
    "a disk-0123456789abcdefghij01234567",
    "sk-learn, or scikit-learn",
    "sk-circle-fade-dot-animation-delay",
    "sk-ant-... and sk-ant-your-key-here and sk-ant-xxxxxxxxxxxxxxxxxxxxxxxxxx",
    "AKIA is a prefix, ASIA another, and the continents are ASIAAFRICAEUROPEAMERICA",
    "the bearer of bad news; Bearer authentication; Bearer internationalization-of-everything",
    "Authorization: Bearer $TOKEN, or Bearer <token>",
    "basic authentication is basic understanding",
    "-----BEGIN PUBLIC KEY-----\n" + B64 + "\n-----END PUBLIC KEY-----",
    "-----BEGIN PRIVATE KEY----- is the first line of the file, and then come others",
    "eyJhbGciOiJIUzI1NiJ9",
    "https://example.com:8080/@me and http://[::1]:80/ and https://medium.com/@someone/a-story",
    "mailto:someone@example.com, at 10:30@noon",
    "postgresql://user:password@localhost/db and https://{user}:{password}@host and redis://:$PASS@host",
    "https://example.com/?key=value and ?api_key={key} and ?token=YOUR_TOKEN_HERE and ?key=$API_KEY",
    "https://example.com/?monkey=0123456789abcdef&tokens=0123456789&stoken2=0123456789",
    "sorted(words, key=itemgetter(1)); max_tokens=1024",
    "pk_" + "live_" + ALNUM[:24],
    "xai-grok, pplx-7b-online, hf_hub_download, dapi, gsk_, npm_config_registry, r8_ and SG.example.com",
    "the half_" + ALNUM[:34] + " of an sSG." + ALNUM[:22] + "." + ALNUM[:43],
    "sha1 4f3b2a1c9d8e7f605142738495a6b7c8, TASK4f3b2a1c9d8e7f605142738495a6b7c8",
    "12:AA, at 2024-01-01T10:30:AA and 1700000000:AB",
    "os.path.join, MessageStreamEvent.delta.text, More.than.that",
]


def found(text: str) -> list[tuple[str, str]]:
    """Shape and secret, in the order of the table."""
    matches = [(shape.name, match) for shape in SHAPES for match in shape.pattern.finditer(text)]
    return [(name, text[slice(*secret_span(match))]) for name, match in matches]


@pytest.mark.parametrize(("shape", "before", "secret", "after"), SECRETS)
def test_a_secret_has_its_shape(shape: str, before: str, secret: str, after: str) -> None:
    assert (shape, secret) in found(before + secret + after)


@pytest.mark.parametrize(
    ("left", "right"), [('"', '"'), ("(", ")"), ("a\n", "\nb"), ("KEY='", "'"), ("é", "é"), ("`", "`.")]
)
def test_a_secret_is_found_whatever_stands_around_it(left: str, right: str) -> None:
    missed = []
    for shape, before, secret, after in SECRETS:
        # Only at the very beginning of a body, and in a query, is `client_secret=` a parameter.
        text = ("?" if before == "client_secret=" else left) + before + secret + after + right
        if not any(name == shape and hit.startswith(secret) for name, hit in found(text)):
            missed.append((shape, text))
    assert missed == []


@pytest.mark.parametrize("prefix", ["sk-", "gh" + "p_", "xox" + "b-", "hf" + "_", "gsk" + "_"])
def test_a_token_is_found_behind_a_character_that_is_encoded_for_a_url(prefix: str) -> None:
    assert found(f"?q=%7B%22a%22%3A%20%22{prefix}{ALNUM}%22%7D") != []
    assert found(f"a22{prefix}{ALNUM}") == []


@pytest.mark.parametrize("text", LOOK_ALIKES, ids=[text[:24] for text in LOOK_ALIKES])
def test_a_look_alike_is_none(text: str) -> None:
    assert found(text) == []


def test_every_shape_has_a_secret_of_its_own_here() -> None:
    matched = {shape.pattern for shape in SHAPES for _, a, b, c in SECRETS if shape.pattern.search(a + b + c)}
    assert [shape.name for shape in SHAPES if shape.pattern not in matched] == []


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "eyJ",
            "eyJhbGciOiJIUzI1NiJ9.",
            "sk-",
            "sk-ant-",
            "sk-ant-api03-",
            "AKIA ",
            "A" * 20 + " ",
            "ghp_",
            "://a:",
            "://a:b",
        ),
        *(
            "Bearer ",
            "bearer a",
            "-----BEGIN PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\n\n",
            "?key=",
            "?",
            "a-",
            "\\",
        ),
        *("secret_access_key=", "authorization: basic "),
        *("SG.", "M" * 24 + ".", "12345678:AA", "gl", "dapi", "AccountKey=", "N" * 52, "a" * 52 + " "),
    ],
)
def test_a_text_made_of_beginnings_is_read_in_linear_time(unit: str) -> None:
    # In a time that grew with the square of the size, this would take many minutes.
    text = unit * (60_000 // len(unit))
    assert all(len(secret) >= 8 for _, secret in found(text))
