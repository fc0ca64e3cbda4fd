"""A server that is handed its socket, as by systemd: sd_listen_fds(3). It is hello.py otherwise.

    shared.py [notify|shut|beats]

notify: it says READY=1; shut: it ends its listener by shutdown(2).
beats: it says WATCHDOG=1 until it is asked for /mute.
"""

import http.server
import os
import signal
import socket
import sys
import threading

from hello import Handler

how = sys.argv[1] if len(sys.argv) > 1 else ""
assert os.environ["LISTEN_PID"] == str(os.getpid()), "it is for somebody else"
print("blocking", os.get_blocking(3), flush=True)
print("handed", os.environ["LISTEN_FDS"], "named", os.environ["LISTEN_FDNAMES"], flush=True)


def tell(text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), os.environ["NOTIFY_SOCKET"].replace("@", "\0"))


class Muting(Handler):
    """A worker that can be told to be silent."""

    def send_response(self, code: int, message: str | None = None) -> None:
        path = self.path.partition("?")[0]
        if path == "/mute":
            muted.set()
        super().send_response(code, message)


class Server(http.server.ThreadingHTTPServer):
    """On a listener that is there."""

    daemon_threads = False

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener.getsockname(), Muting, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = listener.getsockname()[:2]


def beat() -> None:
    told = 0
    while not muted.wait(0.1):
        tell("WATCHDOG=1")
        told += 1
        print("told", told, flush=True)


muted = threading.Event()
listener = socket.socket(fileno=3)
# It waits by poll: accept would wait for ever where another worker was quicker.
listener.setblocking(False)
server = Server(listener)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
if how == "notify":
    tell("READY=1\nSTATUS=it listens")
if how == "beats":
    threading.Thread(target=beat, daemon=True).start()
server.serve_forever(poll_interval=0.05)
if how == "shut":
    server.socket.shutdown(socket.SHUT_RDWR)
server.server_close()
