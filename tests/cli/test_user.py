"""--user, --group: the workers give up root for good; nobody else does."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rrdispatch.cluster import become
from rrdispatch.cluster.identity import identity
from rrdispatch.errors import ConfigError
from rrdispatch.settings import from_values
from tests.cli.plane import Plane
from tests.harness import processes
from tests.harness.ports import kept_port
from tests.harness.servers import ROOT, Server, Service, rrdispatch_command, wait_until

NOBODY = "nobody"
APP = """
import json, os, signal

def tried(what, *arguments):
    try:
        return repr(what(*arguments))
    except OSError as error:
        return type(error).__name__

def told():
    status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    parent = int(os.environ.get("PRIMARY", 0)) or os.getppid()
    return {
        "pid": os.getpid(), "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(),
        "back": tried(os.setuid, 0), "home": os.environ["HOME"], "user": os.environ["USER"],
        "kill": tried(os.kill, parent, 0), "look": tried(os.listdir, f"/proc/{parent}/fd"),
        "capabilities": int(status["CapPrm"], 16), "cwd": os.getcwd(),
        "stdout": tried(lambda: open("/dev/stdout", "w").close()),
    }

def serve(listener):
    for connection, _ in listener:
        connection.sendall(json.dumps(told()).encode())
        connection.close()

