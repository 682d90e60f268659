"""Recordings of streams: keeping, cutting, playing and checking them, for tests of anybody's streaming code.

Read in this order:

    recording.py  one exchange, kept so that nothing is lost; the file format
    scrubbing/    no secret reaches the disk
    shaping/      streams in any shape: cut anywhere, at any pace, made up, or as gateways send them
    matching/     which recording answers a request, and what a Messages API made of recordings answers
    breaking/     what may go wrong with an answer, done to it
    playing/      recordings, played to a client: over HTTP, or without a socket
    looking/      is a recording correct, and what is in it?
    taping/       recording what others say
    testing/      for tests: an API in one hand, all cuts, a clock that jumps; the pytest plugin
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rawsse.replay.breaking.faults import Fault
from rawsse.replay.looking.check import Checker, Finding, Place, Severity, check
from rawsse.replay.matching.match import Match, Miss
from rawsse.replay.matching.turns import ToolResults, turns
from rawsse.replay.playing.fake_links import FakeStream, fake_links
from rawsse.replay.playing.fakes import FakeNetwork, stream_of
from rawsse.replay.playing.player import MAX_KEPT_REQUESTS, PlayedRequest, Player, ReplayServer
from rawsse.replay.recording import (
    FORMAT_VERSION,
    MAX_FILE_BYTES,
    Read,
    RecordedRequest,
    Recording,
    find_recordings,
    shipped_fixtures,
)
from rawsse.replay.scrubbing.scrub import ScrubPolicy, Secret, checked, find_secrets, scrub
from rawsse.replay.shaping.builder import Break, Fragments, cut, error, error_recording, recording_of
from rawsse.replay.shaping.pace import Pace, immediate, pace_by, profile, recorded, slower
from rawsse.replay.shaping.parts import (
    answer,
    citation,
    mcp_tool_use,
    redacted_thinking,
    server_tool_result,
    server_tool_use,
    text,
    thinking,
    tool_use,
    web_search_result,
)
from rawsse.replay.shaping.rewrites import REWRITES, Rewrite, rewrite_by
from rawsse.replay.shaping.splits import (
    AS_UNCUT,
    Chunks,
    FailingCut,
    Split,
    as_recorded,
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
from rawsse.replay.taping.proxy import RecordingProxy
from rawsse.replay.taping.recorder import Recorder

if TYPE_CHECKING:
    from rawsse.replay.testing.cases import assert_every_split
    from rawsse.replay.testing.hand import Replay
    from rawsse.replay.testing.virtual_clock import VirtualClock

_LATER: Mapping[str, str] = {
    "Replay": "rawsse.replay.testing.hand",
    "VirtualClock": "rawsse.replay.testing.virtual_clock",
    "assert_every_split": "rawsse.replay.testing.cases",
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
