"""Where several nodes keep their runs, so that any of them can read, resume and stop every run.

A store holds a log of frames per run, the lease of each node, and the counts of the quotas. Each function is atomic, and may be
repeated when its answer was lost; `admit` then counts twice. `MemoryStore` serves nodes in one process; `RedisStore` serves
those of a cluster.

A run has one owner, the node that calls the API for it. The owner's writes carry an epoch. A node that takes the run over
raises it, and from then on the store refuses the writes of the owner before. So a process that was stopped for a while, and
does not know that its lease is over, can add nothing to a log that another node has ended.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

LEASE_SECONDS = 3.0
BLOCK_SECONDS = 5.0

SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE
"""Counts of quotas are exact: times in microseconds."""


def to_microseconds(seconds: float) -> int:
    """Unix seconds in microseconds."""
    return round(seconds * SECOND)


class StoreUnavailableError(Exception):
    """The store did not answer in time. A write may or may not have been done."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run, as all nodes know it. `time` is in Unix seconds, `model` was asked for; `usage` is the API's, as far as the owner
    had it, with the `model` that answers."""

    user: str
    id: str
    tag: str
    dialect: str
    model: str
    time: float
    alias: str = ""
    fingerprint: str = ""
    owner: str = ""
    epoch: int = 1
    usage: str = ""
    is_ended: bool = False
    is_stopped: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Its user and id: clients choose ids, and two users may choose the same."""
        return self.user, self.id


class Limits(NamedTuple):
    """The limits of an account: that of a user, or of all users together if `user` is empty. None: there is no such limit."""

    user: str
    requests_per_minute: int | None = None
    open_runs: int | None = None
    tokens_per_day: int | None = None


COUNTED = Limits._fields[1:]
"""The limits that have counts, by their names in `UserLimits`."""


