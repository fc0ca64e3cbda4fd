"""The C core as Python sees it: the same names as its twin ``pure``.

Owns the conversion between Python's objects and the border of ``csrc/rr_core.inc``, and turns its
``-errno`` into OSError, in one place. It decides nothing and keeps no state.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from ._native import ffi, lib
from .layout import (
    BATCH_MAX,
    CONTROL_FDS,
    CONTROL_SIZE,
    MESSAGE_SIZE,
    PEER_SIZE,
    Candidate,
    Field,
    SpawnRequest,
    Step,
    Taken,
)

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
    "pick",
    "run_dispatcher",
    "scoreboard_create",
    "send",
    "shim_library",
    "spawn",
    "take",
]

NATIVE = True

_SIGNED = frozenset({Field.BUSY})
PID_ROOM = "0" * 10
_SETSID, _RLIMIT, _AFFINITY = lib.RR_SPAWN_SETSID, lib.RR_SPAWN_RLIMIT_NOFILE, lib.RR_SPAWN_AFFINITY
_PROGRAM = Path(__file__).with_name("rr-dispatcher")
_SHIM = Path(__file__).with_name("rr-shim.so")


def _checked(result: int, what: str | None = None) -> int:
    """The one place where -errno becomes an OSError."""
    if result < 0:
        raise OSError(-result, os.strerror(-result), what)
    return result


# ---- the channel ------------------------------------------------------------------------------


def channel_pair() -> tuple[int, int]:
    """(sending, receiving) end, both close-on-exec."""
    pair = ffi.new("int[2]")
    _checked(lib.rr_channel_pair(pair))
    return pair[0], pair[1]


def send(channel: int, message: bytes, fds: Sequence[int]) -> None:
    """Send without waiting; the fds stay the caller's. BlockingIOError: full; ETOOMANYREFS: too."""
    if len(message) != MESSAGE_SIZE or not 1 <= len(fds) <= BATCH_MAX or message[2] != len(fds):
        raise OSError(errno.EINVAL, "a message is 64 bytes with as many descriptors as it says")
    whole = ffi.from_buffer("struct rr_message *", message)
    _checked(lib.rr_send(channel, whole, list(fds)))


def take(channel: int) -> Taken | None:
    """The next connection; None at EOF; BlockingIOError when none waits; probes are swallowed.

    EMFILE comes with the message still queued. ECONNABORTED: the kernel dropped the connection.
    """
    message = ffi.new("struct rr_message *")
    fds = ffi.new("int[]", BATCH_MAX)
    count = _checked(lib.rr_take(channel, message, fds, BATCH_MAX))
    if count == 0:
        return None
    peer = ffi.buffer(message.peer, min(message.peer_length, PEER_SIZE))[:]
    taken = [fds[0]] if count == 1 else ffi.unpack(fds, count)
    return Taken(message.kind, message.flags, message.accepted_ns, peer, taken)


def pending(channel: int) -> int:
    """Messages queued, asked at the receiving end."""
    return _checked(lib.rr_pending(channel))


# ---- the scoreboard ---------------------------------------------------------------------------


def scoreboard_create(slot: int, generation: int) -> int:
    """A sealed memfd: nobody can shrink it under its readers."""
    return _checked(lib.rr_scoreboard_create(slot, generation))


