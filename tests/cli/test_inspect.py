"""rawsse.cli.inspect: `check` and `explain` of files that are odd, or hold a secret."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.background import Background
from support.command import ROOT

from rawsse.cli import inspect, main
from rawsse.replay import Checker, Read, Recording, ReplayServer, recording, shipped_fixtures
from rawsse.replay.recording import RecordedRequest
from rawsse.sse import Decoder

KEY = "sk-ant-api03-AbCdEf0123456789_xYzQQ"
HEAD = '{"rawsse": 1, "request": null, "status": 200, "headers": {"content-type": "text/event-stream"}}\n'
END = '{"end": "clean", "t": 1}\n'
START = (
    'event: message_start\ndata: {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", '
    '"model": "m", "content": [], "stop_reason": null, "usage": {"input_tokens": 1, "output_tokens": 1}}}\n\n'
)

Show = Callable[[str], str]


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    """All that each of the two commands says of a file, and the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")

    def show(name: str) -> str:
        for command in (["check"], ["check", "--json"], ["explain"], ["explain", "--html", "page"]):
            assert main([*command, name]) in (0, 1)
        out, err = capsys.readouterr()
        return out + err + (Path("page").read_text("utf-8") if Path("page").exists() else "")

    return show


# --- Secrets -------------------------------------------------------------------------------------------------------


def event(data: object, name: str = "message_start") -> str:
    return f"event: {name}\ndata: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def deltas(text: str, size: int) -> str:
    begin = event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return begin + "".join(
        event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
        for piece in pieces
    )


STREAMS = {
    "no JSON": event(f"the key is {KEY}"),
    "half JSON": event(f'{{"error": "{KEY}"'),
    "cut where it is quoted": event("x" * 60 + f" {KEY}"),
    "cut near its end": event("x" * 50 + f" {KEY}"),
    "another field": f"data: 1\n{KEY}: x\n\n",
    "a comment": f": {KEY}\n\n",
    "an id": f"id: {KEY}\nretry: {KEY}\ndata: 1\n\n",
    "the name of an event": event({"type": "x"}, KEY),
    "the type of an event": event({"type": KEY}),
    "the type of a block": START + event({"type": "content_block_start", "index": 0, "content_block": {"type": KEY}}),
    "an error": event({"type": "error", "error": {"type": KEY, "message": f"bad {KEY}"}}, "error"),
    "a stop reason": START + event({"type": "message_delta", "delta": {"stop_reason": KEY}, "usage": {}}),
    "many deltas": START + deltas(KEY, 5),
    "half an event": f"data: {KEY}",
    "a variable": f"data: 1\nANTHROPIC_API_KEY={KEY}\n",
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_key_in_a_stream_is_shown_as_stars(stream: str, shown: Show) -> None:
    Path("a.sse").write_text(stream)
    said = shown("a.sse")
    assert "AbCdE" not in said
    assert "Anthropic key" in said


@pytest.mark.parametrize("status", [200, 401])
def test_a_key_around_a_stream_is_shown_as_stars(status: int, shown: Show) -> None:
    fields = {"x-api-key": KEY, "cookie": "session=0f3b9a7cAbCdE"}
    body = {"model": KEY, "messages": [{"role": "user", "content": KEY}], KEY: 1}
    Recording(
        request=RecordedRequest(KEY, f"/v1/messages?key={KEY}", fields, body),
        status=status,
        headers={
            "set-cookie": "session=0f3b9a7cAbCdE",
            "x-echo": KEY,
            f"x-{KEY}": "1",
            "content-type": "application/json",
        },
        reads=(Read(0.1, f'{{"error": {{"message": "bad {KEY}"}}}}'.encode()),),
    ).save("a.sse.jsonl")
    assert "AbCdE" not in shown("a.sse.jsonl")


def test_what_is_no_secret_is_explained_as_it_stands(shown: Show) -> None:
    Recording(
        headers={"x-other": "words", "content-type": "text/event-stream"}, reads=(Read(0.1, START.encode()),)
    ).save("a.sse.jsonl")
    said = shown("a.sse.jsonl")
    assert "x-other: words" in said
    assert "message_start" in said


def test_a_compressed_body_is_explained_too(shown: Show) -> None:
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip", "x-echo": KEY}
    Recording(headers=headers, reads=(Read(0.1, b"\x1f\x8b\x08\xff\xfe" * 9),)).save("a.sse.jsonl")
    assert "AbCdE" not in shown("a.sse.jsonl")


def test_an_api_that_quotes_a_key_without_a_shape_shows_it_to_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "my-gateway-0f3b9a7c")
    quoted = Recording.from_sse(event("not for my-gateway-0f3b9a7c").encode())
    with Background() as background:
        assert main(["check", background.enter(ReplayServer(quoted)).base_url]) == 1
    out, err = capsys.readouterr()
    assert "not for ***" in out
    assert "0f3b9a7c" not in out + err


