"""The commands that look at streams: `check` and `explain` at recordings, standard input and APIs, `doctor` at a relay, and
`conform` at a gateway or a client.

`rawsse.replay` and `rawsse.relay.doctor` do the checks; each command loads only the modules it needs.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import json
import logging
import os
import secrets
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rawsse.cli.options import REPEATED, SECONDS, ListTable, add_command, add_options, at_least_one
from rawsse.cli.terminal import complain, progress, run, show, write
from rawsse.errors import APIError, ConfigurationError, RawsseError

if TYPE_CHECKING:
    from io import BufferedReader

    from rawsse.client.client import AsyncClient
    from rawsse.relay.doctor import Plan, Trace
    from rawsse.replay import Finding, Recording, ScrubPolicy
    from rawsse.replay.conform import OnRow, Row

READ_BYTES = 65536
"""The most to read from standard input at a time. Less is checked as soon as it arrives."""

ASKED_TOKENS = 256
"""`max_tokens` of the request to an API that is checked: enough for every event of a text."""

MAX_FINDINGS = 10_000
"""How much of an API's answer is read."""

PATIENCE_SECONDS = 10.0
"""How long connecting to a relay may take, and how much later than planned its last event may arrive."""

MAX_KEPT_BYTES = 64 * 1024
"""The largest event of a relay; and how much is kept of an answer that is not its stream."""

_PATH = "/v1/messages"

A = TypeVar("A")
T = TypeVar("T")


# --- check ---------------------------------------------------------------------------------------------------------


def add_check(commands: Any) -> None:
    """The arguments of `rawsse check`."""
    more = "Names each broken rule and its place, for standard input as it arrives. Exit code 1 if a rule is broken."
    parser = add_command(commands, _check, "check", "check whether a stream is correct", more)
    option = parser.add_argument
    sources = "a recording, a bare *.sse, a folder, the name of a shipped recording, - for standard input, an API's URL"
    option("sources", nargs="+", metavar="PATH", help=sources)
    option("--json", action="store_true", help="print a line of JSON per finding and per stream")
    add_options(parser, "--scrub", "--model")
    option("--rules", action=ListTable, nargs=0, const="rawsse.replay.check.RULES", help="list the rules and exit")
    option("--prompt", default="Count from one to five.", help="the prompt for an API (default: %(default)s)")


def _check(arguments: argparse.Namespace) -> bool:
    from rawsse.replay import ScrubPolicy, check

    is_good, policy = True, ScrubPolicy(patterns=tuple(arguments.scrub))
    report = partial(_report, as_json=arguments.json)
    for source in arguments.sources:
        if source == "-":
            is_good &= report(source, _findings_in_stdin(policy), policy)
        elif source.startswith(("http://", "https://")):
            is_good &= report(source, *run(_findings_of_api(source, arguments.model, arguments.prompt, policy)))
        else:
            for it in _load_all(Path(source)):
                is_good &= it is not None and report(it.name, check(it, policy), policy)
    return is_good


def _report(name: str, findings: Iterable[Finding], policy: ScrubPolicy, *, as_json: bool) -> bool:
    """Show each finding as it is made, then the count. False if a rule is broken."""
    from rawsse.replay.scrub import scrub_line

    counts = {"error": 0, "warning": 0, "note": 0}
    for finding in findings:
        counts[finding.severity] += 1
        text = scrub_line(finding.text if as_json else str(finding), policy)  # it quotes the stream
        known = {"severity": finding.severity, "rule": finding.rule, **finding.where._asdict()}
        fields = {"stream": name, **known, "text": text}
        show(json.dumps(fields) if as_json else f"{name}: {text}")
    if as_json:
        show(json.dumps({"stream": name, **{f"{severity}s": count for severity, count in counts.items()}}))
    else:
        broken = counts["error"]
        show(f"{name}: " + (f"{broken} broken rule{'' if broken == 1 else 's'}" if broken else "ok"))
    return not counts["error"]


def _findings_in_stdin(policy: ScrubPolicy) -> Iterator[Finding]:
    from rawsse.replay import Checker

    checker, stream = Checker(policy=policy), _stdin()
    while not checker.is_over and (data := stream.read1(READ_BYTES)):
        yield from checker.feed(data)
    yield from checker.close()


def _stdin() -> BufferedReader:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return cast("BufferedReader", sys.stdin.buffer)


