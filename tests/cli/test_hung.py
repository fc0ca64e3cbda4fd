"""``kill`` of all apps, of which one has a worker that hears nothing."""

from __future__ import annotations

import socket
import time

import pytest

from tests.cli.plane import Plane
from tests.harness import processes
from tests.harness.servers import wait_until

BLOCKS = """
import pathlib, signal, time
async def app(scope, receive, send):
    if scope["type"] == "http":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        pathlib.Path("blocked").touch()
        while True:
            time.sleep(1000)
"""
LIMIT = 100  # seconds: of what would sleep for 1000


@pytest.mark.parametrize("how", ["kill", "kill --now", "delete all"])
def test_all_are_ended(plane: Plane, how: str) -> None:
    (plane.here / "blocks.py").write_text(BLOCKS)
    hung = plane.start("blocks:app", "--drain-timeout", "2s", name="hung")
    plane.start(name="web")
    plane.ok("start", "--name", "job", "-i", "1", "--no-listen", "--", "sleep", "1000")
    host, _, port = hung["listeners"][0].rpartition(":")
    with socket.create_connection((host, int(port)), 60) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until((plane.here / "blocked").exists, 30.0)
        began = time.monotonic()
        told = plane.type(*how.split())
        assert told.code == 0, told
        assert time.monotonic() - began < LIMIT
    word = "deleted" if how.startswith("delete") else "stopped"
    assert sorted(told.out.splitlines()) == [f"{name}: {word}" for name in ("hung", "job", "web")]
    assert processes.wait_gone(plane.living(), 60.0) == []
    if how == "kill":
        told_later = plane.ok("logs", "hung", "--nostream")
        assert "killed: not ended within drain_timeout (2 s)" in told_later
    rows = {row["name"]: row["status"] for row in plane.rows()}
    assert rows == ({} if word == "deleted" else dict.fromkeys(("hung", "web", "job"), "stopped"))
