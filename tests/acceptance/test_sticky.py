"""python-socketio's long polling: a session lives in one worker, each poll is a connection."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness.clusters import address, cluster

requests = pytest.importorskip("requests", reason="pip install 'python-socketio[client]'")
socketio = pytest.importorskip("socketio", reason="pip install 'python-socketio[client]'")

APP = """
import socketio

# A poll is answered at the latest with a ping: who leaves waits so long for its last one.
server = socketio.AsyncServer(async_mode="asgi", ping_interval=1, ping_timeout=30)
app = socketio.ASGIApp(server)


@server.event
async def ask(sid, number):
    return number
"""
CALLS = 3
SILENT = logging.getLogger("engineio.silent")  # its threads outlive the test, and its stderr
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False


class From(requests.adapters.HTTPAdapter):
    """From one address; never the same connection twice."""

    def __init__(self, source: str) -> None:
        self._source = source
        super().__init__()

    def init_poolmanager(self, *arguments, **more):
        super().init_poolmanager(*arguments, **more, source_address=(self._source, 0))


def client(number: int, server: str, patience: float) -> bool:
    """One that connects, asks a few times, and goes: did it get its answers?"""
    with requests.Session() as session:
        session.mount("http://", From(f"127.0.0.{number + 1}"))
        session.headers["Connection"] = "close"
        one = socketio.Client(
            reconnection=False, http_session=session, request_timeout=patience,
            engineio_logger=SILENT,
        )  # fmt: skip
        try:
            one.connect(f"http://{server}", transports=["polling"], wait_timeout=patience)
            return [one.call("ask", n, timeout=patience) for n in range(CALLS)] == list(
                range(CALLS)
            )
        except (socketio.exceptions.SocketIOError, requests.exceptions.RequestException):
            return False
        finally:
            one.eio.disconnect(abort=True)


def served(tmp_path: Path, clients: int, patience: float, policy: str) -> int:
    """How many of so many clients, several at a time, got what they came for."""
    (tmp_path / "rooms.py").write_text(APP)
    # Who gets no core for a second is passed over, and its sessions are lost.
    more = {"policy": policy, "drain_timeout": 1, "stall_timeout": 60}
    with cluster("rooms:app", cwd=tmp_path, workers=2, **more) as running:
        server = address(running)
        with ThreadPoolExecutor(5) as pool:
            return sum(pool.map(lambda number: client(number, server, patience), range(clients)))


def test_every_client_of_source_hash_is_served(tmp_path: Path) -> None:
    assert served(tmp_path, 20, 30.0, "source-hash") == 20


def test_in_turn_their_sessions_are_lost(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    assert served(tmp_path, 8, 2.0, "round-robin") < 8
