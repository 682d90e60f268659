"""rawsse.client.network.pool: who gets a connection, who waits and in which order; connections at rest; nothing is ever lost.

All but the last part are function calls: see `support/pools.py`.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import random
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest
from support.background import PATIENCE
from support.pools import LAST_CHUNK, A, B, Peer, StillNetwork, acquire, exchanged

from rawsse.client.blocking.network import SocketNetwork
from rawsse.client.network.link import Aborted, drive
from rawsse.client.network.pool import MAX_LEFTOVER_BYTES, Lease, Pool, PoolLimits
from rawsse.client.network.route import Origin, Proxy, Route
from rawsse.client.network.tls import TLSContext
from rawsse.errors import APIConnectionError, ConfigurationError, StreamCancelledError
from rawsse.http1 import ClientConnection

ONE = PoolLimits(max_connections=1)


def counts(pool: Pool) -> tuple[int, int, int]:
    """Open, idle, waiting."""
    return pool.open_connections, len(pool.idle), len(pool.queue)


def queued(pool: Pool, route: Route = A, *, fresh: bool = False) -> Lease:
    """A place in the queue."""
    ticket = pool.acquire(route, fresh=fresh)
    assert not ticket.is_granted
    return ticket


def redeem(pool: Pool, ticket: Lease) -> Lease:
    """A lease that was queued, with its connection."""
    del pool
    drive(ticket.connect(math.inf))
    return ticket


def link_of(lease: Lease) -> Any:
    return lease.connection and lease.connection.link


def is_granted(ticket: Lease) -> bool:
    return drive(ticket.granted.wait(0)) and ticket.is_granted


def rested(pool: Pool, route: Route = A, *, end: bytes = LAST_CHUNK) -> Lease:
    """A lease that was used and given back; `end` is what had come of the end of its answer."""
    lease = acquire(pool, route)
    lease.give_back(exchanged(end))
    return lease


def again(pool: Pool) -> bool:
    """Whether the next call gets a connection that was used before."""
    return acquire(pool).is_reused


# --- Limits --------------------------------------------------------------------------------------------------------


def test_the_limits_as_they_are_documented() -> None:
    assert PoolLimits() == PoolLimits(
        max_connections=1000, max_idle=100, idle_seconds=30.0, max_age_seconds=600.0, late_end_seconds=0.01
    )


def test_the_least_and_none_are_allowed() -> None:
    limits = PoolLimits(max_connections=1, max_idle=0, idle_seconds=None, max_age_seconds=None, late_end_seconds=0)
    limits.check()
    assert (limits.idle_seconds, limits.max_age_seconds) == (None, None)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_connections": 0}, "pool limits: max_connections must be a whole number, 1 or more, not 0"),
        ({"max_connections": 1.5}, "pool limits: max_connections must be a whole number, 1 or more, not 1.5"),
        ({"max_connections": None}, "pool limits: max_connections must be a whole number, 1 or more, not None"),
        ({"max_connections": True}, "pool limits: max_connections must be a whole number, 1 or more, not True"),
        ({"idle_seconds": "5"}, "pool limits: idle_seconds must be a number of seconds above 0, or None, not '5'"),
        (
            {"late_end_seconds": None},
            "pool limits: late_end_seconds must be a number of seconds of 0 or more, not None",
        ),
        ({"max_idle": -1}, "pool limits: max_idle must be a whole number, 0 or more, not -1"),
        ({"idle_seconds": 0}, "pool limits: idle_seconds must be a number of seconds above 0, or None, not 0"),
        ({"max_age_seconds": -1}, "pool limits: max_age_seconds must be a number of seconds above 0, or None, not -1"),
        ({"idle_seconds": math.nan}, "pool limits: idle_seconds must be a number of seconds above 0, or None, not nan"),
        ({"late_end_seconds": -1}, "pool limits: late_end_seconds must be a number of seconds of 0 or more, not -1"),
        (
            {"late_end_seconds": math.nan},
            "pool limits: late_end_seconds must be a number of seconds of 0 or more, not nan",
        ),
    ],
)
def test_a_limit_that_cannot_work_is_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PoolLimits(**limits).check()
    assert str(caught.value) == message


# --- Which connection ----------------------------------------------------------------------------------------------


def test_the_first_connection_is_new_and_gets_the_route_and_the_tls_context() -> None:
    network, tls = StillNetwork(), TLSContext()
    pool = Pool(network, tls)
    lease = acquire(pool)
    assert network.links[0].took == (A, tls)
    assert (lease.is_reused, counts(pool)) == (False, (1, 0, 0))


def test_links_may_come_from_elsewhere_than_the_network() -> None:
    network, peer = StillNetwork(), Peer()
    assert not acquire(network.pool(connect=lambda _: peer)).is_reused
    assert peer.took is not None
    assert network.links == []


def test_a_connection_is_used_again_after_a_whole_answer() -> None:
    pool = (network := StillNetwork()).pool()
    assert not rested(pool).is_reused
    assert counts(pool) == (1, 1, 0)
    lease = pool.acquire(A)
    assert isinstance(lease, Lease)
    assert drive(lease.connect(math.inf)) is network.links[0]
    assert lease.is_reused
    assert counts(pool) == (1, 0, 0)
    assert len(network.links) == 1


def test_the_connection_that_came_to_rest_last_is_used_first() -> None:
    pool = (network := StillNetwork()).pool()
    held = [acquire(pool) for _ in range(3)]
    for index in (1, 0, 2):
        held[index].give_back(exchanged())
    leases = [acquire(pool) for _ in range(4)]
    assert [link_of(lease) for lease in leases] == [network.links[index] for index in (2, 0, 1, 3)]


def test_a_connection_of_another_route_is_not_used() -> None:
    pool = StillNetwork().pool()
    rested(pool, B)
    assert not acquire(pool, A).is_reused
    assert acquire(pool, B).is_reused


def test_the_same_origin_through_a_proxy_is_another_route() -> None:
    through = Route(A.origin, Proxy(Origin("http", "proxy", 3128)))
    pool = StillNetwork().pool()
    rested(pool, A)
    assert not acquire(pool, through).is_reused
    rested(pool, through)
    assert acquire(pool, through).is_reused


def test_a_caller_that_insists_on_a_new_connection_gets_one_and_the_others_stay() -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool)
    lease = acquire(pool, fresh=True)
    assert (lease.is_reused, counts(pool)) == (False, (2, 1, 0))
    assert network.alive() == 2


@pytest.mark.parametrize(("route", "fresh"), [(B, False), (A, True)])
def test_with_all_connections_open_the_one_that_rests_longest_makes_room(route: Route, fresh: bool) -> None:
    pool = (network := StillNetwork()).pool(PoolLimits(max_connections=2))
    for lease in [acquire(pool), acquire(pool)]:
        lease.give_back(exchanged())
    lease = acquire(pool, route, fresh=fresh)
    assert [link.is_aborted for link in network.links] == [True, False, False]
    assert (lease.is_reused, counts(pool)) == (False, (2, 1, 0))


@pytest.mark.parametrize("fresh", [False, True])
def test_with_all_connections_in_use_a_call_waits(fresh: bool) -> None:
    pool = StillNetwork().pool(PoolLimits(max_connections=2))
    leases = [acquire(pool), pool.acquire(B)]  # one that is still to connect counts
    leases.append(queued(pool, fresh=fresh))
    assert not is_granted(leases[-1])
    assert counts(pool) == (2, 0, 1)


# --- Giving back ---------------------------------------------------------------------------------------------------


def test_a_connection_that_cannot_be_used_again_is_dropped_when_it_is_given_back() -> None:
    pool = (network := StillNetwork()).pool()
    acquire(pool).give_back(ClientConnection("a.example"))
    assert counts(pool) == (0, 0, 0)
    assert network.alive() == 0


def test_it_takes_no_other_connection_with_it() -> None:
    pool = (network := StillNetwork()).pool(PoolLimits(max_idle=1))
    broken = acquire(pool)
    rested(pool)
    broken.give_back(ClientConnection("a.example"))
    assert [link.is_aborted for link in network.links] == [True, False]


def test_a_dropped_connection_is_aborted_at_once() -> None:
    pool = (network := StillNetwork()).pool()
    acquire(pool).drop()
    assert network.links[0].is_aborted
    assert counts(pool) == (0, 0, 0)
    assert not again(pool)


def test_a_lease_that_is_over_does_not_touch_the_next_one() -> None:
    pool = (network := StillNetwork()).pool()
    first = rested(pool)
    second = acquire(pool)
    first.give_back(exchanged())
    assert counts(pool) == (1, 0, 0)
    second.drop()
    second.drop()
    second.give_back(exchanged())
    assert counts(pool) == (0, 0, 0)
    assert network.alive() == 0


def test_no_more_than_max_idle_are_kept_and_the_longest_at_rest_go() -> None:
    pool = (network := StillNetwork()).pool(PoolLimits(max_idle=2))
    for lease in [acquire(pool, route) for route in (A, B, A, A)]:
        lease.give_back(exchanged())
    assert counts(pool) == (2, 2, 0)
    assert [link.is_aborted for link in network.links] == [True, True, False, False]


def test_with_max_idle_0_nothing_is_kept_even_if_a_call_waits_for_it() -> None:
    pool = StillNetwork().pool(PoolLimits(max_connections=1, max_idle=0))
    lease = acquire(pool)
    ticket = queued(pool)
    lease.give_back(exchanged())
    assert not redeem(pool, ticket).is_reused


def test_what_connecting_raises_is_raised_and_its_place_is_free_when_the_lease_is_dropped() -> None:
    peer = Peer()
    peer.failure = APIConnectionError("cannot connect to http://a: no route to host")
    pool = StillNetwork().pool(ONE, connect=lambda _: peer)
    lease = pool.acquire(A)
    with pytest.raises(APIConnectionError, match="no route to host"):
        drive(lease.connect(math.inf))
    lease.drop()
    assert counts(pool) == (0, 0, 0)


def test_a_lease_that_is_dropped_before_it_connects_does_not_connect() -> None:
    pool = StillNetwork().pool()
    for lease in (pool.acquire(A), pool.acquire(A)):
        assert isinstance(lease, Lease)
        lease.drop()
        with pytest.raises(Aborted):
            drive(lease.connect(math.inf))
    assert counts(pool) == (0, 0, 0)


def test_one_that_is_dropped_while_its_dead_connection_is_replaced_does_not_connect() -> None:
    network = StillNetwork()
    leases: list[Lease] = []

    def new_link(_: object) -> Peer:
        for lease in leases:
            lease.drop()  # by another thread, in this moment
        return network.link()

    pool = network.pool(connect=new_link)
    rested(pool)
    lease = pool.acquire(A)
    assert isinstance(lease, Lease)
    leases.append(lease)
    network.links[0].close()
    with pytest.raises(Aborted):
        drive(lease.connect(math.inf))
    assert network.links[1].took is None
    assert counts(pool) == (0, 0, 0)


# --- The queue -----------------------------------------------------------------------------------------------------


def test_the_queue_is_served_in_order_one_call_for_each_place() -> None:
    pool = StillNetwork().pool(ONE)
    lease = acquire(pool)
    tickets = [queued(pool, route) for route in (A, B, A, B)]
    for served, ticket in enumerate(tickets):
        assert [is_granted(one) for one in tickets] == [index < served for index in range(4)]
        assert counts(pool) == (1, 0, 4 - served)
        lease.give_back(exchanged())
        lease = redeem(pool, ticket)
    assert counts(pool) == (1, 0, 0)


def test_a_call_that_comes_later_does_not_overtake_the_queue() -> None:
    pool = StillNetwork().pool(ONE)
    lease = acquire(pool)
    first, second = queued(pool, B), queued(pool, A)
    lease.give_back(exchanged())
    assert (is_granted(first), is_granted(second)) == (True, False)


def test_a_call_that_waits_for_the_same_route_gets_the_connection_itself() -> None:
    pool = (network := StillNetwork()).pool(ONE)
    lease = acquire(pool)
    ticket = queued(pool)
    lease.give_back(exchanged())
    assert counts(pool) == (1, 0, 0)
    assert redeem(pool, ticket).is_reused
    assert len(network.links) == 1


def test_a_call_that_waits_for_another_route_gets_its_place() -> None:
    pool = (network := StillNetwork()).pool(ONE)
    lease = acquire(pool)
    ticket = queued(pool, B)
    lease.give_back(exchanged())
    assert network.links[0].is_aborted
    granted = redeem(pool, ticket)
    assert (granted.route, granted.is_reused) == (B, False)
    assert counts(pool) == (1, 0, 0)


def test_a_call_that_waits_and_insists_on_a_new_connection_gets_a_new_one() -> None:
    pool = (network := StillNetwork()).pool(ONE)
    lease = acquire(pool)
    ticket = queued(pool, fresh=True)
    lease.give_back(exchanged())
    assert not redeem(pool, ticket).is_reused
    assert network.alive() == 1


def test_a_place_that_is_dropped_goes_to_the_next() -> None:
    pool = StillNetwork().pool(ONE)
    lease = acquire(pool)
    ticket = queued(pool)
    lease.drop()
    assert not redeem(pool, ticket).is_reused


def test_a_connection_that_dies_between_its_grant_and_its_use_is_replaced() -> None:
    pool = (network := StillNetwork()).pool(ONE)
    lease = acquire(pool)
    ticket = queued(pool)
    lease.give_back(exchanged())
    network.links[0].close()
    assert not redeem(pool, ticket).is_reused
    assert network.alive() == 1
    assert counts(pool) == (1, 0, 0)


def test_a_call_that_leaves_the_queue_is_passed_over() -> None:
    pool = StillNetwork().pool(ONE)
    lease = acquire(pool)
    first, second = queued(pool), queued(pool)
    first.drop()
    first.drop()
    assert len(pool.queue) == 1
    lease.give_back(exchanged())
    assert (is_granted(first), is_granted(second)) == (False, True)


@pytest.mark.parametrize("how", ["give back", "drop"])
def test_a_call_that_leaves_when_it_was_granted_passes_the_grant_on(how: str) -> None:
    pool = (network := StillNetwork()).pool(ONE)
    lease = acquire(pool)
    first, second = queued(pool), queued(pool)
    lease.give_back(exchanged()) if how == "give back" else lease.drop()
    assert (is_granted(first), is_granted(second)) == (True, False)
    first.drop()
    assert is_granted(second)
    redeem(pool, second).drop()
    assert counts(pool) == (0, 0, 0)
    assert network.alive() == 0


# --- Leases that are dropped without a word ------------------------------------------------------------------------


def test_a_lease_that_is_forgotten_frees_its_place() -> None:
    pool = StillNetwork().pool(ONE)
    lease = acquire(pool)
    ticket = queued(pool)
    del lease
    assert is_granted(ticket)
    assert counts(pool) == (1, 0, 0)


def test_so_does_one_that_was_granted_and_never_taken() -> None:
    pool = StillNetwork().pool(ONE)
    lease = acquire(pool)
    first, second = queued(pool), queued(pool)
    lease.drop()
    del first
    assert is_granted(second)


def test_so_does_one_that_only_the_garbage_collector_finds() -> None:
    pool = StillNetwork().pool(ONE)
    lease: Any = acquire(pool)
    lease.caller = lease  # as a traceback that holds the frame that holds the lease
    ticket = queued(pool)
    del lease
    gc.collect()
    assert is_granted(ticket)
    assert counts(pool) == (1, 0, 0)


@pytest.mark.parametrize("end", ["lost", "given back", "dropped"])
def test_the_connection_of_a_lease_that_an_interrupted_caller_lost_is_aborted(end: str) -> None:
    network = StillNetwork()
    lease: Any = acquire(network.pool())
    aborts: list[str] = []
    network.links[0].abort = lambda: aborts.append(end)  # type: ignore[method-assign]
    if end != "lost":
        lease.give_back(exchanged() if end == "given back" else None)
    del lease
    assert aborts == {"lost": ["lost"], "given back": [], "dropped": ["dropped"]}[end]


def test_a_lease_may_be_forgotten_in_the_middle_of_a_call_of_the_pool() -> None:
    # The garbage collector runs where it likes, also in a thread that holds the pool's lock.
    held: list[Lease] = []

    def forgetful_link(_: object) -> Peer:
        held.clear()
        return network.link()

    network = StillNetwork()
    pool = network.pool(PoolLimits(max_connections=2), connect=forgetful_link)
    held.append(acquire(pool))
    lease = acquire(pool)
    assert counts(pool) == (1, 0, 0)
    lease.drop()
    assert counts(pool) == (0, 0, 0)


def test_neither_pool_nor_lease_is_kept_by_the_other() -> None:
    pool = StillNetwork().pool()
    lease = acquire(pool)
    kept: list[Callable[[], object]] = [weakref.ref(lease), weakref.ref(pool)]
    gc.disable()
    try:
        del lease, pool
        assert [reference() for reference in kept] == [None, None]
    finally:
        gc.enable()


# --- Expiry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 29.999, 30, 30.001])
def test_a_connection_rests_for_idle_seconds_at_most(seconds: float) -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool)
    network.time = 1000.0 + seconds
    lease = acquire(pool)
    assert lease.is_reused is (seconds < 30)
    assert network.links[0].is_aborted is (seconds >= 30)


@pytest.mark.parametrize(
    ("idle_seconds", "max_age_seconds", "expected"),
    [(30, 600, 130), (None, 600, 610), (30, 50, 60), (30, None, 130), (None, None, math.inf)],
)
def test_a_connection_expires_by_its_rest_or_by_its_age(
    idle_seconds: float | None, max_age_seconds: float | None, expected: float
) -> None:
    pool = (network := StillNetwork()).pool(PoolLimits(idle_seconds=idle_seconds, max_age_seconds=max_age_seconds))
    network.time = 10.0
    lease = acquire(pool)
    network.time = min(100.0, expected - 1)
    lease.give_back(exchanged())
    for at, is_kept in ((math.nextafter(expected, 0), True), (expected, expected == math.inf)):
        network.time = min(at, 1e9)
        acquire(pool, B).drop()
        assert counts(pool) == (is_kept, is_kept, 0)


def test_each_rest_counts_by_itself() -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool)
    for _ in range(10):
        network.time += 29
        rested(pool)
    assert len(network.links) == 1


def test_connections_expire_one_by_one() -> None:
    pool = (network := StillNetwork()).pool()
    for lease in [acquire(pool) for _ in range(3)]:
        lease.give_back(exchanged())
        network.time += 5
    alive = []
    for at in (1029.9, 1034.9, 1039.9, 1040.1):  # given back at 1000, 1005 and 1010
        network.time = at
        acquire(pool, B).drop()
        alive.append(network.alive())
    assert alive == [3, 2, 1, 0]


def test_a_connection_that_grew_too_old_in_use_is_dropped_when_it_is_given_back() -> None:
    pool = (network := StillNetwork()).pool()
    lease = acquire(pool)
    network.time += 600
    lease.give_back(exchanged())
    assert network.links[0].is_aborted


def test_the_age_of_a_connection_counts_from_its_making_whatever_the_number_of_its_uses() -> None:
    pool = (network := StillNetwork()).pool(PoolLimits(idle_seconds=None, max_age_seconds=600))
    rested(pool)
    network.time += 599
    assert rested(pool).is_reused
    network.time += 1
    assert not again(pool)


def test_without_limits_of_time_a_connection_is_kept() -> None:
    pool = (network := StillNetwork()).pool(PoolLimits(idle_seconds=None, max_age_seconds=None))
    rested(pool)
    network.time += 1e6
    assert again(pool)


def test_the_one_that_expires_first_goes_first_whenever_it_came_to_rest() -> None:
    pool = (network := StillNetwork()).pool(PoolLimits(idle_seconds=30, max_age_seconds=40))
    old = acquire(pool)
    network.time += 20
    young = acquire(pool)
    for lease in (young, old):
        lease.give_back(exchanged())
    alive = []
    for _ in range(2):
        network.time += 20
        acquire(pool, B).drop()
        alive.append([not link.is_aborted for link in network.links[:2]])
    assert alive == [[False, True], [False, False]]


# --- The peer closes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Peer.close, Peer.reset])
def test_a_connection_that_the_peer_ended_is_not_used_again(end: Callable[[Peer], None]) -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool)
    end(network.links[0])
    lease = acquire(pool)
    assert network.links[0].is_aborted
    assert (lease.is_reused, counts(pool)) == (False, (1, 0, 0))


def test_of_several_the_dead_are_dropped_and_a_living_one_is_used() -> None:
    pool = (network := StillNetwork()).pool()
    for lease in [acquire(pool) for _ in range(4)]:
        lease.give_back(exchanged())
    for index in (2, 3):
        network.links[index].close()
    lease = acquire(pool)
    assert (lease.is_reused, counts(pool)) == (True, (2, 1, 0))
    assert [link.is_aborted for link in network.links] == [False, False, True, True]


def test_a_dead_connection_makes_room_before_a_living_one_does() -> None:
    pool = (network := StillNetwork()).pool(PoolLimits(max_connections=2))
    rested(pool)
    rested(pool, B)
    network.links[1].close()
    lease = acquire(pool, B)
    assert [link.is_aborted for link in network.links] == [False, True, False]
    lease.drop()


# --- What comes late -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(len(LAST_CHUNK) + 1))
def test_the_end_of_the_answer_may_come_while_the_connection_rests(cut: int) -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool, end=LAST_CHUNK[:cut])
    if LAST_CHUNK[cut:]:
        network.links[0].send(LAST_CHUNK[cut:])
    assert again(pool)
    assert network.time == 1000.0


def test_it_may_come_byte_by_byte_and_have_trailers() -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool, end=b"")
    for byte in b"0\r\nX-Time: 3\r\n\r\n":
        network.links[0].send(bytes([byte]))
    assert again(pool)


def test_so_may_the_last_of_an_answer_whose_length_is_told() -> None:
    pool = (network := StillNetwork()).pool()
    http = ClientConnection("x")
    http.send_request("GET", "/", [])
    http.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
    while http.next_event() is not None:
        pass
    acquire(pool).give_back(http)
    network.links[0].send(b"more")
    assert again(pool)


@pytest.mark.parametrize("cut", range(len(LAST_CHUNK)))
def test_the_next_call_waits_for_an_end_that_comes_two_milliseconds_late(cut: int) -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool, end=LAST_CHUNK[:cut])
    network.call_at(network.time + 0.002, lambda: network.links[0].send(LAST_CHUNK[cut:]))
    assert again(pool)
    assert network.time == 1000.002
    assert len(network.links) == 1


def test_an_end_that_comes_in_pieces_is_waited_for_once() -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool, end=b"")
    for number, byte in enumerate(LAST_CHUNK):
        network.call_at(network.time + 0.004 * (number + 1), partial(network.links[0].send, bytes([byte])))
    assert not again(pool)
    assert network.time == 1000.01


def test_four_calls_in_a_row_use_one_connection() -> None:
    pool = (network := StillNetwork()).pool()
    for number in range(4):
        lease = acquire(pool)
        assert lease.is_reused is (number > 0)
        lease.give_back(exchanged(b""))
        network.call_at(network.time + 0.002, lambda: network.links[0].send(LAST_CHUNK))
    assert len(network.links) == 1


def test_an_end_that_never_comes_is_given_up_and_the_place_is_kept() -> None:
    pool = (network := StillNetwork()).pool(ONE)
    rested(pool, end=b"")
    lease = acquire(pool)
    assert network.time == pytest.approx(1000.01)
    assert not lease.is_reused
    assert [link.is_aborted for link in network.links] == [True, False]
    assert counts(pool) == (1, 0, 0)
    ticket = queued(pool)
    lease.give_back(exchanged())
    assert redeem(pool, ticket).is_reused


def test_it_is_not_waited_for_longer_than_the_call_may_take() -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool, end=b"")
    lease = pool.acquire(A)
    assert isinstance(lease, Lease)
    drive(lease.connect(network.time + 0.001))
    assert network.time == pytest.approx(1000.001)


def test_one_that_is_whole_is_used_before_one_that_is_not() -> None:
    pool = (network := StillNetwork()).pool()
    first, second = acquire(pool), acquire(pool)
    first.give_back(exchanged())
    second.give_back(exchanged(b""))
    assert link_of(acquire(pool)) is network.links[0]
    assert network.time == 1000.0


def test_with_late_end_seconds_0_an_end_is_not_waited_for_and_the_connection_is_used_later() -> None:
    pool = (network := StillNetwork()).pool(PoolLimits(late_end_seconds=0))
    rested(pool, end=b"")
    assert not again(pool)
    assert network.time == 1000.0
    network.links[0].send(LAST_CHUNK)
    assert link_of(acquire(pool)) is network.links[0]


@pytest.mark.parametrize("end", [Peer.close, Peer.reset])
def test_a_peer_that_leaves_instead_of_ending_its_answer_is_replaced_at_once(end: Callable[[Peer], None]) -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool, end=b"")
    network.call_at(network.time + 0.002, lambda: end(network.links[0]))
    assert not again(pool)
    assert network.time == 1000.002


def test_a_lease_that_is_dropped_while_it_waits_for_an_end_is_over() -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool, end=b"")
    lease = pool.acquire(A)
    assert isinstance(lease, Lease)
    network.call_at(network.time + 0.002, lease.drop)
    with pytest.raises(Aborted):
        drive(lease.connect(math.inf))
    assert counts(pool) == (0, 0, 0)
    assert network.alive() == 0


def test_one_whose_end_never_comes_expires() -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool, end=b"")
    network.time += 30
    assert not again(pool)
    assert network.links[0].is_aborted


def test_a_call_in_the_queue_waits_for_the_end_too() -> None:
    pool = (network := StillNetwork()).pool(ONE)
    lease = acquire(pool)
    ticket = queued(pool)
    lease.give_back(exchanged(b""))
    network.call_at(network.time + 0.002, lambda: network.links[0].send(LAST_CHUNK))
    assert redeem(pool, ticket).is_reused


@pytest.mark.parametrize(
    "unasked",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n",
        b"\r\n",
        b"\0",
    ],
    ids=["a response", "408", "an empty line", "NUL"],
)
@pytest.mark.parametrize("end", [LAST_CHUNK, b""], ids=["after the end", "with the end"])
@pytest.mark.parametrize("delay", [0, 0.002], ids=["at rest", "late"])
def test_unsolicited_bytes_are_never_the_answer_to_the_next_request(unasked: bytes, end: bytes, delay: float) -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool, end=end[:2] if delay else end)
    rest = LAST_CHUNK.removeprefix(end[:2] if delay else end)
    network.call_at(network.time + delay, lambda: network.links[0].send(rest + unasked))
    network.wait_until(network.time)
    assert not again(pool)
    assert network.links[0].is_aborted


def test_a_connection_with_unsolicited_bytes_is_dropped_when_it_is_given_back() -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool, end=LAST_CHUNK + b"HTTP/1.1 200 OK\r\n")
    assert network.links[0].is_aborted


def test_an_end_that_breaks_http_ends_the_connection() -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool, end=b"")
    network.links[0].send(b"nonsense\r\n")
    assert not again(pool)
    assert network.links[0].is_aborted


def test_a_close_right_after_the_end_ends_the_connection() -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool, end=b"")
    network.links[0].send(LAST_CHUNK)
    network.links[0].close()
    assert not again(pool)
    assert network.links[0].is_aborted


def chunk(size: int) -> bytes:
    """A chunk of so many bytes, of which 9 are around its data: the five digits of its length, and two line ends."""
    return b"%05x\r\n%b\r\n" % (size - 9, b"x" * (size - 9))


@pytest.mark.parametrize(("excess", "is_reused"), [(0, True), (1, False)])
def test_what_came_at_rest_is_read_up_to_a_bound(excess: int, is_reused: bool) -> None:
    pool = (network := StillNetwork()).pool()
    rested(pool, end=b"")
    for piece in (chunk(500), chunk(MAX_LEFTOVER_BYTES - 505 + excess), LAST_CHUNK):
        network.links[0].send(piece)
    assert again(pool) is is_reused


def test_the_bound_is_64_kib_and_is_that_of_each_exchange() -> None:
    pool = (network := StillNetwork()).pool()
    for _ in range(3):
        rested(pool, end=b"")
        network.links[0].send(chunk(MAX_LEFTOVER_BYTES - 5) + LAST_CHUNK)
    assert again(pool)
    assert len(network.links) == 1
    assert MAX_LEFTOVER_BYTES == 65536


def test_the_bound_is_for_all_that_comes_between_two_exchanges() -> None:
    pool = (network := StillNetwork()).pool(PoolLimits(late_end_seconds=0))
    rested(pool, end=b"")
    for is_aborted in (False, True):
        network.links[0].send(chunk(40_000))
        acquire(pool).drop()
        assert network.links[0].is_aborted is is_aborted


# --- Closing -------------------------------------------------------------------------------------------------------


def test_close_drops_the_idle_and_those_in_use() -> None:
    pool = (network := StillNetwork()).pool()
    used = acquire(pool, B)
    idle = rested(pool)
    known = [pool.is_closed]
    pool.close()
    pool.close()
    assert [*known, pool.is_closed] == [False, True]
    assert network.alive() == 0
    used.give_back(exchanged())
    idle.drop()
    assert counts(pool) == (0, 0, 0)


def test_a_closed_pool_gives_nothing() -> None:
    pool = StillNetwork().pool()
    pool.close()
    with pytest.raises(RuntimeError, match=r"^the client is closed$"):
        pool.acquire(A)


def test_what_is_given_back_while_the_pool_is_closed_is_dropped() -> None:
    pool = (network := StillNetwork()).pool()
    lease = acquire(pool)
    network.links[0].abort, abort = lambda: lease.give_back(exchanged()), network.links[0].abort  # type: ignore[method-assign]
    other = acquire(pool)
    pool.close()
    abort()
    other.drop()
    assert (counts(pool), network.alive()) == ((0, 0, 0), 0)


def test_a_lease_that_is_dropped_after_it_was_given_back_leaves_the_next_call_its_connection() -> None:
    pool = (network := StillNetwork()).pool()
    first = acquire(pool)
    first.give_back(exchanged())
    second = pool.acquire(A)
    assert second.is_reused
    first.drop()  # by another thread, which saw it before it was given back
    assert (network.alive(), counts(pool)) == (1, (1, 0, 0))
    second.drop()
    assert network.alive() == 0


def test_a_forked_child_drops_its_lease_without_a_lock_that_a_thread_of_the_parent_may_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = (network := StillNetwork()).pool()
    lease = acquire(pool)
    monkeypatch.setattr("os.getpid", lambda: -1)
    monkeypatch.setattr(pool, "_lock", None)  # to take it would raise
    lease.drop()
    assert network.alive() == 0


def use(pool: Pool) -> None:
    """Some calls, one of which leaves the queue; those that come when the pool is closed fail."""
    leases: list[Lease] = []
    try:
        for route in (A, A, B, A, A):
            leases += [pool.acquire(route)]
    except RuntimeError as exc:
        if str(exc) != "the client is closed":
            raise
    if leases:
        leases.pop().drop()
    for lease in leases:
        with contextlib.suppress(Aborted, StreamCancelledError):
            drive(lease.connect(math.inf))
            lease.give_back(exchanged())
        lease.drop()


def test_a_signal_handler_may_close_the_pool_before_any_line_of_it() -> None:
    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename == Pool.close.__code__.co_filename and event == "line" and next(lines) == at:
            pool.close()
        return trace

    at, is_closed = -1, True
    while is_closed:
        at += 1
        pool, lines = (network := StillNetwork()).pool(PoolLimits(max_connections=2)), itertools.count()
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            use(pool)
        finally:
            sys.settrace(before)
        is_closed = pool.is_closed
        assert not is_closed or (len(pool.queue), network.alive()) == (0, 0)
    assert at > 200


def test_calls_in_the_queue_are_woken_by_the_close() -> None:
    pool = StillNetwork().pool(ONE)
    lease = acquire(pool)
    tickets = [queued(pool), queued(pool)]
    pool.close()
    for ticket in tickets:
        assert drive(ticket.granted.wait(0))
        with pytest.raises(StreamCancelledError, match=r"^the client was closed while a call waited for a connection$"):
            drive(ticket.connect(math.inf))
        ticket.drop()
    lease.drop()
    assert counts(pool) == (0, 0, 0)


def test_a_call_that_was_granted_a_place_before_the_close_does_not_connect() -> None:
    pool = (network := StillNetwork()).pool(ONE)
    lease = acquire(pool)
    ticket = queued(pool)
    lease.drop()
    pool.close()
    with pytest.raises(Aborted):
        redeem(pool, ticket)
    assert network.alive() == 0


def test_a_close_in_the_middle_of_a_connect_leaves_nothing() -> None:
    class Slow(Peer):
        async def connect(self, route: Route, tls: TLSContext, deadline: float) -> Peer:
            pool.close()
            await super().connect(route, tls, deadline)
            return self

    links = [Slow()]
    pool = StillNetwork().pool(connect=lambda _: links[0])
    with pytest.raises(Aborted):
        acquire(pool)
    assert links[0].is_aborted
    assert counts(pool) == (0, 0, 0)


# --- Whatever happens ----------------------------------------------------------------------------------------------


class Chaos:
    """Calls that begin, end, give up, are forgotten and lose their peers, in an order that the seed determines."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.network = StillNetwork()
        limits = PoolLimits(max_connections=3, max_idle=2, idle_seconds=5, max_age_seconds=20)
        self.pool = self.network.pool(limits)
        self.leases: list[Lease] = []
        self.tickets: list[Lease] = []

    def begin(self) -> None:
        place = self.pool.acquire(self.chance.choice([A, B]), fresh=self.chance.random() < 0.2)
        if not place.is_granted:
            self.tickets.append(place)
        else:
            self.take(place)

    def take(self, lease: Lease) -> None:
        if self.chance.random() < 0.9:
            with contextlib.suppress(Aborted):
                drive(lease.connect(math.inf))
        self.leases.append(lease)

    def redeem(self) -> None:
        for ticket in [ticket for ticket in self.tickets if is_granted(ticket)]:
            self.tickets.remove(ticket)
            self.take(ticket)

    def leave(self) -> None:
        if self.tickets:
            self.tickets.pop(self.chance.randrange(len(self.tickets))).drop()

    def give_back(self) -> None:
        if self.leases:
            lease = self.leases.pop(self.chance.randrange(len(self.leases)))
            deed = self.chance.randrange(4)
            if deed < 2:
                lease.give_back(exchanged(self.chance.choice([LAST_CHUNK, b"", LAST_CHUNK + b"HTTP/1.1"])))
            elif deed == 2:
                lease.drop()
            elif link_of(lease):
                link_of(lease).abort()  # as the interrupted caller's `finally` does, before it forgets the lease

    def lose(self) -> None:
        if self.network.links:
            link = self.chance.choice(self.network.links)
            deeds: list[Callable[[], None]] = [link.close, partial(link.send, LAST_CHUNK)]
            self.chance.choice(deeds)()

    def wait(self) -> None:
        self.network.wait_until(self.network.time + self.chance.choice([0.001, 1, 5, 20]))

    def check(self) -> None:
        assert self.pool.open_connections <= 3
        assert len(self.pool.idle) <= 2
        links = [link_of(lease) for lease in self.leases if link_of(lease)]
        assert len(links) == len(set(links)), "two calls have the same link"
        granted = sum(is_granted(ticket) for ticket in self.tickets)
        assert self.pool.open_connections == len(self.pool.idle) + len(self.leases) + granted
        if self.pool.queue:
            assert self.pool.open_connections == 3


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_there_are_never_too_many_and_none_is_lost(seed: int) -> None:
    chaos = Chaos(seed)
    deeds = [chaos.begin, chaos.begin, chaos.redeem, chaos.leave, chaos.give_back, chaos.give_back, chaos.lose]
    for _ in range(400):
        chaos.chance.choice([*deeds, chaos.wait] if chaos.chance.random() < 0.3 else deeds)()
        chaos.check()
    for ticket in chaos.tickets:
        ticket.drop()
    for lease in chaos.leases:
        lease.drop()
    assert len(chaos.pool.queue) == 0
    assert chaos.pool.open_connections == len(chaos.pool.idle) == chaos.network.alive()
    chaos.pool.close()
    assert chaos.pool.open_connections == chaos.network.alive() == 0
    assert chaos.network.timers == []


