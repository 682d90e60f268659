"""rawsse.client.network.connect: from a name to addresses, the race between them on every network, and the socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import itertools
import math
import socket
import threading
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.clock import run, ticks
from support.command import Command
from support.networks import SOON, Drive, connected, every_network, every_network_in_real_time, passed
from support.sockets import serving, shout, silent_listener, trusting

from rawsse.client.blocking.network import SocketNetwork
from rawsse.client.network import connect
from rawsse.client.network.asyncio_network import AsyncioNetwork
from rawsse.client.network.connect import Network, look_up, new_socket
from rawsse.client.network.link import Expired, drive
from rawsse.client.network.route import Origin, Route
from rawsse.errors import APIConnectionError

NAME = Origin("http", "name.example", 80)
signal = SocketNetwork().signal

# --- Looking up ----------------------------------------------------------------------------------------------------


def resolve(monkeypatch: pytest.MonkeyPatch, *found: tuple[int, Any]) -> None:
    """Every name has these addresses."""
    answer = [(family, socket.SOCK_STREAM, 6, "", address) for family, address in found]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)


def test_the_families_of_addresses_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    resolve(monkeypatch, (six, "a"), (six, "b"), (four, "c"), (six, "d"))
    assert [name for _, name in drive(look_up(signal(), NAME))] == ["a", "c", "b", "d"]
    resolve(monkeypatch, (four, "a"), (six, "b"), (six, "c"))
    assert [name for _, name in drive(look_up(signal(), NAME))] == ["a", "b", "c"]


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_an_address_is_not_looked_up(host: str, family: socket.AddressFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", None)
    ((found, address),) = drive(look_up(signal(), Origin("http", host, 80)))
    assert (found, address[:2]) == (family, (host, 80))


def test_a_name_is_looked_up_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, original = [], socket.getaddrinfo

    def note(*arguments: Any, **options: Any) -> Any:
        threads.append(threading.current_thread())
        return original(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", note)
    assert drive(look_up(signal(), Origin("http", "localhost", 80)))
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


@every_network_in_real_time
def test_a_name_is_found_also_where_the_system_gives_no_thread(on: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(thread: threading.Thread) -> None:
        if thread.name == "rawsse call":
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        start(thread)

    async def story(network: Network, origin: Origin) -> bytes:
        async with connected(network, Route(origin._replace(host="localhost"))) as link:
            await link.write(b"x", math.inf)
            return await link.read(math.inf)

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert on(story, serving(shout)) == b"X"


def test_an_unknown_name_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(OSError, match="not known") as caught:
        drive(look_up(signal(), NAME))
    assert caught.value.__context__ is None


def test_a_look_up_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()

    def hang(*_: Any, flags: int = 0, **__: Any) -> Any:
        if flags:
            raise socket.gaierror
        may_end.wait()

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(Expired):
        drive(look_up(signal(), NAME, SocketNetwork.now() + SOON))
    may_end.set()


@pytest.mark.parametrize("kind", ["asyncio", "sockets"])
def test_a_look_up_that_hangs_does_not_hold_up_the_end_of_the_program(kind: str) -> None:
    program = """
import asyncio, socket, sys, threading
asked, never = threading.Event(), threading.Event()
def hang(host, port, *args, flags=0, **more):
    if flags:
        raise socket.gaierror
    asked.set()
    never.wait()
socket.getaddrinfo = hang
from rawsse.client.network.connect import look_up
from rawsse.client.network.asyncio_network import AsyncioNetwork
from rawsse.client.network.link import Expired, drive
from rawsse.client.network.route import Origin
from rawsse.client.blocking.network import SocketNetwork
async def main(network):
    try:
        await look_up(network.signal(), Origin("http", "slow.example", 80), network.now() + 0.1)
    except Expired:
        print(asked.wait(20))
async def on_asyncio():
    await main(AsyncioNetwork())
