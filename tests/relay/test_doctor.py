"""rawsse.relay.doctor: what the route sends and when, and what is said of a trace in which one thing is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from support.clock import run
from support.loops import Loop, each_loop

from rawsse.cli.inspect import measure
from rawsse.http1 import Headers, Response
from rawsse.relay import doctor
from rawsse.relay.dialects import Answer
from rawsse.relay.doctor import Finding, Plan, Trace, beat, delays, diagnose, read_beats, read_plan, send_beats
from rawsse.relay.exchange import Exchange
from rawsse.relay.follow import SSE_HEADERS
from rawsse.relay.guard import Guard
from rawsse.sse import Decoder, Event

from .stage import Browser
from .stage import ask as ask_relay
from .test_app_hosts import HOSTS, Open

PLAN = Plan(events=10, interval=0.2, silence=2.0)
NONCE = "a1"
HEAD = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store, no-transform",
    "transfer-encoding": "chunked",
}

SENT = [0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7, 1.9, 2.1, 2.3, 4.3]
"""When the beats of `PLAN` are due, as the docstring of the module says: half a second, 0.2 s each, 2 s of silence."""


# --- The plan --------------------------------------------------------------------------------------------------------


def test_a_plan_comes_from_the_query_and_the_rest_of_it_is_usual() -> None:
    assert read_plan({}) == Plan()
    assert read_plan({"silence": ["60"], "more": ["x"]}) == Plan(silence=60)
    assert read_plan({"events": ["3"], "interval": ["0.5"], "silence": ["0"]}) == Plan(3, 0.5, 0)


def test_the_usual_plan_takes_less_than_ten_seconds() -> None:
    assert sum(Plan().pauses()) < 10


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("events", "1", "events: must be a whole number from 2 to 200"),
        ("events", "201", "events: must be a whole number from 2 to 200"),
        ("events", "2.5", "events: must be a whole number from 2 to 200"),
        ("interval", "0", "interval: must be a number from 0.01 to 10"),
        ("interval", "nan", "interval: must be a number from 0.01 to 10"),
        ("silence", "-1", "silence: must be a number from 0 to 300"),
        ("silence", "inf", "silence: must be a number from 0 to 300"),
        ("silence", "9" * 5000, "silence: must be a number from 0 to 300"),
        ("silence", "", "silence: must be a number from 0 to 300"),
    ],
)
def test_what_is_beyond_the_limits_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(Answer, match=f"^{words}$"):
        read_plan({name: [value]})


@pytest.mark.parametrize("query", [{"events": ["200"], "interval": ["10"]}, {"interval": ["10"], "silence": ["300"]}])
def test_a_plan_that_takes_too_long_is_refused(query: dict[str, list[str]]) -> None:
    with pytest.raises(Answer, match=r"^events: would take \d+(\.5)? s with their pauses, and may take 330 s$"):
        read_plan(query)


def test_no_request_holds_a_relay_for_more_than_a_few_minutes() -> None:
    assert sum(read_plan({"silence": ["300"]}).pauses()) <= 330  # the longest silence is possible as it is


# --- The route -------------------------------------------------------------------------------------------------------


def ask(query: str = "", **headers: str) -> Browser:
    fields = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/doctor",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in fields.items()],
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send_beats(Exchange(scope, receive, send, Guard()), SSE_HEADERS)

    return Browser(app, scope, b"")  # type: ignore[arg-type]


def answer(query: str = "", **headers: str) -> Browser:
    async def story() -> Browser:
        return await ask(query, **headers).done()

    return run(story())


QUERY = "events=10&interval=0.2&silence=2"


@each_loop
def test_the_head_comes_at_once_and_each_beat_when_it_is_due(on: Loop) -> None:
    async def story() -> Browser:
        return await ask("events=2&interval=0.01&silence=0").done()

    browser = on(story())
    assert (browser.status, browser.headers["x-accel-buffering"]) == (200, "no")
    dues = [0, 0.5, 0.51, 0.51]
    assert [time >= due - 0.001 for time, due in zip(browser.times, dues, strict=True)] == [True] * 4


def test_the_beats_come_at_their_times_and_say_them() -> None:
    browser = answer(QUERY)
    assert browser.times == pytest.approx([0, *SENT])
    assert [float(frame.data.split()[1]) for frame in browser.frames] == pytest.approx(SENT)
    assert browser.is_ended


def test_nothing_at_all_is_said_in_the_silence() -> None:
    assert answer("events=2&interval=0.01&silence=300").times == pytest.approx([0, 0.5, 0.51, 300.51])


def test_the_ids_have_the_nonce_of_the_request() -> None:
    assert [frame.id for frame in answer("events=2", last_event_id="9c").frames] == ["9c-1", "9c-2", "9c-3"]


@pytest.mark.parametrize("nonce", ["", "a-b", "<p>", "é\u00b2 "])
def test_a_nonce_that_is_more_than_letters_and_digits_is_dropped(nonce: str) -> None:
    assert [frame.id for frame in answer("events=2", last_event_id=nonce).frames] == ["-1", "-2", "-3"]


def test_a_long_nonce_is_cut() -> None:
    assert answer("events=2", last_event_id="a" * 8000).frames[0].id == "a" * 32 + "-1"


def test_a_beat_is_small() -> None:
    assert len(beat(200, 5612.5, "a" * 8)) < 200


def test_a_query_beyond_the_limits_is_refused_before_anything_is_sent() -> None:
    async def story() -> None:
        browser = ask("events=1000000")
        with pytest.raises(Answer):
            await browser.done()
        assert browser.status == 0

    run(story())


@pytest.mark.parametrize("seconds", [0.1, 1.0, 3.0], ids=["head", "beats", "silence"])
@pytest.mark.parametrize("is_cancelled", [True, False])
def test_nothing_is_sent_when_the_client_has_gone(seconds: float, *, is_cancelled: bool) -> None:
    async def story() -> None:
        browser = ask("events=3&interval=1&silence=1")
        await asyncio.sleep(seconds)
        if is_cancelled:
            browser.task.cancel()
        else:
            browser.leave()
        await asyncio.wait({browser.task})
        count = len(browser.sent)
        await asyncio.sleep(100)
        assert (len(browser.sent), browser.body != b"") == (count, True)

    run(story())


def test_a_client_that_goes_ends_the_request_under_any_server() -> None:
    async def story() -> float:
        browser = ask("silence=300")
        await browser.read()
        await asyncio.sleep(100)
        browser.leave()
        await browser.done()
        return asyncio.get_running_loop().time() - browser.started

    assert run(story()) == pytest.approx(100)


def test_a_client_that_takes_no_more_is_waited_for() -> None:
    async def story() -> Browser:
        browser = ask("events=3&interval=1&silence=1")
        await asyncio.sleep(0.1)
        browser.stall()
        await asyncio.sleep(100)
        assert browser.times == pytest.approx([0, 0.5])  # the beat that filled it
        browser.go_on()
        return await browser.done()

    browser = run(story())
    assert browser.times == pytest.approx([0, 0.5, 101.1, 102.1, 103.1])
    assert [float(frame.data.split()[1]) for frame in browser.frames] == pytest.approx(browser.times[1:], abs=0.001)


@pytest.mark.parametrize("open_host", HOSTS)
def test_every_server_sends_the_beats_as_they_are_due(open_host: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "HEAD_SECONDS", 0.3)  # a head may be late by nearly as much: the machine may be busy
    plan = Plan(events=3, interval=0.05, silence=0.05)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send_beats(Exchange(scope, receive, send, Guard()), SSE_HEADERS)

    async def story() -> Trace:
        async with open_host(app) as host:
            return await measure("http://{}:{}".format(*host.address), plan, NONCE)

    trace = asyncio.run(story())
    assert (diagnose(trace, plan, NONCE), len(list(read_beats(trace)))) == ([], 4)


# --- What is wrong ---------------------------------------------------------------------------------------------------

Arrive = Callable[[float], float]


def head_of(status: int = 200, version: str = "1.1", reason: str = "OK", **headers: str | None) -> Response:
    """The head of a healthy answer with these changes; None takes a field away."""
    fields = {**HEAD, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Response(
        status, reason, Headers([(name, value) for name, value in fields.items() if value is not None]), version
    )


def traced(
    arrive: Arrive = lambda sent: sent,
    *,
    head: Response | None = None,
    headed: float = 0.0,
    count: int = 11,
    nonce: str = NONCE,
    change: Callable[[list[Event]], Iterable[Event]] = lambda events: events,
    **rest: Any,
) -> Trace:
    """What a client sees whose clock shows 1000 when the server's shows 0, 40 ms away."""
    wire = b"".join(beat(number, sent, nonce) for number, sent in enumerate(SENT[:count], 1))
    events = [(1000.04 + arrive(sent), event) for sent, event in zip(SENT, change(Decoder().feed(wire)), strict=False)]
    ended = events[-1][0] if events else 1000.1
    return Trace(999.96, head or head_of(), 1000.04 + headed, events, **{"ended": ended, **rest})


