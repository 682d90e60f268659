"""The types of the Messages API's answers (https://docs.anthropic.com/en/api/messages), each a lens over its JSON: content
blocks, citations, usage and the message, which `replayable` turns into history.

    for block in message.content:
        match block:
            case TextBlock(text=text): ...
            case ToolUseBlock(name=name, input=input) if block.complete: ...

A block of an unknown type is an `UnknownBlock`: `block.type` and every field can be read, and nothing is lost.
Type checkers narrow on `block.type == "text"` as they do on `case TextBlock()`.

A block under construction is its own JSON, and joins its fragments into it:

    block = BlockBuilder({"type": "tool_use", "id": …, "name": …, "input": {}})
    block.grow('{"city": "Os')
    block.settle()["input"]                  # {}: a string is included once it is complete
    block.grow('lo"}')
    block.close()                            # block["input"] == {"city": "Oslo"}, block.complete is True
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

from rawsse.errors import EventDataError, OutputFormatError, PartialJSONError, quote
from rawsse.messages.lens import Lens, OpenLens, as_sent, by_type, is_json_object, object_at, parse_json, well_formed
from rawsse.messages.partial_json import PartialJSON

T = TypeVar("T")

INPUT_TOKENS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
"""Fields of the usage. "Total input tokens in a request is the summation of" the three."""

NOTHING: Mapping[str, int] = {"input_tokens": 0, "output_tokens": 0}
"""The usage of an answer that never began."""

MAX_TOKENS_COUNTED = 2**53 - 1
"""The largest count that is accepted: every JSON reader and every database can hold it."""

_OUTSIDE = ("compaction", "advisor_message")
"""Iterations that the counts of the message leave out."""

_Cut: TypeAlias = Literal["max_tokens", "model_context_window_exceeded", "refusal"]
StopReason: TypeAlias = Literal["end_turn", "stop_sequence", "tool_use", "pause_turn", "compaction"] | _Cut
"""Why the model stopped. The API may add others."""


class Citation(OpenLens):
    """The source of a piece of text: `char_location`, `page_location`, `content_block_location`,
    `web_search_result_location` or `search_result_location`, each with its own fields."""

    type: str
    cited_text: str


class RefusalStopDetails(Lens):
    """Why the model refused."""

    category: str | None
    explanation: str | None
    type: Literal["refusal"]
    fallback_credit_token: Any
    fallback_has_prefill_claim: Any
    recommended_model: Any


class CacheCreation(Lens):
    """Tokens written to the cache, by lifetime."""

    ephemeral_1h_input_tokens: int
    ephemeral_5m_input_tokens: int


class OutputTokensDetails(Lens):
    """How the output tokens were used."""

    thinking_tokens: int


class ServerToolUsage(Lens):
    """How often server tools ran."""

    web_fetch_requests: int
    web_search_requests: int


class Usage(Lens):
    """Token counts. Counts in a stream are cumulative."""

    cache_creation: CacheCreation | None
    cache_creation_input_tokens: int | None
    cache_read_input_tokens: int | None
    inference_geo: str | None
    input_tokens: int
    output_tokens: int
    output_tokens_details: OutputTokensDetails | None
    server_tool_use: ServerToolUsage | None
    service_tier: str | None
    speed: str | None
    fallback_credit: Any
    iterations: Any

    @property
    def total_input_tokens(self) -> int:
        """All input tokens, whether uncached, written to the cache or read from it: the size of the context."""
        return sum(count for name in INPUT_TOKENS if isinstance(count := self.raw.get(name), int))


def billed(usage: dict[str, Any]) -> dict[str, Any] | None:
    """The sum over all iterations. The top-level counts omit compaction, advisors, and models that were replaced
    (https://docs.anthropic.com/en/docs/build-with-claude/compaction). None if the iterations are not understood."""
    if not (iterations := usage.get("iterations")):
        return usage
    if not isinstance(iterations, list) or not all(_is_iteration(each) for each in iterations):
        return None
    if all(each["type"] in _OUTSIDE for each in iterations):
        iterations = [usage, *iterations]
    total: dict[str, Any] = {}
    for each in iterations:
        add_counts({name: each.get(name) for name in (*INPUT_TOKENS, "output_tokens", "cache_creation")}, total)
    return {**usage, **total}


def token_counts(usage: dict[str, Any]) -> tuple[dict[str, int], bool]:
    """The billed counts of `INPUT_TOKENS` and `output_tokens`, and whether all of the usage was understood."""
    counts = billed(usage)
    found = usage if counts is None else counts
    given = {name: found.get(name) for name in (*INPUT_TOKENS, "output_tokens")}
    tokens = {name: value for name, value in given.items() if type(value) is int and 0 <= value <= MAX_TOKENS_COUNTED}
    is_whole = "input_tokens" in tokens and "output_tokens" in tokens and counts is not None
    return {name: tokens.get(name, 0) for name in given}, is_whole


def add_counts(counts: Mapping[str, Any], total: dict[str, Any]) -> None:
    """Add every count to `total`, known or not, including those in objects (`server_tool_use`). Other values are ignored."""
    for name, value in counts.items():
        if isinstance(value, dict):
            if isinstance(inner := total.setdefault(name, {}), dict):
                add_counts(value, inner)
        elif isinstance(value, int) and not isinstance(value, bool) and isinstance(total.get(name, 0), int):
            total[name] = total.get(name, 0) + value


def _is_iteration(value: Any) -> bool:
    is_known = isinstance(value, dict) and value.get("type") in ("message", "fallback_message", *_OUTSIDE)
    return is_known and all(type(value.get(name)) is int for name in NOTHING)


# --- Content blocks --------------------------------------------------------------------------------------------------


class BaseBlock(Lens):
    """The base of content blocks. Fields are in the order of the official SDK's models. Two attributes are set while a
    stream is folded:

    `complete`: the block was closed, and a tool's input is a JSON object. An incomplete tool call must not be run.
    `input_text`: the tool input's JSON text as received; empty for other blocks and for messages that were not streamed.
    """

    type: str

    OPAQUE: ClassVar[frozenset[str]] = frozenset({"input"})

    def __init__(self, raw: dict[str, Any]) -> None:
        super().__init__(raw.settle() if isinstance(raw, BlockBuilder) else raw)
        self.complete: bool = getattr(raw, "complete", True)

    @property
    def input_text(self) -> str:
        """The tool input's JSON text as received."""
        # Joined only on access: a caller that reads the block after each delta of 64 kB would copy 2 GB.
        return self.raw.input_text if isinstance(self.raw, BlockBuilder) else ""

    def __rich_repr__(self) -> Iterator[tuple[str, Any]]:
        yield from super().__rich_repr__()
        if not self.complete:
            yield "complete", False


class TextBlock(BaseBlock):
    """Text, with citations of documents or search results, if any."""

    citations: list[Citation] | None
    text: str
    type: Literal["text"]


class ParsedTextBlock(TextBlock, Generic[T], plain=TextBlock):
    """A text block of a `MessageStream` or of `messages.parse`. Equal to the plain text block with the same JSON."""

    def __init__(self, block: TextBlock, parsed: T | OutputFormatError | None = None) -> None:
        super().__init__(block.raw)
        self._parsed = parsed

    @property
    def parsed_output(self) -> T | None:
        """The text as a value of the `output_format`; None without a format, or before the block is complete.

        Raises `OutputFormatError` if the text does not fit.
        """
        if isinstance(self._parsed, OutputFormatError):
            raise self._parsed
        return self._parsed

    def __rich_repr__(self) -> Iterator[tuple[str, Any]]:
        yield from super().__rich_repr__()
        yield "parsed_output", self._parsed


class ThinkingBlock(BaseBlock):
    """The model's thinking. It may be sent back only unchanged and with its signature."""

    signature: str | None
    thinking: str
    type: Literal["thinking"]


class RedactedThinkingBlock(BaseBlock):
    """Thinking that only the API can read."""

    data: str
    type: Literal["redacted_thinking"]


class BaseToolUse(BaseBlock):
    """The base of tool calls. `input` is the parsed JSON object. In a truncated call it is a best-effort parse: check
    `complete`."""

    id: str
    caller: Any | None
    input: Any
    name: str


class ToolUseBlock(BaseToolUse):
    """A call of one of the caller's tools."""

    type: Literal["tool_use"]
    toolset_name: str | None


class ServerToolUseBlock(BaseToolUse):
    """A call of a tool that Anthropic runs (web search, code execution …)."""

    type: Literal["server_tool_use"]


class MCPToolUseBlock(BaseToolUse):
    """A call of a tool of an MCP server that the API connects to."""

    server_name: str
    type: Literal["mcp_tool_use"]


class ToolResultBlock(BaseBlock):
    """The result of a tool that Anthropic or an MCP server ran. It is never streamed in pieces. `content` varies with the
    type."""

    caller: Any | None
    content: Any
    is_error: bool
    tool_use_id: str
    type: Literal[
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "mcp_tool_result",
        "advisor_tool_result",
    ]


class MCPToolListingBlock(BaseBlock):
    """The tools that an MCP server listed."""

    mcp_server_name: str
    tools: Any
    type: Literal["mcp_tool_listing"]


class ContainerUploadBlock(BaseBlock):
    """A file that a tool created."""

    file_id: str
    type: Literal["container_upload"]


class CompactionBlock(BaseBlock):
    """A summary that replaces an older part of the conversation."""

    content: str | None
    encrypted_content: str | None
    type: Literal["compaction"]
    signature: Any
    tool_changes: Any


class FallbackBlock(BaseBlock):
    """Another model answers from here on."""

    to: Any
    trigger: Any
    type: Literal["fallback"]


class UnknownBlock(BaseBlock, OpenLens):
    """A block of an unknown type."""

    type: Literal[""]  # for a type checker: none of those above


_ToolBlock: TypeAlias = ToolUseBlock | ServerToolUseBlock | MCPToolUseBlock | ToolResultBlock | MCPToolListingBlock
_PassiveBlock: TypeAlias = ContainerUploadBlock | CompactionBlock | FallbackBlock | UnknownBlock
_OtherBlock: TypeAlias = ThinkingBlock | RedactedThinkingBlock | _ToolBlock | _PassiveBlock

Block: TypeAlias = TextBlock | _OtherBlock
"""A content block."""

ParsedContentBlock: TypeAlias = ParsedTextBlock[T] | _OtherBlock
"""A content block of a `ParsedMessage`."""

_BLOCKS: Mapping[str, type[Block]] = by_type(Block)
KNOWN_BLOCK_TYPES = frozenset(_BLOCKS)


def look_at_block(raw: dict[str, Any]) -> Block:
    """An instance of the class for `raw["type"]`. For a block that was streamed, `raw` is its `BlockBuilder`."""
    return _BLOCKS.get(str(raw.get("type")), UnknownBlock)(raw)


# --- A block under construction ----------------------------------------------------------------------------------------


# For each growing field of a block: the type of its deltas, and the field of the delta that holds the next fragment.
_FRAGMENTS: Mapping[str | None, tuple[str, str]] = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "input": ("input_json_delta", "partial_json"),
}


