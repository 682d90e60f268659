"""rawsse.replay.conform: what is a right ending of a client, and what a gateway may do to a stream."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.background import PATIENCE
from support.clock import run

from rawsse import AsyncClient
from rawsse.errors import HTTPProtocolError, quote
from rawsse.http1 import ClientConnection, Data, EndOfMessage, Response
from rawsse.relay import Relay
from rawsse.replay import Fault, Read, Recording, conform, faults, shipped_fixtures
from rawsse.replay.conform import (
    FAULTS,
    Case,
    Row,
    Run,
    Verdict,
    Wanted,
    as_columns,
    as_line,
    as_markdown,
    as_text,
    cell,
    client_cases,
    is_good,
    judge_case,
    judge_client,
    judge_message,
    judge_pace,
    judge_refusal,
    judge_stream,
    server_cases,
    table,
    try_client,
    try_server,
)
from rawsse.replay.player import read_body
from rawsse.replay.proxy import RecordingProxy
from rawsse.replay.variants import REWRITES, by_event, rewrite_by
from rawsse.server import Receive, Scope, Send, Server

PLAIN = shipped_fixtures()["plain"]
_MESSAGE = PLAIN.message()
assert _MESSAGE is not None
MESSAGE = _MESSAGE
TEXT = MESSAGE["content"][0]["text"]
WHOLE = "A server"
JSON = {"content-type": "application/json"}


def with_body(*events: bytes, **fields: Any) -> Recording:
    return replace(PLAIN, reads=(Read(1.0, b"".join(events)),), **fields)


def changed(old: bytes, new: bytes, recording: Recording = PLAIN) -> Recording:
    assert old in recording.body
    return replace(recording, reads=(Read(1.0, recording.body.replace(old, new)),))


# --- Cells and tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        ((WHOLE, "end_turn", WHOLE), "whole"),
        ((WHOLE, "stop", WHOLE, "", 2), "whole, 2 requests"),
        ((WHOLE, None, WHOLE), "no end, no error"),
        ((WHOLE, "other", WHOLE), "no end, no error"),
        (("A ser", None, WHOLE), "cut, no error"),
        (("A ser", "end_turn", WHOLE), "altered, no error"),
        (("A A server", "end_turn", WHOLE), "altered, no error"),
        (("", None, WHOLE), "nothing, no error"),
        (("", None, ""), "nothing, no error"),
        (("A ser", None, WHOLE, "`ReadError`"), "`ReadError`"),
        ((WHOLE, "end_turn", WHOLE, "`ReadError`"), "`ReadError`"),
        (("", None, WHOLE, "`ReadTimeout`", 1, 599.999999), "`ReadTimeout` after 600 s"),
        (("", None, WHOLE, "exit 18", 1, 4.9), "exit 18"),
    ],
)
def test_a_cell_says_what_became_of_the_answer(heard: Any, words: str) -> None:
    assert cell(*heard) == words


ROWS = [Row("a", "right", "whole"), Row("bbb", "wrong", "x|y"), Row("c", "silent", "cut"), Row("d", "open", "")]


def test_a_table_in_markdown() -> None:
    assert table(["a", "b"], [["1", "2|3"]]) == "| a | b |\n| --- | --- |\n| 1 | 2\\|3 |\n"
    assert "| `bbb` | wrong | x\\|y |\n| `c` | ⚠ | cut |\n" in as_markdown(ROWS)


def test_clients_stand_side_by_side_in_a_table() -> None:
    other = [row._replace(what=f"{row.name}: x") for row in ROWS]
    assert as_columns({"mine": ROWS, "`other`": other}).splitlines()[:4] == [
        "| tried | mine | `other` |",
        "| --- | --- | --- |",
        "| `a` | whole | a: x |",
        "| `bbb` | x\\|y | bbb: x |",
    ]
    assert as_columns({"mine": ROWS}).splitlines()[4] == "| `c` | ⚠ cut |"


def test_a_table_as_text_is_aligned_and_counts() -> None:
    assert as_text(ROWS).splitlines() == [
        "ok     a                               whole",
        "wrong  bbb                             x|y",
        "⚠      c                               cut",
        "-      d",
        "ok     the ending that this row allows: some rows allow both the whole answer and an error",
        "wrong  another ending, and an error or the result says so",
        "⚠      not the whole answer came out, and no error said so",
        "-      not judged: nothing in a stream tells this, or the client may go on waiting",
        "1 right, 1 wrong, 1 ⚠ taken for whole, 1 not judged",
    ]


def test_wrong_and_silent_rows_are_not_good_and_open_ones_are() -> None:
    assert [is_good([row]) for row in ROWS] == [True, False, False, True]


# --- Clients: what is judged -----------------------------------------------------------------------------------------

CUT = TEXT[:19]
ALL, REST = (quote(text, 40) for text in (TEXT, TEXT[19:]))
BAD = f"altered, no error: at character 19 it printed {quote('!!' + TEXT[21:], 40)}, not {REST}"


@pytest.mark.parametrize(
    ("wanted", "given", "verdict", "words"),
    [
        ("whole", Run(0, TEXT, ""), "right", "whole"),
        ("whole", Run(0, f"\n{TEXT}\n", ""), "right", "whole"),
        ("whole", Run(0, TEXT, "", 2), "right", "whole, 2 requests"),
        ("whole", Run(0, CUT, ""), "silent", f"altered, no error: at character 19 it printed '', not {REST}"),
        ("whole", Run(0, "", ""), "silent", f"nothing, no error: at character 0 it printed '', not {ALL}"),
        (
            "whole",
            Run(0, CUT + "!!" + TEXT[21:], ""),
            "silent",
            BAD,
        ),
        ("whole", Run(1, TEXT, "ReadError: oh"), "wrong", "exit 1: ReadError: oh"),
        ("whole", Run(None, TEXT, ""), "wrong", "hangs"),
        ("whole", Run(0, TEXT, "", 0), "wrong", "exit 0: it did not ask ANTHROPIC_BASE_URL"),
        (
            "failed",
            Run(2, "", "can't open file", 0),
            "wrong",
            "exit 2: it did not ask ANTHROPIC_BASE_URL: can't open file",
        ),
        ("failed", Run(1, CUT, ""), "right", "exit 1"),
        ("failed", Run(-9, CUT, ""), "right", "exit -9"),
        ("failed", Run(0, CUT, ""), "silent", "cut, no error"),
        ("failed", Run(0, TEXT, ""), "silent", "no end, no error"),
        ("failed", Run(0, "", ""), "silent", "nothing, no error"),
        ("failed", Run(None, "", ""), "wrong", "hangs"),
        ("either", Run(0, TEXT, ""), "right", "whole"),
        ("either", Run(2, "", ""), "right", "exit 2"),
        ("either", Run(0, "", ""), "silent", "nothing, no error"),
        ("waits", Run(None, "", ""), "open", "hangs"),
        ("waits", Run(1, "", "", 1, None, "`ReadTimeout`", 600.0), "right", "`ReadTimeout` after 600 s"),
        ("whole", Run(0, TEXT, "", stop=None), "silent", "no end, no error"),
        ("whole", Run(1, CUT, "", error="`ReadError`"), "wrong", "`ReadError`"),
        ("failed", Run(0, TEXT, "", stop="end_turn"), "right", "whole"),
        ("failed", Run(1, CUT, "", error="`ReadError`"), "right", "`ReadError`"),
        ("waits", Run(1, "", ""), "right", "exit 1"),
        ("waits", Run(0, CUT, ""), "silent", "cut, no error"),
        ("open", Run(0, TEXT[1:], ""), "open", "altered, no error"),
        ("open", Run(1, "", ""), "open", "exit 1"),
    ],
)
def test_an_ending_of_a_client(wanted: Wanted, given: Run, verdict: Verdict, words: str) -> None:
    assert judge_client(Case("c", PLAIN, wanted, {}), given) == Row("c", verdict, words)


def test_a_row_is_one_line_and_not_too_long() -> None:
    (row,) = asyncio.run(try_client(command("import sys; sys.exit('a  b ' + 'x' * 500)")))
    assert row.what.startswith("exit 1: it did not ask ANTHROPIC_BASE_URL: a b xxx")
    assert len(row.what) == conform.MAX_ROW_CHARS + 1


def test_the_first_answer_is_a_whole_one_without_a_fault_and_no_name_comes_twice() -> None:
    cases = client_cases()
    assert (cases[0].wanted, cases[0].options) == ("whole", {})
    assert len({case.name for case in cases}) == len(cases)


def test_a_mistake_with_utf_8_spoils_only_the_rows_that_cut_it_and_the_forms_of_gateways_are_in_ascii() -> None:
    pieces = [case for case in client_cases() if "segments" in case.options]
    forms = [case for case in client_cases() if "rewrite" in case.options]
    assert len(pieces) == 4
    assert not any(case.recording.body.isascii() for case in pieces)
    assert {case.options["rewrite"] for case in forms} == REWRITES.keys()
    assert all(case.recording.body.isascii() for case in forms)


def test_every_kind_of_fault_is_tried() -> None:
    assert {Fault.parse(spec).kind for spec in FAULTS} == faults.FAULTS.keys()


def test_a_fault_that_cuts_is_never_right_as_a_whole_answer_unless_the_message_has_ended() -> None:
    cutting = {spec for spec in FAULTS if Fault.parse(spec).cuts}
    assert {spec for spec in cutting if FAULTS[spec] not in ("failed", "waits")} == {
        "no-last-chunk",
        "wrong-content-length=+1000",
    }


# --- Clients: driving them -------------------------------------------------------------------------------------------

READER = """
import http.client, json, os, sys
url = os.environ["ANTHROPIC_BASE_URL"].removeprefix("http://")
body = json.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "stream": True})
connection = http.client.HTTPConnection(url)
connection.request("POST", "/v1/messages", body, {"x-api-key": os.environ["ANTHROPIC_API_KEY"]})
for line in connection.getresponse().read().decode().split("\\n"):
    if line.startswith("data: ") and "text_delta" in line:
        sys.stdout.write(json.loads(line[6:])["delta"]["text"])
