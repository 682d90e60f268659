"""rawsse.replay.variants: every place is cut at, and the cut that breaks a parser is found."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from rawsse.errors import ConfigurationError
from rawsse.replay.recording import Read, Recording
from rawsse.replay.variants import (
    AS_UNCUT,
    Chunks,
    FailingCut,
    Split,
    as_recorded,
    assert_every_split,
    at_line_ends,
    by_event,
    byte_by_byte,
    every_pair_split,
    every_split,
    fixed,
    random_chunks,
    random_splits,
    sized,
    smallest_failing_cut,
    split_by,
    whole,
)
from rawsse.sse import Decoder

STREAM = "event: a\r\ndata: é😀\r\n\r\nevent: b\ndata: x\ndata: y\n\n: note\n\ndata: z\r\rdata: cut".encode()


# --- One chunking ---


def test_whole_is_one_chunk_and_nothing_is_none() -> None:
    assert (whole(b"abc"), whole(b"")) == ((b"abc",), ())


def test_byte_by_byte_is_every_byte_alone() -> None:
    assert byte_by_byte(b"abc") == (b"a", b"b", b"c")


def test_fixed_leaves_the_rest_in_the_last_chunk() -> None:
    assert fixed(b"abcde", 2) == (b"ab", b"cd", b"e")


@pytest.mark.parametrize(("split", "size"), [(0, 0), (-1, -1), ([3, 0], 0), ("0", 0), ("3,0", 0)])
def test_a_chunk_has_at_least_one_byte(split: Split, size: int) -> None:
    with pytest.raises(ConfigurationError, match=f"the size of a chunk must be a whole number from 1 on, not {size}$"):
        split_by(split)


@pytest.mark.parametrize(
    ("sizes", "chunks"),
    [
        ([1, 3], (b"a", b"bcd", b"e")),
        ([5], (b"abcde",)),
        ([2, 9, 1], (b"ab", b"cde")),
        ([], (b"abcde",)),
    ],
)
def test_sizes_are_taken_one_after_the_other_and_the_rest_is_one_chunk(sizes: list[int], chunks: Chunks) -> None:
    assert sized(b"abcde", sizes) == chunks


def test_of_nothing_there_is_no_chunk() -> None:
    assert (sized(b"", [1]), random_chunks(b"", 1)) == ((), ())


def test_random_chunks_are_the_same_for_the_same_seed_and_join_to_the_data() -> None:
    first, again, other = (random_chunks(STREAM, seed, max_size=7) for seed in (1, 1, 2))
    assert first == again != other
    assert b"".join(first) == b"".join(other) == STREAM
    assert {len(chunk) for chunk in first} <= set(range(1, 8))


def test_random_chunks_of_at_most_one_byte_are_bytes() -> None:
    assert random_chunks(b"abc", 1, max_size=1) == (b"a", b"b", b"c")


def test_as_recorded_is_what_the_reads_gave() -> None:
    assert as_recorded(Recording(reads=(Read(0.1, b"ab"), Read(0.2, b"c")))) == (b"ab", b"c")


def test_events_are_cut_after_their_blank_lines_of_any_kind() -> None:
    events = [
        "event: a\r\ndata: é😀\r\n\r\n",
        "event: b\ndata: x\ndata: y\n\n",
        ": note\n\n",
        "data: z\r\r",
        "data: cut",
    ]
    assert by_event(STREAM) == tuple(event.encode() for event in events)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\n\n", b"\r\r\n", b"\n\r"])
def test_any_two_line_ends_end_an_event(end: bytes) -> None:
    assert by_event(b"data: a" + end + b"data: b") == (b"data: a" + end, b"data: b")


def test_one_line_end_ends_no_event() -> None:
    assert by_event(b"event: a\r\ndata: b\r\n") == (b"event: a\r\ndata: b\r\n",)


def test_cutting_at_line_ends_leaves_each_of_them_alone() -> None:
    assert at_line_ends(b"a\r\n\nb") == (b"a", b"\r", b"\n", b"\n", b"b")
    assert at_line_ends(b"abc") == (b"abc",)
    assert at_line_ends(b"") == ()


@pytest.mark.parametrize(
    ("split", "chunks"),
    [
        ("whole", (b"data: a\n\ndata: b",)),
        ("event", (b"data: a\n\n", b"data: b")),
        ("line-ends", (b"data: a", b"\n", b"\n", b"data: b")),
        ("bytes", tuple(bytes([byte]) for byte in b"data: a\n\ndata: b")),
        (10, (b"data: a\n\nd", b"ata: b")),
        ("10", (b"data: a\n\nd", b"ata: b")),
        ([1, 9], (b"d", b"ata: a\n\nd", b"ata: b")),
        ("1,9", (b"d", b"ata: a\n\nd", b"ata: b")),
        ("random:7", random_chunks(b"data: a\n\ndata: b", 7)),
        (lambda data: (data[:1], data[1:]), (b"d", b"ata: a\n\ndata: b")),
    ],
)
def test_a_split_is_a_name_a_size_sizes_or_a_function(split: Split, chunks: Chunks) -> None:
    assert split_by(split)(b"data: a\n\ndata: b") == chunks


@pytest.mark.parametrize("name", ["lines", "", "random:", "random:x", "-1", "1,", "1.5", "²"])
def test_an_unknown_name_is_refused(name: str) -> None:
    names = "whole, event, bytes, line-ends, random:SEED"
    with pytest.raises(ConfigurationError) as caught:
        split_by(name)
    assert str(caught.value) == f"split must be a size, a function, or one of {names}, not '{name}'"


# --- Many chunkings ---


def test_every_split_cuts_at_every_place() -> None:
    assert list(every_split(b"abc")) == [(b"a", b"bc"), (b"ab", b"c")]


def test_every_split_cuts_at_both_ends_too_if_chunks_may_be_empty() -> None:
    assert list(every_split(b"ab", empty=True)) == [(b"", b"ab"), (b"a", b"b"), (b"ab", b"")]


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_the_recipe_for_a_client_of_httpx_finds_a_mistake_and_none_where_there_is_none(library: str) -> None:
    httpx = pytest.importorskip(library, reason="the extra `interop`")
    lines = inspect.cleandoc(every_split.__doc__ or "").partition("    def parse")
    code = textwrap.dedent("".join(lines[1:]))
    names: dict[str, Any] = {"httpx": httpx, "assert_every_split": assert_every_split, "body": "data: ü\n\n".encode()}

    def right(client: Any) -> str:
        with client.stream("POST", "http://any/v1/messages") as response:
            return "".join(response.iter_text())

    def broken(client: Any) -> str:
        with client.stream("POST", "http://any/v1/messages") as response:
            return "".join(chunk.decode() for chunk in response.iter_raw())

    exec(code, names | {"ask": right})
    with pytest.raises(AssertionError, match=r"cut at byte 7: .*UnicodeDecodeError"):
        exec(code, names | {"ask": broken})


def test_every_pair_split_cuts_at_every_two_places() -> None:
    assert list(every_pair_split(b"abcd")) == [
        (b"a", b"b", b"cd"),
        (b"a", b"bc", b"d"),
        (b"ab", b"c", b"d"),
    ]


@pytest.mark.parametrize("data", [b"", b"a"])
def test_what_is_shorter_than_two_bytes_cannot_be_cut(data: bytes) -> None:
    assert (list(every_split(data)), list(every_pair_split(data))) == ([], [])
    assert list(random_splits(data, 1, count=1)) == [whole(data)]


@pytest.mark.parametrize("seed", range(3))
def test_no_chunk_of_random_splits_is_empty(seed: int) -> None:
    assert all(all(chunks) for chunks in random_splits(b"abcd", seed, count=50))


def test_the_same_seed_gives_the_same_splits() -> None:
    first, again, other = (list(random_splits(STREAM, seed, count=5)) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("seed", range(3))
def test_random_splits_are_as_many_as_asked_with_at_most_so_many_cuts(seed: int) -> None:
    splits = list(random_splits(STREAM, seed, count=20, max_cuts=3))
    assert {len(chunks) for chunks in splits} == {2, 3, 4}
    assert len(splits) == 20


@pytest.mark.parametrize("splits", [every_split, every_pair_split, lambda data: random_splits(data, 7)])
def test_the_chunks_joined_give_the_data(splits: object) -> None:
    assert callable(splits)
    assert {b"".join(chunks) for chunks in splits(STREAM)} == {STREAM}


# --- The cut that breaks a parser ---


def our_parser(chunks: Chunks) -> list[str]:
    decoder = Decoder()
    return [event.data for chunk in chunks for event in decoder.feed(chunk)]


def per_chunk_parser(chunks: Chunks) -> list[str]:
    """What is often written: it takes each chunk for whole lines."""
    return [line[6:] for chunk in chunks for line in chunk.decode().splitlines() if line.startswith("data: ")]


def crlf_blind_parser(chunks: Chunks) -> int:
    """Makes two line ends of a CR LF that is cut apart."""
    return sum(chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n") for chunk in chunks)


def test_our_decoder_is_broken_by_no_cut() -> None:
    assert smallest_failing_cut(STREAM, our_parser) is None
    assert all(our_parser(chunks) == ["é😀", "x\ny", "z"] for chunks in every_pair_split(STREAM))


def test_a_parser_of_whole_chunks_is_broken_by_the_first_cut_in_a_line() -> None:
    failing = smallest_failing_cut(b"data: ab\n", per_chunk_parser)
    assert failing is not None
    assert (failing.cuts, failing.expected, failing.got) == ((1,), ["ab"], [])
    assert failing.chunks == (b"d", b"ata: ab\n")


def test_a_cut_between_cr_and_lf_is_found() -> None:
    failing = smallest_failing_cut(b"event: a\r\ndata: b\n", crlf_blind_parser)
    assert failing is not None
    assert repr(failing) == r"cut at byte 9: b'event: a\r' | b'\ndata: b\n'; expected '2', got '3'"


def test_an_exception_is_a_failure_and_is_shown() -> None:
    failing = smallest_failing_cut("é".encode(), lambda chunks: "".join(chunk.decode() for chunk in chunks))
    assert failing is not None
    assert isinstance(failing.got, UnicodeDecodeError)
    assert repr(failing).startswith(r"""cut at byte 1: b'\xc3' | b'\xa9'; expected "'é'", got "UnicodeDecodeError(""")


