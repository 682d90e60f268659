"""The client of the Messages API.

Read in this order:

    retry.py     timeouts; which failures are retried, and when; rate limits in response headers. Pure.
    network/     connections: routes and proxies, TCP and TLS for asyncio and for blocking code, the pool
    request.py   from arguments to a request
    schema.py    Python types and functions as JSON Schema. Pure.
    output.py    answers parsed as values of a type. Pure.
    exchange.py  one HTTP request and its response. Pure.
    answer.py    one attempt at an answer: typed events, and how they end. Pure.
    stream.py    a request, retried until an answer begins; the answer as events, text, and the message so far
    tools/       answers that call functions; conversations
    resources.py the calls: `client.messages`, `client.models`; paginated lists
    client.py    keys, options, connections: AsyncClient
    blocking/    Client: the same calls for code without async

`tools/`, `blocking/` and `schema.py` are loaded on first use: a program that only streams does not pay for them.
"""
