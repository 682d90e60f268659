"""rawsse.replay.fixture: recordings by name, by path, and made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from rawsse.errors import RecordingError
from rawsse.replay import answer, recording_of, shipped_fixtures
from rawsse.replay.fixture import find, own_path, written_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recordings").mkdir()
    (tmp_path / "talks").mkdir()
    recording_of(answer("a")).save(tmp_path / "beside.sse.jsonl")
    recording_of(answer("b")).save(tmp_path / "recordings/below.sse.jsonl")
    (tmp_path / "recordings/bare.sse").write_bytes(b"event: ping\ndata: {}\n\n")
    recording_of(answer("2")).save(tmp_path / "talks/2.sse.jsonl")
    recording_of(answer("1")).save(tmp_path / "talks/1.sse.jsonl")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("beside", "beside.sse.jsonl"),
        ("beside.sse.jsonl", "beside.sse.jsonl"),
        ("below", "recordings/below.sse.jsonl"),
        ("bare", "recordings/bare.sse"),
        ("talks/1", "talks/1.sse.jsonl"),
        (Path("beside.sse.jsonl"), "beside.sse.jsonl"),
    ],
)
def test_a_name_is_looked_for_beside_the_test_and_in_recordings(folder: Path, name: str | Path, file: str) -> None:
    assert own_path(name, folder) == folder / file
    assert [recording.name for recording in find(name, folder)] == [str(folder / file)]


def test_a_folder_is_all_that_is_in_it_by_name(folder: Path) -> None:
    assert [Path(recording.name).name for recording in find("talks/", folder)] == ["1.sse.jsonl", "2.sse.jsonl"]
    assert len(find(folder / "talks", folder)) == 2


def test_a_name_without_a_slash_is_no_folder(folder: Path) -> None:
    for name in ("talks", "recordings"):
        with pytest.raises(RecordingError, match=f"no recording '{name}', .* To play all of that folder: '{name}/'$"):
            find(name, folder)
        assert find(f"{name}/", folder)
    with pytest.raises(RecordingError, match=r"--rawsse-record=once$"):
        find("", folder)


def test_a_file_of_ones_own_goes_before_one_that_comes_with_rawsse(folder: Path) -> None:
    assert find("plain", folder) == [shipped_fixtures()["plain"]]
    recording_of(answer("mine")).save(folder / "plain.sse.jsonl")
    assert find("plain", folder) == [recording_of(answer("mine"))]


def test_recordings_and_messages_are_what_they_are(folder: Path) -> None:
    recording = recording_of(answer("x"))
    assert find(recording, folder) == [recording]
    assert find(answer("x"), folder) == [recording]
    assert find(answer("x").raw, folder) == [recording]


def test_a_missing_recording_says_where_it_was_looked_for_and_what_there_is(folder: Path) -> None:
    with pytest.raises(
        RecordingError, match=r"no recording 'spring', neither in .* nor in .*recordings.*\(citations, cut,"
    ):
        find("spring", folder)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("spring", "recordings/spring.sse.jsonl"),
        ("spring.sse.jsonl", "recordings/spring.sse.jsonl"),
        ("spring.sse", "recordings/spring.sse.jsonl"),
        ("talks/spring", "talks/spring.sse.jsonl"),
        (Path("spring"), "spring.sse.jsonl"),
    ],
)
def test_new_recordings_go_into_recordings_unless_they_say_otherwise(folder: Path, name: str | Path, file: str) -> None:
    assert written_path(name, folder) == folder / file
