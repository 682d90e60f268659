"""rawsse.replay.pytest_plugin: a Messages API in one fixture, streams cut everywhere, time that jumps; and what it
says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request  # noqa: F401 - a run in this process unloads what it has loaded: a TLS context for each of them
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.background import Background
from support.command import ROOT, environment

import rawsse.client.blocking  # noqa: F401 - so it is loaded once, too
from rawsse.replay import Player, Recording, answer, recording_of, shipped_fixtures
from rawsse.server import Server

pytest_plugins = ["pytester"]

MADE_UP_PROJECT = Path(__file__).parent / "made_up_project"

ASK = """
import json, os, re, urllib.error, urllib.request
import pytest
from rawsse.replay import answer, recording_of, text

def ask(question="Hello", stream=True):
    body = {"model": "claude-sonnet-5", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": question}]}
    headers = {"x-api-key": os.environ["ANTHROPIC_API_KEY"], "content-type": "application/json"}
    url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=10) as answer:
            body = answer.read()
            return body + b"".join(re.findall(b'"text":"(.*?)"', body))  # and the text, without what is between
    except urllib.error.HTTPError as exc:
        return exc.read()
"""


def is_installed() -> bool:
    """The plugin is loaded by itself."""
    return bool(entry_points(group="pytest11", name="rawsse")) and "PYTEST_DISABLE_PLUGIN_AUTOLOAD" not in os.environ


ALONE = (
    "-p",
    "no:cacheprovider",
    "-p",
    "no:hypothesispytest",
    "-p",
    "no:anyio",
    "-p",
    "no:asyncio",
)  # others' plugins take half a second to load
LOADED = () if is_installed() else ("-p", "rawsse.replay.pytest_plugin")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project, and an environment that says nothing of the API."""
    for name in [name for name in os.environ if name.startswith(("ANTHROPIC_", "RAWSSE_"))]:
        monkeypatch.delenv(name)
    pytester.makeini("[pytest]\naddopts = --strict-markers --strict-config\nfilterwarnings = error\n")
    return pytester


def run(project: pytest.Pytester, test: str, *arguments: str) -> pytest.RunResult:
    """Run a test file that can `ask`."""
    project.makepyfile(test_it=ASK + test)
    return project.runpytest_inprocess(*LOADED, *ALONE, *arguments)


def said(result: pytest.RunResult) -> str:
    return str(result.stdout)


# --- Playing


def test_a_marked_test_is_played_a_shipped_recording_without_asking_for_the_fixture(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
@pytest.mark.replay("plain")
def test_it():
    assert b"message_stop" in ask()
""",
    )
    result.assert_outcomes(passed=1)


def test_recordings_are_found_beside_the_test_in_recordings_and_by_their_whole_name(project: pytest.Pytester) -> None:
    (project.path / "recordings").mkdir()
    recording_of(answer("beside")).save(project.path / "one.sse.jsonl")
    recording_of(answer("below")).save(project.path / "recordings/two.sse.jsonl")
    result = run(
        project,
        """
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.replay(name)) for name in ("one", "one.sse.jsonl")])
def test_beside(name):
    assert b"beside" in ask()

@pytest.mark.replay("two")
def test_below():
    assert b"below" in ask()

@pytest.mark.replay("recordings/")
def test_folder():
    assert b"below" in ask()
""",
    )
    result.assert_outcomes(passed=4)


def test_a_test_may_say_itself_what_is_played(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
def test_it(replay):
    replay.play(answer(text("Hello.")))
    assert b"Hello." in ask("first")
    replay.play(answer("Goodbye."))
    assert b"Goodbye." in ask("second")
    assert [request.body["messages"][0]["content"] for request in replay.requests] == ["first", "second"]
""",
    )
    result.assert_outcomes(passed=1)


