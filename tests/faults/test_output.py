"""Nobody reads, the disk is full, the terminal is gone: the service goes on and says so later.

Stdout and stderr are one and the same file here, as they mostly are: primary and logger both write
to it, so that neither can rely on what poll says.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.kit import APPS
from tests.harness import processes
from tests.harness.ports import free_port
from tests.harness.servers import ROOT, rrdispatch_command, wait_until

BURST = 3000  # lines of 100 bytes: more than a pipe holds


class Writing:
    """A service whose output goes where a test says; it is known by its address only."""

    def __init__(self, out: int, limit: int = 0) -> None:
        self.port = free_port()
        command = rrdispatch_command(
            "run", "faulty:serve", "-i", "2", "--bind", f"127.0.0.1:{self.port}"
        )
        if limit:
            command = [sys.executable, "-c", LIMITED, str(limit), *command]
        self.popen = subprocess.Popen(
            command, cwd=APPS, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip

    def ask(self, said: str = "") -> tuple[int, int]:
        """(slot, pid) of who did it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=40) as connection:
            connection.sendall(f"{said}\n".encode())
            slot, pid, _ = connection.makefile().read().split()
        return int(slot), int(pid)

    def serves(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            self.ask()
            return True
        return False

    def lives_on(self) -> None:
        """A worker that is killed is followed by another: the primary's loop runs."""
        _, victim = self.ask()
        processes.kill(victim)
        wait_until(lambda: processes.state(victim) in ("", "Z"), 30.0, "it is dead")
        found: set[int] = set()

        def both() -> bool:
            slot, pid = self.ask()
            if pid != victim:
                found.add(slot)
            return found == {0, 1}

        wait_until(both, 60.0, "both slots serve again")


LIMITED = """
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextlib.contextmanager
def writing(out: int, limit: int = 0) -> Iterator[Writing]:
    """Serving when it begins; at its end it stops with 0 and leaves nobody."""
    service = Writing(out, limit)
    family = set()
    try:
        wait_until(service.serves, 60.0, "it serves")
        yield service
        family = set(processes.descendants(service.popen.pid))
        service.popen.send_signal(signal.SIGTERM)
        assert service.popen.wait(60) == 0
    finally:
        service.popen.kill()
        service.popen.wait()
    left = processes.wait_gone(family, 20.0)
    assert not left, [processes.command(each.pid) for each in left]


def drained(fd: int) -> bytes:
    """What is in a pipe."""
    os.set_blocking(fd, False)
    found = b""
    with contextlib.suppress(BlockingIOError):
        while data := os.read(fd, 1 << 16):
            found += data
    return found


def test_nobody_reads_the_log() -> None:
    end, out = os.pipe()
    with writing(out) as service:
        os.close(out)
        for _ in range(5):  # more than the logger keeps
            service.ask(f"print {BURST}")
        service.lives_on()
        read = b""

        def told() -> bool:
            nonlocal read
            read += drained(end)
            service.ask("print 1")
            missing = re.search(rb"rrdispatch: \d+ lines dropped: nobody reads it", read)
            return missing is not None and b"is written again" in read

        wait_until(told, 60.0, "the log goes on and says what is missing")
    os.close(end)


def test_the_reader_is_gone() -> None:
    end, out = os.pipe()
    with writing(out) as service:
        os.close(out)
        os.close(end)
        service.ask(f"print {BURST}")
        service.lives_on()


def test_a_device_that_is_always_full() -> None:
    out = os.open("/dev/full", os.O_WRONLY)
    with writing(out) as service:
        os.close(out)
        service.ask(f"print {BURST}")
        service.lives_on()


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """256 KiB of it, if we may."""
    options = ["-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"NOT RUN: mount: {done.stderr.strip()}", file=sys.__stderr__)
        pytest.skip("a tmpfs may not be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def written(path: Path) -> str:
    return path.read_text(errors="replace")


def test_a_full_disk_and_then_room_again(tmp_path: Path) -> None:
    with small_disk(tmp_path):
        log, ballast = tmp_path / "log", tmp_path / "ballast"
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        ballast.write_bytes(bytes(100_000))
        with writing(out) as service:
            os.close(out)
            wait_until(lambda: "ready after" in written(log), 60.0)
            service.ask(f"print {BURST}")
            service.lives_on()
            ballast.unlink()

            def told() -> bool:
                service.ask("print 1")
                return "lines dropped: No space left on device" in written(log)

            wait_until(told, 60.0, "the log goes on and says what is missing")
            wait_until(lambda: "is written again" in written(log), 60.0)
        lines = written(log).splitlines()
        note = next(n for n, line in enumerate(lines) if "lines dropped: No space" in line)
        assert "line 0" in lines[note + 1], "what follows begins on a line of its own"


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    out = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with writing(out, limit=50_000) as service:
        os.close(out)
        service.ask(f"print {BURST}")
        service.lives_on()
    assert (tmp_path / "log").stat().st_size <= 50_000


def test_a_terminal_that_was_closed() -> None:
    """EIO for all who write to it."""
    far, out = os.openpty()
    with writing(out) as service:
        os.close(out)
        os.close(far)
        service.ask(f"print {BURST}")
        service.lives_on()


def test_a_socket_that_nobody_reads() -> None:
    """As under systemd. It cannot be opened anew, but there is a flag for each write."""
    end, out = socket.socketpair()
    with end, writing(out.fileno()) as service:
        out.close()
        began = time.monotonic()
        service.ask(f"print {BURST}")
        service.lives_on()
        assert time.monotonic() - began < 100  # else somebody waited for a reader
