"""`rawsse.http1.codings`: chunked bodies against RFC 9112 and h11, content codings against zlib and gzip; at every cut."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Iterable, Iterator

import h11
import pytest

from rawsse.errors import APIError, BodyTooLargeError, HeadTooLargeError, HTTPProtocolError
from rawsse.http1.codings import (
    FREE_DECODED_BYTES,
    MAX_CHUNK_HEAD_BYTES,
    MAX_DECODED_BYTES,
    MAX_EXPANSION,
    ChunkedReader,
    ContentDecoder,
)


def every_cut(wire: bytes) -> Iterator[list[bytes]]:
    yield [wire]
    for at in range(1, len(wire)):
        yield [wire[:at], wire[at:]]
    yield [wire[at : at + 1] for at in range(len(wire))]


def read_chunks(
    reads: Iterable[bytes], into: list[bytes] | None = None, **limits: int
) -> tuple[list[bytes], bytes | None]:
    """The pieces of data, and what follows the body; None if the body is not whole."""
    reader, unread, is_whole = ChunkedReader(**limits), b"", False
    pieces = [] if into is None else into
    for read in reads:
        unread += read
        while not is_whole:
            data, unread = reader.read(unread)
            if data is None:
                break
            is_whole = not data
            pieces += [data] if data else []
    return pieces, unread if is_whole else None


def body_of(wire: bytes) -> bytes:
    """The body, having made sure that it and its end are the same however the wire is cut."""
    pieces, rest = read_chunks([wire])
    for reads in every_cut(wire):
        again, rest_again = read_chunks(reads)
        assert (b"".join(again), rest_again) == (b"".join(pieces), rest), reads
    assert rest == b"next"
    return b"".join(pieces)


# --- Chunks --------------------------------------------------------------------------------------------------------


def test_chunks_are_joined_to_the_body() -> None:
    assert body_of(b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\nnext") == b"hello world"


def test_an_empty_body_is_its_last_chunk() -> None:
    assert body_of(b"0\r\n\r\nnext") == b""


def test_sizes_are_hexadecimal_of_any_case_with_any_zeros_before() -> None:
    assert body_of(b"00A\r\n0123456789\r\n0b\r\n0123456789a\r\n000\r\n\r\nnext") == b"01234567890123456789a"
    assert body_of(b"12\r\n0123456789abcdefgh\r\n0\r\n\r\nnext") == b"0123456789abcdefgh"


def test_extensions_are_ignored() -> None:
    assert body_of(b'1;a\r\nx\r\n1;a=1;b="c;d"\r\ny\r\n0;last\r\n\r\nnext') == b"xy"


def test_blanks_after_a_size_are_forgiven() -> None:
    assert body_of(b"1  \r\nx\r\n1\t;a\r\ny\r\n0 \r\n\r\nnext") == b"xy"


def test_trailers_are_read_over() -> None:
    assert body_of(b"1\r\nx\r\n0\r\nDigest: abc\r\nX: y\r\n\r\nnext") == b"x"


@pytest.mark.parametrize(
    "trailers", [b"A : b", b"A", b"A: b\n\nB: c", b"A: b\rB: c", b" A: b", b"A: \0", b"A: b\r\n c", b":"]
)
def test_trailers_that_two_readers_could_read_differently_are_refused(trailers: bytes) -> None:
    for reads in every_cut(b"0\r\n" + trailers + b"\r\n\r\n"):
        with pytest.raises(HTTPProtocolError, match=r"^not the trailers of a chunked body$"):
            read_chunks(reads)


def test_data_may_hold_what_looks_like_an_end() -> None:
    assert body_of(b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\nnext") == b"\r\n0\r\n\r\n"


def test_all_chunks_and_parts_of_chunks_of_one_read_are_one_piece() -> None:
    reads = [b"1\r\na\r\n4\r\nbc", b"de\r\n1\r\nf\r\n2\r", b"\ngh\r\n0\r\n\r\n"]
    assert read_chunks(reads)[0] == [b"abc", b"def", b"gh"]


@pytest.mark.parametrize("wrong", [b"x\r\n", b"1\r\nxy", b"1;" + b"a" * 20 + b"\r\n"])
def test_data_in_front_of_a_broken_chunk_are_returned_before_the_error(wrong: bytes) -> None:
    reader = ChunkedReader(max_chunk_head_bytes=20)
    data, unread = reader.read(b"1\r\na\r\n2\r\nbc\r\n" + wrong)
    assert data == (b"abcx" if wrong.endswith(b"y") else b"abc")
    with pytest.raises(APIError):
        reader.read(unread)


def outcome(reads: Iterable[bytes]) -> tuple[bytes, bytes | None, type[Exception] | None]:
    """The body, what follows it, and the kind of error that ended it."""
    pieces: list[bytes] = []
    try:
        rest = read_chunks(reads, pieces, max_chunk_head_bytes=20)[1]
    except APIError as exc:
        return b"".join(pieces), None, type(exc)
    return b"".join(pieces), rest, None


CHUNKS = [b"1\r\na\r\n", b"0A \r\n0123456789\r\n", b"7;a=b\r\n\r\n0\r\n\r\n\r\n"]
ENDS = [
    b"0\r\n\r\n",
    b"0;a\r\nA: b\r\n\r\nnext",
    b"x\r\n",
    b"1\r\na\n\n",
    b"2\r\nab\rx",
    b"1\r\nab\r\n",
    b"1;" + b"a" * 20 + b"\r\nx\r\n",
]


@pytest.mark.parametrize("end", ENDS)
def test_whole_chunks_one_a_read_are_read_as_they_are_byte_by_byte_and_at_every_cut(end: bytes) -> None:
    wire = b"".join(CHUNKS) + end
    expected = outcome([*CHUNKS, end])
    assert expected[0].startswith(b"a0123456789\r\n0\r\n\r\n")
    for reads in every_cut(wire):
        assert outcome(reads) == expected, reads
    assert outcome([CHUNKS[0] + CHUNKS[1][:-1], CHUNKS[1][-1:] + CHUNKS[2], end]) == expected


def test_data_come_out_before_their_chunk_is_whole() -> None:
    assert read_chunks([b"5\r\nhe", b"llo\r\n"])[0] == [b"he", b"llo"]


def test_a_body_is_not_whole_before_its_last_byte() -> None:
    wire = b"3\r\nabc\r\n0\r\nA: b\r\n\r\n"
    for end in range(len(wire)):
        assert read_chunks([wire[:end]])[1] is None, wire[:end]
    assert read_chunks([wire])[1] == b""


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b" 1\r\n",
        b"1 1\r\n",
        b"1\n",  # a bare LF: some readers end the line there, some do not
        b"1;a\nb\r\n",
        b"1;a\rb\r\n",
        b"1\rx\r\n",
        b"11111111111111111\r\n",  # 17 digits
        b"\xb9\r\n",
        b"1\r\nxy",  # a chunk longer than its size
        b"1\r\nx1\r\n",
        b"1\r\nx\n1\r\n",
        b"1\r\nx\r\r\n",
    ],
)
def test_a_chunk_that_two_readers_could_read_differently_is_refused_at_every_cut(wire: bytes) -> None:
    for reads in every_cut(wire):
        with pytest.raises(HTTPProtocolError, match=r"^not a chunk's head: b'"):
            read_chunks(reads)


def test_a_refused_head_is_quoted_only_in_part() -> None:
    with pytest.raises(HTTPProtocolError) as caught:
        read_chunks([b"x" * 1000 + b"\n"])
    assert str(caught.value) == f"not a chunk's head: b'{'x' * 80}'… (1001 in all)"


@pytest.mark.parametrize(
    "wire",
    [
        b"1;" + b"a" * 20 + b"\r\nx",
        b"1\r\nx\r\n1;" + b"a" * 20 + b"\r\nx",
        b"1;" + b"a" * 30,
        b"1;" + b" " * 30 + b"\n\r\n",
        b"0\r\n" + b"A: b\r\n" * 5 + b"\r\n",
        b"0\r\nA: " + b"b" * 30,
    ],
)
def test_a_head_or_trailers_past_the_limit_are_refused_at_every_cut(wire: bytes) -> None:
    for reads in every_cut(wire):
        with pytest.raises(HeadTooLargeError, match=r"are larger than max_chunk_head_bytes \(20\)$") as caught:
            read_chunks(reads, max_chunk_head_bytes=20)
        assert caught.value.limit == 20


def test_a_head_as_long_as_the_limit_is_read() -> None:
    assert MAX_CHUNK_HEAD_BYTES == 4096
    for reads in every_cut(b"1;" + b"a" * 16 + b"\r\nx"):
        assert read_chunks(reads, max_chunk_head_bytes=20)[0] == [b"x"]


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n"])
def test_what_follows_the_body_counts_for_no_limit(end: bytes) -> None:
    assert read_chunks([end + b"x" * 100], max_chunk_head_bytes=20) == ([], b"x" * 100)


def read_with_h11(wire: bytes) -> bytes | None:
    """The body as h11 reads it; None if it is not whole, or wrong."""
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + wire)
    body = b""
    try:
        while not isinstance(event := peer.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                return None
            body += bytes(event.data) if isinstance(event, h11.Data) else b""
    except h11.RemoteProtocolError:
        return None
    return body


def test_what_is_read_of_a_thousand_damaged_bodies_h11_reads_the_same() -> None:
    chance = random.Random("damaged bodies")
    alphabet = [b"\r", b"\n", b"\r\n", b"0", b"1", b"a", b";", b"x", b""]  # no blank: h11 allows none before ";"
    whole = b"1\r\nx\r\na;b=c\r\n0123456789\r\n02\r\n\r\n\r\n0\r\nA: b\r\n\r\n"
    read = 0
    for _ in range(1000):
        at = chance.randrange(len(whole))
        wire = whole[:at] + chance.choice(alphabet) + whole[at + chance.randrange(2) :]
        try:
            pieces, rest = read_chunks([wire])
        except HTTPProtocolError:
            continue
        if rest is not None:
            read += 1
            assert read_with_h11(wire) == b"".join(pieces), wire
    assert read > 100


# --- Content codings -----------------------------------------------------------------------------------------------

TEXT = b"event: ping\ndata: {}\n\n" * 20


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", TEXT),
        ("identity", TEXT),
        *((name, TEXT) for name in ("none", "None", "identity, none", "UTF-8", "8bit", "binary", "null", " , ")),
        *(
            (name, TEXT)
            for name in ("identity;q=1", "identity; q=1.0, ", ",,", "off", "Off", "no", "false", "US-ASCII", "ascii")
        ),
        *(
            (name, TEXT)
            for name in ("ISO-8859-1", "iso8859-15", "latin1", "windows-1252", "cp1252", "utf-16", '"utf-8"')
        ),
        *(
            (name, TEXT)
            for name in ("utf-8;q=0.5,none", "charset=utf-8", "utf_8", "text/event-stream", "undefined", ";", ";q=1")
        ),
        ("gzip;q=1.0, identity;q=0", gzip.compress(TEXT, mtime=0)),
        ("gzip, identity", gzip.compress(TEXT, mtime=0)),
        (" ,none,deflate", zlib.compress(TEXT)),
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("GZip ", gzip.compress(TEXT, mtime=0)),
        ("x-gzip", gzip.compress(TEXT, mtime=0)),
        ("gzip", gzip.compress(TEXT[:50], mtime=0) + gzip.compress(TEXT[50:], mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
    ],
)
def test_a_body_is_decoded_at_every_cut(encoding: str, body: bytes) -> None:
    for reads in every_cut(body):
        decoder = ContentDecoder(encoding)
        assert b"".join(decoder.decode(read) for read in reads) == TEXT


def test_what_the_peer_flushed_comes_out_at_once() -> None:
    compressor, decoder = zlib.compressobj(wbits=zlib.MAX_WBITS | 16), ContentDecoder("gzip")
    for event in (b"data: a\n\n", b"data: b\n\n"):
        assert decoder.decode(compressor.compress(event) + compressor.flush(zlib.Z_SYNC_FLUSH)) == event


def test_nothing_decodes_to_nothing() -> None:
    assert ContentDecoder("gzip").decode(b"") == ContentDecoder("").decode(b"") == b""


@pytest.mark.parametrize(
    "encoding",
    [
        *["br", "zstd", "compress", "aws-chunked", "base64", "utf", "iso-8859", "dcb", "no-gzip", "br;q=1"],
        "gzip, deflate",
        "gzip, gzip",
        "none, br",
    ],
)
def test_another_coding_is_refused_by_name(encoding: str) -> None:
    with pytest.raises(HTTPProtocolError, match=f"^unsupported Content-Encoding: '{encoding}'$"):
        ContentDecoder(encoding)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", TEXT),
        ("gzip", gzip.compress(TEXT)[:-8] + bytes(8)),  # a wrong checksum
        ("gzip", gzip.compress(TEXT) + b"not a member"),
        ("deflate", zlib.compress(TEXT)[:-4] + bytes(4)),
        ("deflate", zlib.compress(TEXT)[:2] + b"\xff" * 50),
    ],
    ids=["no gzip", "checksum", "no second member", "zlib checksum", "no block"],
)
def test_a_body_that_is_not_in_its_coding_is_refused(encoding: str, body: bytes) -> None:
    with pytest.raises(HTTPProtocolError, match=f"^the body is not {encoding} as its content-encoding says: Error -3"):
        ContentDecoder(encoding).decode(body)


def test_a_bomb_is_refused_before_it_has_unfolded() -> None:
    decoder = ContentDecoder("gzip", max_decoded_bytes=1000)
    with pytest.raises(BodyTooLargeError, match=r"^a piece of the body expands to more than 1000 bytes$") as caught:
        decoder.decode(gzip.compress(bytes(1001)))
    assert caught.value.limit == 1000


def test_a_bomb_in_many_members_is_refused_too() -> None:
    with pytest.raises(BodyTooLargeError):
        ContentDecoder("gzip", max_decoded_bytes=1000).decode(gzip.compress(bytes(400)) * 3)


@pytest.mark.parametrize("wrap", [gzip.compress, lambda data: gzip.compress(data[:500]) + gzip.compress(data[500:])])
def test_a_piece_may_expand_to_just_the_limit_and_the_next_again(wrap: type[bytes]) -> None:
    assert MAX_DECODED_BYTES == 32 * 1024 * 1024
    decoder = ContentDecoder("gzip", max_decoded_bytes=1000)
    assert [decoder.decode(wrap(bytes(1000))) for _ in range(3)] == [bytes(1000)] * 3


# --- A body that expands without end -----------------------------------------------------------------------------------


def events(count: int) -> bytes:
    """As many events as an answer has that says the same word again and again: what compresses best of all that is sent."""
    delta = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"again "}}'
    return (b"event: content_block_delta\ndata: " + delta + b"\n\n") * count


def test_a_body_that_expands_a_thousandfold_is_refused() -> None:
    decoder, compressor = ContentDecoder("gzip"), zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    sent = taken = 0
    error: BodyTooLargeError | None = None
    for _ in range(10_000):
        drip = compressor.compress(b":\n" * 4096) + compressor.flush(zlib.Z_SYNC_FLUSH)
        sent += len(drip)
        try:
            taken += len(decoder.decode(drip))
        except BodyTooLargeError as exc:
            error = exc
            break
    assert error is not None
    assert taken <= FREE_DECODED_BYTES + MAX_EXPANSION * sent


def test_a_small_piece_makes_little_work() -> None:
    piece = gzip.compress(bytes(16 * 1024 * 1024))
    with pytest.raises(BodyTooLargeError) as caught:
        ContentDecoder("gzip").decode(piece)
    assert caught.value.limit == FREE_DECODED_BYTES + MAX_EXPANSION * len(piece) < MAX_DECODED_BYTES / 10


def test_what_was_not_used_is_not_saved_for_a_bomb() -> None:
    decoder = ContentDecoder("gzip")
    noise = random.Random(7).randbytes(100_000)
    compressed = gzip.compress(noise)
    for _ in range(100):
        assert decoder.decode(compressed) == noise
    with pytest.raises(BodyTooLargeError):
        decoder.decode(gzip.compress(bytes(4 * 1024 * 1024)))


@pytest.mark.parametrize("level", [1, 6, 9])
def test_an_answer_that_repeats_itself_is_decoded_in_whatever_pieces_it_comes(level: int) -> None:
    text = events(8000)
    body = gzip.compress(text, level)
    for size in (len(body), 65536, 1000):
        decoder = ContentDecoder("gzip")
        assert b"".join(decoder.decode(body[at : at + size]) for at in range(0, len(body), size)) == text
