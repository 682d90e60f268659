"""Server-sent events: from bytes to events and back, as in section 9.2 of the WHATWG HTML standard.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream

    decoder = Decoder()
    for chunk in chunks:                    # split anywhere: inside a line, a character, between CR and LF
        for event in decoder.feed(chunk):
            print(event.event, event.data, event.id)
    unfinished = decoder.close()            # the bytes of an event that the stream did not finish

With an HTTP library, the loops are written already (`iter_events` is the same without async):

    async for event in aiter_events(response.aiter_bytes()):             # httpx
    async for event in aiter_events(response.content.iter_any()):        # aiohttp

This file and `errors.py` can be copied into any project.

How it works. The decoder splits the bytes into lines and decodes the text of a line once the line is complete: the bytes
of CR, LF and colon never occur inside a longer UTF-8 sequence. Each line changes at most one of these buffers: the data
lines, the event type, the id. A blank line turns the buffers into one `Event`. `feed` returns an event at the first byte
at which the standard allows it: a CR ends its line immediately, and an LF after it is skipped when it arrives.

`Decoder._read` reads the lines and defines the format. Most of a stream that repeats one event type, with one data line
per event, is read without it, about twice as fast; see `Decoder._read_frames`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from typing import NamedTuple

from rawsse.errors import EventTooLargeError, InvalidFieldError, quote

__all__ = ["MAX_EVENT_BYTES", "MAX_RETRY_DIGITS", "Decoder", "Event"]
__all__ += ["aiter_events", "encode", "encode_comment", "iter_events"]

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""The largest event that a `Decoder` accepts by default, in bytes. Other readers have limits of 64 KiB to 512 KiB per line
and fail on tool results: the longest line seen in a real stream has 181 kB. Without a limit a peer could fill the memory."""

