"""The border to the operating system behaves alike in C and in Python."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from rrdispatch._core.layout import FLAG_MOVED, Control, Field, Kind, Message, SpawnRequest
from tests.harness.gates import need_gate

from .conftest import children


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Every test closes what it opened. A thread of an earlier one may close its own meanwhile."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def channel(core: Any, nothing_left_open: None) -> Iterator[list[int]]:
    """[sending, receiving] end; a test that closes one puts -1 in its place."""
    ends = list(core.channel_pair())
    yield ends
    for fd in ends:
        if fd >= 0:
            os.close(fd)


@pytest.fixture
def null(nothing_left_open: None) -> Iterator[int]:
    """A descriptor to send."""
    fd = os.open(os.devnull, os.O_RDWR)
    yield fd
    os.close(fd)


def close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


# ---- the channel ------------------------------------------------------------------------------


def test_a_connection_arrives_with_all_that_was_said(core: Any, channel: list[int], null: int):
    message = Message(flags=FLAG_MOVED, accepted_ns=12345, peer=b"peer")
    core.send(channel[0], message.pack(), [null])
    assert core.pending(channel[1]) == 1
    taken = core.take(channel[1])
    assert taken[:4] == (Kind.CONNECTION, FLAG_MOVED, 12345, b"peer")
    (fd,) = taken.fds
    assert os.path.samestat(os.fstat(fd), os.fstat(null))
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    close(taken.fds)
    assert core.pending(channel[1]) == 0


def test_nothing_waits_and_the_end(core: Any, channel: list[int], null: int):
    with pytest.raises(BlockingIOError):
        core.take(channel[1])
    core.send(channel[0], Message().pack(), [null])
    os.close(channel[0])
    channel[0] = -1
    close(core.take(channel[1]).fds)
    assert core.take(channel[1]) is None


def test_probes_are_swallowed(core: Any, channel: list[int], null: int):
    probe = Message(kind=Kind.PROBE).pack()
    core.send(channel[0], probe, [null])
    with pytest.raises(BlockingIOError):
        core.take(channel[1])
    core.send(channel[0], probe, [null])
    core.send(channel[0], Message(accepted_ns=7).pack(), [null])
    taken = core.take(channel[1])
    assert taken.accepted_ns == 7
    close(taken.fds)


@pytest.mark.parametrize("count", [2, 16])
def test_a_batch_arrives_whole(core: Any, channel: list[int], null: int, count: int):
    core.send(channel[0], Message(count=count).pack(), [null] * count)
    taken = core.take(channel[1])
    assert len(taken.fds) == count
    close(taken.fds)


@pytest.mark.parametrize("fds", [[], [0] * 2, [0] * 17])
def test_a_message_that_must_not_be_sent(core: Any, channel: list[int], fds: list[int]):
    with pytest.raises(OSError, match="64 bytes"):
        core.send(channel[0], Message(count=1).pack(), fds)
    with pytest.raises(OSError, match="64 bytes"):
        core.send(channel[0], b"short", [0])
    assert core.pending(channel[1]) == 0


def test_a_full_channel_says_so_and_keeps_the_fds_with_the_caller(
    core: Any, channel: list[int], null: int
):
    message = Message().pack()
    sent = []

    def fill() -> None:
        while True:
            core.send(channel[0], message, [null])
            sent.append(null)

    with pytest.raises(BlockingIOError):
        fill()
    assert core.pending(channel[1]) == len(sent) > 69
    os.fstat(null)


def test_with_a_full_fd_table_the_connection_stays_queued(core: Any, channel: list[int], null: int):
    core.send(channel[0], Message().pack(), [null])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(null)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files") as caught:
            core.take(channel[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
    assert core.pending(channel[1]) == 1
    close(core.take(channel[1]).fds)


@pytest.mark.parametrize("bad", [Message(version=2), Message(kind=9)])
def test_a_message_of_another_protocol_is_refused_and_closed(
    core: Any, channel: list[int], null: int, bad: Message
):
    core.send(channel[0], bad.pack(), [null])
    with pytest.raises(OSError, match=r"."):
        core.take(channel[1])
    with pytest.raises(BlockingIOError):
        core.take(channel[1])


def test_more_fds_than_the_message_says_are_closed(core: Any, channel: list[int], null: int):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=os.dup(channel[0])) as raw:
        socket.send_fds(raw, [Message(count=1).pack()], [null] * 5)
    taken = core.take(channel[1])
    assert len(taken.fds) == 1
    close(taken.fds)


# ---- the scoreboard ---------------------------------------------------------------------------


@pytest.fixture
def board(core: Any, nothing_left_open: None) -> Iterator[int]:
    """A scoreboard's descriptor."""
    fd = core.scoreboard_create(3, 4)
    yield fd
    os.close(fd)


