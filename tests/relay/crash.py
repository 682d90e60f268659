"""The crash suite: three real nodes, a real Redis and a real nginx, and what happens to them.

    cd tests; PYTHONPATH=..:. python -m relay.crash --schedules 200 --seed 0

In each schedule clients begin 10 to 20 runs, and several read each, all through nginx: they come back with the last id that
they have seen, to whatever node nginx chooses. Meanwhile nodes are killed (SIGKILL) and started again, and frozen for longer
than their lease (SIGSTOP); Redis is killed and frozen; connections to it are cut, and held; runs are stopped. Then:

- every reader has seen the text from its beginning, without a gap or a repetition, and then one end mark. A frame without an
  id is part of the last frames of a node that has lost the run;
- a later reader sees all that any reader has seen with an id, and the same end;
- the API was called once at most for each run;
- every reader of a dead node's run was told within the lease, one block and a margin for the machine, counted from the end of
  what happened in between;
- each run has one row in the ledgers, and no run is open in the store. A `kill -9` may lose the rows of a batch;
- the log says the end of a run once. A node that has lost it to another adds that the other has ended it.

In a rolling restart (SIGTERM to one node after the other, under load) the nodes drain: every reader gets its whole answer, and
no run says `shutdown`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rawsse.relay.ledger import usage
from rawsse.relay.redis_store import RedisStore
from rawsse.relay.store import LEASE_SECONDS, Limits, StoreUnavailableError
from rawsse.server import Server

from .crash_client import LONGEST_WAIT, SILENCE, Plan, Reading, ask
from .crash_parts import (
    HEARTBEAT,
    PATIENCE,
    READ_TIMEOUT,
    Clock,
    Process,
    Proxy,
    Upstream,
    free_port,
    missing,
    nginx,
    node,
    redis_server,
)

NODES = 3
LEASE = 0.3
BLOCK = 0.5
MARGIN = 2.0
"""Seconds that the machine may need on top of what is promised."""

DRAIN = 15.0
"""Seconds that running answers get at SIGTERM: each takes 2 at most, and more where the machine has no time."""

BATCH = 0.05
"""Seconds for which the ledgers gather rows."""

_LAG = re.compile(r" lag ([0-9.]+)")
_ENDED = re.compile(r" run (\S+) \(\w+\) ended: ")
_COMPLAINTS = re.compile(
    r".*(?:Traceback|failed at its work|a run failed|a reader of a run failed|never retrieved|never awaited).*"
)


class Death(NamedTuple):
    """A node that was killed, or frozen for longer than its lease, and the readers of its runs."""

    time: float
    readings: list[Reading]
    bound: float
    own: Disturbance


class Disturbance:
    """A fault, from its beginning to its end."""

    def __init__(self, begin: float) -> None:
        self.begin, self.end = begin, float("inf")


class World:
    """The cluster, and what is known of it."""

    def __init__(self, folder: Path, lease: float = LEASE, block: float = BLOCK) -> None:
        self.folder, self.lease, self.block = folder, lease, block
        self.chance = random.Random(0)
        self.clock = Clock()
        self.upstream = Upstream()
        self.port = 0
        self.nodes: list[Process] = []
        self.proxies: list[Proxy] = []
        self.redis: Process
        self.store: RedisStore
        self.known: set[str] = set()
        self.readings: list[Reading] = []
        self.deaths: list[Death] = []
        self.disturbances: list[Disturbance] = []
        self.kills: list[float] = []
        self.complaints: list[str] = []
        self.figures: Counter[str] = Counter()
        self.told: list[float] = []
        self.lag = 0.0
        """Seconds that the nodes and this process had to wait for the CPU in this story."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost = 0
        self._counted: Counter[str] = Counter()  # lines in the log
        self._told: set[str] = set()  # complaints that are not repeated

    def complain(self, what: str) -> None:
        self.complaints.append(f"{self.clock():.2f} {what}")

    @asynccontextmanager
    async def living(self) -> AsyncIterator[World]:
        async with AsyncExitStack() as stack:
            self.redis, place = redis_server(self.folder)
            await self._run(stack, self.redis)
            self.store = RedisStore(f"unix://{place}", lease_seconds=self.lease, timeout_seconds=2)
            stack.push_async_callback(self.store.aclose)
            ports = [free_port(stack) for _ in range(NODES)]
            for number, port in enumerate(ports):
                proxy = Proxy(place)
                redis = await stack.enter_async_context(proxy.listening())
                api = await stack.enter_async_context(Server(self.upstream.app(number), port=0))
                options = {
                    "port": port,
                    "base_url": api.base_url,
                    "redis": f"redis://127.0.0.1:{redis}/0",
                    "batch": BATCH,
                }
                options |= {"lease": self.lease, "block": self.block, "heartbeat": HEARTBEAT, "drain": DRAIN}
                self.proxies.append(proxy)
                self.nodes.append(node(self.folder, f"node-{number}", **options))
            await asyncio.gather(*(self._run(stack, each) for each in self.nodes))
            watch = asyncio.create_task(self._watch_lag())
            stack.callback(watch.cancel)
            self.port = free_port(stack)
            await self._run(stack, nginx(self.folder, self.port, ports))
            yield self

    async def _run(self, stack: AsyncExitStack, process: Process) -> None:
        stack.push_async_callback(process.end)
        await process.start()

    async def _watch_lag(self) -> None:
        while True:
            due = self.clock() + 0.05
            await asyncio.sleep(0.05)
            if (late := self.clock() - due) > 0.05:
                self.lag += late

    # Clients ------------------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def begin(self, plan: Plan, readers: int) -> None:
        """A client that begins a run, and others that read it."""
        for number in range(readers):
            reading = Reading(self, plan, posts=number == 0, is_slow=number > 0 and self.chance.random() < 0.3)
            self.readings.append(reading)
            self.spawn(reading.follow())
            await asyncio.sleep(self.chance.uniform(0, 0.05))

    async def stop(self) -> None:
        """Stop a run through a node that nginx chooses."""
        open_ones = [each.plan for each in self.readings if each.ended_at is None and each.plan.id in self.known]
        if not open_ones:
            return
        plan = self.chance.choice(open_ones)
        self.figures["stops"] += 1
        with contextlib.suppress(OSError, StoreUnavailableError):
            async with asyncio.timeout(SILENCE), ask(self.port, "DELETE", f"/runs/{plan.id}") as reply:
                self.figures[f"stops answered {reply.status}"] += 1
                if reply.status == 204:
                    stored = await self.store.find("", plan.id)
                    if stored is None or not stored.is_ended:
                        self.complain(f"{plan.id}: its stop was answered, and it has not ended")
                elif reply.status not in (502, 503, 504):
                    self.complain(f"{plan.id}: its stop was answered {reply.status}")

    # Faults -------------------------------------------------------------------------------------------------------

    async def happen(self) -> None:
        """One of all that may happen. What has to be set right again is, later."""
        often, seldom = (
            (self._kill, self._freeze, self._hold, self.stop),
            (self._restart_redis, self._pause_redis, self._cut),
        )
        what = self.chance.choice((*often, *often, *seldom))
        self.spawn(what())

    def _healthy(self) -> list[int]:
        found = [number for number, each in enumerate(self.nodes) if each.is_up and not each.is_frozen]
        return found if len(found) > 1 else []

    def _disturb(self, name: str) -> Disturbance:
        self.figures[name] += 1
        self.disturbances.append(Disturbance(self.clock()))
        return self.disturbances[-1]

    def _death(self, number: int, own: Disturbance, more: float = 0.0) -> None:
        runs = {run for each, run in self.upstream.open if each == number}
        readings = [
            each for each in self.readings if each.plan.id in runs and each.ended_at is None and not each.is_slow
        ]
        self.deaths.append(Death(self.clock(), readings, self.lease + self.block + LONGEST_WAIT + more, own))

    async def _kill(self) -> None:
        if not (healthy := self._healthy()):
            return
        number = self.chance.choice(healthy)
        own = self._disturb("kills")
        self._death(number, own)
        self.kills.append(own.begin)
        await self.nodes[number].end()
        own.end = self.clock()
        await asyncio.sleep(self.chance.uniform(0.1, 1))
        await self.nodes[number].start()

    async def _freeze(self) -> None:
        if not (healthy := self._healthy()):
            return
        victim = self.nodes[number := self.chance.choice(healthy)]
        own = self._disturb("zombies")
        self._death(number, own, more=READ_TIMEOUT)
        victim.freeze()
        await asyncio.sleep(self.chance.uniform(1.5 * self.lease, 6 * self.lease))
        victim.thaw()
        own.end = self.clock()

    async def _restart_redis(self) -> None:
        if not self.redis.is_up or self.redis.is_frozen:
            return
        own = self._disturb("Redis restarts")
        await self.redis.end()
        await asyncio.sleep(self.chance.uniform(0, 2 * self.lease))
        await self.redis.start()
        own.end = self.clock()

    async def _pause_redis(self) -> None:
        if not self.redis.is_up or self.redis.is_frozen:
            return
        own = self._disturb("Redis pauses")
        self.redis.freeze()
        await asyncio.sleep(self.chance.uniform(0.2 * self.lease, 3 * self.lease))
        self.redis.thaw()
        own.end = self.clock()

    async def _cut(self) -> None:
        own = self._disturb("cuts")
        for proxy in self.chance.sample(self.proxies, self.chance.randint(1, NODES)):
            proxy.cut()
        own.end = self.clock()

    async def _hold(self) -> None:
        own = self._disturb("holds")
        proxy = self.chance.choice(self.proxies)
        proxy.hold(answers_only=self.chance.random() < 0.5)
        await asyncio.sleep(self.chance.uniform(0.2 * self.lease, 3 * self.lease))
        if self.chance.random() < 0.5:
            proxy.cut()
        proxy.release()
        own.end = self.clock()

    # Invariants ---------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until all that was begun is over."""
        try:
            async with asyncio.timeout(2 * PATIENCE):
                while self._tasks:
                    await asyncio.wait(set(self._tasks))
        except TimeoutError:
            for task in self._tasks:
                task.cancel()
            for each in self.readings:
                if each.ended_at is None:
                    self.complain(
                        f"{each.plan.id}: a reader was not told: {each.last}, {each.tail}, {each.connections} connections"
                    )

    async def check(self, margin: float) -> None:
        """All that must be so when everything is over."""
        if not self.readings:
            return
        wholes = {each.plan.id: Reading(self, each.plan) for each in self.readings}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(each.follow() for each in wholes.values()))
        for each in self.readings:
            each.compare(wholes[each.plan.id])
        for id, whole in wholes.items():
            if [data for _, data in whole.tail].count("[DONE]") != 1 or whole.was_told_alone:
                self.complain(f"{id}: the log ends with {whole.tail}")
            if len(self.upstream.calls[id]) > 1:
                self.complain(f"{id}: the API was called by {self.upstream.calls[id]}")
        self._look_at_nodes()
        for death in self.deaths:
            self._check_death(death, margin)
        await self._eventually(self._open_runs, margin)
        await self._eventually(lambda: asyncio.to_thread(self._rows_missing, list(wholes)), margin)
        self._look_at_nodes()
        self.complaints += [f"{id} ended {count} times" for id, count in self._counted.items() if count > 1]
        self._counted.clear()
        self.figures["rows lost by kills"] += self._lost
        self.figures["runs"] += len(wholes)
        self.figures["readers"] += len(self.readings)
        self.figures["reconnects"] += sum(each.connections - 1 for each in self.readings)
        self.figures["told without an id"] += sum(each.was_told_alone for each in self.readings)
        self.figures["frames"] += sum(each.last for each in self.readings)
        self.figures["answers cut"] += sum(each.text != each.plan.text(each.plan.pieces) for each in wholes.values())
        self.readings, self.deaths, self.disturbances, self.kills = [], [], [], []

    def _check_death(self, death: Death, margin: float) -> None:
        bound = death.bound + margin + self.lag
        limit = began = death.time
        for each in sorted(self.disturbances, key=lambda each: each.begin):
            if each is not death.own and each.begin < limit + bound and each.end > death.time - self.lease:
                limit = max(limit, each.end)
        for reading in death.readings:
            ended = reading.ended_at or float("inf")
            if ended > limit + bound:
                self.complain(f"{reading.plan.id}: a reader was told {ended - began:.2f} s after the death of its node")
            before = [each.end for each in self.disturbances if each is not death.own and began < each.end < ended]
            self.told.append(ended - max([began, *before]))

    async def _eventually(self, problems: Callable[[], Awaitable[list[str]]], margin: float) -> None:
        until = self.clock() + self.lease + self.block + margin + self.lag
        while found := [each for each in await problems() if each not in self._told]:
            if self.clock() > until:
                self.complaints += found
                self._told |= set(found)
                return
            await asyncio.sleep(0.1)

    async def _open_runs(self) -> list[str]:
        """Runs that are open in the store, by its keys: a run that no living node has would not be listed."""
        found = []
        async for name in self.store._redis.scan_iter("rs:node:*:runs"):
            found += [f"{each!r} is open at {name!r}" for each in await self.store._redis.smembers(name)]
        for id in {each.plan.id for each in self.readings}:
            stored = await self.store.find("", id)
            if stored is None or not stored.is_ended:
                found.append(f"{id} has not ended: {stored}")
        is_open = (await self.store.admit([Limits("")], counts=False)).counts[0].open > 0
        return found + (["the quotas count open runs"] if is_open else [])

    def ledgers(self) -> list[Path]:
        return [file for number in range(NODES) if (file := self.folder / f"node-{number}.db").exists()]

    def _rows_missing(self, ids: Sequence[str]) -> list[str]:
        """Runs without a row that has an ending, or with the rows of two."""
        times: defaultdict[str, set[float]] = defaultdict(set)
        ended: set[str] = set()
        for file in self.ledgers():
            with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)) as db:
                for run, began, ending in db.execute("SELECT run, time, ending FROM runs"):
                    times[run].add(began)
                    if ending is not None:
                        ended.add(run)
        found = [f"{id} has {len(times[id])} rows" for id in ids if len(times[id]) > 1]
        over = {each.plan.id: each.ended_at or 0 for each in self.readings}
        lost = [id for id in ids if id not in ended and any(-1 < kill - over[id] < 1.5 for kill in self.kills)]
        self._lost = len(lost)
        return found + [f"{id} has no row" for id in ids if id not in ended and id not in lost]

    def _look_at_nodes(self) -> None:
        for each in self.nodes:
            if not each.is_alive:
                self.complain(f"{each.log.name}: the node has ended by itself")
            output = each.new_output()
            self.lag += sum(map(float, _LAG.findall(output)))
            self._counted.update(_ENDED.findall(output))
            self.complaints += [f"{each.log.name}: {line}" for line in _COMPLAINTS.findall(output)]