class BlockBuilder(dict[str, Any]):
    """The JSON of a content block under construction. Additions to the field that grows (text, thinking, a tool's input) are in
    `fragments`, and joined when it is read, so that n deltas take linear time. A tool's input is parsed once, strictly, when
    its block ends, and before that only if it is read.

    `field` is the field that grows: "text", "thinking" or "input", or None. `index` is the block's index in the
    stream. Raises `EventDataError` if the growing field has a value of the wrong type.
    """

    # Each delta reads these: without slots it takes a third longer.
    __slots__ = ("__dict__", "complete", "delta_field", "delta_type", "field", "fragments", "half", "index", "length")

    def __init__(self, raw: dict[str, Any], index: int = 0, *, complete: bool = False) -> None:
        super().__init__(raw)  # a copy of everything that changes: the event stays as received
        if isinstance(self.get("citations"), list):
            self["citations"] = [*self["citations"]]
        self.index = index
        self.complete = complete
        self.field = _growing_field(self)
        self.delta_type, self.delta_field = _FRAGMENTS.get(self.field, ("", ""))
        self.fragments: list[str] = []
        self.half = ""  # half a surrogate pair, until the next fragment brings the other half
        start = self[self.field] if self.field else None
        if isinstance(start, str) and not complete:
            start = self[self.field or ""] = self._without_half(start)
        self.length = len(start) if isinstance(start, str) else 0
        self._reader: PartialJSON | None = None
        self._unread = 0  # index of the first fragment of input that the reader has not seen

    def grow(self, text: str) -> str:
        """Add the next fragment of the growing field. Returns the text that was added: half a surrogate pair is held back
        until the other half arrives."""
        self.complete = False  # the block may have been closed before, in an order that only a lenient builder accepts
        if self.half or not text.isascii():
            text = self._without_half(text)
        self.fragments.append(text)
        self.length += len(text)
        return text

    def _without_half(self, text: str) -> str:
        """Prepend the pending half of a surrogate pair, and hold back a half at the end."""
        text, self.half = self.half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self.half = text[:-1], text[-1]
        return well_formed(text)

    def change(self, delta: dict[str, Any]) -> bool:
        """Apply a delta that has a whole value; False if it does not fit the block. Raises `EventDataError`."""
        match delta.get("type"), self.get("type"):
            case "citations_delta", "text":
                citation = required(delta, "citation", dict, "an object")
                if self.get("citations") is None:
                    self["citations"] = []
                required(self, "citations", list, "a list").append(citation)
            case "signature_delta", "thinking":
                self["signature"] = required(delta, "signature", str, "a string")
            case "compaction_delta", "compaction":
                self.update({name: delta[name] for name in ("content", "encrypted_content") if name in delta})
            case _:
                return False
        return True

    @property
    def input_text(self) -> str:
        """The JSON text of the tool's input as received; joined on access."""
        return "".join(self.fragments) if self.field == "input" else ""

    def settle(self) -> dict[str, Any]:
        """Bring the JSON up to date, and return it. Text is joined; an unfinished input is parsed as far as it has arrived."""
        if self.field == "input" and not self.complete:
            # The parser is created when an unfinished input is first read; it then parses each fragment once.
            self._reader = self._reader or PartialJSON()
            unread, self._unread = self.fragments[self._unread :], len(self.fragments)
            with suppress(PartialJSONError):  # invalid JSON leaves the input as it was
                self._reader.feed("".join(unread))
            if self._reader.value is not None:
                self["input"] = self._reader.value
        elif self.field in ("text", "thinking") and self.fragments:
            self[self.field] += "".join(self.fragments)
            self.fragments.clear()
        return self

    def close(self, *, is_stopped: bool = True) -> str | None:
        """End the block. A tool's input is parsed, strictly and once; it is complete if it is a JSON object.

        Without a `content_block_stop` (`is_stopped`) nothing else is complete: part of an object never parses. A pending half
        of a surrogate pair becomes U+FFFD, which is added and returned; otherwise returns None.
        """
        left, self.half = well_formed(self.half), ""
        if left:
            self.fragments.append(left)
            self.length += 1
        if self.field != "input":
            self.complete = is_stopped
        elif not any(self.fragments):  # a call without arguments may have none, or only empty ones
            self.complete = is_stopped and isinstance(self["input"], dict)
        else:
            with suppress(ValueError, RecursionError):  # an invalid input stays incomplete
                self["input"] = parse_json(self.input_text)
                self.complete = isinstance(self["input"], dict)
        return left or None


