"""rawsse.relay.redis_store, with a Redis of its own for these tests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.redis_server import need_redis, redis_server

from rawsse.errors import ConfigurationError
from rawsse.relay.redis_store import CALLS_AT_ONCE, RedisStore
from rawsse.relay.store import DAY, MINUTE, Count, Limits, StoredRun, StoreUnavailableError, Write

from .store_conformance import CASES, Case, Cluster

need_redis()

# redis-py leaves a socket open when a connection takes too long to be made, as on a machine that is busy.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_store_in_redis(case: Case, url: str) -> None:
    async def main() -> None:
        store = RedisStore(url)

        async def pass_time(seconds: float) -> None:
            await store.read("clock", {}, seconds)

        try:
            await store._redis.flushall()
            await case(Cluster(store, pass_time))
        finally:
            await store.aclose()

    asyncio.run(main())


def test_the_counts_of_quotas_are_those_of_python(url: str) -> None:
    chance = random.Random(7)

    async def main() -> None:
        store = RedisStore(url)
        try:
            now = (await store.admit([Limits("")], counts=False)).counts[0].at
            for _ in range(200):
                at = now + chance.choice((-3 * DAY, -MINUTE, -1000, 0, 1000, 3 * MINUTE)) + chance.randrange(-500, 500)
                was = Count(at, chance.randrange(90 * MINUTE), at // DAY, chance.randrange(100), chance.randrange(5))
                limits = Limits("ada", *(chance.choice((None, 0, 1, 3, 60, 100)) for _ in range(3)))
                await store._redis.hset("rs:count:ada", mapping=dict(zip(map(str, was._fields), was, strict=True)))
                looked = (await store.admit([limits], counts=False)).counts[0]
                # Redis's clock is the only thing that is not known; one that was set back by more than a minute shows.
                time = looked.at - MINUTE if looked.at < was.at else looked.at
                assert looked == was.advanced(time, limits.requests_per_minute or 0)
                is_refused, (count,) = (await store.admit([limits]))[1:]
                before = count if is_refused else count._replace(used=count.used - MINUTE)
                assert is_refused == before.refuses(limits, is_run=False)
        finally:
            await store.aclose()

    asyncio.run(main())


def test_a_burst_of_calls_waits_for_connections_and_a_lease_and_frames_do_not(url: str) -> None:
    async def main() -> None:
        store = RedisStore(url, timeout_seconds=10)
        run = StoredRun("ada", "run-1", "tag", "text", "x", 0.0, owner="burst")
        try:
            await store.renew("burst", 60)
            await store.acquire(run, [])
            reads = [asyncio.create_task(store.read(f"burst-{i}", {}, 60)) for i in range(CALLS_AT_ONCE)]
            finds = [asyncio.create_task(store.find("ada", "run-1")) for _ in range(200)]
            while (await store._redis.info("clients"))["blocked_clients"] < CALLS_AT_ONCE:
                pass
            assert (await store.renew("burst", 60))[0]
            assert await store.write([Write(run, 0, 1, b"data: 1\n\n")]) == [True]
            assert not any(task.done() for task in (*reads, *finds))
            for read in reads:
                read.cancel()
            assert await asyncio.gather(*finds) == [run] * 200
        finally:
            await store.aclose()

    asyncio.run(main())


def test_to_list_the_runs_of_a_user_looks_at_no_others(url: str) -> None:
    async def main() -> None:
        store = RedisStore(url)
        try:
            await store._redis.flushall()
            await store.renew("a", 60)
            for number in range(20):
                await store.acquire(StoredRun(f"user-{number}", "run-1", "tag", "text", "x", 0.0, owner="a"), [])
            await store._redis.config_resetstat()
            assert [run.user for run in await store.open_runs("user-7")] == ["user-7"]
            assert (await store._redis.info("commandstats"))["cmdstat_hgetall"]["calls"] == 1
        finally:
            await store.aclose()

    asyncio.run(main())


def test_a_dead_node_whose_runs_are_taken_leaves_nothing_behind(url: str) -> None:
    run = StoredRun("ada", "run-1", "tag", "text", "x", 0.0, owner="a")

    async def main() -> None:
        store = RedisStore(url)
        try:
            await store._redis.flushall()
            await store.renew("a", 0.1)
            await store.acquire(run, [])
            await store.stop(run)  # it will not read this
            while "a" not in (await store.renew("b", 60))[1]:
                pass
            ((taken, last),) = await store.take("b", "a", 60)
            assert await store.write([Write(taken, last, last + 1, b"end", tokens=0)]) == [True]
            await store.leave("b")
            assert sorted(await store._redis.keys("rs:n*")) == []
        finally:
            await store.aclose()

    asyncio.run(main())


def test_scripts_are_loaded_again_into_a_redis_that_was_restarted(url: str) -> None:
    async def main() -> None:
        store = RedisStore(url)
        try:
            await store.renew("a", 60)
            await store._redis.script_flush()
            assert (await store.renew("a", 60))[0]
        finally:
            await store.aclose()

    asyncio.run(main())


def test_a_redis_that_is_not_there_is_unavailable_and_its_password_is_not_told(tmp_path: Path) -> None:
    async def main() -> None:
        store = RedisStore("redis://ada:s3cret@127.0.0.1:1/0", timeout_seconds=0.5)
        try:
            with pytest.raises(StoreUnavailableError) as caught:
                await store.renew("a", 1)
            assert "s3cret" not in str(caught.value)
            assert "s3cret" not in repr(store)
        finally:
            await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    "url",
    [
        "http://ada:s3cret@127.0.0.1",
        "redis",
        "redis://ada:s3cret@127.0.0.1:port/0",
        "redis://ada:s3cret@[::1/0",
        "redis://ada:s3cret@127.0.0.1/0?no_such_option=1",
        "redis://ada:s3cret/more@127.0.0.1",  # for urllib, `s3cret` is the port
    ],
)
def test_a_url_that_is_none_of_redis_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="redis://") as caught:
        RedisStore(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__  # what urllib says of it


@pytest.mark.parametrize("option", ["socket_timeout=0.02", "protocol=3", "decode_responses=True"])
def test_options_in_the_url_do_not_change_how_the_store_reads(url: str, option: str) -> None:
    run = StoredRun("ada", "run-1", "tag", "text", "x", 0.0, owner="options")

    async def main() -> None:
        store = RedisStore(f"{url}?{option}")
        try:
            await store._redis.flushall()
            await store.renew("options", 60)
            await store.acquire(run, [])
            assert await store.find(*run.key) == run
            assert await store.read("options", {run.key: (1, 0)}, 0.1) == ({}, [])
            assert await store.write([Write(run, 0, 1, b"data: 1\n\n")]) == [True]
            entries, _ = await store.read("options", {run.key: (1, 0)}, 0.1)
            assert [entry.wire for entry in entries[run.key]] == [b"data: 1\n\n"]
        finally:
            await store.aclose()

    asyncio.run(main())
