"""rawsse.replay.recording: the file format, and the recordings that come with rawsse."""

from __future__ import annotations

import errno
import importlib.resources
import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest

from rawsse.errors import RecordingError
from rawsse.messages import MessageBuilder
from rawsse.replay import Read, RecordedRequest, Recording, find_recordings, load_recordings, shipped_fixtures
from rawsse.replay.recording import is_messages, parse_body
from rawsse.sse import Decoder

REPO = Path(__file__).parents[2]
FIXTURES = sorted((REPO / "fixtures").glob("*.sse.jsonl"))
REAL = Path(os.environ.get("RAWSSE_RECORDINGS", REPO.parent / "shared" / "recordings"))
HEAD = '{"rawsse": 1, "request": null, "status": 200, "headers": {}}\n'
END = '{"end": "clean", "t": 1.5}\n'

needs_real_streams = pytest.mark.skipif(not REAL.is_dir(), reason=f"no recorded streams in {REAL} (RAWSSE_RECORDINGS)")


def error_of(content: bytes | str, name: str = "x.sse.jsonl") -> str:
    with pytest.raises(RecordingError) as caught:
        Recording.loads(content, name=name)
    return str(caught.value)


# --- Writing and reading ---


def test_a_file_above_the_limit_is_refused_and_never_read_in_part(tmp_path: Path) -> None:
    path = tmp_path / "x.sse"
    path.write_bytes(b"data: x\n\n")
    assert Recording.load(path, max_bytes=9).body == b"data: x\n\n"
    with pytest.raises(RecordingError, match=r"x\.sse: larger than max_bytes \(8\)"):
        Recording.load(path, max_bytes=8)


def test_a_recording_is_a_head_a_line_for_each_read_and_an_end() -> None:
    request = RecordedRequest("POST", "/v1/messages", {"accept": "*/*"}, {"model": "m"})
    recording = Recording(
        request, 200, {"request-id": "r"}, (Read(0.25, b"data: a\n\n"), Read(0.5, b"\xc3")), "cut", 0.75
    )
    assert [json.loads(line) for line in recording.dump().splitlines()] == [
        {
            "rawsse": 1,
            "request": {"method": "POST", "path": "/v1/messages", "headers": {"accept": "*/*"}, "body": {"model": "m"}},
            "status": 200,
            "headers": {"request-id": "r"},
        },
        {"t": 0.25, "data": "data: a\n\n"},
        {"t": 0.5, "b64": "ww=="},
        {"end": "cut", "t": 0.75},
    ]


def test_a_recording_that_is_printed_does_not_show_what_it_holds() -> None:
    request = RecordedRequest("POST", "/v1/messages", {"x-api-key": "k123456789"})
    recording = Recording(request, headers={"x-echo": "k123456789"}, reads=(Read(0.0, b"k123456789"),), name="a.sse")
    assert "k123456789" not in repr([recording, request])
    assert "a.sse" in repr(recording)


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    recording = Recording(reads=(Read(0.1, b"event: ping\r\n"), Read(0.2, "é\u2028😀".encode())), duration=3.0)
    recording.save(tmp_path / "a.sse.jsonl")
    assert Recording.load(tmp_path / "a.sse.jsonl") == recording
    assert Recording.load(tmp_path / "a.sse.jsonl").name == str(tmp_path / "a.sse.jsonl")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.sse.jsonl"
    Recording().save(path)
    before = path.read_bytes()
    path.chmod(0o640)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", write_half)
        with pytest.raises(OSError, match=r"No space left on device: '.*a\.sse\.jsonl'"):
            Recording(duration=9.0).save(path)
    assert path.read_bytes() == before
    Recording(duration=9.0).save(path)
    assert Recording.load(path).duration == 9.0
    assert (path.stat().st_mode & 0o777, list(tmp_path.iterdir())) == (0o640, [path])


def write_half(path: Path, text: str, *_: Any, **__: Any) -> None:
    path.write_bytes(text.encode()[: len(text) // 2])
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_what_a_link_leads_to_is_written_and_so_is_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real.sse")
    Recording().save(tmp_path / "link")
    assert ((tmp_path / "link").is_symlink(), Recording.load(tmp_path / "real.sse")) == (True, Recording())
    read_end, write_end = os.pipe()
    Recording().save(f"/dev/fd/{write_end}")
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        assert Recording.loads(pipe.read()) == Recording()


def test_a_recording_ends_with_its_last_read_or_later() -> None:
    assert Recording(reads=(Read(0.5, b"x"),)).duration == 0.5
    assert Recording(reads=(Read(0.5, b"x"),), duration=0.75).duration == 0.75


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\r\n\r",
        b"\x00\x1f",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        "\u2028\x85\x7f\ufeff".encode(),
    ],
)
def test_no_byte_is_lost(data: bytes) -> None:
    recording = Recording(reads=(Read(0.0, data),))
    assert Recording.loads(recording.dump(), name="x.jsonl") == recording


