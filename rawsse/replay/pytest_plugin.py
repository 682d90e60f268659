"""The pytest plugin: a Messages API made of recordings as a fixture, and a clock that jumps.

It imports nothing from rawsse until a test uses it, so that other test runs pay nothing. For the same reason it is loaded by
its path (`_rawsse_pytest.py`), not through the package.

    @pytest.mark.replay("weather")                              # recordings/weather.sse.jsonl beside the test file
    def test_the_bot_says_what_the_weather_is(replay):
        assert my_bot.ask("Oslo?") == "It rains in Oslo."       # the code under test, led here by ANTHROPIC_BASE_URL
        assert replay.requests[0].body["model"] == "claude-sonnet-5"

    @pytest.mark.replay(answer("Hello."), faults=["status=529 x1"])             # a made-up answer, and a fault
    @pytest.mark.replay("a", "b", match="sequence")             # each once, in this order; fails if one is left
    replay.play("weather", split=split)                         # reads split as the test's parameter says: "event", 7 …
    async def test_…(replay, virtual_clock)                     # test and API run in virtual time; pytest-asyncio too

`play` and the mark take `match`, `faults`, `rewrite`, `pace`, `speed`, `split` (into HTTP chunks), `segments` (into TCP writes)
and `segment_seconds` (between two of these). A client in another thread may read several pieces at once. To test every
split, use `virtual_clock`, where each piece is one read even without `segment_seconds`, or call the parser directly.

Names are looked up in the test file's folder, in `recordings/` there, and among the recordings shipped with rawsse. An
`answer(…)` is given as it is; `recording_of(answer(…), …)` is needed only to set its fragments, pings or ending. The arguments
of the mark are those of `Replay.play`, and `env=False` leaves the environment unchanged. A mark on a function takes precedence
over one on its class or module. `replay` is set up before a test's other fixtures, since those may make clients. A client that
is made when its module is imported has already read the environment.

No test passes by mistake. It fails if no request arrived, if no recording answers one, if its `match` function raises an
exception, or if a fault never happened, or in fewer requests than its `xN` says: because of too few requests, or because
another fault ended the answer before it. While a test uses `replay`, connections to other machines are refused (`guard`): a
client that misses the test's API does not reach the real one with the real key. A refused connection fails the test at its
end, even if the code under test catches the error. `network=True` allows such connections; `network=False` refuses them
without failing the test.

(PYTEST_DONT_REWRITE: there are no assertions here, and a second pytest in one process would warn that it cannot rewrite them.)

Recordings are made only with `--rawsse-record=once` (missing ones) or `all`, and only by tests that pass. They come from
ANTHROPIC_BASE_URL if it is set, else from the real API. `mark.replay("weather")` makes `recordings/weather.sse.jsonl`; a file
may have any name, and the mark takes it without `.sse.jsonl`. A fixture in `conftest.py` or in a test file sets what is
scrubbed:

    @pytest.fixture(scope="session")
    def rawsse_scrub_policy(): return ScrubPolicy(secrets=("our-project-name",))

A warning reports text hidden in an answer: the next run plays a different text from the one received.
"""

from __future__ import annotations

import inspect
import ipaddress
import os
import socket
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest

if TYPE_CHECKING:
    from types import FrameType

    from rawsse.replay.fixture import Replay
    from rawsse.replay.scrub import ScrubPolicy
    from rawsse.replay.virtual_clock import VirtualClock

_MARK = "replay(*sources, env, network, **play): what the Messages API plays; see `python -m pydoc rawsse.replay.pytest_plugin`"
_HIDDEN = "secrets hidden in the recorded answers of this test: {}. The next run plays asterisks in their place"
T = TypeVar("T")

_REPLAY = pytest.StashKey["Replay"]()
_REFUSED = pytest.StashKey[tuple[list[str], bool]]()  # the refused connections, and whether the test expects them
_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
_UNKNOWN_TO_REPLAY = ("env", "network")
_HINT = (
    ". Was the client made before the test began (when its module was imported), or is its address written in the code? "
    "@pytest.mark.replay(..., network=True) allows other connections, and network=False says that the test expects this"
)


