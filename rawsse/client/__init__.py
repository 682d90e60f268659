"""Talking to the API.

Read in this order:

    retry.py     how long to wait, which failure may be retried, and when; the rate limits in a response's header. Pure.
    network/     connections: routes and proxies, TCP and TLS for asyncio and for blocking code, the pool
    request.py   from arguments to a request
    schema.py    Python types and functions as JSON Schema. Pure.
    output.py    answers as values of a type. Pure.
    exchange.py  one HTTP request and its response. Pure.
    answer.py    one attempt at an answer: typed events, and how they end. Pure.
    stream.py    a request, tried until an answer begins; the answer as it comes: events, text, the message so far
    tools/       answers that call functions; conversations
    resources.py the calls: `client.messages`, `client.models`; lists that come in pages
    client.py    keys, options, connections: AsyncClient
    blocking/    Client: the same calls for code without async

`tools/`, `blocking/` and `schema.py` are loaded when they are first used: a program that only streams does not pay for them.
"""