def test_where_no_single_cut_breaks_it_the_fewest_are_found() -> None:
    failing = smallest_failing_cut(b"abcdefgh", lambda chunks: b"c" not in chunks or b"f" not in chunks)
    assert failing is not None
    assert failing.cuts == (2, 3, 5, 6)


def test_long_results_are_shown_from_just_before_they_differ() -> None:
    shown = repr(FailingCut(b"", (), 10**100 + 2, 10**100 + 3))
    assert shown == f"uncut; expected …'{'0' * 24}2', got …'{'0' * 24}3'"


def test_long_results_that_differ_at_once_are_shown_from_their_beginning() -> None:
    shown = repr(FailingCut(b"", (), 10**100, 2))
    assert shown == f"uncut; expected '1{'0' * 79}'…, got '2'"


def test_what_is_wrong_without_any_cut_is_said_so() -> None:
    failing = smallest_failing_cut(b"data: a\n\n", our_parser, ["b"])
    assert failing == FailingCut(b"data: a\n\n", (), ["b"], ["a"])
    assert repr(failing) == """uncut; expected "['b']", got "['a']\""""


def test_the_right_answer_may_be_given() -> None:
    assert smallest_failing_cut(b"data: a\n\n", our_parser, ["a"]) is None


def test_what_takes_no_empty_chunk_is_not_broken_by_one() -> None:
    def parse(chunks: Chunks) -> list[int]:
        return [byte for chunk in chunks for byte in (chunk[0], *chunk[1:])]

    assert smallest_failing_cut(b"data: a\n\n", parse) is None
    failing = smallest_failing_cut(b"data: a\n\n", parse, empty=True)
    assert failing is not None
    assert (failing.cuts, type(failing.got)) == ((0,), IndexError)


