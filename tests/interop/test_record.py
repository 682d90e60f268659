"""The recording proxy, with clients that are not ours: they change their base URL, and notice nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.background import PATIENCE, Background
from support.command import environment

from rawsse.replay import Recorder, Recording, RecordingProxy, ReplayServer
from rawsse.server import Server

from .conftest import Node
from .stack import COMPLETE, message, recorded, refusal, text

pytestmark = pytest.mark.real

KEY = "sk-ant-of-the-client-0123456789"
REQUEST: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}

Record = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "recordings"


@pytest.fixture
def record(background: Background, folder: Path) -> Record:
    """Start a proxy before an API that is made of these recordings; where it listens."""

    def record(*recordings: Recording, **options: Any) -> str:
        upstream = background.enter(ReplayServer(recordings, **options))
        recorder = background.enter(Recorder(folder))
        proxy = background.enter(RecordingProxy(recorder, upstream.base_url))
        return background.enter(Server(proxy, port=0)).base_url

    return record


def kept(background: Background, folder: Path) -> list[Recording]:
    """What is in the folder when everything has ended that the test has begun."""
    background.run(background._entered.aclose())
    return [Recording.load(path) for path in sorted(folder.iterdir())]


@pytest.fixture
def sdk() -> Any:
    """Make a client of the official Python SDK."""
    anthropic = pytest.importorskip("anthropic", reason="the official SDK: the extra `interop`")
    return lambda url, **options: anthropic.Anthropic(base_url=url, api_key=KEY, **{"max_retries": 0, **options})


@pytest.mark.parametrize("name", COMPLETE)
def test_the_python_sdk_streams_through_it(
    name: str, sdk: Any, record: Record, background: Background, folder: Path
) -> None:
    with sdk(record(recorded(name))) as client, client.messages.stream(**REQUEST) as stream:
        assert stream.get_final_message().to_dict(mode="json") == message(name)
    (found,) = kept(background, folder)
    assert (found.status, found.end, found.body) == (200, "clean", recorded(name).body)
    assert found.request is not None
    assert (found.request.path, found.request.body) == ("/v1/messages", {**REQUEST, "stream": True})


def test_an_answer_without_stream_is_recorded_and_replayed_as_json(
    sdk: Any, record: Record, background: Background, folder: Path
) -> None:
    with sdk(record(recorded("plain"))) as client:
        first = client.messages.create(**REQUEST)
    (found,) = kept(background, folder)
    assert json.loads(found.body) == first.to_dict(mode="json")
    replay = background.enter(ReplayServer(found))
    with sdk(replay.base_url) as client:
        assert client.messages.create(**REQUEST) == first


def test_retries_of_the_sdk_are_recorded_one_by_one(
    sdk: Any, record: Record, background: Background, folder: Path
) -> None:
    url = record(recorded("plain"), faults=["status=529,retry-after=0.001 x1"])
    with sdk(url, max_retries=1) as client, client.messages.stream(**REQUEST) as stream:
        assert stream.get_final_text() == text("plain")
    assert [(found.status, found.end) for found in kept(background, folder)] == [(529, "clean"), (200, "clean")]


def test_the_sdk_raises_as_without_it(sdk: Any, record: Record, background: Background, folder: Path) -> None:
    anthropic = pytest.importorskip("anthropic", reason="the official SDK: the extra `interop`")
    url = record(refusal(429, "rate_limit_error", "Not today.", retry_after="7"), recorded("cut"))
    with sdk(url) as client:
        with pytest.raises(anthropic.RateLimitError, match=r"Not today\."):
            client.messages.create(**REQUEST)
        with (
            pytest.raises(Exception, match=r"peer closed connection|incomplete"),
            client.messages.stream(**REQUEST) as s,
        ):
            s.until_done()
    assert [(found.status, found.end) for found in kept(background, folder)] == [(429, "clean"), (200, "cut")]


def test_no_key_of_the_client_s_reaches_the_disk(
    sdk: Any, record: Record, background: Background, folder: Path
) -> None:
    with sdk(record(recorded("plain"))) as client:
        client.messages.create(**REQUEST, system=f"The key is {KEY}.")
    kept(background, folder)
    assert KEY[7:] not in "".join(path.read_text() for path in folder.iterdir())


def test_who_leaves_in_the_middle_is_recorded_as_such(
    sdk: Any, record: Record, background: Background, folder: Path
) -> None:
    gate = background.gate(free=1)  # the first read, and then it waits: whoever leaves later leaves it waiting
    with sdk(record(recorded("plain"), sleep=gate.sleep, speed=1)) as client:
        stream = client.messages.create(**REQUEST, stream=True)
        next(iter(stream))
        stream.close()
        assert gate.left.wait(PATIENCE)
    (found,) = kept(background, folder)
    assert found.end == "client_closed"
    assert recorded("plain").body.startswith(found.body)


def test_curl_streams_through_it(record: Record, background: Background, folder: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl on PATH")
    url, body = f"{record(recorded('unicode'))}/v1/messages?beta=true", json.dumps({**REQUEST, "stream": True})
    command = [curl, "-sSN", "--compressed", "-H", "content-type: application/json", "-d", body, url]
    done = subprocess.run(command, env=environment({}), capture_output=True, timeout=PATIENCE, check=True)
    assert done.stdout == recorded("unicode").body
    (found,) = kept(background, folder)
    assert found.body == recorded("unicode").body
    assert found.request is not None
    assert found.request.path == "/v1/messages?beta=true"


SCRIPT = """
import Anthropic from "@anthropic-ai/sdk";
const client = new Anthropic({baseURL: process.env.URL, apiKey: process.env.KEY, maxRetries: 0});
const stream = client.messages.stream({model: "m", max_tokens: 9, messages: [{role: "user", content: "Hello"}]});
console.log(await stream.finalText());
"""


def test_the_node_sdk_streams_through_it(
    node: Node, packages: Callable[..., None], record: Record, background: Background, folder: Path
) -> None:
    packages("@anthropic-ai/sdk")
    assert node(SCRIPT, URL=record(recorded("unicode")), KEY=KEY).strip() == text("unicode").strip()
    assert [(found.end, found.body) for found in kept(background, folder)] == [("clean", recorded("unicode").body)]
