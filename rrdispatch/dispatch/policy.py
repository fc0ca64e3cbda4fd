"""Whose turn it is: pure functions of the candidates, the twin of ``csrc/policy.c``.

Reads no clock and calls nothing; a test compares every answer with ``rr_pick`` over random inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from rrdispatch._core.layout import Candidate, Policy

# How well a worker keeps up: the best rank present gets the connection, in turn.
_KEEPS_UP = 0  # takes what it is given, below its capacity, within the band
_FRESH = 1  # full, but its queue is empty and it took something just now
_MOVING = 2  # full, something waits, but it takes: it may only wait for its time slice
_EMPTY_NEAR = 3  # empty queue, within the band
_EMPTY = 4  # empty queue
_QUEUED = 5  # something waits already: the fewest waiting wins


def _rank(one: Candidate, limit: int) -> int:
    load = one.pending + one.inflight
    if one.pending and (not one.fresh or load > limit):
        return _QUEUED
    if load > limit:
        return _EMPTY
    if not one.capacity or load < one.capacity:
        return _KEEPS_UP
    if one.pending:
        return _MOVING
    return _FRESH if one.fresh else _EMPTY_NEAR


def _round_robin(candidates: Sequence[Candidate], turn: int, limit: int) -> int:
    best, rank_of_best, least = -1, _QUEUED + 1, 0
    for index in chain(range(turn, len(candidates)), range(turn)):
        one = candidates[index]
        if not one.eligible:
            continue
        rank = _rank(one, limit)
        if rank == _KEEPS_UP:
            return index
        if rank < rank_of_best or (rank == rank_of_best == _QUEUED and one.pending < least):
            best, rank_of_best, least = index, rank, one.pending
    return best


def _strict(candidates: Sequence[Candidate], turn: int, _: int) -> int:
    for index in chain(range(turn, len(candidates)), range(turn)):
        if candidates[index].eligible:
            return index
    return -1


def _least_connections(candidates: Sequence[Candidate], turn: int, _: int) -> int:
    best, least = -1, 1 << 33
    for index in chain(range(turn, len(candidates)), range(turn)):
        one = candidates[index]
        if one.eligible and one.pending + one.inflight < least:
            best, least = index, one.pending + one.inflight
    return best


# By policy: a function of the candidates, of who is looked at first, and of the most connections
# that a worker within the band has.
PICKS: dict[int, Callable[[Sequence[Candidate], int, int], int]] = {
    Policy.ROUND_ROBIN: _round_robin,
    Policy.STRICT: _strict,
    Policy.LEAST_CONNECTIONS: _least_connections,
}


def goes_in_turn(policy: int, keep_up: bool, spread: int, rounds: int, band: int) -> bool:
    """Every pick of the next `rounds` turns is whoever is next, for all that is known now.

    All are eligible and stay so, the loads differ by `spread`, and `keep_up` says that each takes
    what it is given and stays below its capacity.
    """
    if policy == Policy.STRICT:
        return True
    if policy == Policy.LEAST_CONNECTIONS:
        return not spread
    return keep_up and spread + rounds - 1 <= band


def pick(policy: int, candidates: Sequence[Candidate], turn: int, fewest: int, band: int) -> int:
    """Index of the worker to take, or -1 if nobody is eligible; `turn` is looked at first."""
    if not 0 <= turn < len(candidates):
        turn = 0
    return PICKS[policy](candidates, turn, fewest + band)
