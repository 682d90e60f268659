"""rawsse.client.retry: which failure may be tried again, and when. Waits are reckoned by hand."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Mapping
from typing import Any

import pytest

from rawsse import errors
from rawsse.client import retry
from rawsse.client.retry import Decision, RetryPolicy, decide, parse_retry_after
from rawsse.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    ConfigurationError,
    ContentTimeoutError,
    HeadTimeoutError,
    OverloadedError,
    Phase,
    ProtocolError,
    RateLimitError,
    StreamCancelledError,
    StreamTruncatedError,
    TotalTimeoutError,
    status_error,
    stream_error,
)
from rawsse.http1 import Headers

# The moment of RFC 9110, 5.6.7, in POSIX time, as `date -d 'Sun, 06 Nov 1994 08:49:37 GMT' +%s` tells it.
RFC_MOMENT = 784111777
NOW = float(RFC_MOMENT - 10)
LATER = "Sun, 06 Nov 1994 08:49:37 GMT"  # ten seconds after NOW


def decided(error: APIError, retries_taken: int = 0, chance: float = 0.0, **policy: Any) -> Decision:
    return decide(error, retries_taken, RetryPolicy(**policy), now=NOW, chance=chance)


def refusal(status: int = 429, **headers: str) -> APIError:
    """What an answer with that status raises; underscores in names stand for hyphens."""
    return status_error(status, None, Headers((name.replace("_", "-"), value) for name, value in headers.items()))


def overloaded_in_stream(**headers: str) -> APIError:
    fields = Headers((name.replace("_", "-"), value) for name, value in headers.items())
    return stream_error({"error": {"type": "overloaded_error"}}, fields)


# --- Which --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 429, 500, 501, 502, 503, 504, 520, 529])
def test_an_api_that_is_busy_is_asked_again(status: int) -> None:
    assert decided(refusal(status)).delay == 0.5


@pytest.mark.parametrize("status", [302, 400, 401, 402, 403, 404, 412, 413, 418, 422, 431, 499])
def test_a_request_that_is_refused_for_what_it_is_is_not_sent_again(status: int) -> None:
    assert decided(refusal(status)) == Decision(None)


@pytest.mark.parametrize("cls", [APIConnectionError, HeadTimeoutError, StreamTruncatedError, APITimeoutError])
def test_a_network_that_failed_is_tried_again(cls: type[APIError]) -> None:
    assert decided(cls("words")).delay == 0.5


def test_one_error_may_heal_where_another_of_its_class_does_not() -> None:
    error = errors.ProxyError("words", status_code=407, may_heal=False)
    assert decided(error) == Decision(None)
    assert decided(errors.ProxyError("words", status_code=502)).delay == 0.5


def test_a_rule_that_was_broken_is_broken_again() -> None:
    assert decided(ProtocolError("words")) == Decision(None)


def test_a_stream_that_its_own_side_closed_stays_closed() -> None:
    assert decided(StreamCancelledError("words")) == Decision(None)


def test_when_the_time_of_the_whole_call_is_over_there_is_none_for_another_try() -> None:
    assert decided(TotalTimeoutError("words")) == Decision(None)


def test_a_model_that_was_silent_is_not_asked_again() -> None:
    assert decided(ContentTimeoutError("words")) == Decision(None)


@pytest.mark.parametrize("phase", ["content", "tail", "done"])
def test_nothing_is_tried_again_after_content(phase: Phase) -> None:
    error = StreamTruncatedError("words")
    error.phase = phase
    assert decided(error) == Decision(None)


@pytest.mark.parametrize("phase", [None, "connect", "send", "head", "open"])
def test_before_content_every_phase_may_be_tried_again(phase: Phase | None) -> None:
    error = StreamTruncatedError("words")
    error.phase = phase
    assert decided(error).delay == 0.5


def test_safe_to_retry_is_not_asked_for_the_stream_sets_it_afterwards() -> None:
    error = APIConnectionError("words")
    assert not error.safe_to_retry
    assert decided(error).delay is not None


# --- How often ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("taken", "most"), [(0, 0), (1, 1), (2, 2), (3, 2)])
def test_after_max_retries_there_is_no_further_try(taken: int, most: int) -> None:
    assert decided(refusal(529), taken, max_retries=most) == Decision(None)


def test_there_are_two_retries_unless_told_otherwise() -> None:
    assert [decided(refusal(529), taken).delay is None for taken in range(4)] == [False, False, True, True]


def test_not_even_the_server_makes_it_more() -> None:
    assert decided(refusal(429, x_should_retry="true", retry_after="1"), 2).delay is None


def test_the_reason_for_another_try_counts_it() -> None:
    assert decided(refusal(529)).reason == "OverloadedError: retry 1 of 2, in 0.5 s"
    assert decided(refusal(429, retry_after="7"), 1).reason == (
        "RateLimitError: retry 2 of 2, in 7 s as the server asks"
    )


# --- The server's word ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", ["true", "True", " true "])
def test_the_server_may_ask_for_another_try_whatever_the_status(wish: str) -> None:
    assert decided(refusal(400, x_should_retry=wish)).delay == 0.5


def test_the_server_may_forbid_another_try_whatever_the_status() -> None:
    assert decided(refusal(500, x_should_retry="false")) == Decision(None)


@pytest.mark.parametrize("wish", ["", "yes", "1", "true, true"])
def test_what_is_neither_true_nor_false_leaves_it_to_the_status(wish: str) -> None:
    assert decided(refusal(400, x_should_retry=wish)).delay is None
    assert decided(refusal(500, x_should_retry=wish)).delay == 0.5


def test_headers_in_a_plain_dict_may_have_capitals() -> None:
    error = RateLimitError("words", status_code=429, headers={"X-Should-Retry": "false"})
    assert decided(error).delay is None


def test_an_error_event_counts_as_the_status_of_its_type() -> None:
    assert decided(overloaded_in_stream()).delay == 0.5
    refused = stream_error({"error": {"type": "invalid_request_error"}}, {})
    assert decided(refused) == Decision(None)


def test_a_head_that_forbids_another_try_forbids_it_after_an_error_event_too() -> None:
    assert decided(overloaded_in_stream(x_should_retry="false")).delay is None


def test_a_head_that_asks_for_another_try_was_not_about_the_error_event_that_came_later() -> None:
    error = stream_error({"error": {"type": "invalid_request_error"}}, {"x-should-retry": "true"})
    assert decided(error).delay is None


def test_a_wait_in_the_head_was_not_about_the_error_event_that_came_later() -> None:
    error = overloaded_in_stream(retry_after="3600")
    assert decided(error) == Decision(0.5, None, "OverloadedError: retry 1 of 2, in 0.5 s")


# --- When: as the server asks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503, 529])
@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "60"}, 60.0),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after": LATER}, 10.0),
    ],
)
def test_a_wait_that_the_server_asks_for_is_kept_to_the_second(
    status: int, headers: dict[str, str], delay: float
) -> None:
    decision = decided(refusal(status, **headers), chance=0.9)
    assert (decision.delay, decision.retry_after) == (delay, delay)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry_after": "61"}, 61.0),
        ({"retry_after": "3600"}, 3600.0),
        ({"retry_after": "62291"}, 62291.0),
        ({"retry_after_ms": "60001"}, 60.001),
        ({"retry_after": "Sun, 06 Nov 1994 09:49:37 GMT"}, 3610.0),
    ],
)
def test_a_wait_above_the_ceiling_fails_at_once_and_says_how_long_it_is(headers: dict[str, str], wait: float) -> None:
    assert decided(refusal(429, **headers)) == Decision(None, wait)


def test_the_ceiling_can_be_moved_and_taken_away() -> None:
    assert decided(refusal(retry_after="5"), max_retry_after=4.5) == Decision(None, 5.0)
    assert decided(refusal(retry_after="3600"), max_retry_after=math.inf).delay == 3600.0


def test_what_the_server_asked_is_known_where_there_is_no_further_try() -> None:
    assert decided(refusal(429, retry_after="7"), 2) == Decision(None, 7.0)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": " 2 "}, 2.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": ".5"}, 0.5),
        ({"Retry-After": "2"}, 2.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "0", "retry-after": "9"}, 9.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "9" * 400}, None),  # more than a float holds
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "5, 5"}, None),
    ],
)
def test_what_the_server_asks_is_the_first_field_that_can_be_used(
    headers: Mapping[str, str], wait: float | None
) -> None:
    assert parse_retry_after(headers, NOW) == wait


@pytest.mark.parametrize("text", ["0", "-5", "soon", "Sun, 06 Nov 1994 08:49:27 GMT", "Sun, 06 Nov 1994 08:49:26 GMT"])
def test_junk_and_a_time_that_has_passed_leave_the_wait_to_the_policy(text: str) -> None:
    assert decided(refusal(retry_after=text)) == Decision(0.5, None, "RateLimitError: retry 1 of 2, in 0.5 s")


# --- Dates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "date",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",  # the three of RFC 9110, 5.6.7
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 6 Nov 1994 08:49:37 GMT",  # and what servers write instead
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
    ],
)
def test_all_three_forms_of_a_date_are_read_and_a_little_more(date: str) -> None:
    assert parse_retry_after({"retry-after": date}, NOW) == 10.0


def test_a_date_says_nothing_to_whoever_does_not_know_the_time() -> None:
    assert parse_retry_after({"retry-after": LATER}) is None


@pytest.mark.parametrize(
    "date",
    [
        "Sun, 31 Feb 2094 08:49:37 GMT",
        "Sun, 06 Nov 2094 24:00:00 GMT",
        "Sun, 06 Nov 2094 08:60:37 GMT",
        "Sun, 06 Nov 2094 08:49:61 GMT",
        "2094-11-06T08:49:37Z",
    ],
)
def test_what_is_no_http_date_is_junk(date: str) -> None:
    assert parse_retry_after({"retry-after": date}, NOW) is None


# --- When: by ourselves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "longest"), [(0, 0.5), (1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (10**6, 8.0)]
)
def test_a_wait_of_our_own_doubles_up_to_the_longest(taken: int, longest: float) -> None:
    assert decided(refusal(529), taken, max_retries=10**7).delay == longest


@pytest.mark.parametrize(("chance", "delay"), [(0.0, 0.5), (0.5, 0.4375), (0.96, 0.38)])
def test_chance_takes_away_up_to_a_quarter(chance: float, delay: float) -> None:
    assert decided(refusal(529), chance=chance).delay == pytest.approx(delay)


def test_the_waits_are_those_that_the_policy_says() -> None:
    waits = [decided(refusal(529), taken, max_retries=4, first_delay=3.0, max_delay=10.0).delay for taken in range(4)]
    assert waits == [3.0, 6.0, 10.0, 10.0]


def test_there_may_be_no_wait_at_all() -> None:
    assert decided(refusal(529), 10**6, max_retries=10**7, first_delay=0.0).delay == 0.0


def test_the_first_wait_is_no_longer_than_the_longest() -> None:
    assert decided(refusal(529), first_delay=1e308, max_delay=5.0).delay == 5.0


# --- The policy ---------------------------------------------------------------------------------------------------


def test_the_policy_has_the_values_of_the_official_sdks_and_a_ceiling() -> None:
    assert RetryPolicy() == RetryPolicy(max_retries=2, first_delay=0.5, max_delay=8.0, max_retry_after=60.0)


@pytest.mark.parametrize("value", [-1, 1.5, True, None, "2", math.inf])
def test_a_number_of_retries_is_a_whole_number(value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(max_retries=value).check()
    assert str(caught.value) == f"retries: max_retries must be a whole number of 0 or more, not {value!r}"


@pytest.mark.parametrize("name", ["first_delay", "max_delay", "max_retry_after"])
@pytest.mark.parametrize("value", [-0.1, math.nan, True, None, "2"])
def test_a_wait_is_a_number_of_seconds(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(**{name: value}).check()
    assert str(caught.value) == f"retries: {name} must be a number of seconds of 0 or more, not {value!r}"


@pytest.mark.parametrize("name", ["first_delay", "max_delay"])
def test_a_wait_of_our_own_has_an_end(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name} must be a number of seconds of 0 or more, not inf"):
        RetryPolicy(**{name: math.inf}).check()  # type: ignore[arg-type]


def test_whole_numbers_of_seconds_will_do() -> None:
    assert decided(refusal(529), first_delay=1, max_delay=2).delay == 1


# --- The file ------------------------------------------------------------------------------------------------------


def test_time_and_chance_are_arguments_and_nothing_else() -> None:
    tree = ast.parse(inspect.getsource(retry))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {name for name in names if name and name.startswith("rawsse")}
    assert ours == {"rawsse.errors"}
    assert names & {"asyncio", "time", "random", "os", "socket"} == set()


def test_an_error_that_carries_a_key_in_its_headers_does_not_tell_it() -> None:
    error = OverloadedError("words", status_code=529, headers={"set-cookie": "canary", "retry-after": "canary"})
    assert "canary" not in decided(error).reason
