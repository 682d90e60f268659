"""The commands that look at streams: `check` and `explain` at recordings, standard input and APIs, `doctor` at a relay.

`rawsse.replay` and `rawsse.relay.doctor` decide what is wrong with a stream; each command loads what it needs of them.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rawsse.cli.options import DEFAULT_MODEL, ListTable, add_command, add_paths, add_scrub
from rawsse.cli.terminal import complain, show, write
from rawsse.errors import APIConnectionError, APIError, ConfigurationError, RawsseError

if TYPE_CHECKING:
    from io import BufferedReader

    from rawsse.relay.doctor import Plan, Trace
    from rawsse.replay import Finding, Recording, ScrubPolicy

READ_BYTES = 65536
"""How much is read from standard input at a time, at most. Less is checked as soon as it arrives."""

ASKED_TOKENS = 256
"""`max_tokens` of the question to an API that is checked: room for every event of a text."""

PATIENCE_SECONDS = 10.0
"""How long connecting to a relay may take, and how much later than planned its last event may arrive."""

MAX_KEPT_BYTES = 64 * 1024
"""The largest event of a relay; and how much is kept of an answer that is not its stream."""

STDIN = "-"
_PATH = "/v1/messages"

T = TypeVar("T")


# --- check ---------------------------------------------------------------------------------------------------------


def add_check(commands: Any) -> None:
    """The arguments of `rawsse check`."""
    more = "Names each broken rule and its place, for a live stream at once. Exit code 1 if a rule is broken."
    parser = add_command(commands, _check, "check", "is this a correct stream?", more)
    option = parser.add_argument
    sources = "a recording (*.sse.jsonl), a bare *.sse, a folder, - for standard input, or the base URL of an API"
    option("sources", nargs="+", metavar="PATH", help=sources)
    option("--json", action="store_true", help="a line of JSON for each finding and each stream")
    add_scrub(parser, "report")
    option("--rules", action=ListTable, nargs=0, const="rawsse.replay.check.RULES", help="list the rules, and exit")
    option("-m", "--model", default=DEFAULT_MODEL, help=f"the model to ask of an API (default: {DEFAULT_MODEL})")
    option("--prompt", default="Count from one to five.", help="the question to an API (default: %(default)s)")


def _check(arguments: argparse.Namespace) -> bool:
    from rawsse.replay import ScrubPolicy, check

    is_good, policy, as_json = True, ScrubPolicy(patterns=tuple(arguments.scrub)), arguments.json
    for source in arguments.sources:
        report = _Report(source, policy, as_json=as_json)
        if source == STDIN:
            is_good &= _check_stdin(report)
        elif source.startswith(("http://", "https://")):
            base_url = source.rstrip("/").removesuffix(_PATH)
            is_good &= asyncio.run(_check_api(report, base_url, arguments.model, arguments.prompt))
        else:
            for recording in _load_all(Path(source)):
                if recording is not None:
                    report = _Report(recording.name, policy, as_json=as_json)
                    lines = report.add(check(recording, policy))
                    _show_all([*lines, report.summary()] if as_json else [report.summary(), *lines])
                is_good &= recording is not None and report.is_good
    return is_good


class _Report:
    """The findings in one stream, as lines, and a line for the whole."""

    def __init__(self, name: str, policy: ScrubPolicy, *, as_json: bool) -> None:
        self.policy = policy
        self._name = name
        self._as_json = as_json
        self._counts = {"error": 0, "warning": 0, "note": 0}

    @property
    def is_good(self) -> bool:
        """No rule is broken."""
        return not self._counts["error"]

    def add(self, findings: Iterable[Finding]) -> list[str]:
        """Count the findings; a line for each."""
        from rawsse.replay.scrub import scrub_line

        lines = []
        for found in findings:
            finding = found._replace(text=scrub_line(found.text, self.policy))  # it quotes the stream
            self._counts[finding.severity] += 1
            place = {"byte": finding.where.byte, "event": finding.where.event}
            fields = {"severity": finding.severity, "rule": finding.rule, **place, "text": finding.text}
            lines.append(self._json(fields) if self._as_json else f"  {finding}")
        return lines

    def summary(self) -> str:
        """How many rules are broken."""
        if self._as_json:
            return self._json({f"{severity}s": count for severity, count in self._counts.items()})
        broken = self._counts["error"]
        return f"{self._name}: " + (f"{broken} broken rule{'' if broken == 1 else 's'}" if broken else "ok")

    def _json(self, fields: Mapping[str, object]) -> str:
        return json.dumps({"stream": self._name, **fields})


def _show_all(lines: Iterable[str]) -> None:
    for line in lines:
        show(line)


def _check_stdin(report: _Report) -> bool:
    from rawsse.replay import Checker

    checker = Checker(policy=report.policy)
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    stream = cast("BufferedReader", sys.stdin.buffer)
    while not checker.is_over and (data := stream.read1(READ_BYTES)):
        _show_all(report.add(checker.feed(data)))
    _show_all([*report.add(checker.close()), report.summary()])
    return report.is_good


async def _check_api(report: _Report, base_url: str, model: str, prompt: str) -> bool:
    from rawsse.client.client import AsyncClient
    from rawsse.client.request import Secrets
    from rawsse.replay import Checker
    from rawsse.replay.proxy import BodyAnswer

    messages = [{"role": "user", "content": prompt}]
    body = {"model": model, "max_tokens": ASKED_TOKENS, "messages": messages, "stream": True}
    client = AsyncClient(base_url=base_url)
    async with client if client.has_credential else AsyncClient(base_url=base_url, api_key="none") as client:
        call = client.call("POST", _PATH, kind=BodyAnswer, body=body, max_retries=0)
        # The API may quote the request's header.
        report.policy = replace(report.policy, secrets=tuple(Secrets(call.settings.request.headers).values))
        answer = await call.open()
        content_type = answer.response.headers.get("content-type") or ""
        checker = Checker(answer.response.status, content_type, wants_stream=True, policy=report.policy)
        while True:
            for piece in answer.take():
                _show_all(report.add(checker.feed(piece)))
            if answer.is_over or checker.is_over:
                break
            await call.more()
        if isinstance(answer.error, APIConnectionError):
            complain(answer.error)
        elif answer.error is not None:
            raise answer.error
    _show_all([*report.add(checker.close("clean" if answer.error is None else "cut")), report.summary()])
    return report.is_good


# --- explain -------------------------------------------------------------------------------------------------------


def add_explain(commands: Any) -> None:
    """The arguments of `rawsse explain`."""
    parser = add_command(commands, _explain, "explain", "the anatomy of a recording: bytes, lines, events, message")
    add_paths(parser)
    option = parser.add_argument
    option("--color", choices=("auto", "always", "never"), default="auto", help="default: auto, unless NO_COLOR is set")
    option("--event", type=int, metavar="N", help="follow one event: read, HTTP chunk, lines, JSON, message")
    option("--html", type=Path, metavar="OUT", help="write a page (of the event N), or several into the folder OUT")


def _explain(arguments: argparse.Namespace) -> bool:
    from rawsse.replay.explain import explain, explain_event, visible
    from rawsse.replay.scrub import to_show

    recordings = (recording for path in arguments.paths for recording in _load_all(path))
    if arguments.html is not None:
        return _write_pages(list(recordings), arguments.html, arguments.event)
    # NO_COLOR: https://no-color.org. An option counts for more.
    is_wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    color, is_good = is_wanted if arguments.color == "auto" else arguments.color == "always", True
    for recording in recordings:
        is_good &= recording is not None
        if recording is not None:
            # `explain.py` has made visible whatever a terminal would obey; only our own colours are left.
            it = to_show(recording)
            text = (
                explain(it, color=color) if arguments.event is None else explain_event(it, arguments.event, color=color)
            )
            write(f"== {visible(recording.name)}\n{text}\n")
    return is_good


def _write_pages(recordings: Sequence[Recording | None], out: Path, event: int | None) -> bool:
    """Write each recording's page: to the file `out`, or into it if it is a folder or there are several recordings."""
    from rawsse.replay.explain_page import explain_html
    from rawsse.replay.recording import write_whole
    from rawsse.replay.scrub import to_show

    is_folder = out.is_dir() or len(recordings) > 1
    if is_folder and out.exists() and not out.is_dir():
        raise ConfigurationError(f"--html: {out} is not a folder, and there are {len(recordings)} recordings")
    for recording in filter(None, recordings):
        name = Path(recording.name).name.removesuffix(".jsonl").removesuffix(".sse")
        page = out / f"{name}.html" if is_folder else out
        page.parent.mkdir(parents=True, exist_ok=True)
        write_whole(page, explain_html(to_show(recording), event=event))
        show(f"{page}")
    return None not in recordings


