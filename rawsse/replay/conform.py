"""The fault matrix as a tool: how a gateway changes streams, and how a client handles cuts and faults.

    rows = await try_client(["node", "ask.mjs"])                # it reads ANTHROPIC_BASE_URL and prints the text
    rows = await try_server(AsyncClient(base_url="https://gateway.example"), model="claude-sonnet-5")
    rows = await try_server(client, model="m", upstream_port=8001)      # the gateway's upstream is this port
    print(as_text(rows)); sys.exit(not is_good(rows))
    print(as_columns({"mine": rows, "theirs": other_rows}))     # clients side by side, as in fixtures/README.md

A client must print the whole text and exit with 0, or exit with another code. The worst row is `SILENT`: an answer was cut
or changed, and the client reported success. Some faults cannot be detected (a lost delta): their rows are `open`.

Without an upstream, a gateway's stream is only checked (`check.py`). With `upstream_port`, recordings and faults are played
there, and the gateway's output is compared with its input.

An attempt whose row is wrong or silent is repeated: only repeated failures are reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import IO, Any, Literal, NamedTuple, TypeAlias, TypeVar

from rawsse.client.client import AsyncClient
from rawsse.client.request import Secrets
from rawsse.errors import APIError, ConfigurationError, quote
from rawsse.http1 import ContentDecoder
from rawsse.replay.answers import answer_of, differences
from rawsse.replay.check import RULES, check, quote_bytes
from rawsse.replay.explain import Timeline
from rawsse.replay.faults import edited, read_faults, replacement
from rawsse.replay.player import LocalServer, Player, ReplayServer
from rawsse.replay.proxy import RawAnswer
from rawsse.replay.recorder import outcome
from rawsse.replay.recording import End, Read, Recording, parse_body, shipped_fixtures
from rawsse.replay.variants import pace_by, rewrite_by
from rawsse.server import Receive, Scope, Send
from rawsse.sse import Decoder

T = TypeVar("T")

Verdict: TypeAlias = Literal["right", "wrong", "silent", "open"]
Wanted: TypeAlias = Literal["whole", "failed", "either", "waits", "open"]
"""The right ending: the whole answer; an error; either of these; an error or further waiting; anything."""

SILENT = "⚠"
GOOD_STOPS = ("end_turn", "stop")
"""Normal stop reasons, of the API and of the AI SDK."""

LONG_SECONDS = 5
"""The shortest wait that a cell mentions."""

LIMIT = 30.0
"""The time limit of a client or gateway for one answer."""

MAX_OUTPUT_BYTES = 1024 * 1024
"""How much of a client's output is read."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""How much of an answer is read. A longer one counts as cut."""

MAX_ROW_CHARS = 160
PACE = "ttft=0.3,tps=115"
"""The duration of the answer that shows whether a gateway holds events back."""

AT_ONCE_SECONDS = 0.02
"""Events that arrive within less time, after a second or more, were held back."""

LATE_SECONDS = 0.25
"""A smaller delay may come from the network itself. Text is held back if more than a quarter of it comes later than that."""


def _by_name(*rows: tuple[T, str]) -> Mapping[str, T]:
    return {name: value for value, names in rows for name in names.split()}


FAULTS: Mapping[str, Wanted] = _by_name(
    ("failed", "reset@head reset@event=5 close@head close@head=20 close@event=5 half-close@event=5"),
    ("waits", "stall@head stall@event=5"),
    ("whole", "drip=50@event=70 slow-head=50"),
    ("open", "drop@event=5 duplicate@event=5 swap@event=5 bad-utf8@event=5"),
    ("either", "drop@event=-2 drop@event=-1 oversized-line=17000000 no-last-chunk wrong-content-length=+1000 gzip"),
    ("failed", "garble@event=5 error@event=0 error@event=5 bad-chunk-size@event=5 wrong-content-length=-1000"),
    ("failed", "end@event=0 end@event=5 end@event=-2 status=401 status=429 status=529 html html=200 redirect"),
)
"""Faults of the recording `plain`. Its event 5 is a text delta, the last but one is `message_delta`."""

