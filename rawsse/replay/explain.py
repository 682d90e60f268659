"""The anatomy of a recording as text: reads, lines, events, and the message they add up to, with times.

This file knows how to lay a recording out for a person. It refuses to judge it; see `check.py` for that.

    print(explain(Recording.load("fixtures/plain.sse.jsonl")))
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from rawsse.errors import APIError
from rawsse.messages.events import StreamEvent
from rawsse.messages.message import MessageBuilder
from rawsse.replay.recording import Recording
from rawsse.sse import Decoder, Event

__all__ = ["explain"]

LINE_CHARS = 110
"""How much of a line is shown: what fits beside the margin in a terminal of 128 columns."""

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def explain(recording: Recording) -> str:
    """The recording as text for a terminal: head, then every read with its lines and the events that it completes, then the
    ending and the message. Never raises for what the recording holds: what is wrong with it is shown where it stands.
    """
    return "\n".join(_Explanation(recording).lines()) + "\n"


class _Explanation:
    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._decoder = Decoder()
        self._builder = MessageBuilder(strict=False)
        self._events = 0
        self._offset = 0

    def lines(self) -> Iterator[str]:
        yield from self._head()
        previous = 0.0
        for number, read in enumerate(self._recording.reads, 1):
            yield ""
            waited = read.t - previous
            yield f"read {number}  at {read.t:.3f} s (+{waited:.3f})  {len(read.data)} bytes from byte {self._offset}"
            previous = read.t
            self._offset += len(read.data)
            yield from self._read(read.data)
        yield ""
        yield from self._ending()

    def _head(self) -> Iterator[str]:
        recording = self._recording
        if recording.request is not None:
            yield f"request  {recording.request.method} {recording.request.path}"
            body = recording.request.body
            if isinstance(body, dict):
                for name, value in body.items():
                    yield f"         {name}: {_cut(_json(value))}"
        yield f"answer   HTTP status {recording.status}"
        for name, value in recording.headers.items():
            yield f"         {name}: {_cut(value)}"

    def _read(self, data: bytes) -> Iterator[str]:
        for line in _shown_lines(data):
            yield f"  | {line}"
        try:
            events = self._decoder.feed(data)
        except APIError as exc:
            yield f"  ! {exc}"
            return
        for event in events:
            yield from self._event(event)

    def _event(self, sse: Event) -> Iterator[str]:
        self._events += 1
        deviations = len(self._builder.deviations)
        try:
            event = self._builder.feed(sse)
        except APIError as exc:
            yield f"  ! event {self._events}: {exc}"
            return
        if event is None:
            yield f"  > event {self._events}: the end mark [DONE], which is not the API's"
            return
        yield f"  > event {self._events}: {_summary(event)}"
        for deviation in self._builder.deviations[deviations:]:
            yield f"  ! {deviation.rule}: {deviation.text}"

    def _ending(self) -> Iterator[str]:
        if cut_off := self._decoder.close():
            yield f"cut off  {_cut(repr(cut_off))}"
        yield f"end      {self._recording.end}: {self._verdict()}"
        message = self._builder.message
        if message is None:
            yield "message  none: message_start never came"
            return
        yield f"message  {message.get('id')}, {message.get('model')}, stop reason {message.stop_reason}"
        yield f"         usage: {_json(message.usage.raw)}"
        for index, block in enumerate(message.content):
            shown = {name: value for name, value in block.raw.items() if name != "type"}
            open_mark = "" if block.complete else "  (not complete)"
            yield f"  [{index}] {block.get('type')}{open_mark}: {_cut(_json(shown))}"

    def _verdict(self) -> str:
        builder = self._builder
        if builder.error is not None:
            return f"error event, {builder.error.error.get('type')}: {builder.error.error.get('message')}"
        if builder.is_done:
            return "complete"
        if builder.is_complete:
            return "complete, but message_stop is missing"
        return f"truncated {builder.state.value}"


def _shown_lines(data: bytes) -> Iterator[str]:
    """The bytes line by line, each with its line end made visible; what no line end follows has none."""
    text = data.decode("utf-8", "backslashreplace")
    for line in _LINE.findall(text):
        body = line.rstrip("\r\n")
        yield _cut(body) + line[len(body) :].replace("\r", "␍").replace("\n", "␊")


def _summary(event: StreamEvent) -> str:
    raw = event.raw
    index = f" [{raw['index']}]" if "index" in raw else ""
    match raw:
        case {"type": "content_block_delta", "delta": dict(delta)}:
            value = next((value for name, value in delta.items() if name != "type"), "")
            return f"{event.type}{index} {delta.get('type')} {_cut(_json(value), 70)}"
        case {"type": "content_block_start", "content_block": dict(block)}:
            return f"{event.type}{index} {block.get('type')}"
        case {"type": "message_delta"}:
            return f"{event.type} {_cut(_json({k: v for k, v in raw.items() if k != 'type'}), 90)}"
        case {"type": "error", "error": dict(error)}:
            return f"{event.type} {error.get('type')}: {error.get('message')}"
    return f"{event.type}{index}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _cut(text: str, limit: int = LINE_CHARS) -> str:
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