asyncio.run(on_asyncio()) if sys.argv[1] == "asyncio" else drive(main(SocketNetwork()))
"""
    with Command(kind, program=("-c", program)) as command:
        assert (command.output(), command.complaint(), command.wait()) == ("True\n", "", 0)


# --- The race ------------------------------------------------------------------------------------------------------

Peers = dict[str, tuple[int, Any]]


@contextlib.asynccontextmanager
async def peers() -> AsyncIterator[Peers]:
    """An address that is served, one that nothing answers, one that refuses; and a family that the system does not have."""
    async with serving(shout) as good, silent_listener() as silent:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            refused = sock.getsockname()
        yield {
            "good": (socket.AF_INET, (good.host, good.port)),
            "silent": (socket.AF_INET, (silent.host, silent.port)),
            "refused": (socket.AF_INET, refused),
            "unsupported": (socket.AF_APPLETALK, refused),
            "forbidden": (socket.AF_INET, ("255.255.255.255", 9)),  # a broadcast: no attempt is begun
        }


Made = list[weakref.ref[socket.socket]]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """The sockets that were made."""
    socks: Made = []

    def note(*arguments: Any) -> socket.socket:
        sock = new_socket(*arguments)
        socks.append(weakref.ref(sock))
        return sock

    monkeypatch.setattr(connect, "new_socket", note)
    return socks


def still_open(socks: Made) -> int:
    return sum((sock := made()) is not None and sock.fileno() != -1 for made in socks)


@every_network
@pytest.mark.parametrize(
    ("names", "delays"),
    [
        ("silent good", 1),
        ("refused good", 0),
        ("unsupported good", 0),
        ("forbidden good", 0),
        ("refused unsupported refused good", 0),
        ("silent refused good", 1),
        ("refused silent good", 1),
        ("silent silent good", 2),
        ("good silent", 0),
    ],
)
def test_an_address_that_does_not_answer_costs_one_delay_and_one_that_refuses_nothing(
    on: Drive, names: str, delays: int, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "HAPPY_EYEBALLS_SECONDS", SOON)

    async def story(network: Network, at: Peers) -> bytes:
        resolve(monkeypatch, *(at[name] for name in names.split()))
        before = network.now()
        async with connected(network, Route(NAME)) as link:
            assert passed(network, before, delays * SOON)
            await link.write(b"hello", math.inf)
            data = await link.read(math.inf)
            assert still_open(made) == 1
            return data

    assert on(story, peers()) == b"HELLO"
    assert still_open(made) == 0


def test_the_delay_is_the_one_that_is_recommended() -> None:
    assert connect.HAPPY_EYEBALLS_SECONDS == 0.25  # RFC 8305, 5


@every_network
def test_of_two_addresses_that_answer_one_is_left(on: Drive, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "HAPPY_EYEBALLS_SECONDS", SOON)

    async def story(network: Network, at: Peers) -> int:
        resolve(monkeypatch, at["silent"], at["good"], at["good"])
        async with connected(network, Route(NAME)):
            await network.signal().wait(network.now() + SOON)
            return still_open(made)

    assert on(story, peers()) == 1


@every_network
def test_where_every_address_refuses_one_error_names_each_reason(
    on: Drive, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(network: Network, at: Peers) -> None:
        resolve(monkeypatch, at["refused"], at["unsupported"])
        words = r"^cannot connect to http://name\.example: .*(refused|failed).*; .*not supported"
        with pytest.raises(APIConnectionError, match=words) as caught:
            async with connected(network, Route(NAME)):
                pass
        assert isinstance(caught.value.__cause__, OSError)

    on(story, peers())
    assert still_open(made) == 0


@every_network
def test_an_address_that_may_still_answer_is_waited_for_while_others_refuse(
    on: Drive, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "HAPPY_EYEBALLS_SECONDS", SOON)

    async def story(network: Network, at: Peers) -> bool:
        resolve(monkeypatch, at["silent"], at["refused"])
        before = network.now()
        with pytest.raises(Expired):
            async with connected(network, Route(NAME), deadline=before + 1.5 * SOON):
                pass
        return passed(network, before, 1.5 * SOON)

    assert on(story, peers())
    assert still_open(made) == 0


@every_network
def test_a_single_address_that_refuses_is_named_with_the_system_s_error_as_its_cause(on: Drive) -> None:
    async def story(network: Network, at: Peers) -> None:
        host, port = at["refused"][1]
        words = f"^cannot connect to http://127.0.0.1:{port}: Connection refused$"
        with pytest.raises(APIConnectionError, match=words) as caught:
            async with connected(network, Route(Origin("http", host, port))):
                pass
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        assert caught.value.__cause__.errno == errno.ECONNREFUSED

    on(story, peers())


@every_network
def test_of_several_addresses_that_refuse_each_is_named(on: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(network: Network, at: Peers) -> None:
        resolve(monkeypatch, at["refused"], at["refused"])
        host, port = at["refused"][1]
        with pytest.raises(APIConnectionError) as caught:
            async with connected(network, Route(NAME)):
                pass
        assert str(caught.value).count(f"('{host}', {port})") == 2

    on(story, peers())


@every_network
@pytest.mark.parametrize("names", ["refused", "refused unsupported"])
def test_an_error_is_not_kept_by_its_own_traceback(on: Drive, names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(network: Network, at: Peers) -> object:
        resolve(monkeypatch, *(at[name] for name in names.split()))
        link = network.link()
        gc.disable()
        try:
            await link.connect(Route(NAME), trusting(), math.inf)
        except APIConnectionError as exc:
            kept = weakref.ref(exc)
        finally:
            gc.enable()
            link.abort()
        return kept()

    assert on(story, peers()) is None


# A task that is cancelled: `run` finds what it leaves.


@pytest.mark.parametrize("names", ["good", "refused good good", "silent good"])
def test_a_race_that_is_cancelled_at_any_step_leaves_nothing(
    names: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(steps: int) -> bool:
        async with peers() as at:
            resolve(monkeypatch, *(at[name] for name in names.split()))
            link = AsyncioNetwork().link()
            task = asyncio.create_task(link.connect(Route(NAME), trusting(), math.inf))
            for _ in range(steps):
                await (ticks() if names != "silent good" else asyncio.sleep(0.1))
            finished = task.done()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            link.abort()
            return finished

    steps = next(steps for steps in itertools.count() if run(story(steps)))
    assert steps > 2
    assert still_open(made) == 0


# --- What the operating system is asked for ------------------------------------------------------------------------


def option(sock: socket.socket, level: int, *names: str) -> int:
    """The value of the option that the system has of those with these names."""
    return sock.getsockopt(level, next(getattr(socket, name) for name in names if hasattr(socket, name)))


def test_the_system_probes_a_silent_connection_and_sends_small_pieces_at_once() -> None:
    with new_socket(socket.AF_INET) as sock:
        assert option(sock, socket.SOL_SOCKET, "SO_KEEPALIVE") != 0
        assert option(sock, socket.IPPROTO_TCP, "TCP_NODELAY") != 0
        times = [("TCP_KEEPIDLE", "TCP_KEEPALIVE"), ("TCP_KEEPINTVL",), ("TCP_KEEPCNT",)]
        assert [option(sock, socket.IPPROTO_TCP, *names) for names in times] == [60, 60, 5]
        assert not sock.getblocking()


def test_an_option_that_the_system_lacks_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_KEEPIDLE", raising=False)
    monkeypatch.setattr(socket, "TCP_KEEPCNT", 12345)
    with new_socket(socket.AF_INET) as sock:
        assert option(sock, socket.IPPROTO_TCP, "TCP_NODELAY") != 0
