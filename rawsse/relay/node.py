"""One node of several, which share a store: it owns runs, reads those of others, and ends those of nodes that died.

    node = Node(runs, quotas, RedisStore("redis://127.0.0.1"))
    run, fields = await node.begin(asked, open_source, user)
    feed = await node.find("ada", "a-run-of-another-node")
    await node.aclose(failure)

Write, then send: a frame of a run goes to the readers when the store has it. So a run that is read on from another node goes
on where it was, whatever became of its owner. While one batch of writes is at the store, and a moment after it, the next one
gathers.

A node that does not renew its lease in time is dead: another node writes the last frame of its runs. A node that cannot
reach the store for so long ends its own runs, since others may have done so already.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from rawsse.errors import Ending
from rawsse.relay.dialects import Answer, Asked, Failure
from rawsse.relay.feed import Feed
from rawsse.relay.paths import RESUMABLE
from rawsse.relay.quotas import Quotas
from rawsse.relay.record import LEASE_LOST, NODE_LOST, RunRecord, RunStart, estimated_counts, log, record_of
from rawsse.relay.runs import STOPPED, USED_UP, Home, OpenSource, Runs, checked, id_of, unread
from rawsse.relay.store import Acquired, Limits, Store, StoredRun, StoreUnavailableError, Write
from rawsse.relay.stored_runs import CONTENT_BYTES, OwnedRun, RemoteRun, start_of
from rawsse.relay.users import User

T = TypeVar("T")

RETRY_SECONDS = 0.1
"""How long a node waits before it repeats a call that the store did not answer."""

LOOK_SECONDS = 0.02
"""How often a node checks whether a run that was stopped has ended."""

WRITE_PAUSE_SECONDS = 0.005
"""How long a node waits between two batches of writes: a batch costs about as much as ten of its frames. A
frame that comes later than that after the last batch does not wait."""

GATHER_SECONDS = 0.00005
"""For each run that is read from the store, how long a read waits before the next one: each read names them all."""

MAX_GATHER_SECONDS = 0.025

_FILLER = ": lost\n\n"
"""In the place of a frame that the store has lost: a reader that has seen it must not miss the error after it."""

_LOST = Failure(502, "api_error", "the answer was cut: its server was lost")
_SHUTDOWN = Failure(503, "shutdown", "the server is shutting down")
_ALONE = Failure(502, "api_error", "the answer was cut: its server cannot reach the others")


class Node(Home):
    """A home whose runs and quotas are those of all nodes that share `store`. The caller closes the store after it.

    Its functions raise `Answer`, 503, too: the store cannot be reached.
    """

    def __init__(self, runs: Runs, quotas: Quotas, store: Store) -> None:
        super().__init__(runs, quotas)
        self.id = secrets.token_hex(8)
        self._store = store
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._lease_until = 0.0  # by the event loop's clock
        self._owned: set[OwnedRun] = set()
        # Runs with frames to write, in their order, each with the write that the store has not confirmed.
        self._waiting: dict[OwnedRun, Write | None] = {}
        self._has_work = asyncio.Event()
        self._remote: WeakValueDictionary[str, RemoteRun] = WeakValueDictionary()  # by their tags, while they are used
        self._orphans: dict[str, _Orphan] = {}  # runs to be ended, by their tags
        self._dead: list[str] = []  # nodes whose runs are to be taken over
        self._may_help = asyncio.Event()

    async def start(self) -> None:
        """Join the other nodes; without the store the first request tries again."""
        with contextlib.suppress(Answer):
            await self._ask(self._join)

    async def _join(self) -> None:
        """Take the lease, and begin to work; any number of times."""
        if self._is_closed:
            raise unavailable("the server is shutting down")
        if self._tasks:
            return
        await self._renew_lease()
        if not (self._tasks or self._is_closed):
            for work in (self._hold_lease, self._write, self._read, self._help):
                self._spawn(self._repeat(work))

    async def _repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        """Repeat the work for ever, also if the store did not answer. A bug is logged, and the node goes on."""
        while True:
            try:
                await work()
            except Exception as exc:
                if isinstance(exc, StoreUnavailableError):
                    self._complain(exc)
                else:
                    log.exception("a node of the relay failed at its work, and goes on")
                await asyncio.sleep(RETRY_SECONDS)

    async def is_ready(self) -> bool:
        """See `Home.is_ready`."""
        with contextlib.suppress(Answer):
            await self.me(None)  # this asks the store; the lease may still be held after the store has gone
            return await super().is_ready() and self.has_lease
        return False

    async def aclose(self, failure: Failure) -> None:
        """See `Home.aclose`. It waits no longer than the lease."""
        await self.runs.aclose(failure, self._leave)

    async def _leave(self) -> None:
        """Write the last frames of the runs, which are over; then give up the lease."""
        self._is_closed = True
        for remote in list(self._remote.values()):
            remote.cut()
        while (self._owned or self.runs.beginning) and self._tasks:
            self.runs.has_left.clear()
            await self.runs.has_left.wait()
        if not self._tasks:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._tasks.clear()
        with contextlib.suppress(StoreUnavailableError):
            await self._end_orphans()
        for orphan in self._orphans.values():
            if orphan.record is not None:  # it began here, and without the store no other node has ended it
                self.runs.notify(orphan.record)
        with contextlib.suppress(StoreUnavailableError):  # then the others wait for the end of the lease
            await self._store.leave(self.id)

    async def _ask(self, ask: Callable[..., Awaitable[T]], *args: Any, **named: Any) -> T:
        """The answer of the store, after the node has joined. Raises `Answer`, 503, if there is none."""
        try:
            await self._join()
            return await ask(*args, **named)
        except StoreUnavailableError as exc:
            self._complain(exc)
            raise unavailable("the server cannot reach its store") from exc

    # Owning --------------------------------------------------------------------------------------------------------

    async def begin(self, asked: Asked, open_source: OpenSource, user: User | None) -> tuple[Feed, dict[str, str]]:
        """See `Home.begin`. The run that has the id may be one of another node."""
        await self._ask(self._join)
        self.runs.check_room()  # nothing waits from here on until the run is among those that `drain` waits for
        if not self.has_lease:  # the store would refuse it
            raise unavailable("the server cannot reach its store")
        run = OwnedRun(asked, id_of(user), self)
        acquired = await self._acquire(run.stored, self.quotas.terms(user))
        if acquired.known is not None:
            return checked(await self.find(*run.stored.key), run.fingerprint), {}
        fields = self.quotas.accept(user, acquired, is_messages=not run.is_resumable, is_run=True)
        try:
            self.runs.begin(run, open_source)
        except BaseException:
            self._orphans[run.tag] = _Orphan(run.stored, 0, failure=_SHUTDOWN if self.runs.is_closed else _LOST)
            raise
        self._owned.add(run)
        return run, fields

    async def _acquire(self, stored: StoredRun, limits: Sequence[Limits]) -> Acquired:
        self.runs.beginning.add(stored.tag)
        try:
            return await self._ask(self._store.acquire, stored, limits)
        except BaseException:  # it may have begun all the same, or begin a little later
            until = asyncio.get_running_loop().time() + self._store.lease_seconds
            self._orphans[stored.tag] = _Orphan(stored, 0, until)
            raise
        finally:
            self.runs.beginning.discard(stored.tag)
            self.runs.has_left.set()

    async def admit(self, user: User | None) -> dict[str, str]:
        """See `Home.admit`."""
        acquired = await self._ask(self._store.admit, self.quotas.terms(user))
        return self.quotas.accept(user, acquired, is_messages=True, is_run=False)

    async def me(self, user: User | None) -> dict[str, Any]:
        """See `Home.me`."""
        acquired = await self._ask(self._store.admit, self.quotas.terms(user), counts=False)
        return self.quotas.me(user, self.runs.clock(), acquired)

    def write_soon(self, run: OwnedRun) -> None:
        """The run has frames that are not written."""
        self._waiting.setdefault(run, None)
        self._has_work.set()

    def forget(self, run: OwnedRun) -> None:
        """The run has ended, or is lost."""
        self._waiting.pop(run, None)
        self._owned.discard(run)
        self.runs.has_left.set()

    def _lose(self, run: OwnedRun, failure: Failure, *, is_refused: bool = False) -> None:
        """See `OwnedRun.lose`. Its end is written as soon as the store can be used, unless another node has written it."""
        self.forget(run)
        record = run.lose(failure, is_refused=is_refused)
        self._orphans[run.tag] = _Orphan(run.stored, run.last_sent, record=record)

    async def _write(self) -> None:
        """Write one batch. Without an answer of the store, its writes are repeated in the next batch."""
        await self._has_work.wait()
        batch = {run: write or run.next_write() for run, write in self._waiting.items()}
        self._waiting.update(batch)
        done = await self._store.write([*batch.values()])
        for (run, write), is_done in zip(batch.items(), done, strict=True):
            if run not in self._waiting:
                continue  # it was lost in the meantime
            del self._waiting[run]
            if is_done:
                run.written(write)
            else:  # another node has it, or the store has lost some of its frames
                self._lose(run, _LOST, is_refused=True)
        if not self._waiting:
            self._has_work.clear()
        await asyncio.sleep(WRITE_PAUSE_SECONDS)

    # The lease -----------------------------------------------------------------------------------------------------

    @property
    def has_lease(self) -> bool:
        """No other node can have taken over the runs of this one."""
        return asyncio.get_running_loop().time() < self._lease_until

    async def _renew_lease(self) -> None:
        now = asyncio.get_running_loop().time()
        is_held, self._dead = await self._store.renew(self.id, self._store.lease_seconds)
        self._lease_until = now + self._store.lease_seconds if is_held else 0.0
        self._complain(None)

    async def _hold_lease(self) -> None:
        """Renew the lease each third of it, or as soon as the store can be used."""
        try:
            await self._renew_lease()
        except StoreUnavailableError as exc:
            self._complain(exc)
        if not self.has_lease:
            self._lapse()
        self._may_help.set()
        due = self._lease_until - self._store.lease_seconds * 2 / 3
        await asyncio.sleep(max(RETRY_SECONDS, due - asyncio.get_running_loop().time()))

    async def _help(self) -> None:
        """Do what other nodes have to do with, each time the lease was renewed. This may take longer than the lease."""
        await self._may_help.wait()
        self._may_help.clear()
        await self._touch([run for run in self._remote.values() if run.is_read])
        await self._stop_used_up()
        for dead in self._dead:
            # Each time under a new name: if the answer is lost, the runs are those of a node that will be dead soon.
            while taken := await self._store.take(secrets.token_hex(8), dead, self._store.lease_seconds):
                for run, last in taken:
                    known = self._orphans.get(run.tag, _Orphan(run, last))  # one that this node had itself
                    self._orphans[run.tag] = _Orphan(run, max(last, known.last), record=known.record)
                await self._end_orphans()
        await self._end_orphans()

    def stop_used_up(self) -> None:
        """See `Home.stop_used_up`. The store counts for all nodes, so it is asked first."""
        self._may_help.set()

    async def _stop_used_up(self) -> None:
        terms = self.quotas.ending_terms({run.start.user for run in self.runs.open()})
        counts = (await self._store.admit(terms, counts=False)).counts if terms else ()
        used_up = {each.user for each, count in zip(terms, counts, strict=True) if count.refuses(each, is_run=True)}
        for run in self.runs.open():
            if used_up & {run.start.user, ""}:
                run.stop(USED_UP)

    def _lapse(self) -> None:
        """The lease has expired, and others may take over the runs of this node. End them here, and continue as a new node."""
        self.id = secrets.token_hex(8)
        for run in list(self._owned):
            self._lose(run, _ALONE)
        for remote in list(self._remote.values()):
            remote.cut()

    def _complain(self, exc: StoreUnavailableError | None) -> None:
        """Log once that the store cannot be used, and once that it is back."""
        if (exc is None) == self.is_cut_off:
            self.is_cut_off = exc is not None
            log.warning("the store of the runs %s", "is back" if exc is None else f"cannot be used: {exc}")

    async def _end_orphans(self) -> None:
        """Write the ends of the orphans. Raises `StoreUnavailableError`: the others stay orphans."""
        now = asyncio.get_running_loop().time()
        for tag, orphan in list(self._orphans.items()):
            failure = STOPPED if orphan.run.is_stopped else orphan.failure
            record = orphan.record or _record_of(orphan.run, failure)
            is_mine, is_known = await self._end_orphan(orphan, failure, record.total_tokens)
            if is_mine or now >= orphan.until:
                del self._orphans[tag]
            if orphan.record is not None:  # it began here
                is_counted = is_known and not is_mine
                self.runs.notify(replace(record, error=LEASE_LOST) if is_counted else record)
            elif is_mine:
                self.runs.notify(start_of(orphan.run))
                self.runs.notify(record)

    async def _end_orphan(self, orphan: _Orphan, failure: Failure, tokens: int) -> tuple[bool, bool]:
        """Has this node written the end? Does the store know the run? Raises `StoreUnavailableError`."""
        run, before, last, lost = orphan.run, 0, orphan.last, 0
        if orphan.record is not None:  # this node had it, and the log may end before the last frame that was sent
            known = await self._store.find(*run.key)
            if known is None or (known.tag, known.epoch) != (run.tag, run.epoch):
                return False, known is not None and known.tag == run.tag
            if known.is_ended:  # with a write of this node that got no answer
                return True, True
            entries = await self._store.entries(run)
            before, kept = entries[-1].number if entries else 0, max([each.number for each in entries], default=0)
            last, lost = max(last, kept), last - kept
        kind = RESUMABLE.get(run.dialect)
        frames = kind().fail(failure) if kind is not None else []
        wire = "".join([_FILLER] * lost + frames).encode()
        keep_seconds = self.runs.limits.keep_seconds
        write = Write(run, before, last + max(1, len(frames)), wire, tokens=tokens, keep_seconds=keep_seconds)
        (is_mine,) = await self._store.write([write])
        return is_mine, True

    # Reading -------------------------------------------------------------------------------------------------------

    async def find(self, user: str, id: str, seen: Sequence[str] = ()) -> Feed | None:
        """See `Home.find`."""
        run = await super().find(user, id)
        if run is not None:
            places = [run.number_of(each) or 0 for each in seen] or [0]
            if run.keeps(min(places)) and max(places) <= run.last:
                return run
        # Another node owns the run. Or this one does, but the client has seen a frame elsewhere that this one does not yet know
        # to be written, or needs frames that only the store still has.
        return await self._open(await self._ask(self._store.find, user, id))

    async def find_chat(self, user: str, chat: str) -> Feed | None:
        """See `Home.find_chat`."""
        run = self.runs.by_alias(user, chat)
        return run or await self._open(await self._ask(self._store.find_alias, user, chat))

    async def _open(self, stored: StoredRun | None) -> RemoteRun | None:
        if stored is None or stored.dialect not in RESUMABLE:
            return None
        run = self._remote.get(stored.tag)
        if run is None or run.is_broken or run.stored.key != stored.key:
            run = self._remote[stored.tag] = RemoteRun(stored, self)
        run.receive(await self._ask(self._store.entries, stored, run.after))
        return run

    async def open_runs(self, user: str | None) -> dict[RunStart, int]:
        """See `Home.open_runs`. Those who read a run at another node are not counted."""
        stored, readers = await self._ask(self._store.open_runs, user), self.count_readers()
        return {start_of(run): readers[run.tag] for run in stored} | await super().open_runs(user)

    def count_readers(self) -> Counter[str]:
        """See `Home.count_readers`. Some may read a run of this node from the store."""
        return super().count_readers() + Counter({tag: run.readers for tag, run in self._remote.items()})

    async def stop(self, run: Feed) -> None:
        """See `Home.stop`."""
        await super().stop(run)
        if isinstance(run, OwnedRun | RemoteRun):
            await self._stop([run.stored])

    async def stop_all(self, user: str | None) -> int:
        """See `Home.stop_all`."""
        count = await super().stop_all(user)
        others = [run for run in await self._ask(self._store.open_runs, user) if run.owner != self.id]
        await self._stop(others)
        return count + len(others)

    async def _stop(self, runs: Sequence[StoredRun]) -> None:
        """Ask the owners of these runs to stop them, and wait until the store has their ends: as long as an owner may need, or
        another node to find out that the owner is dead."""
        for run in runs:
            await self._ask(self._store.stop, run)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._store.lease_seconds + self._store.block_seconds
        for run in runs:
            while (found := await self._ask(self._store.find, *run.key)) is not None and found.tag == run.tag:
                if found.is_ended:
                    break
                if loop.time() >= until:
                    raise unavailable("the run did not end in time")
                await asyncio.sleep(LOOK_SECONDS)

    def watch(self, run: RemoteRun) -> None:
        """See `Host.watch`."""
        self._spawn(self._touch([run]))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="rawsse node")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _touch(self, runs: Sequence[RemoteRun]) -> None:
        """Let their owners know that they are read here. Cut those that the store has lost: nothing more will come."""
        if runs:
            with contextlib.suppress(StoreUnavailableError):  # the read fails, too, and is repeated
                known = await self._store.touch(self.id, [run.stored for run in runs])
                for run, is_known in zip(runs, known, strict=True):
                    if not (is_known or run.is_finished):
                        run.cut()

    def abandon(self, run: OwnedRun, seconds: float) -> None:
        """Stop a run that had no readers here for so long, unless it had some at another node."""
        self._spawn(self._abandon(run, seconds))

    async def _abandon(self, run: OwnedRun, seconds: float) -> None:
        unread_seconds = 0.0
        with contextlib.suppress(StoreUnavailableError):
            unread_seconds = await self._store.unread_seconds(run.stored)
        if unread_seconds < seconds:
            run.wait_for_readers(unread_seconds)
        elif not run.readers:
            run.stop(unread(seconds))

    async def _read(self) -> None:
        wanted = {run.stored.key: run for run in self._remote.values() if run.is_read and not run.is_paused}
        after = {key: run.after for key, run in wanted.items()}
        entries, stopped = await self._store.read(self.id, after, self._store.block_seconds)
        for key, added in entries.items():
            wanted[key].receive(added)
        for key in stopped:
            if (mine := self.runs.get(*key)) is not None:
                mine.stop(STOPPED)
        await asyncio.sleep(min(len(wanted) * GATHER_SECONDS, MAX_GATHER_SECONDS))


class _Orphan(NamedTuple):
    """A run without an owner, and the number of its last frame. If the store does not have it, it may still appear `until`
    then."""

    run: StoredRun
    last: int
    until: float = 0.0
    failure: Failure = _LOST
    record: RunRecord | None = None
    """It was this node's. Its observers are notified of its end when it is known whether another node counts it, too."""


def unavailable(text: str) -> Answer:
    """The answer to a request that may be sent again soon."""
    return Answer(503, "overloaded_error", text, headers={"retry-after": "2"})


def _record_of(run: StoredRun, failure: Failure) -> RunRecord:
    """The record of a run whose node died. Its model, times and tokens are those that the store has: as they were when the node
    last wrote them. Since then a fifth of the content may have come, and 64 bytes (`UNCOUNTED_BYTES`)."""
    usage = json.loads(run.usage or "{}")
    ending = None if failure.type in ("cancelled", "shutdown") else Ending("truncated", failure.message, "content")
    more = {"seconds": usage.get("seconds", 0.0), "on_disconnect": None, "words": failure.message}
    changes: dict[str, Any] = {**estimated_counts(usage, usage.get(CONTENT_BYTES, 0)), "exact": False}
    changes |= {"error": NODE_LOST if ending else None, "first_token_seconds": usage.get("first_token_seconds")}
    if isinstance(usage.get("model"), str):
        changes["model"] = usage["model"]
    return replace(record_of(start_of(run), None, ending, failure, **more), **changes)