class Count(NamedTuple):
    """The use by an account at the time `at` (microseconds): `used` microseconds of requests (one request is `MINUTE`, and
    each microsecond gives back as much as the limit), the day's tokens, the open runs, and the tokens of one other day: a clock
    may be wrong for a moment."""

    at: int = 0
    used: int = 0
    day: int = 0
    tokens: int = 0
    open: int = 0
    other_day: int = 0
    other_tokens: int = 0

    def advanced(self, now: int, rate: int | None) -> Count:
        """The count at a later time, of an account that may have `rate` requests per minute."""
        # A clock that is set back must not give back the same time twice, nor stop the count until it has caught up.
        at, rate = min(max(self.at, now), now + MINUTE), rate or 0
        used = max(0, min(self.used, rate * MINUTE) - max(0, at - self.at) * rate)
        return self._replace(at=at, used=used)._on(at // DAY)

    def _on(self, day: int) -> Count:
        """The count on that day. The tokens of the day before are kept beside it."""
        if day == self.day:
            return self
        tokens = self.other_tokens if day == self.other_day else 0
        return self._replace(day=day, tokens=tokens, other_day=self.day, other_tokens=self.tokens)

    def refuses(self, limits: Limits, *, is_run: bool) -> bool:
        """One more request, or run, would exceed a limit."""
        rate, runs, tokens = limits.requests_per_minute, limits.open_runs, limits.tokens_per_day
        return (rate is not None and self.used + MINUTE > rate * MINUTE) or (
            is_run and ((runs is not None and self.open >= runs) or (tokens is not None and self.tokens >= tokens))
        )

    def ended(self, began: float, tokens: int) -> Count:
        """The count after the end of a run that began at that Unix time: on that day its tokens count."""
        day = to_microseconds(began) // DAY
        new = self._on(max(day, self.day))._replace(open=max(0, self.open - 1))
        if day == new.day:
            return new._replace(tokens=new.tokens + tokens)
        return new._replace(other_tokens=new.other_tokens + tokens) if day == new.other_day else new


class Acquired(NamedTuple):
    """The answer to `acquire`: the run that is there already, if one is; whether the limits refuse; and the counts of the
    accounts, in their order, after what was admitted."""

    known: StoredRun | None
    is_refused: bool
    counts: Sequence[Count]


def count_request(
    before: Sequence[Count], limits: Sequence[Limits], now: float, *, is_run: bool, counts: bool
) -> Acquired:
    """Refill these counts at a Unix time. Then, with `counts`, count one more request, unless a limit refuses it."""
    at = to_microseconds(now)
    after = [count.advanced(at, each.requests_per_minute) for count, each in zip(before, limits, strict=True)]
    is_refused = counts and any(c.refuses(each, is_run=is_run) for c, each in zip(after, limits, strict=True))
    if counts and not is_refused:
        after = [count._replace(used=count.used + MINUTE, open=count.open + is_run) for count in after]
    return Acquired(None, is_refused, after)


class Write(NamedTuple):
    """Frames for the log of a run. `number`, that of the last of them, is above `before`, that of the write before it in this
    epoch, or 0; it is the same if only `usage` is to be kept. With `tokens` the run ends: it has used so many, and is kept
    for `keep_seconds`."""

    run: StoredRun
    before: int
    number: int
    wire: bytes
    usage: str = ""
    tokens: int | None = None
    keep_seconds: float = 0.0


class Entry(NamedTuple):
    """Frames that were written at once. `id` is that of the log's entry; its second number is that of the last frame, or 0."""

    id: tuple[int, int]
    wire: bytes
    is_last: bool

    @property
    def number(self) -> int:
        """The number of its last frame."""
        return self.id[1]


class Taken(NamedTuple):
    """A run that was taken over, with its new epoch and owner, and the number of its last frame."""

    run: StoredRun
    last: int


class Store(Protocol):
    """All functions raise `StoreUnavailableError`, and nothing else."""

    lease_seconds: float
    """How long a node may be silent before others take its runs over."""
    block_seconds: float
    """How long a node waits in one read for something new."""

    async def renew(self, node: str, lease_seconds: float) -> tuple[bool, list[str]]:
        """Take or renew the lease of `node`. Returns whether it is held, and the nodes whose leases have expired. A node that
        has lost its lease must continue under another name: others may take over its runs."""

    async def leave(self, node: str) -> None:
        """Give up the lease of `node`. If it has open runs, others may take them over at once."""

    async def acquire(self, run: StoredRun, limits: Sequence[Limits]) -> Acquired:
        """Begin a run, unless there is one with its key, or a limit refuses it. For an owner without a lease the store is
        unavailable."""

    async def admit(self, limits: Sequence[Limits], *, counts: bool = True) -> Acquired:
        """Count a request without a run, unless a limit refuses it; without `counts` only tell the counts."""

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        """Append to the logs, at most one write per run. False for a write that is refused: the run has another owner, or has
        been forgotten."""

    async def find(self, user: str, id: str) -> StoredRun | None:
        """The run of that user with that id."""

    async def find_alias(self, user: str, alias: str) -> StoredRun | None:
        """The newest run of that user with that alias."""

    async def open_runs(self, user: str | None = None) -> list[StoredRun]:
        """The runs of all nodes that have not ended: those of one user, or of all."""

    async def entries(self, run: StoredRun, after: tuple[int, int] = (0, 0)) -> list[Entry]:
        """All that was written to the log of the run after the entry with that id."""

    async def stop(self, run: StoredRun) -> None:
        """Mark the run as one to be stopped, and tell its owner."""

    async def touch(self, node: str, runs: Sequence[StoredRun]) -> list[bool]:
        """Note that clients of `node` read these runs, which other nodes own, and let its `read` return: it may have more to
        wait for. False for a run that the store no longer has."""

    async def unread_seconds(self, run: StoredRun) -> float:
        """The seconds since the run was last touched; infinity if it never was."""

    async def read(
        self, node: str, after: Mapping[tuple[str, str], tuple[int, int]], seconds: float
    ) -> tuple[dict[tuple[str, str], list[Entry]], list[tuple[str, str]]]:
        """Wait up to `seconds` for entries after those ids, or for a message to `node`. Returns the entries by run, and the
        runs that must be stopped."""

    async def take(self, node: str, dead: str, lease_seconds: float) -> list[Taken]:
        """Take over runs of the node `dead`, whose lease has expired, and take a lease for `node`. Each run goes to exactly one
        node. Empty when all are taken."""

    async def aclose(self) -> None:
        """Close the connections. The store keeps what it has."""


class MemoryStore:
    """A store for nodes in one process. `clock` gives Unix seconds."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        lease_seconds: float = LEASE_SECONDS,
        block_seconds: float = BLOCK_SECONDS,
    ) -> None:
        self.lease_seconds, self.block_seconds = lease_seconds, block_seconds
        self._clock = clock
        self._leases: dict[str, float] = {}
        self._runs: dict[tuple[str, str], StoredRun] = {}
        self._logs: dict[tuple[str, str], list[Entry]] = {}
        self._until: dict[tuple[str, str], float] = {}  # when finished runs are forgotten
        self._touched: dict[tuple[str, str], float] = {}
        self._aliases: dict[tuple[str, str], tuple[str, str]] = {}
        self._counts: defaultdict[str, Count] = defaultdict(Count)
        self._messages: defaultdict[str, list[tuple[str, str] | None]] = defaultdict(list)
        self._changed = asyncio.Event()

    async def renew(self, node: str, lease_seconds: float) -> tuple[bool, list[str]]:
        """See `Store`."""
        now = self._clock()
        is_held = self._leases.get(node, math.inf) >= now
        if is_held:
            self._leases[node] = now + lease_seconds
        return is_held, [each for each, until in self._leases.items() if until < now]

    async def leave(self, node: str) -> None:
        """See `Store`."""
        if any(run.owner == node and not run.is_ended for run in self._runs.values()):
            self._leases[node] = -math.inf
        else:
            self._leases.pop(node, None)

    async def acquire(self, run: StoredRun, limits: Sequence[Limits]) -> Acquired:
        """See `Store`."""
        known = await self.find(*run.key)
        if known is not None and known.tag != run.tag:
            return Acquired(known, False, ())
        if self._leases.get(run.owner, -math.inf) < self._clock():
            raise StoreUnavailableError("the lease of this node is over")
        if known is not None:  # the answer was lost
            return await self.admit(limits, counts=False)
        acquired = self._admit(limits, is_run=True, counts=True)
        if not acquired.is_refused:
            self._runs[run.key] = run
            self._logs[run.key] = [Entry((run.epoch, 0), b"", False)]
            if run.alias:
                self._aliases[run.user, run.alias] = run.key
        return acquired

    async def admit(self, limits: Sequence[Limits], *, counts: bool = True) -> Acquired:
        """See `Store`."""
        return self._admit(limits, is_run=False, counts=counts)

    def _admit(self, limits: Sequence[Limits], *, is_run: bool, counts: bool) -> Acquired:
        users = [each.user for each in limits]
        known = [self._counts[user] for user in users]
        acquired = count_request(known, limits, self._clock(), is_run=is_run, counts=counts)
        if counts:
            self._counts.update(zip(users, acquired.counts, strict=True))
        return acquired

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        """See `Store`."""
        return [self._write(each) for each in writes]

    def _write(self, write: Write) -> bool:
        run, log = self._runs.get(write.run.key), self._logs.get(write.run.key)
        id = (write.run.epoch, write.number)
        if run is None or log is None or run.tag != write.run.tag or log[-1].id not in (id, (id[0], write.before)):
            return False
        self._runs[run.key] = replace(run, usage=write.usage or run.usage, is_ended=write.tokens is not None)
        if log[-1].id != id:  # else the answer was lost
            log.append(Entry(id, write.wire, write.tokens is not None))
            self._changed.set()
            if write.tokens is not None:
                self._until[run.key] = self._clock() + write.keep_seconds
                for user in {run.user, ""}:
                    self._counts[user] = self._counts[user].ended(run.time, write.tokens)
        return True

    async def find(self, user: str, id: str) -> StoredRun | None:
        """See `Store`."""
        now = self._clock()
        for key in [key for key, until in self._until.items() if until <= now]:
            del self._until[key], self._runs[key], self._logs[key]
            self._touched.pop(key, None)
        return self._runs.get((user, id))

    async def find_alias(self, user: str, alias: str) -> StoredRun | None:
        """See `Store`."""
        key = self._aliases.get((user, alias))
        return await self.find(*key) if key is not None else None

    async def open_runs(self, user: str | None = None) -> list[StoredRun]:
        """See `Store`."""
        return [run for run in self._runs.values() if not run.is_ended and user in (None, run.user)]

    async def entries(self, run: StoredRun, after: tuple[int, int] = (0, 0)) -> list[Entry]:
        """See `Store`."""
        return [entry for entry in self._logs.get(run.key, ()) if entry.id > after]

    async def stop(self, run: StoredRun) -> None:
        """See `Store`."""
        if (known := self._runs.get(run.key)) is not None and not known.is_ended:
            self._runs[run.key] = replace(known, is_stopped=True)
            self._messages[known.owner].append(run.key)
            self._changed.set()

    async def touch(self, node: str, runs: Sequence[StoredRun]) -> list[bool]:
        """See `Store`."""
        now = self._clock()
        known = [(found := self._runs.get(run.key)) is not None and found.tag == run.tag for run in runs]
        self._touched.update((run.key, now) for run, is_known in zip(runs, known, strict=True) if is_known)
        self._messages[node].append(None)
        self._changed.set()
        return known

    async def unread_seconds(self, run: StoredRun) -> float:
        """See `Store`."""
        return self._clock() - self._touched.get(run.key, -math.inf)

    async def read(
        self, node: str, after: Mapping[tuple[str, str], tuple[int, int]], seconds: float
    ) -> tuple[dict[tuple[str, str], list[Entry]], list[tuple[str, str]]]:
        """See `Store`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    found = {key: [e for e in self._logs.get(key, ()) if e.id > id] for key, id in after.items()}
                    entries = {key: each for key, each in found.items() if each}
                    messages = self._messages.pop(node, [])
                    if entries or messages:
                        return entries, [key for key in messages if key is not None]
                    self._changed.clear()
                    await self._changed.wait()
        return {}, []

    async def take(self, node: str, dead: str, lease_seconds: float) -> list[Taken]:
        """See `Store`."""
        if self._leases.get(dead, -math.inf) >= self._clock():
            return []
        taken = []
        for run in [run for run in self._runs.values() if run.owner == dead and not run.is_ended]:
            log = self._logs[run.key]
            self._runs[run.key] = new = replace(run, owner=node, epoch=run.epoch + 1)
            taken.append(Taken(new, max(entry.number for entry in log)))
            log.append(Entry((new.epoch, 0), b"", False))
        self._leases.pop(dead, None)
        if taken:
            self._leases[node] = max(self._leases.get(node, 0.0), self._clock() + lease_seconds)
        return taken

    async def aclose(self) -> None:
        """See `Store`."""
