"""What a worker can do to those who serve it, and to the others: docs/security.md."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from rrdispatch import Cluster
from tests.harness.servers import wait_until

APP = """
import mmap, os, socket, stat, threading, time

SLOT = os.environ["RRDISPATCH_SLOT"]

def link(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""

def fds():
    return [int(name) for name in os.listdir("/proc/self/fd")]

def board():
    return next(fd for fd in fds() if "scoreboard" in link(fd))

def notify():
    for fd in fds():
        if stat.S_ISSOCK(os.stat(f"/proc/self/fd/{fd}").st_mode if link(fd) else 0):
            found = socket.socket(fileno=os.dup(fd))
            if found.family == socket.AF_UNIX and found.type & 0xF == socket.SOCK_SEQPACKET:
                return found

def look(listener):
    own = os.getuid() == os.stat(f"/proc/{os.getppid()}").st_uid
    os.kill(os.getppid(), 0)
    names = os.listdir(f"/proc/{os.getppid()}/fd")
    return f"same user {own}, {len(names) > 3}"

def page(listener):
    page = mmap.mmap(board(), 4096)

    def for_ever():
        while True:  # paced: the core is for those who are tested
            for content in (os.urandom(4096), b"\\xff" * 4096, bytes(4096)):
                page[:] = content
                time.sleep(0.001)

    threading.Thread(target=for_ever, daemon=True).start()
    return ""

def size(listener):
    try:
        os.ftruncate(board(), 0)
    except PermissionError:
        return "refused"

def words(listener):
    told = notify()
    error = b'ERROR={"message": "\\\\ud800", "code": [], "hint": 7, "traceback": %s}'
    for text in (b"\\xff" * 60000, b"READY=1\\nCAPACITY=-1\\nBATCH=99999", b"=\\n=", b"\\0" * 99,
                 b"READY=1\\nCAPACITY=" + b"9" * 5000, b"READY=1\\nKIND=\\xc3", b"STATUS=\\x1b[2J",
                 b"ERROR={", b"ERROR=[1]", error % b"{}", error % b"null", error % b'"\\\\ud800"',
                 b"ERROR=" + b"[" * 50000, *[b""] * 99, b"STATUS=heard", b""):
        told.send(text)
    return ""

def channel(listener):
    mine = socket.socket(fileno=os.dup(listener.fileno()))
    mine.setblocking(False)
    try:
        while True:
            mine.send(os.urandom(65536))
    except BlockingIOError:
        pass
    mine.shutdown(socket.SHUT_RDWR)
    return ""

def serve(listener):
    said = ""
    for number, (connection, _) in enumerate(listener):
        if SLOT == "0" and number == 0:
            said = globals()[os.environ["MISCHIEF"]](listener)
        connection.sendall(f"{SLOT} {said}".encode())
        connection.close()
"""
REQUESTS = 40


def hostile(mischief: str, folder: Path, dispatcher: str = "auto", stall: float = 60.0) -> Cluster:
    """Two workers, of which the first one does it when it is asked for the first time. One that
    only waits for a core is to have its turn, so ``stall`` is long.
    """
    (folder / "hostile.py").write_text(APP)
    env = {"MISCHIEF": mischief}
    return Cluster(
        "hostile:serve", bind="127.0.0.1:0", workers=2, cwd=str(folder), env=env,
        dispatcher=dispatcher, stall_timeout=stall,
    )  # fmt: skip


def ask(cluster: Cluster) -> str:
    host, _, port = cluster.addresses[0].rpartition(":")
    with socket.create_connection((host, int(port)), 30) as client:
        return client.makefile().read()


@pytest.mark.parametrize("dispatcher", ["c", "python"])
@pytest.mark.parametrize("mischief", ["page", "size", "words", "channel"])
def test_a_worker_that_does_its_worst_harms_itself_only(
    mischief: str, dispatcher: str, tmp_path: Path
) -> None:
    """Its counters, its word to the primary, its channel: whatever it makes of them, every client
    is answered, and neither primary nor dispatcher nor the other worker is another than before.
    """
    with hostile(mischief, tmp_path, dispatcher) as cluster:
        before = cluster.stats()
        said = [ask(cluster) for _ in range(REQUESTS)]
        assert all(said), said
        assert any(each.startswith("0") for each in said), "it had its chance"
        if mischief != "page":  # by its counts it can have more than its share, or less
            assert sum(each.startswith("1") for each in said) >= REQUESTS // 3, said
        if mischief == "words":
            wait_until(lambda: "heard" in str(cluster.stats()["workers"]), 30.0, "all was read")
        if mischief == "size":
            assert "0 refused" in said
        after = cluster.stats()
        for who in ("primary_pid", "dispatcher_pid"):
            assert after[who] == before[who]
        assert pids(after)[1] == pids(before)[1]


def pids(stats: dict[str, object]) -> dict[int, int]:
    rows = stats["workers"]
    assert isinstance(rows, list)
    return {row["slot"]: row["pid"] for row in rows}


def test_who_is_our_user_may_do_what_we_may(tmp_path: Path) -> None:
    """The boundary is the user: this is no promise, but what has to be known. With --user, where
    they differ: tests/cli/test_user.py.
    """
    with hostile("look", tmp_path) as cluster:
        said = {ask(cluster) for _ in range(4)}
    assert "0 same user True, True" in said