MAX_RETRY_DIGITS = 19
"""A `retry` with more digits is ignored: a clock cannot wait for 2**63 ms, and `int` rejects thousands of digits. Leading
zeros do not count."""

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One server-sent event. A named tuple: immutable, comparable, and the cheapest object to create once per token.

    `event` is the event type, `data` the data, and `id` the last event ID when the event was dispatched: the value that
    a browser would send as `Last-Event-ID`.
    """

    event: str = "message"
    data: str = ""
    id: str = ""


# `Event(...)` calls a constructor written in Python; creating the tuple directly takes 80 ns instead of 130.
_new_tuple = tuple.__new__


class Decoder:
    """Turns the bytes of an event stream into events.

    `last_event_id` (str) and `retry` (int, milliseconds; None until the stream sets it) are the state of the stream. Both
    can change without an event. `is_between_events`: the last chunk ended with an event, and nothing is pending. One decoder
    reads one stream.

    Raises `ValueError` if `max_event_bytes` is less than 1.
    """

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        if max_event_bytes < 1:
            raise ValueError(f"max_event_bytes must be at least 1, not {max_event_bytes}")
        self.last_event_id = ""
        self.retry: int | None = None
        self.is_between_events = False
        self._max_event_bytes = max_event_bytes
        self._room = max_event_bytes  # what is left of the limit after the data so far
        self._skippable = _BOM  # dropped if it is next: the BOM, or the LF of a CRLF; see `_skip`
        self._head = b""  # the first bytes of `_skippable`, kept until the next byte decides
        self._line = bytearray()  # the unfinished line; extended in place, so that many small chunks take linear time
        self._data: list[str] = []
        self._event = ""
        self._id = ""
        self._known_line: bytes | None = None  # an `event` line already read, and its type; see `_read`
        self._known_event = ""
        self._frame_start = b""  # the known line and `data: `; see `_read_frames`

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes of the stream, split anywhere; return the events that they complete, in order.

        Raises `EventTooLargeError` when an event exceeds `max_event_bytes`; its `events` are those that this chunk
        completed before. The decoder cannot be used after that.
        """
        start = self._frame_start
        if not start or 0x0D in chunk or len(chunk) > self._max_event_bytes:
            return self._feed(chunk)
        if self.is_between_events and chunk.startswith(start) and chunk.endswith(b"\n\n"):
            data = chunk[len(start) : -2]
            if 0x0A not in data:
                return [_new_tuple(Event, (self._known_event or "message", data.decode("utf-8", "replace"), self._id))]
        # In a smaller chunk the search for frames costs more than it saves.
        return self._read_frames(chunk) if len(chunk) > 16 * len(start) else self._feed(chunk)

    def _feed(self, chunk: bytes) -> list[Event]:
        """`feed`, the plain way."""
        if self._skippable:
            chunk = self._skip(chunk)
        if 0x0D in chunk:
            self._skippable = b"\n" if chunk[-1] == 0x0D else b""
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        is_near_limit = len(self._line) + len(chunk) > self._room
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._line:
            lines[0] = b"".join((self._line, lines[0]))
            self._line.clear()
        if rest:
            self._line += rest
        events = self._read_near_limit(lines) if is_near_limit else self._read(lines)
        is_pending = self._skippable or self._line or self._data or self._event or self._id != self.last_event_id
        self.is_between_events = not is_pending
        return events

    def close(self) -> bytes:
        """End the stream; return the bytes of the unfinished event, or `b""` if the stream ended between events.

        "Once the end of the file is reached, any pending data must be discarded. (If the file ends in the middle of an
        event, before the final empty line, the incomplete event is not dispatched.)" The bytes are returned so that the
        caller can distinguish a truncated stream from a complete one. Complete lines are returned in a normalized form:
        the event type, the id and the data that they set.
        """
        fields = [("event", self._event)] if self._event else []
        fields += [("id", self._id)] if self._id != self.last_event_id else []
        fields += [("data", line) for line in self._data]
        pending = "".join(f"{name}: {value}\n" for name, value in fields).encode() + self._head + self._line
        self._data, self._event, self._id, self._head = [], "", self.last_event_id, b""
        self._line.clear()
        return pending

    def _skip(self, chunk: bytes) -> bytes:
        """Remove a leading BOM, or the LF of a CRLF, from the chunk. They may be split over several chunks.

        "One leading U+FEFF BYTE ORDER MARK character must be ignored if any are present." And "a U+000D CARRIAGE RETURN
        U+000A LINE FEED (CRLF) character pair" is one line end: its CR has already ended the line.
        """
        head = self._head + chunk
        if len(head) < len(self._skippable) and self._skippable.startswith(head):
            self._head = head
            return b""
        chunk = head.removeprefix(self._skippable)
        self._head = self._skippable = b""
        return chunk

    def _read(self, lines: list[bytes]) -> list[Event]:
        """Return the events that these complete lines make. For speed, common fields are read without a call.

        An `event` line equal to the known one is not parsed again, since streams have few event types.
        """
        events: list[Event] = []
        for line in lines:
            if not line:
                # "Set the last event ID string of the event source to the value of the last event ID buffer." This comes
                # first: it happens without data, too. "If the data buffer is an empty string, set the data buffer and the
                # event type buffer to the empty string and return." An empty data line puts an LF into the data buffer,
                # so the buffer is not empty then.
                self.last_event_id = self._id
                if self._data:
                    data = self._data[0] if len(self._data) == 1 else "\n".join(self._data)
                    events.append(_new_tuple(Event, (self._event or "message", data, self._id)))
                    self._data.clear()
                    self._room = self._max_event_bytes
                self._event = ""
            elif line == self._known_line:
                self._event = self._known_event
            else:
                # "Collect the characters on the line before the first U+003A COLON character (:), and let field be that
                # string. Collect the characters on the line after the first U+003A COLON character (:), and let value be
                # that string. If value starts with a U+0020 SPACE character, remove it from value."
                field, _, value = line.partition(b":")
                if value and value[0] == 0x20:
                    value = value[1:]
                if field == b"data":
                    self._data.append(value.decode("utf-8", "replace"))
                    self._room -= len(value) + 1
                else:
                    self._process_rare(field, value, line)
        return events

    def _read_frames(self, chunk: bytes) -> list[Event]:
        """Return the events of a chunk that may have many frames. The fast path.

        A frame is the known `event` line, one `data` line and a blank line; the Messages API sends little else. When
        nothing is pending, a frame makes one event and does not change the state, so its lines need not be read one by
        one: splitting the text between the start of the second frame and the end of the last one leaves the data. A piece
        that contains a line feed is not a single frame: its lines are read.
        """
        known = self._known_line, self._known_event, self._frame_start
        start, event = self._frame_start, self._known_event or "message"
        first, _, others = chunk.partition(b"\n\n" + start)
        frames, _, last = others.rpartition(b"\n\n")
        if not frames:
            return self._feed(chunk)
        events = self._feed(first + b"\n\n")
        for data in frames.split(b"\n\n" + start):
            if 0x0A in data:
                events += self._read((start + data + b"\n").split(b"\n"))
            else:
                events.append(_new_tuple(Event, (event, data.decode("utf-8", "replace"), self._id)))
        # Lines between the frames may have set another type. The next chunk is more likely to continue with this one.
        self._known_line, self._known_event, self._frame_start = known
        return events + self._feed(last)

    def _process_rare(self, field: bytes, value: bytes, line: bytes) -> None:
        # "Field names must be compared literally, with no case folding performed." The name of a comment is empty.
        if field == b"event":
            self._event = self._known_event = value.decode("utf-8", "replace")
            self._known_line = line
            self._frame_start = line + b"\ndata: "
        elif field == b"id":
            # "If the field value does not contain U+0000 NULL, then set the last event ID buffer to the field value."
            if 0x00 not in value:
                self._id = value.decode("utf-8", "replace")
        elif field == b"retry" and value.isdigit():
            # "If the field value consists of only ASCII digits": bytes.isdigit accepts no others.
            digits = value.lstrip(b"0") or b"0"
            if len(digits) <= MAX_RETRY_DIGITS:
                self.retry = int(digits)

    def _read_near_limit(self, lines: list[bytes]) -> list[Event]:
        """Like `_read`, but check before each line, the unfinished one too, that it fits into what is left of the limit."""
        events: list[Event] = []
        for line in [*lines, self._line]:
            if len(line) > self._room:
                limit = self._max_event_bytes
                message = f"a server-sent event is larger than max_event_bytes ({limit})"
                raise EventTooLargeError(message, limit=limit, events=events)
            if isinstance(line, bytes):  # a finished one
                events += self._read([line])
        return events


