"""``--share-listener``: programs that cannot be preloaded hold the socket; the rest is as ever."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rrdispatch import _core
from rrdispatch.cluster import sdnotify, share
from rrdispatch.cluster.events import Events
from rrdispatch.cluster.program import check
from rrdispatch.errors import ConfigError
from rrdispatch.net.listeners import ListeningSocket, bound_address
from rrdispatch.settings import from_sources
from tests.harness import processes
from tests.harness.census import resting
from tests.harness.load import load_beside
from tests.harness.records import Plan
from tests.harness.servers import Server, rrdispatch_command, wait_until
from tests.programs.program import APPS, Program, free_port


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program without a dynamic linker."""
    target = str(tmp_path_factory.mktemp("static") / "static")
    compiler = shutil.which("cc")
    command = [str(compiler), "-static", "-O1", "-o", target, str(APPS / "static.c")]
    if compiler is None or subprocess.run(command, check=False).returncode:
        pytest.skip("no static binary can be made here")
    return target


def shared(port: int, *command: str, workers: int = 2, options: tuple[str, ...] = ()) -> Program:
    where = ("--share-listener", "-b", f"127.0.0.1:{port}", "-i", str(workers))
    return Program(*where, "--min-uptime", "0.3", *options, *command, port=port)


def reload_fails_nobody(program: Program) -> None:
    old = set(program.workers().values())
    with load_beside(program, Plan(program.address, rate=100.0)) as load:
        # The kernel wakes whom it likes.
        load.wait_for(lambda records: len({each.pid for each in records}) == 2)
        load.wait_more(20)
        program.send_signal(signal.SIGHUP)
        program.output.wait(r": reloaded in", 60.0)
        wait_until(lambda: not any(map(_alive, old)), 30.0, "the old ones are gone")
        load.wait_more(40)
        tally = load.stop()
    assert not tally.failed, tally.outcomes()
    assert not old & set(program.workers().values())
    assert len({record.pid for record in tally.ok}) >= 3, "old ones and new ones"


def _alive(pid: int) -> bool:
    return processes.state(pid) not in ("", "Z")


def test_a_static_program_is_supervised_and_reloaded(static: str) -> None:
    with shared(free_port(), static, options=("--probation", "0.2")) as program:
        assert len(program.ask(40).ok) == 40
        reload_fails_nobody(program)


def test_a_script_is_reloaded_and_nothing_is_left_open() -> None:
    options = ("--probation", "0.2")
    with shared(free_port(), "shared.py", options=options) as program:
        wait_until(lambda: len(program.said("handed")) == 2, 30.0)
        assert set(program.said("handed (.*)")) == {f"1 named {program.address.split(':')[1]}"}
        wait_until(lambda: "True" in program.said("blocking (.*)"), 30.0)
        reload_fails_nobody(program)
        primary, worker = (sum(resting(pid).values()) for pid in (program.pid, first(program)))
        # 0, 1, 2, the socket, three of ours, and the epoll or selector of the program.
        assert worker <= 8
        for _ in range(2):
            seen = len(program.said("reloaded in"))
            program.send_signal(signal.SIGHUP)
            wait_until(lambda seen=seen: len(program.said("reloaded in")) > seen, 60.0)  # type: ignore[misc]
        wait_until(lambda: fds(program.pid) == primary, 20.0, "no fd is left of the old ones")
        wait_until(lambda: fds(first(program)) == worker, 20.0)


def fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def first(program: Program) -> int:
    return program.workers()[0]


def test_what_comes_while_nobody_lives_is_answered() -> None:
    with shared(free_port(), "shared.py", workers=1) as program:
        processes.kill(program.workers()[0])
        assert len(program.ask(10, concurrency=10).ok) >= 9, "but for what it had in hand"


