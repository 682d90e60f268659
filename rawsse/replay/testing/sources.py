"""What a test plays: recordings by path or by name, or messages that it has made up.

This file knows where recordings lie beside tests. It refuses to know what is done with them.

    find("weather", folder)         # folder/weather, folder/recordings/weather, each also with .sse.jsonl or .sse behind it;
                                    # else the recording of that name that comes with rawsse
    find("talks/", folder)          # all recordings in a folder, sorted by name
    find(answer("Hello."), folder)  # the stream that the API would have sent for a message
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from rawsse.errors import RecordingError, quote
from rawsse.messages import Message
from rawsse.replay.recording import Recording, find_recordings, shipped_fixtures
from rawsse.replay.shaping.builder import recording_of

FOLDER = "recordings"
"""The folder beside a test file in which its recordings are looked for, and into which they are written."""

SUFFIXES = ("", ".sse.jsonl", ".sse")

Source: TypeAlias = str | Path | Recording | Message | Mapping[str, Any]
"""A name, a path, a recording, or a message (as `answer` makes it, or as JSON)."""


def find(source: Source, folder: Path) -> list[Recording]:
    """The recordings that are meant. Raises `RecordingError`, which says where they were looked for."""
    if isinstance(source, Recording):
        return [source]
    if isinstance(source, Message | Mapping):
        return [recording_of(source)]
    if (path := own_path(source, folder)) is not None:
        return [Recording.load(file) for file in find_recordings(path)]
    shipped = shipped_fixtures()
    if str(source) in shipped:
        return [shipped[str(source)]]
    raise RecordingError(
        f"there is no recording {quote(str(source))}, neither in {folder} nor in {folder / FOLDER}, and none of that name "
        f"comes with rawsse ({', '.join(shipped)})"
    )


def find_one(source: Source, folder: Path) -> Recording:
    """The same, if it must be one. Raises `RecordingError`."""
    found = find(source, folder)
    if len(found) != 1:
        raise RecordingError(f"{quote(str(source))} are {len(found)} recordings, and one is needed here")
    return found[0]


def own_path(source: str | Path, folder: Path) -> Path | None:
    """The file beside the test, or the folder (whose name must end in a slash, lest a name mean a folder of code)."""
    bases = (folder, folder / FOLDER)
    if isinstance(source, Path) or source.endswith("/"):
        return next((base / source for base in bases if (base / source).exists()), None)
    files = (base / f"{source}{suffix}" for base in bases for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def written_path(source: str | Path, folder: Path) -> Path:
    """Where a new recording of that name goes: into `recordings/`, unless the name says another folder."""
    name = str(source)
    if not name.endswith(".sse.jsonl"):
        name = name.removesuffix(".sse") + ".sse.jsonl"
    return folder / name if "/" in name or isinstance(source, Path) else folder / FOLDER / name
