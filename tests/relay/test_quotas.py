"""rawsse.relay.quotas: how much each user may use, counted exactly, and how users are told."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from support.sampling import one_in

from rawsse.client.retry import RateLimit, RateLimits
from rawsse.relay.dialects import Answer
from rawsse.relay.quotas import RETRY_SECONDS, Quotas
from rawsse.relay.record import RunRecord
from rawsse.relay.store import COUNTED
from rawsse.relay.users import MAX_LIMIT, User, UserLimits

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
MIDNIGHT = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
DAY = 86_400


def record_of(user: str, time: float = NOON, *, tokens: int = 0) -> RunRecord:
    kinds = {
        "input_tokens": tokens // 2,
        "output_tokens": tokens // 4,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": tokens - tokens // 2 - tokens // 4,
    }
    return RunRecord(
        time,
        "run",
        user,
        "text",
        "claude-sonnet-5",
        ending="complete",
        stop_reason="end_turn",
        error=None,
        seconds=1.0,
        first_token_seconds=0.5,
        **kinds,
        exact=True,
        on_disconnect=None,
        request_id=None,
        words="",
    )


def user(id: str = "ada", **limits: Any) -> User:
    return User(id, UserLimits(**limits))


def refusal(
    quotas: Quotas, user: User | None, now: float = NOON, *, is_messages: bool = False
) -> dict[str, str] | None:
    """The header fields of the refusal; None if the user is admitted."""
    try:
        quotas.admit(user, now, is_messages=is_messages)
    except Answer as answer:
        refused = answer
    else:
        return None
    assert refused.status == 429
    assert b'"rate_limit_error"' in refused.body
    return dict(refused.headers)


def admitted(quotas: Quotas, users: Iterable[User | None], now: float = NOON) -> int:
    return sum(refusal(quotas, each, now) is None for each in users)


def run(quotas: Quotas, user: User, now: float = NOON, *, tokens: int = 0) -> None:
    """A whole run, which takes no time."""
    quotas.admit(user, now)
    quotas.ended(record_of(user.id, now, tokens=tokens))


ADA, BOB = user("ada"), user("bob")

# --- Requests per minute -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 7, 60])
def test_as_many_requests_as_the_limit_says_may_come_at_once(limit: int) -> None:
    quotas, ada = Quotas(), user(requests_per_minute=limit)
    for _ in range(limit):
        run(quotas, ada)
    assert refusal(quotas, ada) is not None


@pytest.mark.parametrize("limit", [1, 7, 60, 61, 251])
def test_then_one_more_comes_back_after_each_equal_part_of_a_minute_and_not_before(limit: int) -> None:
    quotas, ada = Quotas(), user(requests_per_minute=limit)
    for _ in range(limit):
        run(quotas, ada)
    for number in range(1, 2 * limit):
        due = NOON + number * 60 / limit
        assert refusal(quotas, ada, due - 0.00001) is not None
        run(quotas, ada, due + 0.00001)
    assert refusal(quotas, ada, due + 0.00002) is not None


def test_at_an_even_pace_no_request_is_refused_for_days() -> None:
    quotas, ada = Quotas(), user(requests_per_minute=60)
    for second in range(60):
        run(quotas, ada, NOON + second / 1000)
    for number in range(7200 // one_in(5)):
        run(quotas, ada, NOON + 127 * number + 1)
    for _ in range(59):
        run(quotas, ada, NOON + 127 * number + 1)
    assert refusal(quotas, ada, NOON + 127 * number + 1) is not None


def test_what_was_not_used_is_not_saved_up() -> None:
    quotas, ada = Quotas(), user(requests_per_minute=3)
    run(quotas, ada)
    for _ in range(3):
        run(quotas, ada, NOON + DAY)
    assert refusal(quotas, ada, NOON + DAY) is not None


def test_retry_after_is_the_second_after_which_a_request_is_admitted() -> None:
    quotas, ada = Quotas(), user(requests_per_minute=7)
    for _ in range(7):
        run(quotas, ada)
    headers = refusal(quotas, ada)
    assert headers is not None
    assert headers["retry-after"] == "9"  # a seventh of a minute is 8.57 s
    assert refusal(quotas, ada, NOON + 8) is not None
    assert refusal(quotas, ada, NOON + 9) is None


def test_retry_after_is_at_least_a_second() -> None:
    quotas, ada = Quotas(), user(requests_per_minute=600)
    for _ in range(600):
        run(quotas, ada)
    headers = refusal(quotas, ada, NOON + 0.0999)
    assert headers is not None
    assert headers["retry-after"] == "1"


def test_a_refused_request_does_not_count() -> None:
    quotas, ada = Quotas(), user(requests_per_minute=60)
    for _ in range(60):
        run(quotas, ada)
    for _ in range(1000):
        refusal(quotas, ada)
    assert refusal(quotas, ada, NOON + 1) is None


def test_a_clock_that_is_set_back_gives_nothing_back_twice() -> None:
    quotas, ada = Quotas(), user(requests_per_minute=60)
    for _ in range(60):
        run(quotas, ada)
    assert refusal(quotas, ada, NOON - 50) is not None
    assert refusal(quotas, ada, NOON) is not None
    assert refusal(quotas, ada, NOON + 1) is None


def test_a_clock_that_is_set_back_takes_nothing() -> None:
    quotas, ada = Quotas(), user(requests_per_minute=60)
    for _ in range(30):
        run(quotas, ada)
    assert admitted(quotas, [ada] * 60, NOON - 50) == 30


def test_a_clock_that_is_set_back_far_stops_the_count_for_a_minute_at_most() -> None:
    quotas, ada = Quotas(), user(requests_per_minute=60)
    for _ in range(60):
        run(quotas, ada)
    assert refusal(quotas, ada, NOON - 7 * DAY) is not None
    assert refusal(quotas, ada, NOON - 7 * DAY + 61) is None


def test_a_limit_that_is_lowered_holds_at_once_and_is_not_a_punishment() -> None:
    quotas = Quotas()
    for _ in range(60):
        run(quotas, user(requests_per_minute=60))
    assert refusal(quotas, user(requests_per_minute=6), NOON) is not None
    assert refusal(quotas, user(requests_per_minute=6), NOON + 10) is None


# --- Open runs -----------------------------------------------------------------------------------------------------


def test_a_run_is_open_until_it_ends() -> None:
    quotas, ada = Quotas(), user(open_runs=2)
    for _ in range(2):
        quotas.admit(ada, NOON)
    headers = refusal(quotas, ada, NOON + DAY)
    assert headers is not None
    assert headers["retry-after"] == str(RETRY_SECONDS)
    quotas.ended(record_of("ada"))
    assert admitted(quotas, [ada] * 3, NOON + DAY) == 1


def test_a_lowered_limit_lets_open_runs_go_on_and_admits_no_other() -> None:
    quotas = Quotas()
    for _ in range(3):
        quotas.admit(user(open_runs=3), NOON)
    headers = refusal(quotas, user(open_runs=1))
    assert headers is not None
    assert headers["ratelimit"] == '"open_runs";r=0'


def test_an_admitted_request_counts_before_its_run_begins() -> None:
    assert admitted(Quotas(), [user(open_runs=2)] * 50) == 2
    assert admitted(Quotas(), [user(requests_per_minute=2)] * 50) == 2


# --- Tokens per day ------------------------------------------------------------------------------------------------


def test_tokens_are_counted_when_a_run_ends_so_the_last_one_may_exceed_the_limit() -> None:
    quotas, ada = Quotas(), user(tokens_per_day=1000)
    run(quotas, ada, tokens=999)
    run(quotas, ada, tokens=5000)
    assert refusal(quotas, ada) is not None


def test_the_whole_limit_is_the_limit() -> None:
    quotas, ada = Quotas(), user(tokens_per_day=1000)
    run(quotas, ada, tokens=1000)
    headers = refusal(quotas, ada)
    assert headers is not None
    assert headers["retry-after"] == str(DAY // 2)


def test_a_new_day_begins_at_midnight_in_greenwich() -> None:
    quotas, ada = Quotas(), user(tokens_per_day=1000)
    run(quotas, ada, MIDNIGHT - 1, tokens=1000)
    headers = refusal(quotas, ada, MIDNIGHT - 0.5)
    assert headers is not None
    assert headers["retry-after"] == "1"
    assert refusal(quotas, ada, MIDNIGHT) is None


def test_tokens_are_those_of_the_day_on_which_the_run_began_as_in_the_ledger() -> None:
    quotas, ada = Quotas(), user(tokens_per_day=1000)
    quotas.admit(ada, MIDNIGHT - 1)
    run(quotas, ada, MIDNIGHT + 1, tokens=10)
    quotas.ended(record_of("ada", MIDNIGHT - 1, tokens=5000))
    assert quotas.me(ada, MIDNIGHT + 2)["left"] == {"tokens_per_day": 990}


@pytest.mark.parametrize("days", [1, 2, 400, -1])
def test_the_count_of_the_day_survives_a_clock_that_was_wrong_for_a_moment(days: int) -> None:
    quotas, ada = Quotas(UserLimits(tokens_per_day=1000)), user(tokens_per_day=100)
    run(quotas, ada, tokens=60)
    quotas.admit(ada, NOON)
    assert quotas.me(ada, NOON + days * DAY)["left"] == {"tokens_per_day": 100}
    quotas.ended(record_of("ada", NOON, tokens=10))  # of a run that began before
    run(quotas, ada, NOON + days * DAY, tokens=7)
    assert quotas.me(ada, NOON + 1)["left"] == {"tokens_per_day": 30}
    assert quotas.me(None, NOON + 1)["left"] == {"tokens_per_day": 930}


def test_a_day_that_is_over_does_not_come_back() -> None:
    quotas, ada = Quotas(), user(tokens_per_day=100)
    for day in range(4):
        run(quotas, ada, NOON + day * DAY, tokens=60)
        assert quotas.me(ada, NOON + day * DAY)["left"] == {"tokens_per_day": 40}


@pytest.mark.parametrize("second", [0.25, 0.5, 0.999999])
def test_tokens_are_back_at_midnight_whatever_the_time(second: float) -> None:
    assert Quotas().me(user(tokens_per_day=9), NOON + second)["resets"] == {"tokens_per_day": "2026-12-01T00:00:00Z"}


def test_quotas_survive_a_restart() -> None:
    quotas = Quotas(UserLimits(tokens_per_day=5000), UserLimits(tokens_per_day=1000))
    quotas.settle({"ada": 1000, "bob": 990}, NOON)
    assert refusal(quotas, User("ada")) is not None
    assert quotas.me(User("bob"), NOON)["left"] == {"tokens_per_day": 10}
    assert quotas.me(None, NOON)["left"] == {"tokens_per_day": 3010}
    assert refusal(quotas, User("ada"), MIDNIGHT) is None


def test_what_was_used_before_there_were_users_is_of_no_user() -> None:
    quotas = Quotas(UserLimits(tokens_per_day=1000), max_users=1)
    quotas.settle({"": 400}, NOON)
    assert quotas.me(None, NOON)["left"] == {"tokens_per_day": 600}
    assert admitted(quotas, [ADA]) == 1


def test_a_ledger_that_lags_behind_takes_nothing_back() -> None:
    quotas, ada = Quotas(UserLimits(tokens_per_day=1000)), user(tokens_per_day=1000)
    run(quotas, ada, tokens=700)
    quotas.settle({"ada": 600}, NOON)
    assert quotas.me(ada, NOON)["left"] == quotas.me(None, NOON)["left"] == {"tokens_per_day": 300}


@pytest.mark.parametrize(
    ("limits", "used", "must"),
    [
        ({"tokens_per_day": 100, "ends_open_runs": True}, 100, True),
        ({"tokens_per_day": 100, "ends_open_runs": True}, 99, False),
        ({"tokens_per_day": 100}, 100, False),
        ({"ends_open_runs": True, "open_runs": 1, "requests_per_minute": 1}, 100, False),
    ],
)
def test_open_runs_end_with_the_tokens_only_if_the_limits_say_so(limits: dict[str, Any], used: int, must: bool) -> None:
    alone, together = Quotas(), Quotas(UserLimits(**limits))
    run(alone, user(**limits), tokens=used)
    run(together, ADA, tokens=used)
    assert alone.must_end("ada", NOON) is must
    assert together.must_end(ADA.id, NOON) is must
    assert not alone.must_end("ada", MIDNIGHT)


# --- All users together --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"requests_per_minute": 3}, {"open_runs": 3}])
def test_all_users_together_have_one_budget(limits: dict[str, Any]) -> None:
    assert admitted(Quotas(UserLimits(**limits)), [ADA, BOB] * 25) == 3


def test_all_users_together_use_the_same_tokens() -> None:
    quotas = Quotas(UserLimits(tokens_per_day=1000))
    run(quotas, ADA, tokens=600)
    run(quotas, BOB, tokens=400)
    assert refusal(quotas, user("eve")) is not None


@pytest.mark.parametrize("limits", [{"requests_per_minute": 1}, {"open_runs": 1}])
def test_a_request_that_the_user_may_not_send_takes_nothing_from_all(limits: dict[str, Any]) -> None:
    quotas = Quotas(UserLimits(requests_per_minute=2, open_runs=2))
    assert admitted(quotas, [user(**limits)] * 10 + [BOB] * 10) == 2


def test_a_request_that_all_may_not_send_takes_nothing_from_the_user() -> None:
    quotas, ada = Quotas(UserLimits(open_runs=1)), user(requests_per_minute=2)
    quotas.admit(BOB, NOON)
    assert admitted(quotas, [ada] * 10) == 0
    quotas.ended(record_of("bob"))
    assert quotas.me(ada, NOON)["left"] == {"requests_per_minute": 2}


def test_the_budget_of_all_may_change() -> None:
    quotas = Quotas(UserLimits(open_runs=1))
    assert admitted(quotas, [ADA] * 5) == 1
    quotas.everyone = UserLimits(open_runs=3)
    assert admitted(quotas, [ADA] * 5) == 2


def test_a_relay_without_users_has_the_budget_of_all() -> None:
    quotas = Quotas(UserLimits(open_runs=2), UserLimits(open_runs=1))
    assert admitted(quotas, [None] * 5) == 2
    for _ in range(2):
        quotas.ended(record_of(""))
    assert admitted(quotas, [None] * 5) == 2


def test_a_user_without_limits_has_those_of_the_relay() -> None:
    quotas = Quotas(None, UserLimits(open_runs=1))
    assert quotas.limits_of(User("ada")) == UserLimits(open_runs=1)
    assert quotas.limits_of(ADA) == UserLimits()
    assert Quotas(UserLimits(open_runs=9)).limits_of(None) == UserLimits(open_runs=9)
    assert admitted(quotas, [User("eve"), User("eve"), ADA, ADA]) == 3


# --- How it is told ------------------------------------------------------------------------------------------------

ALL_KINDS = UserLimits(requests_per_minute=60, open_runs=4, tokens_per_day=200_000, models=("a", "b"), max_tokens=9)
ITEM = r'"[a-z_]+"(;(q|w|r|t)=(0|[1-9][0-9]{0,14})|;qu="[a-z-]+")*'
"""An item of a list of strings with parameters (RFC 9651, 3.1); integers have at most 15 digits (3.3.1)."""


def test_what_is_left_is_told_with_every_answer() -> None:
    quotas, ada = Quotas(), User("ada", ALL_KINDS)
    for _ in range(18):
        run(quotas, ada, tokens=100)
    assert quotas.admit(ada, NOON) == {
        "ratelimit-policy": '"requests";q=60;w=60, "tokens";q=200000;w=86400;qu="tokens", '
        '"open_runs";q=4;qu="concurrent-requests"',
        "ratelimit": '"requests";r=41;t=19, "tokens";r=198200;t=43200, "open_runs";r=3',
    }


def test_the_api_tells_it_in_its_own_form_too() -> None:
    headers = Quotas().admit(User("ada", ALL_KINDS), NOON + 0.25, is_messages=True)
    assert {name: value for name, value in headers.items() if name.startswith("anthropic")} == {
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "59",
        "anthropic-ratelimit-requests-reset": "2026-11-30T12:00:02Z",
        "anthropic-ratelimit-tokens-limit": "200000",
        "anthropic-ratelimit-tokens-remaining": "200000",
        "anthropic-ratelimit-tokens-reset": "2026-12-01T00:00:00Z",
    }
    assert RateLimits.from_headers(headers).tokens == RateLimit(200000, 200000, datetime(2026, 12, 1, tzinfo=UTC))


def test_without_limits_nothing_is_told() -> None:
    assert Quotas().admit(ADA, NOON, is_messages=True) == {}
    assert Quotas(ALL_KINDS).admit(ADA, NOON, is_messages=True) == {}  # what others have used is not told


def test_without_users_the_budget_of_all_is_told() -> None:
    headers = Quotas(UserLimits(open_runs=4)).admit(None, NOON)
    assert headers["ratelimit"] == '"open_runs";r=3'


def test_a_refusal_tells_it_too_and_its_reset_is_that_of_retry_after() -> None:
    quotas, ada = Quotas(), user(requests_per_minute=6, tokens_per_day=100)
    for _ in range(6):
        run(quotas, ada)
    assert refusal(quotas, ada, is_messages=True) == {
        "ratelimit-policy": '"requests";q=6;w=60, "tokens";q=100;w=86400;qu="tokens"',
        "ratelimit": '"requests";r=0;t=10, "tokens";r=100;t=43200',
        "retry-after": "10",
        "anthropic-ratelimit-requests-limit": "6",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-30T12:00:10Z",
        "anthropic-ratelimit-tokens-limit": "100",
        "anthropic-ratelimit-tokens-remaining": "100",
        "anthropic-ratelimit-tokens-reset": "2026-12-01T00:00:00Z",
    }


def test_of_several_limits_the_one_with_the_longest_wait_is_named() -> None:
    quotas, ada = Quotas(UserLimits(open_runs=1)), user(requests_per_minute=1, tokens_per_day=1)
    quotas.admit(ada, NOON)
    with pytest.raises(
        Answer, match=r"^all users together have reached the limit of open runs \(1\); try again in 5 s$"
    ):
        quotas.admit(BOB, NOON)
    with pytest.raises(Answer, match=r"^you have reached the limit of requests per minute \(1\); try again in 60 s$"):
        quotas.admit(ada, NOON)
    quotas.settle({"ada": 1}, NOON)
    with pytest.raises(Answer, match=r"^you have reached the limit of tokens per day \(1\); try again in 43200 s$"):
        quotas.admit(ada, NOON)


def test_a_budget_of_all_that_refuses_is_told_beside_the_users_own() -> None:
    quotas, ada = Quotas(UserLimits(requests_per_minute=1, open_runs=9)), user(requests_per_minute=60)
    run(quotas, BOB)
    headers = refusal(quotas, ada, is_messages=True)
    assert headers is not None
    assert headers["ratelimit-policy"] == '"requests";q=60;w=60, "all_requests";q=1;w=60'
    assert headers["ratelimit"] == '"requests";r=60;t=0, "all_requests";r=0;t=60'
    assert headers["retry-after"] == "60"
    assert headers["anthropic-ratelimit-requests-limit"] == "1"


@pytest.mark.parametrize("limit", [1, MAX_LIMIT])
def test_the_fields_are_structured_fields_whatever_the_limits(limit: int) -> None:
    limits = UserLimits(requests_per_minute=limit, open_runs=limit, tokens_per_day=limit)
    quotas = Quotas(limits)
    for headers in (quotas.admit(User("ada", limits), NOON), refusal(quotas, User("ada", limits)) or {}):
        for name in ("ratelimit", "ratelimit-policy"):
            assert re.fullmatch(f"{ITEM}(, {ITEM})*", headers.get(name, '"none"'))


def test_me_tells_the_limits_what_is_left_and_when_it_is_back() -> None:
    quotas, ada = Quotas(), User("ada", ALL_KINDS)
    for _ in range(19):
        run(quotas, ada, tokens=1000)
    quotas.admit(ada, NOON)
    assert quotas.me(ada, NOON) == {
        "user": "ada",
        "limits": {
            "requests_per_minute": 60,
            "open_runs": 4,
            "tokens_per_day": 200_000,
            "models": ("a", "b"),
            "max_tokens": 9,
        },
        "left": {"requests_per_minute": 40, "tokens_per_day": 181_000, "open_runs": 3},
        "resets": {"requests_per_minute": "2026-11-30T12:00:20Z", "tokens_per_day": "2026-12-01T00:00:00Z"},
        "retry_after": {},
    }


def test_me_tells_when_all_of_a_limit_is_back_and_apart_from_it_when_the_next_request_may_come() -> None:
    quotas, ada = Quotas(), user(requests_per_minute=6, tokens_per_day=100, open_runs=6)
    for _ in range(6):
        quotas.admit(ada, NOON)
    quotas.ended(record_of("ada", NOON, tokens=100))
    told = quotas.me(ada, NOON)
    assert told["left"] == {"requests_per_minute": 0, "tokens_per_day": 0, "open_runs": 1}
    assert told["resets"] == {"requests_per_minute": "2026-11-30T12:01:00Z", "tokens_per_day": "2026-12-01T00:00:00Z"}
    headers = refusal(quotas, ada) or {}
    assert told["retry_after"] == {"requests_per_minute": 10, "tokens_per_day": 43_200}
    assert headers["retry-after"] == "43200"  # the longest


def test_me_costs_nothing_and_tells_nothing_of_others() -> None:
    quotas = Quotas(UserLimits(open_runs=5))
    for number in range(100):
        told = {"user": str(number), "limits": {}, "left": {}, "resets": {}, "retry_after": {}}
        assert quotas.me(User(str(number)), NOON) == told
    assert kept(quotas) == 0
    assert quotas.me(None, NOON)["left"] == {"open_runs": 5}


# --- Memory --------------------------------------------------------------------------------------------------------


def kept(quotas: Quotas) -> int:
    return len(quotas._kept)


def test_users_who_are_idle_are_forgotten() -> None:
    quotas = Quotas(None, UserLimits(requests_per_minute=60, tokens_per_day=100, open_runs=1))
    for number in range(500):
        run(quotas, User(str(number)), NOON + number)
    assert kept(quotas) < 100


def test_refused_users_are_not_kept() -> None:
    quotas = Quotas(UserLimits(open_runs=1))
    assert admitted(quotas, [user(str(number)) for number in range(1000)]) == 1
    assert kept(quotas) == 1


@pytest.mark.parametrize(
    ("limits", "tokens", "ends"),
    [
        ({"requests_per_minute": 60}, 0, True),
        ({"tokens_per_day": 100}, 1, True),
        ({}, 0, False),
    ],
)
def test_a_user_who_has_used_something_is_not_forgotten_even_if_new_ones_are_refused(
    limits: dict[str, Any], tokens: int, ends: bool
) -> None:
    quotas = Quotas(None, UserLimits(**limits), max_users=3)
    for number in range(3):
        quotas.admit(User(str(number)), NOON)
        if ends:
            quotas.ended(record_of(str(number), tokens=tokens))
    headers = refusal(quotas, User("3"))
    assert headers == {"retry-after": str(RETRY_SECONDS)}
    assert admitted(quotas, [User("0"), User("1"), User("2")]) == 3


def test_a_place_that_is_kept_is_not_forgotten() -> None:
    quotas = Quotas(max_users=1)
    quotas.admit(ADA, NOON)
    assert refusal(quotas, BOB) is not None
    quotas.ended(record_of("ada"))
    assert refusal(quotas, BOB) is None


def test_when_they_are_idle_new_ones_are_admitted() -> None:
    quotas = Quotas(None, UserLimits(requests_per_minute=60, tokens_per_day=10), max_users=3)
    for number in range(3):
        run(quotas, User(str(number)), tokens=9)
    assert refusal(quotas, User("3"), NOON + 1) is not None
    assert refusal(quotas, User("3"), MIDNIGHT) is None


def test_tokens_without_a_limit_are_forgotten() -> None:
    quotas = Quotas(max_users=1)
    run(quotas, ADA, tokens=1000)
    assert refusal(quotas, BOB) is None


def test_users_who_are_not_idle_do_not_hide_those_who_are() -> None:
    quotas = Quotas(max_users=3)
    assert admitted(quotas, [user("0"), user("1"), user("2")]) == 3
    quotas.ended(record_of("2"))
    assert admitted(quotas, [user("3"), user("3")]) == 1


def test_what_the_ledger_says_of_a_user_is_kept_until_the_user_comes() -> None:
    quotas = Quotas()
    quotas.settle({"ada": 1000}, NOON)
    for number in range(100):
        run(quotas, user(str(number)))
    assert refusal(quotas, user("ada", tokens_per_day=1000)) is not None


# --- Any order of events -------------------------------------------------------------------------------------------


class Event(NamedTuple):
    """Something that happened to a user's requests; `began` is the time of the run's begin."""

    kind: str
    user: str
    time: float
    began: float = 0.0
    tokens: int = 0


@dataclass
class Model:
    """Recounts everything from the whole history, in fractions that are exact: sixtieths of the limit per microsecond."""

    limits: UserLimits
    history: list[Event] = field(default_factory=list)

    def left(self, now: float) -> tuple[float, float, float]:
        kinds = [event.kind for event in self.history]
        open_runs = kinds.count("admitted") - kinds.count("ended")
        day = math.floor(now / DAY)
        ended = [event for event in self.history if event.kind == "ended" and math.floor(event.began / DAY) == day]
        limits = self.limits
        return (
            self._bucket(now),
            limits.open_runs - open_runs if limits.open_runs else math.inf,
            limits.tokens_per_day - sum(event.tokens for event in ended) if limits.tokens_per_day else math.inf,
        )

    def _bucket(self, now: float) -> float:
        """Whole requests in a bucket that fills up to the limit: that many per minute."""
        limit = self.limits.requests_per_minute
        if limit is None:
            return math.inf
        content, at = limit * 60_000_000, None
        for time in [event.time for event in self.history if event.kind == "admitted"] + [now]:
            micros = round(time * 1_000_000)
            if at is not None:
                content = min(limit * 60_000_000, content + (micros - at) * limit)
            at = micros
            content -= 60_000_000
        return (content + 60_000_000) // 60_000_000


SEEDS = 600 // one_in(10)

SCHEDULES = [
    (UserLimits(), UserLimits(requests_per_minute=5, open_runs=2, tokens_per_day=900)),
    (UserLimits(requests_per_minute=9, open_runs=4, tokens_per_day=2000), UserLimits()),
    (UserLimits(requests_per_minute=7, tokens_per_day=1500), UserLimits(requests_per_minute=3, open_runs=3)),
    (UserLimits(open_runs=3), UserLimits(requests_per_minute=60, tokens_per_day=700)),
]


def drive(seed: int) -> Counter[str]:
    """One schedule: some users, whose requests are admitted, begin, end, while the time goes on."""
    chance = random.Random(seed)
    everyone, each = SCHEDULES[seed % len(SCHEDULES)]
    users = [User("ada"), User("bob"), User("eve", UserLimits(requests_per_minute=4, open_runs=1)), user("max")]
    quotas, total = Quotas(everyone, each), Model(everyone)
    models = {one.id: Model(quotas.limits_of(one)) for one in users}
    pending: list[User] = []
    begun: list[tuple[User, float]] = []
    seen: Counter[str] = Counter()
    now = MIDNIGHT - chance.choice([10, 100, 3600])

    def note(event: Event) -> None:
        seen[event.kind] += 1
        models[event.user].history.append(event)
        total.history.append(event)

    for _ in range(40):
        now += chance.choice([0, 0, 0, 0.000001, 0.4, 1, 12, 12.5, 60, 600])
        step = chance.choice(["admit", "admit", "admit", "begin", "begin", "end", "end"])
        if step == "admit":
            who = chance.choice(users)
            own = models[who.id].left(now)
            told = quotas.me(who, now)["left"]
            names = ("requests_per_minute", "open_runs", "tokens_per_day")
            assert [told.get(name, math.inf) for name in names] == [max(0, left) for left in own]
            lefts = own + total.left(now)
            is_admitted = refusal(quotas, who, now) is None
            assert is_admitted == (min(lefts) >= 1), (seed, who, lefts)
            if is_admitted:
                pending.append(who)
                note(Event("admitted", who.id, now))
            seen["refused"] += not is_admitted
        elif step == "begin" and pending:
            who = pending.pop(chance.randrange(len(pending)))
            begun.append((who, now))
            note(Event("begun", who.id, now))
        elif step == "end" and begun:
            who, began = begun.pop(chance.randrange(len(begun)))
            tokens = chance.choice([0, 1, 100, 450])
            quotas.ended(record_of(who.id, began, tokens=tokens))
            note(Event("ended", who.id, now, began, tokens))
    return seen


def test_in_any_order_of_events_as_many_are_admitted_as_a_recount_of_the_history_allows() -> None:
    seen = sum((drive(seed) for seed in range(SEEDS)), Counter[str]())
    assert min(seen[kind] for kind in ("admitted", "begun", "ended", "refused")) > SEEDS


@pytest.mark.parametrize("seed", range(0, 5, one_in(3)))
def test_of_fifty_callers_who_come_at_once_exactly_as_many_are_admitted_as_may_be(seed: int) -> None:
    """Each goes its own way, a step at a time: asks, begins, ends; and asks again when it was refused."""
    chance = random.Random(seed)
    ada = user("ada", requests_per_minute=20, open_runs=3)
    bob = user("bob", requests_per_minute=30, open_runs=4)
    quotas = Quotas(UserLimits(requests_per_minute=40, open_runs=5))
    state = dict.fromkeys(range(50), "idle")
    counts, busy = Counter[str](), Counter[str]()
    for _ in range(1000):
        caller = chance.randrange(50)
        who = ada if caller % 2 else bob
        if state[caller] == "idle":
            if refusal(quotas, who) is None:
                state[caller] = "admitted"
                counts[who.id] += 1
                busy[who.id] += 1
        elif state[caller] == "admitted":
            state[caller] = "begun"
        else:
            quotas.ended(record_of(who.id))
            state[caller] = "idle"
            busy[who.id] -= 1
        assert busy["ada"] <= 3
        assert busy["bob"] <= 4
        assert busy.total() <= 5
    assert counts.total() == 40
    assert counts["ada"] <= 20
    assert counts["bob"] <= 30


def test_what_is_no_run_counts_as_a_request_of_the_user_and_of_all() -> None:
    quotas, ada = Quotas(UserLimits(requests_per_minute=3, open_runs=1)), user(requests_per_minute=2)
    quotas.admit(ada, NOON)  # all open runs that there may be
    quotas.admit(ada, NOON, is_run=False)
    with pytest.raises(Answer, match=r"^you have reached the limit of requests per minute \(2\); "):
        quotas.admit(ada, NOON, is_run=False)
    quotas.admit(user("bob"), NOON, is_run=False)
    with pytest.raises(Answer, match=r"^all users together have reached the limit of requests per minute \(3\); "):
        quotas.admit(user("bob"), NOON, is_run=False)


def test_every_number_in_the_limits_of_a_user_is_counted_and_told() -> None:
    numbers = {field.name for field in fields(UserLimits) if field.type == "int | None"}
    assert numbers - {"max_tokens"} == {*COUNTED}, (
        "`max_tokens` is a limit of each request; name another such limit here"
    )
    limits: dict[str, Any] = dict.fromkeys(COUNTED, 1)
    told = Quotas(default=UserLimits(**limits)).me(User("ada"), 0.0)["left"]
    assert told == dict.fromkeys(COUNTED, 1)