def found(trace: Trace, plan: Plan = PLAN) -> dict[str, Finding]:
    return {finding.name: finding for finding in diagnose(trace, plan, NONCE)}


def test_nothing_is_wrong_with_what_comes_as_it_was_sent() -> None:
    assert found(traced()) == {}


def test_a_constant_delay_is_no_fault() -> None:
    assert found(traced(lambda sent: sent + 0.9, headed=0.9)) == {}


def test_two_events_that_the_network_delays_are_no_fault() -> None:
    assert found(traced(lambda sent: sent + (0.7 if sent in (0.7, 1.9) else 0))) == {}


def test_delays_are_told_by_the_quickest() -> None:
    trace = traced(lambda sent: sent + (0.25 if sent == 1.1 else 0))
    assert delays(list(read_beats(trace))) == pytest.approx([0] * 10 + [0.25])
    assert delays([]) == []


@pytest.mark.parametrize(
    ("arrive", "seconds"),
    [
        (lambda sent: 4.3, "3.8"),
        (lambda sent: 2.3 if sent <= 2.3 else sent, "1.8"),
        (lambda sent: 0.5 + 0.8 * -(-(sent - 0.5) // 0.8), "0.6"),
    ],
    ids=["the whole answer", "until it is idle", "a second's worth"],
)
def test_a_buffer_is_found(arrive: Arrive, seconds: str) -> None:
    findings = found(traced(arrive, headed=arrive(0.5), head=head_of(server="nginx/1.22.1")))
    assert list(findings) == ["buffering"]
    assert f"by up to {seconds} s (server 'nginx/1.22.1')" in findings["buffering"].what
    assert "proxy_buffering off" in findings["buffering"].remedy


def test_what_is_late_goes_by_the_interval() -> None:
    every_second = Plan(events=10, interval=1.0, silence=2.0)
    assert found(traced(lambda sent: sent + (0.5 if sent > 1 else 0)), every_second) == {}


def test_a_head_that_waits_for_the_first_event_is_found() -> None:
    findings = found(traced(headed=0.5))
    assert (list(findings), "held back for 0.5 s" in findings["head"].what) == (["head"], True)
    assert list(found(traced(headed=0.5), PLAN._replace(interval=0.01))) == ["head"]


def test_a_head_that_comes_before_the_first_event_is_no_fault_if_the_machine_was_busy() -> None:
    assert found(traced(headed=0.4)) == {}


@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP"])
def test_compression_is_found(coding: str) -> None:
    findings = found(traced(head=head_of(content_encoding=coding)))
    assert (list(findings), f"'{coding}'" in findings["compression"].what) == (["compression"], True)


def test_a_compressor_that_buffers_is_both() -> None:
    assert list(found(traced(lambda _: 4.3, head=head_of(content_encoding="gzip")))) == ["compression", "buffering"]


def test_compression_that_cannot_be_read_is_all_that_is_said() -> None:
    assert list(found(traced(head=head_of(content_encoding="br"), count=0, error="br?"))) == ["compression"]


def test_the_word_identity_is_no_compression() -> None:
    assert found(traced(head=head_of(content_encoding="identity"))) == {}


@pytest.mark.parametrize("kind", ["text/plain", "text/html; charset=utf-8", None])
def test_another_content_type_is_found(kind: str | None) -> None:
    assert list(found(traced(head=head_of(content_type=kind)))) == ["content type"]
    assert list(found(traced(head=head_of(content_type=kind), count=0))) == ["content type"]


@pytest.mark.parametrize("value", [None, "no-cache", "no-store", "no-transform"])
def test_a_cache_control_that_was_changed_is_found(value: str | None) -> None:
    assert list(found(traced(head=head_of(cache_control=value)))) == ["cache control"]


def test_more_in_cache_control_is_no_fault() -> None:
    assert found(traced(head=head_of(cache_control="private, No-Transform,no-store"))) == {}


@pytest.mark.parametrize(("version", "coding"), [("1.0", None), ("1.1", None), ("1.0", "chunked")])
def test_an_end_that_cannot_be_told_from_a_cut_is_found(version: str, coding: str | None) -> None:
    assert list(found(traced(head=head_of(version=version, transfer_encoding=coding)))) == ["framing"]


@pytest.mark.parametrize("trace", [traced(nonce="b2"), traced(head=head_of(age="31"))], ids=["nonce", "age"])
def test_an_answer_out_of_a_cache_is_found(trace: Trace) -> None:
    assert list(found(trace)) == ["cache"]


def test_an_age_of_zero_is_no_cache() -> None:
    assert found(traced(head=head_of(age="0"))) == {}


def test_a_last_event_id_that_did_not_reach_the_relay_is_found() -> None:
    assert list(found(traced(nonce=""))) == ["last event id"]


def swap(events: list[Event]) -> list[Event]:
    return [*events[:3], events[4], events[3], *events[5:]]


@pytest.mark.parametrize(
    "change",
    [
        lambda events: [event._replace(data=event.data.replace("http:", "https:")) for event in events],
        lambda events: [event._replace(data=event.data.replace("é", "?")) for event in events],
        lambda events: [event._replace(id="") for event in events],
        lambda events: [event._replace(id=f"{NONCE}-1") for event in events],
        lambda events: [*events[:3], Event("notice", "hello"), *events[4:]],
        lambda events: [*events[:3], events[2], *events[4:]],
        swap,
    ],
    ids=["address", "character", "no ids", "one id", "a foreign event", "repeated", "swapped"],
)
def test_events_that_were_changed_are_found(change: Any) -> None:
    assert list(found(traced(change=change))) == ["rewriting"]


def test_an_event_that_was_lost_is_found() -> None:
    trace = traced(change=lambda events: events[:3] + events[4:])
    assert "rewriting" in found(trace)


@pytest.mark.parametrize("data", ["", "00000000", " 00000000", "1 0.5", "x y z"])
def test_any_event_can_be_read(data: str) -> None:
    assert list(read_beats(Trace(0.0, events=[(1.0, Event("beat", data, "a1-1"))]))) == []


def test_a_stream_that_is_cut_is_found() -> None:
    trace = traced(count=4, ended=1001.64, error="the connection was closed")
    assert found(trace)["cut"].what == "the stream was cut 0.5 s after 4 of 10 events (the connection was closed)"


def test_a_stream_without_any_event_is_found() -> None:
    trace = traced(count=0, headed=5.0, ended=1005.1)
    assert list(found(trace)) == ["head", "cut"]


@pytest.mark.parametrize(
    ("heartbeat", "is_found"), [("15", False), ("29.5", False), ("30", True), ("60", True), ("?", True)]
)
def test_a_cut_is_a_fault_only_if_it_comes_before_the_heartbeat_of_a_stream(heartbeat: str, is_found: bool) -> None:
    head = head_of(x_heartbeat_seconds=heartbeat)
    findings = found(traced(head=head, count=10, ended=1002.34 + 30), PLAN._replace(silence=35))
    assert list(findings) == ["idle"] * is_found


def test_the_relay_says_how_often_its_streams_have_a_heartbeat() -> None:
    browser = ask_relay("GET", "/doctor", query="events=2&interval=0.01&silence=0", heartbeat_seconds=2.5)
    assert browser.headers["x-heartbeat-seconds"] == "2.5"


def test_an_idle_connection_that_is_cut_is_found_with_its_seconds() -> None:
    findings = found(traced(count=10, ended=1003.74))
    assert list(findings) == ["idle"]
    assert "after 1.4 s of silence" in findings["idle"].what
    assert "heartbeat_seconds" in findings["idle"].remedy


def test_no_answer_at_all_is_told_in_the_words_of_the_failure() -> None:
    (finding,) = diagnose(Trace(0.0, error="cannot connect to http://x: refused"), PLAN, NONCE)
    assert finding[:2] == ("no answer", "cannot connect to http://x: refused")


@pytest.mark.parametrize(
    ("status", "name", "remedy"),
    [
        (401, "status 401", "RAWSSE_TOKEN"),
        (403, "refusal", "firewall"),
        (404, "status 404", "the path that comes before"),
        (
            404,
            "status 404",
            "a gateway in front of the API: put `rawsse serve` behind it, or use `rawsse conform server`",
        ),
        (407, "status 407", "HTTP_PROXY"),
        (421, "status 421", "--allow-host"),
        (502, "gateway", "proxy_pass"),
        (504, "gateway", "proxy_pass"),
        (302, "redirect", "as the URL"),
        (204, "refusal", "log"),
        (400, "refusal", "silence"),
    ],
)
def test_a_status_is_told_and_what_helps(status: int, name: str, remedy: str) -> None:
    (finding,) = diagnose(traced(head=head_of(status), count=0), PLAN, NONCE)
    assert (finding.name, remedy in finding.remedy) == (name, True)
    assert f"a proxy or another server (it does not say which) answers {status} 'OK'" in finding.what


def test_a_redirect_says_where_to() -> None:
    (finding,) = diagnose(traced(head=head_of(308, location="https://x.test/"), count=0), PLAN, NONCE)
    assert finding.what.endswith("answers 308 'OK', to 'https://x.test/'")


@pytest.mark.parametrize(
    ("status", "reason", "name"),
    [(401, "Unauthorized", "status 401"), (503, "Service Unavailable", "not ready"), (500, "Oh", "gateway")],
)
def test_the_relay_is_known_by_the_form_of_its_errors_and_says_why(status: int, reason: str, name: str) -> None:
    body = b'{"type": "error", "error": {"type": "any_error", "message": "that is why"}}'
    (finding,) = diagnose(traced(head=head_of(status, reason=reason), body=body), PLAN, NONCE)
    assert (finding.name, finding.what) == (name, f"the relay answers {status} '{reason}': 'that is why'")


def test_of_a_relay_that_is_not_ready_it_says_what_to_do() -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"the server cannot reach its store"}}'
    (finding,) = diagnose(traced(head=head_of(503), body=body), PLAN, NONCE)
    assert "see that it can reach its store (--store)" in finding.remedy


def test_a_503_of_a_proxy_is_a_gateway_s() -> None:
    (finding,) = diagnose(traced(head=head_of(503), body=b"<h1>503"), PLAN, NONCE)
    assert finding.name == "gateway"


def test_what_a_proxy_says_of_itself_is_quoted() -> None:
    (finding,) = diagnose(traced(head=head_of(502, server="edge", via="1.1 x"), count=0), PLAN, NONCE)
    assert "(server 'edge', via '1.1 x')" in finding.what
