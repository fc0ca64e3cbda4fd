"""Whoever a program becomes, its requests are answered; and nobody else's are."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

from rrdispatch.cluster import door
from rrdispatch.cluster.door import Answer, Door
from tests.harness import processes
from tests.harness.load import load_beside
from tests.harness.records import Plan
from tests.harness.servers import Server, rrdispatch_command, wait_until
from tests.programs.program import APPS, PATIENT, Program, free_port

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which the program gives up")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux'")
NOBODY = 65534


@ROOT
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_program_that_drops_privileges_is_served_and_reloaded(when: str) -> None:
    port = free_port()
    options = ("-i", "2", "--probation", "0.2", *PATIENT)
    with Program("drops.py", *options, "--", when, str(port), port=port) as program:
        said = "served by user (.*)"
        wait_until(lambda: program.said(said) == [str(NOBODY)] * 2, 30.0)
        tally = program.ask(40)
        assert len(tally.ok) == 40
        assert set(tally.split().values()) == {20}
        with load_beside(program, Plan(program.address, rate=50.0)) as load:
            load.wait_more(10)
            program.send_signal(signal.SIGHUP)
            program.output.wait(r": reloaded in", 60.0)
            load.wait_more(10)
            assert not load.stop().failed


@LINUX
def test_a_killed_primary_leaves_no_file(tmp_path: Path) -> None:
    port = free_port()
    command = rrdispatch_command("run", "hello.py", "-i", "1", "--", str(port))
    server = Server(command, cwd=APPS, env={"TMPDIR": str(tmp_path)})
    try:
        server.output.wait(r": ready after", 60.0)
        server.processes()
        processes.kill(server.pid)
        server.wait()
        server.assert_nothing_left(30.0)
        assert list(tmp_path.iterdir()) == []
    finally:
        server.close()


@ROOT
@LINUX
def test_a_program_in_a_network_of_its_own_is_left_alone(tmp_path: Path) -> None:
    """It listens there by itself, which nobody can do for it; and that is said."""
    unshare = shutil.which("unshare")
    if unshare is None or os.system(f"{unshare} -n true") != 0:
        pytest.skip("no network namespace can be made here")
    told = tmp_path / "listens.py"
    told.write_text(
        "import socket, sys\n"
        "s = socket.socket()\n"
        "s.bind(('0.0.0.0', int(sys.argv[1])))\n"
        "s.listen()\n"
        "print('it listens:', s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), flush=True)\n"
        "s.accept()\n"
    )
    command = ("--", "unshare", "-n", sys.executable, str(told), str(free_port()))
    server = Server(rrdispatch_command("run", "-i", "1", "--ready-timeout", "6", *command))
    try:
        assert server.wait() == 5
        assert "it listens: 1" in server.output.text()
        assert "never asked for a connection" in server.output.text()
    finally:
        server.close()


# ---- the door alone -----------------------------------------------------------------------------


def ask(path: str, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(20)
        client.connect(path.replace("@", "\0"))
        client.send(data)
        return client.recv(1024)


def request(kind: int = door.READY) -> bytes:
    fields = (door.MAGIC, door.VERSION, kind, 1, bytes(16), os.getpid(), 0, 0, 0, 0, 0, 0)
    return door.REQUEST.pack(*fields, b"", b"")


def nobody(_: int) -> bool:
    """There is no worker."""
    return False


def test_the_door_tells_who_asks() -> None:
    async def main() -> None:
        asked: list[door.Request] = []

        def answer(request: door.Request) -> Answer:
            asked.append(request)
            return Answer(-errno.EPERM)

        opened = Door(answer, nobody)
        try:
            answered = await asyncio.to_thread(ask, opened.path, request())
            assert door.ANSWER.unpack(answered)[2] == -errno.EPERM
            assert await asyncio.to_thread(ask, opened.path, b"nonsense") == b""
        finally:
            opened.close()
        assert [one.uid for one in asked] == [os.geteuid()]
        with pytest.raises(ConnectionRefusedError):
            ask(opened.path, request())

    asyncio.run(main())


def test_strangers_cannot_hold_the_door_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are few at a time; who is known gets an answer however many wait there."""
    come = itertools.count()
    monkeypatch.setattr(door, "is_known", lambda *_: next(come) >= 40)

    async def main() -> None:
        opened = Door(lambda _: Answer(), nobody)
        held = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(40)]
        try:
            for one in held:
                one.connect(opened.path.replace("@", "\0"))
            answered = await asyncio.to_thread(ask, opened.path, request())
            assert door.ANSWER.unpack(answered)[2] == 0
            assert len(opened._clients) == door.MOST_STRANGERS
        finally:
            for one in held:
                one.close()
            opened.close()

    asyncio.run(main())


def test_without_names_that_are_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door.sys, "platform", "other")

    async def main() -> Path:
        opened = Door(lambda _: Answer(), nobody)
        answered = await asyncio.to_thread(ask, opened.path, request())
        assert door.ANSWER.unpack(answered)[2] == 0
        opened.close()
        return Path(opened.path)

    path = asyncio.run(main())
    assert path.is_absolute()
    assert not path.parent.exists()


@LINUX
def test_whois_known() -> None:
    assert door.is_known(os.getpid(), os.geteuid(), nobody)
    assert door.is_known(1, 0, nobody)
    assert not door.is_known(1, 4242, nobody)
    server = Server([sys.executable, "-c", "print('up', flush=True); input()"])
    try:
        wait_until(lambda: processes.process(server.pid) is not None, 10.0)
        worker = os.getpid().__eq__
        assert door.is_known(server.pid, 4242, worker), "a child of a worker"
        assert door.is_known(os.getpid(), 4242, worker)
        assert not door.is_known(os.getppid(), 4242, worker)
    finally:
        server.close()
