"""The policies in C and in Python give what the words say, over random workers."""

from __future__ import annotations

import importlib
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrdispatch import _core
from rrdispatch._core.layout import Candidate, Policy
from rrdispatch.dispatch import policy

Pick = Callable[[int, Sequence[Candidate], int, int, int], int]

PICKS: dict[str, Pick] = {"python": policy.pick}
TWINS: dict[str, Any] = {"python": policy}
if _core.NATIVE:
    TWINS["c"] = importlib.import_module("rrdispatch._core.native")
    PICKS["c"] = TWINS["c"].pick

SMALL = st.integers(0, 12)
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        pending=st.one_of(st.just(0), SMALL),
        inflight=SMALL,
        capacity=st.one_of(st.just(0), st.integers(1, 6)),
        eligible=st.booleans(),
        fresh=st.booleans(),
    ),
    max_size=9,
)


def fewest_of(candidates: Sequence[Candidate]) -> int:
    return min((one.pending + one.inflight for one in candidates if one.eligible), default=0)


def first(order: Sequence[int], condition: Callable[[int], bool]) -> int:
    return next((index for index in order if condition(index)), -1)


def said(policy: int, candidates: Sequence[Candidate], turn: int, fewest: int, band: int) -> int:
    """The documented words, one after another, without any cleverness."""
    count = len(candidates)
    turn = turn if 0 <= turn < count else 0
    order = [(turn + step) % count for step in range(count)]
    order = [index for index in order if candidates[index].eligible]
    if not order:
        return -1
    if policy == Policy.STRICT:
        return order[0]
    if policy == Policy.LEAST_CONNECTIONS:
        return min(order, key=lambda i: candidates[i].pending + candidates[i].inflight)

    def load(index: int) -> int:
        return candidates[index].pending + candidates[index].inflight

    empty = [index for index in order if candidates[index].pending == 0]
    moving = [index for index in order if index in empty or candidates[index].fresh]
    near = [index for index in moving if load(index) <= fewest + band]
    for choice in (
        first(near, lambda i: not candidates[i].capacity or load(i) < candidates[i].capacity),
        first(near, lambda i: i in empty and candidates[i].fresh),
        first(near, lambda i: i not in empty),
        first(near, lambda _: True),
        first(empty, lambda _: True),
    ):
        if choice >= 0:
            return choice
    return min(set(order) - set(empty), key=lambda i: (candidates[i].pending, order.index(i)))


@pytest.mark.parametrize("name", PICKS)
@pytest.mark.parametrize("which", list(Policy))
@given(candidates=CANDIDATES, turn=st.integers(-1, 10), band=st.integers(0, 8))
def test_a_pick_is_what_the_words_say(name, which, candidates, turn, band):
    fewest = fewest_of(candidates)
    picked = PICKS[name](which, candidates, turn, fewest, band)
    assert picked == said(which, candidates, turn, fewest, band)


@pytest.mark.parametrize("name", PICKS)
@pytest.mark.parametrize("which", list(Policy))
@given(candidates=CANDIDATES, turn=st.integers(0, 8))
def test_only_the_eligible_are_picked(name, which, candidates, turn):
    picked = PICKS[name](which, candidates, turn, fewest_of(candidates), 8)
    eligible = [index for index, one in enumerate(candidates) if one.eligible]
    assert picked in eligible if eligible else picked == -1


@pytest.mark.parametrize("name", PICKS)
def test_the_largest_numbers_do_not_overflow(name):
    most = (1 << 32) - 1
    full = Candidate(pending=most, inflight=most, capacity=most, eligible=True)
    idle = Candidate(eligible=True)
    for which in Policy:
        assert PICKS[name](which, [full], 0, most, most) == 0
    assert PICKS[name](Policy.LEAST_CONNECTIONS, [full, idle], 0, 0, most) == 1
    assert PICKS[name](Policy.ROUND_ROBIN, [full, idle], 0, 0, most) == 1


@pytest.mark.parametrize("name", PICKS)
@pytest.mark.parametrize("which", list(Policy))
def test_nobody_is_nobody(name, which):
    assert PICKS[name](which, [], 0, 0, 8) == -1


def inet(address: str, port: int = 0) -> bytes:
    """As accept(2) gives it."""
    return struct.pack("=HH4s8x", socket.AF_INET, port, socket.inet_aton(address))


def inet6(address: str, port: int = 0) -> bytes:
    packed = socket.inet_pton(socket.AF_INET6, address)
    return struct.pack("=HHI16sI", socket.AF_INET6, port, 0, packed, 0)


PEERS = st.one_of(
    st.binary(max_size=48),
    st.ip_addresses(v=4).map(lambda one: inet(str(one))),
    st.ip_addresses(v=6).map(lambda one: inet6(str(one))),
    st.ip_addresses(v=4).map(lambda one: inet6(f"::ffff:{one}")),
)
PLACES = st.lists(
    st.builds(Candidate, eligible=st.booleans(), slot=st.integers(0, 65535)), max_size=9
)


@pytest.mark.skipif(not _core.NATIVE, reason="there is no C to compare with")
@given(peer=PEERS, candidates=PLACES)
def test_a_source_is_the_same_in_c_and_python(peer, candidates):
    source = policy.source(peer)
    assert TWINS["c"].source(peer) == source
    picked = policy.pick_source(candidates, source)
    assert TWINS["c"].pick_source(candidates, source) == picked
    eligible = [index for index, one in enumerate(candidates) if one.eligible]
    assert picked in eligible if eligible else picked == -1


@pytest.mark.parametrize("name", TWINS)
def test_a_source_is_the_address_and_nothing_else(name):
    source = TWINS[name].source
    assert source(inet("127.0.0.1")) == source(inet("127.0.0.1", 9)) == 0xF98CD2CA4F56E816
    assert source(inet6("::1")) == source(inet6("::1", 9)) == 0x1AF7B85A5EEF58E4
    assert source(inet6("::ffff:127.0.0.1")) == source(inet("127.0.0.1"))
    assert source(struct.pack("=H", socket.AF_UNIX) + b"/a") == source(b"") == 0


@pytest.mark.parametrize("name", TWINS)
@given(
    slots=st.sets(st.integers(0, 255), min_size=2, max_size=16),
    clients=st.lists(st.integers(1, (1 << 64) - 1), min_size=1, max_size=40),
    data=st.data(),
)
def test_who_leaves_moves_nobody_else(name, slots, clients, data):
    pick = TWINS[name].pick_source
    gone = data.draw(st.sampled_from(sorted(slots)))
    every = [Candidate(eligible=True, slot=slot) for slot in sorted(slots)]
    fewer = [one for one in every if one.slot != gone]
    for client in clients:
        before = every[pick(every, client)].slot
        after = fewer[pick(fewer, client)].slot
        assert after == before or before == gone