"""
"""It finds a body that is cut, and knows neither errors nor message_stop."""


TEXT_ONLY = """
import json, os, urllib.request
url, body = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", {"model": "m", "max_tokens": 9, "messages": [], "stream": True}
for line in urllib.request.urlopen(url, json.dumps(body | ASKED).encode()):
    if line.startswith(b"data: ") and b'"content_block_delta"' in line:
        print(json.loads(line[6:])["delta"]["text"], end="")
"""
"""It fails for every delta that is not text."""


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ({"system": "tools"}, []),
        ({"thinking": {}}, ["thinking", "pings"]),
        ({"tools": []}, ["tools"]),
        ({"messages": [{"content": [{"type": "document", "citations": {}}]}]}, ["citations"]),
    ],
)
def test_a_client_may_fail_on_blocks_that_it_did_not_ask_for(asked: dict[str, Any], wrong: list[str]) -> None:
    program = command(TEXT_ONLY.replace("ASKED", repr(asked)))
    rows = asyncio.run(try_client(program, only=("thinking", "pings", "tools", "citations"), jobs=2))
    assert len(rows) == 5
    assert {row.name for row in rows if row.verdict != "right"} == {*wrong}


def command(code: str) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", code]


def of_names(*names: str) -> Callable[[], list[Case]]:
    cases = [case for case in client_cases() if case.name in names]
    return lambda: cases


def test_a_client_is_driven_through_answers_and_its_wrong_endings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conform, "client_cases", of_names("plain", "close@event=5", "end@event=5"))
    seen: list[tuple[Row | None, str, int]] = []
    rows = asyncio.run(try_client(command(READER), jobs=2, on_row=lambda *told: seen.append(told)))
    assert [(row.name, row.verdict) for row in rows] == [
        ("plain", "right"),
        ("close@event=5", "right"),
        ("end@event=5", "silent"),
    ]
    assert [row for row, _, _ in seen if row] == rows
    assert {count for _, _, count in seen} == {3}
    # The first runs alone; of the others, the one that began first is the one that runs, until it is ready.
    assert seen[:2] == [(None, "plain", 3), (rows[0], "", 3)]
    assert [running for _, running, _ in seen[2:4]] == ["close@event=5"] * 2
    assert seen[-1] == (rows[-1], "", 3)


HANGS, FAILS, CUTS, RIGHT = Run(None, "", ""), Run(1, "", "no"), Run(0, CUT, ""), Run(0, TEXT, "")
ALTERED = f"altered, no error: at character 19 it printed '', not {REST}"


@pytest.mark.parametrize(
    ("runs", "verdict", "words"),
    [
        ([RIGHT], "right", "whole"),
        ([HANGS, RIGHT], "right", "whole; the first time hangs"),
        ([FAILS, RIGHT], "right", "whole; the first time exit 1: no"),
        ([CUTS, RIGHT], "right", f"whole; the first time {ALTERED}"),
        ([HANGS, HANGS], "wrong", "hangs"),
        ([HANGS, FAILS], "wrong", "exit 1: no"),
        ([CUTS, CUTS], "silent", ALTERED),
    ],
)
def test_a_client_is_blamed_only_for_what_goes_wrong_twice(
    runs: list[Run], verdict: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = list(runs)

    async def next_run(command: object, base_url: str, limit: float) -> Run:
        async with AsyncClient(base_url=base_url, api_key="any") as client:  # it is counted
            await client.call("GET", "/v1/models", max_retries=0).open()
        return left.pop(0)

    monkeypatch.setattr(conform, "client_cases", of_names("plain"))
    monkeypatch.setattr(conform, "_run", next_run)
    (row,) = asyncio.run(try_client(["any"]))
    assert (row.name, row.verdict, row.sent) == ("plain", verdict, {"recording": "plain"})
    assert as_line(row).endswith(f"  {words}")
    assert bool(row.first) is (len(runs) == 2)
    assert left == []


def test_a_client_that_fails_with_a_whole_answer_is_tried_no_further() -> None:
    (row,) = asyncio.run(try_client(command("import sys; sys.exit('no such module')")))
    assert (row.verdict, row.what) == ("wrong", "exit 1: it did not ask ANTHROPIC_BASE_URL: no such module")


NODE_ERROR = """
file:///a.mjs:1
throw new Error("x")
      ^

