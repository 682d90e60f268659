"""One node of several, which share a store: it owns runs, reads those of others, and ends those of nodes that died.

    node = Node(RedisStore("redis://127.0.0.1"), runs)
    run, acquired = await node.begin(dialect, open_source, limits, user="ada", model="claude-sonnet-4-5")
    feed = await node.find("ada", "a-run-of-another-node")
    await node.aclose()

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
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from rawsse.messages.content import token_counts
from rawsse.relay.dialects import Answer, Dialect, Failure
from rawsse.relay.feed import Feed, Reader
from rawsse.relay.record import RunRecord, RunStart, log
from rawsse.relay.runs import OpenSource, Runs, new_run_id
from rawsse.relay.store import Acquired, Limits, Store, StoredRun, StoreUnavailableError, Write
from rawsse.relay.stored_runs import DIALECTS, OwnedRun, RemoteRun, start_of

T = TypeVar("T")

RETRY_SECONDS = 0.1
"""How long a node waits before it asks the store again that did not answer."""

WRITE_PAUSE_SECONDS = 0.005
"""How long a node waits between two batches of writes: a batch costs about as much as ten of its frames. A
frame that comes later than that after the last batch does not wait."""

GATHER_SECONDS = 0.00005
"""For each run that is read from the store, how long a read waits before the next one: each read names them all."""

MAX_GATHER_SECONDS = 0.025

NODE_LOST = "node_lost"
"""The `error` of a run whose node died."""

_FILLER = ": lost\n\n"
"""In the place of a frame that the store has lost: a reader that has seen it must not miss the error after it."""

_LOST = Failure(502, "api_error", "the answer was cut: its relay was lost")
_SHUTDOWN = Failure(503, "shutdown", "the relay is shutting down")
_ALONE = Failure(502, "api_error", "the answer was cut: its relay cannot reach the others")
STOPPED = Failure(200, "cancelled", "stopped")


class Node:
    """A node. The caller closes it, and its store after it."""

    def __init__(self, store: Store, runs: Runs) -> None:
        self.id = secrets.token_hex(8)
        self._store = store
        self._runs = runs
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._is_cut_off = False  # the store cannot be used, and this has been logged
        self._lease_until = 0.0  # by the event loop's clock
        self._owned: set[OwnedRun] = set()
        self._beginning: set[str] = set()  # tags of runs for which the store is being asked
        self._waiting: dict[OwnedRun, None] = {}  # with frames that are not written yet, in their order
        self._has_work = asyncio.Event()
        self._remote: dict[tuple[str, str], set[RemoteRun]] = {}  # those that are read here
        self._orphans: dict[str, _Orphan] = {}  # runs to be ended, by their tags
        self._has_left = asyncio.Event()
        self._dead: list[str] = []  # nodes whose runs are to be taken over
        self._may_help = asyncio.Event()

    async def start(self) -> None:
        """Take the lease, and begin to work; any number of times. Raises `Answer`, 503, if the store cannot be reached."""
        if self._is_closed:
            raise unavailable("the relay is shutting down")
        if self._tasks:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        await self._ask(self._store.renew(self.id, self._store.lease_seconds))
        if not (self._tasks or self._is_closed):
            self._lease_until = now + self._store.lease_seconds
            work = {"lease": self._hold_lease, "writes": self._write, "reads": self._read, "others": self._help}
            self._tasks.update(loop.create_task(_repeat(do), name=f"rawsse node: {name}") for name, do in work.items())

    async def aclose(self) -> None:
        """Write the last frames of the runs, which must be over; then give up the lease. It waits no longer than the lease."""
        self._is_closed = True
        self._cut_remote()
        while (self._owned or self._beginning) and self._tasks:
            self._has_left.clear()
            await self._has_left.wait()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
            self._tasks.clear()
            await self._end_orphans()
            with contextlib.suppress(StoreUnavailableError):  # then the others wait for the end of the lease
                await self._store.leave(self.id)

    async def _ask(self, answer: Awaitable[T]) -> T:
        """The answer of the store. Raises `Answer`, 503, if there is none."""
        try:
            return await answer
        except StoreUnavailableError as exc:
            self._complain(exc)
            raise unavailable("the relay cannot reach its store") from exc

    # Owning --------------------------------------------------------------------------------------------------------

    async def begin(
        self,
        dialect: Dialect,
        open_source: OpenSource,
        limits: Sequence[Limits],
        *,
        user: str,
        model: str,
        id: str | None = None,
        alias: str | None = None,
        fingerprint: str = "",
    ) -> tuple[Feed | None, Acquired]:
        """A new run of this node; or the one that has this id, on whatever node; or None if the limits refuse it. Raises
        `Answer`, 503: see `Runs.check_room`; or the store cannot be reached."""
        self._runs.check_room()
        await self.start()
        who: dict[str, Any] = {"user": user, "id": id or new_run_id(), "model": model, "alias": alias or ""}
        began = self._runs.clock()
        tag = secrets.token_hex(4)
        stored = StoredRun(**who, tag=tag, dialect=dialect.name, time=began, fingerprint=fingerprint, owner=self.id)
        self._beginning.add(tag)
        try:
            acquired = await self._ask(self._store.acquire(stored, limits))
        except BaseException:  # it may have begun all the same, or begin a little later
            until = asyncio.get_running_loop().time() + self._store.lease_seconds
            self._orphans[tag] = _Orphan(stored, 0, until)
            raise
        finally:
            self._beginning.discard(tag)
            self._has_left.set()
        if acquired.known is not None:
            return await self.find(user, stored.id), acquired
        if acquired.is_refused:
            return None, acquired
        kind = partial(OwnedRun, node=self, stored=stored)
        try:
            names: dict[str, Any] = {"user": user, "id": stored.id, "model": model, "alias": alias, "time": began}
            names["fingerprint"] = fingerprint
            return self._runs.begin(dialect, open_source, **names, kind=kind), acquired
        except BaseException:
            self._orphans[tag] = _Orphan(stored, 0, failure=_SHUTDOWN if self._runs.is_closed else _LOST)
            raise

    async def admit(self, limits: Sequence[Limits], *, counts: bool) -> Acquired:
        """See `Store.admit`. Raises `Answer`, 503."""
        await self.start()
        return await self._ask(self._store.admit(limits, counts=counts))

    def owns(self, run: OwnedRun) -> None:
        """The run has begun."""
        self._owned.add(run)

    def write_soon(self, run: OwnedRun) -> None:
        """The run has frames that are not written."""
        self._waiting[run] = None
        self._has_work.set()

    def forget(self, run: OwnedRun) -> None:
        """The run has ended, or is lost."""
        self._waiting.pop(run, None)
        self._owned.discard(run)
        self._has_left.set()

    async def _write(self) -> None:
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            batch, self._waiting = list(self._waiting), {}
            writes = {run: run.next_write() for run in batch if run.record is None}
            if writes:
                done = await self._insist(partial(self._store.write, list(writes.values())))
                self._tell(list(writes), done or [False] * len(writes))
            # Those that were lost meanwhile have no record any more.
            if last := [run for run in batch if run not in writes and run.record is not None]:
                ends = [partial(self._store.finish, run.next_write(), run.tokens, run.keep_seconds) for run in last]
                self._tell(last, await asyncio.gather(*map(self._insist, ends)), is_last=True)
            await asyncio.sleep(WRITE_PAUSE_SECONDS)

    def _tell(self, runs: Sequence[OwnedRun], done: Sequence[bool | None], *, is_last: bool = False) -> None:
        for run, is_done in zip(runs, done, strict=True):
            try:
                if run not in self._owned:
                    pass  # it was lost in the meantime
                elif is_done:
                    run.written(is_last=is_last)
                else:  # another node has it, or the store has lost some of its frames: then it is ended there, too
                    self._orphans[run.tag] = _Orphan(run.stored, run.last_sent, is_lost=True)
                    run.lose(_LOST)
            except Exception:
                log.exception("a run failed when it was written")

    async def _insist(self, write: Callable[[], Awaitable[Any]]) -> Any:
        """Write until the store has answered, or the lease is over; then None. Writes may be repeated."""
        while True:
            try:
                return await write()
            except StoreUnavailableError as exc:
                self._complain(exc)
                if not self.has_lease:
                    self._lapse()
                    return None
                await asyncio.sleep(RETRY_SECONDS)

    # The lease -----------------------------------------------------------------------------------------------------

    @property
    def has_lease(self) -> bool:
        """No other node may have taken the runs of this one over."""
        return asyncio.get_running_loop().time() < self._lease_until

    async def _hold_lease(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            try:
                is_held, self._dead = await self._store.renew(self.id, self._store.lease_seconds)
                self._complain(None)
                if is_held:
                    self._lease_until = now + self._store.lease_seconds
                else:
                    self._lapse()
                    continue
            except StoreUnavailableError as exc:
                self._complain(exc)
                if not self.has_lease:
                    self._lapse()
            self._may_help.set()
            await asyncio.sleep(max(0.0, now + self._store.lease_seconds / 3 - loop.time()))

    async def _help(self) -> None:
        """Do what others need, each time the lease was renewed. It may take longer than the lease."""
        while True:
            await self._may_help.wait()
            self._may_help.clear()
            await self._touch(run for runs in self._remote.values() for run in runs)
            for node in self._dead:
                await self._take_over(node)
            await self._end_orphans()

    def _lapse(self) -> None:
        """Others may take the runs of this node over. It ends them here, and goes on as another node."""
        self.id = secrets.token_hex(8)
        for run in list(self._owned):
            run.lose(_ALONE)
        self._cut_remote()

    def _cut_remote(self) -> None:
        for remote in [run for runs in self._remote.values() for run in runs]:
            remote.cut()

    def _complain(self, exc: StoreUnavailableError | None) -> None:
        """Log that the store cannot be used, once, and that it can be again."""
        if (exc is None) == self._is_cut_off:
            self._is_cut_off = exc is not None
            log.warning(
                "the store of the runs is back" if exc is None else f"the store of the runs cannot be used: {exc}"
            )

    async def _take_over(self, dead: str) -> None:
        """Take the runs of a dead node over, as far as no other node does."""
        try:
            # Each time under a new name: if the answer is lost, the runs are those of a node that will be dead soon.
            while taken := await self._store.take(secrets.token_hex(8), dead, self._store.lease_seconds):
                self._orphans |= {each.run.tag: _Orphan(*each) for each in taken}
                await self._end_orphans()
        except StoreUnavailableError as exc:
            self._complain(exc)

    async def _end_orphans(self) -> None:
        now = asyncio.get_running_loop().time()
        for tag, (run, last, until, reason, is_lost) in list(self._orphans.items()):
            failure = STOPPED if run.is_stopped else reason
            kind = DIALECTS.get(run.dialect)
            frames = kind().fail(failure) if kind is not None else []
            record = _record_of(run, failure, self._runs.clock())
            number, before = last + max(1, len(frames)), 0
            try:
                if is_lost and (found := await self._store.entries(run)):
                    before = found[-1].number
                    frames = [_FILLER] * (last - before) + frames
                write = Write(run, before, number, "".join(frames).encode())
                is_mine = await self._store.finish(write, record.total_tokens, self._runs.limits.keep_seconds)
            except StoreUnavailableError:
                return  # they stay orphans
            if is_mine or now >= until:
                del self._orphans[tag]
            if is_mine and not is_lost:  # else its record has been told
                self._runs.tell(start_of(run))
                self._runs.tell(record)

    # Reading -------------------------------------------------------------------------------------------------------

    async def find(self, user: str, id: str, seen: Sequence[str] = ()) -> Feed | None:
        """The run of that user with that id, as a client can read it that has seen the frames with the ids `seen`. Raises
        `Answer`, 503."""
        run = self._runs.get(user, id)
        kept = range(run.first - 1, run.last + 1) if run is not None and run.is_resumable else ()  # a lost one is not
        if run is not None and all((run.number_of(each) or 0) in kept for each in seen or ("0",)):
            return run
        # It is the run of another node; or the client has seen a frame at one, of which this node does not know yet that it
        # is written; or has seen so little that this node has forgotten the rest, and the store has not.
        await self.start()
        return await self._open(await self._ask(self._store.find(user, id)))

    async def find_alias(self, user: str, alias: str) -> RemoteRun | None:
        """The newest run of that user with that alias. Raises `Answer`, 503."""
        await self.start()
        return await self._open(await self._ask(self._store.find_alias(user, alias)))

    async def _open(self, stored: StoredRun | None) -> RemoteRun | None:
        if stored is None or stored.dialect not in DIALECTS:
            return None
        known = self._remote.get(stored.key, ())
        run = next((run for run in known if run.tag == stored.tag), None) or RemoteRun(stored, self._runs, self)
        run.receive(await self._ask(self._store.entries(stored, run.after)))
        return run

    async def open_runs(self, user: str | None = None) -> list[RunStart]:
        """The open runs of one user, or of all, on all nodes. Raises `Answer`, 503."""
        return [start_of(run) for run in await self._open_runs(user)]

    async def _open_runs(self, user: str | None) -> list[StoredRun]:
        await self.start()
        return await self._ask(self._store.open_runs(user))

    async def stop_all(self, user: str | None) -> int:
        """Stop the open runs of one user, or of all, on the other nodes. How many these are. Raises `Answer`, 503."""
        runs = [run for run in await self._open_runs(user) if run.owner != self.id]
        for run in runs:
            await self._ask(self._store.stop(run))
        return len(runs)

    async def stopped(self, run: Feed) -> bool:
        """Tell the owner of a run to stop it, and wait for its end: as long as the owner may need, or another node to find out
        that the owner is dead. Raises `Answer`, 503."""
        if isinstance(run, RemoteRun):
            await self._ask(self._store.stop(run.stored))
        has_ended = asyncio.Event()
        reader = Reader(run, run.last, start=lambda: True, write=lambda wire: True, end=lambda wire: has_ended.set())
        run.join(reader)
        try:
            async with asyncio.timeout(self._store.lease_seconds + self._store.block_seconds):
                await has_ended.wait()
        except TimeoutError:
            return False
        finally:
            reader.close()
        return run.is_resumable  # else it was lost, and another node has yet to end it

    def watch(self, run: RemoteRun) -> None:
        """From now on the run gets what is added to its log."""
        # Two that were opened at once are two feeds of one log.
        self._remote.setdefault(run.stored.key, set()).add(run)
        self._spawn(self._wake(run))

    def unwatch(self, run: RemoteRun) -> None:
        """The run gets nothing more."""
        known = self._remote.get(run.stored.key, set())
        known.discard(run)
        if not known:
            self._remote.pop(run.stored.key, None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="rawsse node")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wake(self, run: RemoteRun) -> None:
        with contextlib.suppress(StoreUnavailableError):  # the read fails, too, and is repeated
            await self._store.wake(self.id)
        await self._touch([run])

    async def _touch(self, runs: Iterable[RemoteRun]) -> None:
        """Say that they are read here: their owners do not know the readers of other nodes. Cut those that the store has lost:
        nothing more will come."""
        if runs := list(runs):
            with contextlib.suppress(StoreUnavailableError):
                for run, is_known in zip(runs, await self._store.touch([run.stored for run in runs]), strict=True):
                    if not (is_known or run.is_finished):
                        run.cut()

    def abandon(self, run: OwnedRun, failure: Failure, seconds: float) -> None:
        """Stop a run that had no readers here for so long, unless it had some at another node."""
        self._spawn(self._abandon(run, failure, seconds))

    async def _abandon(self, run: OwnedRun, failure: Failure, seconds: float) -> None:
        try:
            unread = await self._store.unread_seconds(run.stored)
        except StoreUnavailableError:
            unread = 0.0
        if unread < seconds:
            run.wait_for_readers(unread)
        elif not run.readers:
            run.stop(failure)

    async def _read(self) -> None:
        while True:
            places = {key: [run.after for run in runs if not run.is_paused] for key, runs in self._remote.items()}
            wanted = {key: min(each) for key, each in places.items() if each}
            try:
                entries, stopped = await self._store.read(self.id, wanted, self._store.block_seconds)
            except StoreUnavailableError as exc:
                self._complain(exc)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for key, added in entries.items():
                for run in list(self._remote.get(key, ())):
                    if run.after >= wanted[key]:  # else it has come in the meantime, and the next read is for it
                        run.receive(added)
            for user, id in stopped:
                if (mine := self._runs.get(user, id)) is not None:
                    mine.stop(STOPPED)
            await asyncio.sleep(min(len(wanted) * GATHER_SECONDS, MAX_GATHER_SECONDS))


class _Orphan(NamedTuple):
    """A run without an owner, and the number of its last frame. It may not be there: then it is looked for until this time."""

    run: StoredRun
    last: int
    until: float = 0.0
    failure: Failure = _LOST
    is_lost: bool = False
    """It was this node's, and the store has refused a write: its log may end before the frame `last`, which was sent."""


async def _repeat(work: Callable[[], Awaitable[None]]) -> None:
    """Work for ever. A bug costs what it hits, and not the node."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("a node of the relay failed at its work, and goes on")
            await asyncio.sleep(RETRY_SECONDS)


def unavailable(text: str) -> Answer:
    """The answer to a request that may be sent again soon."""
    return Answer(503, "overloaded_error", text, headers={"retry-after": "2"})


def _record_of(run: StoredRun, failure: Failure, now: float) -> RunRecord:
    """The record of a run whose node died. Its tokens are those of which the store was told: a lower bound."""
    try:
        usage = json.loads(run.usage or "{}")
    except ValueError:
        usage = {}
    is_ours = failure.type in ("cancelled", "shutdown")
    return RunRecord(
        run.time,
        run.id,
        run.user,
        run.dialect,
        run.model,
        ending="cancelled" if is_ours else "truncated",
        stop_reason=None,
        error=None if is_ours else NODE_LOST,
        seconds=max(0.0, now - run.time),
        first_token_seconds=None,
        exact=False,
        on_disconnect=None,
        request_id=None,
        words=failure.message,
        **token_counts(usage if isinstance(usage, dict) else {})[0],
    )
