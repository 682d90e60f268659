"""rawsse.relay.app: relays that share a store. What one of them has begun, each of them reads, stops, lists and counts."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.clock import run, ticks
from support.streams import STOP, block_start, block_stop, end, start, text_delta

from rawsse.relay.guard import Guard
from rawsse.relay.store import LEASE_SECONDS, MemoryStore
from rawsse.relay.users import Tokens, User, UserLimits
from rawsse.server import Scope

from .nodes import Gate
from .outlets import TEXT_BLOCK
from .stage import CHAT, WHOLE, Api, Browser, Stage
from .test_record import Rows

ID = "a-run-id-of-the-client"
NAMED = {"x-run-id": ID}


@asynccontextmanager
async def relays(*script: bytes, count: int = 2, **options: Any) -> AsyncIterator[list[Stage]]:
    clock = asyncio.get_running_loop().time
    store = MemoryStore(clock)
    stages = [Stage(*script, store=Gate(store), clock=clock, **options) for _ in range(count)]
    try:
        yield stages
    finally:
        for stage in stages:
            gate: Any = stage.relay.home._store  # type: ignore[attr-defined]
            gate.is_down = False
            await stage.relay.aclose()


def say(api: Api) -> None:
    api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))


def end_of(api: Api) -> None:
    api.send(text_delta(0, "lo"), block_stop(0), end(), STOP)


def test_a_request_that_is_repeated_at_another_node_is_one_run() -> None:
    async def story() -> None:
        async with relays() as (a, b):
            first = a.ask("POST", "/stream", CHAT, headers=NAMED)
            api = await a.call()
            say(api)
            second = b.ask("POST", "/stream", CHAT, headers=NAMED)
            await second.head()
            end_of(api)
            assert (await first.done()).body == (await second.done()).body
            assert first.data == ['{"text":"Hel"}', '{"text":"lo"}', "[DONE]"]
            assert second.headers["x-run-id"] == ID
            assert b.calls == []

    run(story())


def test_many_requests_with_one_id_at_all_nodes_at_once_are_one_run() -> None:
    async def story() -> None:
        async with relays(WHOLE, count=4) as stages:
            browsers = [stage.ask("POST", "/stream", CHAT, headers=NAMED) for stage in stages for _ in range(5)]
            bodies = {(await browser.done()).body for browser in browsers}
            assert len(bodies) == 1
            assert sum(len(stage.calls) for stage in stages) == 1

    run(story())


def test_another_request_with_that_id_is_refused_at_every_node() -> None:
    async def story() -> None:
        async with relays(WHOLE) as stages:
            assert (await stages[0].ask("POST", "/stream", CHAT, headers=NAMED).done()).status == 200
            for stage in stages:
                other = await stage.ask("POST", "/stream", {"message": "Why?"}, headers=NAMED).done()
                assert other.status == 409

    run(story())


def test_a_run_is_resumed_at_another_node_after_the_last_id() -> None:
    async def story() -> None:
        async with relays(WHOLE) as (a, b):
            whole = await a.ask("POST", "/stream", CHAT, headers=NAMED).done()
            frames = whole.body.split(b"\n\n")
            after = whole.frames[0].id
            rest = await b.ask("GET", f"/runs/{ID}", headers={"last-event-id": after}).done()
            assert rest.body == b"\n\n".join(frames[1:])
            snapshot = await b.ask("GET", f"/runs/{ID}", query="snapshot=1").done()
            assert "Hello" in snapshot.data[0]
            unknown = await b.ask("GET", f"/runs/{ID}", headers={"last-event-id": "other-1"}).done()
            assert unknown.status == 400

    run(story())


def test_several_runs_of_several_nodes_are_read_in_one_connection() -> None:
    async def story() -> None:
        async with relays(WHOLE, WHOLE) as (a, b):
            ids = [f"{ID}-{number}" for number in range(2)]
            for stage, id in zip((a, b), ids, strict=True):
                await stage.ask("POST", "/stream", CHAT, headers={"x-run-id": id}).done()
            both = await b.ask("GET", "/runs", query=f"id={ids[0]}&id={ids[1]}&id=missing").done()
            assert both.data.count("[DONE]") == 2
            assert '"missing":["missing"]' in both.data[0]

    run(story())


def test_several_runs_in_one_connection_are_cut_when_one_of_them_is() -> None:
    async def story() -> None:
        async with relays() as (a, b):
            ids = [f"{ID}-{number}" for number in range(2)]
            for stage, id in zip((a, b), ids, strict=True):
                alone = stage.ask("POST", "/stream", CHAT, headers={"x-run-id": id})
                say(await stage.call())
                await alone.head()
            both = b.ask("GET", "/runs", query=f"id={ids[0]}&id={ids[1]}")
            while both.data.count('{"text":"Hel"}') < 2:
                await both.read()
            gate: Any = b.relay.home._store  # type: ignore[attr-defined]
            gate.is_down = True
            await both.done()
            assert both.data.count("[DONE]") == 1  # of its own, which is lost
            assert not both.is_ended

    run(story())


def test_a_run_is_stopped_at_another_node_and_the_answer_comes_when_it_has_ended() -> None:
    async def story() -> None:
        async with relays() as (a, b):
            reader = a.ask("POST", "/stream", CHAT, headers=NAMED)
            api = await a.call()
            say(api)
            await reader.head()
            stop = await b.ask("DELETE", f"/runs/{ID}").done()
            assert stop.status == 204
            assert api.is_closed
            assert (await b.ask("GET", f"/runs/{ID}").done()).data[-1] == "[DONE]"
            assert '"cancelled"' in (await reader.done()).body.decode()

    run(story())


def test_the_runs_that_are_named_are_stopped_wherever_they_are_and_no_others() -> None:
    async def story() -> None:
        async with relays() as (a, b):
            readers = []
            for number, stage in enumerate((a, b, b)):
                readers.append(stage.ask("POST", "/stream", CHAT, headers={"x-run-id": f"{ID}-{number}"}))
                say(await stage.call())
                await readers[-1].head()
            named = f"id={ID}-0&id={ID}-1&id={ID}-0&id=missing"
            for stopped in (2, 0):
                assert (await b.ask("DELETE", "/runs", query=named).done()).json == {"stopped": stopped}
            for reader in readers[:2]:
                assert '"cancelled"' in (await reader.done()).body.decode()
            assert [each["run"] for each in (await a.ask("GET", "/runs").done()).json] == [f"{ID}-2"]
            readers[2].leave()
            await readers[2].done()

    run(story())


def test_the_list_and_the_stop_of_all_runs_are_those_of_all_nodes() -> None:
    async def story() -> None:
        async with relays() as (a, b):
            readers = []
            for number, stage in enumerate((a, b)):
                readers.append(stage.ask("POST", "/stream", CHAT, headers={"x-run-id": f"{ID}-{number}"}))
                say(await stage.call())
                await readers[-1].head()
            listed = (await b.ask("GET", "/runs").done()).json
            assert sorted(each["run"] for each in listed) == [f"{ID}-0", f"{ID}-1"]
            assert (await b.ask("DELETE", "/runs").done()).json == {"stopped": 2}
            assert a.relay.open_runs() == b.relay.open_runs() == []
            for reader in readers:
                assert '"cancelled"' in (await reader.done()).body.decode()
            assert (await a.ask("GET", "/runs").done()).json == []

    run(story())


def test_the_readers_in_the_list_and_in_the_metrics_are_those_of_the_node_that_is_asked() -> None:
    async def story() -> None:
        async with relays(count=3) as (a, b, c):
            reader = a.ask("POST", "/stream", CHAT, headers=NAMED)
            say(api := await a.call())
            await reader.head()
            others = [b.ask("GET", f"/runs/{ID}") for _ in range(2)]
            for each in others:
                await each.head()
            listed = [(await stage.ask("GET", "/runs").done()).json for stage in (a, b, c)]
            assert [[each["readers_here"] for each in some] for some in listed] == [[1], [2], [0]]
            shown = [re.findall(r"(?m)^rawsse_readers (.+)$", each.relay.metrics.render()) for each in (a, b, c)]
            assert shown == [["1"], ["2"], ["0"]]
            end_of(api)
            for each in (reader, *others):
                await each.done()

    run(story())


def test_readers_of_a_run_that_read_it_from_the_store_at_its_own_node_are_readers_there() -> None:
    async def story() -> None:
        async with relays() as (a, _):
            reader = a.ask("POST", "/stream", CHAT, headers=NAMED)
            say(api := await a.call())
            await reader.head()
            ahead = (
                f"{reader.frames[0].id.rpartition('-')[0]}-2"  # a frame that the node does not yet know to be written
            )
            other = a.ask("GET", f"/runs/{ID}", headers={"last-event-id": ahead})
            await other.head()
            (listed,) = (await a.ask("GET", "/runs").done()).json
            assert (listed["readers_here"], sum(a.relay.home.count_readers().values())) == (2, 2)
            end_of(api)
            for each in (reader, other):
                await each.done()

    run(story())


def test_an_operator_stops_one_run_of_a_user_at_another_node() -> None:
    users = {b"ada": User("ada"), b"eve": User("eve", is_operator=True)}

    async def who(scope: Scope) -> User:
        return users[dict(scope["headers"])[b"x-user"]]

    async def story() -> None:
        async with relays(authenticate=who) as (a, b):
            reader = a.ask("POST", "/stream", CHAT, headers={"x-user": "ada"} | NAMED)
            say(await a.call())
            await reader.head()
            stop = await b.ask("DELETE", f"/runs/{ID}", headers={"x-user": "eve"}, query="user=ada").done()
            assert stop.status == 204
            assert '"cancelled"' in (await reader.done()).body.decode()

    run(story())


def test_a_chat_is_resumed_at_another_node() -> None:
    chat = {"id": "chat-1", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Why?"}]}]}

    async def story() -> None:
        async with relays() as (a, b):
            reader = a.ask("POST", "/api/chat", chat)
            api = await a.call()
            say(api)
            await reader.head()
            resumed = b.ask("GET", "/api/chat/chat-1/stream")
            await resumed.head()
            end_of(api)
            assert (await reader.done()).body == (await resumed.done()).body
            assert (await b.ask("GET", "/api/chat/chat-1/stream").done()).status == 204

    run(story())


USERS = Guard(tokens=Tokens({"a-token-of-ada-0000": User("ada"), "a-token-of-bob-0000": User("bob")}))
ADA = {"authorization": "Bearer a-token-of-ada-0000"}
BOB = {"authorization": "Bearer a-token-of-bob-0000"}


def test_a_run_of_another_user_is_not_there_on_any_node() -> None:
    async def story() -> None:
        async with relays(WHOLE, WHOLE, guard=USERS) as (a, b):
            assert (await a.ask("POST", "/stream", CHAT, headers=ADA | NAMED).done()).status == 200
            assert (await b.ask("GET", f"/runs/{ID}", headers=ADA).done()).status == 200
            for method in ("GET", "DELETE"):
                assert (await b.ask(method, f"/runs/{ID}", headers=BOB).done()).status == 404
            assert (await b.ask("POST", "/stream", CHAT, headers=BOB | NAMED).done()).status == 200
            assert len(b.calls) == 1

    run(story())


def test_the_limits_hold_exactly_over_all_nodes() -> None:
    limits = UserLimits(requests_per_minute=20)

    async def story() -> None:
        async with relays(*[WHOLE] * 20, count=3, guard=USERS, user_limits=limits) as stages:
            browsers = [stages[number % 3].ask("POST", "/stream", CHAT, headers=ADA) for number in range(50)]
            statuses = [(await browser.done()).status for browser in browsers]
            assert (statuses.count(200), statuses.count(429)) == (20, 30)
            assert sum(len(stage.calls) for stage in stages) == 20
            refused = next(browser for browser in browsers if browser.status == 429)
            assert refused.headers["retry-after"] == "3"
            assert refused.headers["ratelimit"] == '"requests";r=0;t=3'
            assert (await stages[0].ask("POST", "/stream", CHAT, headers=BOB).done()).status == 200
            told = (await stages[1].ask("GET", "/me", headers=ADA).done()).json
            assert told["left"] == {"requests_per_minute": 0}

    run(story())


def test_the_tokens_and_open_runs_of_a_run_that_ended_count_on_every_node() -> None:
    limits = UserLimits(open_runs=1, tokens_per_day=1000)

    async def story() -> None:
        async with relays(guard=USERS, user_limits=limits) as (a, b):
            reader = a.ask("POST", "/stream", CHAT, headers=ADA)
            api = await a.call()
            say(api)
            await reader.head()
            refused = await b.ask("POST", "/stream", CHAT, headers=ADA).done()
            assert refused.status == 429
            assert "open runs" in refused.body.decode()
            end_of(api)
            await reader.done()
            await ticks(20)
            told = (await b.ask("GET", "/me", headers=ADA).done()).json
            assert told["left"] == {"tokens_per_day": 1000 - 17, "open_runs": 1}

    run(story())


def test_the_tokens_of_a_run_that_is_stopped_are_estimated_for_every_node() -> None:
    async def story() -> None:
        async with relays(guard=USERS, user_limits=UserLimits(tokens_per_day=1000)) as (a, b):
            reader = a.ask("POST", "/stream", CHAT, headers=ADA)
            (await a.call()).send(start(), block_start(0, TEXT_BLOCK), *[text_delta(0, "word")] * 50)
            await reader.head()
            assert (await b.ask("DELETE", "/runs", headers=ADA).done()).json == {"stopped": 1}
            await reader.done()
            for node in (a, b):
                told = (await node.ask("GET", "/me", headers=ADA).done()).json
                assert told["left"] == {"tokens_per_day": 1000 - 10 - 50}

    run(story())


async def speaks(stage: Stage, who: dict[str, str] = ADA) -> tuple[Browser, Api]:
    """A reader whose answer has begun."""
    reader = stage.ask("POST", "/stream", CHAT, headers=who)
    say(api := await stage.call())
    await reader.head()
    return reader, api


def test_a_daily_limit_that_ends_open_runs_ends_those_at_all_nodes_in_the_same_way() -> None:
    limits = UserLimits(tokens_per_day=15, ends_open_runs=True)

    async def story() -> None:
        async with relays(count=3, guard=USERS, user_limits=limits, observers=[rows := Rows()]) as (a, b, c):
            first, api = await speaks(a)
            others = [await speaks(stage) for stage in (a, b, c)]
            bob, _ = await speaks(b, BOB)
            end_of(api)
            async with asyncio.timeout(LEASE_SECONDS / 2):
                assert (await first.done()).data[-2] == '{"text":"lo"}'
                for reader, _ in others:
                    told = (await reader.done()).data
                    assert json.loads(told[-2]) == {
                        "error": "the tokens of the day are used up",
                        "type": "rate_limit_error",
                    }
            assert all(each.is_closed for _, each in others)
            cut = {(each.ending, each.error, each.words, each.total_tokens) for each in rows.records[1:]}
            assert cut == {("cancelled", None, "the tokens of the day are used up", 10 + 1)}
            assert (len(rows.records), bob.is_ended) == (4, False)

    run(story())


def test_the_tokens_that_end_open_runs_are_those_of_all_nodes_together() -> None:
    limits = UserLimits(tokens_per_day=30, ends_open_runs=True)

    async def story() -> None:
        async with relays(count=3, guard=USERS, user_limits=limits) as stages:
            ends = [await speaks(stage) for stage in stages[:2]]
            open_runs = [await speaks(stage) for stage in stages]
            for reader, api in ends:  # of 17 tokens each
                await asyncio.sleep(LEASE_SECONDS)
                assert not any(each.is_ended for each, _ in open_runs)
                end_of(api)
                await reader.done()
            for each, _ in open_runs:
                assert "used up" in (await each.done()).body.decode()

    run(story())


def test_what_the_store_has_counted_already_does_not_end_open_runs_twice() -> None:
    limits = UserLimits(tokens_per_day=30, ends_open_runs=True)

    async def story() -> None:
        async with relays(guard=USERS, user_limits=limits) as (a, _):
            long, _ = await speaks(a)
            short, api = await speaks(a)
            ((ada, (kept, count)),) = a.relay.quotas._kept.items()
            end_of(api)
            # As if the node had heard of the 17 tokens from the store, just before the end of the run.
            a.relay.quotas._kept[ada] = (kept, count._replace(tokens=17))
            await short.done()
            await asyncio.sleep(2 * LEASE_SECONDS)
            assert not long.is_ended

    run(story())


def test_a_node_whose_store_has_gone_is_not_ready_at_once_and_the_doctor_hears_why() -> None:
    async def story() -> None:
        async with relays(WHOLE) as (a, _):
            assert (await a.ask("GET", "/readyz").done()).status == 200
            gate: Any = a.relay.home._store  # type: ignore[attr-defined]
            gate.is_down = True  # and its lease goes on
            assert (await a.ask("GET", "/readyz").done()).status == 503
            refused = await a.ask("GET", "/doctor").done()
            assert (refused.status, refused.json["error"]["message"]) == (503, "the server cannot reach its store")
            gate.is_down = False
            assert (await a.ask("GET", "/readyz").done()).status == 200

    run(story())


def test_whether_a_node_is_ready_is_in_its_metrics_and_costs_no_call_of_the_store() -> None:
    async def story() -> None:
        async with relays(WHOLE) as (a, _):

            def shown() -> list[str]:
                return re.findall(r"(?m)^rawsse_ready (.+)$", a.relay.metrics.render())

            gate: Any = a.relay.home._store  # type: ignore[attr-defined]
            await a.relay.home.start()
            assert shown() == ["1"]
            gate.is_down = True
            await asyncio.sleep(LEASE_SECONDS)
            assert shown() == ["0"]
            gate.is_down = False
            await asyncio.sleep(LEASE_SECONDS)
            assert shown() == ["1"]
            await a.relay.drain()
            assert shown() == ["0"]

    run(story())


def test_without_the_store_new_runs_and_resumes_are_refused_with_a_time_to_retry() -> None:
    async def story() -> None:
        async with relays(WHOLE) as (a, _):
            gate: Any = a.relay.home._store  # type: ignore[attr-defined]
            gate.is_down = True
            for method, path in (("POST", "/stream"), ("GET", f"/runs/{ID}"), ("DELETE", f"/runs/{ID}")):
                refused = await a.ask(method, path, CHAT if method == "POST" else None).done()
                assert refused.status == 503
                assert refused.headers["retry-after"] == "2"
            assert a.calls == []
            assert (await a.ask("GET", "/healthz").done()).status == 200
            assert (await a.ask("GET", "/readyz").done()).status == 503
            gate.is_down = False
            assert (await a.ask("GET", "/readyz").done()).status == 200
            assert (await a.ask("POST", "/stream", CHAT).done()).status == 200

    run(story())


@pytest.mark.parametrize("is_named", [True, False])
def test_readers_everywhere_get_the_last_frame_of_a_relay_that_is_shut_down(is_named: bool) -> None:
    async def story() -> None:
        async with relays() as (a, b):
            reader = a.ask("POST", "/stream", CHAT, headers=NAMED if is_named else None)
            say(await a.call())
            await reader.head()
            elsewhere = b.ask("GET", f"/runs/{reader.headers['x-run-id']}")
            await elsewhere.head()
            await a.relay.aclose()
            assert '"shutdown"' in (await reader.done()).body.decode()
            assert (await elsewhere.done()).body == reader.body

    run(story())


def test_api_clients_are_answered_as_without_a_store() -> None:
    async def story() -> None:
        async with relays(WHOLE) as (a, b):
            asked = {
                "model": "claude-sonnet-5",
                "max_tokens": 10,
                "stream": True,
                "messages": [{"role": "user", "content": "Hi"}],
            }
            answer = await a.ask("POST", "/v1/messages", asked).done()
            assert answer.status == 200
            assert WHOLE.endswith(answer.body)
            assert (await b.ask("GET", "/runs").done()).json == []

    run(story())
