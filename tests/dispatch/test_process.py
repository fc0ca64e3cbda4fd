"""The handle on a dispatcher: start, its end, and what is said when it cannot be started."""

from __future__ import annotations

import os
import signal
import socket
import sys

import pytest

from rrdispatch import _core
from rrdispatch._core.layout import AppTag, Control, ControlKind, Inherit, SpawnRequest
from rrdispatch.dispatch import process
from rrdispatch.dispatch.process import DispatcherHandle
from rrdispatch.errors import DispatcherError, ProtocolError

from .rig import Rig
from .workers import ROOT, wait_readable


def ended(handle: DispatcherHandle) -> int:
    wait_readable(handle.pidfd, "the end of the dispatcher")
    return os.waitstatus_to_exitcode(os.waitpid(handle.pid, 0)[1])


def test_it_starts_answers_and_ends(kind: str):
    before = set(os.listdir("/proc/self/fd"))
    handle = DispatcherHandle.start(kind)
    assert handle.kind == kind
    wait_readable(handle.fileno(), "STARTED")
    (started,) = handle.receive()
    assert (started.kind, started.values[0]) == (ControlKind.STARTED, handle.pid)
    assert handle.receive() == []
    sequence = handle.request(ControlKind.STOP)
    assert ended(handle) == 0
    (answer,) = handle.receive()
    assert (answer.kind, answer.sequence, answer.result) == (ControlKind.STOP, sequence, 0)
    with pytest.raises(EOFError):
        handle.receive()
    with pytest.raises(DispatcherError, match="gone"):
        handle.request(ControlKind.PING)
    handle.close()
    handle.close()
    assert set(os.listdir("/proc/self/fd")) <= before


HARMLESS = [
    "TERM", "INT", "HUP", "QUIT", "PIPE", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "WINCH",
    "TTIN", "TTOU",
]  # fmt: skip


def test_signals_do_not_end_it(dispatcher: Rig):
    for name in HARMLESS:
        signal.pidfd_send_signal(dispatcher.dispatcher.pidfd, signal.Signals[f"SIG{name}"])
    assert dispatcher.ping().workers == 0


def test_it_has_a_session_of_its_own(dispatcher: Rig):
    assert os.getsid(dispatcher.dispatcher.pid) == dispatcher.dispatcher.pid


def test_without_anything_to_do_the_end_of_the_control_socket_ends_it(kind: str):
    handle = DispatcherHandle.start(kind)
    pidfd, handle.pidfd = handle.pidfd, -1
    handle.close()
    handle.pidfd = pidfd
    assert ended(handle) == 0
    handle.close()


def test_the_fds_of_an_answer_are_taken_or_closed(dispatcher: Rig):
    handle = dispatcher.dispatcher
    reading, writing = os.pipe()
    values = (AppTag.STATE,)
    dispatcher.ask(ControlKind.KEEP, values=values, fds=[reading])
    before = sorted(os.listdir("/proc/self/fd"))

    def inherit() -> int:
        asked = (Inherit.KEPT, AppTag.STATE)
        sequence = handle.request(ControlKind.INHERIT, values=asked)
        wait_readable(handle.fileno(), "the answer")
        (answer,) = handle.receive()
        assert (answer.sequence, answer.result) == (sequence, 0)
        assert len(os.listdir("/proc/self/fd")) == len(before) + 1
        return sequence

    (taken,) = handle.take_fds(inherit())
    assert handle.take_fds(handle.request(ControlKind.PING)) == []
    os.write(writing, b"x")
    wait_readable(handle.fileno(), "the answer")
    handle.receive()
    assert os.read(taken, 1) == b"x"
    assert not os.get_inheritable(taken)
    os.close(taken)
    first = inherit()
    assert handle.receive() == []
    assert handle.take_fds(first) == []
    assert sorted(os.listdir("/proc/self/fd")) == before
    inherit()
    dispatcher.hang_up()
    os.close(reading)
    os.close(writing)
    left = set(os.listdir("/proc/self/fd"))
    assert len(left) == len(before) - 3
    assert dispatcher.wait_end() == 0


def test_a_dispatcher_that_is_gone_is_not_inherited():
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its, pytest.raises(DispatcherError, match="gone"):
        DispatcherHandle.inherit(ours, pid)


def test_an_unknown_kind():
    with pytest.raises(DispatcherError, match="rust") as caught:
        DispatcherHandle.start("rust")
    assert "python" in (caught.value.hint or "")


def test_without_a_compiler_python_is_the_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_core, "dispatcher_program", lambda: None)
    assert process.default_kind() == "python"
    with pytest.raises(DispatcherError, match="not built") as caught:
        DispatcherHandle.start("c")
    assert "--dispatcher python" in (caught.value.hint or "")


def test_with_the_program_c_is_the_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_core, "dispatcher_program", lambda: "/bin/dispatcher")
    assert process.default_kind() == "c"
    assert process.command("c") == ["/bin/dispatcher"]


def test_a_program_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch):
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(process, "command", lambda _: ["/nonexistent/dispatcher"])
    with pytest.raises(DispatcherError, match="EXEC"):
        DispatcherHandle.start("c")
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_dispatcher_that_does_not_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "command", lambda _: ["/bin/sleep", "100"])
    handle = DispatcherHandle.start("c")

    def ask_on() -> None:
        for _ in range(10_000):
            handle.request(ControlKind.PING)

    with pytest.raises(DispatcherError, match="does not read"):
        ask_on()
    signal.pidfd_send_signal(handle.pidfd, signal.SIGKILL)
    assert ended(handle) == -signal.SIGKILL
    handle.close()


def test_a_dispatcher_that_speaks_nonsense(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "command", lambda _: ["/bin/sh", "-c", "echo nonsense >&3"])
    handle = DispatcherHandle.start("c")
    ended(handle)
    with pytest.raises(ProtocolError):
        handle.receive()
    handle.close()


def test_the_python_dispatcher_is_a_module_too():
    ours, its = _core_pair()
    pid, pidfd = _core.spawn(
        SpawnRequest(
            program=sys.executable,
            arguments=[sys.executable, "-m", "rrdispatch.dispatch"],
            environment={"PYTHONPATH": str(ROOT)},
            cwd="/",
            fds=[(2, 2), (its, 3)],
        )
    )
    os.close(its)
    _core.control_send(ours, Control(ControlKind.STOP, 1).pack(), ())
    wait_readable(pidfd, "the end of the dispatcher")
    assert os.waitpid(pid, 0)[1] == 0
    for fd in (ours, pidfd):
        os.close(fd)


def _core_pair() -> tuple[int, int]:
    import socket

    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return ours.detach(), its.detach()


def test_the_python_dispatcher_imports_little():
    """It forks helpers and is the fallback of small machines: no asyncio, no psutil, no ctypes."""
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "import rrdispatch.dispatch.loop\n"
        "heavy = {'asyncio', 'psutil', 'ctypes', 'click', 'json', 'subprocess', 'logging'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    environment = {"RRDISPATCH_PURE": "1"}
    arguments = [sys.executable, "-S", "-c", code, str(ROOT)]
    pid, pidfd = _core.spawn(SpawnRequest(sys.executable, arguments, environment, fds=[(2, 2)]))
    assert os.waitpid(pid, 0)[1] == 0
    os.close(pidfd)
