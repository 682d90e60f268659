"""The official Python SDK's own examples: which of them run on `import rawsse as anthropic`, and what they are answered.

Knows the examples by name; their text is read where RAWSSE_SDK_EXAMPLES names the folder (`examples/` of the SDK's source
distribution). `EXAMPLES` is the table of those that run, `LEFT_OUT` that of those that do not, each with its reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from support.streams import STOP, Raw, block, end, input_delta, start, text_delta, tool_block

__all__ = ["EXAMPLES", "LEFT_OUT", "Example", "as_it_is", "asked", "json_as_values", "models_alike", "on_rawsse"]


def on_rawsse(program: str) -> str:
    """The program with its imports changed, and nothing else."""
    program = re.sub(r"^import anthropic$", "import rawsse as anthropic", program, flags=re.MULTILINE)
    return re.sub(r"^from anthropic(\.types(?:\.beta)?)? import", r"from rawsse\1 import", program, flags=re.MULTILINE)


# --- What is answered ------------------------------------------------------------------------------------------------


def _pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def _says(text: str) -> list[Raw]:
    """A whole answer of one text."""
    return [
        start(),
        *block(0, {"type": "text", "text": ""}, *(text_delta(0, piece) for piece in _pieces(text, 4))),
        end(),
        STOP,
    ]


def _calls(text: str, *calls: tuple[str, Raw]) -> list[Raw]:
    """A text, and calls of tools after it."""
    raws = [start(), *block(0, {"type": "text", "text": ""}, text_delta(0, text))]
    for index, (name, given) in enumerate(calls, start=1):
        tool = tool_block(id=f"toolu_{name}_{index}", name=name)
        raws += block(index, tool, *(input_delta(index, piece) for piece in ["", *_pieces(json.dumps(given), 7)]))
    return [*raws, end("tool_use"), STOP]


_ORDER = _says('{"product_name": "Green Tea", "price": 5.5, "quantity": 2}')
_WEATHER = _calls("I'll ask.", ("get_weather", {"location": "San Francisco, CA", "units": "f"}))


# --- How outputs are compared ----------------------------------------------------------------------------------------


def as_it_is(output: str) -> str:
    """To the byte."""
    return output


def json_as_values(output: str) -> list[Any]:
    """Text, with each JSON object in it read: order does not count, and a field that is null counts as left out."""
    parts: list[Any] = []
    while (found := re.search(r"^(.*: )?(?=\{$)", output, re.MULTILINE)) is not None:
        value, length = json.JSONDecoder(object_hook=_without_nulls).raw_decode(output[found.end() :])
        parts += [output[: found.end()], value]
        output = output[found.end() + length :]
    return [*parts, output]


def _without_nulls(value: Raw) -> Raw:
    return {name: item for name, item in value.items() if item is not None}


def models_alike(output: str) -> str:
    """Text, with the SDK's beta models under their plain names, and without the fields that are None."""
    plain = re.sub(r"\b(?:Parsed)?(?:Beta)?(?=[A-Z])(\w+)(?:\[~\w+\])?(?=\()", r"\1", output)
    return re.sub(r"(?<=\()\w+=None, |, \w+=None", "", plain)


def _untitled(schema: Any) -> Any:
    """A schema without titles. pydantic, which writes the SDK's schemas of functions, titles each parameter with its name."""
    if isinstance(schema, dict):
        return {name: _untitled(item) for name, item in schema.items() if (name, type(item)) != ("title", str)}
    return [_untitled(item) for item in schema] if isinstance(schema, list) else schema


def asked(bodies: Iterable[Any]) -> list[Any]:
    """What was asked, in the order in which it was.

    Three things of the SDK's own are not compared. Its tool runner asks for a thread that the server is to hold, and asks again
    without it when that is refused, as it is here. It titles parameters of tools. Our `create` asks for a stream.
    """
    unthreaded = [body for body in bodies if "thread" not in body]
    return [{name: _untitled(value) for name, value in body.items() if name != "stream"} for body in unthreaded]


# --- The table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """An example that runs. `answers` are fixtures or events, one for each of its requests; `typed` is what it is told at its
    prompts. `differs` says what of its output is not the same to the byte; `read` is the output as it is compared."""

    name: str
    answers: Sequence[str | list[Raw]]
    typed: str = ""
    differs: str = ""
    read: Callable[[str], Any] = as_it_is

    @property
    def id(self) -> str:
        """What a test calls it."""
        return f"{self.name}-{self.typed.strip()}" if self.typed else self.name


_BETA_JSON = "the SDK's beta models have more fields, printed as null; objects inside keep the order of the wire"
_SERVER_TOOLS_JSON = "`toolset_name` is shown as null for server tools too; objects inside keep the order of the wire"
_BETA_MODELS = "the SDK calls its beta models `BetaMessage` …, with more fields, printed as None"

EXAMPLES: Sequence[Example] = (
    # Streaming
    Example("messages_stream", ["plain"]),
    Example("thinking_stream", ["thinking"]),
    Example("tools_stream", ["tools"]),
    Example("web_search_stream", ["server-tools"], differs=_BETA_JSON, read=json_as_values),
    Example("structured_outputs_streaming", [_ORDER]),
    # Beyond them
    Example("messages", ["plain", "unicode"]),
    Example("thinking", ["thinking"]),
    Example("tools", ["tools", "plain"]),
    Example("web_search", ["server-tools"], differs=_SERVER_TOOLS_JSON, read=json_as_values),
    Example("structured_outputs", [_ORDER]),
    Example("images", ["plain"]),
    Example("tools_runner", [_WEATHER, _says("Sunny.")], differs=_BETA_MODELS, read=models_alike),
)

_OTHER_API = "calls an API of Anthropic that is none of ours"

LEFT_OUT: Mapping[str, str] = {
    "agents": f"{_OTHER_API}: agents",
    "agents_comprehensive": f"{_OTHER_API}: agents",
    "agents_with_files": f"{_OTHER_API}: agents, files",
    "azure": "signs in at another vendor's cloud",
    "batch_results": f"{_OTHER_API}: batches",
    "bedrock": "signs in at another vendor's cloud",
    "fallbacks": "the SDK's middleware, which asks another model after a refusal",
    "google_cloud": "signs in at another vendor's cloud",
    "managed-agents-observe-tool-calls": f"{_OTHER_API}: agents",
    "managed-agents-self-hosted-sandbox-worker": f"{_OTHER_API}: agents",
    "managed-agents-streaming-deltas-manual": f"{_OTHER_API}: agents",
    "managed-agents-worker-dispatch": f"{_OTHER_API}: agents",
    "mcp_tool_runner": "needs the package of the Model Context Protocol, and a server that speaks it",
    "message_threads": "a beta in which the server keeps the conversation; ours send it whole",
    "tools_runner_deferred_streaming": "runs tools while the answer still arrives; ours wait until it is whole",
    "tools_runner_search_tool": "imports `anthropic.lib`, the inside of the SDK",
    "vertex": "signs in at another vendor's cloud",
    "workload_identity": "signs in with a credential of another vendor's cloud",
}
