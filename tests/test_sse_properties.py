"""Properties of `rawsse.sse` that hold for every input, searched for a counterexample with hypothesis."""

from __future__ import annotations

from itertools import pairwise

import pytest

pytest.importorskip("hypothesis", reason="the search for counterexamples needs hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st
from test_sse_frames import BLOCKS, FRAME, MANY, assert_fast_is_plain

from rawsse.errors import InvalidFieldError
from rawsse.sse import Decoder, Event, encode, encode_comment

# The same examples in every run, and none kept on disk: a failure here can be seen again anywhere.
steadily = settings(derandomize=True, database=None, deadline=None, max_examples=150)

# Characters that mean something to somebody's grammar, much oftener than chance would draw them.
any_text = st.text(st.sampled_from("\r\n\0\t\v\f\x1c\x85\u2028\ufeff\ufffd :adeint0é€🦦"))
one_line = st.text(st.sampled_from("\t\v\f\x1c\x85\u2028\ufeff\ufffd :adeint0é€🦦"))
hostile = st.text(st.sampled_from("\r\n\0\ud800\udfff :adeint0é🦦"))
stream_bytes = st.lists(
    st.sampled_from(
        [
            b"\r",
            b"\n",
            b":",
            b" ",
            b"\0",
            b"\xef\xbb\xbf",
            b"\xe2\x82",
            b"\xff",
            b"data",
            b"event",
            b"id",
            b"retry",
            b"5",
            b"x",
        ]
    )
).map(b"".join)


def decoded(chunks: list[bytes]) -> tuple[list[Event], str, int | None, bytes]:
    decoder = Decoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    pending = decoder.close()
    return events, decoder.last_event_id, decoder.retry, pending


@steadily
@given(data=any_text, event=one_line, id=one_line)
def test_what_is_encoded_decodes_to_the_same_with_line_feeds_for_line_ends(data: str, event: str, id: str) -> None:
    lines = data.replace("\r\n", "\n").replace("\r", "\n")
    assert decoded([encode(data, event=event, id=id)])[0] == [Event(event or "message", lines, id)]


@steadily
@given(stream=stream_bytes)
def test_whatever_was_decoded_encodes_and_decodes_to_the_same(stream: bytes) -> None:
    for event in decoded([stream])[0]:
        if "\0" not in event.event:  # the one thing that `encode` refuses in what a decoder gave
            assert decoded([encode(event.data, event=event.event, id=event.id)])[0] == [event]


@steadily
@given(stream=stream_bytes, cuts=st.lists(st.integers(0, 60)))
def test_no_cut_changes_what_a_stream_means(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(edges)]
    assert decoded(chunks) == decoded([stream])


@steadily
@given(
    chunks=st.lists(st.lists(st.sampled_from([FRAME, MANY, *BLOCKS])).map(b"".join)),
    cuts=st.lists(st.integers(0, 400)),
    limit=st.integers(1, 1000),
)
def test_frames_are_read_fast_or_plainly_with_the_same_result(chunks: list[bytes], cuts: list[int], limit: int) -> None:
    edges, stream = [0, *sorted(cuts)], b"".join(chunks)
    assert_fast_is_plain([FRAME, *chunks], limit)
    assert_fast_is_plain([stream[start:end] for start, end in pairwise([*edges, len(stream)])])


@steadily
@given(event=hostile, id=hostile)
def test_a_field_is_either_refused_or_comes_out_as_it_went_in(event: str, id: str) -> None:
    try:
        wire = encode("a", event=event, id=id)
    except InvalidFieldError:
        assert set(event + id) & set("\r\n\0\ud800\udfff")
    else:
        assert decoded([wire])[0] == [Event(event or "message", "a", id)]


@steadily
@given(comment=any_text, data=any_text)
def test_a_comment_never_changes_the_event_after_it(comment: str, data: str) -> None:
    assert decoded([encode_comment(comment) + encode(data)]) == decoded([encode(data)])