_CLIENT_RECORDINGS: Mapping[str, Wanted] = _by_name(
    ("whole", "plain unicode pings thinking redacted-thinking tools citations server-tools"),
    ("either", "max-tokens refusal"),
    ("failed", "error-before-content error-after-content cut"),
)
# The API sends such an answer only to a request with this field: other clients may fail.
_ASKED_BY = _by_name(
    ("thinking", "thinking redacted-thinking pings"), ("tools", "tools server-tools"), ("citations", "citations")
)
_CLIENT_REWRITES: Mapping[str, Wanted] = _by_name(
    ("whole", "crlf cr blank-lines comments comments-inside retry no-spaces padding lines-of-data"),
    # Not sent by the Messages API, or broken in an official SDK: may be rejected.
    ("either", "bom ids done no-event-lines"),
)
# Without a pause before a cut, many gateways would see the error before the first byte, and not begin their own answer.
_CUT_PAUSE_SECONDS = 0.2
_FAILURES = "reset@event=5 close@event=5 end@event=5 end@event=-2 html status=529 status=429,retry-after=7 status=401"
BAD_REQUEST = "status 400, invalid_request_error"
_GROUPS = tuple(dict.fromkeys(rule.partition("-")[0] for rule in RULES))
_ASKED: Mapping[str, Any] = {"max_tokens": 256, "messages": [{"role": "user", "content": "Count from one to five."}]}


class Row(NamedTuple):
    """One attempt and its outcome, `what`. `first` is the outcome of an earlier attempt that was not good. `sent` is the answer
    that was played: its recording, and the options of `Player`; empty if nothing was played."""

    name: str
    verdict: Verdict
    what: str
    first: str = ""
    sent: Mapping[str, Any] = MappingProxyType({})


class Case(NamedTuple):
    """An answer to play: `options` are those of `Player`."""

    name: str
    recording: Recording
    wanted: Wanted
    options: Mapping[str, Any]

    @property
    def sent(self) -> dict[str, Any]:
        """The answer that is played: its recording, and the options of `Player`."""
        return {"recording": self.recording.name.removesuffix(".sse.jsonl"), **self.options}


OnRow: TypeAlias = Callable[[Row | None, str, int], None]
"""Called for each row when it is ready, and with None when one begins; with the name of the row that runs now (of several, the
first to begin; empty if there is none), and the total number of rows."""


# --- The words of a cell ------------------------------------------------------------------------------------------------


def cell(text: str, stop: str | None, whole: str, error: str = "", requests: int = 1, seconds: float = 0.0) -> str:
    """A short outcome for the answer whose text should be `whole`. `error`: how the client reported failure."""
    if error:
        words = error
    elif text == whole and stop in GOOD_STOPS:
        words = "whole"
    else:
        how = "no end" if text == whole else "altered" if stop in GOOD_STOPS or not whole.startswith(text) else "cut"
        words = f"{how if text else 'nothing'}, no error"
    # A hundredth more: a sum of floats may be slightly too small.
    waited = int(seconds + 0.01)
    after = f" after {waited} s" if waited >= LONG_SECONDS else ""
    return f"{words}{after}{'' if requests == 1 else f', {requests} requests'}"


# --- Tables ----------------------------------------------------------------------------------------------------------

_MARKS: Mapping[Verdict, str] = {"right": "ok", "wrong": "wrong", "silent": SILENT, "open": "-"}
LEGEND: Mapping[Verdict, str] = {
    "right": "the ending that this row allows: some rows allow both the whole answer and an error",
    "wrong": "another ending, and an error or the result says so",
    "silent": "not the whole answer came out, and no error said so",
    "open": "not judged: nothing in a stream tells this, or the client may go on waiting",
}
"""The meaning of each verdict."""

