"""Recordings: one exchange with the Messages API, complete and in a readable form.

A recording (`*.sse.jsonl`) is JSON Lines (https://jsonlines.org): a head, one line for each read from the network, an end.

    {"rawsse": 1, "request": {"method": …, "path": …, "headers": {…}, "body": …}, "status": 200, "headers": {…}}
    {"t": 0.912, "data": "event: message_start\\ndata: {…}\\n\\n"}
    {"t": 0.987, "b64": "w6k="}
    {"end": "clean", "t": 1.204}

`t` is in seconds since the request was sent. `data` is a read as text, without the framing of HTTP chunks; `b64` is one that is
not valid UTF-8, as a read may end inside a character. `end` is `clean`, `cut` (the connection broke), or `client_closed` (the
client disconnected, and the rest is unknown). `request` may be null. A changed answer shows as a changed line in a diff, and no
byte, boundary or time is lost: `Recording.loads(recording.dump()) == recording`.

    recording = Recording.load("fixtures/plain.sse.jsonl")
    recording.body, recording.reads[0].t
    recording.message()                         # the JSON of the answer without `stream`
    Recording.from_sse(b"event: ping\\ndata: {}\\n\\n").save("ping.sse.jsonl")

A bare event stream (the body alone, usually `*.sse`) is also read as a recording, with one read at time 0 and a clean end.
"""

from __future__ import annotations

import base64
import errno
import importlib.resources
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from rawsse.errors import APIError, RecordingError
from rawsse.messages import MessageBuilder
from rawsse.messages.lens import parse_json
from rawsse.sse import Decoder

FORMAT_VERSION = 1

MAX_FILE_BYTES = 256 * 1024 * 1024
"""The largest file that is loaded: a device may be endless."""

SUFFIXES = (".sse.jsonl", ".sse")
"""How the names of recordings and bare event streams end."""

End: TypeAlias = Literal["clean", "cut", "client_closed"]

_MARK = b"\xef\xbb\xbf"  # some editors leave a byte order mark
_SSE_HEADERS: Mapping[str, str] = {"content-type": "text/event-stream; charset=utf-8"}
# A bare event stream begins with a field or a comment; in a file named `*.sse` that may be on any line.
_FIELD = re.compile(rb"(?:^|[\r\n]|\xef\xbb\xbf)(?:data|event|id|retry)?:")
# Characters that editors treat as line ends or do not show, and unpaired surrogates, which UTF-8 cannot encode.
_UNSHOWN = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")