# --- Many threads --------------------------------------------------------------------------------------------------


class Busy(Peer):
    """A link that knows how many are connected at a time."""

    now, most = 0, 0
    lock = threading.Lock()

    async def connect(self, route: Route, tls: TLSContext, deadline: float) -> Peer:
        await super().connect(route, tls, deadline)
        with self.lock:
            Busy.now += 1
            Busy.most = max(Busy.most, Busy.now)
        return self

    def abort(self) -> None:
        with self.lock:
            Busy.now -= not self.is_aborted and self.took is not None
            self._is_aborted = True


def test_many_threads_share_no_more_than_max_connections() -> None:
    network = SocketNetwork()
    pool = Pool(network, TLSContext(), PoolLimits(max_connections=3), connect=lambda _: Busy())
    chances, failures, served = random.Random(1), [], []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(50):
            place = pool.acquire(chance.choice([A, B]), fresh=chance.random() < 0.1)
            patience = PATIENCE * (chance.random() > 0.2)
            if not place.is_granted and not drive(place.granted.wait(network.now() + patience)):
                place.drop()
                continue
            drive(place.connect(math.inf))
            served.append(place)
            place.give_back(exchanged()) if chance.random() < 0.8 else place.drop()

    def guarded(seed: int) -> None:
        try:
            work(seed)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=guarded, args=(chances.random(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == []
    assert len(served) > 100
    assert Busy.most <= 3
    assert len(pool.queue) == 0
    assert pool.open_connections == len(pool.idle) == Busy.now
    pool.close()
    assert Busy.now == 0
