"""`rawsse doctor` through nginx: as it should be set up, and as it should not."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.background import Background

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
PLAN = Plan(events=8, interval=0.1, silence=0.3)
IGNORED = "proxy_ignore_headers X-Accel-Buffering;"
COMPRESSED = "gzip on; gzip_types text/event-stream;"
REWRITTEN = 'sub_filter_types *; sub_filter "http://127.0.0.1/" "https://example.org/";'


async def relay(scope: Any, receive: Any, send: Any) -> None:
    await send_beats(Exchange(scope, receive, send, Guard()), SSE_HEADERS)


@contextlib.contextmanager
def nginx(folder: Path, upstream: str, settings: str = "") -> Iterator[int]:
    """nginx in front of `upstream`, with these settings: its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        site = NGINX_SERVER.format(port=port, upstream=upstream, settings=settings)
        with peers.nginx(folder, site, listener):
            yield port


def examined(background: Background, folder: Path, settings: str, plan: Plan = PLAN) -> dict[str, Finding]:
    """What the doctor finds behind an nginx with these settings."""
    upstream = background.enter(Server(relay, port=0)).base_url
    with nginx(folder, upstream, settings) as port:
        trace = background.run(measure(f"http://127.0.0.1:{port}", plan, NONCE))
    return {finding.name: finding for finding in diagnose(trace, plan, NONCE)}


@pytest.mark.parametrize("settings", ["", "proxy_http_version 1.1;", "proxy_buffering off;"])
def test_nothing_is_wrong_with_nginx_as_it_comes(settings: str, background: Background, tmp_path: Path) -> None:
    assert examined(background, tmp_path, settings) == {}


def test_an_nginx_that_buffers(background: Background, tmp_path: Path) -> None:
    found = examined(background, tmp_path, IGNORED)
    assert list(found) == ["buffering"]
    assert "server 'nginx/" in found["buffering"].what
    assert "proxy_buffering off" in found["buffering"].remedy


def test_an_nginx_that_compresses(background: Background, tmp_path: Path) -> None:
    found = examined(background, tmp_path, COMPRESSED)
    assert list(found) == ["compression"]
    assert "Content-Encoding: 'gzip'" in found["compression"].what


def test_an_nginx_that_compresses_and_buffers(background: Background, tmp_path: Path) -> None:
    assert list(examined(background, tmp_path, COMPRESSED + IGNORED)) == ["compression", "buffering"]


def test_an_nginx_that_cuts_idle_connections(background: Background, tmp_path: Path) -> None:
    plan = PLAN._replace(silence=30)
    found = examined(background, tmp_path, "proxy_read_timeout 2s;", plan)
    assert list(found) == ["idle"]
    seconds = float(found["idle"].what.partition("after ")[2].partition(" s")[0])
    assert 1.5 <= seconds <= 4  # nginx moves a timer only if that is 0.3 s away or more
    assert "proxy_read_timeout" in found["idle"].remedy


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (REWRITTEN, "rewriting"),
        ("proxy_hide_header Content-Type; default_type text/plain;", "content type"),
        ("expires 1h;", "cache control"),
        ("chunked_transfer_encoding off;", "framing"),
        ('proxy_set_header Last-Event-ID "";', "last event id"),
        ("if ($request_method = GET) { return 301 https://$host$request_uri; }", "redirect"),
        ("if ($request_method = GET) { return 403; }", "refusal"),
        ("auth_basic x; auth_basic_user_file /dev/null;", "status 401"),
    ],
)
def test_an_nginx_that_changes_something(settings: str, name: str, background: Background, tmp_path: Path) -> None:
    plan = PLAN._replace(silence=0)
    assert list(examined(background, tmp_path, settings, plan)) == [name]


def test_an_nginx_that_does_not_find_the_relay(background: Background, tmp_path: Path) -> None:
    with nginx(tmp_path, "http://127.0.0.1:1") as port:
        trace = background.run(measure(f"http://127.0.0.1:{port}/claude", PLAN, NONCE))
    (finding,) = diagnose(trace, PLAN, NONCE)
    assert (finding.name, "502" in finding.what) == ("gateway", True)
