"""rawsse.client.retry, `RateLimits`: what the header fields of an answer say about limits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from rawsse.client.retry import RateLimit, RateLimits
from rawsse.http1 import Headers

RESET = "2026-03-01T12:00:30Z"
MOMENT = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)


def family(prefix: str) -> dict[str, str]:
    return {f"{prefix}-limit": "4000", f"{prefix}-remaining": "3999", f"{prefix}-reset": RESET}


@pytest.mark.parametrize(
    ("attribute", "prefix"),
    [
        ("requests", "anthropic-ratelimit-requests"),
        ("tokens", "anthropic-ratelimit-tokens"),
        ("input_tokens", "anthropic-ratelimit-input-tokens"),
        ("output_tokens", "anthropic-ratelimit-output-tokens"),
        ("priority_input_tokens", "anthropic-priority-input-tokens"),
        ("priority_output_tokens", "anthropic-priority-output-tokens"),
        ("fast_input_tokens", "anthropic-fast-input-tokens"),
        ("fast_output_tokens", "anthropic-fast-output-tokens"),
    ],
)
def test_each_family_of_fields_is_one_limit_and_no_other(attribute: str, prefix: str) -> None:
    limits = RateLimits.from_headers(family(prefix))
    assert limits == RateLimits(
        **{attribute: RateLimit(limit=4000, remaining=3999, reset=MOMENT)},  # type: ignore[arg-type]
        raw=family(prefix),
    )


def test_headers_as_they_were_received_are_read_without_regard_to_case() -> None:
    headers = Headers([("Anthropic-RateLimit-Requests-Remaining", "7"), ("Content-Type", "text/plain")])
    assert RateLimits.from_headers(headers).requests == RateLimit(remaining=7)


def test_a_plain_dict_may_have_capitals() -> None:
    limits = RateLimits.from_headers({"Anthropic-RateLimit-Requests-Limit": "50"})
    assert limits.requests == RateLimit(limit=50)


def test_an_answer_without_such_fields_has_no_limits_and_is_false() -> None:
    limits = RateLimits.from_headers({"request-id": "req_1", "anthropic-organization-id": "org_1"})
    assert limits == RateLimits()
    assert not limits


@pytest.mark.parametrize(
    "name",
    [
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-unified-status",
        "anthropic-ratelimit-next-years-family",
        "anthropic-fast-output-tokens-reset",
        "retry-after",
        "retry-after-ms",
    ],
)
def test_any_field_about_limits_makes_it_true_even_one_that_cannot_be_read(name: str) -> None:
    assert RateLimits.from_headers({name: "junk"})


@pytest.mark.parametrize("junk", ["", "many", "-1", "1.5", "1_000", "٣", "9" * 5000])
def test_a_count_that_cannot_be_read_is_none_and_its_neighbours_are_not(junk: str) -> None:
    name = "anthropic-ratelimit-tokens"
    limits = RateLimits.from_headers({f"{name}-limit": junk, f"{name}-remaining": junk, f"{name}-reset": RESET})
    assert limits.tokens == RateLimit(limit=None, remaining=None, reset=MOMENT)
    assert limits.raw[f"{name}-limit"] == junk


@pytest.mark.parametrize(("text", "count"), [("0", 0), (" 12 ", 12), ("80000000", 80_000_000)])
def test_a_count_is_a_whole_number(text: str, count: int) -> None:
    assert RateLimits.from_headers({"anthropic-ratelimit-tokens-limit": text}).tokens == RateLimit(limit=count)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1985-04-12T23:20:50.52Z", datetime(1985, 4, 12, 23, 20, 50, 520000, tzinfo=UTC)),  # RFC 3339, 5.8
        ("1996-12-19T16:39:57-08:00", datetime(1996, 12, 20, 0, 39, 57, tzinfo=UTC)),
        ("1937-01-01T12:00:27.87+00:20", datetime(1937, 1, 1, 11, 40, 27, 870000, tzinfo=UTC)),
        ("2026-03-01t12:00:30z", MOMENT),
    ],
)
def test_a_reset_is_a_time_as_rfc_3339_writes_it(text: str, moment: datetime) -> None:
    limit = RateLimits.from_headers({"anthropic-ratelimit-requests-reset": text}).requests
    assert limit == RateLimit(reset=moment)


@pytest.mark.parametrize(
    "junk", ["", "soon", "1772366430", "2026-03-01", "2026-03-01T12:00:30", "2026-02-31T00:00:00Z"]
)
def test_a_reset_that_is_no_moment_is_none(junk: str) -> None:
    assert RateLimits.from_headers({"anthropic-ratelimit-requests-reset": junk}).requests == RateLimit()


def test_a_reset_keeps_its_offset() -> None:
    limit = RateLimits.from_headers({"anthropic-ratelimit-requests-reset": "2026-03-01T12:00:30+02:00"}).requests
    assert limit is not None
    assert limit.reset is not None
    assert limit.reset.tzinfo == timezone(timedelta(hours=2))


def test_limits_of_subscriptions_are_given_as_they_came() -> None:
    headers = {"anthropic-ratelimit-unified-status": "allowed", "anthropic-ratelimit-unified-5h-reset": "1772366400"}
    assert RateLimits.from_headers(headers).raw == headers


def test_families_that_are_not_known_are_not_lost() -> None:
    headers = {"anthropic-ratelimit-images-limit": "5", "anthropic-batch-requests-remaining": "6"}
    assert RateLimits.from_headers({**headers, "date": "today"}) == RateLimits(raw=headers)


def test_what_the_server_asks_to_wait_is_known_in_seconds() -> None:
    assert RateLimits.from_headers({"retry-after": "7"}).retry_after == 7.0
    assert RateLimits.from_headers({"retry-after-ms": "1500", "retry-after": "2"}).retry_after == 1.5
    assert RateLimits.from_headers({"retry-after": "soon"}).retry_after is None


def test_a_wait_until_a_date_is_known_to_whoever_knows_the_time() -> None:
    headers = {"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}
    assert RateLimits.from_headers(headers, now=MOMENT.timestamp() - 20).retry_after == 20.0
    assert RateLimits.from_headers(headers).retry_after is None
