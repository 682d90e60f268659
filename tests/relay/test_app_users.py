"""The relay for several users: whose runs are whose, how much each may use, and what the operator decides."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from support.clock import run, ticks
from support.streams import ANSWER, STOP, block_start, end, start, text_delta

from rawsse.errors import ConfigurationError
from rawsse.relay import Guard, Relay, RunLimits, RunRecord, User, UserLimits, app
from rawsse.relay.dialects import Answer
from rawsse.relay.ledger import Ledger
from rawsse.server import Scope

from .outlets import TEXT_BLOCK
from .stage import CHAT, WHOLE, Browser, Stage, ask, error_json, error_of, relay
from .test_record import ERROR, SAYS_NO, Rows

USER = {"role": "user", "content": "Hi"}
MESSAGES = {"model": "m", "max_tokens": 9, "messages": [USER], "stream": True}
UI = {"id": "chat-1", "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
RUN_ID = "a-chosen-id-00000"
CHATS = [("/stream", CHAT), ("/api/chat", {"messages": [USER]}), ("/api/chat", UI), ("/v1/messages", MESSAGES)]


async def by_name(scope: Scope) -> User | None:
    """The host's login: a field of the request says who it is."""
    name = dict(scope["headers"]).get(b"x-user", b"").decode()
    return USERS.get(name)


USERS = {
    "ada": User("ada", UserLimits(requests_per_minute=3, open_runs=2, tokens_per_day=100)),
    "bob": User("bob"),
    "eve": User("eve", is_operator=True),
}


def as_user(name: str, **headers: str) -> dict[str, str]:
    return {"x-user": name} | {key.replace("_", "-"): value for key, value in headers.items()}


async def begun(stage: Stage, user: str, path: str = "/stream", body: Any = CHAT, **headers: str) -> Browser:
    """A run of the user's, which has said something and goes on."""
    browser = stage.ask("POST", path, body, headers=as_user(user, **headers))
    (await stage.call()).send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "secret"))
    await browser.head()
    return browser


async def over(*browsers: Browser) -> None:
    for browser in browsers:
        browser.leave()
        await browser.done()


# --- Who --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/stream"),
        ("POST", "/api/chat"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/count_tokens"),
        ("GET", "/v1/models"),
        ("GET", f"/runs/{RUN_ID}"),
        ("DELETE", f"/runs/{RUN_ID}"),
        ("GET", "/runs"),
        ("DELETE", "/runs"),
        ("GET", "/me"),
        ("GET", "/metrics"),
        ("GET", "/doctor"),
        ("GET", "/api/chat/chat-1/stream"),
    ],
)
def test_no_route_is_open_to_a_stranger(method: str, path: str) -> None:
    browser = ask(method, path, CHAT if method == "POST" else None, authenticate=by_name)
    assert browser.status == 401
    assert browser.headers["www-authenticate"] == "Login"
    assert browser.calls == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_route_that_is_added_is_not_open_either(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    added = {re.compile("/version"): {"GET": app._Call._me, "HEAD": app._Call._me}}
    monkeypatch.setattr(app, "_ROUTES", {**added, **app._ROUTES})
    assert ask(method, "/version", authenticate=by_name).status == 401


@pytest.mark.parametrize("path", ["/", "/rawsse.js", "/healthz", "/readyz"])
def test_the_page_and_the_probes_are_open(path: str) -> None:
    assert ask("GET", path, authenticate=by_name).status == 200


def test_a_link_elsewhere_may_lead_to_the_page() -> None:
    assert ask("GET", "/", headers={"sec-fetch-site": "cross-site"}).status == 200


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/me"), ("GET", "/runs"), ("POST", "/stream"), ("GET", "/doctor")]
)
def test_the_token_for_the_metrics_opens_nothing_else(method: str, path: str) -> None:
    headers = {"authorization": "Bearer m3trics"}
    options: dict[str, Any] = {"authenticate": by_name, "metrics_token": "m3trics", "headers": headers}
    browser = ask(method, path, CHAT if method == "POST" else None, **options)
    assert browser.status == 401
    assert browser.calls == []


def test_another_user_s_run_is_not_there_on_any_route() -> None:
    async def story() -> None:
        async with relay(authenticate=by_name) as stage:
            mine = await begun(stage, "ada", x_run_id=RUN_ID)
            assert mine.headers["x-run-id"] == RUN_ID
            for user in ("bob", "eve"):
                for method, path in (("GET", f"/runs/{RUN_ID}"), ("DELETE", f"/runs/{RUN_ID}")):
                    theirs = await stage.ask(method, path, headers=as_user(user)).done()
                    assert error_json(theirs) == (404, "not_found_error", None)
                several = await stage.ask("GET", "/runs", headers=as_user(user), query=f"id={RUN_ID}").done()
                assert json.loads(several.data[0])["missing"] == [RUN_ID]
                assert b"secret" not in several.body
            assert (await stage.ask("GET", "/runs", headers=as_user("bob")).done()).json == []
            assert not mine.is_ended
            await over(mine)

    run(story())


def test_a_run_of_a_program_is_listed_but_cannot_be_read_or_stopped_by_its_id() -> None:
    async def story() -> None:
        async with relay(authenticate=by_name) as stage:
            mine = stage.ask("POST", "/v1/messages", MESSAGES, headers=as_user("bob"))
            await stage.call()
            (told,) = (await stage.ask("GET", "/runs", headers=as_user("bob")).done()).json
            for method in ("GET", "DELETE"):
                other = await stage.ask(method, f"/runs/{told['run']}", headers=as_user("bob")).done()
                assert error_json(other) == (404, "not_found_error", None)
            several = await stage.ask("GET", "/runs", headers=as_user("bob"), query=f"id={told['run']}").done()
            assert json.loads(several.data[0]) == {"runs": {}, "missing": [told["run"]]}
            await over(mine)

    run(story())


