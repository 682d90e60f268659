"""Recordings of streams: keeping, cutting, playing and checking them, for tests of anybody's streaming code.

Read in this order:

    recording.py  one exchange, kept so that nothing is lost; the file format
    shapes.py     what secrets look like
    deltas.py     the texts in a body, over any number of deltas, and writing over them in place
    scrub.py      no secret reaches the disk
    splits.py     cutting bytes at every place; the smallest cut that breaks a parser
    pace.py       when the reads of a recording come
    parts.py      a message, written down as a person would say it
    builder.py    a message -> the stream that the API would have sent for it
    rewrites.py   the same events in other bytes, as gateways send them
    canonical.py  requests that ask the same, made equal
    difference.py how two JSON values differ, and which is the nearest
    reply.py      the message in a recording, and the same under another id
    threads.py    conversations that the server keeps
    match.py      which recording answers a request
    turns.py      a conversation as recordings, one for each turn
    answers.py    what a Messages API made of recordings answers
    specs.py      how a fault is written as a text
    faults.py     what may go wrong with an answer, where, and in which requests
    edits.py      another answer in its place; events that are missing, twice, or spoilt
    script.py     an answer as what happens on the wire; broken framing, and a broken network
    player.py     the same as an ASGI application and as a server: pace and pieces
    fakes.py      the same without a socket, for `AsyncClient(connect=…)`
    check.py      is this a correct stream? Every broken rule, by name and place
    timeline.py   what came when: reads, lines, events, message, and the figures
    explain.py    the anatomy of a recording, as text
    picture.py    the timeline as a picture
    explain_html.py  the anatomy as one HTML page, with the picture
    tape.py       an exchange while it is being recorded
    outcome.py    how a recorded stream ended, for whoever asked
    shelf.py      a folder of recordings that grows
    recorder.py   recording what a client asks and is answered, or only what failed
    proxy.py      the same for any client that can be pointed at a base URL
    demo.py       a player that picks the recording by a word in the prompt
    virtual_clock.py  an event loop whose clock jumps
    background.py a server in a thread of its own
    sources.py    what a test plays, by name, path or value
    cases.py      every cutting of a stream as a case of a test, with a name
    acts.py       what a test's API does, and what the test must be told
    testing.py    what a test holds in its hand
    pytest_plugin.py  the same for pytest: fixtures, marks and options
"""

from rawsse.replay.builder import Break, Fragments, cut, error, error_recording, recording_of
from rawsse.replay.check import Checker, Finding, Place, Severity, check
from rawsse.replay.fakes import FakeNetwork, stream_of
from rawsse.replay.faults import Fault
from rawsse.replay.match import Match, Miss
from rawsse.replay.pace import Pace, immediate, pace_by, profile, recorded, scaled
from rawsse.replay.parts import (
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
from rawsse.replay.player import MAX_KEPT_REQUESTS, PlayedRequest, Player, ReplayServer
from rawsse.replay.proxy import RecordingProxy
from rawsse.replay.recorder import Recorder
from rawsse.replay.recording import (
    FORMAT_VERSION,
    Read,
    RecordedRequest,
    Recording,
    find_recordings,
    shipped_fixtures,
)
from rawsse.replay.rewrites import REWRITES, Rewrite, rewrite_by
from rawsse.replay.scrub import ScrubPolicy, Secret, checked, find_secrets, scrub
from rawsse.replay.splits import (
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
    whole,
)
from rawsse.replay.turns import ToolResults, turns

__all__ = [
    "FORMAT_VERSION",
    "MAX_KEPT_REQUESTS",
    "REWRITES",
    "Break",
    "Checker",
    "Chunks",
    "FailingCut",
    "FakeNetwork",
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
    "ReplayServer",
    "Rewrite",
    "ScrubPolicy",
    "Secret",
    "Severity",
    "Split",
    "ToolResults",
    "answer",
    "as_recorded",
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
    "scaled",
    "scrub",
    "server_tool_result",
    "server_tool_use",
    "shipped_fixtures",
    "sized",
    "smallest_failing_cut",
    "stream_of",
    "text",
    "thinking",
    "tool_use",
    "turns",
    "web_search_result",
    "whole",
]
