"""What users, quotas, the ledger and metrics cost `rawsse serve` per event and per stream, beside the same relay without them.

    python -m tests.benchmarks.production [--streams 150] [--events 200] [--rounds 3] [--uvloop] [--against OTHER_CHECKOUT]

Both are run side by side, round by round: compare the ratios. In production each stream is a run of a user whose limits are
counted and never reached, it has a row in the ledger, and `/metrics` is read every second. CPU time, "read" and latency are
those of `relay.py`; `--events 20 200` tells the set-up of a stream from its slope there.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from urllib.request import Request, urlopen

from . import measure
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
    parser = measure.parser_of(__doc__, rounds=3)
    measure.add_load(parser, streams=150)
    arguments = parser.parse_args()
    measure.print_machine()
    with measure.running_upstream() as port:
        for label, checkout in measure.checkouts(arguments.against).items():
            for loop in arguments.loops:
                starts: dict[str, Start] = {
                    "plain": partial(rawsse, checkout, loop),
                    "production": partial(production, checkout, loop),
                }
                kinds = {kind: partial(run, start, port, "http", arguments) for kind, start in starts.items()}
                measure.compare(f"{label}, {loop}: {measure.load_of(arguments)}", kinds, arguments.rounds, ("plain",))


if __name__ == "__main__":
    main()
