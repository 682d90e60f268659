"""`rawsse doctor` through nginx: as it should be set up, and as it should not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from rawsse.cli.inspect import measure
from rawsse.relay.doctor import Finding, Plan, diagnose, send_beats
from rawsse.relay.exchange import Exchange
from rawsse.relay.follow import SSE_HEADERS
from rawsse.relay.guard import Guard
from rawsse.server import Server

from . import peers
from .peers import NGINX_SERVER

pytestmark = pytest.mark.real

NONCE = "5d0c7a31"
# Of the events more than a quarter must be late to be called held back. These are so far apart that a machine must stand still
# for 0.8 s to delay as many.
PLAN = Plan(events=8, interval=0.25, silence=0.3)
IGNORED = "proxy_ignore_headers X-Accel-Buffering;"
COMPRESSED = "gzip on; gzip_types text/event-stream;"
REWRITTEN = 'sub_filter_types *; sub_filter "http://127.0.0.1/" "https://example.org/";'

SITES: Mapping[str, tuple[str, Plan, list[str]]] = {
    "as it comes": ("", PLAN, []),
    "that speaks HTTP/1.1 to the relay": ("proxy_http_version 1.1;", PLAN, []),
    "that does not buffer": ("proxy_buffering off;", PLAN, []),
    "that buffers": (IGNORED, PLAN, ["buffering"]),
    "that compresses": (COMPRESSED, PLAN, ["compression"]),
    "that compresses and buffers": (COMPRESSED + IGNORED, PLAN, ["compression", "buffering"]),
    "that cuts idle connections": ("proxy_read_timeout 1500ms;", PLAN._replace(events=4, silence=30), ["idle"]),
    "that rewrites": (REWRITTEN, PLAN, ["rewriting"]),
    "that hides the type": ("proxy_hide_header Content-Type; default_type text/plain;", PLAN, ["content type"]),
    "that lets browsers cache": ("expires 1h;", PLAN, ["cache control"]),
    "without chunks": ("chunked_transfer_encoding off;", PLAN, ["framing"]),
    "that hides Last-Event-ID": ('proxy_set_header Last-Event-ID "";', PLAN, ["last event id"]),
    "that sends to https": (
        "if ($request_method = GET) { return 301 https://$host$request_uri; }",
        PLAN,
        ["redirect"],
    ),
    "that refuses": ("if ($request_method = GET) { return 403; }", PLAN, ["refusal"]),
    "with a login": ("auth_basic x; auth_basic_user_file /dev/null;", PLAN, ["status 401"]),
}
"""nginx with these settings, how it is examined, and what is found."""

LOST = "that does not find the relay"

Examined = Mapping[str, list[Finding]]


async def relay(scope: Any, receive: Any, send: Any) -> None:
    await send_beats(Exchange(scope, receive, send, Guard()), SSE_HEADERS)


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Examined:
    """What the doctor finds behind each of the sites. All are examined at once: most of the time is waiting."""

    folder, sockets = tmp_path_factory.mktemp("nginx"), contextlib.ExitStack()
    listeners = {name: sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for name in [*SITES, LOST]}
    ports = {name: int(listener.getsockname()[1]) for name, listener in listeners.items()}

    def site(name: str, upstream: str) -> str:
        settings = SITES[name][0] if name in SITES else ""
        return NGINX_SERVER.format(port=ports[name], upstream=upstream, settings=settings)

    async def examine(name: str) -> list[Finding]:
        plan = SITES[name][1] if name in SITES else PLAN
        return diagnose(await measure(f"http://127.0.0.1:{ports[name]}", plan, NONCE), plan, NONCE)

    async def story() -> Examined:
        async with Server(relay, port=0) as upstream:
            sites = [*[site(name, upstream.base_url) for name in SITES], site(LOST, "http://127.0.0.1:1")]
            with peers.nginx(folder, "\n".join(sites), *listeners.values()):
                return dict(zip(listeners, await asyncio.gather(*map(examine, listeners)), strict=True))

    with sockets:
        return asyncio.run(story())


@pytest.mark.parametrize("site", SITES)
def test_an_nginx(site: str, examined: Examined) -> None:
    assert [finding.name for finding in examined[site]] == SITES[site][2]


def test_a_finding_names_the_server_and_its_remedy(examined: Examined) -> None:
    (buffering,), (compression,) = examined["that buffers"], examined["that compresses"]
    assert "server 'nginx/" in buffering.what
    assert "proxy_buffering off" in buffering.remedy
    assert "Content-Encoding: 'gzip'" in compression.what


def test_a_cut_after_silence_says_how_long_that_was(examined: Examined) -> None:
    (idle,) = examined["that cuts idle connections"]
    seconds = float(idle.what.partition("after ")[2].partition(" s")[0])
    assert 0.7 <= seconds <= 3  # nginx moves a timer only if that is 0.3 s away or more; the machine may be busy
    assert "proxy_read_timeout" in idle.remedy


def test_an_nginx_that_does_not_find_the_relay(examined: Examined) -> None:
    (finding,) = examined[LOST]
    assert (finding.name, "502" in finding.what) == ("gateway", True)
