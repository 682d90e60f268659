"""One call through the official SDK and the same call through rawsse, and what a program sees of each.

Both are driven by the very same code: the names are the SDK's. What is kept is plain JSON and words, so that two outcomes can
be compared field by field.

    async with Pair() as pair:
        sdk, ours = await pair.both(stream, script)       # each asks the same server for the same script
        assert ours.message == sdk.message
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

from support.answers import ASK, KEY, SSE_HEAD, chunked, plain
from support.clock import run
from support.fault_server import AskedOf, FaultServer, Script, Step
from support.streams import ANSWER, Raw, to_bytes

from rawsse.client.client import AsyncClient

__all__ = [
    "ERROR",
    "HALF",
    "SAID",
    "WHOLE",
    "Action",
    "Outcome",
    "Pair",
    "broken_off",
    "create",
    "differ",
    "differences",
    "events",
    "json_of",
    "names_of",
    "refused",
    "said",
    "sse",
    "stream",
    "text",
    "told",
]

WHOLE = to_bytes(ANSWER)
HALF = to_bytes(ANSWER[:4])
"""The answer up to and with its first text."""

ERROR: Raw = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_body"}

SAID = "message, end_turn"
"""The `summary` of a whole answer."""

# What a derived event says. Ours have the `index` of their block as well.
_DERIVED: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "snapshot"),
    "thinking": ("thinking", "snapshot"),
    "input_json": ("partial_json", "snapshot"),
    "citation": ("citation", "snapshot"),
    "signature": ("signature",),
    "compaction": ("content", "encrypted_content"),
}

# What the helper puts into an event of the wire; the SDK's leaves out what else the event had.
_WHOLE: Mapping[str, str] = {"content_block_stop": "content_block", "message_stop": "message"}


def json_of(value: Any) -> Any:
    """The JSON of an object of either library, without nulls: the SDK writes one for what the API left out."""
    if hasattr(value, "__pydantic_fields__"):
        value = value.to_dict(mode="json", warnings=False)  # it warns of every type that it does not know
    elif hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, dict):
        return {name: json_of(inner) for name, inner in value.items() if inner is not None}
    return [json_of(inner) for inner in value] if isinstance(value, list) else value


def told(event: Any) -> dict[str, Any]:
    """What an event of either library says, as JSON, at this moment."""
    if event.type in _DERIVED:
        return {"type": event.type, **{name: json_of(getattr(event, name)) for name in _DERIVED[event.type]}}
    said: dict[str, Any] = json_of(event)
    whole = _WHOLE.get(event.type, "")
    if getattr(event, whole, None) is None:
        return said
    kept = {name: value for name, value in said.items() if name in ("type", "index")}
    return {**kept, whole: json_of(getattr(event, whole))}


@dataclass
class Outcome:
    """What a program saw of one call."""

    events: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    message: Any = None
    request_id: str | None = None
    error: Exception | None = None
    requests: list[AskedOf] = field(default_factory=list)
    seconds: float = 0.0
    was_held: bool = False
    """It was over while the server still had the answer open."""

    @property
    def summary(self) -> str:
        """The class of the error, with its status if it has one; or the message's stop reason."""
        if self.error is None:
            return f"message, {self.message.get('stop_reason')}" if self.message else "nothing"
        return " ".join(
            [type(self.error).__name__, *map(str, filter(None, [getattr(self.error, "status_code", None)]))]
        )


Action: TypeAlias = Callable[[Any, Outcome, dict[str, Any]], Awaitable[None]]


async def stream(client: Any, outcome: Outcome, asked: dict[str, Any]) -> None:
    """`messages.stream`, event by event."""
    async with client.messages.stream(**asked) as stream:
        outcome.request_id = stream.request_id
        async for event in stream:
            said = told(event)
            outcome.events.append(said)
            if said["type"] == "text":
                outcome.texts.append(said["text"])
        outcome.message = json_of(await stream.get_final_message())


async def text(client: Any, outcome: Outcome, asked: dict[str, Any]) -> None:
    """`messages.stream`, its text only."""
    async with client.messages.stream(**asked) as stream:
        async for piece in stream.text_stream:
            outcome.texts.append(piece)
        outcome.message = json_of(await stream.get_final_message())


async def events(client: Any, outcome: Outcome, asked: dict[str, Any]) -> None:
    """`messages.create(stream=True)`."""
    async for event in await client.messages.create(stream=True, **asked):
        said = told(event)
        if said["type"] != "ping":  # the SDK keeps these to itself
            outcome.events.append(said)


