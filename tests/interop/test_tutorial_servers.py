"""The servers of four published tutorials, as they were published, read by rawsse.js: it needs no server of ours.

What is changed is the framework, of which Express's few calls are done by hand here, and the port.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rawsse

from .conftest import Node, Start
from .stack import recorded, text
from .tutorials import between, up_to

pytestmark = pytest.mark.real

Document = Callable[[str], str]

CLIENT = (Path(rawsse.__file__).parent / "web/rawsse.js").as_uri()

EXPRESS = """
import http from 'node:http';
let server;
const express = () => {
  const routes = {};
  const serve = async (req, res) => {
    let body = '';
    for await (const chunk of req) body += chunk;
    res.statusCode = routes[req.url] ? 200 : 404;
    if (!routes[req.url]) return res.end(`Cannot ${req.method} ${req.url}`);
    req.body = JSON.parse(body);
    routes[req.url](req, res);
  };
  return { use() {}, post: (path, handler) => (routes[path] = handler),
    listen: () => (server = http.createServer(serve).listen(0)) };
};
express.json = express.static = () => {};
"""

ASK = """
import { streamChat } from '%s';
await new Promise((resolve) => server.once('listening', resolve));
const url = `http://127.0.0.1:${server.address().port}%s`;
const body = { message: 'Hello', prompt: 'Hello', messages: [{ role: 'user', content: 'Hello' }] };
const told = await streamChat(url, body, { waits: [1] }).done.catch((error) => ({ ...error, message: error.message }));
console.log(JSON.stringify(told));
server.close();
server.closeAllConnections();
"""

SERVERS: dict[str, tuple[str, str, str]] = {
    "000": (
        "/chat/stream",
        "const express = require",
        "app.listen(3000, () => console.log('Server running on port 3000'));",
    ),
    "001": (
        "/stream",
        "import 'dotenv/config'",
        "app.listen(3000, () => console.log('Listening on http://localhost:3000'));",
    ),
    "002": ("/api/chat/stream", "import express from 'express'", "res.end();\n});"),
    "003": ("/api/chat", "import Anthropic from '@anthropic-ai/sdk';\nimport express", "app.listen(3000);"),
}


@pytest.fixture
def ask(document: Document, start: Start, node: Node, packages: Callable[..., None]) -> Callable[..., Any]:
    packages("@anthropic-ai/sdk")

    def ask(number: str, name: str) -> Any:
        path, first, last = SERVERS[number]
        code = between(document(number), first, last) + up_to(document(number), last, last)
        code = re.sub(r"^(import|const) .*('express'|dotenv/config|@anthropic-ai/sdk).*$", "", code, flags=re.MULTILINE)
        if "app.listen" not in code:
            code += "\napp.listen(3000);"
        upstream = start(recorded(name)).upstream_url
        sdk = "import Anthropic from '@anthropic-ai/sdk';\n"
        return json.loads(
            node(sdk + EXPRESS + code + ASK % (CLIENT, path), ANTHROPIC_BASE_URL=upstream, ANTHROPIC_API_KEY="any")
        )

    return ask


@pytest.mark.parametrize("name", ["plain", "unicode"])
@pytest.mark.parametrize("number", SERVERS)
def test_a_tutorials_server_is_read_to_its_end(ask: Callable[..., Any], number: str, name: str) -> None:
    told = ask(number, name)
    assert (told["text"], told["ending"]) == (text(name), "complete")


@pytest.mark.parametrize("number", ["000", "001"])
def test_a_tutorials_error_is_told_with_the_text_before_it(ask: Callable[..., Any], number: str) -> None:
    told = ask(number, "error-after-content")
    assert (told["type"], told["text"]) == ("api_error", text("error-after-content"))
    assert "Internal server error" in told["detail"]


def test_the_events_of_a_tutorials_server_bring_usage(ask: Callable[..., Any]) -> None:
    told = ask("003", "plain")
    assert (told["stopReason"], told["usage"]["output_tokens"]) == ("end_turn", 217)
