"""What several test modules share.

clock.py     running a coroutine in virtual time, and failing on everything that it leaves behind
streams.py   events of the Messages API, written by hand
answers.py   answers of an HTTP server as bytes, and clients that get them
reading.py   reading such an answer through a client: every event, or the error
sockets.py   a server on a loopback socket, with or without TLS
browser.py   a real Chromium
"""
