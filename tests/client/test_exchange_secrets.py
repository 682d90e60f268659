"""A server that quotes the key: no error has it, in no form and in no place."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import pickle
import time
import traceback
from typing import Any
from urllib.parse import quote

import pytest
from support.answers import ASK, client_of, plain
from support.clock import run
from support.quoting import FORMS, IN_HEADERS, PLACES, Form
from support.reading import fail
from support.sampling import one_in

from rawsse.client.request import MIN_SECRET_CHARS, Secrets
from rawsse.errors import APIError, APIStatusError

KEY = "sk-ant-api03-it's/my+own=key&\"0f3b\\7Qx~"
"""With a sign of each kind that is escaped somewhere."""

KEY_IN_A_NAME = "sk-ant-api03-AbCdEf0123456789xYz"
"""With signs that the name of a field may have."""

EVERYWHERE = {**PLACES, **IN_HEADERS}


def shown(error: APIError, *more: object) -> str:
    """All that an error shows, whoever looks at it."""
    said = [str(error), repr(error), repr(error.args), repr(vars(error)), *map(repr, more)]
    if error.response is not None:
        said += [repr(error.response), *map(repr, dict(error.response.headers).items())]
    if isinstance(error, APIStatusError):
        said += [repr(error.body), repr(dict(error.headers)), str(error.api_message), str(error.type)]
        said.append(json.dumps(error.body))
    for each in (error.__cause__, error.__context__):
        said += [repr(each), repr(getattr(each, "doc", None))]  # the text that was no JSON
    said += [repr(error.ending and error.ending.to_dict()), *traceback.format_exception(error)]
    said.append(pickle.dumps(error).decode("latin-1"))
    return "\n".join(said)


def check(text: str, form: str) -> None:
    """Nothing of the key is left: neither in this form nor in another that is easily undone."""
    for secret in (form, form.replace("\\\\", "\\"), KEY, *(KEY[at : at + 8] for at in range(9, len(KEY) - 8))):
        assert secret not in text


@pytest.mark.parametrize("place", EVERYWHERE.values(), ids=EVERYWHERE)
def test_no_error_has_the_key(place: Any) -> None:
    async def story() -> None:
        step = one_in(2)
        for form in [*FORMS.values()][list(EVERYWHERE.values()).index(place) % step :: step]:
            written = form(KEY)
            error, stream = await fail(place(written), api_key=KEY)
            event = stream.error_event
            check(shown(error, stream.ending, event and (event, event.sse)), written)

    run(story())


@pytest.mark.parametrize(
    ("options", "secret"),
    [
        ({"auth_token": "tok-0f3b9a7c21"}, "tok-0f3b9a7c21"),
        ({"default_headers": {"x-gateway-secret": "open sesame, 42"}}, "open sesame, 42"),
        ({"default_headers": {"cookie": "a=b; session=0f3b9a7c"}}, "0f3b9a7c"),
        ({"proxy": "http://me:0f3b9a7c@proxy.example"}, "bWU6MGYzYjlhN2M="),
    ],
    ids=["the token", "a field of the caller's", "a cookie", "the password of a proxy"],
)
def test_nor_what_else_the_request_had(options: dict[str, Any], secret: str) -> None:
    options = {"api_key": None if "auth_token" in options else KEY, **options}
    for name, form in FORMS.items():
        error, _ = run(fail(PLACES["a message"](form(secret)), **options))
        text = shown(error)
        assert secret not in text, name
        assert form(secret) not in text, name


def test_nor_a_field_that_one_call_had() -> None:
    async def story() -> str:
        client = client_of(PLACES["a message"]("open sesame, 42"), api_key=KEY)
        with pytest.raises(APIError) as caught:
            await client.messages.create(**ASK, extra_headers={"x-gateway-secret": "open sesame, 42"})
        return str(caught.value)

    assert "sesame" not in run(story())


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_turns_of_a_conversation_do_not_have_it_either(form: Any) -> None:
    async def story() -> str:
        client = client_of(PLACES["a message"](form(KEY)), PLACES["an error event"](form(KEY)), api_key=KEY)
        conversation = client.conversation(model="m", max_tokens=9)
        for _ in range(2):
            with contextlib.suppress(APIError):
                await conversation.ask("Hi")
        return repr(conversation.turns)

    kept = run(story())
    assert "[x-api-key]" in kept
    check(kept, form(KEY))


def test_the_mark_names_the_field_and_the_rest_of_the_words_stays() -> None:
    error, _ = run(
        fail(plain(b'{"error":{"message":"bad key sk-0123456789, sorry"}}', "401 No"), api_key="sk-0123456789")
    )
    assert error.message == "status 401: bad key [x-api-key], sorry"


@pytest.mark.parametrize(
    "value", ["", "key", "sk-1234", "error", "anthropic", "authentication", "x" * MIN_SECRET_CHARS]
)
def test_a_short_key_or_a_word_takes_nothing_out_of_a_message(value: str) -> None:
    said = "authentication_error: the key (sk-1234) is no anthropic key xxxxxxxxxxxx"
    assert Secrets([("x-api-key", value)]).removed(said) == said


@pytest.mark.parametrize(
    "name",
    [
        "anthropic-beta",
        "anthropic-version",
        "content-type",
        "accept",
        "user-agent",
        "x-request-id",
        "traceparent",
        "sec-ch-ua",
    ],
)
def test_what_a_request_says_of_itself_is_no_secret(name: str) -> None:
    said = "unexpected value context-1m-2025-08-07"
    assert Secrets([(name, "context-1m-2025-08-07")]).removed(said) == said


def test_of_two_that_overlap_the_longer_one_goes_whole() -> None:
    secrets = Secrets([("x-api-key", "k123456789"), ("x-other", "k123456789-abc")])
    assert secrets.removed("k123456789-abc k123456789") == "[x-other] [x-api-key]"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f'{{"message": "bad {KEY[:-3]}', '{"message": "bad [x-api-key]'),
        (f"wrong: Bearer {KEY[:30]}...", "wrong: Bearer [x-api-key]..."),
        (f"{KEY[:-1]}\u2026 and {KEY}", "[x-api-key]\u2026 and [x-api-key]"),
        (f"keys begin with {KEY[:13]}", f"keys begin with {KEY[:13]}"),
    ],
)
def test_a_long_beginning_of_a_key_is_taken_out_too(text: str, left: str) -> None:
    assert Secrets([("x-api-key", KEY)]).removed(text) == left


@pytest.mark.parametrize(
    "name", ["x-forwarded-access-token", "sec-token", "anthropic-auth", "content-secret", "accept-key"]
)
def test_a_field_is_public_by_its_whole_name_alone(name: str) -> None:
    assert Secrets([(name, "tok3n-9999-abcdef")]).removed("bad tok3n-9999-abcdef") == f"bad [{name}]"


def test_a_password_in_basic_credentials_is_one_by_itself() -> None:
    secrets = Secrets([("proxy-authorization", "Basic " + base64.b64encode(b"al:hunter2-Secret/pw").decode())])
    assert secrets.removed("user al with password hunter2-Secret/pw") == "user al with password [proxy-authorization]"
    assert secrets.removed("http://al:hunter2-Secret/pw@x/") == "http://[proxy-authorization]@x/"


def test_json_of_which_a_number_is_taken_out_is_still_json() -> None:
    error, _ = run(
        fail(
            plain(b'{"error":{"type":"rate_limit_error","message":"slow"},"account": 1234567890}', "429 No"),
            default_headers={"x-account-id": "1234567890"},
        )
    )
    assert isinstance(error, APIStatusError)
    assert error.message == "429 rate_limit_error: slow"
    assert isinstance(error.body, dict)
    assert error.body["account"] == "[x-account-id]"


def test_a_body_in_utf_16_does_not_hide_the_key() -> None:
    body = f'{{"error":{{"message":"bad {KEY}"}}}}'.encode("utf-16")
    error, _ = run(fail(plain(body, "401 No"), api_key=KEY))
    check(shown(error).replace("\\x00", "").replace("\0", ""), KEY)


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig"])
def test_json_is_searched_in_whatever_coding_it_comes(coding: str) -> None:
    body = json.dumps({"error": {"message": f"bad key {KEY}"}}).encode(coding)
    error, _ = run(fail(plain(body, "401 No"), api_key=KEY))
    assert error.message == "status 401: bad key [x-api-key]"


def test_a_number_may_be_it_too() -> None:
    error, _ = run(fail(plain(b'{"error":{"message":"no","id":20251130001}}', "401 No"), api_key="20251130001"))
    assert "20251130001" not in shown(error)


READ_BY_CHARACTER = {name: form for name, form in FORMS.items() if "base64" not in name}
MORE_FORMS = {
    "each in HTML without its end": lambda text: "".join(f"&#{ord(char)}" for char in text),
    "each in HTML by hexadecimal without its end": lambda text: "".join(f"&#x{ord(char):x}" for char in text),
    "each in HTML with many zeros": lambda text: "".join(f"&#{ord(char):012};" for char in text),
    "one in HTML with thousands of zeros": lambda text: f"&#{ord(text[0]):02000};{text[1:]}",
    "each in HTML by hexadecimal with many zeros": lambda text: "".join(f"&#x{ord(char):040X};" for char in text),
    "names of HTML without their end": lambda text: text.replace("&", "&amp").replace('"', "&quot"),
    "in the name of a field": str.lower,
    "in capitals": str.upper,
    "in lines": lambda text: "\r\n".join(text[at : at + 7] for at in range(0, len(text), 7)),
    "in lines of a string of JSON": lambda text: json.dumps(
        "\n".join(text[at : at + 7] for at in range(0, len(text), 7))
    )[1:-1],
}


@pytest.mark.parametrize("inner", [*FORMS.values(), *MORE_FORMS.values()], ids=[*FORMS, *MORE_FORMS])
def test_a_form_may_be_written_in_another_form(inner: Form) -> None:
    secrets = Secrets([("x-api-key", "sk-ant-api03-0f3b&\"7Qx~9'Kw")])
    step = one_in(2)
    first = [*FORMS.values(), *MORE_FORMS.values()].index(inner) % step
    for name, outer in [*READ_BY_CHARACTER.items()][first::step]:
        written = outer(inner("sk-ant-api03-0f3b&\"7Qx~9'Kw"))
        left = secrets.removed(f"before {written} after")
        assert left.startswith("before "), name
        assert left.endswith(" after"), name
        assert "[x-api-key]" in left, name
        assert written[len(written) // 3 : -len(written) // 3] not in left, name


def test_escapes_of_two_kinds_in_one_are_read() -> None:
    secrets = Secrets([("x-api-key", "k<12345678")])
    for written in (
        "k\\u0026lt;12345678",
        "k%26lt%3B12345678",
        "k&#37;3c12345678",
        "k\\u00253C12345678",
        "k&amplt12345678",
    ):
        assert secrets.removed(f"bad {written}!") == "bad [x-api-key]!"


@pytest.mark.parametrize("key", ["k&gT12345678", "k&ltd12345678", "k%4112345678", "k\\u004112345678", "k&amp;12345678"])
def test_a_key_may_look_like_an_escape(key: str) -> None:
    secrets = Secrets([("x-api-key", key)])
    for form in (str, html.escape, lambda text: json.dumps(text)[1:-1], quote):
        assert secrets.removed(f"bad {form(key)}!") == "bad [x-api-key]!"


def test_a_name_in_html_that_no_character_has_is_left_and_so_is_what_surrounds_a_key() -> None:
    secrets = Secrets([("x-api-key", "k123456789")])
    said = "&amp;{0}; &{0}; &lt;b&gt; \u0130 \u212a\n%0A{0}%\n&nosuch; \\n{0}\\n"
    assert secrets.removed(said.format("k123456789")) == said.format("[x-api-key]")


def test_a_key_in_the_name_of_a_field_is_taken_out() -> None:
    error, _ = run(fail(plain(b"{}", "401 No", **{f"x_{KEY_IN_A_NAME}": "1", "x_other": "2"}), api_key=KEY_IN_A_NAME))
    assert error.response is not None
    names = list(error.response.headers)
    assert "x-[x-api-key]" in names
    assert "x-other" in names


def test_a_key_that_goes_from_a_field_to_the_next_leaves_both_fields() -> None:
    error, _ = run(
        fail(plain(b"{}", "401 No", a=KEY_IN_A_NAME[:12], **{KEY_IN_A_NAME[12:]: "1"}), api_key=KEY_IN_A_NAME)
    )
    assert error.response is not None
    assert error.response.headers["a"] == "[x-api-key]"


HOSTILE = {
    "backslashes": "\\",
    "percent signs": "%25",
    "ampersands": "&amp;",
    "ampersands without their end": "&amp",
    "numbers of HTML": "&#x0000000000",
    "layers": "\\u005cu005c&amp;%2525",
    "zeros": "&#0",
    "the beginning of the key": KEY[:-1],
    "the key": KEY,
    "text": "x",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
def test_it_takes_linear_time(piece: str) -> None:
    secrets = Secrets([("x-api-key", KEY)])

    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        started = time.thread_time()  # what others do on this machine does not count
        secrets.removed(text)
        return time.thread_time() - started

    small = min(seconds(5_000) for _ in range(2))
    assert min(seconds(40_000) for _ in range(2)) < 40 * small + 0.005  # 64 times for a square


def test_a_response_without_a_secret_is_left_as_it_is() -> None:
    async def story() -> Any:
        client = client_of(plain(b'{"input_tokens":1}', request_id="req_1", location="/a%20b"), api_key=KEY)
        raw = await client.messages.with_raw_response.count_tokens(model="m", messages=ASK["messages"])
        return raw.request_id, raw.headers["location"]

    assert run(story()) == ("req_1", "/a%20b")
