"""How fast the event stream decoder is, compared with others in the same run: compare the ratios, not the figures.

    python -m tests.benchmarks.decoder [--rounds 7]

The stream is one that the Messages API sends while it generates text. Decoders that are not installed are left out.
`bytes.split` is not a parser: it splits on blank lines and decodes, the minimum that any parser in Python has to do.
"""

from __future__ import annotations

import codecs
import importlib
import time
from collections.abc import Callable, Mapping
from functools import partial

from rawsse.sse import Decoder

from . import measure
from .measure import Sample

EVENTS = 20_000
PACKAGES = {"httpx-sse": "httpx_sse", "official SDK": "anthropic"}

Reader = Callable[[list[bytes]], int]


def read_with_rawsse(chunks: list[bytes]) -> int:
    decoder = Decoder()
    return sum(1 for chunk in chunks for _ in decoder.feed(chunk))


def read_with_httpx_sse(chunks: list[bytes]) -> int:
    decoders = importlib.import_module("httpx_sse._decoders")
    text = codecs.getincrementaldecoder("utf-8")("replace")
    lines, events = decoders.SSELineDecoder(), decoders.SSEDecoder()
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


def run(reader: Reader, cuts: Mapping[str, list[bytes]]) -> Sample:
    reader([])  # imports what it needs
    sample = {}
    for cut, chunks in cuts.items():
        started = time.process_time()
        if reader(chunks) != EVENTS:
            raise AssertionError(f"{reader.__name__} lost events")
        sample[f"us/event, {cut}"] = (time.process_time() - started) / EVENTS * 1e6
    return sample


def main() -> None:
    arguments = measure.parser_of(__doc__, rounds=7).parse_args()
    measure.print_machine()
    cuts = chunkings()
    kinds = {
        name: partial(run, reader, cuts)
        for name, reader in READERS.items()
        if measure.is_installed(PACKAGES.get(name, "rawsse"))
    }
    measure.compare("the decoder, by chunk", kinds, arguments.rounds, ("httpx-sse", "official SDK"))


if __name__ == "__main__":
    main()