if __name__ == "__main__":
    import socketserver, sys

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(json.dumps(told()).encode())

    class Tcp(socketserver.TCPServer):
        allow_reuse_address = True

    Tcp(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def lets_in(path: str) -> bool:
    """Others may reach it and read it."""
    path = os.path.realpath(path)
    folders = [str(folder) for folder in Path(path).parents]
    bits = [(folder, stat.S_IXOTH) for folder in folders] + [(path, stat.S_IROTH)]
    return all(os.stat(each).st_mode & bit for each, bit in bits)


def python() -> str:
    """An interpreter that nobody may run."""
    for each in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        if os.path.exists(each) and lets_in(each) and lets_in(str(ROOT / "rrdispatch")):
            return each
    pytest.skip("no interpreter, or not this project, can be reached by user nobody")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def here() -> Iterator[Path]:
    """A folder that everybody may enter: those of pytest are its user's own."""
    with tempfile.TemporaryDirectory(prefix="rr-test-user-") as folder:
        os.chmod(folder, 0o755)
        (Path(folder) / "app.py").write_text(APP)
        yield Path(folder)


def ask(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 60) as client:
        parts = []
        while part := client.recv(65536):
            parts.append(part)
    found: dict[str, Any] = json.loads(b"".join(parts))
    return found


def is_nobody(found: dict[str, Any]) -> None:
    entry = pwd.getpwnam(NOBODY)
    assert found["uid"] == [entry.pw_uid] * 3
    assert found["gid"] == [entry.pw_gid] * 3
    assert found["groups"] in ([], [entry.pw_gid])
    assert found["back"] == found["kill"] == found["look"] == "PermissionError"
    assert (found["home"], found["user"]) == (entry.pw_dir, NOBODY)
    assert found["capabilities"] == 0
    assert found["stdout"] == "None", "its stdout can be opened by name"


@needs_root
def test_workers_of_an_app_are_nobody_also_after_a_respawn_and_a_reload(here: Path) -> None:
    options = ("-i", "2", "--user", NOBODY, "--python", python(), "--probation", "0")
    with Service("app:serve", *options, cwd=here) as service:
        for _ in range(2):
            is_nobody(ask(service.address))
        first = service.workers()
        processes.kill(first[0])
        service.wait_workers(lambda workers: workers.get(0, first[0]) != first[0])
        seen = len(service.output.lines)
        service.send_signal(1)
        service.output.wait("reloaded in", 60.0, seen)
        assert not first.items() & service.workers().items()
        for _ in range(2):
            is_nobody(ask(service.address))
        whose = set()
        for each in service.processes():
            with contextlib.suppress(FileNotFoundError):  # one of before, ended by now
                whose.add(os.stat(f"/proc/{each.pid}").st_uid)
        assert whose == {0, pwd.getpwnam(NOBODY).pw_uid}, "primary, dispatcher, logger stay root"


@needs_root
def test_a_program_that_listens_by_itself_is_nobody_too(here: Path) -> None:
    port = kept_port()
    options = ("-i", "2", "--user", NOBODY, "--stall-timeout", "60")
    words = ("run", *options, "--", python(), "app.py", str(port))
    with Server(rrdispatch_command(*words), cwd=here) as server:
        server.output.wait("ready after", 60.0)
        found = [ask(f"127.0.0.1:{port}") for _ in range(4)]
        for each in found:
            is_nobody(each)
        assert [each["pid"] for each in found[:2]] == [each["pid"] for each in found[2:]]
        assert len({each["pid"] for each in found}) == 2, "and each has its turn"


@needs_root
def test_an_heir_starts_them_as_nobody_and_logs_stay_roots(plane: Plane, here: Path) -> None:
    log = plane.here / "app.log"
    options = ("--user", NOBODY, "--python", python(), "--cwd", str(here), "--log", str(log))
    row = plane.start("app:serve", *options)
    processes.kill(row["primary_pid"])
    wait_until(lambda: plane.row()["primary_pid"] not in (None, row["primary_pid"]), 60.0)
    victim = row["workers"][0]["pid"]
    processes.kill(victim)

    def replaced() -> bool:
        now = plane.row()
        return now["serving"] == 2 and victim not in [each["pid"] for each in now["workers"]]

    wait_until(replaced, 60.0)
    for _ in range(2):
        is_nobody(ask(row["listeners"][0]))
    plane.ok("reload", "web")
    is_nobody(ask(row["listeners"][0]))
    plane.ok("stop", "web")
    assert not log.exists() or log.stat().st_uid == 0


@needs_root
def test_group_alone_and_numbers(here: Path) -> None:
    settings = from_values({"target": "app:serve", "user": "12345", "group": "23456"})
    found = identity(settings)
    assert found is not None
    assert (found.uid, found.gid, found.groups, found.home) == (12345, 23456, (23456,), "/")
    options = ("-i", "1", "--user", "12345", "--group", "23456", "--python", python())
    with Service("app:serve", *options, "--env", "USER=x", cwd=here) as service:
        answer = ask(service.address)
        assert (answer["uid"], answer["gid"]) == ([12345] * 3, [23456] * 3)
        assert answer["groups"] in ([], [23456])
        assert answer["user"] == "x", "what is said is stronger"
    alone = identity(from_values({"target": "app:serve", "group": "23456"}))
    assert alone is not None
    assert (alone.uid, alone.gid, alone.groups) == (0, 23456, (23456,))


@needs_root
def test_a_folder_that_nobody_may_enter_is_a_clear_error(here: Path) -> None:
    os.chmod(here, 0o700)
    words = ("run", "app:serve", "-b", "127.0.0.1:0", "--user", NOBODY, "--python", python())
    with Server(rrdispatch_command(*words), cwd=here) as server:
        assert server.wait(60) == 5, server.output.text()
        server.output.wait(f"runs as user nobody, who may not enter {here}: Permission denied", 0)
        server.output.wait("hint: each folder above has to let that user through", 0)
        server.assert_nothing_left()


def test_what_is_refused_can_be_read() -> None:
    text = 'a "folder" \\ with\nmuch ä in it'
    assert json.loads(become.quoted(text)) == text.replace("\n", "?")


KEEPS = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
SECBIT_NO_SETUID_FIXUP, PR_SET_SECUREBITS = 4, 28
assert ctypes.CDLL(None).prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) == 0
import become
become.give_up(12345, 23456, [23456])
"""


@needs_root
def test_where_there_is_a_way_back_nothing_is_run() -> None:
    """A kernel that is told to keep capabilities over setuid keeps CAP_SETUID."""
    folder = str(Path(become.__file__).parent)
    command = [sys.executable, "-c", KEEPS, folder]
    told = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert told.returncode == 1
    assert "there is a way back to root" in told.stderr


def test_only_root_can_ask_for_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgid", lambda: 1000)
    with pytest.raises(ConfigError, match="user: only root") as caught:
        identity(from_values({"target": "a:b", "user": "0"}))
    assert "start it as root" in (caught.value.hint or "")
    own = from_values({"target": "a:b", "user": "1000", "group": "1000"})
    assert identity(own) is None, "that is who we are"
    assert identity(from_values({"target": "a:b"})) is None


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"user": "no-such-user"}, "there is no user 'no-such-user'"),
        ({"user": "4000000"}, "there is no user '4000000'"),
        ({"group": "no-such-group"}, "there is no group 'no-such-group'"),
        ({"user": ""}, "'' is no account"),
        ({"user": "www:www"}, "'www:www' is no account"),
        ({"user": "4294967295"}, "4294967295 is no id"),
    ],
)
def test_who_does_not_exist_is_a_clear_error(values: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        identity(from_values({"target": "a:b", **values}))
