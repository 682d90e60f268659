"""The codings of an HTTP body: the chunked transfer coding (RFC 9112, 7.1), and gzip and deflate (RFC 9110, 8.4).

A body ends (RFC 9112, 6.3) after the chunk of size 0, if it is chunked; else after as many bytes as `Content-Length` says; else
where the connection is closed, and then the connection cannot be used again. A chunk is its size in hexadecimal digits, and its
data. These two have 5 and 12 bytes:

    5 CR LF h e l l o CR LF c CR LF SP s t r e a m i n g ... CR LF 0 CR LF CR LF

A read may end anywhere, even inside a size:

    chunks = ChunkedReader()
    data, unread = chunks.read(unread + bytes_from_the_peer)      # None: more bytes are needed; b"": the body has ended

    decoder = ContentDecoder("gzip")
    text += decoder.decode(data)                                  # `data` may be split anywhere
"""

from __future__ import annotations

import re
import zlib

from rawsse.errors import BodyTooLargeError, HeadTooLargeError, HTTPProtocolError, quote

MAX_CHUNK_HEAD_BYTES = 4 * 1024
"""The size of one chunk with its extensions, or all trailers. Known servers send a few dozen bytes."""

MAX_DECODED_BYTES = 32 * 1024 * 1024
"""The largest size that a compressed piece of a body may expand to. Deflate expands at most a thousandfold, so a read of 64 KiB
can become 64 MiB. A piece that expands to half of that is a decompression bomb, not text."""

MAX_EXPANSION = 64
"""How many times its size a piece of a body may expand to, beyond `FREE_DECODED_BYTES`. Event streams expand tenfold, but
deflate can reach a thousandfold, so that a server could keep the client busy with few bytes."""

FREE_DECODED_BYTES = 1024 * 1024
"""How many more bytes a body may expand to: some answers are repetitive."""

# RFC 9110, 8.4: "identity" is "reserved for its role in Accept-Encoding"; "none" is what the Vercel AI SDK sends, so that no
# proxy compresses its streams. The others are charsets and MIME encodings (RFC 2045, 6.1), which servers send by mistake.
_NO_CODING = (
    r"(?:identity|none|null|nil|no|off|false|undefined|plain|raw|7bit|8bit|binary|text(?:/[a-z-]+)?|application/json"
    r"|(?:charset=)?(?:utf[-_]?(?:8|16|32)|(?:us-)?ascii|iso[-_]?8859[-_]?\d+|latin[-_]?\d|(?:windows-|cp)125\d))?"
)

# chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF. Blanks after the size are accepted, as some servers pad it. A line
# ends with CRLF, never with a bare LF or CR, on which parsers differ.
_HEAD = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")
_TRAILERS = rb"\r\n(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[^\0\r\n]*\r\n)*"


class ChunkedReader:
    """Reads one chunked body. h11 takes five times as long, and quadratic time for some extensions."""

    __slots__ = ("_max_chunk_head_bytes", "left")

    def __init__(self, *, max_chunk_head_bytes: int = MAX_CHUNK_HEAD_BYTES) -> None:
        self._max_chunk_head_bytes = max_chunk_head_bytes
        self.left = 0
        """Remaining bytes of the current chunk, including the CRLF after its data; 0: a chunk's head is next."""

    def read(self, unread: bytes) -> tuple[bytes | None, bytes]:
        """The data of all chunks in `unread` in one piece, and the bytes after it, which are still unread.

        The data are None if more bytes are needed, and `b""` at the end of the body. Data before a malformed chunk are
        returned first. Raises `HTTPProtocolError`, and `HeadTooLargeError` above `max_chunk_head_bytes`.
        """
        if not unread:
            return None, unread
        pieces = []
        at, left = 0, self.left
        while True:
            if left > 2:
                end = at + left - 2
                pieces.append(unread[at:end])
                if end > len(unread):  # the chunk continues in the next read
                    left, at = end - len(unread) + 2, len(unread)
                    break
                at, left = end, 2
            if left:
                if unread[at : at + 2] != b"\r\n":
                    break
                at, left = at + 2, 0
            match = _HEAD.match(unread, at)
            if match is None or not (size := int(match[1], 16)) or match.end() - at > self._max_chunk_head_bytes:
                break
            at, left = match.end(), size + 2
        self.left = left
        data = b"".join(pieces)
        return (data, unread[at:]) if data else self._read_end(unread[at:])

    def _read_end(self, unread: bytes) -> tuple[bytes | None, bytes]:
        """The same if no data follow: the end of the body, an error, or too few bytes."""
        line_end = unread.find(b"\n") + 1
        if not self.left:
            self._check_size(line_end or len(unread))
        match = None if self.left else _HEAD.match(unread)
        if match is None:
            is_cut = b"\r\n".startswith(unread) if self.left else not line_end  # `left`: of the CRLF after the data
            if not is_cut:
                raise HTTPProtocolError(f"not a chunk's head: {quote(unread)}")
            return None, unread
        # Including the line end of the last size, the end of the trailers is always CR LF CR LF.
        trailers = unread[match.end() - 2 :]
        end = trailers.find(b"\r\n\r\n")
        self._check_size(len(trailers) if end < 0 else end)
        if end < 0:
            return None, unread
        if not re.fullmatch(_TRAILERS, trailers[: end + 2]):
            raise HTTPProtocolError("not the trailers of a chunked body")
        return b"", trailers[end + 4 :]

    def _check_size(self, size: int) -> None:
        if size > (limit := self._max_chunk_head_bytes):
            words = f"a chunk's head or trailers are larger than max_chunk_head_bytes ({limit})"
            raise HeadTooLargeError(words, limit=limit)


