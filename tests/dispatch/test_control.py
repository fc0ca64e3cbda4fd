"""Requests that are wrong are answered with an error, close their fds and change nothing."""

from __future__ import annotations

import array
import errno
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rrdispatch import _core
from rrdispatch._core.layout import CONTROL_SIZE, Control, ControlKind, State

from .rig import Rig, rig

K = ControlKind
WITH_FDS = (K.LISTENER_ADD, K.WORKER_ADD, K.KEEP, K.HEIR, K.CHANNEL_ADD)


def nulls(count: int) -> list[int]:
    return [os.open(os.devnull, os.O_RDWR) for _ in range(count)]


@pytest.fixture
def fds() -> Iterator[list[int]]:
    """Forty descriptors to send."""
    made = nulls(40)
    yield made
    for fd in made:
        os.close(fd)


def say(dispatcher: Rig, data: bytes, fds: list[int]) -> Control:
    """Send bytes as they are; the answer, which has no sequence when none could be read."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sequence = int.from_bytes(data[8:12], "little") if len(data) >= 12 else 0
    with dispatcher.raw() as raw:
        raw.sendmsg([data], rights)
    return dispatcher.answer(sequence)


@pytest.mark.parametrize("count", [0, 1, 40])
@pytest.mark.parametrize("size", [0, 1, 12, 64, 119, 121, 4000])
def test_a_message_of_a_wrong_size(dispatcher: Rig, fds: list[int], size: int, count: int):
    before = dispatcher.fds()
    data = Control(K.PING, 77).pack().ljust(size, b"\1")[:size]
    assert say(dispatcher, data, fds[:count]).result == -errno.EPROTO
    assert dispatcher.ping().workers == 0
    assert dispatcher.fds() == before


@pytest.mark.parametrize("count", [0, 1, 40])
@pytest.mark.parametrize("version", [0, 2, (1 << 32) - 1])
def test_a_message_of_a_wrong_version(dispatcher: Rig, fds: list[int], version: int, count: int):
    before = dispatcher.fds()
    answer = say(dispatcher, Control(K.PING, 5, version=version).pack(), fds[:count])
    assert (answer.kind, answer.sequence, answer.result) == (K.PING, 5, -errno.EPROTO)
    assert dispatcher.fds() == before


@pytest.mark.parametrize("count", [0, 1, 40])
@pytest.mark.parametrize("number", [0, 16, 19, 20, 28, 29, (1 << 32) - 1])
def test_a_message_of_an_unknown_kind(dispatcher: Rig, fds: list[int], number: int, count: int):
    before = dispatcher.fds()
    answer = say(dispatcher, Control(number, 5).pack(), fds[:count])
    assert (answer.kind, answer.sequence, answer.result) == (number, 5, -errno.ENOSYS)
    assert dispatcher.fds() == before


def test_more_fds_than_a_message_may_carry(dispatcher: Rig, fds: list[int]):
    before = dispatcher.fds()
    answer = say(dispatcher, Control(K.WORKER_ADD, 5).pack(), [*fds, *fds])
    assert answer.result == -errno.EPROTO
    assert dispatcher.fds() == before


@pytest.mark.parametrize(
    "request_kind",
    [kind for kind in K if kind < K.STARTED and kind not in WITH_FDS],
)
def test_fds_where_none_belong(dispatcher: Rig, fds: list[int], request_kind: ControlKind):
    before = dispatcher.fds()
    assert dispatcher.refused(request_kind, fds=fds[:3]) == errno.EPROTO
    assert dispatcher.fds() == before


@pytest.mark.parametrize(
    "values",
    [
        (4, 32, 1, 8),
        (0, 0, 1, 8),
        (0, 70, 1, 8),
        (0, 32, 0, 8),
        (0, 32, 1, 1 << 32),
        (0, 32, 1, 8, 0, 1 << 40),
        ((1 << 64) - 1,) * 12,
    ],
)
def test_settings_out_of_range_change_nothing(dispatcher: Rig, values: tuple[int, ...]):
    dispatcher.settings(queue_limit=2)
    assert dispatcher.refused(K.SETTINGS, values=values) == errno.EINVAL
    dispatcher.listen()
    dispatcher.add(1)
    dispatcher.connect_many(5)
    dispatcher.event(K.FULL)
    assert dispatcher.ping().accepted == 2


def test_the_longest_timeouts(dispatcher: Rig):
    most = (1 << 64) - 1
    dispatcher.settings(stall=most, heartbeat=most)
    dispatcher.listen()
    (worker,) = dispatcher.add(1)
    dispatcher.connect()
    dispatcher.accepted(1)
    closing = dispatcher.request(K.LISTENER_CLOSE, listener=0, values=(most, most))
    assert not dispatcher.answered(closing)
    worker.take().close()
    assert not dispatcher.answered(closing)


def test_listeners_that_are_none(dispatcher: Rig, fds: list[int]):
    sock = dispatcher.listen()
    before = dispatcher.fds()

    def add(index: int, *numbers: int) -> int:
        return dispatcher.refused(K.LISTENER_ADD, listener=index, fds=numbers)

    assert add(0, sock.fileno()) == errno.EEXIST
    assert add(16, sock.fileno()) == errno.ERANGE
    assert add(1) == errno.EPROTO
    assert add(1, sock.fileno(), sock.fileno()) == errno.EPROTO
    assert add(1, fds[0]) == errno.ENOTSOCK
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert add(1, datagrams.fileno()) > 0
    assert dispatcher.refused(K.LISTENER_CLOSE, listener=1) == errno.ENOENT
    assert dispatcher.refused(K.LISTENER_CLOSE, listener=1 << 31) == errno.ENOENT
    assert dispatcher.fds() == before


def test_an_index_of_a_listener_is_the_primarys_choice(dispatcher: Rig):
    """A successor is told of those that are left: there may be none at 0. A place is free again."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        dispatcher.ask(K.LISTENER_ADD, listener=1, fds=[sock.fileno()])
        assert dispatcher.refused(K.LISTENER_CLOSE, listener=0) == errno.ENOENT
        assert dispatcher.refused(K.LISTENER_ADD, listener=1, fds=[sock.fileno()]) == errno.EEXIST
        dispatcher.ask(K.LISTENER_CLOSE, listener=1)
        assert dispatcher.refused(K.LISTENER_CLOSE, listener=1) == errno.ENOENT
    with socket.create_server(("127.0.0.1", 0)) as sock:
        dispatcher.ask(K.LISTENER_ADD, listener=1, fds=[sock.fileno()])
        assert dispatcher.refused(K.LISTENER_ADD, listener=1, fds=[sock.fileno()]) == errno.EEXIST
    with socket.socket() as sock:
        assert dispatcher.refused(K.LISTENER_ADD, listener=2, fds=[sock.fileno()]) == errno.EINVAL


