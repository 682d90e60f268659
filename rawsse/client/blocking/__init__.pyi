# Generated from the async classes by tests/client/blocking/stub.py.

import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, Literal, Self, TypeVar, Unpack, overload

from rawsse.client.answer import Answer
from rawsse.client.exchange import Observer, Timing
from rawsse.client.network.connect import Connector, Network
from rawsse.client.network.pool import PoolLimits
from rawsse.client.network.route import Proxy
from rawsse.client.output import Outputs
from rawsse.client.resources import AskFields, CallOptions, CountFields, MessageFields, ModelInfo, TokenCount, Turns
from rawsse.client.retry import NotGiven, RateLimits, RetryPolicy, Timeouts
from rawsse.client.stream import Call, OpenResponse
from rawsse.client.tools.conversation import ConversationTurn, Question
from rawsse.client.tools.runner import TotalUsage
from rawsse.errors import Ending
from rawsse.http1 import Headers
from rawsse.messages.content import Message, ParsedMessage, ToolUseBlock
from rawsse.messages.events import ErrorEvent, MessageStreamEvent, StreamEvent

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
Item = TypeVar("Item")
T = TypeVar("T")

class BlockingEventStream:
    """The events that the API sent, typed, and no others: the result of `messages.create(stream=True)`."""

    @property
    def timing(self) -> Timing:
        """When the connection, the head, the first event, the first content and the last ping arrived, and the longest wait."""

    @property
    def response(self) -> OpenResponse:
        """The response's head. Raises `RuntimeError` before it has arrived."""

    @property
    def headers(self) -> Headers:
        """The response's header fields; names are case-insensitive."""

    @property
    def request_id(self) -> str | None:
        """The `request-id` of the response, for Anthropic's support."""

    @property
    def rate_limits(self) -> RateLimits:
        """The rate limits in the response's header."""

    @property
    def retries_taken(self) -> int:
        """How often the request was retried."""

    def __init__(self, call: Call[Answer]) -> None: ...
    @property
    def ending(self) -> Ending | None:
        """How the stream ended; None while it is open."""

    @property
    def error_event(self) -> ErrorEvent | None:
        """The `error` event that ended the stream, as received."""

    @property
    def current_message_snapshot(self) -> Message:
        """The message so far; it grows while the stream runs. Raises `RuntimeError` before `message_start`."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def __iter__(self) -> Self: ...
    def close(self) -> None:
        """End the stream and drop the connection. A task that waits for the stream gets `StreamCancelledError`."""

    def __next__(self) -> StreamEvent:
        """The next event. Raises `APIError` if the stream does not complete."""

class BlockingMessageStream:
    """The events that the API sent, except pings (see `timing`), plus the events derived from them, the text, and the message.

    A stream has one iterator: a second loop continues where the first one stopped. `outputs` parses the text."""

    @property
    def timing(self) -> Timing:
        """When the connection, the head, the first event, the first content and the last ping arrived, and the longest wait."""

    @property
    def response(self) -> OpenResponse:
        """The response's head. Raises `RuntimeError` before it has arrived."""

    @property
    def headers(self) -> Headers:
        """The response's header fields; names are case-insensitive."""

    @property
    def request_id(self) -> str | None:
        """The `request-id` of the response, for Anthropic's support."""

    @property
    def rate_limits(self) -> RateLimits:
        """The rate limits in the response's header."""

    @property
    def retries_taken(self) -> int:
        """How often the request was retried."""

    def __init__(self, call: Call[Answer], outputs: Outputs[Any] | None = None) -> None: ...
    @property
    def ending(self) -> Ending | None:
        """How the stream ended; None while it is open."""

    @property
    def error_event(self) -> ErrorEvent | None:
        """The `error` event that ended the stream, as received."""

    @property
    def current_message_snapshot(self) -> ParsedMessage[Any]:
        """The message so far; it grows while the stream runs. Raises `RuntimeError` before `message_start`."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def __iter__(self) -> Self: ...
    def close(self) -> None:
        """End the stream and drop the connection. A task that waits for the stream gets `StreamCancelledError`."""

    @property
    def text_stream(self) -> Iterator[str]:
        """The text of all text blocks, piece by piece. It shares the iterator of the stream."""

    def __next__(self) -> MessageStreamEvent:
        """The next event. Raises `APIError` if the stream does not complete."""

    def until_done(self) -> None:
        """Read the stream to its end. Raises `APIError` if it does not complete."""

    def get_final_message(self) -> ParsedMessage[Any]:
        """Read the stream to its end and return the whole message. Raises `APIError` if it does not complete."""

    def get_final_text(self) -> str:
        """Read the stream to its end and return the text of all text blocks. Raises `RuntimeError` if there is none."""

class BlockingToolRunner(Generic[Item]):
    """The tool loop: an iterator over the answers, as `Message`s or, with `stream`, as open `rawsse.client.blocking.BlockingMessageStream`s.

    `api` is `client.messages`. `tools` are `Tool`s, functions, and definitions without a function. After `max_turns` (or
    `max_iterations`) answers the loop stops; without it, more than `rawsse.client.tools.runner.MAX_TURNS` raise
    `TurnLimitError`. `fields` are other arguments of `client.messages.stream`; the `container` of an answer is used for the
    next request. `thread` and `run_tools_eagerly` are arguments of the official SDK; only False is supported.

    `stopped_by` says why the loop ended: the answer's stop reason ("end_turn", "max_tokens", "refusal" …), "max_turns",
    "tool without function", or "closed"; None while it runs, and after an error, whose `ending` says what happened. The table
    in `rawsse.client.blocking.BlockingConversation` compares all ends. Tools run only after the stop reason "tool_use".

    `max_seconds` bounds the whole loop, from its first request on: waits, answers that stream, running tools. The step that
    takes too long raises `TotalTimeoutError`, whose `seconds` are `max_seconds`; `messages` has the turns before it. A retry
    that would come later is not waited for: its cause is raised at once. Coroutine tools are cancelled and awaited; other
    functions keep running in their threads, and their results are dropped. So with `max_seconds` a function always runs in
    another thread, in the blocking client too. The loop's body is not interrupted. The five clocks (`timeouts`) run for each
    answer. Iterating again after `append_messages`, once the loop is over, starts `max_seconds` again."""

    stopped_by: str | None

    def __init__(
        self,
        api: Any,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any] | Message],
        tools: Iterable[Any] = ...,
        max_turns: int | None = None,
        max_iterations: int | None = None,
        max_seconds: float | None = None,
        stream: bool = False,
        thread: bool = False,
        run_tools_eagerly: bool = False,
        **fields: Any,
    ) -> None: ...
    @property
    def messages(self) -> list[dict[str, Any]]:
        """The history. It has only complete turns, so it can be sent with a new question at any time.

        If a "tool without function" stopped the loop, the last answer is not in it: append the answer and a user's turn
        with all results, and iterate again."""

    @property
    def last_message(self) -> Message | None:
        """The last answer, as far as it has arrived; None before the first."""

    @property
    def current_stream(self) -> BlockingMessageStream | None:
        """The stream of the current answer, or of the last one; None before the first."""

    @property
    def usage(self) -> TotalUsage:
        """The cost of all answers together; `usage.turns` has the cost of each.

        An answer is included once its stream has ended, complete or not, so an `except` block around a failed stream
        sees its cost. A request that the API rejected costs nothing."""

    @property
    def partial(self) -> Message | None:
        """The received part of an answer whose turn failed, once its stream has ended; None if the answer never began, and
        once the next turn begins."""

    @property
    def unanswered(self) -> list[ToolUseBlock]:
        """The calls of the last answer without a function here."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> Item:
        """The next answer. Raises `APIError` if the turn failed; the history is then as it was before it."""

    @overload
    def until_done(self: BlockingToolRunner[ParsedMessage[T]]) -> ParsedMessage[T]:
        """Run the loop to its end and return the last answer; with `output_format`, it has a `parsed_output`."""

    @overload
    def until_done(self) -> Message:
        """Run the loop to its end and return the last answer; with `output_format`, it has a `parsed_output`."""

    @property
    def text_stream(self) -> Iterator[str]:
        """The text of all answers, piece by piece. It shares the iterator of the runner."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None: ...
    def close(self) -> None:
        """End the loop, drop the current answer, and stop the running tools."""

    def append_messages(self, *messages: Mapping[str, Any] | Message) -> None:
        """Add messages to the history. In the loop's body they follow the answer and the results of its tools. But if one
        of them is an assistant's turn, the caller takes over the turn: the runner adds nothing to it and runs no tools.

        After the loop, iterating again continues with these messages."""

    def set_messages_params(self, params: Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Replace the arguments of the following requests (`model`, `messages`, `tools` …), or change them with a
        function that takes them and returns new ones. A missing field is no longer sent, except that missing
        `messages`, `tools` and `container` are kept."""

    def generate_tool_call_response(self) -> dict[str, Any] | None:
        """Run the tools of the last answer now, unless they have run, and return the user's turn with their results.

        None if the answer did not stop for tools, or no call in it has a function here. No call runs twice."""