def test_a_run_id_that_another_user_has_chosen_is_free_for_everyone_else() -> None:
    async def story() -> None:
        async with relay(authenticate=by_name) as stage:
            mine = await begun(stage, "ada", x_run_id=RUN_ID)
            theirs = stage.ask("POST", "/stream", {"message": "another"}, headers=as_user("bob", x_run_id=RUN_ID))
            (await stage.call()).send(*ANSWER, end=True)  # a call of its own, and neither 409 nor ada's words
            await theirs.done()
            assert (theirs.status, b"secret" in theirs.body) == (200, False)
            await over(mine)

    run(story())


def test_another_user_s_chat_is_not_resumed() -> None:
    async def story() -> None:
        async with relay(authenticate=by_name) as stage:
            mine = await begun(stage, "ada", "/api/chat", UI)
            path = "/api/chat/chat-1/stream"
            assert (await stage.ask("GET", path, headers=as_user("bob")).done()).status == 204
            again = stage.ask("GET", path, headers=as_user("ada"))
            await ticks(5)
            assert b"secret" in again.body
            await over(mine, again)

    run(story())


def test_each_token_is_a_user() -> None:
    async def story() -> None:
        async with relay(guard=Guard(tokens=["first-token", "second-token"])) as stage:
            mine = stage.ask("POST", "/stream", CHAT, headers={"x-api-key": "first-token"})
            (await stage.call()).send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "secret"))
            await mine.head()
            path = f"/runs/{mine.headers['x-run-id']}"
            assert (await stage.ask("GET", path, headers={"x-api-key": "second-token"}).done()).status == 404
            names = [
                (await stage.ask("GET", "/me", headers={"x-api-key": f"{name}-token"}).done()).json["user"]
                for name in ("first", "second")
            ]
            assert len(set(names)) == 2
            assert "first" not in names[0]
            await over(mine)

    run(story())


def test_a_login_of_the_host_application_is_honoured() -> None:
    async def story() -> None:
        async with relay(WHOLE) as stage:

            async def host(scope: Any, receive: Any, send: Any) -> None:
                await stage.relay({**scope, "user": User("ada")}, receive, send)

            browser = stage.ask("GET", "/me")
            assert (await browser.done()).json["user"] is None
            scope = {"type": "http", "method": "GET", "path": "/me", "headers": [(b"host", b"localhost")]}
            assert (await Browser(host, scope, b"").done()).json["user"] == "ada"  # type: ignore[arg-type]

    run(story())


@pytest.mark.parametrize(
    "fields", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}]
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/stream"), ("GET", f"/runs/{RUN_ID}"), ("DELETE", "/runs"), ("GET", "/me")]
)
def test_a_page_of_another_origin_cannot_use_a_login(fields: Mapping[str, str], method: str, path: str) -> None:
    headers = {**as_user("ada", cookie="session=of-ada"), **fields}
    browser = ask(method, path, CHAT if method == "POST" else None, headers=headers, authenticate=by_name)
    assert browser.status == 403
    assert browser.calls == []


# --- How much ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), CHATS)
def test_requests_beyond_the_limit_never_reach_the_api(path: str, body: Any) -> None:
    async def story() -> None:
        async with relay(*[WHOLE] * 5, authenticate=by_name, clock=lambda: 1_000_000.0) as stage:
            answers = [await stage.ask("POST", path, body, headers=as_user("ada")).done() for _ in range(5)]
            assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
            assert len(stage.calls) == 3
            refused = answers[-1]
            assert refused.headers["retry-after"] == "20"
            assert '"requests";q=3;w=60' in refused.headers["ratelimit-policy"]
            assert '"requests";r=0;t=20' in refused.headers["ratelimit"]
            assert [answer.headers["ratelimit"].partition(",")[0] for answer in answers[:2]] == [
                '"requests";r=2;t=20',
                '"requests";r=1;t=40',
            ]
            if path == "/v1/messages":
                assert error_json(refused)[:2] == (429, "rate_limit_error")
                assert refused.headers["anthropic-ratelimit-requests-remaining"] == "0"
            elif body is UI:
                assert refused.headers["content-type"] == "text/plain; charset=utf-8"
                assert b"limit of requests per minute (3)" in refused.body
            else:
                assert "rate_limit_error" in refused.data[0]
                assert refused.data[-1] == "[DONE]"

    run(story())


def test_the_limits_that_a_program_is_told_are_its_own_and_not_the_operator_s() -> None:
    fields = b"anthropic-ratelimit-requests-limit: 4000\r\nanthropic-ratelimit-tokens-limit: 9000\r\nrequest-id: req_1"
    api = WHOLE.replace(b"request-id: req_1", fields)
    options: dict[str, Any] = {"authenticate": by_name, "clock": lambda: 1_000_000.0, "api": api}
    for body in (MESSAGES, {**MESSAGES, "stream": False}):
        told = ask("POST", "/v1/messages", body, headers=as_user("ada"), **options).headers
        assert {name: told[name] for name in told if name.endswith("-limit")} == {
            "anthropic-ratelimit-requests-limit": "3",
            "anthropic-ratelimit-tokens-limit": "100",
        }
        assert ask("POST", "/v1/messages", body, api=api).headers["anthropic-ratelimit-requests-limit"] == "4000"


def test_open_runs_beyond_the_limit_are_refused_until_one_has_ended() -> None:
    async def story() -> None:
        async with relay(authenticate=by_name) as stage:
            first, second = await begun(stage, "ada"), await begun(stage, "ada")
            assert (await stage.ask("POST", "/stream", CHAT, headers=as_user("ada")).done()).status == 429
            assert len(stage.calls) == 2
            path = f"/runs/{first.headers['x-run-id']}"
            assert (await stage.ask("DELETE", path, headers=as_user("ada")).done()).status == 204
            await first.done()
            third = await begun(stage, "ada")
            assert third.status == 200
            await over(second, third)

    run(story())


