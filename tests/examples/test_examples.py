"""The examples do what their first lines say, with recordings in place of the API: as programs, or behind a server."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from support.background import PATIENCE, Background
from support.background import background as background  # a fixture
from support.browser import chromium as chromium  # a fixture
from support.command import ROOT, STRICT, Command
from support.redis_server import need_redis, redis_server
from support.sampling import one_in
from support.sockets import LOCALHOST, serving

from rawsse import AsyncClient, Client, RetryPolicy, Timeouts
from rawsse.relay import Relay
from rawsse.replay import Recording, ReplayServer, answer, recording_of, shipped_fixtures
from rawsse.server import Server
from rawsse.sse import Decoder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

HERE = Path(__file__).parent
NODE_MODULES = Path(os.environ.get("RAWSSE_NODE_MODULES", ROOT / "tests/interop/node/node_modules"))


def text_of(name: str) -> str:
    """The text of a shipped recording, as `fixtures/` has it beside it."""
    message = json.loads((ROOT / f"fixtures/{name}.json").read_text(encoding="utf-8"))["message"]
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


@dataclass(frozen=True)
class Done:
    """What a program printed, and how it ended."""

    stdout: str
    stderr: str
    returncode: int


def run(example: str, *arguments: str, api: str, stdin: str = "", **env: str) -> Done:
    """Run an example as a program, in front of the API at this URL."""
    variables = {"ANTHROPIC_BASE_URL": api, "ANTHROPIC_API_KEY": "any", **env}
    program = (str(HERE / example),)
    with Command(*arguments, program=program, flags=STRICT, env=variables, stdin=subprocess.PIPE) as command:
        command.write(stdin)
        command.close_input()
        return Done(command.output(), command.complaint(), command.wait())


@pytest.fixture
def new(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load an example whose clients find the API at this URL."""

    def new(example: str, api: str) -> ModuleType:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "any")
        spec = importlib.util.spec_from_file_location(Path(example).stem, HERE / example)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return new


@pytest.mark.parametrize("path", sorted(HERE.glob("*.py")) + sorted(HERE.glob("*/*.py")), ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    limit = {"socket_stream": 100, Path(__file__).stem: 1000}.get(path.stem, 75)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


@pytest.mark.parametrize(
    ("example", "code"),
    [("command_line.py", 2), ("tool_loop.py", 2), ("socket_stream.py", 1)],
)
def test_a_program_without_a_key_says_so(example: str, code: int) -> None:
    done = run(example, "Hello", api="http://127.0.0.1:9", ANTHROPIC_API_KEY="")
    assert "Traceback" not in done.stderr
    assert "ANTHROPIC_API_KEY" in done.stderr
    assert done.returncode == code


# --- socket_stream.py ---


def test_the_socket_program_imports_nothing_that_is_not_in_the_standard_library() -> None:
    code = (HERE / "socket_stream.py").read_text(encoding="utf-8")
    names = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) - {"__future__"}
    assert names == {"collections", "json", "os", "socket", "ssl", "sys", "typing", "urllib"}


