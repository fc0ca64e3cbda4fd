"""A program that listens only where nothing can be given to it: said long before ready_timeout."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from rrdispatch.net.neighbours import listening_on
from tests.harness.servers import Server, rrdispatch_command
from tests.programs.program import APPS, free_port

LONG = ("--ready-timeout", "600", "-i", "2")
UNIX = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
time.sleep(600)
"""


def said(*words: str, cwd: Path = APPS) -> str:
    """The line about it; the service is stopped then, and nothing is left."""
    with Server(rrdispatch_command("run", *LONG, *words), cwd=cwd) as server:
        server.output.wait("listens on .* by itself", 60.0)
        (line,) = [line for _, line in server.output.lines if "by itself" in line]
        return line


def test_port_0_is_said() -> None:
    line = said("hello.py", "--", "0")
    assert re.search(r"worker [01] \(pid \d+\)", line), "whichever of them listens first"
    assert "a port of the kernel's choice (0)" in line


def test_a_unix_socket_is_said(tmp_path: Path) -> None:
    (tmp_path / "unix.py").write_text(UNIX)
    line = said("unix.py", "--", str(tmp_path / "sock"), cwd=tmp_path)
    assert f"unix:{tmp_path}/sock" in line


def test_an_address_that_listen_leaves_out_is_said() -> None:
    port = free_port()
    line = said("--listen", "1", "hello.py", "--", str(port))
    assert f":{port} by itself: that is none of --listen" in line


def test_one_that_is_not_preloaded_is_said() -> None:
    port = free_port()
    line = said("--", "env", "-u", "LD_PRELOAD", "python3", "hello.py", str(port))
    assert f":{port} by itself: it could not be preloaded" in line


def test_which_of_some_sockets_listen(tmp_path: Path) -> None:
    families = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0))]
    expected, inodes, kept = [], set(), []
    for family, address in [*families, (socket.AF_UNIX, str(tmp_path / "a b"))]:
        for listens in (True, False):
            sock = socket.socket(family)
            kept.append(sock)
            inodes.add(os.fstat(sock.fileno()).st_ino)
            if listens:
                sock.bind(address)
                sock.listen()
                name = sock.getsockname()
                text = f"unix:{name}" if isinstance(name, str) else f"{name[0]}:{name[1]}"
                expected.append(text.replace("::1:", "[::1]:"))
    other = socket.create_server(("127.0.0.1", 0))
    assert sorted(listening_on(inodes)) == sorted(expected)
    for sock in [*kept, other]:
        sock.close()
