"""The lines of a command that waits, without a terminal."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rrdispatch.cli.board import OF_EVENT, Board


def event(kind: str, slot: int, worker: int, **more: Any) -> dict[str, Any]:
    return {"event": kind, "slot": slot, "worker": worker, "pid": 100 + worker, **more}


def test_a_reload_of_one_slot() -> None:
    board = Board("web")
    seen = []
    told = [
        event("worker-ready", 0, 1), event("spawned", 0, 2), event("worker-ready", 0, 2),
        event("parked", 0, 1), event("draining", 0, 1, inflight=3),
        event("exited", 0, 1, how="exit code 0"),
    ]  # fmt: skip
    for each in told:
        assert board.event(each, 10.0)
        seen += board.lines(12.0, 9, 99, colour=False)
    assert seen == [
        "web:0  ready, pid 101",
        "web:0  waiting for ready 2 s, pid 102; ready, pid 101",
        "web:0  ready, pid 102; ready, pid 101",
        "web:0  ready, pid 102; parked, pid 101",
        "web:0  ready, pid 102; draining 3 connections, pid 101",
        "web:0  ready, pid 102; gone (exit code 0), pid 101",
    ]
    assert not board.event({"event": "reloaded"}, 10.0)


def test_stats_know_how_many_connections_are_left() -> None:
    board = Board("web")
    worker = {"slot": 0, "id": 1, "pid": 101, "state": "stopping", "inflight": 1}
    board.stats({"workers": [worker]}, 0.0)
    assert board.drains
    assert board.lines(0.0, 9, 99, colour=False) == ["web:0  draining 1 connection, pid 101"]
    board.event(event("exited", 0, 1), 1.0)
    board.stats({"workers": [worker]}, 2.0)  # asked before, answered after
    assert not board.drains


def test_who_is_ready_does_not_wait_again() -> None:
    board = Board("web")
    worker = {"slot": 0, "id": 1, "pid": 101, "state": "starting", "inflight": 0}
    board.stats({"workers": [worker]}, 0.0)
    board.event(event("worker-ready", 0, 1), 1.0)
    board.stats({"workers": [worker]}, 2.0)  # asked before, answered after
    assert board.lines(2.0, 9, 99, colour=False) == ["web:0  ready, pid 101"]


def test_in_a_small_terminal_what_moves_is_shown() -> None:
    board = Board("web")
    for slot in range(20):
        board.event(event("worker-ready", slot, slot), 0.0)
    board.event(event("draining", 17, 17, inflight=0), 0.0)
    lines = board.lines(0.0, 4, 99, colour=False)
    assert len(lines) == 4
    assert any("web:17" in line and "draining" in line for line in lines)
    assert lines[-1] == "and 17 more"


numbers = st.integers(0, 6)


@given(
    st.lists(st.tuples(st.sampled_from(sorted(OF_EVENT)), numbers, numbers), max_size=40),
    st.integers(1, 8), st.integers(1, 80),
)  # fmt: skip
def test_it_fits_whatever_happens(told: list[tuple[str, int, int]], most: int, wide: int) -> None:
    board = Board("a-name")
    for kind, slot, worker in told:
        board.event(event(kind, slot, worker, how="killed by SIGKILL"), 0.0)
    plain = board.lines(1.0, most, wide, colour=False)
    assert len(plain) <= max(2, most)
    assert all(len(line) <= wide for line in plain)
    coloured = board.lines(1.0, most, wide, colour=True)
    assert [re.sub(r"\033\[[0-9]*m", "", line) for line in coloured] == plain