class Scoreboard:
    """A mapped scoreboard. The fd stays the caller's; adds are atomic between processes."""

    __slots__ = ("_board",)

    def __init__(self, fd: int, writable: bool = False) -> None:
        board = lib.rr_scoreboard_map(fd, writable)
        if board == ffi.NULL:
            raise OSError(ffi.errno, "not a scoreboard of this version, or not sealed")
        self._board = board

    def _open(self) -> object:
        if self._board is None:
            raise ValueError("the scoreboard is closed")
        return self._board

    def load(self, field: int) -> int:
        """The value as it is now: another process may write anything, so check its range."""
        value: int = lib.rr_scoreboard_load(self._open(), field)
        if field in _SIGNED and value >= 1 << 63:
            return value - (1 << 64)
        return value

    def store(self, field: int, value: int) -> None:
        """Write a value in one piece."""
        _checked(lib.rr_scoreboard_store(self._open(), field, value % (1 << 64)))

    def add(self, field: int, delta: int = 1) -> None:
        """Add, atomically between all processes of a worker."""
        _checked(lib.rr_scoreboard_add(self._open(), field, delta))

    def adder(self, field: int, delta: int = 1) -> Callable[[], object]:
        """``add`` without a line of Python, for every request; the scoreboard must stay open."""
        self.add(field, 0)  # a field that cannot be added to is said now
        return functools.partial(lib.rr_scoreboard_add, self._open(), int(field), delta)

    def close(self) -> None:
        """Unmap; a second close does nothing."""
        board, self._board = self._board, None
        if board is not None:
            lib.rr_scoreboard_unmap(board)


# ---- control messages -------------------------------------------------------------------------


def control_send(fd: int, message: bytes, fds: Sequence[int] = ()) -> None:
    """Send one control message without waiting; the fds stay the caller's."""
    if len(message) != CONTROL_SIZE or len(fds) > CONTROL_FDS:
        raise OSError(errno.EINVAL, "a control message is 120 bytes with at most 40 descriptors")
    whole = ffi.from_buffer("struct rr_control *", message)
    _checked(lib.rr_control_send(fd, whole, list(fds), len(fds)))


def control_receive(fd: int) -> tuple[bytes, list[int]] | None:
    """One message and its fds; None at EOF. EPROTO: one that is none; its fds are closed."""
    message = ffi.new("struct rr_control *")
    fds = ffi.new("int[]", CONTROL_FDS)
    count = ffi.new("int *")
    if not _checked(lib.rr_control_receive(fd, message, fds, CONTROL_FDS, count)):
        return None
    return bytes(ffi.buffer(message)), ffi.unpack(fds, count[0])


# ---- processes --------------------------------------------------------------------------------


def _strings(values: Sequence[str], alive: list[object]) -> object:
    """A NULL-terminated array of C strings; `alive` keeps the memory."""
    return _array([ffi.new("char[]", os.fsencode(value)) for value in values], alive)


def _array(items: Sequence[object], alive: list[object]) -> object:
    array = ffi.new("char *[]", [*items, ffi.NULL])
    alive += [items, array]
    return array


def _variables(request: SpawnRequest) -> list[bytes]:
    """KEY=VALUE each; the one for the child's pid last, with room for it."""
    kept = {name: text for name, text in request.environment.items() if name != request.own_pid}
    texts = [f"{name}={text}" for name, text in kept.items()]
    if request.own_pid is not None:
        texts.append(f"{request.own_pid}={PID_ROOM}")
    return [os.fsencode(text) for text in texts]


def spawn(request: SpawnRequest) -> tuple[int, int]:
    """(pid, pidfd); OSError with the failed step as its filename, and then no child is left."""
    alive: list[object] = []
    cores = request.cores or []
    flags = _SETSID if request.setsid else 0
    flags |= _RLIMIT if request.nofile is not None else 0
    flags |= _AFFINITY if request.cores is not None else 0
    soft, hard = request.nofile or (0, 0)
    pairs = ffi.new("int[]", [number for pair in request.fds for number in pair])
    program = ffi.new("char[]", os.fsencode(request.program))
    cwd = ffi.NULL if request.cwd is None else ffi.new("char[]", os.fsencode(request.cwd))
    core_array = ffi.new("int[]", cores)
    environment = [ffi.new("char[]", text) for text in _variables(request)]
    pid_text = {}
    if request.own_pid is not None:
        pid_text["pid_text"] = environment[-1] + len(request.own_pid) + 1
    native = ffi.new(
        "struct rr_spawn *",
        {
            "program": program,
            "arguments": _strings(request.arguments, alive),
            "environment": _array(environment, alive),
            "cwd": cwd,
            "fds": pairs,
            "fd_pairs": len(request.fds),
            "lifeline": -1 if request.lifeline is None else request.lifeline,
            "flags": flags,
            "nofile_soft": soft % (1 << 64),
            "nofile_hard": hard % (1 << 64),
            "cores": core_array,
            "core_count": len(cores),
            **pid_text,
        },
    )
    pidfd, step = ffi.new("int *"), ffi.new("int *")
    pid = lib.rr_spawn(native, pidfd, step)
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid), Step(step[0]).name)
    return pid, pidfd[0]


