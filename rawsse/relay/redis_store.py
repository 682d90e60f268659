"""The store of a cluster: Redis, with a stream per run (https://redis.io/docs/latest/develop/data-types/streams/).

    store = RedisStore("rediss://user:password@redis.example/0")          # extra `redis`

Keys, all with the prefix `rs:`. Names that users and clients chose are percent-encoded in them:

    run:USER/ID:log      a stream: frames; an entry has the id EPOCH-NUMBER, of the last frame in it
    run:USER/ID:meta     a hash: what every node may know of the run
    node:NODE:runs       a set: the open runs of a node
    node:NODE:inbox      a stream: messages to the node
    alias:USER/ALIAS     the newest run with that alias
    count:USER           a hash: what the quotas count; without a user, of all together
    nodes                a sorted set: until when each node holds its lease, in microseconds

Scripts make functions atomic. The clock is that of Redis, so the clocks of nodes may differ. Scripts touch keys of several
runs, so this needs one Redis, with or without replicas, and not a Redis Cluster. It must be of version 6.2 or later (XADD with
NOMKSTREAM, ZADD with GT).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any
from urllib.parse import quote, unquote

from rawsse.errors import ConfigurationError
from rawsse.relay.store import (
    BLOCK_SECONDS,
    COUNTED,
    DAY,
    LEASE_SECONDS,
    MINUTE,
    SECOND,
    Acquired,
    Count,
    Entry,
    Limits,
    StoredRun,
    StoreUnavailableError,
    Taken,
    Write,
    to_microseconds,
)

RUN_SECONDS = 86_400
"""How long Redis keeps an unfinished run, if no node is left that could end it."""

MAX_MESSAGES = 1000
"""How many messages to a node may wait."""

CALLS_AT_ONCE = 64
"""Each has a connection; more wait for one. `redis-py` would refuse those above a hundred: a burst of new runs has more."""

WRITES_AT_ONCE = 64
"""Writes in one call of a script: Redis does nothing else meanwhile."""

_PREFIX = "rs:"
_NODES = f"{_PREFIX}nodes"

# The functions that several scripts use. `count` is `count_request` of `store.py`: it counts for the accounts whose keys begin
# at `first`; their limits, `LIMITS` of each, begin at ARGV[at]; -1 for no limit.
# `append` is the fence: it adds only what follows the write before it in the same epoch.
_FUNCTIONS = f"""
local PREFIX, RUN_SECONDS, MAX_MESSAGES, AT_ONCE = '{_PREFIX}', {RUN_SECONDS}, {MAX_MESSAGES}, {WRITES_AT_ONCE}
local MINUTE, DAY = {MINUTE}, {DAY}
local LIMITS, COUNT = {{{", ".join(map(repr, COUNTED))}}}, {{{", ".join(map(repr, Count._fields))}}}
local ADDED, REPEATED, REFUSED = 1, 2, 0

local function whole(number) return string.format('%.0f', number) end

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function read(key)
  local c = {{}}
  for i, value in ipairs(redis.call('HMGET', key, unpack(COUNT))) do c[COUNT[i]] = tonumber(value or 0) end
  return c
end

local function save(key, c)
  for _, name in ipairs(COUNT) do redis.call('HSET', key, name, whole(c[name])) end
  redis.call('EXPIRE', key, 2 * 86400)
end

local function turn(c, day)
  if day == c.day then return end
  local tokens = day == c.other_day and c.other_tokens or 0
  c.day, c.tokens, c.other_day, c.other_tokens = day, tokens, c.day, c.tokens
end

