"""Streams in any shape: cut anywhere, at any pace, made up, or as gateways send them.

Read in this order:

    splits.py      cutting bytes at every place; the smallest cut that breaks a parser
    pace.py        when the reads of a recording come
    parts.py       a message, written down as a person would say it
    builder.py     a message -> the stream that the API would have sent for it
    rewrites.py    the same events in other bytes, as gateways send them
"""

from rawsse.replay.shaping.builder import recording_of
from rawsse.replay.shaping.pace import pace_by
from rawsse.replay.shaping.rewrites import rewrite_by
from rawsse.replay.shaping.splits import every_split, smallest_failing_cut, split_by

__all__ = ["every_split", "pace_by", "recording_of", "rewrite_by", "smallest_failing_cut", "split_by"]
