"""A worker that tries again as long as its port is in use."""

import http.server
import json
import sys
import time

from rrdispatch import cluster

port = int(sys.argv[1])


def say(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(cluster.worker.id).encode())

    def log_message(self, *_):
        pass


def try_to_serve():
    try:
        server = http.server.HTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        cluster.worker.send(error.errno)
        time.sleep(0.05)
    else:
        server.serve_forever()


if cluster.is_primary:
    cluster.on("message", lambda worker, number: say("in-use", errno=number))
    cluster.on("listening", lambda worker, address: say("listening", port=address.port))
    cluster.fork()
else:
    while True:
        try_to_serve()