def test_none_may_be_what_is_expected() -> None:
    failing = smallest_failing_cut(b"ab", lambda chunks: None if len(chunks) == 1 else 3, None)
    assert failing == FailingCut(b"ab", (1,), None, 3)
    assert smallest_failing_cut(b"ab", len, AS_UNCUT) == FailingCut(b"ab", (1,), 1, 2)


def test_a_result_that_never_equals_another_is_not_blamed_on_a_cut() -> None:
    failing = smallest_failing_cut(b"ab", lambda _: object())
    assert failing is not None
    assert failing.cuts == ()


# --- Parsers that give what they find in other ways ---


def generator(chunks: Chunks) -> Iterator[str]:
    yield from our_parser(chunks)


async def coroutine(chunks: Chunks) -> list[str]:
    await asyncio.sleep(0)
    return our_parser(chunks)


async def async_generator(chunks: Chunks) -> AsyncIterator[str]:
    for data in our_parser(chunks):
        await asyncio.sleep(0)
        yield data


async def coroutine_of_a_generator(chunks: Chunks) -> Iterator[str]:
    return iter(our_parser(chunks))


WAYS = [generator, coroutine, async_generator, coroutine_of_a_generator]


@pytest.mark.parametrize("parse", WAYS)
def test_generators_and_async_parsers_are_compared_by_what_they_give(parse: Callable[[Chunks], Any]) -> None:
    assert smallest_failing_cut(STREAM, parse) is None
    assert smallest_failing_cut(STREAM, parse, ["é😀", "x\ny", "z"]) is None
    assert smallest_failing_cut(STREAM, parse, ["z"]) == FailingCut(STREAM, (), ["z"], ["é😀", "x\ny", "z"])