def test_the_nearest_mark_says_what_is_played_and_the_others_what_it_does_not_say(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
pytestmark = pytest.mark.replay(answer("from the module"), faults=["status=529 x1"])

def test_module():
    assert b"overloaded_error" in ask() and b"the module" in ask()

@pytest.mark.replay(answer("from the function"))
def test_function():
    assert b"overloaded_error" in ask() and b"the function" in ask()

@pytest.mark.replay(faults=())
def test_no_faults():
    assert b"the module" in ask()
""",
    )
    result.assert_outcomes(passed=3)


def test_the_environment_leads_clients_here_and_is_put_back(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-real")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "real")
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.setenv("no_proxy", "example.org")  # the one that counts for our client, and for curl
    result = run(
        project,
        """
@pytest.mark.replay("plain", strict=False)
def test_inside(replay):
    assert os.environ["ANTHROPIC_BASE_URL"] == replay.base_url
    assert os.environ["ANTHROPIC_API_KEY"] == "replay-needs-no-key"
    assert "ANTHROPIC_AUTH_TOKEN" not in os.environ
    assert os.environ["NO_PROXY"] == "intranet,127.0.0.1"
    assert os.environ["no_proxy"] == "example.org,127.0.0.1"

@pytest.mark.replay("plain", env=False, strict=False)
def test_left_alone(replay):
    assert "ANTHROPIC_BASE_URL" not in os.environ
    assert os.environ["ANTHROPIC_API_KEY"] == "sk-real"

def test_after():
    assert "ANTHROPIC_BASE_URL" not in os.environ
    assert (os.environ["ANTHROPIC_API_KEY"], os.environ["ANTHROPIC_AUTH_TOKEN"]) == ("sk-real", "real")
""",
    )
    result.assert_outcomes(passed=3)


def test_a_fixture_that_makes_a_client_comes_after_the_api_that_it_is_to_ask(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
@pytest.fixture
def client():
    return os.environ["ANTHROPIC_BASE_URL"]

@pytest.mark.replay("plain")
def test_marked(client, replay):
    assert client == replay.base_url
    ask()

def test_asking(client, replay):
    replay.play("plain")
    assert client == replay.base_url
    ask()
""",
    )
    result.assert_outcomes(passed=2)


def test_another_fixture_of_that_name_keeps_its_place(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
made = []

@pytest.fixture
def replay(): made.append("replay")

@pytest.fixture
def first(): made.append("first")

def test_it(first, replay):
    assert made == ["first", "replay"]
""",
    )
    result.assert_outcomes(passed=1)


def test_the_thread_ends_with_the_test(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
import threading

@pytest.mark.replay("plain")
def test_one(replay):
    ask()
    assert "rawsse replay" in [thread.name for thread in threading.enumerate()]

def test_two():
    assert "rawsse replay" not in [thread.name for thread in threading.enumerate()]
""",
    )
    result.assert_outcomes(passed=2)


# --- What a test is told


def test_a_request_that_no_recording_answers_fails_the_test_that_did_not_look(project: pytest.Pytester) -> None:
    recording = recording_of(answer("Hi."))
    asked = {"model": "claude-sonnet-5", "max_tokens": 9, "stream": True}
    asked["messages"] = [{"role": "user", "content": "Hallo"}]
    head, rest = recording.dump().split("\n", 1)
    head = json.dumps(
        json.loads(head) | {"request": {"method": "POST", "path": "/v1/messages", "headers": {}, "body": asked}}
    )
    (project.path / "hi.sse.jsonl").write_text(f"{head}\n{rest}", encoding="utf-8")
    result = run(
        project,
        """
@pytest.mark.replay("hi", match="request")
def test_it():
    ask("Hello")
""",
    )
    result.assert_outcomes(failed=1)
    assert "rawsse: no recording matches this request" in said(result)
    assert "messages[0].content" in said(result)
    assert "'Hallo'" in said(result) or '"Hallo"' in said(result)