# The stories ---------------------------------------------------------------------------------------------------------


Story = Callable[[World, int, float], Coroutine[Any, Any, None]]


async def schedule(world: World, seed: int, margin: float = MARGIN) -> None:
    """One schedule of what happens."""
    chance = world.chance = random.Random(seed)
    world.lag = 0.0

    async def ask_all() -> None:
        for number in range(chance.randint(10, 20)):
            size = 3000 if chance.random() < 0.15 else 0
            plan = Plan(f"crash-{seed:06d}-{number:04d}", chance.randint(5, 40), chance.uniform(0.01, 0.1), size)
            await world.begin(plan, chance.randint(2, 3))
            await asyncio.sleep(chance.uniform(0, 0.15))

    world.spawn(ask_all())
    for _ in range(chance.randint(3, 9)):
        await asyncio.sleep(chance.uniform(0.05, 0.7))
        await world.happen()
    await world.settle()
    await world.check(margin)


async def rolling_restart(world: World, seed: int, margin: float = MARGIN) -> None:
    """SIGTERM to one node after the other, each of which is started again, while runs are begun and read."""
    chance = world.chance = random.Random(seed)
    world.lag = 0.0
    is_over = asyncio.Event()

    async def ask_all() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            plan = Plan(f"rolling-{seed:06d}-{number:04d}", chance.randint(10, 40), chance.uniform(0.01, 0.05))
            await world.begin(plan, 2)
            await asyncio.sleep(chance.uniform(0.02, 0.1))

    world.spawn(ask_all())
    for number, each in enumerate(world.nodes):
        await asyncio.sleep(1)
        world.figures["runs of a node at its restart"] += sum(node == number for node, _ in world.upstream.open)
        status = await each.end(signal.SIGTERM)
        if status != 0:
            world.complain(f"node {number} left with {status} at SIGTERM")
        world.figures["rolling restarts of a node"] += 1
        await each.start()
    await asyncio.sleep(0.5)
    is_over.set()
    await world.settle()
    for reading in world.readings:
        if reading.was_told_alone or reading.text != reading.plan.text(reading.plan.pieces):
            world.complain(f"{reading.plan.id}: a reader was told {reading.tail} in a rolling restart")
    await world.check(margin)


