"""rawsse.client: cancelled and closed at every await point, some thousand times over, and nothing is left.

How. `Traced` runs a coroutine and counts its waits: everything that the coroutine, or what it calls, gives to the event loop to
be waited for. One of them is struck: as it begins, a tick later, or in the very tick in which what it waited for has come, but
before the coroutine knows. Each story is run again and again, struck at its first wait, its second, and so on to its last.

Most stories are told over fake streams, all on one client with two connections at most, so that a single slot that is lost
shows in the next call; the others over real sockets on the loopback, whose descriptors are counted.

The plain suite strikes one wait in six at each moment in each way: the first, seventh and so on at the first moment, the second
and so on at the next. Two ways that are alike begin at other waits, so that between them they strike each wait, at one moment;
with RAWSSE_EVERY_CUT=1, as in CI, each of them strikes each wait at all moments. The waits for real sockets are few: one in
three is struck.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import socket
import ssl
from collections.abc import Callable, Collection, Coroutine, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
from support.answers import ASK, KEY, answer, plain
from support.clock import run, ticks
from support.faults import BEGIN, BLACK_HOLE, NOW, REFUSED, Network, Peer, says
from support.loops import HAS_EAGER_TASKS, Loop, each_loop, with_eager_tasks
from support.pools import counts
from support.sampling import one_in
from support.sockets import LOCALHOST, ConnectProxy, serving, silent_listener
from support.streams import ANSWER, PING

from rawsse.client.client import AsyncClient
from rawsse.client.network import connect
from rawsse.client.network.pool import PoolLimits
from rawsse.client.stream import EventStream, MessageStream
from rawsse.replay.fakes import FakeStream, fake_links

T = TypeVar("T")

STEP = one_in(6)
"""From the wait that is struck to the next one that is."""

REAL_STEP = one_in(3)
"""The same over real sockets."""

# --- Striking --------------------------------------------------------------------------------------------------------

Strike = Callable[[], None]
Moment = Callable[[Any, Strike], None]


class Traced(Generic[T]):
    """A coroutine whose waits are counted; the one with the number `at` is struck at `moment`."""

    def __init__(self, work: Coroutine[Any, Any, T], at: int, moment: Moment, strike: Strike) -> None:
        self.waits = 0
        self._work = work
        self._at = at
        self._moment = moment
        self._strike = strike

    async def run(self, scene: Scene) -> T:
        """The coroutine's result. To be run as a task, which may be struck in its very first step."""
        scene.task = asyncio.current_task()
        return await self

    def __await__(self) -> Generator[Any, Any, T]:
        resume: Callable[[Any], Any] = self._work.send
        value: Any = None
        while True:
            try:
                awaited = resume(value)
            except StopIteration as over:
                result: T = over.value
                return result
            self.waits += 1
            if self.waits == self._at:
                self._moment(awaited, self._strike)
            try:
                value = yield awaited
                resume = self._work.send
            except BaseException as exc:
                resume, value = self._work.throw, exc


def as_it_begins(_: Any, strike: Strike) -> None:
    strike()


def a_tick_later(_: Any, strike: Strike) -> None:
    asyncio.get_running_loop().call_soon(strike)


def some_ticks_later(count: int) -> Moment:
    """In the middle of a wait that takes several ticks, or as many ticks after it has begun."""

    def strike_later(_: Any, strike: Strike, left: int = count) -> None:
        if left == 0:
            strike()
        else:
            asyncio.get_running_loop().call_soon(strike_later, None, strike, left - 1)

    return strike_later


def as_it_ends(awaited: asyncio.Future[Any] | None, strike: Strike) -> None:
    """In the tick in which the result is there, before who waits is woken. None is a wait for the next tick."""
    if awaited is None:
        asyncio.get_running_loop().call_soon(strike)
    else:
        awaited.add_done_callback(lambda _: strike())


MOMENTS: tuple[Moment, ...] = (as_it_begins, a_tick_later, as_it_ends)


# --- Stories over fake streams ---------------------------------------------------------------------------------------


