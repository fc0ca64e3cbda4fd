"""A terminal of its own for a command, as a person has it: Ctrl-C goes to whoever runs in it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.harness.readable import readable

CTRL_C = b"\x03"


class Terminal:
    """From the command to its end; when it is closed, the terminal is, too."""

    def __init__(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str], width: int = 120
    ) -> None:
        self._fd, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 40, width, 0, 0))

        def login() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.command = subprocess.Popen(
            command, cwd=cwd, env={"TERM": "xterm", **env}, stdin=its, stdout=its, stderr=its,
            preexec_fn=login,
        )  # fmt: skip
        os.close(its)
        self._read = b""

    @property
    def seen(self) -> str:
        """Of all pieces at once: the kernel cuts between any two bytes."""
        return self._read.decode(errors="replace").replace("\r\n", "\n")

    def press(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def until(self, pattern: str, timeout: float) -> None:
        """It was on the screen."""
        end = time.monotonic() + timeout
        while not re.search(pattern, self.seen):
            assert self._more(end), f"{pattern!r} was not seen: {self.seen}"

    def end(self, timeout: float) -> int:
        """Its exit code, when it is over; the rest of what it said is in ``seen``."""
        end = time.monotonic() + timeout
        while self._more(end):
            pass
        return self.command.wait(timeout)

    def _more(self, end: float) -> bool:
        ready = readable(self._fd, end - time.monotonic())
        assert ready, f"nothing more came: {self.seen}"
        try:
            piece = os.read(self._fd, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self._read += piece
        return bool(piece)

    def close(self) -> None:
        os.close(self._fd)
        if self.command.poll() is None:
            self.command.kill()
            self.command.wait()
