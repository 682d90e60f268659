"""What comes back, under the official SDK's names.

This file knows which class of ours an SDK's name stands for. It refuses to define any: they are in `rawsse.messages`.

    def show(block: ContentBlock) -> None:
        if isinstance(block, TextBlock): print(block.text)

Where the SDK has a class for each kind of tool result, ours is one class: look at `block.type`.
"""

from __future__ import annotations

from typing import TypeAlias

from rawsse.client.resources import ModelInfo, TokenCount
from rawsse.messages.content import (
    Block,
    CacheCreation,
    Citation,
    ContainerUploadBlock,
    Message,
    OutputTokensDetails,
    ParsedContentBlock,
    ParsedMessage,
    ParsedTextBlock,
    RedactedThinkingBlock,
    RefusalStopDetails,
    ServerToolUsage,
    ServerToolUseBlock,
    StopReason,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    Usage,
)
from rawsse.messages.events import (
    CitationsDelta,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    InputJSONDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    MessageStreamEvent,
    SignatureDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
)

__all__ = [
    "BashCodeExecutionToolResultBlock",
    "CacheCreation",
    "CitationsDelta",
    "CodeExecutionToolResultBlock",
    "ContainerUploadBlock",
    "ContentBlock",
    "ContentBlockDeltaEvent",
    "ContentBlockStartEvent",
    "ContentBlockStopEvent",
    "InputJSONDelta",
    "Message",
    "MessageDeltaEvent",
    "MessageDeltaUsage",
    "MessageStartEvent",
    "MessageStopEvent",
    "MessageStreamEvent",
    "MessageTokensCount",
    "Model",
    "ModelInfo",
    "OutputTokensDetails",
    "ParsedContentBlock",
    "ParsedMessage",
    "ParsedTextBlock",
    "RawContentBlockDeltaEvent",
    "RawContentBlockStartEvent",
    "RawContentBlockStopEvent",
    "RawMessageDeltaEvent",
    "RawMessageStartEvent",
    "RawMessageStopEvent",
    "RawMessageStreamEvent",
    "RedactedThinkingBlock",
    "RefusalStopDetails",
    "ServerToolUsage",
    "ServerToolUseBlock",
    "SignatureDelta",
    "StopReason",
    "TextBlock",
    "TextCitation",
    "TextDelta",
    "TextEditorCodeExecutionToolResultBlock",
    "ThinkingBlock",
    "ThinkingDelta",
    "ToolSearchToolResultBlock",
    "ToolUseBlock",
    "Usage",
    "WebFetchToolResultBlock",
    "WebSearchToolResultBlock",
]

Model: TypeAlias = str

ContentBlock = Block
TextCitation = Citation
MessageDeltaUsage = Usage
MessageTokensCount = TokenCount

WebSearchToolResultBlock = ToolResultBlock
WebFetchToolResultBlock = ToolResultBlock
ToolSearchToolResultBlock = ToolResultBlock
CodeExecutionToolResultBlock = ToolResultBlock
BashCodeExecutionToolResultBlock = ToolResultBlock
TextEditorCodeExecutionToolResultBlock = ToolResultBlock

RawMessageStreamEvent = StreamEvent
RawMessageStartEvent = MessageStart
MessageStartEvent = MessageStart
RawMessageDeltaEvent = MessageDelta
MessageDeltaEvent = MessageDelta
RawMessageStopEvent = MessageStop
MessageStopEvent = MessageStop
RawContentBlockStartEvent = ContentBlockStart
ContentBlockStartEvent = ContentBlockStart
RawContentBlockDeltaEvent = ContentBlockDelta
ContentBlockDeltaEvent = ContentBlockDelta
RawContentBlockStopEvent = ContentBlockStop
ContentBlockStopEvent = ContentBlockStop
