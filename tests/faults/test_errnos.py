"""Every errno of accept(2), and those of sendmsg(2) that a full kernel gives: both dispatchers."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Iterator

import pytest

from rrdispatch._core.layout import ControlKind
from rrdispatch.dispatch import process
from tests.dispatch.conftest import KINDS
from tests.dispatch.rig import MS, Rig, answer_of, rig
from tests.faults.inject import Faults

NEXT = (
    "ECONNABORTED", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "EHOSTUNREACH",
    "EOPNOTSUPP", "ENETUNREACH", "EPERM", "EINTR",
)  # fmt: skip
PAUSE = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EIO")  # the last: one that nobody knows
FATAL = ("EBADF", "EINVAL", "ENOTSOCK")
FULL = ("EAGAIN", "ETOOMANYREFS", "ENOBUFS", "ENOMEM")


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    return Faults(tmp_path_factory.mktemp("inject"))


@pytest.fixture(params=KINDS)
def made(
    request: pytest.FixtureRequest, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Rig]:
    plain = process.command(request.param)
    words = [f"{name}={value}" for name, value in faults.environment.items()]
    program = shutil.which("env")
    assert program is not None
    monkeypatch.setattr(process, "command", lambda _: [program, *words, *plain])
    faults.accept(0, 0)
    faults.send(0, 0)
    with rig(request.param) as found:
        found.settings()
        yield found
        assert faults.left() == (0, 0), "the faults were met"
        assert found.ping().lost == 0


@pytest.mark.parametrize("name", NEXT)
def test_an_error_of_the_new_connection_means_the_next(
    made: Rig, faults: Faults, name: str
) -> None:
    made.listen()
    (worker,) = made.add(1)
    began = time.monotonic()
    faults.accept(getattr(errno, name), 3)
    clients = made.connect_many(2)
    for _ in clients:
        worker.take().answer()
    assert answer_of(clients) == ["0", "0"]
    assert made.ping().accept_errors == (0 if name == "EINTR" else 3)
    told = [event for event in made.events if event.kind == ControlKind.ACCEPT_ERROR]
    assert bool(told) is (name != "EINTR")
    assert {(event.result, event.values[0]) for event in told} <= {(-getattr(errno, name), 0)}
    # Once a second at most, without a pause.
    assert len(told) <= 1 + int(time.monotonic() - began)
    assert made.count(ControlKind.LISTENER_FAILED) == 0


@pytest.mark.parametrize("name", PAUSE)
def test_a_shortage_is_a_pause_that_sheds_nobody(made: Rig, faults: Faults, name: str) -> None:
    made.listen()
    (worker,) = made.add(1)
    faults.accept(getattr(errno, name), 4)
    clients = made.connect_many(3)
    pauses = [made.event(ControlKind.ACCEPT_ERROR) for _ in range(4)]
    assert [pause.values[0] for pause in pauses] == [10 * MS, 20 * MS, 40 * MS, 80 * MS]
    assert {pause.result for pause in pauses} == {-getattr(errno, name)}
    for _ in clients:
        worker.take().answer()
    assert answer_of(clients) == ["0"] * 3


@pytest.mark.parametrize("name", FATAL)
def test_a_broken_listener_is_the_end_of_that_one_only(
    made: Rig, faults: Faults, name: str
) -> None:
    made.listen()
    made.listen()
    (worker,) = made.add(1)
    faults.accept(getattr(errno, name), 1)
    made.connect(0)
    failed = made.event(ControlKind.LISTENER_FAILED)
    assert (failed.listener, failed.result) == (0, -getattr(errno, name))
    client = made.connect(1)
    worker.take(1).answer()
    assert answer_of([client]) == ["0"]


@pytest.mark.parametrize("name", FULL)
def test_a_channel_that_takes_nothing_now_is_full_for_now(
    made: Rig, faults: Faults, name: str
) -> None:
    made.listen()
    workers = made.add(2)
    faults.send(getattr(errno, name), 7)
    clients = made.connect_many(6)
    for _ in clients:
        made.until(lambda: any(worker.pending() for worker in workers))
        next(worker for worker in workers if worker.pending()).take().answer()
    assert set(answer_of(clients)) <= {"0", "1"}
    assert made.ping()[1:3] == (6, 6)
