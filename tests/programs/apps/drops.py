"""A server that gives up root, as many do; it is hello.py otherwise.

    drops.py early|late PORT

early: before it binds; late: after it listens, before it accepts.
"""

import http.server
import os
import sys

from hello import Handler

NOBODY = 65534
when, port = sys.argv[1], int(sys.argv[2])
"x".encode("idna")  # what is imported later may not be readable then


def drop() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


if when == "early":
    drop()
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
if when == "late":
    drop()
print("served by user", os.getuid(), flush=True)
server.serve_forever()
