"""Whose turn it is: pure functions of the candidates, the twin of ``csrc/policy.c``.

Reads no clock and calls nothing; a test compares every answer with ``rr_pick`` over random inputs.
"""

from __future__ import annotations

import socket
import struct
import sys
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
    Policy.SOURCE_HASH: _round_robin,  # of a client without an address
}

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_IPV4 = struct.Struct("=HH4s8x")
_IPV6 = struct.Struct("=HHI16sI")
_MAPPED = b"\0" * 10 + b"\xff\xff"


def _mixed(value: int) -> int:
    """The last step of splitmix64: each bit of the input turns half of the output's."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _WORD
    return value ^ value >> 31


def source(peer: bytes) -> int:
    """A number for the address of a client, without its port; 0 for what has none."""
    family = int.from_bytes(peer[:2], sys.byteorder)
    if family == socket.AF_INET and len(peer) >= _IPV4.size:
        address: bytes = _IPV4.unpack_from(peer)[2]
    elif family == socket.AF_INET6 and len(peer) >= _IPV6.size:
        # An IPv4 address is the same one on a dual-stack socket.
        address = _IPV6.unpack_from(peer)[3].removeprefix(_MAPPED)
    else:
        return 0
    hash_of = 0xCBF29CE484222325  # FNV-1a
    for byte in address:
        hash_of = (hash_of ^ byte) * 0x100000001B3 & _WORD
    return _mixed(hash_of) or 1


def pick_source(candidates: Sequence[Candidate], source: int) -> int:
    """Index of the first eligible worker in the order of that client, or -1.

    Each client has an order of its own over all slots: one that goes or comes moves nobody but
    those whose first it is. Of two workers of a slot the later one, which is the newer.
    """
    best, most = -1, -1
    for index, one in enumerate(candidates):
        if one.eligible:
            weight = _mixed(source + (one.slot + 1) * _GOLDEN & _WORD)
            if weight >= most:
                best, most = index, weight
    return best


def goes_in_turn(policy: int, keep_up: bool, spread: int, rounds: int, band: int) -> bool:
    """Every pick of the next `rounds` turns is whoever is next, for all that is known now.

    All are eligible and stay so, the loads differ by `spread`, and `keep_up` says that each takes
    what it is given and stays below its capacity.
    """
    if policy == Policy.STRICT:
        return True
    if policy == Policy.SOURCE_HASH:
        return False
    if policy == Policy.LEAST_CONNECTIONS:
        return not spread
    return keep_up and spread + rounds - 1 <= band


def pick(policy: int, candidates: Sequence[Candidate], turn: int, fewest: int, band: int) -> int:
    """Index of the worker to take, or -1 if nobody is eligible; `turn` is looked at first."""
    if not 0 <= turn < len(candidates):
        turn = 0
    return PICKS[policy](candidates, turn, fewest + band)
