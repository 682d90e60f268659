"""rawsse.relay.store: the store in memory does what every store must."""

from __future__ import annotations

import asyncio

import pytest

from rawsse.relay.store import MemoryStore

from .store_conformance import CASES, Case, Cluster


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_store_in_memory(case: Case) -> None:
    now = [1_800_000_000.0]

    async def pass_time(seconds: float) -> None:
        now[0] += seconds + 0.001

    asyncio.run(case(Cluster(MemoryStore(lambda: now[0]), pass_time)))