def test_a_failing_test_shows_what_no_recording_answered(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
@pytest.mark.replay("plain", match="sequence")
def test_it():
    ask()
    ask()
    assert "the client's own words" == ""
""",
    )
    result.assert_outcomes(failed=1)
    words = "- Captured rawsse call -*\nthis is request 2 of a sequence of 1 recording: all have been played"
    assert re.search(words, said(result))
    assert "the client's own words" in said(result)


def test_a_failing_fixture_shows_what_no_recording_answered(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
@pytest.fixture
def poem():
    assert b"Hello" in ask()

@pytest.mark.replay("plain", match="name")
def test_it(poem): ...
""",
    )
    result.assert_outcomes(errors=1)
    assert "- Captured rawsse setup -" in said(result)


def test_a_recording_that_is_left_fails_a_test_of_a_sequence(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
@pytest.mark.replay("plain", "tools", match="sequence")
def test_left():
    ask()

@pytest.mark.replay("plain", "tools")
def test_in_turn():
    ask()

@pytest.mark.replay("plain", "tools", strict=True)
def test_strict():
    ask()
""",
    )
    result.assert_outcomes(passed=1, failed=2)
    assert said(result).count("rawsse: not played, 1 of 2 recordings: tools") >= 2


def test_a_test_of_misses_is_not_strict(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
@pytest.mark.replay("plain", match="sequence", strict=False)
def test_it():
    assert b"message_stop" in ask()
    assert b"no_recording_matches" in ask()
""",
    )
    result.assert_outcomes(passed=1)


def test_a_test_that_asks_nothing_fails_unless_it_is_lenient_or_has_nothing_to_play(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
@pytest.mark.replay("plain")
def test_marked(): ...

def test_playing(replay):
    replay.play("plain")

@pytest.mark.replay("plain", strict=False)
def test_lenient(): ...

def test_not_playing(replay): ...
""",
    )
    result.assert_outcomes(passed=2, failed=2)
    # At the beginning of a line: on a CI machine pytest's summary has it whole, too.
    told = "\nrawsse: no request came for plain. Was the client made"
    assert said(result).count(told) == 2
    assert "Was the client made before the test began (when its module was imported" in said(result)


@pytest.mark.parametrize("fault", ["reset@event=300", "drop@event=999"])
def test_a_fault_that_can_never_happen_is_the_tests_error_and_the_code_under_test_does_not_meet_it(
    project: pytest.Pytester, fault: str
) -> None:
    result = run(
        project,
        """
@pytest.mark.replay("plain", faults="FAULT")
def test_marked():
    print("has asked:", ask())

def test_playing(replay):
    replay.play("plain", faults="FAULT")
    print("has asked:", ask())
""".replace("FAULT", fault),
    )
    result.assert_outcomes(errors=1, failed=1)
    counted = "counted from 0 (by explain and check from 1)"
    assert f"{fault} has no place in this answer, which has 79 events, {counted}: it can never happen" in said(result)
    assert "has asked:" not in said(result).replace('print("has asked:"', "")


def test_a_fault_that_never_happens_or_has_no_place_fails_the_test(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
@pytest.mark.replay("plain", faults=["status=529 x1 after=2"])
def test_later():
    ask()

@pytest.mark.replay("refusal", "plain", faults=["drop@event=40"])
def test_nowhere():
    ask()
""",
    )
    result.assert_outcomes(failed=2)
    assert "x1 after=2 never happened: the test sent too few requests" in said(result)
    assert "rawsse: drop@event=40 has no place in this answer" in said(result)


# --- Going astray