# --- Options ---------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rawsse-record`."""
    parser.getgroup("rawsse").addoption(
        "--rawsse-record",
        choices=("none", "once", "all"),
        default="none",
        help="record the answers of the real API (ANTHROPIC_BASE_URL, if it is set, leads to another): once for recordings "
        "that do not exist, or all of them",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line("markers", _MARK)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Announce that the real API will be used."""
    which = config.getoption("--rawsse-record")
    return None if which == "none" else f"rawsse: RECORDING ({which}) the answers of the real API"


# --- Fixtures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def replay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replay]:
    """A Messages API on this machine that plays recordings: `play`, `base_url`, `requests`."""
    from rawsse.replay.fixture import Replay

    node = request.node
    sources, options = _marked(node)
    env, network = (options.pop(name, None) for name in _UNKNOWN_TO_REPLAY)
    which = request.config.getoption("--rawsse-record")
    record = None if which == "none" else which
    own = {name: os.environ[name] for name in _KEYS if name in os.environ}
    if record is not None and not any(own.values()):
        _fail("recording needs a key for the real API: set ANTHROPIC_API_KEY")
    replay = Replay(
        node.path.parent,
        record=record,
        record_url=os.environ.get("ANTHROPIC_BASE_URL"),
        policy=None if record is None else request.getfixturevalue("rawsse_scrub_policy"),
        on_start=partial(_lead_here, monkeypatch, own) if env is not False else lambda _: None,
    )
    if sources:
        _or_fail(lambda: replay.play(*sources, **options))
    node.stash[_REPLAY] = replay
    has_clock = "virtual_clock" in request.fixturenames  # which serves the API in its own loop
    clock_check = partial(_require_clock, replay) if has_clock else lambda *_: None
    with guard(is_off=lambda: bool(network) or replay.is_recording, hint=_HINT, on_connect=clock_check) as refused:
        node.stash[_REFUSED] = refused, network is False
        if has_clock:
            with replay.kept():
                yield replay
        else:
            replay.__enter__()
            yield replay
            _or_fail(replay.__exit__)
            if replay.hidden:
                warnings.warn(f"rawsse: {_HIDDEN.format(replay.hidden)}", pytest.PytestWarning, stacklevel=1)


@pytest.fixture(scope="session")
def rawsse_scrub_policy() -> ScrubPolicy | None:
    """The policy for scrubbing new recordings, which a `conftest.py` may override. None: the default."""
    return None


@pytest.fixture
def virtual_clock(request: pytest.FixtureRequest) -> VirtualClock:
    """Runs coroutines without waiting: `run`, `elapsed`. It also runs `async def` tests that use it."""
    from rawsse.replay.virtual_clock import VirtualClock

    if "replay" not in request.fixturenames:
        return VirtualClock()
    replay: Replay = request.getfixturevalue("replay")
    return VirtualClock(lambda: replay)


def _lead_here(monkeypatch: pytest.MonkeyPatch, own: Mapping[str, str], replay: Replay) -> None:
    """Point clients that read the environment at this API, and nowhere else. `own` has the keys that the environment had."""
    for name in _KEYS:
        monkeypatch.delenv(name, raising=False)
    for name, value in {**(own if replay.is_recording else {}), **replay.environment}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host not in ("", "127.0.0.1")]
        monkeypatch.setenv(name, ",".join([*hosts, "127.0.0.1"]))


# --- Virtual time ----------------------------------------------------------------------------------------------------

_HOW = (
    "virtual_clock runs `async def` tests; in a `def` test, call virtual_clock.run(coroutine). Code that blocks takes real "
    "time: test it without virtual_clock"
)


def _require_clock(replay: Replay, sock: socket.socket, port: int) -> None:
    """Fail a test whose client connects while the API is not served or blocks the loop that serves it."""
    if not replay.environment["ANTHROPIC_BASE_URL"].endswith(f":{port}"):
        return
    words = "blocks the event loop that serves the API" if replay.is_served else "uses the API outside of virtual_clock"
    if not replay.is_served or _is_blocking(sock):
        sock.close()  # clients do not expect the exception raised here
        _fail(f"a client {words}. {_HOW}")


def _is_blocking(sock: socket.socket) -> bool:
    """Whether the caller of `connect` runs in the clock's loop, and will block it."""
    import asyncio

    from rawsse.replay.virtual_clock import VirtualClockLoop

    if not isinstance(asyncio._get_running_loop(), VirtualClockLoop):
        return False
    frame: FrameType | None = sys._getframe()
    while frame is not None and not str(frame.f_globals.get("__name__")).startswith("rawsse.client.blocking."):
        frame = frame.f_back
    return frame is not None or sock.gettimeout() != 0


# --- Other machines --------------------------------------------------------------------------------------------------


@contextmanager
def guard(
    *,
    is_off: Callable[[], bool] = lambda: False,
    hint: str = "",
    on_connect: Callable[[socket.socket, int], object] = lambda *_: None,
) -> Iterator[list[str]]:
    """Refuse connections to other machines; yields the list of refused ones ("api.anthropic.com port 443").

    asyncio, `http.client`, httpx, requests and most others use `socket.socket`, whose `connect` is patched here for the whole
    process; so is `socket.getaddrinfo`, so that the message has a name instead of a number. Not covered are libraries with
    their own sockets (uvloop and grpc, for example), other processes, and proxies on this machine.

    `is_off` is called for each connection; True allows it. `hint` is appended to the error's message. `on_connect` is called
    with each socket that connects to this machine, and the port.
    """
    refused: list[str] = []
    getaddrinfo = socket.getaddrinfo

    def check(host: Any, port: Any) -> None:
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
        if name is None or is_this_machine(str(name)) or is_off():
            return
        place = f"{name} port {port}"
        if place not in refused:
            refused.append(place)
        # The error of a firewall: the code under test handles it as any other network failure.
        raise PermissionError(f"a connection to {place} was refused: this test may not reach other machines{hint}")

    def guarded(connect: Callable[[socket.socket, Any], T]) -> Callable[[socket.socket, Any], T]:
        def guarded_connect(sock: socket.socket, address: Any, /) -> T:
            if sock.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple) and len(address) > 1:
                check(address[0], address[1])
                on_connect(sock, address[1])
            return connect(sock, address)

        return guarded_connect

    def guarded_getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        check(host, port)
        return getaddrinfo(host, port, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
        patch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
        yield refused


def is_this_machine(host: str) -> bool:
    """Whether the name or address is this machine."""
    name = host.lower().rstrip(".")
    # RFC 6761, 6.3: "localhost." and names below it are loopback.
    if name in ("", "localhost", socket.gethostname().lower()) or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address  # Python < 3.13: ::ffff:127.0.0.1 is not loopback
    return bool(mapped.is_loopback or mapped.is_unspecified)


# --- The marks -------------------------------------------------------------------------------------------------------


def _marked(node: pytest.Item) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The sources and options of a test's marks; the nearest mark takes precedence."""
    sources: tuple[Any, ...] = ()
    options: dict[str, Any] = {}
    for mark in node.iter_markers("replay"):
        sources = sources or mark.args
        options = {**mark.kwargs, **options}
    from rawsse.replay.fixture import PlayOptions

    known = [*PlayOptions.__annotations__, "strict", *_UNKNOWN_TO_REPLAY]
    if wrong := [name for name in options if name not in known]:
        _fail(f"@pytest.mark.replay has no argument {wrong[0]!r}; it has {', '.join(known)}")
    if not sources and (idle := [name for name in options if name not in _UNKNOWN_TO_REPLAY]):
        _fail(f"@pytest.mark.replay has {idle[0]}=…, but no recording to play")
    return sources, options


def _or_fail(work: Callable[[], T]) -> T:
    """The result of `work`. A mistake in the test is reported by its message alone, which is clearer than a traceback."""
    from rawsse.errors import UsageError

    try:
        return work()
    except (UsageError, OSError) as exc:
        message = str(exc)
    return _fail(message)


def _fail(message: str) -> NoReturn:
    pytest.fail(f"rawsse: {message}", pytrace=False)


# --- Hooks -----------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Set up `replay` for a marked test, even without the fixture, and before its other fixtures, which may need it."""
    names: list[str] | None = getattr(item, "fixturenames", None)
    if names is not None and (item.get_closest_marker("replay") is not None or _asks_for_ours(item, "replay")):
        if "replay" in names:
            names.remove("replay")
        names.insert(0, "replay")
    return (yield from _telling(item, "setup"))


def _asks_for_ours(item: pytest.Item, name: str) -> bool:
    """Whether the test uses this plugin's fixture of that name."""
    info = getattr(item, "_fixtureinfo", None)  # only functions have it
    found = () if info is None else info.name2fixturedefs.get(name, ())
    return any(each.func.__module__ == __name__ for each in found[-1:])  # the last is the nearest


def _give_to_clock(item: pytest.Item) -> None:
    """Let the clock run an `async def` test: another plugin would run it in real time."""
    if not isinstance(item, pytest.Function) or not _asks_for_ours(item, "virtual_clock"):
        return
    import unittest

    is_unittest = item.cls is not None and issubclass(item.cls, unittest.TestCase)
    if inspect.iscoroutinefunction(item.obj) and not is_unittest:
        clock: Any = item.funcargs["virtual_clock"]
        arguments = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}
        item.runtest = lambda: clock.run(item.obj(**arguments))  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that passed although no recording answered a request, or something was not played."""
    _give_to_clock(item)
    result = yield from _telling(item, "call")
    if problems := _problems(item, is_over=True):
        item.stash[_REPLAY].is_failed = True
        _fail("\n".join(problems))
    return result


def _problems(item: pytest.Item, *, is_over: bool) -> list[str]:
    replay = item.stash.get(_REPLAY, None)
    if replay is None:
        return []
    found = replay.problems(is_over=is_over)
    refused, is_expected = item.stash.get(_REFUSED, ([], False))
    if refused and (found or not is_over or not is_expected):
        found.append(f"connections to {', '.join(refused)} were refused{_HINT}")
    return found


def _telling(item: pytest.Item, when: str) -> Generator[None, object, object]:
    """Add the problems to the report of a test that fails: the client under test may have hidden them."""
    try:
        return (yield)
    except BaseException:
        if _REPLAY in item.stash:
            item.stash[_REPLAY].is_failed = True
        if problems := _problems(item, is_over=False):
            item.add_report_section(when, "rawsse", "\n".join(problems))
        raise
