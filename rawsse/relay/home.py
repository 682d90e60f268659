"""Where a relay begins and finds its runs: in this process alone, or together with the nodes that share a store.

Both do the same for the routes: `home.begin`, `find`, `stop` and so on. Alone, nothing waits for anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rawsse.relay.dialects import Answer, Asked, Failure
from rawsse.relay.feed import Feed
from rawsse.relay.quotas import Quotas
from rawsse.relay.record import RunStart
from rawsse.relay.runs import OpenSource, Run, Runs
from rawsse.relay.users import User

STOPPED = Failure(200, "cancelled", "stopped")


class Home:
    """The runs and quotas of one process."""

    def __init__(self, runs: Runs, quotas: Quotas) -> None:
        self.runs = runs
        self.quotas = quotas

    async def start(self) -> None:
        """Be ready for requests."""

    async def is_ready(self) -> bool:
        """A run can begin."""
        return not self.runs.is_draining

    async def drain(self, seconds: float) -> None:
        """Begin no more runs, and wait until those that have begun have ended: for `seconds` at most, or until `aclose`."""
        await self.runs.drain(seconds)

    async def aclose(self, failure: Failure) -> None:
        """End every run with this in its last frame, and wait until all have ended."""
        await self.runs.aclose(failure)

    async def begin(self, asked: Asked, open_source: OpenSource, user: User | None) -> tuple[Feed, dict[str, str]]:
        """A new run, or the one that has its id; and header fields that say what is left of the limits. Raises `Answer`: 409,
        the id is that of another request; 429; 503."""
        user_id = id_of(user)
        if (known := self.runs.get(user_id, asked.id)) is not None:
            return checked(known, asked.fingerprint), {}
        self.runs.check_room()  # first: what is refused for lack of room does not count
        fields = self.quotas.admit(user, self.runs.clock(), is_messages=not asked.dialect.is_resumable)
        return self.runs.begin(Run(asked, user_id, self.runs), open_source), fields

    async def find(self, user: str, id: str, seen: Sequence[str] = ()) -> Feed | None:
        """The run of that user with that id, for a client that has seen frames with these ids. None if there is no such run, or
        its clients cannot come back to it."""
        run = self.runs.get(user, id)
        return run if run is not None and run.is_resumable else None

    async def find_chat(self, user: str, chat: str) -> Feed | None:
        """The newest run of that user in that chat."""
        return self.runs.by_alias(user, chat)

    async def open_runs(self, user: str | None) -> dict[RunStart, int]:
        """The runs of a user, or of all, that have not ended, each with the number of its readers here, at this node."""
        return {run.start: run.readers for run in self.runs.open(user)}

    async def stop(self, run: Feed) -> None:
        """Stop a run, and return when its last frame is there."""
        if isinstance(run, Run):
            run.stop(STOPPED)

    async def stop_all(self, user: str | None) -> int:
        """Stop the open runs of a user, or of all. How many these are."""
        runs = self.runs.open(user)
        for run in runs:
            run.stop(STOPPED)
        return len(runs)

    async def admit(self, user: User | None) -> dict[str, str]:
        """Count a request without a run; header fields as those of `begin`. Raises `Answer`: 429."""
        return self.quotas.admit(user, self.runs.clock(), is_messages=True, is_run=False)

    async def me(self, user: User | None) -> dict[str, Any]:
        """See `Quotas.me`."""
        return self.quotas.me(user, self.runs.clock())


def id_of(user: User | None) -> str:
    """The id of a user; empty if the relay has no users."""
    return user.id if user is not None else ""


def checked(run: Feed | None, fingerprint: str) -> Feed:
    """The run that has the id of a request, if it is its run. Raises `Answer`: 409."""
    if run is None or run.fingerprint != fingerprint:
        raise Answer(409, "conflict_error", "x-run-id: belongs to another request", field="x-run-id")
    return run