def test_a_client_that_was_made_at_import_gets_nowhere_with_the_real_key(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-real")
    result = run(
        project,
        """
import rawsse
CLIENT = rawsse.Client(max_retries=0)

@pytest.mark.replay("plain")
def test_it():
    with pytest.raises(rawsse.APIConnectionError):  # what the code under test makes of it, is its own matter
        CLIENT.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
""",
    )
    result.assert_outcomes(failed=1)
    assert "rawsse: no request came for plain" in said(result)
    assert "connections to api.anthropic.com port 443 were refused. Was the client made before the test began" in said(
        result
    )


def test_a_connection_to_another_machine_fails_a_test_also_if_its_error_is_caught(
    project: pytest.Pytester,
) -> None:
    result = run(
        project,
        """
import socket

@pytest.mark.replay("plain")
@pytest.mark.parametrize("host", ["api.anthropic.com", "192.0.2.1"])
def test_caught(host):
    ask()
    try:
        socket.create_connection((host, 443), 10)
    except OSError:
        pass

@pytest.mark.replay("plain", network=False)
def test_expected():
    ask()
    with pytest.raises(PermissionError, match="a connection to telemetry.example port 443 was refused"):
        socket.create_connection(("telemetry.example", 443), 10)
""",
    )
    result.assert_outcomes(failed=2, passed=1)
    for host in ("api.anthropic.com", "192.0.2.1"):
        assert f"rawsse: connections to {host} port 443 were refused" in said(result)
    assert "network=False says that the test expects this" in said(result)


def test_a_failing_test_shows_who_was_refused(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
import socket

@pytest.mark.replay("plain")
def test_it():
    try:
        socket.create_connection(("database.example", 5432), 10)
    except OSError:
        assert "no database" == ""
""",
    )
    result.assert_outcomes(failed=1)
    assert re.search("- Captured rawsse call -*\nconnections to database.example port 5432 were refused", said(result))


def test_a_mark_may_let_a_test_out_and_others_are_never_kept_in(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
import socket

@pytest.mark.replay("plain", network=True)
def test_marked():
    ask()
    assert socket.getaddrinfo("192.0.2.1", 9)

@pytest.mark.replay(network=True)
def test_asking(replay):
    assert socket.getaddrinfo("192.0.2.1", 9)

def test_other():
    assert socket.getaddrinfo("192.0.2.1", 9)
""",
    )
    result.assert_outcomes(passed=3)


def test_nothing_to_play_is_said_to_the_client_and_to_the_test(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
def test_it(replay):
    assert b"there was nothing to play" in ask()
""",
    )
    result.assert_outcomes(failed=1)
    assert "there was nothing to play for POST /v1/messages: name a recording with replay.play(NAME)" in said(result)


def test_a_missing_recording_says_what_to_type(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
@pytest.mark.replay("spring")
def test_it():
    ask()
""",
    )
    result.assert_outcomes(errors=1)
    assert "rawsse: there is no recording 'spring', neither in" in said(result)
    assert "To record it: ANTHROPIC_API_KEY=… pytest --rawsse-record=once" in said(result)


WRONG = {
    '"plain", sped=1': "@pytest.mark.replay has no argument 'sped'; it has match, faults",
    "speed=1": "@pytest.mark.replay has speed=…, but no recording to play",
    '"plain", match="soon"': "match must be",
    '"plain", faults=["rest@event=3"]': "rest",
}


def test_a_wrong_mark_is_told_in_words(project: pytest.Pytester) -> None:
    tests = (f"@pytest.mark.replay({mark})\ndef test_{number}():\n    ask()\n" for number, mark in enumerate(WRONG))
    result = run(project, "\n" + "".join(tests))
    result.assert_outcomes(errors=len(WRONG))
    told = re.findall(r"^_+ ERROR at setup of test_\d _+\nrawsse: (.*)", said(result), re.MULTILINE)
    assert [words in message for words, message in zip(WRONG.values(), told, strict=True)] == [True] * len(WRONG)
    assert "Traceback" not in said(result)


# --- Cutting


def test_a_test_may_say_how_its_answers_are_cut(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
@pytest.mark.replay(answer("Hello."), split="bytes")
def test_mark():
    assert b"message_stop" in ask()

@pytest.mark.parametrize("split", ["whole", "line-ends", "random:3", 7])
def test_play(replay, split):
    replay.play(answer("Hello."), split=split)
    assert b"message_stop" in ask()
""",
        "-v",
    )
    result.assert_outcomes(passed=5)
    for name in ("whole", "line-ends", "random:3", "7"):
        assert f"test_play[{name}] PASSED" in said(result)


# --- Time


def test_a_mark_may_give_a_pace_and_a_rewrite(project: pytest.Pytester) -> None:
    result = run(
        project,
        r"""
@pytest.mark.replay("plain", pace="ttft=0.001,tps=100000", rewrite="crlf")
def test_it():
    assert b"\r\n\r\n" in ask()
""",
    )
    result.assert_outcomes(passed=1)


def test_an_async_test_runs_in_virtual_time_with_its_api(project: pytest.Pytester) -> None:
    shutil.copy(ROOT / "fixtures/refusal.sse.jsonl", project.path)
    result = run(
        project,
        """
import asyncio, time
import rawsse

@pytest.mark.replay("refusal", speed=1)
async def test_pace(replay, virtual_clock):
    began = time.monotonic()
    async with rawsse.AsyncClient() as client:
        async with client.messages.stream(model="m", max_tokens=9, messages=[]) as stream:
            async for _ in stream: pass
    assert virtual_clock.elapsed == pytest.approx(LAST_READ, abs=0.001)

def test_sleep(virtual_clock):
    virtual_clock.run(asyncio.sleep(3600))
    assert virtual_clock.elapsed == 3600
""".replace("LAST_READ", str(shipped_fixtures()["refusal"].reads[-1].t)),
    )
    result.assert_outcomes(passed=2)


def test_a_client_that_a_fixture_makes_finds_the_api_of_the_clock(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
import rawsse

@pytest.fixture
def client():
    return rawsse.AsyncClient(max_retries=0)

@pytest.mark.replay("refusal", speed=1)
async def test_it(client, virtual_clock):
    async with client:
        await client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
    assert virtual_clock.elapsed > 0
""",
    )
    result.assert_outcomes(passed=1)


# How plugins get hold of `async def` tests: pytest-asyncio by a class of items, anyio and others by the hook.
BY_CLASS = """
import asyncio
import pytest

class Claimed(pytest.Function):
    def runtest(self):
        test = self.obj
        self.obj = lambda **arguments: asyncio.run(test(**arguments))
        super().runtest()

def pytest_collection_modifyitems(items):
    for item in items:
        item.__class__ = Claimed
"""
BY_HOOK = """
import asyncio
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True
"""

CLAIMED = """
import asyncio
import rawsse

async def pace(clock):
    async with rawsse.AsyncClient() as client:
        await client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
    await asyncio.sleep(3600)
    assert clock.elapsed > 3600

@pytest.mark.replay("refusal", speed=1)
MARK
async def test_function(virtual_clock):
    await pace(virtual_clock)

@pytest.mark.replay("refusal", speed=1)
class TestIt:
    MARK
    @pytest.mark.parametrize("number", [1])
    async def test_method(self, number, virtual_clock):
        await pace(virtual_clock)

MARK
async def test_without_the_api(virtual_clock):
    await asyncio.sleep(3600)
    assert virtual_clock.elapsed == 3600
"""

CLAIMING: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "a class": (BY_CLASS, "", ()),
    "a hook": (BY_HOOK, "", ()),
}
if find_spec("anyio"):
    CLAIMING["anyio"] = ("", "@pytest.mark.anyio", ("-p", "anyio.pytest_plugin"))
