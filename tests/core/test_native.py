"""The core's functions, the same on the C and on its stdlib twin."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rrdispatch import _core
from rrdispatch._core import layout
from rrdispatch._core.layout import Control, ControlKind, Field, Kind, Message, SpawnRequest
from tests.core.conftest import CORES, children
from tests.harness.gates import need_gate
from tests.harness.readable import readable


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def no_leak(core):
    gc.collect()
    before = open_fds()
    yield
    gc.collect()
    assert open_fds() <= before  # a thread of an earlier test may close its own meanwhile


@pytest.fixture
def channel(core):
    sender, receiver = core.channel_pair()
    yield sender, receiver
    for fd in (sender, receiver):
        os.close(fd)


def give(core: ModuleType, channel: int, count: int = 1, kind: int = Kind.CONNECTION) -> None:
    ends = [socket.socketpair() for _ in range(count)]
    message = Message(kind=kind, count=count, accepted_ns=7, peer=b"peer").pack()
    core.send(channel, message, [end.fileno() for end, _ in ends])
    for pair in ends:
        for end in pair:
            end.close()


def test_a_connection_passes(core, channel):
    give(core, channel[0])
    assert core.pending(channel[1]) == 1
    taken = core.take(channel[1])
    assert (taken.kind, taken.accepted_ns, taken.peer) == (Kind.CONNECTION, 7, b"peer")
    (fd,) = taken.fds
    assert not os.get_inheritable(fd)
    os.close(fd)
    with pytest.raises(BlockingIOError):
        core.take(channel[1])


def test_a_batch_passes(core, channel):
    give(core, channel[0], 16)
    taken = core.take(channel[1])
    assert len(taken.fds) == 16
    for fd in taken.fds:
        os.close(fd)


def test_probes_are_swallowed(core, channel):
    give(core, channel[0], kind=Kind.PROBE)
    with pytest.raises(BlockingIOError):
        core.take(channel[1])
    assert core.pending(channel[1]) == 0


def test_the_end_is_none(core):
    sender, receiver = core.channel_pair()
    os.close(sender)
    assert core.take(receiver) is None
    os.close(receiver)


def test_a_full_table_leaves_the_message_queued(core, channel):
    give(core, channel[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in open_fds())
    spare: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.dup(channel[0]))
        with pytest.raises(OSError, match="Too many open files") as caught:
            core.take(channel[1])
        assert caught.value.errno == errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in spare:
            os.close(fd)
    assert core.pending(channel[1]) == 1
    taken = core.take(channel[1])
    os.close(taken.fds[0])


@pytest.mark.parametrize("count", [0, 17])
def test_a_wrong_number_of_connections_is_refused(core, channel, count):
    null = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(OSError, match="64 bytes"):
        core.send(channel[0], Message(count=count).pack(), [null] * count)
    with pytest.raises(OSError, match="64 bytes"):
        core.send(channel[0], b"short", [null])
    os.close(null)


def test_a_full_channel_would_block(core, channel):
    null = os.open("/dev/null", os.O_RDONLY)
    message = Message().pack()
    for _ in range(layout.QUEUE_LIMIT_MAX):
        core.send(channel[0], message, [null])
    with contextlib.suppress(BlockingIOError):
        while True:
            core.send(channel[0], message, [null])
    with pytest.raises(BlockingIOError):
        core.send(channel[0], message, [null])
    os.close(null)
    assert core.pending(channel[1]) > layout.QUEUE_LIMIT_MAX


def test_a_scoreboard_counts(core):
    fd = core.scoreboard_create(2, 3)
    worker, reader = core.Scoreboard(fd, writable=True), core.Scoreboard(fd)
    worker.add(Field.RECEIVED)
    worker.add(Field.RECEIVED, 4)
    worker.add(Field.BUSY, -2)
    worker.store(Field.HEARTBEAT, 99)
    worker.store(Field.STATE, 2)
    told = [reader.load(field) for field in Field]
    assert told == [5, 0, -2, 0, 99, 0, 0, 2, 0]
    assert os.pread(fd, 16, 0) == layout.SCOREBOARD_HEAD.pack(
        layout.SCOREBOARD_MAGIC, layout.SCOREBOARD_VERSION, 2, 3
    )
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    for board in (worker, reader, worker):
        board.close()
    os.close(fd)


def test_a_file_that_can_shrink_is_no_scoreboard(core):
    fd = os.memfd_create("other")
    os.ftruncate(fd, layout.SCOREBOARD_SIZE)
    with pytest.raises(OSError, match="not a scoreboard"):
        core.Scoreboard(fd)
    os.close(fd)


def test_control_messages_pass(core):
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its:
        message = Control(ControlKind.PING, 5, values=(1, 2)).pack()
        core.control_send(ours.fileno(), message, [0, 1, 2])
        data, fds = core.control_receive(its.fileno())
        assert data == message
        assert len(fds) == 3
        for fd in fds:
            os.close(fd)
        with pytest.raises(BlockingIOError):
            core.control_receive(its.fileno())
        ours.close()
        assert core.control_receive(its.fileno()) is None


def run(core: ModuleType, code: str, **request: object) -> tuple[int, str]:
    """Run Python code in a spawned process; its exit status and output."""
    reading, writing = os.pipe()
    fds = [(writing, 1), *request.pop("fds", [])]  # type: ignore[misc]
    pid, pidfd = core.spawn(
        SpawnRequest(
            program=sys.executable,
            arguments=[sys.executable, "-I", "-S", "-c", code],
            environment={"GREETING": "grüß"},
            fds=fds,
            **request,  # type: ignore[arg-type]
        )
    )
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as output:
        said = output.read()
    assert readable(pidfd, 60)
    os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def test_spawn_gives_what_was_asked_for(core):
    null = os.open("/dev/null", os.O_RDONLY)
    code = (
        "import os, resource\n"
        "print(os.environ['GREETING'], os.getcwd(), os.getsid(0) == os.getpid())\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE), os.sched_getaffinity(0))\n"
        "print(os.fstat(9).st_rdev == os.stat('/dev/null').st_rdev)\n"
    )
    status, said = run(
        core, code, cwd="/tmp", fds=[(null, 9)], nofile=(123, 456), cores=[0], setsid=True
    )
    os.close(null)
    assert status == 0
    assert said.splitlines() == ["grüß /tmp True", "(123, 456) {0}", "True"]


def test_spawn_tells_the_child_its_own_pid(core):
    """In a variable, of which there is one and no more, whatever it was before."""
    code = "import os; print(os.environ['WHO'] == str(os.getpid()), os.environ['GREETING'])"
    assert run(core, code, own_pid="WHO") == (0, "True grüß\n")
    code = "import os; print(os.environ['GREETING'] == str(os.getpid()), len(os.environ))"
    status, said = run(core, code, own_pid="GREETING")
    assert (status, said.split()[0]) == (0, "True")


def test_spawn_leaks_nothing(core):
    stray = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(stray, True)
    code = (
        "import os\n"
        "for fd in os.listdir('/proc/self/fd'):\n"
        "    try: print(os.readlink(f'/proc/self/fd/{fd}'))\n"
        "    except OSError: pass\n"
    )
    status, said = run(core, code)
    os.close(stray)
    assert status == 0
    assert "/dev/zero" not in said
    assert "socket" not in said


def test_spawn_resets_signals(core):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    code = "import _signal; print(_signal.getsignal(15), _signal.pthread_sigmask(0, ()))"
    try:
        status, said = run(core, code)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGTERM, before)
    assert (status, said.split()) == (0, ["0", "set()"])


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({"program": "/nowhere"}, "EXEC"),
        ({"cwd": "/nowhere"}, "CWD"),
        ({"fds": [(9999, 5)]}, "FDS"),
    ],
)
def test_a_spawn_that_fails_names_the_step(core, change, step):
    request = {"program": sys.executable, "arguments": ["x"], "environment": {}, **change}
    before = children()
    with pytest.raises(OSError, match=step) as caught:
        core.spawn(SpawnRequest(**request))
    assert caught.value.filename == step
    assert children() <= before


def test_the_lifeline_ends_the_group(core):
    ours, its = socket.socketpair()
    pid, pidfd = core.spawn(
        SpawnRequest(
            program="/bin/sh",
            arguments=["sh", "-c", "sleep 100 & wait"],
            environment={"PATH": "/usr/bin:/bin"},
            fds=[(its.fileno(), 7)],
            lifeline=7,
        )
    )
    its.close()
    assert not readable(pidfd, 0)
    ours.close()
    assert readable(pidfd, 60)
    os.close(pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM


def test_the_gate_keeps_the_backlog(core):
    need_gate()
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as early:
        core.gate(listener.fileno())
        late = socket.socket()
        late.setblocking(False)
        with pytest.raises(BlockingIOError):
            late.connect(listener.getsockname())
        connection, _ = listener.accept()
        connection.sendall(b"hello")
        assert early.recv(5) == b"hello"
        connection.close()
        late.close()


def test_the_clock_is_monotonic(core):
    assert 0 < core.now_ns() <= core.now_ns()


def test_names_are_the_same_in_both():
    modules = [importlib.import_module(f"rrdispatch._core.{name}") for name in CORES]
    extra = {"pick", "run_dispatcher"}
    assert len({frozenset(set(module.__all__) - extra) for module in modules}) == 1
    assert set(modules[0].__all__) <= set(_core.__all__)


def test_the_program_is_executable():
    program = _core.dispatcher_program()
    assert (program is not None) == _core.NATIVE
    if program is not None:
        assert os.access(program, os.X_OK)
        assert Path(program).parent == Path(_core.__file__).parent
