"""What both dispatchers note of a connection's way, whatever becomes of its worker."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from rrdispatch import _core, ledger
from rrdispatch._core.layout import ControlKind
from rrdispatch._core.layout import LedgerEvent as Event
from rrdispatch._core.layout import LedgerRole as Role
from rrdispatch.ledger import Entry

from .rig import MS, NEVER, Rig, answer_of, rig

STALL = 20 * MS


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger"
    ledger.create(path, 10_000)
    monkeypatch.setenv(ledger.VARIABLE, str(path))
    return path


@pytest.fixture
def dispatcher(kept: Path, kind: str) -> Iterator[Rig]:
    """One that keeps the ledger."""
    with rig(kind) as made:
        made.settings()
        made.listen()
        yield made


def entries(path: Path, *events: Event) -> list[Entry]:
    book = ledger.read(path)
    assert (book.dropped, book.unsaid) == (0, 0)
    return [one for one in book.entries if one.event in events]


def ways(path: Path) -> Counter[tuple[tuple[Event, int], ...]]:
    """How many connections went which way: (event, worker) one after another."""
    events = (Event.ACCEPTED, Event.SENT, Event.UNSENT, Event.MOVED)
    found: dict[int, list[tuple[Event, int]]] = {}
    for one in entries(path, *events):
        assert one.cookie > 0
        found.setdefault(one.cookie, []).append((Event(one.event), one.worker))
    return Counter(tuple(way) for way in found.values())


def test_accepted_and_sent(dispatcher: Rig, kept: Path):
    one, two = dispatcher.add(2)
    clients = dispatcher.connect_many(6)
    dispatcher.accepted(6)
    assert ways(kept) == {
        ((Event.ACCEPTED, 0), (Event.SENT, one.id)): 3,
        ((Event.ACCEPTED, 0), (Event.SENT, two.id)): 3,
    }
    ports = [one.detail for one in entries(kept, Event.ACCEPTED)]
    assert ports == [client.getsockname()[1] for client in clients]
    (opened,) = entries(kept, Event.OPENED)
    assert (opened.pid, opened.detail) == (dispatcher.dispatcher.pid, Role.DISPATCHER)
    places = {(sent.worker, sent.slot, sent.generation) for sent in entries(kept, Event.SENT)}
    assert places == {(worker.id, worker.slot, worker.generation) for worker in (one, two)}


def test_the_cookie_is_the_connections(dispatcher: Rig, kept: Path):
    (worker,) = dispatcher.add(1)
    dispatcher.connect()
    fd = worker.take().sock.fileno()
    assert {one.cookie for one in entries(kept, Event.ACCEPTED, Event.SENT)} == {
        _core.ledger_cookie(fd)
    }


def test_a_unix_listener(kept: Path, kind: str, tmp_path: Path):
    with rig(kind) as dispatcher:
        dispatcher.settings()
        dispatcher.listen(str(tmp_path / "app.sock"))
        (worker,) = dispatcher.add(1)
        dispatcher.connect_many(3)
        dispatcher.accepted(3)
        assert ways(kept) == {((Event.ACCEPTED, 0), (Event.SENT, worker.id)): 3}
        assert [one.detail for one in entries(kept, Event.ACCEPTED)] == [0, 0, 0]


def test_a_workers_pid_and_its_death(dispatcher: Rig, kept: Path):
    (worker,) = dispatcher.add(1, process=True)
    pid = worker.pid
    worker.kill()
    dispatcher.event(ControlKind.DEAD, worker)
    joined, dead = entries(kept, Event.JOINED, Event.DEAD)
    assert (joined.event, joined.worker, joined.cookie) == (Event.JOINED, worker.id, pid)
    assert (dead.event, dead.worker) == (Event.DEAD, worker.id)


def test_rescued(dispatcher: Rig, kept: Path):
    (dead,) = dispatcher.add(1, process=True)
    dead.stop()
    clients = dispatcher.connect_many(10)
    dispatcher.accepted(10)
    (other,) = dispatcher.add(1, process=True)
    dead.kill()
    assert set(answer_of(clients)) == {"1"}
    dispatcher.ask(ControlKind.WORKER_REMOVE, worker=dead.id)
    way = (Event.ACCEPTED, 0), (Event.SENT, dead.id), (Event.MOVED, dead.id), (Event.SENT, other.id)
    assert ways(kept) == {way: 10}
    reclaimers = {one.pid for one in entries(kept, Event.MOVED)}
    assert dispatcher.dispatcher.pid not in reclaimers
    assert len(entries(kept, Event.TAKING)) >= 10
    closed = len(entries(kept, Event.TOOK_NOTHING)) + 10
    assert len(entries(kept, Event.TAKING)) == closed


def test_put_back(dispatcher: Rig, kept: Path):
    """With nobody ready what was asked for returns to where it was."""
    dispatcher.settings(stall=STALL, heartbeat=NEVER)
    one, two = dispatcher.add(2, process=True)
    one.stop()
    clients = dispatcher.connect_many(8)
    dispatcher.accepted(8)
    two.kill()
    one.kill()
    dispatcher.event(ControlKind.DEAD, one)
    dispatcher.event(ControlKind.DEAD, two)
    (last,) = dispatcher.add(1, process=True)
    assert len(answer_of(clients)) == 8
    dispatcher.ask(ControlKind.WORKER_REMOVE, worker=one.id)
    for way in ways(kept):
        states = [event for event, _ in way[1:]]
        assert states[::2] == [Event.SENT] * len(states[::2])
        assert states[1::2] == [Event.MOVED] * len(states[1::2])
        for (_, sent_to), (_, moved_from) in zip(way[1::2], way[2::2], strict=False):
            assert sent_to == moved_from
    finally_at = {way[-1][1] for way in ways(kept)}
    assert finally_at <= {last.id, two.id}


def test_a_channel_that_takes_nothing(dispatcher: Rig, kept: Path):
    """What could not be sent is said, and then where it went instead."""
    broken, good = dispatcher.add(2)
    with socket.socket(fileno=os.dup(broken.channels[0].receiver)) as channel:
        channel.shutdown(socket.SHUT_RD)
    dispatcher.connect_many(4)
    dispatcher.accepted(4)
    refused = ((Event.ACCEPTED, 0), (Event.SENT, broken.id), (Event.UNSENT, broken.id))
    seen = ways(kept)
    assert all(way[-1] == (Event.SENT, good.id) for way in seen)
    assert any(way[:3] == refused for way in seen)


def test_a_batch(dispatcher: Rig, kept: Path):
    (batch,) = dispatcher.add(1, batch=8)
    dispatcher.ask(ControlKind.WORKER_PARK, worker=batch.id)
    clients = dispatcher.connect_many(8)
    dispatcher.event(ControlKind.FULL)
    dispatcher.ready(batch, batch=8)
    dispatcher.accepted(8)
    (other,) = dispatcher.add(1)
    dispatcher.ask(ControlKind.WORKER_DRAIN, worker=batch.id)
    way = (
        (Event.ACCEPTED, 0), (Event.SENT, batch.id), (Event.MOVED, batch.id), (Event.SENT, other.id)
    )  # fmt: skip
    assert ways(kept) == {way: 8}
    assert sorted(one.detail for one in entries(kept, Event.ACCEPTED)) == sorted(
        client.getsockname()[1] for client in clients
    )


def test_the_next_dispatcher_goes_on(dispatcher: Rig, kept: Path):
    dispatcher.add(1)
    dispatcher.connect_many(3)
    dispatcher.accepted(3)
    first = dispatcher.dispatcher.pid
    dispatcher.kill_dispatcher()
    dispatcher.replace()
    dispatcher.connect_many(2)
    dispatcher.accepted(2)
    pids = [one.pid for one in entries(kept, Event.OPENED)]
    assert pids == [first, dispatcher.dispatcher.pid]
    assert Counter(one.pid for one in entries(kept, Event.SENT)) == dict(
        zip(pids, (3, 2), strict=True)
    )
    assert len(entries(kept, Event.JOINED)) == 2


def test_a_ledger_that_is_none_is_left_alone(kept: Path, kind: str):
    kept.write_bytes(b"nothing")
    with rig(kind) as dispatcher:
        dispatcher.settings()
        dispatcher.listen()
        (worker,) = dispatcher.add(1)
        dispatcher.connect()
        worker.take().answer()
    assert kept.read_bytes() == b"nothing"