async def _findings_of_api(url: str, model: str, prompt: str, policy: ScrubPolicy) -> tuple[list[Finding], ScrubPolicy]:
    """The findings about an answer of the API, and the policy with the request's secrets, which the API may quote."""
    from rawsse.client.request import Secrets
    from rawsse.replay import Checker
    from rawsse.replay.proxy import BodyAnswer

    messages = [{"role": "user", "content": prompt}]
    body = {"model": model, "max_tokens": ASKED_TOKENS, "messages": messages, "stream": True}
    async with _client_of(url) as client:
        call = client.call("POST", _PATH, kind=BodyAnswer, body=body, max_retries=0)
        policy = replace(policy, secrets=tuple(Secrets(call.settings.request.headers).values))
        findings: list[Finding] = []
        answer = await call.open()
        content_type = answer.response.headers.get("content-type") or ""
        checker = Checker(answer.response.status, content_type, wants_stream=True, policy=policy)
        while True:
            findings += checker.feed(b"".join(answer.take()))
            if answer.is_over or checker.is_over or len(findings) >= MAX_FINDINGS:
                break
            await call.more()
        if answer.error is not None:
            complain(answer.error)
    return findings + checker.close("clean" if answer.error is None else "cut"), policy


def _client_of(url: str) -> AsyncClient:
    """A client for an API or a gateway; without a key, it has a made-up one."""
    from rawsse.client.client import AsyncClient

    base_url = url.rstrip("/").removesuffix(_PATH)
    client = AsyncClient(base_url=base_url)
    return client if client.has_credential else AsyncClient(base_url=base_url, api_key="none")


# --- explain -------------------------------------------------------------------------------------------------------


def add_explain(commands: Any) -> None:
    """The arguments of `rawsse explain`."""
    summary = "the anatomy of a recording: bytes, lines, events, message"
    more = "The path - is standard input. Exit code 1 only if one cannot be shown: for broken rules, `rawsse check` has it."
    parser = add_command(commands, _explain, "explain", summary, more)
    add_options(parser, "paths")
    option = parser.add_argument
    option("--color", choices=("auto", "always", "never"), default="auto", help="default: auto, unless NO_COLOR is set")
    layers = "read, HTTP chunk (rebuilt, one for each read: a recording has none), lines, JSON, message"
    option("--event", type=int, metavar="N", help=f"follow event N, counted from 1 as by `rawsse check`: {layers}")
    option("--html", type=Path, metavar="OUT", help="write a page (of the event N), or several into the folder OUT")


def _explain(arguments: argparse.Namespace) -> bool:
    from rawsse.replay.explain import explain, explain_event, visible
    from rawsse.replay.explain_page import explain_html
    from rawsse.replay.scrub import to_show

    # NO_COLOR: https://no-color.org. The option takes precedence.
    is_wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    color, number = is_wanted if arguments.color == "auto" else arguments.color == "always", arguments.event
    work: Callable[[Recording], str] = partial(explain, color=color)
    if arguments.html is not None:
        work = partial(explain_html, event=number)
    elif number is not None:
        work = partial(explain_event, number=number, color=color)
    found = (recording for path in arguments.paths for recording in _load_all(path))
    recordings = found if arguments.html is None else list(found)
    is_folder, is_good = isinstance(recordings, list) and len(recordings) > 1, True
    written = set[str]()
    for recording in recordings:
        if recording is None or (text := _or_none(work, to_show(recording))) is None:
            is_good = False
        elif arguments.html is None:
            # `explain.py` has made all control characters visible, except our own colours.
            write(f"== {visible(recording.name)}\n{text}\n")
        else:
            _write_page(arguments.html, recording.name, text, written, is_folder=is_folder)
    return is_good


def _write_page(out: Path, name: str, text: str, written: set[str], *, is_folder: bool) -> None:
    """Write a page to the file `out`, or into the folder `out`: with a number, if its name is among those `written`."""
    from rawsse.replay.recording import write_whole

    if is_folder or out.is_dir():
        stem = Path(name).name.removesuffix(".jsonl").removesuffix(".sse")
        pages = (out / f"{stem}{number}.html" for number in itertools.chain([""], itertools.count(-2, -1)))
        out = next(page for page in pages if str(page).casefold() not in written)  # some file systems ignore case
        written.add(str(out).casefold())
    if out.is_file() and out.suffix not in (".html", ".htm"):
        raise ConfigurationError(f"--html: {out} is not a page, and would be overwritten")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, text)
    show(f"{out}")


