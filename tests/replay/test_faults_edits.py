"""rawsse.replay.faults: exact bodies and heads, written by hand."""

from __future__ import annotations

import re

import pytest

from rawsse.errors import ConfigurationError
from rawsse.replay import Fault, Read, Recording
from rawsse.replay.faults import edited, offset_of, replacement

SSE = {"content-type": "text/event-stream; charset=utf-8"}
A, B, C = b'data: {"a": "x"}\n\n', b'event: b\ndata: {"b": "y"}\n\n', b": comment\n\n"
BODY = A + B + C
# Three reads that go across the events' ends.
READS = (Read(1.0, BODY[:10]), Read(2.0, BODY[10:30]), Read(3.0, BODY[30:]))


def body_after(*faults: Fault, body: bytes = BODY) -> bytes:
    answer = edited(Recording(None, 200, SSE, (Read(0.0, body),)), faults)
    return b"".join(read.data for read in answer.reads)


# --- Events and bytes ---


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        (Fault.parse("drop@event=0"), B + C),
        (Fault.parse("drop@event=1"), A + C),
        (Fault.parse("drop@event=-1"), A + B),
        (Fault.parse("duplicate@event=0"), A + A + B + C),
        (Fault.parse("duplicate@event=-1"), A + B + C + C),
        (Fault.parse("swap@event=0"), B + A + C),
        (Fault.parse("swap@event=-2"), A + C + B),
        (Fault.parse("garble@event=0"), b'data: #"a": "x"}\n\n' + B + C),
        (Fault.parse("garble@event=1"), A + b'event: b\ndata: #"b": "y"}\n\n' + C),
        (Fault.parse("garble@event=2"), A + B + b"# comment\n\n"),
        (Fault.parse("bad-utf8@event=1"), A + b'event: b\ndata: {"b": "y\xff"}\n\n' + C),
        (Fault.parse("bad-utf8@event=2"), A + B + b"\xff: comment\n\n"),
        (Fault.parse("bad-utf8@byte=2"), b"da\xff" + BODY[2:]),
        (Fault.parse("bad-utf8@byte=-1"), BODY[:-1] + b"\xff\n"),
        (Fault.parse("bad-utf8@byte=56"), BODY + b"\xff"),
        (Fault.parse("end@event=1"), A),
        (Fault.parse("end@event=-1"), A + B),
        (Fault.parse("end@event=0"), b""),
        (Fault.parse("end@byte=3"), BODY[:3]),
        (
            Fault.parse("oversized-line=41@event=1"),
            A + b'event: ping\ndata: {"type": "ping", "padding": "xxxx"}\n\n' + B + C,
        ),
        (
            Fault.parse("error=overloaded_error@event=1"),
            A + b'event: error\ndata: {"type":"error","error":'
            b'{"details":null,"type":"overloaded_error","message":"Overloaded"}}\n\n',
        ),
        (
            Fault.parse("error=new_error,message=é@event=3"),
            BODY
            + 'event: error\ndata: {"type":"error","error":'
            '{"details":null,"type":"new_error","message":"\u00e9"}}\n\n'.encode(),
        ),
    ],
    ids=str,
)
def test_the_body_is_that_of_the_fault_byte_for_byte(fault: Fault, body: bytes) -> None:
    assert body_after(fault) == body


@pytest.mark.parametrize("end", [b"\r\n", b"\r", b"\n"])
def test_events_end_as_the_standard_says(end: bytes) -> None:
    first, second = b"data: 1" + end + end, b"data: 2" + end + end
    assert body_after(Fault.parse("drop@event=0"), body=first + second) == second
    assert body_after(Fault.parse("garble@event=1"), body=first + second) == first + b"data: #" + end + end


def test_an_unfinished_event_at_the_end_is_one_too() -> None:
    assert body_after(Fault.parse("drop@event=-1"), body=A + b"data: ") == A