def test_the_final_stop_answers_the_backlog() -> None:
    """Nobody is reset: in before the stop is answered, after it is refused."""
    program = shared(free_port(), "shared.py")
    with program:
        with load_beside(program, Plan(program.address, rate=200.0)) as load:
            load.wait_more(60)
            assert program.stop() == 0
            tally = load.stop()
        assert len(tally.ok) >= 60
        fair = {"ok", "refused"} if may_gate() else {"ok", "refused", "reset"}
        assert set(tally.outcomes()) <= fair, tally.outcomes()


def may_gate() -> bool:
    """Some kernels give socket filters to root only."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        try:
            _core.gate(listener.fileno())
        except OSError:
            return False
    return True


def test_a_listener_that_was_shut_down_listens_again() -> None:
    """shutdown(2) by one holder ends it for all: a worker that leaves must not stop the service."""
    options = ("--probation", "0.2", "--no-park")
    with shared(free_port(), "shared.py", "--", "shut", options=options) as program:
        program.send_signal(signal.SIGHUP)
        program.output.wait(r": reloaded in", 60.0)
        program.output.wait("listens again", 30.0)
        wait_until(lambda: len(program.workers()) == 2, 30.0)
        wait_until(lambda: len(program.ask(10).ok) == 10, 30.0)


@pytest.mark.parametrize("how", [socket.SHUT_RDWR, socket.SHUT_RD])
@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_a_listener_that_cannot_listen_again_is_told(
    family: str, how: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "_listen_again", lambda *_: False)

    async def main() -> tuple[str, dict[str, object]]:
        told: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()
        kind = socket.AF_UNIX if family == "unix" else socket.AF_INET
        with ListeningSocket(kind) as sock:
            sock.bind(str(tmp_path / "socket") if family == "unix" else ("127.0.0.1", 0))
            sock.listen()
            address = str(bound_address(sock))
            held = share.Shared([sock], 10, Events(told.set_result))
            sock.shutdown(how)
            try:
                return address, await asyncio.wait_for(told, 30.0)
            finally:
                held.stop_watching()

    address, event = asyncio.run(main())
    assert event["event"] == "warning"
    assert address in str(event["message"])
    assert "started" in str(event["hint"])


# ---- ready --------------------------------------------------------------------------------------


def test_ready_is_what_it_says() -> None:
    options = ("--wait-ready", "--min-uptime", "0")
    with shared(free_port(), "shared.py", "--", "notify", options=options) as program:
        assert len(program.ask(4).ok) == 4


def test_silence_is_failure() -> None:
    where = ("--share-listener", "-b", "127.0.0.1:0", "--wait-ready", "--ready-timeout", "1")
    server = Server(rrdispatch_command("run", *where, "-i", "1", "shared.py"), cwd=APPS)
    try:
        assert server.wait() == 5
        assert "it never said READY=1" in server.output.text()
    finally:
        server.close()


def test_a_preloaded_program_may_say_when_it_is_ready() -> None:
    """Not when it first waits for connections, as it else would be."""
    options = ("-i", "1", "--wait-ready", "--ready-timeout", "1")
    server = Server(
        rrdispatch_command("run", *options, "hello.py", "--", str(free_port())), cwd=APPS
    )
    try:
        assert server.wait() == 5
        assert "it never said READY=1" in server.output.text()
    finally:
        server.close()


def test_a_broken_release_is_rolled_back(tmp_path: Path) -> None:
    for name in ("hello.py", "shared.py"):
        shutil.copy(APPS / name, tmp_path)
    with shared(free_port(), "shared.py", options=("--cwd", str(tmp_path))) as program:
        (tmp_path / "shared.py").write_text("raise SystemExit(3)\n")
        with load_beside(program, Plan(program.address, rate=50.0)) as load:
            load.wait_more(10)
            program.send_signal(signal.SIGHUP)
            program.output.wait("was rolled back: .*exit code 3", 60.0)
            load.wait_more(10)
            assert not load.stop().failed


def test_a_watchdog_that_is_not_fed_bites() -> None:
    options = ("--heartbeat-timeout", "6")
    with shared(free_port(), "shared.py", "--", "beats", workers=1, options=options) as program:
        old = program.workers()[0]
        program.output.wait(r"\| told 80$", 60.0)  # longer than it may be silent
        assert "hung" not in program.output.text()
        assert program.workers()[0] == old
        assert len(program.ask(1, path="/mute").ok) == 1
        program.output.wait("hung: it gave no sign of life", 30.0)
        wait_until(lambda: program.workers().get(0, old) != old, 30.0)
        assert len(program.ask(3).ok) == 3


class Clock:
    """A loop of one timer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due, self.ring = 0.0, lambda: None

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, ring: Callable[[], None]) -> Clock:
        self.due, self.ring = due, ring
        return self

    def when(self) -> float:
        return self.due

    def cancel(self) -> None:
        self.due = float("inf")


