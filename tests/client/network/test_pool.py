"""rawsse.client.network.pool: what is decided, who gets a connection, who waits and in which order, and that nothing is ever
lost."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.clock import run, ticks
from support.pools import A, B, Network, Peer, serve

from rawsse.client.network.net import FakeStream, TLSContext
from rawsse.client.network.pool import Connection, Pool, PoolLimits, choose, expires_at, has_expired, surplus
from rawsse.client.network.route import Origin, Proxy, Route
from rawsse.errors import APIConnectionError, APIError, ConfigurationError, StreamCancelledError
from rawsse.http1 import ClientConnection

# --- Limits --------------------------------------------------------------------------------------------------------


def test_the_limits_as_they_are_documented() -> None:
    assert PoolLimits() == PoolLimits(max_connections=1000, max_idle=100, idle_seconds=30.0, max_age_seconds=600.0)


def test_the_least_and_none_are_allowed() -> None:
    limits = PoolLimits(max_connections=1, max_idle=0, idle_seconds=None, max_age_seconds=None)
    assert expires_at(resting(A), limits) == math.inf


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_connections": 0}, "pool limits: max_connections must be a whole number from 1 up, not 0"),
        ({"max_connections": 1.5}, "pool limits: max_connections must be a whole number from 1 up, not 1.5"),
        ({"max_connections": None}, "pool limits: max_connections must be a whole number from 1 up, not None"),
        ({"max_idle": -1}, "pool limits: max_idle must be a whole number from 0 up, not -1"),
        ({"idle_seconds": 0}, "pool limits: idle_seconds must be a number of seconds above 0, or None, not 0"),
        ({"max_age_seconds": -1}, "pool limits: max_age_seconds must be a number of seconds above 0, or None, not -1"),
        ({"idle_seconds": math.nan}, "pool limits: idle_seconds must be a number of seconds above 0, or None, not nan"),
    ],
)
def test_a_limit_that_cannot_work_is_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PoolLimits(**limits)
    assert str(caught.value) == message


# --- Decisions, without any loop -----------------------------------------------------------------------------------


def resting(route: Route, *, opened_at: float = 0.0, idle_since: float = 0.0, is_ready: bool = True) -> Connection:
    http = ClientConnection("x")
    connection = Connection(FakeStream(), http, route, opened_at, Network().pool(), idle_since=idle_since)
    serve(connection, end=b"0\r\n\r\n" if is_ready else b"")
    assert connection.is_ready is is_ready
    return connection


TWO = PoolLimits(max_connections=2)


def test_the_connection_that_came_to_rest_last_is_used_again() -> None:
    old, new = resting(A), resting(A)
    assert choose(A, [old, new], 2, TWO) == ("reuse", new)


def test_a_connection_of_another_route_is_not_used() -> None:
    old, new = resting(A), resting(B)
    assert choose(A, [old, new], 2, TWO) == ("reuse", old)
    assert choose(A, [new], 1, TWO) == ("open", None)


def test_the_same_origin_through_a_proxy_is_another_route() -> None:
    through = Route(A.origin, Proxy(Origin("http", "proxy", 3128)))
    assert choose(through, [resting(A)], 1, TWO) == ("open", None)
    assert choose(A, [resting(through)], 1, TWO) == ("open", None)


def test_a_connection_whose_answer_is_not_over_is_not_used() -> None:
    ready, unready = resting(A), resting(A, is_ready=False)
    assert choose(A, [ready, unready], 2, TWO) == ("reuse", ready)
    assert choose(A, [unready], 1, TWO) == ("open", None)


def test_whoever_insists_on_a_new_connection_gets_one() -> None:
    assert choose(A, [resting(A)], 1, TWO, fresh=True) == ("open", None)


def test_with_all_connections_open_the_one_that_rests_longest_makes_room() -> None:
    old, new = resting(B), resting(B)
    assert choose(A, [old, new], 2, TWO) == ("open", old)
    assert choose(B, [old, new], 2, TWO, fresh=True) == ("open", old)


def test_with_all_connections_in_use_one_waits() -> None:
    assert choose(A, [], 1, TWO) == ("open", None)
    assert choose(A, [], 2, TWO) == ("wait", None)
    assert choose(A, [], 2, TWO, fresh=True) == ("wait", None)


@pytest.mark.parametrize(
    ("idle_seconds", "max_age_seconds", "expected"),
    [(30, 600, 130), (None, 600, 610), (30, 50, 60), (30, None, 130), (None, None, math.inf)],
)
def test_a_connection_expires_by_its_rest_or_by_its_age(
    idle_seconds: float | None, max_age_seconds: float | None, expected: float
) -> None:
    limits = PoolLimits(idle_seconds=idle_seconds, max_age_seconds=max_age_seconds)
    assert expires_at(resting(A, opened_at=10, idle_since=100), limits) == expected


def test_a_connection_has_expired_exactly_at_the_end_of_its_time() -> None:
    connection = resting(A, opened_at=10, idle_since=100)
    assert not has_expired(connection, math.nextafter(130, 0), PoolLimits())
    assert has_expired(connection, 130, PoolLimits())


def test_the_longest_at_rest_are_surplus() -> None:
    one, two, three = resting(A), resting(B), resting(A)
    assert surplus([one, two, three], PoolLimits(max_idle=1)) == [one, two]
    assert surplus([one, two, three], PoolLimits(max_idle=2)) == [one]
    assert surplus([one, two, three], PoolLimits(max_idle=3)) == []
    assert surplus([one, two], PoolLimits(max_idle=0)) == [one, two]
    assert surplus([], PoolLimits(max_idle=3)) == []


# --- Getting and giving back ---------------------------------------------------------------------------------------


def counts(pool: Pool) -> tuple[int, int, int]:
    """Open, idle, waiting."""
    return pool.open_connections, pool.idle_connections, pool.waiting


def test_the_first_connection_is_new_and_says_host_as_the_route_does() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        connection = await pool.acquire(Route(Origin("http", "api.example", 8080)))
        assert not connection.is_reused
        assert connection.opened_at == asyncio.get_running_loop().time()
        assert b"\r\nhost: api.example:8080\r\n" in connection.http.send_request("GET", "/", [])
        assert network.routes == [Route(Origin("http", "api.example", 8080))]
        assert counts(pool) == (1, 0, 0)

    run(story())


def test_connect_gets_the_route_and_the_tls_context() -> None:
    tls, got = TLSContext(), []

    async def connect(route: Route, context: TLSContext) -> FakeStream:
        got.append((route, context))
        return FakeStream()

    run(Pool(connect, tls).acquire(A))
    assert got == [(A, tls)]


def test_a_head_may_be_as_large_as_the_pool_was_told() -> None:
    async def story() -> None:
        connection = await Network().pool(max_head_bytes=20).acquire(A)
        connection.http.send_request("GET", "/", [])
        connection.http.receive_data(b"HTTP/1.1 200 OK\r\nX-Long: ...\r\n\r\n")
        with pytest.raises(APIError, match=r"larger than max_head_bytes \(20\)"):
            connection.http.next_event()

    run(story())


def test_a_connection_is_used_again_after_a_whole_answer() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        first = await pool.acquire(A)
        serve(first)
        first.release()
        assert counts(pool) == (1, 1, 0)
        second = await pool.acquire(A)
        assert (second.is_reused, first.is_reused) == (True, False)
        assert second.stream is first.stream
        assert second.http is first.http
        assert second.opened_at == first.opened_at
        serve(second)
        assert counts(pool) == (1, 0, 0)
        assert len(network.streams) == 1

    run(story())


def test_who_gave_a_connection_back_cannot_touch_the_one_who_has_it_now() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        first = await pool.acquire(A)
        serve(first)
        first.release()
        second = await pool.acquire(A)
        first.release()
        first.drop()
        assert counts(pool) == (1, 0, 0)
        assert network.alive() == 1
        second.drop()
        second.drop()
        second.release()
        assert counts(pool) == (0, 0, 0)
        assert network.alive() == 0

    run(story())


def test_after_release_a_drop_does_nothing() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        connection = await pool.acquire(A)
        serve(connection)
        connection.release()
        connection.drop()
        assert counts(pool) == (1, 1, 0)
        assert network.alive() == 1

    run(story())


def test_a_connection_that_cannot_be_used_again_is_dropped_when_it_is_given_back() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        connection = await pool.acquire(A)
        connection.release()
        assert counts(pool) == (0, 0, 0)
        assert network.alive() == 0

    run(story())


def test_a_dropped_connection_is_aborted_in_the_same_tick() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        connection = await pool.acquire(A)
        serve(connection)
        connection.drop()
        assert network.streams[0].is_aborted
        assert counts(pool) == (0, 0, 0)
        assert not (await pool.acquire(A)).is_reused

    run(story())


def test_the_last_one_in_is_the_first_one_out() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        held = [await pool.acquire(A) for _ in range(3)]
        for index in (1, 0, 2):
            serve(held[index])
            held[index].release()
        again = [(await pool.acquire(A)).stream for _ in range(4)]
        assert again == [network.streams[index] for index in (2, 0, 1, 3)]

    run(story())


def test_no_more_than_max_idle_are_kept_and_the_oldest_go() -> None:
    async def story() -> None:
        pool = (network := Network()).pool(PoolLimits(max_idle=1))
        held = [await pool.acquire(A) for _ in range(3)]
        for connection in held:
            serve(connection)
            connection.release()
        assert counts(pool) == (1, 1, 0)
        assert [stream.is_aborted for stream in network.streams] == [True, True, False]

    run(story())


def test_with_max_idle_0_nothing_is_kept_even_if_somebody_waits_for_it() -> None:
    async def story() -> None:
        pool = Network().pool(PoolLimits(max_connections=1, max_idle=0))
        first = await pool.acquire(A)
        waiting = asyncio.create_task(pool.acquire(A))
        await ticks()
        serve(first)
        first.release()
        assert not (await waiting).is_reused

    run(story())


def test_fresh_leaves_the_others_alone() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        first = await pool.acquire(A)
        serve(first)
        first.release()
        second = await pool.acquire(A, fresh=True)
        assert not second.is_reused
        assert counts(pool) == (2, 1, 0)
        assert network.alive() == 2

    run(story())


def test_what_connecting_raises_is_raised_and_its_slot_is_free() -> None:
    async def connect(route: Route, tls: TLSContext) -> FakeStream:
        del route, tls
        await ticks(2)
        raise APIConnectionError("cannot connect to http://a: no route to host")

    async def story() -> None:
        pool = Pool(connect, TLSContext(), PoolLimits(max_connections=1))
        calls = [asyncio.create_task(pool.acquire(A)) for _ in range(3)]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert str(error) == "cannot connect to http://a: no route to host"
        assert counts(pool) == (0, 0, 0)

    run(story())


def test_a_repr_has_counts_and_no_secrets() -> None:
    async def story() -> list[str]:
        secret = Route(Origin("https", "x", 443), Proxy(Origin("http", "proxy", 3128), "Basic c2VjcmV0"))
        pool = Network().pool(PoolLimits(max_connections=1))
        connection = await pool.acquire(secret)
        before = repr(pool)
        pool.close()
        return [before, repr(pool), repr(connection)]

    before, after, connection = run(story())
    assert before == "<Pool: 1 open, 0 idle, 0 waiting>"
    assert after == "<Pool: closed>"
    assert "c2VjcmV0" not in connection
    assert "host='proxy'" in connection


# --- Waiting in line -----------------------------------------------------------------------------------------------


def start(pool: Pool, routes: str, *, log: list[str] | None = None) -> list[asyncio.Task[Connection]]:
    """One call for each letter, a route. `log` gets their numbers in the order in which they have a connection."""

    async def call(number: int, route: Route) -> Connection:
        connection = await pool.acquire(route)
        if log is not None:
            log.append(f"{number}")
        return connection

    return [asyncio.create_task(call(at, {"A": A, "B": B}[name])) for at, name in enumerate(routes)]


def test_who_comes_first_is_served_first_and_each_freed_connection_serves_one() -> None:
    async def story() -> None:
        pool = Network().pool(PoolLimits(max_connections=1))
        log: list[str] = []
        holder = await pool.acquire(A)
        calls = start(pool, "ABAB", log=log)
        for served in range(4):
            await ticks(5)
            assert counts(pool) == (1, 0, 4 - served)
            assert log == [str(number) for number in range(served)]
            serve(holder)
            holder.release()
            holder = await calls[served]
        assert counts(pool) == (1, 0, 0)

    run(story())


def test_who_waits_for_the_same_route_gets_the_connection_itself() -> None:
    async def story() -> None:
        pool = (network := Network()).pool(PoolLimits(max_connections=1))
        holder = await pool.acquire(A)
        (call,) = start(pool, "A")
        await ticks()
        serve(holder)
        holder.release()
        connection = await call
        assert connection.is_reused
        assert connection.stream is holder.stream
        serve(connection)
        assert len(network.streams) == 1

    run(story())


def test_who_waits_for_another_route_gets_its_place() -> None:
    async def story() -> None:
        pool = (network := Network()).pool(PoolLimits(max_connections=1))
        holder = await pool.acquire(A)
        (call,) = start(pool, "B")
        await ticks()
        serve(holder)
        holder.release()
        assert network.streams[0].is_aborted
        connection = await call
        assert (connection.route, connection.is_reused) == (B, False)
        assert counts(pool) == (1, 0, 0)

    run(story())


def test_who_waits_and_insists_on_a_new_connection_gets_a_new_one() -> None:
    async def story() -> None:
        pool = (network := Network()).pool(PoolLimits(max_connections=1))
        holder = await pool.acquire(A)
        call = asyncio.create_task(pool.acquire(A, fresh=True))
        await ticks()
        serve(holder)
        holder.release()
        assert not (await call).is_reused
        assert network.alive() == 1

    run(story())


def test_an_idle_connection_makes_room_for_another_route() -> None:
    async def story() -> None:
        pool = (network := Network()).pool(PoolLimits(max_connections=2))
        held = [await pool.acquire(A), await pool.acquire(A)]
        for connection in held:
            serve(connection)
            connection.release()
        await pool.acquire(B)
        assert [stream.is_aborted for stream in network.streams] == [True, False, False]
        assert counts(pool) == (2, 1, 0)

    run(story())


def test_connections_that_are_being_made_count() -> None:
    async def story() -> None:
        pool = Network(delay=3).pool(PoolLimits(max_connections=2))
        calls = start(pool, "AAA")
        await ticks(2)
        assert counts(pool) == (2, 0, 1)
        (await calls[0]).drop()
        await calls[2]
        (await calls[1]).drop()
        assert counts(pool) == (1, 0, 0)

    run(story())


def test_a_connection_that_dies_between_its_grant_and_its_use_is_replaced() -> None:
    async def story() -> None:
        pool = (network := Network()).pool(PoolLimits(max_connections=1))
        holder = await pool.acquire(A)
        (call,) = start(pool, "A")
        await ticks()
        serve(holder)
        holder.release()
        network.streams[0].close()
        connection = await call
        assert not connection.is_reused
        assert network.alive() == 1
        assert counts(pool) == (1, 0, 0)

    run(story())


def test_the_pool_says_why_a_call_waits() -> None:
    async def story() -> list[str | None]:
        pool = Network(delay=2).pool(PoolLimits(max_connections=2))
        words = [pool.shortage]
        calls = start(pool, "AAA")
        await ticks()
        words.append(pool.shortage)
        first, second = await calls[0], await calls[1]
        words.append(pool.shortage)
        calls[2].cancel()
        await ticks()
        words.append(pool.shortage)
        serve(first)
        first.release()
        words.append(pool.shortage)
        second.drop()
        return [*words, pool.shortage]

    assert run(story()) == [
        None,
        "all 2 connections (max_connections) are in use or being made (2)",
        "all 2 connections (max_connections) are in use",
        "all 2 connections (max_connections) are in use",
        None,
        None,
    ]


# --- Cancellation --------------------------------------------------------------------------------------------------


async def for_each_tick(story: Callable[[int, int], Coroutine[Any, Any, None]]) -> None:
    """Two things happen, each at any tick: a connection is given back, and something else."""
    for released_at in range(4):
        for other_at in range(9):
            await story(released_at, other_at)


@pytest.mark.parametrize("routes", ["AA", "AB", "BA", "BB"])
def test_a_call_that_is_cancelled_at_any_tick_loses_nothing(routes: str) -> None:
    async def story(released_at: int, cancelled_at: int) -> None:
        pool = (network := Network(delay=2)).pool(PoolLimits(max_connections=1))
        holder = await pool.acquire(A)
        first, second = start(pool, routes)
        serve(holder)
        for tick in range(12):
            if tick == released_at:
                holder.release()
            if tick == cancelled_at:
                first.cancel()
            await ticks()
        if not first.cancelled():  # it had its connection before
            assert not second.done()
            first.result().drop()
        connection = await second
        assert counts(pool) == (1, 0, 0)
        assert network.alive() == 1
        connection.drop()
        assert counts(pool) == (0, 0, 0)
        assert network.alive() == 0

    run(for_each_tick(story))


def test_a_call_that_is_cancelled_while_it_connects_has_left_nothing_in_that_very_tick() -> None:
    async def story() -> None:
        pool = (network := Network(delay=5)).pool()
        (call,) = start(pool, "A")
        await ticks(3)
        assert counts(pool) == (1, 0, 0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert counts(pool) == (0, 0, 0)
        assert network.streams == []

    run(story())


def test_a_thousand_calls_that_are_cancelled_leave_nothing() -> None:
    async def story() -> None:
        pool = (network := Network(delay=2)).pool(PoolLimits(max_connections=7))
        for number in range(1000):
            (call,) = start(pool, "AB"[number % 2])
            await ticks(number % 6)
            call.cancel()
            await asyncio.wait([call])
            if not call.cancelled():
                serve(call.result())
                call.result().release()
        assert pool.open_connections == pool.idle_connections == network.alive() > 0
        pool.close()
        assert network.alive() == 0

    run(story())


def test_a_thousand_calls_at_once_that_are_cancelled_leave_nothing() -> None:
    async def story() -> None:
        pool = (network := Network(delay=2)).pool(PoolLimits(max_connections=10))
        calls = start(pool, "AB" * 500)
        await ticks(8)
        assert counts(pool) == (10, 0, 990)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert counts(pool) == (10, 0, 0)
        for call in calls[:10]:
            call.result().drop()
        assert all(call.cancelled() for call in calls[10:])
        assert counts(pool) == (0, 0, 0)
        assert network.alive() == 0

    run(story())


class Chaos:
    """Calls that begin, end, give up and lose their peers, in an order that the seed determines."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.network = Network(delay=seed % 3)
        limits = PoolLimits(max_connections=3, max_idle=2, idle_seconds=5, max_age_seconds=20)
        self.pool = self.network.pool(limits)
        self.calls: list[asyncio.Task[Connection]] = []

    def begin(self) -> None:
        route, fresh = self.chance.choice([A, B]), self.chance.random() < 0.2
        self.calls.append(asyncio.create_task(self.pool.acquire(route, fresh=fresh)))

    def cancel(self) -> None:
        self.chance.choice(self.calls).cancel()

    def give_back(self) -> None:
        connection = self.chance.choice(self.calls)
        if connection.done() and not connection.cancelled():
            self.calls.remove(connection)
            if self.chance.random() < 0.7:
                serve(connection.result(), end=self.chance.choice([b"0\r\n\r\n", b"", b"0\r\n\r\nHTTP/1.1"]))
            self.chance.choice([connection.result().release, connection.result().drop])()

    def lose(self) -> None:
        stream = self.chance.choice(self.network.streams)
        deeds: list[Callable[[], None]] = [stream.close, stream.reset, lambda: stream.send(b"0\r\n\r\n")]
        self.chance.choice(deeds)()

    def check(self) -> None:
        assert self.pool.open_connections <= 3
        assert self.pool.idle_connections <= 2
        held = [call.result().stream for call in self.calls if call.done() and not call.cancelled()]
        assert len(held) == len(set(held)), "two calls have the same stream"
        assert not any(stream.is_aborted for stream in held if isinstance(stream, Peer))
        if self.pool.waiting:
            assert self.pool.shortage

    async def run(self) -> None:
        for _ in range(400):
            deeds: list[Callable[[], None]] = [self.begin]
            if self.calls:
                deeds += [self.cancel, self.give_back, self.give_back]
            if self.network.streams:
                deeds.append(self.lose)
            self.chance.choice(deeds)()
            await ticks(self.chance.randrange(3))
            if self.chance.random() < 0.05:
                await asyncio.sleep(self.chance.choice([1, 5, 20]))
            self.check()


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_there_are_never_too_many_and_none_is_lost(seed: int) -> None:
    async def story() -> None:
        chaos = Chaos(seed)
        await chaos.run()
        for call in chaos.calls:
            call.cancel()
        await ticks(5)
        for call in chaos.calls:
            if not call.cancelled():
                call.result().drop()
        await ticks(5)
        assert chaos.pool.waiting == 0
        assert chaos.pool.open_connections == chaos.pool.idle_connections == chaos.network.alive()
        await asyncio.sleep(5)
        assert chaos.pool.open_connections == chaos.network.alive() == 0

    run(story())