def test_what_is_expected_may_be_a_generator_too() -> None:
    assert smallest_failing_cut(b"data: a\n\n", generator, iter(["a"])) is None


def test_a_generator_that_fails_on_its_way_fails() -> None:
    def parse(chunks: Chunks) -> Iterator[str]:
        for chunk in chunks:
            yield chunk.decode()

    failing = smallest_failing_cut("é".encode(), parse)
    assert failing is not None
    assert (failing.cuts, type(failing.got)) == ((1,), UnicodeDecodeError)


def test_an_async_parser_that_fails_at_a_cut_is_caught() -> None:
    async def parse(chunks: Chunks) -> list[str]:
        return [chunks[-1].decode()]

    failing = smallest_failing_cut(b"ab", parse)
    assert failing == FailingCut(b"ab", (1,), ["ab"], ["b"])


@pytest.mark.parametrize("parse", [coroutine, async_generator, lambda chunks: coroutine(chunks)])
def test_an_async_parser_cannot_be_run_inside_a_running_loop(parse: Callable[[Chunks], Any]) -> None:
    async def test() -> None:
        smallest_failing_cut(b"ab", parse)

    with pytest.raises(ConfigurationError, match="the parser is async, and an event loop runs already: call this from"):
        asyncio.run(test())


def test_a_parser_that_fails_without_any_cut_has_to_be_told_what_is_expected() -> None:
    def parse(chunks: Chunks) -> int:
        raise KeyError("data")

    with pytest.raises(ConfigurationError) as caught:
        smallest_failing_cut(b"ab", parse)
    said = """the parser fails on the uncut data, with "KeyError('data')": there is nothing to compare with"""
    assert str(caught.value) == f"{said}; say what is expected"
    assert isinstance(caught.value.__cause__, KeyError)
    failing = smallest_failing_cut(b"ab", parse, 1)
    assert failing is not None
    assert (failing.cuts, type(failing.got)) == ((), KeyError)


def test_a_line_that_never_ends_is_lost_without_any_cut() -> None:
    def parse(chunks: Chunks) -> list[str]:
        lines = b"".join(chunks).decode().split("\n")
        lines.pop()
        return lines

    assert smallest_failing_cut(b"data: a\ndata: b", parse) is None
    failing = smallest_failing_cut(b"data: a\ndata: b", parse, ["data: a", "data: b"])
    assert failing is not None
    assert failing.cuts == ()


# --- As an assertion ---


def naive(chunks: Chunks) -> list[bytes]:
    return [line for chunk in chunks for line in chunk.split(b"\n") if line]


def test_the_cut_that_breaks_a_parser_is_shown_with_its_place() -> None:
    with pytest.raises(AssertionError, match=r"^hello, cut at byte 1: b'd' \| b'ata: hi"):
        assert_every_split(b"data: hi\n\n", naive, name="hello")


def test_a_parser_that_raises_is_the_cause() -> None:
    def fragile(chunks: Chunks) -> int:
        if len(chunks) > 1:
            raise KeyError("half")
        return 1

    with pytest.raises(AssertionError, match=r"^the stream, cut at byte 1") as caught:
        assert_every_split(b"data: hi\n\n", fragile)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_wrong_result_for_the_uncut_data_is_no_matter_of_cuts() -> None:
    with pytest.raises(AssertionError, match=r"^the stream, uncut; expected '2', got '1'"):
        assert_every_split(b"data: hi\n\n", lambda _: 1, 2)


def test_a_parser_may_be_a_coroutine_function() -> None:
    async def patient(chunks: Chunks) -> bytes:
        return b"".join(chunks)

    assert_every_split(STREAM, patient, STREAM)


def test_the_parser_is_called_about_once_per_byte() -> None:
    calls: list[Chunks] = []

    def counted(chunks: Chunks) -> bytes:
        calls.append(chunks)
        return b"".join(chunks)

    assert_every_split(STREAM, counted)
    # Uncut, twice; cut at each place between two bytes; cut everywhere.
    assert len(calls) == 2 + (len(STREAM) - 1) + 1
