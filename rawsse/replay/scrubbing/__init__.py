"""No secret reaches the disk.

`scrub` here is the file; the function is in it, and in `rawsse.replay`. Read in this order:

    shapes.py      what secrets look like
    deltas.py      the texts in a body, over any number of deltas, and writing over them in place
    names.py       which names say that their value is a secret
    scrub.py       no secret reaches the disk
"""

from rawsse.replay.scrubbing.names import CREDENTIAL_HEADERS
from rawsse.replay.scrubbing.scrub import ScrubPolicy, Secret, checked, find_secrets

__all__ = ["CREDENTIAL_HEADERS", "ScrubPolicy", "Secret", "checked", "find_secrets"]
