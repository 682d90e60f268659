"""rawsse.relay.app: relays that share a Redis, in real time. What they promise in detail is in `test_app_nodes.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from support.redis_server import need_redis, redis_server

from rawsse.relay.record import NODE_LOST
from rawsse.relay.redis_store import RedisStore
from rawsse.relay.users import UserLimits

from .nodes import Gate
from .stage import CHAT, Stage
from .test_app_nodes import ADA, ID, NAMED, USERS, end_of, speaks
from .test_app_users import LONG
from .test_record import Rows

need_redis()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with redis_server() as url:
        yield url


@asynccontextmanager
async def relays(url: str, count: int = 2, **options: Any) -> AsyncIterator[list[Stage]]:
    async with AsyncExitStack() as stack:
        stages = []
        for _ in range(count):
            store = RedisStore(url, lease_seconds=0.3, block_seconds=0.3)
            stack.push_async_callback(store.aclose)
            await store._redis.flushall()
            stages.append(Stage(store=Gate(store), guard=USERS, **options))
            stack.push_async_callback(stages[-1].relay.aclose)
        yield stages


def test_the_tokens_that_end_open_runs_are_those_of_all_nodes_together(url: str) -> None:
    async def story() -> None:
        async with relays(url, user_limits=UserLimits(tokens_per_day=30, ends_open_runs=True)) as (a, b):
            open_runs = [await speaks(stage) for stage in (a, b)]
            for stage in (a, b):
                reader, api = await speaks(stage)
                assert not any(each.is_ended for each, _ in open_runs)
                end_of(api)  # 17 tokens
                await reader.done()
            for each, _ in open_runs:
                async with asyncio.timeout(10):
                    assert "the tokens of the day are used up" in (await each.done()).body.decode()
            told = (await b.ask("GET", "/me", headers=ADA).done()).json
            assert told["left"] == {"tokens_per_day": 0}

    asyncio.run(story())


def test_a_run_that_is_lost_with_its_node_costs_what_it_has_said(url: str) -> None:
    async def story() -> None:
        async with relays(url, user_limits=UserLimits(tokens_per_day=1000), observers=[rows := Rows()]) as (a, b):
            reader = a.ask("POST", "/stream", CHAT, headers=ADA | NAMED)
            (await a.call()).send(*LONG)  # 10 tokens in, and as the quotas estimate 50 out
            elsewhere = b.ask("GET", f"/runs/{ID}", headers=ADA)
            while elsewhere.data.count('{"text":"word"}') < 50:
                await elsewhere.read()
            gate: Any = a.relay.home._store  # type: ignore[attr-defined]
            gate.is_down = True
            async with asyncio.timeout(10):
                await reader.done()
                await elsewhere.done()
            (record,) = rows.records
            assert (record.error, record.output_tokens) == (NODE_LOST, 50)
            told = (await b.ask("GET", "/me", headers=ADA).done()).json
            assert told["left"] == {"tokens_per_day": 1000 - 10 - 50}
            gate.is_down = False

    asyncio.run(story())
