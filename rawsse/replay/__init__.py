"""Recordings of streams: keeping, cutting, playing and checking them, for tests of anybody's streaming code.

Read in this order:

    recording.py      one exchange, kept so that nothing is lost; the file format
    splits.py         cutting bytes at every place, and finding the cut that breaks a parser
    rewrites.py       the same events in other bytes, as gateways send them, and at other times
    compose.py        answers that were not recorded: a message, written down, becomes a stream
    texts.py          the texts that deltas add up to, and the bytes of their characters
    scrub.py          no secret reaches the disk
    match.py          which recording answers a request
    answers.py        what a Messages API made of recordings answers
    faults.py         what can go wrong with an answer
    wire.py           an answer as bytes, silences and an end, with its faults
    fakes.py          connections without a socket
    player.py         recordings, played over HTTP
    check.py          is a stream correct?
    explain.py        what came when in a recording, as text
    explain_page.py   the same as an HTML page
    recorder.py       recording what a client is answered
    proxy.py          recording for any client that takes a base URL
    fixture.py        the API of one test
    virtual_clock.py  an event loop whose clock jumps
    pytest_plugin.py  fixtures and marks for pytest
    entry.py          where pytest finds that, without loading rawsse
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rawsse.replay.check import Checker, Finding, Place, Severity, check
from rawsse.replay.compose import (
    Break,
    Fragments,
    ToolResults,
    answer,
    citation,
    cut,
    error,
    error_recording,
    mcp_tool_use,
    recording_of,
    redacted_thinking,
    server_tool_result,
    server_tool_use,
    text,
    thinking,
    tool_use,
    turns,
    web_search_result,
)
from rawsse.replay.fakes import FakeNetwork, FakeStream, fake_links, stream_of
from rawsse.replay.faults import Fault
from rawsse.replay.match import Match, Miss
from rawsse.replay.player import MAX_KEPT_REQUESTS, PlayedRequest, Player, ReplayServer
from rawsse.replay.proxy import RecordingProxy
from rawsse.replay.recorder import Recorder
from rawsse.replay.recording import (
    FORMAT_VERSION,
    MAX_FILE_BYTES,
    Read,
    RecordedRequest,
    Recording,
    find_recordings,
    shipped_fixtures,
)
from rawsse.replay.rewrites import REWRITES, Pace, Rewrite, immediate, pace_by, profile, recorded, rewrite_by, slower
from rawsse.replay.scrub import ScrubPolicy, Secret, checked, find_secrets, scrub
from rawsse.replay.splits import (
    AS_UNCUT,
    Chunks,
    FailingCut,
    Split,
    as_recorded,
    assert_every_split,
    by_event,
    byte_by_byte,
    every_pair_split,
    every_split,
    fixed,
    random_chunks,
    random_splits,
    sized,
    smallest_failing_cut,
    split_by,
    whole,
)

if TYPE_CHECKING:
    from rawsse.replay.fixture import Replay
    from rawsse.replay.virtual_clock import VirtualClock

_LATER: Mapping[str, str] = {
    "Replay": "rawsse.replay.fixture",
    "VirtualClock": "rawsse.replay.virtual_clock",
}
"""Names that are loaded when they are first asked for (PEP 562): who plays or checks a recording may be no test."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'rawsse.replay' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


__all__ = [
    "AS_UNCUT",
    "FORMAT_VERSION",
    "MAX_FILE_BYTES",
    "MAX_KEPT_REQUESTS",
    "REWRITES",
    "Break",
    "Checker",
    "Chunks",
    "FailingCut",
    "FakeNetwork",
    "FakeStream",
    "Fault",
    "Finding",
    "Fragments",
    "Match",
    "Miss",
    "Pace",
    "Place",
    "PlayedRequest",
    "Player",
    "Read",
    "RecordedRequest",
    "Recorder",
    "Recording",
    "RecordingProxy",
    "Replay",
    "ReplayServer",
    "Rewrite",
    "ScrubPolicy",
    "Secret",
    "Severity",
    "Split",
    "ToolResults",
    "VirtualClock",
    "answer",
    "as_recorded",
    "assert_every_split",
    "by_event",
    "byte_by_byte",
    "check",
    "checked",
    "citation",
    "cut",
    "error",
    "error_recording",
    "every_pair_split",
    "every_split",
    "fake_links",
    "find_recordings",
    "find_secrets",
    "fixed",
    "immediate",
    "mcp_tool_use",
    "pace_by",
    "profile",
    "random_chunks",
    "random_splits",
    "recorded",
    "recording_of",
    "redacted_thinking",
    "rewrite_by",
    "scrub",
    "server_tool_result",
    "server_tool_use",
    "shipped_fixtures",
    "sized",
    "slower",
    "smallest_failing_cut",
    "split_by",
    "stream_of",
    "text",
    "thinking",
    "tool_use",
    "turns",
    "web_search_result",
    "whole",
]
