"""The helper that takes back: what it holds, and what happens when it hangs or dies."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from rrdispatch._core.layout import ControlKind

from .rig import MS, Rig, answer_of
from .workers import Worker, wait_readable


def helpers(dispatcher: Rig) -> list[int]:
    pid = dispatcher.dispatcher.pid
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def waiting(dispatcher: Rig) -> tuple[Worker, Worker]:
    """A dead worker with three connections left and another one that is full: a helper waits."""
    dispatcher.settings(queue_limit=4)
    dispatcher.listen()
    (dead,) = dispatcher.add(1, process=True)
    dead.stop()
    dispatcher.connect_many(4)
    dispatcher.accepted(4)
    dispatcher.settings(queue_limit=1)
    (other,) = dispatcher.add(1)
    dead.kill()
    dispatcher.until(lambda: other.pending() == 1)
    dispatcher.until(lambda: len(helpers(dispatcher)) == 1, "a helper that waits")
    assert dead.pending() == 3
    return dead, other


def finish(dispatcher: Rig, dead: Worker, other: Worker) -> None:
    """All four are answered and nothing of the dead is left."""
    removal = dispatcher.request(ControlKind.WORKER_REMOVE, worker=dead.id)
    while len(other.taken) < 4:
        other.take().answer()
    assert answer_of(dispatcher.clients) == ["1"] * 4
    assert dispatcher.answer(removal).values[0] == 4
    assert dispatcher.ping().lost == 0
    dispatcher.until(lambda: not helpers(dispatcher), "no helper")


def test_it_holds_the_channel_and_its_link_only(dispatcher: Rig, waiting: tuple[Worker, Worker]):
    (helper,) = helpers(dispatcher)
    dispatcher.until(lambda: len(os.listdir(f"/proc/{helper}/fd")) == 2, "two descriptors")
    finish(dispatcher, *waiting)


def test_one_that_hangs_is_given_up_and_what_it_takes_later_is_not_lost(
    dispatcher: Rig, waiting: tuple[Worker, Worker]
):
    dead, other = waiting
    (helper,) = helpers(dispatcher)
    before = dispatcher.ping().abandoned  # on a busy machine it was late once already
    os.kill(helper, signal.SIGSTOP)
    other.take().answer()
    dispatcher.until(lambda: dispatcher.ping().abandoned > before, "given up")
    assert dead.pending() == 3
    # The dispatcher goes on without it.
    client = dispatcher.connect()
    other.take().answer(b"new")
    assert answer_of([client]) == ["new"]
    dispatcher.clients.remove(client)
    client.close()
    other.taken.pop()
    os.kill(helper, signal.SIGCONT)
    finish(dispatcher, dead, other)


def test_one_that_dies_is_replaced(dispatcher: Rig, waiting: tuple[Worker, Worker]):
    dead, other = waiting
    (helper,) = helpers(dispatcher)
    pidfd = os.pidfd_open(helper)
    os.kill(helper, signal.SIGKILL)
    wait_readable(pidfd, "the end of the helper")
    os.close(pidfd)
    finish(dispatcher, dead, other)


def test_without_room_for_its_answer_that_waits(dispatcher: Rig, waiting: tuple[Worker, Worker]):
    """With a full table of descriptors the kernel would drop what the helper brings."""
    dead, other = waiting
    pid = dispatcher.dispatcher.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = set(dispatcher.fds())
    lowest = next(number for number in range(len(used) + 1) if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, limits[1]))
    other.take().answer()
    dispatcher.until(lambda: dead.pending() == 2, "the helper has taken one")
    began = dispatcher.ping().now
    dispatcher.until(lambda: dispatcher.ping().now - began > 50 * MS)
    assert other.pending() == 0
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    finish(dispatcher, dead, other)


def test_it_ends_with_the_dispatcher(dispatcher: Rig, waiting: tuple[Worker, Worker]):
    dead, other = waiting
    (helper,) = helpers(dispatcher)
    pidfd = os.pidfd_open(helper)
    dispatcher.kill_dispatcher()
    wait_readable(pidfd, "the end of the helper")
    os.close(pidfd)
    assert (dead.pending(), other.pending()) == (3, 1)
    dispatcher.replace()
    dispatcher.event(ControlKind.DEAD, dead)
    for _ in range(4):
        other.take().answer()
    assert answer_of(dispatcher.clients) == ["1"] * 4


def test_stop_with_a_helper_at_work_leaves_everything_queued(
    dispatcher: Rig, waiting: tuple[Worker, Worker]
):
    dead, other = waiting
    dispatcher.ask(ControlKind.STOP)
    assert dispatcher.wait_end() == 0
    assert dead.pending() + other.pending() == 4
