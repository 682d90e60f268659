"""Where a relay begins and finds its runs: in this process alone, or together with the nodes that share a store.

The routes do the same in both cases: `home.begin`, `find`, `stop` and so on. Alone, nothing waits for anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from rawsse.relay.dialects import Answer, Dialect, Failure
from rawsse.relay.feed import Feed
from rawsse.relay.node import STOPPED, Node, unavailable
from rawsse.relay.quotas import Quotas
from rawsse.relay.record import RunStart
from rawsse.relay.runs import OpenSource, Run, Runs
from rawsse.relay.store import Store
from rawsse.relay.users import User


class Home:
    """The runs and quotas of this process; with `store`, those of all nodes that share it. Then every function may raise
    `Answer`, 503: the store cannot be reached."""

    def __init__(self, runs: Runs, quotas: Quotas, store: Store | None = None) -> None:
        self.runs = runs
        self.quotas = quotas
        self.node = Node(store, runs) if store is not None else None

    async def start(self) -> None:
        """Join the other nodes; without the store the first request tries again."""
        with contextlib.suppress(Answer):
            if self.node is not None:
                await self.node.start()

    async def aclose(self, failure: Failure) -> None:
        """End every run with this in its last frame, and wait until all have ended."""
        await self.runs.aclose(failure, self.node.aclose if self.node is not None else None)

    async def begin(
        self, dialect: Dialect, open_source: OpenSource, user: User | None, /, **names: Any
    ) -> tuple[Feed, dict[str, str]]:
        """A new run, or the one that has its id; and header fields that say what is left of the limits. `names` are those of
        `Runs.begin`. Raises `Answer`: 409, the id is that of another request; 429; 503."""
        run: Feed | None
        is_messages = not dialect.is_resumable
        if self.node is not None:
            run, acquired = await self.node.begin(dialect, open_source, self.quotas.terms(user), **names)
            if acquired.known is None:
                fields = self.quotas.told(user, acquired, is_messages=is_messages, is_run=True)
                assert run is not None  # noqa: S101 - else the limits refuse it, and the line above raises
                return run, fields
        elif (run := self.runs.get(names["user"], names["id"] or "")) is None:
            fields = self.quotas.admit(user, self.runs.clock(), is_messages=is_messages)
            try:
                return self.runs.begin(dialect, open_source, **names), fields
            except BaseException:
                self.quotas.release(user)
                raise
        return checked(run, names["fingerprint"]), {}

    async def find(self, user: str, id: str, seen: Sequence[str] = ()) -> Feed | None:
        """The run of that user with that id, for a client that has seen frames with these ids."""
        return self.runs.get(user, id) if self.node is None else await self.node.find(user, id, seen)

    async def find_chat(self, user: str, chat: str) -> Feed | None:
        """The newest run of that user in that chat."""
        run = self.runs.by_alias(user, chat)
        return run if run is not None or self.node is None else await self.node.find_alias(user, chat)

    async def open_runs(self, user: str | None) -> dict[RunStart, int]:
        """The runs of a user, or of all, that have not ended, each with the number of its readers: 0 for a run on another node,
        whose readers are not known."""
        everywhere = await self.node.open_runs(user) if self.node is not None else ()
        return dict.fromkeys(everywhere, 0) | {run.start: run.readers for run in self.runs.open(user)}

    async def stop(self, run: Feed) -> None:
        """Stop a run, and return when its last frame is there."""
        if isinstance(run, Run):
            run.stop(STOPPED)
        if self.node is not None and not await self.node.stopped(run):
            raise unavailable("the run did not end in time")

    async def stop_all(self, user: str | None) -> int:
        """Stop the open runs of a user, or of all. How many these are."""
        runs = self.runs.open(user)
        for run in runs:
            run.stop(STOPPED)
        return len(runs) + (await self.node.stop_all(user) if self.node is not None else 0)

    async def admit(self, user: User | None) -> dict[str, str]:
        """Count a request without a run; header fields as those of `begin`. Raises `Answer`: 429."""
        if self.node is None:
            return self.quotas.admit(user, self.runs.clock(), is_messages=True, is_run=False)
        acquired = await self.node.admit(self.quotas.terms(user), counts=True)
        return self.quotas.told(user, acquired, is_messages=True, is_run=False)

    async def me(self, user: User | None) -> dict[str, Any]:
        """See `Quotas.me`."""
        acquired = await self.node.admit(self.quotas.terms(user), counts=False) if self.node is not None else None
        return self.quotas.me(user, self.runs.clock(), acquired)


def checked(run: Feed | None, fingerprint: str) -> Feed:
    """The run that has the id of a request, if it is its run. Raises `Answer`: 409."""
    if run is None or run.fingerprint != fingerprint:
        raise Answer(409, "conflict_error", "x-run-id: belongs to another request", field="x-run-id")
    return run