if find_spec("pytest_asyncio"):
    asyncio_with = ("-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function", "-o")
    CLAIMING["asyncio"] = ("", "@pytest.mark.asyncio", (*asyncio_with, "asyncio_mode=strict"))
    CLAIMING["asyncio, auto"] = ("", "", (*asyncio_with, "asyncio_mode=auto"))


@pytest.mark.parametrize(("conftest", "mark", "options"), CLAIMING.values(), ids=CLAIMING)
def test_an_async_test_that_another_plugin_claims_runs_in_virtual_time(
    project: pytest.Pytester, conftest: str, mark: str, options: tuple[str, ...]
) -> None:
    project.makeconftest(conftest)
    run(project, CLAIMED.replace("MARK", mark), *options).assert_outcomes(passed=3)


HOW = "virtual_clock runs `async def` tests; in a `def` test, call virtual_clock.run(coroutine). Code that"
ASKS = """
import asyncio, contextlib, unittest
import rawsse

def ask_in_blocks():
    with rawsse.Client() as client:
        client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])

async def ask_in_a_loop():
    async with rawsse.AsyncClient() as client:
        await client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])

async def block(work):
    work()

def run_until_complete(main, loop=None):
    with contextlib.closing(loop or asyncio.new_event_loop()) as loop:
        loop.run_until_complete(main)

pytestmark = pytest.mark.replay("plain", strict=False)
"""
OUTSIDE, BLOCKS = "a client uses the API outside of virtual_clock", "a client blocks the event loop that serves the API"


