"""Node's cluster, in Python: a worker per core, one port, and a new worker for each that dies.

    python examples/node_style.py 8000

The script is the primary; each worker is the same script again. The server knows nothing of it.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import sched_getaffinity

from rrdispatch import cluster


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"hello from worker {cluster.worker.id}\n".encode())


if cluster.is_primary:
    for _ in sched_getaffinity(0):
        cluster.fork()

    @cluster.on("exit")
    def again(worker: cluster.Worker, code: int | None, signal: str | None) -> None:
        print(f"worker {worker.id} ended: {signal or code}", flush=True)
        cluster.fork()
else:
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Hello).serve_forever()
