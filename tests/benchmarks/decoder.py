"""How fast the event stream decoder is, compared with others in the same run: compare the ratios, not the figures.

    python -m tests.benchmarks.decoder

The stream is one that the Messages API sends while it generates text. Decoders that are not installed are left out.
`bytes.split` is not a parser: it splits on blank lines and decodes, the minimum that any parser in Python has to do.
"""

from __future__ import annotations

import codecs
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping

from rawsse.sse import Decoder

EVENTS = 20_000
ROUNDS = 7  # the best one counts: it was disturbed least

Reader = Callable[[list[bytes]], int]


def read_with_rawsse(chunks: list[bytes]) -> int:
    decoder = Decoder()
    return sum(1 for chunk in chunks for _ in decoder.feed(chunk))


def read_with_httpx_sse(chunks: list[bytes]) -> int:
    decoders = importlib.import_module("httpx_sse._decoders")
    text, lines, events = (
        codecs.getincrementaldecoder("utf-8")("replace"),
        decoders.SSELineDecoder(),
        decoders.SSEDecoder(),
    )
    return sum(events.decode(line) is not None for chunk in chunks for line in lines.decode(text.decode(chunk)))


def read_with_the_sdk(chunks: list[bytes]) -> int:
    decoder = importlib.import_module("anthropic._streaming").SSEDecoder()
    return sum(1 for _ in decoder.iter_bytes(iter(chunks)))


def read_with_split(chunks: list[bytes]) -> int:
    count, rest = 0, b""
    for chunk in chunks:
        *blocks, rest = (rest + chunk).split(b"\n\n")
        for block in blocks:
            block.decode()
            count += 1
    return count


READERS: Mapping[str, Reader] = {
    "httpx-sse": read_with_httpx_sse,
    "official SDK": read_with_the_sdk,
    "rawsse": read_with_rawsse,
    "bytes.split": read_with_split,
}


def sample_events() -> list[bytes]:
    text = '{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":" word{}"}}}}'
    return [f"event: content_block_delta\ndata: {text.format(at % 1000)}\n\n".encode() for at in range(EVENTS)]


def chunkings() -> dict[str, list[bytes]]:
    events = sample_events()
    stream = b"".join(events)
    halves = [half for event in events for half in (event[:60], event[60:])]
    cut = {f"{size} B": [stream[at : at + size] for at in range(0, len(stream), size)] for size in (64, 1000, 65536)}
    return {"an event": events, "half an event": halves, **cut}


def is_installed(reader: Reader) -> bool:
    try:
        reader([])
    except ImportError:
        return False
    return True


def million_events_per_second(reader: Reader, chunks: list[bytes]) -> float:
    started = time.perf_counter()
    if reader(chunks) != EVENTS:
        raise AssertionError(f"{reader.__name__} lost events")
    return EVENTS / (time.perf_counter() - started) / 1e6


def table() -> Iterator[str]:
    readers, cuts = {name: reader for name, reader in READERS.items() if is_installed(reader)}, chunkings()
    best = {(name, cut): 0.0 for name in readers for cut in cuts}
    for _ in range(ROUNDS):  # one round after another, so that a busy machine affects all readers alike
        for name, cut in best:
            best[name, cut] = max(best[name, cut], million_events_per_second(readers[name], cuts[cut]))
    first = next(iter(readers))
    yield f"million events a second, and how many times {first}; by chunk"
    yield "".join(f"{title:>16}" for title in ("", *cuts))
    for name in readers:
        cells = (f"{best[name, cut]:.2f} ({best[name, cut] / best[first, cut]:.1f}x)" for cut in cuts)
        yield "".join(f"{cell:>16}" for cell in (name, *cells))


if __name__ == "__main__":
    for row in table():
        sys.stdout.write(row + "\n")