def _load_all(path: Path) -> Iterator[Recording | None]:
    """Every recording below `path`; None, after an error on standard error, for a file that is not one."""
    from rawsse.replay import Recording, find_recordings

    files = _or_none(find_recordings, path)
    yield from [None] if files is None else (_or_none(Recording.load, file) for file in files)


def _or_none(load: Callable[[Path], T], path: Path) -> T | None:
    try:
        return load(path)
    except (RawsseError, OSError) as exc:
        complain(exc)
        return None


# --- doctor --------------------------------------------------------------------------------------------------------


def add_doctor(commands: Any) -> None:
    """The arguments of `rawsse doctor`."""
    more = "Asks a relay for timed events, through all proxies before it; calls no model. Exit code 1 if one holds them back."
    parser = add_command(commands, _doctor, "doctor", "do events arrive as they are sent?", more)
    option = parser.add_argument
    option("url", metavar="URL", help="the relay as browsers reach it, with the path before /chat/stream")
    option("--token", help="the relay's token (default: RAWSSE_TOKEN in the environment); never shown")
    silence = "the longest pause (default 3): 35 finds a proxy that cuts connections after 30 idle seconds, 65 after 60"
    option("--silence", type=float, default=3.0, metavar="SECONDS", help=silence)
    option("--json", action="store_true", help="print figures (in seconds) and findings as JSON")


def _doctor(arguments: argparse.Namespace) -> bool:
    from rawsse.relay.doctor import Plan

    token = arguments.token or os.environ.get("RAWSSE_TOKEN")
    return examine(arguments.url, Plan(silence=arguments.silence), token, as_json=arguments.json)


def examine(url: str, plan: Plan, token: str | None = None, *, as_json: bool = False) -> bool:
    """Show what is wrong on the way from the relay at `url`; True if nothing is. Raises `ConfigurationError`."""
    from rawsse.client.request import Secrets
    from rawsse.relay.doctor import delays, diagnose, read_beats

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


async def measure(url: str, plan: Plan, nonce: str, token: str | None = None) -> Trace:
    """Make one request to the relay at `url`, until all events have arrived, the body ends or the time is over.

    The request asks for compression as browsers do: some proxies compress event streams only then. Raises
    `ConfigurationError` for a URL, a token or a proxy that cannot be used.
    """
    from rawsse.client.network.asyncio_network import AsyncioNetwork
    from rawsse.client.network.certificates import TLSContext
    from rawsse.client.network.link import Expired
    from rawsse.client.network.route import Proxies
    from rawsse.client.request import Endpoint, credential, query_string
    from rawsse.http1 import ClientConnection, ContentDecoder, EndOfMessage, Response
    from rawsse.relay.doctor import Trace
    from rawsse.sse import Decoder

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