local function count(first, at, is_run, counts)
  local all, time, is_refused = {{}}, now(), false
  for i = first, #KEYS do
    local limits = {{}}
    for j, name in ipairs(LIMITS) do limits[name] = tonumber(ARGV[at + j - 1]) end
    at = at + #LIMITS
    local rate, runs, tokens = limits.requests_per_minute, limits.open_runs, limits.tokens_per_day
    local c, limit = read(KEYS[i]), math.max(rate, 0)
    local later = math.min(math.max(c.at, time), time + MINUTE)
    c.used = math.max(0, math.min(c.used, limit * MINUTE) - math.max(0, later - c.at) * limit)
    c.at = later
    turn(c, math.floor(later / DAY))
    is_refused = is_refused or (rate >= 0 and c.used + MINUTE > rate * MINUTE)
      or (is_run and ((runs >= 0 and c.open >= runs) or (tokens >= 0 and c.tokens >= tokens)))
    all[#all + 1] = c
  end
  is_refused = counts and is_refused
  for i, c in ipairs(all) do
    if counts and not is_refused then c.used, c.open = c.used + MINUTE, c.open + (is_run and 1 or 0) end
    if counts then save(KEYS[first + i - 1], c) end
    all[i] = {{}}
    for j, name in ipairs(COUNT) do all[i][j] = whole(c[name]) end
  end
  return is_refused and 1 or 0, all
end

local function append(log, before, id, data, ...)
  local top = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  if top and top[1] == id then return REPEATED end
  if not top or top[1] ~= before then return REFUSED end
  redis.call('XADD', log, 'NOMKSTREAM', id, 'd', data, ...)
  return ADDED
end
"""

# KEYS: nodes, inbox of the node. ARGV: node, lease in microseconds.
_RENEW = """
local time = now()
local held = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or time) >= time
if held then
  redis.call('ZADD', KEYS[1], whole(time + ARGV[2]), ARGV[1])
  redis.call('EXPIRE', KEYS[2], RUN_SECONDS)
end
return {held and 1 or 0, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. whole(time))}
"""

# KEYS: accounts. ARGV: "1" to count, the accounts' limits.
_ADMIT = "return {{}, count(1, 2, false, ARGV[1] == '1')}"

# KEYS: meta, log, runs of the node, alias, nodes, accounts. ARGV: the run, owner, tag, number of fields of meta, these fields,
# the accounts' limits.
_ACQUIRE = """
local n = tonumber(ARGV[4])
local tag = redis.call('HGET', KEYS[1], 'tag')
if tag and tag ~= ARGV[3] then return {redis.call('HGETALL', KEYS[1]), 0, {}} end
if tonumber(redis.call('ZSCORE', KEYS[5], ARGV[2]) or 0) < now() then return redis.error_reply('LAPSED') end
local is_refused, counts = count(6, 5 + n, true, not tag)
if not tag and is_refused == 0 then
  redis.call('HSET', KEYS[1], unpack(ARGV, 5, 4 + n))
  redis.call('XADD', KEYS[2], '1-0', 'd', '')
  redis.call('EXPIRE', KEYS[1], RUN_SECONDS)
  redis.call('EXPIRE', KEYS[2], RUN_SECONDS)
  redis.call('SADD', KEYS[3], ARGV[1])
  if KEYS[4] ~= '' then redis.call('SET', KEYS[4], ARGV[1], 'EX', RUN_SECONDS) end
end
return {{}, is_refused, counts}
"""

# KEYS: log of each. ARGV: id before, id, data, usage of each. The answer has a digit for each: it is parsed at once.
_WRITE = """
local done = {}
for i, log in ipairs(KEYS) do
  local a = 4 * i
  done[i] = append(log, ARGV[a - 3], ARGV[a - 2], ARGV[a - 1])
  if ARGV[a] ~= '' and done[i] > 0 then redis.call('HSET', (string.gsub(log, 'log$', 'meta')), 'usage', ARGV[a]) end
