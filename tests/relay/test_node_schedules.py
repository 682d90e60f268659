"""rawsse.relay.node: random schedules of what happens to nodes and to their store, in virtual time.

Three nodes begin runs, and readers follow them at whatever node answers. Nodes are killed, sleep longer than their lease, and
lose the store for a while; answers of the store get lost; runs are stopped at any node. Whatever happens:

- every reader sees the frames of a run in their order, without a gap or a repetition, and then one last frame;
- a later reader sees all that any reader has seen with an id;
- no run stays open;
- of each run one node at most tells the end that the store has, and its row is not told by two.

`RAWSSE_EVERY_CUT=1` runs 2,000 of them.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import defaultdict
from functools import partial
from typing import Any

import pytest
from support.clock import run
from support.sampling import one_in
from support.streams import STOP, block_start, block_stop, end, start, text_delta

from rawsse.relay.dialects import Answer
from rawsse.relay.record import LEASE_LOST

from .nodes import BLOCK, LEASE, Host, cluster, until
from .outlets import TEXT_BLOCK, FakeOutlet, join
from .stage import Api

SCHEDULES = 2000 // one_in(100)
PIECES = 12

_FRAME = re.compile(rb"(?:id: \w+-(\d+)\n)?data: (.*)\n\n")


class Reading:
    """One client of one run: it comes back with the last id it has seen until it has seen the last frame."""

    def __init__(self, world: World, id: str) -> None:
        self._world, self.id = world, id
        self.frames: list[bytes] = []  # with an id, in their order
        self.ends = 0
        self.task = asyncio.ensure_future(self._follow())

    async def _follow(self) -> None:
        while not self.ends:
            host = self._world.any_host()
            try:
                feed: Any = await host.node.find("ada", self.id, [str(len(self.frames))])
                if feed is None:
                    await asyncio.sleep(0.1)
                    continue
                outlet = FakeOutlet(is_stalled=self._world.chance.random() < 0.1)
                assert feed.last >= len(self.frames), (self.id, feed.last, self.frames)
                join(feed, len(self.frames), outlet=outlet)
            except Answer:
                await asyncio.sleep(0.1)
                continue
            self._world.outlets[host].add(outlet)
            if outlet._is_stalled:
                await asyncio.sleep(self._world.chance.uniform(0, 2))
                outlet.go_on()
            while not outlet._is_over:
                await outlet.read()
            self._take(outlet.body)

    def _take(self, body: bytes) -> None:
        for number, data in _FRAME.findall(body):
            if number:
                assert int(number) == len(self.frames) + 1, (self.id, number, self.frames)
                self.frames.append(data)
            self.ends += data == b"[DONE]"
        assert self.ends <= 1


class World:
    """The nodes that live, and what has been begun."""

    def __init__(self, hosts: list[Host], seed: int) -> None:
        self.chance = random.Random(seed)
        self.hosts = hosts
        self.store: Any = hosts[0].gate._store
        self.outlets: defaultdict[Host, set[FakeOutlet]] = defaultdict(set)
        self.readings: list[Reading] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.killed: list[Host] = []

    def any_host(self) -> Host:
        return self.chance.choice(self.hosts)

    async def begin(self, number: int) -> None:
        host = self.any_host()
        id = f"run-{number}"
        try:
            await host.own(id)
        except Answer:
            return
        self.readings += [Reading(self, id) for _ in range(2)]
        api = await host.call()
        self.tasks.append(asyncio.ensure_future(self._speak(api)))

    async def _speak(self, api: Api) -> None:
        chance = random.Random(self.chance.random())
        api.send(start(), block_start(0, TEXT_BLOCK))
        for number in range(PIECES):
            await asyncio.sleep(chance.choice((0, 0.01, 0.3)))
            api.send(text_delta(0, f"{number}"))
        if chance.random() < 0.8:
            api.send(block_stop(0), end(), STOP)
        else:
            api.close()

    async def happen(self) -> None:
        host = self.any_host()
        what = self.chance.choice(("kill", "sleep", "lose the store", "lose answers", "stop", "wait", "wait", "wait"))
        if what == "kill" and len(self.hosts) > 1:
            self.hosts.remove(host)
            self.killed.append(host)
            for outlet in self.outlets[host]:
                if not outlet._is_over:
                    outlet.leave()
            await host.kill()
        elif what == "sleep":
            host.gate.opened.clear()
            self._later(self.chance.uniform(0.1, 3 * LEASE), host.gate.opened.set)
        elif what == "lose the store":
            host.gate.is_down = True
            self._later(self.chance.uniform(0.1, 2 * LEASE), lambda: setattr(host.gate, "is_down", False))
        elif what == "lose answers":
            host.gate.answers_are_lost = True
            self._later(self.chance.uniform(0.1, LEASE), lambda: setattr(host.gate, "answers_are_lost", False))
        elif what == "stop" and self.readings:
            stored = await self.store.find("ada", self.chance.choice(self.readings).id)
            if stored is not None:
                await self.store.stop(stored)
        await asyncio.sleep(self.chance.choice((0, 0.01, 0.5)))

    async def has_ended(self, id: str) -> bool:
        return bool((await self.store.find("ada", id)).is_ended)

    async def is_done(self) -> bool:
        busy = any(host.node._owned or host.node._orphans for host in self.hosts)
        return not (busy or await self.store.open_runs())

    def _later(self, seconds: float, do: Any) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            do()

        self.tasks.append(asyncio.ensure_future(wait()))


async def live(seed: int) -> None:
    async with cluster(3) as hosts:
        everyone = list(hosts)
        world = World(hosts, seed)
        for number in range(world.chance.randint(1, 5)):
            await world.begin(number)
            for _ in range(world.chance.randint(0, 4)):
                await world.happen()
        await asyncio.gather(*world.tasks)
        for reading in world.readings:
            async with asyncio.timeout(LEASE + 2 * BLOCK + 10):
                await reading.task
        for reading in world.readings:
            async with asyncio.timeout(LEASE + BLOCK):  # a node that lost the store told its readers first
                await until(partial(world.has_ended, reading.id))
            stored = await world.store.find("ada", reading.id)
            log = [frame for entry in await world.store.entries(stored) for frame in _FRAME.findall(entry.wire)]
            assert [data for _, data in log][: len(reading.frames)] == reading.frames
            assert [data for _, data in log].count(b"[DONE]") == 1
            texts = [data for _, data in log if data.startswith(b'{"text"')]
            assert texts == [b'{"text":"%d"}' % number for number in range(len(texts))]
        async with asyncio.timeout(3 * LEASE):  # also of those whose beginning, or taker, got no answer
            await until(world.is_done)
        for reading in world.readings:
            # A run is counted once: by its owner, or by the node that took it over. A node that is killed when the store has
            # the end, and before it knows, leaves the row that it wrote at the beginning.
            rows = [record for host in everyone for record in host.kept.records if record.run == reading.id]
            assert len({(record.time, record.run) for record in rows}) == 1 or (not rows and world.killed)
            counted = sum(record.error != LEASE_LOST for record in rows)
            assert counted == 1 or (counted == 0 and world.killed)


@pytest.mark.parametrize("first", range(0, SCHEDULES, 20))
def test_whatever_happens_readers_see_the_log(first: int) -> None:
    for seed in range(first, first + 20):
        try:
            run(live(seed))
        except BaseException as exc:
            exc.add_note(f"seed {seed}")
            raise
