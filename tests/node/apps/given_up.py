"""A worker that gives up root says who it is to whoever connects: `given_up.py PORT UID [GID]`."""

import os
import socket
import sys

from rrdispatch import cluster

port, uid, *gid = (int(word) for word in sys.argv[1:])

if cluster.is_primary:
    cluster.setup_primary(uid=uid, gid=gid[0] if gid else None)
    cluster.on("listening", lambda worker, address: print("listening", flush=True))
    cluster.fork()
else:
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = listener.accept()
        told = (os.getresuid(), os.getresgid(), os.getgroups())
        connection.sendall(repr(told).encode())
        connection.close()