class BlockingReply:
    """The streamed answer to one question: a tool loop that yields the events of all its answers.

    Events, `text_stream` and the final message share one iterator. Leaving the block adds the received part to the
    conversation. `stopped_by` says why the reply ended, as for `rawsse.client.blocking.BlockingToolRunner`; None while it runs, and "closed" if it was left
    before its end, or failed."""

    stopped_by: str | None

    def __init__(
        self, conversation: BlockingConversation, question: Any, replaced: ConversationTurn | None = None
    ) -> None: ...
    @property
    def messages(self) -> list[dict[str, Any]]:
        """The history. It has only complete turns, so it can be sent with a new question at any time.

        If a "tool without function" stopped the loop, the last answer is not in it: append the answer and a user's turn
        with all results, and iterate again."""

    @property
    def last_message(self) -> Message | None:
        """The last answer, as far as it has arrived; None before the first."""

    @property
    def current_stream(self) -> BlockingMessageStream | None:
        """The stream of the current answer, or of the last one; None before the first."""

    @property
    def usage(self) -> TotalUsage:
        """The cost of all answers together; `usage.turns` has the cost of each.

        An answer is included once its stream has ended, complete or not, so an `except` block around a failed stream
        sees its cost. A request that the API rejected costs nothing."""

    @property
    def partial(self) -> Message | None:
        """The received part of an answer whose turn failed, once its stream has ended; None if the answer never began, and
        once the next turn begins."""

    @property
    def unanswered(self) -> list[ToolUseBlock]:
        """The calls of the last answer without a function here."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> MessageStreamEvent:
        """The next event of all answers. Raises `APIError` if an answer does not complete."""

    def until_done(self) -> Message:
        """Run the loop to its end and return the last answer; with `output_format`, it has a `parsed_output`."""

    @property
    def text_stream(self) -> Iterator[str]:
        """The text of all answers, piece by piece. It shares the iterator of the runner."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None: ...
    def close(self) -> None:
        """End the loop, drop the current answer, and stop the running tools."""

    def append_messages(self, *messages: Mapping[str, Any] | Message) -> None:
        """Add messages to the history. In the loop's body they follow the answer and the results of its tools. But if one
        of them is an assistant's turn, the caller takes over the turn: the runner adds nothing to it and runs no tools.

        After the loop, iterating again continues with these messages."""

    def set_messages_params(self, params: Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Replace the arguments of the following requests (`model`, `messages`, `tools` …), or change them with a
        function that takes them and returns new ones. A missing field is no longer sent, except that missing
        `messages`, `tools` and `container` are kept."""

    def generate_tool_call_response(self) -> dict[str, Any] | None:
        """Run the tools of the last answer now, unless they have run, and return the user's turn with their results.

        None if the answer did not stop for tools, or no call in it has a function here. No call runs twice."""

    @property
    def stream(self) -> BlockingMessageStream:
        """The stream of the current answer, or of the last one: `request_id`, `timing`, `ending` …"""

    def get_final_message(self) -> Message:
        """Read the reply to its end and return the last answer. Raises `APIError` if an answer does not complete."""

    def get_final_text(self) -> str:
        """Read the reply to its end and return the text of the last answer."""

class BlockingConversation:
    """Questions and answers in turn, one at a time.

    `client` is a `Client`. `tools`, `max_turns` and `max_seconds` (of the tool loop, for each question) are those of
    `rawsse.client.blocking.BlockingToolRunner`, `messages` is a history to begin with, `fields` are other arguments of `client.messages.stream`. `cut_note`
    replaces `rawsse.client.tools.conversation.CUT_NOTE`; if it is empty, no note is added.

    `fields` are the arguments of the next request, and may be changed. `turns` are all questions and their results: each has
    `question`, `messages`, `state`, `stopped_by` and `usage`. How a turn ended, what the reader of the reply gets, and the
    turn's `stopped_by` and `state`:

        the model was done              the message          its stop reason           answered
        the model refused               the message          "refusal"                 refused
        max_turns, if given             the message          "max_turns"               answered
        a tool without function         the message          "tool without function"   answered
        20 answers without max_turns    TurnLimitError       the error                 stopped
        max_seconds, while tools ran    TotalTimeoutError    the error                 stopped
        a later request failed          an APIError          the error                 stopped
        an answer failed                an APIError          the error                 cut
        the first request failed        an APIError          the error                 cut
        … and a retry cannot help       an APIStatusError    the error                 refused
        the block was left early        nothing              "closed"                  cut, or stopped between answers
        the task was cancelled          CancelledError       "cancelled"               cut, or stopped while tools ran

    Each `APIError` of a turn has an `ending`. After a turn that failed, `messages` keeps:

        cut         the question, the received part of the answer if the API accepts it, and then `cut_note`. If nothing
                    arrived, only the question. The next question is added to this last user's turn
        stopped     the question, the complete turns of the tool loop, and a last answer without its calls
        refused     nothing: the same request would be rejected again, and the model would refuse later questions too

    `retry()` asks the last question again and replaces its result. Ctrl-C in a blocking client ends a turn as a cancelled task
    does, with `KeyboardInterrupt`.

    To save a conversation, write `json.dumps(conversation.messages)`; to continue it, give the loaded list as `messages`. If
    a user's turn is the last, its question has no whole answer: the next question is added to it. `retry()` knows only the
    questions that were asked since."""

    fields: dict[str, Any]
    turns: list[ConversationTurn]

    def __init__(
        self,
        client: Any,
        *,
        model: str,
        max_tokens: int,
        tools: Iterable[Any] | None = None,
        messages: Iterable[Mapping[str, Any] | Message] | None = None,
        max_turns: int | None = None,
        max_seconds: float | None = None,
        cut_note: str = ...,
        **fields: Any,
    ) -> None: ...
    @property
    def messages(self) -> list[dict[str, Any]]:
        """The history as JSON values, ready for `json.dumps`: valid as the beginning of a request. After a truncated answer its
        last message is a user's, with the note that tells the model."""

    @property
    def usage(self) -> TotalUsage:
        """The total cost, including answers that `retry` has replaced. `exact` is False if an answer was truncated."""

    def stream(self, question: Question) -> BlockingReply:
        """Ask, and stream the answer: `with conversation.stream(…) as reply`. Entering it sends
        the request, and raises `APIError` if that fails (401, 529 …): `reply` is then unbound, and `conversation.usage` has
        the cost.

        Leaving the block before the end of the answer truncates it. Raises `ConfigurationError` for an empty question."""

    def ask(self, question: Question) -> Message:
        """Ask, and get the whole answer; with tools, the last one. Raises `APIError`."""

    def retry(self) -> BlockingReply:
        """Ask the last question again. The new result replaces the turn, unless it is empty and the old one is not. Its
        `max_seconds` begin again, as for each question: a retry can succeed after a `TotalTimeoutError`.

        Raises `RuntimeError` if nothing has been asked, even if `messages` had a question without an answer."""

class BlockingRawResponse(Generic[T]):
    """A response and its answer. With `stream=True` the answer is a `rawsse.client.blocking.BlockingEventStream`, which the caller must read to its end or
    close; leaving the `with` block of the response closes it."""

    @property
    def timing(self) -> Timing:
        """When the connection, the head, the first event, the first content and the last ping arrived, and the longest wait."""

    @property
    def response(self) -> OpenResponse:
        """The response's head. Raises `RuntimeError` before it has arrived."""

    @property
    def headers(self) -> Headers:
        """The response's header fields; names are case-insensitive."""

    @property
    def request_id(self) -> str | None:
        """The `request-id` of the response, for Anthropic's support."""

    @property
    def rate_limits(self) -> RateLimits:
        """The rate limits in the response's header."""

    @property
    def retries_taken(self) -> int:
        """How often the request was retried."""
    parsed: T

    def __init__(self, client: Any, ask: Callable[[BlockingRawResponse[T]], Awaitable[T] | T]) -> None:
        """`ask` makes the call with this object in place of the client, and returns its result."""

    @property
    def status_code(self) -> int:
        """The status."""

    def parse(self) -> T:
        """The answer: a message, events, a count of tokens, a page."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...

class BlockingWithRawResponse:
    """The calls of a resource (`client.messages`, `client.models`), each returning a `rawsse.client.blocking.BlockingRawResponse`."""

    def __init__(self, resource: Any) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

class Page:
    """One page of a list. `for model in page` continues through all pages after it; `data` is only this page."""

    raw: dict[str, Any]

    def __init__(self, raw: dict[str, Any], rest: Page | None) -> None: ...
    def get(self, name: str, default: Any = None) -> Any:
        """The raw JSON value, or `default`."""

    def keys(self) -> list[str]:
        """The names of the fields in the JSON; `dict(lens)` needs this and `__getitem__`."""

    def to_dict(self) -> dict[str, Any]:
        """A deep copy of the JSON, with nothing added or left out."""

    def to_json(self, *, indent: int | None = 2, exclude_none: bool = False) -> str:
        """The JSON as text, with nothing added: indented by `indent` spaces, or compact; escaped only where necessary."""

    def model_dump(
        self,
        *,
        mode: str = "python",
        include: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        exclude_unset: bool = False,
        exclude_none: bool = False,
    ) -> dict[str, Any]:
        """A deep copy of the JSON in the order of the class, with the missing fields that allow None.

        `include` and `exclude` name fields of this object; nested ones raise `ConfigurationError`. `exclude_unset` and
        `exclude_none` also apply to nested objects of known classes. `mode` has no effect: every value is JSON."""

    def model_dump_json(self, *, indent: int | None = None, **options: Any) -> str:
        """The result of `model_dump` as text: compact, or indented by `indent` spaces. Numbers that are not finite become
        null (RFC 8259, 6)."""
    data: list[ModelInfo]
    first_id: str | None
    last_id: str | None
    has_more: bool | None

    def has_next_page(self) -> bool:
        """Whether there is a page after this one."""

    def get_next_page(self) -> Page:
        """The page after this one. Raises `APIError`; `RuntimeError` if there is none; `EventDataError` if that page leads back
        to an earlier one, so that the list would never end."""

    def __iter__(self) -> Iterator[ModelInfo]: ...

class Messages:
    """`client.messages`: the calls of the Messages API."""

    def __init__(self, client: Any) -> None: ...
    @property
    def with_raw_response(self) -> BlockingWithRawResponse:
        """The same calls, each returning a `rawsse.client.blocking.BlockingRawResponse`: the response together with its answer."""

    @property
    def with_streaming_response(self) -> BlockingWithRawResponse:
        """The same calls, each returning a `rawsse.client.blocking.BlockingRawResponse`: the response together with its answer."""

    def stream(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Turns,
        output_format: type[Any] | None = None,
        **fields: Unpack[MessageFields],
    ) -> BlockingMessageStream:
        """A stream of the answer. The request is sent by `with`, which raises `APIError` if it is refused.

        With `output_format`, text blocks and the message have a `parsed_output`. The caller must leave the `with` block,
        or `close()` the stream."""

    @overload
    def create(self, *, stream: Literal[False] = False, **fields: Unpack[AskFields]) -> Message:
        """The whole answer; with `stream=True`, its events. Arguments and errors as for `stream`.

        A whole answer is also streamed, and folded into a message: a long one needs no long timeout, and a truncated one is
        not lost. With `stream=True` the caller must read the events to their end, or close the stream."""

    @overload
    def create(self, *, stream: Literal[True], **fields: Unpack[AskFields]) -> BlockingEventStream:
        """The whole answer; with `stream=True`, its events. Arguments and errors as for `stream`.

        A whole answer is also streamed, and folded into a message: a long one needs no long timeout, and a truncated one is
        not lost. With `stream=True` the caller must read the events to their end, or close the stream."""

    @overload
    def create(self, *, stream: bool, **fields: Unpack[AskFields]) -> Message | BlockingEventStream:
        """The whole answer; with `stream=True`, its events. Arguments and errors as for `stream`.

        A whole answer is also streamed, and folded into a message: a long one needs no long timeout, and a truncated one is
        not lost. With `stream=True` the caller must read the events to their end, or close the stream."""

    def parse(
        self, *, model: str, max_tokens: int, messages: Turns, output_format: type[T], **fields: Unpack[MessageFields]
    ) -> ParsedMessage[T]:
        """The whole answer, whose `parsed_output` is a value of the type `output_format`. Arguments and errors as for `stream`.

        Raises `OutputFormatError` if the text does not fit. Its `partial` is the whole message, and its `ending.stop_reason`
        tells why: "max_tokens" cut the text, "refusal" stopped it, after "end_turn" the model wrote something else."""

    @overload
    def tool_runner(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Turns,
        output_format: type[T],
        stream: Literal[False] = False,
        **arguments: Any,
    ) -> BlockingToolRunner[ParsedMessage[T]]:
        """Ask, run the tools that the answer calls, send their results, and so on. Arguments as for `rawsse.client.blocking.BlockingToolRunner`."""

    @overload
    def tool_runner(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Turns,
        output_format: None = None,
        stream: Literal[False] = False,
        **arguments: Any,
    ) -> BlockingToolRunner[Message]:
        """Ask, run the tools that the answer calls, send their results, and so on. Arguments as for `rawsse.client.blocking.BlockingToolRunner`."""

    @overload
    def tool_runner(
        self, *, model: str, max_tokens: int, messages: Turns, stream: Literal[True], **arguments: Any
    ) -> BlockingToolRunner[BlockingMessageStream]:
        """Ask, run the tools that the answer calls, send their results, and so on. Arguments as for `rawsse.client.blocking.BlockingToolRunner`."""

    def events(
        self,
        body: Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        kind: type[Answer] = ...,
        **options: Unpack[CallOptions],
    ) -> BlockingEventStream:
        """The events of the answer to a request whose whole `body` is given: for programs that forward requests. As with
        `stream`, `with` sends the request. `kind` may be a class that keeps less than
        `rawsse.client.answer.Answer`."""

    def count_tokens(
        self, *, model: str, messages: Turns, output_format: type[Any] | None = None, **fields: Unpack[CountFields]
    ) -> TokenCount:
        """How many input tokens a request would have: an object with `input_tokens`. Raises `APIError`."""

class Models:
    """`client.models`: the available models."""

    def __init__(self, client: Any) -> None: ...
    @property
    def with_raw_response(self) -> BlockingWithRawResponse:
        """The same calls, each returning a `rawsse.client.blocking.BlockingRawResponse`: the response together with its answer."""

    @property
    def with_streaming_response(self) -> BlockingWithRawResponse:
        """The same calls, each returning a `rawsse.client.blocking.BlockingRawResponse`: the response together with its answer."""

    def list(
        self,
        *,
        limit: int | None = None,
        after_id: str | None = None,
        before_id: str | None = None,
        lifecycle: Sequence[str] | None = None,
        **options: Unpack[CallOptions],
    ) -> Page:
        """The models: `for model in client.models.list()` gives all of them, page by page; `client.models.list()`
        gives the first page.

        `limit` is the size of a page (1 to 1000). Raises `APIError`."""

    def retrieve(self, model_id: str, **options: Unpack[CallOptions]) -> ModelInfo:
        """One model. Raises `NotFoundError` for an unknown one, and other `APIError`s; `ConfigurationError` for an id that
        would change the path."""

class Beta:
    """`client.beta`: the same calls, for code written for the official SDK. `betas` turns beta features on."""

    messages: Messages
    models: Models

    def __init__(self, messages: Messages, models: Models) -> None: ...

class Client:
    """A client of the Messages API, or of a compatible server at `base_url` (whose path is kept).

    Arguments left out are read from the environment: `ANTHROPIC_API_KEY`, else `ANTHROPIC_AUTH_TOKEN`; `ANTHROPIC_BASE_URL`;
    `ANTHROPIC_CUSTOM_HEADERS` (lines `Name: value`; `default_headers` take precedence).

    Time: `timeouts` are the five clocks. `timeout`, as in the official SDK, is one number of seconds (`Timeouts.of`), or
    None for no timeout. `max_retries` is how often a transient failure is retried before content has arrived;
    `retry_policy` also sets the waits.

    The network: `limits` are the pool's. `proxy` is a URL; the default is taken from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`
    and `NO_PROXY`. `ssl_context` replaces the certificates in `SSL_CERT_FILE` and `SSL_CERT_DIR`, or else certifi's.
    `trust_env=False` ignores these variables. `connect` replaces the network and the proxies of the environment (in tests:
    `rawsse.replay.FakeNetwork`).

    `recorder` records the exchanges, or only the failed ones: see `rawsse.replay.Recorder`. Its files are complete when the
    client is closed.

    `strict=False` accepts streams with events in an invalid order, as some gateways send them. The `max_…_bytes` limit what
    a server may send. `now` (POSIX time) and `chance` (0 to 1) are for tests.

    Use it as `with Client() as client`, or call `close()`. One client is enough for a program: its connections are
    pooled.

    Any number of threads may use it. After a fork, the child opens new connections."""

    def __init__(
        self,
        *,
        api_key: str | None = None,
        auth_token: str | None = None,
        base_url: str | None = None,
        timeouts: Timeouts | None = None,
        timeout: float | Timeouts | NotGiven | None = ...,
        max_retries: int | None = None,
        retry_policy: RetryPolicy | None = None,
        default_headers: Mapping[str, str] | None = None,
        strict: bool = True,
        proxy: str | Proxy | None = None,
        trust_env: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        limits: PoolLimits | None = None,
        connect: Callable[[Network], Connector] | None = None,
        recorder: Observer | None = None,
        max_head_bytes: int = ...,
        max_event_bytes: int = ...,
        max_message_bytes: int = ...,
        max_json_bytes: int = ...,
        now: Callable[[], float] = ...,
        chance: Callable[[], float] = ...,
    ) -> None: ...
    @cached_property
    def messages(self) -> Messages:
        """The calls of the Messages API: `create`, `stream`, `parse`, `tool_runner`, `count_tokens` and `events`.
        `with_raw_response` and `with_streaming_response` have the same calls together with their responses.

        `help(client.messages)` lists the arguments of each, `python -m pydoc rawsse.client.resources` the common ones."""

    @cached_property
    def models(self) -> Models:
        """The available models: `list` and `retrieve`, also in `with_raw_response` and `with_streaming_response`.
        `help(client.models)` lists their arguments."""

    @cached_property
    def beta(self) -> Beta:
        """`beta.messages` and `beta.models` are `messages` and `models`, for code written for the official SDK."""

    @property
    def base_url(self) -> str:
        """The base URL of requests."""

    @property
    def has_credential(self) -> bool:
        """Whether the client has a key or a token."""

    def is_closed(self) -> bool:
        """Whether `close()` was called."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def close(self) -> None:
        """End every open stream, and drop every connection. A later call raises `RuntimeError`."""

    def with_options(
        self,
        *,
        api_key: str | None = None,
        auth_token: str | None = None,
        base_url: str | None = None,
        timeouts: Timeouts | None = None,
        timeout: float | Timeouts | NotGiven | None = ...,
        max_retries: int | None = None,
        retry_policy: RetryPolicy | None = None,
        default_headers: Mapping[str, str] | None = None,
        strict: bool | None = None,
    ) -> Self:
        """A copy of the client with some options changed; `default_headers` are added.

        It shares this client's connections: closing one closes the other."""

    def copy(
        self,
        *,
        api_key: str | None = None,
        auth_token: str | None = None,
        base_url: str | None = None,
        timeouts: Timeouts | None = None,
        timeout: float | Timeouts | NotGiven | None = ...,
        max_retries: int | None = None,
        retry_policy: RetryPolicy | None = None,
        default_headers: Mapping[str, str] | None = None,
        strict: bool | None = None,
    ) -> Self:
        """A copy of the client with some options changed; `default_headers` are added.

        It shares this client's connections: closing one closes the other."""

    def conversation(self, *, model: str, max_tokens: int, **options: Any) -> BlockingConversation:
        """A conversation whose history is always valid to send. Arguments as for `rawsse.client.blocking.BlockingConversation`."""