REFUSED = {
    "def test_1(virtual_clock): ask()": OUTSIDE,
    "def test_2(virtual_clock): ask_in_blocks()": OUTSIDE,
    "def test_3(virtual_clock): run_until_complete(ask_in_a_loop())": OUTSIDE,
    "def test_4(virtual_clock): asyncio.run(ask_in_a_loop())": OUTSIDE,
    "async def test_5(virtual_clock): ask()": BLOCKS,
    "async def test_6(virtual_clock): ask_in_blocks()": BLOCKS,
    "def test_7(virtual_clock): virtual_clock.run(block(ask))": BLOCKS,
    "def test_8(virtual_clock): virtual_clock.run(block(ask_in_blocks))": BLOCKS,
    """
@pytest.mark.usefixtures("virtual_clock")
class TestIt(unittest.IsolatedAsyncioTestCase):
    async def test_9(self): await ask_in_a_loop()
""": OUTSIDE,
}


def test_what_the_clock_cannot_run_fails_at_once_and_says_what_to_do(project: pytest.Pytester) -> None:
    result = run(project, ASKS + "\n".join(REFUSED))
    result.assert_outcomes(failed=len(REFUSED))
    told = re.findall(r"^_+ (?:TestIt\.)?test_(\d) _+\n(?:.*\n)*?rawsse: (.*)", said(result), re.MULTILINE)
    expected = {str(number): words for number, words in enumerate(REFUSED.values(), 1)}
    assert {number: message.partition(f". {HOW}")[0] for number, message in told} == expected
    assert all(HOW in message for _, message in told)


def test_a_fixture_that_asks_before_the_clock_runs_is_told_so(project: pytest.Pytester) -> None:
    result = run(project, ASKS + "\n@pytest.fixture\ndef poem(): ask()\nasync def test_it(poem, virtual_clock): ...")
    result.assert_outcomes(errors=1)
    assert f"rawsse: {OUTSIDE}. {HOW}" in said(result)


def test_beside_the_clock_threads_may_have_loops_and_other_tests_block(project: pytest.Pytester) -> None:
    result = run(
        project,
        ASKS
        + """
import threading

def test_thread(virtual_clock):
    thread = threading.Thread(target=asyncio.run, args=[asyncio.sleep(0)])
    thread.start()
    thread.join()
    virtual_clock.run(ask_in_a_loop())

def test_other():
    ask_in_blocks()
    asyncio.run(ask_in_a_loop())
""",
    )
    result.assert_outcomes(passed=2)


