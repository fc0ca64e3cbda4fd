"""The Python twin of ``csrc/rr_core.inc``: numbers, formats and small records of the border.

Owns no file descriptor and calls no system function; a test compares every number with the C.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

PROTOCOL = 1
MESSAGE_SIZE = 64
BATCH_MAX = 16
PEER_SIZE = 48

SCOREBOARD_MAGIC = 0x42535252
SCOREBOARD_VERSION = 1
SCOREBOARD_SIZE = 4096

MAX_WORKERS = 512
MAX_LISTENERS = 16
QUEUE_LIMIT_MAX = 69

CONTROL_VERSION = 1
CONTROL_VALUES = 12
CONTROL_FDS = 40
CONTROL_SIZE = 120

KEPT_FDS = 8
KEPT_TAGS = 7
HEIR_COMMAND_MAX = 256 * 1024
HEIR_ARGUMENTS_MAX = 64
HEIR_VARIABLES_MAX = 2048
HEIRS_MAX = 16

LEDGER_MAGIC = 0x474C5252
LEDGER_VERSION = 1
LEDGER_HEAD_SIZE = 4096
LEDGER_ENTRY_SIZE = 32

FLAG_MOVED = 1
SWITCH_NO_TAKE_BACK = 1
SWITCH_NO_PROBE = 2
SWITCH_NO_PAUSE = 4
SWITCH_LEAK = 8


class Kind(IntEnum):
    """What a message on a channel carries."""

    CONNECTION = 1
    PROBE = 2


class Field(IntEnum):
    """A number on the scoreboard."""

    RECEIVED = 0
    CLOSED = 1
    BUSY = 2
    REQUESTS = 3
    HEARTBEAT = 4
    LOST = 5
    SENT = 6
    STATE = 7
    STALLED = 8


class Policy(IntEnum):
    """Whose turn it is."""

    ROUND_ROBIN = 0
    STRICT = 1
    LEAST_CONNECTIONS = 2
    SOURCE_HASH = 3


class State(IntEnum):
    """A worker as the dispatcher sees it."""

    STARTING = 0
    READY = 1
    PARKED = 2
    DRAINING = 3
    DEAD = 4


class ControlKind(IntEnum):
    """Requests (1 to 14) and events (20 to 28) of a dispatcher's control socket."""

    SETTINGS = 1
    LISTENER_ADD = 2
    LISTENER_CLOSE = 3
    WORKER_ADD = 4
    WORKER_READY = 5
    WORKER_PARK = 6
    WORKER_DRAIN = 7
    WORKER_REMOVE = 8
    PING = 9
    STATS = 10
    STOP = 11
    KEEP = 12
    INHERIT = 13
    HEIR = 14
    CHANNEL_ADD = 15
    STARTED = 20
    STALLED = 21
    RECOVERED = 22
    HUNG = 23
    DEAD = 24
    ACCEPT_ERROR = 25
    LISTENER_FAILED = 26
    FULL = 27
    ROOM = 28


class Inherit(IntEnum):
    """What INHERIT asks for: its value 0."""

    LISTENER = 1
    WORKER = 2
    KEPT = 3


class AppTag(IntEnum):
    """What is kept for the app. Of a dispatcher without a primary CONTROL and DOOR call an heir."""

    STATE = 1
    CONTROL = 2
    LOCK = 3
    LOGGER = 4
    DOOR = 5
    SHARED = 6
    SHARED_MORE = 7


class WorkerTag(IntEnum):
    """What is kept for a worker."""

    VOICE = 1
    SD_NOTIFY = 2


class LedgerRole(IntEnum):
    """Who appends to the ledger."""

    DISPATCHER = 1
    WORKER = 2
    RECLAIMER = 3


class LedgerEvent(IntEnum):
    """What an entry of the ledger says."""

    OPENED = 1
    JOINED = 2
    DEAD = 3
    ACCEPTED = 4
    SENT = 5
    UNSENT = 6
    MOVED = 7
    TAKING = 8
    TAKEN = 9
    TOOK_NOTHING = 10
    FIRST = 11
    DONE = 12


class Step(IntEnum):
    """Where a spawn failed; the name is the ``filename`` of its OSError."""

    FORK = 1
    SETSID = 2
    FDS = 3
    LIFELINE = 4
    LIMITS = 5
    AFFINITY = 6
    CWD = 7
    EXEC = 8


