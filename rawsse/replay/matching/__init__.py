"""Which recording answers a request, and what a Messages API made of recordings answers.

Read in this order:

    canonical.py   requests that ask the same, made equal
    difference.py  how two JSON values differ, and which is the nearest
    reply.py       the message in a recording, and the same under another id
    threads.py     conversations that the server keeps
    match.py       which recording answers a request
    turns.py       a conversation as recordings, one for each turn
    answers.py     what a Messages API made of recordings answers
"""

from rawsse.replay.matching.answers import Answer, Repertoire
from rawsse.replay.matching.match import Match, Miss
from rawsse.replay.matching.turns import ToolResults, turns

__all__ = ["Answer", "Match", "Miss", "Repertoire", "ToolResults", "turns"]