def test_any_recording_is_read_as_it_was_written() -> None:
    hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
    st = hypothesis.strategies
    seconds = st.floats(0, 1e8)
    headers = st.dictionaries(st.text(), st.text(), max_size=2)
    body = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=4)
    request = st.builds(RecordedRequest, st.text(), st.text(), headers, body)
    reads = st.lists(st.builds(Read, seconds, st.binary())).map(
        lambda found: tuple(sorted(found, key=lambda read: read.t))
    )
    ends = st.sampled_from(["clean", "cut", "client_closed"])
    recordings = st.builds(Recording, st.none() | request, st.integers(), headers, reads, ends, seconds)

    def check(recording: Recording) -> None:
        again = Recording.loads(recording.dump().encode())
        assert again == recording
        assert again.dump() == recording.dump()

    hypothesis.settings(max_examples=60, deadline=None, database=None)(hypothesis.given(recordings)(check))()


def test_every_line_is_a_line_for_an_editor_too() -> None:
    recording = Recording(reads=(Read(0.0, "a\u2028b\u2029c\x85d\x0be\x1cf".encode()),))
    assert len(recording.dump().splitlines()) == 3


def test_text_stays_readable_in_the_file() -> None:
    assert "Grüße 今日は" in Recording(reads=(Read(0.0, "Grüße 今日は".encode()),)).dump()


def test_the_body_is_all_that_was_read() -> None:
    assert Recording(reads=(Read(0.0, b"ab"), Read(1.0, b"c"))).body == b"abc"


def test_lines_may_end_in_crlf_and_the_file_begin_with_a_mark() -> None:
    content = ("\ufeff" + HEAD + END).replace("\n", "\r\n").encode()
    assert Recording.loads(content) == Recording(headers={}, duration=1.5)


def test_the_last_line_needs_no_line_end() -> None:
    assert Recording.loads((HEAD + END).rstrip()) == Recording(headers={}, duration=1.5)


# --- Bare event streams ---


@pytest.mark.parametrize("body", [b"data: a\n\n", b"\xef\xbb\xbfevent: x\r\n", b": comment\r\r", b"junk\nretry: 3\n\n"])
def test_a_bare_event_stream_is_one_read_at_time_0_with_a_clean_end(body: bytes) -> None:
    recording = Recording.loads(body, name="x.sse")
    assert (recording.reads, recording.end, recording.status) == ((Read(0.0, body),), "clean", 200)
    assert recording.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_an_empty_body_has_no_read() -> None:
    assert Recording.from_sse(b"").reads == ()


def test_a_request_may_be_added_to_a_bare_event_stream() -> None:
    request = RecordedRequest("POST", "/v1/messages")
    assert Recording.from_sse(b"data: a\n\n", request=request).request == request


# --- What is no recording ---


