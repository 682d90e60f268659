"""A relay to which random things happen: clients, users, the API and the operator, in virtual time.

schedule = Schedule(seed)
await schedule.play()               # to the end of all runs
schedule.readers                    # what each client was sent
schedule.rows                       # what the relay says of its runs, and `Recount`, which knew better
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from support.clock import ticks
from support.streams import PING, STOP, Raw, block_start, block_stop, end, start, text_delta, to_bytes

from rawsse.client.network.route import Route
from rawsse.client.network.tls import TLSContext
from rawsse.relay import Ledger, RunLimits, RunRecord, User, UserLimits
from rawsse.relay.record import RunStart
from rawsse.relay.runs import Run
from rawsse.server import Scope

from .outlets import TEXT_BLOCK
from .stage import Api, Browser, Stage
from .test_record import SAYS_NO, Rows

__all__ = ["MODELS", "NAMES", "USAGE", "Reader", "Schedule"]

STEPS = 30
NAMES = ("ada", "bob", "eve")  # eve is an operator
MODELS = [f"m-{number}" for number in range(STEPS + 2)]
"""Each request names another one: so its run, its call and its row are told from all others."""

DAY = 86_400
HELLO = {"role": "user", "content": "Hi"}
USAGE = ("input_tokens", "output_tokens")


class Direct(Browser):
    """A client of our own server, to which the relay writes in its own call (`rawsse.push`)."""

    def __init__(self, app: Any, scope: dict[str, Any], body: bytes) -> None:
        self.sink: Any = None
        self._is_owed = False
        super().__init__(app, {**scope, "extensions": {"rawsse.push": self}}, body)

    @property
    def send(self) -> Any:
        return self._send

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        assert not self.status, "two heads were sent"
        self.status, self.headers = status, {name.decode(): value.decode() for name, value in headers}

    def write(self, data: bytes) -> bool:
        assert self.status, "a piece came before the head"
        assert not self.is_ended, "a piece came after the end"
        if not self._gone.is_set():
            self.sent.append((self._now(), data))
        self._is_owed = not self._takes.is_set()
        return not self._is_owed

    def end(self, data: bytes = b"") -> None:
        if data:
            self.write(data)
        self.is_ended = True
        self._changed.set()

    async def closed(self) -> None:
        while not (self.is_ended or self._gone.is_set()):
            self._changed.clear()
            await self._changed.wait()

    def go_on(self) -> None:
        super().go_on()
        if self._is_owed:
            self._is_owed = False
            self.sink.on_drain()

    def leave(self) -> None:
        super().leave()
        if self.sink is not None:
            self.sink.on_closed()
        self._changed.set()


class Reader:
    """A client, whose user it is, and what it asked for: the model of a new run, or positions in runs by their tags."""

    def __init__(
        self, browser: Browser, user: str, path: str, *, model: str = "", after: dict[str, int] | None = None
    ) -> None:
        self.browser, self.user, self.path, self.model, self.after = browser, user, path, model, after or {}
        self.has_left = self.has_stalled = self.is_seen = False

    @property
    def is_open(self) -> bool:
        return not (self.has_left or self.browser.task.done())

    @property
    def was_refused(self) -> bool:
        """No run has begun for it."""
        browser = self.browser
        return browser.status in (400, 401, 409) or (browser.status == 429 and b"reached the limit" in browser.body)

    @property
    def has_stayed(self) -> bool:
        """To the end; a client that takes nothing for a minute is dropped (`write_seconds`)."""
        return not self.has_left and (self.browser.is_ended or not self.has_stalled)


class Recount(Rows):
    """Asks of each run that begins whether the limits of its user allow it, from the rows alone."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.open: Counter[str] = Counter()
        self.most_open: dict[tuple[str, float], int] = {}
        """How many runs of a user were open at that time at most."""
        self._schedule = schedule

    def begun(self, start: RunStart) -> None:
        super().begun(start)
        for user in (start.user, ""):
            self._count(user, 1)
            limits, count = self._schedule.limits_of(user), self.open[user]
            is_allowed = {
                "open runs": count <= (limits.open_runs or count),
                "tokens": self.tokens(user) < (limits.tokens_per_day or 10**9),
                "requests": not self.is_full(user, start.time),
            }
            self._schedule.wrong += [f"{start.run} of {user}: {name}" for name, it in is_allowed.items() if not it]

    def ended(self, record: RunRecord) -> None:
        super().ended(record)
        for user in (record.user, ""):
            self._count(user, -1)

    def _count(self, user: str, by: int) -> None:
        before, key = self.open[user], (user, self._schedule.now)
        self.open[user] += by
        self.most_open[key] = max(self.most_open.get(key, 0), before, self.open[user])

    def tokens(self, user: str) -> int:
        """Tokens of the runs that began today and have ended."""
        today = self._schedule.now // DAY
        return sum(each.total_tokens for each in self.records if each.time // DAY == today and user in ("", each.user))

    def is_full(self, user: str, time: float, more: int = 0) -> bool:
        """In some time up to this one there were more runs, with `more` now, than may come at once and come back in it."""
        quota = self._schedule.limits_of(user).requests_per_minute
        times = [each.time for each in self.starts if user in ("", each.user)] + [time] * more
        return quota is not None and any(
            count > quota * (1 + (time - since) / 60) + 1e-4 for count, since in enumerate(times[::-1], 1)
        )

    def refuses(self, user: str, time: float, words: str) -> bool:
        """A request of now has to be refused, as far as the limit goes that these words name."""
        limits = self._schedule.limits_of(user)
        if "requests per minute" in words:
            return self.is_full(user, time, 1)
        if "open runs" in words:
            return self.most_open.get((user, time), self.open[user]) >= (limits.open_runs or 100)
        return self.tokens(user) >= (limits.tokens_per_day or 10**9)


class Schedule(Stage):
    """One relay, and all that happens to it: `play`."""

    def __init__(self, seed: int, ledger: Ledger | None = None) -> None:
        self.chance = chance = random.Random(seed)
        self.steps: list[str] = []
        """What was done, for the words of a failure."""
        self.wrong: list[str] = []
        self.readers: list[Reader] = []
        self.posts: list[tuple[str, str, dict[str, Any], dict[str, str]]] = []  # (user, path, body, header fields)
        self.others: list[tuple[Browser, tuple[int, ...]]] = []  # and the statuses that they may have
        self.runs: dict[str, Run] = {}  # by the first part of their frames' ids
        self.chunks: defaultdict[Api, list[list[Raw]]] = defaultdict(
            list
        )  # what the API said, in the pieces it was said in
        self.over: set[Api] = set()
        self.base = DAY * 20_000 + chance.choice([DAY / 2, DAY - 1030])  # the loop's time begins with 1000
        self.moments = itertools.count()  # no two runs begin at the same time: a row is known by its time and id
        self.pause = 0.0
        self.closing: asyncio.Task[None] | None = None
        self.rows = Recount(self)
        self.rates = {name: chance.choice([None, 2, 6]) for name in NAMES}
        self.users = {name: self.new_user(name) for name in NAMES}
        self.everyone = UserLimits(requests_per_minute=8, open_runs=5, ends_open_runs=chance.random() < 0.2)
        limits = RunLimits(
            drain_seconds=chance.choice([0, 0, 40]), max_unread_bytes=400, max_runs=chance.choice([3, 100])
        )
        self.is_small = chance.random() < 0.4
        super().__init__(
            model=MODELS[0],
            models=MODELS,
            authenticate=self.authenticate,
            all_limits=self.everyone,
            observers=[self.rows],
            ledger=ledger,
            limits=replace(limits, max_log_bytes=1200, max_kept_bytes=700) if self.is_small else limits,
            clock=lambda: self.now + next(self.moments) * 1e-6,
        )

    @property
    def now(self) -> float:
        return self.base + asyncio.get_running_loop().time()

    async def _connect(self, route: Route, tls: TLSContext) -> Any:
        if self.chance.random() < 0.2:
            await asyncio.sleep(2)
        return await super()._connect(route, tls)

    def calls_of(self, model: str) -> list[Api]:
        """The calls to the API for that model, whose requests were sent."""
        return [api for api in self.calls if api.sent and api.json["model"] == model]

    def heard(self, api: Api) -> list[Raw]:
        """What of its words the relay has read."""
        chunks = self.chunks[api]
        return list(itertools.chain(*chunks[: len(chunks) - len(api.stream._chunks)]))

    # --- Users ---

    async def authenticate(self, scope: Scope) -> User | None:
        return self.users.get(dict(scope["headers"]).get(b"x-user", b"").decode())

    def new_user(self, name: str) -> User:
        pick = self.chance.choice
        limits = UserLimits(
            requests_per_minute=self.rates[name],
            open_runs=pick([None, 1, 3]),
            tokens_per_day=pick([10**6, 10**6, 30, 200]),  # without one an idle user is forgotten
            ends_open_runs=pick([True, False]),
        )
        return User(name, limits, is_operator=name == "eve")

    def limits_of(self, user: str) -> UserLimits:
        """Of a user, or of all together."""
        return (self.users[user].limits or UserLimits()) if user else self.everyone

    # --- What happens ---

    async def play(self) -> None:
        weights: dict[Callable[[int], str], int] = {self.post: 5, self.speak: 14, self.wait: 2, self.resume: 4}
        weights |= {self.repeat: 3, self.resume_several: 2, self.leave: 3, self.stall: 2, self.go_on: 1, self.stop: 1}
        weights |= {self.stop_all: 1, self.change_user: 1}
        for number in range(self.chance.randint(8, STEPS)):
            (step,) = self.chance.choices(list(weights), list(weights.values()))
            if step in (self.change_user, self.wait):
                for reader in self.readers:
                    if reader.browser.status == 429:
                        reader.browser.go_on()  # the words of a refusal are looked at with the limits of then
                await ticks(12)  # what was asked before is answered
                self.look()
            self.steps.append(f"{self.now - self.base:.3f} {step.__name__}: {step(number)}")
            await asyncio.sleep(self.pause)
            await ticks(self.chance.choice([0, 1, 1, 5, 12]))
            self.pause = 0.0
            self.look()
        await self.finish()

    def look(self) -> None:
        """Remember the runs, which are forgotten later, and look at refusals, which are right or wrong now."""
        self.runs |= {each.tag: each for each in self.relay._runs._runs.values()}
        for reader in self.readers:
            browser = reader.browser
            if browser.status == 429 and reader.was_refused and not reader.is_seen:
                reader.is_seen = True
                words = browser.body.decode()
                user, time = "" if "all users together" in words else reader.user, browser.started + self.base
                if not self.rows.refuses(user, time, words):
                    self.wrong.append(f"{reader.model} was refused: {words}")

    def begin(self, method: str, path: str, user: str, body: Any = None, **options: Any) -> Browser:
        headers = {"x-user": user, **options.pop("headers", {})}
        kind = self.chance.choice([Browser, Direct])
        return self.ask(method, path, body, headers=headers, kind=kind, **options)

    def post(self, number: int) -> str:
        ui = {"id": f"chat-{number % 3}", "messages": [{**HELLO, "parts": [{"type": "text", "text": "Hi"}]}]}
        requests: list[tuple[str, dict[str, Any]]] = [
            ("/stream", {"message": "Hi"}),
            ("/stream", {"message": "Hi", "usage": True}),
            ("/api/chat", {"messages": [HELLO]}),
            ("/api/chat", ui),
            ("/v1/messages", {"messages": [HELLO], "max_tokens": 9, "stream": True}),
            ("/v1/messages", {"messages": [HELLO], "max_tokens": 9}),
        ]
        path, body = self.chance.choice(requests)
        headers = {"prefer": "respond-async"} if self.chance.random() < 0.2 else {}
        if path != "/v1/messages" and self.chance.random() < 0.5:
            headers["x-run-id"] = f"chosen-by-its-client-{number}"
        self.posts.append(
            (self.chance.choice([*NAMES, *NAMES, "mallory"]), path, body | {"model": MODELS[number]}, headers)
        )
        return self.send_post(*self.posts[-1])

    def repeat(self, number: int) -> str:
        """A client that named its run asks once more, sometimes for something else."""
        named = [each for each in self.posts if "x-run-id" in each[3]]
        if not named:
            return ""
        user, path, body, headers = self.chance.choice(named)
        headers = headers | ({"prefer": "respond-async"} if self.chance.random() < 0.3 else {})
        body = body | ({"model": MODELS[number]} if self.chance.random() < 0.2 else {})
        return self.send_post(user, path, body, headers)

    def send_post(self, user: str, path: str, body: dict[str, Any], headers: dict[str, str]) -> str:
        browser = self.begin("POST", path, user, body, headers=headers)
        self.readers.append(Reader(browser, user, path, model=body["model"]))
        return f"{user} {path} {body} {headers}"

    def speak(self, number: int) -> str:
        """The API says something on one of its connections, or ends it."""
        apis = [api for api in self.calls if api not in self.over and not api.is_closed and api.sent]
        if not apis:
            return self.post(number)
        api = self.chance.choice(apis)
        model, has_begun = api.json["model"], bool(self.chunks[api])
        kind = self.chance.choice(
            ["text"] * 5 + ["ping", "burst", "end", "end", "tail", "cut", "error", "half", "reset"]
        )
        if not has_begun and self.chance.random() < 0.15:
            kind = "529"
            api.write(SAYS_NO.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
            self.over.add(api)
        elif not has_begun:
            self.say(api, start(model=model, usage={USAGE[0]: self.chance.randint(1, 40), USAGE[1]: 1}))
            self.say(api, block_start(0, TEXT_BLOCK))
        elif kind == "text":
            self.say(api, text_delta(0, f"{number} "))
        elif kind == "ping":
            self.say(api, PING)
        elif kind == "burst":
            self.say(api, *(text_delta(0, f"{number}.{each} ") for each in range(self.chance.choice([20, 300]))))
        else:
            self.end(api, kind)
        return f"{model} {kind}"

    def end(self, api: Api, kind: str) -> None:
        self.over.add(api)
        if kind in ("end", "tail"):
            self.say(
                api, block_stop(0), end(output_tokens=self.chance.randint(2, 60)), *([STOP] if kind == "end" else [])
            )
        elif kind == "error":
            self.say(api, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
        elif kind == "half":
            self.chunks[api].append([])
            api.write(to_bytes([text_delta(0, "lost")])[:-9])
        api.close(ConnectionResetError("reset") if kind == "reset" else None)

    def say(self, api: Api, *raws: Raw) -> None:
        self.chunks[api].append(list(raws))
        api.send(*raws)

    def wait(self, number: int) -> str:
        self.pause = self.chance.choice([0.1, 1, 4, 12, 12, 45, 130, 320])
        return f"{self.pause} s"

    def resume(self, number: int) -> str:
        """A client comes back, to a run of its own or of another user."""
        if not self.runs:
            return ""
        tag, found = self.chance.choice(list(self.runs.items()))
        user, after = self.chance.choice([found.start.user] * 4 + [*NAMES]), self.position(found)
        path, positions = f"/runs/{found.id}", {tag: after}
        options: dict[str, Any] = {}
        how = self.chance.choice(["after", "header", "snapshot", "chat"])
        if how == "chat":
            path, positions = f"/api/chat/{found.alias or 'none'}/stream", {}
        elif how == "snapshot":
            options, positions = {"query": "snapshot=1"}, {tag: -1}
        elif how == "after":
            options = {"query": f"after={tag}-{after}"}
        else:
            options = {"headers": {"last-event-id": f"{tag}-{after}"}}
        browser = self.begin("GET", path, user, **options)
        self.readers.append(Reader(browser, user, path, after=positions))
        return f"{user} {path} {options}"

    def position(self, found: Run) -> int:
        """Where a client is that lost its connection: often it has all that there is."""
        return self.chance.choice([found.last, self.chance.randint(0, found.last)])

    def resume_several(self, number: int) -> str:
        user = self.chance.choice(NAMES)
        some = {tag: self.position(each) for tag, each in self.runs.items() if self.chance.random() < 0.7}
        pairs = [("id", self.runs[tag].id) for tag in some] + [("after", f"{tag}-{at}") for tag, at in some.items()]
        if some:
            browser = self.begin("GET", "/runs", user, query=urlencode(pairs))
            self.readers.append(Reader(browser, user, "/runs", after=some))
        return f"{user} {some}"

    def leave(self, number: int) -> str:
        def do(reader: Reader) -> None:
            reader.has_left = True
            reader.browser.leave()

        return self.some_readers(do)

    def stall(self, number: int) -> str:
        def do(reader: Reader) -> None:
            reader.has_stalled = True
            reader.browser.stall()

        return self.some_readers(do)

    def go_on(self, number: int) -> str:
        return self.some_readers(lambda reader: reader.browser.go_on())

    def some_readers(self, do: Callable[[Reader], None]) -> str:
        some = [number for number, each in enumerate(self.readers) if each.is_open and self.chance.random() < 0.4]
        for number in some:
            do(self.readers[number])
        return f"of the clients {some}"

    def stop(self, number: int) -> str:
        if not self.runs:
            return ""
        found = self.chance.choice(list(self.runs.values()))
        user = self.chance.choice([found.start.user, *NAMES])
        browser = self.begin("DELETE", f"/runs/{found.id}", user)
        self.others.append((browser, (204, 404) if user == found.start.user else (404,)))
        return f"{user} {found.id}"

    def stop_all(self, number: int) -> str:
        """An operator, or one who would like to be, ends the runs of a user or of all."""
        user, asked = self.chance.choice(NAMES), self.chance.choice([*NAMES, "*"])
        browser = self.begin("DELETE", "/runs", user, query=f"user={asked}")
        self.others.append((browser, (200,) if user in ("eve", asked) else (403,)))
        return f"{user} of {asked}"

    def change_user(self, number: int) -> str:
        name = self.chance.choice(NAMES)
        self.users[name] = self.new_user(name)
        return f"{self.users[name]}"

    async def finish(self) -> None:
        """Clients take what waits, the API ends its answers or says no more, and all ends by itself."""
        await ticks(12)
        self.look()
        if self.chance.random() < 0.3:
            self.closing = asyncio.ensure_future(self.relay.aclose())
            await ticks(self.chance.choice([0, 2, 9]))
            self.steps += ["shutdown", *map(self.post, range(STEPS, STEPS + 2))]
            await ticks(12)
            self.look()
        for reader in self.readers:
            reader.browser.go_on()
        for api in self.calls:
            if api in self.chunks and api not in self.over and self.chance.random() < 0.5:
                self.end(api, self.chance.choice(["end", "cut"]))
        await asyncio.sleep(1000)  # more than all clocks and keep times
        self.look()
        if self.closing is not None:
            await self.closing
        await asyncio.gather(*(reader.browser.task for reader in self.readers if reader.browser.task.done()))
