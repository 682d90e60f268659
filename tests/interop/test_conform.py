"""`rawsse conform`, tried on gateways and clients that are not ours, and on our own relay.

Three of them are tried only where their environments are named, since they ask for other versions of packages than the extra
`interop`: RAWSSE_LITELLM is the executable of LiteLLM's proxy (`pip install 'litellm[proxy]'`), and RAWSSE_PEERS a Python with
pydantic-ai and llm-anthropic.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from support.background import PATIENCE
from support.command import Command, environment
from support.sampling import one_in

from rawsse import AsyncClient
from rawsse.replay import conform
from rawsse.replay.conform import Row, client_cases, try_client, try_server

from .conftest import NODE_MODULES
from .tutorials import between

pytestmark = pytest.mark.real

Document = Callable[[str], str]

PEERS = os.environ.get("RAWSSE_PEERS")
LITELLM = os.environ.get("RAWSSE_LITELLM")
API = "https://api.anthropic.com"

# --- Gateways --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def port() -> int:
    """One that is free now: a gateway must be told its upstream's before that is there."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


async def try_gateway(base_url: str, port: int | None, key: str = "any") -> list[Row]:
    async with AsyncClient(base_url=base_url, api_key=key, trust_env=False) as client:
        return await try_server(client, model="claude-sonnet-5", upstream_port=port)


def wrong(rows: Sequence[Row]) -> dict[str, str]:
    """What is wrong, without the texts that are quoted."""
    return {row.name: row.what.partition(": at character ")[0] for row in rows if row.verdict in ("wrong", "silent")}


@pytest.fixture(scope="module")
def ours(port: int) -> Sequence[list[Row]]:
    """What is found of our relay and our demo. Both are tried at once: most of the time is waiting."""
    env = {"ANTHROPIC_API_KEY": "sk-of-the-relay", "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}"}

    async def story() -> Sequence[list[Row]]:
        return await asyncio.gather(try_gateway(relay.base_url, port), try_gateway(demo.base_url, None))

    with (
        pytest.MonkeyPatch.context() as patch,
        Command("serve", "--port", "0", env=env) as relay,
        Command("demo", "--port", "0", "--speed", "8") as demo,
    ):
        patch.setattr(conform, "PACE", "ttft=0.15,tps=230")  # twice as fast, and late is half as late
        patch.setattr(conform, "LATE_SECONDS", conform.LATE_SECONDS / 2)
        return asyncio.run(story())


def test_our_relay_is_right_everywhere(ours: Sequence[list[Row]]) -> None:
    rows, _ = ours
    assert [row for row in rows if row.verdict != "right"] == []
    assert Row("plain", "right", "byte for byte", sent={"recording": "plain"}) in rows


def test_our_demo_is_right_without_an_upstream(ours: Sequence[list[Row]]) -> None:
    _, rows = ours
    assert len(rows) > 1
    assert [row for row in rows if row.verdict != "right"] == []


LITELLM_CONFIGURATION = """
model_list:
  - model_name: claude-sonnet-5
    litellm_params: {{model: anthropic/claude-sonnet-5, api_base: "http://127.0.0.1:{port}", api_key: any}}
litellm_settings: {{num_retries: 0, telemetry: false}}
general_settings: {{master_key: sk-master-of-litellm}}
router_settings: {{disable_cooldowns: true, num_retries: 0}}
"""

START_SECONDS = 120.0
"""LiteLLM imports for long."""


