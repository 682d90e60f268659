"""What may be sent: the parameters of the Messages API, as types for annotations.

This file knows the fields that requests are made of (https://docs.anthropic.com/en/api/messages). It refuses to check them: at
run time each is a plain dict, and the API is the judge of what is in it.

    question: MessageParam = {"role": "user", "content": "What is the weather in SF?"}
    tools: list[ToolParam] = [{"name": "get_weather", "input_schema": {"type": "object"}}]

The names are the official SDK's. A block in `content` may be any mapping, so that a new kind of block needs no new type here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Required, TypeAlias, TypedDict

from rawsse.messages.content import Block

__all__ = [
    "CacheControlEphemeralParam",
    "CitationsConfigParam",
    "ContentBlockParam",
    "DocumentBlockParam",
    "ImageBlockParam",
    "JSONOutputFormatParam",
    "MessageParam",
    "MetadataParam",
    "ModelParam",
    "OutputConfigParam",
    "RedactedThinkingBlockParam",
    "SearchResultBlockParam",
    "TextBlockParam",
    "ThinkingBlockParam",
    "ThinkingConfigParam",
    "ToolChoiceParam",
    "ToolParam",
    "ToolReferenceBlockParam",
    "ToolResultBlockParam",
    "ToolUnionParam",
    "ToolUseBlockParam",
]

ModelParam: TypeAlias = str
"""The name of a model."""

ContentBlockParam: TypeAlias = Mapping[str, Any] | Block
"""A content block: one of the types below, any other mapping, or a block of an answer as it came."""


class CacheControlEphemeralParam(TypedDict, total=False):
    """Marks the end of what is to be cached."""

    type: Required[Literal["ephemeral"]]
    ttl: Literal["5m", "1h"]


class MessageParam(TypedDict):
    """One turn of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | Iterable[ContentBlockParam]


class TextBlockParam(TypedDict, total=False):
    """Text."""

    type: Required[Literal["text"]]
    text: Required[str]
    citations: Iterable[Mapping[str, Any]] | None
    cache_control: CacheControlEphemeralParam | None


class ImageBlockParam(TypedDict, total=False):
    """An image: `source` holds it, or says where it is."""

    type: Required[Literal["image"]]
    source: Required[Mapping[str, Any]]
    cache_control: CacheControlEphemeralParam | None


class CitationsConfigParam(TypedDict, total=False):
    """Whether the answer is to cite the document."""

    enabled: bool


class DocumentBlockParam(TypedDict, total=False):
    """A document: `source` holds it, or says where it is."""

    type: Required[Literal["document"]]
    source: Required[Mapping[str, Any]]
    title: str | None
    context: str | None
    citations: CitationsConfigParam | None
    cache_control: CacheControlEphemeralParam | None


class SearchResultBlockParam(TypedDict, total=False):
    """A result of a search of your own, which the answer may cite."""

    type: Required[Literal["search_result"]]
    source: Required[str]
    title: Required[str]
    content: Required[Iterable[TextBlockParam]]
    citations: CitationsConfigParam
    cache_control: CacheControlEphemeralParam | None


class ThinkingBlockParam(TypedDict):
    """Thinking, sent back unchanged."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class RedactedThinkingBlockParam(TypedDict):
    """Thinking that only the API can read, sent back unchanged."""

    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlockParam(TypedDict, total=False):
    """A call of a tool, sent back."""

    type: Required[Literal["tool_use"]]
    id: Required[str]
    name: Required[str]
    input: Required[Mapping[str, Any]]
    cache_control: CacheControlEphemeralParam | None


class ToolResultBlockParam(TypedDict, total=False):
    """What a tool said to a call."""

    type: Required[Literal["tool_result"]]
    tool_use_id: Required[str]
    content: str | Iterable[ContentBlockParam]
    is_error: bool
    cache_control: CacheControlEphemeralParam | None


class ToolReferenceBlockParam(TypedDict, total=False):
    """Names a tool that a search for tools found."""

    type: Required[Literal["tool_reference"]]
    tool_name: Required[str]
    cache_control: CacheControlEphemeralParam | None


class ToolParam(TypedDict, total=False):
    """A tool of yours."""

    name: Required[str]
    input_schema: Required[Mapping[str, Any]]
    description: str
    type: Literal["custom"] | None
    strict: bool
    defer_loading: bool
    eager_input_streaming: bool | None
    input_examples: Iterable[Mapping[str, Any]]
    cache_control: CacheControlEphemeralParam | None


ToolUnionParam: TypeAlias = ToolParam | Mapping[str, Any]
"""A tool of yours, or one of Anthropic's."""

ToolChoiceParam: TypeAlias = Mapping[str, Any]
"""Whether a tool must be called, and which: `{"type": "auto" | "any" | "tool" | "none", …}`."""

ThinkingConfigParam: TypeAlias = Mapping[str, Any]
"""How the model may think: `{"type": "adaptive" | "enabled" | "disabled" …}`."""


class MetadataParam(TypedDict, total=False):
    """What you say of the request."""

    user_id: str | None


class JSONOutputFormatParam(TypedDict):
    """The JSON that the answer is to be."""

    type: Literal["json_schema"]
    schema: Mapping[str, Any]


class OutputConfigParam(TypedDict, total=False):
    """How the answer is to be."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None
    format: JSONOutputFormatParam | None
