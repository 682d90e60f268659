"""The same calls for code without async.

Read in this order:

    portal.py    an event loop in a thread, and calls into it that Ctrl-C ends
    stream.py    the answer as it comes
    access.py    from a blocking client to its async one
    results.py   pages and raw responses
    runner.py    the tool loop
    conversation.py  questions and answers in turn
    client.py    Client
"""

from rawsse.client.blocking.client import Client
from rawsse.client.blocking.conversation import BlockingConversation, BlockingReply
from rawsse.client.blocking.results import BlockingRawResponse, Page
from rawsse.client.blocking.runner import BlockingToolRunner
from rawsse.client.blocking.stream import BlockingEventStream, BlockingMessageStream

__all__ = [
    "BlockingConversation",
    "BlockingEventStream",
    "BlockingMessageStream",
    "BlockingRawResponse",
    "BlockingReply",
    "BlockingToolRunner",
    "Client",
    "Page",
]
