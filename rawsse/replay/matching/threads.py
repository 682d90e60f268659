"""Message threads: the server keeps the conversation, and the client sends only what is new.

This file knows the `thread` field of a request, and which reply may be continued. It refuses to know where replies come from.

    threads = Threads()
    body = threads.opened({"thread": {"type": "continue", "previous_message_id": "msg_1"}, "messages": [new], …})
    body["messages"]                    # the whole history, and what is new; or a `Refusal`
    threads.keep("msg_2", body, reply["content"], continued="msg_1")

Beta `message-threads-2026-08-12`. `{"type": "create"}` starts a thread: the request is whole, and the id of its reply stands
for all of it from then on. `{"type": "continue", "previous_message_id": …}` goes on from there: the request has only the turns
that are new, and neither `system` nor `tools`, which the thread holds. A reply can be continued once. So ids must be unique,
and an answer that is played again needs another one: see `fresh_id`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from rawsse.errors import quote
from rawsse.replay.matching.reply import reply_in, with_reply_id
from rawsse.replay.recording import Recording

MAX_KEPT_REPLIES = 1000
"""How many replies `Threads` keeps. The oldest go first: who continues from one that is gone is told so, and sends it all."""

_HELD = ("system", "tools")

Body: TypeAlias = dict[str, Any]


class Refusal(NamedTuple):
    """Why a request cannot be part of a thread, as the API says it. Clients go by `error_code`; without one, they give up."""

    status: int
    type: str
    message: str
    error_code: str | None = None


class _Kept(NamedTuple):
    messages: list[Any]
    held: Body
    is_continued: bool = False


class Threads:
    """The replies that may be continued, and what led to them."""

    def __init__(self, *, max_kept_replies: int = MAX_KEPT_REPLIES) -> None:
        self._kept: dict[str, _Kept] = {}
        self._plays: dict[str, int] = {}
        self._max_kept_replies = max_kept_replies

    def opened(self, body: Body) -> Body | Refusal:
        """The request as it would have been without a thread: the whole history, and no `thread`."""
        whole = {name: value for name, value in body.items() if name != "thread"}
        previous = previous_id(body)
        if isinstance(previous, Refusal):
            return previous
        if previous is None:
            return whole
        if given := [name for name in _HELD if body.get(name) is not None]:
            return _wrong(f"{given[0]}: must not be given with thread.type 'continue': the thread holds it")
        if (kept := self._kept.get(previous)) is None:
            words = f"thread.previous_message_id: no thread is known for {quote(previous)}"
            return Refusal(404, "not_found_error", words, "thread_not_found")
        if kept.is_continued:
            words = f"thread.previous_message_id: {quote(previous)} has already been continued"
            return Refusal(400, "invalid_request_error", words, "thread_already_continued")
        return whole | kept.held | {"messages": kept.messages + body["messages"]}

    def keep(self, reply_id: str, body: Body, content: Any, *, continued: str | None = None) -> None:
        """Let `reply_id` be continued: the reply to `body`, which is whole. `continued` cannot be any more."""
        if continued is not None and (previous := self._kept.get(continued)) is not None:
            self._kept[continued] = previous._replace(messages=[], held={}, is_continued=True)
        messages = [*body["messages"], {"role": "assistant", "content": content}]
        self._kept[reply_id] = _Kept(messages, {name: body[name] for name in _HELD if name in body})
        while len(self._kept) > self._max_kept_replies:
            del self._kept[next(iter(self._kept))]

    def kept(self, recording: Recording, body: Body, whole: Body) -> Recording:
        """The recording that answers `body`, under an id of its own that can be continued. `whole` is the opened body.

        Without a whole reply nothing can be continued, and what was continued can be so again.
        """
        reply = reply_in(recording)
        if reply is None or not isinstance(reply.get("id"), str):
            return recording
        fresh = self.fresh_id(reply["id"])
        self.keep(fresh, whole, reply.get("content"), continued=body["thread"].get("previous_message_id"))
        return recording if fresh == reply["id"] else with_reply_id(recording, fresh)

    def fresh_id(self, reply_id: str) -> str:
        """The id to play a reply under: its own the first time, then `msg_1_2`, `msg_1_3` …"""
        self._plays[reply_id] = plays = self._plays.get(reply_id, 0) + 1
        return reply_id if plays == 1 else f"{reply_id}_{plays}"


def previous_id(body: Body) -> str | Refusal | None:
    """Which reply the request continues; None if it begins a thread."""
    thread = body["thread"]
    kind = thread.get("type") if isinstance(thread, dict) else None
    if kind == "create":
        return None
    if kind != "continue":
        return _wrong("thread.type: must be 'create' or 'continue'")
    previous = thread.get("previous_message_id")
    return previous if isinstance(previous, str) else _wrong("thread.previous_message_id: must be a string")


def _wrong(words: str) -> Refusal:
    return Refusal(400, "invalid_request_error", words)


def whole_requests(recordings: Sequence[Recording]) -> list[Any]:
    """What each recording answers, with the history that its thread held: the recorded bodies, in order.

    What a thread's earlier turns were is known if they were recorded, too, and come before; else the body stays as it is.
    """
    threads = Threads(max_kept_replies=len(recordings))
    return [_whole_request(recording, threads) for recording in recordings]


def _whole_request(recording: Recording, threads: Threads) -> Any:
    body = recording.request and recording.request.body
    if not isinstance(body, dict) or body.get("thread") is None or not isinstance(body.get("messages"), list):
        return body
    whole = threads.opened(body)
    if isinstance(whole, Refusal):
        return body
    reply = reply_in(recording)
    if reply is not None and isinstance(reply.get("id"), str):
        # Not marked as continued: whoever has recorded a test twice has two answers to the same question.
        threads.keep(reply["id"], whole, reply.get("content"))
    return whole