def dispatcher_program() -> str | None:
    """The path of the built executable, or None. A debugging aid: ``RRDISPATCH_DISPATCHER_PROGRAM``
    names another build of it, for example one with sanitizers.
    """
    program = Path(os.environ.get("RRDISPATCH_DISPATCHER_PROGRAM") or _PROGRAM)
    try:
        mode = program.stat().st_mode
    except FileNotFoundError:
        return None
    return str(program) if stat.S_ISREG(mode) and mode & stat.S_IXUSR else None


def shim_library() -> str | None:
    """The path of the library that is preloaded into unmodified programs, or None."""
    return str(_SHIM) if _SHIM.is_file() else None


def run_dispatcher(control: int) -> int:
    """The dispatcher's loop in this process, without the GIL; `control` is its own from now on."""
    return _checked(lib.rr_dispatcher_run(control))


# ---- the ledger -------------------------------------------------------------------------------


def ledger_open(path: str, role: int, slot: int = 0, generation: int = 0) -> None:
    """Append to this ledger from now on."""
    _checked(lib.rr_ledger_open(os.fsencode(path), role, slot, generation), path)


def ledger_close() -> None:
    """Note nothing more; a second close does nothing."""
    _checked(lib.rr_ledger_close())


def ledger_note(event: int, cookie: int = 0, detail: int = 0) -> None:
    """Append one entry in this process' own name; nothing while no ledger is open."""
    lib.rr_ledger_note(event, cookie, detail)


def ledger_cookie(fd: int) -> int:
    """The kernel's number of a socket, the same in every process; 0 if it cannot be read."""
    return int(lib.rr_ledger_cookie(fd))


# ---- small things -----------------------------------------------------------------------------


def gate(listener: int) -> None:
    """New connections are turned away from now on; what is in the backlog can be accepted."""
    _checked(lib.rr_gate(listener))


def now_ns() -> int:
    """CLOCK_MONOTONIC."""
    return int(lib.rr_now_ns())


def pick(policy: int, candidates: Sequence[Candidate], turn: int, fewest: int, band: int) -> int:
    """Index of the worker to take, or -1; the twin is ``dispatch.policy.pick``."""
    table = ffi.new("struct rr_candidate[]", len(candidates))
    for row, one in zip(table, candidates, strict=True):
        row.pending, row.inflight, row.capacity = one.pending, one.inflight, one.capacity
        row.eligible, row.fresh = one.eligible, one.fresh
    return int(lib.rr_pick(policy, table, len(candidates), turn, fewest, band))


def source(peer: bytes) -> int:
    """A number for a client's address; the twin is ``dispatch.policy.source``."""
    return int(lib.rr_source(ffi.from_buffer("uint8_t[]", peer), len(peer)))


def pick_source(candidates: Sequence[Candidate], source: int) -> int:
    """Index of the first worker in that client's order, or -1; the twin is in ``policy``, too."""
    table = ffi.new("struct rr_candidate[]", len(candidates))
    for row, one in zip(table, candidates, strict=True):
        row.eligible, row.slot = one.eligible, one.slot
    return int(lib.rr_pick_source(table, len(candidates), source))
