"""rawsse.replay.recorder: names, numbers, and files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rawsse.errors import ConfigurationError
from rawsse.replay import Recording
from rawsse.replay.recorder import RecordingFolder, slug


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(shelf: RecordingFolder, what: str = "m-complete", text: str = "x") -> str:
    return shelf.put(shelf.next_number(), what, text).name


# --- Names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "plain"),
    [
        (("claude-sonnet-4.5", "complete"), "claude-sonnet-4.5-complete"),
        (("Claude Sonnet/5",), "claude-sonnet-5"),
        (("../../etc/passwd",), "etc-passwd"),
        (("a\n\x1b[31mb", "", "c:d"), "a-31mb-c-d"),
        (("é" * 3,), ""),
        (("x" * 100,), "x" * 60),
    ],
)
def test_a_slug_has_nothing_that_a_file_system_or_a_terminal_minds(words: tuple[str, ...], plain: str) -> None:
    assert slug(*words) == plain


def test_files_are_numbered_in_order(tmp_path: Path) -> None:
    shelf = RecordingFolder(tmp_path)
    assert [put(shelf), put(shelf, "m-cut")] == ["0001-m-complete.sse.jsonl", "0002-m-cut.sse.jsonl"]


def test_what_has_no_name_of_its_own_is_an_answer(tmp_path: Path) -> None:
    assert put(RecordingFolder(tmp_path), "???") == "0001-answer.sse.jsonl"


def test_in_the_folder_of_a_flight_recorder_the_name_says_that_it_failed(tmp_path: Path) -> None:
    assert put(RecordingFolder(tmp_path, max_failed=5)) == "0001-failed-m-complete.sse.jsonl"


def test_numbers_go_on_where_those_in_the_folder_end(tmp_path: Path) -> None:
    for name in ("0007-a.sse.jsonl", "12345-b.sse.jsonl", "99999-c.txt", "plain.sse.jsonl"):
        (tmp_path / name).write_text("")
    assert put(RecordingFolder(tmp_path)) == "12346-m-complete.sse.jsonl"


# --- Files -----------------------------------------------------------------------------------------------------------


def test_the_folder_is_made(tmp_path: Path) -> None:
    put(RecordingFolder(tmp_path / "a" / "b"), text="é\n")
    assert (tmp_path / "a/b/0001-m-complete.sse.jsonl").read_bytes() == b"\xc3\xa9\n"


def test_a_folder_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file cannot hold recordings: "):
        RecordingFolder(tmp_path / "file")


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    put(RecordingFolder(tmp_path))
    assert names(tmp_path) == ["0001-m-complete.sse.jsonl"]


def test_two_that_write_into_one_folder_do_not_write_over_each_other(tmp_path: Path) -> None:
    one, other = RecordingFolder(tmp_path), RecordingFolder(tmp_path)
    assert [put(one, text="1"), put(other, text="2")] == ["0001-m-complete.sse.jsonl", "0002-m-complete.sse.jsonl"]
    assert (tmp_path / "0001-m-complete.sse.jsonl").read_text() == "1"


def no_links(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    one, other = RecordingFolder(tmp_path), RecordingFolder(tmp_path)
    assert [put(one, text="1"), put(other, text="2")] == ["0001-m-complete.sse.jsonl", "0002-m-complete.sse.jsonl"]
    assert names(tmp_path) == ["0001-m-complete.sse.jsonl", "0002-m-complete.sse.jsonl"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = RecordingFolder(tmp_path)
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "rename", no_links)
    with pytest.raises(PermissionError):
        put(shelf)
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_only_the_owner_may_read_what_a_flight_recorder_wrote_and_others_have_the_mode_of_any_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "any").touch()
    Recording().save(tmp_path / "saved")  # as pytest does
    files = [put(RecordingFolder(tmp_path, max_failed=most)) for most in (None, 1)]
    mode, saved, made, failed = ((tmp_path / name).stat().st_mode for name in ("any", "saved", *files))
    assert (saved, made, failed & 0o777) == (mode, mode, 0o600)


# --- How many --------------------------------------------------------------------------------------------------------


def test_the_oldest_go_and_nobody_else_s(tmp_path: Path) -> None:
    for name in ("0001-plain.sse.jsonl", "0002-failed-old.sse.jsonl", "0003-failed.sse.jsonl", "notes.txt"):
        (tmp_path / name).write_text("")
    shelf = RecordingFolder(tmp_path, max_failed=2)
    for what in ("a", "b"):
        put(shelf, what)
    assert names(tmp_path) == [
        "0001-plain.sse.jsonl",
        "0003-failed.sse.jsonl",
        "0004-failed-a.sse.jsonl",
        "0005-failed-b.sse.jsonl",
        "notes.txt",
    ]


def test_a_limit_needs_room_for_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_files must be 1 or more, not 0"):
        RecordingFolder(tmp_path, max_failed=0)