# --- Closing -------------------------------------------------------------------------------------------------------


def test_close_drops_the_idle_and_those_in_use() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        idle, used = await pool.acquire(A), await pool.acquire(B)
        serve(idle)
        idle.release()
        known = [pool.is_closed]
        pool.close()
        assert [*known, pool.is_closed] == [False, True]
        assert [stream.is_aborted for stream in network.streams] == [True, True]
        assert counts(pool) == (0, 0, 0)
        pool.close()
        serve(used)
        used.release()
        idle.drop()
        assert counts(pool) == (0, 0, 0)

    run(story())


def test_a_closed_pool_gives_nothing() -> None:
    pool = Network().pool()
    pool.close()
    with pytest.raises(RuntimeError, match=r"^the client is closed$"):
        run(pool.acquire(A))


def test_nobody_hangs_when_the_pool_is_closed_at_any_tick() -> None:
    async def story(released_at: int, closed_at: int) -> None:
        pool = (network := Network(delay=2)).pool(PoolLimits(max_connections=1))
        holder = await pool.acquire(A)
        calls = start(pool, "AB")
        serve(holder)
        await ticks()
        for tick in range(12):
            if tick == released_at:
                holder.release()
            if tick == closed_at:
                served = [call for call in calls if call.done()]
                pool.close()
            await ticks()
        for call in calls:
            assert call.done()
            if call in served:
                call.result().drop()
            else:
                assert isinstance(call.exception(), StreamCancelledError)
                assert str(call.exception()) == "the client was closed while a call waited for a connection"
        assert counts(pool) == (0, 0, 0)
        assert network.alive() == 0

    run(for_each_tick(story))