def required(raw: dict[str, Any], name: str, kind: type[T], words: str) -> T:
    """A field of a delta or a block. Raises `EventDataError` if it is not a `kind`; `words` describe that in the
    message."""
    value = raw.get(name)
    if not isinstance(value, kind):
        raise EventDataError(f"a {raw.get('type')} has no {name!r} that is {words}")
    return value


def _growing_field(raw: dict[str, Any]) -> str | None:
    """The name of the growing field. A missing or null one is initialized, as is an input that is "": gateways send
    these."""
    kind = str(raw.get("type"))
    if issubclass(_BLOCKS.get(kind, UnknownBlock), BaseToolUse):
        raw["input"] = raw.get("input") or {}
        return "input"
    if kind in ("text", "thinking"):
        value = raw[kind] = "" if raw.get(kind) is None else raw[kind]
        if not isinstance(value, str):
            raise EventDataError(f"a block of type {kind} has a {kind!r} that is not a string: {quote(repr(value))}")
        return kind
    # An unknown type: assume that a field of a suitable type grows.
    fields = (("input", dict), ("text", str), ("thinking", str))
    return next((name for name, wanted in fields if isinstance(raw.get(name), wanted)), None)


# --- The message -------------------------------------------------------------------------------------------------------


class Message(Lens):
    """An answer, as the API returns it without `stream` or as folded from its events. A lens over that JSON."""

    id: str
    container: Any | None
    content: list[Block]
    diagnostics: Any | None
    model: str
    role: Literal["assistant"]
    stop_details: RefusalStopDetails | None
    stop_reason: StopReason | None
    stop_sequence: str | None
    type: Literal["message"]
    usage: Usage
    context_management: Any
    input_transformations: Any

    FIELDS: ClassVar[Mapping[str, Any]] = {"content": look_at_block}

    def __init__(self, raw: dict[str, Any], *, request_id: str | None = None) -> None:
        super().__init__(raw)
        self.request_id = request_id

    @property
    def _request_id(self) -> str | None:
        """`request_id`, by the official SDK's name."""
        return self.request_id

    @property
    def text(self) -> str:
        """The text of all text blocks, concatenated."""
        return "".join(block.text for block in self.content if isinstance(block, TextBlock))

    def replayable(self) -> dict[str, Any] | None:
        """The message as a turn that the API accepts as history, even if it was truncated: `{"role", "content"}`.

        Content that the API would reject is left out (see `sendable`); None if nothing is left. Other blocks are
        unchanged, except for values that JSON cannot represent. Each remaining tool call needs a `tool_result` in the
        next turn.
        """
        content = [as_sent(block.raw) for block in sendable(self.content, self.stop_reason)]
        return {"role": "assistant", "content": content} if content else None


