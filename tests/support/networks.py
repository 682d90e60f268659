"""One test on every network: event loops in virtual time, plain and with eager tasks; uvloop; blocking sockets.

    @every_network
    def test_bytes_go_out_and_come_back(on: Drive) -> None:
        async def story(network: Network, origin: Origin) -> bytes:
            async with connected(network, Route(origin)) as link:
                await link.write(b"hello", network.now() + 1)
                return await link.read(network.now() + 1)

        assert on(story, serving(shout)) == b"HELLO"

A story awaits nothing but links and signals. With an event loop it runs beside its server, in virtual time, and must leave
nothing behind; with blocking sockets the server runs in another thread, and seconds are real: a test waits for `SOON`, and
what must not take long is asked to take less than `LONG`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

import pytest

from rawsse.client.blocking.network import SocketNetwork
from rawsse.client.network.asyncio_network import AsyncioNetwork
from rawsse.client.network.connect import Network
from rawsse.client.network.link import Link, drive
from rawsse.client.network.route import Route
from rawsse.client.network.tls import TLSContext
from support.background import Background
from support.clock import VirtualClockLoop, run
from support.sockets import trusting

__all__ = [
    "LONG",
    "SOON",
    "Drive",
    "connected",
    "every_event_loop",
    "every_network",
    "every_network_in_real_time",
    "later",
    "passed",
]

SOON = 0.015625
"""Seconds after which a peer or another thread does something: by then the story waits. If not, the test still holds."""

LONG = 1.0
"""Seconds that a wait never takes which is ended by something else than its deadline."""

T = TypeVar("T")
P = TypeVar("P")


class Drive(Protocol):
    """Runs a story on a network, beside its peer; gives what it gives."""

    def __call__(
        self, story: Callable[[Network, P], Coroutine[object, None, T]], peer: AbstractAsyncContextManager[P]
    ) -> T: ...


async def _beside(story: Callable[[Network, P], Coroutine[object, None, T]], peer: AbstractAsyncContextManager[P]) -> T:
    async with peer as there:
        return await story(AsyncioNetwork(), there)


def _on_asyncio(story: Callable[[Network, P], Coroutine[object, None, T]], peer: AbstractAsyncContextManager[P]) -> T:
    return run(_beside(story, peer))


def _in_real_time(story: Callable[[Network, P], Coroutine[object, None, T]], peer: AbstractAsyncContextManager[P]) -> T:
    return asyncio.run(_beside(story, peer))


def _with_eager_tasks(
    story: Callable[[Network, P], Coroutine[object, None, T]], peer: AbstractAsyncContextManager[P]
) -> T:
    async def main() -> T:
        asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - 3.12
        return await _beside(story, peer)

    return run(main())


def _on_uvloop(story: Callable[[Network, P], Coroutine[object, None, T]], peer: AbstractAsyncContextManager[P]) -> T:
    uvloop = pytest.importorskip("uvloop", reason="another event loop: the extra `speed`")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_beside(story, peer))


def _on_sockets(story: Callable[[Network, P], Coroutine[object, None, T]], peer: AbstractAsyncContextManager[P]) -> T:
    with Background() as background:
        there = background.enter(peer)
        return drive(story(SocketNetwork(), there))


_EVENT_LOOPS = [
    pytest.param(_on_asyncio, id="asyncio"),
    *([pytest.param(_with_eager_tasks, id="eager tasks")] if sys.version_info >= (3, 12) else []),
    pytest.param(_on_uvloop, id="uvloop", marks=pytest.mark.real),
]
every_event_loop = pytest.mark.parametrize("on", _EVENT_LOOPS)
_SOCKETS = pytest.param(_on_sockets, id="sockets")
every_network = pytest.mark.parametrize("on", [*_EVENT_LOOPS, _SOCKETS])
every_network_in_real_time = pytest.mark.parametrize(
    "on", [pytest.param(_in_real_time, id="asyncio"), _EVENT_LOOPS[-1], _SOCKETS]
)
"""For stories that wait for threads: virtual time knows nothing of those."""


@contextlib.asynccontextmanager
async def connected(
    network: Network, route: Route, tls: TLSContext | None = None, deadline: float = math.inf
) -> AsyncIterator[Link]:
    """A connected link, aborted at the end, as it must be also if it does not connect."""
    link = network.link()
    try:
        yield await link.connect(route, tls or trusting(), deadline)
    finally:
        link.abort()


def passed(network: Network, since: float, seconds: float) -> bool:
    """So many seconds have passed: exactly, in virtual time; on a real clock they, and less than `LONG` more."""
    more = network.now() - since - seconds
    is_virtual = isinstance(network, AsyncioNetwork) and isinstance(network.loop, VirtualClockLoop)
    return abs(more) < 1e-6 if is_virtual else -0.002 < more < LONG  # uvloop's timers are a millisecond early


def later(network: Network, callback: Callable[[], object], seconds: float = SOON) -> None:
    """Call `callback` when the story waits: in the loop, or from another thread."""
    if network.runs_coroutines:
        asyncio.get_running_loop().call_later(seconds, callback)
    else:
        threading.Timer(seconds, callback).start()
