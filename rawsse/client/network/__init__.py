"""Connections to the API: made, waited for, kept.

Read in this order:

    route.py     origins, proxies, and the way to an origin
    certificates.py which certificates are trusted, and what is wrong with one that is not
    link.py      what the client asks of a network: links, signals, time
    tls.py       TLS over any link
    connect.py   taking a route: names and addresses, TCP, TLS, a tunnel through a proxy
    asyncio_network.py the network of an event loop
    pool.py      which connection may carry the next request; the pools of one client
"""