def test_an_api_is_asked_once_and_its_failure_is_not_hidden_by_another_try(capsys: pytest.CaptureFixture[str]) -> None:
    with Background() as background:
        server = background.enter(ReplayServer(shipped_fixtures()["plain"], faults=["status=529 x1"]))
        assert main(["check", server.base_url]) == 1
        assert len(server.requests) == 1
    assert "Overloaded" in capsys.readouterr().err


def test_an_api_that_is_wrong_without_end_is_not_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inspect, "MAX_FINDINGS", 3)
    lines = [Read(0.0, b"evnt: x\n\n") for _ in range(1000)]
    with Background() as background:
        server = background.enter(ReplayServer(Recording(reads=tuple(lines)), segments="9", segment_seconds=0.001))
        assert main(["check", server.base_url]) == 1
    assert 3 <= capsys.readouterr().out.count("there is no field 'evnt'") < 1000


# --- Odd files -----------------------------------------------------------------------------------------------------

ODD_EVENTS = [
    *(
        "null",
        "[]",
        "5",
        '"x"',
        "{}",
        '{"type": null}',
        '{"type": 5}',
        '{"type": "message_start"}',
        '{"type": "\\ud800"}',
    ),
    *(f'{{"type": "message_start", "message": {message}}}' for message in ("null", "[]", "{}", '{"content": null}')),
    '{"type": "message_start", "message": {"content": [{"type": 5}], "model": 5, "usage": {"output_tokens": 1e999}}}',
    f'{{"type": "message_start", "message": {{"usage": {{"output_tokens": {"9" * 5000}}}}}}}',
    *(f'{{"type": "content_block_start", "index": {each}}}' for each in ("null", "-1", '"0"', "1e9")),
    '{"type": "content_block_start", "index": 0, "content_block": {"type": null, "tool_use_id": [1]}}',
    '{"type": "content_block_delta", "index": 0, "delta": null}',
    '{"type": "message_delta", "delta": {"stop_reason": []}, "usage": {"output_tokens": "x"}}',
    *(f'{{"type": "error", "error": {error}}}' for error in ("null", '"x"', '{"type": [], "message": {}}')),
    '{"a": ' * 3000 + "1" + "}" * 3000,
]
ODD_HEADS = [
    *('{"rawsse": 2}', '{"rawsse": true}', "{}", "[]", "null", '"x"', "5", "", "["),
    *(f'{{"rawsse": 1, "status": {status}, "headers": {{}}}}' for status in ('"200"', "true", "-5", "9" * 400, "1e3")),
    *(
        f'{{"rawsse": 1, "status": 200, "headers": {fields}}}'
        for fields in ("[]", '{"a": 1}', '{"\\ud800": "\\ud800"}')
    ),
    '{"rawsse": 1, "status": 200, "headers": {"a\\nb": "c\\r\\nd"}}',
    *(
        f'{{"rawsse": 1, "status": 200, "headers": {{}}, "request": {each}}}'
        for each in ("[]", "5", '{"method": "GET"}')
    ),
    '{"rawsse": 1, "status": 200, "headers": {}, "request": {"method": "\\ud800", "path": "", "headers": {}, "body": 1e999}}',
]
ODD_FILES: dict[str, bytes] = {
    "empty.sse": b"",
    "empty.sse.jsonl": b"",
    "binary.sse": bytes(range(256)) * 9,
    "binary.sse.jsonl": bytes(range(256)) * 9,
    "binary data.sse": b"data: " + bytes(range(256)) * 9,
    "truncated.sse.jsonl": HEAD.encode() + b'{"t": 0.1, "da',
    "without end.sse.jsonl": HEAD.encode() + b'{"t": 0.1, "data": "x"}',
    "deep.sse.jsonl": b"[" * 200_000,
    "utf-16.sse": START.encode("utf-16"),
    "utf-16.sse.jsonl": (HEAD + END).encode("utf-16"),
    "utf-32.sse": START.encode("utf-32"),
    "long line.sse": b"x" * 100_000 + b"\ndata: x\n\n",
    "other.json": b'{"a": 1}',
    "list.json": b"[1]",
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_a_file_that_is_odd_is_told_of_in_words(name: str, shown: Show) -> None:
    Path(name).write_bytes(ODD_FILES[name])
    assert_words(shown(name))


@pytest.mark.parametrize("head", ODD_HEADS)
def test_a_head_that_is_odd_is_told_of_in_words(head: str, shown: Show) -> None:
    Path("a.sse.jsonl").write_text(f'{head}\n{{"t": 0.1, "data": "data: 1\\n\\n"}}\n{END}')
    assert_words(shown("a.sse.jsonl"))


@pytest.mark.parametrize("data", ODD_EVENTS)
def test_an_event_that_is_odd_is_told_of_in_words(data: str, shown: Show) -> None:
    Path("a.sse").write_text(event(data) + START + deltas("x", 1) + event(data) * 2)
    assert_words(shown("a.sse"))


def assert_words(said: str) -> None:
    assert said
    assert "bug in rawsse" not in said
    assert "Traceback" not in said
    assert not {"\x1b", "\0", "\x07"} & set(said)
    assert max(map(len, said.splitlines())) < 10_000  # the picture of a page


def test_a_device_without_end_is_read_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recording.Recording.load.__func__, "__kwdefaults__", {"max_bytes": 5_000_000})  # type: ignore[attr-defined]
    for command in ("check", "explain"):
        assert main([command, "/dev/zero"]) == 1
        assert capsys.readouterr().err == "rawsse: /dev/zero: larger than max_bytes (5000000)\n"