@pytest.mark.parametrize("name", ["thinking", "plain", "tools", "pings", "unicode"][:: one_in(2)])
def test_a_socket_alone_prints_the_answer(name: str) -> None:
    with ReplayServer(shipped_fixtures()[name]) as api:
        done = run("socket_stream.py", "Hello", api=api.base_url)
    assert (done.stdout, done.stderr, done.returncode) == (text_of(name) + "\n", "", 0)
    assert api.requests[0].body["messages"] == [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("cut", [{"segments": 1}, {"split": 1}, {"rewrite": "crlf"}], ids=["reads", "chunks", "crlf"])
def test_a_socket_alone_prints_the_answer_however_its_bytes_are_cut(cut: dict[str, Any]) -> None:
    with ReplayServer(shipped_fixtures()["unicode"], **cut) as api:
        done = run("socket_stream.py", "Hello", api=api.base_url)
    assert (done.stdout, done.stderr, done.returncode) == (text_of("unicode") + "\n", "", 0)


@pytest.mark.parametrize(
    ("name", "faults", "said"),
    [
        ("cut", [], "half an answer"),
        ("plain", ["close@event=-2"], "half an answer"),
        ("plain", ["status=401"], "401 Unauthorized"),
        ("error-after-content", [], "api_error: Internal server error"),
    ],
)
def test_a_socket_alone_takes_no_half_answer_for_a_whole_one(name: str, faults: list[str], said: str) -> None:
    with ReplayServer(shipped_fixtures()[name], faults=faults) as api:
        done = run("socket_stream.py", "Hello", api=api.base_url)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


def test_a_socket_alone_misses_the_last_event_of_an_answer_that_http_calls_whole() -> None:
    body = shipped_fixtures()["plain"].body.partition(b"event: message_stop")[0]
    with ReplayServer(Recording.from_sse(body)) as api:
        done = run("socket_stream.py", "Hello", api=api.base_url)
    assert "half an answer" in done.stderr
    assert done.returncode == 1


def test_a_socket_alone_prints_the_answer_over_tls_and_checks_the_certificate() -> None:
    async def story() -> None:
        async with tls_in_front_of(shipped_fixtures()["plain"]) as url:
            done = await asyncio.to_thread(run, "socket_stream.py", "Hi", api=url, SSL_CERT_FILE=str(LOCALHOST))
            assert (done.stdout, done.stderr) == (text_of("plain") + "\n", "")
            done = await asyncio.to_thread(run, "socket_stream.py", "Hi", api=url)
            assert (done.stdout, done.returncode) == ("", 1)
            assert ssl.SSLCertVerificationError.__name__ in done.stderr

    asyncio.run(story())


@asynccontextmanager
async def tls_in_front_of(recording: Any) -> AsyncIterator[str]:
    """The URL of an API behind a server that only takes the TLS away."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = api.base_url.removeprefix("http://").split(":")
        upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
        sending = asyncio.ensure_future(copy(reader, upstream_writer))
        try:
            await copy(upstream_reader, writer)
            writer.close()
            await writer.wait_closed()
        finally:
            sending.cancel()
            upstream_writer.close()

    async with ReplayServer(recording) as api, serving(forward, tls=True) as origin:
        yield f"https://127.0.0.1:{origin.port}"


# --- command_line.py ---


def test_the_command_line_program_prints_the_answer_to_its_words_and_its_standard_input() -> None:
    with ReplayServer(shipped_fixtures()["plain"]) as api:
        done = run("command_line.py", "Review", "this.", stdin="+ a line", api=api.base_url)
    assert (done.stdout, done.stderr, done.returncode) == (text_of("plain") + "\n", "", 0)
    assert api.requests[0].body["messages"] == [{"role": "user", "content": "Review this.\n\n+ a line"}]


@pytest.mark.parametrize(
    ("name", "said"), [("cut", "StreamTruncatedError"), ("max-tokens", "max_tokens"), ("refusal", "refusal")]
)
def test_the_command_line_program_fails_when_the_answer_is_not_whole(name: str, said: str) -> None:
    with ReplayServer(shipped_fixtures()[name]) as api:
        done = run("command_line.py", "Count!", api=api.base_url)
    assert said in done.stderr
    assert done.returncode == 1
    assert done.stdout.strip()


def test_the_command_line_program_without_a_question_says_how_it_is_used() -> None:
    done = run("command_line.py", api="http://127.0.0.1:9")
    assert (done.stderr, done.returncode) == ("usage: command_line.py QUESTION\n", 2)


# --- tool_loop.py ---

TWO_ANSWERS = ("tools", "tools-answer")


def run_loop(*faults: str) -> Any:
    """The program in front of an API with these faults: what it says, and the requests."""
    with ReplayServer([shipped_fixtures()[name] for name in TWO_ANSWERS], faults=faults) as api:
        done = run("tool_loop.py", "Do I need an umbrella?", api=api.base_url)
    assert "Traceback" not in done.stderr
    return done, api.requests


def test_the_tool_loop_prints_both_answers_and_what_they_cost() -> None:
    done, requests = run_loop()
    assert (done.stdout, done.returncode) == ("".join(text_of(name) + "\n" for name in TWO_ANSWERS), 0)
    assert re.fullmatch(r"\n\d+ tokens read, \d+ written \(answers: 2\)\n", done.stderr)
    assert "rain in Bergen, Norway, 11 degrees" in json.dumps(requests[1].body["messages"][-1])


@pytest.mark.parametrize(
    ("faults", "code", "said"),
    [
        (["close@event=6"], 1, "at least .*: 1.\nStreamTruncatedError"),
        (["close@event=6 after=1"], 1, "at least .*: 2.\nStreamTruncatedError"),
        (["status=429,retry-after=300 after=1"], 3, "written .answers: 1.\nRateLimitError: .* wait 300 s"),
    ],
)
def test_the_exit_code_of_the_tool_loop_is_the_kind_of_its_failure(faults: list[str], code: int, said: str) -> None:
    done, _ = run_loop(*faults)
    assert re.search(said, done.stderr)
    assert done.returncode == code


def test_the_tool_loop_does_not_wait_for_ever(
    new: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tool_loop.py", "Hello"])
    with ReplayServer(shipped_fixtures()["tools"], faults=["stall=9@event=6"]) as api:
        module = new("tool_loop.py", api.base_url)
        module.TIMEOUTS = Timeouts(silence=0.2)
        assert module.main() == 4
    assert "at least" in capsys.readouterr().err


# --- lambda_handler.py ---


def invoke(handler: Any, body: str, seconds: float = 30) -> tuple[int, Any]:
    """Call a handler as AWS Lambda does (https://docs.aws.amazon.com/lambda/latest/dg/python-context.html)."""
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: int(seconds * 1000))
    answered = handler({"requestContext": {"http": {"method": "POST"}}, "body": body}, context)
    assert answered["headers"] == {"content-type": "application/json"}
    return answered["statusCode"], json.loads(answered["body"])


def test_the_lambda_handler_answers_and_keeps_its_client(new: Any) -> None:
    with ReplayServer(shipped_fixtures()["plain"]) as api:
        module = new("lambda_handler.py", api.base_url)
        for _ in range(2):
            answered = invoke(module.handler, '{"question": "Hello"}')
            assert answered == (200, {"answer": text_of("plain"), "stop_reason": "end_turn"})
        assert invoke(module.handler, "not JSON")[0] == 400
        assert invoke(module.handler, "[]")[0] == 400
        module.client.close()
    assert len(api.requests) == 2


def test_the_lambda_handler_gives_what_came_of_an_answer_that_was_cut(new: Any) -> None:
    with ReplayServer(shipped_fixtures()["cut"]) as api:
        module = new("lambda_handler.py", api.base_url)
        module.client = Client(retry_policy=RetryPolicy(first_delay=0))
        status, body = invoke(module.handler, '{"question": "Count!"}')
        module.client.close()
    assert (status, body["error"], body["partial"]) == (502, "StreamTruncatedError", text_of("cut"))


def test_the_lambda_handler_answers_before_its_time_is_over(new: Any) -> None:
    with ReplayServer(shipped_fixtures()["plain"], faults=["stall=9@event=6"]) as api:
        module = new("lambda_handler.py", api.base_url)
        status, body = invoke(module.handler, '{"question": "Hello"}', seconds=2.3)
        module.client.close()
    assert (status, body["error"]) == (502, "TotalTimeoutError")
    assert text_of("plain").startswith(body["partial"])
    assert body["partial"]


def test_the_lambda_handler_without_a_key_says_so_in_its_log_alone(
    new: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = new("lambda_handler.py", "http://127.0.0.1:9")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    module.client = Client()
    assert invoke(module.handler, '{"question": "Hello"}') == (500, {"error": "ConfigurationError"})
    assert "ANTHROPIC_API_KEY" in capsys.readouterr().out


# --- fastapi_app.py ---


@pytest.mark.real
def test_the_fastapi_application_lets_only_those_ask_who_are_logged_in_and_runs_its_tool(new: Any) -> None:
    pytest.importorskip("fastapi", reason="a framework that is not ours: the extra `interop`")
    httpx = pytest.importorskip("httpx", reason="a client that is not ours: the extra `interop`")
    recordings = [shipped_fixtures()[name] for name in ("tools", "tools-answer")]

    async def story() -> None:
        async with ReplayServer(recordings) as api:
            module = new("fastapi_app.py", api.base_url)
            async with Server(module.app, port=0) as server, httpx.AsyncClient(base_url=server.base_url) as browser:
                asked = {"question": "Do I need an umbrella in Bergen?"}
                assert (await browser.post("/ask", json=asked)).status_code == 401
                login = {"name": "ada", "password": "wrong"}
                assert (await browser.post("/login", json=login)).status_code == 401
                assert (await browser.post("/login", json={"name": "eve", "password": ""})).status_code == 401
                assert (await browser.post("/login", json=login | {"password": "correct horse"})).status_code == 200
                answered = await browser.post("/ask", json=asked)
                again = await browser.get(f"/runs/{answered.headers['x-run-id']}")
                browser.cookies.clear()
                assert (await browser.get(f"/runs/{answered.headers['x-run-id']}")).status_code == 401
        texts = [json.loads(data)["text"] for data in re.findall("^data: (.*)$", answered.text, re.MULTILINE)]
        assert "".join(texts) == text_of("tools") + text_of("tools-answer")
        assert again.text == answered.text
        (result,) = api.requests[1].body["messages"][-1]["content"]
        assert "rain in Bergen, Norway, 11 degrees celsius" in json.dumps(result)  # what the model had asked for

    asyncio.run(story())


# --- build_log.py ---


@pytest.mark.real
def test_the_build_is_read_line_by_line_and_again_and_is_killed_when_it_is_stopped(new: Any, tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="a framework that is not ours: the extra `interop`")
    httpx = pytest.importorskip("httpx", reason="a client that is not ours: the extra `interop`")

    async def story() -> None:
        module = new("build_log.py", "http://127.0.0.1:9")
        async with Server(module.app, port=0) as server, httpx.AsyncClient(base_url=server.base_url) as browser:
            built = await browser.post("/build")
            events = [(event.event, event.data) for event in Decoder().feed(built.content)]
            assert events == [*(("line", f"step {step} of 3") for step in (1, 2, 3)), ("exit", "0")]
            first = re.findall("^id: (.*)$", built.text, re.MULTILINE)[0]
            rest = await browser.get(f"/runs/{built.headers['x-run-id']}", headers={"last-event-id": first})
            assert "step 1 of 3" not in rest.text
            assert "step 2 of 3" in rest.text
            module.COMMAND[:] = [sys.executable, "-uc", "import os, time; print(os.getpid()); time.sleep(600)"]
            async with browser.stream("POST", "/build") as endless:
                lines = endless.aiter_lines()
                while not (line := await anext(lines)).startswith("data: "):
                    pass
                await browser.delete(f"/runs/{endless.headers['x-run-id']}")
                assert "event: exit" not in [line async for line in lines]
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.removeprefix("data: ")), 0)

    asyncio.run(story())