TypeError: fetch failed
    at node:internal/deps/undici/undici:13510:13 {
  [cause]: Error: connect ECONNREFUSED 127.0.0.1:1
      at new NodeError (node:internal/errors:405:5) {
    code: 'ECONNREFUSED'
  }
}

Node.js v20.20.2
"""


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("a\nb: Error\nhttpx.ReadTimeout: slow\n", "httpx.ReadTimeout: slow"),
        (NODE_ERROR, "  [cause]: Error: connect ECONNREFUSED 127.0.0.1:1"),
        ("Node.js v20.20.2\n", "Node.js v20.20.2"),
        ("\n", "it wrote no error"),
    ],
)
def test_of_standard_error_the_line_is_kept_that_has_the_error(written: str, said: str) -> None:
    code = f"import sys; sys.stderr.write({written!r})"
    assert asyncio.run(conform._run(command(code), "http://127.0.0.1:1", 10)).said == said


@pytest.mark.parametrize("name", ["error-after-content", "cut"])
def test_all_of_the_text_of_an_answer_that_failed_is_a_part(name: str) -> None:
    (given,) = (case for case in client_cases() if case.name == name)
    message = given.recording.fold()[0].message
    assert message is not None
    assert judge_client(given, Run(0, message.text, "")) == Row(name, "silent", "cut, no error")
    assert judge_client(given, Run(1, message.text, "")).verdict == "right"


def test_a_client_that_cannot_be_run_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(try_client(["/nonexistent/client"]))


def test_the_client_gets_no_key_and_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "https_proxy", "ALL_PROXY", "OTHER"):
        monkeypatch.setenv(name, "sk-secret")
    code = "import os; print(*sorted(n for n, v in os.environ.items() if v == 'sk-secret'), os.environ['ANTHROPIC_API_KEY'])"
    assert asyncio.run(conform._run(command(code), "http://127.0.0.1:1", 10)).text == "OTHER any\n"


def has_ended(pid: int) -> bool:
    """The process has ended, or does so soon."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE)[0])
    finally:
        os.close(descriptor)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells the end of a process that is no child")
