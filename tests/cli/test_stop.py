"""``stop`` is a wish that stays, whatever else ends the app at the same moment."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rrdispatch.control import definitions, ending, protocol, statedir
from rrdispatch.control.definitions import RUN, STOP, Definition
from rrdispatch.errors import ControlError
from tests.cli.plane import Plane, finish
from tests.harness.servers import wait_until

SLOW = """
import asyncio, pathlib
async def app(scope, receive, send):
    if scope['type'] != 'http': return
    pathlib.Path('begun').touch()
    while not pathlib.Path('finish').exists(): await asyncio.sleep(0.02)
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': b'all of it'})
"""


def rest(client: socket.socket) -> bytes:
    with client.makefile("rb") as answer:
        return answer.read()


def first_refusal(plane: Plane) -> tuple[int, str]:
    """Of a start, by a primary that had a core to say what it does; else its lock says less."""
    said: list[tuple[int, str]] = []

    def answered() -> bool:
        told = plane.type("start", "web")
        said.append((told.code, told.err.splitlines()[0]))
        return said[-1] != (8, "error: web runs already")

    wait_until(answered, 60.0)
    return said[-1]


def wanted(plane: Plane) -> str:
    found = definitions.load("web", plane.home)
    assert found is not None
    return found.wanted


def test_an_app_that_a_signal_ends_is_stopped_all_the_same(plane: Plane) -> None:
    (plane.here / "slow.py").write_text(SLOW)
    row = plane.start("slow:app", "--drain-timeout", "300")
    host, port = row["listeners"][0].split(":")
    with socket.create_connection((host, int(port)), 60) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_until((plane.here / "begun").exists, 60.0)
        os.kill(row["primary_pid"], signal.SIGTERM)
        wait_until(lambda: plane.row()["status"] == "stopping", 60.0)
        assert wanted(plane) == RUN
        stop = plane.begin("stop", "web")
        wait_until(lambda: wanted(plane) == STOP, 60.0)
        assert plane.row()["status"] == "stopping"
        (plane.here / "finish").touch()
        assert b"all of it" in rest(client)  # and nothing was cut off
    assert finish(stop).code == 0
    assert plane.ok("resurrect") == "nothing to start\n"


@pytest.mark.parametrize(("command", "after"), [("stop", STOP), ("kill", RUN), ("delete", STOP)])
def test_what_an_interrupt_leaves_goes_on(plane: Plane, command: str, after: str) -> None:
    (plane.here / "slow.py").write_text(SLOW)
    host, port = plane.start("slow:app", "--drain-timeout", "300")["listeners"][0].split(":")
    plane.start("shop:app", name="other")
    with socket.create_connection((host, int(port)), 60) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_until((plane.here / "begun").exists, 60.0)
        ending = plane.begin(command, *(() if command == "kill" else ("all",)))
        wait_until(lambda: plane.row()["status"] == "stopping", 60.0)
        assert ending.stdout is not None
        assert ending.stdout.readline().startswith("other: ")
        ending.send_signal(signal.SIGINT)
        told = finish(ending)
        assert (told.code, told.err.count("interrupted: web: ")) == (130, 1), told
        assert first_refusal(plane) == (8, "error: web is still stopping")
        (plane.here / "finish").touch()
        assert b"all of it" in rest(client)
    wait_until(lambda: plane.row()["status"] == "stopped", 60.0)
    assert wanted(plane) == after


def test_one_that_is_gone_before_it_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended by a signal between its stats and the stop; its dispatcher has the lock for longer."""
    monkeypatch.setenv("RRDISPATCH_HOME", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    place = statedir.claim("web")
    definitions.save(Definition("web", id=0, wanted=RUN, started=time.time()))
    place.control.setblocking(True)
    refused, hold = threading.Event(), statedir.hold

    def held(name: str) -> tuple[int, int]:
        try:
            return hold(name)
        except ControlError:
            refused.set()
            raise

    monkeypatch.setattr(statedir, "hold", held)

    def primary() -> None:
        client = place.control.accept()[0]
        with client:
            client.recv(65536)
            client.sendall(protocol.result(1, {"primary_pid": gone.pid, "state": "serving"}))
            place.control.close()
            client.recv(65536)
        refused.wait(60)
        place.close()

    thread = threading.Thread(target=primary)
    thread.start()
    found = definitions.load("web")
    assert found is not None
    assert ending.stop(found)
    thread.join()
    after = definitions.load("web")
    assert after is not None
    assert after.wanted == STOP
