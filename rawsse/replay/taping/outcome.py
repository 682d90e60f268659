"""How a recorded stream ended, for whoever asked: in the words of every stream's ending (`rawsse.messages.Ending`).

This file knows what a recording, and the error that its reader met, say about success. It refuses to know how either came to
be.

    ending_of(recording)                            # "complete", "truncated", "error" …
    ending_of(recording, SilenceTimeoutError(…))    # "timeout": a recording does not tell who lost patience
    settled(recording)                              # a client that left after message_stop has left nothing out

An answer that is whole is `complete` even if the connection broke behind it, and so is one whose `stop_reason` had come: the
same as in the client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from rawsse.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    EndingKind,
    HTTPProtocolError,
    StreamCancelledError,
)
from rawsse.messages import MessageBuilder
from rawsse.replay.matching.reply import is_event_stream
from rawsse.replay.recording import End, Recording
from rawsse.sse import Decoder

FAILED: frozenset[EndingKind] = frozenset({"truncated", "error", "timeout", "limit"})
"""The endings that are failures. Leaving on purpose is none."""

_LAST_BYTES = 300  # message_stop has about 60

# Within an event's data this cannot stand: no line of JSON begins like this.
_STOP = re.compile(rb"(?:^|[\r\n])event: ?message_stop[\r\n]")

_BY_END: Mapping[End, EndingKind] = {"clean": "truncated", "cut": "truncated", "client_closed": "cancelled"}


def end_of(error: APIError | None) -> End:
    """How an exchange ended at which its reader met this error: None if there was none."""
    if error is None:
        return "clean"
    is_lost = isinstance(error, APIConnectionError) and not isinstance(error, APITimeoutError | StreamCancelledError)
    return "cut" if is_lost or isinstance(error, HTTPProtocolError) else "client_closed"


def settled(recording: Recording) -> Recording:
    """The recording; if the client left, and all of the answer had come, the end is a clean one.

    Both official SDKs and ours may leave at message_stop, before the end of the body: there is nothing more to come.
    """
    has_left = recording.end == "client_closed"
    return replace(recording, end="clean") if has_left and _has_stopped(recording) else recording


def ending_of(recording: Recording, error: APIError | None = None) -> EndingKind:
    """How the stream ended. `error` is what its reader met, if that is known."""
    if not 200 <= recording.status < 300:
        return "error"
    is_of_network = error is None or isinstance(error, APIConnectionError)
    if is_of_network and _is_complete(recording):
        return "complete"
    if error is not None:
        return error.ending_kind
    return _failure_in(recording) or _BY_END[recording.end]


def _has_stopped(recording: Recording) -> bool:
    if not is_event_stream(recording):
        return False
    if _says_stop(recording):
        return True
    # The `event:` lines may be missing: gateways leave them out, and our reader goes by the data's type.
    builder, error = _folded(recording)
    return error is None and builder.is_done


def _says_stop(recording: Recording) -> bool:
    return _STOP.search(_last_bytes(recording)) is not None


def _last_bytes(recording: Recording) -> bytes:
    last = b""
    for read in reversed(recording.reads):
        last = read.data + last
        if len(last) >= _LAST_BYTES:
            break
    return last[-_LAST_BYTES:]


def _is_complete(recording: Recording) -> bool:
    if not is_event_stream(recording):
        return recording.end == "clean"
    if _says_stop(recording):  # nearly all, and the others are worth a longer look
        return True
    builder, error = _folded(recording)
    return error is None and builder.error is None and builder.is_complete


def _failure_in(recording: Recording) -> EndingKind | None:
    if not is_event_stream(recording):
        return None
    builder, error = _folded(recording)
    if error is not None:
        return error.ending_kind
    return "error" if builder.error is not None else None


def _folded(recording: Recording) -> tuple[MessageBuilder, APIError | None]:
    """What the events add up to, and what is wrong with them."""
    builder = MessageBuilder(strict=False)
    try:
        for event in Decoder().feed(recording.body):
            builder.feed(event)
    except APIError as exc:
        return builder, exc
    return builder, None
