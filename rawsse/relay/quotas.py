"""The quotas of each user and of all users together: requests per minute, open runs, tokens per day.

    quotas = Quotas(everyone, default)                # an observer of runs: it counts their usage
    quotas.settle(totals, now)                        # after a restart: today's tokens, from the ledger
    headers = quotas.admit(user, now)                 # counts one more run, or raises Answer: 429
    headers = quotas.accept(user, acquired)           # the same, if a store counts for several nodes

Refused requests are not counted. Counts are whole numbers: at 60 requests per minute there is exactly one more each second.
Times are Unix seconds, days are UTC.

The header fields are those of https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ (draft 11), and on
`/v1/messages` also those of https://docs.anthropic.com/en/api/rate-limits.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from rawsse.relay.dialects import Answer
from rawsse.relay.record import Observer, RunRecord
from rawsse.relay.store import COUNTED, DAY, MINUTE, SECOND, Acquired, Count, Limits, count_request, to_microseconds
from rawsse.relay.users import MAX_LIMIT, User, UserLimits

MAX_USERS_KEPT = 100_000
"""How many users' counts are kept at once. Idle users whose limits are refilled are forgotten. If there are still too many,
new users are rejected."""

RETRY_SECONDS = 5
"""The `retry-after` of a request that must wait for a run to end: the relay cannot know when that is."""


class _Policy(NamedTuple):
    """A limit in effect, and what remains of it. `wait` is the seconds until all of it is refilled or, if nothing is left,
    until part of it is; `reset` is that time in Unix seconds, and `full` that when all of it is. None if unknown."""

    name: str  # in header fields
    limit: str  # its field in `UserLimits`
    terms: str  # of its `RateLimit-Policy`
    quota: int
    left: int
    wait: int | None = None
    reset: int | None = None
    full: int | None = None


def _policies(limits: UserLimits, count: Count) -> Iterator[_Policy]:
    """The limits that have counts."""

    def due(back: int, full: int, rate: int = 1) -> tuple[int, ...]:
        """The seconds until `back` is refilled at that rate, and the Unix seconds of that time and of `full`, rounded up."""
        return -(-back // (rate * SECOND)), *(-(-(count.at * rate + each) // (rate * SECOND)) for each in (back, full))

    if (quota := limits.requests_per_minute) is not None:
        left = max(0, (quota * MINUTE - count.used) // MINUTE)
        back = count.used if left else count.used + MINUTE - quota * MINUTE
        yield _Policy("requests", "requests_per_minute", ";w=60", quota, left, *due(back, count.used, quota))
    if (quota := limits.tokens_per_day) is not None:
        left, back = max(0, quota - count.tokens), DAY - count.at % DAY
        yield _Policy("tokens", "tokens_per_day", ';w=86400;qu="tokens"', quota, left, *due(back, back))
    if (quota := limits.open_runs) is not None:
        left = max(0, quota - count.open)
        yield _Policy("open_runs", "open_runs", ';qu="concurrent-requests"', quota, left)


class Quotas(Observer):
    """Counts the usage of users, and rejects requests that exceed their limits. An observer of runs.

    `everyone` has the limits of all users together, and may be changed later. `default` applies to users without
    individual limits. If the relay has no users, the user is None, and only `everyone` applies.
    """

    def __init__(
        self, everyone: UserLimits | None = None, default: UserLimits | None = None, *, max_users: int = MAX_USERS_KEPT
    ) -> None:
        self.everyone = everyone or UserLimits()
        self._default = default or UserLimits()
        self._all = Count()
        self._kept: OrderedDict[str, tuple[UserLimits, Count]] = OrderedDict()  # with the limits of the newest request
        self._max_users = max_users

    def limits_of(self, user: User | None) -> UserLimits:
        """The limits of one user."""
        return self.everyone if user is None else user.limits or self._default

    def terms(self, user: User | None) -> list[Limits]:
        """The counted limits of the user and of all users."""
        of_user = [(user.id, self.limits_of(user))] if user is not None else []
        named = [*of_user, ("", self.everyone)]
        return [Limits(id, **{name: getattr(each, name) for name in COUNTED}) for id, each in named]

    def ending_terms(self, users: Iterable[str]) -> list[Limits]:
        """The limits of tokens, of these users and of all together, that end open runs: see `must_end`."""
        named = [*((user, self._kept[user][0]) for user in users if user in self._kept), ("", self.everyone)]
        return [Limits(id, tokens_per_day=each.tokens_per_day) for id, each in named if each.ends_open_runs]

    def admit(self, user: User | None, now: float, *, is_messages: bool = False, is_run: bool = True) -> dict[str, str]:
        """Count one more run, and return the rate-limit header fields. Raises `Answer`: 429, with these and `retry-after`.

        `is_messages` adds the fields of the Messages API. If not `is_run`, the request opens no run, and only the requests per
        minute are checked.
        """
        acquired = self._count(user, now, is_run=is_run, counts=True)
        if user is not None and user.id not in self._kept and not acquired.is_refused:
            self._make_room(now)
        return self.accept(user, acquired, is_messages=is_messages, is_run=is_run)

    def accept(self, user: User | None, acquired: Acquired, *, is_messages: bool, is_run: bool) -> dict[str, str]:
        """As `admit`, for a request that has been counted, here or in a store."""
        *own, self._all = acquired.counts
        if user is not None and (user.id in self._kept or not acquired.is_refused):
            if user.id not in self._kept and len(self._kept) >= self._max_users:
                self._kept.popitem(last=False)  # only if a store counts, which has the count
            self._kept[user.id] = (self.limits_of(user), own[0])
        account, *others = self._policies(user, acquired)
        if acquired.is_refused:
            raise _refusal(account, others, is_messages=is_messages, is_run=is_run)
        return _headers(account, is_messages)

    def ended(self, record: RunRecord) -> None:
        """The run is no longer open. Its tokens count for the day on which it began, estimated ones too."""
        self._all = self._all.ended(record.time, record.total_tokens)
        if record.user in self._kept:
            limits, count = self._kept[record.user]
            self._kept[record.user] = (limits, count.ended(record.time, record.total_tokens))

    def settle(self, totals: Mapping[str, int], now: float) -> None:
        """Load the tokens that each user has used today from the ledger, so that quotas survive a restart."""

        def settled(count: Count, tokens: int) -> Count:
            count = count.advanced(to_microseconds(now), None)
            return count._replace(tokens=max(count.tokens, tokens))

        self._all = settled(self._all, sum(totals.values()))
        for user, tokens in totals.items():
            if user:  # tokens without a user are from a relay without users: they count only for everyone
                # Kept until the user's limits are known: there may be a limit of tokens.
                limits, count = self._kept.get(user, (UserLimits(tokens_per_day=MAX_LIMIT), Count()))
                self._kept[user] = (limits, settled(count, tokens))

    def must_end(self, user: str, now: float) -> bool:
        """Whether the user's open runs must be stopped because the day's tokens are used up, by the limits of the user's
        newest request."""
        accounts = [(self.everyone, self._all), *([self._kept[user]] if user in self._kept else [])]
        at = to_microseconds(now)
        return any(
            limits.ends_open_runs and count.advanced(at, None).tokens >= (limits.tokens_per_day or math.inf)
            for limits, count in accounts
        )

    def me(self, user: User | None, now: float, acquired: Acquired | None = None) -> dict[str, Any]:
        """The answer to `GET /me`, from the counts of a store if there is one: the limits in effect; what is `left`; when all
        of it is back (`resets`, RFC 3339; unknown for open runs); and for each limit of which nothing is left the seconds until
        part of it is (`retry_after`, as in a 429).

            {"user": "ada",
             "limits": {"requests_per_minute": 60, "open_runs": 4, "tokens_per_day": 200000},
             "left": {"requests_per_minute": 41, "tokens_per_day": 0, "open_runs": 3},
             "resets": {"requests_per_minute": "2026-11-30T12:00:19Z", "tokens_per_day": "2026-12-01T00:00:00Z"},
             "retry_after": {"tokens_per_day": 43200}}
        """
        policies = self._policies(user, acquired or self._count(user, now, is_run=False, counts=False))[0]
        return {
            "user": user.id if user is not None else None,
            "limits": {name: value for name, value in asdict(self.limits_of(user)).items() if value},
            "left": {policy.limit: policy.left for policy in policies},
            "resets": {policy.limit: _date(policy.full) for policy in policies if policy.full is not None},
            "retry_after": {policy.limit: policy.wait or RETRY_SECONDS for policy in policies if not policy.left},
        }

    def _count(self, user: User | None, now: float, *, is_run: bool, counts: bool) -> Acquired:
        own = [self._kept.get(user.id, (None, Count()))[1]] if user is not None else []
        return count_request([*own, self._all], self.terms(user), now, is_run=is_run, counts=counts)

    def _policies(self, user: User | None, acquired: Acquired) -> list[list[_Policy]]:
        """The policies of the user, if there is one, and those of everyone."""
        limits = [self.everyone] if user is None else [self.limits_of(user), self.everyone]
        return [list(_policies(*account)) for account in zip(limits, acquired.counts, strict=True)]

    def _make_room(self, now: float) -> None:
        """Forget up to two idle users for each new one, so that few are kept and no request checks all of them."""
        for user in list(islice(self._kept, 2)):
            self._kept.move_to_end(user)
            limits, count = self._kept[user]
            count = count.advanced(to_microseconds(now), limits.requests_per_minute)
            if not (count.used or count.open or (count.tokens and limits.tokens_per_day is not None)):
                del self._kept[user]
        if len(self._kept) >= self._max_users:
            raise Answer(429, "rate_limit_error", "too many users at once", headers={"retry-after": str(RETRY_SECONDS)})


def _refusal(account: list[_Policy], others: list[list[_Policy]], *, is_messages: bool, is_run: bool) -> Answer:
    own, *used_up = (
        [p for p in each if not p.left and (is_run or p.name == "requests")] for each in (account, *others)
    )
    # Others' usage is shown only to a user who is rejected because of it.
    shared = [policy._replace(name=f"all_{policy.name}") for policies in used_up for policy in policies]
    text, wait = "a limit is reached", RETRY_SECONDS
    if own or shared:  # else the limits have changed since the store's reply
        wait, worst = max((policy.wait or RETRY_SECONDS, policy) for policy in own + shared)
        who = "all users together have" if worst in shared else "you have"
        what = worst.limit.replace("_", " ")
        text = f"{who} reached the limit of {what} ({worst.quota}); try again in {wait} s"
    headers = _headers([*account, *shared], is_messages) | {"retry-after": str(wait)}
    return Answer(429, "rate_limit_error", text, headers=headers)


def _headers(policies: Sequence[_Policy], is_messages: bool) -> dict[str, str]:
    items = [f'"{policy.name}";q={policy.quota}{policy.terms}' for policy in policies]
    states = [f'"{p.name}";r={p.left}' + (f";t={p.wait}" if p.wait is not None else "") for p in policies]
    headers = {"ratelimit-policy": ", ".join(items), "ratelimit": ", ".join(states)} if policies else {}
    for policy in policies:
        if is_messages and policy.reset is not None:
            name = f"anthropic-ratelimit-{policy.name.removeprefix('all_')}"  # the shared limit, if that one rejects
            headers |= {f"{name}-limit": str(policy.quota), f"{name}-remaining": str(policy.left)}
            headers[f"{name}-reset"] = _date(policy.reset)
    return headers


def _date(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
