"""What every store must do, as one table of cases.

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
    def test_it_conforms(case: Case) -> None:
        asyncio.run(case(Cluster(store, pass_time)))

Each case gets a store that is empty, and a function that lets time pass by the store's clock.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from rawsse.relay.store import COUNTED, Limits, Store, StoredRun, StoreUnavailableError, Write

LEASE = 0.2

NOBODY_REFUSED = (Limits(""),)


class Cluster(NamedTuple):
    """A store, and how its time passes (seconds)."""

    store: Store
    pass_time: Callable[[float], Awaitable[None]]


Case = Callable[[Cluster], Coroutine[Any, Any, None]]

CASES: list[Case] = []


def case(function: Case) -> Case:
    CASES.append(function)
    return function


def run_of(owner: str = "a", id: str = "run-1", user: str = "ada", tag: str = "0001", alias: str = "") -> StoredRun:
    return StoredRun(user, id, tag, "text", "claude-sonnet-5", 1_000_000.0, alias, "f00d", owner)


async def begin(cluster: Cluster, run: StoredRun | None = None) -> StoredRun:
    run = run or run_of()
    await cluster.store.renew(run.owner, LEASE)
    acquired = await cluster.store.acquire(run, NOBODY_REFUSED)
    assert acquired.known is None
    assert not acquired.is_refused
    return run


async def finish(cluster: Cluster, write: Write, tokens: int, keep_seconds: float) -> bool:
    (is_done,) = await cluster.store.write([write._replace(tokens=tokens, keep_seconds=keep_seconds)])
    return is_done


async def lapse(cluster: Cluster, node: str) -> None:
    """The lease of that node runs out, while `witness` sees it."""
    for _ in range(20):
        await cluster.pass_time(LEASE)
        if node in (await cluster.store.renew("witness", LEASE))[1]:
            return
    pytest.fail(f"the lease of {node} is not over after {20 * LEASE:g} s")


# Beginning -----------------------------------------------------------------------------------------------------------


@case
async def a_run_that_has_begun_is_found_by_every_node(cluster: Cluster) -> None:
    run = await begin(cluster)
    assert await cluster.store.find("ada", "run-1") == run


@case
async def a_run_is_found_only_by_its_user(cluster: Cluster) -> None:
    await begin(cluster)
    assert await cluster.store.find("bob", "run-1") is None


@case
async def users_and_ids_of_any_text_are_kept_apart(cluster: Cluster) -> None:
    odd = [("a/b", "c"), ("a", "b/c"), ("a:b", "c*"), ("ä ü", "\n"), ("", "x"), ("%2F", "%")]
    for number, (user, id) in enumerate(odd):
        await begin(cluster, run_of(user=user, id=id, tag=str(number)))
    for number, (user, id) in enumerate(odd):
        found = await cluster.store.find(user, id)
        assert found is not None
        assert (found.user, found.id, found.tag) == (user, id, str(number))


@case
async def the_second_of_two_requests_with_one_id_gets_the_run_of_the_first(cluster: Cluster) -> None:
    run = await begin(cluster)
    await cluster.store.renew("b", LEASE)
    second = await cluster.store.acquire(run_of(owner="b", tag="0002"), NOBODY_REFUSED)
    assert second.known == run


@case
async def of_many_requests_with_one_id_at_once_one_begins(cluster: Cluster) -> None:
    nodes = [f"node-{number}" for number in range(8)]
    for node in nodes:
        await cluster.store.renew(node, LEASE)
    asked = [cluster.store.acquire(run_of(owner=node, tag=node), NOBODY_REFUSED) for node in nodes]
    answers = await asyncio.gather(*asked)
    (first,) = (node for node, answer in zip(nodes, answers, strict=True) if answer.known is None)
    assert {answer.known.owner for answer in answers if answer.known is not None} == {first}


@case
async def a_request_whose_answer_was_lost_begins_the_same_run_and_counts_once(cluster: Cluster) -> None:
    run = await begin(cluster)
    again = await cluster.store.acquire(run, NOBODY_REFUSED)
    assert again.known is None
    assert not again.is_refused
    assert again.counts[0].open == 1


@case
async def a_node_without_a_lease_begins_nothing(cluster: Cluster) -> None:
    with pytest.raises(StoreUnavailableError):
        await cluster.store.acquire(run_of(), NOBODY_REFUSED)
    assert await cluster.store.find("ada", "run-1") is None


@case
async def a_chat_is_found_by_the_alias_of_its_newest_run(cluster: Cluster) -> None:
    await begin(cluster, run_of(alias="chat/1"))
    newest = await begin(cluster, run_of(id="run-2", tag="0002", alias="chat/1"))
    assert await cluster.store.find_alias("ada", "chat/1") == newest
    assert await cluster.store.find_alias("bob", "chat/1") is None
    assert await cluster.store.find_alias("ada", "chat/2") is None


@case
async def the_open_runs_are_those_of_all_nodes_that_have_not_ended(cluster: Cluster) -> None:
    first = await begin(cluster)
    second = await begin(cluster, run_of(owner="b", id="run-2", tag="0002"))
    assert sorted(run.id for run in await cluster.store.open_runs()) == ["run-1", "run-2"]
    assert await finish(cluster, Write(first, 0, 1, b"x"), 0, 60)
    assert await cluster.store.open_runs() == [second]


@case
async def the_open_runs_of_one_user_are_found_alone(cluster: Cluster) -> None:
    assert await cluster.store.open_runs("ada") == []
    run = await begin(cluster)
    unnamed = await begin(cluster, run_of(user="", tag="0002"))
    assert await cluster.store.open_runs("ada") == [run]
    assert await cluster.store.open_runs("") == [unnamed]
    assert await cluster.store.open_runs("ad") == []


# Writing and reading -------------------------------------------------------------------------------------------------


async def entries_of(cluster: Cluster, run: StoredRun, after: tuple[int, int] = (0, 0)) -> list[tuple[int, int, bytes]]:
    entries, _ = await cluster.store.read("reader", {run.key: after}, 0.01)
    return [(*entry.id, entry.wire) for entry in entries.get(run.key, []) if entry.number]


@case
async def what_was_written_is_read_in_its_order(cluster: Cluster) -> None:
    run = await begin(cluster)
    assert await cluster.store.write([Write(run, 0, 2, b"one two")]) == [True]
    assert await cluster.store.write([Write(run, 2, 3, bytes(range(256)))]) == [True]
    assert await entries_of(cluster, run) == [(1, 2, b"one two"), (1, 3, bytes(range(256)))]
    assert await entries_of(cluster, run, (1, 2)) == [(1, 3, bytes(range(256)))]
    assert await entries_of(cluster, run, (1, 3)) == []
    assert [entry.wire for entry in await cluster.store.entries(run)] == [b"", b"one two", bytes(range(256))]


@case
async def writes_of_several_runs_are_done_at_once(cluster: Cluster) -> None:
    runs = [await begin(cluster, run_of(id=f"run-{number}", tag=str(number))) for number in range(150)]
    assert await cluster.store.write([Write(run, 0, 1, run.id.encode()) for run in runs]) == [True] * 150
    entries, _ = await cluster.store.read("reader", {run.key: (0, 0) for run in runs}, 0.01)
    assert {key: each[-1].wire for key, each in entries.items()} == {run.key: run.id.encode() for run in runs}


@case
async def a_write_that_is_repeated_is_done_once(cluster: Cluster) -> None:
    run = await begin(cluster)
    for _ in range(2):
        assert await cluster.store.write([Write(run, 0, 1, b"one")]) == [True]
    assert await entries_of(cluster, run) == [(1, 1, b"one")]


@case
async def a_write_that_would_leave_a_gap_is_refused(cluster: Cluster) -> None:
    run = await begin(cluster)
    assert await cluster.store.write([Write(run, 1, 2, b"two")]) == [False]
    assert await entries_of(cluster, run) == []


@case
async def a_write_to_a_run_that_is_forgotten_is_refused(cluster: Cluster) -> None:
    run = await begin(cluster)
    assert await finish(cluster, Write(run, 0, 1, b"end"), 0, 0.05)
    async with asyncio.timeout(10):
        while await cluster.store.find(*run.key) is not None:
            await cluster.pass_time(0.05)
    assert await cluster.store.write([Write(run, 1, 2, b"late")]) == [False]
    assert await cluster.store.write([Write(run, 0, 1, b"late")]) == [False]
    assert await cluster.store.find(*run.key) is None
    assert await entries_of(cluster, run) == []


@case
async def the_usage_is_kept_until_a_newer_one_comes(cluster: Cluster) -> None:
    run = await begin(cluster)
    await cluster.store.write([Write(run, 0, 1, b"one", '{"input_tokens":3}')])
    await cluster.store.write([Write(run, 1, 2, b"two")])
    assert await cluster.store.find(*run.key) == replace(run, usage='{"input_tokens":3}')


@case
async def a_reader_waits_for_what_comes(cluster: Cluster) -> None:
    run = await begin(cluster)
    reading = asyncio.ensure_future(cluster.store.read("reader", {run.key: (1, 0)}, 5))
    await cluster.store.write([Write(run, 0, 1, b"one")])
    entries, stopped = await reading
    assert [entry.wire for entry in entries[run.key]] == [b"one"]
    assert stopped == []


@case
async def a_reader_that_is_woken_looks_again(cluster: Cluster) -> None:
    reading = asyncio.ensure_future(cluster.store.read("reader", {}, 5))
    await cluster.store.touch("reader", [])
    assert await reading == ({}, [])


@case
async def the_last_entry_says_so(cluster: Cluster) -> None:
    run = await begin(cluster)
    await cluster.store.write([Write(run, 0, 1, b"one")])
    assert await finish(cluster, Write(run, 1, 3, b"end"), 0, 60)
    entries, _ = await cluster.store.read("reader", {run.key: (1, 0)}, 0.01)
    assert [(entry.number, entry.is_last) for entry in entries[run.key]] == [(1, False), (3, True)]
    assert await cluster.store.find(*run.key) == replace(run, is_ended=True)


@case
async def a_finish_that_is_repeated_is_done_once(cluster: Cluster) -> None:
    run = await begin(cluster)
    await begin(cluster, run_of(id="run-2", tag="0002"))
    for _ in range(2):
        assert await finish(cluster, Write(run, 0, 1, b"end"), 5, 60)
    assert await entries_of(cluster, run) == [(1, 1, b"end")]
    acquired = await cluster.store.admit(NOBODY_REFUSED, counts=False)
    assert acquired.counts[0].open == 1


# Stopping ------------------------------------------------------------------------------------------------------------


@case
async def a_stop_reaches_the_owner_and_stays(cluster: Cluster) -> None:
    run = await begin(cluster)
    await cluster.store.stop(run)
    _, stopped = await cluster.store.read("a", {}, 5)
    assert stopped == [run.key]
    assert await cluster.store.find(*run.key) == replace(run, is_stopped=True)
    _, stopped = await cluster.store.read("a", {}, 0.01)
    assert stopped == []


@case
async def a_run_that_has_ended_is_not_stopped(cluster: Cluster) -> None:
    run = await begin(cluster)
    await finish(cluster, Write(run, 0, 1, b"end"), 0, 60)
    await cluster.store.stop(run)
    assert await cluster.store.find(*run.key) == replace(run, is_ended=True)


# Leases and owners ---------------------------------------------------------------------------------------------------


@case
async def a_lease_that_is_renewed_in_time_is_held(cluster: Cluster) -> None:
    for _ in range(2):
        assert await cluster.store.renew("a", 60) == (True, [])


@case
async def a_lease_that_is_over_is_told_to_its_node_and_to_others(cluster: Cluster) -> None:
    await cluster.store.renew("a", LEASE)
    await lapse(cluster, "a")
    for node in ("a", "b"):
        is_held, dead = await cluster.store.renew(node, LEASE)
        assert is_held == (node == "b")
        assert "a" in dead


@case
async def a_node_that_left_is_not_dead(cluster: Cluster) -> None:
    await cluster.store.renew("a", LEASE)
    await cluster.store.leave("a")
    await cluster.pass_time(2 * LEASE)
    assert await cluster.store.renew("b", 60) == (True, [])


@case
async def runs_whose_taker_is_silent_are_taken_again(cluster: Cluster) -> None:
    run = await begin(cluster)
    await cluster.store.write([Write(run, 0, 7, b"seven frames")])
    await lapse(cluster, "a")
    await cluster.store.take("b", "a", LEASE)  # the answer is lost
    await lapse(cluster, "b")
    (taken,) = await cluster.store.take("c", "b", LEASE)
    assert (taken.run.key, taken.run.epoch, taken.last) == (run.key, 3, 7)


@case
async def it_is_known_when_a_run_was_last_read_elsewhere(cluster: Cluster) -> None:
    run = await begin(cluster)
    assert await cluster.store.touch("b", [run_of(id="missing"), run_of(tag="another")]) == [False, False]
    assert await cluster.store.find("ada", "missing") is None
    assert await cluster.store.unread_seconds(run) == math.inf
    assert await cluster.store.touch("b", [run]) == [True]
    assert 0 <= await cluster.store.unread_seconds(run) < 60
    await cluster.pass_time(0.05)
    assert await cluster.store.unread_seconds(run) >= 0.05
    assert await cluster.store.find(*run.key) == run


@case
async def the_end_of_a_run_that_was_not_begun_does_not_end_the_one_that_was(cluster: Cluster) -> None:
    run = await begin(cluster, run_of("b", tag="0002"))
    assert not await finish(cluster, Write(run_of("a", tag="0001"), 0, 1, b"end"), 0, 60)
    assert await cluster.store.find(*run.key) == run


@case
async def the_runs_of_a_node_that_left_are_taken_at_once(cluster: Cluster) -> None:
    run = await begin(cluster)
    await cluster.store.renew("a", 60)
    await cluster.store.leave("a")
    await cluster.pass_time(0.01)
    assert (await cluster.store.renew("b", 60))[1] == ["a"]
    assert [taken.run.key for taken in await cluster.store.take("b", "a", LEASE)] == [run.key]
    assert (await cluster.store.renew("b", 60))[1] == []


@case
async def the_runs_of_a_live_node_are_not_taken(cluster: Cluster) -> None:
    run = await begin(cluster)
    await cluster.store.renew("a", 60)
    assert await cluster.store.take("b", "a", LEASE) == []
    assert await cluster.store.write([Write(run, 0, 1, b"one")]) == [True]


@case
async def the_runs_of_a_dead_node_are_taken_once(cluster: Cluster) -> None:
    run = await begin(cluster)
    await cluster.store.write([Write(run, 0, 7, b"seven frames", "{}")])
    await lapse(cluster, "a")
    taken = await asyncio.gather(*(cluster.store.take(node, "a", LEASE) for node in ("b", "c", "d")))
    ((new, last),) = (each for some in taken for each in some)
    assert last == 7
    assert new == replace(run, owner=new.owner, epoch=2, usage="{}")
    assert new.owner in ("b", "c", "d")
    assert await cluster.store.find(*run.key) == new


@case
async def the_writes_of_an_owner_whose_run_was_taken_are_refused(cluster: Cluster) -> None:
    run = await begin(cluster)
    await cluster.store.write([Write(run, 0, 1, b"one")])
    await lapse(cluster, "a")
    ((new, last),) = await cluster.store.take("b", "a", LEASE)
    assert await cluster.store.write([Write(run, 1, 2, b"zombie")]) == [False]
    assert not await finish(cluster, Write(run, 1, 2, b"zombie"), 9, 60)
    await cluster.store.renew("b", LEASE)
    assert await finish(cluster, Write(new, 0, last + 1, b"end"), 0, 60)
    assert not await finish(cluster, Write(run, 1, 2, b"zombie"), 9, 60)
    assert await entries_of(cluster, run) == [(1, 1, b"one"), (2, 2, b"end")]


@case
async def a_run_of_a_node_that_died_before_its_first_frame_is_taken(cluster: Cluster) -> None:
    run = await begin(cluster)
    await lapse(cluster, "a")
    ((new, last),) = await cluster.store.take("b", "a", LEASE)
    assert last == 0
    assert await cluster.store.write([Write(run, 0, 1, b"zombie")]) == [False]
    assert await cluster.store.write([Write(new, 0, 1, b"one")]) == [True]


@case
async def a_run_whose_taker_dies_is_taken_again(cluster: Cluster) -> None:
    run = await begin(cluster)
    await cluster.store.write([Write(run, 0, 4, b"four")])
    await lapse(cluster, "a")
    await cluster.store.renew("b", LEASE)
    ((second, _),) = await cluster.store.take("b", "a", LEASE)
    await lapse(cluster, "b")
    ((third, last),) = await cluster.store.take("c", "b", LEASE)
    assert (third.epoch, third.owner, last) == (3, "c", 4)
    assert await cluster.store.write([Write(second, 0, 5, b"zombie")]) == [False]
    assert await cluster.store.write([Write(third, 0, 5, b"end")]) == [True]


@case
async def a_run_that_has_ended_is_not_taken(cluster: Cluster) -> None:
    run = await begin(cluster)
    await finish(cluster, Write(run, 0, 1, b"end"), 0, 60)
    await lapse(cluster, "a")
    assert await cluster.store.take("b", "a", LEASE) == []


@case
async def a_dead_node_loses_only_the_runs_that_it_owns(cluster: Cluster) -> None:
    run = await begin(cluster)
    # As after a lapse: the end is written under the node's new name, and the old one still has the run in its books.
    assert await finish(cluster, Write(replace(run, owner="a2"), 0, 1, b"end"), 0, 0.05)
    for _ in range(20):
        await cluster.pass_time(0.05)
        if await cluster.store.find(*run.key) is None:
            break
    again = await begin(cluster, run_of(owner="b", tag="0002"))
    await cluster.store.renew("b", 60)
    await lapse(cluster, "a")
    assert await cluster.store.take("c", "a", LEASE) == []
    assert await cluster.store.find(*run.key) == again


# Quotas --------------------------------------------------------------------------------------------------------------


async def runs_admitted(cluster: Cluster, limits: tuple[Limits, ...], count: int) -> int:
    await cluster.store.renew("a", 60)
    runs = [run_of(id=f"run-{number}", tag=f"{number}") for number in range(count)]
    answers = await asyncio.gather(*(cluster.store.acquire(run, limits) for run in runs))
    return sum(not answer.is_refused for answer in answers)


@case
async def exactly_as_many_runs_are_open_as_the_limit_says(cluster: Cluster) -> None:
    assert await runs_admitted(cluster, (Limits("ada", open_runs=7), Limits("")), 50) == 7


@case
async def exactly_as_many_requests_are_admitted_as_the_limit_says(cluster: Cluster) -> None:
    assert await runs_admitted(cluster, (Limits("ada", requests_per_minute=5), Limits("")), 50) == 5


@case
async def each_limit_refuses_a_run_once_it_is_used_up(cluster: Cluster) -> None:
    for name in COUNTED:
        used_up: dict[str, Any] = {name: 0}
        assert await runs_admitted(cluster, (Limits("ada", **used_up), Limits("")), 1) == 0, name


@case
async def a_refused_request_counts_nowhere(cluster: Cluster) -> None:
    limits = (Limits("ada"), Limits("", open_runs=1))
    assert await runs_admitted(cluster, limits, 5) == 1
    ada, everyone = (await cluster.store.admit(limits, counts=False)).counts
    assert (ada.open, everyone.open) == (1, 1)


@case
async def a_request_that_is_no_run_counts_as_a_request_alone(cluster: Cluster) -> None:
    limits = (Limits("ada", requests_per_minute=1, open_runs=0, tokens_per_day=0),)
    assert not (await cluster.store.admit(limits)).is_refused
    again = await cluster.store.admit(limits)
    assert again.is_refused
    assert again.counts[0].open == 0


@case
async def a_run_that_ends_gives_back_its_place_and_costs_its_tokens(cluster: Cluster) -> None:
    limits = (Limits("ada", open_runs=1, tokens_per_day=10), Limits(""))
    await cluster.store.renew("a", 60)
    now = (await cluster.store.admit(limits, counts=False)).counts[0].at / 1_000_000
    first, second, third = (replace(run_of(id=f"run-{n}", tag=f"{n}"), time=now) for n in range(3))
    assert not (await cluster.store.acquire(first, limits)).is_refused
    assert (await cluster.store.acquire(second, limits)).is_refused
    assert await finish(cluster, Write(first, 0, 1, b"end"), 9, 60)
    assert not (await cluster.store.acquire(second, limits)).is_refused
    assert await finish(cluster, Write(second, 0, 1, b"end"), 1, 60)
    ada, everyone = (await cluster.store.admit(limits, counts=False)).counts
    assert (ada.tokens, everyone.tokens, ada.open, everyone.open) == (10, 10, 0, 0)
    assert (await cluster.store.acquire(third, limits)).is_refused


@case
async def the_tokens_of_a_run_that_began_on_another_day_do_not_count_today(cluster: Cluster) -> None:
    run = replace(run_of(), time=86_400.0)
    await begin(cluster, run)
    assert await finish(cluster, Write(run, 0, 1, b"end"), 9, 60)
    (everyone,) = (await cluster.store.admit(NOBODY_REFUSED, counts=False)).counts
    assert everyone.tokens == 0


@case
async def requests_come_back_as_time_passes(cluster: Cluster) -> None:
    limits = (Limits("ada", requests_per_minute=600),)  # one each 100 ms
    admitted = 0
    while not (await cluster.store.admit(limits)).is_refused:
        admitted += 1
    assert admitted >= 600
    await cluster.pass_time(0.1)
    assert not (await cluster.store.admit(limits)).is_refused
