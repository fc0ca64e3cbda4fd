"""SIGHUP with a terminal, and without; the file of a unix socket."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import termios
from pathlib import Path

from tests.cluster.service import APPS
from tests.harness.servers import ROOT, Output, Service, rrdispatch_command

LIMIT = 60.0


def test_hup_is_a_reload_and_a_closed_terminal_is_the_end() -> None:
    master, slave = pty.openpty()
    command = rrdispatch_command("run", "plain:serve", "-i", "1", "-b", "127.0.0.1:0")

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    popen = subprocess.Popen(
        [*command, "--probation", "0.1"], cwd=APPS, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=take_terminal,
    )  # fmt: skip
    os.close(slave)
    assert popen.stdout is not None
    assert popen.stderr is not None
    output = Output()
    readers = [output.follow("stdout", popen.stdout), output.follow("stderr", popen.stderr)]
    try:
        output.wait("ready after", LIMIT)
        popen.send_signal(signal.SIGHUP)
        output.wait("reloaded in", LIMIT)
        os.close(master)  # the kernel sends HUP to the session
        output.wait("stopping", LIMIT)
        assert popen.wait(LIMIT) == 0
    finally:
        popen.kill()
        popen.wait()
        for reader in readers:
            reader.join(LIMIT)
        popen.stdout.close()
        popen.stderr.close()


def test_the_file_of_a_unix_socket_goes_with_the_service(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with Service("probe:serve", "-i", "1", bind=[f"unix:{path}"]):
        assert path.is_socket()
    assert not path.exists()
