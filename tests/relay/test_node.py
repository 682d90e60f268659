"""rawsse.relay.node: runs of several nodes that share a store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from support.clock import run, ticks
from support.streams import STOP, block_start, block_stop, delta, end, start, text_delta

from rawsse.relay.dialects import Answer, Dialect, EventsDialect, Failure, MessagesDialect, TextDialect, WholeDialect
from rawsse.relay.node import WRITE_PAUSE_SECONDS
from rawsse.relay.record import LEASE_LOST, NODE_LOST
from rawsse.relay.runs import STOPPED
from rawsse.relay.store import Limits, MemoryStore, StoreUnavailableError, Taken
from rawsse.relay.stored_runs import RemoteRun

from .nodes import BLOCK, LEASE, Host, cluster, join, until
from .outlets import TEXT_BLOCK, FakeOutlet, data

THINKING_BLOCK = {"type": "thinking", "thinking": "", "signature": ""}

ANSWERED = start()["message"]["model"]

HELLO = ['{"text":"Hel"}', '{"text":"lo"}', "[DONE]"]


async def say_hello(api: Any) -> None:
    api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
    await ticks(20)
    api.send(text_delta(0, "lo"), block_stop(0), end(), STOP)


def counted(*hosts: Host) -> list[str]:
    """The runs that the metrics of all nodes count together."""
    return [record.run for host in hosts for record in host.kept.records if record.error != LEASE_LOST]


def test_a_run_is_read_on_every_node_with_the_same_bytes() -> None:
    async def story() -> None:
        async with cluster(3) as (a, b, c):
            owned, api = await a.speaking()
            before = join(owned)
            remote = await b.node.find("ada", "run-1")
            assert isinstance(remote, RemoteRun)
            during = join(remote)
            await say_hello(api)
            assert data(await before.done()) == data(await during.done()) == HELLO
            assert before.body == during.body
            finished = await c.node.find("ada", "run-1")
            assert finished is not None
            assert finished.is_finished
            after = join(finished)
            assert await after.done() == before.body

    run(story())


def test_a_reader_goes_on_at_another_node_where_it_was() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            owned, api = await a.speaking()
            outlet = join(owned)
            await say_hello(api)
            whole = await outlet.done()
            for number in range(4):
                remote = await b.node.find("ada", "run-1")
                assert remote is not None
                rest = whole.split(b"\n\n", number)[-1]
                assert await join(remote, number).done() == rest or number == 3

    run(story())


def test_readers_that_come_to_another_node_at_once_all_get_everything() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            owned, api = await a.speaking()
            here = join(owned)
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await ticks(50)
            b.gate.opened.clear()
            finds = [asyncio.ensure_future(b.node.find("ada", "run-1")) for _ in range(3)]
            await ticks(20)
            b.gate.opened.set()
            found = await asyncio.gather(*finds)
            outlets = [join(remote) for remote in found if remote is not None]
            await ticks(50)
            api.send(text_delta(0, "lo"), block_stop(0), end(), STOP)
            async with asyncio.timeout(1):
                assert [await outlet.done() for outlet in outlets] == [await here.done()] * 3

    run(story())


def test_a_reader_that_joins_while_others_are_ahead_of_it_misses_nothing() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            _, api = await a.speaking()
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "0"))
            await ticks(50)
            found: Any = await asyncio.gather(*(b.node.find("ada", "run-1") for _ in range(20)))
            outlets = [join(found.pop())]
            for number in range(1, 20):
                api.send(text_delta(0, f"{number}"))
                await ticks(number)  # it joins at another step of the read
                outlets.append(join(found.pop()))
                await asyncio.sleep(0.1)
            api.send(block_stop(0), end(), STOP)
            for outlet in outlets:
                assert data(await outlet.done()) == [*(f'{{"text":"{number}"}}' for number in range(20)), "[DONE]"]

    run(story())


def test_a_run_whose_beginning_got_no_answer_is_ended_by_its_node() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            a.gate.answers_are_lost = True
            with pytest.raises(Answer) as refused:
                await a.own()
            assert refused.value.status == 503
            remote = await b.node.find("ada", "run-1")
            assert remote is not None
            a.gate.answers_are_lost = False
            async with asyncio.timeout(LEASE):
                assert data(await join(remote).done())[-1] == "[DONE]"
            assert await b.node.open_runs(None) == {}
            assert [record.run for record in a.kept.records] == ["run-1"]

    run(story())


def test_a_node_without_a_lease_does_not_ask_for_runs_that_it_would_have_to_end() -> None:
    async def story() -> None:
        async with cluster(1) as (a,):
            a.gate.is_down = True
            await asyncio.sleep(2 * LEASE)
            for _ in range(5):
                with pytest.raises(Answer) as refused:
                    await a.own()
                assert refused.value.status == 503
            assert a.node._orphans == {}, "each request of an outage would be kept until its end"
            a.gate.is_down = False
            await asyncio.sleep(LEASE)
            await a.own()

    run(story())


def test_a_run_whose_node_left_before_it_could_end_it_is_ended_by_another() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            a.gate.answers_are_lost = True
            with pytest.raises(Answer):
                await a.own()
            await a.node.aclose(Failure(503, "shutdown", "bye"))
            remote = await b.node.find("ada", "run-1")
            assert remote is not None
            async with asyncio.timeout(LEASE + BLOCK):
                assert data(await join(remote).done())[-1] == "[DONE]"

    run(story())


def test_a_new_reader_gets_the_whole_run_where_its_node_has_forgotten_the_beginning() -> None:
    async def story() -> None:
        async with cluster(1, max_log_bytes=200) as (a,):
            owned, api = await a.speaking()
            here = join(owned)
            api.send(start(), block_start(0, TEXT_BLOCK))
            for number in range(50):
                api.send(text_delta(0, f"{number:020}"))
                await asyncio.sleep(2 * WRITE_PAUSE_SECONDS)
            assert owned.first > 1
            late = await a.node.find("ada", "run-1")
            assert late is not None
            there = join(late)
            api.send(block_stop(0), end(), STOP)
            assert data(await there.done()) == data(await here.done())

    run(story())


def test_the_end_of_a_run_that_was_lost_while_it_waited_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with cluster(1) as (a,):
            (other, other_api), (owned, api) = await a.speaking("run-2"), await a.speaking()
            outlets = [join(other), join(owned)]
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await asyncio.sleep(2 * WRITE_PAUSE_SECONDS)
            store, before = a.gate._store, a.node.id
            assert isinstance(store, MemoryStore)
            hangs, goes_on = iter((False, True)), asyncio.Event()

            async def write(some: Any) -> Any:
                if next(hangs, False):
                    a.gate.is_down = True
                    await goes_on.wait()
                return await MemoryStore.write(store, some)

            monkeypatch.setattr(store, "write", write)
            a.gate.opened.clear()
            other_api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await asyncio.sleep(2 * WRITE_PAUSE_SECONDS)
            # Both wait for the first write. The next one is that of `other`, and the end of `owned` follows it.
            other_api.send(text_delta(0, "lo"))
            api.send(text_delta(0, "lo"), block_stop(0), end(), STOP)
            await asyncio.sleep(2 * WRITE_PAUSE_SECONDS)
            a.gate.opened.set()

            async def has_lapsed() -> bool:
                return a.node.id != before

            await until(has_lapsed)
            a.gate.is_down = False
            goes_on.set()
            for outlet in outlets:
                assert data(await outlet.done())[-1] == "[DONE]"
            await asyncio.sleep(LEASE)
            late = await a.node.find("ada", "run-1")
            assert late is not None
            assert data(await join(late).done())[::2] == [HELLO[0], "[DONE]"]

    run(story())


def test_a_run_that_is_read_at_another_node_goes_on_without_readers_at_its_own() -> None:
    async def story() -> None:
        async with cluster(2, grace_seconds=10.0) as (a, b):
            owned, api = await a.speaking()
            here = join(owned)
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await ticks(50)
            here.leave()
            remote = await b.node.find("ada", "run-1")
            assert remote is not None
            there = join(remote)
            for _ in range(60):
                await asyncio.sleep(0.5)
                assert not api.is_closed
            api.send(text_delta(0, "lo"), block_stop(0), end(), STOP)
            assert data(await there.done()) == HELLO

    run(story())


def test_a_run_without_readers_at_any_node_is_cancelled_after_the_grace() -> None:
    async def story() -> None:
        async with cluster(2, grace_seconds=10.0) as (a, b):
            owned, api = await a.speaking()
            here = join(owned)
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await ticks(50)
            here.leave()
            remote = await b.node.find("ada", "run-1")
            assert remote is not None
            there = join(remote)
            await asyncio.sleep(15.5)
            there.leave()
            await asyncio.sleep(9)
            assert not api.is_closed
            await asyncio.sleep(10)
            assert api.is_closed

    run(story())


def test_a_run_whose_taker_got_no_answer_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            await a.speaking()
            store = a.gate._store
            assert isinstance(store, MemoryStore)
            losses = asyncio.Event()

            async def take(*asked: Any) -> list[Taken]:
                taken = await MemoryStore.take(store, *asked)
                if taken and not losses.is_set():
                    losses.set()
                    raise StoreUnavailableError("the answer was lost")
                return taken

            monkeypatch.setattr(store, "take", take)
            await a.kill()
            remote = await b.node.find("ada", "run-1")
            assert remote is not None
            async with asyncio.timeout(2 * LEASE + BLOCK):
                assert data(await join(remote).done())[-1] == "[DONE]"
            assert losses.is_set()

    run(story())


def test_a_node_keeps_its_lease_while_it_ends_the_runs_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            for number in range(20):
                await a.speaking(f"run-{number}")
            store, before = a.gate._store, b.node.id
            assert isinstance(store, MemoryStore)

            async def write(some: Any) -> Any:
                await asyncio.sleep(LEASE / 5)
                return await MemoryStore.write(store, some)

            monkeypatch.setattr(store, "write", write)
            await a.kill()
            for _ in range(10):
                await asyncio.sleep(LEASE)
                assert b.node.id == before
            assert await b.node.open_runs(None) == {}

    run(story())


def test_a_run_that_is_about_to_begin_at_a_shutdown_says_so() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            a.gate.opened.clear()
            beginning = asyncio.ensure_future(a.own())
            await ticks(20)
            closing = asyncio.ensure_future(a.node.aclose(Failure(503, "shutdown", "bye")))
            await ticks(20)
            a.gate.opened.set()
            with pytest.raises(Answer) as refused:
                await beginning
            assert refused.value.status == 503
            await closing
            remote = await b.node.find("ada", "run-1")
            assert remote is not None
            assert '"shutdown"' in data(await join(remote).done())[0]

    run(story())


def test_the_stop_of_a_run_that_is_lost_meanwhile_has_not_ended_it() -> None:
    async def story() -> None:
        async with cluster(1) as (a,):
            owned, api = await a.speaking()
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await ticks(50)
            a.gate.is_down = True
            owned.stop(STOPPED)
            with pytest.raises(Answer) as refused:
                await a.node.stop(owned)
            assert refused.value.status == 503

    run(story())


def test_a_run_that_nobody_has_begun_is_not_found() -> None:
    async def story() -> None:
        async with cluster() as (a, _):
            assert await a.node.find("ada", "run-1") is None
            await a.own("run-1")
            assert await a.node.find("bob", "run-1") is None

    run(story())


def test_a_frame_is_sent_when_the_store_has_it() -> None:
    async def story() -> None:
        async with cluster() as (a, _):
            owned, api = await a.speaking()
            outlet = join(owned)
            a.gate.opened.clear()
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await ticks(50)
            assert outlet.body == b""
            a.gate.opened.set()
            await ticks(50)
            assert data(outlet.body) == HELLO[:1]

    run(story())


def test_what_comes_while_a_batch_is_written_is_the_next_batch() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            owned, api = await a.speaking()
            outlet = join(owned)
            a.gate.opened.clear()
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "0"))
            for number in range(1, 9):
                await ticks(5)
                api.send(text_delta(0, str(number)))
            await ticks(5)
            a.gate.opened.set()
            await asyncio.sleep(3 * WRITE_PAUSE_SECONDS)
            api.send(block_stop(0), end(), STOP)
            assert len(data(await outlet.done())) == 10
            entries = await b.node._store.entries(owned.stored)
            assert [entry.number for entry in entries] == [0, 1, 9, 10]

    run(story())


def test_an_answer_of_the_store_that_is_lost_is_asked_for_again() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            owned, api = await a.speaking()
            outlet = join(owned)
            a.gate.answers_are_lost = True
            await say_hello(api)
            await asyncio.sleep(1)
            a.gate.answers_are_lost = False
            assert data(await outlet.done()) == HELLO
            remote = await b.node.find("ada", "run-1")
            assert remote is not None
            assert await join(remote).done() == outlet.body

    run(story())


def test_any_node_stops_a_run() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            owned, api = await a.speaking()
            outlet = join(owned)
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            remote = await b.node.find("ada", "run-1")
            assert isinstance(remote, RemoteRun)
            elsewhere = join(remote)
            await ticks(50)
            await b.node._store.stop(remote.stored)
            assert data(await outlet.done())[1:] == data(await elsewhere.done())[1:]
            assert '"cancelled"' in data(outlet.body)[1]
            assert api.is_closed
            assert [record.ending for record in a.kept.records] == ["cancelled"]

    run(story())


def test_readers_of_a_dead_nodes_run_are_told_within_the_lease_and_one_block() -> None:
    async def story() -> None:
        async with cluster(3) as (a, b, c):
            _, api = await a.speaking()
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            outlets = []
            for host in (b, c):
                remote = await host.node.find("ada", "run-1")
                assert remote is not None
                outlets.append(join(remote))
            await ticks(50)
            before = asyncio.get_running_loop().time()
            await a.kill()
            first, second = [await outlet.done() for outlet in outlets]
            assert asyncio.get_running_loop().time() - before <= LEASE + BLOCK
            assert first == second
            assert [text[:7] for text in data(first)] == ['{"text"', '{"error', "[DONE]"]
            (record,) = b.kept.records + c.kept.records
            assert (record.ending, record.error, record.exact) == ("truncated", NODE_LOST, False)
            assert record.input_tokens == 10
            late = await c.node.find("ada", "run-1")
            assert late is not None
            assert await join(late).done() == first

    run(story())


@pytest.mark.parametrize("dialect", [TextDialect, MessagesDialect, partial(WholeDialect, 10**6)])
@pytest.mark.parametrize("end", ["killed", "cut off"])
def test_a_run_that_dies_with_its_node_costs_what_it_has_said(dialect: Callable[[], Dialect], end: str) -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            began = asyncio.get_running_loop().time()
            outlet = join(await a.own("run-1", dialect()))
            api = await a.call()
            api.send(start(), block_start(0, TEXT_BLOCK))
            await asyncio.sleep(1)  # to the first text
            for _ in range(500):  # 10 tokens in, and 500 out, as they are estimated
                api.send(text_delta(0, "word"))
                await ticks(20)
                await asyncio.sleep(WRITE_PAUSE_SECONDS)
            seconds = asyncio.get_running_loop().time() - began
            if end == "killed":
                await a.kill()
            else:
                a.gate.is_down = True
                await outlet.done()
            await asyncio.sleep(2 * LEASE)
            (record,) = b.kept.records
            # Those that have come since the owner last wrote their count: a fifth at most, and 64 bytes.
            assert (500 - 16) * 4 // 5 <= record.output_tokens <= 500
            assert (record.total_tokens, record.exact) == (10 + record.output_tokens, False)
            assert record.first_token_seconds == pytest.approx(1, abs=0.1)
            assert 1 + (seconds - 1) * 3 / 4 <= record.seconds <= seconds
            (count,) = (await b.node._store.admit([Limits("ada")], counts=False)).counts
            assert (count.tokens, count.open) == (record.total_tokens, 0)

    run(story())


@pytest.mark.parametrize("dialect", [TextDialect, EventsDialect, MessagesDialect])
def test_of_a_run_that_dies_with_its_first_words_these_count_and_when_they_came(dialect: type[Dialect]) -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            outlet = join(await a.own("run-1", dialect()))
            api = await a.call()
            api.send(start(), block_start(0, TEXT_BLOCK))
            await asyncio.sleep(2)
            api.send(text_delta(0, "Hello, world"))
            await ticks(50)
            await asyncio.sleep(WRITE_PAUSE_SECONDS)
            await a.kill()
            await outlet.done()
            await asyncio.sleep(2 * LEASE)
            (record,) = b.kept.records
            assert record.first_token_seconds == pytest.approx(record.seconds, abs=0.1) == pytest.approx(2, abs=0.1)
            assert (record.output_tokens, record.estimated_tokens) == (12 // 4, 12 // 4 - 1)

    run(story())


def test_of_a_run_that_dies_while_it_thinks_the_thinking_counts_though_no_reader_sees_it() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            outlet = join(await a.own("run-1", TextDialect()))
            api = await a.call()
            api.send(start(), block_start(0, THINKING_BLOCK))
            for _ in range(100):  # 100 tokens, as they are estimated
                api.send(delta(0, "thinking_delta", thinking="word"))
                await ticks(20)
                await asyncio.sleep(WRITE_PAUSE_SECONDS)
            (stored,) = await b.node._store.open_runs()
            assert len(await b.node._store.entries(stored)) < 3  # no frames, no entries
            await a.kill()
            await outlet.done()
            await asyncio.sleep(2 * LEASE)
            (record,) = b.kept.records
            assert (100 - 16) * 4 // 5 <= record.output_tokens <= 100
            assert record.total_tokens == 10 + record.output_tokens
            assert record.first_token_seconds is not None

    run(story())


def test_after_it_has_thought_a_run_goes_on_and_is_read_elsewhere() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            join(await a.own("run-1", TextDialect()))
            api = await a.call()
            api.send(start(), block_start(0, THINKING_BLOCK))
            for _ in range(3):
                api.send(delta(0, "thinking_delta", thinking="word" * 100))
                await ticks(20)
                await asyncio.sleep(WRITE_PAUSE_SECONDS)
            api.send(block_stop(0), block_start(1, TEXT_BLOCK), text_delta(1, "Hello"), block_stop(1), end(), STOP)
            elsewhere = await b.node.find("ada", "run-1")
            assert elsewhere is not None
            assert data(await join(elsewhere).done()) == ['{"text":"Hello"}', "[DONE]"]

    run(story())


def test_how_much_a_run_has_said_is_written_a_few_times() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            owned = await a.own("run-1", MessagesDialect())
            api = await a.call()
            api.send(start(), block_start(0, TEXT_BLOCK))
            for _ in range(500):
                api.send(text_delta(0, "word"))
                await ticks(20)
                await asyncio.sleep(WRITE_PAUSE_SECONDS)
            assert len(await b.node._store.entries(owned.stored)) < 20

    run(story())


def test_a_stop_whose_owner_is_dead_ends_the_run_as_stopped() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            await a.speaking()
            remote = await b.node.find("ada", "run-1")
            assert isinstance(remote, RemoteRun)
            await a.kill()
            await b.node._store.stop(remote.stored)
            assert '"cancelled"' in data(await join(remote).done())[0]
            assert [record.ending for record in b.kept.records] == ["cancelled"]

    run(story())


def test_a_node_that_wakes_up_after_its_lease_writes_nothing_more() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            owned, api = await a.speaking()
            here = join(owned)
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await ticks(50)
            remote = await b.node.find("ada", "run-1")
            assert remote is not None
            there = join(remote)
            a.gate.opened.clear()  # the node sleeps
            api.send(text_delta(0, "lo"))
            ended = await there.done()
            assert [text[:7] for text in data(ended)] == ['{"text"', '{"error', "[DONE]"]
            a.gate.opened.set()  # it wakes up, and writes what it has
            assert [text[:7] for text in data(await here.done())] == ['{"text"', '{"error', "[DONE]"]
            assert api.is_closed
            again = await b.node.find("ada", "run-1")
            assert again is not None
            assert await join(again).done() == ended
            await asyncio.sleep(LEASE)
            assert counted(a, b) == ["run-1"]
            assert [each.error for each in a.kept.records] == [LEASE_LOST]

    run(story())


def test_a_store_that_comes_back_within_the_lease_costs_nothing() -> None:
    async def story() -> None:
        async with cluster() as (a, _):
            owned, api = await a.speaking()
            outlet = join(owned)
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await ticks(50)
            a.gate.is_down = True
            api.send(text_delta(0, "lo"), block_stop(0), end(), STOP)
            await asyncio.sleep(LEASE / 2)
            assert data(outlet.body) == HELLO[:1]
            a.gate.is_down = False
            assert data(await outlet.done()) == HELLO

    run(story())


def test_a_node_that_cannot_reach_the_store_for_its_lease_ends_its_runs() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            owned, api = await a.speaking()
            outlet = join(owned)
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await ticks(50)
            before = asyncio.get_running_loop().time()
            a.gate.is_down = True
            assert [text[:7] for text in data(await outlet.done())] == ['{"text"', '{"error', "[DONE]"]
            assert asyncio.get_running_loop().time() - before <= 2 * LEASE
            assert api.is_closed
            assert b"id: " not in outlet.body.partition(b'{"text":"Hel"}')[2]
            with pytest.raises(Answer) as refused:
                await a.node.find("ada", "run-1")
            assert refused.value.status == 503
            assert "retry-after" in dict(refused.value.headers)
            a.gate.is_down = False
            remote = await b.node.find("ada", "run-1")
            assert remote is not None
            assert (await join(remote).done()).endswith(b"data: [DONE]\n\n")
            await asyncio.sleep(LEASE)
            assert counted(a, b) == ["run-1"]

    run(story())


@pytest.mark.parametrize("has_taken", [True, False], ids=["another node takes it", "its node is back first"])
def test_a_run_that_its_node_has_lost_is_counted_once(has_taken: bool) -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            b.gate.is_down = not has_taken
            owned, api = await a.speaking()
            outlet = join(owned)
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await ticks(50)
            a.gate.is_down = True
            await outlet.done()
            await asyncio.sleep(3 * LEASE)
            a.gate.is_down = b.gate.is_down = False
            await asyncio.sleep(3 * LEASE)
            assert counted(a, b) == ["run-1"]
            (mine,) = a.kept.records  # it has the most of the tokens, so the ledger gets it, too
            assert (mine.ending, mine.error) == ("truncated", LEASE_LOST if has_taken else NODE_LOST)
            assert (mine.input_tokens, mine.model) == (10, ANSWERED)
            assert [(each.error, each.input_tokens, each.model) for each in b.kept.records] == [
                (NODE_LOST, 10, ANSWERED)
            ] * has_taken
            assert a.node._orphans == b.node._orphans == {}

    run(story())


@pytest.mark.parametrize("what", ["forgotten", "unreachable"])
def test_a_run_that_no_other_node_can_end_is_counted_by_its_own(what: str) -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            owned, api = await a.speaking()
            outlet = join(owned)
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await ticks(50)
            if what == "forgotten":  # a Redis that has begun again, empty
                store: MemoryStore = a.gate._store  # type: ignore[assignment]
                del store._logs["ada", "run-1"], store._runs["ada", "run-1"]
                api.send(text_delta(0, "lo"))
                await outlet.done()
                await asyncio.sleep(LEASE)
            else:
                a.gate.is_down = b.gate.is_down = True
                await outlet.done()
                await a.node.aclose(Failure(503, "shutdown", "bye"))
            assert counted(a, b) == ["run-1"]
            assert len(a.kept.records) == 1
            b.gate.is_down = False

    run(story())


@pytest.mark.parametrize("lost", [1, 2])
def test_a_run_of_which_the_store_has_lost_frames_is_ended_for_every_reader(lost: int) -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            owned, api = await a.speaking()
            here = join(owned)
            remote = await b.node.find("ada", "run-1")
            assert remote is not None
            there = join(remote)
            api.send(start(), block_start(0, TEXT_BLOCK))
            for word in ("one", "two", "three"):
                api.send(text_delta(0, word))
                await ticks(50)
                await asyncio.sleep(0.1)
            store: MemoryStore = a.gate._store  # type: ignore[assignment]
            del store._logs["ada", "run-1"][-lost:]  # as a Redis that has crashed
            api.send(text_delta(0, "four"))
            assert [text[:7] for text in data(await here.done())][3:] == ['{"error', "[DONE]"]
            async with asyncio.timeout(LEASE + BLOCK):
                await there.done()  # it is cut, and comes back
            assert there.is_cut
            again = await b.node.find("ada", "run-1")
            assert again is not None
            for seen in range(4):
                texts = data(await join(again, seen).done())
                assert [text[:7] for text in texts][-2:] == ['{"error', "[DONE]"]
            assert await b.node.open_runs(None) == {}
            assert len(a.kept.records) == 1

    run(story())


def test_readers_of_a_run_that_the_store_has_forgotten_are_cut() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            owned, api = await a.speaking()
            join(owned)
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await ticks(50)
            remote = await b.node.find("ada", "run-1")
            assert remote is not None
            there = join(remote)
            await asyncio.sleep(0.1)
            store: MemoryStore = a.gate._store  # type: ignore[assignment]
            del store._logs["ada", "run-1"], store._runs["ada", "run-1"]  # a Redis that has begun again, empty
            async with asyncio.timeout(LEASE + BLOCK):
                assert data(await there.done()) == HELLO[:1]
            assert there.is_cut
            assert await b.node.find("ada", "run-1") is None

    run(story())


def test_a_slow_reader_at_another_node_gets_everything() -> None:
    async def story() -> None:
        async with cluster(2, max_log_bytes=2000) as (a, b):
            owned, api = await a.speaking()
            here = join(owned)
            api.send(start(), block_start(0, TEXT_BLOCK))
            remote = await b.node.find("ada", "run-1")
            assert remote is not None
            there = FakeOutlet(is_stalled=True)
            join(remote, outlet=there)
            for number in range(300):
                api.send(text_delta(0, f"{number:020}"))
                await ticks(3)
            api.send(block_stop(0), end(), STOP)
            whole = await here.done()
            assert remote.log_bytes < 20_000
            there.go_on()
            got = "".join(text for text in data(await there.done()))
            for number in range(300):
                assert f"{number:020}" in got
            assert data(whole)[-1] == "[DONE]"

    run(story())


def test_a_run_whose_client_cannot_come_back_is_kept_in_no_log() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            owned = await a.own("run-1", MessagesDialect())
            outlet = join(owned)
            api = await a.call()
            await say_hello(api)
            assert b"message_stop" in await outlet.done()
            assert await b.node.find("ada", "run-1") is None
            assert await b.node._store.entries(owned.stored) == []
            assert await b.node.open_runs(None) == {}

    run(story())


def test_a_reader_that_joins_a_feed_whose_store_has_lost_frames_is_cut_at_once() -> None:
    async def story() -> None:
        async with cluster() as (a, b):
            _, api = await a.speaking()
            remote = await b.node.find("ada", "run-1")
            assert remote is not None
            there = join(remote)
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await asyncio.sleep(0.1)
            store: MemoryStore = a.gate._store  # type: ignore[assignment]
            del store._logs["ada", "run-1"][-1]  # as a Redis that has crashed
            api.send(text_delta(0, "lo"))
            async with asyncio.timeout(LEASE + BLOCK):
                await there.done()
            async with asyncio.timeout(1):
                await join(remote, 1).done()
            again = await b.node.find("ada", "run-1")
            assert again is not remote

    run(story())


def test_a_write_that_the_store_did_not_get_is_repeated_with_all_that_it_had() -> None:
    async def story() -> None:
        async with cluster(1) as (a,):
            _, api = await a.speaking()
            a.gate.is_down = True
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))
            await asyncio.sleep(0.2)
            a.gate.is_down = False
            await asyncio.sleep(0.2)
            stored = await a.gate._store.find("ada", "run-1")
            assert stored is not None
            assert f'"model": "{ANSWERED}"' in stored.usage
            assert len(await a.gate._store.entries(stored)) == 2

    run(story())