# Offset in the scoreboard and struct code, by field.
FIELD_OFFSETS: dict[Field, tuple[int, str]] = {
    Field.SENT: (64, "Q"),
    Field.STATE: (72, "I"),
    Field.STALLED: (76, "I"),
    Field.RECEIVED: (128, "Q"),
    Field.CLOSED: (136, "Q"),
    Field.BUSY: (144, "q"),
    Field.REQUESTS: (152, "Q"),
    Field.HEARTBEAT: (160, "Q"),
    Field.LOST: (168, "Q"),
}

MESSAGE = struct.Struct("=BBBBIQ48s")
SCOREBOARD_HEAD = struct.Struct("=IIII")
CONTROL = struct.Struct("=IIIiII12Q")
LEDGER_HEAD = struct.Struct("=IIQQ")  # magic, version, capacity, next
# cookie, time, worker, pid, generation, slot, detail, reserved, event
LEDGER_ENTRY = struct.Struct("=QQIIHHHBB")
HEIR_HEAD = struct.Struct("=II")  # how many arguments, how many variables


@dataclass(slots=True)
class Message:
    """One message of a channel, without its file descriptors."""

    kind: int = Kind.CONNECTION
    count: int = 1
    flags: int = 0
    accepted_ns: int = 0
    peer: bytes = b""
    version: int = PROTOCOL

    def pack(self) -> bytes:
        """The 64 bytes; a peer address longer than 48 bytes is cut."""
        peer = self.peer[:PEER_SIZE]
        return MESSAGE.pack(
            self.version, self.kind, self.count, self.flags, len(peer), self.accepted_ns, peer
        )

    @classmethod
    def unpack(cls, data: bytes) -> Message:
        """Read 64 bytes; struct.error for any other length."""
        version, kind, count, flags, length, accepted_ns, peer = MESSAGE.unpack(data)
        return cls(kind, count, flags, accepted_ns, peer[: min(length, PEER_SIZE)], version)


class Taken(NamedTuple):
    """What ``take`` brought: the file descriptors are the caller's."""

    kind: int
    flags: int
    accepted_ns: int
    peer: bytes
    fds: list[int]


@dataclass(slots=True)
class Candidate:
    """One worker as a policy sees it (``struct rr_candidate``)."""

    pending: int = 0
    inflight: int = 0
    capacity: int = 0
    eligible: bool = False
    fresh: bool = False
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Control:
    """One message of a dispatcher's control socket, without its file descriptors."""

    kind: int
    sequence: int = 0
    result: int = 0
    worker: int = 0
    listener: int = 0
    values: tuple[int, ...] = ()
    version: int = CONTROL_VERSION

    def pack(self) -> bytes:
        """The 120 bytes; values that were not given are 0."""
        rest = (0,) * (CONTROL_VALUES - len(self.values))
        return CONTROL.pack(
            self.version, self.kind, self.sequence, self.result, self.worker, self.listener,
            *self.values, *rest,
        )  # fmt: skip

    @classmethod
    def unpack(cls, data: bytes) -> Control:
        """Read 120 bytes; struct.error for any other length."""
        version, kind, sequence, result, worker, listener, *values = CONTROL.unpack(data)
        return cls(kind, sequence, result, worker, listener, tuple(values), version)


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """A process to start. ``fds`` are pairs (mine, its); everything else is closed in the child.
    ``own_pid`` names a variable that is to hold the child's pid.
    """

    program: str
    arguments: list[str]
    environment: dict[str, str]
    cwd: str | None = None
    fds: list[tuple[int, int]] = field(default_factory=list)
    lifeline: int | None = None
    setsid: bool = True
    nofile: tuple[int, int] | None = None
    cores: list[int] | None = None
    own_pid: str | None = None


def heir_command(
    program: str, cwd: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> bytes:
    """What HEIR's memfd holds. Program and cwd are absolute; ValueError beyond the limits."""
    strings = [program, cwd, *arguments, *(f"{key}={text}" for key, text in environment.items())]
    data = b"".join(os.fsencode(text) + b"\0" for text in strings)
    data = HEIR_HEAD.pack(len(arguments), len(environment)) + data
    if data.count(b"\0", HEIR_HEAD.size) != len(strings):
        raise ValueError("an heir's command with a NUL in it")
    if not 1 <= len(arguments) <= HEIR_ARGUMENTS_MAX or len(environment) > HEIR_VARIABLES_MAX:
        raise ValueError("an heir's command with too many arguments or variables, or none")
    if len(data) > HEIR_COMMAND_MAX:
        raise ValueError(f"an heir's command of more than {HEIR_COMMAND_MAX} bytes")
    return data