end
return table.concat(done)
"""

# KEYS: log, meta, runs of the node, accounts. ARGV: id before, id, data, usage, the run, day on which it began, tokens,
# milliseconds for which it is kept, tag.
_FINISH = """
if redis.call('HGET', KEYS[2], 'tag') ~= ARGV[9] then return REFUSED end
local done = append(KEYS[1], ARGV[1], ARGV[2], ARGV[3], 'e', '1')
if done ~= ADDED then return done end
redis.call('HSET', KEYS[2], 'is_ended', '1')
if ARGV[4] ~= '' then redis.call('HSET', KEYS[2], 'usage', ARGV[4]) end
redis.call('PEXPIRE', KEYS[1], ARGV[8])
redis.call('PEXPIRE', KEYS[2], ARGV[8])
redis.call('SREM', KEYS[3], ARGV[5])
for i = 4, #KEYS do
  local c, day = read(KEYS[i]), tonumber(ARGV[6])
  turn(c, math.max(day, c.day))
  c.open = math.max(0, c.open - 1)
  if day == c.day then c.tokens = c.tokens + ARGV[7] end
  if day == c.other_day then c.other_tokens = c.other_tokens + ARGV[7] end
  save(KEYS[i], c)
end
return done
"""

# KEYS: nodes, runs and inbox of the node. ARGV: node. A lease that ended in 1970 is that of a dead node.
_LEAVE = """
redis.call('DEL', KEYS[3])
if redis.call('SCARD', KEYS[2]) == 0 then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return redis.call('ZADD', KEYS[1], 0, ARGV[1])
"""

# KEYS: meta. ARGV: the run.
_STOP = """
local owner = redis.call('HMGET', KEYS[1], 'owner', 'is_ended')
if owner[1] and owner[2] ~= '1' then
  redis.call('HSET', KEYS[1], 'is_stopped', '1')
  redis.call('XADD', PREFIX .. 'node:' .. owner[1] .. ':inbox', 'MAXLEN', '~', MAX_MESSAGES, '*', 'stop', ARGV[1])
