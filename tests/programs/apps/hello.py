"""A server that knows nothing of rrdispatch: http.server with a thread per connection.

    hello.py PORT

``/``: who answers whom; ``/sleep/MS``: the same, later; ``/exit``: ends the process.
"""

import http.server
import os
import sys
import time


class Handler(http.server.BaseHTTPRequestHandler):
    """What a worker says of itself."""

    def do_GET(self) -> None:
        verb, _, amount = self.path.partition("?")[0].strip("/").partition("/")
        if verb == "exit":
            os._exit(3)
        if verb == "sleep":
            time.sleep(int(amount) / 1000)
        slot = os.environ.get("RRDISPATCH_SLOT", "-1")
        body = f"slot {slot} pid {os.getpid()} peer {self.client_address[0]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (("X-Pid", str(os.getpid())), ("X-Slot", slot), ("X-Version", "1")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """No line per request."""


if __name__ == "__main__":
    print("arguments", sys.argv[1:], flush=True)
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