class ParsedMessage(Message, Generic[T], plain=Message):
    """A message of a `MessageStream` or of `messages.parse`. Equal to the plain message with the same JSON.

    `parsed` maps the index of a text block to its parsed value, or to the error.
    """

    if TYPE_CHECKING:
        content: list[ParsedContentBlock[T]]  # type: ignore[assignment]

    def __init__(self, message: Message, parsed: Mapping[int, T | OutputFormatError]) -> None:
        super().__init__(message.raw, request_id=message.request_id)
        self._parsed = parsed

    def _look(self, name: str, value: Any) -> Any:
        looked = super()._look(name, value)
        if name == "content" and isinstance(looked, list):
            for index, block in enumerate(looked):
                if isinstance(block, TextBlock):
                    looked[index] = ParsedTextBlock(block, self._parsed.get(index))
        return looked

    @property
    def parsed_output(self) -> T | None:
        """The first text that fits the `output_format`, parsed; None without text or without a format.

        Raises `OutputFormatError` if there is text but none fits. Its `partial` is the message.
        """
        parsed = [self._parsed[index] for index in sorted(self._parsed)]
        fitting = (value for value in parsed if not isinstance(value, OutputFormatError))
        value = next(fitting, parsed[0] if parsed else None)
        if isinstance(value, OutputFormatError):
            raise value
        return value


