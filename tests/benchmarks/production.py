"""What users, quotas, the ledger and metrics cost `rawsse serve` per event and per stream, beside the same relay without them.

    python -m tests.benchmarks.production [--streams 150] [--events 200] [--rounds 3] [--uvloop] [--against OTHER_CHECKOUT]

Both are run side by side, round by round: compare the ratios. In production each stream is a run of a user whose limits are
counted and never reached, it has a row in the ledger, and `/metrics` is read every second. CPU time, "read" and latency are
those of `relay.py`; `--events 20 200` tells the set-up of a stream from its slope there.
"""

from __future__ import annotations

import importlib.util
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from urllib.request import Request, urlopen

from .measure import checkouts, measure, parser_of, print_machine
from .measure import upstream as upstream_process
from .relay import Running, Start, rawsse, run

TOKEN = "a-token-of-ada"
USERS = f"""
[all]
tokens_per_day = 1_000_000_000
open_runs = 100_000

[[user]]
id = "ada"
token_sha256 = "{sha256(TOKEN.encode()).hexdigest()}"
requests_per_minute = 1_000_000
open_runs = 100_000
tokens_per_day = 1_000_000_000
ends_open_runs = true
"""
SCRAPE_SECONDS = 1.0


@contextmanager
def production(checkout: Path, loop: str, upstream_port: int, scheme: str = "http") -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        users = Path(folder, "users.toml")
        users.write_text(USERS)
        users.chmod(0o600)
        more = ("--users", users, "--ledger", Path(folder, "ledger.db"))
        with rawsse(checkout, loop, upstream_port, scheme, more) as running, scraped(running.url):
            yield running._replace(url=running.url.replace("//", f"//{TOKEN}@"))


@contextmanager
def scraped(url: str) -> Iterator[None]:
    """Read `/metrics` every second, as Prometheus does every fifteen."""
    asked, is_over = Request(f"{url}/metrics", headers={"authorization": f"Bearer {TOKEN}"}), threading.Event()

    def scrape() -> None:
        while not is_over.wait(SCRAPE_SECONDS):
            with urlopen(asked, timeout=60) as answer:
                answer.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def main() -> None:
    parser = parser_of(__doc__, rounds=3)
    parser.add_argument("--streams", type=int, default=150, help="open at a time (default 150)")
    parser.add_argument("--rate", type=float, default=20, help="events per second of each stream (default 20)")
    parser.add_argument("--events", type=int, nargs="+", default=[200], help="of each stream (default 200)")
    parser.add_argument("--ramp", type=float, default=1.0, help="seconds in which the streams start (default 1)")
    parser.add_argument("--warm-up", type=int, default=40, help="streams before the measured ones (default 40)")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop too")
    arguments = parser.parse_args()
    print_machine()
    loops = ("asyncio", "uvloop") if arguments.uvloop and importlib.util.find_spec("uvloop") else ("asyncio",)
    with upstream_process() as port:
        for label, checkout in checkouts(arguments.against).items():
            for loop in loops:
                starts: dict[str, Start] = {
                    "plain": partial(rawsse, checkout, loop),
                    "production": partial(production, checkout, loop),
                }
                kinds = {kind: partial(run, start, port, "http", arguments) for kind, start in starts.items()}
                title = (
                    f"{label}, {loop}: {arguments.streams} streams x {arguments.rate:g}/s x {arguments.events} events"
                )
                measure(title, kinds, arguments.rounds, ("plain",))


if __name__ == "__main__":
    main()
