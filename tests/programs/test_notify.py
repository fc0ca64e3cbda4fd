"""What a program says as to systemd: who is heard, and what comes of it."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from rrdispatch.cluster import door, sdnotify
from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.workers import Workers
from tests.programs.program import APPS, PATIENT, Program, free_port


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets and credentials are Linux'")
def test_who_may_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its user, root, and what came from the worker; and no descriptor stays with us."""
    sock = sdnotify.open_socket()
    assert sock is not None
    with sock, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program:
        program.connect(sock.getsockname())
        assert sdnotify.receive(sock, 1) is None
        program.send(b"READY=1\nSTATUS=up")
        assert sdnotify.receive(sock, 1) == "READY=1\nSTATUS=up"
        monkeypatch.setattr(sdnotify, "is_known", lambda *_: False)
        program.send(b"READY=1")
        assert sdnotify.receive(sock, 1) == ""
        ours, its = socket.socketpair()
        with ours:
            with its:
                socket.send_fds(program, [b"BARRIER=1"], [its.fileno()])
            assert sdnotify.receive(sock, 1) == ""
            ours.settimeout(20)
            assert ours.recv(1) == b"", "nobody holds the other end any more"


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets and credentials are Linux'")
def test_strangers_are_heard_one_a_turn_but_hide_no_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def is_known(*_: object) -> bool:
        asked.append(1)
        return len(asked) > 3

    monkeypatch.setattr(sdnotify, "is_known", is_known)
    said: list[str] = []
    workers = Workers.__new__(Workers)
    workers._silence = 0.0
    monkeypatch.setattr(workers, "_said", lambda _handle, text: said.append(text), raising=False)
    sock = sdnotify.open_socket()
    assert sock is not None
    with sock, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program:
        for _ in range(5):
            program.sendto(b"STOPPING=1", sock.getsockname())
        handle = WorkerHandle(1, 0, 1, sd_notify=sock)
        workers._heard(handle)
        assert (len(asked), said) == (1, [])
        workers._heard(handle, at_last=True)
        assert (len(asked), said[-2:]) == (5, ["STOPPING=1"] * 2)


def test_few_ancestors_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(door, "_parent", lambda pid: read.append(pid) or pid + 1)
    assert not door.is_known(1000, os.geteuid() + 1, lambda _: False)
    assert len(read) <= 8


def test_a_preloaded_program_speaks_too(tmp_path: Path) -> None:
    """READY=1 counts where it is waited for; STATUS is shown."""
    (tmp_path / "hello.py").write_bytes((APPS / "hello.py").read_bytes())
    (tmp_path / "speaks.py").write_text(
        "import http.server, os, socket, sys\n"
        "from hello import Handler\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler)\n"
        "with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:\n"
        "    sock.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'].replace('@', '\\0'))\n"
        "server.serve_forever()\n"
    )
    port = free_port()
    options = ("-i", "2", "--wait-ready", *PATIENT, "--cwd", str(tmp_path))
    with Program("speaks.py", *options, "--", str(port), port=port) as program:
        tally = program.ask(20)
        assert tally.outcomes() == {"ok": 20}
        assert set(tally.split().values()) == {10}