class MessageDeltaFields(Lens):
    """The fields of the message that a `message_delta` sets."""

    stop_reason: StopReason | None
    stop_sequence: str | None
    stop_details: RefusalStopDetails | None
    container: Any | None


# --- Sending it back -----------------------------------------------------------------------------------------------


def sendable(blocks: Sequence[Block], stop_reason: str | None, results: Collection[str] = ()) -> list[Block]:
    """The blocks of an answer that the API accepts as history. `results` are the ids of calls whose results are in
    later turns.

    Left out are blank text; thinking that is unsigned or at the end; incomplete tool calls; the work of a model that
    was replaced (`without_replaced`); and server tool calls without a result, with the calls that their code made. A
    missing result is accepted after `pause_turn`, after `tool_use` beside calls of the caller's tools, and where such a
    call was made by the server tool's code.
    """
    kept = [block for block in without_replaced(blocks) if is_sendable(block)]
    calls = [block for block in kept if isinstance(block, ToolUseBlock)]
    servers = [block for block in kept if isinstance(block, ServerToolUseBlock | MCPToolUseBlock)]
    gone = {id_of(block) for block in servers} - {*results, *map(result_of, kept), *map(caller_of, calls)}
    if stop_reason == "pause_turn" or (stop_reason == "tool_use" and calls):
        gone &= {id_of(block) for block in blocks[: _last_fallback(blocks)]}
    gone |= {id_of(block) for block in servers if caller_of(block) in gone}
    kept = [block for block in kept if gone.isdisjoint((id_of(block), result_of(block), caller_of(block)))]
    while kept and isinstance(kept[-1], ThinkingBlock | RedactedThinkingBlock):
        kept.pop()
    return [] if all(isinstance(block, FallbackBlock) for block in kept) else kept