def test_a_watchdog_that_rings_late_waits_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine slept, or we did: the worker had no chance. What it said meanwhile counts."""
    clock, over, waiting = Clock(), [], [False]
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)

    def look() -> None:
        if waiting.pop():
            dog.sign()
        waiting.append(False)

    dog = sdnotify.Watchdog(1.0, look, lambda: over.append(clock.now))
    dog.sign()
    for at, said in ((60.0, False), (61.0, True), (62.0, False)):
        clock.now, waiting[0] = at, said
        assert not over
        clock.ring()
    assert over == [62.0]


def test_who_never_said_it_lives_is_not_watched() -> None:
    options = ("--heartbeat-timeout", "0.2")
    with shared(free_port(), "shared.py", workers=1, options=options) as program:
        old = program.workers()
        for _ in range(3):
            assert len(program.ask(5).ok) == 5
        assert program.workers() == old


# ---- what goes together -------------------------------------------------------------------------

BIND = {"bind": ["127.0.0.1:0"]}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"target": "app:app", **BIND}, "is an app"),
        ({"target": "hello.py"}, "where?"),
        ({"target": "hello.py", "listen": False, **BIND}, "not together with --listen"),
        ({"target": "hello.py", "take": ["8000"], **BIND}, "not together with --take"),
    ],
)
def test_what_does_not_go_together(said: dict[str, object], words: str) -> None:
    settings = from_sources({**said, "share_listener": True}, {})
    with pytest.raises(ConfigError, match=words):
        check(settings)


def test_a_static_program_is_told_of_it(static: str) -> None:
    server = Server(rrdispatch_command("run", static))
    try:
        assert server.wait() == 4
        assert "--share-listener" in server.output.text("stderr")
    finally:
        server.close()


def test_names_have_no_colon() -> None:
    told = [{"address": ["::1", 8000]}, {"address": "/run/a:b\n.sock"}, {"address": "/"}]
    assert share.variables(told) == {
        "LISTEN_FDS": "3", "LISTEN_FDNAMES": "8000:a_b_.sock:unknown",
    }  # fmt: skip


def test_a_unix_socket_is_shared(tmp_path: Path) -> None:
    path = tmp_path / "s"
    where = ("--share-listener", "-b", f"unix:{path}", "-i", "1", "--min-uptime", "0.2")
    code = (
        "import socket\n"
        "s = socket.socket(fileno=3)\n"
        "while True:\n"
        "    c, _ = s.accept()\n"
        "    c.sendall(b'hello')\n"
        "    c.close()\n"
    )
    (tmp_path / "answers.py").write_text(code)
    with Server(rrdispatch_command("run", *where, str(tmp_path / "answers.py"))) as server:
        server.output.wait(r": ready after", 60.0)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert client.recv(16) == b"hello"
    assert not path.exists()


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Server]:
    command = ("--no-listen", "--drain-timeout", "90", "--min-uptime", "0", "--", "sleep", "1000")
    server = Server(rrdispatch_command("run", "-i", "1", *command))
    yield server
    server.close()


def test_a_program_that_does_not_listen_is_asked_to_stop_at_once(sleeper: Server) -> None:
    """It has no connections that could be waited for."""
    sleeper.output.wait(r": ready after", 60.0)
    assert sleeper.stop(timeout=40.0) == 0