class Read(NamedTuple):
    """One read from the network: its bytes, and when they arrived, in seconds since the request was sent."""

    t: float
    data: bytes


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """The request of an exchange. `body` is parsed JSON; a string if it was not JSON; None if there was none."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # they may contain a key
    body: Any = None


@dataclass(frozen=True, slots=True)
class Recording:
    """One exchange. `duration` is when it ended, in seconds since the request was sent; not before the last read.

    `name`, usually the file, is for messages; it is not part of the exchange.
    """

    request: RecordedRequest | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: dict(_SSE_HEADERS), repr=False)
    reads: tuple[Read, ...] = field(default=(), repr=False)
    end: End = "clean"
    duration: float = 0.0
    name: str = field(default="recording", compare=False)

    def __post_init__(self) -> None:
        if self.reads and self.duration < self.reads[-1].t:
            object.__setattr__(self, "duration", self.reads[-1].t)

    @property
    def body(self) -> bytes:
        """The bytes of all reads."""
        return b"".join(read.data for read in self.reads)

    @property
    def content_type(self) -> str:
        """The content type of the response; empty if it has none."""
        return next((value for name, value in self.headers.items() if name.lower() == "content-type"), "")

    @property
    def is_stream(self) -> bool:
        """Whether the content type is that of server-sent events."""
        return self.content_type.startswith("text/event-stream")

    def fold(self) -> tuple[MessageBuilder, APIError | None]:
        """The message folded from the body's events, and the error that ended the fold, if any."""
        builder = MessageBuilder(strict=False)
        try:
            for event in Decoder().feed(self.body):
                builder.feed(event)
        except APIError as exc:
            return builder, exc
        return builder, None

    def message(self) -> dict[str, Any] | None:
        """The message of the answer, as JSON; None if it is an error, is cut, or is not a message."""
        if self.status != 200:
            return None
        if self.is_stream:
            builder, error = self.fold()
            is_whole = error is None and builder.is_complete
            return builder.message.raw if is_whole and builder.message is not None else None
        try:
            value = parse_json(self.body)
        except (ValueError, RecursionError):
            return None
        content = value.get("content") if isinstance(value, dict) and value.get("type") == "message" else None
        return value if isinstance(content, list) and all(isinstance(block, dict) for block in content) else None

    @classmethod
    def load(cls, path: str | Path, *, max_bytes: int = MAX_FILE_BYTES) -> Recording:
        """The recording, or bare event stream, in a file. Raises `RecordingError`, and `OSError` if it cannot be read."""
        try:
            with Path(path).open("rb") as file:
                content = file.read(max_bytes + 1)
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, str(path)) from None  # an error of `read` names no file
        if len(content) > max_bytes:
            raise RecordingError(f"{path}: larger than max_bytes ({max_bytes})")
        return cls.loads(content, name=str(path))

    @classmethod
    def loads(cls, content: bytes | str, *, name: str = "recording") -> Recording:
        """The recording, or bare event stream, in `content`. Raises `RecordingError`, which names `name` and the line."""
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        begin = data.removeprefix(_MARK).lstrip()
        if begin[:1] == b"{" or name.endswith(".jsonl"):
            return _read(data, name)
        if not (_FIELD.search(data) if name.endswith(".sse") else _FIELD.match(begin)):
            raise RecordingError(f"{name}: neither a recording nor an event stream")
        return cls.from_sse(data, name=name)

    @classmethod
    def from_sse(cls, body: bytes, *, request: RecordedRequest | None = None, name: str = "recording") -> Recording:
        """A bare event stream as a recording: status 200, the whole body in one read at time 0, a clean end."""
        return cls(request=request, reads=(Read(0.0, body),) if body else (), name=name)

    def dump(self) -> str:
        """The recording as JSON Lines. The output is deterministic."""
        request = self.request and {name: getattr(self.request, name) for name in ("method", "path", "headers", "body")}
        head = {"rawsse": FORMAT_VERSION, "request": request, "status": self.status, "headers": self.headers}
        reads = [{"t": read.t, **_to_text(read.data)} for read in self.reads]
        end = {"end": self.end, "t": self.duration}
        return "".join(_to_json(line) + "\n" for line in (head, *reads, end))

    def save(self, path: str | Path) -> None:
        """Write `dump()` to a file: whole, or not at all."""
        write_whole(Path(path), self.dump())


def find_recordings(path: str | Path) -> list[Path]:
    """The files to load: `path` itself, or every recording and bare event stream below it if it is a folder, sorted. If
    there is no such path, `path` may be the name of a recording shipped with rawsse (`plain`).

    Raises `RecordingError` for a folder without any, and `FileNotFoundError` for an unknown name.
    """
    path = Path(path)
    if path.name == str(path) and not path.suffix and not path.exists():
        shipped = _shipped_files()
        if str(path) not in shipped:
            known = f"{os.strerror(errno.ENOENT)}, and none of that name comes with rawsse ({', '.join(shipped)})"
            raise FileNotFoundError(errno.ENOENT, known, str(path))
        return [shipped[str(path)]]
    if not path.is_dir():
        return [path]
    # Not `is_file`: it raises in a folder that may be listed but not entered. Loading the file gives a better error.
    found = sorted(Path(at, name) for at, _, names in os.walk(path) for name in names if name.endswith(SUFFIXES))
    if not found:
        raise RecordingError(f"{path}: no recording in this folder (looked for {', '.join('*' + s for s in SUFFIXES)})")
    return found


def load_recordings(path: str | Path) -> list[Recording]:
    """The recordings in the files of `find_recordings`. One that was found by its name is called by that name.

    Raises `RecordingError`, and `OSError` if a file cannot be read.
    """
    recordings = map(Recording.load, find_recordings(path))
    return list(recordings) if Path(path).is_dir() else [replace(each, name=str(path)) for each in recordings]


def shipped_fixtures() -> dict[str, Recording]:
    """The recordings shipped with rawsse, by name (`plain`, `tools`, `cut` …; see `fixtures/README.md`)."""
    return {name: Recording.loads(file.read_bytes(), name=name) for name, file in _shipped_files().items()}


def _shipped_files() -> dict[str, Path]:
    package = Path(str(importlib.resources.files("rawsse")))
    # In a checkout they are beside the package: only the wheel's build copies them into it.
    folder = package / "fixtures" if (package / "fixtures").is_dir() else package.parent / "fixtures"
    return {file.name.removesuffix(".sse.jsonl"): file for file in sorted(folder.glob("*.sse.jsonl"))}


# --- Writing ---------------------------------------------------------------------------------------------------------


