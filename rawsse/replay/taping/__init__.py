"""Recording what others say.

Read in this order:

    tape.py        an exchange while it is being recorded
    outcome.py     how a recorded stream ended, for whoever asked
    shelf.py       a folder of recordings that grows
    recorder.py    recording what a client asks and is answered, or only what failed
    proxy.py       the same for any client that can be pointed at a base URL
"""

from rawsse.replay.taping.proxy import RecordingProxy
from rawsse.replay.taping.recorder import Recorder

__all__ = ["Recorder", "RecordingProxy"]
