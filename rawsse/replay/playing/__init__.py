"""Recordings, played to a client.

Read in this order:

    player.py      the same as an ASGI application and as a server: pace and pieces
    fake_links.py  connections made of byte chunks
    fakes.py       the same without a socket, for `AsyncClient(connect=…)`
    demo.py        a player that picks the recording by a word in the prompt
"""

from rawsse.replay.playing.fake_links import FakeStream, fake_links
from rawsse.replay.playing.fakes import FakeNetwork, stream_of
from rawsse.replay.playing.player import PlayedRequest, Player, ReplayServer

__all__ = ["FakeNetwork", "FakeStream", "PlayedRequest", "Player", "ReplayServer", "fake_links", "stream_of"]
