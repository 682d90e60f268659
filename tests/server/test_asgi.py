"""rawsse.server.asgi: the scope of a request, work for a client, and the lifespan."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from support.clock import run, ticks

from rawsse.errors import ConfigurationError
from rawsse.http1 import Headers, Request
from rawsse.server.asgi import ClientDisconnectedError, Lifespan, Message, Receive, Scope, Send, http_scope, unless_gone


def scope_of(target: str, method: str = "GET", *headers: tuple[str, str], state: dict[str, Any] | None = None) -> Scope:
    request = Request(method, target, Headers(headers), "1.1")
    return http_scope(request, ("192.0.2.1", 50000), ("127.0.0.1", 80), state or {})


# --- The scope


def test_the_scope_has_every_key_that_asgi_asks_for() -> None:
    assert scope_of("/a?b=c", "POST", ("Host", "x"), ("cookie", "\xe9")) == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/a",
        "raw_path": b"/a",
        "query_string": b"b=c",
        "root_path": "",
        "headers": [(b"host", b"x"), (b"cookie", b"\xe9")],
        "client": ("192.0.2.1", 50000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }


def test_the_path_is_decoded_and_the_raw_path_is_not() -> None:
    scope = scope_of("/a%20b/%E2%82%AC?x=%20")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b/€", b"/a%20b/%E2%82%AC", b"x=%20")


def test_a_path_that_is_no_utf8_does_not_fail() -> None:
    assert scope_of("/%FF")["path"] == "/\ufffd"


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("*", "*", b""),
        ("//a//b", "//a//b", b""),
        ("/?a?b", "/", b"a?b"),
    ],
)
def test_every_form_of_a_target_has_a_path(target: str, path: str, query: bytes) -> None:
    scope = scope_of(target)
    assert (scope["path"], scope["query_string"]) == (path, query)


def test_the_method_is_upper_case() -> None:
    assert scope_of("/", "get")["method"] == "GET"


def test_the_state_is_a_copy_but_what_it_holds_is_shared() -> None:
    state: dict[str, Any] = {"pool": []}
    scope = scope_of("/", state=state)
    scope["state"]["own"] = 1
    scope["state"]["pool"].append("connection")
    assert state == {"pool": ["connection"]}


def test_the_error_of_a_send_to_nobody_is_an_os_error() -> None:
    assert issubclass(ClientDisconnectedError, OSError)


# --- Work for a client that may go


def receiving(*kinds: str) -> Receive:
    """Messages of these kinds, and after them nothing."""
    left = list(kinds)

    async def receive() -> Message:
        await ticks(1)
        if not left:
            await asyncio.Event().wait()
        return {"type": left.pop(0)}

    return receive


async def raising(error: Exception, after: int = 0) -> Any:
    await ticks(after)
    raise error


def test_work_has_its_result_while_the_client_stays() -> None:
    assert run(unless_gone(asyncio.sleep(1, "done"), receiving("http.request"))) == "done"


def test_work_is_cancelled_when_the_client_goes_whatever_it_sent_before() -> None:
    ends: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await ticks(3)
            ends.append("cleaned up")

    assert run(unless_gone(work(), receiving("http.request", "http.request", "http.disconnect"))) is None
    assert ends == ["cleaned up"]


@pytest.mark.parametrize("error", [TimeoutError("slow"), ZeroDivisionError("a bug")])
@pytest.mark.parametrize("is_work", [True, False])
def test_what_work_raises_comes_out_and_so_does_what_receive_raises(error: Exception, *, is_work: bool) -> None:
    async def story() -> None:
        if is_work:
            await unless_gone(raising(error), receiving())
        else:
            await unless_gone(asyncio.Event().wait(), lambda: raising(error))

    with pytest.raises(type(error)) as caught:
        run(story())
    assert caught.value is error


@pytest.mark.parametrize("after", range(4))
def test_work_may_fail_in_the_moment_in_which_the_client_goes(after: int) -> None:
    async def story() -> None:
        async def receive() -> Message:
            await ticks(2)
            return {"type": "http.disconnect"}

        try:
            assert await unless_gone(raising(ConnectionResetError("gone"), after), receive) is None
        except ConnectionResetError:
            assert after <= 2

    run(story())  # and leaves no error that nobody asked for


# --- The lifespan


async def proper(scope: Scope, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["log"] = ["up"]
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    scope["state"]["log"].append("down")
    await send({"type": "lifespan.shutdown.complete"})


def live(app: Any, state: dict[str, Any] | None = None) -> float:
    """Start and end the lifespan; the virtual seconds that it took."""

    async def story() -> float:
        before = asyncio.get_running_loop().time()
        lifespan = Lifespan(app, state if state is not None else {})
        try:
            await lifespan.startup()
        finally:
            await lifespan.shutdown(3)
        return asyncio.get_running_loop().time() - before

    return run(story())


def test_the_app_is_told_of_its_start_and_of_its_end() -> None:
    state: dict[str, Any] = {}
    live(proper, state)
    assert state == {"log": ["up", "down"]}


def test_the_lifespan_scope_says_its_version() -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)

    live(app)
    assert scopes == [{"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}]


def test_an_app_that_fails_to_start_says_why() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(ConfigurationError, match=r"^the app failed to start: no database$"):
        live(app)


def test_an_app_without_lifespan_is_served_quietly(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"

    live(app)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_an_app_whose_start_raises_is_served_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise RuntimeError("no database")

    live(app)
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("WARNING", "the app's lifespan ended with an exception")


def test_a_failing_shutdown_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "disk full"})

    live(app)
    assert caplog.messages == ["lifespan.shutdown.failed: disk full"]


def test_an_app_that_does_not_end_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})
        await asyncio.Event().wait()

    assert live(app) == 3
    assert caplog.messages == ["the app's lifespan did not end within 3 s"]


def test_a_lifespan_that_never_began_ends_at_once() -> None:
    run(Lifespan(proper, {}).shutdown(3))
