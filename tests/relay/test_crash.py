"""The crash suite, in short: real nodes, a real Redis and a real nginx. The long form is `python -m relay.crash`."""

from __future__ import annotations

import asyncio

import pytest

from .crash_parts import missing

if (why := missing()) is not None:
    pytest.skip(why, allow_module_level=True)

from .crash import Story, cluster, report, rolling_restart, schedule

pytestmark = pytest.mark.real

MARGIN = 10.0
"""Seconds: these run beside other tests."""


@pytest.mark.parametrize(
    ("story", "lease"), [(schedule, 0.3), (rolling_restart, 3.0)], ids=["crashes", "rolling restart"]
)
def test_readers_lose_nothing(story: Story, lease: float) -> None:
    async def main() -> None:
        async with cluster(lease) as world:
            await story(world, 1, MARGIN)
            print(*report(world), sep="\n")
            assert world.complaints == []

    asyncio.run(main())
