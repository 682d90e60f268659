"""Clients that are not ours, and rawsse beside them: each makes one call to a Messages API, and what it heard of the answer.

Knows how each of them is used by its own manual, and nothing of what it talks to. What comes as bytes (httpx, curl, Node's
fetch) is read here as most programs read it that use no library.

    heard = await hear(ASYNC_CLIENTS["python-sdk"], server.base_url)
    heard = curl(server.base_url)
    [heard] = run_node(folder, [{"client": "fetch", "url": server.base_url, "stream": True}])
    heard.text, heard.error
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from support.background import PATIENCE
from support.command import environment

from rawsse import AsyncClient

from .conftest import NODE_MODULES

__all__ = [
    "ASYNC_CLIENTS",
    "BYTE_CLIENTS",
    "NODE_CLIENTS",
    "NODE_PACKAGES",
    "QUESTION",
    "Call",
    "Heard",
    "curl",
    "hear",
    "run_node",
]

QUESTION: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 1024,
    "messages": [{"role": "user", "content": "Hello"}],
}

NODE_CLIENTS = ("node-sdk", "ai-sdk", "fetch")
NODE_PACKAGES = ("@anthropic-ai/sdk", "@ai-sdk/anthropic", "ai")
BYTE_CLIENTS = ("httpx", "curl", "fetch")
"""What hands on the bytes, and knows nothing of what they say."""

SCRIPT = Path(__file__).parent / "node" / "replay_clients.mjs"
HEADERS = {"content-type": "application/json", "x-api-key": "any", "anthropic-version": "2023-06-01"}


@dataclass
class Heard:
    """What a client said of one answer: what had come, its error's name or exit code, the status if it only told that.

    `hangs`: it was still waiting when it was stopped.
    """

    text: str = ""
    thinking: str = ""
    calls: list[list[Any]] = field(default_factory=list)
    stop: str | None = None
    error: str = ""
    status: int = 200
    seconds: float = 0.0
    hangs: bool = False

    def take(self, message: Mapping[str, Any]) -> None:
        """A message as plain JSON."""
        content = message["content"]
        self.text = "".join(block["text"] for block in content if block["type"] == "text")
        self.thinking = "".join(block["thinking"] for block in content if block["type"] == "thinking")
        self.calls = [[block["name"], block["input"]] for block in content if block["type"].endswith("tool_use")]
        self.stop = message["stop_reason"]

    def read(self, body: bytes) -> None:
        """An event stream as far as it came. Raises `ValueError` for an event that is not JSON."""
        inputs: dict[int, str] = {}
        for part in body.decode("utf-8", "replace").split("\n\n")[:-1]:
            for line in part.split("\n"):
                if line.startswith("data: "):
                    self._add(json.loads(line[6:]), inputs)

    def _add(self, event: Any, inputs: dict[int, str]) -> None:
        match event:
            case {"type": "content_block_start", "index": index, "content_block": {"name": name, "input": given}}:
                inputs[index] = ""
                self.calls.append([name, given])
            case {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}:
                self.text += text
            case {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": thinking}}:
                self.thinking += thinking
            case {"type": "content_block_delta", "index": index, "delta": {"partial_json": piece}}:
                inputs[index] += piece
            case {"type": "content_block_stop", "index": index} if inputs.get(index):
                self.calls[-1][1] = json.loads(inputs[index])
            case {"type": "message_delta", "delta": {"stop_reason": reason}}:
                self.stop = reason


@dataclass(frozen=True)
class Call:
    """How to ask. `retries`: None leaves the client's default. `shared` is a client to be used again; None makes one."""

    url: str
    stream: bool = True
    retries: int | None = 0
    shared: Any = None

    @property
    def options(self) -> dict[str, Any]:
        return {"base_url": self.url, **({} if self.retries is None else {"max_retries": self.retries})}


# --- In this process -------------------------------------------------------------------------------------------------

AsyncAsk: TypeAlias = Callable[[Call, Heard], Awaitable[None]]


async def _rawsse(call: Call, heard: Heard) -> None:
    async with AsyncClient(api_key="any", trust_env=False, **call.options) as client:
        await _ask(client, call, heard)


