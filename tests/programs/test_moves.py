"""Releases that listen elsewhere than the one before."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.servers import START_TIMEOUT, Server, rrdispatch_command, wait_until
from tests.programs.program import Program, free_port


def refused(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


def reload_to(program: Program, where: Path, *ports: int) -> None:
    where.write_text(" ".join(map(str, ports)))
    done = len(program.said("reloaded in"))
    program.send_signal(signal.SIGHUP)
    wait_until(lambda: len(program.said("reloaded in")) > done, 60.0)


@pytest.mark.parametrize("dispatcher", ["c", "python"])
def test_what_the_new_release_does_not_listen_on_is_closed(tmp_path: Path, dispatcher: str) -> None:
    """And opened again by the next one that does."""
    first, second, third = free_port(), free_port(), free_port()
    where = tmp_path / "ports"
    where.write_text(f"{first} {second}")
    options = ("-i", "2", "--probation", "0.2", "--dispatcher", dispatcher)
    with Program("moves.py", *options, "--", str(where), port=first) as program:
        assert not refused(first)
        assert not refused(second)
        reload_to(program, where, first, third)
        program.output.wait(f"no longer listening on 127.0.0.1:{second}", 30.0)
        assert refused(second)
        assert not refused(third)
        assert len(program.ask(10).ok) == 10
        reload_to(program, where, second, first)
        program.output.wait(f"no longer listening on 127.0.0.1:{third}", 30.0)
        assert refused(third)
        for port in (first, second):
            program.address = f"127.0.0.1:{port}"
            assert len(program.ask(10).ok) == 10


def test_a_death_closes_nothing(tmp_path: Path) -> None:
    """What waits while nobody lives is answered by the next one."""
    first, second = free_port(), free_port()
    where = tmp_path / "ports"
    where.write_text(f"{first} {second}")
    options = ("-i", "1", "--probation", "0.2")
    with Program("moves.py", *options, "--", str(where), port=second) as program:
        reload_to(program, where, first, second)
        assert len(program.ask(3).ok) == 3
        processes.kill(program.workers()[0])
        assert len(program.ask(10).ok) >= 9
        assert "no longer listening" not in program.output.text()


LATE = """
import os, signal, socket, sys

def listen(*_):
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    os.write(1, b"listens after all\\n")
    os._exit(0)

signal.signal(signal.SIGTERM, listen)
os.write(1, b"is there\\n")
while True:
    signal.pause()
"""


@pytest.mark.parametrize("dispatcher", ["c", "python"])
def test_who_listens_when_it_is_told_to_end_is_no_warning(tmp_path: Path, dispatcher: str) -> None:
    script = tmp_path / "late.py"
    script.write_text(LATE)
    options = ("-i", "1", "--dispatcher", dispatcher)
    server = Server(rrdispatch_command("run", str(script), *options, "--", str(free_port())))
    with server:
        server.output.wait("is there", START_TIMEOUT)
        assert server.stop() == 0
        assert "listens after all" in server.output.text()
        assert "warning" not in server.output.text()
