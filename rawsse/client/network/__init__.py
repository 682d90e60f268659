"""Connections to the API: made, waited for, kept.

Read in this order:

    route.py     origins, proxies, and the way to an origin
    certificates.py which certificates are trusted, and what is wrong with one that is not
    tunnel.py    CONNECT: opening a tunnel through a proxy. Pure.
    link.py      what the client asks of a network: links, signals, time
    addresses.py from a name to a connected socket
    tls.py       TLS over any link
    connect.py   taking a route: TCP, TLS, tunnel, TLS
    asyncio_network.py the network of an event loop
    pool.py      which connection may carry the next request; the pools of one client
"""
