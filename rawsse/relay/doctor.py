"""`GET /doctor`: events at known times, and what the proxies between relay and client do to them.

    await send_beats(exchange, SSE_HEADERS)                 # the route: /doctor?events=20&interval=0.2&silence=3
    findings = diagnose(trace, plan, nonce)                 # the client, with what it received. Pure

The relay sends the head, after half a second the first of `events` beats, the next one every `interval` seconds, and after
`silence` seconds the last beat. It calls no model. While no run can begin, it answers 503 with the reason. The client sends a
nonce as `Last-Event-ID`; beat 3 then is

    id: NONCE-3
    event: beat
    data: 3 0.903125 PADDING CRC32        (its number, and the seconds since the head)

A beat is as small as a token's event: a proxy's buffer has room for all of them, and then none arrives before the last.

The clocks of relay and client are not compared. The fastest beat counts as one without delay; the others are measured by it.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias
from zlib import crc32

from rawsse.client.exchange import json_or_itself
from rawsse.errors import quote, words_of
from rawsse.http1 import Response
from rawsse.relay.dialects import COMMENT_HEARTBEAT, InvalidRequest
from rawsse.relay.exchange import Exchange
from rawsse.server.asgi import unless_gone
from rawsse.sse import Event, encode

HEAD_SECONDS = 0.5
"""From the head to the first beat: long enough to notice a proxy that holds the head back until then."""

LATE_SECONDS = 0.25
"""A smaller delay may come from the network itself, and so may one below 1.5 intervals."""

PADDING = "é ☺ <p>&amp; http://127.0.0.1/ 12345678901234567890123456789012345678901234567890"
"""Characters, markup and an address that a proxy may rewrite."""

HEARTBEAT_FIELD = "x-heartbeat-seconds"
"""The header field in which the relay says how often a silent stream has a heartbeat."""

MAX_NONCE_CHARS = 32
"""Of the client's `Last-Event-ID`, which is sent back."""

_Fault: TypeAlias = tuple[str, str]  # the name and the description of a `Finding`
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")
_BEAT = re.compile(r"([0-9]{1,6}) ([0-9]{1,9}\.[0-9]{6}) .*")


class Plan(NamedTuple):
    """How many beats are sent, the seconds between two of them, and the seconds of silence before one more."""

    events: int = 20
    interval: float = 0.2
    silence: float = 3.0

    def pauses(self) -> list[float]:
        """The seconds before each beat."""
        return [HEAD_SECONDS, *[self.interval] * (self.events - 1), self.silence]


LIMITS: Mapping[str, tuple[float, float]] = {"events": (2, 200), "interval": (0.01, 10.0), "silence": (0.0, 300.0)}
"""The least and the most of each number in a plan: an answer has 30 kB at most."""

MAX_SECONDS = 330.0
"""How long a request may hold its connection, and delay a shutdown: the longest silence, and a few beats before."""


def read_plan(query: Mapping[str, Sequence[str]]) -> Plan:
    """The plan in a query; numbers that it leaves out are as in `Plan()`. Raises `InvalidRequest` for one beyond `LIMITS`, or
    a plan that takes more than `MAX_SECONDS`."""
    plan = Plan()
    for name in [name for name in LIMITS if name in query]:
        (least, most), kind, text = LIMITS[name], type(getattr(plan, name)), query[name][0]
        value = float(text) if _NUMBER.fullmatch(text) else float("nan")
        if not least <= value <= most or kind(value) != value:
            raise InvalidRequest(name, f"must be a {'whole ' * (kind is int)}number from {least:g} to {most:g}")
        plan = plan._replace(**{name: kind(value)})
    if (seconds := sum(plan.pauses())) > MAX_SECONDS:
        raise InvalidRequest("events", f"would take {seconds:g} s with their pauses, and may take {MAX_SECONDS:g} s")
    return plan


# --- The route -----------------------------------------------------------------------------------------------------


async def send_beats(exchange: Exchange, headers: Sequence[tuple[str, str]]) -> None:
    """Answer one request, with these header fields, until the last beat is sent or the client has disconnected.

    Raises `InvalidRequest` before anything is sent, for a query beyond the limits.
    """
    plan, nonce = read_plan(exchange.query), exchange.headers.get("last-event-id", "")
    nonce = nonce[:MAX_NONCE_CHARS] if nonce.isalnum() else ""
    send, clock = exchange._send, asyncio.get_running_loop().time

    async def send_all() -> None:
        await send({"type": "http.response.start", "status": 200, "headers": exchange.fields(headers)})
        # With the first piece of the body: servers send both at once.
        await send({"type": "http.response.body", "body": COMMENT_HEARTBEAT, "more_body": True})
        started, pauses = clock(), plan.pauses()
        for number, pause in enumerate(pauses, 1):
            await asyncio.sleep(pause)
            body = beat(number, clock() - started, nonce)
            await send({"type": "http.response.body", "body": body, "more_body": number < len(pauses)})

    await unless_gone(send_all(), exchange.receive)