async def _python_sdk(call: Call, heard: Heard) -> None:
    import anthropic

    if call.shared is not None:  # what it makes anew for each client, certificates above all, takes long
        await _ask(call.shared.with_options(**call.options), call, heard)
        return
    async with anthropic.AsyncAnthropic(api_key="any", **call.options) as client:
        await _ask(client, call, heard)


async def _ask(client: Any, call: Call, heard: Heard) -> None:
    """By the same names in both libraries."""
    if not call.stream:
        heard.take((await client.messages.create(**QUESTION)).to_dict())
        return
    async with client.messages.stream(**QUESTION) as stream:
        async for piece in stream.text_stream:
            heard.text += piece
        heard.take((await stream.get_final_message()).to_dict())


async def _httpx(call: Call, heard: Heard) -> None:
    import httpx

    body = {**QUESTION, "stream": call.stream}
    async with (
        httpx.AsyncClient(trust_env=False, verify=False) as client,
        client.stream("POST", f"{call.url}/v1/messages", headers=HEADERS, json=body) as response,
    ):
        heard.status = response.status_code
        if not call.stream:
            heard.take(json.loads(await response.aread()))
            return
        came = bytearray()
        try:
            async for piece in response.aiter_bytes():
                came += piece
        finally:
            heard.read(bytes(came))


ASYNC_CLIENTS: Mapping[str, AsyncAsk] = {"rawsse": _rawsse, "python-sdk": _python_sdk, "httpx": _httpx}


async def hear(client: AsyncAsk, call: Call) -> Heard:
    """What that client makes of the answer. Every error is one that a program would get."""
    heard, clock = Heard(), asyncio.get_running_loop().time
    began = clock()
    try:
        await client(call, heard)
    except Exception as exc:
        heard.error = _name(exc)
    heard.seconds = clock() - began
    return heard


def _name(error: BaseException) -> str:
    """The class, and the package if it is none of the client's own."""
    package = type(error).__module__.split(".")[0]
    return f"{package}.{type(error).__name__}" if package == "httpx2" else type(error).__name__


# --- In other processes ----------------------------------------------------------------------------------------------


def curl(call: Call, limit: float | None = None) -> Heard:
    """`curl -N`, stopped after `limit` seconds. Its `error` is its exit code."""
    executable = shutil.which("curl")
    if executable is None:
        pytest.skip("no curl on PATH")
    options = ["--disable", "--no-buffer", "--silent", "--show-error", "--write-out", "%{stderr}HTTP %{http_code}\n"]
    options += [part for name, value in HEADERS.items() for part in ("--header", f"{name}: {value}")]
    command = [executable, *options, "--data-binary", "@-", f"{call.url}/v1/messages"]
    body = json.dumps({**QUESTION, "stream": call.stream}).encode()
    heard = Heard()
    try:
        done = subprocess.run(
            command, input=body, env=environment({}), capture_output=True, timeout=limit or PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as exc:
        if limit is None:
            raise
        heard.read(exc.stdout or b"")
        heard.hangs = True
        return heard
    heard.error = f"exit {done.returncode}" if done.returncode else ""
    if found := re.search(rb"HTTP (\d{3})", done.stderr):
        heard.status = int(found[1])
    if call.stream:
        try:
            heard.read(done.stdout)
        except ValueError as exc:
            heard.error = _name(exc)
    else:
        heard.take(json.loads(done.stdout))
    return heard


def run_node(folder: Path, cases: Sequence[Mapping[str, Any]]) -> list[Heard]:
    """Let clients in Node make these calls, one after the other, those with a `limit` all at once; see the script."""
    executable = shutil.which("node")
    if executable is None:
        pytest.skip("no Node on PATH")
    for name in NODE_PACKAGES:
        if not (NODE_MODULES / name).is_dir():
            pytest.skip(f"no npm package {name} in {NODE_MODULES} (RAWSSE_NODE_MODULES names another folder)")
    script = folder / SCRIPT.name
    script.write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(NODE_MODULES)  # Node looks for packages beside the script
    given = {"CASES": json.dumps(cases), "QUESTION": json.dumps(QUESTION)}
    done = subprocess.run(
        [executable, str(script)], env=environment(given), cwd=folder, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return [Heard(**heard) for heard in json.loads(done.stdout.decode().strip().rpartition("\n")[2])]