@pytest.mark.parametrize("content", [b"", b"# A heading\n", b"\x89PNG\r\n\x1a\n", b"<html>", b"KEY=x\ndata: y\n"])
def test_other_files_are_refused(content: bytes) -> None:
    assert error_of(content, "notes.md") == "notes.md: neither a recording nor an event stream"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", 'x.sse.jsonl, line 1: the first line must have "rawsse": 1'),
        ('{"rawsse": 2}\n', 'x.sse.jsonl, line 1: the first line must have "rawsse": 1'),
        ('{"rawsse": 1, "request": 5}\n', 'line 1: "request" must be an object'),
        ('{"rawsse": 1, "request": {}}\n', 'line 1: "method" must be a text'),
        ('{"rawsse": 1, "status": true}\n', 'line 1: "status" must be a number'),
        ('{"rawsse": 1, "status": 200}\n', 'line 1: "headers" must be an object'),
        ('{"rawsse": 1, "status": 200, "headers": {"a": 1}}\n', "line 1: the value of a header must be a text"),
        (HEAD, 'line 1: the last line must have "end": the file is cut'),
        (HEAD + '{"t": 0, "data": "x"}\n', 'line 2: the last line must have "end": the file is cut'),
        (HEAD + '{"t": 0, "data": "x"\n' + END, "line 2: invalid JSON ("),
        (HEAD + "\n" + END, "line 2: invalid JSON ("),
        (HEAD + "[]\n" + END, "line 2: not a JSON object"),
        (HEAD + '{"data": "x"}\n' + END, 'line 2: "t" must be a number of seconds from 0 on'),
        (HEAD + '{"t": true, "data": "x"}\n' + END, 'line 2: "t" must be a number of seconds from 0 on'),
        (HEAD + '{"t": -1, "data": "x"}\n' + END, 'line 2: "t" must be a number of seconds from 0 on'),
        (HEAD + '{"t": NaN, "data": "x"}\n' + END, 'line 2: "t" must be a number of seconds from 0 on'),
        (HEAD + '{"t": 1' + "0" * 400 + ', "data": "x"}\n' + END, 'line 2: "t" must be a number of seconds from 0 on'),
        (HEAD + '{"t": 1, "data": "x"}\n{"t": 0.5, "data": "y"}\n' + END, 'line 3: "t" goes back from 1.0 to 0.5'),
        (HEAD + '{"t": 2, "data": "x"}\n' + END, 'line 3: "t" goes back from 2.0 to 1.5'),
        (HEAD + '{"t": 0}\n' + END, 'line 2: "data" must be a text'),
        (HEAD + '{"t": 0, "data": "\\ud83d"}\n' + END, 'line 2: "data" holds half a surrogate pair at 0'),
        (HEAD + '{"t": 0, "b64": "ab"}\n' + END, 'line 2: "b64" is invalid base64 ('),
        (HEAD + '{"t": 0, "b64": "é"}\n' + END, 'line 2: "b64" is invalid base64 ('),
        (HEAD + '{"end": "fin", "t": 0}\n', 'line 2: "end" must be one of clean, cut, client_closed'),
        (HEAD + END + '{"t": 0, "data": "x"}\n', "line 2: a line comes after the end"),
    ],
)
def test_a_broken_recording_is_refused_with_file_and_line(content: str, message: str) -> None:
    assert message in error_of(content)


KEY = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    "content",
    [
        f"ANTHROPIC_API_KEY={KEY}\n",
        f"# keys\n\nexport ANTHROPIC_API_KEY={KEY}\ndata: x\n",
        f'{{"key": "{KEY}"}}',
        f'{{"rawsse": "{KEY}"}}',
        f'{{"rawsse": 1, "request": "{KEY}"}}',
        f'{{"rawsse": 1, "request": {{"method": ["{KEY}"]}}}}',
        f'{{"rawsse": 1, "status": "{KEY}"}}',
        f'{{"rawsse": 1, "status": 200, "headers": "{KEY}"}}',
        f'{{"rawsse": 1, "status": 200, "headers": {{"{KEY}": ["{KEY}"]}}}}',
        f"{HEAD}{KEY}\n{END}",
        f'{HEAD}"{KEY}"\n{END}',
        f'{HEAD}{{"t": "{KEY}", "data": ""}}\n{END}',
        f'{HEAD}{{"t": 1, "data": ["{KEY}"]}}\n{END}',
        f'{HEAD}{{"t": 1, "b64": "{KEY}"}}\n{END}',
        f'{HEAD}{{"t": 1, "b64": ["{KEY}"]}}\n{END}',
        f'{HEAD}{{"end": "{KEY}", "t": 1}}',
    ],
)
@pytest.mark.parametrize("name", [".env", "x.sse.jsonl"])
def test_nothing_is_quoted_of_a_file_that_is_refused(content: str, name: str) -> None:
    assert "sk-ant" not in error_of(content, name)


# --- Folders ---


def test_a_folder_holds_recordings_and_bare_event_streams_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.sse", "a.sse.jsonl", "sub/c.sse", "a.json", "README.md"):
        (tmp_path / name).write_text("")
    assert [path.relative_to(tmp_path).as_posix() for path in find_recordings(tmp_path)] == [
        "a.sse.jsonl",
        "b.sse",
        "sub/c.sse",
    ]


def test_a_file_is_found_as_it_is(tmp_path: Path) -> None:
    assert find_recordings(str(tmp_path / "any.txt")) == [tmp_path / "any.txt"]


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"no recording in this folder \(looked for \*\.sse\.jsonl, \*\.sse\)"):
        find_recordings(tmp_path)


# --- Those that come with rawsse ---