@asynccontextmanager
async def cluster(lease: float = LEASE, block: float = BLOCK) -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="rawsse-crash-") as folder:
        async with World(Path(folder), lease, block).living() as world:
            yield world


def spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    return f"{len(seconds)}, p50 {statistics.median(seconds):.2f} s, max {max(seconds):.2f} s"


def report(world: World) -> Iterable[str]:
    """The figures."""
    yield ", ".join(f"{name} {count}" for name, count in world.figures.items())
    yield f"readers of dead nodes, until they were told, counted from the end of what happened in between: {spread(world.told)}"
    rows = usage(world.ledgers(), by=("model",))
    yield f"rows over all ledgers: {sum(row['runs'] for row in rows)}"


async def tell(world: World, story: Story, seeds: Iterable[int], margin: float) -> int:
    """Run a story with each seed, and print what was shown. How many problems there were."""
    for seed in seeds:
        before, told = time.monotonic(), len(world.complaints)
        await story(world, seed, margin)
        problems, seconds = world.complaints[told:], time.monotonic() - before
        print(
            f"{story.__name__} {seed}: {seconds:.1f} s, waited {world.lag:.1f} s for the CPU, {len(problems)} problems",
            flush=True,
        )
        for each in problems[:20]:
            print(f"    {each}", flush=True)
    print("\n".join(report(world)), f"{len(world.complaints)} problems", sep="\n", flush=True)
    return len(world.complaints)


async def main(first: int, schedules: int, rolling: int, margin: float) -> int:
    problems = 0
    if schedules:
        async with cluster() as world:
            problems += await tell(world, schedule, range(first, first + schedules), margin)
    if rolling:  # with the lease that nodes have by themselves: nothing dies in these
        async with cluster(LEASE_SECONDS) as world:
            problems += await tell(world, rolling_restart, range(first, first + rolling), margin)
    return 1 if problems else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Real nodes, a real Redis and a real nginx, and what happens to them.")
    parser.add_argument("--schedules", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first schedule")
    parser.add_argument("--rolling", type=int, default=1, help="how many rolling restarts come after the schedules")
    parser.add_argument("--margin", type=float, default=MARGIN, help="seconds that the machine may need")
    arguments = parser.parse_args()
    if (why := missing()) is not None:
        sys.exit(why)
    sys.exit(asyncio.run(main(arguments.seed, arguments.schedules, arguments.rolling, arguments.margin)))
