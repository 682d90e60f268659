"""`rawsse doctor`: one request to a relay's `/doctor`, through all the proxies before it, and what is wrong with what comes.

    trace = await measure("https://example.org/claude", Plan(), nonce="1f3a", token="…")
    is_healthy = examine("https://example.org/claude", Plan(silence=65.0))       # shows it

The request asks for compression as browsers do; those proxies that compress event streams do it only then.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets

from rawsse.cli.terminal import show
from rawsse.client.network.asyncio_network import AsyncioNetwork
from rawsse.client.network.certificates import TLSContext
from rawsse.client.network.link import Expired
from rawsse.client.network.route import Proxies
from rawsse.client.request import Endpoint, Secrets, credential, query_string
from rawsse.errors import APIError
from rawsse.http1 import ClientConnection, ContentDecoder, EndOfMessage, Response
from rawsse.relay.doctor import Plan, Trace, delays, diagnose, read_beats
from rawsse.sse import Decoder

PATIENCE_SECONDS = 10.0
"""How long connecting may take, and how much later than planned the last event may come."""

MAX_KEPT_BYTES = 64 * 1024
"""Of one event, and of the body of an answer that is not the relay's stream."""


async def measure(url: str, plan: Plan, nonce: str, token: str | None = None) -> Trace:
    """Make one request to the relay at `url`, until all events have come, the body ends or the time is over.

    Raises `ConfigurationError` for a URL, a token or a proxy that cannot be used.
    """
    headers = {"accept": "text/event-stream", "accept-encoding": "gzip, deflate", "user-agent": "rawsse"}
    headers |= {"last-event-id": nonce, **dict(filter(None, [credential(None, token)]))}
    endpoint = Endpoint(url, None, headers)
    route = Proxies.from_environment(os.environ).route_to(endpoint.origin)
    target = route.target(f"{endpoint.prefix}/doctor?{query_string(plan._asdict())}")
    network, http = AsyncioNetwork(), ClientConnection(endpoint.origin.host_field)
    decoder, coding = Decoder(max_event_bytes=MAX_KEPT_BYTES), ContentDecoder("")
    connector, trace = network.link(), Trace(network.now())
    try:
        link = await connector.connect(route, TLSContext(), trace.asked + PATIENCE_SECONDS)
        trace.asked = network.now()
        deadline = trace.asked + sum(plan.pauses()) + PATIENCE_SECONDS
        await link.write(http.send_request("GET", target, [*endpoint.headers.items(), *route.proxy_fields()]), deadline)
        while len(trace.events) < len(plan.pauses()) and not isinstance(event := http.next_event(), EndOfMessage):
            if event is None:
                http.receive_data(await link.read(deadline))
            elif isinstance(event, Response):
                trace.head, trace.headed = event, network.now()
                coding = ContentDecoder(event.headers.get("content-encoding", ""))
            else:
                data, now = coding.decode(event.data), network.now()
                trace.body += data[: MAX_KEPT_BYTES - len(trace.body)]
                trace.events += [(now, each) for each in decoder.feed(data)]
    except (Expired, OSError, APIError) as exc:
        trace.error = str(exc) or "nothing more came in time"
    finally:
        connector.abort()
    trace.ended = network.now()
    return trace


def examine(url: str, plan: Plan, token: str | None = None, *, as_json: bool = False) -> bool:
    """Show what is wrong on the way from the relay at `url`; True if nothing is. Raises `ConfigurationError`."""
    trace = asyncio.run(measure(url, plan, nonce := secrets.token_hex(4), token))
    findings, late = diagnose(trace, plan, nonce), delays(list(read_beats(trace))) or [0.0]
    figures = {"median_delay": late[len(late) // 2], "p99_delay": late[len(late) * 99 // 100]}
    figures["first_byte"] = max(trace.headed - trace.asked, 0.0)
    text = "\n".join(f"{finding.what}\n    {finding.remedy}" for finding in findings)
    if as_json:
        text = json.dumps({**figures, "findings": [finding._asdict() for finding in findings]})
    elif not findings:
        text = "events arrive as sent: " + ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in figures.items())
    show(Secrets([("token", token or "")]).removed(text))
    return not findings
