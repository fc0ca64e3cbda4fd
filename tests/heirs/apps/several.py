"""A server on several ports that knows nothing of rrdispatch: several.py LATER PORT...

``/``: who answers; ``/hold``: the same, when the file SEVERAL_HOLD exists. SIGUSR1: it listens on
port LATER, too, and says ``asks THREAD`` and ``has it`` or the error. With SEVERAL_BOOT in the
environment it begins so many seconds later. With PROBE_JOURNAL it writes down what it took, as the
probe app does (tests/harness/apps/journal.py).
"""

import http.server
import os
import signal
import socket
import sys
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    """Names the worker that answers."""

    def do_GET(self) -> None:
        if self.path.startswith("/hold"):
            while not os.path.exists(os.environ["SEVERAL_HOLD"]):
                time.sleep(0.01)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        for name, value in (("X-Pid", os.getpid()), ("X-Slot", os.environ["RRDISPATCH_SLOT"])):
            self.send_header(name, str(value))
        self.send_header("X-Version", "1")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """No line per request."""


class Server(http.server.ThreadingHTTPServer):
    """Tells whose connection it took."""

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, peer = super().get_request()
        if JOURNAL >= 0:
            os.write(JOURNAL, f"T {peer[1]} {time.monotonic_ns()}\n".encode())
        return connection, peer


def journal() -> int:
    folder = os.environ.get("PROBE_JOURNAL")
    if folder is None:
        return -1
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    return os.open(os.path.join(folder, str(os.getpid())), flags, 0o644)


JOURNAL = journal()


def serve(*ports: str) -> None:
    servers = [Server(("127.0.0.1", int(port)), Handler) for port in ports]
    # It is ready when one of them waits: by then it listens on all.
    for server in servers:
        threading.Thread(target=server.serve_forever).start()


def later() -> None:
    print("asks", threading.get_native_id(), flush=True)
    try:
        serve(sys.argv[1])
    except OSError as error:
        print("has not:", error, flush=True)
    else:
        print("has it", flush=True)


signal.signal(signal.SIGUSR1, lambda *_: threading.Thread(target=later).start())
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
time.sleep(float(os.environ.get("SEVERAL_BOOT", "0")))
serve(*sys.argv[2:])
while True:
    signal.pause()