async def aiter_events(chunks: AsyncIterable[bytes], decoder: Decoder | None = None) -> AsyncGenerator[Event, None]:
    """The events of a stream whose bytes an async iterator yields, split anywhere.

    As the standard says, an event without its blank line at the end of the stream is discarded. Give a new `decoder` to know of
    it, to set the limit, or to reconnect:

        decoder = Decoder(max_event_bytes=65_536)
        async for event in aiter_events(response.aiter_bytes(), decoder): ...
        unfinished = decoder.close()            # not empty: the stream ended within an event
        decoder.last_event_id, decoder.retry    # for the next request

    Raises what `chunks` raises, `TypeError` for a chunk that is not bytes, and `EventTooLargeError`, after the events before
    it. However it ends, it closes `chunks` if that has an `aclose`. The caller closes the response; to leave the loop early,
    use `contextlib.aclosing`, as for every async generator.
    """
    decoder = Decoder() if decoder is None else decoder
    try:
        async for chunk in chunks:
            for event in _events_of(chunk, decoder):
                yield event
    finally:
        if (aclose := getattr(chunks, "aclose", None)) is not None:
            await aclose()


def iter_events(chunks: Iterable[bytes], decoder: Decoder | None = None) -> Generator[Event, None, None]:
    """`aiter_events` without async: for `response.iter_bytes()` of httpx, `response.iter_content(None)` of requests, a list."""
    decoder = Decoder() if decoder is None else decoder
    for chunk in chunks:
        yield from _events_of(chunk, decoder)


def _events_of(chunk: bytes, decoder: Decoder) -> Iterable[Event]:
    if not isinstance(chunk, bytes | bytearray | memoryview):
        # The text of a body has lost what the standard needs: libraries split lines where it does not, or guess the charset.
        raise TypeError(f"the chunks of an event stream must be bytes, not {type(chunk).__name__}")
    try:
        yield from decoder.feed(bytes(chunk))
    except EventTooLargeError as exc:
        yield from exc.events
        raise


def encode(
    data: str | None = None, *, event: str | None = None, id: str | None = None, retry: int | None = None
) -> bytes:
    """Return one event as bytes, ready to send: the given fields, in the order event, id, retry, data, and a blank line.

    `data` is split on every line end (CR LF, CR, LF). For every event e from a `Decoder`, unless an error is raised here,
    `Decoder().feed(encode(e.data, event=e.event, id=e.id)) == [e]`.

    Raises `InvalidFieldError` if a value cannot be sent unchanged: a CR, LF or NUL in a single-line field would allow an
    attacker who controls the value to inject fields or whole events, and a lone surrogate cannot be encoded.
    """
    lines: list[str] = []
    if event is not None:
        lines.append(f"event: {_single_line('event', event)}\n")
    if id is not None:
        lines.append(f"id: {_single_line('id', id)}\n")
    if retry is not None:
        lines.append(f"retry: {_milliseconds(retry)}\n")
    if data is not None:
        lines.extend(f"data: {line}\n" for line in _split_lines(data))
    return _to_bytes("".join(lines) + "\n")


def encode_comment(text: str = "") -> bytes:
    """Return a comment as bytes. It keeps a connection alive, and readers ignore it.

    Raises `InvalidFieldError` if the text contains a lone surrogate.
    """
    return _to_bytes("".join(f": {line}\n" for line in _split_lines(text)) + "\n")


def _split_lines(text: str) -> list[str]:
    # Not str.splitlines, which also splits on VT, FF, FS, GS, RS, NEL, U+2028 and U+2029: they are content here.
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.split("\n")


def _single_line(name: str, value: str) -> str:
    for character in "\r\n\0":
        if character in value:
            raise InvalidFieldError(f"{name} may not contain {character!r}: {quote(value)}")
    return value


def _milliseconds(retry: int) -> int:
    if isinstance(retry, bool) or not isinstance(retry, int):
        raise InvalidFieldError(f"retry must be a whole number of milliseconds, not {quote(repr(retry))}")
    if not 0 <= retry < 10**MAX_RETRY_DIGITS:
        raise InvalidFieldError(f"retry must not be negative, nor have more than {MAX_RETRY_DIGITS} digits")
    return retry


def _to_bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        # Only the part around the surrogate is quoted, since the text is the whole event.
        found = quote(text[max(exc.start - 20, 0) : exc.end])
        raise InvalidFieldError(f"cannot encode a lone surrogate: {found}") from None
