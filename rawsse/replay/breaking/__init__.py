"""What may go wrong with an answer, done to it.

Read in this order:

    specs.py       how a fault is written as a text
    faults.py      what may go wrong with an answer, where, and in which requests
    edits.py       another answer in its place; events that are missing, twice, or spoilt
    script.py      an answer as what happens on the wire; broken framing, and a broken network
    wire.py        the connection that is broken
    schedule.py    whose turn a fault is
"""

from rawsse.replay.breaking.faults import Fault
from rawsse.replay.breaking.script import Act, Script, script

__all__ = ["Act", "Fault", "Script", "script"]