class Stepping(FakeStream):
    """A stream each of whose operations takes a step of the loop, as those of real ones do."""

    async def read(self, deadline: float) -> bytes:
        await ticks()
        return await super().read(deadline)

    async def write(self, data: bytes, deadline: float) -> None:
        await ticks()
        await super().write(data, deadline)


class SteppingNetwork(Network):
    async def __call__(self, *where: Any) -> Any:
        await ticks()
        return await super().__call__(*where)


def pieces(wire: bytes, size: int = 70) -> list[bytes]:
    return [wire[at : at + size] for at in range(0, len(wire), size)]


def says_in_pieces(wire: bytes) -> Peer:
    return Peer(*pieces(wire), stream=Stepping)


@dataclass
class Scene:
    """One telling of a story: a client, the streams that it opened, the task that tells it, and when it was struck."""

    client: AsyncClient
    streams: list[MessageStream | EventStream] = field(default_factory=list)
    task: asyncio.Task[Any] | None = None
    struck_at: float | None = None

    def open(self) -> MessageStream:
        stream = self.client.messages.stream(**ASK)
        self.streams.append(stream)
        return stream

    def strike(self, disturbance: Disturbance) -> None:
        self.struck_at = asyncio.get_running_loop().time()
        disturbance(self)

    def check_it_was_quick(self) -> None:
        """No time passes between the stroke and its effect, and every stream has an ending."""
        assert self.struck_at in (None, asyncio.get_running_loop().time())
        assert all(stream.ending is not None for stream in self.streams)


async def read_a_stream(scene: Scene) -> str:
    async with scene.open() as stream:
        async for _ in stream:
            await ticks()
    return stream.current_message_snapshot.text


async def read_the_text(scene: Scene) -> str:
    async with scene.open() as stream:
        return "".join([text async for text in stream.text_stream])


async def read_events(scene: Scene) -> str:
    events: EventStream = await scene.client.messages.create(**ASK, stream=True)
    scene.streams.append(events)
    async for _ in events:  # without a block: being cancelled must be enough
        pass
    return events.current_message_snapshot.text


async def create(scene: Scene) -> str:
    text: str = (await scene.client.messages.create(**ASK)).text
    return text


async def wait_in_line(scene: Scene) -> str:
    """Two others have the connections, for as long as it takes them to read an answer."""
    others = [asyncio.create_task(create(scene)) for _ in range(2)]
    try:
        await ticks(2)
        return await read_the_text(scene)
    finally:
        for other in others:
            other.cancel()


async def count_tokens(scene: Scene) -> str:
    count = await scene.client.messages.count_tokens(model="m", messages=[])
    return f"{count.input_tokens}"


async def list_models(scene: Scene) -> str:
    ids: list[str] = [model.id async for model in scene.client.models.list()]
    return "".join(ids)


def models(*ids: str, more: bool) -> bytes:
    page = {"data": [{"id": id} for id in ids], "has_more": more, "first_id": ids[0], "last_id": ids[-1]}
    return plain(json.dumps(page).encode(), content_type="application/json")


@dataclass(frozen=True)
class Story:
    """What is told, to which peers, and what comes of it if nothing disturbs it."""

    tell: Callable[[Scene], Coroutine[Any, Any, str]]
    peers: tuple[Peer, ...]
    result: str


WHOLE = answer(ANSWER)
LATER = plain(b"{}", "529 Later", connection="close")
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "No."}}


