"""Bytes <-> server-sent events, after section 9.2 of the WHATWG HTML standard.

This file knows the event stream format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
It refuses to know where bytes come from, what the data mean, and when to reconnect. With `errors.py` beside it, it can be
copied into any project.

    decoder = Decoder()
    for chunk in chunks:                    # cut anywhere: inside a line, a character, between CR and LF
        for event in decoder.feed(chunk):
            print(event.event, event.data, event.id)
    unfinished = decoder.close()            # bytes of an event that the stream's end cut off

How it works. Text is never decoded before its line is whole, since the bytes of CR, LF and colon are never part of a longer
UTF-8 sequence. So the decoder splits bytes into lines, and each line, decoded, moves at most one of these buffers:
the data lines, the event type, the id. A blank line turns the buffers into one `Event`. An event comes out of `feed` at
the very byte at which the standard allows it: a CR ends its line at once, and an LF that follows it is skipped when it comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from rawsse.errors import EventTooLargeError, InvalidFieldError, quote

__all__ = ["MAX_EVENT_BYTES", "MAX_RETRY_DIGITS", "Decoder", "Event", "encode", "encode_comment"]

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""The largest event that a `Decoder` gathers by default. Readers with caps of 64 KiB to 512 KiB a line are known to break
on tool results (the longest line seen in a real stream has 181 kB); without any cap a peer could fill the memory."""

MAX_RETRY_DIGITS = 19
"""A longer `retry` is ignored: 2**63 ms is more than any clock can wait for, and `int` refuses thousands of digits."""

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One server-sent event. A named tuple: immutable, comparable, and the cheapest object to make once per token.

    `event` is the event type, `data` the data, and `id` the last event ID at the moment when the event fired: what a
    browser would send back as `Last-Event-ID`.
    """

    event: str = "message"
    data: str = ""
    id: str = ""


class Decoder:
    """Turns the bytes of an event stream into events.

    `last_event_id` (str) and `retry` (milliseconds, or None if the stream never set it) are the stream's state beside the
    events; both also move without an event. One decoder reads one stream.
    """

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        if max_event_bytes < 1:
            raise ValueError(f"max_event_bytes must be at least 1, not {max_event_bytes}")
        self.last_event_id = ""
        self.retry: int | None = None
        self._max_event_bytes = max_event_bytes
        # The line whose end has not come, in pieces: joined once, so that a line fed byte by byte costs linear time.
        self._line: list[bytes] = []
        self._line_bytes = 0
        self._data_bytes = 0
        self._head: bytes | None = b""  # the first bytes, until they are known to be a BOM or not; then None
        self._after_cr = False
        self._data: list[str] = []
        self._event = ""
        self._id = ""

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes of the stream, cut anywhere; return the events that they complete, in order.

        Raises `EventTooLargeError` when an event outgrows `max_event_bytes`; the events completed before it in this chunk
        are in the error's `events`. The decoder is of no use afterwards.
        """
        if self._head is not None:
            chunk = self._skip_bom(chunk)
        # "a U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF) character pair" is one line end, also over two chunks.
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 0x0A:
                chunk = chunk[1:]
        if not chunk:
            return []
        if b"\r" in chunk:
            self._after_cr = chunk[-1] == 0x0D
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = chunk.split(b"\n")
        events: list[Event] = []
        if lines and self._line:
            self._line.append(lines[0])
            lines[0] = b"".join(self._line)
            self._line.clear()
            self._line_bytes = 0
        for line in lines:
            if not line:
                self._dispatch(events)
                continue
            if self._data_bytes + len(line) > self._max_event_bytes:
                raise self._too_large(events)
            self._process_line(line)
        if rest:
            self._line.append(rest)
            self._line_bytes += len(rest)
            if self._data_bytes + self._line_bytes > self._max_event_bytes:
                raise self._too_large(events)
        return events

    def close(self) -> bytes:
        """Tell the end of the stream; return the bytes that it cut off: `b""` if it ended between events.

        "Once the end of the file is reached, any pending data must be discarded. (If the file ends in the middle of an
        event, before the final empty line, the incomplete event is not dispatched.)" The bytes are given back so that a
        caller can tell a cut stream from a whole one. Whole lines come back as the event type and data that they gave.
        """
        pending = self._head or b"".join(self._line)
        fields: list[tuple[str, str]] = [("event", self._event)] if self._event else []
        fields += [("data", line) for line in self._data]
        lines = "".join(f"{name}: {value}\n" for name, value in fields).encode()
        self._data, self._event, self._line, self._head = [], "", [], None
        self._line_bytes = self._data_bytes = 0
        self._id = self.last_event_id
        return lines + pending

    def _skip_bom(self, chunk: bytes) -> bytes:
        """ "One leading U+FEFF BYTE ORDER MARK character must be ignored if any are present." It may come in pieces."""
        head = (self._head or b"") + chunk
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head[len(_BOM) :] if head.startswith(_BOM) else head

    def _process_line(self, line: bytes) -> None:
        # "Collect the characters on the line before the first U+003A COLON character (:), and let field be that string.
        # Collect the characters on the line after the first U+003A COLON character (:), and let value be that string.
        # If value starts with a U+0020 SPACE character, remove it from value."
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        # "Field names must be compared literally, with no case folding performed." A comment has the empty name.
        if name == b"data":
            self._data.append(value.decode("utf-8", "replace"))
            self._data_bytes += len(value) + 1
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            # "If the field value does not contain U+0000 NULL, then set the last event ID buffer to the field value."
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value.lstrip(b"0")) <= MAX_RETRY_DIGITS:
            # "If the field value consists of only ASCII digits": bytes.isdigit is true for just those.
            self.retry = int(value)

    def _dispatch(self, events: list[Event]) -> None:
        # "Set the last event ID string of the event source to the value of the last event ID buffer." Also without data.
        self.last_event_id = self._id
        # "If the data buffer is an empty string, set the data buffer and the event type buffer to the empty string and
        # return." One empty data line makes the buffer a single LF, so that it is not empty: `self._data` has an item.
        if self._data:
            data = self._data[0] if len(self._data) == 1 else "\n".join(self._data)
            events.append(Event(self._event or "message", data, self._id))
            self._data = []
            self._data_bytes = 0
        self._event = ""

    def _too_large(self, events: list[Event]) -> EventTooLargeError:
        return EventTooLargeError(
            f"a server-sent event is larger than max_event_bytes ({self._max_event_bytes})",
            limit=self._max_event_bytes,
            events=events,
        )


