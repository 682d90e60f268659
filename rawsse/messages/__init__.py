"""What the Messages API says. Pure: no sockets, no clock, no randomness.

Read in this order:

    lens.py          attribute access to a JSON object, without copying it
    content.py       content blocks, citations, usage, the message; the form that may be sent back
    events.py        one server-sent event -> one typed event
    partial_json.py  the best reading of an unfinished JSON text, in linear time
    block.py         one content block under construction
    ending.py        how a stream ended
    message.py       events -> the message so far; the order that they must keep
"""

from rawsse.messages.content import (
    Block,
    Citation,
    CompactionBlock,
    ContainerUploadBlock,
    FallbackBlock,
    MCPToolUseBlock,
    Message,
    RedactedThinkingBlock,
    ServerToolUseBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UnknownBlock,
    Usage,
)
from rawsse.messages.ending import Ending
from rawsse.messages.events import (
    CitationEvent,
    CitationsDelta,
    CompactionDelta,
    CompactionEvent,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Delta,
    ErrorEvent,
    InputJSONDelta,
    InputJSONEvent,
    MessageDelta,
    MessageStart,
    MessageStop,
    MessageStreamEvent,
    Ping,
    SignatureDelta,
    SignatureEvent,
    StreamEvent,
    TextDelta,
    TextEvent,
    ThinkingDelta,
    ThinkingEvent,
    UnknownDelta,
    UnknownEvent,
    read_event,
)
from rawsse.messages.message import MAX_MESSAGE_BYTES, Deviation, MessageBuilder
from rawsse.messages.partial_json import PartialJSON, read_partial

__all__ = [
    "MAX_MESSAGE_BYTES",
    "Block",
    "Citation",
    "CitationEvent",
    "CitationsDelta",
    "CompactionBlock",
    "CompactionDelta",
    "CompactionEvent",
    "ContainerUploadBlock",
    "ContentBlockDelta",
    "ContentBlockStart",
    "ContentBlockStop",
    "Delta",
    "Deviation",
    "Ending",
    "ErrorEvent",
    "FallbackBlock",
    "InputJSONDelta",
    "InputJSONEvent",
    "MCPToolUseBlock",
    "Message",
    "MessageBuilder",
    "MessageDelta",
    "MessageStart",
    "MessageStop",
    "MessageStreamEvent",
    "PartialJSON",
    "Ping",
    "RedactedThinkingBlock",
    "ServerToolUseBlock",
    "SignatureDelta",
    "SignatureEvent",
    "StreamEvent",
    "TextBlock",
    "TextDelta",
    "TextEvent",
    "ThinkingBlock",
    "ThinkingDelta",
    "ThinkingEvent",
    "ToolResultBlock",
    "ToolUseBlock",
    "UnknownBlock",
    "UnknownDelta",
    "UnknownEvent",
    "Usage",
    "read_event",
    "read_partial",
]
