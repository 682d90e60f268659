"""rawsse.replay.scrub: values whose names say that they are secrets, and what only looks like that."""

from __future__ import annotations

import json

import pytest

from rawsse.replay.scrub import is_credential, is_secret_name, named_values
from rawsse.replay.texts import Characters


def values(text: str) -> list[str]:
    return [value.text for value in named_values(Characters(text.encode()))]


@pytest.mark.parametrize(
    "name",
    [
        *("password", "passwd", "api_key", "apikey", "secret", "client_secret", "access_token", "refresh_token"),
        *("authorization", "private_key", "x-api-key", "authorization_token", "DATABASE_PASSWORD", "userPassword"),
        *("openai-api-key", "AWS_SECRET_ACCESS_KEY", "password2", "api_keys"),
    ],
)
def test_a_name_says_that_its_value_is_a_secret(name: str) -> None:
    assert is_secret_name(name)
    assert values(json.dumps({name: "hunter2hunter2"})) == ["hunter2hunter2"]
    assert values(f"{name}=hunter2hunter2") == ["hunter2hunter2"]


@pytest.mark.parametrize(
    "name",
    [
        *("max_tokens", "tokens", "input_tokens", "token_count", "next_page_token", "signature", "key", "id"),
        *("password_hint", "private_key_id", "secret_name", "authorization_url", "monkey", "partial_json"),
    ],
)
def test_a_name_says_nothing_of_a_secret(name: str) -> None:
    assert not is_secret_name(name)
    assert values(json.dumps({name: "hunter2hunter2"})) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"api_key": "0123456789abcdef0123456789abcdef"}', "0123456789abcdef0123456789abcdef"),
        ('{"password" :\n "correct horse battery staple"}', "correct horse battery staple"),
        ('{"password": "a\\"b\\u0063\\n45678"}', 'a"bc\n45678'),
        ('{"password": "hunter2hunt', "hunter2hunt"),
        ('{"authorization": "Token abc12345"}', "Token abc12345"),
        ('say {"secret":"hunter2hunter2"} now', "hunter2hunter2"),
        ("export DB_PASSWORD=correcthorse && run", "correcthorse"),
        ('{"env": "DB_PASSWORD=correcthorse"}', "correcthorse"),
        ("x-api-key: 0123456789abcdef0123", "0123456789abcdef0123"),
        ("Authorization: Token 0123456789", "0123456789"),
        ("curl --api-key=hunter2hunter2", "hunter2hunter2"),
        ("curl --api-key hunter2hunter2 a.b", "hunter2hunter2"),
        ("tool -password='correcthorse'", "correcthorse"),
        ("<password>hunter2hunter2</password>", "hunter2hunter2"),
        ("password: hunter2hunter2\nuser: me", "hunter2hunter2"),
        ("client = Client(api_key='correcthorse')", "correcthorse"),
        ("{'password': 'correcthorse'}", "correcthorse"),
        ('token.secret := "correcthorse"', "correcthorse"),
        ("née,db_password=hunter2hunter2", "hunter2hunter2"),
    ],
)
def test_a_value_is_found_behind_its_name(text: str, value: str) -> None:
    assert values(text) == [value]


@pytest.mark.parametrize(
    "text",
    [
        '{"properties": {"password": {"type": "string", "description": "The password."}}}',
        '{"required": ["password", "api_key"], "api_key": null, "secret": true, "access_token": 12345678}',
        '{"password": "The password of the user", "secret": "What is kept from the others"}',
        '{"password": "short", "api_key": ""}',
        '{"api_key": "ANTHROPIC_API_KEY", "secret": "client_secret", "password": "password"}',
        '{"api_key": "$ANTHROPIC_KEY", "secret": "${SECRET_VALUE}", "password": "<your password>"}',
        '{"api_key": "your-api-key-here", "secret": "xxxxxxxxxxxx", "password": "{{password}}", "passwd": "[REDACTED]"}',
        '{"api_key": "process.env.API_KEY", "secret": "/run/secrets/api", "authorization": "required"}',
        '{"api_key": "sk-ant-...", "authorization": "Bearer t"}',
        "api_key=os.environ['ANTHROPIC_API_KEY']",
        "api_key: Optional[str] = None, password=getpass2.getpass()",
        "api_key = settings2(1)",
        "password=password, secret=self.secret1, api_key=config.api_key2",
        "the password hunter2hunter2-like words follow without a sign, --secret-names 12345678",
        "Your password: something that nobody knows. The secret: patience.",
        "max_tokens=12345678, stop_sequence=12345678",
        "PASSWORD=$(cat /run/secrets/password)",
    ],
)
def test_a_look_alike_is_none(text: str) -> None:
    assert values(text) == []


@pytest.mark.parametrize(
    "name",
    [
        *("api-key", "Authorization", "cookie", "proxy-authorization", "Set-Cookie", "x-amz-security-token"),
        *("x-api-key", "x-auth-token", "x-goog-api-key", "X-Client-Secret"),
    ],
)
def test_a_header_that_carries_a_credential_goes_by_its_name(name: str) -> None:
    assert is_credential(name)


@pytest.mark.parametrize(
    "name", ["anthropic-version", "anthropic-ratelimit-tokens-limit", "request-id", "content-type", "etag", "x-csp-key"]
)
def test_other_headers_do_not(name: str) -> None:
    assert not is_credential(name)


@pytest.mark.parametrize("unit", ['"password":"', "password=", "a-", "password", '"', "\\", "password: ", "apikey'"])
def test_a_text_made_of_beginnings_is_read_in_linear_time(unit: str) -> None:
    # In a time that grew with the square of the size, this would take hours.
    assert all(len(value) >= 8 for value in values(unit * (300_000 // len(unit))))