NAME_CHARS = 30
"""The width of the name column. Few names are longer."""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *([each.replace("|", "\\|") for each in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    cells = [(f"`{row.name}`", _MARKS[row.verdict], _came(row)) for row in rows]
    return table(["tried", "verdict", "what came"], cells)


def as_columns(clients: Mapping[str, Sequence[Row]]) -> str:
    """Several clients side by side, as in `fixtures/README.md`: a Markdown table of what came. All have the same rows."""
    names = [f"`{row.name}`" for row in next(iter(clients.values()))]
    marks: Mapping[Verdict, str] = {"silent": f"{SILENT} "}
    columns = ([marks.get(row.verdict, "") + row.what for row in rows] for rows in clients.values())
    return table(["tried", *clients], zip(names, *columns, strict=True))


def as_line(row: Row) -> str:
    """The row in aligned columns."""
    return f"{_MARKS[row.verdict]:5}  {row.name:{NAME_CHARS}}  {_came(row)}".rstrip()


def _came(row: Row) -> str:
    return f"{row.what}; the first time {row.first}" if row.first and is_good([row]) else row.what


def counts(rows: Iterable[Row]) -> dict[Verdict, int]:
    """How many rows have each verdict."""
    count = Counter(row.verdict for row in rows)
    return {verdict: count[verdict] for verdict in LEGEND}


def totals(rows: Sequence[Row]) -> str:
    """The meaning of the marks, and a line with the counts."""
    count = counts(rows)
    lines = [f"{_MARKS[verdict]:5}  {words}" for verdict, words in LEGEND.items() if count[verdict]]
    silent = f"{count['silent']} {SILENT} taken for whole, {count['open']} not judged"
    return "\n".join([*lines, f"{count['right']} right, {count['wrong']} wrong, {silent}"])


def as_text(rows: Sequence[Row]) -> str:
    """The rows and their totals."""
    return "\n".join([*map(as_line, rows), totals(rows)])


def is_good(rows: Iterable[Row]) -> bool:
    """Whether nothing is wrong."""
    return all(row.verdict in ("right", "open") for row in rows)


def _row(name: str, wrong: str, right: str = "", verdict: Verdict = "wrong") -> Row:
    """A row that is right if `wrong` is empty."""
    return Row(name, verdict if wrong else "right", " ".join((wrong or right).split()))


def _shown(row: Row, cleaned: Callable[[str], str] = str) -> Row:
    """The row, its secrets removed and then cut: part of a secret would not be found."""
    what, first = map(cleaned, (row.what, row.first))
    return row._replace(what=_cut(what), first=_cut(first))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_ROW_CHARS else f"{text[:MAX_ROW_CHARS]}…"


async def _confirmed(attempt: Callable[[], Awaitable[list[Row]]], sent: Mapping[str, Any]) -> list[Row]:
    """The rows of an attempt in which `sent` is played; if one is not good, those of a second attempt."""
    rows = await attempt()
    if first := {row.name: row.what for row in rows if not is_good([row])}:
        rows = await attempt()
    return [row._replace(first=first.get(row.name, ""), sent=sent) for row in rows]


# --- Clients ---------------------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """A client's run: `code` is None if it was stopped; `said` is the last line of its standard error; of Node, the error.

    Of a client within a program, more may be known: the stop reason that it reports (empty if it is not known), how its
    error is called, and how long it took, in seconds.
    """

    code: int | None
    text: str
    said: str
    requests: int = 1
    stop: str | None = ""
    error: str = ""
    seconds: float = 0.0


def client_cases() -> list[Case]:
    """The answers for a client; the first one is complete and has no fault."""
    shipped = shipped_fixtures()
    plain, unicode = shipped["plain"], shipped["unicode"]
    cases = [Case(name, shipped[name], wanted, {}) for name, wanted in _CLIENT_RECORDINGS.items()]
    pieces = ({"segments": how, "segment_seconds": 0.001} for how in ("event", "line-ends", "random:1", "7"))
    cases += [Case(f"unicode, in pieces: {each['segments']}", unicode, "whole", each) for each in pieces]
    # In ASCII: a client that splits characters should fail in the rows above, but not in all of these.
    cases += [Case(f"plain, as {how}", plain, each, {"rewrite": how}) for how, each in _CLIENT_REWRITES.items()]
    return cases + [Case(spec, plain, wanted, {"faults": [spec]}) for spec, wanted in FAULTS.items()]


def judge_client(case: Case, run: Run) -> Row:
    """Whether the run ended as it should."""
    builder, text = case.recording.fold()[0], run.text.strip()
    whole = builder.message.text.strip() if builder.message else ""
    whole += "" if builder.is_complete else "…"  # then all of the text is a part
    stop = run.stop if run.stop != "" else None if case.wanted in ("failed", "waits") else GOOD_STOPS[0]
    error = run.error or ("hangs" if run.code is None else f"exit {run.code}" if run.code else "")
    words = cell(text, stop, whole, error, run.requests, run.seconds)
    said = f": {run.said}" if run.said else ""
    if not run.requests:
        return _row(case.name, f"{error or 'exit 0'}: it did not ask ANTHROPIC_BASE_URL{said}")
    if case.wanted == "open" or (case.wanted == "waits" and run.code is None):
        return _row(case.name, words, verdict="open")
    if not error and not words.startswith("whole"):
        if case.wanted == "whole" and text != whole:
            at = next((at for at, pair in enumerate(zip(text, whole, strict=False)) if pair[0] != pair[1]), len(text))
            words += f": at character {at} it printed {quote(text[at:], 40)}, not {quote(whole[at:], 40)}"
        return _row(case.name, words, verdict="silent")
    if run.code and case.wanted == "whole":
        return _row(case.name, f"{words}{said}")
    return _row(case.name, words if run.code is None else "", words)


async def try_client(
    command: Sequence[str],
    *,
    only: Collection[str] = (),
    limit: float = LIMIT,
    jobs: int = 1,
    on_row: OnRow = lambda row, running, total: None,
) -> list[Row]:
    """Run `command` for each of `client_cases()`, `jobs` at a time, each for at most `limit` seconds. `only` selects rows
    by name; the first row is always included.

    If the client fails with the first, complete answer, that is the only row. Raises `OSError` if the command cannot be
    run, and `ConfigurationError` for an unknown row.
    """
    cases, gate = client_cases(), asyncio.Semaphore(jobs)
    if unknown := [name for name in only if name not in (case.name for case in cases)]:
        raise ConfigurationError(f"there is no row {quote(unknown[0])}: name one of {'; '.join(c.name for c in cases)}")
    cases = [case for case in cases if not only or case.name in only or case is cases[0]]
    running: dict[str, None] = {}

    def tell(row: Row | None = None) -> None:
        on_row(row, next(iter(running), ""), len(cases))

    async def once(case: Case) -> list[Row]:
        async with ReplayServer(
            case.recording, sleep=lambda it: asyncio.sleep(min(it, 0.001)), **case.options
        ) as server:
            run = await _run(command, server.base_url, limit)
            field = f'"{_ASKED_BY.get(case.name, "")}":'  # a key of the body, or of a document in it
            if case.name in _ASKED_BY and not any(field in json.dumps(each.body) for each in server.requests):
                case = case._replace(wanted="either")
            return [judge_client(case, run._replace(requests=len(server.requests)))]

    async def tried(case: Case) -> Row:
        async with gate:
            running[case.name] = None
            tell()
            (row,) = await _confirmed(lambda: once(case), case.sent)
            del running[case.name]
        return _shown(row)

    rows = [await tried(cases[0])]
    tell(rows[0])
    if rows[0].verdict != "right":
        return rows
    tasks = [asyncio.create_task(tried(case)) for case in cases[1:]]
    try:
        for task in tasks:
            rows.append(await task)
            tell(rows[-1])
    finally:  # not a TaskGroup: it would wrap the error when the reader has exited (`| head`)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return rows


async def _run(command: Sequence[str], base_url: str, limit: float) -> Run:
    unwanted = ("ANTHROPIC_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(unwanted)}
    env = {**kept, "ANTHROPIC_BASE_URL": base_url, "ANTHROPIC_API_KEY": "any", "PYTHONIOENCODING": "utf-8"}
    # Files, since a process that outlives the command may keep a pipe open. A session, so that child processes can be ended.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=err, env=env, start_new_session=True
        )
        try:
            code = await asyncio.wait_for(process.wait(), limit)
        except TimeoutError:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill() if sys.platform == "win32" else os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        *lines, said = _output(err).strip().split("\n")
        if said.startswith("Node.js v"):  # after the error and its stack
            said = next((line for line in reversed(lines) if re.search(r"^(?!\s*at ).*Error", line)), said)
        return Run(code, _output(out), said or "it wrote no error")


def _output(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MAX_OUTPUT_BYTES).decode("utf-8", "replace")


# --- Servers ---------------------------------------------------------------------------------------------------------


def server_cases() -> list[Case]:
    """The answers to play behind a gateway."""
    shipped = shipped_fixtures()
    whole = [name for name, recording in shipped.items() if outcome(recording)[1] == "complete"]
    late = {name: {"faults": [f"stall={_CUT_PAUSE_SECONDS:g}@event=-1"]} for name in ("cut", "error-after-content")}
    cases = [Case(name, shipped[name], "whole" if name in whole else "failed", late.get(name, {})) for name in shipped]
    options = ({"split": "7"}, {"split": "event"}, {"rewrite": "comments"}, {"rewrite": "crlf"})
    cases += [Case(f"unicode, {' '.join(*each.items())}", shipped["unicode"], "whole", each) for each in options]
    for spec in _FAILURES.split():
        _, at, place = spec.partition("@")
        pause = [f"stall={_CUT_PAUSE_SECONDS:g}@{place}"] if at else []
        cases.append(Case(spec, shipped["plain"], "failed", {"faults": [*pause, spec]}))
    return cases


def judge_stream(got: Recording) -> Iterator[Row]:
    """Check a stream whose source is unknown: a row for each group of `RULES`."""
    findings = check(got)
    for group in _GROUPS:
        found = [each for each in findings if each.rule.startswith(group)]
        words, is_broken = "; ".join(map(str, found)), any(each.severity == "error" for each in found)
        names = ", ".join(rule.partition("-")[2] for rule in RULES if rule.startswith(group))
        yield _row(f"{group}: {names}".strip(" :"), words if is_broken else "", words)
    coding = got.headers.get("content-encoding", "identity")
    yield _row("compression", "" if coding == "identity" else f"{coding}: events may wait for others")
    yield _row("pings", "" if _pings(got) else "none: a limit on silence may cut it", f"{_pings(got)}", "open")


def judge_pace(got: Recording, sent: Recording | None = None) -> Row:
    """Whether events arrive as they are sent. Without `sent`, only a burst after a second or more is wrong."""
    words = f"events came over {_span(got):.2f} s of {got.duration:.2f} s"
    words += f"; sent over {_span(sent):.2f} s" if sent else ""
    is_held = _is_late(got, sent) if sent else _span(got) < AT_ONCE_SECONDS
    verdict: Verdict = "wrong" if sent or got.duration >= 1 else "open"  # a short answer may arrive at once
    return _row("pace", f"{words}: they are held back" if is_held else "", words, verdict)


def _is_late(got: Recording, sent: Recording) -> bool:
    """Whether more than a quarter of the characters came late, or never: a gateway may divide them into other events."""
    times, due = ([event.t for event in Timeline.of(each).events for _ in event.adds] for each in (got, sent))
    # The clocks are not compared: the fastest character counts as one without delay.
    lags = sorted(time - wanted for time, wanted in zip(times, due, strict=False))
    return 4 * sum(lag - lags[0] <= LATE_SECONDS for lag in lags) < 3 * len(due)


def _span(recording: Recording) -> float:
    return recording.reads[-1].t - recording.reads[0].t if recording.reads else 0.0


def judge_message(got: Recording, sent: Recording | None = None) -> Row:
    """Whether the answer to a request without `stream` is one message, equal to that of the recording."""
    message = None if got.is_stream else got.message()
    if message is None:
        return _row("without stream", f"status {got.status}, {got.content_type}: not a message in JSON")
    return _row("without stream", _changes(sent.message(), message) if sent else "")


def judge_refusal(got: Recording) -> Row:
    """Whether a request without messages is rejected as by the API."""
    words = f"status {got.status}, {_error_type(got) or 'no error type'}"
    return _row("a bad request", "" if words == BAD_REQUEST else f"{words}, instead of {BAD_REQUEST}", words)


def judge_case(case: Case, got: Recording) -> Row:
    """Whether the gateway forwarded the answer that was played."""
    sent, ending = _played(case), outcome(got)[1]
    if case.wanted == "whole":
        return _compared(case.name, sent, got)
    if ending == "complete":
        return _row(case.name, "the answer that failed ends like a whole one", verdict="silent")
    wanted, kind = _error_type(sent), _error_type(got)
    words = f"{f'status {got.status}' if got.status else 'no answer'}, {kind or ending}"
    is_told = kind or any(
        event.event == "error" for event in Decoder().feed(got.body)
    )  # a dialect may have its own form
    if sent.end == "cut" and got.end == "clean" and 200 <= got.status < 300 and not is_told:
        return _row(case.name, f"{words}: the upstream was cut, the response ended as if whole")
    wrong = [f"instead of {wanted}"] if wanted not in (None, kind) else []
    if wanted is not None and sent.status != 200:
        wrong += [f"instead of status {sent.status}"] if got.status != sent.status else []
        wrong += ["Retry-After is lost"] if "retry-after" in {*sent.headers} - {*got.headers} else []
    return _row(case.name, ", ".join([words, *wrong]) if wrong else "", words)


def _played(case: Case) -> Recording:
    recording = rewrite_by(case.options["rewrite"])(case.recording) if "rewrite" in case.options else case.recording
    answer = replacement(faults := read_faults(case.options.get("faults", ()))) or edited(answer_of(recording), faults)
    is_cut = any(fault.needs_wire and fault.cuts for fault in faults)
    return Recording(None, answer.status, answer.headers, answer.reads, "cut" if is_cut else recording.end)


def _error_type(recording: Recording) -> str | None:
    """The type of the error in a JSON body or in an event; None if there is no error in the API's form."""
    event = recording.fold()[0].error if recording.is_stream else None
    body = event.raw if event else parse_body(recording.body)
    error = body.get("error") if isinstance(body, dict) and body.get("type") == "error" else None
    return str(error["type"]) if isinstance(error, dict) and "type" in error else None


def _compared(name: str, sent: Recording, got: Recording) -> Row:
    errors = [str(each) for each in check(got) if each.severity == "error"]
    if got.status != 200:
        errors = [
            f"status {got.status}: {quote_bytes(got.body, MAX_ROW_CHARS)}" if got.status else f"no answer: {got.name}"
        ]
    wrong = errors[0] if errors else _changes(sent.message(), got.message())
    lost = "" if _pings(got) == _pings(sent) else f", and {_pings(got)} of {_pings(sent)} pings"
    return _row(name, wrong, "byte for byte" if got.body == sent.body else f"the same message in other bytes{lost}")


def _pings(recording: Recording) -> int:
    return sum(event.event == "ping" for event in Decoder().feed(recording.body))


def _changes(sent: Any, got: Any) -> str:
    """Where a message was changed; a gateway may choose ids and model names."""
    found = [each for each in differences(sent, got) if each.path not in ("id", "model")]
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0].path}: sent {found[0].recorded}, came {found[0].asked}{more}" if found else ""