def test_outside_of_the_clock_there_is_no_address(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
@pytest.mark.replay("plain")
def test_it(replay, virtual_clock):
    replay.base_url
""",
    )
    result.assert_outcomes(failed=1)
    assert "the API is not served: use it within" in said(result)


# --- Recording


TWO_QUESTIONS = """
@pytest.mark.replay("spring", "autumn", match="sequence")
def test_it(replay):
    assert b"message_stop" in ask("spring?")
    assert b"message_stop" in ask("autumn?")
    assert len(replay.requests) == 2
"""


POLICY = """
import pytest
from rawsse.replay import ScrubPolicy

@pytest.fixture(scope="session")
def rawsse_scrub_policy():
    return ScrubPolicy(secrets=("acme-7781-internal",))
"""


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, project: pytest.Pytester) -> Player:
    """What stands for the real API; the environment leads there."""
    del project
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-api03-abcdefghijklmnopqrstuvwxyz")
    return Player([recording_of(answer("A frog.")), recording_of(answer("Leaves."))], speed=0)


def test_what_is_not_there_is_recorded_once_without_secrets_and_then_played(
    project: pytest.Pytester, api: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Background() as background:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", background.enter(Server(api, port=0)).base_url)
        first = run(project, TWO_QUESTIONS, "--rawsse-record=once")
        first.assert_outcomes(passed=1)
        assert "rawsse: RECORDING (once) the answers of the real API" in said(first)
        assert len(api.requests) == 2
        run(project, TWO_QUESTIONS, "--rawsse-record=once").assert_outcomes(passed=1)
        assert len(api.requests) == 2
        run(project, TWO_QUESTIONS, "--rawsse-record=all").assert_outcomes(passed=1)
        assert len(api.requests) == 4
    run(project, TWO_QUESTIONS).assert_outcomes(passed=1)
    spring = Recording.load(project.path / "recordings/spring.sse.jsonl")
    reply = spring.message()
    assert reply is not None
    assert reply["content"] == [{"type": "text", "text": "A frog."}]
    assert spring.request is not None
    assert spring.request.body["messages"] == [{"role": "user", "content": "spring?"}]
    assert "abcdefghijklmnopqrstuvwxyz" not in spring.dump()


def test_a_recording_that_the_test_itself_names_is_made_with_the_users_own_key(
    project: pytest.Pytester, api: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = """
def test_it(replay):
    assert os.environ["ANTHROPIC_API_KEY"] == "replay-needs-no-key"
    replay.play("spring")
    assert os.environ["ANTHROPIC_API_KEY"].startswith("sk-ant-api03-")
    assert os.environ["ANTHROPIC_BASE_URL"] == replay.base_url
    assert b"A frog." in ask()
"""
    with Background() as background:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", background.enter(Server(api, port=0)).base_url)
        run(project, test, "--rawsse-record=once").assert_outcomes(passed=1)
    assert (project.path / "recordings/spring.sse.jsonl").is_file()


def test_recordings_that_come_with_rawsse_and_made_up_answers_are_never_recorded(
    project: pytest.Pytester, api: Player
) -> None:
    del api
    result = run(
        project,
        """
@pytest.mark.replay("plain")
def test_shipped():
    assert b"message_stop" in ask()

@pytest.mark.replay(answer("Hello."))
def test_made_up():
    assert b"Hello." in ask()
""",
        "--rawsse-record=all",
    )
    result.assert_outcomes(passed=2)
    assert not (project.path / "recordings").exists()


@pytest.mark.parametrize("fails", ["assert False", "pytest.skip()", 'ask("once more")'])
def test_of_a_test_that_does_not_pass_nothing_is_written(
    project: pytest.Pytester, api: Player, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    (project.path / "recordings").mkdir()
    recording_of(answer("A pond.")).save(project.path / "recordings/spring.sse.jsonl")
    with Background() as background:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", background.enter(Server(api, port=0)).base_url)
        run(project, f"{TWO_QUESTIONS}    {fails}\n", "--rawsse-record=all")
    assert [file.name for file in (project.path / "recordings").iterdir()] == ["spring.sse.jsonl"]
    spring = Recording.load(project.path / "recordings/spring.sse.jsonl").message()
    assert spring is not None
    assert spring["content"] == [{"type": "text", "text": "A pond."}]


def test_a_conftest_says_what_is_scrubbed(
    project: pytest.Pytester, api: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makeconftest(POLICY)
    test = """
@pytest.mark.replay("it")
def test_it():
    ask("What of acme-7781-internal?")
"""
    with Background() as background:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", background.enter(Server(api, port=0)).base_url)
        run(project, test, "--rawsse-record=once").assert_outcomes(passed=1)
    text = (project.path / "recordings/it.sse.jsonl").read_text(encoding="utf-8")
    assert "What of " in text
    assert "acme-7781-internal" not in text


def test_a_warning_says_that_a_new_recording_plays_another_text_than_the_test_heard(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "any-key-of-the-api")
    secret = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz"
    test = f"""
@pytest.mark.replay("it")
def test_it():
    assert b"The key is {secret}" in ask()
"""
    with Background() as background:
        api = Player(recording_of(answer(f"The key is {secret}"), fragments="whole"), speed=0)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", background.enter(Server(api, port=0)).base_url)
        result = run(project, test, "--rawsse-record=once", "-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    assert "rawsse: secrets hidden in the recorded answers of this test: 1. The next run plays asterisks" in said(
        result
    )
    run(project, test).assert_outcomes(failed=1)


def test_the_options_and_the_mark_lead_to_what_they_mean(project: pytest.Pytester) -> None:
    assert "ANTHROPIC_BASE_URL" in " ".join(said(project.runpytest_inprocess(*LOADED, *ALONE, "--help")).split())
    marks = said(project.runpytest_inprocess(*LOADED, *ALONE, "--markers"))
    assert re.search(r"@pytest\.mark\.replay\(.*python -m pydoc rawsse\.replay\.pytest_plugin", marks)


def test_more_exchanges_than_names_are_not_written(
    project: pytest.Pytester, api: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Background() as background:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", background.enter(Server(api, port=0)).base_url)
        result = run(project, TWO_QUESTIONS.replace('"spring", "autumn"', '"spring"'), "--rawsse-record=once")
    assert "rawsse: exchanges with the API: 2, names for their recordings: 1 (spring.sse.jsonl)" in said(result)
    assert "Traceback" not in said(result)
    assert not (project.path / "recordings").exists()


def test_without_a_key_nothing_is_recorded(project: pytest.Pytester) -> None:
    result = run(project, TWO_QUESTIONS, "--rawsse-record=once")
    result.assert_outcomes(errors=1)
    assert "rawsse: recording needs a key for the real API: set ANTHROPIC_API_KEY" in said(result)


# --- In other people's projects


def test_a_test_run_that_uses_nothing_of_it_loads_nothing_of_rawsse(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import sys
        def test_it():
            assert [name for name in sys.modules if name.startswith("rawsse")] == []
            assert sys.modules["_rawsse_pytest"].guard  # it is the plugin
        """
    )
    # As it is installed: outside of the package.
    shutil.copy(ROOT / "rawsse/replay/entry.py", project.path / "_rawsse_pytest.py")
    path = os.pathsep.join([str(project.path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *ALONE, *(() if is_installed() else ("-p", "_rawsse_pytest"))],
        cwd=project.path,
        env=environment({"PYTHONPATH": path}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_made_up_project_is_green_with_nothing_but_the_plugin(tmp_path: Path) -> None:
    project = shutil.copytree(
        MADE_UP_PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache")
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *LOADED],
        cwd=project,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert done.stderr == ""


def test_the_project_metadata_name_the_plugin() -> None:
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert metadata["project"]["entry-points"]["pytest11"] == {"rawsse": "_rawsse_pytest"}
    wheel = metadata["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["rawsse/replay/entry.py"] == "_rawsse_pytest.py"


def test_the_installed_plugin_is_this_one() -> None:
    found = PathFinder.find_spec("_rawsse_pytest")  # what lies there, not what it has made of itself
    if found is None or found.origin is None:
        pytest.skip("rawsse is not installed")
    source = ROOT / "rawsse/replay/entry.py"
    assert Path(found.origin).read_bytes() == source.read_bytes(), "install rawsse again: the file is copied"