def test_a_repeated_request_for_the_same_run_counts_once() -> None:
    async def story() -> None:
        async with relay(WHOLE, authenticate=by_name, clock=lambda: 1_000_000.0) as stage:
            for _ in range(6):
                again = await stage.ask("POST", "/stream", CHAT, headers=as_user("ada", x_run_id=RUN_ID)).done()
                assert again.status == 200
            assert len(stage.calls) == 1
            me = (await stage.ask("GET", "/me", headers=as_user("ada")).done()).json
            assert me["left"]["requests_per_minute"] == 2

    run(story())


def test_two_requests_that_name_the_same_run_at_once_begin_it_once() -> None:
    async def story() -> None:
        async def on_request(request: dict[str, Any], user: User | None) -> None:
            await asyncio.sleep(1)

        async with relay(WHOLE, WHOLE, authenticate=by_name, on_request=on_request) as stage:
            headers = as_user("ada", x_run_id=RUN_ID)
            both = [stage.ask("POST", "/stream", CHAT, headers=headers) for _ in range(2)]
            bodies = {(await browser.done()).body for browser in both}
            assert (len(bodies), len(stage.calls)) == (1, 1)
            assert (await stage.ask("GET", "/me", headers=as_user("ada")).done()).json["left"]["open_runs"] == 2

    run(story())


@pytest.mark.parametrize(("path", "body", "calls"), [("/stream", CHAT, 3), ("/v1/messages", MESSAGES, 1)])
def test_only_for_browsers_does_the_relay_itself_try_again(path: str, body: Any, calls: int) -> None:
    said = SAYS_NO.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)

    async def story() -> None:
        async with relay(*[said] * 9, max_retries=2) as stage:
            assert (await stage.ask("POST", path, body).done()).status == 529
            assert len(stage.calls) == calls

    run(story())


@pytest.mark.parametrize(("path", "body"), CHATS)
def test_the_api_s_own_fields_about_limits_are_for_its_clients(path: str, body: Any) -> None:
    names = ask("POST", path, body, authenticate=by_name, headers=as_user("ada")).headers
    assert ("anthropic-ratelimit-requests-limit" in names) is (path == "/v1/messages")


def test_an_invalid_request_and_one_that_the_relay_cannot_take_count_nowhere() -> None:
    async def story() -> None:
        clock: dict[str, Any] = {"authenticate": by_name, "clock": lambda: 1_000_000.0}
        async with relay(limits=RunLimits(max_runs=0), **clock) as stage:
            assert (await stage.ask("POST", "/stream", {}, headers=as_user("ada")).done()).status == 400
            assert (await stage.ask("POST", "/stream", CHAT, headers=as_user("ada")).done()).status == 503
            await stage.relay.aclose()
            body = {**MESSAGES, "stream": False}
            assert (await stage.ask("POST", "/v1/messages", body, headers=as_user("ada")).done()).status == 503
            me = (await stage.ask("GET", "/me", headers=as_user("ada")).done()).json
            assert me["left"] == {"requests_per_minute": 3, "tokens_per_day": 100, "open_runs": 2}

    run(story())


@pytest.mark.parametrize("body", [MESSAGES, {**MESSAGES, "stream": False}])
def test_tokens_of_the_day_are_what_the_answers_have_cost(body: Any) -> None:
    # Each answer has 10 tokens in and 7 out; the day's 100 are used up by the sixth.
    async def story() -> None:
        times = iter(range(0, 86_400 * 2, 3600))
        async with relay(*[WHOLE] * 8, authenticate=by_name, clock=lambda: float(next(times))) as stage:
            answers = [await stage.ask("POST", "/v1/messages", body, headers=as_user("ada")).done() for _ in range(8)]
            statuses = [answer.status for answer in answers]
            assert statuses == [200] * 6 + [429] * 2

    run(story())


LONG = [start(), block_start(0, TEXT_BLOCK), *[text_delta(0, "word")] * 50]
"""All but the end of an answer of 10 tokens in and, as the quotas estimate, 50 out."""


@pytest.mark.parametrize("end", ["stops", "leaves", "is cut", "errs"])
@pytest.mark.parametrize(("path", "body"), [*CHATS, ("/v1/messages", {**MESSAGES, "stream": False})])
def test_an_answer_that_ends_just_before_its_end_uses_up_the_day_s_tokens_too(path: str, body: Any, end: str) -> None:
    async def story() -> None:
        async with relay(authenticate=by_name, limits=RunLimits(grace_seconds=0)) as stage:
            for _ in range(2):
                browser = stage.ask("POST", path, body, headers=as_user("ada"))
                api = await stage.call()
                api.send(*LONG)
                await ticks(20)
                if end == "stops":
                    assert (await stage.ask("DELETE", "/runs", headers=as_user("ada")).done()).json == {"stopped": 1}
                elif end == "leaves":
                    browser.leave()
                else:
                    api.send(*[ERROR] * (end == "errs"), end=True)
                await browser.done()
            told = (await stage.ask("GET", "/me", headers=as_user("ada")).done()).json
            assert told["left"] == {"requests_per_minute": 1, "tokens_per_day": 0, "open_runs": 2}
            assert (await stage.ask("POST", path, body, headers=as_user("ada")).done()).status == 429

    run(story())


def test_quotas_survive_a_restart(tmp_path: Any) -> None:
    async def day(**options: Any) -> list[int]:
        ledger = Ledger(tmp_path / "ledger.db", batch_seconds=0.01)
        async with relay(*[WHOLE] * 4, authenticate=by_name, ledger=ledger, **options) as stage:
            asked = [stage.ask("POST", "/v1/messages", MESSAGES, headers=as_user("ada")) for _ in range(2)]
            statuses = [(await browser.done()).status for browser in asked]
        ledger.close()
        return statuses

    noon = 86_400.0 * 20_000 + 43_200
    for later in (0, 100, 200):
        assert asyncio.run(day(clock=lambda at=noon + later: at)) == [200, 200]
    assert asyncio.run(day(clock=lambda: noon + 300)) == [429, 429]  # 6 answers of 17 tokens
    assert asyncio.run(day(clock=lambda: noon + 43_200)) == [200, 200]  # the next day


