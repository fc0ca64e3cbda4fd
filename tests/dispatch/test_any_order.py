"""Requests of every kind in any order, with fds of every kind: each is answered, the dispatcher
goes on and ends as it should, and both dispatchers answer alike.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rrdispatch import _core
from rrdispatch._core.layout import CONTROL_FDS, Control, ControlKind, Kind, Message

from .conftest import KINDS
from .rig import Rig, rig

K = ControlKind
# Answered when it is done: how soon is not the same in both.
LATER = (K.LISTENER_CLOSE, K.WORKER_DRAIN, K.WORKER_REMOVE)
COMMAND = struct.pack("=II", 1, 1) + b"/bin/true\0/\0true\0A=1\0"


class Step(NamedTuple):
    """One message, or only its first bytes."""

    kind: int
    worker: int
    listener: int
    values: tuple[int, ...]
    fds: tuple[str, ...]
    version: int = 1
    size: int | None = None


class Things:
    """Fds of every kind that a primary may send, by name."""

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}
        self.socks: list[socket.socket] = []
        for name in "ab":
            sender, receiver = _core.channel_pair()
            self.fds |= {f"sender {name}": sender, f"receiver {name}": receiver}
            # What somebody has sent before.
            with suppress(OSError):
                _core.send(sender, Message(kind=Kind.CONNECTION, count=1).pack(), [receiver])
            self.fds[f"board {name}"] = _core.scoreboard_create(0, 0)
            self.fds[f"pidfd {name}"], self.fds[f"lifeline {name}"] = os.pipe()
            listener = socket.create_server(("127.0.0.1", 0))
            self.socks.append(listener)
            self.fds[f"listener {name}"] = listener.fileno()
        self.fds["command"] = os.memfd_create("command")
        os.write(self.fds["command"], COMMAND)
        self.fds["no command"] = os.memfd_create("no command")
        self.fds["null"] = os.open(os.devnull, os.O_RDWR)
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socks += [left, right]
        self.fds["seqpacket"] = left.fileno()

    def close(self) -> None:
        """Close them all."""
        theirs = {sock.fileno() for sock in self.socks}
        for fd in set(self.fds.values()) - theirs:
            os.close(fd)
        for sock in self.socks:
            sock.close()


@contextmanager
def things() -> Iterator[Things]:
    """Things that are closed in the end."""
    made = Things()
    try:
        yield made
    finally:
        made.close()


with things() as some:
    NAMES = sorted(some.fds)


def fds_of(name: str) -> tuple[str, ...]:
    """What a WORKER_ADD carries."""
    return tuple(f"{what} {name}" for what in ("pidfd", "board", "lifeline", "sender", "receiver"))


VALUES = st.one_of(
    st.integers(0, 3),
    st.sampled_from([16, 17, 69, 70, 10**6, (1 << 32) - 1, 1 << 32, 1 << 63, (1 << 64) - 1]),
)
FDS = st.one_of(
    st.just(()),
    st.sampled_from([fds_of("a"), fds_of("b"), ("listener a",), ("listener b",), ("command",)]),
    st.sampled_from([fds_of("a")[3:], fds_of("b")[3:]]),
    st.lists(st.sampled_from(NAMES), max_size=9).map(tuple),
    st.just(("null",) * CONTROL_FDS),
)
STEPS = st.builds(
    Step,
    kind=st.one_of(
        st.sampled_from([kind for kind in K if kind not in (K.STOP, *range(20, 30))]),
        st.sampled_from([0, 16, 19, 20, 29, (1 << 32) - 1]),
    ),
    worker=st.sampled_from([0, 1, 2, 3, (1 << 32) - 1]),
    listener=st.sampled_from([0, 1, 2, 15, 16, (1 << 32) - 1]),
    values=st.lists(VALUES, max_size=12).map(tuple),
    fds=FDS,
    version=st.sampled_from([1] * 9 + [0]),
    size=st.sampled_from([None] * 9 + [0, 40, 400]),
)
ADD_A = Step(K.WORKER_ADD, 1, 0, (0, 0), fds_of("a"))
ADD_BARE = Step(K.WORKER_ADD, 1, 0, (0, 0), fds_of("a")[:3])
CHANNEL = Step(K.CHANNEL_ADD, 1, 0, (), fds_of("a")[3:])
LISTEN = Step(K.LISTENER_ADD, 0, 0, (), ("listener a",))
READY = Step(K.WORKER_READY, 1, 0, (0, 16), ())


MOMENT, LONG = 10**6, 1 << 40


def times(values: tuple[int, ...]) -> tuple[int, ...]:
    """Of a close: in a moment, for which we wait, or in none of the steps to come. In between what
    is asked next would find it done in one of both.
    """
    quiet, limit = (*values[:2], 0, 0)[:2]
    if min(quiet, limit) <= MOMENT:
        return quiet, min(limit, MOMENT)
    return max(quiet, LONG), max(limit, LONG)


def say(dispatcher: Rig, step: Step, fds: Sequence[int], sequence: int) -> int | None:
    """The result, None if there is none yet."""
    kept = step.values
    if step.kind == K.SETTINGS:
        kept = kept[:6]
    elif step.kind == K.LISTENER_CLOSE:
        kept = times(kept)
    soon = step.kind == K.LISTENER_CLOSE and kept[1] <= MOMENT
    message = Control(
        step.kind,
        sequence,
        worker=step.worker,
        listener=step.listener,
        values=kept,
        version=step.version,
    ).pack()
    data = message if step.size is None else message.ljust(step.size, b"\0")[: step.size]
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    with dispatcher.raw() as raw:
        raw.sendmsg([data], rights)
    if step.kind in LATER and step.size is None and step.version == 1 and not soon:
        dispatcher.ping()
        answer = dispatcher._answers.pop(sequence, None)
        return None if answer is None else answer.result
    return dispatcher.answer(0 if step.size == 0 else sequence).result


def alike(step: Step, result: int | None) -> int:
    """What both have to say; that a first question is done already is a matter of time."""
    if step.kind in LATER and result in (None, -errno.EALREADY):
        return 0
    return result or 0


def run(kind: str, steps: Sequence[Step]) -> list[int]:
    """The results of one dispatcher, which has to go on, and to end with 0."""
    with things() as made, rig(kind) as dispatcher:
        results = []
        for number, step in enumerate(steps):
            fds = [made.fds[name] for name in step.fds]
            results.append(alike(step, say(dispatcher, step, fds, 1000 + number)))
        assert dispatcher.ping().now > 0
        return results


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(STEPS, max_size=25))
@example(
    steps=[
        LISTEN,
        ADD_A,
        READY,
        Step(K.KEEP, 1, 0, (1,), ("null",)),
        Step(K.INHERIT, 1, 0, (3, 1), ()),
    ]
)
@example(
    steps=[ADD_A, READY, Step(K.WORKER_DRAIN, 1, 0, (), ()), READY, Step(K.INHERIT, 1, 0, (2,), ())]
)
@example(steps=[LISTEN, ADD_BARE, CHANNEL, CHANNEL, READY, Step(K.INHERIT, 1, 0, (2,), ())])
@example(
    steps=[Step(K.HEIR, 0, 0, (3, 1, 1), ("command",)), Step(K.HEIR, 0, 0, (17, 1), ("command",))]
)
def test_both_answer_alike_whatever_comes(steps: list[Step]):
    results = [run(kind, steps) for kind in KINDS]
    for other in results[1:]:
        assert other == results[0]