class _Upstream(LocalServer):
    """The API behind the gateway: `player` answers."""

    def __init__(self, port: int, player: Player) -> None:
        self._port, self.player = port, player

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.player(scope, receive, send)


async def try_server(
    client: AsyncClient,
    *,
    model: str,
    upstream_port: int | None = None,
    limit: float = LIMIT,
    on_row: OnRow = lambda row, running, total: None,
) -> list[Row]:
    """Test the gateway at the client's address, with at most `limit` seconds per answer.

    With `upstream_port`, recordings are played there: the gateway must use `http://127.0.0.1:PORT` as its Messages API. If
    the first request is not answered with 200, that is the only row. Raises `OSError` if the port is taken.
    """
    plain, rows = shipped_fixtures()["plain"], list[Row]()
    sent, cases = (None, []) if upstream_port is None else (pace_by(PACE)(plain), server_cases())
    ask, secrets = {"model": model, **_ASKED}, Secrets(client.call("POST", "/v1/messages").settings.request.headers)
    to_stream, upstream = {**ask, "stream": True}, _Upstream(upstream_port or 0, Player(plain))

    async def add(judge: Callable[[Recording], Iterable[Row]], body: Mapping[str, Any], case: Case) -> None:
        total = len(_GROUPS) + 5 + len(cases)
        on_row(None, case.name, total)

        async def attempt() -> list[Row]:
            upstream.player = Player(case.recording, **{"speed": 0.0, **case.options})
            return list(judge(await _asked(client, body, limit)))

        for row in await _confirmed(attempt, {} if upstream_port is None else case.sent):
            rows.append(_shown(row, secrets.removed_from_message))  # an error may quote the key
            on_row(rows[-1], "", total)

    def judge_first(got: Recording) -> Iterable[Row]:
        return judge_stream(got) if got.status == 200 else [_compared("an answer", plain, got)]

    def judge_played(case: Case, got: Recording) -> Iterator[Row]:
        by_itself = f"status {got.status}: the gateway did not ask its upstream"
        yield judge_case(case, got) if upstream.player.requests else _row(case.name, by_itself, verdict="open")

    async with contextlib.nullcontext() if upstream_port is None else upstream:
        await add(judge_first, to_stream, Case("an answer", plain, "whole", {}))
        if len(rows) == 1:
            return rows
        await add(lambda got: [judge_message(got, sent)], ask, Case("without stream", plain, "whole", {}))
        bad = {name: ask[name] for name in ask if name != "messages"}
        await add(lambda got: [judge_refusal(got)], bad, Case("a bad request", plain, "whole", {}))
        # Not the first answer: many servers load something then.
        paced = Case("pace", plain, "whole", {"pace": PACE, "speed": 1.0})
        await add(lambda got: [judge_pace(got, sent)], to_stream, paced)
        for case in cases:
            await add(partial(judge_played, case), to_stream, case)
    return rows


