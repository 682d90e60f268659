"""rawsse.replay.splits: every cutting as a case, the name of the place, and all of them in one test."""

from __future__ import annotations

import pytest

from rawsse.errors import ConfigurationError
from rawsse.replay import Chunks
from rawsse.replay.splits import assert_every_split, at_line_ends, cases, is_edge, place_of

STREAM = b"event: ping\ndata: {}\n\n: hm\r\nid\r\n\r\n\xef\xbb\xbfx: \xc3\xa9"


@pytest.mark.parametrize(
    ("at", "place"),
    [
        (0, "before-all"),
        (1, "inside-event-line"),
        (11, "at-end-of-event-line"),
        (12, "before-data-line"),
        (13, "inside-data-line"),
        (20, "at-end-of-data-line"),
        (21, "before-blank-line"),
        (22, "between-events"),
        (23, "inside-comment-line"),
        (26, "at-end-of-comment-line"),
        (27, "between-cr-and-lf"),
        (28, "before-id-line"),
        (32, "before-blank-line"),
        (33, "between-cr-and-lf"),
        (34, "between-events"),
        (35, "inside-a-character"),
        (38, "inside-unknown-line"),
        (41, "inside-a-character"),
        (42, "after-all"),
    ],
)
def test_a_place_has_a_name(at: int, place: str) -> None:
    assert len(STREAM) == 42
    assert place_of(STREAM, at) == place


def test_a_leading_blank_line_is_one() -> None:
    assert place_of(b"\ndata: x", 1) == "between-events"
    assert place_of(b"\r\ndata: x", 2) == "between-events"


def test_the_middle_of_a_line_is_no_edge_and_all_the_rest_is() -> None:
    assert [at for at in range(23) if is_edge(STREAM, at)] == [0, 11, 12, 20, 21, 22]


def test_each_place_is_a_case_with_its_chunks() -> None:
    found = {case.name: case.chunks for case in cases(b"a:\n", "hi")}
    assert found == {
        "hi-cut-at-0-before-all": (b"", b"a:\n"),
        "hi-cut-at-1-inside-unknown-line": (b"a", b":\n"),
        "hi-cut-at-2-at-end-of-unknown-line": (b"a:", b"\n"),
        "hi-cut-at-3-after-all": (b"a:\n", b""),
    }


def test_pairs_and_sizes_are_added() -> None:
    names = [case.name for case in cases(b"a\n", "hi", edges=True, pairs=True, sizes=(1, 2))][3:]
    assert names == [
        "hi-cut-at-0-and-1",
        "hi-cut-at-0-and-2",
        "hi-cut-at-1-and-2",
        "hi-in-chunks-of-1",
        "hi-in-chunks-of-2",
    ]


def test_every_case_adds_up_to_the_whole() -> None:
    assert {b"".join(case.chunks) for case in cases(STREAM, "s", pairs=True, sizes=(1, 5))} == {STREAM}


def test_names_are_different() -> None:
    names = [case.name for case in cases(STREAM, "s", pairs=True, sizes=(1, 5))]
    assert len(set(names)) == len(names)


def test_more_cases_than_a_test_run_can_take_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="long: 20100 cuttings are more than 20000; assert_every_split is one"):
        list(cases(b"x" * 199, "long", pairs=True, sizes=()))
    assert len(list(cases(b"x" * 198, "long", pairs=True))) == 19900


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