def _load_all(path: Path) -> Iterator[Recording | None]:
    """Every recording below `path`, or the one on standard input (`-`). An invalid file is None, with an error on standard
    error."""
    from rawsse.replay import Recording, find_recordings, load_recordings
    from rawsse.replay.recording import MAX_FILE_BYTES

    if str(path) == "-":
        yield _or_none(lambda _: Recording.loads(_stdin().read(MAX_FILE_BYTES), name="standard input"), path)
        return
    files = _or_none(find_recordings, path) if path.is_dir() else [path]
    for loaded in [None] if files is None else (_or_none(load_recordings, file) for file in files):
        yield from loaded or (None,)


def _or_none(work: Callable[[A], T], given: A) -> T | None:
    """The result of `work`; None after an error, which is written to standard error."""
    try:
        return work(given)
    except (RawsseError, OSError) as exc:
        complain(exc)
        return None


# --- doctor --------------------------------------------------------------------------------------------------------


def add_doctor(commands: Any) -> None:
    """The arguments of `rawsse doctor`."""
    more = "Requests timed events from a relay through its proxies; calls no model. Exit code 1 if any are delayed."
    parser = add_command(commands, _doctor, "doctor", "check whether events arrive as they are sent", more)
    option = parser.add_argument
    option("url", metavar="URL", help="the relay's URL for browsers, with the path before /chat/stream")
    option("--token", help="the relay's token, never shown (default: RAWSSE_TOKEN in the environment)")
    field = "a field to send, never shown: 'cookie: session=…' for a site's own login (repeatable)"
    option("--header", **REPEATED, type=_header, metavar="'NAME: VALUE'", help=field)
    silence = "the longest pause (default 3): 20 finds a proxy that cuts before the relay's heartbeat, every 15 s"
    option("--silence", type=float, default=3.0, metavar="SECONDS", help=silence)
    option("--json", action="store_true", help="print figures (in seconds) and findings as JSON")


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or "=" in name:  # a cookie alone, for instance, which is not quoted
        raise argparse.ArgumentTypeError("must be 'NAME: VALUE'")
    return name.strip(), value.strip()


def _doctor(arguments: argparse.Namespace) -> bool:
    from rawsse.client.request import credential
    from rawsse.relay.doctor import Plan

    token = credential(None, arguments.token or os.environ.get("RAWSSE_TOKEN"))
    fields = [*filter(None, [token]), *arguments.header]
    return examine(arguments.url, Plan(silence=arguments.silence), fields, as_json=arguments.json)


