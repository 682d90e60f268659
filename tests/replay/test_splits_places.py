"""rawsse.replay.splits: the name of a place, and every place in one test."""

from __future__ import annotations

import pytest

from rawsse.replay import Chunks
from rawsse.replay.splits import assert_every_split, at_line_ends, place_of

STREAM = b"event: ping\ndata: {}\n\n: hm\r\nid\r\n\r\n\xef\xbb\xbfx: \xc3\xa9"


@pytest.mark.parametrize(
    ("at", "place"),
    [
        (0, "at the beginning"),
        (1, "inside event line"),
        (11, "at end of event line"),
        (12, "before data line"),
        (13, "inside data line"),
        (20, "at end of data line"),
        (21, "before blank line"),
        (22, "between events"),
        (23, "inside comment line"),
        (26, "at end of comment line"),
        (27, "between CR and LF"),
        (28, "before id line"),
        (32, "before blank line"),
        (33, "between CR and LF"),
        (34, "between events"),
        (35, "inside a character"),
        (38, "inside unknown line"),
        (41, "inside a character"),
        (42, "at the end"),
    ],
)
def test_a_place_has_a_name(at: int, place: str) -> None:
    assert len(STREAM) == 42
    assert place_of(STREAM, at) == place


def test_a_leading_blank_line_is_one() -> None:
    assert place_of(b"\ndata: x", 1) == "between events"
    assert place_of(b"\r\ndata: x", 2) == "between events"


def test_cutting_at_line_ends_leaves_each_of_them_alone() -> None:
    assert at_line_ends(b"a\r\n\nb") == (b"a", b"\r", b"\n", b"\n", b"b")
    assert at_line_ends(b"abc") == (b"abc",)
    assert at_line_ends(b"") == ()


def naive(chunks: Chunks) -> list[bytes]:
    return [line for chunk in chunks for line in chunk.split(b"\n") if line]


def test_the_cut_that_breaks_a_parser_is_shown_with_its_place() -> None:
    with pytest.raises(AssertionError, match=r"^hello, inside data line: cut at byte 1: b'd' \| b'ata: hi"):
        assert_every_split(b"data: hi\n\n", naive, name="hello")


def test_a_parser_that_raises_is_the_cause() -> None:
    def fragile(chunks: Chunks) -> int:
        if len(chunks) > 1:
            raise KeyError("half")
        return 1

    with pytest.raises(AssertionError, match=r"^the stream, inside data line: cut at byte 1") as caught:
        assert_every_split(b"data: hi\n\n", fragile)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_wrong_result_for_the_uncut_data_is_no_matter_of_cuts() -> None:
    with pytest.raises(AssertionError, match=r"^the stream, not cut at all: uncut; expected '2', got '1'"):
        assert_every_split(b"data: hi\n\n", lambda _: 1, 2)


def test_a_parser_may_be_a_coroutine_function() -> None:
    async def patient(chunks: Chunks) -> bytes:
        return b"".join(chunks)

    assert_every_split(STREAM, patient, STREAM)
