"""The primary's handle on a dispatcher: a process of its own, asked over one control socket.

Owns the control socket and the pidfd. There is no loop inside: whoever holds the handle waits for
``fileno()`` (messages) and ``pidfd`` (its end). It must not know what the messages mean.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rrdispatch import _core, ledger, mutants
from rrdispatch._core.layout import Control, SpawnRequest
from rrdispatch.errors import DispatcherError, ProtocolError

ControlMessage = Control
KINDS = ("c", "python")

CONTROL_NUMBER = 3
_MAIN = Path(__file__).with_name("__main__.py")
# What the dynamic linker, the sanitizers and the tests need; nothing else is read.
_LINKER = ("LD_LIBRARY_PATH", "ASAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS")
_PASSED_ON = (*_LINKER, ledger.VARIABLE, mutants.VARIABLE)


def default_kind() -> str:
    """``c`` where the program was built, else ``python``."""
    return "python" if _core.dispatcher_program() is None else "c"


def command(kind: str) -> list[str]:
    """Program and arguments of a dispatcher."""
    if kind == "python":
        # Isolated and without site: nothing of the environment or the cwd is imported into it.
        return [sys.executable, "-I", "-S", str(_MAIN)]
    if kind != "c":
        raise DispatcherError(
            f"there is no dispatcher {kind!r}", hint=f"choose one of {', '.join(KINDS)}"
        )
    program = _core.dispatcher_program()
    if program is None:
        raise DispatcherError(
            "the C dispatcher was not built",
            hint="install a C compiler and rrdispatch again, or use --dispatcher python",
        )
    return [program]


def _standard_pairs() -> list[tuple[int, int]]:
    """Stdout and stderr for the dispatcher, and through it for heirs; those that are open."""
    pairs = []
    for number in (1, 2):
        with suppress(OSError):
            os.fstat(number)
            pairs.append((number, number))
    return pairs


class DispatcherHandle:
    """One running dispatcher. Closing it ends the control socket: it starts an heir if it was told
    to, else it drains and ends.
    """

    def __init__(self, kind: str, pid: int, pidfd: int, control: socket.socket) -> None:
        self.kind = kind
        self.pid = pid
        self.pidfd = pidfd
        self._control = control
        self._sequence = 0
        self._received: dict[int, list[int]] = {}

    @classmethod
    def start(cls, kind: str, *, nofile: tuple[int, int] | None = None) -> DispatcherHandle:
        """Start one; its first message is STARTED. DispatcherError names the step that failed."""
        arguments = command(kind)
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = SpawnRequest(
            program=arguments[0],
            arguments=arguments,
            environment={k: v for k in _PASSED_ON if (v := os.environ.get(k)) is not None},
            cwd="/",
            fds=[*_standard_pairs(), (its.fileno(), CONTROL_NUMBER)],
            nofile=nofile,
        )
        with its:
            try:
                pid, pidfd = _core.spawn(request)
            except OSError as error:
                ours.close()
                raise DispatcherError(
                    f"the dispatcher could not be started: {error.strerror} ({error.filename})"
                ) from error
        ours.setblocking(False)
        return cls(kind, pid, pidfd, ours)

    @classmethod
    def inherit(
        cls, control: socket.socket, pid: int, *, kind: str | None = None
    ) -> DispatcherHandle:
        """The dispatcher that started us as its heir; STARTED is its first message here, too."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise DispatcherError(f"the dispatcher {pid} is gone") from error
        control.set_inheritable(False)
        control.setblocking(False)
        return cls(kind or default_kind(), pid, pidfd, control)

    def fileno(self) -> int:
        """The control socket, to wait on; -1 after close."""
        return self._control.fileno()

    def request(
        self,
        kind: int,
        *,
        worker: int = 0,
        listener: int = 0,
        values: Sequence[int] = (),
        fds: Sequence[int] = (),
    ) -> int:
        """Send a request; its answer carries the number returned. The fds stay the caller's."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        message = Control(int(kind), self._sequence, 0, worker, listener, tuple(values)).pack()
        try:
            _core.control_send(self.fileno(), message, fds)
        except BlockingIOError as error:
            raise DispatcherError("the dispatcher does not read its requests") from error
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED, errno.EBADF):
                raise
            raise DispatcherError("the dispatcher is gone") from error
        return self._sequence

    def receive(self) -> list[ControlMessage]:
        """Every answer and event that waits, [] if none; EOFError when the dispatcher is gone.

        The fds of an answer are there for ``take_fds`` until the next call, which closes them.
        """
        self._drop_fds()
        messages: list[ControlMessage] = []
        while True:
            try:
                received = _core.control_receive(self.fileno())
            except BlockingIOError:
                return messages
            except ConnectionResetError:
                # It ended with requests unread; what it said before comes first.
                received = None
            except OSError as error:
                raise ProtocolError(
                    f"the dispatcher does not speak our protocol: {error}"
                ) from error
            if received is None:
                if messages:
                    return messages
                raise EOFError("the dispatcher is gone")
            message, fds = Control.unpack(received[0]), received[1]
            messages.append(message)
            if fds:
                self._received.setdefault(message.sequence, []).extend(fds)

    def take_fds(self, sequence: int) -> list[int]:
        """The fds that came with an answer of the last ``receive``: the caller's from here on."""
        return self._received.pop(sequence, [])

    def _drop_fds(self) -> None:
        for fds in self._received.values():
            for fd in fds:
                os.close(fd)
        self._received.clear()

    def close(self) -> None:
        """Close control socket, pidfd and what nobody took; a second close does nothing."""
        self._drop_fds()
        self._control.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
