"""Whose turn it is: pure functions of the candidates, the twin of ``csrc/policy.c``.

Reads no clock and calls nothing; a test compares every answer with ``rr_pick`` over random inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from rrdispatch._core.layout import Candidate, Policy

# How well a worker keeps up: the best rank present gets the connection, in turn.
_FRESH = 0  # empty queue, full, but was given something just now: it will soon be free
_EMPTY_NEAR = 1  # empty queue, within the band
_EMPTY = 2  # empty queue


def _round_robin(candidates: Sequence[Candidate], turn: int, limit: int) -> int:
    best = [-1, -1, -1]
    queued, least = -1, 1 << 32
    for index in chain(range(turn, len(candidates)), range(turn)):
        one = candidates[index]
        if not one.eligible:
            continue
        if one.pending:
            if one.pending < least:
                queued, least = index, one.pending
            continue
        if one.inflight > limit:
            rank = _EMPTY
        elif not one.capacity or one.inflight < one.capacity:
            # It keeps up: below its capacity and within the band.
            return index
        else:
            rank = _FRESH if one.fresh else _EMPTY_NEAR
        if best[rank] < 0:
            best[rank] = index
    for index in best:
        if index >= 0:
            return index
    return queued


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


def pick(policy: int, candidates: Sequence[Candidate], turn: int, fewest: int, band: int) -> int:
    """Index of the worker to take, or -1 if nobody is eligible; `turn` is looked at first."""
    if not 0 <= turn < len(candidates):
        turn = 0
    return PICKS[policy](candidates, turn, fewest + band)