def stories() -> dict[str, Story]:
    """All stories. Pieces of answers end within events: the waits between them are those of one wait in another state."""
    whole = says_in_pieces(WHOLE)
    # Everything that can be tried again, one after the other: no connection, a refusal, an error before any content.
    failures = (REFUSED, says_in_pieces(LATER), says_in_pieces(says(BEGIN, PING, OVERLOADED)))
    count = says_in_pieces(plain(b'{"input_tokens": 7}'))
    first, second = (pieces(page) for page in (models("a", "b", more=True), models("c", more=False)))
    return {
        "a stream": Story(read_a_stream, (whole,), "Hello ☺"),
        "its text": Story(read_the_text, (whole,), "Hello ☺"),
        "its events": Story(read_events, (whole,), "Hello ☺"),
        "a stream after a black hole": Story(read_a_stream, (BLACK_HOLE, whole), "Hello ☺"),
        "a stream after failures": Story(read_a_stream, (*failures, whole), "Hello ☺"),
        "a place in line": Story(wait_in_line, (whole,), "Hello ☺"),
        "a whole message": Story(create, (whole,), "Hello ☺"),
        "a whole message after failures": Story(create, (*failures, whole), "Hello ☺"),
        "a count of tokens after a failure": Story(count_tokens, (failures[1], count), "7"),
        "two pages of models": Story(list_models, (Peer(None, *first, None, *second, stream=Stepping),), "abc"),
    }


STREAMS = (
    "a stream",
    "its text",
    "its events",
    "a stream after a black hole",
    "a stream after failures",
    "a place in line",
)


def client_of(network: Network, **options: Any) -> AsyncClient:
    given: dict[str, Any] = {"limits": PoolLimits(max_connections=2), "max_retries": 3, **options}
    return AsyncClient(
        api_key=KEY,
        base_url="http://api.example",
        connect=fake_links(network),
        trust_env=False,
        now=lambda: NOW,
        chance=lambda: 0.0,
        **given,
    )


