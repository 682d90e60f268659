"""rawsse.cli.terminal: each failure in one line that says what to do, and no key in it."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from rawsse.cli.terminal import MAX_ADVICE_CHARS, Asked, advise, one_line
from rawsse.errors import (
    APIConnectionError,
    APIError,
    CertificateError,
    ConfigurationError,
    ConnectTimeoutError,
    Phase,
    ProxyError,
    SilenceTimeoutError,
    StreamTruncatedError,
    status_error,
    stream_error,
)


def body(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def refusal(
    status: int, kind: str, message: str, *, retries: int = 0, wait: float | None = None, request_id: str = ""
) -> APIError:
    error = status_error(status, body(kind, message), {"request-id": request_id} if request_id else {})
    error.retries_taken = retries
    error.retry_after = wait
    return error


def at(phase: Phase, error: APIError, *, retries: int = 0, cause: BaseException | None = None) -> APIError:
    error.phase = phase
    error.retries_taken = retries
    error.__cause__ = cause
    return error


# --- The API said no -------------------------------------------------------------------------------------------------

MODEL = Asked(model="claude-x")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            refusal(401, "authentication_error", "invalid x-api-key", request_id="req_7"),
            (
                "the API does not accept the key: set ANTHROPIC_API_KEY to one that it does"
                " [401 authentication_error: invalid x-api-key, request req_7]"
            ),
        ),
        (
            refusal(404, "not_found_error", "model: claude-x"),
            "there is no model 'claude-x': name another with --model [404 not_found_error: model: claude-x]",
        ),
        (
            refusal(404, "not_found_error", "Not Found"),
            (
                "there is no Messages API at that address: is the base URL right (--base-url, ANTHROPIC_BASE_URL)?"
                " [404 not_found_error: Not Found]"
            ),
        ),
        (
            refusal(429, "rate_limit_error", "Slow down", wait=90.0),
            "429 rate_limit_error: Slow down: try again in 90 s",
        ),
        (
            refusal(429, "rate_limit_error", "Slow down", retries=2),
            "429 rate_limit_error: Slow down (3 attempts): try again later",
        ),
        (
            refusal(529, "overloaded_error", "Overloaded", retries=2),
            "529 overloaded_error: Overloaded (3 attempts): try again later",
        ),
        (
            refusal(500, "api_error", "Internal server error", retries=1),
            "500 api_error: Internal server error (2 attempts): try again later",
        ),
        (
            refusal(400, "invalid_request_error", "max_tokens: too many", request_id="req_7"),
            "400 invalid_request_error: max_tokens: too many [request req_7]",
        ),
        (refusal(402, "billing_error", "No credit"), "402 billing_error: No credit"),
    ],
)
def test_a_refusal_says_what_to_do(error: APIError, words: str) -> None:
    assert advise(error, MODEL) == words


def test_an_error_event_after_content_says_that_the_answer_is_incomplete() -> None:
    error = at("content", stream_error(body("overloaded_error", "Overloaded"), {}))
    assert advise(error) == ("the answer is incomplete: error event, overloaded_error: Overloaded: try again later")


def test_an_error_event_before_content_is_like_a_status() -> None:
    error = at("open", stream_error(body("overloaded_error", "Overloaded"), {}), retries=2)
    assert advise(error) == "error event, overloaded_error: Overloaded (3 attempts): try again later"


def test_the_command_that_names_another_model_is_the_callers() -> None:
    error = refusal(404, "not_found_error", "model: claude-x")
    assert advise(error, MODEL._replace(model_option="/model")).startswith(
        "there is no model 'claude-x': name another with /model ["
    )


def test_what_is_no_messages_api_is_named() -> None:
    error = status_error(404, "<html>", {})
    assert advise(error, Asked("claude-x", "https://example.org/v2")).startswith(
        "there is no Messages API at https://example.org/v2: is the base URL right"
    )


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "ANTHROPIC_API_KEY"),
        ({"ANTHROPIC_AUTH_TOKEN": "t"}, "ANTHROPIC_AUTH_TOKEN"),
        ({"ANTHROPIC_API_KEY": " ", "ANTHROPIC_AUTH_TOKEN": "t"}, "ANTHROPIC_AUTH_TOKEN"),
        ({"ANTHROPIC_API_KEY": "k", "ANTHROPIC_AUTH_TOKEN": "t"}, "ANTHROPIC_API_KEY"),
    ],
)
def test_the_variable_that_the_key_came_from_is_named(environ: dict[str, str], name: str) -> None:
    assert f" set {name} to " in advise(refusal(401, "authentication_error", "no"), Asked(environ=environ))


# --- The network -----------------------------------------------------------------------------------------------------

NO_NAME = socket.gaierror(-2, "Name or service not known")
CHECK = "check the network, and HTTPS_PROXY if there is no way but through a proxy"


def test_a_name_that_is_not_known_says_what_to_check() -> None:
    error = APIConnectionError(f"cannot connect to https://api.anthropic.com: {NO_NAME}")
    assert advise(at("connect", error, retries=2, cause=NO_NAME)) == (
        "cannot connect to https://api.anthropic.com: [Errno -2] Name or service not known (3 attempts); " + CHECK
    )


def test_no_connection_in_time_says_what_to_check() -> None:
    error = at("connect", ConnectTimeoutError("no connection to api.anthropic.com within 10 s"))
    assert advise(error) == f"no connection to api.anthropic.com within 10 s; {CHECK}"


def test_an_address_that_somebody_gave_is_to_be_checked() -> None:
    error = at("connect", APIConnectionError("cannot connect to http://127.0.0.1:9: Connection refused"))
    assert advise(error, Asked(base_url="http://127.0.0.1:9")) == (
        "cannot connect to http://127.0.0.1:9: Connection refused; "
        "check that address (--base-url, ANTHROPIC_BASE_URL), and the network"
    )


def test_an_error_of_a_proxy_names_its_variable_by_itself() -> None:
    error = at("connect", ProxyError("the proxy http://p:3128 (from HTTPS_PROXY) answered 403", status_code=403))
    assert advise(error) == "the proxy http://p:3128 (from HTTPS_PROXY) answered 403"


def test_a_certificate_says_by_itself_what_to_do() -> None:
    error = at("connect", CertificateError("its certificate is not trusted: …; name it in SSL_CERT_FILE"))
    assert advise(error) == "its certificate is not trusted: …; name it in SSL_CERT_FILE"


def test_silence_is_told_as_it_is() -> None:
    error = at("head", SilenceTimeoutError("not a single byte came for 90 s, not even a ping"), retries=2)
    assert advise(error) == "not a single byte came for 90 s, not even a ping (3 attempts)"


def test_a_cut_answer_is_called_incomplete() -> None:
    error = at("content", StreamTruncatedError("the body ended before message_stop"))
    assert advise(error) == "the answer is incomplete: the body ended before message_stop"


# --- The rest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConfigurationError("the prompt is empty"), "the prompt is empty"),
        (FileNotFoundError(2, "No such file or directory", "a.sse"), "a.sse: No such file or directory"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("odd"), "odd"),
        (OSError(), "OSError"),
    ],
)
def test_other_failures_are_told_in_their_own_words(error: Exception, words: str) -> None:
    assert advise(error) == words


# --- One line --------------------------------------------------------------------------------------------------------


def test_a_text_of_many_lines_becomes_one() -> None:
    assert one_line("one\r\n  two\tthree\u2028four\n", {}) == "one two three four"


def test_a_long_text_is_cut() -> None:
    assert one_line("x" * (MAX_ADVICE_CHARS + 1), {}) == "x" * MAX_ADVICE_CHARS + "…"
    assert one_line("x" * MAX_ADVICE_CHARS, {}) == "x" * MAX_ADVICE_CHARS


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "RAWSSE_TOKEN"])
def test_a_key_is_never_shown(name: str) -> None:
    assert one_line("no: sk-ant-12345!", {name: " sk-ant-12345\n"}) == f"no: [{name}]!"


def test_a_key_at_the_place_where_a_text_is_cut_is_not_shown_either() -> None:
    text = "x" * (MAX_ADVICE_CHARS - 4) + "sk-ant-12345"
    assert one_line(text, {"ANTHROPIC_API_KEY": "sk-ant-12345"}).endswith("x[ANT…")


def test_a_word_that_happens_to_be_the_key_may_be_said() -> None:
    assert one_line("not any more", {"ANTHROPIC_API_KEY": "any"}) == "not any more"