def encode(
    data: str | None = None, *, event: str | None = None, id: str | None = None, retry: int | None = None
) -> bytes:
    """One event as bytes, ready to send: the fields given, in the order event, id, retry, data, and a blank line.

    `data` is split on every line end (CR LF, CR, LF). For every e that a `Decoder` gave and that is not refused here,
    `Decoder().feed(encode(e.data, event=e.event, id=e.id)) == [e]`.

    Raises `InvalidFieldError` where the bytes could not come out as they went in: a CR, LF or NUL in a single-line field
    would let whoever chose the value write fields, or whole events, of his own; a lone surrogate is no text.
    """
    lines: list[str] = []
    if event is not None:
        lines.append(f"event: {_single_line('event', event)}")
    if id is not None:
        lines.append(f"id: {_single_line('id', id)}")
    if retry is not None:
        if isinstance(retry, bool) or not isinstance(retry, int) or retry < 0:
            raise InvalidFieldError(f"retry must be a count of milliseconds, not {retry!r}")
        lines.append(f"retry: {retry}")
    if data is not None:
        lines.extend(f"data: {line}" for line in _split_lines(data))
    return _to_bytes("data", "\n".join(lines) + "\n\n")


def encode_comment(text: str = "") -> bytes:
    """A comment as bytes: it keeps a connection alive and no reader sees it. Raises `InvalidFieldError` as `encode`."""
    return _to_bytes("comment", "".join(f": {line}\n" for line in _split_lines(text)) + "\n")


def _split_lines(text: str) -> Iterable[str]:
    # Not str.splitlines: it also splits on VT, FF, FS, GS, RS, NEL, U+2028 and U+2029, which are content here.
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.split("\n")


def _single_line(name: str, value: str) -> str:
    for character in "\r\n\0":
        if character in value:
            raise InvalidFieldError(f"{name} may not contain {character!r}: {quote(value)}")
    return value


def _to_bytes(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidFieldError(f"{name} holds a lone surrogate at {exc.start}: {quote(text)}") from None
