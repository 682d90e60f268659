"""`rawsse doctor`: what it asks for, what it prints, and its exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.background import Background
from support.clock import run
from support.sockets import LOCALHOST, serving

import rawsse.relay
from rawsse import AsyncClient
from rawsse.cli import main
from rawsse.cli.inspect import MAX_KEPT_BYTES, examine, measure
from rawsse.errors import ConfigurationError
from rawsse.http1 import Headers
from rawsse.relay import doctor
from rawsse.relay.dialects import Answer
from rawsse.relay.doctor import Plan, Trace, beat, diagnose, read_beats, send_beats
from rawsse.relay.exchange import Exchange
from rawsse.relay.follow import SSE_HEADERS
from rawsse.relay.guard import Guard
from rawsse.server import Server

TOKEN = "a-token-that-is-secret"
FIELDS = [("Authorization", f"Bearer {TOKEN}")]
PLAN = Plan(events=4, interval=0.05, silence=0.0)

Serve = Callable[..., str]


class Relay:
    """The route alone, behind a token. `requests` has the path and the header fields of each request."""

    def __init__(self, *, headers: Any = SSE_HEADERS) -> None:
        self.requests: list[tuple[str, Headers]] = []
        self._headers = headers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send, Guard())
        self.requests.append((exchange.path, exchange.headers))
        try:
            if exchange.headers.get("authorization") != f"Bearer {TOKEN}":
                raise Answer(401, "authentication_error", "the relay wants a token")
            await send_beats(exchange, self._headers)
        except Answer as answer:
            await exchange.send_answer(answer)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setattr(doctor, "HEAD_SECONDS", 0.1)
    with Background() as background:
        yield lambda app: background.enter(Server(app, port=0)).base_url


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAWSSE_TOKEN", raising=False)


# --- What is printed ---------------------------------------------------------------------------------------------------


def test_a_healthy_way_is_one_line(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    assert examine(serve(Relay()), PLAN, FIELDS)
    out, err = capsys.readouterr()
    assert err == ""
    assert re.fullmatch(r"events arrive as sent: median_delay \S+ ms, p99_delay \S+ ms, first_byte \S+ ms\n", out)


def test_figures_and_findings_come_as_json(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    kind = [("content-type", "text/plain"), *SSE_HEADERS[1:]]
    assert not examine(serve(Relay(headers=kind)), PLAN, FIELDS, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert set(said) == {"median_delay", "p99_delay", "first_byte", "findings"}
    assert 0 <= said["median_delay"] <= said["p99_delay"] < 5
    assert [set(finding) for finding in said["findings"]] == [{"name", "what", "remedy"}]
    assert said["findings"][0]["name"] == "content type"


@pytest.mark.parametrize("as_json", [False, True])
def test_the_token_is_never_shown_even_if_it_is_sent_back(
    as_json: bool,
    serve: Serve,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send, Guard())
        said = exchange.headers["authorization"]
        await exchange.send_whole(302, [("server", said), ("via", said[7:]), ("location", f"/?token={said[7:]}")])

    assert main(["doctor", serve(echo), "--token", TOKEN, *(["--json"] if as_json else [])]) == 1
    printed = "".join(capsys.readouterr())
    assert (printed.count("[authorization]"), TOKEN in printed) == (3, False)


def test_on_a_terminal_it_counts_the_events_while_it_waits(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    assert examine(serve(Relay()), PLAN, FIELDS)
    assert "\r\x1b[K3 of 5 events" in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[K")


def test_each_finding_is_a_line_and_a_line_of_what_to_do(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", serve(Relay())]) == 1
    assert capsys.readouterr().out == (
        "the relay answers 401 'Unauthorized': 'the relay wants a token'\n"
        "    give the relay's token (--token, RAWSSE_TOKEN), or the login of the site (--header 'authorization: …')\n"
    )


def test_the_token_may_come_from_the_environment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    relay = Relay()
    monkeypatch.setenv("RAWSSE_TOKEN", TOKEN)
    assert main(["doctor", serve(relay), "--silence", "-1"]) == 1  # refused: no time is spent
    assert "answers 400" in capsys.readouterr().out
    assert relay.requests[0][1]["authorization"] == f"Bearer {TOKEN}"


COOKIE = "session=3f6a9d2e"


def test_a_relay_behind_a_login_of_its_site_names_the_option_that_brings_the_login(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, ...]] = []

    async def who(scope: Any) -> str | None:
        headers = dict(scope["headers"])
        asked.append((headers.get(b"x-site", b"").decode(), headers.get(b"cookie", b"").decode()))
        return "ada" if asked[-1] == ("a", COOKIE) else None

    url = serve(rawsse.relay.Relay(AsyncClient(api_key="any"), authenticate=who))
    assert main(["doctor", url, "--token", TOKEN, "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["name"], "--header 'cookie: " in finding["remedy"]) == ("login", True)
    assert "--token" not in finding["remedy"]
    login = ("--header", f"cookie: {COOKIE}", "--header", "X-Site:a")
    assert main(["doctor", url, *login, "--silence", "-1"]) == 1  # refused: no time is spent
    assert "answers 400" in capsys.readouterr().out
    assert asked == [("", ""), ("a", COOKIE)]


def test_what_a_header_brings_is_never_shown(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send, Guard())
        said = exchange.headers["cookie"]
        await exchange.send_whole(302, [("server", said), ("location", f"/?cookie={said[8:]}")])

    assert main(["doctor", serve(echo), "--header", f"cookie: {COOKIE}"]) == 1
    printed = "".join(capsys.readouterr())
    assert (printed.count("[cookie]"), COOKIE[8:] in printed) == (2, False)


@pytest.mark.parametrize("given", [COOKIE, f"{COOKIE}: ", "cookie: 3f6a9d2e\u00e9"])
def test_a_header_that_cannot_be_sent_is_wrong_usage_and_is_not_shown(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        assert main(["doctor", "http://127.0.0.1:1", "--header", given]) == 2
    printed = capsys.readouterr().err
    assert ("header" in printed, "3f6a9d2e" in printed) == (True, False)


def test_a_relay_that_is_not_there_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "http://127.0.0.1:1"]) == 1
    assert capsys.readouterr().out.startswith("cannot connect to http://127.0.0.1:1: Connection refused\n    check ")


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://x", "http://user:pw@x", "http://x/?a=b"])
def test_a_url_that_cannot_be_used_is_wrong_usage(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", url]) == 2
    assert "base URL" in capsys.readouterr().err


# --- The request -------------------------------------------------------------------------------------------------------


def test_it_asks_as_a_browser_would(serve: Serve) -> None:
    relay = Relay()
    asyncio.run(measure(f"{serve(relay)}/claude/", PLAN, "c0ffee"))  # refused without a token: no time is spent
    ((path, headers),) = relay.requests
    assert path == "/claude/doctor"
    assert headers["accept"] == "text/event-stream"
    assert headers["last-event-id"] == "c0ffee"
    assert "gzip" in headers["accept-encoding"]


def test_it_takes_the_proxy_of_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    relay = Relay()
    monkeypatch.setenv("http_proxy", serve(relay).replace("http://", "http://user:pw@"))
    trace = asyncio.run(measure("http://relay.test/claude", PLAN, "c0ffee", FIELDS))
    assert diagnose(trace, PLAN, "c0ffee") == []
    ((path, headers),) = relay.requests
    assert (path, headers["host"], "proxy-authorization" in headers) == ("/claude/doctor", "relay.test", True)


def measured(wire: bytes, *, tls: bool = False, waits: bool = False, plan: Plan = PLAN) -> Trace:
    """What is measured if this is the whole answer; in virtual time. `waits`: the connection stays open."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(wire)
        if waits:
            await reader.read()
        writer.close()

    async def story() -> Trace:
        async with serving(handler, tls=tls) as origin:
            return await measure(str(origin).replace("127.0.0.1", "localhost"), plan, "c0ffee")

    return run(story())


