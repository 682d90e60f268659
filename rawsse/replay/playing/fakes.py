"""Recordings and their faults without a socket, for `AsyncClient(connect=…)` and `Client(connect=…)`.

Pauses take no time on a virtual clock; in a blocking client they take the time they say.

    stream = stream_of(recording, faults=[Fault.stall(at_event=2)], split="event")

    network = FakeNetwork(recording, faults=[Fault.status(529).times(2)])       # faults are counted in connections
    client = AsyncClient(api_key="any", connect=network)                                # or Client
    network.streams[0].written                                                  # what the client asked

A stream answers one request, after which the server closes it, as the answer's head says. A reset is a `ConnectionResetError`
that the read raises, a half-close is the end of what is read, and a stall without an end waits until the client gives up.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rawsse.client.network.certificates import TLSContext
from rawsse.client.network.link import Network
from rawsse.client.network.route import Route
from rawsse.errors import ConfigurationError
from rawsse.replay.breaking.edits import edited, replacement
from rawsse.replay.breaking.faults import Fault
from rawsse.replay.breaking.schedule import Faults, Schedule
from rawsse.replay.breaking.script import Act, Script, is_cutting, recut, script
from rawsse.replay.matching.answers import Repertoire
from rawsse.replay.playing.fake_links import FakeLink, FakeStream
from rawsse.replay.recording import RecordedRequest, Recording
from rawsse.replay.shaping.splits import Split, split_by

_QUESTION: Mapping[str, object] = {"model": "any", "max_tokens": 1, "messages": [], "stream": True}


def stream_of(
    recording: Recording,
    *,
    faults: Faults = (),
    split: Split | None = None,
    segments: Split | None = None,
    speed: float = 0.0,
) -> FakeStream:
    """A stream that says what a `ReplayServer` would say to the first request. The arguments are those of `Player`.

    Raises `ConfigurationError` if a fault has no place in the recording.
    """
    return _stream(recording, Schedule(faults).next(), split, segments, speed)


def _stream(
    recording: Recording, due: Sequence[Fault], split: Split | None, segments: Split | None, speed: float
) -> FakeStream:
    answer = replacement(due) or Repertoire([recording]).answer(RecordedRequest("POST", "/v1/messages", {}, _QUESTION))
    answer = edited(answer, due)
    if split is not None:
        answer = replace(answer, reads=recut(answer.reads, split_by(split)))
    cut = None if segments is None else split_by(segments)
    return _performed(script(answer, due, segments=cut, speed=speed))


def _performed(steps: Script) -> FakeStream:
    # None: a server says nothing before it was asked.
    chunks: list[bytes | float | None] = [None]
    end: bytes | BaseException | None = b""
    for step in steps:
        if not isinstance(step, Act):
            chunks.append(step)
        elif step is Act.RESET:
            end = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        elif step is Act.HOLD:
            end = None
    return FakeStream(chunks, end=end)


class FakeNetwork:
    """What a client's `connect` may be: each connection answers one request with a recording and the faults that are due.

    Recordings take turns; one that a fault cut comes again on the next connection. `streams` are the connections. Routes and
    certificates are not looked at. Raises `ConfigurationError`.
    """

    def __init__(
        self,
        *recordings: Recording,
        faults: Faults = (),
        split: Split | None = None,
        segments: Split | None = None,
        speed: float = 0.0,
    ) -> None:
        if not recordings:
            raise ConfigurationError("there is no recording to play")
        self.streams: list[FakeStream] = []
        self._recordings = recordings
        self._schedule = Schedule(faults, recordings)
        self._split, self._segments, self._speed = split, segments, speed
        self._turn = 0

    @property
    def unused_faults(self) -> list[Fault]:
        """The faults that no connection has had so far."""
        return self._schedule.unused

    @property
    def misplaced(self) -> list[str]:
        """What the last connections failed with, since a fault had no place in their answer."""
        return self._schedule.misplaced

    def __call__(self, network: Network) -> FakeLink:
        """A link, not connected yet."""
        return FakeLink(network, self.connect)

    async def connect(self, route: Route, tls: TLSContext) -> FakeStream:
        """The next connection.

        Raises `ConfigurationError` if a fault has no place in the recording.
        """
        del route, tls
        due = self._schedule.next()
        recording = self._recordings[self._turn % len(self._recordings)]
        try:
            self.streams.append(_stream(recording, due, self._split, self._segments, self._speed))
        except ConfigurationError as exc:
            self._schedule.misplace(str(exc))
            raise
        self._schedule.applied(due)
        if replacement(due) is None and not any(is_cutting(fault) for fault in due):
            self._turn += 1
        return self.streams[-1]