def test_a_client_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
print("begun", flush=True)
time.sleep(60)
"""
    got = asyncio.run(conform._run(command(code), "http://127.0.0.1:1", 1))
    assert (got.code, got.text) == (None, "begun\n")
    assert has_ended(int((tmp_path / "pid").read_text()))


def test_no_more_than_a_limit_is_read_of_what_a_client_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conform, "MAX_OUTPUT_BYTES", 10)
    assert asyncio.run(conform._run(command("print('x' * 1000)"), "http://127.0.0.1:1", 10)).text == "x" * 10


# --- Servers: what is judged -----------------------------------------------------------------------------------------


def wrong(rows: Iterable[Row]) -> list[str]:
    return [re.split(r"[: ]", row.name)[0] for row in rows if row.verdict != "right"]


def test_a_recording_has_nothing_wrong() -> None:
    assert wrong(judge_stream(PLAIN)) == []


EVENTS = by_event(PLAIN.body)


@pytest.mark.parametrize(
    ("got", "named"),
    [
        (replace(PLAIN, headers={"content-type": "text/event-stream", "content-encoding": "gzip"}), ["compression"]),
        (changed(b"event: ping\n", b": ping\n"), ["event", "pings"]),
        (changed(b"event: message_start\n", b""), ["event"]),
        (changed(b'"output_tokens"', b'"output"'), ["message"]),
        (with_body(*EVENTS[:-2]), ["stream"]),
        (with_body(*EVENTS[:-1], EVENTS[-1].rstrip()), ["sse"]),
        (with_body(EVENTS[0], *EVENTS[2:]), ["event"]),
        (replace(PLAIN, headers={"content-type": "text/plain"}), []),  # a warning
        (changed(b'"output_tokens"', b'"sk-ant-api03-AbCdEf0123456789_xYzQQ": 1, "output_tokens"'), ["secret"]),
        (with_body(*EVENTS[:5], b'event: error\ndata: {"type":"error","error":{"type":"x"}}\n\n'), ["event"]),
    ],
)
def test_a_group_of_rules_names_what_is_wrong_with_a_stream(got: Recording, named: list[str]) -> None:
    assert wrong(judge_stream(got)) == named


def paced(*times: float) -> Recording:
    """A character of text at each of these times."""
    event = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}\n\n'
    return Recording(reads=tuple(Read(t, event) for t in times))


def tenths(*times: int) -> Recording:
    return paced(*(each / 10 for each in times))


@pytest.mark.parametrize(
    ("got", "sent", "verdict"),
    [
        (paced(0.4, 1.4), paced(0.3, 1.3), "right"),
        (paced(1.4, 1.41), paced(0.3, 1.3), "wrong"),
        (paced(1.4, 1.4), paced(0.3, 1.3), "wrong"),
        (paced(), paced(0.3, 1.3), "wrong"),
        (tenths(4, 4, 4, 4, 4, 9, 9, 9, 9, 9), tenths(*range(10)), "wrong"),  # two in five wait for 0.3 s or more
        (tenths(1, 2, 7, 7, 7, 7, 7, 8), tenths(*range(8)), "right"),  # one pause of 0.4 s, and what waited then
        (paced(0.5, 2.0), None, "right"),
        (paced(2.0, 2.001), None, "wrong"),
        (paced(0.1, 0.101), None, "open"),
    ],
)
def test_events_that_are_held_back(got: Recording, sent: Recording | None, verdict: str) -> None:
    assert judge_pace(got, sent).verdict == verdict


def in_json(body: str, status: int = 200) -> Recording:
    return Recording(status=status, headers=JSON, reads=(Read(0.0, body.encode()),))


MINIMAL = '{"id":"m","type":"message","role":"assistant","content":[],"model":"x"}'


@pytest.mark.parametrize(
    ("got", "sent", "verdict", "words"),
    [
        (in_json(MINIMAL), None, "right", ""),
        (PLAIN, None, "wrong", "not a message in JSON"),
        (in_json("{}"), None, "wrong", "not a message in JSON"),
        (in_json("[]", 502), None, "wrong", "status 502, application/json"),
        (in_json(MINIMAL), PLAIN, "wrong", "content[0]: sent {"),
    ],
)
def test_an_answer_without_stream(got: Recording, sent: Recording | None, verdict: str, words: str) -> None:
    row = judge_message(got, sent)
    assert row.verdict == verdict
    assert words in row.what


def error(kind: str, status: int, **headers: str) -> Recording:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    body = f'{{"type":"error","error":{{"type":"{kind}","message":"No."}}}}'
    return replace(in_json(body, status), headers=JSON | fields)


def test_a_bad_request_is_refused_as_the_api_does() -> None:
    assert judge_refusal(error("invalid_request_error", 400)).verdict == "right"
    assert judge_refusal(error("api_error", 400)).verdict == "wrong"
    assert judge_refusal(error("invalid_request_error", 500)).verdict == "wrong"
    row = judge_refusal(in_json('{"detail":"no"}', 422))
    assert row.what == "status 422, no error type, instead of status 400, invalid_request_error"
    assert judge_refusal(in_json('{"type":"error","error":"no"}', 400)).verdict == "wrong"


def case(name: str) -> Case:
    (found,) = [each for each in server_cases() if each.name == name]
    return found


PINGS = shipped_fixtures()["pings"]
COMMENTS = rewrite_by("comments")(shipped_fixtures()["unicode"])
NO_ANSWER = Recording(status=0, headers={}, end="cut")
ERROR_EVENT = b'event: error\ndata: {"type":"error","error":{"type":"%s","message":"m"}}\n\n'


@pytest.mark.parametrize(
    ("name", "got", "verdict", "words"),
    [
        ("plain", PLAIN, "right", "byte for byte"),
        ("plain", changed(b'"model":"', b'"model":"other-'), "right", "the same message in other bytes"),
        ("plain", changed(b" server", b" Server"), "wrong", "content[0].text: sent "),
        ("plain", changed(b'"service_tier":"standard"', b'"x":1'), "wrong", "usage.service_tier: sent "),
        ("plain", changed(b"event: message_stop\n", b""), "wrong", "event-name"),
        ("plain", with_body(*EVENTS[:-2]), "wrong", "stream-end"),
        ("plain", in_json("{}", 502), "wrong", "status 502: '{}'"),
        ("plain", NO_ANSWER, "wrong", "no answer"),
        ("pings", changed(b'event: ping\ndata: {"type": "ping"}\n\n', b"", PINGS), "right", ", and 0 of "),
        ("unicode, rewrite comments", COMMENTS, "right", "byte for byte"),
        ("unicode, rewrite comments", shipped_fixtures()["unicode"], "right", "the same message in other bytes"),
        ("status=529", error("overloaded_error", 529), "right", "status 529, overloaded_error"),
        ("status=529", error("overloaded_error", 500), "wrong", "instead of status 529"),
        ("status=529", error("api_error", 529), "wrong", "instead of overloaded_error"),
        ("status=529", with_body(ERROR_EVENT % b"overloaded_error"), "wrong", "instead of status 529"),
        ("status=529", NO_ANSWER, "wrong", "no answer"),
        ("status=429,retry-after=7", error("rate_limit_error", 429, retry_after="7"), "right", "rate_limit_error"),
        ("status=429,retry-after=7", error("rate_limit_error", 429), "wrong", "Retry-After is lost"),
        ("html", in_json("<p>", 502), "right", "status 502"),
        ("error-before-content", with_body(ERROR_EVENT % b"overloaded_error"), "right", "overloaded_error"),
        ("error-before-content", error("overloaded_error", 529), "right", "status 529"),
        ("error-after-content", with_body(*EVENTS[:5], ERROR_EVENT % b"api_error"), "right", "status 200, api_error"),
        ("error-after-content", with_body(*EVENTS[:5], ERROR_EVENT % b"x"), "wrong", "instead of api_error"),
        ("error-after-content", with_body(*EVENTS[:5]), "wrong", "instead of api_error"),
        ("close@event=5", with_body(*EVENTS[:5], end="cut"), "right", "truncated"),
        ("close@event=5", with_body(*EVENTS[:5], ERROR_EVENT % b"api_error"), "right", "api_error"),
        ("close@event=5", with_body(*EVENTS[:5], b"event: error\ndata: no\n\n"), "right", "status 200"),  # a dialect's
        ("close@event=5", with_body(*EVENTS[:5]), "wrong", "the upstream was cut, the response ended as if whole"),
        ("reset@event=5", with_body(*EVENTS[:5]), "wrong", "the upstream was cut, the response ended as if whole"),
        ("reset@event=5", in_json("<p>", 502), "right", "status 502"),
        ("cut", with_body(*EVENTS[:5]), "wrong", "the upstream was cut, the response ended as if whole"),
        ("end@event=5", with_body(*EVENTS[:5]), "right", "truncated"),  # as the upstream's
        ("close@event=5", with_body(*EVENTS[:5], *EVENTS[-3:]), "silent", "ends like a whole one"),
        ("cut", with_body(*EVENTS[:5], *EVENTS[-3:]), "silent", "ends like a whole one"),
    ],
)
def test_what_came_through_a_gateway(name: str, got: Recording, verdict: str, words: str) -> None:
    row = judge_case(case(name), got)
    assert row.verdict == verdict, row
    assert words in row.what


# --- Servers: asking them --------------------------------------------------------------------------------------------


class Unobserved:
    """A recorder that records nothing."""

    def begin(self, request: object, clock: object) -> None:
        """Nothing is observed."""

    def flush(self) -> None:
        """Nothing waits."""


Change = Callable[[Any], Any]


class Gateway(RecordingProxy):
    """Passes requests on, and answers as they come; `change` may change or hold back (None) a message of ASGI."""

    change: Change = staticmethod(lambda message: message)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def changed(message: Any) -> None:
            if (other := self.change(message)) is not None:
                await send(other)

        await super().__call__(scope, receive, changed)


def in_two(recording: Recording) -> Recording:
    """One half a second after the other. With sockets, each moment takes a little of real time."""
    half = len(recording.body) // 2
    return replace(recording, reads=(Read(0.3, recording.body[:half]), Read(1.3, recording.body[half:])))


def of_server(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    cases = [case(name) for name in names]
    monkeypatch.setattr(conform, "server_cases", lambda: cases)
    monkeypatch.setattr(conform, "PACE", in_two)


def tried(
    change: Change | None = None, key: str = "any", *, is_live: bool = False, kind: type[Gateway] = Gateway
) -> list[Row]:
    """The rows of a gateway before recordings; `is_live`: its upstream is not the tool's."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]

    async def story() -> list[Row]:
        gateway = kind(Unobserved(), f"http://127.0.0.1:{port}")
        gateway.change = change or gateway.change
        async with (
            gateway,
            Server(gateway, port=0) as server,
            AsyncClient(base_url=server.base_url, api_key=key, trust_env=False) as client,
        ):
            return await try_server(client, model="m", upstream_port=None if is_live else port)

    return run(story())