def finish(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that does not wait, now."""
    with contextlib.suppress(StopIteration):
        work.send(None)
        raise AssertionError("it waits")


def cancel(scene: Scene) -> None:
    assert scene.task is not None
    scene.task.cancel()


def close(scene: Scene) -> None:
    for stream in scene.streams:
        finish(stream.close())


def cancel_and_close(scene: Scene) -> None:
    cancel(scene)
    close(scene)


def close_and_cancel(scene: Scene) -> None:
    close(scene)
    cancel(scene)


def cancel_twice(scene: Scene) -> None:
    """The second time comes when the first has been noticed, or is about to be."""
    cancel(scene)
    asyncio.get_running_loop().call_soon(cancel, scene)


def close_the_client(scene: Scene) -> None:
    finish(scene.client.aclose())


Disturbance = Callable[[Scene], None]

SECOND: Collection[Disturbance] = (cancel_twice, close_and_cancel, close_the_client)
"""Of two that are alike."""


async def outcome_of(task: asyncio.Task[str]) -> str:
    """The result, or the name of what was raised."""
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    return outcome if isinstance(outcome, str) else type(outcome).__name__


def check_nothing_is_left(client: AsyncClient, network: Network) -> None:
    """At once, without a single tick in between."""
    opened, idle, waiting = counts(client._pools)
    alive = sum(not stream.is_aborted for stream in network.streams)
    assert (opened, waiting, alive) == (idle, 0, idle)


async def disturbed(
    story: Story, client: AsyncClient, network: Network, at: int, how: tuple[Moment, Disturbance]
) -> tuple[str, bool]:
    """What became of the story, and whether it was disturbed: False if it was over before."""
    network.attempts = 0
    network.streams = [stream for stream in network.streams if not stream.is_aborted]
    scene = Scene(client)
    moment, disturbance = how
    traced = Traced(story.tell(scene), at, moment, functools.partial(scene.strike, disturbance))
    outcome = await outcome_of(asyncio.create_task(traced.run(scene)))
    if outcome != story.result:
        scene.check_it_was_quick()
    if story.tell is wait_in_line:
        await ticks()  # the others were cancelled, and take a tick to know it
    check_nothing_is_left(client, network)
    return outcome, traced.waits >= at


async def storm(story: Story, moment: Moment, disturbance: Disturbance, first: int) -> list[str]:
    """What became of the story, disturbed at its wait `first`, `STEP` waits later, and so on; at last it was over before."""
    asyncio.get_running_loop().set_debug(False)  # it multiplies the time, and what is left is found without it
    network = SteppingNetwork(*story.peers)
    client = client_of(network)
    outcomes: list[str] = []
    for at in itertools.count(first, STEP):
        if client.is_closed():
            client = client_of(network)
        outcome, was_disturbed = await disturbed(story, client, network, at, (moment, disturbance))
        outcomes.append(outcome)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        if not was_disturbed:
            break
    await client.aclose()
    assert counts(client._pools)[0] == 0
    return outcomes


def storms(
    disturbance: Disturbance,
    fates: set[str],
    *,
    names: Collection[str] | None = None,
    on: Loop = run,
) -> int:
    """Disturb all stories, or those with these names, everywhere. Disturbed, they must have one of these `fates`, and at last
    their own end. How many waits they have between them."""
    total, begin = 0, len(MOMENTS) * (disturbance in SECOND)
    for (number, moment), (name, story) in itertools.product(enumerate(MOMENTS), stories().items()):
        if names is None or name in names:
            *outcomes, last = on(storm(story, moment, disturbance, 1 + (begin + number) % STEP))
            assert (name, last) == (name, story.result)
            assert set(outcomes) <= fates, f"{name}, {moment.__name__}"
            assert set(outcomes) > {story.result} or story.result not in outcomes
            total += len(outcomes) * STEP
    return total


# Where the stream was closed when it had come to its end, or nothing was open yet, the story goes on undisturbed.
CLOSED = {"StreamCancelledError", "Hello ☺"}


@pytest.mark.parametrize("disturbance", [cancel, cancel_twice])
def test_whoever_is_cancelled_at_any_wait_leaves_nothing(disturbance: Disturbance) -> None:
    assert storms(disturbance, {"CancelledError"}) > 500


@pytest.mark.parametrize("disturbance", [cancel_and_close, close_and_cancel])
def test_whoever_is_cancelled_while_the_stream_is_closed_leaves_nothing(disturbance: Disturbance) -> None:
    assert storms(disturbance, {"CancelledError"}, names=STREAMS) > 400


def test_a_stream_that_is_closed_at_any_wait_leaves_nothing() -> None:
    assert storms(close, CLOSED, names=STREAMS) > 400


def test_a_client_that_is_closed_at_any_wait_leaves_nothing() -> None:
    # RuntimeError: a call that is begun with a closed client.
    assert storms(close_the_client, {*CLOSED, "RuntimeError"}) > 500


if HAS_EAGER_TASKS:

    @pytest.mark.parametrize(
        ("disturbance", "fates"),
        [
            (cancel, {"CancelledError"}),
            (cancel_twice, {"CancelledError"}),
            (close_the_client, {*CLOSED, "RuntimeError"}),
        ],
    )
    def test_where_tasks_begin_at_once_nothing_is_left_either(disturbance: Disturbance, fates: set[str]) -> None:
        assert storms(disturbance, fates, on=with_eager_tasks) > 400


# --- Over real sockets -----------------------------------------------------------------------------------------------

DESCRIPTORS = Path("/dev/fd")


# The waits for the network are few and long, so they are struck in their midst as well; a TLS handshake has more of them.
REAL_MOMENTS = (*MOMENTS, *(some_ticks_later(count) for count in range(2, 10)))
TLS_MOMENTS = REAL_MOMENTS[:-4]


class Server:
    """Answers whoever asks, in some pieces, and waits until they leave. `present` is how many are there."""

    def __init__(self) -> None:
        self.present = 0
        self.visits = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.present += 1
        self.visits += 1
        try:
            await reader.readuntil(b'"stream":true}')
            for piece in pieces(WHOLE, 200):
                if not writer.is_closing():  # uvloop's transport would raise
                    writer.write(piece)
                await ticks(3)
            while await reader.read(100):
                pass
        except asyncio.IncompleteReadError:
            pass  # gone before it had asked
        finally:
            self.present -= 1


def two_addresses(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Let every name have two addresses that are tried side by side."""
    found = [("127.0.0.1", port) for port in ports]
    monkeypatch.setattr(connect, "HAPPY_EYEBALLS_SECONDS", 0)
    looked_up = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in found]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: looked_up)