def write_whole(path: Path, text: str, *, is_new: bool = False, mode: int = 0o666) -> None:
    """Write a file atomically: readers find either the old text or the new one. Raises `OSError`.

    `is_new`: `FileExistsError` is raised if it exists. `mode` is that of a file which did not exist, less the umask.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, "utf-8", newline="")  # a device or a pipe cannot be replaced
        return
    real = path.resolve()  # the target of a link, not the link
    beside = real.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        beside.touch(mode, exist_ok=False)
        beside.write_text(text, "utf-8", newline="")
        if is_new:
            _rename(beside, real)
        else:
            if real.exists():
                shutil.copymode(real, beside)
            beside.replace(real)
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, str(path)) from None  # name the caller's file, not the temporary one
    finally:
        beside.unlink(missing_ok=True)


def _rename(beside: Path, path: Path) -> None:
    """Raises `FileExistsError`: `link` does not overwrite, unlike POSIX's `rename`."""
    try:
        os.link(beside, path)
    except OSError as exc:
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from exc
        os.rename(beside, path)  # a file system without hard links


def _to_text(data: bytes) -> dict[str, str]:
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(data).decode()}


def _to_json(line: object) -> str:
    text = json.dumps(line, ensure_ascii=False, default=dict)  # headers may be any mapping
    return _UNSHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


# --- Reading -----------------------------------------------------------------------------------------------------------


def _read(data: bytes, name: str) -> Recording:
    """Errors name the file and the line, but quote nothing: it may be the wrong file, and contain a key."""
    lines = (data.removeprefix(_MARK).rstrip() or b"{}").split(b"\n")
    number, reads = 1, list[Read]()
    try:
        recording = _head(_object(lines[0]))
        for number, line in enumerate(lines[1:], 2):
            value = _object(line)
            t = _time(value, reads[-1].t if reads else 0.0)
            if "end" not in value:
                reads.append(Read(t, _data(value)))
            elif number < len(lines):
                raise ValueError("a line comes after the end")
            elif value["end"] not in get_args(End):
                raise ValueError(f'"end" must be one of {", ".join(get_args(End))}')
            else:
                return replace(recording, reads=tuple(reads), end=value["end"], duration=t, name=name)
        raise ValueError('the last line must have "end": the file is cut')
    except ValueError as exc:
        raise RecordingError(f"{name}, line {number}: {exc}") from None


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"invalid JSON ({exc})") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _head(line: dict[str, Any]) -> Recording:
    if line.get("rawsse") != FORMAT_VERSION:
        raise ValueError(f'the first line must have "rawsse": {FORMAT_VERSION}')
    request = None
    if line.get("request") is not None:
        asked = _of(line, "request", dict)
        method, path = _of(asked, "method", str), _of(asked, "path", str)
        request = RecordedRequest(method, path, _headers(asked), asked.get("body"))
    return Recording(request, _of(line, "status", int), _headers(line))


def _headers(line: dict[str, Any]) -> dict[str, str]:
    headers: dict[str, str] = _of(line, "headers", dict)
    if not all(isinstance(value, str) for value in headers.values()):
        raise ValueError("the value of a header must be a text")
    return headers


def _time(line: dict[str, Any], last: float) -> float:
    t = line.get("t")
    if isinstance(t, bool) or not isinstance(t, int | float) or not 0 <= t < 1e9:
        raise ValueError('"t" must be a number of seconds from 0 on')
    if t < last:
        raise ValueError(f'"t" goes back from {last} to {t}')
    return float(t)


def _data(line: dict[str, Any]) -> bytes:
    name = "b64" if "b64" in line else "data"
    text: str = _of(line, name, str)
    try:
        return text.encode() if name == "data" else base64.b64decode(text, validate=True)
    except UnicodeEncodeError as exc:
        raise ValueError(f'"data" holds half a surrogate pair at {exc.start}') from None
    except ValueError as exc:
        raise ValueError(f'"b64" is invalid base64 ({exc})') from None


def _of(line: dict[str, Any], name: str, wanted: type) -> Any:
    value = line.get(name)
    if type(value) is not wanted:
        words = {int: "a number", str: "a text", dict: "an object"}[wanted]
        raise ValueError(f'"{name}" must be {words}')
    return value


def parse_body(body: bytes) -> Any:
    """A request's body as a recording stores it: parsed JSON; a string if it is not JSON; None if it is empty."""
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


def is_messages(method: str, path: str) -> bool:
    """Whether it is a request for a message."""
    return method == "POST" and path.partition("?")[0].rstrip("/").endswith("/v1/messages")