async def create(client: Any, outcome: Outcome, asked: dict[str, Any]) -> None:
    """`messages.create`."""
    outcome.message = json_of(await client.messages.create(**asked))


class Pair:
    """The SDK and rawsse, both talking to the same scripted server. `options` are for both clients, `prefix`
    is the path of their base URL."""

    def __init__(self, *, prefix: str = "", **options: Any) -> None:
        self._prefix = prefix
        self._options = {"api_key": KEY, "max_retries": 0, "timeout": 5.0, **options}
        self._entered = AsyncExitStack()
        self.server = FaultServer()

    async def __aenter__(self) -> Self:
        import anthropic
        import httpx2

        enter = self._entered.enter_async_context
        await enter(self.server)
        options = {"base_url": self.server.base_url + self._prefix, **self._options}
        # Certificates take long to load, and nothing here has one.
        http = httpx2.AsyncClient(verify=False, follow_redirects=True, trust_env=False)
        self.sdk = await enter(anthropic.AsyncAnthropic(http_client=http, **options))
        self.ours = await enter(AsyncClient(trust_env=False, **options))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._entered.aclose()

    async def both(
        self, action: Action, *scripts: Script, beta: bool = False, strict: bool = True, **arguments: Any
    ) -> tuple[Outcome, Outcome]:
        """What came of the action with the SDK (its `beta` calls), and with rawsse (not `strict`)."""
        sdk = self.sdk.beta if beta else self.sdk
        ours = self.ours if strict else self.ours.with_options(strict=False)
        return await self.watch(sdk, action, *scripts, **arguments), await self.watch(
            ours, action, *scripts, **arguments
        )

    async def watch(self, client: Any, action: Action, *scripts: Script, **arguments: Any) -> Outcome:
        """What came of the action with one of them."""
        self.server.play(*scripts)
        outcome = Outcome()
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            await action(client, outcome, {**ASK, **arguments})
        except Exception as exc:
            outcome.error = exc
        outcome.seconds = clock() - began
        outcome.was_held = self.server.is_holding
        outcome.requests = self.server.requests
        return outcome


def differ(*scripts: Script, action: Action = stream, **options: Any) -> tuple[Outcome, Outcome]:
    """What comes of the action with the SDK and with rawsse, in virtual time, each with a client that has these options."""

    async def story() -> tuple[Outcome, Outcome]:
        async with Pair(**options) as pair:
            return await pair.both(action, *scripts)

    return run(story())


# --- Comparing -------------------------------------------------------------------------------------------------------

_SEEN = ("events", "texts", "message", "request_id")
_FACTS = ("status_code", "type", "request_id", "body", "error_code")


def differences(sdk: Outcome, ours: Outcome) -> dict[str, tuple[Any, Any]]:
    """What a program sees otherwise with rawsse than with the SDK, by name: (SDK, ours). The class of our error may be below
    that of the SDK's."""
    pairs = {name: (getattr(sdk, name), getattr(ours, name)) for name in _SEEN}
    pairs["requests"] = (len(sdk.requests), len(ours.requests))
    if type(sdk.error).__name__ not in names_of(ours.error):
        pairs["error"] = (sdk.error, ours.error)
    if hasattr(sdk.error, "status_code"):
        pairs |= {name: (getattr(sdk.error, name), getattr(ours.error, name, None)) for name in _FACTS}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def names_of(error: Exception | None) -> list[str]:
    """The names of the classes that the error is of."""
    return [cls.__name__ for cls in type(error).__mro__]


# --- Scripts ---------------------------------------------------------------------------------------------------------


def sse(*pieces: bytes) -> Script:
    """An event stream whose chunks these are."""
    return [SSE_HEAD + chunked(*pieces)]


def said(*raws: Raw) -> Script:
    """A stream of these events."""
    return sse(to_bytes(raws))


def broken_off(body: bytes, *after: Step) -> Script:
    """A stream whose end is missing, and what comes instead."""
    return [(SSE_HEAD + chunked(body)).removesuffix(b"0\r\n\r\n"), *after]


def refused(status: int, kind: str = "some_error", **fields: str) -> Script:
    """The API says no, as it does: in JSON."""
    body = {"type": "error", "error": {"type": kind, "message": "Not today."}}
    return [plain(json.dumps(body).encode(), f"{status} No", content_type="application/json", **fields)]
