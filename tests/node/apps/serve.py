"""A server per worker, over one port or more: each answers with its id and pid."""

import dataclasses
import http.server
import json
import os
import sys
import threading
import time

from rrdispatch import cluster
from rrdispatch.node import setup

fifo = sys.argv[1]
workers, *ports = (int(word) for word in sys.argv[2:])


def say(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/slow"):
            time.sleep(0.05)
        body = f"{cluster.worker.id} {os.getpid()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


asked = []
leaving = []  # who goes when the next one listens


def obey(word, *rest):
    if word == "disconnect":
        cluster.workers[int(rest[0])].disconnect()
    elif word == "replace":
        leaving.append(cluster.workers[int(rest[0])])
        cluster.fork()
    elif word == "kill":
        cluster.workers[int(rest[0])].kill("SIGKILL")
    elif word == "end":
        asked.append(True)
        cluster.disconnect()


def orders():
    """A line is an order."""
    with os.fdopen(os.open(fifo, os.O_RDWR)) as lines:
        for line in lines:
            obey(*line.split())


def patient():
    """A worker that has no core for a moment keeps its turn."""
    given = setup.app_settings
    setup.app_settings = lambda settings: dataclasses.replace(given(settings), stall_timeout=60.0)


def primary():
    if "PATIENT" in os.environ:
        patient()

    @cluster.on("listening")
    def listening(worker, address):
        say("listening", worker=worker.id, port=address.port)
        if leaving:
            leaving.pop().disconnect()

    @cluster.on("exit")
    def gone(worker, code, signal):
        after = worker.exited_after_disconnect
        say("exit", worker=worker.id, code=code, signal=signal, after=after)
        if not asked and not after:
            cluster.fork()

    threading.Thread(target=orders, daemon=True).start()
    for _ in range(workers):
        cluster.fork()


def worker():
    servers = [Server(("127.0.0.1", port), Handler) for port in ports]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


if cluster.is_primary:
    primary()
else:
    worker()
