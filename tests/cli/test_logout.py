"""A user who never heard of RRDISPATCH_HOME logs out: the runtime folder goes, the apps stay."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.cli.plane import Plane, free_address, get
from tests.harness import processes
from tests.harness.servers import wait_until

pytestmark = pytest.mark.skipif(os.getuid() == 0, reason="root's state is in /var/lib")

SCRIPT = """
import http.server, socketserver
socketserver.TCPServer.allow_reuse_address = True
# That of http.server asks the network for its name.
socketserver.TCPServer(("{host}", {port}), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


class Login(Plane):
    """A home as a system gives it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.runtime = folder / "runtime"
        self.runtime.mkdir(mode=0o700)
        self.home = folder / ".local" / "state" / "rrdispatch"
        self.folder = folder

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        ours = {"RRDISPATCH_HOME": "", "HOME": str(self.folder)}
        there = {"XDG_RUNTIME_DIR": str(self.runtime)} if self.runtime.exists() else {}
        return super().environment({**ours, **there, **(env or {})})


@pytest.fixture
def login(tmp_path: Path) -> Iterator[Login]:
    made = Login(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_one_answer_and_one_app_after_a_logout(login: Login) -> None:
    before = login.start()
    assert stat.S_IMODE(login.home.stat().st_mode) == 0o700
    shutil.rmtree(login.runtime)
    row = login.row()
    assert (row["status"], row["primary_pid"]) == ("online", before["primary_pid"])
    for again in (("start", "web"), ("start", "shop:app", "--name", "web", "-b", "127.0.0.1:0")):
        told = login.type(*again)
        assert (told.code, told.err.splitlines()[0]) == (8, "error: web runs already")
    assert len(login.rows()) == 1
    login.ok("reload", "web", "--probation", "0.1")
    login.ok("scale", "web", "3")
    processes.kill(before["primary_pid"])  # its heir finds everything without that folder, too
    wait_until(lambda: login.row()["status"] == "online", 60.0)
    assert get(login.row())["pid"] in [worker["pid"] for worker in login.row()["workers"]]
    login.ok("delete", "web")
    assert processes.wait_gone(login.living(), 60.0) == []


def test_a_program_that_listens_by_itself(login: Login) -> None:
    host, port = free_address()
    (login.here / "server.py").write_text(SCRIPT.format(host=host, port=port))
    login.ok("start", "server.py", "--name", "web", "-i", "2")
    shutil.rmtree(login.runtime)
    login.ok("reload", "web", "--probation", "0.1")  # new workers ask for their channels
    assert login.row()["serving"] == 2
    login.ok("delete", "web")
    assert processes.wait_gone(login.living(), 60.0) == []
