"""How much each user may use, and all users together: requests per minute, open runs, tokens per day.

    quotas = Quotas(everyone, default)                # an observer of the runs
    quotas.settle(totals, now)                        # after a restart: today's tokens, from the ledger
    headers = quotas.admit(user, now)                 # raises Answer: 429
    quotas.begun(start), quotas.ended(record)         # or quotas.release(user), if no run has begun

`admit` reserves a place that `begun` takes, so that no limit is exceeded between the two. Refused requests are not counted.
Counts are whole numbers: at 60 requests per minute there is exactly one more each second. Times are Unix seconds, days are UTC.

The header fields are those of https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ (draft 11), and on
`/v1/messages` also those of https://docs.anthropic.com/en/api/rate-limits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from rawsse.relay.dialects import Answer
from rawsse.relay.record import Observer, RunRecord, RunStart
from rawsse.relay.store import Acquired, Count, Limits
from rawsse.relay.users import MAX_LIMIT, User, UserLimits

MAX_USERS_KEPT = 100_000
"""Users whose counts are kept at once. A user who is idle and whose limits are all refilled is forgotten. While too many are
not, new users are refused."""

RETRY_SECONDS = 5
"""The `retry-after` of a request that must wait for a run to end: the relay cannot know when that is."""

_SECOND = 1_000_000  # times are counted in microseconds
_MINUTE = 60 * _SECOND
_DAY = 24 * 60 * _MINUTE


class _Policy(NamedTuple):
    """A limit in force, and what is left of it. `wait` is the seconds until all of it is refilled, or, if nothing is left,
    until a part of it is; `reset` is the Unix second of that. None if it is not known."""

    name: str
    words: str
    terms: str  # of its `RateLimit-Policy`
    quota: int
    left: int
    wait: int | None = None
    reset: int | None = None


class _Account:
    """The use of the relay by one user, or by all users together."""

    __slots__ = ("at", "limits", "open", "reserved", "tokens", "used")

    def __init__(self) -> None:
        # Those of a user who may turn out to have a limit of tokens: so the account is kept until then.
        self.limits = UserLimits(tokens_per_day=MAX_LIMIT)
        self.at = self.open = 0
        self.tokens: dict[int, int] = {}  # by day: today's, and one other's, since a clock may be wrong for a moment
        self.reserved = 0  # requests that were admitted, and whose run has not begun
        self.used = 0  # a request is `_MINUTE`, and each microsecond gives back as much as the limit

    @property
    def tokens_today(self) -> int:
        return self.tokens[self.at // _DAY]

    def advance(self, now: float) -> None:
        """Refill what is due."""
        at, rate = round(now * _SECOND), self.limits.requests_per_minute or 0
        elapsed = max(0, at - self.at)
        # A clock that is set back must not give back the same time twice, nor stop the count until it has caught up.
        self.at = min(max(self.at, at), at + _MINUTE)
        self.used = max(0, min(self.used, rate * _MINUTE) - elapsed * rate)
        if (day := self.at // _DAY) not in self.tokens:
            self.tokens = dict([*self.tokens.items()][-1:]) | {day: 0}

    def spend(self, time: float, tokens: int) -> None:
        """Count the tokens of a run that began at that time."""
        if (day := round(time * _SECOND) // _DAY) in self.tokens:
            self.tokens[day] += tokens

    def policies(self) -> Iterator[_Policy]:
        """The limits that are counted."""
        limits, used = self.limits, self.used + self.reserved * _MINUTE
        if (quota := limits.requests_per_minute) is not None:
            left = max(0, (quota * _MINUTE - used) // _MINUTE)
            back = used if left else used + _MINUTE - quota * _MINUTE
            yield _Policy("requests", "requests per minute", ";w=60", quota, left, *self._due(back, quota))
        if (quota := limits.tokens_per_day) is not None:
            left, back = max(0, quota - self.tokens_today), _DAY - self.at % _DAY
            yield _Policy("tokens", "tokens per day", ';w=86400;qu="tokens"', quota, left, *self._due(back))
        if (quota := limits.open_runs) is not None:
            left = max(0, quota - self.open - self.reserved)
            yield _Policy("open_runs", "open runs", ';qu="concurrent-requests"', quota, left)

    def _due(self, back: int, rate: int = 1) -> tuple[int, int]:
        """The seconds until `back` is refilled at that rate, and the Unix second of that, both rounded up."""
        return -(-back // (rate * _SECOND)), -(-(self.at * rate + back) // (rate * _SECOND))


class Quotas(Observer):
    """Counts what users use, and refuses what exceeds their limits. An observer of the runs.

    `everyone` has the limits of all users together, and may be changed later. `default` holds for users without limits of
    their own. Where the relay has no users, the user is None, and only the limits of all hold.
    """

    def __init__(
        self, everyone: UserLimits | None = None, default: UserLimits | None = None, *, max_users: int = MAX_USERS_KEPT
    ) -> None:
        self.everyone = everyone or UserLimits()
        self._default = default or UserLimits()
        self._all = _Account()
        self._kept: OrderedDict[str, _Account] = OrderedDict()
        self._max_users = max_users

    def limits_of(self, user: User | None) -> UserLimits:
        """The limits of one user."""
        return self.everyone if user is None else user.limits or self._default

    def admit(self, user: User | None, now: float, *, is_messages: bool = False, is_run: bool = True) -> dict[str, str]:
        """Reserve a place for a run, and return header fields that say what is left. Raises `Answer`: 429, with them and
        `retry-after`.

        `is_messages` adds the fields of the Messages API. If not `is_run`, the request counts at once, and only the requests
        per minute can refuse it.
        """
        accounts = self._accounts(user, now)
        self._refuse(accounts, is_messages=is_messages, is_run=is_run)
        if user is not None and user.id not in self._kept:
            self._make_room(now)
            self._kept[user.id] = accounts[0]
        for each in accounts:
            each.reserved += is_run
            each.used += 0 if is_run else _MINUTE
        return _headers([*accounts[0].policies()], is_messages)

    def terms(self, user: User | None) -> list[Limits]:
        """The limits of the user and of all users, for a store that counts."""
        of_user = [(user.id, self.limits_of(user))] if user is not None else []
        named = [*of_user, ("", self.everyone)]
        return [Limits(id, each.requests_per_minute, each.open_runs, each.tokens_per_day) for id, each in named]

    def told(self, user: User | None, acquired: Acquired, **kind: bool) -> dict[str, str]:
        """As `admit`, of what a store has counted. `kind` is `is_messages` and `is_run`."""
        accounts = self._counted(user, acquired.counts)
        if acquired.is_refused:
            self._refuse(accounts, **kind)
            raise Answer(429, "rate_limit_error", "a limit is reached", headers={"retry-after": str(RETRY_SECONDS)})
        self._all = accounts[-1]  # for `must_end`
        if user is not None:
            self._kept[user.id] = accounts[0]
            if len(self._kept) > self._max_users:
                self._kept.popitem(last=False)
        return _headers([*accounts[0].policies()], kind["is_messages"])

    def _counted(self, user: User | None, counts: Sequence[Count]) -> list[_Account]:
        accounts = []
        limits = ([self.limits_of(user)] if user is not None else []) + [self.everyone]
        for limit, count in zip(limits, counts, strict=True):
            account = _Account()
            account.limits, account.at, account.used, account.open = limit, count.at, count.used, count.open
            account.tokens = {count.day: count.tokens}
            accounts.append(account)
        return accounts

    def _refuse(self, accounts: Sequence[_Account], *, is_messages: bool, is_run: bool) -> None:
        account, *others = accounts
        counted = ("requests", "tokens", "open_runs") if is_run else ("requests",)
        refusing = [p for p in account.policies() if p.name in counted and not p.left]
        # The use by others is shown only to a user who is refused because of it.
        used_up = [p for other in others for p in other.policies() if p.name in counted and not p.left]
        shared = [p._replace(name=f"all_{p.name}") for p in used_up]
        if refusing or shared:
            wait, worst = max((policy.wait or RETRY_SECONDS, policy) for policy in refusing + shared)
            who = "all users together have" if worst in shared else "you have"
            text = f"{who} reached the limit of {worst.quota} {worst.words}; try again in {wait} s"
            headers = _headers([*account.policies(), *shared], is_messages) | {"retry-after": str(wait)}
            raise Answer(429, "rate_limit_error", text, headers=headers)

    def release(self, user: User | None) -> None:
        """Give back what `admit` reserved: no run has begun."""
        for account in self._counting(user.id if user is not None else ""):
            account.reserved = max(0, account.reserved - 1)

    def begun(self, start: RunStart) -> None:
        """The request counts, and one more run is open."""
        for account in self._counting(start.user):
            account.advance(start.time)
            account.reserved = max(0, account.reserved - 1)
            account.used += _MINUTE
            account.open += 1

    def ended(self, record: RunRecord) -> None:
        """The run is no longer open. Its tokens count on the day on which it began, as in the ledger."""
        for account in self._counting(record.user):
            account.open -= 1
            account.spend(record.time, record.total_tokens)

    def settle(self, totals: Mapping[str, int], now: float) -> None:
        """Take over the tokens that each user has used today, from the ledger: so quotas survive a restart."""
        # Those without a user are of a relay without users: they count for all together.
        accounts = [(self._kept.setdefault(user, _Account()), tokens) for user, tokens in totals.items() if user]
        for account, tokens in [*accounts, (self._all, sum(totals.values()))]:
            account.advance(now)
            account.tokens[account.at // _DAY] = max(account.tokens_today, tokens)

    def must_end(self, user: str, now: float) -> bool:
        """The day's tokens are used up, and the limits say that this stops open runs of that user: those limits with which the
        user's newest request came."""
        self._all.limits = self.everyone
        accounts = [account for account in self._counting(user) if account.limits.ends_open_runs]
        for account in accounts:
            account.advance(now)
        return any(p.name == "tokens" and not p.left for account in accounts for p in account.policies())

    def me(self, user: User | None, now: float, acquired: Acquired | None = None) -> dict[str, Any]:
        """The answer to `GET /me`: limits in force, what is left of them, and when (RFC 3339) all of it is refilled; of what a
        store has counted, if it has."""
        account = self._accounts(user, now)[0] if acquired is None else self._counted(user, acquired.counts)[0]
        policies = list(account.policies())
        return {
            "user": user.id if user is not None else None,
            "limits": {name: value for name, value in asdict(account.limits).items() if value},
            "left": {policy.name: policy.left for policy in policies},
            "resets": {policy.name: _date(policy.reset) for policy in policies if policy.reset is not None},
        }

    def _accounts(self, user: User | None, now: float) -> list[_Account]:
        """The account of the user, which may be a new one, and that of all users, brought up to date."""
        accounts = [self._all]
        if user is not None:
            accounts.insert(0, self._kept.get(user.id) or _Account())
        accounts[0].limits, self._all.limits = self.limits_of(user), self.everyone
        for account in accounts:
            account.advance(now)
        return accounts

    def _counting(self, user: str) -> list[_Account]:
        return [self._kept[user], self._all] if user in self._kept else [self._all]

    def _make_room(self, now: float) -> None:
        """Forget up to two idle users for each new one, so that few are kept, and no request has to look at all of them."""
        for user in list(islice(self._kept, 2)):
            account = self._kept[user]
            self._kept.move_to_end(user)
            account.advance(now)
            tokens = account.tokens_today if account.limits.tokens_per_day is not None else 0
            if not (account.used or account.reserved or account.open or tokens):
                del self._kept[user]
        if len(self._kept) >= self._max_users:
            raise Answer(429, "rate_limit_error", "too many users at once", headers={"retry-after": str(RETRY_SECONDS)})


def _headers(policies: Sequence[_Policy], is_messages: bool) -> dict[str, str]:
    items = [f'"{policy.name}";q={policy.quota}{policy.terms}' for policy in policies]
    states = [f'"{p.name}";r={p.left}' + (f";t={p.wait}" if p.wait is not None else "") for p in policies]
    headers = {"ratelimit-policy": ", ".join(items), "ratelimit": ", ".join(states)} if policies else {}
    for policy in policies:
        if is_messages and policy.reset is not None:
            name = f"anthropic-ratelimit-{policy.name.removeprefix('all_')}"  # the limit of all, where that one refuses
            headers |= {f"{name}-limit": str(policy.quota), f"{name}-remaining": str(policy.left)}
            headers[f"{name}-reset"] = _date(policy.reset)
    return headers


def _date(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