def test_workers_that_are_none(dispatcher: Rig, fds: list[int]):
    dispatcher.listen()
    worker = dispatcher.new_worker()
    good = worker.fds()
    before = dispatcher.fds()

    def add(numbers: list[int]) -> int:
        return dispatcher.refused(K.WORKER_ADD, worker=9, fds=numbers)

    for count in (0, 1, 2, 4, 36, 38, 40):
        assert add(fds[:count]) == errno.EPROTO
    memory = os.memfd_create("unsealed")
    os.ftruncate(memory, 4096)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        for place, wrong in ((0, fds[0]), (1, fds[0]), (1, memory), (3, fds[0]), (4, fds[0])):
            add([*good[:place], wrong, *good[place + 1 :]])
        add([*good[:3], datagrams.fileno(), datagrams.fileno()])
    os.close(memory)
    assert dispatcher.fds() == before
    dispatcher.hand_over(worker)
    assert dispatcher.refused(K.WORKER_ADD, worker=worker.id, fds=good) == errno.EEXIST
    assert dispatcher.ping().workers == 1


def test_workers_that_are_unknown_or_in_another_state(dispatcher: Rig):
    dispatcher.listen()
    kinds = (K.WORKER_READY, K.WORKER_PARK, K.WORKER_DRAIN, K.WORKER_REMOVE, K.STATS)
    for kind in kinds:
        assert dispatcher.refused(kind, worker=123) == errno.ESRCH
    worker = dispatcher.new_worker()
    dispatcher.hand_over(worker)
    assert dispatcher.refused(K.WORKER_PARK, worker=worker.id) == errno.EINVAL
    assert dispatcher.refused(K.WORKER_REMOVE, worker=worker.id) == errno.EBUSY
    for values in ((0, 17), (1 << 32, 1)):
        assert dispatcher.refused(K.WORKER_READY, worker=worker.id, values=values) == errno.EINVAL
    dispatcher.ready(worker)
    dispatcher.ask(K.WORKER_DRAIN, worker=worker.id)
    assert dispatcher.refused(K.WORKER_READY, worker=worker.id) == errno.EINVAL
    assert dispatcher.refused(K.WORKER_PARK, worker=worker.id) == errno.EINVAL
    assert dispatcher.stats(worker).state == State.DRAINING