def test_a_name_without_a_path_is_that_of_a_shipped_recording_and_a_path_counts_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [Recording.load(path) for path in find_recordings("plain")] == [shipped_fixtures()["plain"]]
    (tmp_path / "plain").write_text("")
    assert find_recordings("plain") == [Path("plain")]


def test_what_was_found_by_a_name_is_called_by_it_and_other_files_by_their_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recordings("plain") == [shipped_fixtures()["plain"]]
    assert [each.name for each in load_recordings(Path("plain"))] == [shipped_fixtures()["plain"].name] == ["plain"]
    Path("sub").mkdir()
    for path in ("sub/a.sse", "sub/b.sse"):
        Path(path).write_text("data: a\n\n")
    assert [each.name for each in load_recordings("sub")] == ["sub/a.sse", "sub/b.sse"]
    assert [each.name for each in load_recordings("sub/a.sse")] == ["sub/a.sse"]


def test_an_unknown_name_is_told_with_those_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none of that name comes with rawsse \(citations, cut, .*\): 'plian'"):
        find_recordings("plian")
    assert find_recordings("gone/plain") == [Path("gone/plain")]  # loading it gives the system's error
    assert find_recordings("plain.sse") == [Path("plain.sse")]


def test_the_shipped_recordings_are_those_in_the_folder() -> None:
    assert list(shipped_fixtures()) == [path.name.removesuffix(".sse.jsonl") for path in FIXTURES]


def test_an_installed_package_brings_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fixtures").mkdir()
    Recording(duration=2.0).save(tmp_path / "fixtures" / "mine.sse.jsonl")
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    assert inspect.unwrap(shipped_fixtures)() == {"mine": Recording(duration=2.0)}  # `conftest.py` keeps the others


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_a_shipped_recording_is_written_as_it_would_be_saved(path: Path) -> None:
    assert Recording.load(path).dump() == path.read_text("utf-8")


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_a_shipped_recording_becomes_what_was_written_down_for_it(path: Path) -> None:
    expected = expected_of(path)
    builder = MessageBuilder()
    for event in Decoder().feed(Recording.load(path).body):
        builder.feed(event)
    message = builder.message
    assert (message.to_dict() if message else None) == expected["message"]
    assert _ending(builder) == (expected["ending"], expected.get("error_type"))
    blocks = message.content if message else []
    assert [index for index, block in enumerate(blocks) if not block.complete] == expected.get("incomplete", [])
    texts = {
        str(index): block.input_text for index, block in enumerate(blocks) if not block.complete and block.input_text
    }
    assert texts == expected.get("input_text", {})


def expected_of(path: Path) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads(path.with_name(path.name.replace(".sse.jsonl", ".json")).read_text("utf-8"))
    return expected


def _ending(builder: MessageBuilder) -> tuple[str, str | None]:
    if builder.error is not None:
        return "error", builder.error.error.type
    return ("complete" if builder.is_complete else "truncated"), None


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_a_shipped_recording_is_told_of_in_the_readme(path: Path) -> None:
    name = path.name.removesuffix(".sse.jsonl")
    assert f"| `{name}` |" in (REPO / "fixtures" / "README.md").read_text("utf-8")


def test_the_unicode_recording_has_reads_that_end_inside_a_character() -> None:
    reads = shipped_fixtures()["unicode"].reads
    assert any(read.data.endswith(b"\xc3") for read in reads)
    assert "γειά" in b"".join(read.data for read in reads).decode()


# --- Real streams ---


@needs_real_streams
def test_every_real_stream_survives_being_written_and_read() -> None:
    for path in find_recordings(REAL):
        body = path.read_bytes()
        reads = tuple(Read(at / 1000, body[at : at + 777]) for at in range(0, len(body), 777))
        recording = Recording(reads=reads, duration=60.0)
        assert Recording.loads(recording.dump()) == recording, path.name
        assert Recording.load(path).body == body, path.name


# --- Requests ---


def test_a_body_that_is_not_json_is_recorded_as_text() -> None:
    assert parse_body(b"{x\xff") == "{x\ufffd"
    assert parse_body(b"") is None
    assert parse_body(b"[" * 100_000) == "[" * 100_000


def test_a_request_is_one_for_a_message_by_method_and_path() -> None:
    assert is_messages("POST", "/v1/messages")
    assert is_messages("POST", "/gateway/v1/messages/?beta=true")
    assert not is_messages("GET", "/v1/messages")
    assert not is_messages("POST", "/v1/messages/count_tokens")
    assert not is_messages("POST", "/v1/messages/batches")
