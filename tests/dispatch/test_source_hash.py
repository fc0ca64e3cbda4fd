"""``source-hash`` with real connections: one client, one worker, as long as that can take."""

from __future__ import annotations

import os
import resource
import socket

import pytest

from rrdispatch._core.layout import Candidate, ControlKind, Policy
from rrdispatch.dispatch import policy
from rrdispatch.dispatch.peers import peer_of

from .rig import MS, NEVER, Rig
from .test_policy import inet, inet6
from .workers import LIMIT

CLIENTS = [f"127.0.0.{number}" for number in range(1, 41)]


@pytest.fixture
def sticky(dispatcher: Rig) -> Rig:
    dispatcher.settings(Policy.SOURCE_HASH)
    dispatcher.listen()
    return dispatcher


def order(client: str, slots: list[int]) -> list[int]:
    """That client's own order of these slots."""
    source = policy.source(inet(client))
    left = [Candidate(eligible=True, slot=slot) for slot in slots]
    return [left.pop(policy.pick_source(left, source)).slot for _ in slots]


def come(rig: Rig, client: str, listener: int = 0) -> None:
    """One connection from there, accepted."""
    before = rig.ping().accepted
    sock = socket.socket()
    sock.settimeout(LIMIT)
    rig.clients.append(sock)
    sock.bind((client, 0))
    sock.connect(rig.listeners[listener].getsockname())
    rig.accepted(before + 1)


def who(rig: Rig, client: str, listener: int = 0) -> int:
    """The slot that gets a connection from there, and takes it."""
    come(rig, client, listener)
    (worker,) = [one for one in rig.workers if listener in one.channels and one.pending(listener)]
    worker.take(listener).close()
    return worker.slot


def places(rig: Rig) -> dict[str, int]:
    return {client: who(rig, client) for client in CLIENTS}


def test_a_client_meets_the_same_worker_again(sticky: Rig):
    sticky.add(4)
    found = places(sticky)
    assert found == {client: order(client, [0, 1, 2, 3])[0] for client in CLIENTS}
    assert set(found.values()) == {0, 1, 2, 3}
    assert places(sticky) == found


def test_a_worker_that_goes_moves_its_own_clients_only(sticky: Rig):
    workers = sticky.add(4)
    before = places(sticky)
    sticky.ask(ControlKind.WORKER_PARK, worker=workers[2].id)
    for client, slot in places(sticky).items():
        assert slot == order(client, [0, 1, 3])[0]
        assert slot == before[client] or before[client] == 2
    sticky.ready(workers[2])
    assert places(sticky) == before


def test_a_worker_that_comes_takes_its_part_only(sticky: Rig):
    sticky.add(3)
    before = places(sticky)
    sticky.add(1)
    after = places(sticky)
    moved = {client for client in CLIENTS if after[client] != before[client]}
    assert {after[client] for client in moved} == {3}
    assert 0 < len(moved) < len(CLIENTS) / 2


def test_a_successor_has_the_place_of_its_slot(sticky: Rig):
    old = sticky.add(3)
    before = places(sticky)
    for worker in old:
        new = sticky.new_worker(worker.slot, generation=2)
        sticky.hand_over(new)
        sticky.ready(new)
        sticky.ask(ControlKind.WORKER_PARK, worker=worker.id)
    assert places(sticky) == before


def test_a_full_worker_is_passed_over_in_the_clients_order(dispatcher: Rig):
    dispatcher.settings(Policy.SOURCE_HASH, queue_limit=2)
    dispatcher.listen()
    workers = dispatcher.add(3)
    for client in CLIENTS[:6]:
        for _ in range(6):
            come(dispatcher, client)
        assert [worker.pending() for worker in workers] == [2, 2, 2]
        first, second, third = (workers[slot] for slot in order(client, [0, 1, 2]))
        for worker in (third, second):
            worker.take().close()
        come(dispatcher, client)
        assert (second.pending(), third.pending()) == (2, 1)
        for worker in workers:
            while worker.pending():
                worker.take().close()
        assert first.pending() == 0


@pytest.mark.parametrize("batch", [1, 8])
def test_what_waits_for_a_stalled_worker_goes_to_the_next_in_order(dispatcher: Rig, batch: int):
    dispatcher.settings(Policy.SOURCE_HASH, stall=NEVER)
    dispatcher.listen()
    workers = dispatcher.add(4, batch=batch)
    client = CLIENTS[0]
    first, second, *_ = order(client, [0, 1, 2, 3])
    # Who has something in hand is taken for stalled five times as soon: the second one is not yet.
    come(dispatcher, client)
    workers[first].take()
    for _ in range(5):
        come(dispatcher, client)
    dispatcher.settings(Policy.SOURCE_HASH, stall=600 * MS)
    dispatcher.until(lambda: dispatcher.stats(workers[first]).moved_away == 5, "five moved")
    dispatcher.settings(Policy.SOURCE_HASH, stall=NEVER)
    dispatcher.until(lambda: dispatcher.stats(workers[second]).pending == 5, "five arrived")
    others = [worker for worker in workers if worker.slot not in (first, second)]
    assert [worker.pending() for worker in others] == [0, 0]


def test_of_batch_workers_too(sticky: Rig):
    workers = sticky.add(3, batch=4)
    for _ in range(3):
        for client in CLIENTS[:12]:
            come(sticky, client)
    for worker in workers:
        mine = [client for client in CLIENTS[:12] if order(client, [0, 1, 2])[0] == worker.slot]
        assert sticky.stats(worker).sent == 3 * len(mine)


def test_among_those_who_have_a_channel(dispatcher: Rig):
    dispatcher.settings(Policy.SOURCE_HASH)
    dispatcher.listen()
    dispatcher.listen()
    dispatcher.add(2)
    dispatcher.add(2, listeners=[1])
    for client in CLIENTS[:10]:
        assert who(dispatcher, client, 0) == order(client, [0, 1])[0]
        assert who(dispatcher, client, 1) == order(client, [0, 1, 2, 3])[0]


def test_ipv6(dispatcher: Rig):
    dispatcher.settings(Policy.SOURCE_HASH)
    dispatcher.listen("inet6")
    workers = dispatcher.add(4)
    dispatcher.connect_many(12)
    dispatcher.accepted(12)
    some = [Candidate(eligible=True, slot=slot) for slot in range(4)]
    first = policy.pick_source(some, policy.source(inet6("::1")))
    assert [worker.pending() for worker in workers] == [12 * (slot == first) for slot in range(4)]


def test_a_unix_client_has_no_address_and_goes_in_turn(dispatcher: Rig, tmp_path):
    dispatcher.settings(Policy.SOURCE_HASH)
    dispatcher.listen(str(tmp_path / "app.sock"))
    workers = dispatcher.add(4)
    dispatcher.connect_many(40)
    dispatcher.accepted(40)
    assert [worker.pending() for worker in workers] == [10] * 4


def test_the_peer_of_a_connection_is_known_without_a_spare_descriptor():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, (host, _) = listener.accept()
    with client, server:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = os.dup(client.fileno())
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
        try:
            found = peer_of(server.fileno())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert policy.source(found) == policy.source(inet(host))
        assert server.getpeername() == client.getsockname()
