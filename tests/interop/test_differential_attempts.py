"""The official SDK and rawsse, side by side, where the API says no, or nobody is there: classes, facts, attempts, waits.

Time is virtual.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from support.answers import SSE_HEAD, head, plain
from support.fault_server import CLOSE, HOLD, RESET, Script
from support.streams import ANSWER, fold, to_bytes

import rawsse
from rawsse import errors
from rawsse.errors import APIError, APIStatusError

from .differential import (
    ERROR,
    HALF,
    SAID,
    WHOLE,
    broken_off,
    create,
    differ,
    differences,
    names_of,
    refused,
    said,
    sse,
)

anthropic = pytest.importorskip("anthropic", reason="the official SDK: the extra `interop`")

pytestmark = pytest.mark.real

# --- Refusals --------------------------------------------------------------------------------------------------------

UNLISTED = (300, 405, 410, 418, 424, 425, 451, 502, 505, 520, 524, 530, 598)
LISTED = (400, 401, 402, 403, 404, 408, 409, 412, 413, 422, 429, 431, 499, 500, 501, 503, 504, 529)


@pytest.mark.parametrize("status", UNLISTED + LISTED)
def test_a_refusal_is_the_sdk_s_class_with_the_sdk_s_facts(status: int) -> None:
    sdk, ours = differ(refused(status, "some_error", request_id="req_9"))
    assert ours.summary == sdk.summary
    assert differences(sdk, ours) == {}
    assert "some_error" in str(ours.error)
    assert "Not today." in str(sdk.error)
    assert "Not today." in str(ours.error)


CODES = {
    "available_tools_limit_exceeded": 400,
    "cmek_key_disabled": 400,
    "organization_on_hold": 400,
    "linked_organization_spend_limit_reached": 402,
    "thread_not_found": 404,
    "request_body_too_large_after_decoding": 413,
    "enforced_spend_limit_reached": 429,
    "cmek_key_unreachable": 503,
    "a_new_one": 409,
}


@pytest.mark.parametrize("code", CODES)
def test_an_error_code_is_told_and_its_class_is_one_that_the_sdk_s_error_is_of(code: str) -> None:
    error = {"type": "some_error", "message": "No.", "details": {"error_code": code}}
    body = json.dumps({"type": "error", "error": error}).encode()
    sdk, ours = differ([plain(body, f"{CODES[code]} No", content_type="application/json")])
    assert type(ours.error).__name__ in names_of(sdk.error)
    assert isinstance(ours.error, APIStatusError)
    assert isinstance(sdk.error, anthropic.APIStatusError)
    assert (ours.error.error_code, ours.error.details) == (sdk.error.error_code, sdk.error.details.to_dict())


def test_the_classes_stand_in_the_tree_as_the_sdk_s_do() -> None:
    shared = [name for name in vars(errors) if isinstance(getattr(anthropic, name, None), type)]
    assert len(shared) > 20
    for upper in shared:
        for lower in shared:
            theirs = issubclass(getattr(anthropic, lower), getattr(anthropic, upper))
            assert issubclass(getattr(rawsse.errors, lower), getattr(rawsse.errors, upper)) == theirs, (lower, upper)


KNOWINGLY_ABSENT = {
    # What is httpx2's own; ours has the `headers`.
    "request",
    "response",
    # Said by `message` and by `headers`.
    "api_message",
    "workspace_id",
}


def test_an_error_has_what_the_sdk_s_has() -> None:
    sdk, ours = differ(refused(400))
    assert {name for name in vars(sdk.error) if not hasattr(ours.error, name)} <= KNOWINGLY_ABSENT


# --- Trying again ----------------------------------------------------------------------------------------------------

WHOLE_ANSWER = sse(WHOLE)


class Again(NamedTuple):
    """What fails first (then comes a whole answer), and how many requests the server sees of each. Two retries are allowed."""

    script: Script
    sdk: int
    ours: int
    waits: tuple[float, float] = (0.375, 0.5)  # the first wait: half a second, less up to a quarter of it


AGAIN: Mapping[str, Again] = {
    **{f"{status}": Again(refused(status), 1, 1) for status in (400, 401, 403, 404, 413, 422, 425)},
    **{f"{status}": Again(refused(status), 2, 2) for status in (408, 409, 429, 500, 501, 502, 503, 504, 529)},
    "a page as 502": Again([plain(b"<html>", "502 No")], 2, 2),
    "the server wants it again": Again(refused(400, x_should_retry="true"), 2, 2),
    "the server does not want it again": Again(refused(500, x_should_retry="false"), 1, 1),
    "retry-after": Again(refused(429, retry_after="7"), 2, 2, (7, 7)),
    "retry-after, a fraction": Again(refused(429, retry_after="1.5"), 2, 2, (1.5, 1.5)),
    "retry-after-ms": Again(refused(429, retry_after_ms="1500", retry_after="9"), 2, 2, (1.5, 1.5)),
    "retry-after that is none": Again(refused(429, retry_after="soon"), 2, 2),
    "retry-after of nothing": Again(refused(429, retry_after="0"), 2, 2),
    "closed before the head": Again([CLOSE], 2, 2),
    "reset before the head": Again([RESET], 2, 2),
    "silence before the head": Again([HOLD], 2, 2, (5.375, 5.5)),
    # Better: nothing had reached the caller.
    "an error event first": Again(said(ERROR), 1, 2),
    "an empty stream": Again(sse(), 1, 2),
    "closed after message_start": Again(broken_off(to_bytes(ANSWER[:1]), CLOSE), 1, 2),
    "silence after the head": Again([SSE_HEAD, HOLD], 1, 2, (5.375, 5.5)),
    # Never after content.
    "closed in the text": Again(broken_off(HALF, CLOSE), 1, 1),
    "an error event in the text": Again(said(*ANSWER[:4], ERROR), 1, 1),
    # Better: the SDK sleeps for an hour.
    "retry-after of an hour": Again(refused(429, retry_after="3600"), 2, 1),
    # Knowingly less: what does not speak HTTP will not learn it.
    "no HTTP": Again([b"nonsense\r\n\r\n"], 2, 1),
}


@pytest.mark.parametrize("fault", AGAIN)
def test_what_the_sdk_tries_again_is_tried_again_after_the_same_wait(fault: str) -> None:
    row = AGAIN[fault]
    sdk, ours = differ(row.script, WHOLE_ANSWER, max_retries=2)
    assert (len(sdk.requests), len(ours.requests)) == (row.sdk, row.ours)
    assert (ours.summary == SAID) == (row.ours == 2)
    shortest, longest = row.waits
    if row.ours == 2:
        assert ours.events[0]["type"] == "message_start"
        assert [event["type"] for event in ours.events].count("message_start") == 1
        assert shortest <= ours.seconds <= longest
    if row.sdk == row.ours == 2:
        assert shortest <= sdk.seconds <= longest
    bodies = [request.body for request in ours.requests]
    assert bodies == bodies[:1] * len(bodies)


@pytest.mark.parametrize("script", [refused(529, "overloaded_error"), [CLOSE], refused(429, retry_after="2")])
def test_both_give_up_after_as_many_attempts(script: Script) -> None:
    sdk, ours = differ(script, max_retries=3)
    assert ours.summary == sdk.summary
    assert (len(ours.requests), len(sdk.requests)) == (4, 4)
    assert isinstance(ours.error, APIError)
    assert ours.error.retries_taken == 3


def test_create_is_tried_again_when_its_body_is_cut_as_the_sdk_s_is() -> None:
    # The SDK asks for JSON and rawsse for events: each gets what it asks for, cut the first time.
    whole = json.dumps(fold(ANSWER).message, default=lambda lens: lens.raw).encode()
    cut_json: Script = [plain(whole, content_type="application/json")[:-9], CLOSE]
    sdk, _ = differ(cut_json, [plain(whole, content_type="application/json")], action=create, max_retries=2)
    _, ours = differ(broken_off(HALF, CLOSE), WHOLE_ANSWER, action=create, max_retries=2)
    assert (len(sdk.requests), len(ours.requests)) == (2, 2)
    assert sdk.error is ours.error is None
    assert ours.message["content"][0]["text"] == "Hello ☺"


def test_a_wait_of_an_hour_is_told_and_not_slept_through() -> None:
    sdk, ours = differ(refused(429, retry_after="3600"), WHOLE_ANSWER, max_retries=2)
    assert sdk.seconds == 3600
    assert ours.seconds == 0
    assert "the server asks to wait 3600 s; max_retry_after is 60 s" in str(ours.error)


# --- Where there is nobody -------------------------------------------------------------------------------------------


def closed_port() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_a_port_where_nobody_listens() -> None:
    sdk, ours = differ(WHOLE_ANSWER, base_url=closed_port())
    assert sdk.summary == ours.summary == "APIConnectionError"
    assert "Connection refused" in str(ours.error)


def test_a_name_that_does_not_resolve() -> None:
    sdk, ours = differ(WHOLE_ANSWER, base_url="http://nowhere.invalid")
    assert sdk.summary == ours.summary == "APIConnectionError"
    assert "cannot connect to http://nowhere.invalid" in str(ours.error)


def test_no_key_is_told_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE", "ANTHROPIC_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    sdk, ours = differ(WHOLE_ANSWER, api_key=None)
    assert (sdk.summary, ours.summary) == ("TypeError", "ConfigurationError")
    assert sdk.requests == ours.requests == []


def test_a_wrong_base_url_is_asked_and_its_404_told() -> None:
    sdk, ours = differ([plain(b"not here", "404 No")], prefix="/wrong/")
    assert [request.target for request in sdk.requests + ours.requests] == ["/wrong/v1/messages"] * 2
    assert ours.summary == "NotFoundError 404"
    assert differences(sdk, ours) == {}


@pytest.mark.parametrize("url", ["no url", "ftp://127.0.0.1", "http://127.0.0.1:99999"])
def test_a_base_url_that_is_none_is_told_at_once(url: str) -> None:
    with pytest.raises(rawsse.errors.ConfigurationError, match="the base URL"):
        differ(WHOLE_ANSWER, base_url=url)


# Knowingly less: a key is sent to the address that it was given for, and nowhere else.
@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_redirect_is_followed_by_the_sdk_only(status: int) -> None:
    there = head(f"{status} There", location="/other/v1/messages", content_length="0")
    sdk, ours = differ([there], WHOLE_ANSWER)
    assert (sdk.summary, [request.target for request in sdk.requests]) == (SAID, ["/v1/messages", "/other/v1/messages"])
    assert (ours.summary, len(ours.requests)) == (f"APIStatusError {status}", 1)
