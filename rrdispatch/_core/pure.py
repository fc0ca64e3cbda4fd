"""The stdlib-only twin of the C core: channels, scoreboards, control messages and the gate.

Owns the system calls of the border where no compiler was at hand; ``_core`` chooses between it and
``native``. It decides nothing. The scoreboard's adds are atomic between the threads of one process
only: the C makes them atomic between all processes of a worker.
"""

from __future__ import annotations

import array
import errno
import fcntl
import functools
import mmap
import os
import select
import socket
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rrdispatch import mutants

from . import pure_ledger
from .layout import (
    BATCH_MAX,
    CONTROL_FDS,
    CONTROL_SIZE,
    CONTROL_VERSION,
    FIELD_OFFSETS,
    MESSAGE_SIZE,
    SCOREBOARD_HEAD,
    SCOREBOARD_MAGIC,
    SCOREBOARD_SIZE,
    SCOREBOARD_VERSION,
    Control,
    Kind,
    Message,
    SpawnRequest,
    Taken,
)
from .pure_ledger import ledger_close, ledger_cookie, ledger_note, ledger_open
from .pure_spawn import spawn

__all__ = [
    "NATIVE",
    "Scoreboard",
    "SpawnRequest",
    "Taken",
    "channel_pair",
    "control_receive",
    "control_send",
    "dispatcher_program",
    "gate",
    "ledger_close",
    "ledger_cookie",
    "ledger_note",
    "ledger_open",
    "now_ns",
    "pending",
    "scoreboard_create",
    "send",
    "shim_library",
    "spawn",
    "take",
]

NATIVE = False

_SO_ATTACH_FILTER = 26
_SOL_SOCKET = socket.SOL_SOCKET
_SCM_RIGHTS = socket.SCM_RIGHTS
_INT = array.array("i").itemsize
_TAKE_ROOM = socket.CMSG_SPACE(BATCH_MAX * _INT)
_CONTROL_ROOM = socket.CMSG_SPACE(CONTROL_FDS * _INT)
_TAKE_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

now_ns = time.monotonic_ns


