"""The official SDK's names for its beta resource. They stand for the same classes: there is one Messages API here.

This file knows that `BetaX` is `X`. It refuses to know any more.

    from rawsse.types.beta import BetaMessageParam
"""

from __future__ import annotations

from rawsse.messages.content import CompactionBlock as BetaCompactionBlock
from rawsse.messages.content import FallbackBlock as BetaFallbackBlock
from rawsse.messages.content import MCPToolUseBlock as BetaMCPToolUseBlock
from rawsse.messages.content import ToolResultBlock as BetaMCPToolResultBlock
from rawsse.types.answers import BashCodeExecutionToolResultBlock as BetaBashCodeExecutionToolResultBlock
from rawsse.types.answers import CacheCreation as BetaCacheCreation
from rawsse.types.answers import CitationsDelta as BetaCitationsDelta
from rawsse.types.answers import CodeExecutionToolResultBlock as BetaCodeExecutionToolResultBlock
from rawsse.types.answers import ContainerUploadBlock as BetaContainerUploadBlock
from rawsse.types.answers import ContentBlock as BetaContentBlock
from rawsse.types.answers import InputJSONDelta as BetaInputJSONDelta
from rawsse.types.answers import Message as BetaMessage
from rawsse.types.answers import MessageDeltaUsage as BetaMessageDeltaUsage
from rawsse.types.answers import MessageTokensCount as BetaMessageTokensCount
from rawsse.types.answers import ModelInfo as BetaModelInfo
from rawsse.types.answers import OutputTokensDetails as BetaOutputTokensDetails
from rawsse.types.answers import RawContentBlockDeltaEvent as BetaRawContentBlockDeltaEvent
from rawsse.types.answers import RawContentBlockStartEvent as BetaRawContentBlockStartEvent
from rawsse.types.answers import RawContentBlockStopEvent as BetaRawContentBlockStopEvent
from rawsse.types.answers import RawMessageDeltaEvent as BetaRawMessageDeltaEvent
from rawsse.types.answers import RawMessageStartEvent as BetaRawMessageStartEvent
from rawsse.types.answers import RawMessageStopEvent as BetaRawMessageStopEvent
from rawsse.types.answers import RawMessageStreamEvent as BetaRawMessageStreamEvent
from rawsse.types.answers import RedactedThinkingBlock as BetaRedactedThinkingBlock
from rawsse.types.answers import ServerToolUsage as BetaServerToolUsage
from rawsse.types.answers import ServerToolUseBlock as BetaServerToolUseBlock
from rawsse.types.answers import SignatureDelta as BetaSignatureDelta
from rawsse.types.answers import StopReason as BetaStopReason
from rawsse.types.answers import TextBlock as BetaTextBlock
from rawsse.types.answers import TextCitation as BetaTextCitation
from rawsse.types.answers import TextDelta as BetaTextDelta
from rawsse.types.answers import TextEditorCodeExecutionToolResultBlock as BetaTextEditorCodeExecutionToolResultBlock
from rawsse.types.answers import ThinkingBlock as BetaThinkingBlock
from rawsse.types.answers import ThinkingDelta as BetaThinkingDelta
from rawsse.types.answers import ToolSearchToolResultBlock as BetaToolSearchToolResultBlock
from rawsse.types.answers import ToolUseBlock as BetaToolUseBlock
from rawsse.types.answers import Usage as BetaUsage
from rawsse.types.answers import WebFetchToolResultBlock as BetaWebFetchToolResultBlock
from rawsse.types.answers import WebSearchToolResultBlock as BetaWebSearchToolResultBlock
from rawsse.types.params import CacheControlEphemeralParam as BetaCacheControlEphemeralParam
from rawsse.types.params import CitationsConfigParam as BetaCitationsConfigParam
from rawsse.types.params import ContentBlockParam as BetaContentBlockParam
from rawsse.types.params import DocumentBlockParam as BetaRequestDocumentBlockParam
from rawsse.types.params import ImageBlockParam as BetaImageBlockParam
from rawsse.types.params import JSONOutputFormatParam as BetaJSONOutputFormatParam
from rawsse.types.params import MessageParam as BetaMessageParam
from rawsse.types.params import MetadataParam as BetaMetadataParam
from rawsse.types.params import OutputConfigParam as BetaOutputConfigParam
from rawsse.types.params import RedactedThinkingBlockParam as BetaRedactedThinkingBlockParam
from rawsse.types.params import SearchResultBlockParam as BetaSearchResultBlockParam
from rawsse.types.params import TextBlockParam as BetaTextBlockParam
from rawsse.types.params import ThinkingBlockParam as BetaThinkingBlockParam
from rawsse.types.params import ThinkingConfigParam as BetaThinkingConfigParam
from rawsse.types.params import ToolChoiceParam as BetaToolChoiceParam
from rawsse.types.params import ToolParam as BetaToolParam
from rawsse.types.params import ToolReferenceBlockParam as BetaToolReferenceBlockParam
from rawsse.types.params import ToolResultBlockParam as BetaToolResultBlockParam
from rawsse.types.params import ToolUnionParam as BetaToolUnionParam
from rawsse.types.params import ToolUseBlockParam as BetaToolUseBlockParam

__all__ = [
    "BetaBashCodeExecutionToolResultBlock",
    "BetaCacheControlEphemeralParam",
    "BetaCacheCreation",
    "BetaCitationsConfigParam",
    "BetaCitationsDelta",
    "BetaCodeExecutionToolResultBlock",
    "BetaCompactionBlock",
    "BetaContainerUploadBlock",
    "BetaContentBlock",
    "BetaContentBlockParam",
    "BetaFallbackBlock",
    "BetaImageBlockParam",
    "BetaInputJSONDelta",
    "BetaJSONOutputFormatParam",
    "BetaMCPToolResultBlock",
    "BetaMCPToolUseBlock",
    "BetaMessage",
    "BetaMessageDeltaUsage",
    "BetaMessageParam",
    "BetaMessageTokensCount",
    "BetaMetadataParam",
    "BetaModelInfo",
    "BetaOutputConfigParam",
    "BetaOutputTokensDetails",
    "BetaRawContentBlockDeltaEvent",
    "BetaRawContentBlockStartEvent",
    "BetaRawContentBlockStopEvent",
    "BetaRawMessageDeltaEvent",
    "BetaRawMessageStartEvent",
    "BetaRawMessageStopEvent",
    "BetaRawMessageStreamEvent",
    "BetaRedactedThinkingBlock",
    "BetaRedactedThinkingBlockParam",
    "BetaRequestDocumentBlockParam",
    "BetaSearchResultBlockParam",
    "BetaServerToolUsage",
    "BetaServerToolUseBlock",
    "BetaSignatureDelta",
    "BetaStopReason",
    "BetaTextBlock",
    "BetaTextBlockParam",
    "BetaTextCitation",
    "BetaTextDelta",
    "BetaTextEditorCodeExecutionToolResultBlock",
    "BetaThinkingBlock",
    "BetaThinkingBlockParam",
    "BetaThinkingConfigParam",
    "BetaThinkingDelta",
    "BetaToolChoiceParam",
    "BetaToolParam",
    "BetaToolReferenceBlockParam",
    "BetaToolResultBlockParam",
    "BetaToolSearchToolResultBlock",
    "BetaToolUnionParam",
    "BetaToolUseBlock",
    "BetaToolUseBlockParam",
    "BetaUsage",
    "BetaWebFetchToolResultBlock",
    "BetaWebSearchToolResultBlock",
]
