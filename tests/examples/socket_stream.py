"""Claude's answer with a socket and nothing else: what rawsse stands on, in one file, from top to bottom.

    ANTHROPIC_API_KEY=sk-ant-… python socket_stream.py "What is a server-sent event?"

Four steps, each a generator that reads the one before it:  reads -> chunks -> events -> texts.  What it leaves out is in
rawsse: limits, clocks, retries, proxies, compression, other bodies than chunked ones, connections that are used again.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import urlsplit


def reads(question: str) -> Iterator[bytes]:
    """Connect, send the request, and yield what each read brings. A read ends anywhere, also within a character."""
    url = urlsplit(os.environ.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com"))
    is_tls, host = url.scheme == "https", url.hostname or ""
    messages = [{"role": "user", "content": question}]
    body = json.dumps({"model": "claude-sonnet-5", "max_tokens": 1024, "stream": True, "messages": messages}).encode()
    # HTTP/1.1: a request line, header fields, an empty line, the body (RFC 9112, 2.1). Every line ends in CR LF.
    head = (
        f"POST {url.path.rstrip('/')}/v1/messages HTTP/1.1",
        f"Host: {url.netloc}",
        f"X-Api-Key: {os.environ.get('ANTHROPIC_API_KEY') or sys.exit('ANTHROPIC_API_KEY is not set')}",
        "Anthropic-Version: 2023-06-01",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",  # one request on this connection, and no more
    )
    connection = socket.create_connection((host, url.port or (443 if is_tls else 80)), timeout=90)
    if is_tls:  # the default context checks that the certificate is valid, and that it is the host's
        connection = ssl.create_default_context().wrap_socket(connection, server_hostname=host)
    with connection:
        connection.sendall("\r\n".join((*head, "", "")).encode() + body)
        while data := connection.recv(65536):
            yield data


def chunks_of(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Take the HTTP away: the head, and the sizes of the chunks (RFC 9112, 7.1)."""
    rest = b""

    def until(mark: bytes) -> bytes:
        nonlocal rest  # of what was read, for the next step: a read may end within a mark
        while mark not in rest:
            rest += next(pieces, None) or cut()
        found, _, rest = rest.partition(mark)
        return found

    status, *_ = until(b"\r\n\r\n").decode("latin-1").split("\r\n")  # and the header fields
    if status.split(" ")[1] != "200":  # the API says in JSON what was wrong
        raise SystemExit(f"{status}: {b''.join([rest, *pieces]).decode(errors='replace')}")
    # A chunk is its size in hexadecimal, CR LF, so many bytes, CR LF. The chunk of size 0 is the end.
    while size := int(until(b"\r\n").split(b";")[0], 16):
        while len(rest) < size + 2:
            rest += next(pieces, None) or cut()
        yield rest[:size]
        rest = rest[size + 2 :]


def events_of(chunks: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """Server-sent events (WHATWG HTML, 9.2.6): `data:` lines add up, and an empty line sends off what has come."""
    rest, data = b"", b""
    for chunk in chunks:  # a chunk is not an event: an event may come in many, and a chunk may bring many
        *lines, rest = (rest + chunk).split(b"\n")  # `event:` lines repeat the JSON's type, `:` begins a comment
        for line in (line.removesuffix(b"\r") for line in lines):
            if line.startswith(b"data:"):
                data += line[5:] + b"\n"
            elif not line and data:
                yield json.loads(data)  # UTF-8 is decoded now: in a whole event no character is cut
                data = b""


def texts_of(events: Iterator[dict[str, Any]]) -> Iterator[str]:
    """The Messages API's events, down to the text. Only `message_stop` says that the answer is whole."""
    for event in events:
        if event["type"] == "content_block_delta" and event["delta"]["type"] == "text_delta":
            yield event["delta"]["text"]
        elif event["type"] == "error":  # it may come after half an answer, though the status was 200
            raise SystemExit(f"\n{event['error']['type']}: {event['error']['message']}")
        elif event["type"] == "message_stop":
            return
    cut()


def cut() -> NoReturn:
    raise SystemExit("\nthe connection closed before the end: this is half an answer")


if __name__ == "__main__":
    for text in texts_of(events_of(chunks_of(reads(" ".join(sys.argv[1:]))))):
        print(text, end="", flush=True)
    print()