@contextmanager
def _borrowed(fd: int, kind: int) -> Iterator[socket.socket]:
    """A socket object over an fd that stays the caller's."""
    sock = socket.socket(socket.AF_UNIX, kind, 0, fileno=fd)
    try:
        yield sock
    finally:
        sock.detach()


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def received_fds(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """Every descriptor of every SCM_RIGHTS message: a padded buffer may admit one too many."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % _INT])
    return found.tolist()


# ---- the channel ------------------------------------------------------------------------------


def channel_pair() -> tuple[int, int]:
    """(sending, receiving) end, both close-on-exec."""
    sending, receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return sending.detach(), receiving.detach()


def send(channel: int, message: bytes, fds: Sequence[int]) -> None:
    """Send without waiting; the fds stay the caller's. BlockingIOError: full; ETOOMANYREFS: too."""
    if len(message) != MESSAGE_SIZE or not 1 <= len(fds) <= BATCH_MAX or message[2] != len(fds):
        raise OSError(errno.EINVAL, "a message is 64 bytes with as many descriptors as it says")
    rights = [(_SOL_SOCKET, _SCM_RIGHTS, array.array("i", fds))]
    with _borrowed(channel, socket.SOCK_STREAM) as sock:
        sock.sendmsg([message], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def take(channel: int) -> Taken | None:
    """The next connection; None at EOF; BlockingIOError when none waits; probes are swallowed.

    EMFILE comes with the message still queued: with a full table the kernel would drop the
    connection, so room is made sure of before it is taken.
    """
    with _borrowed(channel, socket.SOCK_STREAM) as sock:
        while True:
            # Peeking without room for control data installs no descriptor: it tells kind and count.
            head = sock.recv(MESSAGE_SIZE, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            if not head:
                return None
            if len(head) < MESSAGE_SIZE:
                raise OSError(errno.EPROTO, "a message of a wrong size on the channel")
            if head[1] != Kind.PROBE and not mutants.enabled("no-room-check"):
                _make_sure_of_room(channel, head[2])
            taken = None
            pure_ledger.taking(head[2])
            try:
                data, ancillary, flags, _ = sock.recvmsg(MESSAGE_SIZE, _TAKE_ROOM, _TAKE_FLAGS)
                if data:
                    taken = _taken(data, received_fds(ancillary), flags)
            finally:
                pure_ledger.took(taken.fds if taken is not None else ())
            if taken is not None or not data:
                return taken


def _make_sure_of_room(fd: int, count: int) -> None:
    reserved: list[int] = []
    try:
        for _ in range(min(count, BATCH_MAX)):
            reserved.append(os.dup(fd))  # noqa: PERF401 (kept when a later one fails)
    finally:
        _close_all(reserved)


def _taken(data: bytes, fds: list[int], flags: int) -> Taken | None:
    """What was received, or None for a probe; all else that is no connection is closed and said."""
    try:
        message = Message.unpack(data)
    except struct.error:
        _close_all(fds)
        raise OSError(errno.EPROTO, "a message of a wrong size on the channel") from None
    if message.kind == Kind.PROBE:
        _close_all(fds)
        return None
    if message.version != 1 or message.kind != Kind.CONNECTION:
        _close_all(fds)
        raise OSError(errno.EPROTO, "a message of an unknown version or kind on the channel")
    if not fds and flags & socket.MSG_CTRUNC:
        raise OSError(errno.ECONNABORTED, "the kernel dropped a connection: the fd table was full")
    _close_all(fds[message.count :])
    return Taken(
        message.kind, message.flags, message.accepted_ns, message.peer, fds[: message.count]
    )


def pending(channel: int) -> int:
    """Messages queued, asked at the receiving end."""
    count = bytearray(4)
    fcntl.ioctl(channel, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder) // MESSAGE_SIZE


# ---- the scoreboard ---------------------------------------------------------------------------


def scoreboard_create(slot: int, generation: int) -> int:
    """A memfd that nobody can shrink: else a worker's ftruncate would kill whoever reads it."""
    fd = os.memfd_create("rrdispatch-scoreboard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, SCOREBOARD_SIZE)
        head = SCOREBOARD_HEAD.pack(SCOREBOARD_MAGIC, SCOREBOARD_VERSION, slot, generation)
        os.pwrite(fd, head, 0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


class Scoreboard:
    """A mapped scoreboard. The fd stays the caller's (the mapping keeps a duplicate).

    ``words`` is the whole of it as numbers of 64 bits, for a loop that counts its microseconds.
    """

    __slots__ = ("_cells", "_lock", "_map", "_views", "words")

    def __init__(self, fd: int, writable: bool = False) -> None:
        if os.fstat(fd).st_size < SCOREBOARD_SIZE:
            raise OSError(errno.EINVAL, "not a scoreboard: too small")
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK == 0:
            raise OSError(errno.EINVAL, "not a scoreboard: it could be shrunk under its reader")
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._map = mmap.mmap(fd, SCOREBOARD_SIZE, mmap.MAP_SHARED, access)
        magic, version, _, _ = SCOREBOARD_HEAD.unpack_from(self._map)
        if (magic, version) != (SCOREBOARD_MAGIC, SCOREBOARD_VERSION):
            self._map.close()
            raise OSError(errno.EINVAL, "not a scoreboard of this version")
        self._lock = threading.Lock()
        whole = memoryview(self._map)
        self.words = whole.cast("Q")
        self._views = [whole, self.words, whole.cast("I"), whole.cast("q")]
        by_code = dict(zip("QIq", self._views[1:], strict=True))
        self._cells: dict[int, tuple[memoryview, int]] = {
            name: (by_code[code], offset // struct.calcsize(code))
            for name, (offset, code) in FIELD_OFFSETS.items()
        }

    def _cell(self, field: int) -> tuple[memoryview, int]:
        if not self._views:
            raise ValueError("the scoreboard is closed")
        return self._cells[field]

    def load(self, field: int) -> int:
        """The value as it is now: another process may write anything, so check its range."""
        view, index = self._cell(field)
        return int(view[index])

    def store(self, field: int, value: int) -> None:
        """Write a value in one piece."""
        view, index = self._cell(field)
        view[index] = value if view.format == "q" else value % (1 << (8 * view.itemsize))

    def add(self, field: int, delta: int = 1) -> None:
        """Add, atomically between the threads of this process; a counter that overflows wraps."""
        view, index = self._cell(field)
        bits = 8 * view.itemsize
        with self._lock:
            total = view[index] + delta
            if view.format == "q":
                view[index] = (total + (1 << 63)) % (1 << 64) - (1 << 63)
            else:
                view[index] = total % (1 << bits)

    def adder(self, field: int, delta: int = 1) -> Callable[[], object]:
        """``add`` of always the same."""
        self.add(field, 0)
        return functools.partial(self.add, field, delta)

    def close(self) -> None:
        """Unmap; a second close does nothing."""
        for view in reversed(self._views):
            view.release()
        self._views = []
        self._map.close()


# ---- control messages -------------------------------------------------------------------------


class MalformedError(OSError):
    """EPROTO for a control message that is none; its fds are closed, `data` is what came."""

    def __init__(self, data: bytes) -> None:
        super().__init__(errno.EPROTO, "a control message of a wrong size or version")
        self.data = data


def control_send(fd: int, message: bytes, fds: Sequence[int] = ()) -> None:
    """Send one control message without waiting; the fds stay the caller's."""
    if len(message) != CONTROL_SIZE or len(fds) > CONTROL_FDS:
        raise OSError(errno.EINVAL, "a control message is 120 bytes with at most 40 descriptors")
    rights = [(_SOL_SOCKET, _SCM_RIGHTS, array.array("i", fds))] if fds else []
    with _borrowed(fd, socket.SOCK_SEQPACKET) as sock:
        sock.sendmsg([message], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def control_receive(fd: int) -> tuple[bytes, list[int]] | None:
    """One message and its fds; None at EOF. EPROTO: one that is none; its fds are closed."""
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    with _borrowed(fd, socket.SOCK_SEQPACKET) as sock:
        data, ancillary, told, _ = sock.recvmsg(CONTROL_SIZE, _CONTROL_ROOM, flags)
    fds = received_fds(ancillary)
    if not data and not fds and _hung_up(fd):
        return None
    cut = told & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(fds) > CONTROL_FDS
    if cut or len(data) != CONTROL_SIZE or Control.unpack(data).version != CONTROL_VERSION:
        _close_all(fds)
        raise MalformedError(data)
    return data, fds


def _hung_up(fd: int) -> bool:
    """An empty SEQPACKET message reads like EOF; only a hang-up is one."""
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return any(event & (select.POLLRDHUP | select.POLLHUP) for _, event in poll.poll(0))


# ---- small things of the operating system -----------------------------------------------------

# Classic BPF: drop a segment whose TCP flags (byte 13) are SYN without ACK, pass all others.
# Dropping everything would also drop the last ACK of a handshake, and accepted sockets inherit it.
_SYN_FILTER = (
    (0x30, 0, 0, 13),  # ldb [13]
    (0x54, 0, 0, 0x12),  # and SYN|ACK
    (0x15, 0, 1, 0x02),  # jeq SYN, else skip one
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass
)


def gate(listener: int) -> None:
    """New connections are turned away from now on; what is in the backlog can be accepted.

    TCP: new SYNs are ignored, so the client asks again and is refused once the listener is closed.
    AF_UNIX: a listener that is shut down for reading refuses, and accept still takes the queued.
    """
    sock = socket.socket(fileno=listener)
    try:
        if sock.family == socket.AF_UNIX:
            sock.shutdown(socket.SHUT_RD)
            return
        code = b"".join(struct.pack("=HBBI", *line) for line in _SYN_FILTER)
        program = array.array("B", code)
        address, _ = program.buffer_info()
        sock.setsockopt(
            _SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_SYN_FILTER), address)
        )
    finally:
        sock.detach()


def shim_library() -> str | None:
    """The library that is preloaded into unmodified programs: it needs the C core."""
    return None


def dispatcher_program() -> str | None:
    """The path of the C dispatcher: there is none without a compiler."""
    return None