def test_runs_in_progress_go_on_when_the_day_s_tokens_are_used_up_unless_they_are_to_be_cut() -> None:
    async def story(*, is_cut: bool) -> str:
        limits = UserLimits(tokens_per_day=10, ends_open_runs=is_cut)
        async with relay(authenticate=by_name, user_limits=limits) as stage:
            long = await begun(stage, "bob")
            short = stage.ask("POST", "/stream", CHAT, headers=as_user("bob"))
            (await stage.call()).send(*ANSWER, end=True)
            await short.done()
            await ticks(5)
            if not long.is_ended:
                await over(long)
            return long.body.decode()

    assert "the tokens of the day are used up" in run(story(is_cut=True))
    assert "used up" not in run(story(is_cut=False))


def test_a_call_without_stream_is_cut_too() -> None:
    async def story() -> None:
        limits = UserLimits(tokens_per_day=10, ends_open_runs=True)
        async with relay(authenticate=by_name, user_limits=limits) as stage:
            long = stage.ask("POST", "/v1/messages", {**MESSAGES, "stream": False}, headers=as_user("bob"))
            (await stage.call()).send(start())
            short = stage.ask("POST", "/stream", CHAT, headers=as_user("bob"))
            (await stage.call()).send(*ANSWER, end=True)
            await short.done()
            assert error_json(await long.done()) == (429, "rate_limit_error", None)

    run(story())


def test_only_the_runs_of_users_are_cut_whose_own_tokens_are_used_up_and_each_time() -> None:
    async def story() -> None:
        limits = UserLimits(tokens_per_day=10, ends_open_runs=True)
        async with relay(authenticate=by_name, user_limits=limits) as stage:
            opened = {user: await begun(stage, user) for user in ("bob", "eve")}
            for user, browser in opened.items():
                assert not browser.is_ended
                short = stage.ask("POST", "/stream", CHAT, headers=as_user(user))
                (await stage.call()).send(*ANSWER, end=True)
                await short.done()
                await ticks(5)
                assert browser.is_ended

    run(story())


def test_any_number_of_runs_may_be_cut_at_once() -> None:
    rows = Rows()

    async def story() -> None:
        limits = UserLimits(tokens_per_day=10, ends_open_runs=True)
        async with relay(authenticate=by_name, user_limits=limits, observers=[rows]) as stage:
            opened = [await begun(stage, "bob") for _ in range(150)]  # a call in another's call would be too deep
            short = stage.ask("POST", "/stream", CHAT, headers=as_user("bob"))
            (await stage.call()).send(*ANSWER, end=True)
            await short.done()
            for browser in opened:
                assert b"used up" in (await browser.done()).body

    run(story())
    assert len(rows.records) == 151


