"""What each layer of the client adds to the cost of an event: a burst of text deltas, read 64 KiB at a time, without a socket.

    python -m tests.benchmarks.layers [--rounds 5] [--against OTHER_CHECKOUT]

Each kind does what the one above it does, and one thing more. The last one is what a program sees: the text of a stream.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from .measure import Sample, checkouts, measure, parser_of, print_machine, result_of
from .upstream import ask, burst

EVENTS = 20_000
READ_BYTES = 64 * 1024


def reads() -> list[bytes]:
    """The answer as a client reads it."""
    wire = burst(EVENTS)
    return [wire[at : at + READ_BYTES] for at in range(0, len(wire), READ_BYTES)]


def http1() -> Iterator[bytes]:
    from rawsse.http1 import ClientConnection, Data

    http = ClientConnection("127.0.0.1")
    http.send_request("POST", "/v1/messages", [], b"{}")
    for data in reads():
        http.receive_data(data)
        while (event := http.next_event()) is not None:
            if type(event) is Data:
                yield event.data


def sse() -> int:
    from rawsse.sse import Decoder

    decoder = Decoder()
    return sum(len(decoder.feed(data)) for data in http1())


def typed() -> int:
    from rawsse.messages import read_event
    from rawsse.sse import Decoder

    decoder, count = Decoder(), 0
    for data in http1():
        for event in decoder.feed(data):
            count += read_event(event) is not None
    return count


def folded() -> int:
    from rawsse.messages import MessageBuilder, read_event
    from rawsse.sse import Decoder

    decoder, builder, count = Decoder(), MessageBuilder(), 0
    for data in http1():
        for event in decoder.feed(data):
            if (read := read_event(event)) is not None:
                builder.apply(read)
                count += 1
    return count


def answer() -> int:
    from rawsse.client.answer import Answer
    from rawsse.client.exchange import CallSettings, Timing
    from rawsse.client.network.route import Origin, Route
    from rawsse.client.request import RequestData

    request = RequestData("POST", "/v1/messages", "127.0.0.1", (), b"{}")
    driven, count = Answer(CallSettings(request, Route(Origin("http", "127.0.0.1", 80))), Timing()), 0
    driven.connected(0, is_reused=False)
    driven.send()
    driven.sent(0)
    for data in reads():
        driven.receive(data, 0.0)
        while driven.next_event() is not None:
            count += 1
    return count


def stream() -> int:
    from rawsse import AsyncClient
    from rawsse.replay.fakes import FakeStream, fake_links

    async def read() -> int:
        async def connect(*_: object) -> FakeStream:
            return FakeStream(reads())

        client = AsyncClient(api_key="any", base_url="http://127.0.0.1", connect=fake_links(connect))
        async with client, client.messages.stream(**ask(EVENTS, 0)) as opened:
            return sum([1 async for _ in opened.text_stream])

    return asyncio.run(read())


def chunks() -> int:
    return len(deque(http1(), maxlen=None))


LAYERS: Mapping[str, Callable[[], int]] = {
    "http1": chunks,
    "+ sse": sse,
    "+ typed events": typed,
    "+ fold": folded,
    "Answer": answer,
    "text_stream": stream,
}


def run(checkout: Path, layer: str) -> Sample:
    sample: Sample = result_of("-m", "benchmarks.layers", "--layer", layer, seconds=60, checkout=checkout)
    return sample


def main() -> None:
    if sys.argv[1:2] == ["--layer"]:
        work = LAYERS[sys.argv[2]]
        work()
        before = time.process_time()
        work()
        print(json.dumps({"CPU us/event": (time.process_time() - before) / EVENTS * 1e6}))
        return
    arguments = parser_of(__doc__, rounds=5).parse_args()
    print_machine()
    for label, checkout in checkouts(arguments.against).items():
        kinds: dict[str, Callable[[], Sample]] = {layer: partial(run, checkout, layer) for layer in LAYERS}
        measure(f"{label}: the layers of a burst of {EVENTS} events", kinds, arguments.rounds, ())


if __name__ == "__main__":
    main()
