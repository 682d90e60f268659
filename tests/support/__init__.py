"""What several test modules share.

clock.py     running a coroutine in virtual time, and failing on everything that it leaves behind
streams.py   events of the Messages API, written by hand
answers.py   answers of an HTTP server as bytes, and clients that get them
reading.py   reading such an answer through a client: every event, or the error
sockets.py   a server on a loopback socket, with or without TLS
browser.py   a real Chromium
faults.py    peers that fail as a test says, and what a caller sees of it
networks.py  one test on every network: event loops in virtual time, uvloop, blocking sockets
pools.py     a network without loop and thread, whose peers a test plays
asking.py    scripted answers to a client that asks again, each history checked as the API checks it
fault_server.py  a server on loopback that plays scripts of bytes and faults, for clients that are not ours
sampling.py  the step through cases of which the plain suite takes a sample
secrets.py   canaries
terminal.py  a pseudo-terminal
"""