def test_a_gateway_that_changes_nothing_is_right() -> None:
    rows = tried()
    assert [row for row in rows if row.verdict != "right"] == []
    assert {case.name for case in server_cases()} < {row.name for row in rows}
    assert Row("plain", "right", "byte for byte", "", {"recording": "plain"}) in rows
    (pace,) = [row for row in rows if row.name == "pace"]
    assert pace.sent == {"recording": "plain", "pace": conform.PACE, "speed": 1.0}


def test_a_gateway_that_holds_events_back_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    of_server(monkeypatch, "plain")
    held = bytearray()

    def hold(message: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if message["type"] != "http.response.body":
            held.clear()  # an answer that was cut may have left something
            return message
        held.extend(message.get("body", b""))
        if message.get("more_body"):
            return None
        return {**message, "body": bytes(held)}

    assert wrong(tried(hold)) == ["pace"]


@pytest.mark.parametrize("size", [2048, 4096])
def test_a_gateway_with_a_buffer_of_a_few_events_is_told(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conform, "server_cases", list[Case])
    held = bytearray()

    def buffer(message: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if message["type"] != "http.response.body":
            return message
        held.extend(message.get("body", b""))
        if message.get("more_body") and len(held) < size:
            return None
        sent = bytes(held)
        held.clear()
        return {**message, "body": sent}

    rows = tried(buffer)
    assert wrong(rows) == ["pace"]
    assert rows[-1].what.endswith(": they are held back")


def test_a_gateway_that_ends_a_response_well_after_its_upstream_was_cut_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of_server(monkeypatch, "cut", "reset@event=5", "close@event=5", "end@event=5", "html")

    class Tidy(Gateway):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await super().__call__({**scope, "extensions": {}}, receive, send)
            except ConnectionAbortedError:
                await send({"type": "http.response.body"})

    rows = [row for row in tried(kind=Tidy) if row.verdict != "right"]
    assert [row.name for row in rows] == ["cut", "reset@event=5", "close@event=5"]
    assert {row.verdict for row in rows} == {"wrong"}


class Late(Gateway):
    """Reads an answer a moment after its beginning has come, and ends what it has begun to pass on as if it was whole."""

    def __init__(self, recorder: Any, base_url: str) -> None:
        super().__init__(recorder, base_url)
        self.port = int(base_url.rpartition(":")[2])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http, (reader, writer) = ClientConnection("a"), await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(http.send_request("POST", "/v1/messages", [], await read_body(receive, send, 10_000) or b""))
        await asyncio.sleep(0.1)
        status, event = 502, None
        with contextlib.suppress(ConnectionError, HTTPProtocolError):
            while not isinstance(event, EndOfMessage):
                if (event := http.next_event()) is None:
                    http.receive_data(await reader.read(65536))
                elif isinstance(event, Response):
                    status, kind = event.status, event.headers.get("content-type") or ""
                    fields = [(b"content-type", kind.encode())]
                    await send({"type": "http.response.start", "status": status, "headers": fields})
                elif isinstance(event, Data):
                    await send({"type": "http.response.body", "body": event.data, "more_body": True})
        writer.close()
        if status == 502:
            await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})