async def real_storm(client: AsyncClient, moment: Moment, disturbance: Disturbance, first: int) -> list[str]:
    """As `storm`, over whatever the client connects to."""
    outcomes: list[str] = []
    for at in itertools.count(first, REAL_STEP):
        scene = Scene(client)
        traced = Traced(read_the_text(scene), at, moment, functools.partial(scene.strike, disturbance))
        outcomes.append(await outcome_of(asyncio.create_task(traced.run(scene))))
        assert counts(client._pools)[0] == 0
        if traced.waits < at:
            break
    return outcomes


async def real_storms(base_url: str, server: Server, moments: Collection[Moment] = REAL_MOMENTS, **options: Any) -> int:
    """Disturb a stream from this server everywhere, in all ways. How often that was."""
    asyncio.get_running_loop().set_debug(False)
    limits = PoolLimits(max_connections=2, max_idle=0)
    client = AsyncClient(api_key="x", base_url=base_url, limits=limits, trust_env=False, max_retries=0, **options)
    await read_the_text(Scene(client))  # uvloop opens a descriptor of its own with the first connection
    await asyncio.sleep(0.1)
    descriptors = len(os.listdir(DESCRIPTORS))
    total = 0
    ways = itertools.product(enumerate(moments), (cancel_twice, close))  # all four: over fake streams
    for (number, moment), disturbance in ways:
        *outcomes, last = await real_storm(client, moment, disturbance, 1 + number % REAL_STEP)
        assert last == "Hello ☺"
        # Some ticks after a wait has begun the story may be over.
        assert set(outcomes) <= {"StreamCancelledError" if disturbance is close else "CancelledError", "Hello ☺"}
        assert outcomes[0] != "Hello ☺"
        total += len(outcomes) * REAL_STEP
    for _ in range(100):  # the server takes a moment to see that they have gone
        if server.present == 0 and len(os.listdir(DESCRIPTORS)) == descriptors:
            break
        await asyncio.sleep(0.01)
    assert server.visits * REAL_STEP > 75
    assert server.present == 0
    assert len(os.listdir(DESCRIPTORS)) == descriptors
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return total


counting_descriptors = pytest.mark.skipif(
    not DESCRIPTORS.exists(), reason="this system does not list a process's descriptors"
)


@each_loop
@counting_descriptors
@pytest.mark.parametrize("tls", [False, True])
def test_over_real_sockets_nothing_is_left_either(tls: bool, on: Loop) -> None:
    async def story() -> int:
        server = Server()
        async with serving(server, tls=tls) as origin:
            moments, context = TLS_MOMENTS if tls else REAL_MOMENTS, ssl.create_default_context(cafile=LOCALHOST)
            return await real_storms(f"{origin}", server, moments, ssl_context=context)

    assert on(story()) > 75


@counting_descriptors
@pytest.mark.parametrize("is_silent", [False, True], ids=["both answer", "the first is silent"])
def test_of_two_addresses_that_are_tried_side_by_side_nothing_is_left(
    is_silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> int:
        server = Server()
        async with serving(server) as origin, silent_listener() as silent:
            two_addresses(monkeypatch, silent.port if is_silent else origin.port, origin.port)
            return await real_storms(f"http://name.example:{origin.port}", server)

    assert run(story()) > 75


@counting_descriptors
@pytest.mark.parametrize("tls", [False, True])
def test_through_a_proxy_nothing_is_left_either(tls: bool) -> None:
    """A tunnel to an https origin; with `tls`, the proxy itself is reached by TLS."""
    proxy = ConnectProxy()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # gone before it had asked
            await proxy(reader, writer)

    async def story() -> int:
        server = Server()
        async with serving(server, tls=True) as origin, serving(tunnel, tls=tls) as there:
            context = ssl.create_default_context(cafile=LOCALHOST)
            return await real_storms(f"{origin}", server, TLS_MOMENTS, proxy=f"{there}", ssl_context=context)

    assert run(story()) > 75