class SizedReader:
    """Reads one body of `left` bytes, or until the end of the connection if that is None."""

    __slots__ = ("left",)

    def __init__(self, left: int | None) -> None:
        self.left = left

    def read(self, unread: bytes) -> tuple[bytes | None, bytes]:
        """As `ChunkedReader.read`."""
        if self.left is None:
            return unread or None, b""
        data, unread = unread[: self.left], unread[self.left :]
        self.left -= len(data)
        return data or (None if self.left else b""), unread


class ContentDecoder:
    """Decodes `Content-Encoding: gzip` or `deflate`, piece by piece.

    The client asks for `identity`; this is for servers that compress anyway. `identity` and other names for no coding have
    no effect; other encodings raise `HTTPProtocolError`. `max_decoded_bytes` bounds what one piece may expand to.
    """

    def __init__(self, encoding: str, *, max_decoded_bytes: int = MAX_DECODED_BYTES) -> None:
        # Strip parameters and quotes, which the grammar lacks: servers copy `identity;q=1` from the request.
        names = [part.partition(";")[0].strip(" \t\"'") for part in encoding.lower().split(",")]
        self._name = ", ".join(name for name in names if not re.fullmatch(_NO_CODING, name))
        self._max_decoded_bytes = max_decoded_bytes
        self._inflate: zlib._Decompress | None = None  # of the current member; None between two
        self._room = FREE_DECODED_BYTES
        if self._name not in ("", "gzip", "x-gzip", "deflate"):
            raise HTTPProtocolError(f"unsupported Content-Encoding: {quote(encoding)}")

    def decode(self, data: bytes) -> bytes:
        """The decoded bytes that `data` completes.

        Raises `HTTPProtocolError` if `data` are invalid in the encoding, `BodyTooLargeError` above `max_decoded_bytes`.
        """
        if not self._name:
            return data
        decoded = bytearray()
        self._room = min(self._room, FREE_DECODED_BYTES) + MAX_EXPANSION * len(data)
        limit = min(self._room, self._max_decoded_bytes)
        while data:
            if self._inflate is None:
                self._inflate = self._new_inflate(data[0])
            try:
                # One byte more than the remaining limit, because 0 would mean no limit.
                decoded += self._inflate.decompress(data, limit - len(decoded) + 1)
            except zlib.error as exc:
                raise HTTPProtocolError(f"the body is not {self._name} as its content-encoding says: {exc}") from None
            if len(decoded) > limit:
                raise BodyTooLargeError(f"a piece of the body expands to more than {limit} bytes", limit=limit)
            # RFC 1952, 2.2: "A gzip file consists of a series of "members" (compressed data sets)", which "simply appear one
            # after another in the file".
            data = self._inflate.unused_data
            if self._inflate.eof:
                self._inflate = None
        self._room -= len(decoded)
        return bytes(decoded)

    def _new_inflate(self, first: int) -> zlib._Decompress:
        if self._name != "deflate":
            return zlib.decompressobj(zlib.MAX_WBITS | 16)
        # RFC 9110, 8.4.1.2: "deflate" is the zlib format; "some non-conformant implementations send the "deflate"
        # compressed data without the zlib wrapper." The first byte decides: 8 in the low four bits means zlib.
        return zlib.decompressobj(zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS)