def test_a_long_line_is_as_long_as_it_was_to_be() -> None:
    lines = body_after(Fault.parse("oversized-line=100000@event=1")).split(b"\n")
    assert max(map(len, lines)) == 100_000


def test_edits_are_done_one_after_the_other() -> None:
    assert body_after(Fault.parse("drop@event=0"), Fault.parse("drop@event=0")) == C
    assert (
        body_after(Fault.parse("duplicate@event=0"), Fault.parse("garble@event=1"))
        == A + b'data: #"a": "x"}\n\n' + B + C
    )


def test_other_faults_are_none_of_its_business() -> None:
    answer = Recording(None, 200, SSE, READS)
    assert edited(answer, [Fault.parse("reset@event=0"), Fault.parse("gzip"), Fault.parse("no-last-chunk")]) == answer


# --- Reads and times ---


def reads_after(fault: Fault) -> tuple[Read, ...]:
    return edited(Recording(None, 200, SSE, READS), [fault]).reads


def test_other_bytes_keep_their_reads_and_times() -> None:
    assert reads_after(Fault.parse("drop@event=0")) == (Read(2.0, BODY[18:30]), Read(3.0, BODY[30:]))


def test_what_is_new_goes_out_with_what_it_stands_before() -> None:
    assert reads_after(Fault.parse("bad-utf8@byte=10")) == (READS[0], Read(2.0, b"\xff" + BODY[10:30]), READS[2])


def test_what_is_new_at_the_end_goes_out_with_the_last_read() -> None:
    assert reads_after(Fault.parse("duplicate@event=-1"))[2:] == (READS[2], Read(3.0, C))


def test_what_is_new_in_an_empty_body_goes_out_at_once() -> None:
    assert edited(Recording(None, 200, SSE), [Fault.parse("bad-utf8@byte=0")]).reads == (Read(0.0, b"\xff"),)


def test_an_error_comes_when_the_event_that_it_replaces_would_have_begun() -> None:
    first, second = reads_after(Fault.parse("error=overloaded_error@event=1"))
    assert first == READS[0]
    assert (second.t, second.data[:8]) == (2.0, BODY[10:18])


@pytest.mark.parametrize("spec", ["error=overloaded_error@event=1", "end@event=1"])
def test_an_error_event_and_a_whole_framing_are_a_proper_end_of_what_was_cut(spec: str) -> None:
    cut = Recording(None, 200, SSE, READS, end="cut")
    assert edited(cut, [Fault.parse(spec)]).end == "clean"
    assert edited(cut, [Fault.parse("drop@event=1")]).end == "cut"


@pytest.mark.parametrize("spec", ["error=overloaded_error@event=1", "end@event=1"])
def test_after_such_an_end_nothing_more_is_waited_for(spec: str) -> None:
    answer = Recording(None, 200, SSE, READS, duration=9.0)
    ended = edited(answer, [Fault.parse(spec)])
    assert ended.duration == ended.reads[-1].t < 9
    assert edited(answer, [Fault.parse("drop@event=1")]).duration == 9.0


def test_a_length_that_was_told_stays_true() -> None:
    answer = Recording(None, 200, {"content-length": str(len(BODY))}, READS)
    assert edited(answer, [Fault.parse("drop@event=0")]).headers["content-length"] == str(len(B + C))


# --- Places ---


@pytest.mark.parametrize(
    ("fault", "offset"),
    [
        (Fault.parse("reset@event=0"), 0),
        (Fault.parse("reset@event=1"), 18),
        (Fault.parse("reset@event=3"), len(BODY)),
        (Fault.parse("reset@event=-1"), len(A + B)),
        (Fault.parse("reset@event=-3"), 0),
        (Fault.parse("reset@byte=5"), 5),
        (Fault.parse("reset@byte=-1"), len(BODY) - 1),
        (Fault.parse("reset@byte=56"), len(BODY)),
        (Fault.parse("reset@head=3"), 3),
    ],
    ids=str,
)
def test_a_place_is_after_so_many_bytes(fault: Fault, offset: int) -> None:
    assert offset_of(fault, BODY) == offset