async def _asked(client: AsyncClient, body: Mapping[str, Any], limit: float) -> Recording:
    """The decoded answer as it arrived. If there was none, its status is 0, and its name says why."""
    headers = {"accept-encoding": "gzip, deflate"}  # as browsers send it: some gateways compress only then
    call = client.call("POST", "/v1/messages", kind=RawAnswer, body=body, headers=headers, max_retries=0)
    now = asyncio.get_running_loop().time
    reads, started = list[Read](), now()
    with contextlib.closing(call):
        with contextlib.suppress(APIError, TimeoutError):
            async with asyncio.timeout(limit) as timeout:
                answer = await call.open()
                decoder = ContentDecoder(answer.response.headers.get("content-encoding", ""))
                while True:
                    reads += [Read(now() - started, decoder.decode(piece)) for piece in answer.take()]
                    if answer.is_over or answer.bytes_received > MAX_ANSWER_BYTES:
                        break
                    await call.more()
        head, error = call.response, call.exchange.error  # before `close`, which fails the call if it is not complete
        end: End = "clean" if call.exchange.is_over and error is None else "cut"
    fields = {name.lower(): value for name, value in head.headers.items()} if head else {}
    why = f"nothing came within {limit:g} s" if timeout.expired() else str(error)
    return Recording(None, head.status if head else 0, fields, tuple(reads), end, now() - started, why)
