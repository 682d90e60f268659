"""The wrappings of an HTTP body: the chunked transfer coding, and content codings.

This file knows RFC 9112, section 7.1 (chunked) and RFC 9110, section 8.4 (gzip, deflate). It refuses to know heads,
connections, and which message a body belongs to.

    chunks = ChunkedReader()
    unread += bytes_from_the_peer                  # a bytearray, of which the reader takes what it can use
    while data := chunks.read(unread):             # b"" is the end of the body, None: more bytes are needed
        ...

    decoder = ContentDecoder("gzip")
    text += decoder.decode(data)                   # cut anywhere
"""

from __future__ import annotations

import re
import zlib

from rawsse.errors import BodyTooLargeError, HeadTooLargeError, HTTPProtocolError, quote

__all__ = ["MAX_CHUNK_HEAD_BYTES", "MAX_DECODED_BYTES", "ChunkedReader", "ContentDecoder"]

MAX_CHUNK_HEAD_BYTES = 4 * 1024
"""One chunk's size with its extensions, or all trailers: a few dozen bytes, as far as anybody is known to send them."""

MAX_DECODED_BYTES = 32 * 1024 * 1024
"""What a compressed piece of a body may expand to. Deflate makes a thousand bytes of one at most, so that a read of 64 KiB
can hold 64 MiB: half of that is no text any more, but a bomb."""

# chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF. Blanks after the size are forgiven, as some servers pad it. The CRLF
# after the data is read with the size that follows it. Neither may be a bare LF or CR: two readers could differ on that.
_FIRST_HEAD = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")
_NEXT_HEAD = re.compile(rb"\r\n" + _FIRST_HEAD.pattern)
_TRAILERS = re.compile(rb"\r\n(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[^\0\r\n]*\r\n)*")


class ChunkedReader:
    """Reads one chunked body. h11 could, but takes five times as long, and quadratic time over some extensions."""

    def __init__(self, *, max_chunk_head_bytes: int = MAX_CHUNK_HEAD_BYTES) -> None:
        self._max_chunk_head_bytes = max_chunk_head_bytes
        self._head = _FIRST_HEAD
        self._left = 0  # of the data of the chunk at hand
        self._is_last = False

    def read(self, unread: bytearray) -> bytes | None:
        """Take the next piece of data out of `unread`, never of two chunks; `b""` at the end, None if bytes are missing.

        Raises `HTTPProtocolError`, and `HeadTooLargeError` above `max_chunk_head_bytes`.
        """
        if not self._left and not self._is_last and not self._read_head(unread):
            return None
        if self._is_last:
            return self._read_trailers(unread)
        data = bytes(unread[: self._left])
        del unread[: self._left]
        self._left -= len(data)
        return data or None

    def _read_head(self, unread: bytearray) -> bool:
        match = self._head.match(unread)
        if match is None:
            self._check_unfinished(unread)
            return False
        self._check_size(match.end())
        self._head = _NEXT_HEAD
        self._left = int(match[1], 16)
        self._is_last = self._left == 0
        # The line end after the last size stays: with it, the empty line after the trailers is always CR LF CR LF.
        del unread[: match.end() - 2 * self._is_last]
        return True

    def _read_trailers(self, unread: bytearray) -> bytes | None:
        end = unread.find(b"\r\n\r\n")
        self._check_size(len(unread) if end < 0 else end)
        if end < 0:
            return None
        if not _TRAILERS.fullmatch(unread, 0, end + 2):
            raise HTTPProtocolError("not the trailers of a chunked body")
        del unread[: end + 4]
        return b""

    def _check_unfinished(self, unread: bytearray) -> None:
        self._check_size(len(unread))
        line_end = b"" if self._head is _FIRST_HEAD else b"\r\n"
        _, end, _ = unread[len(line_end) :].partition(b"\n")
        if end or not (unread.startswith(line_end) or line_end.startswith(unread)):
            raise HTTPProtocolError(f"not a chunk's head: {quote(bytes(unread))}")

    def _check_size(self, size: int) -> None:
        if size > self._max_chunk_head_bytes:
            limit = self._max_chunk_head_bytes
            message = f"a chunk's head, or the trailers, are larger than max_chunk_head_bytes ({limit})"
            raise HeadTooLargeError(message, limit=limit)


class ContentDecoder:
    """Undoes `Content-Encoding: gzip` or `deflate`, piece by piece.

    We ask for `identity`; this is for servers that compress all the same. Other encodings raise `HTTPProtocolError`.
    `max_decoded_bytes` bounds what one piece may expand to.
    """

    def __init__(self, encoding: str, *, max_decoded_bytes: int = MAX_DECODED_BYTES) -> None:
        self._name = encoding.strip().lower()
        self._max_decoded_bytes = max_decoded_bytes
        self._inflate: zlib._Decompress | None = None  # of the member at hand, if one was begun
        if self._name not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise HTTPProtocolError(f"the body has a content-encoding that was not asked for: {quote(encoding)}")

    def decode(self, data: bytes) -> bytes:
        """The decoded bytes that `data` completes.

        Raises `HTTPProtocolError` if `data` are not in the encoding, `BodyTooLargeError` if they expand too far.
        """
        if self._name in ("", "identity"):
            return data
        decoded = bytearray()
        while data:
            if self._inflate is None:
                self._inflate = self._new_inflate(data[0])
            # One more than there is room for: 0 would mean that there is no limit.
            decoded += self._decompress(self._inflate, data, self._max_decoded_bytes - len(decoded) + 1)
            if len(decoded) > self._max_decoded_bytes:
                limit = self._max_decoded_bytes
                raise BodyTooLargeError(f"a piece of the body expands to more than {limit} bytes", limit=limit)
            data = b""
            if self._inflate.eof:
                # RFC 1952, 2.2: "A gzip file consists of a series of "members" (compressed data sets)", which "simply
                # appear one after another in the file".
                data = self._inflate.unused_data
                self._inflate = None
        return bytes(decoded)

    def _new_inflate(self, first: int) -> zlib._Decompress:
        if self._name != "deflate":
            return zlib.decompressobj(zlib.MAX_WBITS | 16)
        # RFC 9110, 8.4.1.2: "deflate" is the zlib format; "some non-conformant implementations send the "deflate"
        # compressed data without the zlib wrapper." The first byte tells: 8 in the low four bits is zlib's.
        return zlib.decompressobj(zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS)

    def _decompress(self, inflate: zlib._Decompress, data: bytes, max_length: int) -> bytes:
        try:
            return inflate.decompress(data, max_length)
        except zlib.error as exc:
            raise HTTPProtocolError(f"the body is not {self._name} as its content-encoding says: {exc}") from None