def test_a_cut_comes_after_the_gateway_has_passed_on_what_came_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    of_server(
        monkeypatch, "cut", "error-after-content", "reset@event=5", "close@event=5", "end@event=5", "end@event=-2"
    )
    rows = {row.name: row for row in tried(kind=Late)[-6:]}
    assert all(row.what.startswith("status 200") for row in rows.values())
    # Without the pause, asyncio's reader drops what it has not given when the RST comes: the gateway would begin no answer.
    assert [name for name, row in rows.items() if row.verdict == "wrong"] == ["cut", "reset@event=5", "close@event=5"]


def test_a_relay_is_right_about_every_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]

    async def story() -> list[Row]:
        async with (
            AsyncClient(base_url=f"http://127.0.0.1:{port}", api_key="any", trust_env=False) as upstream,
            Server(Relay(upstream, model="m"), port=0) as server,
            AsyncClient(base_url=server.base_url, api_key="any", trust_env=False) as client,
        ):
            return await try_server(client, model="m", upstream_port=port)

    assert wrong(run(story())) == []


def test_a_gateway_that_gives_every_answer_an_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    of_server(monkeypatch, "plain", "end@event=5", "end@event=-2")

    def end(message: Mapping[str, Any]) -> Mapping[str, Any]:
        is_end = message["type"] == "http.response.body" and not message.get("more_body")
        return {**message, "body": b"".join(EVENTS[-2:])} if is_end else message

    rows = tried(end)
    assert [row.name for row in rows if row.verdict == "silent"] == ["end@event=5", "end@event=-2"]


