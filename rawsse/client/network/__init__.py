"""Connections to the API: how they are made, used and reused.

Read in this order:

    route.py            origins, proxies, and the way to an origin
    certificates.py     trusted certificates, and the reason why one is not trusted
    link.py             the interface of a network: links, signals, time
    tls.py              TLS over any link
    connect.py          taking a route: names and addresses, TCP, TLS, a tunnel through a proxy
    asyncio_network.py  the network of an event loop
    pool.py             which connection may carry the next request; the pools of one client
"""
