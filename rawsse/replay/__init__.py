"""Record, play, cut and check streams of the Messages API, to test any streaming code.

The names by task (with pytest: `pydoc rawsse.replay.pytest_plugin`):

    play recordings   ReplayServer (over HTTP), Player (in an ASGI server), FakeNetwork, stream_of (without a socket; FakeStream
                      and fake_links for connections of your own), Replay (the API of one test), VirtualClock (no waiting)
    see what came     PlayedRequest, Miss; and let it fail: Fault
    make an answer    answer, of text, citation, thinking, redacted_thinking, tool_use, server_tool_use, server_tool_result,
                      mcp_tool_use, web_search_result; recording_of sets fragments, pings and an ending (Break: cut, error)
    make several      turns, ToolResults; error_recording for an HTTP error
    have recordings   Recording (of Read and RecordedRequest), shipped_fixtures, find_recordings, load_recordings
    record            Recorder (in a client), RecordingProxy (any client); scrub, ScrubPolicy, find_secrets, Secret, checked
    test a parser     assert_every_split, smallest_failing_cut (FailingCut); every_split, every_pair_split, random_splits
    cut a stream      split_by; whole, by_event, byte_by_byte, fixed, sized, random_chunks, as_recorded
    change a stream   rewrite_by; its times: pace_by, recorded, immediate, slower, profile
    check a stream    check, Checker; Finding, Severity and Place

Read in this order:

    recording.py      one exchange, recorded without loss; the file format
    variants.py       the same stream with other chunks, bytes and times; the split that breaks a parser
    compose.py        hand-written messages as streams
    texts.py          the texts that deltas form, and the bytes of their characters
    scrub.py          removes secrets from recordings
    answers.py        which recording answers a request, and the answer
    faults.py         everything that can go wrong with an answer
    wire.py           an answer as bytes, silences and an end, with its faults
    fakes.py          connections without a socket
    player.py         recordings, played over HTTP
    check.py          checks whether a stream is correct
    explain.py        the timeline of a recording, as text
    explain_page.py   the same as an HTML page
    recorder.py       records a client's exchanges
    proxy.py          records any client that takes a base URL
    fixture.py        the API of one test
    conform.py        the fault matrix of any client, and of any gateway
    virtual_clock.py  an event loop whose clock jumps
    pytest_plugin.py  fixtures and a mark for pytest
    entry.py          the plugin's entry point, which does not load rawsse
"""

from rawsse.replay.answers import *
from rawsse.replay.check import *
from rawsse.replay.compose import *
from rawsse.replay.fakes import *
from rawsse.replay.faults import Fault
from rawsse.replay.fixture import Replay
from rawsse.replay.player import *
from rawsse.replay.proxy import RecordingProxy
from rawsse.replay.recorder import Recorder
from rawsse.replay.recording import (
    FORMAT_VERSION,
    MAX_FILE_BYTES,
    Read,
    RecordedRequest,
    Recording,
    find_recordings,
    load_recordings,
    shipped_fixtures,
)
from rawsse.replay.scrub import *
from rawsse.replay.variants import *
from rawsse.replay.virtual_clock import VirtualClock

__all__ = ["FORMAT_VERSION", "MAX_FILE_BYTES", "Read", "RecordedRequest", "Recording"]
__all__ += ["find_recordings", "load_recordings", "shipped_fixtures"]
__all__ += ["AS_UNCUT", "Chunks", "FailingCut", "Split", "assert_every_split", "smallest_failing_cut", "split_by"]
__all__ += ["as_recorded", "by_event", "byte_by_byte", "fixed", "random_chunks", "sized", "whole"]
__all__ += ["every_pair_split", "every_split", "random_splits"]
__all__ += ["REWRITES", "Pace", "Rewrite", "immediate", "pace_by", "profile", "recorded", "rewrite_by", "slower"]
__all__ += ["Break", "Fragments", "ToolResults", "answer", "cut", "error", "error_recording", "recording_of", "turns"]
__all__ += ["citation", "mcp_tool_use", "redacted_thinking", "server_tool_result", "server_tool_use", "text"]
__all__ += ["thinking", "tool_use", "web_search_result"]
__all__ += ["ScrubPolicy", "Secret", "checked", "find_secrets", "scrub"]
__all__ += ["MAX_KEPT_REQUESTS", "Match", "Miss", "PlayedRequest", "Player", "ReplayServer"]
__all__ += ["FakeNetwork", "FakeStream", "Fault", "fake_links", "stream_of"]
__all__ += ["Checker", "Finding", "Place", "Severity", "check"]
__all__ += ["Recorder", "RecordingProxy", "Replay", "VirtualClock"]