def test_the_end_of_a_run_does_not_look_at_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a thousand runs that end cost a million looks."""
    looks: list[str] = []

    async def story() -> None:
        async with relay(
            authenticate=by_name, user_limits=UserLimits(tokens_per_day=10**6, ends_open_runs=True)
        ) as stage:
            opened = [await begun(stage, "bob") for _ in range(20)]

            def must_end(user: str, now: float) -> bool:
                looks.append(user)
                return False

            monkeypatch.setattr(stage.relay.quotas, "must_end", must_end)
            for api in stage.calls:
                api.send({"type": "content_block_stop", "index": 0}, end(), STOP, end=True)
            for browser in opened:
                await browser.done()

    run(story())
    assert len(looks) == 20


def test_all_users_together_have_a_budget() -> None:
    async def story() -> None:
        limits = UserLimits(requests_per_minute=1)
        async with relay(WHOLE, authenticate=by_name, all_limits=limits) as stage:
            assert (await stage.ask("POST", "/stream", CHAT, headers=as_user("ada")).done()).status == 200
            assert (await stage.ask("POST", "/stream", CHAT, headers=as_user("bob")).done()).status == 429
            assert len(stage.calls) == 1

    run(story())


def test_a_relay_without_users_has_limits_too() -> None:
    async def story() -> None:
        async with relay(*[WHOLE] * 2, all_limits=UserLimits(requests_per_minute=2)) as stage:
            statuses = [(await stage.ask("POST", "/stream", CHAT).done()).status for _ in range(3)]
            assert statuses == [200, 200, 429]
            me = (await stage.ask("GET", "/me").done()).json
            assert (me["user"], me["left"]["requests_per_minute"]) == (None, 0)

    run(story())


# --- What -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), [("/stream", CHAT), ("/api/chat", {"messages": [USER]}), ("/api/chat", UI)])
@pytest.mark.parametrize(
    ("field", "value"), [("system", "You are a pirate."), ("model", "claude-other"), ("max_tokens", 4097)]
)
def test_a_browser_may_not_choose_what_the_operator_decides(path: str, body: Any, field: str, value: Any) -> None:
    browser = ask("POST", path, {**body, field: value})
    assert error_of(browser) == (400, "" if "id" in body else "invalid_request_error", field)
    assert browser.calls == []


def test_a_browser_gets_the_operator_s_system_prompt_and_a_program_its_own() -> None:
    options: dict[str, Any] = {"model": "claude-a", "models": ["claude-b"], "max_tokens": 500, "system": "Be brief."}
    (call,) = ask("POST", "/stream", {**CHAT, "model": "claude-b", "max_tokens": 7}, **options).calls
    assert {name: call.json[name] for name in ("model", "max_tokens", "system")} == {
        "model": "claude-b",
        "max_tokens": 7,
        "system": "Be brief.",
    }
    body = {"messages": [USER], "system": "Mine."}
    (call,) = ask("POST", "/v1/messages", body, **options).calls
    assert (call.json["model"], call.json["max_tokens"], call.json["system"]) == ("claude-a", 500, "Mine.")
    for field, value in (("model", "claude-c"), ("max_tokens", 501)):
        refused = ask("POST", "/v1/messages", {**MESSAGES, "model": "claude-a", field: value}, **options)
        assert error_json(refused) == (400, "invalid_request_error", field)


def test_without_a_list_a_program_may_name_any_model_and_any_number_of_tokens() -> None:
    (call,) = ask("POST", "/v1/messages", {**MESSAGES, "model": "claude-any", "max_tokens": 100_000}).calls
    assert (call.json["model"], call.json["max_tokens"]) == ("claude-any", 100_000)


def test_a_user_may_have_fewer_models_and_tokens_than_the_relay() -> None:
    async def one(scope: Scope) -> User:
        return User("ada", UserLimits(models=("claude-b",), max_tokens=10))

    options: dict[str, Any] = {"model": "claude-a", "models": ["claude-b"], "authenticate": one}
    (call,) = ask("POST", "/stream", CHAT, **options).calls
    assert (call.json["model"], call.json["max_tokens"]) == ("claude-b", 10)
    for body, field in (({"model": "claude-a"}, "model"), ({"max_tokens": 11}, "max_tokens")):
        assert error_of(ask("POST", "/stream", {**CHAT, **body}, **options))[2] == field
    listed = ask("GET", "/v1/models", **options).json
    assert [model["id"] for model in listed["data"]] == ["claude-b"]


@pytest.mark.parametrize(
    ("own", "relay_s", "listed"),
    [
        (("claude-c", "claude-d"), [], ["claude-c", "claude-d"]),
        (("claude-c",), ["claude-b", "claude-c"], ["claude-c"]),
        (("claude-c",), ["claude-b"], []),
        (None, [], ["claude-a"]),
        (None, ["claude-b"], ["claude-a", "claude-b"]),
    ],
)
def test_the_models_that_are_listed_are_those_that_are_accepted(
    own: tuple[str, ...] | None, relay_s: list[str], listed: list[str]
) -> None:
    async def one(scope: Scope) -> User:
        return User("ada", UserLimits(models=own))

    options: dict[str, Any] = {"model": "claude-a", "models": relay_s, "authenticate": one}
    assert [model["id"] for model in ask("GET", "/v1/models", **options).json["data"]] == listed
    for model in ("claude-a", "claude-b", "claude-c"):
        is_taken = ask("POST", "/stream", {**CHAT, "model": model}, **options).status == 200
        assert is_taken == (model in listed), model


def test_what_all_users_together_may_choose_holds_for_each() -> None:
    everyone = UserLimits(models=("claude-b",), max_tokens=10)
    options: dict[str, Any] = {"model": "claude-a", "models": ["claude-b"], "all_limits": everyone}
    options |= {"authenticate": by_name, "headers": as_user("bob")}
    for body, field in (({"model": "claude-a"}, "model"), ({"max_tokens": 11}, "max_tokens")):
        assert error_of(ask("POST", "/stream", {**CHAT, **body}, **options))[2] == field
        assert error_json(ask("POST", "/v1/messages", {**MESSAGES, "model": "claude-b", **body}, **options))[2] == field


@pytest.mark.parametrize("value", ["a\tb", "caf\u00e9"])
def test_a_header_field_for_the_api_must_be_printable_ascii(value: str) -> None:
    browser = ask("POST", "/v1/messages", MESSAGES, headers={"anthropic-beta": value})
    assert error_json(browser) == (400, "invalid_request_error", "anthropic-beta")
    assert browser.calls == []


@pytest.mark.parametrize(("path", "body"), CHATS[:3])
def test_a_prompt_of_a_browser_has_a_largest_length(path: str, body: Any) -> None:
    browser = ask("POST", path, body, max_prompt_chars=1)
    assert (browser.status, browser.calls) == (413, [])


def test_the_embedder_may_change_a_request_or_refuse_it() -> None:
    seen: list[tuple[str, User | None]] = []

    async def on_request(request: dict[str, Any], user: User | None) -> dict[str, Any] | None:
        seen.append((request["model"], user))
        if "forbidden" in json.dumps(request):
            raise Answer(403, "permission_error", "we do not speak of that")
        return {**request, "metadata": {"user_id": user.id if user is not None else ""}} if user else None

    options: dict[str, Any] = {"authenticate": by_name, "on_request": on_request, "headers": as_user("ada")}
    for path, body in CHATS:
        (call,) = ask("POST", path, body, **options).calls
        assert call.json["metadata"] == {"user_id": "ada"}
    refused = ask("POST", "/stream", {"message": "a forbidden word"}, **options)
    assert (refused.status, refused.calls) == (403, [])
    assert json.loads(refused.data[0]) == {"error": "we do not speak of that", "type": "permission_error"}
    assert {user.id for _, user in seen if user is not None} == {"ada"}


def test_what_the_embedder_refuses_counts_for_no_limit_and_what_a_limit_refuses_was_seen() -> None:
    seen: list[str] = []

    async def on_request(request: dict[str, Any], user: User | None) -> None:
        assert user is not None
        seen.append(user.id)
        if len(seen) <= 3:
            raise Answer(403, "permission_error", "no")

    async def story() -> None:
        async with relay(
            *[WHOLE] * 3, authenticate=by_name, on_request=on_request, observers=[rows := Rows()]
        ) as stage:
            asked = [await stage.ask("POST", "/stream", CHAT, headers=as_user("ada")).done() for _ in range(7)]
            assert [browser.status for browser in asked] == [403] * 3 + [200] * 3 + [429]
            assert (await stage.ask("POST", "/stream", CHAT).done()).status == 401
            assert (seen, len(rows.starts)) == (["ada"] * 7, 3)

    run(story())


@pytest.mark.parametrize("root", ["", "/claude"])
def test_an_application_may_close_the_routes_of_programs(root: str) -> None:
    async def who(scope: Scope) -> str:
        if "/v1/" in scope["path"]:
            raise Answer(404, "not_found_error", "there is nothing here")
        return "ada"

    async def story() -> None:
        async with relay(*[WHOLE] * 4, authenticate=who) as stage:
            for path in ("/v1/messages", "/v1/messages/count_tokens"):
                assert (await stage.ask("POST", root + path, MESSAGES, root_path=root).done()).status == 404
            assert (await stage.ask("GET", f"{root}/v1/models", root_path=root).done()).status == 404
            for path, body in CHATS:
                if path != "/v1/messages":
                    assert (await stage.ask("POST", root + path, body, root_path=root).done()).status == 200
            assert len(stage.calls) == len(CHATS) - 1

    run(story())


# --- Operations -------------------------------------------------------------------------------------------------------


def test_an_operator_lists_and_ends_the_open_runs_of_a_user() -> None:
    async def story() -> None:
        async with relay(authenticate=by_name) as stage:
            mine, other = await begun(stage, "ada"), await begun(stage, "bob")
            for asker, status in (("bob", 403), ("eve", 200)):
                assert (
                    await stage.ask("GET", "/runs", headers=as_user(asker), query="user=ada").done()
                ).status == status
            (told,) = (await stage.ask("GET", "/runs", headers=as_user("eve"), query="user=ada").done()).json
            assert (told["user"], told["run"], told["dialect"], told["readers_here"]) == (
                "ada",
                mine.headers["x-run-id"],
                "text",
                1,
            )
            everyone = (await stage.ask("GET", "/runs", headers=as_user("eve"), query="user=*").done()).json
            assert sorted(each["user"] for each in everyone) == ["ada", "bob"]
            refused = await stage.ask("DELETE", "/runs", headers=as_user("bob"), query="user=ada").done()
            assert error_json(refused) == (403, "permission_error", "user")
            ended = await stage.ask("DELETE", "/runs", headers=as_user("eve"), query="user=ada").done()
            assert ended.json == {"stopped": 1}
            await mine.done()
            assert not other.is_ended
            await over(other)

    run(story())


def test_an_operator_ends_one_run_of_a_user_and_does_not_read_it() -> None:
    async def story() -> None:
        async with relay(authenticate=by_name) as stage:
            mine = await begun(stage, "ada")
            path = f"/runs/{mine.headers['x-run-id']}"

            async def ask(method: str, asker: str, query: str) -> int:
                return (await stage.ask(method, path, headers=as_user(asker), query=query).done()).status

            assert await ask("DELETE", "bob", "user=ada") == 403
            assert await ask("DELETE", "eve", "") == 404
            told = {who: (await stage.ask("DELETE", path, headers=as_user(who)).done()).body for who in ("bob", "eve")}
            assert [who for who, text in told.items() if b"?user=ID" in text] == ["eve"]
            for method, query in (("DELETE", "user=bob"), ("GET", ""), ("GET", "user=ada")):  # it would not help
                refused = await stage.ask(method, path, headers=as_user("eve"), query=query).done()
                assert (refused.status, "user" in refused.json["error"]["message"]) == (404, False)
            assert await ask("DELETE", "eve", "user=*") == 400
            assert not mine.is_ended
            assert await ask("DELETE", "eve", "user=ada") == 204
            assert '"cancelled"' in (await mine.done()).body.decode()

    run(story())


def test_of_several_runs_a_user_ends_those_that_are_named_and_theirs() -> None:
    async def story() -> None:
        async with relay(authenticate=by_name) as stage:
            mine, also, other = await begun(stage, "ada"), await begun(stage, "ada"), await begun(stage, "bob")
            first, _, third = (f"id={each.headers['x-run-id']}" for each in (mine, also, other))

            async def stop(asker: str, query: str) -> Any:
                return (await stage.ask("DELETE", "/runs", headers=as_user(asker), query=query).done()).json

            for query, stopped in ((third, 0), ("id=", 0), (f"{first}&{third}", 1)):
                assert await stop("ada", query) == {"stopped": stopped}
            await mine.done()
            assert (also.is_ended, other.is_ended) == (False, False)
            assert (await stop("eve", f"{third}&user=*"))["error"]["field"] == "user"
            assert await stop("eve", f"{third}&user=bob") == {"stopped": 1}
            await other.done()
            await over(also)

    run(story())


def test_a_user_whose_name_is_the_operator_s_word_for_all_is_like_any_other() -> None:
    async def star(scope: Scope) -> User | None:
        return User("*") if dict(scope["headers"]).get(b"x-user") == b"*" else await by_name(scope)

    async def story() -> None:
        async with relay(authenticate=star) as stage:
            mine = await begun(stage, "ada")
            assert (await stage.ask("GET", "/runs", headers=as_user("*")).done()).json == []
            assert (await stage.ask("DELETE", "/runs", headers=as_user("*")).done()).json == {"stopped": 0}
            assert (await stage.ask("GET", "/runs", headers=as_user("*"), query="user=*").done()).status == 403
            await over(mine)

    run(story())


def test_a_user_lists_and_ends_the_open_runs_that_are_theirs() -> None:
    async def story() -> None:
        async with relay(authenticate=by_name) as stage:
            mine, other = await begun(stage, "ada"), await begun(stage, "bob")
            (told,) = (await stage.ask("GET", "/runs", headers=as_user("ada")).done()).json
            assert told["run"] == mine.headers["x-run-id"]
            assert (await stage.ask("DELETE", "/runs", headers=as_user("ada")).done()).json == {"stopped": 1}
            await mine.done()
            await over(other)

    run(story())


def test_a_program_whose_run_is_ended_before_it_had_begun_is_not_told_that_all_is_well() -> None:
    async def story() -> None:
        async with relay(authenticate=by_name) as stage:
            program = stage.ask("POST", "/v1/messages", MESSAGES, headers=as_user("ada"))
            await stage.call()
            assert (await stage.ask("DELETE", "/runs", headers=as_user("ada")).done()).json == {"stopped": 1}
            assert error_json(await program.done()) == (499, "cancelled", None)

    run(story())


def test_where_there_are_no_users_each_may_ask_for_all_runs() -> None:
    for query in ("user=ada", "user=*", ""):
        browser = ask("GET", "/runs", query=query)
        assert (browser.status, browser.json) == (200, [])


def test_it_is_not_ready_while_it_shuts_down_and_still_alive() -> None:
    async def story() -> None:
        async with relay() as stage:
            assert (await stage.ask("GET", "/readyz").done()).status == 200
            await stage.relay.aclose()
            assert [(await stage.ask("GET", path).done()).status for path in ("/readyz", "/healthz")] == [503, 200]
            told = (await stage.ask("GET", "/doctor").done()).json["error"]["message"]
            assert told == "the server is shutting down"

    run(story())


def test_metrics_count_runs_refusals_and_readers() -> None:
    async def story() -> None:
        async with relay(WHOLE, authenticate=by_name, clock=lambda: 1_000_000.0, metrics_token="m3trics") as stage:
            await stage.ask("POST", "/stream", CHAT, headers=as_user("ada")).done()
            opened = [await begun(stage, user) for user in ("ada", "ada", "bob")]
            for _ in range(2):
                await stage.ask("POST", "/stream", CHAT, headers=as_user("ada")).done()
            await stage.ask("POST", "/stream", CHAT).done()
            told = await stage.ask("GET", "/metrics", headers={"authorization": "Bearer m3trics"}).done()
            assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
            lines = told.body.decode().splitlines()
            for line in (
                'rawsse_runs_total{ending="complete",dialect="text"} 1',
                "rawsse_open_streams 3",
                "rawsse_readers 3",
                'rawsse_refused_requests_total{reason="rate_limit_error"} 2',
                'rawsse_refused_requests_total{reason="authentication_error"} 1',
            ):
                assert line in lines, line
            wrong = await stage.ask("GET", "/metrics", headers={"authorization": "Bearer wrong"}).done()
            assert wrong.status == 401
            assert error_json(await stage.ask("GET", "/metrics", headers=as_user("ada")).done())[0] == 403
            assert (await stage.ask("GET", "/metrics", headers=as_user("eve")).done()).status == 200
            await over(*opened)

    run(story())


@pytest.mark.parametrize("tokens", [(), ("a-user",)])
def test_a_token_for_the_metrics_is_asked_for_with_and_without_users(tokens: tuple[str, ...]) -> None:
    options: dict[str, Any] = {"guard": Guard(tokens=tokens), "metrics_token": "m3trics"}
    assert ask("GET", "/metrics", **options).status == 401
    assert ask("GET", "/metrics", headers={"x-api-key": "wrong"}, **options).status == 401
    assert ask("GET", "/metrics", headers={"x-api-key": "m3trics"}, **options).status == 200
    for token in tokens:  # it is that of a user, and not of an operator
        assert ask("GET", "/metrics", headers={"x-api-key": token}, **options).status == 403
    assert ask("GET", "/metrics").status == 200


def test_the_operator_s_model_has_its_label_before_it_has_answered() -> None:
    async def story() -> None:
        async with relay(SAYS_NO, model="claude-own", models=["claude-too"]) as stage:
            await stage.ask("POST", "/stream", CHAT).done()
            assert 'gen_ai_request_model="claude-own"' in stage.relay.metrics.render()

    run(story())


def test_resumes_are_counted_by_their_result() -> None:
    async def story() -> None:
        async with relay(WHOLE) as stage:
            first = await stage.ask("POST", "/stream", CHAT).done()
            path = f"/runs/{first.headers['x-run-id']}"
            await stage.ask("GET", path).done()
            await stage.ask("GET", path, headers={"last-event-id": first.frames[-1].id}).done()
            await stage.ask("GET", "/runs/nothing").done()
            lines = (await stage.ask("GET", "/metrics").done()).body.decode().splitlines()
            for result, count in (("resumed", 1), ("nothing_left", 1), ("not_found", 1)):
                assert f'rawsse_resumes_total{{result="{result}"}} {count}' in lines
            assert not any("refused" in line for line in lines)  # of a 404 and its kin

    run(story())


def test_a_resume_that_comes_too_late_is_counted_once() -> None:
    async def story() -> None:
        async with relay(WHOLE, limits=RunLimits(max_log_bytes=50)) as stage:
            first = await stage.ask("POST", "/stream", CHAT).done()
            assert (await stage.ask("GET", f"/runs/{first.headers['x-run-id']}").done()).status == 410
            lines = (await stage.ask("GET", "/metrics").done()).body.decode().splitlines()
            assert [line for line in lines if line.startswith("rawsse_resumes")] == [
                'rawsse_resumes_total{result="gone"} 1'
            ]

    run(story())


def test_the_row_says_that_a_client_left_before_its_whole_message() -> None:
    rows = Rows()

    async def story() -> None:
        async with relay(observers=[rows]) as stage:
            browser = stage.ask("POST", "/v1/messages", {**MESSAGES, "stream": False})
            (await stage.call()).send(start())
            await over(browser)

    run(story())
    assert [(each.ending, each.on_disconnect) for each in rows.records] == [("cancelled", "cancel")]


def test_rows_of_the_ledger_and_records_are_the_same() -> None:
    rows = Rows()
    told: list[RunRecord] = []

    async def story() -> None:
        async with relay(WHOLE, WHOLE[:-40], authenticate=by_name, observers=[rows], on_end=told.append) as stage:
            await stage.ask("POST", "/stream", CHAT, headers=as_user("bob")).done()
            await stage.ask("POST", "/v1/messages", {**MESSAGES, "stream": False}, headers=as_user("bob")).done()

    run(story())
    assert told == rows.records
    assert [(each.user, each.dialect, each.ending) for each in told] == [
        ("bob", "text", "complete"),
        ("bob", "messages", "complete"),
    ]


def test_counts_of_tokens_are_requests_that_need_neither_a_run_nor_tokens() -> None:
    count = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{"input_tokens": 14}'

    async def story() -> None:
        async with relay(count, count, count, authenticate=by_name, clock=lambda: 1_000_000.0) as stage:
            stage.relay.quotas.settle({"ada": 100}, 1_000_000.0)  # the tokens of the day are used up
            asked = [("POST", "/v1/messages/count_tokens", {**MESSAGES, "stream": False})] * 4
            answers = [await stage.ask(*each, headers=as_user("ada")).done() for each in asked]
            assert [answer.status for answer in answers] == [200, 200, 200, 429]
            assert [answer.headers["anthropic-ratelimit-requests-remaining"] for answer in answers] == list("2100")
            assert error_json(answers[-1]) == (429, "rate_limit_error", None)
            assert (answers[-1].headers["retry-after"], len(stage.calls)) == ("20", 3)
            me = (await stage.ask("GET", "/me", headers=as_user("ada")).done()).json
            assert me["left"] == {"requests_per_minute": 0, "tokens_per_day": 0, "open_runs": 2}

    run(story())


# --- The embedder's functions -----------------------------------------------------------------------------------------

POSTS = [*CHATS, ("/v1/messages", {**MESSAGES, "stream": False})]


@pytest.mark.parametrize(("path", "body"), POSTS)
@pytest.mark.parametrize(
    "given",
    [{}, False, True, "words", [], {"model": "m"}, {"model": 5, "max_tokens": 9, "messages": []}, {"max_tokens": 9}],
)
def test_what_the_embedder_gives_in_place_of_a_request_must_be_one(
    path: str, body: Any, given: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rows = Rows()

    async def on_request(request: dict[str, Any], user: User | None) -> Any:
        return given

    async def story() -> None:
        options: dict[str, Any] = {"on_request": on_request, "authenticate": by_name, "observers": [rows]}
        async with relay(WHOLE, **options) as stage:
            browser = await stage.ask("POST", path, body, headers=as_user("ada")).done()
            assert error_of(browser)[:2] == (500, "" if body is UI else "api_error")
            me = (await stage.ask("GET", "/me", headers=as_user("ada")).done()).json
            assert (me["left"]["requests_per_minute"], me["left"]["open_runs"], stage.calls, rows.starts) == (
                3,
                2,
                [],
                [],
            )

    run(story())
    (line,) = caplog.records
    assert (line.levelname, "failed: on_request" in line.getMessage()) == ("ERROR", True)


@pytest.mark.parametrize(("path", "body"), POSTS)
def test_what_the_embedder_gives_is_what_is_asked(path: str, body: Any) -> None:
    async def on_request(request: dict[str, Any], user: User | None) -> dict[str, Any]:
        return {**request, "model": "another"}

    (call,) = ask("POST", path, body, on_request=on_request).calls
    assert call.json["model"] == "another"


@pytest.mark.parametrize(("path", "body"), [*POSTS, ("/v1/messages/count_tokens", MESSAGES)])
@pytest.mark.parametrize("asked", ["on_request", "authenticate"])
def test_a_client_that_leaves_while_the_embedder_is_asked_starts_no_call(path: str, body: Any, asked: str) -> None:
    rows = Rows()

    async def on_request(request: dict[str, Any], user: User | None) -> None:
        await asyncio.sleep(1)

    async def authenticate(scope: Scope) -> str:
        await asyncio.sleep(1)
        return "ada"

    async def story() -> None:
        if asked == "on_request" and path.endswith("count_tokens"):
            return  # it is not asked about these
        options: dict[str, Any] = {asked: {"on_request": on_request, "authenticate": authenticate}[asked]}
        asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory", None))
        async with relay(observers=[rows], **options) as stage:
            browser = stage.ask("POST", path, body)
            await ticks(3)
            await over(browser)
            assert (browser.status, stage.calls, rows.starts) == (0, [], [])

    run(story())


@pytest.mark.parametrize("kind", ["on_end", "on_end object", "begun", "ended"])
def test_a_function_that_is_not_awaited_may_not_be_async(kind: str) -> None:
    class Told(Rows):
        async def __call__(self, record: RunRecord) -> None: ...

    async def told(about: Any) -> None: ...

    rows = Told()
    setattr(rows, kind, told)
    options: dict[str, Any] = {"on_end": told if kind == "on_end" else rows} if "on_end" in kind else {}
    options |= {} if "on_end" in kind else {"observers": [rows]}
    with pytest.raises(ConfigurationError, match=r" must be a plain function: it is called and not awaited$"):
        Relay(Stage().client, **options)


@pytest.mark.parametrize("by", ["host", "embedder"])
def test_a_login_that_can_be_no_user_is_told_in_the_log(by: str, caplog: pytest.LogCaptureFixture) -> None:
    async def authenticate(scope: Scope) -> str:
        return "x" * 257

    async def story() -> None:
        async with relay(**({"authenticate": authenticate} if by == "embedder" else {})) as stage:
            app = stage.relay

            async def host(scope: Scope, receive: Any, send: Any) -> None:
                await app({**scope, "user": "x" * 257}, receive, send)

            stage.relay = host  # type: ignore[assignment]
            browser = await stage.ask("GET", "/me").done()
            stage.relay = app
            assert error_json(browser) == (500, "api_error", None)

    run(story())
    (line,) = caplog.records
    words = "the user that the host application gave cannot be used: id must be 1 to 256 printable characters"
    assert (line.levelname, line.getMessage()) == ("ERROR", f"/me failed: {words}")
