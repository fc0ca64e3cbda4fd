"""What a worker notes of its connections: taken, first byte, done; each once."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rrdispatch import ledger
from rrdispatch._core.layout import LedgerEvent as Event
from rrdispatch._core.layout import LedgerRole
from rrdispatch.worker.connection import Connection
from rrdispatch.worker.traced import TracedConnection

from .conftest import Bench


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "ledger"
    ledger.create(path, 1000)
    ledger.join(LedgerRole.WORKER, 4, 2, {ledger.VARIABLE: str(path)})
    yield path
    ledger.leave()


@pytest.fixture
def connection(kept: Path, bench: Bench) -> Iterator[Connection]:
    bench.connect()
    taken, _ = bench.listener.accept()
    assert isinstance(taken, TracedConnection)
    yield taken
    taken.close()


def told(path: Path) -> list[Event]:
    """Of the one connection."""
    found = [one for one in ledger.read(path).entries if one.event > Event.TAKING]
    assert {(one.cookie > 0, one.slot, one.generation, one.pid) for one in found} <= {
        (True, 4, 2, os.getpid())
    }
    assert len({one.cookie for one in found}) == 1
    return [Event(one.event) for one in found]


def test_taken_answered_done(kept: Path, bench: Bench, connection: Connection):
    assert told(kept) == [Event.TAKEN]
    connection.send(b"a")
    connection.sendall(b"b")
    connection.sendmsg([b"c"])
    assert told(kept) == [Event.TAKEN, Event.FIRST]
    connection.close()
    connection.close()
    assert told(kept) == [Event.TAKEN, Event.FIRST, Event.DONE]
    assert bench.clients[0].recv(10) == b"abc"
    assert bench.numbers() == (1, 1)


def test_what_was_not_sent_is_no_first_byte(kept: Path, connection: Connection):
    connection.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        connection.send(b"a")
    assert told(kept) == [Event.TAKEN]


def test_given_away(kept: Path, connection: Connection):
    os.close(connection.detach())
    connection.close()
    assert told(kept) == [Event.TAKEN, Event.DONE]


def test_handed_over_with_its_tally(kept: Path, connection: Connection):
    fd, tally = connection.hand_over()
    connection.close()
    assert told(kept) == [Event.TAKEN]
    tally.answers()
    os.close(fd)
    tally.close()
    tally.close()
    assert told(kept) == [Event.TAKEN, Event.FIRST, Event.DONE]


def test_collected(kept: Path, bench: Bench):
    bench.connect()
    taken = [bench.listener.accept()]
    with pytest.warns(ResourceWarning):
        taken.clear()
    gc.collect()
    assert told(kept) == [Event.TAKEN, Event.DONE]


def test_a_forked_child_ends_nothing(kept: Path, connection: Connection):
    pid = os.fork()
    if pid == 0:
        connection.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert told(kept) == [Event.TAKEN]
    connection.close()
    assert told(kept) == [Event.TAKEN, Event.DONE]


def test_without_a_ledger_nothing_is_traced(bench: Bench):
    bench.connect()
    taken, _ = bench.listener.accept()
    assert type(taken) is Connection
    taken.close()
