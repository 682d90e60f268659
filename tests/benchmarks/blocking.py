"""What an event costs code without async, beside the official SDK, in one run on one machine: compare the ratios.

    python -m tests.benchmarks.blocking

CPU time of the client's process, all threads of it; the server is another process. "burst": the answer is there at once.
"paced": a thousand events a second, each by itself, so that each is waited for.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rawsse.client.blocking import Client

EVENTS = 20_000
PACED_EVENTS = 1_000
ROUNDS = 5  # the best of them counts: the others were disturbed

ASK: Mapping[str, Any] = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"

Ask = Callable[[Any], int]


def sse(raw: Mapping[str, Any]) -> bytes:
    return f"event: {raw['type']}\ndata: {json.dumps(raw)}\n\n".encode()


def events(count: int) -> Iterator[bytes]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    yield sse({"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None}})
    yield sse({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    for at in range(count):
        delta = {"type": "text_delta", "text": f" word{at % 1000}"}
        yield sse({"type": "content_block_delta", "index": 0, "delta": delta})
    yield sse({"type": "content_block_stop", "index": 0})
    ending = {"stop_reason": "end_turn", "stop_sequence": None}
    yield sse({"type": "message_delta", "delta": ending, "usage": {"output_tokens": 1}})
    yield sse({"type": "message_stop"})


def serve(listener: socket.socket) -> None:
    """Answer whoever comes, for ever: `/paced/…` event by event, everything else at once."""
    burst = HEAD + b"".join(events(EVENTS))
    while True:
        peer, _ = listener.accept()
        with peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = b""
            while not request.endswith(b"}"):
                request += peer.recv(65536)
            if not request.startswith(b"POST /paced/"):
                peer.sendall(burst)
                continue
            peer.sendall(HEAD)
            for event in events(PACED_EVENTS):
                peer.sendall(event)
                time.sleep(0.001)


def text_stream(client: Any) -> int:
    with client.messages.stream(**ASK) as stream:
        return sum(1 for _ in stream.text_stream)


def wire_events(client: Any) -> int:
    return sum(1 for event in client.messages.create(**ASK, stream=True) if event.type == "content_block_delta")


def microseconds_per_event(ask: Ask, client: Any, count: int) -> float:
    started = time.process_time()
    if (came := ask(client)) != count:
        raise AssertionError(f"{came} events came instead of {count}")
    return (time.process_time() - started) / count * 1e6


def clients(base_url: str) -> dict[str, Any]:
    made: dict[str, Any] = {"rawsse": Client(api_key="any", base_url=base_url, max_retries=0)}
    try:
        sdk = importlib.import_module("anthropic")
    except ImportError:
        return made
    return {"official SDK": sdk.Anthropic(api_key="any", base_url=base_url, max_retries=0), **made}


def table(base_url: str) -> Iterator[str]:
    asks: Mapping[str, Ask] = {"text_stream": text_stream, "create(stream=True)": wire_events}
    paces = {"burst": (clients(base_url), EVENTS), "paced": (clients(f"{base_url}/paced"), PACED_EVENTS)}
    best: dict[tuple[str, str, str], float] = {}
    for _ in range(ROUNDS):  # round by round, so that what disturbs the machine disturbs all alike
        for pace, (made, count) in paces.items():
            for name, client in made.items():
                for call, ask in asks.items():
                    key = (pace, call, name)
                    best[key] = min(best.get(key, 1e9), microseconds_per_event(ask, client, count))
    first = next(iter(paces["burst"][0]))
    yield f"microseconds of CPU an event, and how many times less than {first}"
    for (pace, call, name), cost in best.items():
        yield f"{pace:>8} {call:>22} {name:>14} {cost:8.1f}  ({best[pace, call, first] / cost:.1f}x)"


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = multiprocessing.get_context("fork").Process(target=serve, args=(listener,), daemon=True)
        server.start()
        for row in table(f"http://127.0.0.1:{listener.getsockname()[1]}"):
            sys.stdout.write(row + "\n")
        server.terminate()
