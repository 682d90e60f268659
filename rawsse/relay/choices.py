"""The choices of a request: the operator decides about system prompt, models and `max_tokens`, and a request chooses within.

    request = choose(request, {"model": …, "max_tokens": …}, (everyone, limits), is_browser=True)     # raises InvalidRequest

Browsers' requests, of all dialects but `messages`, are those of anybody who has opened the page: they may not set the system
prompt, nor name a model that is not on a list. Requests of `/v1/messages` come from programs, whose system prompt is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rawsse.errors import ConfigurationError
from rawsse.messages.lens import object_at
from rawsse.relay.dialects import InvalidRequest
from rawsse.relay.users import MAX_LIMIT, UserLimits


def models_of(limits: Sequence[UserLimits]) -> list[str] | None:
    """The models that are on every list, in the order of the first; None without any list: then all may be named."""
    lists = [limit.models for limit in limits if limit.models is not None]
    return [name for name in lists[0] if all(name in names for names in lists)] if lists else None


def choose(
    request: Mapping[str, Any], defaults: Mapping[str, Any], limits: Sequence[UserLimits], *, is_browser: bool
) -> dict[str, Any]:
    """The request, with what it leaves to the relay. Raises `InvalidRequest`, which names the field that it may not choose.

    `limits` are all that hold for it, the relay's and the user's: it may name the models that are on all their lists, and
    exceed none of their `max_tokens`. `defaults` are the relay's `model` and `max_tokens`, for a request that names none, and
    its `system`. A browser's request has that one, may not exceed that `max_tokens`, and without any list may name no other
    model.
    """
    if is_browser:
        _check_system(request)
        alone = (defaults["model"],) if models_of(limits) is None else None
        limits = (*limits, UserLimits(models=alone, max_tokens=defaults["max_tokens"]))
    models, cap = models_of(limits), min((limit.max_tokens or MAX_LIMIT for limit in limits), default=MAX_LIMIT)
    chosen = {name: value for name, value in defaults.items() if is_browser or name != "system"}
    if models is not None and chosen["model"] not in models:
        chosen["model"] = next(iter(models), None)
    if "max_tokens" in chosen:
        chosen["max_tokens"] = min(chosen["max_tokens"], cap)
    chosen |= request
    for place, part in _parts(chosen) if models is not None or cap < MAX_LIMIT else ():
        if models is not None and "model" in part and part["model"] not in models:
            words = f"must be one of {', '.join(models)}" if models else "none is allowed"
            raise InvalidRequest(f"{place}model", words)
        if not isinstance(asked := part.get("max_tokens") or 0, int) or asked > cap:
            raise InvalidRequest(f"{place}max_tokens", f"must be a whole number, at most {cap}")
    if models is not None and isinstance(chosen.get("fallbacks"), str):
        raise InvalidRequest("fallbacks", "must be a list that names the models")
    return chosen


def changed_request(given: object) -> dict[str, Any]:
    """The request that the embedder has given in place of another. Raises `ConfigurationError` for what is not a whole one."""
    kinds = {"model": str, "max_tokens": int, "messages": list}
    if not isinstance(given, dict):
        raise ConfigurationError(f"on_request must give None or a whole request, not {type(given).__name__}")
    if wrong := [name for name, kind in kinds.items() if not isinstance(given.get(name), kind)]:
        raise ConfigurationError(f"on_request gave a request without a usable {' and '.join(wrong)}")
    return given


def _check_system(request: Mapping[str, Any]) -> None:
    if "system" in request:
        raise InvalidRequest("system", "is set by the relay")
    for index, message in _objects(request["messages"]):
        if message.get("role") == "system":
            raise InvalidRequest(f"messages.{index}.role", "must be user or assistant")


def _parts(request: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, object) of all that may name a model: the request, its fallbacks and tools, and tools that a message adds."""
    yield "", request
    for name in ("fallbacks", "tools"):
        yield from ((f"{name}.{index}.", item) for index, item in _objects(request.get(name)))
    for index, message in _objects(request.get("messages")):
        for number, block in _objects(message.get("content")):
            for _, change in [(0, block), *_objects(block.get("tool_changes"))]:
                yield f"messages.{index}.content.{number}.", object_at(object_at(change, "tool"), "definition")


def _objects(items: object) -> list[tuple[int, dict[str, Any]]]:
    """The objects in a list, with their places."""
    return [(n, item) for n, item in enumerate(items) if isinstance(item, dict)] if isinstance(items, list) else []