FROM_0 = ", counted from 0 (by explain and check from 1)"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault.parse("reset@event=4"), "reset@event=4 has no place in this answer, which has 3 events" + FROM_0),
        (Fault.parse("reset@event=-4"), "reset@event=-4 has no place in this answer, which has 3 events" + FROM_0),
        (Fault.parse("reset@byte=57"), "reset@byte=57 has no place in this answer, which has 56 bytes of body"),
        (Fault.parse("reset@head=57"), "reset@head=57 has no place in this answer, which has 56 bytes of head"),
    ],
    ids=str,
)
def test_a_place_that_is_not_there_is_named(fault: Fault, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(words)}$"):
        offset_of(fault, BODY)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault.parse("drop@event=3"), "drop@event=3 has no place in this answer, which has 3 events" + FROM_0),
        (
            Fault.parse("swap@event=2"),
            "swap@event=2 has no place in this answer, in which no event comes after that one",
        ),
        (
            Fault.parse("error=overloaded_error@event=4"),
            "error=overloaded_error@event=4 has no place in this answer, which has 3 events" + FROM_0,
        ),
    ],
    ids=str,
)
def test_an_event_that_is_not_there_cannot_be_edited(fault: Fault, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(words)}$"):
        body_after(fault)


# --- Another answer ---


def instead(fault: Fault) -> tuple[int, dict[str, str], bytes]:
    answer = replacement([Fault.parse("gzip"), fault, Fault.parse("html=599")])
    assert answer is not None
    return answer.status, dict(answer.headers), b"".join(read.data for read in answer.reads)


def test_a_status_is_an_error_as_the_api_tells_it_and_lets_clients_try_again() -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    headers = {"content-type": "application/json", "content-length": "75", "retry-after": "2"}
    assert instead(Fault.parse("status=529,retry-after=2")) == (529, headers, body)


def test_a_status_may_have_its_own_type_words_and_headers() -> None:
    fault = Fault.parse("status=400,type=t,message=No.,x-should-retry=true")
    status, headers, body = instead(fault)
    assert (status, headers["x-should-retry"]) == (400, "true")
    assert body == b'{"type":"error","error":{"type":"t","message":"No."}}'


def test_a_status_without_words_has_those_of_its_type() -> None:
    assert b'"type":"not_found_error","message":"Not found error"' in instead(Fault.parse("status=404"))[2]
    assert b'"type":"new_error","message":"New error"' in instead(Fault.parse("status=404,type=new_error"))[2]


def test_a_page_is_html() -> None:
    status, headers, body = instead(Fault.parse("html=502"))
    assert (status, headers["content-type"], headers["content-length"]) == (502, "text/html", str(len(body)))
    assert body.startswith(b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n")


def test_a_page_with_a_status_of_no_name_has_its_number() -> None:
    assert b"<title>529</title>" in instead(Fault.parse("html=529"))[2]


def test_a_redirection_says_where_to() -> None:
    headers = {"location": "http://a/b", "content-length": "0"}
    assert instead(Fault.parse("redirect=302,location=http://a/b")) == (302, headers, b"")


def test_without_such_a_fault_the_answer_is_the_recording() -> None:
    assert replacement([Fault.parse("gzip"), Fault.parse("drop@event=0")]) is None


@pytest.mark.parametrize(("kind", "status"), [("overloaded_error", 529), ("rate_limit_error", 429), ("new_error", 500)])
def test_a_json_answer_has_the_error_as_its_status(kind: str, status: int) -> None:
    answer = edited(
        Recording(None, 200, {"content-type": "application/json"}, (Read(0.0, b"{}"),)), [Fault.parse(f"error={kind}")]
    )
    assert answer.status == status
    assert f'"type":"{kind}"'.encode() in answer.reads[0].data
