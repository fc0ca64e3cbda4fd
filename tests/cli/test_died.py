"""A primary that dies in its start takes nobody with it but its own."""

from __future__ import annotations

import os
import socket

import pytest

from rrdispatch.control import definitions, detach
from rrdispatch.errors import StartError
from tests.cli.plane import Plane, get

DIES = "import sys; print('last words', flush=True); sys.exit(1)"
LISTENS = """
import os, socket, sys
sys.path[0] = sys.argv[1]
from rrdispatch.control.statedir import claim
place, link = claim("web"), socket.socket(fileno=3)
link.recv(1 << 20)
if os.fork():
    os._exit(1)  # without a word; the socket lives on, as a dispatcher's copy of it does
link.close()
place.control.setblocking(True)
client = place.control.accept()[0]
open(place.folder.parent / "asked", "wb").write(client.recv(65536))
client.sendall(b'{"jsonrpc": "2.0", "id": 1, "result": null}\\n')
"""


def failed(plane: Plane, how: str, monkeypatch: pytest.MonkeyPatch) -> StartError:
    """Of a start of ``web`` whose primary does this."""
    pids, spawn = [], detach._spawn

    def noted(definition: definitions.Definition, its: socket.socket) -> tuple[int, int, int]:
        made = spawn(definition, its)
        pids.append(made[1])
        return made

    monkeypatch.setenv("RRDISPATCH_HOME", str(plane.home))
    monkeypatch.setattr(detach, "_RUN", how)
    monkeypatch.setattr(detach, "_spawn", noted)
    definition = definitions.Definition("web", cwd=str(plane.here), environ=plane.environment())
    with pytest.raises(StartError, match="ended without a word") as caught:
        detach.start(definition, 30.0, lambda _: None)
    with pytest.raises(ChildProcessError):  # it is reaped
        os.waitpid(pids[0], os.WNOHANG)
    return caught.value


def test_the_app_of_that_name_lives_on(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plane.start()
    error = failed(plane, DIES, monkeypatch)
    assert "last words" in error.output
    after = plane.row()
    assert (after["status"], after["primary_pid"]) == ("online", before["primary_pid"])
    assert get(after)["pid"] in [worker["pid"] for worker in before["workers"]]


def test_its_own_heir_is_ended(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    failed(plane, LISTENS, monkeypatch)
    assert b'"kill"' in (plane.home / "asked").read_bytes()