def test_a_gateway_that_is_slow_with_its_first_answer_only_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    of_server(monkeypatch, "plain")
    answers: list[str] = []

    class Slow(Gateway):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def late(message: Any) -> None:
                if answers.count("http") == 1 and message["type"] == "http.response.start":
                    await asyncio.sleep(10)
                await send(message)

            answers.append(scope["type"])
            await super().__call__(scope, receive, late)

    assert wrong(tried(kind=Slow)) == []


def test_an_answer_for_which_the_gateway_did_not_ask_its_upstream_is_not_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of_server(monkeypatch, "plain", "end@event=5")
    answers: list[str] = []

    class Cache(Gateway):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            answers.append(scope["type"])
            if answers.count("http") <= 5:  # those to the first four requests, and `plain`
                await super().__call__(scope, receive, send)
            else:
                await send({"type": "http.response.start", "status": 429, "headers": []})
                await send({"type": "http.response.body", "body": b"later"})

    assert [row for row in tried(kind=Cache) if row.verdict != "right"] == [
        Row(
            "end@event=5",
            "open",
            "status 429: the gateway did not ask its upstream",
            sent={"recording": "plain", "faults": ["stall=0.2@event=5", "end@event=5"]},
        )
    ]


def test_a_gateway_is_blamed_only_for_what_goes_wrong_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    of_server(monkeypatch, "plain", "unicode")
    answers: list[str] = []

    class Flaky(Gateway):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            answers.append(scope["type"])
            is_flaky = answers.count("http") in (1, 6)  # the first answer, and the first of `plain`

            async def other(message: Any) -> None:
                await send({**message, "status": 503} if is_flaky and "status" in message else message)

            await super().__call__(scope, receive, other)

    rows = tried(kind=Flaky)
    assert wrong(rows) == []
    assert "  byte for byte; the first time status 503: " in as_line(rows[-2])
    assert rows[-2].first.startswith("status 503: ")
    assert rows[-1] == Row("unicode", "right", "byte for byte", sent={"recording": "unicode"})