def test_who_is_connecting_is_told_of_the_close_at_once() -> None:
    async def story() -> None:
        pool = Network(delay=1_000_000).pool(PoolLimits(max_connections=1))
        connecting, waiting = start(pool, "AA")
        await ticks(2)
        pool.close()
        await ticks(5)
        assert isinstance(connecting.exception(), StreamCancelledError)
        assert isinstance(waiting.exception(), StreamCancelledError)

    run(story())


def test_a_call_may_be_cancelled_in_the_tick_of_the_close() -> None:
    async def story() -> None:
        pool = Network(delay=9).pool(PoolLimits(max_connections=1))
        calls = start(pool, "AA")
        await ticks(2)
        for call in calls:
            call.cancel()
        pool.close()
        await asyncio.wait(calls)
        assert all(call.cancelled() for call in calls)

    run(story())


def test_a_connection_that_comes_up_although_it_is_no_longer_wanted_is_aborted() -> None:
    async def story() -> None:
        gate = asyncio.get_running_loop().create_future()
        stream = Peer()

        async def connect(route: Route, tls: TLSContext) -> Peer:
            del route, tls
            with contextlib.suppress(asyncio.CancelledError):
                await gate
            return stream

        pool = Pool(connect, TLSContext())
        (call,) = start(pool, "A")
        await ticks(2)
        pool.close()
        with pytest.raises(StreamCancelledError, match=r"^the client was closed while a call waited for a connection$"):
            await call
        assert stream.is_aborted

    run(story())


