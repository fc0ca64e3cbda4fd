"""Out of descriptors: nothing is dropped, the listener pauses, and it goes on as soon as it can."""

from __future__ import annotations

import errno
import resource
import sys

import pytest

from rrdispatch._core.layout import ControlKind
from rrdispatch.dispatch import process

from .rig import MS, Rig, answer_of, rig

# Root is not bound by the limit on descriptors in flight; the kernel asks for these two.
DROP = """
import ctypes, os, sys
for capability in (21, 24):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def lowest_free(dispatcher: Rig) -> int:
    used = set(dispatcher.fds())
    return next(number for number in range(len(used) + 1) if number not in used)


def test_accept_without_room_in_the_fd_table(dispatcher: Rig):
    dispatcher.listen()
    (worker,) = dispatcher.add(1)
    pid = dispatcher.dispatcher.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    assert soft == hard
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free(dispatcher), hard))
    clients = dispatcher.connect_many(3)
    pauses = [dispatcher.event(ControlKind.ACCEPT_ERROR) for _ in range(3)]
    assert [pause.values[0] for pause in pauses] == [10 * MS, 20 * MS, 40 * MS]
    assert {pause.result for pause in pauses} == {-errno.EMFILE}
    assert dispatcher.ping().accepted == 0
    assert dispatcher.ping().accept_errors >= 3
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    for _ in range(3):
        worker.take().answer()
    assert answer_of(clients) == ["0"] * 3


def test_the_longest_pause_is_half_a_second(dispatcher: Rig):
    dispatcher.listen()
    dispatcher.add(1)
    pid = dispatcher.dispatcher.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free(dispatcher), hard))
    dispatcher.connect()
    pauses = [dispatcher.event(ControlKind.ACCEPT_ERROR).values[0] for _ in range(9)]
    assert pauses[-2:] == [500 * MS, 500 * MS]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def test_too_many_descriptors_in_flight(kind: str, monkeypatch: pytest.MonkeyPatch):
    """ETOOMANYREFS: a worker is full for now; what was accepted is held, and given later."""
    plain = process.command(kind)
    monkeypatch.setattr(
        process, "command", lambda _: [sys.executable, "-I", "-S", "-c", DROP, *plain]
    )
    with rig(kind, nofile=(64, 64)) as made:
        made.settings(queue_limit=69)
        made.listen()
        workers = made.add(2)
        clients = made.connect_many(120)
        made.event(ControlKind.FULL)
        ping = made.ping()
        assert ping.accepted <= 70
        assert ping.accepted - ping.sent <= 1
        for _ in clients:
            made.until(lambda: any(worker.pending() for worker in workers))
            next(worker for worker in workers if worker.pending()).take().answer()
        assert set(answer_of(clients)) == {"0", "1"}
        assert made.ping()[1:6] == (120, 120, 0, 0, 0)


def test_its_soft_limit_is_its_hard_limit(kind: str):
    with rig(kind, nofile=(100, 333)) as made:
        limits = resource.prlimit(made.dispatcher.pid, resource.RLIMIT_NOFILE)
        assert limits == (333, 333)


@pytest.mark.parametrize("listeners", [0, 1, 3])
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_it_holds_exactly_the_descriptors_that_it_should(
    dispatcher: Rig, listeners: int, workers: int
):
    for _ in range(listeners):
        dispatcher.listen()
    bare = len(dispatcher.fds())
    # 0, 1, 2; control, epoll, /dev/null; the listeners
    assert bare == 3 + 3 + listeners
    dispatcher.add(workers)
    # pidfd, scoreboard, lifeline, both ends of each channel; Python's mmap duplicates
    own = 4 if dispatcher.kind == "python" else 3
    assert len(dispatcher.fds()) == bare + workers * (own + 2 * listeners)


def test_descriptors_go_with_the_workers(dispatcher: Rig):
    dispatcher.listen()
    before = dispatcher.fds()
    for _ in range(3):
        added = dispatcher.add(2, process=True)
        dispatcher.connect_many(6)
        for worker in added:
            worker.kill()
            dispatcher.event(ControlKind.DEAD, worker)
        dispatcher.add(1, process=True)
        for worker in added:
            dispatcher.ask(ControlKind.WORKER_REMOVE, worker=worker.id)
        last = dispatcher.workers[-1]
        answer_of(dispatcher.clients)
        last.kill()
        dispatcher.ask(ControlKind.WORKER_REMOVE, worker=last.id)
        for client in dispatcher.clients:
            client.close()
        dispatcher.clients.clear()
    assert dispatcher.fds() == before
