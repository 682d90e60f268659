"""Looking at recordings: is it correct, and what is in it?

`check`, `explain` here are the files; the functions are in them, and `check` in `rawsse.replay`. Read in this order:

    json_answer.py what an answer that is no stream is, and must have
    check.py       is this a correct stream? Every broken rule, by name and place
    timeline.py    what came when: reads, lines, events, message, and the figures
    explain.py     the anatomy of a recording, as text
    picture.py     the timeline as a picture
    html.py        the anatomy as one HTML page, with the picture
"""

from rawsse.replay.looking.check import Checker, Finding, Place, Severity

__all__ = ["Checker", "Finding", "Place", "Severity"]