def without_replaced(blocks: Sequence[Block]) -> list[Block]:
    """The blocks without the thinking and the calls of a model that a fallback replaced: the next model does not accept
    them (https://docs.anthropic.com/en/docs/build-with-claude/refusals-and-fallback)."""
    last = _last_fallback(blocks)
    return [block for block in blocks[:last] if block.get("type") not in _OF_ONE_MODEL] + [*blocks[last:]]


def _last_fallback(blocks: Sequence[Block]) -> int:
    """The index of the last fallback block; 0 if there is none."""
    return max((index for index, block in enumerate(blocks) if isinstance(block, FallbackBlock)), default=0)


_OF_ONE_MODEL = ("thinking", "redacted_thinking", "connector_text", "tool_use")


def is_sendable(block: Block) -> bool:
    """Whether the API would accept the block on its own. A tool call that it would reject must not be run."""
    match block:
        case TextBlock():
            # The API rejects even its own blank text: "messages: text content blocks must contain non-whitespace text".
            return bool(str(block.get("text") or "").strip())
        case ThinkingBlock():
            return bool(block.signature)
        case BaseToolUse():
            return block.complete and is_json_object(block.get("input"))
        case CompactionBlock():
            return block.complete and block.content != ""
    return block.complete


# As strings: an id on the wire may be any JSON value, even an unhashable one.
def id_of(block: Block) -> str:
    """The id of a tool call; empty for other blocks."""
    return str(block.get("id")) if isinstance(block, BaseToolUse) else ""


def result_of(block: Block) -> str:
    """The id of the call that the block is the result of; empty for other blocks."""
    return str(block.get("tool_use_id", ""))


def caller_of(block: Block) -> str:
    """The id of the call whose code made this call or received this result; empty if the model did."""
    return str(object_at(block.raw, "caller").get("tool_id", ""))