def beat(number: int, seconds: float, nonce: str) -> bytes:
    """The event of one beat."""
    text = f"{number} {seconds:.6f} {PADDING}"
    return encode(f"{text} {crc32(text.encode()):08x}", event="beat", id=f"{nonce}-{number}")


# --- The client ----------------------------------------------------------------------------------------------------


@dataclass
class Trace:
    """One request, as the client saw it. Times are in seconds, on the client's clock."""

    asked: float
    """When the request was sent."""
    head: Response | None = None
    headed: float = 0.0
    """When the head arrived."""
    events: list[tuple[float, Event]] = field(default_factory=list)
    """When each arrived, and the event."""
    body: bytes = b""
    """The start of it."""
    ended: float = 0.0
    error: str = ""
    """Why it broke off."""


class Beat(NamedTuple):
    """A beat that arrived as it was sent."""

    number: int
    lag: float
    """The client's clock on arrival minus the server's at sending, in seconds: of use only next to another beat's."""
    tag: str | None
    """The nonce in its id; None if its id was changed."""


class Finding(NamedTuple):
    """A fault: its name, a description, and how to fix it."""

    name: str
    what: str
    remedy: str


_REMEDIES: Mapping[str, str] = {
    "no answer": "check the URL, that the relay runs, and the network between",
    "redirect": "give that address as the URL; if it asks for a login, give the login (--header 'cookie: session=…')",
    "status 401": "give the relay's token (--token, RAWSSE_TOKEN), or the login of the site (--header 'authorization: …')",
    "login": "log in with a browser, and give what it then sends (--header 'cookie: session=…')",
    "not ready": "wait, if it shuts down; else see that it can reach its store (--store). Its log says more, and /readyz when",
    "status 404": "give the relay's URL, with the path that comes before /chat/stream; "
    "a gateway in front of the API: put `rawsse serve` behind it, or use `rawsse conform server`",
    "status 407": "name your own proxy in HTTP_PROXY as http://user:password@host:port",
    "status 421": "give the relay the name (rawsse serve --allow-host NAME; in an application Guard(hosts=[NAME])), or let the "
    "proxy pass it (proxy_set_header Host $host)",
    "refusal": "its log says why: access rules, a firewall, a limit; a relay takes a silence of 300 s at most",
    "gateway": "see that the relay runs where the proxy expects it (nginx: proxy_pass); the proxy's log says more",
    "content type": "let proxies keep Content-Type; for a login page give the login (--header), for another server the URL",
    "compression": "leave out text/event-stream (nginx: gzip_types; a CDN: obey Cache-Control: no-transform)",
    "cache control": "let proxies keep it (nginx: no proxy_hide_header, no expires): caches and compressors obey it",
    "framing": "let the last proxy speak HTTP/1.1 or HTTP/2 to browsers",
    "cache": "let no proxy cache the relay's answers (nginx: proxy_cache off)",
    "last event id": "let proxies pass on the request's Last-Event-ID",
    "rewriting": "let no proxy change bodies (nginx: sub_filter; a CDN: optimizations; a scanner of content)",
    "buffering": "nginx: proxy_buffering off, or heed the relay's X-Accel-Buffering; Apache: flushpackets=on",
    "head": "turn buffering off for the head too: until it comes, a browser has no connection",
    "cut": "raise the proxy's limit on the time of a whole answer; its log says what it was",
    "idle": "set the relay's heartbeat_seconds below that, or raise the proxy's limit (nginx: proxy_read_timeout)",
}


def read_beats(trace: Trace) -> Iterator[Beat]:
    """The beats of the trace whose content is as it was sent."""
    for came, event in trace.events:
        text, _, checksum = event.data.rpartition(" ")
        if (found := _BEAT.fullmatch(text)) and checksum == f"{crc32(text.encode()):08x}":
            tag, _, number = event.id.rpartition("-")
            yield Beat(int(found[1]), came - float(found[2]), tag if number == found[1] else None)


def delays(beats: Sequence[Beat]) -> list[float]:
    """How much later than the fastest one each beat arrived, in seconds, the smallest first."""
    least = min((beat.lag for beat in beats), default=0.0)
    return sorted(beat.lag - least for beat in beats)


