"""Connections to the API: how they are made, used and reused.

Read in this order:

    route.py            origins, proxies, and the route to an origin
    link.py             the interface of a connection: links, signals, functions in threads
    tls.py              trusted certificates, and TLS over any link
    connect.py          the interface of a network; connecting over a route: DNS, TCP, TLS, a tunnel through a proxy
    asyncio_network.py  the network of an event loop
    pool.py             which connection may carry the next request; the pools of one client
"""