# --- Two loops -----------------------------------------------------------------------------------------------------


class Bound(Peer):
    """A stream that, as asyncio's own, cannot be aborted when its loop is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()

    def abort(self) -> None:
        if self.loop.is_closed():
            raise RuntimeError("Event loop is closed")
        super().abort()


def test_connections_of_a_loop_that_is_over_are_forgotten() -> None:
    pool = (network := Network(stream=Bound)).pool(PoolLimits(max_connections=2))

    async def first() -> Connection:
        idle, used = await pool.acquire(A), await pool.acquire(A)
        serve(idle)
        idle.release()
        return used

    async def second(used: Connection) -> None:
        connection = await pool.acquire(A)
        assert not connection.is_reused
        assert connection.stream is network.streams[2]
        assert counts(pool) == (1, 0, 0)
        used.release()
        used.drop()
        assert counts(pool) == (1, 0, 0)
        serve(connection)
        connection.release()
        assert (await pool.acquire(A)).is_reused

    run(second(run(first())))


def test_a_pool_may_be_closed_and_used_up_outside_of_any_loop() -> None:
    pool = Network().pool(PoolLimits(max_connections=3))

    async def story() -> list[Connection]:
        return [await pool.acquire(A) for _ in range(3)]

    first, second, _ = run(story())
    serve(first)
    first.release()
    second.drop()
    assert counts(pool) == (2, 1, 0)
    pool.close()
    assert counts(pool) == (0, 0, 0)


def test_who_waited_in_a_loop_that_was_closed_does_not_disturb_the_next() -> None:
    pool = (network := Network(stream=Bound)).pool(PoolLimits(max_connections=1))
    loop = asyncio.new_event_loop()

    async def begin() -> asyncio.Task[Connection]:
        await pool.acquire(A)
        (call,) = start(pool, "A")
        await ticks(2)
        return call

    call: Any = loop.run_until_complete(begin())
    loop.close()
    assert counts(pool) == (1, 0, 1)
    assert not run(pool.acquire(A)).is_reused
    assert counts(pool) == (1, 0, 0)
    assert len(network.streams) == 2
    call._log_destroy_pending = False  # asyncio would complain that it was never finished, and rightly


def test_who_waited_in_a_loop_that_was_left_for_another_is_turned_away() -> None:
    pool = (network := Network(delay=9)).pool(PoolLimits(max_connections=2))
    left, right = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def begin() -> list[asyncio.Task[Connection]]:
        await pool.acquire(A)
        calls = start(pool, "AA")
        await ticks()
        assert counts(pool) == (2, 0, 1)
        return calls

    async def end(calls: list[asyncio.Task[Connection]]) -> None:
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, StreamCancelledError)

    async def elsewhere() -> None:
        await pool.acquire(A)
        assert counts(pool) == (1, 0, 0)

    calls = left.run_until_complete(begin())
    right.run_until_complete(elsewhere())
    left.run_until_complete(end(calls))
    assert counts(pool) == (1, 0, 0)
    assert network.alive() == 1
    left.close()
    right.close()
