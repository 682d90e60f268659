"""What seven clients make of every fault: run here, judged and tabled by `rawsse.replay.conform`, kept in `fixtures/README.md`.

This test writes the tables there, and compares them:

    RAWSSE_WRITE_TABLE=1 python -m pytest tests/interop/test_fault_matrix.py     # writes what the clients do now

Clients in Python share their loop with the player, and time is virtual: their own time limits, which they have by default, are
waited for. So are those of Node, whose timers run a hundred times as fast. Others are stopped after `LIMIT` real seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
from support.background import Background
from support.clock import run
from support.command import ROOT
from support.fault_matrix import MADE_WITH, difference, put, taken

from rawsse.replay import Fault, ReplayServer, faults
from rawsse.replay.conform import FAULTS, Case, Row, Run, as_columns, client_cases, judge_client

from .conftest import NODE_MODULES
from .replay_clients import ASYNC_CLIENTS, NODE_CLIENTS, NODE_PACKAGES, QUESTION, Call, Heard, curl, hear, run_node
from .stack import recorded, text

anthropic = pytest.importorskip("anthropic", reason="the official SDK: the extra `interop`")
pytest.importorskip("httpx", reason="the extra `interop`")

pytestmark = pytest.mark.real

README = ROOT / "fixtures" / "README.md"

COLUMNS: Mapping[str, str] = {
    "rawsse": "rawsse",
    "python-sdk": "`anthropic`, Python",
    "node-sdk": "`@anthropic-ai/sdk`, Node",
    "ai-sdk": "`@ai-sdk/anthropic`",
    "httpx": "`httpx`",
    "curl": "`curl -N`",
    "fetch": "`fetch`, Node",
}
"""The clients, from those that know the API to those that know only HTTP."""

KNOWING = tuple(COLUMNS)[:4]
"""Those that try again by themselves."""

CASES: Mapping[str, Case] = {case.name: case for case in client_cases() if case.name in ("plain", *FAULTS)}
"""The rows of `rawsse conform client` that play `plain` whole, and with each fault."""

ONCE: Sequence[str] = tuple(CASES)

AGAIN: Sequence[str] = (
    "status=529",
    "status=529 x1",
    "status=429,retry-after=1 x1",
    "status=401 x1",
    "html x1",
    "html=200 x1",
    "reset@head x1",
    "close@head x1",
    "stall@head x1",
    "close@event=0 x1",
    "stall@event=0 x1",
    "close@event=1 x1",
    "error@event=0 x1",
    "close@event=5 x1",
    "error@event=5 x1",
    "wrong-content-length=-1000 x1",
)
"""The same, with the retries that each client has by default. `x1`: only the first request has the fault."""

LIMIT = 1.5
"""Real seconds after which a client that is not in this process is taken to wait for ever."""

NODE_LIMIT = 15.0
"""The same in Node: there, it is 1500 seconds."""

Result: TypeAlias = tuple[Heard, int]
"""What a client heard, and how many requests the server saw."""


class Matrix(NamedTuple):
    """By fault and client: with no retries, and with those that each client has by default."""

    once: dict[tuple[str, str], Result]
    again: dict[tuple[str, str], Result]


async def _at_once(_: float) -> None:
    """No silence of a fault is waited for: it is enough that each byte comes by itself."""
    await asyncio.sleep(0)


def case_of(spec: str) -> Case:
    """The row of `rawsse conform`, or one that it does not have: there, both endings are allowed."""
    return CASES.get(spec) or Case(spec, recorded("plain"), "either", {"faults": [spec]})


def server(spec: str) -> ReplayServer:
    case = case_of(spec)
    return ReplayServer(case.recording, **case.options, sleep=_at_once)


def is_stall(spec: str) -> bool:
    return spec.startswith("stall")


# --- Running ---------------------------------------------------------------------------------------------------------


async def in_this_process(specs: Sequence[str], clients: Sequence[str], retries: int | None) -> dict[Any, Result]:
    found: dict[Any, Result] = {}
    http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
    async with anthropic.AsyncAnthropic(api_key="any", http_client=http) as sdk:
        for client in clients:
            shared = sdk if client == "python-sdk" else None
            for spec in specs:
                async with server(spec) as played:
                    heard = await hear(ASYNC_CLIENTS[client], Call(played.base_url, True, retries, shared))
                    found[spec, client] = heard, len(played.requests)
    return found


def in_node(folder: Path, specs: Sequence[str], clients: Sequence[str], *, again: bool) -> dict[Any, Result]:
    cases: list[dict[str, Any]] = []
    played: dict[Any, ReplayServer] = {}
    with Background() as background:
        for client in clients:
            for spec in specs:
                played[spec, client] = background.enter(server(spec))
                case = {"client": client, "url": played[spec, client].base_url, "stream": True}
                limits = {"limit": NODE_LIMIT * 1000} if is_stall(spec) else {}
                cases.append({**case, **({} if again else {"retries": 0}), **limits})
        heard = run_node(folder, cases)
        counts = [len(each.requests) for each in played.values()]
    return dict(zip(played, zip(heard, counts, strict=True), strict=True))


def in_curl(specs: Sequence[str]) -> dict[Any, Result]:
    found: dict[Any, Result] = {}
    with Background() as background:
        for spec in specs:
            played = background.enter(server(spec))
            heard = curl(Call(played.base_url), LIMIT if is_stall(spec) else None)
            found[spec, "curl"] = heard, len(played.requests)
    return found


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """Everything, run once."""
    folder = tmp_path_factory.mktemp("node")
    knowing_in_node = [client for client in KNOWING if client in NODE_CLIENTS]
    knowing_here = [client for client in KNOWING if client in ASYNC_CLIENTS]
    once = in_node(folder, ONCE, NODE_CLIENTS, again=False) | in_curl(ONCE)
    once |= run(in_this_process(ONCE, tuple(ASYNC_CLIENTS), 0))
    again = in_node(folder, AGAIN, knowing_in_node, again=True)
    again |= run(in_this_process(AGAIN, knowing_here, None))
    return Matrix(once, again)


# --- The table -------------------------------------------------------------------------------------------------------


def row(spec: str, result: Result) -> Row:
    heard, requests = result
    told = heard.error if heard.error.startswith("exit ") else f"`{heard.error}`"
    error = told if heard.error else f"status {heard.status}" if heard.status >= 300 else ""
    code = None if heard.hangs else int(bool(error))
    error = "" if heard.hangs else error
    return judge_client(case_of(spec), Run(code, heard.text, "", requests, heard.stop, error, heard.seconds))


def tabled(results: Mapping[tuple[str, str], Result], specs: Sequence[str], clients: Sequence[str]) -> str:
    return as_columns({COLUMNS[client]: [row(spec, results[spec, client]) for spec in specs] for client in clients})


def versions() -> str:
    """Who was asked."""
    node, tool = shutil.which("node") or "node", shutil.which("curl") or "curl"
    found = [f"{name} {version(name)}" for name in ("anthropic", "httpx")]
    found += [f"Python {platform.python_version()}", f"curl {_said_by(tool).split()[1]}", f"Node {_said_by(node)[1:]}"]
    for name in NODE_PACKAGES:
        package = json.loads((NODE_MODULES / name / "package.json").read_text(encoding="utf-8"))
        found.append(f"{name} {package['version']}")
    return f"{MADE_WITH}{', '.join(found)}."


def _said_by(command: str) -> str:
    return subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def written(matrix: Matrix) -> str:
    once = tabled(matrix.once, ONCE, tuple(COLUMNS))
    again = tabled(matrix.again, AGAIN, KNOWING)
    return f"\n{once}\nWith the retries that each has by default:\n\n{again}\n{versions()}\n"


def test_the_table_is_what_the_clients_do(matrix: Matrix) -> None:
    made, kept = written(matrix), README.read_text(encoding="utf-8")
    if os.environ.get("RAWSSE_WRITE_TABLE"):
        README.write_text(put(kept, made), encoding="utf-8")
        kept = README.read_text(encoding="utf-8")
    changed = difference(taken(kept), made)
    assert not changed, f"fixtures/README.md says otherwise; RAWSSE_WRITE_TABLE=1 writes it anew:\n{changed}"


def test_every_fault_has_a_row() -> None:
    kinds = {Fault.parse(spec).kind for spec in ONCE if spec != "plain"}
    assert kinds == {spec.partition("=")[0].partition("@")[0].partition("[")[0] for spec in faults.FAULTS}


# --- What is known without the table ---------------------------------------------------------------------------------


@pytest.mark.parametrize("client", COLUMNS)
@pytest.mark.parametrize("spec", ["plain", "drip=50@event=70", "slow-head=50"])
def test_every_client_hears_the_whole_answer_also_byte_by_byte(spec: str, client: str, matrix: Matrix) -> None:
    found = row(spec, matrix.once[spec, client])
    assert (found.what, found.verdict) == ("whole", "right")


CUTTING = (
    "reset@head",
    "reset@event=5",
    "close@head",
    "close@head=20",
    "close@event=5",
    "half-close@event=5",
    "stall@head",
    "stall@event=5",
    "error@event=0",
    "error@event=5",
    "drop@event=-2",
    "bad-chunk-size@event=5",
    "wrong-content-length=-1000",
    "oversized-line=17000000",
    "html=200",
)


@pytest.mark.parametrize("spec", CUTTING)
def test_rawsse_never_takes_a_cut_answer_for_a_whole_one(spec: str, matrix: Matrix) -> None:
    heard, _ = matrix.once[spec, "rawsse"]
    assert heard.error.endswith("Error")
    assert heard.text == "" or text("plain").startswith(heard.text)


KNOWN: Mapping[tuple[str, str], str] = {
    ("wrong-content-length=-1000", "python-sdk"): "cut, no error",
    ("close@event=5", "python-sdk"): "`httpx2.RemoteProtocolError`",
    ("stall@event=5", "python-sdk"): "`httpx2.ReadTimeout` after 600 s",
    ("stall@event=5", "rawsse"): "`SilenceTimeoutError` after 90 s",
    ("stall@event=5", "node-sdk"): "`AnthropicError` after 300 s",
    ("close@event=5", "node-sdk"): "`AnthropicError`",
    ("error@event=5", "python-sdk"): "`APIStatusError`",
    ("error@event=5", "node-sdk"): "`APIError`",
    ("html=200", "python-sdk"): "`AssertionError`",
    ("close@event=5", "curl"): "exit 18",
    ("close@head", "curl"): "exit 52",
    ("status=529", "httpx"): "status 529",
}
"""From the manuals of those clients, and of curl(1): 18 "Partial file", 52 "The server did not reply anything"."""


@pytest.mark.parametrize(("spec", "client"), KNOWN)
def test_a_cell_is_what_is_known_of_that_client(spec: str, client: str, matrix: Matrix) -> None:
    assert row(spec, matrix.once[spec, client]).what == KNOWN[spec, client]


@pytest.mark.parametrize("spec", ["html=200", "end@event=0"])
def test_the_text_stream_of_the_sdk_alone_says_nothing_where_the_message_is_an_assertion_error(spec: str) -> None:
    async def story() -> str:
        http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
        async with (
            server(spec) as played,
            anthropic.AsyncAnthropic(api_key="any", base_url=played.base_url, http_client=http, max_retries=0) as sdk,
            sdk.messages.stream(**QUESTION) as stream,
        ):
            return "".join([piece async for piece in stream.text_stream])

    assert run(story()) == ""
    line = next(line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{spec}` |"))
    assert line.split(" | ")[2] == "`AssertionError`"


def test_who_is_silent_about_a_cut_has_at_least_no_stop_reason(matrix: Matrix) -> None:
    cut = [found[0] for (spec, _), found in matrix.once.items() if "cut, no error" in row(spec, found).what]
    assert cut
    assert {heard.stop for heard in cut} == {None, "other"}


def test_after_content_nobody_asks_again(matrix: Matrix) -> None:
    for spec in ("close@event=5 x1", "error@event=5 x1"):
        assert [matrix.again[spec, client][1] for client in KNOWING] == [1, 1, 1, 1]


@pytest.mark.parametrize("spec", ["status=529 x1", "close@event=1 x1", "error@event=0 x1", "stall@event=0 x1"])
def test_before_content_rawsse_asks_again(spec: str, matrix: Matrix) -> None:
    assert row(spec, matrix.again[spec, "rawsse"]).what.startswith("whole")
    assert matrix.again[spec, "rawsse"][1] == 2
