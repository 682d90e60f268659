"""rawsse.replay.shapes: one secret of every shape, made up by hand, and what looks like one and is none."""

from __future__ import annotations

import base64
import random

import pytest

from rawsse.replay.shapes import SHAPES, secret_span

ALNUM = "Qm7xT2vLp9Rk4WzN8sBdYh3JcF6gUe5aXo1iKtMrVnZb0qDw"  # 48 letters and digits, no 8 of them twice
B64 = "Zk8/wQ2+Rt7YbN4xLm9/PvC3sJdK5hGfT6uXaE1o"  # 40 characters of base64
JWT_HEAD = "eyJhbGciOiJIUzI1NiJ9"  # {"alg":"HS256"}
JWT_CLAIMS = "eyJzdWIiOiI0MiJ9"  # {"sub":"42"}

# Shape, the text before the secret, the secret, the text after it. In pieces, so that no scanner takes this file for a leak.
SECRETS = [
    ("Anthropic key", "sk-" + "ant-api03-", ALNUM[:8], ""),
    ("Anthropic key", "sk-" + "ant-api03-", ALNUM + "-_" + ALNUM[:20] + "AA", ""),
    ("Anthropic key", "sk-" + "ant-admin01-", ALNUM, ""),
    ("Anthropic key", "sk-" + "ant-oat01-", ALNUM, ""),
    ("Anthropic key", "sk-" + "ant-sid01-", ALNUM, ""),
    ("Anthropic key", "sk-" + "ant-", ALNUM[:32], ""),
    ("OpenAI key", "sk-" + "proj-", ALNUM + "_x-", ""),
    ("OpenAI key", "sk-" + "svcacct-", ALNUM, ""),
    ("OpenAI key", "sk-" + "or-v1-", "0123456789abcdef" * 4, ""),
    ("OpenAI key", "sk-", ALNUM, ""),
    ("AWS access key id", "AK" + "IA", "QM7XT2VLP9RK4WZN", ""),
    ("AWS access key id", "AS" + "IA", "QM7XT2VLP9RK4WZN", ""),
    ("AWS secret key", "AK" + "IA****************, ", B64, ""),
    ("AWS secret key", "aws_secret_access_key = ", B64, ""),
    ("AWS secret key", '"SecretAccessKey": "', B64, '"'),
    ("AWS secret key", "AWS_SESSION_TOKEN=", B64 * 3 + "==", ""),
    ("GitHub token", "gh" + "p_", ALNUM[:36], ""),
    ("GitHub token", "gh" + "o_", ALNUM[:36], ""),
    ("GitHub token", "github" + "_pat_", ALNUM[:22] + "_" + ALNUM, ""),
    ("Slack token", "xo" + "xb-", "1234567890-0987654321-" + ALNUM[:24], ""),
    ("Slack token", "xa" + "pp-", "1-A012345-987-" + ALNUM, ""),
    ("Slack webhook", "https://hooks.slack" + ".com/services/", "T0123456/B0123456/" + ALNUM[:24], ""),
    ("Google key", "AI" + "za", ALNUM[:35], ""),
    ("Google token", "ya" + "29.", "a0Af_" + ALNUM, ""),
    ("Stripe key", "sk" + "_live_", ALNUM[:24], ""),
    ("Stripe key", "rk" + "_test_", ALNUM[:24], ""),
    ("Stripe key", "wh" + "sec_", ALNUM[:32], ""),
    ("private key", "-----BEGIN " + "PRIVATE KEY-----", f"\n{B64}\n{B64}\nAA==\n", "-----END PRIVATE KEY-----"),
    ("private key", "-----BEGIN RSA " + "PRIVATE KEY-----", f"\nDEK-Info: AES-128-CBC,00\n\n{B64}\n", "-----END"),
    ("private key", "-----BEGIN PGP " + "PRIVATE KEY BLOCK-----", f"\r\nVersion: 1\r\n\r\n{B64}\r\n", "-----END"),
    ("private key", "-----BEGIN " + "PRIVATE KEY-----", f"\n{B64}", ""),
    ("JSON Web Token", "", f"{JWT_HEAD}.{JWT_CLAIMS}.{ALNUM[:43]}", ""),
    ("JSON Web Token", "", f"{JWT_HEAD}.{JWT_CLAIMS}", ""),
    ("bearer token", "Bearer ", ALNUM[:24], ""),
    ("bearer token", "authorization: bearer ", "a-._~+/" + ALNUM[:16] + "==", ""),
    ("Basic credentials", "Authorization: Basic ", base64.b64encode(b"Aladdin:open sesame").decode(), ""),
    ("password in a URL", "https://aladdin:", "open-sesame", "@example.com/"),
    ("password in a URL", "postgresql://db:", "x", "@[::1]/"),
    ("password in a URL", "redis://:", "open:sesame!", "@localhost"),
    ("key in a query", "https://example.com/v1?key=", "open-sesame", "&a=b"),
    ("key in a query", "/v1/messages?beta=true&api_key=", "open-sesame", ""),
    ("key in a query", "/a?token=", "open-sesame", " HTTP/1.1"),
    ("key in a query", "https://a.b/#access_token=", "open-sesame", ""),
    ("key in a query", "https://a.b/c?X-Amz-Signature=", "0123456789abcdef", "&x=y"),
    ("key in a query", "client_secret=", "open-sesame", "&grant_type=client_credentials"),
]

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
]


def found(text: str) -> list[tuple[str, str]]:
    """Shape and secret, in the order of the table."""
    matches = [(shape.name, match) for shape in SHAPES for match in shape.pattern.finditer(text)]
    return [(name, text[slice(*secret_span(match))]) for name, match in matches]


@pytest.mark.parametrize(("shape", "before", "secret", "after"), SECRETS)
def test_a_secret_has_its_shape(shape: str, before: str, secret: str, after: str) -> None:
    assert (shape, secret) in found(before + secret + after)


@pytest.mark.parametrize(("shape", "before", "secret", "after"), SECRETS)
@pytest.mark.parametrize(
    ("left", "right"), [('"', '"'), ("(", ")"), ("a\n", "\nb"), ("KEY='", "'"), ("é", "é"), ("`", "`.")]
)
def test_a_secret_is_found_whatever_stands_around_it(
    left: str, right: str, shape: str, before: str, secret: str, after: str
) -> None:
    if before == "client_secret=":
        left = "?"  # only at the very beginning of a body, and in a query, is that a parameter
    secrets = [text for name, text in found(left + before + secret + after + right) if name == shape]
    assert any(text.startswith(secret) for text in secrets)


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
    ],
)
def test_a_text_made_of_beginnings_is_read_in_linear_time(unit: str) -> None:
    # In a time that grew with the square of the size, this would take hours.
    text = unit * (300_000 // len(unit))
    assert all(len(secret) >= 8 for _, secret in found(text))
