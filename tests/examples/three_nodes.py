"""Three relays with one store: a reader goes on at another relay when the one that it reads from is killed.

pip install 'rawsse[redis]'; redis-server &
python three_nodes.py redis://127.0.0.1
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path

from rawsse.replay import ReplayServer, shipped_fixtures
from rawsse.sse import Event, iter_events


def main(store: str) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # A recording, slowed down, in place of the API.
        api = stack.enter_context(ReplayServer(shipped_fixtures()["thinking"], pace="ttft=0.2,tps=40"))
        nodes = [stack.enter_context(closing(Node(store, api.base_url, folder / f"{n}.db"))) for n in range(3)]
        # The first node calls the API, and each can be read from: a load balancer need not keep a client on one node.
        run = nodes[0].ask(b'{"message": "How many sheep are left?"}')
        last = ""
        for event in islice(nodes[1].read(run), 3):
            print(event.data, flush=True)
            last = event.id
        nodes[1].process.kill()
        print("-- the node is killed; another one goes on", flush=True)
        for event in nodes[2].read(run, after=last):
            print(event.data, flush=True)
        nodes[0].close()
        # Each node keeps a ledger, and each run is in one of them.
        subprocess.run([sys.executable, "-m", "rawsse", "usage", *map(str, folder.glob("*.db"))], check=True)


class Node:
    """A relay in a process. `close()` ends it."""

    def __init__(self, store: str, api: str, ledger: Path) -> None:
        command = [sys.executable, "-m", "rawsse", "serve", "--port", "0", "--store", store, "--ledger", str(ledger)]
        environment = os.environ | {"ANTHROPIC_BASE_URL": api, "ANTHROPIC_API_KEY": "any"}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # "… http://127.0.0.1:PORT"
        if not line:
            raise SystemExit("a node did not start")  # it has said why
        self._url = line.split()[-1]

    def ask(self, body: bytes) -> str:
        """Begin a run, and return its id."""
        headers = {"content-type": "application/json", "prefer": "respond-async"}
        with urllib.request.urlopen(urllib.request.Request(f"{self._url}/chat/stream", body, headers)) as response:
            return str(response.headers["x-run-id"])

    def read(self, run: str, after: str = "") -> Iterator[Event]:
        """The events of a run, after the one with this id."""
        with urllib.request.urlopen(f"{self._url}/runs/{run}?after={after}") as response:
            yield from iter_events(iter(response.read1, b""))

    def close(self) -> None:
        self.process.terminate()  # its readers get a last frame, and the ledger its row
        self.process.wait()


if __name__ == "__main__":
    main(sys.argv[1])