def test_a_second_wait_for_the_same_thing(dispatcher: Rig):
    dispatcher.listen()
    (worker,) = dispatcher.add(1)
    dispatcher.connect()
    dispatcher.accepted(1)
    drain = dispatcher.request(K.WORKER_DRAIN, worker=worker.id)
    assert dispatcher.refused(K.WORKER_DRAIN, worker=worker.id) == errno.EALREADY
    worker.take().close()
    assert dispatcher.answer(drain).result == 0


def test_the_states_of_a_worker_are_on_its_scoreboard(dispatcher: Rig):
    dispatcher.listen()
    worker = dispatcher.new_worker()
    worker.start()
    dispatcher.hand_over(worker)

    def state() -> int:
        return worker.board.load(_core_state())

    assert state() == State.STARTING
    dispatcher.ready(worker)
    assert state() == State.READY
    dispatcher.ask(K.WORKER_PARK, worker=worker.id)
    assert state() == State.PARKED
    dispatcher.ask(K.WORKER_DRAIN, worker=worker.id)
    assert state() == State.DRAINING
    worker.kill()
    dispatcher.event(K.DEAD, worker)
    assert state() == State.DEAD


def _core_state() -> int:
    from rrdispatch._core.layout import Field

    return int(Field.STATE)


def test_a_death_that_only_the_primary_has_seen(dispatcher: Rig):
    """WORKER_REMOVE may come before the dispatcher has looked at the pidfd."""
    dispatcher.listen()
    for _ in range(10):
        (worker,) = dispatcher.add(1, process=True)
        worker.kill()
        dispatcher.ask(K.WORKER_REMOVE, worker=worker.id)
        dispatcher.event(K.DEAD, worker)
    assert dispatcher.ping().workers == 0


def test_a_primary_that_reads_late_gets_every_answer(dispatcher: Rig):
    sequences = []
    for _ in range(40):
        # The dispatcher keeps what does not fit into its socket.
        sequences += [dispatcher.request(K.PING) for _ in range(100)]
        dispatcher.answer(sequences[-1])
    numbers = [dispatcher.answer(sequence).values[0] for sequence in sequences[:-100:100]]
    assert numbers == sorted(numbers)


@pytest.fixture(
    scope="module", params=["c", "python"] if _core.dispatcher_program() else ["python"]
)
def shared(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """One dispatcher for all examples."""
    with rig(request.param) as made:
        made.listen()
        made.add(2)
        yield made


CONTROLS = st.builds(
    Control,
    kind=st.one_of(
        st.sampled_from([kind for kind in K if kind not in (K.STOP, K.LISTENER_CLOSE)]),
        st.integers(0, (1 << 32) - 1).filter(lambda kind: kind not in (K.STOP, K.LISTENER_CLOSE)),
    ),
    sequence=st.just(1 << 31),
    result=st.integers(-(1 << 31), (1 << 31) - 1),
    worker=st.integers(3, (1 << 32) - 1),
    listener=st.integers(0, (1 << 32) - 1),
    values=st.lists(st.integers(0, (1 << 64) - 1), max_size=12).map(tuple),
    version=st.sampled_from([1, 1, 1, 0, 7]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=CONTROLS, count=st.integers(0, 12), size=st.sampled_from([CONTROL_SIZE] * 4 + [40]))
def test_nonsense_is_answered_and_leaves_nothing(shared: Rig, message, count, size):
    before = shared.fds()
    numbers = nulls(count)
    data = message.pack()[:size]
    answer = say(shared, data, numbers)
    for fd in numbers:
        os.close(fd)
    assert answer.sequence == message.sequence
    assert answer.result <= 0
    assert shared.fds() == before
    assert shared.ping().workers == 2
