"""The blocking client in processes of its own: Ctrl-C, fork, the garbage collector and the interpreter's end.

The processes run in Python's development mode, where every warning is an error: their standard error must stay empty.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from textwrap import dedent
from typing import Any

import pytest
from support.answers import SSE_HEAD, answer, plain
from support.asking import calling
from support.background import Background
from support.command import STRICT, Command
from support.sockets import LOCALHOST
from support.streams import ANSWER
from support.upstream import HELLO, Upstream, is_closed, piece

from rawsse.replay import ReplayServer

from .stack import recorded, text

SETUP = """
import atexit, gc, os, signal, sys, threading
from rawsse import Client, PoolLimits, tool
ASK = {"model": "claude-sonnet-5", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
def say(*words): print(*words, flush=True)
"""


def python(script: str, base_url: str, *arguments: str, **options: Any) -> Command:
    env = {"ANTHROPIC_BASE_URL": base_url, "ANTHROPIC_API_KEY": "sk-any", "SSL_CERT_FILE": str(LOCALHOST)}
    return Command(*arguments, program=("-c", SETUP + dedent(script)), flags=STRICT, env=env, **options)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------

AT_ONCE = 1.0
"""Seconds: longer than it takes on a machine with much else to do, and shorter than any wait in these tests."""

# `tell` says "waiting" when the main thread waits in the client, for a socket ("ready") or a signal ("wait").
WAYS = """
MODULES = ("rawsse.client.network.connect", "rawsse.client.blocking.network")

def tell(*waits):
    def look():
        while True:
            frame = sys._current_frames()[threading.main_thread().ident]
            if frame.f_code.co_name in waits and frame.f_globals["__name__"] in MODULES:
                return say("waiting")
            threading.Event().wait(0.001)
    threading.Thread(target=look, daemon=True).start()

def create(client, wait="ready"):
    tell(wait)
    client.messages.create(**ASK)

def opened(client, wait="ready"):
    tell(wait)
    with client.messages.stream(**ASK):
        pass

def events(client):
    events = client.messages.create(**ASK, stream=True)
    say("open", next(events).type)
    for event in events:
        if event.type == "content_block_start":
            tell("ready")

def middle(client):
    with client.messages.stream(**ASK) as stream:
        for text in stream.text_stream:
            say("open", text)
            tell("ready")

def final(client):
    with client.messages.stream(**ASK) as stream:
        tell("ready")
        stream.get_final_message()

def queue(client):
    with client.messages.stream(**ASK):
        create(client, "wait")

def queue_with(client):
    with client.messages.stream(**ASK):
        opened(client, "wait")

def retry(client):
    create(client, "wait")

def retry_with(client):
    opened(client, "wait")
"""

# Goes the ways that its standard input says.
CAUGHT = """
for line in sys.stdin:
    way, base_url = line.split()
    with Client(base_url=base_url, max_retries=1, limits=PoolLimits(max_connections=1)) as client:
        try:
            globals()[way](client)
        except KeyboardInterrupt:
            pool = client._inner._pools.here()
            say("interrupted", pool.open_connections - len(pool.idle), len(pool.queue))
        say(client.messages.create(**ASK).text)
"""

BUSY = plain(
    b'{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}', "529 Busy", retry_after="50"
)

Next = Callable[[], socket.socket]
"""Waits until the client has gone: the connection on which it asks again."""

Go = Callable[[], object]
"""Lets the client go."""

Play = Callable[[Upstream, Go], contextlib.AbstractContextManager[Next]]
"""Plays the server until the client waits."""


@contextlib.contextmanager
def head(upstream: Upstream, go: Go) -> Iterator[Next]:
    """There is no answer."""
    go()
    peer = upstream.accept()
    yield lambda: gone(peer, upstream)


@contextlib.contextmanager
def middle(upstream: Upstream, go: Go) -> Iterator[Next]:
    """The answer has begun."""
    go()
    peer = upstream.accept()
    peer.sendall(SSE_HEAD + piece(*HELLO[:3]))
    yield lambda: gone(peer, upstream)


@contextlib.contextmanager
def retry(upstream: Upstream, go: Go) -> Iterator[Next]:
    """The server asked to wait."""
    go()
    peer = upstream.accept()
    peer.sendall(BUSY)
    yield lambda: upstream.read_request(peer)  # it has rested


@contextlib.contextmanager
def connecting(upstream: Upstream, go: Go) -> Iterator[Next]:
    """No connection is made."""
    with upstream.full():
        go()
        yield upstream.accept


@contextlib.contextmanager
def handshake(upstream: Upstream, go: Go) -> Iterator[Next]:
    """The server says nothing in the handshake of TLS."""
    go()
    peer = upstream.connected()
    peer.recv(65536)
    yield lambda: gone(peer, upstream)


def gone(peer: socket.socket, upstream: Upstream) -> socket.socket:
    assert is_closed(peer)
    return upstream.accept()


class Subject:
    """A process that goes the ways that it is told, and starts again if a test failed."""

    def __init__(self) -> None:
        self._command: Command | None = None

    @contextlib.contextmanager
    def ready(self) -> Iterator[Command]:
        command = self._command or python(WAYS + CAUGHT, "", stdin=subprocess.PIPE)
        self._command = None
        try:
            yield command
        except BaseException:
            with command:
                raise
        self._command = command

    def end(self) -> None:
        if (command := self._command) is not None:
            with command:
                command.close_input()
                assert (command.wait(), command.complaint()) == (0, "")


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    subject = Subject()
    yield subject
    subject.end()


def interrupt(command: Command) -> None:
    command.send_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("way", "play", "tls"),
    [
        ("create", head, False),
        ("opened", head, False),
        ("events", middle, False),
        ("middle", middle, False),
        ("final", middle, False),
        ("events", middle, True),
        ("middle", middle, True),
        ("retry", retry, False),
        ("retry_with", retry, False),
        ("queue", middle, False),
        ("queue_with", middle, False),
        ("create", connecting, False),
        ("opened", connecting, False),
        ("create", handshake, True),
        ("opened", handshake, True),
    ],
    ids=lambda value: getattr(value, "__name__", {False: "plain", True: "TLS"}.get(value, value)),
)
def test_ctrl_c_is_raised_at_once_the_connection_is_closed_and_the_client_is_good(
    subject: Subject, way: str, play: Play, tls: bool
) -> None:
    with Upstream(tls=tls) as upstream, subject.ready() as command:
        with play(upstream, lambda: command.write(f"{way} {upstream.base_url}\n")) as asks_again:
            while (line := command.line()) != "waiting\n":
                assert line.startswith("open "), line
            before = time.monotonic()
            interrupt(command)
            assert command.line() == "interrupted 0 0\n"
            assert time.monotonic() - before < AT_ONCE
        asks_again().sendall(answer(ANSWER))
        assert command.line() == "Hello ☺\n"


@pytest.mark.parametrize(("way", "play"), [("create", head), ("middle", middle), ("final", middle), ("queue", middle)])
def test_ctrl_c_that_is_not_caught_ends_the_process_as_it_ends_any_other(
    upstream: Upstream, way: str, play: Play
) -> None:
    script = "client = Client(limits=PoolLimits(max_connections=1))\nglobals()[sys.argv[1]](client)"
    with python(WAYS + script, upstream.base_url, way) as command, play(upstream, lambda: None):
        while command.line() != "waiting\n":
            pass
        interrupt(command)
        assert command.wait() == -signal.SIGINT
        complaint = command.complaint()
    assert complaint.startswith("Traceback (most recent call last):\n")
    assert complaint.endswith("KeyboardInterrupt\n")
    assert f", in {way}\n" in complaint
    assert not any(words in complaint for words in ("never retrieved", "never awaited", "ignored", "Warning"))


# --- Fork, garbage, the end ------------------------------------------------------------------------------------------


@pytest.fixture
def base_url() -> Iterator[str]:
    """A Messages API of which everything is a plain answer."""
    with Background() as background:
        yield background.enter(ReplayServer([recorded("plain")])).base_url


def run(script: str, base_url: str) -> list[str]:
    with python(script, base_url) as command:
        lines = command.output().splitlines()
        assert command.wait() == 0, command.complaint()
        assert command.complaint() == ""
    return lines


ANSWER_CHARS = str(len(text("plain")))

IN_CHILD = """
def in_child(work):
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

FORKED = """
client = Client()
def chars(): return len(client.messages.create(**ASK).text)
say("parent", chars(), len(client._inner._pools.here().idle))

with client.messages.stream(**ASK) as stream:
    next(stream)
    def work():
        say("child", chars(), client.with_options(max_retries=0).is_closed())
        try:
            stream.until_done()
        except RuntimeError as exc:
            say(exc)
        stream.close()
        say("child", stream.ending.kind, chars())
        client.close()
    say("child ended with", in_child(work))
    say("parent", len(stream.get_final_text()), stream.ending.kind)
say("parent", chars(), len(client._inner._pools.here().idle))
client.close()
"""


@needs_fork
def test_a_forked_child_has_connections_of_its_own_and_leaves_the_parent_s_alone(base_url: str) -> None:
    assert run(IN_CHILD + FORKED, base_url) == [
        f"parent {ANSWER_CHARS} 1",
        f"child {ANSWER_CHARS} False",
        "the process has forked: the child cannot use its parent's connections or streams",
        f"child cancelled {ANSWER_CHARS}",
        "child ended with 0",
        f"parent {ANSWER_CHARS} complete",
        f"parent {ANSWER_CHARS} 1",
    ]


# Another thread reads, and one holds the lock of the pool, for ever in the child.
FORKED_IN_USE = """
client = Client()
stream = client.messages.stream(**ASK).__enter__()
reader = threading.Thread(target=stream.until_done)
reader.start()
while stream._inner._call._thread is None:
    pass
pool = client._inner._pools.here()
held, done = threading.Event(), threading.Event()
def hold():
    with pool._lock:
        held.set()
        done.wait(10)
holder = threading.Thread(target=hold)
holder.start()
held.wait(10)

def work():
    global stream
    say("child", client.messages.create(**ASK).text)
    stream.close()
    stream = None
    gc.collect()
    client.close()

say("child ended with", in_child(work))
done.set()
holder.join()
say("open")
reader.join()
say("parent", stream.ending.kind, stream.get_final_text())
"""


@needs_fork
def test_a_child_that_is_forked_while_threads_use_the_client_can_use_and_close_it(upstream: Upstream) -> None:
    with python(IN_CHILD + FORKED_IN_USE, upstream.base_url) as command:
        parent = upstream.accept()
        parent.sendall(SSE_HEAD + piece(*HELLO))
        upstream.accept().sendall(answer(ANSWER))
        assert [command.line() for _ in range(3)] == ["child Hello ☺\n", "child ended with 0\n", "open\n"]
        parent.sendall(piece(*ANSWER[-3:]))
        assert command.output().splitlines() == ["parent complete Hello"]
        assert command.wait() == 0
        assert command.complaint() == ""


def test_a_client_that_is_dropped_closes_its_connection_without_a_word(base_url: str) -> None:
    script = """
        def next_descriptor():
            number = os.dup(1)
            os.close(number)
            return number

        before = next_descriptor()
        client = Client()
        client.messages.create(**ASK)
        say(next_descriptor() - before)
        del client
        gc.collect()
        say(next_descriptor() - before)
    """
    assert run(dedent(script), base_url) == ["1", "0"]


def test_a_client_that_is_never_closed_ends_with_the_interpreter(base_url: str) -> None:
    assert run("client = Client()\nsay(len(client.messages.create(**ASK).text))", base_url) == [ANSWER_CHARS]


def test_a_client_that_is_dropped_closes_its_connections(upstream: Upstream) -> None:
    script = """
        client = Client(max_retries=0)
        client.messages.create(**ASK)
        del client
        gc.collect()
        say("dropped")
        sys.stdin.read()
    """
    with python(script, upstream.base_url, stdin=subprocess.PIPE) as command:
        peer = upstream.accept()
        peer.sendall(answer(ANSWER))
        assert command.line() == "dropped\n"
        assert is_closed(peer)


def test_a_stream_that_is_dropped_half_read_closes_its_socket_and_warns(upstream: Upstream) -> None:
    script = """
        import warnings
        warnings.simplefilter("always")
        client = Client(max_retries=0)
        stream = client.messages.stream(**ASK).__enter__()
        say(next(stream.text_stream))
        del stream
        sys.stdin.read()
    """
    with python(script, upstream.base_url, stdin=subprocess.PIPE) as command:
        peer = upstream.accept()
        peer.sendall(SSE_HEAD + piece(*HELLO))
        assert command.line() == "Hel\n"
        assert is_closed(peer)
        command.close_input()
        assert "ResourceWarning: <MessageStream open, request req_1> was dropped" in command.complaint()


def test_a_call_in_a_daemon_thread_does_not_keep_the_process(upstream: Upstream) -> None:
    script = """
        client = Client(max_retries=0)
        try:
            threading.Thread(target=client.messages.create, kwargs=ASK, daemon=True).start()
            while True:
                threading.Event().wait(0.1)
        except KeyboardInterrupt:
            pass
    """
    with python(script, upstream.base_url) as command, upstream.accept():
        interrupt(command)
        assert command.wait() == 0
        assert command.complaint() == ""


def test_a_tool_that_hangs_in_its_thread_does_not_keep_the_process(upstream: Upstream) -> None:
    script = """
        @tool
        def meet(who: int) -> None:
            if who == 1:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            threading.Event().wait()

        client = Client(max_retries=0)
        try:
            client.messages.tool_runner(**ASK, tools=[meet]).until_done()
        except KeyboardInterrupt:
            say("interrupted")
    """
    with python(script, upstream.base_url) as command:
        upstream.accept().sendall(answer(calling(("meet", '{"who": 0}'), ("meet", '{"who": 1}'))))
        assert command.output().splitlines() == ["interrupted"]
        assert command.wait() == 0
        assert command.complaint() == ""


def test_a_client_works_in_atexit(base_url: str) -> None:
    script = """
        atexit.register(lambda: say(len(client.messages.create(**ASK).text)))
        client = Client()
        say(len(client.messages.create(**ASK).text))
    """
    assert run(script, base_url) == [ANSWER_CHARS, ANSWER_CHARS]


def test_tools_run_in_atexit_too_where_later_pythons_start_no_thread(upstream: Upstream) -> None:
    script = """
        @tool
        def meet(who: int) -> int:
            return who

        def end():
            runner = client.messages.tool_runner(**ASK, tools=[meet])
            say(runner.until_done().text, *[block["content"] for block in runner.messages[2]["content"]])

        client = Client(max_retries=0)
        atexit.register(end)
    """
    with python(script, upstream.base_url) as command:
        peer = upstream.accept()
        peer.sendall(answer(calling(("meet", '{"who": 0}'), ("meet", '{"who": 1}'))))
        upstream.read_request(peer).sendall(answer(ANSWER))
        assert command.output().splitlines() == ["Hello ☺ 0 1"]
        assert command.wait() == 0
        assert command.complaint() == ""


def test_a_name_is_looked_up_in_atexit_too(upstream: Upstream) -> None:
    script = "atexit.register(lambda: say(Client(max_retries=0).messages.create(**ASK).text))"
    with python(script, upstream.base_url.replace("127.0.0.1", "localhost")) as command:
        upstream.accept().sendall(answer(ANSWER))
        assert command.output().splitlines() == ["Hello ☺"]
        assert command.wait() == 0
        assert command.complaint() == ""


def test_a_signal_s_handler_may_close_the_stream_that_its_thread_reads(upstream: Upstream) -> None:
    script = """
        from rawsse.errors import StreamCancelledError
        client = Client(max_retries=0)
        with client.messages.stream(**ASK) as stream:
            signal.signal(signal.SIGTERM, lambda *_: stream.close())
            try:
                for text in stream.text_stream:
                    say(text)
            except StreamCancelledError as exc:
                say("closed", exc.partial.text, stream.ending.kind)
    """
    with python(script, upstream.base_url) as command:
        peer = upstream.accept()
        peer.sendall(SSE_HEAD + piece(*HELLO))
        assert [command.line(), command.line()] == ["Hel\n", "lo\n"]
        command.send_signal(signal.SIGTERM)
        assert is_closed(peer)
        assert command.output().splitlines() == ["closed Hello cancelled"]
        assert (command.wait(), command.complaint()) == (0, "")
