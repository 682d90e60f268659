"""For tests: an API in one hand, all cuts, and a clock that jumps.

Read in this order:

    virtual_clock.py an event loop whose clock jumps
    background.py  a server in a thread of its own
    address.py     an address for a server that starts later
    guard.py       no connection leaves this machine
    sources.py     what a test plays, by name, path or value
    cases.py       every cutting of a stream as a case of a test, with a name
    acts.py        what a test's API does, and what the test must be told
    hand.py        what a test holds in its hand
    pytest_plugin.py the same for pytest: fixtures, marks and options
    entry.py       where pytest finds that
"""

from rawsse.replay.testing.hand import RecordMode, Replay
from rawsse.replay.testing.virtual_clock import VirtualClock

__all__ = ["RecordMode", "Replay", "VirtualClock"]
