"""The answers of the Messages API: events, content and the message. Pure: no sockets, no clock, no randomness.

Read in this order:

    lens.py          attribute access to a JSON object, without copying it
    partial_json.py  a parser of incomplete JSON, in linear time
    content.py       the message, its content blocks and its usage; what the API accepts as history
    events.py        one server-sent event -> one typed event
    message.py       events -> the message so far; the order of events
"""

from rawsse.errors import Ending
from rawsse.messages.content import *
from rawsse.messages.events import *
from rawsse.messages.message import *
from rawsse.messages.partial_json import *

# The message, and its content blocks.
__all__ = ["Citation", "Ending", "Message", "ParsedMessage", "RefusalStopDetails"]
__all__ += ["CacheCreation", "OutputTokensDetails", "ServerToolUsage", "Usage"]
__all__ += ["Block", "CompactionBlock", "ContainerUploadBlock", "FallbackBlock", "ParsedTextBlock", "TextBlock"]
__all__ += ["MCPToolListingBlock", "MCPToolUseBlock", "ServerToolUseBlock", "ToolResultBlock", "ToolUseBlock"]
__all__ += ["RedactedThinkingBlock", "ThinkingBlock", "UnknownBlock"]
# Events as received; their deltas; derived events.
__all__ += ["ContentBlockDelta", "ContentBlockStart", "ContentBlockStop", "MessageDelta", "MessageStart", "MessageStop"]
__all__ += ["ErrorEvent", "MessageStreamEvent", "Ping", "StreamEvent", "UnknownEvent"]
__all__ += ["CitationsDelta", "CompactionDelta", "Delta", "InputJSONDelta", "SignatureDelta", "TextDelta"]
__all__ += ["ThinkingDelta", "UnknownDelta"]
__all__ += ["CitationEvent", "CompactionEvent", "InputJSONEvent", "SignatureEvent", "TextEvent", "ThinkingEvent"]
# Readers.
__all__ += ["MAX_MESSAGE_BYTES", "Deviation", "MessageBuilder", "PartialJSON", "read_event", "read_partial"]