def test_an_answer_without_end_is_read_up_to_a_limit_and_counts_as_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conform, "MAX_ANSWER_BYTES", 500)
    of_server(monkeypatch)
    assert "stream" in wrong(tried())


def test_a_gateway_without_its_upstream_is_one_row_that_does_not_show_the_key() -> None:
    (row,) = tried(key="sk-secret-secret", is_live=True)
    assert (row.name, row.verdict) == ("an answer", "wrong")
    assert row.what.startswith("status 502: ")


def test_a_gateway_that_cannot_be_reached_is_one_row_that_says_why() -> None:
    async def story() -> list[Row]:
        async with AsyncClient(base_url="http://127.0.0.1:1", api_key="any", trust_env=False) as client:
            return await try_server(client, model="m")

    (row,) = asyncio.run(story())
    assert row[:3] == ("an answer", "wrong", "no answer: cannot connect to http://127.0.0.1:1: Connection refused")


def test_a_gateway_that_does_not_answer_in_time_is_one_row_that_says_so() -> None:
    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1000)

    async def story() -> list[Row]:
        async with (
            Server(wait, port=0) as server,
            AsyncClient(base_url=server.base_url, api_key="any", trust_env=False) as client,
        ):
            return await try_server(client, model="m", limit=5)

    (row,) = run(story())
    assert row.what == "no answer: nothing came within 5 s"


def test_a_key_that_a_gateway_quotes_is_not_shown() -> None:
    def quote(message: Mapping[str, Any]) -> Mapping[str, Any]:
        return (
            {**message, "body": message["body"].replace(b"cannot", b"sk-secret-secret")[:-10]}
            if message.get("body")
            else message
        )

    (row,) = tried(quote, key="sk-secret-secret", is_live=True)
    assert "sk-secret" not in row.what + row.first
    assert "x-api-key" in row.what
    assert row.sent == {}


@pytest.mark.parametrize("before", range(conform.MAX_ROW_CHARS - 30, conform.MAX_ROW_CHARS, 6))
def test_nor_is_its_beginning_where_the_row_is_cut(before: int) -> None:
    def quote(message: Mapping[str, Any]) -> Mapping[str, Any]:
        headers = [field for field in message.get("headers", ()) if field[0].lower() != b"content-length"]
        return {**message, "headers": headers, "body": message.get("body") and b"x" * before + b"sk-secret-secret" * 9}

    (row,) = tried(quote, key="sk-secret-secret", is_live=True)
    assert "sk-s" not in row.what + row.first
    assert row.what.startswith("status 502: 'xxx")
    assert len(row.what) <= conform.MAX_ROW_CHARS + 1