def diagnose(trace: Trace, plan: Plan, nonce: str) -> list[Finding]:
    """The faults between the relay and the client; none if events arrive as they are sent."""
    if trace.head is None:
        found = [("no answer", trace.error)]
    elif trace.head.status != 200:
        found = [_of_status(trace.head, trace.body)]
    else:
        beats, found = list(read_beats(trace)), list(_of_head(trace.head))
        if beats or not {"content type", "compression"} & set(dict(found)):  # else nothing can be read
            found += _of_events(trace, trace.head, beats, plan, nonce)
    return [Finding(name, what, _REMEDIES[name]) for name, what in found]


def _of_status(head: Response, body: bytes) -> _Fault:
    is_relay = b'"type":"error"' in body.replace(b" ", b"")
    who = "the relay" if is_relay else f"a proxy or another server ({_software(head)})"
    base = head.headers.get("location", "").partition("/doctor?")[0]  # as `rawsse doctor` takes it
    place = f", to {quote(base)}" if base else ""
    said = words_of(json_or_itself(body.decode(errors="replace"))) if is_relay else None
    name, kind = f"status {head.status}", {3: "redirect", 5: "gateway"}.get(head.status // 100, "refusal")
    name = "not ready" if is_relay and head.status == 503 else name if name in _REMEDIES else kind
    name = "login" if head.headers.get("www-authenticate") == "Login" else name
    return name, f"{who} answers {head.status} {quote(head.reason)}{place}" + (f": {quote(said)}" if said else "")


def _of_head(head: Response) -> Iterator[_Fault]:
    kind, coding = head.headers.get("content-type", ""), head.headers.get("content-encoding", "")
    caching = head.headers.get("cache-control", "")
    if kind.partition(";")[0].strip().lower() != "text/event-stream":
        yield "content type", f"the answer is {quote(kind)} instead of text/event-stream ({_software(head)})"
    if coding.lower() not in ("", "identity"):
        yield "compression", f"the stream is compressed (Content-Encoding: {quote(coding)}): events may wait for others"
    if not {"no-store", "no-transform"} <= {word.strip() for word in caching.lower().split(",")}:
        yield "cache control", f"Cache-Control comes as {quote(caching)} instead of 'no-store, no-transform'"
    if head.http_version == "1.0" or not {"transfer-encoding", "content-length"} & set(head.headers):
        yield "framing", f"HTTP/{head.http_version} without chunks: a stream that was cut looks like one that has ended"


def _of_events(trace: Trace, head: Response, beats: Sequence[Beat], plan: Plan, nonce: str) -> Iterator[_Fault]:
    tags, numbers = {beat.tag for beat in beats}, [beat.number for beat in beats]
    if head.headers.get("age", "").strip("0") or tags - {nonce, "", None}:
        yield "cache", "the events are those of an earlier answer, which a cache has kept"
    if "" in tags:
        yield "last event id", "Last-Event-ID does not reach the relay: browsers that come back begin at the beginning"
    if None in tags or len(beats) < len(trace.events) or numbers != list(range(1, len(numbers) + 1)):
        yield "rewriting", f"events were changed, lost or repeated: {len(beats)} of {len(trace.events)} are as sent"
    limit, late = max(LATE_SECONDS, 1.5 * plan.interval), delays(beats)
    many = sum(delay > limit for delay in late)
    held = trace.headed - min((beat.lag for beat in beats), default=trace.asked)
    if 4 * many > len(beats):
        yield "buffering", f"{many} of {len(beats)} events are held back, by up to {late[-1]:.1f} s ({_software(head)})"
    elif held > 0.9 * HEAD_SECONDS:  # until the first beat; a machine that stalls delays it by less
        yield "head", f"the head is held back for {held:.1f} s ({_software(head)})"
    count, why = len(trace.events), trace.error and f" ({trace.error})"
    seconds = trace.ended - (trace.events[-1][0] if trace.events else trace.asked)
    if count < plan.events:
        yield "cut", f"the stream was cut {seconds:.1f} s after {count} of {plan.events} events{why}"
    elif count == plan.events and not seconds > heartbeat_seconds(head) + LATE_SECONDS:
        yield "idle", f"the connection was cut after {seconds:.1f} s of silence{why}"


def heartbeat_seconds(head: Response) -> float:
    """How long the relay's streams may be silent: a connection that may be silent for longer is not cut. Infinity if it is not
    known."""
    text = head.headers.get(HEARTBEAT_FIELD, "")
    return float(text) if _NUMBER.fullmatch(text) else math.inf


def _software(head: Response) -> str:
    names = [f"{name} {quote(head.headers[name])}" for name in ("server", "via") if name in head.headers]
    return ", ".join(names) or "it does not say which"
