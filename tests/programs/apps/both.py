"""Listens on IPv4 and on IPv6 alone, as redis and nginx do: both.py PORT FIRST SECOND."""

import select
import socket
import sys

listeners = []
for host in sys.argv[2:]:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in host:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind((host, int(sys.argv[1])))
    listener.listen()
    listeners.append(listener)
while True:
    for ready in select.select(listeners, [], [])[0]:
        connection, peer = ready.accept()
        connection.sendall(peer[0].encode())
        connection.close()