end
"""

# KEYS: inbox of the node, meta of each. ARGV: tag of each.
_TOUCH = """
local known = {}
for i, tag in ipairs(ARGV) do
  known[i] = redis.call('HGET', KEYS[i + 1], 'tag') == tag and 1 or 0
  if known[i] == 1 then redis.call('HSET', KEYS[i + 1], 'touched', whole(now())) end
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', MAX_MESSAGES, '*', 'wake', '')
return known
"""

# KEYS: nodes, runs of the dead node, runs of this one. ARGV: dead node, this node, lease in microseconds.
_TAKE = """
local time, taken = now(), {}
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0) >= time then return taken end
for _, run in ipairs(redis.call('SRANDMEMBER', KEYS[2], AT_ONCE)) do
  local meta, log = PREFIX .. 'run:' .. run .. ':meta', PREFIX .. 'run:' .. run .. ':log'
  local known = redis.call('HMGET', meta, 'owner', 'is_ended')
  if known[1] == ARGV[1] and known[2] ~= '1' and redis.call('EXISTS', log) == 1 then
    local epoch, last = redis.call('HINCRBY', meta, 'epoch', 1), 0
    redis.call('HSET', meta, 'owner', ARGV[2])
    for _, entry in ipairs(redis.call('XREVRANGE', log, '+', '-', 'COUNT', epoch)) do
      last = math.max(last, tonumber(string.match(entry[1], '%-(%d+)$')))
    end
    redis.call('XADD', log, epoch .. '-0', 'd', '')
    redis.call('SADD', KEYS[3], run)
    taken[#taken + 1] = {last, redis.call('HGETALL', meta)}
  end
  redis.call('SREM', KEYS[2], run)
end
if redis.call('SCARD', KEYS[2]) == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('DEL', PREFIX .. 'node:' .. ARGV[1] .. ':inbox')
end
if #taken > 0 then redis.call('ZADD', KEYS[1], 'GT', whole(time + ARGV[3]), ARGV[2]) end
return taken
"""


class RedisStore:
    """A store in the Redis at `url` (`redis://`, `rediss://` with TLS, or `unix://`, with user, password and database).

    `lease_seconds` and `block_seconds` are those of `Store`; `timeout_seconds` is how long one call may take, a third of the
    lease if it is not given. A query of the URL has further options of `redis-py`, as `?ssl_ca_certs=FILE`. The caller closes
    the store. Raises `ConfigurationError` without the extra `redis`, and for a URL of something else.
    """

    def __init__(
        self,
        url: str,
        *,
        lease_seconds: float = LEASE_SECONDS,
        block_seconds: float = BLOCK_SECONDS,
        timeout_seconds: float | None = None,
    ) -> None:
        self.lease_seconds, self.block_seconds = lease_seconds, block_seconds
        self._timeout = timeout_seconds or lease_seconds / 3
        try:
            from redis.asyncio import ConnectionPool, Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import NoScriptError, RedisError
        except ImportError as exc:
            raise ConfigurationError("a store in Redis needs the extra: pip install 'rawsse[redis]'") from exc
        self._errors = (RedisError, OSError, TimeoutError)
        self._no_script = NoScriptError
        self._seen: dict[str, str] = {}  # the last message that each node has read
        self._digests: dict[str, bytes] = {}  # by which Redis knows the scripts
        # Each call has a time limit. One more for each send and each read would cost as much as they do.
        options: dict[str, Any] = {"socket_connect_timeout": self._timeout, "socket_timeout": None}
        options |= {"protocol": 2, "decode_responses": False, "retry": Retry(NoBackoff(), 1)}
        try:
            pool = ConnectionPool.from_url(url, **options)
            pool.connection_kwargs.update(options)  # again: those of the URL came after them
            # Frames and leases do not wait for other calls; and to take a connection from the pool costs more than to use it.
            self._own = pool.make_connection()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, RedisError):
            # The cause would quote the beginning of a password that has a / or # in it: it is taken for the port.
            forms = "redis://USER:PASSWORD@HOST:6379/0 or the like, with / ? # and @ in a password percent-encoded"
            raise ConfigurationError(f"the URL of the store is not one of Redis: {forms}") from None
        self._redis = Redis.from_pool(pool)
        self._turns = asyncio.Semaphore(CALLS_AT_ONCE)
        self._own_turn = asyncio.Lock()

    async def renew(self, node: str, lease_seconds: float) -> tuple[bool, list[str]]:
        """See `Store`."""
        keys = [_NODES, _of_node(node, "inbox")]
        held, dead = await self._run(_RENEW, keys, [node, to_microseconds(lease_seconds)], waits=False)
        return bool(held), [each.decode() for each in dead]

    async def leave(self, node: str) -> None:
        """See `Store`."""
        await self._run(_LEAVE, [_NODES, _of_node(node, "runs"), _of_node(node, "inbox")], [node])

    async def acquire(self, run: StoredRun, limits: Sequence[Limits]) -> Acquired:
        """See `Store`."""
        alias = _alias(run.user, run.alias) if run.alias else ""
        keys = [_meta(run.key), _log(run.key), _of_node(run.owner, "runs"), alias, _NODES]
        meta = _to_fields(run)
        args = [_name(*run.key), run.owner, run.tag, len(meta), *meta, *_terms(limits)]
        return _acquired(await self._run(_ACQUIRE, [*keys, *map(_account, limits)], args))

    async def admit(self, limits: Sequence[Limits], *, counts: bool = True) -> Acquired:
        """See `Store`."""
        return _acquired(await self._run(_ADMIT, [*map(_account, limits)], [int(counts), *_terms(limits)]))

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        """See `Store`."""
        done: list[bool] = []
        frames = [each for each in writes if each.tokens is None]
        for at in range(0, len(frames), WRITES_AT_ONCE):
            some = frames[at : at + WRITES_AT_ONCE]
            keys = [_log(each.run.key) for each in some]
            answer = await self._run(_WRITE, keys, [arg for each in some for arg in _to_append(each)], waits=False)
            done += [digit != "0" for digit in answer.decode()]
        ends = await asyncio.gather(*(self._finish(each) for each in writes if each.tokens is not None))
        written, ended = iter(done), iter(ends)
        return [next(written if each.tokens is None else ended) for each in writes]

    async def _finish(self, write: Write) -> bool:
        run = write.run
        accounts = [_account(Limits(user)) for user in dict.fromkeys((run.user, ""))]
        keys = [_log(run.key), _meta(run.key), _of_node(run.owner, "runs"), *accounts]
        day, keep = to_microseconds(run.time) // DAY, max(1, round(write.keep_seconds * 1000))
        args = [*_to_append(write), _name(*run.key), day, write.tokens, keep, run.tag]
        return bool(await self._run(_FINISH, keys, args))

    async def find(self, user: str, id: str) -> StoredRun | None:
        """See `Store`."""
        return _from_fields(await self._call("HGETALL", _meta((user, id))))

    async def find_alias(self, user: str, alias: str) -> StoredRun | None:
        """See `Store`."""
        name = await self._call("GET", _alias(user, alias))
        return await self.find(*_key(name)) if name is not None else None

    async def open_runs(self, user: str | None = None) -> list[StoredRun]:
        """See `Store`."""
        nodes = await self._call("ZRANGE", _NODES, 0, -1)
        owned = [_of_node(node.decode(), "runs") for node in nodes]
        keys = map(_key, await self._call("SUNION", *owned) if owned else ())
        runs = [await self.find(*key) for key in keys if user in (None, key[0])]
        return [run for run in runs if run is not None and not run.is_ended]

    async def entries(self, run: StoredRun, after: tuple[int, int] = (0, 0)) -> list[Entry]:
        """See `Store`."""
        found = await self._call("XRANGE", _log(run.key), "({}-{}".format(*after), "+")
        return [_entry(id, each) for id, each in found]

    async def stop(self, run: StoredRun) -> None:
        """See `Store`."""
        await self._run(_STOP, [_meta(run.key)], [_name(*run.key)])

    async def touch(self, node: str, runs: Sequence[StoredRun]) -> list[bool]:
        """See `Store`."""
        known: list[int] = []
        for at in range(0, max(1, len(runs)), WRITES_AT_ONCE):
            some = runs[at : at + WRITES_AT_ONCE]
            keys = [_of_node(node, "inbox"), *(_meta(run.key) for run in some)]
            known += await self._run(_TOUCH, keys, [run.tag for run in some])
        return list(map(bool, known))

    async def unread_seconds(self, run: StoredRun) -> float:
        """See `Store`."""
        touched = await self._call("HGET", _meta(run.key), "touched")
        seconds, microseconds = await self._call("TIME")
        return int(seconds) + (int(microseconds) - int(touched)) / SECOND if touched is not None else math.inf

    async def read(
        self, node: str, after: Mapping[tuple[str, str], tuple[int, int]], seconds: float
    ) -> tuple[dict[tuple[str, str], list[Entry]], list[tuple[str, str]]]:
        """See `Store`."""
        inbox = _of_node(node, "inbox")
        logs = {_log(key): key for key in after}
        ids = [self._seen.get(node, "0"), *(f"{epoch}-{number}" for epoch, number in after.values())]
        block = ("BLOCK", max(1, round(seconds * 1000)), "STREAMS")
        found = await self._call("XREAD", *block, inbox, *logs, *ids, seconds=seconds)
        entries: dict[tuple[str, str], list[Entry]] = {}
        stopped = []
        for name, added in found or ():
            if (place := name.decode()) != inbox:
                entries[logs[place]] = [_entry(id, each) for id, each in added]
                continue
            self._seen[node] = added[-1][0].decode()
            stopped += [_key(each[b"stop"]) for _, each in added if b"stop" in each]
        return entries, stopped

    async def take(self, node: str, dead: str, lease_seconds: float) -> list[Taken]:
        """See `Store`."""
        keys = [_NODES, _of_node(dead, "runs"), _of_node(node, "runs")]
        found = await self._run(_TAKE, keys, [dead, node, to_microseconds(lease_seconds)])
        taken = [(last, _from_fields(dict(zip(each[::2], each[1::2], strict=True)))) for last, each in found]
        return [Taken(run, last) for last, run in taken if run is not None]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._own.disconnect()
        await self._redis.aclose()

    async def _run(self, script: str, keys: Sequence[str], args: Sequence[Any], *, waits: bool = True) -> Any:
        call = self._call if waits else self._call_at_once
        try:
            return await call("EVALSHA", self._digests.get(script, ""), len(keys), *keys, *args)
        except self._no_script:  # it was not loaded, or Redis has begun again
            self._digests[script] = await call("SCRIPT", "LOAD", _FUNCTIONS + script)
            return await call("EVALSHA", self._digests[script], len(keys), *keys, *args)

    async def _call(self, *command: Any, seconds: float = 0) -> Any:
        """Send a command that waits for up to `seconds` at Redis. Raises `StoreUnavailableError`."""
        return await self._answer(self._turns, partial(self._redis.execute_command, *command), seconds)

    async def _call_at_once(self, *command: Any) -> Any:
        packed, connection = _packed(command), self._own

        async def exchange() -> Any:
            await connection.send_packed_command(packed)
            return await connection.read_response()

        ask = partial(connection.retry.call_with_retry, exchange, lambda _: connection.disconnect())
        return await self._answer(self._own_turn, ask)

    async def _answer(
        self, turns: asyncio.Semaphore | asyncio.Lock, ask: Callable[[], Awaitable[Any]], seconds: float = 0
    ) -> Any:
        try:
            async with asyncio.timeout(self._timeout + seconds), turns:
                return await ask()
        except self._no_script:
            raise
        except self._errors as exc:
            # Its words name the address, and never the password.
            raise StoreUnavailableError(f"Redis: {str(exc) or type(exc).__name__}") from exc


def _packed(command: Sequence[Any]) -> bytes:
    """The command as Redis reads it (https://redis.io/docs/latest/develop/reference/protocol-spec/). `redis-py` packs it, too,
    in several times the time."""
    words = [word if type(word) is bytes else str(word).encode() for word in command]
    return b"".join([b"*%d\r\n" % len(words), *[b"$%d\r\n%b\r\n" % (len(word), word) for word in words]])


def _name(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)


def _key(name: bytes) -> tuple[str, str]:
    user, _, id = name.decode().partition("/")
    return unquote(user), unquote(id)


def _log(key: tuple[str, str]) -> str:
    return f"{_PREFIX}run:{_name(*key)}:log"


def _meta(key: tuple[str, str]) -> str:
    return f"{_PREFIX}run:{_name(*key)}:meta"


def _of_node(node: str, what: str) -> str:
    return f"{_PREFIX}node:{node}:{what}"


def _alias(user: str, alias: str) -> str:
    return f"{_PREFIX}alias:{_name(user, alias)}"


def _account(limits: Limits) -> str:
    return f"{_PREFIX}count:{_name(limits.user)}"


def _terms(limits: Sequence[Limits]) -> list[int]:
    return [-1 if limit is None else limit for each in limits for limit in each[1:]]


def _to_append(write: Write) -> tuple[str, str, bytes, str]:
    epoch = write.run.epoch
    return f"{epoch}-{write.before}", f"{epoch}-{write.number}", write.wire, write.usage


def _entry(id: bytes, found: Mapping[bytes, bytes]) -> Entry:
    epoch, _, number = id.partition(b"-")
    return Entry((int(epoch), int(number)), found[b"d"], b"e" in found)


def _acquired(reply: Any) -> Acquired:
    known, is_refused, counts = reply
    run = _from_fields(dict(zip(known[::2], known[1::2], strict=True)))
    return Acquired(run, bool(is_refused), [Count(*map(int, each)) for each in counts])


def _to_fields(run: StoredRun) -> list[Any]:
    values = {field.name: getattr(run, field.name) for field in fields(run)}
    return [item for name, value in values.items() for item in (name, int(value) if type(value) is bool else value)]


def _from_fields(found: Mapping[bytes, bytes]) -> StoredRun | None:
    values: dict[str, Any] = {name.decode(): value.decode() for name, value in found.items()}
    if "is_ended" not in values:
        return None
    values |= {"epoch": int(values["epoch"]), "time": float(values["time"])}
    values |= {name: values[name] == "1" for name in ("is_ended", "is_stopped")}
    return StoredRun(**{field.name: values[field.name] for field in fields(StoredRun)})