def test_standard_input_without_end_is_read_up_to_the_limit_of_an_event(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Endless(io.RawIOBase):
        def readinto(self, buffer: Any) -> int:
            buffer[:] = b"x" * len(buffer)
            return len(buffer)

        readable = lambda _: True  # noqa: E731

    module = sys.modules[Checker.__module__]
    monkeypatch.setattr(module, "MAX_EVENT_BYTES", 300_000)
    monkeypatch.setattr(module, "Decoder", partial(Decoder, max_event_bytes=300_000))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Endless())))
    assert main(["check", "-"]) == 1
    assert "limit: a server-sent event is larger than max_event_bytes" in capsys.readouterr().out


def test_a_pipe_is_read_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text(HEAD + END))
    writer.start()
    assert main(["check", str(tmp_path / "pipe")]) == 1
    writer.join()
    assert "stream-end" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_does_not_hide_the_others_and_has_its_name_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.sse", "b.sse", "c.sse"):
        (tmp_path / name).write_text("data: x\n\n")
    is_file, opened = Path.is_file, Path.open

    def refuse_to_tell(path: Path, **options: Any) -> bool:
        if path.name == "a.sse":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path, **options)

    class Broken(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise OSError(5, "Input/output error")

    def open_some(path: Path, *arguments: Any) -> Any:
        if path.name == "a.sse":
            raise PermissionError(13, "Permission denied", str(path))
        return Broken() if path.name == "b.sse" else opened(path, *arguments)

    monkeypatch.setattr(Path, "is_file", refuse_to_tell)
    monkeypatch.setattr(Path, "open", open_some)
    assert main(["check", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        f"rawsse: {tmp_path}/a.sse: Permission denied",
        f"rawsse: {tmp_path}/b.sse: Input/output error",
    ]
    assert f"{tmp_path}/c.sse: 2 broken rules" in out


def test_a_page_never_overwrites_a_recording(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = folder / "mine.sse.jsonl"
    shutil.copy(ROOT / "fixtures/plain.sse.jsonl", recording)
    before = recording.read_bytes()
    assert main(["explain", "--html", str(recording), str(ROOT / "fixtures/cut.sse.jsonl")]) == 2
    assert "is not a page, and would be overwritten" in capsys.readouterr().err
    assert recording.read_bytes() == before
    page = folder / "page.html"
    for _ in range(2):  # a page may be replaced
        assert main(["explain", "--html", str(page), str(recording)]) == 0
