"""The blocking client in processes of its own: Ctrl-C, fork, the garbage collector and the interpreter's end.

The processes run in Python's development mode, where every warning is an error: their standard error must stay empty.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from textwrap import dedent

import pytest
from support.answers import SSE_HEAD, answer, chunked
from support.background import PATIENCE, Background
from support.command import Command
from support.streams import ANSWER, block_start, start, text_delta, to_bytes

from rawsse.replay import ReplayServer

from .stack import recorded, text

# Later Pythons warn of every fork in a process with threads.
STRICT = ("-X", "dev", "-W", "error", "-W", "ignore:.*fork:DeprecationWarning")

SETUP = """
import atexit, gc, os, sys
from rawsse.client.blocking import Client
ASK = {"model": "claude-sonnet-5", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
def say(*words): print(*words, flush=True)
"""

BEGINNING = chunked(
    to_bytes([start(), block_start(0, {"type": "text", "text": ""}), text_delta(0, "Hel")])
).removesuffix(b"0\r\n\r\n")


def python(script: str, base_url: str, *arguments: str) -> Command:
    env = {"ANTHROPIC_BASE_URL": base_url, "ANTHROPIC_API_KEY": "sk-any", "PYTHONIOENCODING": "utf-8"}
    return Command(*arguments, program=(*STRICT, "-c", SETUP + script), env=env)


def output(command: Command) -> list[str]:
    """All lines that are still to come."""
    return [line.rstrip("\n") for line in iter(command.line, "")]


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


class Upstream:
    """A server that answers when the test says so."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def accept(self) -> socket.socket:
        """The next connection, its request read."""
        peer, _ = self._listener.accept()
        peer.settimeout(PATIENCE)
        received = b""
        while not received.endswith(b"}"):
            received += peer.recv(65536)
        return peer


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        yield Upstream(listener)


def is_closed(peer: socket.socket) -> bool:
    """The other side has closed; waits until it has."""
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


WAYS = """
def head(client):
    client.messages.create(**ASK)

def middle(client):
    with client.messages.stream(**ASK) as stream:
        for text in stream.text_stream:
            say(text)

def final(client):
    with client.messages.stream(**ASK) as stream:
        say("open")
        stream.get_final_message()

client = Client(max_retries=0)
"""

CAUGHT = """
try:
    globals()[sys.argv[1]](client)
except KeyboardInterrupt:
    say("interrupted")
say(client.messages.create(**ASK).text)
"""


def interrupt(command: Command) -> None:
    os.kill(command._process.pid, signal.SIGINT)


@pytest.mark.parametrize(("where", "sign"), [("head", ""), ("middle", "Hel\n"), ("final", "open\n")])
def test_ctrl_c_closes_the_connection_and_the_client_is_still_good(upstream: Upstream, where: str, sign: str) -> None:
    with python(WAYS + CAUGHT, upstream.base_url, where) as command:
        with upstream.accept() as first:
            if sign:
                first.sendall(SSE_HEAD + BEGINNING)
                assert command.line() == sign
            interrupt(command)
            assert is_closed(first)
        assert command.line() == "interrupted\n"
        with upstream.accept() as second:
            second.sendall(answer(ANSWER))
            assert output(command) == ["Hello ☺"]
        assert command.wait() == 0
        assert command.complaint() == ""


@pytest.mark.parametrize(("where", "sign"), [("head", ""), ("middle", "Hel\n"), ("final", "open\n")])
def test_ctrl_c_that_nobody_catches_ends_the_process_as_it_ends_any_other(
    upstream: Upstream, where: str, sign: str
) -> None:
    with (
        python(WAYS + "globals()[sys.argv[1]](client)", upstream.base_url, where) as command,
        upstream.accept() as peer,
    ):
        if sign:
            peer.sendall(SSE_HEAD + BEGINNING)
            assert command.line() == sign
        interrupt(command)
        assert is_closed(peer)
        assert command.wait() == -signal.SIGINT
        complaint = command.complaint()
    assert complaint.startswith("Traceback (most recent call last):\n")
    assert complaint.endswith("KeyboardInterrupt\n")
    assert f", in {where}\n" in complaint
    assert not any(words in complaint for words in ("never retrieved", "never awaited", "ignored", "Warning"))


# --- Fork, garbage, the end ------------------------------------------------------------------------------------------


@pytest.fixture
def base_url() -> Iterator[str]:
    """A Messages API of which everything is a plain answer."""
    with Background() as background:
        yield background.enter(ReplayServer([recorded("plain")])).base_url


def run(script: str, base_url: str) -> list[str]:
    with python(script, base_url) as command:
        lines = output(command)
        assert command.wait() == 0, command.complaint()
        assert command.complaint() == ""
    return lines


ANSWER_CHARS = str(len(text("plain")))

FORKED = """
client = Client()
def chars(): return len(client.messages.create(**ASK).text)
say("parent", chars())
with client.messages.stream(**ASK) as stream:
    next(stream)
    if (child := os.fork()) == 0:
        say("child", chars(), client.with_options(max_retries=0).is_closed)
        stream.close()
        try:
            stream.until_done()
        except RuntimeError as exc:
            say(exc)
        client.close()
        os._exit(0)
    os.waitpid(child, 0)
    say("parent", len(stream.get_final_text()))
say("parent", chars())
client.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_connections_of_its_own_and_leaves_the_parent_s_alone(base_url: str) -> None:
    assert run(FORKED, base_url) == [
        f"parent {ANSWER_CHARS}",
        f"child {ANSWER_CHARS} False",
        "the process has forked: what was opened in the parent cannot be used in the child",
        f"parent {ANSWER_CHARS}",
        f"parent {ANSWER_CHARS}",
    ]


def test_a_client_that_is_dropped_ends_without_a_word(base_url: str) -> None:
    script = """
        client = Client()
        client.messages.create(**ASK)
        threads = [thread for thread in __import__("threading").enumerate() if thread.name == "rawsse client"]
        del client
        gc.collect()
        threads[0].join()
        say("over")
    """
    assert run(dedent(script), base_url) == ["over"]


def test_a_client_that_is_never_closed_ends_with_the_interpreter(base_url: str) -> None:
    assert run("client = Client()\nsay(len(client.messages.create(**ASK).text))", base_url) == [ANSWER_CHARS]


def test_a_call_in_a_daemon_thread_does_not_keep_the_process(upstream: Upstream) -> None:
    script = """
        import threading
        client = Client(max_retries=0)
        threading.Thread(target=client.messages.create, kwargs=ASK, daemon=True).start()
        try:
            while True:
                threading.Event().wait(0.1)
        except KeyboardInterrupt:
            pass
    """
    with python(dedent(script), upstream.base_url) as command, upstream.accept():
        interrupt(command)
        assert command.wait() == 0
        assert command.complaint() == ""


def test_a_client_works_in_atexit(base_url: str) -> None:
    script = """
        atexit.register(lambda: say(len(client.messages.create(**ASK).text)))
        client = Client()
        say(len(client.messages.create(**ASK).text))
    """
    assert run(dedent(script), base_url) == [ANSWER_CHARS, ANSWER_CHARS]
