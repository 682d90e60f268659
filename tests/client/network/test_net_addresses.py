"""rawsse.client.network.net: finding an address that answers, and leaving nothing when that is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.clock import run, ticks
from support.sockets import serving, shout, trusting

from rawsse.client.network import addresses
from rawsse.client.network.net import TLSContext, connect
from rawsse.client.network.route import Origin, Route
from rawsse.errors import APIConnectionError

# --- Several addresses ---------------------------------------------------------------------------------------------

BLACK_HOLE = ("192.0.2.1", 9)  # RFC 5737: for documentation; nothing is ever sent there, see `network`
REFUSED = ("192.0.2.2", 9)
SLOW = ("192.0.2.3", 9)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a name have these addresses. Three of them do not exist: one never answers, one refuses, one
    takes a second."""
    destination: list[Any] = []
    original = asyncio.SelectorEventLoop.sock_connect

    async def sock_connect(loop: asyncio.SelectorEventLoop, sock: socket.socket, address: Any) -> None:
        if address == BLACK_HOLE:
            await asyncio.Event().wait()
        if address == REFUSED:
            raise ConnectionRefusedError(111, "refused")
        if address == SLOW:
            await asyncio.sleep(1)
        await original(loop, sock, destination[0] if address == SLOW else address)

    def set_up(*addresses: tuple[str, int], listener: socket.socket | None = None) -> None:
        destination.append(listener and listener.getsockname())
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", sock_connect)
    return set_up


async def time_to_connect() -> float:
    loop = asyncio.get_running_loop()
    before = loop.time()
    stream = await connect(Route(Origin("http", "name.example", 80)), TLSContext())
    stream.abort()
    return loop.time() - before


def test_an_address_that_never_answers_costs_a_quarter_of_a_second(network: Any, listener: socket.socket) -> None:
    network(BLACK_HOLE, listener.getsockname())
    assert run(time_to_connect()) == 0.25


def test_an_address_that_refuses_costs_nothing(network: Any, listener: socket.socket) -> None:
    network(REFUSED, REFUSED, listener.getsockname())
    assert run(time_to_connect()) == 0


def test_a_slow_address_is_waited_for_while_others_refuse(network: Any, listener: socket.socket) -> None:
    network(SLOW, REFUSED, REFUSED, listener=listener)
    assert run(time_to_connect()) == 1


def test_where_every_address_refuses_each_is_told(network: Any) -> None:
    network(REFUSED, REFUSED)
    with pytest.raises(APIConnectionError, match=r"cannot connect to http://name\.example: .*refused; .*refused"):
        run(time_to_connect())


def test_two_connections_at_once_leave_one(network: Any, listener: socket.socket) -> None:
    network(BLACK_HOLE, listener.getsockname(), listener.getsockname())
    assert run(time_to_connect()) == 0.25


def test_the_families_of_addresses_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    found = [(family, 1, 6, "", name) for family, name in [(six, "a"), (six, "b"), (four, "c"), (six, "d")]]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert [name for _, name in run(addresses.look_up(Origin("http", "x", 1)))] == ["a", "c", "b", "d"]


def test_a_name_is_looked_up_in_a_thread(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    host, port = listener.getsockname()

    async def story() -> None:
        stream = await connect(Route(Origin("http", "localhost", port)), TLSContext())
        stream.abort()

    assert host == "127.0.0.1"
    asyncio.run(story())  # in real time: a virtual clock does not know when the thread will be through


# --- Cancelled -----------------------------------------------------------------------------------------------------


async def cancel_after(steps: int, origin: Origin, tls: TLSContext) -> bool:
    """Cancel a connect after so many steps of the loop; whether it was through by then. `run` sees what it leaves."""
    task = asyncio.create_task(connect(Route(origin), tls))
    await ticks(steps)
    finished = task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        (await task).abort()
    return finished


def test_a_connect_that_is_cancelled_at_any_step_leaves_nothing(listener: socket.socket) -> None:
    origin = Origin("http", *listener.getsockname())
    finished = [run(cancel_after(steps, origin, TLSContext())) for steps in range(20)]
    assert finished == sorted(finished)
    assert set(finished) == {False, True}


def test_a_handshake_that_is_cancelled_at_any_step_leaves_nothing() -> None:
    async def story(steps: int) -> bool:
        async with serving(shout, tls=True) as origin:
            return await cancel_after(steps, origin, trusting())

    steps = next(steps for steps in itertools.count() if run(story(steps)))
    assert steps > 5


def test_a_race_of_addresses_that_is_cancelled_at_any_step_leaves_nothing(
    network: Any, listener: socket.socket
) -> None:
    network(REFUSED, listener.getsockname(), listener.getsockname())
    origin = Origin("http", "name.example", 80)
    for steps in range(20):
        run(cancel_after(steps, origin, TLSContext()))


def test_a_name_is_looked_up_without_a_thread_when_none_can_be_started_any_more(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    def no_thread(*_: object, **__: object) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    async def story() -> tuple[Any, ...]:
        port = listener.getsockname()[1]
        stream: Any = await connect(Route(Origin("http", "localhost", port)), TLSContext())
        peer: tuple[Any, ...] = stream._transport.get_extra_info("peername")
        stream.abort()
        return peer

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert run(story()) == listener.getsockname()


def test_a_lookup_that_hangs_does_not_hold_up_the_end_of_the_program() -> None:
    program = """
import asyncio, socket, threading
asked, never = threading.Event(), threading.Event()
def hang(host, port, *args, flags=0, **more):
    if flags:
        raise socket.gaierror
    asked.set()
    never.wait()
socket.getaddrinfo = hang
from rawsse.client.network import Origin, Route, TLSContext, connect
async def main():
    task = asyncio.create_task(connect(Route(Origin("http", "slow.example", 80)), TLSContext()))
    while not asked.is_set():
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    print(task.cancelled())
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)