@pytest.fixture
def litellm(tmp_path: Path, port: int) -> Iterator[str]:
    assert LITELLM
    folder = tmp_path / "a" / "b"  # it puts ../.. on the path of modules
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(LITELLM_CONFIGURATION.format(port=port))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        own = sock.getsockname()[1]
    process = subprocess.Popen(
        [LITELLM, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(own)],
        cwd=folder,
        env={**environment({"LITELLM_LOCAL_MODEL_COST_MAP": "True"}), "PYTHONPATH": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + START_SECONDS
        while not answers(f"http://127.0.0.1:{own}/health/liveliness"):
            assert process.poll() is None, "LiteLLM has ended"
            assert time.monotonic() < until, "LiteLLM does not answer"
        yield f"http://127.0.0.1:{own}"
    finally:
        process.kill()
        process.wait(PATIENCE)


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=PATIENCE) as response:
            return bool(response.status == 200)
    except (URLError, ConnectionError):
        time.sleep(0.2)
        return False


if LITELLM:

    def test_litellm_changes_the_status_of_529_and_loses_retry_after(litellm: str, port: int) -> None:
        """Seen by hand, too."""
        assert wrong(asyncio.run(try_gateway(litellm, port, "sk-master-of-litellm"))) == {
            "status=529": "status 500, api_error, instead of overloaded_error, instead of status 529",
            "status=429,retry-after=7": "status 429, rate_limit_error, Retry-After is lost",
        }


# --- Clients ---------------------------------------------------------------------------------------------------------

TRIED = (
    "unicode, in pieces: 7",
    "end@event=5",
    "plain, as no-spaces",
    "error@event=5",
    "plain",
    "close@event=5",
    "status=401",
)[:: one_in(3)]
"""Of the rows, those that tell clients apart: all of them take minutes for each client."""

PYTHON_SDK = """
import anthropic
question = [{"role": "user", "content": "Hello"}]
with anthropic.Anthropic().messages.stream(model="m", max_tokens=99, messages=question) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
"""

HTTPX_SSE = """
import json, os, httpx, httpx_sse
url, key = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", os.environ["ANTHROPIC_API_KEY"]
body = {"model": "m", "max_tokens": 99, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
with httpx.Client() as client, httpx_sse.connect_sse(client, "POST", url, headers={"x-api-key": key}, json=body) as source:
    source.response.raise_for_status()
    for sse in source.iter_sse():
        event = json.loads(sse.data)
        if event["type"] == "content_block_delta" and event["delta"]["type"] == "text_delta":
            print(event["delta"]["text"], end="", flush=True)
"""

PYDANTIC_AI = """
import asyncio, os
from pydantic_ai import Agent
async def main():
    async with Agent("anthropic:claude-sonnet-5").run_stream("Hello") as answer:
        async for text in answer.stream_text(delta=True):
            print(text, end="", flush=True)
asyncio.run(main())
"""

LLM = """
import os, llm
model = llm.get_model("claude-sonnet-4.5")
model.key, model.base_url = os.environ["ANTHROPIC_API_KEY"], os.environ["ANTHROPIC_BASE_URL"]
for text in model.prompt("Hello"):
    print(text, end="", flush=True)
"""

NODE_SDK = """
import Anthropic from '@anthropic-ai/sdk';
const stream = new Anthropic().messages.stream({
  model: 'm', max_tokens: 99, messages: [{ role: 'user', content: 'Hello' }] });
stream.on('text', (text) => process.stdout.write(text));
await stream.finalMessage();
"""

CURL = """
set -o pipefail
curl -sSN --fail -H "x-api-key: $ANTHROPIC_API_KEY" -H 'content-type: application/json' "$ANTHROPIC_BASE_URL/v1/messages" \\
  -d '{"model":"m","max_tokens":99,"stream":true,"messages":[{"role":"user","content":"Hello"}]}' |
sed -n 's/^data: *//p' |
"$PYTHON" -S -c '
import json, sys
for line in sys.stdin:
    print(json.loads(line).get("delta", {}).get("text", ""), end="")'
"""


def try_program(command: Sequence[str | Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    cases = [case for case in client_cases() if case.name in TRIED]
    monkeypatch.setattr(conform, "client_cases", lambda: cases)
    rows = asyncio.run(try_client([*map(str, command)], jobs=2))
    assert len(rows) == len(TRIED), rows
    return wrong(rows)


def tried(known: dict[str, str]) -> dict[str, str]:
    """What is known of a client, in the rows that are tried."""
    return {row: what for row, what in known.items() if row in TRIED}


def python_with(*packages: str) -> str:
    code = "; ".join(f"import {name}" for name in packages)
    for python in filter(None, (sys.executable, PEERS)):
        if not subprocess.run([python, "-c", code], capture_output=True, check=False).returncode:
            return python
    pytest.skip(f"no {', '.join(packages)} here")


CUT = {"end@event=5": "cut, no error"}
"""The body ends well, and the answer is cut: a client that does not look for message_stop does not see it."""

NO_ERRORS = CUT | {"error@event=5": "cut, no error"}
"""Nor does it look for error events."""

SPACES = {"plain, as no-spaces": "nothing, no error"}
"""It finds only lines that begin with `data: `; WHATWG HTML, 9.2.6, makes the space optional."""

# All of it was also seen by hand, with a server of another make.
PYTHON_CLIENTS: dict[str, tuple[str, tuple[str, ...], dict[str, str]]] = {
    "httpx-sse": (HTTPX_SSE, ("httpx_sse",), NO_ERRORS),
    "python-sdk": (PYTHON_SDK, ("anthropic",), CUT),
}
if PEERS:
    PYTHON_CLIENTS["pydantic-ai"] = (PYDANTIC_AI, ("pydantic_ai", "anthropic"), CUT)
    PYTHON_CLIENTS["llm-anthropic"] = (LLM, ("llm", "llm_anthropic"), CUT)


@pytest.mark.parametrize("name", PYTHON_CLIENTS)
def test_clients_in_python(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, packages, known = PYTHON_CLIENTS[name]
    (tmp_path / "client.py").write_text(code)
    assert try_program([python_with(*packages), tmp_path / "client.py"], monkeypatch) == tried(known)


def node_program(code: str, folder: Path) -> list[str | Path]:
    executable = shutil.which("node")
    if executable is None:
        pytest.skip("no Node on PATH")
    (folder / "node_modules").symlink_to(NODE_MODULES)
    (folder / "client.mjs").write_text(code)
    return [executable, folder / "client.mjs"]


def test_the_node_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: Callable[..., None]) -> None:
    packages("@anthropic-ai/sdk")
    assert try_program(node_program(NODE_SDK, tmp_path), monkeypatch) == {}


def test_curl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("no curl, or no bash, on PATH")
    (tmp_path / "client.sh").write_text(CURL)
    monkeypatch.setenv("PYTHON", sys.executable)
    assert try_program(["bash", tmp_path / "client.sh"], monkeypatch) == tried(NO_ERRORS)


def test_004_raw_fetch(document: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = between(document("004"), "async function streamClaudeResponse", "This implementation handles")
    code = code.replace(f"'{API}", "process.env.ANTHROPIC_BASE_URL + '")
    call = "await streamClaudeResponse([{ role: 'user', content: 'Hello' }], 'any');"
    assert try_program(node_program(code + call, tmp_path), monkeypatch) == tried(NO_ERRORS | SPACES)


def test_004_httpx(document: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("httpx", reason="the tutorial's HTTP client: the interop extra")
    code = between(document("004"), "import httpx", "This generator function")
    code = "import os\n" + code.replace(f"'{API}", "os.environ['ANTHROPIC_BASE_URL'] + '")
    call = "for piece in stream_claude_response([{'role': 'user', 'content': 'Hello'}], 'any'):\n    print(piece, end='')\n"
    (tmp_path / "client.py").write_text(code + call)
    known = NO_ERRORS | SPACES | {"status=401": "nothing, no error"}
    assert try_program([sys.executable, tmp_path / "client.py"], monkeypatch) == tried(known)
