"""`rawsse conform`: what a gateway does to streams, and what a client makes of cuts and faults. See `rawsse.replay.conform`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from rawsse.cli.options import DEFAULT_MODEL, SECONDS, add_command, at_least_one
from rawsse.cli.terminal import complain, show

if TYPE_CHECKING:
    from rawsse.replay.conform import Row

_LIMIT = 30.0


def add_conform(commands: Any) -> None:
    """The arguments of `rawsse conform`."""
    more = "Exit code 1 if anything is wrong."
    parser = add_command(
        commands, _nothing, "conform", "try a gateway, or a client, with recordings, cuts and faults", more
    )
    kinds = parser.add_subparsers(title="what to try", metavar="server|client", required=True)
    more = "The key is ANTHROPIC_API_KEY in the environment."
    server = add_command(kinds, _server, "server", "what a gateway that speaks the Messages API does to streams", more)
    server.add_argument("url", metavar="URL", help="its base URL, without /v1/messages")
    port = "play recordings and faults on this port, which is the gateway's upstream, and compare"
    server.add_argument("--upstream", type=at_least_one, metavar="PORT", help=port)
    server.add_argument("-m", "--model", default=DEFAULT_MODEL, help=f"the model to ask for (default: {DEFAULT_MODEL})")
    more = "It gets ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY, prints the text, and exits with another code than 0 on an error."
    client = add_command(kinds, _client, "client", "which cuts and faults a client takes for a whole answer", more)
    client.add_argument("line", nargs="+", metavar="COMMAND", help="after --: the program and its arguments")
    client.add_argument(
        "--jobs", type=at_least_one, default=os.cpu_count() or 1, metavar="N", help="how many at a time"
    )
    for each in (server, client):
        form = each.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="the rows as JSON, one a line")
        form.add_argument("--markdown", action="store_true", help="the table in Markdown")
        each.add_argument("--limit", **SECONDS, default=_LIMIT, help=f"for one answer (default {_LIMIT:g})")


def _nothing(arguments: argparse.Namespace) -> bool:
    raise AssertionError(arguments)


def _server(arguments: argparse.Namespace) -> bool:
    from rawsse.client.client import AsyncClient
    from rawsse.replay.conform import try_server

    url = arguments.url.rstrip("/").removesuffix("/v1/messages")
    options = {"model": arguments.model, "upstream_port": arguments.upstream, "limit": arguments.limit}

    async def run() -> list[Row]:
        client = AsyncClient(base_url=url)
        async with client if client.has_credential else AsyncClient(base_url=url, api_key="none") as client:
            return await try_server(client, on_row=_Progress(), **options)

    return _report(asyncio.run(run()), arguments)


def _client(arguments: argparse.Namespace) -> bool:
    from rawsse.replay.conform import try_client

    options = {"limit": arguments.limit, "jobs": arguments.jobs, "on_row": _Progress()}
    rows = asyncio.run(try_client(arguments.line, **options))
    if len(rows) == 1:
        complain("the command fails with a whole answer, so that its other endings say nothing")
    return _report(rows, arguments)


class _Progress:
    """Shows on a terminal how many rows there are. Faults are meant: what the servers here log of them is not shown."""

    def __init__(self) -> None:
        self._count = 0
        logging.getLogger("rawsse").addHandler(logging.NullHandler())

    def __call__(self, row: Row, total: int) -> None:
        self._count += 1
        if sys.stderr is not None and sys.stderr.isatty():
            end = "\r\x1b[K" if self._count == total else ""
            sys.stderr.write(f"\r\x1b[K{self._count}/{total} {row.name}{end}")
            sys.stderr.flush()


def _report(rows: list[Row], arguments: argparse.Namespace) -> bool:
    from rawsse.replay.conform import as_markdown, as_text, is_good

    if arguments.json:
        show("\n".join(json.dumps(row._asdict()) for row in rows))
    else:
        show(as_markdown(rows) if arguments.markdown else as_text(rows), end="" if arguments.markdown else "\n")
    return is_good(rows)