def test_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(LOCALHOST))
    trace = measured(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", tls=True)
    assert (trace.head and trace.head.status, trace.error) == (404, "")


def test_a_certificate_that_is_not_trusted_is_told() -> None:
    error = measured(b"", tls=True).error
    assert "its certificate is not trusted: self-signed certificate; " in error
    assert error.endswith("name that in SSL_CERT_FILE")  # an argument of a program would be of no use here


def test_a_page_in_its_place_is_read_to_its_end_and_no_further_than_needed() -> None:
    page = b"<p>" + b"x" * 200_000
    trace = measured(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n" % len(page) + page)
    assert len(trace.body) <= MAX_KEPT_BYTES
    assert [finding.name for finding in diagnose(trace, PLAN, "c0ffee")] == ["content type", "cache control"]


def test_an_answer_that_stops_is_waited_for_until_its_time_and_ten_seconds_are_over() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    trace = measured(head, waits=True, plan=Plan(events=2, interval=1.0, silence=60.0))
    assert trace.ended - trace.asked == pytest.approx(0.5 + 1 + 60 + 10)
    assert "nothing more arrived" in trace.error


def test_after_the_last_event_nothing_is_waited_for() -> None:
    events = b"".join(beat(number, number * 0.05, "c0ffee") for number in range(1, 6))
    trace = measured(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + events, waits=True)
    assert (len(trace.events), trace.error) == (5, "")
    assert trace.ended - trace.asked == pytest.approx(0, abs=0.1)


def test_no_answer_is_waited_for_as_long() -> None:
    trace = measured(b"", waits=True)
    assert (trace.head, trace.error) == (None, "nothing more arrived in time")


def test_a_coding_that_was_not_asked_for_ends_it() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: br\r\n\r\nxyz"
    trace = measured(head)
    assert [finding.name for finding in diagnose(trace, PLAN, "c0ffee")] == ["compression", "cache control", "framing"]
    assert list(read_beats(trace)) == []


def test_an_event_without_end_does_not_fill_the_memory() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: "
    trace = measured(head + b"x" * 100_000, waits=True)
    assert "larger than max_event_bytes" in trace.error


def test_a_token_that_no_header_field_can_bring_is_an_error_that_does_not_show_it() -> None:
    with pytest.raises(ConfigurationError, match="authorization") as raised:
        asyncio.run(measure("http://127.0.0.1:1", PLAN, "c0ffee", [("authorization", "secret\nsecret")]))
    assert "secret" not in str(raised.value)