def examine(url: str, plan: Plan, fields: Sequence[tuple[str, str]] = (), *, as_json: bool = False) -> bool:
    """Show the problems between the relay at `url` and this machine; True if there are none. The values of `fields`, header
    fields of the request, are never shown. Raises `ConfigurationError`."""
    from rawsse.client.request import Secrets
    from rawsse.relay.doctor import delays, diagnose, read_beats

    trace = run(measure(url, plan, nonce := secrets.token_hex(4), fields))
    findings, late = diagnose(trace, plan, nonce), delays(list(read_beats(trace))) or [0.0]
    figures = {"median_delay": late[len(late) // 2], "p99_delay": late[len(late) * 99 // 100]}
    figures["first_byte"] = max(trace.headed - trace.asked, 0.0)
    text = "\n".join(f"{finding.what}\n    {finding.remedy}" for finding in findings)
    if as_json:
        text = json.dumps({**figures, "findings": [finding._asdict() for finding in findings]})
    elif not findings:
        text = "events arrive as sent: " + ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in figures.items())
    show(Secrets(fields).removed(text))
    return not findings


async def measure(url: str, plan: Plan, nonce: str, fields: Sequence[tuple[str, str]] = ()) -> Trace:
    """Make one request to the relay at `url`, until all events have arrived, the body ends or the time runs out.

    The request asks for compression as browsers do: some proxies compress event streams only then. Raises
    `ConfigurationError` for a URL, a header field or a proxy that cannot be used.
    """
    from rawsse.client.network.asyncio_network import AsyncioNetwork
    from rawsse.client.network.link import Expired
    from rawsse.client.network.route import Proxies
    from rawsse.client.network.tls import TLSContext
    from rawsse.client.request import Endpoint, query_string
    from rawsse.http1 import ClientConnection, ContentDecoder, EndOfMessage, Response
    from rawsse.relay.doctor import Trace
    from rawsse.sse import Decoder

    headers = {"accept": "text/event-stream", "accept-encoding": "gzip, deflate", "user-agent": "rawsse"}
    headers |= {"last-event-id": nonce, **{name.lower(): value for name, value in fields}}
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
                progress(f"{len(trace.events)} of {len(plan.pauses())} events")
    except (Expired, OSError, APIError) as exc:
        trace.error = str(exc) or "nothing more arrived in time"
    finally:
        progress("")
        connector.abort()
    trace.ended = network.now()
    return trace


# --- conform -------------------------------------------------------------------------------------------------------


def add_conform(commands: Any) -> None:
    """The arguments of `rawsse conform`."""
    summary = "test a gateway or a client with recordings, cuts and faults"
    more = "Exit code 1 if a row is wrong or silent; with --json, each row's verdict is right, wrong, silent or open."
    parser = add_command(commands, _try_server, "conform", summary, more)
    kinds = parser.add_subparsers(title="what to test", metavar="server|client", required=True)
    more = "The key is ANTHROPIC_API_KEY. A row that cuts the upstream expects a response that is cut too, or an error."
    server = add_command(kinds, _try_server, "server", "how a gateway for the Messages API changes streams", more)
    server.add_argument("url", metavar="URL", help="its base URL, without /v1/messages")
    port = "play recordings and faults on this port, as the gateway's upstream, and compare"
    server.add_argument("--upstream", type=at_least_one, metavar="PORT", help=port)
    add_options(server, "--model")
    more = "It gets ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY. It must print only the text, or exit with a code other than 0. "
    more += "Events, as of curl, need a filter: set -o pipefail; curl … | sed -n 's/^data: *//p' | jq -j '.delta.text // empty'"
    summary = "which cuts and faults a client takes for a complete answer"
    client = add_command(kinds, _try_client, "client", summary, more)
    client.add_argument("line", nargs="+", metavar="COMMAND", help="after --: the program and its arguments")
    only = "run only the row with that name (repeatable); the first row, a complete answer, always runs"
    client.add_argument("--only", **REPEATED, metavar="NAME", help=only)
    jobs = "how many to run at a time (default: %(default)s)"
    client.add_argument("--jobs", type=at_least_one, default=os.cpu_count() or 1, metavar="N", help=jobs)
    lines = "print JSON: a line per row (`first`: an earlier, bad outcome; `sent`: what was played), and the counts"
    for each in (server, client):
        form = each.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help=lines)
        form.add_argument("--markdown", action="store_true", help="print a Markdown table")
        each.add_argument("--limit", **SECONDS, default=30.0, help="for one answer (default: %(default)g)")


def _try_server(arguments: argparse.Namespace) -> bool:
    from rawsse.replay.conform import try_server

    async def attempt(on_row: OnRow) -> list[Row]:
        options = {"model": arguments.model, "upstream_port": arguments.upstream, "limit": arguments.limit}
        async with _client_of(arguments.url) as client:
            return await try_server(client, on_row=on_row, **options)

    return _show_rows(attempt, arguments)


def _try_client(arguments: argparse.Namespace) -> bool:
    from rawsse.replay.conform import try_client

    async def attempt(on_row: OnRow) -> list[Row]:
        options = {"only": arguments.only, "limit": arguments.limit, "jobs": arguments.jobs}
        try:
            rows = await try_client(arguments.line, on_row=on_row, **options)
        except ConfigurationError as exc:  # the names of all rows: too long for `complain`
            arguments.parser.error(str(exc))
        if rows[0].verdict != "right":
            complain("no other row was tried: of a complete answer, the command must print the text, and exit with 0")
        return rows

    return _show_rows(attempt, arguments)


def _show_rows(attempt: Callable[[OnRow], Coroutine[Any, Any, list[Row]]], arguments: argparse.Namespace) -> bool:
    """Show the rows as they are ready, and their totals. The servers' logs about the deliberate faults are not shown."""
    from rawsse.replay.conform import LEGEND, as_line, as_markdown, counts, is_good, totals

    done = 0

    def on_row(row: Row | None, running: str, total: int) -> None:
        nonlocal done
        done += row is not None
        progress("")
        if row is not None and not arguments.markdown:
            show(json.dumps(row._asdict(), default=dict) if arguments.json else as_line(row))
        progress(f"{done + 1} of {total}: {running}" if running else "")

    logging.getLogger("rawsse").addHandler(logging.NullHandler())
    rows = run(attempt(on_row))
    progress("")
    if arguments.json:
        show(json.dumps({**counts(rows), "legend": LEGEND}))
    else:
        show(as_markdown(rows).rstrip() if arguments.markdown else totals(rows))
    return is_good(rows)
