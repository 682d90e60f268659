"""The official SDK's names for the types of requests and answers, for programs that migrate.

    from rawsse.types import Message, MessageParam, ToolParam
    from rawsse.types.beta import BetaMessageParam

These names are for annotations and `isinstance`; no call needs them. At run time params are plain dicts, which only the
API validates (https://docs.anthropic.com/en/api/messages). Answers are instances of the classes in `rawsse.messages`.
The SDK has one class per kind of tool result; rawsse has one for all of them, and `block.type` tells them apart. For an
SDK name that is missing here, write `dict[str, Any]`.

`BetaX` is the same as `X`. Type checkers read `beta.pyi`, which lists those names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Required, TypeAlias, TypedDict

from rawsse.client.resources import ModelInfo, TokenCount
from rawsse.messages.content import *
from rawsse.messages.events import *

# Answers.
__all__ = ["BashCodeExecutionToolResultBlock", "CacheCreation", "CitationsDelta", "CodeExecutionToolResultBlock"]
__all__ += ["ContainerUploadBlock", "ContentBlock", "ContentBlockDeltaEvent", "ContentBlockStartEvent"]
__all__ += ["ContentBlockStopEvent", "InputJSONDelta", "Message", "MessageDeltaEvent", "MessageDeltaUsage"]
__all__ += ["MessageStartEvent", "MessageStopEvent", "MessageStreamEvent", "MessageTokensCount", "Model", "ModelInfo"]
__all__ += ["OutputTokensDetails", "ParsedContentBlock", "ParsedMessage", "ParsedTextBlock"]
__all__ += ["RawContentBlockDeltaEvent", "RawContentBlockStartEvent", "RawContentBlockStopEvent"]
__all__ += ["RawMessageDeltaEvent", "RawMessageStartEvent", "RawMessageStopEvent", "RawMessageStreamEvent"]
__all__ += ["RedactedThinkingBlock", "RefusalStopDetails", "ServerToolUsage", "ServerToolUseBlock", "SignatureDelta"]
__all__ += ["StopReason", "TextBlock", "TextCitation", "TextDelta", "TextEditorCodeExecutionToolResultBlock"]
__all__ += ["ThinkingBlock", "ThinkingDelta", "ToolSearchToolResultBlock", "ToolUseBlock", "Usage"]
__all__ += ["WebFetchToolResultBlock", "WebSearchToolResultBlock"]
# Params.
__all__ += ["CacheControlEphemeralParam", "CitationsConfigParam", "ContentBlockParam", "DocumentBlockParam"]
__all__ += ["ImageBlockParam", "JSONOutputFormatParam", "MessageParam", "MetadataParam", "ModelParam"]
__all__ += ["OutputConfigParam", "RedactedThinkingBlockParam", "SearchResultBlockParam", "TextBlockParam"]
__all__ += ["ThinkingBlockParam", "ThinkingConfigParam", "ToolChoiceParam", "ToolParam", "ToolReferenceBlockParam"]
__all__ += ["ToolResultBlockParam", "ToolUnionParam", "ToolUseBlockParam"]

# --- Answers -------------------------------------------------------------------------------------------------------

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

# --- Params --------------------------------------------------------------------------------------------------------
#
# Turns and tools are typed. Content blocks and options are plain dicts, whose fields only the API validates.

ModelParam: TypeAlias = str
"""The name of a model."""

CacheControlEphemeralParam: TypeAlias = dict[str, Any]
CitationsConfigParam: TypeAlias = dict[str, Any]
DocumentBlockParam: TypeAlias = dict[str, Any]
ImageBlockParam: TypeAlias = dict[str, Any]
JSONOutputFormatParam: TypeAlias = dict[str, Any]
MetadataParam: TypeAlias = dict[str, Any]
OutputConfigParam: TypeAlias = dict[str, Any]
RedactedThinkingBlockParam: TypeAlias = dict[str, Any]
SearchResultBlockParam: TypeAlias = dict[str, Any]
TextBlockParam: TypeAlias = dict[str, Any]
ThinkingBlockParam: TypeAlias = dict[str, Any]
ThinkingConfigParam: TypeAlias = dict[str, Any]
ToolChoiceParam: TypeAlias = dict[str, Any]
ToolReferenceBlockParam: TypeAlias = dict[str, Any]
ToolResultBlockParam: TypeAlias = dict[str, Any]
ToolUseBlockParam: TypeAlias = dict[str, Any]

ContentBlockParam: TypeAlias = Mapping[str, Any] | Block
"""A content block: any mapping, or a block of an answer."""


class MessageParam(TypedDict):
    """One turn of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | Iterable[ContentBlockParam]


class ToolParam(TypedDict, total=False):
    """A tool of the caller."""

    name: Required[str]
    input_schema: Required[Mapping[str, Any]]
    description: str
    type: Literal["custom"] | None
    strict: bool
    defer_loading: bool
    eager_input_streaming: bool | None
    input_examples: Iterable[Mapping[str, Any]]
    cache_control: Mapping[str, Any] | None


ToolUnionParam: TypeAlias = ToolParam | Mapping[str, Any]
"""A tool of the caller, or one that Anthropic provides."""

# --- The beta resource ---------------------------------------------------------------------------------------------

MCPToolResultBlock = ToolResultBlock
RequestDocumentBlockParam = DocumentBlockParam
_ONLY_BETA = ("CompactionBlock", "FallbackBlock", "MCPToolResultBlock", "MCPToolUseBlock", "RequestDocumentBlockParam")

beta = sys.modules[f"{__name__}.beta"] = sys.modules[__name__]
"""`rawsse.types.beta` is this module, just as `os.path` is `posixpath`."""


def __getattr__(name: str) -> Any:
    if (plain := name.removeprefix("Beta")) in (*__all__, *_ONLY_BETA):
        return globals()[plain]
    raise AttributeError(f"module 'rawsse.types' has no attribute {name!r}")