def test_two_mappings_see_the_same_numbers(core: Any, board: int):
    writer, reader = core.Scoreboard(board, writable=True), core.Scoreboard(board)
    for number, field in enumerate(Field):
        writer.store(field, number + 1)
        assert reader.load(field) == number + 1
    writer.add(Field.RECEIVED)
    writer.add(Field.RECEIVED, 5)
    writer.store(Field.BUSY, 0)
    writer.add(Field.BUSY, -2)
    assert reader.load(Field.RECEIVED) == 7
    assert reader.load(Field.BUSY) == -2
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.load(Field.SENT)
    assert reader.load(Field.RECEIVED) == 7
    reader.close()


def test_its_head_is_as_documented(core: Any, board: int):
    assert os.pread(board, 16, 0) == b"RRSB" + bytes.fromhex("01000000 03000000 04000000")


def test_nobody_can_shrink_it(core: Any, board: int):
    for size in (0, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(board, size)


def test_what_is_no_scoreboard_is_refused(core: Any, null: int):
    memory = os.memfd_create("unsealed")
    for content in (b"", bytes(4096)):
        os.pwrite(memory, content, 0)
        with pytest.raises(OSError, match=r"."):
            core.Scoreboard(memory)
    os.close(memory)
    with pytest.raises(OSError, match=r"."):
        core.Scoreboard(null)


# ---- control messages -------------------------------------------------------------------------


@pytest.fixture
def control(nothing_left_open: None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield pair
    for end in pair:
        end.close()


Pair = tuple[socket.socket, socket.socket]


@pytest.mark.parametrize("count", [0, 1, 40])
def test_a_control_message_arrives(core: Any, control: Pair, null: int, count: int):
    data = Control(9, 5, -3, 7, 8, (1, 2)).pack()
    core.control_send(control[0].fileno(), data, [null] * count)
    received, fds = core.control_receive(control[1].fileno())
    assert (received, len(fds)) == (data, count)
    close(fds)
    with pytest.raises(BlockingIOError):
        core.control_receive(control[1].fileno())


@pytest.mark.parametrize("data", [b"", b"x", bytes(119), bytes(121), Control(9, version=2).pack()])
def test_a_control_message_that_is_none(core: Any, control: Pair, null: int, data: bytes):
    socket.send_fds(control[0], [data], [null] * 3)
    with pytest.raises(OSError, match=r".") as caught:
        core.control_receive(control[1].fileno())
    assert caught.value.errno == errno.EPROTO
    control[0].close()
    assert core.control_receive(control[1].fileno()) is None


# ---- spawn ------------------------------------------------------------------------------------


def run(core: Any, request: SpawnRequest) -> int:
    """The exit code of what it starts."""
    pid, pidfd = core.spawn(request)
    os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def output(core: Any, code: str, **more: Any) -> str:
    """What a Python of its own prints to fd 1."""
    reading, writing = os.pipe()
    environment = more.pop("environment", {})
    fds = [(writing, 1), (2, 2), *more.pop("fds", [])]
    arguments = [sys.executable, "-I", "-S", "-c", code]
    assert run(core, SpawnRequest(sys.executable, arguments, environment, fds=fds, **more)) == 0
    os.close(writing)
    with os.fdopen(reading) as file:
        return file.read().strip()


def test_the_child_has_exactly_what_it_was_given(core: Any, null: int):
    code = "import os; print([os.readlink(f'/proc/self/fd/{n}') for n in (0, 7, 8)], *os.environ)"
    said = output(core, code, fds=[(null, 8), (null, 7)], environment={"LC_ALL": "C.UTF-8"})
    assert said == str(["/dev/null"] * 3) + " LC_ALL"
    held = output(core, "import os; print(os.listdir('/proc/self/fd'))", fds=[(null, 7)])
    # 3 is the listing itself.
    assert held == str(["0", "1", "2", "3", "7"])


def test_pairs_may_cross(core: Any, tmp_path: Any):
    fds = []
    for name in "ab":
        (tmp_path / name).write_text(name)
        fds.append(os.open(tmp_path / name, os.O_RDONLY))
    one, two = fds
    code = f"import os; print(os.read({one}, 1), os.read({two}, 1))"
    assert output(core, code, fds=[(one, two), (two, one)]) == "b'b' b'a'"
    close(fds)


def test_session_limits_cores_cwd_and_signals(core: Any, tmp_path: Any):
    code = (
        "import os, resource, signal\n"
        "print(os.getsid(0) == os.getpid(), resource.getrlimit(resource.RLIMIT_NOFILE),"
        " os.sched_getaffinity(0), os.getcwd(), signal.getsignal(signal.SIGUSR1).name,"
        " signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    )
    core_number = min(os.sched_getaffinity(0))
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        said = output(core, code, cwd=str(tmp_path), nofile=(50, 60), cores=[core_number])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        signal.signal(signal.SIGUSR1, before)
    assert said == f"True (50, 60) {{{core_number}}} {tmp_path} SIG_DFL set()"


@pytest.mark.parametrize(
    ("step", "more"),
    [
        ("FDS", {"fds": [(9999, 5)]}),
        ("LIFELINE", {"lifeline": 77}),
        ("LIMITS", {"nofile": (5, 1)}),
        ("AFFINITY", {"cores": [4000]}),
        ("CWD", {"cwd": "/nonexistent"}),
        ("EXEC", {"program": "/nonexistent/program"}),
    ],
)
def test_a_step_that_fails_is_named_and_no_child_is_left(core: Any, step: str, more: Any):
    request = SpawnRequest(
        **{"program": "/bin/true", "arguments": ["x"], "environment": {}, **more}
    )
    before = children()
    with pytest.raises(OSError, match=r".") as caught:
        core.spawn(request)
    assert caught.value.filename == step
    assert children() <= before


def test_the_lifeline_ends_the_whole_group(core: Any):
    mine, its = socket.socketpair()
    code = "sleep 1000 & echo >&5; wait"
    reading, writing = os.pipe()
    request = SpawnRequest(
        "/bin/sh", ["sh", "-c", code], {"PATH": "/usr/bin:/bin"},
        fds=[(its.fileno(), 6), (writing, 5)], lifeline=6,
    )  # fmt: skip
    pid, pidfd = core.spawn(request)
    os.close(writing)
    its.close()
    assert os.read(reading, 1) == b"\n"
    mine.close()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(60_000)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    # The pipe ends when the last of the group is gone.
    assert os.read(reading, 1) == b""
    close([reading, pidfd])


def test_strings_that_are_no_text_travel(core: Any):
    raw = os.fsdecode(b"\xff\x80")
    code = "import os; print(os.environb[b'A'])"
    assert output(core, code, environment={"A": raw}) == r"b'\xff\x80'"


# ---- the gate ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_the_gate_keeps_what_is_queued_and_lets_nobody_in(core: Any, family: int, tmp_path: Any):
    if family != socket.AF_UNIX:
        need_gate()
    name = {
        socket.AF_INET: ("127.0.0.1", 0),
        socket.AF_INET6: ("::1", 0),
        socket.AF_UNIX: str(tmp_path / "sock"),
    }[family]
    with socket.socket(family) as listener, socket.socket(family) as client:
        listener.bind(name)
        listener.listen(8)
        client.connect(listener.getsockname())
        core.gate(listener.fileno())
        with socket.socket(family) as late:
            late.settimeout(0.1)
            with pytest.raises((TimeoutError, ConnectionRefusedError)):
                late.connect(listener.getsockname())
        connection, _ = listener.accept()
        with connection:
            client.sendall(b"hello")
            assert connection.recv(9) == b"hello"
            connection.sendall(b"you")
            assert client.recv(9) == b"you"
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_the_clock_is_the_monotonic_one(core: Any):
    import time

    before = time.monotonic_ns()
    assert before <= core.now_ns() <= time.monotonic_ns()