# --- react_page ---


@pytest.fixture
def react_modules(tmp_path: Path) -> dict[str, str]:
    """React as the import map's addresses serve it: modules of one bundle."""
    if not (NODE_MODULES / "react-dom").is_dir() or not (NODE_MODULES / "esbuild").is_dir():
        pytest.skip(f"no react-dom or esbuild in {NODE_MODULES} (RAWSSE_NODE_MODULES names another folder)")
    code = 'import * as React from "react"; export default React; export { createRoot } from "react-dom/client";'
    done = subprocess.run(
        [NODE_MODULES / ".bin/esbuild", "--bundle", "--format=esm", '--define:process.env.NODE_ENV="development"'],
        input=code,
        text=True,
        env={**os.environ, "NODE_PATH": str(NODE_MODULES)},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = "createElement, useEffect, useInsertionEffect, useRef, useState, useSyncExternalStore"
    shared = 'import React from "https://esm.sh/bundle";'
    return {
        "https://esm.sh/bundle": done.stdout,
        "https://esm.sh/react@19.2.0": f"{shared} export const {{ {names} }} = React; export default React;",
        "https://esm.sh/react-dom@19.2.0/client": 'export { createRoot } from "https://esm.sh/bundle";',
    }


ReactPage = Callable[..., "tuple[Page, list[str]]"]


@pytest.fixture
def react_page(react_modules: dict[str, str], background: Background, chromium: Browser) -> Iterator[ReactPage]:
    """The page in front of a relay that plays these, and what the browser complains of."""

    def module(route: Route) -> None:
        headers = {"access-control-allow-origin": "*", "content-type": "text/javascript"}
        route.fulfill(body=react_modules[route.request.url], headers=headers)

    with chromium.new_context() as context:
        context.set_default_timeout(PATIENCE * 1000)
        context.route("https://esm.sh/**", module)

        def react_page(*turns: Recording, faults: Sequence[str] = ()) -> tuple[Page, list[str]]:
            api = background.enter(ReplayServer(turns, faults=faults))
            client = background.enter(AsyncClient(base_url=api.base_url, api_key="any", max_retries=0))
            server = background.enter(Server(Relay(client, static=HERE / "react_page"), port=0))
            page, complaints = context.new_page(), list[str]()
            page.on("pageerror", lambda fault: complaints.append(str(fault)))
            page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
            page.goto(server.base_url)
            return page, complaints

        yield react_page


def say(page: Page, question: str) -> None:
    page.get_by_label("Message").fill(question)
    page.get_by_role("button", name="Send").click()
    page.locator(".user").get_by_text(question).wait_for()


@pytest.mark.real
def test_the_react_page_chats_in_a_browser(react_page: ReactPage) -> None:
    page, complaints = react_page(
        shipped_fixtures()["plain"],
        recording_of(answer("<b>second</b>")),
        shipped_fixtures()["error-before-content"],
    )
    for question in ("What is SSE?", "And then?", "More!"):
        say(page, question)
        page.get_by_role("button", name="Send").wait_for()
    shown = page.locator(".assistant").all_text_contents()
    assert shown[:2] == [f"assistant: {text_of('plain')}", "assistant: <b>second</b>"]  # as text
    error = "The API is overloaded. Wait a moment, then try again. Overloaded"
    assert page.get_by_role("alert").inner_text().strip() == f"({error})"
    page.reload()
    page.get_by_text(error).wait_for()
    # The browser itself says on the console that an answer was 529.
    assert [each for each in complaints if "529" not in each] == []


@pytest.mark.real
@pytest.mark.parametrize("text", ["Let me see", ""])
@pytest.mark.parametrize(
    ("reason", "words"), [("max_tokens", " (stopped at max_tokens)"), ("refusal", " (the model refused)")]
)
def test_the_react_page_says_that_an_answer_is_not_whole(
    react_page: ReactPage, reason: str, words: str, text: str
) -> None:
    page, complaints = react_page(recording_of(answer(text, stop_reason=reason)))
    say(page, "Hello")
    page.get_by_text(words.strip(" ()")).wait_for()
    assert page.locator("small").all_text_contents() == [words]
    for _ in range(2):
        page.locator(".assistant").wait_for()
        assert page.locator(".assistant").all_text_contents() == [f"assistant: {text}{words}"]
        page.reload()
    assert complaints == []


@pytest.mark.real
def test_the_react_page_asks_again_and_begins_a_new_conversation(react_page: ReactPage) -> None:
    page, complaints = react_page(recording_of(answer("", stop_reason="refusal")), recording_of(answer("Well")))
    say(page, "Hello")
    page.get_by_text("the model refused").wait_for()
    page.get_by_role("button", name="Ask again").click()
    page.get_by_text("assistant: Well").wait_for()
    assert page.locator("#root > p").all_text_contents() == ["user: Hello", "assistant: Well"]
    page.get_by_role("button", name="New conversation").click()
    page.locator("#root > p").first.wait_for(state="detached")
    page.reload()
    page.get_by_role("button", name="Send").wait_for()
    assert page.locator("#root > p").count() == 0
    assert complaints == []


@pytest.mark.real
def test_stop_on_the_react_page_sends_no_draft(react_page: ReactPage) -> None:
    page, complaints = react_page(shipped_fixtures()["plain"], faults=["stall=600@event=6"])
    say(page, "Hello")
    page.locator(".assistant").wait_for()
    page.get_by_label("Message").fill("half a ques")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("(you stopped it)").wait_for()
    assert page.get_by_label("Message").input_value() == "half a ques"
    assert page.locator(".user").all_text_contents() == ["user: Hello"]
    assert complaints == []


@pytest.mark.real
def test_the_react_page_says_that_it_is_reconnecting_and_keeps_the_conversation(react_page: ReactPage) -> None:
    page, complaints = react_page(shipped_fixtures()["plain"])
    page.context.set_offline(True)
    say(page, "Hello")
    page.get_by_text("Reconnecting…").wait_for()
    page.context.set_offline(False)
    page.get_by_role("button", name="Send").wait_for()
    shown = ["user: Hello", f"assistant: {text_of('plain')}"]
    assert page.locator("#root > p").all_text_contents() == shown
    page.reload()
    page.locator(".assistant").wait_for()
    assert page.locator("#root > p").all_text_contents() == shown
    # The browser itself says that it was offline, and that the relay did not know the run before it got the prompt.
    assert [each for each in complaints if "Failed to load resource" not in each] == []


# --- three_nodes.py ---


@pytest.mark.real
def test_a_reader_goes_on_at_another_node_when_its_own_is_killed() -> None:
    need_redis()
    with redis_server() as store:
        done = run("three_nodes.py", store, api="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    before, _, after = done.stdout.partition("-- the node is killed; another one goes on\n")
    frames = [line for line in (before + after).splitlines() if line.startswith("{")]
    assert len(before.splitlines()) == 3
    assert "".join(json.loads(frame)["text"] for frame in frames) == text_of("thinking")
    assert re.search("^total +1 ", after, re.MULTILINE)  # one run, counted once


# --- pytest_project ---


@pytest.fixture(scope="module", autouse=True)
def pytest_project() -> Iterator[Command]:
    """Its tests run beside ours from the first one on: its client waits, in real time, before it asks again."""
    arguments = ["-q", "-p", "rawsse.replay.pytest_plugin", "-p", "no:cacheprovider", "--rootdir=.", "-c", os.devnull]
    env, program = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, ("-m", "pytest")
    with Command(*arguments, ".", program=program, env=env, cwd=HERE / "pytest_project", is_forked=False) as command:
        yield command


def test_the_pytest_project_is_green(pytest_project: Command) -> None:
    code = pytest_project.wait(60)
    said = pytest_project.output() + pytest_project.complaint()
    assert code == 0, said
    assert "4 passed" in said
